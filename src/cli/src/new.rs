//! `flotilla new`: from a token to a customer's spec, interactively on a terminal or with flags.

mod answers;
mod needs;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use flotilla_model::failure::{Exit, Failure};
use flotilla_model::selection::Selector;
use flotilla_model::spec::ORDER;
use flotilla_spec::edit;
use flotilla_spec::project::FLEET_FILE;

use super::authoring::database::{self, Database, Wanted};
use super::authoring::{
    Workspace, WritingArguments, assignment, print_summary, run_in_transaction, set_line, token, write,
};
use super::prompts::{self, Prompter};
use super::report;
use super::transaction::Transaction;
use super::ui::{Style, clean};
use super::{Format, Session};
use answers::{Answers, Question};
use flotilla_model::text::mask;
use needs::Need;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Customer id, which is also the name of its file
    customer: Option<String>,
    /// Account, by its name in fleet.yaml
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Custom domain of the worker
    #[arg(long, value_name = "HOST", conflicts_with = "route")]
    domain: Option<String>,
    /// Route to the worker, such as shop.example.com/consent/*
    #[arg(long, value_name = "PATTERN")]
    route: Option<String>,
    /// Zone of the host [default: the longest one that matches]
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Display name [default: the id]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Label, such as tier=gold; can be repeated
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Pack [default: the one in fleet.yaml]
    #[arg(long, value_name = "NAME")]
    pack: Option<String>,
    /// Origin that may call the worker from a browser; can be repeated
    #[arg(long = "origin", value_name = "URL")]
    origins: Vec<String>,
    /// Database: none, d1:NAME (existing), d1-new:NAME (created), turso:URL
    #[arg(long, value_name = "DATABASE")]
    database: Option<Wanted>,
    /// Destination type followed by its settings as KEY=VALUE, secrets by name; can be repeated
    #[arg(long = "destination", value_name = "TYPE KEY=VALUE", num_args = 1..)]
    destinations: Vec<String>,
    /// Any other key of the spec, such as logLevel=debug or vars.LANGUAGE=de; can be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    sets: Vec<(Vec<String>, Value)>,
    /// Check the host, and find or create the database, in the local Cloudflare emulator; the spec names the database, so that a deploy to Cloudflare finds or creates it there
    #[arg(long)]
    local: bool,
    /// Send no requests: don't check the host or create a database
    #[arg(long, conflicts_with = "local")]
    offline: bool,
    #[command(flatten)]
    writing: WritingArguments,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as tier=gold")?;
    // What can't be selected by is no label.
    text.parse::<Selector>().map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let (customer, interrupted) = (arguments.customer.as_deref(), arguments.writing.interrupted);
    run_in_transaction(session, "new", customer, interrupted, arguments.local, |workspace, transaction| {
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
    let mut answers = Answers::collect(&prompter, workspace, arguments)?;
    loop {
        if let Some(access) = &answers.access {
            transaction.delete_databases_with(database::deleter(workspace, &access.token)?);
        }
        print_summary(session, &answers.summary());
        for (path, value) in answers.sets() {
            session.ui.line(&set_line(path, value, None));
        }
        let mut again = None;
        if !arguments.writing.yes {
            if !prompter.is_interactive() {
                prompts::require_confirmation("Write it?")?;
            }
            match answers.confirm(Question::Write)? {
                Question::Write => {}
                Question::Nothing => return Err(Failure::refused("not confirmed")),
                question => again = Some(question),
            }
        }
        if again.is_none() {
            let file = answers.file();
            if let Some(text) = write::fleet(session, &answers.fleet_changes())? {
                write::file(session, transaction, FLEET_FILE, &text)?;
            }
            write::file(session, transaction, &file, &answers.spec()?)?;
            let errors = write::check(session, workspace);
            if errors.is_empty() {
                return finish(session, workspace, &mut answers, transaction);
            }
            if arguments.writing.yes || !prompter.is_interactive() {
                return Err(write::failure(session, &errors));
            }
            let guess = errors.iter().find_map(|error| answers.to_blame(error)).unwrap_or(Question::Customer);
            transaction.restart()?;
            match answers.confirm(guess)? {
                Question::Write => {}
                Question::Nothing => return Err(Failure::refused("not confirmed")),
                question => again = Some(question),
            }
        }
        if let Some(question) = again {
            answers.ask(question)?;
        }
    }
}

/// Finishes after the files passed the checks: the database, the secrets, and the next commands.
fn finish(
    session: &Session,
    workspace: &Workspace,
    answers: &mut Answers<'_>,
    transaction: &Transaction,
) -> Result<Exit, Failure> {
    let file = answers.file();
    if let (Database::D1 { name, id: None }, Some(access), Some(account)) =
        (&answers.database, &mut answers.access, &answers.account)
    {
        let id = database::make(transaction, &mut access.requester, &account.id, name)?;
        answers.database = Database::D1 { name: name.clone(), id: Some(id) };
        write::file(session, transaction, &file, &answers.spec()?)?;
        write::require_valid(session, workspace)?;
    }
    let values = answers.secrets();
    let write::Stored { stored, left } = write::secrets(session, transaction, &values, None)?;
    transaction.commit()?;
    let shadowed = match (&answers.access, &answers.account) {
        (Some(access), Some(account)) if access.typed && stored.iter().any(|(name, _)| *name == account.secret) => {
            !write::is_effective(session, &account.secret, &access.token)?
        }
        _ => false,
    };
    let needs = answers.needs();
    let siblings_set: Vec<&str> = needs
        .iter()
        .filter(|need| need.key == "vars" && need.set_by > 0 && need.set_by == need.of)
        .map(|need| need.name.as_str())
        .collect();
    let set = |name: &String| format!("flotilla secrets set {name} --customer {}", answers.id);
    let mut next: Vec<String> = answers.unset().iter().map(set).collect();
    next.extend(
        ["plan", "deploy"].map(|command| format!("flotilla {command} {}{}", answers.id, workspace.local_flag())),
    );
    if session.format == Format::Json {
        session.json(&serde_json::json!({
            "customer": answers.id,
            "file": file,
            "account": answers.account.as_ref().map(|account| account.name.clone()),
            "account_id": answers.account.as_ref().map(|account| mask(&account.id)),
            "host": answers.host.name(),
            "database": match &answers.database {
                Database::None => Value::Null,
                Database::D1 { name, id } => serde_json::json!({
                    "type": "d1", "name": name, "id": id.as_deref().map(mask),
                }),
                Database::Turso { url, .. } => serde_json::json!({"type": "turso", "url": url}),
            },
            "stored": stored.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "missing": left,
            "siblings_set": siblings_set,
            "needs": needs,
            "next": next,
        }))?;
        return Ok(Exit::Done);
    }
    let good = |text: &str| session.ui.paint(Style::Good, text);
    report::print(&format!("{} {file}", good("wrote")));
    let mut setters: BTreeMap<String, Vec<&Need>> = BTreeMap::new();
    for need in &needs {
        setters.entry(need.setters()).or_default().push(need);
    }
    for (setters, needs) in setters {
        let names: Vec<&str> = needs.iter().map(|need| need.name.as_str()).collect();
        let flags: Vec<String> = needs.iter().flat_map(|need| need.flags()).collect();
        let sign = session.ui.paint(Style::Warning, "!");
        let told = format!("{setters} {}: `flotilla edit {} {}`", names.join(", "), answers.id, flags.join(" "));
        report::print(&format!("{sign} {}", clean(&told)));
    }
    if let Some(account) = answers.account.as_ref().filter(|account| account.entry != token::Entry::There) {
        report::print(&format!("{} the account {} in {FLEET_FILE}", good("wrote"), clean(&account.name)));
    }
    for zone in answers.new_zone() {
        report::print(&format!("{} the zone {} in {FLEET_FILE}", good("wrote"), clean(zone)));
    }
    for (name, path) in &stored {
        report::print(&format!("{} {name} in {}", good("stored"), clean(path)));
    }
    for name in &left {
        report::print(&format!("no source file in fleet.yaml can hold {name}: set it at one of the other sources"));
    }
    if shadowed {
        report::print(
            "another token takes precedence over the one that was entered: `secrets` in fleet.yaml defines the order",
        );
    }
    report::print("next:");
    for command in &next {
        report::print(&format!("  {command}"));
    }
    Ok(Exit::Done)
}

/// Returns the path of a customer's spec.
fn spec_file(id: &str) -> String {
    PathBuf::from(flotilla_spec::project::CUSTOMERS).join(format!("{id}.yaml")).to_string_lossy().into_owned()
}

/// Returns the text of a new spec.
fn spec_text(entries: &[(&str, Value)], sets: &[(Vec<String>, Value)]) -> Result<String, Failure> {
    let head = "# yaml-language-server: $schema=../schema/customer.schema.json\n";
    let text = format!("{head}{}", edit::fresh(entries, &ORDER));
    let changes: Vec<edit::Change> =
        sets.iter().map(|(path, value)| edit::Change::Set(path.clone(), value.clone())).collect();
    edit::yaml_all(&text, &changes, &ORDER).map_err(|refused| Failure::usage(format!("--set: {refused}")))
}
