//! The account of a worker: one that fleet.yaml lists, or one of the customer's own. Knows one customer at a time.

use serde::Deserialize as _;

use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::limits::Limit;
use flotilla_model::spec::{Account, AccountChoice, Environment, OwnAccount};
use flotilla_spec::layer;
use flotilla_spec::project::{FLEET_FILE, unknown};
use flotilla_spec::secrets::access::program_of;
use flotilla_spec::yaml::Kind;

use super::Batch;
use super::sources::Sources;
use super::worker::WorkerResolver;

/// The key of a spec.
const ACCOUNT: &str = "account";

/// An account that a spec defines.
#[derive(Clone, Debug)]
pub struct DefinedAccount {
    /// Its name: the customer's id, and what tells it apart from other accounts of the customer.
    pub name: String,
    /// The account as it is defined.
    pub own: OwnAccount,
    /// The same, complete.
    account: Account,
    /// The place of its id.
    pub place: Place,
}

/// Returns the account of a customer's own that has its id as its name: that of production.
pub(super) fn primary(sources: &Sources<'_>) -> Option<OwnAccount> {
    let of_role = |role: Option<&str>| {
        let merged = layer::merge(&sources.chain(Environment::Production, role), |key| key == ACCOUNT);
        match AccountChoice::deserialize(&merged.get(ACCOUNT)?.to_value()).ok()? {
            AccountChoice::Own(own) => Some(*own),
            AccountChoice::Name(_) => None,
        }
    };
    of_role(None).or_else(|| sources.roles().first().and_then(|role| of_role(*role)))
}

impl Batch<'_> {
    /// Returns an account: one of the customer's own, or one that fleet.yaml lists. Those of other customers are not for this one.
    pub(super) fn account(&self, name: &str) -> Option<&Account> {
        let own = self.resolved.accounts.iter().find(|own| own.name == name);
        own.map(|own| &own.account).or_else(|| self.fleet.accounts.listed().get(name))
    }

    /// Returns a limit of an account; that of the paid plan for one that isn't known.
    pub(super) fn limit(&self, name: &str, limit: Limit) -> u64 {
        self.account(name).map_or_else(|| self.fleet.limit(name, limit), |account| self.fleet.limit_of(account, limit))
    }

    /// Returns an account as claims name it, which is the same for all entries that `same` takes for one: the first of its names in fleet.yaml,
    /// or its id.
    pub(super) fn account_of_claims(&self, name: &str, same: fn(&Account, &Account) -> bool) -> String {
        let Some(account) = self.account(name) else { return name.to_owned() };
        let listed = self.fleet.accounts.listed_with(&account.id).find(|(_, other)| same(account, other));
        match listed {
            Some((first, _)) => first.to_owned(),
            None => account.id.literal().unwrap_or_else(|| name.to_owned()),
        }
    }
}

impl WorkerResolver<'_, '_> {
    /// Returns the worker's account by its name, and the dispatch namespace. The name is empty if the account isn't known.
    pub(super) fn account(&mut self) -> (String, Option<String>) {
        let fleet = self.batch.fleet;
        let accounts = fleet.accounts.listed();
        // The names of accounts that were left out as faulty are known all the same.
        let left_out: Vec<&str> = match fleet.document.root.get("accounts").map(|node| &node.kind) {
            Some(Kind::Map(entries)) if fleet.is_partial => {
                entries.iter().filter(|(_, _, node)| node.is_left_out()).map(|(name, ..)| name.as_str()).collect()
            }
            _ => Vec::new(),
        };
        let settings = self.settings;
        if self.left_out.has(ACCOUNT) || (settings.account.is_none() && !left_out.is_empty()) {
            return (String::new(), None);
        }
        let (name, place) = match &settings.account {
            Some(AccountChoice::Own(own)) => return (self.own_account(own).unwrap_or_default(), None),
            Some(AccountChoice::Name(name)) => (name.clone(), self.place(&[ACCOUNT])),
            None if accounts.len() == 1 || accounts.contains_key("default") => {
                let name = if accounts.contains_key("default") {
                    "default"
                } else {
                    &accounts.keys().next().expect("one account")[..]
                };
                (name.to_owned(), Place::file(FLEET_FILE))
            }
            None if fleet.lacks("accounts") => return (String::new(), None),
            None => {
                let help = "add `account:`, here or to `defaults` of fleet.yaml";
                let place = self.target.subject.document.place_of([]);
                let message = "no account is selected, and the fleet has more than one";
                self.push(Diagnostic::error(Code::MissingKey, place, message, help));
                return (String::new(), None);
            }
        };
        match accounts.get(&name) {
            Some(account) => (name, account.dispatch_namespace.clone()),
            None if fleet.lacks("accounts") || left_out.contains(&name.as_str()) => (name, None),
            None => {
                let known = accounts.keys().map(String::as_str).chain(left_out);
                self.push(unknown("account", &name, place, known));
                (name, None)
            }
        }
    }

