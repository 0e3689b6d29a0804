//! The catalogue of Cloudflare's zone settings: their ids, the values that each accepts, and which are deprecated. Pure: sends nothing, and
//! knows no zone.
//!
//! Both sides need it: specs, whose values are checked before anything is sent, and the local emulator, which rejects what Cloudflare
//! rejects.
//!
//! `catalogue.json` is made from the types of zone settings in the npm package `cloudflare` 7.3.0, which Cloudflare generates from its OpenAPI
//! document and publishes under the Apache License 2.0.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One setting.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setting {
    /// Its meaning, in Cloudflare's words.
    #[serde(default)]
    pub description: String,
    /// The reason why it is deprecated, and what takes its place.
    pub deprecated: Option<String>,
    /// The key of the value in requests and responses.
    #[serde(default = "value_key")]
    pub body_key: String,
    /// Whether Cloudflare says of a zone if its plan allows to change the setting. The others have endpoints of their own.
    #[serde(default = "yes")]
    pub has_editable: bool,
    /// The JSON Schema of its values.
    #[serde(rename = "value")]
    pub schema: Value,
}

fn value_key() -> String {
    "value".to_owned()
}

fn yes() -> bool {
    true
}

static CATALOGUE: LazyLock<BTreeMap<String, Setting>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../catalogue.json")).expect("BUG: the catalogue is JSON"));

static VALIDATORS: LazyLock<BTreeMap<&'static str, Validator>> = LazyLock::new(|| {
    let validator = |setting: &Setting| jsonschema::validator_for(&setting.schema).expect("BUG: a schema is one");
    all().map(|(id, setting)| (id, validator(setting))).collect()
});

/// Returns all settings with their ids, sorted.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    CATALOGUE.iter().map(|(id, setting)| (id.as_str(), setting))
}

/// Returns a setting by its id.
#[must_use]
pub fn get(id: &str) -> Option<&'static Setting> {
    CATALOGUE.get(id)
}

/// Returns whether a setting of the catalogue accepts a value. Unknown ids accept none.
#[must_use]
pub fn accepts(id: &str, value: &Value) -> bool {
    VALIDATORS.get(id).is_some_and(|validator| validator.is_valid(value))
}

/// Returns whether a zone's value is the wanted one. Of an object, the wanted one may have fewer keys: the others may have any value.
#[must_use]
pub fn agrees(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|live| agrees(value, live)))
        }
        // 1.0 and 1 are the same number.
        (Value::Number(wanted), Value::Number(live)) => wanted.as_f64() == live.as_f64(),
        (wanted, live) => wanted == live,
    }
}

/// Returns the value to send for a zone whose live value is known: of an object, the keys that the wanted one doesn't have stay.
#[must_use]
pub fn merged(wanted: &Value, live: &Value) -> Value {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            let mut merged: Map<String, Value> = live.clone();
            for (key, value) in wanted {
                let value = live.get(key).map_or_else(|| value.clone(), |live| self::merged(value, live));
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (wanted, _) => wanted.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_setting_accepts_its_values_and_no_others() {
        assert_eq!(all().count(), 66);
        assert_eq!(all().filter(|(_, setting)| setting.deprecated.is_some()).count(), 5);
        for (id, setting) in all() {
            for value in setting.schema["enum"].as_array().into_iter().flatten() {
                assert!(accepts(id, value), "{id}: {value}");
            }
            assert!(!accepts(id, &Value::Null), "{id}");
            assert!(!setting.description.is_empty() || setting.deprecated.is_some(), "{id}");
        }
        assert!(accepts("ssl", &json!("strict")) && !accepts("ssl", &json!("on")) && !accepts("ssl", &json!(true)));
        assert!(accepts("browser_cache_ttl", &json!(14400)) && !accepts("browser_cache_ttl", &json!("14400")));
        assert!(accepts("ssl_recommender", &json!(true)) && get("ssl_recommender").unwrap().body_key == "enabled");
        assert!(!accepts("sll", &json!("strict")) && get("sll").is_none());
    }

    #[test]
    fn an_object_agrees_if_the_wanted_keys_do() {
        let live = json!({"strict_transport_security": {"enabled": true, "max_age": 0, "nosniff": false}});
        let wanted = json!({"strict_transport_security": {"enabled": true, "max_age": 86400.0}});
        assert!(accepts("security_header", &wanted) && !accepts("security_header", &json!({"strict": true})));
        assert!(!agrees(&wanted, &live));
        let merged = merged(&wanted, &live);
        let expected = json!({"strict_transport_security": {"enabled": true, "max_age": 86400.0, "nosniff": false}});
        assert_eq!(merged, expected);
        assert!(
            agrees(&wanted, &merged) && agrees(&json!(86400), &json!(86400.0)) && !agrees(&json!("on"), &json!("off"))
        );
    }
}
