//! Why workers are rendered, in the author's terms: told by the code that decides it.

use serde::Serialize;
use serde_json::Value;

use super::dirty::{Recipes, dirty_reasons};
use super::{Project, Runtimes, Scan};
use crate::manifest::{Made, Record, Unit, Why};
use crate::origin::{self, Origin};
use crate::out::Out;
use crate::render;
use flotilla_model::customer::Worker;
use flotilla_model::digest::Digest;

/// Why a worker was rendered the last time, in the author's terms.
pub(super) fn last(project: &Project, scan: &Scan, recipes: &Recipes<'_>, unit: &Unit, worker: &Worker) -> Vec<String> {
    let Some(made) = &unit.made else { return Vec::new() };
    let read = |mark, chunk| serde_json::from_slice::<Value>(&scan.writer.read(&scan.manifest, chunk, mark)?).ok();
    let before = made.before.and_then(|(mark, chunk, _)| read(mark, chunk));
    let after = read(made.from, made.value).or_else(|| serde_json::to_value(worker).ok());
    let recipe_before = made.before.and_then(|(_, _, recipe)| recipes.recipe(recipe));
    let recipe = recipes.recipe(made.recipe);
    told(project, worker, &made.why, (before, after), (recipe_before, recipe))
}

/// Reasons, in the author's terms: which value of which file, which template.
fn told(
    project: &Project,
    worker: &Worker,
    why: &[Why],
    (before, after): (Option<Value>, Option<Value>),
    (recipe_before, recipe): (Option<render::Recipe>, Option<render::Recipe>),
) -> Vec<String> {
    let mut lines = Vec::new();
    for why in why {
        match why {
            Why::New => lines.push("it is new, or nothing is remembered of it".to_owned()),
            Why::Missing(name) => lines.push(format!("out/{}/{name} is gone", worker.folder())),
            Why::Edited(name) => lines.push(format!("out/{}/{name} isn't what was written", worker.folder())),
            Why::Values => match (&before, &after) {
                (Some(before), Some(after)) => lines.extend(project.differences(worker, before, after)),
                _ => lines.push("what its files say of it changed".to_owned()),
            },
            Why::Recipe => match (&recipe_before, &recipe) {
                (Some(before), Some(after)) => lines.extend(after.differences(before)),
                _ => lines.push("its templates, its runtime or flotilla itself changed".to_owned()),
            },
        }
    }
    lines
}

/// Why a worker was rendered the last time, and what would have it rendered now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its folder under out/.
    pub folder: String,
    /// Its name.
    pub worker: String,
    /// The digest of its bundle, if it was built.
    pub digest: Option<Digest>,
    /// When it was rendered last, in seconds since 1970.
    pub rendered_at: Option<i64>,
    /// Why.
    pub last: Vec<String>,
    /// Why it would be rendered now; nothing, if it is up to date.
    pub now: Vec<String>,
    /// The files that decide it.
    pub files: Vec<String>,
}

/// Explains the workers of one customer, by the code that builds them.
pub fn explain(project: &Project, scan: &Scan, runtimes: &Runtimes, record: &Record) -> Vec<Explained> {
    let out = Out::new(project.place(), true);
    let recipes = Recipes::new(project, scan, runtimes);
    let units = record.units.iter().filter_map(|unit| {
        let worker = scan.worker(project, record, unit)?;
        let folder = worker.folder();
        let (why, _) = dirty_reasons(&mut unit.clone(), &folder, &recipes, &out);
        let made = unit.made.as_ref();
        let before = made.and_then(|made| scan.earlier(made));
        let after = serde_json::to_value(&worker).ok();
        let partials = made.map_or(0, |made| made.partials);
        let recipe = render::recipe(&project.fleet.packs[&unit.pack], &runtimes[&unit.pack].file, partials);
        let mut files = project.origins(&worker, |origins| origins.files());
        files.extend(recipe.templates.iter().map(|(name, _)| format!("{}/{name}", recipe.pack)));
        files.push(format!("out/{}", recipe.runtime));
        let recipe_before = made.and_then(|made| recipes.recipe(made.recipe));
        Some(Explained {
            worker: worker.name.clone(),
            digest: made.map(Made::bundle),
            rendered_at: made.map(|made| made.at),
            last: last(project, scan, &recipes, unit, &worker),
            now: told(project, &worker, &why, (before, after), (recipe_before, Some(recipe))),
            folder,
            files,
        })
    });
    units.collect()
}

/// What a unit's files are made by.
pub fn recipe(project: &Project, runtimes: &Runtimes, unit: &Unit) -> render::Recipe {
    let partials = unit.made.as_ref().map_or(0, |made| made.partials);
    render::recipe(&project.fleet.packs[&unit.pack], &runtimes[&unit.pack].file, partials)
}

/// What a worker and its recipe are, as one value: kept beside what is deployed, to tell later what differs.
pub fn source(worker: &Worker, recipe: &render::Recipe) -> Value {
    serde_json::json!({ "worker": worker, "recipe": recipe })
}

/// What differs from an earlier [`source`], in the author's terms. Nothing, if that isn't known.
pub fn since(project: &Project, worker: &Worker, recipe: &render::Recipe, before: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let (before @ Value::Object(_), Ok(after)) = (&before["worker"], serde_json::to_value(worker)) {
        lines.extend(project.differences(worker, before, &after));
    }
    if let Ok(before) = serde_json::from_value::<render::Recipe>(before["recipe"].clone()) {
        lines.extend(recipe.differences(&before));
    }
    lines
}

impl Project {
    /// What differs between two resolved workers, with the places where what is now stands.
    fn differences(&self, worker: &Worker, before: &Value, after: &Value) -> Vec<String> {
        let written = |value: Option<&Value>| match value {
            None => "nothing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                if text.chars().count() > 80 {
                    format!("{}…", text.chars().take(80).collect::<String>())
                } else {
                    text
                }
            }
        };
        self.origins(worker, |origins| {
            let line = |(path, before, after): (Vec<String>, Option<Value>, Option<Value>)| {
                let steps: Vec<&str> = path.iter().map(String::as_str).collect();
                let place = match origins.of(&steps) {
                    Origin::At(place) if after.is_some() => format!("{place} "),
                    _ => String::new(),
                };
                let change = format!("{} → {}", written(before.as_ref()), written(after.as_ref()));
                format!("{place}{} {change}", origin::notation(&path))
            };
            origin::differences(before, after).into_iter().map(line).collect()
        })
    }
}
