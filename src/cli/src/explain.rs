//! `flotilla explain`: why a customer's workers are built and deployed, or what a code means, or the list of codes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use flotilla_build::build::{self, Explained, Project, Scan};
use flotilla_build::manifest::{Record, Unit};
use flotilla_deploy::plan::{Action, HostChange, Plan, Step};
use flotilla_deploy::state::{Deployed, WorkerId};
use flotilla_engine::planning::{PlanRequest, Planned, plan_fleet};
use flotilla_engine::selection::Selection;
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic, Severity, did_you_mean};
use flotilla_model::digest::Digest;
use flotilla_model::explanation::explanation;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::reason::{Reason, with_details};

use super::cloud::CloudArguments;
use super::ui::{Ui, clean, time};
use super::{Format, Session, report};

const CODES: &str = "codes look like S0201; `flotilla explain` lists them";

/// Explains what needs no project: a code, or without an argument the list of them. Nothing, if the argument doesn't have the format of a
/// code: then it is a customer.
pub(super) fn code(ui: &Ui, format: Format, subject: Option<&str>) -> Result<Option<Exit>, Failure> {
    let Some(subject) = subject else { return list(ui, format).map(Some) };
    if !has_form_of_code(subject) {
        return Ok(None);
    }
    let written = subject.to_ascii_uppercase();
    let Some(code) = Code::parse(&written) else {
        let failure = Failure::usage(format!("there is no code `{subject}`"));
        return Err(match did_you_mean(&written, Code::ALL.iter().map(|code| code.as_str())) {
            Some(near) => failure.hint(format!("did you mean `{near}`? {}", CODES)),
            None => failure.hint(CODES),
        });
    };
    let explanation = explanation(code);
    match format {
        Format::Json => report::json(ui, &explanation)?,
        Format::Text => {
            let (severity, text) = (explanation.severity.as_ref(), plain(explanation.markdown));
            report::print(&format!("{code} ({severity})\n\n{text}"));
        }
    }
    Ok(Some(Exit::Done))
}

/// Explains a customer: why each of its workers was rendered the last time, what would have it rendered now, and what a deploy of the
/// fleet would do with it. Builds nothing on disk.
pub(super) fn customer(session: &Session, subject: &str, cloud: &CloudArguments) -> Result<Exit, Failure> {
    let (project, mut scan) = build::open_and_scan(&session.root, &session.ui).map_err(Failure::invalid)?;
    let of_subject = |record: &Record, _: &Unit| build::id(record) == subject;
    let bundled = build::pack_bundles(&project, &mut scan, &of_subject, &session.ui);
    let Some(record) = scan.records.iter().find(|record| build::id(record) == subject) else {
        let failure = Failure::usage(format!("there is no customer and no code `{subject}`"));
        let ids = scan.records.iter().map(build::id).chain(Code::ALL.iter().map(|code| code.as_str()));
        return Err(match did_you_mean(subject, ids) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => {
                failure.hint(format!("a customer's id is the name of its file in customers/, without `.yaml`; {CODES}"))
            }
        });
    };
    let runtimes = bundled?;
    if scan.held.contains(subject) {
        return held(session, &scan, record, subject);
    }
    let workers = build::explain(&project, &scan, &runtimes, record);
    let planned = planned(session, subject, cloud)?;
    let (_, _, state) = cloud.open(session, &project.fleet)?;
    let deployed: BTreeMap<WorkerId, Deployed> = state.of_customer(subject)?.into_iter().collect();
    session.ui.end();
    let mut explained = Vec::new();
    for unit in &record.units {
        let Some(worker) = scan.worker(&project, record, unit) else { continue };
        let Some(rendering) = workers.iter().find(|explained| explained.folder == worker.folder()) else { continue };
        let id = (planned.cloud.home(&worker.account, worker.namespace.as_deref()), worker.name.clone());
        let deployment = deployed.get(&id).map(Deployment::of);
        explained.push(Explanation { rendering, deployed: deployment, next: Next::of(&planned.plan, &worker, &id) });
    }
    let defined: BTreeSet<&str> = explained.iter().map(|worker| worker.rendering.worker.as_str()).collect();
    let orphaned: Vec<&str> =
        deployed.keys().map(|(_, name)| name.as_str()).filter(|name| !defined.contains(name)).collect();
    match session.format {
        Format::Json => session.json(&serde_json::json!({
            "customer": subject, "held": false, "workers": explained, "orphaned": orphaned
        }))?,
        Format::Text => {
            let mut blocks: Vec<String> = explained.iter().map(describe).collect();
            blocks.extend(orphaned.iter().map(|name| {
                format!("{}\n  deployed, and no spec defines it: `flotilla prune` deletes it", clean(name))
            }));
            report::print(&blocks.join("\n\n"));
            let unknown = planned.cloud.unknown(explained_accounts(&project, &scan, record));
            if !unknown.is_empty() {
                let names = unknown.join(", ");
                report::print(&format!("\nthe id of {names} is not set, so its workers are shown as not deployed"));
            }
        }
    }
    Ok(if planned.has_errors() { Exit::Diagnostics } else { Exit::Done })
}

