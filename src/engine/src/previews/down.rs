//! Removes previews. Lists from the platform what belongs to them, and so needs no state; the next run finds what is
//! left of one after an interruption.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use serde::Serialize;

use flotilla_build::build;
use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::{MakeUpload, Outcome};
use flotilla_deploy::plan::{Change, Options, Plan, Planner, Step};
use flotilla_deploy::refresh::{Seen, previews};
use flotilla_deploy::state::State;
use flotilla_model::clock::{Clock as _, SystemClock};
use flotilla_model::customer::{Database, Worker};
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::paging::read_list;
use flotilla_model::platform::{Call, Home, Reply};
use flotilla_model::preview::Preview;
use flotilla_model::spec::Environment;
use flotilla_spec::accounts::Accounts;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use super::{by_id, delete_databases, list_platform, reachable};
use crate::accounts::{cloud_of_all, read_fleet};
use crate::apply::{ApplyContext, OthersResources, RunKind, apply};
use crate::cloud::{Cloud, CloudOptions};
use crate::context::{Context, LOCK};
use crate::operator::{Approval, Event, Question};
use crate::refresh::{RefreshOptions, refresh};
use crate::requests::PlatformRequester;

/// The previews that are taken down.
#[derive(Clone, Debug)]
pub enum Which {
    /// These, by their ids.
    Ids(Vec<String>),
    /// The expired ones.
    Expired,
    /// All.
    All,
}

/// Previews that are taken down.
pub struct DownRequest {
    /// The previews to remove.
    pub which: Which,
    /// The cloud.
    pub cloud: CloudOptions,
    /// The approval.
    pub approval: Approval,
}

/// Previews that were taken down.
#[derive(Default, Serialize)]
pub struct PreviewsDown {
    /// Previews that a dry run would remove.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<String>,
    /// Previews that are gone.
    pub removed: Vec<String>,
    /// The previews of which something is left.
    pub left: Vec<String>,
    /// Workers that were deleted.
    pub workers: usize,
    /// Hosts that were removed.
    pub hosts: usize,
    /// Databases that were deleted.
    pub databases: usize,
    /// Requests that were sent.
    pub requests: u64,
    /// The failures, as a deploy's JSON has them.
    pub failures: Vec<serde_json::Value>,
}

/// Removes previews.
pub fn previews_down(context: &Context<'_>, request: &DownRequest) -> Result<PreviewsDown, Failure> {
    let mut fleet = read_fleet(&context.root)?;
    fleet.preview.clone_from(&context.preview);
    let secrets = Arc::new(request.cloud.secrets(context, &fleet)?);
    let mut cloud = cloud_of_all(context, &mut fleet, &request.cloud, &secrets)?;
    let homes = reachable(context, &fleet, &cloud, &secrets)?;
    let inventory = list_platform(context, &fleet, &mut cloud, &secrets, &homes)?;
    let now = SystemClock::new().unix();
    let all = previews(&inventory, &fleet.file.name);
    let wanted = |seen: &&Seen| match &request.which {
        Which::All => true,
        Which::Expired => seen.is_expired(now),
        Which::Ids(ids) => ids.contains(&seen.id),
    };
    let found: Vec<&Seen> = all.iter().filter(wanted).collect();
    context.operator.on_event(&Event::PreviewsFound(&found));
    if request.approval.is_dry_run() {
        let planned = found.iter().map(|seen| seen.id.clone()).collect();
        return Ok(PreviewsDown { planned, ..PreviewsDown::default() });
    }
    if !found.is_empty() && request.approval == Approval::Ask && cloud.local.is_none() {
        context.operator.confirm(&Question::PreviewDown(found.len()))?;
    }
    // An emulator of this process is started once, and for each of them again.
    drop(cloud);
    let mut report = PreviewsDown::default();
    let mut ids: BTreeSet<String> = found.iter().map(|seen| seen.id.clone()).collect();
    if let Which::Ids(named) = &request.which {
        // Files of a preview that no longer exists may have been kept here.
        ids.extend(named.iter().cloned());
    }
    for id in &ids {
        let context = context.of_preview(by_id(id));
        match remove(&context, request, &secrets, (&fleet.accounts, &homes), &mut report)? {
            Removed::Whole => report.removed.push(id.clone()),
            Removed::Part => report.left.push(id.clone()),
            Removed::Nothing => {}
        }
    }
    Ok(report)
}

