//! Shows: what happened is on record, what ran can be compared and gone back to, and what was rolled back isn't deployed again by
//! itself.

use flotilla_engine::rollback::Target;
use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::engine::{Engine, Heard, customers};
use crate::fleet::{Cloud, fleet, uploads};
use crate::support::Project;

const ACME: &str = "vars: { GREETING: hello }\nsecrets: { KEY: { secret: SHARED_KEY } }\n";

/// Two customers; acme's greeting was changed once.
fn changed_once() -> (Cloud, Project) {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ACME), ("bolt", "")]));
    project.write(".env", "SHARED_KEY=canary-of-the-key\n");
    cloud.deployed(&project);
    project.edit("customers/acme.yaml", "hello", "goodbye");
    cloud.deployed(&project);
    cloud.take();
    (cloud, project)
}

fn records(cloud: &Cloud, project: &Project) -> Vec<Value> {
    let history = cloud.run(project, &["history", "acme", "--format", "json"]).exits(0).json();
    history["records"].as_array().expect("a list").clone()
}

#[test]
fn a_rollback_is_one_request_and_holds_until_the_spec_changes() {
    let (cloud, project) = changed_once();
    let before = records(&cloud, &project);
    let uploaded: Vec<&Value> = before.iter().filter(|record| record["kept"] == true).collect();
    assert_eq!(uploaded.len(), 2);
    let (now, first) = (&uploaded[0]["digest"], &uploaded[1]["digest"]);
    // It works where the specs are what is broken.
    project.write("customers/bolt.yaml", "id: [\n");
    let report = cloud.run(&project, &["rollback", "acme", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!((&report["applied"], &report["requests"]), (&json!(1), &json!(2)), "a look and an upload");
    assert_eq!(cloud.sent(), ["PUT scripts/t-acme"]);
    let after = records(&cloud, &project);
    assert_eq!(
        (&after[0]["action"], &after[0]["digest"], &after[0]["live"]),
        (&json!("rollback"), first, &json!(true))
    );
    // Why is recorded as a value: what ran, what runs now, and which record that was.
    let why = &after[0]["reason_details"][0];
    let digests = (&json!(now.as_str().unwrap()[..16]), &json!(first.as_str().unwrap()[..16]));
    assert_eq!((&why["kind"], (&why["old"], &why["new"])), (&json!("rolled_back"), digests));
    assert_eq!((&why["record"], &why["place"]), (&uploaded[1]["record"], &Value::Null));
    let edited = &uploaded[0]["reason_details"][0];
    assert_eq!((&edited["kind"], &edited["place"]["file"]), (&json!("value_changed"), &json!("customers/acme.yaml")));
    assert!(edited["old"].is_string() && edited["new"].is_string(), "{edited}");
    // The bundle that it was rolled back from is not deployed again by itself.
    project.write("customers/bolt.yaml", "id: bolt\n");
    let plan = cloud.engine(&project).plan().plan;
    assert!(plan.changes.is_empty(), "{:?}", plan.changes);
    let [held] = &plan.held[..] else { panic!("{:?}", plan.held) };
    assert!(held.customer == "acme" && held.reason.contains("rolled back"), "{held:?}");
    cloud.is_up_to_date(&project);
    // Named, it is; and so is anything else that the spec says.
    let named = cloud.engine(&project).plan_with(|request| request.selection = customers(&["acme"])).plan;
    assert_eq!(json!(named.changes[0].digest), *now);
    project.edit("customers/acme.yaml", "goodbye", "welcome");
    assert_eq!(cloud.deployed(&project).applied, 1);
}

#[test]
fn a_rollback_uploads_what_ran_and_keeps_the_secrets() {
    let (cloud, project) = changed_once();
    let live = |cloud: &Cloud| {
        let path = format!("/client/v4/accounts/{}/workers/scripts/t-acme/settings", crate::fleet::ACCOUNT);
        cloud.http("GET", &path, &Value::Null)["result"]["bindings"].clone()
    };
    let target = Target::Customers { customers: vec!["acme".to_owned()], record: None, environment: None };
    let (outcome, heard) = cloud.engine(&project).rollback(target);
    assert_eq!(outcome.expect("it goes back").applied, 1);
    assert!(heard.contains(&Heard::Applied("t-acme".to_owned())), "{heard:#?}");
    let bindings = live(&cloud);
    let of = |name: &str| bindings.as_array().unwrap().iter().find(|binding| binding["name"] == name).cloned();
    assert_eq!(of("GREETING").expect("a variable")["text"], "hello");
    assert_eq!(of("KEY").expect("the secret is still bound")["type"], "secret_text");
    // Without its value, too: what is bound stays.
    std::fs::remove_file(project.path(".env")).unwrap();
    let to =
        records(&cloud, &project).iter().find(|record| record["action"] == "update").unwrap()["record"].to_string();
    cloud.run(&project, &["rollback", "acme", "--to", &to, "--yes"]).exits(0);
    let bindings = live(&cloud);
    let of = |name: &str| bindings.as_array().unwrap().iter().find(|binding| binding["name"] == name).cloned();
    assert_eq!(of("GREETING").expect("a variable")["text"], "goodbye");
    assert!(of("KEY").is_some());
    let state = std::fs::read(project.path(&state_file(&project))).unwrap();
    assert!(!state.windows(16).any(|window| window == b"canary-of-the-ke"), "no secret is kept");
}

#[test]
fn a_rollback_names_the_secrets_without_a_value_before_it_sends_anything() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", "secrets: { B: { secret: B } }\n")]));
    project.write(".env", "B=value\n");
    cloud.deployed(&project);
    project.write("customers/acme.yaml", "id: acme\n");
    cloud.deployed(&project);
    std::fs::remove_file(project.path(".env")).unwrap();
    cloud.take();
    let target = Target::Customers { customers: vec!["acme".to_owned()], record: None, environment: None };
    let (result, _) = cloud.engine(&project).rollback(target.clone());
    let failure = result.expect_err("it is refused");
    assert_eq!((failure.to_string().as_str(), failure.exit as i32), ("1 secret has no value; nothing was sent", 1));
    assert!(failure.hints[0].contains("B or ACME__B for acme"), "{:?}", failure.hints);
    assert!(cloud.take().is_empty());
    let (result, _) = Engine::with(&project, &cloud.base(), &[("ACME__B", "value")]).rollback(target);
    assert_eq!(result.expect("it goes back").applied, 1);
}

#[test]
fn a_rollback_sends_no_secret_that_fleet_yaml_lets_nobody_have() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", "secrets: { B: { secret: B } }\n")]));
    project.write(".env", "B=value\n");
    cloud.deployed(&project);
    project.write("customers/acme.yaml", "id: acme\n");
    project.write("fleet.yaml", project.read("fleet.yaml") + "secrets: [{ dotenv: .env, names: [OTHER] }]\n");
    cloud.deployed(&project);
    cloud.take();
    let target = Target::Customers { customers: vec!["acme".to_owned()], record: None, environment: None };
    let failure = cloud.engine(&project).rollback(target).0.expect_err("it is refused");
    assert_eq!(failure.exit as i32, 5, "{failure}");
    assert_eq!(failure.hints, ["t-acme: no source of secrets in fleet.yaml allows workers to use `B`"]);
    assert!(cloud.take().is_empty());
}

