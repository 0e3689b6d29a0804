//! The destinations of a worker. Knows one worker at a time.

use std::collections::BTreeMap;

use serde_json::Value;

use flotilla_model::customer::{Destination, SHARED};
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_model::spec;
use flotilla_spec::project::unknown;
use flotilla_spec::yaml::Node;

use super::worker::{Secrets, Types, WorkerResolver};

impl WorkerResolver<'_, '_> {
    /// Reports an environment of a destination that the customer doesn't have, where the spec itself names it: a layer's destination may be
    /// for some of the customers.
    fn environments_of(&mut self, index: &str, destination: &spec::Destination) {
        let Some(standing) = self.target.standing.as_ref().filter(|_| self.target.subject.id != SHARED) else { return };
        let named = |key: &str| {
            let of_key = if key == "environment" { destination.environment.as_slice() } else { &[] };
            let listed = destination.environments.iter().flatten().filter(|_| key == "environments");
            of_key.iter().chain(listed).copied().collect::<Vec<_>>()
        };
        let mut found = Vec::new();
        for key in ["environment", "environments"] {
            for (at, environment) in named(key).into_iter().enumerate() {
                if !environment.is_own() || standing.contains(&environment) {
                    continue;
                }
                let at = at.to_string();
                let path = ["destinations", index, key, at.as_str()];
                let place = self.place(if key == "environment" { &path[..3] } else { &path });
                if place.file == self.target.subject.place.file {
                    found.push(unknown(
                        "environment",
                        environment.name(),
                        place,
                        standing.iter().map(|own| own.name()),
                    ));
                }
            }
        }
        found.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    pub(super) fn destinations(&mut self, types: Types<'_>, secrets: &mut Secrets) -> Vec<Destination> {
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        let mut resolved = Vec::new();
        for (index, destination) in self.settings.destinations.iter().flatten().enumerate() {
            let index = index.to_string();
            if destination.environment.is_some() && destination.environments.is_some() {
                let place = self.place(&["destinations", &index, "environment"]);
                let message = "`environment` and `environments` both define where the destination exists";
                self.push(Diagnostic::error(Code::Conflict, place, message, "keep `environments`"));
            }
            self.environments_of(&index, destination);
            let Some(kind) = types.find(&destination.kind) else {
                if let Some(known) = types.without(&destination.kind) {
                    let place = self.place(&["destinations", &index, "type"]);
                    self.push(unknown("destination type", &destination.kind, place, known.into_iter()));
                }
                continue;
            };
            let settings = Value::Object(destination.settings.clone());
            let found = match self.target.merged.node(&["destinations", &index]) {
                // Nothing is missing where it was left out as faulty.
                Some((_, node)) if node.get("settings").is_some_and(Node::is_left_out) => Vec::new(),
                Some((document, node)) => {
                    kind.check(document, node.get("settings").unwrap_or(node), &settings, &destination.kind)
                }
                None => Vec::new(),
            };
            let valid = found.is_empty();
            self.batch.resolved.diagnostics.extend(found);
            let here = destination.environment.is_none_or(|environment| environment == self.target.environment)
                && destination.environments.as_ref().is_none_or(|all| all.contains(&self.target.environment));
            if !valid || !here || destination.enabled == Some(false) || destination.deleted == Some(true) {
                continue;
            }
            for setting in &kind.secrets {
                let Some(name) = destination.settings.get(setting).and_then(|value| value["secret"].as_str()) else {
                    continue;
                };
                let place = self.place(&["destinations", &index, "settings", setting]);
                match secrets.get(name) {
                    Some((other, _)) if other != name => {
                        let message =
                            format!("`{name}` is the secret `{name}` here, but the secret `{other}` under `secrets`");
                        self.push(Diagnostic::error(Code::Conflict, place, message, "give one of them another name"));
                    }
                    Some(_) => {}
                    None => {
                        secrets.insert(name.to_owned(), (name.to_owned(), place));
                    }
                }
            }
            let number = used.entry(&destination.kind).or_insert(0);
            *number += 1;
            resolved.push(Destination {
                id: match *number {
                    1 => destination.kind.clone(),
                    n => format!("{}-{n}", destination.kind),
                },
                name: destination.name.clone(),
                kind: destination.kind.clone(),
                required_consent: destination.required_consent.clone().unwrap_or_else(|| kind.required_consent.clone()),
                settings: destination.settings.clone(),
            });
        }
        resolved
    }
}
