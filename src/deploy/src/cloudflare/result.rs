//! Checks a response against the documentation of its operation, and reads it. A response that isn't documented proves nothing: neither
//! that the request was carried out nor that it wasn't. One place for all operations; sends nothing.

use std::collections::BTreeSet;

use flotilla_model::paging::{ListPage, Page};
use flotilla_model::platform::{
    Call, DATABASE_MISSING, DATABASES_PER_PAGE, DISPATCH_NAMESPACE_MISSING, Home, KV_PER_PAGE, ListedConsumer,
    ListedQueue, ListedWorkflow, ListedZone, QUEUES_PER_PAGE, Reply, Token, WORKER_MISSING, WORKFLOWS_PER_PAGE,
    ZONES_PER_PAGE,
};
use flotilla_model::spec::QueueConsumer;
use flotilla_model::uploaded::Uploaded;
use serde::Deserialize;
use serde_json::Value;

/// Cloudflare's code for a custom domain that doesn't exist. Source: a public API client's probes of 2026.
const DOMAIN_MISSING: u64 = 100_114;
/// Cloudflare's code for a route that doesn't exist. Source: as above.
const ROUTE_MISSING: u64 = 10009;
/// Cloudflare's code for an account without a workers.dev subdomain. Source: Cloudflare docs, Workers › Errors, and wrangler.
const SUBDOMAIN_MISSING: u64 = 10007;

/// Cloudflare's code for a queue that doesn't exist. Source: Cloudflare docs, Queues › Error codes.
const QUEUE_MISSING: u64 = 10_104;
/// Cloudflare's code for a workflow that doesn't exist. Source: wrangler.
const WORKFLOW_MISSING: u64 = 10_200;

/// The difference between an answer and what its operation documents, in words.
type Mismatch = String;

