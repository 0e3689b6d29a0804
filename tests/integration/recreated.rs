//! Shows: an update of a worker that somebody deleted never counts as done while the worker lacks its secrets, hosts and crons. The
//! upload's answer tells it, at no more requests, and the next run of the same command repairs it.

use flotilla_engine::rollback::Target;
use flotilla_model::failure::Exit;
use flotilla_model::reason::Reason;
use serde_json::{Value, json};

use crate::engine::{Heard, reasons};
use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::Project;

const SPEC: &str = "domains: [a.acme.example]\nroutes: [{ pattern: a.acme.test/*, zone: acme.test }]\ncrons: ['*/5 * * * *']\n\
                    secrets: { KEY: { secret: KEY }, OTHER: { secret: OTHER } }\nvars: { GREETING: hello }\n";

/// A worker with secrets, a domain, a route, a cron and an address on workers.dev, and one beside it.
fn deployed() -> (Cloud, Project) {
    let (cloud, project) = (Cloud::start(), fleet(&[("a", SPEC), ("b", "")]));
    project.write(".env", "KEY=one\nOTHER=two\n");
    cloud.deployed(&project);
    (cloud, project)
}

/// Somebody deletes a worker by its path below the account's workers.
#[track_caller]
fn delete(cloud: &Cloud, path: &str) {
    let answer = cloud.http("DELETE", &format!("/client/v4/accounts/{ACCOUNT}/workers/{path}"), &Value::Null);
    assert_eq!(answer["success"], true, "{answer}");
}

fn get(cloud: &Cloud, path: &str) -> Value {
    cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/workers/{path}"), &Value::Null)["result"].clone()
}

/// The names of a worker's secrets.
fn secrets(cloud: &Cloud, path: &str) -> Vec<String> {
    let listed = get(cloud, &format!("{path}/secrets"));
    let mut names: Vec<String> =
        listed.as_array().expect("a list").iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

/// Deploys: the worker's change fails, because it had been deleted.
#[track_caller]
fn fails_once(cloud: &Cloud, project: &Project, worker: &str, applied: usize) {
    let ended = cloud.engine(project).deploy().exits(Exit::SomeFailed);
    let failed = ended.heard.iter().find_map(|heard| match heard {
        Heard::Failed(failed, error) if failed == worker => Some(error.clone()),
        _ => None,
    });
    let failed = failed.unwrap_or_else(|| panic!("{:#?}", ended.heard));
    assert!(failed.starts_with(&format!("{worker} had been deleted outside flotilla")), "{failed}");
    let outcome = ended.outcome();
    assert_eq!((outcome.applied, outcome.failed), (applied, 1));
    let next = outcome.failures[0].next_step.text();
    assert!(next.starts_with("run the same command again"), "{next}");
    let plan = cloud.engine(project).plan().plan;
    let (planned, why) = reasons(&plan)[0];
    assert!(planned == worker && why.contains(&Reason::Recreated), "{why:?}");
}

/// The worker has all of its parts.
#[track_caller]
fn is_whole(cloud: &Cloud) {
    assert_eq!(secrets(cloud, "scripts/t-a"), ["KEY", "OTHER"]);
    assert_eq!(get(cloud, "scripts/t-a/subdomain")["enabled"], true);
    assert_eq!(get(cloud, "scripts/t-a/schedules")["schedules"].as_array().map(Vec::len), Some(1));
    let domains = get(cloud, "domains");
    assert_eq!(
        (&domains[0]["hostname"], &domains[0]["service"]),
        (&json!("a.acme.example"), &json!("t-a")),
        "{domains}"
    );
}

#[test]
fn an_update_of_a_deleted_worker_fails_once_and_then_brings_back_all_of_it() {
    let (cloud, project) = deployed();
    is_whole(&cloud);
    delete(&cloud, "scripts/t-a");
    cloud.take();
    project.edit("customers/a.yaml", "hello", "goodbye");
    project.write("customers/b.yaml", "id: b\nvars: { X: y }\n");
    fails_once(&cloud, &project, "t-a", 1);
    let requests: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    assert_eq!(requests.iter().filter(|what| what.contains("scripts/t-a")).count(), 1, "no look before: {requests:?}");
    assert!(secrets(&cloud, "scripts/t-a").is_empty(), "they were to be kept");
    assert_eq!(cloud.deployed(&project).applied, 1);
    is_whole(&cloud);
    cloud.is_up_to_date(&project);
    // An ordinary update again, and another right after it.
    for (from, to) in [("goodbye", "hi"), ("hi", "welcome")] {
        project.edit("customers/a.yaml", from, to);
        assert_eq!(cloud.deployed(&project).applied, 1);
        is_whole(&cloud);
    }
}

#[test]
fn an_update_of_a_secret_alone_brings_back_all_of_a_deleted_worker() {
    let (cloud, project) = deployed();
    delete(&cloud, "scripts/t-a");
    let env = std::fs::read_to_string(project.path(".env")).expect("the variables");
    project.write(".env", env.replace("KEY=one", "KEY=three"));
    fails_once(&cloud, &project, "t-a", 0);
    assert_eq!(secrets(&cloud, "scripts/t-a"), ["KEY"], "only what differed was sent");
    assert_eq!(cloud.deployed(&project).applied, 1);
    is_whole(&cloud);
    cloud.is_up_to_date(&project);
}

#[test]
fn a_deleted_worker_whose_first_answer_is_lost_is_found_too() {
    let (cloud, project) = deployed();
    delete(&cloud, "scripts/t-a");
    // It was created some time before; the worker that the lost attempt creates isn't new when the second one ends.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    cloud.faults(
        &json!([{"match": {"method": "PUT", "path": "/workers/scripts/t-a"}, "times": 1, "do": {"reset": "after"}}]),
    );
    project.edit("customers/a.yaml", "hello", "goodbye");
    fails_once(&cloud, &project, "t-a", 0);
    assert_eq!(cloud.deployed(&project).applied, 1);
    is_whole(&cloud);
    cloud.is_up_to_date(&project);
}

