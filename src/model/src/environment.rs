//! The environments of a fleet: those that each fleet has words for, and a team's own. A value is as cheap as a number, because each
//! worker, record and line of the state has one.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The longest name.
pub const LENGTH: usize = 30;
/// The JSON Schema format of a name. It is checked by [`Environment::written`].
pub const FORMAT: &str = "environment";
/// The same for one that isn't that of previews: see [`Environment::lasting`].
pub const LASTING: &str = "lasting-environment";
/// The pattern of a name.
pub const PATTERN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
/// The folders of out/ that aren't an environment's.
const FOLDERS: [&str; 2] = ["bundles", "runtime"];
/// The names that no file can have on Windows. Those with a digit come from [`NUMBERED`].
const DEVICES: [&str; 4] = ["aux", "con", "nul", "prn"];
/// The beginnings of names that no file can have on Windows, if one digit follows.
const NUMBERED: [&str; 2] = ["com", "lpt"];

/// An environment of a worker. The order is that of plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Environment {
    /// For development.
    Development,
    /// One of the team's own, such as `qa`.
    Named(Name),
    /// For tests before production.
    Staging,
    /// For users.
    Production,
    /// Temporary: see [`crate::preview`].
    Preview,
}

/// The name of an environment that is a team's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(&'static str);

/// The reason why a text can't be the name of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its form.
    Form,
    /// It is the name of something else.
    Reserved,
    /// It is this name, with a typing error.
    Misspelt(&'static str),
}

impl Environment {
    /// The lasting ones that need no declaration.
    pub const USUAL: [Environment; 3] = [Environment::Development, Environment::Staging, Environment::Production];

    /// Returns the environment of a name, that of previews included; `None` for a text that can't be a name.
    pub fn of(name: &str) -> Option<Environment> {
        Some(match name {
            "development" => Environment::Development,
            "staging" => Environment::Staging,
            "production" => Environment::Production,
            "preview" => Environment::Preview,
            _ if !has_form(name) || is_reserved(name) => return None,
            _ => Environment::Named(Name(interned(name))),
        })
    }

    /// Returns the environment of a name that a person wrote. One that is almost `production` is a typing error: as a name of its own, it
    /// would be a second worker beside the one that was meant.
    pub fn written(name: &str) -> Result<Environment, Flaw> {
        let lower = name.to_lowercase();
        let usual = ["development", "staging", "production", "preview"];
        if let Some(near) = usual.into_iter().find(|usual| lower != name && lower == **usual) {
            return Err(Flaw::Misspelt(near));
        }
        match Environment::of(name) {
            None if has_form(name) => Err(Flaw::Reserved),
            None => Err(Flaw::Form),
            Some(Environment::Named(_)) => match usual.into_iter().find(|usual| is_misspelt(name, usual)) {
                Some(near) => Err(Flaw::Misspelt(near)),
                None => Ok(Environment::of(name).expect("BUG: it has a name's form")),
            },
            Some(environment) => Ok(environment),
        }
    }

    /// The same of one that isn't that of previews.
    pub fn lasting(name: &str) -> Result<Environment, Flaw> {
        match Environment::written(name)? {
            Environment::Preview => Err(Flaw::Reserved),
            environment => Ok(environment),
        }
    }

    /// Returns the environment of a name that has one of the formats; `None` if the format is another one.
    pub fn with_format(format: &str, name: &str) -> Option<Result<Environment, Flaw>> {
        match format {
            FORMAT => Some(Environment::written(name)),
            LASTING => Some(Environment::lasting(name)),
            _ => None,
        }
    }

    /// Returns whether it is one of the team's own.
    pub fn is_own(self) -> bool {
        matches!(self, Environment::Named(_))
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Named(Name(name)) => name,
            Environment::Staging => "staging",
            Environment::Production => "production",
            Environment::Preview => "preview",
        }
    }
}

impl Flaw {
    /// Returns what to write instead.
    pub fn help(self) -> String {
        match self {
            Flaw::Form => format!(
                "the name of an environment has lower-case letters, digits and hyphens between them, at most {LENGTH} characters"
            ),
            Flaw::Reserved => "choose another name: `preview` and `preview-…` are for previews, `runtime` and `bundles` are folders of out/, and \
                               Windows has no folders called con, prn, aux, nul, com1 or lpt1"
                .to_owned(),
            Flaw::Misspelt(near) => format!("did you mean `{near}`?"),
        }
    }
}

