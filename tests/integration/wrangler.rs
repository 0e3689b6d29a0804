//! Shows: real wrangler takes what we generate: every folder bundles, every configuration fits wrangler's own schema, and
//! what wrangler deploys from a folder to the local Cloudflare is what flotilla deploys.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use reqwest::Method;
use serde_json::{Value, json};

use crate::folders::temporary_folder;
use crate::openapi::validate_request;
use crate::support::{Project, Run, output};
use crate::tools::{Local, json, packages, sent_elsewhere, wrangler};

/// The account of both deploys.
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// Secrets and their values, by the names that the specs give them.
const SECRETS: &str = "FJORD_DATABASE_TOKEN=token-of-fjord\nWEBHOOK_SIGNING_KEY=\"key # of fjord\"\n";

/// Does the work for each item, two at a time: wrangler is slow to start.
fn two_at_a_time<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // Taken in a statement of its own, so that the lock is not held while the work is done.
                    let item = items.lock().unwrap().next();
                    match item {
                        Some(item) => work(item),
                        None => break,
                    }
                }
            });
        }
    });
}

/// Runs wrangler, which must succeed; where it doesn't, what it logged says more than what it printed.
#[track_caller]
pub fn run(command: &mut Command, home: &Path) -> Run {
    let run = output(command);
    if run.code != 0 {
        for log in std::fs::read_dir(home.join("logs")).into_iter().flatten().flatten() {
            eprintln!("{}:\n{}", log.path().display(), std::fs::read_to_string(log.path()).unwrap_or_default());
        }
    }
    run.exits(0)
}

/// The folders of out/ that have a wrangler file.
fn folders(project: &Project) -> Vec<String> {
    let files = project.files("out").into_keys();
    files.filter_map(|name| Some(name.strip_suffix("/wrangler.jsonc")?.to_owned())).collect()
}

/// A wrangler file without its comments, which stand on lines of their own.
fn config(project: &Project, folder: &str) -> Value {
    let text = project.read(&format!("out/{folder}/wrangler.jsonc"));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    serde_json::from_str(&lines.join("\n")).unwrap_or_else(|error| panic!("{folder}: {error}\n{text}"))
}

#[test]
fn every_folder_bundles() {
    let project = Project::sample();
    let built = project.run(&["build", "--format", "json"]).exits(0).json();
    let all = folders(&project);
    assert_eq!(built["workers"], all.len());
    let home = temporary_folder();
    two_at_a_time(all, |folder| {
        let mut command = wrangler(&project.path(&format!("out/{folder}")), home.path());
        let run = run(command.args(["deploy", "--dry-run"]), home.path());
        let digest = config(&project, &folder)["vars"]["FLOTILLA_DIGEST"].as_str().unwrap()[..16].to_owned();
        assert!(run.stdout.contains(&digest), "{folder}: {run:#?}");
        // Unknown keys of a configuration are only warned of. One warning is ours: that there is a proxy.
        let warnings = run.stderr.matches("WARNING").count() + run.stdout.matches("WARNING").count();
        assert_eq!(warnings, run.stderr.matches("Proxy environment variables").count(), "{folder}: {run:#?}");
    });
    // What wrangler leaves behind in the folders is not taken for ours, nor for a reason to build.
    assert!(project.path("out/production/acme/.wrangler").exists());
    project.run(&["build", "--check"]).exits(0);
    assert!(!sent_elsewhere());
}

