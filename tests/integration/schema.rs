//! Shows: the committed JSON Schemas are current and valid, take the sample fleet, catch mistakes in an editor, and judge
//! specs as `flotilla check` does.

use std::collections::BTreeMap;
use std::process::Command;

use jsonschema::Validator;
use serde_json::Value;

use crate::folders::temporary_folder;
use crate::support::{Project, copy, output, repository};
use crate::tools::{node, packages};

/// The committed schemas.
const SCHEMAS: [&str; 3] = ["customer", "fleet", "pack"];

fn schema(name: &str) -> Value {
    let path = repository().join(format!("schema/{name}.schema.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// As editors check: with formats.
fn validator(name: &str) -> Validator {
    jsonschema::options().should_validate_formats(true).build(&schema(name)).unwrap()
}

/// YAML as JSON, by flotilla's own reader.
fn value(name: &str, text: &str) -> Value {
    let (document, diagnostics) = flotilla_spec::yaml::parse(name, text.as_bytes());
    assert_eq!(diagnostics, vec![], "{name}");
    document.unwrap_or_else(|| panic!("{name} is empty")).root.to_value()
}

/// The errors, each as its place and its text.
fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{} {error}", error.instance_path())).collect()
}

#[test]
fn they_are_current() {
    let project = Project::sample();
    project.run(&["schema", "--check"]).exits(0);
    project.edit("schema/customer.schema.json", "\"logLevel\"", "\"logLevels\"");
    project.run(&["schema", "--check"]).exits(3);
    project.run(&["schema"]).exits(0);
    let committed = std::fs::read_to_string(repository().join("schema/customer.schema.json")).unwrap();
    assert_eq!(project.read("schema/customer.schema.json"), committed);
}

#[test]
fn ajv_compiles_them_in_its_strict_mode() {
    let mut command = Command::new(node());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/ajv.cjs")).arg(packages().join("node_modules"));
    command.args(
        ["customer", "fleet", "layer", "pack"].map(|name| repository().join(format!("schema/{name}.schema.json"))),
    );
    let run = output(&mut command).exits(0);
    assert_eq!(run.stdout, "");
}

#[test]
fn ajv_compiles_those_of_other_packs_and_of_an_imported_project() {
    let compiled = |project: &Project, folder: &str| {
        let mut command = Command::new(node());
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/ajv.cjs"))
            .arg(packages().join("node_modules"));
        command.args(
            ["customer", "fleet", "layer", "pack"].map(|name| project.path(&format!("{folder}/{name}.schema.json"))),
        );
        assert_eq!(output(&mut command).exits(0).stdout, "");
    };
    let worker = Project::at(temporary_folder());
    worker.run(&["init", "own", "--pack", "worker"]).exits(0);
    compiled(&worker, "own/schema");
    let dispatch = Project::sample();
    copy(&repository().join("templates/dispatch"), &dispatch.path("templates/dispatch"));
    dispatch.edit("fleet.yaml", "packs:", "packs:\n  dispatch: { path: templates/dispatch }");
    dispatch.run(&["schema"]).exits(0);
    compiled(&dispatch, "schema");
    let imported = Project::at(temporary_folder());
    imported.write("old/wrangler.toml", "name = \"acme\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-01\"\n");
    imported.write("old/index.js", "export default { fetch: () => new Response() };\n");
    imported.run(&["import", "old"]);
    compiled(&imported, "schema");
}

#[test]
fn they_are_valid_and_explain_themselves() {
    for name in SCHEMAS {
        let schema = schema(name);
        if let Err(error) = jsonschema::meta::validate(&schema) {
            panic!("{name}: {} {error}", error.instance_path());
        }
        // What an editor shows beside a key.
        for (key, property) in schema["properties"].as_object().unwrap() {
            let described = property["description"].is_string() || property["$ref"].is_string();
            assert!(described, "{name}: {key} has no description: {property}");
        }
    }
}

#[test]
fn they_take_the_sample_fleet() {
    let project = Project::sample();
    let mut files: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for name in project.files("customers").into_keys() {
        files.insert(format!("customers/{name}"), ("customer", "../schema/customer.schema.json"));
    }
    assert!(files.len() >= 10, "{files:?}");
    files.insert("fleet.yaml".to_owned(), ("fleet", "schema/fleet.schema.json"));
    for (file, (name, path)) in files {
        let text = project.read(&file);
        assert_eq!(errors(&validator(name), &value(&file, &text)), [""; 0], "{file}");
        // By which editors find it.
        let first = text.lines().next().unwrap();
        assert_eq!(first, format!("# yaml-language-server: $schema={path}"), "{file}");
        let folder = project.path(&file).parent().unwrap().to_owned();
        assert!(folder.join(path).is_file(), "{file}: {path} is not there");
    }
    let pack = project.read("templates/consent/pack.yaml");
    assert_eq!(errors(&validator("pack"), &value("pack.yaml", &pack)), [""; 0]);
}

#[test]
fn a_mistake_is_found_where_it_stands() {
    let validator = validator("customer");
    let acme = Project::sample().read("customers/acme.yaml");
    let found = |from: &str, to: &str| {
        assert!(acme.contains(from), "{from}");
        errors(&validator, &value("acme.yaml", &acme.replace(from, to)))
    };
    let misspelt = found("pixelId:", "pixlId:").join("\n");
    assert!(misspelt.contains("/destinations/0/settings") && misspelt.contains("pixlId"), "{misspelt}");
    let literal = found("{ secret: META_PIXEL_ACCESS_TOKEN }", "EAABsecret");
    assert_eq!(literal.len(), 1, "{literal:#?}");
    assert!(literal[0].starts_with("/destinations/0/settings/accessToken "), "{literal:#?}");
    let number = found("\"123456789012345\"", "123456789012345").join("\n");
    assert!(number.contains("/destinations/0/settings/pixelId"), "{number}");
    let unknown = found("type: posthog", "type: posthig").join("\n");
    assert!(unknown.contains("/destinations/2/type"), "{unknown}");
}

/// What a spec says beside its id, and whether that is right. Only what one file shows by itself is a schema's to judge.
const SPECS: &[(&str, bool)] = &[
    ("", true),
    ("name: Acme\nlabels: { tier: gold }\n", true),
    ("environments: { production: , staging: { logLevel: debug } }\n", true),
    ("environments: { production: , staging: { database: { type: none } } }\n", true),
    ("database: { type: turso, url: 'libsql://a.turso.io', token: { secret: T } }\n", true),
    ("database: { type: d1, name: a, id: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01 }\n", true),
    ("destinations: [{ name: A, type: meta-pixel, settings: { pixelId: '1' } }]\n", true),
    ("destinations: [{ name: A, type: console }]\n", true),
    ("destinations: [{ name: A, type: posthog, settings: { id: phc_1 }, requiredConsent: [marketing] }]\n", true),
    ("vars: { A: 1, B: { c: [true] } }\nsecrets: { S: { secret: S } }\n", true),
    ("crons: ['*/5 * * * *']\ncompatibilityDate: 2026-06-01\nobservability: { enabled: true, sampling: 0.5 }\n", true),
    ("routes: [{ pattern: 'r.example/*', zone: r.example }]\ndomains: [b.example]\nworkersDev: false\n", true),
    ("delivery: self-hosted\ntrustedOrigins: ['https://a.example', 'http://localhost:3000']\n", true),
    ("nam: Acme\n", false),
    ("name: 12\n", false),
    ("name: ''\n", false),
    ("logLevel: verbose\n", false),
    ("workersDev: on\n", false),
    ("environments: { stag_in: {} }\n", false),
    ("environments: { production: { environments: {} } }\n", false),
    ("environments: { production: { logLevel: loud } }\n", false),
    ("database: { type: turso, url: 'libsql://a.turso.io', token: eyJhbGciOi }\n", false),
    ("database: { type: oracle }\n", false),
    ("database: { type: none, url: 'libsql://a.turso.io' }\n", false),
    (
        "database: { type: d1, name: a, id: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01, url: 'libsql://a.turso.io', token: { secret: T } }\n",
        false,
    ),
    ("destinations: { name: A, type: console }\n", false),
    ("destinations: [{ name: A }]\n", false),
    ("destinations: [{ name: A, type: meta-pixel }]\n", false),
    ("destinations: [{ name: A, type: meta-pixel, settings: {} }]\n", false),
    ("destinations: [{ name: A, type: meta-pixel, settings: { pixlId: '1' } }]\n", false),
    ("destinations: [{ name: A, type: meta-pixel, settings: { pixelId: 1 } }]\n", false),
    ("destinations: [{ name: A, type: meta-pixel, settings: { pixelId: abc } }]\n", false),
    ("destinations: [{ name: A, type: meta-pixel, settings: { pixelId: '1', accessToken: EAAB } }]\n", false),
    (
        "destinations: [{ name: A, type: meta-pixel, settings: { pixelId: '1', accessToken: { secret: low } } }]\n",
        false,
    ),
    ("destinations: [{ name: A, type: meta-pixle, settings: { pixelId: '1' } }]\n", false),
    ("destinations: [{ name: A, type: console, requiredConsent: [advertising] }]\n", false),
    ("destinations: [{ name: A, type: console, settings: { logLevel: loud } }]\n", false),
    ("destinations: [{ name: A, type: console, enbled: false }]\n", false),
    ("destinations: [{ name: A, type: matomo-analytics, settings: { siteId: '7', matomoUrl: not a url } }]\n", false),
    ("vars: { 'a-b': 1 }\n", false),
    ("secrets: { S: literal }\n", false),
    ("compatibilityDate: 2026-13-01\n", false),
    ("compatibilityFlags: [Nodejs Compat]\n", false),
    ("observability: { enabled: true, sampling: 2 }\n", false),
    ("routes: ['a.example/*']\n", false),
    ("delivery: sometimes\n", false),
    ("domains: [a.example, a.example]\n", false),
];

#[test]
fn they_judge_as_check_does() {
    let validator = validator("customer");
    let project = Project::empty();
    for (at, (spec, _)) in SPECS.iter().enumerate() {
        project.write(&format!("customers/c{at:02}.yaml"), format!("id: c{at:02}\n{spec}"));
    }
    let report = project.run(&["check", "--format", "json"]).exits(1).json();
    let errors_of = |file: &str| -> Vec<String> {
        let diagnostics = report["diagnostics"].as_array().unwrap().iter();
        let of = diagnostics.filter(|diagnostic| diagnostic["file"] == file && diagnostic["severity"] == "error");
        of.map(|diagnostic| format!("{} {}", diagnostic["code"], diagnostic["message"])).collect()
    };
    let mut differ = Vec::new();
    for (at, (spec, right)) in SPECS.iter().enumerate() {
        let file = format!("customers/c{at:02}.yaml");
        let by_schema = errors(&validator, &value(&file, &project.read(&file)));
        let by_check = errors_of(&file);
        if (by_schema.is_empty(), by_check.is_empty()) != (*right, *right) {
            differ.push(format!("{spec}right: {right}\nthe schema: {by_schema:#?}\ncheck: {by_check:#?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}
