//! `flotilla secrets set` and `flotilla secrets rotate`.

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_build::git;
use flotilla_model::diagnostic::did_you_mean;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::limits::Limit;
use flotilla_model::lock::Lock;
use flotilla_model::names::own_secret;
use flotilla_model::service_key;
use flotilla_model::spec::{AccountId, Environment};
use flotilla_model::text::grouped;
use flotilla_spec::secrets::Store;

use flotilla_engine::context::FOLDER;
use flotilla_engine::credentials::{ACCOUNT_ID_FORM, TOKEN_FORM, check_account_id, check_token};

use super::super::authoring::write::warn_if_exposed;
use super::super::cloud::CloudArguments;
use super::super::prompts;
use super::super::report::{self, count};
use super::super::selection::environment;
use super::super::ui::clean;
use super::super::{Format, Session};
use super::value::{self, Alphabet};
use super::{Needs, Opened, open};

/// The number of workers that are named.
const NAMED: usize = 12;

/// What is changed, and where.
#[derive(clap::Args)]
struct Which {
    /// Name of the secret, as specs refer to it
    name: String,
    /// Set it for this customer only, as CUSTOMER__NAME
    #[arg(long, value_name = "ID")]
    customer: Option<String>,
    /// File to write to, as fleet.yaml names it [default: the one that has the secret, else the first writable one]
    #[arg(long, value_name = "PATH")]
    source: Option<String>,
    /// Environment, where sources have one file for each
    #[arg(long, value_name = "NAME", value_parser = environment)]
    env: Option<Environment>,
}

#[derive(clap::Args)]
pub struct SetArguments {
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub struct RotateArguments {
    #[command(flatten)]
    which: Which,
    /// Encoding of the random value
    #[arg(long, value_enum, default_value_t = Alphabet::default(), conflicts_with = "stdin")]
    generate: Alphabet,
    /// Number of random bytes
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u16).range(16..=1024), conflicts_with = "stdin")]
    length: u16,
    /// Read the new value from stdin instead
    #[arg(long)]
    stdin: bool,
    /// End the rotation of FLOTILLA_SERVICE_KEY: its previous value is no longer accepted
    #[arg(long, conflicts_with_all = ["generate", "length", "stdin"])]
    end: bool,
}

pub(super) fn set(session: &Session, arguments: &SetArguments) -> Result<Exit, Failure> {
    change(session, &arguments.which, false, |entry| prompts::hidden_or_piped(&format!("{entry}: ")))
}

pub(super) fn rotate(session: &Session, arguments: &RotateArguments) -> Result<Exit, Failure> {
    let which = &arguments.which;
    if arguments.end && which.name != service_key::SOURCE {
        let failure = Failure::usage(format!("only the rotation of {} has an end", service_key::SOURCE));
        return Err(failure.hint("other secrets have one value: the next deploy uploads it"));
    }
    if arguments.end {
        return end(session, which);
    }
    change(session, which, true, |_| match arguments.stdin {
        true => prompts::piped(),
        false => value::random(arguments.length.into(), arguments.generate),
    })
}

fn change(
    session: &Session,
    which: &Which,
    rotate: bool,
    value: impl FnOnce(&str) -> Result<SecretString, Failure>,
) -> Result<Exit, Failure> {
    let opened = open(session, &CloudArguments::default())?;
    let entry = entry(&opened, which)?;
    // One after the other: each reads the file that the one before has written.
    let _lock = Lock::wait(&session.root.join(FOLDER).join("secrets.lock"), "secrets", &session.ui)?;
    let environments = opened.loaded.workers.iter().map(|worker| worker.environment).collect();
    let stores = opened.secrets.stores(&environments);
    // All keys of calls are derived from it, so that it isn't a customer's, and its first value can be random as well.
    let is_service_key = *entry == *service_key::SOURCE;
    let store = store(&opened, &stores, which, &entry, rotate && !is_service_key)?;
    let (path, on_disk) = (store.path(), store.on_disk());
    if store.is_clear() && git::is_tracked(&on_disk)? {
        return Err(Failure::refused(format!("git tracks {path}, and plain-text secrets don't belong in git")).hint(format!(
            "remove it from git (git rm --cached {path}), add it to .gitignore, and replace the secrets that were in it; or encrypt it with \
             age; see docs/guides/secrets.md"
        )));
    }
    let value = value(&entry)?;
    fits(&opened, which, &value)?;
    check_credential(&opened, which, &value)?;
    let is_new = !store.has(&entry).unwrap_or(false);
    if rotate && is_service_key {
        keep_previous(&opened, store)?;
    }
    store.set(&entry, &value)?;
    drop(value);
    warn_if_exposed(session, &on_disk, store);
    // The value that applies now is read again, as the next deploy reads it.
    let within = store.environment();
    let opened = open(session, &CloudArguments::default())?;
    let needs = opened.needs(session, |worker| {
        worker.secrets.values().any(|name| service_key::source_name(name) == which.name)
            && which.customer.as_ref().is_none_or(|customer| *customer == worker.customer)
            && within.is_none_or(|environment| environment == worker.environment)
    })?;
    print_change(session, which, &entry, &path, is_new, &needs)
}

