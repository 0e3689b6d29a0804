//! Shows the line from files to deployed workers, end to end: the engine, or the real program where the process is what is shown, and a
//! Cloudflare that logs what it is asked. What is counted are requests: each thing that changed costs its own, and nothing else costs any.

use std::collections::BTreeSet;
use std::process::Child;

use flotilla_deploy::plan::Action;
use flotilla_model::failure::Exit;
use flotilla_model::reason::{Excerpt, Position, Reason, ValueChange};
use serde_json::json;

use crate::engine::{Engine, Heard, reasons};
use crate::fleet::{ACCOUNT, Cloud, Request, fleet, until, uploads};
use crate::support::{self, Project, finish, output};

const ACME: &str = "name: Acme\nvars: { GREETING: hello }\n";
const BOLT: &str = "workersDev: false\ndomains: [bolt.example.com]\ncrons: [\"*/5 * * * *\"]\n";
const CORAL: &str = "workersDev: false\nroutes:\n  - { pattern: \"example.com/a/*\", zone: example.com }\n  \
                     - { pattern: \"example.com/b/*\", zone: example.com }\n";

fn three() -> Project {
    fleet(&[("acme", ACME), ("bolt", BOLT), ("coral", CORAL)])
}

/// Many workers that take one request each.
fn many(count: usize) -> Project {
    let project = fleet(&[]);
    project.write("fleet.yaml", format!("{}defaults: {{ workersDev: false }}\n", project.read("fleet.yaml")));
    for at in 0..count {
        let spec = format!("id: c{at:02}\ndomains: []\nroutes: []\n");
        project.write(&format!("customers/c{at:02}.yaml"), spec);
    }
    project
}

#[test]
fn the_first_deploy_sends_one_request_for_each_thing_and_the_second_one_none() {
    let (cloud, project) = (Cloud::start(), three());
    let outcome = cloud.deployed(&project);
    assert_eq!(
        (outcome.applied, outcome.failed, outcome.requests),
        (3, 0, 14),
        "nine, and a look at each that is created"
    );
    assert_eq!(
        cloud.sent(),
        [
            "GET zones",
            "POST scripts/t-acme/subdomain",
            "POST zones/*/workers/routes",
            "POST zones/*/workers/routes",
            "PUT domains",
            "PUT scripts/t-acme",
            "PUT scripts/t-bolt",
            "PUT scripts/t-bolt/schedules",
            "PUT scripts/t-coral",
        ]
    );
    cloud.is_up_to_date(&project);
    // A machine that has no out/ needs no upload either: the state decides.
    std::fs::remove_dir_all(project.path("out")).expect("out/ goes");
    cloud.is_up_to_date(&project);
}

#[test]
fn an_edit_costs_the_request_of_what_it_changed_and_no_other() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    cloud.take();
    let check = |file: &str, from: &str, to: &str, expect: &[&str]| {
        project.edit(file, from, to);
        cloud.deployed(&project);
        assert_eq!(cloud.sent(), expect, "{from:?} to {to:?} in {file}");
        cloud.is_up_to_date(&project);
    };
    let (acme, bolt, coral) = ("customers/acme.yaml", "customers/bolt.yaml", "customers/coral.yaml");
    check(acme, "GREETING: hello", "GREETING: goodbye", &["PUT scripts/t-acme"]);
    check(acme, "name: Acme\n", "# A comment.\n\nname:   'Acme'\n", &[]);
    check(
        acme,
        "vars: { GREETING: goodbye }\n",
        "vars:\n  # Of the shop.\n  OTHER: [1, 2]\n  GREETING: goodbye\n",
        &["PUT scripts/t-acme"],
    );
    check(acme, "  OTHER: [1, 2]\n  GREETING: goodbye\n", "  GREETING: \"goodbye\"\n  OTHER:\n    - 1\n    - 2\n", &[]);
    check(acme, "name:   'Acme'\n", "name: Acme\nworkersDev: false\n", &["POST scripts/t-acme/subdomain"]);
    check(bolt, "bolt.example.com", "www.bolt.example.com", &["DELETE domains/*", "PUT domains"]);
    check(bolt, "www.bolt.example.com", "www.bolt.example.com, b.example.com", &["PUT domains"]);
    check(bolt, "*/5 * * * *", "*/6 * * * *", &["PUT scripts/t-bolt/schedules"]);
    check(bolt, "crons: [\"*/6 * * * *\"]\n", "", &["PUT scripts/t-bolt/schedules"]);
    check(
        coral,
        "example.com/a/*",
        "example.com/c/*",
        &["DELETE zones/*/workers/routes/*", "POST zones/*/workers/routes"],
    );
    check(coral, "  - { pattern: \"example.com/b/*\", zone: example.com }\n", "", &["DELETE zones/*/workers/routes/*"]);
    let all = ["PUT scripts/t-acme", "PUT scripts/t-bolt", "PUT scripts/t-coral"];
    check("packs/tiny/index.ts.tera", "export default", "// Of the tests.\nexport default", &all);
    check("packs/tiny/build.mjs", "\"tiny\"", "\"small\"", &all);
    check("fleet.yaml", "name: test\n", "name: test\ndefaults: { compatibilityDate: 2026-07-01 }\n", &all);
    check("packs/tiny/wrangler.jsonc.tera", "  \"preview_urls\"", "  // Reviewed.\n  \"preview_urls\"", &[]);
}

