//! Diagnostics for people: the line, a caret, the help. Masks what might be a secret.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::failure::Failure;

use super::ui::{Style, Ui, clean, clean_lines};
use super::{Format, Session};

/// So many are shown whole; of the others only the number.
const SHOWN: usize = 100;

/// Prints diagnostics to stderr.
pub fn diagnostics(root: &Path, ui: &Ui, diagnostics: &[Diagnostic]) {
    let mut files: HashMap<&str, Vec<String>> = HashMap::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        let file = &diagnostic.place.file;
        let lines = files.entry(file).or_insert_with(|| lines_of(&root.join(file)));
        let (style, word) = match diagnostic.severity {
            Severity::Error => (Style::Error, "error"),
            Severity::Warning => (Style::Warning, "warning"),
        };
        let head = ui.paint(style, &format!("{word}[{}]", diagnostic.code));
        let mut text =
            format!("{head}: {}\n  {} {}", clean(&diagnostic.message), ui.paint(Style::Help, "-->"), diagnostic.place);
        if let Some(line) = diagnostic.place.line.checked_sub(1).and_then(|at| lines.get(at)) {
            text += &excerpt(ui, style, diagnostic, line);
        }
        text += &format!(
            "\n  {} {}",
            ui.paint(Style::Help, "= help:"),
            clean_lines(&diagnostic.help).replace('\n', "\n    ")
        );
        ui.line(&text);
        ui.line("");
    }
    if diagnostics.len() > SHOWN {
        ui.line(&format!("… and {} more; `--format json` has them all", diagnostics.len() - SHOWN));
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= crate::yaml::MAX_BYTES => {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn excerpt(ui: &Ui, style: Style, diagnostic: &Diagnostic, line: &str) -> String {
    let place = &diagnostic.place;
    let masked = mask(line, diagnostic.code == Code::LiteralSecret);
    // A window around the place, so that a line of a megabyte does not flood the screen.
    let from = (place.column - 1).saturating_sub(60);
    let window: String = masked.chars().skip(from).take(140).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let number = place.line.to_string();
    let pad = " ".repeat(number.len());
    let width = place.width.min(window.chars().count().saturating_sub(place.column - 1 - from)).max(1);
    let caret = format!("{}{}", " ".repeat(place.column - 1 - from), "^".repeat(width));
    let bar = ui.paint(Style::Help, "|");
    format!(
        "\n {pad} {bar}\n {} {bar} {}\n {pad} {bar} {}",
        ui.paint(Style::Help, &number),
        clean(&window),
        ui.paint(style, &caret)
    )
}

/// A line with the values hidden that look like secrets: those of keys that are named like one, and all values where
/// a secret is known to stand.
fn mask(line: &str, all: bool) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(colon) = rest.find(": ") {
        let (before, after) = rest.split_at(colon + 2);
        masked += before;
        let key = before[..colon]
            .rsplit(['{', ',', ' ', '-', '"', '\''])
            .find(|word| !word.is_empty())
            .unwrap_or_default()
            .to_lowercase();
        let secret = ["token", "secret", "password", "passwd", "credential", "apikey", "api_key", "private"];
        let value_end = after.find([',', '}']).unwrap_or(after.len());
        let value = after[..value_end].trim();
        let hide = (all || secret.iter().any(|word| key.contains(word)))
            && !value.is_empty()
            && !value.starts_with(['{', '[', '#'])
            // `secret: NAME` is a reference.
            && !(key == "secret" && value.trim_matches(['"', '\'']).chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        if hide {
            masked += &"*".repeat(after[..value_end].trim_end().chars().count().min(8));
            rest = &after[after[..value_end].trim_end().len()..];
        } else {
            rest = after;
        }
    }
    if all && !line.contains(": ") { "********".to_owned() } else { masked + rest }
}

/// Prints what keeps a fleet as a whole from being built; with JSON, as that to stdout, too.
pub fn stopped(session: &Session, found: &[Diagnostic]) -> Result<(), Failure> {
    diagnostics(&session.root, &session.ui, found);
    let (errors, warnings) = counts(found);
    session.ui.line(&format!("{}; nothing was changed", count(errors, "error")));
    match session.format {
        Format::Json => json(&serde_json::json!({"errors": errors, "warnings": warnings, "diagnostics": found})),
        Format::Text => Ok(()),
    }
}

/// `3 errors and 1 warning`.
pub fn counts(diagnostics: &[Diagnostic]) -> (usize, usize) {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    (errors, diagnostics.len() - errors)
}

/// `1 worker`, `2 workers`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Writes a result to stdout. A reader that went away is no error.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes a result as one JSON object, on one line.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(anyhow::Error::from)?;
    print(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_might_be_a_secret_is_masked() {
        assert_eq!(mask("  accessToken: EAAxxxx123", false), "  accessToken: ********");
        assert_eq!(
            mask("settings: { pixelId: \"1\", accessToken: \"EAA\" }", false),
            "settings: { pixelId: \"1\", accessToken: ***** }"
        );
        assert_eq!(mask("token: { secret: TURSO_AUTH_TOKEN }", true), "token: { secret: TURSO_AUTH_TOKEN }");
        assert_eq!(mask("  - EAAxxxx", true), "********");
        assert_eq!(mask("name: Acme", false), "name: Acme");
    }
}
