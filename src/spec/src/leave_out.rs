//! Leaves out of a document what was found faulty in it, in the smallest parts, so that the rest of it can be used: errors of one part
//! never hide another's. What was left out is marked, so that nothing is reported that only follows from it.

use std::collections::{HashMap, HashSet};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::schema::{Checker, Fault};
use crate::yaml::{Document, Kind, Node, Span};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::spec::Destination;

/// The number of times that a document is checked again for what is faulty without the parts that were left out.
const ROUNDS: usize = 16;

/// Leaves out what is faulty: what diagnostics of reading the document are about, and what its schema finds. A map or list under a key
/// that was probably meant to be another one is taken for that one's: what is wrong in it is returned.
pub fn leave_out(document: &mut Document, found: &[Diagnostic], checker: &Checker, subject: &str) -> Vec<Diagnostic> {
    Places::of(found).leave_out(document);
    complete_destinations(&mut document.root);
    settle(&mut document.root);
    let mut more = Vec::new();
    for _ in 0..ROUNDS {
        let mut faults = Faults::of(checker.faults(&document.root.to_value()));
        // That the whole has no name, or no id, says nothing about the rest of it.
        faults.is_value &= !matches!(document.root.kind, Kind::Map(_));
        let mut renamed = Renamed::default();
        if !faults.leave_out(&mut document.root, &mut renamed) {
            break;
        }
        settle(&mut document.root);
        if !renamed.within.is_empty() {
            let found = checker.check(document, &[], &document.root.to_value(), subject);
            more.extend(found.into_iter().filter(|found| renamed.has(found)));
            complete_destinations(&mut document.root);
        }
    }
    more
}

/// The faults of a node and of what is in it: by these, a node of any size is walked once.
#[derive(Default)]
struct Faults {
    /// Whether the node itself is faulty.
    is_value: bool,
    /// The unknown keys of the map, each with the key that was probably meant.
    keys: HashMap<String, Option<String>>,
    /// The faults of the entries and items.
    below: HashMap<String, Faults>,
}

impl Faults {
    fn of(all: Vec<Fault>) -> Faults {
        let mut faults = Faults::default();
        for fault in all {
            let (path, key) = match fault {
                Fault::Value(path) => (path, None),
                Fault::Key { path, key, meant } => (path, Some((key, meant))),
            };
            let node = path.into_iter().fold(&mut faults, |node, step| node.below.entry(step).or_default());
            match key {
                None => node.is_value = true,
                Some((key, meant)) => drop(node.keys.insert(key, meant)),
            }
        }
        faults
    }

    /// Leaves out what is faulty in a node; returns whether there was anything. The places within what has another key then are added to
    /// `renamed`.
    fn leave_out(&self, node: &mut Node, renamed: &mut Renamed) -> bool {
        if self.is_value {
            let is_new = !node.is_left_out();
            node.kind = Kind::LeftOut;
            return is_new;
        }
        let mut is_changed = false;
        match &mut node.kind {
            Kind::Map(entries) => {
                is_changed |= self.replace_keys(entries, renamed);
                for (key, _, node) in entries.iter_mut().filter(|_| !self.below.is_empty()) {
                    is_changed |= self.below.get(key).is_some_and(|faults| faults.leave_out(node, renamed));
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate().filter(|_| !self.below.is_empty()) {
                    is_changed |=
                        self.below.get(&index.to_string()).is_some_and(|faults| faults.leave_out(item, renamed));
                }
            }
            _ => {}
        }
        is_changed
    }

    /// Takes unknown keys out. The key that was probably meant, where it isn't there as well, gets the map or list, and otherwise counts
    /// as left out.
    fn replace_keys(&self, entries: &mut Vec<(String, Span, Node)>, renamed: &mut Renamed) -> bool {
        if self.keys.is_empty() {
            return false;
        }
        let (unknown, mut known): (Vec<_>, Vec<_>) =
            std::mem::take(entries).into_iter().partition(|(key, ..)| self.keys.contains_key(key));
        let is_changed = !unknown.is_empty();
        let mut names: HashSet<String> = known.iter().map(|(key, ..)| key.clone()).collect();
        for (key, span, node) in unknown {
            if let Some(Some(meant)) = self.keys.get(&key)
                && names.insert(meant.clone())
            {
                let node = match node.kind {
                    Kind::Map(_) | Kind::List(_) => node,
                    // It might be a secret, which no other error may show.
                    _ => Node { span: node.span, kind: Kind::LeftOut },
                };
                renamed.add(&node);
                known.push((meant.clone(), span, node));
            }
        }
        *entries = known;
        is_changed
    }
}

/// The places of what has another key than the one that is written.
#[derive(Default)]
struct Renamed {
    /// Of the maps and lists.
    own: HashSet<(usize, usize)>,
    /// Of the keys and values within them.
    within: HashSet<(usize, usize)>,
}

impl Renamed {
    fn add(&mut self, node: &Node) {
        self.own.insert((node.span.line, node.span.column));
        self.add_within(node);
    }

