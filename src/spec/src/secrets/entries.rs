//! Texts of names and values, as dotenv lines or as a YAML map: reads them, and sets one entry without touching the
//! others. Doesn't know where a text comes from; its errors quote nothing of a broken one.

use std::collections::HashMap;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::yaml::{self, Kind};

/// The syntax of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `NAME=value` in lines.
    Dotenv,
    /// A map of names to texts.
    Yaml,
}

impl Form {
    /// Returns the form of a file, by its name: `….yaml` and `….yml`, encrypted or not, are YAML.
    pub fn of(path: &str) -> Form {
        let path = path.strip_suffix(".age").unwrap_or(path);
        if path.ends_with(".yaml") || path.ends_with(".yml") { Form::Yaml } else { Form::Dotenv }
    }
}

/// Reads all entries; of several with one name, the last. Errors don't quote the text.
pub fn parse(text: &str, form: Form) -> Result<HashMap<String, SecretString>, String> {
    match form {
        Form::Dotenv => {
            let entries = dotenvy::from_read_iter(text.trim_start_matches('\u{feff}').as_bytes()).enumerate();
            let read = entries.map(|(index, entry)| match entry {
                Ok((name, value)) => Ok((name, SecretString::from(value))),
                // The error holds the line.
                Err(_) => Err(format!(
                    "near entry {}: each line is NAME=value, with quotes around a value that has spaces or `#`",
                    index + 1
                )),
            });
            read.collect()
        }
        Form::Yaml => yaml_entries(text),
    }
}

/// Reads a YAML map of names to texts. Of the parser's error only the line is repeated: the rest may quote a value.
fn yaml_entries(text: &str) -> Result<HashMap<String, SecretString>, String> {
    let wrong = |line: usize| format!("near line {line}: it has to be a YAML map of names to texts, each name once");
    let (document, diagnostics) = yaml::parse("", text.as_bytes());
    if let Some(diagnostic) = diagnostics.first() {
        return Err(wrong(diagnostic.place.line));
    }
    let Some(document) = document else { return Ok(HashMap::new()) };
    let Kind::Map(entries) = document.root.kind else { return Err(wrong(document.root.span.line)) };
    let read = entries.into_iter().map(|(name, _, node)| match node.kind {
        Kind::Text(value) => Ok((name, SecretString::from(value))),
        _ => Err(format!("the value of {name} is no text: write it in quotes")),
    });
    read.collect()
}

/// Returns the text with one entry set: in its place if it is there, else at the end. All other lines stay as they are; if that
/// can't be, nothing is changed.
pub fn set(text: &str, form: Form, name: &str, value: &SecretString) -> Result<Zeroizing<String>, String> {
    let before = parse(text, form)?;
    let value = value.expose_secret();
    let chunks = match form {
        Form::Dotenv => dotenv_chunks(text),
        Form::Yaml => yaml_chunks(text),
    };
    let own = chunks.iter().rposition(|chunk| name_of(chunk, form) == Some(name));
    let mut written = Zeroizing::new(String::with_capacity(text.len() + name.len() + value.len() * 2 + 16));
    let line = |export: &str| match form {
        Form::Dotenv => Zeroizing::new(format!("{export}{name}={}\n", quoted(value).as_str())),
        // A JSON text is a YAML text.
        Form::Yaml => Zeroizing::new(format!("{name}: {}\n", serde_json::Value::from(value))),
    };
    for (index, chunk) in chunks.iter().enumerate() {
        if Some(index) == own {
            written.push_str(&line(if chunk.trim_start().starts_with("export ") { "export " } else { "" }));
        } else {
            written.push_str(chunk);
        }
    }
    if own.is_none() {
        if !written.is_empty() && !written.ends_with('\n') {
            written.push('\n');
        }
        written.push_str(&line(""));
    }
    let after = parse(&written, form).map_err(|_| CANNOT.to_owned())?;
    let same = |(other, old): (&String, &SecretString)| {
        other == name || after.get(other).is_some_and(|new| new.expose_secret() == old.expose_secret())
    };
    let own = after.get(name).is_some_and(|new| new.expose_secret() == value);
    let number = before.len() + usize::from(!before.contains_key(name));
    if own && after.len() == number && before.iter().all(same) { Ok(written) } else { Err(CANNOT.to_owned()) }
}

const CANNOT: &str = "the entry can't be set without changing others, or its value has characters that such a file can't hold: \
                      edit it by hand";

/// Returns the pieces of a dotenv text: each entry with all lines of its value, and each other line.
fn dotenv_chunks(text: &str) -> Vec<&str> {
    let (mut chunks, mut start, mut open) = (Vec::new(), 0, None);
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        if open.is_some() || !line.trim_start().starts_with('#') {
            open = open_quote(line, open);
        }
        if open.is_none() {
            chunks.push(&text[start..end]);
            start = end;
        }
    }
    if start < end {
        chunks.push(&text[start..end]);
    }
    chunks
}

/// Returns the quote that is open at the end of a line.
fn open_quote(line: &str, mut open: Option<char>) -> Option<char> {
    let (mut escaped, mut before) = (false, ' ');
    for c in line.chars() {
        match (open, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (None, '"' | '\'') => open = Some(c),
            (Some(quote), _) if quote == c => open = None,
            (None, '#') if before.is_whitespace() => return None,
            _ => {}
        }
        before = c;
    }
    open
}

