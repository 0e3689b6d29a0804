//! The database of a worker: none, an existing one, a new one, or one at Turso. Sends requests to the account; writes
//! no file.

use std::str::FromStr;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Value, json};

use flotilla_deploy::undo::CreatedDatabase;
use flotilla_model::customer;
use flotilla_model::failure::Failure;
use flotilla_model::names::own_secret;
use flotilla_model::platform::{Call, CallError, DATABASE_EXISTS, Reply};

use super::super::prompts::Prompter;
use super::super::transaction::{DeleteDatabase, Transaction};
use super::super::ui::clean;
use super::Workspace;
use super::token::{home, names};
use flotilla_engine::cloud::local_account_id;
use flotilla_engine::requests::PlatformRequester;
use flotilla_model::text::mask;

/// A database as the flag names it: `none`, `d1:NAME`, `d1-new:NAME`, `turso:URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No database.
    None,
    /// An existing D1 database.
    Existing(String),
    /// A D1 database to create.
    New(String),
    /// A database at Turso.
    Turso(String),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Wanted::None),
            Some(("d1", name)) => d1_name(name).map(|()| Wanted::Existing(name.to_owned())),
            Some(("d1-new", name)) => d1_name(name).map(|()| Wanted::New(name.to_owned())),
            Some(("turso", url)) => turso_url(url).map(|()| Wanted::Turso(url.to_owned())),
            _ => Err("none, d1:NAME, d1-new:NAME or turso:URL".to_owned()),
        }
    }
}

fn d1_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if begins && name.len() <= 64 && name.chars().all(fits) {
        return Ok(());
    }
    Err("a D1 database's name consists of lower-case letters, digits, `-` and `_`".to_owned())
}

fn turso_url(url: &str) -> Result<(), String> {
    let host = url.strip_prefix("libsql://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    if !host.is_empty() && !host.contains(['@', '?', '#', ' ']) && !host.trim_end_matches('/').contains('/') {
        return Ok(());
    }
    Err("write libsql://HOST, without a token in it".to_owned())
}

/// The database that was chosen.
pub enum Database {
    /// No database.
    None,
    /// A D1 database.
    D1 {
        /// Its name.
        name: String,
        /// Its id; none before it is created.
        id: Option<String>,
    },
    /// A database at Turso, with its token if it was typed.
    Turso {
        /// Its address.
        url: String,
        /// Its token.
        token: Option<SecretString>,
    },
}

impl Database {
    /// Returns its entry in the spec. An id in the local emulator means nothing at Cloudflare, so that its name stands for it.
    pub fn entry(&self, workspace: &Workspace) -> Option<Value> {
        match self {
            Database::None => None,
            Database::D1 { name, .. } if workspace.cloud.local.is_some() => Some(json!({"type": "d1", "name": name})),
            Database::D1 { name, id: None } => Some(json!({"type": "d1", "name": name})),
            Database::D1 { name, id: Some(id) } => Some(json!({"type": "d1", "name": name, "id": id})),
            Database::Turso { url, .. } => {
                Some(json!({"type": "turso", "url": url, "token": {"secret": customer::TURSO_TOKEN}}))
            }
        }
    }

    /// Returns a line for summaries.
    pub fn line(&self) -> String {
        match self {
            Database::None => "none".to_owned(),
            Database::D1 { name, id: None } => format!("D1 {name} (will be created)"),
            Database::D1 { name, id: Some(id) } => format!("D1 {name} ({})", mask(id)),
            Database::Turso { url, .. } => format!("Turso {url}"),
        }
    }

    /// Returns the secret to store for it: the entry's name and the value.
    pub fn secret(&self, customer: &str) -> Option<(String, SecretString)> {
        match self {
            Database::Turso { token: Some(token), .. } => {
                Some((own_secret(customer, customer::TURSO_TOKEN), token.clone()))
            }
            _ => None,
        }
    }
}

/// Lists all D1 databases of an account: name and id.
pub fn list(requester: &mut PlatformRequester, account_id: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut all = names(requester, &home(account_id), |page| Call::ListDatabases { name: None, page })?;
    all.sort();
    Ok(all)
}

