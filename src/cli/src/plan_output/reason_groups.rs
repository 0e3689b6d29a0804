//! The reasons that many changes have in common, grouped. Knows plans and no form of output.

use std::cmp::Reverse;
use std::collections::HashMap;

use flotilla_deploy::plan::{Action, Change};
use flotilla_model::reason::Reason;

/// The number of changes from which on a reason is shown once for all of them.
const COMMON: usize = 4;

/// A reason that many changes have.
pub struct ReasonGroup<'a> {
    /// The action on their workers.
    pub action: Action,
    /// The reason; with `…` in the place of values, if those differ.
    pub reason: String,
    /// Whether all have it word for word, apart from its place.
    pub alike: bool,
    /// The changes, in the plan's order.
    pub members: Vec<&'a Change>,
}

/// The reasons of a plan's changes.
pub struct GroupedReasons<'a> {
    /// The reasons that many have in common, the most frequent first.
    pub common: Vec<ReasonGroup<'a>>,
    /// The changes that have other reasons, with those alone, in the plan's order.
    pub own: Vec<(&'a Change, Vec<&'a Reason>)>,
}

/// Changes that are shown together: they have one common reason, and each is in no other group, so that the numbers add up.
pub struct ChangeGroup<'a> {
    /// The action on their workers.
    pub action: Action,
    /// The changes, in the plan's order.
    pub members: Vec<&'a Change>,
    /// The common reasons that members have, with the number of those members.
    pub reasons: Vec<(&'a str, usize)>,
    /// The members that have reasons of their own beside them, with those alone.
    pub own: Vec<(&'a Change, &'a [&'a Reason])>,
}

impl<'a> GroupedReasons<'a> {
    /// Puts each change into the group of its most frequent common reason. Returns the groups, the largest first, and the changes that have
    /// no common reason.
    pub fn change_groups(&'a self) -> (Vec<ChangeGroup<'a>>, Vec<(&'a Change, &'a [&'a Reason])>) {
        let mut group_of: HashMap<*const Change, usize> = HashMap::new();
        let mut groups: Vec<ChangeGroup<'_>> = Vec::new();
        for common in &self.common {
            let new = |change: &&&Change| !group_of.contains_key(&std::ptr::from_ref::<Change>(change));
            let members: Vec<&Change> = common.members.iter().filter(new).copied().collect();
            if members.is_empty() {
                continue;
            }
            group_of.extend(members.iter().map(|change| (std::ptr::from_ref(*change), groups.len())));
            groups.push(ChangeGroup { action: common.action, members, reasons: Vec::new(), own: Vec::new() });
        }
        for common in &self.common {
            let mut numbers = vec![0; groups.len()];
            common.members.iter().for_each(|change| numbers[group_of[&std::ptr::from_ref(*change)]] += 1);
            for (group, number) in groups.iter_mut().zip(numbers).filter(|(_, number)| *number > 0) {
                group.reasons.push((&common.reason, number));
            }
        }
        let mut single = Vec::new();
        for (change, reasons) in &self.own {
            match group_of.get(&std::ptr::from_ref(*change)) {
                Some(group) => groups[*group].own.push((change, reasons)),
                None => single.push((*change, reasons.as_slice())),
            }
        }
        groups.iter_mut().for_each(|group| group.reasons.sort_by_key(|(_, number)| Reverse(*number)));
        groups.sort_by_key(|group| Reverse(group.members.len()));
        (groups, single)
    }
}

/// The index of a change, and of one of its reasons.
type ReasonIndex = (usize, usize);

/// An action, a text that reasons have in common, and these reasons.
type Group = (Action, String, Vec<ReasonIndex>);

/// Groups the reasons of changes: first those with the same text, then those about the same subject.
pub fn group_reasons(changes: &[Change]) -> GroupedReasons<'_> {
    let all = changes.iter().enumerate();
    let all: Vec<ReasonIndex> =
        all.flat_map(|(index, change)| (0..change.reasons.len()).map(move |of| (index, of))).collect();
    let reason = |(index, of): ReasonIndex| &changes[index].reasons[of];
    let group = |alike: bool| {
        move |(action, text, members): Group| {
            let first = reason(members[0]);
            // The place is shown if it is one, as in a layer.
            let one_place = alike && members.iter().all(|index| reason(*index).place() == first.place());
            let text = if one_place { first.to_string() } else { text };
            ReasonGroup { action, reason: text, alike, members: changes_of(changes, &members) }
        }
    };
    let (same, rest) = split_off_groups(changes, all, |index| reason(index).statement());
    let (similar, rest) = split_off_groups(changes, rest, |index| reason(index).pattern());
    let mut common: Vec<ReasonGroup<'_>> = same.into_iter().map(group(true)).collect();
    common.extend(similar.into_iter().map(group(false)));
    common.sort_by(|a, b| {
        (Reverse(a.members.len()), a.action, &a.reason).cmp(&(Reverse(b.members.len()), b.action, &b.reason))
    });
    let mut own: Vec<(&Change, Vec<&Reason>)> = Vec::new();
    let mut last = None;
    for (index, of) in rest {
        if last != Some(index) {
            own.push((&changes[index], Vec::new()));
            last = Some(index);
        }
        own.last_mut().expect("BUG: one was pushed").1.push(reason((index, of)));
    }
    GroupedReasons { common, own }
}

/// Groups reasons by action and text. Returns the large groups, and the other reasons in their order.
fn split_off_groups(
    changes: &[Change],
    reasons: Vec<ReasonIndex>,
    text: impl Fn(ReasonIndex) -> String,
) -> (Vec<Group>, Vec<ReasonIndex>) {
    let mut groups: HashMap<(Action, String), Vec<ReasonIndex>> = HashMap::new();
    for index in reasons {
        groups.entry((changes[index.0].action, text(index))).or_default().push(index);
    }
    let (mut large, mut rest) = (Vec::new(), Vec::new());
    for ((action, text), mut members) in groups {
        if changes_of(changes, &members).len() >= COMMON {
            large.push((action, text, members));
        } else {
            rest.append(&mut members);
        }
    }
    rest.sort_unstable();
    (large, rest)
}

/// Returns the changes that have these reasons, each once.
fn changes_of<'a>(changes: &'a [Change], reasons: &[ReasonIndex]) -> Vec<&'a Change> {
    let mut indices: Vec<usize> = reasons.iter().map(|(index, _)| *index).collect();
    indices.dedup();
    indices.into_iter().map(|index| &changes[index]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::super::tests::{change, recorded, runtime_changed};
    use super::*;

    fn shown<'a>(groups: &'a GroupedReasons<'_>) -> Vec<(&'a str, usize, bool)> {
        groups.common.iter().map(|group| (group.reason.as_str(), group.members.len(), group.alike)).collect()
    }

    #[test]
    fn what_many_have_in_common_is_one_group_and_the_others_keep_their_own() {
        let mut changes: Vec<Change> =
            (0..9).map(|index| change(index, Action::Update, vec![runtime_changed()])).collect();
        let value = Reason::value_changed(Some(("customers/c2.yaml", 3, 1)), "vars.A", json!("1"), json!("2"));
        let secret = Reason::SecretChanged { name: "KEY".to_owned() };
        changes[2].reasons.push(value.clone());
        changes[7].reasons.push(secret.clone());
        let groups = group_reasons(&changes);
        assert_eq!(shown(&groups), [("the pack's bundle changed", 9, true)]);
        let own: Vec<(&str, &[&Reason])> =
            groups.own.iter().map(|(change, own)| (change.worker.as_str(), own.as_slice())).collect();
        assert_eq!(own, [("t-c2", &[&value][..]), ("t-c7", &[&secret][..])]);
        assert_eq!(value.to_string(), "customers/c2.yaml:3:1 vars.A \"1\" → \"2\"");
    }

    #[test]
    fn the_same_edit_in_many_files_is_one_group() {
        let changes: Vec<Change> = (0..5)
            .map(|at| {
                let file = format!("customers/a file of c{at}.yaml");
                let mine = Reason::value_changed(Some((&file, at, 19)), "vars.GREETING", json!("a: b"), json!("c"));
                let layer = Some(("layers/eu.yaml", 3, 4));
                let all = Reason::value_changed(layer, "logLevel", json!("info"), json!("debug"));
                let place = Some((file.as_str(), 9, 1));
                let (old, new) = (json!(at.to_string()), json!(format!("x{at}")));
                let id = Reason::value_changed(place, "destinations[0].settings.pixelId", old, new);
                let domain = Reason::DomainAdded { new: format!("c{at}.example") };
                let cron = Reason::Crons { old: BTreeSet::new(), new: BTreeSet::from([format!("{at} * * * *")]) };
                change(at, Action::Update, vec![mine, all, id, domain, cron])
            })
            .collect();
        let groups = group_reasons(&changes);
        assert_eq!(
            shown(&groups),
            [
                ("crons …", 5, false),
                ("destinations[0].settings.pixelId … → …", 5, false),
                ("domain … added", 5, false),
                ("layers/eu.yaml:3:4 logLevel \"info\" → \"debug\"", 5, true),
                ("vars.GREETING \"a: b\" → \"c\"", 5, true),
            ]
        );
        assert!(groups.own.is_empty());
        // Few of a kind stay as they are.
        assert!(group_reasons(&changes[..3]).common.is_empty());
        assert_eq!(group_reasons(&changes[..3]).own[0].1.len(), 5);
    }

    #[test]
    fn a_reason_that_reads_like_another_is_not_taken_for_it() {
        // Sentences that parsing would take for values, places, domains.
        let sentences = ["a 1 → 2", "a 1 → 3", "a 1 → 4", "a 1 → 5"];
        let changes: Vec<Change> = (0..4)
            .map(|at| change(at, Action::Update, vec![Reason::Forced { reason: sentences[at].to_owned() }]))
            .collect();
        assert!(group_reasons(&changes).common.is_empty());
    }

    #[test]
    fn creating_isnt_updating_and_one_change_counts_once() {
        let four = || vec![recorded("x"), recorded("x"), recorded("x"), recorded("x")];
        let mut changes: Vec<Change> = (0..3).map(|index| change(index, Action::Update, four())).collect();
        changes.push(change(3, Action::Create, vec![recorded("x")]));
        assert!(group_reasons(&changes).common.is_empty());
        assert_eq!(group_reasons(&[]).common.len(), 0);
    }
}
