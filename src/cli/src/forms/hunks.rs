//! What many changes have in common: their reasons, put together. Knows plans and no form of output.

use std::cmp::Reverse;
use std::collections::HashMap;

use flotilla_deploy::plan::{Action, Change};

/// From so many changes on, a reason is told once for all of them.
const COMMON: usize = 4;

/// A reason that many changes have.
pub struct Hunk<'a> {
    /// What is done to their workers.
    pub action: Action,
    /// The reason; with `…` in the place of values, if those differ.
    pub reason: String,
    /// Whether all have it word for word, but for the place where it stands.
    pub alike: bool,
    /// The changes, in the plan's order.
    pub members: Vec<&'a Change>,
}

/// The reasons of a plan's changes.
pub struct Hunks<'a> {
    /// What many have in common, the most frequent first.
    pub common: Vec<Hunk<'a>>,
    /// The changes that have reasons beside, with those alone, in the plan's order.
    pub own: Vec<(&'a Change, Vec<&'a str>)>,
}

/// One reason of one change, by their places.
type Place = (usize, usize);

/// What is done, why, and where that is said.
type Group = (Action, String, Vec<Place>);

/// Puts together what changes have in common.
pub fn hunks(changes: &[Change]) -> Hunks<'_> {
    let all = changes.iter().enumerate();
    let all: Vec<Place> = all.flat_map(|(at, change)| (0..change.reasons.len()).map(move |of| (at, of))).collect();
    let reason = |(at, of): Place| changes[at].reasons[of].as_str();
    let mut common = Vec::new();
    let (same, rest) = put_together(changes, all, |at| split(reason(at)).1.to_owned());
    common.extend(same.into_iter().map(|(action, text, places)| {
        // Where it stands is told if that is one place, as in a layer.
        let first = reason(places[0]);
        let reason = if places.iter().all(|at| reason(*at) == first) { first.to_owned() } else { text };
        Hunk { action, reason, alike: true, members: members(changes, &places) }
    }));
    let (like, rest) = put_together(changes, rest, |at| kind(split(reason(at)).1));
    let hunk =
        |(action, reason, places): Group| Hunk { action, reason, alike: false, members: members(changes, &places) };
    common.extend(like.into_iter().map(hunk));
    common.sort_by(|a, b| {
        (Reverse(a.members.len()), a.action, &a.reason).cmp(&(Reverse(b.members.len()), b.action, &b.reason))
    });
    let mut own: Vec<(&Change, Vec<&str>)> = Vec::new();
    let mut last = None;
    for (at, of) in rest {
        if last != Some(at) {
            own.push((&changes[at], Vec::new()));
            last = Some(at);
        }
        own.last_mut().expect("BUG: one was pushed").1.push(reason((at, of)));
    }
    Hunks { common, own }
}

/// Groups by action and text; gives the large groups, and what is left over, in its order.
fn put_together(changes: &[Change], places: Vec<Place>, text: impl Fn(Place) -> String) -> (Vec<Group>, Vec<Place>) {
    let mut groups: HashMap<(Action, String), Vec<Place>> = HashMap::new();
    for at in places {
        groups.entry((changes[at.0].action, text(at))).or_default().push(at);
    }
    let (mut large, mut rest) = (Vec::new(), Vec::new());
    for ((action, text), mut places) in groups {
        if members(changes, &places).len() >= COMMON {
            large.push((action, text, places));
        } else {
            rest.append(&mut places);
        }
    }
    rest.sort_unstable();
    (large, rest)
}

/// The changes at some places, each once.
fn members<'a>(changes: &'a [Change], places: &[Place]) -> Vec<&'a Change> {
    let mut at: Vec<usize> = places.iter().map(|(at, _)| *at).collect();
    at.dedup();
    at.into_iter().map(|at| &changes[at]).collect()
}

