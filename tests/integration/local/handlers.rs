//! What calls a worker without a visitor: Durable Objects, queues, schedules, other workers' events; by real workerd. Shows: classes and what
//! they store live through deploys and restarts, and migrations are refused as Cloudflare refuses them; messages get to their consumer, are
//! retried, and end as dead letters; a schedule fires; a tail consumer gets events; the cache keeps answers.

use serde_json::{Value, json};

use crate::fleet::until;

use super::client::{Local, code, local, workerd};

fn serving() -> Local {
    local(|options| (options.workerd, options.validate) = (workerd(), true))
}

/// A worker with a class that counts.
fn counting(class: &str) -> String {
    format!(
        "import {{ DurableObject }} from 'cloudflare:workers';
        export class {class} extends DurableObject {{
          async fetch() {{
            const count = ((await this.ctx.storage.get('count')) ?? 0) + 1;
            await this.ctx.storage.put('count', count);
            return new Response(String(count));
          }}
        }}
        export default {{ fetch: (request, env) => env.COUNTER.get(env.COUNTER.idFromName('one')).fetch(request) }};"
    )
}

/// Uploads a worker with more in its metadata.
fn put(local: &Local, name: &str, code: &str, more: &Value) -> (u16, Value) {
    let mut metadata = json!({"main_module": "index.js", "compatibility_date": "2026-06-01"});
    metadata.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    local.upload("PUT", &format!("@/workers/scripts/{name}"), &metadata, &[("index.js", code)])
}

#[track_caller]
fn uploaded(local: &Local, name: &str, code: &str, more: &Value) {
    let (status, answer) = put(local, name, code, more);
    assert_eq!(status, 200, "{answer}");
}

/// The bindings to a class of the worker's own.
fn bound(class: &str) -> Value {
    json!([{"type": "durable_object_namespace", "name": "COUNTER", "class_name": class}])
}

#[test]
fn classes_keep_their_objects_through_deploys_renames_and_restarts() {
    let mut local = serving();
    let (counter, tally) = (counting("Counter"), counting("Tally"));
    let asked = |local: &Local| local.get("count.localhost", "/").1;
    let upload = |local: &Local, code: &str, more: Value| code_of(put(local, "count", code, &more));
    let created = json!({"new_tag": "v1", "steps": [{"new_sqlite_classes": ["Counter"]}]});
    assert_eq!(
        upload(&local, &counter, json!({"bindings": bound("Counter")})),
        10061,
        "no migration creates the class"
    );
    let plain = "export default { fetch: () => new Response('') };";
    assert_eq!(upload(&local, plain, json!({"migrations": created})), 10064, "the class isn't exported");
    uploaded(&local, "count", &counter, &json!({"bindings": bound("Counter"), "migrations": created}));
    let settings = |local: &Local| local.ok("GET", "@/workers/scripts/count/settings", None);
    assert_eq!(settings(&local)["migration_tag"], "v1");
    assert_eq!((asked(&local).as_str(), asked(&local).as_str()), ("1", "2"));
    assert_eq!(
        upload(&local, &counter, json!({"bindings": bound("Counter"), "migrations": created})),
        10079,
        "v1 is live"
    );
    uploaded(&local, "count", &format!("{counter}\n// Changed."), &json!({"bindings": bound("Counter")}));
    assert_eq!(asked(&local), "3");
    local.restart(|options| options.workerd = workerd());
    assert_eq!(asked(&local), "4");

    // Another worker is bound to the class.
    let other = json!([{"type": "durable_object_namespace", "name": "COUNTER", "class_name": "Counter", "script_name": "count"}]);
    uploaded(
        &local,
        "other",
        "export default { fetch: (r, env) => env.COUNTER.get(env.COUNTER.idFromName('one')).fetch(r) };",
        &json!({"bindings": other}),
    );
    assert_eq!(local.get("other.localhost", "/").1, "5");
    local.ok("DELETE", "@/workers/scripts/other", None);

    let renamed =
        json!({"old_tag": "v1", "new_tag": "v2", "steps": [{"renamed_classes": [{"from": "Counter", "to": "Tally"}]}]});
    uploaded(&local, "count", &tally, &json!({"bindings": bound("Tally"), "migrations": renamed}));
    assert_eq!(asked(&local), "6");
    let deleted = json!({"old_tag": "v2", "new_tag": "v3", "steps": [{"deleted_classes": ["Tally"]}]});
    assert_eq!(upload(&local, plain, json!({"migrations": deleted})), 10061, "the version that serves binds the class");
    uploaded(&local, "count", &tally, &json!({}));
    let list = |local: &Local| local.ok("GET", "@/workers/durable_objects/namespaces", None);
    assert_eq!((&list(&local)[0]["class"], &list(&local)[0]["use_sqlite"]), (&json!("Tally"), &json!(true)));
    uploaded(&local, "count", plain, &json!({"migrations": deleted}));
    assert_eq!((list(&local), &settings(&local)["migration_tag"]), (json!([]), &json!("v3")));
    // A version that doesn't serve at once can't have a migration.
    let metadata = json!({"main_module": "index.js", "migrations": {"old_tag": "v3", "new_tag": "v4", "steps": []}});
    let version = local.upload("POST", "@/workers/scripts/count/versions", &metadata, &[("index.js", plain)]);
    assert_eq!(code(version), (400, 10211));
}

/// The code of a refusal.
fn code_of(answer: (u16, Value)) -> u64 {
    code(answer).1
}

