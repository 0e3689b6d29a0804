//! The answers that make a new customer: asked for step by step, or given as flags. It is long as each answer comes
//! in both ways.

use secrecy::SecretString;
use serde_json::{Value, json};

use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::Failure;
use flotilla_model::names;
use flotilla_model::spec::{Environment, PackSetting};
use flotilla_spec::edit::Change;
use flotilla_spec::secrets::Finding;
use flotilla_spec::yaml::{self, Kind};

use super::super::authoring::database::{Database, Databases, Wanted};
use super::super::authoring::destinations::{self, Destination};
use super::super::authoring::host::{self, Host};
use super::super::authoring::token::{self, Access, Account, Entry};
use super::super::authoring::{Workspace, answer};
use super::super::prompts::Prompter;
use super::super::ui::clean;
use super::needs::{self, Need};
use super::{Arguments, spec_file, spec_text};
use flotilla_model::text::mask;

/// The answers so far.
pub struct Answers<'a> {
    prompter: &'a Prompter,
    workspace: &'a Workspace,
    arguments: &'a Arguments,
    /// The verified token; none where no request is sent to Cloudflare.
    pub access: Option<Access>,
    /// The account.
    pub account: Option<Account>,
    /// The zone: its name and id.
    pub zone: Option<(String, String)>,
    /// The host.
    pub host: Host,
    /// The id.
    pub id: String,
    /// The database.
    pub database: Database,
    name: String,
    labels: Vec<(String, String)>,
    origins: Vec<String>,
    pack: Option<String>,
    destinations: Vec<Destination>,
    sets: Vec<(Vec<String>, Value)>,
    /// Whether a token that was typed is stored.
    stores_token: bool,
}

/// A choice of the last question: to write, to change a step, or to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Write it.
    Write,
    /// The token, the account and the zone.
    Account,
    /// The host.
    Host,
    /// Id, name, origins.
    Customer,
    /// The database.
    Database,
    /// The destinations.
    Destinations,
    /// Leave without writing.
    Nothing,
}

const STEPS: [(Question, &str); 7] = [
    (Question::Write, "write it"),
    (Question::Account, "change the account and the zone"),
    (Question::Host, "change the host"),
    (Question::Customer, "change the customer"),
    (Question::Database, "change the database"),
    (Question::Destinations, "change the destinations"),
    (Question::Nothing, "quit, and write nothing"),
];

