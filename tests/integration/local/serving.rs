//! Deployed workers as they answer: by real workerd, with their bindings, and nothing leaving the machine.

use serde_json::{Value, json};

use crate::fleet::until;

use super::client::{ACCOUNT, Local, code, local, workerd};

fn serving() -> Local {
    local(|options| options.workerd = workerd())
}

fn json_of((status, text): (u16, String)) -> Value {
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[test]
fn a_worker_answers_on_all_its_hosts() {
    let local = serving();
    let index = "import { text } from '../../runtime/r.js';
        export default { fetch: (request, env) => Response.json({ url: request.url, text, env, ip: request.headers.get('cf-connecting-ip') }) };";
    let modules = [("production/acme/index.js", index), ("runtime/r.js", "export const text = 'from the runtime';")];
    let nasty = "quote\" backslash\\ newline\n dollar$HOME `id` é \u{1} ";
    let bindings = json!([
        {"type": "plain_text", "name": "TEXT", "text": nasty}, {"type": "json", "name": "JSON", "json": {"a": [1, nasty]}},
        {"type": "secret_text", "name": "SECRET", "text": "canary-serving"}, {"type": "plain_text", "name": "EMPTY", "text": ""},
        {"type": "plain_text", "name": "odd-name é", "text": "x"},
    ]);
    local.put("acme", bindings, &modules);
    let answer = json_of(local.get("acme.localhost:8787", "/a/b?c=d"));
    assert_eq!(answer["url"], "http://acme.localhost:8787/a/b?c=d");
    let env =
        json!({"TEXT": nasty, "JSON": {"a": [1, nasty]}, "SECRET": "canary-serving", "EMPTY": "", "odd-name é": "x"});
    assert_eq!(
        (&answer["env"], &answer["text"], &answer["ip"]),
        (&env, &json!("from the runtime"), &json!("127.0.0.1"))
    );

    let answer = json_of(local.get("127.0.0.1", "/workers/acme/x?y=1"));
    assert_eq!(answer["url"], "http://127.0.0.1/x?y=1");
    json_of(local.get("127.0.0.1", &format!("/accounts/{ACCOUNT}/workers/acme/")));
    assert_eq!(local.get("127.0.0.1", "/accounts/other/workers/acme/").0, 404);
    let subdomain = local.ok("GET", "@/workers/subdomain", None)["subdomain"].as_str().unwrap().to_owned();
    let dev = format!("acme.{subdomain}.workers.dev");
    assert_eq!(local.get(&dev, "/").0, 404);
    local.ok("POST", "@/workers/scripts/acme/subdomain", Some(json!({"enabled": true, "previews_enabled": false})));
    json_of(local.get(&dev, "/"));
    local.ok("PUT", "@/workers/domains", Some(json!({"hostname": "consent.acme.com", "service": "acme"})));
    json_of(local.get("Consent.acme.com", "/client/v4/is-the-workers-own"));
    local.ok("PUT", "@/workers/scripts/acme/routes", Some(json!(["*.example.com/api/*"])));
    json_of(local.get("www.example.com", "/api/x"));
    let (status, text) = local.get("www.example.com", "/other");
    assert!(status == 404 && text.contains("no worker is deployed for www.example.com/other"), "{text}");
    assert!(local.get("127.0.0.1", "/").1.contains("http://acme.localhost"));
    // A route comes before the custom domain of its host, whose worker is the origin to the route's.
    let front = "export default { fetch: async (request) => new Response('front of ' + (await (await fetch(request)).json()).text) };";
    local.put("front", json!([]), &[("index.js", front)]);
    local.ok("PUT", "@/workers/scripts/front/routes", Some(json!(["consent.acme.com/front/*"])));
    assert_eq!(local.get("consent.acme.com", "/front/x").1, "front of from the runtime");
    json_of(local.get("consent.acme.com", "/else"));

    let answer = local.send("POST", "/workers/acme/", &[("host", "127.0.0.1")], b"body".to_vec()).unwrap();
    assert_eq!(answer.status(), 200);
    local.put("acme", json!([]), &[("i.js", "export default { fetch: async (r) => new Response(await r.text() + '!', {status: 201, headers: {a: 'b'}}) }")]);
    let answer = local.send("POST", "/workers/acme/", &[("host", "127.0.0.1")], b"body".to_vec()).unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["a"].to_str().unwrap()), (201, "b"));
    assert_eq!(answer.text().unwrap(), "body!", "the new version answers at once");
    local.ok("DELETE", "@/workers/scripts/acme", None);
    assert_eq!(local.get("acme.localhost", "/").0, 404);
}

