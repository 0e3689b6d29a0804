//! The Durable Object classes of a worker's code: the migrations that lead to them, or their declaration. Knows Cloudflare's rules for both;
//! not where they are written.
//!
//! Sources: wrangler 4.164, its config-schema.json and `getMigrationsToUpload`; Cloudflare docs, Durable Objects › Migrations (2026).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A migration: what happens to classes of Durable Objects in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Migration {
    /// Its name, which no other migration of the worker has. Cloudflare remembers the last one that it applied.
    #[schemars(length(min = 1))]
    pub tag: String,
    /// New classes whose objects keep their data in SQLite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = "^[A-Za-z_$][A-Za-z0-9_$]*$")))]
    pub new_sqlite_classes: Vec<String>,
    /// New classes whose objects have the older key-value storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = "^[A-Za-z_$][A-Za-z0-9_$]*$")))]
    pub new_classes: Vec<String>,
    /// Classes that get another name, and keep their objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renamed_classes: Vec<RenamedClass>,
    /// Classes of other workers, whose objects become those of a class of this worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transferred_classes: Vec<TransferredClass>,
    /// Classes that are deleted, with the data of all their objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = "^[A-Za-z_$][A-Za-z0-9_$]*$")))]
    pub deleted_classes: Vec<String>,
}

/// A class that gets another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RenamedClass {
    /// The name before.
    pub from: String,
    /// The new name.
    pub to: String,
}

/// A class that is taken over from another worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct TransferredClass {
    /// Its name in the other worker.
    pub from: String,
    /// The other worker. `{customer}` and `{environment}` are replaced.
    pub from_script: String,
    /// Its name in this worker.
    pub to: String,
}

/// A class that is declared, without migrations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ClassExport {
    /// What to do with the class. Default: `created`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ClassState>,
    /// Where its objects keep their data. Required for `created` and `expecting-transfer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ClassStorage>,
    /// renamed: the class that has its objects from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<String>,
    /// transferred: the worker that has its objects from now on. `{customer}` and `{environment}` are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transferred_to: Option<String>,
    /// expecting-transfer: the worker that its objects come from. `{customer}` and `{environment}` are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_from: Option<String>,
}

/// The state of a declared class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum ClassState {
    /// It exists.
    #[default]
    Created,
    /// It is deleted, with the data of all its objects.
    Deleted,
    /// Another class has its objects.
    Renamed,
    /// Another worker has its objects.
    Transferred,
    /// It exists, and takes over the objects of another worker's class.
    ExpectingTransfer,
}

/// Where the objects of a class keep their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum ClassStorage {
    /// In SQLite.
    Sqlite,
    /// In the older key-value storage.
    LegacyKv,
}

impl Migration {
    /// Returns it as the API and wrangler write it.
    pub fn api(&self) -> Value {
        let mut value = json!({ "tag": self.tag });
        let lists = [
            ("new_classes", &self.new_classes),
            ("new_sqlite_classes", &self.new_sqlite_classes),
            ("deleted_classes", &self.deleted_classes),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            value[key] = json!(list);
        }
        if !self.renamed_classes.is_empty() {
            value["renamed_classes"] = json!(self.renamed_classes);
        }
        let transferred =
            |class: &TransferredClass| json!({"from": class.from, "from_script": class.from_script, "to": class.to});
        if !self.transferred_classes.is_empty() {
            value["transferred_classes"] = self.transferred_classes.iter().map(transferred).collect();
        }
        value
    }

    /// Reads one that the API or wrangler wrote.
    pub fn of_api(value: &Value) -> Option<Migration> {
        let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
        let list = |key: &str| value[key].as_array().into_iter().flatten();
        let names = |key: &str| list(key).map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        let renamed = list("renamed_classes")
            .map(|class| Some(RenamedClass { from: text(class, "from")?, to: text(class, "to")? }));
        let transferred = list("transferred_classes").map(|class| {
            let (from, from_script, to) = (text(class, "from")?, text(class, "from_script")?, text(class, "to")?);
            Some(TransferredClass { from, from_script, to })
        });
        Some(Migration {
            tag: text(value, "tag")?,
            new_sqlite_classes: names("new_sqlite_classes")?,
            new_classes: names("new_classes")?,
            renamed_classes: renamed.collect::<Option<_>>()?,
            transferred_classes: transferred.collect::<Option<_>>()?,
            deleted_classes: names("deleted_classes")?,
        })
    }

