//! The events of workers: what a tail streams, held against the OpenAPI document, against flotilla's own client and against wrangler.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use flotilla_http::{Kind, Received, Timeouts, WebSocket};
use serde_json::{Value, json};

use super::client::{ACCOUNT, Local, local, workerd};
use crate::folders::temporary_folder;
use crate::tools::wrangler;

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    silence: Duration::from_secs(10),
    total: Duration::from_secs(10),
    idle: Duration::from_secs(10),
};
const LARGEST: usize = 1 << 20;

/// A worker that prints at each level, throws on request, and works on after its answer.
const TALKING: &str = "console.log('at the top');
export default { async fetch(request, env, ctx) {
  const { pathname } = new URL(request.url);
  console.log('got', pathname, { a: [1] });
  console.warn('careful'); console.error(new Error('logged')); console.debug('d'); console.info(env.SECRET);
  ctx.waitUntil(scheduler.wait(20).then(() => console.log('later')));
  if (pathname === '/throw') throw new TypeError('boom');
  return new Response('ok', { status: 201 });
} };";

fn talking(change: impl FnOnce(&mut flotilla_local::Options)) -> Local {
    let local = local(|options| {
        options.workerd = workerd();
        change(options);
    });
    let secret = json!([{"type": "secret_text", "name": "SECRET", "text": "canary/secret"}]);
    local.put("talk", secret, &[("index.js", TALKING)]);
    local
}

/// Starts a tail; its id and its open stream.
fn tail(local: &Local, filters: Value) -> (String, WebSocket) {
    let made = local.ok("POST", "@/workers/scripts/talk/tails", Some(json!({"filters": filters})));
    let url = made["url"].as_str().unwrap();
    assert!(made["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{made}");
    let socket = WebSocket::open(url, "trace-v1", TIMEOUTS, LARGEST).unwrap_or_else(|error| panic!("{error}"));
    (made["id"].as_str().unwrap().to_owned(), socket)
}

/// The next event of a stream.
fn next(socket: &mut WebSocket) -> Value {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        match socket.receive(Duration::from_secs(1)).unwrap() {
            Received::Message(text) => return serde_json::from_str(&text).unwrap(),
            Received::Nothing | Received::Heartbeat => {}
            closed @ Received::Closed { .. } => panic!("{closed:?}"),
        }
    }
    panic!("no event");
}

fn quiet(socket: &mut WebSocket) {
    assert_eq!(socket.receive(Duration::from_millis(700)).unwrap(), Received::Nothing);
}

