//! What counts against the limits of accounts and zones: counted worker by worker, summed over the fleet, and told where it
//! is too much. Pure; doesn't know what customers' files say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::customer::{Database, Worker};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::limits::{Limit, grouped};
use crate::project::Fleet;
use crate::resolve::Thing;

/// So many of those who claim the most are shown.
pub const MOST: usize = 3;
/// Smaller limits are not warned of: that five of five are used is how they are meant.
const WORTH_A_WARNING: u64 = 10;

/// What of a worker counts against the limits of its account and its zones. One is remembered for each worker of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The account, by the first of its names.
    account: String,
    /// Whether it is in a dispatch namespace, where the number of workers has no limit.
    namespaced: bool,
    /// Its crons.
    crons: u32,
    /// Its D1 database, unless another worker of its customer is counted with it.
    databases: u32,
    /// Its custom domains and routes, by zone.
    zones: Vec<(String, u32, u32)>,
}

impl Counted {
    /// Counts a customer's workers, in their order.
    pub fn all<'a>(fleet: &Fleet, workers: &'a [Worker]) -> impl Iterator<Item = Counted> + use<'a> {
        let mut databases: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut all = Vec::with_capacity(workers.len());
        for worker in workers {
            let mut zones: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
            for domain in &worker.domains {
                zones.entry(fleet.zone_of(domain)).or_default().0 += 1;
            }
            for route in &worker.routes {
                zones.entry(&route.zone).or_default().1 += 1;
            }
            let is_new = match &worker.database {
                Database::D1 { id, .. } => databases.insert((&worker.account, id)),
                Database::Turso | Database::None => false,
            };
            all.push(Counted {
                account: fleet.first_name(&worker.account, |one, other| one.id == other.id).to_owned(),
                namespaced: worker.namespace.is_some(),
                crons: u32::try_from(worker.crons.len()).unwrap_or(u32::MAX),
                databases: u32::from(is_new),
                zones: zones.into_iter().map(|(zone, (domains, routes))| (zone.to_owned(), domains, routes)).collect(),
            });
        }
        all.into_iter()
    }

    /// The account's name.
    pub fn account(&self) -> &str {
        &self.account
    }
}

/// What counts against the limits of accounts and zones, of many workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally(HashMap<String, Sums>);

/// What an account holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    workers: u64,
    crons: u64,
    databases: u64,
    /// Custom domains and routes, by zone.
    zones: HashMap<String, (u64, u64)>,
}

impl Tally {
    /// Adds a worker.
    pub fn add(&mut self, one: &Counted) {
        let sums = entry(&mut self.0, &one.account);
        sums.workers += u64::from(!one.namespaced);
        sums.crons += u64::from(one.crons);
        sums.databases += u64::from(one.databases);
        for (zone, domains, routes) in &one.zones {
            let (all_domains, all_routes) = entry(&mut sums.zones, zone);
            *all_domains += u64::from(*domains);
            *all_routes += u64::from(*routes);
        }
    }

    /// Adds another tally.
    #[must_use]
    pub fn and(self, other: Tally) -> Tally {
        let (mut more, less) = if self.0.len() < other.0.len() { (other, self) } else { (self, other) };
        for (account, sums) in less.0 {
            let all = more.0.entry(account).or_default();
            all.workers += sums.workers;
            all.crons += sums.crons;
            all.databases += sums.databases;
            for (zone, (domains, routes)) in sums.zones {
                let entry = all.zones.entry(zone).or_default();
                entry.0 += domains;
                entry.1 += routes;
            }
        }
        more
    }

    /// What is full, or almost, sorted by account.
    pub fn full(&self, fleet: &Fleet) -> Vec<Full> {
        let mut found = Vec::new();
        for (account, sums) in &self.0 {
            let mut compare = |limit, zone: Option<&String>, count: u64| {
                let most = fleet.limit(account, limit);
                // With a tenth of it left, or less. Counts are small: nothing overflows.
                if count > most || (most >= WORTH_A_WARNING && 10 * count >= 9 * most) {
                    found.push(Full { limit, account: account.clone(), zone: zone.cloned(), count, most });
                }
            };
            compare(Limit::Workers, None, sums.workers);
            compare(Limit::Crons, None, sums.crons);
            compare(Limit::Databases, None, sums.databases);
            for (zone, (domains, routes)) in &sums.zones {
                compare(Limit::CustomDomainsPerZone, Some(zone), *domains);
                compare(Limit::RoutesPerZone, Some(zone), *routes);
            }
        }
        found.sort_unstable_by(|a, b| (&a.account, a.limit, &a.zone).cmp(&(&b.account, b.limit, &b.zone)));
        found
    }
}

fn entry<'a, V: Default>(map: &'a mut HashMap<String, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.get_mut(key).expect("BUG: it was just put there")
}

