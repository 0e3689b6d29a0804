//! `flotilla verify`, and the verification of `deploy --verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use flotilla_deploy::verify::{Check, Report, Status};
use flotilla_engine::verification::{Results, VerifyOptions, verify_fleet};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text::and_more;

use super::cloud::CustomersArguments;
use super::report::{self, count};
use super::status::unknown_accounts;
use super::table::{Cell, Column, Fit, Table};
use super::ui::{Style, Ui, clean, duration};
use super::{Format, Session, junit, stdout};

/// The number of failures that are printed with advice.
const TOLD: usize = 50;
/// The number of healthy workers that are shown.
const ROWS: usize = 100;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    customers: CustomersArguments,
    #[command(flatten)]
    verification: VerifyArguments,
}

/// How workers are asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct VerifyArguments {
    /// Seconds to keep retrying failed checks; 0 checks once [default: 60]
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl VerifyArguments {
    /// Returns the engine's options.
    pub(super) fn options(&self) -> VerifyOptions {
        VerifyOptions { deadline: self.deadline.map(Duration::from_secs) }
    }

    /// The first of its options that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let deadline = self.deadline.map(|_| "--deadline");
        deadline.or(self.junit.as_ref().map(|_| "--junit"))
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let CustomersArguments { selection, cloud } = &arguments.customers;
    let (cloud, options) = (cloud.options(), arguments.verification.options());
    let results = verify_fleet(&session.context(), selection, &cloud, &options)?;
    write_junit(&arguments.verification, &results);
    match session.format {
        Format::Json => session.json(&results)?,
        Format::Text => report::print(&text(&session.ui, &results)),
    }
    let unknown = unknown_accounts(&results.unknown_accounts.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some(failure) = &unknown {
        session.ui.failure(failure);
    }
    Ok(match (results.failed, results.has_errors || unknown.is_some()) {
        (1.., _) => Exit::SomeFailed,
        (0, true) => Exit::Diagnostics,
        (0, false) => Exit::Done,
    })
}

/// Writes the results as JUnit XML, if a file for it was named.
pub(super) fn write_junit(verification: &VerifyArguments, results: &Results) {
    let Some(path) = &verification.junit else { return };
    let document = junit::document(&results.workers, results.seconds);
    let written = AtomicFile::new(path).keep_permissions().follow_link().write(document.as_bytes());
    if let Err(error) = written {
        stdout::keep_error(&format!("{} can't be written", path.display()), &error);
    }
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
        // Unhealthy workers are shown in any case.
        if report.status == Status::Failed || shown.len() < ROWS { shown.push(report) } else { left += 1 }
    }
    let mut head = vec![Column::new("worker", Fit::Name), Column::new("address", Fit::Whole(2))];
    head.extend(columns.iter().map(|name| Column::new(name, Fit::Whole(1))));
    let mut table = Table::new(&head);
    for report in &shown {
        let address = report.address.as_deref().unwrap_or("none");
        let cells = columns.iter().map(|column| match word(report, column) {
            word @ "failed" => Cell::styled(word, Style::Error),
            word @ "ok" => Cell::styled(word, Style::Good),
            word @ "ends soon" => Cell::styled(word, Style::Warning),
            word => Cell::from(word),
        });
        table.row([clean(&report.worker), clean(address)].map(Cell::from).into_iter().chain(cells));
    }
    let mut lines = table.lines(ui, stdout::columns());
    if left > 0 {
        lines.push(format!("… and {} that passed", count(left, "worker")));
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

/// Returns the text of a cell: the worst of the checks of that name.
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

/// Returns what failed or will soon, with advice; and once, why something wasn't checked.
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
        lines.push(format!("  {}: `--json` shows all", and_more(more)));
    }
    lines.extend(not_checked(&results.workers));
    lines
}

/// Returns what wasn't checked of how many workers, by reason.
fn not_checked(reports: &[Report]) -> Vec<String> {
    let mut reasons: BTreeMap<(&str, BTreeSet<&str>), usize> = BTreeMap::new();
    // Where something failed, that is the reason.
    for report in reports.iter().filter(|report| report.status != Status::Failed) {
        let whole = report.not_requested.as_deref();
        if let Some(why) = whole {
            *reasons.entry((why, BTreeSet::new())).or_default() += 1;
        }
        let mut parts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for check in report.checks.iter().filter(|check| check.status == Status::Skipped) {
            let why = check.message.as_str();
            if !why.is_empty() && whole != Some(why) {
                parts.entry(why).or_default().insert(&check.name);
            }
        }
        parts.into_iter().for_each(|part| *reasons.entry(part).or_default() += 1);
    }
    let line = |((why, names), workers): ((&str, BTreeSet<&str>), usize)| {
        let names: Vec<String> = names.into_iter().map(clean).collect();
        let what = if names.is_empty() { String::new() } else { format!("{} of ", names.join(" and ")) };
        format!("not checked: {what}{}: {}", count(workers, "worker"), clean(why))
    };
    reasons.into_iter().map(line).collect()
}

