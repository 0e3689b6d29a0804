//! Checks whether a preview fits: into what fleet.yaml allows, into zones and accounts, with all that is there already. Sends nothing.

use std::collections::BTreeMap;

use flotilla_deploy::plan::{Action, Step};
use flotilla_deploy::refresh::{Inventory, Seen, previews};
use flotilla_model::failure::Failure;
use flotilla_model::limits::Limit;
use flotilla_model::text::{clean, count, grouped};

use super::created;
use crate::planning::Planned;

/// The number of previews that are suggested for removal.
const NAMED: usize = 5;

/// Refuses a preview with too many workers.
pub(super) fn check_size(number: usize, most: usize, what: &str) -> Result<(), Failure> {
    if number <= most {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the preview would have {}, more than the maximum of {most}; nothing was sent",
        count(number, what)
    ))
    .hint("name customers, or select some: flotilla preview up --id ID CUSTOMER, -l LABEL=VALUE, --since REF")
    .hint("or set `previews: { most: … }` in fleet.yaml"))
}

/// Refuses what doesn't fit any more: custom domains into a zone, workers into an account, those that are there counted.
pub(super) fn check_capacity(planned: &Planned, inventory: &Inventory, now: i64) -> Result<(), Failure> {
    let fleet = &planned.project.fleet;
    let mut domains: BTreeMap<(&str, &str), (i64, i64, &str)> = BTreeMap::new();
    let mut workers: BTreeMap<&str, (i64, i64, &str)> = BTreeMap::new();
    for (account_id, listed) in &inventory.domains {
        for domain in listed {
            domains.entry((account_id, fleet.zone_of(&domain.hostname))).or_default().0 += 1;
        }
    }
    for (home, listed) in inventory.workers.iter().filter(|(home, _)| home.namespace.is_none()) {
        workers.entry(&home.account_id).or_default().0 += listed.len() as i64;
    }
    for change in &planned.plan.changes {
        let account_id = change.home.account_id.as_str();
        for step in &change.steps {
            let (domain, more) = match step {
                Step::AttachDomain { domain } => (domain, 1),
                Step::DetachDomain { domain, .. } => (domain, -1),
                _ => continue,
            };
            let of_zone = domains.entry((account_id, fleet.zone_of(domain))).or_default();
            (of_zone.1, of_zone.2) = (of_zone.1 + more, &change.account);
        }
        if change.home.namespace.is_none() {
            let of_account = workers.entry(account_id).or_default();
            of_account.1 += match change.action {
                Action::Create => 1,
                Action::Update => 0,
                Action::Delete => -1,
            };
            of_account.2 = &change.account;
        }
    }
    let mut full = Vec::new();
    let mut check = |limit: Limit, (there, more, account): (i64, i64, &str), what: &str, whose: String| {
        let most = fleet.limit(account, limit);
        if more > 0 && (there + more) as u64 > most {
            let number = |number: i64| grouped(number.unsigned_abs());
            full.push(format!(
                "{whose} has {} {what}, the preview adds {}, and the limit is {}",
                number(there),
                number(more),
                grouped(most)
            ));
        }
    };
    for ((_, zone), counted) in domains {
        check(Limit::CustomDomainsPerZone, counted, "custom domains", format!("the zone {zone}"));
    }
    for counted in workers.into_values() {
        check(Limit::Workers, counted, "workers", format!("the account `{}`", counted.2));
    }
    let Some(first) = full.first() else { return Ok(()) };
    let mut failure = Failure::refused(format!("{first}; nothing was sent"));
    for more in &full[1..] {
        failure = failure.hint(more);
    }
    let preview = fleet.preview.as_ref().map(|preview| preview.id.as_str());
    let others = previews(inventory, &fleet.file.name).into_iter().filter(|seen| Some(seen.id.as_str()) != preview);
    let (expired, standing): (Vec<Seen>, Vec<Seen>) = others.partition(|seen| seen.is_expired(now));
    if !expired.is_empty() {
        let number = count(expired.len(), "preview");
        failure = failure.hint(format!("{number} of them have expired: flotilla preview down --expired"));
    }
    if !standing.is_empty() {
        let named = standing.iter().take(NAMED).map(|seen| {
            let hosts = count(seen.hosts.len(), "host");
            format!("{} ({hosts}, made {})", clean(&seen.id), created(&seen.created))
        });
        let oldest = named.collect::<Vec<_>>().join(", ");
        failure = failure.hint(format!("the oldest previews: {oldest}; flotilla preview down --id ID removes one"));
    }
    Err(failure)
}
