//! Env files, `NAME=value` in lines, as a layer of variables with their places. Nothing in them is replaced: neither
//! `$NAME` nor `${NAME}`. Doesn't know which files there are.

use std::collections::HashMap;

use crate::yaml::{Document, Kind, Node, Span};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};

/// Parts of names whose values don't belong in a file under version control.
const SECRET_WORDS: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE"];

/// Reads an env file into the document `vars: { NAME: value, … }`.
pub fn parse(file: &str, bytes: &[u8]) -> (Document, Vec<Diagnostic>) {
    let text = String::from_utf8_lossy(bytes);
    let mut diagnostics = Vec::new();
    let mut entries: Vec<(String, Span, Node)> = Vec::new();
    let mut first: HashMap<String, usize> = HashMap::new();
    if let Err(error) = std::str::from_utf8(bytes) {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let place = Place { file: file.to_owned(), line, column: 1, width: 1 };
        diagnostics.push(Diagnostic::error(Code::NotUtf8, place, "it is not UTF-8", "save the file as UTF-8"));
    }
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        let rest = line.trim();
        let bare = rest.strip_prefix("export ").map_or(rest, str::trim_start);
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let span = |column: usize, width: usize| Span { line: index + 1, column, width: width.max(1) };
        let column = indent + 1 + (rest.chars().count() - bare.chars().count());
        let mut wrong = |code, width: usize, message: String, help: &str| {
            let Span { line, column, width } = span(column, width);
            let place = Place { file: file.to_owned(), line, column, width };
            diagnostics.push(Diagnostic::error(code, place, message, help));
        };
        let Some((name, value)) = bare.split_once('=') else {
            wrong(Code::Syntax, 1, "a line without `=`".to_owned(), "write NAME=value, or begin a comment with `#`");
            continue;
        };
        let name = name.trim_end();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            wrong(
                Code::WrongForm,
                name.chars().count(),
                "no name of a variable".to_owned(),
                "letters, digits and underscores, not a digit first",
            );
            continue;
        }
        let (value, before) = match unquoted(value) {
            Ok(unquoted) => unquoted,
            Err(message) => {
                wrong(Code::Syntax, name.len(), message.to_owned(), "close the quote on the same line");
                continue;
            }
        };
        if !value.is_empty() && SECRET_WORDS.iter().any(|word| name.to_uppercase().contains(word)) {
            wrong(
                Code::LiteralSecret,
                name.len(),
                format!("`{name}` looks like a secret, and its value stands in the file"),
                "take it out here, and name it under `secrets` of the spec or of a layer; if it was ever committed, replace it",
            );
            continue;
        }
        if let Some(earlier) = first.insert(name.to_owned(), index + 1) {
            wrong(
                Code::DuplicateKey,
                name.len(),
                format!("`{name}` stands twice in this file"),
                &format!("it is already on line {earlier}: keep one of the two"),
            );
            continue;
        }
        let start = column + name.chars().count() + 1 + before;
        let node = Node { span: span(start, value.chars().count()), kind: Kind::Text(value) };
        entries.push((name.to_owned(), span(column, name.len()), node));
    }
    let whole = Span { line: 1, column: 1, width: 1 };
    let vars = Node { span: whole, kind: Kind::Map(entries) };
    let root = Node { span: whole, kind: Kind::Map(vec![("vars".to_owned(), whole, vars)]) };
    (Document { file: file.to_owned(), root }, diagnostics)
}

/// Returns a value without its quotes and without a comment after it, and the number of characters before it.
fn unquoted(written: &str) -> Result<(String, usize), &'static str> {
    let trimmed = written.trim_start();
    let before = written.chars().count() - trimmed.chars().count();
    match trimmed.chars().next() {
        Some('\'') => {
            let end = trimmed[1..].find('\'').ok_or("a single quote that isn't closed")?;
            Ok((trimmed[1..=end].to_owned(), before + 1))
        }
        Some('"') => {
            let mut value = String::new();
            let mut escaped = false;
            for c in trimmed[1..].chars() {
                match c {
                    _ if escaped => {
                        value.push(match c {
                            'n' => '\n',
                            't' => '\t',
                            other => other,
                        });
                        escaped = false;
                    }
                    '"' => return Ok((value, before + 1)),
                    '\\' => escaped = true,
                    _ => value.push(c),
                }
            }
            Err("a double quote that isn't closed")
        }
        _ => {
            let value = trimmed.find(" #").map_or(trimmed, |at| &trimmed[..at]);
            Ok((value.trim_end().to_owned(), before))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_values_quotes_and_comments() {
        let text = "# a comment\nA=1\nexport B = two words # why\nC='$HOME #'\n D=\"a \\\"b\\\"\\n\"\nE=\n";
        let (document, diagnostics) = parse("a.env", text.as_bytes());
        assert_eq!(diagnostics, vec![]);
        let wanted = json!({"vars": {"A": "1", "B": "two words", "C": "$HOME #", "D": "a \"b\"\n", "E": ""}});
        assert_eq!(document.root.to_value(), wanted);
        assert_eq!(document.place_of(["vars", "A"]).to_string(), "a.env:2:3");
        assert_eq!(document.place_of(["vars", "C"]).to_string(), "a.env:4:4");
    }

    #[test]
    fn mistakes_are_told_with_their_places_and_without_values() {
        let text = "A=1\nA=2\nno equals\n1B=x\nAPI_TOKEN=canary\nEMPTY_TOKEN=\nC='x\n";
        let (_, diagnostics) = parse("a.env", text.as_bytes());
        let found: Vec<String> = diagnostics.iter().map(|d| format!("{} {}", d.code, d.place)).collect();
        assert_eq!(
            found,
            ["Y0107 a.env:2:1", "Y0106 a.env:3:1", "S0205 a.env:4:1", "S0206 a.env:5:1", "Y0106 a.env:7:1"]
        );
        assert!(!format!("{diagnostics:?}").contains("canary"));
    }
}