#[test]
fn dispatch_workers_and_databases_without_an_id_bundle_as_well() {
    let project = Project::empty();
    project.write(
        "fleet.yaml",
        "name: test\npacks: { consent: { path: templates/consent }, dispatch: { path: templates/dispatch } }\n\
         accounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    token: { secret: CLOUDFLARE_API_TOKEN }\n\
         \x20   dispatchNamespace: shops\n    dispatch: { worker: front }\n\
         sharedWorkers:\n  front:\n    pack: dispatch\n    routes: [{ pattern: \"*.example.com/*\", zone: example.com }]\n    \
         bindings: { CACHE: { kv: 0f3f6a109a4e4c518f5c2b7d1d2f9a01 }, MORE: { dispatchNamespace: more }, AI: { ai: true } }\n    \
         limits: { cpuMs: 20 }\n\
         defaults: { pack: consent }\n",
    );
    let database =
        "database: { type: d1, name: of-acme }\nbindings: { MORE: { d1: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01 } }";
    project.write("customers/acme.yaml", format!("id: acme\ndomains: [acme.example.com]\n{database}\n"));
    project.run(&["build"]).exits(0);
    let home = temporary_folder();
    let dry = |folder: &str| {
        let mut command = wrangler(&project.path(&format!("out/production/{folder}")), home.path());
        run(command.args(["deploy", "--dry-run"]), home.path()).stdout
    };
    let (front, acme) = (dry("_shared/front"), dry("acme"));
    assert!(front.contains("env.DISPATCHER (shops)") && front.contains("env.HOSTS"), "{front}");
    for bound in ["env.CACHE (0f3f6a", "env.MORE (more)", "env.AI"] {
        assert!(front.contains(bound), "{bound} in {front}");
    }
    assert!(acme.contains("env.DB (of-acme)") && acme.contains("env.MORE (0f3f6a"), "{acme}");
    assert!(!sent_elsewhere());
    fits_the_schema(&project, ["production/_shared/front", "production/acme"]);
}

#[test]
fn a_folder_with_a_mistake_does_not_bundle() {
    let project = Project::sample();
    project.run(&["build", "juniper"]).exits(0);
    project.edit("out/production/juniper/index.ts", "../../runtime/", "../runtime/");
    let home = temporary_folder();
    let run = output(wrangler(&project.path("out/production/juniper"), home.path()).args(["deploy", "--dry-run"]));
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("Could not resolve"), "{run:#?}");
}

#[test]
fn every_configuration_fits_wranglers_schema() {
    let project = Project::sample();
    project.run(&["build"]).exits(0);
    let all = folders(&project);
    assert!(!all.is_empty());
    fits_the_schema(&project, all.iter().map(String::as_str));
}