/// Reads the result of a call that succeeded.
pub fn read(home: &Home, call: &Call, result: &Value, info: &Value) -> Result<Reply, Mismatch> {
    match call {
        Call::Upload { worker, .. } => {
            same(result, "id", worker)?;
            let etag = text(result, "etag")?;
            // Neither is documented to be there always.
            let time = |field| text(result, field).ok();
            Ok(Reply::Uploaded(Uploaded { etag, created_on: time("created_on"), modified_on: time("modified_on") }))
        }
        Call::OpenAssets { .. } => {
            object(result)?;
            let bucket = |bucket: &Value| strings(rows(bucket)?);
            let buckets = match &result["buckets"] {
                Value::Null => Vec::new(),
                buckets => rows(buckets)?.iter().map(bucket).collect::<Result<Vec<_>, Mismatch>>()?,
            };
            let buckets: Vec<Vec<String>> = buckets.into_iter().filter(|bucket| !bucket.is_empty()).collect();
            Ok(Reply::Assets { token: Some(Token::new(text(result, "jwt")?)), buckets })
        }
        // The token is there once all files are.
        Call::UploadAssets { .. } => {
            if !result.is_null() {
                object(result)?;
            }
            let token = if result["jwt"].is_null() { None } else { Some(Token::new(text(result, "jwt")?)) };
            Ok(Reply::Assets { token, buckets: Vec::new() })
        }
        // The result of these isn't documented: that it was a success is all that there is.
        Call::Delete { .. }
        | Call::DeleteDatabase { .. }
        | Call::DeleteTail { .. }
        | Call::DeleteConsumer { .. }
        | Call::DeleteWorkflow { .. } => Ok(Reply::Done),
        Call::StartTail { .. } => Ok(Reply::Tail {
            id: text(result, "id")?,
            url: text(result, "url")?,
            expires_at: text(result, "expires_at")?,
        }),
        // The result of these may be missing.
        Call::DetachDomain { id } | Call::RemoveRoute { id, .. } => match result {
            Value::Null => Ok(Reply::Done),
            result => {
                object(result)?;
                same_if_given(result, "id", id).map(|()| Reply::Done)
            }
        },
        Call::SetWorkersDev { on, previews, .. } => {
            let previews_enabled = result["previews_enabled"].as_bool();
            match flag(result, "enabled")? {
                enabled if enabled != *on => Err(format!("`enabled` is {enabled}")),
                _ if previews_enabled.is_some_and(|enabled| enabled != *previews) => {
                    Err(format!("`previews_enabled` is {}", !previews))
                }
                _ => Ok(Reply::Done),
            }
        }
        Call::SetCrons { crons, .. } => {
            let normal = |cron: &String| cron.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            let wanted: BTreeSet<String> = crons.iter().map(normal).collect();
            match schedules(result)?.iter().map(normal).collect::<BTreeSet<String>>() == wanted {
                true => Ok(Reply::Done),
                false => Err("`schedules` has other crons".to_owned()),
            }
        }
        Call::AttachDomain { worker, domain } | Call::MoveDomain { worker, domain } => {
            same(result, "hostname", domain)?;
            same(result, "service", worker)?;
            text(result, "id").map(Reply::Id)
        }
        Call::AddRoute { worker, pattern, .. } => {
            same_if_given(result, "pattern", pattern)?;
            same_if_given(result, "script", worker)?;
            text(result, "id").map(Reply::Id)
        }
        Call::MoveRoute { worker, pattern, id, .. } => {
            same_if_given(result, "id", id)?;
            same_if_given(result, "pattern", pattern)?;
            same_if_given(result, "script", worker)?;
            text(result, "id").map(Reply::Id)
        }
        Call::FindDomain { worker, domain } => {
            let found = domains(result)?.into_iter().find(|(_, hostname, _)| hostname == domain);
            Ok(match found {
                None => Reply::Nothing,
                Some((id, _, holder)) if holder == *worker => Reply::Id(id),
                Some((_, _, holder)) => Reply::HeldBy(Some(holder)),
            })
        }
        Call::ReadRoute { id, .. } => {
            same(result, "id", id)?;
            text(result, "pattern")?;
            match &result["script"] {
                Value::Null => Ok(Reply::HeldBy(None)),
                script => match script.as_str() {
                    Some(worker) => Ok(Reply::HeldBy(Some(worker.to_owned()).filter(|worker| !worker.is_empty()))),
                    None => Err("`script` is not a string".to_owned()),
                },
            }
        }
        Call::FindZone { name } => {
            let zones = rows(result)?.iter().map(|row| Ok((text(row, "name")?, text(row, "id")?)));
            let zones = zones.collect::<Result<Vec<_>, Mismatch>>()?;
            let found = zones.into_iter().find(|(other, _)| other == name);
            Ok(found.map_or(Reply::Nothing, |(_, id)| Reply::Id(id)))
        }
        Call::FindSubdomain => text(result, "subdomain").map(Reply::Id),
        Call::CreateNamespace => {
            object(result)?;
            let name = home.namespace.as_deref().unwrap_or_default();
            same_if_given(result, "namespace_name", name).map(|()| Reply::Done)
        }
        Call::ReadSettings { .. } => object(result).map(|()| Reply::Settings(result.clone())),
        Call::ListSecrets { .. } => secrets(result, info).map(Reply::Secrets),
        Call::ReadTags { .. } if home.namespace.is_some() => {
            Ok(Reply::Tags { tags: strings(rows(result)?)?, has_objects: false })
        }
        Call::ReadTags { worker } => {
            object(result)?;
            let tags = match &result["tags"] {
                Value::Null => Vec::new(),
                tags => strings(rows(tags)?)?,
            };
            Ok(Reply::Tags { tags, has_objects: has_objects(result, worker) })
        }
        Call::SetTags { tags, .. } => {
            object(result)?;
            match &result["tags"] {
                Value::Null => Ok(Reply::Done),
                given if strings(rows(given)?)?.iter().collect::<BTreeSet<_>>() == tags.iter().collect() => {
                    Ok(Reply::Done)
                }
                _ => Err("`tags` has other tags".to_owned()),
            }
        }
        Call::ReadWorkersDev { .. } => {
            let previews = result["previews_enabled"].as_bool().unwrap_or(false);
            flag(result, "enabled").map(|on| Reply::WorkersDev { on, previews })
        }
        Call::ReadCrons { .. } => Ok(Reply::Crons(schedules(result)?.into_iter().collect())),
        Call::CreateDatabase { name, .. } => {
            same(result, "name", name)?;
            text(result, "uuid").map(Reply::Id)
        }
        Call::QueryDatabase { .. } => {
            let results = rows(result)?;
            if let Some(failed) = results.iter().position(|result| result["success"] == false) {
                return Err(format!("the result of statement {} is no success", failed + 1));
            }
            let last = results.last().ok_or("there is no result")?;
            rows(&last["results"]).map(|rows| Reply::Rows(rows.to_vec()))
        }
        Call::ReadBookmark { .. } => text(result, "bookmark").map(Reply::Value),
        Call::CreateKv { title } => {
            same(result, "title", title)?;
            text(result, "id").map(Reply::Id)
        }
        Call::PutKeys { pairs, .. } => written(result, pairs.len()),
        Call::DeleteKeys { keys, .. } => written(result, keys.len()),
        Call::ListDatabases { name, page } => {
            let list = names(result, info, ("name", "uuid"), (page, DATABASES_PER_PAGE))?;
            // The documentation doesn't define whether the count is that of the filtered entries.
            Ok(Reply::Names(ListPage { total: list.total.filter(|_| name.is_none()), ..list }))
        }
        Call::ListKv { page } => names(result, info, ("title", "id"), (page, KV_PER_PAGE)).map(Reply::Names),
        Call::ListKeys { page, .. } => names(result, info, ("name", "name"), (page, KEYS_PER_PAGE)).map(Reply::Names),
        Call::ReadKey { .. } => Err("an envelope instead of a value".to_owned()),
        Call::ListQueues { name, page } => {
            let list = list_page(queues(result)?, info, page, QUEUES_PER_PAGE)?;
            // The documentation doesn't define whether the count is that of the filtered entries.
            Ok(Reply::Queues(ListPage { total: list.total.filter(|_| name.is_none()), ..list }))
        }
        Call::CreateQueue { name } => {
            same(result, "queue_name", name)?;
            text(result, "queue_id").map(Reply::Id)
        }
        Call::CreateConsumer { worker, .. } | Call::UpdateConsumer { worker, .. } => {
            match consumer_worker(result) {
                Some(given) if given != *worker => return Err(format!("the consumer is `{given}`")),
                _ => {}
            }
            text(result, "consumer_id").map(Reply::Id)
        }
        Call::ReadWorkflow { name } => {
            same(result, "name", name)?;
            text(result, "script_name").map(|worker| Reply::HeldBy(Some(worker)))
        }
        Call::PutWorkflow { name, .. } => same(result, "name", name).map(|()| Reply::Done),
        Call::ListWorkflows { page } => {
            let workflow =
                |row: &Value| Ok(ListedWorkflow { name: text(row, "name")?, worker: text(row, "script_name")? });
            let workflows = rows(result)?.iter().map(workflow).collect::<Result<Vec<_>, Mismatch>>()?;
            list_page(workflows, info, page, WORKFLOWS_PER_PAGE).map(Reply::Workflows)
        }
        Call::ListAccounts { page } => names(result, info, ("name", "id"), (page, ZONES_PER_PAGE)).map(Reply::Names),
        Call::ListZones { page, .. } => {
            let zone = |row: &Value| {
                let account = &row["account"];
                let (id, name, account_id) = (text(row, "id")?, text(row, "name")?, text(account, "id")?);
                Ok(ListedZone { id, name, account_id, account_name: text(account, "name").unwrap_or_default() })
            };
            let zones = rows(result)?.iter().map(zone).collect::<Result<Vec<_>, Mismatch>>()?;
            list_page(zones, info, page, ZONES_PER_PAGE).map(Reply::Zones)
        }
        Call::VerifyToken { .. } => text(result, "status").map(Reply::Token),
        Call::ListWorkers { .. } | Call::ListDomains { .. } | Call::ListRoutes { .. } | Call::ReadContent { .. } => {
            unreachable!("BUG: it is read as it comes")
        }
    }
}

