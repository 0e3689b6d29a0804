//! Removes secrets from messages: an answer can quote its request.

use std::cmp::Reverse;

/// The longest message that is kept, in characters: longer than people read.
const MAX_MESSAGE: usize = 500;

/// A message without secrets, neither as they are nor as JSON writes them, and no longer than people read.
pub fn redact(message: &str, secrets: &[&str]) -> String {
    let mut secrets: Vec<&str> = secrets.iter().copied().filter(|secret| !secret.is_empty()).collect();
    // The longest first: one can be a part of another.
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    let mut text = message.to_owned();
    for secret in secrets {
        let json = serde_json::Value::from(secret).to_string();
        text = text.replace(&json[1..json.len() - 1], "***").replace(secret, "***");
    }
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_as_they_are_and_as_json_writes_them() {
        assert_eq!(redact("a key-1-long and key-1", &["key-1", "", "key-1-long"]), "a *** and ***");
        assert_eq!(redact(r#"{"text": "a\"b\nc"} a"b"#, &["a\"b\nc"]), r#"{"text": "***"} a"b"#);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = redact(&"ü".repeat(501), &[]);
        assert_eq!((cut.chars().count(), cut.ends_with("ü…")), (501, true));
        assert_eq!(redact(&"ü".repeat(500), &[]).chars().count(), 500);
    }
}
