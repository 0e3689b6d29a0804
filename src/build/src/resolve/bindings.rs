//! The variables, secrets and bindings of a worker. Knows one worker at a time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flotilla_model::binding::{self, Binding, D1, DURABLE_OBJECT, QUEUE, WORKFLOW};
use flotilla_model::credential;
use flotilla_model::customer::{
    D1_BINDING, DIGEST_VARIABLE, DISPATCHER_BINDING, Database, HOSTS_BINDING, SHARED, TURSO_TOKEN, TURSO_URL,
};
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_model::limits::Limit;
use flotilla_model::names;
use flotilla_model::objects::{ClassExport, Migration};
use flotilla_model::service_key;
use flotilla_model::spec::{CORS_VARIABLE, QueueConsumer};
use flotilla_model::text::grouped;
use flotilla_spec::pack::Objects;
use flotilla_spec::secrets::access;

use super::claim::ClaimedResource;
use super::peers::{Reference, ReferenceKind, WORKER_URL};
use super::worker::{Secrets, WorkerResolver, filled};

/// The key that makes a variable what its worker is: `{ worker: environment }` or `{ worker: customer }`.
const OF_WORKER: &str = "worker";

impl WorkerResolver<'_, '_> {
    /// Resolves the variables of the layers; those that refer to other workers are noted, and filled in later.
    pub(super) fn vars(&mut self, secrets: &Secrets) -> BTreeMap<String, Value> {
        let mut vars = BTreeMap::new();
        for (name, value) in self.settings.vars.iter().flatten() {
            if let Some(reasons) = reserved(name) {
                let place = self.key_place(&["vars", name]);
                self.push(Diagnostic::error(Code::ReservedName, place, format!("`{name}` can't be set here"), reasons));
            } else if let Some((_, secret)) = secrets.get(name) {
                let place = self.key_place(&["vars", name]);
                let message = format!("`{name}` is a variable and a secret");
                let diagnostic = Diagnostic::error(Code::Conflict, place, message, "keep one of the two");
                let secret = secret.clone();
                self.push(diagnostic.also(secret, "the secret"));
            }
            if let Some(to) = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get(WORKER_URL)) {
                let place = self.place(&["vars", name, WORKER_URL]);
                match to.as_str() {
                    Some(to) => self.batch.references.push(Reference {
                        from: self.batch.resolved.workers.len(),
                        key: name.clone(),
                        to: to.to_owned(),
                        kind: ReferenceKind::Address,
                        place,
                    }),
                    None => {
                        let message = format!("`{WORKER_URL}` of `{name}` must be the name of a worker");
                        self.push(Diagnostic::error(Code::WrongType, place, message, "write `{ workerUrl: auth }`"));
                    }
                }
            }
            if let Some(path) = credential::find(name, value) {
                let steps: Vec<&str> = ["vars", name].into_iter().chain(path.iter().map(String::as_str)).collect();
                let place = self.place(&steps);
                let message = format!("the variable `{name}` contains a secret in plain text");
                let help = format!(
                    "make it a secret, `secrets: {{ {name}: {{ secret: {} }} }}`; if the file was ever committed, have a new value \
                     issued; if the value is public, turn this warning off for the customer under `diagnostics` in fleet.yaml",
                    name.to_ascii_uppercase()
                );
                self.push(Diagnostic::warning(Code::SecretVariable, place, message, help));
            }
            let value = match value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get(OF_WORKER)) {
                Some(Value::String(word)) if word == "environment" => self.target.environment.as_ref().into(),
                Some(Value::String(word)) if word == "customer" => self.target.subject.id.into(),
                _ => value.clone(),
            };
            vars.insert(name.clone(), value);
        }
        vars
    }

    /// Reports names that a dispatch worker needs for its own bindings.
    pub(super) fn of_dispatch(&mut self, vars: &BTreeMap<String, Value>, secrets: &Secrets) {
        for name in [DISPATCHER_BINDING, HOSTS_BINDING] {
            let services = self.settings.services.iter().flatten().any(|(key, _)| key == name);
            let keys =
                [("vars", vars.contains_key(name)), ("secrets", secrets.contains_key(name)), ("services", services)];
            for (map, _) in keys.into_iter().filter(|(_, taken)| *taken) {
                let message = format!("`{name}` can't be set here");
                let place = self.key_place(&[map, name]);
                let reasons = "flotilla sets it, so that the dispatch worker reaches the namespace: see `dispatch` of the account";
                self.push(Diagnostic::error(Code::ReservedName, place, message, reasons));
            }
        }
    }

    pub(super) fn reserved(&mut self, secrets: &Secrets) {
        for (name, (_, place)) in secrets {
            if let Some(reasons) = reserved(name) {
                let message = format!("`{name}` can't be set here");
                self.push(Diagnostic::error(Code::ReservedName, place.clone(), message, reasons));
            }
        }
    }

    /// Resolves the other bindings: each has a name of its own, a database belongs to one customer alone.
    pub(super) fn bindings(
        &mut self,
        vars: &BTreeMap<String, Value>,
        secrets: &Secrets,
        database: &Database,
        dispatches: bool,
        (worker, objects, account): (&str, Option<&Objects>, &str),
    ) -> BTreeMap<String, Binding> {
        let mut bindings = BTreeMap::new();
        let mut singles: BTreeMap<&str, &str> = BTreeMap::new();
        let settings = self.settings;
        let of_pack: BTreeMap<String, Binding> = objects.map(bound_by_pack).unwrap_or_default();
        let written = settings.bindings.iter().flatten();
        // The pack's bindings always apply, whatever a spec defines.
        let of_spec = written.filter(|(name, binding)| of_pack.get(*name) != Some(binding));
        for (name, written) in of_spec.chain(&of_pack) {
            let mut binding = written.clone();
            // What a weaker layer doesn't have there is nothing to remove.
            binding.0.retain(|_, value| !value.is_null());
            let is_packs = of_pack.get(name).is_some_and(|of_pack| std::ptr::eq(of_pack, written));
            let place = match is_packs {
                false => self.key_place(&["bindings", name]),
                // The other use of the name is in the spec.
                true => {
                    let maps = ["vars", "secrets", "services"];
                    let used = maps.into_iter().find_map(|map| self.target.merged.key_place(&[map, name]));
                    used.unwrap_or_else(|| self.target.subject.place.clone())
                }
            };
            let of_dispatch = dispatches && [DISPATCHER_BINDING, HOSTS_BINDING].contains(&name.as_str());
            let services = self.settings.services.iter().flatten().any(|(key, _)| key == name);
            let also = [
                (vars.contains_key(name), "a variable"),
                (secrets.contains_key(name), "a secret"),
                (services, "a service binding"),
                (matches!(database, Database::D1 { binding, .. } if binding == name), "the binding of `database`"),
                (of_dispatch, "a binding that flotilla gives to the dispatch worker"),
                (name == DIGEST_VARIABLE, "a variable that flotilla sets for each worker"),
                (!is_packs && of_pack.contains_key(name), "a Durable Object class that the pack binds"),
            ];
            for (_, other) in also.into_iter().filter(|(taken, _)| *taken) {
                let message = format!("`{name}` is both a binding and {other}");
                let help = "give one of them another name";
                self.push(Diagnostic::error(Code::Conflict, place.clone(), message, help));
            }
            // Then it is a different one in previews, too.
            let has_environment = binding.text(QUEUE).is_some_and(|queue| queue.contains("{environment}"));
            let is_known = !self.left_out.has("bindings");
            let Some(kind) = binding.kind() else {
                if !is_known {
                    continue;
                }
                let message = format!("`bindings.{name}` doesn't define what it points to");
                let help = format!("write `{{ kv: … }}`, `{{ r2: … }}`; or `{name}: null` to remove it");
                self.push(Diagnostic::error(Code::MissingKey, place, message, help));
                continue;
            };
            let is_missing = |key| is_known && !binding.0.contains_key(key);
            for field in kind.fields.iter().filter(|field| field.is_required && is_missing(field.key)) {
                let message = format!("`bindings.{name}` has no `{}`", field.key);
                let help = format!("add `{}`: {}", field.key, field.about.trim_end_matches('.'));
                self.push(Diagnostic::error(Code::MissingKey, place.clone(), message, help));
            }
            if kind.is_single
                && let Some(other) = singles.insert(kind.key(), name)
            {
                let message = format!("`{other}` and `{name}` are both `{}`; a worker can have only one", kind.key());
                self.push(Diagnostic::error(Code::Conflict, place, message, "keep one of them"));
            }
            // The objects and workflows of a preview's worker are its own.
            let is_own = binding.own_class(worker).is_some() || binding.own_workflow(worker).is_some();
            if let (Some(base), false) = (&self.target.base, is_own || has_environment) {
                self.production_binding(base, name, &binding);
            }
            if let Some(queue) = binding.text(QUEUE) {
                let queue = filled(queue, self.target.subject.id, &self.environment_in_names());
                binding.0.insert(QUEUE.to_owned(), queue.into());
            }
            if let (Some(class), Some(objects), false) = (binding.own_class(worker), objects, is_packs)
                && !objects.classes().contains(class)
            {
                let place = self.place(&["bindings", name, DURABLE_OBJECT]);
                let message =
                    format!("`bindings.{name}` uses the Durable Object class `{class}`, which the pack doesn't have");
                let help = match objects.classes().into_iter().collect::<Vec<_>>().join(", ") {
                    known if known.is_empty() => {
                        "add `worker`, the worker that defines it; or a migration to the pack".to_owned()
                    }
                    known => format!("the pack has {known}; for a class of another worker, add `worker`"),
                };
                self.push(Diagnostic::error(Code::UnknownName, place, message, help));
            }
            if let Some(database) = binding.database_name() {
                let database = filled(database, self.target.subject.id, &self.environment_in_names());
                let place = self.place(&["bindings", name, D1]);
                if binding::is_like_uuid(&database) {
                    let message = format!("`{database}` is neither the id of a D1 database nor its name");
                    let help = "an id has 8, 4, 4, 4 and 12 hexadecimal digits, with hyphens between them: `wrangler d1 list` shows it";
                    self.push(Diagnostic::error(Code::WrongForm, place.clone(), message, help));
                }
                self.in_use(&database, Some(name), &place);
                let account = self.account_of_claims(account);
                self.claim(ClaimedResource::DatabaseName { account, name: database.clone() }, place);
                binding.0.insert(D1.to_owned(), database.into());
            } else if let (D1, Some(id)) = (kind.key(), binding.text(D1)) {
                let (id, place) = (id.to_owned(), self.place(&["bindings", name, D1]));
                self.in_use(&id, Some(name), &place);
                self.claim(ClaimedResource::Database(id), place);
            }
            bindings.insert(name.clone(), binding);
        }
        bindings
    }

    /// Resolves the names of the worker's own workflows: each is one worker's in its account.
    pub(super) fn workflows(
        &mut self,
        account: &str,
        namespace: Option<&str>,
        worker: &str,
        bindings: &mut BTreeMap<String, Binding>,
    ) {
        let mut names = BTreeSet::new();
        for (binding_name, binding) in bindings.iter_mut() {
            let Some((pattern, _)) = binding.own_workflow(worker) else { continue };
            let place = self.place(&["bindings", binding_name, WORKFLOW]);
            let name = self.own_name(&pattern);
            if let Some(namespace) = namespace {
                let message =
                    format!("workers of the dispatch namespace `{namespace}` can't have workflows of their own");
                let help = "bind a workflow of a worker outside the namespace, with `worker`; or use an account without `dispatchNamespace`";
                self.push(Diagnostic::error(Code::NotInNamespace, place, message, help));
                continue;
            }
            if name.is_empty()
                || name.len() > 64
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            {
                let message = format!("`{name}` can't be the name of a workflow");
                let help = "use up to 64 letters, digits, hyphens and underscores";
                self.push(Diagnostic::error(Code::WrongForm, place.clone(), message, help));
            }
            binding.0.insert(WORKFLOW.to_owned(), name.clone().into());
            if names.insert(name.clone()) {
                self.claim(ClaimedResource::Workflow { account: self.account_of_claims(account), name }, place);
            }
        }
    }

    /// Resolves the queues that the worker consumes: each has one consumer.
    pub(super) fn queue_consumers(
        &mut self,
        account: &str,
        namespace: Option<&str>,
    ) -> BTreeMap<String, QueueConsumer> {
        let mut consumers = BTreeMap::new();
        let settings = self.settings;
        for (pattern, written) in settings.queue_consumers.iter().flatten() {
            let place = self.key_place(&["queueConsumers", pattern]);
            if let Some(namespace) = namespace {
                let message = format!(
                    "workers of the dispatch namespace `{namespace}` can't consume queues: wrangler would silently ignore this"
                );
                let help = "let a worker outside the namespace consume the queue and call them; or use an account without `dispatchNamespace`";
                self.push(Diagnostic::error(Code::NotInNamespace, place, message, help));
                continue;
            }
            let queue = self.own_name(pattern);
            let dead = written.dead_letter_queue.as_ref().map(|name| self.own_name(name));
            for (name, place) in [
                (Some(&queue), place.clone()),
                (dead.as_ref(), self.place(&["queueConsumers", pattern, "deadLetterQueue"])),
            ] {
                let Some(name) = name.filter(|name| !is_queue_name(name)) else { continue };
                let message = format!("`{name}` can't be the name of a queue");
                let help = "use up to 63 letters, digits, hyphens and underscores, with a letter or digit at both ends";
                self.push(Diagnostic::error(Code::WrongForm, place, message, help));
            }
            if dead.as_ref() == Some(&queue) {
                let message = format!(
                    "the queue `{queue}` is its own dead-letter queue, so messages that fail would never leave it"
                );
                let place = self.place(&["queueConsumers", pattern, "deadLetterQueue"]);
                self.push(Diagnostic::error(
                    Code::Conflict,
                    place,
                    message,
                    "name another queue, or remove `deadLetterQueue`",
                ));
            }
            let resource =
                ClaimedResource::QueueConsumer { account: self.account_of_claims(account), queue: queue.clone() };
            self.claim(resource, place);
            consumers.insert(queue, QueueConsumer { dead_letter_queue: dead, ..written.clone() });
        }
        consumers
    }

    /// Returns the migrations and the declared classes of the pack's code, with the names of other workers in them.
    pub(super) fn classes(&self, objects: Option<&Objects>) -> (Vec<Migration>, BTreeMap<String, ClassExport>) {
        let Some(objects) = objects else { return Default::default() };
        let (mut migrations, mut exports) = (objects.migrations.clone(), objects.exports.clone());
        let scripts = migrations.iter_mut().flat_map(|migration| &mut migration.transferred_classes);
        let workers = exports.values_mut().flat_map(|export| [&mut export.transferred_to, &mut export.transfer_from]);
        for name in scripts.map(|class| &mut class.from_script).chain(workers.flatten()) {
            *name = self.own_name(name);
        }
        (migrations, exports)
    }

    /// Returns a name with the customer and the environment in it. A preview's is never that of another environment.
    fn own_name(&self, pattern: &str) -> String {
        let (id, environment) = (self.target.subject.id, self.environment_in_names());
        let name = filled(pattern, id, &environment);
        match self.target.base.is_some() && !pattern.contains("{environment}") {
            true => format!("{name}-{environment}"),
            false => name,
        }
    }

    /// Returns an account as claims name it: by the first of its names.
    fn account_of_claims(&self, account: &str) -> String {
        match account.is_empty() {
            true => String::new(),
            false => self.batch.account_of_claims(account, |_, _| true),
        }
    }

    /// Checks the limits of a single worker.
    pub(super) fn sizes(&mut self, account: &str, vars: &BTreeMap<String, Value>, secrets: usize) {
        // Its limits may be others than those of its plan.
        if self.is_account_open(account) {
            return;
        }
        let (fleet, known) = (self.batch.fleet, self.batch.account(account).cloned());
        let raise = |limit: Limit| fleet.raise_of(account, known.as_ref(), limit);
        // FLOTILLA_DIGEST is one of them.
        let count = (vars.len() + secrets + 1) as u64;
        let most = self.batch.limit(account, Limit::Variables);
        if count > most {
            let message =
                format!("{count} variables and secrets, including {DIGEST_VARIABLE}; a worker can have {most}");
            let help =
                format!("put several values into one variable: a variable can be a map; {}", raise(Limit::Variables));
            let place = [["vars"], ["secrets"]]
                .iter()
                .find_map(|path| self.target.merged.key_place(path))
                .unwrap_or_else(|| self.target.subject.place.clone());
            self.push(Diagnostic::error(Code::TooManyVariables, place, message, help));
        }
        let most = self.batch.limit(account, Limit::VariableBytes);
        for (name, value) in vars {
            let size = match value {
                Value::String(text) => text.len(),
                other => other.to_string().len(),
            } as u64;
            if size > most {
                let message =
                    format!("the variable `{name}` has {} bytes, but the limit is {}", grouped(size), grouped(most));
                let place = self.place(&["vars", name]);
                let help = format!("keep large values in KV or in the database; {}", raise(Limit::VariableBytes));
                self.push(Diagnostic::error(Code::VariableTooLarge, place, message, help));
            }
        }
        let zones: BTreeSet<&str> = self.settings.routes.iter().flatten().map(|route| route.zone.as_str()).collect();
        let most = self.batch.limit(account, Limit::ZonesPerWorker);
        if zones.len() as u64 > most {
            let message =
                format!("routes of {} zones; a worker can have {}", grouped(zones.len() as u64), grouped(most));
            let help = format!("spread them over several workers; {}", raise(Limit::ZonesPerWorker));
            let place = self.target.merged.key_place(&["routes"]).unwrap_or_else(|| self.target.subject.place.clone());
            self.push(Diagnostic::error(Code::TooManyZones, place, message, help));
        }
    }

    /// Reports secrets that aren't for this customer, and claims those of other customers whose names they have: `ACME__TOKEN` is
    /// acme's, and so is `TOKEN` of a customer whose prefix it makes `ACME__TOKEN`.
    pub(super) fn foreign(&mut self, secrets: &Secrets) {
        let (id, fleet) = (self.target.subject.id, self.batch.fleet);
        let prefix = names::own_secret(id, "");
        if id != SHARED {
            self.claim(ClaimedResource::Secrets(prefix.clone()), self.target.subject.place.clone());
        }
        for (name, place) in secrets.values() {
            // What fleet.yaml gives to the workers that all share is for the fleet to decide.
            if id != SHARED
                && let Some(wrong) = access::refusal(fleet, id, name)
            {
                self.error(Code::ForeignSecret, place.clone(), wrong);
                continue;
            }
            let own = names::own_secret(id, name);
            // Its own name that begins with another customer's prefix is that customer's only if the prefix is the longer one.
            let in_own = names::owners(&own).filter(|owner| owner.len() > prefix.len());
            let in_name = names::owners(name).filter(|owner| match name.starts_with(&prefix) {
                true => owner.len() > prefix.len(),
                false => true,
            });
            let owners: BTreeSet<&str> = in_own.chain(in_name).collect();
            if id == SHARED {
                self.claim(ClaimedResource::Secrets(prefix.clone()), place.clone());
            }
            for owner in owners {
                self.claim(ClaimedResource::Secrets(owner.to_owned()), place.clone());
            }
        }
    }
}

/// Returns why a name can't be given to a variable or a secret.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    match name {
        DIGEST_VARIABLE => Some("flotilla gives it to each worker itself"),
        CORS_VARIABLE => Some("flotilla makes it of `cors` and `trustedOrigins`"),
        service_key::CALLER | service_key::CALLERS => Some("flotilla makes it of `callers`"),
        name if name.starts_with(service_key::BINDING) => Some("it is a key that flotilla derives: see `callers`"),
        TURSO_URL | TURSO_TOKEN | D1_BINDING => Some("it belongs to the database: see `database`"),
        _ => None,
    }
}

/// Returns the bindings of a pack's Durable Object classes.
fn bound_by_pack(objects: &Objects) -> BTreeMap<String, Binding> {
    let binding = |class: &String| Binding([(DURABLE_OBJECT.to_owned(), class.clone().into())].into_iter().collect());
    objects.bindings.iter().map(|(name, class)| (name.clone(), binding(class))).collect()
}

/// Returns whether a queue can have this name.
fn is_queue_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let has_ends = !name.starts_with(['-', '_']) && !name.ends_with(['-', '_']);
    !name.is_empty() && name.len() <= 63 && has_ends && name.bytes().all(is_inner)
}