/// A reason's place, if it begins with one as in `customers/acme.yaml:3:19`, and the rest.
fn split(reason: &str) -> (&str, &str) {
    // A file's name can have spaces; a place comes before any value, and those have quotes or arrows.
    for (at, _) in reason.match_indices(' ').take(8) {
        let mut parts = reason[..at].rsplitn(3, ':');
        let mut number =
            || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if number() && number() && parts.next().is_some_and(|file| !file.is_empty()) {
            return (&reason[..at], &reason[at + 1..]);
        }
    }
    ("", reason)
}

/// A reason without what differs from worker to worker: values, hosts, patterns.
fn kind(reason: &str) -> String {
    if let Some((before, _)) = reason.split_once(" → ") {
        let value = [" \"", " [", " {"].iter().filter_map(|sign| before.find(sign)).min().or(before.rfind(' '));
        return format!("{} … → …", &before[..value.unwrap_or(0)]);
    }
    let mut words = reason.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(thing @ ("domain" | "route")), Some(_), Some(what @ ("added" | "removed")), None) => {
            format!("{thing} … {what}")
        }
        (Some("crons"), Some(first), ..) if first != "removed" => "crons …".to_owned(),
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::change;
    use super::*;

    fn told<'a>(hunks: &'a Hunks<'_>) -> Vec<(&'a str, usize, bool)> {
        hunks.common.iter().map(|hunk| (hunk.reason.as_str(), hunk.members.len(), hunk.alike)).collect()
    }

    #[test]
    fn what_many_have_in_common_is_one_hunk_and_the_others_keep_their_own() {
        let mut changes: Vec<Change> = (0..9).map(|at| change(at, Action::Update, &["the runtime changed"])).collect();
        changes[2].reasons.push("customers/c2.yaml:3:1 vars.A \"1\" → \"2\"".to_owned());
        changes[7].reasons.push("secret KEY changed".to_owned());
        let hunks = hunks(&changes);
        assert_eq!(told(&hunks), [("the runtime changed", 9, true)]);
        let own: Vec<(&str, &[&str])> =
            hunks.own.iter().map(|(change, own)| (change.worker.as_str(), own.as_slice())).collect();
        assert_eq!(
            own,
            [("t-c2", &["customers/c2.yaml:3:1 vars.A \"1\" → \"2\""][..]), ("t-c7", &["secret KEY changed"][..])]
        );
    }

    #[test]
    fn the_same_edit_in_many_files_is_one_hunk() {
        let changes: Vec<Change> = (0..5)
            .map(|at| {
                let mine = format!("customers/a file of c{at}.yaml:{at}:19 vars.GREETING \"a: b\" → \"c\"");
                let all = "layers/eu.yaml:3:4 logLevel \"info\" → \"debug\"".to_owned();
                let id = format!("customers/c{at}.yaml:9:1 destinations[0].settings.pixelId \"{at}\" → \"x{at}\"");
                let (domain, cron) = (format!("domain c{at}.example added"), format!("crons {at} * * * *"));
                change(at, Action::Update, &[&mine, &all, &id, &domain, &cron])
            })
            .collect();
        assert_eq!(
            told(&hunks(&changes)),
            [
                ("crons …", 5, false),
                ("destinations[0].settings.pixelId … → …", 5, false),
                ("domain … added", 5, false),
                ("layers/eu.yaml:3:4 logLevel \"info\" → \"debug\"", 5, true),
                ("vars.GREETING \"a: b\" → \"c\"", 5, true),
            ]
        );
        assert!(hunks(&changes).own.is_empty());
        // Few of a kind stay as they are.
        assert!(hunks(&changes[..3]).common.is_empty());
        assert_eq!(hunks(&changes[..3]).own[0].1.len(), 5);
    }

    #[test]
    fn creating_isnt_updating_and_one_change_counts_once() {
        let mut changes: Vec<Change> = (0..3).map(|at| change(at, Action::Update, &["x", "x", "x", "x"])).collect();
        changes.push(change(3, Action::Create, &["x"]));
        assert!(hunks(&changes).common.is_empty());
        assert_eq!(hunks(&[]).common.len(), 0);
    }
}
