//! `flotilla edit`: changes one deployment of a customer, as a whole or not at all, interactively on a terminal or with flags. It is long
//! because each change can be made in both ways.

mod deployment;
mod environments;

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use flotilla_model::credential;
use flotilla_model::customer;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::names::own_secret;
use flotilla_model::platform::Call;
use flotilla_model::service_key;
use flotilla_model::spec::{Environment, ORDER};
use flotilla_spec::edit::{self, Change};
use flotilla_spec::masked;

use super::authoring::database::{self, Database, Wanted};
use super::authoring::destinations;
use super::authoring::host::{self, Host};
use super::authoring::token::{self, Access};
use super::authoring::{
    Workspace, WritingArguments, answer, assignment, print_summary, run_in_transaction, set_line, steps, type_of, write,
};
use super::prompts::{self, Prompter};
use super::report;
use super::selection::environment;
use super::transaction::Transaction;
use super::ui::{Style, clean};
use super::{Format, Session};
use deployment::Deployment;
use environments::EnvironmentChanges;
use flotilla_model::text::{mask, mask_ids};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The customer
    customer: Option<String>,
    /// Change this environment only
    #[arg(long, value_name = "NAME", value_parser = environment)]
    env: Option<Environment>,
    /// Custom domain that replaces the worker's current one
    #[arg(long, value_name = "HOST")]
    domain: Option<String>,
    /// Database: none, d1:NAME (existing), d1-new:NAME (created), turso:URL
    #[arg(long, value_name = "DATABASE")]
    database: Option<Wanted>,
    /// Add an environment: its workers are created with the next deploy; can be repeated
    #[arg(long = "add-environment", value_name = "NAME", value_parser = environment, conflicts_with = "env")]
    added_environments: Vec<Environment>,
    /// Remove an environment: `flotilla prune` deletes its workers; can be repeated
    #[arg(long = "remove-environment", value_name = "NAME", value_parser = environment, conflicts_with = "env")]
    removed_environments: Vec<Environment>,
    /// Add a destination: its type followed by its settings as KEY=VALUE; can be repeated
    #[arg(long = "destination", value_name = "TYPE KEY=VALUE", num_args = 1..)]
    destinations: Vec<String>,
    /// Remove a destination by its name; can be repeated
    #[arg(long = "remove-destination", value_name = "NAME")]
    removed: Vec<String>,
    /// Enable a destination; can be repeated
    #[arg(long = "enable", value_name = "NAME")]
    enabled: Vec<String>,
    /// Disable a destination, but keep it in the spec; can be repeated
    #[arg(long = "disable", value_name = "NAME")]
    disabled: Vec<String>,
    /// Set a key to a YAML value, such as logLevel=debug or vars.LANGUAGE=de; can be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    sets: Vec<(Vec<String>, Value)>,
    /// Remove a key, such as vars.LANGUAGE; can be repeated
    #[arg(long = "unset", value_name = "PATH", value_parser = steps)]
    unsets: Vec<Vec<String>>,
    /// Store a new API token of the account, read from stdin and verified first
    #[arg(long, conflicts_with = "rotate_secret")]
    rotate_token: bool,
    /// Store a new value of one of the customer's secrets, read from stdin
    #[arg(long, value_name = "NAME")]
    rotate_secret: Option<String>,
    /// Check hosts, and find or create the database, in the local Cloudflare emulator; the spec names the database, so that a deploy to Cloudflare finds or creates it there
    #[arg(long, conflicts_with = "rotate_token")]
    local: bool,
    /// Send no requests: don't check hosts or tokens
    #[arg(long, conflicts_with = "local")]
    offline: bool,
    #[command(flatten)]
    writing: WritingArguments,
}

