//! The settings of a worker of which something was left out as faulty: what only follows from that isn't reported. Knows trees, not what
//! they mean.

use std::collections::BTreeSet;

use flotilla_spec::layer::key_of;
use flotilla_spec::yaml::{Kind, Node};

/// The settings of a worker that aren't known, as something of them was left out as faulty.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    /// Whether a whole source was left out, which may set anything.
    all: bool,
    /// The keys that aren't known; with `all`, those that are.
    keys: BTreeSet<String>,
    /// Whether there may be a source that sets something else than what is known.
    is_open: bool,
}

impl LeftOut {
    /// Notes that a source isn't known.
    pub(super) fn add_source(&mut self) {
        *self = LeftOut { all: true, keys: BTreeSet::new(), is_open: true };
    }

    /// Notes a source of which it isn't known whether it is one.
    pub(super) fn add_open(&mut self, node: &Node) {
        match &node.kind {
            Kind::Map(_) if ["workers", "environments"].into_iter().any(|key| node.get(key).is_some()) => {
                self.add_source();
            }
            Kind::Map(entries) => {
                self.is_open |= !entries.is_empty();
                entries.iter().for_each(|(written, ..)| self.note(key_of(written).0, false));
            }
            Kind::LeftOut => self.add_source(),
            _ => {}
        }
    }

    /// Notes what a source sets, which overrides the sources before it.
    pub(super) fn add(&mut self, node: &Node) {
        match &node.kind {
            Kind::LeftOut => self.add_source(),
            Kind::Map(entries) => {
                for (written, _, value) in entries {
                    let (key, is_appended) = key_of(written);
                    if value.has_left_out() {
                        self.note(key, false);
                    } else if !is_appended && !matches!(value.kind, Kind::Map(_)) {
                        self.note(key, true);
                    }
                }
            }
            _ => {}
        }
    }

    /// Notes what a source sets under a key of a map.
    pub(super) fn add_below(&mut self, node: &Node, map: &str, key: &str) {
        match node.get(map) {
            Some(node) if node.is_left_out() => self.add_source(),
            Some(node) => node.get(key).into_iter().for_each(|node| self.add(node)),
            None => {}
        }
    }

    /// Notes that a key isn't known.
    pub(super) fn leave_out(&mut self, key: &str) {
        self.note(key, false);
    }

    fn note(&mut self, key: &str, is_known: bool) {
        match is_known == self.all {
            true => drop(self.keys.insert(key.to_owned())),
            false => drop(self.keys.remove(key)),
        }
    }

    /// Returns whether it isn't known what is set under a key, or not all of it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.all != self.keys.contains(key)
    }

    /// Returns whether there may be a source that sets something else than what is known.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_spec::yaml;

    /// A source; of a text `left-out` it is known only that something is there.
    fn source(text: &str) -> Node {
        fn leave_out(node: &mut Node) {
            match &mut node.kind {
                Kind::Text(text) if text == "left-out" => node.kind = Kind::LeftOut,
                Kind::Map(entries) => entries.iter_mut().for_each(|(_, _, node)| leave_out(node)),
                Kind::List(items) => items.iter_mut().for_each(leave_out),
                _ => {}
            }
        }
        let mut root = yaml::parse("t.yaml", text.as_bytes()).0.unwrap().root;
        leave_out(&mut root);
        root
    }

    fn unknown(sources: &[&str]) -> Vec<&'static str> {
        let mut left_out = LeftOut::default();
        sources.iter().for_each(|text| left_out.add(&source(text)));
        ["account", "domains", "vars"].into_iter().filter(|key| left_out.has(key)).collect()
    }

    const WEAK: &str = "account: left-out\ndomains: [left-out]\nvars: {A: left-out}\n";

    #[test]
    fn what_a_stronger_source_sets_whole_is_known() {
        assert_eq!(unknown(&[WEAK]), ["account", "domains", "vars"]);
        assert_eq!(unknown(&[WEAK, "account: main\n"]), ["domains", "vars"]);
        assert_eq!(unknown(&[WEAK, "domains+: [b]\nvars: {B: 2}\n"]), ["account", "domains", "vars"]);
        assert_eq!(unknown(&[WEAK, "domains: null\nvars: null\n"]), ["account"]);
        assert_eq!(unknown(&["account: main\n", WEAK]), ["account", "domains", "vars"]);
    }

    #[test]
    fn a_source_that_is_left_out_may_set_anything_that_no_stronger_one_sets() {
        assert_eq!(unknown(&["account: main\n", "left-out"]), ["account", "domains", "vars"]);
        assert_eq!(unknown(&["left-out", "account: main\nvars: {A: 1}\n"]), ["domains", "vars"]);
        assert_eq!(unknown(&["left-out", "domains: [left-out]\n"]), ["account", "domains", "vars"]);
    }
}
