//! The listener: which request is for the API, which for a worker, and how it gets there. Knows hosts and connections;
//! not what the API answers.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::api;
use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::faults::Fault;
use super::store::{self, Key, Worker};
use super::workers::StartError;
use super::{accounts, domains, index, triggers};

/// A body that is in memory, or one that is passed on.
pub type Body = Either<Full<Bytes>, Incoming>;

/// The reason why a connection is dropped without an answer.
pub type Dropped = &'static str;

/// Room for the metadata and the other parts of a form beside the modules, in bytes.
const MARGIN: usize = 16 << 20;

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
                .await;
        });
    }
}

/// Answers one request.
///
/// # Errors
/// When a fault wants the connection dropped.
pub async fn answer(cloud: Arc<Cloud>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let host = host(request.headers());
    let path = request.uri().path().to_owned();
    let bare =
        host.is_empty() || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[');
    let target = if bare { Ok(None) } else { blocking(|| of_host(&cloud, From::Outside, false, &host, &path)) };
    match target {
        Ok(Some(Target::Worker(worker))) => return Ok(forward(&cloud, &worker, request, None).await),
        Ok(Some(Target::NoWorker(why))) => return Ok(text(404, &why)),
        Ok(None) => {}
        Err(refusal) => return Ok(text(500, &refusal.message)),
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["client", "v4", ..] => return to_api(&cloud, request).await,
        ["__local", rest @ ..] => return Ok(control(&cloud, &rest.join("/"), request).await),
        [""] if bare => return Ok(blocking(|| index::page(&cloud, request.headers()))),
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
            Ok(forward(&cloud, &worker, request, Some(&format!("/{rest}"))).await)
        }
        Ok(None) => Ok(text(404, &format!("no worker named {name} is deployed here\n"))),
        Err(refusal) => Ok(text(500, &refusal.message)),
    }
}

fn nobody(host: &str, path: &str) -> String {
    format!(
        "no worker is deployed for {host}{path}: it is no custom domain, matches no route, and is no worker's localhost name\n"
    )
}

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

/// Answers the operations that only the emulator has: faults and the journal.
async fn control(cloud: &Cloud, path: &str, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().as_str().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
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
        _ => match path.strip_prefix("libsql/").and_then(|rest| rest.split_once('/')) {
            Some((host, path)) => {
                return blocking(|| super::egress::libsql(cloud, &method, host, path, authorization.as_ref(), &body));
            }
            None => return text(404, "unknown: there are requests, faults and libsql/<host>/v2/pipeline\n"),
        },
    };
    respond(Answer::json(200, &shown))
}

/// Passes a request to a worker of a dispatch namespace.
///
/// # Errors
/// The page that says why a worker gives no answer: it doesn't start, or what it threw.
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
pub async fn forward(
    cloud: &Cloud,
    worker: &Worker,
    mut request: Request<Incoming>,
    path: Option<&str>,
) -> Response<Body> {
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
    for _ in 0..2 {
        let port = match cloud.workers.port(cloud, worker).await {
            Ok(port) => port,
            Err(StartError::Page(status, why)) => return text(status, &format!("{why}\n")),
            Err(StartError::Refused(refusal)) => return text(500, &format!("{}\n", refusal.message)),
        };
        // Connecting fails where workerd has just died; then it is started again, once. A request that was sent isn't
        // sent again.
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => return pass(stream, request).await,
            Err(error) => last = error.to_string(),
        }
    }
    text(502, &format!("{}: workerd can't be reached: {last}\n", worker.key.name))
}

async fn pass(stream: TcpStream, request: Request<Incoming>) -> Response<Body> {
    let _ = stream.set_nodelay(true);
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

/// Returns the answer of a worker on that port to `GET /`, as JSON.
///
/// # Errors
/// When it can't be reached or doesn't answer with JSON.
pub async fn fetch_json(port: u16) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/").header(header::HOST, "local").body(Full::<Bytes>::default())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
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
    for (name, value) in all.chain([("content-type", answer.content_type.as_str())]) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Runs what waits for the database or the disk without holding up other requests.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
