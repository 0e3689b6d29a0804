//! Values as text of TypeScript, JavaScript, JSON and TOML, safe by construction. Pure.
//!
//! One escaped form fits into a double-quoted string of all four languages and into a one-line comment: what could
//! end a string, a line, a comment, a template literal or a `<script>`, and what a reader can't see (control and
//! bidirectional characters), is written as `\uXXXX`.

use std::fmt::Write as _;
use std::io;

use tera::value::Key;
use tera::{Value, value::ValueKind};

/// Objects and lists up to this width stay on one line.
const WIDTH: usize = 90;

/// Returns whether a character needs no escape.
fn plain(c: char) -> bool {
    match c {
        '"' | '\\' | '\'' | '`' | '$' | '<' | '>' | '&' => false,
        ' '..='~' => true,
        // C1 controls, and DEL before them.
        '\u{7f}'..='\u{9f}' => false,
        // What can't be seen or reorders what is seen: soft hyphen, Arabic letter mark, zero-width and bidirectional
        // characters, line and paragraph separators, invisible operators, fillers, the byte order mark.
        '\u{ad}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' => false,
        c => c > '\u{9f}',
    }
}

/// Writes text escaped for use between double quotes, or in a one-line comment.
pub fn text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if plain(c) => out.push(c),
            // All of them are of the first plane, so that one escape is enough, and the same one everywhere.
            c => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
}

/// Tera's escape function: what a template prints with `{{ … }}`, between quotes or in a comment. The end of a comment
/// of several lines is none, either.
pub fn tera(value: &str, out: &mut dyn io::Write) -> io::Result<()> {
    let mut escaped = String::with_capacity(value.len() + 8);
    text(&mut escaped, value);
    out.write_all(escaped.replace("*/", "*\\u002f").as_bytes())
}

/// A language in which a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// JavaScript and TypeScript.
    Script,
    /// JSON.
    Json,
    /// TOML, on one line.
    Toml,
}

/// Returns a value as a literal of the language, broken into lines that are indented by `indent` more than the first one.
pub fn literal(value: &Value, language: Language, indent: usize) -> Result<String, String> {
    let mut out = String::new();
    write(&mut out, value, language, indent)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, language: Language, indent: usize) -> Result<(), String> {
    match value.kind() {
        ValueKind::String => {
            out.push('"');
            text(out, value.as_str().unwrap_or_default());
            out.push('"');
        }
        ValueKind::Array => {
            let items = value.as_array().unwrap_or_default();
            list(out, language, indent, ("[", "]"), items.len(), |out, index, indent| {
                write(out, &items[index], language, indent)
            })?;
        }
        ValueKind::Map => {
            let map = value.as_map().ok_or("a map that is none")?;
            let entries: Vec<_> = map.iter().collect();
            list(out, language, indent, ("{", "}"), entries.len(), |out, index, indent| {
                let (name, value) = entries[index];
                key(out, name, language)?;
                out.push_str(if language == Language::Toml { " = " } else { ": " });
                write(out, value, language, indent)
            })?;
        }
        ValueKind::None | ValueKind::Undefined if language == Language::Toml => {
            return Err("TOML has no null".to_owned());
        }
        ValueKind::None => out.push_str("null"),
        ValueKind::Undefined => return Err("there is no such value".to_owned()),
        ValueKind::Bytes => return Err("bytes have no literal".to_owned()),
        _ => {
            // Numbers and booleans print alike in all four languages.
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

fn list(
    out: &mut String,
    language: Language,
    indent: usize,
    (open, close): (&str, &str),
    count: usize,
    mut item: impl FnMut(&mut String, usize, usize) -> Result<(), String>,
) -> Result<(), String> {
    let start = out.len();
    let pad = if open == "{" && count > 0 { " " } else { "" };
    out.push_str(open);
    out.push_str(pad);
    for index in 0..count {
        if index > 0 {
            out.push_str(", ");
        }
        item(out, index, indent + 2)?;
    }
    out.push_str(pad);
    out.push_str(close);
    if count == 0 || language == Language::Toml || (out.len() - start + indent <= WIDTH && !out[start..].contains('\n'))
    {
        return Ok(());
    }
    out.truncate(start);
    out.push_str(open);
    for index in 0..count {
        let _ = write!(out, "\n{:width$}", "", width = indent + 2);
        item(out, index, indent + 2)?;
        if index + 1 < count || language == Language::Script {
            out.push(',');
        }
    }
    let _ = write!(out, "\n{:indent$}{close}", "");
    Ok(())
}

fn key(out: &mut String, key: &Key<'_>, language: Language) -> Result<(), String> {
    let name = key.as_str().ok_or("a key that isn't text")?;
    let identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match language {
        // As a plain or quoted key, it would set the prototype instead of a property.
        Language::Script if name == "__proto__" => out.push_str("[\"__proto__\"]"),
        Language::Script | Language::Toml if identifier => out.push_str(name),
        _ => {
            out.push('"');
            text(out, name);
            out.push('"');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn script(value: serde_json::Value) -> String {
        literal(&Value::from_serializable(&value), Language::Script, 0).unwrap()
    }

    #[test]
    fn hostile_text_stays_text() {
        let mut out = String::new();
        text(&mut out, "\"'`${x}</script>*/\u{2028}\n\r\0\u{202e}\\ é😀");
        assert_eq!(out, "\\\"\\u0027\\u0060\\u0024{x}\\u003c/script\\u003e*/\\u2028\\n\\r\\u0000\\u202e\\\\ é😀");
    }

    #[test]
    fn a_printed_value_ends_no_comment() {
        let mut out = Vec::new();
        tera("*/ alert()", &mut out).unwrap();
        assert_eq!(out, b"*\\u002f alert()");
    }

    #[test]
    fn literals() {
        assert_eq!(
            script(json!({"b": [1, 1.5, true, null], "a-b": "x"})),
            "{ \"a-b\": \"x\", b: [1, 1.5, true, null] }"
        );
        assert_eq!(script(json!({"__proto__": {"a": 1}})), "{ [\"__proto__\"]: { a: 1 } }");
        assert_eq!(script(json!({})), "{}");
        let long = "x".repeat(60);
        assert_eq!(script(json!({"a": long, "b": long})), format!("{{\n  a: \"{long}\",\n  b: \"{long}\",\n}}"));
    }
}
