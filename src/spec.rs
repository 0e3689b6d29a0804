//! What people write: the types of customers/*.yaml, fleet.yaml and pack.yaml. Knows the shape alone;
//! what it means is `resolve`'s business. The JSON Schemas in schema/ are generated from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::binding::{self, Binding};
use crate::diagnostic::Code;
use crate::limits::{self, Limit, Limits, Plan};

/// A customer of the fleet: one file, `customers/<id>.yaml`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The customer's id: the file's name without `.yaml`.
    #[schemars(length(min = 1, max = 50), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub id: String,
    /// The customer's name, for people. Default: the id.
    #[schemars(length(min = 1))]
    pub name: Option<String>,
    /// The layers that it uses, weakest first; names under `layers` in fleet.yaml. Those that fleet.yaml chooses by label
    /// come before them.
    #[schemars(extend("uniqueItems" = true))]
    pub layers: Option<Vec<String>>,
    /// Labels to select customers by, and by which fleet.yaml chooses layers: `flotilla deploy -l tier=gold`.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The order in which a spec's keys are written; `database.type` is the key `type` of what stands under `database`.
pub const ORDER: [&str; 37] = [
    "id",
    "name",
    "labels",
    "layers",
    "account",
    "pack",
    "trustedOrigins",
    "logLevel",
    "domains",
    "routes",
    "workersDev",
    "delivery",
    "database",
    "destinations",
    "vars",
    "secrets",
    "services",
    "bindings",
    "observability",
    "crons",
    "workers",
    "environments",
    "database.type",
    "database.name",
    "database.id",
    "database.url",
    "database.token",
    "destinations.name",
    "destinations.type",
    "destinations.settings",
    "destinations.enabled",
    "destinations.requiredConsent",
    "destinations.environment",
    "bindings.type",
    "bindings.name",
    "routes.pattern",
    "routes.zone",
];

/// What a worker is made from, and where it exists.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The pack that the worker is made from; a name under `packs` in fleet.yaml.
    pub pack: Option<String>,
    /// How the worker is named, if otherwise than `workerName` of fleet.yaml says: `{customer}`, `{role}`, `{pack-prefix}`,
    /// `{fleet}` and `{environment}` are replaced.
    pub worker_name: Option<String>,
    /// The environments that exist, each with what differs there. Without it: production alone.
    /// `preview` says what differs in previews, and makes none of them.
    #[schemars(extend("propertyNames" = {"enum": ["development", "staging", "production", "preview"]}))]
    pub environments: Option<BTreeMap<Environment, Option<InEnvironment>>>,
}

/// What differs in one environment.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InEnvironment {
    /// How the worker is named there, exactly: nothing is added for the environment or the role.
    pub worker_name: Option<String>,
    /// How it is set.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Several workers of one customer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Roles {
    /// The customer's workers by role, such as web, api and auth, each with what differs for it. Without it: one worker.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30}, "maxProperties" = limits::WORKERS_PER_CUSTOMER))]
    pub workers: Option<BTreeMap<String, Option<Role>>>,
}

/// One worker of several.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// What it is made from.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// How it is set.
    #[serde(flatten)]
    pub settings: Settings,
}

