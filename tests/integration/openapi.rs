//! Shows: what flotilla sends and what the local Cloudflare answers fit Cloudflare's OpenAPI document, trimmed to the
//! operations in use (`tests/openapi.json`; each operation says in `x-source` where it is from).

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_model::paging::Page;
use flotilla_model::platform::{Call, Home, Platform as _, Reply};
use jsonschema::Validator;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::{Project, Run};
use crate::tools::Local;

/// What wrangler uses and no document describes, or only one that isn't at hand, as for queues and buckets (checked against the trimmed document by [`operation`]).
const UNDOCUMENTED: &[(&str, &str)] = &[
    ("GET", "/memberships"),
    ("GET", "/accounts/*/tokens/verify"),
    ("POST", "/accounts/*/workers/assets/upload"),
    ("POST", "/accounts/*/workers/scripts/*/assets-upload-session"),
    ("POST", "/accounts/*/workers/dispatch/namespaces/*/scripts/*/assets-upload-session"),
    ("GET", "/accounts/*/d1/database/*/time_travel/bookmark"),
    ("POST", "/accounts/*/d1/database/*/time_travel/restore"),
    ("GET", "/accounts/*/queues"),
    ("POST", "/accounts/*/queues"),
    ("GET", "/accounts/*/queues/*"),
    ("DELETE", "/accounts/*/queues/*"),
    ("GET", "/accounts/*/queues/*/consumers"),
    ("POST", "/accounts/*/queues/*/consumers"),
    ("PUT", "/accounts/*/queues/*/consumers/*"),
    ("DELETE", "/accounts/*/queues/*/consumers/*"),
    ("GET", "/accounts/*/workflows"),
    ("GET", "/accounts/*/workflows/*"),
    ("PUT", "/accounts/*/workflows/*"),
    ("DELETE", "/accounts/*/workflows/*"),
    ("GET", "/accounts/*/r2/buckets/*"),
    ("GET", "/accounts/*/ai-search/namespaces/*"),
    ("GET", "/accounts/*/agent-memory/namespaces/*"),
    ("PUT", "/accounts/*/workers/scripts/*/routes"),
    ("POST", "/accounts/*/workers/scripts/*/domains/changeset"),
    ("PUT", "/accounts/*/workers/scripts/*/domains/records"),
    ("GET", "/accounts/*/workers/services/*"),
    ("DELETE", "/accounts/*/workers/services/*"),
    ("GET", "/accounts/*/workers/workers/*"),
    ("GET", "/accounts/*/workers/domains/records"),
    ("GET", "/accounts/*/workers/domains/records/*"),
    ("GET", "/accounts/*/workers/durable_objects/namespaces"),
    ("GET", "/accounts/*/workers/dispatch/namespaces/*/scripts/*/secrets/*"),
];

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let parse = |text: &str| -> Value { serde_json::from_str(text).expect("a document is JSON") };
    let mut document = parse(include_str!("../openapi.json"));
    let mut of_zones = parse(include_str!("../openapi-zones.json"));
    for part in ["/paths", "/components/schemas"] {
        let added = of_zones.pointer_mut(part).and_then(Value::as_object_mut).expect("an object");
        document.pointer_mut(part).and_then(Value::as_object_mut).expect("an object").append(added);
    }
    document
});
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Checks a request. `path` is below `/client/v4`, without a query; `body` is the JSON, or for a form an object of its
/// JSON parts by name.
pub fn validate_request(method: &str, path: &str, body: Option<&Value>) -> Result<(), String> {
    let Some((pointer, operation)) = operation(method, path)? else { return Ok(()) };
    let content = operation["requestBody"]["content"].as_object().and_then(|content| content.keys().next());
    match (content, body) {
        (Some(kind), Some(body)) => check(&format!("{pointer}/requestBody/content/{}/schema", escape(kind)), body),
        (Some(_), None) if operation["requestBody"]["required"] == true => Err("the body is missing".to_owned()),
        (None, Some(_)) => Err("the operation has no body".to_owned()),
        _ => Ok(()),
    }
}

