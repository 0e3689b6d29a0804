//! The files of one worker: rendered, and written to its folder under out/. Doesn't know whether they are out of date.

use std::time::SystemTime;

use super::PackBundles;
use super::dirty::Recipes;
use super::project::Project;
use crate::manifest::{DirtyReason, Output, RenderRecord, Stamp, Unit};
use crate::out::Out;
use crate::renderer::{Part, Rendered};
use flotilla_model::bundle::Bundle;
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::digest::{Digest, ShortHash};
use flotilla_model::failure::Failure;
use flotilla_model::trace;

/// The result of rendering a worker.
pub(super) struct Done {
    /// The time at which it began.
    start: SystemTime,
    bundle: Bundle,
    recipe: ShortHash,
    partials: u64,
    /// The bytes of the module.
    size: u64,
    /// The names and digests of the files.
    pub(super) files: Vec<(String, ShortHash)>,
    pub(super) written: Vec<crate::out::Written>,
}

impl Done {
    /// Returns the record of this rendering.
    pub(super) fn record(self, unit: &Unit, before: Option<RenderRecord>, reasons: Vec<DirtyReason>) -> RenderRecord {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let outputs = self.files.into_iter().zip(&self.written).map(|((name, content), written)| Output {
            name,
            content,
            stamp: match &written.metadata {
                Some(metadata) if written.differed => Stamp::of(metadata),
                // Somebody else wrote it, perhaps just now.
                Some(metadata) => Stamp::settled(metadata, self.start),
                None => Stamp::NONE,
            },
        });
        RenderRecord {
            from: unit.resolved,
            value: unit.value,
            recipe: self.recipe,
            partials: self.partials,
            size: self.size,
            outputs: outputs.collect(),
            bundle: self.bundle.digest.to_bytes(),
            module: self.bundle.module.to_bytes(),
            rendered_at: i64::try_from(since.as_secs()).unwrap_or_default(),
            reasons,
            before: before.map(|before| (before.from, before.value, before.recipe)),
        }
    }
}

/// Writes the folder of a worker that was rendered.
pub(super) fn write(
    project: &Project,
    recipes: &Recipes<'_>,
    worker: &Worker,
    rendered: Rendered,
    out: &Out,
) -> Result<Done, Failure> {
    let start = SystemTime::now();
    let Rendered { files, bundle, partials } = rendered;
    let pack = &project.fleet.packs[&worker.pack];
    let bytes: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let _span = trace::span("write", &worker.name);
    let written = out.write_folder(&worker.folder(), &bytes)?;
    let module_hash = bundle.module.short_hash();
    let hash = |name: &str, text: &str| {
        if Some(name) == pack.module() { module_hash } else { Digest::of(text.as_bytes()).short_hash() }
    };
    Ok(Done {
        start,
        recipe: recipes.of(&worker.pack, recipes.bundles.variant(worker), partials),
        partials,
        size: size(project, worker, &files),
        files: files.iter().map(|(name, text)| (name.clone(), hash(name, text))).collect(),
        written,
        bundle,
    })
}

/// Returns the bytes of the module, which is the first of a worker's files; where wrangler bundled it, there is none.
pub(super) fn size(project: &Project, worker: &Worker, files: &[(String, String)]) -> u64 {
    let has_module = project.fleet.packs[&worker.pack].module().is_some();
    files.first().filter(|_| has_module).map_or(0, |(_, module)| module.len() as u64)
}

/// The rendered files of a worker, by name.
pub type RenderedFiles = Vec<(String, String)>;

/// Renders all files of a worker as they are in its folder under out/, by name, and makes its bundle; writes nothing.
pub fn files(
    project: &Project,
    bundles: &PackBundles,
    worker: &Worker,
) -> Result<(RenderedFiles, Bundle), Box<Diagnostic>> {
    let rendered = project.renderer.render(worker, bundles.of(worker), Part::Files)?;
    Ok((rendered.files, rendered.bundle))
}

/// Renders a worker's module and makes its bundle. Where wrangler bundled its pack, the module is empty.
pub fn module(project: &Project, bundles: &PackBundles, worker: &Worker) -> Result<(String, Bundle), Box<Diagnostic>> {
    let rendered = project.renderer.render(worker, bundles.of(worker), Part::Module)?;
    let module = rendered.files.into_iter().next().map(|(_, module)| module).unwrap_or_default();
    Ok((module, rendered.bundle))
}