/// What a customer, the fleet's defaults and an environment can set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The Cloudflare account; a name under `accounts` in fleet.yaml.
    pub account: Option<String>,
    /// Host names that reach the worker as custom domains: Cloudflare makes the DNS record and the certificate.
    #[schemars(extend("uniqueItems" = true))]
    pub domains: Option<Vec<Domain>>,
    /// Routes in zones whose DNS records exist already.
    pub routes: Option<Vec<Route>>,
    /// Whether the worker answers on `<worker>.<account>.workers.dev`. Default: true, also beside domains and routes, where
    /// wrangler's own default would switch it off.
    pub workers_dev: Option<bool>,
    /// The origins that may call the worker from a browser: scheme and host, without a path.
    pub trusted_origins: Option<Vec<String>>,
    /// How much the worker logs.
    pub log_level: Option<LogLevel>,
    /// The customer's own database.
    pub database: Option<Database>,
    /// Where consented events and scripts go.
    pub destinations: Option<Vec<Destination>>,
    /// Variables of the worker: text, or any JSON value. `{ workerUrl: auth }` is the address of the customer's worker of
    /// that role, or of the shared worker of that name, in the same environment.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub vars: Option<BTreeMap<String, Value>>,
    /// Secrets of the worker, each a reference to where its value comes from; values never stand in a file.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Z][A-Z0-9_]*$"}))]
    pub secrets: Option<BTreeMap<String, SecretReference>>,
    /// Service bindings: the binding's name, and the role of the customer's worker, or the name of the shared worker, that it
    /// calls.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub services: Option<BTreeMap<String, String>>,
    /// What else the worker is bound to: KV namespaces, buckets, queues, … Each by the name that its code has for it.
    #[schemars(extend("propertyNames" = {"pattern": binding::NAME}))]
    pub bindings: Option<BTreeMap<String, Binding>>,
    /// When the worker is started by the clock, in UTC: five fields, as in `*/15 * * * *`.
    pub crons: Option<Vec<String>>,
    /// The day whose runtime behaviour the worker gets.
    #[schemars(regex(pattern = "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"))]
    pub compatibility_date: Option<String>,
    /// Flags of the runtime, such as `nodejs_compat`.
    #[schemars(inner(regex(pattern = "^[a-z0-9_]+$")))]
    pub compatibility_flags: Option<Vec<String>>,
    /// Whether Cloudflare keeps the worker's logs.
    pub observability: Option<Observability>,
    /// What one request may take.
    pub limits: Option<RequestLimits>,
    /// Where the worker runs: `smart`, near to what it calls; or `{ region: aws:us-east-1 }`, or near to a `host` and port or a
    /// `hostname`. Default: near to who calls it.
    pub placement: Option<Placement>,
    /// Whether its logs go to the account's Logpush jobs. Default: as it is.
    pub logpush: Option<bool>,
    /// The workers outside of the fleet that get its logs, by their names. Default: as it is; `[]` is none.
    #[schemars(extend("uniqueItems" = true), inner(length(min = 1)))]
    pub tail_consumers: Option<Vec<String>>,
    /// Who deploys the worker.
    pub delivery: Option<Delivery>,
}

/// Where a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Environment {
    /// For the people who build it.
    Development,
    /// For the last look.
    Staging,
    /// For everybody.
    Production,
    /// For a while, beside the others: see [`crate::preview`].
    Preview,
}

impl Environment {
    /// The word, as in specs and folder names.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Staging => "staging",
            Environment::Production => "production",
            Environment::Preview => "preview",
        }
    }

    /// Those that stand: in which a spec says that a worker exists.
    pub const ALL: [Environment; 3] = [Environment::Development, Environment::Staging, Environment::Production];
    /// Those, and that of previews.
    pub const EACH: [Environment; 4] =
        [Environment::Development, Environment::Staging, Environment::Production, Environment::Preview];

    /// The environment of a word, that of previews included.
    pub fn of(word: &str) -> Option<Environment> {
        Environment::EACH.into_iter().find(|environment| environment.as_str() == word)
    }
}

impl std::fmt::Display for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reference to a secret: `{ secret: META_PIXEL_ACCESS_TOKEN }`. Its value is looked up when it is uploaded, as
/// `CUSTOMER__NAME` and then as `NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecretReference {
    /// The secret's name in the sources of secrets: the environment and `.env`, unless fleet.yaml lists others.
    #[schemars(regex(pattern = "^[A-Z][A-Z0-9_]*$"))]
    pub secret: String,
}

/// A custom domain: its name, or with it that it may be taken from another worker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Domain {
    /// The host name.
    Name(String),
    /// The host name, and what may be done to get it.
    Entry {
        /// The host name.
        name: String,
        /// Whether it may be taken from a worker that isn't the fleet's.
        #[serde(default, rename = "takeOver")]
        take_over: bool,
    },
}