#[test]
fn the_same_plan_tells_why() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    project.edit("customers/acme.yaml", "hello", "goodbye").edit("customers/bolt.yaml", "*/5", "*/6");
    let planned = cloud.engine(&project).plan();
    let excerpt = |text: &str| Some(Excerpt::from(&json!(text)));
    let place = Some(Position { file: "customers/acme.yaml".to_owned(), line: 3, column: 19 });
    let (old, new) = (excerpt("hello"), excerpt("goodbye"));
    let greeting = ValueChange { path: "vars.GREETING".to_owned(), old, new, place };
    let crons = |cron: &str| BTreeSet::from([cron.to_owned()]);
    assert_eq!(
        reasons(&planned.plan),
        [
            ("t-acme", &[Reason::ValueChanged(Box::new(greeting))][..]),
            ("t-bolt", &[Reason::Crons { old: crons("*/5 * * * *"), new: crons("*/6 * * * *") }]),
        ]
    );
    let actions: Vec<Action> = planned.plan.changes.iter().map(|change| change.action).collect();
    assert_eq!((actions.as_slice(), planned.plan.unchanged), (&[Action::Update, Action::Update][..], 1));
    // The command line says it in these words.
    let plan = cloud.run(&project, &["plan", "--format", "json"]).exits(0).json();
    assert_eq!(
        (&plan["changes"][0]["reasons"], &plan["changes"][1]["reasons"]),
        (&json!(["customers/acme.yaml:3:19 vars.GREETING \"hello\" → \"goodbye\""]), &json!(["crons */6 * * * *"]))
    );
    assert_eq!((&plan["create"], &plan["update"], &plan["unchanged"]), (&json!(0), &json!(2), &json!(1)));
}

#[test]
fn a_plan_sends_nothing_and_its_exit_code_says_whether_there_are_changes() {
    let (cloud, project) = (Cloud::start(), three());
    let plan = cloud.run(&project, &["plan", "--exit-code", "--format", "json"]).exits(3).json();
    assert_eq!((&plan["create"], &plan["requests"]), (&json!(3), &json!(9)));
    cloud.run(&project, &["plan"]).exits(0);
    assert!(cloud.sent().is_empty());
    assert!(!project.path(".flotilla/state.db").exists(), "a plan makes no state");
    cloud.deployed(&project);
    cloud.take();
    cloud.run(&project, &["plan", "--exit-code"]).exits(0);
    let text = cloud.run(&project, &["plan", "--all", "--reason", "a flaw in the runtime"]).exits(0).stdout;
    assert!(text.contains("forced: a flaw in the runtime"), "{text}");
    assert!(cloud.sent().is_empty());
}

#[test]
fn all_uploads_every_worker_once() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    cloud.take();
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.force = Some("a flaw".to_owned()));
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 3);
    assert_eq!(cloud.sent(), ["PUT scripts/t-acme", "PUT scripts/t-bolt", "PUT scripts/t-coral"]);
    // The flag does the same.
    assert_eq!(cloud.deploy(&project, &["--all"])["applied"], 3);
    assert_eq!(cloud.sent(), ["PUT scripts/t-acme", "PUT scripts/t-bolt", "PUT scripts/t-coral"]);
}

