//! Characters beyond 16 bits that are written as JSON and JavaScript write them, as two escapes: `"\ud83d\ude00"`. YAML has no such
//! pairs, and the parser refuses the halves. Here each half becomes the escape of a private character that the text doesn't have, as
//! long as the one before, so that places stay; in the text that the parser returns, the two become the character.

use std::borrow::Cow;
use std::ops::Range;

/// The private characters of which the text has none are one of these blocks: each has one for each half.
const BLOCKS: [u32; 3] = [0xe000, 0xe800, 0xf000];
/// The first half, and the number of halves.
const HALVES: (u32, u32) = (0xd800, 0x800);
/// The length of a pair: `\ud83d\ude00`.
const LENGTH: usize = 12;

/// The pairs of a text.
pub struct Pairs {
    block: u32,
    /// Each pair as it was written, with the index of its first character.
    written: Vec<(usize, String)>,
}

/// Returns the text with private characters for the halves of pairs, if there are any.
pub fn without_pairs(text: Cow<'_, str>) -> (Cow<'_, str>, Option<Pairs>) {
    let found: Vec<(usize, u32, u32)> = text.match_indices("\\u").filter_map(|(at, _)| pair_at(&text, at)).collect();
    if found.is_empty() {
        return (text, None);
    }
    // A text with characters of each block keeps its pairs, and the parser reports them.
    let Some(block) = BLOCKS.into_iter().find(|block| !has_of(&text, *block)) else { return (text, None) };
    let (mut replaced, mut written) = (String::with_capacity(text.len()), Vec::with_capacity(found.len()));
    let (mut from, mut index) = (0, 0);
    for (at, high, low) in found {
        index += text[from..at].chars().count();
        replaced += &text[from..at];
        replaced += &format!("\\u{:04X}\\u{:04X}", high - HALVES.0 + block, low - HALVES.0 + block);
        written.push((index, text[at..at + LENGTH].to_owned()));
        (from, index) = (at + LENGTH, index + LENGTH);
    }
    replaced += &text[from..];
    (Cow::Owned(replaced), Some(Pairs { block, written }))
}

/// Returns the pair of escapes that begins at an offset: the offset and the two halves.
pub fn pair_at(text: &str, at: usize) -> Option<(usize, u32, u32)> {
    // Behind a backslash that is escaped, `\u` is text.
    let before = text[..at].len() - text[..at].trim_end_matches('\\').len();
    let escapes = text.get(at..at + LENGTH).filter(|_| before.is_multiple_of(2))?;
    let half = |escape: &str| {
        let digits = escape.strip_prefix("\\u").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (high, low) = (half(escapes.get(..6)?)?, half(escapes.get(6..)?)?);
    let is_pair = (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low);
    is_pair.then_some((at, high, low))
}

/// Returns whether a text has characters of a block, as they are or as escapes.
fn has_of(text: &str, block: u32) -> bool {
    let is_of = |code: u32| (block..block + HALVES.1).contains(&code);
    let escaped = |(at, _): (usize, &str)| {
        let digits = |from: usize, number: usize| {
            text.get(from..from + number).and_then(|digits| u32::from_str_radix(digits, 16).ok())
        };
        let code = if text[at..].starts_with("\\u") { digits(at + 2, 4) } else { digits(at + 2, 8) };
        code.is_some_and(is_of)
    };
    text.chars().any(|c| is_of(c.into()))
        || text.match_indices("\\u").any(escaped)
        || text.match_indices("\\U").any(escaped)
}

impl Pairs {
    /// Returns the text of a scalar as it was meant. `quoted`: escapes are read in it; `at`: the indices of its characters.
    pub fn restore<'t>(&self, text: Cow<'t, str>, quoted: bool, at: Range<usize>) -> Cow<'t, str> {
        match quoted {
            true if text.chars().any(|c| self.half(c).is_some()) => Cow::Owned(self.joined(&text)),
            false if text.contains("\\u") => Cow::Owned(self.as_written(&text, at)),
            _ => text,
        }
    }

    fn half(&self, c: char) -> Option<u16> {
        let offset = u32::from(c).checked_sub(self.block).filter(|offset| *offset < HALVES.1)?;
        u16::try_from(HALVES.0 + offset).ok()
    }

    fn joined(&self, text: &str) -> String {
        let mut chars = text.chars();
        let mut joined = String::with_capacity(text.len());
        while let Some(c) = chars.next() {
            let Some(high) = self.half(c) else {
                joined.push(c);
                continue;
            };
            let low = chars.next().and_then(|c| self.half(c));
            let pair = low.and_then(|low| char::decode_utf16([high, low]).next()?.ok());
            joined.push(pair.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        joined
    }

    /// Puts back what was written where it isn't an escape: in text without double quotes.
    fn as_written(&self, text: &str, at: Range<usize>) -> String {
        let mut restored = text.to_owned();
        let within = self.written.iter().filter(|(index, _)| at.contains(index));
        let mut from = 0;
        for (_, written) in within {
            let is_half = |escape: &str| {
                let code = escape.strip_prefix("\\u").and_then(|digits| u32::from_str_radix(digits, 16).ok());
                code.and_then(char::from_u32).is_some_and(|c| self.half(c).is_some())
            };
            let is_pair = |(at, _): &(usize, &str)| {
                *at >= from
                    && restored.get(*at..*at + 6).is_some_and(is_half)
                    && restored.get(*at + 6..*at + LENGTH).is_some_and(is_half)
            };
            let Some(start) = restored.match_indices("\\u").find(is_pair).map(|(at, _)| at) else { break };
            restored.replace_range(start..start + LENGTH, written);
            from = start + LENGTH;
        }
        restored
    }
}
