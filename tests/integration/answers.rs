//! Shows that an answer is believed only when it says what its operation documents: every call, with each kind of answer that
//! something between flotilla and Cloudflare, or Cloudflare on a bad day, can give.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_model::binding::OwnWorkflow;
use flotilla_model::paging::Page;
use flotilla_model::platform::{AssetBody, Call, CallError, Home, Platform as _, Reply, Token};
use flotilla_model::spec::QueueConsumer;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::fleet::ACCOUNT;
use crate::support::http_request;

const ZONE: &str = "fedcba9876543210fedcba9876543210";
const ID: &str = "00112233445566778899aabbccddeeff";

/// A status, a content type and a body.
type Answer = (u16, &'static str, String);

/// An API that gives every request the answer that it was set to.
struct Stub {
    cloudflare: Cloudflare,
    answer: Arc<Mutex<Answer>>,
}

impl Stub {
    fn start() -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}/client/v4", listener.local_addr().expect("an address"));
        let tokens = HashMap::from([(String::new(), SecretString::from("a-token"))]);
        let cloudflare = Cloudflare::new(&base, tokens).expect("a client");
        let answer = Arc::new(Mutex::new((200, "", String::new())));
        let given = Arc::clone(&answer);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                http_request(&stream);
                let (status, kind, body) = given.lock().expect("no test panics in it").clone();
                let head = format!("content-type: {kind}\r\nlocation: {base}\r\nconnection: close");
                let length = body.len();
                let _ = write!(stream, "HTTP/1.1 {status} Status\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}");
            }
        });
        Stub { cloudflare, answer }
    }

    fn answers(&self, operation: &Operation, status: u16, kind: &'static str, body: &str) -> Result<Reply, CallError> {
        *self.answer.lock().expect("no test panics in it") = (status, kind, body.to_owned());
        self.cloudflare.call(&operation.home, &operation.call).0
    }

    fn json(&self, operation: &Operation, status: u16, body: &Value) -> Result<Reply, CallError> {
        self.answers(operation, status, "application/json", &body.to_string())
    }
}

/// A call and what its operation documents.
struct Operation {
    home: Home,
    call: Call,
    /// A documented result.
    result: Value,
    /// Whether the result may be nothing.
    or_nothing: bool,
    /// Results of the right type that are about something else, or that say that it was done otherwise.
    wrong: Vec<Value>,
    /// The code of a 404 that says that the thing isn't there.
    missing: Option<u64>,
}

impl Operation {
    fn name(&self) -> String {
        let namespace = if self.home.namespace.is_some() { " in a namespace" } else { "" };
        let what = match &self.call {
            Call::Upload { .. } => "Upload",
            Call::OpenAssets { .. } => "OpenAssets",
            Call::UploadAssets { .. } => "UploadAssets",
            Call::Delete { .. } => "Delete",
            Call::StartTail { .. } => "StartTail",
            Call::DeleteTail { .. } => "DeleteTail",
            Call::SetWorkersDev { .. } => "SetWorkersDev",
            Call::SetCrons { .. } => "SetCrons",
            Call::AttachDomain { .. } => "AttachDomain",
            Call::MoveDomain { .. } => "MoveDomain",
            Call::DetachDomain { .. } => "DetachDomain",
            Call::FindDomain { .. } => "FindDomain",
            Call::FindZone { .. } => "FindZone",
            Call::AddRoute { .. } => "AddRoute",
            Call::MoveRoute { .. } => "MoveRoute",
            Call::ReadRoute { .. } => "ReadRoute",
            Call::RemoveRoute { .. } => "RemoveRoute",
            Call::FindSubdomain => "FindSubdomain",
            Call::CreateNamespace => "CreateNamespace",
            Call::ListWorkers { .. } => "ListWorkers",
            Call::ListDomains { .. } => "ListDomains",
            Call::ListRoutes { .. } => "ListRoutes",
            Call::ReadWorkersDev { .. } => "ReadWorkersDev",
            Call::ReadCrons { .. } => "ReadCrons",
            Call::ReadSettings { .. } => "ReadSettings",
            Call::ListSecrets { .. } => "ListSecrets",
            Call::ReadTags { .. } => "ReadTags",
            Call::ReadContent { .. } => "ReadContent",
            Call::SetTags { .. } => "SetTags",
            Call::ListDatabases { .. } => "ListDatabases",
            Call::CreateDatabase { .. } => "CreateDatabase",
            Call::DeleteDatabase { .. } => "DeleteDatabase",
            Call::QueryDatabase { .. } => "QueryDatabase",
            Call::ReadBookmark { .. } => "ReadBookmark",
            Call::ListKv { .. } => "ListKv",
            Call::CreateKv { .. } => "CreateKv",
            Call::ListKeys { .. } => "ListKeys",
            Call::ReadKey { .. } => "ReadKey",
            Call::PutKeys { .. } => "PutKeys",
            Call::DeleteKeys { .. } => "DeleteKeys",
            Call::VerifyToken { .. } => "VerifyToken",
            Call::ListZones { .. } => "ListZones",
            Call::ListAccounts { .. } => "ListAccounts",
            Call::ListQueues { .. } => "ListQueues",
            Call::CreateQueue { .. } => "CreateQueue",
            Call::CreateConsumer { .. } => "CreateConsumer",
            Call::UpdateConsumer { .. } => "UpdateConsumer",
            Call::DeleteConsumer { .. } => "DeleteConsumer",
            Call::ReadWorkflow { .. } => "ReadWorkflow",
            Call::PutWorkflow { .. } => "PutWorkflow",
            Call::DeleteWorkflow { .. } => "DeleteWorkflow",
            Call::ListWorkflows { .. } => "ListWorkflows",
        };
        format!("{what}{namespace}")
    }

