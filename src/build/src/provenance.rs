//! The provenance of each value of a resolved worker: its place in the files. Pure; follows the merged layers, and knows
//! which values are derived.

use serde_json::Value;

use flotilla_model::customer::{SHARED, TURSO_TOKEN, TURSO_URL, Worker};
use flotilla_model::diagnostic::Place;
use flotilla_spec::layer::Merged;
use flotilla_spec::project::{FLEET_FILE, Fleet, Spec};

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// It is written in a file.
    At(Place),
    /// It is derived from other values.
    Derived,
    /// No file sets it: it is flotilla's default.
    Default,
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Provenance::At(place) => place.fmt(f),
            Provenance::Derived => f.write_str("derived"),
            Provenance::Default => f.write_str("default"),
        }
    }
}

/// The files that a worker was resolved from.
pub struct ProvenanceLookup<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// The customer's spec; none for a worker that all share.
    pub spec: Option<&'a Spec>,
    /// The layers, merged.
    pub merged: Merged<'a>,
    /// The resolved worker.
    pub worker: &'a Worker,
}

impl ProvenanceLookup<'_> {
    /// Returns the provenance of the value at a path of the worker's JSON form.
    pub fn of(&self, path: &[&str]) -> Provenance {
        let found = match path {
            ["customer"] => self.of_spec(&["id"]),
            ["customerName"] => self.of_spec(&["name"]).or_else(|| self.of_spec(&["id"])),
            ["labels", key] => self.of_spec(&["labels", key]).or_else(|| self.of_fleet(&["defaults", "labels", key])),
            ["name"] => {
                let pattern =
                    self.fleet.document.root.get("workerName").is_some().then(|| self.of_fleet(&["workerName"]));
                self.there(&["workerName"]).or(pattern.flatten())
            }
            ["file" | "environment" | "role" | "namespace"] => None,
            ["vars", TURSO_URL] => self.there(&["database", "url"]),
            ["secrets", TURSO_TOKEN] => self.there(&["database", "token", "secret"]),
            ["secrets", key] => self.there(&["secrets", key, "secret"]).or_else(|| self.secret(key)),
            ["vars", key, rest @ ..] => {
                // The address of another worker stands where that worker is named.
                self.there(path).or_else(|| rest.is_empty().then(|| self.there(&["vars", key, "workerUrl"])).flatten())
            }
            [list @ ("domains" | "routes" | "crons" | "compatibilityFlags" | "tailConsumers"), index, rest @ ..] => {
                self.sorted(list, index, rest)
            }
            ["takeOver", index] => {
                let domain = index.parse().ok().and_then(|index| self.worker.take_over.iter().nth(index));
                let index = domain.and_then(|domain| self.worker.domains.iter().position(|other| other == domain));
                index.and_then(|index| self.sorted("domains", &index.to_string(), &["takeOver"]))
            }
            ["queueConsumers", queue, rest @ ..] => self.consumer(queue, rest),
            ["migrations" | "exports", ..] => None,
            ["destinations", index, rest @ ..] => self.destination(index, rest),
            ["database", "binding"] => None,
            path => self.there(path),
        };
        match (found, path) {
            (Some(place), _) => Provenance::At(place),
            (None, ["customer" | "customerName" | "file" | "environment" | "role" | "namespace" | "name"])
            | (None, ["destinations", _, "id"] | ["database", "binding"] | ["migrations" | "exports", ..]) => {
                Provenance::Derived
            }
            (None, _) => Provenance::Default,
        }
    }

    /// Returns the place of a value, if a file sets it.
    fn there(&self, path: &[&str]) -> Option<Place> {
        let (mut value, mut rest) = (self.merged.clone(), path);
        while let Some((step, below)) = rest.split_first() {
            value = value.get(step)?;
            rest = below;
        }
        self.merged.place(path)
    }

    fn of_spec(&self, path: &[&str]) -> Option<Place> {
        let spec = self.spec?;
        spec.document.root.along(path.iter().copied()).1.then(|| spec.document.place_of(path.iter().copied()))
    }

    fn of_fleet(&self, path: &[&str]) -> Option<Place> {
        let document = &self.fleet.document;
        document.root.along(path.iter().copied()).1.then(|| document.place_of(path.iter().copied()))
    }

    /// Returns an entry of a list that is sorted in the worker: the entry of the same value.
    fn sorted(&self, list: &str, index: &str, rest: &[&str]) -> Option<Place> {
        let json = serde_json::to_value(self.worker).ok()?;
        let wanted = &json[list][index.parse::<usize>().ok()?];
        let items = self.merged.get(list)?.to_value();
        // A domain can be an object with its name.
        let index = items.as_array()?.iter().position(|item| item == wanted || item["name"] == *wanted)?.to_string();
        self.there(&[&[list, &index], rest].concat())
    }

    /// Returns a queue that is consumed: its name may be written with placeholders.
    fn consumer(&self, queue: &str, rest: &[&str]) -> Option<Place> {
        let filled = |written: &str| {
            let name = written.replace("{customer}", self.worker.customer.trim_start_matches('_'));
            name.replace("{environment}", self.worker.environment.as_ref())
        };
        let consumers = self.merged.get("queueConsumers")?.to_value();
        let written = consumers.as_object()?.keys().find(|written| filled(written) == queue)?;
        self.there(&[&["queueConsumers", written], rest].concat())
    }

    /// Returns a destination: those that aren't in use here are left out of the worker.
    fn destination(&self, index: &str, rest: &[&str]) -> Option<Place> {
        let wanted = self.worker.destinations.get(index.parse::<usize>().ok()?)?;
        let before = self.worker.destinations.iter().take_while(|other| !std::ptr::eq(*other, wanted));
        let nth = before.filter(|other| other.name == wanted.name && other.kind == wanted.kind).count();
        let items = self.merged.get("destinations")?.to_value();
        let same = |item: &&(usize, &Value)| {
            item.1["name"] == wanted.name.as_str()
                && item.1["type"] == wanted.kind.as_str()
                && item.1.get("settings").is_none_or(|settings| settings.as_object() == Some(&wanted.settings))
        };
        let all: Vec<(usize, &Value)> = items.as_array()?.iter().enumerate().collect();
        let index = all.iter().filter(same).nth(nth)?.0.to_string();
        self.there(&[&["destinations", &index], rest].concat())
    }

    /// Returns a secret that a destination's settings name.
    fn secret(&self, name: &str) -> Option<Place> {
        let items = self.merged.get("destinations")?.to_value();
        for (index, item) in items.as_array()?.iter().enumerate() {
            for (key, setting) in item["settings"].as_object().into_iter().flatten() {
                if setting["secret"] == name {
                    return self.there(&["destinations", &index.to_string(), "settings", key, "secret"]);
                }
            }
        }
        None
    }

    /// Returns the files that it is resolved from.
    pub fn files(&self) -> Vec<String> {
        let mut files = vec![FLEET_FILE.to_owned()];
        if let Some(spec) = self.spec.filter(|_| self.worker.customer != SHARED) {
            for index in &spec.layers {
                files.extend(self.fleet.layers[*index].documents.iter().map(|document| document.file.clone()));
            }
            let own = spec.env_files.iter().filter(|file| file.environment == self.worker.environment);
            files.extend(own.filter(|file| file.document.is_some()).map(|file| file.file.clone()));
            files.push(spec.document.file.clone());
        }
        files
    }
}

