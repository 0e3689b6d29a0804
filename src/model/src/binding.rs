//! The kinds of bindings other than variables, secrets and the database: one table, from which the schema, the upload and wrangler's
//! configuration follow, in both directions. Knows no worker, and not which names are free. Half of the file is the table.
//!
//! Sources: Cloudflare's API, Workers › Scripts › Upload Worker Module, `metadata.bindings`; wrangler 4.164, its config-schema.json and
//! create-worker-upload-form. Anything that only one of the two can express is left out.

use std::collections::BTreeMap;

use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A binding as it is written: its kind with the resource that it points to, and the kind's other fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Binding(pub Map<String, Value>);

/// A workflow of a worker's own, as the platform has it: its class and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnWorkflow(pub Value);

impl Ord for OwnWorkflow {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl PartialOrd for OwnWorkflow {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A kind of binding.
#[derive(Debug)]
pub struct Kind {
    /// Its fields as specs write them. The first one is the kind's own key.
    pub fields: &'static [Field],
    /// The `type` in Cloudflare's API.
    pub api: &'static str,
    /// The key in wrangler's configuration: `queues.producers`.
    pub wrangler: &'static str,
    /// The key of the binding's name there.
    pub name: &'static str,
    /// Whether a worker can have only one: wrangler has no list there.
    pub is_single: bool,
}

/// A field of a binding.
#[derive(Debug)]
pub struct Field {
    /// Its key in specs.
    pub key: &'static str,
    /// Its name in the API, with dots between what is nested. Empty: it isn't uploaded.
    pub api: &'static str,
    /// Its name in wrangler's configuration, likewise.
    pub wrangler: &'static str,
    /// The form of its value.
    pub form: Form,
    /// Whether it is required.
    pub is_required: bool,
    /// Its meaning, for the schema.
    pub about: &'static str,
}

/// The form of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true`: it shows the kind, and nothing else.
    True,
    /// Text.
    Text,
    /// Text that matches.
    Pattern(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A whole number from 1.
    Count,
    /// A duration: a number of milliseconds, or text such as `3 days`.
    Duration,
    /// Keys and values of any form.
    Object,
}

/// The ids of KV namespaces and Hyperdrive configurations.
pub const ID: &str = "^[0-9a-f]{32}$";
/// The ids of D1 databases and others.
pub const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
/// The ids and the names of D1 databases.
pub const D1_REFERENCE: &str = "^([a-z0-9]|\\{(customer|environment)\\})([a-z0-9_-]|\\{(customer|environment)\\})*$";
/// The key of a D1 database's name: in canonical metadata, where its id isn't known, and in wrangler's configuration.
pub const DATABASE_NAME: &str = "database_name";
/// The pattern of a binding's name: a name of JavaScript.
pub const NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// The key of D1 databases.
pub const D1: &str = "d1";
/// The key of queues that are sent to.
pub const QUEUE: &str = "queue";
/// The key of a KV namespace.
pub const KV: &str = "kv";
/// The key of Durable Object classes.
pub const DURABLE_OBJECT: &str = "durableObject";
/// The key of workflows.
pub const WORKFLOW: &str = "workflow";
/// The key of workers that are called, and of those that have a class.
pub const WORKER: &str = "worker";

const fn own(key: &'static str, api: &'static str, wrangler: &'static str, form: Form, about: &'static str) -> Field {
    Field { key, api, wrangler, form, is_required: true, about }
}

/// A field that the API and wrangler call the same.
const fn same(key: &'static str, name: &'static str, form: Form, about: &'static str) -> Field {
    own(key, name, name, form, about)
}

/// A field that can be left out.
const fn optional(field: Field) -> Field {
    Field { is_required: false, ..field }
}

const fn more(key: &'static str, name: &'static str, form: Form, about: &'static str) -> Field {
    optional(same(key, name, form, about))
}

/// A setting of a workflow of the worker's own, which isn't part of the binding at the platform.
const fn of_workflow(key: &'static str, wrangler: &'static str, form: Form, about: &'static str) -> Field {
    optional(own(key, "", wrangler, form, about))
}

const fn several(fields: &'static [Field], api: &'static str, wrangler: &'static str) -> Kind {
    Kind { fields, api, wrangler, name: "binding", is_single: false }
}

const fn single(fields: &'static [Field], api: &'static str, wrangler: &'static str) -> Kind {
    Kind { fields, api, wrangler, name: "binding", is_single: true }
}

const fn named(fields: &'static [Field], api: &'static str, wrangler: &'static str) -> Kind {
    Kind { fields, api, wrangler, name: "name", is_single: false }
}

use Form::{Count, Duration, Object, OneOf, Pattern, Text, Texts, True};

/// Every kind.
pub const KINDS: &[Kind] = &[
    several(&[own(KV, "namespace_id", "id", Pattern(ID), "A KV namespace, by id.")], "kv_namespace", "kv_namespaces"),
    several(
        &[
            same("r2", "bucket_name", Text, "An R2 bucket, by name."),
            more("jurisdiction", "jurisdiction", OneOf(&JURISDICTIONS), ABOUT_JURISDICTION),
        ],
        "r2_bucket",
        "r2_buckets",
    ),
    several(
        &[
            same(
                D1,
                "database_id",
                Pattern(D1_REFERENCE),
                "A D1 database in addition to `database`, by id; or by name: it is created unless it exists, and `{customer}` and `{environment}` are \
                 replaced.",
            ),
            optional(own(
                "name",
                "",
                "database_name",
                Text,
                "d1: the name of a database that is given by id, which wrangler shows.",
            )),
        ],
        "d1",
        "d1_databases",
    ),
    several(
        &[own(
            QUEUE,
            "queue_name",
            "queue",
            Text,
            "A queue that the worker sends to, by name. `{customer}` and `{environment}` are replaced.",
        )],
        "queue",
        "queues.producers",
    ),
    named(
        &[
            same("durableObject", "class_name", Text, "A Durable Object class, by class name."),
            more(WORKER, "script_name", Text, ABOUT_WORKER),
        ],
        "durable_object_namespace",
        "durable_objects.bindings",
    ),
    several(
        &[
            own(
                WORKFLOW,
                "workflow_name",
                "name",
                Text,
                "A workflow, by name. In the name of the worker's own workflow, `{customer}` and `{environment}` are replaced.",
            ),
            same("class", "class_name", Text, "workflow: the class of the workflow."),
            more(WORKER, "script_name", Text, ABOUT_WORKER),
            of_workflow("steps", "limits.steps", Count, "workflow: the maximum number of steps of an instance."),
            of_workflow(
                "concurrency",
                "concurrency.limit",
                Count,
                "workflow: the maximum number of instances that run at the same time.",
            ),
            of_workflow("schedules", "schedules", Texts, "workflow: cron schedules that start instances."),
            of_workflow(
                "successRetention",
                "default_retention.success_retention",
                Duration,
                "workflow: how long instances that succeeded are kept.",
            ),
            of_workflow(
                "errorRetention",
                "default_retention.error_retention",
                Duration,
                "workflow: how long instances that failed are kept.",
            ),
            of_workflow("jurisdiction", "jurisdiction", OneOf(&JURISDICTIONS), ABOUT_JURISDICTION),
        ],
        "workflow",
        "workflows",
    ),
    several(
        &[
            same(WORKER, "service", Text, ABOUT_WORKER),
            more(
                "entrypoint",
                "entrypoint",
                Text,
                "worker: the entrypoint that is called. Default: the default export.",
            ),
            more("props", "props", Object, "worker: what the called worker finds in `ctx.props`."),
        ],
        "service",
        "services",
    ),
    several(
        &[same("analyticsEngine", "dataset", Text, "An Analytics Engine dataset, by name.")],
        "analytics_engine",
        "analytics_engine_datasets",
    ),
    several(&[same("hyperdrive", "id", Pattern(ID), "A Hyperdrive configuration, by id.")], "hyperdrive", "hyperdrive"),
    several(&[same("vectorize", "index_name", Text, "A Vectorize index, by name.")], "vectorize", "vectorize"),
    several(
        &[same("mtlsCertificate", "certificate_id", Pattern(UUID), "A client certificate, by id.")],
        "mtls_certificate",
        "mtls_certificates",
    ),
    several(
        &[
            same("dispatchNamespace", "namespace", Text, "A dispatch namespace, by name."),
            optional(own(
                "outbound",
                "outbound.worker.service",
                "outbound.service",
                Text,
                "dispatchNamespace: the outbound worker, which receives the requests of its workers.",
            )),
        ],
        "dispatch_namespace",
        "dispatch_namespaces",
    ),
    several(
        &[
            same("secretsStore", "store_id", Pattern(ID), "A Secrets Store, by id."),
            same("secret", "secret_name", Text, "secretsStore: the name of the secret in the store."),
        ],
        "secrets_store_secret",
        "secrets_store_secrets",
    ),
    named(
        &[
            same("sendEmail", "", True, "Email sending: `true`."),
            more(
                "destinationAddress",
                "destination_address",
                Text,
                "sendEmail: the only address that email can be sent to.",
            ),
            more(
                "allowedDestinationAddresses",
                "allowed_destination_addresses",
                Texts,
                "sendEmail: the addresses that email can be sent to.",
            ),
            more(
                "allowedSenderAddresses",
                "allowed_sender_addresses",
                Texts,
                "sendEmail: the addresses that email can be sent from.",
            ),
        ],
        "send_email",
        "send_email",
    ),
    named(
        &[
            same(
                "rateLimit",
                "namespace_id",
                Pattern("^[0-9]+$"),
                "A rate limit; a number in quotes that identifies it in the account.",
            ),
            same("limit", "simple.limit", Count, "rateLimit: the number of calls per period."),
            same("period", "simple.period", Count, "rateLimit: the period in seconds, 10 or 60."),
        ],
        "ratelimit",
        "ratelimits",
    ),
    several(
        &[same("pipeline", "pipeline", Text, "A pipeline that the worker sends to, by name.")],
        "pipelines",
        "pipelines",
    ),
    several(
        &[same("pipelineStream", "stream", Text, "The stream of a pipeline that the worker sends to, by id.")],
        "pipelines",
        "pipelines",
    ),
    several(&[same("k2", "stream", Text, "A K2 stream, by name.")], "k2", "k2"),
    several(&[same("aiSearch", "instance_name", Text, "An AI Search instance, by name.")], "ai_search", "ai_search"),
    several(
        &[same("aiSearchNamespace", "namespace", Text, "A namespace of AI Search instances, by name.")],
        "ai_search_namespace",
        "ai_search_namespaces",
    ),
    several(
        &[same("agentMemory", "namespace", Text, "A namespace of agents' memory, by name.")],
        "agent_memory",
        "agent_memory",
    ),
    several(&[same("artifacts", "namespace", Text, "A namespace of artifacts, by name.")], "artifacts", "artifacts"),
    several(&[same("flagship", "app_id", Text, "A Flagship app, by id.")], "flagship", "flagship"),
    several(&[same("vpcService", "service_id", Text, "A VPC service, by id.")], "vpc_service", "vpc_services"),
    several(&[same("vpcNetwork", "network_id", Text, "A VPC network, by id.")], "vpc_network", "vpc_networks"),
    several(
        &[same("vpcTunnel", "tunnel_id", Text, "The private network behind a Cloudflare Tunnel, by the tunnel's id.")],
        "vpc_network",
        "vpc_networks",
    ),
    several(
        &[same("workerLoader", "", True, "A worker loader, which starts workers from code at run time: `true`.")],
        "worker_loader",
        "worker_loaders",
    ),
    single(&[same("ai", "", True, "Workers AI: `true`.")], "ai", "ai"),
    single(&[same("browser", "", True, "Browser Rendering: `true`.")], "browser", "browser"),
    single(&[same("images", "", True, "Cloudflare Images: `true`.")], "images", "images"),
    single(&[same("stream", "", True, "Cloudflare Stream: `true`.")], "stream", "stream"),
    single(&[same("media", "", True, "Media Transformations: `true`.")], "media", "media"),
    single(
        &[same("versionMetadata", "", True, "The id and tag of the worker's version: `true`.")],
        "version_metadata",
        "version_metadata",
    ),
];

const ABOUT_WORKER: &str = "A worker outside the fleet that this worker calls, by name; with `durableObject` and `workflow`, the worker \
                            that defines the class, which is this one by default.";
const ABOUT_JURISDICTION: &str = "r2, workflow: the jurisdiction of the bucket, or of the worker's own workflow.";
const JURISDICTIONS: [&str; 4] = ["eu", "fedramp", "fedramp-high", "us"];

impl Kind {
    /// Returns its key in specs.
    pub fn key(&self) -> &'static str {
        self.fields[0].key
    }

