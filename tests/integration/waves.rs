//! Shows: waves end to end with the real workerd, orders to a deploy that runs, and a deploy that goes ahead of another one.

use std::process::Child;

use flotilla_deploy::plan::Action;
use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::fleet::{Cloud, cache, fleet, until, uploads};
use crate::support::{self, Project, finish};

/// A fleet whose workers say how they are: as their variable MOOD does.
fn moody(count: usize) -> Project {
    let project = fleet(&[]);
    let build = project.read("packs/tiny/build.mjs").replace(
        "fetch: () => new Response(\\\"tiny\\\")",
        "fetch: (_, env) => Response.json({ status: env.MOOD ?? \\\"healthy\\\", digest: env.FLOTILLA_DIGEST })",
    );
    let build = build.replace(
        "fetch: () => new Response(\"tiny\")",
        "fetch: (_, env) => Response.json({ status: env.MOOD ?? \"healthy\", digest: env.FLOTILLA_DIGEST })",
    );
    assert!(build.contains("FLOTILLA_DIGEST"), "{build}");
    let pack = project.read("packs/tiny/pack.yaml");
    let health = "verify: [{ name: health, path: /health, json: { status: healthy, digest: '{digest}' } }]\n";
    project.write("packs/tiny/build.mjs", build).write("packs/tiny/pack.yaml", format!("{pack}{health}"));
    for at in 0..count {
        let label = if at == 0 { "labels: { tier: canary }\n" } else { "" };
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\n{label}"));
    }
    project
}

const POLICY: &str = "deploy:\n  waves: [{ name: canaries, labels: { tier: canary } }, { count: 2 }]\n  \
                      health: { deadlineSeconds: 2 }\n";

#[test]
fn a_wave_begins_when_the_one_before_is_well_and_goes_back_when_it_is_not() {
    let (cloud, project) = (Cloud::with_workerd(), moody(6));
    let fleet_file = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{fleet_file}{POLICY}  onBreach: rollback\n"));
    let events = project.path("events.jsonl");
    let report = cloud.deploy(&project, &["--events", events.to_str().unwrap()]);
    assert_eq!((&report["applied"], &report["unhealthy"]), (&json!(6), &json!(0)));
    let lines = std::fs::read_to_string(&events).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let waves: Vec<(&Value, &Value)> =
        lines.iter().filter(|line| line["event"] == "wave").map(|line| (&line["name"], &line["changes"])).collect();
    assert_eq!(
        waves,
        [(&json!("canaries"), &json!(1)), (&json!("wave 2"), &json!(2)), (&json!("the rest"), &json!(3))]
    );
    assert_eq!((&lines[0]["event"], &lines[lines.len() - 1]["event"]), (&json!("begun"), &json!("ended")));
    // A default that makes all of them sick: the canary is the only one who notices.
    cloud.take();
    project.write(
        "fleet.yaml",
        format!("{fleet_file}defaults: {{ vars: {{ MOOD: degraded }} }}\n{POLICY}  onBreach: rollback\n"),
    );
    let outcome = cloud.engine(&project).deploy().exits(Exit::SomeFailed).outcome();
    let counted = (outcome.applied, outcome.unhealthy, outcome.skipped, outcome.rolled_back);
    assert_eq!(counted, (1, 1, 5, Some(1)), "{outcome:?}");
    assert!(outcome.halted.as_ref().is_some_and(|halted| halted.contains("canaries")), "{outcome:?}");
    assert!(outcome.failures[0].error.contains("degraded"), "{outcome:?}");
    assert_eq!(uploads(&cloud.take()), [("t-c0".to_owned(), 2)].into(), "there and back");
    let status = cloud.run(&project, &["status", "--health", "--format", "json"]).exits(0).json();
    assert!(status["workers"].as_array().unwrap().iter().all(|row| row["health"] == "healthy"), "{status}");
    // The canary was rolled back: the rest isn't deployed behind its back.
    let plan = cloud.engine(&project).plan().plan;
    assert_eq!(plan.held[0].customer, "c0");
    assert_eq!(plan.changes.iter().filter(|change| change.action == Action::Update).count(), 5);
}

