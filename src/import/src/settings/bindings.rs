//! The bindings of a worker as a spec has them: its database, its bindings, the workers it calls. The kinds are `binding`'s.

use serde_json::{Value, json};

use flotilla_model::binding::{self, Binding};
use flotilla_model::spec::QueueConsumer;

use super::super::forms::{fits, is_database_name, is_queue_name, is_uuid, is_variable};
use super::super::wrangler::{entries, items, text};
use super::Mapping;
use flotilla_spec::yaml::Node;

/// Fields of bindings that are for `wrangler dev` and for wrangler's own commands.
const LOCAL_FIELDS: [&str; 12] = [
    "local_dev",
    "preview_id",
    "preview_bucket_name",
    "preview_database_id",
    "remote",
    "experimental_remote",
    "migrations_dir",
    "migrations_table",
    "migrations_pattern",
    "database_internal_env",
    "localConnectionString",
    "local_connection_string",
];

/// Fields of bindings that change what is deployed, and that specs can't express.
const LOST_FIELDS: [&str; 7] =
    ["concurrency", "default_retention", "environment", "limits", "outbound", "schedules", "staging"];

impl Mapping<'_, '_> {
    /// Maps the database that a spec has under `database`: D1, bound as `DB`. All others are bindings.
    pub(super) fn databases(&mut self) {
        for item in items(self.config.get("d1_databases")) {
            let field = |name: &str| item.get(name).and_then(text);
            let (name, id) = (field("database_name"), field("database_id"));
            let fits = name.is_some_and(is_database_name) && id.is_none_or(is_uuid);
            if field("binding") != Some("DB") || !fits || self.into.settings.contains_key("database") {
                continue;
            }
            let mut database = json!({"type": "d1", "name": name});
            if let Some(id) = id {
                database["id"] = id.into();
            }
            self.set("database", database);
        }
    }

    pub(super) fn bindings(&mut self, kind: &'static binding::Kind) {
        let config = self.config;
        let mut steps = kind.wrangler.split('.');
        let section = steps.next().unwrap_or_default();
        let Some(node) = steps.try_fold(config.get(section), |node, step| Some(node?.get(step))).flatten() else {
            return;
        };
        let single = [node.clone()];
        let all = if kind.is_single { &single } else { items(Some(node)) };
        for item in all {
            let place = self.at(item);
            let name = item.get(kind.name).and_then(text).unwrap_or_default().to_owned();
            let is_database = kind.wrangler == "d1_databases"
                && name == "DB"
                && self.into.settings.get("database").is_some_and(|database| database["type"] == "d1");
            if is_database {
                continue;
            }
            let mut entry = self.without_ignored(kind, &name, item);
            // A class of the worker's own belongs to its code: the pack has it from this configuration.
            let script = entry["script_name"].as_str().map(str::to_owned);
            if script.is_none() || script == config.name() {
                match kind.key() {
                    binding::DURABLE_OBJECT => continue,
                    binding::WORKFLOW => _ = entry.as_object_mut().and_then(|entry| entry.remove("script_name")),
                    _ => {}
                }
            }
            // wrangler calls a dataset after its binding, unless told otherwise.
            if kind.key() == "analyticsEngine" && entry["dataset"].is_null() {
                entry["dataset"] = name.clone().into();
            }
            match Binding::of_wrangler(kind.wrangler, &entry) {
                Some((name, binding)) if is_variable(&name) && fits(&binding) => {
                    let calls = kind.wrangler == "services" && binding.0.len() == 1;
                    match binding.text(binding::WORKER).filter(|_| calls) {
                        Some(worker) => _ = self.into.calls.insert(name, (worker.to_owned(), place)),
                        None => self.entry("bindings", &name, Value::Object(binding.0)),
                    }
                }
                _ => {
                    let (message, help) = unread(kind, &name, &entry);
                    self.lost(place, &name, message, help);
                }
            }
        }
    }

