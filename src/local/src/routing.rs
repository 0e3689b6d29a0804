//! The choice of the worker that answers a request, and the way there. Knows hosts and connections; not what the API answers.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::capnp::{OBJECT, TRIGGER_SOCKET};
use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::store::{self, Key, Worker};
use super::workers::StartError;
use super::{accounts, domains, triggers};

/// A body that is in memory, or one that is passed on.
pub type Body = Either<Full<Bytes>, Incoming>;

/// The reason why a connection is dropped without an answer.
pub type Dropped = &'static str;

/// The number of times that a connection to workerd is tried, and the time in between: it may have just died.
const CONNECTS: usize = 40;
const RECONNECT: Duration = Duration::from_millis(25);

/// The host of a request without its port, lower case.
#[must_use]
pub fn host(headers: &HeaderMap) -> String {
    let host = words(headers, header::HOST).to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host,
    }
}

/// The text of a header; empty where there is none.
#[must_use]
pub fn words(headers: &HeaderMap, name: impl header::AsHeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The target of a host.
pub enum Target {
    /// This worker answers.
    Worker(Box<Worker>),
    /// It is a host of workers, but none answers, for this reason.
    NoWorker(String),
}

/// The origin of a request.
#[derive(Clone, Copy)]
pub enum From {
    /// A client.
    Outside,
    /// A worker's `fetch()`.
    Worker,
}

/// The worker that answers a host and path: by `<worker>.localhost`, workers.dev, a custom domain or a route.
///
/// # Errors
/// When the database fails.
pub fn of_host(cloud: &Cloud, from: From, https: bool, host: &str, path: &str) -> Result<Option<Target>, Refusal> {
    let worker = |worker: Option<Worker>, what: &str| match worker.filter(|worker| worker.version.is_some()) {
        Some(worker) => Target::Worker(Box::new(worker)),
        None => Target::NoWorker(format!("{host}: {what}\n")),
    };
    cloud.store.read(|db| {
        if let Some(name) = host.strip_suffix(".localhost") {
            return Ok(Some(worker(
                store::named(db, name)?.into_iter().next(),
                "no worker of that name is deployed here",
            )));
        }
        if let Some((name, subdomain)) = host.strip_suffix(".workers.dev").and_then(|rest| rest.rsplit_once('.')) {
            let found = match accounts::of_subdomain(db, subdomain)? {
                Some(account) => store::find(db, &Key::of_account(&account, name))?.filter(|worker| worker.enabled),
                None => None,
            };
            return Ok(Some(worker(found, "no worker of that name is enabled on this account's workers.dev")));
        }
        let domain = || -> Result<Option<Target>, Refusal> {
            let Some(domain) = domains::of_host(db, host)? else { return Ok(None) };
            let found = store::find(db, &Key::of_account(&domain.account, &domain.service))?;
            Ok(Some(worker(found, "the custom domain's worker isn't deployed")))
        };
        let route = || -> Result<Option<Target>, Refusal> {
            Ok(match triggers::routed(db, https, host, path)? {
                Some((pattern, account, Some(script))) => Some(worker(
                    store::find(db, &Key::of_account(&account, &script))?,
                    &format!("the worker of the route {pattern} isn't deployed"),
                )),
                Some((pattern, _, None)) => {
                    Some(Target::NoWorker(format!("{host}{path}: the route {pattern} has no worker\n")))
                }
                None => None,
            })
        };
        // A custom domain's worker is the origin, to those on routes in front of it (Cloudflare docs, Workers › Custom Domains).
        match from {
            From::Outside => Ok(route()?.or(domain()?)),
            From::Worker => Ok(domain()?.or(route()?)),
        }
    })
}

/// Passes a request to a worker of a dispatch namespace.
///
/// # Errors
/// The page that shows why a worker doesn't respond: it doesn't start, or what it threw.
pub async fn forward_or_throw(
    cloud: &Cloud,
    worker: &Worker,
    request: Request<Incoming>,
) -> Result<Response<Body>, String> {
    let response = forward(cloud, worker, request, None).await;
    let ours = matches!(response.body(), Either::Left(_));
    // What workerd answers in the place of a worker that threw has no type and ends the connection, which no worker can do.
    let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    let threw = response.status() == 500 && closes && response.headers().get(header::CONTENT_TYPE).is_none();
    if !ours && !threw {
        return Ok(response);
    }
    let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Err(String::from_utf8_lossy(&body).into_owned())
}

/// Passes a request to a worker, with another path where one is given.
pub async fn forward<B>(cloud: &Cloud, worker: &Worker, mut request: Request<B>, path: Option<&str>) -> Response<Body>
where
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    if let Some(path) = path {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        match format!("{path}{query}").parse::<Uri>() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return text(400, &format!("{path}: {error}\n")),
        }
    }
    // What Cloudflare's edge adds, as far as it is true here.
    request.headers_mut().entry("cf-connecting-ip").or_insert(HeaderValue::from_static("127.0.0.1"));
    let mut last = String::new();
    let mut tried: Vec<PathBuf> = Vec::new();
    for _ in 0..CONNECTS {
        let socket = match cloud.workers.socket(cloud.ground(), worker).await {
            Ok(socket) => socket,
            Err(StartError::Page(status, why)) => {
                let version = worker.version.as_deref().unwrap_or_default();
                let url = format!("http://{}{}", words(request.headers(), header::HOST), request.uri());
                cloud.activity.add_failure(&worker.key, version, (request.method().as_str(), &url), status, &why);
                return text(status, &format!("{why}\n"));
            }
            Err(StartError::Refused(refusal)) => return text(500, &format!("{}\n", refusal.message)),
        };
        // Connecting fails where workerd has just died; then it is started again, once. A request that was sent isn't
        // sent again.
        match UnixStream::connect(&socket).await {
            Ok(stream) => return pass(stream, request).await,
            Err(error) => last = error.to_string(),
        }
        if !tried.contains(&socket) {
            tried.push(socket);
        }
        if tried.len() == 2 {
            break;
        }
        // Its end isn't known yet.
        tokio::time::sleep(RECONNECT).await;
    }
    text(502, &format!("{}: workerd can't be reached: {last}\n", worker.key.name))
}

