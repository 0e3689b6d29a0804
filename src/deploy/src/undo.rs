//! The undo journal: the changes that a command has made so far, and how they are undone: files as they were, and
//! databases that were created. A change is noted on disk before it is made, so that the journal of a killed process
//! is complete. Knows no cloud: the caller deletes databases.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;

/// The folder of the journal and of the copies of files, below the project's.
const FOLDER: &str = ".flotilla/undo";
/// The lock of the process that writes the journal.
const LOCK: &str = ".flotilla/undo.lock";
/// The version of the journal's format.
const VERSION: u8 = 1;

/// The changes of a command, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Journal {
    version: u8,
    /// The command, in words: `new acme`.
    pub what: String,
    /// The time at which it began, in seconds since 1970.
    pub at: i64,
    steps: Vec<Step>,
}

/// One change that was made, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// A file was written.
    File {
        path: PathBuf,
        /// The name of the copy of its former content; none where there was no file.
        kept: Option<String>,
        /// The digest of what was written, once that is known.
        written: Option<String>,
        /// The folders that were created for it, the outermost first.
        folders: Vec<PathBuf>,
    },
    /// A database was created.
    Database(CreatedDatabase),
}

/// A D1 database that was created, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedDatabase {
    /// The account's id.
    pub account_id: String,
    /// Its name, which no database of the account had before.
    pub name: String,
    /// Its id, once that is known.
    pub id: Option<String>,
}

/// The journal of a running command. One at a time in a project.
pub struct Undo {
    root: PathBuf,
    journal: Journal,
    _lock: Lock,
}

/// A change that could not be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The change.
    pub what: String,
    /// A hint on how to undo it by hand.
    pub hint: String,
}

impl Journal {
    /// Describes the changes, the last first.
    pub fn descriptions(&self, root: &Path) -> Vec<String> {
        let describe = |step: &Step| match step {
            Step::File { path, kept: Some(_), .. } => format!("{} was changed", shown(root, path)),
            Step::File { path, kept: None, .. } => format!("{} was made", shown(root, path)),
            Step::Database(made) => format!("the D1 database {} was made", made.name),
        };
        self.steps.iter().rev().map(describe).collect()
    }

    /// Returns the accounts in which databases were created.
    pub fn accounts(&self) -> Vec<&str> {
        self.steps
            .iter()
            .filter_map(|step| if let Step::Database(made) = step { Some(made.account_id.as_str()) } else { None })
            .collect()
    }
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

impl Undo {
    /// Begins. Returns the journal of a process that was killed, too, whose changes have to be undone or kept first.
    pub fn begin(root: &Path, what: &str, at: i64) -> Result<(Undo, Option<Journal>), Failure> {
        fs::create_dir_all(root.join(FOLDER)).with_context(|| format!("{FOLDER} can't be made"))?;
        let lock = Lock::take(&root.join(LOCK), "change of specs")?;
        let path = root.join(FOLDER).join("journal.json");
        let left = match fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice::<Journal>(&bytes).map_err(|error| {
                Failure::new(format!("{} can't be read: {error}", path.display()))
                    .hint("look at what stands in that folder, and remove it")
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
        };
        let left = left.filter(|left| !left.steps.is_empty());
        let journal = Journal { version: VERSION, what: what.to_owned(), at, steps: Vec::new() };
        Ok((Undo { root: root.to_owned(), journal: left.clone().unwrap_or(journal), _lock: lock }, left))
    }

    /// Begins with an empty journal, once what was left is undone or kept.
    pub fn restart(&mut self, what: &str, at: i64) -> Result<(), Failure> {
        self.journal = Journal { version: VERSION, what: what.to_owned(), at, steps: Vec::new() };
        self.save()
    }

    /// Returns whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.journal.steps.is_empty()
    }