/// Reads the answer to a deletion by a tag, which has no envelope.
pub fn deleted(answer: &Value) -> Result<Reply, Mismatch> {
    object(answer)?;
    match (answer["deleted_count"].as_u64(), answer["deleted"].as_array().map(Vec::len)) {
        (Some(0), Some(0)) => Ok(Reply::Nothing),
        (Some(1), Some(1)) => Ok(Reply::Done),
        (Some(count), Some(_)) => Err(format!("{count} workers were deleted")),
        _ => Err("`deleted` is missing".to_owned()),
    }
}

/// The code of a 404 for a key that KV doesn't have. Source: Cloudflare's answer to wrangler: `get: 'key not found'`.
const KEY_MISSING: u64 = 10_009;
/// The keys of a page, which is the most that KV lists at once.
const KEYS_PER_PAGE: usize = 1000;

/// Returns what a 404 with this code means: that the subject of the call doesn't exist. None: it means something else.
pub fn missing(home: &Home, call: &Call, code: u64) -> Option<Reply> {
    let is_worker = WORKER_MISSING.contains(&code);
    let is_namespace = home.namespace.is_some() && code == DISPATCH_NAMESPACE_MISSING;
    let (is_missing, reply) = match call {
        Call::Delete { .. } => (is_worker, Reply::Done),
        Call::DetachDomain { .. } => (code == DOMAIN_MISSING, Reply::Done),
        Call::RemoveRoute { .. } => (code == ROUTE_MISSING, Reply::Done),
        Call::ReadRoute { .. } => (code == ROUTE_MISSING, Reply::Nothing),
        Call::DeleteDatabase { .. } => (code == DATABASE_MISSING, Reply::Done),
        Call::DeleteConsumer { .. } => (code == QUEUE_MISSING, Reply::Done),
        Call::DeleteWorkflow { .. } => (code == WORKFLOW_MISSING, Reply::Done),
        Call::ReadWorkflow { .. } => (code == WORKFLOW_MISSING, Reply::Nothing),
        Call::FindSubdomain => (code == SUBDOMAIN_MISSING, Reply::Nothing),
        Call::ReadKey { .. } => (code == KEY_MISSING, Reply::Nothing),
        // A namespace that doesn't exist yet.
        Call::ListWorkers { .. } => (is_namespace, Reply::Nothing),
        Call::DeleteTail { .. } => (is_worker, Reply::Done),
        Call::StartTail { .. }
        | Call::ReadWorkersDev { .. }
        | Call::ReadCrons { .. }
        | Call::ReadSettings { .. }
        | Call::ListSecrets { .. }
        | Call::ReadTags { .. }
        | Call::ReadContent { .. } => (is_worker || is_namespace, Reply::Nothing),
        _ => return None,
    };
    is_missing.then_some(reply)
}

