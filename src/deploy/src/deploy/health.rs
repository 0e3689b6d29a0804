//! Health checks between waves: checks whether the workers that a wave uploaded run the new bundle. The checks count
//! against no limit, so that they need no permits.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::index::ChangeIndex;
use super::pool::{Answer, Job};
use super::run::Run;
use super::schedule::RequestId;
use super::{CONTROL_INTERVAL, Control, Event, Failed, HEALTH_INTERVAL, NextStep};
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Health, HealthCheck};

/// The health checks of a wave.
struct Checks {
    of: HashMap<ChangeIndex, HealthCheck>,
    /// The checks that are to be made, and when.
    queue: BTreeSet<(Duration, ChangeIndex)>,
    in_flight: usize,
    /// The time after which an unhealthy worker isn't checked again.
    deadline: Duration,
}

impl Run<'_> {
    /// Checks the workers of a wave until they are healthy and run what was uploaded, or until the time is up.
    pub(super) fn check_health(&mut self, limit: Duration) -> Result<(), Failure> {
        let of: HashMap<ChangeIndex, HealthCheck> = std::mem::take(&mut self.uploaded).into_iter().collect();
        let unchecked = std::mem::take(&mut self.unchecked);
        self.emit(&Event::CheckingHealth { checked: of.len(), unchecked });
        let queue = of.keys().map(|index| (Duration::ZERO, *index)).collect();
        let deadline = self.ctx.clock.now() + limit;
        let mut checks = Checks { of, queue, in_flight: 0, deadline };
        while !checks.queue.is_empty() || checks.in_flight > 0 {
            self.poll_control();
            let now = self.ctx.clock.now();
            self.send_checks(&mut checks, now);
            let next = checks
                .queue
                .first()
                .map_or(now + CONTROL_INTERVAL, |(when, _)| (*when).clamp(now, now + CONTROL_INTERVAL));
            for (id, answer) in self.ctx.pool.wait(next) {
                let (RequestId::HealthCheck(index), Answer::Health(health)) = (id, answer) else {
                    unreachable!("BUG: only health is checked between waves")
                };
                self.on_health(&mut checks, index, health);
            }
        }
        Ok(())
    }

    /// Sends the checks whose time has come; none after a stop.
    fn send_checks(&mut self, checks: &mut Checks, now: Duration) {
        while let Some((when, index)) = checks.queue.first().copied() {
            if when > now || checks.in_flight >= self.ctx.pool.size() {
                break;
            }
            checks.queue.remove(&(when, index));
            if self.control != Control::Stop {
                checks.in_flight += 1;
                self.ctx.pool.submit(RequestId::HealthCheck(index), Job::Health(Box::new(checks.of[&index].clone())));
            }
        }
    }

    fn on_health(&mut self, checks: &mut Checks, index: ChangeIndex, health: Health) {
        checks.in_flight -= 1;
        let change = self.change(index);
        if health == Health::Healthy {
            return;
        }
        let why = format!("{}: {health}", checks.of[&index].probe.path);
        let now = self.ctx.clock.now();
        if now < checks.deadline {
            checks.queue.insert((now + HEALTH_INTERVAL, index));
            return;
        }
        self.emit(&Event::Unhealthy(change, &why));
        self.outcome.unhealthy += 1;
        let (worker, customer) = (change.worker.clone(), change.customer.clone());
        let error = format!("uploaded, but not healthy: {why}");
        self.outcome.failures.push(Failed { worker, customer, error, next_step: NextStep::Health });
        self.check_failure_budget();
    }
}
