//! Shows: Durable Object classes, queue consumers and workflows of a worker's own, deployed by the engine: each change of them is planned with
//! its reason, is made once, also after a lost answer, and is followed by nothing to do; what destroys objects needs the consent that a
//! deletion needs; a rollback doesn't cross a migration; what a worker no longer has is removed.

use flotilla_engine::rollback::Target;
use flotilla_model::failure::Exit;
use flotilla_model::reason::Reason;
use serde_json::{Value, json};

use crate::engine::Heard;
use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::Project;

const MANIFEST: &str = "packs/tiny/pack.yaml";
const CREATED: &str = "  - { tag: v1, newSqliteClasses: [Counter] }\n";

/// A fleet whose workers have a class.
fn counting(customers: &[(&str, &str)]) -> (Cloud, Project) {
    let project = fleet(customers);
    let manifest = project.read(MANIFEST);
    project.write(MANIFEST, format!("{manifest}durableObjects: {{ COUNTER: Counter }}\nmigrations:\n{CREATED}"));
    let module = project.read("packs/tiny/index.ts.tera");
    project.write("packs/tiny/index.ts.tera", format!("{module}export class Counter {{}}\nexport class Tally {{}}\n"));
    (Cloud::start(), project)
}

fn settings(cloud: &Cloud, worker: &str) -> Value {
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/{worker}/settings");
    cloud.http("GET", &path, &Value::Null)["result"].clone()
}

fn get(cloud: &Cloud, path: &str) -> Value {
    cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/{path}"), &Value::Null)["result"].clone()
}

/// The reasons of the only change.
#[track_caller]
fn reasons(cloud: &Cloud, project: &Project) -> Vec<Reason> {
    let planned = cloud.engine(project).plan();
    assert_eq!(planned.plan.changes.len(), 1, "{:#?}", planned.plan.changes);
    planned.plan.changes[0].reasons.clone()
}

#[track_caller]
fn is_up_to_date(cloud: &Cloud, project: &Project) {
    cloud.engine(project).deploy().exits(Exit::Done).is_up_to_date();
    let planned = cloud.engine(project).plan_with(|request| request.refresh = true);
    assert!(planned.plan.is_empty(), "{:#?}", planned.plan.changes);
}

fn migrated(old: Option<&str>, new: &str) -> Reason {
    Reason::Migrated { old: old.map(str::to_owned), new: new.to_owned() }
}