fn state_file(project: &Project) -> String {
    let names = std::fs::read_dir(project.path(".flotilla")).unwrap().map(|entry| entry.unwrap().file_name());
    let name = names.map(|name| name.into_string().unwrap()).find(|name| name.ends_with(".db")).expect("a state");
    format!(".flotilla/{name}")
}

#[test]
fn a_whole_deploy_is_taken_back() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ""), ("bolt", ""), ("coral", "")]));
    cloud.deployed(&project);
    project.write("fleet.yaml", project.read("fleet.yaml") + "defaults: { vars: { NEW: \"1\" } }\n");
    project.write("customers/dune.yaml", "id: dune\n");
    cloud.deployed(&project);
    cloud.take();
    let runs = cloud.run(&project, &["history", "--format", "json"]).exits(0).json();
    let run = runs["runs"][0]["run"].to_string();
    assert_eq!(runs["runs"][0]["deploy"]["outcome"]["applied"], 4);
    // One of them has moved on since.
    project.write("customers/coral.yaml", "id: coral\nvars: { MORE: \"1\" }\n");
    let coral = cloud.engine(&project).deploy_with(|request| request.plan.selection = customers(&["coral"]));
    assert_eq!(coral.exits(Exit::Done).outcome().applied, 1);
    cloud.take();
    let back = cloud.run(&project, &["rollback", "--run", &run, "--yes"]).exits(0);
    assert_eq!(uploads(&cloud.take()).into_keys().collect::<Vec<_>>(), ["t-acme", "t-bolt"]);
    assert!(back.stderr.contains("t-coral is not changed: something else has been deployed since"), "{}", back.stderr);
    assert!(back.stderr.contains("t-dune is not changed: nothing ran before"), "{}", back.stderr);
    // Once more: those with the same reason are on one line.
    let again = cloud.run(&project, &["rollback", "--run", &run, "--yes"]).exits(1).stderr;
    assert!(
        again.contains("t-acme, t-bolt, t-coral are not changed: something else has been deployed since\n"),
        "{again}"
    );
    assert_eq!(again.matches("not changed").count(), 2, "{again}");
}

