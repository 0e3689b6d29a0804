//! Errors of the parser, in the author's terms: its own messages are about how it works. Never prints the parser's words.

use std::borrow::Cow;

use saphyr_parser::{Parser, ScanError};

use super::{Builder, Open, Span, Stop, pairs};
use flotilla_model::diagnostic::Code;

/// The maximum size of a text that is scanned repeatedly to find tabs, in bytes.
const MAX_REREAD: usize = 32 << 20;

/// Returns the text with a space for each tab between a colon and its value, so that places stay. YAML 1.2 takes such a
/// tab (6.2, Separation Spaces), the parser doesn't.
pub fn without_tabs(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if !text.contains(":\t") {
        return text;
    }
    let mut reread = 0;
    while reread <= MAX_REREAD {
        let error = Parser::new_from_str(&text).find_map(Result::err);
        let Some(error) = error.filter(|error| error.info().starts_with("':' must be followed")) else { break };
        reread += text.len();
        let value = text.char_indices().nth(error.marker().index()).map_or(text.len(), |(at, _)| at);
        let start = text[..value].trim_end_matches([' ', '\t']).len();
        if start == value {
            break;
        }
        text.to_mut().replace_range(start..value, &" ".repeat(value - start));
    }
    text
}

impl Builder<'_> {
    /// Translates an error of the parser into the author's terms.
    pub(super) fn syntax(&self, error: &ScanError, open: Option<&Open>) -> Stop {
        let marker = error.marker();
        let line = |number: usize| self.text.lines().nth(number.wrapping_sub(1)).unwrap_or("");
        let (here, before) = (line(marker.line()), line(marker.line().saturating_sub(1)));
        let span = Span { line: marker.line().max(1), column: marker.col() + 1, width: 1 };
        let info = error.info();
        let has = |words: &str| info.contains(words);
        if has("recursion limit") {
            return self.too_deep(span);
        }
        if has("hexadecimal number") || has("Unicode character escape") {
            return self.bad_escape(marker.index(), span);
        }
        if has("tag") && !has("tab") {
            return self.tag(span);
        }
        let bracket = open.map(|open| (open, line(open.span.line).chars().nth(open.span.column - 1)));
        if let Some((open, Some(bracket @ ('[' | '{')))) = bracket
            && open.span.line < marker.line()
        {
            let message = format!("the `{bracket}` that opens here isn't closed");
            let help = format!("reading stopped on line {}: close the bracket before that line", marker.line());
            return self.stop(Code::Syntax, open.span, message, help);
        }
        let next = here.chars().nth(marker.col());
        let indent = &here[..here.len() - here.trim_start().len()];
        let (message, help) = if indent.contains('\t') {
            ("a tab in the indentation", "indent with spaces: YAML does not allow tabs there")
        } else if has("unknown escape") {
            ("a backslash that escapes nothing", "write `\\\\` for a backslash, or put the text in single quotes")
        } else if has("trailing content") {
            (
                "the quoted text ends before this",
                "put a comma between entries; write \\\" or '' for a quote in text, or leave out the quotes around it",
            )
        } else if has("document indicator") {
            ("a line of the quoted text begins with `---` or `...`", "close the quote before it, or indent the line")
        } else if has("quoted scalar") && next.is_some_and(|c| "'\"".contains(c)) {
            ("the quoted text that begins here isn't closed", "close the quote on the same line")
        } else if has("invalid indentation in quoted scalar") {
            ("a line of the quoted text isn't indented", "indent it, or close the quote on the line where it begins")
        } else if has("quoted scalar") {
            (
                "the quoted text ends before this",
                "write '' for a quote in single quotes, or put the text in double quotes",
            )
        } else if has("unknown anchor") {
            ("an alias of an anchor that doesn't exist", "put text that begins with `*` in quotes")
        } else if has("indentation for anchor") || has("duplicated anchor") {
            ("an anchor that belongs to nothing", "write it right before its value, or put text with `&` in quotes")
        } else if has("block scalar") || has("block scalar content") {
            (
                "the text below `|` or `>` is not indented correctly",
                "indent each of its lines by the same number of spaces, and write nothing after `|` or `>` on its line",
            )
        } else if has("byte order mark") {
            ("a byte order mark inside the file", "remove it: it is only allowed at the beginning of a file")
        } else if has("unprintable") {
            ("a control character", "remove it, or write it as an escape in double quotes: \"\\x07\"")
        } else if has("irective") || has("version number") || next == Some('%') {
            ("a line that begins with `%`", "put text that begins with `%` in quotes; YAML's directives aren't read")
        } else if has("anchor or alias") && here.contains('*') {
            ("text can't begin with `*`", "put text that begins with `*` in quotes")
        } else if has("unexpected character") || has("anchor or alias") {
            ("text can't begin with this character", "put the text in quotes")
        } else if has("comment intercepting") {
            ("a comment in the middle of a text of several lines", "move the comment above the text")
        } else if has("mapping values are not allowed") && here.matches(": ").count() > 1 {
            ("a second `: ` in one line", "put text that has a colon in quotes")
        } else if has("mapping values are not allowed") && !before.contains(": ") && before.contains(':') {
            ("a key can't be here", "is a space missing after the colon of the line before?")
        } else if has("mapping values are not allowed") || has("did not find expected key") {
            (
                "this doesn't belong to the map before it",
                "check the indentation: the keys of a map begin at the same column",
            )
        } else if has("expected '-' indicator") {
            ("this doesn't belong to the list before it", "begin each item with `- `, all at the same column")
        } else if has("sequence entries are not allowed") || has("is only valid inside a block") {
            (
                "a list can't begin here",
                "put its first item on a line of its own, indented, or write it in brackets: `[a, b]`",
            )
        } else if has("mapping keys are not allowed") {
            ("`? ` can't begin a key here", "write `key: value`, or put text that begins with `?` in quotes")
        } else if has("misplaced bracket") {
            ("a closing bracket without an opening one", "remove it, or put the text in quotes")
        } else if has("',' or") {
            (
                "a comma or the closing bracket is missing before this",
                "put a comma between the entries, or text with commas and brackets in quotes",
            )
        } else if has("simple key") {
            return self.not_a_key(marker.line(), span);
        } else if has("illegal placement of ':'") || has("may not precede") {
            (
                "a colon that belongs to no key",
                "write `key: value`, with a space after the colon, or put text that has a colon in quotes",
            )
        } else if has("cannot start with '-'") {
            ("text can't begin with this hyphen", "put the text in quotes")
        } else if has("indentation in flow") || has("invalid indentation") {
            (
                "this line isn't indented as what it belongs to",
                "indent it further than the line on which the bracket or key is",
            )
        } else if has("document") || has("stream-start") {
            ("this belongs to no document", "remove what follows `...`: one customer, one file")
        } else if has("tab") || here.contains('\t') {
            ("a tab where YAML doesn't allow one", "use spaces instead of the tab")
        } else if has("end of plain scalar") || has("eof") {
            ("the file ends before the value does", "look for a missing quote, bracket or value at its end")
        } else {
            ("this is not valid YAML", "look for a missing quote, bracket or colon on this line or the one before")
        };
        self.stop(Code::Syntax, span, message, help)
    }

    /// Reports a line that is no key, where one belongs. The parser notices it on a later line.
    fn not_a_key(&self, noticed: usize, span: Span) -> Stop {
        let lines = self.text.lines().enumerate().take(noticed.saturating_sub(usize::from(span.column == 1)));
        let last = lines.filter(|(_, line)| !line.trim().is_empty()).last();
        let span = last.map_or(span, |(index, line)| {
            let indent = line.chars().take_while(|c| c.is_whitespace()).count();
            Span { line: index + 1, column: indent + 1, width: line.trim().chars().count() }
        });
        let help = "write `key: value` with a space after the colon, or `- ` before an item of a list";
        self.stop(Code::Syntax, span, "this is neither a key with a colon nor a list item", help)
    }

    /// Reports the escape that is wrong in the double-quoted text that begins at an index.
    fn bad_escape(&self, quote: usize, start: Span) -> Stop {
        let mut at = start;
        let mut chars = self.text.chars().skip(quote).peekable();
        let mut step = |chars: &mut std::iter::Peekable<_>| {
            let next: Option<char> = Iterator::next(chars);
            let place = at;
            match next {
                Some('\n') => (at.line, at.column) = (at.line + 1, 1),
                _ => at.column += 1,
            }
            (next, place)
        };
        while let (Some(c), place) = step(&mut chars) {
            if c != '\\' {
                continue;
            }
            let (Some(kind), _) = step(&mut chars) else { break };
            let length = match kind {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => continue,
            };
            let mut digits = String::new();
            while digits.len() < length && chars.peek().is_some_and(|c: &char| c.is_ascii_hexdigit()) {
                digits.extend(step(&mut chars).0);
            }
            let span = Span { width: 2 + digits.len(), ..place };
            if digits.len() < length {
                let message = format!("`\\{kind}` without {length} hexadecimal digits");
                let help = "write all of them, as in \"\\u00e9\", or `\\\\` for a backslash, or use single quotes";
                return self.stop(Code::Syntax, span, message, help);
            }
            let code = u32::from_str_radix(&digits, 16).unwrap_or(u32::MAX);
            if char::from_u32(code).is_some() {
                continue;
            }
            // In JSON and JavaScript, a character beyond 16 bits is two escapes: the pair is read, a half of it isn't.
            let rest: String = format!("\\{kind}{digits}").chars().chain(chars.clone().take(6)).collect();
            if pairs::pair_at(&rest, 0).is_some() {
                for _ in 0..6 {
                    let _ = step(&mut chars);
                }
                continue;
            }
            let message = format!("`\\{kind}{digits}` is not a character");
            return self.stop(Code::Syntax, span, message, "write the character itself, or its own code");
        }
        self.stop(Code::Syntax, start, "an escape in this text is invalid", "write `\\\\` for a backslash")
    }
}
