//! The configuration of workerd for one worker, as Cap'n Proto text. Knows workerd's schema (`workerd.capnp` of
//! 2026-11-17); not how the process is run.
//!
//! Texts and secrets are passed by the environment of the process (`fromEnvironment`), bodies of modules and JSON by
//! files that the configuration embeds: so only names are written into it, escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::asset_service::AssetService;

/// The socket on which workerd listens, in its folder. A port of this machine would answer any user and any web page that finds it.
pub const SOCKET: &str = "socket";
/// The socket beside it, on which handlers are called that no request reaches: `scheduled()`, `queue()`, `tail()`.
pub const TRIGGER_SOCKET: &str = "trigger";

/// Everything that workerd needs to run one worker.
#[derive(Debug, Default)]
pub struct WorkerSource {
    /// Names, content types and bodies of the modules, the entry first.
    pub modules: Vec<(String, String, Vec<u8>)>,
    /// The entry is a service-worker script.
    pub classic: bool,
    /// The bindings, with secrets in plain text under `text`.
    pub bindings: Vec<Value>,
    /// The compatibility date, one that workerd knows.
    pub date: String,
    /// The compatibility flags.
    pub flags: Vec<String>,
    /// The version's id.
    pub version: String,
    /// The account.
    pub account: String,
    /// The worker's name.
    pub name: String,
    /// Its Durable Object classes: the name, the id under which objects are stored, and whether that is in SQLite.
    pub objects: Vec<(String, String, bool)>,
    /// The folder of stored objects, an absolute path.
    pub folder: String,
    /// Whether it has the Cache API.
    pub has_cache: bool,
    /// Whether it gets the events of other workers.
    pub is_tail: bool,
    /// Whether its handlers can be called that no request reaches.
    pub has_triggers: bool,
    /// Its static assets.
    pub assets: Option<AssetService>,
    /// The words with which the worker's events are sent to the egress listener, see [`traced`]; empty: they aren't sent.
    pub trace: String,
}

/// Returns the words of a call that brings the events of a worker's version.
pub fn traced(version: &str, key: &super::store::Key) -> String {
    format!("trace {version} {}", word(&[&key.account, &key.namespace, &key.name]))
}

/// The address that the worker's calls go to, and the word that proves that they come from a worker.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The address of the egress listener.
    pub address: SocketAddr,
    /// The word.
    pub word: String,
}

/// A configuration: files by name, `config.capnp` among them, and the environment.
#[derive(Default)]
pub struct Config {
    /// Name and content of each file.
    pub files: Vec<(String, Vec<u8>)>,
    /// The variables that bindings are read from.
    pub environment: Vec<(String, String)>,
    services: BTreeMap<String, String>,
    /// The internal modules that bindings are made by, with their code.
    modules: BTreeMap<&'static str, &'static str>,
    /// The number of sockets on which workerd listens.
    pub sockets: usize,
    /// Whether the worker has Durable Objects.
    pub has_objects: bool,
}

