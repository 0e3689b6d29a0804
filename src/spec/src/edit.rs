//! Changes to files that people write: a text and a change go in, the changed text comes out, in which every line that the
//! change doesn't concern is as it was, with its comments, quotes and empty lines. Knows YAML and env files as texts; neither
//! which files there are nor what they mean.
//!
//! A change is made by putting text in the place of a node, and then the result is read as any file is: if it isn't the old
//! value with that change and nothing else, the change is refused.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::dotenv;
use crate::envfile;
use crate::yaml::{self, Entry, Extent, Shape, column, line_end, line_start};

/// A line of a list or map in brackets is no longer than this; what is, gets a line for each part.
const INLINE: usize = 60;

/// A change of a YAML file. A path is a key for each level; items of lists have numbers, from 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sets a value, whether or not there is one.
    Set(Vec<String>, Value),
    /// Adds an item to the end of a list, which is made if it doesn't exist.
    Append(Vec<String>, Value),
    /// Removes a key or an item.
    Remove(Vec<String>),
}

/// The reason why a text can't be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn cannot() -> Refused {
    Refused("it can't be changed there without changing something else as well: edit the file by hand".to_owned())
}

/// Changes a YAML text. A new key of the outermost map comes after those that precede it in `order`. There,
/// `database.type` is the key `type` of a map under `database`, or of an item under it.
pub fn yaml(text: &str, change: &Change, order: &[&str]) -> Result<String, Refused> {
    let (before, changed) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    let old = read(changed).ok_or_else(|| Refused("it has errors: fix them first".to_owned()))?;
    let mut wanted = old.clone();
    apply(&mut wanted, change)?;
    if wanted == old && !matches!(change, Change::Append(..)) {
        return Ok(text.to_owned());
    }
    let root = yaml::extents(changed).ok_or_else(cannot)?;
    let written = Text { text: changed, order }.change(&root, change).ok_or_else(cannot)?;
    if read(&written) != Some(wanted) {
        return Err(cannot());
    }
    Ok(format!("{before}{written}"))
}

/// Returns the value of a YAML text without errors.
fn read(text: &str) -> Option<Value> {
    let (document, diagnostics) = yaml::parse("", text.as_bytes());
    document.filter(|_| diagnostics.is_empty()).map(|document| document.root.to_value())
}

/// Several changes, one after the other.
pub fn yaml_all(text: &str, changes: &[Change], order: &[&str]) -> Result<String, Refused> {
    changes.iter().try_fold(text.to_owned(), |text, change| yaml(&text, change, order))
}

/// Returns a new YAML text with these keys in this order; for `order` see [`yaml()`].
pub fn fresh(entries: &[(&str, Value)], order: &[&str]) -> String {
    let text = Text { text: "", order };
    let line = |(under, value): &(&str, Value)| {
        format!("{}{}\n", scalar_text(under, None), text.behind(New { value, under }, 0, 2))
    };
    entries.iter().map(line).collect()
}

/// Returns the new state of a value.
fn apply(value: &mut Value, change: &Change) -> Result<(), Refused> {
    let path = match change {
        Change::Set(path, _) | Change::Append(path, _) | Change::Remove(path) => path,
    };
    let Some((last, above)) = path.split_last() else { return Err(Refused("an empty path".to_owned())) };
    let missing = |step: &str| Refused(format!("there is no `{step}` to change"));
    let mut at = value;
    for step in above {
        if at.is_null() && !matches!(change, Change::Remove(_)) {
            *at = Value::Object(Map::new());
        }
        at = match at {
            Value::Object(map) if matches!(change, Change::Remove(_)) && !map.contains_key(step) => {
                return Err(missing(step));
            }
            Value::Object(map) => map.entry(step.clone()).or_insert(Value::Null),
            Value::Array(items) => item(items, step).ok_or_else(|| missing(step))?,
            _ => return Err(Refused(format!("what holds `{step}` is neither a map nor a list"))),
        };
    }
    let slot = match (change, at) {
        (Change::Remove(_), Value::Object(map)) => return map.remove(last).map(drop).ok_or_else(|| missing(last)),
        (Change::Remove(_), Value::Array(items)) => {
            let number = last.parse::<usize>().ok().filter(|number| *number < items.len());
            items.remove(number.ok_or_else(|| missing(last))?);
            return Ok(());
        }
        (_, Value::Array(items)) => item(items, last).ok_or_else(|| missing(last))?,
        (_, Value::Object(map)) => map.entry(last.clone()).or_insert(Value::Null),
        (Change::Set(..) | Change::Append(..), at @ Value::Null) => {
            *at = Value::Object(Map::new());
            at.as_object_mut().expect("BUG: a map").entry(last.clone()).or_insert(Value::Null)
        }
        _ => return Err(Refused(format!("what holds `{last}` is neither a map nor a list"))),
    };
    match (change, slot) {
        (Change::Append(_, value), Value::Array(items)) => items.push(value.clone()),
        (Change::Append(_, value), slot @ Value::Null) => *slot = Value::Array(vec![value.clone()]),
        (Change::Append(..), _) => return Err(Refused(format!("`{last}` is not a list"))),
        (Change::Set(_, value), slot) => *slot = value.clone(),
        (Change::Remove(_), _) => unreachable!("BUG: it was dealt with"),
    }
    Ok(())
}

