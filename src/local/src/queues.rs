//! Queues: their consumers, the messages that wait in them, and how these get to the workers that consume them. Knows retries and dead
//! letters; not what a worker does with a message.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hyper::HeaderMap;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::routing::{blocking, trigger, words};
use super::store::{self, Key};

/// The settings of a consumer that sets none. Source: Cloudflare docs, Queues › Configuration (2026).
const BATCH_SIZE: u64 = 10;
const WAIT_MS: u64 = 5000;
const RETRIES: u64 = 3;
/// The batches of one queue that are delivered at the same time, at most: each takes a worker's time.
const CONCURRENCY: u64 = 5;
/// The limits of what is sent. Source: Cloudflare docs, Queues › Limits and › Error codes (2026).
const MOST_BYTES: usize = 128_000;
const MOST_DELAY: u64 = 86_400;
/// The time between two looks at what is due.
const INTERVAL: Duration = Duration::from_millis(50);

/// A queue as the API shows it.
fn shown(db: &Connection, row: &(String, String, String)) -> Result<Value, Refusal> {
    let (id, name, created) = row;
    let sql = "SELECT id, script, body, created FROM consumer WHERE queue = ?1";
    let consumers = store::rows(db, sql, [id], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
    })?;
    let consumers: Vec<Value> = consumers.iter().map(|row| consumer(name, row)).collect();
    Ok(json!({
        "queue_id": id, "queue_name": name, "created_on": created, "modified_on": created, "producers": [], "producers_total_count": 0,
        "consumers_total_count": consumers.len(), "consumers": consumers, "settings": {"delivery_delay": 0, "delivery_paused": false},
    }))
}

fn consumer(queue: &str, (id, script, body, created): &(String, String, String, String)) -> Value {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let setting = |key: &str, usual: u64| body["settings"][key].as_u64().unwrap_or(usual);
    let mut shown = json!({
        "consumer_id": id, "type": "worker", "script": script, "queue_name": queue, "created_on": created, "environment": "production",
        "settings": {
            "batch_size": setting("batch_size", BATCH_SIZE), "max_wait_time_ms": setting("max_wait_time_ms", WAIT_MS),
            "max_retries": setting("max_retries", RETRIES), "max_concurrency": body["settings"]["max_concurrency"],
            "retry_delay": setting("retry_delay", 0),
        },
    });
    if let Some(dead) = body["dead_letter_queue"].as_str().filter(|name| !name.is_empty()) {
        shown["dead_letter_queue"] = dead.into();
    }
    shown
}

const QUEUE: &str = "SELECT id, name, created FROM queue";

fn read_queue(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, String, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn get(db: &Connection, account: &str, id: &str) -> Result<(String, String, String), Refusal> {
    let found = store::row(db, &format!("{QUEUE} WHERE account = ?1 AND id = ?2"), [account, id], read_queue)?;
    found.ok_or_else(|| Refusal::new(404, 10104, format!("the queue {id} does not exist")))
}

/// Makes a queue, unless there is one of that name.
///
/// # Errors
/// When the database fails.
pub fn make(cloud: &Cloud, db: &Connection, account: &str, name: &str) -> Result<(), Refusal> {
    let sql = "INSERT OR IGNORE INTO queue (id, account, name, created) VALUES (?1, ?2, ?3, ?4)";
    store::run(db, sql, [&cloud.store.seal.id(), account, name, &cloud.now()])
}

/// `GET …/queues`, also by several names. Where what is bound is made, a queue that is looked for by name is there.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let names: Vec<&str> = call.query.iter().filter(|(key, _)| key == "name").map(|(_, name)| name.as_str()).collect();
    cloud.store.write(|db| {
        if cloud.make_bound {
            names.iter().try_for_each(|name| make(cloud, db, account, name))?;
        }
        let mut rows = store::rows(db, &format!("{QUEUE} WHERE account = ?1 ORDER BY name"), [account], read_queue)?;
        rows.retain(|(_, name, _)| names.is_empty() || names.contains(&name.as_str()));
        let queues = rows.iter().map(|row| shown(db, row)).collect::<Result<Vec<_>, _>>()?;
        cloud.page(&queues, call, 100, 100)
    })
}

/// `POST …/queues`.
pub fn create(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let name = call.text("queue_name")?;
    let is_name =
        !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if !is_name {
        return Err(Refusal::new(400, 11003, format!("the queue name {name:?} is invalid")));
    }
    cloud.store.write(|db| {
        if store::has(db, "SELECT 1 FROM queue WHERE account = ?1 AND name = ?2", [account, name])? {
            return Err(Refusal::new(
                409,
                11009,
                format!("Queue name '{name}' is already taken. Please use a different name and try again."),
            ));
        }
        make(cloud, db, account, name)?;
        let row = store::row(db, &format!("{QUEUE} WHERE account = ?1 AND name = ?2"), [account, name], read_queue)?;
        Ok(Answer::ok(&shown(db, &row.ok_or_else(Refusal::no_worker)?)?))
    })
}