/// The databases of an account, of which a customer gets one.
pub struct Databases<'a> {
    /// Asks the questions.
    pub prompter: &'a Prompter,
    /// The project.
    pub workspace: &'a Workspace,
    /// Sends the requests.
    pub requester: &'a mut PlatformRequester,
    /// The account's id.
    pub account_id: String,
    /// The customer's id.
    pub own: String,
}

impl Databases<'_> {
    /// Returns the other customer of the fleet that a database belongs to.
    fn holder(&self, name: &str, id: &str) -> Option<&str> {
        let is_local = self.workspace.cloud.local.is_some();
        let has = |worker: &&customer::Worker| {
            let is_it = match &worker.database {
                // In the local emulator, names alone are known.
                customer::Database::D1 { name: other, .. } if is_local => other == name,
                customer::Database::D1 { id: Some(other), .. } => other == id,
                _ => false,
            };
            is_it && worker.customer != self.own
        };
        self.workspace.workers.iter().find(has).map(|worker| worker.customer.as_str())
    }

    fn list(&mut self) -> Result<Vec<(String, String)>, Failure> {
        list(self.requester, &self.account_id)
    }

    /// Looks up the database that the flag names in the account.
    pub fn look_up(&mut self, wanted: &Wanted) -> Result<Database, Failure> {
        match wanted {
            Wanted::None => Ok(Database::None),
            Wanted::Turso(url) => {
                let token = if self.prompter.is_interactive() { typed_token(self.prompter)? } else { None };
                Ok(Database::Turso { url: url.clone(), token })
            }
            Wanted::Existing(name) => {
                let all = self.list()?;
                let found = all.into_iter().find(|(other, _)| other == name);
                let (name, id) = found.ok_or_else(|| {
                    Failure::new(format!("there is no D1 database {name} in that account"))
                        .hint(format!("create it: --database d1-new:{name}"))
                })?;
                if let Some(holder) = self.holder(&name, &id) {
                    return Err(Failure::new(format!("the D1 database {name} belongs to {holder}")));
                }
                Ok(Database::D1 { name, id: Some(id) })
            }
            Wanted::New(name) => {
                let all = self.list()?;
                if all.iter().any(|(other, _)| other == name) {
                    return Err(Failure::new(format!("that account already has a D1 database {name}"))
                        .hint(format!("use it: --database d1:{name}")));
                }
                Ok(Database::D1 { name: name.clone(), id: None })
            }
        }
    }

    /// Asks which database to use.
    pub fn ask(&mut self) -> Result<Database, Failure> {
        let (prompter, own) = (self.prompter, self.own.clone());
        let kinds = ["none", "an existing D1 database", "a new D1 database", "a database at Turso"].map(str::to_owned);
        loop {
            match prompter.select("Database", &kinds, 0)? {
                1 => {
                    let all = self.list()?;
                    let line = |(name, id): &(String, String)| match self.holder(name, id) {
                        Some(holder) => format!("{name} ({}), used by {holder}", mask(id)),
                        None => format!("{name} ({})", mask(id)),
                    };
                    let mut items: Vec<String> = all.iter().map(line).collect();
                    items.push("none of these".to_owned());
                    let index = prompter.select("D1 database", &items, 0)?;
                    match all.get(index) {
                        None => {}
                        Some((name, id)) => match self.holder(name, id) {
                            Some(holder) => prompter.note(&format!("{name} is the database of {holder}")),
                            None => return Ok(Database::D1 { name: name.clone(), id: Some(id.clone()) }),
                        },
                    }
                }
                2 => {
                    let all = self.list()?;
                    let free = |name: &str| {
                        d1_name(name)?;
                        let taken = all.iter().any(|(other, _)| other == name);
                        if taken { Err(format!("there is already a database {name}")) } else { Ok(()) }
                    };
                    return Ok(Database::D1 { name: prompter.line("Its name", &own, free)?, id: None });
                }
                3 => {
                    let url = prompter.line("Its address", &format!("libsql://{own}.turso.io"), turso_url)?;
                    return Ok(Database::Turso { url, token: typed_token(prompter)? });
                }
                _ => return Ok(Database::None),
            }
        }
    }
}

