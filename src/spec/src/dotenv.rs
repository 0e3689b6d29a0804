//! Dotenv files: lines of `NAME=value`. Reads only what all who read such files read alike: npm's `dotenv`, wrangler, and Docker
//! Compose. Anything that one of them reads otherwise is an error with its place. Knows neither which files there are nor what
//! the values are for; no message repeats one.
//!
//! The rules, which docs/reference/secret-sources.md has for people:
//!
//! - A line is empty, a comment that begins with `#`, or `NAME=value`, perhaps after `export`. Space around the name and the
//!   value doesn't count. Of several lines with one name, the last counts.
//! - Without quotes, a value ends with its line, or before a space and `#`. It has neither `$` nor another `#`, and doesn't begin
//!   with a quote or a backtick.
//! - In single quotes, everything is as it is written, over several lines, too. A backslash doesn't come before the closing quote.
//! - In double quotes, `\n` and `\r` are line breaks. There is no other backslash, and no `$`.
//! - Behind the closing quote, nothing comes but a space and a comment.

use std::ops::Range;

use secrecy::zeroize::Zeroizing;

use crate::yaml::Span;

/// An entry of a file.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// The place of its name.
    pub name_span: Span,
    /// Its value.
    pub value: Zeroizing<String>,
    /// The place of its value, without the quotes.
    pub value_span: Span,
    /// The place in the text where its value is written, with its quotes.
    pub written: Range<usize>,
    /// Its lines, without the last line break.
    pub lines: Range<usize>,
}

/// An error in a file. It repeats nothing but a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its place.
    pub span: Span,
    /// The error.
    pub message: String,
    /// The way to fix it.
    pub help: &'static str,
}

const DOLLAR: (&str, &str) = (
    "has a `$` outside single quotes, which other readers replace with a variable",
    "put the value in single quotes to keep the `$`, or write out the variable's value",
);
const HASH: (&str, &str) = (
    "has a `#` outside quotes, which other readers treat as a comment",
    "put the value in single quotes, or a space before the comment",
);
const FIRST_HASH: (&str, &str) = (
    "begins with a `#`, which some readers treat as a comment",
    "put the value in single quotes, or the comment on a line of its own",
);
const BACKTICK: (&str, &str) = ("is in backticks, which some readers treat as quotes", "use single or double quotes");
const BACKSLASH: (&str, &str) = (
    "has a backslash in double quotes, which other readers interpret differently",
    "only \\n and \\r are supported there: put the value in single quotes",
);
const LAST_BACKSLASH: (&str, &str) = (
    "has a backslash before the closing quote, which other readers interpret differently",
    "remove the quotes or the backslash",
);
const BEHIND: (&str, &str) =
    ("has text after the closing quote", "put the whole value in the quotes, and a space before a comment");
const SINGLE: (&str, &str) = ("begins with a single quote that isn't closed", "close the quote or remove it");
const DOUBLE: (&str, &str) = ("begins with a double quote that isn't closed", "close the quote or remove it");
const CONTROL: (&str, &str) =
    ("has a control character or a space that isn't a plain one", "remove it; a line break is \\n in double quotes");

/// Reads a file. What can be read is returned even where other lines have errors.
pub fn read(text: &str) -> (Vec<Entry<'_>>, Vec<Wrong>) {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut reader = Reader { text, at: start, line: 1, line_start: start, entries: Vec::new(), wrong: Vec::new() };
    while reader.at < text.len() {
        reader.entry();
    }
    (reader.entries, reader.wrong)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    entries: Vec<Entry<'a>>,
    wrong: Vec<Wrong>,
}

/// A value, and where it is written.
struct Value {
    value: Zeroizing<String>,
    written: Range<usize>,
    inner: Range<usize>,
}

