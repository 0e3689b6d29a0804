//! `flotilla explain`: why a customer's workers are built and deployed, or what a code means, or the list of codes.

use std::collections::BTreeMap;

use serde::Serialize;

use flotilla_build::build::{self, Explained, LiveTriggers, PackBundles, Project, Scan};
use flotilla_build::manifest::{Record, Unit};
use flotilla_model::diagnostic::{Code, Diagnostic, Severity, did_you_mean};
use flotilla_model::explanation::explanation;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::reason::{Reason, sentences};

use super::cloud::CloudArguments;
use super::ui::{Ui, clean, time};
use super::{Format, Session, report};

const CODES: &str = "codes look like S0201; `flotilla explain` lists them";

/// Explains what needs no project: a code, or without an argument the list of them. Nothing, if the argument hasn't the
/// form of a code: then it is a customer.
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

/// Explains a customer: why each of its workers was rendered the last time, and what would have it rendered now.
pub(super) fn customer(session: &Session, subject: &str) -> Result<Exit, Failure> {
    let (project, mut scan) = build::open_and_scan(&session.root, &session.ui).map_err(Failure::invalid)?;
    let of_subject = |record: &Record, _: &Unit| build::id(record) == subject;
    let bundled = build::pack_bundles(&project, &mut scan, &of_subject, &session.ui);
    let Some(record) = scan.records.iter().find(|record| build::id(record) == subject) else {
        let failure = Failure::usage(format!("there is no customer and no code `{subject}`"));
        let ids = scan.records.iter().map(build::id).chain(Code::ALL.iter().map(|code| code.as_str()));
        return Err(match did_you_mean(subject, ids) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("customers are the files of customers/, without `.yaml`; {CODES}")),
        });
    };
    let runtimes = bundled?;
    let of_it = |diagnostic: &&Diagnostic| diagnostic.place.file == record.file();
    let of_file = scan.diagnostics.iter().filter(of_it);
    let diagnostics: Vec<Diagnostic> = scan.part_errors(subject).chain(of_file).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    let held = scan.held.contains(subject);
    let workers = if held { Vec::new() } else { build::explain(&project, &scan, &runtimes, record) };
    let deployed =
        if held { BTreeMap::new() } else { deployments(session, &project, &scan, &runtimes, record, &workers)? };
    session.ui.end();
    match session.format {
        Format::Json => {
            let with_deployed = |worker: &Explained| {
                let mut value = serde_json::to_value(worker).expect("BUG: an explanation is JSON");
                value["deployed"] = serde_json::to_value(deployed.get(&worker.worker)).expect("BUG: and so is this");
                value
            };
            let workers: Vec<_> = workers.iter().map(with_deployed).collect();
            session.json(&serde_json::json!({ "customer": subject, "held": held, "workers": workers }))?;
        }
        Format::Text if held => {
            report::print(&format!("{subject} has errors: its workers stay unchanged, on disk and at Cloudflare"));
        }
        Format::Text => {
            let described = |worker| describe(worker, deployed.get(&worker.worker));
            report::print(&workers.iter().map(described).collect::<Vec<_>>().join("\n\n"));
        }
    }
    Ok(if report::counts(&diagnostics).0 > 0 { Exit::Diagnostics } else { Exit::Done })
}

/// The relation of a deployed worker to what was built.
#[derive(Serialize)]
struct Deployment {
    digest: String,
    at: String,
    /// The reasons why the next deploy uploads it; none if it doesn't.
    #[serde(serialize_with = "sentences")]
    now: Vec<Reason>,
    /// The reason why it is skipped, though something differs.
    held: Option<&'static str>,
}