    /// Returns the kind of a map with these keys.
    pub fn of<'k>(keys: impl Iterator<Item = &'k str> + Clone) -> Option<&'static Kind> {
        // `worker` is a kind and a field of others, which come first.
        KINDS.iter().find(|kind| keys.clone().any(|key| key == kind.key()))
    }
}

impl Binding {
    /// Returns its kind.
    pub fn kind(&self) -> Option<&'static Kind> {
        Kind::of(self.0.keys().map(String::as_str))
    }

    /// Returns a field's text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Returns the name of the D1 database that it binds by name.
    pub fn database_name(&self) -> Option<&str> {
        self.text(D1).filter(|text| !is_uuid(text))
    }

    /// Returns the class of the worker's own that it binds, if it binds a Durable Object class; `worker` is the worker's name.
    pub fn own_class(&self, worker: &str) -> Option<&str> {
        self.text(DURABLE_OBJECT).filter(|_| self.text(WORKER).is_none_or(|other| other == worker))
    }

    /// Returns the workflow of the worker's own that it binds, if it binds one: its name, and the body of the request that deploys it.
    pub fn own_workflow(&self, worker: &str) -> Option<(String, OwnWorkflow)> {
        let name = self.text(WORKFLOW).filter(|_| self.text(WORKER).is_none_or(|other| other == worker))?;
        let mut body = json!({"script_name": worker, "class_name": self.text("class")});
        let fields = self.kind().map_or(&[][..], |kind| kind.fields);
        for field in fields.iter().filter(|field| field.api.is_empty()) {
            let Some(value) = self.0.get(field.key) else { continue };
            let place = field.wrangler.split('.').fold(&mut body, |at, step| &mut at[step]);
            *place = match (field.key, value) {
                ("schedules", Value::Array(crons)) => crons.iter().map(|cron| json!({ "cron": cron })).collect(),
                _ => value.clone(),
            };
        }
        Some((name.to_owned(), OwnWorkflow(body)))
    }

    /// Returns the binding as it is uploaded under a name.
    pub fn upload(&self, name: &str) -> Value {
        let mut entry = json!({"type": self.kind().map(|kind| kind.api), "name": name});
        self.fields(|field| field.api, &mut entry);
        if let Some(database) = self.database_name() {
            entry = json!({"type": entry["type"], "name": name, DATABASE_NAME: database});
        }
        entry
    }

    /// Returns a binding from an entry of the API: `None` for kinds and fields that the table doesn't have.
    pub fn of_upload(entry: &Value) -> Option<Binding> {
        let mut fields = entry.clone();
        let object = fields.as_object_mut()?;
        object.remove("type");
        object.remove("name");
        // The older name of the same id, which wrangler sends.
        if entry["type"] == "d1"
            && let Some(id) = object.remove("id")
        {
            object.entry("database_id").or_insert(id);
        }
        // Some kinds have the same type, and differ in what they name.
        let mut kinds = KINDS.iter().filter(|kind| entry["type"] == kind.api);
        kinds.find_map(|kind| kind.read(fields.clone(), |field| field.api))
    }

    /// Returns a binding from an entry of wrangler's configuration, with its name; `section` is the entry's key:
    /// `queues.producers`. `None` for what the table doesn't have.
    pub fn of_wrangler(section: &str, entry: &Value) -> Option<(String, Binding)> {
        let mut kinds = KINDS.iter().filter(|kind| kind.wrangler == section);
        kinds.find_map(|kind| {
            let mut entry = entry.clone();
            let name = entry.as_object_mut()?.remove(kind.name)?.as_str()?.to_owned();
            if kind.key() == D1 {
                match entry.get("database_id").and_then(Value::as_str) {
                    Some(id) if !is_uuid(id) => return None,
                    Some(_) => {}
                    // wrangler finds or creates the one of this name.
                    None => _ = entry.as_object_mut()?.remove(DATABASE_NAME).map(|name| entry["database_id"] = name),
                }
            }
            Some((name, kind.read(entry, |field| field.wrangler)?))
        })
    }

    fn fields(&self, called: impl Fn(&Field) -> &'static str, entry: &mut Value) {
        for field in self.kind().map_or(&[][..], |kind| kind.fields) {
            let (path, Some(value)) = (called(field), self.0.get(field.key)) else { continue };
            if !path.is_empty() {
                let place = path.split('.').fold(&mut *entry, |at, step| &mut at[step]);
                *place = value.clone();
            }
        }
    }
}

