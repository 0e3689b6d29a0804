//! Lists as Cloudflare returns them: a hundred thousand workers are 50 MB and more, of which a few fields are kept. Read as they come,
//! never as a whole; sends nothing.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;

use flotilla_http::{Body, Error, Kind};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use flotilla_model::paging::{ListPage, Page};
use flotilla_model::platform::{
    Call, CallError, Home, ListedDomain, ListedRoute, ListedWorker, Reply, SCRIPTS_PER_PAGE,
};

use super::result::ResultInfo;

/// The longest list that is read, in bytes: a worker takes about 600 in it, so that this is 400,000 of them. An account holds some hundreds,
/// and the lists of namespaces come in pages.
pub const MAX_LIST: u64 = 256 << 20;
/// The maximum number of entries of a list that are kept of one answer: an empty entry takes a few bytes, and a hundred times as much once
/// it is read.
const MAX_ENTRIES: usize = 500_000;
/// The most tags of a worker, and errors of an answer, that are kept.
const MAX_PARTS: usize = 100;

/// The envelope of an answer. What isn't named here is skipped without being kept.
#[derive(Deserialize)]
struct Envelope<T> {
    success: bool,
    #[serde(default, deserialize_with = "parts")]
    errors: Vec<ApiError>,
    #[serde(default = "none", deserialize_with = "entries")]
    #[serde(bound = "T: Deserialize<'de>")]
    result: Option<Vec<T>>,
    result_info: Option<ResultInfo>,
}

fn none<T>() -> Option<Vec<T>> {
    None
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
}

/// A worker of an account.
#[derive(Deserialize)]
struct Script {
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    etag: String,
    #[serde(default, deserialize_with = "or_default")]
    created_on: String,
    #[serde(default, deserialize_with = "or_default")]
    modified_on: String,
    last_deployed_from: Option<String>,
    #[serde(default, deserialize_with = "parts")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    has_assets: bool,
    #[serde(default, deserialize_with = "or_default")]
    migration_tag: String,
}

/// A worker of a dispatch namespace: its description is one level down.
#[derive(Deserialize)]
struct InNamespace {
    script: Script,
}

#[derive(Deserialize)]
struct Domain {
    id: String,
    #[serde(deserialize_with = "super::hosts::ascii")]
    hostname: String,
    #[serde(default, deserialize_with = "or_default")]
    service: String,
}

#[derive(Deserialize)]
struct Route {
    id: String,
    #[serde(deserialize_with = "super::hosts::ascii")]
    pattern: String,
    script: Option<String>,
}

/// Reads a list with a maximum number of entries; `null` is none.
struct Bounded<T> {
    limit: usize,
    entry: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} entries", self.limit)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() == self.limit {
                return Err(de::Error::custom(format!("more than {} entries", self.limit)));
            }
            entries.push(entry);
        }
        Ok(Some(entries))
    }
}

/// Reads the entries of a list.
fn entries<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    deserializer.deserialize_any(Bounded { limit: MAX_ENTRIES, entry: PhantomData })
}

/// Reads a short list; `null` is none.
fn parts<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(deserializer.deserialize_any(Bounded { limit: MAX_PARTS, entry: PhantomData })?.unwrap_or_default())
}

/// Reads `null` as if the field were missing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<Script> for ListedWorker {
    fn from(script: Script) -> ListedWorker {
        let Script { id, etag, created_on, modified_on, last_deployed_from, tags, has_assets, migration_tag } = script;
        let migration_tag = Some(migration_tag).filter(|tag| !tag.is_empty());
        let uploaded_by = last_deployed_from;
        ListedWorker { name: id, etag, created_on, modified_on, uploaded_by, tags, has_assets, migration_tag }
    }
}

/// Returns whether a call's answer is one of these lists.
pub fn is_listing(call: &Call) -> bool {
    matches!(call, Call::ListWorkers { .. } | Call::ListDomains { .. } | Call::ListRoutes { .. })
}