    fn add_within(&mut self, node: &Node) {
        let at = |span: &Span| (span.line, span.column);
        match &node.kind {
            Kind::Map(entries) => {
                self.within.extend(entries.iter().flat_map(|(_, span, node)| [at(span), at(&node.span)]));
                entries.iter().for_each(|(_, _, node)| self.add_within(node));
            }
            Kind::List(items) => {
                self.within.extend(items.iter().map(|item| at(&item.span)));
                items.iter().for_each(|item| self.add_within(item));
            }
            _ => {}
        }
    }

    /// Returns whether a finding is about something within: that the whole is something else than the key wants shows that another was meant.
    fn has(&self, found: &Diagnostic) -> bool {
        let at = (found.place.line, found.place.column);
        // A map begins where its first key does.
        self.within.contains(&at) && (found.code == Code::UnknownKey || !self.own.contains(&at))
    }
}

/// Marks a key of the root that is missing, or that isn't usable, as left out.
pub fn mark_key(document: &mut Document, key: &str) {
    let span = document.root.span;
    let Kind::Map(entries) = &mut document.root.kind else { return };
    match entries.iter_mut().find(|(name, ..)| name == key) {
        Some((_, _, node)) => node.kind = Kind::LeftOut,
        None => entries.push((key.to_owned(), span, Node { span, kind: Kind::LeftOut })),
    }
}

/// Takes items that were left out out of their lists, so that the others have the index that they have as JSON; a mark at the end stays.
fn settle(node: &mut Node) {
    match &mut node.kind {
        Kind::Map(entries) => entries.iter_mut().for_each(|(_, _, node)| settle(node)),
        Kind::List(items) => {
            if let Some(mark) = items.iter().find(|item| item.is_left_out()).cloned() {
                items.retain(|item| !item.is_left_out());
                items.push(mark);
            }
            items.iter_mut().for_each(settle);
        }
        _ => {}
    }
}

/// The places of what is faulty.
struct Places {
    /// Of values, or of keys without a value.
    values: HashSet<(usize, usize)>,
    /// Of keys that are there twice.
    twice: HashSet<(usize, usize)>,
}

impl Places {
    fn of(found: &[Diagnostic]) -> Places {
        let at = |place: &Place| (place.line, place.column);
        let twice = found.iter().filter(|found| found.code == Code::DuplicateKey);
        let twice = twice.flat_map(|found| found.related.iter().map(|(place, _)| at(place))).collect();
        Places { values: found.iter().map(|found| at(&found.place)).collect(), twice }
    }

    fn leave_out(&self, document: &mut Document) {
        if let Kind::Map(entries) = &mut document.root.kind {
            entries.iter_mut().for_each(|(_, span, node)| self.walk(Some(*span), node));
        }
    }

