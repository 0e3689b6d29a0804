//! Env files as overrides of wrangler's files, and customers that have nothing but env files. Knows workers as they were found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use flotilla_model::diagnostic::Place;
use flotilla_model::names;
use flotilla_model::spec::Environment;

use super::super::FoundWorker;
use super::super::envfiles::EnvFile;
use super::super::forms::{is_database_name, is_secret_name, is_uuid};
use super::Reading;

impl Reading<'_, '_> {
    /// Applies the env files over wrangler's files; customers that have nothing else get specs from them.
    pub(super) fn env_files(&mut self, found: &mut Vec<FoundWorker>) {
        let mut without: Vec<(&(String, Environment), &EnvFile)> = Vec::new();
        for (key, file) in &self.env_files.customers {
            if !found.iter().any(|worker| (&worker.customer, worker.environment) == (&key.0, key.1)) {
                without.push((key, file));
            }
        }
        for ((customer, environment), file) in without {
            match found
                .iter()
                .find(|worker| worker.environment == *environment && worker.customer != *customer)
                .or_else(|| found.iter().find(|worker| worker.customer == *customer))
                .or_else(|| found.first())
            {
                Some(like) => {
                    let new = self.like(like, customer, *environment, file);
                    found.push(new);
                }
                None => {
                    let help = "add its wrangler file, or write the worker's pack yourself";
                    let message = "no wrangler file defines a worker for this customer";
                    self.findings.left_out(Place::file(&file.file), message, help);
                }
            }
        }
        for worker in found {
            let own = self.env_files.customers.get(&(worker.customer.clone(), worker.environment));
            for file in self.env_files.base.iter().chain(own) {
                self.lay(file, worker);
            }
        }
    }