/// The result for a preview.
enum Removed {
    /// All of it was removed.
    Whole,
    /// Some of it is left.
    Part,
    /// It had no resources.
    Nothing,
}

/// Removes one preview.
fn remove(
    context: &Context<'_>,
    request: &DownRequest,
    secrets: &Arc<Secrets>,
    (accounts, homes): (&Accounts, &BTreeMap<Home, String>),
    report: &mut PreviewsDown,
) -> Result<Removed, Failure> {
    let mut fleet = project::read_fleet(&Tree::new(&context.root)).map_err(Failure::invalid)?;
    fleet.preview.clone_from(&context.preview);
    fleet.accounts = accounts.clone();
    let place = context.place();
    let existed = place.exists();
    let lock = Lock::take_from_all(&context.folder().join(LOCK), "preview down", context.operator)?;
    let mut cloud = cloud_of_all(context, &mut fleet, &request.cloud, secrets)?;
    let mut state = State::open(&cloud.state)?;
    state.rely_on(Some(&lock));
    let options = RefreshOptions {
        wanted: BTreeMap::new(),
        held: &BTreeSet::new(),
        whole: true,
        adopt: BTreeSet::new(),
        homes,
        anew: false,
        all_domains: true,
        tag: false,
    };
    let inventory = refresh(context, &fleet, &mut cloud, secrets, &mut state, options)?.inventory;
    let mut plan = planned(&state, homes)?;
    delete_databases(&mut plan.changes, &inventory, |_, _| false);
    let (mut complete, mut any) = (true, existed || !plan.is_empty());
    if !plan.is_empty() {
        let accounts: BTreeSet<&str> = plan.accounts().map(|(_, account)| account).collect();
        let tokens = cloud.tokens(&fleet, accounts, secrets)?;
        let platform = Arc::new(Cloudflare::new(&cloud.base, tokens.clone())?);
        let kind = RunKind::new("preview down");
        let no_upload: Arc<MakeUpload> = Arc::new(|_: &Change| Err("BUG: nothing is uploaded".to_owned()));
        let others = OthersResources::default();
        let (fleet, cloud) = (&fleet, &cloud);
        let ctx = ApplyContext { context, fleet, cloud, platform: &platform, tokens: &tokens, others: &others, kind };
        let (outcome, _) = apply(&ctx, &plan, no_upload, &mut state)?;
        complete = outcome.is_complete();
        add(&plan, &outcome, report);
    }
    drop(state);
    if complete {
        let alone = left_databases(context, &fleet, &mut cloud, secrets, homes)?;
        report.databases += alone;
        any |= alone > 0;
    }
    drop(cloud);
    if complete {
        // Files that were created only to inspect it are removed as well.
        let gone = fs::remove_dir_all(&place);
        if let (Err(error), true) = (gone, existed) {
            context.operator.on_event(&Event::CannotRemove { path: &place, error: &error });
        }
    }
    drop(lock);
    Ok(match (complete, any) {
        (false, _) => Removed::Part,
        (true, true) => Removed::Whole,
        (true, false) => Removed::Nothing,
    })
}

/// Deletes the databases that were made for workers which never came: a deploy was killed between the two. They are known by their names
/// alone, so that only those go that a spec would have in this preview, and no spec outside it. Returns how many there were.
fn left_databases(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    homes: &BTreeMap<Home, String>,
) -> Result<usize, Failure> {
    let suffix = fleet.preview.as_ref().map(Preview::suffix).unwrap_or_default();
    let account_ids: BTreeSet<String> = homes.keys().map(|home| home.account_id.clone()).collect();
    let mut requester = PlatformRequester::new(context, fleet, cloud, secrets, &account_ids)?;
    let mut found = Vec::new();
    for account_id in account_ids {
        let home = Home { account_id, namespace: None };
        // Who may not see databases made none.
        let listed = read_list(|page| {
            match requester.fetch(&home, Call::ListDatabases { name: Some(suffix.clone()), page })? {
                Reply::Names(names) => Ok::<_, Failure>(names),
                other => unreachable!("BUG: {other:?} is no list of databases"),
            }
        });
        if let Ok(names) = listed {
            let own = names.into_iter().filter(|(name, _)| name.ends_with(&suffix));
            found.extend(own.map(|(name, id)| (home.clone(), name, id)));
        }
    }
    if found.is_empty() {
        return Ok(0);
    }
    let (inside, outside) = specified(context, fleet)?;
    found.retain(|(_, name, _)| inside.contains(name) && !outside.contains(name));
    for (home, name, id) in &found {
        context.operator.on_event(&Event::AbandonedDatabase(name));
        requester.fetch(home, Call::DeleteDatabase { id: id.clone() })?;
    }
    Ok(found.len())
}

