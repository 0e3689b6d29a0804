//! `flotilla deploy`.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::build;
use crate::bundle;
use crate::clock::{Clock, SystemClock};
use crate::cloudflare::Cloudflare;
use crate::customer::Worker;
use crate::deploy::{self, Outcome, Tools, Upload};
use crate::failure::{Exit, Failure};
use crate::limits::{Limit, grouped};
use crate::lock::Lock;
use crate::names::own_secret;
use crate::pace::{Lane, Rate};
use crate::plan::{Action, Change};
use crate::platform::{Call, Home, Module, Platform as _, Reply};
use crate::progress::Progress as _;
use crate::spec::Environment;
use crate::state::{Fingerprints, Found, Live, State};

use super::cloud::FOLDER;
use super::plan::{LineArguments, Planned, line};
use super::report::{self, count};
use super::status::url;
use super::ui::{Style, clean, duration};
use super::{Format, Session};

/// So many workers' addresses are printed.
const ADDRESSES: usize = 50;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    line: LineArguments,
    /// Apply the plan without asking
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    // Before the plan is made: what it is made from can't move until it is applied.
    let _lock = Lock::take(&session.root.join(FOLDER).join("deploy.lock"), "deploy")?;
    let Some(mut planned) = line(session, &arguments.line)? else {
        return Ok(Exit::Diagnostics);
    };
    let invalid = report::counts(&planned.diagnostics).0 > 0;
    let end = |exit| if invalid && exit == Exit::Done { Exit::Diagnostics } else { exit };
    if planned.plan.changes.is_empty() {
        match session.format {
            Format::Json => session.json(&Outcome::default())?,
            Format::Text => {
                report::print(&planned.text(&session.ui, false));
                addresses(session, &planned, None);
            }
        }
        return Ok(end(Exit::Done));
    }
    let accounts: BTreeSet<String> = planned.plan.changes.iter().map(|change| change.account.clone()).collect();
    let tokens =
        planned.cloud.tokens(&planned.loaded.project.fleet, accounts.iter().map(String::as_str), &planned.secrets)?;
    missing_secrets(&planned)?;
    large_secrets(&planned)?;
    if arguments.yes || planned.cloud.local.is_some() {
        session.ui.note(&planned.text(&session.ui, false));
    } else {
        session.ui.line(&planned.text(&session.ui, false));
        confirm(&planned)?;
    }
    let state = State::open(&planned.cloud.state)?;
    if planned.cloud.local.is_some() {
        planned.cloud.start(session)?;
    }
    let platform = Arc::new(Cloudflare::new(&planned.cloud.base, tokens)?);
    if planned.cloud.local.is_some() {
        for home in planned
            .plan
            .changes
            .iter()
            .map(|change| &change.home)
            .filter(|home| home.namespace.is_some())
            .collect::<BTreeSet<_>>()
        {
            // That it exists already is fine.
            let _ = platform.call(home, &Call::CreateNamespace);
        }
    }
    let planned = Arc::new(planned);
    let outcome = apply(session, &planned, Arc::clone(&platform) as Arc<_>, state)?;
    let exit = if outcome.failed + outcome.skipped > 0 { Exit::SomeFailed } else { end(Exit::Done) };
    match session.format {
        Format::Json => session.json(&outcome)?,
        Format::Text => {
            report::print(&summary(&outcome));
            addresses(session, &planned, Some(&platform));
        }
    }
    Ok(exit)
}

/// Names every secret that has no value, before the first request.
fn missing_secrets(planned: &Planned) -> Result<(), Failure> {
    let workers = workers(planned);
    let mut missing: Vec<String> = Vec::new();
    for change in planned.plan.changes.iter().filter(|change| change.action != Action::Delete) {
        let worker = workers[&(change.environment, change.worker.as_str())];
        if let Err(names) = planned.secrets.for_worker(worker) {
            missing.extend(
                names
                    .into_iter()
                    .map(|name| format!("{name} or {} for {}", own_secret(&worker.customer, &name), worker.customer)),
            );
        }
    }
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let number = missing.len();
    let more = if number > 20 { format!("\n… and {} more", number - 20) } else { String::new() };
    missing.truncate(20);
    Err(Failure::new(format!(
        "{} no value; nothing was sent",
        if number == 1 { "1 secret has".to_owned() } else { format!("{number} secrets have") }
    ))
    .hint(format!("set, in the environment or in a dotenv file outside of git:\n{}{more}", missing.join("\n"))))
}

