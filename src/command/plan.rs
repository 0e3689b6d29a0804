//! `flotilla plan`, and the plan of `flotilla deploy`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::build::{Loaded, Runtimes};
use crate::bundle::Bundle;
use crate::diagnostic::Diagnostic;
use crate::digest::Digest;
use crate::failure::{Exit, Failure};
use crate::pace::Rate;
use crate::plan::{self, Action, Change, Desired, Held, Options, Orphan, Plan};
use crate::platform::Home;
use crate::progress::Progress as _;
use crate::secrets::Secrets;
use crate::state::State;

use super::build;
use super::cloud::{Cloud, CloudArguments};
use super::report::{self, count};
use super::selection::Selection;
use super::ui::{Style, Ui, clean, duration};
use super::{Format, Session};

/// Changes with the same reasons are shown one by one up to this number, then as a group.
const SHOWN: usize = 12;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub line: LineArguments,
    /// Exit with 3 if there are changes
    #[arg(long)]
    exit_code: bool,
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
}

/// The line up to the plan.
pub(super) struct Planned {
    pub loaded: Loaded,
    pub runtimes: Runtimes,
    pub diagnostics: Vec<Diagnostic>,
    pub secrets: Secrets,
    pub cloud: Cloud,
    pub plan: Plan,
}

#[derive(Serialize)]
struct Report<'a> {
    create: usize,
    update: usize,
    delete: usize,
    unchanged: usize,
    requests: usize,
    eta_seconds: f64,
    digest: Digest,
    changes: &'a [Change],
    held: &'a [Held],
    orphans: &'a [Orphan],
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let Some(planned) = line(session, &arguments.line)? else {
        return Ok(Exit::Diagnostics);
    };
    if session.format == Format::Json {
        let Planned { plan, .. } = &planned;
        session.json(&Report {
            create: plan.count(Action::Create),
            update: plan.count(Action::Update),
            delete: plan.count(Action::Delete),
            unchanged: plan.unchanged,
            requests: plan.requests().values().sum(),
            eta_seconds: planned.eta(),
            digest: plan.digest,
            changes: &plan.changes,
            held: &plan.held,
            orphans: &plan.orphans,
        })?;
    } else {
        report::print(&planned.text(&session.ui, true));
    }
    Ok(match (report::counts(&planned.diagnostics).0, arguments.exit_code && !planned.plan.changes.is_empty()) {
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
    let env_file: Option<&Path> = arguments.cloud.env_file.as_deref();
    let secrets = Secrets::read(&session.root, env_file, arguments.cloud.local)?;
    let Some(build::Line { loaded, bundles, runtimes, built, diagnostics, .. }) = build::line(session, selection)?
    else {
        return Ok(None);
    };
    session.ui.begin("planning", None);
    let cloud = Cloud::new(session, &loaded.project.fleet, &arguments.cloud, &secrets)?;
    let state = State::read(&cloud.state)?;
    let desired = desired(&loaded, &bundles, &cloud, &secrets, &state);
    let homes: BTreeMap<Home, &String> = loaded
        .project
        .fleet
        .accounts
        .iter()
        .flat_map(|(name, account)| {
            [cloud.home(name, account.dispatch_namespace.as_deref()), cloud.home(name, None)].map(|home| (home, name))
        })
        .filter(|(home, _)| !home.account_id.is_empty())
        .collect();
    let mut deployed = state.deployed()?;
    for ((home, _), live) in &mut deployed {
        // An account can have got another name in fleet.yaml since.
        if let Some(name) = homes.get(home) {
            live.account.clone_from(name);
        }
    }
    let mut begun = state.begun()?;
    for ((home, _), begun) in &mut begun {
        if let Some(name) = homes.get(home) {
            begun.account.clone_from(name);
        }
    }
    let homes = homes.into_keys().collect();
    // What could not be rendered is held, as well.
    let mut invalid: BTreeSet<String> = loaded.survey.held.union(&built.failed).cloned().collect();
    if arguments.prune && loaded.survey.unread {
        session.ui.line("nothing is pruned: as long as a spec can't be read, it may be that of any customer");
    }
    invalid.retain(|customer| selection.includes_id(customer));
    let options = Options {
        force: arguments.all.then_some(arguments.reason.as_str()),
        prune: arguments.prune && !loaded.survey.unread,
        named: selection.named(),
        any_delivery: cloud.local.is_some(),
        whole: selection.is_all(),
        invalid,
        begun,
    };
    let plan = plan::plan(&desired, &deployed, &homes, &options);
    drop(desired);
    session.ui.end();
    Ok(Some(Planned { loaded, runtimes, diagnostics, secrets, cloud, plan }))
}

fn desired<'a>(
    loaded: &'a Loaded,
    bundles: &'a [Option<Bundle>],
    cloud: &Cloud,
    values: &Secrets,
    state: &State,
) -> Vec<Desired<'a>> {
    let fingerprints = state.fingerprints();
    loaded
        .workers
        .iter()
        .zip(bundles)
        .filter_map(|(worker, bundle)| {
            let secrets: BTreeMap<String, String> = worker
                .secrets
                .iter()
                .filter_map(|(binding, name)| {
                    let value = values.of(&worker.customer, name)?;
                    Some((binding.clone(), fingerprints.of(value.expose_secret())))
                })
                .collect();
            Some(Desired {
                home: cloud.home(&worker.account, worker.namespace.as_deref()),
                worker,
                bundle: bundle.as_ref()?,
                secrets,
            })
        })
        .collect()
}

