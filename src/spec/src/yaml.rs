//! YAML as a tree whose nodes have their places. The one place where YAML is read: there is no second parser that
//! could see something else in a file. Doesn't know the meaning of the tree.
//!
//! YAML 1.2, core schema: `on`, `off`, `yes` and `no` are strings. Without tags, merge keys and keys that aren't
//! strings; with anchors, within limits.

mod extent;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as ParserSpan, Tag};
use serde_json::{Map, Number, Value};

use flotilla_model::diagnostic::{Code, Diagnostic, Place};

pub use extent::{Entry, Extent, Shape, column, extents, line_end, line_start};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 8 << 20;
/// The deepest nesting. A spec needs seven levels.
const MAX_DEPTH: usize = 64;
/// The most nodes of a document, aliases expanded.
const MAX_NODES: usize = 200_000;
/// The most text of a document in bytes, aliases expanded.
const MAX_TEXT: usize = 16 << 20;
/// The largest whole number that every JSON and JavaScript reader keeps exactly.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// A stretch of one line: line and column from 1, width in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The width in characters; 1 where the node goes over several lines, 0 where nothing is written.
    pub width: usize,
}

/// A node and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// The place.
    pub span: Span,
    /// The value.
    pub kind: Kind,
}

/// The kind of a node.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Empty, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, with the text that stood there.
    Number(Number, String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(String, Span, Node)>),
}

impl Node {
    /// Returns whether the word `null` or `~` is written; a key without a value is null as well, but nothing is written.
    pub fn is_written_null(&self) -> bool {
        matches!(self.kind, Kind::Null) && self.span.width > 0
    }

    /// Returns the node as JSON.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(bool) => Value::Bool(*bool),
            Kind::Number(number, _) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|(key, _, node)| (key.clone(), node.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Returns the node as text that two nodes share only if they are alike in the order of keys, too: by it, lists are appended to.
    pub fn in_order(&self) -> String {
        let mut text = String::new();
        self.write_in_order(&mut text);
        text
    }

    fn write_in_order(&self, text: &mut String) {
        match &self.kind {
            Kind::List(items) => {
                text.push('[');
                for item in items {
                    item.write_in_order(text);
                    text.push(',');
                }
                text.push(']');
            }
            Kind::Map(entries) => {
                text.push('{');
                for (key, _, node) in entries {
                    text.push_str(&Value::from(key.as_str()).to_string());
                    text.push(':');
                    node.write_in_order(text);
                    text.push(',');
                }
                text.push('}');
            }
            _ => text.push_str(&self.to_value().to_string()),
        }
    }

    /// Returns the node under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _, _)| k == key).map(|(_, _, node)| node),
            Kind::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Returns the place of a key of this map.
    pub fn key_span(&self, key: &str) -> Option<Span> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _, _)| k == key).map(|(_, span, _)| *span),
            _ => None,
        }
    }

    /// Returns the deepest node along a path that is there, and whether the whole path is.
    pub fn along<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> (&Node, bool) {
        let mut node = self;
        for step in path {
            match node.get(step) {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }
}

/// A file that was read: its path from the project's root and its tree.
#[derive(Clone, Debug)]
pub struct Document {
    /// The path from the project's root, with `/`.
    pub file: String,
    /// The tree.
    pub root: Node,
}

impl Document {
    /// Returns the place of a span in this file.
    pub fn place(&self, span: Span) -> Place {
        place(&self.file, span)
    }

    /// Returns the place of the value at a path, or of what is nearest to it.
    pub fn place_of<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Place {
        self.place(self.root.along(path).0.span)
    }
}

/// Reads bytes. What could be read is returned even where keys are duplicate, so that the other errors of the file
/// are found in the same run.
pub fn parse(file: &str, bytes: &[u8]) -> (Option<Document>, Vec<Diagnostic>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let place = Place {
                file: file.to_owned(),
                line: before.iter().filter(|b| **b == b'\n').count() + 1,
                column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
                width: 1,
            };
            let message = format!("byte 0x{:02x} is not UTF-8", bytes.get(error.valid_up_to()).unwrap_or(&0));
            let help = "save the file as UTF-8 (`iconv -f WINDOWS-1252 -t UTF-8 FILE` converts an old one)";
            return (None, vec![Diagnostic::error(Code::NotUtf8, place, message, help)]);
        }
    };
    let mut builder = Builder { file, text, anchors: HashMap::new(), nodes: 0, bytes: 0, diagnostics: Vec::new() };
    let root = builder
        .document()
        .unwrap_or_else(|stop| {
            builder.diagnostics.push(*stop);
            None
        })
        .map(|root| Document { file: file.to_owned(), root });
    (root, builder.diagnostics)
}

