//! Credentials in files, recognised by their name or form, and how values are shown without them. Pure text; never keeps the text that
//! it examined.

use serde_json::Value;

/// Replaces a secret where a value is shown.
pub const STARS: &str = "********";
/// The key of a worker's or a spec's variables.
const VARS: &str = "vars";

/// Parts of names whose values are secrets.
const WORDS: [&str; 13] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "PRIVATE_KEY",
    "API_KEY",
    "APIKEY",
    "SIGNING_KEY",
    "ENCRYPTION_KEY",
    "MASTER_KEY",
    "ACCESS_KEY",
];
/// Last words of names whose values are secrets.
const LAST: [&str; 2] = ["PASS", "PWD"];
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
    let last = upper.rsplit(['_', '-']).next().unwrap_or_default();
    let is_named = WORDS.iter().any(|word| upper.contains(word)) || LAST.contains(&last);
    is_named && !PUBLIC.iter().any(|word| upper.contains(word))
}

/// Returns whether a text contains a secret, judged by its form.
pub fn by_form(text: &str) -> bool {
    private_key(text).is_some()
        || text.to_ascii_uppercase().contains("AGE-SECRET-KEY-")
        || with_password(text)
        || text.contains("://hooks.slack.com/services/")
        || text.split(|c: char| c.is_whitespace() || "\"'`,;=()[]{}<>".contains(c)).any(token)
}

/// Returns the number of the first line of a text that contains a secret, judged by its form.
pub fn line(text: &str) -> Option<usize> {
    let of_key = private_key(text).map(|at| text[..at].matches('\n').count());
    let line = text.lines().position(by_form);
    of_key.into_iter().chain(line).min().map(|line| line + 1)
}

/// Returns the position of a private key: its marker with a part of the key behind it. The marker alone is in programs that read keys.
fn private_key(text: &str) -> Option<usize> {
    text.match_indices("-----BEGIN").map(|(at, _)| at).find(|at| {
        let Some((label, rest)) = text[at + 10..].split_once("-----") else { return false };
        let rest = rest.trim_start().trim_start_matches("\\r").trim_start_matches("\\n").trim_start();
        label.len() < 40 && label.contains("PRIVATE KEY") && rest.starts_with(|c: char| c.is_ascii_alphanumeric())
    })
}

/// Returns whether a word stands for a secret that is to be filled in.
fn is_placeholder(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let mut letters: Vec<char> = lower.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    let words = ["your", "example", "placeholder", "changeme", "replace_me", "redacted"];
    letters.len() < 3 && word.len() > 2
        || word.starts_with(|c: char| "$<{[%*".contains(c))
        || matches!(lower.as_str(), "password" | "pass" | "secret" | "token")
        || words.iter().any(|part| lower.contains(part))
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
    find(name, value).is_some()
}

/// Returns the path, within a variable's value, of the first text that is a secret.
pub fn find(name: &str, value: &Value) -> Option<Vec<String>> {
    let below = |step: String, name: &str, value: &Value| {
        let path = find(name, value)?;
        Some([step].into_iter().chain(path).collect())
    };
    match value {
        Value::String(text) => is_credential(name, text).then(Vec::new),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| below(index.to_string(), name, item)),
        Value::Object(map) => map.iter().find_map(|(key, value)| below(key.clone(), key, value)),
        _ => None,
    }
}

/// Returns a value of a spec or of a worker with the secrets in its variables replaced by stars, given its path, as in `vars`, `TOKEN`.
pub fn masked(path: &[impl AsRef<str>], mut value: Value) -> Value {
    let steps: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    match variable(&steps) {
        Some(Some(name)) => mask_variable(name, &mut value),
        Some(None) => mask_variable("", &mut value),
        None => mask_below(&mut value),
    }
    value
}

/// Returns the steps of a path in the author's notation, such as `vars.settings.list[0]`.
pub fn steps(path: &str) -> Vec<&str> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect()
}

/// Returns whether a path leads into variables, and the name that decides about the value there: that of the variable or of a key in it.
fn variable<'a>(steps: &[&'a str]) -> Option<Option<&'a str>> {
    let at = steps.iter().position(|step| *step == VARS)?;
    let is_index = |step: &str| step.bytes().all(|byte| byte.is_ascii_digit());
    Some(steps[at + 1..].iter().rev().find(|step| !is_index(step)).copied())
}

/// Masks the secrets in a value of this name.
fn mask_variable(name: &str, value: &mut Value) {
    match value {
        Value::String(text) if is_credential(name, text) => STARS.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| mask_variable(name, item)),
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| mask_variable(key, value)),
        _ => {}
    }
}

/// Masks the secrets in variables, wherever a value has some.
fn mask_below(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mask_below),
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match key == VARS {
            true => mask_variable("", value),
            false => mask_below(value),
        }),
        _ => {}
    }
}

/// Returns the beginning of a value's JSON, which was cut, without the secrets that it has; nothing if it has none.
pub fn masked_cut(path: &str, json: &str) -> Option<String> {
    let name = variable(&steps(path))?;
    let is_secret = match (json.strip_prefix('"'), name) {
        (Some(text), Some(name)) => is_credential(name, text),
        _ => by_form(json) || json.split('"').any(by_name),
    };
    is_secret.then(|| format!("\"{STARS}\""))
}

