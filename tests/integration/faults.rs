//! Shows what a deploy does when the platform fails, end to end: what is repeated and when, what is told, that the
//! other customers go on, and that the next deploy does what is left. And that nothing is sent anywhere else.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flotilla_local::RateLimit;
use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::engine::{Ended, Engine, Heard};
use crate::fleet::{ACCOUNT, Cloud, cache, fleet, uploads};
use crate::support::{Project, http_request, output};

/// Three workers that take one request each.
fn three() -> Project {
    fleet(&[("a", "workersDev: false\n"), ("b", "workersDev: false\n"), ("c", "workersDev: false\n")])
}

const DEPLOY: [&str; 4] = ["deploy", "--yes", "--format", "json"];

/// Deploys three workers, of which `b` meets a fault; what came of it.
fn with_fault(fault: Value) -> (Cloud, Project, Ended) {
    let (cloud, project) = (Cloud::start(), three());
    cloud.faults(&json!([fault]));
    let ended = cloud.engine(&project).deploy();
    (cloud, project, ended)
}

/// Asserts that `b` failed, and nothing else; the error that is told.
#[track_caller]
fn error(ended: &Ended) -> String {
    let failed: Vec<(&str, &str)> = ended
        .heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Failed(worker, error) => Some((worker.as_str(), error.as_str())),
            _ => None,
        })
        .collect();
    let [("t-b", error)] = failed[..] else { panic!("{failed:?}") };
    error.to_owned()
}

fn fault(times: u64, effect: Value) -> Value {
    json!({"match": {"method": "PUT", "path": "scripts/t-b"}, "times": times, "do": effect})
}

/// After a fault that doesn't end, the others are deployed, and without it the next deploy does just what is left.
#[track_caller]
fn others_went_on(cloud: &Cloud, project: &Project, ended: Ended) {
    let told = error(&ended);
    let outcome = ended.exits(Exit::SomeFailed).outcome();
    assert_eq!((outcome.applied, outcome.failed, outcome.skipped), (2, 1, 0));
    let [failed] = &outcome.failures[..] else { panic!("{:?}", outcome.failures) };
    assert_eq!((failed.worker.as_str(), failed.customer.as_str(), &failed.error), ("t-b", "b", &told));
    cloud.clear_faults();
    cloud.take();
    assert_eq!(cloud.deployed(project).applied, 1);
    assert_eq!(cloud.sent(), ["PUT scripts/t-b"]);
    cloud.is_up_to_date(project);
}

#[test]
fn what_is_refused_fails_at_once_with_the_reason() {
    // Side by side, as most of the time is waited.
    std::thread::scope(|scope| {
        for (status, code) in [(400, 10021), (403, 10023), (404, 10007), (409, 10040), (422, 1)] {
            scope.spawn(move || {
                let answer = json!({"error": {"status": status, "code": code, "message": "Not to our liking."}});
                let (cloud, project, ended) = with_fault(fault(0, answer));
                let told = format!("Not to our liking. (HTTP {status}, code {code})");
                assert!(error(&ended).starts_with(&told), "{:?}", ended.heard);
                assert_eq!(cloud.requests().iter().filter(|request| request.what == "PUT scripts/t-b").count(), 1);
                others_went_on(&cloud, &project, ended);
            });
        }
    });
}

#[test]
fn what_broke_is_repeated_until_it_succeeds() {
    std::thread::scope(|scope| {
        for effect in [
            json!({"status": 500}),
            json!({"status": 502, "html": true}),
            json!({"status": 200, "html": true}),
            json!({"reset": "before"}),
            json!({"reset": "after"}),
            json!({"error": {"status": 409, "code": 10035, "message": "two at once"}}),
        ] {
            scope.spawn(move || {
                let (cloud, project, ended) = with_fault(fault(2, effect.clone()));
                let outcome = ended.exits(Exit::Done).outcome();
                assert_eq!((outcome.applied, outcome.retries), (3, 2), "{effect}");
                let puts = cloud.take().into_iter().filter(|request| request.what == "PUT scripts/t-b").count();
                assert_eq!(puts, 3, "{effect}");
                cloud.is_up_to_date(&project);
            });
        }
    });
}

