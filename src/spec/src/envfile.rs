//! Env files, `NAME=value` in lines, as a layer of variables with their places. Nothing in them is replaced. Doesn't know which
//! files there are; the syntax is that of [`dotenv`].

use std::collections::HashMap;

use crate::dotenv;
use crate::yaml::{Document, Kind, Node, Span};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};

/// Parts of names whose values don't belong in a file under version control.
const SECRET_WORDS: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE"];

/// Reads an env file into the document `vars: { NAME: value, … }`.
pub fn parse(file: &str, bytes: &[u8]) -> (Document, Vec<Diagnostic>) {
    let text = String::from_utf8_lossy(bytes);
    let mut diagnostics = Vec::new();
    let place = |span: Span| Place { file: file.to_owned(), line: span.line, column: span.column, width: span.width };
    if let Err(error) = std::str::from_utf8(bytes) {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let place = place(Span { line, column: 1, width: 1 });
        diagnostics.push(Diagnostic::error(Code::NotUtf8, place, "it is not UTF-8", "save the file as UTF-8"));
    }
    let (read, wrong) = dotenv::read(&text);
    let wrong =
        wrong.into_iter().map(|wrong| Diagnostic::error(Code::Syntax, place(wrong.span), wrong.message, wrong.help));
    diagnostics.extend(wrong);
    let mut entries: Vec<(String, Span, Node)> = Vec::new();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for entry in &read {
        let name = entry.name;
        let mut wrong = |code, message: String, help: &str| {
            diagnostics.push(Diagnostic::error(code, place(entry.name_span), message, help));
        };
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            let help = "use letters, digits and underscores; the first character can't be a digit";
            wrong(Code::WrongForm, "invalid variable name".to_owned(), help);
            continue;
        }
        if !entry.value.is_empty() && SECRET_WORDS.iter().any(|word| name.to_uppercase().contains(word)) {
            wrong(
                Code::LiteralSecret,
                format!("`{name}` looks like a secret, and its value is in the file"),
                "remove it here, and refer to it under `secrets` in the spec or in a layer; if it was ever committed, replace it",
            );
            continue;
        }
        if let Some(earlier) = first.insert(name, entry.name_span.line) {
            wrong(
                Code::DuplicateKey,
                format!("`{name}` is defined twice in this file"),
                &format!("it is already defined on line {earlier}: keep one of the two"),
            );
            continue;
        }
        let node = Node { span: entry.value_span, kind: Kind::Text(entry.value.to_string()) };
        entries.push((name.to_owned(), entry.name_span, node));
    }
    diagnostics.sort_by_key(|found| (found.place.line, found.place.column));
    let whole = Span { line: 1, column: 1, width: 1 };
    let vars = Node { span: whole, kind: Kind::Map(entries) };
    let root = Node { span: whole, kind: Kind::Map(vec![("vars".to_owned(), whole, vars)]) };
    (Document { file: file.to_owned(), root }, diagnostics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_values_quotes_and_comments() {
        let text = "# a comment\nA=1\nexport B = two words # why\nC='$HOME #'\n D=\"a 'b'\\n\"\nE=\n";
        let (document, diagnostics) = parse("a.env", text.as_bytes());
        assert_eq!(diagnostics, vec![]);
        let wanted = json!({"vars": {"A": "1", "B": "two words", "C": "$HOME #", "D": "a 'b'\n", "E": ""}});
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
            ["Y0107 a.env:2:1", "Y0106 a.env:3:1", "S0205 a.env:4:1", "S0206 a.env:5:1", "Y0106 a.env:7:3"]
        );
        assert!(!format!("{diagnostics:?}").contains("canary"));
    }
}
