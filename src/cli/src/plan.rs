//! `flotilla plan`, and the plan of `flotilla deploy`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use flotilla_build::build::{Built, PackBundles, Project, Scan};
use flotilla_build::index::{RecordIndex, WorkerIndex};
use flotilla_build::render::Recipe;
use flotilla_build::resolve::ClaimedResource;
use flotilla_deploy::plan::{self, Change, Decision, Desired, Known, Options, Plan, Planner, Wave};
use flotilla_deploy::refresh::{self as refreshing, Finding, Inventory};
use flotilla_deploy::state::{self, Begun, Deployed, Run, State, Stored, WorkerId, deflated};
use flotilla_model::bundle::{self, Bundle};
use flotilla_model::clock::{Clock, SystemClock};
use flotilla_model::customer::{Database, Hosts, Worker};
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::digest::Digest;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::Home;
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::{Delivery, Environment};
use flotilla_model::tags::Triggers;
use flotilla_spec::project;
use flotilla_spec::secrets::Secrets;

use super::build;
use super::cloud::{Cloud, CloudArguments};
use super::forms::Form;
use super::planfile::PlanFile;
use super::prices::{Lanes, Price};
use super::refresh::{self, How};
use super::report;
use super::selection::Selection;
use super::ui::{Style, Ui, clean};
use super::{Output, Session, summary};

/// So many customers are planned at a time.
const CHUNK: usize = 1024;
/// So many interruptions of one redeploy are looked back at.
const RUNS: usize = 1000;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub line: LineArguments,
    /// Exit with 3 if there are changes
    #[arg(long)]
    exit_code: bool,
    /// Show each change, however many there are
    #[arg(long)]
    full: bool,
    /// Write the plan to a file, for `flotilla deploy --plan FILE`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Append the plan as Markdown, for the summary of a CI job
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

/// The options that decide a plan.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct LineArguments {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub cloud: CloudArguments,
    /// Upload every selected worker, changed or not
    #[arg(long)]
    pub all: bool,
    /// Why every worker is uploaded; kept in the plan
    #[arg(long, value_name = "TEXT", requires = "all", default_value = "a bulk redeploy")]
    pub reason: String,
    /// Delete deployed workers that no spec owns any more
    #[arg(long)]
    pub prune: bool,
    /// Ask the cloud what is there: one list of each account or namespace, one of domains, one of each zone's routes
    #[arg(long)]
    pub refresh: bool,
    /// Make a worker the fleet's that isn't: it is overwritten. With --refresh, and where it is created
    #[arg(long, value_name = "WORKER", value_delimiter = ',')]
    pub adopt: Vec<String>,
    /// Whether the plan is applied: then the state itself is corrected.
    #[arg(skip)]
    pub applies: bool,
    /// Whether it deletes and does nothing else.
    #[arg(skip)]
    pub only_prune: bool,
    /// When what is uploaded expires, in seconds since 1970: it is a preview.
    #[arg(skip)]
    pub expires: i64,
}

impl LineArguments {
    /// The words of a command line that ask for the same; what they say of the cloud is left out.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.all {
            words.extend(["--all".to_owned(), format!("--reason={}", self.reason)]);
        }
        if self.prune {
            words.push("--prune".to_owned());
        }
        if self.refresh {
            words.push("--refresh".to_owned());
        }
        words.extend(self.adopt.iter().map(|worker| format!("--adopt={worker}")));
        words.extend(self.selection.words());
        words
    }
}

/// The line up to the plan.
pub(super) struct Planned {
    pub project: Project,
    pub scan: Scan,
    pub runtimes: PackBundles,
    pub diagnostics: Vec<Diagnostic>,
    pub secrets: Arc<Secrets>,
    pub cloud: Cloud,
    pub plan: Plan,
    /// How many workers it is about.
    pub workers: usize,
    /// How many workers are live, as far as the state knows.
    pub live: usize,
    /// What the cloud has, if it was asked.
    pub inventory: Option<Inventory>,
    /// What the cloud has otherwise than the state or the specs, if it was asked.
    pub findings: Vec<Finding>,
    /// The workers that are to become the fleet's.
    pub adopt: BTreeSet<String>,
    /// When what is uploaded expires, if it is a preview.
    pub expires: i64,
    /// Whom it is about.
    selection: Selection,
    /// The secrets that workers have, of those that the state doesn't know of: [`super::sending::look`].
    pub there: HashMap<WorkerId, BTreeSet<String>>,
    /// The runtimes, deflated once.
    deflated: OnceLock<HashMap<String, Vec<u8>>>,
    /// Where the workers of changes are in the scan: by home and name, the record and the unit.
    places: HashMap<WorkerId, WorkerIndex>,
}

