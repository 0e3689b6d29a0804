//! Asks the cloud what is there, and puts the state right: for `--refresh`, for a first deploy from a machine, for
//! `state rebuild` and `prune`; and what a deploy asks before it creates workers or attaches domains.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{ControlFlow, Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::pace::{Lane, Priority, Rate};
use flotilla_deploy::refresh::{self, Finding, Inventory, Known, Refreshed, Row, Scope, Wanted};
use flotilla_deploy::requester::{self, Event, Observer, Requester};
use flotilla_deploy::state::{Begun, Deployed, Doubt, Entry, Found, Live, RunId, State, Table, WorkerId};
use flotilla_model::clock::{Clock, SystemClock};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Call, Home};
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::{Account, ApiLimit};
use flotilla_model::tags;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use super::Session;
use super::cloud::Cloud;
use super::report::{self, count};
use super::ui::{Style, Ui, clean};

/// The length of a wait that is worth a line of its own.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// Findings of a kind are told one by one up to this number, then as a group.
const SHOWN: usize = 12;

/// What is in a row that takes the place of a digest that nobody knows.
const NO_DIGEST: [u8; 32] = [0; 32];

/// Asks the platform: a [`Requester`] for the accounts and tokens of a command.
pub(super) struct Asking(Requester);

impl Asking {
    /// With the tokens of these accounts, which are told by their ids.
    pub fn new(
        session: &Session,
        fleet: &Fleet,
        cloud: &mut Cloud,
        secrets: &Secrets,
        account_ids: &BTreeSet<String>,
    ) -> Result<Asking, Failure> {
        let names: BTreeMap<String, &String> = fleet
            .accounts
            .keys()
            .map(|name| (cloud.home(name, None).account_id, name))
            .filter(|(id, _)| account_ids.contains(id))
            .collect();
        let tokens = cloud.tokens(fleet, names.values().map(|name| name.as_str()), secrets)?;
        if cloud.local.is_some() {
            cloud.start(session)?;
        }
        let limits = names.into_iter().map(|(id, name)| (id, (name.as_str(), fleet.accounts[name].api_limit)));
        Asking::of(&session.ui, cloud.priority, &cloud.base, tokens, limits.collect())
    }

    /// With one token for all accounts: nobody may know yet whose it is.
    pub fn with_token(
        ui: &Ui,
        priority: Priority,
        base: &str,
        token: &SecretString,
        account: (&str, Option<ApiLimit>),
    ) -> Result<Asking, Failure> {
        let tokens = HashMap::from([(String::new(), token.clone())]);
        Asking::of(ui, priority, base, tokens, BTreeMap::from([(String::new(), account)]))
    }

    /// With these tokens, and the names and limits of their accounts; those with one token share a lane.
    fn of(
        ui: &Ui,
        priority: Priority,
        base: &str,
        tokens: HashMap<String, SecretString>,
        accounts: BTreeMap<String, (&str, Option<ApiLimit>)>,
    ) -> Result<Asking, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut lanes: HashMap<&str, Arc<Lane>> = HashMap::new();
        let mut of = HashMap::new();
        for (id, (name, limit)) in accounts {
            let token = tokens[&id].expose_secret();
            let lane = lanes.entry(token).or_insert_with(|| {
                let lane = Lane::of_token(Rate::new(limit), base, token, Arc::clone(&clock));
                Arc::new(lane.with_priority(priority))
            });
            of.insert(id, requester::Account { name: name.to_owned(), lane: Arc::clone(lane) });
        }
        let platform = Box::new(Cloudflare::new(base, tokens)?);
        Ok(Asking(Requester::new(platform, of, clock, waits(ui))))
    }
}

impl Deref for Asking {
    type Target = Requester;

    fn deref(&self) -> &Requester {
        &self.0
    }
}

impl DerefMut for Asking {
    fn deref_mut(&mut self) -> &mut Requester {
        &mut self.0
    }
}

/// Shows what a requester waits for beside the progress, and what takes long once on a line of its own.
fn waits(ui: &Ui) -> Observer {
    let (ui, mut noted) = (ui.clone(), false);
    Box::new(move |event| {
        match event {
            Event::Waiting(waiting) => {
                let text = clean(&waiting.to_string());
                ui.detail(&text);
                if !noted && waiting.waited + waiting.left >= LONG_WAIT {
                    noted = true;
                    ui.note(&text);
                }
            }
            Event::Retrying { attempt, reason, .. } => ui.detail(&clean(&format!("attempt {attempt}: {reason}"))),
            Event::Resumed => {
                noted = false;
                ui.detail("");
            }
        }
        ControlFlow::Continue(())
    })
}

