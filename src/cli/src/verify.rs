//! `flotilla verify`, and what `deploy --verify` asks after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use flotilla_build::build::{self, Project};
use flotilla_deploy::cloudflare::{BASE, Network};
use flotilla_deploy::state::{Deployed, Found, State, WorkerId};
use flotilla_deploy::verify::{Check, Report, Status, Target, serves_health, verify};
use flotilla_model::clock::SystemClock;
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::listing::and_more;
use flotilla_model::spec::Delivery;

use super::cloud::{Cloud, CloudArguments};
use super::report::{self, count};
use super::selection::Selection;
use super::status::{dispatched, url};
use super::ui::{Style, Ui, clean, duration};
use super::{Format, Session, junit};

/// How long those that fail are asked again, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(60);
/// So many failures are told with what to do.
const TOLD: usize = 50;
/// So many rows of workers that are well are shown.
const ROWS: usize = 100;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    cloud: CloudArguments,
    #[command(flatten)]
    asking: Asking,
}

/// How workers are asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Asking {
    /// Once each worker was asked, ask those that fail again for so many seconds; 0 asks once [default: 60]
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl Asking {
    /// The first of its options that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let deadline = self.deadline.map(|_| "--deadline");
        deadline.or(self.junit.as_ref().map(|_| "--junit"))
    }
}

/// The results of all workers.
#[derive(Serialize)]
pub(super) struct Results {
    pub workers: Vec<Report>,
    passed: usize,
    pub failed: usize,
    skipped: usize,
    pub seconds: f64,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let loaded = match build::load(&session.root, &session.ui) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    arguments.selection.verify(&session.ui, &loaded.project, &loaded.scan)?;
    let diagnostics: Vec<_> =
        loaded.scan.diagnostics.iter().filter(|found| arguments.selection.concerns(found)).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    let secrets = arguments.cloud.secrets(session, &loaded.project.fleet)?;
    let mut cloud = Cloud::new(session, &loaded.project.fleet, &arguments.cloud, &secrets)?;
    if cloud.local.is_some() {
        cloud.start(session)?;
    }
    let selected: Vec<&Worker> = loaded.workers.iter().filter(|worker| arguments.selection.includes(worker)).collect();
    let state = State::read(&cloud.state)?;
    let targets = targets(&loaded.project, &cloud, &state, &selected)?;
    let results = asked(session, &targets, &arguments.asking)?;
    match session.format {
        Format::Json => session.json(&results)?,
        Format::Text => report::print(&text(&session.ui, &results)),
    }
    Ok(match (results.failed, report::counts(&diagnostics).0) {
        (1.., _) => Exit::SomeFailed,
        (0, 1..) => Exit::Diagnostics,
        (0, 0) => Exit::Done,
    })
}

/// Asks targets, and writes what CI shows.
pub(super) fn asked(session: &Session, targets: &[Target], asking: &Asking) -> Result<Results, Failure> {
    let start = Instant::now();
    let deadline = asking.deadline.map_or(DEADLINE, Duration::from_secs);
    let workers = verify(targets, &Network::new()?, &SystemClock::new(), deadline, &session.ui);
    let of = |wanted: &[Status]| workers.iter().filter(|report| wanted.contains(&report.status)).count();
    let results = Results {
        passed: of(&[Status::Passed, Status::Warning]),
        failed: of(&[Status::Failed]),
        skipped: of(&[Status::Skipped]),
        seconds: start.elapsed().as_secs_f64(),
        workers,
    };
    if let Some(path) = &asking.junit {
        write(path, &junit::document(&results.workers, results.seconds))?;
    }
    Ok(results)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))?;
    Ok(())
}

