//! The listener: which request is for the API, which for a worker, and how it gets there. Knows hosts and connections;
//! not what the API answers.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;

use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::faults::Fault;
use super::routing::{Body, Dropped, From, Target, blocking, forward, host, of_host, respond, text};
use super::{api, index, libsql, store};

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
                return blocking(|| libsql::answer(cloud, &method, host, path, authorization.as_ref(), &body));
            }
            None => return text(404, "unknown: there are requests, faults and libsql/<host>/v2/pipeline\n"),
        },
    };
    respond(Answer::json(200, &shown))
}
