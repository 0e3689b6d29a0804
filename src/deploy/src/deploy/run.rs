//! The loop: sends what is ready, handles answers, and sleeps until there is work. One thread; [`Run`] holds what is
//! known while a deploy runs, and its [`Schedule`] the dependencies between changes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::circle::{Circle, is_move};
use super::hosts::{HostWrite, KeptHosts};
use super::index::{ChangeIndex, LaneId, LookupId, StepIndex, WaveIndex};
use super::lookups::KnownIds;
use super::ownership::{Ownership, Strangers};
use super::pool::{Extras, Ids, Job};
use super::problem::Problem;
use super::schedule::{Conclusion, LaneQueue, Permit, RequestId, RequestState, Schedule};
use super::task::Next;
use super::{CONTROL_INTERVAL, Control, DeployContext, Event, LaneProgress, Outcome, PROGRESS_INTERVAL};
use crate::plan::handover::Host;
use crate::plan::order::levels;
use crate::plan::transfers::{Part, Transfers};
use crate::plan::{Action, Change, Plan, SharedAssets, Step};
use crate::state::{ResourceKind, Uncertainty, WorkerId};
use flotilla_model::bundle::Resource;
use flotilla_model::failure::Failure;
use flotilla_model::platform::{HealthCheck, Home};

/// The part of a change that is done now. What moves between workers moves when the other changes of the wave are done: then it is known
/// whether the worker that gives a host, and the one that gets it, succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The steps that release a host for a change of this wave in another account: no request moves it there.
    Release(WaveIndex),
    /// The creation of workers that are bound to each other, without these bindings, and the steps before it.
    Create,
    /// The uploads of workers that are bound to each other, and the steps before them.
    Cycle,
    /// The phase of all other steps but the late ones.
    Apply,
    /// The moves of hosts that workers swap, all of them together.
    Swap,
    /// The steps that take hosts from other workers: each of these has its new hosts by then.
    Take,
    /// The late steps that are left: those that release hosts when others have them.
    HandOver,
}

/// The change that uploads static assets which several workers of a dispatch namespace share.
pub(super) enum AssetLeader {
    /// This change, for which these wait.
    Change(ChangeIndex, Vec<ChangeIndex>),
    /// They are there.
    Done,
}

/// A deploy that runs.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) ctx: DeployContext<'a>,
    pub(super) phase: Phase,
    pub(super) schedule: Schedule<'a>,
    pub(super) ids: KnownIds,
    /// The lookups of zones, by account and name.
    pub(super) zone_lookups: HashMap<(String, String), LookupId>,
    /// The workers that aren't the fleet's, as listed before this wave.
    pub(super) strangers: Strangers,
    /// The hosts in KV that aren't written in this wave.
    pub(super) kept_hosts: KeptHosts,
    /// The reasons why an account's databases or KV namespaces are unavailable.
    pub(super) unavailable: HashMap<(String, Resource), Problem>,
    /// The hosts that change hands between the workers of changes.
    pub(super) transfers: Transfers,
    /// The changes that acquire a host, by its name.
    pub(super) acquired: HashMap<String, Vec<ChangeIndex>>,
    /// The changes by their workers, if hosts move between workers.
    pub(super) change_of: HashMap<WorkerId, ChangeIndex>,
    /// The changes whose workers give hosts away, with those that take them and have not done so yet.
    pub(super) takers: HashMap<ChangeIndex, Vec<(ChangeIndex, String)>>,
    /// The hosts of workers that changes are moving, or of which it is unknown whether they moved.
    pub(super) moving: HashMap<WorkerId, Vec<Uncertainty>>,
    /// The changes that upload static assets first, for all others of their dispatch namespace that have the same files.
    pub(super) asset_leaders: HashMap<(Home, SharedAssets), AssetLeader>,
    /// The workers whose databases could not be migrated: they stay as they are.
    pub(super) unmigrated: HashSet<WorkerId>,
    /// The changes of each cycle of bindings.
    pub(super) cycles: HashMap<usize, Vec<ChangeIndex>>,
    /// The changes whose workers don't have all of their bindings before.
    pub(super) completing: HashMap<WorkerId, ChangeIndex>,
    /// The workers that swap hosts now.
    pub(super) circle: Option<Circle>,
    /// The changes of a circle that failed, with the reasons.
    pub(super) broken: HashMap<ChangeIndex, Problem>,
    /// The accounts whose token is unauthorized.
    pub(super) unauthorized: HashSet<String>,
    /// The changes that were uploaded in this wave, with the workers' health checks.
    pub(super) uploaded: Vec<(ChangeIndex, HealthCheck)>,
    /// The number of workers that were uploaded in this wave and have no health check, or no address.
    pub(super) unchecked: usize,
    /// Changes that ended, to be reported as soon as what was acknowledged is written.
    pub(super) concluded: Vec<(ChangeIndex, Conclusion)>,
    /// Whether a batch of notes on changes that begin is open.
    noting: bool,
    pub(super) control: Control,
    control_polled: Option<Duration>,
    progress_emitted: Duration,
    pub(super) outcome: Outcome,
}

