//! The API token and the account: the token is verified, and the zones and accounts that it reaches are listed.

use secrecy::SecretString;
use std::sync::Arc;

use flotilla_model::failure::Failure;
use flotilla_model::names;
use flotilla_model::paging::{Page, read_list};
use flotilla_model::platform::{Call, CallError, Home, ListedZone, Reply};
use flotilla_spec::project::{ACCOUNT_ID_VARIABLE, TOKEN_VARIABLE};

use super::super::prompts::Prompter;
use super::super::ui::clean;
use super::Workspace;
use flotilla_engine::cloud::Cloud;
use flotilla_engine::credentials::{TOKEN_FORM, check_token};
use flotilla_engine::requests::PlatformRequester;
use flotilla_model::text::mask;

/// A token that was verified.
pub struct Access {
    /// The token.
    pub token: SecretString,
    /// Whether it was typed just now and isn't stored yet.
    pub typed: bool,
    /// The account of fleet.yaml that it was taken from.
    pub of: Option<String>,
    /// The client that uses it.
    pub requester: PlatformRequester,
}

/// An account of fleet.yaml, existing or new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name there.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The name of the secret with its token.
    pub secret: String,
    /// The state of its entry.
    pub entry: Entry,
}

/// The state of an account's entry in fleet.yaml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It exists.
    There,
    /// It exists, and its id isn't known yet.
    Unknown,
    /// It has to be added.
    New,
}

/// Returns the home of what belongs to an account as a whole.
pub fn home(account_id: &str) -> Home {
    Home { account_id: account_id.to_owned(), namespace: None }
}

/// Returns a verified token: that of the account that is named, one that is picked, or one that is typed. None: none is set, and none was typed.
pub fn access(prompter: &Prompter, workspace: &Workspace, account: Option<&str>) -> Result<Option<Access>, Failure> {
    let accounts = workspace.fleet.accounts.listed();
    if let Some(name) = account
        && !accounts.contains_key(name)
    {
        let known = accounts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("there is no account `{}` in fleet.yaml", clean(name)))
            .hint(format!("known: {known}")));
    }
    let configured: Vec<(&String, SecretString)> = accounts
        .iter()
        .filter(|(name, _)| account.is_none_or(|account| account == name.as_str()))
        .filter_map(|(name, account)| Some((name, workspace.secrets.token(&account.token.secret)?)))
        .collect();
    if !prompter.is_interactive() || workspace.cloud.local.is_some() {
        let only = accounts.keys().next().filter(|_| accounts.len() == 1).map(String::as_str);
        let default = accounts.contains_key("default").then_some("default");
        let name = match account.or(default).or(only) {
            Some(name) => name,
            None if prompter.is_interactive() => {
                let names: Vec<String> = accounts.keys().cloned().collect();
                let picked = prompter.select("Account", &names, 0)?;
                accounts.keys().nth(picked).map(String::as_str).unwrap_or_default()
            }
            None => return Err(prompter.missing("the account", "--account NAME")),
        };
        // A missing setting is reported as by any other command.
        let tokens = workspace.cloud.tokens(&workspace.fleet, [name], &workspace.secrets)?;
        let token = tokens.into_values().next().ok_or_else(|| Failure::new("BUG: an account has no token"))?;
        return verified(workspace, token, false, Some(name.to_owned())).map(Some);
    }
    if configured.is_empty() {
        prompter.note("no API token is set: enter one, or press Enter to continue without one");
    }
    loop {
        let mut items: Vec<String> = configured
            .iter()
            .map(|(name, _)| format!("the token of the account {name} ({})", accounts[*name].token.secret))
            .collect();
        let index = if items.is_empty() {
            0
        } else {
            items.push("another token, which I enter".to_owned());
            prompter.select("Cloudflare API token", &items, 0)?
        };
        let access = match configured.get(index) {
            Some((name, token)) => verified(workspace, token.clone(), false, Some((*name).clone())),
            None => match prompter.hidden_or_nothing("Cloudflare API token")? {
                Some(token) => verified(workspace, token, true, account.map(str::to_owned)),
                None => return Ok(None),
            },
        };
        match access {
            Ok(access) => return Ok(Some(access)),
            Err(failure) => prompter.rejected(&failure),
        }
    }
}

