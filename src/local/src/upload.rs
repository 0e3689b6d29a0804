//! An upload: the form of modules and metadata, checked as Cloudflare checks it. Knows what is allowed in it; not where
//! it is stored.

use std::collections::HashSet;

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::envelope::Refusal;
use super::form::Part;
use super::limits::PlatformLimits;
use super::store::{Module, Store, Version};

/// The content types that a module may have (Cloudflare's TypeScript SDK 7.3.0, `workers/scripts`; wrangler's
/// create-worker-upload-form).
const TYPES: [&str; 10] = [
    "application/javascript+module",
    "text/javascript+module",
    "application/javascript",
    "text/javascript",
    "application/wasm",
    "application/octet-stream",
    "text/plain",
    "text/x-python",
    "text/x-python-requirement",
    "application/source-map",
];

/// The options of a version that are stored as they were sent.
const OPTIONS: [&str; 8] = [
    "compatibility_date",
    "compatibility_flags",
    "annotations",
    "limits",
    "placement",
    "usage_model",
    "cache_options",
    "exports",
];

/// The options that belong to the worker and not to a version.
pub const UNVERSIONED: [&str; 4] = ["tags", "logpush", "observability", "tail_consumers"];

/// A checked upload.
#[derive(Debug)]
pub struct Upload {
    /// The part `metadata`.
    pub metadata: Map<String, Value>,
    /// The entry module's name.
    pub main: String,
    /// The entry is a service-worker script.
    pub classic: bool,
    /// The modules, the entry first, with their bodies.
    pub modules: Vec<(Module, Bytes)>,
}

impl Upload {
    /// Reads and checks the parts of a form.
    ///
    /// # Errors
    /// 400 with the code of what is wrong; 413 (10027) when it is too large.
    pub fn read(parts: &[Part], store: &Store, limits: &PlatformLimits, today: &str) -> Result<Self, Refusal> {
        let metadata = object(parts, "metadata")?;
        let size: usize = parts.iter().filter(|part| part.name != "metadata").map(|part| part.body.len()).sum();
        if size > limits.script_bytes {
            return Err(Refusal::new(
                413,
                10027,
                format!("the Worker is {size} bytes and exceeds the limit of {} bytes", limits.script_bytes),
            ));
        }
        let (main, classic) = match (metadata.get("main_module"), metadata.get("body_part")) {
            (Some(Value::String(main)), None) => (main.clone(), false),
            (None, Some(Value::String(main))) => (main.clone(), true),
            // Static assets need no code.
            (None, None) if metadata.contains_key("assets") || metadata.contains_key("keep_assets") => {
                (String::new(), false)
            }
            (None, None) => return Err(Refusal::invalid("metadata must name the entry in main_module or body_part")),
            _ => return Err(Refusal::invalid("metadata must name one entry, as text, in main_module or body_part")),
        };
        let mut modules = Vec::with_capacity(parts.len() - 1);
        let mut names = HashSet::new();
        for part in parts.iter().filter(|part| part.name != "metadata") {
            modules.push((module(part, store)?, part.body.clone()));
            if !names.insert(&part.name) {
                return Err(Refusal::invalid(format!("there are two parts named {:?}", part.name)));
            }
        }
        match modules.iter().position(|(module, _)| module.name == main) {
            Some(entry) => modules[..=entry].rotate_right(1),
            None if main.is_empty() && modules.is_empty() => check_without_code(&metadata)?,
            None => {
                return Err(Refusal::invalid(format!("no such module {main:?}: the upload has no part of that name")));
            }
        }
        check_options(&metadata, limits, today)?;
        check_bindings(metadata.get("bindings"), limits)?;
        Ok(Self { metadata, main, classic, modules })
    }

