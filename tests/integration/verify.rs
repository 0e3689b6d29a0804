//! Shows: `verify` tells whether deployed workers are there and do what their packs promise, against real workerd; and what is
//! wrong with those that don't.

use std::time::Duration;

use quick_xml::events::Event;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Project, finish, spawn};
use crate::tools::{Local, local_account};

const FLEET: &str = "name: test
packs: { consent: { path: templates/consent } }
sharedWorkers: { auth: { pack: consent } }
";

/// A customer whose one worker calls the other by its address, and a shared one by a service binding.
const ACME: &str = "id: acme
workers:
  web: { services: { AUTH: auth }, vars: { API_URL: { workerUrl: api } } }
  api: { domains: [api.acme.example] }
";

fn project() -> Project {
    let project = Project::empty();
    project.write("fleet.yaml", FLEET).write("customers/acme.yaml", ACME).write("customers/solo.yaml", "id: solo\n");
    project
}

/// What `verify --local` gives: the exit code, and the object.
fn verify(project: &Project, more: &[&str], code: i32) -> Value {
    let run = project.run(&[&["verify", "--local", "--deadline", "0", "--format", "json"], more].concat());
    run.exits(code).json()
}

/// Each check of a worker as `name status message`.
fn checks(results: &Value, worker: &str) -> Vec<String> {
    let all = results["workers"].as_array().expect("workers");
    let found = all.iter().find(|report| report["worker"] == worker).unwrap_or_else(|| panic!("{worker}: {results}"));
    let text = |check: &Value, key: &str| check[key].as_str().expect("text").to_owned();
    let line = |check: &Value| {
        format!("{} {} {}", text(check, "name"), text(check, "status"), text(check, "message")).trim_end().to_owned()
    };
    found["checks"].as_array().expect("checks").iter().map(line).collect()
}

/// Puts other code in the place of a worker.
fn replace(local: &Local, worker: &str, answer: &Value, status: u16) {
    let metadata = json!({"main_module": "other.js", "compatibility_date": "2026-06-01"});
    let code = format!("export default {{ fetch: () => Response.json({answer}, {{ status: {status} }}) }};");
    local.upload(&format!("/accounts/{}/workers/scripts/{worker}", local_account()), &metadata, "other.js", &code);
}

