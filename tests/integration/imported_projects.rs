//! Shows: the kinds of projects that people have are imported as they are: one file, folder or environment for each customer, workspaces,
//! monorepos, files with errors. What is written passes `check`, and each finding is exact and there once.

use serde_json::Value;

use crate::folders::temporary_folder;
use crate::import::{link, path_variable, told};
use crate::support::{Project, Run, output};
use crate::tools::packages;

/// Code that answers.
const CODE: &str = "export default { fetch: () => new Response(\"ok\") };\n";

/// A git repository with a project and wrangler among its packages.
pub fn project(files: &[(&str, &str)]) -> Project {
    let project = Project::at(temporary_folder());
    output(std::process::Command::new("git").args(["init", "-q"]).arg(project.root())).exits(0);
    std::fs::create_dir(project.path("node_modules")).unwrap();
    link(&packages().join("node_modules/wrangler"), &project.path("node_modules/wrangler"));
    for (path, text) in files {
        project.write(path, text);
    }
    project
}

/// Imports it into the folder `fleet`, and checks what was written.
#[track_caller]
fn import(project: &Project, more: &[&str], code: i32) -> Value {
    let run = project.run(&[&["-C", "fleet", "import", ".", "--format", "json", "--exclude", "fleet"], more].concat());
    let imported = run.exits(code).json();
    let checked = project.run(&["-C", "fleet", "check"]);
    assert_eq!(checked.code, 0, "what was written has errors: {checked:#?}");
    imported
}

fn spec(project: &Project, customer: &str) -> String {
    project.read(&format!("fleet/customers/{customer}.yaml"))
}

fn customers(project: &Project) -> Vec<String> {
    project.files("fleet/customers").into_keys().map(|file| file.trim_end_matches(".yaml").to_owned()).collect()
}

fn packs(project: &Project) -> Vec<String> {
    project.files("fleet/templates").into_keys().collect()
}

/// A configuration with one variable.
fn config(name: &str, main: &str, var: &str) -> String {
    format!("name = \"{name}\"\nmain = \"{main}\"\ncompatibility_date = \"2026-01-15\"\n[vars]\nWHO = \"{var}\"\n")
}

#[test]
fn a_file_for_each_customer_beside_that_of_development() {
    let base = config("portal", "src/index.ts", "nobody") + "SHARED = \"all\"\n";
    let of = |name: &str| config(&format!("portal-{name}"), "src/index.ts", name) + "SHARED = \"all\"\n";
    let (production, staging, acme, bolt) = (of("production"), of("staging"), of("acme"), of("bolt-staging"));
    let project = project(&[
        ("src/index.ts", CODE),
        ("wrangler.toml", &base),
        ("wrangler.production.toml", &production),
        ("wrangler.staging.toml", &staging),
        ("wrangler.acme.toml", &acme),
        ("wrangler.bolt-staging.toml", &bolt),
        ("wrangler.vitest.toml", &base),
    ]);
    let imported = import(&project, &[], 0);
    assert_eq!(
        told(&imported),
        ["note wrangler.vitest.toml:0: this file isn't read: files named `vitest` usually deploy nothing"]
    );
    assert_eq!((&imported["workers"], &imported["packs"]), (&Value::from(5), &Value::from(1)));
    assert_eq!(customers(&project), ["acme", "bolt", "portal"]);
    let portal = spec(&project, "portal");
    for part in ["production:", "staging:", "development:", "workerName: portal\n"] {
        assert!(portal.contains(part) || portal.contains(&part.replace('\n', ",")), "{part}\n{portal}");
    }
    assert!(spec(&project, "bolt").contains("production: null"), "{}", spec(&project, "bolt"));
    assert!(project.read("fleet/fleet.yaml").contains("SHARED: all"), "{}", project.read("fleet/fleet.yaml"));
    assert_eq!(packs(&project), ["portal/pack.yaml"]);
    let pack = project.read("fleet/templates/portal/pack.yaml");
    assert!(pack.contains("config: ../../../wrangler.") && pack.contains("bundler: wrangler"), "{pack}");
}