/// Verifies a token.
pub fn verified(
    workspace: &Workspace,
    token: SecretString,
    typed: bool,
    of: Option<String>,
) -> Result<Access, Failure> {
    check_token(&token)
        .map_err(|what| Failure::new(format!("the token contains {what}, and was not stored")).hint(TOKEN_FORM))?;
    let account = of.as_ref().and_then(|name| workspace.fleet.accounts.get(name));
    let rate = workspace.cloud.rate(account.and_then(|account| account.api_limit));
    let named = (of.as_deref().unwrap_or_default(), rate);
    let Cloud { base, priority, .. } = &workspace.cloud;
    let mut requester = PlatformRequester::with_token(Arc::new(workspace.ui.clone()), *priority, base, &token, named)?;
    let known = of.as_ref().map(|name| workspace.cloud.home(name, None).account_id).filter(|id| !id.is_empty());
    verify(&mut requester, known.as_deref())?;
    Ok(Access { token, typed, of, requester })
}

/// Verifies a token with Cloudflare: as a user's, and then as an account's own.
fn verify(requester: &mut PlatformRequester, account_id: Option<&str>) -> Result<(), Failure> {
    let refused = |why: &str| {
        Err(Failure::new(format!("Cloudflare rejects the token: {}", clean(why)))
            .hint("create one at dash.cloudflare.com › Manage account › API tokens; it needs `Workers Scripts: Edit` and `Zone: Read`"))
    };
    let why = match requester.try_ask(&home(""), &Call::VerifyToken { of_account: false }) {
        Ok(Reply::Token(status)) if status == "active" => return Ok(()),
        Ok(Reply::Token(status)) => return refused(&format!("it is {status}")),
        Err(error @ (CallError::Rejected { .. } | CallError::Unauthorized(_))) => error.to_string(),
        Err(error) => return Err(Failure::new(format!("the token can't be verified: {error}"))),
        Ok(_) => return refused("the answer is invalid"),
    };
    let account_id = match account_id {
        Some(id) => Some(id.to_owned()),
        None => match requester.try_ask(&home(""), &Call::ListZones { name: None, page: Page::First }) {
            Ok(Reply::Zones(zones)) if !zones.entries.is_empty() => {
                zones.entries.into_iter().next().map(|zone| zone.account_id)
            }
            _ => accounts(requester).ok().and_then(|accounts| accounts.into_iter().next()).map(|(_, id)| id),
        },
    };
    let Some(account_id) = account_id else { return refused(&why) };
    match requester.try_ask(&home(&account_id), &Call::VerifyToken { of_account: true }) {
        Ok(Reply::Token(status)) if status == "active" => Ok(()),
        Ok(Reply::Token(status)) => refused(&format!("it is {status}")),
        Err(error @ (CallError::Rejected { .. } | CallError::Unauthorized(_))) => refused(&error.to_string()),
        Err(error) => Err(Failure::new(format!("the token can't be verified: {error}"))),
        Ok(_) => refused(&why),
    }
}