#[test]
fn new_workers_that_are_bound_to_each_others_classes_are_complete_before_they_are_called() {
    let peer =
        |name: &str, more: &str| format!("bindings:\n  PEER: {{ durableObject: Counter, worker: t-{name} }}\n{more}");
    let absent = "  CACHE: { kv: 0f3f6a109a4e4c518f5c2b7d1d2f9a01 }\n";
    let (acme, bolt) = (peer("bolt", ""), peer("acme", absent));
    let (cloud, project) = counting(&[("acme", &acme), ("bolt", &bolt)]);
    let planned = cloud.engine(&project).plan();
    let without = vec!["t-bolt".to_owned()];
    assert!(planned.plan.changes[0].reasons.contains(&Reason::CreatedFirst { without: without.clone() }));

    // Cloudflare rejects one of them: the other exists, with its class, but not with its binding, and nothing points to it.
    let stopped = cloud.engine(&project).deploy();
    let outcome = stopped.outcome();
    assert_eq!((outcome.applied, outcome.failed), (0, 2), "{outcome:#?}");
    let first = settings(&cloud, "t-acme");
    let names = |settings: &Value| -> Vec<String> {
        let bindings = settings["bindings"].as_array().into_iter().flatten();
        bindings.filter_map(|binding| binding["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(first["migration_tag"], "v1");
    assert!(names(&first).contains(&"COUNTER".to_owned()) && !names(&first).contains(&"PEER".to_owned()), "{first}");
    assert_eq!(get(&cloud, "workers/scripts/t-acme/subdomain")["enabled"], false);
    let missing = Reason::BindingsMissing { without };
    for refresh in [false, true] {
        let planned = cloud.engine(&project).plan_with(|request| request.refresh = refresh);
        assert!(planned.plan.changes[0].reasons.contains(&missing), "{:#?}", planned.plan.changes);
        assert!(planned.findings.is_empty(), "{:#?}", planned.findings);
    }

    project.write("customers/bolt.yaml", format!("id: bolt\n{}", peer("acme", "")));
    assert_eq!(cloud.deployed(&project).applied, 2);
    for worker in ["t-acme", "t-bolt"] {
        let settings = settings(&cloud, worker);
        assert_eq!(settings["migration_tag"], "v1");
        assert!(names(&settings).contains(&"PEER".to_owned()), "{settings}");
        assert_eq!(get(&cloud, &format!("workers/scripts/{worker}/subdomain"))["enabled"], true);
    }
    is_up_to_date(&cloud, &project);
}

#[test]
fn a_class_is_created_renamed_unbound_and_deleted() {
    let (cloud, project) = counting(&[("acme", "")]);
    assert!(reasons(&cloud, &project).contains(&migrated(None, "v1")));
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v1");
    assert_eq!(get(&cloud, "workers/durable_objects/namespaces")[0]["class"], "Counter");
    is_up_to_date(&cloud, &project);

    // A worker that comes later gets the migrations at once; the other has nothing to do.
    project.write("customers/bolt.yaml", "id: bolt\n");
    assert_eq!(cloud.deployed(&project).applied, 1);
    std::fs::remove_file(project.path("customers/bolt.yaml")).expect("a customer");
    cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Done);

    let renamed = "  - { tag: v2, renamedClasses: [{ from: Counter, to: Tally }] }\n";
    project.edit(MANIFEST, CREATED, &format!("{CREATED}{renamed}")).edit(
        MANIFEST,
        "COUNTER: Counter",
        "COUNTER: Tally",
    );
    assert!(reasons(&cloud, &project).contains(&migrated(Some("v1"), "v2")));
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v2");
    is_up_to_date(&cloud, &project);

    // The binding goes with the class: one deploy unbinds it, the next deletes it.
    let deleted = "  - { tag: v3, deletedClasses: [Tally] }\n";
    project.edit(MANIFEST, renamed, &format!("{renamed}{deleted}")).edit(
        MANIFEST,
        "durableObjects: { COUNTER: Tally }\n",
        "",
    );
    assert!(reasons(&cloud, &project).contains(&Reason::ClassUnbound { class: "Tally".to_owned() }));
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v2");
    assert_eq!(
        reasons(&cloud, &project),
        [migrated(Some("v2"), "v3"), Reason::ClassDeleted { class: "Tally".to_owned() }]
    );
    assert!(cloud.engine(&project).plan().plan.changes[0].destroys_objects);
    project.edit("fleet.yaml", "name: test\n", "name: test\ndeploy: { maxDeletions: { count: 0 } }\n");
    let refused = cloud.engine(&project).deploy().failure(Exit::Refused).to_string();
    assert!(refused.contains("Durable Objects"), "{refused}");
    assert_eq!(get(&cloud, "workers/durable_objects/namespaces")[0]["class"], "Tally", "nothing is changed");
    project.edit("fleet.yaml", "deploy: { maxDeletions: { count: 0 } }\n", "");
    cloud.deployed(&project);
    assert_eq!(get(&cloud, "workers/durable_objects/namespaces"), json!([]));
    assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v3");
    is_up_to_date(&cloud, &project);
}

#[test]
fn a_class_that_is_renamed_and_deleted_at_once_takes_two_deploys() {
    let (cloud, project) = counting(&[("acme", "")]);
    cloud.deployed(&project);
    let more =
        "  - { tag: v2, renamedClasses: [{ from: Counter, to: Tally }] }\n  - { tag: v3, deletedClasses: [Tally] }\n";
    project.edit(MANIFEST, CREATED, &format!("{CREATED}{more}")).edit(
        MANIFEST,
        "durableObjects: { COUNTER: Counter }\n",
        "",
    );
    let unbound = Reason::ClassUnbound { class: "Tally".to_owned() };
    let reasons_of = reasons(&cloud, &project);
    assert!(reasons_of.contains(&migrated(Some("v1"), "v2")) && reasons_of.contains(&unbound), "{reasons_of:?}");
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v2");
    assert_eq!(get(&cloud, "workers/durable_objects/namespaces")[0]["class"], "Tally");
    cloud.deployed(&project);
    assert_eq!(get(&cloud, "workers/durable_objects/namespaces"), json!([]));
    is_up_to_date(&cloud, &project);
}

#[test]
fn declared_classes_are_deployed_with_the_code() {
    let (cloud, project) = counting(&[("acme", "")]);
    project.edit(MANIFEST, &format!("migrations:\n{CREATED}"), "exports: { Counter: { storage: sqlite } }\n");
    cloud.deployed(&project);
    assert_eq!(get(&cloud, "workers/durable_objects/namespaces")[0]["class"], "Counter");
    assert!(settings(&cloud, "t-acme")["migration_tag"].is_null());
    is_up_to_date(&cloud, &project);
}

#[test]
fn a_migration_is_applied_once_though_its_answer_is_lost() {
    for fault in
        [json!({"reset": "after"}), json!({"reset": "before"}), json!({"status": 500, "html": true, "after": true})]
    {
        let (cloud, project) = counting(&[("acme", "")]);
        cloud.faults(&json!([{"match": {"method": "PUT", "path": "scripts/t-acme"}, "times": 1, "do": fault}]));
        cloud.engine(&project).deploy();
        cloud.clear_faults();
        cloud.engine(&project).deploy().exits(Exit::Done);
        assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v1", "{fault}");
        is_up_to_date(&cloud, &project);
    }
}

#[test]
fn a_state_that_is_rebuilt_knows_the_migrations() {
    let (cloud, project) = counting(&[("acme", "queueConsumers: { jobs: { maxRetries: 5 } }\n")]);
    cloud.deployed(&project);
    for entry in std::fs::read_dir(project.path(".flotilla")).expect("the folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("state") {
            std::fs::remove_file(entry.path()).expect("a file of the state");
        }
    }
    cloud.engine(&project).rebuild();
    let deleted = "  - { tag: v2, newSqliteClasses: [Tally] }\n";
    project.edit(MANIFEST, CREATED, &format!("{CREATED}{deleted}"));
    let reasons = reasons(&cloud, &project);
    assert!(reasons.contains(&migrated(Some("v1"), "v2")), "{reasons:?}");
    cloud.deployed(&project);
    is_up_to_date(&cloud, &project);
}

#[test]
fn a_rollback_does_not_cross_a_migration() {
    let (cloud, project) = counting(&[("acme", "vars: { A: one }\n")]);
    cloud.deployed(&project);
    project.edit("customers/acme.yaml", "one", "two");
    cloud.deployed(&project);
    let added = "  - { tag: v2, newSqliteClasses: [Tally] }\n";
    project.edit(MANIFEST, CREATED, &format!("{CREATED}{added}"));
    cloud.deployed(&project);
    let (result, heard) = cloud.engine(&project).rollback(Target::Customers {
        customers: vec!["acme".to_owned()],
        record: None,
        environment: None,
    });
    let stays = heard
        .iter()
        .any(|heard| matches!(heard, Heard::Stays(worker, why) if worker == "t-acme" && why.contains("migration")));
    assert!(stays, "{heard:?} {:?}", result.map(|outcome| outcome.applied));
    assert_eq!(settings(&cloud, "t-acme")["migration_tag"], "v2");
}

/// The consumers of a queue: their workers and settings.
fn consumers(cloud: &Cloud, queue: &str) -> Vec<(String, Value)> {
    let queues = get(cloud, "queues");
    let found = queues.as_array().expect("a list").iter().find(|row| row["queue_name"] == queue);
    let rows = found.map(|found| found["consumers"].as_array().expect("a list").clone()).unwrap_or_default();
    rows.into_iter().map(|row| (row["script"].as_str().expect("a name").to_owned(), row["settings"].clone())).collect()
}

#[test]
fn a_consumer_is_made_changed_and_removed() {
    let project = fleet(&[
        ("acme", "queueConsumers: { '{customer}-jobs': { maxRetries: 5, deadLetterQueue: '{customer}-dead' } }\n"),
        ("bolt", ""),
    ]);
    let cloud = Cloud::start();
    cloud.deployed(&project);
    let made = consumers(&cloud, "acme-jobs");
    assert_eq!((made.len(), made[0].0.as_str(), &made[0].1["max_retries"]), (1, "t-acme", &json!(5)));
    assert!(
        get(&cloud, "queues").as_array().expect("a list").iter().any(|row| row["queue_name"] == "acme-dead"),
        "the dead letters' queue"
    );
    is_up_to_date(&cloud, &project);

    project.edit("customers/acme.yaml", "maxRetries: 5", "maxRetries: 7");
    assert_eq!(reasons(&cloud, &project), [Reason::ConsumerChanged { queue: "acme-jobs".to_owned() }]);
    cloud.deployed(&project);
    assert_eq!(consumers(&cloud, "acme-jobs")[0].1["max_retries"], 7);
    is_up_to_date(&cloud, &project);

    // Somebody changes it behind our back: a refresh sees it, and the deploy puts it right.
    let queue = get(&cloud, "queues")
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["queue_name"] == "acme-jobs")
        .cloned()
        .expect("it");
    let path = format!(
        "queues/{}/consumers/{}",
        queue["queue_id"].as_str().expect("an id"),
        queue["consumers"][0]["consumer_id"].as_str().expect("an id")
    );
    cloud.http(
        "PUT",
        &format!("/client/v4/accounts/{ACCOUNT}/{path}"),
        &json!({"type": "worker", "script_name": "t-acme", "settings": {"max_retries": 1}}),
    );
    cloud.engine(&project).deploy_with(|request| request.plan.refresh = true).exits(Exit::Done);
    assert_eq!(consumers(&cloud, "acme-jobs")[0].1["max_retries"], 7);

    // From one worker to another, in one deploy.
    let of_bolt = "id: bolt\nqueueConsumers: { acme-jobs: { maxRetries: 7 } }\n";
    project.write("customers/acme.yaml", "id: acme\n").write("customers/bolt.yaml", of_bolt);
    cloud.deployed(&project);
    assert_eq!(consumers(&cloud, "acme-jobs")[0].0, "t-bolt");
    is_up_to_date(&cloud, &project);

    std::fs::remove_file(project.path("customers/bolt.yaml")).expect("a customer");
    project.edit("fleet.yaml", "name: test\n", "name: test\ndeploy: { maxDeletions: { count: 5, percent: 100 } }\n");
    cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Done);
    assert_eq!(consumers(&cloud, "acme-jobs"), [], "the worker is gone, and so is what it consumed");
    assert!(!cloud.scripts().contains_key("t-bolt"));
}