#[test]
fn sixty_folders_of_customers_of_which_one_has_an_error() {
    let project = project(&[("src/index.ts", CODE)]);
    for number in 0..60 {
        let text = config(&format!("shop-c{number}"), "../../src/index.ts", &format!("c{number}"));
        let text = if number == 17 { text.replace("[vars]", "[vars") } else { text };
        project.write(&format!("deploy/c{number}/wrangler.toml"), text);
    }
    let imported = import(&project, &[], 4);
    assert_eq!(
        told(&imported),
        ["invalid deploy/c17/wrangler.toml:4: it is not TOML: unclosed table, expected `]` (Y0106)"]
    );
    assert_eq!((&imported["customers"], &imported["packs"]), (&Value::from(59), &Value::from(1)));
    let spec = spec(&project, "c3");
    assert!(spec.contains("WHO: c3") && !spec.contains("compatibilityDate"), "{spec}");
    // Again, nothing is to be written; with one more, only its spec is.
    import(&project, &[], 4);
    let before = project.files("fleet");
    project.write("deploy/c60/wrangler.toml", config("shop-c60", "../../src/index.ts", "c60"));
    import(&project, &["--exclude", "c17"], 0);
    let after = project.files("fleet");
    let new: Vec<&String> = after.keys().filter(|path| after.get(*path) != before.get(*path)).collect();
    assert_eq!(new, ["customers/c60.yaml"]);
}

#[test]
fn copies_of_one_folder_become_one_pack_and_others_packs_of_their_own() {
    let (acme, bolt) = (config("portal-acme", "src/index.ts", "acme"), config("portal-bolt", "src/index.ts", "bolt"));
    let built = config("portal-globex", "dist/index.js", "globex");
    let project = project(&[
        ("customers/acme/src/index.ts", CODE),
        ("customers/acme/wrangler.toml", &acme),
        ("customers/bolt/src/index.ts", CODE),
        ("customers/bolt/wrangler.toml", &bolt),
        ("customers/globex/wrangler.toml", &built),
    ]);
    let imported = import(&project, &[], 0);
    assert_eq!(
        told(&imported),
        [
            "note customers/bolt/wrangler.toml:1: the code next to it is a copy of that of `acme`",
            "note customers/globex/wrangler.toml:2: `dist/index.js`, the worker's entry point, does not exist",
        ]
    );
    assert_eq!(customers(&project), ["acme", "bolt", "globex"]);
    assert_eq!(packs(&project).len(), 2, "{:?}", packs(&project));
    let checked = project.run(&["-C", "fleet", "check"]).exits(0);
    assert!(checked.stderr.contains("warning[P0615]"), "{checked:?}");
}

#[test]
fn workers_of_a_monorepo_are_roles_only_if_they_refer_to_each_other() {
    let web = config("web", "index.ts", "x") + "[[services]]\nbinding = \"API\"\nservice = \"api\"\n";
    let (api, cron) = (config("api", "index.ts", "x"), config("nightly", "index.ts", "x"));
    let cron = cron + "[triggers]\ncrons = [\"0 3 * * *\"]\n";
    let project = project(&[
        ("package.json", "{ \"name\": \"shop\" }"),
        ("apps/web/wrangler.toml", &web),
        ("apps/web/index.ts", CODE),
        ("apps/api/wrangler.toml", &api),
        ("apps/api/index.ts", CODE),
        ("apps/nightly/wrangler.toml", &cron.replace("compatibility_date", "workers_dev = false\ncompatibility_date")),
        ("apps/nightly/index.ts", CODE),
        ("templates/basic/wrangler.toml", "name = \"{{project-name}}\"\n{% if routes %}\nroutes = []\n{% endif %}\n"),
    ]);
    let imported = import(&project, &["--exclude", "templates"], 0);
    assert_eq!(told(&imported), [""; 0]);
    assert_eq!(customers(&project), ["nightly", "shop"]);
    let shop = spec(&project, "shop");
    assert!(shop.contains("services: { API: api }") && shop.contains("  api:"), "{shop}");
    // A cron reaches it.
    let checked = project.run(&["-C", "fleet", "check"]).exits(0);
    assert!(!checked.stderr.contains("N0309"), "{checked:?}");
    // With a file that is no TOML, the others are imported all the same.
    std::fs::remove_dir_all(project.path("fleet")).unwrap();
    let imported = import(&project, &[], 4);
    assert!(
        told(&imported).iter().all(|line| line.starts_with("invalid templates/basic/wrangler.toml:")),
        "{imported}"
    );
    assert_eq!(customers(&project), ["nightly", "shop"]);
}

