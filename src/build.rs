//! The left half of the line: from files to bundles. Reads the project, resolves, checks, renders and writes out/, in
//! parallel over customers. Knows no platform, no state and no secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::bundle::{self, Bundle, Runtime};
use crate::check;
use crate::customer::Worker;
use crate::diagnostic::{Code, Diagnostic, Place, Severity, sorted};
use crate::failure::Failure;
use crate::out::Out;
use crate::progress::Progress;
use crate::project::{self, Fleet};
use crate::render::Templates;
use crate::resolve::{Claim, resolve};
use crate::runtime;
use crate::schema::Checker;
use crate::trace;
use crate::yaml::Kind;

/// The fleet, resolved and checked.
pub struct Loaded {
    /// The project's folder.
    pub root: PathBuf,
    /// fleet.yaml and its packs.
    pub fleet: Fleet,
    /// Each pack's templates.
    templates: BTreeMap<String, Templates>,
    /// How many customers' files there are.
    pub customers: usize,
    /// The workers of all valid customers, sorted by environment and customer.
    pub workers: Vec<Worker>,
    /// The ids of customers with errors: their workers are held as they are. Among them the ids that stand in files of
    /// other names, as these may be customers of old.
    pub held: BTreeSet<String>,
    /// Whether a file could not be read at all. Whose it is isn't known then, and so no customer counts as gone.
    pub unread: bool,
    /// How many customers have errors.
    pub invalid: usize,
    /// The author's mistakes, sorted.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads, resolves and checks a project. An error of fleet.yaml or a pack ends it; a customer's error holds that
/// customer.
pub fn load(root: &Path, progress: &dyn Progress) -> Result<Loaded, Vec<Diagnostic>> {
    progress.begin("reading the fleet", None);
    let checker = Checker::customer();
    let (fleet, files) = match (project::read_fleet(root), project::spec_files(root)) {
        (Ok(fleet), Ok(files)) => (fleet, files),
        (fleet, files) => {
            let mut diagnostics: Vec<Diagnostic> = Vec::new();
            diagnostics.extend(fleet.err().into_iter().flatten());
            match files {
                // What is wrong with the fleet hides nothing of what a spec shows by itself.
                Ok(files) => {
                    let read = |file: &String| project::read_spec(root, file, &checker).1;
                    diagnostics.par_extend(files.par_iter().flat_map_iter(read));
                }
                Err(missing) => diagnostics.extend(missing),
            }
            return Err(sorted(diagnostics));
        }
    };
    let mut templates = BTreeMap::new();
    let mut broken = Vec::new();
    for (name, pack) in &fleet.packs {
        match Templates::new(pack) {
            Ok(parsed) => {
                templates.insert(name.clone(), parsed);
            }
            Err(found) => broken.extend(found),
        }
    }
    progress.begin("reading customers", Some(files.len() as u64));
    let mut read: Vec<One> = files
        .par_iter()
        .map(|file| {
            let _span = trace::span("read and resolve", file);
            let one = one(root, file, &fleet, &checker);
            progress.step(1);
            one
        })
        .collect();
    progress.end();

    let mut diagnostics = broken.clone();
    let mut held = BTreeSet::new();
    let mut claims = Vec::new();
    let mut workers = Vec::new();
    for one in &mut read {
        if one.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
            held.insert(one.id.clone());
        } else {
            workers.append(&mut one.workers);
        }
        diagnostics.append(&mut one.diagnostics);
        claims.append(&mut one.claims);
    }
    let unread = read.iter().any(|one| one.unread);
    let renamed: Vec<String> = read.iter_mut().filter_map(|one| one.written.take()).collect();
    drop(read);
    let mut first: HashMap<&str, &str> = HashMap::new();
    for file in &files {
        let id = project::id_of(file);
        if let Some(other) = first.insert(id, file) {
            held.insert(id.to_owned());
            let message = format!("{other} has the same id");
            let help = "keep one of the two files";
            diagnostics.push(Diagnostic::error(Code::DuplicateId, Place::file(file), message, help));
        }
    }
    let contested = check::claims(&mut claims);
    let places: HashSet<&Place> = contested.iter().map(|diagnostic| &diagnostic.place).collect();
    held.extend(claims.iter().filter(|claim| places.contains(&claim.place)).map(|claim| claim.by.0.clone()));
    diagnostics.extend(contested);
    let invalid = held.len();
    held.extend(renamed.into_iter().filter(|id| !first.contains_key(id.as_str())));
    workers.retain(|worker| !held.contains(&worker.customer));
    workers.sort_by(|a, b| (a.environment, &a.customer).cmp(&(b.environment, &b.customer)));
    let full = check::accounts(&fleet, &workers);
    if !broken.is_empty() || !full.is_empty() {
        diagnostics.extend(full);
        return Err(sorted(diagnostics));
    }
    Ok(Loaded {
        root: root.to_owned(),
        fleet,
        templates,
        customers: files.len(),
        workers,
        held,
        unread,
        invalid,
        diagnostics: sorted(diagnostics),
    })
}

