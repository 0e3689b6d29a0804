//! TOML and JSONC as trees that know the position of each node, as YAML is read: what maps them needs to know one kind of
//! tree. Doesn't know what the keys mean.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged as _;
use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::jsonc;
use crate::yaml::{Document, Kind, Node, Span};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};

/// The largest whole number that JavaScript keeps exactly; wrangler's reader of TOML refuses larger ones.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// Reads a file by its extension, `.toml`, `.json` or `.jsonc`. The syntax is the one that wrangler accepts: TOML 1.1, and JSON
/// with comments and trailing commas.
pub fn read(file: &str, bytes: &[u8]) -> Result<Document, Vec<Diagnostic>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            let place = Place { file: file.to_owned(), line, column: 1, width: 1 };
            return Err(vec![Diagnostic::error(Code::NotUtf8, place, "it is not UTF-8", "save the file as UTF-8")]);
        }
    };
    let reading = Reading { file, text, lines: lines(text) };
    let mut diagnostics = Vec::new();
    let root = if file.ends_with(".toml") { reading.toml(&mut diagnostics) } else { reading.jsonc(&mut diagnostics) };
    match root {
        Some(root) if diagnostics.is_empty() => Ok(Document { file: file.to_owned(), root }),
        _ => Err(diagnostics),
    }
}

struct Reading<'a> {
    file: &'a str,
    text: &'a str,
    /// The offset of each line, in bytes.
    lines: Vec<usize>,
}

fn lines(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

impl Reading<'_> {
    fn span(&self, from: usize, to: usize) -> Span {
        let from = self.text.floor_char_boundary(from.min(self.text.len()));
        let to = self.text.floor_char_boundary(to.clamp(from, self.text.len()));
        let line = self.lines.partition_point(|start| *start <= from);
        let column = self.text[self.lines[line - 1]..from].chars().count() + 1;
        let first = self.text[from..to].lines().next().unwrap_or_default();
        let one_line = !self.text[from..to].contains('\n');
        Span { line, column, width: if one_line { first.chars().count().max(1) } else { 1 } }
    }

    fn place(&self, span: Span) -> Place {
        Place { file: self.file.to_owned(), line: span.line, column: span.column, width: span.width }
    }

    fn toml(&self, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let mut errors: Vec<_> =
            errors.into_iter().map(|error| (error.span().map_or(0, |at| at.start), error)).collect();
        errors.sort_by_key(|(start, _)| *start);
        // Further errors on a line have the same cause.
        errors.dedup_by_key(|(start, _)| self.span(*start, *start).line);
        for (_, error) in errors {
            let at = error.span().unwrap_or(0..0);
            let place = self.place(self.span(at.start, at.end.min(at.start + 1)));
            let message = format!("it is not TOML: {}", error.message());
            let help = "compare with the line before: a key, `=`, a value; text in quotes; each key and table once";
            diagnostics.push(Diagnostic::error(Code::Syntax, place, message, help));
        }
        let span = Span { line: 1, column: 1, width: 1 };
        Some(Node { span, kind: self.toml_table(table.get_ref(), diagnostics) })
    }

    fn toml_table(&self, table: &DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) -> Kind {
        let mut entries: Vec<(String, Span, Node)> = table
            .iter()
            .map(|(key, value)| {
                let span = self.span(key.span().start, key.span().end);
                (key.get_ref().to_string(), span, self.toml_value(value, diagnostics))
            })
            .collect();
        // In the order of the file, where the parser has them in that of their names.
        entries.sort_by_key(|(_, span, _)| (span.line, span.column));
        Kind::Map(entries)
    }

    fn toml_value(&self, value: &Spanned<DeValue<'_>>, diagnostics: &mut Vec<Diagnostic>) -> Node {
        let span = self.span(value.span().start, value.span().end);
        let mut refused = |message: &str, help: &str| {
            diagnostics.push(Diagnostic::error(Code::WrongForm, self.place(span), message, help));
            Kind::Null
        };
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Boolean(bool) => Kind::Bool(*bool),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) if number.abs() <= MAX_SAFE_INTEGER => {
                    Kind::Number(number.into(), integer.as_str().to_owned())
                }
                _ => refused("a number that would lose digits", "write it in quotes"),
            },
            DeValue::Float(float) => match float.as_str().parse::<f64>().ok().and_then(number) {
                Some(number) => Kind::Number(number, float.as_str().to_owned()),
                None => refused("a number that a spec can't express", "remove it, or write it in quotes"),
            },
            // wrangler uploads it as this text.
            DeValue::Datetime(when) => Kind::Text(when.to_string()),
            DeValue::Array(items) => Kind::List(items.iter().map(|item| self.toml_value(item, diagnostics)).collect()),
            DeValue::Table(table) => self.toml_table(table, diagnostics),
        };
        Node { span, kind }
    }

    fn jsonc(&self, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
        let help = "compare with the line before: names and texts in double quotes, commas between entries";
        match jsonc_parser::parse_to_ast(self.text, &jsonc_parser::CollectOptions::default(), &jsonc::OPTIONS) {
            Ok(parsed) => match parsed.value {
                Some(value) => Some(self.jsonc_value(&value, diagnostics)),
                None => {
                    let message = "the file is empty";
                    diagnostics.push(Diagnostic::error(Code::EmptyFile, Place::file(self.file), message, "write `{}`"));
                    None
                }
            },
            Err(error) => {
                let place = self.place(self.span(error.range().start, error.range().start + 1));
                let message = format!("the file is not JSON: {}", error.kind());
                diagnostics.push(Diagnostic::error(Code::Syntax, place, message, help));
                None
            }
        }
    }

    fn jsonc_value(&self, value: &ast::Value<'_>, diagnostics: &mut Vec<Diagnostic>) -> Node {
        let span = self.span(value.range().start, value.range().end);
        let kind = match value {
            ast::Value::StringLit(text) => Kind::Text(text.value.to_string()),
            ast::Value::BooleanLit(bool) => Kind::Bool(bool.value),
            ast::Value::NullKeyword(_) => Kind::Null,
            ast::Value::NumberLit(literal) => match literal.value.parse::<f64>().ok().and_then(number) {
                Some(number) => Kind::Number(number, literal.value.to_string()),
                None => {
                    let message = "a number that would lose digits in a spec";
                    diagnostics.push(Diagnostic::error(
                        Code::WrongForm,
                        self.place(span),
                        message,
                        "write it in quotes",
                    ));
                    Kind::Null
                }
            },
            ast::Value::Array(array) => {
                Kind::List(array.elements.iter().map(|item| self.jsonc_value(item, diagnostics)).collect())
            }
            ast::Value::Object(object) => {
                let mut entries: Vec<(String, Span, Node)> = Vec::new();
                for property in &object.properties {
                    let name = property.name.as_str().to_owned();
                    let at = self.span(property.name.range().start, property.name.range().end);
                    if entries.iter().any(|(other, _, _)| *other == name) {
                        let message = format!("`{name}` is defined twice");
                        let place = self.place(at);
                        diagnostics.push(Diagnostic::error(Code::DuplicateKey, place, message, "keep one of the two"));
                    }
                    entries.push((name, at, self.jsonc_value(&property.value, diagnostics)));
                }
                Kind::Map(entries)
            }
        };
        Node { span, kind }
    }
}

