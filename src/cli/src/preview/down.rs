//! `flotilla preview down`: removes previews. Asks the cloud what belongs to them, and so needs no state; what is left of one
//! after an interruption is found by the next run.

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
use flotilla_model::customer::Database;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Home, Reply};
use flotilla_model::preview::Preview;
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::Environment;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use super::super::apply::{ApplyArguments, Applying, Kind, apply};
use super::super::cloud::{Cloud, CloudArguments, FOLDER};
use super::super::deploy::LOCK;
use super::super::preflight::ask;
use super::super::refresh::{Asking, How, refresh};
use super::super::report::{self, count};
use super::super::ui::clean;
use super::super::{Format, Session};
use super::{bare, delete_databases, id, look, reachable};

#[derive(clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["id", "expired", "all"])]
pub(in super::super) struct Arguments {
    /// The preview; several with commas
    #[arg(long, value_name = "ID", value_parser = id, value_delimiter = ',')]
    id: Vec<String>,
    /// Those that have expired
    #[arg(long)]
    expired: bool,
    /// All previews of the fleet
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cloud: CloudArguments,
    /// Remove them without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Default, Serialize)]
struct Report {
    /// Previews that are gone.
    removed: Vec<String>,
    /// Those of which something is left.
    left: Vec<String>,
    workers: usize,
    hosts: usize,
    databases: usize,
    requests: u64,
    failures: Vec<serde_json::Value>,
}

fn fleet_of(session: &Session) -> Result<Option<Fleet>, Failure> {
    match project::read_fleet(&Tree::new(&session.root)) {
        Ok(mut fleet) => {
            fleet.preview.clone_from(&session.preview);
            Ok(Some(fleet))
        }
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            Ok(None)
        }
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let Some(fleet) = fleet_of(session)? else { return Ok(Exit::Diagnostics) };
    let secrets = Arc::new(arguments.cloud.secrets(session, &fleet)?);
    let mut cloud = Cloud::new(session, &fleet, &arguments.cloud, &secrets)?;
    let homes = reachable(session, &fleet, &cloud, &secrets)?;
    let inventory = look(session, &fleet, &mut cloud, &secrets, &homes)?;
    let now = SystemClock::new().unix();
    let there = previews(&inventory, &fleet.file.name);
    let wanted =
        |seen: &&Seen| arguments.all || arguments.id.contains(&seen.id) || (arguments.expired && seen.is_expired(now));
    let found: Vec<&Seen> = there.iter().filter(wanted).collect();
    for seen in &found {
        let hosts = seen.hosts.iter().map(|host| clean(host)).collect::<Vec<_>>().join(", ");
        let databases = match seen.databases.len() {
            0 => String::new(),
            number => format!(", {}", count(number, "database")),
        };
        let workers = count(seen.workers.len(), "worker");
        session.ui.line(&format!("- {}: {workers}{databases}, {hosts}", clean(&seen.id)));
    }
    if !found.is_empty() && !arguments.yes && cloud.local.is_none() {
        ask(&format!("remove {}, for good?", count(found.len(), "preview")))?;
    }
    // A Cloudflare of this process is started once, and for each of them again.
    drop(cloud);
    let mut report = Report::default();
    let mut ids: BTreeSet<String> = found.iter().map(|seen| seen.id.clone()).collect();
    // Of what isn't there any more, something may have been kept here.
    ids.extend(arguments.id.iter().cloned());
    for id in &ids {
        let session = session.of_preview(bare(id));
        match remove(&session, arguments, &secrets, &homes, &mut report)? {
            Removed::Whole => report.removed.push(id.clone()),
            Removed::Part => report.left.push(id.clone()),
            Removed::Nothing => {}
        }
    }
    let none = report.removed.is_empty() && report.left.is_empty();
    let exit = if report.left.is_empty() { Exit::Done } else { Exit::SomeFailed };
    match session.format {
        Format::Json => session.json(&report)?,
        Format::Text if none => report::print("there is none to remove"),
        Format::Text => {
            let Report { removed, workers, hosts, databases, requests, .. } = &report;
            report::print(&format!(
                "{} removed: {}, {}, {} · {}",
                count(removed.len(), "preview"),
                count(*hosts, "host"),
                count(*databases, "database"),
                count(*workers, "worker"),
                count(*requests as usize, "request"),
            ));
            if !report.left.is_empty() {
                report::print("run the same command again: what is gone is not removed twice");
            }
        }
    }
    Ok(exit)
}

/// What became of a preview.
enum Removed {
    /// Nothing of it is left.
    Whole,
    /// Something of it is left.
    Part,
    /// There was nothing of it.
    Nothing,
}

/// Removes one preview.
fn remove(
    session: &Session,
    arguments: &Arguments,
    secrets: &Arc<Secrets>,
    homes: &BTreeMap<Home, String>,
    report: &mut Report,
) -> Result<Removed, Failure> {
    let Some(fleet) = fleet_of(session)? else { return Ok(Removed::Part) };
    let place = session.place();
    let there = place.exists();
    let lock = Lock::take_from_all(&place.join(FOLDER).join(LOCK), "preview down")?;
    let mut cloud = Cloud::new(session, &fleet, &arguments.cloud, secrets)?;
    let mut state = State::open(&cloud.state)?;
    let how = How {
        wanted: BTreeMap::new(),
        held: &BTreeSet::new(),
        whole: true,
        adopt: BTreeSet::new(),
        homes,
        anew: false,
        all_domains: true,
        tag: false,
    };
    let inventory = refresh(session, &fleet, &mut cloud, secrets, &mut state, how)?.inventory;
    let mut plan = planned(&state, homes)?;
    delete_databases(&mut plan.changes, &inventory, |_, _| false);
    let (mut complete, mut any) = (true, there || !plan.is_empty());
    if !plan.is_empty() {
        let accounts: BTreeSet<&str> = plan.accounts().map(|(_, account)| account).collect();
        let tokens = cloud.tokens(&fleet, accounts, secrets)?;
        let platform = Arc::new(Cloudflare::new(&cloud.base, tokens.clone())?);
        let kind = Kind { what: "preview down", command: "flotilla preview down", reason: "", ahead: false };
        let no_upload: Arc<MakeUpload> = Arc::new(|_: &Change| Err("BUG: nothing is uploaded".to_owned()));
        let arguments = ApplyArguments::default();
        let it = Applying {
            session,
            fleet: &fleet,
            cloud: &cloud,
            platform: &platform,
            tokens: &tokens,
            arguments: &arguments,
            kind: &kind,
        };
        let (outcome, _) = apply(&it, &plan, no_upload, &mut state)?;
        complete = outcome.is_complete();
        tell(&plan, &outcome, report);
    }
    drop(state);
    if complete {
        let alone = left_databases(session, &fleet, &mut cloud, secrets, homes)?;
        report.databases += alone;
        any |= alone > 0;
    }
    drop(cloud);
    if complete {
        // What was made here only to look at it goes as well.
        let gone = fs::remove_dir_all(&place);
        if let (Err(error), true) = (gone, there) {
            session.ui.line(&format!("{} can't be removed: {error}", place.display()));
        }
    }
    drop(lock);
    Ok(match (complete, any) {
        (false, _) => Removed::Part,
        (true, true) => Removed::Whole,
        (true, false) => Removed::Nothing,
    })
}

/// Deletes the databases that were made for workers which never came: a deploy was killed between the two. They are known by
/// their names alone, so that only those go that a spec would have in this preview, and no spec outside of it. Gives how many
/// there were.
fn left_databases(
    session: &Session,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    homes: &BTreeMap<Home, String>,
) -> Result<usize, Failure> {
    let suffix = fleet.preview.as_ref().map(Preview::suffix).unwrap_or_default();
    let account_ids: BTreeSet<String> = homes.keys().map(|home| home.account_id.clone()).collect();
    let mut asking = Asking::new(session, fleet, cloud, secrets, &account_ids)?;
    let mut found = Vec::new();
    for account_id in account_ids {
        let home = Home { account_id, namespace: None };
        // Who may not see databases made none.
        let listed = asking.ask(&home, Call::ListDatabases { name: Some(suffix.clone()), page: 1 });
        if let Ok(Reply::Page { names, .. }) = listed {
            let own = names.into_iter().filter(|(name, _)| name.ends_with(&suffix));
            found.extend(own.map(|(name, id)| (home.clone(), name, id)));
        }
    }
    if found.is_empty() {
        return Ok(0);
    }
    let (inside, outside) = specified(session, fleet)?;
    found.retain(|(_, name, _)| inside.contains(name) && !outside.contains(name));
    for (home, name, id) in &found {
        session.ui.note(&format!("the database {} was made, and its worker never came", clean(name)));
        asking.ask(home, Call::DeleteDatabase { id: id.clone() })?;
    }
    Ok(found.len())
}

/// The names of D1 databases that specs give: in the preview, if all customers were in it, and outside of it.
fn specified(session: &Session, fleet: &Fleet) -> Result<(BTreeSet<String>, BTreeSet<String>), Failure> {
    let tree = || Tree::new(&session.root);
    let files = project::spec_files(&tree()).unwrap_or_default();
    // From which environment it was put up, nobody knows here.
    let previews = fleet.preview.iter().flat_map(|preview| Environment::ALL.map(|from| (preview, from)));
    let previews = previews.map(|(preview, from)| Preview {
        from,
        customers: files.iter().map(|file| project::id_of(file).to_owned()).collect(),
        ..preview.clone()
    });
    let names = |opened: Result<build::Project, Vec<Diagnostic>>| -> Option<BTreeSet<String>> {
        let project = opened.ok()?;
        let each = project.files.iter().filter_map(|file| {
            let bytes = project.tree.plain(file).ok()?;
            Some(project.resolve(file, &bytes).1.workers)
        });
        let workers = each.flatten().chain(project.shared.resolved.workers.clone());
        let named = workers.filter_map(|worker| match worker.database {
            Database::D1 { name, .. } => Some(name),
            _ => None,
        });
        Some(named.collect())
    };
    let inside = previews.map(|preview| names(build::open_preview(tree(), &preview, &session.ui)));
    let inside: Option<Vec<BTreeSet<String>>> = inside.collect();
    let inside = inside.map(|all| all.into_iter().flatten().collect());
    let outside = names(build::open(tree(), &session.ui));
    session.ui.end();
    // Where the specs can't be read, nobody knows whose a name is.
    Ok(inside.zip(outside).unwrap_or_default())
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
    let mut begun = state.begun()?;
    let mut live = Vec::new();
    state.each(|id, deployed| live.push((id, deployed)))?;
    for (id, deployed) in &mut live {
        if let Some(name) = homes.get(&id.0) {
            deployed.account.clone_from(name);
        }
        planner.gone(id, Some(deployed), begun.get(id));
        begun.remove(id);
    }
    for (id, begun) in &begun {
        planner.gone(id, None, Some(begun));
    }
    let mut recorded = state.hosts()?;
    recorded.retain(|_, lead| homes.contains_key(&lead.home));
    Ok(planner.finish_with(&recorded, &|_| false))
}

fn tell(plan: &Plan, outcome: &Outcome, report: &mut Report) {
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
