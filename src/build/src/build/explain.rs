//! Explains why workers are rendered, in the author's terms, by the code that decides it.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::dirty::{Recipes, dirty_reasons};
use super::{PackBundles, Project, Scan};
use crate::manifest::{DirtyReason, Record, RenderRecord, Unit};
use crate::out::Out;
use crate::provenance::{self, Provenance};
use crate::render;
use flotilla_model::credential;
use flotilla_model::customer::{Hosts, Worker};
use flotilla_model::digest::Digest;
use flotilla_model::reason::{Excerpt, Reason, ValueChange, sentences};
use flotilla_model::spec::Route;
use flotilla_model::tags::Triggers;

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
        let recipe = render::recipe(&project.fleet.packs[&unit.pack], bundles.get(&unit.pack, unit.variant), partials);
        let mut files = project.provenance(&worker, |provenance| provenance.files());
        files.extend(recipe.templates.iter().map(|(name, _)| format!("{}/{name}", recipe.pack)));
        files.extend(recipe.sources.iter().map(|(path, _)| path.clone()));
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
    render::recipe(&project.fleet.packs[&unit.pack], bundles.get(&unit.pack, unit.variant), partials)
}

/// Returns a worker and its recipe as one value. It is stored beside the deployed worker, to explain later what differs.
pub fn source(worker: &Worker, recipe: &render::Recipe) -> Value {
    json!({ "worker": worker, "recipe": recipe })
}

/// The resources of a deployed worker that have steps of their own: later deploys change them without an upload.
#[derive(Clone, Debug, Default)]
pub struct LiveTriggers {
    /// Its workers.dev address, custom domains, routes and crons.
    pub triggers: Triggers,
    /// The hosts that point to it in its dispatch namespace.
    pub hosts: Option<Hosts>,
}

/// Returns the differences from an earlier [`source`], in the author's terms; none if it isn't known. What was deployed since by a step
/// of its own is compared with `live`.
pub fn since(
    project: &Project,
    worker: &Worker,
    recipe: &render::Recipe,
    before: &Value,
    live: &LiveTriggers,
) -> Vec<Reason> {
    let recipe_before = serde_json::from_value::<render::Recipe>(before["recipe"].clone()).ok();
    let recipe_differs = recipe_before.map(|before| recipe.differences(&before)).unwrap_or_default();
    let mut lines = Vec::new();
    if let (before @ Value::Object(_), Ok(after)) = (&before["worker"], serde_json::to_value(worker)) {
        let before = deployed(before, &worker.routes, live);
        lines = project.differences(worker, &of_upload(&before, &after), &after);
        if lines.is_empty() && recipe_differs.is_empty() {
            // A template can render these, as well.
            lines = project.differences(worker, &before, &after);
        }
    }
    lines.extend(recipe_differs);
    lines
}

/// Returns a worker as it was uploaded, with what is live by now.
fn deployed(before: &Value, routes: &BTreeSet<Route>, live: &LiveTriggers) -> Value {
    // The workflows are bindings, too, which are uploaded.
    let Triggers { workers_dev, preview_urls, domains, patterns, crons, consumers, workflows: _ } = &live.triggers;
    let route = |pattern: &String| {
        let now = routes.iter().find(|route| route.pattern == *pattern).map(|route| json!(route));
        let then = || before["routes"].as_array()?.iter().find(|route| route["pattern"] == *pattern).cloned();
        now.or_else(then).unwrap_or_else(|| json!({ "pattern": pattern, "zone": null }))
    };
    let routes = patterns.iter().map(route);
    let mut before = before.clone();
    before["workersDev"] = json!(workers_dev);
    copy(&json!({ "previewUrls": preview_urls.then_some(true) }), &mut before, "previewUrls");
    before["domains"] = json!(domains);
    before["routes"] = routes.collect();
    before["crons"] = json!(crons);
    let consumers = if consumers.is_empty() { Value::Null } else { json!(consumers) };
    copy(&json!({ "queueConsumers": consumers }), &mut before, "queueConsumers");
    copy(&json!({ "hosts": live.hosts }), &mut before, "hosts");
    before
}

