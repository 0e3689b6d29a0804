//! Explains why workers are rendered, in the author's terms, by the code that decides it.

use serde::Serialize;
use serde_json::Value;

use super::dirty::{Recipes, dirty_reasons};
use super::{PackBundles, Project, Scan};
use crate::manifest::{DirtyReason, Record, RenderRecord, Unit};
use crate::out::Out;
use crate::provenance::{self, Provenance};
use crate::render;
use flotilla_model::customer::Worker;
use flotilla_model::digest::Digest;
use flotilla_model::reason::{Excerpt, Reason, ValueChange, sentences};

/// The key under which a worker's JSON form has that its environment is implied.
const IMPLIED: &str = "implied";

/// Returns why a worker was rendered the last time, in the author's terms.
pub(super) fn last(project: &Project, scan: &Scan, recipes: &Recipes<'_>, unit: &Unit, worker: &Worker) -> Vec<Reason> {
    let Some(rendering) = &unit.rendered else { return Vec::new() };
    let read = |hash, chunk| serde_json::from_slice::<Value>(&scan.writer.read(&scan.manifest, chunk, hash)?).ok();
    let before = rendering.before.and_then(|(hash, chunk, _)| read(hash, chunk));
    let after = read(rendering.from, rendering.value).or_else(|| serde_json::to_value(worker).ok());
    let recipe_before = rendering.before.and_then(|(_, _, recipe)| recipes.recipe(recipe));
    let recipe = recipes.recipe(rendering.recipe);
    describe(project, worker, &rendering.reasons, (before, after), (recipe_before, recipe))
}

/// Returns reasons in the author's terms: the value and its file, or the template.
fn describe(
    project: &Project,
    worker: &Worker,
    reasons: &[DirtyReason],
    (before, after): (Option<Value>, Option<Value>),
    (recipe_before, recipe): (Option<render::Recipe>, Option<render::Recipe>),
) -> Vec<Reason> {
    let output = |name: &str| format!("out/{}/{name}", worker.folder());
    let mut lines = Vec::new();
    for reason in reasons {
        match reason {
            DirtyReason::New => lines.push(Reason::NotRemembered),
            DirtyReason::Missing(name) => lines.push(Reason::OutputMissing { file: output(name) }),
            DirtyReason::Edited(name) => lines.push(Reason::OutputEdited { file: output(name) }),
            DirtyReason::Values => match (&before, &after) {
                (Some(before), Some(after)) => lines.extend(project.differences(worker, before, after)),
                _ => lines.push(Reason::ValuesChanged),
            },
            DirtyReason::Recipe => match (&recipe_before, &recipe) {
                (Some(before), Some(after)) => lines.extend(after.differences(before)),
                _ => lines.push(Reason::RecipeChanged),
            },
        }
    }
    lines
}

/// The explanation of a worker: why it was rendered the last time, and why it would be now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its folder under out/.
    pub folder: String,
    /// Its name.
    pub worker: String,
    /// The digest of its bundle, if it was built.
    pub digest: Option<Digest>,
    /// The time of the last rendering, in seconds since 1970.
    pub rendered_at: Option<i64>,
    /// The reasons of the last rendering.
    #[serde(serialize_with = "sentences")]
    pub last: Vec<Reason>,
    /// The reasons why it would be rendered now; none if it is up to date.
    #[serde(serialize_with = "sentences")]
    pub now: Vec<Reason>,
    /// The files that decide it.
    pub files: Vec<String>,
}

/// Explains the workers of one customer, by the code that builds them.
pub fn explain(project: &Project, scan: &Scan, bundles: &PackBundles, record: &Record) -> Vec<Explained> {
    let out = Out::new(project.output_root(), true);
    let recipes = Recipes::new(project, scan, bundles);
    let units = record.units.iter().filter_map(|unit| {
        let worker = scan.worker(project, record, unit)?;
        let folder = worker.folder();
        let (reasons, _) = dirty_reasons(&mut unit.clone(), &folder, &recipes, &out);
        let rendering = unit.rendered.as_ref();
        let before = rendering.and_then(|rendering| scan.earlier(rendering));
        let after = serde_json::to_value(&worker).ok();
        let partials = rendering.map_or(0, |rendering| rendering.partials);
        let recipe = render::recipe(&project.fleet.packs[&unit.pack], &bundles[&unit.pack].file, partials);
        let mut files = project.provenance(&worker, |provenance| provenance.files());
        files.extend(recipe.templates.iter().map(|(name, _)| format!("{}/{name}", recipe.pack)));
        files.push(format!("out/{}", recipe.runtime));
        let recipe_before = rendering.and_then(|rendering| recipes.recipe(rendering.recipe));
        Some(Explained {
            worker: worker.name.clone(),
            digest: rendering.map(RenderRecord::bundle),
            rendered_at: rendering.map(|rendering| rendering.rendered_at),
            last: last(project, scan, &recipes, unit, &worker),
            now: describe(project, &worker, &reasons, (before, after), (recipe_before, Some(recipe))),
            folder,
            files,
        })
    });
    units.collect()
}

/// Returns the recipe of a unit's files.
pub fn recipe(project: &Project, bundles: &PackBundles, unit: &Unit) -> render::Recipe {
    let partials = unit.rendered.as_ref().map_or(0, |rendering| rendering.partials);
    render::recipe(&project.fleet.packs[&unit.pack], &bundles[&unit.pack].file, partials)
}

/// Returns a worker and its recipe as one value. It is stored beside the deployed worker, to explain later what differs.
pub fn source(worker: &Worker, recipe: &render::Recipe) -> Value {
    serde_json::json!({ "worker": worker, "recipe": recipe })
}

/// Returns the differences from an earlier [`source`], in the author's terms; none if it isn't known.
pub fn since(project: &Project, worker: &Worker, recipe: &render::Recipe, before: &Value) -> Vec<Reason> {
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
    /// Returns the differences between two resolved workers, with the places of the new values.
    fn differences(&self, worker: &Worker, before: &Value, after: &Value) -> Vec<Reason> {
        self.provenance(worker, |provenance| {
            let reason = |(path, old, new): (Vec<String>, Option<Value>, Option<Value>)| {
                let steps: Vec<&str> = path.iter().map(String::as_str).collect();
                let place = match provenance.of(&steps) {
                    Provenance::At(place) if new.is_some() => Some(place.into()),
                    _ => None,
                };
                let [old, new] = [old, new].map(|value| value.as_ref().map(Excerpt::from));
                Reason::ValueChanged(Box::new(ValueChange { path: provenance::notation(&path), old, new, place }))
            };
            let differences = provenance::differences(before, after).into_iter();
            // That its environment isn't written changes nothing about a worker.
            differences.filter(|(path, ..)| path.first().is_none_or(|key| key != IMPLIED)).map(reason).collect()
        })
    }
}
