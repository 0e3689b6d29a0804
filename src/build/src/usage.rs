//! The usage of limits of accounts and zones: counted worker by worker, summed over the fleet, and reported where a limit is
//! exceeded. Pure; doesn't know what customers' files hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rayon::slice::ParallelSliceMut as _;
use serde::{Deserialize, Serialize};

use crate::index::RecordIndex;
use crate::resolve::ClaimedResource;
use flotilla_model::binding::{D1, KV, QUEUE};
use flotilla_model::customer::{Database, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::limits::Limit;
use flotilla_model::spec::AccountId;
use flotilla_model::text::grouped;
use flotilla_spec::project::Fleet;

/// The number of customers with the largest shares that are shown.
pub const SHOWN: usize = 3;
/// The smallest limit that is warned of: a small limit may well be used up completely.
const WORTH_A_WARNING: u64 = 10;

/// The usage of one worker: what counts against the limits of its account and its zones. It is recorded for each worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerUsage {
    /// The account, by the first of its names in fleet.yaml. A customer's own can have another one among all of the fleet's.
    account: String,
    /// Whether it is in a dispatch namespace, where the number of workers has no limit.
    namespaced: bool,
    /// Its crons.
    crons: u32,
    /// Its D1 databases, but for those with which another worker of its customer is counted.
    databases: u32,
    /// The digests of the queues that it uses, and of its KV namespaces: several workers can have one.
    queues: Vec<u64>,
    kv: Vec<u64>,
    /// Its custom domains and routes, by zone.
    zones: Vec<(String, u32, u32)>,
    /// Whether a route of it has a wildcard for its host, and not by agreement.
    wildcard: bool,
}

impl WorkerUsage {
    /// Counts a customer's workers, in their order.
    pub fn all<'a>(fleet: &Fleet, workers: &'a [Worker]) -> impl Iterator<Item = WorkerUsage> + use<'a> {
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
            let own = match &worker.database {
                Database::D1 { name, id, .. } => Some(id.as_ref().unwrap_or(name).as_str()),
                Database::Turso | Database::None => None,
            };
            let beside = worker.bindings.values().filter_map(|binding| binding.text(D1));
            let new = own.into_iter().chain(beside).filter(|id| databases.insert((&worker.account, id))).count();
            let hosts = worker.routes.iter().map(|route| route.pattern.split('/').next().unwrap_or_default());
            let wildcard = hosts
                .filter(|host| host.starts_with('*'))
                .any(|host| fleet.file.shared_hosts.iter().all(|shared| shared != host));
            let account = match worker.account_id.clone().map(AccountId::Literal) {
                Some(id) => fleet.accounts.listed_with(&id).next().map_or(worker.account.as_str(), |(name, _)| name),
                None => fleet.first_name(&worker.account, |_, _| true),
            };
            all.push(WorkerUsage {
                wildcard,
                account: account.to_owned(),
                namespaced: worker.namespace.is_some(),
                crons: u32::try_from(worker.crons.len()).unwrap_or(u32::MAX),
                databases: u32::try_from(new).unwrap_or(u32::MAX),
                queues: distinct(queues(worker)),
                kv: distinct(worker.bindings.values().filter_map(|binding| binding.text(KV))),
                zones: zones.into_iter().map(|(zone, (domains, routes))| (zone.to_owned(), domains, routes)).collect(),
            });
        }
        all.into_iter()
    }

    /// Returns the account's name.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Returns the account by the first of its names, those of customers' own included.
    fn first_account<'a>(&'a self, fleet: &'a Fleet) -> &'a str {
        match fleet.accounts.own().is_empty() {
            true => &self.account,
            false => fleet.first_name(&self.account, |_, _| true),
        }
    }
}

