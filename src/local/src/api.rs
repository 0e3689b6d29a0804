//! The API: who may call, how often, and which operation a method and path mean. Knows all operations by name; none by
//! heart.

use hyper::HeaderMap;
use hyper::body::Bytes;

use super::call::{Body, Call, decode, pairs};
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::faults::Reset;
use super::limits::Verdict;
use super::store::Key;
use super::upload::Upload;
use super::versions::Loaded;
use super::{
    accounts, databases, domains, journal, kv, namespaces, scripts, secrets, settings, triggers, versions, zones,
};

/// The path that the API begins with.
pub const BASE: &str = "/client/v4";

/// The operations of one worker, below its path: of an account's worker, of a namespace's script.
const WORKER: &[(&str, &str, bool, bool)] = &[
    ("GET PUT DELETE", "", true, true),
    ("GET", "/content", false, true),
    ("GET", "/content/v2", true, false),
    ("GET PATCH", "/settings", true, true),
    ("GET PATCH", "/script-settings", true, false),
    ("GET", "/bindings", false, true),
    ("GET PUT", "/secrets", true, true),
    ("GET DELETE", "/secrets/*", true, true),
    ("PATCH", "/secrets-bulk", true, true),
    ("GET PUT", "/tags", false, true),
    ("PUT DELETE", "/tags/*", false, true),
    ("GET PUT", "/schedules", true, false),
    ("GET POST DELETE", "/subdomain", true, false),
    ("GET POST", "/versions", true, false),
    ("GET", "/versions/*", true, false),
    ("GET POST", "/deployments", true, false),
    ("GET", "/deployments/*", true, false),
    ("PUT", "/routes", true, false),
    ("POST", "/domains/changeset", true, false),
    ("PUT", "/domains/records", true, false),
];

/// All other operations.
const OTHERS: &[(&str, &str)] = &[
    ("GET", "user/tokens/verify"),
    ("GET", "memberships"),
    ("GET", "accounts"),
    ("GET", "accounts/*/tokens/verify"),
    ("GET", "zones"),
    ("GET", "zones/*"),
    ("GET POST", "zones/*/workers/routes"),
    ("GET PUT DELETE", "zones/*/workers/routes/*"),
    ("GET", "accounts/*/workers/scripts"),
    ("GET", "accounts/*/workers/scripts-search"),
    ("GET DELETE", "accounts/*/workers/services/*"),
    ("GET", "accounts/*/workers/workers/*"),
    ("GET PUT", "accounts/*/workers/subdomain"),
    ("GET PUT", "accounts/*/workers/domains"),
    ("GET", "accounts/*/workers/domains/records"),
    ("GET", "accounts/*/workers/domains/records/*"),
    ("GET DELETE", "accounts/*/workers/domains/*"),
    ("GET", "accounts/*/workers/durable_objects/namespaces"),
    ("GET POST", "accounts/*/workers/dispatch/namespaces"),
    ("GET DELETE", "accounts/*/workers/dispatch/namespaces/*"),
    ("GET DELETE", "accounts/*/workers/dispatch/namespaces/*/scripts"),
    ("GET", "accounts/*/queues"),
    ("GET", "accounts/*/r2/buckets/*"),
    ("GET POST", "accounts/*/d1/database"),
    ("GET PATCH DELETE", "accounts/*/d1/database/*"),
    ("POST", "accounts/*/d1/database/*/query"),
    ("POST", "accounts/*/d1/database/*/raw"),
    ("GET POST", "accounts/*/storage/kv/namespaces"),
    ("GET DELETE", "accounts/*/storage/kv/namespaces/*"),
    ("GET", "accounts/*/storage/kv/namespaces/*/keys"),
    ("GET PUT DELETE", "accounts/*/storage/kv/namespaces/*/values/*"),
    ("PUT DELETE", "accounts/*/storage/kv/namespaces/*/bulk"),
    ("POST", "accounts/*/storage/kv/namespaces/*/bulk/delete"),
];