/// Returns a number as JavaScript writes it: 1.0 is 1.
fn number(float: f64) -> Option<Number> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "within the exact whole numbers")]
    match float.fract() == 0.0 {
        true if float.abs() <= MAX_SAFE_INTEGER as f64 => Some(Number::from(float as i64)),
        true => None,
        false => Number::from_f64(float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_give_the_same_tree_with_places() {
        let toml = "name = \"a\"\n[vars]\nTOPPINGS = 2.0 # as one\nLIST = [1, { b = true }]\n\n[[routes]]\npattern = \"x/*\"\n";
        let json = "{ // a comment\n  \"name\": \"a\",\n  \"vars\": {\"TOPPINGS\": 2, \"LIST\": [1, {\"b\": true}]},\n  \"routes\": [{\"pattern\": \"x/*\"}],\n}";
        let one = read("wrangler.toml", toml.as_bytes()).unwrap();
        let other = read("wrangler.jsonc", json.as_bytes()).unwrap();
        let wanted =
            json!({"name": "a", "vars": {"TOPPINGS": 2, "LIST": [1, {"b": true}]}, "routes": [{"pattern": "x/*"}]});
        assert_eq!(one.root.to_value(), wanted);
        assert_eq!(other.root.to_value(), wanted);
        assert_eq!(one.place_of(["vars", "TOPPINGS"]).to_string(), "wrangler.toml:3:12");
        assert_eq!(one.place_of(["routes", "0", "pattern"]).to_string(), "wrangler.toml:7:11");
        assert_eq!(other.place_of(["vars", "LIST", "1", "b"]).to_string(), "wrangler.jsonc:3:45");
    }

    #[test]
    fn inline_tables_over_several_lines_are_taken_as_wrangler_takes_them() {
        let text = "[env.production]\nvars = {\n  A = \"1\",\n  B = \"2\"\n}\n";
        let document = read("wrangler.toml", text.as_bytes()).unwrap();
        assert_eq!(document.place_of(["env", "production", "vars", "B"]).to_string(), "wrangler.toml:4:7");
    }

    #[test]
    fn mistakes_have_their_places_and_are_told_all_at_once() {
        let told = |file: &str, text: &str| -> Vec<String> {
            let diagnostics = read(file, text.as_bytes()).unwrap_err();
            diagnostics.iter().map(|diagnostic| format!("{} {}", diagnostic.code, diagnostic.place)).collect()
        };
        assert_eq!(told("a.toml", "a = 1\nb = \nc = 2\nd = = 3\n"), ["Y0106 a.toml:2:5", "Y0106 a.toml:4:5"]);
        assert_eq!(told("a.toml", "a = inf\nb = 9007199254740993\n"), ["S0205 a.toml:1:5", "S0205 a.toml:2:5"]);
        assert_eq!(told("a.toml", "a = 1\na = 2\n"), ["Y0106 a.toml:2:1"]);
        assert_eq!(told("a.jsonc", "{\n \"a\": }"), ["Y0106 a.jsonc:2:7"]);
        assert_eq!(told("a.json", "{\"a\": 1, \"a\": 2}"), ["Y0107 a.json:1:10"]);
        assert_eq!(told("a.json", ""), ["Y0105 a.json"]);
        assert_eq!(read("a.toml", b"a = \"\xff\"").unwrap_err()[0].code, Code::NotUtf8);
        assert!(read("a.jsonc", "[".repeat(100_000).as_bytes()).is_err());
        assert!(read("a.toml", format!("a = {}", "[".repeat(100_000)).as_bytes()).is_err());
    }
}