/// Returns whether a check reports a value of its own that no digest has, instead of another digest.
fn is_no_digest(message: &str) -> bool {
    let value = message.strip_prefix("digest is ").and_then(|rest| rest.split_once(", not "));
    value.is_some_and(|(value, _)| value.len() != 16 || !value.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Returns advice on a check that failed.
fn advice(check: &Check) -> &'static str {
    match (check.name.as_str(), check.status) {
        ("dns", _) => {
            "a new custom domain takes a minute or two; a route needs a proxied DNS record; is the zone active, and are its name servers Cloudflare's?"
        }
        ("tls", Status::Warning) => {
            "Cloudflare renews certificates 30 days before their end: see SSL/TLS › Edge Certificates of the zone"
        }
        ("tls", _) => {
            "a new certificate takes a few minutes; the universal one covers the zone and one level below it: see SSL/TLS › Edge Certificates"
        }
        ("peers", _) => {
            "the workers that it calls must be deployed and healthy; on one zone, Workers reach each other by service bindings or custom domains, not by routes or workers.dev"
        }
        _ if check.message.contains("FLOTILLA_DIGEST") || is_no_digest(&check.message) => {
            "return `env.FLOTILLA_DIGEST` there in the pack's code, or remove the digest from the probe in pack.yaml: another deploy of the same code gives the same result"
        }
        _ if check.message.contains("digest") => {
            "the worker runs something other than what was deployed: `flotilla plan --refresh` shows who changed it, `flotilla deploy` deploys it again"
        }
        _ if check.message.contains("secrets") => "`flotilla secrets check` shows what is missing",
        _ if check.message.starts_with("HTTP 404") || check.message.starts_with("no ") => {
            "check that it is deployed and that the address points to it: `flotilla plan --refresh` compares"
        }
        _ => "see its logs: `npx wrangler tail WORKER`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_checked_is_told_once_for_each_reason() {
        let check = |name: &str, of: &str, status: Status, message: &str| {
            let (name, of, message) = (name.to_owned(), of.to_owned(), message.to_owned());
            Check { name, of, status, seconds: 0.0, message }
        };
        let report = |status: Status, why: Option<&str>, checks: Vec<Check>| Report {
            customer: "acme".to_owned(),
            environment: flotilla_model::spec::Environment::Production,
            worker: "web-acme".to_owned(),
            address: None,
            status,
            not_requested: why.map(str::to_owned),
            checks,
        };
        let hosts = || {
            vec![
                check("dns", "a.example", Status::Skipped, "there is no DNS"),
                check("tls", "a.example", Status::Skipped, "there is no DNS"),
            ]
        };
        let undeployed = vec![check("health", "/health", Status::Skipped, "not deployed")];
        let healthy = [hosts(), vec![check("health", "/health", Status::Passed, "")]].concat();
        let reports = [
            report(Status::Skipped, Some("no request is defined"), hosts()),
            report(Status::Skipped, Some("no request is defined"), Vec::new()),
            report(Status::Skipped, Some("not deployed"), undeployed),
            report(Status::Passed, None, healthy.clone()),
            report(Status::Failed, None, healthy),
        ];
        assert_eq!(
            not_checked(&reports),
            [
                "not checked: 2 workers: no request is defined",
                "not checked: 1 worker: not deployed",
                "not checked: dns and tls of 2 workers: there is no DNS",
            ]
        );
    }

    #[test]
    fn code_that_shows_no_digest_is_not_taken_for_another_deploy() {
        let advice = |message: &str| {
            let (name, of, message) = ("health".to_owned(), "/health".to_owned(), message.to_owned());
            super::advice(&Check { name, of, status: Status::Failed, seconds: 0.0, message })
        };
        for message in [
            "digest is missing: the worker's code doesn't return FLOTILLA_DIGEST there",
            "digest is dev, not 0123456789abcdef",
            "digest is 7, not 0123456789abcdef",
        ] {
            assert!(advice(message).starts_with("return `env.FLOTILLA_DIGEST` there"), "{message}");
        }
        let other = advice("digest is 0123456789abcdef, not fedcba9876543210");
        assert!(other.starts_with("the worker runs something other than what was deployed"), "{other}");
    }
}
