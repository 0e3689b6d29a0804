//! Credentials in files, recognised by their name or form. Pure text; never keeps the text that it examined.

use serde_json::Value;

/// Parts of names whose values are secrets.
const WORDS: [&str; 9] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "PRIVATE_KEY", "API_KEY", "APIKEY"];
/// Parts of names whose values are public, whatever the rest of the name.
const PUBLIC: [&str; 4] = ["PUBLIC", "PUBLISHABLE", "SITE_KEY", "SITEKEY"];
/// The prefixes of secrets that services issue, and their least length.
const PREFIXES: [(&str, usize); 26] = [
    ("sk_live_", 16),
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("rk_test_", 16),
    ("whsec_", 16),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("github_pat_", 20),
    ("glpat-", 20),
    ("npm_", 30),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("xoxs-", 16),
    ("xapp-", 16),
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 30),
    ("SG.", 40),
    ("sk-ant-", 20),
    ("sk-proj-", 20),
    ("dop_v1_", 20),
    ("cfut_", 20),
    ("AGE-SECRET-KEY-", 20),
];

/// Returns whether a variable of this name holds a secret.
pub fn by_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    WORDS.iter().any(|word| upper.contains(word)) && !PUBLIC.iter().any(|word| upper.contains(word))
}

/// Returns whether a text contains a secret, judged by its form.
pub fn by_form(text: &str) -> bool {
    text.contains("-----BEGIN")
        || text.to_ascii_uppercase().contains("AGE-SECRET-KEY-")
        || with_password(text)
        || text.split(|c: char| c.is_whitespace() || "\"'`,;=()[]{}<>".contains(c)).any(token)
}

/// Returns whether a variable is a secret, by its name or its value. An empty value, a switch or a number is none; neither is the
/// name of a variable that has another's address in it.
pub fn is_credential(name: &str, value: &str) -> bool {
    let plain = value.is_empty() || matches!(value, "true" | "false") || value.parse::<f64>().is_ok();
    let address = ["_URL", "_URI", "_ENDPOINT", "_ISSUER", "_AUDIENCE", "_ID", "_NAME", "_TTL", "_HEADER"];
    let about = address.iter().any(|end| name.to_ascii_uppercase().ends_with(end));
    by_form(value) || (by_name(name) && !plain && !about)
}

/// Returns whether a variable's value, or anything in it, is a secret.
pub fn holds_credential(name: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => is_credential(name, text),
        Value::Array(items) => items.iter().any(|item| holds_credential(name, item)),
        Value::Object(map) => map.iter().any(|(key, value)| holds_credential(key, value)),
        _ => false,
    }
}

/// Returns whether a word looks like a secret that a service issued.
fn token(word: &str) -> bool {
    let prefixed = PREFIXES.iter().any(|(prefix, length)| word.starts_with(prefix) && word.len() >= *length);
    prefixed || jwt(word)
}

/// Returns whether a word is a JSON Web Token: three parts in base64, of which the first two begin with a brace.
fn jwt(word: &str) -> bool {
    let mut parts = word.split('.');
    let begins = |part: Option<&str>| part.is_some_and(|part| part.starts_with("eyJ") && part.len() > 8);
    begins(parts.next()) && begins(parts.next()) && parts.next().is_some()
}

/// Returns whether a text contains an address with a password: `postgres://user:password@host`.
fn with_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, _)| {
        let rest = &text[at + 3..];
        let end = rest.find(|c: char| c == '/' || c == '?' || c.is_whitespace()).unwrap_or(rest.len());
        let user = rest[..end].rsplit_once('@').map(|(user, _)| user);
        user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_and_by_form() {
        for (name, value) in [
            ("STRIPE_SECRET", "anything"),
            ("CLOUDFLARE_API_TOKEN", "v1.0-abc"),
            ("db_password", "x"),
            ("STRIPE", "sk_live_0123456789abcdef"),
            ("HEADER", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
            ("DATABASE_URL", "postgres://user:hunter2@db.example/app?sslmode=require"),
            ("CERTIFICATE", "-----BEGIN PRIVATE KEY-----\nMII"),
            ("IDENTITY", "age-secret-key-1abc"),
            ("CONFIG", "{\"key\":\"ghp_0123456789abcdefghij\"}"),
            ("SECRET_KEY_URL", "https://a:b@c.example"),
        ] {
            assert!(is_credential(name, value), "{name}");
        }
        for (name, value) in [
            ("PUBLIC_API_KEY", "pk"),
            ("STRIPE_PUBLISHABLE_KEY", "pk_live_0123456789abcdef"),
            ("NEXT_PUBLIC_TOKEN", "x"),
            ("TURNSTILE_SITE_KEY_TOKEN", "x"),
            ("TOKEN_TTL", "3600s"),
            ("AUTH_TOKEN_URL", "https://auth.example/token"),
            ("EMPTY_TOKEN", ""),
            ("SECRET_SCANNING", "true"),
            ("MAX_TOKENS", "4096"),
            ("DATABASE_URL", "https://db.example:443/app"),
            ("ENVIRONMENT", "production"),
            ("NAME", "AKIA"),
        ] {
            assert!(!is_credential(name, value), "{name}");
        }
    }
}