#[test]
fn what_stays_broken_fails_its_customer_and_no_other() {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (effect, told) in [
            (json!({"status": 503}), "(HTTP 503), 5 times in a row"),
            (json!({"status": 502, "html": true}), "a web page instead of JSON (HTTP 502), 5 times in a row"),
            (json!({"reset": "before"}), "the connection to Cloudflare broke"),
        ] {
            scope.spawn(move || {
                let (cloud, project, ended) = with_fault(fault(0, effect));
                assert!(error(&ended).contains(told), "{:?}", ended.heard);
                others_went_on(&cloud, &project, ended);
            });
        }
    });
    assert!(start.elapsed() >= Duration::from_secs(7), "it waits between attempts");
}

#[test]
fn a_web_page_that_refuses_is_told_as_one() {
    let (cloud, project, ended) = with_fault(fault(0, json!({"status": 403, "html": true})));
    let told = error(&ended);
    assert!(told.contains("a web page instead of JSON (HTTP 403)") && !told.contains('<'), "{told}");
    others_went_on(&cloud, &project, ended);
}

#[test]
fn a_wrong_token_fails_once_and_stops_the_rest() {
    let cloud = Cloud::start_with(|options| options.tokens = vec!["another".to_owned()]);
    let project = fleet(&[]);
    for at in 0..30 {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\n"));
    }
    let run = cloud.run(&project, &DEPLOY).exits(1);
    let report = run.json();
    let error = report["error"].as_str().unwrap();
    assert!(error.contains(&format!("the token of account {ACCOUNT} was rejected")), "{error}");
    assert!(!format!("{run:?}").contains("test-token"));
    assert_eq!(cloud.take().len(), 1, "the first look tells it");
}