impl Domain {
    /// The host name.
    pub fn name(&self) -> &str {
        match self {
            Domain::Name(name) | Domain::Entry { name, .. } => name,
        }
    }

    /// Whether it may be taken from a worker that isn't the fleet's.
    pub fn take_over(&self) -> bool {
        matches!(self, Domain::Entry { take_over: true, .. })
    }
}

impl JsonSchema for Domain {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Domain".into()
    }

    // Flat, so that a mistake is told as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A host name; or `{ name: shop.example.com, takeOver: true }`, which takes it from a worker that isn't \
                            this fleet's.",
            "type": ["string", "object"],
            "properties": {
                "name": {"type": "string", "description": "The host name."},
                "takeOver": {
                    "type": "boolean",
                    "description": "Whether the host is taken from a worker that isn't this fleet's. Default: false, which refuses it."
                }
            },
            "required": ["name"],
            "additionalProperties": false
        })
    }
}

/// A route: requests of a zone that match the pattern reach the worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Host and path, with `*` at the beginning of the host or the end of the path: `shop.example.com/consent/*`.
    pub pattern: String,
    /// The zone, as Cloudflare names it: `example.com`.
    pub zone: String,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// A database of its own for each customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    deny_unknown_fields,
    extend("allOf" = [
        {"if": {"properties": {"type": {"const": "turso"}}, "required": ["type"]}, "then": {"propertyNames": {"enum": ["type", "url", "token"]}}},
        {"if": {"properties": {"type": {"const": "d1"}}, "required": ["type"]}, "then": {"propertyNames": {"enum": ["type", "name", "id", "jurisdiction", "locationHint"]}}},
        {"if": {"properties": {"type": {"const": "none"}}, "required": ["type"]}, "then": {"propertyNames": {"enum": ["type"]}}}
    ])
)]
pub struct Database {
    /// `turso`, `d1` or `none`.
    #[serde(rename = "type")]
    pub kind: Option<DatabaseKind>,
    /// turso: the database's address, `libsql://…`.
    #[schemars(regex(pattern = "^(libsql|https)://[^\\s/?#@]+/?$"))]
    pub url: Option<String>,
    /// turso: the reference to its token.
    pub token: Option<SecretReference>,
    /// d1: the database's name.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub name: Option<String>,
    /// d1: the database's id. Default: that of the account's database of this name, which is made if there is none.
    #[schemars(regex(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    pub id: Option<String>,
    /// d1: where its data has to stay, if it is made. It can't be changed later.
    pub jurisdiction: Option<Jurisdiction>,
    /// d1: where it should lie, if it is made. Default: near to who deploys. It can't be changed later.
    pub location_hint: Option<LocationHint>,
}

/// Where a database's data has to stay. Source: Cloudflare's API, D1 › Create D1 Database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Jurisdiction {
    Eu,
    Fedramp,
    Us,
}

impl Jurisdiction {
    /// The word, as in specs and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Jurisdiction::Eu => "eu",
            Jurisdiction::Fedramp => "fedramp",
            Jurisdiction::Us => "us",
        }
    }
}

/// A region for a new database: western and eastern North America and Europe, Asia and the Pacific, Oceania.
/// Source: Cloudflare's API, D1 › Create D1 Database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum LocationHint {
    Wnam,
    Enam,
    Weur,
    Eeur,
    Apac,
    Oc,
}

impl LocationHint {
    /// The word, as in specs and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            LocationHint::Wnam => "wnam",
            LocationHint::Enam => "enam",
            LocationHint::Weur => "weur",
            LocationHint::Eeur => "eeur",
            LocationHint::Apac => "apac",
            LocationHint::Oc => "oc",
        }
    }
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DatabaseKind {
    /// libSQL at Turso.
    Turso,
    /// Cloudflare D1.
    D1,
    /// No database.
    None,
}

