//! `flotilla deploy`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};

use crate::build;
use crate::bundle;
use crate::clock::{Clock, SystemClock};
use crate::cloudflare::Cloudflare;
use crate::deploy::{self, Budget, Event, MOST_IN_FLIGHT, Made, MakeUpload, Outcome, Threads, Tools, Upload};
use crate::failure::{Exit, Failure};
use crate::limits::{Limit, grouped};
use crate::lock::Lock;
use crate::names::own_secret;
use crate::pace::{self, Lane, Rate};
use crate::plan::{Action, Change};
use crate::platform::{Call, Home, Module, Platform, Reply};
use crate::progress::Progress as _;
use crate::spec::DeployRule;
use crate::state::{Deployed, Fingerprints, Found, Run, State, Stored, deflated};

use super::cloud::FOLDER;
use super::events::Events;
use super::orders::Orders;
use super::plan::{LineArguments, Planned, line};
use super::planfile::PlanFile;
use super::report::{self, count};
use super::status::url;
use super::ui::{Style, clean, duration};
use super::{Format, Session, summary};

/// So many workers' addresses are printed.
const ADDRESSES: usize = 50;
/// The lock of a deploy.
pub(super) const LOCK: &str = "deploy.lock";
/// The lock of a deploy that goes ahead of another one.
const AHEAD_LOCK: &str = "ahead.lock";
/// Failures after which a deploy halts, unless fleet.yaml says otherwise.
const MOST_FAILURES: usize = 10;
/// The share of a fleet, in percent, from which on a plan is confirmed by its digest, unless fleet.yaml says otherwise.
const CONFIRM_ABOVE: f64 = 20.0;
/// From so many changes on, that is.
const CONFIRM_FROM: usize = 10;
/// Bundles that are kept of each worker, unless fleet.yaml says otherwise.
const KEEP: usize = 5;

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
}

/// What a plan's file says already.
const PLANNED: [&str; 8] = ["customers", "labels", "env", "since", "all", "reason", "prune", "digest"];

/// The options of commands that apply a plan.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ApplyArguments {
    /// Apply the plan without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Apply the plan if it has this digest, without asking; eight characters are enough
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Append what was done as Markdown, for the summary of a CI job
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Append what happens, line by line as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let result = planned_and_applied(session, arguments);
    if let Err(failure) = &result {
        summary::append(session.summary.as_deref(), &summary::failure("flotilla deploy", failure))?;
    }
    result
}

fn planned_and_applied(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let file = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let asked = match &file {
        Some(file) => file.asked(&arguments.line)?,
        None => arguments.line.clone(),
    };
    // Before the plan is made: what it is made from can't move until it is applied.
    let folder = session.root.join(FOLDER);
    let _lock = match arguments.ahead {
        false => Lock::take(&folder.join(LOCK), "deploy").map_err(|failure| {
            failure.hint("or deploy a few customers ahead of it: flotilla deploy --ahead CUSTOMER")
        })?,
        true => Lock::take(&folder.join(AHEAD_LOCK), "deploy ahead of another")?,
    };
    let Some(planned) = line(session, &asked)? else {
        return Ok(Exit::Diagnostics);
    };
    if let Some(file) = &file {
        file.refuse_other(&planned)?;
    }
    let what = if asked.all { "redeploy" } else { "deploy" };
    let reason = if asked.all { asked.reason.as_str() } else { "" };
    let apply = ApplyArguments { yes: arguments.apply.yes || file.is_some(), ..arguments.apply.clone() };
    apply_plan(session, planned, &apply, &Kind { what, reason, ahead: arguments.ahead })
}

