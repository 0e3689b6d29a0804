//! The customer as it is: every default applied, every name derived. Nothing here means "use the default" any
//! more. Knows no files and no templates.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::assets::WorkerAssets;
use crate::binding::{Binding, OwnWorkflow};
use crate::objects::{ClassExport, Migration};
use crate::spec::{
    CacheOptions, Delivery, Environment, Jurisdiction, LocationHint, LogLevel, Observability, Placement, Purpose,
    QueueConsumer, RequestLimits, Route,
};

/// The variable by which a worker reports the digest of its bundle.
pub const DIGEST_VARIABLE: &str = "FLOTILLA_DIGEST";
/// The variable with the address of a Turso database.
pub const TURSO_URL: &str = "TURSO_DATABASE_URL";
/// The secret with the token of a Turso database.
pub const TURSO_TOKEN: &str = "TURSO_AUTH_TOKEN";
/// The binding of a D1 database.
pub const D1_BINDING: &str = "DB";
/// The binding by which a dispatch worker reaches the workers of its namespace.
pub const DISPATCHER_BINDING: &str = "DISPATCHER";
/// The binding of the KV namespace in which a dispatch worker looks hosts up.
pub const HOSTS_BINDING: &str = "HOSTS";
/// The id in place of a customer's where a worker is shared by all; no customer can have it.
pub const SHARED: &str = "_shared";

/// One deployable unit: a customer in an environment, and in a role where it has several workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// The customer's id.
    pub customer: String,
    /// The customer's name for people.
    pub customer_name: String,
    /// Labels to select by.
    pub labels: BTreeMap<String, String>,
    /// The file of its spec, from the project's root.
    pub file: String,
    /// The environment in which it runs.
    pub environment: Environment,
    /// Whether it exists there only because nothing says otherwise: its `environments` name others.
    #[serde(default, rename = "implied", skip_serializing_if = "std::ops::Not::not")]
    pub is_implied: bool,
    /// Its role, if the customer has several workers.
    pub role: Option<String>,
    /// The worker's name at Cloudflare.
    pub name: String,
    /// The pack's name in fleet.yaml.
    pub pack: String,
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The dispatch namespace, if the account has one.
    pub namespace: Option<String>,
    /// The account's id, if fleet.yaml has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Whether it answers on workers.dev.
    pub workers_dev: bool,
    /// Whether each of its versions has an address there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preview_urls: bool,
    /// Its custom domains, sorted.
    pub domains: BTreeSet<String>,
    /// The custom domains that may be taken from workers that the fleet doesn't manage.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub take_over: BTreeSet<String>,
    /// Its routes, sorted.
    pub routes: BTreeSet<Route>,
    /// Its hosts, if it is in a dispatch namespace with a dispatch worker: these take the place of domains and routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Hosts>,
    /// The namespace that it dispatches to, if it is a dispatch worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Dispatch>,
    /// The origins that may call it from a browser, in the order of the spec.
    pub trusted_origins: Vec<String>,
    /// The level at which it logs.
    pub log_level: LogLevel,
    /// Its database.
    pub database: Database,
    /// Its destinations in this environment, in the order of the spec.
    pub destinations: Vec<Destination>,
    /// Its variables, those of the database included.
    pub vars: BTreeMap<String, Value>,
    /// Its secrets: the binding's name → the name under which the value is looked up.
    pub secrets: BTreeMap<String, String>,
    /// Its service bindings: the binding's name → the name of the worker that it calls.
    pub services: BTreeMap<String, String>,
    /// Its other bindings by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bindings: BTreeMap<String, Binding>,
    /// The variables that hold the address of another worker → the name of that worker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, String>,
    /// The migrations of its Durable Object classes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<Migration>,
    /// Its declared Durable Object classes by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<String, ClassExport>,
    /// The queues that it consumes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queue_consumers: BTreeMap<String, QueueConsumer>,
    /// The schedules on which it runs, sorted.
    pub crons: BTreeSet<String>,
    /// The day whose runtime behaviour it gets.
    pub compatibility_date: String,
    /// Flags of the runtime, sorted.
    pub compatibility_flags: BTreeSet<String>,
    /// Whether its logs are kept.
    pub observability: Observability,
    /// The limits of one request, if lower than those of the account's plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<RequestLimits>,
    /// The place where it runs, if not near its callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Whether variables that it has at Cloudflare alone stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_vars: bool,
    /// The cache in front of it, if the spec defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheOptions>,
    /// Whether its logs go to the account's Logpush jobs, if the spec defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logpush: Option<bool>,
    /// The workers that get its logs, sorted, if the spec defines them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_consumers: Option<BTreeSet<String>>,
    /// Its static assets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<WorkerAssets>,
    /// The delivery: by flotilla or by others.
    pub delivery: Delivery,
}