#[test]
fn a_diff_tells_values_and_lines() {
    let (cloud, project) = changed_once();
    project.edit("customers/acme.yaml", "goodbye", "welcome");
    let planned = cloud.run(&project, &["diff", "acme"]).exits(0).stdout;
    for part in [
        "customers/acme.yaml:2:19 vars.GREETING \"goodbye\" → \"welcome\"",
        "-      \"text\": \"goodbye\"",
        "+      \"text\": \"welcome\"",
    ] {
        assert!(planned.contains(part), "{part} is missing: {planned}");
    }
    assert!(cloud.sent().is_empty());
    // What has a request of its own is shown, too, and what isn't deployed.
    project.write(
        "customers/acme.yaml",
        format!("id: acme\n{ACME}domains: [a.example.com]\n").replace("hello", "goodbye"),
    );
    let domain = cloud.run(&project, &["diff", "acme"]).exits(0).stdout;
    assert!(domain.contains("\n  domain a.example.com added\n") && !domain.contains("+++"), "{domain}");
    project.write("customers/acme.yaml", format!("id: acme\n{ACME}").replace("hello", "goodbye"));
    let same = cloud.run(&project, &["diff", "acme"]).exits(0).stdout;
    assert!(same.contains("\n  no differences\n"), "{same}");
    project.write("customers/new.yaml", "id: new\n");
    let new = cloud.run(&project, &["diff", "new", "--json"]).exits(0).json();
    assert_eq!((&new["diffs"][0]["deployed"], &new["diffs"][0]["differences"][0]), (&Value::Null, &json!("it is new")));
    assert!(new["diffs"][0]["module"].as_str().expect("text").contains("\n+"), "{new}");
    let all: Vec<String> = records(&cloud, &project).iter().map(|record| record["record"].to_string()).collect();
    let diff = cloud.run(&project, &["diff", "acme", all.last().expect("a first one")]).exits(0).stdout;
    for part in ["vars.GREETING \"hello\" → \"goodbye\"", "-      \"text\": \"hello\"", "+      \"text\": \"goodbye\""]
    {
        assert!(diff.contains(part), "{part} is missing: {diff}");
    }
    let records = records(&cloud, &project);
    let kept: Vec<String> =
        records.iter().filter(|record| record["kept"] == true).map(|record| record["record"].to_string()).collect();
    let back = cloud.run(&project, &["diff", "acme", &kept[0], &kept[1], "--format", "json"]).exits(0).json();
    assert_eq!(back["diffs"][0]["differences"], json!(["vars.GREETING \"goodbye\" → \"hello\""]));
    assert_eq!(back["diffs"][0]["code"], "");
    // The pack's code: the lines that changed, and not only that its bundle has another name.
    project.edit("packs/tiny/build.mjs", "\"tiny\"", "\"small\"");
    let pack = cloud.run(&project, &["diff", "acme"]).exits(0).stdout;
    for part in [
        "the pack's bundle: runtime/tiny-",
        "\n--- runtime/tiny-",
        "\n-export const defineWorker = ",
        "\n+export const defineWorker = ",
    ] {
        assert!(pack.contains(part), "{part:?} is missing: {pack}");
    }
    assert!(pack.contains("new Response(\"small\")"), "{pack}");
    let long: String = (0..1000).map(|line| format!("//! {line} {}\\n", "x".repeat(400))).collect();
    project.edit("packs/tiny/build.mjs", "'export const", &format!("'{long}export const"));
    let pack = cloud.run(&project, &["diff", "acme"]).exits(0).stdout;
    assert!(pack.contains(" lines more; --json has all of them\n") && pack.lines().count() < 400, "{pack}");
    assert!(pack.lines().all(|line| line.chars().count() <= 301), "a line is cut");
    let json = cloud.run(&project, &["diff", "acme", "--json"]).exits(0).json();
    assert!(json["diffs"][0]["code"].as_str().is_some_and(|code| code.lines().count() > 1000), "all of it");
}

