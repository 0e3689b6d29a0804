//! Rolls workers back to a bundle that ran before, from what the state keeps. Needs no spec: it works where the specs
//! are broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::Outcome;
use flotilla_deploy::pace::Priority;
use flotilla_deploy::plan::{self, Change, Plan, Wave};
use flotilla_deploy::state::{Deployed, Record, RunId, State, Stored, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::objects;
use flotilla_model::reason::Reason;
use flotilla_model::spec::Environment;
use flotilla_model::tags::Triggers;
use flotilla_spec::secrets::Secrets;

use crate::accounts::{cloud_of_all, read_fleet};
use crate::apply::{ApplyContext, OthersResources, RunKind, apply};
use crate::approval;
use crate::cloud::CloudOptions;
use crate::context::{Context, LOCK};
use crate::operator::{Approval, Event};
use crate::upload;

/// The number of earlier uploads of a worker that are looked at.
const UPLOADS: usize = 1000;
/// The number of workers that are reported to stay as they are.
const SHOWN: usize = 50;
/// The word in the records.
const KIND: &str = "rollback";

/// The workers to roll back.
#[derive(Clone, Debug)]
pub enum Target {
    /// The workers of these customers.
    Customers {
        /// Their ids.
        customers: Vec<String>,
        /// The record whose bundle to restore; none: the previous one.
        record: Option<i64>,
        /// Only this environment.
        environment: Option<Environment>,
    },
    /// Every worker that a run uploaded, to what it ran before.
    Run(RunId),
}

/// A rollback.
pub struct RollbackRequest {
    /// The workers to roll back.
    pub target: Target,
    /// The cloud.
    pub cloud: CloudOptions,
    /// The approval.
    pub approval: Approval,
}

/// The result of a rollback.
pub enum RolledBack {
    /// The plan of a dry run: nothing was sent.
    DryRun(Plan),
    /// Changes were applied, or some of them.
    Applied(Outcome),
}

/// Rolls workers back.
pub fn rollback(context: &Context<'_>, request: &RollbackRequest) -> Result<RolledBack, Failure> {
    // 1. Lock.
    let applies = !request.approval.is_dry_run();
    let take = || Lock::take_from_all(&context.folder().join(LOCK), KIND, context.operator);
    let lock = applies.then(take).transpose()?;
    // 2. Plan, from the state alone.
    let mut fleet = read_fleet(&context.root)?;
    let secrets = Arc::new(request.cloud.secrets(context, &fleet)?);
    let mut cloud = cloud_of_all(context, &mut fleet, &request.cloud, &secrets)?;
    if !State::exists(&cloud.state)? {
        return Err(Failure::new(format!(
            "nothing has been deployed from this machine yet: {} doesn't exist",
            cloud.state.display()
        )));
    }
    let mut state = if applies { State::open(&cloud.state)? } else { State::read(&cloud.state)? };
    state.rely_on(lock.as_ref());
    let back = match &request.target {
        Target::Run(run) => of_run(&state, *run, None)?,
        Target::Customers { customers, record, environment } => of_customers(&state, customers, *record, *environment)?,
    };
    let Back { changes, stay, kept, migrations, runs_already } = back;
    report_stay(context, &stay);
    let plan = Plan::of(changes, &Wave::of(&fleet.file.deploy.waves));
    // 3. Safety.
    approval::check_digest(&request.approval, &plan)?;
    if plan.changes.is_empty() {
        if let (Target::Customers { record: Some(record), .. }, true) = (&request.target, runs_already) {
            return Err(Failure::new(format!("record {record} is what runs; there is nothing to roll back"))
                .hint("`flotilla history CUSTOMER` lists what ran, and which bundles are kept"));
        }
        let failure = Failure::new("there is no earlier bundle to roll back to");
        return Err(failure.hint("`flotilla history CUSTOMER` lists what ran, and which bundles are kept"));
    }
    let names: BTreeSet<&str> = plan.changes.iter().map(|change| change.account.as_str()).collect();
    let tokens = cloud.tokens(&fleet, names, &secrets)?;
    // 4. Confirm.
    context.operator.on_event(&Event::RollbackPlanned(&plan));
    report_kept(context, &kept);
    report_migrations(context, &migrations);
    upload::check_of_state(&cloud.state, &fleet, &secrets, &plan.changes)?;
    if !applies {
        return Ok(RolledBack::DryRun(plan));
    }
    if request.approval == Approval::Ask && cloud.local.is_none() {
        let mut workers = 0;
        state.each(|_, _| workers += 1)?;
        context.operator.confirm(&approval::question(&plan, &fleet, workers))?;
    }
    // 5. Waves and record.
    cloud.start(context)?;
    let platform = Arc::new(Cloudflare::new(&cloud.base, tokens.clone())?);
    let make = upload::of_state((&context.root, &cloud.state), &fleet, &secrets, &plan.changes)?;
    let kind = RunKind { priority: Priority::Interactive, ..RunKind::new(KIND) };
    let others = OthersResources::default();
    let (fleet, cloud) = (&fleet, &cloud);
    let ctx = ApplyContext { context, fleet, cloud, platform: &platform, tokens: &tokens, others: &others, kind };
    let (outcome, _) = apply(&ctx, &plan, make, &mut state)?;
    Ok(RolledBack::Applied(outcome))
}

/// Rolls back a wave that isn't healthy. Returns the number of workers that were rolled back.
pub(crate) fn roll_back_wave(
    ctx: &ApplyContext<'_>,
    state: &mut State,
    run: RunId,
    ids: &BTreeSet<WorkerId>,
    secrets: &Arc<Secrets>,
) -> Result<usize, Failure> {
    let operator = ctx.context.operator;
    let Back { changes, stay, kept, migrations, .. } = of_run(state, run, Some(ids))?;
    report_stay(ctx.context, &stay);
    if changes.is_empty() {
        return Ok(0);
    }
    operator.on_event(&Event::RollingBack(changes.len()));
    report_kept(ctx.context, &kept);
    report_migrations(ctx.context, &migrations);
    let plan = Plan::of(changes, &[]);
    let make = upload::of_state((&ctx.context.root, &ctx.cloud.state), ctx.fleet, secrets, &plan.changes)?;
    let kind = RunKind { name: KIND, reason: "its wave was not healthy", priority: Priority::Interactive, ..ctx.kind };
    let (outcome, _) = apply(&ApplyContext { kind, ..*ctx }, &plan, make, state)?;
    Ok(outcome.applied)
}

/// The workers of a rollback.
#[derive(Default)]
struct Back {
    /// The changes.
    changes: Vec<Change>,
    /// The workers that stay as they are, with the reasons.
    stay: Vec<(String, String)>,
    /// The workers that keep other hosts and crons than they had.
    kept: Vec<Kept>,
    /// The migrations that were applied to the customers' databases since the restored bundles were uploaded.
    migrations: BTreeMap<String, Vec<String>>,
    /// Whether a worker runs already what it would be rolled back to.
    runs_already: bool,
}

/// The hosts and crons that a worker keeps, and those that it had when the restored bundle was uploaded.
struct Kept {
    worker: String,
    now: Vec<String>,
    then: Vec<String>,
}

/// Reports the workers that stay as they are, those with the same reason together.
fn report_stay(context: &Context<'_>, stay: &[(String, String)]) {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (worker, reason) in stay {
        reasons.entry(reason).or_default().push(worker);
    }
    for (reason, workers) in reasons {
        context.operator.on_event(&Event::Stay { workers: &workers, reason });
    }
}

