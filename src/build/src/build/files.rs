//! The files of one worker: rendered, and written to its folder under out/. Doesn't know whether they are out of date.

use std::time::SystemTime;

use super::Runtimes;
use super::dirty::Recipes;
use super::project::Project;
use crate::manifest::{Made, Output, Stamp, Unit, Why};
use crate::out::Out;
use crate::render::{self, Scene};
use flotilla_model::bundle::{self, Bundle};
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::digest::{Digest, Mark};
use flotilla_model::failure::Failure;
use flotilla_model::trace;

/// The result of rendering a worker.
pub(super) struct Done {
    /// The time at which it began.
    start: SystemTime,
    bundle: Bundle,
    recipe: Mark,
    partials: u64,
    /// The bytes of the module.
    size: u64,
    /// The names and digests of the files.
    pub(super) files: Vec<(String, Mark)>,
    pub(super) written: Vec<crate::out::Written>,
}

impl Done {
    /// Returns the record of this rendering.
    pub(super) fn record(self, unit: &Unit, before: Option<Made>, why: Vec<Why>) -> Made {
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
        Made {
            from: unit.resolved,
            value: unit.value,
            recipe: self.recipe,
            partials: self.partials,
            size: self.size,
            outputs: outputs.collect(),
            bundle: self.bundle.digest.to_bytes(),
            module: self.bundle.module.to_bytes(),
            at: i64::try_from(since.as_secs()).unwrap_or_default(),
            why,
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
    let mut scene = Scene::new(worker, &recipes.runtimes[&worker.pack].specifier(worker));
    let (module, bundle) = made_module(project, recipes.runtimes, &mut scene, worker).map_err(Broken::Diagnostic)?;
    let size = module.len() as u64;
    if let Some(diagnostic) = recipes.room.check(&worker.file, &worker.pack, &worker.account, size) {
        return Err(Broken::Diagnostic(diagnostic));
    }
    let files = with_files(project, &mut scene, worker, module, &bundle).map_err(Broken::Diagnostic)?;
    let pack = &project.fleet.packs[&worker.pack];
    let partials = render::partials_read();
    let bytes: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    drop(span);
    let _span = trace::span("write", &worker.name);
    let written = out.write_folder(&worker.folder(), &bytes).map_err(Broken::Failure)?;
    let module_mark = bundle.module.mark();
    let mark =
        |name: &str, text: &str| if name == pack.module() { module_mark } else { Digest::of(text.as_bytes()).mark() };
    Ok(Done {
        start,
        recipe: recipes.of(&worker.pack, partials),
        partials,
        size,
        files: files.iter().map(|(name, text)| ((*name).to_owned(), mark(name, text))).collect(),
        written,
        bundle,
    })
}

/// The rendered files of a worker, by name.
pub type Texts<'p> = Vec<(&'p str, String)>;

/// A worker's rendered module with the pack's other files.
fn with_files<'p>(
    project: &'p Project,
    scene: &mut Scene<'_>,
    worker: &Worker,
    module: String,
    bundle: &Bundle,
) -> Result<Texts<'p>, Box<Diagnostic>> {
    let (templates, pack) = (&project.templates[&worker.pack], &project.fleet.packs[&worker.pack]);
    let mut files = vec![(pack.module(), module)];
    for name in pack.file_names().filter(|name| *name != pack.module()) {
        files.push((name, templates.render_scene(name, scene, Some(&bundle.digest))?));
    }
    Ok(files)
}

/// Renders all files of a worker as they stand in its folder under out/, by name, and makes its bundle; writes nothing.
pub fn files<'p>(
    project: &'p Project,
    runtimes: &Runtimes,
    worker: &Worker,
) -> Result<(Texts<'p>, Bundle), Box<Diagnostic>> {
    let mut scene = Scene::new(worker, &runtimes[&worker.pack].specifier(worker));
    let (module, bundle) = made_module(project, runtimes, &mut scene, worker)?;
    Ok((with_files(project, &mut scene, worker, module, &bundle)?, bundle))
}

/// Renders a worker's module and makes its bundle.
pub fn module(project: &Project, runtimes: &Runtimes, worker: &Worker) -> Result<(String, Bundle), Box<Diagnostic>> {
    let mut scene = Scene::new(worker, &runtimes[&worker.pack].specifier(worker));
    made_module(project, runtimes, &mut scene, worker)
}

fn made_module(
    project: &Project,
    runtimes: &Runtimes,
    scene: &mut Scene<'_>,
    worker: &Worker,
) -> Result<(String, Bundle), Box<Diagnostic>> {
    let runtime = &runtimes[&worker.pack];
    let name = project.fleet.packs[&worker.pack].module();
    let module = project.templates[&worker.pack].render_scene(name, scene, None)?;
    let bundle = bundle::bundle(worker, &module, runtime);
    Ok((module, bundle))
}