/// Applies a plan once. Safe to call again: what was acknowledged is recorded and not repeated. Fails as a whole only
/// where the state can't be written.
pub fn deploy(plan: &Plan, ctx: DeployContext<'_>) -> Result<Outcome, Failure> {
    let start = ctx.clock.now();
    let mut run = Run::new(plan, ctx);
    run.takers = run.find_takers();
    run.look_up_names()?;
    run.run_waves()?;
    let Run { mut outcome, ctx, .. } = run;
    outcome.failures.sort_by(|a, b| a.worker.cmp(&b.worker));
    outcome.seconds = ctx.clock.now().saturating_sub(start).as_secs_f64();
    Ok(outcome)
}

/// The changes that acquire a host which another change releases, by the host's name.
fn acquired(changes: &[Change]) -> HashMap<String, Vec<ChangeIndex>> {
    let released: HashSet<String> = changes
        .iter()
        .flat_map(|change| change.steps.iter().filter_map(Host::released_by))
        .map(|host| host.name().to_owned())
        .collect();
    let mut acquired: HashMap<String, Vec<ChangeIndex>> = HashMap::new();
    if !released.is_empty() {
        for (place, change) in changes.iter().enumerate() {
            for host in change.steps.iter().filter_map(Host::acquired_by) {
                if released.contains(host.name()) {
                    acquired.entry(host.name().to_owned()).or_default().push(ChangeIndex::new(place));
                }
            }
        }
    }
    acquired
}

