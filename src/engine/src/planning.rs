//! Makes a plan from what was built, the state and, with `--refresh`, the platform's lists. Decides nothing about
//! single workers: that is `flotilla_deploy::plan`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rayon::prelude::*;
use wildmatch::WildMatch;

use flotilla_build::build::future_dates::{FutureDates, today};
use flotilla_build::build::{self, LiveTriggers, PackBundles, Project, Scan};
use flotilla_build::index::{RecordIndex, WorkerIndex};
use flotilla_build::render::Recipe;
use flotilla_build::resolve::ClaimedResource;
use flotilla_deploy::pace::Priority;
use flotilla_deploy::plan::handover::{Contested, Holder, Holders, Host, hosts_of};
use flotilla_deploy::plan::{
    self, Change, DatabaseDecision, DatabaseUser, Decision, Desired, Held, Options, Plan, Planner, RecordedWorker,
    Step, Wave, decide_database,
};
use flotilla_deploy::refresh::{self as refreshing, Finding, Inventory};
use flotilla_deploy::state::{self, Deployed, InFlight, Run, State, Stored, Uncertainty, WorkerId, deflated};
use flotilla_model::assets;
use flotilla_model::bundle::{self, Bundle, PackBundle, Resource};
use flotilla_model::clock::{Clock, SystemClock};
use flotilla_model::customer::{Hosts, Worker};
use flotilla_model::diagnostic::{Diagnostic, Severity};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::fingerprint::Fingerprints;
use flotilla_model::platform::Home;
use flotilla_model::reason::Reason;
use flotilla_model::spec::{Delivery, Environment, Route};
use flotilla_model::tags::Triggers;
use flotilla_spec::project;
use flotilla_spec::secrets::Secrets;

use crate::accounts::cloud_of_all;
use crate::build_fleet::{Built, build_fleet};
use crate::cloud::{Cloud, CloudOptions};
use crate::context::Context;
use crate::credentials::InvalidId;
use crate::databases::{BoundDatabase, Contradictions, SyntaxErrors, databases_of};
use crate::implied::{self, Unclear};
use crate::lanes::Lanes;
use crate::operator::Event;
use crate::plan_view::{Estimate, PlanView};
use crate::refresh::{self, RefreshOptions};
use crate::secret_needs::{self, Lacking};
use crate::selection::Selection;

/// The number of customers that are planned at a time.
const CHUNK: usize = 1024;
/// The number of interruptions of one redeploy that are looked back at.
const RUNS: usize = 1000;

/// The inputs of a plan, beside the files and the state.
#[derive(Clone, Debug, Default)]
pub struct PlanRequest {
    /// The customers that it is about.
    pub selection: Selection,
    /// The cloud that it is for.
    pub cloud: CloudOptions,
    /// Uploads every selected worker, changed or not, for this reason.
    pub force: Option<String>,
    /// Deletes deployed workers that no spec defines any more.
    pub prune: bool,
    /// Deletes and does nothing else.
    pub only_prune: bool,
    /// Applies the migrations of databases and does nothing else.
    pub only_databases: bool,
    /// Deletes only workers of these customers; none: of all.
    pub pruned_customers: BTreeSet<String>,
    /// Builds in memory alone: out/ and the build cache stay as they are.
    pub dry_build: bool,
    /// Lists the platform's resources first.
    pub refresh: bool,
    /// Workers that are overwritten and belong to the fleet from then on.
    pub adopt: BTreeSet<String>,
    /// The plan is going to be applied: then a refresh corrects the state itself, else a copy in memory.
    pub applies: bool,
    /// The time at which the uploaded workers expire, in seconds since 1970, as they are a preview's.
    pub expires: i64,
    /// The priority of the requests that look at the platform.
    pub priority: Priority,
}

/// A plan, and everything that it was made from.
pub struct Planned {
    /// The fleet's files.
    pub project: Project,
    /// The fleet's customers.
    pub scan: Scan,
    /// The bundles of its packs.
    pub runtimes: PackBundles,
    /// The errors and warnings of the selected customers.
    pub diagnostics: Vec<Diagnostic>,
    /// The sources of secrets.
    pub secrets: Arc<Secrets>,
    /// The cloud that it is for.
    pub cloud: Cloud,
    /// The plan.
    pub plan: Plan,
    /// The number of workers that it is about, changed or not.
    pub workers: usize,
    /// The number of workers that are live, as far as the state knows.
    pub live: usize,
    /// The number of workers of each home that are live, as far as the state knows.
    pub(crate) known: BTreeMap<Home, usize>,
    /// The number of requests that look up ids for the first time, by account id.
    lookups: BTreeMap<String, usize>,
    /// The platform's resources, if they were listed.
    pub inventory: Option<Inventory>,
    /// The differences of the platform from the state or the specs, if it was listed.
    pub findings: Vec<Finding>,
    /// The accounts that could not be refreshed, with the reasons.
    pub refused: Vec<(String, Failure)>,
    /// The workers that are adopted.
    pub adopt: BTreeSet<String>,
    /// The time at which the uploaded workers expire, in seconds since 1970, if they are a preview's.
    pub expires: i64,
    /// The secrets that workers have, of those that the state doesn't know of.
    pub(crate) unknown_secrets: HashMap<WorkerId, BTreeSet<String>>,
    /// The customers that it is about.
    selection: Selection,
    /// The packs' bundles, deflated once.
    deflated: OnceLock<HashMap<String, Vec<u8>>>,
    /// The places of the changes' workers in the scan.
    places: HashMap<WorkerId, WorkerIndex>,
}