impl Arguments {
    /// Returns whether the flags name a change.
    fn name_a_change(&self) -> bool {
        [&self.destinations, &self.removed, &self.enabled, &self.disabled].iter().any(|list| !list.is_empty())
            || !self.added_environments.is_empty()
            || !self.removed_environments.is_empty()
            || !self.sets.is_empty()
            || !self.unsets.is_empty()
            || self.domain.is_some()
            || self.database.is_some()
            || self.rotate_token
            || self.rotate_secret.is_some()
    }
}

/// The changes to make.
#[derive(Default)]
struct Edits {
    /// The new texts of files by path.
    files: BTreeMap<String, String>,
    /// The secrets to store: each entry's name and value.
    secrets: Vec<(String, SecretString)>,
    /// A database to create, and the path of its entry in the spec.
    made: Option<(String, Vec<String>)>,
    /// The values that were set: each path, its value, and the value before it.
    set: Vec<(Vec<String>, Value, Option<Value>)>,
    /// The environments that were added and removed.
    environments: EnvironmentChanges,
    /// The account's new token, to check after storing that no other source precedes it.
    token: Option<(String, SecretString)>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let (customer, interrupted) = (arguments.customer.as_deref(), arguments.writing.interrupted);
    run_in_transaction(session, "edit", customer, interrupted, arguments.local, |workspace, transaction| {
        carry_out(session, workspace, arguments, transaction)
    })
}

fn carry_out(
    session: &Session,
    workspace: &Workspace,
    arguments: &Arguments,
    transaction: &Transaction,
) -> Result<Exit, Failure> {
    let prompter = Prompter::new(session);
    let deployment = Deployment::choose(&prompter, workspace, arguments.customer.as_deref(), arguments.env)?;
    let mut access = None;
    if prompter.is_interactive() {
        let mut zone_id = deployment.cached_zone_id(workspace)?;
        if let (None, Some(host), false) = (&zone_id, deployment.host_name(), arguments.offline) {
            // Without a token, or without an answer, the zone has a name alone.
            access = account_access(workspace, &deployment).ok();
            let found = access.as_mut().map(|access: &mut Access| {
                token::zone_of(&mut access.requester, &deployment.account_id(workspace), &host)
            });
            zone_id = found.and_then(Result::ok).flatten().map(|(_, id)| id);
        }
        print_summary(session, &deployment.summary(workspace, zone_id.as_deref())?);
    }
    loop {
        let mut editor = Editor {
            session,
            workspace,
            prompter: &prompter,
            deployment: &deployment,
            offline: arguments.offline,
            edits: Edits::default(),
            access: access.take(),
        };
        match arguments.name_a_change() {
            true => editor.collect_flags(arguments)?,
            false if prompter.is_interactive() => editor.ask()?,
            false => return Err(prompter.missing("what to change", "--set PATH=VALUE, --domain, --database, …")),
        }
        let edits = &editor.edits;
        if let Some(access) = &editor.access {
            transaction.delete_databases_with(database::deleter(workspace, &access.token)?);
        }
        for (path, value, before) in &edits.set {
            session.ui.line(&set_line(path, value, before.as_ref()));
        }
        let shown = differences(session, edits)?;
        for line in environments::effects(workspace, &deployment.worker.customer, &edits.environments)? {
            session.ui.line(&line);
        }
        if shown == 0 && edits.secrets.is_empty() && edits.made.is_none() {
            transaction.commit()?;
            report::print("nothing to change");
            return Ok(Exit::Done);
        }
        if !arguments.writing.yes {
            match prompter.is_interactive() {
                true if !prompter.confirm("Write it?", true)? => return Err(Failure::refused("not confirmed")),
                true => {}
                false => prompts::require_confirmation("Write it?")?,
            }
        }
        for (file, text) in &edits.files {
            write::file(session, transaction, file, text)?;
        }
        let errors = write::check(session, workspace);
        if errors.is_empty() {
            return editor.finish(transaction);
        }
        if arguments.name_a_change() || !prompter.is_interactive() {
            return Err(write::failure(session, &errors));
        }
        transaction.restart()?;
    }
}