/// How a state is put right.
pub(super) struct How<'a> {
    /// What should be.
    pub wanted: BTreeMap<WorkerId, Wanted>,
    /// The customers whose specs have errors.
    pub held: &'a BTreeSet<String>,
    /// Whether `wanted` is all that the fleet wants.
    pub whole: bool,
    /// Workers that are to become ours.
    pub adopt: BTreeSet<String>,
    /// The homes whose workers the fleet may own, with their accounts' names.
    pub homes: &'a BTreeMap<Home, String>,
    /// Don't believe the rows' triggers, only what is there.
    pub anew: bool,
    /// Whether the domains of all accounts are looked at, also where none is in use.
    pub all_domains: bool,
    /// Whether tags may be set that save questions.
    pub tag: bool,
}

/// What came of it.
pub(super) struct Truth {
    /// What is there.
    pub inventory: Inventory,
    /// What differed.
    pub refreshed: Refreshed,
    /// The workers that were on record and are not there.
    pub missing: BTreeSet<WorkerId>,
    /// How many rows were corrected.
    pub corrected: usize,
}

/// Asks, and puts the state right: in its file, or in memory if it is a shadow.
pub(super) fn refresh(
    session: &Session,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    state: &mut State,
    how: How<'_>,
) -> Result<Truth, Failure> {
    let looked_at: BTreeSet<Home> = how.wanted.keys().map(|(home, _)| home.clone()).collect();
    let concerns = |home: &Home| if how.whole { how.homes.contains_key(home) } else { looked_at.contains(home) };
    let mut record = OnRecord { live: state.deployed()?, begun: state.begun()? };
    record.live.retain(|(home, _), _| concerns(home));
    record.begun.retain(|(home, _), _| concerns(home));
    let rows: BTreeMap<WorkerId, Row> = record.live.iter().map(|(id, deployed)| (id.clone(), row(deployed))).collect();
    let zone_id = |account_id: &str, name: &str| state.found(account_id, Found::Zone, name).ok().flatten();
    let mut scope = Scope::of(&rows, &how.wanted, zone_id);
    if how.all_domains {
        let outside = how.homes.keys().filter(|home| home.namespace.is_none());
        scope.domains.extend(outside.map(|home| home.account_id.clone()));
        scope.homes.extend(how.homes.keys().cloned());
    }
    in_doubt(&mut scope, &record.begun, zone_id);
    if scope.homes.iter().any(|home| home.account_id.is_empty()) {
        let unknown = cloud.unknown(fleet.accounts.keys().map(String::as_str));
        // What else isn't set is told with it.
        cloud.tokens(fleet, unknown.iter().copied(), secrets)?;
        let unknown = unknown.join(", ");
        return Err(Failure::new(format!("the id of {unknown} is not set here, so that nobody can be asked"))
            .hint("set it, in the environment or in .env"));
    }
    let account_ids = scope.homes.iter().map(|home| home.account_id.clone()).collect();
    session.ui.begin("asking the cloud", None);
    let mut asking = Asking::new(session, fleet, cloud, secrets, &account_ids)?;
    let mut inventory = refresh::take(&scope, &mut |home, call| asking.ask(home, call))?;
    let accounts: BTreeMap<String, String> =
        how.homes.iter().map(|(home, name)| (home.account_id.clone(), name.clone())).collect();
    let owner = fleet.owner();
    let doubtful = record.begun.keys().cloned().collect();
    let known = Known {
        fleet: &owner,
        accounts: &accounts,
        rows: &rows,
        wanted: &how.wanted,
        held: how.held,
        whole: how.whole,
        adopt: &how.adopt,
        doubtful: &doubtful,
        anew: how.anew,
    };
    let unclear = refresh::unclear(&inventory, &known);
    inventory.ask_triggers(&unclear, &mut |home, call| asking.ask(home, call))?;
    let refreshed = refresh::refresh(&inventory, &known);
    for ((account_id, name), id) in &inventory.found {
        state.keep(account_id, Found::Zone, name, id)?;
    }
    let at = asking.clock.unix();
    let missing: BTreeSet<WorkerId> = record
        .live
        .keys()
        .filter(|(home, name)| inventory.workers.get(home).is_some_and(|there| !there.contains_key(name)))
        .cloned()
        .collect();
    let corrected = correct(state, &owner, &record, &inventory, &refreshed, &how, at)?;
    if fleet.preview.is_some() {
        note_hosts(fleet, &inventory, how.homes, state)?;
    }
    if how.tag {
        for ((home, worker), tags) in refresh::tagged(&inventory, &known, &refreshed) {
            // Without it, the next one who doesn't know asks again.
            if asking.ask(&home, Call::SetTags { worker, tags }).is_err() {
                break;
            }
        }
    }
    session.ui.end();
    let there: usize = inventory.workers.values().map(BTreeMap::len).sum();
    session.ui.note(&format!(
        "asked the cloud: {}, {} there",
        count(asking.requests, "request"),
        count(there, "worker")
    ));
    Ok(Truth { inventory, refreshed, missing, corrected })
}