/// Returns whether a worker's settings show that classes of Durable Objects are its own: a binding to another worker's names that.
fn has_objects(settings: &Value, worker: &str) -> bool {
    let mut bindings = settings["bindings"].as_array().into_iter().flatten();
    let is_own = |binding: &Value| {
        binding["type"] == "durable_object_namespace"
            && binding["script_name"].as_str().is_none_or(|script| script.is_empty() || script == worker)
    };
    bindings.any(is_own) || settings["migration_tag"].as_str().is_some_and(|tag| !tag.is_empty())
}

/// The queues of a list, with their consumers.
fn queues(result: &Value) -> Result<Vec<ListedQueue>, Mismatch> {
    let consumer = |row: &Value| -> Result<ListedConsumer, Mismatch> {
        let id = text(row, "consumer_id")?;
        let worker = consumer_worker(row).filter(|_| row["type"] != "http_pull");
        Ok(ListedConsumer { id, worker, consumer: QueueConsumer::of_api(row) })
    };
    let queue = |row: &Value| {
        let consumers = match &row["consumers"] {
            Value::Null => Vec::new(),
            consumers => rows(consumers)?.iter().map(consumer).collect::<Result<_, Mismatch>>()?,
        };
        Ok(ListedQueue { id: text(row, "queue_id")?, name: text(row, "queue_name")?, consumers })
    };
    rows(result)?.iter().map(queue).collect()
}

/// The worker of a consumer, which answers name in several ways: `script` is documented, and wrangler reads `service`, too.
fn consumer_worker(consumer: &Value) -> Option<String> {
    ["script", "script_name", "service"].into_iter().find_map(|key| text(consumer, key).ok())
}

/// The id, host name and worker of each domain.
fn domains(result: &Value) -> Result<Vec<(String, String, String)>, Mismatch> {
    rows(result)?.iter().map(|row| Ok((text(row, "id")?, text(row, "hostname")?, text(row, "service")?))).collect()
}

