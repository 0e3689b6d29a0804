//! `flotilla preview`: workers once more, for a while. What is there is asked of the cloud each time: a preview is put up by
//! one machine and taken down by another.

mod down;
mod list;
mod room;
mod up;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use clap::Subcommand;

use flotilla_deploy::plan::{Action, Change};
use flotilla_deploy::refresh::{Inventory, Scope, take};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::Home;
use flotilla_model::preview::{Preview, check_id};
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::Environment;
use flotilla_model::tags;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use super::cloud::Cloud;
use super::plan::homes;
use super::refresh::Asking;
use super::ui::{clean, time};
use super::{Session, summary};

#[derive(Subcommand)]
pub(super) enum Arguments {
    /// Put a preview up, or bring it up to date: build, plan, deploy, and wait until each worker is well
    Up(up::Arguments),
    /// List the previews of the fleet: customers, hosts, until when
    List(list::Arguments),
    /// Remove a preview: what leads to its workers, its databases, the workers
    Down(down::Arguments),
}

impl Arguments {
    /// The file that a summary is appended to.
    pub(super) fn summary(&self) -> Option<PathBuf> {
        match self {
            Arguments::Up(arguments) => arguments.summary.clone(),
            Arguments::List(_) | Arguments::Down(_) => None,
        }
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments {
        Arguments::Up(arguments) => summary::of("flotilla preview up", session, up::run(session, arguments)),
        Arguments::List(arguments) => list::run(session, arguments),
        Arguments::Down(arguments) => down::run(session, arguments),
    }
}

/// The id of a preview, on the command line.
fn id(text: &str) -> Result<String, String> {
    check_id(text).map(|()| text.to_owned())
}

/// A preview of nobody: for what is done to one that is there.
fn bare(id: &str) -> Preview {
    Preview {
        id: id.to_owned(),
        from: Environment::Staging,
        domain: None,
        customers: BTreeSet::new(),
        shared: Some(BTreeSet::new()),
        hosts: BTreeMap::new(),
    }
}

/// The homes that can be looked at from here: those of accounts whose ids and tokens are known.
fn reachable(
    session: &Session,
    fleet: &Fleet,
    cloud: &Cloud,
    secrets: &Secrets,
) -> Result<BTreeMap<Home, String>, Failure> {
    let known = |account: &String| cloud.tokens(fleet, [account.as_str()], secrets).is_ok();
    let (seen, unseen): (Vec<&String>, Vec<&String>) = fleet.accounts.keys().partition(|account| known(account));
    if seen.is_empty() {
        cloud.tokens(fleet, fleet.accounts.keys().map(String::as_str), secrets)?;
    }
    if !unseen.is_empty() {
        let names = unseen.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        session.ui.line(&format!("not looked at, as their ids or tokens are not set here: {names}"));
    }
    let mut homes = homes(fleet, cloud);
    homes.retain(|_, account| seen.contains(&&*account));
    Ok(homes)
}

/// What is there in these homes: their workers, and the domains of their accounts.
fn look(
    session: &Session,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    homes: &BTreeMap<Home, String>,
) -> Result<Inventory, Failure> {
    let account_ids: BTreeSet<String> = homes.keys().map(|home| home.account_id.clone()).collect();
    let scope = Scope { homes: homes.keys().cloned().collect(), domains: account_ids.clone(), ..Scope::default() };
    session.ui.begin("asking the cloud", None);
    let mut asking = Asking::new(session, fleet, cloud, secrets, &account_ids)?;
    let inventory = take(&scope, &mut |home, call| asking.ask(home, call))?;
    session.ui.end();
    Ok(inventory)
}

/// When something was made, as the platform writes it and as people read it.
fn made(created: &str) -> String {
    let since = humantime::parse_rfc3339_weak(created).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.map_or_else(|| clean(created), time)
}

/// With each worker that is deleted goes the database that is its own, unless a worker that stays has it as well.
fn delete_databases(changes: &mut [Change], inventory: &Inventory, stays: impl Fn(&str, &str) -> bool) {
    for change in changes.iter_mut().filter(|change| change.action == Action::Delete) {
        let listed = inventory.workers.get(&change.home).and_then(|workers| workers.get(&change.worker));
        let database = listed.and_then(|listed| tags::read(&listed.tags).database.map(str::to_owned));
        if let Some(name) = database.filter(|name| !stays(&change.home.account_id, name)) {
            change.delete_database(name);
        }
    }
}
