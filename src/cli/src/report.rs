//! Diagnostics for people: the line, a caret, the help. Masks what might be a secret.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::credential::STARS;
use flotilla_model::diagnostic::{Code, Diagnostic, Place, Severity};
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;
pub use flotilla_model::text::count;
use flotilla_model::text::grouped;
use flotilla_model::text::{is_invisible, without_inner_commands};
use flotilla_spec::project;

use super::grouping::{Group, Tally, groups, tallies};
pub use super::stdout::print;
use super::stdout::{print_line, stderr_columns};
use super::table::{Cell, Column, Fit, Table};
use super::timings::Timing;
use super::ui::{Style, Ui, clean, clean_lines};

/// The number up to which all of them are shown in full.
const ALL: usize = 20;

/// The number of diagnostics that are shown of more.
const SHOWN: usize = 100;

/// A group that is not larger than this is shown whole.
const SMALL: usize = 3;

/// The number of diagnostics that are shown of a larger group.
const EXAMPLES: usize = 2;

/// Prints diagnostics to stderr. Of many, a group of alike ones is shown by its first ones and their number.
pub fn diagnostics(root: &Path, ui: &Ui, diagnostics: &[Diagnostic]) {
    let mut blocks = Blocks { root, ui, files: HashMap::new(), hidden: hidden(diagnostics) };
    if diagnostics.len() <= ALL {
        for diagnostic in diagnostics {
            ui.line(&blocks.block(diagnostic));
        }
        return;
    }
    let groups = groups(diagnostics);
    for (group, shown) in groups.iter().zip(shares(&groups)) {
        for diagnostic in &group.members[..shown] {
            ui.line(&blocks.block(diagnostic));
        }
        if (1..group.members.len()).contains(&shown) {
            ui.line(&format!("… and {}\n", group.more(shown)));
        }
    }
    ui.line(&table(ui, diagnostics));
}

/// Returns the number of each group that are shown whole: fewer where there are many groups, and none of those that
/// are too many.
fn shares(groups: &[Group<'_>]) -> Vec<usize> {
    let share = |group: &Group<'_>| match group.members.len() {
        members @ ..=SMALL => members,
        _ => EXAMPLES,
    };
    if groups.iter().map(share).sum::<usize>() <= SHOWN {
        return groups.iter().map(share).collect();
    }
    (0..groups.len()).map(|index| usize::from(index < SHOWN)).collect()
}

/// The columns of the table of codes.
const CODES: [Column<'_>; 4] = [
    Column::new("code", Fit::Name),
    Column::number("number", Fit::Name),
    Column::number("files", Fit::Whole(1)),
    Column::new("meaning", Fit::Cut(2)),
];

/// Returns the number of reports of each code, and how to see the rest.
fn table(ui: &Ui, diagnostics: &[Diagnostic]) -> String {
    let mut table = Table::new(&CODES);
    for Tally { code, number, files, .. } in tallies(diagnostics) {
        let numbers = [grouped(number as u64), grouped(files as u64)];
        let [number, files] = numbers.map(Cell::from);
        table.row([Cell::from(code.to_string()), number, files, Cell::from(code.meaning())]);
    }
    let mut lines = table.lines(ui, stderr_columns());
    lines.push(
        "`flotilla check CUSTOMER` shows a customer's errors, `flotilla check --format json` all of them, and \
         `flotilla explain CODE` what a code means\n"
            .to_owned(),
    );
    lines.join("\n")
}

/// The data for printing diagnostics one after the other.
struct Blocks<'a> {
    root: &'a Path,
    ui: &'a Ui,
    /// The lines of the files that were read.
    files: HashMap<String, Vec<String>>,
    hidden: Hidden<'a>,
}

