//! The formats that specs require: of names, ids, days and addresses. Pure text.

use serde_json::{Value, json};

use flotilla_model::binding::{self, Binding, Form};

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Returns whether a text is the id of an account.
pub fn is_account_id(text: &str) -> bool {
    text.len() == 32 && is_hex(text)
}

/// Returns whether a text is a UUID, as databases and certificates have.
pub fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hex(part))
}

/// Returns whether a variable or a binding can have this name.
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns whether a secret can have this name.
pub fn is_secret_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Returns whether a D1 database can have this name in a spec.
pub fn is_database_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// Returns whether a queue can have this name in a spec.
pub fn is_queue_name(name: &str) -> bool {
    name.len() <= 80
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Returns whether the fields of a binding have the format that the schema requires.
pub fn fits(binding: &Binding) -> bool {
    binding.kind().is_some_and(|kind| {
        kind.fields.iter().all(|field| match (binding.0.get(field.key), field.form) {
            (None, _) => !field.is_required,
            (Some(value), Form::Pattern(binding::ID)) => value.as_str().is_some_and(|id| id.len() == 32 && is_hex(id)),
            (Some(value), Form::Pattern(binding::UUID)) => value.as_str().is_some_and(is_uuid),
            (Some(value), Form::Pattern(binding::D1_REFERENCE)) => {
                value.as_str().is_some_and(|text| is_uuid(text) || is_database_name(text))
            }
            (Some(value), Form::Pattern(_)) => {
                value.as_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            }
            (Some(value), Form::Text) => value.as_str().is_some_and(|text| !text.is_empty()),
            (Some(value), Form::OneOf(options)) => value.as_str().is_some_and(|text| options.contains(&text)),
            (Some(value), Form::Count) => value.as_u64().is_some_and(|count| count > 0),
            (Some(value), Form::Duration) => {
                value.as_u64().is_some_and(|time| time > 0) || value.as_str().is_some_and(|text| !text.is_empty())
            }
            (Some(value), Form::Texts) => {
                value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_string))
            }
            (Some(value), Form::True) => *value == true,
            (Some(value), Form::Object) => value.as_object().is_some_and(|map| !map.is_empty()),
        })
    })
}

/// Returns whether a text is a day in the format of compatibility dates.
pub fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse::<u8>().unwrap_or(0);
    digits(year, 4)
        && year.starts_with("20")
        && digits(month, 2)
        && digits(day, 2)
        && (1..=12).contains(&number(month))
        && (1..=31).contains(&number(day))
}

/// Returns the options of a cache as a spec writes them, from how wrangler and the API do.
pub fn cache(options: &Value) -> Option<Value> {
    let mut cache = json!({"enabled": options.get("enabled")?.as_bool()?});
    if let Some(cross_version) = options.get("cross_version_cache").and_then(Value::as_bool) {
        cache["crossVersion"] = cross_version.into();
    }
    Some(cache)
}

/// Returns whether a text is the address of a Turso database.
pub fn is_turso(url: &str) -> bool {
    let host = url.strip_prefix("libsql://").or_else(|| url.strip_prefix("https://"));
    host.is_some_and(|host| {
        let host = host.strip_suffix('/').unwrap_or(host);
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
    })
}
