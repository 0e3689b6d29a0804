//! `flotilla deploy`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::build;
use crate::bundle;
use crate::cloudflare::Cloudflare;
use crate::deploy::{Made, MakeUpload, Outcome, Upload};
use crate::failure::{Exit, Failure};
use crate::lock::Lock;
use crate::plan::{Change, Step};
use crate::platform::{Call, Home, Module, Platform as _};
use crate::progress::Progress as _;
use crate::spec::OnBreach;
use crate::state::{Deployed, State, Stored, deflated};
use crate::tags::{self, Triggers};

use super::apply::{ApplyArguments, Applying, Kind, apply, confirm, refuse_another, subdomain, summary};
use super::cloud::FOLDER;
use super::plan::{LineArguments, Planned, line};
use super::preflight::{deletions, preflight};
use super::report;
use super::rollback;
use super::sending;
use super::status::{dispatched, url};
use super::{Format, Session};

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
    apply: ApplyArguments,
    /// Pass a deploy that is running: only with customers named; its requests go first
    #[arg(long, requires = "customers")]
    ahead: bool,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    // Before the plan is made: what it is made from can't move until it is applied.
    let folder = session.root.join(FOLDER);
    let _lock = match arguments.ahead {
        false => Lock::take_from_all(&folder.join(LOCK), "deploy").map_err(|failure| {
            failure.hint("or deploy a few customers ahead of it: flotilla deploy --ahead CUSTOMER")
        })?,
        true => Lock::take(&folder.join(AHEAD_LOCK), "deploy ahead of another")?,
    };
    let line_arguments = LineArguments { applies: true, ..arguments.line.clone() };
    let Some(planned) = line(session, &line_arguments)? else {
        return Ok(Exit::Diagnostics);
    };
    let what = if arguments.line.all { "redeploy" } else { "deploy" };
    let reason = if arguments.line.all { arguments.line.reason.as_str() } else { "" };
    apply_plan(session, planned, &arguments.apply, &Kind { what, reason, ahead: arguments.ahead })
}

/// Applies a plan: asks, sends, records, and tells.
pub(super) fn apply_plan(
    session: &Session,
    mut planned: Planned,
    arguments: &ApplyArguments,
    kind: &Kind<'_>,
) -> Result<Exit, Failure> {
    let invalid = report::counts(&planned.diagnostics).0 > 0;
    let end = |exit| if invalid && exit == Exit::Done { Exit::Diagnostics } else { exit };
    refuse_another(&planned.plan, arguments)?;
    if planned.plan.is_empty() {
        match session.format {
            Format::Json => session.json(&Outcome::default())?,
            Format::Text => {
                report::print(&planned.text(&session.ui, false));
                addresses(session, &planned, None);
            }
        }
        return Ok(end(Exit::Done));
    }
    let accounts: BTreeSet<String> = planned.plan.accounts().map(|(_, account)| account.to_owned()).collect();
    let tokens = planned.cloud.tokens(&planned.project.fleet, accounts.iter().map(String::as_str), &planned.secrets)?;
    sending::check(&planned)?;
    deletions(&planned, arguments)?;
    preflight(session, &mut planned)?;
    if arguments.yes || arguments.digest.is_some() || planned.cloud.local.is_some() {
        session.ui.note(&planned.text(&session.ui, false));
    } else {
        session.ui.line(&planned.text(&session.ui, false));
        confirm(&planned.plan, &planned.project.fleet, planned.workers)?;
    }
    let mut state = State::open(&planned.cloud.state)?;
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
    let planned = Arc::new(planned);
    let (live, source) = (sending::Live::open(&planned.cloud.state)?, Arc::clone(&planned));
    let make: Arc<MakeUpload> = Arc::new(move |change: &Change| upload(&source, change, &live));
    let (fleet, cloud) = (&planned.project.fleet, &planned.cloud);
    let it = Applying { session, fleet, cloud, platform: &platform, tokens: &tokens, arguments, kind };
    let (mut outcome, run) = apply(&it, &planned.plan, make, &mut state)?;
    if let (Some(wave), Some(OnBreach::Rollback)) = (outcome.breached, fleet.file.deploy.on_breach) {
        let wave = planned.plan.changes.iter().filter(|change| change.wave == wave);
        let ids = wave.map(|change| (change.home.clone(), change.worker.clone())).collect();
        outcome.rolled_back = Some(rollback::wave(&it, &mut state, run, &ids, &planned.secrets)?);
    }
    let exit = if outcome.is_complete() { end(Exit::Done) } else { Exit::SomeFailed };
    match session.format {
        Format::Json => session.json(&outcome)?,
        Format::Text => {
            report::print(&summary(&outcome));
            addresses(session, &planned, Some(&platform));
        }
    }
    Ok(exit)
}

/// What is uploaded for a change: rendered again from what was planned, so that it is the planned bundle or none.
fn upload(planned: &Planned, change: &Change, live: &sending::Live) -> Result<Upload, String> {
    let (worker, recipe) = planned.worker(change).ok_or("what was built of it can't be read any more")?;
    let (module, bundle) =
        build::module(&planned.project, &planned.runtimes, &worker).map_err(|diagnostic| diagnostic.message)?;
    if bundle.digest != change.digest {
        return Err("BUG: it renders otherwise than it was planned".to_owned());
    }
    let sent = live.sending(&planned.secrets, &worker, change)?;
    let runtime = &planned.runtimes[&worker.pack];
    let pending = change.steps.iter().any(|step| !matches!(step, Step::Upload));
    let (fleet, keep) = (&planned.project.fleet.file.name, sent.sending.keep);
    let (customer, environment) = (&worker.customer, worker.environment);
    let tags = tags::of(fleet, customer, environment, &bundle.digest, &Triggers::of(&worker), pending);
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
        lines.push(format!("  … and {more} more: flotilla status"));
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
