//! Shows: what real wrangler deployed is read from the account, becomes a project, and is deployed by flotilla as the same:
//! bindings, settings, hosts, answers of real workerd. What can't be represented is told with its worker's name.

use std::collections::{BTreeMap, HashMap};

use flotilla_cli::packs::Pack;
use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_import::{self as import, FindingKind, ImportOptions, LiveAccount, live};
use flotilla_model::platform::{Call, CallError, Home, Platform as _, Reply};
use reqwest::Method;
use serde_json::{Value, json};

use crate::folders::temporary_folder;
use crate::openapi::validate_response;
use crate::support::{Project, output};
use crate::tools::{Local, json, wrangler};

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const CODE: &str = r#"import { greet } from "./greet.js";
import page from "./page.html";
import { Buffer } from "node:buffer";
export class Admin {}
export default {
  async fetch(request, env) {
    await env.CACHE.put("key", env.GREETING);
    const found = await env.DB.prepare("SELECT 1 + 1 AS two").first();
    return Response.json({
      greeting: greet(await env.CACHE.get("key")), two: found.two, page, secret: env.API_KEY, flags: env.FLAGS,
      text: Buffer.from("YQ==", "base64").toString(),
      names: Object.keys(env).filter((name) => name !== "FLOTILLA_DIGEST").sort(),
    });
  },
  scheduled() {},
};
"#;

/// An account of a Cloudflare on this machine.
struct Account {
    local: Local,
    project: Project,
}

impl Account {
    fn new() -> Account {
        let project = Project::empty();
        Account { local: Local::start(&project, None), project }
    }

    fn path(path: &str) -> String {
        format!("/accounts/{ACCOUNT}{path}")
    }

    fn create(&self, path: &str, body: Value) -> Value {
        self.local.call(Method::POST, &Account::path(path), Some(body))
    }

    fn upload(&self, name: &str, metadata: Value, code: &str) {
        let module = metadata["main_module"].as_str().unwrap().to_owned();
        self.local.upload(&Account::path(&format!("/workers/scripts/{name}")), &metadata, &module, code);
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", self.local.origin)),
            ("CLOUDFLARE_API_TOKEN", "a-token".to_owned()),
            ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT.to_owned()),
        ]
    }

    /// Deploys a folder by wrangler.
    fn wrangler(&self, folder: &str, configuration: &Value) {
        let home = temporary_folder();
        self.project.write(&format!("{folder}/wrangler.jsonc"), configuration.to_string());
        self.project.write(&format!("{folder}/src/index.js"), CODE);
        self.project.write(&format!("{folder}/src/greet.js"), "export const greet = (name) => `Hello ${name}`;\n");
        self.project.write(&format!("{folder}/src/page.html"), "<p>page</p>\n");
        let mut command = wrangler(&self.project.path(folder), home.path());
        output(command.arg("deploy").envs(self.variables())).exits(0);
    }

    /// What the account has, and how many requests that took.
    fn read(&self, fleet: Option<&str>) -> (LiveAccount, Vec<&'static str>) {
        let tokens = HashMap::from([(ACCOUNT.to_owned(), "a-token".to_owned().into())]);
        let cloud = Cloudflare::new(&format!("{}/client/v4", self.local.origin), tokens).unwrap();
        let home = Home { account_id: ACCOUNT.to_owned(), namespace: None };
        let mut asked = Vec::new();
        let live = live::read(ACCOUNT, fleet, |call| {
            asked.push(match call {
                Call::ListWorkers { .. } => "workers",
                Call::ListDomains { .. } => "domains",
                Call::ListZones { .. } => "zones",
                Call::ListRoutes { .. } => "routes",
                Call::ReadSettings { .. } => "settings",
                Call::ReadWorkersDev { .. } => "workers.dev",
                Call::ReadCrons { .. } => "crons",
                Call::ReadContent { .. } => "content",
                _ => "something that changes something",
            });
            cloud.call(&home, call).0
        });
        (live.unwrap(), asked)
    }

    /// A worker as the account has it.
    fn state(&self, worker: &str) -> Value {
        let script = Account::path(&format!("/workers/scripts/{worker}"));
        let mut settings = self.local.api(&format!("{script}/settings"));
        let answer = json!({"success": true, "errors": [], "messages": [], "result": settings});
        validate_response("GET", &format!("{script}/settings"), 200, Some(&answer)).unwrap();
        let bindings = settings["bindings"].take();
        let named =
            bindings.as_array().unwrap().iter().filter(|binding| binding["name"] != "FLOTILLA_DIGEST").map(|one| {
                let mut one = one.clone();
                if one["type"] == "d1" && one["id"].is_string() {
                    one["database_id"] = one.as_object_mut().unwrap().remove("id").unwrap();
                }
                (one["name"].as_str().unwrap().to_owned(), one)
            });
        settings["bindings"] = json!(named.collect::<BTreeMap<_, _>>());
        for key in ["tags", "annotations"] {
            settings.as_object_mut().unwrap().remove(key);
        }
        // What was never said is the same as that there is none.
        for (key, none) in [("compatibility_flags", json!([])), ("observability", json!({"enabled": false}))] {
            if settings[key].is_null() {
                settings[key] = none;
            }
        }
        let list = |rows: Value, name: &str| -> Vec<Value> {
            let mut values: Vec<Value> = rows.as_array().unwrap().iter().map(|row| row[name].clone()).collect();
            values.sort_by_key(Value::to_string);
            values
        };
        let domains = self.local.api(&Account::path(&format!("/workers/domains?service={worker}")));
        settings["domains"] = json!(list(domains, "hostname"));
        settings["crons"] = json!(list(self.local.api(&format!("{script}/schedules"))["schedules"].clone(), "cron"));
        settings["workers_dev"] = self.local.api(&format!("{script}/subdomain"))["enabled"].clone();
        settings
    }
}

