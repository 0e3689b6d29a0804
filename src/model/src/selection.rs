//! A part of a fleet: ids and globs, label selectors, environments; parsed once, then matched with each worker. Knows
//! neither the command line nor where customers come from.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use wildmatch::WildMatch;

use crate::diagnostic::did_you_mean;
use crate::spec::Environment;

/// A part of a fleet. A worker must match all of its parts; the default is the whole fleet.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    ids: HashSet<String>,
    globs: Vec<Glob>,
    requirements: Vec<Requirement>,
    environments: BTreeSet<Environment>,
}

impl Selection {
    /// Returns the selection of these customers (ids and globs), label selectors and environments together.
    pub fn new(
        customers: &[String],
        selectors: impl IntoIterator<Item = Selector>,
        environments: impl IntoIterator<Item = Environment>,
    ) -> Selection {
        let (globs, ids): (Vec<&String>, Vec<&String>) = customers.iter().partition(|text| is_glob(text));
        Selection {
            ids: ids.into_iter().cloned().collect(),
            globs: globs.into_iter().map(|text| Glob(text.clone(), WildMatch::new(text))).collect(),
            requirements: selectors.into_iter().flat_map(|selector| selector.0).collect(),
            environments: environments.into_iter().collect(),
        }
    }

    /// Returns whether it is the whole fleet.
    pub fn is_all(&self) -> bool {
        self.is_every_customer() && self.requirements.is_empty() && self.environments.is_empty()
    }

    /// Returns whether customers are selected neither by id nor by glob.
    pub fn is_every_customer(&self) -> bool {
        self.ids.is_empty() && self.globs.is_empty()
    }

    /// Returns whether a worker belongs to it; `label` gives its labels by key.
    pub fn matches<'l>(
        &self,
        customer: &str,
        label: impl Fn(&str) -> Option<&'l str>,
        environment: Environment,
    ) -> bool {
        (self.environments.is_empty() || self.environments.contains(&environment))
            && self.matches_id(customer)
            && self.requirements.iter().all(|requirement| requirement.holds(label(&requirement.key)))
    }

    /// Returns whether a customer's id belongs to it, whatever its labels and environments are.
    pub fn matches_id(&self, customer: &str) -> bool {
        self.is_every_customer() || self.names(customer) || self.globs.iter().any(|glob| glob.1.matches(customer))
    }

    /// Returns whether a customer is selected by its id itself, not by a glob.
    pub fn names(&self, customer: &str) -> bool {
        self.ids.contains(customer)
    }

    /// Returns its first part that matches no customer: an id, a glob, or the key of a label. `keys` are those of all
    /// labels, if they are known.
    pub fn unknown(&self, ids: &BTreeSet<&str>, keys: Option<&BTreeSet<&str>>) -> Option<Unknown> {
        let of = |what, written: &str, near: Option<&str>| {
            Some(Unknown { what, written: written.to_owned(), near: near.map(str::to_owned) })
        };
        // In alphabetical order, so that the same errors give the same message.
        let id = self.ids.iter().filter(|id| !ids.contains(id.as_str())).min();
        if let Some(id) = id {
            return of(What::Id, id, did_you_mean(id, ids.iter().copied()));
        }
        if let Some(Glob(text, _)) = self.globs.iter().find(|glob| !ids.iter().any(|id| glob.1.matches(id))) {
            let letters = text.replace(['*', '?'], "");
            return of(What::Glob, text, did_you_mean(&letters, ids.iter().copied()));
        }
        let keys = keys?;
        let key = self.requirements.iter().map(|requirement| &requirement.key).find(|key| !keys.contains(key.as_str()));
        key.and_then(|key| of(What::Key, key, did_you_mean(key, keys.iter().copied())))
    }
}

impl Selection {
    /// Returns why no customer matches it, given workers with their environments and labels.
    pub fn empty_part<'l>(
        &self,
        workers: impl Iterator<Item = (Environment, &'l [(String, String)])> + Clone,
    ) -> EmptyPart {
        let is_there = |environment| self.environments.contains(&environment);
        if !self.environments.is_empty() && !workers.clone().any(|(environment, _)| is_there(environment)) {
            return EmptyPart::Environments;
        }
        for requirement in &self.requirements {
            let label = |labels: &'l [(String, String)]| {
                labels.iter().find(|label| label.0 == requirement.key).map(|label| label.1.as_str())
            };
            if workers.clone().any(|(_, labels)| requirement.holds(label(labels))) {
                continue;
            }
            let known: BTreeSet<&str> = workers.clone().filter_map(|(_, labels)| label(labels)).collect();
            let wanted = match &requirement.wants {
                Wants::OneOf(values) => values.first().map(String::as_str),
                _ => None,
            };
            let near = wanted.and_then(|wanted| did_you_mean(wanted, known.iter().copied())).map(str::to_owned);
            return EmptyPart::Label {
                requirement: Selector(vec![requirement.clone()]).to_string(),
                key: requirement.key.clone(),
                near,
                known: known.into_iter().take(10).map(str::to_owned).collect(),
            };
        }
        EmptyPart::Together
    }
}