/// Returns the pieces of a YAML map: each entry with the lines that are indented below it, and each other line.
fn yaml_chunks(text: &str) -> Vec<&str> {
    let (mut chunks, mut start, mut end) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let more = line.starts_with([' ', '\t']) && end > start;
        if !more && end > start {
            chunks.push(&text[start..end]);
            start = end;
        }
        end += line.len();
    }
    if start < end {
        chunks.push(&text[start..end]);
    }
    chunks
}

fn name_of(chunk: &str, form: Form) -> Option<&str> {
    let (name, _) = match form {
        Form::Dotenv => chunk.split_once('=')?,
        Form::Yaml => chunk.split_once(':')?,
    };
    let name = name.trim();
    match form {
        Form::Dotenv => Some(name.strip_prefix("export ").map_or(name, str::trim_start)),
        Form::Yaml => Some(name.trim_matches(['"', '\''])),
    }
}

/// Returns a value as it is written in a dotenv file.
fn quoted(value: &str) -> Zeroizing<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return Zeroizing::new(value.to_owned());
    }
    if !value.contains(['\'', '\\', '\n', '\r']) {
        return Zeroizing::new(format!("'{value}'"));
    }
    let mut quoted = Zeroizing::new(String::with_capacity(value.len() * 2 + 2));
    quoted.push('"');
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str, form: Form) -> Vec<(String, String)> {
        let entries = parse(text, form).unwrap();
        let mut shown: Vec<_> = entries.iter().map(|(k, v)| (k.clone(), v.expose_secret().to_owned())).collect();
        shown.sort();
        shown
    }

    fn after(text: &str, form: Form, value: &str) -> String {
        set(text, form, "B", &value.into()).unwrap().to_string()
    }

    #[test]
    fn an_entry_is_set_in_its_place_and_the_rest_stays() {
        let text = "# for all\nA='1 # x'\nexport B=2 # old\n\nC=\"3\nB=no\n\"\n";
        assert_eq!(after(text, Form::Dotenv, "new"), text.replace("B=2 # old", "B=new"));
        assert_eq!(after("A=1", Form::Dotenv, "x y"), "A=1\nB='x y'\n");
        assert_eq!(after("", Form::Dotenv, "it's $5\n"), "B=\"it's \\$5\\n\"\n");
        assert_eq!(after("B=1\nB=2\n", Form::Dotenv, "3"), "B=1\nB=3\n", "the last one counts");
        let text = "# for all\nA: one\nB: |\n  a\n  b\n# more\nC: \"B: 1\"\n";
        assert_eq!(
            after(text, Form::Yaml, "x: \"y\"\n"),
            "# for all\nA: one\nB: \"x: \\\"y\\\"\\n\"\n# more\nC: \"B: 1\"\n"
        );
        assert_eq!(after("", Form::Yaml, "007"), "B: \"007\"\n");
    }

    #[test]
    fn what_cannot_be_set_alone_is_refused() {
        // Another entry is made of it.
        assert!(set("B=1\nA=$B\n", Form::Dotenv, "B", &"2".into()).is_err());
        assert!(set("B=1\nA='\n", Form::Dotenv, "B", &"2".into()).is_err());
        // Not at the beginning of a line.
        assert!(set("{A: x, B: y}\n", Form::Yaml, "B", &"2".into()).is_err());
    }

    #[test]
    fn forms_and_mistakes() {
        assert_eq!(
            ["a.age", "a.env.age", "a.yaml.age", "b/a.yml", ".env"].map(Form::of),
            [Form::Dotenv, Form::Dotenv, Form::Yaml, Form::Yaml, Form::Dotenv]
        );
        assert_eq!(shown("A: x\n\"B\": 'y'\n", Form::Yaml), [("A".into(), "x".into()), ("B".into(), "y".into())]);
        assert_eq!(shown("# nothing\n", Form::Yaml), []);
        for (text, form) in [
            ("A=1\nB='canary\n", Form::Dotenv),
            ("canary canary\n", Form::Dotenv),
            ("A: canary\nA: other\n", Form::Yaml),
            ("- canary\n", Form::Yaml),
            ("canary", Form::Yaml),
            ("A: [canary]\n", Form::Yaml),
            ("A: 123\n", Form::Yaml),
            ("A: \"canary\n", Form::Yaml),
        ] {
            let error = parse(text, form).unwrap_err();
            assert!(!error.contains("canary") && !error.contains("123"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_set_is_read_again(
            value in "[ -~é\n]{1,40}", old in "[a-z '\"]{0,8}", yaml in any::<bool>(), at_end in any::<bool>(),
        ) {
            let form = if yaml { Form::Yaml } else { Form::Dotenv };
            let secret = SecretString::from(value.clone());
            let other = set("", form, "A", &SecretString::from(format!("{old}x"))).unwrap();
            let text = if at_end { other.to_string() } else { format!("{}# more\n", set(&other, form, "B", &"1".into()).unwrap().as_str()) };
            let text = set(&text, form, "B", &secret).unwrap();
            prop_assert_eq!(shown(&text, form), vec![("A".to_owned(), format!("{old}x")), ("B".to_owned(), value)]);
        }
    }
}
