//! Layers: maps of settings laid over each other, each value with the place that it came from. Knows trees; doesn't
//! know the meaning of their keys.
//!
//! Maps are merged key by key, at every depth. A map with another `type` replaces the weaker one whole, and so does a binding of another
//! kind, an `account` with another `id`, and `placement`: what belongs to one type never mixes with what belongs to another. Lists and plain values replace; a list under
//! `key+` is appended to the weaker one's `key`. `null` removes what a weaker layer has; where there is nothing to remove, it is a value. A
//! value that was left out as faulty replaces weaker ones: its content is unknown.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::yaml::{Document, Kind, Node, Span};
use flotilla_model::binding;
use flotilla_model::diagnostic::Place;

/// Keys that define the type of a map rather than its content.
const TYPE: &str = "type";
/// The map at the top whose entries have their type in one of their keys.
const BINDINGS: &str = "bindings";
/// The map at the top that is one value.
const PLACEMENT: &str = "placement";
/// The map at the top that is one thing as long as its id is the same.
const ACCOUNT: &str = "account";
/// The size up to which a map's keys are found as fast by looking at each.
const FEW: usize = 32;

/// A value out of one or several layers.
#[derive(Clone, Debug)]
pub enum Merged<'a> {
    /// The value as it is in one layer.
    Whole(&'a Document, &'a Node),
    /// A map that several layers have a part in; in the order in which keys came up.
    Map(Vec<Entry<'a>>),
    /// A list that layers appended to.
    List(Vec<Merged<'a>>),
}

/// A key of a merged map.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    key: &'a str,
    at: (&'a Document, Span),
    value: Merged<'a>,
}

/// Returns the name of a key without the mark for appending, and whether it has the mark.
pub fn key_of(written: &str) -> (&str, bool) {
    match written.strip_suffix('+') {
        Some(key) => (key, true),
        None => (written, false),
    }
}

/// Lays maps over each other, the weakest first. Keys that `keep` refuses are left out, at the top only.
pub fn merge<'a>(layers: &[(&'a Document, &'a Node)], keep: impl Fn(&str) -> bool) -> Merged<'a> {
    let mut merged = Vec::new();
    for (document, node) in layers {
        if let Kind::Map(entries) = &node.kind {
            lay(&mut merged, document, entries, &keep, Inside::Top);
        }
    }
    Merged::Map(merged)
}

/// The place of a map in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Top,
    Bindings,
    Else,
}

fn lay<'a>(
    merged: &mut Vec<Entry<'a>>,
    document: &'a Document,
    entries: &'a [(String, Span, Node)],
    keep: &dyn Fn(&str) -> bool,
    inside: Inside,
) {
    // Few keys are compared one by one, many are looked up: a map can have as many keys as fit into a file.
    let many = merged.len().min(entries.len()) > FEW;
    let mut places: HashMap<&'a str, usize> = HashMap::new();
    if many {
        places.extend(merged.iter().enumerate().map(|(at, entry)| (entry.key, at)));
    }
    let mut gone: HashSet<usize> = HashSet::new();
    for (written, span, node) in entries {
        let (key, append) = match &node.kind {
            Kind::List(_) => key_of(written),
            _ => (written.as_str(), false),
        };
        if !keep(key) {
            continue;
        }
        let at = (document, *span);
        let below = match many {
            true => places.get(key).copied(),
            false => merged.iter().position(|entry| entry.key == key),
        };
        match (&node.kind, below) {
            (Kind::Empty | Kind::Null, Some(below)) if many => {
                places.remove(key);
                gone.insert(below);
            }
            (Kind::Empty | Kind::Null, Some(below)) => {
                merged.remove(below);
            }
            (Kind::Map(over), Some(below))
                if !(inside == Inside::Top && merged[below].value.is_apart(key, node))
                    && merged[below].value.takes(node, inside) =>
            {
                let entry = &mut merged[below];
                let mut parts = std::mem::replace(&mut entry.value, Merged::List(Vec::new())).into_entries();
                let inside = if inside == Inside::Top && key == BINDINGS { Inside::Bindings } else { Inside::Else };
                lay(&mut parts, document, over, &|_| true, inside);
                entry.value = Merged::Map(parts);
                entry.at = at;
            }
            (Kind::List(_), Some(below)) if append => {
                let entry = &mut merged[below];
                let mut items = std::mem::replace(&mut entry.value, Merged::List(Vec::new())).into_items();
                items.extend(Merged::Whole(document, node).into_items());
                entry.value = Merged::List(items);
                entry.at = at;
            }
            (_, Some(below)) => merged[below] = Entry { key, at, value: Merged::Whole(document, node) },
            (_, None) => {
                if many {
                    places.insert(key, merged.len());
                }
                merged.push(Entry { key, at, value: Merged::Whole(document, node) });
            }
        }
    }
    if !gone.is_empty() {
        let mut at = 0..;
        merged.retain(|_| at.next().is_some_and(|at| !gone.contains(&at)));
    }
}