pub(super) fn run(session: &Session, arguments: &Arguments, output: Output) -> Result<Exit, Failure> {
    let Some(planned) = line(session, &arguments.line)? else {
        return Ok(Exit::Diagnostics);
    };
    if let Some(path) = &arguments.out {
        PlanFile::new(&planned, arguments.line.words()).write(path)?;
    }
    let form = planned.form();
    summary::append(arguments.summary.as_deref(), &form.markdown())?;
    match output {
        Output::Json => session.json(&form.report())?,
        Output::Markdown => report::print(form.markdown().trim_end()),
        _ => report::print(&form.text(&session.ui, arguments.full, true)),
    }
    Ok(match (report::counts(&planned.diagnostics).0, arguments.exit_code && !planned.plan.is_empty()) {
        (1.., _) => Exit::Diagnostics,
        (0, true) => Exit::Pending,
        (0, false) => Exit::Done,
    })
}

/// From files to the plan. Nothing, if the fleet as a whole can't be built.
pub(super) fn line(session: &Session, arguments: &LineArguments) -> Result<Option<Planned>, Failure> {
    let selection = &arguments.selection;
    if arguments.prune && !selection.is_all() {
        return Err(Failure::usage("--prune needs the whole fleet").hint("leave the customers, labels and --env out"));
    }
    let Some(build::Done { project, scan, runtimes, built, diagnostics, .. }) =
        build::done(session, selection, false, false)?
    else {
        return Ok(None);
    };
    if session.preview.is_some() && built.workers == 0 && report::counts(&diagnostics).0 > 0 {
        return Err(Failure::new("no worker of the preview can be built; nothing was sent"));
    }
    let secrets = Arc::new(arguments.cloud.secrets(session, &project.fleet)?);
    session.ui.begin("planning", None);
    let mut cloud = Cloud::new(session, &project.fleet, &arguments.cloud, &secrets)?;
    // What could not be rendered is held, as well.
    let mut invalid: BTreeSet<String> = scan.held.union(&built.failed).cloned().collect();
    if arguments.prune && scan.unread {
        session.ui.line("nothing is pruned: as long as a spec can't be read, it may be that of any customer");
    }
    invalid.retain(|customer| selection.includes_id(customer));
    let mut homes = homes(&project.fleet, &cloud);
    if session.preview.is_some() {
        // What isn't reached from here is none of its accounts.
        homes.retain(|_, account| cloud.tokens(&project.fleet, [account.as_str()], &secrets).is_ok());
    }
    let waves = if session.preview.is_some() { Vec::new() } else { Wave::of(&project.fleet.file.deploy.waves) };
    let mut options = Options {
        force: arguments.all.then_some(arguments.reason.as_str()),
        forced_since: None,
        prune: arguments.prune && !scan.unread,
        only_prune: arguments.only_prune,
        named: selection.named(),
        any_delivery: cloud.local.is_some() || session.preview.is_some(),
        whole: selection.is_all(),
        invalid,
        homes: homes.keys().cloned().collect(),
        waves: &waves,
        unowned: BTreeMap::new(),
        missing: BTreeSet::new(),
    };
    let mut state = match (arguments.refresh, arguments.applies) {
        (false, _) => State::read(&cloud.state)?,
        (true, false) => State::shadow(&cloud.state)?,
        (true, true) => State::open(&cloud.state)?,
    };
    if arguments.all {
        options.forced_since = interrupted(&state, &arguments.reason)?;
    }
    let adopt: BTreeSet<String> = arguments.adopt.iter().cloned().collect();
    let (mut inventory, mut findings) = (None, Vec::new());
    if arguments.refresh {
        let wanted = Fleet { project: &project, scan: &scan, runtimes: &runtimes, built: &built, cloud: &cloud }
            .desired(selection, &options);
        let whole = options.whole && !scan.unread;
        let how = How {
            wanted,
            held: &options.invalid,
            whole,
            adopt: adopt.clone(),
            homes: &homes,
            anew: false,
            all_domains: arguments.only_prune || session.preview.is_some(),
            tag: arguments.applies,
        };
        let truth = refresh::refresh(session, &project.fleet, &mut cloud, &secrets, &mut state, how)?;
        options.unowned = truth.refreshed.unowned;
        options.missing = truth.missing;
        inventory = Some(truth.inventory);
        findings = truth.refreshed.findings;
    }
    let fleet = Fleet { project: &project, scan: &scan, runtimes: &runtimes, built: &built, cloud: &cloud };
    let (plan, workers, places) = fleet.plan(selection, &secrets, &state, &options, &homes)?;
    let live = state.live()?;
    session.ui.end();
    for (source, why) in secrets.closed().iter().filter(|_| cloud.local.is_none()) {
        let told = format!("{source} can't be asked ({why}): secrets that are deployed stay as they are");
        session.ui.line(&format!("{} {}", session.ui.paint(Style::Warning, "!"), clean(&told)));
    }
    Ok(Some(Planned {
        project,
        scan,
        runtimes,
        diagnostics,
        secrets,
        cloud,
        plan,
        workers,
        live,
        inventory,
        findings,
        adopt,
        expires: arguments.expires,
        places,
        selection: selection.clone(),
        there: HashMap::new(),
        deflated: OnceLock::new(),
    }))
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

/// What there should be, and how the state stands to it: for commands that put the state right.
pub(super) struct Wish {
    pub project: Project,
    pub secrets: Secrets,
    pub cloud: Cloud,
    pub wanted: BTreeMap<WorkerId, refreshing::Wanted>,
    pub held: BTreeSet<String>,
    /// Whether all specs can be read.
    pub whole: bool,
    pub homes: BTreeMap<Home, String>,
}

/// From files to what there should be. Nothing, if the fleet as a whole can't be built.
pub(super) fn wish(session: &Session, arguments: &CloudArguments) -> Result<Option<Wish>, Failure> {
    let selection = Selection::default();
    let Some(build::Done { project, scan, runtimes, built, .. }) = build::done(session, &selection, false, false)?
    else {
        return Ok(None);
    };
    let secrets = arguments.secrets(session, &project.fleet)?;
    let cloud = Cloud::new(session, &project.fleet, arguments, &secrets)?;
    let held: BTreeSet<String> = scan.held.union(&built.failed).cloned().collect();
    let options = Options { any_delivery: cloud.local.is_some(), whole: true, ..Options::default() };
    let wanted = Fleet { project: &project, scan: &scan, runtimes: &runtimes, built: &built, cloud: &cloud }
        .desired(&selection, &options);
    let (whole, homes) = (!scan.unread, homes(&project.fleet, &cloud));
    Ok(Some(Wish { project, secrets, cloud, wanted, held, whole, homes }))
}

/// The homes whose workers the fleet may own, with their account's names.
pub(super) fn homes(fleet: &project::Fleet, cloud: &Cloud) -> BTreeMap<Home, String> {
    let accounts = fleet.accounts.iter();
    let homes = accounts.flat_map(|(name, account)| {
        [cloud.home(name, account.dispatch_namespace.as_deref()), cloud.home(name, None)]
            .map(|home| (home, name.clone()))
    });
    homes.filter(|(home, _)| !home.account_id.is_empty()).collect()
}

/// What is planned from.
struct Fleet<'a> {
    project: &'a Project,
    scan: &'a Scan,
    runtimes: &'a PackBundles,
    built: &'a Built,
    cloud: &'a Cloud,
}

