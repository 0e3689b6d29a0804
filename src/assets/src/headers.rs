//! `_headers`: the headers that answers with certain paths get, or lose.

use crate::urls::{self, Allowed};
use crate::{Fault, has_placeholder, is_too_long, json, trimmed};

/// The most rules. Source: Cloudflare docs, Workers › Static Assets › Headers (2026), and wrangler.
const MOST_RULES: usize = 100;

/// The headers of the answers with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The path, or the address with its host, which can have `*` and placeholders.
    pub path: String,
    /// The headers that are set, by their names in lower case.
    pub set: Vec<(String, String)>,
    /// The headers that are removed.
    pub unset: Vec<String>,
}

/// The rules of a file, and its errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The lines that are no rules.
    pub faults: Vec<Fault>,
}

impl Headers {
    /// Returns the rules in the form in which Cloudflare's own code takes them, as JSON; none if there are none. In the order of the file,
    /// as the order decides.
    pub fn to_json(&self) -> Option<String> {
        if self.rules.is_empty() {
            return None;
        }
        // A path that is written twice has the later headers, in the place of the first.
        let mut rules: Vec<&Rule> = Vec::new();
        for rule in &self.rules {
            match rules.iter_mut().find(|other| other.path == rule.path) {
                Some(other) => *other = rule,
                None => rules.push(rule),
            }
        }
        let rule = |rule: &&Rule| {
            let set: Vec<String> =
                rule.set.iter().map(|(name, value)| format!("{}:{}", json(name), json(value))).collect();
            let unset: Vec<String> = rule.unset.iter().map(|name| json(name)).collect();
            let parts = [
                (!set.is_empty()).then(|| format!("\"set\":{{{}}}", set.join(","))),
                (!unset.is_empty()).then(|| format!("\"unset\":[{}]", unset.join(","))),
            ];
            format!("{}:{{{}}}", json(&rule.path), parts.into_iter().flatten().collect::<Vec<_>>().join(","))
        };
        let rules: Vec<String> = rules.iter().map(rule).collect();
        Some(format!("{{\"version\":2,\"rules\":{{{}}}}}", rules.join(",")))
    }
}

/// A rule that is being read, and its line.
struct Open {
    rule: Rule,
    line: usize,
}

/// Reads a file.
pub fn parse(text: &str) -> Headers {
    let mut headers = Headers::default();
    let mut open: Option<Open> = None;
    // What follows a path that can't be used belongs to it.
    let mut is_skipped = false;
    let lines: Vec<&str> = text.split('\n').collect();
    for (index, line) in lines.iter().enumerate() {
        let (line, number) = (trimmed(line), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if is_too_long(line) {
            headers.fault(number, "it is longer than 2,000 characters".to_owned());
            continue;
        }
        if is_path(line) {
            is_skipped = false;
            headers.close(open.take());
            if headers.rules.len() >= MOST_RULES {
                headers.fault(
                    number,
                    format!("there are more than {MOST_RULES} rules; this one and all that follow have no effect"),
                );
                break;
            }
            match path(line) {
                Ok(path) => open = Some(Open { rule: Rule { path, set: Vec::new(), unset: Vec::new() }, line: number }),
                Err(message) => {
                    headers.fault(number, message);
                    is_skipped = true;
                }
            }
            continue;
        }
        if is_skipped {
            continue;
        }
        if let Err(message) = add(open.as_mut(), line) {
            headers.fault(number, message);
        }
    }
    headers.close(open);
    headers
}

impl Headers {
    fn fault(&mut self, line: usize, message: String) {
        self.faults.push(Fault { line, message });
    }

    fn close(&mut self, open: Option<Open>) {
        let Some(Open { rule, line }) = open else { return };
        match rule.set.is_empty() && rule.unset.is_empty() {
            true => self.fault(line, format!("no headers follow the path `{}`", rule.path)),
            false => self.rules.push(rule),
        }
    }
}

/// Returns whether a line is a path, rather than a header.
fn is_path(line: &str) -> bool {
    line.starts_with('/')
        || line.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains(char::is_whitespace))
}

fn path(line: &str) -> Result<String, String> {
    let path = urls::checked(line, Allowed::default())?;
    let wildcards = path.matches('*').count();
    if wildcards > 1 {
        return Err(format!("`{path}` has more than one `*`: use a placeholder, such as `:project`"));
    }
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let has_splat = path.match_indices(":splat").any(|(at, _)| !path[at + 6..].starts_with(is_word));
    if wildcards > 0 && has_splat && has_placeholder(&path) {
        return Err(format!("`{path}` has both `*` and `:splat`, which are the same"));
    }
    Ok(path)
}

/// Adds a header to the rule that it follows.
fn add(open: Option<&mut Open>, line: &str) -> Result<(), String> {
    let Some((name, value)) = line.split_once(':') else {
        let Some(open) = open else { return Err("a path has to come first: it begins with `/`".to_owned()) };
        return match line.strip_prefix("! ") {
            Some(name) => {
                open.rule.unset.push(name.to_owned());
                Ok(())
            }
            None => Err("expected a header: `name: value`, or `! name` to remove it".to_owned()),
        };
    };
    let (name, value) = (trimmed(name).to_lowercase(), trimmed(value));
    if name.contains(' ') {
        return Err(format!("the name of a header has no spaces: `{name}`"));
    }
    if name.is_empty() {
        return Err("the header has no name".to_owned());
    }
    if value.is_empty() {
        return Err(format!("the header `{name}` has no value"));
    }
    let Some(open) = open else { return Err(format!("a path has to come before the header `{name}`")) };
    match open.rule.set.iter_mut().find(|(other, _)| *other == name) {
        Some((_, values)) => *values = format!("{values}, {value}"),
        None => open.rule.set.push((name, value.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_order() {
        let text = "# c\r\n/z/*\r\n  X-One: 1\r\n  x-one: two: three\n  ! Server\nhttps://a.example/x y\n  A: b\n/z/*\n B: c\n";
        let headers = parse(text);
        assert_eq!(headers.faults, []);
        assert_eq!(
            headers.to_json().unwrap(),
            r#"{"version":2,"rules":{"/z/*":{"set":{"b":"c"}},"https://a.example/x%20y":{"set":{"a":"b"}}}}"#
        );
        assert_eq!(headers.rules[0].set, [("x-one".to_owned(), "1, two: three".to_owned())]);
        assert_eq!(headers.rules[0].unset, ["Server"]);
        assert_eq!(parse("\n# nothing\n").to_json(), None);
    }

    #[test]
    fn each_wrong_line_is_named() {
        let text = "X: early\n/a\n/b*c*\n X: of a skipped path\n/c\n nonsense\n y z: 1\n : 1\n E:\n X: 1\n/*/:splat\nftp://x\n/last";
        let faults: Vec<(usize, String)> =
            parse(text).faults.into_iter().map(|fault| (fault.line, fault.message)).collect();
        let lines: Vec<usize> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 6, 7, 8, 9, 11, 12, 13], "{faults:?}");
        let many: String = (0..102).map(|number| format!("/{number}\n A: b\n")).collect();
        let headers = parse(&many);
        assert_eq!((headers.rules.len(), headers.faults.len(), headers.faults[0].line), (100, 1, 201));
    }
}
