//! The database of a worker: Turso, D1 or none. Knows one worker at a time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flotilla_model::customer::{D1_BINDING, Database, TURSO_TOKEN, TURSO_URL};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::{self, DatabaseKind, Environment};
use flotilla_spec::layer::Merged;

use super::claim::ClaimedResource;
use super::worker::{Secrets, WorkerResolver};

/// A database that a worker uses.
pub(super) struct InUse {
    name: String,
    /// The binding by whose id it is used; `database`, if there is none.
    binding: Option<String>,
    place: Place,
    environment: Environment,
    role: Option<String>,
}

/// The databases and the bindings that are set for the environment of a worker: its environment, its role, and the binding, which
/// `database` has none of.
pub(super) type OwnDatabases = BTreeSet<(Environment, Option<String>, Option<String>)>;

/// Returns an error for each database that several environments inherit: what one of them writes, the others read.
pub(super) fn shared_by_environments(databases: &[InUse], own: &OwnDatabases) -> Vec<Diagnostic> {
    let mut inherited: BTreeMap<(&str, &Option<String>, &Place), BTreeSet<Environment>> = BTreeMap::new();
    for InUse { name, binding, place, environment, role } in databases {
        if !own.contains(&(*environment, role.clone(), binding.clone())) {
            inherited.entry((name, binding, place)).or_default().insert(*environment);
        }
    }
    let shared = inherited.into_iter().filter(|(_, environments)| environments.len() > 1);
    let diagnostic = |((name, binding, place), environments): (
        (&str, &Option<String>, &Place),
        BTreeSet<Environment>,
    )| {
        let words: Vec<&str> = environments.iter().map(|environment| environment.as_ref()).collect();
        let (first, words) = (words[0], words.join(" and "));
        let (message, help) = match binding {
            None => (
                format!("the database `{name}` is shared by the environments {words}"),
                format!(
                    "give each its own: write `{{environment}}` in its name, or `environments: {{ {first}: {{ database: {{ … }} }} }}`; \
                     to share one on purpose, set it for each of the environments"
                ),
            ),
            Some(binding) => (
                format!("the D1 database of the binding `{binding}` is shared by the environments {words}"),
                format!(
                    "give each its own: `environments: {{ {first}: {{ bindings: {{ {binding}: {{ d1: … }} }} }} }}`; \
                     to share one on purpose, set it for each of the environments"
                ),
            ),
        };
        Diagnostic::error(Code::SharedDatabase, place.clone(), message, help)
    };
    shared.map(diagnostic).collect()
}

impl WorkerResolver<'_, '_> {
    /// Resolves the database, and adds the variables and secrets that it is reached with.
    pub(super) fn database(
        &mut self,
        account: &str,
        vars: &mut BTreeMap<String, Value>,
        secrets: &mut Secrets,
    ) -> Database {
        let Some(database) = &self.settings.database else { return Database::None };
        if let Some(base) = &self.target.base {
            self.production_database(base, database);
        }
        let Some(kind) = database.kind else {
            let is_written = self.target.merged.get("database").is_some_and(|written| !written.keys().is_empty());
            if is_written && !self.left_out.has("database") {
                let place = self.place(&["database"]);
                let help = "add `type: turso`, `type: d1` or `type: none`";
                self.push(Diagnostic::error(Code::MissingKey, place, "`database` has no `type`", help));
            }
            return Database::None;
        };
        self.check_database_keys(kind);
        match kind {
            DatabaseKind::None => Database::None,
            DatabaseKind::Turso => self.turso(database, vars, secrets),
            DatabaseKind::D1 => self.d1(account, database),
        }
    }

