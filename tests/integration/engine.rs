//! The engine in the tests' own process: plans and deploys as the command line does, for an operator that records what it hears and
//! answers as it is told. Shows the seam itself: what is asked, what is reported and in which order, and that nothing is printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use flotilla_deploy::cloudflare::BASE_VARIABLE;
use flotilla_deploy::deploy::{self, Control, Outcome};
use flotilla_deploy::pace::Priority;
use flotilla_deploy::plan::Plan;
use flotilla_engine::RunKind;
use flotilla_engine::cloud::CloudOptions;
use flotilla_engine::context::Context;
use flotilla_engine::deploy_fleet::{DeployRequest, Deployed, deploy_fleet, finished};
use flotilla_engine::operator::{Approval, Event, Operator, Question};
use flotilla_engine::planning::{PlanRequest, Planned, plan_fleet};
use flotilla_engine::prune::{PruneRequest, prune};
use flotilla_engine::rebuild::{Rebuilt, rebuild_state};
use flotilla_engine::rollback::{RollbackRequest, RolledBack, Target, rollback};
use flotilla_engine::selection::Selection;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::{Progress, Silent};
use flotilla_model::reason::Reason;

use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::{Project, output};

/// The token of all runs; the rate limit's lane is that of the token and the API's address, so each emulator has its own.
pub const TOKEN: &str = "test-token";
/// The variables that would come before those of a project's `.env`.
const VARIABLES: [&str; 3] = [BASE_VARIABLE, "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ACCOUNT_ID"];

/// Something that an operator heard or was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The number of errors and warnings.
    Diagnostics(usize),
    /// A plan that is going to be applied.
    Planned { digest: String, asks: bool },
    /// A question about a plan.
    AskedToApply { digest: String, workers: usize, by_digest: bool },
    /// Another question.
    Asked(&'static str),
    /// Changes begin.
    RunStarted { kind: String, digest: String },
    /// A change is complete.
    Applied(String),
    /// A change failed.
    Failed(String, String),
    /// Nothing more is begun.
    Halted(String),
    /// The changes ended.
    RunEnded { applied: usize, failed: usize, skipped: usize },
    /// Nothing is pruned, because a spec can't be read.
    NothingPruned,
    /// A worker stays as it is.
    Stays(String, String),
    /// A domain or a route was removed.
    HostRemoved(String),
}

/// An operator that records what it hears, and answers as it is told.
pub struct Recorder {
    heard: Mutex<Vec<Heard>>,
    refuses: bool,
    control: Box<dyn Fn() -> Control + Sync>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { heard: Mutex::default(), refuses: false, control: Box::new(|| Control::Continue) }
    }
}

impl Recorder {
    fn record(&self, heard: Heard) {
        self.heard.lock().expect("no test panics in it").push(heard);
    }
}

impl Progress for Recorder {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn step(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
}

impl Operator for Recorder {
    fn background(&self) -> Arc<dyn Progress + Send + Sync> {
        Arc::new(Silent)
    }

    fn on_event(&self, event: &Event<'_>) {
        let digest = |plan: &Plan| plan.digest.to_string();
        self.record(match event {
            Event::Diagnostics(found) => Heard::Diagnostics(found.len()),
            Event::Planned { view, confirms } => Heard::Planned { digest: digest(view.plan), asks: *confirms },
            Event::RunStarted { kind, plan, .. } => {
                Heard::RunStarted { kind: (*kind).to_owned(), digest: digest(plan) }
            }
            Event::Deploy(deploy::Event::Applied(change)) => Heard::Applied(change.worker.clone()),
            Event::Deploy(deploy::Event::Failed(change, error)) => {
                Heard::Failed(change.worker.clone(), (*error).to_owned())
            }
            Event::Deploy(deploy::Event::Halted(reason)) => Heard::Halted((*reason).to_owned()),
            Event::RunEnded(outcome) => {
                Heard::RunEnded { applied: outcome.applied, failed: outcome.failed, skipped: outcome.skipped }
            }
            Event::NothingPruned => Heard::NothingPruned,
            Event::Stay { workers, reason } => Heard::Stays(workers.join(", "), (*reason).to_owned()),
            Event::HostRemoved(host) => Heard::HostRemoved((*host).to_owned()),
            _ => return,
        });
    }

