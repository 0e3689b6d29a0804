//! A generated project on disk: made, edited the way people edit, built by flotilla, and measured in files. Doesn't know
//! what it is compared with.
//!
//! Nothing is removed before the end of the stand. For minutes after a file's removal ext4 leaves its inode alone, and
//! looks at each such inode again for every file that it makes: making files then takes several times as long.

use std::fs;
use std::ops::RangeBounds;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde_json::Value;

use crate::fleet;
use crate::process::{self, Sample};

/// A generated project.
pub struct Project {
    folder: PathBuf,
    /// How many customers it has.
    pub customers: usize,
}

/// What a folder holds.
pub struct Size {
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What they and the folders take up on the disk.
    pub disk: u64,
}

impl Project {
    /// Makes a project below the stand's folder.
    pub fn new(name: &str, customers: usize) -> Project {
        let folder = stand().join(std::process::id().to_string()).join(name);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("templates"), &folder.join("templates"));
        let mut project = Project { folder, customers: 0 };
        project.grow(customers);
        project
    }

    /// Writes so many customers, over those that are there.
    pub fn grow(&mut self, customers: usize) {
        eprintln!("writing {customers} customers");
        fleet::write(&self.folder, customers, 0.0).expect("a generated fleet");
        self.customers = customers;
        settle();
    }

    /// A path in the project.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The file of a customer's spec.
    pub fn spec(&self, number: usize) -> PathBuf {
        self.path(&format!("customers/{}.yaml", fleet::id(number)))
    }

    /// Measures a program in the project's folder.
    pub fn measure(&self, mut command: Command) -> (Sample, String) {
        command.current_dir(&self.folder);
        process::measure(command)
    }

    /// Runs flotilla; what it used, and the JSON that it printed.
    pub fn flotilla(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (Sample, Value) {
        let mut command = process::program(env!("CARGO_BIN_EXE_flotilla"));
        command.args(arguments).args(["--quiet", "--format", "json"]).envs(environment.iter().copied());
        let (sample, stdout) = self.measure(command);
        let last = stdout.lines().last().unwrap_or_default();
        (sample, serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {last:?}")))
    }

    /// Builds. It has to write and to remove so many files and folders: a measurement of something else is none.
    pub fn build(&self, written: impl RangeBounds<u64>, removed: impl RangeBounds<u64>) -> Sample {
        let (sample, built) = self.flotilla(&["build"], &[]);
        let count = |what: &str| built[what].as_u64().unwrap_or_else(|| panic!("no number of {what}: {built}"));
        let expected = written.contains(&count("written")) && removed.contains(&count("removed"));
        assert!(expected && count("invalid") == 0, "the build did something else: {built}");
        sample
    }

    /// Builds what is out of date, so that the next build has to do only what is changed from here on.
    pub fn bring_up_to_date(&self) {
        self.build(.., ..);
    }

    /// The first build of all: nothing is there yet.
    pub fn build_cold(&self) -> Sample {
        self.build(2 * self.customers as u64.., 0..=0)
    }

    /// Builds where nothing is to be done.
    pub fn build_nothing(&self) -> Sample {
        self.build(0..=0, 0..=0)
    }

    /// Builds where one spec has changed: two files of each environment.
    pub fn build_one(&self) -> Sample {
        self.build(1..=6, 0..=0)
    }

    /// Writes another text into one spec, the same for the same round.
    pub fn change_spec(&self, number: usize, round: usize) {
        let text = fleet::spec(number, false).expect("a spec");
        let changed = text.replacen("\nname: ", &format!("\nname: Round {round} of "), 1);
        assert_ne!(text, changed, "the spec has no name");
        fs::write(self.spec(number), changed).expect("a spec");
    }

    /// Takes a customer's spec away.
    pub fn take_away(&self, number: usize) {
        fs::remove_file(self.spec(number)).expect("a spec");
    }

    /// Puts a customer's spec back as it was generated.
    pub fn put_back(&self, number: usize) {
        fs::write(self.spec(number), fleet::spec(number, false).expect("a spec")).expect("a spec");
    }

    /// Gives all specs a new time, as `git checkout` does.
    pub fn touch_specs(&self) {
        let now = SystemTime::now();
        (0..self.customers).into_par_iter().for_each(|number| {
            fs::File::open(self.spec(number)).and_then(|file| file.set_modified(now)).expect("a spec");
        });
    }

    /// Changes a default that all customers have; another round, another value.
    pub fn change_default(&self, round: usize) {
        let file = self.path("fleet.yaml");
        let text = fs::read_to_string(&file).expect("fleet.yaml");
        let (before, _) = text.rsplit_once("logLevel: ").expect("a default");
        let changed = format!("{before}logLevel: {}\n", ["warn", "error", "info"][round % 3]);
        assert_ne!(text, changed);
        fs::write(&file, changed).expect("fleet.yaml");
    }

    /// Changes the template of each customer's module.
    pub fn change_template(&self, round: usize) {
        let name = "index.ts.tera";
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/consent").join(name);
        let text = fs::read_to_string(original).expect("the pack's template");
        fs::write(self.path("templates/consent").join(name), format!("{text}// Round {round}\n")).expect("a template");
    }

    /// A folder for what is out of the way, or for what a peer writes; it isn't there yet.
    pub fn aside(&self) -> PathBuf {
        let aside = self.path("aside");
        fs::create_dir_all(&aside).expect("a folder");
        aside.join(entries(&aside).len().to_string())
    }

    /// Moves what builds have left out of the way, so that the next one is a first one.
    pub fn set_aside(&self) {
        let aside = self.aside();
        fs::create_dir(&aside).expect("a folder");
        for name in ["out", ".flotilla"] {
            match fs::rename(self.path(name), aside.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{name}: {error}"),
                _ => {}
            }
        }
        settle();
    }

    /// What a folder of the project holds; nothing, if it doesn't exist.
    pub fn size(&self, path: &str) -> Size {
        size(&self.path(path))
    }
}

/// The folder of all runs of the stand: there is more than one only if a run was interrupted.
pub fn stand() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fleet")
}

