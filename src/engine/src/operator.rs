//! The seam to the operator of a run: a person at a terminal, a CI job, a page. It reports events and asks for decisions; it knows neither
//! words nor output formats.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flotilla_deploy::deploy::{Control, Outcome};
use flotilla_deploy::plan::Plan;
use flotilla_deploy::refresh::{Finding, Seen};
use flotilla_deploy::state::RunId;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::Failure;
use flotilla_model::progress::Progress;

use crate::credentials::InvalidId;
use crate::destroy_target::DestroyTarget;
use crate::plan_view::PlanView;

/// An event of a run.
pub enum Event<'a> {
    /// The files were read and built; these are their errors and warnings, of the selected customers.
    Diagnostics(&'a [Diagnostic]),
    /// The selection is valid, and no worker belongs to it.
    NothingSelected,
    /// No worker is pruned, because a spec can't be read: it may belong to any customer.
    NothingPruned,
    /// No account can have this id, so that nothing is known of what is deployed there.
    InvalidId(&'a InvalidId),
    /// A source of secrets is unavailable; secrets that are deployed stay as they are.
    SourceUnavailable {
        /// The source.
        source: &'a str,
        /// The reason.
        reason: &'a str,
    },
    /// The platform's resources were listed.
    Refreshed {
        /// Requests that this took.
        requests: usize,
        /// Workers that are there.
        workers: usize,
    },
    /// Accounts that are left out, because their ids or tokens aren't set here.
    AccountsUnreachable(&'a [&'a str]),
    /// An account could not be listed: it stays as the state knows it.
    AccountRefused {
        /// Its name in fleet.yaml.
        account: &'a str,
        /// The reason.
        reason: &'a Failure,
    },
    /// An account's part of its workers.dev addresses could not be found out: they are not shown or checked.
    SubdomainUnknown {
        /// The account's name in fleet.yaml.
        account: &'a str,
        /// The reason.
        reason: &'a Failure,
    },
    /// The plan that is going to be applied; if `confirms` is set, once it was confirmed.
    Planned {
        /// The plan.
        view: &'a PlanView<'a>,
        /// Whether a confirmation follows.
        confirms: bool,
    },
    /// The plan of a rollback, before it is confirmed.
    RollbackPlanned(&'a Plan),
    /// Files and workers are going to be deleted with customers.
    DestroyPlanned(&'a DestroyTarget),
    /// These domains and routes point to no worker, and are going to be removed.
    HostsPointNowhere(&'a [Finding]),
    /// A domain or a route was removed.
    HostRemoved(&'a str),
    /// This number of the workers to create already exists, deployed by another machine.
    AlreadyThere(usize),
    /// Workers stay as they are.
    Stay {
        /// The workers.
        workers: &'a [&'a str],
        /// The reason.
        reason: &'a str,
    },
    /// A worker that is rolled back keeps its present hosts and crons, and had others when the restored bundle was uploaded.
    TriggersStay {
        /// The worker.
        worker: &'a str,
        /// The present ones that it keeps.
        now: &'a [String],
        /// The ones that it had.
        then: &'a [String],
    },
    /// Migrations were applied to a customer's databases since the bundle was uploaded to which it is rolled back: they stay.
    MigrationsStay {
        /// The customer.
        customer: &'a str,
        /// The migrations, with their databases.
        migrations: &'a [String],
    },
    /// This number of workers is rolled back, because their wave wasn't healthy.
    RollingBack(usize),
    /// Changes begin.
    RunStarted {
        /// Under which number they are recorded.
        run: RunId,
        /// The kind of run, as the state records it.
        kind: &'a str,
        /// The plan.
        plan: &'a Plan,
        /// The estimated duration, in seconds.
        eta: f64,
    },
    /// An event of the deploy loop.
    Deploy(&'a flotilla_deploy::deploy::Event<'a>),
    /// The changes ended.
    RunEnded(&'a Outcome),
    /// These previews are going to be removed.
    PreviewsFound(&'a [&'a Seen]),
    /// A database of a preview was created, and its worker never was.
    AbandonedDatabase(&'a str),
    /// A folder of flotilla's own can't be removed.
    CannotRemove {
        /// The folder.
        path: &'a Path,
        /// The error.
        error: &'a std::io::Error,
    },
}

/// A question that a person decides.
pub enum Question<'a> {
    /// Whether to apply a plan.
    Apply {
        /// The plan.
        plan: &'a Plan,
        /// The number of workers, changed or not.
        workers: usize,
        /// Whether it changes so much of the fleet that the answer has to name its digest.
        by_digest: bool,
    },
    /// Whether to deploy a preview.
    PreviewUp {
        /// Its id.
        id: &'a str,
        /// The number of changes.
        changes: usize,
    },
    /// Whether to delete customers, with their specs and workers.
    Destroy(&'a DestroyTarget),
    /// Whether to remove this number of previews.
    PreviewDown(usize),
    /// Whether to remove this number of domains and routes that point to no worker.
    RemoveHosts(usize),
    /// Whether to replace the state of this number of workers by what the platform has.
    ReplaceState(usize),
}

/// The operator of a run.
pub trait Operator: Progress {
    /// Returns the progress of work that outlives a run's calls, such as what the local emulator installs.
    fn background(&self) -> Arc<dyn Progress + Send + Sync>;

    /// Receives an event.
    fn on_event(&self, event: &Event<'_>);

    /// Decides. An error means no, or that no question could be asked: the run is refused, and nothing was changed.
    fn confirm(&self, question: &Question<'_>) -> Result<(), Failure>;

    /// Opens the channel by which a person controls a run while it changes something: the function is called a few times a second, and is
    /// dropped when the run ends. `folder` is the one of flotilla's own files; `ahead`: the run goes ahead of another one, which is steered
    /// separately.
    fn control(&self, folder: &Path, ahead: bool) -> Box<dyn FnMut() -> Control + '_>;
}

/// The approval of a plan that changes something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// The operator is asked.
    #[default]
    Ask,
    /// It is given.
    Given,
    /// It is given to the plan with this digest, or whose digest begins with these characters, and to no other.
    Digest(String),
    /// It isn't given: a dry run ends with the plan.
    DryRun,
}

impl Approval {
    /// Returns whether it is that of a dry run, which takes no lock and leaves the state as it is.
    pub fn is_dry_run(&self) -> bool {
        *self == Approval::DryRun
    }
}

/// The wait after which an operator is informed that a rate limit delays a run.
pub const LONG_WAIT: Duration = Duration::from_secs(5);