    /// Notes that a file is going to be written, and keeps a copy of it.
    pub fn note_file(&mut self, path: &Path) -> Result<(), Failure> {
        let is_it = |step: &Step| matches!(step, Step::File { path: other, .. } if other == path);
        if self.journal.steps.iter().any(is_it) {
            // What it held before the first time is what counts.
            return Ok(());
        }
        let kept = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                let name = self.journal.steps.len().to_string();
                fs::create_dir_all(self.folder()).context("the folder of copies can't be made")?;
                let copy = self.folder().join(&name);
                copy_private(path, &copy).with_context(|| format!("a copy of {} can't be kept", path.display()))?;
                Some(name)
            }
            Ok(_) => return Err(Failure::new(format!("{} is a symbolic link or no file", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
        };
        let mut folders: Vec<PathBuf> =
            path.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        folders.reverse();
        self.journal.steps.push(Step::File { path: path.to_owned(), kept, written: None, folders });
        self.save()
    }

    /// Notes what was written to a file, so that what others write there afterwards isn't undone.
    pub fn note_written(&mut self, path: &Path) -> Result<(), Failure> {
        let digest = fs::read(path).ok().map(|bytes| Digest::of(&bytes).to_string());
        for step in &mut self.journal.steps {
            if let Step::File { path: other, written, .. } = step
                && other == path
            {
                *written = digest.clone();
            }
        }
        self.save()
    }

    /// Notes a file and writes it.
    pub fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        self.note_file(path)?;
        replace(path, bytes).with_context(|| format!("{} can't be written", path.display()))?;
        self.note_written(path)
    }

    /// Notes that a database is going to be created, or its id.
    pub fn note_database(&mut self, made: CreatedDatabase) -> Result<(), Failure> {
        let same = |step: &&mut Step| matches!(step, Step::Database(other) if other.account_id == made.account_id && other.name == made.name);
        match self.journal.steps.iter_mut().find(same) {
            Some(step) => *step = Step::Database(made),
            None => self.journal.steps.push(Step::Database(made)),
        }
        self.save()
    }

    /// Notes that no database was created after all.
    pub fn note_no_database(&mut self, account_id: &str, name: &str) -> Result<(), Failure> {
        let is_it =
            |step: &Step| matches!(step, Step::Database(made) if made.account_id == account_id && made.name == name);
        self.journal.steps.retain(|step| !is_it(step));
        self.save()
    }

    /// Undoes all changes, the last first. Returns those that can't be undone; they stay in the journal.
    pub fn roll_back(&mut self, delete: &mut dyn FnMut(&CreatedDatabase) -> Result<(), String>) -> Vec<Leftover> {
        let (mut left, mut kept) = (Vec::new(), Vec::new());
        while let Some(step) = self.journal.steps.pop() {
            match self.undo_step(&step, delete) {
                Ok(()) => {}
                Err(why) => {
                    left.push(why);
                    kept.push(step);
                }
            }
        }
        kept.reverse();
        self.journal.steps = kept;
        let saved = if self.journal.steps.is_empty() { self.forget() } else { self.save() };
        if let Err(failure) = saved {
            left.push(Leftover { what: failure.to_string(), hint: format!("remove {FOLDER}") });
        }
        left
    }

    fn undo_step(
        &self,
        step: &Step,
        delete: &mut dyn FnMut(&CreatedDatabase) -> Result<(), String>,
    ) -> Result<(), Leftover> {
        match step {
            Step::Database(made) => delete(made).map_err(|why| Leftover {
                what: format!("the D1 database {} is not deleted: {why}", made.name),
                hint: format!("if it is there and empty: wrangler d1 delete {}", made.name),
            }),
            Step::File { path, kept, written, folders } => {
                let name = shown(&self.root, path);
                let copy = kept.as_ref().map(|kept| self.folder().join(kept));
                let by_hand = || match &copy {
                    Some(copy) => format!("what it held is in {}", shown(&self.root, copy)),
                    None => "it was not there before: delete it if nobody needs it".to_owned(),
                };
                let now = fs::read(path).ok();
                let before = copy.as_ref().and_then(|copy| fs::read(copy).ok());
                if copy.is_some() && before.is_none() {
                    return Err(Leftover {
                        what: format!("{name} is as it is: its copy is lost"),
                        hint: String::new(),
                    });
                }
                let others = written
                    .as_ref()
                    .is_some_and(|written| now.as_ref().is_none_or(|now| Digest::of(now).to_string() != *written));
                if now != before && others {
                    return Err(Leftover { what: format!("{name} was changed since"), hint: by_hand() });
                }
                let done = match &copy {
                    _ if now == before => Ok(()),
                    Some(copy) => restore(copy, path),
                    None => fs::remove_file(path),
                };
                done.map_err(|error| Leftover { what: format!("{name} can't be put back: {error}"), hint: by_hand() })?;
                for folder in folders.iter().rev() {
                    // Whoever put something else into it needs it.
                    let _ = fs::remove_dir(folder);
                }
                Ok(())
            }
        }
    }

    /// Keeps all changes.
    pub fn commit(&mut self) -> Result<(), Failure> {
        self.journal.steps.clear();
        self.forget()
    }