/// Reads the page of a list that answers a call.
pub fn read(home: &Home, call: &Call, body: impl Read) -> Result<Reply, CallError> {
    match call {
        Call::ListWorkers { page, .. } if home.namespace.is_some() => {
            let scripts = |row: InNamespace| ListedWorker::from(row.script);
            list(body, page, Some(SCRIPTS_PER_PAGE), scripts).map(Reply::Workers)
        }
        Call::ListWorkers { page, .. } => list(body, page, None, |row: Script| row.into()).map(Reply::Workers),
        Call::ListDomains { page } => {
            let domain = |Domain { id, hostname, service }| ListedDomain { id, hostname, worker: service };
            list(body, page, None, domain).map(Reply::Domains)
        }
        Call::ListRoutes { page, .. } => {
            let route = |Route { id, pattern, script }: Route| ListedRoute {
                id,
                pattern,
                worker: script.filter(|worker| !worker.is_empty()),
            };
            list(body, page, None, route).map(Reply::Routes)
        }
        _ => unreachable!("BUG: its answer is no list"),
    }
}

fn list<T: for<'de> Deserialize<'de>, U>(
    body: impl Read,
    page: &Page,
    full: Option<usize>,
    convert: impl Fn(T) -> U,
) -> Result<ListPage<U>, CallError> {
    let mut body = Watched { body, broken: None };
    let read: Result<Envelope<T>, serde_json::Error> =
        serde_json::from_reader(BufReader::with_capacity(64 << 10, &mut body));
    let envelope = match read {
        Ok(envelope) => envelope,
        Err(error) => {
            return Err(match body.broken {
                Some(broken) if broken.kind == Kind::TooLong => refused(0, "the list exceeds the size limit"),
                Some(broken) => super::failed(&broken),
                // Cut off in the middle, it may be whole the next time.
                None if error.is_eof() => CallError::Unavailable("Cloudflare's list is incomplete".to_owned()),
                None => super::undocumented(&format!("the list can't be read: {error}")),
            });
        }
    };
    if !envelope.success {
        let error = envelope.errors.into_iter().next();
        return Err(
            error.map_or_else(|| refused(0, "Cloudflare gave no reason"), |error| refused(error.code, &error.message))
        );
    }
    // An entry that isn't in the list counts as removed. So an incomplete list is worse than one that can't be read.
    let rows = envelope.result.ok_or_else(|| super::undocumented("the list is missing"))?;
    let entries = rows.into_iter().map(convert).collect();
    envelope.result_info.unwrap_or_default().page(entries, page, full).map_err(|why| super::undocumented(&why))
}

fn refused(code: u64, message: &str) -> CallError {
    CallError::Rejected { status: 200, code, message: message.to_owned() }
}

/// Keeps the reason why reading failed: the parser reports only that it did.
struct Watched<R> {
    body: R,
    broken: Option<Error>,
}

