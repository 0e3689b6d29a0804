//! The changes that a deploy refuses to make: overwriting a worker that the fleet doesn't manage, taking a domain
//! from others, deleting many workers at once. Pure; `refresh` knows which lists that requires.

use std::collections::{BTreeMap, BTreeSet};

use crate::refresh::{Inventory, Scope};
use crate::state::WorkerId;
use flotilla_model::platform::{Home, ListedDomain};
use flotilla_model::tags;

/// The number of deletions at once that need no approval, unless fleet.yaml sets another: enough for the customers
/// that leave in a day, too few for an error that empties a folder.
pub const MAX_DELETIONS: usize = 10;
/// And the share of the deployed workers, in percent.
pub const MAX_DELETIONS_PERCENT: f64 = 10.0;

/// The parts of a plan that can affect others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// The workers that it creates.
    pub creates: BTreeSet<WorkerId>,
    /// The domains that it attaches, by account and host name.
    pub attaches: BTreeMap<(String, String), Attach>,
}

/// A domain that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The worker that gets it.
    pub worker: String,
    /// Whether the spec allows it to be taken from others.
    pub take_over: bool,
}

impl Intent {
    /// The lists that it takes to judge it: one for each home in which something is created, and two for each account
    /// that gets a domain. Nothing, if it does neither.
    pub fn scope(&self) -> Scope {
        let mut scope = Scope::default();
        scope.homes.extend(self.creates.iter().map(|(home, _)| home.clone()));
        for (account_id, _) in self.attaches.keys() {
            scope.domains.insert(account_id.clone());
            scope.homes.insert(Home { account_id: account_id.clone(), namespace: None });
        }
        scope
    }
}

/// The reason why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A worker that would be overwritten is not managed by this fleet.
    Unowned {
        /// The worker.
        worker: String,
        /// The fleet that claims it.
        fleet: Option<String>,
    },
    /// A domain points to a worker that the fleet doesn't manage.
    DomainHeld {
        /// The host name.
        domain: String,
        /// The worker that would get it.
        worker: String,
        /// The worker that has it.
        holder: String,
        /// Whether that worker exists.
        exists: bool,
    },
    /// A host of a dispatch namespace points to somebody else's worker.
    HostHeld {
        /// The host.
        host: String,
        /// The KV namespace, by its title.
        table: String,
        /// The worker that would get it.
        worker: String,
        /// The worker that it points to.
        holder: String,
        /// The fleet that claims that worker.
        fleet: Option<String>,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Unowned { worker, fleet: None } => {
                write!(
                    f,
                    "{worker} exists, but this fleet doesn't manage it; `--adopt {worker}` adopts and overwrites it"
                )
            }
            Refusal::Unowned { worker, fleet: Some(fleet) } => {
                write!(f, "{worker} belongs to the fleet {fleet}; `--adopt {worker}` adopts and overwrites it")
            }
            Refusal::DomainHeld { domain, worker, holder, exists } => write!(
                f,
                "{domain}, defined for {worker}, points to {holder}, which {}; `{{ name: {domain}, takeOver: true }}` under \
                 `domains` takes it over",
                if *exists { "this fleet doesn't manage" } else { "does not exist" }
            ),
            Refusal::HostHeld { host, table, worker, holder, fleet } => {
                let whose = match fleet {
                    Some(fleet) => format!("belongs to the fleet {fleet}"),
                    None => "is not managed by this fleet".to_owned(),
                };
                write!(
                    f,
                    "{host}, defined for {worker}, points to {holder} in {table}, which {whose}; `{{ name: {host}, takeOver: true }}` under \
                     `domains` takes it over"
                )
            }
        }
    }
}

/// A domain that is taken from another worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The worker that has it.
    pub holder: String,
}

/// The result of checking an intent against the lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The refusals, sorted.
    pub refusals: Vec<Refusal>,
    /// The domains that are taken from others, by account and host name.
    pub taken: BTreeMap<(String, String), Taken>,
}

