//! The left half of the line: from files to bundles, make-style. Surveys all customers, decides what is out of date, renders
//! that and writes out/, in parallel over customers; what earlier builds remember says what need not be looked at. Knows no
//! platform, no state and no secrets.
//!
//! Three passes over the fleet, none of which keeps more of a customer than its record:
//!
//! 1. *Survey.* A customer's files are read if their stamps moved, and resolved if their bytes or the fleet's did. The
//!    resolved workers go to the file of values.
//! 2. *Checks across the fleet*, on what each customer claims and counts.
//! 3. *Build.* A worker is rendered if what it is rendered from, or by, isn't what its files were made of, or if its files
//!    aren't what was written.

mod explain;
mod survey;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::git;
use crate::manifest::{Made, Output, Record, Stamp, Unit, Why, Writer};
use crate::origin::Origins;
use crate::out::Out;
use crate::policy::Policy;
use crate::render::{self, Scene, TOOL, Templates};
use crate::resolve::{self, Resolved, Shared};
use crate::runtime;
use crate::tally::Room;
use flotilla_model::bundle::{self, Bundle, Runtime};
use flotilla_model::customer::{self, SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, sorted};
use flotilla_model::digest::{Digest, Framed, Mark};
use flotilla_model::failure::Failure;
use flotilla_model::preview::Preview;
use flotilla_model::progress::Progress;
use flotilla_model::reason::Reason;
use flotilla_model::spec::{DOTENV, Environment, SecretSource};
use flotilla_model::trace;
use flotilla_spec::project::{self, Fleet, Reading};
use flotilla_spec::schema::Checker;
use flotilla_spec::tree::Tree;

pub use explain::{Explained, explain, recipe, since, source};
pub use survey::{Survey, id, survey};

/// A project, open: what holds for all of its customers.
pub struct Project {
    /// Its files.
    pub tree: Tree,
    /// fleet.yaml, its layers and packs.
    pub fleet: Fleet,
    /// The customers' files, sorted by name.
    pub files: Vec<String>,
    /// The workers that all customers share.
    pub shared: Shared,
    /// Each pack's templates.
    templates: BTreeMap<String, Templates>,
    /// Which warnings count, and how much.
    policy: Policy,
    /// What is wrong with templates and with the policy.
    broken: Vec<Diagnostic>,
    /// Files with secrets in clear that git tracks.
    exposed: Vec<Diagnostic>,
    /// The schema of customers' files; compiled when the first one is read.
    checker: OnceLock<&'static Checker>,
    /// The folder in which out/ lies, and what builds remember.
    place: PathBuf,
}

/// Opens a project. A mistake in fleet.yaml, a layer or a pack ends it: with all other mistakes that can be found.
pub fn open(tree: Tree, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    open_as(tree, None, progress)
}

/// Opens a project as it is in a preview: a fleet of its own, of the preview's customers and of the shared workers that these
/// refer to. What is written lies apart from what is the fleet's.
pub fn open_preview(tree: Tree, preview: &Preview, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    let roots = preview.shared.clone().unwrap_or_default();
    let preview = &Preview { shared: None, ..preview.clone() };
    let mut project = open_as(tree, Some(preview), progress)?;
    // Which shared workers belong to it, and which hosts are others in it, is known once its customers are resolved.
    let resolve = |file: &String| Some(project.resolve(file, &project.tree.plain(file).ok()?).1);
    let resolved: Vec<Resolved> = project.files.par_iter().filter_map(resolve).collect();
    let referred = resolved.iter().flat_map(|one| &one.refers).map(|(_, to)| to.clone());
    let mut wanted: BTreeSet<String> = roots.into_iter().chain(referred).collect();
    loop {
        let refers = project.shared.resolved.refers.iter();
        let more = refers.filter(|(from, _)| from.as_ref().is_some_and(|from| wanted.contains(from)));
        let more: Vec<String> = more.map(|(_, to)| to.clone()).filter(|to| !wanted.contains(to)).collect();
        if more.is_empty() {
            break;
        }
        wanted.extend(more);
    }
    let mut preview = Preview { shared: Some(wanted), ..preview.clone() };
    preview.hosts.extend(resolved.into_iter().flat_map(|one| one.moved));
    project.fleet.preview = Some(preview.clone());
    preview.hosts.extend(resolve::shared(&project.fleet).resolved.moved);
    let decides = serde_json::to_vec(&preview).expect("BUG: a preview is JSON");
    project.fleet.decides = Framed::new("preview").field(&project.fleet.decides.to_bytes()).field(&decides).finish();
    project.fleet.preview = Some(preview);
    project.shared = resolve::shared(&project.fleet);
    Ok(project)
}