impl<R: Read> Read for &mut Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.broken = Some(Body::error(error));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(namespace: Option<&str>) -> Home {
        Home { account_id: "a".to_owned(), namespace: namespace.map(str::to_owned) }
    }

    fn workers() -> Call {
        Call::ListWorkers { tags: None, page: Page::First }
    }

    fn check(call: &Call, namespace: Option<&str>, body: &str) -> Result<Reply, CallError> {
        read(&home(namespace), call, body.as_bytes())
    }

    #[test]
    fn the_fields_in_use_are_kept_and_the_others_skipped() {
        let script = r#"{"id": "w", "etag": "e", "created_on": "c", "modified_on": "m", "last_deployed_from": "wrangler",
            "tags": ["flotilla-x"], "handlers": ["fetch"], "observability": {"enabled": true}, "placement": null,
            "has_assets": true, "migration_tag": "v1"}"#;
        let bare = r#"{"id": "v", "tags": null, "has_assets": null, "migration_tag": null}"#;
        let expected = vec![
            ListedWorker {
                name: "w".to_owned(),
                etag: "e".to_owned(),
                created_on: "c".to_owned(),
                modified_on: "m".to_owned(),
                uploaded_by: Some("wrangler".to_owned()),
                tags: vec!["flotilla-x".to_owned()],
                has_assets: true,
                migration_tag: Some("v1".to_owned()),
            },
            ListedWorker { name: "v".to_owned(), ..ListedWorker::default() },
        ];
        let expected = Reply::Workers(expected.into());
        let list =
            |rows: &str| format!(r#"{{"success": true, "errors": [], "messages": [{{"x": 1}}], "result": [{rows}]}}"#);
        assert_eq!(check(&workers(), None, &list(&format!("{script}, {bare}"))), Ok(expected.clone()));
        let wrapped = format!(r#"{{"script": {script}, "dispatch_namespace": "n"}}, {{"script": {bare}}}"#);
        assert_eq!(check(&workers(), Some("n"), &list(&wrapped)), Ok(expected));
        assert_eq!(
            check(
                &Call::ListDomains { page: Page::First },
                None,
                &list(r#"{"id": "d", "hostname": "a.example", "service": "w", "zone_id": "z"}"#)
            ),
            Ok(Reply::Domains(
                vec![ListedDomain { id: "d".to_owned(), hostname: "a.example".to_owned(), worker: "w".to_owned() }]
                    .into()
            ))
        );
        let routes =
            list(r#"{"id": "r", "pattern": "a.example/*", "script": "w"}, {"id": "s", "pattern": "b.example/*"}"#);
        let Ok(Reply::Routes(routes)) =
            check(&Call::ListRoutes { zone_id: "z".to_owned(), page: Page::First }, None, &routes)
        else {
            panic!("routes")
        };
        assert_eq!(routes.entries.iter().map(|route| route.worker.as_deref()).collect::<Vec<_>>(), [Some("w"), None]);
    }

    #[test]
    fn a_page_tells_which_one_is_next() {
        let page = |namespace: Option<&str>, body: &str| match check(&workers(), namespace, body) {
            Ok(Reply::Workers(page)) => (page.entries.len(), page.next, page.total),
            other => panic!("{other:?}"),
        };
        let one = r#"{"success": true, "result": [{"id": "w"}], "result_info": {"count": 1, "total_count": 2}}"#;
        assert_eq!(page(None, one), (1, Some(Page::Number(2)), Some(2)));
        let cursor = r#"{"success": true, "result": [], "result_info": {"cursor": "next"}}"#;
        assert_eq!(page(Some("n"), cursor), (0, Some(Page::Cursor("next".to_owned())), None));
        assert_eq!(
            page(Some("n"), r#"{"success": true, "result": [], "result_info": {"cursor": ""}}"#),
            (0, None, None)
        );
        assert_eq!(page(None, r#"{"success": true, "result": []}"#), (0, None, None));
    }

    #[test]
    fn what_is_no_list_is_an_unknown_answer() {
        let outcome_of = |body: &str| match check(&workers(), None, body) {
            Err(CallError::Rejected { message, .. }) => message,
            Err(CallError::Unavailable(message)) => format!("again: {message}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(outcome_of(r#"{"success": true, "result": [{"id": "w"}"#), "again: Cloudflare's list is incomplete");
        assert_eq!(outcome_of(r#"{"success": false, "errors": [{"code": 7, "message": "no"}], "result": null}"#), "no");
        for body in [
            r#"{"success": true, "result": [{"id": 7}]}"#,
            r#"{"success": true, "result": null}"#,
            r#"{"success": true}"#,
            r#"{"success": true, "result": {}}"#,
            r#"{"success": true, "result": [], "result_info": {"page": 2}}"#,
            "<html>",
        ] {
            assert!(outcome_of(body).starts_with("again: Cloudflare's response is not the documented one"), "{body}");
        }
    }

    #[test]
    fn a_hundred_thousand_workers_are_read_as_they_come() {
        let row = |at: usize| {
            format!(
                "{}{{\"id\": \"w-{at}\", \"etag\": \"{at:064}\", \"tag\": \"{at:032}\", \"modified_on\": \"2026-11-21T10:00:00Z\", \
                 \"tags\": [\"flotilla-shop\", \"digest-{at:064}\", \"triggers-{at:016}\", \"customer-c{at}\"], \
                 \"handlers\": [\"fetch\"], \"observability\": {{\"enabled\": true}}, \"compatibility_date\": \"2026-06-01\"}}",
                if at == 0 { "" } else { "," }
            )
        };
        let mut rows = (0..100_000).map(row);
        // Made as it is read: no more than a piece of it is ever there.
        let body = Pieces(Box::new(move || {
            let piece: String = rows.by_ref().take(64).collect();
            (!piece.is_empty()).then_some(piece)
        }));
        let head: &[u8] = b"{\"success\": true, \"errors\": [], \"result\": [";
        let start = std::time::Instant::now();
        let Ok(Reply::Workers(workers)) = read(&home(None), &workers(), head.chain(body).chain(&b"]}"[..])) else {
            panic!("a list")
        };
        eprintln!("100,000 workers in {:?}", start.elapsed());
        assert_eq!(workers.entries.len(), 100_000);
        assert_eq!(workers.entries[99_999].tags[3], "customer-c99999");
    }

    /// A body that comes in pieces.
    struct Pieces<'a>(Box<dyn FnMut() -> Option<String> + 'a>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = (self.0)() else { return Ok(0) };
            assert!(piece.len() <= buffer.len(), "a piece fits");
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }
}