/// Returns the customers that can have hosts that another's wildcard covers: those of each zone that several customers use,
/// one of them with a wildcard. Each worker is given with the index of its customer's record.
pub fn beside_wildcards<'a>(
    usage: impl Iterator<Item = (RecordIndex, &'a WorkerUsage)> + Clone,
) -> BTreeSet<RecordIndex> {
    if !usage.clone().any(|(_, worker)| worker.wildcard) {
        return BTreeSet::new();
    }
    let mut zones: Vec<(u64, RecordIndex, bool)> = Vec::new();
    for (customer, worker) in usage {
        zones.extend(worker.zones.iter().map(|(zone, ..)| (digest("", zone), customer, worker.wildcard)));
    }
    zones.par_sort_unstable();
    let shared = |group: &&[(u64, RecordIndex, bool)]| {
        group.iter().any(|(_, _, wildcard)| *wildcard) && group.iter().any(|(_, customer, _)| *customer != group[0].1)
    };
    let groups = zones.chunk_by(|a, b| a.0 == b.0).filter(shared);
    groups.flat_map(|group| group.iter().map(|(_, customer, _)| *customer)).collect()
}

/// The usage of many workers: what counts against the limits of accounts and zones.
///
/// A fleet can have as many zones as customers. They are not summed in a map, which would cost more than all else here: what belongs to one
/// zone is brought together by sorting digests, and names are only compared where the total is large.
#[derive(Clone, Debug, Default)]
pub struct Usage<'a> {
    accounts: BTreeMap<&'a str, Sums>,
    /// The digest of a zone and its account, a worker's custom domains and routes there, and the worker.
    zones: Vec<(u64, u32, u32, &'a WorkerUsage)>,
}

/// The usage of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums {
    workers: u64,
    crons: u64,
    databases: u64,
    queues: Vec<u64>,
    kv: Vec<u64>,
}

