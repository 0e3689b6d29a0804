//! Applies a plan for a command: asks, opens the lanes, tells what happens, records the deploy. Doesn't know where the plan and
//! its uploads come from.

use std::collections::HashMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::{
    self, Budget, DeployContext, Event, LaneId, MAX_IN_FLIGHT, MakeUpload, Outcome, Threads,
};
use flotilla_deploy::pace::Lane;
use flotilla_deploy::plan::Plan;
use flotilla_deploy::state::{ResourceKind, Run, RunId, State, WorkerId};
use flotilla_model::clock::{Clock, SystemClock};
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Home, Platform, Reply};
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::DeployRule;
use flotilla_spec::project::Fleet;

use super::Session;
use super::cloud::{Cloud, FOLDER};
use super::events::Events;
use super::orders::Orders;
use super::prices::{Lanes, eta};
use super::report::count;
use super::ui::{Style, clean, duration};

/// So many lanes are shown beside the progress.
const MOST_LANES: usize = 4;
/// Failures after which a deploy halts, unless fleet.yaml says otherwise.
const MOST_FAILURES: usize = 10;
/// The share of a fleet, in percent, from which on a plan is confirmed by its digest, unless fleet.yaml says otherwise.
const CONFIRM_ABOVE: f64 = 20.0;
/// From so many changes on, that is.
const CONFIRM_FROM: usize = 10;
/// Bundles that are kept of each worker, unless fleet.yaml says otherwise.
const KEEP: usize = 5;

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
    /// How many workers may be deleted, instead of what fleet.yaml says
    #[arg(long, value_name = "N")]
    pub max_deletions: Option<usize>,
    /// Append what happens, line by line as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

/// What kind of a deploy it is.
pub(super) struct Kind<'a> {
    /// The word in the records.
    pub what: &'a str,
    /// The command that it is of.
    pub command: &'a str,
    /// Why, if that was said.
    pub reason: &'a str,
    /// Whether it goes ahead of another one.
    pub ahead: bool,
}

/// Refuses a plan that isn't the one that was reviewed.
pub(super) fn refuse_another(plan: &Plan, arguments: &ApplyArguments) -> Result<(), Failure> {
    let Some(digest) = &arguments.digest else { return Ok(()) };
    let is = plan.digest.to_string();
    if digest.len() >= 8 && is.starts_with(&digest.to_ascii_lowercase()) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the plan isn't the one that was reviewed: its digest is {}, not {digest}; nothing was sent",
        &is[..16]
    ))
    .hint("something changed since: look at it with flotilla plan, and pass its digest"))
}

/// Asks whether the plan is to be applied: for a large one, by its digest.
pub(super) fn confirm(plan: &Plan, fleet: &Fleet, workers: usize) -> Result<(), Failure> {
    let digest = plan.digest.to_string();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused("nobody is there to confirm the plan, and nothing was sent")
            .hint(format!("pass --yes to apply it, or --digest {} to apply exactly this one", &digest[..16])));
    }
    let changes = plan.changes.len();
    let most = fleet.file.deploy.confirm_above.unwrap_or(CONFIRM_ABOVE);
    let large = changes >= CONFIRM_FROM && changes as f64 > workers as f64 * most / 100.0;
    let question = if large {
        let share = (changes as f64 * 100.0 / workers.max(1) as f64).round();
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

/// What a plan is applied with.
pub(super) struct Applying<'a> {
    pub session: &'a Session,
    pub fleet: &'a Fleet,
    pub cloud: &'a Cloud,
    pub platform: &'a Arc<Cloudflare>,
    pub tokens: &'a HashMap<String, SecretString>,
    pub arguments: &'a ApplyArguments,
    pub kind: &'a Kind<'a>,
}