/// Prints the differences file by file; returns the number of lines that differ.
fn differences(session: &Session, edits: &Edits) -> Result<usize, Failure> {
    let mut lines = 0;
    for (file, after) in &edits.files {
        let before = write::read(session, file)?;
        if before == *after {
            continue;
        }
        session.ui.line(&format!("{file}:"));
        let diff = TextDiff::from_lines(before.as_str(), after.as_str());
        // What differs is found in the files as they are, and shown without secrets.
        let [hidden_before, hidden_after] = [&before, after].map(|text| masked::without_secrets(file, text));
        let line = |text: &str, index: Option<usize>| text.lines().nth(index?).map(str::to_owned);
        for group in diff.grouped_ops(2) {
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let (style, mark) = match change.tag() {
                    ChangeTag::Equal => (Style::Dim, " "),
                    ChangeTag::Insert => (Style::Good, "+"),
                    ChangeTag::Delete => (Style::Error, "-"),
                };
                lines += usize::from(change.tag() != ChangeTag::Equal);
                let text = line(&hidden_after, change.new_index()).or_else(|| line(&hidden_before, change.old_index()));
                let text = mask_ids(&clean(&text.unwrap_or_default()));
                session.ui.line(&session.ui.paint(style, &format!("  {mark} {text}")));
            }
        }
    }
    for (name, _) in &edits.secrets {
        session.ui.line(&format!("{} gets a new value", clean(name)));
    }
    if let Some((name, _)) = &edits.made {
        session.ui.line(&format!("the D1 database {name} will be created"));
    }
    Ok(lines)
}

/// Returns the verified token of a worker's account.
fn account_access(workspace: &Workspace, deployment: &Deployment<'_>) -> Result<Access, Failure> {
    let name = &deployment.worker.account;
    let tokens = workspace.cloud.tokens(&workspace.fleet, [name.as_str()], &workspace.secrets)?;
    let token = tokens.into_values().next().ok_or_else(|| Failure::new("BUG: an account has no token"))?;
    token::verified(workspace, token, false, Some(name.clone()))
}

/// Collects the changes, question by question or flag by flag.
struct Editor<'a> {
    session: &'a Session,
    workspace: &'a Workspace,
    prompter: &'a Prompter,
    deployment: &'a Deployment<'a>,
    offline: bool,
    edits: Edits,
    access: Option<Access>,
}