/// Keeps the service key as the previous one: until the rotation ends, calls are signed with both, and both are accepted, in whatever order
/// workers are uploaded.
fn keep_previous(opened: &Opened, store: &Store<'_>) -> Result<(), Failure> {
    let (current, previous) = (opened.secrets.token(service_key::SOURCE), opened.secrets.token(service_key::PREVIOUS));
    let Some(current) = current else { return Ok(()) };
    // The same value: this was interrupted before the new one was written.
    if previous.is_some_and(|previous| previous.expose_secret() != current.expose_secret()) {
        return Err(Failure::refused(format!("a rotation of {} is under way", service_key::SOURCE)).hint(format!(
            "workers that have neither of the two values would be locked out; deploy, then end it: flotilla secrets rotate {} --end",
            service_key::SOURCE
        )));
    }
    store.set(service_key::PREVIOUS, &current)
}

/// Ends the rotation of the service key, once every worker has the new value.
fn end(session: &Session, which: &Which) -> Result<Exit, Failure> {
    let opened = open(session, &CloudArguments::default())?;
    // Which is rejected with a customer, as for a rotation's beginning.
    entry(&opened, which)?;
    let _lock = Lock::wait(&session.root.join(FOLDER).join("secrets.lock"), "secrets", &session.ui)?;
    let opened = open(session, &CloudArguments::default())?;
    let environments = opened.loaded.workers.iter().map(|worker| worker.environment).collect();
    let stores = opened.secrets.stores(&environments);
    if opened.secrets.token(service_key::PREVIOUS).is_none() {
        return Err(Failure::new(format!("no rotation of {} is under way", service_key::SOURCE))
            .hint(format!("begin one: flotilla secrets rotate {}", service_key::SOURCE)));
    }
    let named = |store: &&Store<'_>| which.source.as_ref().is_none_or(|path| *path == store.path());
    let has = |store: &&Store<'_>| store.environment().is_none() && store.has(service_key::PREVIOUS) == Ok(true);
    let Some(store) = stores.iter().filter(named).find(has) else {
        let failure = Failure::new(format!("{} is in no file that flotilla can write to", service_key::PREVIOUS));
        return Err(failure.hint("remove it from the source that has it"));
    };
    let uses = |worker: &flotilla_model::customer::Worker| {
        worker.secrets.values().any(|name| service_key::source_name(name) == service_key::SOURCE)
    };
    let needs = opened.needs(session, uses)?;
    let is_old = |needs: &&Needs| {
        let mut rows = needs.rows.iter().filter(|row| service_key::source_name(&row.name) == service_key::SOURCE);
        rows.any(|row| row.deployed && row.status != super::Status::Unchanged)
    };
    let old: Vec<&str> = needs.iter().filter(is_old).map(|needs| needs.rows[0].worker.as_str()).collect();
    if !old.is_empty() {
        let mut named = old.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        if old.len() > NAMED {
            named += ", …";
        }
        let failure = Failure::refused(format!("{} without the new value: {named}", count(old.len(), "worker")));
        return Err(failure.hint("deploy first; until then, they would reject the calls of others"));
    }
    store.set(service_key::PREVIOUS, &SecretString::from(""))?;
    let path = store.path();
    let opened = open(session, &CloudArguments::default())?;
    let needs = opened.needs(session, uses)?;
    print_change(session, which, service_key::SOURCE, &path, false, &needs)
}

