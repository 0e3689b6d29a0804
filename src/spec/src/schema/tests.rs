//! Faults of documents, and their messages.

use super::*;
use crate::yaml;
use serde_json::{Map, json};

fn check(checker: &Checker, text: &str) -> Vec<String> {
    let (document, diagnostics) = yaml::parse("t.yaml", text.as_bytes());
    assert_eq!(diagnostics, vec![]);
    let document = document.unwrap();
    let value = document.root.to_value();
    flotilla_model::diagnostic::sorted(checker.check(&document, &[], &value, "a customer"))
        .iter()
        .map(|d| format!("{} {} {}; {}", d.code, d.place, d.message, d.help))
        .collect()
}

#[test]
fn the_schemas_compile_and_are_valid() {
    for schema in [customer(None), fleet(None), pack()] {
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error} in {schema:#}"));
        Checker::new(schema).map_err(|error| panic!("{error}")).ok();
    }
}

#[test]
fn the_schemas_of_a_fleet_without_destination_types_are_valid_and_take_no_destinations() {
    let none = Map::new();
    for schema in [customer(Some(&none)), layer(Some(&none)), fleet(Some(&none))] {
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error} in {schema:#}"));
    }
    let checker = Checker::new(customer(Some(&none))).map_err(|error| panic!("{error}")).unwrap();
    assert!(checker.is_valid(&json!({"id": "acme", "destinations": []})));
    assert!(!checker.is_valid(&json!({"id": "acme", "destinations": [{"name": "A", "type": "posthog"}]})));
}

#[test]
fn mistakes_are_told_in_the_authors_terms() {
    let checker = Checker::customer();
    assert_eq!(check(checker, "id: acme\nenvironments:\n  production:\n  staging: {workersDev: true}\n"), [""; 0]);
    assert_eq!(
        check(checker, "id: acme\ntrusted_origins: []\nworkersDev: on\nlogLevel: verbos\ndomains: a.example\n"),
        [
            "S0201 t.yaml:2:1 unknown key `trusted_origins` in a customer; did you mean `trustedOrigins`?",
            "S0202 t.yaml:3:13 `workersDev` must be true or false, but is \"on\"; write `true`: in YAML 1.2, on and yes are text",
            "S0204 t.yaml:4:11 `logLevel` can't be \"verbos\"; allowed: debug, info, warn, error",
            "S0202 t.yaml:5:10 `domains` must be a list, but is \"a.example\"; write it as a list: `[a.example]`",
        ]
    );
    let found = check(checker, "id: acme\ndatabase: {type: turso, url: libsql://a.turso.io, token: eyJhbGciOi}\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("S0206 t.yaml:2:58 `database.token` must be a reference"), "{found:?}");
    for token in ["{secret: eyJ}", "[eyJ]", "{eyJ: }", "{secrt: eyJ}", "{secret: [eyJ]}"] {
        let found =
            check(checker, &format!("id: acme\ndatabase: {{type: turso, url: libsql://a.b, token: {token}}}\n"));
        assert!(found.iter().all(|message| message.starts_with("S0206") && !message.contains("eyJ")), "{found:?}");
    }
    let bound = |binding: &str| check(checker, &format!("id: acme\nbindings:\n  B: {binding}\n"));
    for right in [
        "{kv: 0f3f6a109a4e4c518f5c2b7d1d2f9a01}",
        "{r2: a, jurisdiction: null}",
        "null",
        "{ai: true}",
        "{durableObject: Counter}",
    ] {
        assert_eq!(bound(right), [""; 0], "{right}");
    }
    for (wrong, message) in [
        ("{kv: 12ab}", "S0205 t.yaml:3:11 `bindings.B.kv` is invalid: \"12ab\"; expected an id of 32 characters: digits, and letters from a to f".to_owned()),
        ("jobs", "S0202 t.yaml:3:6 `bindings.B` must be a map, but is text; write it as a map: `key: value`".to_owned()),
        ("{queu: jobs}", "S0201 t.yaml:3:7 unknown key `queu` in `bindings.B`; did you mean `queue`?".to_owned()),
        ("{queue: jobs, jurisdiction: eu}", "S0210 t.yaml:3:20 `jurisdiction` doesn't belong to the type of `bindings.B`; its type takes queue".to_owned()),
        ("{workflow: flow}", "S0203 t.yaml:3:6 `bindings.B` has no `class`; add `class`: workflow: the class of the workflow".to_owned()),
        ("{ai: false}", "S0204 t.yaml:3:11 `bindings.B.ai` can't be false; expected true".to_owned()),
    ] {
        assert_eq!(bound(wrong), [message], "{wrong}");
    }
    let both = bound("{r2: files, queue: jobs}");
    assert_eq!(both.len(), 1, "{both:?}");
    assert!(
        both[0].starts_with("S0210 t.yaml:3:6 `bindings.B` matches none or several of the allowed forms"),
        "{both:?}"
    );
    assert_eq!(check(checker, "id: acme\nplacement: smart\nlimits: {cpuMs: 50}\n"), [""; 0]);
    let placed = check(checker, "id: acme\nplacement: clever\n");
    assert_eq!(placed.len(), 1, "{placed:?}");
    let found = check(checker, "id: acme\ndestinations:\n- {name: A, type: b, settings: {}, enbled: true}\n");
    assert_eq!(found, ["S0201 t.yaml:3:36 unknown key `enbled` in `destinations[0]`; did you mean `enabled`?"]);
    let found = check(checker, "name: 12\nenvironments: {stagin: {}}\n");
    assert!(found[1].contains("write it in quotes: \"12\""), "{found:?}");
    assert!(found[2].contains("`stagin`") && found[2].contains("did you mean `staging`?"), "{found:?}");
}

#[test]
fn a_name_for_a_secret() {
    assert_eq!(secret_name("accessToken", "a destination of type meta-pixel"), "META_PIXEL_ACCESS_TOKEN");
    assert_eq!(secret_name("token", "a customer"), "TOKEN");
    assert_eq!(secret_name("WEBHOOK_KEY", "a customer"), "WEBHOOK_KEY");
}
