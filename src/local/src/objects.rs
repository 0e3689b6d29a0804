//! Durable Object classes: which ones a worker has, and how migrations and declarations change that. Knows what Cloudflare refuses, with
//! its codes; not how objects run.
//!
//! Sources of the codes: workers-sdk, issues 705 (10079), 8203 and 8210 (10061), tldraw, pull request 4971 (10074); Cloudflare docs, Durable
//! Objects › Migrations (2026).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Class, Key, Version, Worker, classes};
use super::workers::Loaded;

/// The setting of a worker with the tag of the last migration that was applied.
pub const TAG: &str = "migration_tag";

/// `GET …/workers/durable_objects/namespaces`: the classes of all workers of an account.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    cloud.store.read(|db| {
        let sql =
            "SELECT object_class.id, worker.name, class, sqlite FROM object_class JOIN worker ON worker.id = worker
                   WHERE worker.account = ?1 AND worker.namespace = '' ORDER BY worker.name, class";
        let rows = store::rows(db, sql, [account], |row| {
            let (id, script, class): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let name = format!("{script}_{class}");
            Ok(json!({"id": id, "name": name, "script": script, "class": class, "use_sqlite": row.get::<_, bool>(3)?}))
        })?;
        Ok(Answer::page(&rows, call.number("page", 1)?, call.number("per_page", 1000)?))
    })
}

/// The tag of the last migration that was applied to a worker.
pub fn tag(worker: &Worker) -> &str {
    worker.settings.get(TAG).and_then(Value::as_str).unwrap_or_default()
}

/// Applies what an upload says about the classes of a worker, and checks that the upload fits to them. `previous`: the version that serves.
///
/// # Errors
/// 400: 10079, 10074, 10061, 10064 or 100402.
pub fn apply(
    cloud: &Cloud,
    db: &Connection,
    worker: &mut Worker,
    (previous, version): (Option<&Version>, &Version),
    metadata: &Map<String, Value>,
    loaded: Option<&Loaded>,
) -> Result<(), Refusal> {
    let is_set = |key: &&str| metadata.get(*key).is_some_and(|value| !value.is_null());
    let exports = metadata.get("exports").and_then(Value::as_object);
    let declared = exports.into_iter().flatten().filter(|(_, export)| export["type"] == "durable-object");
    let declared: Vec<(&String, &Value)> = declared.collect();
    if is_set(&"migrations") && !declared.is_empty() {
        return Err(Refusal::invalid("migrations and declared Durable Object classes exclude each other"));
    }
    let before = classes(db, worker.id)?.into_iter().map(|class| (class.name.clone(), class)).collect();
    let name = worker.key.name.clone();
    let bound = |version: &Version| bound(&version.bindings, &name);
    let mut state = State {
        cloud,
        db,
        worker: &worker.key,
        before: BTreeMap::clone(&before),
        classes: before,
        bound: previous.map(bound).unwrap_or_default().into_iter().chain(all_bound(&version.bindings)).collect(),
    };
    if let Some(migrations) = metadata.get("migrations").filter(|migrations| !migrations.is_null()) {
        let expected = migrations["old_tag"].as_str().unwrap_or_default();
        let current = tag(worker);
        if expected != current {
            let shown = if current.is_empty() { "unset" } else { current };
            let message = format!("Migration tag precondition failed; current tag is {shown}");
            return Err(Refusal::new(400, 10079, message));
        }
        match migrations["steps"].as_array() {
            Some(steps) => steps.iter().try_for_each(|step| state.step(step))?,
            // The form of a single step, which has the lists beside the tags.
            None => state.step(migrations)?,
        }
        if let Some(new) = migrations["new_tag"].as_str() {
            worker.settings.insert(TAG.to_owned(), new.into());
        }
    }
    for (class, export) in declared {
        state.declare(class, export)?;
    }
    let State { classes: after, before, .. } = state;
    if let Some(class) = bound(version).iter().find(|class| !after.contains_key(*class)) {
        let message = format!(
            "Cannot create binding for class '{class}' because it is not currently configured to implement Durable Objects. Did you forget \
             to include a migration?"
        );
        return Err(Refusal::new(400, 10061, message));
    }
    if let Some(loaded) = loaded {
        let exported: BTreeSet<&str> = loaded.named.iter().filter_map(|entry| entry["name"].as_str()).collect();
        if let Some(class) = after.keys().find(|class| !exported.contains(class.as_str())) {
            let message = format!(
                "New version of script does not export class '{class}' which is depended on by existing Durable Objects. If you want to \
                 delete the class's Durable Objects, you must use a delete-class migration."
            );
            return Err(Refusal::new(400, 10064, message));
        }
    }
    if before != after {
        store::run(db, "DELETE FROM object_class WHERE worker = ?1", [worker.id])?;
        for class in after.values() {
            let sql = "INSERT INTO object_class (worker, class, id, sqlite) VALUES (?1, ?2, ?3, ?4)";
            store::run(db, sql, params![worker.id, class.name, class.id, class.sqlite])?;
        }
    }
    Ok(())
}

