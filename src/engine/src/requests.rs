//! Requests to the platform outside a deploy: a requester for the accounts and tokens of a run, whose waits are shown beside its progress.
//! Knows which lane each account's requests go through; the loop is `flotilla_deploy::requester`'s.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{ControlFlow, Deref, DerefMut};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::pace::{Lane, Priority, Rate};
use flotilla_deploy::requester::{self, Event, Observer, Requester};
use flotilla_model::clock::{Clock, SystemClock};
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Call, Home, Reply};
use flotilla_model::progress::Progress;
use flotilla_model::text::clean;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use crate::cloud::Cloud;
use crate::context::Context;
use crate::operator::LONG_WAIT;

/// Sends a command's requests to the platform: a [`Requester`] for its accounts and tokens.
pub struct PlatformRequester(Requester);

impl PlatformRequester {
    /// Returns a requester with the tokens of these accounts, given by their ids.
    pub fn new(
        context: &Context<'_>,
        fleet: &Fleet,
        cloud: &mut Cloud,
        secrets: &Secrets,
        account_ids: &BTreeSet<String>,
    ) -> Result<PlatformRequester, Failure> {
        cloud.start(context)?;
        PlatformRequester::of_cloud(context, fleet, cloud, secrets, account_ids)
    }

    /// The same; a local emulator has been started.
    pub(crate) fn of_cloud(
        context: &Context<'_>,
        fleet: &Fleet,
        cloud: &Cloud,
        secrets: &Secrets,
        account_ids: &BTreeSet<String>,
    ) -> Result<PlatformRequester, Failure> {
        let names: Vec<&str> = names(fleet, cloud, account_ids).into_values().collect();
        let tokens = cloud.tokens(fleet, names, secrets)?;
        PlatformRequester::with_tokens(context, fleet, cloud, tokens, account_ids)
    }

    /// Returns a requester with these tokens of these accounts; a local emulator has been started.
    pub(crate) fn with_tokens(
        context: &Context<'_>,
        fleet: &Fleet,
        cloud: &Cloud,
        tokens: HashMap<String, SecretString>,
        account_ids: &BTreeSet<String>,
    ) -> Result<PlatformRequester, Failure> {
        let names = names(fleet, cloud, account_ids).into_iter();
        let rates = names.map(|(id, name)| (id, (name, cloud.rate(fleet.accounts[name].api_limit)))).collect();
        PlatformRequester::of(context.operator.background(), cloud.priority, &cloud.base, tokens, rates)
    }

    /// Returns a requester with one token for all accounts: its account may not be known yet.
    pub fn with_token(
        progress: Arc<dyn Progress + Send + Sync>,
        priority: Priority,
        base: &str,
        token: &SecretString,
        account: (&str, Rate),
    ) -> Result<PlatformRequester, Failure> {
        let tokens = HashMap::from([(String::new(), token.clone())]);
        PlatformRequester::of(progress, priority, base, tokens, BTreeMap::from([(String::new(), account)]))
    }

    /// Returns a requester with these tokens, and the names and rates of their accounts; those with one token share
    /// a lane.
    fn of(
        progress: Arc<dyn Progress + Send + Sync>,
        priority: Priority,
        base: &str,
        tokens: HashMap<String, SecretString>,
        accounts: BTreeMap<String, (&str, Rate)>,
    ) -> Result<PlatformRequester, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut lanes: HashMap<&str, Arc<Lane>> = HashMap::new();
        let mut of = HashMap::new();
        for (id, (name, rate)) in accounts {
            let token = tokens[&id].expose_secret();
            let lane = lanes.entry(token).or_insert_with(|| {
                let lane = Lane::of_token(rate, base, token, Arc::clone(&clock));
                Arc::new(lane.with_priority(priority))
            });
            of.insert(id, requester::Account { name: name.to_owned(), lane: Arc::clone(lane) });
        }
        let platform = Box::new(Cloudflare::new(base, tokens)?);
        Ok(PlatformRequester(Requester::new(platform, of, clock, waits(progress))))
    }
}

impl PlatformRequester {
    /// Returns the requester itself.
    pub(crate) fn into_inner(self) -> Requester {
        self.0
    }

    /// Replaces a worker's tags, unless they are others by now than those that were listed: then somebody else's may be among them.
    pub(crate) fn retag(
        &mut self,
        home: &Home,
        worker: &str,
        listed: &[String],
        tags: Vec<String>,
    ) -> Result<(), Failure> {
        let as_set = |tags: &[String]| tags.iter().cloned().collect::<BTreeSet<String>>();
        match self.fetch(home, Call::ReadTags { worker: worker.to_owned() })? {
            Reply::Tags { tags: now, .. } if as_set(&now) == as_set(listed) => {
                self.fetch(home, Call::SetTags { worker: worker.to_owned(), tags }).map(|_| ())
            }
            _ => Ok(()),
        }
    }
}

impl Deref for PlatformRequester {
    type Target = Requester;

    fn deref(&self) -> &Requester {
        &self.0
    }
}

impl DerefMut for PlatformRequester {
    fn deref_mut(&mut self) -> &mut Requester {
        &mut self.0
    }
}

/// Shows what a requester waits for beside the progress, and what takes long once on a line of its own.
fn waits(progress: Arc<dyn Progress + Send + Sync>) -> Observer {
    let mut noted = false;
    Box::new(move |event| {
        match event {
            Event::Waiting(waiting) => {
                let text = clean(&waiting.to_string());
                progress.detail(&text);
                if !noted && waiting.waited + waiting.left >= LONG_WAIT {
                    noted = true;
                    progress.note(&text);
                }
            }
            Event::Retrying { attempt, reason, .. } => progress.detail(&clean(&format!("attempt {attempt}: {reason}"))),
            Event::Resumed => {
                noted = false;
                progress.detail("");
            }
        }
        ControlFlow::Continue(())
    })
}

/// The names in fleet.yaml of these accounts, by id.
fn names<'f>(fleet: &'f Fleet, cloud: &Cloud, account_ids: &BTreeSet<String>) -> BTreeMap<String, &'f str> {
    let name = |id: &String| Some((id.clone(), fleet.accounts.get_key_value(cloud.account_name(id)?)?.0.as_str()));
    account_ids.iter().filter_map(name).collect()
}