#[test]
fn what_can_not_run_says_why() {
    let local = serving();
    for (name, code, expect) in [
        ("syntax", "export default { fetch( }", "SyntaxError"),
        ("import", "import './missing.js'; export default {}", "missing.js"),
        ("throws", "throw new Error('at the top')", "at the top"),
    ] {
        local.put(name, json!([]), &[("index.js", code)]);
        let (status, text) = local.get(&format!("{name}.localhost"), "/");
        assert!(status == 500 && text.contains(expect), "{status} {text}");
    }
    local.put(
        "index",
        json!([{"type": "vectorize", "name": "B", "index_name": "b"}]),
        &[(
            "index.js",
            "const said = async (env) => { try { await env.B.query('a') } catch (error) { return error.message } };\n\
                        export default { fetch: async (_, env) => new Response(await said(env)) }",
        )],
    );
    // The worker runs; it is told where it uses what isn't there.
    let (status, text) = local.get("index.localhost", "/");
    assert_eq!(
        (status, text.as_str()),
        (200, "the binding B is of type vectorize, which the local Cloudflare doesn't have")
    );
    let without = super::client::local(|_| {});
    without.put("a", json!([]), &[("index.js", "export default {}")]);
    let (status, text) = without.get("a.localhost", "/");
    assert!(status == 503 && text.contains("no workerd was given"), "{text}");
}

#[test]
fn uploads_are_validated_where_that_is_asked_for() {
    let local = local(|options| (options.workerd, options.validate) = (workerd(), true));
    let put = |code: &str| {
        let metadata = json!({"main_module": "a/index.js"});
        local.upload("PUT", "@/workers/scripts/a", &metadata, &[("a/index.js", code)])
    };
    assert_eq!(code(put("export default { fetch( }")), (400, 10021));
    assert_eq!(code(put("export const nothing = 1")), (400, 10068));
    let (_, answer) = put("export default { fetch() {}, scheduled() {} }; export class Named { fetch() {} }");
    assert_eq!(answer["result"]["handlers"], json!(["fetch", "scheduled"]));
    assert_eq!(answer["result"]["named_handlers"], json!([{"name": "Named", "handlers": ["fetch"]}]));
    assert!(answer["result"]["startup_time_ms"].as_u64().unwrap() > 0);
}

