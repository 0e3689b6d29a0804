//! Shows: an error hides no other, and nothing is reported that only follows from one. A project with something of every kind is broken
//! in one place, then in two, in every combination: two errors show exactly what each of them shows alone.

use std::collections::BTreeSet;

use flotilla_build::build::open_and_scan;
use flotilla_model::diagnostic::{Diagnostic, Severity};
use flotilla_model::progress::Silent;

use super::cases::tiny;
use super::support::{Project, copy};

const FLEET: &str = r#"name: test
workerName: "{pack-prefix}-{customer}"
packs:
  tiny: { path: templates/tiny }
  other: { path: templates/other }
accounts:
  main: { id: 0f3f6a109a4e4c518f5c2b7d1d2f9a01, token: { secret: MAIN_TOKEN }, subdomain: main }
  eu:
    id: { env: EU_ACCOUNT }
    token: { secret: EU_TOKEN }
    dispatchNamespace: customers
    dispatch: { worker: gate }
defaults:
  account: main
  pack: tiny
  workersDev: false
  logLevel: info
  labels: { tier: basic }
diagnostics:
  - { code: N0309, customers: [quiet], severity: off, reason: called by others only }
layers:
  gold: { when: { tier: gold } }
  listed:
  settings: { envFiles: settings }
sharedWorkers:
  gate:
    account: eu
    routes: [{ pattern: "*.example.com/*", zone: example.com }]
  api: { domains: [api.shared.example], environments: { staging: { domains: [api.staging.example] } } }
zones: [eu.shop.example]
sharedHosts: [common.example]
secrets:
  - { dotenv: .env, names: [SHOP_*, TURSO_AUTH_TOKEN, PIXEL_TOKEN], purpose: workers }
  - { age: fleet.age, identity: { env: FLEET_KEY }, purpose: deploy }
previews: { from: staging, days: 7 }
deploy:
  waves: [{ name: canary, count: 1 }]
"#;

const FILES: [(&str, &str); 13] = [
    ("fleet.yaml", FLEET),
    ("layers/gold.yaml", "domains+: [gold.main.example]\nvars: { TIER: gold }\ncrons: [\"0 * * * *\"]\n"),
    ("layers/listed.yaml", "pack: other\nlogLevel: warn\nobservability: { enabled: true }\n"),
    ("settings/base/all.env", "REGION=eu\n"),
    ("settings/customers/env/production.env", "REGION=us\n"),
    (
        "customers/acme.yaml",
        "id: acme\nlabels: { tier: gold }\ndomains: [acme.main.example]\nservices: { API: api }\nvars: { API_URL: { workerUrl: api } }\n\
         secrets: { KEY: { secret: SHOP_KEY } }\nenvironments: { staging: { domains: [staging.acme.example] } }\n\
         database: { type: d1, name: \"{customer}-{environment}\" }\n",
    ),
    ("customers/dispatched.yaml", "id: dispatched\naccount: eu\ndomains: [dispatched.example.com]\n"),
    ("customers/env.yaml", "id: env\nlayers: [settings]\ndomains: [env.main.example]\n"),
    ("customers/one.yaml", "id: one\nroutes: [{ pattern: common.example/one/*, zone: common.example }]\n"),
    ("customers/two.yaml", "id: two\nroutes: [{ pattern: common.example/two/*, zone: common.example }]\n"),
    (
        "customers/other.yaml",
        "id: other\nlayers: [listed]\ndomains: [other.main.example]\n\
         destinations:\n  - { name: A, type: pixel, settings: { pixelId: \"1\", accessToken: { secret: PIXEL_TOKEN } } }\n\
         database: { type: turso, url: libsql://other.turso.io, token: { secret: TURSO_AUTH_TOKEN } }\n",
    ),
    ("customers/quiet.yaml", "id: quiet\nname: Quiet\n"),
    (
        "customers/roles.yaml",
        "id: roles\nworkers:\n  web: { services: { BACK: back }, vars: { BACK_URL: { workerUrl: back } }, domains: [web.roles.example] }\n\
         \x20 back: { domains: [back.roles.example], bindings: { FILES: { r2: files } } }\n",
    ),
];