/// Lists all zones that the token reaches, by name.
pub fn zones(requester: &mut PlatformRequester) -> Result<Vec<ListedZone>, Failure> {
    let listed = read_list(|page| match requester.try_ask(&home(""), &Call::ListZones { name: None, page })? {
        Reply::Zones(zones) => Ok::<_, CallError>(zones),
        other => unreachable!("BUG: {other:?} is no list of zones"),
    });
    let mut all = listed.map_err(|error| {
        Failure::new(format!("the zones can't be listed: {error}")).hint("the token needs the permission `Zone: Read`")
    })?;
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// Lists all accounts that the token reaches: name and id.
pub fn accounts(requester: &mut PlatformRequester) -> Result<Vec<(String, String)>, Failure> {
    names(requester, &home(""), |page| Call::ListAccounts { page })
}

/// Returns all pages of a list of names and ids.
pub fn names(
    requester: &mut PlatformRequester,
    home: &Home,
    call: impl Fn(Page) -> Call,
) -> Result<Vec<(String, String)>, Failure> {
    read_list(|page| match requester.fetch(home, call(page))? {
        Reply::Names(names) => Ok(names),
        other => unreachable!("BUG: {other:?} is no list of names"),
    })
}

/// Returns the account of fleet.yaml with this id; or the one whose id isn't known yet; or a new one, named after its name
/// at Cloudflare.
pub fn account(workspace: &Workspace, access: &Access, id: &str, called: &str) -> Account {
    let accounts = workspace.fleet.accounts.listed();
    let named = |name: &str, entry| Account {
        name: name.to_owned(),
        id: id.to_owned(),
        secret: accounts[name].token.secret.clone(),
        entry,
    };
    let has_id = |name: &&String| workspace.cloud.home(name, None).account_id == id;
    if let Some(name) = access.of.as_ref().filter(has_id).or_else(|| accounts.keys().find(has_id)) {
        return named(name, Entry::There);
    }
    if let [name] = workspace.cloud.unknown(accounts.keys().map(String::as_str))[..]
        && accounts.len() == 1
    {
        return named(name, Entry::Unknown);
    }
    let words: String =
        called.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty() && *word != "s").take(4).collect();
    let base = if words.is_empty() { "account".to_owned() } else { words.join("-") };
    let base: String = base.chars().take(30).collect();
    let base = base.trim_end_matches('-');
    let name = (1..)
        .map(|number| if number == 1 { base.to_owned() } else { format!("{base}-{number}") })
        .find(|name| !accounts.contains_key(name))
        .expect("BUG: numbers never end");
    let secret = format!("{TOKEN_VARIABLE}_{}", name.to_uppercase().replace('-', "_"));
    Account { name, id: id.to_owned(), secret, entry: Entry::New }
}

/// Returns the changes of fleet.yaml for an account.
pub fn entries(workspace: &Workspace, account: &Account) -> Vec<flotilla_spec::edit::Change> {
    use flotilla_spec::edit::Change::Set;
    let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    let whole = |id: serde_json::Value, secret: &str| serde_json::json!({"id": id, "token": {"secret": secret}});
    let is_listed = workspace.fleet.file.accounts.is_some();
    match account.entry {
        Entry::There => Vec::new(),
        Entry::Unknown if is_listed => vec![Set(path(&["accounts", &account.name, "id"]), account.id.clone().into())],
        Entry::Unknown => {
            vec![Set(path(&["accounts", &account.name]), whole(account.id.clone().into(), &account.secret))]
        }
        Entry::New => {
            let own = Set(path(&["accounts", &account.name]), whole(account.id.clone().into(), &account.secret));
            // The one that was there without being written is lost otherwise.
            let default = whole(serde_json::json!({"env": ACCOUNT_ID_VARIABLE}), TOKEN_VARIABLE);
            let default = Set(path(&["accounts", "default"]), default);
            // With two accounts, it has to be defined which one applies to customers that name none.
            let listed = workspace.fleet.accounts.listed();
            let only = listed.keys().next().filter(|_| listed.len() == 1);
            let says = workspace.fleet.file.defaults.as_ref().is_some_and(|defaults| defaults.contains_key("account"));
            let stays = only.filter(|only| *only != "default" && !says && !workspace.ids.is_empty());
            let stays = stays.map(|only| Set(path(&["defaults", "account"]), only.clone().into()));
            if is_listed { stays.into_iter().chain([own]).collect() } else { vec![default, own] }
        }
    }
}

/// Returns a line for a zone, with ids masked.
pub fn line(zone: &ListedZone) -> String {
    // An account can be called after its id.
    let account = zone.account_name.replace(&zone.account_id, &mask(&zone.account_id));
    format!("{}  zone {}  {account} ({})", zone.name, mask(&zone.id), mask(&zone.account_id))
}

/// Returns the longest zone of an account that a host is in, and its id.
pub fn zone_of(
    requester: &mut PlatformRequester,
    account_id: &str,
    host: &str,
) -> Result<Option<(String, String)>, Failure> {
    let registrable = names::zone_of(host);
    let mut name = host.trim_start_matches("*.");
    loop {
        if let Reply::Id(id) = requester.fetch(&home(account_id), Call::FindZone { name: name.to_owned() })? {
            return Ok(Some((name.to_owned(), id)));
        }
        match name.split_once('.') {
            Some((_, parent)) if name != registrable => name = parent,
            _ => return Ok(None),
        }
    }
}
