//! The text of specs, layers, fleet.yaml and env files as it is shown: without the secrets in variables, line for line. Knows where values
//! are written; what a secret is, `credential` decides.

use std::ops::Range;

use flotilla_model::credential::{self, STARS};

use crate::dotenv;
use crate::yaml::{Extent, Node, Shape, extents, parse};

/// Returns the text of a file, with stars for the secrets in its variables. It has the same lines.
pub fn without_secrets(file: &str, text: &str) -> String {
    let mut secrets = Vec::new();
    if file.ends_with(".yaml") {
        if text.trim().is_empty() {
            return text.to_owned();
        }
        match (extents(text), parse(file, text.as_bytes()).0) {
            (Some(extent), Some(document)) => find(text, &extent, &document.root, &mut Vec::new(), &mut secrets),
            // The locations are unknown.
            _ => secrets.push(0..text.len()),
        }
    } else {
        let (entries, _) = dotenv::read(text);
        let found = entries.iter().filter(|entry| credential::is_credential(entry.name, &entry.value));
        secrets.extend(found.map(|entry| entry.written.clone()));
    }
    let mut shown = String::with_capacity(text.len());
    let mut end = 0;
    for secret in secrets {
        shown += &text[end..secret.start];
        shown += &stars(&text[secret.clone()]);
        end = secret.end;
    }
    shown + &text[end..]
}

/// Finds where secrets are written, in the order of the text.
fn find(text: &str, extent: &Extent, node: &Node, path: &mut Vec<String>, secrets: &mut Vec<Range<usize>>) {
    match &extent.shape {
        Shape::Map { entries, .. } => {
            for entry in entries {
                let Some(value) = node.get(&entry.key) else { continue };
                path.push(entry.key.clone());
                find(text, &entry.value, value, path, secrets);
                path.pop();
            }
        }
        Shape::List { items, .. } => {
            for (index, (_, item)) in items.iter().enumerate() {
                let step = index.to_string();
                let Some(value) = node.get(&step) else { continue };
                path.push(step);
                find(text, item, value, path, secrets);
                path.pop();
            }
        }
        // What an alias stands for can be a list or a map.
        Shape::Empty | Shape::Plain | Shape::Quoted(_) | Shape::Block => {
            let value = node.to_value();
            if credential::masked(path, value.clone()) != value {
                let start = match extent.shape {
                    // Its first line has only `|` or `>`.
                    Shape::Block => {
                        text[extent.start..extent.end].find('\n').map_or(extent.end, |head| extent.start + head)
                    }
                    _ => extent.start,
                };
                secrets.push(start..extent.end);
            }
        }
    }
}

/// Returns stars in place of what each line of a text has.
fn stars(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let content = line.trim();
        if content.is_empty() { line.to_owned() } else { line.replace(content, STARS) }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_written() {
        let text = "id: a\nvars:\n  API_TOKEN: hunter2  # why\n  OK: fine\n  TEXT: |\n    one\n\n    -----BEGIN PRIVATE KEY-----\n    MII\n  \
                    LIST: [ghp_0123456789abcdefghij, 'b']\n  MORE:\n    - \"gh\\x70_0123456789abcdefghij\"\nenvironments:\n  staging: { vars: { \
                    PASSWORD: \"a, b\\\"}\", X: y } }\nsecrets: { API_TOKEN: { secret: NAME } }\n";
        let shown = "id: a\nvars:\n  API_TOKEN: ********  # why\n  OK: fine\n  TEXT: |\n    ********\n\n    ********\n    ********\n  \
                     LIST: [********, 'b']\n  MORE:\n    - ********\nenvironments:\n  staging: { vars: { PASSWORD: ********, X: y } }\n\
                     secrets: { API_TOKEN: { secret: NAME } }\n";
        assert_eq!(without_secrets("customers/a.yaml", text), shown);
        assert_eq!(without_secrets("customers/a.yaml", &text.replace('\n', "\r\n")), shown.replace('\n', "\r\n"));
        let env = "A=fine\n# API_KEY=x\nAPI_KEY='one\ntwo'\nexport URL=https://a:b@c.example # d\n";
        assert_eq!(
            without_secrets("customers/a.env", env),
            "A=fine\n# API_KEY=x\nAPI_KEY=********\n********\nexport URL=******** # d\n"
        );
        for text in ["", "\n", "id: a\n"] {
            assert_eq!(without_secrets("customers/a.yaml", text), text);
        }
        assert_eq!(
            without_secrets("customers/a.yaml", "vars: { A: [\nb: c\n"),
            "********\n********\n",
            "what nobody can read"
        );
    }
}