/// A worker on its way into a plan.
struct Wanted {
    place: WorkerIndex,
    worker: Worker,
    bundle: Bundle,
    home: Home,
    live: Option<Deployed>,
    begun: Option<Begun>,
    bundle_before: Option<Stored>,
    /// Whether its database's id is known, if it needs one.
    has_database: bool,
}

/// What was decided of a worker.
struct Decided {
    id: WorkerId,
    place: WorkerIndex,
    account: String,
    hosts: Option<Hosts>,
    decision: Decision,
}

impl Wanted {
    fn id(&self) -> WorkerId {
        (self.home.clone(), self.worker.name.clone())
    }
}

/// A plan, the number of workers that it is about, and where those of its changes are.
type Found = (Plan, usize, HashMap<WorkerId, WorkerIndex>);

impl Fleet<'_> {
    /// Plans, some workers at a time: what doesn't change isn't kept.
    fn plan(
        &self,
        selection: &Selection,
        secrets: &Secrets,
        state: &State,
        options: &Options<'_>,
        homes: &BTreeMap<Home, String>,
    ) -> Result<Found, Failure> {
        let fingerprints = state.fingerprints();
        let mut begun = state.begun()?;
        for ((home, _), begun) in &mut begun {
            // An account can have got another name in fleet.yaml since.
            if let Some(name) = homes.get(home) {
                begun.account.clone_from(name);
            }
        }
        let mut planner = Planner::new(options);
        let (mut workers, mut places) = (0, HashMap::new());
        let all: Vec<RecordIndex> = self.scan.indices().collect();
        for records in all.chunks(CHUNK) {
            let mut wanted: Vec<Wanted> = records.par_iter().flat_map_iter(|at| self.wanted(*at, selection)).collect();
            for one in &mut wanted {
                let id = one.id();
                one.live = state.one(&id)?;
                one.begun = begun.get(&id).cloned();
                if let Database::D1 { id: None, name, .. } = &one.worker.database {
                    one.has_database = state.found(&id.0.account_id, state::Found::Database, name)?.is_some();
                }
                if let Some(live) = one.live.as_ref().filter(|live| live.digest != one.bundle.digest) {
                    one.bundle_before = state.stored(&live.digest)?;
                }
            }
            secrets.prepare(wanted.iter().map(|one| &one.worker));
            let decided: Vec<Decided> = wanted
                .into_par_iter()
                .map(|one| {
                    let differences = self.differences(&one);
                    let known = Known {
                        live: one.live.as_ref(),
                        begun: one.begun.as_ref(),
                        bundle: one.bundle_before.as_ref(),
                        differences: &differences,
                        has_database: one.has_database,
                    };
                    let desired = Desired {
                        home: one.home.clone(),
                        worker: &one.worker,
                        bundle: &one.bundle,
                        secrets: secrets.fingerprints(&one.worker, &fingerprints),
                    };
                    let decision = plan::decide(&desired, &known, options);
                    let (id, hosts) = (one.id(), one.worker.hosts);
                    Decided { id, place: one.place, account: one.worker.account, hosts, decision }
                })
                .collect();
            workers += decided.len();
            for Decided { id, place, account, hosts, decision } in decided {
                if let Decision::Change(_) = decision {
                    places.insert(id.clone(), place);
                }
                planner.lead(&id, &account, hosts.as_ref(), matches!(decision, Decision::Held(_)));
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
                planner.gone(id, Some(live), begun.get(id));
                begun.remove(id);
            }
            for (id, begun) in &begun {
                if planner.is_gone(id, &begun.customer) {
                    planner.gone(id, None, Some(begun));
                }
            }
        }
        let mut recorded = state.hosts()?;
        // What lies in an account that fleet.yaml no longer has can't be reached.
        recorded.retain(|_, lead| match homes.get(&lead.home) {
            Some(name) => {
                lead.account.clone_from(name);
                true
            }
            None => false,
        });
        let claims: OnceLock<HashSet<u64>> = OnceLock::new();
        let is_claimed = |host: &str| {
            let all = || self.scan.records.iter().flat_map(|record| record.claims.iter().copied()).collect();
            claims.get_or_init(all).contains(&ClaimedResource::Entry(host.to_owned()).digest())
        };
        Ok((planner.finish_with(&recorded, &is_claimed), workers, places))
    }

    /// What there should be of the selected workers, for what the cloud has to be held against.
    fn desired(&self, selection: &Selection, options: &Options<'_>) -> BTreeMap<WorkerId, refreshing::Wanted> {
        let all: Vec<RecordIndex> = self.scan.indices().collect();
        let wanted = all.par_iter().flat_map_iter(|at| self.wanted(*at, selection)).map(|one| {
            let worker = &one.worker;
            let ours = options.any_delivery || matches!(worker.delivery, Delivery::Automatic | Delivery::Manual);
            let wanted = refreshing::Wanted {
                account: worker.account.clone(),
                customer: worker.customer.clone(),
                environment: worker.environment,
                digest: one.bundle.digest,
                triggers: Triggers::of(worker),
                zones: worker.routes.iter().map(|route| route.zone.clone()).collect(),
                ours,
            };
            (one.id(), wanted)
        });
        wanted.collect()
    }

    /// The workers of a customer that are to be deployed as they were built.
    fn wanted(&self, index: RecordIndex, selection: &Selection) -> Vec<Wanted> {
        let record = self.scan.record(index);
        let customer = flotilla_build::build::id(record);
        if self.scan.held.contains(customer) || self.built.failed.contains(customer) {
            return Vec::new();
        }
        let units = record.indexed_units().filter(|(_, unit)| selection.includes_unit(record, unit));
        let wanted = units.filter_map(|(unit_index, unit)| {
            let made = unit.rendered.as_ref().filter(|made| made.from == unit.resolved)?;
            let worker = self.scan.worker(self.project, record, unit)?;
            let bundle = bundle::remembered(
                &worker,
                made.bundle(),
                Digest::from_bytes(made.module),
                &self.runtimes[&worker.pack],
            );
            let home = self.cloud.home(&worker.account, worker.namespace.as_deref());
            let place = WorkerIndex { record: index, unit: unit_index };
            Some(Wanted {
                place,
                worker,
                bundle,
                home,
                live: None,
                begun: None,
                bundle_before: None,
                has_database: false,
            })
        });
        wanted.collect()
    }

    /// What differs between what is live and what is desired, in the author's terms.
    fn differences(&self, one: &Wanted) -> Vec<String> {
        let Some(before) = &one.bundle_before else { return Vec::new() };
        let recipe = flotilla_build::build::recipe(self.project, self.runtimes, self.scan.unit(one.place).1);
        flotilla_build::build::since(self.project, &one.worker, &recipe, &before.source)
    }
}

