//! Shows: a plan in all its forms is the same plan; what was reviewed is what is applied, on whatever machine, or it is
//! refused with what differs; a deploy's events and summary tell what it did, and no secret.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fleet::{Cloud, fleet};
use crate::support::{Project, copy};

fn many(count: usize) -> Project {
    let project = fleet(&[]);
    project.write(
        "fleet.yaml",
        format!("{}defaults: {{ workersDev: false, vars: {{ A: one }} }}\n", project.read("fleet.yaml")),
    );
    for at in 0..count {
        project.write(&format!("customers/c{at:02}.yaml"), format!("id: c{at:02}\n"));
    }
    project
}

/// What was changed since the last time that this was asked: what was only looked at is left out.
fn changed(cloud: &Cloud) -> Vec<String> {
    cloud.sent().into_iter().filter(|what| !what.starts_with("GET ")).collect()
}

fn digest(cloud: &Cloud, project: &Project) -> String {
    cloud.engine(project).plan().plan.digest.to_string()
}

#[test]
fn what_many_workers_have_in_common_is_told_once_in_each_form() {
    let (cloud, project) = (Cloud::start(), many(30));
    cloud.deployed(&project);
    project.edit("fleet.yaml", "A: one", "A: two");
    project.write("customers/c07.yaml", "id: c07\nvars: { B: three }\n");
    let text = cloud.run(&project, &["plan"]).exits(0).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0] == "~ update 30 workers  t-c00, t-c01, t-c02, …"
            && lines[1].starts_with("    fleet.yaml:")
            && lines[1].ends_with(" vars.A \"one\" → \"two\""),
        "{text}"
    );
    assert_eq!(lines[2], "    t-c07: customers/c07.yaml:2:12 vars.B nothing → \"three\"");
    let full = cloud.run(&project, &["plan", "--full"]).exits(0).stdout;
    assert_eq!(full.lines().filter(|line| line.starts_with("~ update t-c")).count(), 30, "{full}");
    let plan = cloud.run(&project, &["plan", "--format", "json"]).exits(0).json();
    assert_eq!((&plan["groups"][0]["workers"], &plan["groups"][0]["alike"]), (&json!(30), &json!(true)));
    assert_eq!(plan["waves"], json!([{"name": "the rest", "changes": 30}]));
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(30));
    let page = cloud.run(&project, &["plan", "--format", "markdown"]).exits(0).stdout;
    let first = format!("<!-- flotilla plan {} -->", plan["digest"].as_str().unwrap());
    assert_eq!(page.lines().next(), Some(first.as_str()));
    assert!(page.contains("\n### flotilla plan: 0 to create, 30 to update, 0 to delete\n"), "{page}");
    assert!(
        page.contains("<details><summary>update 30 workers: <code>fleet&#46;yaml")
            || page.contains("<details><summary>update 30 workers: <code>fleet.yaml"),
        "{page}"
    );
    // The same page is appended to a job's summary.
    let summary = project.path("summary.md");
    cloud.run(&project, &["plan", "--summary", summary.to_str().unwrap()]).exits(0);
    assert_eq!(project.read("summary.md").trim(), page.trim());
    // Nothing else writes Markdown.
    for command in ["check", "build", "deploy", "status"] {
        project.run(&[command, "--format", "markdown"]).exits(2);
    }
    cloud.take();
}

#[test]
fn a_plan_has_the_same_digest_on_another_machine() {
    let (cloud, project) = (Cloud::start(), many(5));
    let other = fleet(&[]);
    let take_over = || {
        for what in ["fleet.yaml", "customers", ".flotilla"] {
            if project.path(what).exists() {
                copy(&project.path(what), &other.path(what));
            }
        }
    };
    take_over();
    assert_ne!(project.root(), other.root());
    assert_eq!(digest(&cloud, &project), digest(&cloud, &other));
    cloud.deployed(&project);
    project.edit("fleet.yaml", "A: one", "A: two").write("customers/c01.yaml", "id: c01\ncrons: [\"* * * * *\"]\n");
    take_over();
    let (here, there) = (digest(&cloud, &project), digest(&cloud, &other));
    assert_eq!(here, there);
    // Another account is another plan, whatever else is alike.
    let elsewhere = cloud
        .command(&other, &["plan", "--format", "json"])
        .env("CLOUDFLARE_ACCOUNT_ID", "f".repeat(32))
        .output()
        .expect("a plan");
    assert!(!String::from_utf8_lossy(&elsewhere.stdout).contains(&here));
    // What one wrote, the other one applies.
    let file = project.path("fleet.plan");
    cloud.run(&project, &["plan", "--out", file.to_str().unwrap()]).exits(0);
    cloud.take();
    let report = cloud.run(&other, &["deploy", "--plan", file.to_str().unwrap(), "--format", "json"]).exits(0).json();
    assert_eq!(report["applied"], 5);
}