#[test]
fn a_tail_streams_requests_console_lines_and_exceptions() {
    let local = talking(|_| {});
    let (id, mut socket) = tail(&local, json!([]));
    local.send("POST", "/x?key=canary%2Fsecret", &[("host", "talk.localhost:1"), ("cookie", "c")], Vec::new()).unwrap();
    let printed = next(&mut socket);
    assert_eq!((&printed["event"], &printed["logs"][0]["message"]), (&Value::Null, &json!(["at the top"])));
    let event = next(&mut socket);
    assert_eq!((&event["outcome"], &event["scriptName"]), (&json!("ok"), &json!("talk")));
    let request = &event["event"]["request"];
    assert_eq!((&request["method"], &request["url"]), (&json!("POST"), &json!("http://talk.localhost:1/x?key=***")));
    assert_eq!(
        (&request["headers"]["cookie"], &event["event"]["response"]["status"]),
        (&json!("REDACTED"), &json!(201))
    );
    let lines: Vec<(&Value, &Value)> =
        event["logs"].as_array().unwrap().iter().map(|log| (&log["level"], &log["message"])).collect();
    let expect = [
        ("log", json!(["got", "/x", {"a": [1]}])),
        ("warn", json!(["careful"])),
        ("error", json!(["Error: logged"])),
        ("debug", json!(["d"])),
        // The value of a secret is nowhere in an event.
        ("info", json!(["***"])),
        ("log", json!(["later"])),
    ];
    let expect: Vec<(Value, Value)> = expect.into_iter().map(|(level, message)| (level.into(), message)).collect();
    assert_eq!(lines, expect.iter().map(|(level, message)| (level, message)).collect::<Vec<_>>());
    let version =
        local.ok("GET", "@/workers/scripts/talk/deployments", None)["deployments"][0]["versions"][0]["version_id"]
            .clone();
    assert_eq!(event["scriptVersion"]["id"], version);

    local.get("talk.localhost", "/throw");
    let event = next(&mut socket);
    let exception = &event["exceptions"][0];
    assert_eq!(
        (&event["outcome"], &exception["name"], &exception["message"]),
        (&json!("exception"), &json!("TypeError"), &json!("boom"))
    );
    assert!(exception["stack"].as_str().unwrap().contains("index.js:7"), "{exception}");

    // A new version's events go on, and one that doesn't start says why.
    local.put("talk", json!([]), &[("index.js", "export default { fetch( }")]);
    assert_eq!(local.get("talk.localhost", "/broken").0, 500);
    let event = next(&mut socket);
    assert_eq!(
        (&event["outcome"], &event["event"]["request"]["url"]),
        (&json!("exception"), &json!("http://talk.localhost/broken"))
    );
    assert!(event["exceptions"][0]["message"].as_str().unwrap().contains("SyntaxError"), "{event}");

    // A heartbeat is answered; a deleted tail ends its stream.
    socket.ping().unwrap();
    assert_eq!(socket.receive(Duration::from_secs(5)).unwrap(), Received::Heartbeat);
    local.ok("DELETE", &format!("@/workers/scripts/talk/tails/{id}"), None);
    let closed = socket.receive(Duration::from_secs(5)).unwrap();
    assert_eq!(closed, Received::Closed { normal: true, reason: "the tail was deleted".to_owned() });
    assert_eq!(local.refused("DELETE", &format!("@/workers/scripts/talk/tails/{id}"), None), (404, 10007));
    assert_eq!(local.refused("POST", "@/workers/scripts/none/tails", Some(json!({"filters": []}))), (404, 10007));
    assert_eq!(
        local.refused("POST", "@/workers/scripts/talk/tails", Some(json!({"filters": [{"x": 1}]}))),
        (400, 10026)
    );
}

#[test]
fn filters_choose_and_other_workers_stay_out() {
    let local = talking(|_| {});
    local.put("other", json!([]), &[("index.js", TALKING)]);
    let (_, mut errors) = tail(&local, json!([{"outcome": ["exception"]}]));
    let (_, mut posts) = tail(&local, json!([{"method": ["POST"]}, {"query": "careful"}]));
    let (_, mut none) = tail(&local, json!([{"query": "nobody prints this"}]));
    local.get("talk.localhost", "/fine");
    local.get("other.localhost", "/throw");
    local.get("talk.localhost", "/throw");
    local.send("POST", "/post", &[("host", "talk.localhost")], Vec::new()).unwrap();
    assert_eq!(next(&mut errors)["event"]["request"]["url"], "http://talk.localhost/throw");
    assert_eq!(next(&mut posts)["event"]["request"]["method"], "POST");
    for socket in [&mut errors, &mut posts, &mut none] {
        quiet(socket);
    }
}