/// Every operation: its methods and its path below `/client/v4`, with `*` for a name or id.
pub fn operations() -> impl Iterator<Item = (&'static str, String)> {
    let others = OTHERS.iter().map(|(methods, path)| (*methods, (*path).to_owned()));
    others.chain(WORKER.iter().flat_map(|(methods, path, account, namespace)| {
        let account = account.then(|| format!("accounts/*/workers/scripts/*{path}"));
        let namespace = namespace.then(|| format!("accounts/*/workers/dispatch/namespaces/*/scripts/*{path}"));
        account.into_iter().chain(namespace).map(|path| (*methods, path))
    }))
}

/// The outcome of a request.
pub enum Reply {
    /// This answer.
    Answer(Answer),
    /// The connection is dropped.
    Dropped,
}

/// Answers one request to the API.
pub async fn answer(cloud: &Cloud, method: &str, path: &str, query: &str, headers: HeaderMap, body: Bytes) -> Reply {
    let below = path.strip_prefix(BASE).unwrap_or(path).trim_start_matches('/');
    let content_type = headers.get("content-type").and_then(|kind| kind.to_str().ok()).map(ToOwned::to_owned);
    let call = Call {
        method: method.to_owned(),
        path: below.split('/').map(decode).collect(),
        query: pairs(query),
        body: Body::parse(content_type.as_deref(), body),
        headers,
    };
    let token = token(&call);
    let now = (cloud.clock)();
    let verdict = cloud.meter.lock().count(cloud.limit, token.as_deref().unwrap_or(""), now);
    let entry = journal::entry(&call, path, token.as_deref().ok(), now);
    let reply = if verdict.blocked {
        Reply::Answer(throttled().with("retry-after", verdict.reset.to_string()))
    } else {
        hit_or_operate(cloud, &call, path, token).await
    };
    let status = match &reply {
        Reply::Answer(answer) => answer.status,
        Reply::Dropped => 0,
    };
    cloud.journal.lock().add(entry, status);
    match reply {
        Reply::Answer(answer) => Reply::Answer(with_limits(cloud, answer, verdict)),
        Reply::Dropped => Reply::Dropped,
    }
}

async fn hit_or_operate(cloud: &Cloud, call: &Call, path: &str, token: Result<String, Refusal>) -> Reply {
    let effect = cloud.faults.lock().hit(&call.method, path).unwrap_or_default();
    if let Some(delay) = effect.delay() {
        tokio::time::sleep(delay).await;
    }
    if effect.reset == Some(Reset::Before) {
        return Reply::Dropped;
    }
    let answer = match (effect.answer().filter(|_| !effect.carries_out()), token) {
        (Some(answer), _) => answer,
        (None, Ok(token)) => {
            effect.change(authorized(cloud, call, &token).await.unwrap_or_else(|refusal| refusal.answer()))
        }
        (None, Err(refusal)) => refusal.answer(),
    };
    if effect.reset == Some(Reset::After) { Reply::Dropped } else { Reply::Answer(answer) }
}

/// The answer to a request over the quota, as users of 2025 and 2026 report it.
#[must_use]
pub fn throttled() -> Answer {
    Refusal::new(429, 971, "Please wait and consider throttling your request speed").answer()
}

/// Cloudflare's headers since 2025-09: what is left of the quota, and the quota.
fn with_limits(cloud: &Cloud, answer: Answer, verdict: Verdict) -> Answer {
    let (quota, window) = (cloud.limit.requests, cloud.limit.window.as_secs());
    answer
        .with("ratelimit", format!("\"default\";r={};t={}", verdict.remaining, verdict.reset))
        .with("ratelimit-policy", format!("\"default\";q={quota};w={window}"))
}

