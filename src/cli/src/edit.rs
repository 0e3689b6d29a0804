//! `flotilla edit`: changes one deployment of a customer, as a whole or not at all. On a terminal a dialogue; everything can be
//! said by options. It is long as each thing that can be changed has both ways.

mod deployment;

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use flotilla_model::customer;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::names::own_secret;
use flotilla_model::platform::Call;
use flotilla_model::spec::{Environment, ORDER};
use flotilla_spec::edit::{self, Change};

use super::changes::{Changes, Interrupted};
use super::dialogue::Dialogue;
use super::new::{deleter, whole};
use super::operator;
use super::questions::database::{self, Database, Wanted};
use super::questions::destinations;
use super::questions::host::{self, Host};
use super::questions::token::{self, Access};
use super::questions::{Ground, assignment, steps, value, write};
use super::report;
use super::secrets::value as typed;
use super::selection::environment;
use super::ui::{Style, clean};
use super::{Format, Session};
use deployment::Deployment;
use flotilla_model::text::mask;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The customer
    customer: Option<String>,
    /// The environment, if the customer has several
    #[arg(long, value_name = "NAME", value_parser = environment)]
    env: Option<Environment>,
    /// The host name that takes the place of the worker's custom domain
    #[arg(long, value_name = "HOST")]
    domain: Option<String>,
    /// The database: none, d1:NAME (there is one), d1-new:NAME (it is made), turso:URL
    #[arg(long, value_name = "DATABASE")]
    database: Option<Wanted>,
    /// A destination that is added: its type, then its settings as KEY=VALUE; may be given several times
    #[arg(long = "destination", value_name = "TYPE KEY=VALUE", num_args = 1..)]
    destinations: Vec<String>,
    /// A destination that is taken out, by its name; may be given several times
    #[arg(long = "remove-destination", value_name = "NAME")]
    removed: Vec<String>,
    /// A destination that is used again; may be given several times
    #[arg(long = "enable", value_name = "NAME")]
    enabled: Vec<String>,
    /// A destination that is kept, but not used; may be given several times
    #[arg(long = "disable", value_name = "NAME")]
    disabled: Vec<String>,
    /// A value of the spec, as in logLevel=debug or vars.LANGUAGE=de; may be given several times
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    sets: Vec<(Vec<String>, Value)>,
    /// A key that is taken out of the spec, as in vars.LANGUAGE; may be given several times
    #[arg(long = "unset", value_name = "PATH", value_parser = steps)]
    unsets: Vec<Vec<String>>,
    /// A new API token of the account, from stdin; it is verified before it is stored
    #[arg(long, conflicts_with = "rotate_secret")]
    rotate_token: bool,
    /// A new value of one of the customer's secrets, from stdin
    #[arg(long, value_name = "NAME")]
    rotate_secret: Option<String>,
    /// Ask no cloud: neither whether a host is free nor whether a token is good
    #[arg(long)]
    offline: bool,
    /// Don't ask whether it is to be written
    #[arg(long, short)]
    yes: bool,
    /// What becomes of what an interrupted `new` or `edit` left
    #[arg(long, value_enum)]
    interrupted: Option<Interrupted>,
}

impl Arguments {
    /// Whether they say what to change.
    fn say(&self) -> bool {
        let lists =
            [&self.destinations, &self.removed, &self.enabled, &self.disabled].iter().any(|list| !list.is_empty());
        let values = !self.sets.is_empty() || !self.unsets.is_empty();
        lists
            || values
            || self.domain.is_some()
            || self.database.is_some()
            || self.rotate_token
            || self.rotate_secret.is_some()
    }
}

/// What is going to be changed.
#[derive(Default)]
struct Wish {
    /// The texts of files by path, as they are going to be.
    files: BTreeMap<String, String>,
    /// What is stored: the entry's name and the value.
    secrets: Vec<(String, SecretString)>,
    /// A database that is made, and where its id belongs.
    made: Option<(String, Vec<String>)>,
    /// Says which token comes before the one that was stored.
    token: Option<(String, SecretString)>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    whole(session, "edit", arguments.customer.as_deref(), arguments.interrupted, |ground, changes| {
        carry_out(session, ground, arguments, changes)
    })
}