/// Returns the queues that a worker sends to, consumes, or gives up to.
fn queues(worker: &Worker) -> impl Iterator<Item = &str> {
    let consumed = worker.queue_consumers.iter();
    let consumed = consumed.flat_map(|(queue, consumer)| [Some(queue.as_str()), consumer.dead_letter_queue.as_deref()]);
    worker.bindings.values().filter_map(|binding| binding.text(QUEUE)).chain(consumed.flatten())
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u64> {
    let digests: BTreeSet<u64> = names.map(|name| digest("", name)).collect();
    digests.into_iter().collect()
}

fn count(mut digests: Vec<u64>) -> u64 {
    digests.par_sort_unstable();
    digests.dedup();
    digests.len() as u64
}

fn digest(account: &str, zone: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (account, zone).hash(&mut hasher);
    hasher.finish()
}

impl<'a> Usage<'a> {
    /// Adds a worker.
    pub fn add(&mut self, fleet: &'a Fleet, one: &'a WorkerUsage) {
        let account = one.first_account(fleet);
        let sums = self.accounts.entry(account).or_default();
        sums.workers += u64::from(!one.namespaced);
        sums.crons += u64::from(one.crons);
        sums.databases += u64::from(one.databases);
        sums.queues.extend(&one.queues);
        sums.kv.extend(&one.kv);
        let zones = one.zones.iter();
        self.zones.extend(zones.map(|(zone, domains, routes)| (digest(account, zone), *domains, *routes, one)));
    }

    /// Adds another tally.
    #[must_use]
    pub fn and(mut self, mut other: Usage<'a>) -> Usage<'a> {
        for (account, sums) in other.accounts {
            let all = self.accounts.entry(account).or_default();
            all.workers += sums.workers;
            all.crons += sums.crons;
            all.databases += sums.databases;
            all.queues.extend(sums.queues);
            all.kv.extend(sums.kv);
        }
        self.zones.append(&mut other.zones);
        self
    }

    /// Returns the limits that are exceeded or almost reached, sorted by account.
    pub fn full(mut self, fleet: &Fleet) -> Vec<LimitUsage> {
        let mut found: BTreeSet<LimitUsage> = BTreeSet::new();
        for (account, sums) in std::mem::take(&mut self.accounts) {
            for (limit, count) in [
                (Limit::Workers, sums.workers),
                (Limit::Crons, sums.crons),
                (Limit::Databases, sums.databases),
                (Limit::Queues, count(sums.queues)),
                (Limit::KvNamespaces, count(sums.kv)),
            ] {
                found.extend(LimitUsage::new(fleet, account, None, limit, count));
            }
        }
        let of_zones = [Limit::CustomDomainsPerZone, Limit::RoutesPerZone];
        let least = |limit| fleet.accounts.keys().map(|account| fleet.limit(account, limit)).min().unwrap_or_default();
        let least = of_zones.map(least);
        self.zones.par_sort_unstable_by_key(|(digest, ..)| *digest);
        for group in self.zones.chunk_by(|a, b| a.0 == b.0) {
            let sum = |count: fn(&(u64, u32, u32, &WorkerUsage)) -> u32| {
                group.iter().map(|item| u64::from(count(item))).sum()
            };
            if !is_near(sum(|item| item.1), least[0]) && !is_near(sum(|item| item.2), least[1]) {
                continue;
            }
            let mut exact: BTreeMap<(&str, &str), [u64; 2]> = BTreeMap::new();
            for (_, _, _, usage) in group {
                let account = usage.first_account(fleet);
                let zones = usage.zones.iter().filter(|(zone, ..)| digest(account, zone) == group[0].0);
                for (zone, domains, routes) in zones {
                    let sums = exact.entry((account, zone)).or_default();
                    sums[0] += u64::from(*domains);
                    sums[1] += u64::from(*routes);
                }
            }
            for ((account, zone), sums) in exact {
                let limits = of_zones.into_iter().zip(sums);
                found.extend(
                    limits.filter_map(|(limit, count)| LimitUsage::new(fleet, account, Some(zone), limit, count)),
                );
            }
        }
        found.into_iter().collect()
    }
}

/// Returns whether a tenth of the limit or less is left. Counts are small: nothing overflows.
fn is_near(count: u64, maximum: u64) -> bool {
    count > maximum || (maximum >= WORTH_A_WARNING && 10 * count >= 9 * maximum)
}

/// A limit that is exceeded, or almost reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitUsage {
    /// The account's name.
    pub account: String,
    /// The limit.
    pub limit: Limit,
    /// The zone, if the limit is one of zones.
    pub zone: Option<String>,
    /// The number in use.
    pub count: u64,
    /// The number that fits.
    pub maximum: u64,
}

impl LimitUsage {
    fn new(fleet: &Fleet, account: &str, zone: Option<&str>, limit: Limit, count: u64) -> Option<LimitUsage> {
        let maximum = fleet.limit(account, limit);
        let full = || LimitUsage { account: account.to_owned(), limit, zone: zone.map(str::to_owned), count, maximum };
        is_near(count, maximum).then(full)
    }

    /// Returns whether the limit is exceeded.
    pub fn is_passed(&self) -> bool {
        self.count > self.maximum
    }

    /// Returns how much a worker adds to it.
    pub fn share(&self, fleet: &Fleet, usage: &WorkerUsage) -> u64 {
        if usage.first_account(fleet) != self.account {
            return 0;
        }
        let of_zone = || usage.zones.iter().filter(|(zone, _, _)| Some(zone) == self.zone.as_ref());
        match self.limit {
            Limit::Workers => u64::from(!usage.namespaced),
            Limit::Crons => u64::from(usage.crons),
            Limit::Databases => u64::from(usage.databases),
            Limit::Queues => usage.queues.len() as u64,
            Limit::KvNamespaces => usage.kv.len() as u64,
            Limit::CustomDomainsPerZone => of_zone().map(|(_, domains, _)| u64::from(*domains)).sum(),
            Limit::RoutesPerZone => of_zone().map(|(_, _, routes)| u64::from(*routes)).sum(),
            Limit::ZonesPerWorker
            | Limit::Variables
            | Limit::VariableBytes
            | Limit::ScriptBytes
            | Limit::AssetFiles => 0,
        }
    }

    /// Returns whether a claimed resource adds to it.
    pub fn is_of(&self, fleet: &Fleet, resource: &ClaimedResource) -> bool {
        match (self.limit, resource, &self.zone) {
            (Limit::CustomDomainsPerZone, ClaimedResource::Domain(host), Some(zone)) => fleet.zone_of(host) == zone,
            // A route names its zone itself, and its host is in that zone.
            (Limit::RoutesPerZone, ClaimedResource::Route(pattern), Some(zone)) => {
                let host = pattern.split('/').next().unwrap_or_default();
                host.strip_suffix(zone).is_some_and(|before| before.is_empty() || before.ends_with(['.', '*']))
            }
            _ => false,
        }
    }

    /// Returns the largest shares above one, each with its index.
    pub fn greatest(&self, shares: impl Iterator<Item = u64>) -> Vec<(usize, u64)> {
        let mut greatest: Vec<(usize, u64)> = Vec::with_capacity(SHOWN + 1);
        for (index, share) in shares.enumerate().filter(|(_, share)| *share > 1) {
            let place = greatest.partition_point(|(_, other)| *other >= share);
            if place < SHOWN {
                greatest.insert(place, (index, share));
                greatest.truncate(SHOWN);
            }
        }
        greatest
    }

    /// Returns the diagnostic: an error, or a warning as long as it fits. `place`: that of the account; `greatest`: the places, names and shares of the
    /// customers with the most of it.
    pub fn diagnostic(&self, fleet: &Fleet, place: Place, greatest: Vec<(Place, String, u64)>) -> Diagnostic {
        let (row, account) = (self.limit.row(), &self.account);
        let (count, maximum, unit) = (grouped(self.count), grouped(self.maximum), row.unit);
        let help = self.help(fleet);
        if !self.is_passed() {
            let whose = match &self.zone {
                Some(zone) => format!("the zone `{zone}` (account `{account}`)"),
                None => format!("the account `{account}`"),
            };
            let message = format!("{whose} is almost full: {count} of {maximum} {unit}");
            return Diagnostic::warning(Code::AlmostFull, place, message, help);
        }
        let unit = if self.count == 1 { unit.trim_end_matches('s') } else { unit };
        let message = match &self.zone {
            Some(zone) => {
                format!("{count} {unit} in the zone `{zone}`, which can have {maximum} (account `{account}`)")
            }
            None => format!("{count} {unit} in the account `{account}`, which can have {maximum}"),
        };
        let diagnostic = Diagnostic::error(row.code, place, message, help);
        greatest.into_iter().fold(diagnostic, |diagnostic, (place, name, share)| {
            diagnostic.also(place, format!("{name} has {} of them", grouped(share)))
        })
    }

    /// Returns what to do about it.
    fn help(&self, fleet: &Fleet) -> String {
        let remedy = match self.limit {
            Limit::Workers => {
                "move them into a dispatch namespace (Workers for Platforms, no limit): set `dispatchNamespace`, and `dispatch` for \
                 their hosts (docs/guides/use-a-dispatch-namespace.md); or spread the customers over several accounts"
            }
            Limit::Crons => "combine several crons into one, or spread the customers over several accounts",
            Limit::Databases => "spread the customers over several accounts, or use another `type` of database",
            Limit::Queues => {
                "let customers share a queue, with the customer's id in each message, or spread them over several accounts"
            }
            Limit::KvNamespaces => {
                "let customers share a namespace, with the customer's id in front of each key, or spread them over several accounts"
            }
            Limit::CustomDomainsPerZone => {
                "write hosts under `routes`, which have a limit of their own, each with a proxied DNS record"
            }
            _ => "replace several routes with one that has a wildcard, or use more zones",
        };
        format!("{remedy}; {}", fleet.raise(&self.account, self.limit))
    }
}

/// Returns the key of an account in fleet.yaml, if it is written out.
pub fn account_place(fleet: &Fleet, account: &str) -> Place {
    let (accounts, written) = fleet.document.root.along(["accounts"]);
    match accounts.key_span(account).filter(|_| written) {
        Some(span) => fleet.document.place(span),
        None => Place::file(&fleet.document.file),
    }
}

/// The size limit of workers' modules.
pub struct ScriptSizeLimit<'a> {
    fleet: &'a Fleet,
    /// The size of each pack's runtime.
    bundles: HashMap<&'a str, u64>,
    /// The size that fits everywhere: with the largest bundle, in the account with the lowest limit.
    everywhere: u64,
}

