//! Prints the differences of the platform from the state and the specs, for people.

use flotilla_deploy::refresh::Finding;

use super::report::{self, count};
use super::ui::{Style, Ui, clean};

/// Findings of a kind are shown one by one up to this number, then as a group.
const SHOWN: usize = 12;

/// Findings for people: a few one by one, many of a kind as a group.
pub fn text(ui: &Ui, findings: &[Finding]) -> Vec<String> {
    let mut kinds: Vec<(&str, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        match kinds.iter_mut().find(|(kind, _)| *kind == finding.what.kind()) {
            Some((_, of_kind)) => of_kind.push(finding),
            None => kinds.push((finding.what.kind(), vec![finding])),
        }
    }
    let sign = ui.paint(Style::Warning, "!");
    let mut lines = Vec::new();
    for (kind, of_kind) in kinds {
        if of_kind.len() <= SHOWN {
            lines.extend(of_kind.iter().map(|finding| format!("{sign} {kind}  {}", clean(&finding.text()))));
        } else {
            let examples: Vec<String> = of_kind.iter().take(3).map(|finding| clean(&finding.worker)).collect();
            lines.push(format!("{sign} {kind}  {} ({}, …)", count(of_kind.len(), "time"), examples.join(", ")));
        }
    }
    lines
}

/// Prints findings on stdout.
pub fn print(ui: &Ui, findings: &[Finding]) {
    for line in text(ui, findings) {
        report::print(&line);
    }
}
