//! Shows: workers in a dispatch namespace behind their dispatch worker, and databases by name, deployed to the local Cloudflare and
//! served by real workerd.

use flotilla_deploy::deploy::Outcome;
use flotilla_model::failure::Exit;
use reqwest::Method;
use serde_json::json;

use crate::cases::{cache, tiny};
use crate::engine::{Ended, Engine};
use crate::support::{Project, copy, repository};
use crate::tools::{Local, json, local_account};

const FLEET: &str = "name: test
packs: { tiny: { path: templates/tiny }, dispatch: { path: templates/dispatch } }
accounts:
  default:
    id: { env: CLOUDFLARE_ACCOUNT_ID }
    token: { secret: CLOUDFLARE_API_TOKEN }
    dispatchNamespace: shops
    dispatch: { worker: front }
sharedWorkers:
  front: { pack: dispatch, routes: [{ pattern: \"*.example.com/*\", zone: example.com }] }
defaults: { pack: tiny }
deploy: { maxDeletions: { count: 10, percent: 100 } }
";

/// The bundle of customers' workers that respond with their name and the request, or throw.
const ECHO: &str = "export const answer = (name) => ({
  async fetch(request) {
    const error = request.headers.get(\"x-throw\");
    if (error !== null) throw new Error(error);
    return Response.json({ name, method: request.method, headers: Object.fromEntries(request.headers), body: await request.text() });
  },
});
";

/// A fleet in a dispatch namespace; each customer has its hosts.
fn fleet(customers: &[(&str, &str)]) -> Project {
    let project = tiny();
    copy(&repository().join("templates/dispatch"), &project.path("templates/dispatch"));
    project.write("fleet.yaml", FLEET);
    for (customer, hosts) in customers {
        has(&project, customer, hosts);
    }
    project
}

fn has(project: &Project, customer: &str, hosts: &str) {
    project.write(&format!("customers/{customer}.yaml"), format!("id: {customer}\ndomains: [{hosts}]\n"));
}

/// Deploys to the project's local emulator, which has to succeed.
#[track_caller]
fn deploy(project: &Project) -> Outcome {
    deployed(project, false).exits(Exit::Done).outcome()
}

/// The same, and deletes what no spec owns.
#[track_caller]
fn deploy_and_prune(project: &Project) -> Outcome {
    deployed(project, true).exits(Exit::Done).outcome()
}

fn deployed(project: &Project, prune: bool) -> Ended {
    Engine::local(project).deploy_with(|request| {
        request.plan.cloud.local = true;
        request.plan.prune = prune;
    })
}

/// Who answers for a host: the worker's name, or the status and the error.
fn who(local: &Local, host: &str) -> String {
    let answer = local.request(Method::GET, host, "/").send().expect("an answer");
    let status = answer.status().as_u16();
    let body = json(answer);
    match body["name"].as_str() {
        Some(name) => name.to_owned(),
        None => format!("{status} {}", body["error"].as_str().unwrap_or_default()),
    }
}

/// The requests since the last time that one was sent to this part of the API.
fn bulk(local: &Local) -> usize {
    local.journal().iter().filter(|line| line.contains("/bulk")).count()
}

/// The hosts as KV has them.
fn keys(local: &Local) -> Vec<(String, String)> {
    let account = format!("/accounts/{}/storage/kv/namespaces", local_account());
    let table = local.api(&account)[0].clone();
    assert_eq!(table["title"], "shops-hosts");
    let id = table["id"].as_str().unwrap();
    let keys = local.api(&format!("{account}/{id}/keys"));
    let names = keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned());
    names
        .map(|name| {
            let path = format!("/client/v4{account}/{id}/values/{name}");
            let value = local.request(Method::GET, "127.0.0.1", &path).bearer_auth(&local.token).send().unwrap();
            (name, value.text().unwrap())
        })
        .collect()
}

#[test]
fn requests_reach_the_worker_of_their_host() {
    let project = fleet(&[
        ("acme", "acme.example.com, www.acme.example.com"),
        ("bluebird", "bluebird.example.com"),
        ("cafe", "cafe.example.com"),
    ]);
    project.write("templates/tiny/runtime.js", ECHO);
    let local = Local::start(&project, None);
    let planned = project.run_with(&["plan", "--local", "--format", "json"], &[cache()]).exits(0).json();
    let first = deploy(&project);
    assert_eq!((first.applied, first.failed, first.hosts), (4, 0, 4), "{first:?}");
    assert_eq!(bulk(&local), 1, "{:?}", local.journal());
    // The ids of names are looked up once, which is planned: the KV namespace is looked for, and created.
    assert_eq!(first.requests, planned["requests"].as_u64().unwrap());
    assert_eq!(planned["hosts"].as_array().unwrap().len(), 4);
    assert_eq!(
        planned["hosts"][0],
        json!({"account": "default", "table": "shops-hosts", "host": "acme.example.com", "from": null, "to": "tiny-acme", "wave": 0})
    );

    for (host, worker) in [
        ("acme.example.com", "tiny-acme"),
        ("WWW.acme.example.com", "tiny-acme"),
        ("bluebird.example.com", "tiny-bluebird"),
        ("cafe.example.com:443", "tiny-cafe"),
        ("nobody.example.com", "404 unknown_host"),
    ] {
        assert_eq!(who(&local, host), worker, "{host}");
    }
    // A visitor doesn't choose a version, and the rest of the request arrives.
    let chosen = local
        .request(Method::POST, "acme.example.com", "/")
        .header("Cloudflare-Workers-Version-Overrides", "tiny-acme=\"dc8dcd28-271b-4367-9840-6c244f84cb40\"")
        .header("Cloudflare-Workers-Version-Key", "visitor")
        .header("X-Own", "1");
    let echo = json(chosen.body("a body").send().unwrap());
    assert_eq!(
        (&echo["method"], &echo["body"], &echo["headers"]["x-own"]),
        (&json!("POST"), &json!("a body"), &json!("1"))
    );
    let headers = echo["headers"].as_object().unwrap();
    assert!(!headers.keys().any(|name| name.contains("version")), "{headers:?}");

    // A worker that throws.
    let threw =
        local.request(Method::GET, "acme.example.com", "/").header("X-Throw", "an inner detail").send().unwrap();
    assert_eq!((threw.status().as_u16(), &json(threw)["error"]), (502, &json!("worker_failed")));

    let health = json(local.request(Method::GET, "acme.example.com", "/.well-known/dispatch/health").send().unwrap());
    assert_eq!((&health["status"], &health["worker"]), (&json!("healthy"), &json!("test-front")));
    let status = project.run_with(&["status", "--local", "--health"], &[cache()]);
    assert!(status.stdout.contains("test-front"), "{status:?}");

    // Nothing changed: nothing is sent.
    assert_eq!(deploy(&project).requests, 0);

    // A host moves, one goes, one comes: two requests, and no upload.
    has(&project, "acme", "www.acme.example.com");
    has(&project, "bluebird", "bluebird.example.com, acme.example.com, new.example.com");
    has(&project, "cafe", "");
    let text = project.run_with(&["plan", "--local"], &[cache()]).exits(0).stdout;
    assert!(text.contains("acme.example.com  tiny-acme → tiny-bluebird  (shops-hosts)"), "{text}");
    assert!(text.contains("new.example.com  → tiny-bluebird"), "{text}");
    assert!(text.contains("cafe.example.com  tiny-cafe →"), "{text}");
    assert!(text.contains("4 unchanged, 3 hosts · 2 requests"), "{text}");
    assert_eq!(project.run_with(&["plan", "--local", "--exit-code"], &[cache()]).code, 3);
    let second = deploy(&project);
    assert_eq!((second.applied, second.requests, second.hosts), (0, 2, 3));
    let leads = |host: &str, worker: &str| (host.to_owned(), worker.to_owned());
    assert_eq!(
        keys(&local),
        [
            leads("acme.example.com", "tiny-bluebird"),
            leads("bluebird.example.com", "tiny-bluebird"),
            leads("new.example.com", "tiny-bluebird"),
            leads("www.acme.example.com", "tiny-acme"),
        ]
    );
    assert_eq!(who(&local, "new.example.com"), "tiny-bluebird");

    // A customer goes: first its hosts, then its worker; who has them now, keeps them.
    std::fs::remove_file(project.path("customers/bluebird.yaml")).unwrap();
    has(&project, "cafe", "new.example.com");
    let third = deploy_and_prune(&project);
    assert_eq!((third.applied, third.hosts, third.failed), (1, 3, 0), "{third:?}");
    assert_eq!(keys(&local), [leads("new.example.com", "tiny-cafe"), leads("www.acme.example.com", "tiny-acme")]);
    // The dispatch worker knows the old lead for some seconds; that its worker is gone has it ask again.
    assert_eq!(who(&local, "new.example.com"), "tiny-cafe");
    assert_eq!(who(&local, "bluebird.example.com"), "404 unknown_host");
}

#[test]
fn an_account_moves_to_a_namespace() {
    let project = fleet(&[("acme", "acme.example.com"), ("bluebird", "bluebird.example.com")]);
    let (accounts, _) = FLEET.split_once("    dispatchNamespace").unwrap();
    project.write("fleet.yaml", format!("{accounts}defaults: {{ pack: tiny }}\n"));
    let local = Local::start(&project, None);
    let script = |path: &str| format!("/accounts/{}/workers/{path}", local_account());
    assert_eq!(deploy(&project).applied, 2);
    assert_eq!(who(&local, "acme.example.com"), "tiny-acme");
    assert_eq!(local.api(&script("domains")).as_array().unwrap().len(), 2);
    // The same customers, behind a dispatch worker: its route comes before the domains.
    project.write("fleet.yaml", FLEET);
    let moved = deploy(&project);
    assert_eq!((moved.applied, moved.hosts), (3, 2), "{moved:?}");
    assert_eq!(who(&local, "acme.example.com"), "tiny-acme");
    assert_eq!(who(&local, "nobody.example.com"), "404 unknown_host");
    assert_eq!(local.api(&script("scripts")).as_array().unwrap().len(), 3);
    let pruned = deploy_and_prune(&project);
    assert_eq!((pruned.applied, pruned.failed), (2, 0), "{pruned:?}");
    assert_eq!(local.api(&script("domains")), json!([]));
    let left = local.api(&script("scripts"));
    assert_eq!((left.as_array().unwrap().len(), &left[0]["id"]), (1, &json!("test-front")));
    assert_eq!(who(&local, "bluebird.example.com"), "tiny-bluebird");
}

#[test]
fn hosts_whose_outcome_is_unknown_are_written_again() {
    let project = fleet(&[("acme", "acme.example.com"), ("bluebird", "bluebird.example.com")]);
    let local = Local::start(&project, None);
    // The answer to each write is lost, though it was done.
    let fault = json!([{"match": {"method": "PUT", "path": "/bulk"}, "times": 0, "do": {"reset": "after"}}]);
    let told = local.control("faults", Some(fault));
    assert!(told.is_array(), "{told}");
    let first = deployed(&project, false).exits(Exit::SomeFailed).outcome();
    assert_eq!((first.applied, first.hosts, first.hosts_skipped), (3, 0, 2), "{first:?}");
    assert_eq!(first.failures[0].worker, "the hosts in shops-hosts");
    local.control("faults", None);
    let second = deploy(&project);
    assert_eq!((second.requests, second.hosts), (1, 2), "{second:?}");
    assert_eq!(who(&local, "acme.example.com"), "tiny-acme");
    assert_eq!(deploy(&project).requests, 0);
}

#[test]
fn a_database_is_made_by_its_name_bound_and_kept() {
    let project = Project::empty();
    let database = |name: &str| format!("database: {{ type: d1, name: {name}, jurisdiction: eu }}");
    project.write("customers/acme.yaml", format!("id: acme\n{}\n", database("of-acme")));
    project.write("customers/bluebird.yaml", format!("id: bluebird\n{}\n", database("of-bluebird")));
    let local = Local::start(&project, None);
    let databases = || local.api(&format!("/accounts/{}/d1/database", local_account()));
    let create = format!("/accounts/{}/d1/database", local_account());
    let old = local.call(Method::POST, &create, Some(json!({"name": "of-bluebird"})))["uuid"].clone();
    let before = local.journal().len();
    let outcome = deploy(&project);
    assert_eq!((outcome.applied, outcome.failed), (2, 0), "{outcome:?}");
    let made: Vec<String> = local.journal()[before..].iter().filter(|line| line.contains("/d1/")).cloned().collect();
    assert_eq!(made.len(), 2, "one list, and one is made: {made:?}");
    let all = databases();
    let of_acme = all.as_array().unwrap().iter().find(|row| row["name"] == "of-acme").unwrap().clone();
    assert_eq!((all.as_array().unwrap().len(), &of_acme["jurisdiction"]), (2, &json!("eu")));
    for (worker, id) in [("c15t-acme", &of_acme["uuid"]), ("c15t-bluebird", &old)] {
        let settings = local.api(&format!("/accounts/{}/workers/scripts/{worker}/settings", local_account()));
        let bindings = settings["bindings"].as_array().unwrap();
        let bound = bindings.iter().find(|binding| binding["name"] == "DB").unwrap();
        assert_eq!(&bound["database_id"], id, "{worker}");
        assert!(bound.get("database_name").is_none());
        assert_eq!(json(local.get(worker, "/health"))["status"], "healthy", "{worker}: its database answers");
    }
    assert_eq!(deploy(&project).requests, 0);
    // A change costs its upload alone, and a customer who goes leaves its database behind.
    project.edit("customers/acme.yaml", "id: acme", "id: acme\nlogLevel: debug");
    std::fs::remove_file(project.path("customers/bluebird.yaml")).unwrap();
    assert_eq!(deploy_and_prune(&project).requests, 2);
    assert_eq!(databases().as_array().unwrap().len(), 2);
}