impl Kind {
    /// Takes the fields out of an entry; nothing else may be left in it.
    fn read(&self, mut entry: Value, called: impl Fn(&Field) -> &'static str) -> Option<Binding> {
        let mut binding = Map::new();
        for field in self.fields {
            let path = called(field);
            let value = match path.rsplit_once('.') {
                _ if path.is_empty() => (field.form == Form::True).then_some(Value::Bool(true)),
                None => entry.as_object_mut()?.remove(path),
                Some((above, last)) => above
                    .split('.')
                    .try_fold(&mut entry, |at, step| at.get_mut(step))
                    .and_then(Value::as_object_mut)
                    .and_then(|above| above.remove(last)),
            };
            match value.filter(|value| !value.is_null()) {
                // wrangler takes a single one as a text, too.
                Some(Value::String(text)) if field.form == Form::Texts => {
                    _ = binding.insert(field.key.to_owned(), json!([text]));
                }
                Some(value) => _ = binding.insert(field.key.to_owned(), value),
                None if field.is_required => return None,
                None => {}
            }
        }
        is_bare(&entry).then_some(Binding(binding))
    }
}

/// Returns whether a text is the id of a D1 database.
fn is_uuid(text: &str) -> bool {
    is_like_uuid(text) && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

/// Returns whether a text has the digits and hyphens of an id, whatever their number: then it isn't meant to be a name.
pub fn is_like_uuid(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() > 30 && text.bytes().all(|byte| is_hex(byte) || byte == b'-')
}

/// Returns whether a value is empty.
fn is_bare(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_bare),
        _ => false,
    }
}