/// The reason why no customer matches a selection.
#[derive(Debug, PartialEq, Eq)]
pub enum EmptyPart {
    /// No worker is in its environments.
    Environments,
    /// No worker fulfils one of its requirements.
    Label {
        /// The requirement, as it is written.
        requirement: String,
        /// The label's key.
        key: String,
        /// The value that was probably meant.
        near: Option<String>,
        /// The values that the label has.
        known: Vec<String>,
    },
    /// Each part matches a customer, but no customer matches all of them.
    Together,
}

/// A part of a selection that no customer has.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its kind.
    pub what: What,
    /// The text as it was written.
    pub written: String,
    /// The name that was probably meant.
    pub near: Option<String>,
}

/// The kinds of unknown parts of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A customer's id.
    Id,
    /// A glob for ids.
    Glob,
    /// A label's key.
    Key,
}

/// A glob as it was written, and ready to match.
#[derive(Clone, Debug)]
struct Glob(String, WildMatch);

/// Returns whether a text selects customers by a pattern: `*` matches any letters, `?` one.
fn is_glob(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// A label selector as kubectl knows them: `tier=gold,region!=eu,!legacy,plan in (a,b)`. All of its requirements have
/// to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wants {
    /// `key`
    Present,
    /// `!key`
    Absent,
    /// `key=value`, `key==value`, `key in (a,b)`
    OneOf(Vec<String>),
    /// `key!=value`, `key notin (a,b)`: also where there is no such label, as with kubectl.
    NoneOf(Vec<String>),
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        match &self.wants {
            Wants::Present => label.is_some(),
            Wants::Absent => label.is_none(),
            Wants::OneOf(values) => label.is_some_and(|label| values.iter().any(|value| value == label)),
            Wants::NoneOf(values) => label.is_none_or(|label| !values.iter().any(|value| value == label)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, wants }) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match wants {
                Wants::Present => write!(f, "{key}"),
                Wants::Absent => write!(f, "!{key}"),
                Wants::OneOf(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
                Wants::NoneOf(values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
                Wants::OneOf(values) => write!(f, "{key} in ({})", values.join(",")),
                Wants::NoneOf(values) => write!(f, "{key} notin ({})", values.join(",")),
            }?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Selector, String> {
        let mut rest = text;
        let mut requirements = Vec::new();
        loop {
            requirements.push(requirement(&mut rest)?);
            match token(&mut rest) {
                "" => return Ok(Selector(requirements)),
                "," => {}
                other => return Err(format!("`{other}` where a comma or the end is expected")),
            }
        }
    }
}

fn requirement(rest: &mut &str) -> Result<Requirement, String> {
    let negated = peek(rest) == "!";
    if negated {
        token(rest);
    }
    let key = word(rest, "a label's key")?;
    let wants = match peek(rest) {
        _ if negated => Wants::Absent,
        "" | "," => Wants::Present,
        operator => {
            token(rest);
            match operator {
                "=" | "==" => Wants::OneOf(vec![value(rest)?]),
                "!=" => Wants::NoneOf(vec![value(rest)?]),
                "in" => Wants::OneOf(values(rest)?),
                "notin" => Wants::NoneOf(values(rest)?),
                other => {
                    let known = "`=`, `!=`, `in (a,b)` or `notin (a,b)`";
                    return Err(format!("`{other}` after `{key}`, where {known} is expected"));
                }
            }
        }
    };
    Ok(Requirement { key, wants })
}

/// Returns a label's value; it can be empty, as in `tier=`.
fn value(rest: &mut &str) -> Result<String, String> {
    match peek(rest) {
        "" | "," => Ok(String::new()),
        _ => word(rest, "a value"),
    }
}

/// `(a,b)`.
fn values(rest: &mut &str) -> Result<Vec<String>, String> {
    let expected = "write the values in parentheses: `tier in (gold,silver)`";
    if token(rest) != "(" {
        return Err(expected.to_owned());
    }
    let mut values = Vec::new();
    loop {
        values.push(word(rest, "a value")?);
        match token(rest) {
            "," => {}
            ")" => return Ok(values),
            _ => return Err(expected.to_owned()),
        }
    }
}

fn word(rest: &mut &str, what: &str) -> Result<String, String> {
    match token(rest) {
        "" => Err(format!("{what} is missing at the end")),
        sign if sign.starts_with(SIGNS) => Err(format!("`{sign}` where {what} is expected")),
        word => Ok(word.to_owned()),
    }
}

/// Characters that a key or a value can't have.
const SIGNS: [char; 5] = [',', '!', '=', '(', ')'];

/// Takes the next sign or word; none at the end.
fn token<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let length = match text.as_bytes() {
        [b'=' | b'!', b'=', ..] => 2,
        [b',' | b'!' | b'=' | b'(' | b')', ..] => 1,
        _ => text.find(|c: char| c.is_whitespace() || SIGNS.contains(&c)).unwrap_or(text.len()),
    };
    let (token, after) = text.split_at(length);
    *rest = after;
    token
}

fn peek<'a>(rest: &&'a str) -> &'a str {
    token(&mut { *rest })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        text.split(',').filter_map(pair).collect()
    }

    fn of<'l>(labels: &'l BTreeMap<String, String>) -> impl Fn(&str) -> Option<&'l str> {
        |key| labels.get(key).map(String::as_str)
    }

    fn selection(customers: &[&str], selectors: &[&str], environments: &[Environment]) -> Selection {
        let customers: Vec<String> = customers.iter().map(|text| (*text).to_owned()).collect();
        let selectors = selectors.iter().map(|text| text.parse().expect("a selector"));
        Selection::new(&customers, selectors, environments.iter().copied())
    }

    #[track_caller]
    fn holds(selector: &str, label: &str, expected: bool) {
        let selection = selection(&[], &[selector], &[]);
        let found = selection.matches("acme", of(&labels(label)), Environment::Production);
        assert_eq!(found, expected, "{selector} of {label}");
    }

    #[test]
    fn the_part_that_nobody_fulfils_is_named() {
        let labels = |text: &str| -> Vec<(String, String)> {
            text.split(',')
                .filter_map(|label| label.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect()
        };
        let (gold, silver) = (labels("tier=gold,canary=true"), labels("tier=silver"));
        let workers = [(Environment::Production, gold.as_slice()), (Environment::Production, silver.as_slice())];
        let empty = |selectors: &[&str], environments: &[Environment]| {
            let selectors: Vec<Selector> = selectors.iter().map(|text| text.parse().unwrap()).collect();
            Selection::new(&[], selectors, environments.iter().copied()).empty_part(workers.iter().copied())
        };
        let label = |requirement: &str, key: &str, near: Option<&str>, known: &[&str]| EmptyPart::Label {
            requirement: requirement.to_owned(),
            key: key.to_owned(),
            near: near.map(str::to_owned),
            known: known.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert_eq!(empty(&["canary=ture"], &[]), label("canary=ture", "canary", Some("true"), &["true"]));
        assert_eq!(empty(&["tier=gold,!tier"], &[]), label("!tier", "tier", None, &["gold", "silver"]));
        assert_eq!(empty(&["tier=silver,canary"], &[]), EmptyPart::Together);
        assert_eq!(empty(&["tier"], &[Environment::Staging]), EmptyPart::Environments);
    }

    #[test]
    fn selectors_mean_what_they_mean_to_kubectl() {
        for (selector, yes, no) in [
            ("tier=gold", "tier=gold,x=y", "tier=silver"),
            ("tier == gold", "tier=gold", "x=gold"),
            ("tier!=gold", "tier=silver", "tier=gold"),
            ("tier!=gold", "", "tier=gold"),
            ("tier", "tier=", "x=tier"),
            ("!tier", "x=tier", "tier=gold"),
            ("! tier", "", "tier="),
            ("tier in (gold, silver)", "tier=silver", "tier=bronze"),
            ("tier in (gold)", "tier=gold", ""),
            ("tier notin (gold,silver)", "tier=bronze", "tier=gold"),
            ("tier notin (gold,silver)", "", "tier=silver"),
            ("tier=gold,region!=eu", "tier=gold,region=us", "tier=gold,region=eu"),
            ("tier=gold,region!=eu", "tier=gold", "region=us"),
            ("tier in (a,b),!x , y", "tier=b,y=1", "tier=b,y=1,x=1"),
            ("tier=", "tier=", "tier=gold"),
            ("tier=,x", "tier=,x=1", "tier="),
            ("example.com/team=a-b_c", "example.com/team=a-b_c", "example.com/team=a"),
            // `in` and `notin` are words where no operator can stand.
            ("in=in", "in=in", "in=out"),
            ("in in (in)", "in=in", ""),
            ("größe=groß", "größe=groß", "größe=klein"),
        ] {
            holds(selector, yes, true);
            holds(selector, no, false);
            // Written again, it is the same.
            let read: Selector = selector.parse().expect("a selector");
            assert_eq!(read.to_string().parse(), Ok(read), "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told() {
        for (selector, message) in [
            ("", "a label's key is missing at the end"),
            (" ", "a label's key is missing at the end"),
            ("tier=gold,", "a label's key is missing at the end"),
            (",tier", "`,` where a label's key is expected"),
            ("=gold", "`=` where a label's key is expected"),
            ("!!tier", "`!` where a label's key is expected"),
            ("!tier=gold", "`=` where a comma or the end is expected"),
            ("tier=gold silver", "`silver` where a comma or the end is expected"),
            ("tier gold", "`gold` after `tier`, where `=`, `!=`, `in (a,b)` or `notin (a,b)` is expected"),
            ("tier=(gold)", "`(` where a value is expected"),
            ("tier===gold", "`=` where a value is expected"),
            ("tier in gold", "write the values in parentheses: `tier in (gold,silver)`"),
            ("tier in (gold", "write the values in parentheses: `tier in (gold,silver)`"),
            ("tier in ()", "`)` where a value is expected"),
            ("tier in (gold,)", "`)` where a value is expected"),
            ("tier notin", "write the values in parentheses: `tier in (gold,silver)`"),
        ] {
            assert_eq!(selector.parse::<Selector>(), Err(message.to_owned()), "{selector:?}");
        }
    }

    #[test]
    fn ids_globs_labels_and_environments_hold_together() {
        use Environment::{Production, Staging};
        let none = BTreeMap::new();
        let all = selection(&[], &[], &[]);
        assert!(all.is_all() && all.matches("acme", of(&none), Production));
        let some = selection(&["acme", "shop-*", "b?"], &["tier=gold"], &[Staging]);
        let gold = labels("tier=gold");
        for id in ["acme", "shop-", "shop-eu", "b1"] {
            assert!(some.matches(id, of(&gold), Staging), "{id}");
            assert!(!some.matches(id, of(&gold), Production) && !some.matches(id, of(&none), Staging), "{id}");
        }
        for id in ["acme-eu", "shop", "my-shop-eu", "b", "b12"] {
            assert!(!some.matches(id, of(&gold), Staging), "{id}");
        }
        assert!(some.names("acme") && !some.names("shop-eu") && some.matches_id("shop-eu"));
        // Several selectors hold together; several environments are alternatives.
        let both = selection(&[], &["tier=gold", "region=eu"], &[Staging, Production]);
        assert!(both.matches("acme", of(&labels("tier=gold,region=eu")), Production));
        assert!(!both.matches("acme", of(&gold), Production));
    }

    #[test]
    fn what_no_customer_has_is_found() {
        let ids = BTreeSet::from(["acme", "juniper", "shop-eu"]);
        let keys = BTreeSet::from(["tier", "region"]);
        let unknown = |customers: &[&str], selectors: &[&str]| {
            let found = selection(customers, selectors, &[]).unknown(&ids, Some(&keys));
            found.map(|unknown| (unknown.what, unknown.written, unknown.near))
        };
        let some = |what, written: &str, near: Option<&str>| Some((what, written.to_owned(), near.map(str::to_owned)));
        assert_eq!(unknown(&["acme", "shop-*", "*"], &["tier=gold", "!region"]), None);
        assert_eq!(unknown(&["acmee"], &[]), some(What::Id, "acmee", Some("acme")));
        assert_eq!(unknown(&["zebra"], &[]), some(What::Id, "zebra", None));
        assert_eq!(unknown(&["jumiper*"], &[]), some(What::Glob, "jumiper*", Some("juniper")));
        assert_eq!(unknown(&[], &["tier=gold,!regoin"]), some(What::Key, "regoin", Some("region")));
        // Where some labels can't be known, none is called unknown.
        assert_eq!(selection(&[], &["regoin"], &[]).unknown(&ids, None), None);
    }
}