#[test]
fn environments_with_other_names() {
    let mut text = config("gate", "src/index.ts", "top");
    for name in ["dev", "local", "test", "staging", "production", "production_staging", "preview", "alice", "eu"] {
        text += &format!("[env.{name}.vars]\nWHO = \"{name}\"\n");
    }
    let project = project(&[("src/index.ts", CODE), ("wrangler.toml", &text)]);
    let imported = import(&project, &[], 0);
    assert_eq!(
        told(&imported),
        [
            "note wrangler.toml:1: the top level is read for what environments inherit; its own worker, `gate`, is not imported",
            "note wrangler.toml:18: [env.preview] is the environment `permanent-preview` now",
            "note wrangler.toml:20: [env.alice] and 1 more are environments now",
        ]
    );
    assert_eq!(customers(&project), ["gate"]);
    let built = project.run(&["-C", "fleet", "show", "gate", "--format", "json"]).exits(0).json();
    let workers = built["workers"].as_array().unwrap().iter();
    let names: Vec<String> = workers
        .map(|worker| format!("{} {}", worker["environment"].as_str().unwrap(), worker["name"].as_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            "development gate-dev",
            "alice gate-alice",
            "eu gate-eu",
            "local gate-local",
            "permanent-preview gate-preview",
            "production-staging gate-production_staging",
            "test gate-test",
            "staging gate-staging",
            "production gate-production",
        ]
    );
}

#[test]
fn hosts_and_names_that_two_workers_have() {
    let routes = r#"{
      "name": "hooks", "main": "index.ts", "compatibility_date": "2026-01-15",
      "routes": [{ "pattern": "hooks.shop.example", "custom_domain": true }],
      "env": { "dev": { "name": "hooks-dev" }, "staging": { "routes": ["https://stage.shop.example/v1*"] } },
    }"#;
    let (one, other) = (config("console", "index.ts", "x"), config("console", "index.ts", "x"));
    let other = other.replace("[vars]", "account_id = \"00000000000000000000000000000001\"\n[vars]");
    let project = project(&[
        ("hooks/wrangler.jsonc", routes),
        ("hooks/index.ts", CODE),
        ("console/wrangler.toml", &one),
        ("console/index.ts", CODE),
        ("site/wrangler.toml", &other),
        ("site/index.ts", CODE),
    ]);
    let imported = import(&project, &[], 4);
    assert_eq!(
        told(&imported),
        [
            "left-out hooks/wrangler.jsonc:4: [env.dev] of hooks/wrangler.jsonc has `hooks.shop.example`, which belongs to hooks/wrangler.jsonc: a host points to one worker",
            "note hooks/wrangler.jsonc:4: `https://stage.shop.example/v1*` is mapped to `stage.shop.example/v1*`: routes of a spec match http and https",
            "lost site/wrangler.toml:1: the worker `console` is also that of console/wrangler.toml: the later deploy overwrote the earlier one",
        ]
    );
}

#[test]
fn fields_that_wrangler_ignores_and_rate_limits_in_their_old_place() {
    let text = config("notes", "src/index.ts", "x")
        + "[[kv_namespaces]]\nbinding = \"NOTES\"\nid = \"0123456789abcdef0123456789abcdef\"\ntitle = \"notes of the shop\"\n\
           [[unsafe.bindings]]\nname = \"LIMITER\"\ntype = \"ratelimit\"\nnamespace_id = \"1001\"\nsimple = { limit = 10, period = 60 }\n";
    let code = "// https://user:password@host/x.git\nconst marker = \"-----BEGIN PRIVATE KEY-----\";\n\
                const url = (token: string) => `https://reader:${token}@git.example/x.git`;\nexport default { fetch: () => new Response(marker + url(\"\")) };\n";
    let project = project(&[("src/index.ts", code), ("wrangler.toml", &text)]);
    let imported = import(&project, &[], 0);
    assert_eq!(
        told(&imported),
        ["note wrangler.toml:9: `title` of the binding `NOTES` is not a field of wrangler's `kv_namespaces`"]
    );
    let spec = spec(&project, "notes");
    assert!(
        spec.contains("NOTES: { kv: \"0123456789abcdef0123456789abcdef\" }")
            || spec.contains("NOTES: { kv: 0123456789abcdef0123456789abcdef }"),
        "{spec}"
    );
    assert!(spec.contains("rateLimit") && spec.contains("period: 60"), "{spec}");
}

