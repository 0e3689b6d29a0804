//! Injects each kind of fault at every call of a deploy, one at a time: with domains, routes in two zones, crons, a database, secrets, consumers
//! of queues, a workflow, migrations, static assets, and hosts in KV. A deploy that says that it is done has done it, and after whatever came of the fault, the next deploys do the rest:
//! what is live then is what a deploy without a fault gives, and the state has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::engine::Ended;
use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::{Project, copy, repository};

/// The account with the dispatch namespace.
const PLATFORM: &str = "fedcba9876543210fedcba9876543210";
/// Runs at once: most of their time is waited.
const THREADS: usize = 8;

/// The kinds of faults.
fn faults() -> Vec<(&'static str, Value)> {
    let other = json!({"id": "other", "etag": "e", "uuid": "other", "name": "other", "title": "other", "hostname": "other.example.com",
        "service": "other", "pattern": "other.example.com/*", "script": "other", "enabled": "other", "schedules": [{"cron": "9 9 9 9 9"}],
        "successful_key_count": 0, "tags": [7]});
    vec![
        ("nothing as result", json!({"set": {"result": null}})),
        ("a result of another type", json!({"set": {"result": "text"}})),
        ("a result about something else", json!({"set": {"result": other}})),
        ("307 with success", json!({"set": {"success": true}, "status": 307})),
        ("a web page, carried out", json!({"status": 200, "html": true, "after": true})),
        ("408, carried out", json!({"status": 408, "html": true, "after": true})),
        ("408, not carried out", json!({"status": 408, "html": true})),
        (
            "a 404 of another kind",
            json!({"error": {"status": 404, "code": 7003, "message": "Could not route to that"}}),
        ),
        ("no answer, carried out", json!({"reset": "after"})),
    ]
}

fn project() -> Project {
    let project = fleet(&[]);
    copy(&repository().join("templates/dispatch"), &project.path("templates/dispatch"));
    let token = "token: { secret: CLOUDFLARE_API_TOKEN }";
    project.write(
        "fleet.yaml",
        format!(
            "name: test\npacks: {{ tiny: {{ path: packs/tiny }}, dispatch: {{ path: templates/dispatch }} }}\naccounts:\n  \
             main: {{ id: {ACCOUNT}, {token} }}\n  platform: {{ id: {PLATFORM}, {token}, dispatchNamespace: shops, dispatch: {{ worker: front }} }}\n\
             sharedWorkers: {{ front: {{ pack: dispatch, account: platform }} }}\ndefaults: {{ pack: tiny, account: main }}\n\
             deploy: {{ maxDeletions: {{ count: 10, percent: 100 }} }}\n"
        ),
    );
    project.write(".env", "ACME_KEY=a-secret-value\n");
    let manifest = project.read("packs/tiny/pack.yaml");
    let classes = "assets: { directory: public, binding: ASSETS }\ndurableObjects: { COUNTER: Counter }\nmigrations:\n  - { tag: v1, newSqliteClasses: [Counter] }\n";
    project.write("packs/tiny/pack.yaml", format!("{manifest}{classes}"));
    project.write("packs/tiny/public/a.txt", "a").write("packs/tiny/public/b.txt", "b");
    project
}

/// The fleet as it is deployed first.
fn first(project: &Project) {
    project
        .write(
            "customers/acme.yaml",
            "id: acme\ndomains: [acme.example.com]\ncrons: ['0 3 * * *']\n\
             routes: [{ pattern: 'a.example.org/*', zone: example.org }, { pattern: 'a.example.net/*', zone: example.net }]\n\
             database: { type: d1, name: of-acme }\nsecrets: { KEY: { secret: ACME_KEY } }\n\
             queueConsumers: { jobs: { maxRetries: 5 }, more: {} }\nbindings: { FLOW: { workflow: flow, class: Flow } }\n",
        )
        .write("customers/bird.yaml", "id: bird\ndomains: [bird.example.com]\nroutes: [{ pattern: 'b.example.org/*', zone: example.org }]\n")
        .write("customers/shop.yaml", "id: shop\naccount: platform\ndomains: [shop.example.com, www.example.com]\n");
}