/// The names of a worker's secrets. The list is documented to be whole: a part of it would make secrets look as if they were missing.
fn secrets(result: &Value, info: &Value) -> Result<BTreeSet<String>, Mismatch> {
    let mut names = BTreeSet::new();
    for row in rows(result)? {
        let (name, kind) = (text(row, "name")?, text(row, "type")?);
        if !matches!(kind.as_str(), "secret_text" | "secret_key") {
            return Err(format!("`{name}` has the type `{kind}`, which is not that of a secret"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("`{name}` is listed twice"));
        }
    }
    match info["total_count"].as_u64() {
        Some(total) if total > names.len() as u64 => Err(format!("{} of {total} secrets are listed", names.len())),
        _ => Ok(names),
    }
}

fn schedules(result: &Value) -> Result<Vec<String>, Mismatch> {
    object(result)?;
    rows(&result["schedules"])?.iter().map(|row| text(row, "cron")).collect()
}

/// Reads the answer of KV to a write of this number of keys: nothing, or how many it took.
fn written(result: &Value, number: usize) -> Result<Reply, Mismatch> {
    if result.is_null() {
        return Ok(Reply::Done);
    }
    object(result)?;
    let left = result["unsuccessful_keys"].as_array().map_or(0, Vec::len);
    let taken = match &result["successful_key_count"] {
        Value::Null => number,
        count => count
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .ok_or("`successful_key_count` is not a number")?,
    };
    match (left, taken == number) {
        (0, true) => Ok(Reply::Done),
        // Which is no failure of the call, to KV: it is to be repeated.
        (0, false) => Err(format!("KV took {taken} of {number} keys")),
        (left, _) => Err(format!("KV rejected {left} keys")),
    }
}

/// Reads a page of names with ids.
fn names(
    result: &Value,
    info: &Value,
    (name, id): (&str, &str),
    (asked, full): (&Page, usize),
) -> Result<ListPage<(String, String)>, Mismatch> {
    let names = rows(result)?.iter().map(|row| Ok((text(row, name)?, text(row, id)?)));
    list_page(names.collect::<Result<Vec<_>, Mismatch>>()?, info, asked, full)
}

/// Reads what `result_info` says about a page, which is full with this number of entries.
fn list_page<T>(entries: Vec<T>, info: &Value, asked: &Page, full: usize) -> Result<ListPage<T>, Mismatch> {
    let info: Option<ResultInfo> = serde_json::from_value(info.clone()).map_err(|_| "`result_info` can't be read")?;
    info.unwrap_or_default().page(entries, asked, Some(full))
}

/// The part of an answer about a page and the list that it is of.
#[derive(Default, Deserialize)]
pub struct ResultInfo {
    page: Option<u64>,
    per_page: Option<u64>,
    total_count: Option<u64>,
    total_pages: Option<u64>,
    cursor: Option<String>,
}

impl ResultInfo {
    /// Returns a page of these entries. A page is full with `full` entries; none: the list is documented to be one page, and is
    /// followed only where the answer says that it isn't.
    pub fn page<T>(self, entries: Vec<T>, asked: &Page, full: Option<usize>) -> Result<ListPage<T>, Mismatch> {
        let number = asked.number().unwrap_or(1);
        if let (Some(page), Page::First | Page::Number(_)) = (self.page, asked)
            && page != number
        {
            return Err(format!("it is page {page} instead of {number}"));
        }
        let read = entries.len() as u64;
        let is_followed = match (self.total_pages, self.total_count, self.per_page) {
            (Some(pages), ..) => number < pages,
            (None, Some(total), Some(per_page)) => number.saturating_mul(per_page) < total,
            (None, Some(total), None) => *asked == Page::First && read < total,
            _ => full.is_some_and(|full| entries.len() >= full),
        };
        let next = match (self.cursor.filter(|cursor| !cursor.is_empty()), asked) {
            (Some(cursor), Page::Cursor(asked)) if cursor == *asked => {
                return Err("its cursor points back to it".to_owned());
            }
            (Some(cursor), _) => Some(Page::Cursor(cursor)),
            // The last page of those that follow each other by cursors has none.
            (None, Page::Cursor(_)) => None,
            (None, _) => is_followed.then(|| Page::Number(number + 1)),
        };
        Ok(ListPage { entries, next, total: self.total_count })
    }
}

fn rows(value: &Value) -> Result<&Vec<Value>, Mismatch> {
    value.as_array().ok_or_else(|| format!("{} instead of a list", kind(value)))
}

fn object(value: &Value) -> Result<(), Mismatch> {
    value.as_object().map(|_| ()).ok_or_else(|| format!("{} instead of an object", kind(value)))
}

fn text(value: &Value, field: &str) -> Result<String, Mismatch> {
    match value.get(field).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ if !value.is_object() => Err(format!("{} instead of an object", kind(value))),
        _ => Err(format!("`{field}` is missing")),
    }
}

fn flag(value: &Value, field: &str) -> Result<bool, Mismatch> {
    object(value)?;
    value[field].as_bool().ok_or_else(|| format!("`{field}` is missing"))
}

fn strings(values: &[Value]) -> Result<Vec<String>, Mismatch> {
    values
        .iter()
        .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| "a tag is not a string".to_owned()))
        .collect()
}

/// The field has to be there and name what the call is about.
fn same(value: &Value, field: &str, wanted: &str) -> Result<(), Mismatch> {
    let given = text(value, field)?;
    match given.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(format!("`{field}` is `{given}`")),
    }
}

/// The same, where the field is there.
fn same_if_given(value: &Value, field: &str, wanted: &str) -> Result<(), Mismatch> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(()),
        Some(_) => same(value, field, wanted),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