#[test]
fn a_customer_who_is_gone_is_reported_and_deleted_only_with_prune() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    cloud.take();
    std::fs::remove_file(project.path("customers/bolt.yaml")).unwrap();
    let text = cloud.run(&project, &["deploy", "--yes"]).exits(0).stdout;
    assert!(text.contains("t-bolt") && text.contains("`flotilla prune` deletes"), "{text}");
    assert!(cloud.sent().iter().all(|what| what == "GET subdomain"), "nothing but the address is asked for");
    cloud.run(&project, &["deploy", "--yes", "--prune", "acme"]).exits(2);
    cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Done);
    let sent: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    let looks = ["GET scripts/t-bolt/settings", "GET domains"];
    assert_eq!(sent[..2], looks, "it is still the fleet's, and the domain its own");
    assert_eq!(sent[2..], ["DELETE domains/*", "DELETE scripts/t-bolt"], "first what leads to it");
    let planned = cloud.engine(&project).plan_with(|request| request.prune = true);
    assert!(planned.plan.is_empty() && planned.plan.orphans.is_empty(), "{:#?}", planned.plan);
}

#[test]
fn an_account_that_got_another_name_is_the_same_account() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    cloud.take();
    project.write(
        "fleet.yaml",
        format!(
            "{}accounts:\n  eu: {{ id: {{ env: CLOUDFLARE_ACCOUNT_ID }}, token: {{ secret: CLOUDFLARE_API_TOKEN }} }}\n",
            project.read("fleet.yaml")
        ),
    );
    std::fs::remove_file(project.path("customers/acme.yaml")).unwrap();
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.prune = true);
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 1);
    assert_eq!(cloud.sent(), ["DELETE scripts/t-acme"]);
}

#[test]
fn a_spec_with_an_error_stops_neither_the_others_nor_deletes_anything() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    cloud.take();
    project.edit("customers/acme.yaml", "name: Acme", "nam: Acme").edit("customers/bolt.yaml", "*/5", "*/6");
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.prune = true).exits(Exit::Diagnostics);
    assert!(ended.heard.contains(&Heard::Applied("t-bolt".to_owned())), "{:#?}", ended.heard);
    let outcome = ended.outcome();
    assert_eq!((outcome.applied, outcome.failed, outcome.skipped), (1, 0, 0));
    assert_eq!(cloud.sent(), ["PUT scripts/t-bolt/schedules"]);
    cloud.run(&project, &["deploy", "--yes", "--prune", "--format", "json"]).exits(1);
    assert!(cloud.sent().is_empty());
}

#[test]
fn a_secret_that_changed_is_uploaded_and_its_value_never_told() {
    let (cloud, project) =
        (Cloud::start(), fleet(&[("acme", "secrets: { API_KEY: { secret: SHARED_KEY } }\n"), ("bolt", "")]));
    let with = |value: &str, arguments: &[&str]| output(cloud.command(&project, arguments).env("SHARED_KEY", value));
    with("first-value", &["deploy", "--yes"]).exits(0);
    cloud.take();
    with("first-value", &["deploy", "--yes"]).exits(0);
    assert!(cloud.sent().is_empty());
    let plan = with("second-value", &["plan", "--format", "json"]).exits(0);
    assert_eq!(plan.json()["changes"][0]["reasons"], json!(["secret API_KEY changed"]));
    assert!(!format!("{plan:?}").contains("second-value"));
    let run = with("second-value", &["deploy", "--yes", "--format", "json"]).exits(0);
    assert!(run.stderr.contains("secret API_KEY changed") && !format!("{run:?}").contains("-value"), "{run:?}");
    assert_eq!(cloud.sent(), ["PUT scripts/t-acme"]);
    // The customer's own spelling comes first.
    let own = |value: &str| {
        output(
            cloud
                .command(&project, &["deploy", "--yes", "--format", "json"])
                .env("SHARED_KEY", "second-value")
                .env("ACME__SHARED_KEY", value),
        )
    };
    assert_eq!(own("second-value").exits(0).json()["applied"], 0);
    assert_eq!(own("third-value").exits(0).json()["applied"], 1);
    // Where a value isn't known, as on a machine that only plans, nothing counts as changed.
    assert_eq!(cloud.run(&project, &["plan", "--exit-code"]).exits(0).code, 0);
}