/// What the workers of a preview say of hosts in a dispatch namespace: that they may lead there, also where another machine wrote
/// them.
fn note_hosts(
    fleet: &Fleet,
    inventory: &Inventory,
    homes: &BTreeMap<Home, String>,
    state: &mut State,
) -> Result<(), Failure> {
    let (owner, known) = (fleet.owner(), state.hosts()?);
    for (home, workers) in inventory.workers.iter().filter(|(home, _)| home.namespace.is_some()) {
        let Some(name) = homes.get(home) else { continue };
        let Some(title) = fleet.accounts.get(name).and_then(Account::hosts) else { continue };
        let table = Table { account_id: home.account_id.clone(), title };
        for listed in workers.values() {
            let marks = tags::read(&listed.tags);
            for host in marks.hosts.iter().filter(|_| marks.fleet == Some(&owner)) {
                if !known.contains_key(&(table.clone(), (*host).to_owned())) {
                    state.doubt_host(&table, host, name, (home, Some(&listed.name)))?;
                }
            }
        }
    }
    Ok(())
}

/// What an interrupted deploy left in doubt is looked at, too.
fn in_doubt(scope: &mut Scope, begun: &BTreeMap<WorkerId, Begun>, zone_id: impl Fn(&str, &str) -> Option<String>) {
    for ((home, _), begun) in begun {
        scope.homes.insert(home.clone());
        let account_id = home.account_id.clone();
        for doubt in &begun.doubts {
            match doubt {
                Doubt::Domain(_) => drop(scope.domains.insert(account_id.clone())),
                Doubt::Route { zone: Some(name), .. } => match zone_id(&account_id, name) {
                    Some(id) => drop(scope.zones.insert((account_id.clone(), id))),
                    None => drop(scope.named_zones.insert((account_id.clone(), name.clone()))),
                },
                _ => {}
            }
        }
    }
}

fn row(deployed: &Deployed) -> Row {
    let Live { etag, workers_dev, domains, routes, crons, .. } = deployed.live.clone();
    Row {
        account: deployed.account.clone(),
        customer: deployed.customer.clone(),
        environment: deployed.environment,
        digest: Some(deployed.digest).filter(|_| deployed.drift.is_empty()),
        etag,
        workers_dev,
        domains,
        routes,
        crons,
    }
}

/// What the state says before it is put right.
struct OnRecord {
    live: BTreeMap<WorkerId, Deployed>,
    begun: BTreeMap<WorkerId, Begun>,
}

