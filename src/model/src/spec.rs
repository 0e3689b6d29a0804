//! The types of customers/*.yaml, fleet.yaml and pack.yaml. Knows the shape alone; `resolve` knows the meaning. The
//! JSON Schemas in schema/ are generated from these types.

mod account;
mod cors;
mod database;
mod fleet;
mod pack;
mod queue;
mod runtime;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use account::*;
pub use cors::*;
pub use database::*;
pub use fleet::*;
pub use pack::*;
pub use queue::*;
pub use runtime::*;

use crate::binding::{self, Binding};
use crate::environment;
pub use crate::environment::Environment;
use crate::limits;

/// A customer of the fleet: one file, `customers/<id>.yaml`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The customer's id: the file's name without `.yaml`.
    #[schemars(length(min = 1, max = 50), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub id: String,
    /// The customer's display name. Default: the id.
    #[schemars(length(min = 1))]
    pub name: Option<String>,
    /// The layers that the customer uses, weakest first; names under `layers` in fleet.yaml. Layers that fleet.yaml selects by label
    /// are weaker.
    #[schemars(extend("uniqueItems" = true))]
    pub layers: Option<Vec<String>>,
    /// Labels, by which commands select customers (`flotilla deploy -l tier=gold`) and fleet.yaml selects layers.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The order in which a spec's keys are written; `database.type` is the key `type` within `database`.
pub const ORDER: [&str; 42] = [
    "id",
    "name",
    "labels",
    "layers",
    "account",
    "pack",
    "trustedOrigins",
    "cors",
    "logLevel",
    "domains",
    "routes",
    "workersDev",
    "previewUrls",
    "delivery",
    "database",
    "destinations",
    "vars",
    "secrets",
    "services",
    "callers",
    "bindings",
    "observability",
    "crons",
    "queueConsumers",
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
    "routes.zoneId",
];

/// The pack that a worker is made from, and the environments that it exists in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The pack that the worker is built from; a name under `packs` in fleet.yaml.
    pub pack: Option<String>,
    /// The worker's name. `{customer}`, `{role}`, `{pack-prefix}`, `{fleet}` and `{environment}` are replaced. Default: `workerName` of
    /// fleet.yaml.
    pub worker_name: Option<String>,
    /// The environments in addition to production, each with the settings that differ there: a key without a value, or `{}`, is an
    /// environment with the same settings. Beside `staging` and `development`, any name is one: `qa`. Production exists unless
    /// `production: null` removes it; `null` also removes one that a weaker layer adds. `preview` contains the settings that differ in
    /// previews; it doesn't create a preview. The pack, the labels, the layers and
    /// `workers` are the same in all environments.
    #[schemars(extend("propertyNames" = {"format": environment::FORMAT}))]
    pub environments: Option<BTreeMap<Environment, Option<InEnvironment>>>,
}

/// The settings that differ in one environment.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InEnvironment {
    /// The worker's exact name there: nothing is appended for the environment or the role.
    pub worker_name: Option<String>,
    /// The settings.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Several workers of one customer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Roles {
    /// The customer's workers by role, such as web, api and auth, each with the settings that differ for it. Default: one worker.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30}, "maxProperties" = limits::WORKERS_PER_CUSTOMER))]
    pub workers: Option<BTreeMap<String, Option<Role>>>,
}

/// One worker of several.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// The pack and the environments.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// The settings.
    #[serde(flatten)]
    pub settings: Settings,
}

