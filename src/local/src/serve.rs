//! The listener: which request is for the API, which for a worker, and how it gets there. Knows hosts and connections;
//! not what the API answers.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request, Response, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::call::pairs;
use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::faults::Fault;
use super::routing::{Body, Dropped, From, Target, blocking, forward, host, of_host, respond, text, words};
use super::store::Worker;
use super::zone_settings::{self, DashboardChange};
use super::{api, crons, index, libsql, store, tails};

/// Room for the metadata and the other parts of a form beside the modules, in bytes.
const MARGIN: usize = 16 << 20;

/// The rights of a worker's page under the emulator's own name: everything but being of that origin.
const SANDBOX: &str =
    "sandbox allow-downloads allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox allow-scripts";

/// Answers all connections of a listener by `answer`, for as long as it is polled.
pub async fn listen<F, A>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<Body>, Dropped>> + Send + 'static,
{
    loop {
        // A connection that fails to be accepted (too many open files) is the client's loss only.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        // Answers are small and single; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(answer);
            // Errors are the client's: it went away, or was dropped on request.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

/// Answers one request. Deployed workers answer under the hosts that are theirs. What is the emulator's own, which can read and change
/// everything, answers under the machine's own names alone and never to a web page: a page that any site sends to a browser can make
/// requests to this machine, and by DNS rebinding, even under a name of its own, read the answers.
///
/// # Errors
/// When a fault wants the connection dropped.
pub async fn answer(cloud: Arc<Cloud>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let host = host(request.headers());
    let path = request.uri().path().to_owned();
    let is_own = is_own_host(&host);
    let target = if is_own { Ok(None) } else { blocking(|| of_host(&cloud, From::Outside, false, &host, &path)) };
    match target {
        Ok(Some(Target::Worker(worker))) if path == SCHEDULED => return Ok(scheduled(&cloud, &worker, &request).await),
        Ok(Some(Target::Worker(worker))) => return Ok(forward(&cloud, &worker, request, None).await),
        Ok(Some(Target::NoWorker(why))) => return Ok(text(404, &why)),
        Ok(None) => {}
        Err(refusal) => return Ok(text(500, &refusal.message)),
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let is_emulators = matches!(segments.as_slice(), ["client", "v4", ..] | ["__local", ..] | [""]);
    if is_emulators && !is_own {
        return Ok(text(421, &format!("this is not {host}: the emulator answers on localhost and 127.0.0.1\n")));
    }
    if let ["__local", "page", rest] = segments.as_slice() {
        return Ok(match index::is_own_script(&cloud, request.headers()) {
            true => index::script(&cloud, rest, request).await,
            false => text(403, "only the page that the emulator serves at / may ask this\n"),
        });
    }
    if is_emulators && let Some(why) = from_page(request.headers()) {
        return Ok(text(403, &format!("{why}: the emulator answers no web pages\n")));
    }
    match segments.as_slice() {
        _ if !is_own => return Ok(text(404, &nobody(&host, &path))),
        ["client", "v4", ..] => return to_api(&cloud, request).await,
        ["__local", tails::PATH, id] if request.headers().contains_key(header::UPGRADE) => {
            return Ok(tail(&cloud, id, request));
        }
        ["__local", rest @ ..] => return Ok(control(&cloud, &rest.join("/"), request).await),
        [""] => {
            let query = request.uri().query().unwrap_or_default().to_owned();
            return Ok(blocking(|| index::index(&cloud, &query, request.headers())));
        }
        _ => {}
    }
    let (account, name, prefix) = match segments.as_slice() {
        ["workers", name, ..] => (None, *name, 2),
        ["accounts", account, "workers", name, ..] => (Some(*account), *name, 4),
        _ => return Ok(text(404, &nobody(&host, &path))),
    };
    let found = blocking(|| cloud.store.read(|db| store::named(db, name)));
    let found = found
        .map(|workers| workers.into_iter().find(|worker| account.is_none_or(|account| worker.key.account == account)));
    match found {
        Ok(Some(worker)) => {
            let rest = segments[prefix..].join("/");
            if format!("/{rest}") == SCHEDULED {
                return Ok(scheduled(&cloud, &worker, &request).await);
            }
            let mut response = forward(&cloud, &worker, request, Some(&format!("/{rest}"))).await;
            // Its page has the emulator's own origin: as it is sandboxed, it can't read the emulator's page, nor another worker's.
            response.headers_mut().append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
            Ok(response)
        }
        Ok(None) => Ok(text(404, &format!("no worker named {name} is deployed here\n"))),
        Err(refusal) => Ok(text(500, &refusal.message)),
    }
}

/// The path by which a worker's `scheduled()` is called on request, as `wrangler dev` has it.
const SCHEDULED: &str = "/cdn-cgi/handler/scheduled";

/// Calls a worker's `scheduled()`, for the cron and the time of the query. No web page can do that.
async fn scheduled(cloud: &Cloud, worker: &Worker, request: &Request<Incoming>) -> Response<Body> {
    if let Some(why) = from_page(request.headers()) {
        return text(403, &format!("{why}: schedules are run for no web pages\n"));
    }
    let query = pairs(request.uri().query().unwrap_or_default());
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let time = find("time").and_then(|time| time.parse().ok()).map(Duration::from_millis);
    let cron = find("cron").unwrap_or("* * * * *");
    match crons::call(cloud, &worker.key, cron, time.unwrap_or_else(|| (cloud.clock)())).await {
        Ok(answer) => {
            let outcome = answer["outcome"].as_str().unwrap_or("unknown");
            let status = if outcome == "ok" { 200 } else { 500 };
            let why = answer["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
            text(status, &format!("{outcome}{why}\n"))
        }
        Err(why) => text(500, &format!("{why}\n")),
    }
}

/// Returns whether a host is a name of this machine, which no other site can have.
fn is_own_host(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns why a request comes from a web page, if it does. Programs such as wrangler send neither header; browsers send the second one
/// with each request, and `none` is what a person typed.
fn from_page(headers: &HeaderMap) -> Option<String> {
    let header = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(origin) = header("origin") {
        return Some(format!("the request has the origin {origin:?}"));
    }
    let site = header("sec-fetch-site").filter(|site| site != "none")?;
    // A link to the list of workers may be followed from anywhere: no page can read what it shows.
    let is_link = header("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    (!is_link).then(|| format!("the request comes from a page ({site:?})"))
}

fn nobody(host: &str, path: &str) -> String {
    format!(
        "no worker is deployed for {host}{path}: it is no custom domain, matches no route, and is no worker's localhost name\n"
    )
}

async fn to_api(cloud: &Cloud, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let limit = cloud.limits.script_bytes.saturating_add(MARGIN);
    let body = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(respond(Refusal::new(413, 10027, "the request is too large or was cut off").answer())),
    };
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let reply = api::answer(cloud, head.method.as_str(), path, query, head.headers, body).await;
    reply.map(respond).ok_or("dropped on request")
}

/// Turns a connection into the stream of a tail. Its id, which only the client that started it knows, is the permission.
fn tail(cloud: &Cloud, id: &str, mut request: Request<Incoming>) -> Response<Body> {
    let is = |name: header::HeaderName, word: &str| {
        words(request.headers(), name).split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let key = words(request.headers(), header::SEC_WEBSOCKET_KEY);
    let is_websocket = is(header::UPGRADE, "websocket") && is(header::SEC_WEBSOCKET_VERSION, "13") && !key.is_empty();
    if !is_websocket || !is(header::SEC_WEBSOCKET_PROTOCOL, tails::PROTOCOL) {
        return text(400, &format!("a tail is a WebSocket with the protocol {}\n", tails::PROTOCOL));
    }
    let Some(opened) = cloud.tails.open(id, (cloud.clock)(), &cloud.activity) else {
        return text(404, "there is no such tail, or it has expired\n");
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // An error means that the client went.
        if let Ok(upgraded) = upgrade.await {
            tails::stream(upgraded, opened).await;
        }
    });
    let mut response = text(101, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(tails::PROTOCOL));
    headers.extend(HeaderValue::from_str(&accept).ok().map(|accept| (header::SEC_WEBSOCKET_ACCEPT, accept)));
    response
}

/// Answers the operations that only the emulator has: faults and the journal.
async fn control(cloud: &Cloud, path: &str, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().as_str().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    let content_type = words(request.headers(), header::CONTENT_TYPE).split(';').next().unwrap_or_default();
    let is_json = content_type.trim().eq_ignore_ascii_case("application/json");
    // The databases have tokens of their own.
    if !path.starts_with("libsql/") && !cloud.is_own_token(authorization.as_ref()) {
        return respond(Answer::json(
            401,
            &json!({"error": "the emulator's own token is missing or wrong: see `flotilla local`"}),
        ));
    }
    if method == "POST" && !is_json && ["faults", "zones", "audit"].contains(&path) {
        return respond(Answer::json(
            415,
            &json!({"error": format!("{path} takes JSON: send it as application/json")}),
        ));
    }
    let body = match Limited::new(request.into_body(), MARGIN).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return text(413, "the body is too large\n"),
    };
    let lock = || cloud.journal.lock();
    let faults = || cloud.faults.lock();
    let shown = match (method.as_str(), path) {
        ("GET", "requests") => return respond(Answer::bytes(200, "application/json", lock().shown().into_bytes())),
        ("DELETE", "requests") => {
            lock().clear();
            json!({})
        }
        ("GET", "faults") => faults().shown(),
        ("DELETE", "faults") => {
            faults().clear();
            json!([])
        }
        ("POST", "faults") => match serde_json::from_slice::<Vec<Fault>>(&body) {
            Ok(rules) => {
                let mut faults = faults();
                faults.add(rules);
                faults.shown()
            }
            Err(error) => return respond(Answer::json(400, &json!({"error": error.to_string()}))),
        },
        ("POST", "zones") => match serde_json::from_slice::<Vec<DashboardChange>>(&body) {
            Ok(changes) => match zone_settings::in_dashboard(cloud, &changes) {
                Ok(()) => json!({}),
                Err(refusal) => return respond(Answer::json(400, &json!({"error": refusal.message}))),
            },
            Err(error) => return respond(Answer::json(400, &json!({"error": error.to_string()}))),
        },
        ("POST", "audit") => match serde_json::from_slice(&body) {
            Ok(behaviour) => {
                *cloud.audit.lock() = behaviour;
                json!({})
            }
            Err(error) => return respond(Answer::json(400, &json!({"error": error.to_string()}))),
        },
        _ => match path.strip_prefix("libsql/").and_then(|rest| rest.split_once('/')) {
            Some((host, path)) => {
                return blocking(|| libsql::answer(cloud, &method, host, path, authorization.as_ref(), &body));
            }
            None => {
                return text(404, "unknown: there are requests, faults, zones, audit and libsql/<host>/v2/pipeline\n");
            }
        },
    };
    respond(Answer::json(200, &shown))
}