    fn confirm(&self, question: &Question<'_>) -> Result<(), Failure> {
        self.record(match question {
            Question::Apply { plan, workers, by_digest } => {
                Heard::AskedToApply { digest: plan.digest.to_string(), workers: *workers, by_digest: *by_digest }
            }
            Question::PreviewUp { .. } => Heard::Asked("preview up"),
            Question::Destroy(_) => Heard::Asked("destroy"),
            Question::PreviewDown(_) => Heard::Asked("preview down"),
            Question::RemoveHosts(_) => Heard::Asked("remove hosts"),
            Question::ReplaceState(_) => Heard::Asked("replace state"),
        });
        if self.refuses { Err(Failure::refused("the operator said no")) } else { Ok(()) }
    }

    fn control(&self, _: &Path, _: bool) -> Box<dyn FnMut() -> Control + '_> {
        Box::new(|| (self.control)())
    }
}

/// A project, and the Cloudflare that it is deployed to; the operator is asked nothing unless a test says so.
pub struct Engine<'a> {
    project: &'a Project,
    recorder: Recorder,
    /// Whether the address and the credentials are in the project's `.env`, which is named as on the command line: by itself, a project's
    /// file doesn't set the address.
    has_env_file: bool,
}

/// What a deploy gave.
pub struct Ended {
    /// Its result.
    pub result: Result<Deployed, Failure>,
    /// What the operator heard.
    pub heard: Vec<Heard>,
}

impl Ended {
    /// The exit code that the command line gives.
    pub fn exit(&self) -> Exit {
        match &self.result {
            Ok(Deployed::OtherPlan { refusal, .. }) => refusal.exit,
            Ok(Deployed::UpToDate(planned) | Deployed::DryRun(planned)) => finished(planned),
            Ok(Deployed::Applied(applied)) => applied.exit(),
            Err(failure) => failure.exit,
        }
    }

    /// Asserts how it ended.
    #[track_caller]
    pub fn exits(self, exit: Exit) -> Ended {
        let failure = self.result.as_ref().err().map(ToString::to_string);
        assert_eq!(self.exit(), exit, "{failure:?} {:#?}", self.heard);
        self
    }