impl<'a> Answers<'a> {
    /// Asks all questions that no flag answers.
    pub fn collect(
        prompter: &'a Prompter,
        workspace: &'a Workspace,
        arguments: &'a Arguments,
    ) -> Result<Answers<'a>, Failure> {
        let mut answers = Answers {
            prompter,
            workspace,
            arguments,
            access: None,
            account: None,
            zone: None,
            host: Host::None,
            id: String::new(),
            database: Database::None,
            name: String::new(),
            labels: arguments.labels.clone(),
            origins: arguments.origins.clone(),
            pack: arguments.pack.clone(),
            destinations: Vec::new(),
            sets: arguments.sets.clone(),
            stores_token: false,
        };
        if let Some(id) = &arguments.customer {
            // Before any question: an id or a host that is taken can't be used.
            free_id(workspace, id).map_err(Failure::usage)?;
        }
        if !prompter.is_interactive() && arguments.customer.is_none() {
            return Err(prompter.missing("the customer's id", "CUSTOMER"));
        }
        answers.account()?;
        answers.host(true)?;
        answers.customer(true)?;
        answers.database(true)?;
        answers.destinations(true)?;
        Ok(answers)
    }

    /// Asks the questions of one step again.
    pub fn ask(&mut self, question: Question) -> Result<(), Failure> {
        match question {
            Question::Account => {
                self.account()?;
                self.host(false)
            }
            Question::Host => self.host(false),
            Question::Customer => self.customer(false),
            Question::Database => self.database(false),
            Question::Destinations => self.destinations(false),
            Question::Write | Question::Nothing => Ok(()),
        }
    }

    /// Asks whether to write it, or which step to change.
    pub fn confirm(&self, default: Question) -> Result<Question, Failure> {
        if !self.prompter.is_interactive() {
            return Ok(Question::Write);
        }
        let items = STEPS.map(|(_, text)| text.to_owned());
        let default = STEPS.iter().position(|(step, _)| *step == default).unwrap_or(0);
        Ok(STEPS[self.prompter.select("All right?", &items, default)?].0)
    }

    /// Returns the settings that are written as they are.
    pub fn sets(&self) -> &[(Vec<String>, Value)] {
        &self.sets
    }

    /// Returns the variables and bindings that the customer probably needs and that aren't set yet.
    pub fn needs(&self) -> Vec<Need> {
        let pack = self.pack.clone().or_else(|| implied_pack(self.workspace));
        let mut needs = needs::needs(self.workspace, pack.as_deref());
        needs.retain(|need| !self.sets.iter().any(|(path, _)| path.iter().take(2).eq([need.key, need.name.as_str()])));
        needs
    }

    /// Returns the value that a variable of every other customer suggests: the id where it is theirs, the host where it is theirs.
    fn likely_value(&self, name: &str) -> String {
        let mut workers = self.workspace.workers.iter().filter(|worker| worker.vars.contains_key(name));
        let value = |worker: &Worker| worker.vars[name].as_str().map(str::to_owned);
        if workers.clone().next().is_some()
            && workers.clone().all(|worker| value(worker).as_deref() == Some(worker.customer.as_str()))
        {
            return self.id.clone();
        }
        let has_host = |worker: &Worker| value(worker).is_some_and(|value| worker.domains.contains(&value));
        if workers.clone().next().is_some() && workers.all(has_host) {
            self.host.name().unwrap_or_default().to_owned()
        } else {
            String::new()
        }
    }

    fn account(&mut self) -> Result<(), Failure> {
        let (prompter, workspace, arguments) = (self.prompter, self.workspace, self.arguments);
        let d1 = matches!(arguments.database, Some(Wanted::Existing(_) | Wanted::New(_)));
        let hosts = arguments.domain.is_some() || arguments.route.is_some();
        self.access = None;
        if arguments.offline || !prompter.is_interactive() && !hosts && !d1 {
            return self.account_without_requests(d1);
        }
        let Some(mut access) = token::access(prompter, workspace, arguments.account.as_deref())? else {
            prompter.note(
                "continuing without a token, as with --offline: no requests are sent, the host is not checked, and no database is listed or created",
            );
            return self.account_without_requests(d1);
        };
        self.zone = None;
        let is_local = workspace.cloud.local.is_some();
        let account = if prompter.is_interactive() && !is_local {
            self.ask_account(&mut access)?
        } else {
            let name = access.of.clone().unwrap_or_default();
            token::account(workspace, &access, &workspace.cloud.home(&name, None).account_id, &name)
        };
        self.stores_token = access.typed
            && (workspace.secrets.token(&account.secret).is_none()
                || prompter.confirm(&format!("Store it as the new token of {}?", account.name), false)?);
        (self.access, self.account) = (Some(access), Some(account));
        Ok(())
    }

    /// Takes the account that is named. Sends no requests. `d1`: whether a D1 database is named, which can't be looked up.
    fn account_without_requests(&mut self, d1: bool) -> Result<(), Failure> {
        if d1 {
            return Err(Failure::usage("D1 databases can't be listed offline")
                .hint("--set database.type=d1 --set database.name=NAME finds or creates it at the first deploy"));
        }
        let workspace = self.workspace;
        let named = self.arguments.account.as_ref().map(|name| {
            let known = workspace.fleet.accounts.listed().get(name);
            let account =
                known.ok_or_else(|| Failure::usage(format!("there is no account `{}` in fleet.yaml", clean(name))))?;
            let id = workspace.cloud.home(name, None).account_id;
            Ok::<_, Failure>(Account {
                name: name.clone(),
                id,
                secret: account.token.secret.clone(),
                entry: Entry::There,
            })
        });
        self.account = named.transpose()?;
        Ok(())
    }

    /// Asks for the zone, which decides the account; without a zone, for the account.
    fn ask_account(&mut self, access: &mut Access) -> Result<Account, Failure> {
        let (prompter, workspace, arguments) = (self.prompter, self.workspace, self.arguments);
        let zones = token::zones(&mut access.requester)?;
        let wanted = arguments.zone.as_deref().or(arguments.domain.as_deref());
        let wanted = wanted.or(arguments.route.as_deref().and_then(|route| route.split('/').next()));
        let holds = |zone: &&flotilla_model::platform::ListedZone| {
            wanted.is_some_and(|host| host == zone.name || host.ends_with(&format!(".{}", zone.name)))
        };
        let given = zones.iter().filter(holds).max_by_key(|zone| zone.name.len());
        if let (Some(wanted), None) = (wanted, given) {
            return Err(Failure::new(format!("the token has no access to a zone with {}", clean(wanted)))
                .hint("use a token of that zone's account"));
        }
        let picked = match given {
            Some(zone) => Some(zone),
            None => {
                let mut items: Vec<String> = zones.iter().map(token::line).collect();
                items.push("no zone: use only the workers.dev address".to_owned());
                zones.get(prompter.select("Zone", &items, 0)?)
            }
        };
        if let Some(zone) = picked {
            self.zone = Some((zone.name.clone(), zone.id.clone()));
            return Ok(token::account(workspace, access, &zone.account_id, &zone.account_name));
        }
        let known = access.of.as_ref().map(|name| workspace.cloud.home(name, None).account_id);
        if let Some(id) = known.filter(|id| !id.is_empty()) {
            return Ok(token::account(workspace, access, &id, ""));
        }
        let accounts = token::accounts(&mut access.requester)?;
        let line = |(name, id): &(String, String)| format!("{} ({})", name.replace(id, &mask(id)), mask(id));
        let items: Vec<String> = accounts.iter().map(line).collect();
        if items.is_empty() {
            return Err(Failure::new("the token has access to no zone and no account"));
        }
        let (name, id) = &accounts[prompter.select("Account", &items, 0)?];
        Ok(token::account(workspace, access, id, name))
    }

    fn host(&mut self, given: bool) -> Result<(), Failure> {
        let (prompter, workspace, arguments) = (self.prompter, self.workspace, self.arguments);
        if given && (arguments.domain.is_some() || arguments.route.is_some()) {
            return self.given_host();
        }
        self.host = Host::None;
        let of_zone = self.zone.clone().filter(|_| prompter.is_interactive());
        // The local emulator takes any zone.
        let asks = of_zone.is_some() || self.access.is_none() || workspace.cloud.local.is_some();
        if !asks || !prompter.is_interactive() {
            return Ok(());
        }
        loop {
            let name = match &of_zone {
                Some((zone, _)) => {
                    prompter.line("Host name", zone, |text| host::in_fleet(workspace, text, Some(zone), None))?
                }
                None => {
                    prompter.line("Host name (empty: use only the workers.dev address)", "", |text| match text {
                        "" => Ok(()),
                        text => host::in_fleet(workspace, text, None, None),
                    })?
                }
            };
            if name.is_empty() {
                return Ok(());
            }
            let zone = of_zone.as_ref().map_or_else(|| names::zone_of(&name).to_owned(), |(zone, _)| zone.clone());
            let zone_id = of_zone.as_ref().map(|(_, id)| id.as_str());
            let kinds =
                ["a custom domain: Cloudflare creates its DNS record", "a route: its DNS record already exists"];
            let host = match prompter.select("Reached by", &kinds.map(str::to_owned), 0)? {
                0 => Host::Domain(name),
                _ => Host::Route { pattern: format!("{name}/*"), zone },
            };
            match self.free_in_account(&host, zone_id)? {
                Ok(()) => {
                    self.host = host;
                    return Ok(());
                }
                Err(taken) => prompter.rejected(&Failure::new(taken)),
            }
        }
    }

    fn given_host(&mut self) -> Result<(), Failure> {
        let (workspace, arguments) = (self.workspace, self.arguments);
        let name = match (&arguments.domain, &arguments.route) {
            (Some(domain), _) => domain.clone(),
            (None, Some(route)) => route.split('/').next().unwrap_or_default().to_owned(),
            (None, None) => return Ok(()),
        };
        let wild = name.starts_with('*');
        if !wild {
            host::in_fleet(workspace, &name, arguments.zone.as_deref(), None).map_err(Failure::usage)?;
        }
        if let (None, Some(access), Some(account)) = (&self.zone, &mut self.access, &self.account) {
            let wanted = arguments.zone.as_deref().unwrap_or(&name);
            let found = token::zone_of(&mut access.requester, &account.id, wanted)?;
            let found = found.filter(|(zone, _)| arguments.zone.as_ref().is_none_or(|wanted| wanted == zone));
            let unknown = || {
                Failure::new(format!("the account {} has no zone for {name}", account.name))
                    .hint("the token needs `Zone: Read` for it; `--account NAME` selects another account of fleet.yaml")
            };
            self.zone = Some(found.ok_or_else(unknown)?);
        }
        let zone = self.zone.as_ref().map(|(name, _)| name.clone()).or(arguments.zone.clone());
        self.host = match &arguments.route {
            None => Host::Domain(name),
            Some(pattern) => {
                let zone = zone.unwrap_or_else(|| names::zone_of(&name).to_owned());
                names::route(pattern, &zone).map_err(|(wrong, help)| Failure::usage(wrong).hint(help))?;
                Host::Route { pattern: pattern.clone(), zone }
            }
        };
        let zone_id = self.zone.as_ref().map(|(_, id)| id.clone());
        self.free_in_account(&self.host.clone(), zone_id.as_deref())?.map_err(|taken| {
            Failure::refused(taken)
                .hint("`domains: [{ name: HOST, takeOver: true }]` in the spec takes over a custom domain")
        })
    }

    fn free_in_account(&mut self, host: &Host, zone_id: Option<&str>) -> Result<Result<(), String>, Failure> {
        match (&mut self.access, &self.account) {
            (Some(access), Some(account)) => host::in_account(&mut access.requester, &account.id, host, zone_id, &[]),
            _ => Ok(Ok(())),
        }
    }

    fn customer(&mut self, given: bool) -> Result<(), Failure> {
        let (prompter, workspace, arguments) = (self.prompter, self.workspace, self.arguments);
        let registrable = self.zone.as_ref().map(|(zone, _)| names::zone_of(zone).to_owned());
        self.id = match &arguments.customer {
            Some(id) if given => id.clone(),
            _ => {
                let default = registrable.as_deref().and_then(|zone| zone.split('.').next()).unwrap_or_default();
                let default = if self.id.is_empty() { default.to_owned() } else { self.id.clone() };
                let default = if free_id(workspace, &default).is_ok() { default } else { String::new() };
                prompter.line("The customer's id", &default, |id| free_id(workspace, id))?
            }
        };
        self.name = match &arguments.name {
            Some(name) if given => name.clone(),
            _ if prompter.is_interactive() => {
                let default = if self.name.is_empty() { &self.id } else { &self.name };
                prompter.line("Display name", default, |_| Ok(()))?
            }
            _ => self.id.clone(),
        };
        if self.pack.is_none() && implied_pack(workspace).is_none() && prompter.is_interactive() {
            let packs: Vec<String> = workspace.fleet.packs.keys().cloned().collect();
            self.pack = packs.get(prompter.select("Pack", &packs, 0)?).cloned();
        }
        let pack = self.pack.clone().or_else(|| implied_pack(workspace));
        let ignores_origins = pack
            .as_ref()
            .and_then(|name| workspace.fleet.packs.get(name))
            .is_some_and(|pack| !pack.manifest.uses(PackSetting::TrustedOrigins));
        if let Some(name) = pack.filter(|_| ignores_origins && !self.origins.is_empty()) {
            return Err(Failure::usage(format!(
                "--origin has no effect: the pack `{name}` doesn't use trusted origins"
            ))
            .hint("pass the value to the code as a variable: --set vars.NAME=VALUE"));
        }
        for origin in &self.origins {
            names::origin(origin).map_err(|(wrong, help)| Failure::usage(wrong).hint(help))?;
        }
        if prompter.is_interactive() && !ignores_origins && (self.origins.is_empty() || !given) {
            let default = self.zone.as_ref().map(|(zone, _)| format!("https://{zone}")).unwrap_or_default();
            let default = if self.origins.is_empty() { default } else { self.origins.join(", ") };
            let split = |text: &str| -> Vec<String> {
                text.split([',', ' ']).filter(|part| !part.is_empty() && *part != "none").map(str::to_owned).collect()
            };
            let valid = |text: &str| {
                let mut origins = split(text).into_iter();
                origins
                    .try_for_each(|origin| names::origin(&origin).map_err(|(wrong, help)| format!("{wrong}: {help}")))
            };
            self.origins = split(&prompter.line("Origins that call the worker from a browser", &default, valid)?);
        }
        if prompter.is_interactive() {
            for need in self.needs() {
                self.ask_need(&need)?;
            }
        }
        Ok(())
    }

    /// Asks for a variable or a binding; an empty answer leaves it out.
    fn ask_need(&mut self, need: &Need) -> Result<(), Failure> {
        let (name, setters) = (&need.name, need.setters());
        let path = vec![need.key.to_owned(), name.clone()];
        if need.fields.is_empty() {
            let prompt = format!("Variable {name}, which {setters} (empty: leave it out)");
            let value = self.prompter.line(&prompt, &self.likely_value(name), |_| Ok(()))?;
            if !value.is_empty() {
                self.sets.push((path, Value::String(value)));
            }
            return Ok(());
        }
        let mut fields = need.fields.clone();
        for field in &need.own {
            let prompt = format!("Binding {name}, which {setters}: its {field} (empty: leave it out)");
            let value = self.prompter.line(&prompt, "", |_| Ok(()))?;
            if value.is_empty() {
                return Ok(());
            }
            fields.insert(field.clone(), answer(&value));
        }
        self.sets.push((path, Value::Object(fields)));
        Ok(())
    }

    fn database(&mut self, given: bool) -> Result<(), Failure> {
        let (prompter, workspace, arguments) = (self.prompter, self.workspace, self.arguments);
        let databases = match (&mut self.access, &self.account) {
            (Some(Access { requester, .. }), Some(account)) => {
                Some(Databases { prompter, workspace, requester, account_id: account.id.clone(), own: self.id.clone() })
            }
            _ => None,
        };
        self.database = match (&arguments.database, databases) {
            (Some(wanted), Some(mut databases)) if given => databases.look_up(wanted)?,
            (Some(Wanted::Turso(url)), _) if given => Database::Turso { url: url.clone(), token: None },
            (_, Some(mut databases)) if prompter.is_interactive() => databases.ask()?,
            _ => Database::None,
        };
        Ok(())
    }

    fn destinations(&mut self, given: bool) -> Result<(), Failure> {
        let (prompter, workspace, arguments) = (self.prompter, self.workspace, self.arguments);
        let name = self.pack.clone().or_else(|| implied_pack(workspace));
        let Some(pack) = name.and_then(|name| workspace.fleet.packs.get(&name)) else { return Ok(()) };
        self.destinations = match arguments.destinations.as_slice() {
            words @ [_, ..] if given => destinations::parse_flags(pack, words)?,
            _ if prompter.is_interactive() => destinations::ask(prompter, pack, &self.id)?,
            _ => Vec::new(),
        };
        Ok(())
    }

    /// Returns the path of the spec.
    pub fn file(&self) -> String {
        spec_file(&self.id)
    }

    /// Returns the changes of fleet.yaml.
    pub fn fleet_changes(&self) -> Vec<Change> {
        let mut changes =
            self.account.as_ref().map(|account| token::entries(self.workspace, account)).unwrap_or_default();
        let zones = self.new_zone().map(|zone| Change::Append(vec!["zones".to_owned()], zone.into()));
        changes.extend(zones);
        changes
    }

    /// Returns the zone if it doesn't follow from the host and fleet.yaml doesn't list it.
    pub fn new_zone(&self) -> impl Iterator<Item = &str> {
        let listed = &self.workspace.fleet.file.zones;
        let zone = self.zone.iter().map(|(zone, _)| zone.as_str());
        zone.filter(move |zone| names::zone_of(zone) != *zone && !listed.iter().any(|other| other == zone))
    }

    /// Returns the spec's text.
    pub fn spec(&self) -> Result<String, Failure> {
        let mut entries: Vec<(&str, Value)> = vec![("id", json!(self.id)), ("name", json!(self.name))];
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
            entries.push(("labels", Value::Object(labels)));
        }
        let account = self.account.as_ref().map(|account| account.name.as_str());
        entries.extend(
            account.filter(|name| implied_account(self.workspace) != Some(name)).map(|name| ("account", json!(name))),
        );
        entries.extend(self.pack.as_ref().map(|pack| ("pack", json!(pack))));
        if !self.origins.is_empty() {
            entries.push(("trustedOrigins", json!(self.origins)));
        }
        entries.extend(self.host.entry());
        entries.extend(self.database.entry(self.workspace).map(|database| ("database", database)));
        if !self.destinations.is_empty() {
            let all: Vec<Value> = self.destinations.iter().map(Destination::entry).collect();
            entries.push(("destinations", Value::Array(all)));
        }
        spec_text(&entries, &self.sets)
    }

    /// Returns the secrets to store: each entry's name and value.
    pub fn secrets(&self) -> Vec<(String, SecretString)> {
        let mut all = Vec::new();
        if let (Some(access), Some(account), true) = (&self.access, &self.account, self.stores_token) {
            all.push((account.secret.clone(), access.token.clone()));
        }
        all.extend(self.database.secret(&self.id));
        all.extend(self.destinations.iter().flat_map(|destination| destination.secrets.iter().cloned()));
        all
    }

    /// Returns the secrets that the spec refers to and that have no value yet.
    pub fn unset(&self) -> Vec<String> {
        let stored = self.secrets();
        let database = self.database.entry(self.workspace).map(|entry| entry["token"]["secret"].clone());
        let settings = self.destinations.iter().flat_map(|destination| destination.settings.values());
        let names = database.into_iter().chain(settings.map(|value| value["secret"].clone()));
        let mut names: Vec<String> = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        names.retain(|name| {
            let own = names::own_secret(&self.id, name);
            let found = self.workspace.secrets.find(&self.id, Environment::Production, name);
            matches!(found, Finding::Nowhere) && !stored.iter().any(|(other, _)| *other == own)
        });
        names.dedup();
        names
    }

    /// Returns the lines of the summary: a label and a text each.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let none = || "none".to_owned();
        let implied = || implied_account(self.workspace).map_or_else(none, str::to_owned);
        let account = self.account.as_ref().map_or_else(implied, |account| {
            let new = if account.entry == Entry::New { ", new in fleet.yaml" } else { "" };
            if account.id.is_empty() {
                account.name.clone()
            } else {
                format!("{} ({}){new}", account.name, mask(&account.id))
            }
        });
        let zone = self.zone.as_ref().map_or_else(none, |(name, id)| format!("{name} ({})", mask(id)));
        let host = match &self.host {
            Host::None => "workers.dev alone".to_owned(),
            Host::Domain(name) => name.clone(),
            Host::Route { pattern, .. } => format!("route {pattern}"),
        };
        let names: Vec<&str> = self.destinations.iter().map(|destination| destination.name.as_str()).collect();
        let secrets: Vec<String> = self.secrets().into_iter().map(|(name, _)| name).collect();
        let mut all = vec![
            ("Customer", if self.name == self.id { self.id.clone() } else { format!("{} ({})", self.id, self.name) }),
            ("Account", account),
            ("Zone", zone),
            ("Host", host),
            ("Database", self.database.line()),
            ("Destinations", if names.is_empty() { none() } else { names.join(", ") }),
        ];
        if !secrets.is_empty() {
            all.push(("Stored", secrets.join(", ")));
        }
        all
    }

    /// Returns the step whose answer caused an error.
    pub fn to_blame(&self, error: &Diagnostic) -> Option<Question> {
        if error.place.file != self.file() {
            return None;
        }
        let text = self.spec().ok()?;
        let (document, _) = yaml::parse("", text.as_bytes());
        let Kind::Map(entries) = document?.root.kind else { return None };
        let (key, ..) = entries.into_iter().rfind(|(_, span, _)| span.line <= error.place.line)?;
        match key.as_str() {
            "account" => Some(Question::Account),
            "domains" | "routes" => Some(Question::Host),
            "database" => Some(Question::Database),
            "destinations" => Some(Question::Destinations),
            _ => Some(Question::Customer),
        }
    }
}