/// Builds the fleet and plans. Fails with diagnostics where the fleet as a whole can't be built.
pub fn plan_fleet(context: &Context<'_>, request: &PlanRequest) -> Result<Planned, Failure> {
    if request.prune && !request.selection.is_all() {
        return Err(
            Failure::usage("--prune applies to the whole fleet only").hint("remove the customers, labels and --env")
        );
    }
    let built = build_fleet(context, &request.selection, request.dry_build, false)?;
    context.operator.on_event(&Event::Diagnostics(&built.diagnostics));
    if context.preview.is_some() && built.built.workers == 0 && built.has_errors() {
        return Err(Failure::new("no worker of the preview can be built; nothing was sent"));
    }
    plan_built(context, request, built)
}

/// Plans from what was built.
fn plan_built(context: &Context<'_>, request: &PlanRequest, built: Built) -> Result<Planned, Failure> {
    let Built { mut project, scan, runtimes, built, mut diagnostics, .. } = built;
    let (operator, selection) = (context.operator, &request.selection);
    let secrets = Arc::new(request.cloud.secrets(context, &project.fleet)?);
    operator.begin("planning", None);
    let mut cloud = cloud_of_all(context, &mut project.fleet, &request.cloud, &secrets)?;
    cloud.priority = request.priority;
    if request.prune && scan.unread {
        operator.on_event(&Event::NothingPruned);
    }
    let adopt = adopted(&project, &scan, &request.adopt)?;
    let homes = planned_homes(context, &project.fleet, &cloud, &secrets);
    let waves = if context.preview.is_some() { Vec::new() } else { Wave::of(&project.fleet.file.deploy.waves) };
    let mut options = options(context, request, &cloud, (&scan, &built), &homes, &waves);
    options.adopt = adopt.clone();
    let mut state = match (request.refresh, request.applies) {
        (false, _) => State::read(&cloud.state)?,
        (true, false) => State::shadow(&cloud.state)?,
        (true, true) => State::open(&cloud.state)?,
    };
    if let Some(reason) = &request.force {
        options.forced_since = interrupted(&state, reason)?;
    }
    let (mut inventory, mut findings, mut refused) = (None, Vec::new(), Vec::new());
    if request.refresh {
        let wanted = Fleet { project: &project, scan: &scan, runtimes: &runtimes, built: &built, cloud: &cloud }
            .desired(selection, &options);
        let refresh_options = RefreshOptions {
            wanted,
            held: &options.invalid,
            whole: options.whole && !scan.unread,
            adopt: adopt.clone(),
            homes: &homes,
            anew: false,
            all_domains: request.only_prune || context.preview.is_some(),
            tag: request.applies,
        };
        let result = refresh::refresh(context, &project.fleet, &mut cloud, &secrets, &mut state, refresh_options)?;
        options.unowned = result.refreshed.unowned;
        options.missing = result.missing;
        options.objects = refreshing::with_objects(&result.inventory);
        inventory = Some(result.inventory);
        findings = result.refreshed.findings;
        refused = result.refused;
    }
    let fleet = Fleet { project: &project, scan: &scan, runtimes: &runtimes, built: &built, cloud: &cloud };
    let PlanParts { plan, workers, places, diagnostics: found } =
        fleet.plan(selection, &secrets, &state, &options, &homes)?;
    let (live, known) = (state.live()?, state.workers_by_home()?);
    let lookups = plan.lookups(&state)?;
    operator.end();
    if !found.is_empty() {
        operator.on_event(&Event::Diagnostics(&found));
        diagnostics.extend(found);
    }
    // Made-up values take the place of those that only other machines know.
    let broken: BTreeSet<String> = secrets.errors().into_iter().map(|error| error.place.file).collect();
    for (source, reason) in
        secrets.closed().iter().filter(|(source, _)| cloud.local.is_none() || broken.contains(source))
    {
        operator.on_event(&Event::SourceUnavailable { source, reason });
    }
    Ok(Planned {
        project,
        scan,
        runtimes,
        diagnostics,
        secrets,
        cloud,
        plan,
        workers,
        live,
        known,
        lookups,
        inventory,
        findings,
        refused,
        adopt,
        expires: request.expires,
        places,
        selection: selection.clone(),
        unknown_secrets: HashMap::new(),
        deflated: OnceLock::new(),
    })
}