#[track_caller]
fn fits_the_schema<'a>(project: &Project, folders: impl IntoIterator<Item = &'a str>) {
    let text = std::fs::read_to_string(packages().join("node_modules/wrangler/config-schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for folder in folders {
        let mut config = config(project, folder);
        let errors: Vec<String> =
            validator.iter_errors(&config).map(|error| format!("{} {error}", error.instance_path())).collect();
        assert_eq!(errors, [""; 0], "{folder}");
        config["compatibility_dat"] = json!("2026-06-01");
        assert!(!validator.is_valid(&config), "the schema takes anything");
    }
}

/// A worker as its account has it, apart from who uploaded it when.
pub fn state(local: &Local, worker: &str, zone: &str) -> Value {
    let script = format!("/accounts/{ACCOUNT}/workers/scripts/{worker}");
    let settings = local.api(&format!("{script}/settings"));
    let bindings: BTreeMap<String, Value> = settings["bindings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|binding| (binding["name"].as_str().unwrap().to_owned(), binding.clone()))
        .collect();
    let list = |rows: Value, name: &str| -> Vec<Value> {
        let mut values: Vec<Value> = rows.as_array().unwrap().iter().map(|row| row[name].clone()).collect();
        values.sort_by_key(Value::to_string);
        values
    };
    let zone = local.api(&format!("/zones?name={zone}"))[0]["id"].as_str().unwrap().to_owned();
    let routes = local.api(&format!("/zones/{zone}/workers/routes"));
    let routes = routes.as_array().unwrap().iter().filter(|route| route["script"] == worker).cloned().collect();
    json!({
        "bindings": bindings,
        "compatibility_date": settings["compatibility_date"],
        "compatibility_flags": settings["compatibility_flags"],
        "observability": settings["observability"],
        "workers_dev": local.api(&format!("{script}/subdomain")),
        "crons": list(local.api(&format!("{script}/schedules"))["schedules"].clone(), "cron"),
        "domains": list(local.api(&format!("/accounts/{ACCOUNT}/workers/domains?service={worker}")), "hostname"),
        "routes": list(routes, "pattern"),
    })
}

/// What a worker answers, without the times.
fn answers(local: &Local, worker: &str) -> [Value; 2] {
    let mut health = json(local.get(worker, "/health"));
    health["timestamp"].take();
    let consent = "consent=%7B%22necessary%22:true,%22measurement%22:true,%22marketing%22:true%7D";
    let mut scripts = json(local.get(worker, &format!("/analytics/scripts?{consent}")));
    scripts["metadata"]["generatedAt"].take();
    [health, scripts]
}

/// The values of all bindings, those of the secrets too: told by other code that is put into the worker's place.
fn values(local: &Local, worker: &str) -> Value {
    let metadata = json!({
        "main_module": "tell.js", "compatibility_date": "2026-06-01", "keep_bindings": ["plain_text", "json", "secret_text"],
    });
    let code = "export default { fetch: (request, env) => Response.json(env) };";
    local.upload(&format!("/accounts/{ACCOUNT}/workers/scripts/{worker}"), &metadata, "tell.js", code);
    json(local.get(worker, "/"))
}

#[test]
fn wrangler_and_flotilla_deploy_the_same() {
    // Secrets and a database, variables of both kinds, a cron, a domain, a route.
    let customers = ["fjord", "evergreen", "iris-optics", "goldfinch", "driftwood"];
    // A zone belongs to one account and a host to one worker, so each has a Cloudflare of its own.
    let (theirs, ours) = (Project::sample(), Project::sample());
    let (at_theirs, at_ours) = (Local::start(&theirs, None), Local::start(&ours, None));
    let variables = |local: &Local| {
        [
            ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", local.origin)),
            ("CLOUDFLARE_API_TOKEN", local.token.clone()),
            ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT.to_owned()),
        ]
    };

    theirs.run(&["build"]).exits(0);
    let home = temporary_folder();
    let secrets = json!({"TURSO_AUTH_TOKEN": "token-of-fjord", "WEBHOOK_SIGNING_KEY": "key # of fjord"});
    theirs.write("secrets.json", secrets.to_string());
    two_at_a_time(customers.to_vec(), |customer| {
        let mut command = wrangler(&theirs.path(&format!("out/production/{customer}")), home.path());
        command.arg("deploy").env("WRANGLER_LOG", "debug").envs(variables(&at_theirs));
        eprintln!("{:?}", at_theirs.journal());
        if customer == "fjord" {
            command.arg("--secrets-file").arg(theirs.path("secrets.json"));
        }
        run(&mut command, home.path());
    });
    assert!(!sent_elsewhere(), "wrangler asked for another host");

    ours.write(".env", SECRETS);
    let command = [&["deploy", "--yes", "--format", "json"][..], &customers].concat();
    let variables = variables(&at_ours);
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let outcome = ours.run_with(&command, &environment).exits(0).json();
    assert_eq!(outcome["applied"], customers.len(), "{outcome}");

    let mut found = Vec::new();
    for customer in customers {
        let (worker, zone) = (format!("c15t-{customer}"), format!("{customer}.example"));
        let state = |local| state(local, &worker, &zone);
        let (wrangler, flotilla) = (state(&at_theirs), state(&at_ours));
        assert_eq!(wrangler, flotilla, "{customer}");
        assert_eq!(answers(&at_theirs, &worker), answers(&at_ours, &worker), "{customer}");
        let values = [values(&at_theirs, &worker), values(&at_ours, &worker)];
        assert_eq!(values[0], values[1], "{customer}");
        if customer == "fjord" {
            assert_eq!(values[0]["WEBHOOK_SIGNING_KEY"], "key # of fjord");
            assert_eq!(values[0]["TURSO_AUTH_TOKEN"], "token-of-fjord");
        }
        if customer == "evergreen" {
            assert_eq!(values[0]["FEATURES"], json!({"newsletter": "on", "wishlist": "off"}));
        }
        found.push(flotilla);
    }
    // That two empty things are equal would say little.
    assert_eq!(found[2]["crons"], json!(["*/30 * * * *"]));
    assert_eq!(found[2]["observability"], json!({"enabled": true, "head_sampling_rate": 0.25}));
    assert_eq!(found[3]["domains"], json!(["consent.goldfinch.example"]));
    assert_eq!(found[4]["routes"], json!(["consent.driftwood.example/*"]));
    assert_eq!(found[4]["workers_dev"], json!({"enabled": false, "previews_enabled": false}));
    let asked = |local: &Local| local.request(Method::GET, "consent.goldfinch.example", "/health").send().unwrap();
    assert_eq!(asked(&at_theirs).status(), asked(&at_ours).status());
}

/// A fleet of the pack for own code, whose worker is bound to everything, and a Cloudflare on which those things are.
fn bound(bindings: &str) -> (Project, Local, Vec<(&'static str, String)>) {
    let project = Project::empty();
    let fleet =
        "name: test\npacks: { worker: { path: templates/worker } }\ndefaults: { vars: { ENVIRONMENT: production } }\n";
    let account = format!("accounts: {{ default: {{ id: {ACCOUNT}, token: {{ secret: CLOUDFLARE_API_TOKEN }} }} }}\n");
    project.write("fleet.yaml", format!("{fleet}{account}"));
    let local = Local::start(&project, None);
    let account = format!("/accounts/{ACCOUNT}");
    let created = |path: &str, body: Value| local.call(Method::POST, &format!("{account}{path}"), Some(body));
    let kv = created("/storage/kv/namespaces", json!({"title": "cache"}))["id"].as_str().unwrap().to_owned();
    let d1 = created("/d1/database", json!({"name": "sessions"}))["uuid"].as_str().unwrap().to_owned();
    created("/workers/dispatch/namespaces", json!({"name": "shops"}));
    let migrations = json!({"new_tag": "v1", "steps": [{"new_sqlite_classes": ["Counter"]}]});
    let metadata = json!({"main_module": "index.js", "compatibility_date": "2026-06-01", "migrations": migrations});
    for name in ["counters", "legacy-api"] {
        let code =
            "export default { fetch: () => new Response('legacy') }; export class Admin {} export class Counter {}";
        local.upload(&format!("{account}/workers/scripts/{name}"), &metadata, "index.js", code);
    }
    let bindings = bindings.replace("KV", &kv).replace("D1", &d1);
    project.write("customers/acme.yaml", format!("id: acme\nvars: {{ GREETING: Hello }}\n{bindings}"));
    let variables = vec![
        ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", local.origin)),
        ("CLOUDFLARE_API_TOKEN", local.token.clone()),
        ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT.to_owned()),
    ];
    (project, local, variables)
}

/// One of each kind: what `schema/` allows there, wrangler has to understand and send as flotilla does.
const EVERY_KIND: &str = "\
bindings:
  CACHE: { kv: KV }
  FILES: { r2: acme-files, jurisdiction: eu }
  SESSIONS: { d1: D1, name: sessions }
  JOBS: { queue: acme-jobs }
  COUNTER: { durableObject: Counter, worker: counters }
  FLOW: { workflow: flow, class: Flow, worker: counters }
  LEGACY: { worker: legacy-api }
  ADMIN: { worker: legacy-api, entrypoint: Admin, props: { tenant: acme, level: 2 } }
  EVENTS: { analyticsEngine: acme_events }
  PG: { hyperdrive: 0f3f6a109a4e4c518f5c2b7d1d2f9a01 }
  VECTORS: { vectorize: acme-index }
  CERT: { mtlsCertificate: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01 }
  SHOPS: { dispatchNamespace: shops, outbound: legacy-api }
  STORED: { secretsStore: 0f3f6a109a4e4c518f5c2b7d1d2f9a01, secret: api-key }
  MAIL: { sendEmail: true, allowedDestinationAddresses: [a@acme.example], allowedSenderAddresses: [b@acme.example] }
  MAIL_ONE: { sendEmail: true, destinationAddress: a@acme.example }
  LIMIT: { rateLimit: \"1001\", limit: 100, period: 60 }
  STREAM: { pipeline: acme-stream }
  SINK: { pipelineStream: 0f3f6a109a4e4c518f5c2b7d1d2f9a01 }
  LOGS: { k2: acme-logs }
  FIND: { aiSearch: acme-docs }
  FIND_ALL: { aiSearchNamespace: acme }
  MEMORY: { agentMemory: acme }
  BUILDS: { artifacts: acme }
  FLAGS: { flagship: app-1 }
  PRIVATE: { vpcService: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01 }
  OFFICE: { vpcNetwork: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a02 }
  TUNNEL: { vpcTunnel: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a03 }
  LOADER: { workerLoader: true }
  VIDEO: { stream: true }
  AI: { ai: true }
  BROWSER: { browser: true }
  IMAGES: { images: true }
  MEDIA: { media: true }
  VERSION: { versionMetadata: true }
environments: { production: null, qa: }
previewUrls: true
limits: { cpuMs: 50, subrequests: 40 }
placement: { region: aws:us-east-1 }
cache: { enabled: true, crossVersion: true }
keepVars: true
logpush: true
tailConsumers: [legacy-api]
observability:
  sampling: 0.5
  logs: { sampling: 0.25, invocationLogs: false, persist: true }
  traces: { enabled: true, sampling: 0.1 }
";

#[test]
fn every_binding_is_the_same_by_wrangler_and_by_flotilla() {
    for kind in flotilla_model::binding::KINDS {
        assert!(EVERY_KIND.contains(&format!("{{ {}:", kind.key())), "{} isn't tried", kind.key());
    }
    let (project, local, variables) = bound(EVERY_KIND);
    project.run(&["build"]).exits(0);
    fits_the_schema(&project, ["qa/acme"]);
    let home = temporary_folder();
    let mut command = wrangler(&project.path("out/qa/acme"), home.path());
    let wrangler = run(command.arg("deploy").env("WRANGLER_LOG", "debug").envs(variables.clone()), home.path());
    let warnings = wrangler.stderr.matches("WARNING").count() + wrangler.stdout.matches("WARNING").count();
    // One is ours, that there is a proxy; one is about pipelines, of which Cloudflare's document knows no newer form.
    let known = ["Proxy environment variables", "The \"pipeline\" field in"];
    assert_eq!(
        warnings,
        known.iter().map(|known| wrangler.stderr.matches(known).count()).sum::<usize>(),
        "{wrangler:#?}"
    );
    assert!(!sent_elsewhere(), "wrangler asked for another host");

    let settings = || {
        let mut settings = local.api(&format!("/accounts/{ACCOUNT}/workers/scripts/app-acme-qa/settings"));
        let bindings = settings["bindings"].take();
        let named = bindings.as_array().unwrap().iter().map(|binding| {
            let mut binding = binding.clone();
            // wrangler says the id by its older name.
            if binding["type"] == "d1" && binding["id"].is_string() {
                let id = binding.as_object_mut().unwrap().remove("id").unwrap();
                binding["database_id"] = id;
            }
            (binding["name"].as_str().unwrap().to_owned(), binding)
        });
        settings["bindings"] = json!(named.collect::<BTreeMap<_, _>>());
        settings["workers_dev"] = local.api(&format!("/accounts/{ACCOUNT}/workers/scripts/app-acme-qa/subdomain"));
        for key in ["tags", "annotations"] {
            settings.as_object_mut().unwrap().remove(key);
        }
        settings
    };
    let theirs = settings();
    local.call(Method::DELETE, &format!("/accounts/{ACCOUNT}/workers/scripts/app-acme-qa"), None);
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    project.run_with(&["deploy", "--yes"], &environment).exits(0);
    assert_eq!(theirs, settings());
    assert_eq!(theirs["bindings"].as_object().unwrap().len(), 35 + 3, "{theirs:#}");
    assert_eq!(theirs["placement"], json!({"mode": "targeted", "region": "aws:us-east-1"}));
    assert_eq!(theirs["workers_dev"], json!({"enabled": true, "previews_enabled": true}));
    assert_eq!(config(&project, "qa/acme")["account_id"], ACCOUNT);
    assert_eq!(theirs["limits"], json!({"cpu_ms": 50, "subrequests": 40}));

    // Each as it is documented, but for those that only wrangler knows.
    let mut undocumented = Vec::new();
    for (name, binding) in theirs["bindings"].as_object().unwrap() {
        let metadata = json!({"metadata": {"main_module": "index.js", "bindings": [binding]}});
        let path = format!("/accounts/{ACCOUNT}/workers/scripts/app-acme-qa");
        if validate_request("PUT", &path, Some(&metadata)).is_err() {
            undocumented.push(name.as_str());
        }
    }
    assert_eq!(undocumented, ["LOADER", "MEMORY", "SINK", "VIDEO"]);
    // Every binding as it is told comes back as it was written.
    let written: Value = project.run(&["show", "acme", "--format", "json"]).exits(0).json()["workers"][0].clone();
    for (name, told) in theirs["bindings"].as_object().unwrap() {
        let Some(written) = written["bindings"].get(name) else { continue };
        let mut read =
            flotilla_model::binding::Binding::of_upload(told).unwrap_or_else(|| panic!("{told} isn't read")).0;
        if name == "SESSIONS" {
            read.insert("name".to_owned(), "sessions".into());
        }
        // Ids are shown in part.
        for (key, value) in &mut read {
            if let Some(id) = value.as_str().filter(|_| written[key].as_str().is_some_and(|shown| shown.ends_with('…')))
            {
                *value = flotilla_model::text::mask(id).into();
            }
        }
        assert_eq!(written, &Value::Object(read), "{name}");
    }
    // Nothing is to be done the second time; what goes is told.
    let again = project.run_with(&["plan", "--format", "json"], &environment).exits(0).json();
    assert_eq!((&again["update"], &again["unchanged"]), (&json!(0), &json!(1)), "{again}");
    project.edit("customers/acme.yaml", "  AI: { ai: true }\n", "").edit("customers/acme.yaml", "acme-jobs", "jobs");
    project.edit("customers/acme.yaml", "limits: { cpuMs: 50, subrequests: 40 }\n", "");
    let told = project.run_with(&["plan"], &environment).exits(0).stdout;
    for reason in ["bindings.AI", "bindings.JOBS.queue \"acme-jobs\" → \"jobs\"", "limits"] {
        assert!(told.contains(reason), "{reason} in {told}");
    }
}

#[test]
fn classes_consumers_and_workflows_are_the_same_by_wrangler_and_by_flotilla() {
    let (project, local, variables) = bound(
        "bindings:\n  FLOW: { workflow: \"{customer}-flow\", class: Flow }\n  JOBS: { queue: \"{customer}-jobs\" }\n\
         queueConsumers: { \"{customer}-jobs\": { maxBatchSize: 7, maxRetries: 2, deadLetterQueue: \"{customer}-dead\" } }\n",
    );
    let manifest = project.read("templates/worker/pack.yaml");
    let classes = "durableObjects: { COUNTER: Counter }\nmigrations:\n  - { tag: v1, newClasses: [Old] }\n  \
                   - { tag: v2, newSqliteClasses: [Counter], renamedClasses: [{ from: Old, to: Older }] }\n";
    project.write("templates/worker/pack.yaml", format!("{manifest}{classes}"));
    let code = project.read("templates/worker/src/index.ts");
    let classes = "import { DurableObject, WorkflowEntrypoint } from \"cloudflare:workers\";\n\
                   export class Counter extends DurableObject {}\nexport class Older extends DurableObject {}\n\
                   export class Flow extends WorkflowEntrypoint {}\n";
    project.write("templates/worker/src/index.ts", format!("{classes}{code}"));
    let account = format!("/accounts/{ACCOUNT}");
    for queue in ["acme-jobs", "acme-dead"] {
        local.call(Method::POST, &format!("{account}/queues"), Some(json!({"queue_name": queue})));
    }
    project.run(&["build"]).exits(0);
    fits_the_schema(&project, ["production/acme"]);
    let state = || {
        let mut settings = local.api(&format!("{account}/workers/scripts/app-acme/settings"));
        let mut bindings = settings["bindings"].as_array().unwrap().clone();
        bindings.sort_by_key(|binding| binding["name"].to_string());
        settings["bindings"] = bindings.into();
        for key in ["tags", "annotations"] {
            settings.as_object_mut().unwrap().remove(key);
        }
        let queues = local.api(&format!("{account}/queues"));
        let consumers =
            queues.as_array().unwrap().iter().flat_map(|queue| queue["consumers"].as_array().unwrap().clone());
        let consumers =
            consumers.map(|row| json!([row["queue_name"], row["script"], row["settings"], row["dead_letter_queue"]]));
        let flow = local.api(&format!("{account}/workflows/acme-flow"));
        let classes = local.api(&format!("{account}/workers/durable_objects/namespaces"));
        let own = classes.as_array().unwrap().iter().filter(|row| row["script"] == "app-acme");
        let classes = own.map(|row| json!([row["script"], row["class"], row["use_sqlite"]]));
        json!({
            "settings": settings, "consumers": consumers.collect::<Vec<_>>(), "workflow": [flow["script_name"], flow["class_name"]],
            "classes": classes.collect::<Vec<_>>(),
        })
    };
    let home = temporary_folder();
    let mut command = wrangler(&project.path("out/production/acme"), home.path());
    run(command.arg("deploy").env("WRANGLER_LOG", "debug").envs(variables.clone()), home.path());
    assert!(!sent_elsewhere(), "wrangler asked for another host");
    let theirs = state();
    assert_eq!(theirs["settings"]["migration_tag"], "v2");
    assert_eq!(theirs["classes"], json!([["app-acme", "Counter", true], ["app-acme", "Older", false]]));
    assert_eq!(theirs["workflow"], json!(["app-acme", "Flow"]));

    let queues = local.api(&format!("{account}/queues"));
    let queue = queues.as_array().unwrap().iter().find(|queue| queue["queue_name"] == "acme-jobs").unwrap().clone();
    let path = format!("{account}/queues/{}/consumers", queue["queue_id"].as_str().unwrap());
    let consumer = queue["consumers"][0]["consumer_id"].as_str().unwrap();
    local.call(Method::DELETE, &format!("{path}/{consumer}"), None);
    local.call(Method::DELETE, &format!("{account}/workflows/acme-flow"), None);
    local.call(Method::DELETE, &format!("{account}/workers/scripts/app-acme"), None);
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    project.run_with(&["deploy", "--yes"], &environment).exits(0);
    assert_eq!(state(), theirs);
    let again = project.run_with(&["plan", "--refresh", "--format", "json"], &environment).exits(0).json();
    assert_eq!((&again["update"], &again["unchanged"]), (&json!(0), &json!(1)), "{again}");
    // What wrangler deploys over it is no drift.
    let mut command = wrangler(&project.path("out/production/acme"), home.path());
    run(command.arg("deploy").envs(variables.clone()), home.path());
    assert_eq!(state(), theirs);
}

#[test]
fn bindings_run_in_workerd_and_what_is_not_there_says_so() {
    let (project, local, variables) = bound(
        "bindings: { CACHE: { kv: KV }, SESSIONS: { d1: D1 }, LEGACY: { worker: legacy-api }, FILES: { r2: files }, \
         JOBS: { queue: jobs }, EVENTS: { analyticsEngine: events }, VERSION: { versionMetadata: true }, INDEX: { vectorize: index } }\n",
    );
    project.write(
        "templates/worker/src/index.ts",
        r#"import { Buffer } from "buffer";
export class Named {}
export default {
  async fetch(request: Request, env: any) {
    const { pathname } = new URL(request.url);
    if (pathname === "/index") return Response.json(await env.INDEX.query("a"));
    if (pathname === "/health") return Response.json({ status: "healthy", digest: env.FLOTILLA_DIGEST });
    env.EVENTS.writeDataPoint({ blobs: ["a"] });
    await env.CACHE.put("key", "value");
    await env.FILES.put("file", "content");
    await env.JOBS.send("job");
    return Response.json({
      kv: await env.CACHE.get("key"),
      d1: (await env.SESSIONS.prepare("SELECT 1 + 1 AS two").first()).two,
      r2: await (await env.FILES.get("file")).text(),
      legacy: await (await env.LEGACY.fetch(request)).text(),
      version: typeof env.VERSION.id,
      text: Buffer.from("YQ==", "base64").toString(),
      names: Object.keys(env).sort(),
    });
  },
};
"#,
    );
    project.edit("customers/acme.yaml", "id: acme\n", "id: acme\ncompatibilityFlags: [nodejs_compat]\n");
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    project.run_with(&["deploy", "--yes"], &environment).exits(0);
    let answer = json(local.get("app-acme", "/"));
    let names = [
        "CACHE",
        "ENVIRONMENT",
        "EVENTS",
        "FILES",
        "FLOTILLA_DIGEST",
        "GREETING",
        "INDEX",
        "JOBS",
        "LEGACY",
        "SESSIONS",
        "VERSION",
    ];
    let expected = json!({"kv": "value", "d1": 2, "r2": "content", "legacy": "legacy", "version": "string", "text": "a", "names": names});
    assert_eq!(answer, expected);
    let refused = local.get("app-acme", "/index");
    assert_eq!(refused.status(), 500);
    let healthy = project.run_with(&["status", "--health", "--format", "json"], &environment).exits(0).json();
    assert_eq!(healthy["workers"][0]["health"], "healthy", "{healthy}");
}

#[test]
fn static_assets_are_the_same_by_wrangler_and_by_flotilla() {
    let project = crate::fleet::fleet(&[("acme", "assets: { directory: 'assets/{customer}' }\n"), ("bolt", "")]);
    let manifest = project.read("packs/tiny/pack.yaml");
    let options = "htmlHandling: drop-trailing-slash, notFoundHandling: single-page-application, runWorkerFirst: ['/api/*', '!/api/docs/*']";
    project
        .write(
            "packs/tiny/pack.yaml",
            format!("{manifest}assets: {{ directory: public, binding: ASSETS, {options} }}\n"),
        )
        .write("packs/tiny/public/index.html", "<p>index</p>")
        .write("packs/tiny/public/docs/a page & ü.html", "<p>docs</p>")
        .write("packs/tiny/public/empty", "")
        .write("packs/tiny/public/source.map", "{}")
        .write("packs/tiny/public/.assetsignore", "*.map\n")
        .write("packs/tiny/public/_redirects", "/old /docs/ 301\n/a/* /b/:splat\n")
        .write("packs/tiny/public/_headers", "/*\n  X-Of: site\n  ! ETag\nhttps://acme.example/*\n  X-Host: yes\n")
        .write("packs/site/pack.yaml", "name: site\nprefix: s\nassets: { directory: ../tiny/public }\n")
        .edit("fleet.yaml", "packs:\n", "packs:\n  site: { path: packs/site }\n")
        .edit("fleet.yaml", "name: test\n", "name: test\ndefaults: { pack: tiny }\n")
        .write("customers/cove.yaml", "id: cove\npack: site\n")
        .write("assets/acme/index.html", "<p>acme</p>");
    let local = Local::start(&project, None);
    let variables = [
        ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", local.origin)),
        ("CLOUDFLARE_API_TOKEN", local.token.clone()),
        ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT.to_owned()),
    ];
    project.run(&["build"]).exits(0);
    let all = [("acme", "t-acme"), ("bolt", "t-bolt"), ("cove", "s-cove")];
    fits_the_schema(&project, ["production/acme", "production/bolt", "production/cove"]);
    let home = temporary_folder();
    for (customer, _) in all {
        let mut command = wrangler(&project.path(&format!("out/production/{customer}")), home.path());
        run(command.arg("deploy").envs(variables.clone()), home.path());
    }
    assert!(!sent_elsewhere(), "wrangler asked for another host");
    let found = || {
        let mut found = crate::fleet::assets(&project.path(".flotilla/local"));
        for (_, worker) in all {
            let settings = local.api(&format!("/accounts/{ACCOUNT}/workers/scripts/{worker}/settings"));
            let bindings = settings["bindings"].as_array().unwrap().clone();
            let named = bindings.into_iter().map(|binding| (binding["name"].as_str().unwrap().to_owned(), binding));
            found.insert(worker.to_owned(), json!(named.collect::<BTreeMap<_, _>>()));
        }
        found
    };
    let theirs = found();
    assert_eq!(theirs.len(), 6, "{theirs:#?}");
    for (_, worker) in all {
        local.call(Method::DELETE, &format!("/accounts/{ACCOUNT}/workers/scripts/{worker}"), None);
    }
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    project.run_with(&["deploy", "--yes"], &environment).exits(0);
    assert_eq!(theirs, found());
    // What wrangler writes is no reason to build again.
    project.run(&["build", "--check"]).exits(0);
}