/// Returns a sentence of an earlier version without the secrets in it: `vars.TOKEN "old" → "new"`.
pub fn masked_sentence(text: &str) -> String {
    let path = text.split(' ').find(|word| word.starts_with("vars."));
    if let Some(path) = path
        && let Some((before, after)) = text.split_once(path)
        && (by_form(after) || variable(&steps(path)).flatten().is_some_and(by_name))
    {
        return format!("{before}{path} {STARS}");
    }
    text.to_owned()
}

/// Returns whether a word looks like a secret that a service issued.
fn token(word: &str) -> bool {
    let prefix = PREFIXES.iter().find(|(prefix, length)| word.starts_with(prefix) && word.len() >= *length);
    prefix.is_some_and(|(prefix, _)| !is_placeholder(&word[prefix.len()..])) || jwt(word)
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
        user.and_then(|user| user.split_once(':'))
            .is_some_and(|(_, password)| !password.is_empty() && !is_placeholder(password))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_in_variables_are_masked_and_nothing_else() {
        let vars = || {
            json!({
                "API_TOKEN": "a", "OK": "fine", "MAX_TOKENS": "5", "settings": {"password": "b", "list": ["ghp_0123456789abcdefghij", "c"]},
                "TEXT": "-----BEGIN PRIVATE KEY-----\nMII",
            })
        };
        let shown = json!({
            "API_TOKEN": STARS, "OK": "fine", "MAX_TOKENS": "5", "settings": {"password": STARS, "list": [STARS, "c"]}, "TEXT": STARS,
        });
        assert_eq!(masked(&["vars"], vars()), shown);
        assert_eq!(masked(&["environments", "staging", "vars"], vars()), shown);
        let worker = |vars: Value| json!({"name": "w", "secrets": {"API_TOKEN": "NAME"}, "environments": {"staging": {"vars": vars}}});
        assert_eq!(masked(&[""; 0], worker(vars())), worker(shown.clone()));
        for (path, value, is_masked) in [
            ("vars.API_TOKEN", "a", true),
            ("vars.settings.password", "b", true),
            ("vars.settings.TOKENS[0]", "b", true),
            ("vars.OK", "b", false),
            ("vars.OK", "ghp_0123456789abcdefghij", true),
            ("secrets.API_TOKEN", "NAME", false),
            ("destinations[0].settings.token", "b", false),
        ] {
            let shown = masked(&steps(path), json!(value));
            assert_eq!(shown, json!(if is_masked { STARS } else { value }), "{path}");
            assert_eq!(masked(&steps(path), shown.clone()), shown, "masking twice changes nothing");
        }
        assert_eq!(find("settings", &vars()["settings"]), Some(vec!["list".to_owned(), "0".to_owned()]));
        assert_eq!(find("OK", &json!("fine")), None);
    }

    #[test]
    fn what_earlier_versions_recorded_is_masked() {
        for (path, json, is_masked) in [
            ("vars.API_TOKEN", "\"abc…", true),
            ("vars.API_TOKEN", "{\"a\":\"b…", false),
            ("vars.settings", "{\"a\":{\"password\":\"b…", true),
            ("vars.LIST", "[\"ghp_0123456789abcdefghij\",…", true),
            ("labels.token", "\"abc…", false),
        ] {
            assert_eq!(masked_cut(path, json).is_some(), is_masked, "{path} {json}");
        }
        let sentence = "customers/a.yaml:4:14 vars.API_TOKEN \"one\" → \"two\"";
        assert_eq!(masked_sentence(sentence), format!("customers/a.yaml:4:14 vars.API_TOKEN {STARS}"));
        for text in ["customers/a.yaml:4:14 vars.OK \"one\" → \"two\"", "the bundle changed", "vars. x"] {
            assert_eq!(masked_sentence(text), text);
        }
    }

    #[test]
    fn by_name_and_by_form() {
        for (name, value) in [
            ("STRIPE_SECRET", "anything"),
            ("CLOUDFLARE_API_TOKEN", "v1.0-abc"),
            ("db_password", "x"),
            ("DB_PASS", "x"),
            ("PWD", "x"),
            ("WEBHOOK_SIGNING_KEY", "x"),
            ("ALERTS", "https://hooks.slack.com/services/T0/B0/x"),
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
            ("MARKER", "-----BEGIN PRIVATE KEY-----"),
            ("CERTIFICATE", "-----BEGIN CERTIFICATE-----\nMII"),
            ("DATABASE_URL", "postgres://user:${DB_PASS}@db.example/app"),
            ("DATABASE_URL", "postgres://<user>:<password>@db.example/app"),
            ("STRIPE", "sk_live_xxxxxxxxxxxxxxxxxxxxxxxx"),
            ("STRIPE", "sk_test_your_key_comes_here"),
            ("AWS", "AKIAIOSFODNN7EXAMPLE"),
        ] {
            assert!(!is_credential(name, value), "{name}");
        }
    }
}
