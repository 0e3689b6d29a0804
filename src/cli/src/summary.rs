//! The summary of a command in Markdown: for a CI job's summary, to which it is appended. The only place that writes
//! Markdown about a run; text from files is escaped.

use std::path::Path;

use flotilla_deploy::deploy::Outcome;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text::and_more;
use flotilla_model::text::grouped;

use super::grouping::groups;
use super::report::{self, count, found};
use super::ui::{clean, duration};
use super::{Format, Session, stdout};

/// The largest number of rows of diagnostics.
const ROWS: usize = 50;

/// The largest number of characters of a message.
const LONGEST: usize = 300;

/// Returns the summary of `check`.
pub fn check(customers: usize, diagnostics: &[Diagnostic], suppressed: usize) -> String {
    let mut figures = vec![count(customers, "customer")];
    if suppressed > 0 {
        figures.push(format!("{} suppressed", grouped(suppressed as u64)));
    }
    page("flotilla check", &found(diagnostics), &figures, diagnostics)
}

/// Returns the summary of `build`; `figures` are such as `12 files written`.
pub fn build(figures: &[String], diagnostics: &[Diagnostic]) -> String {
    page("flotilla build", &found(diagnostics), figures, diagnostics)
}

/// Returns the summary of a command that applies a plan.
pub fn applied(command: &str, outcome: &Outcome) -> String {
    let number = |number: usize| grouped(number as u64);
    let (applied, failed, skipped) = (number(outcome.applied), number(outcome.failed), number(outcome.skipped));
    let mut figures = vec![format!("{} requests", grouped(outcome.requests)), duration(outcome.seconds)];
    let others = [
        (outcome.retries, "repeated"),
        (outcome.throttled, "throttled"),
        (outcome.overtaken as u64, "overtaken by another deploy"),
        (outcome.unhealthy as u64, "unhealthy"),
    ];
    figures.extend(
        others.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{} {what}", grouped(*number))),
    );
    let mut page = format!(
        "### {command}: {applied} applied, {failed} failed, {skipped} not attempted\n\n{}\n",
        figures.join(" · ")
    );
    if let Some(why) = &outcome.halted {
        page += &format!("\nHalted: {}\n", text(why));
    }
    if !outcome.failures.is_empty() {
        page += "\n| worker | customer | why |\n|---|---|---|\n";
        for failed in outcome.failures.iter().take(ROWS) {
            page += &format!("| {} | {} | {} |\n", text(&failed.worker), text(&failed.customer), text(&failed.error));
        }
        if outcome.failures.len() > ROWS {
            page += &format!("\n{}\n", and_more(outcome.failures.len() - ROWS));
        }
    }
    for step in outcome.next_steps() {
        page += &format!("\nNext: {}.\n", step.text());
    }
    page
}

/// Returns a command's result; a failure is added to the summary, too.
pub(super) fn of(command: &str, session: &Session, result: Result<Exit, Failure>) -> Result<Exit, Failure> {
    // What a fleet's own errors are is reported with them.
    if let Err(error) = &result
        && error.diagnostics.is_empty()
    {
        append(session.summary.as_deref(), &failure(command, error));
    }
    result
}

/// Reports a result whose failure is the errors in the fleet's files: the errors themselves; with JSON, on stdout, too. Other results stay
/// as they are.
pub(super) fn report_invalid(session: &Session, result: Result<Exit, Failure>) -> Result<Exit, Failure> {
    let found = match result {
        Err(failure) if !failure.diagnostics.is_empty() => failure.diagnostics,
        other => return other,
    };
    report::diagnostics(&session.root, &session.ui, &found);
    let (errors, warnings) = report::counts(&found);
    let text = format!("{}; nothing was changed", count(errors, "error"));
    session.ui.line(&text);
    append(session.summary.as_deref(), &build(&["nothing was changed".to_owned()], &found));
    if session.format == Format::Json {
        session.json(&serde_json::json!({
            "error": text, "errors": errors, "warnings": warnings, "diagnostics": found
        }))?;
    }
    Ok(Exit::Diagnostics)
}

/// Returns the summary of a failure.
fn failure(command: &str, failure: &Failure) -> String {
    let mut page = format!("### {command} failed\n\n{}\n", text(&failure.to_string()));
    let lines: Vec<&str> = failure.hints.iter().flat_map(|hint| hint.lines()).collect();
    if !lines.is_empty() {
        page.push('\n');
    }
    for line in lines.iter().take(ROWS) {
        page += &format!("- {}\n", text(line));
    }
    if lines.len() > ROWS {
        page += &format!("- {}\n", and_more(lines.len() - ROWS));
    }
    page
}

/// Appends a page to a file. Nothing to do without a file. An error makes the command fail at its end.
pub fn append(file: Option<&Path>, page: &str) {
    if let Some(file) = file {
        // Whatever is before it ends with an empty line, or would take the heading in.
        stdout::append("the summary", file, format!("\n{page}\n").as_bytes());
    }
}