/// Returns whether a name is another one with a typing error. `staging2` and `production-eu` aren't: what is added is meant.
pub fn is_misspelt(name: &str, meant: &str) -> bool {
    let is_added = |rest: &str| rest.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let edits = if meant.len() < 8 { 1 } else { 2 };
    name != meant
        && meant.len() > 3
        && !name.strip_prefix(meant).is_some_and(is_added)
        && strsim::damerau_levenshtein(name, meant) <= edits
}

fn has_form(name: &str) -> bool {
    name.len() <= LENGTH && crate::names::label(name).is_ok()
}

fn is_reserved(name: &str) -> bool {
    let is_numbered = |start: &str| {
        name.strip_prefix(start).is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|digit| digit.is_ascii_digit()))
    };
    name.starts_with("preview-")
        || FOLDERS.contains(&name)
        || DEVICES.contains(&name)
        || NUMBERED.into_iter().any(is_numbered)
}

/// Returns the one copy of a name. It is never freed: a fleet has few.
fn interned(name: &str) -> &'static str {
    static NAMES: RwLock<BTreeSet<&'static str>> = RwLock::new(BTreeSet::new());
    if let Some(known) = NAMES.read().get(name) {
        return known;
    }
    let mut names = NAMES.write();
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = Box::leak(name.into());
    names.insert(name);
    name
}

impl AsRef<str> for Environment {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Environment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Environment::of(&name).ok_or_else(|| serde::de::Error::custom("no name of an environment"))
    }
}

impl JsonSchema for Environment {
    fn schema_name() -> Cow<'static, str> {
        "Environment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": FORMAT})
    }
}

/// Returns the JSON Schema of a format of names for editors, which don't know it: they complete the usual names. `None` for another format.
pub fn published(format: &str) -> Option<Map<String, Value>> {
    let usual = Environment::USUAL.into_iter().chain((format == FORMAT).then_some(Environment::Preview));
    let usual: Vec<&str> = usual.map(Environment::name).collect();
    let own = match format {
        FORMAT => json!({"pattern": PATTERN, "maxLength": LENGTH}),
        LASTING => json!({"pattern": PATTERN, "maxLength": LENGTH, "not": {"const": "preview"}}),
        _ => return None,
    };
    Some(Map::from_iter([("anyOf".to_owned(), json!([{"enum": usual}, own]))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_files_and_workers_can_be_called() {
        for good in [
            "qa",
            "prod",
            "dev",
            "test",
            "eu-1",
            "staging2",
            "production-eu",
            "canary",
            "com10",
            "preprod",
            &"a".repeat(30),
        ] {
            let environment = Environment::written(good).unwrap();
            assert_eq!((environment.name(), Environment::of(good)), (good, Some(environment)));
            assert_eq!(serde_json::from_value::<Environment>(json!(good)).unwrap(), environment);
            assert_eq!(json!(environment), json!(good));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "../x", &"a".repeat(31)] {
            assert_eq!((Environment::written(bad), Environment::of(bad)), (Err(Flaw::Form), None), "{bad}");
        }
        for reserved in ["preview-1", "runtime", "bundles", "con", "nul", "com1", "lpt9"] {
            assert_eq!((Environment::written(reserved), Environment::of(reserved)), (Err(Flaw::Reserved), None));
        }
    }

    #[test]
    fn typing_errors_are_no_names() {
        for (name, meant) in [
            ("prodution", "production"),
            ("producton", "production"),
            ("Production", "production"),
            ("stagin", "staging"),
            ("stagign", "staging"),
            ("developement", "development"),
            ("previews", "preview"),
        ] {
            assert_eq!(Environment::written(name), Err(Flaw::Misspelt(meant)), "{name}");
        }
        assert!(is_misspelt("cannary", "canary") && is_misspelt("canry", "canary"));
        assert!(!is_misspelt("canary2", "canary") && !is_misspelt("qa", "qb") && !is_misspelt("eu", "us"));
    }

    #[test]
    fn the_usual_ones_keep_their_order_and_the_teams_own_come_before_staging() {
        let [qa, canary] = ["qa", "canary"].map(|name| Environment::of(name).unwrap());
        let mut all =
            [Environment::Preview, Environment::Production, qa, Environment::Staging, canary, Environment::Development];
        all.sort();
        let names: Vec<&str> = all.iter().map(|environment| environment.name()).collect();
        assert_eq!(names, ["development", "canary", "qa", "staging", "production", "preview"]);
        assert!(qa.is_own() && !Environment::Staging.is_own());
    }
}