/// Rejects a token or an id of an account that no request can carry, before it is stored.
fn check_credential(opened: &Opened, which: &Which, value: &SecretString) -> Result<(), Failure> {
    let accounts = &opened.loaded.project.fleet.accounts;
    if which.customer.is_some() {
        return Ok(());
    }
    if which.name == service_key::SOURCE && value.expose_secret().len() < service_key::MINIMUM_LENGTH {
        let least = service_key::MINIMUM_LENGTH;
        return Err(Failure::new(format!("the value has fewer than {least} characters, and was not stored"))
            .hint(format!("have a random one made: flotilla secrets rotate {}", service_key::SOURCE)));
    }
    let is_token = accounts.values().any(|account| account.token.secret == which.name);
    let is_id = |id: &AccountId| matches!(id, AccountId::Variable { env } if *env == which.name);
    if is_token {
        let failure = |what| Failure::new(format!("the token contains {what}, and was not stored")).hint(TOKEN_FORM);
        check_token(value).map_err(failure)?;
    } else if accounts.values().any(|account| is_id(&account.id)) {
        let failure = |what| Failure::new(format!("the account's id {what}, and was not stored")).hint(ACCOUNT_ID_FORM);
        check_account_id(value.expose_secret()).map_err(failure)?;
    }
    Ok(())
}

/// The name of the entry; refuses names that no spec can refer to, and customers that don't exist.
fn entry(opened: &Opened, which: &Which) -> Result<String, Failure> {
    let name = &which.name;
    let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !name.chars().all(letters) {
        // What stands there may be the value.
        return Err(Failure::usage("invalid secret name").hint(
            "use capital letters, digits and underscores, beginning with a letter; the value is entered at a prompt or read from stdin",
        ));
    }
    let Some(customer) = &which.customer else { return Ok(name.clone()) };
    if name == service_key::SOURCE {
        return Err(Failure::usage(format!("{name} is one for all customers"))
            .hint("leave out --customer: each worker gets a key of its own, which is derived from it"));
    }
    let customers = opened.customers();
    if !customers.contains(customer.as_str()) {
        let near = did_you_mean(customer, customers.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        return Err(Failure::usage(format!("there is no customer `{customer}`")).hint(
            near.unwrap_or_else(|| "a customer's id is the name of its file in customers/, without `.yaml`".to_owned()),
        ));
    }
    Ok(own_secret(customer, name))
}

/// The file that is written to.
fn store<'a, 'b>(
    opened: &Opened,
    stores: &'b [Store<'a>],
    which: &Which,
    entry: &str,
    rotate: bool,
) -> Result<&'b Store<'a>, Failure> {
    let known = || stores.iter().map(Store::path).collect::<Vec<_>>().join(", ");
    let listed = opened.loaded.project.fleet.file.secrets.is_some();
    if stores.is_empty() {
        return Err(Failure::usage("no source in fleet.yaml is a file that flotilla can write to").hint(
            "`sops set` writes its own files; list a dotenv file, plain or encrypted with age, under `secrets` in fleet.yaml",
        ));
    }
    let named = |store: &&Store<'_>| which.source.as_ref().is_none_or(|path| *path == store.path());
    let here = |store: &&Store<'_>| match store.environment() {
        None => which.env.is_none(),
        Some(of) => which.env.is_none_or(|environment| environment == of),
    };
    // Where it would never be looked up, nothing is written unless that file is named.
    let takes = |store: &&Store<'_>| match entry == service_key::SOURCE {
        true => store.environment().is_none() && store.takes(entry),
        false => which.source.is_some() || store.takes(entry),
    };
    let chosen: Vec<&Store<'_>> = stores.iter().filter(named).filter(here).filter(takes).collect();
    if chosen.is_empty() {
        let what = match (&which.source, which.env) {
            (Some(path), None) => format!("`{path}` is not a source that flotilla can write to"),
            (_, Some(environment)) => format!("no source has a file for {environment}"),
            (None, None) => {
                format!("no source that flotilla can write to accepts {entry}, because of `purpose` and `names`")
            }
        };
        let where_from = if listed { "fleet.yaml" } else { "flotilla, because fleet.yaml lists none" };
        return Err(Failure::usage(what).hint(format!("those of {where_from}: {}", known())));
    }
    let has = chosen.iter().find(|store| store.has(entry) == Ok(true));
    if rotate && has.is_none() {
        let closed = chosen.iter().find_map(|store| Some(format!("{}: {}", store.path(), store.has(entry).err()?)));
        let failure = Failure::new(format!("{entry} is not set in {}", known()));
        return Err(failure.hint(closed.unwrap_or_else(|| {
            let customer = which.customer.as_ref().map(|id| format!(" --customer {id}")).unwrap_or_default();
            format!("set it first: flotilla secrets set {}{customer}", which.name)
        })));
    }
    let store = has.unwrap_or(&chosen[0]);
    // One of several files of the same source: the environment has to be named.
    if let (Some(of), None, None) = (store.environment(), which.env, &which.source) {
        return Err(
            Failure::usage(format!("{} is only for {of}", store.path())).hint("name the environment: --env staging")
        );
    }
    Ok(store)
}