/// Names every secret whose value is larger than a binding can be, before the first request.
fn large_secrets(planned: &Planned) -> Result<(), Failure> {
    let (workers, fleet) = (workers(planned), &planned.loaded.project.fleet);
    let mut large: BTreeSet<String> = BTreeSet::new();
    for change in planned.plan.changes.iter().filter(|change| change.action != Action::Delete) {
        let worker = workers[&(change.environment, change.worker.as_str())];
        let most = fleet.limit(&worker.account, Limit::VariableBytes);
        for (binding, value) in planned.secrets.for_worker(worker).into_iter().flatten() {
            let size = value.expose_secret().len() as u64;
            if size > most {
                let (name, size, most) = (&worker.secrets[&binding], grouped(size), grouped(most));
                let raise = fleet.raise(&worker.account, Limit::VariableBytes);
                large.insert(format!("{name} for {} has {size} bytes, {most} fit; {raise}", worker.customer));
            }
        }
    }
    let number = large.len();
    if number == 0 {
        return Ok(());
    }
    let shown: Vec<String> = large.into_iter().take(20).collect();
    let more = if number > shown.len() { format!("\n… and {} more", number - shown.len()) } else { String::new() };
    let what = if number == 1 { "1 secret is".to_owned() } else { format!("{number} secrets are") };
    Err(Failure::new(format!("{what} too large; nothing was sent")).hint(format!("{}{more}", shown.join("\n"))))
}

fn confirm(planned: &Planned) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused("nobody is there to confirm the plan, and nothing was sent")
            .hint("pass --yes to apply it"));
    }
    let _ = write!(std::io::stderr(), "deploy {}? [y/N] ", count(planned.plan.changes.len(), "change"));
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::refused("not confirmed; nothing was sent"))
}

fn workers(planned: &Planned) -> HashMap<(Environment, &str), &Worker> {
    planned.loaded.workers.iter().map(|worker| ((worker.environment, worker.name.as_str()), worker)).collect()
}

fn apply(
    session: &Session,
    planned: &Arc<Planned>,
    platform: Arc<Cloudflare>,
    state: State,
) -> Result<Outcome, Failure> {
    let plan = &planned.plan;
    let fleet = &planned.loaded.project.fleet;
    let lanes = plan
        .changes
        .iter()
        .map(|change| (change.home.account_id.clone(), &change.account))
        .collect::<HashMap<_, _>>()
        .into_iter()
        .map(|(id, account)| {
            (id, Arc::new(Lane::new(Rate::new(fleet.accounts[account].api_limit), Arc::new(SystemClock::new()))))
        })
        .collect();
    let fingerprints = state.fingerprints();
    let index: HashMap<(Environment, String), usize> = planned
        .loaded
        .workers
        .iter()
        .enumerate()
        .map(|(at, worker)| ((worker.environment, worker.name.clone()), at))
        .collect();
    let stop = stop_on_ctrl_c(session);
    let ui = session.ui.clone();
    let source = Arc::clone(planned);
    let tools = Tools {
        platform,
        clock: Arc::new(SystemClock::new()) as Arc<dyn Clock>,
        lanes,
        state: Mutex::new(state),
        upload: Box::new(move |change| {
            let at = index[&(change.environment, change.worker.clone())];
            upload(&source, &source.loaded.workers[at], change, &fingerprints)
        }),
        stop,
        done: Box::new(move |change, result| {
            ui.step(1);
            if let Err(error) = result {
                ui.line(&format!(
                    "{} {} ({}): {}",
                    ui.paint(Style::Error, "failed"),
                    change.worker,
                    change.customer,
                    clean(error)
                ));
            }
        }),
    };
    session.ui.begin("deploying", Some(plan.changes.len() as u64));
    session.ui.expect(Duration::from_secs_f64(planned.eta()));
    let outcome = deploy::deploy(plan, tools);
    session.ui.end();
    outcome
}

