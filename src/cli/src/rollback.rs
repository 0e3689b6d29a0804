//! `flotilla rollback`: puts workers back to a bundle that ran before, from what the state keeps. Needs no spec: it works where
//! the specs are what is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::{Made, MakeUpload, Upload};
use flotilla_deploy::plan::{self, Change, Plan, Wave};
use flotilla_deploy::state::{Deployed, Record, RunId, State, Stored, WorkerId, deflated};
use flotilla_model::bundle::{self, Bundle};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::listing::and_more;
use flotilla_model::lock::Lock;
use flotilla_model::platform::Module;
use flotilla_model::spec::Environment;
use flotilla_model::tags::{self, Triggers};
use flotilla_spec::project;
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use super::apply::{self, ApplyArguments, Applying, Kind, apply, confirm, refuse_another};
use super::cloud::{Cloud, CloudArguments, FOLDER};
use super::deploy::LOCK;
use super::report::{self, count};
use super::sending::{Live, Needs};
use super::ui::{clean, time};
use super::{Format, Session, summary};

/// So many earlier uploads of a worker are looked at.
const UPLOADS: usize = 1000;
/// So many workers are listed.
const SHOWN: usize = 50;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The customers whose workers go back
    #[arg(value_name = "CUSTOMER", required_unless_present = "run", conflicts_with = "run")]
    customers: Vec<String>,
    /// To what this record put in place; `flotilla history` lists them [default: what ran before]
    #[arg(long, value_name = "RECORD", conflicts_with = "run")]
    to: Option<i64>,
    /// Every worker that this deploy uploaded, to what it ran before it
    #[arg(long, value_name = "RUN")]
    run: Option<i64>,
    /// Only this environment
    #[arg(long, value_name = "NAME", value_parser = super::selection::environment)]
    env: Option<Environment>,
    #[command(flatten)]
    cloud: CloudArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    summary::of("flotilla rollback", session, back(session, arguments))
}