/// Errors: the file, the text that is replaced and what it is replaced by, and the codes that show.
const ERRORS: &[(&str, &str, &str, &[&str])] = &[
    ("fleet.yaml", "name: test\n", "name: Test\n", &["S0205"]),
    ("fleet.yaml", "name: test\n", "nam: test\n", &["S0201"]),
    ("fleet.yaml", "-{customer}\"", "-{costumer}\"", &["F0503"]),
    ("fleet.yaml", "workerName: \"", "workerNames: \"", &["S0201"]),
    ("fleet.yaml", "packs:\n", "pcks:\n", &["S0201"]),
    ("fleet.yaml", "{ path: templates/tiny }", "{ pth: templates/tiny }", &["S0201"]),
    ("fleet.yaml", "{ path: templates/other }", "{ path: templates/gone }", &["P0601"]),
    ("fleet.yaml", "accounts:\n", "account:\n", &["S0201"]),
    ("fleet.yaml", "id: 0f3f6a109a4e4c518f5c2b7d1d2f9a01", "id: 12", &["S0202"]),
    ("fleet.yaml", "subdomain: main", "subdomain: 5", &["S0202"]),
    ("fleet.yaml", "{ env: EU_ACCOUNT }", "EU_ACCOUNT", &["S0205"]),
    ("fleet.yaml", "    dispatchNamespace: customers", "    dispatchNamespaces: customers", &["S0201"]),
    ("fleet.yaml", "dispatch: { worker: gate }", "dispatch: { workr: gate }", &["S0201"]),
    ("fleet.yaml", "dispatch: { worker: gate }", "dispatch: { worker: gates }", &["S0209"]),
    ("fleet.yaml", "defaults:\n", "default:\n", &["S0201"]),
    ("fleet.yaml", "  account: main\n", "  account: 5\n", &["S0202"]),
    ("fleet.yaml", "  account: main\n", "  acount: main\n", &["S0201"]),
    ("fleet.yaml", "  pack: tiny\n", "  pack: [tiny]\n", &["S0202"]),
    ("fleet.yaml", "  workersDev: false\n", "  workersDev: off\n", &["S0202"]),
    ("fleet.yaml", "  logLevel: info\n", "  logLevel: loud\n", &["S0204"]),
    ("fleet.yaml", "labels: { tier: basic }", "labels: { tier: 1 }", &["S0202"]),
    ("fleet.yaml", "labels: { tier: basic }", "label: { tier: basic }", &["S0201"]),
    ("fleet.yaml", "diagnostics:\n", "diagnostic:\n", &["S0201"]),
    ("fleet.yaml", "code: N0309", "code: N9999", &["S0204"]),
    ("fleet.yaml", "customers: [quiet]", "customer: [quiet]", &["S0201"]),
    ("fleet.yaml", "severity: off", "severity: no", &["S0204"]),
    ("fleet.yaml", "layers:\n", "layer:\n", &["S0201"]),
    ("fleet.yaml", "gold: { when: { tier: gold } }", "gold: { whn: { tier: gold } }", &["S0201"]),
    ("fleet.yaml", "gold: { when: { tier: gold } }", "gold: { when: { tier: 5 } }", &["S0202"]),
    ("fleet.yaml", "  listed:\n", "  listed: 5\n", &["S0202"]),
    ("fleet.yaml", "{ envFiles: settings }", "{ envFiles: 5 }", &["S0202"]),
    ("fleet.yaml", "{ envFiles: settings }", "{ envFile: settings }", &["S0201"]),
    ("fleet.yaml", "sharedWorkers:\n", "sharedWorker:\n", &["S0201"]),
    ("fleet.yaml", "pattern: \"*.example.com/*\"", "pattrn: \"*.example.com/*\"", &["S0201"]),
    ("fleet.yaml", "api: { domains: [api.shared.example]", "api: { domains: 5", &["S0202"]),
    ("fleet.yaml", "api: { domains", "api: { domain", &["S0201"]),
    ("fleet.yaml", "zones: [eu.shop.example]", "zones: eu.shop.example", &["S0202"]),
    ("fleet.yaml", "sharedHosts: [common.example]", "sharedHosts: common.example", &["S0202"]),
    ("fleet.yaml", "sharedHosts: [common.example]", "sharedHost: [common.example]", &["S0201"]),
    ("fleet.yaml", "secrets:\n", "secret:\n", &["S0201"]),
    ("fleet.yaml", "names: [SHOP_*", "names: [5, SHOP_*", &["S0202"]),
    ("fleet.yaml", "dotenv: .env", "dotenv: ../.env", &["F0507"]),
    ("fleet.yaml", "identity: { env: FLEET_KEY }", "identitty: { env: FLEET_KEY }", &["S0201"]),
    ("fleet.yaml", "days: 7", "days: 0", &["S0205"]),
    ("fleet.yaml", "count: 1", "count: 0", &["S0205"]),
    ("layers/gold.yaml", "domains+: [gold.main.example]\n", "domains+: gold.main.example\n", &["S0202"]),
    ("layers/gold.yaml", "\"0 * * * *\"", "\"every hour\"", &["N0307"]),
    ("layers/listed.yaml", "pack: other\n", "pack: [other]\n", &["S0202"]),
    ("layers/listed.yaml", "pack: other\n", "pck: other\n", &["S0201"]),
    ("layers/listed.yaml", "logLevel: warn\n", "logLevel: loud\n", &["S0204"]),
    ("layers/listed.yaml", "enabled: true", "enbled: true", &["S0201"]),
    ("settings/base/all.env", "REGION=eu", "REGION", &["Y0106"]),
    ("settings/customers/env/production.env", "REGION=us", "REGION", &["Y0106"]),
    ("templates/tiny/pack.yaml", "prefix: tiny", "prefix: Tiny", &["S0205"]),
    ("templates/other/pack.yaml", "catalogue: catalogue.json", "catalog: catalogue.json", &["S0201"]),
    (
        "templates/other/pack.yaml",
        "files: [wrangler.jsonc.tera]",
        "files: [wrangler.jsonc.tera, gone.tera]",
        &["P0601"],
    ),
    (
        "templates/other/catalogue.json",
        "\"requiredConsent\": [\"marketing\"]",
        "\"requiredConsent\": [\"all\"]",
        &["P0601"],
    ),
    ("templates/other/catalogue.json", "\"label\": \"Console\"", "\"label\": 5", &["P0601"]),
    ("templates/other/index.ts.tera", "", "{% if %}", &["P0602"]),
    ("customers/acme.yaml", "tier: gold", "tier: 5", &["S0202"]),
    ("customers/acme.yaml", "domains: [acme", "domain: [acme", &["S0201"]),
    ("customers/acme.yaml", "{ secret: SHOP_KEY }", "{ secret: SHOPKEY }", &["N0313"]),
    ("customers/acme.yaml", "type: d1, name: \"", "type: d1, nam: \"", &["S0201"]),
    ("customers/acme.yaml", "staging: { domains", "stagin: { domains", &["S0201"]),
    ("customers/dispatched.yaml", "account: eu\n", "account: [eu]\n", &["S0202"]),
    ("customers/dispatched.yaml", "dispatched.example.com", "dispatched.example", &["N0316"]),
    ("customers/env.yaml", "layers: [settings]", "layers: settings", &["S0202"]),
    ("customers/env.yaml", "domains: [env.main.example]", "domains: [env main]", &["N0301"]),
    ("customers/one.yaml", "zone: common.example", "zne: common.example", &["S0201"]),
    ("customers/two.yaml", "id: two", "id: tow", &["S0207"]),
    ("customers/other.yaml", "pixelId: \"1\"", "pixelId: 1.10", &["Y0111"]),
    ("customers/other.yaml", "type: pixel", "type: pixle", &["S0209"]),
    ("customers/other.yaml", "url: libsql://other.turso.io", "url: other.turso.io", &["S0205"]),
    ("customers/quiet.yaml", "name: Quiet\n", "name: Quiet\nname: Silent\n", &["Y0107"]),
    ("customers/roles.yaml", "workers:\n", "worker:\n", &["S0201"]),
    ("customers/roles.yaml", "{ r2: files }", "{ r2: 5 }", &["S0202"]),
    ("customers/roles.yaml", "BACK: back", "BACK: bac", &["S0209"]),
    ("customers/roles.yaml", "back: { domains", "back: { domans", &["S0201"]),
];