/// One destination of a customer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Destination {
    /// A name for people; it stands as a comment in the generated module.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The type, from the pack's catalogue.
    #[serde(rename = "type")]
    pub kind: String,
    /// The settings of its type.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// Whether it is in use; one that isn't stays out of the worker. Default: true.
    pub enabled: Option<bool>,
    /// The consents that a visitor must have given. Default: those of its type.
    #[schemars(extend("uniqueItems" = true))]
    pub required_consent: Option<Vec<Purpose>>,
    /// The one environment in which it exists. Default: all.
    pub environment: Option<Environment>,
    /// The environments in which it exists. Default: all.
    #[schemars(extend("uniqueItems" = true, "minItems" = 1))]
    pub environments: Option<Vec<Environment>>,
    /// Whether it was taken out of use for good, but is kept on record. Default: false.
    pub deleted: Option<bool>,
}

/// What a visitor consents to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Purpose {
    Necessary,
    Functionality,
    Experience,
    Measurement,
    Marketing,
}

/// Whether Cloudflare keeps the worker's logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Observability {
    /// Whether it does. Default: true.
    pub enabled: Option<bool>,
    /// Which share of requests, from 0 to 1. Default: all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Logs on their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
    /// Traces on their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// The worker's logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Logs {
    /// Whether they are written. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which share of requests, from 0 to 1. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Whether each invocation is a line of its own. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_logs: Option<bool>,
    /// Whether Cloudflare keeps them. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<bool>,
    /// The account's destinations that they are exported to, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<String>>,
}

/// The worker's traces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Traces {
    /// Whether they are written. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which share of requests, from 0 to 1. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Whether Cloudflare keeps them. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<bool>,
    /// The account's destinations that they are exported to, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<String>>,
}

/// What one request may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct RequestLimits {
    /// Time of the processor, in milliseconds. Default: the account's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cpu_ms: Option<u64>,
    /// Requests that the worker sends itself. Default: the account's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub subrequests: Option<u64>,
}

/// Where a worker runs, if not near to who calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Near to what it calls, as Cloudflare measures it.
    Smart,
    /// In a region of a cloud: `aws:us-east-1`.
    #[serde(untagged)]
    Region {
        /// The region.
        region: String,
    },
    /// Near to a host and port.
    #[serde(untagged)]
    Host {
        /// The host and port.
        host: String,
    },
    /// Near to a host that speaks HTTP.
    #[serde(untagged)]
    Hostname {
        /// The host.
        hostname: String,
    },
}

impl JsonSchema for Placement {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Placement".into()
    }

    // Flat, so that a mistake is told as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`smart`; or where the worker runs: `{ region: aws:us-east-1 }`, `{ host: db.example.com:5432 }` or \
                            `{ hostname: api.example.com }`.",
            "type": ["string", "object"],
            "pattern": "^smart$",
            "properties": {
                "region": {"type": "string", "minLength": 1, "description": "A region of a cloud, with the cloud before it."},
                "host": {"type": "string", "minLength": 1, "description": "A host and port that the worker is near to."},
                "hostname": {"type": "string", "minLength": 1, "description": "A host with HTTP that the worker is near to."}
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false
        })
    }
}

/// Who deploys a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Delivery {
    /// `flotilla deploy` does.
    Automatic,
    /// `flotilla deploy CUSTOMER` does, when the customer is named.
    Manual,
    /// The customer's own pipeline, from the generated folder.
    Gitops,
    /// The customer, who hosts it; flotilla builds it only.
    SelfHosted,
}