/// What is uploaded for a change: rendered again from what was planned, so that it is the planned bundle or none.
fn upload(planned: &Planned, worker: &Worker, change: &Change, fingerprints: &Fingerprints) -> Result<Upload, String> {
    let (module, bundle) =
        build::module(&planned.loaded.project, &planned.runtimes, worker).map_err(|diagnostic| diagnostic.message)?;
    if bundle.digest != change.digest {
        return Err("BUG: it renders otherwise than it was planned".to_owned());
    }
    let secrets = planned.secrets.for_worker(worker).map_err(|names| format!("no value for {}", names.join(", ")))?;
    let runtime = &planned.runtimes[&worker.pack];
    let live = Live {
        module: bundle.module,
        runtime: bundle.runtime,
        metadata: bundle.metadata.clone(),
        etag: String::new(),
        workers_dev: false,
        domains: Default::default(),
        routes: Default::default(),
        crons: Default::default(),
        secrets: secrets.iter().map(|(name, value)| (name.clone(), fingerprints.of(value.expose_secret()))).collect(),
    };
    let metadata = bundle::upload_metadata(&bundle, &planned.loaded.project.fleet.file.name, |name| {
        secrets.get(name).map(|value| value.expose_secret())
    });
    Ok(Upload {
        metadata,
        modules: vec![
            Module { name: bundle::module_name(worker), bytes: module.into_bytes().into() },
            Module { name: runtime.file.clone(), bytes: Arc::clone(&runtime.script) },
        ],
        live,
    })
}

/// The first Ctrl-C stops after what is in flight; the second one stops at once.
fn stop_on_ctrl_c(session: &Session) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let (ui, set) = (session.ui.clone(), Arc::clone(&stop));
    ui.take_signals();
    let _ = std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            for first in [true, false] {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
                if !first {
                    ui.leave(130);
                }
                set.store(true, Ordering::Relaxed);
                ui.line("stopping after what is in flight; Ctrl-C again stops at once");
            }
        });
    });
    stop
}

fn summary(outcome: &Outcome) -> String {
    let mut text = format!(
        "{} applied, {} failed, {} skipped · {} in {}",
        outcome.applied,
        outcome.failed,
        outcome.skipped,
        count(outcome.requests as usize, "request"),
        duration(outcome.seconds)
    );
    if outcome.retries + outcome.throttled > 0 {
        text += &format!(" · {} repeated, {} throttled", outcome.retries, outcome.throttled);
    }
    if outcome.failed + outcome.skipped > 0 {
        text += "\nrun the same command again: what was acknowledged is not repeated";
    }
    text
}

/// Where each worker answers.
fn addresses(session: &Session, planned: &Planned, platform: Option<&Cloudflare>) {
    let Ok(state) = State::read(&planned.cloud.state) else { return };
    let Ok(deployed) = state.deployed() else { return };
    let mut subdomains: HashMap<Home, Option<String>> = HashMap::new();
    let mut lines = Vec::new();
    for worker in &planned.loaded.workers {
        let home = planned.cloud.home(&worker.account, worker.namespace.as_deref());
        let Some(live) = deployed.get(&(home.clone(), worker.name.clone())) else { continue };
        let subdomain =
            || subdomains.entry(home.clone()).or_insert_with(|| subdomain(planned, &home, platform)).clone();
        let address = url(&planned.cloud, &worker.name, live, subdomain);
        lines.extend(address.map(|address| format!("  {:<32} {address}", worker.name)));
    }
    let more = lines.len().saturating_sub(ADDRESSES);
    lines.truncate(ADDRESSES);
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

/// The account's part of its workers.dev addresses: asked for once, with a deploy, then kept.
fn subdomain(planned: &Planned, home: &Home, platform: Option<&Cloudflare>) -> Option<String> {
    let known = State::read(&planned.cloud.state).ok()?.found(&home.account_id, Found::Subdomain, "").ok()?;
    known.or_else(|| {
        let (Ok(Reply::Id(subdomain)), _) = platform?.call(home, &Call::FindSubdomain) else { return None };
        let mut state = State::open(&planned.cloud.state).ok()?;
        state.keep(&home.account_id, Found::Subdomain, "", &subdomain).ok()?;
        Some(subdomain)
    })
}
