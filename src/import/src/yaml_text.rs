//! Writes values as readable YAML: keys in a useful order, small maps and lists on one line. Only writes; reading is done
//! by `yaml`.

use flotilla_spec::yaml;
use serde_json::{Map, Value};

/// The order of keys at each level; others follow by name.
const ORDER: [&str; 38] = [
    "type",
    "id",
    "name",
    "pack",
    "workerName",
    "account",
    "delivery",
    "accounts",
    "packs",
    "url",
    "token",
    "path",
    "pattern",
    "zone",
    "domains",
    "routes",
    "workersDev",
    "previewUrls",
    "database",
    "vars",
    "keepVars",
    "secrets",
    "services",
    "bindings",
    "crons",
    "compatibilityDate",
    "compatibilityFlags",
    "observability",
    "limits",
    "placement",
    "cache",
    "logpush",
    "tailConsumers",
    "queueConsumers",
    "production",
    ENVIRONMENTS,
    "workers",
    "defaults",
];
/// The key of the environments.
const ENVIRONMENTS: &str = "environments";
/// The longest line.
const WIDTH: usize = 110;

/// Returns a map as a document.
pub fn map(map: &Map<String, Value>) -> String {
    let mut text = String::new();
    block(map, 0, false, &mut text);
    text
}

fn ordered(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    let rank = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    entries.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
    entries
}

fn block(map: &Map<String, Value>, indent: usize, is_of_names: bool, text: &mut String) {
    for (key, value) in ordered(map) {
        let start = format!("{}{}:", " ".repeat(indent), scalar(key));
        entry(&start, key, value, indent, is_of_names, text);
    }
}

fn entry(start: &str, key: &str, value: &Value, indent: usize, is_name: bool, text: &mut String) {
    text.push_str(start);
    let flat = flow(value);
    let is_group =
        matches!(key, ENVIRONMENTS | "workers" | "accounts" | "packs" | "defaults" | "vars" | "secrets" | "bindings");
    match value {
        // The name of a worker or a layer alone says that there is one; anything else has to say that it is null.
        Value::Null if is_name => text.push('\n'),
        Value::Object(environments) if key == ENVIRONMENTS => {
            text.push('\n');
            for (key, value) in ordered(environments) {
                let start = format!("{}{}:", " ".repeat(indent + 2), scalar(key));
                match value {
                    // `null` removes an environment; one in which nothing differs is a key without a value.
                    Value::Null => text.push_str(&format!("{start} null\n")),
                    Value::Object(settings) if settings.is_empty() => text.push_str(&format!("{start}\n")),
                    value => entry(&start, key, value, indent + 2, false, text),
                }
            }
        }
        Value::Object(map)
            if !map.is_empty()
                && (is_group || start.chars().count() + 1 + flat.chars().count() > WIDTH || has_maps(map)) =>
        {
            text.push('\n');
            block(map, indent + 2, matches!(key, "workers" | "layers"), text);
        }
        Value::Array(items) if !items.is_empty() && start.chars().count() + 1 + flat.chars().count() > WIDTH => {
            text.push('\n');
            for item in items {
                text.push_str(&format!("{}- {}\n", " ".repeat(indent + 2), flow(item)));
            }
        }
        _ => text.push_str(&format!(" {flat}\n")),
    }
}

fn has_maps(map: &Map<String, Value>) -> bool {
    map.len() > 1 && map.values().any(Value::is_object)
}

/// Returns a value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let entries = ordered(map).into_iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        // As JavaScript prints it, which is the one form that is read as a number.
        Value::Number(number) => yaml::number_text(number),
        other => other.to_string(),
    }
}

/// Returns a text without what would end a comment, or can't be in one.
pub fn comment(text: &str) -> String {
    text.chars().map(|c| if yaml::is_printable(c) { c } else { ' ' }).collect()
}

/// Returns a text, in quotes unless it is plain and can be nothing but text.
pub fn scalar(text: &str) -> String {
    let first = text.chars().next();
    let plain = (first.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '/') || text.starts_with("../"))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./@+-:".contains(&b))
        && !text.ends_with(':')
        && text.parse::<f64>().is_err()
        && !text.starts_with("0x")
        && !text.starts_with("0o")
        // Readers of older YAML would take these for something else.
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
        && !text.chars().all(|c| c.is_ascii_digit() || c == '-' || c == ':' || c == '_' || c == '.');
    if plain { text.to_owned() } else { quoted(text) }
}

/// Returns a text in quotes.
pub fn quoted(text: &str) -> String {
    // JSON's quotes are YAML's, but YAML wants more to be escaped.
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            c if yaml::is_printable(c) => quoted.push(c),
            c => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn small_things_on_one_line() {
        let value = json!({
            "vars": {"A": "x: y", "B": "12", "LONG": "l".repeat(120)}, "id": "acme", "domains": ["a.example", "*.b"],
            "environments": {"staging": {}, "development": null, "production": {"workersDev": false}}, "observability": {"enabled": true, "sampling": 0.5},
        });
        let long = "l".repeat(120);
        let wanted = format!(
            "id: acme\ndomains: [a.example, \"*.b\"]\nvars:\n  A: \"x: y\"\n  B: \"12\"\n  LONG: {long}\nobservability: {{ enabled: true, sampling: 0.5 }}\n\
             environments:\n  production: {{ workersDev: false }}\n  development: null\n  staging:\n"
        );
        assert_eq!(map(value.as_object().unwrap()), wanted);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_filter("a fraction", |n| n.is_finite() && n.fract() != 0.0).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z_ :#-]{1,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_comment_ends_with_its_line(text in "(a|#|[\u{0}-\u{a0}]|[\u{2027}-\u{202a}]|\u{feff}|[\u{fffd}-\u{ffff}]){0,9}") {
            let (document, diagnostics) = yaml::parse("a.yaml", format!("# {}\nid: a\n", comment(&text)).as_bytes());
            prop_assert!(diagnostics.is_empty(), "{diagnostics:?}");
            prop_assert_eq!(document.unwrap().root.to_value(), json!({"id": "a"}));
        }

        #[test]
        fn what_is_written_is_read_again(entries in prop::collection::btree_map("[a-zA-Z0-9_:# -]{1,10}", any_value(), 1..5)) {
            let written = map(&entries.clone().into_iter().collect());
            let (document, diagnostics) = yaml::parse("a.yaml", written.as_bytes());
            prop_assert!(diagnostics.is_empty(), "{written}\n{diagnostics:?}");
            prop_assert_eq!(document.unwrap().root.to_value(), Value::Object(entries.into_iter().collect()), "{}", written);
        }
    }
}
