//! The extent of each node of a YAML text, to the byte: for replacing a part of it. Knows places alone; `yaml` knows
//! the nodes.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// A node's stretch of the text: its content, with neither comments nor line breaks behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
    /// Its syntax.
    pub shape: Shape,
}

/// The syntax of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An empty value.
    Empty,
    /// Text without quotes, or an alias.
    Plain,
    /// Text in these quotes.
    Quoted(char),
    /// Lines below a `|` or `>`.
    Block,
    /// A list: in brackets, or with a dash for each item.
    List {
        /// Whether it is in brackets.
        flow: bool,
        /// Its items; for those behind dashes, with the place of the dash.
        items: Vec<(usize, Extent)>,
    },
    /// A map: in braces, or with a line for each key.
    Map {
        /// Whether it is in braces.
        flow: bool,
        /// Its entries.
        entries: Vec<Entry>,
    },
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The offset of its beginning.
    pub start: usize,
    /// The byte after the colon.
    pub colon: usize,
    /// The value.
    pub value: Extent,
}

/// A collection that isn't closed yet.
struct Open {
    start: usize,
    flow: bool,
    items: Vec<(usize, Extent)>,
    entries: Vec<Entry>,
    key: Option<(String, usize, usize)>,
    map: bool,
}

/// Returns the extents of the only document of a text that [`super::parse`] accepts; none for one that is empty, or
/// whose syntax hides where nodes are, such as `? ` before keys.
pub fn extents(text: &str) -> Option<Extent> {
    let bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(text.len());
    let (spaced, pairs) = super::pairs::without_pairs(super::syntax::without_tabs(text));
    let mut parser = Parser::new_from_str(&spaced);
    let mut stack: Vec<Open> = Vec::new();
    let mut root = None;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.ok()?;
        let (start, end) = (byte(span.start.index()), byte(span.end.index()));
        let done = match event {
            Event::Scalar(value, style, ..) => {
                let value = match &pairs {
                    Some(pairs) => {
                        let at = span.start.index()..span.end.index();
                        pairs.restore(value, style == ScalarStyle::DoubleQuoted, at)
                    }
                    None => value,
                };
                let from = place(text, stack.last(), start)?;
                let extent = scalar(text, from, start, end, style)?;
                if let Some(open) = stack.last_mut().filter(|open| open.map && open.key.is_none()) {
                    let colon = extent.end + text[extent.end..].find(|c: char| !c.is_whitespace())?;
                    if !text[colon..].starts_with(':') {
                        return None;
                    }
                    open.key = Some((value.into_owned(), extent.start, colon + 1));
                    continue;
                }
                extent
            }
            Event::Alias(_) => {
                let end = start + text[start..end].trim_end().len();
                Extent { start, end, shape: Shape::Plain }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let map = matches!(event, Event::MappingStart(..));
                let flow = text[start..end].trim_end().ends_with(['[', '{']);
                let start = if flow || map { start } else { first_dash(text, stack.last(), end)? };
                stack.push(Open { start, flow, items: Vec::new(), entries: Vec::new(), key: None, map });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = stack.pop()?;
                let last = match open.map {
                    true => open.entries.last().map(|entry| entry.value.end),
                    false => open.items.last().map(|(dash, item)| item.end.max(dash + 1)),
                };
                let end = if open.flow { start + 1 } else { last? };
                let shape = match open.map {
                    true => Shape::Map { flow: open.flow, entries: open.entries },
                    false => Shape::List { flow: open.flow, items: open.items },
                };
                Extent { start: open.start, end, shape }
            }
            _ => continue,
        };
        match stack.last_mut() {
            None => root = Some(done),
            Some(open) if open.map => {
                let (key, start, colon) = open.key.take()?;
                open.entries.push(Entry { key, start, colon, value: done });
            }
            Some(open) => {
                let dash = if open.flow { done.start } else { dash(text, open, &done)? };
                open.items.push((dash, done));
            }
        }
    }
    root.filter(|root| root.shape != Shape::Empty)
}

