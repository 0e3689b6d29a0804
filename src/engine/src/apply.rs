//! Applies a plan: opens the rate limits' lanes, runs the deploy loop, and records the run. Doesn't know where the plan and its
//! uploads come from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::deploy::{self, Budget, DeployContext, MAX_IN_FLIGHT, MakeUpload, Outcome, Ownership, Threads};
use flotilla_deploy::pace::{Lane, Priority};
use flotilla_deploy::plan::{Change, Plan};
use flotilla_deploy::state::{Deployed, Run, RunId, State, Table, WorkerId};
use flotilla_model::clock::{Clock, SystemClock};
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::platform::{HealthCheck, Platform};
use flotilla_model::spec::DeployRule;
use flotilla_spec::project::Fleet;

use crate::addresses::{find_subdomain, health_address};
use crate::cloud::Cloud;
use crate::context::{Context, LOCK};
use crate::health::health_check;
use crate::lanes::Lanes;
use crate::operator::Event;
use crate::plan_view::eta;

/// The number of failures after which a deploy halts, unless fleet.yaml sets another.
const FAILURE_LIMIT: usize = 10;
/// The number of bundles that are kept of each worker, unless fleet.yaml sets another.
const KEEP: usize = 5;

/// The kind of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunKind<'a> {
    /// The word in the state's records, such as `redeploy`.
    pub name: &'a str,
    /// The reason, if one was given.
    pub reason: &'a str,
    /// Whether it goes ahead of another run.
    pub ahead: bool,
    /// The priority of its requests.
    pub priority: Priority,
}

impl<'a> RunKind<'a> {
    /// A run that is named like this in the state's records, for the whole fleet.
    pub fn new(name: &'a str) -> RunKind<'a> {
        RunKind { name, reason: "", ahead: false, priority: Priority::Bulk }
    }
}

/// Everything that a plan is applied with.
#[derive(Clone, Copy)]
pub(crate) struct ApplyContext<'a> {
    pub context: &'a Context<'a>,
    pub fleet: &'a Fleet,
    pub cloud: &'a Cloud,
    pub platform: &'a Arc<Cloudflare>,
    pub tokens: &'a HashMap<String, SecretString>,
    /// The others' resources that may be changed.
    pub others: &'a OthersResources,
    pub kind: RunKind<'a>,
}

/// The resources of others that a run may change.
#[derive(Clone, Debug, Default)]
pub(crate) struct OthersResources {
    /// The workers that are adopted.
    pub adopt: BTreeSet<String>,
    /// The domains and hosts in KV that are taken over, by account id and host name.
    pub take_over: BTreeSet<(String, String)>,
    /// The workers that hosts in KV point to, and that may lose them although the state doesn't have them.
    pub holders: BTreeMap<(Table, String), String>,
    /// The number of requests that looked for them.
    pub requests: usize,
}

/// Applies a plan to the end, and records that it did.
pub(crate) fn apply(
    ctx: &ApplyContext<'_>,
    plan: &Plan,
    make: Arc<MakeUpload>,
    state: &mut State,
) -> Result<(Outcome, RunId), Failure> {
    let ApplyContext { context, fleet, cloud, platform, tokens, others, kind } = *ctx;
    let operator = context.operator;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let lanes = Lanes::open(plan, fleet, cloud, tokens, &clock);
    let known = state.workers_by_home()?;
    let checks = match cloud.local {
        Some(_) => BTreeMap::new(),
        None => plan.checks(|home| known.get(home).copied().unwrap_or(0), false),
    };
    let eta = eta(&lanes.estimates(plan, &plan.lookups(state)?, &checks));
    let Lanes { lanes, of: lane_of } = lanes.with_priority(kind.priority);
    let lanes: Vec<Arc<Lane>> = lanes.into_iter().map(Arc::new).collect();
    let size = plan.changes.len().max(plan.databases.len()).clamp(1, MAX_IN_FLIGHT.min(lanes.len() * 64).max(1));
    let platform_seam: Arc<dyn Platform> = Arc::<Cloudflare>::clone(platform);
    let pool = Box::new(Threads::new(size, platform_seam, make, Arc::clone(&clock)));
    let health = HealthChecks::find(ctx, plan, state)?;
    let beside = if kind.ahead { run_beside(context, state)? } else { None };
    let run = state.begin_run(&Run {
        began: clock.unix(),
        ended: 0,
        who: std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
        host: flotilla_model::lock::host_name(),
        what: kind.name.to_owned(),
        reason: kind.reason.to_owned(),
        plan: plan.digest.to_string(),
        outcome: serde_json::Value::Null,
    })?;
    let control = operator.control(&context.folder(), kind.ahead);
    operator.on_event(&Event::RunStarted { run, kind: kind.name, plan, eta });
    let pending: usize = plan.databases.iter().map(|change| change.pending.len()).sum();
    operator.begin("deploying", Some((plan.changes.len() + pending) as u64));
    operator.expect(Duration::from_secs_f64(eta));
    let deploy_context = DeployContext {
        pool,
        clock: Arc::clone(&clock),
        lanes,
        lane_of,
        state,
        run,
        concurrent_run: beside,
        // What is on this machine is nobody else's.
        ownership: cloud.local.is_none().then(|| Ownership {
            fleet: fleet.owner().into_owned(),
            adopt: others.adopt.clone(),
            take_over: others.take_over.clone(),
            holders: others.holders.clone(),
        }),
        budget: budget(&fleet.file.deploy),
        health_check: Box::new(|change, live, pack| health.of(ctx, change, live, pack)),
        control,
        on_event: Box::new(|event| operator.on_event(&Event::Deploy(event))),
    };
    let outcome = deploy::deploy(plan, deploy_context);
    operator.end();
    let mut outcome = outcome?;
    outcome.requests += others.requests as u64;
    operator.on_event(&Event::RunEnded(&outcome));
    state.end_run(run, clock.unix(), &serde_json::to_value(&outcome).expect("BUG: an outcome is JSON"))?;
    let touched: Vec<_> = plan.changes.iter().map(|change| (change.id(), change.customer.clone())).collect();
    state.retire(&touched, fleet.file.deploy.keep.unwrap_or(KEEP))?;
    Ok((outcome, run))
}