/// Writes the configuration.
///
/// # Errors
/// A sentence on what the worker has that the emulator can't run.
pub fn config(source: &WorkerSource, outside: &Outside) -> Result<Config, String> {
    let mut config = Config::default();
    let mut modules = String::new();
    let entry = source.modules.first().filter(|_| source.is_tail && !source.classic);
    if let Some((name, ..)) = entry {
        let code = TAIL_ENTRY.replace("ENTRY", &serde_json::json!(format!("./{name}")).to_string());
        let file = config.file(code.into_bytes());
        let _ = writeln!(modules, "    (name = \"local-cloudflare-entry.js\", esModule = embed \"{file}\"),");
    }
    for (name, kind, body) in &source.modules {
        let kind = match kind.as_str() {
            "application/javascript+module" | "text/javascript+module" => "esModule",
            "application/javascript" | "text/javascript" => "commonJsModule",
            "application/wasm" => "wasm",
            "application/octet-stream" => "data",
            "text/plain" => "text",
            "application/source-map" => continue,
            other => {
                return Err(format!("the module {name} has the type {other}, which the local Cloudflare doesn't run"));
            }
        };
        let file = config.file(body.clone());
        let _ = writeln!(modules, "    (name = {}, {kind} = embed \"{file}\"),", text(name));
    }
    let code = if source.classic {
        let file = config.file(source.modules.first().map(|(.., body)| body.clone()).unwrap_or_default());
        format!("serviceWorkerScript = embed \"{file}\"")
    } else {
        format!("modules = [\n{modules}  ]")
    };
    config.service(outside, "outbound", &format!("outbound {}", source.account));
    let mut bindings = String::new();
    for binding in &source.bindings {
        let name = binding["name"].as_str().unwrap_or_default();
        let value = config.binding(source, outside, name, binding)?;
        let _ = writeln!(bindings, "    (name = {}, {value}),", text(name));
    }
    let mut tracer = String::new();
    if !source.trace.is_empty() {
        config.service(outside, "traces", &source.trace);
        let file = config.file(TRACER.as_bytes().to_vec());
        config.services.insert("tracer".to_owned(), "    (name = \"tracer\", worker = .tracer),\n".to_owned());
        tracer = format!(
            "const tracer :Workerd.Worker = (\n  modules = [(name = \"tracer.js\", esModule = embed \"{file}\")],\n\
             bindings = [(name = \"traces\", service = \"traces\")],\n\
             compatibilityDate = \"{TRACER_DATE}\", globalOutbound = \"traces\");\n"
        );
    }
    if source.has_cache {
        config.service(outside, "cache", &format!("cache {}", word(&[&source.account])));
    }
    let (triggers, trigger_socket) =
        if source.has_triggers { triggers(&mut config, source, entry.is_some()) } else { Default::default() };
    let (assets, entry_service) = match &source.assets {
        Some(assets) => (asset_workers(&mut config, outside, assets), ROUTER),
        None => (String::new(), "worker"),
    };
    let objects = objects(&mut config, source);
    let cache = if source.has_cache { ", cacheApiOutbound = \"cache\"" } else { "" };
    config.has_objects = !source.objects.is_empty();
    config.sockets = 1 + usize::from(source.has_triggers);
    let tails = if tracer.is_empty() { "" } else { ", tails = [\"tracer\"]" };
    let flags: Vec<String> = source.flags.iter().map(|flag| text(flag)).collect();
    let services: String = config.services.values().cloned().collect();
    let mut extensions = String::new();
    for (name, code) in std::mem::take(&mut config.modules) {
        let file = config.file(code.as_bytes().to_vec());
        let _ = writeln!(
            extensions,
            "    (modules = [(name = \"{name}\", internal = true, esModule = embed \"{file}\")]),"
        );
    }
    let whole = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (\nextensions = [\n{extensions}  ],\n\
         services = [\n    (name = \"worker\", worker = .worker),\n{services}  ],\n\
         sockets = [(name = \"http\", address = \"unix:{SOCKET}\", service = \"{entry_service}\",\n\
         http = (forwardedProtoHeader = \"x-forwarded-proto\")){trigger_socket}]);\n\
         const worker :Workerd.Worker = (\n  {code},\n  bindings = [\n{bindings}  ],\n\
         compatibilityDate = {}, compatibilityFlags = [{}], globalOutbound = \"outbound\"{tails}{cache}{objects});\n\
         {tracer}{triggers}{assets}",
        text(&source.date),
        flags.join(", "),
    );
    config.files.push(("config.capnp".to_owned(), whole.into_bytes()));
    Ok(config)
}

/// Returns the part of a worker's configuration about its Durable Object classes.
fn objects(config: &mut Config, source: &WorkerSource) -> String {
    if source.objects.is_empty() {
        return String::new();
    }
    let disk = format!("    (name = \"objects\", disk = (path = {}, writable = true)),\n", text(&source.folder));
    config.services.insert("objects".to_owned(), disk);
    let class = |(class, id, sqlite): &(String, String, bool)| {
        format!("(className = {}, uniqueKey = {}, enableSql = {sqlite})", text(class), text(id))
    };
    let classes: Vec<String> = source.objects.iter().map(class).collect();
    format!(",\ndurableObjectNamespaces = [{}], durableObjectStorage = (localDisk = \"objects\")", classes.join(", "))
}

/// The services that serve static assets: the one that looks them up, and the one that decides whether they or the worker answer.
const ASSETS: &str = "assets";
const ROUTER: &str = "router";
/// Their compatibility dates, as miniflare runs them.
const ASSETS_DATE: &str = "2024-07-31";

/// Returns the workers that serve a worker's static assets.
fn asset_workers(config: &mut Config, outside: &Outside, assets: &AssetService) -> String {
    config.service(outside, "asset files", &format!("assets {}", word(&[&assets.scope])));
    for name in [ASSETS, ROUTER] {
        config.services.insert(name.to_owned(), format!("    (name = \"{name}\", worker = .{name}),\n"));
    }
    let mut file = |bytes: &[u8]| config.file(bytes.to_vec());
    let (code, list, settings) = (file(&assets.assets_code), file(&assets.list), file(assets.config.as_bytes()));
    let (router, router_settings) = (file(&assets.router_code), file(assets.router_config.as_bytes()));
    format!(
        "const {ASSETS} :Workerd.Worker = (\n  modules = [(name = \"assets.js\", esModule = embed \"{code}\")],\n\
         bindings = [\n    (name = \"ASSETS_KV_NAMESPACE\", kvNamespace = \"asset files\"),\n\
         \x20   (name = \"ASSETS_MANIFEST\", data = embed \"{list}\"),\n\
         \x20   (name = \"CONFIG\", json = embed \"{settings}\"),\n  ],\n\
         compatibilityDate = \"{ASSETS_DATE}\", compatibilityFlags = [\"nodejs_compat\", \"enable_ctx_exports\"]);\n\
         const {ROUTER} :Workerd.Worker = (\n  modules = [(name = \"router.js\", esModule = embed \"{router}\")],\n\
         bindings = [\n    (name = \"ASSET_WORKER\", service = \"{ASSETS}\"),\n    (name = \"USER_WORKER\", service = \"worker\"),\n\
         \x20   (name = \"CONFIG\", json = embed \"{router_settings}\"),\n  ],\n\
         compatibilityDate = \"{ASSETS_DATE}\",\n\
         compatibilityFlags = [\"nodejs_compat\", \"no_nodejs_compat_v2\", \"enable_ctx_exports\"]);\n"
    )
}

/// Returns the worker beside a worker that calls those of its handlers that no request reaches, and its socket.
fn triggers(config: &mut Config, source: &WorkerSource, has_tail: bool) -> (String, String) {
    let file = config.file(TRIGGERS.as_bytes().to_vec());
    config.services.insert("triggers".to_owned(), "    (name = \"triggers\", worker = .triggers),\n".to_owned());
    let mut bindings = "    (name = \"worker\", service = \"worker\"),\n".to_owned();
    for (class, ..) in &source.objects {
        let (name, class) = (text(&format!("object {class}")), text(class));
        let _ = writeln!(
            bindings,
            "    (name = {name}, durableObjectNamespace = (className = {class}, serviceName = \"worker\")),"
        );
    }
    if has_tail {
        bindings += "    (name = \"tail\", service = (name = \"worker\", entrypoint = \"LocalCloudflareTail\")),\n";
    }
    let worker = format!(
        "const triggers :Workerd.Worker = (\n  modules = [(name = \"triggers.js\", esModule = embed \"{file}\")],\n\
         bindings = [\n{bindings}  ],\ncompatibilityDate = \"{TRIGGERS_DATE}\",\n\
         compatibilityFlags = [\"service_binding_extra_handlers\", \"rpc\"]);\n"
    );
    (
        worker,
        format!(",\n(name = \"triggers\", address = \"unix:{TRIGGER_SOCKET}\", service = \"triggers\", http = ())"),
    )
}

impl Config {
    fn file(&mut self, body: Vec<u8>) -> String {
        let name = format!("embed{}", self.files.len());
        self.files.push((name.clone(), body));
        name
    }

    fn variable(&mut self, value: &str) -> String {
        let name = format!("BINDING{}", self.environment.len());
        self.environment.push((name.clone(), value.to_owned()));
        format!("fromEnvironment = \"{name}\"")
    }

    /// Adds an external service for the egress listener, with a header that names the call's purpose.
    fn service(&mut self, outside: &Outside, name: &str, call: &str) {
        let service = format!(
            "    (name = {}, external = (address = \"{}\", http = (forwardedProtoHeader = \"x-forwarded-proto\",\n\
             \x20     injectRequestHeaders = [(name = \"{CALL}\", value = {})]))),\n",
            text(name),
            outside.address,
            text(&format!("{} {call}", outside.word)),
        );
        self.services.insert(name.to_owned(), service);
    }

    /// Adds the service that a binding calls under its own name; returns the name as a literal.
    fn service_of_binding(&mut self, outside: &Outside, service: String) -> String {
        self.service(outside, &service, &service);
        text(&service)
    }

    fn binding(
        &mut self,
        source: &WorkerSource,
        outside: &Outside,
        name: &str,
        binding: &Value,
    ) -> Result<String, String> {
        let field = |field: &str| binding[field].as_str().unwrap_or_default().to_owned();
        let kind = field("type");
        Ok(match kind.as_str() {
            "plain_text" | "secret_text" => {
                let value = field("text");
                if value.contains('\0') {
                    return Err(format!("the binding {name} holds a zero byte, which can't be passed to workerd"));
                }
                self.variable(&value)
            }
            "json" => format!("json = embed \"{}\"", self.file(binding["json"].to_string().into_bytes())),
            "version_metadata" => {
                let metadata = serde_json::json!({"id": source.version, "tag": "", "timestamp": ""});
                format!("json = embed \"{}\"", self.file(metadata.to_string().into_bytes()))
            }
            "d1" => {
                let service = self.service_of_binding(outside, format!("d1 {}", database_id(binding)));
                wrapped("cloudflare-internal:d1-api", &service)
            }
            "kv_namespace" => {
                let service = format!("kv {}", field("namespace_id"));
                format!("kvNamespace = {}", self.service_of_binding(outside, service))
            }
            "r2_bucket" => {
                let service = format!("r2 {}", word(&[&source.account, &field("jurisdiction"), &field("bucket_name")]));
                format!("r2Bucket = {}", self.service_of_binding(outside, service))
            }
            "queue" => {
                let service = format!("queue {}", word(&[&source.account, &field("queue_name")]));
                format!("queue = {}", self.service_of_binding(outside, service))
            }
            "durable_object_namespace" if [String::new(), source.name.clone()].contains(&field("script_name")) => {
                let class = field("class_name");
                match source.objects.iter().any(|(known, ..)| *known == class) {
                    true => format!("durableObjectNamespace = {}", text(&class)),
                    false => self.absent(name, &format!("the Durable Object class {class}"), ""),
                }
            }
            "durable_object_namespace" => {
                self.modules.insert(OBJECTS_MODULE, OBJECTS);
                let names = word(&[&source.account, &field("script_name"), &field("class_name")]);
                wrapped(OBJECTS_MODULE, &self.service_of_binding(outside, format!("object {names}")))
            }
            "service" if binding.get("entrypoint").is_some_and(|entry| !entry.is_null() && entry != "default") => {
                self.absent(name, "a service binding to an entrypoint", "")
            }
            "service" => {
                let service = format!("service {} {}", source.account, field("service"));
                format!("service = {}", self.service_of_binding(outside, service))
            }
            "assets" => match &source.assets {
                Some(_) => format!("service = \"{ASSETS}\""),
                None => self.absent(name, "the static assets, and there are none", ""),
            },
            "dispatch_namespace" => {
                self.modules.insert(DISPATCH_MODULE, DISPATCH);
                let service = format!("dispatch {} {}", source.account, field("namespace"));
                wrapped(DISPATCH_MODULE, &self.service_of_binding(outside, service))
            }
            other => self.absent(name, &format!("of type {other}"), other),
        })
    }

    /// Adds a binding that exists and whose use fails with its kind.
    fn absent(&mut self, name: &str, what: &str, kind: &str) -> String {
        self.modules.insert(ABSENT_MODULE, ABSENT);
        let why = format!("the binding {name} is {what}, which the local Cloudflare doesn't have");
        format!(
            "wrapped = (moduleName = \"{ABSENT_MODULE}\", innerBindings = [(name = \"why\", text = {}), (name = \"kind\", text = {})])",
            text(&why),
            text(kind)
        )
    }
}

/// A binding that an internal module makes of a service.
fn wrapped(module: &str, service: &str) -> String {
    format!("wrapped = (moduleName = \"{module}\", innerBindings = [(name = \"fetcher\", service = {service})])")
}

/// The database of a D1 binding: `database_id`, or `id` as wrangler 4.164 sends it.
pub fn database_id(binding: &Value) -> &str {
    binding["database_id"].as_str().or_else(|| binding["id"].as_str()).unwrap_or_default()
}

/// The header by which the egress listener knows what a call is for. workerd sets it on every call, so code in a worker
/// can't choose it.
pub const CALL: &str = "x-local-call";

/// The worker beside each worker that gets its events, as a tail worker does at Cloudflare, and passes them on.
const TRACER: &str = "const DEPTH = 64;
// Not every text of JavaScript is Unicode, and no reader follows every depth.
const readable = (value, depth) => {
  if (typeof value === 'string') return value.toWellFormed();
  if (value === null || typeof value !== 'object') return value;
  if (depth === 0) return '…';
  if (Array.isArray(value)) return value.map((item) => readable(item, depth - 1));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.toWellFormed(), readable(item, depth - 1)]));
};
export default {
  async tail(events, env) {
    const body = JSON.stringify(readable(JSON.parse(JSON.stringify(events)), DEPTH));
    await env.traces.fetch('http://traces/', { method: 'POST', body });
  },
};
";
/// Its compatibility date: none that a workerd doesn't know.
const TRACER_DATE: &str = "2024-01-01";