/// The names of D1 databases that specs give: in the preview, if all customers were in it, and outside it.
fn specified(context: &Context<'_>, fleet: &Fleet) -> Result<(BTreeSet<String>, BTreeSet<String>), Failure> {
    let tree = || Tree::new(&context.root);
    let files = project::spec_files(&tree()).unwrap_or_default().files;
    // The environment that it was created from is unknown here.
    let mut environments = BTreeSet::from(Environment::USUAL);
    let outside = build::open(tree(), context.operator).ok().map(|project| resolved(&project));
    environments.extend(outside.iter().flatten().map(|worker| worker.environment));
    let previews = fleet.preview.iter().flat_map(|preview| environments.iter().map(move |from| (preview, *from)));
    let previews = previews.map(|(preview, from)| Preview {
        from,
        customers: files.iter().map(|file| project::id_of(file).to_owned()).collect(),
        ..preview.clone()
    });
    let inside = previews.map(|preview| {
        let project = build::open_preview(tree(), &preview, context.operator).ok()?;
        Some(database_names(resolved(&project)))
    });
    let inside: Option<Vec<BTreeSet<String>>> = inside.collect();
    let inside = inside.map(|all| all.into_iter().flatten().collect());
    context.operator.end();
    // If the specs can't be read, the owner of a name is unknown.
    Ok(inside.zip(outside.map(database_names)).unwrap_or_default())
}

/// Returns the workers of a project, as far as they can be resolved.
fn resolved(project: &build::Project) -> Vec<Worker> {
    let each = project.files.iter().filter_map(|file| {
        let bytes = project.tree.plain(file).ok()?;
        Some(project.resolve(file, &bytes).1.workers)
    });
    each.flatten().chain(project.shared.resolved.workers.clone()).collect()
}

fn database_names(workers: Vec<Worker>) -> BTreeSet<String> {
    let name = |worker: Worker| match worker.database {
        Database::D1 { name, .. } => Some(name),
        _ => None,
    };
    workers.into_iter().filter_map(name).collect()
}

/// The plan that deletes all that the state has.
fn planned(state: &State, homes: &BTreeMap<Home, String>) -> Result<Plan, Failure> {
    let options = Options {
        prune: true,
        only_prune: true,
        whole: true,
        homes: homes.keys().cloned().collect(),
        ..Options::default()
    };
    let mut planner = Planner::new(&options);
    let mut in_flight = state.in_flight()?;
    let mut live = Vec::new();
    state.each(|id, deployed| live.push((id, deployed)))?;
    for (id, deployed) in &mut live {
        if let Some(name) = homes.get(&id.0) {
            deployed.account.clone_from(name);
        }
        planner.gone(id, Some(deployed), in_flight.get(id));
        in_flight.remove(id);
    }
    for (id, in_flight) in &in_flight {
        planner.gone(id, None, Some(in_flight));
    }
    let mut recorded = state.hosts()?;
    recorded.retain(|_, lead| homes.contains_key(&lead.home));
    Ok(planner.finish_with(&recorded, &|_| false))
}

/// Adds what was done to the report.
fn add(plan: &Plan, outcome: &Outcome, report: &mut PreviewsDown) {
    report.requests += outcome.requests;
    report.workers += outcome.applied;
    report.hosts += outcome.hosts;
    let failed: BTreeSet<&str> = outcome.failures.iter().map(|failed| failed.worker.as_str()).collect();
    let mut databases = BTreeSet::new();
    for change in plan.changes.iter().filter(|change| !failed.contains(change.worker.as_str())) {
        for step in change.steps.iter().filter(|_| outcome.skipped == 0) {
            match step {
                Step::DetachDomain { .. } | Step::DropDomain { .. } => report.hosts += 1,
                Step::DeleteDatabase { name } => drop(databases.insert((&change.home.account_id, name))),
                _ => {}
            }
        }
    }
    report.databases += databases.len();
    report.failures.extend(outcome.failures.iter().filter_map(|failed| serde_json::to_value(failed).ok()));
}