struct One {
    /// The id that the file's name gives.
    id: String,
    /// The id that stands in the file, if it is another: perhaps the file alone was renamed, and this is its customer.
    written: Option<String>,
    /// Whether nothing of the file could be read.
    unread: bool,
    workers: Vec<Worker>,
    claims: Vec<Claim>,
    diagnostics: Vec<Diagnostic>,
}

fn one(root: &Path, file: &str, fleet: &Fleet, checker: &Checker) -> One {
    let id = project::id_of(file).to_owned();
    let (spec, mut diagnostics) = project::read_spec(root, file, checker);
    let Some(spec) = spec else {
        return One { id, written: None, unread: true, workers: Vec::new(), claims: Vec::new(), diagnostics };
    };
    let written = match spec.document.root.get("id").map(|node| &node.kind) {
        Some(Kind::Text(written)) if *written != id => Some(written.clone()),
        _ => None,
    };
    let mut resolved = resolve(fleet, &spec);
    // Of one place, the first thing that is wrong is enough.
    resolved.diagnostics.retain(|found| diagnostics.iter().all(|told| told.place != found.place));
    diagnostics.append(&mut resolved.diagnostics);
    One { id, written, unread: false, workers: resolved.workers, claims: resolved.claims, diagnostics }
}

/// The runtimes by pack.
pub type Runtimes = HashMap<String, Runtime>;

/// The runtimes of the packs that workers use: from the cache, or bundled now.
pub fn runtimes(loaded: &Loaded, progress: &dyn Progress) -> Result<Runtimes, runtime::Error> {
    let used: BTreeSet<&str> = loaded.workers.iter().map(|worker| worker.pack.as_str()).collect();
    used.into_iter()
        .map(|name| Ok((name.to_owned(), runtime::runtime(name, &loaded.fleet.packs[name], progress)?)))
        .collect()
}

/// What a build did.
#[derive(Default)]
pub struct Built {
    /// The bundles of the loaded workers, in their order; none where rendering failed.
    pub bundles: Vec<Option<Bundle>>,
    /// Files that were written, or would be.
    pub written: usize,
    /// Workers none of whose files differed.
    pub unchanged: usize,
    /// Folders and runtimes that were removed, or would be.
    pub removed: usize,
    /// What the templates' author did wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// Which part of the fleet a build is for.
pub struct Scope<'a> {
    /// Whether a worker belongs to it.
    pub includes: &'a (dyn Fn(&Worker) -> bool + Sync),
    /// Whether it is the whole fleet, so that what no worker owns can go.
    pub whole: bool,
    /// Count what differs, and write nothing.
    pub dry: bool,
}