impl<'a> Reader<'a> {
    /// Reads the lines of one entry, or one that is none.
    fn entry(&mut self) {
        let start = self.at;
        let content = &self.text[start..self.line_end(start)];
        if let Some(odd) = content.find(['\r', '\u{2028}', '\u{2029}', '\u{85}']) {
            let message = "a character that only some readers treat as a line break".to_owned();
            self.report(start + odd, 1, message, "end lines with \\n or \\r\\n");
            return self.next_line(start);
        }
        let indented = start + (content.len() - content.trim_start_matches([' ', '\t']).len());
        let bare = self.text[indented..start + content.len()].trim_end_matches([' ', '\t']);
        if bare.is_empty() || bare.starts_with('#') {
            return self.next_line(start);
        }
        let exported = bare.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let named = exported.map_or(bare, |rest| rest.trim_start_matches([' ', '\t']));
        let at = indented + (bare.len() - named.len());
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let length = named.find(|c| !is_in_name(c)).unwrap_or(named.len());
        let (name, rest) = named.split_at(length);
        let behind = rest.trim_start_matches([' ', '\t']);
        if name.is_empty() || !behind.starts_with('=') {
            let (message, help) = match bare.contains('=') {
                false => ("a line without `=`", "write NAME=value, or start a comment with `#`"),
                true => (
                    "a name that some readers don't accept",
                    "write NAME=value: letters, digits, `_`, `.` and `-` before the `=`",
                ),
            };
            self.report(at, 1, message.to_owned(), help);
            return self.next_line(start);
        }
        let equals = at + name.len() + (rest.len() - behind.len());
        let name_span = self.span(at, name.len());
        match self.value(equals + 1) {
            Ok(value) => {
                let value_span = self.span(value.inner.start, self.text[value.inner.clone()].chars().count());
                let end = self.line_end(value.written.end);
                self.next_line(value.written.end);
                self.entries.push(Entry {
                    name,
                    name_span,
                    value: value.value,
                    value_span,
                    written: value.written,
                    lines: start..end,
                });
            }
            Err((place, end, (message, help))) => {
                let span = self.span(place, 1);
                self.wrong.push(Wrong { span, message: format!("the value of `{name}` {message}"), help });
                self.next_line(end);
            }
        }
    }

