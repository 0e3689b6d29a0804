//! `flotilla deploy`.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use flotilla_build::build;
use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::{Made, MakeUpload, Outcome, Upload};
use flotilla_deploy::plan::{Action, Change, Step};
use flotilla_deploy::state::{Deployed, State, Stored, deflated};
use flotilla_model::bundle;
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::listing::and_more;
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Home, Module, Platform as _};
use flotilla_model::preview;
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::OnBreach;
use flotilla_model::tags::{self, Triggers};

use super::apply::{self, ApplyArguments, Applying, Kind, apply, confirm, refuse_another, subdomain};
use super::cloud::FOLDER;
use super::plan::{LineArguments, Planned, line};
use super::planfile::PlanFile;
use super::preflight::{ask, deletions, preflight};
use super::report;
use super::rollback;
use super::sending::{self, Needs};
use super::status::{dispatched, url};
use super::verify::{self, Asking, Results};
use super::{Format, Session, summary};

/// So many workers' addresses are printed.
const ADDRESSES: usize = 50;
/// The lock of a deploy.
pub(super) const LOCK: &str = "deploy.lock";
/// The lock of a deploy that goes ahead of another one.
pub(super) const AHEAD_LOCK: &str = "ahead.lock";

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    line: LineArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
    /// Pass a deploy that is running: only with customers named; its requests go first
    #[arg(long, requires = "customers")]
    ahead: bool,
    /// Apply what `flotilla plan --out FILE` wrote, without asking; refused if that isn't the plan any more
    #[arg(long, value_name = "FILE", conflicts_with_all = PLANNED)]
    plan: Option<PathBuf>,
    /// Then ask the workers that it changed, as `flotilla verify` does; exit with 4 if one is not as it should be
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    asking: Asking,
}

/// What a plan's file says already.
const PLANNED: [&str; 10] =
    ["customers", "labels", "env", "since", "all", "reason", "prune", "refresh", "adopt", "digest"];

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    summary::of("flotilla deploy", session, planned_and_applied(session, arguments))
}

fn planned_and_applied(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    if let (false, Some(option)) = (arguments.verify, arguments.asking.given()) {
        return Err(Failure::usage(format!("{option} says how workers are asked after a deploy: add --verify")));
    }
    let file = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let asked = match &file {
        Some(file) => file.asked(&arguments.line)?,
        None => arguments.line.clone(),
    };
    // Before the plan is made: what it is made from can't move until it is applied.
    let folder = session.root.join(FOLDER);
    let _lock = match arguments.ahead {
        false => Lock::take_from_all(&folder.join(LOCK), "deploy").map_err(|failure| {
            failure.hint("or deploy a few customers ahead of it: flotilla deploy --ahead CUSTOMER")
        })?,
        true => Lock::take(&folder.join(AHEAD_LOCK), "deploy ahead of another")?,
    };
    let asked = LineArguments { applies: true, ..asked };
    let Some(planned) = line(session, &asked)? else {
        return Ok(Exit::Diagnostics);
    };
    if let Some(file) = &file {
        file.refuse_other(&planned)?;
    }
    let what = if asked.all { "redeploy" } else { "deploy" };
    let reason = if asked.all { asked.reason.as_str() } else { "" };
    let apply = ApplyArguments { yes: arguments.apply.yes || file.is_some(), ..arguments.apply.clone() };
    let kind = Kind { what, command: "flotilla deploy", reason, ahead: arguments.ahead };
    apply_plan(session, planned, &apply, &kind, arguments.verify.then_some(&arguments.asking))
}

/// Applies a plan: asks, sends, records, and tells.
pub(super) fn apply_plan(
    session: &Session,
    planned: Planned,
    arguments: &ApplyArguments,
    kind: &Kind<'_>,
    asking: Option<&Asking>,
) -> Result<Exit, Failure> {
    let Applied { planned, outcome, platform, exit } = carry_out(session, planned, arguments, kind)?;
    let verified = match (asking, &platform) {
        (Some(asking), Some(_)) => Some(verified(session, &planned, asking)?),
        _ => None,
    };
    match (session.format, &platform) {
        (Format::Json, _) => {
            let mut object = serde_json::to_value(&outcome).map_err(anyhow::Error::from)?;
            if let Some(results) = &verified {
                object["verified"] = serde_json::to_value(results).map_err(anyhow::Error::from)?;
            }
            session.json(&object)?;
        }
        (Format::Text, None) => report::print(&planned.text(&session.ui)),
        (Format::Text, Some(_)) => report::print(&apply::summary(&outcome)),
    }
    if session.format == Format::Text {
        match &verified {
            Some(results) => report::print(&verify::text(&session.ui, results)),
            // Who prunes asks for what goes, not for what stays.
            None if platform.is_none() && kind.what == "prune" => {}
            None => addresses(session, &planned, platform.as_deref()),
        }
    }
    Ok(if verified.is_some_and(|results| results.failed > 0) { Exit::SomeFailed } else { exit })
}

