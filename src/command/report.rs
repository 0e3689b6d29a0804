//! Diagnostics for people: the line, a caret, the help. Masks what might be a secret.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::failure::Failure;

use super::timings::Timing;
use super::ui::{Style, Ui, clean, clean_lines};
use super::{Format, Session};

/// So many are shown whole; of the others only the number.
const SHOWN: usize = 100;

/// Prints diagnostics to stderr.
pub fn diagnostics(root: &Path, ui: &Ui, diagnostics: &[Diagnostic]) {
    let mut files: HashMap<&str, Vec<String>> = HashMap::new();
    let hidden = hidden(diagnostics);
    for diagnostic in diagnostics.iter().take(SHOWN) {
        let file = &diagnostic.place.file;
        let lines = files.entry(file).or_insert_with(|| lines_of(&root.join(file)));
        let (style, word) = match diagnostic.severity {
            Severity::Error => (Style::Error, "error"),
            Severity::Warning => (Style::Warning, "warning"),
        };
        let head = ui.paint(style, &format!("{word}[{}]", diagnostic.code));
        let mut text = format!(
            "{head}: {}\n  {} {}",
            clean(&diagnostic.message),
            ui.paint(Style::Help, "-->"),
            clean(&diagnostic.place.to_string())
        );
        if let Some(line) = diagnostic.place.line.checked_sub(1).and_then(|at| lines.get(at)) {
            text += &excerpt(ui, style, diagnostic, line, hidden.get(&(file.as_str(), diagnostic.place.line)).copied());
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

/// From which column on a line is not shown, by file and line: a secret stands there, or may stand there because its
/// key is misspelt.
fn hidden(diagnostics: &[Diagnostic]) -> HashMap<(&str, usize), usize> {
    let mut hidden = HashMap::new();
    for Diagnostic { code, place, .. } in diagnostics {
        let from = match code {
            Code::LiteralSecret => place.column,
            Code::UnknownKey | Code::DuplicateKey => place.column + place.width,
            _ => continue,
        };
        let column = hidden.entry((place.file.as_str(), place.line)).or_insert(from);
        *column = from.min(*column);
    }
    hidden
}

fn excerpt(ui: &Ui, style: Style, diagnostic: &Diagnostic, line: &str, hidden: Option<usize>) -> String {
    let place = &diagnostic.place;
    // What stands far to the right is neither shown nor needed.
    let line = line.char_indices().nth(place.column + 400).map_or(line, |(end, _)| &line[..end]);
    let masked = match hidden {
        Some(column) => mask(&cut(line, column)),
        None => mask(line),
    };
    // Where nobody knows what the file means, or a whole value is out of place, secrets have no keys to be known by.
    let unclear = diagnostic.code < Code::UnknownKey || matches!(diagnostic.code, Code::WrongType | Code::WrongForm);
    let masked = if unclear { without_tokens(&masked) } else { masked };
    // A window around the place, so that a line of a megabyte does not flood the screen.
    let from = (place.column - 1).saturating_sub(60);
    let mut window: String = masked.chars().skip(from).take(140).map(|c| if c == '\t' { ' ' } else { c }).collect();
    if from > 0 && !window.is_empty() {
        window = format!("…{}", window.chars().skip(1).collect::<String>());
    }
    if masked.chars().nth(from + 140).is_some() {
        window.push('…');
    }
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

/// A line without what stands from a column on. What says nothing stays: brackets, `true`, `false`.
fn cut(line: &str, column: usize) -> String {
    let at = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
    let (shown, rest) = line.split_at(at);
    let value = rest.trim_start_matches(['"', '\'', ':', ' ']);
    if ["", "true", "false"].contains(&value.trim_end_matches(['}', ']', ' '])) {
        return line.to_owned();
    }
    format!("{shown}{}{STARS}", &rest[..rest.len() - value.len()])
}

const STARS: &str = "********";

/// A line with the values hidden whose keys are named like secrets.
fn mask(line: &str) -> String {
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
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        // In this order, so that a line of a megabyte is gone through once.
        let suspect = (key == "value" || secret.iter().any(|word| key.contains(word)))
            && !after.trim_start().starts_with(['{', '#', '*']);
        let value_end = if suspect { end_of_value(after) } else { 0 };
        let value = after[..value_end].trim();
        // `secret: NAME` is a reference.
        let reference = key == "secret" && value.trim_matches(['"', '\'']).chars().all(is_name);
        let hide = suspect && !value.is_empty() && !reference;
        if hide {
            masked += &"*".repeat(after[..value_end].trim_end().chars().count().min(STARS.len()));
            rest = &after[after[..value_end].trim_end().len()..];
        } else {
            rest = after;
        }
    }
    masked + rest
}

/// Where a value ends: at its own quote, or where the next key or the end of the map can be.
fn end_of_value(text: &str) -> usize {
    let start = text.len() - text.trim_start().len();
    match text[start..].chars().next() {
        Some(quote @ ('"' | '\'')) => text[start + 1..].rfind(quote).map_or(text.len(), |at| start + 1 + at + 1),
        _ => text.find([',', '}']).unwrap_or(text.len()),
    }
}

/// A line with what has the form of a token hidden: long, with letters and digits, in one word.
fn without_tokens(line: &str) -> String {
    let part_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=');
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(part_of_token) {
        let end = rest[start..].find(|c| !part_of_token(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        let token = word.len() >= 20
            && word.contains(|c: char| c.is_ascii_digit())
            && word.contains(|c: char| c.is_ascii_alphabetic());
        shown += &rest[..start];
        shown += &if token { "*".repeat(word.len()) } else { word.to_owned() };
        rest = &rest[end..];
    }
    shown + rest
}

/// Prints what keeps a fleet as a whole from being built; with JSON, as that to stdout, too.
pub fn stopped(session: &Session, found: &[Diagnostic]) -> Result<(), Failure> {
    diagnostics(&session.root, &session.ui, found);
    let (errors, warnings) = counts(found);
    let told = format!("{}; nothing was changed", count(errors, "error"));
    session.ui.line(&told);
    match session.format {
        Format::Json => session.json(&serde_json::json!({
            "error": told, "errors": errors, "warnings": warnings, "diagnostics": found
        })),
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

/// Writes a result as one JSON object, on one line; with `--timings`, they are in it.
pub fn json(ui: &Ui, value: &impl Serialize) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Timed<'a, T> {
        #[serde(flatten)]
        value: &'a T,
        #[serde(skip_serializing_if = "Option::is_none")]
        timings: Option<Vec<Timing>>,
    }
    let text = serde_json::to_string(&Timed { value, timings: ui.timings() }).map_err(anyhow::Error::from)?;
    print(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_might_be_a_secret_is_masked() {
        assert_eq!(mask("  accessToken: EAAxxxx123"), "  accessToken: ********");
        assert_eq!(
            mask("settings: { pixelId: \"1\", accessToken: \"EAA\" }"),
            "settings: { pixelId: \"1\", accessToken: ***** }"
        );
        assert_eq!(mask("token: { secret: TURSO_AUTH_TOKEN }"), "token: { secret: TURSO_AUTH_TOKEN }");
        assert_eq!(mask("token: \"a, b\", x: 1"), "token: ******, x: 1");
        assert_eq!(mask("name: Acme"), "name: Acme");
        assert_eq!(mask("{ token: \"a,b}c\" }"), "{ token: ******* }");
        assert_eq!(mask("token: \"a,b}c"), "token: ******");
        assert_eq!(cut("  tokn: EAAxxxx, b: c", 7), "  tokn: ********");
        assert_eq!(cut("  - EAAxxxx", 5), "  - ********");
        assert_eq!(cut("{ enbled: true }", 9), "{ enbled: true }");
        assert_eq!(
            without_tokens("a: eyJhbGciOiJFZERTQSJ9, b: one-two-three-four-five"),
            "a: ********************, b: one-two-three-four-five"
        );
    }
}