/// Returns a worker as it was, with the present values of those keys that aren't sent anywhere, or that have steps and reasons of their own.
fn of_upload(before: &Value, after: &Value) -> Value {
    let mut before = before.clone();
    let local = ["labels", "takeOver", "delivery", "accountId"];
    let with_steps = ["workersDev", "previewUrls", "domains", "routes", "crons", "queueConsumers", "hosts"];
    local.into_iter().chain(with_steps).for_each(|key| copy(after, &mut before, key));
    // Bundles are kept once for all workers that have the same: this one can be kept as another worker's.
    if before["name"] != after["name"] {
        for key in ["customer", "customerName", "environment", "file", "name", "role"] {
            before[key] = after[key].clone();
        }
    }
    before
}

/// Copies a key, or that there is none.
fn copy(from: &Value, to: &mut Value, key: &str) {
    match from.get(key).filter(|value| !value.is_null()) {
        Some(value) => to[key] = value.clone(),
        None => drop(to.as_object_mut().map(|object| object.remove(key))),
    }
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
                // Reasons are shown and recorded in many places, and none of them needs a secret's value.
                let excerpt = |value| Excerpt::from(&credential::masked(&path, value));
                let [old, new] = [old, new].map(|value| value.map(excerpt));
                Reason::ValueChanged(Box::new(ValueChange { path: provenance::notation(&path), old, new, place }))
            };
            let differences = provenance::differences(before, after).into_iter();
            // That its environment isn't written changes nothing about a worker.
            differences.filter(|(path, ..)| path.first().is_none_or(|key| key != IMPLIED)).map(reason).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_live_takes_the_place_of_what_was_there_at_the_upload() {
        let uploaded = json!({
            "name": "w", "workersDev": true, "domains": ["a.example"], "crons": ["0 3 * * *"], "vars": { "A": "1" },
            "routes": [{ "pattern": "a.example/*", "zone": "a.example" }, { "pattern": "b.example/*", "zone": "b.example" }],
            "hosts": { "table": "shops", "names": ["old.example"] },
        });
        let triggers = Triggers {
            workers_dev: false,
            domains: texts(&["b.example"]),
            patterns: texts(&["b.example/*", "c.example/*"]),
            crons: texts(&["0 4 * * *"]),
            ..Triggers::default()
        };
        let hosts = Hosts { table: "shops".to_owned(), names: texts(&["new.example"]) };
        let live = LiveTriggers { triggers, hosts: Some(hosts) };
        let routes =
            BTreeSet::from([Route { pattern: "c.example/*".to_owned(), zone: "c.example".to_owned(), zone_id: None }]);
        assert_eq!(
            deployed(&uploaded, &routes, &live),
            json!({
                "name": "w", "workersDev": false, "domains": ["b.example"], "crons": ["0 4 * * *"], "vars": { "A": "1" },
                "routes": [{ "pattern": "b.example/*", "zone": "b.example" }, { "pattern": "c.example/*", "zone": "c.example" }],
                "hosts": { "table": "shops", "names": ["new.example"] },
            })
        );
        assert_eq!(deployed(&uploaded, &routes, &LiveTriggers::default()).get("hosts"), None);
    }

    #[test]
    fn what_is_sent_nowhere_explains_no_upload() {
        let before =
            json!({ "labels": { "tier": "silver" }, "delivery": "manual", "vars": {}, "takeOver": ["a.example"] });
        let after = json!({ "labels": { "tier": "gold" }, "delivery": "automatic", "vars": { "A": "1" } });
        let labels = json!({ "labels": { "tier": "gold" }, "delivery": "automatic", "vars": {} });
        // What has a step of its own is named by that.
        let (mut before, mut after) = (before, after);
        (before["domains"], after["domains"]) = (json!(["a.example"]), json!([]));
        let labels = {
            let mut labels = labels;
            labels["domains"] = json!([]);
            labels
        };
        assert_eq!(of_upload(&before, &after), labels);
    }
}