/// The homes that a plan may look at: of a preview, those that are reached from here.
fn planned_homes(
    context: &Context<'_>,
    fleet: &project::Fleet,
    cloud: &Cloud,
    secrets: &Secrets,
) -> BTreeMap<Home, String> {
    let mut homes = homes(fleet, cloud);
    if context.preview.is_some() {
        homes.retain(|_, account| cloud.tokens_to_look_at(fleet, [account.as_str()], secrets).is_ok());
    }
    homes
}

/// The options of a plan, as the request and the files decide them.
fn options<'a>(
    context: &Context<'_>,
    request: &'a PlanRequest,
    cloud: &Cloud,
    (scan, built): (&Scan, &build::Built),
    homes: &BTreeMap<Home, String>,
    waves: &'a [Wave],
) -> Options<'a> {
    let selection = &request.selection;
    // What could not be rendered is held, as well.
    let mut invalid: BTreeSet<String> = scan.held.union(&built.failed).cloned().collect();
    invalid.retain(|customer| selection.includes_id(customer));
    Options {
        force: request.force.as_deref(),
        forced_since: None,
        prune: request.prune && !scan.unread,
        only_prune: request.only_prune,
        only_databases: request.only_databases,
        pruned_customers: Some(&request.pruned_customers).filter(|customers| !customers.is_empty()),
        named: selection.named(),
        any_delivery: cloud.local.is_some() || context.preview.is_some(),
        whole: selection.is_all(),
        invalid,
        homes: homes.keys().cloned().collect(),
        waves,
        unowned: BTreeMap::new(),
        missing: BTreeSet::new(),
        objects: BTreeSet::new(),
        adopt: BTreeSet::new(),
    }
}

/// Returns the workers that are adopted: those that are named, and those of the fleet whose names match a pattern with `*` or `?`.
fn adopted(project: &Project, scan: &Scan, patterns: &BTreeSet<String>) -> Result<BTreeSet<String>, Failure> {
    let (globs, mut adopted): (BTreeSet<_>, BTreeSet<_>) =
        patterns.iter().cloned().partition(|pattern| pattern.contains(['*', '?']));
    if globs.is_empty() {
        return Ok(adopted);
    }
    let units = scan.records.iter().flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
    let names: BTreeSet<String> =
        units.filter_map(|(record, unit)| Some(scan.worker(project, record, unit)?.name)).collect();
    for glob in &globs {
        let matcher = WildMatch::new(glob);
        let matching: Vec<&String> = names.iter().filter(|name| matcher.matches(name)).collect();
        if matching.is_empty() {
            return Err(Failure::usage(format!("--adopt: no worker of the fleet matches `{glob}`"))
                .hint("`flotilla list` shows the names of the fleet's workers"));
        }
        adopted.extend(matching.into_iter().cloned());
    }
    Ok(adopted)
}

/// The desired state of the fleet, for commands that correct the state.
pub struct DesiredFleet {
    /// The fleet's files.
    pub project: Project,
    /// The sources of secrets.
    pub secrets: Secrets,
    /// The cloud.
    pub cloud: Cloud,
    /// The workers that there should be.
    pub wanted: BTreeMap<WorkerId, refreshing::Wanted>,
    /// The customers whose specs have errors.
    pub held: BTreeSet<String>,
    /// Whether all specs can be read.
    pub whole: bool,
    /// The homes whose workers the fleet may own, with their accounts' names.
    pub homes: BTreeMap<Home, String>,
}

/// Builds the fleet and finds what there should be. Fails with diagnostics where the fleet as a whole can't be built.
pub fn desired_fleet(context: &Context<'_>, cloud: &CloudOptions) -> Result<DesiredFleet, Failure> {
    let selection = Selection::default();
    let built = build_fleet(context, &selection, false, false)?;
    context.operator.on_event(&Event::Diagnostics(&built.diagnostics));
    let Built { mut project, scan, runtimes, built, .. } = built;
    let secrets = cloud.secrets(context, &project.fleet)?;
    let cloud = cloud_of_all(context, &mut project.fleet, cloud, &secrets)?;
    let held: BTreeSet<String> = scan.held.union(&built.failed).cloned().collect();
    let options = Options { any_delivery: cloud.local.is_some(), whole: true, ..Options::default() };
    let wanted = Fleet { project: &project, scan: &scan, runtimes: &runtimes, built: &built, cloud: &cloud }
        .desired(&selection, &options);
    let (whole, homes) = (!scan.unread, homes(&project.fleet, &cloud));
    Ok(DesiredFleet { project, secrets, cloud, wanted, held, whole, homes })
}