/// The settings that a customer, the fleet's defaults and an environment can have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The Cloudflare account: a name under `accounts` in fleet.yaml; or the customer's own, `{ id: …, token: { secret: NAME } }`.
    pub account: Option<AccountChoice>,
    /// Host names that are custom domains of the worker: Cloudflare creates their DNS records and certificates.
    #[schemars(extend("uniqueItems" = true))]
    pub domains: Option<Vec<Domain>>,
    /// Routes of the worker. Their hosts need proxied DNS records.
    pub routes: Option<Vec<Route>>,
    /// Whether the worker is reachable at `<worker>.<subdomain>.workers.dev`. Default: true, even with domains and routes, where
    /// wrangler would turn it off.
    pub workers_dev: Option<bool>,
    /// Whether each version of the worker has an address of its own, `<version>-<worker>.<subdomain>.workers.dev`. Default: false.
    pub preview_urls: Option<bool>,
    /// The origins that may call the worker from a browser: scheme and host, without a path. `own` is those of the customer's workers in the
    /// same environment: their domains, the hosts of their routes, and their workers.dev addresses if the account's `subdomain` is known.
    pub trusted_origins: Option<Vec<String>>,
    /// What browsers may do from the `trustedOrigins`: the code gets both as the variable `FLOTILLA_CORS`. Default: none.
    pub cors: Option<Cors>,
    /// The customer's other workers that may call this one, by role; of a shared worker, also the roles of all customers. flotilla gives
    /// each its key, by which the called worker recognizes it.
    #[schemars(extend("uniqueItems" = true), inner(length(max = 30), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub callers: Option<Vec<String>>,
    /// The worker's log level.
    pub log_level: Option<LogLevel>,
    /// The customer's own database.
    pub database: Option<Database>,
    /// The destinations of consented events and scripts.
    pub destinations: Option<Vec<Destination>>,
    /// Variables of the worker: strings, or any JSON values. `{ workerUrl: auth }` is the address of the customer's worker of
    /// that role, or of the shared worker of that name, in the same environment. `{ worker: environment }` is the environment's name, and
    /// `{ worker: customer }` the customer's id.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub vars: Option<BTreeMap<String, Value>>,
    /// Whether a deploy keeps variables that are set at Cloudflare but not in the spec, such as those that were set in the dashboard.
    /// Default: false.
    pub keep_vars: Option<bool>,
    /// Secrets of the worker, each a reference to a secret's name. Values are never in a spec.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Z][A-Z0-9_]*$"}))]
    pub secrets: Option<BTreeMap<String, SecretReference>>,
    /// Service bindings: the name of the binding, and the role of the customer's worker, or the name of the shared worker, that is
    /// called.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub services: Option<BTreeMap<String, String>>,
    /// Bindings to other resources, such as KV namespaces, buckets and queues, by the names that the code uses.
    #[schemars(extend("propertyNames" = {"pattern": binding::NAME}))]
    pub bindings: Option<BTreeMap<String, Binding>>,
    /// Cron triggers, in UTC: five fields, as in `*/15 * * * *`.
    pub crons: Option<Vec<String>>,
    /// The queues that the worker consumes, by name, each with its settings; `{}` is Cloudflare's defaults. `{customer}` and `{environment}`
    /// in a name are replaced. A queue that doesn't exist is created. Previews consume no queues.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z0-9{][A-Za-z0-9{}_-]*$", "maxLength": 80}))]
    pub queue_consumers: Option<BTreeMap<String, QueueConsumer>>,
    /// The compatibility date of the Workers runtime.
    #[schemars(regex(pattern = "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"))]
    pub compatibility_date: Option<String>,
    /// Compatibility flags of the Workers runtime, such as `nodejs_compat`.
    #[schemars(inner(regex(pattern = "^[a-z0-9_]+$")))]
    pub compatibility_flags: Option<Vec<String>>,
    /// Logs and traces that Cloudflare keeps.
    pub observability: Option<Observability>,
    /// Limits per request.
    pub limits: Option<RequestLimits>,
    /// Where the worker runs: `smart`, close to the services that it calls; or `{ region: aws:us-east-1 }`; or close to a `host` and port
    /// or a `hostname`. Default: close to its callers.
    pub placement: Option<Placement>,
    /// Cloudflare's cache in front of the worker, which keeps responses as their `Cache-Control` headers define. Default: none.
    pub cache: Option<CacheOptions>,
    /// Whether the worker's logs are sent to the account's Logpush jobs. Default: Cloudflare's setting stays as it is.
    pub logpush: Option<bool>,
    /// The workers that receive the worker's logs: `{ role: logs }` is the customer's worker of that role, or the shared worker of that
    /// name; a name is that of a worker outside the fleet. Default: they stay as they are; `[]` means none.
    #[schemars(extend("uniqueItems" = true))]
    pub tail_consumers: Option<Vec<TailConsumer>>,
    /// Static assets of the customer's own, in addition to those of the pack, over which they come.
    pub assets: Option<OwnAssetsFolder>,
    /// Who deploys the worker.
    pub delivery: Option<Delivery>,
}