#[test]
fn a_missing_secret_is_reported_in_both_spellings_and_holds_no_other_customer() {
    let central = ("cafe-central", "secrets: { KEY: { secret: SHARED_KEY } }\n");
    let (cloud, project) = (Cloud::start(), fleet(&[central, ("bolt", "")]));
    let run = cloud.run(&project, &["deploy", "cafe-central", "--yes"]).exits(1);
    assert!(run.stderr.contains("SHARED_KEY or CAFE_CENTRAL__SHARED_KEY for cafe-central"), "{}", run.stderr);
    assert!(cloud.sent().is_empty(), "there is no other");
    let run = cloud.run(&project, &["deploy", "--yes", "--format", "json"]).exits(4);
    let json = run.json();
    assert_eq!((&json["applied"], &json["failed"]), (&json!(1), &json!(1)), "{json}");
    let failure = &json["failures"][0];
    assert_eq!((&failure["customer"], &failure["next_step"]), (&json!("cafe-central"), &json!("secret")), "{json}");
    assert!(!cloud.sent().iter().any(|what| what.contains("cafe")), "{:?}", cloud.sent());
    // Then what is missing alone is left.
    let plan = cloud.run(&project, &["plan", "--format", "json"]).exits(0).json();
    assert_eq!((&plan["create"], &plan["unchanged"]), (&json!(1), &json!(1)), "{plan}");
}

#[test]
fn missing_credentials_are_told_by_name() {
    let (cloud, project) = (Cloud::start(), three());
    for (name, other) in
        [("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ACCOUNT_ID"), ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN")]
    {
        let run = output(cloud.command(&project, &["deploy", "--yes"]).env_remove(name)).exits(1);
        assert!(run.stderr.contains(&format!("set {name}")) && !run.stderr.contains(other), "{}", run.stderr);
    }
    // An empty variable is none: that is what an unset secret of a CI looks like.
    let run = output(cloud.command(&project, &["deploy", "--yes"]).env("CLOUDFLARE_API_TOKEN", "")).exits(1);
    assert!(run.stderr.contains("set CLOUDFLARE_API_TOKEN"), "{}", run.stderr);
    assert!(cloud.sent().is_empty());
    // A plan needs neither.
    output(cloud.command(&project, &["plan"]).env_remove("CLOUDFLARE_API_TOKEN").env_remove("CLOUDFLARE_ACCOUNT_ID"))
        .exits(0);
}

#[test]
fn without_a_terminal_nothing_is_sent_unconfirmed() {
    let (cloud, project) = (Cloud::start(), three());
    let run = cloud.run(&project, &["deploy"]).exits(5);
    assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    assert!(cloud.sent().is_empty());
}

fn spawn(cloud: &Cloud, project: &Project) -> Child {
    support::spawn(&mut cloud.command(project, &["deploy", "--yes", "--format", "json"]))
}

/// Each upload takes as long, so that there is a middle to interrupt.
fn slow_uploads(cloud: &Cloud, milliseconds: u64) {
    cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 0, "do": {"delay_ms": milliseconds}}]));
}

#[test]
fn a_second_deploy_at_the_same_time_is_refused_and_told_who_has_the_lock() {
    let (cloud, project) = (Cloud::start(), three());
    slow_uploads(&cloud, 1000);
    let first = spawn(&cloud, &project);
    let (holder, note) = (format!("process {}", first.id()), format!("\"process\":{}", first.id()));
    until("the lock is taken", || {
        std::fs::read_to_string(project.path(".flotilla/deploy.lock")).is_ok_and(|text| text.contains(&note))
    });
    let second = cloud.run(&project, &["deploy", "--yes"]).exits(5);
    assert!(second.stderr.contains(&holder) && second.stderr.contains("since 20"), "{}", second.stderr);
    // A plan looks on.
    cloud.run(&project, &["plan"]).exits(0);
    assert_eq!(finish(first).exits(0).json()["applied"], 3);
    assert!(uploads(&cloud.take()).values().all(|count| *count == 1));
}