/// A file that tells by its time when the stand removed its projects.
fn removed() -> PathBuf {
    stand().with_extension("removed")
}

/// Removes all projects, also those of runs that were interrupted.
pub fn clean() {
    eprintln!("removing {}", stand().display());
    remove(&stand());
    fs::write(removed(), "").expect("a file");
}

/// Whether another run removed its files so lately that making files is slow because of it.
pub fn removed_lately() -> bool {
    // ext4: five minutes for an inode whose removal may not be on the disk yet, and one more.
    const RECENTLY: Duration = Duration::from_secs(360);
    let time = fs::metadata(removed()).and_then(|metadata| metadata.modified());
    time.is_ok_and(|time| time.elapsed().is_ok_and(|ago| ago < RECENTLY))
}

/// Waits until what was written is on the disk, so that no measurement pays for what came before it.
pub fn settle() {
    let status = Command::new("sync").status().expect("sync starts");
    assert!(status.success(), "sync: {status}");
}

/// The paths in a folder, sorted.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort_unstable();
    paths
}

/// The paths of all files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        let (nested, plain): (Vec<_>, Vec<_>) = entries(&folder).into_iter().partition(|path| path.is_dir());
        files.extend(plain);
        open.extend(nested);
    }
    files
}

fn size(path: &Path) -> Size {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Size { files: 0, bytes: 0, disk: 0 };
    };
    let disk = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return Size { files: 1, bytes: metadata.len(), disk };
    }
    let add = |a: Size, b: Size| Size { files: a.files + b.files, bytes: a.bytes + b.bytes, disk: a.disk + b.disk };
    entries(path).iter().map(|entry| size(entry)).fold(Size { files: 0, bytes: 0, disk }, add)
}

/// Removes a folder, if it is there, by all cores at once.
fn remove(folder: &Path) {
    fn within(folder: &Path) {
        entries(folder).par_iter().for_each(|path| {
            if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
                within(path);
            } else {
                fs::remove_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        });
        fs::remove_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    if folder.is_dir() {
        within(folder);
    }
}

/// Copies a folder, without node_modules.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for path in entries(from) {
        let name = path.file_name().expect("a name");
        if path.is_dir() && name != "node_modules" {
            copy(&path, &to.join(name));
        } else if path.is_file() {
            fs::copy(&path, to.join(name)).expect("a file");
        }
    }
}