/// Then as one customer has left, and another has changed all that it has.
fn second(project: &Project) {
    std::fs::remove_file(project.path("customers/bird.yaml")).expect("a customer");
    project
        .write(
            "customers/acme.yaml",
            "id: acme\ndomains: [new.example.com]\ncrons: ['0 4 * * *']\nworkersDev: false\nvars: { A: b }\n\
             routes: [{ pattern: 'c.example.org/*', zone: example.org }]\n\
             database: { type: d1, name: of-acme }\nsecrets: { KEY: { secret: ACME_KEY } }\n\
             queueConsumers: { jobs: { maxRetries: 6, deadLetterQueue: dead } }\nbindings: { FLOW: { workflow: flow, class: Other } }\n",
        )
        .edit("packs/tiny/pack.yaml", "newSqliteClasses: [Counter] }\n", "newSqliteClasses: [Counter] }\n  - { tag: v2, newSqliteClasses: [Tally] }\n")
        .write("packs/tiny/public/a.txt", "another a")
        .write("customers/shop.yaml", "id: shop\naccount: platform\ndomains: [shop.example.com]\n");
}

/// What is live: everything that a deploy makes, without ids and times.
fn live(cloud: &Cloud) -> BTreeMap<String, Value> {
    let mut live = BTreeMap::new();
    let get = |path: &str| cloud.http("GET", &format!("/client/v4{path}"), &Value::Null)["result"].clone();
    let rows = |value: Value| value.as_array().cloned().unwrap_or_default();
    for account in [ACCOUNT, PLATFORM] {
        let base = format!("/accounts/{account}");
        let mut scripts: Vec<(String, Value)> = rows(get(&format!("{base}/workers/scripts")))
            .into_iter()
            .map(|row| (format!("{base}/workers/scripts/{}", row["id"].as_str().expect("a name")), row))
            .collect();
        let inside = format!("{base}/workers/dispatch/namespaces/shops/scripts");
        scripts.extend(rows(get(&inside)).into_iter().map(|row| {
            let script = row["script"].clone();
            (format!("{inside}/{}", script["id"].as_str().expect("a name")), script)
        }));
        for (path, row) in scripts {
            let settled: Vec<String> =
                row["tags"].as_array().expect("tags").iter().map(|tag| tag.to_string()).collect();
            let kept = |tag: &&String| !tag.contains("pending-") && !tag.contains("triggers-");
            live.insert(
                path.clone(),
                json!({"etag": row["etag"], "tags": settled.iter().filter(kept).collect::<Vec<_>>()}),
            );
            if !path.contains("dispatch") {
                let crons = get(&format!("{path}/schedules"));
                let crons: Vec<Value> =
                    rows(crons["schedules"].clone()).into_iter().map(|row| row["cron"].clone()).collect();
                live.insert(format!("{path}/more"), json!([get(&format!("{path}/subdomain"))["enabled"], crons]));
            }
            let mut settings = get(&format!("{path}/settings"));
            live.insert(format!("{path}/migration"), settings["migration_tag"].take());
            let mut bindings = rows(settings["bindings"].take());
            for binding in &mut bindings {
                // Which id a database has is chance.
                binding
                    .as_object_mut()
                    .expect("a binding")
                    .retain(|name, _| !["id", "database_id", "namespace_id"].contains(&name.as_str()));
            }
            live.insert(format!("{path}/bindings"), bindings.into());
        }
        for domain in rows(get(&format!("{base}/workers/domains"))) {
            live.insert(format!("domain {}", domain["hostname"]), domain["service"].clone());
        }
        for database in rows(get(&format!("{base}/d1/database"))) {
            live.insert(format!("database {}", database["name"]), json!(true));
        }
        for queue in rows(get(&format!("{base}/queues"))) {
            let consumers = rows(queue["consumers"].clone());
            let consumers =
                consumers.iter().map(|row| json!([row["script"], row["settings"], row["dead_letter_queue"]]));
            live.insert(format!("queue {}", queue["queue_name"]), consumers.collect());
        }
        for workflow in rows(get(&format!("{base}/workflows"))) {
            live.insert(
                format!("workflow {}", workflow["name"]),
                json!([workflow["script_name"], workflow["class_name"]]),
            );
        }
        for table in rows(get(&format!("{base}/storage/kv/namespaces"))) {
            let path = format!("{base}/storage/kv/namespaces/{}/keys", table["id"].as_str().expect("an id"));
            live.insert(
                format!("hosts {}", table["title"]),
                rows(get(&path)).into_iter().map(|key| key["name"].clone()).collect(),
            );
        }
    }
    live.extend(cloud.assets().into_iter().map(|(worker, assets)| (format!("assets {worker}"), assets)));
    for zone in ["example.org", "example.net"] {
        let id = get(&format!("/zones?name={zone}"))[0]["id"].as_str().unwrap_or_default().to_owned();
        for route in rows(get(&format!("/zones/{id}/workers/routes"))) {
            live.insert(format!("route {}", route["pattern"]), route["script"].clone());
        }
    }
    live
}

