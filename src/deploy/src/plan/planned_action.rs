//! The actions of a plan, without their reasons: its digest is made of them, and they are written to its file. Pure.

use serde::{Deserialize, Serialize};

use super::{Action, Change, DatabaseAction, HostChange, PlannedMigration, Step};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::platform::Home;
use flotilla_model::spec::Environment;

/// A change without its reasons: the input of a plan's digest. So the digest is the same wherever the same plan is
/// made, whatever history the state there has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedAction {
    /// The customer.
    pub customer: String,
    /// The environment.
    pub environment: Environment,
    /// The worker's name.
    pub worker: String,
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The beginning of a digest of where the worker belongs: an account's id isn't shown.
    pub home: String,
    /// The action.
    pub action: Action,
    /// The requests, in their order.
    pub steps: Vec<Step>,
    /// The digest that is live afterwards, or was before a deletion.
    pub digest: Digest,
    /// The digest that was live before, if there was one.
    pub was: Option<Digest>,
    /// The wave that it belongs to, from 0.
    pub wave: usize,
    /// The migrations of Durable Object classes that its upload goes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<PlannedMigration>,
    /// Whether it destroys the data of Durable Objects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroys_objects: bool,
    /// Whether it may overwrite a worker that this fleet doesn't manage.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopts: bool,
}

impl PlannedAction {
    /// Returns what a change does.
    pub fn of(change: &Change) -> PlannedAction {
        PlannedAction {
            customer: change.customer.clone(),
            environment: change.environment,
            worker: change.worker.clone(),
            account: change.account.clone(),
            home: short_home(&change.home),
            action: change.action,
            steps: change.steps.clone(),
            digest: change.digest,
            was: change.was,
            wave: change.wave,
            migration: change
                .migration
                .as_ref()
                .map(|migration| PlannedMigration { all: Vec::new(), ..migration.clone() }),
            destroys_objects: change.destroys_objects,
            adopts: change.adopts,
        }
    }

    /// Returns the digest of a plan that does this.
    pub fn digest(
        actions: impl IntoIterator<Item = PlannedAction>,
        databases: impl IntoIterator<Item = DatabaseAction>,
        hosts: impl IntoIterator<Item = HostAction>,
    ) -> Digest {
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("BUG: an action is JSON");
        let framed = Framed::new("plan");
        let framed =
            actions.into_iter().fold(framed, |framed, action| framed.field(&json(serde_json::to_vec(&action))));
        let databases = databases.into_iter().map(|database| json(serde_json::to_vec(&database)));
        let framed = databases.fold(framed, |framed, database| framed.field(&database));
        let hosts = hosts.into_iter().map(|host| json(serde_json::to_vec(&host)));
        hosts.fold(framed, |framed, host| framed.field(&host)).finish()
    }
}

/// A change of a host. The worker that it pointed to before isn't part of it: not every machine's state has that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostAction {
    /// The account's name in fleet.yaml.
    pub account: String,
    /// The beginning of a digest of where its worker belongs.
    pub home: String,
    /// The KV namespace, by its title.
    pub table: String,
    /// The host.
    pub host: String,
    /// The worker that it points to from now on.
    pub to: Option<String>,
    /// The wave after whose uploads it is written.
    pub wave: usize,
}

impl HostAction {
    /// Returns what a change of a host does.
    pub fn of(change: &HostChange) -> HostAction {
        HostAction {
            account: change.account.clone(),
            home: short_home(&change.home),
            table: change.table.clone(),
            host: change.host.clone(),
            to: change.to.clone(),
            wave: change.wave,
        }
    }
}

/// Returns the beginning of a digest of a home.
fn short_home(home: &Home) -> String {
    let framed = Framed::new("home").field(home.account_id.as_bytes());
    home.namespace.iter().fold(framed, |framed, name| framed.field(name.as_bytes())).finish().short()
}
