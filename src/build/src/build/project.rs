//! A project, opened: fleet.yaml, its layers and packs, and the list of customers' files. Resolves single customers; knows
//! nothing of earlier builds and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rayon::prelude::*;

use super::future_dates::{FutureDates, today};
use crate::git;
use crate::policy::Policy;
use crate::provenance::ProvenanceLookup;
use crate::render::{TOOL, Templates};
use crate::renderer::Renderer;
use crate::resolve::{self, Resolved, Shared};
use flotilla_model::bundle::PackBundle;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, Severity, sorted};
use flotilla_model::digest::{Framed, ShortHash};
use flotilla_model::preview::Preview;
use flotilla_model::progress::Progress;
use flotilla_model::spec::{DOTENV, Environment, SecretSource};
use flotilla_spec::project::{self, Fleet, Reading};
use flotilla_spec::schema::Checker;
use flotilla_spec::tree::Tree;

/// An opened project: everything that all of its customers share.
pub struct Project {
    /// Its files.
    pub tree: Tree,
    /// fleet.yaml, its layers and packs.
    pub fleet: Fleet,
    /// The customers' files, sorted by name.
    pub files: Vec<String>,
    /// The files of customers that are no part of the preview, if it is one.
    pub(super) other_files: Vec<String>,
    /// An error for each file under customers/ that looks like a spec and isn't read.
    pub unread: Vec<Diagnostic>,
    /// The workers that all customers share.
    pub shared: Shared,
    /// Renders the packs' templates.
    pub(super) renderer: Renderer,
    /// The severity of warnings.
    pub(super) policy: Policy,
    /// The errors in the policy.
    pub(super) broken: Vec<Diagnostic>,
    /// Files with secrets in clear that git tracks.
    pub(super) committed_secrets: Vec<Diagnostic>,
    /// The schema of customers' files; compiled when the first one is read.
    checker: OnceLock<&'static Checker>,
    /// The folder of out/ and of the manifest.
    output_root: PathBuf,
}

