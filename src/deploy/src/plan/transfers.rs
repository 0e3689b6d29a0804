//! Hosts whose requests one change takes from the worker of another: by a move, or because a route takes the requests of a custom domain or
//! of a wider route. They determine the order in which hosts move, and the cycles that no order resolves. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::handover::{Host, covers};
use super::order::groups;
use super::{Change, Step};
use crate::state::WorkerId;

/// The step with which requests change from one worker to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The taker's step moves the host itself.
    Move,
    /// The taker's step adds a route, which takes the requests of what the giver removes afterwards.
    Override,
    /// The giver's step removes a route, behind which the taker's host is there already.
    Reveal,
}

/// Requests that change from the worker of one change to that of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// The place of the change whose worker gets them.
    pub taker: usize,
    /// The place of the change whose worker loses them.
    pub giver: usize,
    /// The host of the taker.
    pub host: Host,
    /// The host of the giver.
    pub from: Host,
    /// The step that it depends on.
    pub moment: Moment,
}

/// The parts of a change whose order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The steps that take hosts from other workers.
    Gain(usize),
    /// The steps that remove hosts, after all others.
    Release(usize),
}

/// The transfers between the changes of a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transfers {
    all: Vec<Transfer>,
    /// The transfers of each change that takes or gives.
    of_taker: HashMap<usize, Vec<usize>>,
    of_giver: HashMap<usize, Vec<usize>>,
}

impl Transfers {
    /// Finds the transfers between changes. `givers`: the workers that a step moves its host from.
    pub fn of(changes: &[Change], givers: impl Fn(&Change, &Step) -> Vec<WorkerId>) -> Transfers {
        let mut transfers = Transfers::default();
        let mut released: BTreeMap<(&str, String), Vec<(usize, Host)>> = BTreeMap::new();
        let mut wildcards: HashMap<&str, Vec<String>> = HashMap::new();
        for (place, change) in changes.iter().enumerate() {
            for host in change.steps.iter().filter_map(Host::released_by) {
                let (account_id, name) = (change.home.account_id.as_str(), host.name().to_owned());
                if name.starts_with('*') {
                    wildcards.entry(account_id).or_default().push(name.clone());
                }
                released.entry((account_id, name)).or_default().push((place, host));
            }
        }
        let mut place_of: Option<HashMap<WorkerId, usize>> = None;
        for (taker, change) in changes.iter().enumerate() {
            let account_id = change.home.account_id.as_str();
            for step in &change.steps {
                let Some(host) = Host::acquired_by(step) else { continue };
                for id in givers(change, step) {
                    let all = || changes.iter().enumerate().map(|(place, change)| (change.id(), place)).collect();
                    if let Some(giver) = place_of.get_or_insert_with(all).get(&id) {
                        let (host, from) = (host.clone(), host.clone());
                        transfers.add(Transfer { taker, giver: *giver, host, from, moment: Moment::Move });
                    }
                }
                if released.is_empty() {
                    continue;
                }
                let name = host.name();
                let mut names: BTreeSet<String> = BTreeSet::from([name.to_owned()]);
                let wide = wildcards.get(account_id).into_iter().flatten().filter(|wide| covers(wide, name));
                names.extend(wide.cloned());
                if name.starts_with('*') {
                    let of_account =
                        released.range((account_id, String::new())..).take_while(|((id, _), _)| *id == account_id);
                    names.extend(of_account.map(|((_, other), _)| other).filter(|other| covers(name, other)).cloned());
                }
                for (giver, from) in names.into_iter().filter_map(|name| released.get(&(account_id, name))).flatten() {
                    let moment = match () {
                        () if *giver == taker || *from == host => continue,
                        () if takes_over(&host, from) => Moment::Override,
                        () if takes_over(from, &host) => Moment::Reveal,
                        () => continue,
                    };
                    transfers.add(Transfer { taker, giver: *giver, host: host.clone(), from: from.clone(), moment });
                }
            }
        }
        transfers
    }

    /// Finds the transfers between the changes of a finished plan.
    pub fn of_plan(changes: &[Change]) -> Transfers {
        Transfers::of(changes, |change, step| match step {
            Step::MoveDomain { from, .. } | Step::MoveRoute { from, .. } => {
                from.iter().map(|worker| (change.home.clone(), worker.clone())).collect()
            }
            _ => Vec::new(),
        })
    }

    fn add(&mut self, transfer: Transfer) {
        if !self.of_taker(transfer.taker).any(|other| *other == transfer) {
            self.of_taker.entry(transfer.taker).or_default().push(self.all.len());
            self.of_giver.entry(transfer.giver).or_default().push(self.all.len());
            self.all.push(transfer);
        }
    }

    /// Returns all of them.
    pub fn all(&self) -> &[Transfer] {
        &self.all
    }

    /// Returns those in which a change takes.
    pub fn of_taker(&self, change: usize) -> impl Iterator<Item = &Transfer> {
        self.of_taker.get(&change).into_iter().flatten().map(|place| &self.all[*place])
    }

    /// Returns those in which a change gives.
    pub fn of_giver(&self, change: usize) -> impl Iterator<Item = &Transfer> {
        self.of_giver.get(&change).into_iter().flatten().map(|place| &self.all[*place])
    }