fn carry_out(session: &Session, ground: &Ground, arguments: &Arguments, changes: &Changes) -> Result<Exit, Failure> {
    let dialogue = Dialogue::new(session);
    let deployment = Deployment::choose(&dialogue, ground, arguments.customer.as_deref(), arguments.env)?;
    if dialogue.is_on() {
        session.ui.line("");
        for (what, value) in deployment.summary(ground) {
            session.ui.line(&format!("  {:14}{}", format!("{what}:"), clean(&value)));
        }
        session.ui.line("");
    }
    loop {
        let mut editing = Editing {
            session,
            ground,
            dialogue: &dialogue,
            deployment: &deployment,
            offline: arguments.offline,
            wish: Wish::default(),
            access: None,
        };
        match arguments.say() {
            true => editing.given(arguments)?,
            false if dialogue.is_on() => editing.asked()?,
            false => return Err(dialogue.missing("what to change", "--set PATH=VALUE, --domain, --database, …")),
        }
        let Editing { wish, access, .. } = editing;
        if let Some(access) = &access {
            changes.deletes(deleter(ground, &access.token)?);
        }
        let shown = differences(session, &wish)?;
        if shown == 0 && wish.secrets.is_empty() && wish.made.is_none() {
            changes.keep()?;
            report::print("nothing to change");
            return Ok(Exit::Done);
        }
        if !arguments.yes {
            match dialogue.is_on() {
                true if !dialogue.yes("Write it?", true)? => return Err(Failure::refused("not confirmed")),
                true => {}
                false => operator::ask("Write it?")?,
            }
        }
        for (file, text) in &wish.files {
            write::file(session, changes, file, text)?;
        }
        let mistakes = write::check(session, ground);
        if mistakes.is_empty() {
            return finish(session, ground, &deployment, wish, access, changes);
        }
        if arguments.say() || !dialogue.is_on() {
            return Err(write::mistaken(session, &mistakes));
        }
        changes.again()?;
    }
}

/// Shows what differs, file by file; how many lines do.
fn differences(session: &Session, wish: &Wish) -> Result<usize, Failure> {
    let mut lines = 0;
    for (file, after) in &wish.files {
        let before = write::read(session, file)?;
        if before == *after {
            continue;
        }
        session.ui.line(&format!("{file}:"));
        let diff = TextDiff::from_lines(before.as_str(), after.as_str());
        for group in diff.grouped_ops(2) {
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let (style, mark) = match change.tag() {
                    ChangeTag::Equal => (Style::Dim, " "),
                    ChangeTag::Insert => (Style::Good, "+"),
                    ChangeTag::Delete => (Style::Error, "-"),
                };
                lines += usize::from(change.tag() != ChangeTag::Equal);
                let text = clean(change.value().trim_end_matches(['\n', '\r']));
                session.ui.line(&session.ui.paint(style, &format!("  {mark} {text}")));
            }
        }
    }
    for (name, _) in &wish.secrets {
        session.ui.line(&format!("{} gets a new value", clean(name)));
    }
    if let Some((name, _)) = &wish.made {
        session.ui.line(&format!("the D1 database {name} is made"));
    }
    Ok(lines)
}