/// The bearer token of a request.
fn token(call: &Call) -> Result<String, Refusal> {
    let header = call.header("authorization").unwrap_or_default();
    let token = header.strip_prefix("Bearer ").unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(allowed) {
        let inner = (6111, "Invalid format for Authorization header".to_owned());
        return Err(Refusal { chain: vec![inner], ..Refusal::new(400, 6003, "Invalid request headers") });
    }
    Ok(token.to_owned())
}

async fn authorized(cloud: &Cloud, call: &Call, token: &str) -> Outcome {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let known = cloud.tokens.iter().find(|(known, _)| known == token);
    if !cloud.tokens.is_empty() && known.is_none() {
        return Err(match path.as_slice() {
            [.., "tokens", "verify"] => Refusal::new(401, 1000, "Invalid API Token"),
            _ => Refusal::new(403, 9109, "Invalid access token"),
        });
    }
    let whole = format!("{BASE}/{}", path.join("/"));
    let methods: Vec<&str> =
        operations().filter(|(_, pattern)| fits(pattern, &path)).map(|(methods, _)| methods).collect();
    if methods.is_empty() {
        return Err(Refusal::no_route(&whole));
    }
    if !methods.iter().any(|methods| methods.split(' ').any(|method| method == call.method)) {
        return Err(Refusal::new(405, 10405, format!("Method {} not allowed for {whole}", call.method)));
    }
    let reach = known.and_then(|(_, account)| account.as_deref());
    match path.as_slice() {
        ["user", "tokens", "verify"] => accounts::verify(token, reach, None),
        ["accounts", account, "tokens", "verify"] => accounts::verify(token, reach, Some(account)),
        ["accounts", account, ..] if reach.is_some_and(|reach| reach != *account) => {
            Err(Refusal::new(403, 10000, "Authentication error"))
        }
        ["accounts", account, ..] if !is_id(account) => Err(Refusal::no_route(&whole)),
        ["accounts", account, "workers", "dispatch", "namespaces", namespace, "scripts", name, rest @ ..] => {
            worker(cloud, call, &key(account, namespace, name), rest).await
        }
        ["accounts", account, "workers", "scripts", name, rest @ ..] => {
            worker(cloud, call, &key(account, "", name), rest).await
        }
        _ => tokio::task::block_in_place(|| operate(cloud, call, &path, reach)),
    }
}

fn fits(pattern: &str, path: &[&str]) -> bool {
    let mut wanted = pattern.split('/');
    path.iter()
        .all(|segment| wanted.next().is_some_and(|wanted| wanted == *segment || (wanted == "*" && !segment.is_empty())))
        && wanted.next().is_none()
}

