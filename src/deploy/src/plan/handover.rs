//! Hosts that move from one worker to another: which worker of the state has what a change attaches, whether it may be moved, and in which
//! wave. Pure.
//!
//! A domain or a route is moved by one request, so that it points to the old or the new worker at every moment. A worker that isn't part
//! of the plan isn't changed: what would take a host from it is skipped, before anything is sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::transfers::{Moment, Transfers};
use super::{Action, Change, Held, Step};
use crate::state::{Deployed, InFlight, Uncertainty, WorkerId};
use flotilla_model::reason::Reason;

/// A domain or a route of an account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A custom domain.
    Domain(String),
    /// A route, by its pattern.
    Route(String),
}

impl Host {
    /// Returns the domain or the pattern.
    pub(crate) fn text(&self) -> &str {
        match self {
            Host::Domain(text) | Host::Route(text) => text,
        }
    }

    /// Returns the host that a step attaches or moves.
    pub(crate) fn acquired_by(step: &Step) -> Option<Host> {
        match step {
            Step::AttachDomain { domain } | Step::MoveDomain { domain, .. } | Step::TakeDomain { domain, .. } => {
                Some(Host::Domain(domain.clone()))
            }
            Step::AddRoute { pattern, .. } | Step::MoveRoute { pattern, .. } => Some(Host::Route(pattern.clone())),
            _ => None,
        }
    }

    /// Returns the host that a step detaches or removes.
    pub(crate) fn released_by(step: &Step) -> Option<Host> {
        match step {
            Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => Some(Host::Domain(domain.clone())),
            Step::RemoveRoute { pattern, .. } | Step::DropRoute { pattern, .. } => Some(Host::Route(pattern.clone())),
            _ => None,
        }
    }

    /// Returns the name of the host itself: a domain and a route can be of the same one.
    pub fn name(&self) -> &str {
        self.text().split('/').next().unwrap_or_default()
    }
}

/// Whether a plan may move hosts away from a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Giver {
    /// It may: the worker is planned, or no spec defines it any more.
    Free,
    /// The worker is skipped by this plan.
    Held,
    /// The worker is left out by what was selected.
    NotSelected,
}

/// A worker of the state that has a host which a change of the plan attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The worker.
    pub id: WorkerId,
    /// Its customer.
    pub customer: String,
    /// Whether hosts may be moved away from it.
    pub giver: Giver,
}

/// The hosts that changes attach, to find who has them, or a host that overlaps them.
#[derive(Clone, Debug, Default)]
pub struct Acquired {
    hosts: HashSet<(String, Host)>,
    /// The domains, by account and name.
    domains: BTreeMap<String, BTreeSet<String>>,
    /// The hosts of routes, by account: each with the routes that have it.
    routes: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Acquired {
    /// Collects the hosts that changes attach.
    pub(super) fn of(changes: &[Change]) -> Acquired {
        let mut acquired = Acquired::default();
        for change in changes {
            for host in change.steps.iter().filter_map(Host::acquired_by) {
                let account_id = change.home.account_id.clone();
                match &host {
                    Host::Domain(domain) => {
                        acquired.domains.entry(account_id.clone()).or_default().insert(domain.clone());
                    }
                    Host::Route(pattern) => {
                        let routes = acquired.routes.entry(account_id.clone()).or_default();
                        routes.entry(host.name().to_owned()).or_default().insert(pattern.clone());
                    }
                }
                acquired.hosts.insert((account_id, host));
            }
        }
        acquired
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Returns whether a host of an account is among them.
    pub fn contains(&self, account_id: &str, host: &Host) -> bool {
        self.hosts.contains(&(account_id.to_owned(), host.clone()))
    }

    /// Returns those that a host of the other kind overlaps: a route takes the requests of the domains that it covers.
    pub fn overlapping(&self, account_id: &str, host: &Host) -> Vec<Host> {
        match host {
            Host::Domain(domain) => {
                let Some(routes) = self.routes.get(account_id) else { return Vec::new() };
                let wild = routes.range("*".to_owned()..).take_while(|(name, _)| name.starts_with('*'));
                let exact = routes.get_key_value(domain).into_iter();
                let covering = exact.chain(wild).filter(|(name, _)| covers(name, domain));
                covering.flat_map(|(_, patterns)| patterns.iter().cloned().map(Host::Route)).collect()
            }
            Host::Route(_) => {
                let (Some(domains), name) = (self.domains.get(account_id), host.name()) else { return Vec::new() };
                match name.starts_with('*') {
                    true => domains.iter().filter(|domain| covers(name, domain)).cloned().map(Host::Domain).collect(),
                    false => domains.get(name).cloned().map(Host::Domain).into_iter().collect(),
                }
            }
        }
    }
}

/// Returns whether the host of a route covers a domain.
pub(super) fn covers(name: &str, domain: &str) -> bool {
    match name.strip_prefix('*') {
        Some(suffix) => domain.ends_with(suffix),
        None => name == domain,
    }
}

/// The workers that have or may have hosts, by account and host.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    same: BTreeMap<(String, Host), Vec<Holder>>,
    /// By account and attached host: hosts of the other kind that overlap it, and that the worker is no longer to have.
    overlapping: BTreeMap<(String, Host), Vec<(Host, Holder)>>,
}

impl Holders {
    /// Adds a worker that has a host, or may have it (`is_sure`).
    pub fn add(&mut self, host: Host, holder: Holder, is_sure: bool) {
        let holders = self.same.entry((holder.id.0.account_id.clone(), host)).or_default();
        match is_sure {
            true => holders.insert(0, holder),
            false => holders.push(holder),
        }
    }