/// The changes of each cycle of bindings, by its number.
fn cycles(changes: &[Change]) -> HashMap<usize, Vec<ChangeIndex>> {
    let mut cycles: HashMap<usize, Vec<ChangeIndex>> = HashMap::new();
    for (place, change) in changes.iter().enumerate() {
        if let Some(cycle) = change.cycle {
            cycles.entry(cycle.number).or_default().push(ChangeIndex::new(place));
        }
    }
    cycles
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, ctx: DeployContext<'a>) -> Run<'a> {
        let lane_of: Vec<LaneId> = plan.changes.iter().map(|change| ctx.lane_of[&change.home.account_id]).collect();
        let mut schedule = Schedule::new(&ctx.lanes, lane_of);
        for change in &plan.databases {
            let lane = schedule.lane(ctx.lane_of[&change.home.account_id]);
            lane.left += change.pending.len();
            if lane.account.is_empty() {
                lane.account.clone_from(&change.account);
            }
        }
        for (place, change) in plan.changes.iter().enumerate() {
            let lane = schedule.lane_of(ChangeIndex::new(place));
            lane.left += change.steps.len();
            if lane.account.is_empty() {
                lane.account.clone_from(&change.account);
            }
        }
        Run {
            plan,
            phase: Phase::Apply,
            schedule,
            ids: KnownIds::default(),
            zone_lookups: HashMap::new(),
            strangers: Strangers::default(),
            kept_hosts: KeptHosts::default(),
            unavailable: HashMap::new(),
            transfers: Transfers::of_plan(&plan.changes),
            acquired: acquired(&plan.changes),
            change_of: match plan.changes.iter().any(Change::has_moves) {
                true => {
                    let all = plan.changes.iter().enumerate();
                    all.map(|(place, change)| (change.id(), ChangeIndex::new(place))).collect()
                }
                false => HashMap::new(),
            },
            takers: HashMap::new(),
            moving: HashMap::new(),
            asset_leaders: HashMap::new(),
            unmigrated: HashSet::new(),
            cycles: cycles(&plan.changes),
            completing: {
                let all = plan.changes.iter().enumerate().filter(|(_, change)| change.completes());
                all.map(|(place, change)| (change.id(), ChangeIndex::new(place))).collect()
            },
            circle: None,
            broken: HashMap::new(),
            unauthorized: HashSet::new(),
            uploaded: Vec::new(),
            unchecked: 0,
            concluded: Vec::new(),
            noting: false,
            control: Control::Continue,
            control_polled: None,
            progress_emitted: ctx.clock.now(),
            outcome: Outcome::default(),
            ctx,
        }
    }

    /// Returns a change of the plan.
    pub(super) fn change(&self, index: ChangeIndex) -> &'a Change {
        &self.plan.changes[index.place()]
    }

    fn run_waves(&mut self) -> Result<(), Failure> {
        let mut waves: Vec<Vec<ChangeIndex>> = vec![Vec::new(); self.plan.waves.len()];
        for (place, change) in self.plan.changes.iter().enumerate() {
            waves[change.wave].push(ChangeIndex::new(place));
        }
        let sizes = self.plan.sizes();
        let count = waves.len();
        for (place, changes) in waves.into_iter().enumerate() {
            // After a stop there are no further waves: their changes are only counted.
            if self.outcome.halted.is_none() && self.control != Control::Stop {
                let of = (place + 1, count);
                self.emit(&Event::Wave { name: &self.plan.waves[place], of, changes: sizes[place] });
            }
            let failed_before = self.outcome.failed;
            let size = sizes[place];
            self.run_wave(WaveIndex::new(place), changes)?;
            let is_last = place + 1 == count;
            if !is_last && self.outcome.halted.is_none() && self.control != Control::Stop {
                self.check_wave(WaveIndex::new(place), size, failed_before)?;
            }
        }
        Ok(())
    }

    /// Applies the changes of a wave, in the order in which they need each other.
    fn run_wave(&mut self, wave: WaveIndex, changes: Vec<ChangeIndex>) -> Result<(), Failure> {
        self.uploaded.clear();
        let mut releasing: Vec<ChangeIndex> = Vec::new();
        if !self.acquired.is_empty() {
            let releases = |index: &ChangeIndex| {
                self.change(*index).steps.iter().any(|step| self.released_for(*index, step) == Some(wave))
            };
            releasing.extend((0..self.plan.changes.len()).map(ChangeIndex::new).filter(releases));
        }
        if self.outcome.halted.is_none() && self.control != Control::Stop {
            self.list_strangers(&[&changes[..], &releasing[..]].concat())?;
        }
        self.run_changes(releasing, Phase::Release(wave))?;
        // The code of an upload may need what a migration makes.
        self.migrate_before(wave)?;
        let (deletions, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|index| self.change(*index).action == Action::Delete);
        let last = others.iter().map(|index| self.change(*index).rank).max().unwrap_or(0);
        for rank in 0..=last {
            let plan = self.plan;
            let ranked = |is_next: &dyn Fn(&Change) -> bool| -> Vec<ChangeIndex> {
                others.iter().copied().filter(|index| is_next(&plan.changes[index.place()])).collect()
            };
            let of = |phase| match phase {
                Phase::Create => ranked(&|change| change.cycle.is_some_and(|cycle| cycle.create == Some(rank))),
                Phase::Cycle => ranked(&|change| change.cycle.is_some_and(|cycle| cycle.upload == rank)),
                _ => ranked(&|change| change.rank == rank),
            };
            for phase in [Phase::Create, Phase::Cycle, Phase::Apply] {
                self.run_changes(of(phase), phase)?;
            }
        }
        // A host points to its new worker once that exists, and is moved before its old one is deleted.
        self.write_hosts(wave)?;
        let late: Vec<ChangeIndex> = others.into_iter().filter(|index| self.has_late_steps(*index)).collect();
        let givers: Vec<ChangeIndex> = late.iter().copied().filter(|index| self.gives(*index)).collect();
        let revealing =
            deletions.iter().copied().filter(|index| self.transfers.of_giver(index.place()).next().is_some());
        let ordered: Vec<ChangeIndex> = late.iter().copied().chain(revealing).collect();
        for groups in self.in_order_of_moves(&ordered) {
            let (single, circles): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.len() == 1);
            self.run_parts(single.concat())?;
            for parts in circles {
                let gains = parts.into_iter().map(|part| match part {
                    Part::Gain(place) => ChangeIndex::new(place),
                    Part::Release(_) => unreachable!("BUG: no plan has a circle in which hosts change their kind"),
                });
                self.swap_hosts(&gains.collect::<Vec<_>>())?;
            }
        }
        // Those that gave hosts away end when it is known whether they were taken.
        for giver in givers {
            if self.schedule.is_waiting(giver) {
                self.run_changes(vec![giver], Phase::HandOver)?;
            }
        }
        self.run_changes(deletions, Phase::Apply)?;
        self.migrate_after(wave)
    }

    /// Runs parts of changes that don't need each other.
    fn run_parts(&mut self, parts: Vec<Part>) -> Result<(), Failure> {
        let (mut taking, mut releasing, mut deletions) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            let (Part::Gain(place) | Part::Release(place)) = part;
            let index = ChangeIndex::new(place);
            match (part, self.change(index).action) {
                (Part::Gain(_), _) if !self.is_taking(index) => {}
                (Part::Gain(_), _) => taking.push(index),
                (Part::Release(_), Action::Delete) => deletions.push(index),
                (Part::Release(_), _) => releasing.push(index),
            }
        }
        self.run_changes(taking, Phase::Take)?;
        self.run_changes(releasing, Phase::HandOver)?;
        self.run_changes(deletions, Phase::Apply)
    }

    /// Halts if too much of a wave failed or is unhealthy.
    fn check_wave(&mut self, wave: WaveIndex, size: usize, failed_before: usize) -> Result<(), Failure> {
        if let Some(deadline) = self.ctx.budget.health {
            self.check_health(deadline)?;
        }
        let failed = self.outcome.failed - failed_before + self.outcome.unhealthy;
        let allowed = (size as f64 * self.ctx.budget.percent / 100.0).floor() as usize;
        if failed > allowed && self.outcome.halted.is_none() {
            self.outcome.breached = Some(wave.place());
            let name = &self.plan.waves[wave.place()];
            self.halt(format!("{failed} of the {size} changes of the wave `{name}` failed or are unhealthy"));
        }
        Ok(())
    }

    /// Begins nothing more from now on.
    pub(super) fn halt(&mut self, why: String) {
        self.emit(&Event::Halted(&why));
        self.outcome.halted = Some(why);
    }

    /// Returns the wave for which a step releases a host that a change in another account acquires.
    fn released_for(&self, index: ChangeIndex, step: &Step) -> Option<WaveIndex> {
        let host = Host::released_by(step)?;
        let account_id = &self.change(index).home.account_id;
        let elsewhere = |other: &&ChangeIndex| {
            let change = self.change(**other);
            change.home.account_id != *account_id
                && change.steps.iter().any(|step| Host::acquired_by(step).as_ref() == Some(&host))
        };
        let other = self.acquired.get(host.name())?.iter().find(elsewhere)?;
        Some(WaveIndex::new(self.change(*other).wave))
    }

    /// Returns whether a step waits until the other changes of its wave are done.
    pub(super) fn is_late(&self, index: ChangeIndex, step: &Step) -> bool {
        let change = self.change(index);
        if change.action == Action::Delete || self.released_for(index, step).is_some() {
            return false;
        }
        let gets_hosts = || self.is_taking(index) || self.transfers.revealers(index.place()).next().is_some();
        let Some(host) = Host::released_by(step) else {
            // Without its domain on workers.dev, it has no host before the others come.
            let is_last_host = matches!(step, Step::SetWorkersDev { on: false, .. }) && gets_hosts();
            return self.transfers.is_taking(index.place(), step) || is_last_host;
        };
        let others = |all: &Vec<ChangeIndex>| all.iter().any(|other| *other != index);
        self.acquired.get(host.name()).is_some_and(others)
            || self.transfers.of_giver(index.place()).any(|transfer| transfer.from == host)
            || gets_hosts()
    }

    /// Returns whether a change takes hosts from other workers.
    fn is_taking(&self, index: ChangeIndex) -> bool {
        self.change(index).steps.iter().any(|step| self.transfers.is_taking(index.place(), step))
    }

    /// Returns whether a change has steps that wait until the others are done, or waits until its hosts were taken.
    pub(super) fn has_late_steps(&self, index: ChangeIndex) -> bool {
        let change = self.change(index);
        (!self.change_of.is_empty() || !self.acquired.is_empty() || !self.transfers.all().is_empty())
            && (change.steps.iter().any(|step| self.is_late(index, step)) || self.gives(index))
    }

    /// Returns whether a change ends only when its hosts were taken.
    pub(super) fn gives(&self, index: ChangeIndex) -> bool {
        self.takers.contains_key(&index) && self.change(index).action != Action::Delete
    }

    /// Returns the changes whose workers give hosts away, with those that take them and the hosts.
    fn find_takers(&self) -> HashMap<ChangeIndex, Vec<(ChangeIndex, String)>> {
        let mut takers: HashMap<ChangeIndex, Vec<(ChangeIndex, String)>> = HashMap::new();
        for (place, change) in self.plan.changes.iter().enumerate().filter(|_| !self.change_of.is_empty()) {
            for step in &change.steps {
                let (Step::MoveDomain { from, domain: host } | Step::MoveRoute { from, pattern: host, .. }) = step
                else {
                    continue;
                };
                for from in from {
                    if let Some(giver) = self.change_of.get(&(change.home.clone(), from.clone())) {
                        takers.entry(*giver).or_default().push((ChangeIndex::new(place), host.clone()));
                    }
                }
            }
        }
        takers
    }

    /// Returns a host that was to move away from the worker of a change and didn't.
    pub(super) fn unmoved_host_of(&self, giver: ChangeIndex) -> Option<String> {
        self.takers.get(&giver)?.first().map(|(_, host)| host.clone())
    }

    /// Returns whether a step belongs to the present phase.
    pub(super) fn is_of_phase(&self, index: ChangeIndex, place: StepIndex) -> bool {
        let change = self.change(index);
        let step = &change.steps[place.place()];
        match self.phase {
            Phase::Release(wave) => self.released_for(index, step) == Some(wave),
            Phase::Create => place.place() < change.steps_to_create(),
            Phase::Cycle => place.place() < change.steps_of_cycle(),
            Phase::Apply => place.place() >= change.steps_of_cycle() && !self.is_late(index, step),
            Phase::Swap => is_move(step),
            Phase::Take => self.transfers.is_taking(index.place(), step),
            Phase::HandOver => self.is_late(index, step),
        }
    }

    /// Returns parts of changes in the order in which hosts change hands: a worker gets its new hosts before it gives an old one away. The
    /// gains of workers that swap hosts are in one group.
    fn in_order_of_moves(&self, changes: &[ChangeIndex]) -> Vec<Vec<Vec<Part>>> {
        let of_change = |index: &ChangeIndex| [Part::Gain(index.place()), Part::Release(index.place())];
        let parts: Vec<Part> = changes.iter().flat_map(of_change).collect();
        let number_of: HashMap<Part, usize> = parts.iter().enumerate().map(|(number, part)| (*part, number)).collect();
        let needs = |part: &Part| -> Vec<usize> {
            let mut needs = self.transfers.needs(*part);
            if let Part::Release(place) = part {
                let hosts = self.plan.changes[*place].steps.iter().filter_map(Host::released_by);
                let others = hosts.filter_map(|host| self.acquired.get(host.name())).flatten();
                needs.extend(others.map(|other| Part::Gain(other.place())));
            }
            needs.iter().filter_map(|other| number_of.get(other).copied()).collect()
        };
        let needs: Vec<Vec<usize>> = parts.iter().map(needs).collect();
        let of_group = |group: Vec<usize>| group.into_iter().map(|number| parts[number]).collect();
        levels(&needs).into_iter().map(|groups| groups.into_iter().map(of_group).collect()).collect()
    }

    /// Runs the steps of these changes that belong to a phase.
    pub(super) fn run_changes(&mut self, changes: Vec<ChangeIndex>, phase: Phase) -> Result<(), Failure> {
        for change in changes {
            self.schedule.queue(change);
        }
        self.run_phase(phase)
    }

    /// Runs until nothing that was queued is open any more.
    pub(super) fn run_phase(&mut self, phase: Phase) -> Result<(), Failure> {
        self.phase = phase;
        loop {
            self.poll_control();
            let now = self.ctx.clock.now();
            self.schedule.wake(Some(now).filter(|_| !self.is_stopped()));
            self.dispatch()?;
            if self.schedule.is_idle() {
                return Ok(());
            }
            assert!(self.schedule.can_progress(), "BUG: the deploy waits for something that nobody does");
            let answers = self.ctx.pool.wait(self.next_wakeup());
            if !answers.is_empty() {
                self.on_answers(answers)?;
            }
        }
    }

    /// Returns whether nothing more is sent. Moves that belong together are not torn apart.
    fn is_stopped(&self) -> bool {
        self.control == Control::Stop && !self.has_circle_begun()
    }

    /// Returns whether no change or host is begun any more.
    pub(super) fn is_halted_or_stopped(&self) -> bool {
        self.outcome.halted.is_some() || self.is_stopped()
    }

    /// Reports an event.
    pub(super) fn emit(&mut self, event: &Event<'_>) {
        (self.ctx.on_event)(event);
    }

    /// Polls a few times a second whether to continue, pause or stop.
    pub(super) fn poll_control(&mut self) {
        let now = self.ctx.clock.now();
        if self.control == Control::Stop || self.control_polled.is_some_and(|polled| now < polled + CONTROL_INTERVAL) {
            return;
        }
        self.control_polled = Some(now);
        if now >= self.progress_emitted + PROGRESS_INTERVAL {
            self.progress_emitted = now;
            self.emit_progress();
        }
        let control = (self.ctx.control)();
        if (control == Control::Pause) != (self.control == Control::Pause) && control != Control::Stop {
            self.emit(&Event::Paused(control == Control::Pause));
        }
        self.control = control;
    }

    /// Reports how far each lane is.
    fn emit_progress(&mut self) {
        let progress = |lane: &LaneQueue| LaneProgress {
            account: lane.account.clone(),
            done: lane.done,
            left: lane.left,
            seconds_left: lane.time_left().as_secs_f64(),
        };
        let lanes: Vec<LaneProgress> =
            self.schedule.lanes().iter().filter(|lane| lane.left > 0).map(progress).collect();
        let left = lanes.iter().map(|lane| lane.seconds_left).fold(0.0, f64::max);
        self.emit(&Event::Progress { left: Duration::from_secs_f64(left), lanes: &lanes });
    }

    /// Returns when the loop has something to do again if nothing is answered before.
    fn next_wakeup(&self) -> Duration {
        let now = self.ctx.clock.now();
        let is_full = self.schedule.in_flight() >= self.ctx.pool.size();
        let waits = |lane: &&LaneQueue| !is_full && lane.not_before > now && self.has_work(lane);
        let lanes = self.schedule.lanes().iter().filter(waits).map(|lane| lane.not_before);
        lanes.chain(self.schedule.next_retry()).fold(now + CONTROL_INTERVAL, Duration::min)
    }

    /// Returns whether a lane has something that may be sent now.
    fn has_work(&self, lane: &LaneQueue) -> bool {
        !lane.ready.is_empty() || !lane.fresh.is_empty() && (self.control != Control::Pause || self.has_circle_begun())
    }

    /// Sends as many requests as there are permits for. What is noted before they are sent is written as one.
    fn dispatch(&mut self) -> Result<(), Failure> {
        let mut requests = Vec::new();
        for place in 0..self.schedule.lanes().len() {
            while let Some(request) = self.next_request(LaneId::new(place))? {
                requests.push(request);
            }
        }
        if std::mem::take(&mut self.noting) {
            self.ctx.state.close_batch()?;
        }
        for (id, permit) in requests {
            self.send(id, permit)?;
        }
        self.report_concluded();
        Ok(())
    }

    /// Takes a lane's next request, if the lane allows one now.
    fn next_request(&mut self, id: LaneId) -> Result<Option<(RequestId, Permit)>, Failure> {
        loop {
            self.skip_obsolete(id)?;
            let Some(permit) = self.acquire(id) else { return Ok(None) };
            let lane = self.schedule.lane(id);
            let next = match lane.ready.pop_front() {
                Some(next) => Some(next),
                None => match lane.fresh.pop_front() {
                    Some(next) => self.begin(next)?.then_some(next),
                    None => None,
                },
            };
            match next {
                Some(next) => return Ok(Some((next, permit))),
                None => self.return_permit(permit),
            }
        }
    }

    /// Opens the batch in which what begins is noted.
    pub(super) fn open_notes(&mut self) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.noting, true) {
            self.ctx.state.open_batch()?;
        }
        Ok(())
    }

    /// Returns a permit of a lane that has something to send, if its limit allows.
    fn acquire(&mut self, id: LaneId) -> Option<Permit> {
        let now = self.ctx.clock.now();
        let lane = &self.schedule.lanes()[id.place()];
        if !self.has_work(lane)
            || now < lane.not_before
            || lane.in_flight >= lane.lane.in_flight_bound().min(lane.concurrency_window)
            || self.schedule.in_flight() >= self.ctx.pool.size()
        {
            return None;
        }
        match lane.lane.try_acquire() {
            Ok(ticket) => Some(self.schedule.reserve(id, ticket, now)),
            Err(wait) => {
                self.schedule.lane(id).not_before = now + wait;
                if wait >= Duration::from_secs(1) {
                    self.emit_waiting(id, wait);
                }
                None
            }
        }
    }

    /// Reports that an account's limit is reached.
    fn emit_waiting(&mut self, id: LaneId, wait: Duration) {
        let lane = &self.schedule.lanes()[id.place()];
        let account = match lane.ready.front().or(lane.fresh.front()) {
            Some(RequestId::Change(change)) => self.change(*change).account.clone(),
            _ => lane.account.clone(),
        };
        self.emit(&Event::Waiting(&account, wait));
    }

    /// Returns a permit without a request.
    pub(super) fn return_permit(&mut self, permit: Permit) {
        let lane = permit.lane;
        let ticket = self.schedule.give_back(permit);
        self.schedule.lane(lane).lane.unused(ticket);
    }

    /// Skips what doesn't continue, as it comes to the front of its queue: everything after a stop, changes to begin
    /// after a halt, and the changes of an unauthorized token.
    fn skip_obsolete(&mut self, id: LaneId) -> Result<(), Failure> {
        let is_whole = !self.is_circle_broken();
        if !self.is_stopped() && self.outcome.halted.is_none() && self.unauthorized.is_empty() && is_whole {
            return Ok(());
        }
        while let Some(front) = self.schedule.lane(id).ready.front().copied() {
            if !self.is_obsolete(front, false) {
                break;
            }
            self.schedule.lane(id).ready.pop_front();
            self.cancel(front)?;
        }
        while let Some(front) = self.schedule.lane(id).fresh.front().copied() {
            if !self.is_obsolete(front, true) {
                break;
            }
            self.schedule.lane(id).fresh.pop_front();
            self.cancel(front)?;
        }
        Ok(())
    }

    fn is_obsolete(&mut self, id: RequestId, is_fresh: bool) -> bool {
        let account_id = match id {
            RequestId::Change(change) => self.change(change).home.account_id.clone(),
            RequestId::Lookup(id) => self.schedule.lookup(id).account_id.clone(),
            RequestId::Database(id) => self.plan.databases[id.place()].home.account_id.clone(),
            RequestId::HostWrite(_) | RequestId::HealthCheck(_) => return self.is_stopped(),
            RequestId::PutBack(_) => return false,
        };
        if let RequestId::Change(change) = id {
            if self.broken.contains_key(&change) {
                return false;
            }
            if self.phase == Phase::Swap && self.is_circle_broken() {
                return true;
            }
        }
        let is_halted = self.outcome.halted.is_some() && matches!(id, RequestId::Change(_) | RequestId::Database(_));
        self.is_stopped() || is_fresh && is_halted || self.unauthorized.contains(&account_id)
    }

    fn cancel(&mut self, id: RequestId) -> Result<(), Failure> {
        match id {
            RequestId::Change(change) => match self.swap_blocked_by(change).filter(|_| !self.is_stopped()) {
                Some(why) => self.fail(change, why)?,
                None => self.skip(change)?,
            },
            RequestId::Lookup(id) => self.schedule.end_lookup(id, RequestState::Cancelled),
            RequestId::Database(id) => self.cancel_database(id)?,
            RequestId::HostWrite(id) => self.cancel_host_write(id),
            RequestId::PutBack(_) | RequestId::HealthCheck(_) => unreachable!("BUG: it is never cancelled"),
        }
        Ok(())
    }

    /// Hands a request to the pool. A change that needs a zone's id first waits for it instead.
    fn send(&mut self, id: RequestId, permit: Permit) -> Result<(), Failure> {
        match id {
            RequestId::Change(change) => self.send_change(change, permit)?,
            RequestId::Lookup(id) => self.send_lookup(id, permit),
            RequestId::Database(database) => {
                let task = self.schedule.database(database);
                let job = Job::Call(task.change.home.clone(), task.call());
                self.submit(id, permit, job);
            }
            RequestId::HostWrite(write) => {
                let HostWrite { table, .. } = self.schedule.host_write(write);
                let account_id = table.account_id.clone();
                let call = self.schedule.host_write(write).call();
                self.submit(id, permit, Job::of_account(account_id, call));
            }
            RequestId::PutBack(put_back) => {
                let back = self.schedule.put_back_of(put_back);
                let job = Job::Call(back.home().clone(), back.call.clone());
                self.submit(id, permit, job);
            }
            RequestId::HealthCheck(_) => unreachable!("BUG: a health check needs no permit"),
        }
        Ok(())
    }

    fn send_change(&mut self, index: ChangeIndex, permit: Permit) -> Result<(), Failure> {
        let change = self.change(index);
        let account_id = &change.home.account_id;
        let mut next = self.next_of(index);
        if let Next::Zone(name) = &next {
            // An earlier deploy can have found it out.
            if let Some(id) = self.ctx.state.cached_id(account_id, ResourceKind::Zone, name)? {
                self.ids.insert(account_id, ResourceKind::Zone, name, id);
                next = self.next_of(index);
            }
        }
        let job = match next {
            Next::Upload => {
                let task = self.schedule.task(index);
                let (migrations, token) = (task.migrations.clone(), task.assets_token.clone());
                let without = match task.step(change) {
                    Step::CreateFirst { without } => Some(without.clone()),
                    _ => None,
                };
                Job::Upload(Box::new(change.clone()), self.ids_of(change), Extras { migrations, token, without })
            }
            Next::AssetSession => Job::AssetSession(Box::new(change.clone())),
            Next::Assets(token, files) => Job::Assets(Box::new(change.clone()), token, files),
            Next::Call(call) => {
                self.note_sent_move(index, &call);
                Job::Call(change.home.clone(), call)
            }
            Next::Zone(name) => return self.wait_for_zone(index, &name, permit),
            Next::Done => unreachable!("BUG: a step that is done isn't sent"),
        };
        self.submit(RequestId::Change(index), permit, job);
        Ok(())
    }

    pub(super) fn send_lookup(&mut self, id: LookupId, permit: Permit) {
        let strangers = self.ctx.ownership.as_ref().map(Ownership::strangers);
        let lookup = self.schedule.lookup(id);
        let job = Job::Call(lookup.home(), lookup.call(strangers));
        self.submit(RequestId::Lookup(id), permit, job);
    }

    fn submit(&mut self, id: RequestId, permit: Permit, job: Job) {
        let permit = Permit { sent_at: self.ctx.clock.now(), ..permit };
        self.outcome.requests += 1;
        self.schedule.sent(id, permit);
        self.ctx.pool.submit(id, job);
    }

    /// The ids that a change's upload needs, as far as they are known.
    fn ids_of(&self, change: &Change) -> Ids {
        let id = |(resource, name): &(Resource, String)| {
            let id = self.ids.get(&change.home.account_id, ResourceKind::of(*resource), name)?;
            Some((*resource, name.clone(), id.clone()))
        };
        change.needs.iter().filter_map(id).collect()
    }

    /// Returns what comes next in a change that has begun.
    fn next_of(&mut self, index: ChangeIndex) -> Next {
        let change = self.change(index);
        let ids = &self.ids;
        let zone = |name: &str| {
            let of_spec = change.zone_ids.get(name);
            of_spec.or_else(|| ids.get(&change.home.account_id, ResourceKind::Zone, name)).cloned()
        };
        self.schedule.task(index).next(change, self.ctx.ownership.as_ref(), zone)
    }
}