#[test]
fn a_plan_in_a_file_is_applied_exactly_or_refused_with_what_differs() {
    let (cloud, project) = (Cloud::start(), many(4));
    let apply = || cloud.run(&project, &["deploy", "--plan", "fleet.plan"]);
    let write = |more: &[&str]| cloud.run(&project, &[&["plan", "--out", "fleet.plan"], more].concat()).exits(0);
    write(&[]);
    let text = project.read("fleet.plan");
    assert!(text.starts_with("{\"flotilla_plan\":2,\"fleet\":\"test\",") && !text.contains(crate::fleet::ACCOUNT));
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let first = &file["changes"][0];
    assert_eq!(first["reasons"].as_array().map(Vec::len), first["reason_details"].as_array().map(Vec::len), "{first}");
    assert_eq!((&first["reasons"][0], &first["reason_details"][0]["kind"]), (&json!("it is new"), &json!("new")));
    write(&[]);
    assert_eq!(project.read("fleet.plan"), text, "the same plan is the same file");
    // Whoever was faster, and what was edited since, is named; nothing is sent.
    project
        .write("customers/c00.yaml", "id: c00\nvars: { A: other }\n")
        .write("customers/new.yaml", "id: new\nlabels: { tier: gold }\n");
    std::fs::remove_file(project.path("customers/c03.yaml")).unwrap();
    cloud.take();
    let told = apply().exits(5).stderr;
    for part in [
        "the plan is stale: 3 changes differ from what is planned now; nothing was sent",
        "t-c00 (c00 · production): its bundle is ",
        "t-new (new · production): not in the plan, create: it is new",
        "t-c03 (c03 · production): only in the plan, create: it is new",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(changed(&cloud).is_empty());
    // A part of the fleet: what was asked for is in the file.
    write(&["c01", "--env", "production"]);
    assert!(apply().exits(0).stdout.contains("1 applied, 0 failed"));
    assert_eq!(changed(&cloud), ["PUT scripts/t-c01"]);
    // It is done: it isn't what is planned now, and nothing of it is left.
    assert!(apply().exits(0).stdout.contains("nothing to deploy"));
    write(&["-l", "tier in (gold,silver)", "--all", "--reason", "a flaw"]);
    assert!(apply().exits(0).stdout.contains("1 applied"));
    assert_eq!(changed(&cloud), ["PUT scripts/t-new"]);
    // A file that isn't whole, or isn't a plan, or not this fleet's.
    write(&[]);
    let whole = project.read("fleet.plan");
    for (text, why) in [
        (whole[..whole.len() / 2].to_owned(), "damaged"),
        ("id: acme\n".to_owned(), "not a plan file"),
        (whole.replace("\"flotilla_plan\":2", "\"flotilla_plan\":7"), "another version wrote it"),
        (whole.replace("\"fleet\":\"test\"", "\"fleet\":\"other\""), "the plan is of the fleet other"),
    ] {
        project.write("fleet.plan", text);
        let told = apply().exits(5).stderr;
        assert!(told.contains(why), "{why} in {told}");
    }
    project.run(&["deploy", "--plan", "fleet.plan", "c01"]).exits(2);
    project.run(&["deploy", "--plan", "fleet.plan", "--digest", "12345678"]).exits(2);
    cloud.run(&project, &["deploy", "--plan", "nowhere"]).exits(1);
}

#[test]
fn an_interrupted_plan_is_gone_on_with_and_nothing_else_is() {
    for by_digest in [true, false] {
        let (cloud, project) = (Cloud::start(), many(6));
        let digest = digest(&cloud, &project);
        cloud.run(&project, &["plan", "--out", "fleet.plan"]).exits(0);
        let arguments = if by_digest { ["deploy", "--digest", &digest] } else { ["deploy", "--plan", "fleet.plan"] };
        cloud.faults(&json!([{"match": {"method": "PUT", "path": "t-c03"}, "times": 1, "do": {"status": 400}}]));
        let first = cloud.run(&project, &arguments);
        assert_eq!(first.code, 4, "{first:?}");
        cloud.clear_faults();
        cloud.take();
        // Something else than what is left isn't what was reviewed.
        project.write("customers/c05.yaml", "id: c05\nvars: { A: other }\n");
        cloud.run(&project, &arguments).exits(5);
        assert!(changed(&cloud).is_empty());
        project.write("customers/c05.yaml", "id: c05\n");
        assert!(cloud.run(&project, &arguments).exits(0).stdout.contains("1 applied, 0 failed"));
        assert_eq!(changed(&cloud), ["PUT scripts/t-c03"]);
        assert!(cloud.run(&project, &arguments).exits(0).stdout.contains("nothing to deploy"));
    }
}

#[test]
fn events_and_the_summary_tell_what_happened_and_no_secret() {
    let secret = "secrets: { KEY: { secret: API_KEY } }\n";
    let cloud = Cloud::start();
    let project = fleet(&[("acme", secret), ("bolt", secret), ("coral", secret)]);
    project.write(".env", "API_KEY=canary-value\n");
    cloud.faults(&json!([{"match": {"method": "PUT", "path": "t-bolt"}, "times": 9, "do": {"status": 400}}]));
    let arguments =
        ["deploy", "--yes", "--quiet", "--events", "events.ndjson", "--summary", "summary.md", "--format", "json"];
    let run = cloud.run(&project, &arguments).exits(4);
    let report = run.json();
    assert_eq!((&report["applied"], &report["failed"]), (&json!(2), &json!(1)));
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    let events = project.read("events.ndjson");
    let lines: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["event"].as_str().expect("a name")).collect();
    assert_eq!((names.first(), names.last()), (Some(&"begun"), Some(&"ended")));
    assert_eq!(names.iter().filter(|name| **name == "applied").count(), 2);
    let failed = lines.iter().find(|line| line["event"] == "failed").expect("a failure");
    assert_eq!((&failed["worker"], failed["error"].is_string()), (&json!("t-bolt"), true));
    assert_eq!(lines[0]["plan"].as_str().map(str::len), Some(64));
    assert_eq!(lines.last().unwrap()["failures"][0]["worker"], "t-bolt");
    assert!(lines.iter().all(|line| line["at"].is_string()));
    let known: BTreeSet<&str> = BTreeSet::from(["begun", "wave", "applied", "failed", "progress", "ended", "waiting"]);
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    let summary = project.read("summary.md");
    assert!(summary.contains("### flotilla deploy: 2 applied, 1 failed, 0 not attempted\n"), "{summary}");
    assert!(summary.contains("| <code>t-bolt</code> | <code>bolt</code> | <code>"), "{summary}");
    for text in [&run.stdout, &run.stderr, &events, &summary] {
        assert!(!text.contains("canary"), "{text}");
    }
    // Quiet: what failed is told, and nothing else but the result.
    assert!(run.stderr.lines().all(|line| line.contains("t-bolt")), "{}", run.stderr);
    cloud.clear_faults();
    let run = cloud.run(&project, &["deploy", "--yes", "--quiet"]).exits(0);
    assert!(run.stdout.contains("1 applied") && run.stderr.is_empty(), "{run:?}");
    // To stdout, the result is the last line.
    project.edit("customers/acme.yaml", "secrets", "logLevel: debug\nsecrets");
    let run = cloud.run(&project, &["deploy", "--yes", "--quiet", "--events", "-", "--format", "json"]).exits(0);
    assert!(run.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(run.json()["applied"], 1);
    // A deploy that is refused says so there, too.
    project.edit("customers/acme.yaml", "logLevel: debug", "logLevel: warn");
    std::fs::remove_file(project.path("summary.md")).unwrap();
    cloud.run(&project, &["deploy", "--digest", "00000000", "--summary", "summary.md"]).exits(5);
    let summary = project.read("summary.md");
    assert!(summary.contains("### flotilla plan: 0 to create, 1 to update, 0 to delete\n"), "{summary}");
    assert!(summary.contains("### flotilla deploy failed\n\n<code>the plan has changed since the review"), "{summary}");
}