    /// The version that this upload makes of a worker whose newest version is `previous`: secrets sealed, kept and
    /// inherited bindings copied.
    ///
    /// # Errors
    /// 400: 10057 when `strict` and an inherited binding isn't there, 10055 when there are too many variables.
    pub fn version(
        &self,
        store: &Store,
        limits: &PlatformLimits,
        keep_secrets: bool,
        previous: Option<&Version>,
        strict: bool,
    ) -> Result<Version, Refusal> {
        let sent = self.metadata.get("bindings").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut keep: Vec<&str> = self
            .metadata
            .get("keep_bindings")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if keep_secrets {
            keep.extend(["secret_text", "secret_key"]);
        }
        let had = previous.map_or(&[][..], |version| &version.bindings);
        Ok(Version {
            id: store.seal.uuid(),
            etag: etag(&self.modules),
            main: self.main.clone(),
            classic: self.classic,
            modules: self.modules.iter().map(|(module, _)| module.clone()).collect(),
            bindings: resolve(sent, &keep, had, store, limits, strict)?,
            options: OPTIONS
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), annotation_cut(self.metadata.get(*name)?.clone()))))
                .collect(),
            ..Version::default()
        })
    }
}

/// The bindings that hold after an upload: those sent, then those of a kept type that weren't sent.
///
/// # Errors
/// As [`Upload::version`].
pub fn resolve(
    sent: &[Value],
    keep: &[&str],
    had: &[Value],
    store: &Store,
    limits: &PlatformLimits,
    strict: bool,
) -> Result<Vec<Value>, Refusal> {
    let mut bindings = Vec::new();
    for binding in sent {
        if binding["type"] != "inherit" {
            bindings.push(sealed(binding.clone(), store));
            continue;
        }
        let source = binding.get("old_name").unwrap_or(&binding["name"]);
        match had.iter().find(|had| had["name"] == *source) {
            Some(found) => {
                let mut found = found.clone();
                found["name"] = binding["name"].clone();
                bindings.push(found);
            }
            None if strict => {
                return Err(Refusal::new(400, 10057, format!("there is no binding {source} to inherit")));
            }
            None => {}
        }
    }
    for binding in had {
        let kept = binding["type"].as_str().is_some_and(|kind| keep.contains(&kind));
        if kept && !bindings.iter().any(|sent| sent["name"] == binding["name"]) {
            bindings.push(binding.clone());
        }
    }
    check_count(&bindings, limits)?;
    Ok(bindings)
}

/// The binding with its secret sealed. Cloudflare never shows a secret again; here it must not even be stored in plain text.
#[must_use]
pub fn sealed(mut binding: Value, store: &Store) -> Value {
    if is_secret(&binding)
        && let Some(fields) = binding.as_object_mut()
    {
        for name in ["text", "key_base64", "key_jwk"] {
            if let Some(value) = fields.remove(name) {
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                fields.insert("sealed".to_owned(), store.seal.seal(&text).into());
            }
        }
    }
    binding
}

/// The bindings as the API shows them: without the values of secrets.
#[must_use]
pub fn shown(bindings: &[Value]) -> Vec<Value> {
    let mut bindings = bindings.to_vec();
    for fields in bindings.iter_mut().filter_map(Value::as_object_mut) {
        fields.remove("sealed");
    }
    bindings
}

/// The binding's type is one whose value is secret.
#[must_use]
pub fn is_secret(binding: &Value) -> bool {
    matches!(binding["type"].as_str(), Some("secret_text" | "secret_key"))
}

/// Refuses what a worker without code can't have.
fn check_without_code(metadata: &Map<String, Value>) -> Result<(), Refusal> {
    match metadata.get("bindings").and_then(Value::as_array).is_some_and(|bindings| !bindings.is_empty()) {
        true => Err(Refusal::invalid("a Worker that only has static assets can't have bindings")),
        false => Ok(()),
    }
}

/// A JSON object in the part `name`.
///
/// # Errors
/// 400 (10026) when it is missing or no JSON object.
pub fn object(parts: &[Part], name: &str) -> Result<Map<String, Value>, Refusal> {
    let part = parts.iter().find(|part| part.name == name);
    let part = part.ok_or_else(|| Refusal::unparseable(format!("the form has no part {name:?}")))?;
    serde_json::from_slice(&part.body).map_err(|error| Refusal::unparseable(format!("part {name:?}: {error}")))
}