/// What each worker is asked where.
pub(super) fn targets(
    project: &Project,
    cloud: &Cloud,
    state: &State,
    workers: &[&Worker],
) -> Result<Vec<Target>, Failure> {
    let packs: HashMap<(&str, &str), &str> =
        workers.iter().map(|worker| ((worker.account.as_str(), worker.name.as_str()), worker.pack.as_str())).collect();
    let probes = |pack: &str| project.fleet.packs[pack].manifest.verify.clone().unwrap_or_default();
    let serves = |account: &str, name: &str| {
        // Of a worker that isn't selected, nobody knows here; its pack says so as a rule.
        packs.get(&(account, name)).is_none_or(|pack| serves_health(&probes(pack)))
    };
    let mut subdomains: HashMap<String, Option<String>> = HashMap::new();
    let apart = apart(cloud);
    let mut all = Vec::with_capacity(workers.len());
    for worker in workers {
        let home = cloud.home(&worker.account, worker.namespace.as_deref());
        let id: WorkerId = (home.clone(), worker.name.clone());
        let live = state.one(&id)?;
        let subdomain = subdomains
            .entry(home.account_id.clone())
            .or_insert_with(|| state.found(&home.account_id, Found::Subdomain, "").ok().flatten())
            .clone();
        let by_host = || dispatched(state, &home, &worker.name);
        let address = live.as_ref().and_then(|live| {
            let found = match apart {
                Some(_) => cloud.address(&worker.name, live, subdomain),
                None => url(cloud, &worker.name, live, || subdomain).or_else(|| routed(live)),
            };
            found.or_else(by_host)
        });
        let called = worker.services.iter().chain(&worker.peers);
        all.push(Target {
            customer: worker.customer.clone(),
            environment: worker.environment,
            worker: worker.name.clone(),
            hosts: live.as_ref().map(|live| hosts(live, address.as_deref())).unwrap_or_default(),
            address,
            apart,
            digest: live.as_ref().map(|live| live.digest.to_string()).unwrap_or_default(),
            probes: probes(&worker.pack),
            peers: called.map(|(name, to)| (name.clone(), serves(&worker.account, to))).collect(),
            skip: live.is_none().then(|| undeployed(worker.delivery).to_owned()),
        });
    }
    Ok(all)
}

/// Why DNS and TLS aren't asked.
fn apart(cloud: &Cloud) -> Option<&'static str> {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if cloud.local.is_some() {
        return Some("on this machine, hosts have no DNS and no TLS");
    }
    if cloud.base.trim_end_matches('/') != BASE {
        return Some("behind another API than Cloudflare's, public names mean nothing");
    }
    let proxied = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].iter().any(set);
    proxied.then_some("behind a proxy, hosts aren't reached directly")
}

fn undeployed(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::SelfHosted | Delivery::Gitops => "not deployed by flotilla",
        Delivery::Automatic | Delivery::Manual => "not deployed",
    }
}

/// The address of a worker that routes alone lead to: a host of which it has every path.
fn routed(live: &Deployed) -> Option<String> {
    live.live.routes.keys().find_map(|pattern| Some(format!("https://{}/", plain_host(pattern.strip_suffix("/*")?)?)))
}

/// The hosts that are to be found: custom domains, those of routes, and where it is asked.
fn hosts(live: &Deployed, address: Option<&str>) -> BTreeSet<String> {
    let routes = live.live.routes.keys().filter_map(|pattern| plain_host(pattern.split('/').next()?));
    let own = address.filter(|address| !address.contains("://127.0.0.1"));
    let own =
        own.and_then(|address| address.strip_prefix("https://")).and_then(|rest| plain_host(rest.split('/').next()?));
    live.live.domains.keys().map(String::as_str).chain(routes).chain(own).map(str::to_owned).collect()
}

/// A host that stands for no other.
fn plain_host(host: &str) -> Option<&str> {
    (!host.contains('*') && host.contains('.') && !host.contains(':')).then_some(host)
}

