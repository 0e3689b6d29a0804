//! The Cloudflare accounts of a fleet by name: those that fleet.yaml lists, and customers' own, which specs define. Looked up by name, by
//! id and by the token's secret in constant time, as each customer can have one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Index;

use flotilla_model::customer::SHARED;
use flotilla_model::names::{own_secret, owners};
use flotilla_model::spec::{Account, AccountId};

/// The accounts of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    listed: BTreeMap<String, Account>,
    own: BTreeMap<String, Account>,
    /// The names by id: those that are listed, and the first of the others.
    by_id: HashMap<AccountId, Names>,
    /// The first name by the token's secret, listed ones first.
    by_token: HashMap<String, String>,
}

/// The names of the accounts with one id.
#[derive(Clone, Debug, Default)]
struct Names {
    listed: Vec<String>,
    first_own: Option<String>,
}

impl Accounts {
    /// Returns the accounts that fleet.yaml lists.
    pub fn new(listed: BTreeMap<String, Account>) -> Accounts {
        let mut accounts = Accounts { listed, ..Accounts::default() };
        accounts.set_index();
        accounts
    }

    /// Sets the accounts that specs define, in place of those that were set before.
    pub fn set_own(&mut self, own: BTreeMap<String, Account>) {
        self.own = own;
        self.own.retain(|name, _| !self.listed.contains_key(name));
        self.set_index();
    }

    /// Adds accounts that specs defined once, unless their names are in use.
    pub fn add_former(&mut self, former: BTreeMap<String, Account>) {
        let own = std::mem::take(&mut self.own);
        self.set_own(former.into_iter().chain(own).collect());
    }

    fn set_index(&mut self) {
        (self.by_id, self.by_token) = (HashMap::new(), HashMap::new());
        for (name, account) in &self.listed {
            self.by_id.entry(account.id.clone()).or_default().listed.push(name.clone());
        }
        for (name, account) in &self.own {
            self.by_id.entry(account.id.clone()).or_default().first_own.get_or_insert_with(|| name.clone());
        }
        for (name, account) in self.listed.iter().chain(&self.own) {
            self.by_token.entry(account.token.secret.clone()).or_insert_with(|| name.clone());
        }
    }

    /// Returns the accounts that fleet.yaml lists.
    pub fn listed(&self) -> &BTreeMap<String, Account> {
        &self.listed
    }

    /// Returns the accounts that specs define.
    pub fn own(&self) -> &BTreeMap<String, Account> {
        &self.own
    }

    /// Returns an account.
    pub fn get(&self, name: &str) -> Option<&Account> {
        self.listed.get(name).or_else(|| self.own.get(name))
    }

    /// Returns an account with its name.
    pub fn get_key_value(&self, name: &str) -> Option<(&String, &Account)> {
        self.listed.get_key_value(name).or_else(|| self.own.get_key_value(name))
    }

    /// Returns whether there is an account of a name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns all accounts, those of fleet.yaml first.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Account)> + Clone {
        self.listed.iter().chain(&self.own)
    }

    /// Returns the names of all accounts.
    pub fn keys(&self) -> impl Iterator<Item = &String> + Clone {
        self.iter().map(|(name, _)| name)
    }

    /// Returns all accounts without their names.
    pub fn values(&self) -> impl Iterator<Item = &Account> + Clone {
        self.iter().map(|(_, account)| account)
    }

    /// Returns the accounts of fleet.yaml with an id: one account can have several entries.
    pub fn listed_with(&self, id: &AccountId) -> impl Iterator<Item = (&str, &Account)> {
        let names = self.by_id.get(id).map(|names| names.listed.as_slice()).unwrap_or_default();
        names.iter().filter_map(|name| Some((name.as_str(), self.listed.get(name)?)))
    }

    /// Returns the accounts with an id: those of fleet.yaml, and the first of the others.
    pub fn with_id(&self, id: &AccountId) -> impl Iterator<Item = (&str, &Account)> {
        let own = self.by_id.get(id).and_then(|names| names.first_own.as_deref());
        self.listed_with(id).chain(own.and_then(|name| Some((name, self.own.get(name)?))))
    }

    /// Returns the name of the account whose token a secret is.
    pub fn of_token(&self, secret: &str) -> Option<&str> {
        self.by_token.get(secret).map(String::as_str)
    }

    /// Returns the secrets that are tokens of customers' own accounts.
    pub fn own_tokens(&self) -> impl Iterator<Item = &str> {
        self.own.values().map(|account| account.token.secret.as_str())
    }
}

impl Index<&str> for Accounts {
    type Output = Account;

    fn index(&self, name: &str) -> &Account {
        self.get(name).expect("BUG: the account is one of the fleet")
    }
}

/// Returns the names under which a secret would be looked up for a customer's worker: for each secret, the customer's prefix, which is
/// empty for all customers, and the name without it.
pub fn names_for_workers(secret: &str) -> impl Iterator<Item = (&str, &str)> {
    let own = owners(secret).filter(|prefix| *prefix != own_secret(SHARED, ""));
    std::iter::once(("", secret)).chain(own.map(|prefix| (prefix, &secret[prefix.len()..])))
}