/// The header by which a dispatch binding names the worker of the namespace.
pub const DISPATCHED: &str = "x-local-dispatched";
/// The header of an answer that is none of the worker: why it can't answer. The binding throws it.
pub const THROWN: &str = "x-local-thrown";

/// The internal module behind dispatch bindings, which workerd itself doesn't have.
const DISPATCH_MODULE: &str = "local:dispatch";
/// Cloudflare's dispatch binding: `get(name)` returns something to fetch from, and only the fetch finds out whether
/// it exists.
const DISPATCH: &str = "export default ({ fetcher }) => ({
  get: (name) => ({
    async fetch(input, init) {
      const request = new Request(input, init);
      request.headers.set('x-local-dispatched', encodeURIComponent(name));
      const response = await fetcher.fetch(request);
      const thrown = response.headers.get('x-local-thrown');
      if (thrown !== null) throw new Error(thrown);
      return response;
    },
  }),
});
";

/// The header by which the worker beside a worker knows which of its Durable Objects a request is for.
pub const OBJECT: &str = "x-local-object";

/// The worker beside a worker that calls its handlers.
const TRIGGERS: &str = "const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const body = (kind, encoded) => {
  const data = bytes(encoded);
  if (kind === 'v8') return { serializedBody: data };
  if (kind === 'bytes') return { body: data };
  const text = new TextDecoder().decode(data);
  return { body: kind === 'json' ? JSON.parse(text) : text };
};
const call = async (job, env) => {
  if (job.kind === 'scheduled') {
    return await env.worker.scheduled({ scheduledTime: new Date(job.time), cron: job.cron });
  }
  if (job.kind === 'tail') {
    await env.tail.deliver(job.events);
    return { outcome: 'ok' };
  }
  const messages = job.messages.map(({ id, timestamp, kind, body: encoded, attempts }) => (
    { id, timestamp: new Date(timestamp), attempts, ...body(kind, encoded) }));
  return await env.worker.queue(job.queue, messages);
};
export default {
  async fetch(request, env) {
    const object = request.headers.get('x-local-object');
    if (object !== null) {
      const { class: name, name: of, id } = JSON.parse(object);
      const namespace = env['object ' + name];
      if (namespace === undefined) return new Response('it has no Durable Object class ' + name, { status: 500 });
      const headers = new Headers(request.headers);
      headers.delete('x-local-object');
      const stub = namespace.get(id === undefined ? namespace.idFromName(of) : namespace.idFromString(id));
      return await stub.fetch(new Request(request, { headers }));
    }
    try {
      return Response.json(await call(await request.json(), env));
    } catch (error) {
      return Response.json({ outcome: 'exception', error: String(error) });
    }
  },
};
";
/// Its compatibility date.
const TRIGGERS_DATE: &str = "2024-09-23";