/// The fleet: fleet.yaml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "flotilla fleet")]
pub struct FleetFile {
    /// The fleet's name: it tags each worker as owned by this fleet.
    #[schemars(length(max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// How workers are named. `{customer}`, `{role}`, `{pack-prefix}`, `{fleet}` and `{environment}` are replaced. `-{role}`
    /// follows if there are several workers and the pattern doesn't have it, and so does `-{environment}` outside of production.
    /// Default: `{pack-prefix}-{customer}`.
    pub worker_name: Option<String>,
    /// The Cloudflare accounts by name. Default: one named `default`, taken from CLOUDFLARE_ACCOUNT_ID and
    /// CLOUDFLARE_API_TOKEN.
    pub accounts: Option<BTreeMap<String, Account>>,
    /// The packs by name.
    #[schemars(extend("minProperties" = 1))]
    pub packs: BTreeMap<String, PackReference>,
    /// What holds for each customer whose spec doesn't say otherwise.
    pub defaults: Option<Map<String, Value>>,
    /// Warnings that are turned off, or that are errors in this fleet. Of several entries for one warning the last counts.
    pub diagnostics: Option<Vec<DiagnosticRule>>,
    /// The layers between the defaults and the specs, weakest first: the name of each is that of its file,
    /// `layers/<name>.yaml`.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}))]
    pub layers: Option<Map<String, Value>>,
    /// Workers that all customers share, by name. Each exists once per environment.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30}, "maxProperties" = limits::WORKERS_PER_CUSTOMER))]
    #[schemars(with = "Option<BTreeMap<String, Option<Role>>>")]
    pub shared_workers: Option<Map<String, Value>>,
    /// Zones that are not the domain which can be registered, but further down: `eu.shop.example`. Custom domains count
    /// against the limits of the longest one that they end with.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub zones: Vec<String>,
    /// Host names that several customers share on purpose, each by routes of its own. Any other host is one customer's.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^(\\*\\.?)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub shared_hosts: Vec<String>,
    /// Where the values of secrets come from, in this order: the first source that has a value counts. Default: the
    /// environment, then the dotenv file `.env`.
    #[schemars(extend("minItems" = 1))]
    pub secrets: Option<Vec<SecretSource>>,
    /// How changes are deployed: in which waves, and when it stops.
    #[serde(default)]
    pub deploy: DeployRule,
    /// What `flotilla preview` makes.
    #[serde(default)]
    pub previews: PreviewRule,
}

/// What `flotilla preview` makes: workers once more, for a while, under names and hosts of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct PreviewRule {
    /// The environment whose settings a preview takes; a worker that doesn't exist there takes those of production. What
    /// `environments: { preview: … }` says comes over them. Default: staging.
    #[schemars(with = "Option<Standing>")]
    pub from: Option<Environment>,
    /// The domain of the hosts: `<customer>-preview-<id>.<domain>`. Default: the first part of each of a worker's own hosts gets
    /// `-preview-<id>`.
    #[schemars(regex(pattern = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub domain: Option<String>,
    /// After so many days a preview has expired, and `flotilla preview down --expired` removes it. Default: 7.
    #[schemars(range(min = 1, max = 365))]
    pub days: Option<u16>,
    /// How many workers one preview has at the most. Default: 50.
    #[schemars(range(min = 1))]
    pub most: Option<usize>,
}

/// The environments that stand, as the schema has them.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(dead_code, missing_docs)]
enum Standing {
    Development,
    Staging,
    Production,
}

/// The dotenv file that is read, unless fleet.yaml lists other sources of secrets.
pub const DOTENV: &str = ".env";

