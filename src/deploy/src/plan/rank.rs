//! The order of changes within a wave: after those of the workers that they refer to, or whose queues they take over. Pure.

use std::collections::{BTreeSet, HashMap};

use flotilla_model::platform::Home;

use super::{Action, Change, Cycle, Step, cycles, order};

/// The changes of workers that bindings can name, by the workers.
fn by_worker(changes: &[Change]) -> HashMap<(&str, &str), usize> {
    let outside = changes.iter().enumerate().filter(|(_, change)| change.home.namespace.is_none());
    outside.map(|(at, change)| ((change.home.account_id.as_str(), change.worker.as_str()), at)).collect()
}

/// Returns whether a change's upload refers to another worker.
fn refers(changes: &[Change]) -> bool {
    changes.iter().any(|change| !change.calls.is_empty() || !change.refers.is_empty())
}

/// Returns the changes of the other workers that each change's upload refers to.
pub(super) fn callees(changes: &[Change]) -> Vec<Vec<usize>> {
    if !refers(changes) {
        return vec![Vec::new(); changes.len()];
    }
    let by_worker = by_worker(changes);
    let of = |(at, change): (usize, &Change)| {
        let Home { account_id, .. } = &change.home;
        let names = change.calls.iter().chain(&change.refers);
        let found = names.filter_map(|name| by_worker.get(&(account_id.as_str(), name.as_str())).copied());
        let all: BTreeSet<usize> =
            found.filter(|other| *other != at && changes[*other].action != Action::Delete).collect();
        all.into_iter().collect()
    };
    changes.iter().enumerate().map(of).collect()
}

/// Adds the changes that a new consumer of a queue waits for: a queue has one consumer, so that the one before goes first.
fn consumers(changes: &[Change], needs: &mut [Vec<usize>]) {
    let mut removed: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    let lasting = changes.iter().enumerate().filter(|(_, change)| change.action != Action::Delete);
    for (at, change) in lasting {
        for step in &change.steps {
            if let Step::RemoveConsumer { queue } = step {
                removed.entry((&change.home.account_id, queue)).or_default().push(at);
            }
        }
    }
    if removed.is_empty() {
        return;
    }
    for (at, change) in changes.iter().enumerate() {
        for step in &change.steps {
            if let Step::SetConsumer { queue, .. } = step {
                let before = removed.get(&(change.home.account_id.as_str(), queue.as_str())).into_iter().flatten();
                needs[at].extend(before.copied().filter(|other| *other != at));
            }
        }
    }
}

/// Ranks the changes: after those of the workers that they refer to, and of those whose queues they consume. Live workers can be bound at any time, so that in a cycle only those are
/// waited for that are created or completed. If these form a cycle, too, some of them are created first; all of them are uploaded, and
/// then completed.
pub(super) fn rank(changes: &mut [Change]) {
    let mut needs = callees(changes);
    consumers(changes, &mut needs);
    if needs.iter().all(Vec::is_empty) {
        return;
    }
    let (mut first, mut number) = (0, 0);
    for groups in order::levels(&needs) {
        let mut used = 1;
        for group in groups {
            if let [at] = group[..] {
                changes[at].rank = first;
                continue;
            }
            let place: HashMap<usize, usize> = group.iter().enumerate().map(|(place, at)| (*at, place)).collect();
            let is_waited_for = |at: &&usize| changes[**at].action == Action::Create || changes[**at].completes();
            let among: Vec<Vec<usize>> = group
                .iter()
                .map(|at| {
                    needs[*at].iter().filter(is_waited_for).filter_map(|other| place.get(other).copied()).collect()
                })
                .collect();
            let mut start = first;
            for groups in order::levels(&among) {
                let mut width = 1;
                for members in groups {
                    let members: Vec<usize> = members.into_iter().map(|member| group[member]).collect();
                    match members[..] {
                        [at] => changes[at].rank = start,
                        _ => {
                            width = width.max(rank_cycle(changes, &needs, &members, start, number));
                            number += 1;
                        }
                    }
                }
                start += width;
            }
            used = used.max(start - first);
        }
        first += used;
    }
}

/// Ranks the changes of a cycle from a rank on; returns the number of ranks that they take.
fn rank_cycle(changes: &mut [Change], needs: &[Vec<usize>], members: &[usize], start: usize, number: usize) -> usize {
    let place: HashMap<usize, usize> = members.iter().enumerate().map(|(place, at)| (*at, place)).collect();
    let among = |is_there: &[bool]| -> Vec<Vec<usize>> {
        let of = |(member, at): (usize, &usize)| {
            let others = needs[*at].iter().filter_map(|other| place.get(other).copied());
            others.filter(|other| !is_there[member] && !is_there[*other]).collect()
        };
        members.iter().enumerate().map(of).collect()
    };
    let mut is_first: Vec<bool> = members.iter().map(|at| changes[*at].action != Action::Create).collect();
    for member in cycles::cut(&among(&is_first)) {
        is_first[member] = true;
    }
    let levels = order::levels(&among(&is_first));
    let whole = start + 1 + levels.len();
    let leveled = levels.iter().enumerate();
    for (level, member) in
        leveled.flat_map(|(level, groups)| groups.iter().flatten().map(move |member| (level, *member)))
    {
        let change = &mut changes[members[member]];
        let (create, upload) = match (is_first[member], change.action) {
            (true, Action::Create) => (Some(start), whole),
            (true, _) => (None, whole),
            (false, _) => (None, start + 1 + level),
        };
        change.cycle = Some(Cycle { number, create, upload });
        change.rank = whole;
    }
    whole + 1 - start
}