#[test]
fn a_refresh_after_the_failure_doesnt_take_the_worker_for_whole() {
    let (cloud, project) = deployed();
    delete(&cloud, "scripts/t-a");
    project.edit("customers/a.yaml", "hello", "goodbye");
    fails_once(&cloud, &project, "t-a", 0);
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.refresh = true);
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 1);
    is_whole(&cloud);
    cloud.is_up_to_date(&project);
}

#[test]
fn a_deleted_worker_in_a_namespace_gets_its_secrets_again() {
    let (cloud, project) =
        (Cloud::start(), fleet(&[("a", "secrets: { KEY: { secret: KEY } }\nvars: { GREETING: hello }\n")]));
    project.write(
        "fleet.yaml",
        "name: test\npacks: { tiny: { path: packs/tiny } }\naccounts: { default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, \
         token: { secret: CLOUDFLARE_API_TOKEN }, dispatchNamespace: shops } }\ndefaults: { workersDev: false }\n",
    );
    project.write(".env", "KEY=one\n");
    let namespaces = format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces");
    assert_eq!(cloud.http("POST", &namespaces, &json!({"name": "shops"}))["success"], true);
    cloud.deployed(&project);
    let path = "dispatch/namespaces/shops/scripts/t-a";
    assert_eq!(secrets(&cloud, path), ["KEY"]);
    delete(&cloud, path);
    project.edit("customers/a.yaml", "hello", "goodbye");
    fails_once(&cloud, &project, "t-a", 0);
    assert!(secrets(&cloud, path).is_empty());
    assert_eq!(cloud.deployed(&project).applied, 1);
    assert_eq!(secrets(&cloud, path), ["KEY"]);
    cloud.is_up_to_date(&project);
}

#[test]
fn a_rollback_of_a_deleted_worker_is_no_success() {
    let (cloud, project) = deployed();
    project.edit("customers/a.yaml", "hello", "goodbye");
    cloud.deployed(&project);
    delete(&cloud, "scripts/t-a");
    let back = || Target::Customers { customers: vec!["a".to_owned()], record: None, environment: None };
    let outcome = cloud.engine(&project).rollback(back()).0.expect("it runs");
    assert_eq!((outcome.applied, outcome.failed), (0, 1));
    assert!(outcome.failures[0].next_step.text().starts_with("`flotilla deploy --refresh`"));
    assert!(!cloud.scripts().contains_key("t-a"), "nothing was uploaded");
    // Deleted in the moment between the look and the upload: the look still finds it.
    let tags = json!({"success": true, "errors": [], "messages": [], "result": {"tags": ["flotilla-test"]}});
    cloud.faults(&json!([{"match": {"method": "GET", "path": "/workers/scripts/t-a/settings"}, "times": 1,
        "do": {"status": 200, "set": tags}}]));
    let outcome = cloud.engine(&project).rollback(back()).0.expect("it runs");
    assert_eq!((outcome.applied, outcome.failed), (0, 1));
    let failure = &outcome.failures[0];
    assert!(failure.error.starts_with("t-a had been deleted outside flotilla"), "{}", failure.error);
    assert!(failure.next_step.text().starts_with("`flotilla deploy --refresh`"));
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.refresh = true);
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 1);
    is_whole(&cloud);
    assert_eq!(cloud.engine(&project).rollback(back()).0.expect("it runs").applied, 1);
    is_whole(&cloud);
}