/// Since when a redeploy for this reason has been going on that was interrupted, perhaps several times.
fn interrupted(state: &State, reason: &str) -> Result<Option<i64>, Failure> {
    let open = |run: &Run| {
        let left = ["failed", "skipped"].iter().any(|key| run.outcome[key].as_u64() != Some(0));
        run.what == "redeploy" && run.reason == reason && left
    };
    let runs = state.runs(RUNS)?;
    Ok(runs.iter().map(|(_, run)| run).take_while(|run| open(run)).last().map(|run| run.began))
}

/// The homes whose workers the fleet may own, with their account's names.
pub fn homes(fleet: &project::Fleet, cloud: &Cloud) -> BTreeMap<Home, String> {
    let accounts = fleet.accounts.iter();
    let homes = accounts.flat_map(|(name, account)| {
        [cloud.home(name, account.dispatch_namespace.as_deref()), cloud.home(name, None)]
            .map(|home| (home, name.clone()))
    });
    homes.filter(|(home, _)| !home.account_id.is_empty()).collect()
}

/// The inputs of a plan.
struct Fleet<'a> {
    project: &'a Project,
    scan: &'a Scan,
    runtimes: &'a PackBundles,
    built: &'a build::Built,
    cloud: &'a Cloud,
}

/// A worker on its way into a plan.
struct Wanted {
    place: WorkerIndex,
    worker: Worker,
    bundle: Bundle,
    home: Home,
    live: Option<Deployed>,
    in_flight: Option<InFlight>,
    bundle_before: Option<Stored>,
    /// The names of its D1 databases whose ids aren't known.
    unknown_databases: Vec<String>,
    /// The number of files of its static assets that the platform may lack, and how many of them are its own.
    missing_assets: (usize, usize),
    /// The databases with migrations that it is bound to.
    databases: Vec<BoundDatabase>,
}

/// The decision on a worker.
struct Decided {
    id: WorkerId,
    place: WorkerIndex,
    account: String,
    customer: String,
    labels: BTreeMap<String, String>,
    environment: Environment,
    hosts: Option<Hosts>,
    databases: Vec<BoundDatabase>,
    decision: Decision,
}

impl Decided {
    /// Adds the databases that are behind their pack's migrations to a plan.
    fn add_databases(&self, planner: &mut Planner<'_>) {
        for BoundDatabase { reference, all, known, .. } in &self.databases {
            let DatabaseDecision::Behind { pending, reads_table } = decide_database(all, known.as_ref()) else {
                continue;
            };
            let creates = |step: &Step| matches!(step, Step::CreateDatabase { name, .. } if *name == reference.name);
            let is_new = match &self.decision {
                Decision::Held(_) => continue,
                Decision::Unchanged => false,
                Decision::Change(change) => change.steps.iter().any(creates),
            };
            let user = DatabaseUser {
                id: &self.id,
                customer: &self.customer,
                labels: &self.labels,
                environment: self.environment,
                account: &self.account,
                is_new,
            };
            planner.add_database(&user, reference, all, (pending, reads_table));
        }
    }
}

impl Wanted {
    /// Returns the secrets that its upload needs and that have no value here.
    fn lacking(&self, secrets: &Secrets, fingerprints: &Fingerprints) -> Option<Lacking> {
        let is_uncertain = self.in_flight.as_ref().is_some_and(|in_flight| {
            let mut all = in_flight.uncertainties.iter();
            all.any(|uncertainty| matches!(uncertainty, Uncertainty::Upload | Uncertainty::Delete))
        });
        let live = self.live.as_ref().filter(|live| live.drift.is_none() && !is_uncertain);
        secret_needs::lacking(secrets, &self.worker, live.map(|live| &live.live.secrets), fingerprints)
    }

    fn id(&self) -> WorkerId {
        (self.home.clone(), self.worker.name.clone())
    }
}

/// A plan, and what is found out beside it.
struct PlanParts {
    plan: Plan,
    /// The number of workers that it is about.
    workers: usize,
    /// The places of the changes' workers in the scan.
    places: HashMap<WorkerId, WorkerIndex>,
    /// The errors that only the state shows.
    diagnostics: Vec<Diagnostic>,
}