/// Cloudflare's account ids are 32 hexadecimal digits; any name is good enough here.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn key(account: &str, namespace: &str, name: &str) -> Key {
    Key { account: account.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The operations of one worker.
async fn worker(cloud: &Cloud, call: &Call, key: &Key, rest: &[&str]) -> Outcome {
    namespaces::check(cloud, key)?;
    let method = call.method.as_str();
    if let ("PUT", []) | ("POST", ["versions"]) = (method, rest) {
        // Not blocking: an upload takes less time than to hand the thread's other work to another thread.
        let upload = Upload::read(call.form()?, &cloud.store, &cloud.limits, &cloud.now()[..10])?;
        let loaded = check(cloud, &upload).await?;
        return match method {
            "PUT" => scripts::put(cloud, key, call, &upload, loaded.as_ref()),
            _ => versions::create(cloud, key, call, &upload, loaded.as_ref()),
        };
    }
    tokio::task::block_in_place(|| match (method, rest) {
        ("GET", []) if !key.namespace.is_empty() => namespaces::read_script(cloud, key),
        ("GET", [] | ["content", ..]) => scripts::content(cloud, key),
        ("DELETE", []) => scripts::delete(cloud, key, call),
        ("GET", ["settings"]) => settings::read(cloud, key),
        (_, ["settings"]) => settings::patch(cloud, key, call),
        ("GET", ["script-settings"]) => settings::read_unversioned(cloud, key),
        (_, ["script-settings"]) => settings::patch_unversioned(cloud, key, call),
        (_, ["bindings"]) => settings::bindings(cloud, key),
        ("GET", ["secrets"]) => secrets::read(cloud, key, None),
        (_, ["secrets"]) => secrets::put(cloud, key, call),
        ("GET", ["secrets", name]) => secrets::read(cloud, key, Some(name)),
        (_, ["secrets", name]) => secrets::delete(cloud, key, call, name),
        (_, ["secrets-bulk"]) => secrets::bulk(cloud, key, call),
        ("GET", ["tags"]) => settings::read_tags(cloud, key),
        (_, ["tags"]) => settings::put_tags(cloud, key, call),
        (_, ["tags", tag]) => settings::one_tag(cloud, key, tag, method == "PUT"),
        ("GET", ["schedules"]) => triggers::schedules(cloud, key),
        (_, ["schedules"]) => triggers::put_schedules(cloud, key, call),
        (_, ["subdomain"]) => triggers::subdomain(cloud, key, call),
        (_, ["versions"]) => versions::list(cloud, key, call),
        (_, ["versions", id]) => versions::read(cloud, key, id),
        ("GET", ["deployments"]) => versions::deployments(cloud, key, None),
        (_, ["deployments"]) => versions::post_deployment(cloud, key, call),
        (_, ["deployments", id]) => versions::deployments(cloud, key, Some(id)),
        (_, ["routes"]) => triggers::replace_routes(cloud, key, call),
        (_, ["domains", "changeset"]) => domains::changeset(cloud, key, call),
        (_, ["domains", "records"]) => domains::replace(cloud, key, call),
        _ => Err(Refusal::no_route(&rest.join("/"))),
    })
}

/// Lets workerd load the upload, where that is requested: the only honest way to find errors of syntax and of
/// imports.
async fn check(cloud: &Cloud, upload: &Upload) -> Result<Option<Loaded>, Refusal> {
    if !cloud.validate {
        return Ok(None);
    }
    let loaded = cloud.workers.load(upload).await.map_err(Refusal::invalid)?;
    if loaded.handlers.is_empty() && loaded.named.is_empty() && !upload.classic {
        return Err(Refusal::new(400, 10068, "The script has no registered event handlers."));
    }
    Ok(Some(loaded))
}

/// All other operations; `reach` is the one account that the token reaches, if there is one.
fn operate(cloud: &Cloud, call: &Call, path: &[&str], reach: Option<&str>) -> Outcome {
    let method = call.method.as_str();
    match (method, path) {
        (_, ["memberships"]) => accounts::memberships(cloud, call),
        (_, ["accounts"]) => accounts::list(cloud, call, reach),
        (_, ["zones"]) => zones::list(cloud, call, reach),
        (_, ["zones", id]) => zones::read(cloud, id),
        ("GET", ["zones", zone, "workers", "routes"]) => triggers::routes(cloud, zone),
        (_, ["zones", zone, "workers", "routes"]) => triggers::put_route(cloud, zone, None, call),
        ("GET", ["zones", zone, "workers", "routes", id]) => triggers::read_route(cloud, zone, id),
        ("PUT", ["zones", zone, "workers", "routes", id]) => triggers::put_route(cloud, zone, Some(id), call),
        (_, ["zones", zone, "workers", "routes", id]) => triggers::delete_route(cloud, zone, id),
        (_, ["accounts", account, "workers", rest @ ..]) => workers(cloud, call, account, rest),
        (_, ["accounts", _, "queues"]) => accounts::queues(call),
        (_, ["accounts", _, "r2", "buckets", name]) => accounts::bucket(name),
        (_, ["accounts", account, "d1", "database", rest @ ..]) => match (method, rest) {
            ("GET", []) => databases::list(cloud, account, call),
            (_, []) => databases::create(cloud, account, call),
            ("GET", [id]) => databases::read(cloud, account, id),
            ("PATCH", [id]) => databases::patch(cloud, account, id, call),
            (_, [id]) => databases::delete(cloud, account, id),
            (_, [id, form, ..]) => databases::query(cloud, account, id, call, *form == "raw"),
        },
        (_, ["accounts", account, "storage", "kv", "namespaces", rest @ ..]) => match (method, rest) {
            ("GET", []) => kv::list(cloud, account, call),
            (_, []) => kv::create(cloud, account, call),
            (_, [id]) => kv::one(cloud, account, id, method == "DELETE"),
            (_, [id, "keys"]) => kv::keys(cloud, account, id, call),
            (_, [id, "values", key]) => kv::value(cloud, account, id, key, call),
            ("PUT", [id, "bulk"]) => kv::bulk(cloud, account, id, call),
            (_, [id, ..]) => kv::bulk_delete(cloud, account, id, call),
        },
        _ => Err(Refusal::no_route(&path.join("/"))),
    }
}

fn workers(cloud: &Cloud, call: &Call, account: &str, path: &[&str]) -> Outcome {
    let method = call.method.as_str();
    match (method, path) {
        (_, ["scripts"]) => scripts::list(cloud, account, call),
        (_, ["scripts-search"]) => scripts::search(cloud, account, call),
        ("GET", ["services", name]) => scripts::service(cloud, &key(account, "", name)),
        (_, ["services", name]) => scripts::delete(cloud, &key(account, "", name), call),
        (_, ["workers", name]) => scripts::beta(cloud, account, name),
        ("GET", ["subdomain"]) => accounts::get_subdomain(cloud, account),
        (_, ["subdomain"]) => accounts::put_subdomain(cloud, account, call),
        ("GET", ["domains"] | ["domains", "records"]) => domains::list(cloud, account, call),
        (_, ["domains"]) => domains::put(cloud, account, call),
        ("GET", ["domains", id] | ["domains", "records", id]) => domains::read(cloud, account, id),
        (_, ["domains", id]) => domains::delete(cloud, account, id),
        // There are no Durable Objects here; wrangler asks before it deletes a worker.
        (_, ["durable_objects", "namespaces"]) => Ok(Answer::page(&[], 1, call.number("per_page", 1000)?)),
        ("GET", ["dispatch", "namespaces"]) => namespaces::list(cloud, account),
        (_, ["dispatch", "namespaces"]) => namespaces::create(cloud, account, call),
        ("GET", ["dispatch", "namespaces", name]) => namespaces::read(cloud, account, name),
        (_, ["dispatch", "namespaces", name]) => namespaces::delete(cloud, account, name),
        ("GET", ["dispatch", "namespaces", name, "scripts"]) => namespaces::scripts(cloud, account, name, call),
        (_, ["dispatch", "namespaces", name, "scripts"]) => namespaces::delete_tagged(cloud, account, name, call),
        _ => Err(Refusal::no_route(&path.join("/"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn every_listed_operation_is_routed() {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(Options::new(folder.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        for (methods, pattern) in operations() {
            for method in methods.split(' ').chain(["TRACE"]) {
                let path = format!("{BASE}/{}", pattern.replace('*', "x"));
                let headers = HeaderMap::from_iter([(hyper::header::AUTHORIZATION, "Bearer t".parse().unwrap())]);
                let reply = runtime.block_on(async { answer(&cloud, method, &path, "", headers, Bytes::new()).await });
                let Reply::Answer(reply) = reply else { panic!("{method} {path} is dropped") };
                let text = String::from_utf8(reply.body).unwrap();
                assert!(!text.contains("7003"), "{method} {path}: {text}");
                assert_eq!(reply.status == 405, method == "TRACE", "{method} {path}: {text}");
            }
        }
    }
}