    /// Returns the classes that it names, each as often as it does.
    fn named(&self) -> impl Iterator<Item = &str> {
        let lists = self.new_classes.iter().chain(&self.new_sqlite_classes).chain(&self.deleted_classes);
        let renamed = self.renamed_classes.iter().flat_map(|class| [&class.from, &class.to]);
        lists.chain(renamed).chain(self.transferred_classes.iter().map(|class| &class.to)).map(String::as_str)
    }
}

impl ClassExport {
    /// Returns its state.
    pub fn state(&self) -> ClassState {
        self.state.unwrap_or_default()
    }

    /// Returns whether the class exists.
    pub fn is_live(&self) -> bool {
        matches!(self.state(), ClassState::Created | ClassState::ExpectingTransfer)
    }

    /// Returns it as the API and wrangler write it.
    pub fn api(&self) -> Value {
        let mut value = json!({"type": "durable-object"});
        let fields = [
            ("state", self.state.map(|state| json!(state))),
            ("storage", self.storage.map(|storage| json!(storage))),
            ("renamed_to", self.renamed_to.as_ref().map(|name| json!(name))),
            ("transferred_to", self.transferred_to.as_ref().map(|name| json!(name))),
            ("transfer_from", self.transfer_from.as_ref().map(|name| json!(name))),
        ];
        for (key, field) in fields {
            if let Some(field) = field {
                value[key] = field;
            }
        }
        value
    }

    /// Reads one that the API or wrangler wrote; none for exports that are no Durable Object classes, and for fields that aren't known.
    pub fn of_api(value: &Value) -> Option<ClassExport> {
        const FIELDS: [&str; 6] = ["type", "state", "storage", "renamed_to", "transferred_to", "transfer_from"];
        let object = value.as_object().filter(|object| object.keys().all(|key| FIELDS.contains(&key.as_str())))?;
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        (text("type")? == "durable-object").then_some(())?;
        let known = |key: &str| object.get(key).cloned().unwrap_or(Value::Null);
        Some(ClassExport {
            state: serde_json::from_value(known("state")).ok()?,
            storage: serde_json::from_value(known("storage")).ok()?,
            renamed_to: text("renamed_to"),
            transferred_to: text("transferred_to"),
            transfer_from: text("transfer_from"),
        })
    }

    /// Returns what is wrong with it among these, with the help.
    fn fault(&self, name: &str, all: &BTreeMap<String, ClassExport>) -> Option<Fault> {
        let fault = |message: String, help: &str| Some((message, help.to_owned()));
        let given = [
            ("storage", self.storage.is_some()),
            ("renamedTo", self.renamed_to.is_some()),
            ("transferredTo", self.transferred_to.is_some()),
            ("transferFrom", self.transfer_from.is_some()),
        ];
        let (state, needed): (_, &[&str]) = match self.state() {
            ClassState::Created => ("created", &["storage"]),
            ClassState::Deleted => ("deleted", &[]),
            ClassState::Renamed => ("renamed", &["renamedTo"]),
            ClassState::Transferred => ("transferred", &["transferredTo"]),
            ClassState::ExpectingTransfer => ("expecting-transfer", &["storage", "transferFrom"]),
        };
        if let Some(missing) = needed.iter().find(|key| !given.contains(&(key, true))) {
            return fault(format!("the class `{name}`, which is {state}, has no `{missing}`"), "add it");
        }
        if let Some((key, _)) = given.iter().find(|(key, is_given)| *is_given && !needed.contains(key)) {
            return fault(format!("the class `{name}`, which is {state}, can't have `{key}`"), "remove it");
        }
        let target = self.renamed_to.as_ref()?;
        match all.get(target).is_some_and(|export| export.state() == ClassState::Created) {
            true => None,
            false => fault(
                format!("the class `{name}` is renamed to `{target}`, which isn't declared as `created`"),
                "declare the class that now has the objects",
            ),
        }
    }
}