/// The workers that the state says are deployed.
fn recorded(cloud: &Cloud, project: &Project) -> Vec<String> {
    let status = cloud.run(project, &["status", "--format", "json"]).exits(0).json();
    let workers = status["workers"].as_array().expect("a list").iter();
    workers.filter(|row| !row["digest"].is_null()).map(|row| row["worker"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_killed_deploy_goes_on_where_it_was() {
    let (cloud, project) = (Cloud::start(), many(60));
    slow_uploads(&cloud, 300);
    let mut child = spawn(&cloud, &project);
    until("a third is deployed", || uploads(&cloud.requests()).len() >= 20);
    let history = || cloud.run(&project, &["history"]).exits(0).stdout;
    assert!(history().contains("  running  "), "{}", history());
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
    assert!(history().contains("interrupted; the next deploy continues from there"), "{}", history());
    // What the server had begun ends: its client is gone, its work isn't.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let acknowledged = recorded(&cloud, &project);
    let before = uploads(&cloud.take());
    assert!((1..60).contains(&acknowledged.len()), "killed in the middle: {}", acknowledged.len());
    assert!(acknowledged.iter().all(|worker| before.contains_key(worker)), "nothing is recorded that wasn't done");
    assert_eq!(cloud.deployed(&project).applied, 60 - acknowledged.len());
    let after = uploads(&cloud.take());
    assert!(acknowledged.iter().all(|worker| !after.contains_key(worker)), "nothing acknowledged is repeated");
    let repeated = after.keys().filter(|worker| before.contains_key(*worker)).count();
    // Eight are in flight at first, and one more for each that succeeded.
    let in_flight = 8 + acknowledged.len();
    assert!(repeated <= in_flight, "{repeated} were repeated, {in_flight} were in flight");
    assert_eq!(recorded(&cloud, &project).len(), 60);
}

#[test]
fn an_upload_that_was_interrupted_and_taken_back_does_not_stay_live() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    project.edit("customers/acme.yaml", "hello", "broken");
    cloud.take();
    cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 0, "do": {"reset": "after"}}]));
    let mut child = spawn(&cloud, &project);
    until("it is uploaded, unknown to the program", || {
        cloud.requests().iter().any(|request| request.what == "PUT scripts/t-acme")
    });
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
    cloud.clear_faults();
    cloud.take();
    project.edit("customers/acme.yaml", "broken", "hello");
    let planned = cloud.engine(&project).plan();
    assert_eq!(reasons(&planned.plan), [("t-acme", &[Reason::UploadInterrupted][..])]);
    cloud.deployed(&project);
    assert_eq!(cloud.sent(), ["PUT scripts/t-acme"]);
    cloud.is_up_to_date(&project);
}

#[test]
fn domains_that_swap_their_customers_are_swapped_in_one_deploy() {
    let spec = |host: &str| format!("workersDev: false\ndomains: [{host}.example.com]\n");
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", &spec("x")), ("bolt", &spec("y"))]));
    cloud.deployed(&project);
    cloud.take();
    project.edit("customers/acme.yaml", "x.example", "y.example").edit("customers/bolt.yaml", "y.example", "x.example");
    cloud.deployed(&project);
    let sent = cloud.take().into_iter().map(|request| request.what);
    // It looks first, whose they are.
    let sent: Vec<String> = sent.filter(|what| !what.starts_with("GET ")).collect();
    // Neither is detached: each points to one of the two all the time.
    assert_eq!(sent, ["PUT domains", "PUT domains"]);
    cloud.is_up_to_date(&project);
}

#[test]
fn ctrl_c_ends_after_what_is_in_flight_and_says_so() {
    let (cloud, project) = (Cloud::start(), many(60));
    slow_uploads(&cloud, 60);
    let child = spawn(&cloud, &project);
    until("some are deployed", || uploads(&cloud.requests()).len() >= 10);
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill is there").success());
    let run = finish(child).exits(4);
    let report = run.json();
    assert!(run.stderr.contains("stopping after the requests in flight"), "{}", run.stderr);
    let applied = report["applied"].as_u64().unwrap();
    assert_eq!((applied + report["skipped"].as_u64().unwrap(), &report["failed"]), (60, &json!(0)));
    assert!(applied < 60);
    let before = uploads(&cloud.take());
    assert_eq!(before.len() as u64, applied, "what was sent was waited for");
    assert_eq!(cloud.deployed(&project).applied as u64, 60 - applied);
    let after = uploads(&cloud.take());
    assert!(after.keys().all(|worker| !before.contains_key(worker)), "nothing is repeated");
}