/// Reports a customer with errors.
fn held(session: &Session, scan: &Scan, record: &Record, subject: &str) -> Result<Exit, Failure> {
    let of_it = |diagnostic: &&Diagnostic| diagnostic.place.file == record.file();
    let of_file = scan.diagnostics.iter().filter(of_it);
    let diagnostics: Vec<Diagnostic> = scan.part_errors(subject).chain(of_file).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    session.ui.end();
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "customer": subject, "held": true, "workers": [] }))?,
        Format::Text => {
            report::print(&format!("{subject} has errors: its workers stay unchanged, on disk and at Cloudflare"));
        }
    }
    Ok(Exit::Diagnostics)
}

/// Plans the customer as a deploy of the fleet would, from files that are built in memory.
fn planned(session: &Session, subject: &str, cloud: &CloudArguments) -> Result<Planned, Failure> {
    let selection = Selection::new(vec![subject.to_owned()], Vec::new(), Vec::new(), None).as_unnamed();
    let request = PlanRequest { selection, cloud: cloud.options(), dry_build: true, ..PlanRequest::default() };
    plan_fleet(&session.context(), &request)
}

/// Returns the accounts of a customer's workers.
fn explained_accounts<'a>(project: &'a Project, scan: &Scan, record: &Record) -> BTreeSet<&'a str> {
    let workers = record.units.iter().filter_map(|unit| scan.worker(project, record, unit));
    let names: BTreeSet<String> = workers.map(|worker| worker.account).collect();
    project.fleet.accounts.keys().map(String::as_str).filter(|name| names.contains(*name)).collect()
}

/// Everything about one worker.
#[derive(Serialize)]
struct Explanation<'a> {
    #[serde(flatten)]
    rendering: &'a Explained,
    /// The deployed bundle; none if it isn't deployed.
    deployed: Option<Deployment>,
    /// The action of a deploy.
    #[serde(rename = "deploy")]
    next: Next<'a>,
}

/// The deployed bundle of a worker.
#[derive(Serialize)]
struct Deployment {
    digest: String,
    at: String,
}

impl Deployment {
    fn of(deployed: &Deployed) -> Deployment {
        Deployment { digest: deployed.digest.to_string(), at: time(deployed.deployed_at) }
    }
}

/// The action of a deploy of the fleet on a worker, as the plan says.
#[derive(Serialize)]
struct Next<'a> {
    /// `create`, `update`, `skip` or `none`.
    action: &'static str,
    #[serde(flatten, serialize_with = "with_details")]
    reasons: &'a [Reason],
    /// Whether the worker is uploaded: otherwise only its domains, routes, crons or its workers.dev address change.
    upload: bool,
    /// The reasons why it is skipped.
    held: BTreeSet<&'a str>,
    /// The hosts of its dispatch namespace that are to point to it, or no longer.
    hosts: Vec<&'a HostChange>,
    /// The digest of its bundle afterwards.
    digest: Option<Digest>,
}