#[test]
fn bindings_to_other_things_work() {
    let local = serving();
    let database = local.ok("POST", "@/d1/database", Some(json!({"name": "main"})))["uuid"].clone();
    let space = local.ok("POST", "@/storage/kv/namespaces", Some(json!({"title": "kv"})))["id"].clone();
    local.put("other", json!([]), &[("o.js", "export default { fetch: async (r) => new Response(`other ${r.method} ${new URL(r.url).pathname} ${await r.text()}`) }")]);
    let index = "export default { async fetch(request, env) {
        await env.DB.exec('CREATE TABLE IF NOT EXISTS t (a INTEGER, b BLOB)');
        await env.DB.batch([env.DB.prepare('INSERT INTO t VALUES (?, ?)').bind(1, new Uint8Array([1, 255])), env.DB.prepare('INSERT INTO t VALUES (2, NULL)')]);
        const failed = await env.DB.prepare('SELECT nonsense').all().catch((error) => error.message);
        const { results, meta } = await env.DB.prepare('SELECT a, b FROM t ORDER BY a').all();
        await env.KV.put('key/ä', 'value', { metadata: { m: 1 } });
        await env.KV.put('gone', 'x'); await env.KV.delete('gone');
        const kv = await env.KV.getWithMetadata('key/ä');
        return Response.json({
          results, changes: meta.changes, failed, raw: await env.DB.prepare('SELECT a FROM t WHERE a = ?1').bind(2).raw(),
          kv: [kv.value, kv.metadata], keys: await env.KV.list(), gone: await env.KV.get('gone'),
          other: await (await env.OTHER.fetch('https://any/path', { method: 'POST', body: 'b' })).text(),
          direct: await (await fetch('http://other.localhost/direct')).text(),
        });
      } };";
    let bindings = json!([
        {"type": "d1", "name": "DB", "id": database}, {"type": "kv_namespace", "name": "KV", "namespace_id": space},
        {"type": "service", "name": "OTHER", "service": "other"},
    ]);
    local.put("a", bindings, &[("index.js", index)]);
    let answer = json_of(local.get("a.localhost", "/"));
    assert_eq!(answer["results"], json!([{"a": 1, "b": [1, 255]}, {"a": 2, "b": null}]));
    assert_eq!(answer["raw"], json!([[2]]));
    assert!(answer["failed"].as_str().unwrap().contains("no such column: nonsense"), "{answer}");
    assert_eq!((&answer["kv"], &answer["gone"]), (&json!(["value", {"m": 1}]), &Value::Null));
    assert_eq!(answer["keys"]["keys"], json!([{"name": "key/ä", "metadata": {"m": 1}}]));
    assert_eq!((&answer["other"], &answer["direct"]), (&json!("other POST /path b"), &json!("other GET /direct ")));
    let rows = local.ok(
        "POST",
        &format!("@/d1/database/{}/query", database.as_str().unwrap()),
        Some(json!({"sql": "SELECT count(*) AS n FROM t"})),
    );
    assert_eq!(rows[0]["results"], json!([{"n": 2}]), "the API sees the same database");
}

#[test]
fn a_dispatch_binding_reaches_the_workers_of_its_namespace_alone() {
    let local = serving();
    let put = |path: &str, code: &str, bindings: Value| {
        let metadata = json!({"main_module": "index.js", "bindings": bindings});
        let (status, answer) = local.upload("PUT", path, &metadata, &[("index.js", code)]);
        assert_eq!(status, 200, "{answer}");
    };
    let front = "export default { async fetch(request, env) {
        const worker = request.headers.get('to');
        try { return await env.DISPATCHER.get(worker).fetch(request); }
        catch (error) { return new Response(error.message, { status: 599 }); }
      } };";
    for namespace in ["shops", "others"] {
        local.ok("POST", "@/workers/dispatch/namespaces", Some(json!({"name": namespace})));
        let own = format!(
            "export default {{ fetch: async (r, env) => Response.json([{namespace:?}, r.method, r.url, await r.text(), r.headers.get('x'), [...r.headers.keys()].filter((k) => k.startsWith('x-local'))], {{ status: 201, headers: {{ a: 'b' }} }}) }};"
        );
        put(&format!("@/workers/dispatch/namespaces/{namespace}/scripts/acme"), &own, json!([]));
    }
    let shops = |name: &str| format!("@/workers/dispatch/namespaces/shops/scripts/{name}");
    put(&shops("throws"), "export default { fetch() { throw new Error('inner'); } };", json!([]));
    put(
        &shops("fails"),
        "export default { fetch: () => new Response('Internal Server Error', { status: 500 }) };",
        json!([]),
    );
    put(&shops("broken"), "export default { fetch( }", json!([]));
    put(&shops("turns"), "export default { fetch: () => Response.redirect('https://else.example/', 302) };", json!([]));
    put("@/workers/scripts/outside", "export default { fetch: () => new Response('outside') };", json!([]));
    put(
        "@/workers/scripts/front",
        front,
        json!([{"type": "dispatch_namespace", "name": "DISPATCHER", "namespace": "shops"}]),
    );
    local.ok("PUT", "@/workers/domains", Some(json!({"hostname": "any.example", "service": "front"})));
    let ask = |to: &str| {
        let headers = [("host", "any.example"), ("to", to), ("x", "y"), ("x-local-dispatched", "outside")];
        let answer = local.send("POST", "/a?b=c", &headers, b"body".to_vec()).unwrap();
        (answer.status().as_u16(), answer.headers().get("a").is_some(), answer.text().unwrap())
    };
    let (status, has_header, text) = ask("acme");
    assert_eq!((status, has_header), (201, true), "{text}");
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!(["shops", "POST", "http://any.example/a?b=c", "body", "y", []])
    );
    assert_eq!(ask("outside").2, "Worker not found.");
    assert_eq!((ask("nobody").0, ask("no/body é").2), (599, "Worker not found.".to_owned()));
    assert_eq!((ask("throws").0, ask("broken").0), (599, 599));
    assert_eq!(ask("fails"), (500, false, "Internal Server Error".to_owned()), "its own answer");
    assert_eq!(ask("turns").0, 302);
    local.ok("DELETE", &shops("acme"), None);
    assert_eq!(ask("acme").2, "Worker not found.");
}

