//! The customer as it is: every default applied, every name derived. Nothing here means "use the default" any
//! more. Knows no files and no templates.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::spec::{Delivery, Environment, LogLevel, Observability, Purpose, Route};

/// The variable by which a worker tells the digest of its bundle.
pub const DIGEST_VARIABLE: &str = "FLOTILLA_DIGEST";
/// The variable with the address of a Turso database.
pub const TURSO_URL: &str = "TURSO_DATABASE_URL";
/// The secret with the token of a Turso database.
pub const TURSO_TOKEN: &str = "TURSO_AUTH_TOKEN";
/// The binding of a D1 database.
pub const D1_BINDING: &str = "DB";

/// One deployable unit: a customer in an environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// Where it runs.
    pub environment: Environment,
    /// The worker's name at Cloudflare.
    pub name: String,
    /// The pack's name in fleet.yaml.
    pub pack: String,
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The dispatch namespace, if the account has one.
    pub namespace: Option<String>,
    /// Whether it answers on workers.dev.
    pub workers_dev: bool,
    /// Its custom domains, sorted.
    pub domains: BTreeSet<String>,
    /// Its routes, sorted.
    pub routes: BTreeSet<Route>,
    /// Who may call it from a browser, in the order of the spec.
    pub trusted_origins: Vec<String>,
    /// How much it logs.
    pub log_level: LogLevel,
    /// Its database.
    pub database: Database,
    /// Its destinations in this environment, in the order of the spec.
    pub destinations: Vec<Destination>,
    /// Its variables, those of the database included.
    pub vars: BTreeMap<String, Value>,
    /// Its secrets: the binding's name → the name under which the value is looked up.
    pub secrets: BTreeMap<String, String>,
    /// When the clock starts it, sorted.
    pub crons: BTreeSet<String>,
    /// The day whose runtime behaviour it gets.
    pub compatibility_date: String,
    /// Flags of the runtime, sorted.
    pub compatibility_flags: BTreeSet<String>,
    /// Whether its logs are kept.
    pub observability: Observability,
    /// Who deploys it.
    pub delivery: Delivery,
}

impl Worker {
    /// The folder under out/ with its files: `production/acme`.
    pub fn folder(&self) -> String {
        format!("{}/{}", self.environment, self.customer)
    }
}

/// A worker's database.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
        /// The database's id.
        id: String,
    },
    /// None.
    None,
}

/// A destination that is in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