    /// Reports keys that don't belong to the database's type, and those that its type requires.
    fn check_database_keys(&mut self, kind: DatabaseKind) {
        let written = self.target.merged.get("database");
        let keys = written.as_ref().map(Merged::keys).unwrap_or_default();
        let (word, wanted): (_, &[&str]) = match kind {
            DatabaseKind::Turso => ("turso", &["url", "token"]),
            DatabaseKind::D1 => ("d1", &["name", "id", "jurisdiction", "locationHint"]),
            DatabaseKind::None => ("none", &[]),
        };
        for key in keys.iter().filter(|key| **key != "type" && !wanted.contains(key)) {
            let place = self.key_place(&["database", key]);
            let kind = self.place(&["database", "type"]);
            let message = format!("`database.{key}` doesn't belong to the type {word}");
            let help = "turso takes `url` and `token`; d1 takes `name` and optionally `id`, `jurisdiction` and `locationHint`; none takes no other key; \
                        `key: null` removes what a weaker layer sets";
            self.push(Diagnostic::error(Code::Conflict, place, message, help).also(kind, "the type"));
        }
        let optional = ["id", "jurisdiction", "locationHint"];
        let is_known = !self.left_out.has("database");
        for key in wanted.iter().filter(|key| is_known && !keys.contains(key) && !optional.contains(key)) {
            let place = self.place(&["database"]);
            let about = match *key {
                "url" => "the database's address, `libsql://…`",
                "token" => "the reference to its token, `{ secret: TURSO_AUTH_TOKEN }`",
                _ => "the database's name",
            };
            let message = format!("`database` of the type {word} has no `{key}`");
            self.push(Diagnostic::error(Code::MissingKey, place, message, format!("add `{key}`: {about}")));
        }
    }

    /// Notes a database that the worker uses, by a binding or as its `database`.
    pub(super) fn in_use(&mut self, name: &str, binding: Option<&str>, place: &Place) {
        // What was left out may be another one.
        if self.left_out.has(if binding.is_some() { "bindings" } else { "database" }) {
            return;
        }
        let (environment, role) = (self.target.environment, self.target.role.map(str::to_owned));
        let (name, binding) = (name.to_owned(), binding.map(str::to_owned));
        self.batch.databases.push(InUse { name, binding, place: place.clone(), environment, role });
    }

    /// Claims the worker's own database: of one that is half left out, it isn't known which one it is.
    fn claim_database(&mut self, database: ClaimedResource, place: Place) {
        if !self.left_out.has("database") {
            self.claim(database, place);
        }
    }

    fn turso(
        &mut self,
        database: &spec::Database,
        vars: &mut BTreeMap<String, Value>,
        secrets: &mut Secrets,
    ) -> Database {
        // That either is missing is reported already.
        if let Some(url) = &database.url {
            let place = self.place(&["database", "url"]);
            // Its protocol is no part of a database.
            let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host).trim_end_matches('/');
            self.in_use(host, None, &place);
            self.claim_database(ClaimedResource::Database(host.to_lowercase()), place);
            vars.insert(TURSO_URL.to_owned(), Value::String(url.clone()));
        }
        if let Some(token) = &database.token {
            let place = self.place(&["database", "token"]);
            secrets.insert(TURSO_TOKEN.to_owned(), (token.secret.clone(), place));
        }
        Database::Turso
    }

    fn d1(&mut self, account: &str, database: &spec::Database) -> Database {
        let name = database.name.clone().unwrap_or_default();
        // The account knows it by this name, also for customers that give no id.
        let account = self.batch.account_of_claims(account, |_, _| true);
        let key = if database.id.is_some() { "id" } else { "name" };
        let place = self.place(&["database", key]);
        if database.name.is_some() {
            self.in_use(&name, None, &place);
        }
        if let Some(id) = &database.id {
            self.claim_database(ClaimedResource::Database(id.clone()), place.clone());
        }
        if database.name.is_some() && !account.is_empty() {
            self.claim_database(ClaimedResource::DatabaseName { account, name: name.clone() }, place);
        }
        if database.jurisdiction.is_some() && database.location_hint.is_some() {
            let place = self.place(&["database", "locationHint"]);
            let message = "locationHint has no effect next to `jurisdiction`, which decides where the database is";
            self.push(Diagnostic::warning(Code::NoEffect, place, message, "leave it out"));
        }
        Database::D1 {
            binding: D1_BINDING.to_owned(),
            name,
            id: database.id.clone(),
            jurisdiction: database.jurisdiction,
            location_hint: database.location_hint,
        }
    }
}