    /// Whether the code of a worker is answered, which has no envelope.
    fn is_content(&self) -> bool {
        matches!(self.call, Call::ReadContent { .. })
    }
}

/// Every call, with what it answers.
fn operations() -> Vec<Operation> {
    let name = || "w-acme".to_owned();
    let text = |text: &str| text.to_owned();
    let domain = json!({"id": ID, "hostname": "a.example.com", "service": "w-acme", "zone_id": ZONE});
    let route = json!({"id": ID, "pattern": "a.example.com/*", "script": "w-acme"});
    let with = |value: &Value, field: &str, new: Value| {
        let mut value = value.clone();
        value[field] = new;
        value
    };
    let script = json!({"id": "w-acme", "etag": "e", "tags": ["x"], "startup_time_ms": 1});
    let zone = json!({"id": ZONE, "name": "example.com", "account": {"id": ACCOUNT, "name": "A"}});
    let operation = |call: Call, result: Value, wrong: Vec<Value>| Operation {
        home: Home { account_id: ACCOUNT.to_owned(), namespace: None },
        call,
        result,
        or_nothing: false,
        wrong,
        missing: None,
    };
    let of_domain = |call| {
        let wrong = [("service", json!("w-other")), ("hostname", json!("b.example.com")), ("id", json!(""))];
        operation(call, domain.clone(), wrong.map(|(field, new)| with(&domain, field, new)).into())
    };
    let missing = |operation: Operation, code: u64| Operation { missing: Some(code), ..operation };
    let or_nothing = |operation: Operation| Operation { or_nothing: true, ..operation };
    let inside = |operation: Operation| Operation {
        home: Home { account_id: ACCOUNT.to_owned(), namespace: Some("n".to_owned()) },
        ..operation
    };
    let upload = || {
        let call = Call::Upload { worker: name(), metadata: json!({"bindings": []}), modules: Vec::new() };
        let wrong = vec![with(&script, "id", json!("w-other")), with(&script, "etag", json!(null)), json!({})];
        operation(call, script.clone(), wrong)
    };
    let delete = || {
        let call = Call::Delete { worker: name(), tag: None };
        operation(call, json!({"id": ID}), Vec::new())
    };
    let crons = vec![text("0 3 * * *"), text("*/5 * * * *")];
    let schedules = json!({"schedules": [{"cron": "*/5 * * * *"}, {"cron": "0 3 * * *"}]});
    let keys: Arc<[String]> = Arc::new([text("a.example.com")]);
    let pairs: Arc<[(String, String)]> = Arc::new([(text("a.example.com"), name())]);
    let refused_keys = json!({"successful_key_count": 0, "unsuccessful_keys": ["a.example.com"]});
    let few_keys = json!({"successful_key_count": 0, "unsuccessful_keys": []});
    let consumer = json!({"consumer_id": ID, "type": "worker", "script": "w-acme", "settings": {"batch_size": 10}});
    let workflow = json!({"name": "f", "script_name": "w-acme", "class_name": "F"});
    let page = || Page::First;
    let zone_id = || ZONE.to_owned();
    let row_of = |key: &str| json!([{key: 7}]);
    let secret = json!({"name": "KEY", "type": "secret_text"});
    // The list is whole, names each secret once, and nothing else.
    let list_secrets = || {
        operation(
            Call::ListSecrets { worker: name() },
            json!([secret, {"name": "SIGNING", "type": "secret_key"}]),
            vec![
                json!([{"name": "KEY"}]),
                json!([{"type": "secret_text"}]),
                json!([{"name": "KEY", "type": "plain_text"}]),
                json!([secret, secret]),
            ],
        )
    };
    let open_assets = || {
        let manifest = json!({"/a.txt": {"hash": ID, "size": 1}});
        operation(
            Call::OpenAssets { worker: name(), manifest },
            json!({"jwt": "a-token", "buckets": [[ID]]}),
            vec![json!({"buckets": [[ID]]}), json!({"jwt": "t", "buckets": [ID]}), json!({"jwt": 7, "buckets": []})],
        )
    };
    let body = AssetBody { hash: text(ID), content_type: Some(text("text/plain")), bytes: Arc::from(&b"a"[..]) };
    vec![
        upload(),
        inside(upload()),
        open_assets(),
        inside(open_assets()),
        or_nothing(operation(
            Call::UploadAssets { session: Token::new(text("a-token")), files: vec![body] },
            json!({"jwt": "another-token"}),
            vec![json!({"jwt": 7}), json!({"jwt": {}})],
        )),
        missing(delete(), 10007),
        missing(inside(delete()), 10092),
        missing(
            operation(
                Call::StartTail { worker: name(), filters: Vec::new() },
                json!({"id": ID, "url": "wss://tail.example/", "expires_at": "2026-01-01T00:00:00Z"}),
                vec![
                    json!({"id": ID, "expires_at": "2026-01-01T00:00:00Z"}),
                    json!({"id": 7, "url": "wss://tail.example/"}),
                ],
            ),
            10007,
        ),
        missing(operation(Call::DeleteTail { worker: name(), id: text(ID) }, json!(null), Vec::new()), 10007),
        operation(
            Call::SetWorkersDev { worker: name(), on: true, previews: false },
            json!({"enabled": true, "previews_enabled": false}),
            vec![
                json!({"enabled": false, "previews_enabled": false}),
                json!({"enabled": true, "previews_enabled": true}),
                json!({"enabled": "yes"}),
                json!({}),
            ],
        ),
        operation(
            Call::SetCrons { worker: name(), crons },
            schedules.clone(),
            vec![json!({"schedules": []}), json!({"schedules": null}), json!({})],
        ),
        of_domain(Call::AttachDomain { worker: name(), domain: text("a.example.com") }),
        of_domain(Call::MoveDomain { worker: name(), domain: text("a.example.com") }),
        operation(
            Call::MoveRoute { worker: name(), zone_id: zone_id(), id: text(ID), pattern: text("a.example.com/*") },
            route.clone(),
            vec![
                with(&route, "pattern", json!("b.example.com/*")),
                with(&route, "script", json!("w-other")),
                with(&route, "id", json!(ZONE)),
            ],
        ),
        missing(
            or_nothing(operation(Call::DetachDomain { id: text(ID) }, json!({"id": ID}), vec![json!({"id": ZONE})])),
            100_114,
        ),
        operation(
            Call::FindDomain { worker: name(), domain: text("a.example.com") },
            json!([domain]),
            vec![json!([{"id": ID}]), json!([with(&domain, "service", json!(7))])],
        ),
        operation(
            Call::FindZone { name: text("example.com") },
            json!([zone]),
            vec![json!([{"id": ZONE}]), row_of("name")],
        ),
        operation(
            Call::AddRoute { worker: name(), zone_id: zone_id(), pattern: text("a.example.com/*") },
            route.clone(),
            vec![
                with(&route, "pattern", json!("b.example.com/*")),
                with(&route, "script", json!("w-other")),
                with(&route, "id", json!(null)),
            ],
        ),
        missing(
            operation(
                Call::ReadRoute { zone_id: zone_id(), id: text(ID) },
                route.clone(),
                vec![with(&route, "id", json!(ZONE)), with(&route, "script", json!(7))],
            ),
            10009,
        ),
        missing(
            or_nothing(operation(
                Call::RemoveRoute { zone_id: zone_id(), id: text(ID) },
                json!({"id": ID}),
                vec![json!({"id": ZONE})],
            )),
            10009,
        ),
        missing(
            operation(Call::FindSubdomain, json!({"subdomain": "acme"}), vec![json!({"subdomain": ""}), json!({})]),
            10007,
        ),
        inside(operation(Call::CreateNamespace, json!({"namespace_name": "n"}), vec![json!({"namespace_name": "m"})])),
        operation(Call::ListWorkers { tags: None, page: page() }, json!([script]), vec![row_of("id"), json!([{}])]),
        missing(
            inside(operation(
                Call::ListWorkers { tags: None, page: page() },
                json!([{"script": script}]),
                vec![json!([script]), json!([{"script": null}])],
            )),
            100_119,
        ),
        operation(Call::ListDomains { page: page() }, json!([domain]), vec![row_of("id"), json!([{"id": ID}])]),
        operation(
            Call::ListRoutes { zone_id: zone_id(), page: page() },
            json!([route]),
            vec![row_of("id"), json!([{"id": ID}])],
        ),
        missing(
            operation(
                Call::ReadWorkersDev { worker: name() },
                json!({"enabled": false, "previews_enabled": false}),
                vec![json!({"enabled": "no"}), json!({})],
            ),
            10007,
        ),
        missing(
            operation(
                Call::ReadCrons { worker: name() },
                schedules,
                vec![json!({}), json!({"schedules": [{"cron": 7}]})],
            ),
            10007,
        ),
        missing(operation(Call::ReadSettings { worker: name() }, json!({"bindings": []}), Vec::new()), 10007),
        missing(
            operation(
                Call::ReadTags { worker: name() },
                json!({"tags": ["x"]}),
                vec![json!({"tags": "x"}), json!({"tags": [7]})],
            ),
            10007,
        ),
        missing(list_secrets(), 10007),
        missing(inside(list_secrets()), 10092),
        missing(inside(operation(Call::ReadTags { worker: name() }, json!(["x"]), vec![json!([7])])), 10092),
        missing(operation(Call::ReadContent { worker: name() }, json!(null), Vec::new()), 10007),
        operation(
            Call::SetTags { worker: name(), tags: vec![text("x"), text("y")] },
            json!({"tags": ["y", "x"]}),
            vec![json!({"tags": ["x"]}), json!({"tags": "x"})],
        ),
        operation(
            Call::ListDatabases { name: None, page: page() },
            json!([{"name": "d", "uuid": "u"}]),
            vec![row_of("name"), json!([{"name": "d"}])],
        ),
        operation(
            Call::CreateDatabase { name: text("d"), jurisdiction: None, location_hint: None },
            json!({"name": "d", "uuid": "u"}),
            vec![json!({"name": "e", "uuid": "u"}), json!({"name": "d"})],
        ),
        missing(operation(Call::DeleteDatabase { id: text("u") }, json!(null), Vec::new()), 7404),
        operation(
            Call::QueryDatabase { id: text("u"), sql: text("SELECT 1") },
            json!([{"success": true, "results": [{"name": "n"}], "meta": {}}]),
            vec![json!([]), json!([{"success": false, "results": []}]), json!([{"success": true}])],
        ),
        operation(
            Call::ReadBookmark { id: text("u") },
            json!({"bookmark": "b"}),
            vec![json!({"bookmark": 7}), json!({"other": "b"})],
        ),
        operation(
            Call::ListKv { page: page() },
            json!([{"title": "t", "id": ID}]),
            vec![row_of("title"), json!([{"title": "t"}])],
        ),
        operation(
            Call::CreateKv { title: text("t") },
            json!({"title": "t", "id": ID}),
            vec![json!({"title": "s", "id": ID}), json!({"title": "t"})],
        ),
        operation(
            Call::ListKeys { namespace_id: text(ID), page: page() },
            json!([{"name": "a.example"}]),
            vec![row_of("name"), json!([{}])],
        ),
        or_nothing(operation(
            Call::PutKeys { namespace_id: text(ID), pairs },
            json!({"successful_key_count": 1, "unsuccessful_keys": []}),
            vec![refused_keys.clone(), few_keys.clone()],
        )),
        or_nothing(operation(
            Call::DeleteKeys { namespace_id: text(ID), keys },
            json!({"successful_key_count": 1, "unsuccessful_keys": []}),
            vec![refused_keys, few_keys],
        )),
        operation(
            Call::VerifyToken { of_account: false },
            json!({"id": ID, "status": "active"}),
            vec![json!({"status": 1}), json!({})],
        ),
        operation(
            Call::ListZones { name: None, page: page() },
            json!([zone]),
            vec![row_of("id"), json!([with(&zone, "account", json!(null))])],
        ),
        operation(Call::ListAccounts { page: page() }, json!([{"name": "A", "id": ACCOUNT}]), vec![row_of("name")]),
        operation(
            Call::ListQueues { name: None, page: page() },
            json!([{"queue_id": ID, "queue_name": "q", "consumers": [consumer]}]),
            vec![row_of("queue_id"), json!([{"queue_id": ID, "queue_name": "q", "consumers": [{"script": "w-acme"}]}])],
        ),
        operation(
            Call::CreateQueue { name: text("q") },
            json!({"queue_id": ID, "queue_name": "q"}),
            vec![json!({"queue_id": ID, "queue_name": "r"}), json!({"queue_name": "q"})],
        ),
        operation(
            Call::CreateConsumer { worker: name(), queue_id: text(ID), consumer: QueueConsumer::default() },
            consumer.clone(),
            vec![with(&consumer, "script", json!("w-other")), with(&consumer, "consumer_id", json!(null))],
        ),
        operation(
            Call::UpdateConsumer {
                worker: name(),
                queue_id: text(ID),
                id: text(ID),
                consumer: QueueConsumer::default(),
            },
            consumer.clone(),
            vec![with(&consumer, "script", json!("w-other")), with(&consumer, "consumer_id", json!(null))],
        ),
        missing(operation(Call::DeleteConsumer { queue_id: text(ID), id: text(ID) }, json!(null), Vec::new()), 10104),
        missing(
            operation(
                Call::ReadWorkflow { name: text("f") },
                workflow.clone(),
                vec![with(&workflow, "name", json!("g")), json!({"name": "f"})],
            ),
            10200,
        ),
        operation(
            Call::PutWorkflow {
                name: text("f"),
                workflow: OwnWorkflow(json!({"script_name": "w-acme", "class_name": "F"})),
            },
            workflow.clone(),
            vec![with(&workflow, "name", json!("g"))],
        ),
        missing(operation(Call::DeleteWorkflow { name: text("f") }, json!(null), Vec::new()), 10200),
        operation(
            Call::ListWorkflows { page: page() },
            json!([workflow]),
            vec![row_of("name"), json!([{"name": "f"}])],
        ),
    ]
}