/// A message about migrations or declared classes, and how to fix it.
pub type Fault = (String, String);

/// Returns the classes that exist after these migrations.
pub fn classes<'m>(migrations: impl IntoIterator<Item = &'m Migration>) -> BTreeMap<&'m str, ClassStorage> {
    let mut classes = BTreeMap::new();
    for migration in migrations {
        for class in &migration.deleted_classes {
            classes.remove(class.as_str());
        }
        for RenamedClass { from, to } in &migration.renamed_classes {
            let storage = classes.remove(from.as_str()).unwrap_or(ClassStorage::Sqlite);
            classes.insert(to.as_str(), storage);
        }
        let new = |classes: &'m [String], storage| classes.iter().map(move |class| (class.as_str(), storage));
        classes.extend(new(&migration.new_classes, ClassStorage::LegacyKv));
        classes.extend(new(&migration.new_sqlite_classes, ClassStorage::Sqlite));
        classes.extend(migration.transferred_classes.iter().map(|class| (class.to.as_str(), ClassStorage::Sqlite)));
    }
    classes
}

/// Returns what is wrong with migrations, each with the index of the migration: what Cloudflare would reject for a new worker.
pub fn migration_faults(migrations: &[Migration]) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    for (index, migration) in migrations.iter().enumerate() {
        let tag = &migration.tag;
        let mut fault = |message: String, help: &str| faults.push((index, (message, help.to_owned())));
        if migrations[..index].iter().any(|other| other.tag == *tag) {
            let help =
                "give each migration a tag of its own: Cloudflare uses it to know which migrations it has applied";
            fault(format!("the tag `{tag}` is already used by an earlier migration"), help);
        }
        let mut once = BTreeSet::new();
        let mut twice: BTreeSet<&str> = migration.named().filter(|name| !once.insert(*name)).collect();
        for class in &twice {
            let help = "a migration can change a class only once: move the other change to a later migration";
            fault(format!("the migration `{tag}` changes the class `{class}` twice"), help);
        }
        let before = classes(&migrations[..index]);
        let created = migration.new_classes.iter().chain(&migration.new_sqlite_classes);
        let taken = migration.renamed_classes.iter().map(|class| &class.to);
        let appear = created.chain(taken).chain(migration.transferred_classes.iter().map(|class| &class.to));
        for class in appear.filter(|class| before.contains_key(class.as_str())) {
            if twice.insert(class) {
                let help = "an existing class needs no migration: remove it here, or name another class";
                fault(format!("the migration `{tag}` creates the class `{class}`, which already exists"), help);
            }
        }
        let renamed = migration.renamed_classes.iter().map(|class| &class.from);
        for class in
            migration.deleted_classes.iter().chain(renamed).filter(|class| !before.contains_key(class.as_str()))
        {
            if twice.insert(class) {
                let help =
                    "add the migration that created it before this one: a new customer's worker starts without classes";
                fault(
                    format!(
                        "the migration `{tag}` deletes or renames the class `{class}`, which no earlier migration created"
                    ),
                    help,
                );
            }
        }
    }
    faults
}

/// Returns what is wrong with declared classes, each with the class.
pub fn export_faults(exports: &BTreeMap<String, ClassExport>) -> Vec<(&str, Fault)> {
    exports.iter().filter_map(|(name, export)| Some((name.as_str(), export.fault(name, exports)?))).collect()
}

/// The live tag isn't that of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTag(pub String);

/// Returns the migrations that a worker still has to go through, given its live tag.
pub fn pending<'m>(migrations: &'m [Migration], live: Option<&str>) -> Result<&'m [Migration], UnknownTag> {
    match live.filter(|tag| !tag.is_empty()) {
        None => Ok(migrations),
        Some(_) if migrations.is_empty() => Ok(&[]),
        Some(tag) => match migrations.iter().position(|migration| migration.tag == tag) {
            Some(index) => Ok(&migrations[index + 1..]),
            None => Err(UnknownTag(tag.to_owned())),
        },
    }
}