/// Checks an answer. `body` is nothing where the answer isn't JSON.
pub fn validate_response(method: &str, path: &str, status: u16, body: Option<&Value>) -> Result<(), String> {
    if status >= 400 {
        let envelope = json!({
            "type": "object", "required": ["success", "errors", "messages", "result"],
            "properties": {"success": {"const": false}, "result": {"type": "null"}, "messages": {"type": "array"}, "errors": {
                "type": "array", "minItems": 1,
                "items": {"required": ["code", "message"], "properties": {"code": {"type": "integer"}, "message": {"type": "string"}}}}},
        });
        let body = body.ok_or("an error without a JSON body")?;
        return first_error(&jsonschema::validator_for(&envelope).map_err(|error| error.to_string())?, body);
    }
    let Some((pointer, operation)) = operation(method, path)? else { return Ok(()) };
    let content = operation["responses"]["200"]["content"].as_object();
    let content = content.ok_or_else(|| format!("no answer {status} is documented"))?;
    match (content.contains_key("application/json"), body) {
        (true, Some(body)) => check(&format!("{pointer}/responses/200/content/application~1json/schema"), body),
        (true, None) => Err("the answer should be JSON".to_owned()),
        (false, _) => Ok(()),
    }
}

/// The operation and its place in the document; nothing for one that is listed as undocumented.
fn operation(method: &str, path: &str) -> Result<Option<(String, &'static Value)>, String> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    // A path with fewer placeholders fits better: /accounts/{id} before /{any}/{id}.
    let found =
        paths.iter().filter(|(pattern, _)| fits(pattern, path)).min_by_key(|(pattern, _)| pattern.matches('{').count());
    let undocumented = UNDOCUMENTED.iter().find(|(known, pattern)| *known == method && fits(pattern, path));
    let closer = |pattern: &str| {
        undocumented.is_none_or(|(_, other)| pattern.matches('{').count() <= other.matches('*').count())
    };
    let documented = found
        .filter(|(pattern, _)| closer(pattern))
        .and_then(|(pattern, operations)| Some((pattern, operations.get(method.to_ascii_lowercase())?)));
    match documented {
        Some((pattern, operation)) => {
            Ok(Some((format!("/paths/{}/{}", escape(pattern), method.to_ascii_lowercase()), operation)))
        }
        None if undocumented.is_some() => Ok(None),
        None => Err(format!("{method} {path} is in no document and not listed as undocumented")),
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given || wanted == "*" || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}

fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

fn check(pointer: &str, body: &Value) -> Result<(), String> {
    let validator = {
        let mut validators = VALIDATORS.lock().expect("no test panics while it holds this");
        match validators.get(pointer) {
            Some(validator) => validator.clone(),
            None => {
                let mut schema = DOCUMENT.pointer(pointer).ok_or_else(|| format!("no schema at {pointer}"))?.clone();
                schema["components"] = DOCUMENT["components"].clone();
                let validator =
                    Arc::new(jsonschema::validator_for(&schema).map_err(|error| format!("{pointer}: {error}"))?);
                validators.insert(pointer.to_owned(), validator.clone());
                validator
            }
        }
    };
    first_error(&validator, body)
}

fn first_error(validator: &Validator, body: &Value) -> Result<(), String> {
    match validator.iter_errors(body).next() {
        Some(error) => Err(format!("at {:?}: {error}\nin {body}", error.instance_path().to_string())),
        None => Ok(()),
    }
}

/// The parameters of a query that an operation has.
fn parameters(method: &str, path: &str) -> Vec<&'static str> {
    let found = operation(method, path).unwrap_or_else(|error| panic!("{error}"));
    let parameters = found.and_then(|(_, operation)| operation["parameters"].as_array());
    parameters.into_iter().flatten().map(|parameter| parameter["name"].as_str().expect("a name")).collect()
}

