//! Texts of names and values, as dotenv lines or as a YAML map: reads them, and sets one entry without touching the
//! others. Doesn't know where a text comes from; its errors quote nothing of a broken one.

use std::collections::HashMap;
use std::ops::Range;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::dotenv;
use crate::yaml::{self, Kind, Node};

/// The number of errors of a file that are reported.
const SHOWN: usize = 10;

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
            let (entries, wrong) = dotenv::read(text);
            if !wrong.is_empty() {
                return Err(reported(&wrong));
            }
            Ok(entries.iter().map(|entry| (entry.name.to_owned(), SecretString::from(entry.value.as_str()))).collect())
        }
        Form::Yaml => yaml_entries(text),
    }
}

/// Returns the errors of a dotenv text with their places, and how to fix them: nothing of a value is in them.
fn reported(wrong: &[dotenv::Wrong]) -> String {
    let reported = wrong.iter().map(|wrong| {
        format!("line {}, column {}: {} ({})", wrong.span.line, wrong.span.column, wrong.message, wrong.help)
    });
    joined(&reported.collect::<Vec<_>>())
}

/// Joins the errors of one file.
fn joined(errors: &[String]) -> String {
    let shown = &errors[..errors.len().min(SHOWN)];
    let more = errors.len() - shown.len();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    shown.join("; ") + &more
}

/// Reads a YAML map of names to texts. Of the parser's error only the line is repeated: the rest may quote a value.
fn yaml_entries(text: &str) -> Result<HashMap<String, SecretString>, String> {
    let wrong = |line: usize| format!("near line {line}: it has to be a YAML map of names to texts, each name once");
    let (document, diagnostics) = yaml::parse("", text.as_bytes());
    let mut errors: Vec<String> = diagnostics.iter().map(|diagnostic| wrong(diagnostic.place.line)).collect();
    let mut values = HashMap::new();
    match document.map(|document| document.root) {
        Some(Node { kind: Kind::Map(entries), .. }) => {
            for (name, _, node) in entries {
                match node.kind {
                    Kind::Text(value) => drop(values.insert(name, SecretString::from(value))),
                    _ => errors.push(format!("the value of {name} is not text: write it in quotes")),
                }
            }
        }
        Some(node) => errors.push(wrong(node.span.line)),
        None => {}
    }
    if errors.is_empty() { Ok(values) } else { Err(joined(&errors)) }
}

/// Returns the text with one entry set: in its place if it is there, else at the end. All other lines stay as they are; if that
/// can't be, nothing is changed.
pub fn set(text: &str, form: Form, name: &str, value: &SecretString) -> Result<Zeroizing<String>, String> {
    let before = parse(text, form)?;
    let value = value.expose_secret();
    let written = match form {
        Form::Dotenv => {
            let value = dotenv::written(value).ok_or(UNQUOTABLE)?;
            let (entries, _) = dotenv::read(text);
            entries.iter().rfind(|entry| entry.name == name).map_or_else(
                || with_line(text, &format!("{name}={}", value.as_str())),
                |entry| spliced(text, entry.written.start..entry.lines.end, &value),
            )
        }
        Form::Yaml => {
            // A JSON text is a YAML text.
            let line = Zeroizing::new(format!("{name}: {}\n", serde_json::Value::from(value)));
            let chunks = yaml_chunks(text);
            let own = chunks.iter().rposition(|(_, chunk)| yaml_name(chunk) == Some(name));
            match own.map(|index| chunks[index]) {
                Some((start, chunk)) => spliced(text, start..start + chunk.len(), &line),
                None => with_line(text, line.trim_end()),
            }
        }
    };
    let after = parse(&written, form).map_err(|_| CANNOT.to_owned())?;
    let same = |(other, old): (&String, &SecretString)| {
        other == name || after.get(other).is_some_and(|new| new.expose_secret() == old.expose_secret())
    };
    let own = after.get(name).is_some_and(|new| new.expose_secret() == value);
    let number = before.len() + usize::from(!before.contains_key(name));
    if own && after.len() == number && before.iter().all(same) { Ok(written) } else { Err(CANNOT.to_owned()) }
}

const CANNOT: &str = "the entry can't be set without changing others: edit it by hand";
const UNQUOTABLE: &str = "lines `NAME=value` can't hold the value: it has a character that ends single quotes or is lost in them (`'`, a `\\` at \
                          the end, a carriage return), and one that double quotes can't hold (`$`, `\"`, `\\`, a control character): a \
                          file of age's whose name ends in `.yaml.age` holds any text (`--source secrets.yaml.age`, listed under `secrets` \
                          in fleet.yaml)";

