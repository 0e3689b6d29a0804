//! Lists the platform's resources, and corrects the state: for `--refresh`, for a first deploy from a machine, for
//! `state rebuild` and `prune`. Knows how to request the lists; `flotilla_deploy::refresh` finds the differences.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::UNIX_EPOCH;

use secrecy::SecretString;

use flotilla_deploy::refresh::{self, Baseline, Inventory, Refreshed, Row, Scope, Wanted};
use flotilla_deploy::state::{
    Deployed, DeployedResources, Entry, InFlight, ResourceKind, RunId, State, Table, Uncertainty, WorkerId,
};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;
use flotilla_model::reason::Reason;
use flotilla_model::spec::Account;
use flotilla_model::tags;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use crate::cloud::Cloud;
use crate::context::Context;
use crate::operator::Event;
use crate::requests::PlatformRequester;

/// The value of a row in place of a digest that isn't known.
const NO_DIGEST: [u8; 32] = [0; 32];

/// The options of a correction of the state.
pub struct RefreshOptions<'a> {
    /// The workers that there should be.
    pub wanted: BTreeMap<WorkerId, Wanted>,
    /// The customers whose specs have errors.
    pub held: &'a BTreeSet<String>,
    /// Whether `wanted` is all that the fleet wants.
    pub whole: bool,
    /// Workers that are adopted.
    pub adopt: BTreeSet<String>,
    /// The homes whose workers the fleet may own, with their accounts' names.
    pub homes: &'a BTreeMap<Home, String>,
    /// Doesn't trust the rows' triggers, only what is listed.
    pub anew: bool,
    /// Whether the domains of all accounts are listed, also where none is in use.
    pub all_domains: bool,
    /// Whether to set tags that save later requests.
    pub tag: bool,
}

/// The result of a refresh.
pub struct RefreshResult {
    /// The live resources.
    pub inventory: Inventory,
    /// The differences.
    pub refreshed: Refreshed,
    /// The workers that were in the state and no longer exist.
    pub missing: BTreeSet<WorkerId>,
    /// The number of corrected rows.
    pub corrected: usize,
    /// The accounts that could not be listed, by name: their rows are as they were.
    pub refused: Vec<(String, Failure)>,
}

