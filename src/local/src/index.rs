//! The page at `/`: which workers are deployed, where they answer, how they are, and what they print. Knows what is on it; `page` writes it.

use std::fmt::Write as _;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use serde_json::{Value, json};

use super::call::pairs;
use super::cloud::Cloud;
use super::directory::Entry;
use super::envelope::{Answer, Refusal};
use super::page::{self, Row, View};
use super::routing::{Body, blocking, host, respond, text, words};
use super::seal::digest;
use super::store::{self, Key};

/// The workers on a page.
const PAGE: usize = 50;
/// The most workers that are listed as text.
const SHOWN: usize = 500;
/// The most events that are sent at once; a page that was away misses those before.
const EVENTS: usize = 100;
/// The longest time that a page waits for news.
const WAIT: Duration = Duration::from_secs(20);
/// The time between two looks whether a worker was deployed.
const LOOK: Duration = Duration::from_millis(300);
/// Events that come at once are sent together.
const TOGETHER: Duration = Duration::from_millis(120);
/// The header with which the page's own script proves that it is: only who can read the page knows the word.
const KEY: &str = "x-local-page";
/// The maximum size, in bytes, of a request for a check.
const SMALL: usize = 4 << 10;

/// The part of the page that a visitor asks for.
#[derive(Debug, Default)]
struct Wanted {
    /// A part of a worker's or group's name.
    filter: String,
    /// The page of workers, from 1.
    page: usize,
    /// The worker whose events are wanted; none: all.
    worker: Option<Key>,
    /// The number of the last event that is known.
    after: u64,
    /// The state of the list that is known.
    generation: Option<u64>,
    /// The word with which more than the list is shown.
    key: String,
}

impl Wanted {
    fn read(query: &str) -> Wanted {
        let mut wanted = Wanted { page: 1, ..Wanted::default() };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "q" => wanted.filter = value.trim().to_lowercase(),
                "page" => wanted.page = value.parse().unwrap_or(1).max(1),
                "after" => wanted.after = value.parse().unwrap_or(0),
                "generation" => wanted.generation = value.parse().ok(),
                "key" => wanted.key = value,
                "worker" => wanted.worker = page::key_of(&value),
                _ => {}
            }
        }
        wanted
    }
}

