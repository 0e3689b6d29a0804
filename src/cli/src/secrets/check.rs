//! `flotilla secrets check`.

use std::collections::BTreeSet;

use serde::Serialize;

use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::{Diagnostic, Severity};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::names::own_secret;
use flotilla_model::service_key;
use flotilla_model::spec::AccountId;
use flotilla_model::text::and_more;
use flotilla_model::text::grouped;

use super::super::cloud::CustomersArguments;
use super::super::report::{self, count};
use super::super::ui::{Style, clean};
use super::super::{Format, Session};
use super::{Needs, Opened, open};

/// The number that is listed of a kind, for people.
const TOLD: usize = 50;

/// A secret that an upload would need, and that has no value here.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Missing {
    name: String,
    customer: String,
    environment: String,
    worker: String,
    why: String,
}

/// A value that no binding takes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct TooLarge {
    name: String,
    customer: String,
    environment: String,
    bytes: usize,
    limit: u64,
}

/// A value that nothing needs.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Unused {
    name: String,
    file: String,
}

#[derive(Serialize)]
struct Closed {
    source: String,
    why: String,
}

#[derive(Serialize)]
struct Report {
    secrets: usize,
    workers: usize,
    missing: BTreeSet<Missing>,
    too_large: BTreeSet<TooLarge>,
    unused: BTreeSet<Unused>,
    closed: Vec<Closed>,
    /// The customers with errors: what they need isn't known.
    invalid: Vec<String>,
}

pub(super) fn run(session: &Session, arguments: &CustomersArguments) -> Result<Exit, Failure> {
    let mut opened = open(session, &arguments.cloud)?;
    let (loaded, selection) = (&mut opened.loaded, &arguments.selection);
    selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    let loaded = &opened.loaded;
    let needs = opened.needs(session, |worker| selection.includes(worker))?;
    // If the needs are unknown, nothing can be reported as unused.
    let whole = selection.is_all() && loaded.scan.held.is_empty();
    let is_selected = |found: &&Diagnostic| found.severity == Severity::Error && selection.concerns(found);
    let errors: Vec<Diagnostic> = loaded.scan.diagnostics.iter().filter(is_selected).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &errors);
    let invalid = loaded.scan.held.iter().filter(|id| *id != SHARED && selection.includes_id(id));
    let closed = opened.secrets.closed().into_iter().map(|(source, why)| Closed { source, why });
    let report = Report {
        secrets: needs.iter().map(|needs| needs.rows.len()).sum(),
        workers: needs.iter().filter(|needs| !needs.rows.is_empty()).count(),
        missing: needs.iter().flat_map(missing).collect(),
        too_large: needs.iter().flat_map(too_large).collect(),
        unused: if whole { unused(&opened) } else { BTreeSet::new() },
        closed: closed.collect(),
        invalid: invalid.cloned().collect(),
    };
    let is_fine = report.missing.is_empty() && report.too_large.is_empty() && errors.is_empty();
    let exit = if is_fine && report.invalid.is_empty() { Exit::Done } else { Exit::Diagnostics };
    if session.format == Format::Json {
        session.json(&report)?;
        return Ok(exit);
    }
    let print = |style, word: &str, lines: Vec<String>| {
        for line in lines.iter().take(TOLD) {
            session.ui.line(&format!("{} {}", session.ui.paint(style, word), clean(line)));
        }
        if lines.len() > TOLD {
            session.ui.line(&format!("{}; --json shows all", and_more(lines.len() - TOLD)));
        }
    };
    let lines = report.closed.iter().map(|closed| format!("{}: {}", closed.source, closed.why));
    print(Style::Warning, "unavailable:", lines.collect());
    let lines = report.missing.iter().map(|Missing { name, customer, environment, why, .. }| {
        format!("{} for {customer} ({environment}): {why}", service_key::wanted(customer, name))
    });
    print(Style::Error, "missing:", lines.collect());
    let lines = report.too_large.iter().map(|TooLarge { name, customer, environment, bytes, limit }| {
        format!(
            "{name} for {customer} ({environment}) has {} bytes, but the limit is {}",
            grouped(*bytes as u64),
            grouped(*limit)
        )
    });
    print(Style::Error, "too large:", lines.collect());
    let lines = report.unused.iter().map(|Unused { name, file }| format!("{name} in {file}"));
    print(Style::Warning, "unused:", lines.collect());
    let of = |number: usize, word: &str| if number > 0 { format!(", {number} {word}") } else { String::new() };
    let left_out = match report.invalid.len() {
        0 => String::new(),
        number => format!(" · {} with errors, not checked", count(number, "customer")),
    };
    report::print(&format!(
        "checked {} of {}: {} missing{}{}{left_out}",
        count(report.secrets, "secret"),
        count(report.workers, "worker"),
        report.missing.len(),
        of(report.too_large.len(), "too large"),
        of(report.unused.len(), "unused"),
    ));
    Ok(exit)
}

fn missing(needs: &Needs) -> Vec<Missing> {
    let Some(missing) = &needs.missing else { return Vec::new() };
    let rows = needs.rows.iter().filter(|row| row.source.is_none() && missing.names.contains(&row.name));
    let found = rows.map(|row| Missing {
        name: row.name.clone(),
        customer: row.customer.clone(),
        environment: row.environment.to_string(),
        worker: row.worker.clone(),
        why: match &row.hidden {
            Some(hidden) => hidden.clone(),
            None if row.deployed => {
                let removed: Vec<&str> = missing.removed.iter().map(String::as_str).collect();
                format!(
                    "it is deployed, but {} is removed, so all other secrets have to be sent again",
                    removed.join(", ")
                )
            }
            None => "not found in any source".to_owned(),
        },
    });
    found.collect()
}

fn too_large(needs: &Needs) -> Vec<TooLarge> {
    let large = needs.rows.iter().filter(|row| row.bytes as u64 > row.most);
    let found = large.map(|row| TooLarge {
        name: row.found_as.clone().unwrap_or_default(),
        customer: row.customer.clone(),
        environment: row.environment.to_string(),
        bytes: row.bytes,
        limit: row.most,
    });
    found.collect()
}

/// The names in the files that were read which no worker needs, and no account.
fn unused(opened: &Opened) -> BTreeSet<Unused> {
    let loaded = &opened.loaded;
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for worker in &loaded.workers {
        for name in worker.secrets.values() {
            needed.insert(own_secret(&worker.customer, name));
            needed.insert(name.clone());
        }
    }
    for account in loaded.project.fleet.accounts.values() {
        needed.insert(account.token.secret.clone());
        if let AccountId::Variable { env } = &account.id {
            needed.insert(env.clone());
        }
    }
    let sources = loaded.project.fleet.file.secrets.iter().flatten();
    needed.extend(sources.filter_map(|source| source.identity.as_ref()?.env.clone()));
    // What these programs read themselves.
    let of_tools = |name: &str| name.starts_with("CLOUDFLARE_") || name.starts_with("FLOTILLA_");
    let mut unused = BTreeSet::new();
    for (file, names) in opened.secrets.names() {
        let others = names.into_iter().filter(|name| !needed.contains(name) && !of_tools(name));
        unused.extend(others.map(|name| Unused { name, file: file.clone() }));
    }
    unused
}