    /// What was done: nothing, where there was nothing to do.
    #[track_caller]
    pub fn outcome(self) -> Outcome {
        match self.result {
            Ok(Deployed::UpToDate(_) | Deployed::DryRun(_)) => Outcome::default(),
            Ok(Deployed::Applied(applied)) => applied.outcome,
            Ok(Deployed::OtherPlan { refusal, .. }) => panic!("{refusal}"),
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Why it failed, with the exit code that it has to have.
    #[track_caller]
    pub fn failure(self, exit: Exit) -> Failure {
        match self.result {
            Ok(Deployed::OtherPlan { refusal: failure, .. }) | Err(failure) => {
                assert_eq!(failure.exit, exit, "{failure}");
                failure
            }
            Ok(_) => panic!("it did not fail: {:#?}", self.heard),
        }
    }

    /// Asserts that there was nothing to do, and that no run began.
    #[track_caller]
    pub fn is_up_to_date(&self) {
        assert!(matches!(self.result, Ok(Deployed::UpToDate(_))), "{:#?}", self.heard);
        assert!(!self.heard.iter().any(|heard| matches!(heard, Heard::RunStarted { .. })), "{:#?}", self.heard);
    }
}

impl<'a> Engine<'a> {
    /// With this address of the API. It and the credentials come from the project's `.env`, as the tests' process has one environment.
    #[track_caller]
    pub fn new(project: &'a Project, base: &str) -> Engine<'a> {
        Engine::with(project, base, &[])
    }

    /// The same, with more variables in `.env`.
    #[track_caller]
    pub fn with(project: &'a Project, base: &str, more: &[(&str, &str)]) -> Engine<'a> {
        for name in VARIABLES {
            assert!(std::env::var_os(name).is_none_or(|value| value.is_empty()), "unset {name}: tests use an emulator");
        }
        let own = [(VARIABLES[0], base), (VARIABLES[1], TOKEN), (VARIABLES[2], ACCOUNT)];
        let set: Vec<&(&str, &str)> = own.iter().chain(more).collect();
        let before = std::fs::read_to_string(project.path(".env")).unwrap_or_default();
        let is_set = |line: &str| line.split_once('=').is_some_and(|(name, _)| set.iter().any(|(own, _)| *own == name));
        let others = before.lines().filter(|line| !is_set(line)).map(|line| format!("{line}\n"));
        let lines = others.chain(set.iter().map(|(name, value)| format!("{name}={value}\n")));
        project.write(".env", lines.collect::<String>());
        Engine { has_env_file: true, ..Engine::local(project) }
    }

    /// Without credentials: for the local emulator of the project, where a request says so.
    pub fn local(project: &'a Project) -> Engine<'a> {
        Engine { project, recorder: Recorder::default(), has_env_file: false }
    }

    /// With an operator that says no to everything.
    pub fn refusing(mut self) -> Engine<'a> {
        self.recorder.refuses = true;
        self
    }

    /// With an operator that steers runs.
    pub fn steered(mut self, control: impl Fn() -> Control + Sync + 'static) -> Engine<'a> {
        self.recorder.control = Box::new(control);
        self
    }

    fn cloud(&self) -> CloudOptions {
        CloudOptions { env_file: self.has_env_file.then(|| self.project.path(".env")), ..CloudOptions::default() }
    }

    fn context(&self) -> Context<'_> {
        Context::new(self.project.root(), &self.recorder)
    }

    fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.recorder.heard.lock().expect("no test panics in it"))
    }

    /// Plans.
    #[track_caller]
    pub fn plan(&self) -> Planned {
        self.plan_with(|_| {})
    }

    /// Plans something else than the whole fleet as it is.
    #[track_caller]
    pub fn plan_with(&self, change: impl FnOnce(&mut PlanRequest)) -> Planned {
        let mut request = PlanRequest { cloud: self.cloud(), ..PlanRequest::default() };
        change(&mut request);
        plan_fleet(&self.context(), &request).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Deploys without asking, as `deploy --yes`.
    pub fn deploy(&self) -> Ended {
        self.deploy_with(|_| {})
    }

    /// Deploys with more in the request.
    pub fn deploy_with(&self, change: impl FnOnce(&mut DeployRequest<'_>)) -> Ended {
        let mut request = DeployRequest {
            plan: PlanRequest { cloud: self.cloud(), ..PlanRequest::default() },
            reviewed: None,
            approval: Approval::Given,
            max_deletions: None,
            kind: RunKind { priority: Priority::Bulk, ..RunKind::new("deploy") },
            verify: None,
        };
        change(&mut request);
        let result = deploy_fleet(&self.context(), request);
        Ended { result, heard: self.heard() }
    }

    /// Deletes what no spec owns, without asking.
    pub fn prune(&self, hosts: bool) -> Ended {
        let approval = Approval::Given;
        let request =
            PruneRequest { cloud: self.cloud(), approval, max_deletions: None, hosts, customers: BTreeSet::new() };
        let result = prune(&self.context(), &request);
        Ended { result, heard: self.heard() }
    }

    /// Puts workers back, without asking.
    pub fn rollback(&self, target: Target) -> (Result<Outcome, Failure>, Vec<Heard>) {
        let request = RollbackRequest { target, cloud: self.cloud(), approval: Approval::Given };
        let result = rollback(&self.context(), &request).map(|done| match done {
            RolledBack::Applied(outcome) => outcome,
            RolledBack::DryRun(_) => panic!("it was approved"),
        });
        (result, self.heard())
    }

    /// Rebuilds the state, without asking.
    #[track_caller]
    pub fn rebuild(&self) -> Rebuilt {
        rebuild_state(&self.context(), &self.cloud(), &Approval::Given).unwrap_or_else(|failure| panic!("{failure}"))
    }
}

impl Cloud {
    /// The engine for a project that is deployed to this Cloudflare.
    #[track_caller]
    pub fn engine<'a>(&self, project: &'a Project) -> Engine<'a> {
        Engine::new(project, &self.base())
    }

    /// Deploys everything, which has to succeed; what was done.
    #[track_caller]
    pub fn deployed(&self, project: &Project) -> Outcome {
        self.engine(project).deploy().exits(Exit::Done).outcome()
    }

    /// Deploys once more: nothing is to be done, and nothing is sent.
    #[track_caller]
    pub fn is_up_to_date(&self, project: &Project) {
        self.take();
        self.engine(project).deploy().exits(Exit::Done).is_up_to_date();
        assert!(self.take().is_empty(), "a deploy of nothing sends nothing, no question either");
    }
}

/// A selection of customers by their ids.
pub fn customers(ids: &[&str]) -> Selection {
    Selection::new(ids.iter().map(|id| (*id).to_owned()).collect(), Vec::new(), Vec::new(), None)
}

/// Names, as a request has them.
pub fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The changes of a plan: workers with the reasons.
pub fn reasons(plan: &Plan) -> Vec<(&str, &[Reason])> {
    plan.changes.iter().map(|change| (change.worker.as_str(), change.reasons.as_slice())).collect()
}

/// The requests of the first deploy of workers that have an address on workers.dev.
fn sent(customers: &[&str]) -> Vec<String> {
    let subdomains = customers.iter().map(|id| format!("POST scripts/t-{id}/subdomain"));
    subdomains.chain(customers.iter().map(|id| format!("PUT scripts/t-{id}"))).collect()
}

fn two() -> Project {
    fleet(&[("a", "crons: []\n"), ("b", "crons: []\n")])
}

#[test]
fn a_deploy_asks_its_operator_and_sends_nothing_after_a_no() {
    let (cloud, project) = (Cloud::start(), two());
    let digest = cloud.engine(&project).plan().plan.digest.to_string();
    let ended = cloud.engine(&project).refusing().deploy_with(|request| request.approval = Approval::Ask);
    assert_eq!(
        ended.heard,
        [
            Heard::Diagnostics(0),
            Heard::Planned { digest: digest.clone(), asks: true },
            Heard::AskedToApply { digest, workers: 2, by_digest: false },
        ]
    );
    let failure = ended.failure(Exit::Refused);
    assert_eq!((failure.to_string().as_str(), failure.exit as i32), ("the operator said no", 5));
    assert!(cloud.take().is_empty(), "neither a mutation nor a question");
    // A yes is enough for the same plan.
    let ended = cloud.engine(&project).deploy_with(|request| request.approval = Approval::Ask);
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 2);
    assert_eq!(cloud.sent(), sent(&["a", "b"]));
}

#[test]
fn events_come_in_the_order_of_the_run_and_the_second_deploy_is_up_to_date() {
    let (cloud, project) = (Cloud::start(), two());
    let ended = cloud.engine(&project).deploy();
    let digest = match &ended.result {
        Ok(Deployed::Applied(applied)) => applied.planned.plan.digest.to_string(),
        _ => panic!("nothing was applied: {:#?}", ended.heard),
    };
    let mut heard = ended.heard.clone();
    // Side by side, in whichever order they are answered.
    heard[3..5].sort_by_key(|heard| format!("{heard:?}"));
    assert_eq!(
        heard,
        [
            Heard::Diagnostics(0),
            Heard::Planned { digest: digest.clone(), asks: false },
            Heard::RunStarted { kind: "deploy".to_owned(), digest },
            Heard::Applied("t-a".to_owned()),
            Heard::Applied("t-b".to_owned()),
            Heard::RunEnded { applied: 2, failed: 0, skipped: 0 },
        ]
    );
    let again = cloud.engine(&project).deploy_with(|request| request.approval = Approval::Ask);
    assert_eq!(again.heard, [Heard::Diagnostics(0)], "there is nothing to confirm");
    again.exits(Exit::Done).is_up_to_date();
    cloud.is_up_to_date(&project);
}

#[test]
fn the_digest_of_another_plan_approves_nothing() {
    let (cloud, project) = (Cloud::start(), two());
    let reviewed = cloud.engine(&project).plan().plan.digest.to_string();
    project.edit("customers/b.yaml", "crons: []", "crons: ['1 2 * * *']");
    let approval = Approval::Digest(reviewed.clone());
    let ended = cloud.engine(&project).deploy_with(|request| request.approval = approval.clone());
    assert_eq!(ended.heard, [Heard::Diagnostics(0)], "it is not asked for instead");
    let Ok(Deployed::OtherPlan { planned, refusal }) = ended.result else { panic!("{:#?}", ended.heard) };
    assert_ne!(planned.plan.digest.to_string(), reviewed);
    assert_eq!((refusal.exit, refusal.exit as i32), (Exit::Refused, 5));
    assert!(refusal.to_string().contains(&reviewed), "{refusal}");
    assert!(cloud.take().is_empty());
    // That of the plan itself does, and the operator isn't asked.
    project.edit("customers/b.yaml", "crons: ['1 2 * * *']", "crons: []");
    let ended = cloud.engine(&project).refusing().deploy_with(|request| request.approval = approval);
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 2);
}