/// Renders the workers and writes out/.
pub fn build(
    loaded: &Loaded,
    runtimes: &Runtimes,
    scope: &Scope<'_>,
    progress: &dyn Progress,
) -> Result<Built, Failure> {
    let out = Out::new(&loaded.root, scope.dry);
    let mut built = Built::default();
    for runtime in runtimes.values() {
        let (folder, file) = runtime.file.split_once('/').expect("BUG: a runtime has a folder");
        let types = file.replace(".js", ".d.ts");
        built.written += out.write_folder(folder, &[(file, &runtime.script), (&types, &runtime.types)])?;
    }
    progress.begin("building", Some(loaded.workers.len() as u64));
    let results: Vec<Result<Option<(Bundle, usize)>, Broken>> = loaded
        .workers
        .par_iter()
        .map(|worker| {
            let _span = trace::span("render and write", &worker.name);
            let result = if (scope.includes)(worker) {
                render(loaded, runtimes, worker, Some(&out)).map(Some)
            } else {
                Ok(None)
            };
            progress.step(1);
            result
        })
        .collect();
    progress.end();
    for result in results {
        match result {
            Ok(Some((bundle, 0))) => {
                built.unchanged += 1;
                built.bundles.push(Some(bundle));
            }
            Ok(Some((bundle, written))) => {
                built.written += written;
                built.bundles.push(Some(bundle));
            }
            Ok(None) => built.bundles.push(None),
            Err(Broken::Diagnostic(diagnostic)) => {
                built.diagnostics.push(*diagnostic);
                built.bundles.push(None);
            }
            Err(Broken::Failure(failure)) => return Err(failure),
        }
    }
    if scope.whole && !loaded.unread {
        prune(loaded, runtimes, &out, &mut built)?;
    }
    built.diagnostics = sorted(std::mem::take(&mut built.diagnostics));
    Ok(built)
}

enum Broken {
    Diagnostic(Box<Diagnostic>),
    Failure(Failure),
}

/// Renders one worker; with `out`, writes its folder and says how many files differed.
fn render(loaded: &Loaded, runtimes: &Runtimes, worker: &Worker, out: Option<&Out>) -> Result<(Bundle, usize), Broken> {
    let (module, bundle) = module(loaded, runtimes, worker).map_err(Broken::Diagnostic)?;
    let Some(out) = out else { return Ok((bundle, 0)) };
    let pack = &loaded.fleet.packs[&worker.pack];
    let specifier = runtimes[&worker.pack].specifier();
    let mut files = vec![(pack.module(), module)];
    for name in pack.file_names().filter(|name| *name != pack.module()) {
        let text = loaded.templates[&worker.pack]
            .render(name, worker, &specifier, Some(&bundle.digest))
            .map_err(Broken::Diagnostic)?;
        files.push((name, text));
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let written = out.write_folder(&worker.folder(), &files).map_err(Broken::Failure)?;
    Ok((bundle, written))
}

/// Renders a worker's module and makes its bundle.
pub fn module(loaded: &Loaded, runtimes: &Runtimes, worker: &Worker) -> Result<(String, Bundle), Box<Diagnostic>> {
    let runtime = &runtimes[&worker.pack];
    let name = loaded.fleet.packs[&worker.pack].module();
    let module = loaded.templates[&worker.pack].render(name, worker, &runtime.specifier(), None)?;
    let bundle = bundle::bundle(worker, &module, runtime);
    Ok((module, bundle))
}

/// Removes what no worker owns. A customer with errors keeps its folders, and so do all runtimes as long as one
/// might import them.
fn prune(loaded: &Loaded, runtimes: &Runtimes, out: &Out, built: &mut Built) -> Result<(), Failure> {
    let mut owned: HashSet<String> = loaded.workers.iter().map(Worker::folder).collect();
    for customer in &loaded.held {
        owned.extend(crate::spec::Environment::ALL.iter().map(|environment| format!("{environment}/{customer}")));
    }
    let names: HashSet<String> =
        loaded.fleet.packs.values().flat_map(|pack| pack.file_names().map(str::to_owned).collect::<Vec<_>>()).collect();
    built.removed += out.prune(&owned, &names)?;
    if loaded.held.is_empty() && built.diagnostics.is_empty() {
        let keep = runtimes
            .values()
            .map(|runtime| runtime.file.trim_start_matches("runtime/").trim_end_matches(".js").to_owned())
            .collect();
        built.removed += out.prune_runtimes(&keep)?;
    }
    Ok(())
}
