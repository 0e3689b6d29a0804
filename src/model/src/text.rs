//! Values as people read them: numbers with nouns, times, ids, lists. Knows no terminal.

use std::borrow::Cow;

use serde_json::Value;

pub use crate::clock::timestamp as time;

/// The longest word of a message, in characters: more than any path or address that is used.
const LONGEST_WORD: usize = 400;
/// The longest message, in characters: more than people read.
pub const LONGEST_MESSAGE: usize = 1_500;

/// Returns `1 worker`, `2 workers`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Returns a number for people: `50,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the bytes of a file with `\n` at the ends of lines, whichever the checkout has: git writes `\r\n` where `core.autocrlf` requests
/// it. As for git, what has a NUL in its first 8,000 bytes is not text, and stays.
pub fn with_unix_line_ends(mut bytes: Vec<u8>) -> Vec<u8> {
    let is_binary = || bytes.iter().take(8000).any(|byte| *byte == 0);
    if !bytes.contains(&b'\r') || is_binary() {
        return bytes;
    }
    let mut next = bytes.clone().into_iter().skip(1);
    bytes.retain(|byte| next.next() != Some(b'\n') || *byte != b'\r');
    bytes
}

/// Returns text from files without the characters that would drive a terminal, or that nobody sees: they are written as escapes.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_invisible(c) {
            true => cleaned.extend(c.escape_unicode()),
            false => cleaned.push(c),
        }
    }
    cleaned
}

/// Returns a message no longer than people read, whatever it quotes: of long words, and of what is still too long, the middle is left
/// out.
pub fn bounded(message: String) -> String {
    if message.len() <= LONGEST_WORD {
        return message;
    }
    let words: Vec<_> = message.split(' ').map(|word| without_middle(word, LONGEST_WORD)).collect();
    without_middle(&words.join(" "), LONGEST_MESSAGE).into_owned()
}

/// Returns a text, shortened to a maximum number of characters: two thirds of them from its beginning, the rest from its end.
fn without_middle(text: &str, longest: usize) -> Cow<'_, str> {
    let length = if text.len() <= longest { 0 } else { text.chars().count() };
    if length <= longest {
        return Cow::Borrowed(text);
    }
    let head = longest * 2 / 3;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - (longest - head - 1)).collect();
    Cow::Owned(format!("{start}…{end}"))
}

/// Returns whether a character shows nothing, or changes the order in which others are shown: two texts that differ in it look alike.
/// Source: Unicode's Default_Ignorable_Code_Point and Bidi_Control, without variation selectors, which choose how an emoji looks.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns lines of output without what a CI system would take for a command: `::name::` at the beginning of a line, and `##[name]`,
/// `##vso[…]` or `##teamcity[…]` anywhere. A character of each is written as an escape.
pub fn without_commands(text: &str) -> Cow<'_, str> {
    if !text.contains("::") && !text.contains("##") {
        return Cow::Borrowed(text);
    }
    let mut lines = Vec::new();
    for line in without_inner_commands(text, "\\u{23}").split('\n') {
        let start = line.len() - line.trim_start().len();
        // Three colons begin no command.
        lines.push(match line[start..].strip_prefix("::").filter(|rest| !rest.starts_with(':')) {
            Some(rest) => format!("{}\\u{{3a}}:{rest}", &line[..start]),
            None => line.to_owned(),
        });
    }
    Cow::Owned(lines.join("\n"))
}

/// Returns a text without the commands of CI systems that count anywhere in a line: `##[name]`. `hash` takes the place of the second
/// `#`.
pub fn without_inner_commands(text: &str, hash: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("##") {
        let (before, from) = rest.split_at(at + 1);
        safe += before;
        let word = from[1..].trim_start_matches(|c: char| c.is_ascii_alphabetic());
        rest = match word.starts_with('[') {
            true => {
                safe += hash;
                &from[1..]
            }
            false => from,
        };
    }
    safe + rest
}

/// Cleans text of several lines, as [`clean`] does.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Returns a duration as `4.2 s`, `3 min 20 s` or `6 h 57 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 if whole.is_multiple_of(60) => format!("{} min", whole / 60),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ if whole % 3600 < 60 => format!("{} h", whole / 3600),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Returns the first eight characters of an id: enough to tell ids apart, not enough to use one.
pub fn mask(id: &str) -> String {
    if id.is_empty() { "not set".to_owned() } else { format!("{}…", id.chars().take(8).collect::<String>()) }
}

/// Returns whether ids in a worker's field are masked, given its path, as in `bindings.CACHE.kv`: ids of resources are, and what
/// a customer wrote into a variable or a destination isn't.
pub fn holds_ids(path: &str) -> bool {
    let field = path.split(['.', '[']).next().unwrap_or_default();
    matches!(field, "database" | "bindings" | "hosts" | "dispatch")
}

/// Returns a value with the ids in its texts masked, as [`mask_ids`] does.
pub fn mask_value(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) => *text = mask_ids(text),
        Value::Array(items) => items.iter_mut().for_each(|item| *item = mask_value(item.take())),
        Value::Object(fields) => fields.values_mut().for_each(|field| *field = mask_value(field.take())),
        _ => {}
    }
    value
}

/// Returns a text with the ids of accounts, zones, namespaces and databases in it masked: 32 hexadecimal digits, or a UUID.
pub fn mask_ids(text: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_of_word(c)).unwrap_or(from.len()));
        masked.push_str(before);
        masked.push_str(&if is_id(word) { mask(word) } else { word.to_owned() });
        rest = after;
    }
    masked + rest
}