#[test]
fn an_import_into_a_fleet_leaves_its_customers_as_they_are() {
    let first = config("first", "index.ts", "first") + "[triggers]\ncrons = [\"0 3 * * *\"]\n";
    let second = config("second", "index.ts", "second").replace("[vars]", "[observability]\nenabled = true\n[vars]");
    let project = project(&[
        ("apps/first/wrangler.toml", &first),
        ("apps/first/index.ts", CODE),
        ("apps/second/wrangler.toml", &second),
        ("apps/second/index.ts", CODE),
    ]);
    let from = |folder: &str, code: i32| -> Run {
        project.run(&["-C", "fleet", "import", folder, "--format", "json"]).exits(code)
    };
    from("apps/first", 0);
    project.edit(
        "fleet/fleet.yaml",
        "packs:",
        "# Ours.\ndefaults:\n  crons: [\"0 4 * * *\"]\n  vars: { OURS: \"1\" }\npacks:",
    );
    let shown = |customer: &str| {
        let run = project.run(&["-C", "fleet", "show", customer, "--format", "json"]).exits(0);
        run.json()
    };
    let before = shown("first");
    from("apps/second", 0);
    project.run(&["-C", "fleet", "check"]).exits(0);
    assert_eq!(shown("first"), before);
    let fleet = project.read("fleet/fleet.yaml");
    assert!(fleet.contains("# Ours.") && fleet.contains("templates/second"), "{fleet}");
    // It has nothing of what the fleet's customers have by default.
    let second = spec(&project, "second");
    assert!(second.contains("crons: null") && second.contains("OURS: null"), "{second}");
    assert!(!shown("second").to_string().contains("OURS"), "{}", shown("second"));
    // A customer that is there stays as it is, unless --force says otherwise.
    project.write("fleet/customers/second.yaml", "id: second\npack: second\n");
    let refused = from("apps/second", 5);
    assert!(refused.stderr.contains("customers/second.yaml would be overwritten"), "{refused:?}");
    let other = project.run(&["-C", "fleet", "import", "apps/second", "--name", "other"]).exits(2);
    assert!(other.stderr.contains("already has the fleet `first`"), "{other:?}");
}

#[test]
fn classes_and_workflows_of_its_own_come_with_the_code() {
    let own = |name: &str| {
        format!(
            "[[env.{name}.durable_objects.bindings]]\nname = \"ROOM\"\nclass_name = \"Room\"\n\
             [[env.{name}.workflows]]\nbinding = \"ORDERS\"\nname = \"orders-{name}\"\nclass_name = \"Orders\"\n\
             [[env.{name}.queues.consumers]]\nqueue = \"jobs-{name}\"\n"
        )
    };
    let text = config("chat", "src/index.ts", "x")
        + "[[migrations]]\ntag = \"v1\"\nnew_sqlite_classes = [\"Room\"]\n"
        + &own("production")
        + &own("staging");
    let text = text.replace("[vars]\nWHO = \"x\"\n", "");
    let project = project(&[
        ("chat/src/index.ts", CODE),
        ("chat/wrangler.toml", &text),
        // A class under the worker's own name is its own, too.
        ("single/index.ts", CODE),
        (
            "single/wrangler.toml",
            "name = \"single\"\nmain = \"index.ts\"\ncompatibility_date = \"2026-01-15\"\n[[migrations]]\ntag = \"v1\"\nnew_sqlite_classes = [\"Room\"]\n\
             [[durable_objects.bindings]]\nname = \"ROOM\"\nclass_name = \"Room\"\nscript_name = \"single\"\n\
             [[workflows]]\nbinding = \"ORDERS\"\nname = \"orders\"\nclass_name = \"Orders\"\nscript_name = \"single\"\n",
        ),
    ]);
    let imported = import(&project, &[], 0);
    let lines = told(&imported);
    assert!(lines.iter().all(|line| line.starts_with("note chat/wrangler.toml:1: the top level is read")), "{lines:?}");
    assert_eq!(packs(&project), ["chat/pack.yaml", "single/pack.yaml"], "names of queues and workflows are in specs");
    let chat = spec(&project, "chat");
    for part in ["orders-staging", "jobs-production"] {
        assert!(chat.contains(part) && !chat.contains("durableObject") && !chat.contains("manual"), "{chat}");
    }
    let single = spec(&project, "single");
    assert!(single.contains("ORDERS: { class: Orders, workflow: orders }"), "{single}");
    let shown = project.run(&["-C", "fleet", "show", "single", "--format", "json"]).exits(0).stdout;
    assert!(shown.contains("\"ROOM\":{\"durableObject\":\"Room\"}"), "the pack binds it: {shown}");
}