/// Bindings as wrangler's configuration has them: its keys, each with a list of entries or the only one.
pub fn wrangler<'b>(bindings: impl IntoIterator<Item = (&'b String, &'b Binding)>) -> BTreeMap<&'static str, Value> {
    let mut configuration: BTreeMap<&'static str, Value> = BTreeMap::new();
    for (name, binding) in bindings {
        let Some(kind) = binding.kind() else { continue };
        let mut entry = json!({kind.name: name});
        binding.fields(|field| field.wrangler, &mut entry);
        if let Some(database) = binding.database_name() {
            entry = json!({kind.name: name, DATABASE_NAME: database});
        }
        let (first, rest) = kind.wrangler.split_once('.').unwrap_or((kind.wrangler, ""));
        let mut place = configuration.entry(first).or_default();
        if !rest.is_empty() {
            place = &mut place[rest];
        }
        match place {
            Value::Array(entries) => entries.push(entry),
            place if kind.is_single => *place = entry,
            place => *place = json!([entry]),
        }
    }
    configuration
}

impl JsonSchema for Binding {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Binding".into()
    }

    // Flat: one map with all fields, and for each kind which of them it takes. So an error is reported as what it is.
    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        let mut properties = Map::new();
        for field in KINDS.iter().flat_map(|kind| kind.fields) {
            let mut schema = match field.form {
                Form::True => json!({"type": "boolean", "const": true}),
                Form::Text => json!({"type": "string", "minLength": 1}),
                Form::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
                Form::OneOf(options) => json!({"type": "string", "enum": options}),
                Form::Texts => json!({"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}),
                Form::Count => json!({"type": "integer", "minimum": 1}),
                Form::Duration => json!({"type": ["string", "integer"], "minLength": 1, "minimum": 1}),
                Form::Object => json!({"type": "object", "minProperties": 1}),
            };
            schema["description"] = field.about.into();
            properties.insert(field.key.to_owned(), schema);
        }
        let others = |kind: &Kind| -> Vec<Value> {
            let with = KINDS.iter().filter(|other| other.key() != kind.key());
            with.filter(|other| other.fields.iter().any(|field| field.key == kind.key()))
                .map(|other| json!({"required": [other.key()]}))
                .collect()
        };
        let is = |kind: &Kind| match others(kind) {
            others if others.is_empty() => json!({"required": [kind.key()]}),
            others => json!({"required": [kind.key()], "not": {"anyOf": others}}),
        };
        let takes: Vec<Value> = KINDS
            .iter()
            .map(|kind| {
                let keys: Vec<&str> = kind.fields.iter().map(|field| field.key).collect();
                let required = kind.fields.iter().filter(|field| field.is_required).map(|field| field.key);
                json!({"if": is(kind), "then": {
                    "propertyNames": {"enum": keys}, "required": required.collect::<Vec<_>>()}})
            })
            .collect();
        schemars::json_schema!({
            "description": "A binding: exactly one kind, and the fields of that kind.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
            "oneOf": KINDS.iter().map(is).collect::<Vec<_>>(),
            "allOf": takes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: &Kind) -> Binding {
        let value = |form| match form {
            Form::True => json!(true),
            Form::Pattern(ID) => json!("0f3f6a109a4e4c518f5c2b7d1d2f9a01"),
            Form::Pattern(UUID | D1_REFERENCE) => json!("0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01"),
            Form::Pattern(_) => json!("1001"),
            Form::OneOf(options) => json!(options[0]),
            Form::Text => json!("a-name"),
            Form::Texts => json!(["a@example.com"]),
            Form::Count => json!(10),
            Form::Duration => json!("3 days"),
            Form::Object => json!({"tenant": "acme"}),
        };
        Binding(kind.fields.iter().map(|field| (field.key.to_owned(), value(field.form))).collect())
    }

    #[test]
    fn every_kind_goes_there_and_back() {
        for kind in KINDS {
            let binding = sample(kind);
            assert_eq!(binding.kind().map(Kind::key), Some(kind.key()));
            let upload = binding.upload("B");
            assert_eq!((&upload["type"], &upload["name"]), (&json!(kind.api), &json!("B")));
            // What isn't uploaded can't come back.
            let mut known = binding.clone();
            for field in kind.fields.iter().filter(|field| field.api.is_empty() && field.form != Form::True) {
                known.0.remove(field.key);
            }
            assert_eq!(Binding::of_upload(&upload).as_ref(), Some(&known));
            let name = "B".to_owned();
            let configuration = wrangler([(&name, &binding)]);
            let (key, mut entry) = configuration.into_iter().next().unwrap();
            if let Some((_, rest)) = kind.wrangler.split_once('.') {
                entry = entry[rest].take();
            }
            assert_eq!(key, kind.wrangler.split('.').next().unwrap());
            let entry = if kind.is_single { entry } else { entry[0].take() };
            assert_eq!(Binding::of_wrangler(kind.wrangler, &entry), Some((name, binding)));
        }
    }

    #[test]
    fn what_the_table_does_not_have_is_not_read() {
        let queue = json!({"binding": "JOBS", "queue": "jobs"});
        assert!(Binding::of_wrangler("queues.producers", &queue).is_some());
        let fast = json!({"binding": "JOBS", "queue": "jobs", "staging": true});
        assert_eq!(Binding::of_wrangler("queues.producers", &fast), None);
        assert_eq!(Binding::of_wrangler("queues.producers", &json!({"binding": "JOBS"})), None);
        assert_eq!(Binding::of_wrangler("unknown", &queue), None);
        let own = json!({"type": "durable_object_namespace", "name": "O", "class_name": "O", "namespace_id": "1"});
        assert_eq!(Binding::of_upload(&own), None);
        let old = json!({"type": "d1", "name": "B", "id": "0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01"});
        assert_eq!(Binding::of_upload(&old).unwrap().text(D1), old["id"].as_str());
    }

    #[test]
    fn a_workflow_of_the_workers_own_has_settings_beside_its_binding() {
        let entry = json!({
            "binding": "FLOW", "name": "orders", "class_name": "Orders", "limits": {"steps": 20}, "schedules": "0 * * * *",
            "default_retention": {"success_retention": 1000}, "jurisdiction": "eu",
        });
        let (_, binding) = Binding::of_wrangler("workflows", &entry).unwrap();
        assert_eq!(
            binding.upload("FLOW"),
            json!({"type": "workflow", "name": "FLOW", "workflow_name": "orders", "class_name": "Orders"})
        );
        let body = json!({
            "script_name": "w", "class_name": "Orders", "limits": {"steps": 20}, "schedules": [{"cron": "0 * * * *"}],
            "default_retention": {"success_retention": 1000}, "jurisdiction": "eu",
        });
        assert_eq!(binding.own_workflow("w"), Some(("orders".to_owned(), OwnWorkflow(body))));
        let mut of_others = binding;
        of_others.0.insert(WORKER.to_owned(), "other".into());
        assert_eq!(of_others.own_workflow("w"), None);
        assert!(of_others.own_workflow("other").is_some());
        let room = Binding(json!({"durableObject": "Room"}).as_object().unwrap().clone());
        assert_eq!((room.own_class("w"), of_others.own_class("w")), (Some("Room"), None));
    }

    #[test]
    fn a_key_means_the_same_in_every_kind() {
        let mut known: BTreeMap<&str, (Form, &str)> = BTreeMap::new();
        for field in KINDS.iter().flat_map(|kind| kind.fields) {
            let seen = known.entry(field.key).or_insert((field.form, field.about));
            assert_eq!(*seen, (field.form, field.about), "{}", field.key);
        }
    }
}
