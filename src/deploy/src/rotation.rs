//! Decides which secrets an upload sends, and which ones it leaves to the platform to keep. Pure: knows names and
//! fingerprints, no values.

use std::collections::{BTreeMap, BTreeSet};

/// In place of a fingerprint: the secret was deployed, and the platform has lost it since. No value has this fingerprint.
pub const LOST: &str = "lost";

/// The part of a worker's secrets that an upload sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// The bindings whose values are sent.
    pub send: BTreeSet<String>,
    /// Whether the platform keeps the others: `keep_bindings`.
    pub keep: bool,
    /// The fingerprint of each secret that is live afterwards, by binding.
    pub live: BTreeMap<String, String>,
}

/// Secrets whose values have to be known here, and aren't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The names under which they are looked up.
    pub names: BTreeSet<String>,
    /// The bindings that are removed, if they are the reason: keeping secrets means keeping all of them.
    pub removed: BTreeSet<String>,
}

/// Decides for one worker. `wanted` has the name that is looked up for each binding; `live` the fingerprints of what
/// the worker has, or none if it is new or if they are unknown (an upload was interrupted); `known` the fingerprints
/// of the values that are known here, by binding.
///
/// A secret that the platform has [lost](LOST) isn't live.
///
/// Only what differs is sent, and a value that isn't known here stays as it is live. But the platform keeps either
/// all secrets that aren't sent or none: where a binding is removed, all others have to be sent.
pub fn sending(
    wanted: &BTreeMap<String, String>,
    live: Option<&BTreeMap<String, String>>,
    known: &BTreeMap<String, String>,
) -> Result<Sending, Missing> {
    let live = live.map(|live| without_lost(live.clone()));
    let live = live.as_ref();
    let removed: BTreeSet<String> =
        live.into_iter().flat_map(BTreeMap::keys).filter(|binding| !wanted.contains_key(*binding)).cloned().collect();
    let kept = live.filter(|_| removed.is_empty());
    let mut sending = Sending::default();
    let mut missing = BTreeSet::new();
    for (binding, name) in wanted {
        let before = kept.and_then(|live| live.get(binding));
        match (known.get(binding), before) {
            (Some(now), Some(before)) if now == before => sending.keep = true,
            (Some(_), _) => {
                sending.send.insert(binding.clone());
            }
            (None, Some(_)) => sending.keep = true,
            (None, None) => {
                missing.insert(name.clone());
            }
        }
        sending.live.extend(known.get(binding).or(before).map(|fingerprint| (binding.clone(), fingerprint.clone())));
    }
    if missing.is_empty() {
        return Ok(sending);
    }
    // A secret that was never there is missing in any case; then the removed bindings are not the reason.
    let explains = live
        .is_some_and(|live| wanted.iter().any(|(binding, name)| missing.contains(name) && live.contains_key(binding)));
    Err(Missing { names: missing, removed: if explains { removed } else { BTreeSet::new() } })
}

/// Returns fingerprints without those of secrets that the platform has lost.
pub fn without_lost(mut live: BTreeMap<String, String>) -> BTreeMap<String, String> {
    live.retain(|_, fingerprint| fingerprint != LOST);
    live
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.removed.is_empty() {
            return write!(f, "no value for {names}");
        }
        let removed = self.removed.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        write!(f, "no value for {names}: {removed} is removed, and then all other secrets have to be sent again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the bindings that are sent, followed by `+` if the rest is kept; or those that are missing.
    fn described(live: Option<&[(&str, &str)]>, known: &[(&str, &str)]) -> String {
        let wanted = map(&[("A", "A"), ("B", "NAME")]);
        match sending(&wanted, live.map(map).as_ref(), &map(known)) {
            Ok(sending) => {
                let send: Vec<&str> = sending.send.iter().map(String::as_str).collect();
                format!("{}{}", send.join(""), if sending.keep { "+" } else { "" })
            }
            Err(missing) => missing.to_string(),
        }
    }

    #[test]
    fn a_new_worker_is_sent_all() {
        assert_eq!(described(None, &[("A", "1"), ("B", "2")]), "AB");
        assert_eq!(described(None, &[("A", "1")]), "no value for NAME");
    }

    #[test]
    fn only_what_differs_is_sent_and_the_rest_is_kept() {
        let live: &[_] = &[("A", "1"), ("B", "2")];
        assert_eq!(described(Some(live), &[("A", "1"), ("B", "2")]), "+");
        assert_eq!(described(Some(live), &[("A", "1"), ("B", "3")]), "B+");
        assert_eq!(described(Some(live), &[("A", "9"), ("B", "3")]), "AB");
        assert_eq!(described(Some(live), &[("A", "1")]), "+", "what isn't known here stays");
        assert_eq!(described(Some(live), &[]), "+");
        assert_eq!(described(Some(&[("A", "1")]), &[("B", "2")]), "B+", "a new binding is sent");
        assert_eq!(described(Some(&[("A", "1")]), &[("A", "1")]), "no value for NAME");
    }

    #[test]
    fn what_the_platform_has_lost_is_sent_again() {
        let live: &[_] = &[("A", "1"), ("B", LOST)];
        assert_eq!(described(Some(live), &[("A", "1"), ("B", "2")]), "B+");
        assert_eq!(described(Some(live), &[("A", "1")]), "no value for NAME");
        assert_eq!(described(Some(&[("A", "1"), ("B", "2"), ("GONE", LOST)]), &[]), "+", "there is nothing to remove");
    }

    #[test]
    fn where_a_binding_goes_nothing_is_kept() {
        let live: &[_] = &[("A", "1"), ("B", "2"), ("GONE", "3")];
        assert_eq!(described(Some(live), &[("A", "1"), ("B", "2")]), "AB");
        let described = described(Some(live), &[("A", "1")]);
        assert_eq!(described, "no value for NAME: GONE is removed, and then all other secrets have to be sent again");
    }

    proptest! {
        /// Applied as the platform does it, the worker has what is wanted: with the values that are known here, and else with
        /// those that it had.
        #[test]
        fn what_is_live_afterwards_is_what_is_wanted(
            wanted in prop::collection::btree_set("[A-E]", 0..5),
            live in prop::option::of(prop::collection::btree_map("[A-E]", "[1-3]", 0..5)),
            known in prop::collection::btree_map("[A-E]", "[1-3]", 0..5),
        ) {
            let names = wanted.iter().map(|binding| (binding.clone(), binding.clone())).collect();
            match sending(&names, live.as_ref(), &known) {
                Ok(sending) => {
                    let mut after: BTreeMap<String, String> = sending.send.iter().map(|b| (b.clone(), known[b].clone())).collect();
                    if sending.keep {
                        for (binding, value) in live.iter().flatten() {
                            after.entry(binding.clone()).or_insert(value.clone());
                        }
                    }
                    prop_assert!(after.keys().eq(wanted.iter()), "{:?}", after);
                    for (binding, value) in &after {
                        let right = known.get(binding).or_else(|| live.as_ref()?.get(binding));
                        prop_assert_eq!(Some(value), right);
                    }
                    prop_assert_eq!(after, sending.live);
                }
                Err(missing) => prop_assert!(missing.names.iter().all(|name| !known.contains_key(name))),
            }
        }
    }
}
