//! Shows: requests of flotilla and answers to Cloudflare's OpenAPI document, trimmed to the operations in use (`openapi.json`; each
//! operation says in `x-source` where it is from).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

/// What wrangler uses and no document describes (checked against the trimmed document by [`operation`]).
const UNDOCUMENTED: &[(&str, &str)] = &[
    ("GET", "/memberships"),
    ("GET", "/accounts/*/tokens/verify"),
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

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../openapi.json")).expect("openapi.json is JSON"));
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
    for (methods, pattern) in flotilla::local::operations() {
        for method in methods.split(' ') {
            let path = format!("/{}", pattern.replace('*', "x"));
            operation(method, &path).unwrap();
        }
    }
}