fn item<'a>(items: &'a mut [Value], step: &str) -> Option<&'a mut Value> {
    items.get_mut(step.parse::<usize>().ok()?)
}

/// A text that is changed.
struct Text<'a> {
    text: &'a str,
    order: &'a [&'a str],
}

/// The container of a node.
#[derive(Clone, Copy)]
enum Holder<'a> {
    Root,
    Entry(&'a Entry),
    Item(usize),
}

impl Text<'_> {
    fn change(&self, root: &Extent, change: &Change) -> Option<String> {
        let path = match change {
            Change::Set(path, _) | Change::Append(path, _) | Change::Remove(path) => path,
        };
        // The way down, as far as it goes.
        let (mut node, mut holder, mut flow, mut depth) = (root, Holder::Root, false, 0);
        let mut parent = None;
        while depth < path.len() {
            let step = &path[depth];
            let next = match &node.shape {
                Shape::Map { entries, .. } => {
                    entries.iter().find(|entry| entry.key == *step).map(|entry| (&entry.value, Holder::Entry(entry)))
                }
                Shape::List { items, .. } => {
                    let at = step.parse::<usize>().ok()?;
                    items.get(at).map(|(dash, item)| (item, Holder::Item(*dash)))
                }
                _ => None,
            };
            let Some((below, held)) = next else { break };
            flow |= is_flow(node);
            (parent, node, holder, depth) = (Some(node), below, held, depth + 1);
        }
        let there = depth == path.len();
        let under = path.iter().rev().find(|step| step.parse::<usize>().is_err()).map_or("", String::as_str);
        let new = |value| New { value, under };
        match change {
            Change::Remove(_) if there => self.remove(parent?, path.last()?),
            Change::Remove(_) => None,
            Change::Append(_, value) if there => match &node.shape {
                Shape::List { flow: false, items } => {
                    let indent = column(self.text, node.start);
                    let line = line_end(self.text, items.last()?.1.end.max(items.last()?.0 + 1));
                    let written = self.lines(&self.item(new(value), indent), indent);
                    Some(self.insert(line, &written))
                }
                Shape::List { flow: true, items } => {
                    let text = self.inline(new(value));
                    Some(match items.last() {
                        // What is too long for brackets gets its lines.
                        None if !flow && self.block(new(value)) => {
                            self.replace(node, holder, flow, new(&Value::Array(vec![value.clone()])))?
                        }
                        None => self.splice(node.start, node.end, &format!("[{text}]")),
                        Some((_, last)) => self.splice(last.end, last.end, &format!(", {text}")),
                    })
                }
                _ => self.replace(node, holder, flow, new(&Value::Array(vec![value.clone()]))),
            },
            Change::Set(_, value) if there => self.replace(node, holder, flow, new(value)),
            Change::Set(_, value) => self.add(node, holder, flow, &path[depth..], value.clone()),
            Change::Append(_, value) => self.add(node, holder, flow, &path[depth..], Value::Array(vec![value.clone()])),
        }
    }

    /// Replaces a node by a value.
    fn replace(&self, node: &Extent, holder: Holder<'_>, flow: bool, new: New<'_>) -> Option<String> {
        let lines = |node: &Extent| self.text[node.start..node.end].contains('\n');
        let one_line =
            !flow && (self.block(new) || matches!(node.shape, Shape::Block) || lines(node) && !is_flow(node));
        match holder {
            Holder::Entry(entry) if one_line => {
                let indent = column(self.text, entry.start);
                let list = indent + if self.is_dashed_at(node, indent) { 0 } else { 2 };
                let text = self.behind(new, indent, list);
                // A comment behind the colon stays where it is, if what comes is below it.
                let from =
                    if self.block(new) && node.start > entry.colon && lines_between(self.text, entry.colon, node.start)
                    {
                        line_start(self.text, node.start).saturating_sub(1)
                    } else {
                        entry.colon
                    };
                let from = if self.text[..from].ends_with('\r') { from - 1 } else { from };
                let text = if from == entry.colon { text } else { text.trim_start_matches(':').to_owned() };
                Some(self.splice(from, node.end.max(from), text.strip_prefix(':').unwrap_or(&text)))
            }
            Holder::Item(dash) if one_line => {
                let indent = column(self.text, dash);
                Some(self.splice(dash, node.end, &self.item(new, indent)))
            }
            _ => {
                let quote = if let Shape::Quoted(quote) = node.shape { Some(quote) } else { None };
                let text =
                    if let Value::String(text) = new.value { scalar_text(text, quote) } else { self.inline(new) };
                let space = if node.shape == Shape::Empty { " " } else { "" };
                Some(self.splice(node.start, node.end, &format!("{space}{text}")))
            }
        }
    }

    /// Adds what isn't there to a node.
    fn add(&self, node: &Extent, holder: Holder<'_>, flow: bool, path: &[String], value: Value) -> Option<String> {
        let (key, below) = path.split_first()?;
        let value =
            below.iter().rev().fold(value, |value, step| Value::Object(Map::from_iter([(step.clone(), value)])));
        let whole = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        let above = if let Holder::Entry(entry) = holder { entry.key.as_str() } else { "" };
        let (new, whole) = (New { value: &value, under: key }, New { value: &whole, under: above });
        match &node.shape {
            Shape::Map { flow: false, entries } => {
                let indent = column(self.text, entries.first()?.start);
                let rank = |key: &str| self.order.iter().position(|other| *other == key);
                let after = match (holder, rank(key)) {
                    (Holder::Root, Some(own)) => {
                        let before = |entry: &&Entry| rank(&entry.key).is_some_and(|other| other < own);
                        entries.iter().rev().find(before).or(entries.last())?
                    }
                    _ => entries.last()?,
                };
                let line = line_end(self.text, after.value.end.max(after.colon));
                let text = format!("{}{}", scalar_text(key, None), self.behind(new, indent, indent + 2));
                Some(self.insert(line, &self.lines(&text, indent)))
            }
            Shape::Map { flow: true, entries } => {
                let text = format!("{}: {}", scalar_text(key, None), self.inline(new));
                Some(match entries.last() {
                    None if !flow && self.block(whole) => self.replace(node, holder, flow, whole)?,
                    None => self.splice(node.start, node.end, &format!("{{ {text} }}")),
                    Some(last) => {
                        let end = last.value.end.max(last.colon);
                        self.splice(end, end, &format!(", {text}"))
                    }
                })
            }
            _ => self.replace(node, holder, flow, whole),
        }
    }

    /// Removes an entry or an item from its parent.
    fn remove(&self, parent: &Extent, key: &str) -> Option<String> {
        let (flow, parts, at): (bool, Vec<(usize, usize)>, usize) = match &parent.shape {
            Shape::Map { flow, entries } => {
                let ends = entries.iter().map(|entry| (entry.start, entry.value.end.max(entry.colon)));
                (*flow, ends.collect(), entries.iter().position(|entry| entry.key == key)?)
            }
            Shape::List { flow, items } => {
                let ends = items.iter().map(|(dash, item)| (*dash, item.end.max(dash + 1)));
                (*flow, ends.collect(), key.parse().ok()?)
            }
            _ => return None,
        };
        let (start, end) = *parts.get(at)?;
        if parts.len() == 1 {
            // Nothing would be another value than an empty one.
            let empty = if matches!(parent.shape, Shape::Map { .. }) { "{}" } else { "[]" };
            if flow {
                return Some(self.splice(parent.start, parent.end, empty));
            }
            let indent = column(self.text, start);
            let line = line_start(self.text, start);
            let own = self.text[line..start].trim().is_empty();
            let text = if own { format!("{}{empty}", " ".repeat(indent)) } else { empty.to_owned() };
            let from = if own { line } else { start };
            // Its own line may not be further to the left than what holds it.
            let text = if own && indent == 0 { format!(" {empty}") } else { text };
            return Some(self.splice(from, end, &text));
        }
        if flow {
            return Some(match parts.get(at + 1) {
                Some((next, _)) => self.splice(start, *next, ""),
                None => self.splice(parts[at - 1].1, end, ""),
            });
        }
        let line = line_start(self.text, start);
        if self.text[line..start].trim().is_empty() {
            let after = line_end(self.text, end);
            let after = after + self.text[after..].find('\n').map_or(self.text[after..].len(), |at| at + 1);
            return Some(self.splice(line, after, ""));
        }
        // The first one stands behind a dash, and the next takes its place.
        let next = parts.get(at + 1)?.0;
        let between = &self.text[end..next];
        if between.trim().is_empty() {
            return Some(self.splice(start, next, ""));
        }
        let after = line_end(self.text, end);
        let start = line + self.text[line..start].trim_end().len();
        Some(self.splice(start, after, ""))
    }

    fn is_dashed_at(&self, node: &Extent, indent: usize) -> bool {
        matches!(&node.shape, Shape::List { flow: false, .. }) && column(self.text, node.start) == indent
    }

    fn eol(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }

    /// Text with this indentation before its first line.
    fn lines(&self, text: &str, indent: usize) -> String {
        format!("{}{}{text}", self.eol(), " ".repeat(indent))
    }

    /// Inserts lines, which begin with a line break, at the end of a line.
    fn insert(&self, line_end: usize, lines: &str) -> String {
        let at_end = line_end == self.text.len();
        self.splice(line_end, line_end, &if at_end { format!("{lines}{}", self.eol()) } else { lines.to_owned() })
    }

    fn splice(&self, start: usize, end: usize, text: &str) -> String {
        format!("{}{text}{}", &self.text[..start], &self.text[end..])
    }
}