/// What kind of a deploy it is.
pub(super) struct Kind<'a> {
    /// The word in the records.
    pub what: &'a str,
    /// Why, if that was said.
    pub reason: &'a str,
    /// Whether it goes ahead of another one.
    pub ahead: bool,
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
    refuse_another(session, &planned, arguments)?;
    if planned.plan.changes.is_empty() {
        summary::append(arguments.summary.as_deref(), &planned.form(&planned.cost()).markdown())?;
        match session.format {
            Format::Json => session.json(&Outcome::default())?,
            Format::Text => {
                report::print(&planned.text(&session.ui));
                addresses(session, &planned, None);
            }
        }
        return Ok(end(Exit::Done));
    }
    let accounts: BTreeSet<String> = planned.plan.changes.iter().map(|change| change.account.clone()).collect();
    let tokens = planned.cloud.tokens(&planned.project.fleet, accounts.iter().map(String::as_str), &planned.secrets)?;
    missing_secrets(&planned)?;
    large_secrets(&planned)?;
    if arguments.yes || arguments.digest.is_some() || planned.cloud.local.is_some() {
        session.ui.note(&planned.text(&session.ui));
    } else {
        session.ui.line(&planned.text(&session.ui));
        confirm(&planned)?;
    }
    let mut state = State::open(&planned.cloud.state)?;
    if planned.cloud.local.is_some() {
        planned.cloud.start(session)?;
    }
    let platform = Arc::new(Cloudflare::new(&planned.cloud.base, tokens.clone())?);
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
    let outcome = apply(session, &planned, &platform, &tokens, &mut state, arguments, kind)?;
    let complete = outcome.failed + outcome.skipped + outcome.unhealthy == 0;
    let exit = if complete { end(Exit::Done) } else { Exit::SomeFailed };
    summary::append(arguments.summary.as_deref(), &summary::deploy(&outcome))?;
    match session.format {
        Format::Json => session.json(&outcome)?,
        Format::Text => {
            report::print(&summary(&outcome));
            addresses(session, &planned, Some(&platform));
        }
    }
    Ok(exit)
}

/// Refuses a plan that isn't the one that was reviewed.
fn refuse_another(session: &Session, planned: &Planned, arguments: &ApplyArguments) -> Result<(), Failure> {
    let Some(digest) = &arguments.digest else { return Ok(()) };
    let is = planned.plan.digest.to_string();
    if digest.len() >= 8 && is.starts_with(&digest.to_ascii_lowercase()) {
        return Ok(());
    }
    summary::append(arguments.summary.as_deref(), &planned.form(&planned.cost()).markdown())?;
    Err(Failure::refused(format!(
        "the plan isn't the one that was reviewed: its digest is {}, not {digest}; nothing was sent",
        &is[..16]
    ))
    .hint(format!("it is stale; what is planned now:\n{}", planned.text(&session.ui)))
    .hint(format!("if that is meant: --digest {}", &is[..16])))
}