/// A source of secrets' values: one of `env`, `dotenv`, `age`, `sops` and `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, extend("oneOf" = [
    {"required": ["env"]}, {"required": ["dotenv"]}, {"required": ["age"]}, {"required": ["sops"]}, {"required": ["command"]}
]))]
pub struct SecretSource {
    /// The environment of the process: `true`.
    #[schemars(extend("const" = true))]
    pub env: Option<bool>,
    /// A dotenv file outside of git, from the project's root or with an absolute path. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub dotenv: Option<String>,
    /// A file that is encrypted with age and can be committed: dotenv lines, or a YAML map of names to texts if it is named
    /// `….yaml.age`. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub age: Option<String>,
    /// age: where the identity is that opens the file.
    pub identity: Option<IdentityPlace>,
    /// age: for whom the file is encrypted when flotilla writes it. Default: for the identity.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true), inner(regex(pattern = "^age1[02-9ac-hj-np-z]{58}$")))]
    pub recipients: Option<Vec<String>>,
    /// A file that is encrypted with SOPS; the program `sops` opens it. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub sops: Option<String>,
    /// A program and its arguments, which prints one value; it is run without a shell. `{name}`, `{customer}` and
    /// `{environment}` are replaced.
    #[schemars(extend("minItems" = 1))]
    pub command: Option<Vec<String>>,
    /// command, sops: how many seconds it may take. Default: 30.
    #[schemars(range(min = 1, max = 600))]
    pub timeout: Option<u64>,
    /// command: how many run at once. Default: 8.
    #[schemars(range(min = 1, max = 64))]
    pub at_once: Option<u8>,
}

impl SecretSource {
    /// The keys that only some sources have, each with those sources.
    pub fn misplaced(&self) -> Option<(&'static str, &'static str)> {
        let only_age = self.age.is_none();
        let runs = self.command.is_some() || self.sops.is_some();
        match self {
            SecretSource { identity: Some(_), .. } if only_age => Some(("identity", "age")),
            SecretSource { recipients: Some(_), .. } if only_age => Some(("recipients", "age")),
            SecretSource { timeout: Some(_), .. } if !runs => Some(("timeout", "command` and `sops")),
            SecretSource { at_once: Some(_), .. } if self.command.is_none() => Some(("atOnce", "command")),
            _ => None,
        }
    }

    /// The key and the path of its file, if it is one.
    pub fn path(&self) -> Option<(&'static str, &str)> {
        let paths = [("dotenv", &self.dotenv), ("age", &self.age), ("sops", &self.sops)];
        paths.into_iter().find_map(|(key, path)| Some((key, path.as_deref()?)))
    }
}

/// Where an age identity is: `{ env: NAME }` or `{ file: PATH }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}]))]
pub struct IdentityPlace {
    /// The environment variable that holds it: `AGE-SECRET-KEY-…`.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub env: Option<String>,
    /// The file that holds it, as age-keygen writes it; `~/` is the home directory. It doesn't belong into git.
    #[schemars(length(min = 1))]
    pub file: Option<String>,
}

/// How changes are deployed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct DeployRule {
    /// The waves, one after the other: each has to be healthy before the next one begins. What no wave takes is the last
    /// one. Default: one wave with everything.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub waves: Vec<WaveRule>,
    /// How much may fail: `count` changes in all, and nothing more is begun; `percent` of a wave, and the next one doesn't
    /// begin. Default: 10, and 0 percent.
    pub failures: Option<Share>,
    /// How workers are asked between waves whether they are well.
    #[serde(default)]
    pub health: HealthRule,
    /// What happens to a wave that isn't healthy: `halt` leaves it as it is, `rollback` puts back what ran before. Default:
    /// halt.
    pub on_breach: Option<OnBreach>,
    /// How many workers one deploy may delete. Default: 10, or 10 % of all, whichever is less; one is always allowed.
    pub max_deletions: Option<Share>,
    /// The share of the fleet, in percent, from which on a deploy wants the plan's digest or `--yes`, also at a terminal.
    /// Default: 20.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub confirm_above: Option<f64>,
    /// How many bundles of each worker are kept to go back to. Default: 5.
    #[schemars(range(min = 1, max = 100))]
    pub keep: Option<usize>,
}

/// One wave: whoever has its labels, or so many customers, or so much of all that change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct WaveRule {
    /// Its name, for people. Default: its number.
    pub name: Option<String>,
    /// The labels that its customers have, as in a layer's `when`.
    #[schemars(extend("minProperties" = 1))]
    pub labels: Option<BTreeMap<String, OneOrMore>>,
    /// So many customers.
    #[schemars(range(min = 1))]
    pub count: Option<usize>,
    /// So much of all customers that change, in percent, those of the waves before included.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
}

