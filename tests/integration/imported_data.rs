//! Shows: names and values of an imported project, whatever characters they have, are data in what `import` and `init` write, and never
//! code: real Node.js and the readers of YAML and JSON see what was there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use flotilla_cli::packs::Pack;
use flotilla_import::code::{Code, Source};
use flotilla_spec::yaml;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::fleet::cache;
use crate::folders::temporary_folder;
use crate::support::{Project, output};

/// Texts that end a string, a template, a comment or a line in some language, or that a search for a place to fill finds.
const HOSTILE: [&str; 20] = [
    "\"",
    "'",
    "`",
    "\\",
    "${process.exit(7)}",
    "*/",
    "//",
    "\n",
    "\u{2028}",
    "\u{0}",
    "define: { ",
    "loader: { ",
    "tsconfigRaw: {},",
    "src/index.ts",
    "); process.exit(7); (",
    "__proto__",
    "constructor",
    "</script>",
    "NAME",
    "\u{1f680}é",
];

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![3 => prop::sample::select(&HOSTILE[..]).prop_map(str::to_owned), 1 => "[ -~]{0,6}", 1 => "\\PC{0,3}"];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

fn code() -> impl Strategy<Value = Code> {
    let modules = prop::collection::btree_map(text(), prop::collection::vec(any::<u8>(), 0..4), 0..4);
    let of_modules = (text(), modules).prop_map(|(name, modules)| {
        let main = modules.keys().next().cloned().unwrap_or_default();
        Code::of_modules(&name, main, modules)
    });
    let of_project = (text(), text(), prop::option::of(text())).prop_map(|(name, folder, environment)| {
        let config = Path::new("/fleet").join(folder.replace(['/', '\0'], "_")).join("wrangler.toml");
        let source = Source::Project { config, environment, wrangler: Some("4.164.0") };
        Code { name, is_copy: false, key: String::new(), source }
    });
    prop_oneof![of_modules, of_project]
}