fn open_as(tree: Tree, preview: Option<&Preview>, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    progress.begin("reading the fleet", None);
    let checker = OnceLock::new();
    // Side by side: the schemas take time to compile.
    let (fleet, files) = rayon::join(|| project::read_fleet(&tree), || project::spec_files(&tree));
    let (mut fleet, mut files) = match (fleet, files) {
        (Ok(fleet), Ok(files)) => (fleet, files),
        (fleet, files) => {
            let mut diagnostics: Vec<Diagnostic> = Vec::new();
            diagnostics.extend(fleet.err().into_iter().flatten());
            match files {
                // What is wrong with the fleet hides nothing of what a spec shows by itself.
                Ok(files) => {
                    let checker = checker.get_or_init(Checker::customer);
                    let read = |file: &String| match tree.plain(file) {
                        Ok(bytes) => project::read_spec(&tree, None, file, &bytes, checker).diagnostics,
                        Err(diagnostic) => vec![*diagnostic],
                    };
                    diagnostics.par_extend(files.par_iter().flat_map_iter(read));
                }
                Err(missing) => diagnostics.extend(missing),
            }
            return Err(sorted(diagnostics));
        }
    };
    let mut place = tree.root.clone();
    if let Some(preview) = preview {
        files.retain(|file| preview.customers.contains(project::id_of(file)));
        place.push(project::preview_folder(&preview.id));
        fleet.preview = Some(preview.clone());
    }
    let shared = resolve::shared(&fleet);
    let mut templates = BTreeMap::new();
    let (policy, mut broken) = Policy::new(&fleet.document, &fleet.file);
    for (name, pack) in &fleet.packs {
        match Templates::new(pack) {
            Ok(parsed) => {
                templates.insert(name.clone(), parsed);
            }
            Err(found) => broken.extend(found),
        }
    }
    let exposed = exposed(&tree, &fleet);
    Ok(Project { tree, fleet, files, shared, templates, policy, broken, exposed, checker, place })
}

/// The dotenv files of the project that git tracks.
fn exposed(tree: &Tree, fleet: &Fleet) -> Vec<Diagnostic> {
    let listed = |(at, source): (usize, &SecretSource)| {
        let place = || fleet.document.place_of(["secrets", at.to_string().as_str(), "dotenv"]);
        Some((source.dotenv.clone()?, place()))
    };
    let files: Vec<(String, Place)> = match &fleet.file.secrets {
        Some(sources) => sources.iter().enumerate().filter_map(listed).collect(),
        None => vec![(DOTENV.to_owned(), Place::file(DOTENV))],
    };
    let each = files.into_iter().flat_map(|(path, place)| {
        let of = |environment: Environment| path.replace("{environment}", environment.as_str());
        BTreeSet::from(Environment::EACH.map(of)).into_iter().map(move |path| (path, place.clone()))
    });
    let tracked = each.filter(|(path, _)| {
        let file = tree.root.join(path);
        file.is_file() && git::is_tracked(&file)
    });
    let told = tracked.map(|(path, place)| {
        let message = format!("git tracks {path}, which has secrets in clear");
        let help = format!("replace its secrets, add it to .gitignore, and take it out: git rm --cached {path}");
        Diagnostic::warning(Code::TrackedSecrets, place, message, help)
    });
    told.collect()
}

impl Project {
    /// The project's folder.
    pub fn root(&self) -> &Path {
        &self.tree.root
    }