impl<'a> Next<'a> {
    fn of(plan: &'a Plan, worker: &Worker, id: &WorkerId) -> Next<'a> {
        let is_its = |change: &&HostChange| {
            let mut names = [&change.from, &change.to].into_iter().flatten();
            change.home == id.0 && names.any(|name| *name == worker.name)
        };
        let hosts: Vec<&HostChange> = plan.hosts.iter().filter(is_its).collect();
        if let Some(change) = plan.changes.iter().find(|change| change.home == id.0 && change.worker == id.1) {
            let (upload, digest) = (change.steps.contains(&Step::Upload), Some(change.digest));
            let action = match change.action {
                Action::Create => "create",
                Action::Update => "update",
                Action::Delete => "delete",
            };
            return Next { action, reasons: &change.reasons, upload, held: BTreeSet::new(), hosts, digest };
        }
        let held = plan.held.iter().filter(|held| {
            held.customer == worker.customer
                && held.environment.is_none_or(|environment| environment == worker.environment)
                && held.worker.as_ref().is_none_or(|name| *name == worker.name)
        });
        let held: BTreeSet<&str> = held.map(|held| held.reason.as_str()).collect();
        let action = if !held.is_empty() {
            "skip"
        } else if hosts.is_empty() {
            "none"
        } else {
            "update"
        };
        Next { action, reasons: &[], upload: false, held, hosts, digest: None }
    }

    /// Returns the line that shows what a deploy would do.
    fn head(&self) -> String {
        match self.action {
            "none" => "a deploy would not change it".to_owned(),
            "skip" => {
                let reasons: Vec<String> = self.held.iter().map(|reason| clean(reason)).collect();
                format!("a deploy would skip it: {}", reasons.join("; "))
            }
            "create" => "a deploy would create it, because".to_owned(),
            "delete" => "a deploy would delete it, because".to_owned(),
            _ if self.upload => "a deploy would upload it, because".to_owned(),
            _ => "a deploy would change it without an upload, because".to_owned(),
        }
    }

    /// Returns what changes, line by line.
    fn lines(&self) -> impl Iterator<Item = String> {
        let reasons = self.reasons.iter().map(|reason| clean(&reason.to_string()));
        let hosts = self.hosts.iter().map(|change| match &change.to {
            Some(to) => clean(&format!("host {} → {to}", change.host)),
            None => clean(&format!("host {} points to no worker any more", change.host)),
        });
        reasons.chain(hosts)
    }
}

fn describe(Explanation { rendering, deployed, next }: &Explanation<'_>) -> String {
    let mut lines = vec![format!("{}  ({})", rendering.folder, rendering.worker)];
    let mut part = |head: String, reasons: &[Reason]| {
        lines.push(format!("  {head}"));
        lines.extend(reasons.iter().map(|reason| format!("    {}", clean(&reason.to_string()))));
    };
    match rendering.rendered_at {
        None => part("never rendered, or not in the build cache".to_owned(), &[]),
        Some(at) => part(format!("last rendered at {}, because", time(at)), &rendering.last),
    }
    if rendering.now.is_empty() {
        part("out/ is up to date".to_owned(), &[]);
    } else {
        part("a build would render it, because".to_owned(), &rendering.now);
    }
    match deployed {
        None => part("not deployed".to_owned(), &[]),
        Some(Deployment { digest, at }) => part(format!("deployed at {at}: {}", &digest[..16]), &[]),
    }
    lines.push(format!("  {}", next.head()));
    lines.extend(next.lines().map(|line| format!("    {line}")));
    lines.push("  built from".to_owned());
    lines.extend(rendering.files.iter().map(|file| format!("    {}", clean(file))));
    lines.extend(next.digest.or(rendering.digest).map(|digest| format!("  bundle {digest}")));
    lines.join("\n")
}

fn list(ui: &Ui, format: Format) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Line {
        code: Code,
        severity: Severity,
        meaning: &'static str,
    }
    let line = |code: &Code| Line { code: *code, severity: code.severity(), meaning: code.meaning() };
    let lines: Vec<Line> = Code::ALL.iter().map(line).collect();
    match format {
        Format::Json => report::json(ui, &serde_json::json!({ "codes": lines }))?,
        Format::Text => {
            let line = |line: &Line| format!("{}  {:7}  {}", line.code, line.severity.as_ref(), line.meaning);
            report::print(&lines.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(Exit::Done)
}

/// Returns whether a subject has the format of a code: one of the letters that codes begin with, and some digits. A customer's id can have
/// that form as well; it is taken as a code then.
fn has_form_of_code(subject: &str) -> bool {
    let Some(letter) = subject.chars().next().filter(char::is_ascii_alphabetic) else { return false };
    let digits = &subject[1..];
    (3..=5).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && Code::ALL.iter().any(|code| code.as_str().starts_with(letter.to_ascii_uppercase()))
}

/// Markdown as plain text for a terminal: indented examples, no emphasis.
fn plain(markdown: &str) -> String {
    let (mut plain, mut fenced) = (String::new(), false);
    for line in markdown.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            plain += &format!("    {line}\n");
        } else {
            // Asterisks in code are what they are.
            let parts = line.split('`').enumerate();
            let parts = parts.map(|(at, part)| if at % 2 == 0 { part.replace("**", "") } else { part.to_owned() });
            plain += &format!("{}\n", parts.collect::<Vec<_>>().join("`"));
        }
    }
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_from_customers() {
        for code in ["S0201", "s0201", "Y01", "n309", "p06055"] {
            assert_eq!(has_form_of_code(code), code != "Y01", "{code}");
        }
        for customer in ["acme", "acme-2", "x0201", "s-0201", "4711", "é0201", "", "shop0201"] {
            assert!(!has_form_of_code(customer), "{customer}");
        }
    }

    #[test]
    fn markdown_becomes_text() {
        assert_eq!(
            plain("A `b`.\n\n**Why:** c\n\n```yaml\n# f\nid: **\n```\n"),
            "A `b`.\n\nWhy: c\n\n    # f\n    id: **"
        );
    }
}
