//! The folders that a watch listens to. They stay watched whatever happens to them: a watch belongs to a folder of the file system,
//! not to its name, and a branch switch, a replaced pack or `rm -rf` puts another folder there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};

use flotilla_model::failure::Failure;
use flotilla_spec::project::{CUSTOMERS, FLEET_FILE, LAYERS, named_folders, wrangler_folders};
use flotilla_spec::tree::Tree;

/// A folder as the file system knows it: device, inode, and when it was made. Another one of the same name may well have the same inode:
/// file systems use them again.
type Identity = (u64, u64, Option<SystemTime>);

/// The folders that are watched.
pub(super) struct Folders<W: Watcher = RecommendedWatcher> {
    root: PathBuf,
    watcher: W,
    watched: BTreeMap<PathBuf, (bool, Identity)>,
    /// The folders that hold what is built: those of customers, layers, packs and env files, whether or not they are there.
    inputs: Vec<PathBuf>,
    /// The folders of the sources that wrangler bundled, as the last build knows them.
    sources: BTreeSet<PathBuf>,
}

/// The most folders of wrangler projects that are watched.
const MOST_FOLDERS: usize = 10_000;

/// Returns whether a folder of a wrangler project holds no sources: installed packages, and what tools keep.
fn is_skipped(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name == "node_modules"
}

/// Returns a folder and those below it, without those that hold no sources.
fn below(folder: PathBuf) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder]);
    while let Some(folder) = open.pop().filter(|_| found.len() < MOST_FOLDERS) {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders =
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        open.extend(folders.filter(|path| !is_skipped(path)));
        found.push(folder);
    }
    found
}

impl<W: Watcher> Folders<W> {
    pub(super) fn new(root: &Path, watcher: W) -> Folders<W> {
        Folders {
            root: root.to_owned(),
            watcher,
            watched: BTreeMap::new(),
            inputs: Vec::new(),
            sources: BTreeSet::new(),
        }
    }

    /// Sets the folders of the sources that wrangler bundled.
    pub(super) fn set_sources(&mut self, sources: BTreeSet<PathBuf>) {
        self.sources = sources;
    }

    /// Watches the folders that fleet.yaml names now, each as it is now, and the folders above them, in which one that is missing
    /// would appear. `touched`: the paths of events; a watched folder among them may be another by now, and the empty path means that
    /// events were lost. Returns whether a folder is another than before, has come or has gone.
    pub(super) fn follow(&mut self, touched: &[PathBuf]) -> Result<bool, Failure> {
        let named = named_folders(&Tree::new(&self.root));
        let shallow = [CUSTOMERS, LAYERS].map(|name| self.root.join(name));
        let deep: Vec<PathBuf> = named.iter().map(|name| self.root.join(name)).collect();
        self.inputs = shallow.iter().chain(&deep).cloned().collect();
        // Whether what is below is watched as well.
        let mut wanted: BTreeMap<PathBuf, bool> = BTreeMap::from([(self.root.clone(), false)]);
        for input in &self.inputs {
            let above = input.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root));
            wanted.extend(above.map(|folder| (folder.to_owned(), false)));
        }
        wanted.extend(shallow.into_iter().map(|folder| (folder, false)));
        wanted.extend(deep.into_iter().map(|folder| (folder, true)));
        // Of a wrangler project folder by folder, as installed packages are too many to be watched.
        let projects = wrangler_folders(&Tree::new(&self.root));
        for folder in projects.into_iter().flat_map(below).chain(self.sources.iter().cloned()) {
            self.inputs.push(folder.clone());
            wanted.entry(folder).or_insert(false);
        }
        let mut moved = false;
        let known: Vec<PathBuf> = self.watched.keys().cloned().collect();
        let are_lost = touched.iter().any(|path| path.as_os_str().is_empty());
        for folder in known {
            let is_touched = are_lost || touched.contains(&folder);
            let now = wanted.get(&folder).map(|deep| (*deep, identity(&folder)));
            if is_touched || now != self.watched.get(&folder).map(|(deep, identity)| (*deep, Some(*identity))) {
                // What is gone can't be forgotten twice.
                let _ = self.watcher.unwatch(&folder);
                self.watched.remove(&folder);
                moved = true;
            }
        }
        for (folder, deep) in wanted {
            // Before the watch begins: if the folder is replaced meanwhile, the next look finds another one.
            let Some(identity) = identity(&folder).filter(|_| !self.watched.contains_key(&folder)) else { continue };
            let mode = if deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            match self.watcher.watch(&folder, mode) {
                Ok(()) => drop(self.watched.insert(folder, (deep, identity))),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(cannot(&error)),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Returns whether a path is one of the inputs, within one, or a folder above one.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        if [".wrangler", "node_modules"].iter().any(|name| path.components().any(|step| step.as_os_str() == *name)) {
            return false;
        }
        path == self.root.join(FLEET_FILE)
            || self.inputs.iter().any(|input| path.starts_with(input) || (input.starts_with(path) && path != self.root))
    }
}