/// After the files were found good: the database, the secrets, and what comes next.
fn finish(
    session: &Session,
    ground: &Ground,
    deployment: &Deployment<'_>,
    wish: Wish,
    access: Option<Access>,
    changes: &Changes,
) -> Result<Exit, Failure> {
    let mut files: Vec<&String> = wish.files.keys().collect();
    if let (Some((name, path)), Some(mut access)) = (&wish.made, access) {
        let account_id = deployment.account_id(ground);
        let id = database::make(changes, &mut access.asking, &account_id, name)?;
        let text = write::read(session, deployment.file())?;
        let entry = Database::D1 { name: name.clone(), id: Some(id) }.entry().unwrap_or_default();
        let text = edit::yaml(&text, &Change::Set(path.clone(), entry), &ORDER)
            .map_err(|refused| Failure::new(refused.to_string()))?;
        write::file(session, changes, deployment.file(), &text)?;
        let mistakes = write::check(session, ground);
        if !mistakes.is_empty() {
            return Err(write::mistaken(session, &mistakes));
        }
    }
    let write::Stored { stored, left } = write::secrets(session, changes, &wish.secrets)?;
    if let Some(name) = left.first() {
        return Err(Failure::new(format!("no source of fleet.yaml is a file that {name} can be written to"))
            .hint("set it where it comes from"));
    }
    let shadowed = match &wish.token {
        Some((name, token)) => !write::counts(session, name, token)?,
        None => false,
    };
    changes.keep()?;
    let next = format!("flotilla plan {}", deployment.worker.customer);
    if session.format == Format::Json {
        session.json(&serde_json::json!({
            "customer": deployment.worker.customer,
            "environment": deployment.worker.environment,
            "changed": files,
            "stored": stored.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "next": [next],
        }))?;
        return Ok(Exit::Done);
    }
    files.sort();
    for file in files {
        report::print(&format!("{} {file}", session.ui.paint(Style::Good, "changed")));
    }
    for (name, path) in &stored {
        report::print(&format!("{} {name} in {}", session.ui.paint(Style::Good, "stored"), clean(path)));
    }
    if shadowed {
        report::print(
            "another token comes before it, perhaps in the environment: `secrets` in fleet.yaml says in which order",
        );
    }
    if wish.token.is_some() {
        report::print("revoke the old token at Cloudflare when a deploy has gone through with the new one");
    }
    report::print(&format!("next:\n  {next}"));
    Ok(Exit::Done)
}

/// What is collected, question by question.
struct Editing<'a> {
    session: &'a Session,
    ground: &'a Ground,
    dialogue: &'a Dialogue,
    deployment: &'a Deployment<'a>,
    offline: bool,
    wish: Wish,
    access: Option<Access>,
}