/// Checks an intent. `recorded` has the workers in the state, and for each of their domains whether the state has it
/// too.
pub fn preflight(
    intent: &Intent,
    inventory: &Inventory,
    fleet: &str,
    adopt: &BTreeSet<String>,
    recorded: impl Fn(&WorkerId) -> Option<BTreeSet<String>>,
) -> Preflight {
    let mut preflight = Preflight::default();
    for id in &intent.creates {
        let (home, worker) = id;
        let there = inventory.workers.get(home).and_then(|workers| workers.get(worker));
        let owner = there.map(|listed| tags::read(&listed.tags).fleet);
        if let Some(owner) = owner
            && owner != Some(fleet)
            && !adopt.contains(worker)
        {
            preflight.refusals.push(Refusal::Unowned { worker: worker.clone(), fleet: owner.map(str::to_owned) });
        }
    }
    for ((account_id, domain), Attach { worker, take_over }) in &intent.attaches {
        let listed = inventory.domains.get(account_id).into_iter().flatten();
        let mut others = listed.filter(|listed| listed.hostname == *domain && listed.worker != *worker);
        let Some(ListedDomain { worker: holder, .. }) = others.next() else { continue };
        let holder_id = (Home { account_id: account_id.clone(), namespace: None }, holder.clone());
        let there = inventory.workers.get(&holder_id.0).and_then(|workers| workers.get(holder));
        let domains = recorded(&holder_id);
        if domains.as_ref().is_some_and(|domains| domains.contains(domain)) {
            // The state knows it, so that the plan itself takes it from there.
            continue;
        }
        let ours = domains.is_some() || there.is_some_and(|listed| tags::read(&listed.tags).fleet == Some(fleet));
        if ours || *take_over {
            let taken = Taken { holder: holder.clone() };
            preflight.taken.insert((account_id.clone(), domain.clone()), taken);
        } else {
            let (domain, worker, holder) = (domain.clone(), worker.clone(), holder.clone());
            preflight.refusals.push(Refusal::DomainHeld { domain, worker, holder, exists: there.is_some() });
        }
    }
    preflight.refusals.sort();
    preflight
}

