//! Shows: a project that real wrangler deployed is imported, built, and deployed over what is there, and nothing changes: bindings,
//! compatibility, domains, routes, crons, answers. What can't be mapped is told with its place, and left alone; no secret is copied.

use std::path::{Path, PathBuf};
use std::process::Command;

use flotilla_import::keys::{Scope, key as key_of};
use serde_json::{Value, json};

use crate::folders::temporary_folder;
use crate::support::{Project, Run, output};
use crate::tools::{Local, json as body, node, packages, sent_elsewhere, wrangler};
use crate::wrangler::{run, state};

/// The account of all deploys.
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
/// Code that tells its variables.
const TELLS: &str = "export default { fetch: (request, env) => Response.json(Object.fromEntries(Object.entries(env)\
                     .filter(([name, value]) => typeof value !== 'object' || name.startsWith('JSON')).filter(([name]) => name !== 'FLOTILLA_DIGEST'))) };\n";

/// A project of wrangler's, and the fleet that it becomes.
struct Both {
    theirs: Project,
    fleet: Project,
    local: Local,
    home: tempfile::TempDir,
    /// The repository of both.
    repository: tempfile::TempDir,
}

/// A git repository with wrangler among its packages, and folders in it.
fn repository() -> (tempfile::TempDir, impl Fn() -> Project) {
    let folder = temporary_folder();
    let path = folder.path().to_owned();
    output(Command::new("git").args(["init", "-q"]).arg(&path)).exits(0);
    std::fs::create_dir(path.join("node_modules")).unwrap();
    link(&packages().join("node_modules/wrangler"), &path.join("node_modules/wrangler"));
    (folder, move || Project::at(tempfile::tempdir_in(&path).unwrap()))
}

/// The variable by which flotilla finds the Node.js that wrangler needs.
pub fn path_variable() -> (&'static str, String) {
    let own = node();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.parent().map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    ("PATH", std::env::join_paths(folders).unwrap().into_string().unwrap())
}

impl Both {
    fn new(files: &[(&str, &str)]) -> Both {
        let (repository, folder) = repository();
        let theirs = folder();
        for (path, text) in files {
            theirs.write(path, text);
        }
        let fleet = folder();
        // The local Cloudflare keeps its state in a project of its own.
        let local = Local::start(&Project::empty(), None);
        Both { theirs, fleet, local, home: temporary_folder(), repository }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", self.local.origin)),
            ("CLOUDFLARE_API_TOKEN", "a-token".to_owned()),
            ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT.to_owned()),
            path_variable(),
        ]
    }

    /// `wrangler deploy`, in a folder and for an environment.
    #[track_caller]
    fn wrangler(&self, folder: &str, more: &[&str]) {
        let mut command = wrangler(&self.theirs.path(folder), self.home.path());
        run(command.arg("deploy").args(more).envs(self.variables()), self.home.path());
        assert!(!sent_elsewhere(), "wrangler asked for another host");
    }

    /// `flotilla import` into the fleet.
    #[track_caller]
    fn import(&self, more: &[&str], code: i32) -> Value {
        let path = self.theirs.root().to_str().unwrap().to_owned();
        self.fleet.run(&[&["import", &path, "--format", "json"], more].concat()).exits(code).json()
    }

    #[track_caller]
    fn flotilla(&self, arguments: &[&str]) -> Run {
        let variables = self.variables();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.fleet.run_with(arguments, &variables)
    }

    /// What an account has of a worker, and what the worker answers.
    fn state(&self, worker: &str, zone: &str) -> Value {
        let mut state = state(&self.local, worker, zone);
        state["bindings"].as_object_mut().unwrap().remove("FLOTILLA_DIGEST");
        // wrangler sends the older name of the same id.
        for binding in state["bindings"].as_object_mut().unwrap().values_mut().filter(|binding| binding["type"] == "d1")
        {
            if let Some(id) = binding.as_object_mut().unwrap().remove("id") {
                binding["database_id"] = id;
            }
        }
        // Without a word about it, nothing is kept.
        if state["observability"].is_null() {
            state["observability"] = json!({"enabled": false});
        }
        // wrangler leaves previews as they are, flotilla switches them off.
        state["workers_dev"].as_object_mut().unwrap().remove("previews_enabled");
        state["answer"] = body(self.local.get(worker, "/"));
        state
    }

    /// Deploys the fleet over what wrangler deployed: each worker is as it was.
    #[track_caller]
    fn stays(&self, workers: &[&str], zone: &str) -> Vec<Value> {
        self.stays_with(workers, zone, &[], |_| {})
    }

    #[track_caller]
    fn stays_with(&self, workers: &[&str], zone: &str, more: &[&str], but: impl Fn(&mut Value)) -> Vec<Value> {
        let states = || -> Vec<Value> {
            let each = workers.iter().map(|worker| {
                let mut state = self.state(worker, zone);
                but(&mut state);
                state
            });
            each.collect()
        };
        let before = states();
        self.fleet.run(&["check"]).exits(0);
        // They aren't the fleet's yet, and are left alone.
        let refused = self.flotilla(&[&["deploy", "--yes"], more].concat()).exits(5);
        assert!(refused.stderr.contains("--adopt"), "{refused:#?}");
        // The names of many, by a pattern.
        let pattern = format!("{}-*", workers[0].split('-').next().unwrap());
        let is_common =
            workers.len() > 3 && workers.iter().all(|worker| worker.starts_with(&pattern[..pattern.len() - 1]));
        let named: Vec<&str> = if is_common { vec![&pattern] } else { workers.to_vec() };
        let adopt = named.into_iter().flat_map(|worker| ["--adopt", worker]);
        let command: Vec<&str> =
            ["deploy", "--yes", "--refresh", "--format", "json"].into_iter().chain(adopt).collect();
        let outcome = self.flotilla(&[&command[..], more].concat()).exits(0).json();
        assert_eq!(outcome["applied"], workers.len(), "{outcome}");
        let after = states();
        for (at, worker) in workers.iter().enumerate() {
            assert_eq!(before[at], after[at], "{worker}\n{}", self.specs());
            let digest = state(&self.local, worker, zone)["bindings"]["FLOTILLA_DIGEST"]["text"].clone();
            assert!(digest.is_string(), "{worker} is still wrangler's");
        }
        // Once more, there is nothing to do.
        self.flotilla(&[&["plan", "--exit-code"], more].concat()).exits(0);
        after
    }

    /// All specs, for messages.
    fn specs(&self) -> String {
        let specs = self.fleet.files("customers").into_values();
        self.fleet.read("fleet.yaml") + &specs.map(|spec| String::from_utf8(spec).unwrap()).collect::<String>()
    }

    fn spec(&self, customer: &str) -> String {
        self.fleet.read(&format!("customers/{customer}.yaml"))
    }
}

