//! A deploy, from files to its record in the state. The one function that shows the order of a run; the command line,
//! the control plane and the tests call it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use secrecy::SecretString;

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::Outcome;
use flotilla_deploy::plan::Action;
use flotilla_deploy::state::State;
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Home};
use flotilla_model::spec::OnBreach;

use crate::accounts;
use crate::addresses;
use crate::apply::{ApplyContext, RunKind, apply};
use crate::approval;
use crate::context::{AHEAD_LOCK, Context, LOCK};
use crate::left_out::{self, LeftOut};
use crate::operator::{Approval, Event, Question};
use crate::plan_file::PlanFile;
use crate::planning::{PlanRequest, Planned, plan_fleet};
use crate::preflight::{check_deletions, preflight};
use crate::requests::PlatformRequester;
use crate::rollback::roll_back_wave;
use crate::upload;
use crate::verification::{self, Results, VerifyOptions};

/// A deploy.
pub struct DeployRequest<'a> {
    /// The request for its plan.
    pub plan: PlanRequest,
    /// The plan that was written to a file: what is planned now has to be that plan, or what an interrupted deploy left of it.
    pub reviewed: Option<&'a PlanFile>,
    /// The approval of the plan.
    pub approval: Approval,
    /// The number of workers that may be deleted, instead of fleet.yaml's.
    pub max_deletions: Option<usize>,
    /// The kind of run that is recorded.
    pub kind: RunKind<'a>,
    /// The options for verifying the changed workers afterwards, if they are verified.
    pub verify: Option<VerifyOptions>,
}

/// The result of a deploy.
pub enum Deployed {
    /// The plan isn't the one that was approved: nothing was sent.
    OtherPlan {
        /// The plan as it is now.
        planned: Box<Planned>,
        /// The refusal.
        refusal: Failure,
    },
    /// There were no changes.
    UpToDate(Box<Planned>),
    /// The plan of a dry run: nothing was sent.
    DryRun(Box<Planned>),
    /// Changes were applied, or some of them.
    Applied(Box<Applied>),
}

/// A plan that was applied.
pub struct Applied {
    /// The plan, and what it was made from.
    pub planned: Arc<Planned>,
    /// The outcome of the deploy.
    pub outcome: Outcome,
    /// The tokens that it was done with, by account id.
    pub tokens: HashMap<String, SecretString>,
    /// The verification of the changed workers, if it was requested.
    pub verified: Option<Results>,
}

impl Applied {
    /// Returns the exit code that fits.
    pub fn exit(&self) -> Exit {
        let unhealthy = self.verified.as_ref().is_some_and(|results| results.failed > 0);
        match self.outcome.is_complete() && !unhealthy {
            true => finished(&self.planned),
            false => Exit::SomeFailed,
        }
    }
}

/// Returns the exit code of a deploy that did everything that was planned: what has errors, and what needs another worker that stays as
/// it is, wasn't; nor was an account that refused to be listed.
pub fn finished(planned: &Planned) -> Exit {
    match planned.has_errors() {
        true => Exit::Diagnostics,
        false if !planned.refused.is_empty() => Exit::SomeFailed,
        false if planned.plan.held.iter().any(|held| held.is_refused) => Exit::Refused,
        false => Exit::Done,
    }
}

/// Deploys a fleet: the order of a run. A dry run is the same code, without the lock and stopped after step 2. Running it again does
/// nothing, or what was left.
pub fn deploy_fleet(context: &Context<'_>, request: DeployRequest<'_>) -> Result<Deployed, Failure> {
    let applies = !request.approval.is_dry_run();
    // 1. Lock. First of all: the inputs of the plan can't change until it is applied.
    let lock = applies.then(|| lock(context, request.kind.ahead)).transpose()?;
    // 2. Scan, build and plan.
    let planned =
        plan_fleet(context, &PlanRequest { applies, priority: request.kind.priority, ..request.plan.clone() })?;
    if let Some(file) = request.reviewed {
        file.refuse_other(&planned)?;
    }
    // 3. to 9.
    apply_planned(context, planned, &request, lock.as_ref())
}

