//! YAML as a tree whose nodes have their places. The one place where YAML is read: there is no second parser that
//! could see something else in a file. Doesn't know the meaning of the tree.
//!
//! YAML 1.2, core schema: `on`, `off`, `yes` and `no` are strings. Without tags, merge keys and keys that aren't strings; with anchors,
//! within limits. A number is one only if JavaScript prints it as it is written: any other text that YAML takes for a number is an error,
//! because it is unclear whether its characters or its value are meant.

mod extent;
mod number;
mod pairs;
mod syntax;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as ParserSpan, Tag};
use serde_json::{Map, Number, Value};

use flotilla_model::diagnostic::{Code, Diagnostic, Place};

pub use extent::{Entry, Extent, Shape, column, extents, line_end, line_start};
pub use number::text_of as number_text;

use number::Numeric;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 8 << 20;
/// The deepest nesting. A spec needs seven levels.
const MAX_DEPTH: usize = 64;
/// The maximum number of nodes of a document, aliases expanded.
const MAX_NODES: usize = 200_000;
/// The maximum size of the text of a document, in bytes, aliases expanded.
const MAX_TEXT: usize = 16 << 20;
/// The maximum number of nodes that the aliases of a document stand for: a short file must not become a large one, which is copied for each
/// environment and worker.
const MAX_ALIASED_NODES: usize = 20_000;
/// The maximum size of the text that they stand for, in bytes.
const MAX_ALIASED_TEXT: usize = 1 << 20;

/// A stretch of one line: line and column from 1, width in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The width in characters; 1 where the node goes over several lines.
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
    /// Nothing is written.
    Empty,
    /// `~` or `null`.
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
    /// A value that was found faulty and left out, so that it isn't known. In a list it is the last item. See [`crate::leave_out`].
    LeftOut,
}

impl Node {
    /// Returns the node as JSON.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Empty | Kind::Null | Kind::LeftOut => Value::Null,
            Kind::Bool(bool) => Value::Bool(*bool),
            Kind::Number(number, _) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => {
                Value::Array(items.iter().filter(|item| !item.is_left_out()).map(Node::to_value).collect())
            }
            Kind::Map(entries) => {
                let known = entries.iter().filter(|(_, _, node)| !node.is_left_out());
                Value::Object(known.map(|(key, _, node)| (key.clone(), node.to_value())).collect::<Map<_, _>>())
            }
        }
    }

    /// Returns whether it is null, whether or not that is written.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::Null)
    }

    /// Returns whether it was left out as faulty.
    pub fn is_left_out(&self) -> bool {
        matches!(self.kind, Kind::LeftOut)
    }

    /// Returns whether it, or anything in it, was left out as faulty.
    pub fn has_left_out(&self) -> bool {
        match &self.kind {
            Kind::LeftOut => true,
            Kind::List(items) => items.iter().any(Node::has_left_out),
            Kind::Map(entries) => entries.iter().any(|(_, _, node)| node.has_left_out()),
            _ => false,
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
        Place { file: self.file.clone(), line: span.line, column: span.column, width: span.width }
    }

    /// Returns the place of the value at a path, or of what is nearest to it.
    pub fn place_of<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Place {
        self.place(self.root.along(path).0.span)
    }
}

/// Returns whether a character can be in a file as it is, outside the white space between values. Others are written as escapes in double
/// quotes. Source: YAML 1.2.2, section 5.1, and line breaks of YAML 1.1, which older readers still see in U+2028 and U+2029.
pub fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
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
    let mut builder = Builder {
        file,
        text,
        anchors: HashMap::new(),
        size: Size::default(),
        aliased: Size::default(),
        anchored: Size::default(),
        diagnostics: Vec::new(),
    };
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
    /// The size of the document, aliases expanded.
    size: Size,
    /// The size of what the aliases stand for.
    aliased: Size,
    /// The size of what has anchors: each is kept beside the document, also within another one.
    anchored: Size,
    diagnostics: Vec<Diagnostic>,
}

