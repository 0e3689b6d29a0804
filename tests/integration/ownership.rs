//! Shows that a deploy changes what is this fleet's at that moment, whatever the state or a list of before says: a worker that another fleet
//! has by now is neither overwritten nor rolled back nor deleted, and a domain or a route that points to another worker stays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_deploy::deploy::Control;
use flotilla_engine::rollback::Target;
use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::engine::{Heard, names};
use crate::fleet::{ACCOUNT, Cloud, fleet, until};
use crate::support::{Project, copy, repository};

const OTHERS: &str = "flotilla-else";

/// Two deployed workers without an address.
fn two() -> (Cloud, Project) {
    let (cloud, project) = (Cloud::start(), fleet(&[("a", "workersDev: false\n"), ("b", "workersDev: false\n")]));
    let fleet = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{fleet}deploy: {{ maxDeletions: {{ count: 10, percent: 100 }} }}\n"));
    assert_eq!(cloud.deployed(&project).applied, 2);
    cloud.take();
    (cloud, project)
}

/// Why a worker was not changed.
#[track_caller]
fn error(heard: &[Heard], worker: &str) -> String {
    let failed = heard.iter().find_map(|heard| match heard {
        Heard::Failed(failed, error) if failed == worker => Some(error.clone()),
        _ => None,
    });
    failed.unwrap_or_else(|| panic!("{worker} did not fail: {heard:#?}"))
}

fn change(project: &Project) {
    project.write("customers/a.yaml", "id: a\nworkersDev: false\nvars: { A: new }\n");
    project.write("customers/b.yaml", "id: b\nworkersDev: false\nvars: { A: new }\n");
}

#[test]
fn an_update_of_another_fleets_worker_is_refused() {
    let (cloud, project) = two();
    cloud.foreign("scripts/t-a", &[OTHERS]);
    let theirs = cloud.scripts()["t-a"].clone();
    change(&project);
    let ended = cloud.engine(&project).deploy().exits(Exit::SomeFailed);
    assert_eq!(
        error(&ended.heard, "t-a"),
        "not changed: t-a belongs to the fleet else; `deploy --adopt t-a` adopts it, `--refresh` removes it from this \
         fleet's state"
    );
    assert_eq!(ended.outcome().applied, 1, "the other one goes on");
    assert_eq!(cloud.scripts()["t-a"], theirs);
    // A cron alone is a change of their worker, too.
    project.write("customers/a.yaml", "id: a\nworkersDev: false\ncrons: ['0 3 * * *']\n");
    let ended = cloud.engine(&project).deploy().exits(Exit::SomeFailed);
    assert!(error(&ended.heard, "t-a").contains("belongs to the fleet else"));
    assert!(!cloud.take().iter().any(|request| request.what == "PUT scripts/t-a/schedules"));
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.adopt = names(&["t-a"]));
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 1);
}

#[test]
fn updates_of_a_fleet_cost_one_list_and_nothing_more() {
    let (cloud, project) = two();
    change(&project);
    let planned = cloud.engine(&project).plan();
    let price = |planned: &flotilla_engine::planning::Planned| {
        let estimates = planned.view().estimates;
        estimates.iter().fold((0, 0), |sum, estimate| (sum.0 + estimate.requests, sum.1 + estimate.checks))
    };
    assert_eq!(price(&planned), (2, 1));
    cloud.deployed(&project);
    let mut sent: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    sent.sort();
    assert_eq!(sent, ["GET scripts", "PUT scripts/t-a", "PUT scripts/t-b"]);
    // A new one is looked at by itself, beside the list at the start.
    project.write("customers/c.yaml", "id: c\nworkersDev: false\n");
    assert_eq!(price(&cloud.engine(&project).plan()), (1, 2));
    cloud.deployed(&project);
    let sent: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    assert_eq!(sent, ["GET scripts", "GET scripts/t-c/settings", "PUT scripts/t-c"]);
}

