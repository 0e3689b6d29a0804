//! The files of one worker: rendered, and written to its folder under out/. Doesn't know whether they are out of date.

use std::time::SystemTime;

use super::PackBundles;
use super::dirty::Recipes;
use super::project::Project;
use crate::manifest::{DirtyReason, Output, RenderRecord, Stamp, Unit};
use crate::out::Out;
use crate::render::{self, RenderContext};
use flotilla_model::bundle::{self, Bundle};
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

/// The reason why a worker could not be rendered.
pub(super) enum Broken {
    /// An error of the author.
    Diagnostic(Box<Diagnostic>),
    /// Its files could not be written.
    Failure(Failure),
}

/// Renders one worker and writes its folder.
pub(super) fn render(project: &Project, recipes: &Recipes<'_>, worker: &Worker, out: &Out) -> Result<Done, Broken> {
    let span = trace::span("render", &worker.name);
    let start = SystemTime::now();
    render::partials_read();
    let mut context = RenderContext::new(worker, &recipes.bundles[&worker.pack].specifier(worker));
    let (module, bundle) = render_module(project, recipes.bundles, &mut context, worker).map_err(Broken::Diagnostic)?;
    let size = module.len() as u64;
    if let Some(diagnostic) = recipes.size_limit.check(&worker.file, &worker.pack, &worker.account, size) {
        return Err(Broken::Diagnostic(diagnostic));
    }
    let files = with_files(project, &mut context, worker, module, &bundle).map_err(Broken::Diagnostic)?;
    let pack = &project.fleet.packs[&worker.pack];
    let partials = render::partials_read();
    let bytes: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    drop(span);
    let _span = trace::span("write", &worker.name);
    let written = out.write_folder(&worker.folder(), &bytes).map_err(Broken::Failure)?;
    let module_hash = bundle.module.short_hash();
    let hash = |name: &str, text: &str| {
        if name == pack.module() { module_hash } else { Digest::of(text.as_bytes()).short_hash() }
    };
    Ok(Done {
        start,
        recipe: recipes.of(&worker.pack, partials),
        partials,
        size,
        files: files.iter().map(|(name, text)| ((*name).to_owned(), hash(name, text))).collect(),
        written,
        bundle,
    })
}

/// The rendered files of a worker, by name.
pub type RenderedFiles<'p> = Vec<(&'p str, String)>;

/// Returns a worker's rendered module with the pack's other files.
fn with_files<'p>(
    project: &'p Project,
    context: &mut RenderContext<'_>,
    worker: &Worker,
    module: String,
    bundle: &Bundle,
) -> Result<RenderedFiles<'p>, Box<Diagnostic>> {
    let (templates, pack) = (&project.templates[&worker.pack], &project.fleet.packs[&worker.pack]);
    let mut files = vec![(pack.module(), module)];
    for name in pack.file_names().filter(|name| *name != pack.module()) {
        files.push((name, templates.render_context(name, context, Some(&bundle.digest))?));
    }
    Ok(files)
}

/// Renders all files of a worker as they are in its folder under out/, by name, and makes its bundle; writes nothing.
pub fn files<'p>(
    project: &'p Project,
    bundles: &PackBundles,
    worker: &Worker,
) -> Result<(RenderedFiles<'p>, Bundle), Box<Diagnostic>> {
    let mut context = RenderContext::new(worker, &bundles[&worker.pack].specifier(worker));
    let (module, bundle) = render_module(project, bundles, &mut context, worker)?;
    Ok((with_files(project, &mut context, worker, module, &bundle)?, bundle))
}

/// Renders a worker's module and makes its bundle.
pub fn module(project: &Project, bundles: &PackBundles, worker: &Worker) -> Result<(String, Bundle), Box<Diagnostic>> {
    let mut context = RenderContext::new(worker, &bundles[&worker.pack].specifier(worker));
    render_module(project, bundles, &mut context, worker)
}

fn render_module(
    project: &Project,
    bundles: &PackBundles,
    context: &mut RenderContext<'_>,
    worker: &Worker,
) -> Result<(String, Bundle), Box<Diagnostic>> {
    let runtime = &bundles[&worker.pack];
    let name = project.fleet.packs[&worker.pack].module();
    let module = project.templates[&worker.pack].render_context(name, context, None)?;
    let bundle = bundle::bundle(worker, &module, runtime);
    Ok((module, bundle))
}