    fn forget(&self) -> Result<(), Failure> {
        // The journal first: without it, the copies mean nothing.
        let removed = match fs::remove_file(self.folder().join("journal.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        removed.with_context(|| format!("{FOLDER}/journal.json can't be removed"))?;
        let _ = fs::remove_dir_all(self.folder());
        Ok(())
    }

    fn save(&self) -> Result<(), Failure> {
        fs::create_dir_all(self.folder()).with_context(|| format!("{FOLDER} can't be made"))?;
        let text = serde_json::to_vec(&self.journal).expect("BUG: a journal is JSON");
        replace(&self.folder().join("journal.json"), &text).context("the journal can't be written")?;
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }
}

/// Copies a file with its permissions; nobody else can read the copy at any time.
fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    let mode = fs::metadata(from)?.permissions().mode();
    AtomicFile::new(to).mode(mode).durable().write(&fs::read(from)?).map(drop)
}

/// Puts a copy back in the file's place, permissions included.
fn restore(copy: &Path, path: &Path) -> io::Result<()> {
    copy_private(copy, path)
}

/// Replaces a file, which keeps its permissions.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    AtomicFile::new(path).keep_permissions().durable().write(bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(root: &Path) -> (Undo, Option<Journal>) {
        Undo::begin(root, "new acme", 7).unwrap()
    }

    fn nothing(_: &CreatedDatabase) -> Result<(), String> {
        panic!("there is no database")
    }

    #[test]
    fn files_and_folders_are_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "old\r\n").unwrap();
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o640)).unwrap();
        let (mut undo, left) = begin(folder.path());
        assert!(left.is_none() && undo.is_empty());
        undo.write(&at("a"), b"new").unwrap();
        undo.write(&at("b/c/d"), b"new").unwrap();
        undo.write(&at("a"), b"newer").unwrap();
        assert_eq!(fs::read(at("a")).unwrap(), b"newer");
        assert_eq!(undo.roll_back(&mut nothing), []);
        assert_eq!(fs::read(at("a")).unwrap(), b"old\r\n");
        assert_eq!(fs::metadata(at("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!at("b").exists() && !at(FOLDER).exists());
        // And what is kept is kept.
        undo.write(&at("a"), b"new").unwrap();
        undo.commit().unwrap();
        assert_eq!(undo.roll_back(&mut nothing), []);
        assert_eq!(fs::read(at("a")).unwrap(), b"new");
        assert!(!at(FOLDER).exists());
    }

    #[test]
    fn what_a_killed_process_left_is_told_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "old").unwrap();
        let made =
            CreatedDatabase { account_id: "account".to_owned(), name: "acme".to_owned(), id: Some("id".to_owned()) };
        {
            let (mut undo, _) = begin(folder.path());
            undo.note_database(CreatedDatabase { id: None, ..made.clone() }).unwrap();
            undo.note_database(made.clone()).unwrap();
            undo.write(&at("a"), b"new").unwrap();
            undo.write(&at("b"), b"new").unwrap();
            // Here it dies.
        }
        let (mut undo, left) = begin(folder.path());
        let left = left.expect("a journal");
        assert_eq!((left.what.as_str(), left.at, left.accounts()), ("new acme", 7, vec!["account"]));
        assert_eq!(left.descriptions(folder.path()), ["b was made", "a was changed", "the D1 database acme was made"]);
        fs::write(at("b"), "somebody else's").unwrap();
        let leftovers = undo.roll_back(&mut |there| {
            assert_eq!(*there, made);
            Err("no network".to_owned())
        });
        assert_eq!(leftovers.len(), 2, "{leftovers:?}");
        assert_eq!(
            (fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap()),
            (b"old".to_vec(), b"somebody else's".to_vec())
        );
        drop(undo);
        // What could not be is tried once more, the next time.
        let (mut undo, left) = begin(folder.path());
        assert_eq!(left.unwrap().descriptions(folder.path()), ["b was made", "the D1 database acme was made"]);
        fs::remove_file(at("b")).unwrap();
        assert_eq!(undo.roll_back(&mut |_| Ok(())), []);
        drop(undo);
        assert!(begin(folder.path()).1.is_none());
    }

    #[test]
    fn two_at_once_are_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let (_first, _) = begin(folder.path());
        assert_eq!(Undo::begin(folder.path(), "edit", 8).err().unwrap().exit, flotilla_model::failure::Exit::Refused);
    }
}