#[test]
fn without_the_list_each_worker_is_looked_at_by_itself() {
    let (cloud, project) = two();
    cloud.foreign("scripts/t-a", &[OTHERS]);
    change(&project);
    cloud.faults(&json!([{"match": {"method": "GET", "path": "/workers/scripts"}, "times": 1,
        "do": {"error": {"status": 400, "code": 10004, "message": "tags?"}}}]));
    let ended = cloud.engine(&project).deploy().exits(Exit::SomeFailed);
    assert!(error(&ended.heard, "t-a").contains("belongs to the fleet else"));
    assert_eq!(ended.outcome().applied, 1);
}

#[test]
fn a_rollback_of_another_fleets_worker_is_refused() {
    let (cloud, project) = two();
    change(&project);
    cloud.deployed(&project);
    cloud.foreign("scripts/t-a", &[OTHERS]);
    let theirs = cloud.scripts()["t-a"].clone();
    let back =
        |customer: &str| Target::Customers { customers: vec![customer.to_owned()], record: None, environment: None };
    let (result, heard) = cloud.engine(&project).rollback(back("a"));
    assert_eq!(result.expect("it runs").failed, 1);
    assert!(error(&heard, "t-a").starts_with("not changed: t-a belongs to the fleet else"));
    assert_eq!(cloud.scripts()["t-a"], theirs);
    assert_eq!(cloud.engine(&project).rollback(back("b")).0.expect("it runs").applied, 1);
}

#[test]
fn a_deletion_of_what_is_not_the_fleets_is_refused() {
    let (cloud, project) = two();
    cloud.foreign("scripts/t-a", &[OTHERS]);
    // Somebody else created it anew, by hand.
    cloud.http("DELETE", &format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/t-b"), &Value::Null);
    cloud.foreign("scripts/t-b", &[]);
    let before = cloud.scripts();
    for customer in ["a", "b"] {
        std::fs::remove_file(project.path(&format!("customers/{customer}.yaml"))).expect("a customer");
    }
    project.write("customers/c.yaml", "id: c\nworkersDev: false\n");
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::SomeFailed);
    assert!(error(&ended.heard, "t-a").starts_with("not deleted: t-a belongs to the fleet else now"));
    assert!(error(&ended.heard, "t-b").starts_with("not deleted: t-b no longer carries a tag of this fleet"));
    let after = cloud.scripts();
    assert!(before.iter().all(|(name, script)| after.get(name) == Some(script)), "{after:?}");
}

#[test]
fn a_worker_that_somebody_creates_after_the_list_is_not_overwritten() {
    let first = "workersDev: false\nlabels: { tier: first }\n";
    let (cloud, project) = (Cloud::start(), fleet(&[("a", first), ("b", "workersDev: false\n")]));
    let fleet = project.read("fleet.yaml");
    let waves = "waves: [{ name: first, labels: { tier: first } }], health: { enabled: false }";
    project.write("fleet.yaml", format!("{fleet}deploy: {{ {waves} }}\n"));
    cloud.faults(&json!([{"match": {"method": "PUT", "path": "scripts/t-a"}, "do": {"delay_ms": 1500}}]));
    let ended = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| cloud.engine(&project).deploy());
        until("the list was read, and the first wave is on its way", || {
            cloud.requests().iter().any(|request| request.what == "GET scripts/t-a/settings")
        });
        std::thread::sleep(Duration::from_millis(300));
        cloud.foreign("scripts/t-b", &[]);
        deploy.join().expect("it ends")
    });
    assert_eq!(
        error(&ended.heard, "t-b"),
        "not created: t-b exists, but this fleet doesn't manage it; `deploy --adopt t-b` adopts it"
    );
    assert_eq!(cloud.scripts()["t-b"].1, [""; 0]);
}