fn lines_between(text: &str, from: usize, to: usize) -> bool {
    text[from..to].contains('\n')
}

fn is_flow(node: &Extent) -> bool {
    matches!(node.shape, Shape::Map { flow: true, .. } | Shape::List { flow: true, .. })
}

/// A value to write, and its key.
#[derive(Clone, Copy)]
struct New<'a> {
    value: &'a Value,
    under: &'a str,
}

impl Text<'_> {
    /// Returns whether a value gets lines of its own.
    fn block(&self, new: New<'_>) -> bool {
        let plain = |value: &Value| !matches!(value, Value::Object(_) | Value::Array(_));
        let parts = match new.value {
            Value::Object(map) if !map.is_empty() => map.values().all(plain),
            Value::Array(items) if !items.is_empty() => items.iter().all(plain),
            _ => return false,
        };
        !parts || self.inline(new).chars().count() > INLINE
    }

    /// Returns the text behind a key: `: value`, or lines below it; those of a list have an indentation of their own.
    fn behind(&self, new: New<'_>, indent: usize, list: usize) -> String {
        if !self.block(new) {
            return format!(": {}", self.inline(new));
        }
        let indent = if new.value.is_array() { list } else { indent + 2 };
        format!(":{}{}{}", self.eol(), " ".repeat(indent), self.nested(new, indent))
    }

    /// Returns a value in lines, all but the first with this indentation.
    fn nested(&self, new: New<'_>, indent: usize) -> String {
        let pad = format!("{}{}", self.eol(), " ".repeat(indent));
        let lines: Vec<String> = match new.value {
            Value::Object(map) if self.block(new) => {
                let entry = |(key, new)| format!("{}{}", scalar_text(key, None), self.behind(new, indent, indent + 2));
                self.sorted(map, new.under).into_iter().map(entry).collect()
            }
            Value::Array(items) if self.block(new) => {
                items.iter().map(|value| self.item(New { value, ..new }, indent)).collect()
            }
            _ => return self.inline(new),
        };
        lines.join(&pad)
    }

    /// Returns an item of a list behind its dash.
    fn item(&self, new: New<'_>, indent: usize) -> String {
        format!("- {}", self.nested(new, indent + 2))
    }

    /// Returns a value on one line.
    fn inline(&self, new: New<'_>) -> String {
        match new.value {
            Value::String(text) => scalar_text(text, None),
            Value::Array(items) => {
                let items = items.iter().map(|value| self.inline(New { value, ..new }));
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            Value::Object(map) if map.is_empty() => "{}".to_owned(),
            Value::Object(map) => {
                let entry = |(key, new)| format!("{}: {}", scalar_text(key, None), self.inline(new));
                format!("{{ {} }}", self.sorted(map, new.under).into_iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            Value::Number(number) => yaml::number_text(number),
            other => other.to_string(),
        }
    }

    /// Returns the entries of a map in the order in which they are written.
    fn sorted<'a>(&self, map: &'a Map<String, Value>, under: &str) -> Vec<(&'a str, New<'a>)> {
        let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), New { value, under: key })).collect();
        let rank = |key: &str| {
            let own = |other: &&str| other.split_once('.') == Some((under, key));
            self.order.iter().position(own).unwrap_or(usize::MAX)
        };
        entries.sort_by_key(|(key, _)| rank(key));
        entries
    }
}