/// Lists the resources and corrects the state: in its file, or in memory if it is a shadow. An account that refuses is left as it is in the
/// state; if all of them do, it is an error.
pub fn refresh(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    state: &mut State,
    mut options: RefreshOptions<'_>,
) -> Result<RefreshResult, Failure> {
    let looked_at: BTreeSet<Home> = options.wanted.keys().map(|(home, _)| home.clone()).collect();
    let concerns =
        |home: &Home| if options.whole { options.homes.contains_key(home) } else { looked_at.contains(home) };
    let mut recorded = Recorded { live: state.deployed()?, in_flight: state.in_flight()? };
    recorded.live.retain(|(home, _), _| concerns(home));
    recorded.in_flight.retain(|(home, _), _| concerns(home));
    let mut rows: BTreeMap<WorkerId, Row> =
        recorded.live.iter().map(|(id, deployed)| (id.clone(), row(deployed))).collect();
    let zone_id = |account_id: &str, name: &str| state.cached_id(account_id, ResourceKind::Zone, name).ok().flatten();
    let mut scope = Scope::of(&rows, &options.wanted, zone_id);
    if options.all_domains {
        let outside = options.homes.keys().filter(|home| home.namespace.is_none());
        scope.domains.extend(outside.map(|home| home.account_id.clone()));
        scope.homes.extend(options.homes.keys().cloned());
    }
    add_uncertain(&mut scope, &recorded.in_flight, zone_id);
    context.operator.begin("asking the cloud", None);
    cloud.start(context)?;
    let (tokens, mut refused) = credentials(fleet, cloud, secrets, &scope)?;
    let account_ids: BTreeSet<String> = tokens.keys().cloned().collect();
    let mut requester = PlatformRequester::with_tokens(context, fleet, cloud, tokens, &account_ids)?;
    let accounts: BTreeMap<String, String> =
        options.homes.iter().map(|(home, name)| (home.account_id.clone(), name.clone())).collect();
    let owner = fleet.owner();
    let uncertain: BTreeSet<WorkerId> = recorded.in_flight.keys().cloned().collect();
    let (no_rows, nothing_wanted, adopt) = (BTreeMap::new(), BTreeMap::new(), options.adopt.clone());
    let common = Baseline {
        fleet: &owner,
        accounts: &accounts,
        rows: &no_rows,
        wanted: &nothing_wanted,
        held: options.held,
        whole: options.whole,
        adopt: &adopt,
        uncertain: &uncertain,
        anew: options.anew,
    };
    let mut inventory = Inventory::default();
    for account_id in &account_ids {
        let mut is_refusal = false;
        let mut request = |home: &Home, call| {
            requester.request(home, &call).map_err(|error| {
                is_refusal = error.is_refusal();
                Failure::from(error)
            })
        };
        let listed = refresh::take(&scope.of_account(account_id), &mut request).and_then(|mut part| {
            let unclear = refresh::unclear(&part, &Baseline { rows: &rows, wanted: &options.wanted, ..common });
            part.request_triggers(&unclear, &mut request)?;
            Ok(part)
        });
        match listed {
            Ok(part) => inventory.add(part),
            Err(failure) if is_refusal && account_ids.len() + refused.len() > 1 => {
                let name = accounts.get(account_id).cloned().unwrap_or_default();
                refused.push((account_id.clone(), name, failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    if refused.len() > 1 && inventory.workers.is_empty() {
        return Err(refused.swap_remove(0).2);
    }
    for (_, name, failure) in &refused {
        context.operator.on_event(&Event::AccountRefused { account: name, reason: failure });
    }
    let is_listed = |(home, _): &WorkerId| refused.iter().all(|(account_id, ..)| *account_id != home.account_id);
    rows.retain(|id, _| is_listed(id));
    recorded.live.retain(|id, _| is_listed(id));
    recorded.in_flight.retain(|id, _| is_listed(id));
    options.wanted.retain(|id, _| is_listed(id));
    let baseline = Baseline { rows: &rows, wanted: &options.wanted, ..common };
    let refreshed = refresh::refresh(&inventory, &baseline);
    for ((account_id, name), id) in &inventory.found {
        state.cache_id(account_id, ResourceKind::Zone, name, id)?;
    }
    let at = requester.clock.unix();
    let missing: BTreeSet<WorkerId> = recorded
        .live
        .keys()
        .filter(|(home, name)| inventory.workers.get(home).is_some_and(|there| !there.contains_key(name)))
        .cloned()
        .collect();
    let corrected = correct(state, &owner, &recorded, &inventory, &refreshed, &options, at)?;
    if fleet.preview.is_some() {
        note_hosts(fleet, &inventory, options.homes, state)?;
    }
    if options.tag {
        for ((home, worker), tags) in refresh::tagged(&inventory, &baseline, &refreshed) {
            let listed = inventory.workers.get(&home).and_then(|workers| workers.get(&worker));
            let Some(listed) = listed.map(|listed| &listed.tags) else { continue };
            // Without it, the next command looks it up again.
            if requester.retag(&home, &worker, listed, tags).is_err() {
                break;
            }
        }
    }
    context.operator.end();
    let there: usize = inventory.workers.values().map(BTreeMap::len).sum();
    context.operator.on_event(&Event::Refreshed { requests: requester.requests, workers: there });
    let refused = refused.into_iter().map(|(_, name, failure)| (name, failure)).collect();
    Ok(RefreshResult { inventory, refreshed, missing, corrected, refused })
}

/// The tokens of the accounts of a scope, by account id, and the accounts whose id or token isn't set here: id, name and reason.
type Credentials = (HashMap<String, SecretString>, Vec<(String, String, Failure)>);

/// Returns the credentials of the accounts of a scope. If none of them has any, it is an error that names what all of them lack.
fn credentials(fleet: &Fleet, cloud: &Cloud, secrets: &Secrets, scope: &Scope) -> Result<Credentials, Failure> {
    let account_ids = scope.account_ids();
    let names = fleet.accounts.keys().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| account_ids.contains(&cloud.home(name, None).account_id)).collect();
    let (mut tokens, mut missing) = (HashMap::new(), Vec::new());
    for name in &names {
        match cloud.tokens(fleet, [*name], secrets) {
            Ok(found) => tokens.extend(found),
            Err(failure) => missing.push((cloud.home(name, None).account_id, (*name).to_owned(), failure)),
        }
    }
    match tokens.is_empty() {
        true => cloud.tokens(fleet, names, secrets).map(|tokens| (tokens, Vec::new())),
        false => Ok((tokens, missing)),
    }
}

/// Notes the hosts in a dispatch namespace that the workers of a preview name: they may point there, also where
/// another machine wrote them.
fn note_hosts(
    fleet: &Fleet,
    inventory: &Inventory,
    homes: &BTreeMap<Home, String>,
    state: &mut State,
) -> Result<(), Failure> {
    let (owner, baseline) = (fleet.owner(), state.hosts()?);
    for (home, workers) in inventory.workers.iter().filter(|(home, _)| home.namespace.is_some()) {
        let Some(name) = homes.get(home) else { continue };
        let Some(title) = fleet.accounts.get(name).and_then(Account::hosts) else { continue };
        let table = Table { account_id: home.account_id.clone(), title };
        for listed in workers.values() {
            let marks = tags::read(&listed.tags);
            for host in marks.hosts.iter().filter(|_| marks.fleet == Some(&owner)) {
                if !baseline.contains_key(&(table.clone(), (*host).to_owned())) {
                    state.mark_host_uncertain(&table, host, name, (home, Some(&listed.name)))?;
                }
            }
        }
    }
    Ok(())
}

/// Adds what an interrupted deploy left uncertain.
fn add_uncertain(
    scope: &mut Scope,
    in_flight: &BTreeMap<WorkerId, InFlight>,
    zone_id: impl Fn(&str, &str) -> Option<String>,
) {
    for ((home, _), in_flight) in in_flight {
        scope.homes.insert(home.clone());
        let account_id = home.account_id.clone();
        for uncertainty in &in_flight.uncertainties {
            match uncertainty {
                Uncertainty::Domain(_) => drop(scope.domains.insert(account_id.clone())),
                Uncertainty::Route { zone: Some(name), .. } => match zone_id(&account_id, name) {
                    Some(id) => drop(scope.zones.insert((account_id.clone(), id))),
                    None => drop(scope.named_zones.insert((account_id.clone(), name.clone()))),
                },
                _ => {}
            }
        }
    }
}

fn row(deployed: &Deployed) -> Row {
    let live = deployed.live.clone();
    let DeployedResources { etag, workers_dev, preview_urls, domains, routes, crons, .. } = live;
    let (consumers, workflows, migration_tag) = (live.consumers, live.workflows, live.migration_tag);
    Row {
        account: deployed.account.clone(),
        customer: deployed.customer.clone(),
        environment: deployed.environment,
        digest: Some(deployed.digest).filter(|_| deployed.drift.is_none()),
        etag,
        workers_dev,
        preview_urls,
        domains,
        routes,
        crons,
        consumers,
        workflows,
        migration_tag,
    }
}

/// The state's rows before they are corrected.
struct Recorded {
    live: BTreeMap<WorkerId, Deployed>,
    in_flight: BTreeMap<WorkerId, InFlight>,
}

/// Writes what differs, all of it or nothing.
fn correct(
    state: &mut State,
    fleet: &str,
    recorded: &Recorded,
    inventory: &Inventory,
    refreshed: &Refreshed,
    options: &RefreshOptions<'_>,
    at: i64,
) -> Result<usize, Failure> {
    // As a record of no deploy: it can't be rolled back to.
    fn entry(at: i64, reasons: &[Reason]) -> Entry<'_> {
        Entry { run: RunId(0), at, action: "refresh", reasons, left: &[] }
    }
    let Recorded { live: before, in_flight } = recorded;
    let listed = |(home, _): &WorkerId| inventory.workers.contains_key(home);
    state.all(|state| {
        let mut corrected = 0;
        for (id, row) in &refreshed.rows {
            // If a worker's customer is unknown, a later plan could take the worker for that of a removed customer.
            if !listed(id) || row.customer.is_empty() {
                continue;
            }
            let mut deployed = deployed(row, before.get(id), inventory, id, refreshed.reasons.get(id), at);
            if before.get(id) != Some(&deployed) {
                let reasons: Vec<Reason> = deployed.drift.iter().cloned().collect();
                state.record(id, &mut deployed, &entry(at, &reasons))?;
                corrected += 1;
            } else if in_flight.contains_key(id) && options.wanted.contains_key(id) {
                state.settle(id, &[])?;
            }
        }
        for (id, deployed) in before.iter().filter(|(id, _)| listed(id) && !refreshed.rows.contains_key(*id)) {
            let there = inventory.workers[&id.0].get(&id.1);
            let reason = match there.map(|there| tags::read(&there.tags).fleet == Some(fleet)) {
                None => Reason::Missing,
                Some(false) => Reason::NotManaged,
                // Managed by this fleet, but its desired state is unknown, because its spec has errors.
                Some(true) => continue,
            };
            state.forget(id, deployed, &entry(at, &[reason]))?;
            corrected += 1;
        }
        // A change that was begun and left nothing was never made, or was undone.
        for id in in_flight.keys() {
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
    reason: Option<&Reason>,
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
            (Some(_), _) => None,
            (None, Some(reason)) => Some(reason.clone()),
            (None, None) => before.and_then(|before| before.drift.clone()),
        },
        live: DeployedResources {
            etag: row.etag.clone(),
            created_on: listed.map(|listed| listed.created_on.clone()).filter(|created| !created.is_empty()),
            workers_dev: row.workers_dev,
            preview_urls: row.preview_urls,
            domains: row.domains.clone(),
            routes: row.routes.clone(),
            crons: row.crons.clone(),
            // The values that another machine uploaded are unknown here.
            secrets: same.map(|before| before.live.secrets.clone()).unwrap_or_default(),
            consumers: row.consumers.clone(),
            workflows: row.workflows.clone(),
            has_objects: row.migration_tag.is_some() || same.is_some_and(|before| before.live.has_objects),
            migration_tag: row.migration_tag.clone(),
            without: same.map(|before| before.live.without.clone()).unwrap_or_default(),
        },
    }
}