fn is_id(word: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match word.len() {
        32 => is_hex(word),
        36 => word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && word.split('-').all(is_hex),
        _ => false,
    }
}

/// Returns the line in place of entries that are not shown: `… and 1,200 more`.
pub fn and_more(number: usize) -> String {
    format!("… and {} more", grouped(number as u64))
}

/// Returns the first names of a list, and the number of the others: `a, b and 3 more`.
pub fn names<S: AsRef<str>>(names: &[S], limit: usize) -> String {
    let shown: Vec<&str> = names.iter().take(limit).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(limit) {
        0 => shown,
        more => format!("{shown} and {} more", grouped(more as u64)),
    }
}

/// Returns the first of these lines, one below the other, and how many more there are.
pub fn first_lines(lines: impl IntoIterator<Item = String>, limit: usize) -> String {
    let mut lines: Vec<String> = lines.into_iter().collect();
    let more = lines.len().saturating_sub(limit);
    lines.truncate(limit);
    if more > 0 {
        lines.push(and_more(more));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_those_of_unix_in_text_alone() {
        let read = |bytes: &[u8]| with_unix_line_ends(bytes.to_vec());
        assert_eq!(read(b"a\r\nb\r\n"), b"a\nb\n");
        assert_eq!(read(b"a\r\r\n\rb\n\r"), b"a\r\n\rb\n\r");
        assert_eq!(read(b"\0a\r\n"), b"\0a\r\n");
        assert_eq!(read(b""), b"");
    }

    #[test]
    fn text_from_files_drives_no_terminal() {
        assert_eq!(clean("a\x1b[31mb\u{202e}é"), "a\\u{1b}[31mb\\u{202e}é");
        for c in
            ['\u{200b}', '\u{200f}', '\u{61c}', '\u{feff}', '\u{2060}', '\u{ad}', '\u{3164}', '\u{e0041}', '\u{2066}']
        {
            assert_eq!(clean(&format!("a{c}b")), format!("a\\u{{{:x}}}b", u32::from(c)));
        }
        for text in ["größe", "日本語", "\u{2764}\u{fe0f}", "a b", "नमस्ते"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn a_message_is_no_longer_than_people_read() {
        let short = format!("unknown account `{}`", "a".repeat(300));
        assert_eq!(bounded(short.clone()), short);
        let quoted = bounded(format!("unknown account `{}` in fleet.yaml", "é".repeat(9_000)));
        assert!(quoted.starts_with("unknown account `éé") && quoted.ends_with("éé` in fleet.yaml"), "{quoted}");
        assert_eq!(quoted.matches('…').count(), 1);
        assert!(quoted.chars().count() < LONGEST_WORD + 40);
        let words = bounded(format!("first {}last", "some words ".repeat(900)));
        assert_eq!(words.chars().count(), LONGEST_MESSAGE);
        assert!(words.starts_with("first some") && words.ends_with("words last"), "{words}");
    }

    #[test]
    fn output_holds_no_commands_of_ci_systems() {
        for (text, safe) in [
            ("::error::x", "\\u{3a}:error::x"),
            ("a\n  ::set-env name=a::b", "a\n  \\u{3a}:set-env name=a::b"),
            ("a ##[error]b ##vso[task.x]c", "a #\\u{23}[error]b #\\u{23}vso[task.x]c"),
            ("###[group]", "##\\u{23}[group]"),
            ("a::b", "a::b"),
            ("  ::: a.yaml: here", "  ::: a.yaml: here"),
            ("## [title]", "## [title]"),
            ("##", "##"),
        ] {
            assert_eq!(without_commands(text), safe);
        }
        let json = without_inner_commands("{\"a\":\"##[x]\"}", "\\u0023");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), serde_json::json!({"a": "##[x]"}));
    }

    #[test]
    fn durations() {
        assert_eq!([1.25, 42.0, 200.0, 25_020.0].map(duration), ["1.2 s", "42 s", "3 min 20 s", "6 h 57 min"]);
        assert_eq!([300.0, 3600.0, 7230.0].map(duration), ["5 min", "1 h", "2 h"]);
    }

    #[test]
    fn ids_are_masked_wherever_they_are() {
        let text = "id: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01, kv: \"0123456789abcdef0123456789abcdef\" # 0123456789abcdef0123456789abcdef0";
        assert_eq!(mask_ids(text), "id: 0f3f6a10…, kv: \"01234567…\" # 0123456789abcdef0123456789abcdef0");
        assert_eq!(mask_ids("größe-a b_c"), "größe-a b_c");
        let value = serde_json::json!({"a": ["0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01", 1, null], "b": "c"});
        assert_eq!(mask_value(value), serde_json::json!({"a": ["0f3f6a10…", 1, null], "b": "c"}));
        assert!(holds_ids("bindings.CACHE.kv") && holds_ids("database") && holds_ids("hosts[0]"));
        assert!(!holds_ids("vars.database") && !holds_ids("bindingsX.a"));
    }

    #[test]
    fn of_many_lines_the_first_are_shown() {
        let lines = || ["a", "b", "c"].map(str::to_owned);
        assert_eq!(first_lines(lines(), 3), "a\nb\nc");
        assert_eq!(first_lines(lines(), 1), "a\n… and 2 more");
    }

    #[test]
    fn the_rest_is_counted() {
        assert_eq!(and_more(1200), "… and 1,200 more");
        assert_eq!(names(&["a", "b"], 2), "a, b");
        assert_eq!(names(&["a", "b", "c"], 1), "a and 2 more");
        assert_eq!(names::<&str>(&[], 1), "");
    }
}