/// The index, as HTML for a browser and as text for others.
pub fn index(cloud: &Cloud, query: &str, headers: &HeaderMap) -> Response<Body> {
    if !words(headers, header::ACCEPT).contains("text/html") {
        return listed(cloud, headers).unwrap_or_else(|refusal| text(500, &refusal.message));
    }
    // Not within another page, which could be a worker's.
    if headers.get("sec-fetch-dest").is_some_and(|value| value != "document") {
        return text(403, "this page is shown by itself, not within another one\n");
    }
    let wanted = Wanted::read(query);
    let (number, generation) = (cloud.activity.number(), cloud.store.generation());
    let nonce = cloud.store.seal.id();
    let is_open = cloud.is_page_key(&wanted.key);
    let html = view(cloud, &wanted, headers, is_open)
        .map(|view| page::whole(&view, &nonce, &cloud.page_key, number, generation));
    let answer = match html {
        Ok(html) => Answer::bytes(200, "text/html; charset=utf-8", html.into_bytes()),
        Err(refusal) => return text(500, &refusal.message),
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    respond(
        answer
            .with("content-security-policy", policy)
            .with("cache-control", "no-store")
            .with("x-content-type-options", "nosniff")
            .with("referrer-policy", "no-referrer")
            .with("cross-origin-opener-policy", "same-origin")
            .with("cross-origin-resource-policy", "same-origin"),
    )
}

/// Returns whether a request is the page's own script's: it knows the page's word, and no browser says that it comes from elsewhere.
pub fn is_own_script(cloud: &Cloud, headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let own = format!("http://{}", words(headers, header::HOST));
    digest(header(KEY).unwrap_or_default()) == digest(cloud.page_key.as_bytes())
        && header("origin").is_none_or(|origin| origin.eq_ignore_ascii_case(own.as_bytes()))
        && header("sec-fetch-site").is_none_or(|site| site == b"same-origin")
}

/// Answers the page's script: with what is new, once there is something, or with the check of a worker.
pub async fn script(cloud: &Cloud, path: &str, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    match (method.as_str(), path) {
        ("GET", "live") => live(cloud, request.uri().query().unwrap_or_default(), request.headers()).await,
        ("POST", "check") => {
            let body = Limited::new(request.into_body(), SMALL).collect().await.map(|body| body.to_bytes());
            let named = body.ok().and_then(|body| page::key_of(&String::from_utf8_lossy(&body)));
            let found = named.map(|key| blocking(|| cloud.store.read(|db| store::get(db, &key))));
            match found {
                Some(Ok(worker)) => {
                    super::routing::check(cloud, &worker).await;
                    respond(Answer::json(200, &json!({})))
                }
                Some(Err(refusal)) => text(404, &refusal.message),
                None => text(400, "the body names no worker\n"),
            }
        }
        _ => text(404, "unknown: there are live and check\n"),
    }
}

/// Waits for news of what is shown, and returns them.
async fn live(cloud: &Cloud, query: &str, headers: &HeaderMap) -> Response<Body> {
    let wanted = Wanted::read(query);
    let mut newest = cloud.activity.newest();
    let changed = |number: u64| number > wanted.after || wanted.generation != Some(cloud.store.generation());
    let end = tokio::time::Instant::now() + WAIT;
    while !changed(*newest.borrow_and_update()) && tokio::time::Instant::now() < end {
        // Whichever comes first; the sender is never gone.
        let _ = tokio::time::timeout(LOOK, newest.changed()).await;
    }
    tokio::time::sleep(TOGETHER).await;
    let (number, generation) = (cloud.activity.number(), cloud.store.generation());
    match blocking(|| view(cloud, &wanted, headers, true)) {
        Ok(view) => respond(
            Answer::json(
                200,
                &json!({
                    "number": number, "generation": generation,
                    "workers": page::workers(&view), "events": page::events(&view),
                }),
            )
            .with("cache-control", "no-store"),
        ),
        Err(refusal) => text(500, &refusal.message),
    }
}

/// Returns the contents of the page.
fn view(cloud: &Cloud, wanted: &Wanted, headers: &HeaderMap, is_open: bool) -> Result<View, Refusal> {
    let entries = cloud.directory.entries(&cloud.store, cloud.group.as_ref())?;
    let is_wanted = |entry: &&Entry| {
        wanted.filter.is_empty()
            || [&entry.key.name, &entry.group, &entry.key.namespace]
                .iter()
                .any(|name| name.to_lowercase().contains(&wanted.filter))
    };
    let found: Vec<&Entry> = entries.iter().filter(is_wanted).collect();
    let pages = found.len().div_ceil(PAGE).max(1);
    let page = wanted.page.min(pages);
    let shown = found.iter().skip((page - 1) * PAGE).take(PAGE);
    let rows = shown.map(|entry| row(cloud, entry, headers)).collect::<Result<_, Refusal>>()?;
    let mut groups: Vec<&str> =
        entries.iter().map(|entry| entry.group.as_str()).filter(|group| !group.is_empty()).collect();
    groups.dedup();
    Ok(View {
        rows,
        workers: entries.len(),
        groups: groups.len(),
        found: found.len(),
        filter: wanted.filter.clone(),
        page,
        pages,
        key: is_open.then(|| wanted.key.clone()),
        worker: wanted.worker.clone().filter(|_| is_open),
        events: if !is_open { Vec::new() } else { cloud.activity.recent(wanted.worker.as_ref(), wanted.after, EVENTS) },
    })
}

fn row(cloud: &Cloud, entry: &Entry, headers: &HeaderMap) -> Result<Row, Refusal> {
    let (version, hosts) = cloud.store.read(|db| {
        // It may be another one by now, or gone.
        let version = store::version(db, entry.row, &entry.version).ok();
        let sql = "SELECT hostname FROM domain WHERE account = ?1 AND service = ?2 UNION ALL
                   SELECT pattern FROM route WHERE account = ?1 AND script = ?2 LIMIT 20";
        let hosts = match entry.key.namespace.as_str() {
            "" => store::rows(db, sql, [&entry.key.account, &entry.key.name], |row| row.get(0))?,
            _ => Vec::new(),
        };
        Ok((version, hosts))
    })?;
    // Names and kinds alone: values can be anything.
    let text = |binding: &Value, field: &str| binding[field].as_str().unwrap_or_default().to_owned();
    let bindings = version.iter().flat_map(|version| &version.bindings);
    Ok(Row {
        url: url(entry, headers),
        bindings: bindings.map(|binding| (text(binding, "name"), text(binding, "type"))).collect(),
        hosts,
        summary: cloud.activity.summary(&entry.key),
        entry: entry.clone(),
    })
}

/// The workers as text, one a line.
fn listed(cloud: &Cloud, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let entries = cloud.directory.entries(&cloud.store, cloud.group.as_ref())?;
    let mut lines = String::new();
    for entry in entries.iter().take(SHOWN) {
        let Key { namespace, name, .. } = &entry.key;
        let _ = writeln!(lines, "{name}\t{namespace}\t{}\t{}", url(entry, headers), entry.modified);
    }
    Ok(text(200, &format!("Local Cloudflare: {} deployed workers\n{lines}", entries.len())))
}

/// `<worker>.localhost`, or the path form where two workers have the same name or the name can't be a host.
fn url(entry: &Entry, headers: &HeaderMap) -> String {
    let port = words(headers, header::HOST).rsplit_once(':').map(|(_, port)| format!(":{port}"));
    let port = port.filter(|port| port[1..].bytes().all(|byte| byte.is_ascii_digit())).unwrap_or_default();
    let base = format!("http://{}{port}", host(headers));
    let Key { account, name, .. } = &entry.key;
    match (entry.is_ambiguous, name.contains('_')) {
        (true, _) => format!("{base}/accounts/{account}/workers/{name}/"),
        (false, true) => format!("{base}/workers/{name}/"),
        (false, false) => format!("http://{name}.localhost{port}/"),
    }
}
