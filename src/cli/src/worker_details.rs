//! The details of a worker: account, zone, token, domain, database, its id. Ids are masked, and of a token only whether it is found.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use serde_json::Value;

use flotilla_deploy::state::{ResourceKind, State};
use flotilla_model::customer::{Database, TURSO_URL, Worker};
use flotilla_model::failure::Failure;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use super::Session;
use flotilla_engine::cloud::Cloud;

use super::cloud::CloudArguments;
use flotilla_model::credential;
use flotilla_model::text::{holds_ids, mask, mask_ids};

/// The account, zones, token, domains and database of a worker.
#[derive(Debug, Serialize)]
pub(super) struct WorkerDetails {
    account: NamedResource,
    /// The zones of its domains and routes.
    pub zones: Vec<NamedResource>,
    /// Whether the account's token is found in the sources of secrets.
    pub token: &'static str,
    /// Its custom domains, or its hosts behind a dispatch worker; the hosts of its routes come last.
    pub domains: Vec<String>,
    database: DatabaseDetails,
}

/// A name, and the id if it is known here.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NamedResource {
    pub name: String,
    /// Masked.
    id: Option<String>,
}

/// The database that a worker keeps its data in.
#[derive(Debug, Serialize)]
struct DatabaseDetails {
    #[serde(rename = "type")]
    kind: &'static str,
    name: Option<String>,
    /// Masked.
    id: Option<String>,
}

/// The sources that the details are looked up in.
pub(super) struct Sources<'a> {
    fleet: &'a Fleet,
    cloud: Cloud,
    secrets: Secrets,
    state: State,
    /// The tokens, so that each account's is looked up once.
    tokens: RefCell<HashMap<String, &'static str>>,
    zones: RefCell<HashMap<(String, String), Option<String>>>,
}

impl<'a> Sources<'a> {
    pub(super) fn open(
        session: &Session,
        fleet: &'a Fleet,
        arguments: &CloudArguments,
    ) -> Result<Sources<'a>, Failure> {
        let (secrets, cloud, state) = arguments.open(session, fleet)?;
        Ok(Sources { fleet, cloud, secrets, state, tokens: RefCell::default(), zones: RefCell::default() })
    }

    /// Returns the details of a worker.
    pub(super) fn of(&self, worker: &Worker) -> Result<WorkerDetails, Failure> {
        let account_id = self.cloud.home(&worker.account, None).account_id;
        let hosts = worker.hosts.iter().flat_map(|hosts| &hosts.names);
        let of_domains = worker.domains.iter().chain(hosts.clone()).map(|host| self.fleet.zone_of(host));
        let zones: BTreeSet<&str> = of_domains.chain(worker.routes.iter().map(|route| route.zone.as_str())).collect();
        let zones = zones
            .into_iter()
            .map(|name| Ok(NamedResource { name: name.to_owned(), id: self.zone(&account_id, name)? }));
        let routed = worker.routes.iter().filter_map(|route| route.pattern.split('/').next());
        let mut domains: Vec<String> = worker.domains.iter().chain(hosts).cloned().collect();
        for host in routed {
            if domains.iter().all(|known| known != host) {
                domains.push(host.to_owned());
            }
        }
        Ok(WorkerDetails {
            account: NamedResource {
                name: worker.account.clone(),
                id: Some(&account_id).filter(|id| !id.is_empty()).map(|id| mask(id)),
            },
            zones: zones.collect::<Result<_, Failure>>()?,
            token: self.token(&worker.account),
            domains,
            database: self.database(&account_id, worker)?,
        })
    }

    /// Returns a worker as JSON, with ids masked as in its details: in its database and bindings, and that of its account wherever it is.
    /// Secrets in variables are masked, too.
    pub(super) fn shown(&self, worker: &Worker) -> Result<Value, Failure> {
        fn walk(value: &mut Value, mask: &dyn Fn(&str) -> String) {
            match value {
                Value::String(text) => *text = mask(text),
                Value::Array(items) => items.iter_mut().for_each(|item| walk(item, mask)),
                Value::Object(fields) => fields.values_mut().for_each(|field| walk(field, mask)),
                _ => {}
            }
        }
        let account_id = self.cloud.home(&worker.account, None).account_id;
        let mut value = credential::masked(&[""; 0], serde_json::to_value(worker).map_err(anyhow::Error::from)?);
        for (key, field) in value.as_object_mut().into_iter().flatten() {
            let masks_all = holds_ids(key);
            let of_account = |text: &str| match account_id.is_empty() {
                true => text.to_owned(),
                false => text.replace(&account_id, &mask(&account_id)),
            };
            walk(field, &|text| if masks_all { mask_ids(text) } else { of_account(text) });
        }
        Ok(value)
    }

    fn token(&self, account: &str) -> &'static str {
        let mut tokens = self.tokens.borrow_mut();
        tokens.entry(account.to_owned()).or_insert_with(|| {
            // The local Cloudflare emulator accepts any.
            let found =
                self.cloud.local.is_some() || self.secrets.token(&self.fleet.accounts[account].token.secret).is_some();
            if found { "found" } else { "missing" }
        })
    }

    fn zone(&self, account_id: &str, name: &str) -> Result<Option<String>, Failure> {
        let key = (account_id.to_owned(), name.to_owned());
        if let Some(id) = self.zones.borrow().get(&key) {
            return Ok(id.clone());
        }
        let id = self.state.cached_id(account_id, ResourceKind::Zone, name)?.map(|id| mask(&id));
        self.zones.borrow_mut().insert(key, id.clone());
        Ok(id)
    }

    fn database(&self, account_id: &str, worker: &Worker) -> Result<DatabaseDetails, Failure> {
        Ok(match &worker.database {
            Database::None => DatabaseDetails { kind: "none", name: None, id: None },
            Database::Turso => {
                let url = worker.vars.get(TURSO_URL).and_then(|url| url.as_str()).unwrap_or_default();
                DatabaseDetails { kind: "turso", name: Some(host_of(url).to_owned()), id: None }
            }
            Database::D1 { name, id, .. } => {
                let found = match id {
                    Some(id) => Some(id.clone()),
                    None => self.state.cached_id(account_id, ResourceKind::Database, name)?,
                };
                DatabaseDetails { kind: "d1", name: Some(name.clone()), id: found.map(|id| mask(&id)) }
            }
        })
    }
}