    /// Returns a worker for a customer that has env files only: a copy of another's, without what belongs to that one.
    fn like(&mut self, like: &FoundWorker, customer: &str, environment: Environment, file: &EnvFile) -> FoundWorker {
        let keep = [
            "compatibilityDate",
            "compatibilityFlags",
            "observability",
            "crons",
            "limits",
            "placement",
            "cache",
            "keepVars",
            "logpush",
            "tailConsumers",
            "secrets",
        ];
        let mut settings: Map<String, Value> = like
            .settings
            .iter()
            .filter(|(key, _)| keep.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let has_service = like.settings.get("vars").is_some_and(|vars| vars.get("SERVICE_DOMAIN").is_some());
        if has_service {
            settings.insert("vars".to_owned(), json!({"SERVICE_DOMAIN": customer}));
        }
        let message = format!(
            "the wrangler file has no section for `{customer}` in {environment}; {} belongs to `{}`",
            like.what, like.customer
        );
        let help = "its spec has the values of the env files, and its own worker and name: check which variables, routes and bindings of the other worker it needs, then delete the line `delivery: manual`";
        self.findings.left_out(Place::file(&file.file), message, help);
        FoundWorker {
            name: String::new(),
            place: Place::file(&file.file),
            what: file.file.clone(),
            customer: customer.to_owned(),
            environment,
            role: like.role.clone(),
            account_id: like.account_id.clone(),
            settings,
            calls: BTreeMap::new(),
            lost: vec![
                "everything that is not in its env files, because the wrangler file has no section for it".to_owned(),
            ],
            implies_workers_dev: like.implies_workers_dev,
            code: like.code.clone(),
        }
    }

    /// Applies one env file to a worker.
    fn lay(&mut self, file: &EnvFile, worker: &mut FoundWorker) {
        self.variables(file, worker);
        for name in file.secrets.iter().filter(|name| is_secret_name(name)) {
            let secrets = worker.settings.entry("secrets").or_insert_with(|| json!({}));
            secrets[name] = json!({"secret": name});
        }
        self.domain(file, worker);
        if let Some(id) = &file.account_id {
            worker.account_id.get_or_insert_with(|| id.clone());
        }
        if let Some((_, place)) = &file.zone_id {
            let help = "nothing to do: specs name zones, and the zone of a custom domain follows from its host";
            self.findings.note(place.clone(), "the id of the zone is not needed", help);
        }
        self.database(file, worker);
    }

    /// Adds the variables of an env file to those of wrangler's file, which take precedence.
    fn variables(&mut self, file: &EnvFile, worker: &mut FoundWorker) {
        let of_wrangler: BTreeSet<String> = match worker.settings.get("vars") {
            Some(Value::Object(vars)) => vars.keys().cloned().collect(),
            _ => BTreeSet::new(),
        };
        let mut added = Vec::new();
        for (name, (value, place)) in &file.vars {
            if matches!(name.as_str(), "DB" | "TURSO_DATABASE_URL" | "TURSO_AUTH_TOKEN" | "FLOTILLA_DIGEST") {
                let help = "rename it, or set `database` in the spec";
                self.findings.left_out(place.clone(), format!("`{name}` is a name that flotilla sets itself"), help);
                continue;
            }
            let vars = worker.settings.entry("vars").or_insert_with(|| json!({})).as_object_mut().expect("BUG: a map");
            // A customer's own value comes before one for all, and what wrangler deploys before both.
            let known = vars.get(name);
            if !of_wrangler.contains(name) {
                vars.insert(name.clone(), value.clone().into());
                added.push(name.as_str());
            } else if known.is_some_and(|known| known != value)
                && !worker.name.is_empty()
                && !file.file.starts_with("config/base/")
            {
                let message = format!("`{name}` differs from {}, which is what is deployed", worker.what);
                self.findings.note(place.clone(), message, "the spec has the deployed value: check which one is right");
            }
        }
        if !added.is_empty() && !worker.name.is_empty() {
            let message =
                format!("the worker `{}` gets the variables {} from this file", worker.name, added.join(", "));
            let help =
                format!("{} doesn't have them: remove them from the spec if the worker doesn't need them", worker.what);
            self.findings.note(Place::file(&file.file), message, help);
        }
    }

    /// Makes the domain of an env file the worker's, unless it has hosts already.
    fn domain(&mut self, file: &EnvFile, worker: &mut FoundWorker) {
        let Some((domain, place)) = &file.domain else { return };
        let vars = worker.settings.entry("vars").or_insert_with(|| json!({}));
        if vars.get("CUSTOMER_DOMAIN").is_none() {
            vars["CUSTOMER_DOMAIN"] = domain.clone().into();
        }
        let has_hosts = worker.settings.contains_key("domains") || worker.settings.contains_key("routes");
        let host = names::same_host(domain).into_owned();
        match names::domain(&host) {
            _ if has_hosts => {}
            Ok(()) => {
                worker.settings.insert("domains".to_owned(), json!([host]));
                let help = "flotilla attaches it as a custom domain, with its DNS record and certificate, which the wrangler file doesn't define; \
                            remove it from `domains` if something else serves it";
                self.findings.note(place.clone(), format!("`{host}` is mapped to a domain of the worker"), help);
            }
            Err((message, help)) => self.findings.left_out(place.clone(), message, help),
        }
    }

    fn database(&mut self, file: &EnvFile, worker: &mut FoundWorker) {
        let Some((name, place)) = &file.database_name else { return };
        if worker.settings.contains_key("database") {
            return;
        }
        if !is_database_name(name) || file.database_id.as_ref().is_some_and(|id| !is_uuid(id)) {
            let help = "the name of a D1 database consists of lower-case letters, digits, `-` and `_`; `wrangler d1 list` shows its id";
            self.findings.left_out(place.clone(), "the database can't be mapped", help);
            return;
        }
        let mut database = json!({"type": "d1", "name": name});
        if let Some(id) = &file.database_id {
            database["id"] = id.clone().into();
        }
        worker.settings.insert("database".to_owned(), database);
        let message = format!("the worker gets the database `{name}`, bound as `DB`");
        self.findings.note(place.clone(), message, "check that the code uses it under that name");
    }
}