#[test]
fn workers_that_are_well_and_those_that_are_not() {
    let project = project();
    let nothing = verify(&project, &[], 0);
    assert_eq!((&nothing["passed"], &nothing["skipped"]), (&json!(0), &json!(4)), "{nothing}");
    assert_eq!(
        checks(&nothing, "c15t-solo"),
        ["health skipped not deployed", "scripts skipped not deployed", "scripts skipped not deployed"]
    );
    let local = Local::start(&project, None);
    let deployed = project.run(&["deploy", "--local", "--verify", "--format", "json"]).exits(0).json();
    assert_eq!(deployed["applied"], 4, "{deployed}");
    let verified = &deployed["verified"];
    assert_eq!((&verified["passed"], &verified["failed"]), (&json!(4), &json!(0)), "{verified}");
    let well = ["health passed", "scripts passed", "scripts passed"];
    assert_eq!(checks(verified, "c15t-solo"), well);
    assert_eq!(checks(verified, "c15t-acme-web"), [&well[..], &["peers passed"]].concat());
    let apart = "skipped the local emulator has no DNS and no TLS";
    let dns = [format!("dns {apart}"), format!("tls {apart}")];
    assert_eq!(checks(verified, "c15t-acme-api")[..2], dns);
    // A deploy asks those that it changed, and nobody else.
    project.write("customers/solo.yaml", "id: solo\nlogLevel: debug\n");
    let again = project.run(&["deploy", "--local", "--verify", "--format", "json"]).exits(0).json();
    assert_eq!(again["verified"]["workers"].as_array().map(Vec::len), Some(1), "{again}");

    // One that runs something else, one that isn't well, one that is gone; and its peer says so.
    let other = json!({"status": "healthy", "worker": "c15t-solo", "environment": "production", "digest": "0".repeat(64), "scripts": 1});
    replace(&local, "c15t-solo", &other, 200);
    replace(
        &local,
        "test-auth",
        &json!({"status": "degraded", "checks": {"secrets": {"ok": false, "missing": ["KEY"]}}}),
        503,
    );
    let gone = format!("/accounts/{}/workers/scripts/c15t-acme-api?force=true", local_account());
    local.call(Method::DELETE, &gone, None);
    // What it heard of its peers it keeps for two seconds.
    std::thread::sleep(Duration::from_millis(2100));
    let junit = project.path("verify.xml");
    let results = verify(&project, &["--junit", junit.to_str().expect("a path")], 4);
    assert_eq!((&results["passed"], &results["failed"]), (&json!(0), &json!(4)), "{results}");
    let solo = checks(&results, "c15t-solo");
    assert!(solo[0].starts_with("health failed digest is 0000000000000000, not "), "{solo:?}");
    assert_eq!(solo[1..], ["scripts failed metadata is not a map", "scripts failed HTTP 200 instead of 400, healthy"]);
    assert_eq!(
        checks(&results, "test-auth")[0],
        "health failed HTTP 503 instead of 200, degraded: secrets (missing: KEY)"
    );
    assert_eq!(checks(&results, "c15t-acme-api")[2], "health failed HTTP 404 instead of 200");
    let web = checks(&results, "c15t-acme-web");
    assert_eq!(web[..3], well, "it is well itself");
    assert!(web[3].starts_with("peers failed ") && web[3].contains("AUTH: HTTP 503, degraded"), "{web:?}");
    assert!(web[3].contains("API_URL: "), "{web:?}");
    let text = project.run(&["verify", "--local", "--deadline", "0", "acme"]).exits(4).stdout;
    assert!(
        text.contains("c15t-acme-web, peers of /health?peers: ") && text.contains("0 workers passed, 2 failed"),
        "{text}"
    );

    // What CI shows is XML, with as many failures.
    let xml = std::fs::read_to_string(junit).expect("the file");
    let mut reader = quick_xml::Reader::from_str(&xml);
    let (mut failures, mut cases) = (0, 0);
    loop {
        match reader.read_event().expect("XML") {
            Event::Start(start) if start.name().as_ref() == "failure" => failures += 1,
            Event::Start(start) if start.name().as_ref() == "testcase" => cases += 1,
            Event::Eof => break,
            _ => {}
        }
    }
    let all = results["workers"]
        .as_array()
        .expect("workers")
        .iter()
        .flat_map(|report| report["checks"].as_array().expect("checks"));
    let failed = all.clone().filter(|check| check["status"] == "failed").count();
    assert_eq!((failures, cases), (failed, all.count()), "{xml}");

    // Who is asked again is well in the end.
    let mut command = project.command(&["verify", "--local", "--deadline", "120", "solo", "--format", "json"]);
    let waiting = spawn(&mut command);
    std::thread::sleep(Duration::from_secs(2));
    // One of them was deleted above by other means: the first run says so, and the second one brings back all that it had.
    project.run(&["deploy", "--local", "--all", "--reason", "repair", "--format", "json"]).exits(4);
    project.run(&["deploy", "--local", "--all", "--reason", "repair", "--format", "json"]).exits(0);
    let fixed = finish(waiting).exits(0).json();
    assert_eq!(checks(&fixed, "c15t-solo"), well);
}

#[test]
fn an_option_about_asking_needs_the_asking() {
    let project = project();
    let told = project.run(&["deploy", "--local", "--junit", "x.xml"]).exits(2).stderr;
    assert!(told.contains("--junit needs --verify"), "{told}");
    project.write("customers/bad.yaml", "id: bad\nnam: x\n");
    let told = project.run(&["verify", "--local", "--deadline", "0"]).exits(1);
    assert!(told.stderr.contains("S0201") && told.stdout.contains("4 skipped"), "{told:?}");
}