/// A number of nodes, and of bytes of text.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    /// Returns the size of a node with everything in it.
    fn of(node: &Node) -> Size {
        let mut size = Size { nodes: 1, bytes: 0 };
        match &node.kind {
            Kind::Text(text) => size.bytes += text.len(),
            Kind::List(items) => items.iter().for_each(|item| size.add(Size::of(item))),
            Kind::Map(entries) => {
                for (key, _, value) in entries {
                    size.bytes += key.len();
                    size.add(Size::of(value));
                }
            }
            _ => {}
        }
        size
    }

    fn add(&mut self, other: Size) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }

    fn exceeds(self, nodes: usize, bytes: usize) -> bool {
        self.nodes > nodes || self.bytes > bytes
    }
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
        let (text, pairs) = pairs::without_pairs(syntax::without_tabs(self.text));
        let mut parser = Parser::new_from_str(&text);
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
                    let Some(node) = self.anchors.get(&anchor) else {
                        let message = "an alias inside its own anchor";
                        return Err(self.stop(Code::Unsupported, span, message, "write the value out"));
                    };
                    // Before it is copied.
                    let size = Size::of(node);
                    self.aliased.add(size);
                    self.size.add(size);
                    self.limit(span)?;
                    Some((Node { span, ..self.anchors[&anchor].clone() }, 0))
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let text = match &pairs {
                        Some(pairs) => {
                            pairs.restore(text, style == ScalarStyle::DoubleQuoted, at.start.index()..at.end.index())
                        }
                        None => text,
                    };
                    let is_key = matches!(stack.last(), Some(Open { children: Children::Map { key: None, .. }, .. }));
                    Some((self.tagged(&text, style, tag.as_deref(), span, is_key)?, anchor))
                }
                Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if tag.is_some() => {
                    let _ = anchor;
                    return Err(self.tag(span));
                }
                Event::SequenceStart(anchor, _) => {
                    self.size.nodes += 1;
                    self.limit(span)?;
                    stack.push(Open { span, anchor, children: Children::List(Vec::new()) });
                    None
                }
                Event::MappingStart(anchor, _) => {
                    self.size.nodes += 1;
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
                self.size.nodes += 1;
                self.limit(span)?;
            }
            if anchor != 0 {
                self.anchored.add(Size::of(&node));
                self.limit(span)?;
                self.anchors.insert(anchor, node.clone());
            }
            match stack.last_mut() {
                None => root = Some(node),
                Some(open) => self.add(&mut open.children, node)?,
            }
        }
        Ok(root.filter(|root: &Node| !root.is_null()))
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
                let message = format!("`{name}` is defined twice in this map");
                let twice = Diagnostic::error(Code::DuplicateKey, place(self.file, at), message, "keep one of the two");
                self.diagnostics.push(twice.also(place(self.file, first), "first defined here"));
            }
            None => {
                seen.insert(name.clone(), entries.len());
                entries.push((name, at, node));
            }
        }
        Ok(())
    }

    /// Reads a scalar with its tag. A key is text as it is written, whatever it would be as a value.
    fn tagged(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
        is_key: bool,
    ) -> Result<Node, Stop> {
        let kind = match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Kind::Text(text.to_owned()),
            Some(_) => return Err(self.tag(span)),
            None if is_key && style == ScalarStyle::Plain && text.is_empty() => {
                return Err(self.stop(Code::Unsupported, span, "an empty key", "write the key before the colon"));
            }
            None if is_key => self.text(text),
            None => self.scalar(text, style, span),
        };
        Ok(Node { span, kind })
    }

    fn text(&mut self, text: &str) -> Kind {
        self.size.bytes += text.len();
        Kind::Text(text.to_owned())
    }

    fn key(&self, node: Node) -> Result<(String, Span), Stop> {
        match node.kind {
            Kind::Text(text) if text == "<<" => Err(self.stop(
                Code::Unsupported,
                node.span,
                "merge keys (`<<`) are not part of YAML 1.2",
                "put settings that customers share in `defaults` in fleet.yaml",
            )),
            Kind::Text(text) => Ok((text, node.span)),
            // Behind an alias.
            Kind::Number(_, raw) => Ok((raw, node.span)),
            _ => Err(self.stop(Code::Unsupported, node.span, "a list or map as a key", "use a plain word as the key")),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) -> Kind {
        if style != ScalarStyle::Plain {
            return self.text(text);
        }
        match text {
            "" => Kind::Empty,
            "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            _ => match Numeric::of(text) {
                Numeric::No => self.text(text),
                Numeric::Exact(number) => Kind::Number(number, text.to_owned()),
                Numeric::Changed(value) => {
                    let (message, or) = match value {
                        Some(value) => (
                            format!("`{text}` is a number here, and becomes {value}"),
                            format!(", or write {value} if you mean the number"),
                        ),
                        None => (format!("as a number, {text} would lose digits"), String::new()),
                    };
                    let help = format!("write it in quotes to keep it as it is: \"{text}\"{or}");
                    self.diagnostics.push(*self.stop(Code::Unsupported, span, message, help));
                    self.text(text)
                }
            },
        }
    }

    fn limit(&self, span: Span) -> Result<(), Stop> {
        let message = if self.aliased.exceeds(MAX_ALIASED_NODES, MAX_ALIASED_TEXT) {
            format!("the aliases expand to more than {MAX_ALIASED_NODES} nodes or {} MiB", MAX_ALIASED_TEXT >> 20)
        } else if self.size.exceeds(MAX_NODES, MAX_TEXT) {
            format!("the document has more than {MAX_NODES} nodes or {} MiB", MAX_TEXT >> 20)
        } else if self.anchored.exceeds(MAX_NODES, MAX_TEXT) {
            format!("anchors within anchors hold more than {MAX_NODES} nodes or {} MiB", MAX_TEXT >> 20)
        } else {
            return Ok(());
        };
        let help = "aliases of aliases multiply: write the values out, or put settings that customers share in a layer";
        Err(self.stop(Code::TooMany, span, message, help))
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
}