    /// Returns an entry without the fields that are for `wrangler dev`, and those that wrangler ignores.
    fn without_ignored(&mut self, kind: &binding::Kind, name: &str, item: &Node) -> Value {
        let mut entry = item.to_value();
        let Some(map) = entry.as_object_mut() else { return entry };
        // The location of a database is decided when it is created.
        let is_local =
            |key: &str| LOCAL_FIELDS.contains(&key) || (kind.wrangler == "d1_databases" && key == "jurisdiction");
        map.retain(|key, _| !is_local(key));
        let known = known_fields(kind);
        for (key, span, _) in entries(Some(item)) {
            if is_local(key) || known.contains(&key.as_str()) || LOST_FIELDS.contains(&key.as_str()) {
                continue;
            }
            map.remove(key);
            let place = self.config.document.place(*span);
            let message = match key.as_str() {
                "delivery_delay" => {
                    format!("`{key}` of the binding `{name}` has no effect: it is a setting of the queue")
                }
                _ => format!("`{key}` of the binding `{name}` is not a field of wrangler's `{}`", kind.wrangler),
            };
            self.findings.note(place, message, "wrangler ignores it, and so does flotilla");
        }
        entry
    }

    /// Maps rate limits under `unsafe`, where they were before they had a key of their own.
    pub(super) fn unsafe_limits(&mut self) {
        let bindings = self.config.get("unsafe").and_then(|node| node.get("bindings"));
        for item in items(bindings).iter().filter(|item| item.get("type").and_then(text) == Some("ratelimit")) {
            let mut entry = item.to_value();
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("type");
            }
            match Binding::of_wrangler("ratelimits", &entry) {
                Some((name, binding)) if is_variable(&name) && fits(&binding) => {
                    self.entry("bindings", &name, Value::Object(binding.0));
                }
                _ => {
                    let name = item.get("name").and_then(text).unwrap_or_default().to_owned();
                    let message = format!("the rate limit `{name}` (`unsafe.bindings`) can't be expressed in a spec");
                    self.lost(
                        self.at(item),
                        &name,
                        message,
                        "it needs `namespace_id` and `simple` with `limit` and `period`",
                    );
                }
            }
        }
    }

    pub(super) fn queue_consumers(&mut self) {
        for item in items(self.config.get("queues").and_then(|node| node.get("consumers"))) {
            let queue = item.get("queue").and_then(text).unwrap_or_default();
            if !is_queue_name(queue) {
                let message = format!("the consumer of the queue `{queue}` isn't one that a spec can have");
                let help = "check the name: placeholders such as `<queue name>` have to be replaced";
                self.lost(self.at(item), "queues.consumers", message, help);
                continue;
            }
            if let Some((queue, consumer)) = QueueConsumer::of_wrangler(&item.to_value()) {
                self.entry("queueConsumers", &queue, json!(consumer));
                continue;
            }
            let help = "`queueConsumers` in a spec has the settings that Cloudflare documents; remove the others";
            let message = format!("the consumer of the queue `{queue}` has settings without a counterpart in a spec");
            self.lost(self.at(item), "queues.consumers", message, help);
        }
    }
}

/// Returns the fields of an entry that specs can express.
fn known_fields(kind: &binding::Kind) -> Vec<&'static str> {
    let kinds = binding::KINDS.iter().filter(|other| other.wrangler == kind.wrangler);
    let fields = kinds.flat_map(|kind| kind.fields).map(|own| own.wrangler.split('.').next().unwrap_or_default());
    fields.chain([kind.name]).collect()
}

/// Returns why an entry isn't a binding that a spec can have.
fn unread(kind: &binding::Kind, name: &str, entry: &Value) -> (String, String) {
    let what = kind.wrangler;
    let known = known_fields(kind);
    let more: Vec<&String> = entry
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .filter(|key| !known.contains(&key.as_str()))
        .collect();
    if let Some(key) = more.first() {
        let message = format!("`{key}` of the binding `{name}` (`{what}`) has no counterpart in a spec");
        return (message, "keep deploying this worker with `wrangler deploy`, or do without it".to_owned());
    }
    if !is_variable(name) {
        let message = format!("the name of the binding `{name}` (`{what}`) is not valid in a spec");
        return (message, "use letters, digits and `_`: rename it in the code and here".to_owned());
    }
    let missing = kind.fields.iter().find(|own| {
        own.is_required
            && !own.wrangler.is_empty()
            && entry.pointer(&format!("/{}", own.wrangler.replace('.', "/"))).is_none()
    });
    match missing {
        Some(own) => (
            format!("the binding `{name}` (`{what}`) has no `{}`", own.wrangler),
            format!(
                "wrangler finds or creates it when it deploys; look it up at Cloudflare and add it to the spec: `bindings: {{ {name}: {{ {}: … }} }}`",
                kind.key()
            ),
        ),
        None => (
            format!("the binding `{name}` (`{what}`) can't be expressed in a spec"),
            "check its ids: placeholders such as `<your-id>` have to be replaced".to_owned(),
        ),
    }
}