fn back(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let _lock = Lock::take(&session.root.join(FOLDER).join(LOCK), "rollback")?;
    let fleet = match project::read_fleet(&Tree::new(&session.root)) {
        Ok(fleet) => fleet,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    let secrets = Arc::new(arguments.cloud.secrets(session, &fleet)?);
    let mut cloud = Cloud::new(session, &fleet, &arguments.cloud, &secrets)?;
    if !cloud.state.exists() {
        return Err(Failure::new(format!("nothing was deployed from here yet: there is no {}", cloud.state.display())));
    }
    let mut state = State::open(&cloud.state)?;
    let (back, stay) = match arguments.run {
        Some(run) => of_run(&state, RunId(run), None)?,
        None => of_customers(&state, arguments)?,
    };
    for (worker, why) in stay.iter().take(SHOWN) {
        session.ui.line(&format!("{} stays as it is: {why}", clean(worker)));
    }
    let plan = Plan::of(back, &Wave::of(&fleet.file.deploy.waves));
    refuse_another(&plan, &arguments.apply)?;
    if plan.changes.is_empty() {
        let failure = Failure::new("there is nothing to go back to");
        return Err(failure.hint("`flotilla history CUSTOMER` lists what ran, and what of it is kept"));
    }
    let names: BTreeSet<&str> = plan.changes.iter().map(|change| change.account.as_str()).collect();
    let tokens = cloud.tokens(&fleet, names, &secrets)?;
    for change in plan.changes.iter().take(SHOWN) {
        session.ui.line(&format!("~ {}  ({})  {}", change.worker, change.customer, clean(&change.reasons.join("; "))));
    }
    if plan.changes.len() > SHOWN {
        session.ui.line(&and_more(plan.changes.len() - SHOWN));
    }
    if !arguments.apply.yes && arguments.apply.digest.is_none() && cloud.local.is_none() {
        let mut all = 0;
        state.each(|_, _| all += 1)?;
        confirm(&plan, &fleet, all)?;
    }
    if cloud.local.is_some() {
        cloud.start(session)?;
    }
    let platform = Arc::new(Cloudflare::new(&cloud.base, tokens.clone())?);
    let make = uploads(&cloud, &fleet.owner(), &secrets)?;
    let kind = Kind { what: "rollback", command: "flotilla rollback", reason: "", ahead: false };
    let it = Applying {
        session,
        fleet: &fleet,
        cloud: &cloud,
        platform: &platform,
        tokens: &tokens,
        arguments: &arguments.apply,
        kind: &kind,
    };
    let (outcome, _) = apply(&it, &plan, make, &mut state)?;
    summary::append(arguments.apply.summary.as_deref(), &summary::applied(kind.command, &outcome))?;
    match session.format {
        Format::Json => session.json(&outcome)?,
        Format::Text => {
            report::print(&apply::summary(&outcome));
            report::print(
                "the next deploy leaves these as they are until their bundles change, or their customers are named",
            );
        }
    }
    Ok(if outcome.is_complete() { Exit::Done } else { Exit::SomeFailed })
}

/// Puts back a wave that isn't healthy. Gives how many workers were.
pub(super) fn wave(
    it: &Applying<'_>,
    state: &mut State,
    run: RunId,
    ids: &BTreeSet<WorkerId>,
    secrets: &Arc<Secrets>,
) -> Result<usize, Failure> {
    let (back, stay) = of_run(state, run, Some(ids))?;
    for (worker, why) in &stay {
        it.session.ui.line(&format!("{} stays as it is: {why}", clean(worker)));
    }
    if back.is_empty() {
        return Ok(0);
    }
    it.session.ui.line(&format!("putting back {}", count(back.len(), "worker")));
    let plan = Plan::of(back, &[]);
    let make = uploads(it.cloud, &it.fleet.owner(), secrets)?;
    let kind = Kind {
        what: "rollback",
        command: "flotilla rollback",
        reason: "its wave was not healthy",
        ahead: it.kind.ahead,
    };
    let it = Applying { kind: &kind, ..*it };
    let (outcome, _) = apply(&it, &plan, make, state)?;
    Ok(outcome.applied)
}

/// Changes that go back, and workers that stay, with the reason.
type Back = (Vec<Change>, Vec<(String, String)>);

fn reason(to: &Record) -> String {
    format!("back to record {}, {} of {}", to.id, to.digest.short(), time(to.at))
}

fn of_customers(state: &State, arguments: &Arguments) -> Result<Back, Failure> {
    let (mut back, mut stay) = (Vec::new(), Vec::new());
    let mut found = false;
    for customer in &arguments.customers {
        let workers = state.of_customer(customer)?;
        if workers.is_empty() {
            return Err(Failure::usage(format!("nothing of a customer `{customer}` is deployed")));
        }
        for (id, live) in workers {
            if arguments.env.is_some_and(|environment| environment != live.environment) {
                continue;
            }
            let uploads = state.uploads_of(&id, customer, UPLOADS)?;
            let to = match arguments.to {
                Some(to) => match uploads.iter().find(|record| record.id == to) {
                    Some(record) => Some(record),
                    // It can be one of another worker of the customer.
                    None => continue,
                },
                None => uploads.iter().find(|record| record.digest != live.digest),
            };
            found = true;
            add(state, id, &live, to, &mut back, &mut stay)?;
        }
    }
    if let (Some(to), false) = (arguments.to, found) {
        let failure = Failure::usage(format!("record {to} is no upload of {}", arguments.customers.join(", ")));
        return Err(failure.hint("`flotilla history CUSTOMER` lists the records"));
    }
    Ok((back, stay))
}

/// What a deploy uploaded, as far as it is still live; of these workers alone, if they are given.
fn of_run(state: &State, run: RunId, only: Option<&BTreeSet<WorkerId>>) -> Result<Back, Failure> {
    let (mut back, mut stay) = (Vec::new(), Vec::new());
    let records = state.records_of_run(run)?;
    if records.is_empty() {
        return Err(
            Failure::usage(format!("deploy {} recorded nothing", run.0)).hint("`flotilla history` lists deploys")
        );
    }
    // The last upload of each worker, if there were several.
    let uploads: BTreeMap<&WorkerId, &Record> =
        records.iter().filter(|record| record.is_upload()).map(|record| (&record.worker, record)).collect();
    for (id, record) in uploads {
        if only.is_some_and(|only| !only.contains(id)) {
            continue;
        }
        match state.one(id)? {
            Some(live) if live.digest == record.digest => {
                let uploads = state.uploads_of(id, &record.customer, UPLOADS)?;
                let to = uploads.iter().find(|other| other.run < run && other.digest != live.digest);
                add(state, id.clone(), &live, to, &mut back, &mut stay)?;
            }
            _ => stay.push((id.1.clone(), "something else was deployed since".to_owned())),
        }
    }
    Ok((back, stay))
}

fn add(
    state: &State,
    id: WorkerId,
    live: &Deployed,
    to: Option<&Record>,
    back: &mut Vec<Change>,
    stay: &mut Vec<(String, String)>,
) -> Result<(), Failure> {
    match to {
        None => stay.push((id.1, "nothing ran before".to_owned())),
        Some(to) if to.digest == live.digest => stay.push((id.1, format!("it runs {} already", to.digest.short()))),
        Some(to) => match if state.is_kept(&to.digest)? { state.stored(&to.digest)? } else { None } {
            Some(stored) => back.push(plan::back(&id, live, (to.digest, &stored), reason(to))),
            None => {
                stay.push((id.1, format!("{} is no longer kept; see `deploy.keep` in fleet.yaml", to.digest.short())))
            }
        },
    }
    Ok(())
}

/// Makes uploads of what the state keeps.
fn uploads(cloud: &Cloud, fleet: &str, secrets: &Arc<Secrets>) -> Result<Arc<MakeUpload>, Failure> {
    let (kept, live) = (Mutex::new(State::read(&cloud.state)?), Live::open(&cloud.state)?);
    let (fleet, secrets) = (fleet.to_owned(), Arc::clone(secrets));
    Ok(Arc::new(move |change: &Change| {
        let told = |failure: Failure| failure.to_string();
        let gone = || "its bundle is no longer kept".to_owned();
        let id = (change.home.clone(), change.worker.clone());
        let (stored, there, module, runtime) = {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let stored = kept.stored(&change.digest).map_err(told)?.ok_or_else(gone)?;
            let module = kept.object(&stored.module).map_err(told)?.ok_or_else(gone)?;
            let runtime = kept.object(&stored.runtime).map_err(told)?.ok_or_else(gone)?;
            (stored, kept.one(&id).map_err(told)?, module, runtime)
        };
        upload(change, stored, there.as_ref(), (module, runtime), &fleet, &secrets, &live)
    }))
}

fn upload(
    change: &Change,
    stored: Stored,
    there: Option<&Deployed>,
    (module, runtime): (Vec<u8>, Vec<u8>),
    fleet: &str,
    secrets: &Secrets,
    live: &Live,
) -> Result<Upload, String> {
    let bundle = Bundle {
        digest: change.digest,
        module: stored.module,
        runtime: stored.runtime,
        metadata: stored.metadata.clone(),
    };
    let lookups = stored.source["worker"]["secrets"].as_object();
    let bindings = stored.metadata["bindings"].as_array().into_iter().flatten();
    let names: BTreeMap<String, String> = bindings
        .filter(|binding| binding["type"] == "secret_text")
        .filter_map(|binding| binding["name"].as_str())
        .map(|binding| {
            let name = lookups.and_then(|lookups| lookups.get(binding)?.as_str()).unwrap_or(binding);
            (binding.to_owned(), name.to_owned())
        })
        .collect();
    let needs = Needs { customer: &change.customer, environment: change.environment, names: &names };
    let sent = live.keeping(secrets, &needs, change)?;
    // What leads to it stays as it is.
    let triggers = there.map(|there| Triggers {
        workers_dev: there.live.workers_dev,
        domains: there.live.domains.keys().cloned().collect(),
        patterns: there.live.routes.keys().cloned().collect(),
        crons: there.live.crons.clone(),
    });
    let pending = triggers.is_none();
    let (triggers, digest) = (triggers.unwrap_or_default(), &change.digest);
    let tags = tags::of(fleet, &change.customer, change.environment, digest, &triggers, pending);
    let metadata = bundle::upload_metadata(&bundle, &tags, sent.sending.keep, |binding| sent.value(binding));
    let main = metadata["main_module"].as_str().unwrap_or_default().to_owned();
    let made = Made {
        secrets: sent.sending.live,
        objects: vec![(stored.module, deflated(&module)), (stored.runtime, deflated(&runtime))],
        stored,
    };
    let runtime_file = made.stored.runtime_file.clone();
    Ok(Upload {
        metadata,
        modules: vec![
            Module { name: main, bytes: module.into() },
            Module { name: runtime_file, bytes: runtime.into() },
        ],
        made,
    })
}