/// The findings as `kind file:line: message`.
pub fn told(imported: &Value) -> Vec<String> {
    let findings = imported["findings"].as_array().unwrap();
    let line = |finding: &Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        assert!(!text("help").is_empty(), "{finding}");
        format!("{} {}:{}: {}", text("kind"), text("file"), finding["line"], text("message"))
    };
    findings.iter().map(line).collect()
}

#[test]
fn environments_and_what_they_inherit() {
    let both = Both::new(&[
        (
            "wrangler.toml",
            r#"
name = "shop"
main = "src/index.ts"
compatibility_date = "2026-01-15"
compatibility_flags = ["global_fetch_strictly_public"]
keep_names = false

[observability]
enabled = true
head_sampling_rate = 0.5

[triggers]
crons = ["*/30 * * * *"]

[vars]
ONLY_TOP = "not inherited"

[env.production]
workers_dev = true
vars = { ENVIRONMENT = "production", COUNT = 3, JSON_LIMITS = { low = 1, high = [2, 3.5] }, TEXT = "a \"quoted\" # text: yes", FLAG = true }

[env.staging]
vars = { ENVIRONMENT = "staging", COUNT = 3 }
compatibility_date = "2026-02-01"
triggers = { crons = [] }

[env.dev]
name = "shop-of-the-developers"
vars = { ENVIRONMENT = "dev" }
observability = { enabled = false }

[dev]
port = 9000
"#,
        ),
        (
            "src/index.ts",
            "import { tell } from \"@lib/tell\";\nimport text from \"./hello.txt\";\nimport data from './data.json' with { type: 'json' };\n\
             export default { fetch: (request: Request, env: object) => Response.json({ ...tell(env), text, data }) } satisfies { fetch: unknown };\n",
        ),
        ("src/hello.txt", "hello\n"),
        ("src/data.json", "{\"a\": [1]}"),
        (
            "lib/tell.ts",
            "export const tell = (env: object) => Object.fromEntries(Object.entries(env).filter(([name]) => name !== 'FLOTILLA_DIGEST'));\n",
        ),
        ("tsconfig.json", "{ // paths\n \"compilerOptions\": { \"paths\": { \"@lib/*\": [\"./lib/*\"] } } }"),
        ("unrelated.ts", "export const nobody = \"imports this\";\n"),
    ]);
    for environment in ["production", "staging", "dev"] {
        both.wrangler(".", &["--env", environment]);
    }
    let imported = both.import(&[], 0);
    assert_eq!((&imported["customers"], &imported["workers"], &imported["packs"]), (&json!(1), &json!(3), &json!(1)));
    assert_eq!(
        told(&imported),
        [
            "note wrangler.toml:2: the top level is read for what environments inherit; its own worker, `shop`, is not imported"
        ]
    );
    let found = both.stays(&["shop-production", "shop-staging", "shop-of-the-developers"], "shop.example");
    assert_eq!(found[0]["crons"], json!(["*/30 * * * *"]));
    assert_eq!(found[1]["crons"], json!([]));
    assert_eq!(found[0]["answer"]["JSON_LIMITS"], json!({"low": 1, "high": [2, 3.5]}));
    assert_eq!(found[0]["answer"]["data"], json!({"a": [1]}));
    assert!(found[0]["answer"].get("ONLY_TOP").is_none());
    let spec = both.spec("shop");
    assert!(
        spec.contains("workerName: shop-of-the-developers\n") || spec.contains("workerName: shop-of-the-developers,"),
        "{spec}"
    );
    // The code stays where it is.
    let files: Vec<String> = both.fleet.files("templates").into_keys().collect();
    assert_eq!(files, ["shop/pack.yaml"]);
}

#[test]
fn jsonc_with_bindings_domains_and_routes() {
    let both = Both::new(&[("src/worker.js", TELLS)]);
    let created = |path: &str, body: Value| {
        both.local.call(reqwest::Method::POST, &format!("/accounts/{ACCOUNT}{path}"), Some(body))
    };
    let kv = created("/storage/kv/namespaces", json!({"title": "cache"}))["id"].as_str().unwrap().to_owned();
    let main = created("/d1/database", json!({"name": "bound-main"}))["uuid"].as_str().unwrap().to_owned();
    let other = created("/d1/database", json!({"name": "bound-logs"}))["uuid"].as_str().unwrap().to_owned();
    // A zone exists once it was asked for by its name; wrangler sets routes in any order.
    both.local.call(reqwest::Method::GET, &format!("/zones?name=bound.example&account.id={ACCOUNT}"), None);
    let migrations = json!({"new_tag": "v1", "steps": [{"new_sqlite_classes": ["Counter"]}]});
    let metadata = json!({"main_module": "index.js", "compatibility_date": "2026-06-01", "migrations": migrations});
    both.local.upload(
        &format!("/accounts/{ACCOUNT}/workers/scripts/counters"),
        &metadata,
        "index.js",
        "export default {}; export class Counter {}",
    );
    let config = r#"{
  // As the documentation has it.
  "$schema": "./node_modules/wrangler/config-schema.json",
  "name": "bound",
  "main": "src/worker.js",
  "compatibility_date": "2026-01-15",
  "routes": [
    { "pattern": "bound.example", "custom_domain": true },
    { "pattern": "api.bound.example/v1/*", "zone_name": "bound.example" },
    { "pattern": "www.bound.example/*", "zone_id": "e2605e5bd3014e619bb122aaca87894c" },
  ],
  "kv_namespaces": [{ "binding": "CACHE", "id": "KV", "preview_id": "x" }],
  "r2_buckets": [{ "binding": "FILES", "bucket_name": "bound-files", "jurisdiction": "eu" }],
  "d1_databases": [
    { "binding": "DB", "database_name": "bound-main", "database_id": "MAIN", "migrations_dir": "sql" },
    { "binding": "LOGS", "database_name": "bound-logs", "database_id": "OTHER" },
  ],
  "queues": { "producers": [{ "binding": "JOBS", "queue": "bound-jobs" }] },
  "durable_objects": { "bindings": [{ "name": "COUNTER", "class_name": "Counter", "script_name": "counters" }] },
  "analytics_engine_datasets": [{ "binding": "EVENTS", "dataset": "bound_events" }],
  "hyperdrive": [{ "binding": "PG", "id": "0f3f6a109a4e4c518f5c2b7d1d2f9a01" }],
  "vectorize": [{ "binding": "VECTORS", "index_name": "bound-index" }],
  "ai": { "binding": "AI", "remote": true },
  "version_metadata": { "binding": "VERSION" },
  "services": [{ "binding": "COUNTERS", "service": "counters" }],
  "limits": { "cpu_ms": 50 },
  "placement": { "mode": "smart" },
  "logpush": true,
  "keep_vars": true,
  "cache": { "enabled": true, "cross_version_cache": false },
  "tail_consumers": [{ "service": "counters" }],
  "observability": { "enabled": true, "logs": { "enabled": true, "invocation_logs": false } },
}"#;
    both.theirs.write("wrangler.jsonc", config.replace("KV", &kv).replace("MAIN", &main).replace("OTHER", &other));
    both.wrangler(".", &[]);
    let imported = both.import(&[], 0);
    assert_eq!(told(&imported), ["note wrangler.jsonc:10: the zone of `www.bound.example/*` is given by its id"]);
    assert!(both.spec("bound").contains("zoneId: e2605e5bd3014e619bb122aaca87894c"), "{}", both.spec("bound"));
    let found = both.stays(&["bound"], "bound.example");
    assert_eq!(found[0]["bindings"].as_object().unwrap().len(), 12, "{}", found[0]);
    assert_eq!(found[0]["domains"], json!(["bound.example"]));
    assert_eq!(found[0]["routes"], json!(["api.bound.example/v1/*", "www.bound.example/*"]));
    assert_eq!(found[0]["workers_dev"], json!({"enabled": false}));
    assert_eq!(both.spec("bound").matches("workersDev: false").count(), 1);
}