/// The entry of a worker that gets the events of other workers: the worker's own, with a way to hand them over.
const TAIL_ENTRY: &str = "import { WorkerEntrypoint } from 'cloudflare:workers';
import * as entry from ENTRY;
export * from ENTRY;
export default entry.default;
export class LocalCloudflareTail extends WorkerEntrypoint {
  async deliver(events) {
    const own = entry.default;
    const handler = typeof own === 'function' ? new own(this.ctx, this.env) : own;
    if (typeof handler?.tail !== 'function') throw new Error('Handler does not export a tail() function.');
    await handler.tail(events, this.env, this.ctx);
  }
}
";

/// The internal module behind bindings to Durable Objects of other workers, which run in processes of their own.
const OBJECTS_MODULE: &str = "local:objects";
/// A namespace whose objects can be fetched from. Their own methods can't be called from another process.
const OBJECTS: &str = "export default ({ fetcher }) => {
  const id = (of) => ({ ...of, toString: () => of.id ?? of.name, equals: (other) => String(other) === (of.id ?? of.name) });
  const get = (of) => new Proxy({
    id: of,
    name: of.name,
    async fetch(input, init) {
      const request = new Request(input, init);
      request.headers.set('x-local-object', JSON.stringify({ name: of.name, id: of.id }));
      return await fetcher.fetch(request);
    },
  }, {
    get(target, key) {
      if (key in target || typeof key === 'symbol' || key === 'then') return target[key];
      throw new Error('the local Cloudflare calls Durable Objects of other workers by fetch() alone, not by ' + String(key) + '()');
    },
  });
  return {
    idFromName: (name) => id({ name }),
    idFromString: (text) => id({ id: text }),
    newUniqueId() { throw new Error('the local Cloudflare makes no new ids for Durable Objects of other workers'); },
    get,
    getByName: (name) => get(id({ name })),
    jurisdiction() { return this; },
  };
};
";