/// `GET` and `DELETE …/queues/{id}`.
pub fn one(cloud: &Cloud, account: &str, id: &str, delete: bool) -> Outcome {
    cloud.store.write(|db| {
        let row = get(db, account, id)?;
        let queue = shown(db, &row)?;
        if delete {
            store::run(db, "DELETE FROM queue WHERE id = ?1", [id])?;
            return Ok(Answer::ok(&Value::Null));
        }
        Ok(Answer::ok(&queue))
    })
}

/// `GET …/queues/{id}/consumers`.
pub fn consumers(cloud: &Cloud, account: &str, id: &str) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&shown(db, &get(db, account, id)?)?["consumers"])))
}

/// `POST …/queues/{id}/consumers`: a queue has one.
pub fn create_consumer(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    let (script, body) = consumer_of(call)?;
    cloud.store.write(|db| {
        let (_, queue, _) = get(db, account, id)?;
        store::get(db, &Key::of_account(account, &script))?;
        if store::has(db, "SELECT 1 FROM consumer WHERE queue = ?1", [id])? {
            return Err(Refusal::new(400, 11004, "workers.api.error.consumer_exists"));
        }
        let row = (cloud.store.seal.id(), script.clone(), body.clone(), cloud.now());
        let sql = "INSERT INTO consumer (id, queue, script, body, created) VALUES (?1, ?2, ?3, ?4, ?5)";
        store::run(db, sql, params![row.0, id, row.1, row.2, row.3])?;
        Ok(Answer::ok(&consumer(&queue, &row)))
    })
}

