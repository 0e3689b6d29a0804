//! The static assets of a pack: their folder, and how they answer. Read from pack.yaml, or from the configuration of a wrangler project; the
//! files are read by a build.

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use flotilla_assets::routing;
use flotilla_model::assets::{AssetOptions, WorkerFirst};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::plain_file;
use flotilla_model::spec::PackAssetsFile;

use super::wrangler::relative;
use crate::tree::Tree;
use crate::yaml::{Document, Kind, Node};

/// The help for a folder that can't be used.
const FOLDER_HELP: &str =
    "what a fleet deploys must be under the version control of the fleet: move the folder, or the fleet";

/// The static assets of a pack.
#[derive(Clone, Debug)]
pub struct AssetSource {
    /// The settings for serving them.
    pub options: AssetOptions,
    /// Their folder; none: each customer has one of its own.
    pub folder: Option<PathBuf>,
    /// The folder from the project's root, with `/`, for people; it can begin with `..`.
    pub shown: String,
    /// The place that names the folder, or the assets.
    pub place: Place,
    /// Whether there is no code beside them.
    pub is_all: bool,
}

/// The place where the assets of a pack are defined.
struct Written<'a> {
    /// The folder that paths are relative to.
    base: &'a Path,
    /// The folder of the project.
    root: &'a Path,
    /// The folder that assets have to be in.
    workspace: &'a Path,
    /// The name of `run_worker_first` there.
    worker_first: &'static str,
}

/// Reads the assets of a pack.yaml. What is wrong with their form, the schema reports.
pub(super) fn of_pack(
    tree: &Tree,
    pack: &str,
    document: &Document,
    manifest: &Value,
    is_all: bool,
) -> Result<Option<AssetSource>, Vec<Diagnostic>> {
    let Some(value) = manifest.get("assets").filter(|value| !value.is_null()) else { return Ok(None) };
    let Ok(file) = PackAssetsFile::deserialize(value) else { return Ok(None) };
    let root = tree.root.canonicalize().unwrap_or_else(|_| tree.root.clone());
    let workspace = workspace(&root);
    let base = root.join(pack);
    let place = |key: Option<&str>, index: Option<usize>| {
        let index = index.map(|index| index.to_string());
        let path = ["assets"].into_iter().chain(key).chain(index.as_deref());
        document.place_of(path.collect::<Vec<_>>())
    };
    let written = Written { base: &base, root: &root, workspace: &workspace, worker_first: "runWorkerFirst" };
    written.read(file.options(), file.directory.as_deref(), is_all, &place).map(Some)
}

/// Returns the folder within which the files of a project count: its git repository, or the project.
pub(super) fn workspace(root: &Path) -> PathBuf {
    root.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(root).to_owned()
}