/// Returns a text as YAML: in the quotes that were there, or without any where it can be.
fn scalar_text(text: &str, quote: Option<char>) -> String {
    let printable = yaml::is_printable;
    let plain = || {
        let fits = |c: char| c.is_alphanumeric() || " _./:@+-".contains(c);
        text.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/')
            && text.chars().all(|c| fits(c) && printable(c))
            && !text.ends_with([' ', ':'])
            && read(&format!("[{text}]")) == Some(serde_json::json!([text]))
    };
    match quote {
        None if plain() => text.to_owned(),
        Some('\'') if text.chars().all(printable) => format!("'{}'", text.replace('\'', "''")),
        _ => {
            let json = Value::from(text).to_string();
            // JSON leaves some characters as they are that YAML doesn't take.
            json.chars()
                .flat_map(|c| match c {
                    _ if printable(c) => c.to_string().chars().collect::<Vec<_>>(),
                    c => format!("\\u{:04x}", c as u32).chars().collect(),
                })
                .collect()
        }
    }
}

/// Sets a variable of an env file, or takes it out; comments, order and all other lines stay.
pub fn env(text: &str, name: &str, value: Option<&str>) -> Result<String, Refused> {
    let read = |text: &str| {
        let (document, mistakes) = envfile::parse("", text.as_bytes());
        mistakes.is_empty().then(|| document.root.to_value()["vars"].clone())
    };
    let old = read(text).ok_or_else(|| Refused("it has errors: fix them first".to_owned()))?;
    let mut wanted = old.clone();
    let vars = wanted.as_object_mut().ok_or_else(cannot)?;
    match value {
        Some(value) => drop(vars.insert(name.to_owned(), value.into())),
        None => drop(vars.remove(name)),
    }
    if wanted == old {
        return Ok(text.to_owned());
    }
    let eol = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let (entries, _) = dotenv::read(text);
    let own = entries.iter().find(|entry| entry.name == name);
    let form = |value: &str| dotenv::written(value).map(|form| form.to_string()).ok_or_else(unwritable);
    let spliced = |part: Range<usize>, new: &str| format!("{}{new}{}", &text[..part.start], &text[part.end..]);
    let written = match (own, value) {
        (Some(entry), Some(value)) => {
            let has_comment = !text[entry.written.end..entry.lines.end].trim().is_empty();
            // A comment that stood behind a value stands behind nothing otherwise.
            let form = if value.is_empty() && has_comment { "''".to_owned() } else { form(value)? };
            spliced(entry.written.clone(), &form)
        }
        (Some(entry), None) => {
            let end = entry.lines.end;
            let end = end + text[end..].find('\n').map_or(text.len() - end, |index| index + 1);
            spliced(entry.lines.start..end, "")
        }
        (None, Some(value)) => {
            let before = if text.is_empty() || text.ends_with('\n') { "" } else { eol };
            format!("{text}{before}{name}={}{eol}", form(value)?)
        }
        (None, None) => text.to_owned(),
    };
    if read(&written) == Some(wanted) { Ok(written) } else { Err(cannot()) }
}

fn unwritable() -> Refused {
    Refused(
        "this value can't be written so that all readers of such files read it in the same way: set it in the spec"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests;