/// Applies a plan to the end, and records that it did.
pub(super) fn apply(
    it: &Applying<'_>,
    plan: &Plan,
    make: Arc<MakeUpload>,
    state: &mut State,
) -> Result<(Outcome, RunId), Failure> {
    let Applying { session, fleet, cloud, platform, tokens, arguments, kind } = it;
    let rule = &fleet.file.deploy;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let lanes = Lanes::open(plan, fleet, cloud, tokens, &clock);
    let eta = eta(&lanes.prices(plan));
    let Lanes { lanes, of: lane_of } = if kind.ahead { lanes.ahead() } else { lanes };
    let lanes: Vec<Arc<Lane>> = lanes.into_iter().map(Arc::new).collect();
    let size = plan.changes.len().clamp(1, MAX_IN_FLIGHT.min(lanes.len() * 64).max(1));
    let platform_seam: Arc<dyn Platform> = Arc::<Cloudflare>::clone(platform);
    let pool = Box::new(Threads::new(size, platform_seam, make, Arc::clone(&clock)));
    let mut subdomains: HashMap<String, Option<String>> = HashMap::new();
    if plan.waves.len() > 1 {
        for change in &plan.changes {
            subdomains
                .entry(change.home.account_id.clone())
                .or_insert_with(|| subdomain(cloud, &change.home, Some(platform)));
        }
    }
    let hosts = if plan.waves.len() > 1 { settled_hosts(state, plan)? } else { HashMap::new() };
    let beside = match kind.ahead {
        true => {
            let lock = session.place().join(FOLDER).join(super::deploy::LOCK);
            let running = state.runs(1)?.into_iter().find(|(_, run)| run.ended == 0);
            running.map(|(id, _)| (id, Box::new(move || Lock::is_held(&lock)) as Box<dyn Fn() -> bool>))
        }
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
    let mut orders = Orders::listen(session, &session.place().join(FOLDER), !kind.ahead);
    let mut events = Events::open(arguments.events.as_deref())?;
    events.begun(run, kind.what, plan, eta);
    session.ui.begin("deploying", Some(plan.changes.len() as u64));
    session.ui.expect(Duration::from_secs_f64(eta));
    let tools = DeployContext {
        pool,
        clock: Arc::clone(&clock),
        lanes,
        lane_of: lane_of.into_iter().map(|(account, lane)| (account, LaneId::new(lane))).collect(),
        state,
        run,
        concurrent_run: beside,
        budget: budget(rule),
        address: Box::new(|change, live| {
            let address =
                cloud.address(&change.worker, live, subdomains.get(&change.home.account_id).cloned().flatten());
            let host = || hosts.get(&(change.home.clone(), change.worker.clone()));
            address.or_else(|| host().map(|host| format!("https://{host}/")))
        }),
        control: Box::new(|| orders.now()),
        on_event: Box::new(|event| {
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
    Ok((outcome, run))
}

/// By which host each worker of a namespace can be asked: one that leads to it since before this deploy, as it takes KV a minute to
/// know a new one everywhere.
fn settled_hosts(state: &State, plan: &Plan) -> Result<HashMap<WorkerId, String>, Failure> {
    let mut all = state.hosts()?;
    for change in &plan.hosts {
        all.remove(&(change.id(), change.host.clone()));
    }
    let leads = all.into_iter().filter(|(_, lead)| lead.sure);
    Ok(leads.filter_map(|((_, host), lead)| Some(((lead.home, lead.worker?), host))).collect())
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
        Event::Progress { left, lanes } => {
            ui.expect(*left);
            if lanes.len() > 1 {
                let each = lanes.iter().map(|lane| {
                    let all = lane.done + lane.left;
                    format!(
                        "{} {} %, {}",
                        clean(&lane.account),
                        100 * lane.done / all.max(1),
                        duration(lane.seconds_left)
                    )
                });
                let most = each.take(MOST_LANES).collect::<Vec<_>>().join(" · ");
                let more = lanes.len().saturating_sub(MOST_LANES);
                ui.detail(&if more > 0 { format!("{most} · {more} more") } else { most });
            }
        }
        Event::Wave { .. } | Event::Waiting(..) => {}
    }
}

pub(super) fn summary(outcome: &Outcome) -> String {
    let mut text = format!(
        "{} applied, {} failed, {} left undone · {} in {}",
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
    if outcome.hosts + outcome.hosts_skipped > 0 {
        text += &format!("\n{} written", count(outcome.hosts, "host"));
        if outcome.hosts_skipped > 0 {
            text += &format!(", {} not", outcome.hosts_skipped);
        }
    }
    if outcome.failed + outcome.skipped + outcome.hosts_skipped > 0 {
        text += "\nrun the same command again: what was acknowledged is not repeated";
    }
    text
}

/// The account's part of its workers.dev addresses: asked for once, with a deploy, then kept.
pub(super) fn subdomain(cloud: &Cloud, home: &Home, platform: Option<&Cloudflare>) -> Option<String> {
    let known = State::read(&cloud.state).ok()?.cached_id(&home.account_id, ResourceKind::Subdomain, "").ok()?;
    known.or_else(|| {
        let (Ok(Reply::Id(subdomain)), _) = platform?.call(home, &Call::FindSubdomain) else { return None };
        let mut state = State::open(&cloud.state).ok()?;
        state.cache_id(&home.account_id, ResourceKind::Subdomain, "", &subdomain).ok()?;
        Some(subdomain)
    })
}