/// Rejects a value that is too large for a binding, before it is written.
fn fits(opened: &Opened, which: &Which, value: &SecretString) -> Result<(), Failure> {
    let fleet = &opened.loaded.project.fleet;
    let of = |account: &String| fleet.limit(account, Limit::VariableBytes);
    let needing = opened.loaded.workers.iter().filter(|worker| worker.secrets.values().any(|name| *name == which.name));
    let most = needing.map(|worker| of(&worker.account)).chain(fleet.accounts.keys().map(of)).min();
    let size = value.expose_secret().len() as u64;
    match most.filter(|most| size > *most) {
        Some(most) => {
            Err(Failure::new(format!("the value has {} bytes, but the limit is {}", grouped(size), grouped(most))))
        }
        None => Ok(()),
    }
}

/// Prints the change, and the workers that the next deploy uploads because of it.
fn print_change(
    session: &Session,
    which: &Which,
    entry: &str,
    path: &str,
    is_new: bool,
    needs: &[Needs],
) -> Result<Exit, Failure> {
    let rows =
        || needs.iter().flat_map(|needs| &needs.rows).filter(|row| service_key::source_name(&row.name) == which.name);
    let from_here = |needs: &&Needs| {
        let here = |row: &super::Row| row.source.as_deref() == Some(path) && row.found_as.as_deref() == Some(entry);
        needs.uploads() && needs.rows.iter().any(here)
    };
    let workers: Vec<&str> = needs.iter().filter(from_here).map(|needs| needs.rows[0].worker.as_str()).collect();
    if session.format == Format::Json {
        let done = if is_new { "added" } else { "replaced" };
        session.json(&serde_json::json!({ "name": entry, "source": path, "done": done, "uploads": workers }))?;
        return Ok(Exit::Done);
    }
    report::print(&format!("{entry} is {} {}", if is_new { "new in" } else { "replaced in" }, clean(path)));
    if rows().next().is_none() {
        report::print("no worker needs it");
        return Ok(Exit::Done);
    }
    let elsewhere = rows().filter(|row| row.source.as_deref() != Some(path) || row.found_as.as_deref() != Some(entry));
    if let Some(row) = elsewhere.clone().next() {
        let place = match (&row.source, &row.hidden) {
            (Some(source), _) => format!("{} from {}", row.found_as.as_deref().unwrap_or_default(), clean(source)),
            (None, Some(hidden)) => format!("none: {}", clean(hidden)),
            (None, None) => "none".to_owned(),
        };
        let others = elsewhere.count();
        report::print(&format!("{} another value: {} has {place}", have(others), row.worker));
    }
    let mut named = workers.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if workers.len() > NAMED {
        named += ", …";
    }
    report::print(&match workers.len() {
        0 => "the next deploy uploads no worker for it".to_owned(),
        number => format!("the next deploy uploads {}: {named}", count(number, "worker")),
    });
    Ok(Exit::Done)
}

fn have(number: usize) -> String {
    if number == 1 { "1 worker has".to_owned() } else { format!("{number} workers have") }
}