/// Opens a project. An error in fleet.yaml, a layer or a pack ends it, with all other errors that can be found.
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
    let referred = resolved.iter().flat_map(|item| &item.refers).map(|(_, to)| to.clone());
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
    preview.hosts.extend(resolved.into_iter().flat_map(|item| item.moved));
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
    let (mut fleet, project::SpecFiles { mut files, unread }) = match (fleet, files) {
        (Ok(fleet), Ok(files)) => (fleet, files),
        (fleet, files) => {
            let mut diagnostics: Vec<Diagnostic> = Vec::new();
            diagnostics.extend(fleet.err().into_iter().flatten());
            match files {
                // What is wrong with the fleet hides nothing of what a spec shows by itself.
                Ok(project::SpecFiles { files, unread }) => {
                    diagnostics.extend(unread);
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
    let (mut output_root, mut other_files) = (tree.root.clone(), Vec::new());
    if let Some(preview) = preview {
        (files, other_files) = files.into_iter().partition(|file| preview.customers.contains(project::id_of(file)));
        output_root.push(project::preview_folder(&preview.id));
        fleet.preview = Some(preview.clone());
    }
    let mut templates = BTreeMap::new();
    for (name, pack) in &fleet.packs {
        match Templates::new(pack) {
            Ok(parsed) => drop(templates.insert(name.clone(), parsed)),
            Err(found) => drop(fleet.broken_packs.insert(name.clone(), found)),
        }
    }
    fleet.packs.retain(|name, _| templates.contains_key(name));
    let packs = templates.into_iter().map(|(name, parsed)| {
        let pack = &fleet.packs[&name];
        (name, pack, parsed)
    });
    let renderer = Renderer::new(packs);
    let shared = resolve::shared(&fleet);
    let (policy, broken) = Policy::new(&fleet.document, &fleet.file);
    let committed_secrets = committed_secrets(&tree, &fleet);
    Ok(Project {
        tree,
        fleet,
        files,
        other_files,
        unread,
        shared,
        renderer,
        policy,
        broken,
        committed_secrets,
        checker,
        output_root,
    })
}

/// Returns a warning for each of the project's dotenv files that git tracks.
fn committed_secrets(tree: &Tree, fleet: &Fleet) -> Vec<Diagnostic> {
    let listed = |(index, source): (usize, &SecretSource)| {
        let place = || fleet.document.place_of(["secrets", index.to_string().as_str(), "dotenv"]);
        Some((source.dotenv.clone()?, place()))
    };
    let files: Vec<(String, Place)> = match &fleet.file.secrets {
        Some(sources) => sources.iter().enumerate().filter_map(listed).collect(),
        None => vec![(DOTENV.to_owned(), Place::file(DOTENV))],
    };
    let files = files.into_iter().flat_map(|(path, place)| {
        let of = |environment: Environment| path.replace("{environment}", environment.as_ref());
        BTreeSet::from(Environment::EACH.map(of)).into_iter().map(move |path| (path, place.clone()))
    });
    let warning = |(path, place): (String, Place)| {
        let file = tree.root.join(&path);
        let (message, help) = match file.is_file().then(|| git::is_tracked(&file))? {
            Ok(false) => return None,
            Ok(true) => (
                format!("git tracks {path}, which has secrets in plain text"),
                format!("replace its secrets, add it to .gitignore, and remove it from git: git rm --cached {path}"),
            ),
            Err(failure) => (
                format!("whether git tracks {path}, which has secrets in plain text, is not known: {failure}"),
                failure.hints.first().cloned().unwrap_or_else(|| "make `git status` work in this folder".to_owned()),
            ),
        };
        Some(Diagnostic::warning(Code::TrackedSecrets, place, message, help))
    };
    files.filter_map(warning).collect()
}

impl Project {
    /// Returns the project's folder.
    pub fn root(&self) -> &Path {
        &self.tree.root
    }

    /// Returns the folder of out/ and of the manifest: the project's, or that of a preview.
    pub fn output_root(&self) -> &Path {
        &self.output_root
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
        resolved.diagnostics.retain(|found| reading.diagnostics.iter().all(|warnings| warnings.place != found.place));
        reading.diagnostics.append(&mut resolved.diagnostics);
        // A worker without errors is judged by the day when it is checked or planned.
        if reading.diagnostics.iter().any(|found| found.severity == Severity::Error) {
            let (mut future, today) = (FutureDates::default(), today());
            resolved.workers.iter().for_each(|worker| {
                future.add(self, worker, &today);
            });
            let found = future.into_diagnostics().into_iter();
            reading.diagnostics.extend(found.filter(|found| found.place.file == file));
        }
        (reading, resolved)
    }

    /// Returns the partials that a worker's templates include, a bit for each: found by rendering it.
    pub fn partials(&self, worker: &Worker) -> u64 {
        let pack = &self.fleet.packs[&worker.pack];
        match pack.partials.is_empty() {
            true => 0,
            // Which bundle it imports doesn't matter to that.
            false => self.renderer.partials(worker, &PackBundle::new(&pack.manifest.name, Vec::new(), Vec::new())),
        }
    }

    /// Looks up the provenance of a worker's values.
    pub fn provenance<T>(&self, worker: &Worker, look: impl FnOnce(&ProvenanceLookup<'_>) -> T) -> T {
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
        look(&ProvenanceLookup { fleet, spec: spec.as_ref(), merged, worker })
    }

    /// Returns the digest of everything beside a customer's own files that decides how it is resolved.
    pub(super) fn context(&self, layers: &[String]) -> Option<ShortHash> {
        let start = Framed::new("context").field(TOOL.as_bytes()).field(&self.fleet.decides.to_bytes());
        let all = layers.iter().try_fold(start, |framed, name| {
            let layer = self.fleet.layers.iter().find(|layer| layer.name == *name)?;
            Some(framed.field(&layer.digest.to_bytes()))
        });
        all.map(|framed| framed.finish().short_hash())
    }
}
