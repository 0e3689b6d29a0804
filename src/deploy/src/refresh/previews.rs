//! The previews of a fleet, from the platform's lists: each one's workers, the hosts that point to them, and when it
//! expires. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Inventory;
use crate::state::WorkerId;
use flotilla_model::preview::id_of;
use flotilla_model::tags;

/// A preview that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Its workers.
    pub workers: BTreeSet<WorkerId>,
    /// The customers that they belong to.
    pub customers: BTreeSet<String>,
    /// The hosts that point to them.
    pub hosts: BTreeSet<String>,
    /// The D1 databases that are its own, by account and name.
    pub databases: BTreeSet<(String, String)>,
    /// The time at which the first of its workers was created, as the platform writes it.
    pub created: String,
    /// The time at which the last of its workers expires, in seconds since 1970.
    pub expires: Option<i64>,
}

impl Seen {
    /// Returns whether it has expired. A preview without a time of expiry never does.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The previews of a fleet, the oldest first.
pub fn previews(inventory: &Inventory, fleet: &str) -> Vec<Seen> {
    let mut found: BTreeMap<&str, Seen> = BTreeMap::new();
    for (home, workers) in &inventory.workers {
        for listed in workers.values() {
            let marks = tags::read(&listed.tags);
            let Some(id) = marks.fleet.and_then(|owner| id_of(fleet, owner)) else { continue };
            let seen = found.entry(id).or_default();
            id.clone_into(&mut seen.id);
            seen.workers.insert((home.clone(), listed.name.clone()));
            seen.customers.extend(marks.customer.map(str::to_owned));
            seen.hosts.extend(marks.hosts.iter().map(|host| (*host).to_owned()));
            seen.databases.extend(marks.database.map(|name| (home.account_id.clone(), name.to_owned())));
            seen.expires = seen.expires.max(marks.expires);
            if !listed.created_on.is_empty() && (seen.created.is_empty() || listed.created_on < seen.created) {
                seen.created.clone_from(&listed.created_on);
            }
            if home.namespace.is_none() {
                let domains = inventory.domains.get(&home.account_id).into_iter().flatten();
                let own = domains.filter(|domain| domain.worker == listed.name);
                seen.hosts.extend(own.map(|domain| domain.hostname.clone()));
            }
        }
    }
    let mut found: Vec<Seen> = found.into_values().collect();
    found.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::digest::Digest;
    use flotilla_model::platform::{Home, ListedDomain, ListedWorker};
    use flotilla_model::spec::Environment;
    use flotilla_model::tags::Triggers;

    fn listed(name: &str, owner: &str, created: &str, expires: i64) -> (String, ListedWorker) {
        let (digest, triggers) = (Digest::of(b""), Triggers::default());
        let mut tags = tags::of(owner, "acme", Environment::Preview, &digest, &triggers, false);
        tags.extend(tags::of_preview(expires, Some("db-preview-1"), &BTreeSet::new()));
        let worker =
            ListedWorker { name: name.to_owned(), created_on: created.to_owned(), tags, ..ListedWorker::default() };
        (name.to_owned(), worker)
    }

    #[test]
    fn each_preview_of_the_fleet_is_told_and_nobody_elses() {
        let home = Home { account_id: "a".to_owned(), namespace: None };
        let workers = BTreeMap::from([
            listed("w-preview-1", "shop.preview-1", "2026-11-02", 10),
            listed("v-preview-1", "shop.preview-1", "2026-11-03", 20),
            listed("w-preview-0", "shop.preview-0", "2026-11-01", 5),
            listed("w", "shop", "2026-10-01", 0),
            listed("x-preview-1", "other.preview-1", "2026-10-01", 0),
        ]);
        let domain = |host: &str, worker: &str| ListedDomain {
            id: String::new(),
            hostname: host.to_owned(),
            worker: worker.to_owned(),
        };
        let domains = vec![domain("w-preview-1.example", "w-preview-1"), domain("w.example", "w")];
        let inventory = Inventory {
            workers: BTreeMap::from([(home, workers)]),
            domains: BTreeMap::from([("a".to_owned(), domains)]),
            ..Inventory::default()
        };
        let found = previews(&inventory, "shop");
        assert_eq!(found.iter().map(|seen| seen.id.as_str()).collect::<Vec<_>>(), ["0", "1"]);
        let seen = &found[1];
        assert_eq!((seen.workers.len(), seen.created.as_str(), seen.expires), (2, "2026-11-02", Some(20)));
        assert_eq!(seen.hosts, BTreeSet::from(["w-preview-1.example".to_owned()]));
        assert_eq!(seen.databases, BTreeSet::from([("a".to_owned(), "db-preview-1".to_owned())]));
        assert!(found[0].is_expired(5) && !seen.is_expired(19));
    }
}