impl Worker {
    /// Returns the workflows of its own by name, each as the platform has it.
    pub fn workflows(&self) -> BTreeMap<String, OwnWorkflow> {
        self.bindings.values().filter_map(|binding| binding.own_workflow(&self.name)).collect()
    }

    /// Returns the folder under out/ with its files: `production/acme`, or `production/acme/web`.
    pub fn folder(&self) -> String {
        folder(self.environment, &self.customer, self.role.as_deref())
    }
}

/// The hosts by which a dispatch worker finds a worker of its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The title of the KV namespace that they are written to.
    pub table: String,
    /// The host names, sorted.
    pub names: BTreeSet<String>,
}

/// The namespace that a dispatch worker passes requests on to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The dispatch namespace; its binding is [`DISPATCHER_BINDING`].
    pub namespace: String,
    /// The title of the KV namespace with the hosts; its binding is [`HOSTS_BINDING`].
    pub hosts: String,
}

/// Returns the folder under out/ of a customer's worker.
pub fn folder(environment: Environment, customer: &str, role: Option<&str>) -> String {
    match role {
        None => format!("{environment}/{customer}"),
        Some(role) => format!("{environment}/{customer}/{role}"),
    }
}

/// A worker's database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Database {
    /// libSQL at Turso; its address and token are in the variables and secrets.
    Turso,
    /// D1.
    D1 {
        /// The binding's name.
        binding: String,
        /// The database's name.
        name: String,
        /// The database's id, if the spec has it. Otherwise a deploy looks the name up, and creates what doesn't
        /// exist.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The jurisdiction of its data, if it is created.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jurisdiction: Option<Jurisdiction>,
        /// A hint for its location, if it is created.
        #[serde(default, rename = "locationHint", skip_serializing_if = "Option::is_none")]
        location_hint: Option<LocationHint>,
    },
    /// None.
    None,
}

/// A destination that is in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// An id within the worker: its type, numbered from the second one on.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The consents that a visitor must have given.
    pub required_consent: Vec<Purpose>,
    /// Its settings; secrets are references.
    pub settings: Map<String, Value>,
}

/// Returns a worker for tests, with a domain, a route and a cron.
#[cfg(any(test, feature = "testing"))]
pub fn sample(customer: &str) -> Worker {
    let worker = serde_json::json!({
        "customer": customer, "customerName": customer, "labels": {}, "file": format!("customers/{customer}.yaml"),
        "environment": "production", "role": null, "name": format!("c15t-{customer}"), "pack": "consent",
        "account": "default", "namespace": null, "workersDev": true, "domains": [format!("{customer}.example.com")],
        "routes": [{"pattern": format!("{customer}.example.org/*"), "zone": "example.org"}], "trustedOrigins": [],
        "logLevel": "info", "database": {"type": "none"}, "destinations": [], "vars": {}, "secrets": {}, "services": {},
        "crons": ["* * * * *"], "compatibilityDate": "2026-06-01", "compatibilityFlags": [], "observability": {},
        "delivery": "automatic",
    });
    serde_json::from_value(worker).expect("BUG: a worker")
}