fn page(command: &str, found: &str, figures: &[String], diagnostics: &[Diagnostic]) -> String {
    let mut page = format!("### {command}: {found}\n\n{}\n", figures.join(" · "));
    if diagnostics.is_empty() {
        return page;
    }
    page += "\n| | code | number | first at | message |\n|---|---|---:|---|---|\n";
    let groups = groups(diagnostics);
    for group in groups.iter().take(ROWS) {
        let Diagnostic { code, severity, message, place, help, .. } = group.first();
        let (word, place) = (severity.as_ref(), text(&place.to_string()));
        let often = grouped(group.members.len() as u64);
        page += &format!("| {word} | {code} | {often} | {place} | {}<br>{} |\n", text(message), text(help));
    }
    if groups.len() > ROWS {
        page += &format!("\n… and {} kinds more\n", grouped((groups.len() - ROWS) as u64));
    }
    page + "\n`flotilla explain CODE` explains a code and how to fix it.\n"
}

/// Text of a file as text: no character of it is Markdown, HTML, a mention or the beginning of an address.
pub(super) fn text(text: &str) -> String {
    boxed(text, LONGEST)
}

/// The same, with a maximum number of characters.
pub(super) fn boxed(text: &str, longest: usize) -> String {
    let short: String = text.chars().take(longest).collect();
    let mut safe = String::from("<code>");
    for c in clean(&short).chars() {
        let plain = !c.is_ascii() || c.is_ascii_alphanumeric() || " ,-/(){}='\"%+?;^".contains(c);
        if plain || (c == '.' && !safe.get(safe.len() - 3..).is_some_and(|before| before.eq_ignore_ascii_case("www"))) {
            safe.push(c);
        } else {
            safe += &format!("&#{};", u32::from(c));
        }
    }
    if text.chars().nth(longest).is_some() {
        safe.push('…');
    }
    safe + "</code>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_deploy::deploy::{Failed, NextStep};
    use flotilla_model::diagnostic::{Code, Place};

    #[test]
    fn hostile_text_marks_nothing_up() {
        let hostile = "a|b `c` </code><img src=x onerror=alert(1)> [d](https://e) **f** WWW.g.h @g #1 :h: \\ & &lt; $i$ _j_ ~k~\n\r\x1b[31m";
        let diagnostic =
            Diagnostic::error(Code::UnknownKey, Place::file(&format!("customers/{hostile}.yaml")), hostile, hostile);
        let page = check(1, &[diagnostic], 2);
        let row = page.lines().find(|line| line.starts_with("| error")).expect("a row");
        assert_eq!(row.matches('|').count(), 6, "{row}");
        assert_eq!((row.matches("<code>").count(), row.matches("</code>").count()), (3, 3), "{row}");
        let inner = row.replace("<code>", "").replace("</code>", "").replace("<br>", "");
        let inner = inner.trim_start_matches("| error | S0201 | 1 | ");
        for c in "`<>[]*@:\\$_~!\u{1b}".chars() {
            assert!(!inner.contains(c), "{c} in {row}");
        }
        assert!(!inner.contains("WWW."), "{row}");
        assert!(page.starts_with("### flotilla check: 1 error\n\n1 customer · 2 suppressed\n"), "{page}");
    }

    #[test]
    fn a_deploy_is_told_with_its_failures_and_they_mark_nothing_up() {
        let failed = |at: usize| Failed {
            worker: format!("t-{at}"),
            customer: "a|b".to_owned(),
            error: "<script>`x`\n# ".repeat(500),
            next_step: NextStep::Input,
        };
        let mut outcome = Outcome { applied: 1200, failed: 99, requests: 1400, retries: 2, ..Outcome::default() };
        outcome.failures = (0..99).map(failed).collect();
        outcome.halted = Some("10 of <them>".to_owned());
        let page = applied("flotilla deploy", &outcome);
        assert!(page.starts_with(
            "### flotilla deploy: 1,200 applied, 99 failed, 0 not attempted\n\n1,400 requests · 0.0 s · 2 repeated\n"
        ));
        assert!(
            page.contains("\nHalted: <code>10 of &#60;them&#62;</code>\n") && page.contains("… and 49 more"),
            "{page}"
        );
        assert!(page.len() < 128 << 10 && !page.contains("<script"), "{}", page.len());
        assert_eq!(page.lines().filter(|line| line.starts_with("| <code>")).count(), ROWS);
        let page = failure("flotilla deploy", &Failure::refused("a <b>").hint("c\n# d".repeat(100)));
        assert!(page.contains("<code>a &#60;b&#62;</code>") && page.contains("- … and 51 more"), "{page}");
        assert_eq!(page.lines().filter(|line| line.starts_with('#')).count(), 1);
    }

    #[test]
    fn a_page_is_bounded() {
        let message = "x".repeat(10_000);
        let diagnostic = |at: usize| {
            let code = Code::ALL[at % Code::ALL.len()];
            let place = Place::file(&format!("customers/c{at}.yaml"));
            let message = format!("{message}{}", "y".repeat(at / Code::ALL.len()));
            Diagnostic { code, ..Diagnostic::error(Code::UnknownKey, place, message, "fix it") }
        };
        let page = check(1000, &(0..1000).map(diagnostic).collect::<Vec<_>>(), 0);
        assert!(page.len() < 64 << 10, "{}", page.len());
        assert!(page.contains("kinds more"), "{page}");
    }
}