/// A limit that is passed, or almost reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which limit.
    pub limit: Limit,
    /// Whose: the account's name.
    pub account: String,
    /// The zone, if the limit is one of zones.
    pub zone: Option<String>,
    /// How many there are.
    pub count: u64,
    /// How many fit.
    pub most: u64,
}

impl Full {
    /// Whether it is more than fits.
    pub fn is_passed(&self) -> bool {
        self.count > self.most
    }

    /// How much a worker adds to it.
    pub fn share(&self, counted: &Counted) -> u64 {
        if counted.account != self.account {
            return 0;
        }
        let of_zone = || counted.zones.iter().filter(|(zone, _, _)| Some(zone) == self.zone.as_ref());
        match self.limit {
            Limit::Workers => u64::from(!counted.namespaced),
            Limit::Crons => u64::from(counted.crons),
            Limit::Databases => u64::from(counted.databases),
            Limit::CustomDomainsPerZone => of_zone().map(|(_, domains, _)| u64::from(*domains)).sum(),
            Limit::RoutesPerZone => of_zone().map(|(_, _, routes)| u64::from(*routes)).sum(),
            Limit::ZonesPerWorker | Limit::Variables | Limit::VariableBytes | Limit::ScriptBytes => 0,
        }
    }

    /// Whether what is claimed adds to it.
    pub fn is_of(&self, fleet: &Fleet, thing: &Thing) -> bool {
        match (self.limit, thing, &self.zone) {
            (Limit::CustomDomainsPerZone, Thing::Domain(host), Some(zone)) => fleet.zone_of(host) == zone,
            // A route's own zone stands beside it, and its host is in that.
            (Limit::RoutesPerZone, Thing::Route(pattern), Some(zone)) => {
                let host = pattern.split('/').next().unwrap_or_default();
                host.strip_suffix(zone).is_some_and(|before| before.is_empty() || before.ends_with(['.', '*']))
            }
            _ => false,
        }
    }

    /// Of those with a share, the ones with the most of it, if theirs is more than one: the number of each, and its share.
    pub fn greatest(&self, shares: impl Iterator<Item = u64>) -> Vec<(usize, u64)> {
        let mut greatest: Vec<(usize, u64)> = Vec::with_capacity(MOST + 1);
        for (at, share) in shares.enumerate().filter(|(_, share)| *share > 1) {
            let place = greatest.partition_point(|(_, other)| *other >= share);
            if place < MOST {
                greatest.insert(place, (at, share));
                greatest.truncate(MOST);
            }
        }
        greatest
    }

    /// What is told of it: an error, or a warning as long as it fits. `greatest`: where those are who have the most of it,
    /// with their names and how much.
    pub fn diagnostic(&self, fleet: &Fleet, greatest: Vec<(Place, String, u64)>) -> Diagnostic {
        let (row, account) = (self.limit.row(), &self.account);
        let (count, most, unit) = (grouped(self.count), grouped(self.most), row.unit);
        let place = account_place(fleet, account);
        let help = self.help(fleet);
        if !self.is_passed() {
            let whose = match &self.zone {
                Some(zone) => format!("the zone `{zone}` (account `{account}`)"),
                None => format!("the account `{account}`"),
            };
            let message = format!("{whose} is almost full: {count} of {most} {unit}");
            return Diagnostic::warning(Code::AlmostFull, place, message, help);
        }
        let unit = if self.count == 1 { unit.trim_end_matches('s') } else { unit };
        let message = match &self.zone {
            Some(zone) => format!("{count} {unit} in the zone `{zone}`, which holds {most} (account `{account}`)"),
            None => format!("{count} {unit} in the account `{account}`, which holds {most}"),
        };
        let diagnostic = Diagnostic::error(row.code, place, message, help);
        greatest.into_iter().fold(diagnostic, |diagnostic, (place, who, share)| {
            diagnostic.also(place, format!("{who} has {} of them", grouped(share)))
        })
    }

    /// What there is to be done.
    fn help(&self, fleet: &Fleet) -> String {
        let remedy = match self.limit {
            Limit::Workers => {
                "set `dispatchNamespace` (Workers for Platforms, no limit), or spread the customers over accounts"
            }
            Limit::Crons => "let one cron do what several do, or spread the customers over accounts",
            Limit::Databases => "spread the customers over accounts, or use another `type` of database",
            Limit::CustomDomainsPerZone => {
                "write hosts under `routes`, which have a limit of their own, each with a proxied DNS record"
            }
            _ => "let a route with a wildcard take the place of several, or use more zones",
        };
        format!("{remedy}; {}", fleet.raise(&self.account, self.limit))
    }
}

