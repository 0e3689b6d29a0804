//! Shows that whoever answers, or writes a project's files, gets neither a token nor more time and memory than an honest answer takes.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flotilla_deploy::cloudflare::{Cloudflare, Network, health};
use flotilla_deploy::verify::Web as _;
use flotilla_model::paging::Page;
use flotilla_model::platform::{Call, CallError, Health, HealthCheck, Home, Placeholders, Platform as _};
use secrecy::SecretString;
use serde_json::json;

use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::support::{Project, Run, http_request, output};

/// A server that does this with each request; its address, and what it was sent.
struct Server {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (seen, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let request = http_request(&stream);
                    log.lock().expect("no test panics in it").push(format!("{request:?}"));
                    answer(&mut stream);
                });
            }
        });
        Server { base, seen }
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("no test panics in it").len()
    }

    fn cloudflare(&self) -> Cloudflare {
        let tokens = HashMap::from([(String::new(), SecretString::from("canary-token"))]);
        Cloudflare::new(&self.base, tokens).expect("a client")
    }
}

/// Writes the beginning of an answer, and then a piece again and again, as long as somebody reads.
fn endless(stream: &mut TcpStream, head: &str, piece: &str, pause: Duration) -> usize {
    let mut sent = 0;
    let mut write = |text: &str| {
        sent += text.len();
        stream.write_all(text.as_bytes()).is_ok()
    };
    let pieces = piece.repeat(if pause.is_zero() { 4096 / piece.len().max(1) } else { 1 });
    let mut reads = write(head);
    while reads {
        std::thread::sleep(pause);
        reads = write(&pieces);
    }
    sent
}

fn home() -> Home {
    Home { account_id: ACCOUNT.to_owned(), namespace: None }
}

fn check(server: &Server) -> HealthCheck {
    let probe = serde_json::from_value(json!({ "name": "health", "path": "/health" })).expect("a probe");
    HealthCheck::new(&[probe], server.base.clone(), Placeholders::default()).expect("a check")
}

const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";