/// The table, what failed and what to do, and how many.
pub(super) fn text(ui: &Ui, results: &Results) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for check in results.workers.iter().flat_map(|report| &report.checks) {
        if !columns.contains(&check.name.as_str()) {
            columns.push(&check.name);
        }
    }
    let mut shown: Vec<&Report> = Vec::new();
    let mut left = 0;
    for report in &results.workers {
        // Who is not well is shown in any case.
        if report.status == Status::Failed || shown.len() < ROWS { shown.push(report) } else { left += 1 }
    }
    let head = ["worker", "address"].into_iter().chain(columns.iter().copied());
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    for report in &shown {
        let address = report.address.as_deref().unwrap_or("none");
        let cells = columns.iter().map(|column| word(report, column).to_owned());
        rows.push([clean(&report.worker), clean(address)].into_iter().chain(cells).collect());
    }
    let widths: Vec<usize> =
        (0..columns.len() + 2).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let mut lines: Vec<String> = Vec::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let padded = format!("{cell:width$}");
            match cell.as_str() {
                "failed" => ui.paint(Style::Error, &padded),
                "ok" => ui.paint(Style::Good, &padded),
                "ends soon" => ui.paint(Style::Warning, &padded),
                _ => padded,
            }
        });
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
    }
    if left > 0 {
        lines.push(format!("… and {} that {} well", count(left, "worker"), if left == 1 { "is" } else { "are" }));
    }
    lines.extend(remarks(results));
    lines.push(format!(
        "{} passed, {} failed, {} skipped in {}",
        count(results.passed, "worker"),
        results.failed,
        results.skipped,
        duration(results.seconds)
    ));
    lines.join("\n")
}

/// What stands in a cell: the worst of the checks of that name.
fn word(report: &Report, column: &str) -> &'static str {
    let any = |status: Status| report.checks.iter().any(|check| check.name == column && check.status == status);
    if any(Status::Failed) {
        "failed"
    } else if any(Status::Warning) {
        "ends soon"
    } else if any(Status::Passed) {
        "ok"
    } else {
        "-"
    }
}

/// What failed or will soon, with what to do; and once, why something wasn't asked.
fn remarks(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    let mut more = 0;
    for report in &results.workers {
        for check in report.checks.iter().filter(|check| matches!(check.status, Status::Failed | Status::Warning)) {
            if lines.len() >= TOLD {
                more += 1;
                continue;
            }
            let (worker, of, message) = (clean(&report.worker), clean(&check.of), clean(&check.message));
            lines.push(format!("  {worker}, {} of {of}: {message}\n    = {}", check.name, advice(check)));
        }
    }
    if more > 0 {
        lines.push(format!("  {}: `--format json` has them all", and_more(more)));
    }
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    for report in &results.workers {
        let of_all = report.checks.iter().filter(|check| check.status == Status::Skipped && !check.message.is_empty());
        let whys: BTreeSet<&str> = of_all.map(|check| check.message.as_str()).collect();
        // Where something failed, that is the reason.
        if report.status != Status::Failed {
            whys.into_iter().for_each(|why| *skipped.entry(why).or_default() += 1);
        }
    }
    lines.extend(skipped.into_iter().map(|(why, workers)| format!("skipped of {}: {why}", count(workers, "worker"))));
    lines
}

/// What to do about a check that failed.
fn advice(check: &Check) -> &'static str {
    match (check.name.as_str(), check.status) {
        ("dns", _) => {
            "a new custom domain takes a minute or two; a route needs a proxied DNS record; is the zone active, and are its name servers Cloudflare's?"
        }
        ("tls", Status::Warning) => {
            "Cloudflare renews certificates 30 days before their end: see SSL/TLS › Edge Certificates of the zone"
        }
        ("tls", _) => {
            "a new certificate takes some minutes; the universal one covers the zone and one level below: see SSL/TLS › Edge Certificates"
        }
        ("peers", _) => {
            "those that it calls have to be deployed and well; on one zone, Workers reach each other by service bindings or custom domains, not by routes or workers.dev"
        }
        _ if check.message.contains("digest") => {
            "something else runs than was deployed: `flotilla plan --refresh` tells who changed it, `flotilla deploy` puts it right"
        }
        _ if check.message.contains("secrets") => "`flotilla secrets check` tells what is missing",
        _ if check.message.starts_with("HTTP 404") || check.message.starts_with("no ") => {
            "is it deployed, and does the address lead to it? `flotilla plan --refresh` compares"
        }
        _ => "see its log: `wrangler tail WORKER`",
    }
}