/// Refuses a binding to a class of another worker that isn't there, or that doesn't have it. The worker's own classes are checked with its
/// migrations.
///
/// # Errors
/// 400 (10061).
pub fn check_reference(db: &Connection, own: &Key, script: &str, class: &str) -> Result<(), Refusal> {
    if script.is_empty() || script == own.name {
        return Ok(());
    }
    let Some(worker) = store::find(db, &Key::of_account(&own.account, script))? else {
        let message = format!("Cannot create binding for class in script '{script}' that does not exist.");
        return Err(Refusal::new(400, 10061, message));
    };
    match !classes(db, worker.id)?.iter().any(|found| found.name == class) {
        true => Err(Refusal::new(
            400,
            10061,
            format!(
                "Cannot create binding for class '{class}' in script '{script}' because it is not currently configured to implement \
                 Durable Objects."
            ),
        )),
        false => Ok(()),
    }
}

/// Refuses an upload with migrations where none can be applied: to a version that doesn't serve yet.
///
/// # Errors
/// 400 (10211).
pub fn refuse(metadata: &Map<String, Value>) -> Result<(), Refusal> {
    match metadata.get("migrations").is_some_and(|migrations| !migrations.is_null()) {
        true => Err(Refusal::new(
            400,
            10211,
            "migrations must be fully applied by running \"wrangler deploy\": a version can't be uploaded with them",
        )),
        false => Ok(()),
    }
}

/// The classes of a worker's own that bindings name.
fn bound(bindings: &[Value], worker: &str) -> BTreeSet<String> {
    let is_own =
        |binding: &&Value| binding["script_name"].as_str().is_none_or(|script| script.is_empty() || script == worker);
    all_of(bindings).filter(is_own).filter_map(|binding| binding["class_name"].as_str().map(str::to_owned)).collect()
}

/// The classes that bindings name, whichever worker's: a deletion looks at the name alone.
fn all_bound(bindings: &[Value]) -> BTreeSet<String> {
    all_of(bindings).filter_map(|binding| binding["class_name"].as_str().map(str::to_owned)).collect()
}

fn all_of(bindings: &[Value]) -> impl Iterator<Item = &Value> {
    bindings.iter().filter(|binding| binding["type"] == "durable_object_namespace")
}

/// The classes of a worker while an upload is applied.
struct State<'a> {
    cloud: &'a Cloud,
    db: &'a Connection,
    worker: &'a Key,
    before: BTreeMap<String, Class>,
    classes: BTreeMap<String, Class>,
    /// The classes that the version which serves or the upload binds.
    bound: BTreeSet<String>,
}