/// The findings of a worker, as words.
fn told(live: &LiveAccount, worker: &str) -> Vec<(FindingKind, String)> {
    let of = live.findings.iter().filter(|finding| finding.place.file.ends_with(&format!(": {worker}")));
    of.map(|finding| (finding.kind, finding.message.clone())).collect()
}

#[test]
fn what_wrangler_deployed_is_imported_and_deployed_as_the_same() {
    let account = Account::new();
    let kv = account.create("/storage/kv/namespaces", json!({"title": "cache"}))["id"].clone();
    let databases = ["a", "b"].map(|name| account.create("/d1/database", json!({"name": name}))["uuid"].clone());
    account.upload(
        "legacy",
        json!({"main_module": "legacy.js", "compatibility_date": "2026-06-01"}),
        "export default { fetch: () => new Response('legacy') };\n",
    );
    for (at, name) in ["shop-acme", "shop-bluebird"].into_iter().enumerate() {
        account.wrangler(
            name,
            &json!({
                "name": name, "main": "src/index.js", "compatibility_date": "2026-05-01", "account_id": ACCOUNT,
                "compatibility_flags": ["nodejs_compat"], "workers_dev": at == 0, "preview_urls": false,
                "vars": {"GREETING": name, "FLAGS": {"new": true}},
                "kv_namespaces": [{"binding": "CACHE", "id": kv}],
                "d1_databases": [{"binding": "DB", "database_name": "x", "database_id": databases[at]}],
                "r2_buckets": [{"binding": "FILES", "bucket_name": format!("files-of-{name}"), "jurisdiction": "eu"}],
                "queues": {"producers": [{"binding": "JOBS", "queue": "jobs"}]},
                "services": [{"binding": "LEGACY", "service": "legacy"}],
                "routes": [
                    {"pattern": format!("{name}.example.com"), "custom_domain": true},
                    {"pattern": format!("example.org/{name}/*"), "zone_name": "example.org"},
                ],
                "triggers": {"crons": ["*/15 * * * *"]},
                "observability": {"enabled": true, "head_sampling_rate": 0.5},
                "limits": {"cpu_ms": 40}, "placement": {"mode": "smart"}, "logpush": true,
                "cache": {"enabled": true},
                "tail_consumers": [{"service": "legacy"}],
            }),
        );
        let secret = json!({"name": "API_KEY", "type": "secret_text", "text": format!("key of {name}")});
        account.local.call(Method::PUT, &Account::path(&format!("/workers/scripts/{name}/secrets")), Some(secret));
    }
    let workers = ["legacy", "shop-acme", "shop-bluebird"];
    let answers = |local: &Local| ["shop-acme", "shop-bluebird"].map(|name| json(local.get(name, "/")));
    let (before, answered) = (workers.map(|name| account.state(name)), answers(&account.local));
    assert_eq!(answered[0]["greeting"], "Hello shop-acme");

    let (live, mut asked) = account.read(None);
    asked.sort_unstable();
    let mut expected = vec!["content"; 2];
    expected.extend(["crons"; 3]);
    expected.push("domains");
    expected.extend(["routes"; 2]);
    expected.extend(["settings"; 3]);
    expected.extend(["workers", "workers.dev", "workers.dev", "workers.dev", "zones"]);
    assert_eq!(asked, expected, "the code of two that run the same is read once");
    assert_eq!(live.findings, []);
    assert_eq!(live.workers.iter().map(|worker| worker.lost.len()).sum::<usize>(), 0);

    let worker_pack = Pack::Worker.files();
    let imported = import::import(
        None,
        live,
        ImportOptions { name: Some("adopted"), worker_pack: &worker_pack, ..ImportOptions::default() },
    )
    .unwrap();
    assert_eq!(imported.findings, []);
    assert_eq!(imported.packs.len(), 2, "{:?}", imported.packs);
    let all: String = imported.files.values().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    assert!(!all.contains("key of shop"));
    let project = Project::at(temporary_folder());
    for (path, bytes) in &imported.files {
        project.write(path, bytes);
    }
    let variables = account.variables();
    let mut environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment
        .extend([("SHOP_ACME__API_KEY", "key of shop-acme"), ("SHOP_BLUEBIRD__API_KEY", "key of shop-bluebird")]);
    project.run_with(&["check"], &environment).exits(0);
    let mut deploy = vec!["deploy", "--yes"];
    deploy.extend(workers.iter().flat_map(|name| ["--adopt", name]));
    project.run_with(&deploy, &environment).exits(0);
    for (name, before) in workers.iter().zip(before) {
        assert_eq!(before, account.state(name), "{name}");
    }
    assert_eq!(answered, answers(&account.local));
    let zone = account.local.api("/zones?name=example.org")[0]["id"].as_str().unwrap().to_owned();
    let routes = account.local.api(&format!("/zones/{zone}/workers/routes"));
    assert_eq!(routes.as_array().unwrap().len(), 2, "{routes}");
    let again = project.run_with(&["plan", "--format", "json"], &environment).exits(0).json();
    assert_eq!((&again["unchanged"], &again["requests"]), (&json!(3), &json!(0)), "{again}");

    // They are the fleet's now.
    let (live, asked) = account.read(Some("adopted"));
    assert!(live.workers.is_empty() && live.findings.len() == 3, "{:?}", live.findings);
    assert!(!asked.contains(&"settings"), "{asked:?}");
    let (live, _) = account.read(Some("adopt"));
    assert_eq!(told(&live, "legacy"), [(FindingKind::Note, "the fleet `adopted` manages `legacy`".to_owned())]);
    assert_eq!(live.workers.len(), 3);
}

