//! The API: who may call, how often, and which operation a method and path mean. Knows the names of all operations, but not their details.

use hyper::HeaderMap;
use hyper::body::Bytes;

use super::call::{Body, Call, decode, pairs};
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal, throttled};
use super::faults::Reset;
use super::limits::Verdict;
use super::store::Key;
use super::upload::Upload;
use super::workers::Loaded;
use super::{
    accounts, assets, audit, bookmarks, databases, domains, journal, kv, namespaces, objects, queues, scripts, secrets,
    settings, tails, triggers, versions, workflows, zone_settings, zones,
};

/// The path that the API begins with.
pub const BASE: &str = "/client/v4";

/// The place an operation expects a worker in: outside dispatch namespaces, in one, or either.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Account,
    Namespace,
    Both,
}

/// A request to an operation.
struct Request<'a> {
    cloud: &'a Cloud,
    call: &'a Call,
    token: &'a str,
    /// The one account that the token reaches, if there is one.
    reach: Option<&'a str>,
    /// The names and ids in the path, in order; of a worker's operation, those below the worker's path.
    names: Vec<&'a str>,
}

/// The function of an operation.
#[derive(Clone, Copy)]
enum Run {
    /// Of an upload, which workerd may have loaded.
    Upload(fn(&Cloud, &Key, &Call, &Upload, Option<&Loaded>) -> Outcome),
    /// Of one worker.
    Worker(fn(&Request<'_>, &Key) -> Outcome),
    /// Of anything else.
    Other(fn(&Request<'_>) -> Outcome),
}

use Of::{Account, Both, Namespace};
use Run::{Other, Worker};

/// The operations of one worker, below its path: of an account's worker, of a namespace's script.
const WORKER: &[(&str, Of, &str, Run)] = &[
    ("GET", Account, "", Worker(|r, key| scripts::content(r.cloud, key))),
    ("GET", Namespace, "", Worker(|r, key| namespaces::read_script(r.cloud, key))),
    ("PUT", Both, "", Run::Upload(scripts::put)),
    ("DELETE", Both, "", Worker(|r, key| scripts::delete(r.cloud, key, r.call))),
    ("GET", Namespace, "/content", Worker(|r, key| scripts::content(r.cloud, key))),
    ("GET", Account, "/content/v2", Worker(|r, key| scripts::content(r.cloud, key))),
    ("GET", Both, "/settings", Worker(|r, key| settings::read(r.cloud, key))),
    ("PATCH", Both, "/settings", Worker(|r, key| settings::patch(r.cloud, key, r.call))),
    ("GET", Account, "/script-settings", Worker(|r, key| settings::read_unversioned(r.cloud, key))),
    ("PATCH", Account, "/script-settings", Worker(|r, key| settings::patch_unversioned(r.cloud, key, r.call))),
    ("GET", Namespace, "/bindings", Worker(|r, key| settings::bindings(r.cloud, key))),
    ("GET", Both, "/secrets", Worker(|r, key| secrets::read(r.cloud, key, None))),
    ("PUT", Both, "/secrets", Worker(|r, key| secrets::put(r.cloud, key, r.call))),
    ("GET", Both, "/secrets/*", Worker(|r, key| secrets::read(r.cloud, key, Some(r.names[0])))),
    ("DELETE", Both, "/secrets/*", Worker(|r, key| secrets::delete(r.cloud, key, r.call, r.names[0]))),
    ("PATCH", Both, "/secrets-bulk", Worker(|r, key| secrets::bulk(r.cloud, key, r.call))),
    ("GET", Namespace, "/tags", Worker(|r, key| settings::read_tags(r.cloud, key))),
    ("PUT", Namespace, "/tags", Worker(|r, key| settings::put_tags(r.cloud, key, r.call))),
    ("PUT", Namespace, "/tags/*", Worker(|r, key| settings::change_tag(r.cloud, key, r.names[0], true))),
    ("DELETE", Namespace, "/tags/*", Worker(|r, key| settings::change_tag(r.cloud, key, r.names[0], false))),
    ("POST", Both, "/assets-upload-session", Worker(|r, key| assets::open(r.cloud, key, r.call))),
    ("GET", Account, "/schedules", Worker(|r, key| triggers::schedules(r.cloud, key))),
    ("PUT", Account, "/schedules", Worker(|r, key| triggers::put_schedules(r.cloud, key, r.call))),
    ("GET", Account, "/subdomain", Worker(|r, key| triggers::subdomain(r.cloud, key, r.call))),
    ("POST", Account, "/subdomain", Worker(|r, key| triggers::subdomain(r.cloud, key, r.call))),
    ("DELETE", Account, "/subdomain", Worker(|r, key| triggers::subdomain(r.cloud, key, r.call))),
    ("GET", Account, "/versions", Worker(|r, key| versions::list(r.cloud, key, r.call))),
    ("POST", Account, "/versions", Run::Upload(versions::create)),
    ("GET", Account, "/versions/*", Worker(|r, key| versions::read(r.cloud, key, r.names[0]))),
    ("GET", Account, "/deployments", Worker(|r, key| versions::deployments(r.cloud, key, None))),
    ("POST", Account, "/deployments", Worker(|r, key| versions::post_deployment(r.cloud, key, r.call))),
    ("GET", Account, "/deployments/*", Worker(|r, key| versions::deployments(r.cloud, key, Some(r.names[0])))),
    ("POST", Account, "/tails", Worker(|r, key| tails::create(r.cloud, key, r.call))),
    ("DELETE", Account, "/tails/*", Worker(|r, key| tails::delete(r.cloud, key, r.names[0]))),
    ("PUT", Account, "/routes", Worker(|r, key| triggers::replace_routes(r.cloud, key, r.call))),
    ("POST", Account, "/domains/changeset", Worker(|r, key| domains::changeset(r.cloud, key, r.call))),
    ("PUT", Account, "/domains/records", Worker(|r, key| domains::replace(r.cloud, key, r.call))),
];

/// All other operations; where two fit a path, the first one is meant.
const OTHERS: &[(&str, &str, Run)] = &[
    ("GET", "user/tokens/verify", Other(|r| accounts::verify(r.token, r.reach, None))),
    ("GET", "memberships", Other(|r| accounts::memberships(r.cloud, r.call))),
    ("GET", "accounts", Other(|r| accounts::list(r.cloud, r.call, r.reach))),
    ("GET", "accounts/*/tokens/verify", Other(|r| accounts::verify(r.token, r.reach, Some(r.names[0])))),
    ("GET", "zones", Other(|r| zones::list(r.cloud, r.call, r.reach))),
    ("GET", "zones/*", Other(|r| zones::read(r.cloud, r.names[0]))),
    ("GET", "zones/*/settings", Other(|r| zone_settings::list(r.cloud, r.names[0]))),
    ("GET", "zones/*/settings/*", Other(|r| zone_settings::read(r.cloud, r.names[0], r.names[1]))),
    ("PATCH", "zones/*/settings/*", Other(|r| zone_settings::patch(r.cloud, r.names[0], r.names[1], r.call))),
    ("GET", "accounts/*/logs/audit", Other(|r| audit::list(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/audit_logs", Other(|r| audit::list_old(r.cloud, r.names[0], r.call))),
    ("GET", "zones/*/workers/routes", Other(|r| triggers::routes(r.cloud, r.names[0]))),
    ("POST", "zones/*/workers/routes", Other(|r| triggers::put_route(r.cloud, r.names[0], None, r.call))),
    ("GET", "zones/*/workers/routes/*", Other(|r| triggers::read_route(r.cloud, r.names[0], r.names[1]))),
    ("PUT", "zones/*/workers/routes/*", Other(|r| triggers::put_route(r.cloud, r.names[0], Some(r.names[1]), r.call))),
    ("DELETE", "zones/*/workers/routes/*", Other(|r| triggers::delete_route(r.cloud, r.names[0], r.names[1]))),
    ("GET", "accounts/*/workers/scripts", Other(|r| scripts::list(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/scripts-search", Other(|r| scripts::search(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/services/*", Other(|r| scripts::service(r.cloud, &r.worker()))),
    ("DELETE", "accounts/*/workers/services/*", Other(|r| scripts::delete(r.cloud, &r.worker(), r.call))),
    ("GET", "accounts/*/workers/workers/*", Other(|r| scripts::beta(r.cloud, r.names[0], r.names[1]))),
    ("POST", ASSETS_UPLOAD, Other(|r| assets::upload(r.cloud, r.names[0], r.token, r.call))),
    ("GET", "accounts/*/workers/subdomain", Other(|r| accounts::get_subdomain(r.cloud, r.names[0]))),
    ("PUT", "accounts/*/workers/subdomain", Other(|r| accounts::put_subdomain(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/domains", Other(|r| domains::list(r.cloud, r.names[0], r.call))),
    ("PUT", "accounts/*/workers/domains", Other(|r| domains::put(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/domains/records", Other(|r| domains::list(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/domains/records/*", Other(|r| domains::read(r.cloud, r.names[0], r.names[1]))),
    ("GET", "accounts/*/workers/domains/*", Other(|r| domains::read(r.cloud, r.names[0], r.names[1]))),
    ("DELETE", "accounts/*/workers/domains/*", Other(|r| domains::delete(r.cloud, r.names[0], r.names[1]))),
    ("GET", "accounts/*/workers/durable_objects/namespaces", Other(|r| objects::list(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/dispatch/namespaces", Other(|r| namespaces::list(r.cloud, r.names[0]))),
    ("POST", "accounts/*/workers/dispatch/namespaces", Other(|r| namespaces::create(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workers/dispatch/namespaces/*", Other(|r| namespaces::read(r.cloud, r.names[0], r.names[1]))),
    (
        "DELETE",
        "accounts/*/workers/dispatch/namespaces/*",
        Other(|r| namespaces::delete(r.cloud, r.names[0], r.names[1])),
    ),
    ("GET", NAMESPACE_SCRIPTS, Other(|r| namespaces::scripts(r.cloud, r.names[0], r.names[1], r.call))),
    ("DELETE", NAMESPACE_SCRIPTS, Other(|r| namespaces::delete_tagged(r.cloud, r.names[0], r.names[1], r.call))),
    ("GET", "accounts/*/queues", Other(|r| queues::list(r.cloud, r.names[0], r.call))),
    ("POST", "accounts/*/queues", Other(|r| queues::create(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/queues/*", Other(|r| queues::one(r.cloud, r.names[0], r.names[1], false))),
    ("DELETE", "accounts/*/queues/*", Other(|r| queues::one(r.cloud, r.names[0], r.names[1], true))),
    ("GET", "accounts/*/queues/*/consumers", Other(|r| queues::consumers(r.cloud, r.names[0], r.names[1]))),
    (
        "POST",
        "accounts/*/queues/*/consumers",
        Other(|r| queues::create_consumer(r.cloud, r.names[0], r.names[1], r.call)),
    ),
    ("PUT", CONSUMER, Other(|r| queues::change_consumer(r.cloud, r.names[0], r.names[1], r.names[2], r.call))),
    ("DELETE", CONSUMER, Other(|r| queues::change_consumer(r.cloud, r.names[0], r.names[1], r.names[2], r.call))),
    ("GET", "accounts/*/workflows", Other(|r| workflows::list(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/workflows/*", Other(|r| workflows::one(r.cloud, r.names[0], r.names[1], r.call))),
    ("PUT", "accounts/*/workflows/*", Other(|r| workflows::one(r.cloud, r.names[0], r.names[1], r.call))),
    ("DELETE", "accounts/*/workflows/*", Other(|r| workflows::one(r.cloud, r.names[0], r.names[1], r.call))),
    ("GET", "accounts/*/r2/buckets/*", Other(|r| accounts::bucket(r.names[1]))),
    ("GET", "accounts/*/ai-search/namespaces/*", Other(|r| accounts::namespace(r.names[1]))),
    ("GET", "accounts/*/agent-memory/namespaces/*", Other(|r| accounts::namespace(r.names[1]))),
    ("GET", "accounts/*/d1/database", Other(|r| databases::list(r.cloud, r.names[0], r.call))),
    ("POST", "accounts/*/d1/database", Other(|r| databases::create(r.cloud, r.names[0], r.call))),
    ("GET", "accounts/*/d1/database/*", Other(|r| databases::read(r.cloud, r.names[0], r.names[1]))),
    ("PATCH", "accounts/*/d1/database/*", Other(|r| databases::patch(r.cloud, r.names[0], r.names[1], r.call))),
    ("DELETE", "accounts/*/d1/database/*", Other(|r| databases::delete(r.cloud, r.names[0], r.names[1]))),
    (
        "POST",
        "accounts/*/d1/database/*/query",
        Other(|r| databases::query(r.cloud, r.names[0], r.names[1], r.call, false)),
    ),
    (
        "POST",
        "accounts/*/d1/database/*/raw",
        Other(|r| databases::query(r.cloud, r.names[0], r.names[1], r.call, true)),
    ),
    (
        "GET",
        "accounts/*/d1/database/*/time_travel/bookmark",
        Other(|r| bookmarks::bookmark(r.cloud, r.names[0], r.names[1], r.call)),
    ),
    (
        "POST",
        "accounts/*/d1/database/*/time_travel/restore",
        Other(|r| bookmarks::restore(r.cloud, r.names[0], r.names[1], r.call)),
    ),
    ("GET", KV, Other(|r| kv::list(r.cloud, r.names[0], r.call))),
    ("POST", KV, Other(|r| kv::create(r.cloud, r.names[0], r.call))),
    ("GET", KV_NAMESPACE, Other(|r| kv::one(r.cloud, r.names[0], r.names[1], false))),
    ("DELETE", KV_NAMESPACE, Other(|r| kv::one(r.cloud, r.names[0], r.names[1], true))),
    ("GET", "accounts/*/storage/kv/namespaces/*/keys", Other(|r| kv::keys(r.cloud, r.names[0], r.names[1], r.call))),
    ("GET", KV_VALUE, Other(|r| kv::value(r.cloud, r.names[0], r.names[1], r.names[2], r.call))),
    ("PUT", KV_VALUE, Other(|r| kv::value(r.cloud, r.names[0], r.names[1], r.names[2], r.call))),
    ("DELETE", KV_VALUE, Other(|r| kv::value(r.cloud, r.names[0], r.names[1], r.names[2], r.call))),
    ("PUT", KV_BULK, Other(|r| kv::bulk(r.cloud, r.names[0], r.names[1], r.call))),
    ("DELETE", KV_BULK, Other(|r| kv::bulk_delete(r.cloud, r.names[0], r.names[1], r.call))),
    ("POST", KV_BULK_DELETE, Other(|r| kv::bulk_delete(r.cloud, r.names[0], r.names[1], r.call))),
];

/// The operation whose token is that of an upload session.
const ASSETS_UPLOAD: &str = "accounts/*/workers/assets/upload";
const NAMESPACE_SCRIPTS: &str = "accounts/*/workers/dispatch/namespaces/*/scripts";
const CONSUMER: &str = "accounts/*/queues/*/consumers/*";
const KV: &str = "accounts/*/storage/kv/namespaces";
const KV_NAMESPACE: &str = "accounts/*/storage/kv/namespaces/*";
const KV_VALUE: &str = "accounts/*/storage/kv/namespaces/*/values/*";
const KV_BULK: &str = "accounts/*/storage/kv/namespaces/*/bulk";
const KV_BULK_DELETE: &str = "accounts/*/storage/kv/namespaces/*/bulk/delete";

/// Every operation: its method and its path below `/client/v4`, with `*` for a name or id.
pub fn operations() -> impl Iterator<Item = (&'static str, String)> {
    let others = OTHERS.iter().map(|(method, path, _)| (*method, (*path).to_owned()));
    others.chain(WORKER.iter().flat_map(|(method, of, path, _)| {
        let account = (*of != Namespace).then(|| format!("accounts/*/workers/scripts/*{path}"));
        let namespace = (*of != Account).then(|| format!("{NAMESPACE_SCRIPTS}/*{path}"));
        account.into_iter().chain(namespace).map(|path| (*method, path))
    }))
}

impl Request<'_> {
    /// Returns the key of the worker that the path names outside a namespace.
    fn worker(&self) -> Key {
        Key::of_account(self.names[0], self.names[1])
    }
}

/// The outcome of a request: an answer, or none where the connection is dropped.
pub type Reply = Option<Answer>;

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
        Some(throttled().with("retry-after", verdict.reset.to_string()))
    } else {
        hit_or_operate(cloud, &call, path, token).await
    };
    cloud.journal.lock().add(entry, reply.as_ref().map_or(0, |answer| answer.status));
    reply.map(|answer| with_limits(cloud, answer, verdict))
}

async fn hit_or_operate(cloud: &Cloud, call: &Call, path: &str, token: Result<String, Refusal>) -> Reply {
    let effect = cloud.faults.lock().hit(&call.method, path).unwrap_or_default();
    if let Some(delay) = effect.delay() {
        tokio::time::sleep(delay).await;
    }
    if effect.reset == Some(Reset::Before) {
        return None;
    }
    let answer = match (effect.answer().filter(|_| !effect.carries_out()), token) {
        (Some(answer), _) => answer,
        (None, Ok(token)) => {
            effect.change(authorized(cloud, call, &token).await.unwrap_or_else(|refusal| refusal.answer()))
        }
        (None, Err(refusal)) => refusal.answer(),
    };
    (effect.reset != Some(Reset::After)).then_some(answer)
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
    let is_session = names(ASSETS_UPLOAD, &path).is_some();
    if !cloud.tokens.is_empty() && known.is_none() && !is_session {
        return Err(match path.as_slice() {
            [.., "tokens", "verify"] => Refusal::new(401, 1000, "Invalid API Token"),
            _ => Refusal::new(403, 9109, "Invalid access token"),
        });
    }
    let whole = format!("{BASE}/{}", path.join("/"));
    let (key, path) = match path.as_slice() {
        ["accounts", account, "workers", "scripts", name, rest @ ..] if !account.is_empty() && !name.is_empty() => {
            (Some(Key::of_account(account, name)), rest)
        }
        ["accounts", account, "workers", "dispatch", "namespaces", namespace, "scripts", name, rest @ ..]
            if ![account, namespace, name].iter().any(|name| name.is_empty()) =>
        {
            (Some(Key::new(account, namespace, name)), rest)
        }
        path => (None, path),
    };
    let other = if key.as_ref().is_some_and(|key| key.namespace.is_empty()) { Namespace } else { Account };
    let of_worker = WORKER.iter().filter(|(_, of, ..)| *of != other).map(|(method, _, path, run)| (method, path, run));
    let of_others = OTHERS.iter().map(|(method, path, run)| (method, path, run));
    let operations: Vec<_> = match key {
        Some(_) => of_worker.filter_map(|(method, pattern, run)| Some((method, run, names(pattern, path)?))).collect(),
        None => of_others.filter_map(|(method, pattern, run)| Some((method, run, names(pattern, path)?))).collect(),
    };
    if operations.is_empty() {
        return Err(Refusal::no_route(&whole));
    }
    let Some((_, run, names)) = operations.into_iter().find(|(method, ..)| **method == call.method) else {
        return Err(Refusal::new(405, 10405, format!("Method {} not allowed for {whole}", call.method)));
    };
    let reach = known.and_then(|(_, account)| account.as_deref());
    if let ["accounts", account, rest @ ..] = call.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
        && *rest != ["tokens", "verify"]
    {
        if reach.is_some_and(|reach| reach != *account) {
            return Err(Refusal::new(403, 10000, "Authentication error"));
        }
        if !is_id(account) {
            return Err(Refusal::no_route(&whole));
        }
    }
    let request = Request { cloud, call, token, reach, names };
    match (run, &key) {
        (Other(run), _) => tokio::task::block_in_place(|| run(&request)),
        (Worker(run), Some(key)) => {
            namespaces::check(cloud, key)?;
            tokio::task::block_in_place(|| run(&request, key))
        }
        (Run::Upload(run), Some(key)) => {
            namespaces::check(cloud, key)?;
            // Not blocking: an upload takes less time than to hand the thread's other work to another thread.
            let upload = Upload::read(call.form()?, &cloud.store, &cloud.limits, &cloud.now()[..10])?;
            let loaded = check(cloud, &upload).await?;
            run(cloud, key, call, &upload, loaded.as_ref())
        }
        (Worker(_) | Run::Upload(_), None) => unreachable!("BUG: a worker's operation has its path"),
    }
}

/// Returns the names and ids in a path that fits a pattern.
fn names<'a>(pattern: &str, path: &[&'a str]) -> Option<Vec<&'a str>> {
    let steps: Vec<&str> = pattern.split('/').filter(|step| !step.is_empty()).collect();
    let fits = |(step, segment): (&&str, &&str)| step == segment || (*step == "*" && !segment.is_empty());
    let is_name = |(step, segment): (&&str, &&'a str)| (*step == "*").then_some(*segment);
    (steps.len() == path.len() && steps.iter().zip(path).all(fits))
        .then(|| steps.iter().zip(path).filter_map(is_name).collect())
}

/// Cloudflare's account ids are 32 hexadecimal digits; any name is good enough here.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Lets workerd load the upload, where that is requested: the only honest way to find errors of syntax and of
/// imports.
async fn check(cloud: &Cloud, upload: &Upload) -> Result<Option<Loaded>, Refusal> {
    if !cloud.validate || upload.modules.is_empty() {
        return Ok(None);
    }
    let loaded = cloud.workers.load(upload).await.map_err(Refusal::invalid)?;
    if loaded.handlers.is_empty() && loaded.named.is_empty() && !upload.classic {
        return Err(Refusal::new(400, 10068, "The script has no registered event handlers."));
    }
    Ok(Some(loaded))
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
                let Some(reply) = reply else { panic!("{method} {path} is dropped") };
                let text = String::from_utf8(reply.body).unwrap();
                assert!(!text.contains("7003"), "{method} {path}: {text}");
                assert_eq!(reply.status == 405, method == "TRACE", "{method} {path}: {text}");
            }
        }
    }
}