/// A number and a share; where both are there, the text beside says which one holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Share {
    /// So many.
    pub count: Option<usize>,
    /// So much of all, in percent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
}

/// How workers are asked whether they are well.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct HealthRule {
    /// Whether they are asked at all. Default: true.
    pub enabled: Option<bool>,
    /// How long a worker may take to say that it runs the new bundle, in seconds: a new address needs a while until it is
    /// known everywhere. Default: 60.
    #[schemars(range(min = 1, max = 3600))]
    pub deadline_seconds: Option<u64>,
}

/// What happens to a wave that isn't healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum OnBreach {
    #[default]
    Halt,
    Rollback,
}

/// When a layer is used, and where it is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct LayerRule {
    /// The labels that a customer must have for it: a value, or a list of values of which one has to hold. Without it, the
    /// layer is used by the customers that list it.
    pub when: Option<BTreeMap<String, OneOrMore>>,
    /// Instead of a file in layers/, a folder of env files: `base/*.env`, and `customers/<customer>/<environment>.env`.
    #[schemars(regex(pattern = "^[^/\\\\.][^\\\\]*$"))]
    pub env_files: Option<String>,
}

/// A text, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// Whether a text is among them.
    pub fn has(&self, text: &str) -> bool {
        match self {
            OneOrMore::One(one) => one == text,
            OneOrMore::More(more) => more.iter().any(|one| one == text),
        }
    }
}

impl JsonSchema for OneOrMore {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMore".into()
    }

    // Flat, so that a mistake is told as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "array"], "items": {"type": "string"}})
    }
}

/// How bad a warning is in this fleet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DiagnosticRule {
    /// The warning's code, as it is printed: `N0309`.
    pub code: Code,
    /// The customers for whom this holds, by id; `*` stands for any characters, `?` for one. Default: all.
    #[schemars(extend("minItems" = 1))]
    pub customers: Option<Vec<String>>,
    /// `off`, `warning` or `error`.
    pub severity: Level,
    /// Why, for those who read the report.
    #[schemars(length(min = 1))]
    pub reason: String,
}

/// What a warning can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Level {
    /// Not told, only counted.
    Off,
    /// A warning.
    Warning,
    /// An error, which holds the customer.
    Error,
}

/// Where a pack is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PackReference {
    /// The folder, from the project's root.
    #[schemars(regex(pattern = "^[^/\\\\.][^\\\\]*$"))]
    pub path: String,
}

/// A Cloudflare account and what may be done with it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Account {
    /// The account's id, or the environment variable that holds it: `{ env: CLOUDFLARE_ACCOUNT_ID }`.
    pub id: AccountId,
    /// The reference to its API token.
    pub token: SecretReference,
    /// The dispatch namespace that the workers go into (Workers for Platforms). Without it, an account holds 500.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub dispatch_namespace: Option<String>,
    /// How requests reach the workers of the dispatch namespace. Without it they have no host names.
    pub dispatch: Option<Dispatch>,
    /// The account's part of its workers.dev addresses, `<worker>.<subdomain>.workers.dev`: for workers that have to know each
    /// other's address.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub subdomain: Option<String>,
    /// What is paid for Workers: `free` or `paid`, from which the account's limits follow. Default: paid.
    #[serde(default)]
    pub plan: Plan,
    /// The limits that are other than the plan's: those that Cloudflare has raised.
    #[serde(default)]
    pub limits: Limits,
    /// The API's limit for this token. Default: 1,200 requests in 300 seconds.
    pub api_limit: Option<ApiLimit>,
}