#[test]
fn what_can_not_be_represented_is_told_with_its_worker() {
    let account = Account::new();
    let of =
        |bindings: Value| json!({"main_module": "index.js", "compatibility_date": "2026-06-01", "bindings": bindings});
    let code = "export default { fetch: () => new Response('ok') };\n";
    let mut own = of(json!([{"type": "durable_object_namespace", "name": "COUNTER", "class_name": "Counter"}]));
    own["migrations"] = json!({"new_tag": "v1", "new_sqlite_classes": ["Counter"]});
    let with_class = format!(
        "import {{ DurableObject }} from 'cloudflare:workers';\nexport class Counter extends DurableObject {{}}\n{code}"
    );
    account.upload("own", own, &with_class);
    account.upload("counted", of(json!([{"type": "durable_object_namespace", "name": "COUNTER", "class_name": "Counter", "script_name": "own"}])), code);
    account.upload(
        "odd",
        json!({"main_module": "index.js", "tags": ["team-a"], "bindings": [
            {"type": "plain_text", "name": "API_TOKEN", "text": "sk_live_51H8abcdefghijklmnopqrstuv"},
            {"type": "plain_text", "name": "DB", "text": "x"},
            {"type": "secret_text", "name": "lower", "text": "x"},
            {"type": "unheard_of", "name": "NEW"},
            {"type": "queue", "name": "JOBS", "queue_name": "jobs", "delivery_delay": 5},
        ]}),
        code,
    );
    let (live, _) = account.read(None);
    let words = |worker: &str| {
        told(&live, worker).into_iter().map(|(kind, text)| format!("{}: {text}", kind.as_ref())).collect::<Vec<_>>()
    };
    assert_eq!(
        words("own"),
        [
            "lost: `own` itself defines the class `Counter`, which a spec cannot express",
            "lost: `own` has Durable Object classes that migrations created",
        ]
    );
    assert_eq!(words("counted"), [""; 0]);
    let counted = live.workers.iter().find(|worker| worker.name == "counted").unwrap();
    assert_eq!(counted.settings["bindings"], json!({"COUNTER": {"durableObject": "Counter", "worker": "own"}}));
    let odd = live.workers.iter().find(|worker| worker.name == "odd").unwrap();
    assert_eq!(
        words("odd"),
        [
            "credential: the variable `API_TOKEN` of `odd` holds a secret that everybody with access can read",
            "lost: the variable `DB` of `odd` can't be mapped",
            "lost: the name of the secret `lower` of `odd` is not valid in a spec",
            "lost: the binding `NEW` of `odd`, of type unheard_of, can't be mapped",
            "lost: the binding `JOBS` of `odd`, of type queue, can't be mapped",
            "left out: the tags of `odd`, team-a, have no counterpart in a spec",
        ]
    );
    assert_eq!(odd.settings["secrets"], json!({"API_TOKEN": {"secret": "API_TOKEN"}}));
    assert_eq!(odd.settings["compatibilityDate"], "2021-11-02");
    assert_eq!(odd.settings["observability"], json!({"enabled": false}));
    assert!(!format!("{live:?}").contains("sk_live"), "the value is nowhere");
    assert_eq!(odd.lost.len(), 4);
    let asked = ImportOptions { name: Some("odd"), worker_pack: &Pack::Worker.files(), ..ImportOptions::default() };
    let imported = import::import(None, live, asked).unwrap();
    let spec = String::from_utf8(imported.files["customers/odd.yaml"].clone()).unwrap();
    assert!(spec.contains("delivery: manual"), "{spec}");
}