impl WorkerDetails {
    /// Returns the account in a few words.
    pub(super) fn account(&self) -> String {
        format!("{} {}", self.account.name, self.account.id.as_deref().unwrap_or("(id not set)"))
    }

    /// Returns the zones in a few words.
    pub(super) fn zones(&self) -> String {
        let zone = |zone: &NamedResource| match &zone.id {
            Some(id) => format!("{} {id}", zone.name),
            None => zone.name.clone(),
        };
        first_of(self.zones.iter().map(zone))
    }

    /// Returns the domains in a few words.
    pub(super) fn domains(&self) -> String {
        first_of(self.domains.iter().cloned())
    }

    /// Returns the database's name.
    pub(super) fn database(&self) -> String {
        self.database.name.clone().unwrap_or_else(|| self.database.kind.to_owned())
    }

    /// Returns the database's id.
    pub(super) fn database_id(&self) -> String {
        self.database.id.clone().unwrap_or_else(|| "-".to_owned())
    }

    /// Returns all of them on one line.
    pub(super) fn line(&self) -> String {
        let details = [
            ("account", self.account()),
            ("zone", self.zones()),
            ("token", self.token.to_owned()),
            ("domain", self.domains()),
            ("database", self.database()),
            ("its id", self.database_id()),
        ];
        let shown = |(name, value): &(&str, String)| format!("{name} {}", if value == "-" { "none" } else { value });
        details.iter().map(shown).collect::<Vec<_>>().join(" · ")
    }
}

/// Returns the host of an address. Before and behind it, an address can hold what must not be shown.
pub(super) fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    host.rsplit('@').next().unwrap_or(host)
}

/// Returns the first of several, and how many more there are.
fn first_of(mut all: impl ExactSizeIterator<Item = String>) -> String {
    match (all.next(), all.len()) {
        (None, _) => "-".to_owned(),
        (Some(first), 0) => first,
        (Some(first), more) => format!("{first} +{more}"),
    }
}