fn report_kept(context: &Context<'_>, kept: &[Kept]) {
    for Kept { worker, now, then } in kept.iter().take(SHOWN) {
        context.operator.on_event(&Event::TriggersStay { worker, now, then });
    }
}

/// Reports the migrations that stay: nothing reverts them.
fn report_migrations(context: &Context<'_>, migrations: &BTreeMap<String, Vec<String>>) {
    for (customer, migrations) in migrations.iter().take(SHOWN) {
        context.operator.on_event(&Event::MigrationsStay { customer, migrations });
    }
}

/// Returns what points to a worker now and didn't when a bundle was uploaded, and the reverse; nothing if that is unknown.
fn kept(state: &State, id: &WorkerId, live: &Deployed, stored: &Stored) -> Result<Option<Kept>, Failure> {
    let Some(before) = stored.source["worker"].as_object() else { return Ok(None) };
    let names = |key: &str, pointer: &str| -> BTreeSet<String> {
        let all = before.get(key).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|item| item.pointer(pointer)?.as_str()).map(str::to_owned).collect()
    };
    let mut then = names("domains", "");
    then.extend(names("routes", "/pattern"));
    then.extend(names("crons", "").into_iter().map(|cron| format!("cron {cron}")));
    let hosts = before.get("hosts").and_then(|hosts| hosts["names"].as_array()).into_iter().flatten();
    then.extend(hosts.filter_map(Value::as_str).map(str::to_owned));
    let Triggers { workers_dev, preview_urls, domains, patterns, crons, .. } = live.live.triggers();
    let mut now: BTreeSet<String> = domains.into_iter().chain(patterns).collect();
    now.extend(crons.iter().map(|cron| format!("cron {cron}")));
    now.extend(state.hosts_of(id)?);
    for (key, text, is_on) in
        [("workersDev", "workers.dev", workers_dev), ("previewUrls", "preview URLs", preview_urls)]
    {
        now.extend(is_on.then(|| text.to_owned()));
        then.extend((before.get(key) == Some(&Value::Bool(true))).then(|| text.to_owned()));
    }
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect::<Vec<_>>();
    let kept = Kept { worker: id.1.clone(), now: only(&now, &then), then: only(&then, &now) };
    Ok((!kept.now.is_empty() || !kept.then.is_empty()).then_some(kept))
}