#[test]
fn what_cannot_be_gone_back_to_is_said() {
    let (cloud, project) = changed_once();
    cloud.run(&project, &["rollback", "nobody", "--yes"]).exits(2);
    let none = cloud.run(&project, &["rollback", "bolt", "--yes"]).exits(1);
    assert!(none.stderr.contains("t-bolt is not changed: nothing ran before"), "{}", none.stderr);
    cloud.run(&project, &["rollback", "acme", "--to", "999999", "--yes"]).exits(2);
    let unconfirmed = cloud.run(&project, &["rollback", "acme"]).exits(5);
    assert!(unconfirmed.stderr.contains("--digest"), "{}", unconfirmed.stderr);
    assert!(cloud.sent().is_empty());
    // Only the last ones are kept.
    project.write("fleet.yaml", project.read("fleet.yaml") + "deploy: { keep: 2 }\n");
    for greeting in ["one", "two", "three"] {
        project.write("customers/acme.yaml", format!("id: acme\nvars: {{ GREETING: {greeting} }}\n"));
        cloud.deployed(&project);
    }
    let kept = records(&cloud, &project).iter().filter(|record| record["kept"] == true).count();
    assert_eq!(kept, 2);
    let first =
        records(&cloud, &project).iter().rfind(|record| record["action"] == "create").unwrap()["record"].to_string();
    let gone = cloud.run(&project, &["rollback", "acme", "--to", &first, "--yes"]).exits(1);
    assert!(gone.stderr.contains("no longer kept"), "{}", gone.stderr);
}

#[test]
fn explain_says_why_a_deploy_would_upload_it_or_not() {
    let (cloud, project) = changed_once();
    let explain = || cloud.run(&project, &["explain", "acme"]).exits(0).stdout;
    // The test's own process built with the key of another cache folder.
    cloud.run(&project, &["build"]).exits(0);
    assert!(explain().contains("a deploy would not change it\n"), "{}", explain());
    project.edit("customers/acme.yaml", "goodbye", "welcome");
    cloud.run(&project, &["build"]).exits(0);
    let told = explain();
    assert!(told.contains("a deploy would upload it, because\n    customers/acme.yaml:2:19 vars.GREETING"), "{told}");
    cloud.deploy(&project, &[]);
    cloud.run(&project, &["rollback", "acme", "--yes"]).exits(0);
    assert!(explain().contains("a deploy would skip it: it was rolled back"), "{}", explain());
    let json = cloud.run(&project, &["explain", "acme", "--format", "json"]).exits(0).json();
    assert_eq!(json["workers"][0]["deploy"]["action"], "skip", "{json}");
    assert!(json["workers"][0]["deploy"]["held"][0].is_string(), "{json}");
}

#[test]
fn an_unreadable_fleet_yaml_is_shown_with_its_error_and_the_records_stay() {
    let (cloud, project) = changed_once();
    let fleet = project.read("fleet.yaml");
    let run = |arguments: &[&str]| cloud.run(&project, arguments);
    let all = [["state", "show", "--json"].as_slice(), &["history", "--json"]];
    let before = all.map(|arguments| run(arguments).exits(0).json());
    project.write("fleet.yaml", "name: [\n");
    for arguments in all {
        let told = run(arguments).exits(1).stderr;
        assert!(told.contains("error[Y0106]") && told.contains("fleet.yaml:1:7"), "{told}");
    }
    project.write("fleet.yaml", fleet);
    assert_eq!(all.map(|arguments| run(arguments).exits(0).json()), before);
}