impl Blocks<'_> {
    /// A diagnostic with its lines, its help, and an empty line at the end.
    fn block(&mut self, diagnostic: &Diagnostic) -> String {
        let style = match diagnostic.severity {
            Severity::Error => Style::Error,
            Severity::Warning => Style::Warning,
        };
        let head = self.ui.paint(style, &format!("{}[{}]", diagnostic.severity.as_ref(), diagnostic.code));
        let arrow = self.ui.paint(Style::Help, "-->");
        let place = clean(&diagnostic.place.to_string());
        let mut text = format!("{head}: {}\n  {arrow} {place}", clean(&diagnostic.message));
        if let Some(line) = self.line(&diagnostic.place) {
            text += &self.excerpt((style, "^"), diagnostic.code, &diagnostic.place, &line);
        }
        for (place, label) in &diagnostic.related {
            let arrow = self.ui.paint(Style::Help, ":::");
            text += &format!("\n  {arrow} {}: {}", clean(&place.to_string()), clean(label));
            if let Some(line) = self.line(place) {
                text += &self.excerpt((Style::Help, "-"), diagnostic.code, place, &only(&line, place));
            }
        }
        let help = clean_lines(&diagnostic.help).replace('\n', "\n    ");
        text += &format!("\n  {} {help}\n", self.ui.paint(Style::Help, "= help:"));
        text
    }

    fn line(&mut self, place: &Place) -> Option<String> {
        let file = &place.file;
        if !self.files.contains_key(file) {
            self.files.insert(file.clone(), lines_of(&self.root.join(file)));
        }
        self.files[file].get(place.line.checked_sub(1)?).cloned()
    }

    /// A line, and a mark below what is meant of it.
    fn excerpt(&self, (style, mark): (Style, &str), code: Code, place: &Place, line: &str) -> String {
        let (ui, hidden) = (self.ui, self.hidden.get(&(place.file.as_str(), place.line)).copied());
        // Text far to the right is neither shown nor needed.
        let line = line.char_indices().nth(place.column + 400).map_or(line, |(end, _)| &line[..end]);
        let (line, column) = match hidden {
            Some(column) => cut_before(line, column, place.column),
            None => (line.to_owned(), place.column),
        };
        let (masked, column) = mask(&line, column);
        let place = &Place { column, ..place.clone() };
        // Where nobody knows what the file means, or a whole value is out of place, secrets have no keys to be known by.
        let unclear = code < Code::UnknownKey || matches!(code, Code::WrongType | Code::WrongForm);
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
        let marks = ui.paint(style, &mark.repeat(width));
        let indent = " ".repeat(place.column - 1 - from);
        let bar = ui.paint(Style::Help, "|");
        format!(
            "\n {pad} {bar}\n {} {bar} {}\n {pad} {bar} {indent}{marks}",
            ui.paint(Style::Help, &number),
            clean(&window),
        )
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= flotilla_spec::yaml::MAX_BYTES => {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// The column from which on a line is hidden, by file and line.
type Hidden<'a> = HashMap<(&'a str, usize), usize>;

/// Returns what is hidden: a secret is there, or may be there because its key is misspelt.
fn hidden(diagnostics: &[Diagnostic]) -> Hidden<'_> {
    let mut hidden = HashMap::new();
    for Diagnostic { code, place, .. } in diagnostics {
        let from = match code {
            Code::LiteralSecret | Code::SecretVariable => place.column,
            // Outside fleet.yaml, it is a file of secrets.
            Code::BadSecretSource if place.file != project::FLEET_FILE => 1,
            Code::UnknownKey | Code::DuplicateKey => place.column + place.width,
            _ => continue,
        };
        let column = hidden.entry((place.file.as_str(), place.line)).or_insert(from);
        *column = from.min(*column);
    }
    hidden
}

/// A related line as far as it is meant: around it there can be secrets whose diagnostics are not among these.
fn only(line: &str, place: &Place) -> String {
    let before: String = line.chars().take(place.column - 1).collect();
    let meant = line.chars().skip(place.column - 1).take(place.width);
    let is_key = |word: &str| word.strip_suffix(':').is_some_and(|key| key.chars().all(|c| c.is_ascii_alphanumeric()));
    let plain = before.split([' ', '-', '{', '[', '"', '\'']).all(|word| word.is_empty() || is_key(word));
    let before = if plain { before } else { " ".repeat(before.chars().count()) };
    before.chars().chain(meant).collect()
}