#[test]
fn keys_are_written_and_removed_ten_thousand_at_a_time() {
    let local = local(|_| {});
    let space = local.ok("POST", "@/storage/kv/namespaces", Some(json!({"title": "kv"})))["id"].clone();
    let path = |rest: &str| format!("@/storage/kv/namespaces/{}/{rest}", space.as_str().unwrap());
    let pairs = |count: usize| {
        (0..count).map(|at| json!({"key": format!("h{at}.example"), "value": "w"})).collect::<Vec<Value>>()
    };
    let done = local.ok("PUT", &path("bulk"), Some(pairs(10_000).into()));
    assert_eq!(done["successful_key_count"], 10_000);
    assert_eq!(code(local.call("PUT", &path("bulk"), Some(pairs(10_001).into()))), (400, 10026));
    let long = json!([{"key": "fits", "value": "w"}, {"key": "k".repeat(513), "value": "w"}]);
    // Raw: the document knows the length, too.
    let long = local.raw("PUT", &path("bulk"), "application/json", long.to_string().into_bytes());
    assert_eq!(code(long), (400, 10026));
    let listed =
        |prefix: &str| local.ok("GET", &path(&format!("keys?prefix={prefix}")), None).as_array().unwrap().len();
    assert_eq!((listed("fits"), listed("h9999")), (0, 1), "all of a request or nothing");
    let keys: Vec<Value> = (0..10_001).map(|at| json!(format!("h{at}.example"))).collect();
    assert_eq!(code(local.call("POST", &path("bulk/delete"), Some(keys.clone().into()))), (400, 10026));
    local.ok("POST", &path("bulk/delete"), Some(keys[..10_000].to_vec().into()));
    assert_eq!(listed("h"), 0);
}

#[test]
fn calls_of_workers_stay_on_the_machine() {
    let local = serving();
    let index = "export default { async fetch(request, env) {
        const ask = (host, token) => fetch(`https://${host}/v2/pipeline`, { method: 'POST', headers: { authorization: `Bearer ${token}` },
          body: JSON.stringify({ requests: [{ type: 'execute', stmt: { sql: 'SELECT 40 + 2' } }, { type: 'close' }] }) });
        const good = await (await ask('acme.turso.io', env.TURSO_AUTH_TOKEN)).json();
        return Response.json({
          value: good.results[0].response.result.rows[0][0].value,
          wrong: (await ask('acme.turso.io', 'other')).status, unknown: (await ask('else.turso.io', env.TURSO_AUTH_TOKEN)).status,
          outside: [(await fetch('https://www.example.com/')).status, (await fetch('http://127.0.0.1:' + new URL(request.url).port)).status],
        });
      } };";
    let bindings = json!([
        {"type": "plain_text", "name": "TURSO_DATABASE_URL", "text": "libsql://acme.turso.io"},
        {"type": "secret_text", "name": "TURSO_AUTH_TOKEN", "text": "canary-turso"},
    ]);
    local.put("a", bindings, &[("index.js", index)]);
    let answer = json_of(local.get("a.localhost", "/"));
    assert_eq!(answer, json!({"value": "42", "wrong": 401, "unknown": 502, "outside": [502, 502]}));
    let journal = local.send("GET", "/__local/requests", &[], Vec::new()).unwrap().text().unwrap();
    assert!(journal.contains("\"outbound\":\"www.example.com/\"") && !journal.contains("canary"), "{journal}");

    let outside = |token: &str| {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": "CREATE TABLE t (a)"}}, {"type": "close"}]});
        let path = "/__local/libsql/acme.turso.io/v2/pipeline";
        local
            .send("POST", path, &[("authorization", &format!("Bearer {token}"))], body.to_string().into_bytes())
            .unwrap()
    };
    assert_eq!((outside("wrong").status().as_u16(), outside("canary-turso").status().as_u16()), (401, 200));
    assert!(local.folder.path().join("libsql/acme.turso.io.db").exists());
}

