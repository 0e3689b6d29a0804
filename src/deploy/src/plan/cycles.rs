//! New workers that are bound to each other: none of them can be uploaded first, so that some are created without these bindings. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use flotilla_model::reason::Reason;

use super::rank::callees;
use super::{Action, Change, Step};

/// Returns items without which no cycle is left, as few as are easily found. `needs` gives the other items that each item needs.
///
/// An item that needs none, or that none needs, is in no cycle; one that needs a single other one, or that a single one needs, is in no cycle
/// without that one, which takes its place. What is left when nothing of this applies is cut at the item with the most connections.
pub(super) fn cut(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut graph = Graph::of(needs);
    let mut cut = Vec::new();
    loop {
        while let Some(item) = graph.changed.pop_last() {
            let (needs, needed) = (graph.needs[item].len(), graph.needed[item].len());
            if graph.needs[item].contains(&item) {
                cut.push(item);
                graph.remove(item);
            } else if needs == 0 || needed == 0 {
                graph.remove(item);
            } else if needs == 1 || needed == 1 {
                graph.bypass(item);
            }
        }
        let connections = |item: &&usize| (graph.needs[**item].len() * graph.needed[**item].len(), Reverse(**item));
        let Some(item) = graph.left.iter().max_by_key(connections).copied() else { break };
        cut.push(item);
        graph.remove(item);
    }
    cut.sort_unstable();
    cut
}

/// Items and what they need, from which items are removed.
struct Graph {
    needs: Vec<BTreeSet<usize>>,
    /// The items that need each item.
    needed: Vec<BTreeSet<usize>>,
    left: BTreeSet<usize>,
    /// The items that are left and have to be looked at.
    changed: BTreeSet<usize>,
}

impl Graph {
    fn of(needs: &[Vec<usize>]) -> Graph {
        let mut needed = vec![BTreeSet::new(); needs.len()];
        for (item, others) in needs.iter().enumerate() {
            others.iter().for_each(|other| _ = needed[*other].insert(item));
        }
        let left: BTreeSet<usize> = (0..needs.len()).collect();
        let needs = needs.iter().map(|others| others.iter().copied().collect()).collect();
        Graph { needs, needed, changed: left.clone(), left }
    }

    fn remove(&mut self, item: usize) {
        self.left.remove(&item);
        self.changed.remove(&item);
        for other in std::mem::take(&mut self.needs[item]) {
            self.needed[other].remove(&item);
            self.changed.extend(self.left.get(&other));
        }
        for other in std::mem::take(&mut self.needed[item]) {
            self.needs[other].remove(&item);
            self.changed.extend(self.left.get(&other));
        }
    }

    /// Removes an item; those that need it need what it needs.
    fn bypass(&mut self, item: usize) {
        let (needs, needed) = (self.needs[item].clone(), self.needed[item].clone());
        for before in needed {
            for after in &needs {
                self.needs[before].insert(*after);
                self.needed[*after].insert(before);
            }
        }
        self.remove(item);
    }
}

/// Adds the steps that create workers of cycles first.
pub(super) fn add_steps(changes: &mut [Change]) {
    let is_first = |change: &Change| change.cycle.is_some_and(|cycle| cycle.create.is_some());
    if !changes.iter().any(is_first) {
        return;
    }
    let callees = callees(changes);
    for at in 0..changes.len() {
        let Some(cycle) = changes[at].cycle.filter(|_| is_first(&changes[at])) else { continue };
        let is_of_cycle = |other: &&usize| {
            let other = &changes[**other];
            other.action == Action::Create && other.cycle.is_some_and(|other| other.number == cycle.number)
        };
        let others = callees[at].iter().filter(is_of_cycle);
        let without: Vec<String> = others.map(|other| changes[*other].worker.clone()).collect();
        let change = &mut changes[at];
        let upload = change.steps.iter().position(|step| matches!(step, Step::UploadAssets | Step::Upload));
        change.reasons.push(Reason::CreatedFirst { without: without.clone() });
        change.steps.insert(upload.unwrap_or_default(), Step::CreateFirst { without });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::order;

    /// Returns whether no cycle is left without these items.
    fn cuts(needs: &[Vec<usize>], cut: &[usize]) -> bool {
        let others =
            |item: usize| needs[item].iter().copied().filter(move |other| !cut.contains(other) && !cut.contains(&item));
        let left: Vec<Vec<usize>> = (0..needs.len()).map(|item| others(item).collect()).collect();
        order::groups(&left).iter().all(|group| group.len() == 1)
            && left.iter().enumerate().all(|(item, needs)| !needs.contains(&item))
    }

    #[test]
    fn a_cycle_is_cut_once() {
        assert_eq!(cut(&[]), Vec::<usize>::new());
        assert_eq!(cut(&[vec![1], vec![]]), Vec::<usize>::new());
        assert_eq!(cut(&[vec![1], vec![0]]), [0]);
        assert_eq!(cut(&[vec![1], vec![2], vec![0]]).len(), 1);
        // One is in all cycles.
        assert_eq!(cut(&[vec![3], vec![3], vec![3], vec![0, 1, 2]]), [3]);
        // Of three that need each other, one is left whole.
        assert_eq!(cut(&[vec![1, 2], vec![0, 2], vec![0, 1]]).len(), 2);
        // Each has a partner, in a row.
        let row =
            |item: usize| [item.checked_sub(1), (item < 99_999).then_some(item + 1)].into_iter().flatten().collect();
        assert_eq!(cut(&(0..100_000).map(row).collect::<Vec<_>>()).len(), 50_000, "and in no time");
    }

    proptest! {
        #[test]
        fn nothing_is_cut_in_vain(needs in prop::collection::vec(prop::collection::btree_set(0usize..7, 0..4), 7)) {
            let needs: Vec<Vec<usize>> = needs.into_iter().enumerate()
                .map(|(item, others)| others.into_iter().filter(|other| *other != item).collect())
                .collect();
            let found = cut(&needs);
            prop_assert!(cuts(&needs, &found));
            let subset = |bits: u32| (0..7).filter(|item| bits >> item & 1 == 1).collect::<Vec<usize>>();
            let fewest = (0..128).map(subset).filter(|items| cuts(&needs, items)).map(|items| items.len()).min().unwrap();
            prop_assert!(found.len() <= fewest + 1, "{found:?} of {needs:?}, {fewest} are enough");
        }
    }
}