fn place(file: &str, span: Span) -> Place {
    Place { file: file.to_owned(), line: span.line, column: span.column, width: span.width }
}

fn span(at: &ParserSpan) -> Span {
    let width = if at.start.line() == at.end.line() { at.end.col().saturating_sub(at.start.col()).max(1) } else { 1 };
    Span { line: at.start.line(), column: at.start.col() + 1, width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
            value("[on, off, yes, No, y, 1_000, 12:30, 2026-06-01, ~, '', true, -7, 1.5, 0.001, 1.2.3, +]"),
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
                -7,
                1.5,
                0.001,
                "1.2.3",
                "+"
            ])
        );
    }

    #[test]
    fn numbers_that_would_not_be_printed_as_they_are_written_are_refused() {
        for text in [
            "0123",
            "12345678901234567890",
            ".inf",
            "9007199254740993",
            "1e999",
            "1.10",
            "+4930123456",
            "72225e2",
            "0x1F",
            "0o17",
            ".5",
            "-0",
            "1.0",
        ] {
            assert_eq!(codes(&format!("a: {text}")), ["Y0111 t.yaml:1:4"], "{text}");
            assert_eq!(value(&format!("a: \"{text}\"")), json!({"a": text}));
            assert_eq!(value(&format!("{text}: a")), json!({text: "a"}), "a key is text");
        }
        assert_eq!(codes("a: [1.10, 1.1]\nb: 1e3\n&c 010: *d\n").len(), 3, "all at once");
        let (_, diagnostics) = parse("t.yaml", b"a: 1.10\nb: 12345678901234567890\n");
        let told: Vec<String> = diagnostics.iter().map(|found| format!("{}; {}", found.message, found.help)).collect();
        assert_eq!(
            told,
            [
                "`1.10` is a number here, and becomes 1.1; write it in quotes to keep it as it is: \"1.10\", or write 1.1 if you mean the number",
                "as a number, 12345678901234567890 would lose digits; write it in quotes to keep it as it is: \"12345678901234567890\"",
            ]
        );
    }

    #[test]
    fn keys_are_text_as_they_are_written() {
        assert_eq!(
            value("True: a\nNULL: b\n~: c\n0x10: d\n"),
            json!({"True": "a", "NULL": "b", "~": "c", "0x10": "d"})
        );
        assert_eq!(codes("a: 1\n: b\n"), ["Y0111 t.yaml:2:1"]);
    }

    #[test]
    fn a_tab_between_a_colon_and_its_value_is_white_space() {
        let text = "id:\tacme\nname: \tA\ttab\nvars: {A:\tb, 'C:\td':\t\te}\nf:\t\"g:\th\"\ni:\t- j\n";
        let (document, diagnostics) = parse("t.yaml", text.trim_end_matches("i:\t- j\n").as_bytes());
        assert_eq!(diagnostics, vec![]);
        let document = document.unwrap();
        let wanted = json!({"id": "acme", "name": "A\ttab", "vars": {"A": "b", "C:\td": "e"}, "f": "g:\th"});
        assert_eq!(document.root.to_value(), wanted);
        assert_eq!(document.place_of(["vars", "C:\td"]).to_string(), "t.yaml:3:23");
        assert!(extents(text.trim_end_matches("i:\t- j\n")).is_some(), "it can be edited");
        assert_eq!(codes(text), ["Y0106 t.yaml:5:4"]);
        let many: String = (0..200).map(|index| format!("k{index}:\tv\n")).collect();
        let start = std::time::Instant::now();
        assert_eq!(value(&many).as_object().unwrap().len(), 200);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn escapes_that_are_wrong_are_named_with_their_places() {
        for (text, place, message) in [
            ("a: \"x \\ude00\\ud83d\"", "1:7", "`\\ude00` is not a character"),
            ("a: \"x \\ud83d\\ude00 \\ud83d \\ude00\"", "1:20", "`\\ud83d` is not a character"),
            ("a: \"\\ud83d\\\\ude00\"", "1:5", "`\\ud83d` is not a character"),
            ("a: \"\\ud83d\"", "1:5", "`\\ud83d` is not a character"),
            ("a: \"\\u00g1\"", "1:5", "`\\u` without 4 hexadecimal digits"),
            ("a: \"\\\\u00g1 \\\" \\x4\"", "1:16", "`\\x` without 2 hexadecimal digits"),
            ("a: \"\n  \\UFFFFFFFF\"", "2:3", "`\\UFFFFFFFF` is not a character"),
            ("a: \"\\q\"", "1:4", "a backslash that escapes nothing"),
        ] {
            let (_, diagnostics) = parse("t.yaml", text.as_bytes());
            let [found] = diagnostics.as_slice() else { panic!("{text}: {diagnostics:?}") };
            assert_eq!(found.place.to_string(), format!("t.yaml:{place}"), "{text}");
            assert!(found.message.starts_with(message), "{text}: {}", found.message);
        }
    }

    #[test]
    fn pairs_of_escapes_are_the_character_that_they_stand_for() {
        assert_eq!(value("a: \"x \\ud83d\\uDE00 y\""), json!({"a": "x \u{1f600} y"}));
        assert_eq!(
            value("\"\\ud83d\\ude00\": \"\\uD83D\\uDE80\\ud83d\\ude00\""),
            json!({"\u{1f600}": "\u{1f680}\u{1f600}"})
        );
        // Elsewhere, and behind an escaped backslash, they are text.
        let text = "a: \\ud83D\\ude00 # \\ud83d\\ude00\nb: '\\ud83d\\uDE00'\nc: |\n  \\ud83d\\ude00\n  x\nd: \"\\\\ud83d\\\\ude00 \\ud83d\\ude00\"\n";
        let wanted = json!({
            "a": "\\ud83D\\ude00", "b": "\\ud83d\\uDE00", "c": "\\ud83d\\ude00\nx\n", "d": "\\ud83d\\ude00 \u{1f600}",
        });
        assert_eq!(value(text), wanted);
        // Private characters of the text's own stay.
        assert_eq!(value("a: \"\u{e03d}\\ue200 \\ud83d\\ude00\""), json!({"a": "\u{e03d}\u{e200} \u{1f600}"}));
        let (document, _) = parse("t.yaml", "{a: \"\\ud83d\\ude00\", b: 1}".as_bytes());
        assert_eq!(document.unwrap().place_of(["b"]).to_string(), "t.yaml:1:24");
        assert!(extents("{\"\\ud83d\\ude00\": 1}").is_some(), "it can be edited");
    }

    #[test]
    fn a_short_text_cannot_become_a_large_document() {
        // By aliases of one long text, by aliases of aliases, and by anchors within anchors.
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 12), vec!["*a"; 300].join(", "));
        let nested = format!(
            "{}{}\n",
            (0..50).map(|index| format!("&a{index} [")).collect::<String>(),
            "x,".repeat(5000) + &"]".repeat(50)
        );
        let mut multiplied = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for index in 1..6 {
            let list = vec![format!("*a{}", index - 1); 10].join(", ");
            multiplied += &format!("a{index}: &a{index} [{list}]\n");
        }
        for text in [long, nested, multiplied] {
            let (_, diagnostics) = parse("t.yaml", text.as_bytes());
            assert!(diagnostics.iter().any(|found| found.code == Code::TooMany), "{}: {diagnostics:?}", &text[..60]);
        }
        let fine = format!("a: &a [x, y]\nb: [{}]\n", vec!["*a"; 1000].join(", "));
        assert_eq!(codes(&fine), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn decimal_text_arrives_as_it_is_written_or_not_at_all(
            text in "[-+]?[0-9]{0,20}(\\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?|0[xob][0-9a-fA-F_]{1,16}|[0-9]{1,3}([_:,.-][0-9]{1,3}){1,3}",
        ) {
            prop_assume!(!text.is_empty() && text != "-");
            let (document, diagnostics) = parse("t.yaml", format!("a: {text}\n").as_bytes());
            match diagnostics.as_slice() {
                [] => match &document.unwrap().root.get("a").unwrap().kind {
                    Kind::Text(read) => prop_assert_eq!(read, &text),
                    Kind::Number(number, _) => prop_assert_eq!(number_text(number), text),
                    other => prop_assert!(false, "{} is {:?}", text, other),
                },
                found => {
                    prop_assert!(found.iter().all(|found| found.place.line == 1), "{:?}", found);
                    prop_assert!(found.iter().all(|found| found.help.contains("quotes")), "{:?}", found);
                }
            }
        }

        #[test]
        fn messages_are_never_the_parsers_own(text in "([-?:,{}\\[\\]&*#!|>'\"%@` \t\na0~.\\\\]|: |- |\n  |---|\\.\\.\\.|%YAML|!<|\u{7}|\u{feff}){0,14}") {
            let (_, diagnostics) = parse("t.yaml", text.as_bytes());
            for found in diagnostics {
                for word in ["while ", "did not", "scalar", "disallowed", "simple key", "found ", "expected", "indicator", "context"] {
                    prop_assert!(!found.message.contains(word), "{:?}: {}", text, found.message);
                }
            }
        }
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
