//! A project, opened: fleet.yaml, its layers and packs, and the list of customers' files. Resolves single customers; knows
//! nothing of earlier builds and writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::future_dates::{FutureDates, today};
use crate::assets::{AssetFolder, Found, Remembered};
use crate::git;
use crate::manifest::{Input, Stamp};
use crate::policy::Policy;
use crate::provenance::ProvenanceLookup;
use crate::render::{TOOL, Templates, syntax_errors};
use crate::renderer::Renderer;
use crate::resolve::{self, NamedFolder, Resolved, Shared};
use flotilla_model::bundle::PackBundle;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, Severity};
use flotilla_model::digest::{Framed, ShortHash};
use flotilla_model::preview::Preview;
use flotilla_model::spec::{DOTENV, SecretSource};
use flotilla_spec::project::{self, Fleet, Reading, SpecFiles};
use flotilla_spec::schema::Checker;
use flotilla_spec::secrets;
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
    /// Files with secrets in plain text that git tracks.
    pub(super) committed_secrets: Vec<Diagnostic>,
    /// The schema of customers' files; compiled when the first one is read.
    checker: OnceLock<&'static Checker>,
    /// The folder of out/ and of the manifest.
    output_root: PathBuf,
}

/// Returns a warning for each of the project's dotenv files that git tracks.
fn committed_secrets(tree: &Tree, fleet: &Fleet) -> Vec<Diagnostic> {
    let listed = |(index, source): (usize, &SecretSource)| {
        let place = || fleet.document.place_of(["secrets", index.to_string().as_str(), "dotenv"]);
        Some((source.dotenv.clone()?, place()))
    };
    let files: Vec<(String, Place)> = match &fleet.file.secrets {
        Some(sources) => sources.iter().enumerate().filter_map(listed).collect(),
        None if fleet.lacks("secrets") => Vec::new(),
        None => vec![(DOTENV.to_owned(), Place::file(DOTENV))],
    };
    let files = files.into_iter().flat_map(|(path, place)| {
        secrets::files_by_environment(&tree.root, &path).into_values().map(move |path| (path, place.clone()))
    });
    let warning = |(path, place): (String, Place)| {
        let file = tree.root.join(&path);
        let (message, help) = match file.is_file().then(|| git::is_tracked(&file))? {
            Ok(false) => return None,
            Ok(true) => (
                format!("git tracks {path}, which contains secrets in plain text"),
                format!("replace its secrets, add it to .gitignore, and remove it from git: git rm --cached {path}"),
            ),
            Err(failure) => (
                format!("whether git tracks {path}, which contains secrets in plain text, is not known: {failure}"),
                failure.hints.first().cloned().unwrap_or_else(|| "make `git status` work in this folder".to_owned()),
            ),
        };
        Some(Diagnostic::warning(Code::TrackedSecrets, place, message, help))
    };
    files.filter_map(warning).collect()
}

/// Reads the folders with assets that workers name, and gives the workers their lists.
pub(super) fn read_assets(tree: &Tree, resolved: &mut Resolved) {
    let mut folders = std::mem::take(&mut resolved.asset_folders);
    folders.sort_by(|a, b| a.directory.cmp(&b.directory));
    folders.dedup_by(|a, b| a.directory == b.directory && a.place == b.place && a.most == b.most);
    let mut lists = BTreeMap::new();
    for folder in folders {
        let NamedFolder { directory, place, html_handling, most } = &folder;
        let path = tree.root.join(directory);
        let asset_folder =
            AssetFolder { path: &path, shown: directory, place, html_handling: *html_handling, most: *most };
        match asset_folder.read(&mut Remembered::default()) {
            Ok(Found { list, inputs }) => {
                let input = |(path, stamp): (String, Stamp)| {
                    let file = format!("{directory}/{path}").trim_end_matches('/').to_owned();
                    // What its bytes are, the list says; a stamp that isn't the same has it read again.
                    Input { file, stamp, content: Some(ShortHash::default()) }
                };
                resolved.asset_inputs.extend(inputs.into_iter().map(input));
                lists.insert(directory.clone(), list);
            }
            Err(errors) => {
                let errors =
                    errors.into_iter().filter(|error| !resolved.diagnostics.contains(error)).collect::<Vec<_>>();
                resolved.diagnostics.extend(errors);
            }
        }
    }
    for own in resolved.workers.iter_mut().filter_map(|worker| worker.assets.as_mut()?.own.as_mut()) {
        if let Some(list) = lists.get(&own.directory) {
            own.list = list.clone();
        }
    }
}

impl Project {
    /// Returns the project of a fleet and its customers' files, or a preview of it.
    pub(super) fn new(tree: Tree, mut fleet: Fleet, files: SpecFiles, preview: Option<&Preview>) -> Project {
        let SpecFiles { mut files, unread } = files;
        let (mut output_root, mut other_files) = (tree.root.clone(), Vec::new());
        if let Some(preview) = preview {
            (files, other_files) = files.into_iter().partition(|file| preview.customers.contains(project::id_of(file)));
            output_root.push(project::preview_folder(&preview.id));
            fleet.preview = Some(preview.clone());
        }
        for pack in fleet.broken_packs.values_mut() {
            pack.errors.extend(syntax_errors(&pack.path, &pack.templates, &pack.partials));
        }
        let mut templates = BTreeMap::new();
        for (name, pack) in std::mem::take(&mut fleet.packs) {
            match Templates::new(&pack) {
                Ok(parsed) => {
                    templates.insert(name.clone(), parsed);
                    fleet.packs.insert(name, pack);
                }
                Err(found) => drop(fleet.broken_packs.insert(name, pack.into_broken(found))),
            }
        }
        let packs = templates.into_iter().map(|(name, parsed)| {
            let pack = &fleet.packs[&name];
            (name, pack, parsed)
        });
        let renderer = Renderer::new(packs);
        let mut shared = resolve::shared(&fleet);
        read_assets(&tree, &mut shared.resolved);
        let (policy, broken) = Policy::new(&fleet);
        let committed_secrets = committed_secrets(&tree, &fleet);
        Project {
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
            checker: OnceLock::new(),
            output_root,
        }
    }

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
        read_assets(&self.tree, &mut resolved);
        // A name that is made of what is faulty there is no error of its own.
        let is_made = |found: &Diagnostic| matches!(found.code, Code::UnknownName | Code::BadWorkerName);
        let is_reported = |found: &Diagnostic| reading.diagnostics.iter().any(|other| other.place == found.place);
        resolved.diagnostics.retain(|found| !(is_made(found) && is_reported(found)));
        reading.diagnostics.append(&mut resolved.diagnostics);
        // A worker without errors is judged by the day when it is checked or planned.
        let has_errors = reading.diagnostics.iter().any(|found| found.severity == Severity::Error);
        if has_errors || !resolved.broken_parts.is_empty() {
            let (mut future, today) = (FutureDates::default(), today());
            resolved.workers.iter().chain(&resolved.unusable).for_each(|worker| {
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
