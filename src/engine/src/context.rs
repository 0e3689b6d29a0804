//! The context of every run of the engine: a project, perhaps as one of its previews sees it, and an operator. Knows
//! where flotilla keeps its files in a project.

use std::path::{Path, PathBuf};

use flotilla_model::failure::Failure;
use flotilla_model::plain_file;
use flotilla_model::preview::Preview;
use flotilla_spec::project;

use crate::operator::Operator;

/// The folder in which flotilla keeps its files for a project.
pub const FOLDER: &str = ".flotilla";
/// The lock of a deploy, in [`FOLDER`].
pub const LOCK: &str = "deploy.lock";
/// The lock of a deploy that goes ahead of another one.
pub const AHEAD_LOCK: &str = "ahead.lock";
/// The lock of a build.
const BUILD_LOCK: &str = "lock";

/// Checks what flotilla keeps for a project and its previews before anything of it is opened: there are only regular files and folders, and
/// the folder is private. A project that was cloned can have brought something else.
pub fn check_folder(root: &Path) -> Result<(), Failure> {
    let own = root.join(FOLDER);
    let previews = std::fs::read_dir(own.join("previews")).into_iter().flatten().flatten();
    let of_previews = previews.map(|entry| entry.path().join(FOLDER));
    for folder in [own.clone()].into_iter().chain(of_previews) {
        plain_file::refuse_foreign(&folder).map_err(|error| {
            Failure::refused(format!(
                "{error}; flotilla only accepts regular files and folders there; nothing was done"
            ))
            .hint("remove it if nothing needs it; to keep the folder on another disk, mount that disk there")
        })?;
    }
    plain_file::make_private(&own);
    for folder in [own.clone(), own.join("local"), own.join("undo"), own.join("build"), own.join("previews")] {
        if std::fs::symlink_metadata(&folder).is_ok_and(|found| !found.is_dir()) {
            let shown = folder.display();
            return Err(Failure::refused(format!(
                "{shown} is a regular file, but flotilla needs a folder there; nothing was done"
            ))
            .hint("remove it if nothing needs it"));
        }
    }
    Ok(())
}

/// A project, and the operator of the run.
#[derive(Clone)]
pub struct Context<'a> {
    /// The project's folder.
    pub root: PathBuf,
    /// The preview that a run is about; none, if it is about the fleet itself.
    pub preview: Option<Preview>,
    /// The operator of the run.
    pub operator: &'a dyn Operator,
    /// Whether it is no error that there are no customers: the last one is being deleted.
    pub may_have_no_customers: bool,
}

impl<'a> Context<'a> {
    /// A run about the fleet itself.
    pub fn new(root: &Path, operator: &'a dyn Operator) -> Context<'a> {
        Context { root: root.to_owned(), preview: None, operator, may_have_no_customers: false }
    }

    /// The same, about a preview.
    pub fn of_preview(&self, preview: Preview) -> Context<'a> {
        Context { preview: Some(preview), ..self.clone() }
    }

    /// The folder in which out/ and the files of the state lie: the project's, or that of the preview.
    pub fn place(&self) -> PathBuf {
        match &self.preview {
            None => self.root.clone(),
            Some(preview) => self.root.join(project::preview_folder(&preview.id)),
        }
    }

    /// The folder of what flotilla keeps, of the fleet or the preview.
    pub fn folder(&self) -> PathBuf {
        self.place().join(FOLDER)
    }

    /// The file of the lock of builds.
    pub(crate) fn build_lock(&self) -> PathBuf {
        self.place().join(flotilla_build::manifest::FOLDER).join(BUILD_LOCK)
    }
}
