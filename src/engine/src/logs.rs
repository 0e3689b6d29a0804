//! Follows the logs of a customer's workers, each by a tail of the platform. Reports events; how a tail works is `flotilla_deploy::tail`'s.

use std::collections::BTreeSet;

use flotilla_build::build;
use flotilla_deploy::requester::Requester;
use flotilla_deploy::tail::{Event, Tail, TailError};
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::failure::Failure;
use flotilla_model::platform::CallError;
use flotilla_model::text::count;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cloud::{Cloud, CloudOptions};
use crate::context::Context;
use crate::requests::PlatformRequester;
use crate::selection::Selection;

/// The most workers that are followed at once: each takes a connection.
pub const AT_ONCE: usize = 20;

const START_IT: &str = "start it in another terminal: `flotilla dev`, or `flotilla local`";

/// The workers whose logs are followed, and what of them.
pub struct LogsRequest<'a> {
    /// The customers and environments.
    pub selection: &'a Selection,
    /// The roles of their workers; empty: all.
    pub roles: &'a [String],
    /// The cloud.
    pub cloud: CloudOptions,
    /// The filters that an event has to pass, in the platform's form.
    pub filters: Vec<Value>,
}

/// Follows logs until `stops`. Returns early where no worker can be followed any more.
pub fn follow_logs(
    context: &Context<'_>,
    request: &LogsRequest<'_>,
    stops: &(dyn Fn() -> bool + Sync),
    on_event: &(dyn Fn(&Worker, Event<'_>) + Sync),
    on_failure: &(dyn Fn(&Failure) + Sync),
) -> Result<(), Failure> {
    let mut loaded = build::load(&context.root, context.operator).map_err(Failure::invalid)?;
    request.selection.verify(context.operator, &loaded.project, &mut loaded.scan)?;
    let fleet = &loaded.project.fleet;
    let has_role = |worker: &Worker| {
        request.roles.is_empty() || worker.role.as_ref().is_some_and(|role| request.roles.contains(role))
    };
    let selected =
        loaded.workers.iter().filter(|worker| worker.customer != SHARED && request.selection.includes(worker));
    let selected: Vec<&Worker> = selected.collect();
    let workers: Vec<&Worker> = selected.iter().copied().filter(|worker| has_role(worker)).collect();
    if workers.is_empty() {
        let failure = Failure::usage("no worker is selected");
        let mut roles: Vec<&str> = selected.iter().filter_map(|worker| worker.role.as_deref()).collect();
        roles.sort_unstable();
        roles.dedup();
        return Err(match roles.as_slice() {
            [] => failure,
            roles => failure.hint(format!("the roles of its workers are {}", roles.join(", "))),
        });
    }
    if workers.len() > AT_ONCE {
        let message =
            format!("{} are selected, and at most {AT_ONCE} are followed at once", count(workers.len(), "worker"));
        return Err(Failure::usage(message).hint("select fewer with --env or --worker"));
    }
    let secrets = request.cloud.secrets(context, fleet)?;
    let mut cloud = Cloud::new(context, fleet, &request.cloud, &secrets)?;
    if cloud.local.is_some() && cloud.base.is_empty() {
        return Err(Failure::new("the local Cloudflare emulator is not running").hint(START_IT));
    }
    let home = |worker: &Worker| cloud.home(&worker.account, worker.namespace.as_deref());
    let (followed, dispatched): (Vec<&Worker>, Vec<&Worker>) =
        workers.into_iter().partition(|worker| worker.namespace.is_none());
    if let Some(worker) = dispatched.first() {
        let failure = no_tails(worker, cloud.local);
        if followed.is_empty() {
            return Err(failure);
        }
        on_failure(&failure);
    }
    let homes: Vec<_> = followed.iter().map(|worker| home(worker)).collect();
    let ids: BTreeSet<String> = homes.iter().map(|home| home.account_id.clone()).collect();
    let requester = PlatformRequester::new(context, fleet, &mut cloud, &secrets, &ids)?;
    let outage = || cloud.outage();
    let requester: Mutex<Requester> = Mutex::new(requester.into_inner());
    let failures: Vec<Failure> = std::thread::scope(|scope| {
        let follow = |(worker, home)| {
            let (requester, filters, outage) = (&requester, &request.filters, &outage);
            let worker: &Worker = worker;
            scope.spawn(move || {
                let tail = Tail { home, worker: &worker.name, filters, outage };
                let ended = tail.follow(requester, &|| stops(), &mut |event| on_event(worker, event));
                ended.err().map(|error| {
                    let failure = failure_of(worker, &error, outage().is_some());
                    on_failure(&failure);
                    failure
                })
            })
        };
        let threads: Vec<_> = followed.iter().copied().zip(&homes).map(follow).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("BUG: a thread panicked")).collect()
    });
    // Each was reported when it came.
    match failures.len() == followed.len() && !stops() {
        true => Err(Failure::new("no worker is left to follow")),
        false => Ok(()),
    }
}

/// The failure for a worker that the platform has no tails for.
fn no_tails(worker: &Worker, local: Option<u16>) -> Failure {
    let namespace = worker.namespace.as_deref().unwrap_or_default();
    let message = format!(
        "{} is in the dispatch namespace {namespace}, and Cloudflare has no tails for workers there",
        worker.name
    );
    match local {
        Some(_) => Failure::new(message).hint("`flotilla dev` prints its logs, and the emulator's page shows them"),
        None => Failure::new(message)
            .hint("`npx wrangler tail` with the name of the dispatch worker shows the requests that reach it")
            .hint(
                "a Tail Worker or a Logpush job on the dispatch worker gets the logs of all workers of the namespace",
            ),
    }
}

/// The failure for a worker that can't be followed. `stopped`: the local emulator has stopped.
fn failure_of(worker: &Worker, error: &TailError, stopped: bool) -> Failure {
    let name = &worker.name;
    match error {
        TailError::NotDeployed => {
            Failure::new(format!("{name} is not deployed")).hint("`flotilla status` shows what is deployed")
        }
        TailError::Refused(error @ CallError::Unauthorized(_)) => {
            Failure::new(format!("{name} can't be tailed: {error}"))
                .hint("the token needs the permission `Workers Tail: Read`")
        }
        TailError::Refused(error) => Failure::new(format!("{name} can't be tailed: {error}")),
        TailError::Lost(reason) => {
            let failure = Failure::new(format!("the connection to {name} is lost: {reason}"));
            match stopped {
                true => failure.hint(START_IT),
                false => failure,
            }
        }
    }
}
