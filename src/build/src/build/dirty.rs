//! Decides whether a worker is out of date, for `build` as well as for `explain`. Renders and writes nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use super::Runtimes;
use super::project::Project;
use super::scan::Scan;
use crate::manifest::{Stamp, Unit, Why, Writer};
use crate::out::Out;
use crate::render;
use crate::tally::Room;
use flotilla_model::digest::{Digest, Mark};

/// The recipes by pack and partials; put together once each.
pub(super) struct Recipes<'a> {
    project: &'a Project,
    pub(super) runtimes: &'a Runtimes,
    pub(super) room: Room<'a>,
    known: Mutex<HashMap<(String, u64), Mark>>,
    writer: &'a Writer,
    kept: &'a HashMap<Mark, render::Recipe>,
}

impl<'a> Recipes<'a> {
    pub(super) fn new(project: &'a Project, scan: &'a Scan, runtimes: &'a Runtimes) -> Recipes<'a> {
        let (writer, kept) = (&scan.writer, &scan.manifest.recipes);
        let sizes = runtimes.iter().map(|(name, runtime)| (name.as_str(), runtime.script.len() as u64));
        Recipes { project, runtimes, room: Room::new(&project.fleet, sizes), known: Mutex::default(), writer, kept }
    }

    /// A recipe by its digest, of this run or an earlier one.
    pub(super) fn recipe(&self, mark: Mark) -> Option<render::Recipe> {
        if let Some(recipe) = self.kept.get(&mark) {
            return Some(recipe.clone());
        }
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ((pack, partials), _) = known.iter().find(|(_, known)| **known == mark)?;
        Some(render::recipe(&self.project.fleet.packs[pack], &self.runtimes[pack].file, *partials))
    }

    pub(super) fn of(&self, pack: &str, partials: u64) -> Mark {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mark) = known.get(&(pack.to_owned(), partials)) {
            return *mark;
        }
        let recipe = render::recipe(&self.project.fleet.packs[pack], &self.runtimes[pack].file, partials);
        let mark = recipe.mark();
        known.insert((pack.to_owned(), partials), mark);
        if !self.kept.contains_key(&mark) {
            self.writer.recipe(recipe);
        }
        mark
    }
}

/// Why a worker is out of date; nothing, if it isn't. Files that were touched only get their new stamps: the second value
/// says whether there were any. This is the one place where it is decided, for `build` as well as for `explain`.
pub(super) fn dirty_reasons(unit: &mut Unit, folder: &str, recipes: &Recipes<'_>, out: &Out) -> (Vec<Why>, bool) {
    let resolved = unit.resolved;
    let Some(made) = &mut unit.made else { return (vec![Why::New], false) };
    let mut why = Vec::new();
    if made.from != resolved {
        why.push(Why::Values);
    }
    if made.recipe != recipes.of(&unit.pack, made.partials) {
        why.push(Why::Recipe);
    }
    let mut stamped = false;
    for output in &mut made.outputs {
        let now = SystemTime::now();
        let Some(metadata) = out.metadata(folder, &output.name) else {
            why.push(Why::Missing(output.name.clone()));
            continue;
        };
        if output.stamp.same(Stamp::of(&metadata)) {
            continue;
        }
        match out.bytes(folder, &output.name) {
            Ok(bytes) if Digest::of(&bytes).mark() == output.content => {
                output.stamp = Stamp::settled(&metadata, now);
                stamped |= output.stamp != Stamp::NONE;
            }
            _ => why.push(Why::Edited(output.name.clone())),
        }
    }
    (why, stamped)
}
