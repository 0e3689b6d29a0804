//! Removes secrets from messages: a response can quote its request, as it was sent or in another form.

use std::ops::Range;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};

/// The longest message that is kept, in characters: longer than people read.
const MAX_MESSAGE: usize = 500;
/// The text in the place of a secret.
const STARS: &str = "***";
/// The length below which a secret is hidden as a whole word alone: it may be a part of other words.
const WORD: usize = 8;
/// The length below which it is hidden between quotes alone: it may be a word.
const LETTERS: usize = 4;
/// The least length of a secret in base64 or hexadecimal digits, and of a line of it: shorter ones are in any text.
const LEAST_FORM: usize = 8;
/// The characters that percent-encoding leaves as they are: those of RFC 3986, and those of JavaScript's `encodeURIComponent`.
const PLAIN: [&str; 2] = ["-_.~", "-_.~!*'()"];

/// Returns a message without secrets, and no longer than people read. A secret is found as it is, in other case, as JSON, URLs,
/// base64 and hexadecimal digits write it, and line by line.
pub fn redact(message: &str, secrets: &[&str]) -> String {
    // Of the same length as the message, so that places in it are places in the message.
    let folded = message.to_ascii_lowercase();
    let mut hidden: Vec<Range<usize>> = secrets.iter().flat_map(|secret| places(&folded, secret)).collect();
    hidden.sort_by_key(|range| (range.start, range.end));
    let (mut text, mut end) = (String::with_capacity(message.len()), 0);
    for range in hidden {
        if range.start >= end {
            text += &message[end..range.start];
            text += STARS;
        }
        end = end.max(range.end);
    }
    text += &message[end..];
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns the places of a secret in a message in lower case.
fn places(message: &str, secret: &str) -> Vec<Range<usize>> {
    let secret = secret.trim();
    let mut forms = forms(secret);
    // A key of several lines can be quoted in part.
    for line in secret.lines().map(str::trim).filter(|line| line.len() >= LEAST_FORM && line.len() < secret.len()) {
        forms.push(line.to_owned());
        forms.extend(other_forms(line));
    }
    let mut places = Vec::new();
    for form in forms {
        let form = form.to_ascii_lowercase();
        let found = message.match_indices(&form).map(|(at, _)| at..at + form.len());
        places.extend(found.filter(|range| stands_alone(message, range, form.len())));
    }
    places
}

/// Returns whether a secret of this length is meant at a place, and not a part of a word that has it by chance.
fn stands_alone(message: &str, range: &Range<usize>, length: usize) -> bool {
    let (before, after) = (message[..range.start].chars().next_back(), message[range.end..].chars().next());
    let is_quote = |c: Option<char>| c.is_some_and(|c| "\"'`".contains(c));
    let is_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match length {
        0 => false,
        1..LETTERS => is_quote(before) && is_quote(after),
        LETTERS..WORD => !is_of_word(before) && !is_of_word(after),
        _ => true,
    }
}

/// Returns a secret as it is and in its other forms.
fn forms(secret: &str) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let mut forms = other_forms(secret);
    forms.push(secret.to_owned());
    forms
}

/// Returns the forms of a secret in which it doesn't look like itself.
fn other_forms(secret: &str) -> Vec<String> {
    let in_json = json(secret, false);
    // In JSON that is a text of JSON, too.
    let mut forms = vec![json(&in_json, false), json(secret, true), in_json.replace('/', "\\/"), in_json];
    forms.extend(PLAIN.map(|plain| percent_encoded(secret, plain)));
    forms.push(percent_encoded(secret, PLAIN[0]).replace("%20", "+"));
    forms.retain(|form| form.len() >= LETTERS && form != secret);
    let mut encoded = vec![HEXLOWER.encode(secret.as_bytes())];
    encoded.extend((0..3).flat_map(|offset| base64(secret.as_bytes(), offset)));
    forms.extend(encoded.into_iter().filter(|form| form.len() >= LEAST_FORM));
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Returns a text as JSON writes it, without its quotes; `ascii`: with escapes for all other characters.
fn json(text: &str, ascii: bool) -> String {
    let json = serde_json::Value::from(text).to_string();
    let inner = &json[1..json.len() - 1];
    if !ascii {
        return inner.to_owned();
    }
    let mut escaped = String::with_capacity(inner.len());
    for c in inner.chars() {
        match c.is_ascii() {
            true => escaped.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped += &format!("\\u{unit:04x}")),
        }
    }
    escaped
}

fn percent_encoded(text: &str, plain: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte) {
            true => encoded.push(byte.into()),
            false => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// Returns the base64 of bytes at an offset, as far as it is independent of the bytes before and after them.
fn base64(bytes: &[u8], offset: usize) -> [String; 2] {
    let padded = [&[0; 2][..offset], bytes].concat();
    let first = (offset * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    [BASE64_NOPAD, BASE64URL_NOPAD]
        .map(|encoding| encoding.encode(&padded).get(first..last).unwrap_or_default().to_owned())
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
    fn other_forms_are_taken_out_too() {
        let secret = "Cänary/Key+42 \"x\"=ß";
        let basic = |text: String| data_encoding::BASE64.encode(text.as_bytes());
        let forms = [
            secret.to_owned(),
            secret.to_ascii_uppercase(),
            json(secret, false),
            json(secret, true),
            json(&json(secret, false), false),
            json(secret, false).replace('/', "\\/"),
            percent_encoded(secret, PLAIN[0]),
            percent_encoded(secret, PLAIN[0]).to_ascii_lowercase(),
            percent_encoded(secret, PLAIN[1]).replace("%20", "+"),
            basic(secret.to_owned()),
            basic(format!("user:{secret}")),
            basic(format!("u:{secret}:more")),
            data_encoding::BASE64URL_NOPAD.encode(format!("me:{secret}").as_bytes()),
            data_encoding::HEXUPPER.encode(secret.as_bytes()),
        ];
        for form in forms {
            let shown = redact(&format!("it says {form} here"), &[secret]);
            assert!(
                shown.starts_with("it says ") && shown.ends_with(" here") && shown.contains(STARS),
                "{form}: {shown}"
            );
            // Of base64, what other bytes share in stays.
            assert!(shown.len() <= "it says ".len() + 12 + STARS.len() + 12 + " here".len(), "{form}: {shown}");
        }
    }

    #[test]
    fn a_key_of_several_lines_is_taken_out_line_by_line() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\nBK==\n-----END PRIVATE KEY-----\n";
        let shown = redact("bad line MIIEvQIBADANBgkq, and then hkiG9w0BAQEFAASC", &[key]);
        assert_eq!(shown, "bad line ***, and then ***");
        assert_eq!(redact(&format!("got {key}"), &[key]), "got ***\n");
        assert_eq!(redact(&json(key, false), &[key]), "***\\n");
    }

    #[test]
    fn a_short_secret_does_not_shred_a_message() {
        let message = "a worker's name has a dash; the account a-b isn't there: \"a\"";
        assert_eq!(redact(message, &["a"]), message.replace("\"a\"", "\"***\""));
        assert_eq!(redact("testing the test token test-x", &["test"]), "testing the *** token test-x");
        assert_eq!(redact("12345678", &["1", "12", "123"]), "12345678");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = redact(&"ü".repeat(501), &[]);
        assert_eq!((cut.chars().count(), cut.ends_with("ü…")), (501, true));
        assert_eq!(redact(&"ü".repeat(500), &[]).chars().count(), 500);
    }
}
