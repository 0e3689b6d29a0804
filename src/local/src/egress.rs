//! The egress of running workers: nothing leaves the machine. Knows the local libSQL and D1 databases, KV, R2, queues,
//! the other workers and the emulator's API; refuses all else.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};
use serde_json::{Value, json};

use super::call::{decode, pairs};
use super::capnp::{CALL, DISPATCHED, OBJECT, THROWN};
use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::routing::{
    Body, Dropped, From, Target, blocking, forward, forward_or_throw, host, of_host, respond, text, to_object, trigger,
    words,
};
use super::store::{self, Key};
use super::{api, asset_store, databases, kv, libsql, queues, r2, serve};

/// The host of Cloudflare's API, which the emulator's own takes the place of.
const API_HOST: &str = "api.cloudflare.com";

/// The maximum size, in bytes, of a worker's events that come at once.
const EVENTS: usize = 8 << 20;

/// Answers one call of a worker.
///
/// # Errors
/// Never; the type is the listener's.
pub async fn answer(cloud: Arc<Cloud>, mut request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let call = words(request.headers(), CALL).to_owned();
    request.headers_mut().remove(CALL);
    let words: Vec<&str> = call.split(' ').collect();
    Ok(match words.as_slice() {
        [word, rest @ ..] if *word == cloud.workers.word() && !word.is_empty() => match rest {
            ["service", account, name] => to_service(&cloud, account, name, request).await,
            ["dispatch", account, namespace] => dispatch(&cloud, account, namespace, request).await,
            ["d1", id] => {
                let query = pairs(request.uri().query().unwrap_or_default());
                let format = query.into_iter().find(|(name, _)| name == "resultsFormat").map(|(_, format)| format);
                let body = collect(request).await;
                let (status, answer) = blocking(|| databases::binding(&cloud, id, format.as_deref(), &body));
                respond(Answer::json(status, &answer))
            }
            ["kv", id] => to_kv(&cloud, id, request).await.map_or_else(|refusal| text(500, &refusal.message), respond),
            ["r2", bucket] => to_r2(&cloud, bucket, request).await,
            ["trace", version, worker] => to_activity(cloud, version, worker, request).await,
            ["cache", account] => to_cache(&cloud, account, request).await,
            ["assets", scope] => to_assets(&cloud, scope, &request),
            ["object", object] => to_object_of(&cloud, object, request).await,
            ["queue", queue] => to_queue(&cloud, queue, request).await,
            _ => return outbound(&cloud, request).await,
        },
        _ => text(403, "only workers of the local Cloudflare may call here\n"),
    })
}