/// Checks that an id is valid and that no customer has it.
fn free_id(workspace: &Workspace, id: &str) -> Result<(), String> {
    names::label(id).map_err(|wrong| match names::nearest_id(id) {
        Some(near) => format!(
            "the id {wrong}: use lower-case letters, digits and hyphens, as in `{near}`; `--set 'vars.CUSTOMER_ID={}'` keeps the original as a \
             variable, and `--label` as a label",
            clean(id)
        ),
        None => format!("the id {wrong}: use lower-case letters, digits and hyphens"),
    })?;
    if id.len() > names::ID_LENGTH {
        return Err(format!("an id has at most {} characters", names::ID_LENGTH));
    }
    if workspace.ids.contains(id) {
        return Err(format!("the customer {id} already exists: `flotilla edit {id}` changes it"));
    }
    Ok(())
}

/// Returns the pack of a customer that names none.
fn implied_pack(workspace: &Workspace) -> Option<String> {
    let defaults = workspace.fleet.file.defaults.as_ref();
    let named = defaults.and_then(|defaults| defaults.get("pack")?.as_str().map(str::to_owned));
    let only = || workspace.fleet.packs.keys().next().filter(|_| workspace.fleet.file.packs.len() == 1).cloned();
    named.or_else(only)
}

/// Returns the account of a customer that names none.
fn implied_account(workspace: &Workspace) -> Option<&str> {
    let named = workspace.fleet.file.defaults.as_ref().and_then(|defaults| defaults.get("account")?.as_str());
    let accounts = workspace.fleet.accounts.listed();
    let default = || accounts.contains_key("default").then_some("default");
    let only = || accounts.keys().next().filter(|_| accounts.len() == 1).map(String::as_str);
    named.or_else(default).or_else(only)
}
