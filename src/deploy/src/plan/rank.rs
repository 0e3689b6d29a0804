//! The order of changes within a wave: after those of the workers that they refer to.

use std::collections::{BTreeSet, HashMap};

use flotilla_model::platform::Home;

use super::{Action, Change, order};

/// The changes by the workers that they create or change. A worker of a dispatch namespace is bound to workers outside it, too.
fn by_worker(changes: &[Change]) -> HashMap<(&Home, &str), usize> {
    changes.iter().enumerate().map(|(at, change)| ((&change.home, change.worker.as_str()), at)).collect()
}

/// Returns whether a change's upload refers to another worker.
fn refers(changes: &[Change]) -> bool {
    changes.iter().any(|change| !change.calls.is_empty() || !change.refers.is_empty())
}

/// Returns the changes of the workers that each change's upload refers to.
pub(super) fn callees(changes: &[Change]) -> Vec<Vec<usize>> {
    if !refers(changes) {
        return vec![Vec::new(); changes.len()];
    }
    let by_worker = by_worker(changes);
    let of = |change: &Change| {
        let outside = Home { namespace: None, ..change.home.clone() };
        let names = change.calls.iter().chain(&change.refers);
        let found = names.filter_map(|name| {
            let own = by_worker.get(&(&change.home, name.as_str()));
            own.or_else(|| by_worker.get(&(&outside, name.as_str()))).copied()
        });
        let all: BTreeSet<usize> = found.filter(|at| changes[*at].action != Action::Delete).collect();
        all.into_iter().collect()
    };
    changes.iter().map(of).collect()
}

/// Ranks the changes: after those of the workers that they refer to. In a cycle, those that are created come first, as far as they need
/// each other: live workers can be bound at any time.
pub(super) fn rank(changes: &mut [Change]) {
    if !refers(changes) {
        return;
    }
    let mut needs = callees(changes);
    for (at, needs) in needs.iter_mut().enumerate() {
        needs.retain(|other| *other != at);
    }
    let mut first = 0;
    for groups in order::levels(&needs) {
        let mut used = 1;
        for group in groups {
            let place = |at: usize| group.iter().position(|member| *member == at);
            let is_created = |at: &&usize| changes[**at].action == Action::Create;
            let among: Vec<Vec<usize>> = group
                .iter()
                .map(|at| needs[*at].iter().filter(is_created).filter_map(|other| place(*other)).collect())
                .collect();
            let levels = order::levels(&among);
            used = used.max(levels.len());
            for (level, groups) in levels.iter().enumerate() {
                for member in groups.iter().flatten() {
                    changes[group[*member]].rank = first + level;
                }
            }
        }
        first += used;
    }
}