async fn collect(request: Request<Incoming>) -> Bytes {
    request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

async fn to_service(cloud: &Cloud, account: &str, name: &str, request: Request<Incoming>) -> Response<Body> {
    let key = Key::of_account(account, name);
    match blocking(|| cloud.store.read(|db| store::get(db, &key))) {
        Ok(worker) => forward(cloud, &worker, request, None).await,
        Err(refusal) => text(502, &format!("the service binding's worker {name}: {}\n", refusal.message)),
    }
}

/// A dispatch binding's call of a worker of its namespace.
async fn dispatch(cloud: &Cloud, account: &str, namespace: &str, mut request: Request<Incoming>) -> Response<Body> {
    let name = decode(words(request.headers(), DISPATCHED));
    request.headers_mut().remove(DISPATCHED);
    let key = Key::new(account, namespace, &name);
    let found = blocking(|| cloud.store.read(|db| store::find(db, &key)));
    let why = match found {
        Ok(Some(worker)) if worker.version.is_some() => match forward_or_throw(cloud, &worker, request).await {
            Ok(response) => return response,
            Err(why) => why,
        },
        // Cloudflare's words.
        Ok(_) => "Worker not found.".to_owned(),
        Err(refusal) => refusal.message,
    };
    let mut response = text(500, &why);
    if let Ok(why) = HeaderValue::from_str(why.lines().next().unwrap_or_default()) {
        response.headers_mut().insert(THROWN, why);
    }
    response
}

/// A worker's `fetch()`.
///
/// # Errors
/// When a fault wants the connection to the API dropped.
async fn outbound(cloud: &Cloud, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let (host, path) = (host(request.headers()), request.uri().path().to_owned());
    let named = blocking(|| cloud.store.read(|db| Ok(!store::deployed(db, Some(&host))?.is_empty())));
    if matches!(named, Ok(true)) {
        let (method, token) =
            (request.method().as_str().to_owned(), request.headers().get(header::AUTHORIZATION).cloned());
        let body = collect(request).await;
        let path = path.trim_start_matches('/');
        return Ok(blocking(|| libsql::answer(cloud, &method, &host, path, token.as_ref(), &body)));
    }
    let https = request.headers().get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    match blocking(|| of_host(cloud, From::Worker, https, &host, &path)) {
        Ok(Some(Target::Worker(worker))) => return Ok(forward(cloud, &worker, request, None).await),
        Ok(Some(Target::NoWorker(_)) | None) => {}
        Err(refusal) => return Ok(text(500, &refusal.message)),
    }
    if https && host == API_HOST && path.strip_prefix(api::BASE).is_some_and(|rest| rest.starts_with('/')) {
        return serve::to_api(cloud, request).await;
    }
    let entry = json!({"method": request.method().as_str(), "outbound": format!("{host}{path}")});
    cloud.journal.lock().add(entry, 502);
    Ok(text(
        502,
        &format!(
            "the local Cloudflare doesn't let workers reach {host}: it is no deployed worker and no database of one\n"
        ),
    ))
}

/// Answers workerd's R2 binding, whose request is in a header or in front of the body.
async fn to_r2(cloud: &Cloud, bucket: &str, request: Request<Incoming>) -> Response<Body> {
    // Keys are written into the header as they are, in UTF-8.
    let asked = request.headers().get(r2::REQUEST).map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let size = request.headers().get(r2::SIZE).and_then(|size| size.to_str().ok()?.parse::<usize>().ok());
    let bucket = decode(bucket);
    let body = collect(request).await;
    let (asked, body) = match asked {
        Some(asked) => (asked, Bytes::new()),
        None => {
            let size = size.unwrap_or(0).min(body.len());
            (body.slice(..size), body.slice(size..))
        }
    };
    blocking(|| respond(r2::answer(cloud, &bucket, &asked, &body)))
}

/// Takes the events of a worker from the tracer beside it.
async fn to_activity(cloud: Arc<Cloud>, version: &str, worker: &str, request: Request<Incoming>) -> Response<Body> {
    let body = Limited::new(request.into_body(), EVENTS).collect().await;
    let events = body.ok().and_then(|body| serde_json::from_slice::<Vec<Value>>(&body.to_bytes()).ok());
    let names: Vec<String> = worker.split('/').map(decode).collect();
    let ([account, namespace, name], Some(events)) = (names.as_slice(), events) else {
        return text(400, "these are no events of a worker\n");
    };
    let key = Key::new(account, namespace, name);
    events.iter().for_each(|event| cloud.activity.add(&key, version, event.clone()));
    let settings = blocking(|| cloud.store.read(|db| store::get(db, &key))).map(|worker| worker.settings);
    let mut events = events;
    // workerd doesn't know the name under which a worker is deployed.
    events.iter_mut().for_each(|event| event["scriptName"] = key.name.clone().into());
    let consumers = settings.ok().and_then(|settings| settings.get("tail_consumers")?.as_array().cloned());
    for name in consumers.iter().flatten().filter_map(|consumer| consumer["service"].as_str()) {
        let (cloud, consumer) = (cloud.clone(), Key::of_account(&key.account, name));
        let job = json!({"kind": "tail", "events": events});
        tokio::spawn(async move { to_tail(&cloud, &consumer, &job).await });
    }
    text(200, "")
}

/// Hands events over to a worker that gets those of another one.
async fn to_tail(cloud: &Cloud, consumer: &Key, job: &Value) {
    let Ok(worker) = blocking(|| cloud.store.read(|db| store::get(db, consumer))) else { return };
    // One that was started before it got any can't take them.
    let is_unready = |answer: &Value| answer["error"].as_str().is_some_and(|why| why.contains("reading 'deliver'"));
    if let Ok(answer) = trigger(cloud, &worker, job).await
        && is_unready(&answer)
    {
        cloud.workers.restart(worker.id);
        let _ = trigger(cloud, &worker, job).await;
    }
}

/// Answers workerd's Cache API.
async fn to_cache(cloud: &Cloud, account: &str, request: Request<Incoming>) -> Response<Body> {
    let (method, headers) = (request.method().as_str().to_owned(), request.headers().clone());
    let scheme = words(&headers, "x-forwarded-proto");
    // A cache that a worker opens by its name is apart from the others.
    let name = words(&headers, "cf-cache-namespace");
    let key = format!("{account} {name} {scheme}://{}{}", words(&headers, header::HOST), request.uri());
    let body = collect(request).await;
    respond(cloud.caches.answer(&method, &key, &body, (cloud.clock)()))
}

/// Answers the worker that looks assets up: it reads them as if from KV, by their hashes.
fn to_assets(cloud: &Cloud, scope: &str, request: &Request<Incoming>) -> Response<Body> {
    let hash = request.uri().path().trim_start_matches('/').to_ascii_lowercase();
    let scope = decode(scope);
    match blocking(|| cloud.store.read(|db| asset_store::file(db, &scope, &hash))) {
        Ok(Some((kind, body))) => {
            let metadata = json!({"contentType": kind}).to_string();
            let answer = Answer::bytes(200, "application/octet-stream", body);
            respond(if kind.is_some() { answer.with("cf-kv-metadata", metadata) } else { answer })
        }
        Ok(None) => text(404, "Not Found"),
        Err(refusal) => text(500, &refusal.message),
    }
}

/// Passes a request to a Durable Object of another worker.
async fn to_object_of(cloud: &Cloud, object: &str, mut request: Request<Incoming>) -> Response<Body> {
    let names: Vec<String> = object.split('/').map(decode).collect();
    let [account, script, class] = names.as_slice() else { return text(400, "this is no Durable Object\n") };
    let mut object: Value = serde_json::from_str(words(request.headers(), OBJECT)).unwrap_or_default();
    request.headers_mut().remove(OBJECT);
    if !object.is_object() {
        return text(400, "this is no Durable Object\n");
    }
    object["class"] = class.as_str().into();
    let key = Key::of_account(account, script);
    match blocking(|| cloud.store.read(|db| store::get(db, &key))) {
        Ok(worker) => to_object(cloud, &worker, request, &object.to_string()).await,
        Err(refusal) => text(502, &format!("the Durable Object's worker {script}: {}\n", refusal.message)),
    }
}

/// Answers workerd's queue binding: what is sent is noted in the journal, and waits for the queue's consumer.
async fn to_queue(cloud: &Cloud, queue: &str, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
    let names: Vec<String> = queue.split('/').map(decode).collect();
    let [account, queue] = names.as_slice() else { return text(400, "this is no queue\n") };
    let headers = request.headers().clone();
    let body = collect(request).await;
    let sent = path.trim_start_matches('/');
    let entry = json!({"method": method, "queue": queue, "sent": sent, "bytes": body.len()});
    let outcome = blocking(|| queues::send(cloud, (account, queue), &path, &headers, &body));
    let answer = outcome.unwrap_or_else(|refusal| {
        let message = format!("{} ({})", refusal.message, refusal.code);
        Answer::bytes(refusal.status, "text/plain", message.into_bytes())
    });
    cloud.journal.lock().add(entry, answer.status);
    respond(answer)
}

/// Answers workerd's KV binding: `/key` with `GET`, `PUT`, `DELETE`, and `GET /` to list.
async fn to_kv(cloud: &Cloud, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let query = pairs(request.uri().query().unwrap_or_default());
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let key = decode(request.uri().path().trim_start_matches('/'));
    let method = request.method().as_str().to_owned();
    let metadata = request.headers().get("cf-kv-metadata").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    if method == "GET" && key.is_empty() {
        let limit = find("key_count_limit").and_then(|limit| limit.parse().ok()).unwrap_or(1000);
        let (keys, cursor) =
            blocking(|| kv::names(cloud, id, find("prefix").unwrap_or(""), find("cursor").unwrap_or(""), limit))?;
        let mut listed = json!({"keys": keys, "list_complete": cursor.is_none(), "cacheStatus": null});
        // workerd hands metadata to the worker as text to be parsed.
        for key in listed["keys"].as_array_mut().into_iter().flatten() {
            if let Some(metadata) = key.get("metadata").map(ToString::to_string) {
                key["metadata"] = metadata.into();
            }
        }
        if let Some(cursor) = cursor {
            listed["cursor"] = cursor.into();
        }
        return Ok(Answer::json(200, &listed));
    }
    match method.as_str() {
        "GET" => Ok(match blocking(|| kv::get(cloud, id, &key))? {
            Some(entry) => {
                let answer = Answer::bytes(200, "application/octet-stream", entry.value);
                match entry.metadata {
                    Some(metadata) => answer.with("cf-kv-metadata", metadata),
                    None => answer,
                }
            }
            None => Answer::bytes(404, "text/plain", b"Not Found".to_vec()),
        }),
        "PUT" => {
            let expiration = kv::expiration(cloud, find("expiration"), find("expiration_ttl"))?;
            let value = collect(request).await.to_vec();
            blocking(|| kv::put(cloud, id, &[kv::Pair { key: &key, value, metadata, expiration }]))?;
            Ok(Answer::bytes(204, "text/plain", Vec::new()))
        }
        "DELETE" => {
            blocking(|| kv::delete(cloud, id, &[&key]))?;
            Ok(Answer::bytes(204, "text/plain", Vec::new()))
        }
        other => Ok(Answer::bytes(405, "text/plain", format!("KV has no {other}").into_bytes())),
    }
}