#[test]
fn a_stream_is_for_who_started_it() {
    let local = talking(|_| {});
    let made = local.ok("POST", "@/workers/scripts/talk/tails", Some(json!({"filters": []})));
    let url = made["url"].as_str().unwrap();
    let refused = |url: &str, protocol: &str| WebSocket::open(url, protocol, TIMEOUTS, LARGEST).err().unwrap();
    let other = url.replace(made["id"].as_str().unwrap(), "0123456789abcdef0123456789abcdef");
    assert!(refused(&other, "trace-v1").cause.contains("404"));
    assert!(refused(url, "trace-v2").cause.contains("400"));
    // In the clear only within this machine.
    assert_eq!(refused("ws://tail.example/x", "trace-v1").kind, Kind::Request);
    assert_eq!(refused("https://tail.example/x", "trace-v1").kind, Kind::Request);
    // A web page gets none, though it may know the address.
    let path = &url[url.find("/__local").unwrap()..];
    let headers = [
        ("host", "127.0.0.1"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "trace-v1"),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(local.send("GET", path, &headers, Vec::new()).unwrap().status(), 403);
    assert_eq!(local.send("GET", path, &headers[1..6], Vec::new()).unwrap().status(), 101);
    // Ten at once, as at Cloudflare.
    for _ in 1..10 {
        local.ok("POST", "@/workers/scripts/talk/tails", Some(json!({"filters": []})));
    }
    assert_eq!(local.refused("POST", "@/workers/scripts/talk/tails", Some(json!({"filters": []}))).0, 400);
}

#[test]
fn a_message_that_is_too_long_is_not_read() {
    let local = talking(|_| {});
    let made = local.ok("POST", "@/workers/scripts/talk/tails", Some(json!({"filters": []})));
    let mut socket = WebSocket::open(made["url"].as_str().unwrap(), "trace-v1", TIMEOUTS, 64).unwrap();
    local.get("talk.localhost", "/");
    let error = std::iter::from_fn(|| Some(socket.receive(Duration::from_secs(1)))).find_map(Result::err);
    assert_eq!(error.unwrap().kind, Kind::TooLong);
}

#[test]
fn nothing_that_workers_print_reaches_the_folder() {
    let local = talking(|_| {});
    local.get("talk.localhost", "/a-path-that-is-nowhere");
    std::thread::sleep(Duration::from_millis(300));
    for entry in std::fs::read_dir(local.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        for text in ["a-path-that-is-nowhere", "canary/secret"] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
        }
    }
}

/// The lines of a command's stdout and stderr.
fn lines_of(child: &mut std::process::Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let (stdout, stderr) = (BufReader::new(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let also = sender.clone();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| also.send(line)));
    receiver
}

/// A proxy that leads to this machine and nowhere else: wrangler takes the proxy for its WebSocket whatever NO_PROXY says, and without
/// one, it could reach others.
fn proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).ok()?;
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).ok()?;
                let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
                let mut server = TcpStream::connect(target.strip_prefix("127.0.0.1:").map(|_| target)?).ok()?;
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
                let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::io::copy(&mut server, &mut client).ok()
            });
        }
    });
    address
}

#[test]
fn wrangler_reads_a_tail() {
    let proxy = proxy();
    let local = talking(|_| {});
    let home = temporary_folder();
    let start = |format: &str| {
        let mut command = wrangler(home.path(), home.path());
        command.args(["tail", "talk", "--format", format, "--status", "error", "--method", "GET"]);
        command.env("CLOUDFLARE_API_BASE_URL", local.origin() + "/client/v4");
        command.envs([("CLOUDFLARE_API_TOKEN", "a-token"), ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)]);
        command.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let tails = || {
        let (_, requests) = local.get("127.0.0.1", "/__local/requests");
        requests.matches("/tails\"").count()
    };
    for (format, expect) in [("json", "\"message\": \"boom\""), ("pretty", "TypeError: boom")] {
        let before = tails();
        let mut child = start(format);
        let lines = lines_of(&mut child);
        crate::fleet::until("wrangler starts a tail", || tails() > before);
        let mut seen = String::new();
        let end = Instant::now() + Duration::from_secs(40);
        // It connects after it started the tail.
        while !seen.contains(expect) {
            assert!(Instant::now() < end, "{format}: {seen}");
            local.get("talk.localhost", "/throw");
            while let Ok(line) = lines.recv_timeout(Duration::from_millis(500)) {
                seen += &format!("{line}\n");
            }
        }
        assert!(!seen.contains("canary"), "{seen}");
        if format == "pretty" {
            assert!(seen.contains("GET http://talk.localhost/throw - Exception Thrown @"), "{seen}");
            assert!(seen.contains("(warn) careful"), "{seen}");
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        child.wait().unwrap();
        let (_, requests) = local.get("127.0.0.1", "/__local/requests");
        assert!(requests.contains("DELETE"), "{requests}");
    }
}