/// A folder with static assets of a customer's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct OwnAssetsFolder {
    /// The folder, from the project's folder: `assets/{customer}`. `{customer}` and `{environment}` are replaced. Its `_headers` and
    /// `_redirects`, if it has them, take the place of the pack's, and its `.assetsignore` is its own.
    #[schemars(length(min = 1, max = 1000))]
    pub directory: String,
}

/// A reference to a secret: `{ secret: META_PIXEL_ACCESS_TOKEN }`. Its value is looked up for the upload, as
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
        /// Whether it may be taken from a worker that the fleet doesn't manage.
        #[serde(default, rename = "takeOver")]
        take_over: bool,
    },
}

impl Domain {
    /// Returns the host name.
    pub fn name(&self) -> &str {
        match self {
            Domain::Name(name) | Domain::Entry { name, .. } => name,
        }
    }

    /// Returns whether it may be taken from a worker that this fleet doesn't manage.
    pub fn take_over(&self) -> bool {
        matches!(self, Domain::Entry { take_over: true, .. })
    }
}

impl JsonSchema for Domain {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Domain".into()
    }

    // Flat, so that an error is reported as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A host name; or `{ name: shop.example.com, takeOver: true }`, which takes it over from a worker \
                            that this fleet doesn't manage.",
            "type": ["string", "object"],
            "properties": {
                "name": {"type": "string", "description": "The host name."},
                "takeOver": {
                    "type": "boolean",
                    "description": "Whether the host may be taken over from a worker that this fleet doesn't manage. Default: false."
                }
            },
            "required": ["name"],
            "additionalProperties": false
        })
    }
}

/// A worker that receives the logs of another one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TailConsumer {
    /// The name of a worker outside the fleet.
    Name(String),
    /// A worker of the fleet.
    Role {
        /// The role of the customer's worker, or the name of the shared worker.
        role: String,
    },
}

impl JsonSchema for TailConsumer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TailConsumer".into()
    }

    // Flat, so that an error is reported as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The name of a worker outside the fleet; or `{ role: logs }`, a worker of the fleet.",
            "type": ["string", "object"],
            "minLength": 1,
            "properties": {
                "role": {
                    "type": "string",
                    "minLength": 1,
                    "description": "The role of the customer's worker, or the name of the shared worker."
                }
            },
            "required": ["role"],
            "additionalProperties": false
        })
    }
}

/// A route: requests to a zone that match the pattern reach the worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Host and path, with `*` at the beginning of the host or the end of the path: `shop.example.com/consent/*`.
    pub pattern: String,
    /// The zone, as Cloudflare names it: `example.com`.
    pub zone: String,
    /// The zone's id, 32 hexadecimal digits. A deploy doesn't look the zone up then, and the generated wrangler file has the id in place of the
    /// name. Default: a deploy looks it up, once.
    #[serde(rename = "zoneId", default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub zone_id: Option<String>,
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

/// One destination of a customer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Destination {
    /// A display name, which is a comment in the generated module.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The type, from the pack's catalogue.
    #[serde(rename = "type")]
    pub kind: String,
    /// The settings of its type.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// Whether it is part of the worker. Default: true.
    pub enabled: Option<bool>,
    /// The consents that a visitor must have given. Default: those of its type.
    #[schemars(extend("uniqueItems" = true))]
    pub required_consent: Option<Vec<Purpose>>,
    /// The one environment in which it exists. Default: all.
    pub environment: Option<Environment>,
    /// The environments in which it exists. Default: all.
    #[schemars(extend("uniqueItems" = true, "minItems" = 1))]
    pub environments: Option<Vec<Environment>>,
    /// Whether it was removed, but is kept in the file. Default: false.
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

/// Who deploys a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Delivery {
    /// flotilla deploys it.
    Automatic,
    /// flotilla deploys it only if the customer is named on the command line.
    Manual,
    /// The customer's own pipeline deploys it, from an export.
    Gitops,
    /// The customer hosts it; flotilla only builds it.
    SelfHosted,
}