#[test]
fn a_dispatch_namespace_takes_one_request_for_each_worker() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ""), ("bolt", "crons: []\n")]));
    let account = "accounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    \
                   token: { secret: CLOUDFLARE_API_TOKEN }\n    dispatchNamespace: shops\n";
    project.write("fleet.yaml", project.read("fleet.yaml") + account);
    let outcome = cloud.engine(&project).deploy().exits(Exit::SomeFailed).outcome();
    let error = &outcome.failures[0].error;
    assert!(error.contains("does the dispatch namespace exist?"), "{error}");
    cloud.http(
        "POST",
        &format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces"),
        &json!({"name": "shops"}),
    );
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(
        cloud.sent(),
        ["PUT dispatch/namespaces/shops/scripts/t-acme", "PUT dispatch/namespaces/shops/scripts/t-bolt"]
    );
    cloud.is_up_to_date(&project);
}

#[test]
fn an_upload_has_everything_in_one_request() {
    let spec = "vars: { TEXT: \"1e3\", MAP: { a: [1, null] } }\nsecrets: { KEY: { secret: SHARED_KEY } }\n\
                compatibilityDate: 2026-05-05\ncompatibilityFlags: [nodejs_compat]\n\
                observability: { enabled: true, sampling: 0.25 }\n";
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", spec)]));
    Engine::with(&project, &cloud.base(), &[("SHARED_KEY", "x")]).deploy().exits(Exit::Done);
    let requests = cloud.take();
    let upload = find(&requests, "PUT scripts/t-acme");
    let parts = upload.entry["parts"].as_array().expect("a form");
    let shown: Vec<(&str, &str)> =
        parts.iter().map(|part| (part["name"].as_str().unwrap(), part["content_type"].as_str().unwrap())).collect();
    let runtime = shown[2].0;
    assert!(runtime.starts_with("runtime/tiny-") && runtime.ends_with(".js"), "{runtime}");
    assert_eq!(
        shown,
        [
            ("metadata", "application/json"),
            ("production/acme/index.js", "application/javascript+module"),
            (runtime, "application/javascript+module"),
        ]
    );
    let metadata = &parts[0]["json"];
    let status = cloud.run(&project, &["status", "--format", "json"]).exits(0).json();
    let digest = metadata["tags"][1].as_str().unwrap().strip_prefix("digest-").expect("a digest").to_owned();
    assert!(digest.starts_with(status["workers"][0]["digest"].as_str().unwrap()));
    assert_eq!(
        *metadata,
        json!({
            "main_module": "production/acme/index.js",
            "compatibility_date": "2026-05-05",
            "compatibility_flags": ["nodejs_compat"],
            "observability": {"enabled": true, "head_sampling_rate": 0.25},
            "bindings": [
                {"type": "json", "name": "MAP", "json": {"a": [1, null]}},
                {"type": "plain_text", "name": "TEXT", "text": "1e3"},
                {"type": "secret_text", "name": "KEY", "text": "***"},
                {"type": "plain_text", "name": "FLOTILLA_DIGEST", "text": digest},
            ],
            "tags": [
                "flotilla-test", format!("digest-{digest}"), metadata["tags"][2], "customer-acme", "environment-production"
            ],
        })
    );
    // What is reviewed is what is uploaded, byte for byte.
    let size = |name: &str| parts.iter().find(|part| part["name"] == name).unwrap()["size"].as_u64().unwrap();
    assert_eq!(size("production/acme/index.js"), project.read("out/production/acme/index.ts").len() as u64);
    assert_eq!(size(runtime), project.read(&format!("out/{runtime}")).len() as u64);
}

fn find<'a>(requests: &'a [Request], what: &str) -> &'a Request {
    requests.iter().find(|request| request.what == what).unwrap_or_else(|| panic!("no {what} in {requests:#?}"))
}

#[test]
fn without_out_and_state_a_deploy_converges_all_the_same() {
    let (cloud, project) = (Cloud::start(), three());
    cloud.deployed(&project);
    cloud.take();
    std::fs::remove_dir_all(project.path(".flotilla")).unwrap();
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.applied, outcome.failed), (3, 0));
}