impl Editor<'_> {
    /// Finishes after the files passed the checks: the database, the secrets, and the next commands.
    fn finish(self, transaction: &Transaction) -> Result<Exit, Failure> {
        let Editor { session, workspace, deployment, edits, access, .. } = self;
        if let (Some((name, path)), Some(mut access)) = (&edits.made, access) {
            let account_id = deployment.account_id(workspace);
            let id = database::make(transaction, &mut access.requester, &account_id, name)?;
            let text = write::read(session, deployment.file())?;
            let entry = Database::D1 { name: name.clone(), id: Some(id) }.entry(workspace).unwrap_or_default();
            let text = edit::yaml(&text, &Change::Set(path.clone(), entry), &ORDER)
                .map_err(|refused| Failure::new(refused.to_string()))?;
            write::file(session, transaction, deployment.file(), &text)?;
            write::require_valid(session, workspace)?;
        }
        // The token is the account's, whichever environment is changed.
        let is_token = |name: &String| edits.token.as_ref().is_some_and(|(token, _)| token == name);
        let (of_account, of_customer): (Vec<_>, Vec<_>) =
            edits.secrets.iter().cloned().partition(|(name, _)| is_token(name));
        let write::Stored { mut stored, mut left } = write::secrets(session, transaction, &of_account, None)?;
        let more = write::secrets(session, transaction, &of_customer, deployment.only(workspace))?;
        stored.extend(more.stored);
        left.extend(more.left);
        if let Some(name) = left.first() {
            return Err(Failure::new(format!("no source in fleet.yaml is a file that {name} can be written to"))
                .hint("set it at its source"));
        }
        let shadowed = match &edits.token {
            Some((name, token)) => !write::is_effective(session, name, token)?,
            None => false,
        };
        transaction.commit()?;
        let next = format!("flotilla plan {}{}", deployment.worker.customer, workspace.local_flag());
        if session.format == Format::Json {
            let set = edits
                .set
                .iter()
                .map(|(path, value, _)| serde_json::json!({"path": path.join("."), "type": type_of(value)}));
            let set: Vec<_> = set.collect();
            session.json(&serde_json::json!({
                "customer": deployment.worker.customer,
                "environment": deployment.worker.environment,
                "changed": edits.files.keys().collect::<Vec<_>>(),
                "set": set,
                "environments_added": edits.environments.added,
                "environments_removed": edits.environments.removed,
                "stored": stored.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                "next": [next],
            }))?;
            return Ok(Exit::Done);
        }
        for file in edits.files.keys() {
            report::print(&format!("{} {file}", session.ui.paint(Style::Good, "changed")));
        }
        for (name, path) in &stored {
            report::print(&format!("{} {name} in {}", session.ui.paint(Style::Good, "stored"), clean(path)));
        }
        if shadowed {
            report::print(
                "another token takes precedence, probably from the environment: `secrets` in fleet.yaml defines the order",
            );
        }
        if edits.token.is_some() {
            report::print("revoke the old token at Cloudflare once a deploy with the new one has succeeded");
        }
        report::print(&format!("next:\n  {next}"));
        Ok(Exit::Done)
    }

    /// Collects the changes that flags name.
    fn collect_flags(&mut self, arguments: &Arguments) -> Result<(), Failure> {
        for environment in &arguments.added_environments {
            self.add_environment(*environment)?;
        }
        for environment in &arguments.removed_environments {
            self.remove_environment(*environment)?;
        }
        if let Some(host) = &arguments.domain {
            self.domain(host, None)?;
        }
        if let Some(wanted) = &arguments.database {
            let database = match (wanted, self.offline) {
                (Wanted::Existing(_) | Wanted::New(_), false) => self.databases()?.look_up(wanted)?,
                (Wanted::New(name) | Wanted::Existing(name), true) => Database::D1 { name: name.clone(), id: None },
                (Wanted::Turso(url), _) => Database::Turso { url: url.clone(), token: None },
                (Wanted::None, _) => Database::None,
            };
            self.database(&database)?;
        }
        if !arguments.destinations.is_empty() {
            for destination in destinations::parse_flags(self.deployment.pack(self.workspace), &arguments.destinations)?
            {
                self.add(&destination)?;
            }
        }
        for name in &arguments.removed {
            self.remove_destination(name)?;
        }
        for (names, enabled) in [(&arguments.enabled, true), (&arguments.disabled, false)] {
            for name in names {
                self.enable(name, enabled)?;
            }
        }
        for (path, value) in &arguments.sets {
            let before = self.deployment.value(&self.text()?, path);
            self.edits.set.push((path.clone(), value.clone(), before));
            self.set(path, value.clone())?;
        }
        for path in &arguments.unsets {
            self.unset(path)?;
        }
        if arguments.rotate_token {
            let token = self.prompter.hidden_or_piped("New API token")?;
            self.rotate(token)?;
        }
        if let Some(name) = &arguments.rotate_secret {
            let all = own_values(self.deployment.worker);
            if !all.contains(name) {
                return Err(Failure::usage(format!("{} has no secret `{}`", self.deployment.worker.name, clean(name)))
                    .hint(format!("it has: {}", all.join(", "))));
            }
            let value = self.prompter.hidden_or_piped(name)?;
            self.edits.secrets.push((own_secret(&self.deployment.worker.customer, name), value));
        }
        Ok(())
    }

    /// Asks for the changes.
    fn ask(&mut self) -> Result<(), Failure> {
        let kinds = [
            "domain",
            "database",
            "variables",
            "destinations",
            "the account's API token",
            "a secret's value",
            "environments",
        ];
        let picked = self.prompter.multi_select("What to change", &kinds.map(str::to_owned))?;
        for kind in picked {
            match kind {
                0 => self.ask_domain()?,
                1 => {
                    let database = self.databases()?.ask()?;
                    self.database(&database)?;
                }
                2 => self.ask_variables()?,
                3 => self.ask_destinations()?,
                4 => loop {
                    let token = self.prompter.hidden("New API token")?;
                    match self.rotate(token) {
                        Ok(()) => break,
                        Err(failure) => self.prompter.rejected(&failure),
                    }
                },
                5 => self.ask_secret()?,
                _ => self.ask_environments()?,
            }
        }
        Ok(())
    }

    fn ask_domain(&mut self) -> Result<(), Failure> {
        let domains: Vec<String> = self.deployment.worker.domains.iter().cloned().collect();
        let old = match domains.as_slice() {
            [] | [_] => domains.first().cloned(),
            all => Some(all[self.prompter.select("Which domain", all, 0)?].clone()),
        };
        let own = self.deployment.worker.customer.clone();
        loop {
            let free = |text: &str| host::in_fleet(self.workspace, text, None, Some(&own));
            let name = self.prompter.line("Host name", old.as_deref().unwrap_or_default(), free)?;
            match self.domain(&name, old.as_deref()) {
                Ok(()) => return Ok(()),
                Err(failure) => self.prompter.rejected(&failure),
            }
        }
    }

    fn ask_variables(&mut self) -> Result<(), Failure> {
        loop {
            let vars: Vec<(&String, &Value)> = self.deployment.worker.vars.iter().collect();
            let line = |(name, value): &(&String, &Value)| {
                let value = credential::masked(&["vars", name.as_str()], (*value).clone());
                format!("{name} = {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            };
            let mut items: Vec<String> = vec!["no more".to_owned(), "a new variable".to_owned()];
            items.extend(vars.iter().map(line));
            let name = match self.prompter.select("Variable", &items, 0)? {
                0 => return Ok(()),
                1 => {
                    let form = |name: &str| {
                        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
                        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                            && name.chars().all(letters);
                        if good {
                            Ok(())
                        } else {
                            Err("use letters, digits and underscores; the first character can't be a digit".to_owned())
                        }
                    };
                    self.prompter.line("Its name", "", form)?
                }
                index => vars[index - 2].0.clone(),
            };
            let path = ["vars".to_owned(), name.clone()];
            let there = self.deployment.worker.vars.contains_key(&name);
            if there && !self.prompter.confirm("Give it another value? (no removes it)", true)? {
                // What all environments share is taken out of the one that is changed.
                match self.deployment.only(self.workspace) {
                    Some(_) if !self.deployment.place(&self.text()?, &path).there => self.set(&path, Value::Null)?,
                    _ => self.unset(&path)?,
                }
                continue;
            }
            let text = self.prompter.line(&name, "", |_| Ok(()))?;
            self.set(&path, answer(&text))?;
        }
    }

    fn ask_destinations(&mut self) -> Result<(), Failure> {
        let pack = self.deployment.pack(self.workspace);
        loop {
            let names = self.deployment.destinations(self.text()?.as_str());
            let mut items: Vec<String> = vec!["no more".to_owned(), "add one".to_owned()];
            items.extend(names.iter().map(
                |(name, enabled)| {
                    if *enabled { name.clone() } else { format!("{name} (disabled)") }
                },
            ));
            match self.prompter.select("Destination", &items, 0)? {
                0 => return Ok(()),
                1 => {
                    for destination in destinations::ask(self.prompter, pack, &self.deployment.worker.customer)? {
                        self.add(&destination)?;
                    }
                }
                index => {
                    let (name, enabled) = &names[index - 2];
                    let use_it = if *enabled { "disable it" } else { "enable it" };
                    let items = [use_it, "change a setting", "remove it"].map(str::to_owned);
                    match self.prompter.select(name, &items, 0)? {
                        0 => self.enable(name, !enabled)?,
                        1 => {
                            let path = self.destination(name)?;
                            let setting = self.prompter.line("Which setting", "", |text| {
                                if text.is_empty() { Err("type its name".to_owned()) } else { Ok(()) }
                            })?;
                            let text = self.prompter.line("Its new value", "", |_| Ok(()))?;
                            let path = path.into_iter().chain(["settings".to_owned(), setting]).collect();
                            self.spec(Change::Set(path, answer(&text)))?;
                        }
                        _ => self.remove_destination(name)?,
                    }
                }
            }
        }
    }

    fn ask_secret(&mut self) -> Result<(), Failure> {
        let names = own_values(self.deployment.worker);
        if names.is_empty() {
            self.prompter.note("it has no secrets");
            return Ok(());
        }
        let name = &names[self.prompter.select("Secret", &names, 0)?];
        let value = self.prompter.hidden(name)?;
        self.edits.secrets.push((own_secret(&self.deployment.worker.customer, name), value));
        Ok(())
    }

    /// Returns the verified token of the worker's account.
    fn access(&mut self) -> Result<&mut Access, Failure> {
        if self.access.is_none() {
            self.access = Some(account_access(self.workspace, self.deployment)?);
        }
        Ok(self.access.as_mut().expect("BUG: it was just set"))
    }

    /// Returns the databases of the worker's account.
    fn databases(&mut self) -> Result<database::Databases<'_>, Failure> {
        let (prompter, workspace, own) = (self.prompter, self.workspace, &self.deployment.worker.customer);
        let account_id = self.deployment.account_id(workspace);
        let requester = &mut self.access()?.requester;
        Ok(database::Databases { prompter, workspace, requester, account_id, own: own.clone() })
    }

    /// Returns the text of a file with the changes so far.
    fn text_of(&self, file: &str) -> Result<String, Failure> {
        self.edits.files.get(file).map_or_else(|| write::read(self.session, file), |text| Ok(text.clone()))
    }

    /// Returns the spec's text with the changes so far.
    fn text(&self) -> Result<String, Failure> {
        self.text_of(self.deployment.file())
    }

    /// Replaces the text of a file by one that was edited.
    fn replace(&mut self, file: &str, text: Result<String, edit::Refused>) -> Result<(), Failure> {
        let text = text.map_err(|refused| Failure::new(format!("{file}: {refused}")))?;
        self.edits.files.insert(file.to_owned(), text);
        Ok(())
    }

    /// Changes the spec.
    fn spec(&mut self, change: Change) -> Result<(), Failure> {
        self.replace(self.deployment.file(), edit::yaml(&self.text()?, &change, &ORDER))
    }

    /// Sets a value where it is defined: in the spec, for this environment alone or for all, or in an env file.
    fn set(&mut self, path: &[String], value: Value) -> Result<(), Failure> {
        if let Some(index) = path.iter().position(|step| step.parse::<usize>().is_ok()) {
            self.own_list(&path[..index])?;
        }
        let place = self.deployment.place(&self.text()?, path);
        if !place.there
            && !self.deployment.is_defined(&self.text()?, path)
            && let Some(text) = value.as_str()
            && let Some(file) = self.env_file(path)?
        {
            return self.env(&file, &path[1], Some(text));
        }
        self.spec(Change::Set(place.path, value))
    }

    /// Copies a list into an environment that is changed alone, if the customer's environments share one.
    fn own_list(&mut self, path: &[String]) -> Result<(), Failure> {
        let text = self.text()?;
        let place = self.deployment.place(&text, path);
        if place.there || !self.deployment.is_alone() {
            return Ok(());
        }
        match self.deployment.value(&text, path) {
            Some(shared) => self.spec(Change::Set(place.path, shared)),
            None => Err(Failure::usage(format!("{} has no list `{}`", self.deployment.file(), path.join(".")))
                .hint(format!("`--set '{}=[…]'` sets all of it", path.join(".")))),
        }
    }

    fn unset(&mut self, path: &[String]) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, path);
        if !place.there
            && let Some(file) = self.env_file(path)?
        {
            return self.env(&file, &path[1], None);
        }
        if !place.there && self.deployment.is_defined(&self.text()?, path) {
            let environment = self.deployment.worker.environment;
            return Err(Failure::usage(format!(
                "{} is set for all environments, not for {environment} only",
                path.join(".")
            ))
            .hint(format!("`--env {environment} --set {}=null` removes it there", path.join("."))));
        }
        if !place.there {
            return Err(Failure::usage(format!("{} is not set in {}", path.join("."), self.deployment.file())).hint(
                "`flotilla show` shows where each value comes from; `--set PATH=null` removes what a layer sets",
            ));
        }
        self.spec(Change::Remove(place.path))
    }

    /// Returns the customer's env file that defines a variable, if one does.
    fn env_file(&self, path: &[String]) -> Result<Option<String>, Failure> {
        let [vars, name] = path else { return Ok(None) };
        if vars != "vars" {
            return Ok(None);
        }
        for file in self.deployment.env_files(self.workspace) {
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
        self.replace(file, edit::env(&self.text_of(file)?, name, value))
    }

    /// Replaces a host by another one; the only one, if none is named.
    fn domain(&mut self, name: &str, old: Option<&str>) -> Result<(), Failure> {
        let worker = self.deployment.worker;
        host::in_fleet(self.workspace, name, None, Some(&worker.customer)).map_err(Failure::usage)?;
        if !self.offline {
            let account_id = self.deployment.account_id(self.workspace);
            let own = vec![worker.name.clone()];
            let account = worker.account.clone();
            let access = self.access()?;
            if token::zone_of(&mut access.requester, &account_id, name)?.is_none() {
                return Err(Failure::new(format!("the account {account} has no zone for {name}")));
            }
            host::in_account(&mut access.requester, &account_id, &Host::Domain(name.to_owned()), None, &own)?
                .map_err(Failure::refused)?;
        }
        let place = self.deployment.place(&self.text()?, &["domains".to_owned()]);
        let below = |steps: &[String]| place.path.iter().cloned().chain(steps.iter().cloned()).collect::<Vec<_>>();
        // Of an environment that is changed alone, the domains that it shares count: the new one takes their place there.
        let listed = match place.there || !self.deployment.is_alone() {
            true => self.deployment.list(&self.text()?, &place.path),
            false if worker.domains.len() > 1 => {
                worker.domains.iter().map(|domain| Value::from(domain.as_str())).collect()
            }
            false => Vec::new(),
        };
        let own = |entry: &Value| entry.as_str().or(entry["name"].as_str()).map(str::to_owned);
        let index = match (old, listed.len()) {
            (Some(old), _) => listed.iter().position(|entry| own(entry).as_deref() == Some(old)),
            (None, 1) => Some(0),
            (None, 0) => None,
            (None, _) => {
                return Err(Failure::usage(format!("{} has several domains", worker.customer))
                    .hint(format!("name the one to replace: --set domains[0]={name}")));
            }
        };
        match index {
            Some(index) if listed[index].is_object() => {
                self.spec(Change::Set(below(&[index.to_string(), "name".to_owned()]), name.into()))
            }
            Some(index) => self.spec(Change::Set(below(&[index.to_string()]), name.into())),
            None => self.spec(Change::Append(place.path.clone(), name.into())),
        }
    }

    fn database(&mut self, database: &Database) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, &["database".to_owned()]);
        let entry = database.entry(self.workspace).unwrap_or_else(|| serde_json::json!({"type": "none"}));
        self.edits.secrets.extend(database.secret(&self.deployment.worker.customer));
        if let Database::D1 { name, id: None } = database
            && !self.offline
        {
            self.edits.made = Some((name.clone(), place.path.clone()));
        }
        match database {
            Database::None if place.there => self.spec(Change::Remove(place.path)),
            Database::None if self.deployment.worker.database == customer::Database::None => Ok(()),
            _ => self.spec(Change::Set(place.path, entry)),
        }
    }

    fn add(&mut self, destination: &destinations::Destination) -> Result<(), Failure> {
        let place = self.deployment.place(&self.text()?, &["destinations".to_owned()]);
        self.edits.secrets.extend(destination.secrets.iter().cloned());
        let mut path = place.path;
        if let (Some(last), true, false) = (path.last_mut(), self.deployment.is_alone(), place.there) {
            // In addition to those that all environments share, not instead of them.
            last.push('+');
        }
        self.spec(Change::Append(path, destination.entry()))
    }

    /// Returns the path of a destination in the spec.
    fn destination(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        let shared = ["destinations".to_owned()];
        if self.deployment.is_alone() && self.deployment.is_defined(&self.text()?, &shared) {
            self.own_list(&shared)?;
        }
        let text = self.text()?;
        let place = self.deployment.place(&text, &["destinations".to_owned()]);
        let listed = self.deployment.list(&text, &place.path);
        let index = listed.iter().position(|entry| entry["name"] == name);
        let Some(index) = index else {
            let known: Vec<&str> = listed.iter().filter_map(|entry| entry["name"].as_str()).collect();
            let customer = &self.deployment.worker.customer;
            let hint = if known.is_empty() { "it has none" } else { &format!("it has: {}", known.join(", ")) };
            return Err(Failure::usage(format!("{customer} has no destination `{}`", clean(name))).hint(hint));
        };
        Ok(place.path.into_iter().chain([index.to_string()]).collect())
    }

    fn remove_destination(&mut self, name: &str) -> Result<(), Failure> {
        let path = self.destination(name)?;
        self.spec(Change::Remove(path))
    }

    fn enable(&mut self, name: &str, enabled: bool) -> Result<(), Failure> {
        let path: Vec<String> = self.destination(name)?.into_iter().chain(["enabled".to_owned()]).collect();
        // In use is what is said by saying nothing.
        let is_defined = self.deployment.place(&self.text()?, &path).there;
        match (enabled, is_defined) {
            (true, true) => self.spec(Change::Remove(path)),
            (true, false) => Ok(()),
            (false, _) => self.spec(Change::Set(path, false.into())),
        }
    }

    /// Takes a new token of the account, which has to be valid and to reach the account.
    fn rotate(&mut self, token: SecretString) -> Result<(), Failure> {
        if self.workspace.cloud.local.is_some() {
            return Err(Failure::usage("the local emulator has a token of its own, which isn't the account's")
                .hint("change the account's token without --local"));
        }
        let name = self.deployment.worker.account.clone();
        if !self.offline {
            let account_id = self.deployment.account_id(self.workspace);
            let mut access = token::verified(self.workspace, token.clone(), true, Some(name.clone()))?;
            access.requester.try_ask(&token::home(&account_id), &Call::FindSubdomain).map_err(|error| {
                Failure::new(format!("the token has no access to the account {name} ({}): {error}", mask(&account_id)))
                    .hint("the token was not stored; it needs `Workers Scripts: Edit` for that account")
            })?;
        }
        let secret = self.workspace.fleet.accounts[name.as_str()].token.secret.clone();
        self.edits.token = Some((secret.clone(), token.clone()));
        self.edits.secrets.push((secret, token));
        Ok(())
    }
}

/// Returns the names of a worker's secrets that can be set for it: the keys of calls between workers are derived from one of the fleet.
fn own_values(worker: &customer::Worker) -> Vec<String> {
    worker.secrets.values().filter(|name| service_key::path(name).is_none()).cloned().collect()
}