impl Fleet<'_> {
    /// Plans, some workers at a time: what doesn't change isn't kept.
    fn plan(
        &self,
        selection: &Selection,
        secrets: &Secrets,
        state: &State,
        options: &Options<'_>,
        homes: &BTreeMap<Home, String>,
    ) -> Result<PlanParts, Failure> {
        let fingerprints = state.fingerprints();
        let mut in_flight = state.in_flight()?;
        for ((home, _), in_flight) in &mut in_flight {
            // An account can have got another name in fleet.yaml since.
            if let Some(name) = homes.get(home) {
                in_flight.account.clone_from(name);
            }
        }
        let contested = Contested::of(&in_flight);
        let hosts = state.hosts_by_worker()?;
        let mut planner = Planner::new(options);
        let mut asset_counts = HashMap::new();
        let (mut unclear, mut future) = (Unclear::default(), FutureDates::default());
        let (mut contradictions, mut syntax_errors) = (Contradictions::default(), SyntaxErrors::default());
        let today = today();
        let broken_sources: Mutex<BTreeSet<String>> = Mutex::default();
        let (mut workers, mut places) = (0, HashMap::new());
        let all: Vec<RecordIndex> = self.scan.indices().collect();
        for records in all.chunks(CHUNK) {
            let mut wanted: Vec<Wanted> = records.par_iter().flat_map_iter(|at| self.wanted(*at, selection)).collect();
            let mut with_future_date: HashSet<WorkerId> = HashSet::new();
            let mut with_contradiction: HashSet<WorkerId> = HashSet::new();
            let mut with_syntax_error: HashSet<WorkerId> = HashSet::new();
            for one in &mut wanted {
                let id = one.id();
                if !options.only_prune && future.add(self.project, &one.worker, &today) {
                    with_future_date.insert(id.clone());
                }
                one.live = state.one(&id)?;
                if one.live.is_none() && !options.only_prune {
                    unclear.add(self.project, &one.worker, state)?;
                }
                one.in_flight = in_flight.get(&id).cloned();
                let named =
                    bundle::by_name(&one.bundle.metadata).filter(|(resource, _)| *resource == Resource::Database);
                for (_, name) in named {
                    if state.cached_id(&id.0.account_id, state::ResourceKind::Database, name)?.is_none()
                        && !one.unknown_databases.iter().any(|other| other == name)
                    {
                        one.unknown_databases.push(name.to_owned());
                    }
                }
                if let Some(live) = one.live.as_ref().filter(|live| live.digest != one.bundle.digest) {
                    one.bundle_before = state.stored(&id, &live.digest)?;
                }
                one.missing_assets = self.missing_assets(one, state, &mut asset_counts)?;
                let pack = self.project.fleet.packs.get(&one.worker.pack).filter(|_| !options.only_prune);
                if let Some(pack) = pack.filter(|pack| !pack.databases.is_empty()) {
                    one.databases = databases_of(pack, &one.worker, &id.0.account_id, state)?;
                }
                for database in &one.databases {
                    match database.decision() {
                        DatabaseDecision::UpToDate => {}
                        DatabaseDecision::Behind { .. } => {
                            if syntax_errors.has(&database.all) {
                                with_syntax_error.insert(id.clone());
                            }
                        }
                        DatabaseDecision::Faulty(faults) => {
                            contradictions.add(database, faults);
                            with_contradiction.insert(id.clone());
                        }
                    }
                }
            }
            secrets.prepare(wanted.iter().map(|one| &one.worker));
            let decided: Vec<Decided> = wanted
                .into_par_iter()
                .map(|one| {
                    let differences = self.differences(&one, &hosts);
                    let contested = one.live.as_ref().map(|live| contested.of_worker(&one.id(), live));
                    let known = RecordedWorker {
                        live: one.live.as_ref(),
                        in_flight: one.in_flight.as_ref(),
                        bundle: one.bundle_before.as_ref(),
                        differences: &differences,
                        unknown_databases: &one.unknown_databases,
                        missing_assets: one.missing_assets,
                        contested: contested.as_deref().unwrap_or_default(),
                    };
                    let desired = Desired {
                        home: one.home.clone(),
                        worker: &one.worker,
                        bundle: &one.bundle,
                        secrets: secrets.fingerprints(&one.worker, &fingerprints),
                    };
                    let decision = match unclear.skips(&one.worker) {
                        _ if with_future_date.contains(&one.id()) => {
                            Decision::Held(implied::held(&one.worker, "its compatibility date is in the future"))
                        }
                        _ if with_syntax_error.contains(&one.id()) => {
                            Decision::Held(implied::held(&one.worker, "a migration of its database has an error"))
                        }
                        _ if with_contradiction.contains(&one.id()) => Decision::Held(implied::held(
                            &one.worker,
                            "migrations that were applied to its database were edited or removed",
                        )),
                        Some(reason) => Decision::Held(implied::held(&one.worker, &reason)),
                        None => match plan::decide(&desired, &known, options) {
                            Decision::Change(mut change) if change.steps.contains(&Step::Upload) => {
                                match one.lacking(secrets, &fingerprints) {
                                    Some(Lacking { broken_source: Some(source), .. }) => {
                                        let reason = format!("it needs a secret, and {source} has errors");
                                        broken_sources.lock().insert(source);
                                        let environment = Some(one.worker.environment);
                                        let worker = Some(one.worker.name.clone());
                                        let held = implied::held(&one.worker, &reason);
                                        Decision::Held(Held { environment, worker, ..held })
                                    }
                                    Some(Lacking { names, .. }) => {
                                        let missing = names.into_iter().map(|name| Reason::SecretMissing { name });
                                        change.reasons.extend(missing);
                                        Decision::Change(change)
                                    }
                                    None => Decision::Change(change),
                                }
                            }
                            decision => decision,
                        },
                    };
                    let id = one.id();
                    let Worker { account, customer, labels, environment, hosts, .. } = one.worker;
                    let (place, databases) = (one.place, one.databases);
                    Decided { id, place, account, customer, labels, environment, hosts, databases, decision }
                })
                .collect();
            workers += decided.len();
            for one in decided {
                one.add_databases(&mut planner);
                let Decided { id, place, account, hosts, decision, .. } = one;
                if let Decision::Change(_) = decision {
                    places.insert(id.clone(), place);
                }
                planner.add_hosts(&id, &account, hosts.as_ref(), matches!(decision, Decision::Held(_)));
                planner.add(&id, decision);
            }
        }
        if options.whole {
            let mut gone = Vec::new();
            state.each(|id, live| {
                if planner.is_gone(&id, &live.customer) {
                    gone.push((id, live));
                }
            })?;
            for (id, live) in &mut gone {
                if let Some(name) = homes.get(&id.0) {
                    live.account.clone_from(name);
                }
                planner.gone(id, Some(live), in_flight.get(id));
                in_flight.remove(id);
            }
            for (id, in_flight) in &in_flight {
                if planner.is_gone(id, &in_flight.customer) {
                    planner.gone(id, None, Some(in_flight));
                }
            }
        }
        let others = OnceLock::new();
        planner.hold_without_callees(&mut |id| {
            // The state doesn't contain what others deploy.
            Ok(state.one(id)?.is_some() || others.get_or_init(|| self.deployed_by_others()).contains(id))
        })?;
        self.hand_over(&mut planner, state)?;
        let mut recorded = state.hosts()?;
        // Workers in an account that fleet.yaml no longer has can't be reached.
        recorded.retain(|_, add_hosts| match homes.get(&add_hosts.home) {
            Some(name) => {
                add_hosts.account.clone_from(name);
                true
            }
            None => false,
        });
        let claims: OnceLock<HashSet<u64>> = OnceLock::new();
        let is_claimed = |host: &str| {
            let all = || self.scan.records.iter().flat_map(|record| record.claims.iter().copied()).collect();
            claims.get_or_init(all).contains(&ClaimedResource::Entry(host.to_owned()).digest())
        };
        let plan = planner.finish_with(&recorded, &is_claimed);
        let mut diagnostics = unclear.into_diagnostics();
        diagnostics.extend(future.into_diagnostics());
        diagnostics.extend(contradictions.into_diagnostics());
        diagnostics.extend(syntax_errors.into_diagnostics());
        let broken_sources = broken_sources.into_inner();
        diagnostics.extend(secrets.errors().into_iter().filter(|error| broken_sources.contains(&error.place.file)));
        Ok(PlanParts { plan, workers, places, diagnostics })
    }

    /// Returns the number of files of a worker's static assets that the platform may lack, those that the live bundle doesn't have; and how many
    /// of them are not of the pack. `known` has the counts of lists that were compared already.
    fn missing_assets(
        &self,
        one: &Wanted,
        state: &State,
        known: &mut HashMap<(Option<Digest>, Digest), (usize, usize)>,
    ) -> Result<(usize, usize), Failure> {
        let bundle = self.runtimes.of(&one.worker);
        let Some((pack, own)) = bundle.assets.as_ref().zip(one.worker.assets.as_ref()) else { return Ok((0, 0)) };
        let is_known = |part: &Uncertainty| !matches!(part, Uncertainty::Upload | Uncertainty::Delete);
        let is_certain = one.in_flight.iter().flat_map(|in_flight| &in_flight.uncertainties).all(is_known);
        let before = one.bundle_before.as_ref().filter(|_| is_certain);
        let key = before.and_then(|before| Some(assets::digests_of(&before.metadata)?.list));
        let key = (key, pack.digests_of(own).list);
        if let Some(count) = known.get(&key) {
            return Ok(*count);
        }
        let before = match before {
            Some(before) => state.assets_of(before)?,
            None => None,
        };
        let list = pack.list_of(own);
        let count = list.count_new(before.as_ref());
        let count = (count, list.count_new(before.iter().chain([&*pack.list])));
        known.insert(key, count);
        Ok(count)
    }

    /// Returns the workers that somebody else deploys.
    fn deployed_by_others(&self) -> HashSet<WorkerId> {
        let workers = self.scan.records.par_iter().flat_map_iter(|record| {
            record.units.iter().filter_map(|unit| self.scan.worker(self.project, record, unit))
        });
        let by_others = workers.filter(|worker| matches!(worker.delivery, Delivery::Gitops | Delivery::SelfHosted));
        by_others.map(|worker| (self.cloud.home(&worker.account, worker.namespace.as_deref()), worker.name)).collect()
    }

    /// Finds the workers that have the hosts which changes attach, and plans the moves.
    fn hand_over(&self, planner: &mut Planner<'_>, state: &State) -> Result<(), Failure> {
        let acquired = planner.acquired();
        if acquired.is_empty() {
            return Ok(());
        }
        let records: HashMap<&str, RecordIndex> =
            self.scan.indices().map(|index| (build::id(self.scan.record(index)), index)).collect();
        let is_held = |customer: &str| self.scan.held.contains(customer) || self.built.failed.contains(customer);
        let spec_of = |id: &WorkerId, customer: &str| {
            let record = self.scan.record(*records.get(customer).filter(|_| !is_held(customer))?);
            let mut workers = record.units.iter().filter_map(|unit| self.scan.worker(self.project, record, unit));
            workers.find(|worker| {
                self.cloud.home(&worker.account, worker.namespace.as_deref()) == id.0 && worker.name == id.1
            })
        };
        let is_defined = |id: &WorkerId, customer: &str| match records.contains_key(customer) {
            _ if is_held(customer) => true,
            // A spec that can't be read may define it.
            false => self.scan.unread,
            true => spec_of(id, customer).is_some(),
        };
        // What the specs say of two hosts that overlap was checked with them; here it is about what is still deployed.
        let is_wanted = |id: &WorkerId, customer: &str, host: &Host| {
            spec_of(id, customer).is_some_and(|worker| match host {
                Host::Domain(domain) => worker.domains.contains(domain),
                Host::Route(pattern) => worker.routes.iter().any(|route| route.pattern == *pattern),
            })
        };
        let is_shared = |host: &Host| {
            let shared = &self.project.fleet.file.shared_hosts;
            matches!(host, Host::Route(_)) && shared.iter().any(|shared| shared == host.name())
        };
        let mut holders = Holders::default();
        let mut add = |id: &WorkerId, customer: &str, hosts: BTreeSet<Host>, is_sure| {
            for host in hosts {
                let giver = || planner.giver(id, customer, || is_defined(id, customer));
                let holder = |giver| Holder { id: id.clone(), customer: customer.to_owned(), giver };
                for other in acquired.overlapping(&id.0.account_id, &host) {
                    if !is_shared(&host) && !is_shared(&other) && !is_wanted(id, customer, &host) {
                        holders.add_overlapping(other, host.clone(), holder(giver()));
                    }
                }
                if acquired.contains(&id.0.account_id, &host) {
                    holders.add(host, holder(giver()), is_sure);
                }
            }
        };
        state.each(|id, live| add(&id, &live.customer, hosts_of(Some(&live), None), true))?;
        for (id, in_flight) in &state.in_flight()? {
            add(id, &in_flight.customer, hosts_of(None, Some(in_flight)), false);
        }
        planner.hand_over(&holders);
        Ok(())
    }

    /// Returns the desired state of the selected workers, to compare the cloud with.
    fn desired(&self, selection: &Selection, options: &Options<'_>) -> BTreeMap<WorkerId, refreshing::Wanted> {
        let all: Vec<RecordIndex> = self.scan.indices().collect();
        let wanted = all.par_iter().flat_map_iter(|at| self.wanted(*at, selection)).map(|item| {
            let worker = &item.worker;
            let ours = options.any_delivery || matches!(worker.delivery, Delivery::Automatic | Delivery::Manual);
            let wanted = refreshing::Wanted {
                account: worker.account.clone(),
                customer: worker.customer.clone(),
                environment: worker.environment,
                digest: item.bundle.digest,
                triggers: Triggers::of(worker),
                zones: worker.routes.iter().map(|route| route.zone.clone()).collect(),
                ours,
            };
            (item.id(), wanted)
        });
        wanted.collect()
    }

    /// The workers of a customer that are to be deployed as they were built.
    fn wanted(&self, index: RecordIndex, selection: &Selection) -> Vec<Wanted> {
        let record = self.scan.record(index);
        let customer = build::id(record);
        if self.scan.held.contains(customer) || self.built.failed.contains(customer) {
            return Vec::new();
        }
        let units = record.indexed_units().filter(|(_, unit)| selection.includes_unit(record, unit));
        let wanted = units.filter_map(|(unit_index, unit)| {
            let made = unit.rendered.as_ref().filter(|made| made.from == unit.resolved)?;
            let mut worker = self.scan.worker(self.project, record, unit)?;
            if self.cloud.local.is_some() && worker.routes.iter().any(|route| route.zone_id.is_some()) {
                // The emulator's zones have other ids than Cloudflare's.
                let without_id = |route| Route { zone_id: None, ..route };
                worker.routes = std::mem::take(&mut worker.routes).into_iter().map(without_id).collect();
            }
            let bundle =
                bundle::remembered(&worker, made.bundle(), Digest::from_bytes(made.module), self.runtimes.of(&worker));
            let home = self.cloud.home(&worker.account, worker.namespace.as_deref());
            let place = WorkerIndex { record: index, unit: unit_index };
            Some(Wanted {
                place,
                worker,
                bundle,
                home,
                live: None,
                in_flight: None,
                bundle_before: None,
                unknown_databases: Vec::new(),
                missing_assets: (0, 0),
                databases: Vec::new(),
            })
        });
        wanted.collect()
    }

    /// Returns the differences between the live and the desired worker, in the author's terms.
    fn differences(&self, one: &Wanted, hosts: &HashMap<WorkerId, Hosts>) -> Vec<Reason> {
        let (Some(before), Some(deployed)) = (&one.bundle_before, &one.live) else { return Vec::new() };
        let live = LiveTriggers { triggers: deployed.live.triggers(), hosts: hosts.get(&one.id()).cloned() };
        let recipe = build::recipe(self.project, self.runtimes, self.scan.unit(one.place).1);
        build::since(self.project, &one.worker, &recipe, &before.source, &live)
    }
}