/// The pids of the workerd processes that this test's process started and that have `value` in their environment.
fn workerds(value: &str) -> Vec<u32> {
    let marker = format!("local-cloudflare-{}-", std::process::id());
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        let ours = folder.to_string_lossy().contains(&marker) && environment.contains(value);
        ours && command.contains("serve\0") && !command.starts_with("sh\0")
    })
    .collect()
}

#[test]
fn a_dead_workerd_is_started_again_and_none_outlives_its_parent() {
    let mut local = serving();
    let index = "let count = 0; export default { fetch: () => new Response(String(++count)) }";
    local.put("counting", json!([]), &[("index.js", index)]);
    let count = || local.get("counting.localhost", "/").1;
    assert_eq!((count(), count()), ("1".to_owned(), "2".to_owned()));
    // Other tests run beside this one; a variable tells this test's process from theirs.
    local.put(
        "counting",
        json!([{"type": "plain_text", "name": "M", "text": "counting-marker"}]),
        &[("index.js", index)],
    );
    assert_eq!(local.get("counting.localhost", "/").1, "1");
    let pid = |marker: &str| workerds(marker).first().copied();
    let killed = pid("counting-marker").expect("workerd runs");
    assert!(std::process::Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap().success());
    // Until its parent has heard of it, the operating system keeps the process.
    until("the death is seen", || !std::path::Path::new(&format!("/proc/{killed}")).exists());
    assert_eq!(local.get("counting.localhost", "/").1, "1", "a new process counts from 1");
    let next = pid("counting-marker").expect("workerd runs again");
    assert_ne!(next, killed);
    local.running.take().unwrap().stop();
    until("workerd ends with the server", || pid("counting-marker").is_none());
}

#[test]
fn only_so_many_processes_run() {
    let local = serving();
    for number in 0..20 {
        let name = format!("w{number}");
        let marker = json!([{"type": "plain_text", "name": "M", "text": "many-marker"}]);
        local.put(
            &name,
            marker,
            &[("index.js", &format!("export default {{ fetch: () => new Response('{number}') }}"))],
        );
        assert_eq!(local.get(&format!("{name}.localhost"), "/").1, number.to_string());
    }
    let running = || workerds("many-marker").len();
    until("no more than 16 processes run", || running() <= 16);
    assert_eq!(local.get("w0.localhost", "/").1, "0", "one that was ended starts again");
}