#[test]
fn a_consumer_of_somebody_else_stays() {
    let project = fleet(&[("acme", "queueConsumers: { jobs: {} }\n")]);
    let cloud = Cloud::start();
    cloud.foreign("scripts/theirs", &[]);
    let made = cloud.http("POST", &format!("/client/v4/accounts/{ACCOUNT}/queues"), &json!({"queue_name": "jobs"}));
    let id = made["result"]["queue_id"].as_str().expect("an id").to_owned();
    let body = json!({"type": "worker", "script_name": "theirs", "settings": {}});
    cloud.http("POST", &format!("/client/v4/accounts/{ACCOUNT}/queues/{id}/consumers"), &body);
    let ended = cloud.engine(&project).deploy();
    assert_ne!(ended.exit(), Exit::Done);
    assert!(format!("{:?} {:?}", ended.heard, ended.result.as_ref().err()).contains("theirs"), "{:?}", ended.heard);
    assert_eq!(consumers(&cloud, "jobs")[0].0, "theirs");
}

#[test]
fn a_consumer_is_made_once_though_an_answer_is_lost() {
    for (method, path) in [("POST", "/queues"), ("POST", "/consumers")] {
        let project = fleet(&[("acme", "queueConsumers: { jobs: { maxBatchSize: 2 } }\n")]);
        let cloud = Cloud::start();
        cloud.faults(&json!([{"match": {"method": method, "path": path}, "times": 1, "do": {"reset": "after"}}]));
        cloud.engine(&project).deploy();
        cloud.clear_faults();
        cloud.engine(&project).deploy().exits(Exit::Done);
        assert_eq!(consumers(&cloud, "jobs").len(), 1, "{path}");
        is_up_to_date(&cloud, &project);
    }
}