fn identity(folder: &Path) -> Option<Identity> {
    fs::metadata(folder)
        .ok()
        .filter(fs::Metadata::is_dir)
        .map(|metadata| (metadata.dev(), metadata.ino(), metadata.created().ok()))
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

pub(super) fn cannot(error: &notify::Error) -> Failure {
    Failure::new(format!("the project can't be watched: {error}"))
        .hint("on Linux, fs.inotify.max_user_watches limits how much can be watched")
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::{Config, EventHandler, NullWatcher, WatcherKind};

    /// A watcher that can't watch anything.
    #[derive(Debug)]
    struct Full;

    impl Watcher for Full {
        fn new<F: EventHandler>(_: F, _: Config) -> notify::Result<Full> {
            Ok(Full)
        }
        fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
            Err(notify::Error::new(ErrorKind::MaxFilesWatch))
        }
        fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
            Ok(())
        }
        fn kind() -> WatcherKind {
            WatcherKind::NullWatcher
        }
    }

    #[test]
    fn another_folder_of_the_same_name_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(
            root.join(FLEET_FILE),
            "name: x\npacks: { p: { path: a/b/p }, out: { path: ../x }, all: { path: . } }\n",
        )
        .unwrap();
        fs::create_dir_all(root.join("a/b/p")).unwrap();
        let mut folders = Folders::new(root, NullWatcher);
        assert!(folders.follow(&[]).unwrap());
        assert!(!folders.follow(&[]).unwrap(), "nothing moved");
        let watched: Vec<String> =
            folders.watched.keys().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect();
        assert_eq!(watched, ["", "a", "a/b", "a/b/p"]);
        // At each level, and also if it is away when it is looked for.
        for level in ["a/b/p", "a/b", "a"] {
            fs::rename(root.join(level), root.join("aside")).unwrap();
            assert!(folders.follow(&[]).unwrap(), "{level} is gone");
            fs::rename(root.join("aside"), root.join(level)).unwrap();
            assert!(folders.follow(&[]).unwrap(), "{level} is back");
            fs::create_dir(root.join("new")).unwrap();
            fs::rename(root.join(level), root.join("aside")).unwrap();
            fs::rename(root.join("new"), root.join(level)).unwrap();
            assert!(folders.follow(&[]).unwrap(), "{level} is another");
            fs::remove_dir(root.join(level)).unwrap();
            fs::rename(root.join("aside"), root.join(level)).unwrap();
            folders.follow(&[]).unwrap();
        }
        // Also where nothing tells it from the one before, as with an inode that is used again.
        assert!(folders.follow(&[root.join("a/b/p/x"), root.join("a/b")]).unwrap());
        assert!(!folders.follow(&[root.join("a/b/p/x")]).unwrap());
        assert!(folders.follow(&[PathBuf::new()]).unwrap());
        fs::create_dir(root.join(CUSTOMERS)).unwrap();
        assert!(folders.follow(&[]).unwrap(), "customers appears");
        for (path, concerns) in [
            ("fleet.yaml", true),
            ("customers", true),
            ("customers/a.yaml", true),
            ("layers", true),
            ("a", true),
            ("a/b/p/src/x.js", true),
            ("a/c", false),
            ("out/production/a/index.ts", false),
            (".flotilla/build/log", false),
            ("", false),
        ] {
            assert_eq!(folders.concerns(&root.join(path)), concerns, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_watched_ends_the_watch() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Folders::new(folder.path(), Full).follow(&[]).unwrap_err();
        assert!(failure.hints[0].contains("max_user_watches"), "{failure:?}");
    }
}