#[test]
fn a_configuration_that_a_build_makes_is_used_in_its_place() {
    let own = config("web", "src/index.ts", "x") + "[env.staging.vars]\nWHO = \"staging\"\n";
    let project = project(&[
        ("src/index.ts", CODE),
        ("wrangler.toml", &own),
        (
            "package.json",
            r#"{ "name": "web", "scripts": { "build": "vite build" }, "devDependencies": { "@cloudflare/vite-plugin": "1", "wrangler": "4" } }"#,
        ),
    ]);
    let missing =
        "a build makes the configuration that `wrangler deploy` uses in the place of this one, and it has not run";
    let imported = import(&project, &[], 0);
    assert_eq!(
        told(&imported),
        [
            format!("note wrangler.toml:1: {missing}"),
            format!("note wrangler.toml:6: {missing} for the environment `staging`")
        ]
    );
    assert_eq!(imported["steps"][0]["command"], "npm run build");
    // As `vite build` writes it: every key, most of them empty, and the code beside it.
    let made = r#"{ "configPath": "wrangler.toml", "userConfigPath": "wrangler.toml", "topLevelName": "web", "name": "web", "main": "index.js",
        "compatibility_date": "2026-01-15", "vars": { "WHO": "x" }, "no_bundle": true, "rules": [{ "type": "ESModule", "globs": ["**/*.js"] }],
        "cloudchamber": {}, "logfwdr": { "bindings": [] }, "queues": { "producers": [], "consumers": [] }, "containers": [], "unsafe": {} }"#;
    project.write("dist/web/wrangler.json", made);
    project.write("dist/web/index.js", CODE);
    project.write(
        ".wrangler/deploy/config.json",
        r#"{ "configPath": "../../dist/web/wrangler.json", "auxiliaryWorkers": [] }"#,
    );
    std::fs::remove_dir_all(project.path("fleet")).unwrap();
    let imported = import(&project, &[], 0);
    assert_eq!(
        told(&imported),
        [
            format!("note wrangler.toml:6: {missing} for the environment `staging`"),
            "note wrangler.toml:6: the code of [env.staging] of wrangler.toml is bundled differently from that of wrangler.toml: it is the customer `web-staging` now".to_owned(),
        ]
    );
    assert_eq!(customers(&project), ["web-staging", "web"]);
    let manifests: Vec<String> =
        packs(&project).iter().map(|pack| project.read(&format!("fleet/templates/{pack}"))).collect();
    let of_build = manifests.iter().filter(|pack| pack.contains("config: ../../../dist/web/wrangler.json\n"));
    assert_eq!((manifests.len(), of_build.count()), (2, 1), "{manifests:?}");
    let mut command = project.command(&["-C", "fleet", "build", "--env", "production"]);
    output(command.envs([path_variable()])).exits(0);
    let built: Vec<String> = project.files("fleet/out/bundles").into_keys().collect();
    assert!(built.iter().any(|file| file.ends_with("/index.js")), "{built:?}");
}
