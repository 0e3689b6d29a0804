//! Diagnostics as SARIF 2.1.0, for code scanning. Doesn't know who reads it.

use std::collections::HashMap;

use serde_json::{Value, json};

use flotilla_build::policy::Suppressed;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::Framed;
use flotilla_model::explanation::{self, explanation};

/// The name by which paths refer to the repository's root.
const ROOT: &str = "SRCROOT";

/// Returns one run: the rules, and a result for each diagnostic, the suppressed ones included. `prefix` is the path
/// of the project in the repository.
pub fn log(prefix: &str, diagnostics: &[Diagnostic], suppressed: &[Suppressed]) -> Value {
    let mut seen = HashMap::new();
    let results = diagnostics.iter().map(|diagnostic| result(prefix, diagnostic, &mut seen)).collect::<Vec<_>>();
    let off = suppressed.iter().map(|Suppressed { diagnostic, reason }| {
        let mut result = result(prefix, diagnostic, &mut seen);
        result["suppressions"] = json!([{"kind": "external", "status": "accepted", "justification": reason}]);
        result
    });
    let results: Vec<Value> = results.into_iter().chain(off).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "flotilla",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules(env!("CARGO_PKG_REPOSITORY")),
            }},
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": {ROOT: {"description": {"text": "The root of the repository."}}},
            "results": results,
        }],
    })
}

/// Returns a rule for each code. An address of help has to be absolute in SARIF: there is one once Cargo.toml names
/// the repository; the rule has the help's text in any case.
fn rules(repository: &str) -> Vec<Value> {
    Code::ALL
        .iter()
        .map(|code| {
            let explanation = explanation(*code);
            let mut rule = json!({
                "id": code,
                "name": format!("{code:?}"),
                "shortDescription": {"text": explanation.meaning},
                "fullDescription": {"text": format!("{} {}", explanation.meaning, explanation.why)},
                "help": {"text": explanation.fix, "markdown": explanation.markdown},
                "defaultConfiguration": {"level": explanation.severity},
            });
            if !repository.is_empty() {
                let anchor = code.as_str().to_lowercase();
                rule["helpUri"] = format!("{repository}/blob/HEAD/{}#{anchor}", explanation::PATH).into();
            }
            rule
        })
        .collect()
}

/// Returns the result of a diagnostic. `seen` counts the results of a file with the same words.
fn result<'a>(prefix: &str, diagnostic: &'a Diagnostic, seen: &mut HashMap<(Code, &'a str, &'a str), usize>) -> Value {
    let Diagnostic { code, severity, message, place, help, related } = diagnostic;
    let occurrence = seen.entry((*code, &place.file, message)).or_default();
    *occurrence += 1;
    let mut result = json!({
        "ruleId": code,
        "ruleIndex": Code::ALL.iter().position(|other| other == code),
        "level": severity,
        "message": {"text": format!("{message}\n{help}")},
        "locations": [{"physicalLocation": location(prefix, place)}],
        // Neither line nor column: a line added above makes no new alert.
        "partialFingerprints": {"flotilla/v1": fingerprint(diagnostic, *occurrence)},
    });
    if !related.is_empty() {
        let related = related.iter().enumerate().map(|(id, (place, label))| {
            json!({"id": id, "message": {"text": label}, "physicalLocation": location(prefix, place)})
        });
        result["relatedLocations"] = related.collect();
    }
    result
}

fn fingerprint(diagnostic: &Diagnostic, occurrence: usize) -> String {
    let framed = Framed::new("diagnostic").field(diagnostic.code.as_str().as_bytes());
    let framed = framed.field(diagnostic.place.file.as_bytes()).field(diagnostic.message.as_bytes());
    framed.field(occurrence.to_string().as_bytes()).finish().short()
}

fn location(prefix: &str, place: &Place) -> Value {
    let mut location = json!({"artifactLocation": {"uri": uri(&format!("{prefix}{}", place.file)), "uriBaseId": ROOT}});
    if place.line > 0 {
        location["region"] =
            json!({"startLine": place.line, "startColumn": place.column, "endColumn": place.column + place.width});
    }
    location
}

/// A path as a relative reference: all but what RFC 3986 leaves unreserved is escaped, and `/`.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprints(diagnostics: &[Diagnostic]) -> Vec<String> {
        let log = log("", diagnostics, &[]);
        let results = log["runs"][0]["results"].as_array().expect("results").clone();
        results.iter().map(|result| result["partialFingerprints"]["flotilla/v1"].to_string()).collect()
    }

    #[test]
    fn fingerprints_outlive_lines_that_shift() {
        let diagnostic = |line, message: &str| {
            let place = Place { file: "customers/acme.yaml".to_owned(), line, column: 3, width: 4 };
            Diagnostic::error(Code::UnknownKey, place, message, "fix it")
        };
        let before = fingerprints(&[
            diagnostic(4, "unknown key `a`"),
            diagnostic(9, "unknown key `a`"),
            diagnostic(9, "unknown key `b`"),
        ]);
        let after = fingerprints(&[
            diagnostic(5, "unknown key `a`"),
            diagnostic(10, "unknown key `a`"),
            diagnostic(10, "unknown key `b`"),
        ]);
        assert_eq!(before, after);
        let unique: std::collections::HashSet<&String> = before.iter().collect();
        assert_eq!(unique.len(), 3);
    }

    #[test]
    fn the_help_has_an_address_where_the_repository_has_one() {
        assert!(rules("").iter().all(|rule| rule.get("helpUri").is_none()));
        let rules = rules("https://git.example/fleet");
        let index = Code::ALL.iter().position(|code| *code == Code::UnknownKey).expect("a code");
        assert_eq!(rules[index]["helpUri"], "https://git.example/fleet/blob/HEAD/docs/reference/diagnostics.md#s0201");
    }

    #[test]
    fn paths_are_references() {
        assert_eq!(uri("customers/café %0A\n#?.yaml"), "customers/caf%C3%A9%20%250A%0A%23%3F.yaml");
        assert_eq!(uri("customers/a:b.yaml"), "customers/a%3Ab.yaml");
    }
}