    /// Notes an account of the customer's own; returns its name, if it is complete.
    fn own_account(&mut self, own: &OwnAccount) -> Option<String> {
        let place = self.key_place(&[ACCOUNT]);
        if self.target.subject.id == SHARED {
            let message = "a shared worker can't have an account of its own";
            let help = "list the account under `accounts` in fleet.yaml, and set its name here: `account: NAME`";
            self.push(Diagnostic::error(Code::NotAllowed, place, message, help));
            return None;
        }
        for (key, is_there, help) in [
            ("id", own.id.is_some(), "add the account's id, 32 hexadecimal digits: `id: …`"),
            ("token", own.token.is_some(), "name the secret with its API token: `token: { secret: ACME_API_TOKEN }`"),
        ] {
            if !is_there {
                let message = format!("the account has no `{key}`");
                self.push(Diagnostic::error(Code::MissingKey, place.clone(), message, help));
            }
        }
        let account = own.account()?;
        let secret = &account.token.secret;
        // Their names are for the API tokens of accounts.
        let is_ours = ["CLOUDFLARE_", "CF_API_", "WRANGLER_"].iter().any(|start| secret.starts_with(start));
        if let Some(program) = program_of(secret).filter(|_| !is_ours) {
            let message = format!("`{secret}` belongs to {program}: it would be sent to Cloudflare as an API token");
            let help = "store the account's API token under another name, and set that name here";
            let place = self.place(&[ACCOUNT, "token", "secret"]);
            self.push(Diagnostic::error(Code::ForeignSecret, place, message, help));
            return None;
        }
        if let Some(known) = self.batch.resolved.accounts.iter().find(|known| known.account == account) {
            return Some(known.name.clone());
        }
        let id = self.target.subject.id;
        let of_environment = format!("{id}/{}", self.target.environment);
        let is_taken = |name: &str| self.batch.resolved.accounts.iter().any(|known| known.name == name);
        let name = match (self.batch.primary_account.as_ref() == Some(own), self.target.role) {
            (true, _) => id.to_owned(),
            (false, Some(role)) if is_taken(&of_environment) => format!("{of_environment}/{role}"),
            _ => of_environment,
        };
        let fleet = self.batch.fleet;
        if fleet.accounts.listed().contains_key(&name) {
            let message = format!("an account of the customer's own is named `{name}`, and so is one in {FLEET_FILE}");
            let help =
                format!("use that one, `account: {name}`; or give it another name under `accounts` in {FLEET_FILE}");
            let there = fleet.document.place_of(["accounts", &name]);
            let error = Diagnostic::error(Code::Conflict, place, message, help).also(there, "defined here");
            self.push(error);
            return None;
        }
        let place = self.place(&[ACCOUNT, "id"]);
        self.batch.resolved.accounts.push(DefinedAccount { name: name.clone(), own: own.clone(), account, place });
        Some(name)
    }
}