/// Returns the differences between two values, as paths with the value before and after.
pub fn differences(before: &Value, after: &Value) -> Vec<(Vec<String>, Option<Value>, Option<Value>)> {
    fn walk(
        path: &mut Vec<String>,
        before: Option<&Value>,
        after: Option<&Value>,
        found: &mut Vec<(Vec<String>, Option<Value>, Option<Value>)>,
    ) {
        let steps: Vec<String> = match (before, after) {
            (before, after) if before == after => return,
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))).cloned().collect()
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => {
                (0..before.len().max(after.len())).map(|index| index.to_string()).collect()
            }
            (before, after) => {
                found.push((path.clone(), before.cloned(), after.cloned()));
                return;
            }
        };
        for step in steps {
            let below = |value: Option<&Value>| match value? {
                Value::Array(items) => items.get(step.parse::<usize>().ok()?).cloned(),
                other => other.get(&step).cloned(),
            };
            let (before, after) = (below(before), below(after));
            path.push(step);
            walk(path, before.as_ref(), after.as_ref(), found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    walk(&mut Vec::new(), Some(before), Some(after), &mut found);
    found
}

/// Returns a path in the author's notation: `destinations[0].settings.pixelId`.
pub fn notation(path: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for step in path {
        let step = step.as_ref();
        if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) {
            text += &format!("[{step}]");
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text += step;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_told_by_path() {
        let before = json!({"a": 1, "b": [1, {"c": "x"}], "d": {}});
        let after = json!({"a": 1, "b": [2, {"c": "y"}, 3], "e": true});
        let described: Vec<String> = differences(&before, &after)
            .iter()
            .map(|(path, before, after)| format!("{} {before:?} {after:?}", notation(path)))
            .collect();
        assert_eq!(
            described,
            [
                "b[0] Some(Number(1)) Some(Number(2))",
                "b[1].c Some(String(\"x\")) Some(String(\"y\"))",
                "b[2] None Some(Number(3))",
                "d Some(Object {}) None",
                "e None Some(Bool(true))",
            ]
        );
        assert!(differences(&before, &before).is_empty());
    }
}