#[test]
fn workers_that_call_each_other() {
    let both = Both::new(&[
        (
            "apps/web/wrangler.toml",
            "name = \"mall-web\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n[[services]]\nbinding = \"API\"\nservice = \"mall-api\"\n\
             [[services]]\nbinding = \"ADMIN\"\nservice = \"mall-api\"\nentrypoint = \"Admin\"\n[[services]]\nbinding = \"SELF\"\nservice = \"mall-web\"\n",
        ),
        (
            "apps/web/index.js",
            "export default { async fetch(request, env) { return Response.json({ api: await (await env.API.fetch('https://api/')).json() }); } };\n",
        ),
        (
            "apps/api/wrangler.toml",
            "name = \"mall-api\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\nvars = { WHO = \"api\" }\n",
        ),
        (
            "apps/api/index.js",
            "import { WorkerEntrypoint } from 'cloudflare:workers';\nexport class Admin extends WorkerEntrypoint {}\n\
             export default { fetch: (request, env) => Response.json({ who: env.WHO }) };\n",
        ),
        ("package.json", "{ \"name\": \"@example/mall\" }"),
    ]);
    both.wrangler("apps/api", &[]);
    both.wrangler("apps/web", &[]);
    let imported = both.import(&[], 0);
    assert_eq!((&imported["workers"], &imported["packs"]), (&json!(2), &json!(2)));
    let found = both.stays(&["mall-api", "mall-web"], "mall.example");
    assert_eq!(found[1]["answer"], json!({"api": {"who": "api"}}));
    let spec = both.spec("mall");
    assert!(spec.contains("services: { API: api, SELF: web }"), "{spec}");
    assert!(
        spec.contains("ADMIN: { worker: mall-api, entrypoint: Admin }")
            || spec.contains("ADMIN: { entrypoint: Admin, worker: mall-api }"),
        "{spec}"
    );
}

#[test]
fn an_environment_for_each_customer() {
    let mut config =
        "name = \"portal\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\nworkers_dev = true\n".to_owned();
    for customer in ["acme", "bluebird"] {
        config += &format!(
            "[env.{customer}]\nvars = {{ TENANT = \"{customer}\", SHARED = \"all\" }}\nroute = {{ pattern = \"{customer}.portal.example/*\", zone_name = \"portal.example\" }}\n"
        );
        config += &format!("[env.{customer}-staging]\nvars = {{ TENANT = \"{customer}\", SHARED = \"all\" }}\n");
    }
    let both = Both::new(&[("wrangler.toml", &config), ("index.js", TELLS)]);
    for environment in ["acme", "acme-staging", "bluebird", "bluebird-staging"] {
        both.wrangler(".", &["--env", environment]);
    }
    let imported = both.import(&[], 0);
    assert_eq!((&imported["customers"], &imported["workers"], &imported["packs"]), (&json!(2), &json!(4), &json!(1)));
    let workers = ["portal-acme", "portal-acme-staging", "portal-bluebird", "portal-bluebird-staging"];
    let found = both.stays(&workers, "portal.example");
    assert_eq!(found[2]["routes"], json!(["bluebird.portal.example/*"]));
    both.flotilla(&["plan", "--adopt", "nobody-*"]).exits(2);
    // The names follow from the pack's prefix, and what both have is in fleet.yaml.
    assert!(!both.specs().contains("workerName"), "{}", both.specs());
    assert!(both.fleet.read("fleet.yaml").contains("SHARED: all"), "{}", both.specs());
    assert!(!both.spec("acme").contains("compatibilityDate"), "{}", both.specs());
}

/// The layout with env files: what wrangler deploys is `testcorp`'s; `acme` has env files alone.
fn layout(domain: &str, more: &str) -> Vec<(&'static str, String)> {
    vec![
        (
            "wrangler.toml",
            format!(
                "name = \"data-service\"\nmain = \"src/index.js\"\ncompatibility_date = \"2026-01-15\"\naccount_id = \"{ACCOUNT}\"\n\
                 [env.production]\nname = \"data-service-prod\"\nroutes = [{{ pattern = \"testcorp.example\", custom_domain = true }}]\n\
                 [env.production.vars]\nSERVICE_DOMAIN = \"testcorp\"\nCUSTOMER_ID = \"testcorp\"\nCUSTOMER_DOMAIN = \"testcorp.example\"\nREGION = \"eu\"\n\
                 FEATURE_BETA = \"true\"\n[[env.production.d1_databases]]\nbinding = \"DB\"\ndatabase_name = \"testcorp-auth-db\"\ndatabase_id = \"DATABASE\"\n"
            ),
        ),
        ("src/index.js", TELLS.to_owned()),
        ("config/base/wrangler.base.toml", format!("account_id = \"{ACCOUNT}\"\n")),
        ("config/base/variables.base.env", "REGION=eu\n".to_owned()),
        (
            "config/customers/testcorp/production.env",
            format!("{domain}=testcorp.example\nCUSTOMER_ID=testcorp\nFEATURE_BETA=true\n{more}"),
        ),
        ("config/environments/production.toml", "# documentation\n".to_owned()),
    ]
}