#[test]
fn a_429_is_waited_for_and_counted() {
    let start = Instant::now();
    let (_cloud, _project, ended) = with_fault(fault(2, json!({"status": 429, "retry_after": 2})));
    let outcome = ended.exits(Exit::Done).outcome();
    assert_eq!((outcome.applied, outcome.throttled, outcome.retries), (3, 2, 0));
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn below_a_limit_no_request_is_ever_rejected_for_quota() {
    let limit = RateLimit { requests: 20, window: Duration::from_secs(2) };
    let cloud = Cloud::start_with(|options| options.limit = limit);
    let project = fleet(&[]);
    let fleet = project.read("fleet.yaml");
    let limits = "accounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    \
                  token: { secret: CLOUDFLARE_API_TOKEN }\n    apiLimit: { requests: 20, seconds: 2 }\n";
    project.write("fleet.yaml", format!("{fleet}{limits}"));
    for at in 0..35 {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\n"));
    }
    let start = Instant::now();
    let outcome = cloud.deployed(&project);
    let took = start.elapsed();
    assert_eq!((outcome.applied, outcome.requests, outcome.throttled), (35, 106, 0));
    let is_look = |what: &str| what.ends_with("/settings");
    assert!(cloud.take().iter().all(|request| request.status == if is_look(&request.what) { 404 } else { 200 }));
    // 19 in each window, one being left for people: the sixth window holds the last ones.
    assert!(took >= Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_quota_that_is_smaller_than_expected_is_found_out_and_kept() {
    let limit = RateLimit { requests: 20, window: Duration::from_secs(2) };
    let cloud = Cloud::start_with(|options| options.limit = limit);
    let project = fleet(&[]);
    for at in 0..30 {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\nworkersDev: false\n"));
    }
    // The fleet believes in 1,200 requests; only the answers tell otherwise.
    let outcome = cloud.deployed(&project);
    assert_eq!(outcome.applied, 30);
    assert!(outcome.throttled <= 8, "those in flight: {outcome:?}");
}

#[test]
fn slow_answers_are_waited_for() {
    let (_cloud, _project, ended) = with_fault(fault(1, json!({"delay_ms": 3000})));
    let outcome = ended.exits(Exit::Done).outcome();
    assert_eq!((outcome.applied, outcome.retries, outcome.throttled), (3, 0, 0));
}

/// A server that answers each connection's request as it is told, by how many there were before; then it closes it.
struct Stub {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn start(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}/client/v4", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut nth = 0;
            for stream in listener.incoming().flatten() {
                let (head, _) = http_request(&stream);
                let request = head.lines().next().unwrap_or_default().to_owned();
                // The looks before a worker is created, at all workers and at that one, are not what these tests are about.
                if request.starts_with("GET ") && request.contains("/settings ") {
                    let none =
                        r#"{"success":false,"errors":[{"code":10007,"message":"no"}],"messages":[],"result":null}"#;
                    let _ = (&stream).write_all(&http("404 Not Found", none.len(), none));
                    continue;
                }
                if request.starts_with("GET ") && request.contains("/workers/scripts ") {
                    let empty = r#"{"success":true,"errors":[],"messages":[],"result":[]}"#;
                    let _ = (&stream).write_all(&http("200 OK", empty.len(), empty));
                    continue;
                }
                log.lock().unwrap().push(request);
                let _ = (&stream).write_all(&answer(nth));
                nth += 1;
            }
        });
        Stub { base, seen }
    }

    fn deploy(&self, project: &Project) -> Ended {
        Engine::new(project, &self.base).deploy()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn http(status: &str, length: usize, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

const GOOD: &str = r#"{"success":true,"errors":[],"messages":[],"result":{"id":"t-a","etag":"e"}}"#;

#[test]
fn answers_that_are_cut_off_or_no_envelope_are_unknown_outcomes() {
    std::thread::scope(|scope| {
        for broken in [
            // JSON that ends in the middle, with a length that fits, one that is too long, and one that is too short.
            http("200 OK", 20, &GOOD[..20]),
            http("200 OK", GOOD.len(), &GOOD[..20]),
            http("200 OK", 7, GOOD),
            http("200 OK", 0, ""),
            b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(),
            b"complete nonsense\r\n\r\n".to_vec(),
            Vec::new(),
        ] {
            scope.spawn(move || {
                let project = fleet(&[("a", "workersDev: false\n")]);
                let shown = String::from_utf8_lossy(&broken).into_owned();
                let stub =
                    Stub::start(move |nth| if nth < 2 { broken.clone() } else { http("200 OK", GOOD.len(), GOOD) });
                let outcome = stub.deploy(&project).exits(Exit::Done).outcome();
                let counted = (outcome.applied, outcome.requests, outcome.retries);
                assert_eq!((counted, stub.count()), ((1, 5, 2), 3), "two looks and three attempts: {shown:?}");
                stub.deploy(&project).exits(Exit::Done).is_up_to_date();
                assert_eq!(stub.count(), 3, "{shown:?}");
            });
        }
    });
}

#[test]
fn json_of_another_form_is_no_success() {
    let unknown = "Cloudflare responded with neither success nor an error (HTTP 200), 5 times in a row";
    let other = |why: &str| format!("Cloudflare's response is not the documented one: {why}, 5 times in a row");
    std::thread::scope(|scope| {
        for (answer, told) in [
            ("{}", unknown.to_owned()),
            ("[]", unknown.to_owned()),
            (r#"{"success":"true"}"#, unknown.to_owned()),
            (r#"{"success":true}"#, other("nothing instead of an object")),
            (r#"{"success":true,"result":null}"#, other("nothing instead of an object")),
            (r#"{"success":true,"result":{"id":"t-b","etag":"e"}}"#, other("`id` is `t-b`")),
            (
                r#"{"success":false,"errors":[{"code":7003,"message":"No route for that URI"}]}"#,
                "No route for that URI (HTTP 200, code 7003)".to_owned(),
            ),
        ] {
            scope.spawn(move || {
                let project = fleet(&[("a", "workersDev: false\n")]);
                let stub = Stub::start(move |_| http("200 OK", answer.len(), answer));
                let outcome = stub.deploy(&project).exits(Exit::SomeFailed).outcome();
                assert_eq!(outcome.failures[0].error, told, "{answer}");
            });
        }
    });
}

#[test]
fn a_redirect_takes_the_token_nowhere() {
    let other = Stub::start(|_| http("200 OK", GOOD.len(), GOOD));
    let location = other.base.clone();
    let stub = Stub::start(move |_| {
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        .into_bytes()
    });
    let project = fleet(&[("a", "workersDev: false\n")]);
    stub.deploy(&project).exits(Exit::SomeFailed);
    assert_eq!(other.count(), 0);
}

#[test]
fn a_token_is_sent_over_tls_or_stays_on_this_machine() {
    let project = three();
    for base in [
        "http://api.example.com/client/v4",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "",
    ] {
        let run = output(
            project
                .command(&DEPLOY)
                .env("CLOUDFLARE_API_BASE_URL", base)
                .env("CLOUDFLARE_API_TOKEN", "test-token")
                .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
                .env("FLOTILLA_CACHE_DIR", cache())
                // An empty base is the real one: it must not be reached from here.
                .env("HTTPS_PROXY", "http://127.0.0.1:9")
                .env_remove("NO_PROXY")
                .env_remove("no_proxy"),
        );
        if base.is_empty() {
            let error = run.json()["error"].to_string();
            assert!(error.contains("resources can't be listed"), "{run:?}");
        } else {
            let run = run.exits(1);
            assert!(run.stderr.contains("unencrypted"), "{base}: {}", run.stderr);
        }
    }
}

#[test]
fn an_https_address_is_spoken_to_in_tls_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let base = format!("https://{}/client/v4", listener.local_addr().expect("an address"));
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 3];
        stream.read_exact(&mut head).expect("the first bytes");
        // No TLS at all; and then nobody.
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        head
    });
    let project = fleet(&[("a", "workersDev: false\n")]);
    let run = output(
        project
            .command(&DEPLOY)
            .env("CLOUDFLARE_API_BASE_URL", base)
            .env("CLOUDFLARE_API_TOKEN", "test-token")
            .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
            .env("FLOTILLA_CACHE_DIR", cache()),
    );
    // A handshake record of TLS: type 22, version 3.x.
    assert_eq!(first.join().expect("a client came")[..2], [22, 3]);
    let error = run.exits(1).json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("can't be reached"), "{error}");
}

#[test]
fn nothing_is_sent_anywhere_but_to_the_api() {
    // Whatever leaves this machine would go through the proxy.
    let proxy = Stub::start(|_| http("502 Bad Gateway", 0, ""));
    let address = proxy.base.strip_suffix("/client/v4").unwrap();
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", "domains: [acme.example.com]\n")]));
    for arguments in
        [&["check"][..], &["build"], &["plan"], &["deploy", "--yes"], &["deploy", "--yes", "--all"], &["status"]]
    {
        let mut command = cloud.command(&project, arguments);
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env(name, address);
        }
        output(command.env_remove("NO_PROXY").env_remove("no_proxy")).exits(0);
    }
    assert_eq!(*proxy.seen.lock().unwrap(), Vec::<String>::new());
    assert_eq!(uploads(&cloud.take()).get("t-acme"), Some(&2));
}

#[test]
fn what_stays_on_this_machine_needs_no_certificates() {
    // As in a container without any.
    let (cloud, project) = (Cloud::start(), three());
    let mut deploy = cloud.command(&project, &DEPLOY);
    let outcome = output(deploy.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere")).exits(0).json();
    assert_eq!(outcome["applied"], 3, "{outcome}");
}