    /// The folder in which out/ lies, and what builds remember: the project's, or that of a preview.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Reads and resolves a customer.
    pub fn resolve(&self, file: &str, bytes: &[u8]) -> (Reading, Resolved) {
        let checker = self.checker.get_or_init(Checker::customer);
        let mut reading = project::read_spec(&self.tree, Some(&self.fleet), file, bytes, checker);
        let mut resolved = match &reading.spec {
            Some(spec) => resolve::resolve(&self.fleet, &self.shared, spec),
            None => Resolved::default(),
        };
        // Of one place, the first thing that is wrong is enough.
        resolved.diagnostics.retain(|found| reading.diagnostics.iter().all(|told| told.place != found.place));
        reading.diagnostics.append(&mut resolved.diagnostics);
        (reading, resolved)
    }

    /// Which partials a worker's templates include: found by rendering it.
    pub fn partials(&self, worker: &Worker) -> u64 {
        let (templates, pack) = (&self.templates[&worker.pack], &self.fleet.packs[&worker.pack]);
        if pack.partials.is_empty() {
            return 0;
        }
        render::partials_read();
        for name in pack.file_names() {
            // What goes wrong is the build's to tell.
            let _ = templates.render(name, worker, "./runtime.js", None);
        }
        render::partials_read()
    }

    /// Looks up where a worker's values come from.
    pub fn origins<T>(&self, worker: &Worker, look: impl FnOnce(&Origins<'_>) -> T) -> T {
        let fleet = &self.fleet;
        let role = worker.role.as_deref();
        let spec = if worker.customer == SHARED {
            None
        } else {
            let checker = self.checker.get_or_init(Checker::customer);
            let bytes = self.tree.bytes(&worker.file).unwrap_or_default();
            project::read_spec(&self.tree, Some(fleet), &worker.file, &bytes, checker).spec
        };
        let merged = match &spec {
            Some(spec) => resolve::merged(fleet, spec, worker.environment, role),
            None => resolve::merged_shared(fleet, worker.environment, role.unwrap_or_default()),
        };
        look(&Origins { fleet, spec: spec.as_ref(), merged, worker })
    }

    /// The digest of everything beside a customer's own files that decides how it is resolved.
    fn context(&self, layers: &[String]) -> Option<Mark> {
        let start = Framed::new("context").field(TOOL.as_bytes()).field(&self.fleet.decides.to_bytes());
        let all = layers.iter().try_fold(start, |framed, name| {
            let layer = self.fleet.layers.iter().find(|layer| layer.name == *name)?;
            Some(framed.field(&layer.digest.to_bytes()))
        });
        all.map(|framed| framed.finish().mark())
    }
}

/// The runtimes by pack.
pub type Runtimes = HashMap<String, Runtime>;

/// The runtimes of the packs that workers use: from the cache, or bundled now.
pub fn runtimes(project: &Project, survey: &Survey, progress: &dyn Progress) -> Result<Runtimes, runtime::Error> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for unit in survey.records.iter().filter(|record| !survey.is_held(record)).flat_map(|record| &record.units) {
        if !used.contains(unit.pack.as_str()) {
            used.insert(&unit.pack);
        }
    }
    used.into_iter()
        .map(|name| Ok((name.to_owned(), runtime::runtime(name, &project.fleet.packs[name], progress)?)))
        .collect()
}

/// Which part of the fleet a build is for.
pub struct Scope<'a> {
    /// Whether a worker belongs to it: by its customer's record, and by itself.
    pub includes: &'a (dyn Fn(&Record, &Unit) -> bool + Sync),
    /// Whether it is the whole fleet, so that what no worker owns can go.
    pub whole: bool,
    /// Count what differs, and write nothing.
    pub dry: bool,
    /// Say why each worker is rendered.
    pub explain: bool,
}

/// What a build did.
#[derive(Default)]
pub struct Built {
    /// Workers that belong to it.
    pub workers: usize,
    /// Workers that were rendered.
    pub rendered: usize,
    /// Workers none of whose files differed.
    pub unchanged: usize,
    /// Files that were written, or would be.
    pub written: usize,
    /// Folders, runtimes, and files that a pack no longer has, that were removed, or would be.
    pub removed: usize,
    /// The ids of customers with a worker that could not be rendered.
    pub failed: BTreeSet<String>,
    /// Why each worker was rendered, where that was asked for: its folder, and the reasons in the author's terms.
    pub why: Vec<(String, Vec<Reason>)>,
    /// What the templates' author did wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// What could not be remembered.
    pub forgotten: Option<std::io::Error>,
}

