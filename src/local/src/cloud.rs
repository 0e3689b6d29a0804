//! The whole emulated account in one value, as the operations share it. Knows its parts; not their work.

use std::collections::HashMap;
use std::path::PathBuf;

use hyper::header::HeaderValue;
use parking_lot::Mutex;
use serde_json::Value;

use super::Options;
use super::activity::Activity;
use super::asset_store;
use super::caches::Caches;
use super::call::Call;
use super::clock::{Clock, stamp};
use super::directory::{Directory, Group};
use super::envelope::{Answer, Outcome, Refusal};
use super::faults::{AuditLog, Faults};
use super::hrana::Streams;
use super::journal::Journal;
use super::limits::{Meter, PlatformLimits, RateLimit};
use super::seal::digest;
use super::store::Store;
use super::tail_list::Tails;
use super::workers::{self, Ground, Workers};

/// Everything that outlives a request.
pub struct Cloud {
    /// The folder of the databases.
    pub folder: PathBuf,
    /// The account's objects.
    pub store: Store,
    /// The limits of the account.
    pub limits: PlatformLimits,
    /// The API rate limit of a token.
    pub limit: RateLimit,
    /// The most entries on a page of a list that has pages.
    pub page_size: Option<usize>,
    /// The calls counted so far.
    pub meter: Mutex<Meter>,
    /// The time.
    pub clock: Clock,
    /// The emulator's own token, which its control endpoints require; none: they require nothing.
    token: Option<String>,
    /// The accepted tokens, each with the account that it is of, if it is no user's; empty: any.
    pub tokens: Vec<(String, Option<String>)>,
    /// The zones, each with its account, if that is given; empty: the last two labels of any host.
    pub zones: Vec<(String, Option<String>)>,
    /// Hosts with DNS records that Workers doesn't manage.
    pub dns: Vec<String>,
    /// Databases and KV namespaces are made when their id is first bound.
    pub make_bound: bool,
    /// Secrets stay although an upload neither names nor keeps them.
    pub keep_secrets: bool,
    /// Every upload is loaded by workerd before it is accepted.
    pub validate: bool,
    /// The faults that are set.
    pub faults: Mutex<Faults>,
    /// The behaviour of the audit log.
    pub audit: Mutex<AuditLog>,
    /// The latest requests.
    pub journal: Mutex<Journal>,
    /// The latest events of workers.
    pub activity: Activity,
    /// The deployed workers as the index page lists them.
    pub directory: Directory,
    /// The groups of workers on the index page.
    pub group: Option<Group>,
    /// The word with which the index page shows what workers do, and by which its script is known. Made of the emulator's own token, so that an
    /// address with it holds as long as that; without a token, another one for each run.
    pub page_key: String,
    /// The path of a worker's health check.
    pub health_path: String,
    /// The tails of workers.
    pub tails: Tails,
    /// The running workers.
    pub workers: Workers,
    /// Open libSQL streams.
    pub streams: Streams,
    /// The batches of queues that are on their way.
    pub deliveries: Mutex<HashMap<String, u64>>,
    /// The Cache API's entries.
    pub caches: Caches,
}

impl Cloud {
    /// Returns the stores that the workers need to run.
    pub fn ground(&self) -> Ground<'_> {
        Ground { store: &self.store, activity: &self.activity, folder: &self.folder }
    }

    /// Answers the page of a list that a request asks for: `usual` entries unless it says how many, and no more than `most`.
    ///
    /// # Errors
    /// 400 (10004) when the request's numbers are none.
    pub fn page(&self, all: &[Value], call: &Call, usual: usize, most: usize) -> Outcome {
        let most = self.page_size.unwrap_or(most);
        Ok(Answer::page(all, call.number("page", 1)?, call.number("per_page", usual)?.min(most)))
    }

    /// Opens what `options` describe.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn open(options: Options) -> anyhow::Result<Self> {
        let store = Store::open(&options.folder)?;
        let cloud = Self {
            page_key: match &options.token {
                Some(token) => digest(format!("page {token}").as_bytes())[..32].to_owned(),
                None => store.seal.id(),
            },
            store,
            streams: Streams::new(options.folder.join("libsql"), options.clock.clone()),
            folder: options.folder,
            limits: options.limits,
            limit: options.limit,
            page_size: options.page_size,
            meter: Mutex::default(),
            clock: options.clock.clone(),
            tokens: options.tokens.iter().chain(&options.token).map(|token| of_account(token)).collect(),
            token: options.token,
            zones: options.zones.iter().map(|zone| of_account(&zone.to_ascii_lowercase())).collect(),
            dns: options.dns_records.iter().map(|host| host.to_ascii_lowercase()).collect(),
            make_bound: options.make_bound,
            keep_secrets: options.keep_secrets,
            validate: options.validate,
            faults: Mutex::new(Faults::new(options.faults)),
            audit: Mutex::default(),
            journal: Mutex::default(),
            directory: Directory::default(),
            group: options.group,
            activity: Activity::new(options.observer, options.health_path.clone(), options.clock.clone()),
            health_path: options.health_path,
            tails: Tails::default(),
            workers: Workers::new(options.workerd, options.asset_workers),
            deliveries: Mutex::default(),
            caches: Caches::default(),
        };
        let failed = |refusal: Refusal| anyhow::anyhow!(refusal.message);
        workers::sweep_objects(&cloud.store, &cloud.folder).map_err(failed)?;
        asset_store::sweep(&cloud.store, (cloud.clock)().as_secs()).map_err(failed)?;
        Ok(cloud)
    }

    /// Returns whether a request carries the emulator's own token, if it has one.
    pub fn is_own_token(&self, authorization: Option<&HeaderValue>) -> bool {
        let Some(own) = &self.token else { return true };
        let sent = authorization.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default();
        // By their digests: how long that takes shows nothing of the token.
        digest(sent.as_bytes()) == digest(own.as_bytes())
    }

    /// Returns whether a text is the word of the index page, if one is required.
    pub fn is_page_key(&self, key: &str) -> bool {
        self.token.is_none() || digest(key.as_bytes()) == digest(self.page_key.as_bytes())
    }

    /// Now, RFC 3339.
    pub fn now(&self) -> String {
        stamp((self.clock)())
    }
}

/// A name and, behind an `@`, the account that it belongs to.
fn of_account(text: &str) -> (String, Option<String>) {
    match text.split_once('@') {
        Some((name, account)) => (name.to_owned(), Some(account.to_owned())),
        None => (text.to_owned(), None),
    }
}