/// A request and its answer, as they went over the wire.
#[derive(Clone, Debug)]
struct Exchange {
    method: String,
    /// Below `/client/v4`, without the query.
    path: String,
    /// The names in the query.
    query: Vec<String>,
    /// The JSON; of a form, its JSON parts by name.
    request: Option<Value>,
    /// The parts of a form that aren't JSON: name and content type.
    modules: Vec<(String, String)>,
    status: u16,
    answer: Option<Value>,
}

impl Exchange {
    /// The operation as the document names it.
    fn operation(&self) -> String {
        let found = operation(&self.method, &self.path).unwrap_or_else(|error| panic!("{error}"));
        let (pointer, _) = found.unwrap_or_else(|| panic!("flotilla uses {self:?}, which no document describes"));
        let path = pointer.trim_start_matches("/paths/").rsplit_once('/').expect("a method").0.replace("~1", "/");
        format!("{} {path}", self.method)
    }

    /// What is against it.
    fn validate(&self) -> Result<(), String> {
        let known = parameters(&self.method, &self.path);
        if let Some(name) = self.query.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("the query's {name} is not documented"));
        }
        validate_request(&self.method, &self.path, self.request.as_ref())?;
        validate_response(&self.method, &self.path, self.status, self.answer.as_ref())
    }
}

/// Passes requests on to an API and keeps what went by. Speaks as much HTTP/1.1 as flotilla and the local Cloudflare do.
struct Recorder {
    address: String,
    kept: Arc<Mutex<Vec<Exchange>>>,
}

impl Recorder {
    /// Listens until the tests end; to `upstream`, as `127.0.0.1:PORT`.
    fn start(upstream: &str) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (all, upstream) = (Arc::clone(&kept), upstream.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (all, upstream) = (Arc::clone(&all), upstream.clone());
                std::thread::spawn(move || {
                    let server = TcpStream::connect(upstream).expect("the local Cloudflare listens");
                    let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
                    while let Some(request) = message(&mut client) {
                        server.get_mut().write_all(&request.bytes).expect("it takes the request");
                        let answer = message(&mut server).expect("it answers");
                        all.lock().unwrap().push(exchange(&request, &answer));
                        client.get_mut().write_all(&answer.bytes).expect("flotilla waits for the answer");
                    }
                });
            }
        });
        Recorder { address, kept }
    }

    /// What went by so far.
    fn exchanges(&self) -> Vec<Exchange> {
        self.kept.lock().unwrap().clone()
    }
}

/// One request or answer, whole.
struct Message {
    bytes: Vec<u8>,
    first: String,
    kind: String,
    body: Vec<u8>,
}

