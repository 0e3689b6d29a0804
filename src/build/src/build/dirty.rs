//! Decides whether a worker is out of date, for `build` as well as for `explain`. Renders and writes nothing.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::PackBundles;
use super::project::Project;
use super::scan::Scan;
use crate::manifest::{DirtyReason, Stamp, Unit, Writer};
use crate::out::{Out, is_checked_out};
use crate::render;
use crate::usage::ScriptSizeLimit;
use flotilla_model::digest::{Digest, ShortHash};

/// The recipes by pack and partials, each put together once.
pub(super) struct Recipes<'a> {
    project: &'a Project,
    pub(super) bundles: &'a PackBundles,
    pub(super) size_limit: ScriptSizeLimit<'a>,
    known: Mutex<HashMap<(String, ShortHash, u64), ShortHash>>,
    writer: &'a Writer,
    kept: &'a HashMap<ShortHash, render::Recipe>,
}

impl<'a> Recipes<'a> {
    pub(super) fn new(project: &'a Project, scan: &'a Scan, bundles: &'a PackBundles) -> Recipes<'a> {
        let (writer, kept) = (&scan.writer, &scan.manifest.recipes);
        let sizes = bundles.iter().map(|(name, bundle)| (name, bundle.size()));
        Recipes {
            project,
            bundles,
            size_limit: ScriptSizeLimit::new(&project.fleet, sizes),
            known: Mutex::default(),
            writer,
            kept,
        }
    }

    /// Returns a recipe of this build or an earlier one by its digest.
    pub(super) fn recipe(&self, hash: ShortHash) -> Option<render::Recipe> {
        if let Some(recipe) = self.kept.get(&hash) {
            return Some(recipe.clone());
        }
        let known = self.known.lock();
        let ((pack, variant, partials), _) = known.iter().find(|(_, known)| **known == hash)?;
        Some(render::recipe(&self.project.fleet.packs[pack], self.bundles.get(pack, *variant), *partials))
    }

    pub(super) fn of(&self, pack: &str, variant: ShortHash, partials: u64) -> ShortHash {
        let mut known = self.known.lock();
        if let Some(hash) = known.get(&(pack.to_owned(), variant, partials)) {
            return *hash;
        }
        let recipe = render::recipe(&self.project.fleet.packs[pack], self.bundles.get(pack, variant), partials);
        let hash = recipe.short_hash();
        known.insert((pack.to_owned(), variant, partials), hash);
        if !self.kept.contains_key(&hash) {
            self.writer.recipe(recipe);
        }
        hash
    }
}

/// Returns the reasons why a worker is out of date; none if it isn't. Files that were touched only get their new
/// stamps: the second value shows whether there were any.
pub(super) fn dirty_reasons(
    unit: &mut Unit,
    folder: &str,
    recipes: &Recipes<'_>,
    out: &Out,
) -> (Vec<DirtyReason>, bool) {
    let resolved = unit.resolved;
    let Some(rendering) = &mut unit.rendered else { return (vec![DirtyReason::New], false) };
    let mut reasons = Vec::new();
    if rendering.from != resolved {
        reasons.push(DirtyReason::Values);
    }
    if rendering.recipe != recipes.of(&unit.pack, unit.variant, rendering.partials) {
        reasons.push(DirtyReason::Recipe);
    }
    let mut stamped = false;
    for output in &mut rendering.outputs {
        let now = SystemTime::now();
        let Some(metadata) = out.metadata(folder, &output.name) else {
            reasons.push(DirtyReason::Missing(output.name.clone()));
            continue;
        };
        if output.stamp.same(Stamp::of(&metadata)) {
            continue;
        }
        let content = output.content;
        let is_content = |bytes: &[u8]| Digest::of(bytes).short_hash() == content;
        match out.bytes(folder, &output.name) {
            // Uploads are rendered, so that the line ends of git's checkout may stay.
            Ok(bytes) if is_content(&bytes) || is_checked_out(&bytes, is_content) => {
                output.stamp = Stamp::settled(&metadata, now);
                stamped |= output.stamp != Stamp::NONE;
            }
            _ => reasons.push(DirtyReason::Edited(output.name.clone())),
        }
    }
    (reasons, stamped)
}