/// Returns why a worker can't go back to a bundle: its Durable Object classes have changed since, and Cloudflare undoes no migration.
fn migrated_since(worker: &str, live: &Deployed, runs: Option<&Stored>, to: &Stored) -> Option<String> {
    let target = objects::migrations_of(&to.metadata).last().map(|migration| migration.tag.clone());
    let tag = |tag: &Option<String>| tag.clone().unwrap_or_else(|| "none".to_owned());
    let why = if target != live.live.migration_tag {
        format!(
            "its Durable Object migration is {}, and that bundle's is {}",
            tag(&live.live.migration_tag),
            tag(&target)
        )
    } else if runs.is_some_and(|runs| objects::exports_of(&runs.metadata) != objects::exports_of(&to.metadata)) {
        "its declared Durable Object classes differ from that bundle's".to_owned()
    } else {
        // A class that the bundle binds and that this worker no longer has.
        let classes = |stored: &Stored| objects::bound_classes(&stored.metadata, worker);
        let is_known = |class: &String| {
            runs.is_some_and(|runs| {
                objects::classes(&objects::migrations_of(&runs.metadata)).contains_key(class.as_str())
            })
        };
        let uses_migrations = live.live.migration_tag.is_some();
        let gone = classes(to).into_iter().find(|class| uses_migrations && runs.is_some() && !is_known(class))?;
        format!("that bundle binds the Durable Object class {gone}, which the worker no longer has")
    };
    Some(format!("{why}: a rollback across a migration isn't possible; deploy a fix instead"))
}

fn reason(live: &Deployed, to: &Record) -> Reason {
    Reason::RolledBack { record: to.id, at: to.at, old: live.digest.short(), new: to.digest.short() }
}

fn of_customers(
    state: &State,
    customers: &[String],
    record: Option<i64>,
    environment: Option<Environment>,
) -> Result<Back, Failure> {
    let mut back = Back::default();
    let mut found = false;
    for customer in customers {
        let workers = state.of_customer(customer)?;
        if workers.is_empty() {
            return Err(Failure::usage(format!("no worker of a customer `{customer}` is deployed")));
        }
        for (id, live) in workers {
            if environment.is_some_and(|environment| environment != live.environment) {
                continue;
            }
            let uploads = state.uploads_of(&id, customer, UPLOADS)?;
            let to = match record {
                Some(to) => match uploads.iter().find(|upload| upload.id == to) {
                    Some(record) => Some(record),
                    // It can be one of another worker of the customer.
                    None => continue,
                },
                None => uploads.iter().find(|record| record.digest != live.digest),
            };
            found = true;
            back.add(state, id, &live, to)?;
        }
    }
    if let (Some(to), false) = (record, found) {
        let failure = Failure::usage(format!("record {to} is not an upload of {}", customers.join(", ")));
        return Err(failure.hint("`flotilla history CUSTOMER` lists the records"));
    }
    Ok(back)
}

/// Returns the workers that a deploy uploaded, as far as they are still live; only these, if any are given.
fn of_run(state: &State, run: RunId, only: Option<&BTreeSet<WorkerId>>) -> Result<Back, Failure> {
    let mut back = Back::default();
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
                back.add(state, id.clone(), &live, to)?;
            }
            _ => back.stay.push((id.1.clone(), "something else has been deployed since".to_owned())),
        }
    }
    Ok(back)
}

impl Back {
    /// Adds a worker that goes back to what a record uploaded.
    fn add(&mut self, state: &State, id: WorkerId, live: &Deployed, to: Option<&Record>) -> Result<(), Failure> {
        match to {
            None => self.stay.push((id.1, "nothing ran before".to_owned())),
            Some(to) if to.digest == live.digest => {
                self.runs_already = true;
                self.stay.push((id.1, format!("it already runs {}", to.digest.short())));
            }
            Some(to) => match if state.is_kept(&to.digest)? { state.stored(&to.digest)? } else { None } {
                Some(stored) => {
                    if let Some(reason) = migrated_since(&id.1, live, state.stored(&live.digest)?.as_ref(), &stored) {
                        self.stay.push((id.1, reason));
                        return Ok(());
                    }
                    self.kept.extend(kept(state, &id, live, &stored)?);
                    let since = state.migrations_since(&live.customer, to.id)?;
                    if !since.is_empty() {
                        self.migrations.insert(live.customer.clone(), since);
                    }
                    let files = state.assets_of(&stored)?.map_or(0, |list| list.count_new(None));
                    self.changes.push(plan::back(&id, live, (to.digest, &stored, files), reason(live, to)));
                }
                None => {
                    let reason = format!("{} is no longer kept; see `deploy.keep` in fleet.yaml", to.digest.short());
                    self.stay.push((id.1, reason));
                }
            },
        }
        Ok(())
    }
}
