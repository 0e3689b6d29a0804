//! Limits, faults, the journal, parallel uploads and restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_local::RateLimit;
use serde_json::{Value, json};

use super::client::{ACCOUNT, form, local};
use crate::folders::temporary_folder;

const INDEX: &[(&str, &str)] = &[("index.js", "export default {fetch: () => new Response('hi')}")];

#[test]
fn over_the_quota_everything_is_refused_until_the_block_ends() {
    let now = Arc::new(AtomicU64::new(1_800_000_000));
    let clock = now.clone();
    let local = local(|options| {
        options.limit = RateLimit { requests: 3, window: Duration::from_secs(300) };
        options.clock = Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
    });
    let get = |token: &str| {
        local.send("GET", "/client/v4/accounts", &[("authorization", &format!("Bearer {token}"))], Vec::new()).unwrap()
    };
    let header = |answer: &reqwest::blocking::Response, name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let first = get("a");
    assert_eq!(header(&first, "ratelimit"), "\"default\";r=2;t=300");
    assert_eq!(header(&first, "ratelimit-policy"), "\"default\";q=3;w=300");
    for _ in 0..2 {
        get("a");
    }
    now.fetch_add(100, Ordering::Relaxed);
    let blocked = get("a");
    assert_eq!((blocked.status().as_u16(), header(&blocked, "retry-after")), (429, "300".to_owned()));
    assert_eq!(blocked.json::<Value>().unwrap()["errors"][0]["code"], 971);
    assert_eq!(get("b").status(), 200, "another token has a quota of its own");
    now.fetch_add(299, Ordering::Relaxed);
    assert_eq!(header(&get("a"), "retry-after"), "1");
    now.fetch_add(1, Ordering::Relaxed);
    assert_eq!(get("a").status(), 200);
}

#[test]
fn faults_hit_and_the_journal_tells() {
    let local = local(|_| {});
    let control = |method: &str, path: &str, body: Value| {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        local.send(method, &format!("/__local/{path}"), &[("content-type", "application/json")], body).unwrap()
    };
    let faults = json!([
        {"match": {"method": "PUT", "path": "scripts/a"}, "times": 1, "do": {"status": 429, "retry_after": 2}},
        {"match": {"method": "PUT", "path": "scripts/a"}, "skip": 1, "do": {"status": 500, "html": true}},
        {"match": {"method": "PUT", "path": "scripts/a"}, "skip": 2, "do": {"error": {"status": 409, "code": 10035, "message": "busy"}}},
        {"match": {"method": "PUT", "path": "scripts/b"}, "do": {"reset": "before"}},
        {"match": {"method": "PUT", "path": "scripts/c"}, "do": {"reset": "after"}},
        {"match": {"path": "scripts/d"}, "do": {"delay_ms": 300}},
    ]);
    assert_eq!(control("POST", "faults", faults).status(), 200);
    assert_eq!(control("POST", "faults", json!([{"do": {"nonsense": 1}}])).status(), 400);
    let put = |name: &str| {
        let metadata = json!({"main_module": "index.js", "bindings": [{"type": "secret_text", "name": "S", "text": "canary-one"}]});
        let (kind, body) = form(&[("metadata", "application/json", metadata.to_string().as_bytes())], INDEX);
        let headers = [("authorization", "Bearer canary-token"), ("content-type", kind.as_str())];
        local.send("PUT", &format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/{name}"), &headers, body)
    };
    let throttled = put("a").unwrap();
    assert_eq!((throttled.status().as_u16(), throttled.headers()["retry-after"].to_str().unwrap()), (429, "2"));
    let page = put("a").unwrap();
    assert_eq!(page.status(), 500);
    assert!(page.text().unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(put("a").unwrap().json::<Value>().unwrap()["errors"][0]["code"], 10035);
    assert!(put("b").is_err() && put("c").is_err());
    let names: Vec<Value> =
        local.ok("GET", "@/workers/scripts", None).as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(names, ["c"], "c was applied before the connection was dropped");
    let began = std::time::Instant::now();
    assert_eq!(local.refused("GET", "@/workers/scripts/d/settings", None), (404, 10007));
    assert!(began.elapsed() >= Duration::from_millis(300));
    control("DELETE", "faults", Value::Null);
    assert_eq!(put("b").unwrap().status(), 200);

    local.ok(
        "PUT",
        "@/workers/scripts/b/secrets",
        Some(json!({"name": "S", "text": "canary-two", "type": "secret_text"})),
    );
    let journal = control("GET", "requests", Value::Null).text().unwrap();
    assert!(!journal.contains("canary"), "{journal}");
    let journal: Value = serde_json::from_str(&journal).unwrap();
    let statuses: Vec<&Value> = journal["requests"].as_array().unwrap().iter().map(|entry| &entry["status"]).collect();
    assert_eq!(statuses, [429, 500, 409, 0, 0, 200, 404, 200, 200]);
    assert_eq!(journal["requests"][0]["parts"][0]["json"]["bindings"][0]["text"], "***");
    assert_eq!(
        journal["requests"][0]["parts"][1],
        json!({"name": "index.js", "content_type": "application/javascript+module", "size": INDEX[0].1.len()})
    );
    control("DELETE", "requests", Value::Null);
    assert_eq!(control("GET", "requests", Value::Null).json::<Value>().unwrap()["requests"], json!([]));
}

#[test]
fn uploads_in_parallel_all_arrive_and_survive_a_restart_without_plain_secrets() {
    let mut local = local(|options| options.limit.requests = 100_000);
    let runtime = format!("export default {{}}; // {}", "x".repeat(200_000));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (local, runtime) = (&local, &runtime);
            scope.spawn(move || {
                for number in 0..20 {
                    let bindings =
                        json!([{"type": "secret_text", "name": "S", "text": format!("canary-{thread}-{number}")}]);
                    let index = format!("import x from './runtime.js'; export default x // {}", number % 5);
                    local.put(
                        &format!("w{thread}-{number}"),
                        bindings,
                        &[("index.js", &index), ("runtime.js", runtime)],
                    );
                }
            });
        }
    });
    let before = local.ok("GET", "@/workers/scripts", None);
    assert_eq!(before.as_array().unwrap().len(), 160);
    local.restart(|_| {});
    assert_eq!(local.ok("GET", "@/workers/scripts", None), before);
    local.running.take().unwrap().stop();
    let mut bytes = 0;
    for file in std::fs::read_dir(local.folder.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        bytes += content.len();
        assert!(!content.windows(7).any(|window| window == b"canary-"), "a secret is stored in clear");
    }
    assert!(bytes < 3_000_000, "the runtime is stored once, not 160 times: {bytes} bytes");
}

#[test]
fn an_address_in_use_is_said_so() {
    let one = local(|_| {});
    let address = one.running.as_ref().unwrap().address();
    let folder = temporary_folder();
    let options = flotilla_local::Options { address, ..flotilla_local::Options::new(folder.path()) };
    let error = format!("{:#}", flotilla_local::start(options).unwrap_err());
    assert!(error.contains(&format!("port {}", address.port())) && error.to_lowercase().contains("in use"), "{error}");
}