impl Planned {
    /// How long the plan takes, in seconds: what the limit makes it wait, and a quarter of a second for each request,
    /// eight at a time. Lanes run side by side.
    pub(super) fn eta(&self) -> f64 {
        let lanes = self.plan.requests().into_iter().map(|(account, requests)| {
            let rate = Rate::new(self.loaded.project.fleet.accounts[account].api_limit);
            rate.wait(requests).as_secs_f64() + requests as f64 * 0.25 / 8.0
        });
        lanes.fold(0.0, f64::max)
    }

    /// The plan for people. With `hints`: what to run next.
    pub(super) fn text(&self, ui: &Ui, hints: bool) -> String {
        let plan = &self.plan;
        let mut lines = Vec::new();
        let mut groups: BTreeMap<(Action, &[String]), Vec<&Change>> = BTreeMap::new();
        for change in &plan.changes {
            groups.entry((change.action, &change.reasons)).or_default().push(change);
        }
        // Small groups in the order of the plan, large ones as a line each.
        for change in &plan.changes {
            if groups[&(change.action, &change.reasons[..])].len() <= SHOWN {
                let head = format!("{} {:<7}{}", sign(ui, change.action), change.action.as_str(), change.worker);
                lines.push(format!(
                    "{head}  ({} · {})  {}",
                    change.customer,
                    change.environment,
                    clean(&change.reasons.join("; "))
                ));
            }
        }
        for ((action, reasons), changes) in groups.iter().filter(|(_, changes)| changes.len() > SHOWN) {
            let some: Vec<&str> = changes.iter().take(3).map(|change| change.worker.as_str()).collect();
            let head = format!("{} {:<7}{}", sign(ui, *action), action.as_str(), count(changes.len(), "worker"));
            lines.push(format!("{head} ({}, …)  {}", some.join(", "), clean(&reasons.join("; "))));
        }
        let mut held: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for one in &plan.held {
            held.entry(&one.reason).or_default().push(&one.customer);
        }
        for (reason, customers) in held {
            let some = customers.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
            let more =
                if customers.len() > SHOWN { format!(" and {} more", customers.len() - SHOWN) } else { String::new() };
            lines.push(format!("{} held   {some}{more}  ({reason})", ui.paint(Style::Dim, "=")));
        }
        if !plan.orphans.is_empty() {
            let some: Vec<&str> = plan.orphans.iter().take(SHOWN).map(|orphan| orphan.worker.as_str()).collect();
            let more = if plan.orphans.len() > SHOWN { ", …" } else { "" };
            lines.push(format!(
                "{} orphan {} deployed that no spec owns: {}{more}; --prune deletes",
                ui.paint(Style::Warning, "!"),
                count(plan.orphans.len(), "worker"),
                some.join(", ")
            ));
        }
        let unknown = self.cloud.unknown(self.loaded.project.fleet.accounts.keys().map(String::as_str));
        if hints && !unknown.is_empty() && !plan.changes.is_empty() {
            lines.push(format!(
                "{} the id of {} is not set here, so that nothing counts as deployed there",
                ui.paint(Style::Warning, "!"),
                unknown.join(", ")
            ));
        }
        let requests: usize = plan.requests().values().sum();
        if plan.changes.is_empty() {
            lines.push(format!("nothing to deploy: {} as they should be", count(plan.unchanged, "worker")));
        } else {
            let [create, update, delete] =
                [Action::Create, Action::Update, Action::Delete].map(|action| plan.count(action));
            lines.push(format!(
                "plan: {create} to create, {update} to update, {delete} to delete, {} unchanged · {} · about {}",
                plan.unchanged,
                count(requests, "request"),
                duration(self.eta())
            ));
            if hints {
                let local = if self.cloud.local.is_some() { "--local" } else { "--yes" };
                lines.push(format!("`flotilla deploy {local}` applies it"));
            }
        }
        lines.join("\n")
    }
}

fn sign(ui: &Ui, action: Action) -> String {
    match action {
        Action::Create => ui.paint(Style::Good, "+"),
        Action::Update => ui.paint(Style::Warning, "~"),
        Action::Delete => ui.paint(Style::Error, "-"),
    }
}