impl<'a> Merged<'a> {
    /// Returns whether a stronger map under a key at the top takes the place of this one whatever is in it.
    fn is_apart(&self, key: &str, over: &Node) -> bool {
        let has_other_id = || match over.get("id").map(|node| &node.kind) {
            Some(Kind::Text(id)) => self.get("id").is_some_and(|own| own.text() != Some(id)),
            _ => false,
        };
        key == PLACEMENT || (key == ACCOUNT && has_other_id())
    }

    /// Returns whether a stronger map is merged into this one, rather than taking its place.
    fn takes(&self, over: &Node, inside: Inside) -> bool {
        let is_map = match self {
            Merged::Whole(_, node) => matches!(node.kind, Kind::Map(_)),
            Merged::Map(_) => true,
            Merged::List(_) => false,
        };
        if let (Inside::Bindings, Kind::Map(entries)) = (inside, &over.kind) {
            let kind = |keys: &[&str]| binding::Kind::of(keys.iter().copied()).map(binding::Kind::key);
            let written: Vec<&str> = entries.iter().map(|(key, ..)| key.as_str()).collect();
            return is_map && kind(&written).is_none_or(|other| kind(&self.keys()).is_none_or(|own| own == other));
        }
        let other = match over.get(TYPE).map(|node| &node.kind) {
            Some(Kind::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        is_map && (other.is_none() || self.get(TYPE).is_none_or(|own| own.text() == other))
    }

    fn into_entries(self) -> Vec<Entry<'a>> {
        match self {
            Merged::Map(entries) => entries,
            Merged::Whole(document, Node { kind: Kind::Map(entries), .. }) => entries
                .iter()
                .map(|(key, span, node)| Entry { key, at: (document, *span), value: Merged::Whole(document, node) })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn into_items(self) -> Vec<Merged<'a>> {
        match self {
            Merged::List(items) => items,
            Merged::Whole(document, Node { kind: Kind::List(items), .. }) => {
                // What was left out has no index.
                let known = items.iter().filter(|node| !node.is_left_out());
                known.map(|node| Merged::Whole(document, node)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the value as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Merged::Whole(_, node) => node.to_value(),
            Merged::Map(entries) => {
                let known = entries.iter().filter(|entry| !entry.value.is_left_out());
                Value::Object(known.map(|entry| (entry.key.to_owned(), entry.value.to_value())).collect::<Map<_, _>>())
            }
            Merged::List(items) => {
                Value::Array(items.iter().filter(|item| !item.is_left_out()).map(Merged::to_value).collect())
            }
        }
    }

    /// Returns whether it was left out as faulty.
    pub fn is_left_out(&self) -> bool {
        matches!(self, Merged::Whole(_, node) if node.is_left_out())
    }

    /// Returns the value under a key, or at an index.
    pub fn get(&self, step: &str) -> Option<Merged<'a>> {
        match self {
            Merged::Whole(document, node) => node.get(step).map(|node| Merged::Whole(document, node)),
            Merged::Map(entries) => entries.iter().find(|entry| entry.key == step).map(|entry| entry.value.clone()),
            Merged::List(items) => items.get(step.parse::<usize>().ok()?).cloned(),
        }
    }

    /// Text, if it is text.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Merged::Whole(_, Node { kind: Kind::Text(text), .. }) => Some(text),
            _ => None,
        }
    }

    /// Returns the keys of a map whose values aren't `null`.
    pub fn keys(&self) -> Vec<&'a str> {
        match self {
            Merged::Whole(_, Node { kind: Kind::Map(entries), .. }) => entries
                .iter()
                .filter(|entry| !entry.2.is_null() && !entry.2.is_left_out())
                .map(|entry| entry.0.as_str())
                .collect(),
            Merged::Map(entries) => {
                let is_set = |entry: &&Entry<'_>| !matches!(entry.value, Merged::Whole(_, node) if node.is_null() || node.is_left_out());
                entries.iter().filter(is_set).map(|entry| entry.key).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the document and node of the value at a path, where one layer alone has it.
    pub fn node(&self, path: &[&str]) -> Option<(&'a Document, &'a Node)> {
        let mut at = self.clone();
        for step in path {
            at = at.get(step)?;
        }
        match at {
            Merged::Whole(document, node) => Some((document, node)),
            _ => None,
        }
    }

    /// Returns the place of the value at a path, or of its nearest parent.
    pub fn place(&self, path: &[&str]) -> Option<Place> {
        self.find(path, false)
    }

    /// Returns the place of the last key of a path.
    pub fn key_place(&self, path: &[&str]) -> Option<Place> {
        self.find(path, true)
    }

    fn find(&self, path: &[&str], key: bool) -> Option<Place> {
        match self {
            Merged::Whole(document, node) => {
                let (last, above) = path.split_last().map_or((None, path), |(last, above)| (Some(*last), above));
                let above = node.along(above.iter().copied()).0;
                let span = last.filter(|_| key).and_then(|last| above.key_span(last));
                Some(document.place(span.unwrap_or_else(|| node.along(path.iter().copied()).0.span)))
            }
            Merged::Map(entries) => {
                let (first, rest) = path.split_first()?;
                let entry = entries.iter().find(|entry| entry.key == *first)?;
                if rest.is_empty() && key {
                    return Some(entry.at.0.place(entry.at.1));
                }
                entry.value.find(rest, key).or_else(|| Some(entry.at.0.place(entry.at.1)))
            }
            Merged::List(items) => {
                let (first, rest) = path.split_first()?;
                items.get(first.parse::<usize>().ok()?)?.find(rest, key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;
    use serde_json::json;

    fn documents(texts: &[&str]) -> Vec<Document> {
        let parse = |(index, text): (usize, &&str)| yaml::parse(&format!("{index}.yaml"), text.as_bytes()).0.unwrap();
        texts.iter().enumerate().map(parse).collect()
    }

    fn merged(documents: &[Document]) -> Merged<'_> {
        let layers: Vec<_> = documents.iter().map(|document| (document, &document.root)).collect();
        merge(&layers, |_| true)
    }

    fn value(texts: &[&str]) -> Value {
        merged(&documents(texts)).to_value()
    }

    #[test]
    fn maps_merge_lists_replace_and_null_removes() {
        assert_eq!(value(&["a: {b: 1, c: {d: 1}}", "a: {c: {e: 2}}"]), json!({"a": {"b": 1, "c": {"d": 1, "e": 2}}}));
        assert_eq!(value(&["a: [1, 2]", "a: [3]"]), json!({"a": [3]}));
        assert_eq!(value(&["a: [1]\nb: 1", "a: null\nb: ~", "c: 1"]), json!({"c": 1}));
        assert_eq!(value(&["a: {b: 1, c: 2}", "a: {b: null}"]), json!({"a": {"c": 2}}));
        assert_eq!(value(&["a: {b: {c: null}, d: [null]}"]), json!({"a": {"b": {"c": null}, "d": [null]}}));
        assert_eq!(value(&["a: 1", "a: {b: 1}", "a: [1]"]), json!({"a": [1]}));
    }

    #[test]
    fn many_keys_are_merged_as_few_are_and_in_time() {
        for count in [FEW, FEW + 1, 50_000] {
            let map = |value: &dyn Fn(usize) -> String| {
                let lines = (0..count).map(|index| format!("  k{index}: {}\n", value(index)));
                format!("a:\n{}", lines.collect::<String>())
            };
            let weak = map(&|index| format!("[{index}]"));
            // Every third one goes, every third one is replaced; the first one goes and comes back.
            let strong = map(&|index| match index % 3 {
                0 => "null".to_owned(),
                1 => "[new]".to_owned(),
                _ => "{ m: 1 }".to_owned(),
            });
            let strong = format!("{strong}  k0+: [again]\n  more: 1\n");
            let documents = documents(&[&weak, &strong]);
            let start = std::time::Instant::now();
            let value = merged(&documents).to_value();
            assert!(start.elapsed().as_secs() < 10, "{count} keys took {:?}", start.elapsed());
            let mut expected = Map::new();
            for index in 0..count {
                match index % 3 {
                    0 => None,
                    1 => expected.insert(format!("k{index}"), json!(["new"])),
                    _ => expected.insert(format!("k{index}"), json!({"m": 1})),
                };
            }
            expected.insert("k0".to_owned(), json!(["again"]));
            expected.insert("more".to_owned(), json!(1));
            assert!(value["a"] == Value::Object(expected), "{count} keys");
        }
    }

    #[test]
    fn lists_are_appended_to_where_they_are_marked() {
        assert_eq!(value(&["a: [1]", "a+: [2]", "a+: [3]"]), json!({"a": [1, 2, 3]}));
        assert_eq!(value(&["a+: [2]"]), json!({"a": [2]}));
        assert_eq!(value(&["a: [1]", "a+: [2]", "a: [3]"]), json!({"a": [3]}));
        assert_eq!(value(&["a: [1]", "a: null", "a+: [2]"]), json!({"a": [2]}));
    }

    #[test]
    fn another_type_replaces_a_map_whole() {
        assert_eq!(value(&["a: {type: x, b: 1}", "a: {type: y, c: 1}"]), json!({"a": {"type": "y", "c": 1}}));
        assert_eq!(value(&["a: {type: x, b: 1}", "a: {type: x, c: 1}"]), json!({"a": {"type": "x", "b": 1, "c": 1}}));
        assert_eq!(value(&["a: {type: x, b: 1}", "a: {b: 2}"]), json!({"a": {"type": "x", "b": 2}}));
        assert_eq!(value(&["a: {b: 1}", "a: {type: x}"]), json!({"a": {"b": 1, "type": "x"}}));
    }

    #[test]
    fn a_binding_of_another_kind_replaces_one_whole() {
        let weak = "bindings: {B: {r2: files, jurisdiction: eu}, C: {kv: 1}}";
        assert_eq!(
            value(&[weak, "bindings: {B: {worker: api}, C: null}"]),
            json!({"bindings": {"B": {"worker": "api"}}})
        );
        let other = json!({"bindings": {"B": {"r2": "other", "jurisdiction": "eu"}, "C": {"kv": 1}}});
        assert_eq!(value(&[weak, "bindings: {B: {r2: other}}"]), other);
        // `worker` alone is a kind; beside a class it isn't.
        let counter = "bindings: {B: {durableObject: Counter, worker: a}}";
        assert_eq!(value(&[counter, "bindings: {B: {worker: b}}"]), json!({"bindings": {"B": {"worker": "b"}}}));
        let placement = ["placement: {region: a}", "placement: {host: b}"];
        assert_eq!(value(&placement), json!({"placement": {"host": "b"}}));
        // Elsewhere, such keys mean nothing.
        assert_eq!(
            value(&["vars: {bindings: {B: {r2: a}}}", "vars: {bindings: {B: {kv: 1}}}"]),
            json!({"vars": {"bindings": {"B": {"r2": "a", "kv": 1}}}})
        );
    }

    #[test]
    fn each_value_knows_where_it_came_from() {
        let documents = documents(&["a: {b: 1,\n c: 2}\nl: [1]", "a:\n  c: 3\nl+: [2, 3]"]);
        let merged = merged(&documents);
        let place = |path: &[&str]| merged.place(path).unwrap().to_string();
        assert_eq!(place(&["a", "b"]), "0.yaml:1:8");
        assert_eq!(place(&["a", "c"]), "1.yaml:2:6");
        assert_eq!(place(&["l", "0"]), "0.yaml:3:5");
        assert_eq!(place(&["l", "2"]), "1.yaml:3:9");
        assert_eq!(merged.key_place(&["a", "c"]).unwrap().to_string(), "1.yaml:2:3");
        assert_eq!(place(&["a", "x"]), "1.yaml:1:1");
        assert!(merged.place(&["x"]).is_none());
    }
}