/// Cuts a line at a column. What reveals nothing stays: brackets, `true`, `false`.
fn cut(line: &str, column: usize) -> String {
    let at = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
    let (shown, rest) = line.split_at(at);
    let value = rest.trim_start_matches(['"', '\'', ':', ' ']);
    if ["", "true", "false"].contains(&value.trim_end_matches(['}', ']', ' '])) {
        return line.to_owned();
    }
    format!("{shown}{}{STARS}", &rest[..rest.len() - value.len()])
}

/// Cuts a line at a column, and shows of what follows the key before the place that is meant, with stars for its value. Returns the column
/// of that place in what is shown, too.
fn cut_before(line: &str, hidden: usize, column: usize) -> (String, usize) {
    let shown = cut(line, hidden);
    if column <= hidden || shown == line {
        return (shown, column);
    }
    let before: String = line.chars().take(column - 1).skip(hidden).collect();
    let key = before.trim_end_matches([' ', '"', '\'']);
    if !key.ends_with(':') {
        // It is a part of what is hidden, or unknown.
        let stars = shown.chars().count() - STARS.len();
        return (shown, stars + 1);
    }
    let key = key.rsplit([',', '{', '[', ' ']).next().unwrap_or_default();
    let shown = format!("{shown}, {key} ");
    let column = shown.chars().count() + 1;
    (shown + STARS, column)
}

/// A line with the values hidden whose keys are named like secrets, and where a column of it is then.
fn mask(line: &str, column: usize) -> (String, usize) {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    // The characters that are read and written.
    let (mut read, mut written, mut moved) = (0, 0, column);
    while let Some(colon) = rest.find(": ") {
        let (before, after) = rest.split_at(colon + 2);
        masked += before;
        let length = before.chars().count();
        (read, written) = (read + length, written + length);
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
        let hide = suspect && !reference && !matches!(value, "" | "true" | "false");
        if hide {
            let hidden = after[..value_end].trim_end();
            let (length, stars) = (hidden.chars().count(), hidden.chars().count().min(STARS.len()));
            masked += &"*".repeat(stars);
            rest = &after[hidden.len()..];
            if column > read + length {
                moved = column + written + stars - (read + length);
            } else if column > read {
                moved = written + 1;
            }
            (read, written) = (read + length, written + stars);
        } else {
            rest = after;
        }
    }
    (masked + rest, moved)
}