impl State<'_> {
    fn create(&mut self, name: &str, sqlite: bool) {
        let id = self.cloud.store.seal.id();
        self.classes.insert(name.to_owned(), Class { name: name.to_owned(), id, sqlite });
    }

    fn step(&mut self, step: &Value) -> Result<(), Refusal> {
        let refused = |message: String| Refusal::new(400, 10074, message);
        let names = |key: &str| -> Vec<String> {
            let list = step[key].as_array().into_iter().flatten();
            list.filter_map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let list = |key: &str| step[key].as_array().into_iter().flatten();
        let mut targets = BTreeSet::new();
        let created = [(names("new_classes"), false), (names("new_sqlite_classes"), true)];
        let all = created.iter().flat_map(|(names, _)| names.clone()).chain(names("deleted_classes"));
        let renamed = list("renamed_classes").flat_map(|class| [text(class, "from"), text(class, "to")]);
        for class in all.chain(renamed).chain(list("transferred_classes").map(|class| text(class, "to"))) {
            if !targets.insert(class.clone()) {
                return Err(refused(format!("class '{class}' cannot be the target of more than one migration")));
            }
        }
        for class in names("deleted_classes") {
            if !self.classes.contains_key(&class) {
                return Err(refused(format!(
                    "Cannot apply delete-class migration to class '{class}' which was not exported in the previous version of the script"
                )));
            }
            if self.bound.contains(&class) {
                let message = format!(
                    "Cannot apply --delete-class migration to class '{class}' without also removing the binding that references it."
                );
                return Err(Refusal::new(400, 10061, message));
            }
            self.classes.remove(&class);
        }
        for class in list("renamed_classes") {
            let (from, to) = (text(class, "from"), text(class, "to"));
            let Some(found) = self.classes.remove(&from) else {
                return Err(refused(format!(
                    "Cannot apply rename-class migration from class '{from}' that doesn't exist"
                )));
            };
            self.taken(&to, "rename-class")?;
            self.classes.insert(to.clone(), Class { name: to, ..found });
        }
        for class in list("transferred_classes") {
            let (from, script, to) = (text(class, "from"), text(class, "from_script"), text(class, "to"));
            self.taken(&to, "transfer-class")?;
            let Some(found) = self.take(&script, &from)? else {
                return Err(refused(format!(
                    "Cannot apply transfer-class migration from class '{from}' of script '{script}' that doesn't exist"
                )));
            };
            self.classes.insert(to.clone(), Class { name: to, ..found });
        }
        for (classes, sqlite) in created {
            for class in classes {
                self.taken(&class, "new-class")?;
                self.create(&class, sqlite);
            }
        }
        Ok(())
    }

    fn taken(&self, class: &str, migration: &str) -> Result<(), Refusal> {
        match self.classes.contains_key(class) {
            true => Err(Refusal::new(
                400,
                10074,
                format!(
                    "Cannot apply {migration} migration to class '{class}' that is already depended on by existing Durable Objects"
                ),
            )),
            false => Ok(()),
        }
    }

    /// Takes a class away from another worker of the same home.
    fn take(&self, script: &str, class: &str) -> Result<Option<Class>, Refusal> {
        let key = Key { name: script.to_owned(), ..self.worker.clone() };
        let Some(other) = store::find(self.db, &key)? else { return Ok(None) };
        let found = classes(self.db, other.id)?.into_iter().find(|found| found.name == class);
        if found.is_some() {
            let sql = "DELETE FROM object_class WHERE worker = ?1 AND class = ?2";
            store::run(self.db, sql, params![other.id, class])?;
        }
        Ok(found)
    }

    fn declare(&mut self, name: &str, export: &Value) -> Result<(), Refusal> {
        let refused = |message: String| Refusal::new(400, 100_402, message);
        let sqlite = export["storage"] != "legacy-kv";
        match export["state"].as_str().unwrap_or("created") {
            "created" => match self.classes.get(name) {
                Some(class) if class.sqlite != sqlite => {
                    return Err(refused(format!("class '{name}' exists with another storage, which can't be changed")));
                }
                Some(_) => {}
                None => self.create(name, sqlite),
            },
            "deleted" => drop(self.classes.remove(name)),
            "renamed" => {
                let to = export["renamed_to"].as_str().unwrap_or_default();
                // Whichever is read first, the class that was there has the objects.
                if let Some(class) = self.classes.remove(name) {
                    if self.before.contains_key(to) {
                        return Err(refused(format!("class '{name}' can't be renamed to '{to}', which exists")));
                    }
                    self.classes.insert(to.to_owned(), Class { name: to.to_owned(), ..class });
                }
            }
            "expecting-transfer" if !self.classes.contains_key(name) => {
                // Until the other worker hands them over, the class has objects of its own, which nobody has made yet.
                self.create(name, sqlite);
            }
            "expecting-transfer" => {}
            "transferred" => {
                let to = export["transferred_to"].as_str().unwrap_or_default();
                let Some(class) = self.classes.remove(name) else { return Ok(()) };
                let key = Key { name: to.to_owned(), ..self.worker.clone() };
                let target = store::find(self.db, &key)?;
                let sql = "UPDATE object_class SET id = ?1, sqlite = ?2 WHERE worker = ?3 AND class = ?4";
                let changed = match &target {
                    Some(target) => self.db.execute(sql, params![class.id, class.sqlite, target.id, name])?,
                    None => 0,
                };
                if changed == 0 {
                    return Err(refused(format!("the script '{to}' doesn't expect a transfer of class '{name}'")));
                }
            }
            other => return Err(refused(format!("class '{name}' can't have the state {other:?}"))),
        }
        Ok(())
    }
}