/// `PUT` and `DELETE …/queues/{id}/consumers/{id}`.
pub fn change_consumer(cloud: &Cloud, account: &str, id: &str, which: &str, call: &Call) -> Outcome {
    let sent = if call.method == "PUT" { Some(consumer_of(call)?) } else { None };
    cloud.store.write(|db| {
        let (_, queue, _) = get(db, account, id)?;
        let sql = "SELECT id, script, body, created FROM consumer WHERE queue = ?1 AND id = ?2";
        let found = store::row(db, sql, [id, which], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let row: (String, String, String, String) =
            found.ok_or_else(|| Refusal::new(404, 10104, format!("the queue has no consumer {which}")))?;
        let Some((script, body)) = sent else {
            store::run(db, "DELETE FROM consumer WHERE id = ?1", [which])?;
            return Ok(Answer::ok(&Value::Null));
        };
        store::run(db, "UPDATE consumer SET script = ?2, body = ?3 WHERE id = ?1", [which, &script, &body])?;
        Ok(Answer::ok(&consumer(&queue, &(row.0, script, body, row.3))))
    })
}

/// The worker of a consumer that is sent, and the rest as it is stored.
fn consumer_of(call: &Call) -> Result<(String, String), Refusal> {
    let body = call.json()?;
    if body["type"] != "worker" {
        return Err(Refusal::unparseable("the local Cloudflare has consumers of the type \"worker\" alone"));
    }
    let script = body["script_name"].as_str().filter(|script| !script.is_empty());
    let script = script.ok_or_else(|| Refusal::unparseable("script_name is missing"))?;
    let stored = json!({"settings": body["settings"], "dead_letter_queue": body["dead_letter_queue"]});
    Ok((script.to_owned(), stored.to_string()))
}

/// A message as it is sent.
struct Sent {
    kind: String,
    body: Vec<u8>,
    delay: u64,
}

/// Takes what workerd's queue binding sends: one message, or a batch of them.
///
/// # Errors
/// 413 and 400 as Cloudflare refuses them, and when the database fails.
pub fn send(cloud: &Cloud, (account, queue): (&str, &str), path: &str, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let usual = words(headers, "x-msg-delay-secs").parse::<u64>().ok();
    let messages = match path {
        "/message" => {
            let kind = Some(words(headers, "x-msg-fmt")).filter(|kind| !kind.is_empty()).unwrap_or("v8");
            vec![Sent { kind: kind.to_owned(), body: body.to_vec(), delay: usual.unwrap_or(0) }]
        }
        "/batch" => {
            let sent: Value = serde_json::from_slice(body).map_err(Refusal::unparseable)?;
            let messages = sent["messages"].as_array().cloned().unwrap_or_default();
            let read = |message: &Value| {
                let body = BASE64.decode(message["body"].as_str().unwrap_or_default().as_bytes());
                Ok(Sent {
                    kind: message["contentType"].as_str().unwrap_or("v8").to_owned(),
                    body: body.map_err(Refusal::unparseable)?,
                    delay: message["delaySecs"].as_u64().or(usual).unwrap_or(0),
                })
            };
            messages.iter().map(read).collect::<Result<Vec<_>, Refusal>>()?
        }
        _ => return metrics(cloud, account, queue),
    };
    if messages.iter().any(|message| message.body.len() > MOST_BYTES) {
        return Err(Refusal::new(413, 10204, format!("a message is larger than {MOST_BYTES} bytes")));
    }
    if messages.iter().any(|message| message.delay > MOST_DELAY) {
        return Err(Refusal::new(400, 10203, format!("a message is delayed by more than {MOST_DELAY} seconds")));
    }
    let now = millis((cloud.clock)());
    cloud.store.write(|db| {
        let sql = "SELECT id FROM queue WHERE account = ?1 AND name = ?2";
        let Some(id) = store::row(db, sql, [account, queue], |row| row.get::<_, String>(0))? else { return Ok(()) };
        for message in &messages {
            add(db, &id, &cloud.store.seal.id(), (&message.kind, &message.body), (now, now + message.delay * 1000))?;
        }
        Ok(())
    })?;
    metrics(cloud, account, queue)
}

fn add(
    db: &Connection,
    queue: &str,
    uid: &str,
    (kind, body): (&str, &[u8]),
    (sent, due): (u64, u64),
) -> Result<(), Refusal> {
    let sql = "INSERT INTO message (uid, queue, kind, body, sent, due, attempts, taken) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0)";
    let number = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    store::run(db, sql, params![uid, queue, kind, body, number(sent), number(due)])
}

fn metrics(cloud: &Cloud, account: &str, queue: &str) -> Outcome {
    cloud.store.read(|db| {
        let sql = "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(min(sent), 0) FROM message JOIN queue ON queue.id = queue
                   WHERE account = ?1 AND name = ?2";
        let found = store::row(db, sql, [account, queue], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let (count, bytes, oldest) = found.unwrap_or_default();
        let metrics = json!({"backlogCount": count, "backlogBytes": bytes, "oldestMessageTimestamp": oldest});
        // A request for the metrics alone gets them at the top.
        let mut answer = metrics.clone();
        answer["metadata"] = json!({ "metrics": metrics });
        Ok(Answer::json(200, &answer))
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A message on its way to a worker.
#[derive(Clone)]
struct Message {
    row: i64,
    uid: String,
    kind: String,
    body: Vec<u8>,
    sent: i64,
    attempts: i64,
}

/// A batch on its way to a worker.
struct Batch {
    account: String,
    queue: String,
    name: String,
    script: String,
    settings: Value,
    messages: Vec<Message>,
}

/// Delivers messages that are due, for as long as it is polled.
pub async fn run(cloud: Arc<Cloud>) {
    // What was on its way when the emulator ended was not acknowledged.
    let _ = blocking(|| cloud.store.write(|db| store::run(db, "UPDATE message SET taken = 0 WHERE taken", [])));
    let mut seen = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = millis((cloud.clock)());
        // Without messages that wait, nothing is looked at until something changes.
        let generation = cloud.store.generation();
        if seen == Some(generation) {
            continue;
        }
        let (batches, is_waiting) = blocking(|| due(&cloud, now)).unwrap_or_default();
        seen = (!is_waiting && batches.is_empty()).then_some(generation);
        for batch in batches {
            let cloud = cloud.clone();
            tokio::spawn(async move {
                let queue = batch.queue.clone();
                deliver(&cloud, batch).await;
                let mut deliveries = cloud.deliveries.lock();
                if let Some(count) = deliveries.get_mut(&queue) {
                    *count -= 1;
                }
            });
        }
    }
}

/// Takes the batches that are due; and whether messages wait for their time, or for others of their batch.
fn due(cloud: &Cloud, now: u64) -> Result<(Vec<Batch>, bool), Refusal> {
    let has_any = "SELECT 1 FROM message JOIN consumer ON consumer.queue = message.queue LIMIT 1";
    if !cloud.store.read(|db| store::has(db, has_any, []))? {
        return Ok((Vec::new(), false));
    }
    cloud.store.write(|db| {
        let sql = "SELECT queue.account, queue.id, queue.name, consumer.script, consumer.body FROM consumer
                   JOIN queue ON queue.id = consumer.queue";
        let all = store::rows(db, sql, [], |row| {
            let text = |index| row.get::<_, String>(index);
            Ok((text(0)?, text(1)?, text(2)?, text(3)?, text(4)?))
        })?;
        let mut batches = Vec::new();
        for (account, queue, name, script, body) in all {
            let settings: Value = serde_json::from_str(&body).unwrap_or_default();
            let setting = |key: &str, usual: u64| settings["settings"][key].as_u64().unwrap_or(usual);
            let size = setting("batch_size", BATCH_SIZE).max(1);
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let sql = "SELECT id, uid, kind, body, sent, attempts, due FROM message WHERE queue = ?1 AND taken = 0 AND due <= ?2
                       ORDER BY due, id LIMIT ?3";
            let mut first = None;
            let messages = store::rows(db, sql, params![queue, number(now), number(size)], |row| {
                let due: i64 = row.get(6)?;
                first = Some(first.unwrap_or(due).min(due));
                Ok(Message {
                    row: row.get(0)?,
                    uid: row.get(1)?,
                    kind: row.get(2)?,
                    body: row.get(3)?,
                    sent: row.get(4)?,
                    attempts: row.get(5)?,
                })
            })?;
            let Some(first) = first else { continue };
            let waited = now.saturating_sub(u64::try_from(first).unwrap_or_default());
            if messages.len() < usize::try_from(size).unwrap_or(usize::MAX) && waited < setting("max_wait_time_ms", WAIT_MS) {
                continue;
            }
            {
                let mut deliveries = cloud.deliveries.lock();
                let count = deliveries.entry(queue.clone()).or_default();
                if *count >= setting("max_concurrency", CONCURRENCY).max(1) {
                    continue;
                }
                *count += 1;
            }
            for message in &messages {
                store::run(db, "UPDATE message SET taken = 1 WHERE id = ?1", [message.row])?;
            }
            batches.push(Batch { account, queue, name, script, settings, messages });
        }
        Ok((batches, true))
    })
}

/// Delivers a batch, and does with its messages what the worker says.
async fn deliver(cloud: &Cloud, batch: Batch) {
    let key = Key::of_account(&batch.account, &batch.script);
    let shown = |message: &Message| {
        json!({
            "id": message.uid, "timestamp": message.sent, "kind": message.kind, "body": BASE64.encode(&message.body),
            "attempts": message.attempts + 1,
        })
    };
    let job = json!({
        "kind": "queue", "queue": batch.name, "messages": batch.messages.iter().map(shown).collect::<Vec<_>>(),
    });
    let worker = blocking(|| cloud.store.read(|db| store::get(db, &key)));
    let answer = match worker {
        Ok(worker) => trigger(cloud, &worker, &job).await.unwrap_or(Value::Null),
        Err(_) => Value::Null,
    };
    let _ = blocking(|| settle(cloud, &batch, &answer));
}

/// Removes what was acknowledged, and puts back what is retried; what has no retries left goes to the dead letters.
fn settle(cloud: &Cloud, batch: &Batch, answer: &Value) -> Result<(), Refusal> {
    let settings = &batch.settings["settings"];
    let retries = settings["max_retries"].as_u64().unwrap_or(RETRIES);
    let usual = settings["retry_delay"].as_u64().unwrap_or(0);
    let is_ok = answer["outcome"] == "ok";
    let retry_all = !is_ok || answer["retryBatch"]["retry"] == true;
    let of_batch = answer["retryBatch"]["delaySeconds"].as_u64().unwrap_or(usual);
    let now = millis((cloud.clock)());
    cloud.store.write(|db| {
        for message in &batch.messages {
            let is_acked = answer["explicitAcks"].as_array().is_some_and(|ids| ids.iter().any(|id| *id == message.uid));
            let retry = answer["retryMessages"]
                .as_array()
                .and_then(|retries| retries.iter().find(|retry| retry["msgId"] == message.uid.as_str()));
            // An acknowledged message isn't sent again, whatever becomes of its batch.
            if is_acked || (retry.is_none() && !retry_all) {
                store::run(db, "DELETE FROM message WHERE id = ?1", [message.row])?;
                continue;
            }
            let attempts = message.attempts + 1;
            if u64::try_from(attempts).unwrap_or(u64::MAX) > retries {
                store::run(db, "DELETE FROM message WHERE id = ?1", [message.row])?;
                if let Some(dead) = batch.settings["dead_letter_queue"].as_str() {
                    make(cloud, db, &batch.account, dead)?;
                    let sql = "SELECT id FROM queue WHERE account = ?1 AND name = ?2";
                    let id = store::row(db, sql, [batch.account.as_str(), dead], |row| row.get::<_, String>(0))?;
                    let sent = u64::try_from(message.sent).unwrap_or_default();
                    add(db, &id.unwrap_or_default(), &message.uid, (&message.kind, &message.body), (sent, now))?;
                }
                continue;
            }
            let delay = retry.and_then(|retry| retry["delaySeconds"].as_u64()).unwrap_or(of_batch);
            let due = i64::try_from(now + delay * 1000).unwrap_or(i64::MAX);
            let sql = "UPDATE message SET attempts = ?2, due = ?3, taken = 0 WHERE id = ?1";
            store::run(db, sql, params![message.row, attempts, due])?;
        }
        Ok(())
    })
}