    /// Adds a worker that has a host which overlaps one that is attached, and is no longer to have it.
    pub fn add_overlapping(&mut self, attached: Host, host: Host, holder: Holder) {
        let key = (holder.id.0.account_id.clone(), attached);
        self.overlapping.entry(key).or_default().push((host, holder));
    }

    /// Returns the workers whose hosts overlap what a step of a change attaches.
    fn overlapping(&self, change: &Change, step: &Step) -> impl Iterator<Item = &(Host, Holder)> {
        let host = Host::acquired_by(step).map(|host| (change.home.account_id.clone(), host));
        let holders = host.and_then(|host| self.overlapping.get(&host)).into_iter().flatten();
        holders.filter(|(_, holder)| holder.id != change.id())
    }

    /// Returns the workers that a change takes a host from with a step, the likeliest first.
    fn givers(&self, change: &Change, step: &Step) -> Vec<&Holder> {
        let host = Host::acquired_by(step).map(|host| (change.home.account_id.clone(), host));
        let holders = host.and_then(|host| self.same.get(&host)).into_iter().flatten();
        holders.filter(|holder| holder.id != change.id()).collect()
    }
}

/// The hosts of which interrupted changes leave uncertain whether another worker has them.
#[derive(Clone, Debug, Default)]
pub struct Contested(HashMap<(String, Host), Vec<(WorkerId, Uncertainty)>>);

impl Contested {
    /// Collects them from all interrupted changes.
    pub fn of<'a>(all: impl IntoIterator<Item = (&'a WorkerId, &'a InFlight)>) -> Contested {
        let mut contested = Contested::default();
        for (id, in_flight) in all {
            for uncertainty in &in_flight.uncertainties {
                if let Some(host) = uncertain_host(uncertainty) {
                    let key = (id.0.account_id.clone(), host);
                    contested.0.entry(key).or_default().push((id.clone(), uncertainty.clone()));
                }
            }
        }
        contested
    }

    /// Returns which hosts of a worker another one may have by now.
    pub fn of_worker(&self, id: &WorkerId, live: &Deployed) -> Vec<Uncertainty> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let hosts = hosts_of(Some(live), None).into_iter();
        let others = hosts.filter_map(|host| self.0.get(&(id.0.account_id.clone(), host)));
        others.filter_map(|all| Some(all.iter().find(|(other, _)| other != id)?.1.clone())).collect()
    }
}