fn envelope(result: &Value) -> Value {
    json!({"success": true, "errors": [], "messages": [], "result": result})
}

fn refusal(code: u64) -> Value {
    json!({"success": false, "errors": [{"code": code, "message": "no"}], "messages": [], "result": null})
}

#[track_caller]
fn is_unknown(what: &str, operation: &Operation, answered: &Result<Reply, CallError>) {
    assert!(matches!(answered, Err(CallError::Unavailable(_))), "{}: {what}: {answered:?}", operation.name());
}

const PAGE: &str = "<!DOCTYPE html><html><body>Hello</body></html>";

#[test]
fn an_answer_that_its_operation_does_not_document_proves_nothing() {
    let stub = Stub::start();
    for operation in operations() {
        let good = match operation.is_content() {
            true => stub.answers(&operation, 200, "application/javascript", "export default {}"),
            false => stub.json(&operation, 200, &envelope(&operation.result)),
        };
        assert!(good.is_ok(), "{}: {good:?}", operation.name());
        let is_list = operation.result.is_array();
        for result in [json!(null), json!(7), json!("text"), json!(true), json!([]), json!([null]), json!({})] {
            let is_fine = match &result {
                Value::Null => operation.or_nothing,
                // An empty list is a list; but each statement of a query has a result.
                Value::Array(rows) => {
                    rows.is_empty() && is_list && !matches!(operation.call, Call::QueryDatabase { .. })
                }
                // What is documented has no field that has to be there.
                Value::Object(_) => {
                    operation.or_nothing
                        || matches!(
                            operation.call,
                            Call::ReadSettings { .. } | Call::CreateNamespace | Call::SetTags { .. }
                        )
                        || matches!(operation.call, Call::ReadTags { .. } if operation.home.namespace.is_none())
                }
                _ => false,
            };
            // What these answer is documented nowhere.
            let is_fine = is_fine
                || matches!(
                    operation.call,
                    Call::Delete { .. }
                        | Call::DeleteDatabase { .. }
                        | Call::DeleteTail { .. }
                        | Call::DeleteConsumer { .. }
                        | Call::DeleteWorkflow { .. }
                );
            let answered = stub.json(&operation, 200, &envelope(&result));
            match is_fine {
                true => drop(answered.unwrap_or_else(|error| panic!("{}: {error:?}", operation.name()))),
                false => is_unknown(&format!("the result {result}"), &operation, &answered),
            }
        }
        for wrong in &operation.wrong {
            let answered = stub.json(&operation, 200, &envelope(wrong));
            is_unknown(&format!("the result {wrong}"), &operation, &answered);
        }
        for status in [301, 302, 307, 308] {
            let answered = stub.json(&operation, status, &envelope(&operation.result));
            is_unknown(&format!("{status} with success"), &operation, &answered);
        }
        for (status, body) in
            [(200, "{}"), (200, r#"{"success":"true","result":{}}"#), (404, r#"{"success":true,"result":null}"#)]
        {
            let answered = stub.answers(&operation, status, "application/json", body);
            is_unknown(&format!("{status} {body}"), &operation, &answered);
        }
        for (status, kind, body) in [
            (200, "text/html", PAGE),
            (408, "text/html", PAGE),
            (408, "application/json", r#"{"success":false,"errors":[{"code":1,"message":"late"}]}"#),
            (403, "text/html", PAGE),
            (404, "text/html", PAGE),
            (404, "text/plain", "404 page not found"),
            (502, "text/html", PAGE),
            (504, "application/json", r#"{"success":false,"errors":[]}"#),
        ] {
            is_unknown(&format!("{status} {body}"), &operation, &stub.answers(&operation, status, kind, body));
        }
    }
}

#[test]
fn a_deletion_by_tag_has_deleted_one_worker_or_none() {
    let stub = Stub::start();
    let operation = Operation {
        home: Home { account_id: ACCOUNT.to_owned(), namespace: Some("n".to_owned()) },
        call: Call::Delete { worker: "w-acme".to_owned(), tag: Some("worker-shop/w-acme".to_owned()) },
        result: Value::Null,
        or_nothing: false,
        wrong: Vec::new(),
        missing: None,
    };
    let deleted =
        |count: usize| json!({"deleted": vec![json!({"id": "w"}); count], "deleted_count": count, "has_more": false});
    assert_eq!(stub.json(&operation, 200, &deleted(1)), Ok(Reply::Done));
    assert_eq!(stub.json(&operation, 200, &deleted(0)), Ok(Reply::Nothing));
    for other in [deleted(2), json!({}), json!(null), json!([]), envelope(&Value::Null), json!({"deleted_count": 1})] {
        is_unknown(&other.to_string(), &operation, &stub.json(&operation, 200, &other));
    }
    is_unknown("307", &operation, &stub.json(&operation, 307, &deleted(1)));
    let refused = stub.json(&operation, 404, &refusal(100_119));
    assert!(matches!(refused, Err(CallError::Rejected { code: 100_119, .. })), "{refused:?}");
}

#[test]
fn a_404_is_believed_only_with_the_code_of_that_thing() {
    let stub = Stub::start();
    for operation in operations() {
        for code in [7000, 7003, 1000, 10007, 10009, 10013, 10092, 10104, 10200, 7404, 100_114, 100_119] {
            let answered = stub.json(&operation, 404, &refusal(code));
            let is_missing = match (operation.missing, operation.home.namespace.is_some()) {
                // The script of a namespace has the code of an account's worker, too, and is not there without its namespace.
                (Some(10092), true) => {
                    matches!(code, 10007 | 10092) || code == 100_119 && !matches!(operation.call, Call::Delete { .. })
                }
                (Some(10007), false) if !matches!(operation.call, Call::FindSubdomain) => matches!(code, 10007 | 10092),
                (missing, _) => missing == Some(code),
            };
            match answered {
                Ok(Reply::Done | Reply::Nothing) if is_missing => {}
                Err(CallError::Rejected { status: 404, code: given, .. }) if given == code && !is_missing => {}
                other => panic!("{}: 404 with code {code}: {other:?}", operation.name()),
            }
        }
    }
}