fn typed_token(prompter: &Prompter) -> Result<Option<SecretString>, Failure> {
    if prompter.confirm("Set the database's token now?", true)? {
        return prompter.hidden("Turso token").map(Some);
    }
    Ok(None)
}

/// Creates a database and returns its id.
pub fn make(
    transaction: &Transaction,
    requester: &mut PlatformRequester,
    account_id: &str,
    name: &str,
) -> Result<String, Failure> {
    let made = |id: Option<String>| CreatedDatabase { account_id: account_id.to_owned(), name: name.to_owned(), id };
    transaction.change(|undo| {
        undo.note_database(made(None))?;
        let call = Call::CreateDatabase { name: name.to_owned(), jurisdiction: None, location_hint: None };
        let before = requester.requests;
        let id = match requester.try_ask(&home(account_id), &call) {
            Ok(Reply::Id(id)) => id,
            Err(CallError::Rejected { code: DATABASE_EXISTS, .. }) if requester.requests == before + 1 => {
                undo.note_no_database(account_id, name)?;
                return Err(Failure::new(format!("another process has just created a D1 database {name}")));
            }
            // The answer to the first request did not arrive.
            Err(CallError::Rejected { code: DATABASE_EXISTS, .. }) => {
                let all = list(requester, account_id)?;
                let found = all.into_iter().find(|(other, _)| other == name);
                found
                    .ok_or_else(|| {
                        Failure::new(format!("Cloudflare says that the D1 database {name} exists, but doesn't list it"))
                    })?
                    .1
            }
            Ok(_) => {
                return Err(Failure::new(format!("Cloudflare created the D1 database {name}, but returned no id")));
            }
            Err(error) => return Err(Failure::new(format!("the D1 database {name} can't be created: {error}"))),
        };
        undo.note_database(made(Some(id.clone())))?;
        Ok(id)
    })
}

/// Returns the function that deletes databases of an account, with the token that fleet.yaml names for it.
pub fn deleter_of(workspace: &Workspace, account_id: &str) -> Result<DeleteDatabase, Failure> {
    let named =
        workspace.fleet.accounts.iter().find(|(name, _)| workspace.cloud.home(name, None).account_id == account_id);
    let token = match named {
        Some((name, _)) if workspace.cloud.local.is_some() => {
            let tokens = workspace.cloud.tokens(&workspace.fleet, [name.as_str()], &workspace.secrets)?;
            tokens.into_values().next()
        }
        named => named.and_then(|(_, account)| workspace.secrets.token(&account.token.secret)),
    };
    let is_local = workspace.fleet.accounts.keys().any(|name| local_account_id(name) == account_id);
    if token.is_none() && is_local {
        return Err(Failure::new("the interrupted command created a database in the local emulator")
            .hint("run the command again with --local, which deletes it"));
    }
    let token = token.ok_or_else(|| {
        Failure::new(format!("there is no token here for the account {}", mask(account_id)))
            .hint("set it, as `flotilla plan` describes")
    })?;
    deleter(workspace, &token)
}

/// Returns the function that deletes databases with this token.
pub fn deleter(workspace: &Workspace, token: &SecretString) -> Result<DeleteDatabase, Failure> {
    let cloud = &workspace.cloud;
    let progress = Arc::new(workspace.ui.clone());
    let account = ("", cloud.rate(None));
    let mut requester = PlatformRequester::with_token(progress, cloud.priority, &cloud.base, token, account)?;
    Ok(Box::new(move |database| delete(&mut requester, database)))
}

/// Deletes a database that was created; one whose id never arrived is looked up by its name.
fn delete(requester: &mut PlatformRequester, made: &CreatedDatabase) -> Result<(), String> {
    let id = match &made.id {
        Some(id) => Some(id.clone()),
        None => {
            let all = list(requester, &made.account_id).map_err(|failure| failure.to_string())?;
            all.into_iter().find(|(name, _)| *name == made.name).map(|(_, id)| id)
        }
    };
    let Some(id) = id else { return Ok(()) };
    match requester.try_ask(&home(&made.account_id), &Call::DeleteDatabase { id }) {
        Ok(_) => Ok(()),
        Err(error) => Err(clean(&error.to_string())),
    }
}