impl<'a> ScriptSizeLimit<'a> {
    /// Returns the limit that packs' bundles leave.
    pub fn new(fleet: &'a Fleet, bundles: impl Iterator<Item = (&'a str, u64)>) -> ScriptSizeLimit<'a> {
        let bundles: HashMap<&str, u64> = bundles.collect();
        let least = fleet.accounts.values().map(|account| account.limit(Limit::ScriptBytes)).min().unwrap_or_default();
        let everywhere = least.saturating_sub(bundles.values().copied().max().unwrap_or_default());
        ScriptSizeLimit { fleet, bundles, everywhere }
    }

    /// Checks the size of a worker's module. A pack bundle that alone is too large is the pack's error, and reported
    /// in the same words for each worker.
    pub fn check(&self, file: &str, pack: &str, account: &str, module: u64) -> Option<Box<Diagnostic>> {
        if module <= self.everywhere {
            return None;
        }
        let (runtime, maximum) =
            (self.bundles.get(pack).copied().unwrap_or_default(), self.fleet.limit(account, Limit::ScriptBytes));
        if runtime + module <= maximum {
            return None;
        }
        let raise = self.fleet.raise(account, Limit::ScriptBytes);
        let (maximum, size) = (grouped(maximum), grouped(runtime));
        let diagnostic = if runtime > self.fleet.limit(account, Limit::ScriptBytes) {
            Diagnostic::error(
                Code::ScriptTooLarge,
                Place::file(&format!("{}/pack.yaml", self.fleet.packs[pack].path)),
                format!("the pack's bundle has {size} bytes; an upload to the account `{account}` can have {maximum}"),
                format!("remove unused code from the bundle, or minify it; {raise}"),
            )
        } else {
            Diagnostic::error(
                Code::ScriptTooLarge,
                Place::file(file),
                format!(
                    "the worker's upload has {} bytes, {size} of them the pack's bundle; in the account `{account}` it can have {maximum}",
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
    use flotilla_spec::accounts::Accounts;

    fn usage(account: &str, crons: u32, zones: &[(&str, u32, u32)]) -> WorkerUsage {
        let zones = zones.iter().map(|(zone, domains, routes)| ((*zone).to_owned(), *domains, *routes)).collect();
        WorkerUsage { account: account.to_owned(), crons, databases: 1, zones, ..WorkerUsage::default() }
    }

    fn fleet(text: &str) -> Fleet {
        let (document, _) =
            flotilla_spec::yaml::parse("fleet.yaml", format!("name: test\npacks: {{}}\n{text}").as_bytes());
        let document = document.unwrap();
        let file: flotilla_model::spec::FleetFile = serde_json::from_value(document.root.to_value()).unwrap();
        Fleet {
            accounts: Accounts::new(file.accounts.clone().unwrap_or_default()),
            document,
            file,
            packs: BTreeMap::new(),
            broken_packs: BTreeMap::new(),
            layers: Vec::new(),
            labels: BTreeMap::new(),
            decides: flotilla_model::digest::Digest::of(b""),
            raw: flotilla_model::digest::Digest::of(b""),
            preview: None,
            is_partial: false,
            left_out_rules: flotilla_spec::project::LeftOutRules::default(),
        }
    }

    const ACCOUNT: &str = "token: { secret: T }, limits: { customDomainsPerZone: 10, routesPerZone: 20, crons: 20 }";

    #[test]
    fn what_is_full_is_found_in_any_order() {
        let fleet = fleet(&format!("accounts: {{ a: {{ id: a, {ACCOUNT} }}, b: {{ id: b, {ACCOUNT} }} }}"));
        // Eleven domains of x.example and 22 routes in account a; nine domains in account b; each has zones of its own.
        let mut all: Vec<WorkerUsage> =
            (0..11).map(|index| usage("a", 1, &[("x.example", 1, 2), (&format!("c{index}.example"), 3, 3)])).collect();
        all.extend((0..9).map(|index| usage("b", 2, &[("x.example", 1, 1), (&format!("c{index}.example"), 3, 3)])));
        let usage = |part: &'static str| {
            all.iter().filter(|item| part.contains(&item.account)).fold(Usage::default(), |mut usage, item| {
                usage.add(&fleet, item);
                usage
            })
        };
        let expected = [
            ("a", Limit::CustomDomainsPerZone, Some("x.example"), 11, 10),
            ("a", Limit::RoutesPerZone, Some("x.example"), 22, 20),
            ("b", Limit::Crons, None, 18, 20),
            ("b", Limit::CustomDomainsPerZone, Some("x.example"), 9, 10),
        ];
        for sum in [usage("ab"), usage("a").and(usage("b")), usage("b").and(usage("a"))] {
            let full = sum.full(&fleet);
            let found: Vec<_> =
                full.iter().map(|f| (f.account.as_str(), f.limit, f.zone.as_deref(), f.count, f.maximum)).collect();
            assert_eq!(found, expected);
        }
        assert_eq!(usage("").full(&fleet), []);
    }

    #[test]
    fn entries_with_one_id_are_one_account() {
        let fleet = fleet(
            "accounts:\n  a: { id: one, token: { secret: T } }\n  b: { id: one, token: { secret: U }, limits: { workers: 7 } }\n  c: { id: { env: A }, token: { secret: T }, plan: free }\n",
        );
        let first = |name| fleet.first_name(name, |one, other| one.id == other.id);
        assert_eq!(["a", "b", "c", "d"].map(first), ["a", "a", "c", "d"]);
        assert_eq!(["a", "b", "c", "d"].map(|name| fleet.limit(name, Limit::Workers)), [500, 500, 100, 500]);
    }

    #[test]
    fn the_longest_listed_zone_counts() {
        let fleet = fleet("zones: [eu.b.example, deep.eu.b.example]\n");
        for (host, zone) in [
            ("b.example", "b.example"),
            ("a.b.example", "b.example"),
            ("eu.b.example", "eu.b.example"),
            ("x.eu.b.example", "eu.b.example"),
            ("neu.b.example", "b.example"),
            ("x.deep.eu.b.example", "deep.eu.b.example"),
            ("*.eu.b.example", "eu.b.example"),
        ] {
            assert_eq!(fleet.zone_of(host), zone, "{host}");
        }
    }

    #[test]
    fn there_is_room_for_what_fits_to_the_byte() {
        let fleet = fleet(
            "accounts: { a: { id: a, token: { secret: T }, limits: { scriptBytes: 100 } }, b: { id: b, token: { secret: T } } }",
        );
        let size_limit = ScriptSizeLimit::new(&fleet, [("small", 10), ("large", 90)].into_iter());
        let code = |pack, account, module| {
            size_limit.check("f.yaml", pack, account, module).map(|diagnostic| (diagnostic.code, diagnostic.place.file))
        };
        assert_eq!(code("small", "a", 90), None);
        assert_eq!(code("large", "a", 10), None);
        assert_eq!(code("large", "b", 1000), None);
        assert_eq!(code("small", "a", 91), Some((Code::ScriptTooLarge, "f.yaml".to_owned())));
        assert_eq!(code("large", "a", 11), Some((Code::ScriptTooLarge, "f.yaml".to_owned())));
    }

    #[test]
    fn wildcards_matter_where_several_have_a_part_in_a_zone() {
        let all: [(u32, WorkerUsage); 6] = [
            (0, WorkerUsage { wildcard: true, ..usage("a", 0, &[("own.example", 0, 1)]) }),
            (0, usage("a", 0, &[("own.example", 1, 0)])),
            (1, WorkerUsage { wildcard: true, ..usage("a", 0, &[("x.example", 0, 1)]) }),
            (2, usage("b", 0, &[("x.example", 1, 0), ("y.example", 1, 0)])),
            (3, usage("a", 0, &[("y.example", 1, 0)])),
            (4, usage("a", 0, &[])),
        ];
        let beside = |all: &[(u32, WorkerUsage)]| {
            let indexed = all.iter().map(|(index, worker)| (RecordIndex::new(*index as usize), worker));
            beside_wildcards(indexed).into_iter().map(RecordIndex::get).collect::<BTreeSet<_>>()
        };
        assert_eq!(beside(&all), BTreeSet::from([1, 2]));
        assert_eq!(beside(&all[3..]), BTreeSet::new());
    }

    #[test]
    fn those_with_the_most_come_first_and_those_with_one_not_at_all() {
        let full = LimitUsage { limit: Limit::Crons, account: "a".to_owned(), zone: None, count: 99, maximum: 9 };
        let greatest = |shares: &[u64]| full.greatest(shares.iter().copied());
        assert_eq!(greatest(&[1, 5, 2, 9, 5, 0, 3]), [(3, 9), (1, 5), (4, 5)]);
        assert_eq!(greatest(&[1, 1, 2]), [(2, 2)]);
        assert_eq!(greatest(&[1, 1]), []);
        let other = usage("b", 7, &[]);
        let fleet = fleet("");
        assert_eq!((full.share(&fleet, &usage("a", 7, &[])), full.share(&fleet, &other)), (7, 0));
    }
}