/// Writes what differs, all of it or nothing.
fn correct(
    state: &mut State,
    fleet: &str,
    record: &OnRecord,
    inventory: &Inventory,
    refreshed: &Refreshed,
    how: &How<'_>,
    at: i64,
) -> Result<usize, Failure> {
    // As a record of no deploy: nobody is to go back to it.
    fn entry(at: i64, reasons: &[String]) -> Entry<'_> {
        Entry { run: RunId(0), at, action: "refresh", reasons, left: &[] }
    }
    let OnRecord { live: before, begun } = record;
    let listed = |(home, _): &WorkerId| inventory.workers.contains_key(home);
    state.all(|state| {
        let mut corrected = 0;
        for (id, row) in &refreshed.rows {
            // Of whom nobody knows the customer, a later plan could take for somebody's who left.
            if !listed(id) || row.customer.is_empty() {
                continue;
            }
            let mut deployed = deployed(row, before.get(id), inventory, id, refreshed.reasons.get(id), at);
            if before.get(id) != Some(&deployed) {
                let reasons: Vec<String> =
                    Some(&deployed.drift).filter(|drift| !drift.is_empty()).cloned().into_iter().collect();
                state.record(id, &mut deployed, &entry(at, &reasons))?;
                corrected += 1;
            } else if begun.contains_key(id) && how.wanted.contains_key(id) {
                state.settle(id, &[])?;
            }
        }
        for (id, deployed) in before.iter().filter(|(id, _)| listed(id) && !refreshed.rows.contains_key(*id)) {
            let there = inventory.workers[&id.0].get(&id.1);
            let reason = match there.map(|there| tags::read(&there.tags).fleet == Some(fleet)) {
                None => "it is not there any more",
                Some(false) => "it is not this fleet's any more",
                // Ours, but nobody knows what is wanted of it, as its spec has errors.
                Some(true) => continue,
            };
            state.forget(id, deployed, &entry(at, &[reason.to_owned()]))?;
            corrected += 1;
        }
        // What was begun and is not there was never done, or is undone.
        for id in begun.keys() {
            let there = inventory.workers.get(&id.0).is_none_or(|workers| workers.contains_key(&id.1));
            if !there && !before.contains_key(id) {
                state.settle(id, &[])?;
                corrected += 1;
            }
        }
        Ok(corrected)
    })
}

/// A row as the state has it.
fn deployed(
    row: &Row,
    before: Option<&Deployed>,
    inventory: &Inventory,
    id: &WorkerId,
    reason: Option<&String>,
    at: i64,
) -> Deployed {
    if let Some(before) = before.filter(|before| self::row(before) == *row) {
        return before.clone();
    }
    let same = before.filter(|before| row.digest == Some(before.digest) && before.live.etag == row.etag);
    let listed = inventory.workers.get(&id.0).and_then(|workers| workers.get(&id.1));
    let modified = listed.and_then(|listed| {
        let time = humantime::parse_rfc3339_weak(&listed.modified_on).ok()?;
        i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
    });
    let nobody_knows = before.map_or_else(|| Digest::from_bytes(NO_DIGEST), |before| before.digest);
    Deployed {
        account: row.account.clone(),
        customer: row.customer.clone(),
        environment: row.environment,
        digest: row.digest.unwrap_or(nobody_knows),
        revision: before.map_or(0, |before| before.revision),
        deployed_at: same.map(|before| before.deployed_at).or(modified).unwrap_or(at),
        rejected: before.and_then(|before| before.rejected),
        drift: match (row.digest, reason) {
            (Some(_), _) => String::new(),
            (None, Some(reason)) => reason.clone(),
            (None, None) => before.map(|before| before.drift.clone()).unwrap_or_default(),
        },
        live: Live {
            etag: row.etag.clone(),
            workers_dev: row.workers_dev,
            domains: row.domains.clone(),
            routes: row.routes.clone(),
            crons: row.crons.clone(),
            // Which values another machine uploaded, nobody knows here.
            secrets: same.map(|before| before.live.secrets.clone()).unwrap_or_default(),
        },
    }
}

/// Findings for people: a few one by one, many of a kind as a group.
pub(super) fn text(ui: &Ui, findings: &[Finding]) -> Vec<String> {
    let mut kinds: Vec<(&str, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        match kinds.iter_mut().find(|(kind, _)| *kind == finding.what.kind()) {
            Some((_, of_kind)) => of_kind.push(finding),
            None => kinds.push((finding.what.kind(), vec![finding])),
        }
    }
    let sign = ui.paint(Style::Warning, "!");
    let mut lines = Vec::new();
    for (kind, of_kind) in kinds {
        if of_kind.len() <= SHOWN {
            lines.extend(of_kind.iter().map(|finding| format!("{sign} {kind}  {}", clean(&finding.text()))));
        } else {
            let some: Vec<String> = of_kind.iter().take(3).map(|finding| clean(&finding.worker)).collect();
            lines.push(format!("{sign} {kind}  {} ({}, …)", count(of_kind.len(), "time"), some.join(", ")));
        }
    }
    lines
}

/// Tells findings on stdout.
pub(super) fn print(ui: &Ui, findings: &[Finding]) {
    for line in text(ui, findings) {
        report::print(&line);
    }
}