/// Reads the assets of a wrangler configuration: `assets`, or `site`, which they took the place of. `folder` is the configuration's.
pub(super) fn of_wrangler(
    document: &Document,
    (assets, site): (Option<&Node>, Option<&Node>),
    (root, workspace, folder): (&Path, &Path, &Path),
    is_all: bool,
) -> Result<Option<AssetSource>, Vec<Diagnostic>> {
    let is_set = |node: &&Node| !matches!(node.kind, Kind::Null | Kind::Empty);
    let (node, is_site) = match (assets.filter(is_set), site.filter(is_set)) {
        (Some(node), _) => (node, false),
        (None, Some(node)) => (node, true),
        (None, None) => return Ok(None),
    };
    let directory_key = if is_site { "bucket" } else { "directory" };
    let find = |key: &str| {
        let key = match key {
            "directory" => directory_key,
            "runWorkerFirst" => "run_worker_first",
            key => key,
        };
        node.get(key)
    };
    let place = |key: Option<&str>, index: Option<usize>| {
        let found = key.and_then(find);
        let item = found.zip(index).and_then(|(node, index)| match &node.kind {
            Kind::List(items) => items.get(index),
            _ => None,
        });
        document.place(item.or(found).unwrap_or(node).span)
    };
    let error = |node: &Node, code: Code, message: String, help: &str| {
        vec![Diagnostic::error(code, document.place(node.span), message, help)]
    };
    let mut fields = Map::new();
    let known: &[(&str, &str)] = match is_site {
        true => &[("bucket", "directory")],
        false => &[
            ("directory", "directory"),
            ("binding", "binding"),
            ("html_handling", "htmlHandling"),
            ("not_found_handling", "notFoundHandling"),
            ("run_worker_first", "runWorkerFirst"),
        ],
    };
    let Kind::Map(entries) = &node.kind else {
        let message = format!("`{}` isn't a table", if is_site { "site" } else { "assets" });
        return Err(error(node, Code::BadWranglerConfig, message, "see wrangler's documentation"));
    };
    for (key, _, value) in entries {
        match known.iter().find(|(name, _)| name == key) {
            Some((_, name)) => drop(fields.insert((*name).to_owned(), value.to_value())),
            // wrangler finds the entry point by itself.
            None if is_site && key == "entry-point" => {}
            None => {
                let what = if is_site { "site" } else { "assets" };
                let message = format!("`{what}.{key}` is a setting that flotilla can't deploy yet");
                let help = match is_site {
                    true => "move the files to `assets`, and name those that are left out in its .assetsignore",
                    false => "keep deploying this worker with `wrangler deploy`, or remove the setting",
                };
                return Err(error(value, Code::CannotDeploy, message, help));
            }
        }
    }
    let file = PackAssetsFile::deserialize(Value::Object(fields)).map_err(|found| {
        let message = format!("the static assets can't be read: {found}");
        error(node, Code::BadWranglerConfig, message, "see wrangler's documentation of `assets`")
    })?;
    let written = Written { base: folder, root, workspace, worker_first: "run_worker_first" };
    written.read(file.options(), file.directory.as_deref(), is_all, &place).map(Some)
}

impl Written<'_> {
    fn read(
        &self,
        options: AssetOptions,
        directory: Option<&str>,
        is_all: bool,
        place: &dyn Fn(Option<&str>, Option<usize>) -> Place,
    ) -> Result<AssetSource, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut add = |code: Code, place: Place, message: String, help: &str| {
            errors.push(Diagnostic::error(code, place, message, help));
        };
        let own = if directory.is_some() { place(Some("directory"), None) } else { place(None, None) };
        let folder = directory.map(|directory| plain_file::without_dots(&self.base.join(directory)));
        if let Some(folder) = &folder {
            if !folder.starts_with(self.workspace) {
                let message = format!(
                    "the assets are outside of what belongs to this project: they must be in {}",
                    self.workspace.display()
                );
                add(Code::BadAssets, own.clone(), message, FOLDER_HELP);
            } else if self.root.starts_with(folder) {
                let message = "the folder of the assets holds the fleet itself, which would be published".to_owned();
                add(Code::BadAssets, own.clone(), message, "name a folder with nothing but what is published");
            }
        }
        if is_all && options.binding.is_some() {
            let message = "a binding to the assets without code that could use it".to_owned();
            add(Code::Conflict, place(Some("binding"), None), message, "remove `binding`, or add the code");
        }
        if is_all && options.run_worker_first.as_ref().is_some_and(|first| *first != WorkerFirst::All(false)) {
            let message = format!("`{}` without code that could run first", self.worker_first);
            add(Code::Conflict, place(Some("runWorkerFirst"), None), message, "remove it, or add the code");
        }
        if let Some(WorkerFirst::Paths(rules)) = &options.run_worker_first {
            for (index, message) in routing::faults(rules) {
                let message = format!("`{}`: {message}", self.worker_first);
                let help = "its rules are paths such as `/api/*`, and exceptions from them such as `!/api/docs/*`";
                add(Code::BadAssets, place(Some("runWorkerFirst"), index), message, help);
            }
        }
        let shown = folder.as_deref().map(|folder| relative(self.root, folder)).unwrap_or_default();
        match errors.is_empty() {
            true => Ok(AssetSource { options, folder, shown, place: own, is_all }),
            false => Err(errors),
        }
    }
}