fn uncertain_host(uncertainty: &Uncertainty) -> Option<Host> {
    match uncertainty {
        Uncertainty::Domain(domain) => Some(Host::Domain(domain.clone())),
        Uncertainty::Route { pattern, .. } => Some(Host::Route(pattern.clone())),
        _ => None,
    }
}

/// Returns the hosts that a worker of the state has or may have.
pub fn hosts_of(live: Option<&Deployed>, in_flight: Option<&InFlight>) -> BTreeSet<Host> {
    let mut hosts = BTreeSet::new();
    if let Some(live) = live {
        hosts.extend(live.live.domains.keys().cloned().map(Host::Domain));
        hosts.extend(live.live.routes.keys().cloned().map(Host::Route));
    }
    let uncertainties = in_flight.iter().flat_map(|in_flight| &in_flight.uncertainties);
    hosts.extend(uncertainties.filter_map(uncertain_host));
    hosts
}

/// Plans the moves: replaces what attaches a host that another worker has, and what detaches it there. Returns the changes that are skipped,
/// because the other worker isn't part of the plan.
pub(super) fn hand_over(changes: &mut Vec<Change>, holders: &Holders) -> Vec<Held> {
    let mut held = Vec::new();
    let mut skipped: HashSet<WorkerId> = HashSet::new();
    loop {
        let before = held.len();
        changes.retain(|change| {
            let giver = |holder: &Holder| if skipped.contains(&holder.id) { Giver::Held } else { holder.giver.clone() };
            let refused = change.steps.iter().find_map(|step| {
                let host = Host::acquired_by(step)?;
                let mut same = holders.givers(change, step).into_iter();
                let refused = same.find_map(|holder| refusal(host.text(), holder, &giver(holder)));
                refused.or_else(|| {
                    holders.overlapping(change, step).find_map(|(other, holder)| {
                        let refused = refusal(other.text(), holder, &giver(holder))?;
                        Some(format!("{} overlaps {}, and {refused}", host.text(), other.text()))
                    })
                })
            });
            let Some(reason) = refused else { return true };
            skipped.insert(change.id());
            held.push(Held::refused(change, reason));
            false
        });
        if held.len() > before {
            continue;
        }
        let transfers = Transfers::of(changes, |change, step| {
            holders.givers(change, step).into_iter().map(|holder| holder.id.clone()).collect()
        });
        let refused = circle_refusals(changes, &transfers);
        if refused.is_empty() {
            break;
        }
        let mut place = 0;
        changes.retain(|change| {
            let reason = refused.get(&place);
            place += 1;
            let Some(reason) = reason else { return true };
            skipped.insert(change.id());
            held.push(Held::refused(change, reason.clone()));
            false
        });
    }
    let planned: HashSet<WorkerId> = changes.iter().map(Change::id).collect();
    let mut moved: HashMap<WorkerId, BTreeSet<Host>> = HashMap::new();
    for change in changes.iter_mut() {
        let mut reasons = Vec::new();
        for at in 0..change.steps.len() {
            let givers = holders.givers(change, &change.steps[at]);
            let Some(first) = givers.first() else { continue };
            let mut from: Vec<String> = Vec::new();
            for giver in &givers {
                if !from.contains(&giver.id.1) {
                    from.push(giver.id.1.clone());
                }
            }
            let host = Host::acquired_by(&change.steps[at]).expect("BUG: it has a holder");
            // A worker that is planned has its own line.
            if !planned.contains(&first.id) {
                let old = first.id.1.clone();
                reasons.push(match &host {
                    Host::Domain(domain) => Reason::DomainTaken { domain: domain.clone(), old },
                    Host::Route(pattern) => Reason::RouteTaken { pattern: pattern.clone(), old },
                });
            }
            for giver in givers {
                moved.entry(giver.id.clone()).or_default().insert(host.clone());
            }
            change.steps[at] = match &change.steps[at] {
                Step::AddRoute { pattern, zone } => {
                    Step::MoveRoute { pattern: pattern.clone(), zone: zone.clone(), from }
                }
                Step::AttachDomain { domain } => Step::MoveDomain { domain: domain.clone(), from },
                other => other.clone(),
            };
        }
        change.reasons.extend(reasons);
    }
    for change in changes.iter_mut() {
        let Some(hosts) = moved.get(&change.id()) else { continue };
        // A host that isn't known to exist is still looked for: it may exist after the move failed.
        let goes = |step: &Step| match step {
            Step::DetachDomain { .. } | Step::RemoveRoute { .. } => {
                Host::released_by(step).is_some_and(|host| hosts.contains(&host))
            }
            _ => false,
        };
        change.steps.retain(|step| !goes(step));
    }
    held
}