/// Returns how many of these migrations one upload can go through: not those from the first one on that deletes a class which the live
/// worker is still bound to. Cloudflare requires an earlier upload that unbinds it (error 10061). With the number come these classes.
pub fn at_once<'m>(pending: &'m [Migration], bound: &BTreeSet<String>) -> (usize, BTreeSet<&'m str>) {
    // A class that is renamed first is bound under its old name.
    let mut bound: BTreeSet<&str> = bound.iter().map(String::as_str).collect();
    let (mut count, mut held) = (pending.len(), BTreeSet::new());
    for (index, migration) in pending.iter().enumerate() {
        let deleted = migration.deleted_classes.iter().map(String::as_str).filter(|class| bound.contains(class));
        held.extend(deleted);
        if !held.is_empty() {
            count = count.min(index);
        }
        for RenamedClass { from, to } in &migration.renamed_classes {
            if bound.remove(from.as_str()) {
                bound.insert(to);
            }
        }
    }
    (count, held)
}

/// Returns the migrations of an upload as it is sent, after the live tag.
pub fn payload(live: Option<&str>, steps: &[Migration]) -> Option<Value> {
    let last = steps.last()?;
    let steps = steps.iter().map(|migration| {
        let mut step = migration.api();
        step.as_object_mut().map(|step| step.remove("tag"));
        step
    });
    let mut payload = json!({"new_tag": last.tag, "steps": steps.collect::<Vec<Value>>()});
    if let Some(live) = live.filter(|tag| !tag.is_empty()) {
        payload["old_tag"] = live.into();
    }
    Some(payload)
}

/// Returns the migrations in a bundle's metadata.
pub fn migrations_of(metadata: &Value) -> Vec<Migration> {
    metadata["migrations"].as_array().into_iter().flatten().filter_map(Migration::of_api).collect()
}

/// Returns the declared Durable Object classes in a bundle's metadata.
pub fn exports_of(metadata: &Value) -> BTreeMap<String, ClassExport> {
    let all = metadata["exports"].as_object().into_iter().flatten();
    all.filter_map(|(name, export)| Some((name.clone(), ClassExport::of_api(export)?))).collect()
}

/// Returns the classes of a worker's own that metadata binds; `worker` is its name.
pub fn bound_classes(metadata: &Value, worker: &str) -> BTreeSet<String> {
    let bindings = metadata["bindings"].as_array().into_iter().flatten();
    let is_own = |binding: &&Value| {
        let script = binding["script_name"].as_str();
        binding["type"] == "durable_object_namespace"
            && script.is_none_or(|script| script.is_empty() || script == worker)
    };
    bindings.filter(is_own).filter_map(|binding| binding["class_name"].as_str().map(str::to_owned)).collect()
}