/// The error that ends the reading of a file; boxed, as it is rare.
type Stop = Box<Diagnostic>;

struct Builder<'a> {
    file: &'a str,
    text: &'a str,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
    diagnostics: Vec<Diagnostic>,
}

/// A list or map that isn't closed yet.
struct Open {
    span: Span,
    anchor: usize,
    children: Children,
}

impl Open {
    /// Returns the list or map as a node, with its anchor.
    fn close(self) -> (Node, usize) {
        let kind = match self.children {
            Children::List(items) => Kind::List(items),
            Children::Map { entries, .. } => Kind::Map(entries),
        };
        (Node { span: self.span, kind }, self.anchor)
    }
}

enum Children {
    List(Vec<Node>),
    Map { entries: Vec<(String, Span, Node)>, seen: HashMap<String, usize>, key: Option<(String, Span)> },
}

impl Builder<'_> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut parser = Parser::new_from_str(self.text);
        let mut stack: Vec<Open> = Vec::new();
        let mut root = None;
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, at) = match event {
                Ok(event) => event,
                Err(error) => return Err(self.syntax(&error, stack.last())),
            };
            let span = span(&at);
            let finished = match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents == 2 {
                        return Err(self.stop(
                            Code::SecondDocument,
                            span,
                            "a second document begins here",
                            "one customer, one file: move what follows `---` into a file of its own",
                        ));
                    }
                    continue;
                }
                Event::Alias(anchor) => {
                    let node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                        self.stop(Code::Unsupported, span, "an alias inside of its own anchor", "write the value out")
                    })?;
                    self.count(&node, span)?;
                    Some((Node { span, ..node }, 0))
                }
                Event::Scalar(text, style, anchor, tag) => {
                    Some((self.tagged(&text, style, tag.as_deref(), span)?, anchor))
                }
                Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if tag.is_some() => {
                    let _ = anchor;
                    return Err(self.tag(span));
                }
                Event::SequenceStart(anchor, _) => {
                    self.nodes += 1;
                    self.limit(span)?;
                    stack.push(Open { span, anchor, children: Children::List(Vec::new()) });
                    None
                }
                Event::MappingStart(anchor, _) => {
                    self.nodes += 1;
                    self.limit(span)?;
                    stack.push(Open {
                        span,
                        anchor,
                        children: Children::Map { entries: Vec::new(), seen: HashMap::new(), key: None },
                    });
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => stack.pop().map(Open::close),
                _ => continue,
            };
            if stack.len() > MAX_DEPTH {
                return Err(self.too_deep(span));
            }
            let Some((node, anchor)) = finished else { continue };
            if !matches!(node.kind, Kind::List(_) | Kind::Map(_)) {
                self.nodes += 1;
                self.limit(span)?;
            }
            if anchor != 0 {
                self.anchors.insert(anchor, node.clone());
            }
            match stack.last_mut() {
                None => root = Some(node),
                Some(open) => self.add(&mut open.children, node)?,
            }
        }
        Ok(root.filter(|root: &Node| !matches!(root.kind, Kind::Null)))
    }

    /// Adds a node to its list or map: as an item, a key or a value.
    fn add(&mut self, children: &mut Children, node: Node) -> Result<(), Stop> {
        let (entries, seen, key) = match children {
            Children::List(items) => {
                items.push(node);
                return Ok(());
            }
            Children::Map { entries, seen, key } => (entries, seen, key),
        };
        let Some((name, at)) = key.take() else {
            *key = Some(self.key(node)?);
            return Ok(());
        };
        match seen.get(&name) {
            Some(first) => {
                let first = entries[*first].1;
                let message = format!("`{name}` stands twice in this map");
                let twice = Diagnostic::error(Code::DuplicateKey, place(self.file, at), message, "keep one of the two");
                self.diagnostics.push(twice.also(place(self.file, first), "it stands here first"));
            }
            None => {
                seen.insert(name.clone(), entries.len());
                entries.push((name, at, node));
            }
        }
        Ok(())
    }

    /// Reads a scalar with its tag.
    fn tagged(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Node, Stop> {
        let kind = match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Kind::Text(text.to_owned()),
            Some(_) => return Err(self.tag(span)),
            None => self.scalar(text, style, span)?,
        };
        let is_nothing = text.is_empty() && matches!(kind, Kind::Null);
        Ok(Node { span: Span { width: if is_nothing { 0 } else { span.width }, ..span }, kind })
    }

    fn key(&self, node: Node) -> Result<(String, Span), Stop> {
        match node.kind {
            Kind::Text(text) if text == "<<" => Err(self.stop(
                Code::Unsupported,
                node.span,
                "merge keys (`<<`) are not part of YAML 1.2",
                "put what customers share into `defaults` of fleet.yaml",
            )),
            Kind::Text(text) => Ok((text, node.span)),
            Kind::Number(_, raw) => Ok((raw, node.span)),
            Kind::Bool(bool) => Ok((bool.to_string(), node.span)),
            Kind::Null => Ok(("null".to_owned(), node.span)),
            Kind::List(_) | Kind::Map(_) => {
                Err(self.stop(Code::Unsupported, node.span, "a list or map as a key", "keys are plain words"))
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) -> Result<Kind, Stop> {
        self.bytes += text.len();
        if style != ScalarStyle::Plain {
            return Ok(Kind::Text(text.to_owned()));
        }
        Ok(match text {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            _ => match number(text) {
                Numeric::No => Kind::Text(text.to_owned()),
                Numeric::Exact(number) => Kind::Number(number, text.to_owned()),
                Numeric::Lossy => {
                    return Err(self.stop(
                        Code::Unsupported,
                        span,
                        format!("as a number, {text} would lose digits"),
                        format!("write it in quotes: \"{text}\""),
                    ));
                }
            },
        })
    }

    /// Counts the nodes behind an alias.
    fn count(&mut self, node: &Node, at: Span) -> Result<(), Stop> {
        self.nodes += 1;
        match &node.kind {
            Kind::Text(text) => self.bytes += text.len(),
            Kind::List(items) => {
                for item in items {
                    self.count(item, at)?;
                }
            }
            Kind::Map(entries) => {
                for (key, _, value) in entries {
                    self.bytes += key.len();
                    self.count(value, at)?;
                }
            }
            _ => {}
        }
        self.limit(at)
    }

    fn limit(&self, span: Span) -> Result<(), Stop> {
        if self.nodes <= MAX_NODES && self.bytes <= MAX_TEXT {
            return Ok(());
        }
        Err(self.stop(
            Code::TooMany,
            span,
            format!("the document expands to more than {MAX_NODES} nodes or {} MiB", MAX_TEXT >> 20),
            "aliases of aliases multiply: write the values out",
        ))
    }

    fn too_deep(&self, span: Span) -> Stop {
        self.stop(
            Code::TooDeep,
            span,
            format!("nested deeper than {MAX_DEPTH} levels"),
            "a spec needs no more than seven: flatten it",
        )
    }

    fn tag(&self, span: Span) -> Stop {
        self.stop(Code::Unsupported, span, "a YAML tag", "leave the `!…` out; quotes make text")
    }

    fn stop(&self, code: Code, span: Span, message: impl Into<String>, help: impl Into<String>) -> Stop {
        Box::new(Diagnostic::error(code, place(self.file, span), message, help))
    }

    /// Translates an error of the parser into the author's terms: its own message is about how it works.
    fn syntax(&self, error: &saphyr_parser::ScanError, open: Option<&Open>) -> Stop {
        let marker = error.marker();
        let line = |number: usize| self.text.lines().nth(number.wrapping_sub(1)).unwrap_or("");
        let (here, before) = (line(marker.line()), line(marker.line().saturating_sub(1)));
        let span = Span { line: marker.line().max(1), column: marker.col() + 1, width: 1 };
        let info = error.info();
        if info.contains("recursion limit") {
            return self.too_deep(span);
        }
        let bracket = open.map(|open| (open, line(open.span.line).chars().nth(open.span.column - 1)));
        if let Some((open, Some(bracket @ ('[' | '{')))) = bracket
            && open.span.line < marker.line()
        {
            let message = format!("the `{bracket}` that begins here isn't closed");
            let help = format!("reading stopped on line {}: close the bracket before", marker.line());
            return self.stop(Code::Syntax, open.span, message, help);
        }
        let indent = &here[..here.len() - here.trim_start().len()];
        let (message, help) = if indent.contains('\t') {
            ("a tab in the indentation", "indent with spaces: YAML takes no tabs there")
        } else if info.contains("unknown escape") {
            ("a backslash that escapes nothing", "write `\\\\` for a backslash, or put the text into single quotes")
        } else if info.contains("quoted scalar") && here.chars().nth(marker.col()).is_some_and(|c| "'\"".contains(c)) {
            ("the quoted text that begins here isn't closed", "close the quote on the same line")
        } else if info.contains("quoted scalar") {
            (
                "the quoted text ends before this",
                "write '' for a quote in single quotes, or put the text into double quotes",
            )
        } else if info.contains("unknown anchor") {
            ("an alias of an anchor that isn't there", "put text that begins with `*` into quotes")
        } else if info.contains("unexpected character")
            || info.contains("anchor or alias")
            || here.chars().nth(marker.col()) == Some('%')
        {
            ("text can't begin with this character", "put the text into quotes")
        } else if info.contains("mapping values are not allowed") && here.matches(": ").count() > 1 {
            ("a second `: ` in one line", "put text that has a colon into quotes")
        } else if info.contains("mapping values are not allowed") && !before.contains(": ") && before.contains(':') {
            ("a key where none can stand", "is a space missing after the colon of the line before?")
        } else if info.contains("mapping values are not allowed") || info.contains("did not find expected key") {
            (
                "this doesn't belong to the map before it",
                "check the indentation: the keys of a map begin at the same column",
            )
        } else if info.contains("misplaced bracket") {
            ("a bracket is closed that wasn't opened", "take it out, or put the text into quotes")
        } else if here.contains('\t') {
            (info, "use spaces instead of the tab")
        } else {
            (info, "look for a missing quote, bracket or colon on this line or the one before")
        };
        self.stop(Code::Syntax, span, message, help)
    }
}

fn place(file: &str, span: Span) -> Place {
    Place { file: file.to_owned(), line: span.line, column: span.column, width: span.width.max(1) }
}

fn span(at: &ParserSpan) -> Span {
    let width = if at.start.line() == at.end.line() { at.end.col().saturating_sub(at.start.col()).max(1) } else { 1 };
    Span { line: at.start.line(), column: at.start.col() + 1, width }
}

enum Numeric {
    No,
    Exact(Number),
    Lossy,
}

/// Returns a plain scalar as a number of the core schema. Leading zeros and more than 53 bits are lossy: telephone numbers
/// and pixel ids are text.
fn number(text: &str) -> Numeric {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |digits: &str, test: fn(&char) -> bool| !digits.is_empty() && digits.chars().all(|c| test(&c));
    let whole = if let Some(octal) = text.strip_prefix("0o") {
        all(octal, |c| c.is_digit(8)).then(|| i64::from_str_radix(octal, 8))
    } else if let Some(hex) = text.strip_prefix("0x") {
        all(hex, char::is_ascii_hexdigit).then(|| i64::from_str_radix(hex, 16))
    } else if all(unsigned, char::is_ascii_digit) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return Numeric::Lossy;
        }
        Some(text.strip_prefix('+').unwrap_or(text).parse::<i64>())
    } else {
        None
    };
    if let Some(whole) = whole {
        return match whole {
            Ok(whole) if whole.abs() <= MAX_SAFE_INTEGER => Numeric::Exact(whole.into()),
            _ => Numeric::Lossy,
        };
    }
    if [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&unsigned) {
        return Numeric::Lossy;
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let is_float = digits(before)
        && digits(after)
        && !(before.is_empty() && after.is_empty())
        && exponent
            .is_none_or(|exponent| all(exponent.strip_prefix(['-', '+']).unwrap_or(exponent), char::is_ascii_digit));
    if !is_float {
        return Numeric::No;
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Numeric::Exact(number),
        None => Numeric::Lossy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        let (document, diagnostics) = parse("t.yaml", text.as_bytes());
        assert_eq!(diagnostics, vec![], "{text}");
        document.map_or(Value::Null, |document| document.root.to_value())
    }

    fn codes(text: &str) -> Vec<String> {
        let (_, diagnostics) = parse("t.yaml", text.as_bytes());
        diagnostics.iter().map(|d| format!("{} {}", d.code, d.place)).collect()
    }

    #[test]
    fn the_core_schema_and_nothing_of_yaml_1_1() {
        assert_eq!(
            value(
                "[on, off, yes, No, y, 1_000, 12:30, 2026-06-01, ~, '', true, 0x10, 0o17, -7, 1.5, .5, 1e3, 1.2.3, +]"
            ),
            json!([
                "on",
                "off",
                "yes",
                "No",
                "y",
                "1_000",
                "12:30",
                "2026-06-01",
                null,
                "",
                true,
                16,
                15,
                -7,
                1.5,
                0.5,
                1000.0,
                "1.2.3",
                "+"
            ])
        );
    }

    #[test]
    fn numbers_that_lose_digits_are_refused() {
        for text in ["a: 0123", "a: 12345678901234567890", "a: .inf", "a: 9007199254740993", "a: 1e999"] {
            assert_eq!(codes(text), ["Y0111 t.yaml:1:4"], "{text}");
        }
        assert_eq!(value("a: \"0123\""), json!({"a": "0123"}));
    }

    #[test]
    fn duplicate_keys_are_all_found_with_their_places() {
        assert_eq!(codes("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n"), ["Y0107 t.yaml:4:3", "Y0107 t.yaml:5:1"]);
    }

    #[test]
    fn bombs_depth_and_second_documents_end_the_reading() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            bomb += &format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(","));
        }
        assert!(codes(&bomb)[0].starts_with("Y0110"), "{:?}", codes(&bomb));
        assert!(codes(&"[".repeat(10_000))[0].starts_with("Y0109"));
        assert!(
            codes(&(0..10_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>())[0].starts_with("Y0109")
        );
        assert_eq!(codes("a: 1\n---\nb: 2\n"), ["Y0108 t.yaml:2:1"]);
        assert!(codes("a: &a [*a]\n")[0].starts_with('Y'));
    }

    #[test]
    fn tabs_bytes_tags_and_merge_keys() {
        assert!(codes("a:\n\tb: 1\n")[0].starts_with("Y0106 t.yaml:2"));
        let (_, diagnostics) = parse("t.yaml", b"a: 1\nb: \xe4\n");
        assert_eq!(diagnostics[0].place.to_string(), "t.yaml:2:4");
        assert_eq!(codes("a: !!binary aGk=\n"), ["Y0111 t.yaml:1:4"]);
        assert_eq!(codes("a: {<<: {b: 1}}\n"), ["Y0111 t.yaml:1:5"]);
        assert_eq!(value("a: !!str 123"), json!({"a": "123"}));
    }
}