#[test]
fn what_the_account_answers_is_taken_as_it_is() {
    let refused = || CallError::Rejected { status: 403, code: 10000, message: "no".to_owned() };
    let listed = |name: &str| flotilla_model::platform::ListedWorker {
        name: name.to_owned(),
        etag: "e".to_owned(),
        has_assets: true,
        migration_tag: Some("v1".to_owned()),
        ..Default::default()
    };
    let answer = |call: &Call| match call {
        Call::ListWorkers { .. } => Ok(Reply::Workers(vec![listed("a"), listed("Wrong_Name")].into())),
        Call::ListDomains { .. } | Call::ListZones { .. } => Err(refused()),
        Call::ReadSettings { .. } => Ok(Reply::Settings(json!({
            "compatibility_date": "2026-06-01", "placement": {"mode": "targeted", "region": "aws:us-east-1", "status": "OK"},
            "observability": {"enabled": true, "head_sampling_rate": null, "logs": {"enabled": true, "invocation_logs": true}, "redact_query_string": true},
            "bindings": [
                {"type": "service", "name": "API", "service": "api", "environment": "production"},
                {"type": "service", "name": "ADMIN", "service": "api", "environment": "production", "entrypoint": "Admin"},
                {"type": "service", "name": "OLD", "service": "api", "environment": "staging"},
            ],
        }))),
        Call::ReadWorkersDev { .. } => Ok(Reply::WorkersDev { on: true, previews: false }),
        Call::ReadCrons { .. } => Ok(Reply::Crons(["* * * * *".to_owned()].into())),
        Call::ReadContent { .. } => Ok(Reply::Content { main: None, modules: Vec::new() }),
        _ => panic!("not asked for"),
    };
    let live = live::read(ACCOUNT, None, answer).unwrap();
    let texts: Vec<String> =
        live.findings.iter().map(|finding| format!("{}: {}", finding.kind.as_ref(), finding.message)).collect();
    for expected in [
        "left out: the token cannot read the custom domains",
        "left out: the token cannot read the zones, and so the routes",
        "lost: the static assets of `a` can't be read: Cloudflare gives back no files",
        "lost: `a` has Durable Object classes that migrations created",
        "lost: `a` is a script in the older form, with `addEventListener`",
        "lost: the binding `OLD` of `a`, of type service, can't be mapped",
        "left out: a spec cannot express a part of the observability of `a`",
    ] {
        assert!(texts.iter().any(|text| text == expected), "{expected} in {texts:#?}");
    }
    let settings = &live.workers[0].settings;
    assert_eq!(settings["placement"], json!({"region": "aws:us-east-1"}));
    assert_eq!(settings["observability"], json!({"enabled": true, "logs": {"enabled": true, "invocationLogs": true}}));
    assert_eq!(settings["bindings"], json!({"ADMIN": {"worker": "api", "entrypoint": "Admin"}}));
    assert_eq!(live.workers[0].calls, BTreeMap::from([("API".to_owned(), "api".to_owned())]));
    // Without the workers there is nothing to tell.
    let nothing = live::read(ACCOUNT, None, |_| Err(refused()));
    assert_eq!(nothing.err(), Some(refused()));
}
