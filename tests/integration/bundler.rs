//! Shows: packs with `bundler: wrangler`: the real wrangler bundles a project where it is, once per change; every kind of module is deployed as
//! wrangler itself deploys it; errors have their places in the project's own files.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::Value;

use crate::folders::temporary_folder;
use crate::support::{Project, Run, output};
use crate::tools::{Local, json, node, packages, sent_elsewhere, wrangler};

/// The account of both deploys.
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// The code of a worker with a module of each kind.
const INDEX: &str = r#"
import text from "./hello.txt";
import data from "./data.bin";
import wasm from "./add.wasm";
import { greet } from "./lib/greet";
import { esm } from "./parts/esm.mjs";
import cjs from "./parts/common.cjs";
import { packaged } from "packaged";
import { Buffer } from "node:buffer";
declare const VERSION: string;
export class Counter { fetch() { return new Response("counted"); } }
export default {
  async fetch(_: Request, env: Record<string, unknown>): Promise<Response> {
    const { exports } = await WebAssembly.instantiate(wasm, {});
    const kinds = { text, data: new Uint8Array(data).length, wasm: Object.keys(exports), esm, cjs, packaged };
    return Response.json({ ...kinds, hi: greet("you"), VERSION, hex: Buffer.from("x").toString("hex"), A: env.A });
  },
};
"#;

const CONFIG: &str = r#"{
  // The project's own.
  "name": "web",
  "main": "src/index.ts",
  "compatibility_date": "2026-06-01",
  "compatibility_flags": ["nodejs_compat"],
  "upload_source_maps": true,
  "find_additional_modules": true,
  "base_dir": "src",
  "define": { "VERSION": "'1.2'" },
  "durable_objects": { "bindings": [{ "name": "COUNTER", "class_name": "Counter" }] },
  "migrations": [{ "tag": "v1", "new_sqlite_classes": ["Counter"] }],
  "rules": [
    { "type": "ESModule", "globs": ["parts/*.mjs"] },
    { "type": "CommonJS", "globs": ["parts/*.cjs"] },
  ],
}
"#;

/// A fleet beside the project `apps/web`, whose wrangler is that of the tests.
pub fn fleet() -> Project {
    let project = Project::at(temporary_folder());
    project.write(
        "fleet.yaml",
        "name: test\npacks: { web: { path: templates/web } }\n\
         accounts:\n  default: { id: 0123456789abcdef0123456789abcdef, token: { secret: CLOUDFLARE_API_TOKEN } }\n\
         defaults:\n  pack: web\n  workersDev: true\n  compatibilityDate: \"2026-06-01\"\n  \
         compatibilityFlags: [nodejs_compat]\n",
    );
    project.write(
        "templates/web/pack.yaml",
        "name: web\nprefix: web\nbundler: wrangler\nconfig: ../../apps/web/wrangler.jsonc\n",
    );
    project.write("customers/acme.yaml", "id: acme\nvars: { A: of acme }\n");
    project.write("customers/bolt.yaml", "id: bolt\nvars: { A: of bolt }\n");
    project.write("apps/web/wrangler.jsonc", CONFIG).write("apps/web/src/index.ts", INDEX);
    project.write("apps/web/package.json", "{\"private\": true}").write("apps/web/src/hello.txt", "hello");
    project.write("apps/web/src/data.bin", b"\0\x01\x02\xff").write("apps/web/src/add.wasm", b"\0asm\x01\0\0\0");
    project.write("apps/web/src/lib/greet.ts", "export const greet = (name: string) => `hello ${name}`;\n");
    project.write("apps/web/src/parts/esm.mjs", "export const esm = 1;\n");
    project.write("apps/web/src/parts/common.cjs", "module.exports = 2;\n");
    project.write("apps/web/node_modules/packaged/package.json", "{\"name\": \"packaged\", \"main\": \"index.js\"}");
    project.write("apps/web/node_modules/packaged/index.js", "export const packaged = 3;\n");
    install_wrangler(&project);
    project
}