fn database(both: &Both) {
    let path = format!("/accounts/{ACCOUNT}/d1/database");
    let made = both.local.call(reqwest::Method::POST, &path, Some(json!({"name": "testcorp-auth-db"})));
    both.theirs.edit("wrangler.toml", "DATABASE", made["uuid"].as_str().unwrap());
}

fn with(files: &[(&'static str, String)]) -> Both {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    Both::new(&files)
}

#[test]
fn the_layout_with_env_files() {
    let both = with(&layout("CUSTOMER_DOMAIN", ""));
    database(&both);
    both.wrangler(".", &["--env", "production"]);
    let imported = both.import(&[], 0);
    assert_eq!((&imported["customers"], &imported["workers"]), (&json!(1), &json!(1)));
    assert!(
        told(&imported).contains(&"note config/environments/production.toml:0: it is documentation".to_owned()),
        "{imported}"
    );
    let found = both.stays(&["data-service-prod"], "testcorp.example");
    assert_eq!(found[0]["answer"]["REGION"], "eu");
    assert_eq!(found[0]["domains"], json!(["testcorp.example"]));
    let spec = both.spec("testcorp");
    assert!(spec.contains("workerName: data-service-prod") && spec.contains("testcorp-auth-db"), "{spec}");
    assert!(both.fleet.read("fleet.yaml").contains(ACCOUNT));
}

#[test]
fn the_layout_with_env_files_in_its_older_names() {
    let canary = "canary-0123456789abcdefghijklmnopqrstuv";
    let old = format!(
        "CLOUDFLARE_ACCOUNT_ID={ACCOUNT}\nCLOUDFLARE_ZONE_ID=0123\nCLOUDFLARE_API_TOKEN={canary}\nWRANGLER_CONFIG=wrangler.toml\nDATABASE_NAME=testcorp-auth-db\n"
    );
    let mut files = layout("DOMAIN", &old);
    // Another customer, without a section of wrangler's.
    files.push((
        "config/customers/acme/production.env",
        "DOMAIN=acme.example\nCUSTOMER_ID=acme\nDATABASE_NAME=acme-auth-db\n".to_owned(),
    ));
    // A third one, with a file of wrangler's own.
    files.push((
        "config/customers/bluebird/production.env",
        "WRANGLER_CONFIG=./wrangler.bluebird.toml\nCUSTOMER_ID=bluebird\n".to_owned(),
    ));
    files.push((
        "wrangler.bluebird.toml",
        "name = \"bluebird-data\"\nmain = \"src/index.js\"\ncompatibility_date = \"2026-01-15\"\nvars = { CUSTOMER_ID = \"bluebird\", REGION = \"eu\" }\n".to_owned(),
    ));
    let both = with(&files);
    database(&both);
    both.wrangler(".", &["--env", "production"]);
    both.wrangler(".", &["--config", "wrangler.bluebird.toml"]);
    let imported = both.import(&[], 4);
    assert_eq!((&imported["customers"], &imported["workers"], &imported["packs"]), (&json!(3), &json!(2), &json!(1)));
    let told = told(&imported);
    for line in [
        "credential config/customers/testcorp/production.env:6: `CLOUDFLARE_API_TOKEN` is an API token of the account",
        "note config/customers/testcorp/production.env:1: `DOMAIN` is the older name of `CUSTOMER_DOMAIN`",
        "note config/customers/testcorp/production.env:5: the id of the zone is not needed",
        "left-out config/customers/acme/production.env:0: the wrangler file has no section for `acme` in production; [env.production] of wrangler.toml belongs to `testcorp`",
    ] {
        assert!(told.contains(&line.to_owned()), "{line}\n{told:#?}");
    }
    let found = both.stays(&["data-service-prod", "bluebird-data"], "testcorp.example");
    assert_eq!(found[0]["answer"]["CUSTOMER_DOMAIN"], "testcorp.example");
    // A worker, a name and a database of its own, and nothing of the other's; nobody deploys it without a look.
    let acme = both.spec("acme");
    for part in ["delivery: manual", "acme.example", "CUSTOMER_ID: acme", "SERVICE_DOMAIN: acme", "acme-auth-db"] {
        assert!(acme.contains(part), "{part}\n{acme}");
    }
    assert!(!acme.contains("data-service-prod") && !acme.contains("testcorp-auth"), "{acme}");
    for (path, bytes) in both.fleet.files(".") {
        assert!(!String::from_utf8_lossy(&bytes).contains(canary), "{path}");
    }
}

/// Three workers that know each other by address, with the domains written as wrangler refuses them.
const THREE: [(&str, &str, &str, &str); 3] = [
    (
        "apps/web",
        "codex-web",
        "codex",
        "AUTH_WORKER_URL = \"https://auth{}.studio.example\"\nAPI_URL = \"https://api{}.studio.example\"",
    ),
    (
        "workers/stripe-webhook-handler",
        "stripe-webhook-handler",
        "api",
        "WEB_APP_URL = \"https://codex{}.studio.example\"\nAUTH_WORKER_URL = \"https://auth{}.studio.example\"",
    ),
    (
        "workers/auth",
        "auth-worker",
        "auth",
        "WEB_APP_URL = \"https://codex{}.studio.example\"\nAPI_URL = \"https://api{}.studio.example\"",
    ),
];

#[test]
fn three_workers_with_two_environments() {
    let both = Both::new(&[]);
    for (folder, name, host, vars) in THREE {
        let (production, staging) = (vars.replace("{}", ""), vars.replace("{}", "-staging"));
        let config = format!(
            "name = \"{name}\"\nmain = \"dist/index.js\"\ncompatibility_date = \"2025-01-01\"\n[observability]\nenabled = true\n\
             [env.production]\nname = \"{name}-production\"\nroutes = [\n  {{ pattern = \"{host}.studio.example\", custom_domain = true }}\n]\n\
             [env.production.vars]\nENVIRONMENT = \"production\"\n{production}\n\
             [env.staging]\nname = \"{name}-staging\"\nroutes = []\n[env.staging.vars]\nENVIRONMENT = \"staging\"\n{staging}\n"
        );
        both.theirs.write(&format!("{folder}/wrangler.toml"), config).write(&format!("{folder}/dist/index.js"), TELLS);
        both.wrangler(folder, &["--env", "production"]);
        both.wrangler(folder, &["--env", "staging"]);
        // As the project has it, after wrangler was shown what it takes.
        both.theirs.edit(
            &format!("{folder}/wrangler.toml"),
            ".studio.example\", custom",
            ".studio.example/*\", custom",
        );
    }
    let imported = both.import(&["--customer", "codex", "--name", "studio"], 0);
    assert_eq!((&imported["customers"], &imported["workers"]), (&json!(1), &json!(6)));
    let told = told(&imported);
    for line in [
        "note apps/web/wrangler.toml:9: `codex.studio.example/*` with `custom_domain = true` is rejected by wrangler: a custom domain is a bare host name",
        "note apps/web/wrangler.toml:15: `API_URL` of `codex-web-staging` points to `api-staging.studio.example`, which belongs to none of the imported workers",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}\n{told:#?}");
    }
    let names: Vec<String> =
        THREE.iter().flat_map(|(_, name, _, _)| [format!("{name}-production"), format!("{name}-staging")]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = both.stays(&names, "studio.example");
    assert_eq!(found[0]["answer"]["AUTH_WORKER_URL"], "https://auth.studio.example");
    assert_eq!(found[0]["domains"], json!(["codex.studio.example"]));
    let spec = both.spec("codex");
    for part in [
        "workerName: codex-web-{environment}",
        "{ workerUrl: auth }",
        "{ workerUrl: stripe-webhook-handler }",
        "https://auth-staging.studio.example",
    ] {
        assert!(
            spec.contains(part)
                || spec.contains(
                    &part.replace("workerName: codex-web-{environment}", "workerName: \"codex-web-{environment}\"")
                ),
            "{part}\n{spec}"
        );
    }
}

#[test]
fn what_a_spec_can_not_say_is_told_and_left_alone() {
    let both = Both::new(&[
        (
            "wrangler.toml",
            r#"
name = "full"
main = "index.js"
compatibility_date = "2026-01-15"
upload_source_maps = true
unknown_key = 1
account_id = "your-account-id-here"

[[services]]
binding = "SPECIAL"
service = "special"

[[kv_namespaces]]
binding = "AUTOMATIC"

[[queues.producers]]
binding = "SLOW"
queue = "jobs"
delivery_delay = 60

[[routes]]
pattern = "*.full.example/*"
custom_domain = true

[[queues.consumers]]
queue = "jobs"
max_batch_size = 5

[[queues.consumers]]
queue = "<name of the queue>"

[env.preview]
name = "full-preview"
"#,
        ),
        ("index.js", "export default { fetch: () => new Response('ok') };\n"),
        (
            "special/wrangler.toml",
            "name = \"special\"\nmain = \"../index.js\"\n[[streaming_tail_consumers]]\nservice = \"live\"\n",
        ),
        ("python/wrangler.toml", "name = \"python\"\nmain = \"entry.py\"\n"),
        ("database/wrangler.toml", "name = \"database\"\n"),
        ("command/wrangler.toml", "name = \"command\"\n"),
        ("command/package.json", "{ \"scripts\": { \"deploy\": \"wrangler deploy --minify index.js\" } }"),
        ("command/index.js", "export default {};\n"),
    ]);
    let imported = both.import(&[], 4);
    assert_eq!(
        told(&imported),
        [
            "left-out command/wrangler.toml:1: command/wrangler.toml has no `main`: the script `deploy` of package.json names index.js: `command` is not imported",
            "left-out database/wrangler.toml:1: database/wrangler.toml has no `main`: it deploys no worker: `database` is not imported",
            "left-out python/wrangler.toml:2: it is a worker in Python: `python` is not imported",
            "lost special/wrangler.toml:3: `streaming_tail_consumers` sets streaming tail consumers, which flotilla can't deploy yet: `special` is not imported",
            "left-out wrangler.toml:6: `unknown_key` is not a key of wrangler",
            "note wrangler.toml:7: this is not the id of an account, and is left out",
            "lost wrangler.toml:13: the binding `AUTOMATIC` (`kv_namespaces`) has no `id`",
            "note wrangler.toml:19: `delivery_delay` of the binding `SLOW` has no effect: it is a setting of the queue",
            "note wrangler.toml:21: `*.full.example/*` can't be a custom domain: those have neither wildcards nor paths",
            "lost wrangler.toml:29: the consumer of the queue `<name of the queue>` isn't one that a spec can have",
            "left-out wrangler.toml:32: [env.preview] of wrangler.toml has `*.full.example/*`, which belongs to wrangler.toml: a host points to one worker",
            "note wrangler.toml:32: [env.preview] is the environment `permanent-preview` now",
        ]
    );
    let spec = both.spec("full");
    assert!(spec.contains("queueConsumers:") && spec.contains("jobs:"), "{spec}");
    assert!(spec.contains("delivery: manual") && spec.contains("#   full: "), "{spec}");
    assert!(spec.contains("SPECIAL: { worker: special }"), "{spec}");
    both.fleet.run(&["check"]).exits(0);
    // With nothing else, nothing is written.
    let alone = Project::at(tempfile::tempdir_in(both.repository.path()).unwrap());
    let path = both.theirs.path("special");
    let run = alone.run(&["import", path.to_str().unwrap(), "--format", "json"]).exits(4);
    assert_eq!((&run.json()["customers"], alone.files(".").len()), (&json!(0), 0), "{run:?}");
}

#[test]
fn a_deploy_leaves_workers_alone_that_were_not_mapped_whole() {
    let both = Both::new(&[
        (
            "wrangler.toml",
            "name = \"site\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n[[kv_namespaces]]\nbinding = \"AUTOMATIC\"\n",
        ),
        ("index.js", TELLS),
    ]);
    let metadata = json!({"main_module": "index.js", "compatibility_date": "2026-06-01"});
    both.local.upload(
        &format!("/accounts/{ACCOUNT}/workers/scripts/site"),
        &metadata,
        "index.js",
        "export default { fetch: () => Response.json('live') }",
    );
    both.import(&[], 4);
    let outcome = both.flotilla(&["deploy", "--yes", "--adopt", "site", "--format", "json"]).exits(0).json();
    assert_eq!(outcome["applied"], 0, "{outcome}");
    assert_eq!(body(both.local.get("site", "/")), "live");
}

#[test]
fn secrets_with_names_of_programs_become_the_customers_own() {
    let config = "name = \"bot\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n\
                  [secrets]\nrequired = [\"GITHUB_TOKEN\", \"AWS_SECRET_ACCESS_KEY\", \"API_KEY\"]\n";
    let code = "export default { fetch: () => new Response('ok') };\n";
    let both = Both::new(&[("wrangler.toml", config), ("index.js", code)]);
    let path = both.theirs.root().to_str().unwrap().to_owned();
    both.fleet.run(&["import", &path]);
    let spec = both.fleet.read("customers/bot.yaml");
    for name in ["secret: BOT__GITHUB_TOKEN", "secret: BOT__AWS_SECRET_ACCESS_KEY", "secret: API_KEY"] {
        assert!(spec.contains(name), "{spec}");
    }
    let found = both.fleet.run(&["check", "--format", "json"]);
    assert!(!found.stdout.contains("N0313"), "{found:?}");
}

#[test]
fn secrets_are_reported_and_never_copied() {
    let canaries = [
        "sk_live_canary0123456789",
        "hunter2-canary",
        "AGE-SECRET-KEY-1CANARY",
        "eyJcanary01.eyJcanary01.canary",
        "ghp_canary0123456789abcdef",
    ];
    let config = format!(
        "name = \"leaky\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n[vars]\nSTRIPE = \"{}\"\nDATABASE_URL = \"postgres://app:{}@db.example/app\"\n\
         lower_token = \"{}\"\nNESTED = {{ deep = [\"{}\"] }}\nPUBLIC_API_KEY = \"pk-for-all\"\n[define]\nKEY = \"'{}'\"\n",
        canaries[0], canaries[1], canaries[2], canaries[3], canaries[4]
    );
    let code = "import './inner.js';\nexport default { fetch: () => new Response('ok') };\n";
    let both = Both::new(&[
        ("wrangler.toml", &config),
        ("index.js", code),
        ("inner.js", &format!("const key = '{}';\n", canaries[4])),
        (".dev.vars", &format!("STRIPE={}\nAPI_TOKEN={}\n", canaries[0], canaries[1])),
        ("config/customers/leaky/production.env", &format!("SMTP_PASSWORD={}\nPLAIN={}\n", canaries[1], canaries[3])),
    ]);
    let path = both.theirs.root().to_str().unwrap().to_owned();
    let dry = both.fleet.run(&["import", &path, "--dry-run"]).exits(4);
    let run = both.fleet.run(&["import", &path]).exits(4);
    let json = both.fleet.run(&["import", &path, "--force", "--format", "json"]).exits(4);
    let mut texts =
        vec![dry.stdout, dry.stderr, run.stdout.clone(), run.stderr.clone(), json.stdout.clone(), json.stderr.clone()];
    texts.extend(both.fleet.files(".").into_values().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    for (canary, text) in canaries.iter().flat_map(|canary| texts.iter().map(move |text| (canary, text))) {
        assert!(!text.contains(canary), "{canary} in {text}");
    }
    for place in [
        "wrangler.toml:5:",
        "wrangler.toml:6:",
        "wrangler.toml:7:",
        "wrangler.toml:8:",
        "wrangler.toml:11:",
        "inner.js:1:",
        ".dev.vars:1:",
        ".dev.vars:2:",
        "production.env:1:",
        "production.env:2:",
    ] {
        assert!(run.stderr.contains(place), "{place}\n{}", run.stderr);
    }
    assert!(run.stdout.contains("flotilla secrets set STRIPE --customer leaky"), "{}", run.stdout);
    assert!(run.stdout.contains("skips 1 worker") && !run.stdout.contains("--adopt"), "{}", run.stdout);
    assert!(both.spec("leaky").contains("STRIPE: { secret: STRIPE }"), "{}", both.spec("leaky"));
    assert!(both.spec("leaky").contains("PUBLIC_API_KEY: pk-for-all"), "{}", both.spec("leaky"));
    assert!(
        json.json()["secrets"].as_array().unwrap().contains(&json!({"customer": "leaky", "name": "SMTP_PASSWORD"}))
    );
}

#[test]
fn nothing_is_replaced_or_written_in_half() {
    let both = Both::new(&[
        ("wrangler.toml", "name = \"a\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n"),
        ("index.js", TELLS),
    ]);
    let path = both.theirs.root().to_str().unwrap().to_owned();
    let dry = both.fleet.run(&["import", &path, "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("customers/a.yaml") && both.fleet.files(".").is_empty(), "{dry:#?}");
    both.fleet.write("customers/a.yaml", "id: a\n");
    let refused = both.fleet.run(&["import", &path]).exits(5);
    assert!(refused.stderr.contains("customers/a.yaml would be overwritten"), "{refused:#?}");
    assert_eq!(both.fleet.files(".").len(), 1);
    both.fleet.run(&["import", &path, "--force"]).exits(0);
    both.fleet.run(&["check"]).exits(0);
    // Again, there is nothing to replace.
    both.fleet.run(&["import", &path]).exits(0);
    // Beside wrangler's own files.
    both.theirs.run(&["import", "."]).exits(0);
    let (name, path) = path_variable();
    both.theirs.run_with(&["build"], &[(name, &path)]).exits(0);
    both.theirs.run(&["import", "wrangler.toml", "--force"]).exits(0);
    // Code stays where it is, so that it has to be under the same version control.
    let outside = Project::at(temporary_folder());
    let refused = outside.run(&["import", both.theirs.root().to_str().unwrap()]).exits(5);
    assert!(refused.stderr.contains("in no git repository that has both"), "{refused:#?}");
}

#[test]
fn mistakes_in_files_are_told_all_at_once_and_nothing_is_written() {
    let both = Both::new(&[
        ("wrangler.toml", "name = \"a\"\nvars = { A = \nenv = 3\n"),
        ("apps/b/wrangler.jsonc", "{ \"name\": }"),
        ("apps/c/wrangler.toml", "env = 3\n"),
        ("config/customers/a/production.env", "no equals\n"),
    ]);
    both.theirs.write("apps/d/wrangler.toml", [b'n', b'=', b'"', 0xff, b'"']);
    let path = both.theirs.root().to_str().unwrap().to_owned();
    let run = both.fleet.run(&["import", &path]).exits(1);
    for place in [
        "wrangler.toml:3:1",
        "apps/b/wrangler.jsonc:1:11",
        "apps/c/wrangler.toml:1:7",
        "apps/d/wrangler.toml:1:1",
        "production.env:1:1",
    ] {
        assert!(run.stderr.contains(place), "{place}\n{}", run.stderr);
    }
    assert!(both.fleet.files(".").is_empty());
    both.theirs.write("nothing/README.md", "");
    let nothing = both.fleet.run(&["import", both.theirs.path("nothing").to_str().unwrap()]).exits(1);
    assert!(nothing.stderr.contains("has no wrangler project"), "{nothing:#?}");
    both.fleet.run(&["import", "nowhere"]).exits(1);
}

#[test]
fn hostile_projects_do_no_harm() {
    let outside = temporary_folder();
    std::fs::write(outside.path().join("passwd.js"), "export default 'outside-canary'").unwrap();
    let both = Both::new(&[
        (
            "wrangler.toml",
            "name = \"../../Evil\\u001b[31m\"\nmain = \"../../../../../../etc/passwd\"\ncompatibility_date = \"soon\"\n[vars]\n\
             INJECT = \"x\\nid: other\\n\\\"}} {{ 7 }} ${x} `y`\"\n\"a-b: c\" = \"1\"\nSMALL = \"\\u0085\\u2028\"\n[env.\"x/../y\"]\n[env.\"production\\n# \"]\nvars = { A = \"1\" }\n",
        ),
        (
            "linked/wrangler.toml",
            "name = \"linked\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n[define]\n\"a\\\"}; process.exit(3); ({\" = \"1\"\n",
        ),
        (
            "linked/index.js",
            "import './link.js';\nimport '../../../../outside.js';\nimport '/etc/passwd';\nexport default {};\n",
        ),
        (
            "deep/wrangler.jsonc",
            "{ \"name\": \"deep\", \"main\": \"index.js\", \"compatibility_date\": \"2026-01-15\" }",
        ),
        ("deep/index.js", "export default { fetch: () => new Response('deep') };\n"),
    ]);
    link(&outside.path().join("passwd.js"), &both.theirs.path("linked/link.js"));
    let path = both.theirs.root().to_str().unwrap().to_owned();
    let run = both.fleet.run(&["import", &path]).exits(4);
    assert!(!run.stderr.contains('\u{1b}') && !run.stdout.contains('\u{1b}'), "{run:#?}");
    assert!(run.stderr.contains("`main` is outside the project"), "{}", run.stderr);
    let files = both.fleet.files(".");
    for (path, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("outside-canary") && !text.contains("root:x:0"), "{path}");
        assert!(
            path.starts_with("customers/")
                || path.starts_with("templates/")
                || path.starts_with("schema/")
                || !path.contains('/'),
            "{path}"
        );
    }
    let checked = both.fleet.run(&["check"]).exits(0);
    assert_eq!(checked.stdout, "checked 2 customers: no errors\n", "{checked:?}");
    // Too deep, and too large: reported, and the others are imported.
    both.theirs.write("wrangler.toml", format!("a = {}", "[".repeat(50_000)));
    let deep = both.fleet.run(&["import", &path, "--force"]).exits(4);
    assert!(deep.stderr.contains("invalid: "), "{deep:#?}");
    both.theirs.write("wrangler.toml", "#".repeat(9 << 20));
    let large = both.fleet.run(&["import", &path, "--force"]).exits(4);
    assert!(large.stderr.contains("bytes, but the limit is"), "{large:#?}");
}

#[cfg(unix)]
pub fn link(to: &Path, at: &Path) {
    std::os::unix::fs::symlink(to, at).unwrap();
}

#[test]
fn what_is_live_in_an_account() {
    let both = Both::new(&[
        (
            "wrangler.toml",
            "name = \"known\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\nvars = { WHO = \"known\" }\nworkers_dev = true\n\
             route = { pattern = \"known.account.example/*\", zone_name = \"account.example\" }\n[env.staging]\nname = \"gone\"\nroutes = []\n",
        ),
        (
            "other/wrangler.toml",
            "name = \"other\"\nmain = \"../index.js\"\ncompatibility_date = \"2026-01-15\"\nvars = { WHO = \"other\", JSON = { a = 1 } }\n\
             triggers = { crons = [\"0 3 * * *\"] }\nroutes = [{ pattern = \"other.account.example\", custom_domain = true }]\n",
        ),
        ("index.js", TELLS),
    ]);
    both.wrangler(".", &["--env", ""]);
    both.wrangler("other", &[]);
    // The account alone.
    let told_run = both.flotilla(&["import", "--account", ACCOUNT, "--name", "alone", "--format", "json"]).exits(0);
    assert!(told_run.stderr.contains("2 live workers read with "), "{told_run:#?}");
    let imported = told_run.json();
    assert_eq!((&imported["customers"], &imported["workers"], &imported["packs"]), (&json!(2), &json!(2), &json!(2)));
    let found = both.stays(&["known", "other"], "account.example");
    assert_eq!(found[0]["routes"], json!(["known.account.example/*"]));
    assert_eq!(found[1]["crons"], json!(["0 3 * * *"]));
    // The files of one of them, with the account beside: what it tells is told, and the other worker comes, too.
    let path = both.theirs.path("wrangler.toml");
    let together = Project::at(tempfile::tempdir_in(both.repository.path()).unwrap());
    let mut command = together.command(&[
        "import",
        path.to_str().unwrap(),
        "--account",
        ACCOUNT,
        "--name",
        "together",
        "--format",
        "json",
    ]);
    let together = output(command.envs(both.variables())).exits(0).json();
    let told = told(&together);
    assert!(told.contains(&"note wrangler.toml:7: `gone` isn't live in the account".to_owned()), "{told:#?}");
    let written: Vec<&str> = together["written"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(|file| file.starts_with("customers/"))
        .collect();
    assert_eq!(written, ["customers/known.yaml", "customers/other.yaml"]);
    // Without a token, or with something else than an id, it says what it wants.
    let refused = both.fleet.run(&["import", "--account", ACCOUNT]).exits(1);
    assert!(refused.stderr.contains("CLOUDFLARE_API_TOKEN is not set"), "{refused:#?}");
    both.fleet.run(&["import", "--account", "acme"]).exits(2);
    both.fleet.run(&["import"]).exits(2);
    both.fleet.run(&["import", ".", "--name", "My Fleet"]).exits(2);
}

#[test]
fn packages_stay_in_the_project_and_the_report_says_how_they_are_installed() {
    let both = Both::new(&[
        (
            "apps/packed/wrangler.toml",
            "name = \"packed\"\nmain = \"src/index.ts\"\ncompatibility_date = \"2026-01-15\"\n[define]\nVERSION = \"'7'\"\n[alias]\nlong = \"./src/long.ts\"\n",
        ),
        (
            "apps/packed/src/index.ts",
            "import ms from 'ms';\nimport { long } from 'long';\ndeclare const VERSION: string;\nexport default { fetch: () => Response.json({ ms: ms('2 days'), long, version: VERSION }) };\n",
        ),
        ("apps/packed/src/long.ts", "export const long: string = 'long';\n"),
        (
            "apps/packed/package.json",
            "{ \"name\": \"packed\", \"dependencies\": { \"ms\": \"^2.0.0\" }, \"scripts\": { \"build\": \"vite build\" } }",
        ),
        ("apps/packed/pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
        (
            "apps/built/wrangler.toml",
            "name = \"built\"\nmain = \"dist/index.js\"\ncompatibility_date = \"2026-01-15\"\n",
        ),
        (
            "apps/built/package.json",
            "{ \"name\": \"built\", \"devDependencies\": { \"wrangler\": \"^3.9.0\", \"vite\": \"7\" }, \"scripts\": { \"build\": \"vite build\" } }",
        ),
    ]);
    // Of the repository, wrangler is installed, and nothing else.
    std::fs::rename(both.repository.path().join("node_modules"), both.repository.path().join("packages")).unwrap();
    let imported = both.import(&[], 0);
    assert_eq!(
        told(&imported),
        [
            "note apps/built/wrangler.toml:1: the project's wrangler is ^3.9.0, which is too old for flotilla: the pack bundles the code with wrangler 4.164.0",
            "note apps/built/wrangler.toml:2: `dist/index.js`, the worker's entry point, does not exist",
            "note apps/packed/wrangler.toml:1: no package.json of the project lists wrangler: the pack bundles the code with wrangler 4.164.0",
        ]
    );
    let root = both.theirs.root().canonicalize().unwrap();
    let steps: Vec<(String, String)> = imported["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["folder"].as_str().unwrap().to_owned(), step["command"].as_str().unwrap().to_owned()))
        .collect();
    let at = |folder: &str, command: &str| (root.join(folder).to_str().unwrap().to_owned(), command.to_owned());
    assert_eq!(
        steps,
        [
            at("apps/built", "npm install"),
            at("apps/packed", "pnpm install --frozen-lockfile"),
            at("apps/built", "npm run build"),
        ]
    );
    // It checks before it was built, with a warning.
    let checked = both.fleet.run(&["check"]).exits(0);
    assert!(checked.stderr.contains("warning[P0615]") && checked.stderr.contains("dist/index.js"), "{checked:?}");
    // One that can't be bundled holds back no other.
    std::fs::rename(both.repository.path().join("packages"), both.repository.path().join("node_modules")).unwrap();
    both.theirs.write("apps/packed/node_modules/ms/package.json", "{ \"name\": \"ms\", \"main\": \"index.js\" }");
    both.theirs.write("apps/packed/node_modules/ms/index.js", "module.exports = (text) => `${text} in ms`;\n");
    for pack in ["built", "packed"] {
        both.fleet.edit(&format!("templates/{pack}/pack.yaml"), "wrangler: \"4.164.0\"\n", "");
    }
    let outcome = both.flotilla(&["deploy", "--yes", "--format", "json"]).exits(1).json();
    assert_eq!(outcome["applied"], 1, "{outcome}");
    assert_eq!(body(both.local.get("packed", "/")), json!({"ms": "2 days in ms", "long": "long", "version": "7"}));
}

#[test]
fn a_name_in_an_environment_is_exact() {
    let fleet = Project::empty();
    fleet.write(
        "customers/acme.yaml",
        "id: acme\nworkerName: of-acme\nenvironments:\n  production:\n  staging: { workerName: acme-stg }\n",
    );
    fleet.write(
        "customers/roles.yaml",
        "id: roles\nworkers:\n  web: { environments: { production: { workerName: the-web }, staging: } }\n  api:\n    workerName: the-api\n    environments: { production:, staging: { workerName: api-stg } }\n",
    );
    let built = fleet.run(&["show", "--format", "json"]).exits(0);
    let names = ["of-acme", "acme-stg", "the-web", "c15t-roles-web-staging", "the-api", "api-stg"];
    for name in names {
        assert!(built.stdout.contains(&format!("\"name\":\"{name}\"")), "{name}\n{}", built.stdout);
    }
    assert!(!built.stdout.contains("acme-stg-staging"));
    // A pattern for all customers still has to tell them apart.
    fleet.write(
        "fleet.yaml",
        "name: test\npacks:\n  consent: { path: templates/consent }\ndefaults: { workerName: one-for-all }\n",
    );
    fleet.write("customers/bluebird.yaml", "id: bluebird\n");
    let wrong = fleet.run(&["check"]).exits(1);
    assert!(wrong.stderr.contains("F0503"), "{wrong:#?}");
}

#[test]
fn every_key_that_wrangler_knows_is_known() {
    let text = std::fs::read_to_string(packages().join("node_modules/wrangler/config-schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let keys =
        |of: &str| schema["definitions"][of]["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let missing: Vec<String> = keys("RawConfig")
        .into_iter()
        .chain(keys("RawEnvironment"))
        .filter(|key| key != "env" && key_of(key).is_none())
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    // What it has at the top level alone, environments don't have either.
    let environment = keys("RawEnvironment");
    for key in keys("RawConfig").iter().filter(|key| *key != "env") {
        assert_eq!(key_of(key).unwrap().0 == Scope::Whole, !environment.contains(key), "{key}");
    }
}

#[test]
fn two_customers_never_share_a_worker_or_a_database() {
    let id = "14050249-6d7a-470a-9a80-487ae8c39af0";
    let database =
        format!("d1_databases = [{{ binding = \"DB\", database_name = \"all\", database_id = \"{id}\" }}]\n");
    let both = Both::new(&[
        (
            "wrangler.toml",
            &format!(
                "name = \"service\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n[env.acme]\nname = \"service-prod\"\n{database}\
                 [env.bluebird]\nname = \"service-prod\"\n{database}[env.acme-staging]\n{database}"
            ),
        ),
        ("index.js", TELLS),
    ]);
    let imported = both.import(&[], 4);
    let told = told(&imported);
    for line in [
        "lost wrangler.toml:7: the worker `service-prod` is also that of [env.acme] of wrangler.toml: the later deploy overwrote the earlier one",
        "lost wrangler.toml:7: `bluebird` uses the database of `acme`",
    ] {
        assert!(told.contains(&line.to_owned()), "{line}\n{told:#?}");
    }
    assert!(both.spec("acme").contains("service-prod") && both.spec("acme").contains(id), "{}", both.specs());
    let bluebird = both.spec("bluebird");
    assert!(
        bluebird.contains("delivery: manual") && !bluebird.contains("workerName") && !bluebird.contains(id),
        "{bluebird}"
    );
    both.fleet.run(&["check"]).exits(0);
}