/// Returns whether a bundle's metadata has Durable Object classes of the worker's own.
pub fn has_classes(metadata: &Value, worker: &str) -> bool {
    let exports = exports_of(metadata);
    !migrations_of(metadata).is_empty()
        || exports.values().any(ClassExport::is_live)
        || !bound_classes(metadata, worker).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrations(value: Value) -> Vec<Migration> {
        serde_json::from_value(value).unwrap()
    }

    fn faults(value: Value) -> Vec<String> {
        migration_faults(&migrations(value))
            .into_iter()
            .map(|(index, (message, _))| format!("{index}: {message}"))
            .collect()
    }

    #[test]
    fn migrations_go_to_the_api_and_back() {
        let all = migrations(json!([
            {"tag": "v1", "newClasses": ["A"], "newSqliteClasses": ["B"]},
            {"tag": "v2", "renamedClasses": [{"from": "A", "to": "C"}], "deletedClasses": ["B"]},
            {"tag": "v3", "transferredClasses": [{"from": "X", "fromScript": "other", "to": "D"}]},
        ]));
        let sent: Vec<Value> = all.iter().map(Migration::api).collect();
        assert_eq!(
            sent[1],
            json!({"tag": "v2", "renamed_classes": [{"from": "A", "to": "C"}], "deleted_classes": ["B"]})
        );
        assert_eq!(sent[2]["transferred_classes"][0]["from_script"], "other");
        assert_eq!(sent.iter().map(Migration::of_api).collect::<Option<Vec<_>>>(), Some(all.clone()));
        assert_eq!(migration_faults(&all), []);
        let storage = classes(&all).into_iter().collect::<Vec<_>>();
        assert_eq!(storage, [("C", ClassStorage::LegacyKv), ("D", ClassStorage::Sqlite)]);
        for (live, count) in [(None, 3), (Some(""), 3), (Some("v1"), 2), (Some("v3"), 0)] {
            assert_eq!(pending(&all, live).map(<[_]>::len), Ok(count));
        }
        assert_eq!(pending(&all, Some("v9")), Err(UnknownTag("v9".to_owned())));
        assert_eq!(
            payload(Some("v2"), &all[2..]),
            Some(
                json!({"old_tag": "v2", "new_tag": "v3", "steps": [{"transferred_classes": [{"from": "X", "from_script": "other", "to": "D"}]}]})
            )
        );
        assert_eq!(payload(None, &all[..1]).unwrap().get("old_tag"), None);
        assert_eq!(payload(Some("v3"), &[]), None);
    }

    #[test]
    fn what_contradicts_itself_is_found() {
        assert_eq!(
            faults(json!([
                {"tag": "v1", "newSqliteClasses": ["A", "B"]},
                {"tag": "v1", "renamedClasses": [{"from": "A", "to": "C"}], "deletedClasses": ["A", "X"]},
                {"tag": "v3", "newClasses": ["B"]},
            ])),
            [
                "1: the tag `v1` is already used by an earlier migration",
                "1: the migration `v1` changes the class `A` twice",
                "1: the migration `v1` deletes or renames the class `X`, which no earlier migration created",
                "2: the migration `v3` creates the class `B`, which already exists",
            ]
        );
        let exports: BTreeMap<String, ClassExport> = serde_json::from_value(json!({
            "A": {}, "B": {"state": "deleted", "storage": "sqlite"}, "C": {"state": "renamed", "renamedTo": "Z"},
            "D": {"state": "expecting-transfer", "storage": "sqlite", "transferFrom": "w"}, "E": {"state": "renamed", "renamedTo": "F"},
            "F": {"storage": "legacy-kv"}, "G": {"state": "transferred", "transferredTo": "w"},
        }))
        .unwrap();
        let messages: Vec<String> = export_faults(&exports).into_iter().map(|(_, (message, _))| message).collect();
        assert_eq!(
            messages,
            [
                "the class `A`, which is created, has no `storage`",
                "the class `B`, which is deleted, can't have `storage`",
                "the class `C` is renamed to `Z`, which isn't declared as `created`",
            ]
        );
        for export in exports.values() {
            assert_eq!(ClassExport::of_api(&export.api()).as_ref(), Some(export));
        }
        assert_eq!(ClassExport::of_api(&json!({"type": "worker"})), None);
        assert_eq!(
            ClassExport::of_api(&json!({"type": "durable-object", "storage": "sqlite", "container": "c"})),
            None
        );
    }

    #[test]
    fn a_class_is_unbound_before_it_is_deleted() {
        let all = migrations(json!([
            {"tag": "v2", "renamedClasses": [{"from": "A", "to": "B"}]},
            {"tag": "v3", "newSqliteClasses": ["C"]},
            {"tag": "v4", "deletedClasses": ["B"]},
        ]));
        let bound = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(at_once(&all, &bound(&["A"])), (2, BTreeSet::from(["B"])));
        assert_eq!(at_once(&all, &bound(&["C"])), (3, BTreeSet::new()));
        assert_eq!(at_once(&all, &bound(&[])), (3, BTreeSet::new()));
        let metadata = json!({"bindings": [
            {"type": "durable_object_namespace", "name": "A", "class_name": "A"},
            {"type": "durable_object_namespace", "name": "B", "class_name": "B", "script_name": "own"},
            {"type": "durable_object_namespace", "name": "C", "class_name": "C", "script_name": "other"},
            {"type": "plain_text", "name": "D", "text": "D"},
        ]});
        assert_eq!(bound_classes(&metadata, "own"), bound(&["A", "B"]));
        assert!(has_classes(&metadata, "own") && !has_classes(&json!({"bindings": []}), "own"));
    }
}