fn project() -> Project {
    let project = tiny();
    copy(&project.path("templates/tiny"), &project.path("templates/other"));
    for (file, text) in FILES {
        project.write(file, text);
    }
    project
}

/// What `check` finds, without what differs as files have more lines.
fn found(project: &Project) -> BTreeSet<String> {
    let diagnostics = match open_and_scan(project.root(), &Silent) {
        Ok((_, scan)) => scan.diagnostics,
        Err(diagnostics) => diagnostics,
    };
    let line = |found: &Diagnostic| format!("{} {} {}", found.code, found.place.file, found.message);
    let errors = diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error || found.code.severity() != Severity::Error);
    errors.map(line).collect()
}

/// Makes an error; returns the text that its file had before, if the error can be made beside those that are there.
fn make(project: &Project, error: usize) -> Option<String> {
    let (file, from, to, _) = ERRORS[error];
    let before = project.read(file);
    if !before.contains(from) {
        return None;
    }
    project.write(file, before.replacen(from, to, 1));
    Some(before)
}

#[test]
fn an_error_shows_alone_and_nothing_that_follows_from_it() {
    let project = project();
    assert_eq!(found(&project), BTreeSet::new());
    let mut wrong = Vec::new();
    for (error, (file, _, to, codes)) in ERRORS.iter().enumerate() {
        let before = make(&project, error).unwrap_or_else(|| panic!("{file} has no place for {to:?}"));
        let found = found(&project);
        let shown: Vec<&str> = found.iter().map(|found| &found[..5]).collect();
        if shown != *codes {
            wrong.push(format!("{file}: {to:?} shows {found:#?}"));
        }
        project.write(file, before);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

type Found = BTreeSet<String>;

/// Errors by which it isn't known what others are about, each with those others: both by a part of what their text is replaced by.
const HIDES: &[(&str, &[&str])] = &[
    // What a key means is known only once it is right, if it has a scalar: its value might be a secret.
    ("workerNames", &["{costumer}"]),
    ("pth: templates/tiny", &["prefix: Tiny"]),
    ("catalog: catalogue.json", &["[\"all\"]", "\"label\": 5", "pixle"]),
    ("envFile: settings", &["REGION"]),
    ("pattrn", &["dispatched.example"]),
    ("workr: gate", &["dispatched.example"]),
    ("pck: other", &["pixle"]),
    ("dispatchNamespaces", &["worker: gates", "dispatched.example"]),
    // The pack, the account, the layer or the list that isn't known.
    ("templates/gone", &["catalog", "gone.tera", "[\"all\"]", "\"label\": 5", "{% if %}", "pixle"]),
    ("EU_ACCOUNT", &["worker: gates", "dispatched.example"]),
    ("worker: gates", &["dispatched.example"]),
    ("account: [eu]", &["dispatched.example"]),
    ("when: { tier: 5 }", &["every hour"]),
    ("tier: 5", &["every hour"]),
    ("envFiles: 5", &["REGION"]),
    ("layers: settings", &["REGION"]),
    ("pack: [other]", &["pixle"]),
    ("names: [5", &["SHOPKEY"]),
    ("api: { domain", &["api: { domains: 5"]),
    // Whether a warning is turned off.
    ("code: N9999", &["dispatched.example"]),
];

/// Whether one error may hide the other, or the other one it.
fn may_hide(first: &str, second: &str) -> bool {
    let hides = |outer: &str, inner: &str| {
        HIDES.iter().any(|(part, parts)| outer.contains(part) && parts.iter().any(|part| inner.contains(part)))
    };
    hides(first, second) || hides(second, first)
}

/// Which pairs are tried: every so many, as all of them take minutes. `HIDDEN=1` tries all.
const STRIDE: usize = 7;

#[test]
fn two_errors_show_what_each_shows_alone() {
    let project = project();
    let alone: Vec<Found> = (0..ERRORS.len())
        .map(|error| {
            let before = make(&project, error).expect("a place for it");
            let found = found(&project);
            project.write(ERRORS[error].0, before);
            found
        })
        .collect();
    let stride = if std::env::var_os("HIDDEN").is_some() { 1 } else { STRIDE };
    let mut wrong = Vec::new();
    for first in 0..ERRORS.len() {
        let before = make(&project, first).expect("a place for it");
        for second in first + 1..ERRORS.len() {
            let is_tried = (first + second).is_multiple_of(stride);
            let Some(between) = is_tried.then(|| make(&project, second)).flatten() else { continue };
            let found = found(&project);
            let expected: Found = alone[first].union(&alone[second]).cloned().collect();
            let hidden: Vec<_> = expected.difference(&found).collect();
            let follow: Vec<_> = found.difference(&expected).collect();
            let (one, other) = (ERRORS[first].2, ERRORS[second].2);
            if !follow.is_empty() || (!hidden.is_empty() && !may_hide(one, other)) {
                wrong.push(format!("{one:?} and {other:?}: hidden {hidden:?}, following {follow:?}"));
            }
            project.write(ERRORS[second].0, between);
        }
        project.write(ERRORS[first].0, before);
    }
    assert!(wrong.is_empty(), "{} pairs\n{}", wrong.len(), wrong.join("\n"));
}