#[test]
fn an_answer_without_an_end_is_given_up_at_its_limit() {
    let lists = [
        (Call::ListWorkers { tags: None, page: Page::First }, "{\"id\":\"w\"},"),
        (Call::ListDomains { page: Page::First }, "{\"id\":\"d\",\"hostname\":\"a.example\"},"),
        (Call::ListZones { name: None, page: Page::First }, "{\"id\":\"z\"},"),
        (Call::ListKv { page: Page::First }, "{},"),
        (Call::ListDatabases { name: None, page: Page::First }, "0,"),
    ];
    for (call, entry) in lists {
        let most = Arc::new(AtomicUsize::new(0));
        let sent = Arc::clone(&most);
        let server = Server::start(move |stream| {
            let head = format!("{JSON}{{\"success\":true,\"errors\":[],\"result\":[");
            sent.fetch_max(endless(stream, &head, entry, Duration::ZERO), Ordering::SeqCst);
        });
        let start = Instant::now();
        let (result, _) = server.cloudflare().call(&home(), &call);
        assert!(matches!(result, Err(CallError::Unavailable(_) | CallError::Rejected { .. })), "{entry}: {result:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "{entry}: {:?}", start.elapsed());
        // The server notices a moment later than the client.
        std::thread::sleep(Duration::from_millis(300));
        assert!(most.load(Ordering::SeqCst) < 64 << 20, "{entry}: {} bytes", most.load(Ordering::SeqCst));
    }
}

#[test]
fn a_worker_has_parts_in_numbers_that_workers_have() {
    for piece in ["\"tag\",", "{\"code\":1},"] {
        let field = if piece.starts_with('"') {
            "\"success\":true,\"result\":[{\"id\":\"w\",\"tags\":["
        } else {
            "\"success\":false,\"errors\":["
        };
        let server = Server::start(move |stream| {
            endless(stream, &format!("{JSON}{{{field}"), piece, Duration::ZERO);
        });
        let (result, _) = server.cloudflare().call(&home(), &Call::ListWorkers { tags: None, page: Page::First });
        let Err(CallError::Unavailable(message)) = result else { panic!("{result:?}") };
        assert!(message.contains("more than 100 entries"), "{message}");
    }
}

#[test]
fn a_health_check_reads_little_and_waits_for_seconds() {
    let server = Server::start(|stream| {
        endless(stream, JSON, "{\"status\":\"healthy\"}", Duration::ZERO);
    });
    let start = Instant::now();
    // Its status is all that this check asks for; the body is cut off.
    assert!(matches!(health(&check(&server)), Health::Healthy));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let network = Network::new().expect("the network");
    assert_eq!(network.get(&server.base).expect("an answer").body, serde_json::Value::Null);
    // One byte a second, in its head or in its body; both at once, as that takes its time.
    std::thread::scope(|scope| {
        for head in ["HTTP/1.1 200 OK\r\nx-slow: ", JSON] {
            scope.spawn(move || {
                let server = Server::start(|stream| {
                    endless(stream, head, "x", Duration::from_secs(1));
                });
                let start = Instant::now();
                assert!(matches!(health(&check(&server)), Health::Unreachable(_)), "{head}");
                assert!(start.elapsed() < Duration::from_secs(20), "{head}: {:?}", start.elapsed());
            });
        }
    });
}

#[test]
fn a_health_check_follows_no_redirect() {
    let other = Server::start(|stream| drop(stream.write_all(format!("{JSON}{{}}").as_bytes())));
    let location = other.base.clone();
    let server = Server::start(move |stream| {
        let head = "HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0";
        drop(stream.write_all(format!("{head}\r\nlocation: {location}/health\r\n\r\n").as_bytes()));
    });
    assert!(matches!(health(&check(&server)), Health::Unhealthy(_)));
    assert_eq!((server.count(), other.count()), (1, 0));
}

#[test]
fn a_wait_that_nobody_means_is_bounded() {
    for seconds in ["18446744073709551616", "18446744073709551615", "-1", "1e99", "a day", ""] {
        let server = Server::start(move |stream| {
            let head = format!("HTTP/1.1 429 Too Many Requests\r\nretry-after: {seconds}\r\nconnection: close");
            drop(stream.write_all(format!("{head}\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes()));
        });
        let (result, _) = server.cloudflare().call(&home(), &Call::ListKv { page: Page::First });
        assert!(matches!(result, Err(CallError::Throttled { .. })), "{seconds}: {result:?}");
    }
}

/// Runs the program with a token in the environment, and no address there.
fn run(project: &Project, arguments: &[&str]) -> Run {
    let mut command = project.command(arguments);
    command
        .env("CLOUDFLARE_API_TOKEN", "canary-token")
        .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
        .env("FLOTILLA_CACHE_DIR", cache());
    output(&mut command)
}

#[test]
fn a_projects_file_does_not_decide_where_the_token_goes() {
    let thief = Server::start(|stream| {
        let mut rest = [0; 64];
        let _ =
            stream.set_read_timeout(Some(Duration::from_millis(10))).and_then(|()| stream.read(&mut rest).map(drop));
    });
    let project = fleet(&[("a", "workersDev: false\n")]);
    project.write(".env", format!("CLOUDFLARE_API_BASE_URL={}/client/v4\n", thief.base));
    for arguments in [
        &["plan"][..],
        &["plan", "--refresh"],
        &["deploy", "--yes"],
        &["deploy", "--yes", "--refresh"],
        &["rollback", "a", "--yes"],
        &["prune", "--yes"],
        &["state", "rebuild", "--yes"],
        &["preview", "up", "--id", "1", "--yes"],
        &["import", ".", "--account", ACCOUNT, "--into", "imported"],
    ] {
        let ended = run(&project, arguments);
        assert_ne!(ended.code, 0, "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.contains("canary"), "{ended:?}");
        if arguments[0] != "import" {
            assert_eq!(ended.code, 5, "{arguments:?}: {ended:?}");
            assert!(ended.stderr.contains(".env sets CLOUDFLARE_API_BASE_URL"), "{arguments:?}: {}", ended.stderr);
        }
        assert_eq!(thief.count(), 0, "{arguments:?}");
    }
    // Nor does a file that fleet.yaml names.
    std::fs::rename(project.path(".env"), project.path("team.env")).expect("a file");
    let file = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{file}secrets: [{{ env: true }}, {{ dotenv: team.env }}]\n"));
    assert!(run(&project, &["plan"]).exits(5).stderr.contains("team.env sets CLOUDFLARE_API_BASE_URL"));
    assert_eq!(thief.count(), 0);
}

#[test]
fn the_environment_and_a_named_file_decide_where_the_token_goes() {
    let (cloud, project) = (Cloud::start(), fleet(&[("a", "workersDev: false\n")]));
    project.write(".env", "CLOUDFLARE_API_BASE_URL=https://evil.example\n");
    cloud.run(&project, &["plan", "--refresh"]).exits(0);
    project.write("mine.env", format!("CLOUDFLARE_API_BASE_URL={}\n", cloud.base()));
    run(&project, &["plan", "--refresh", "--env-file", "mine.env"]).exits(0);
    // Cloudflare's own address changes nothing.
    project.write(".env", "CLOUDFLARE_API_BASE_URL=https://api.cloudflare.com/client/v4/\n");
    run(&project, &["plan"]).exits(0);
}

#[test]
fn no_other_host_hides_behind_a_user_name() {
    let project = fleet(&[("a", "workersDev: false\n")]);
    let thief = Server::start(|_| ());
    let host = thief.base.trim_start_matches("http://");
    for base in [
        format!("http://localhost:x@{host}/client/v4"),
        format!("http://127.0.0.1@{host}/client/v4"),
        format!("https://api.cloudflare.com:x@{host}/client/v4"),
        format!("http://canary@{host}"),
    ] {
        let mut command = project.command(&["deploy", "--yes"]);
        command
            .env("CLOUDFLARE_API_BASE_URL", &base)
            .env("CLOUDFLARE_API_TOKEN", "canary-token")
            .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
            .env("FLOTILLA_CACHE_DIR", cache());
        let ended = output(&mut command).exits(1);
        assert!(ended.stderr.contains("a user name or a password before its host"), "{base}: {}", ended.stderr);
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    }
    assert_eq!(thief.count(), 0);
}
