//! Rehearses a deploy: the real loop, the real lanes and a real state, under a clock that waiting moves, against a platform that
//! counts as the local Cloudflare does and does nothing else. Shows that its end is what the limits allow, and what was told
//! beforehand. The stand (`benches/fleet`) does the same at full size.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flotilla_deploy::deploy::{
    Budget, Control, DeployContext, LaneId, MakeUpload, Outcome, Rehearsal, Upload, UploadRecord, deploy,
};
use flotilla_deploy::pace::{Lane, Rate};
use flotilla_deploy::plan::{self, Change, Desired, Options, Plan, Planner, RecordedWorker};
use flotilla_deploy::state::{RunId, State, Stored};
use flotilla_local::{Meter, RateLimit};
use flotilla_model::bundle::Bundle;
use flotilla_model::clock::{Clock, FakeClock};
use flotilla_model::customer::Worker;
use flotilla_model::digest::Digest;
use flotilla_model::platform::{Call, CallError, Health, HealthCheck, Home, Left, Platform, Policy, Quota, Reply};
use flotilla_model::uploaded::Uploaded;
use serde_json::{Value, json};

/// A platform that counts requests, each account's apart, and does nothing.
struct Counting {
    clock: Arc<FakeClock>,
    limit: RateLimit,
    meter: Mutex<Meter>,
}

impl Platform for Counting {
    fn call(&self, home: &Home, _: &Call) -> (Result<Reply, CallError>, Option<Quota>) {
        let mut meter = self.meter.lock().expect("nobody panicked");
        let verdict = meter.count(self.limit, &home.account_id, self.clock.now());
        let reset = Duration::from_secs(verdict.reset);
        let name = || "default".to_owned();
        if verdict.blocked {
            return (Err(CallError::Throttled { retry_after: Some(reset) }), None);
        }
        let quota = Quota {
            left: vec![Left { name: name(), requests: verdict.remaining, reset }],
            policies: vec![Policy { name: name(), requests: self.limit.requests, window: self.limit.window }],
        };
        (Ok(Reply::Uploaded(Uploaded { etag: "etag".to_owned(), ..Uploaded::default() })), Some(quota))
    }

    fn health(&self, _: &HealthCheck) -> Health {
        unreachable!("there is one wave")
    }
}

/// What is rehearsed.
#[derive(Clone, Copy, Debug)]
pub struct Rehearse {
    /// Workers, of one request each.
    pub workers: usize,
    /// Tokens, one for each account; the workers are spread over them evenly.
    pub tokens: usize,
    /// The limit of each.
    pub limit: RateLimit,
    /// How long an answer takes.
    pub latency: Duration,
}

/// What came of it. Times are the rehearsed ones, but for `took`.
#[derive(Debug)]
pub struct Rehearsed {
    /// What the deploy says of itself.
    pub outcome: Outcome,
    /// What was told beforehand, in seconds.
    pub estimate: f64,
    /// The earliest end that the limit allows, in seconds.
    pub allowed: f64,
    /// How long the rehearsal took.
    pub took: Duration,
}

/// Rehearses, with this state, which is empty.
pub fn rehearse(what: Rehearse, mut state: State) -> Rehearsed {
    let clock = Arc::new(FakeClock::default());
    clock.sleep(Duration::from_secs(1000));
    let shared: Arc<dyn Clock> = clock.clone();
    let plan = plan(what);
    let rate = Rate::of(what.limit.requests as usize, what.limit.window);
    let lanes: Vec<Arc<Lane>> = (0..what.tokens).map(|_| Arc::new(Lane::new(rate, Arc::clone(&shared)))).collect();
    let each = what.workers.div_ceil(what.tokens);
    let estimate = lanes[0].finish(each, lanes[0].per_second()).as_secs_f64();
    let platform = Counting { clock, limit: what.limit, meter: Mutex::default() };
    let make: &MakeUpload = &|change: &Change| {
        let stored = Stored {
            module: change.digest,
            runtime: change.digest,
            runtime_file: String::new(),
            metadata: Value::Null,
            source: Value::Null,
        };
        Ok(Upload {
            metadata: Value::Null,
            modules: Vec::new(),
            assets: None,
            record: UploadRecord { secrets: BTreeMap::new(), stored, objects: Vec::new() },
        })
    };
    let at_once = lanes.len() * lanes[0].in_flight_bound();
    let start = Instant::now();
    let outcome = deploy(
        &plan,
        DeployContext {
            pool: Box::new(Rehearsal::new(&platform, make, Arc::clone(&shared), what.latency, at_once)),
            clock: shared,
            lane_of: (0..lanes.len()).map(|at| (account(at), LaneId::new(at))).collect::<HashMap<_, _>>(),
            lanes,
            state: &mut state,
            run: RunId(1),
            concurrent_run: None,
            ownership: None,
            budget: Budget::default(),
            health_check: Box::new(|_, _, _| None),
            control: Box::new(|| Control::Continue),
            on_event: Box::new(|_| {}),
        },
    );
    let took = start.elapsed();
    let windows = (each as u64).div_ceil(what.limit.requests) - 1;
    let allowed = (what.limit.window * windows as u32 + what.latency).as_secs_f64();
    Rehearsed { outcome: outcome.expect("the state can be written"), estimate, allowed, took }
}