#[test]
fn a_workflow_is_deployed_with_its_worker_and_goes_with_it() {
    let project =
        fleet(&[("acme", "bindings: { FLOW: { workflow: '{customer}-flow', class: Flow } }\n"), ("bolt", "")]);
    let module = project.read("packs/tiny/index.ts.tera");
    project.write("packs/tiny/index.ts.tera", format!("{module}export class Flow {{}}\n"));
    let cloud = Cloud::start();
    cloud.deployed(&project);
    let flow = get(&cloud, "workflows/acme-flow");
    assert_eq!((&flow["script_name"], &flow["class_name"]), (&json!("t-acme"), &json!("Flow")));
    let binding = settings(&cloud, "t-acme")["bindings"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|binding| binding["name"] == "FLOW")
        .cloned();
    assert_eq!(binding.expect("it")["workflow_name"], "acme-flow");
    is_up_to_date(&cloud, &project);

    // Its instances may still run: a workflow that is no longer defined stays.
    project.write("customers/acme.yaml", "id: acme\n");
    assert!(reasons(&cloud, &project).contains(&Reason::WorkflowKept { old: "acme-flow".to_owned() }));
    cloud.deployed(&project);
    assert_eq!(get(&cloud, "workflows/acme-flow")["class_name"], "Flow");
    is_up_to_date(&cloud, &project);
    // One that is defined goes with its worker.
    project.write("customers/acme.yaml", "id: acme\nbindings: { FLOW: { workflow: other-flow, class: Flow } }\n");
    cloud.deployed(&project);
    std::fs::remove_file(project.path("customers/acme.yaml")).expect("a customer");
    project.edit("fleet.yaml", "name: test\n", "name: test\ndeploy: { maxDeletions: { count: 5, percent: 100 } }\n");
    cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Done);
    let left = get(&cloud, "workflows");
    assert_eq!(left.as_array().expect("a list").iter().map(|row| &row["name"]).collect::<Vec<_>>(), ["acme-flow"]);
}