/// Takes the lock of the project's deploys, or of the runs that go ahead of one.
fn lock(context: &Context<'_>, ahead: bool) -> Result<Lock, Failure> {
    let folder = context.folder();
    match ahead {
        false => Lock::take_from_all(&folder.join(LOCK), "deploy", context.operator)
            .map_err(|failure| failure.hint("or deploy a few customers ahead of it: flotilla deploy --ahead CUSTOMER")),
        true => Lock::take_from_all(&folder.join(AHEAD_LOCK), "deploy ahead of another", context.operator),
    }
}

/// Applies a plan under a lock that is taken already: steps 3 to 9 of [`deploy_fleet`].
pub(crate) fn apply_planned(
    context: &Context<'_>,
    mut planned: Planned,
    request: &DeployRequest<'_>,
    lock: Option<&Lock>,
) -> Result<Deployed, Failure> {
    // 3. Safety: the approved plan or none, no upload without the value of a secret, not too many deletions.
    let continues = match check_approval(&planned, &request.approval)? {
        Approved::Yes { continues } => continues,
        Approved::No(refusal) => return Ok(Deployed::OtherPlan { planned: Box::new(planned), refusal }),
    };
    if !request.approval.is_dry_run() {
        accounts::note(&planned.scan, &planned.project.fleet, &planned.cloud)?;
    }
    if planned.plan.is_empty() {
        return Ok(Deployed::UpToDate(Box::new(planned)));
    }
    if request.approval.is_dry_run() {
        return Ok(Deployed::DryRun(Box::new(planned)));
    }
    let mut left_out = LeftOut::default();
    let tokens = left_out::tokens(context, &mut planned, &mut left_out)?;
    left_out::refused(context, &mut planned, &mut left_out)?;
    left_out::lacking(context, &mut planned, &mut left_out)?;
    check_deletions(&planned, request.max_deletions)?;
    // 4. Confirm.
    confirm(context, &planned, &request.approval)?;
    // 5. Preflight: nothing of others is overwritten. The state is opened first, so that a failure to open it is reported before.
    let mut state = State::open(&planned.cloud.state)?;
    state.rely_on(lock);
    if let (Approval::Digest(_), false) = (&request.approval, continues) {
        PlanFile::new(&planned, Vec::new()).write(&planned.reviewed_plan())?;
    }
    let platform = connect(context, &mut planned, &tokens)?;
    let others = preflight(context, &mut planned, &mut left_out, &mut state)?;
    // 6. Waves: upload, attach, check health, halt or continue.
    let planned = Arc::new(planned);
    let (fleet, cloud) = (&planned.project.fleet, &planned.cloud);
    let (platform, tokens, kind) = (&platform, &tokens, request.kind);
    let ctx = ApplyContext { context, fleet, cloud, platform, tokens, others: &others, kind };
    let (mut outcome, run) = apply(&ctx, &planned.plan, upload::of_plan(&planned)?, &mut state)?;
    left_out.add_to(&mut outcome);
    // 7. Roll back a wave that isn't healthy, where fleet.yaml requests it.
    if let (Some(wave), Some(OnBreach::Rollback)) = (outcome.breached, fleet.file.deploy.on_breach) {
        let of_wave = planned.plan.changes.iter().filter(|change| change.wave == wave);
        let ids = of_wave.map(flotilla_deploy::plan::Change::id).collect();
        outcome.rolled_back = Some(roll_back_wave(&ctx, &mut state, run, &ids, &planned.secrets)?);
    }
    // 8. Verify. 9. The record was written change by change, and when the run ended.
    let verified = match &request.verify {
        Some(options) => Some(verify(context, &planned, tokens, options)?),
        None => None,
    };
    Ok(Deployed::Applied(Box::new(Applied { planned, outcome, tokens: tokens.clone(), verified })))
}