/// Asks the workers that a deploy changed.
fn verified(session: &Session, planned: &Planned, asking: &Asking) -> Result<Results, Failure> {
    let changed = planned.plan.changes.iter().filter(|change| change.action != Action::Delete);
    let workers: Vec<Worker> = changed.filter_map(|change| Some(planned.worker(change)?.0)).collect();
    let workers: Vec<&Worker> = workers.iter().collect();
    let state = State::read(&planned.cloud.state)?;
    verify::asked(session, &verify::targets(&planned.project, &planned.cloud, &state, &workers)?, asking)
}

/// What came of a plan.
pub(super) struct Applied {
    pub planned: Arc<Planned>,
    pub outcome: Outcome,
    /// Through what it was applied; nothing, if there was nothing to do.
    pub platform: Option<Arc<Cloudflare>>,
    pub exit: Exit,
}

/// Applies a plan: asks, sends, and records.
pub(super) fn carry_out(
    session: &Session,
    mut planned: Planned,
    arguments: &ApplyArguments,
    kind: &Kind<'_>,
) -> Result<Applied, Failure> {
    let invalid = report::counts(&planned.diagnostics).0 > 0;
    let end = |exit| if invalid && exit == Exit::Done { Exit::Diagnostics } else { exit };
    // What was reviewed is kept beside the state: what an interrupted deploy leaves of it has another digest.
    let reviewed = planned.cloud.state.with_extension("plan");
    let refused = refuse_another(&planned.plan, arguments).err();
    let goes_on = match (&refused, &arguments.digest) {
        (Some(_), Some(digest)) if digest.len() >= 8 => match PlanFile::read(&reviewed) {
            Ok(file) => file.is(digest) && file.goes_on(&planned)?,
            Err(_) => false,
        },
        _ => false,
    };
    let accounts: BTreeSet<String> = planned.plan.accounts().map(|(_, account)| account.to_owned()).collect();
    let tokens = || {
        let accounts = accounts.iter().map(String::as_str);
        planned.cloud.tokens(&planned.project.fleet, accounts, &planned.secrets)
    };
    if let (Some(failure), false) = (refused, goes_on) {
        // Without the id of an account it is another plan, as well.
        tokens()?;
        summary::append(arguments.summary.as_deref(), &planned.form().markdown())?;
        return Err(failure.hint(format!("what is planned now:\n{}", planned.text(&session.ui))));
    }
    if planned.plan.is_empty() {
        summary::append(arguments.summary.as_deref(), &planned.form().markdown())?;
        let (planned, outcome) = (Arc::new(planned), Outcome::default());
        return Ok(Applied { planned, outcome, platform: None, exit: end(Exit::Done) });
    }
    let tokens = tokens()?;
    if !planned.adopt.is_empty() || sending::check(&planned).is_err() {
        sending::look(session, &mut planned)?;
        sending::check(&planned)?;
    }
    deletions(&planned, arguments)?;
    let now_reviewed = (arguments.digest.is_some() && !goes_on).then(|| PlanFile::new(&planned, Vec::new()));
    if arguments.yes || arguments.digest.is_some() || planned.cloud.local.is_some() {
        session.ui.note(&planned.text(&session.ui));
    } else {
        session.ui.line(&planned.text(&session.ui));
        match &planned.project.fleet.preview {
            None => confirm(&planned.plan, &planned.project.fleet, planned.workers)?,
            Some(preview) => {
                let changes = report::count(planned.plan.changes.len(), "change");
                ask(&format!("put the preview {} up, {changes}?", preview.id))?;
            }
        }
    }
    let mut state = State::open(&planned.cloud.state)?;
    if let Some(file) = now_reviewed {
        file.write(&reviewed)?;
    }
    if planned.cloud.local.is_some() {
        planned.cloud.start(session)?;
    }
    let platform = Arc::new(Cloudflare::new(&planned.cloud.base, tokens.clone())?);
    if planned.cloud.local.is_some() {
        for account in &accounts {
            let namespace = planned.project.fleet.accounts[account].dispatch_namespace.as_deref();
            if namespace.is_some() {
                // That it exists already is fine.
                let _ = platform.call(&planned.cloud.home(account, namespace), &Call::CreateNamespace);
            }
        }
    }
    preflight(session, &mut planned)?;
    let planned = Arc::new(planned);
    let (live, source) = (sending::Live::of_plan(&planned)?, Arc::clone(&planned));
    // By the threads that render, one for each core: each thread keeps the memory that rendering took, and the pool has dozens.
    let make: Arc<MakeUpload> = Arc::new(move |change: &Change| rayon::scope(|_| upload(&source, change, &live)));
    let (fleet, cloud) = (&planned.project.fleet, &planned.cloud);
    let it = Applying { session, fleet, cloud, platform: &platform, tokens: &tokens, arguments, kind };
    let (mut outcome, run) = apply(&it, &planned.plan, make, &mut state)?;
    if let (Some(wave), Some(OnBreach::Rollback)) = (outcome.breached, fleet.file.deploy.on_breach) {
        let wave = planned.plan.changes.iter().filter(|change| change.wave == wave);
        let ids = wave.map(|change| (change.home.clone(), change.worker.clone())).collect();
        outcome.rolled_back = Some(rollback::wave(&it, &mut state, run, &ids, &planned.secrets)?);
    }
    let exit = if outcome.is_complete() { end(Exit::Done) } else { Exit::SomeFailed };
    summary::append(arguments.summary.as_deref(), &summary::applied(kind.command, &outcome))?;
    Ok(Applied { planned, outcome, platform: Some(platform), exit })
}