#[test]
fn domains_and_routes_that_point_elsewhere_by_now_stay() {
    let hosts = "domains: [a.example.com]\nroutes: [{ pattern: 'a.example.org/*', zone: example.org }]\n";
    let (cloud, project) = (Cloud::start(), fleet(&[("a", hosts)]));
    cloud.deployed(&project);
    // Another fleet takes both.
    cloud.foreign("scripts/theirs", &[OTHERS]);
    let account = format!("/client/v4/accounts/{ACCOUNT}/workers");
    let taken = cloud.http(
        "PUT",
        &format!("{account}/domains"),
        &json!({"hostname": "a.example.com", "service": "theirs", "override_existing_origin": true}),
    );
    assert_eq!(taken["success"], true, "{taken}");
    let zone = cloud.http("GET", "/client/v4/zones?name=example.org", &Value::Null)["result"][0]["id"].clone();
    let routes = format!("/client/v4/zones/{}/workers/routes", zone.as_str().expect("a zone"));
    let id = cloud.http("GET", &routes, &Value::Null)["result"][0]["id"].clone();
    let route = json!({"pattern": "a.example.org/*", "script": "theirs"});
    let moved = cloud.http("PUT", &format!("{routes}/{}", id.as_str().expect("an id")), &route);
    assert_eq!(moved["success"], true, "{moved}");
    cloud.take();
    project.write("customers/a.yaml", "id: a\n");
    cloud.deployed(&project);
    assert!(!cloud.take().iter().any(|request| request.what.starts_with("DELETE")));
    assert_eq!(cloud.http("GET", &format!("{account}/domains"), &Value::Null)["result"][0]["service"], "theirs");
    assert_eq!(cloud.http("GET", &routes, &Value::Null)["result"][0]["script"], "theirs");
    cloud.is_up_to_date(&project);
}

#[test]
fn a_domain_is_taken_from_the_worker_that_was_named_alone() {
    let (cloud, project) = (Cloud::start(), fleet(&[("a", "domains: [{ name: x.example.com, takeOver: true }]\n")]));
    let account = format!("/client/v4/accounts/{ACCOUNT}/workers");
    let attach = |worker: &str| {
        let body = json!({"hostname": "x.example.com", "service": worker, "override_existing_origin": true});
        assert_eq!(cloud.http("PUT", &format!("{account}/domains"), &body)["success"], true);
    };
    cloud.foreign("scripts/one", &[OTHERS]);
    cloud.foreign("scripts/other", &[OTHERS]);
    attach("one");
    cloud.faults(&json!([{"match": {"method": "PUT", "path": "scripts/t-a"}, "do": {"delay_ms": 1500}}]));
    let ended = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| cloud.engine(&project).deploy());
        until("the lists were read", || {
            cloud.requests().iter().any(|request| request.what == "GET scripts/t-a/settings")
        });
        std::thread::sleep(Duration::from_millis(300));
        attach("other");
        deploy.join().expect("it ends")
    });
    assert_eq!(error(&ended.heard, "t-a"), "x.example.com points to other now, and no longer to one: it is not taken");
    // What is there now is what the next deploy takes.
    cloud.clear_faults();
    cloud.deployed(&project);
    assert_eq!(cloud.http("GET", &format!("{account}/domains"), &Value::Null)["result"][0]["service"], "t-a");
}

/// A fleet in a dispatch namespace.
fn shops() -> (Cloud, Project) {
    let cloud = Cloud::start();
    let namespaces = format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces");
    cloud.http("POST", &namespaces, &json!({"name": "customers"}));
    let project = fleet(&[("a", ""), ("b", "")]);
    copy(&repository().join("templates/dispatch"), &project.path("templates/dispatch"));
    project.write(
        "fleet.yaml",
        format!(
            "name: test\npacks: {{ tiny: {{ path: packs/tiny }}, dispatch: {{ path: templates/dispatch }} }}\naccounts:\n  \
             default: {{ id: {ACCOUNT}, token: {{ secret: CLOUDFLARE_API_TOKEN }}, dispatchNamespace: customers, dispatch: {{ worker: front }} }}\n\
             sharedWorkers: {{ front: {{ pack: dispatch }} }}\ndefaults: {{ pack: tiny }}\n\
             deploy: {{ maxDeletions: {{ count: 10, percent: 100 }} }}\n"
        ),
    );
    assert_eq!(cloud.deployed(&project).applied, 3);
    cloud.take();
    std::fs::remove_file(project.path("customers/a.yaml")).expect("a customer");
    (cloud, project)
}