/// Whether a plan is the approved one.
enum Approved {
    /// It is; `continues`: it is the rest of the approved plan after an interrupted deploy.
    Yes { continues: bool },
    /// It isn't.
    No(Failure),
}

fn check_approval(planned: &Planned, approval: &Approval) -> Result<Approved, Failure> {
    let Err(refusal) = approval::check_digest(approval, &planned.plan) else {
        return Ok(Approved::Yes { continues: false });
    };
    if let Approval::Digest(digest) = approval
        && approval::names_a_plan(digest)
        // What was reviewed is kept beside the state: what an interrupted deploy leaves of it has another digest.
        && let Ok(file) = PlanFile::read(&planned.reviewed_plan())
        && file.is(digest)
        && file.is_continued_by(planned)?
    {
        return Ok(Approved::Yes { continues: true });
    }
    // Without the id of an account it is another plan, as well.
    tokens(planned)?;
    Ok(Approved::No(refusal))
}

fn tokens(planned: &Planned) -> Result<HashMap<String, SecretString>, Failure> {
    let accounts: BTreeSet<&str> = planned.plan.accounts().map(|(_, account)| account).collect();
    planned.cloud.tokens(&planned.project.fleet, accounts, &planned.secrets)
}

fn confirm(context: &Context<'_>, planned: &Planned, approval: &Approval) -> Result<(), Failure> {
    let confirms = *approval == Approval::Ask && planned.cloud.local.is_none();
    context.operator.on_event(&Event::Planned { view: &planned.view(), confirms });
    if !confirms {
        return Ok(());
    }
    let fleet = &planned.project.fleet;
    let question = match &fleet.preview {
        None => approval::question(&planned.plan, fleet, planned.workers),
        Some(preview) => Question::PreviewUp { id: &preview.id, changes: planned.plan.changes.len() },
    };
    context.operator.confirm(&question)
}

/// Makes the client, and starts the local emulator with its dispatch namespaces if that is the cloud.
fn connect(
    context: &Context<'_>,
    planned: &mut Planned,
    tokens: &HashMap<String, SecretString>,
) -> Result<Arc<Cloudflare>, Failure> {
    let is_local = planned.cloud.local.is_some();
    if is_local {
        planned.cloud.start(context)?;
    }
    let platform = Arc::new(Cloudflare::new(&planned.cloud.base, tokens.clone())?);
    let accounts: BTreeSet<&str> = planned.plan.accounts().map(|(_, account)| account).collect();
    for account in accounts.into_iter().filter(|_| is_local) {
        if let Some(namespace) = planned.project.fleet.accounts[account].dispatch_namespace.as_deref() {
            let (home, fleet) = (planned.cloud.home(account, Some(namespace)), &planned.project.fleet);
            let ids = BTreeSet::from([home.account_id.clone()]);
            let mut requester = PlatformRequester::with_tokens(context, fleet, &planned.cloud, tokens.clone(), &ids)?;
            // That it already exists is fine.
            let _ = requester.try_ask(&home, &Call::CreateNamespace);
        }
    }
    Ok(platform)
}

/// Verifies the workers that a deploy changed.
fn verify(
    context: &Context<'_>,
    planned: &Planned,
    tokens: &HashMap<String, SecretString>,
    options: &VerifyOptions,
) -> Result<Results, Failure> {
    let changed = planned.plan.changes.iter().filter(|change| change.action != Action::Delete);
    let workers: Vec<Worker> = changed.filter_map(|change| Some(planned.worker(change)?.0)).collect();
    let workers: Vec<&Worker> = workers.iter().collect();
    let state = State::read(&planned.cloud.state)?;
    let (project, cloud) = (&planned.project, &planned.cloud);
    let subdomain =
        |home: &Home, _: &str| addresses::find_subdomain(context, &project.fleet, cloud, || Ok(tokens.clone()), home);
    let targets = verification::targets(project, cloud, &state, &workers, &subdomain)?;
    verification::verify_targets(context, &targets, options)
}