/// The run that this one goes ahead of, and whether it still runs.
type Beside = (RunId, Box<dyn Fn() -> bool>);

fn run_beside(context: &Context<'_>, state: &State) -> Result<Option<Beside>, Failure> {
    let lock = context.folder().join(LOCK);
    let running = state.runs(1)?.into_iter().find(|(_, run)| run.ended == 0);
    Ok(running.map(|(id, _)| (id, Box::new(move || Lock::is_held(&lock)) as Box<dyn Fn() -> bool>)))
}

/// The health checks between waves.
struct HealthChecks {
    hosts: HashMap<WorkerId, String>,
}

impl HealthChecks {
    /// Returns what the plan lacks: nothing if there is one wave, after which no health is checked.
    fn find(ctx: &ApplyContext<'_>, plan: &Plan, state: &State) -> Result<HealthChecks, Failure> {
        let mut found = HealthChecks { hosts: HashMap::new() };
        if plan.waves.len() > 1 {
            // Behind another API, public names are not used.
            for change in plan.changes.iter().filter(|_| ctx.cloud.is_cloudflare()) {
                find_subdomain(ctx.context, ctx.fleet, ctx.cloud, || Ok(ctx.tokens.clone()), &change.home);
            }
            found.hosts = settled_hosts(state, plan)?;
        }
        Ok(found)
    }

    fn of(&self, ctx: &ApplyContext<'_>, change: &Change, live: &Deployed, pack: Option<&str>) -> Option<HealthCheck> {
        let tokens = || Ok(ctx.tokens.clone());
        let subdomain = || find_subdomain(ctx.context, ctx.fleet, ctx.cloud, tokens, &change.home);
        let host = || self.hosts.get(&change.id()).map(|host| format!("https://{host}/"));
        let address = health_address(ctx.cloud, &change.worker, live, subdomain).or_else(host)?;
        health_check(ctx.fleet, pack, address, &change.worker, live)
    }
}

/// Returns the limits at which a deploy stops by itself.
fn budget(rule: &DeployRule) -> Budget {
    Budget {
        count: rule.failures.and_then(|share| share.count).unwrap_or(FAILURE_LIMIT),
        percent: rule.failures.and_then(|share| share.percent).unwrap_or(0.0),
        health: rule
            .health
            .enabled
            .unwrap_or(true)
            .then(|| Duration::from_secs(rule.health.deadline_seconds.unwrap_or(60))),
    }
}

/// Returns a host for the health check of each worker of a namespace: one that has pointed to it since before this
/// deploy, as it takes KV a minute to know a new one everywhere.
fn settled_hosts(state: &State, plan: &Plan) -> Result<HashMap<WorkerId, String>, Failure> {
    let mut all = state.hosts()?;
    for change in &plan.hosts {
        all.remove(&(change.id(), change.host.clone()));
    }
    let leads = all.into_iter().filter(|(_, lead)| lead.sure);
    Ok(leads.filter_map(|((_, host), lead)| Some(((lead.home, lead.worker?), host))).collect())
}