/// The internal module behind bindings to what the emulator doesn't have.
const ABSENT_MODULE: &str = "local:absent";
/// A worker that only has such a binding runs; its use throws. What is written to a dataset is never read by a
/// worker, so it is dropped.
const ABSENT: &str = "export default ({ why, kind }) => {
  if (kind === 'analytics_engine') return { writeDataPoint() {} };
  return new Proxy(function () {}, {
    get(_, key) {
      // What is awaited or printed is not used.
      if (typeof key === 'symbol' || key === 'then' || key === 'toJSON') return undefined;
      throw new Error(why);
    },
    apply() { throw new Error(why); },
  });
};
";

/// Names as one word of a header, which a space would end.
fn word(names: &[&str]) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    names.iter().map(|name| utf8_percent_encode(name, PLAIN).to_string()).collect::<Vec<_>>().join("/")
}

/// A text literal: Cap'n Proto reads C's escapes.
fn text(value: &str) -> String {
    let mut literal = String::from("\"");
    for letter in value.chars() {
        match letter {
            '"' | '\\' => literal.extend(['\\', letter]),
            letter if letter.is_ascii_control() => {
                let _ = write!(literal, "\\x{:02x}", u32::from(letter));
            }
            letter => literal.push(letter),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_never_enter_the_configuration() {
        let source = WorkerSource {
            modules: vec![(
                "a\"b/index.js".into(),
                "application/javascript+module".into(),
                b"export default {}".to_vec(),
            )],
            bindings: vec![
                json!({"name": "T", "type": "secret_text", "text": "canary\"), ("}),
                json!({"name": "J", "type": "json", "json": "x"}),
            ],
            ..WorkerSource::default()
        };
        let outside = Outside { address: "127.0.0.1:1".parse().unwrap(), word: "w".into() };
        let config = config(&source, &outside).unwrap_or_default();
        assert_eq!(config.environment, [("BINDING0".to_owned(), "canary\"), (".to_owned())]);
        let text = String::from_utf8(config.files.last().unwrap().1.clone()).unwrap();
        assert!(
            !text.contains("canary") && text.contains(r#"(name = "a\"b/index.js", esModule = embed "embed0")"#),
            "{text}"
        );
        assert_eq!(super::text("a\n\u{e9}\\"), "\"a\\x0a\u{e9}\\\\\"");
    }

    #[test]
    fn what_can_not_run_is_said() {
        let of = |kind: &str| (format!("a.{kind}"), kind.to_owned(), Vec::new());
        let outside = Outside { address: "127.0.0.1:1".parse().unwrap(), word: "w".into() };
        let source = WorkerSource { modules: vec![of("text/x-python")], ..WorkerSource::default() };
        assert!(config(&source, &outside).is_err_and(|why| why.contains("a.text/x-python has the type text/x-python")));
        // A binding says it when it is used.
        let source =
            WorkerSource { bindings: vec![json!({"name": "B", "type": "vectorize"})], ..WorkerSource::default() };
        let config = config(&source, &outside).unwrap_or_default();
        let text = String::from_utf8(config.files.last().unwrap().1.clone()).unwrap();
        assert!(text.contains("the binding B is of type vectorize, which the local Cloudflare doesn't have"), "{text}");
        assert!(text.contains("name = \"local:absent\", internal = true"), "{text}");
    }
}