/// The next message of a connection; nothing at its end.
fn message(stream: &mut BufReader<TcpStream>) -> Option<Message> {
    let (mut head, mut length, mut kind) = (String::new(), 0, String::new());
    loop {
        let start = head.len();
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[start..].trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().expect("a length"),
                "content-type" => kind = value.trim().to_owned(),
                "transfer-encoding" => panic!("the recorder reads no {line}"),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let first = head.lines().next().unwrap_or_default().to_owned();
    Some(Message { bytes: [head.as_bytes(), &body].concat(), first, kind, body })
}

fn exchange(request: &Message, answer: &Message) -> Exchange {
    let words: Vec<&str> = request.first.split(' ').collect();
    let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
    let (mut sent, mut modules) = (None, Vec::new());
    if let Some(boundary) = request.kind.strip_prefix("multipart/form-data; boundary=") {
        let mut parts = json!({});
        for (name, kind, body) in form(&request.body, boundary.trim_matches('"')) {
            match serde_json::from_slice(&body) {
                Ok(value) if kind == "application/json" => parts[name] = value,
                _ => modules.push((name, kind)),
            }
        }
        sent = Some(parts);
    } else if !request.body.is_empty() {
        assert_eq!(request.kind, "application/json", "{}", request.first);
        sent = Some(serde_json::from_slice(&request.body).expect("JSON, as its type says"));
    }
    Exchange {
        method: words[0].to_owned(),
        path: path.strip_prefix("/client/v4").expect("the API's path").to_owned(),
        query: query.split('&').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect(),
        request: sent,
        modules,
        status: answer.first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"),
        answer: serde_json::from_slice(&answer.body).ok(),
    }
}

/// The parts of a form: name, content type, body.
fn form(body: &[u8], boundary: &str) -> Vec<(String, String, Vec<u8>)> {
    let (edge, gap) = (format!("--{boundary}"), b"\r\n\r\n");
    let find = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
    let (mut rest, mut parts) = (body, Vec::new());
    while let Some(start) = find(rest, edge.as_bytes()) {
        rest = &rest[start + edge.len()..];
        let Some(end) = find(rest, edge.as_bytes()) else { break };
        let head = find(&rest[..end], gap).expect("a part has headers");
        let text = String::from_utf8_lossy(&rest[..head]).into_owned();
        let name = text.split("name=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a part has a name");
        let kind = text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-type:").map(str::to_owned));
        let bytes = rest[head + gap.len()..end].strip_suffix(b"\r\n").expect("a line's end before the boundary");
        parts.push((name.to_owned(), kind.unwrap_or_default().trim().to_owned(), bytes.to_vec()));
    }
    parts
}

#[test]
fn it_finds_faults() {
    let routes = "/zones/x/workers/routes";
    assert!(validate_request("POST", routes, Some(&json!({"pattern": "a/*"}))).is_ok());
    assert!(validate_request("POST", routes, Some(&json!({"script": "a"}))).is_err());
    let envelope = |result: Value| json!({"success": true, "errors": [], "messages": [], "result": result});
    assert!(validate_response("GET", routes, 200, Some(&envelope(json!([{"id": "a", "pattern": "b"}])))).is_ok());
    assert!(validate_response("GET", routes, 200, Some(&envelope(json!([{"id": "a"}])))).is_err());
    assert!(validate_response("GET", routes, 404, Some(&envelope(json!(null)))).is_err());
    assert!(validate_request("GET", "/nonsense", None).is_err());
}

#[test]
fn every_operation_is_documented_or_listed() {
    for (methods, pattern) in flotilla_local::operations() {
        for method in methods.split(' ') {
            let path = format!("/{}", pattern.replace('*', "x"));
            operation(method, &path).unwrap();
        }
    }
}

/// All that flotilla asks of the API in the life of a fleet.
const USED: [&str; 28] = [
    "DELETE /accounts/{account_id}/workers/dispatch/namespaces/{dispatch_namespace}/scripts",
    "DELETE /accounts/{account_id}/workers/domains/{domain_id}",
    "DELETE /accounts/{account_id}/workers/scripts/{script_name}",
    "DELETE /zones/{zone_id}/workers/routes/{route_id}",
    "GET /accounts/{account_id}/d1/database",
    "GET /accounts/{account_id}/storage/kv/namespaces",
    "GET /accounts/{account_id}/storage/kv/namespaces/{namespace_id}/values/{key_name}",
    "GET /accounts/{account_id}/workers/dispatch/namespaces/{dispatch_namespace}/scripts",
    "GET /accounts/{account_id}/workers/dispatch/namespaces/{dispatch_namespace}/scripts/{script_name}/tags",
    "GET /accounts/{account_id}/workers/domains",
    "GET /accounts/{account_id}/workers/scripts",
    "GET /accounts/{account_id}/workers/scripts/{script_name}/schedules",
    "GET /accounts/{account_id}/workers/scripts/{script_name}/settings",
    "GET /accounts/{account_id}/workers/scripts/{script_name}/subdomain",
    "GET /accounts/{account_id}/workers/subdomain",
    "GET /zones",
    "GET /zones/{zone_id}/workers/routes",
    "GET /zones/{zone_id}/workers/routes/{route_id}",
    "PATCH /accounts/{account_id}/workers/scripts/{script_name}/script-settings",
    "POST /accounts/{account_id}/d1/database",
    "POST /accounts/{account_id}/storage/kv/namespaces",
    "POST /accounts/{account_id}/storage/kv/namespaces/{namespace_id}/bulk/delete",
    "POST /accounts/{account_id}/workers/scripts/{script_name}/subdomain",
    "POST /zones/{zone_id}/workers/routes",
    "PUT /accounts/{account_id}/storage/kv/namespaces/{namespace_id}/bulk",
    "PUT /accounts/{account_id}/workers/dispatch/namespaces/{dispatch_namespace}/scripts/{script_name}",
    "PUT /accounts/{account_id}/workers/domains",
    "PUT /accounts/{account_id}/workers/scripts/{script_name}",
];
/// The one whose order among the others says nothing.
const SCHEDULES: &str = "PUT /accounts/{account_id}/workers/scripts/{script_name}/schedules";

#[test]
fn what_flotilla_sends_and_gets_is_as_documented() {
    let (account, platform) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let project = Project::sample();
    for customer in ["acme", "bluebird", "cafe-central", "evergreen", "harbour", "kestrel"] {
        std::fs::remove_file(project.path(&format!("customers/{customer}.yaml"))).unwrap();
    }
    let second = format!(
        "packs:\n  consent: {{ path: templates/consent }}\n  dispatch: {{ path: templates/dispatch }}\n\n\
         sharedWorkers: {{ front: {{ pack: dispatch, account: platform }} }}\n\naccounts:\n  default: {{ id: {account}, token: {{ secret: CLOUDFLARE_API_TOKEN }} }}\n  \
         platform: {{ id: {platform}, token: {{ secret: CLOUDFLARE_API_TOKEN }}, dispatchNamespace: fleet,\n    \
         dispatch: {{ worker: front }} }}\n"
    );
    project.write(
        "fleet.yaml",
        format!("name: sample\n{second}defaults: {{ pack: consent, compatibilityDate: 2026-06-01 }}\n"),
    );
    project.edit(
        "customers/juniper.yaml",
        "name: Juniper",
        "account: platform\ndomains: [juniper.example]\nname: Juniper",
    );
    let database = "{ type: d1, name: of-dove, jurisdiction: eu }";
    project.write("customers/dove.yaml", format!("id: dove\nname: Dove\ndatabase: {database}\n"));
    project.write(".env", "CLOUDFLARE_API_TOKEN=a-token\nFJORD_DATABASE_TOKEN=t\nWEBHOOK_SIGNING_KEY=k\n");

    // Its folder is in another project, since this one's is going to be lost.
    let elsewhere = Project::sample();
    let local = Local::start(&elsewhere, None);
    local.call(
        Method::POST,
        &format!("/accounts/{platform}/workers/dispatch/namespaces"),
        Some(json!({"name": "fleet"})),
    );
    let recorder = Recorder::start(local.origin.trim_start_matches("http://"));
    let base = format!("http://{}/client/v4", recorder.address);
    let deploy = |arguments: &[&str]| -> Run {
        let command = [&["deploy", "--yes"][..], arguments].concat();
        project.run_with(&command, &[("CLOUDFLARE_API_BASE_URL", &base)]).exits(0)
    };
    let all = ["dove", "driftwood", "fjord", "goldfinch", "iris-optics", "juniper"];
    deploy(&all);
    // Each change of a trigger is a request of its own.
    project.edit("customers/goldfinch.yaml", "[consent.goldfinch.example]", "[privacy.goldfinch.example]");
    project.edit("customers/driftwood.yaml", "consent.driftwood.example/*", "privacy.driftwood.example/*");
    project.edit("customers/iris-optics.yaml", "*/30 * * * *", "*/20 * * * *");
    deploy(&all);
    // Without its state, flotilla asks what is there, and says in tags what it had to ask.
    std::fs::remove_dir_all(project.path(".flotilla")).unwrap();
    deploy(&[&all[..], &["--refresh"]].concat());
    for customer in ["fjord", "juniper"] {
        std::fs::remove_file(project.path(&format!("customers/{customer}.yaml"))).unwrap();
    }
    deploy(&["--prune", "--max-deletions", "2"]);

    let exchanges = recorder.exchanges();
    let used: BTreeSet<String> = exchanges.iter().map(Exchange::operation).collect();
    assert_eq!(used, USED.into_iter().chain([SCHEDULES]).map(str::to_owned).collect());
    for exchange in &exchanges {
        if let Err(error) = exchange.validate() {
            panic!("{} {}: {error}\n{exchange:#?}", exchange.method, exchange.path);
        }
        // A worker that is about to be created isn't there, nor is a new host.
        let is_look = ["/settings", "/tags"].iter().any(|end| exchange.path.ends_with(end));
        let is_look = is_look || exchange.path.contains("/values/");
        let expected = if is_look && exchange.status == 404 { 404 } else { 200 };
        assert_eq!(exchange.status, expected, "{exchange:#?}");
        assert!(exchange.modules.iter().all(|(_, kind)| kind == "application/javascript+module"), "{exchange:#?}");
    }
    let uploads = exchanges.iter().filter(|exchange| !exchange.modules.is_empty());
    // Six and what all share: triggers alone upload nothing, and without the state the tags say what is there.
    let mut number = 0;
    for upload in uploads {
        number += 1;
        let sent = upload.request.as_ref().unwrap();
        assert_eq!(upload.modules.len(), 2, "its own and the runtime: {upload:#?}");
        // The document would notice what matters.
        for (pointer, wrong) in [
            ("/metadata/bindings/0/type", json!("plain-text")),
            ("/metadata/bindings", json!({})),
            ("/metadata/compatibility_flags", json!("nodejs_compat")),
            ("/metadata/observability/enabled", json!("yes")),
        ] {
            let mut sent = sent.clone();
            *sent.pointer_mut(pointer).expect(pointer) = wrong;
            assert!(validate_request(&upload.method, &upload.path, Some(&sent)).is_err(), "{pointer} {}", upload.path);
        }
    }
    assert_eq!(number, 7);
}

#[test]
fn what_a_dialogue_asks_is_as_documented() {
    let account = "0123456789abcdef0123456789abcdef";
    let elsewhere = Project::sample();
    let local = Local::start(&elsewhere, None);
    let recorder = Recorder::start(local.origin.trim_start_matches("http://"));
    let tokens = HashMap::from([(String::new(), SecretString::from("a-token"))]);
    let cloudflare = Cloudflare::new(&format!("http://{}/client/v4", recorder.address), tokens).expect("a client");
    let ask = |account_id: &str, call: Call| {
        let home = Home { account_id: account_id.to_owned(), namespace: None };
        cloudflare.call(&home, &call).0.unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(ask("", Call::VerifyToken { of_account: false }), Reply::Token("active".to_owned()));
    assert_eq!(ask(account, Call::VerifyToken { of_account: true }), Reply::Token("active".to_owned()));
    ask(account, Call::FindZone { name: "shop.example".to_owned() });
    let Reply::Zones(list) = ask("", Call::ListZones { name: None, page: Page::First }) else {
        panic!("no list of zones")
    };
    let zones = &list.entries;
    assert_eq!((list.next.as_ref(), list.total), (None, Some(1)));
    assert_eq!((zones[0].name.as_str(), zones[0].account_id.as_str()), ("shop.example", account));
    assert_eq!(
        ask("", Call::ListZones { name: Some("shop.example".to_owned()), page: Page::First }),
        Reply::Zones(list)
    );
    let Reply::Names(accounts) = ask("", Call::ListAccounts { page: Page::First }) else {
        panic!("no list of accounts")
    };
    assert!(accounts.next.is_none() && !accounts.entries.is_empty());
    let make = Call::CreateDatabase { name: "shop".to_owned(), jurisdiction: None, location_hint: None };
    let Reply::Id(id) = ask(account, make) else { panic!("no database") };
    // What is gone already is gone.
    for _ in 0..2 {
        assert_eq!(ask(account, Call::DeleteDatabase { id: id.clone() }), Reply::Done);
    }
    for exchange in recorder.exchanges() {
        if let Err(error) = exchange.validate() {
            panic!("{} {}: {error}\n{exchange:#?}", exchange.method, exchange.path);
        }
    }
}
