//! `_redirects`: the paths whose requests are answered with a redirect, or with another asset.

use crate::urls::{self, Allowed};
use crate::{Fault, has_placeholder, is_too_long, json, trimmed};

/// The most rules with a fixed path, and with `*` or placeholders. Source: Cloudflare docs, Workers › Static Assets › Redirects (2026), and
/// wrangler.
const MOST_STATIC: usize = 2000;
const MOST_DYNAMIC: usize = 100;
/// The statuses that a redirect may have.
const STATUSES: [u16; 6] = [200, 301, 302, 303, 307, 308];

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The path, which can have `*` and placeholders.
    pub from: String,
    /// The path or address that it points to.
    pub to: String,
    /// The status.
    pub status: u16,
    /// Its line, from 1.
    pub line: usize,
}

/// The rules of a file, and its errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The lines that are no rules.
    pub faults: Vec<Fault>,
}

fn is_dynamic(from: &str) -> bool {
    from.contains('*') || has_placeholder(from)
}

impl Redirects {
    /// Returns the rules in the form in which Cloudflare's own code takes them, as JSON; none if there are none. Dynamic rules keep the order
    /// of the file, as the first that fits counts.
    pub fn to_json(&self) -> Option<String> {
        if self.rules.is_empty() {
            return None;
        }
        let first_dynamic = self.rules.iter().position(|rule| is_dynamic(&rule.from)).unwrap_or(self.rules.len());
        let (fixed, dynamic) = self.rules.split_at(first_dynamic);
        let fixed: Vec<String> = fixed
            .iter()
            .map(|Rule { from, to, status, line }| {
                format!("{}:{{\"status\":{status},\"to\":{},\"lineNumber\":{line}}}", json(from), json(to))
            })
            .collect();
        let dynamic: Vec<String> = dynamic
            .iter()
            .map(|Rule { from, to, status, .. }| format!("{}:{{\"status\":{status},\"to\":{}}}", json(from), json(to)))
            .collect();
        Some(format!("{{\"version\":1,\"staticRules\":{{{}}},\"rules\":{{{}}}}}", fixed.join(","), dynamic.join(",")))
    }
}

/// Reads a file. `has_html_handling`: whether paths of HTML files are changed, so that a redirect to one can come back.
pub fn parse(text: &str, has_html_handling: bool) -> Redirects {
    let mut redirects = Redirects::default();
    let (mut fixed, mut dynamic) = (0, 0);
    for (index, line) in text.split('\n').enumerate() {
        let (line, number) = (trimmed(line), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fault = |message: String| redirects.faults.push(Fault { line: number, message });
        if is_too_long(line) {
            fault("it is longer than 2,000 characters".to_owned());
            continue;
        }
        let words = words(line);
        let (from, to, status) = match words[..] {
            [from, to] => (from, to, "302"),
            [from, to, status] => (from, to, status),
            _ => {
                fault(format!("expected `FROM TO` or `FROM TO STATUS`, and found {} words", words.len()));
                continue;
            }
        };
        let from = match urls::checked(from, Allowed { relative_only: true, ..Allowed::default() }) {
            Ok(from) => from,
            Err(message) => {
                fault(message);
                continue;
            }
        };
        if dynamic == 0 && !is_dynamic(&from) {
            fixed += 1;
            if fixed > MOST_STATIC {
                fault(format!("there are more than {MOST_STATIC} redirects with fixed paths"));
                continue;
            }
        } else {
            dynamic += 1;
            if dynamic > MOST_DYNAMIC {
                fault(format!(
                    "there are more than {MOST_DYNAMIC} redirects from the first one with `*` or a placeholder on; this one and all that \
                     follow have no effect"
                ));
                break;
            }
        }
        match checked((&from, to, status), has_html_handling, &redirects.rules) {
            Ok((to, status)) => redirects.rules.push(Rule { from, to, status, line: number }),
            Err(message) => redirects.faults.push(Fault { line: number, message }),
        }
    }
    redirects
}

/// Returns the words of a line without its comment.
fn words(line: &str) -> Vec<&str> {
    let is_comment = |at: &usize| line[..*at].ends_with(char::is_whitespace);
    let end = line.match_indices('#').map(|(at, _)| at).find(is_comment).unwrap_or(line.len());
    line[..end].split_whitespace().collect()
}

/// Returns the target and the status of a rule. The error is the reason why it can't be used.
fn checked(
    (from, to, status): (&String, &str, &str),
    has_html_handling: bool,
    before: &[Rule],
) -> Result<(String, u16), String> {
    let to = urls::checked(to, Allowed { ports: true, rest: true, ..Allowed::default() })?;
    let status = status.parse::<u16>().ok().filter(|status| STATUSES.contains(status)).ok_or_else(|| {
        format!("the status is 200, 301, 302 (which is the default), 303, 307 or 308, and not `{status}`")
    })?;
    let is_index = to.ends_with("/index") || to.ends_with("/index.html");
    let from_all = from.ends_with("/*");
    if !urls::has_host(&to) && is_index && (from_all || from.ends_with('/') && has_html_handling) {
        return Err("it would redirect without end: `/index` and `.html` are taken away again from the path".to_owned());
    }
    if before.iter().any(|rule| rule.from == *from) {
        return Err(format!("there is a redirect of `{from}` before it"));
    }
    if status == 200 && urls::has_host(&to) {
        return Err(format!("with the status 200, the target is a path, and not `{to}`"));
    }
    Ok((to, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_order() {
        let text = "/z /zz # comment\n/a https://x.example:81/b?q=1#f 301\n/c/* /d/:splat 307\n/late /later\n/p/:id /q 200\nno-slash /x\n";
        let redirects = parse(text, true);
        assert_eq!(redirects.faults, []);
        assert_eq!(
            redirects.to_json().unwrap(),
            "{\"version\":1,\"staticRules\":{\"/z\":{\"status\":302,\"to\":\"/zz\",\"lineNumber\":1},\
             \"/a\":{\"status\":301,\"to\":\"https://x.example:81/b?q=1#f\",\"lineNumber\":2}},\
             \"rules\":{\"/c/*\":{\"status\":307,\"to\":\"/d/:splat\"},\"/late\":{\"status\":302,\"to\":\"/later\"},\
             \"/p/:id\":{\"status\":200,\"to\":\"/q\"},\"/no-slash\":{\"status\":302,\"to\":\"/x\"}}}"
        );
        assert_eq!(parse("# none", true).to_json(), None);
    }

    #[test]
    fn each_wrong_line_is_named() {
        let text = "/one\n/a b c d\nhttps://x.example/a /b\n/c relative\n/d /e 404\n/* /index.html\n/ /index\n/f /g\n/f /h\n/i https://x.example 200\n";
        let lines = |has_html| -> Vec<usize> { parse(text, has_html).faults.iter().map(|fault| fault.line).collect() };
        assert_eq!(lines(true), [1, 2, 3, 4, 5, 6, 7, 9, 10]);
        assert_eq!(lines(false), [1, 2, 3, 4, 5, 6, 9, 10]);
        let many: String = (0..102).map(|number| format!("/{number}/* /x\n")).collect();
        let redirects = parse(&many, true);
        assert_eq!((redirects.rules.len(), redirects.faults.len(), redirects.faults[0].line), (100, 1, 101));
        let many: String = (0..2002).map(|number| format!("/{number} /x\n")).collect();
        assert_eq!((parse(&many, true).rules.len(), parse(&many, true).faults.len()), (2000, 2));
    }
}