    /// Returns the changes that remove a route which hides a new host of a change.
    pub fn revealers(&self, change: usize) -> impl Iterator<Item = usize> {
        self.of_taker(change).filter(|transfer| transfer.moment == Moment::Reveal).map(|transfer| transfer.giver)
    }

    /// Returns whether a step of a change takes a host from another worker.
    pub fn is_taking(&self, change: usize, step: &Step) -> bool {
        match step {
            Step::MoveDomain { .. } | Step::MoveRoute { .. } => true,
            Step::AddRoute { pattern, .. } => self
                .of_taker(change)
                .any(|transfer| transfer.moment == Moment::Override && transfer.host == Host::Route(pattern.clone())),
            _ => false,
        }
    }

    /// Returns the parts that are done before a part, so that each worker has its new hosts before it loses one.
    pub fn needs(&self, part: Part) -> Vec<Part> {
        let mut needs = Vec::new();
        match part {
            Part::Gain(change) => {
                let takes = self.of_taker(change).filter(|transfer| transfer.moment != Moment::Reveal);
                for giver in takes.map(|transfer| transfer.giver) {
                    needs.push(Part::Gain(giver));
                    needs.extend(self.revealers(giver).map(Part::Release));
                }
            }
            Part::Release(change) => {
                needs.push(Part::Gain(change));
                needs.extend(self.revealers(change).map(Part::Release));
                needs.extend(self.of_giver(change).map(|transfer| Part::Gain(transfer.taker)));
            }
        }
        needs
    }

    /// Returns the cycles that no order of requests resolves, and that can't be undone, either: those in which a host is another kind of
    /// host afterwards. Each has the places of its changes, and one of the transfers.
    pub fn mixed_circles(&self) -> Vec<(BTreeSet<usize>, &Transfer)> {
        if self.all.iter().all(|transfer| transfer.moment == Moment::Move) {
            return Vec::new();
        }
        let places: BTreeSet<usize> = self.all.iter().flat_map(|transfer| [transfer.taker, transfer.giver]).collect();
        let parts: Vec<Part> = places.iter().flat_map(|place| [Part::Gain(*place), Part::Release(*place)]).collect();
        let number_of: HashMap<Part, usize> = parts.iter().enumerate().map(|(number, part)| (*part, number)).collect();
        let needs = |part: &Part| self.needs(*part).iter().map(|other| number_of[other]).collect();
        let needs: Vec<Vec<usize>> = parts.iter().map(needs).collect();
        let mut circles = Vec::new();
        for group in groups(&needs).into_iter().filter(|group| group.len() > 1) {
            let members: HashSet<Part> = group.iter().map(|number| parts[*number]).collect();
            // The transfers of which both ends belong to the circle.
            let inner = |transfer: &&Transfer| match transfer.moment {
                Moment::Move => false,
                Moment::Override => {
                    members.contains(&Part::Gain(transfer.taker)) && members.contains(&Part::Gain(transfer.giver))
                        || members.contains(&Part::Gain(transfer.taker))
                            && self.revealers(transfer.giver).any(|other| members.contains(&Part::Release(other)))
                }
                Moment::Reveal => members.contains(&Part::Release(transfer.giver)),
            };
            if let Some(transfer) = self.all.iter().find(inner) {
                let changes = members.iter().map(|part| match part {
                    Part::Gain(change) | Part::Release(change) => *change,
                });
                circles.push((changes.collect(), transfer));
            }
        }
        circles
    }
}

/// Returns whether a host gets the requests that another would get without it: a route comes before the custom domains that it covers, and
/// before the routes that are less specific.
fn takes_over(host: &Host, other: &Host) -> bool {
    let (Host::Route(pattern), name) = (host, host.name()) else { return false };
    let Host::Route(wide) = other else { return covers(name, other.name()) };
    if name == other.name() {
        let (path, wide) = (pattern.trim_end_matches('*'), wide.trim_end_matches('*'));
        return path.len() > wide.len() && path.starts_with(wide);
    }
    other.name().starts_with('*') && covers(other.name(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_takes_over_what_it_covers_and_what_is_less_specific() {
        let host = |text: &str| match text.contains('/') {
            true => Host::Route(text.to_owned()),
            false => Host::Domain(text.to_owned()),
        };
        for (one, other, is_over) in [
            ("shop.example.com/*", "shop.example.com", true),
            ("*.example.com/*", "shop.example.com", true),
            ("shop.example.com/api/*", "shop.example.com", true),
            ("shop.example.com", "shop.example.com/*", false),
            ("shop.example.com/*", "www.example.com", false),
            ("shop.example.com/*", "*.example.com/*", true),
            ("*.example.com/*", "shop.example.com/*", false),
            ("*.shop.example.com/*", "*.example.com/*", true),
            ("shop.example.com/api/*", "shop.example.com/*", true),
            ("shop.example.com/*", "shop.example.com/api/*", false),
            ("shop.example.com/api/*", "shop.example.com/web/*", false),
        ] {
            assert_eq!(takes_over(&host(one), &host(other)), is_over, "{one} over {other}");
        }
    }
}