impl Planned {
    /// The worker that a change is about, and its recipe.
    pub(super) fn worker(&self, change: &Change) -> Option<(Worker, Recipe)> {
        let (record, unit) = self.scan.unit(*self.places.get(&(change.home.clone(), change.worker.clone()))?);
        let worker = self.scan.worker(&self.project, record, unit)?;
        Some((worker, flotilla_build::build::recipe(&self.project, &self.runtimes, unit)))
    }

    /// The script of a pack's runtime, deflated.
    pub(super) fn deflated_runtime(&self, pack: &str) -> Vec<u8> {
        let all = || self.runtimes.iter().map(|(name, runtime)| (name.clone(), deflated(&runtime.script))).collect();
        self.deflated.get_or_init(all)[pack].clone()
    }

    /// Whether a worker that is deployed belongs to it, as far as its customer and environment tell.
    pub(super) fn selects(&self, customer: &str, environment: Environment) -> bool {
        self.selection.includes_id(customer) && self.selection.includes_environment(environment)
    }

    /// What the plan costs, lane by lane.
    pub(super) fn prices(&self) -> Vec<Price> {
        let accounts: BTreeSet<&str> = self.plan.changes.iter().map(|change| change.account.as_str()).collect();
        let tokens = self.cloud.tokens(&self.project.fleet, accounts, &self.secrets).unwrap_or_default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Lanes::open(&self.plan, &self.project.fleet, &self.cloud, &tokens, &clock).prices(&self.plan)
    }

    /// The plan and what is told with it.
    pub(super) fn form(&self) -> Form<'_> {
        let unknown = self.cloud.unknown(self.project.fleet.accounts.keys().map(String::as_str));
        let (plan, prices, findings) = (&self.plan, self.prices(), &self.findings);
        Form { plan, prices, findings, unknown, local: self.cloud.local.is_some() }
    }

    /// The plan for people, without what to run next.
    pub(super) fn text(&self, ui: &Ui) -> String {
        self.form().text(ui, false, false)
    }
}
