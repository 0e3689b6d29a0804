//! Shows what a deploy promises under bad conditions, with the real program: killed at random instants, a fifth of all requests
//! failing in every way, a token that is revoked half way, a state of last week.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, fleet, uploads};
use crate::support::Project;

/// Requests in flight at once in one lane, at the most.
const IN_FLIGHT: usize = 64;

/// Many workers that take one request each, at a Cloudflare without a limit.
fn many(count: usize) -> (Cloud, Project) {
    let cloud = Cloud::start_with(|options| {
        options.limit.requests = u64::MAX / 2;
        options.limits.workers = u64::MAX / 2;
    });
    let project = fleet(&[]);
    let limit = "accounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    token: { secret: CLOUDFLARE_API_TOKEN }\n    \
                 limits: { workers: 1000000 }\n    apiLimit: { requests: 1000000, seconds: 1, headroom: 0 }\n";
    project.write(
        "fleet.yaml",
        format!("{}{limit}defaults: {{ workersDev: false, vars: {{ V: \"0\" }} }}\n", project.read("fleet.yaml")),
    );
    for at in 0..count {
        project.write(&format!("customers/c{at:04}.yaml"), format!("id: c{at:04}\n"));
    }
    (cloud, project)
}

fn spawn(cloud: &Cloud, project: &Project) -> Child {
    let mut command = cloud.command(project, &["deploy", "--yes", "--quiet"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// What the platform has: the digest that each worker is tagged with.
fn live(cloud: &Cloud) -> BTreeMap<String, String> {
    let listed = cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/workers/scripts"), &Value::Null);
    let digest = |script: &Value| {
        let tags = script["tags"].as_array().into_iter().flatten();
        tags.filter_map(|tag| tag.as_str()?.strip_prefix("digest-")).next().unwrap_or_default().to_owned()
    };
    let scripts = listed["result"].as_array().expect("a list").iter();
    scripts.map(|script| (script["id"].as_str().unwrap().to_owned(), digest(script))).collect()
}

/// What the specs say: the digest that each worker should have. Planned without a state, so that each one is told.
fn desired(cloud: &Cloud, project: &Project) -> BTreeMap<String, String> {
    let mut command = cloud.command(project, &["plan", "--format", "json"]);
    let plan =
        crate::support::output(command.env("CLOUDFLARE_API_BASE_URL", "http://127.0.0.1:1/client/v4")).exits(0).json();
    let changes = plan["changes"].as_array().expect("a list").iter();
    changes
        .map(|change| (change["worker"].as_str().unwrap().to_owned(), change["digest"].as_str().unwrap().to_owned()))
        .collect()
}

/// The same numbers each time.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn killed_at_random_instants_it_ends_right_and_repeats_only_what_was_in_flight() {
    let (kills, workers) = (number("FLOTILLA_TEST_KILLS", 40), number("FLOTILLA_TEST_WORKERS", 400));
    let (cloud, project) = many(workers);
    cloud.run(&project, &["build"]).exits(0);
    cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 0, "do": {"delay_ms": 30}}]));
    let mut seed = number("FLOTILLA_TEST_SEED", 7) as u64;
    let (mut killed, mut versions, mut sent) = (0, 1, 0);
    while killed < kills {
        let mut child = spawn(&cloud, &project);
        let instant =
            Instant::now() + Duration::from_millis(next(&mut seed) % number("FLOTILLA_TEST_LIFE", 1800) as u64);
        let ended = loop {
            if let Some(status) = child.try_wait().expect("it is asked") {
                assert_eq!(status.code(), Some(0));
                break true;
            }
            if Instant::now() >= instant {
                break false;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if ended {
            // All of it is there: on with another version of everything.
            project.edit("fleet.yaml", &format!("V: \"{}\"", versions - 1), &format!("V: \"{versions}\""));
            versions += 1;
            continue;
        }
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        killed += 1;
        // Each time: the log of requests is bounded.
        sent += uploads(&cloud.take()).values().sum::<usize>();
    }
    cloud.clear_faults();
    assert_eq!(cloud.deployed(&project).failed, 0);
    assert_eq!(live(&cloud), desired(&cloud, &project), "each worker is as it should be");
    assert_eq!(cloud.deployed(&project).requests, 0);
    sent += uploads(&cloud.take()).values().sum::<usize>();
    let most = workers * versions + kills * IN_FLIGHT;
    assert!(sent <= most, "{sent} uploads of {workers} workers in {versions} versions with {kills} kills");
    println!("{sent} uploads, {workers} workers, {versions} versions, {kills} kills");
}

#[test]
fn a_fifth_of_all_requests_failing_in_every_way_it_converges_and_tells_no_lies() {
    let (cloud, project) = many(150);
    let ways = [
        json!({"status": 500}),
        json!({"status": 503, "html": true}),
        json!({"status": 429, "retry_after": 1}),
        json!({"reset": "before"}),
        json!({"reset": "after"}),
        json!({"error": {"status": 409, "code": 10035, "message": "two at once"}}),
        json!({"error": {"status": 429, "code": 971, "message": "Please wait"}, "retry_after": 1}),
        json!({"delay_ms": 100}),
    ];
    let every = 5 * ways.len();
    let rules: Vec<Value> = ways
        .iter()
        .enumerate()
        .map(|(at, way)| json!({"match": {"method": "PUT"}, "skip": 5 * at, "times": 0, "every": every, "do": way}))
        .collect();
    cloud.faults(&json!(rules));
    let mut runs = 0;
    loop {
        runs += 1;
        assert!(runs < 10, "it doesn't come to an end");
        let ended = cloud.engine(&project).deploy();
        let exit = ended.exit();
        let outcome = ended.outcome();
        // Who is given up is named; who is reported done is there.
        assert_eq!(outcome.failed, outcome.failures.len());
        let there = live(&cloud);
        let status = cloud.run(&project, &["status", "--format", "json"]).exits(0).json();
        let recorded = status["workers"].as_array().unwrap().iter().filter(|row| !row["digest"].is_null());
        for row in recorded {
            let digest = &there[row["worker"].as_str().unwrap()];
            assert!(digest.starts_with(row["digest"].as_str().unwrap()), "{row} isn't what is live: {digest}");
        }
        if exit == Exit::Done {
            break;
        }
    }
    cloud.clear_faults();
    assert_eq!(live(&cloud), desired(&cloud, &project));
    assert_eq!(cloud.deployed(&project).requests, 0);
}

#[test]
fn a_state_of_last_week_costs_uploads_and_loses_nobody() {
    let (cloud, project) = many(30);
    cloud.deployed(&project);
    let state = || {
        let names = std::fs::read_dir(project.path(".flotilla")).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = names.filter(|path| path.to_string_lossy().contains(".db")).collect();
        files
    };
    let week: Vec<(std::path::PathBuf, Vec<u8>)> =
        state().into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    project.edit("fleet.yaml", "V: \"0\"", "V: \"1\"");
    project.write("customers/new.yaml", "id: new\n");
    cloud.deployed(&project);
    for path in state() {
        std::fs::remove_file(path).unwrap();
    }
    for (path, bytes) in &week {
        std::fs::write(path, bytes).unwrap();
    }
    cloud.take();
    project.edit("fleet.yaml", "V: \"1\"", "V: \"2\"");
    assert_eq!(cloud.deployed(&project).applied, 31);
    assert_eq!(live(&cloud), desired(&cloud, &project));
    assert_eq!(cloud.deployed(&project).requests, 0);
}

#[test]
fn an_account_that_refuses_concurrent_writes_is_written_to_in_the_end() {
    let (cloud, project) = many(60);
    // Half of what comes is told that something else is being written.
    cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 0, "every": 2, "do": {
        "error": {"status": 409, "code": 10035, "message": "Multiple attempts to modify a resource occurred at the same time."}
    }}]));
    let mut applied = 0;
    while applied < 60 {
        let ended = cloud.engine(&project).deploy();
        let exit = ended.exit();
        let outcome = ended.outcome();
        assert!(outcome.failures.iter().all(|failed| failed.error.contains("10035")), "{outcome:?}");
        assert!(outcome.applied > 0 || exit == Exit::Done, "{outcome:?}");
        applied += outcome.applied;
    }
    cloud.clear_faults();
    assert_eq!(live(&cloud), desired(&cloud, &project));
}

#[test]
fn a_token_that_is_revoked_half_way_stops_once_and_the_next_one_goes_on() {
    let (cloud, project) = many(120);
    cloud.faults(&json!([{"match": {"method": "PUT"}, "skip": 50, "times": 0, "do": {
        "error": {"status": 401, "code": 10000, "message": "Authentication error"}
    }}]));
    let outcome = cloud.engine(&project).deploy().exits(Exit::SomeFailed).outcome();
    assert_eq!((outcome.applied, outcome.failed, outcome.skipped), (50, 1, 69));
    cloud.clear_faults();
    cloud.take();
    assert_eq!(cloud.deployed(&project).applied, 70);
    assert_eq!(uploads(&cloud.take()).len(), 70, "nobody twice");
    assert_eq!(live(&cloud), desired(&cloud, &project));
}