/// Names every secret that has no value, before the first request.
fn missing_secrets(planned: &Planned) -> Result<(), Failure> {
    let changes = planned.plan.changes.par_iter().filter(|change| change.action != Action::Delete);
    let mut missing: Vec<String> = changes
        .filter_map(|change| planned.worker(change))
        .flat_map_iter(|(worker, _)| {
            let names = planned.secrets.for_worker(&worker).err().unwrap_or_default();
            let told = move |name: String| {
                format!("{name} or {} for {}", own_secret(&worker.customer, &name), worker.customer)
            };
            names.into_iter().map(told).collect::<Vec<_>>()
        })
        .collect();
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
    let fleet = &planned.project.fleet;
    let mut large: BTreeSet<String> = BTreeSet::new();
    for change in planned.plan.changes.iter().filter(|change| change.action != Action::Delete) {
        let Some((worker, _)) = planned.worker(change) else { continue };
        let most = fleet.limit(&worker.account, Limit::VariableBytes);
        for (binding, value) in planned.secrets.for_worker(&worker).into_iter().flatten() {
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

/// Asks whether the plan is to be applied: for a large one, by its digest.
fn confirm(planned: &Planned) -> Result<(), Failure> {
    let digest = planned.plan.digest.to_string();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused("nobody is there to confirm the plan, and nothing was sent")
            .hint(format!("pass --yes to apply it, or --digest {} to apply exactly this one", &digest[..16])));
    }
    let changes = planned.plan.changes.len();
    let most = planned.project.fleet.file.deploy.confirm_above.unwrap_or(CONFIRM_ABOVE);
    let large = changes >= CONFIRM_FROM && changes as f64 > planned.workers as f64 * most / 100.0;
    let question = if large {
        let share = (changes as f64 * 100.0 / planned.workers.max(1) as f64).round();
        format!(
            "deploy {}, {share} % of the fleet? Type the first eight characters of the plan's digest, {}: ",
            count(changes, "change"),
            &digest[..8]
        )
    } else {
        format!("deploy {}? [y/N] ", count(changes, "change"))
    };
    let _ = write!(std::io::stderr(), "{question}");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    let answer = answer.trim();
    if if large { answer == &digest[..8] } else { matches!(answer, "y" | "Y" | "yes") } {
        return Ok(());
    }
    Err(Failure::refused("not confirmed; nothing was sent"))
}

/// When a deploy stops by itself.
fn budget(rule: &DeployRule) -> Budget {
    Budget {
        count: rule.failures.and_then(|share| share.count).unwrap_or(MOST_FAILURES),
        percent: rule.failures.and_then(|share| share.percent).unwrap_or(0.0),
        health: rule
            .health
            .enabled
            .unwrap_or(true)
            .then(|| Duration::from_secs(rule.health.deadline_seconds.unwrap_or(60))),
    }
}

/// The lanes of a plan: one for each token.
fn lanes(
    planned: &Planned,
    tokens: &HashMap<String, SecretString>,
    clock: &Arc<dyn Clock>,
    ahead: bool,
) -> (Vec<Arc<Lane>>, HashMap<String, usize>) {
    let accounts: BTreeMap<&str, &str> =
        planned.plan.changes.iter().map(|change| (change.home.account_id.as_str(), change.account.as_str())).collect();
    let (mut lanes, mut of_token, mut lane_of) = (Vec::new(), HashMap::new(), HashMap::new());
    for (id, account) in accounts {
        let token = tokens[id].expose_secret();
        let at = *of_token.entry(token).or_insert_with(|| {
            let rate = Rate::new(planned.project.fleet.accounts[account].api_limit);
            let lane = match pace::file(&planned.cloud.base, token) {
                Ok(file) => Lane::shared(rate, &file, Arc::clone(clock)),
                Err(_) => Lane::new(rate, Arc::clone(clock)),
            };
            lanes.push(Arc::new(if ahead { lane.ahead() } else { lane }));
            lanes.len() - 1
        });
        lane_of.insert(id.to_owned(), at);
    }
    (lanes, lane_of)
}

fn apply(
    session: &Session,
    planned: &Arc<Planned>,
    platform: &Arc<Cloudflare>,
    tokens: &HashMap<String, SecretString>,
    state: &mut State,
    arguments: &ApplyArguments,
    kind: &Kind<'_>,
) -> Result<Outcome, Failure> {
    let plan = &planned.plan;
    let rule = &planned.project.fleet.file.deploy;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (lanes, lane_of) = lanes(planned, tokens, &clock, kind.ahead);
    let (fingerprints, source) = (state.fingerprints(), Arc::clone(planned));
    let make: Arc<MakeUpload> = Arc::new(move |change: &Change| upload(&source, change, &fingerprints));
    let size = plan.changes.len().clamp(1, MOST_IN_FLIGHT.min(lanes.len() * 64));
    let platform_seam = Arc::clone(platform) as Arc<dyn Platform>;
    let pool = Box::new(Threads::new(size, platform_seam, make, Arc::clone(&clock)));
    let mut subdomains: HashMap<String, Option<String>> = HashMap::new();
    if plan.waves.len() > 1 {
        for change in &plan.changes {
            subdomains
                .entry(change.home.account_id.clone())
                .or_insert_with(|| subdomain(planned, &change.home, Some(platform)));
        }
    }
    let beside = match kind.ahead {
        true => state.runs(1)?.first().filter(|(_, run)| run.ended == 0).map(|(id, _)| *id),
        false => None,
    };
    let run = state.begin_run(&Run {
        began: clock.unix(),
        ended: 0,
        who: std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        what: kind.what.to_owned(),
        reason: kind.reason.to_owned(),
        plan: plan.digest.to_string(),
        outcome: serde_json::Value::Null,
    })?;
    let mut orders = Orders::listen(session, &session.root.join(FOLDER), !kind.ahead);
    let mut events = Events::open(arguments.events.as_deref())?;
    let expected = deploy::forecast(plan, &lanes, |change| lane_of[&change.home.account_id], deploy::LATENCY);
    events.begun(run, kind.what, plan, expected.as_secs_f64());
    session.ui.begin("deploying", Some(plan.changes.len() as u64));
    session.ui.expect(expected);
    let tools = Tools {
        pool,
        clock: Arc::clone(&clock),
        lanes,
        lane_of,
        state,
        run,
        beside,
        budget: budget(rule),
        address: Box::new(|change, live| {
            planned.cloud.address(&change.worker, live, subdomains.get(&change.home.account_id).cloned().flatten())
        }),
        orders: Box::new(|| orders.now()),
        hear: Box::new(|event| {
            events.happened(event);
            told(session, event);
        }),
    };
    let outcome = deploy::deploy(plan, tools);
    session.ui.end();
    drop(orders);
    let outcome = outcome?;
    events.ended(&outcome);
    state.end_run(run, clock.unix(), &serde_json::to_value(&outcome).expect("BUG: an outcome is JSON"))?;
    let touched: Vec<_> = plan
        .changes
        .iter()
        .map(|change| ((change.home.clone(), change.worker.clone()), change.customer.clone()))
        .collect();
    state.retire(&touched, rule.keep.unwrap_or(KEEP))?;
    Ok(outcome)
}

/// Tells people what happens.
fn told(session: &Session, event: &Event<'_>) {
    let ui = &session.ui;
    match event {
        Event::Applied(_) | Event::Overtaken(_) => ui.step(1),
        Event::Failed(change, error) => {
            ui.step(1);
            ui.line(&format!(
                "{} {} ({}): {}",
                ui.paint(Style::Error, "failed"),
                change.worker,
                change.customer,
                clean(error)
            ));
        }
        Event::Unhealthy(change, why) => ui.line(&format!(
            "{} {} ({}): {}",
            ui.paint(Style::Error, "not well"),
            change.worker,
            change.customer,
            clean(why)
        )),
        Event::Wave { name, of: (at, of), changes } if *of > 1 => {
            ui.note(&format!("wave {at} of {of}, {}: {}", clean(name), count(*changes, "change")));
        }
        Event::Asking(0) => ui.note("no worker of this wave has an address to be asked at"),
        Event::Asking(number) => ui.note(&format!("asking {} whether they are well", count(*number, "worker"))),
        Event::Halted(why) => ui.line(&format!("{}: {}", ui.paint(Style::Error, "halted"), clean(why))),
        Event::Waiting(account, wait) if wait.as_secs() >= 5 => {
            ui.note(&format!("{account}: the API's limit is reached, on in {}", duration(wait.as_secs_f64())));
        }
        Event::Paused(true) => ui.line("paused: `r`, or `flotilla control resume`, goes on"),
        Event::Paused(false) => ui.line("on it goes"),
        Event::Wave { .. } | Event::Waiting(..) => {}
    }
}

/// What is uploaded for a change: rendered again from what was planned, so that it is the planned bundle or none.
fn upload(planned: &Planned, change: &Change, fingerprints: &Fingerprints) -> Result<Upload, String> {
    let (worker, recipe) = planned.worker(change).ok_or("what was built of it can't be read any more")?;
    let (module, bundle) =
        build::module(&planned.project, &planned.runtimes, &worker).map_err(|diagnostic| diagnostic.message)?;
    if bundle.digest != change.digest {
        return Err("BUG: it renders otherwise than it was planned".to_owned());
    }
    let secrets = planned.secrets.for_worker(&worker).map_err(|names| format!("no value for {}", names.join(", ")))?;
    let runtime = &planned.runtimes[&worker.pack];
    let metadata = bundle::upload_metadata(&bundle, &planned.project.fleet.file.name, |name| {
        secrets.get(name).map(|value| value.expose_secret())
    });
    let made = Made {
        secrets: secrets.iter().map(|(name, value)| (name.clone(), fingerprints.of(value.expose_secret()))).collect(),
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
    if outcome.overtaken > 0 {
        text += &format!(" · {} overtaken by another deploy", outcome.overtaken);
    }
    if outcome.unhealthy > 0 {
        text += &format!(" · {} not well", outcome.unhealthy);
    }
    if let Some(why) = &outcome.halted {
        text += &format!("\nhalted: {}", clean(why));
    }
    if outcome.failed + outcome.skipped > 0 {
        text += "\nrun the same command again: what was acknowledged is not repeated";
    }
    text
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
        let subdomain = || subdomains.entry(home.clone()).or_insert_with(|| subdomain(planned, home, platform)).clone();
        let address = url(&planned.cloud, worker, live, subdomain);
        lines.extend(address.map(|address| format!("  {worker:<32} {address}")));
    };
    if planned.plan.changes.is_empty() {
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