/// What is uploaded for a change: rendered again from what was planned, so that it is the planned bundle or none.
fn upload(planned: &Planned, change: &Change, live: &sending::Live) -> Result<Upload, String> {
    let (worker, recipe) = planned.worker(change).ok_or("what was built of it can't be read any more")?;
    let (module, bundle) =
        build::module(&planned.project, &planned.runtimes, &worker).map_err(|diagnostic| diagnostic.message)?;
    if bundle.digest != change.digest {
        return Err("BUG: it renders otherwise than it was planned".to_owned());
    }
    let sent = live.sending(&planned.secrets, &Needs::of(&worker), change)?;
    let runtime = &planned.runtimes[&worker.pack];
    let pending = change.steps.iter().any(|step| !matches!(step, Step::Upload));
    let (fleet, keep) = (planned.project.fleet.owner(), sent.sending.keep);
    let (customer, environment) = (&worker.customer, worker.environment);
    let mut tags = tags::of(&fleet, customer, environment, &bundle.digest, &Triggers::of(&worker), pending);
    if let Some(preview) = &planned.project.fleet.preview {
        let database = preview::own_database(preview, &worker);
        let hosts = worker.hosts.as_ref().map(|hosts| hosts.names.clone()).unwrap_or_default();
        tags.extend(tags::of_preview(planned.expires, database, &hosts));
    }
    let metadata = bundle::upload_metadata(&bundle, &tags, keep, |binding| sent.value(binding));
    let made = Made {
        secrets: sent.sending.live,
        objects: vec![
            (bundle.module, deflated(module.as_bytes())),
            (bundle.runtime, planned.deflated_runtime(&worker.pack)),
        ],
        stored: Stored {
            module: bundle.module,
            runtime: bundle.runtime,
            runtime_file: runtime.file.clone(),
            metadata: bundle.metadata,
            source: build::source(&worker, &recipe),
        },
    };
    Ok(Upload {
        metadata,
        modules: vec![
            Module { name: bundle::module_name(&worker), bytes: module.into_bytes().into() },
            Module { name: runtime.file.clone(), bytes: Arc::clone(&runtime.script) },
        ],
        made,
    })
}

/// Where each worker answers: of those that changed, or of all where nothing did.
fn addresses(session: &Session, planned: &Planned, platform: Option<&Cloudflare>) {
    let Ok(state) = State::read(&planned.cloud.state) else { return };
    let mut subdomains: HashMap<Home, Option<String>> = HashMap::new();
    let mut lines = Vec::new();
    let mut more = 0;
    let mut add = |home: &Home, worker: &str, live: &Deployed| {
        if lines.len() == ADDRESSES {
            more += 1;
            return;
        }
        let subdomain =
            || subdomains.entry(home.clone()).or_insert_with(|| subdomain(&planned.cloud, home, platform)).clone();
        let address = url(&planned.cloud, worker, live, subdomain).or_else(|| dispatched(&state, home, worker));
        lines.extend(address.map(|address| format!("  {worker:<32} {address}")));
    };
    if planned.plan.is_empty() {
        let selected = |live: &Deployed| planned.selects(&live.customer, live.environment);
        let _ = state.each(|(home, worker), live| {
            if selected(&live) {
                add(&home, &worker, &live);
            }
        });
    } else {
        for change in &planned.plan.changes {
            let id = (change.home.clone(), change.worker.clone());
            if let Ok(Some(live)) = state.one(&id) {
                add(&change.home, &change.worker, &live);
            }
        }
    }
    if more > 0 {
        lines.push(format!("  {}: flotilla status", and_more(more)));
    }
    if !lines.is_empty() {
        report::print(&lines.join("\n"));
    }
    if planned.cloud.local.is_some() {
        session.ui.note(if planned.cloud.base.is_empty() || planned.cloud.running.is_some() {
            "`flotilla local` serves them"
        } else {
            "`flotilla local` is serving them"
        });
    }
}