/// What a worker does with a bucket, and what it should see of it.
const BUCKET: &str = r#"
const same = (found, wanted) => {
  const [one, other] = [found, wanted].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`found ${one}, not ${other}`);
};
export default {
  fetch: (_, env) => use(env).catch((error) => new Response(error.stack, { status: 500 })),
};
async function use({ FILES, MORE, JOBS }) {
    same(await FILES.get("none"), null);
    same(await FILES.head("none"), null);
    const put = await FILES.put("a/ü b", "0123456789", {
      httpMetadata: { contentType: "text/plain", cacheControl: "no-store" }, customMetadata: { by: "me" },
    });
    same([put.key, put.size, put.httpMetadata.contentType], ["a/ü b", 10, "text/plain"]);
    const whole = await FILES.get("a/ü b");
    same([await whole.text(), whole.customMetadata, whole.httpMetadata.cacheControl, whole.etag === put.etag],
      ["0123456789", { by: "me" }, "no-store", true]);
    same(Math.abs(whole.uploaded.getTime() - Date.now()) < 60000, true);
    const part = async (options) => (await FILES.get("a/ü b", options)).text();
    same(await part({ range: { offset: 2, length: 3 } }), "234");
    same(await part({ range: { offset: 7 } }), "789");
    same(await part({ range: { suffix: 2 } }), "89");
    same(await part({ range: new Headers({ range: "bytes=1-2" }) }), "12");
    const onlyIf = { etagMatches: put.etag };
    same(await part({ onlyIf }), "0123456789");
    same("body" in (await FILES.get("a/ü b", { onlyIf: { etagMatches: "other" } })), false);
    same(await FILES.put("a/ü b", "x", { onlyIf: { etagDoesNotMatch: put.etag } }), null);
    same((await FILES.head("a/ü b")).size, 10);
    const bytes = new Uint8Array(200_000).map((_, at) => at % 251);
    await FILES.put("a/bytes", bytes);
    same(new Uint8Array(await (await FILES.get("a/bytes")).arrayBuffer())[199_999], bytes[199_999]);
    await FILES.put("b", "");
    same(await part({}), "0123456789");
    same(await (await FILES.get("b")).text(), "");
    const names = async (options) => {
      const page = await FILES.list(options);
      return [page.objects.map(({ key }) => key), page.delimitedPrefixes, page.truncated];
    };
    same(await names(), [["a/bytes", "a/ü b", "b"], [], false]);
    same(await names({ prefix: "a/" }), [["a/bytes", "a/ü b"], [], false]);
    same(await names({ delimiter: "/" }), [["b"], ["a/"], false]);
    const first = await FILES.list({ limit: 1, include: ["customMetadata"] });
    same([first.objects[0].key, first.truncated], ["a/bytes", true]);
    same((await FILES.list({ cursor: first.cursor, include: ["customMetadata"] })).objects[0].customMetadata, { by: "me" });
    same(await MORE.list().then(({ objects }) => objects.length), 0);
    await FILES.delete(["a/bytes", "b"]);
    await FILES.delete("none");
    same(await names(), [["a/ü b"], [], false]);
    const refused = await FILES.createMultipartUpload("m").then(() => "", ({ message }) => message);
    same(refused.includes("has no `createMultipartUpload`"), true);
    await JOBS.send({ at: 1 });
    await JOBS.sendBatch([{ body: 1 }, { body: 2 }]);
    return new Response("all of it");
}
"#;

#[test]
fn buckets_hold_objects_and_queues_take_messages() {
    let local = serving();
    let bindings = json!([
        {"type": "r2_bucket", "name": "FILES", "bucket_name": "acme-files"},
        {"type": "r2_bucket", "name": "MORE", "bucket_name": "acme-files", "jurisdiction": "eu"},
        {"type": "queue", "name": "JOBS", "queue_name": "acme jobs"},
    ]);
    local.put("bucket", bindings, &[("index.js", BUCKET)]);
    assert_eq!(local.get("bucket.localhost", "/"), (200, "all of it".to_owned()));
    // They stay when another version of the worker runs.
    let count = "export default { fetch: async (_, { B }) => new Response(String((await B.list()).objects.length)) }";
    local.put(
        "count",
        json!([{"type": "r2_bucket", "name": "B", "bucket_name": "acme-files"}]),
        &[("index.js", count)],
    );
    assert_eq!(local.get("count.localhost", "/"), (200, "1".to_owned()));
    let journal = local.send("GET", "/__local/requests", &[], Vec::new()).unwrap().text().unwrap();
    let journal: Value = serde_json::from_str(&journal).unwrap();
    let sent: Vec<&Value> =
        journal["requests"].as_array().unwrap().iter().filter(|entry| entry["queue"].is_string()).collect();
    let sent: Vec<(&Value, &Value)> = sent.iter().map(|entry| (&entry["queue"], &entry["sent"])).collect();
    assert_eq!(sent, [(&json!("acme jobs"), &json!("message")), (&json!("acme jobs"), &json!("batch"))], "{journal}");
}