fn spawn(cloud: &Cloud, project: &Project, more: &[&str]) -> Child {
    support::spawn(&mut cloud.command(project, &[&["deploy", "--yes", "--format", "json"], more].concat()))
}

/// Many workers that take one slow request each.
fn slow(cloud: &Cloud, count: usize) -> Project {
    let project = fleet(&[]);
    project.write("fleet.yaml", format!("{}defaults: {{ workersDev: false }}\n", project.read("fleet.yaml")));
    for at in 0..count {
        project.write(&format!("customers/c{at:03}.yaml"), format!("id: c{at:03}\n"));
    }
    cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 0, "do": {"delay_ms": 2000}}]));
    project
}

/// Waits until nothing more is sent; the number of requests.
fn quiet(cloud: &Cloud) -> usize {
    let mut before = 0;
    until("nothing more is sent", || {
        std::thread::sleep(std::time::Duration::from_millis(1000));
        let now = cloud.requests().len();
        std::mem::replace(&mut before, now) == now
    });
    before
}

#[test]
fn a_deploy_pauses_goes_on_and_ends_when_another_process_says_so() {
    let cloud = Cloud::start();
    // More than are in flight twice: those that were sent when it is aborted are waited for.
    let project = slow(&cloud, 300);
    cloud.run(&project, &["control", "pause"]).exits(5);
    let child = spawn(&cloud, &project, &[]);
    until("some are deployed", || uploads(&cloud.requests()).len() >= 10);
    cloud.run(&project, &["control", "pause"]).exits(0);
    let before = quiet(&cloud);
    assert!(before < 200, "{before}");
    cloud.run(&project, &["control", "resume"]).exits(0);
    until("it goes on", || cloud.requests().len() > before);
    cloud.run(&project, &["control", "abort"]).exits(0);
    let run = finish(child).exits(4);
    let report = run.json();
    let (applied, skipped) = (report["applied"].as_u64().unwrap(), report["skipped"].as_u64().unwrap());
    assert_eq!((applied + skipped, &report["failed"]), (300, &json!(0)));
    assert!(skipped > 0 && run.stderr.contains("paused") && run.stderr.contains("resumed"), "{}", run.stderr);
    cloud.clear_faults();
    assert_eq!(cloud.deployed(&project).applied as u64, skipped);
}

#[test]
fn one_customer_goes_ahead_of_a_running_deploy_and_is_not_overwritten_by_it() {
    let cloud = Cloud::start();
    let project = slow(&cloud, 150);
    let bulk = spawn(&cloud, &project, &[]);
    until("some are deployed", || uploads(&cloud.requests()).len() >= 10);
    // It pauses, so that it isn't done before the other one begins; that one doesn't hear of it.
    cloud.run(&project, &["control", "pause"]).exits(0);
    quiet(&cloud);
    cloud.clear_faults();
    // Not among the first ones: they are begun in the order of their names.
    project.write("customers/c140.yaml", "id: c140\nvars: { HOT: fix }\n");
    let refused = cloud.run(&project, &["deploy", "--yes", "c140"]).exits(5);
    assert!(refused.stderr.contains("--ahead"), "{}", refused.stderr);
    cloud.run(&project, &["deploy", "--yes", "--ahead"]).exits(2);
    let ahead = cloud.run(&project, &["deploy", "--yes", "--ahead", "c140", "--format", "json"]).exits(0).json();
    assert_eq!(ahead["applied"], 1);
    let done = uploads(&cloud.requests()).len();
    assert!(done < 150, "it was ahead");
    cloud.run(&project, &["control", "resume"]).exits(0);
    let run = finish(bulk).exits(0);
    let report = run.json();
    assert_eq!((&report["applied"], &report["overtaken"]), (&json!(149), &json!(1)), "{report}");
    assert_eq!(uploads(&cloud.take())["t-c140"], 1, "the older bundle isn't put over it");
    cloud.clear_faults();
    cloud.is_up_to_date(&project);
    let _ = cache();
}
