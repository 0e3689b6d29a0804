//! Previews: temporary copies of customers' workers, under hosts of their own. They are listed from the platform each
//! time: a preview is deployed by one machine and removed by another.

mod capacity;
mod down;
mod up;

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use flotilla_deploy::plan::{Action, Change};
use flotilla_deploy::refresh::{Inventory, Scope, Seen, previews, take};
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;
use flotilla_model::preview::Preview;
use flotilla_model::spec::Environment;
use flotilla_model::tags;
use flotilla_model::text::{clean, time};
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use crate::accounts::{cloud_of_all, read_fleet};
use crate::cloud::{Cloud, CloudOptions};
use crate::context::Context;
use crate::operator::Event;
use crate::planning::homes;
use crate::requests::PlatformRequester;

pub use down::{DownRequest, PreviewsDown, Which, previews_down};
pub use up::{PreviewRun, PreviewUp, PreviewWorker, UpRequest, preview_up};

/// Lists the previews of a fleet that the platform has, the oldest first.
pub fn list_previews(context: &Context<'_>, options: &CloudOptions) -> Result<Vec<Seen>, Failure> {
    let mut fleet = read_fleet(&context.root)?;
    let secrets = options.secrets(context, &fleet)?;
    let mut cloud = cloud_of_all(context, &mut fleet, options, &secrets)?;
    let homes = reachable(context, &fleet, &cloud, &secrets)?;
    let inventory = list_platform(context, &fleet, &mut cloud, &secrets, &homes)?;
    Ok(previews(&inventory, &fleet.file.name))
}

/// A preview of no customers: for what is done to one that exists.
fn by_id(id: &str) -> Preview {
    Preview {
        id: id.to_owned(),
        from: Environment::Staging,
        domain: None,
        customers: BTreeSet::new(),
        shared: Some(BTreeSet::new()),
        hosts: BTreeMap::new(),
    }
}

/// The homes that can be reached from here: those of accounts whose ids and tokens are known.
fn reachable(
    context: &Context<'_>,
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
        let names: Vec<&str> = unseen.iter().map(|name| name.as_str()).collect();
        context.operator.on_event(&Event::AccountsUnreachable(&names));
    }
    let mut homes = homes(fleet, cloud);
    homes.retain(|_, account| seen.contains(&&*account));
    Ok(homes)
}

/// Lists what the platform has in these homes: their workers, and the domains of their accounts.
fn list_platform(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    homes: &BTreeMap<Home, String>,
) -> Result<Inventory, Failure> {
    let account_ids: BTreeSet<String> = homes.keys().map(|home| home.account_id.clone()).collect();
    let scope = Scope { homes: homes.keys().cloned().collect(), domains: account_ids.clone(), ..Scope::default() };
    context.operator.begin("asking the cloud", None);
    let mut requester = PlatformRequester::new(context, fleet, cloud, secrets, &account_ids)?;
    let inventory = take(&scope, &mut |home, call| requester.fetch(home, call))?;
    context.operator.end();
    Ok(inventory)
}

/// Returns when a preview was made, as people read it; `created` is as the platform writes it.
pub fn created(created: &str) -> String {
    let since = humantime::parse_rfc3339_weak(created).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.map_or_else(|| clean(created), time)
}

/// Deletes with each worker the database that is its own, unless a worker that stays has it as well.
fn delete_databases(changes: &mut [Change], inventory: &Inventory, stays: impl Fn(&str, &str) -> bool) {
    for change in changes.iter_mut().filter(|change| change.action == Action::Delete) {
        let listed = inventory.workers.get(&change.home).and_then(|workers| workers.get(&change.worker));
        let database = listed.and_then(|listed| tags::read(&listed.tags).database.map(str::to_owned));
        if let Some(name) = database.filter(|name| !stays(&change.home.account_id, name)) {
            change.delete_database(name);
        }
    }
}