/// The key of an account in fleet.yaml, if it is written out.
pub fn account_place(fleet: &Fleet, account: &str) -> Place {
    let (accounts, written) = fleet.document.root.along(["accounts"]);
    match accounts.key_span(account).filter(|_| written) {
        Some(span) => fleet.document.place(span),
        None => Place::file(&fleet.document.file),
    }
}

/// The bytes that workers' modules can have, and what is told where they have more.
pub struct Room<'a> {
    fleet: &'a Fleet,
    /// The size of each pack's runtime.
    runtimes: HashMap<&'a str, u64>,
    /// What fits everywhere: with the largest runtime, in the account with the lowest limit.
    everywhere: u64,
}

impl<'a> Room<'a> {
    /// The room that packs' runtimes leave.
    pub fn new(fleet: &'a Fleet, runtimes: impl Iterator<Item = (&'a str, u64)>) -> Room<'a> {
        let runtimes: HashMap<&str, u64> = runtimes.collect();
        let least = fleet.accounts.values().map(|account| account.limit(Limit::ScriptBytes)).min().unwrap_or_default();
        let everywhere = least.saturating_sub(runtimes.values().copied().max().unwrap_or_default());
        Room { fleet, runtimes, everywhere }
    }

    /// A worker's module: what is wrong if it is too large. A runtime that alone is too large is the pack's fault, and told
    /// in the same words for each worker.
    pub fn check(&self, file: &str, pack: &str, account: &str, module: u64) -> Option<Box<Diagnostic>> {
        if module <= self.everywhere {
            return None;
        }
        let (runtime, most) =
            (self.runtimes.get(pack).copied().unwrap_or_default(), self.fleet.limit(account, Limit::ScriptBytes));
        if runtime + module <= most {
            return None;
        }
        let raise = self.fleet.raise(account, Limit::ScriptBytes);
        let (most, size) = (grouped(most), grouped(runtime));
        let diagnostic = if runtime > self.fleet.limit(account, Limit::ScriptBytes) {
            Diagnostic::error(
                Code::ScriptTooLarge,
                Place::file(&format!("{}/pack.yaml", self.fleet.packs[pack].path)),
                format!("the pack's runtime has {size} bytes; an upload to the account `{account}` can have {most}"),
                format!("leave out of the bundle what its workers don't serve, or minify it; {raise}"),
            )
        } else {
            Diagnostic::error(
                Code::ScriptTooLarge,
                Place::file(file),
                format!(
                    "the worker's upload has {} bytes, {size} of them the runtime's; in the account `{account}` it can have {most}",
                    grouped(runtime + module)
                ),
                format!("keep large values in KV or in the database; {raise}"),
            )
        };
        Some(Box::new(diagnostic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(account: &str, crons: u32, zones: &[(&str, u32, u32)]) -> Counted {
        let zones = zones.iter().map(|(zone, domains, routes)| ((*zone).to_owned(), *domains, *routes)).collect();
        Counted { account: account.to_owned(), namespaced: false, crons, databases: 1, zones }
    }

    #[test]
    fn tallies_add_up_in_any_order() {
        let all: Vec<Counted> = (0..20)
            .map(|at| {
                counted(
                    ["a", "b"][at % 2],
                    at as u32,
                    &[("x.example", 1, 2), (["y.example", "z.example"][at / 10], 3, 0)],
                )
            })
            .collect();
        let tally = |part: &[Counted]| {
            part.iter().fold(Tally::default(), |mut tally, one| {
                tally.add(one);
                tally
            })
        };
        let whole = tally(&all);
        for cut in [0, 1, 7, 20] {
            for sum in [tally(&all[..cut]).and(tally(&all[cut..])), tally(&all[cut..]).and(tally(&all[..cut]))] {
                assert_eq!(sum, whole, "cut at {cut}");
            }
        }
        let a = &whole.0["a"];
        assert_eq!((a.workers, a.crons, a.databases), (10, 90, 10));
        assert_eq!(a.zones["x.example"], (10, 20));
        assert_eq!(a.zones["y.example"], (15, 0));
    }

    #[test]
    fn those_with_the_most_come_first_and_those_with_one_not_at_all() {
        let full = Full { limit: Limit::Crons, account: "a".to_owned(), zone: None, count: 99, most: 9 };
        let greatest = |shares: &[u64]| full.greatest(shares.iter().copied());
        assert_eq!(greatest(&[1, 5, 2, 9, 5, 0, 3]), [(3, 9), (1, 5), (4, 5)]);
        assert_eq!(greatest(&[1, 1, 2]), [(2, 2)]);
        assert_eq!(greatest(&[1, 1]), []);
        let other = counted("b", 7, &[]);
        assert_eq!((full.share(&counted("a", 7, &[])), full.share(&other)), (7, 0));
    }
}