fn account(at: usize) -> String {
    format!("account-{at}")
}

/// The plan of a first deploy.
fn plan(what: Rehearse) -> Plan {
    let options = Options {
        whole: true,
        homes: (0..what.tokens).map(|at| Home { account_id: account(at), namespace: None }).collect::<BTreeSet<_>>(),
        ..Options::default()
    };
    let mut planner = Planner::new(&options);
    let mut worker = worker();
    for at in 0..what.workers {
        worker.customer = format!("c{at:07}");
        worker.name = format!("w-{}", worker.customer);
        worker.account = account(at % what.tokens);
        let home = Home { account_id: worker.account.clone(), namespace: None };
        let digest = Digest::of(worker.name.as_bytes());
        let bundle = Bundle { digest, module: digest, runtime: Digest::of(b"runtime"), metadata: json!({}) };
        let wanted = Desired { home: home.clone(), worker: &worker, bundle: &bundle, secrets: BTreeMap::new() };
        let decision = plan::decide(&wanted, &RecordedWorker::default(), &options);
        planner.add(&(home, worker.name.clone()), decision);
    }
    planner.finish()
}

fn worker() -> Worker {
    let worker = json!({
        "customer": "", "customerName": "", "labels": {}, "file": "", "environment": "production", "role": null, "name": "",
        "pack": "tiny", "account": "", "namespace": null, "workersDev": false, "domains": [], "routes": [],
        "trustedOrigins": [], "logLevel": "info", "database": {"type": "none"}, "destinations": [], "vars": {}, "secrets": {},
        "services": {}, "crons": [], "compatibilityDate": "2026-06-01", "compatibilityFlags": [], "observability": {},
        "delivery": "automatic",
    });
    serde_json::from_value(worker).expect("a worker")
}

/// Asserts that all is done, nothing was refused, and that the end is what the limit allows, and what was told.
pub fn holds(what: Rehearse, rehearsed: &Rehearsed) {
    let Rehearsed { outcome, estimate, allowed, .. } = rehearsed;
    assert_eq!((outcome.applied, outcome.throttled, outcome.retries), (what.workers, 0, 0), "{outcome:?}");
    assert_eq!(outcome.requests, what.workers as u64);
    let seconds = outcome.seconds;
    assert!(seconds >= *allowed && seconds <= allowed * 1.01, "{seconds} s, and the limit allows {allowed} s");
    assert!((estimate - seconds).abs() <= seconds * 0.05, "{seconds} s, and {estimate} s were told");
}

#[test]
fn a_deploy_ends_when_the_limits_allow_it_and_when_the_plan_says() {
    for (workers, tokens, latency) in [(4000, 1, 250), (4000, 5, 80)] {
        let limit = RateLimit { requests: 1200 / tokens, window: Duration::from_secs(300) };
        let what = Rehearse {
            workers: workers as usize,
            tokens: tokens as usize,
            limit,
            latency: Duration::from_millis(latency),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let rehearsed = rehearse(what, State::open(&folder.path().join("state.db")).expect("a state"));
        holds(what, &rehearsed);
        assert!(rehearsed.took.as_secs_f64() < rehearsed.outcome.seconds / 10.0, "{:?}", rehearsed.took);
    }
}