/// Returns the end of a value: its own quote, or where the next key or the end of the map can be.
fn end_of_value(text: &str) -> usize {
    let start = text.len() - text.trim_start().len();
    match text[start..].chars().next() {
        Some(quote @ ('"' | '\'')) => text[start + 1..].rfind(quote).map_or(text.len(), |index| start + 1 + index + 1),
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

/// `3 errors and 1 warning`.
pub fn counts(diagnostics: &[Diagnostic]) -> (usize, usize) {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    (errors, diagnostics.len() - errors)
}

/// Returns the number of errors and warnings in words.
pub fn found(diagnostics: &[Diagnostic]) -> String {
    match counts(diagnostics) {
        (0, 0) => "no errors".to_owned(),
        (errors, 0) => count(errors, "error"),
        (0, warnings) => count(warnings, "warning"),
        (errors, warnings) => format!("{} and {}", count(errors, "error"), count(warnings, "warning")),
    }
}

/// Writes commands of GitHub Actions to stdout: what is in them is escaped already.
pub fn print_commands(commands: &[String]) {
    print_line(&without_inner_commands(&commands.join("\n"), "\\u{23}"));
}

/// Returns a value as JSON on one line, in which no CI system sees a command, and in which everything can be seen.
pub fn json_text(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(visible_json(&serde_json::to_string(value)?))
}

/// Returns JSON on one line, with escapes for invisible characters and for what a CI system would read as a command.
pub fn visible_json(json: &str) -> String {
    let is_hidden = |c: char| c.is_control() || is_invisible(c);
    let mut text = Cow::Borrowed(json);
    // Outside strings, JSON has neither these nor a `#`.
    if json.chars().any(is_hidden) {
        let mut visible = String::with_capacity(json.len());
        for c in json.chars() {
            match is_hidden(c) {
                true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| visible += &format!("\\u{unit:04x}")),
                false => visible.push(c),
            }
        }
        text = Cow::Owned(visible);
    }
    without_inner_commands(&text, "\\u0023")
}

/// Writes a file of a project as a whole, with the permissions that it has. Links are followed as long as they stay in the project.
pub fn write_file(root: &Path, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let target = plain_file::inside(root, path);
    let written = target.and_then(|target| AtomicFile::new(&target).keep_permissions().write(bytes));
    written.with_context(|| format!("{} can't be written", path.display()))?;
    Ok(())
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
    print_line(&json_text(&Timed { value, timings: ui.timings() }).map_err(anyhow::Error::from)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_hundred_are_shown_whole() {
        let diagnostic = Diagnostic::error(Code::UnknownKey, Place::file("a.yaml"), "unknown", "none");
        let group = |members: usize| Group { members: vec![&diagnostic; members], alike: true };
        let shown = |sizes: &[usize]| shares(&sizes.iter().map(|size| group(*size)).collect::<Vec<_>>());
        assert_eq!(shown(&[1, 3, 4, 9000]), [1, 3, 2, 2]);
        assert_eq!(shown(&[3; 40]), [1; 40]);
        let many = shown(&[500; 300]);
        assert_eq!((many[..100].to_vec(), many[100..].to_vec()), (vec![1; 100], vec![0; 200]));
    }

    #[test]
    fn of_a_related_line_only_what_is_meant_is_shown() {
        let at = |line: &str, meant: &str| {
            let column = line.find(meant).expect("it stands there") + 1;
            only(line, &Place { file: "a.yaml".to_owned(), line: 1, column, width: meant.len() })
        };
        assert_eq!(at("  - { pattern: \"a/*\", tokn: EAAB }", "\"a/*\""), "  - { pattern: \"a/*\"");
        assert_eq!(at("{ tokn: EAAB, id: acme }", "acme"), "                  acme");
        assert_eq!(at("id: acme # EAAB", "acme"), "id: acme");
        assert_eq!(at("  - a.example", "a.example"), "  - a.example");
        assert_eq!(at("routes: [{ pattern: a/*, zone: a }]", "a/*"), "routes: [{ pattern: a/*");
    }

    #[test]
    fn json_shows_everything_and_says_the_same() {
        for text in ["größe", "x\u{202e}y", "\u{e0041}", "\u{7f}\u{9b}", "##[error]x", "\u{feff}", "\u{1f600}\u{fe0f}"]
        {
            let value = serde_json::json!({ text: [text] });
            let shown = json_text(&value).unwrap();
            assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)) && !shown.contains("##["), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value, "{shown}");
        }
    }

    #[test]
    fn what_might_be_a_secret_is_masked() {
        let at = |line, column| mask(line, column);
        let mask = |line| mask(line, 1).0;
        assert_eq!(at("{ token: \"0123456789\", a: b }", 24), ("{ token: ********, a: b }".to_owned(), 20));
        assert_eq!(at("{ token: \"0123456789\", a: b }", 10), ("{ token: ********, a: b }".to_owned(), 10));
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
        let line = "vars: { A: one, B: \"two, C: 3\", D: [x, y] }";
        for (column, shown, at) in [
            (12, "vars: { A: ********", 12),
            (20, "vars: { A: ********, B: ********", 25),
            (36, "vars: { A: ********, D: ********", 25),
            (40, "vars: { A: ********", 12),
        ] {
            assert_eq!(cut_before(line, 12, column), (shown.to_owned(), at));
        }
        assert_eq!(cut_before("{ enbled: true }", 9, 11), ("{ enbled: true }".to_owned(), 11));
        assert_eq!(cut("{ enbled: true }", 9), "{ enbled: true }");
        assert_eq!(
            without_tokens("a: eyJhbGciOiJFZERTQSJ9, b: one-two-three-four-five"),
            "a: ********************, b: one-two-three-four-five"
        );
    }
}