#[test]
fn an_operator_that_stops_a_run_leaves_the_rest_for_the_next() {
    let (cloud, project) = (Cloud::start(), two());
    let ended = cloud.engine(&project).steered(|| Control::Stop).deploy().exits(Exit::SomeFailed);
    assert_eq!(ended.heard.last(), Some(&Heard::RunEnded { applied: 0, failed: 0, skipped: 2 }));
    assert!(cloud.sent().is_empty());
    assert_eq!(cloud.deployed(&project).applied, 2);
}

#[test]
fn a_run_in_process_prints_nothing() {
    for name in [
        "a_deploy_asks_its_operator_and_sends_nothing_after_a_no",
        "events_come_in_the_order_of_the_run_and_the_second_deploy_is_up_to_date",
        "the_digest_of_another_plan_approves_nothing",
    ] {
        let name = format!("engine::{name}");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let run = output(command.args(["--exact", &name, "--nocapture", "--test-threads=1"])).exits(0);
        let lines: Vec<&str> = run.stdout.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines[..2], ["running 1 test", &format!("test {name} ... ok")], "{run:#?}");
        assert!(lines.len() == 3 && lines[2].starts_with("test result: ok. 1 passed"), "{run:#?}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn the_workers_that_the_selected_ones_call_are_selected_with_them() {
    let project = fleet(&[("a", ""), ("b", "")]);
    project.write(
        "fleet.yaml",
        "name: test\npacks: { tiny: { path: packs/tiny } }\naccounts: { default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, \
         token: { secret: CLOUDFLARE_API_TOKEN }, subdomain: team } }\n\
         sharedWorkers:\n  auth: { pack: tiny, services: { LOG: log } }\n  log: { pack: tiny }\n  other: { pack: tiny }\n\
         defaults:\n  vars: { AUTH: { workerUrl: auth } }\n",
    );
    let cloud = Cloud::start();
    let planned = |selection: Selection| {
        let planned = cloud.engine(&project).plan_with(|request| request.selection = selection);
        planned.plan.changes.iter().map(|change| change.worker.clone()).collect::<Vec<_>>()
    };
    // An address alone doesn't keep its caller from being deployed.
    assert_eq!(planned(customers(&["a"])), ["t-a"]);
    assert_eq!(planned(customers(&["a"]).with_dependencies(true)), ["test-auth", "test-log", "t-a"]);
    let ended = cloud.engine(&project).deploy_with(|request| {
        request.plan.selection = customers(&["a"]).with_dependencies(true);
    });
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 3);
    assert!(planned(customers(&["a"]).with_dependencies(true)).is_empty());
}
