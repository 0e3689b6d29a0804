//! The needs of an imported fleet's previews: the name of their environment where workers know theirs, and hosts.

use serde_json::{Value, json};

use super::Settings;
use crate::FoundWorker;
use flotilla_model::spec::Environment;

/// Replaces variables that have the environment's name in each environment: so they have that of previews, too.
pub(super) fn name_environments(environments: &mut [(Environment, Settings)]) {
    let Some((_, first)) = environments.first().filter(|_| environments.len() > 1) else { return };
    let names: Vec<String> =
        first.get("vars").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()).collect();
    for name in names {
        let is_name = |(environment, settings): &(Environment, Settings)| {
            settings.get("vars").is_some_and(|vars| vars[&name] == environment.name())
        };
        if environments.iter().all(is_name) {
            for (_, settings) in environments.iter_mut() {
                settings["vars"][&name] = json!({"worker": "environment"});
            }
        }
    }
}

/// Returns whether previews would have no hosts in staging, whose settings they take, and would have them in production.
pub(super) fn need_production(found: &[FoundWorker]) -> bool {
    let has_hosts = |worker: &FoundWorker| {
        ["domains", "routes"]
            .into_iter()
            .any(|key| worker.settings.get(key).and_then(Value::as_array).is_some_and(|hosts| !hosts.is_empty()))
    };
    let of = |environment: Environment| found.iter().filter(move |worker| worker.environment == environment);
    of(Environment::Staging).next().is_some()
        && !of(Environment::Staging).any(has_hosts)
        && of(Environment::Production).any(has_hosts)
}