fn deploy(cloud: &Cloud, project: &Project) -> Ended {
    cloud.engine(project).deploy_with(|request| {
        request.plan.prune = true;
        request.plan.refresh = false;
    })
}

fn start() -> (Cloud, Project) {
    let cloud = Cloud::start_with(|options| options.page_size = Some(1));
    let namespaces = format!("/client/v4/accounts/{PLATFORM}/workers/dispatch/namespaces");
    cloud.http("POST", &namespaces, &json!({"name": "shops"}));
    (cloud, project())
}

/// Brings a fleet to where the faults are to hit.
fn prepared(stage: usize) -> (Cloud, Project) {
    let (cloud, project) = start();
    first(&project);
    if stage == 1 {
        deploy(&cloud, &project).exits(Exit::Done);
        second(&project);
    }
    cloud.take();
    (cloud, project)
}

/// What has to hold after a fault, whatever came of it.
fn converges(what: &str, stage: usize, call: usize, fault: &Value, wanted: &BTreeMap<String, Value>) {
    let (cloud, project) = prepared(stage);
    cloud.faults(&json!([{"skip": call, "times": 1, "do": fault}]));
    let ended = deploy(&cloud, &project);
    let hit = cloud.take().get(call).map_or_else(String::new, |request| request.what.clone());
    cloud.clear_faults();
    let what = format!("{what} at call {call} of stage {stage}, {hit}");
    if ended.exit() == Exit::Done {
        assert_eq!(live(&cloud), *wanted, "{what}: it says that it is done");
    }
    for _ in 0..3 {
        if deploy(&cloud, &project).exit() == Exit::Done {
            break;
        }
    }
    assert_eq!(live(&cloud), *wanted, "{what}");
    cloud.take();
    let ended = deploy(&cloud, &project);
    assert_eq!(ended.exit(), Exit::Done, "{what}: {:?}", ended.heard);
    ended.is_up_to_date();
    let planned = cloud.engine(&project).plan_with(|request| request.refresh = true);
    assert!(planned.plan.is_empty(), "{what}: {:?}", planned.plan.changes);
}

#[test]
fn each_fault_at_every_call_of_a_deploy() {
    let mut runs = Vec::new();
    let mut wanted = Vec::new();
    for stage in [0, 1] {
        let (cloud, project) = prepared(stage);
        deploy(&cloud, &project).exits(Exit::Done);
        let calls: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
        eprintln!("stage {stage}: {} calls: {calls:#?}", calls.len());
        wanted.push(live(&cloud));
        for (what, fault) in faults() {
            runs.extend((0..calls.len()).map(|call| (what, stage, call, fault.clone())));
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((what, stage, call, fault)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    converges(what, *stage, *call, fault, &wanted[*stage]);
                }
            });
        }
    });
    eprintln!("{} faults", runs.len());
}
