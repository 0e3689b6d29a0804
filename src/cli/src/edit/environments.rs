//! `flotilla edit`: adds and removes the environments of a customer.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use flotilla_deploy::state::State;
use flotilla_model::customer::Worker;
use flotilla_model::failure::Failure;
use flotilla_model::spec::Environment;
use flotilla_spec::edit::Change;
use flotilla_spec::yaml::Node;

use super::super::authoring::Workspace;
use super::super::ui::clean;
use super::Editor;
use super::deployment::{at, value};

/// The settings that name hosts: two environments never share one.
const HOSTS: [&str; 3] = ["domains", "routes", "hosts"];

/// The environments that were added and removed.
#[derive(Default)]
pub(super) struct EnvironmentChanges {
    /// The environments that were added.
    pub added: BTreeSet<Environment>,
    /// The environments that were removed.
    pub removed: BTreeSet<Environment>,
}

/// Returns what the changes do to the cloud, line by line.
pub(super) fn effects(
    workspace: &Workspace,
    customer: &str,
    changes: &EnvironmentChanges,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for environment in &changes.added {
        lines.push(format!("{environment}: the next deploy creates its workers"));
    }
    if changes.removed.is_empty() {
        return Ok(lines);
    }
    let deployed = State::read(&workspace.cloud.state)?.deployed()?;
    for environment in &changes.removed {
        let live = deployed.iter().filter(|(_, live)| live.customer == customer && live.environment == *environment);
        let workers: Vec<String> = live.map(|((_, worker), _)| clean(worker)).collect();
        lines.push(match workers.as_slice() {
            [] => format!("{environment}: nothing is deployed, so nothing is deleted"),
            [worker] => format!(
                "{environment}: {worker} stays deployed until `flotilla prune` or `flotilla deploy --prune` deletes it"
            ),
            workers => format!(
                "{environment}: {} stay deployed until `flotilla prune` or `flotilla deploy --prune` deletes them",
                workers.join(", ")
            ),
        });
    }
    Ok(lines)
}

impl Editor<'_> {
    /// Returns the customer's workers before the changes.
    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workspace.workers.iter().filter(|worker| worker.customer == self.deployment.worker.customer)
    }

    /// Returns the customer's environments with the changes so far.
    fn environments(&self) -> BTreeSet<Environment> {
        let changes = &self.edits.environments;
        let before = self.workers().map(|worker| worker.environment).filter(|before| !changes.removed.contains(before));
        before.chain(changes.added.iter().copied()).collect()
    }

    /// Adds an environment. It gets no hosts of the others: a host points to one worker.
    pub(super) fn add_environment(&mut self, environment: Environment) -> Result<(), Failure> {
        let present = self.environments();
        if present.contains(&environment) {
            let customer = &self.deployment.worker.customer;
            return Err(Failure::usage(format!("{customer} already has the environment {environment}")));
        }
        let text = self.text()?;
        let spec = value(&text);
        let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let names_environments = spec["environments"].as_object().is_some_and(|named| !named.is_empty());
        if !names_environments && present.contains(&Environment::Production) {
            // Otherwise, it isn't defined whether production continues to exist.
            self.spec(Change::Set(path(&["environments", "production"]), json!({})))?;
        }
        let mut settings = Map::new();
        for key in HOSTS.into_iter().filter(|key| is_filled(&spec[*key])) {
            settings.insert(key.to_owned(), json!([]));
        }
        self.spec(Change::Set(path(&["environments", environment.as_ref()]), Value::Object(settings)))?;
        let of_roles = spec["workers"].as_object().into_iter().flatten();
        for (role, own) in of_roles {
            for key in HOSTS.into_iter().filter(|key| is_filled(&own[*key])) {
                self.spec(Change::Set(path(&["workers", role, "environments", environment.as_ref(), key]), json!([])))?;
            }
        }
        let changes = &mut self.edits.environments;
        if !changes.removed.remove(&environment) {
            changes.added.insert(environment);
        }
        Ok(())
    }

    /// Removes an environment, with all that the spec sets for it alone.
    pub(super) fn remove_environment(&mut self, environment: Environment) -> Result<(), Failure> {
        let customer = self.deployment.worker.customer.clone();
        let present = self.environments();
        if !present.contains(&environment) {
            let known: Vec<&str> = present.iter().map(|environment| environment.name()).collect();
            return Err(Failure::usage(format!("{customer} has no environment {environment}"))
                .hint(format!("it has: {}", known.join(", "))));
        }
        if present.len() == 1 {
            return Err(Failure::usage(format!("{environment} is the only environment of {customer}"))
                .hint(format!("add another one first, or delete the customer: `flotilla destroy {customer}`")));
        }
        let text = self.text()?;
        let spec = value(&text);
        let roles = spec["workers"].as_object().into_iter().flatten().map(|(role, _)| role.clone());
        let levels = roles.map(|role| vec!["workers".to_owned(), role]).chain([Vec::new()]);
        // Production exists unless it is removed, and so does an environment that a layer adds: leaving it out is not enough.
        let stays = environment == Environment::Production || self.is_inherited(environment);
        for level in levels {
            let key: Vec<String> = level.iter().cloned().chain(["environments".to_owned()]).collect();
            let whole: Vec<String> = key.iter().cloned().chain([environment.to_string()]).collect();
            let named = at(&spec, &key).and_then(Value::as_object);
            let is_named = named.is_some_and(|named| named.contains_key(environment.as_ref()));
            match (is_named, stays && level.is_empty()) {
                (_, true) => self.spec(Change::Set(whole, Value::Null))?,
                (true, false) if named.is_some_and(|named| named.len() == 1) => self.spec(Change::Remove(key))?,
                (true, false) => self.spec(Change::Remove(whole))?,
                (false, false) => {}
            }
        }
        let changes = &mut self.edits.environments;
        if !changes.added.remove(&environment) {
            changes.removed.insert(environment);
        }
        Ok(())
    }

    /// Returns whether fleet.yaml or a layer adds an environment, perhaps to other customers alone.
    fn is_inherited(&self, environment: Environment) -> bool {
        let fleet = &self.workspace.fleet;
        let names = |node: &Node| node.along(["environments", environment.as_ref()]).1;
        let layers = fleet.layers.iter().flat_map(|layer| &layer.documents);
        fleet.document.root.get("defaults").is_some_and(names)
            || layers.into_iter().any(|document| names(&document.root))
    }

    /// Asks which environments to add and to remove.
    pub(super) fn ask_environments(&mut self) -> Result<(), Failure> {
        loop {
            let present = self.environments();
            // Any name is one: those that the fleet has are offered.
            let of_fleet = self.workspace.workers.iter().map(|worker| worker.environment);
            let all: BTreeSet<Environment> =
                of_fleet.chain(Environment::USUAL).chain(present.iter().copied()).collect();
            let choices: Vec<(Environment, bool)> =
                all.into_iter().map(|environment| (environment, present.contains(&environment))).collect();
            let line = |(environment, is_present): &(Environment, bool)| match is_present {
                true => format!("remove {environment}"),
                false => format!("add {environment}"),
            };
            let items: Vec<String> = std::iter::once("no more".to_owned()).chain(choices.iter().map(line)).collect();
            let (environment, is_present) = match self.prompter.select("Environment", &items, 0)? {
                0 => return Ok(()),
                index => choices[index - 1],
            };
            let changed = match is_present {
                true => self.remove_environment(environment),
                false => self.add_environment(environment),
            };
            if let Err(failure) = changed {
                self.prompter.rejected(&failure);
            }
        }
    }
}

/// Returns whether a spec sets a list that isn't empty.
fn is_filled(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
}