/// Returns how many of `deployed` workers may be deleted at once: the smaller of the count and the share, but at least one, unless either
/// is 0. So a fleet of five can lose a customer, but one of a thousand can't lose a hundred.
pub fn deletions(count: usize, percent: f64, deployed: usize) -> usize {
    if count == 0 || percent <= 0.0 {
        return 0;
    }
    let share = (deployed as f64 * percent / 100.0).floor() as usize;
    count.min(share).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::platform::ListedWorker;

    fn home(namespace: Option<&str>) -> Home {
        Home { account_id: "a".to_owned(), namespace: namespace.map(str::to_owned) }
    }

    fn worker(name: &str, fleet: Option<&str>) -> (String, ListedWorker) {
        let listed = ListedWorker {
            name: name.to_owned(),
            tags: fleet.map(|fleet| format!("flotilla-{fleet}")).into_iter().collect(),
            ..ListedWorker::default()
        };
        (name.to_owned(), listed)
    }

    fn inventory() -> Inventory {
        let workers = [worker("ours", Some("shop")), worker("theirs", Some("else")), worker("dashboard", None)];
        let domains = [("one.example", "ours"), ("two.example", "dashboard"), ("three.example", "nobody")];
        let domains = domains.map(|(hostname, worker)| ListedDomain {
            id: format!("id of {hostname}"),
            hostname: hostname.to_owned(),
            worker: worker.to_owned(),
        });
        Inventory {
            workers: BTreeMap::from([(home(None), workers.into())]),
            domains: BTreeMap::from([("a".to_owned(), domains.into())]),
            ..Inventory::default()
        }
    }

    fn check(intent: &Intent, adopt: &[&str], recorded: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let adopt = adopt.iter().map(|name| (*name).to_owned()).collect();
        let preflight = preflight(intent, &inventory(), "shop", &adopt, |(_, name)| {
            let of = recorded.iter().filter(|(worker, _)| worker == name);
            let domains: BTreeSet<String> = of.map(|(_, domain)| (*domain).to_owned()).collect();
            (!domains.is_empty()).then_some(domains)
        });
        let refusals = preflight.refusals.iter().map(Refusal::to_string).collect();
        (
            refusals,
            preflight.taken.into_iter().map(|((_, domain), taken)| format!("{domain} from {}", taken.holder)).collect(),
        )
    }

    #[test]
    fn workers_of_others_are_not_overwritten() {
        let creates = ["new", "ours", "theirs", "dashboard"].map(|name| (home(None), name.to_owned())).into();
        let intent = Intent { creates, ..Intent::default() };
        assert_eq!(intent.scope().requests(), 1);
        let (refusals, _) = check(&intent, &[], &[]);
        assert_eq!(
            refusals,
            [
                "dashboard exists, but this fleet doesn't manage it; `--adopt dashboard` adopts and overwrites it",
                "theirs belongs to the fleet else; `--adopt theirs` adopts and overwrites it",
            ]
        );
        assert_eq!(check(&intent, &["dashboard", "theirs"], &[]).0, [""; 0]);
        // The same names in a namespace are other workers.
        let inside = Intent { creates: BTreeSet::from([(home(Some("n")), "theirs".to_owned())]), ..Intent::default() };
        assert_eq!(check(&inside, &[], &[]).0, [""; 0]);
    }

    #[test]
    fn domains_of_others_are_not_taken() {
        let attach = |domain: &str, worker: &str, take_over: bool| {
            let attach = Attach { worker: worker.to_owned(), take_over };
            Intent { attaches: BTreeMap::from([(("a".to_owned(), domain.to_owned()), attach)]), ..Intent::default() }
        };
        assert_eq!(attach("one.example", "new", false).scope().requests(), 2);
        let nothing: (Vec<String>, Vec<String>) = Default::default();
        // Free, or there already.
        assert_eq!(check(&attach("free.example", "new", false), &[], &[]), nothing);
        assert_eq!(check(&attach("one.example", "ours", false), &[], &[]), nothing);
        // Of another worker of ours: detached there first, unless the state knows it, and so the plan does it.
        assert_eq!(check(&attach("one.example", "new", false), &[], &[]).1, ["one.example from ours"]);
        assert_eq!(check(&attach("one.example", "new", false), &[], &[("ours", "one.example")]), nothing);
        for (domain, holder, words) in
            [("two.example", "dashboard", "this fleet doesn't manage"), ("three.example", "nobody", "does not exist")]
        {
            let (refusals, taken) = check(&attach(domain, "new", false), &[], &[]);
            assert!(refusals.len() == 1 && refusals[0].contains(words) && taken.is_empty(), "{refusals:?}");
            let (refusals, taken) = check(&attach(domain, "new", true), &[], &[]);
            assert_eq!((refusals.len(), taken), (0, vec![format!("{domain} from {holder}")]));
        }
    }

    #[test]
    fn a_plan_that_harms_nobody_asks_nothing() {
        assert_eq!(Intent::default().scope().requests(), 0);
    }

    #[test]
    fn the_smaller_of_count_and_share_but_always_one() {
        let allowed = |deployed| deletions(MAX_DELETIONS, MAX_DELETIONS_PERCENT, deployed);
        assert_eq!([0, 5, 19, 20, 100, 1_000, 100_000].map(allowed), [1, 1, 1, 2, 10, 10, 10]);
        assert_eq!(deletions(500, 50.0, 100), 50);
        assert_eq!([deletions(0, 50.0, 100), deletions(5, 0.0, 100)], [0, 0]);
    }
}