/// The recipes by pack and partials; put together once each.
struct Recipes<'a> {
    project: &'a Project,
    runtimes: &'a Runtimes,
    room: Room<'a>,
    known: Mutex<HashMap<(String, u64), Mark>>,
    writer: &'a Writer,
    kept: &'a HashMap<Mark, render::Recipe>,
}

impl<'a> Recipes<'a> {
    fn new(project: &'a Project, survey: &'a Survey, runtimes: &'a Runtimes) -> Recipes<'a> {
        let (writer, kept) = (&survey.writer, &survey.manifest.recipes);
        let sizes = runtimes.iter().map(|(name, runtime)| (name.as_str(), runtime.script.len() as u64));
        Recipes { project, runtimes, room: Room::new(&project.fleet, sizes), known: Mutex::default(), writer, kept }
    }

    /// A recipe by its digest, of this run or an earlier one.
    fn recipe(&self, mark: Mark) -> Option<render::Recipe> {
        if let Some(recipe) = self.kept.get(&mark) {
            return Some(recipe.clone());
        }
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ((pack, partials), _) = known.iter().find(|(_, known)| **known == mark)?;
        Some(render::recipe(&self.project.fleet.packs[pack], &self.runtimes[pack].file, *partials))
    }

    fn of(&self, pack: &str, partials: u64) -> Mark {
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

/// Builds what is out of date.
pub fn build(
    project: &Project,
    survey: &mut Survey,
    runtimes: &Runtimes,
    scope: &Scope<'_>,
    progress: &dyn Progress,
) -> Result<Built, Failure> {
    let out = Out::new(project.place(), scope.dry);
    let mut built = Built::default();
    // The folders of out/ in which nothing came or went since nothing was left over in them.
    let recorded = |environment: &Environment| survey.manifest.folders.get(environment.as_str()).copied();
    let stamp = |environment: &Environment| out.folder(environment.as_str()).map(|found| Stamp::of(&found));
    let environments = || project.fleet.environments().iter().copied();
    let quiet: Vec<Environment> = environments()
        .filter(|environment| match stamp(environment) {
            Some(now) => recorded(environment).is_some_and(|stamp| stamp.same(now)),
            None => true,
        })
        .collect();
    for runtime in runtimes.values() {
        let (folder, file) = runtime.file.split_once('/').expect("BUG: a runtime has a folder");
        let types = file.replace(".js", ".d.ts");
        let written = out.write_folder(folder, &[(file, &runtime.script), (&types, &runtime.types)])?;
        built.written += written.iter().filter(|written| written.differed).count();
    }
    let mut records = std::mem::take(&mut survey.records);
    let recipes = Recipes::new(project, survey, runtimes);
    progress.begin("building", Some(records.len() as u64));
    let results: Vec<Result<Built, Failure>> = records
        .par_iter_mut()
        .zip(&survey.fresh)
        .fold(
            || Ok(Built::default()),
            |built: Result<Built, Failure>, (record, fresh)| {
                let mut built = built?;
                let result = customer(project, survey, &recipes, record, *fresh, &out, scope, &mut built);
                progress.step(1);
                result.map(|()| built)
            },
        )
        .collect();
    progress.end();
    drop(recipes);
    survey.records = records;
    let mut failure = None;
    for result in results {
        match result {
            Ok(part) => built.add(part),
            Err(error) => failure = Some(error),
        }
    }
    if let Some(failure) = failure {
        // What was done is remembered, all the same.
        survey.writer.settle();
        return Err(failure);
    }
    if scope.whole && !survey.unread {
        prune(project, survey, runtimes, &out, scope, &quiet, &mut built)?;
    }
    built.diagnostics = sorted(std::mem::take(&mut built.diagnostics));
    built.forgotten = survey.writer.settle();
    if scope.whole && !survey.unread && !scope.dry {
        // Once the clock has moved on: what comes and goes from now on leaves a trace.
        let written = survey.writer.ended();
        // Of a customer that is held, nobody may know what is under out/: where nothing was known before, it is looked for
        // again, and so is what it left.
        let held = |folder: &&String| folder.split('/').nth(1).is_some_and(|id| survey.held.contains(id));
        let left: Vec<&String> = survey.left.iter().filter(held).collect();
        let known = |environment: &Environment| {
            let below = format!("{environment}/");
            (survey.held.is_empty() || quiet.contains(environment))
                && !left.iter().any(|folder| folder.starts_with(&below))
        };
        let stamps: Vec<(Environment, Stamp)> = environments()
            .filter(known)
            .filter_map(|environment| Some((environment, stamp(&environment)?)))
            .filter(|(environment, now)| written || recorded(environment) != Some(*now) || !survey.left.is_empty())
            .collect();
        for (environment, now) in stamps {
            survey.writer.folder(environment.as_str(), now);
            survey.manifest.folders.insert(environment.as_str().to_owned(), now);
        }
        survey.left.clear();
        built.forgotten = built.forgotten.take().or(survey.writer.settle());
    }
    if !scope.dry {
        survey.fresh.fill(false);
        survey.changed = false;
    }
    built.why.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(built)
}

impl Built {
    fn add(&mut self, mut other: Built) {
        self.workers += other.workers;
        self.rendered += other.rendered;
        self.unchanged += other.unchanged;
        self.written += other.written;
        self.removed += other.removed;
        self.failed.append(&mut other.failed);
        self.why.append(&mut other.why);
        self.diagnostics.append(&mut other.diagnostics);
    }
}

/// Builds one customer's workers, and remembers what came of it.
#[expect(clippy::too_many_arguments, reason = "one caller, just above")]
fn customer(
    project: &Project,
    survey: &Survey,
    recipes: &Recipes<'_>,
    record: &mut Record,
    fresh: bool,
    out: &Out,
    scope: &Scope<'_>,
    built: &mut Built,
) -> Result<(), Failure> {
    let mut news = fresh;
    if !survey.is_held(record) {
        for at in 0..record.units.len() {
            if !(scope.includes)(record, &record.units[at]) {
                continue;
            }
            built.workers += 1;
            let folder = customer::folder(record.units[at].environment, id(record), record.units[at].role.as_deref());
            let (why, stamped) = reasons(&mut record.units[at], &folder, recipes, out);
            news |= stamped;
            if why.is_empty() {
                let unit = &record.units[at];
                let size = unit.made.as_ref().map_or(0, |made| made.size);
                match recipes.room.check(record.file(), &unit.pack, unit.counted.account(), size) {
                    None => built.unchanged += 1,
                    Some(diagnostic) => {
                        built.workers -= 1;
                        built.diagnostics.push(*diagnostic);
                        built.failed.insert(id(record).to_owned());
                    }
                }
                continue;
            }
            built.rendered += 1;
            let Some(worker) = survey.worker(project, record, &record.units[at]) else {
                // The spec changed under our hands; the next build sees it.
                continue;
            };
            if !scope.dry {
                survey.writer.begin();
            }
            match render(project, recipes, &worker, out) {
                Ok(done) => {
                    let written = done.written.iter().filter(|written| written.differed).count();
                    built.written += written;
                    built.unchanged += usize::from(written == 0);
                    if written > 0 && !scope.dry {
                        survey.writer.wrote();
                    }
                    let unit = &mut record.units[at];
                    let before = unit.made.take();
                    let is_old = |output: &&Output| done.files.iter().all(|(name, _)| *name != output.name);
                    for output in before.iter().flat_map(|before| &before.outputs).filter(is_old) {
                        built.removed += usize::from(out.remove_file(&folder, &output.name)?);
                    }
                    unit.made = Some(made(unit, before, done, why));
                    if scope.explain {
                        built.why.push((folder, explain::last(project, survey, recipes, &record.units[at], &worker)));
                    }
                    news = true;
                }
                Err(Broken::Diagnostic(diagnostic)) => {
                    built.workers -= 1;
                    built.rendered -= 1;
                    built.diagnostics.push(*diagnostic);
                    built.failed.insert(id(record).to_owned());
                    news = true;
                }
                Err(Broken::Failure(failure)) => return Err(failure),
            }
        }
    }
    if news && survey.keeps && !scope.dry {
        survey.writer.record(record.clone());
    }
    Ok(())
}

/// Why a worker is out of date; nothing, if it isn't. Files that were touched only get their new stamps: the second value
/// says whether there were any. This is the one place where it is decided, for `build` as well as for `explain`.
fn reasons(unit: &mut Unit, folder: &str, recipes: &Recipes<'_>, out: &Out) -> (Vec<Why>, bool) {
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

/// What rendering a worker gave.
struct Done {
    /// When it began.
    start: SystemTime,
    bundle: Bundle,
    recipe: Mark,
    partials: u64,
    /// The bytes of the module.
    size: u64,
    /// The names and digests of the files.
    files: Vec<(String, Mark)>,
    written: Vec<crate::out::Written>,
}

fn made(unit: &Unit, before: Option<Made>, done: Done, why: Vec<Why>) -> Made {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let outputs = done.files.into_iter().zip(&done.written).map(|((name, content), written)| Output {
        name,
        content,
        stamp: match &written.metadata {
            Some(metadata) if written.differed => Stamp::of(metadata),
            // Somebody else wrote it, perhaps just now.
            Some(metadata) => Stamp::settled(metadata, done.start),
            None => Stamp::NONE,
        },
    });
    Made {
        from: unit.resolved,
        value: unit.value,
        recipe: done.recipe,
        partials: done.partials,
        size: done.size,
        outputs: outputs.collect(),
        bundle: done.bundle.digest.to_bytes(),
        module: done.bundle.module.to_bytes(),
        at: i64::try_from(since.as_secs()).unwrap_or_default(),
        why,
        before: before.map(|before| (before.from, before.value, before.recipe)),
    }
}

enum Broken {
    Diagnostic(Box<Diagnostic>),
    Failure(Failure),
}

/// Renders one worker and writes its folder.
fn render(project: &Project, recipes: &Recipes<'_>, worker: &Worker, out: &Out) -> Result<Done, Broken> {
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

/// Removes what no worker owns. A customer with errors keeps its folders, and so do all runtimes as long as one
/// might import them.
fn prune(
    project: &Project,
    survey: &Survey,
    runtimes: &Runtimes,
    out: &Out,
    scope: &Scope<'_>,
    quiet: &[Environment],
    built: &mut Built,
) -> Result<(), Failure> {
    let environments = project.fleet.environments();
    let all: Vec<Environment> =
        environments.iter().copied().filter(|environment| !quiet.contains(environment)).collect();
    if !all.is_empty() || !survey.left.is_empty() {
        let units = survey.records.iter().flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
        let mut owned: HashSet<String> = units.map(|(record, unit)| survey::folder(record, unit)).collect();
        for customer in &survey.held {
            owned.extend(environments.iter().map(|environment| format!("{environment}/{customer}/")));
        }
        let mut names: HashSet<String> =
            project.fleet.packs.values().flat_map(|pack| pack.file_names().map(str::to_owned)).collect();
        names.extend(survey.manifest.recipes.values().flat_map(|recipe| recipe.files.iter().cloned()));
        for environment in all {
            built.removed += out.prune(environment, &owned, &names)?;
        }
        // What an earlier build left is known by name: no need to look for it.
        for folder in &survey.left {
            let customer = folder.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
            if !owned.contains(folder) && !owned.contains(&format!("{customer}/")) {
                built.removed += usize::from(out.prune_folder(folder, &names)?);
            }
        }
        if built.removed > 0 && !scope.dry {
            survey.writer.wrote();
        }
    }
    if survey.held.is_empty() && built.diagnostics.is_empty() {
        let keep = runtimes
            .values()
            .map(|runtime| runtime.file.trim_start_matches("runtime/").trim_end_matches(".js").to_owned())
            .collect();
        built.removed += out.prune_runtimes(&keep)?;
    }
    Ok(())
}

/// The fleet with all of its workers in memory: for what looks at each of them.
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Its customers.
    pub survey: Survey,
    /// The workers of all valid customers, sorted by environment and customer.
    pub workers: Vec<Worker>,
}

/// Opens and surveys a project, and reads all workers; writes nothing.
pub fn load(root: &Path, progress: &dyn Progress) -> Result<Loaded, Vec<Diagnostic>> {
    let project = open(Tree::new(root), progress)?;
    let mut survey = survey(&project, false, progress)?;
    let workers = survey.workers(&project);
    Ok(Loaded { project, survey, workers })
}