/// Returns the text with a part replaced.
fn spliced(text: &str, part: Range<usize>, new: &str) -> Zeroizing<String> {
    let mut written = Zeroizing::new(String::with_capacity(text.len() + new.len()));
    written.push_str(&text[..part.start]);
    written.push_str(new);
    written.push_str(&text[part.end..]);
    written
}

/// Returns the text with a line at its end.
fn with_line(text: &str, line: &str) -> Zeroizing<String> {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut written = Zeroizing::new(String::with_capacity(text.len() + line.len() + 2));
    for part in [text, end, line, "\n"] {
        written.push_str(part);
    }
    written
}

/// Returns the pieces of a YAML map with their offsets: each entry with the lines that are indented below it, and each other line.
fn yaml_chunks(text: &str) -> Vec<(usize, &str)> {
    let (mut chunks, mut start, mut end) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let more = line.starts_with([' ', '\t']) && end > start;
        if !more && end > start {
            chunks.push((start, &text[start..end]));
            start = end;
        }
        end += line.len();
    }
    if start < end {
        chunks.push((start, &text[start..end]));
    }
    chunks
}

fn yaml_name(chunk: &str) -> Option<&str> {
    let (name, _) = chunk.split_once(':')?;
    Some(name.trim().trim_matches(['"', '\'']))
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
        assert_eq!(after("", Form::Dotenv, "it's 5\n"), "B=\"it's 5\\n\"\n");
        assert_eq!(after("", Form::Dotenv, "$5\n#\""), "B='$5\n#\"'\n");
        assert_eq!(after("", Form::Dotenv, "it's \"x\""), "B=it's \"x\"\n");
        assert_eq!(after("B=1\nB=2\n", Form::Dotenv, "3"), "B=1\nB=3\n", "the last one counts");
        let text = "# for all\nA: one\nB: |\n  a\n  b\n# more\nC: \"B: 1\"\n";
        assert_eq!(
            after(text, Form::Yaml, "x: \"y\"\n"),
            "# for all\nA: one\nB: \"x: \\\"y\\\"\\n\"\n# more\nC: \"B: 1\"\n"
        );
        assert_eq!(after("", Form::Yaml, "007"), "B: \"007\"\n");
    }

    #[test]
    fn all_errors_of_a_file_are_reported_at_once_and_no_value() {
        let found = parse("A: [canary]\nB: 5\nC: ok\nC: canary\nD: 1.10\n", Form::Yaml).err().unwrap();
        for part in ["near line 4", "near line 5", "the value of A is not text", "the value of B is not text"] {
            assert!(found.contains(part), "{part} is missing in {found}");
        }
        assert!(!found.contains("canary"), "{found}");
    }

    #[test]
    fn what_cannot_be_set_alone_is_refused() {
        let refused = set("B=1\nA=$B\n", Form::Dotenv, "B", &"2".into());
        assert!(refused.is_err_and(|why| !why.contains("can't hold")), "others would read another value");
        let refused = set("B=1\n", Form::Dotenv, "B", &"it's $2".into()).unwrap_err();
        assert!(
            refused.contains("can't hold the value") && refused.contains("`.yaml.age` holds any text"),
            "{refused}"
        );
        assert!(!refused.contains("changing others") && !refused.contains("it's $2"), "{refused}");
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
            // What no dotenv file can hold is refused: see `dotenv::written`.
            if !yaml && (dotenv::written(&value).is_none() || dotenv::written(&format!("{old}x")).is_none()) {
                prop_assert!(set("A=1\n", form, "B", &SecretString::from(value.clone())).is_err() || dotenv::written(&value).is_some());
                return Ok(());
            }
            let secret = SecretString::from(value.clone());
            let other = set("", form, "A", &SecretString::from(format!("{old}x"))).unwrap();
            let text = if at_end { other.to_string() } else { format!("{}# more\n", set(&other, form, "B", &"1".into()).unwrap().as_str()) };
            let text = set(&text, form, "B", &secret).unwrap();
            prop_assert_eq!(shown(&text, form), vec![("A".to_owned(), format!("{old}x")), ("B".to_owned(), value)]);
        }
    }
}
