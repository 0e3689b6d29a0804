//! `flotilla show`.

use serde_json::Value;

use flotilla_build::build::{self, Project};
use flotilla_build::provenance::{Provenance, ProvenanceLookup, notation};
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text::{is_invisible, without_commands};

use super::cloud::CloudArguments;
use super::columns;
use super::report;
use super::selection::Selection;
use super::ui::clean;
use super::worker_details::{Sources, WorkerDetails};
use super::{Format, Session};

pub(super) fn run(session: &Session, selection: &Selection) -> Result<Exit, Failure> {
    let mut loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    let diagnostics: Vec<_> =
        loaded.scan.diagnostics.iter().filter(|diagnostic| selection.concerns(diagnostic)).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    let workers: Vec<&Worker> = loaded.workers.iter().filter(|worker| selection.includes(worker)).collect();
    let sources = Sources::open(session, &loaded.project.fleet, &CloudArguments::default())?;
    match session.format {
        Format::Json => {
            let with_origins = |worker: &&Worker| -> Result<Value, Failure> {
                let mut value = sources.shown(worker)?;
                let mut lines = Vec::new();
                loaded.project.provenance(worker, |lookup| walk(&value, &mut Vec::new(), 0, lookup, &mut lines));
                let of = |line: Line| Some((line.path, line.provenance?.to_string().into()));
                value["core"] = serde_json::to_value(sources.of(worker)?).map_err(anyhow::Error::from)?;
                value["origins"] = Value::Object(lines.into_iter().filter_map(of).collect());
                Ok(value)
            };
            let workers = workers.iter().map(with_origins).collect::<Result<Vec<_>, _>>()?;
            session.json(&serde_json::json!({ "workers": workers }))?;
        }
        Format::Text => {
            // One YAML document for each worker.
            for worker in workers {
                report::print(&document(&loaded.project, worker, &sources.shown(worker)?, &sources.of(worker)?));
            }
        }
    }
    Ok(if report::counts(&diagnostics).0 > 0 { Exit::Diagnostics } else { Exit::Done })
}

/// A line of a YAML document, and where its value comes from.
struct Line {
    path: String,
    text: String,
    provenance: Option<Provenance>,
}

/// A worker as YAML, below its core pieces; behind each value, the place that it comes from.
fn document(project: &Project, worker: &Worker, value: &Value, pieces: &WorkerDetails) -> String {
    let mut lines = Vec::new();
    project.provenance(worker, |lookup| walk(value, &mut Vec::new(), 0, lookup, &mut lines));
    let width = lines.iter().map(|line| columns::width(&line.text)).filter(|width| *width <= WIDE).max().unwrap_or(0);
    let mut text = format!("---\n# {}", clean(&pieces.line()));
    for Line { text: line, provenance, .. } in lines {
        text += "\n";
        text += &match provenance {
            Some(provenance) => format!("{}  # {}", columns::pad(&line, width), clean(&provenance.to_string())),
            None => line,
        };
    }
    text
}

/// Lines that are longer don't push the places of all others to the right.
const WIDE: usize = 60;

fn walk(value: &Value, path: &mut Vec<String>, depth: usize, lookup: &ProvenanceLookup<'_>, lines: &mut Vec<Line>) {
    let pad = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (step, entry) in entries {
        let head = match value {
            Value::Array(_) => "-".to_owned(),
            _ => format!("{}:", scalar(&Value::String(step.clone()))),
        };
        path.push(step);
        let whole = match entry {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => true,
        };
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        let (text, provenance) = if whole {
            (format!("{pad}{head} {}", scalar(entry)), Some(lookup.of(&steps)))
        } else {
            (format!("{pad}{head}"), None)
        };
        lines.push(Line { path: notation(path), text, provenance });
        if !whole {
            walk(entry, path, depth + 1, lookup, lines);
        }
        path.pop();
    }
}

/// A value without parts as YAML on one line.
fn scalar(value: &Value) -> String {
    let text = serde_yaml::to_string(value).unwrap_or_default();
    let text = text.trim_end();
    // What YAML would write over several lines is written as JSON, which is YAML as well.
    if text.chars().any(|c| c.is_control() || is_invisible(c)) || without_commands(text) != text {
        return report::visible_json(&value.to_string());
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_yaml_that_shows_everything() {
        for text in ["a", "a\nb", "x\u{200b}y", "\u{e0041}", "##[error]x", "::error::x", "a: b", "größe"] {
            let shown = scalar(&Value::from(text));
            assert!(!shown.chars().any(is_invisible) && without_commands(&shown) == shown, "{shown}");
            let (document, found) = flotilla_spec::yaml::parse("", format!("a: {shown}\n").as_bytes());
            assert_eq!((document.unwrap().root.to_value()["a"].as_str(), found.len()), (Some(text), 0), "{shown}");
        }
    }
}