    /// Reads the value from behind the `=`. An error has its offset, and that after which reading continues.
    fn value(&self, from: usize) -> Result<Value, (usize, usize, (&'static str, &'static str))> {
        let line_end = self.line_end(from);
        let start = line_end - self.text[from..line_end].trim_start_matches([' ', '\t']).len();
        let rest = &self.text[start..];
        let quote = rest.chars().next().filter(|_| start < line_end);
        let Some(quote @ ('\'' | '"')) = quote else { return self.unquoted(start, line_end) };
        let is_single = quote == '\'';
        let mut close = None;
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' if !is_single => escaped = true,
                c if c == quote => {
                    close = Some(start + index);
                    break;
                }
                _ => {}
            }
        }
        let Some(close) = close else { return Err((start, start, if is_single { SINGLE } else { DOUBLE })) };
        let inner = start + 1..close;
        let mut value = Zeroizing::new(String::with_capacity(inner.len()));
        let mut chars = self.text[inner.clone()].char_indices().peekable();
        while let Some((index, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            let wrong = |why| Err((inner.start + index, close, why));
            match c {
                '\\' if is_single && next.is_none() => return wrong(LAST_BACKSLASH),
                '\\' if !is_single => match next {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    _ => return wrong(BACKSLASH),
                },
                '$' if !is_single => return wrong(DOLLAR),
                '\r' if next == Some('\n') => continue,
                c if is_odd(c) && c != '\n' => return wrong(CONTROL),
                c => {
                    value.push(c);
                    continue;
                }
            }
            chars.next();
        }
        let behind = &self.text[close + 1..self.line_end(close + 1)];
        let comment = behind.trim_start_matches([' ', '\t']);
        let is_comment = comment.starts_with('#') && comment.len() < behind.len();
        if !(comment.is_empty() || is_comment) {
            return Err((close + 1, close, BEHIND));
        }
        Ok(Value { value, written: start..close + 1, inner })
    }

    fn unquoted(&self, start: usize, line_end: usize) -> Result<Value, (usize, usize, (&'static str, &'static str))> {
        let line = &self.text[start..line_end];
        let wrong = |index: usize, why| Err((start + index, start, why));
        let length = match line.find('#') {
            Some(0) => return wrong(0, FIRST_HASH),
            Some(index) if line[..index].ends_with(' ') => index,
            Some(index) => return wrong(index, HASH),
            None => line.len(),
        };
        let value = line[..length].trim_end_matches([' ', '\t']);
        if value.starts_with('`') {
            return wrong(0, BACKTICK);
        }
        if let Some(index) = value.find('$') {
            return wrong(index, DOLLAR);
        }
        let is_space = |c: char| c.is_whitespace() || c == '\u{feff}';
        let odd = value.find(is_odd).or_else(|| {
            let last = value.char_indices().next_back();
            let edges = value.char_indices().next().into_iter().chain(last);
            edges.filter(|(_, c)| is_space(*c)).map(|(index, _)| index).next()
        });
        if let Some(index) = odd {
            return wrong(index, CONTROL);
        }
        let written = start..start + value.len();
        Ok(Value { value: Zeroizing::new(value.to_owned()), inner: written.clone(), written })
    }

    /// Returns the end of the line of an offset, before its line break.
    fn line_end(&self, at: usize) -> usize {
        let end = self.text[at..].find('\n').map_or(self.text.len(), |index| at + index);
        if self.text[at..end].ends_with('\r') && end < self.text.len() { end - 1 } else { end }
    }

    /// Continues with the line after that of an offset.
    fn next_line(&mut self, from: usize) {
        let end = self.text[from..].find('\n').map_or(self.text.len(), |index| from + index + 1);
        self.line += self.text[self.at..end].matches('\n').count();
        (self.at, self.line_start) = (end, end);
    }

    /// Returns the place of an offset in the lines of this entry.
    fn span(&self, at: usize, width: usize) -> Span {
        let before = &self.text[self.line_start..at];
        let own = before.rfind('\n').map_or(before, |index| &before[index + 1..]);
        let is_one_line = !self.text[at..].chars().take(width).any(|c| c == '\n');
        Span {
            line: self.line + before.matches('\n').count(),
            column: own.chars().count() + 1,
            width: if is_one_line { width.max(1) } else { 1 },
        }
    }

    fn report(&mut self, at: usize, width: usize, message: String, help: &'static str) {
        let span = self.span(at, width);
        self.wrong.push(Wrong { span, message, help });
    }
}

