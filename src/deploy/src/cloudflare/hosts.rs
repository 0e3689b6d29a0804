//! The names of hosts and zones in answers. Cloudflare's API has those that aren't ASCII in Unicode, specs have them in Punycode: what
//! is read here is Punycode, whichever it was. Knows fields by their names; nothing of what they are for.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use flotilla_model::names;
use flotilla_model::platform::Call;

/// Returns a zone's name as the API's filter takes it. Source: cloudflare-go, `normalizeZoneName`.
pub fn filter(zone: &str) -> Cow<'_, str> {
    names::in_unicode(zone)
}

/// Writes the names in an answer's result in Punycode.
pub fn to_ascii(call: &Call, result: &mut Value) {
    match result {
        Value::Array(items) => items.iter_mut().for_each(|item| to_ascii(call, item)),
        Value::Object(fields) => {
            let is_of_zones = matches!(call, Call::FindZone { .. } | Call::ListZones { .. });
            for (key, value) in fields {
                let is_name =
                    matches!(key.as_str(), "hostname" | "pattern" | "zone_name") || is_of_zones && key == "name";
                if let (true, Value::String(text)) = (is_name, value)
                    && let Cow::Owned(ascii) = names::ascii_pattern(text)
                {
                    *text = ascii;
                }
            }
        }
        _ => {}
    }
}

/// Reads a host name, or the pattern of a route.
pub fn ascii<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(match names::ascii_pattern(&text) {
        Cow::Owned(ascii) => ascii,
        Cow::Borrowed(_) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_an_answer_are_in_punycode() {
        let mut zones = json!([{"id": "z", "name": "bücher.example"}, {"id": "y", "name": "a.example"}]);
        to_ascii(&Call::FindZone { name: "xn--bcher-kva.example".to_owned() }, &mut zones);
        assert_eq!(zones, json!([{"id": "z", "name": "xn--bcher-kva.example"}, {"id": "y", "name": "a.example"}]));
        let mut route = json!({"id": "r", "pattern": "*.bücher.example/ä*", "script": "bücher"});
        to_ascii(&Call::FindSubdomain, &mut route);
        assert_eq!(route, json!({"id": "r", "pattern": "*.xn--bcher-kva.example/ä*", "script": "bücher"}));
        assert_eq!(filter("xn--bcher-kva.example"), "bücher.example");
        assert_eq!(filter("a.example"), "a.example");
    }
}