/// The tests' wrangler as the project's own, by a script that fails as long as there is a file `apps/web/.off`.
fn install_wrangler(project: &Project) {
    let real = packages().join("node_modules/wrangler");
    let package: Value = serde_json::from_slice(&std::fs::read(real.join("package.json")).unwrap()).unwrap();
    let own = serde_json::json!({"version": package["version"], "engines": package["engines"], "bin": {"wrangler": "run.js"}});
    let off = serde_json::json!(project.path("apps/web/.off"));
    let script = format!(
        "if (require(\"fs\").existsSync({off})) process.exit(9);\n\
         const words = [{}, ...process.argv.slice(2)];\n\
         process.exit(require(\"child_process\").spawnSync(process.execPath, words, {{ stdio: \"inherit\" }}).status ?? 1);\n",
        serde_json::json!(real.join("bin/wrangler.js"))
    );
    project.write("apps/web/node_modules/wrangler/package.json", own.to_string());
    project.write("apps/web/node_modules/wrangler/run.js", script);
}

/// The variables by which flotilla finds the Node.js that wrangler needs, and a cache of the project's own.
pub fn variables(project: &Project) -> [(&'static str, String); 2] {
    let own = node();
    let folders = own.parent().map(PathBuf::from).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
    let cache = project.path(".cache");
    [("PATH", path.into_string().unwrap()), ("FLOTILLA_CACHE_DIR", cache.to_str().unwrap().to_owned())]
}

#[track_caller]
fn run(project: &Project, arguments: &[&str]) -> Run {
    let mut command = project.command(arguments);
    output(command.envs(variables(project)))
}

/// The same while wrangler can't be run, so that nothing can be bundled.
#[track_caller]
fn run_without_wrangler(project: &Project, arguments: &[&str]) -> Run {
    project.write("apps/web/.off", "");
    let run = run(project, arguments);
    std::fs::remove_file(project.path("apps/web/.off")).unwrap();
    run
}

#[test]
fn every_kind_of_module_is_deployed_as_wrangler_does_it_and_rolled_back() {
    let (theirs, ours) = (fleet(), fleet());
    let (at_theirs, at_ours) = (Local::start(&theirs, None), Local::start(&ours, None));
    let cloud = |local: &Local| {
        [
            ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", local.origin)),
            ("CLOUDFLARE_API_TOKEN", local.token.clone()),
            ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT.to_owned()),
        ]
    };
    let deploy = |arguments: &[&str]| {
        let mut command = ours.command(arguments);
        output(command.envs(variables(&ours)).envs(cloud(&at_ours)))
    };
    run(&theirs, &["build"]).exits(0);
    let home = temporary_folder();
    let mut command = wrangler(&theirs.path("out/production/acme"), home.path());
    let deployed = crate::wrangler::run(command.arg("deploy").envs(cloud(&at_theirs)), home.path());
    assert!(!deployed.stderr.contains("module rule"), "{deployed:#?}");
    assert!(!sent_elsewhere(), "wrangler asked for another host");
    let outcome = deploy(&["deploy", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!(outcome["applied"], 2, "{outcome}");

    // The modules with their names, types and bytes; the boundary is random.
    let content = |local: &Local| -> Vec<String> {
        let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/web-acme/content/v2");
        let request = local.request(reqwest::Method::GET, "127.0.0.1", &path).bearer_auth(&local.token);
        let bytes = request.send().unwrap().bytes().unwrap().to_vec();
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let boundary = text.lines().next().unwrap().to_owned();
        let mut parts: Vec<String> = text.split(&boundary).map(str::to_owned).collect();
        parts.sort();
        parts
    };
    let modules = content(&at_ours);
    assert_eq!(content(&at_theirs), modules);
    for kind in [
        "application/javascript+module",
        "application/javascript\r\n",
        "application/wasm",
        "application/octet-stream",
        "text/plain",
        "application/source-map",
    ] {
        assert!(modules.iter().any(|part| part.contains(kind)), "{kind}");
    }
    let state = |local: &Local| {
        let mut settings = local.api(&format!("/accounts/{ACCOUNT}/workers/scripts/web-acme/settings"));
        settings["bindings"].as_array_mut().unwrap().sort_by_key(|binding| binding["name"].to_string());
        ["bindings", "compatibility_date", "compatibility_flags", "observability", "migration_tag"]
            .map(|key| settings[key].clone())
    };
    assert_eq!(state(&at_theirs), state(&at_ours));
    assert_eq!(state(&at_ours)[4], "v1");
    let answer = |local: &Local, worker: &str| json(local.get(worker, "/"));
    let first = answer(&at_ours, "web-acme");
    assert_eq!(answer(&at_theirs, "web-acme"), first);
    let expected = serde_json::json!({
        "text": "hello", "data": 4, "wasm": [], "esm": 1, "cjs": 2, "packaged": 3, "hi": "hello you", "VERSION": "1.2",
        "hex": "78", "A": "of acme",
    });
    assert_eq!(first, expected);

    // A source is changed: the plan names it, and a rollback brings all modules back.
    ours.edit("apps/web/src/lib/greet.ts", "hello", "goodbye").write("apps/web/src/hello.txt", "other");
    let plan = deploy(&["plan", "acme"]).exits(0).stdout;
    for file in ["apps/web/src/lib/greet.ts changed", "apps/web/src/hello.txt changed"] {
        assert!(plan.contains(file), "{plan}");
    }
    let diff = deploy(&["diff", "acme"]).exits(0).stdout;
    assert!(diff.contains("--- index.js") && diff.contains("goodbye"), "{diff}");
    deploy(&["deploy", "--yes"]).exits(0);
    let second = answer(&at_ours, "web-acme");
    assert_eq!((&second["hi"], &second["text"]), (&Value::from("goodbye you"), &Value::from("other")));
    deploy(&["rollback", "acme", "--yes"]).exits(0);
    assert_eq!(answer(&at_ours, "web-acme"), first);
    assert_eq!(content(&at_ours), modules);

    // An export has the modules as well.
    deploy(&["export", "bolt", "--to", "exported"]).exits(0);
    let exported: Vec<String> =
        ours.files("exported").into_keys().filter(|path| path.starts_with("bundles/")).collect();
    assert_eq!(exported.len(), 7, "{exported:?}");
}

#[test]
fn what_decides_a_bundle_is_known_and_a_build_without_changes_runs_nothing() {
    let project = fleet();
    let built = run(&project, &["build", "--format", "json"]).exits(0).json();
    assert_eq!((&built["workers"], &built["rendered"]), (&Value::from(2), &Value::from(2)), "{built}");
    let out = project.files("out");
    let same = run_without_wrangler(&project, &["build", "--format", "json"]).exits(0).json();
    assert_eq!((&same["rendered"], &same["written"]), (&Value::from(0), &Value::from(0)), "{same}");
    run_without_wrangler(&project, &["build", "--check"]).exits(0);

    // A comment is no change of the bundle: bundled again, and nothing else.
    project.edit("apps/web/src/lib/greet.ts", "export", "// A comment.\nexport");
    run_without_wrangler(&project, &["build"]).exits(1);
    let same = run(&project, &["build", "--format", "json"]).exits(0).json();
    assert_eq!(same["rendered"], 0, "{same}");
    let changed = [
        ("apps/web/src/hello.txt", "hello", "hi"),
        ("apps/web/src/parts/common.cjs", "2", "4"),
        ("apps/web/node_modules/packaged/index.js", "3", "5"),
        ("apps/web/wrangler.jsonc", "1.2", "1.3"),
    ];
    for (file, from, to) in changed {
        project.edit(file, from, to);
        let explained = run(&project, &["build", "--explain"]).exits(0);
        let name = if file.contains("node_modules") { "node_modules/packaged" } else { file };
        assert!(explained.stdout.contains(&format!("{name} changed")), "{file}: {explained:#?}");
        run_without_wrangler(&project, &["build", "--check"]).exits(0);
    }
    // A file that is found before another one.
    project.write("apps/web/src/lib/greet.tsx", "").write("apps/web/tsconfig.json", "{}");
    run_without_wrangler(&project, &["build"]).exits(1);
    std::fs::remove_file(project.path("apps/web/src/lib/greet.tsx")).unwrap();
    std::fs::remove_file(project.path("apps/web/tsconfig.json")).unwrap();
    // Back to where it was, the same bytes result, without the bundles in between.
    project.edit("apps/web/src/lib/greet.ts", "// A comment.\n", "");
    for (file, from, to) in changed {
        project.edit(file, to, from);
    }
    run(&project, &["build"]).exits(0);
    let again = project.files("out");
    let differing: Vec<&String> = again.keys().filter(|path| again.get(*path) != out.get(*path)).collect();
    assert_eq!((again.len(), differing), (out.len(), Vec::<&String>::new()));
}

#[test]
fn each_date_and_set_of_flags_has_a_bundle() {
    let project = fleet();
    project.write(
        "apps/web/src/index.ts",
        "export class Counter {}\nexport default { fetch: () => Response.json(typeof process) };\n",
    );
    // At that time, wrangler had stand-ins for more of what Node.js has.
    project.edit("fleet.yaml", "2026-06-01", "2024-10-01");
    project.write("customers/bolt.yaml", "id: bolt\ncompatibilityFlags: []\nvars: { A: of bolt }\n");
    run(&project, &["build"]).exits(0);
    let folders = || {
        let files = project.files("out/bundles").into_keys();
        files.map(|path| path.split('/').next().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(folders().len(), 2, "there are stand-ins under nodejs_compat alone");
    project.write("customers/bolt.yaml", "id: bolt\nvars: { A: of bolt }\n");
    run(&project, &["build"]).exits(0);
    assert_eq!(folders().len(), 1);
}

#[test]
fn flags_with_which_it_cannot_be_bundled_hold_back_their_customers_alone() {
    let project = fleet();
    project.write("customers/bolt.yaml", "id: bolt\ncompatibilityFlags: [nodejs_compat, nodejs_compat_v2]\n");
    let built = run(&project, &["build"]).exits(1);
    assert!(built.stderr.contains("error[P0605]"), "{built:?}");
    assert!(project.path("out/production/acme/wrangler.jsonc").exists(), "{built:?}");
    assert!(!project.path("out/production/bolt/wrangler.jsonc").exists(), "{built:?}");
}

#[test]
fn routes_of_the_configuration_do_not_keep_its_code_from_being_bundled() {
    let project = fleet();
    let routes =
        "\"main\": \"src/index.ts\",\n  \"routes\": [{ \"pattern\": \"shop.example/*\", \"custom_domain\": true }],";
    project.edit("apps/web/wrangler.jsonc", "\"main\": \"src/index.ts\",", routes);
    run(&project, &["build"]).exits(0);
}

#[test]
fn errors_have_their_places_in_the_project_and_hold_back_its_customers_alone() {
    let project = fleet();
    run(&project, &["build"]).exits(0);
    let before = project.files("out");
    project.write(
        "templates/other/pack.yaml",
        "name: other\nprefix: other\nbundler: wrangler\nconfig: ../../apps/other/wrangler.toml\n",
    );
    project.write(
        "apps/other/wrangler.toml",
        "name = \"other\"\nmain = \"index.js\"\ncompatibility_date = \"2026-06-01\"\n",
    );
    project.write("apps/other/index.js", "export default { fetch: () => new Response(\"other\") };\n");
    symlink(project.path("apps/web/node_modules"), project.path("apps/other/node_modules")).unwrap();
    project.edit("fleet.yaml", "packs: { web", "packs: { other: { path: templates/other }, web");
    project.write("customers/other.yaml", "id: other\npack: other\n");
    project.write("apps/web/src/lib/greet.ts", "import \"./nowhere\";\nexport const greet = ;\n");
    let report = run(&project, &["build"]).exits(1).stderr;
    assert!(report.contains("--> apps/web/src/lib/greet.ts:2:22"), "{report}");
    assert!(report.contains("wrangler can't bundle it: Unexpected \";\""), "{report}");
    assert!(project.path("out/production/other/wrangler.jsonc").exists(), "the other pack's customers are built");
    let after = project.files("out");
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "its own stay as they were");
    project.write(
        "apps/web/src/lib/greet.ts",
        "import \"./nowhere\";\nimport \"nobody\";\nexport const greet = String;\n",
    );
    let report = run(&project, &["build"]).exits(1).stderr;
    assert!(report.contains("Could not resolve \"./nowhere\"") && report.contains("greet.ts:1:8"), "{report}");
    assert!(report.contains("Could not resolve \"nobody\"") && report.contains("greet.ts:2:8"), "{report}");
    // A package that is listed is to be installed.
    project.write("apps/web/package.json", "{\"dependencies\": {\"@store/words\": \"1\"}}");
    project.write("apps/web/src/lib/greet.ts", "import \"@store/words/hello\";\nexport const greet = String;\n");
    let report = run(&project, &["build"]).exits(1).stderr;
    assert!(report.contains("apps/web/package.json lists `@store/words`: install the packages"), "{report}");
}

#[test]
fn packs_that_can_not_be_bundled_hold_back_their_own_customers_alone() {
    let project = fleet();
    let builds = [
        ("fails", "[build]\ncommand = \"echo out of order; exit 3\"\n"),
        ("hangs", "[build]\ncommand = \"sleep 300\"\n"),
        ("missing", ""),
        ("old", ""),
    ];
    for (name, build) in builds {
        let pack =
            format!("name: {name}\nprefix: {name}\nbundler: wrangler\nconfig: ../../apps/{name}/wrangler.toml\n");
        // On a busy machine, wrangler alone takes longer.
        let limit = if name == "hangs" { "buildTimeout: 4\n" } else { "" };
        project.write(&format!("templates/{name}/pack.yaml"), pack + limit);
        let config = format!("name = \"{name}\"\nmain = \"index.js\"\ncompatibility_date = \"2026-06-01\"\n{build}");
        project.write(&format!("apps/{name}/wrangler.toml"), config);
        project.write(&format!("apps/{name}/index.js"), "export default { fetch: () => new Response(\"other\") };\n");
        project.write(&format!("customers/{name}.yaml"), format!("id: {name}\npack: {name}\n"));
        project.edit("fleet.yaml", "packs: {", &format!("packs: {{ {name}: {{ path: templates/{name} }},"));
        if !build.is_empty() {
            symlink(project.path("apps/web/node_modules"), project.path(&format!("apps/{name}/node_modules"))).unwrap();
        }
    }
    project
        .write("apps/old/node_modules/wrangler/package.json", "{ \"name\": \"wrangler\", \"version\": \"3.114.0\" }");
    let report = run(&project, &["build"]).exits(1).stderr;
    for part in [
        "error[P0605]: the project's own build failed: `echo out of order; exit 3`\n  --> apps/fails/wrangler.toml:5:11",
        "took more than 4 s\n  --> apps/hangs/wrangler.toml:5:11",
        "error[P0608]: there is no wrangler in the node_modules of apps/missing/wrangler.toml\n  --> templates/missing/pack.yaml",
        "error[P0608]: wrangler 3.114.0 is too old: bundling needs its options --outfile and --metafile\n  --> templates/old/pack.yaml",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    let built: Vec<String> = project.files("out/production").into_keys().collect();
    assert_eq!(built, ["acme/wrangler.jsonc", "bolt/wrangler.jsonc"], "{report}");
}

#[test]
fn a_class_that_the_code_does_not_export_is_an_error() {
    let project = fleet();
    project.edit("apps/web/wrangler.jsonc", "[\"Counter\"] }]", "[\"Counter\", \"Tally\"] }]");
    let told = run(&project, &["build"]).exits(1).stderr;
    assert!(told.contains("error[P0611]: the code doesn't export the Durable Object class `Tally`"), "{told}");
    assert!(told.contains("apps/web/wrangler.jsonc:12:"), "{told}");
    project.edit("apps/web/src/index.ts", "export class Counter", "export class Tally {}\nexport class Counter");
    run(&project, &["build"]).exits(0);
}

#[test]
fn the_projects_own_build_runs_once_per_change_and_its_failures_are_reported() {
    let project = fleet();
    let config = |command: &str| {
        let text = format!(
            "name = \"web\"\nmain = \"dist/index.js\"\ncompatibility_date = \"2026-06-01\"\n[build]\ncommand = \"{command}\"\n"
        );
        project.write("apps/web/wrangler.toml", text);
    };
    project.edit("templates/web/pack.yaml", "wrangler.jsonc", "wrangler.toml");
    let command =
        "mkdir -p dist && tool && echo $SECRET$GIVEN >> ran && sed s/VERSION/$GIVEN/ source.js > dist/index.js";
    config(command);
    project.write(
        "templates/web/pack.yaml",
        project.read("templates/web/pack.yaml") + "buildEnv: [GIVEN]\nbuildTimeout: 60\n",
    );
    project.write("apps/web/source.js", "export default { fetch: () => new Response(\"VERSION\") };\n");
    // Its tools are those of its packages, as where a package manager runs wrangler.
    project.write("apps/web/node_modules/.bin/tool", "#!/bin/sh\n");
    let tool = project.path("apps/web/node_modules/.bin/tool");
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // What it appends to is no source: the name begins with a dot.
    config(&command.replace(">> ran", ">> .ran"));
    let given = |value: &str| {
        let mut command = project.command(&["build", "--explain"]);
        output(command.envs(variables(&project)).env("SECRET", "secret").env("GIVEN", value))
    };
    given("7").exits(0);
    assert_eq!(project.read("apps/web/.ran"), "7\n", "it gets the variables that the pack names, and no others");
    let main = |project: &Project| {
        let files = project.files("out/bundles");
        files
            .into_iter()
            .find_map(|(path, bytes)| path.ends_with("/index.js").then(|| String::from_utf8(bytes).unwrap()))
    };
    assert!(main(&project).unwrap().contains("\"7\""));
    given("7").exits(0);
    assert_eq!(project.read("apps/web/.ran"), "7\n", "nothing changed");
    given("8").exits(0);
    assert_eq!(project.read("apps/web/.ran"), "7\n8\n");
    project.edit("apps/web/source.js", "new Response", "/* changed */ new Response");
    let explained = given("8").exits(0).stdout;
    assert!(explained.contains("apps/web/source.js changed") || explained.contains("nothing"), "{explained}");
    given("8").exits(0);
    assert_eq!(project.read("apps/web/.ran"), "7\n8\n8\n");

    config("echo out of order; exit 3");
    let report = given("8").exits(1).stderr;
    assert!(
        report.contains("error[P0605]: the project's own build failed") && report.contains("out of order"),
        "{report}"
    );
    assert!(report.contains("--> apps/web/wrangler.toml:5:11"), "{report}");
    config("sleep 300");
    project.edit("templates/web/pack.yaml", "buildTimeout: 60", "buildTimeout: 4");
    let report = given("8").exits(1).stderr;
    assert!(report.contains("took more than 4 s") && report.contains("wrangler.toml:5:11"), "{report}");
}

#[test]
fn a_configuration_outside_of_the_repository_is_rejected() {
    let project = fleet();
    let outside = temporary_folder();
    std::fs::write(outside.path().join("wrangler.toml"), "main = \"i.js\"\n").unwrap();
    let path = outside.path().join("wrangler.toml");
    symlink(&path, project.path("apps/web/wrangler.toml")).unwrap();
    project.edit("templates/web/pack.yaml", "wrangler.jsonc", "wrangler.toml");
    let report = run(&project, &["check"]).exits(1).stderr;
    assert!(report.contains("error[P0606]") && report.contains("is outside this project"), "{report}");
    assert!(report.contains("templates/web/pack.yaml:4:9"), "{report}");
}