impl Planned {
    /// Returns the worker that a change is about, and its recipe.
    pub fn worker(&self, change: &Change) -> Option<(Worker, Recipe)> {
        let (record, unit) = self.scan.unit(*self.places.get(&change.id())?);
        let worker = self.scan.worker(&self.project, record, unit)?;
        Some((worker, build::recipe(&self.project, &self.runtimes, unit)))
    }

    /// Returns a worker that the plan changes, as its spec defines it.
    pub(crate) fn planned_worker(&self, id: &WorkerId) -> Option<Worker> {
        let (record, unit) = self.scan.unit(*self.places.get(id)?);
        self.scan.worker(&self.project, record, unit)
    }

    /// Returns a pack's bundle, deflated.
    pub(crate) fn deflated_runtime(&self, bundle: &PackBundle) -> Vec<u8> {
        let one = |(_, bundle): (_, &PackBundle)| (bundle.file.clone(), deflated(&bundle.script));
        self.deflated.get_or_init(|| self.runtimes.iter().map(one).collect())[&bundle.file].clone()
    }

    /// Returns whether a deployed worker belongs to the selection, as far as its customer and environment decide.
    pub fn selects(&self, customer: &str, environment: Environment) -> bool {
        self.selection.includes_deployed(customer, environment)
    }