async fn pass<B>(stream: UnixStream, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let answer = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection lives until the body of the answer has been passed on.
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    match answer.await {
        Ok(response) => response.map(Either::Right),
        Err(error) => text(502, &format!("workerd ended the connection: {error}\n")),
    }
}

/// The maximum size, in bytes, of what a worker answers to an event.
const MOST_RESULT: usize = 1 << 20;

/// Calls a handler of a worker that no request reaches: `scheduled()`, `queue()`. Returns what became of it.
///
/// # Errors
/// Why the worker can't be called.
pub async fn trigger(cloud: &Cloud, worker: &Worker, job: &Value) -> Result<Value, String> {
    let socket = match cloud.workers.socket(cloud.ground(), worker).await {
        Ok(socket) => socket.with_file_name(TRIGGER_SOCKET),
        Err(StartError::Page(_, why)) => return Err(why),
        Err(StartError::Refused(refusal)) => return Err(refusal.message),
    };
    let stream = UnixStream::connect(&socket).await.map_err(|error| format!("workerd can't be reached: {error}"))?;
    let request = Request::post("/").header(header::HOST, "trigger").body(Full::<Bytes>::from(job.to_string()));
    let request = request.map_err(|error| error.to_string())?;
    let response = pass(stream, request).await;
    let body = Limited::new(response.into_body(), MOST_RESULT).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| String::from_utf8_lossy(&body).into_owned())
}

/// Passes a request to a Durable Object of a worker: `object` is its class and its name or id, as JSON.
pub async fn to_object(cloud: &Cloud, worker: &Worker, request: Request<Incoming>, object: &str) -> Response<Body> {
    let socket = match cloud.workers.socket(cloud.ground(), worker).await {
        Ok(socket) => socket.with_file_name(TRIGGER_SOCKET),
        Err(StartError::Page(status, why)) => return text(status, &format!("{why}\n")),
        Err(StartError::Refused(refusal)) => return text(500, &format!("{}\n", refusal.message)),
    };
    let mut request = request;
    if let Ok(object) = HeaderValue::from_str(object) {
        request.headers_mut().insert(OBJECT, object);
    }
    match UnixStream::connect(&socket).await {
        Ok(stream) => pass(stream, request).await,
        Err(error) => text(502, &format!("{}: workerd can't be reached: {error}\n", worker.key.name)),
    }
}

/// Requests a worker's health check, whatever comes of it: its events show that.
pub async fn check(cloud: &Cloud, worker: &Worker) {
    let host = format!("{}.localhost", worker.key.name);
    let request = Request::get(cloud.health_path.as_str()).header(header::HOST, host).body(Full::<Bytes>::default());
    if let Ok(request) = request {
        let _ = forward(cloud, worker, request, None).await.into_body().collect().await;
    }
}

/// A page of plain text.
#[must_use]
pub fn text(status: u16, body: &str) -> Response<Body> {
    respond(Answer::bytes(status, "text/plain; charset=utf-8", body.as_bytes().to_vec()))
}

/// Turns an answer into an HTTP response.
#[must_use]
pub fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(answer.body.into())));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let all = answer.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let kind = Some(("content-type", answer.content_type.as_str())).filter(|(_, kind)| !kind.is_empty());
    for (name, value) in all.chain(kind) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &answer.more {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    response
}

/// Runs what waits for the database or the disk without holding up other requests.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
