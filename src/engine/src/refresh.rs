//! Lists the platform's resources, and corrects the state: for `--refresh`, for a first deploy from a machine, for
//! `state rebuild` and `prune`. Knows how to request the lists; `flotilla_deploy::refresh` finds the differences.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use flotilla_deploy::refresh::{self, Baseline, Inventory, Refreshed, Row, Scope, Wanted};
use flotilla_deploy::state::{
    Deployed, DeployedResources, Entry, InFlight, ResourceKind, RunId, State, Table, Uncertainty, WorkerId,
};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Call, Home};
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
    /// Doesn't believe the rows' triggers, only what is there.
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
}

/// Lists the resources and corrects the state: in its file, or in memory if it is a shadow.
pub fn refresh(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    state: &mut State,
    options: RefreshOptions<'_>,
) -> Result<RefreshResult, Failure> {
    let looked_at: BTreeSet<Home> = options.wanted.keys().map(|(home, _)| home.clone()).collect();
    let concerns =
        |home: &Home| if options.whole { options.homes.contains_key(home) } else { looked_at.contains(home) };
    let mut recorded = Recorded { live: state.deployed()?, in_flight: state.in_flight()? };
    recorded.live.retain(|(home, _), _| concerns(home));
    recorded.in_flight.retain(|(home, _), _| concerns(home));
    let rows: BTreeMap<WorkerId, Row> =
        recorded.live.iter().map(|(id, deployed)| (id.clone(), row(deployed))).collect();
    let zone_id = |account_id: &str, name: &str| state.cached_id(account_id, ResourceKind::Zone, name).ok().flatten();
    let mut scope = Scope::of(&rows, &options.wanted, zone_id);
    if options.all_domains {
        let outside = options.homes.keys().filter(|home| home.namespace.is_none());
        scope.domains.extend(outside.map(|home| home.account_id.clone()));
        scope.homes.extend(options.homes.keys().cloned());
    }
    add_uncertain(&mut scope, &recorded.in_flight, zone_id);
    if scope.homes.iter().any(|home| home.account_id.is_empty()) {
        let unknown = cloud.unknown(fleet.accounts.keys().map(String::as_str));
        // What else isn't set is told with it.
        cloud.tokens(fleet, unknown.iter().copied(), secrets)?;
        let unknown = unknown.join(", ");
        return Err(Failure::new(format!("the id of {unknown} is not set here, so that nobody can be asked"))
            .hint("set it, in the environment or in .env"));
    }
    let account_ids = scope.homes.iter().map(|home| home.account_id.clone()).collect();
    context.operator.begin("asking the cloud", None);
    let mut requester = PlatformRequester::new(context, fleet, cloud, secrets, &account_ids)?;
    let mut inventory = refresh::take(&scope, &mut |home, call| requester.fetch(home, call))?;
    let accounts: BTreeMap<String, String> =
        options.homes.iter().map(|(home, name)| (home.account_id.clone(), name.clone())).collect();
    let owner = fleet.owner();
    let uncertain = recorded.in_flight.keys().cloned().collect();
    let baseline = Baseline {
        fleet: &owner,
        accounts: &accounts,
        rows: &rows,
        wanted: &options.wanted,
        held: options.held,
        whole: options.whole,
        adopt: &options.adopt,
        uncertain: &uncertain,
        anew: options.anew,
    };
    let unclear = refresh::unclear(&inventory, &baseline);
    inventory.request_triggers(&unclear, &mut |home, call| requester.fetch(home, call))?;
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
            // Without it, the next one who doesn't know asks again.
            if requester.fetch(&home, Call::SetTags { worker, tags }).is_err() {
                break;
            }
        }
    }
    context.operator.end();
    let there: usize = inventory.workers.values().map(BTreeMap::len).sum();
    context.operator.on_event(&Event::Refreshed { requests: requester.requests, workers: there });
    Ok(RefreshResult { inventory, refreshed, missing, corrected })
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
    let DeployedResources { etag, workers_dev, domains, routes, crons, .. } = deployed.live.clone();
    Row {
        account: deployed.account.clone(),
        customer: deployed.customer.clone(),
        environment: deployed.environment,
        digest: Some(deployed.digest).filter(|_| deployed.drift.is_none()),
        etag,
        workers_dev,
        domains,
        routes,
        crons,
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
    // As a record of no deploy: nobody is to go back to it.
    fn entry(at: i64, reasons: &[Reason]) -> Entry<'_> {
        Entry { run: RunId(0), at, action: "refresh", reasons, left: &[] }
    }
    let Recorded { live: before, in_flight } = recorded;
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
                // Ours, but nobody knows what is wanted of it, as it has errors.
                Some(true) => continue,
            };
            state.forget(id, deployed, &entry(at, &[reason]))?;
            corrected += 1;
        }
        // What was begun and is not there was never done, or is undone.
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
            workers_dev: row.workers_dev,
            domains: row.domains.clone(),
            routes: row.routes.clone(),
            crons: row.crons.clone(),
            // Which values another machine uploaded, nobody knows here.
            secrets: same.map(|before| before.live.secrets.clone()).unwrap_or_default(),
        },
    }
}