#[test]
fn a_namespace_deletes_what_carries_the_workers_own_tag_and_nothing_else() {
    let (cloud, project) = shops();
    cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Done);
    let deletions: Vec<Value> = cloud
        .take()
        .into_iter()
        .filter(|request| request.what.starts_with("DELETE"))
        .map(|request| request.entry)
        .collect();
    let [deletion] = &deletions[..] else { panic!("{deletions:?}") };
    assert!(deletion["path"].as_str().is_some_and(|path| path.ends_with("/customers/scripts")), "{deletion}");
    cloud.is_up_to_date(&project);
}

#[test]
fn a_namespaces_worker_that_changes_hands_before_its_deletion_stays() {
    let (cloud, project) = shops();
    cloud.faults(&json!([{"match": {"method": "DELETE", "path": "/scripts"}, "do": {"delay_ms": 1500}}]));
    let ended = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| cloud.engine(&project).deploy_with(|request| request.plan.prune = true));
        until("its tags were read", || {
            cloud.requests().iter().any(|request| request.what.ends_with("scripts/t-a/tags"))
        });
        std::thread::sleep(Duration::from_millis(500));
        cloud.foreign("dispatch/namespaces/customers/scripts/t-a", &[OTHERS]);
        deploy.join().expect("it ends")
    });
    assert!(error(&ended.heard, "t-a").starts_with("not deleted: t-a belongs to the fleet else now"));
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces/customers/scripts/t-a/tags");
    assert_eq!(cloud.http("GET", &path, &Value::Null)["result"], json!([OTHERS]));
}

#[test]
fn a_deletion_by_tag_whose_answer_is_lost_is_found_out() {
    let (cloud, project) = shops();
    cloud.faults(&json!([{"match": {"method": "DELETE", "path": "/scripts"}, "do": {"reset": "after"}}]));
    cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Done);
    cloud.is_up_to_date(&project);
}

#[test]
fn a_worker_that_was_deleted_by_hand_is_told_as_one() {
    for (before, after) in [
        ("crons: ['0 3 * * *']\nworkersDev: false\n", "crons: ['0 4 * * *']\nworkersDev: false\n"),
        ("workersDev: false\n", "workersDev: true\n"),
        ("workersDev: false\n", "workersDev: false\ndomains: [a.example.com]\n"),
        ("workersDev: false\n", "workersDev: false\nroutes: [{ pattern: 'a.example.org/*', zone: example.org }]\n"),
    ] {
        let (cloud, project) = (Cloud::start(), fleet(&[("a", before)]));
        cloud.deployed(&project);
        cloud.http("DELETE", &format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/t-a"), &Value::Null);
        project.write("customers/a.yaml", format!("id: a\n{after}"));
        let ended = cloud.engine(&project).deploy().exits(Exit::SomeFailed);
        let error = error(&ended.heard, "t-a");
        assert!(error.contains("t-a was deleted outside flotilla") && error.contains("--refresh"), "{error}");
        let ended = cloud.engine(&project).deploy_with(|request| request.plan.refresh = true);
        assert_eq!(ended.exits(Exit::Done).outcome().applied, 1);
        cloud.is_up_to_date(&project);
    }
}

#[test]
fn durable_objects_are_destroyed_only_where_the_plan_says_so() {
    let (cloud, project) = two();
    let scripts = cloud.scripts();
    std::fs::remove_file(project.path("customers/a.yaml")).expect("a customer");
    // Somebody gave it classes of its own: the state knows nothing of them, the platform's answers do.
    let (etag, tags) = &scripts["t-a"];
    let bindings =
        json!([{"type": "durable_object_namespace", "name": "O", "class_name": "Counter", "namespace_id": ACCOUNT}]);
    let row =
        json!({"id": "t-a", "etag": etag, "tags": tags, "migration_tag": "v1", "modified_on": "2026-11-29T10:00:00Z"});
    cloud.faults(&json!([
        {"match": {"method": "GET", "path": "t-a/settings"}, "times": 0,
         "do": {"set": {"result": {"tags": tags, "bindings": bindings}}}},
    ]));
    let unseen = cloud.engine(&project).plan_with(|request| request.prune = true).plan;
    assert!(!unseen.changes[0].destroys_objects, "{:?}", unseen.changes);
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::SomeFailed);
    assert!(
        error(&ended.heard, "t-a").starts_with("not deleted: t-a has Durable Objects, whose data would be destroyed")
    );
    assert!(cloud.scripts().contains_key("t-a"));
    let other =
        json!({"id": "t-b", "etag": scripts["t-b"].0, "tags": scripts["t-b"].1, "modified_on": "2026-11-29T10:00:00Z"});
    cloud.faults(&json!([
        {"match": {"method": "GET", "path": "/workers/scripts"}, "times": 2, "do": {"set": {"result": [row, other]}}},
    ]));
    let pruned = |request: &mut flotilla_engine::planning::PlanRequest| {
        request.prune = true;
        request.refresh = true;
    };
    let planned = cloud.engine(&project).plan_with(pruned).plan;
    assert!(planned.changes[0].destroys_objects && planned.digest != unseen.digest, "{:?}", planned.changes);
    assert!(planned.changes[0].reasons.iter().any(|reason| reason.to_string().contains("Durable Objects")));
    cloud.engine(&project).deploy_with(|request| pruned(&mut request.plan)).exits(Exit::Done);
    assert!(!cloud.scripts().contains_key("t-a"));
}