impl Editing<'_> {
    /// What the options say.
    fn given(&mut self, arguments: &Arguments) -> Result<(), Failure> {
        if let Some(host) = &arguments.domain {
            self.domain(host, None)?;
        }
        if let Some(wanted) = &arguments.database {
            let database = match (wanted, self.offline) {
                (Wanted::There(_) | Wanted::New(_), false) => {
                    let (dialogue, ground, own) = (self.dialogue, self.ground, self.deployment.worker.customer.clone());
                    let account_id = self.deployment.account_id(ground);
                    let access = self.access()?;
                    database::wanted(dialogue, ground, &mut access.asking, &account_id, &own, wanted)?
                }
                (Wanted::New(name) | Wanted::There(name), true) => Database::D1 { name: name.clone(), id: None },
                (Wanted::Turso(url), _) => Database::Turso { url: url.clone(), token: None },
                (Wanted::None, _) => Database::None,
            };
            self.database(&database)?;
        }
        if !arguments.destinations.is_empty() {
            for destination in destinations::given(self.deployment.pack(self.ground), &arguments.destinations)? {
                self.add(&destination)?;
            }
        }
        for name in &arguments.removed {
            let path = self.destination(name)?;
            self.spec(Change::Remove(path))?;
        }
        for (names, enabled) in [(&arguments.enabled, true), (&arguments.disabled, false)] {
            for name in names {
                self.enable(name, enabled)?;
            }
        }
        for (path, value) in &arguments.sets {
            self.set(path, value.clone())?;
        }
        for path in &arguments.unsets {
            self.unset(path)?;
        }
        if arguments.rotate_token {
            let token = if self.dialogue.is_on() { self.dialogue.secret("New API token")? } else { typed::piped()? };
            self.rotate(token)?;
        }
        if let Some(name) = &arguments.rotate_secret {
            let known = &self.deployment.worker.secrets;
            if !known.values().any(|other| other == name) {
                let all: Vec<&str> = known.values().map(String::as_str).collect();
                return Err(Failure::usage(format!("{} has no secret `{}`", self.deployment.worker.name, clean(name)))
                    .hint(format!("it has: {}", all.join(", "))));
            }
            let value = if self.dialogue.is_on() { self.dialogue.secret(name)? } else { typed::piped()? };
            self.wish.secrets.push((own_secret(&self.deployment.worker.customer, name), value));
        }
        Ok(())
    }

    /// What somebody answers.
    fn asked(&mut self) -> Result<(), Failure> {
        let kinds = ["domain", "database", "variables", "destinations", "the account's API token", "a secret's value"];
        let picked = self.dialogue.several("What to change", &kinds.map(str::to_owned))?;
        for kind in picked {
            match kind {
                0 => self.ask_domain()?,
                1 => {
                    let (dialogue, ground, own) = (self.dialogue, self.ground, self.deployment.worker.customer.clone());
                    let account_id = self.deployment.account_id(ground);
                    let access = self.access()?;
                    let database = database::ask(dialogue, ground, &mut access.asking, &account_id, &own)?;
                    self.database(&database)?;
                }
                2 => self.ask_variables()?,
                3 => self.ask_destinations()?,
                4 => loop {
                    let token = self.dialogue.secret("New API token")?;
                    match self.rotate(token) {
                        Ok(()) => break,
                        Err(failure) => self.dialogue.again(&failure),
                    }
                },
                _ => self.ask_secret()?,
            }
        }
        Ok(())
    }

    fn ask_domain(&mut self) -> Result<(), Failure> {
        let domains: Vec<String> = self.deployment.worker.domains.iter().cloned().collect();
        let old = match domains.as_slice() {
            [] | [_] => domains.first().cloned(),
            all => Some(all[self.dialogue.choose("Which domain", all, 0)?].clone()),
        };
        let own = self.deployment.worker.customer.clone();
        loop {
            let free = |text: &str| host::in_fleet(self.ground, text, None, Some(&own));
            let name = self.dialogue.text("Host name", old.as_deref().unwrap_or_default(), free)?;
            match self.domain(&name, old.as_deref()) {
                Ok(()) => return Ok(()),
                Err(failure) => self.dialogue.again(&failure),
            }
        }
    }

    fn ask_variables(&mut self) -> Result<(), Failure> {
        loop {
            let vars: Vec<(&String, &Value)> = self.deployment.worker.vars.iter().collect();
            let line = |(name, value): &(&String, &Value)| {
                format!("{name} = {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            };
            let mut items: Vec<String> = vec!["no more".to_owned(), "a new variable".to_owned()];
            items.extend(vars.iter().map(line));
            let name = match self.dialogue.choose("Variable", &items, 0)? {
                0 => return Ok(()),
                1 => {
                    let form = |name: &str| {
                        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
                        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                            && name.chars().all(letters);
                        if good { Ok(()) } else { Err("letters, digits and underscores, no digit first".to_owned()) }
                    };
                    self.dialogue.text("Its name", "", form)?
                }
                at => vars[at - 2].0.clone(),
            };
            let path = ["vars".to_owned(), name.clone()];
            let there = self.deployment.worker.vars.contains_key(&name);
            if there && !self.dialogue.yes("Give it another value? (no: take it out)", true)? {
                self.unset(&path)?;
                continue;
            }
            let text = self.dialogue.text(&name, "", |_| Ok(()))?;
            self.set(&path, value(&text))?;
        }
    }

    fn ask_destinations(&mut self) -> Result<(), Failure> {
        let pack = self.deployment.pack(self.ground);
        loop {
            let names = self.deployment.destinations(self.text()?.as_str());
            let mut items: Vec<String> = vec!["no more".to_owned(), "add one".to_owned()];
            items.extend(names.iter().map(
                |(name, enabled)| {
                    if *enabled { name.clone() } else { format!("{name} (not used)") }
                },
            ));
            match self.dialogue.choose("Destination", &items, 0)? {
                0 => return Ok(()),
                1 => {
                    for destination in destinations::ask(self.dialogue, pack, &self.deployment.worker.customer)? {
                        self.add(&destination)?;
                    }
                }
                at => {
                    let (name, enabled) = &names[at - 2];
                    let use_it = if *enabled { "don't use it" } else { "use it again" };
                    let items = [use_it, "change a setting", "take it out"].map(str::to_owned);
                    match self.dialogue.choose(name, &items, 0)? {
                        0 => self.enable(name, !enabled)?,
                        1 => {
                            let path = self.destination(name)?;
                            let setting = self.dialogue.text("Which setting", "", |text| {
                                if text.is_empty() { Err("it needs a name".to_owned()) } else { Ok(()) }
                            })?;
                            let text = self.dialogue.text("Its new value", "", |_| Ok(()))?;
                            let path = path.into_iter().chain(["settings".to_owned(), setting]).collect();
                            self.spec(Change::Set(path, value(&text)))?;
                        }
                        _ => {
                            let path = self.destination(name)?;
                            self.spec(Change::Remove(path))?;
                        }
                    }
                }
            }
        }
    }

    fn ask_secret(&mut self) -> Result<(), Failure> {
        let names: Vec<String> = self.deployment.worker.secrets.values().cloned().collect();
        if names.is_empty() {
            self.dialogue.note("it has no secrets");
            return Ok(());
        }
        let name = &names[self.dialogue.choose("Secret", &names, 0)?];
        let value = self.dialogue.secret(name)?;
        self.wish.secrets.push((own_secret(&self.deployment.worker.customer, name), value));
        Ok(())
    }

    /// Asks with the token of the worker's account.
    fn access(&mut self) -> Result<&mut Access, Failure> {
        if self.access.is_none() {
            let name = &self.deployment.worker.account;
            let tokens = self.ground.cloud.tokens(&self.ground.fleet, [name.as_str()], &self.ground.secrets)?;
            let token = tokens.into_values().next().ok_or_else(|| Failure::new("BUG: an account has no token"))?;
            self.access = Some(token::verified(self.ground, token, false, Some(name.clone()))?);
        }
        Ok(self.access.as_mut().expect("BUG: it was just set"))
    }

    /// The spec's text, as it is going to be.
    fn text(&self) -> Result<String, Failure> {
        match self.wish.files.get(self.deployment.file()) {
            Some(text) => Ok(text.clone()),
            None => write::read(self.session, self.deployment.file()),
        }
    }

    /// Changes the spec.
    fn spec(&mut self, change: Change) -> Result<(), Failure> {
        let text = edit::yaml(&self.text()?, &change, &ORDER)
            .map_err(|refused| Failure::new(format!("{}: {refused}", self.deployment.file())))?;
        self.wish.files.insert(self.deployment.file().to_owned(), text);
        Ok(())
    }

    /// Sets a value where it stands: in the spec, for this environment alone or for all, or in an env file.
    fn set(&mut self, path: &[String], value: Value) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, path);
        if !place.there
            && let Some(text) = value.as_str()
            && let Some(file) = self.env_file(path)?
        {
            return self.env(&file, &path[1], Some(text));
        }
        self.spec(Change::Set(place.path, value))
    }

    fn unset(&mut self, path: &[String]) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, path);
        if !place.there
            && let Some(file) = self.env_file(path)?
        {
            return self.env(&file, &path[1], None);
        }
        if !place.there {
            return Err(Failure::usage(format!("{} doesn't stand in {}", path.join("."), self.deployment.file()))
                .hint(
                    "`flotilla show` says where each value comes from; `--set PATH=null` takes away what a layer sets",
                ));
        }
        self.spec(Change::Remove(place.path))
    }

    /// The customer's env file in which a variable stands, if one has it.
    fn env_file(&self, path: &[String]) -> Result<Option<String>, Failure> {
        let [vars, name] = path else { return Ok(None) };
        if vars != "vars" {
            return Ok(None);
        }
        for file in self.deployment.env_files(self.ground) {
            if !self.session.root.join(&file).is_file() {
                continue;
            }
            let text = write::read(self.session, &file)?;
            let (document, _) = flotilla_spec::envfile::parse(&file, text.as_bytes());
            if document.root.along(["vars", name.as_str()]).1 {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    fn env(&mut self, file: &str, name: &str, value: Option<&str>) -> Result<(), Failure> {
        let text = match self.wish.files.get(file) {
            Some(text) => text.clone(),
            None => write::read(self.session, file)?,
        };
        let text = edit::env(&text, name, value).map_err(|refused| Failure::new(format!("{file}: {refused}")))?;
        self.wish.files.insert(file.to_owned(), text);
        Ok(())
    }

    /// Another host in the place of one, or of the only one.
    fn domain(&mut self, name: &str, old: Option<&str>) -> Result<(), Failure> {
        let worker = self.deployment.worker;
        host::in_fleet(self.ground, name, None, Some(&worker.customer)).map_err(Failure::usage)?;
        if !self.offline {
            let account_id = self.deployment.account_id(self.ground);
            let own = vec![worker.name.clone()];
            let account = worker.account.clone();
            let access = self.access()?;
            if token::zone_of(&mut access.asking, &account_id, name)?.is_none() {
                return Err(Failure::new(format!("the account {account} has no zone for {name}")));
            }
            host::in_account(&mut access.asking, &account_id, &Host::Domain(name.to_owned()), None, &own)?
                .map_err(Failure::refused)?;
        }
        let place = self.deployment.place(&self.text()?, &["domains".to_owned()]);
        let below = |steps: &[String]| place.path.iter().cloned().chain(steps.iter().cloned()).collect::<Vec<_>>();
        let listed = self.deployment.list(&self.text()?, &place.path);
        let own = |entry: &Value| entry.as_str().or(entry["name"].as_str()).map(str::to_owned);
        let at = match (old, listed.len()) {
            (Some(old), _) => listed.iter().position(|entry| own(entry).as_deref() == Some(old)),
            (None, 1) => Some(0),
            (None, 0) => None,
            (None, _) => {
                return Err(Failure::usage(format!("{} has several domains", worker.customer))
                    .hint(format!("--set domains[0]={name} names the one that is replaced")));
            }
        };
        match at {
            Some(at) if listed[at].is_object() => {
                self.spec(Change::Set(below(&[at.to_string(), "name".to_owned()]), name.into()))
            }
            Some(at) => self.spec(Change::Set(below(&[at.to_string()]), name.into())),
            None => self.spec(Change::Append(place.path.clone(), name.into())),
        }
    }

    fn database(&mut self, database: &Database) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, &["database".to_owned()]);
        let entry = database.entry().unwrap_or_else(|| serde_json::json!({"type": "none"}));
        self.wish.secrets.extend(database.secret(&self.deployment.worker.customer));
        if let Database::D1 { name, id: None } = database
            && !self.offline
        {
            self.wish.made = Some((name.clone(), place.path.clone()));
        }
        match database {
            Database::None if place.there => self.spec(Change::Remove(place.path)),
            Database::None if self.deployment.worker.database == customer::Database::None => Ok(()),
            _ => self.spec(Change::Set(place.path, entry)),
        }
    }

    fn add(&mut self, destination: &destinations::Destination) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, &["destinations".to_owned()]);
        self.wish.secrets.extend(destination.secrets.iter().cloned());
        self.spec(Change::Append(place.path, destination.entry()))
    }

    /// Where a destination stands, by its name.
    fn destination(&self, name: &str) -> Result<Vec<String>, Failure> {
        let text = self.text()?;
        let place = self.deployment.place(&text, &["destinations".to_owned()]);
        let listed = self.deployment.list(&text, &place.path);
        let at = listed.iter().position(|entry| entry["name"] == name);
        let Some(at) = at else {
            let known: Vec<&str> = listed.iter().filter_map(|entry| entry["name"].as_str()).collect();
            return Err(Failure::usage(format!(
                "{} has no destination `{}`",
                self.deployment.worker.customer,
                clean(name)
            ))
            .hint(if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has: {}", known.join(", "))
            }));
        };
        Ok(place.path.into_iter().chain([at.to_string()]).collect())
    }

    fn enable(&mut self, name: &str, enabled: bool) -> Result<(), Failure> {
        let path: Vec<String> = self.destination(name)?.into_iter().chain(["enabled".to_owned()]).collect();
        // In use is what is said by saying nothing.
        let said = self.deployment.place(&self.text()?, &path).there;
        match (enabled, said) {
            (true, true) => self.spec(Change::Remove(path)),
            (true, false) => Ok(()),
            (false, _) => self.spec(Change::Set(path, false.into())),
        }
    }

    /// A new token of the account: it has to be good, and to reach the account.
    fn rotate(&mut self, token: SecretString) -> Result<(), Failure> {
        let name = self.deployment.worker.account.clone();
        if !self.offline {
            let account_id = self.deployment.account_id(self.ground);
            let mut access = token::verified(self.ground, token.clone(), true, Some(name.clone()))?;
            access.asking.try_ask(&token::home(&account_id), &Call::FindSubdomain).map_err(|error| {
                Failure::new(format!("the token doesn't reach the account {name} ({}): {error}", mask(&account_id)))
                    .hint("it is not stored; a token of that account with `Workers Scripts: Edit` is wanted")
            })?;
        }
        let secret = self.ground.fleet.accounts[&name].token.secret.clone();
        self.wish.token = Some((secret.clone(), token.clone()));
        self.wish.secrets.push((secret, token));
        Ok(())
    }
}