    /// Returns the plan and what is shown beside it.
    pub fn view(&self) -> PlanView<'_> {
        PlanView {
            plan: &self.plan,
            estimates: self.estimates(),
            findings: &self.findings,
            unknown_accounts: self.cloud.unknown(self.project.fleet.accounts.keys().map(String::as_str)),
            invalid_ids: self.invalid_ids(),
            local: self.cloud.local.is_some(),
        }
    }

    /// Returns the accounts of the plan's workers whose ids no account can have.
    fn invalid_ids(&self) -> Vec<&InvalidId> {
        let accounts: BTreeSet<&str> = self.plan.changes.iter().map(|change| change.account.as_str()).collect();
        self.cloud.invalid(accounts)
    }

    /// Returns what the plan costs, lane by lane.
    fn estimates(&self) -> Vec<Estimate> {
        let accounts: BTreeSet<&str> = self.plan.changes.iter().map(|change| change.account.as_str()).collect();
        let tokens = self.cloud.tokens_to_look_at(&self.project.fleet, accounts, &self.secrets).unwrap_or_default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Lanes::open(&self.plan, &self.project.fleet, &self.cloud, &tokens, &clock).estimates(
            &self.plan,
            &self.lookups,
            &self.checks(),
        )
    }

    /// Returns the requests that check ownership, by account: the local emulator has no other owners.
    fn checks(&self) -> BTreeMap<&str, usize> {
        match self.cloud.local {
            Some(_) => BTreeMap::new(),
            None => {
                let known = |home: &Home| self.known.get(home).copied().unwrap_or(0);
                self.plan.checks(known, self.inventory.is_some())
            }
        }
    }

    /// Returns whether there are errors: of customers that are left as they are, or of accounts that can't be deployed to.
    pub fn has_errors(&self) -> bool {
        let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
        self.diagnostics.iter().any(is_error) || !self.invalid_ids().is_empty()
    }

    /// Returns the file of the plan that was approved by its digest last.
    pub(crate) fn reviewed_plan(&self) -> PathBuf {
        self.cloud.state.with_extension("plan")
    }
}