/// A fleet of this name whose customers are in a dispatch namespace that several fleets share.
fn dispatched(name: &str, customer: &str, spec: &str) -> Project {
    let project = fleet(&[(customer, spec)]);
    project.write(
        "fleet.yaml",
        format!(
            "name: {name}\npacks: {{ tiny: {{ path: packs/tiny }} }}\n\
             accounts: {{ default: {{ id: {{ env: CLOUDFLARE_ACCOUNT_ID }}, token: {{ secret: CLOUDFLARE_API_TOKEN }}, \
             dispatchNamespace: shops, dispatch: {{ worker: {name}-front }} }} }}\n\
             sharedWorkers: {{ {name}-front: {{ pack: tiny, workerName: {name}-front }} }}\ndefaults: {{ pack: tiny }}\n"
        ),
    );
    project
}

/// What the hosts of the namespace point to.
fn hosts_in_kv(cloud: &Cloud) -> Vec<(String, String)> {
    let base = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces");
    let tables = cloud.http("GET", &base, &Value::Null);
    let id = tables["result"][0]["id"].as_str().expect("a table").to_owned();
    let keys = cloud.http("GET", &format!("{base}/{id}/keys"), &Value::Null);
    let names = keys["result"].as_array().expect("a list").iter().map(|key| key["name"].as_str().expect("a name"));
    names.map(|name| (name.to_owned(), cloud.text(&format!("{base}/{id}/values/{name}")))).collect()
}