    fn walk(&self, key: Option<Span>, node: &mut Node) {
        let is_at = |places: &HashSet<(usize, usize)>, span: Span| places.contains(&(span.line, span.column));
        let is_faulty = match &node.kind {
            Kind::Empty => is_at(&self.values, node.span) || key.is_some_and(|key| is_at(&self.values, key)),
            Kind::Map(_) | Kind::List(_) | Kind::LeftOut => false,
            _ => is_at(&self.values, node.span),
        };
        if is_faulty || key.is_some_and(|key| is_at(&self.twice, key)) {
            node.kind = Kind::LeftOut;
        }
        match &mut node.kind {
            Kind::Map(entries) => entries.iter_mut().for_each(|(_, span, node)| self.walk(Some(*span), node)),
            Kind::List(items) => items.iter_mut().for_each(|item| self.walk(None, item)),
            _ => {}
        }
    }
}

/// Makes each destination in a file with errors readable, so that one which isn't hides nothing of the others, nor of its own settings.
/// A name or a type that is missing stands where its destination does, where an error is reported already.
fn complete_destinations(node: &mut Node) {
    let Kind::Map(entries) = &mut node.kind else { return };
    for (key, _, node) in entries {
        match &mut node.kind {
            Kind::List(items) if key.trim_end_matches('+') == "destinations" => {
                items.iter_mut().enumerate().for_each(|(index, item)| complete_destination(index, item));
            }
            Kind::Map(_) => complete_destinations(node),
            _ => {}
        }
    }
}

fn complete_destination(index: usize, item: &mut Node) {
    let is_readable = |value: Value| Destination::deserialize(&value).is_ok();
    if is_readable(item.to_value()) {
        return;
    }
    let span = item.span;
    let Kind::Map(entries) = &mut item.kind else { return };
    for key in ["name", "type"] {
        let text = || Kind::Text(format!("destinations[{index}]"));
        match entries.iter_mut().find(|(name, ..)| name == key) {
            Some((_, _, node)) if matches!(node.kind, Kind::Text(_)) => {}
            Some((_, _, node)) => node.kind = text(),
            None => entries.push((key.to_owned(), span, Node { span, kind: text() })),
        }
    }
    for (key, _, node) in entries {
        let name = || Value::from("x");
        let mut alone: Map<String, Value> =
            [("name".to_owned(), name()), ("type".to_owned(), name())].into_iter().collect();
        alone.insert(key.clone(), node.to_value());
        if !is_readable(Value::Object(alone)) {
            node.kind = Kind::LeftOut;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;
    use serde_json::json;

    /// A document of a schema without what is faulty in it, and the paths of what was left out.
    fn left(text: &str, checker: &Checker) -> (Value, Vec<String>) {
        fn paths(node: &Node, path: &str, found: &mut Vec<String>) {
            match &node.kind {
                Kind::LeftOut => found.push(path.to_owned()),
                Kind::Map(entries) => {
                    entries.iter().for_each(|(key, _, node)| paths(node, &format!("{path}/{key}"), found));
                }
                Kind::List(items) => {
                    items.iter().enumerate().for_each(|(index, node)| paths(node, &format!("{path}/{index}"), found));
                }
                _ => {}
            }
        }
        let (document, found) = yaml::parse("t.yaml", text.as_bytes());
        let mut document = document.unwrap();
        leave_out(&mut document, &found, checker, "a layer");
        let mut left_out = Vec::new();
        paths(&document.root, "", &mut left_out);
        (document.root.to_value(), left_out)
    }

    fn layer(text: &str) -> (Value, Vec<String>) {
        left(text, Checker::layer())
    }

    #[test]
    fn the_smallest_part_is_left_out() {
        let (value, left_out) = layer("logLevel: loud\nworkersDev: true\nvars: { A: 1, 2B: 2 }\n");
        assert_eq!(value, json!({"workersDev": true, "vars": {"A": 1}}));
        assert_eq!(left_out, ["/logLevel", "/vars/2B"]);
        let (value, left_out) = layer("workers: { web: { crons: 5, domains: [a.example] }, api: 7 }\n");
        assert_eq!(value, json!({"workers": {"web": {"domains": ["a.example"]}}}));
        assert_eq!(left_out, ["/workers/web/crons", "/workers/api"]);
    }

    #[test]
    fn the_other_items_of_a_list_keep_their_places() {
        let (value, left_out) = layer("crons: [5, a, 6, b]\nroutes: [{ zone: a }, { pattern: b, zone: b }]\n");
        assert_eq!(value, json!({"crons": ["a", "b"], "routes": [{"pattern": "b", "zone": "b"}]}));
        assert_eq!(left_out, ["/crons/2", "/routes/1"]);
    }

    #[test]
    fn a_map_or_list_is_taken_for_the_key_that_was_meant() {
        let (value, left_out) = layer("domain: [a.example]\nhostnames: []\nworkersDev: true\nworkerDev: false\n");
        assert_eq!((value, left_out), (json!({"workersDev": true, "domains": ["a.example"]}), Vec::<String>::new()));
        let (value, left_out) = layer("environments: { stagin: { crons: [] }, no_name: }\nlogLvel: info\n");
        let expected = json!({"environments": {"staging": {"crons": []}}});
        assert_eq!((value, left_out), (expected, vec!["/logLevel".to_owned()]));
        let text = "domain: { a: b }\nvar: { A: 1, 2B: { x: 1 } }\nbinding: { FILES: { r2: 5 }, B: { kvv: x } }\n";
        let (document, found) = yaml::parse("t.yaml", text.as_bytes());
        let mut document = document.unwrap();
        let more = leave_out(&mut document, &found, Checker::layer(), "a layer");
        let mut more: Vec<String> = more.iter().map(|found| format!("{} {}", found.code, found.place)).collect();
        more.sort_unstable();
        assert_eq!(more, ["S0201 t.yaml:3:35", "S0202 t.yaml:3:25", "S0205 t.yaml:2:14"]);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let (value, left_out) = layer("vars: { A: 1.10, B: x }\nlogLevel: info\nlogLevel: warn\n");
        assert_eq!(
            (value, left_out),
            (json!({"vars": {"B": "x"}}), vec!["/vars/A".to_owned(), "/logLevel".to_owned()])
        );
    }

    #[test]
    fn something_required_that_is_missing_leaves_out_what_requires_it() {
        let text = "accounts: { a: { id: 5, token: { secret: T } }, b: { id: { env: ID }, token: { secret: T } } }\n";
        let (value, left_out) = left(text, Checker::fleet());
        assert_eq!(value, json!({"accounts": {"b": {"id": {"env": "ID"}, "token": {"secret": "T"}}}}));
        assert_eq!(left_out, ["/accounts/a"]);
    }

    #[test]
    fn a_destination_stays_with_what_can_be_read_of_it() {
        let (value, _) =
            layer("destinations:\n- { name: 5, type: a, settings: { x: 1 } }\n- { type: b, settings: 5 }\n- c\n");
        let named = |index: usize| format!("destinations[{index}]");
        let expected =
            [json!({"name": named(0), "type": "a", "settings": {"x": 1}}), json!({"name": named(1), "type": "b"})];
        assert_eq!(value, json!({"destinations": expected}));
    }
}
