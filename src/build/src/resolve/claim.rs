//! Resources that only one worker of the fleet, or only one customer, can have. Knows nothing of where they come from.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::Place;
use flotilla_model::spec::Environment;

/// A claim to a resource that only one worker of the fleet, or only one customer, can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueClaim {
    /// The resource.
    pub resource: ClaimedResource,
    /// The place at which it is claimed.
    pub place: Place,
    /// The worker that claims it.
    pub claimant: Claimant,
}

/// A worker that claims a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The role.
    pub role: Option<String>,
}

impl Claimant {
    /// Returns what tells it apart from the other workers of its customer: `staging`, or `web`, or `web (staging)`.
    pub fn own(&self) -> String {
        match (&self.role, self.environment) {
            (None, environment) => environment.to_string(),
            (Some(role), Environment::Production) => role.clone(),
            (Some(role), environment) => format!("{role} ({environment})"),
        }
    }
}

impl std::fmt::Display for Claimant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Claimant { customer, environment, role } = self;
        match role {
            Some(role) if customer == SHARED => write!(f, "the shared worker {role} ({environment})"),
            Some(role) => write!(f, "{customer} ({role}, {environment})"),
            None => write!(f, "{customer} ({environment})"),
        }
    }
}

/// A resource that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimedResource {
    /// A custom domain, and with it its host.
    Domain(String),
    /// A host that the dispatch worker of a namespace points to a worker.
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
    /// The one consumer of a queue.
    QueueConsumer {
        /// The account's name.
        account: String,
        /// The queue's name.
        queue: String,
    },
    /// A workflow, which one worker defines.
    Workflow {
        /// The account's name.
        account: String,
        /// The workflow's name.
        name: String,
    },
}

impl ClaimedResource {
    /// Returns whether the workers of one customer may share it.
    pub fn is_customers(&self) -> bool {
        matches!(
            self,
            ClaimedResource::Database(_)
                | ClaimedResource::DatabaseName { .. }
                | ClaimedResource::Secrets(_)
                | ClaimedResource::Host(_)
        )
    }

    /// Returns a digest of it: the same for resources that exclude each other, as a custom domain and its host do.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            ClaimedResource::Domain(host) | ClaimedResource::Entry(host) | ClaimedResource::Host(host) => {
                ("host", host).hash(&mut hasher)
            }
            other => other.hash(&mut hasher),
        }
        hasher.finish()
    }
}