/// The worker in front of a dispatch namespace, and where it looks hosts up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Dispatch {
    /// The worker that gets all requests and passes them on; a name under `sharedWorkers`, with the routes and domains that
    /// lead to it. It is a worker of the account, outside of the namespace.
    pub worker: String,
    /// The title of the KV namespace that says which host is which worker's; made if there is none. Default: the
    /// `dispatchNamespace` with `-hosts` after it.
    #[schemars(length(min = 1, max = 512))]
    pub hosts: Option<String>,
}

impl Account {
    /// The title of the KV namespace with the hosts of the account's workers.
    pub fn hosts(&self) -> Option<String> {
        let (namespace, dispatch) = (self.dispatch_namespace.as_ref()?, self.dispatch.as_ref()?);
        Some(dispatch.hosts.clone().unwrap_or_else(|| format!("{namespace}-hosts")))
    }

    /// One of its limits.
    pub fn limit(&self, limit: Limit) -> u64 {
        self.limits.get(limit).unwrap_or_else(|| self.plan.limit(limit))
    }
}

/// An account's id, as it is or by reference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum AccountId {
    /// The id itself.
    Literal(String),
    /// The name of the environment variable that holds it.
    Variable {
        /// The variable.
        env: String,
    },
}

impl JsonSchema for AccountId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AccountId".into()
    }

    // One flat schema rather than a choice of two, so that a mistake is told as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The account's id, or the environment variable that holds it: `{ env: NAME }`.",
            "type": ["string", "object"],
            "pattern": "^[A-Za-z0-9_-]+$",
            "properties": {"env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
            "required": ["env"],
            "additionalProperties": false
        })
    }
}

/// A limit of Cloudflare's API.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ApiLimit {
    /// How many requests fit into a window.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The window in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub seconds: u32,
    /// The share of the limit that is left for people, from 0 to 0.9. Default: 0.05.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub headroom: Option<f64>,
}

/// A pack's manifest: pack.yaml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "flotilla pack")]
pub struct PackFile {
    /// The pack's name.
    #[schemars(length(max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What its workers' names begin with.
    #[schemars(length(max = 20), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub prefix: String,
    /// The template of the module that is uploaded.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.tera$"))]
    pub module: String,
    /// The other templates, among them the wrangler file.
    #[schemars(inner(regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.tera$")))]
    pub files: Vec<String>,
    /// The code that all workers of the pack share.
    pub runtime: RuntimeFile,
    /// The file with the destination types.
    pub catalogue: Option<String>,
    /// What its workers are asked by `flotilla verify`, one request each.
    pub verify: Option<Vec<Probe>>,
}

/// A request that a deployed worker is asked, and what its answer has to be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Probe {
    /// What it is called in results, such as `health`; several can have one name.
    #[schemars(length(max = 20), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub name: String,
    /// The path that is asked, with its query.
    #[schemars(length(max = 1000), regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// The HTTP status of the answer (default: 200).
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// What the answer's JSON holds at the least: an empty list or map stands for any. `{worker}`, `{customer}`,
    /// `{environment}` and `{digest}` stand for the worker's own.
    pub json: Option<BTreeMap<String, Value>>,
    /// Asked only of workers that call others; the answer's `peers` tell how each of them was reached.
    pub peers: Option<bool>,
}

/// How a pack's runtime is bundled.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct RuntimeFile {
    /// The command that bundles it; `--out DIR` is added, and `runtime.js` and `runtime.d.ts` are expected there.
    #[schemars(length(min = 1))]
    pub build: Vec<String>,
    /// The files and folders that decide it. package.json and package-lock.json always belong to them.
    pub sources: Vec<String>,
}

/// A pack's catalogue of destination types.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueFile {
    /// The types by name.
    pub destinations: BTreeMap<String, DestinationType>,
}

/// A destination type of a catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationType {
    /// Its name for people.
    pub label: String,
    /// The consents that a visitor must have given, unless a spec says otherwise.
    pub required_consent: Vec<Purpose>,
    /// The JSON Schema of its settings; `#/$defs/secret` stands for a reference to a secret.
    pub settings: Value,
}