/// Returns the changes of circles that can't be carried out, by place, with the reasons.
fn circle_refusals(changes: &[Change], transfers: &Transfers) -> HashMap<usize, String> {
    let mut refused = HashMap::new();
    for (mut members, transfer) in transfers.mixed_circles() {
        members.extend([transfer.taker, transfer.giver]);
        let (taker, giver) = (&changes[transfer.taker].worker, &changes[transfer.giver].worker);
        let mut workers: Vec<&str> = members.iter().map(|member| changes[*member].worker.as_str()).collect();
        workers.sort_unstable();
        let reason = format!(
            "the hosts of {} move in a cycle in which {} of {giver} becomes {} of {taker}: there, a host can't change its kind and its worker \
             at the same time; first change its kind on {giver} and deploy, then move it",
            workers.join(", "),
            described(&transfer.from),
            described(&transfer.host),
        );
        refused.extend(members.into_iter().map(|member| (member, reason.clone())));
    }
    refused
}

fn described(host: &Host) -> String {
    match host {
        Host::Domain(domain) => format!("the custom domain {domain}"),
        Host::Route(pattern) => format!("the route {pattern}"),
    }
}

fn refusal(host: &str, holder: &Holder, giver: &Giver) -> Option<String> {
    let Holder { id: (_, worker), customer, .. } = holder;
    match giver {
        Giver::Free => None,
        Giver::Held => Some(format!("{host} still belongs to {worker} ({customer}), which is skipped")),
        Giver::NotSelected => Some(format!(
            "{host} still belongs to {worker} ({customer}), which this run leaves out: deploy {customer} in the same run"
        )),
    }
}

/// Puts workers between which hosts move into one wave, the later one.
pub(super) fn same_waves(changes: &mut [Change]) {
    let mut by_host: HashMap<(String, String), Vec<usize>> = HashMap::new();
    let mut at_worker: HashMap<WorkerId, usize> = HashMap::new();
    let mut pairs = Vec::new();
    let lasting = |change: &Change| change.action != Action::Delete;
    for (index, change) in changes.iter().enumerate().filter(|(_, change)| lasting(change)) {
        at_worker.insert(change.id(), index);
        for host in change.steps.iter().filter_map(Host::acquired_by) {
            by_host.entry((change.home.account_id.clone(), host.name().to_owned())).or_default().push(index);
        }
    }
    for (index, change) in changes.iter().enumerate().filter(|(_, change)| lasting(change)) {
        for step in &change.steps {
            if let Step::MoveDomain { from, .. } | Step::MoveRoute { from, .. } = step {
                let givers = from.iter().filter_map(|from| at_worker.get(&(change.home.clone(), from.clone())));
                pairs.extend(givers.map(|giver| (index, *giver)));
            }
            if let Some(host) = Host::released_by(step) {
                let key = (change.home.account_id.clone(), host.name().to_owned());
                pairs.extend(by_host.get(&key).into_iter().flatten().map(|other| (index, *other)));
            }
        }
    }
    // A route that is removed gives its requests to a host behind it, also if its worker is deleted.
    for transfer in Transfers::of_plan(changes).all() {
        if transfer.moment == Moment::Reveal || lasting(&changes[transfer.giver]) {
            pairs.push((transfer.taker, transfer.giver));
        }
    }
    while let Some((one, other)) = pairs.iter().find(|(one, other)| changes[*one].wave != changes[*other].wave) {
        let wave = changes[*one].wave.max(changes[*other].wave);
        (changes[*one].wave, changes[*other].wave) = (wave, wave);
    }
}
