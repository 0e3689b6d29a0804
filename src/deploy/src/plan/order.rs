//! Sorts items by what they need. Knows nothing of what the items are. Pure.

use std::collections::BTreeMap;

/// Sorts items into groups that need each other, each after the groups that it needs: groups of one, apart from cycles. `needs` gives the
/// items that each item needs. The groups of one level don't need each other.
pub(crate) fn levels(needs: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
    let groups = groups(needs);
    let mut level_of = vec![0; needs.len()];
    let mut levels: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
    for group in groups {
        let others = group.iter().flat_map(|item| &needs[*item]).filter(|other| !group.contains(other));
        let level = others.map(|other| level_of[*other] + 1).max().unwrap_or(0);
        for item in &group {
            level_of[*item] = level;
        }
        levels.entry(level).or_default().push(group);
    }
    levels.into_values().collect()
}

/// Returns the strongly connected components, each after those that it needs: Tarjan's algorithm, without recursion.
pub(crate) fn groups(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; needs.len()];
    let mut lowest = vec![UNSEEN; needs.len()];
    let mut is_open = vec![false; needs.len()];
    let (mut open, mut groups, mut count) = (Vec::new(), Vec::new(), 0);
    for start in 0..needs.len() {
        if order[start] != UNSEEN {
            continue;
        }
        // The items on the way, each with the number of its needs that were looked at.
        let mut way = vec![(start, 0)];
        while let Some((item, looked_at)) = way.last_mut() {
            let item = *item;
            if *looked_at == 0 {
                (order[item], lowest[item], is_open[item]) = (count, count, true);
                count += 1;
                open.push(item);
            }
            if let Some(next) = needs[item].get(*looked_at) {
                *looked_at += 1;
                match order[*next] {
                    UNSEEN => way.push((*next, 0)),
                    seen if is_open[*next] => lowest[item] = lowest[item].min(seen),
                    _ => {}
                }
                continue;
            }
            way.pop();
            if let Some((before, _)) = way.last() {
                lowest[*before] = lowest[*before].min(lowest[item]);
            }
            if lowest[item] == order[item] {
                let at = open.iter().rposition(|other| *other == item).expect("BUG: it is open");
                let mut group = open.split_off(at);
                group.sort_unstable();
                for member in &group {
                    is_open[*member] = false;
                }
                groups.push(group);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_circles_stay_together() {
        assert_eq!(levels(&[]), Vec::<Vec<Vec<usize>>>::new());
        assert_eq!(levels(&[vec![1], vec![2], vec![]]), [[[2]], [[1]], [[0]]]);
        assert_eq!(levels(&[vec![], vec![]]), [[[0], [1]]]);
        // 0 and 1 swap, 2 needs them, 3 is by itself.
        assert_eq!(levels(&[vec![1], vec![0], vec![1], vec![]]), [vec![vec![0, 1], vec![3]], vec![vec![2]]]);
        // Two circles, one after the other.
        assert_eq!(levels(&[vec![1, 2], vec![0], vec![3], vec![2]]), [[[2, 3]], [[0, 1]]]);
        let long: Vec<Vec<usize>> = (0..100_000).map(|item| vec![(item + 1) % 100_000]).collect();
        assert_eq!(groups(&long).len(), 1, "no depth of the stack");
    }

    proptest! {
        #[test]
        fn each_item_is_in_one_group_after_what_it_needs(needs in prop::collection::vec(prop::collection::vec(0usize..12, 0..4), 12)) {
            let mut place = HashMap::new();
            for (level, groups) in levels(&needs).into_iter().enumerate() {
                for (number, group) in groups.into_iter().enumerate() {
                    for item in group {
                        prop_assert!(place.insert(item, (level, number)).is_none());
                    }
                }
            }
            prop_assert_eq!(place.len(), needs.len());
            for (item, others) in needs.iter().enumerate() {
                for other in others {
                    prop_assert!(place[other].0 < place[&item].0 || place[other] == place[&item]);
                }
            }
        }
    }
}