#[test]
fn what_import_writes_is_data_for_node_and_for_every_reader() {
    let worker = Pack::Worker.files();
    let template = worker.iter().find(|(path, _)| path == "build.mjs").expect("the bundler").1.clone();
    let folder = temporary_folder();
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let cases = std::cell::RefCell::new(Vec::new());
    runner
        .run(&(code(), text()), |(code, name)| {
            let slug = flotilla_import::ids::slug(&name);
            let files = code.pack(&slug, &slug, Path::new("/fleet/templates/pack"), &worker);
            for (path, bytes) in &files {
                prop_assert!(
                    !path.split('/').any(|step| step == ".." || step.eq_ignore_ascii_case(".git")),
                    "{}",
                    path
                );
                if path.ends_with(".yaml") && !path.starts_with("src/") {
                    let (document, found) = yaml::parse(path, bytes);
                    prop_assert!(found.is_empty(), "{:?}", found);
                    let manifest = document.expect("a document").root.to_value();
                    prop_assert_eq!(&manifest["name"], &Value::from(slug.clone()));
                    prop_assert_eq!(&manifest["prefix"], &Value::from(slug.clone()));
                    if let Source::Project { config, environment, .. } = &code.source {
                        let own = config.strip_prefix("/fleet").expect("below it");
                        prop_assert_eq!(&manifest["config"], &Value::from(format!("../../{}", own.display())));
                        let environment = environment.clone().map_or(Value::Null, Value::from);
                        prop_assert_eq!(&manifest["environment"], &environment);
                    }
                }
                if path.ends_with(".json") && !path.starts_with("src/") && path != "tsconfig.json" {
                    prop_assert!(serde_json::from_slice::<Value>(bytes).is_ok(), "{}", path);
                }
            }
            let Source::Modules { main, .. } = &code.source else { return Ok(()) };
            prop_assert_eq!(&files["build.mjs"], &template, "no value gets into code");
            let at = cases.borrow().len();
            fs::write(folder.path().join(format!("{at}.json")), &files["build.json"]).expect("a file");
            let wanted =
                json!({"entry": format!("src/{main}"), "define": {}, "alias": {}, "loader": {}, "tsconfig": {}});
            cases.borrow_mut().push(wanted);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    // As build.mjs reads it; entries, since JSON.stringify leaves `__proto__` where it is.
    fs::write(
        folder.path().join("read.mjs"),
        "import { readFileSync } from 'node:fs';\n\
         const all = [];\n\
         for (let at = 0; at < Number(process.argv[2]); at++) {\n\
           const { entry, define, alias, loader, tsconfig } = JSON.parse(readFileSync(`${at}.json`, 'utf8'));\n\
           const merged = { ...define, 'process.env.NODE_ENV': 'x' };\n\
           if (Object.getPrototypeOf(merged) !== Object.prototype) throw new Error(`${at}`);\n\
           all.push({ entry, define, alias, loader, tsconfig });\n\
         }\n\
         console.log(JSON.stringify(all));\n",
    )
    .expect("a file");
    fs::write(folder.path().join("build.mjs"), &template).expect("a file");
    output(Command::new("node").args(["--check", "build.mjs"]).current_dir(folder.path())).exits(0);
    let cases = cases.into_inner();
    let run =
        output(Command::new("node").args(["read.mjs", &cases.len().to_string()]).current_dir(folder.path())).exits(0);
    let read: Vec<Value> = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(read, cases);
    assert!(cases.len() >= 100);
    eprintln!("{} hostile packs", cases.len());
}

#[test]
fn an_imported_project_has_its_names_as_text() {
    let project = Project::at(temporary_folder());
    // It ends a text, begins a comment, and is a template's.
    let folder = "theirs \"], x: #{{ 7 }} ${x}";
    let environment = "production\n# \"}}";
    let config = json!({
        "name": "hostile", "main": "index.js", "compatibility_date": "2026-01-15", "env": { environment: { "name": "hostile-too", "vars": { "A": "1" } } },
    });
    project
        .write(&format!("{folder}/wrangler.json"), config.to_string())
        .write(&format!("{folder}/index.js"), "export default { fetch() {} };\n");
    project.run(&["import", folder]).exits(0);
    project.run(&["check"]).exits(0);
    let packs: Vec<String> = project.files("templates").into_keys().collect();
    assert_eq!(packs.len(), 1, "{packs:?}");
    let text = project.read(&format!("templates/{}", packs[0]));
    let (document, found) = yaml::parse("pack.yaml", text.as_bytes());
    assert!(found.is_empty(), "{found:?}");
    let manifest = document.expect("a document").root.to_value();
    assert_eq!(manifest["config"], format!("../../{folder}/wrangler.json"));
}

#[test]
fn init_gives_a_fleet_a_name_that_is_text() {
    let folder = temporary_folder();
    let project = Project::at(folder);
    let names = ["2026", "1e3", "true", "null", "on", "0x1F", "NAME", "a b", "${{ x }}", "'\"`"];
    let mut read = BTreeSet::new();
    for name in names {
        output(project.command(&["init", name, "--pack", "worker"]).env("FLOTILLA_CACHE_DIR", cache())).exits(0);
        let below = project.path(name);
        let text = fs::read(below.join("fleet.yaml")).expect("it is there");
        let (document, found) = yaml::parse("fleet.yaml", &text);
        assert!(found.is_empty(), "{name}: {found:?}");
        let value = document.expect("a document").root.to_value();
        read.insert(value["name"].as_str().unwrap_or_else(|| panic!("{name}: {value}")).to_owned());
        let path = below.to_str().expect("UTF-8").to_owned();
        output(project.command(&["check", "--project", &path]).env("FLOTILLA_CACHE_DIR", cache())).exits(0);
        // A repository around it, and the workflow: one scalar, whatever the folder is called.
        fs::create_dir_all(project.path(".git")).expect("a folder");
        let printed = output(
            project
                .command(&["init", "--ci", "github", "--print", "--project", &path])
                .env("FLOTILLA_CACHE_DIR", cache()),
        )
        .exits(0);
        let (document, found) = yaml::parse("workflow.yml", printed.stdout.as_bytes());
        assert!(found.is_empty(), "{name}: {found:?}\n{}", printed.stdout);
        let workflow = document.expect("a document").root.to_value();
        let shown = &workflow["defaults"]["run"]["working-directory"];
        assert_eq!(
            shown.as_str().map(|shown| shown.replace("${{ '${{' }}", "${{")).as_deref(),
            Some(name),
            "{workflow}"
        );
    }
    assert!(read.contains("2026") && read.contains("1e3") && read.contains("true"), "{read:?}");
}