/// Returns the first dash of a list that is reported to begin here: a list with the indentation of its key is
/// reported to begin behind its dash.
fn first_dash(text: &str, open: Option<&Open>, reported: usize) -> Option<usize> {
    if let Some((_, key, colon)) = open.filter(|open| open.map && !open.flow).and_then(|open| open.key.as_ref()) {
        let before = text[..reported].trim_end();
        let dash = before.len().checked_sub(1)?;
        if before.ends_with('-') && dash >= *colon && column(text, dash) == column(text, *key) {
            return Some(dash);
        }
    }
    text[reported..].starts_with('-').then_some(reported)
}

/// Returns where a value can begin: behind the colon of its key, or behind what comes before in its list.
fn place(text: &str, open: Option<&Open>, start: usize) -> Option<usize> {
    let Some(open) = open else { return Some(start) };
    if open.map {
        return Some(open.key.as_ref().map_or(start, |(_, _, colon)| *colon));
    }
    if open.flow {
        return Some(start);
    }
    let before = open.items.last().map_or(open.start, |(_, item)| item.end);
    Some(next_dash(text, before, column(text, open.start))? + 1)
}

fn scalar(text: &str, from: usize, start: usize, end: usize, style: ScalarStyle) -> Option<Extent> {
    match style {
        ScalarStyle::Plain => {
            let written = text.get(start..end)?.trim_end();
            // What is empty has no place of its own: it is put behind its colon or dash.
            if written.is_empty() || written.starts_with([',', ':']) {
                return Some(Extent { start: from, end: from, shape: Shape::Empty });
            }
            Some(Extent { start, end: start + written.len(), shape: Shape::Plain })
        }
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
            let quote = if style == ScalarStyle::SingleQuoted { '\'' } else { '"' };
            let open = start + text[start..].find(quote)?;
            let mut rest = text[open + 1..].char_indices().peekable();
            while let Some((at, c)) = rest.next() {
                let doubled = quote == '\'' && c == quote && rest.peek().is_some_and(|(_, next)| *next == quote);
                if doubled || quote == '"' && c == '\\' {
                    rest.next();
                } else if c == quote {
                    return Some(Extent { start, end: open + 1 + at + 1, shape: Shape::Quoted(quote) });
                }
            }
            None
        }
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let head = from + text[from..].find(|c: char| !c.is_whitespace())?;
            let line = text[head..].lines().next()?;
            let all = text.get(head..end)?;
            // `+` keeps the empty lines at the end; otherwise they belong to nothing.
            let keeps = line.split('#').next().is_some_and(|line| line.contains('+'));
            let length = if keeps { all.rfind('\n').unwrap_or(all.len()) } else { all.trim_end().len() };
            Some(Extent { start: head, end: head + length.max(line.trim_end().len()), shape: Shape::Block })
        }
    }
}

/// Returns the dash of an item that was read.
fn dash(text: &str, open: &Open, item: &Extent) -> Option<usize> {
    let before = open.items.last().map_or(open.start, |(dash, item)| item.end.max(dash + 1));
    next_dash(text, before, column(text, open.start)).filter(|dash| *dash < item.end.max(item.start + 1))
}

/// Returns the next dash in a column.
fn next_dash(text: &str, from: usize, column: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let line = line_start(text, at);
        let place = text[line..].char_indices().nth(column).map(|(index, _)| line + index);
        if let Some(place) = place.filter(|place| *place >= from && text[line..*place].lines().count() <= 1)
            && text[place..].starts_with('-')
            && text[place + 1..].chars().next().is_none_or(char::is_whitespace)
        {
            return Some(place);
        }
        at = at + text[at..].find('\n')? + 1;
    }
}

/// Returns the beginning of the line of an offset.
pub fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |before| before + 1)
}

/// Returns the end of the line of an offset, before its line break.
pub fn line_end(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |next| at + next);
    if text[..end].ends_with('\r') && end > at { end - 1 } else { end }
}

/// Returns the number of characters before an offset in its line.
pub fn column(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].chars().count()
}
