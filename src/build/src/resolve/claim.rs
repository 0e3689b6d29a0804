//! What only one worker of the fleet, or only one customer, can have. Knows nothing of where it comes from.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::Place;
use flotilla_model::spec::Environment;

/// Something that only one worker of the fleet, or only one customer, can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// What.
    pub thing: Thing,
    /// Where it is claimed.
    pub place: Place,
    /// Who claims it.
    pub by: By,
}

/// A worker that claims something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct By {
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The role.
    pub role: Option<String>,
}

impl By {
    /// Which of its customer's workers: `staging`, or `web`, or `web (staging)`.
    pub fn own(&self) -> String {
        match (&self.role, self.environment) {
            (None, environment) => environment.to_string(),
            (Some(role), Environment::Production) => role.clone(),
            (Some(role), environment) => format!("{role} ({environment})"),
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let By { customer, environment, role } = self;
        match role {
            Some(role) if customer == SHARED => write!(f, "the shared worker {role} ({environment})"),
            Some(role) => write!(f, "{customer} ({role}, {environment})"),
            None => write!(f, "{customer} ({environment})"),
        }
    }
}

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing {
    /// A custom domain, and with it its host.
    Domain(String),
    /// A host that the dispatch worker of a namespace leads to a worker.
    Entry(String),
    /// A route pattern.
    Route(String),
    /// A worker's name in an account.
    WorkerName {
        /// The account's name.
        account: String,
        /// The worker's name.
        name: String,
    },
    /// A database; a customer's workers may share one.
    Database(String),
    /// The name of a D1 database; a customer's workers may share one.
    DatabaseName {
        /// The account's name.
        account: String,
        /// The database's name.
        name: String,
    },
    /// The secrets that are a customer's own: each customer has those of its id.
    Secrets(String),
    /// The host of a route; a customer's workers may share one.
    Host(String),
}

impl Thing {
    /// Whether a customer's workers may share it.
    pub fn is_customers(&self) -> bool {
        matches!(self, Thing::Database(_) | Thing::DatabaseName { .. } | Thing::Secrets(_) | Thing::Host(_))
    }

    /// A digest of it: the same for things that exclude each other, as a custom domain and its host do.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Thing::Domain(host) | Thing::Entry(host) | Thing::Host(host) => ("host", host).hash(&mut hasher),
            other => other.hash(&mut hasher),
        }
        hasher.finish()
    }
}