/// Returns whether a character is read otherwise, or not at all, by some.
fn is_odd(c: char) -> bool {
    c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns a value as it is written in a file; nothing where no reader but one could read it as it is.
pub fn written(value: &str) -> Option<Zeroizing<String>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=?&".contains(c);
    if value.chars().all(is_plain) {
        return Some(Zeroizing::new(value.to_owned()));
    }
    let single = || Zeroizing::new(format!("'{value}'"));
    let double =
        || Zeroizing::new(format!("\"{}\"", Zeroizing::new(value.replace('\n', "\\n").replace('\r', "\\r")).as_str()));
    let forms = if value.contains(['\n', '\r']) { [double(), single()] } else { [single(), double()] };
    let bare = Zeroizing::new(value.to_owned());
    let is_read = |form: &Zeroizing<String>| {
        let text = Zeroizing::new(format!("A={}\nB=\n", form.as_str()));
        let (entries, wrong) = read(&text);
        wrong.is_empty() && entries.len() == 2 && entries[0].value.as_str() == value
    };
    forms.into_iter().chain([bare]).find(is_read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<(String, String)> {
        let (entries, wrong) = read(text);
        assert_eq!(wrong, vec![], "{text:?}");
        entries.iter().map(|entry| (entry.name.to_owned(), entry.value.to_string())).collect()
    }

    fn errors(text: &str) -> Vec<String> {
        read(text)
            .1
            .iter()
            .map(|wrong| format!("{}:{} {}", wrong.span.line, wrong.span.column, wrong.message))
            .collect()
    }

    #[test]
    fn names_values_quotes_and_comments() {
        let text = "\u{feff}# a comment\r\n\nA=1\r\nexport B = two words # why\nC='$HOME #' # c\n D=\"a'b\\n\"\nE=\n\
                    F.g-h=it's\nI='x\r\n  # y\n'\nJ=\"\"";
        let wanted = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$HOME #"),
            ("D", "a'b\n"),
            ("E", ""),
            ("F.g-h", "it's"),
            ("I", "x\n  # y\n"),
            ("J", ""),
        ];
        assert_eq!(shown(text), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let (entries, _) = read(text);
        let place = |index: usize| (entries[index].name_span.line, entries[index].value_span.column);
        assert_eq!([place(0), place(2), place(6), place(7)], [(3, 3), (5, 4), (9, 4), (12, 4)]);
        assert_eq!(&text[entries[2].written.clone()], "'$HOME #'");
        assert_eq!(&text[entries[2].lines.clone()], "C='$HOME #' # c");
    }

    #[test]
    fn what_is_read_otherwise_elsewhere_is_an_error_with_its_place_and_without_its_value() {
        let text = "HASH=$2b$12$canary.xyz\nURL=$DB_HOST/canary\nA=\"canary$\"\nB=canary#x\nC=#canary\nD=`canary`\nE=\"a\\tcanary\"\n\
                    F='canary\\'\nG='canary'x\nH='canary'#x\ncanary\ncanary canary=1\nI: canary\nJ=\"canary\u{1}\"\nK=canary\u{a0}\nOK=1\n\
                    L=\"canary\nM=1\n";
        assert_eq!(
            errors(text),
            [
                "1:6 the value of `HASH` has a `$` outside single quotes, which other readers replace with a variable",
                "2:5 the value of `URL` has a `$` outside single quotes, which other readers replace with a variable",
                "3:10 the value of `A` has a `$` outside single quotes, which other readers replace with a variable",
                "4:9 the value of `B` has a `#` outside quotes, which other readers treat as a comment",
                "5:3 the value of `C` begins with a `#`, which some readers treat as a comment",
                "6:3 the value of `D` is in backticks, which some readers treat as quotes",
                "7:5 the value of `E` has a backslash in double quotes, which other readers interpret differently",
                "8:10 the value of `F` has a backslash before the closing quote, which other readers interpret differently",
                "9:11 the value of `G` has text after the closing quote",
                "10:11 the value of `H` has text after the closing quote",
                "11:1 a line without `=`",
                "12:1 a name that some readers don't accept",
                "13:1 a line without `=`",
                "14:10 the value of `J` has a control character or a space that isn't a plain one",
                "15:9 the value of `K` has a control character or a space that isn't a plain one",
                "17:3 the value of `L` begins with a double quote that isn't closed",
            ]
        );
        assert!(!format!("{:?}", read(text).1).contains("canary"));
        let names: Vec<&str> = read(text).0.iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["OK", "M"]);
    }

    proptest! {
        #[test]
        fn whatever_can_be_written_is_read_again(value in "[ -~é\\n\\r'\"$#`\\\\]{0,20}") {
            match written(&value) {
                Some(form) => prop_assert_eq!(shown(&format!("A={}\n", form.as_str())), vec![("A".to_owned(), value)]),
                // It has a single quote, or ends with a backslash; and something that only single quotes keep.
                None => {
                    prop_assert!(value.contains('\'') || value.ends_with('\\') || value.contains('\r'), "{:?}", value);
                    prop_assert!(value.contains(['"', '$', '\\']), "{:?}", value);
                }
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in "([A-C]=|export |['\"`$#\\\\ \\t\\r\\n]|é|x|\\u{feff}|\\u{2028}){0,30}") {
            let (entries, wrong) = read(&text);
            let lines = text.matches('\n').count() + 1;
            prop_assert!(entries.iter().all(|entry| entry.name_span.line <= lines && text.get(entry.written.clone()).is_some()));
            prop_assert!(wrong.iter().all(|wrong| wrong.span.line <= lines && wrong.span.column >= 1));
        }
    }
}