#[test]
fn a_host_in_kv_that_points_to_another_fleets_worker_is_neither_overwritten_nor_removed() {
    let cloud = Cloud::start();
    cloud.http(
        "POST",
        &format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces"),
        &json!({"name": "shops"}),
    );
    let theirs = dispatched("else", "bob", "domains: [shop.example.com]\n");
    cloud.engine(&theirs).deploy().exits(Exit::Done);
    let points_to = |worker: &str| vec![("shop.example.com".to_owned(), worker.to_owned())];
    assert_eq!(hosts_in_kv(&cloud), points_to("t-bob"));
    for more in [
        "",
        ", 0.example.com, 1.example.com, 2.example.com, 3.example.com, 4.example.com, 5.example.com, 6.example.com, \
                 7.example.com, 8.example.com, 9.example.com",
    ] {
        let ours = dispatched("test", "acme", &format!("domains: [shop.example.com{more}]\n"));
        cloud.take();
        let failure = cloud.engine(&ours).deploy().failure(Exit::Refused);
        let hint = &failure.hints[0];
        assert!(
            hint.starts_with(
                "shop.example.com, defined for t-acme, points to t-bob in shops-hosts, which belongs to the fleet else"
            ),
            "{hint}"
        );
        assert!(cloud.take().iter().all(|request| request.what.starts_with("GET")), "nothing was changed");
        assert_eq!(hosts_in_kv(&cloud), points_to("t-bob"));
    }
    // It is taken over where the spec says so; then the other fleet leaves it alone.
    let ours = dispatched("test", "acme", "domains: [{ name: shop.example.com, takeOver: true }]\n");
    cloud.engine(&ours).deploy().exits(Exit::Done);
    assert_eq!(hosts_in_kv(&cloud), points_to("t-acme"));
    theirs.write("customers/bob.yaml", "id: bob\n");
    cloud.engine(&theirs).deploy().exits(Exit::Done);
    assert_eq!(hosts_in_kv(&cloud), points_to("t-acme"));
    cloud.engine(&theirs).deploy().exits(Exit::Done).is_up_to_date();
    // Its own hosts it removes.
    ours.write("customers/acme.yaml", "id: acme\n");
    cloud.engine(&ours).deploy().exits(Exit::Done);
    assert_eq!(hosts_in_kv(&cloud), []);
}

#[test]
fn a_host_in_kv_that_another_fleet_takes_while_the_deploy_runs_stays() {
    let (cloud, project) = (Arc::new(Cloud::start()), dispatched("test", "acme", "domains: [old.example.com]\n"));
    cloud.http(
        "POST",
        &format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces"),
        &json!({"name": "shops"}),
    );
    cloud.engine(&project).deploy().exits(Exit::Done);
    let base = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces");
    let id = cloud.http("GET", &base, &Value::Null)["result"][0]["id"].as_str().expect("a table").to_owned();
    // When the deploy begins, the look before it is over: from then on, these hosts are theirs.
    let takes = |hosts: &[&str]| {
        let (cloud, base, id) = (Arc::clone(&cloud), base.clone(), id.clone());
        let pairs: Vec<Value> = hosts.iter().map(|host| json!({"key": host, "value": "t-bob"})).collect();
        let pairs = Mutex::new(Some(pairs));
        move || {
            if let Some(pairs) = pairs.lock().expect("no panic").take() {
                cloud.http("PUT", &format!("{base}/{id}/bulk"), &json!(pairs));
            }
            Control::Continue
        }
    };
    let many: Vec<String> = (0..12).map(|number| format!("{number}.example.com")).collect();
    for (name, hosts) in [("shop.example.com", vec!["shop.example.com".to_owned()]), ("11.example.com", many)] {
        project.write("customers/acme.yaml", format!("id: acme\ndomains: [{}]\n", hosts.join(", ")));
        let ended = cloud.engine(&project).steered(takes(&[name])).deploy();
        let outcome = ended.exits(Exit::SomeFailed).outcome();
        assert_eq!((outcome.failed, outcome.hosts_skipped), (1, 1));
        let error = &outcome.failures[0].error;
        assert!(
            error.starts_with(&format!("{name} now points to t-bob, which is not in this fleet's state")),
            "{error}"
        );
        let all = hosts_in_kv(&cloud);
        let of_both = hosts.iter().map(|host| (host.clone(), if host == name { "t-bob" } else { "t-acme" }.to_owned()));
        assert!(of_both.into_iter().all(|pair| all.contains(&pair)), "{all:?}");
        // The next run sees it before it sends anything, unless nobody knows that worker.
        assert!(!all.iter().any(|(host, _)| host == "old.example.com"), "what was to be removed is removed");
    }
    // More than ten that are known to be ours are removed unread; what was never ours stays.
    project.write("customers/acme.yaml", "id: acme\n");
    cloud.engine(&project).steered(takes(&["0.example.com", "1.example.com"])).deploy().exits(Exit::Done);
    let left: Vec<String> = hosts_in_kv(&cloud).into_iter().map(|(host, _)| host).collect();
    assert!(left.contains(&"shop.example.com".to_owned()) && left.contains(&"11.example.com".to_owned()), "{left:?}");
}