/// Checks each binding by itself.
///
/// # Errors
/// 400: 10021, 10052, 10054 or 10055.
pub fn check_bindings(bindings: Option<&Value>, limits: &PlatformLimits) -> Result<(), Refusal> {
    let bindings = match bindings {
        None => return Ok(()),
        Some(Value::Array(bindings)) => bindings,
        Some(_) => return Err(Refusal::unparseable("bindings must be an array")),
    };
    let mut names = HashSet::new();
    for binding in bindings {
        let name = binding["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Refusal::new(400, 10052, "a binding must have a name"))?;
        if !names.insert(name) {
            return Err(Refusal::invalid(format!("there are two bindings named {name}")));
        }
        let kind = binding["type"].as_str().ok_or_else(|| Refusal::invalid(format!("binding {name} has no type")))?;
        let required: &[&str] = match kind {
            "plain_text" | "secret_text" => &["text"],
            "json" => &["json"],
            // `id` is the older name, which wrangler 4.164 still sends.
            "d1" => &["database_id", "id"],
            "kv_namespace" => &["namespace_id"],
            "service" => &["service"],
            "r2_bucket" => &["bucket_name"],
            "dispatch_namespace" | "ai_search_namespace" | "agent_memory" | "artifacts" => &["namespace"],
            "queue" => &["queue_name"],
            "workflow" => &["workflow_name"],
            "analytics_engine" => &["dataset"],
            "hyperdrive" => &["id"],
            "vectorize" => &["index_name"],
            "mtls_certificate" => &["certificate_id"],
            "secrets_store_secret" => &["store_id"],
            "ratelimit" => &["namespace_id"],
            "pipelines" => &["pipeline", "stream"],
            "ai_search" => &["instance_name"],
            "vpc_service" => &["service_id"],
            "vpc_network" => &["network_id", "tunnel_id"],
            "flagship" => &["app_id"],
            "k2" => &["stream"],
            _ => &[],
        };
        if !required.is_empty()
            && !required
                .iter()
                .any(|field| binding.get(*field).is_some_and(|value| kind == "json" || value.is_string()))
        {
            return Err(Refusal::invalid(format!("binding {name} of type {kind} must have {}", required.join(" or "))));
        }
        let size = match kind {
            "plain_text" | "secret_text" => binding["text"].as_str().map_or(0, str::len),
            "json" => binding["json"].to_string().len(),
            _ => 0,
        };
        if size > limits.var_bytes {
            let message = format!("binding {name} is {size} bytes, more than {}", limits.var_bytes);
            return Err(Refusal::new(400, 10054, message));
        }
    }
    check_count(bindings, limits)
}

fn check_count(bindings: &[Value], limits: &PlatformLimits) -> Result<(), Refusal> {
    let vars = bindings
        .iter()
        .filter(|binding| matches!(binding["type"].as_str(), Some("plain_text" | "json")) || is_secret(binding));
    let count = vars.count();
    if count > limits.vars {
        return Err(Refusal::new(400, 10055, format!("{count} variables and secrets, more than {}", limits.vars)));
    }
    Ok(())
}

/// Checks the options of metadata or settings.
///
/// # Errors
/// 400 (10021).
pub fn check_options(options: &Map<String, Value>, limits: &PlatformLimits, today: &str) -> Result<(), Refusal> {
    if let Some(date) = options.get("compatibility_date") {
        let date = date.as_str().filter(|date| is_date(date));
        let date = date.ok_or_else(|| Refusal::invalid("compatibility_date must have the form YYYY-MM-DD"))?;
        if date > today {
            return Err(Refusal::invalid(format!("compatibility_date {date} is in the future")));
        }
    }
    for name in ["compatibility_flags", "tags", "keep_bindings"] {
        let is_list = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
        if options.get(name).is_some_and(|value| !value.is_null() && !is_list(value)) {
            return Err(Refusal::invalid(format!("{name} must be an array of texts")));
        }
    }
    if let Some(Value::Array(tags)) = options.get("tags") {
        check_tags(tags, limits)?;
    }
    let annotation = options.get("annotations").and_then(|all| all["workers/tag"].as_str());
    if annotation.is_some_and(|tag| tag.len() > 100) {
        return Err(Refusal::invalid("the annotation workers/tag is longer than 100 bytes"));
    }
    Ok(())
}

/// Checks a worker's tags (Cloudflare docs, Workers for Platforms limits, 2026: at most 8, without `,` and `&`).
///
/// # Errors
/// 400 (10021).
pub fn check_tags(tags: &[Value], limits: &PlatformLimits) -> Result<(), Refusal> {
    if tags.len() > limits.tags {
        return Err(Refusal::invalid(format!("{} tags, more than {}", tags.len(), limits.tags)));
    }
    match tags.iter().filter_map(Value::as_str).find(|tag| tag.is_empty() || tag.contains([',', '&'])) {
        Some(tag) => Err(Refusal::invalid(format!("the tag {tag:?} is empty or has a comma or an ampersand"))),
        None => Ok(()),
    }
}

fn module(part: &Part, store: &Store) -> Result<Module, Refusal> {
    let kind = part.content_type.as_deref().unwrap_or("text/plain").to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    if !TYPES.contains(&kind.as_str()) {
        return Err(Refusal::invalid(format!(
            "part {:?} has the content type {kind:?}, which no module has",
            part.name
        )));
    }
    if part.name.is_empty() || part.name.chars().any(char::is_control) {
        return Err(Refusal::invalid(format!("{:?} can't be a module's name", part.name)));
    }
    Ok(Module { name: part.name.clone(), content_type: kind, hash: store.hash(&part.body), size: part.body.len() })
}

/// The hash of all modules with their names and types.
fn etag(modules: &[(Module, Bytes)]) -> String {
    let named: Vec<Value> =
        modules.iter().map(|(module, _)| json!([module.name, module.content_type, module.hash])).collect();
    super::seal::digest(Value::Array(named).to_string().as_bytes())
}

/// Cuts `workers/message` to 1,000 bytes, as Cloudflare does (SDK 7.3.0).
fn annotation_cut(mut option: Value) -> Value {
    if let Some(Value::String(message)) = option.get_mut("workers/message") {
        let end = (0..=message.len().min(1000)).rev().find(|index| message.is_char_boundary(*index));
        message.truncate(end.unwrap_or(0));
    }
    option
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expect) in [
            ("2026-06-01", true),
            ("2026-6-1", false),
            ("2026-13-01", false),
            ("20260601ab", false),
            ("2026-06-0é", false),
        ] {
            assert_eq!(is_date(text), expect, "{text}");
        }
    }

    #[test]
    fn each_wrong_binding_has_its_code() {
        let limits = PlatformLimits { vars: 2, var_bytes: 4, ..PlatformLimits::default() };
        for (bindings, code) in [
            (json!([{"type": "plain_text", "text": "a"}]), 10052),
            (json!([{"type": "plain_text", "text": "12345", "name": "A"}]), 10054),
            (json!([{"type": "plain_text", "name": "A"}]), 10021),
            (json!([{"type": "d1", "name": "A"}]), 10021),
            (json!([{"name": "A"}]), 10021),
            (json!([{"name": "A", "type": "ai"}, {"name": "A", "type": "ai"}]), 10021),
            (json!({"name": "A"}), 10026),
            (json!([1, 2, 3].map(|n| json!({"name": format!("V{n}"), "type": "json", "json": n}))), 10055),
        ] {
            assert_eq!(check_bindings(Some(&bindings), &limits).unwrap_err().code, code, "{bindings}");
        }
        assert!(
            check_bindings(
                Some(&json!([{"name": "A", "type": "d1", "id": "x"}, {"name": "N", "type": "json", "json": null}])),
                &limits
            )
            .is_ok()
        );
    }
}