/// Returns the state of a customer's workers, by their names.
fn deployments(
    session: &Session,
    project: &Project,
    scan: &Scan,
    runtimes: &PackBundles,
    record: &Record,
    workers: &[Explained],
) -> Result<BTreeMap<String, Deployment>, Failure> {
    let (_, _, state) = CloudArguments::default().open(session, &project.fleet)?;
    let hosts = state.hosts_by_worker()?;
    let mut found = BTreeMap::new();
    for (id, live) in state.of_customer(build::id(record))? {
        let Some(built) = workers.iter().find(|worker| worker.worker == id.1).and_then(|worker| worker.digest) else {
            continue;
        };
        let unit = record.units.iter().find_map(|unit| {
            let worker = scan.worker(project, record, unit)?;
            (worker.name == id.1).then_some((unit, worker))
        });
        let mut now: Vec<Reason> = live.drift.iter().cloned().collect();
        if built != live.digest {
            let before = state.stored(&live.digest)?;
            let differs = before.zip(unit).map(|(before, (unit, worker))| {
                let live = LiveTriggers { triggers: live.live.triggers(), hosts: hosts.get(&id).cloned() };
                build::since(project, &worker, &build::recipe(project, runtimes, unit), &before.source, &live)
            });
            let differs = differs.filter(|lines| !lines.is_empty());
            let unknown = || Reason::SourceUnknown { old: live.digest.short(), new: built.short() };
            now.extend(differs.unwrap_or_else(|| vec![unknown()]));
        }
        if state.in_flight_of(&id)?.is_some() {
            now.push(Reason::ChangeInterrupted);
        }
        let rolled_back = (live.rejected == Some(built)).then_some("it was rolled back from this bundle");
        let at = time(live.deployed_at);
        found.insert(id.1, Deployment { digest: live.digest.to_string(), at, now, held: rolled_back });
    }
    Ok(found)
}

fn describe(worker: &Explained, deployed: Option<&Deployment>) -> String {
    let mut lines = vec![format!("{}  ({})", worker.folder, worker.worker)];
    let mut part = |head: String, reasons: &[Reason]| {
        lines.push(format!("  {head}"));
        lines.extend(reasons.iter().map(|reason| format!("    {}", clean(&reason.to_string()))));
    };
    match worker.rendered_at {
        None => part("never rendered, or not in the build cache".to_owned(), &[]),
        Some(at) => part(format!("last rendered at {}, because", time(at)), &worker.last),
    }
    if worker.now.is_empty() {
        part("up to date".to_owned(), &[]);
    } else {
        part("a build would render it, because".to_owned(), &worker.now);
    }
    match deployed {
        None => part("not deployed from here".to_owned(), &[]),
        Some(Deployment { digest, at, now, held }) => {
            part(format!("deployed at {at}: {}", &digest[..16]), &[]);
            match (held, now.is_empty()) {
                (Some(why), _) => part(format!("a deploy skips it unless it is named: {why}"), &[]),
                (None, true) => part("a deploy would not change it".to_owned(), &[]),
                (None, false) => part("a deploy would upload it, because".to_owned(), now),
            }
        }
    }
    part("made from".to_owned(), &[]);
    lines.extend(worker.files.iter().map(|file| format!("    {}", clean(file))));
    lines.extend(worker.digest.map(|digest| format!("  bundle {digest}")));
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

/// Returns whether a subject has the form of a code: one of the letters that codes begin with, and some digits. A
/// customer's id can have that form as well; it is taken as a code then.
fn has_form_of_code(subject: &str) -> bool {
    let Some(letter) = subject.chars().next().filter(char::is_ascii_alphabetic) else { return false };
    let digits = &subject[1..];
    (3..=5).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && Code::ALL.iter().any(|code| code.as_str().starts_with(letter.to_ascii_uppercase()))
}

/// Markdown as people read it in a terminal: examples indented, no marks of emphasis.
fn plain(markdown: &str) -> String {
    let (mut plain, mut fenced) = (String::new(), false);
    for line in markdown.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            plain += &format!("    {line}\n");
        } else {
            plain += &format!("{}\n", line.replace("**", ""));
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