/// A worker that remembers what it was called with, and tells it.
const MEMORY: &str = "const seen = [];
    export default {
      async fetch(request, env, ctx) {
        const path = new URL(request.url).pathname;
        if (path === '/send') await env.JOBS.sendBatch([{ body: 'good' }, { body: { bad: true } }]);
        if (path === '/one') await env.JOBS.send('text', { contentType: 'text' });
        return Response.json(seen);
      },
      async queue(batch) {
        for (const message of batch.messages) {
          seen.push([batch.queue, message.body, message.attempts]);
          if (message.body.bad) message.retry();
        }
      },
      async scheduled(controller) { seen.push([controller.cron, controller.scheduledTime]); },
      async tail(events) { seen.push(...events.map((event) => [event.scriptName, event.outcome])); },
    };";

fn seen(local: &Local, worker: &str) -> Value {
    let (_, text) = local.get(&format!("{worker}.localhost"), "/");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn messages_get_to_their_consumer_are_retried_and_end_as_dead_letters() {
    let local = serving();
    let queue = |name: &str| local.ok("POST", "@/queues", Some(json!({"queue_name": name})))["queue_id"].clone();
    let path = |id: &Value| format!("@/queues/{}/consumers", id.as_str().expect("an id"));
    let (jobs, dead) = (queue("jobs"), queue("dead"));
    assert_eq!(local.refused("POST", "@/queues", Some(json!({"queue_name": "jobs"}))), (409, 11009));
    uploaded(&local, "work", MEMORY, &json!({"bindings": [{"type": "queue", "name": "JOBS", "queue_name": "jobs"}]}));
    let consumer = |more: Value| {
        Some(
            json!({"type": "worker", "script_name": "work", "settings": {"max_wait_time_ms": 0, "max_retries": 1}, "dead_letter_queue": more}),
        )
    };
    let made = local.ok("POST", &path(&jobs), consumer(json!("dead")));
    assert_eq!(local.refused("POST", &path(&jobs), consumer(Value::Null)), (400, 11004));
    local.ok("POST", &path(&dead), consumer(Value::Null));
    local.get("work.localhost", "/send");
    let bad = json!({"bad": true});
    let all = json!([["jobs", "good", 1], ["jobs", bad, 1], ["jobs", bad, 2], ["dead", bad, 1], ["dead", bad, 2]]);
    until("the messages are delivered", || seen(&local, "work").as_array().is_some_and(|seen| seen.len() >= 5));
    assert_eq!(seen(&local, "work"), all);
    // Without a consumer, messages wait.
    local.ok("DELETE", &format!("{}/{}", path(&jobs), made["consumer_id"].as_str().expect("an id")), None);
    local.get("work.localhost", "/one");
    local.ok("POST", &path(&jobs), consumer(Value::Null));
    until("the message is delivered", || seen(&local, "work").as_array().is_some_and(|seen| seen.len() >= 6));
    assert_eq!(seen(&local, "work")[5], json!(["jobs", "text", 1]));
}

#[test]
fn a_schedule_fires_and_runs_on_request() {
    let local = serving();
    uploaded(&local, "clock", MEMORY, &json!({}));
    let (status, text) = local.get("clock.localhost", "/cdn-cgi/handler/scheduled?cron=*/5+*+*+*+*&time=1764518400000");
    assert_eq!((status, text.trim()), (200, "ok"));
    assert_eq!(seen(&local, "clock"), json!([["*/5 * * * *", 1_764_518_400_000_u64]]));
    // A web page can't call it.
    let headers = [("host", "clock.localhost"), ("origin", "https://example.com"), ("sec-fetch-site", "cross-site")];
    let answer = local.send("GET", "/cdn-cgi/handler/scheduled", &headers, Vec::new()).unwrap();
    assert_eq!(answer.status(), 403);
    uploaded(&local, "throws", "export default { scheduled() { throw new Error('no'); } };", &json!({}));
    assert_eq!(local.get("throws.localhost", "/cdn-cgi/handler/scheduled").0, 500);
}

#[test]
fn a_tail_consumer_gets_the_events_of_a_worker() {
    let local = serving();
    uploaded(&local, "watcher", MEMORY, &json!({}));
    let watched = "export default { fetch: () => new Response('hi') };";
    uploaded(&local, "watched", watched, &json!({"tail_consumers": [{"service": "watcher"}]}));
    assert_eq!(local.get("watched.localhost", "/").1, "hi");
    until("the event is there", || seen(&local, "watcher") == json!([["watched", "ok"]]));
}

#[test]
fn the_cache_keeps_answers() {
    let local = serving();
    let code = "export default {
        async fetch(request) {
          const key = 'https://cache.example/' + new URL(request.url).searchParams.get('key');
          if (request.method === 'POST') {
            const headers = { 'cache-control': 'max-age=60' };
            await caches.default.put(key, new Response('kept', { headers }));
          }
          if (request.method === 'DELETE') return Response.json(await caches.default.delete(key));
          return new Response((await (await caches.default.match(key))?.text()) ?? 'none');
        },
      };";
    uploaded(&local, "cached", code, &json!({}));
    let send = |method: &str, path: &str| {
        local.send(method, path, &[("host", "cached.localhost")], Vec::new()).unwrap().text().unwrap()
    };
    assert_eq!(send("GET", "/?key=a"), "none");
    assert_eq!(send("POST", "/?key=a"), "kept");
    assert_eq!((send("GET", "/?key=a").as_str(), send("GET", "/?key=b").as_str()), ("kept", "none"));
    assert_eq!((send("DELETE", "/?key=a").as_str(), send("GET", "/?key=a").as_str()), ("true", "none"));
}
