//! The undo journal: the changes that a command has made so far, and how they are undone: files as they were, and
//! databases that were created. A change is noted on disk before it is made, so that the journal of a killed process
//! is complete. Knows no cloud: the caller deletes databases.
//!
//! A journal on disk is believed only with the seal of this user's key for this project: another one, which came with a repository for
//! example, undoes nothing. Its paths are the project's, its copies have digests, and its size has a limit.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use flotilla_model::atomic_file::{self, AtomicFile};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::plain_file;
use flotilla_model::text::bounded;
use flotilla_model::user_key::UserKey;

/// The folder of the journal and of the copies of files, below the project's.
pub const FOLDER: &str = ".flotilla/undo";
/// The file of the journal, in [`FOLDER`].
const JOURNAL: &str = "journal.json";
/// The lock of the process that writes the journal.
const LOCK: &str = ".flotilla/undo.lock";
/// The first word of a journal: its format and version. The seal follows.
const FORMAT: &str = "flotilla-undo-2";
/// The purpose of the seal.
const PURPOSE: &str = "undo journal";
/// The maximum size, in bytes, of a journal, and of a file that is kept.
const LIMIT: u64 = 64 << 20;
/// The longest text of a journal, and of a message about one.
const LONGEST: usize = 1000;

/// The changes of a command, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The command, in words: `new acme`.
    pub what: String,
    /// The time at which it began, in seconds since 1970.
    pub at: i64,
    steps: Vec<Step>,
}

/// One change that was made, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Step {
    /// A file was written.
    File {
        /// Its path from the project's folder; absolute for one outside, which only the process that wrote it puts back.
        path: String,
        /// Its former content; none where there was no file.
        kept: Option<Copy>,
        /// The digest of what was written, if that is known.
        written: Option<Digest>,
        /// The number of folders above it that were created for it.
        folders: u8,
    },
    /// A database was created.
    Database(CreatedDatabase),
}

/// A copy of a file as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    /// The number that is its name.
    number: u32,
    digest: Digest,
    /// The file's permissions.
    mode: u32,
}

/// A D1 database that was created, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatedDatabase {
    /// The account's id.
    pub account_id: String,
    /// Its name, which no database of the account had before.
    pub name: String,
    /// Its id, once that is known.
    pub id: Option<String>,
}

/// The changes that an earlier process left.
#[derive(Clone, Debug)]
pub enum Remains {
    /// Nothing.
    Nothing,
    /// The changes of a process that was killed.
    Journal(Journal),
    /// A journal that can't be believed, and why. Nothing of it is undone.
    Untrusted(String),
}

/// The journal of a running command. One at a time in a project.
pub struct Undo {
    root: PathBuf,
    key: Option<UserKey>,
    journal: Journal,
    /// The paths of its files.
    noted: HashSet<String>,
    /// The number of the next copy.
    next_copy: u32,
    /// Whether the journal was read from disk.
    is_recovered: bool,
    lock: Lock,
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
    fn new(what: &str, at: i64) -> Journal {
        Journal { what: what.to_owned(), at, steps: Vec::new() }
    }

    /// Describes the changes, the last first.
    pub fn descriptions(&self) -> Vec<String> {
        let describe = |step: &Step| match step {
            Step::File { path, kept: Some(_), .. } => format!("{path} was changed"),
            Step::File { path, kept: None, .. } => format!("{path} was created"),
            Step::Database(made) => format!("the D1 database {} was created", made.name),
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

    /// Reads a journal; the error is the reason why it isn't trusted.
    fn parse(bytes: &[u8], root: &Path, key: Option<&UserKey>) -> Result<Journal, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let (head, text) = text.split_once('\n').unwrap_or((text, ""));
        let Some(("", seal)) = head.split_once(FORMAT) else {
            return Err("it is damaged, or was written by another version of flotilla".to_owned());
        };
        if key.is_none_or(|key| key.seal(PURPOSE, root, text) != seal.trim_start()) {
            return Err("it was not written by this user on this machine for this folder".to_owned());
        }
        let journal: Journal =
            serde_json::from_str(text).map_err(|error| format!("it is damaged: {}", bounded(error.to_string())))?;
        let text = |text: &str| text.len() <= LONGEST && !text.contains(char::is_control);
        let is_sound = |step: &Step| match step {
            Step::File { path, .. } if path.starts_with('/') => text(path),
            Step::File { path, .. } => plain_file::project_path(path).is_ok(),
            Step::Database(made) => {
                let id = made.id.as_deref().unwrap_or_default();
                text(&made.name) && text(id) && made.account_id.bytes().all(|byte| byte.is_ascii_alphanumeric())
            }
        };
        if let Some(Step::File { path, .. }) = journal.steps.iter().find(|step| !is_sound(step)) {
            let path = bounded(path.clone());
            return Err(format!("it names {path}, which is not a file of the project"));
        }
        if !journal.steps.iter().all(is_sound) || !text(&journal.what) {
            return Err("it contains an invalid database or command".to_owned());
        }
        Ok(journal)
    }
}

/// Returns the journal of a project with its seal, as it is on disk. Without a key it has none, and nothing of it will be undone.
pub fn sealed(key: Option<&UserKey>, root: &Path, text: &str) -> String {
    let seal = key.map_or_else(|| "-".to_owned(), |key| key.seal(PURPOSE, root, text));
    format!("{FORMAT} {seal}\n{text}")
}

/// Returns whether there is something where a journal and copies would be.
pub fn is_left(root: &Path) -> bool {
    fs::symlink_metadata(root.join(FOLDER)).is_ok()
}

/// Returns the words of the command that was interrupted in a project and whose changes were neither undone nor kept. `None` if there is
/// none, or if it is still running.
pub fn interrupted(root: &Path) -> Option<String> {
    let bytes = plain_file::read(&root.join(FOLDER).join(JOURNAL), LIMIT).ok()?;
    if Lock::is_held(&root.join(LOCK)) {
        return None;
    }
    let journal = Journal::parse(&bytes, root, UserKey::load().as_ref()).ok()?;
    (!journal.steps.is_empty()).then_some(journal.what)
}

impl Undo {
    /// Begins. Returns what an earlier process left, too, which has to be undone or kept first.
    pub fn begin(root: &Path, key: Option<UserKey>, what: &str, at: i64) -> Result<(Undo, Remains), Failure> {
        let own = root.join(".flotilla");
        plain_file::refuse_foreign(&own).with_context(|| format!("{FOLDER} can't be used"))?;
        plain_file::create_folder(&own).with_context(|| format!("{} can't be created", own.display()))?;
        let lock = Lock::take(&root.join(LOCK), "change of specs")?;
        let path = root.join(FOLDER).join(JOURNAL);
        let remains = match plain_file::read(&path, LIMIT) {
            Ok(bytes) => match Journal::parse(&bytes, root, key.as_ref()) {
                Ok(journal) if journal.steps.is_empty() => Remains::Nothing,
                Ok(journal) => Remains::Journal(journal),
                Err(why) => Remains::Untrusted(why),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Remains::Nothing,
            Err(error) => Remains::Untrusted(error.to_string()),
        };
        let journal = match &remains {
            Remains::Journal(journal) => journal.clone(),
            _ => Journal::new(what, at),
        };
        if matches!(remains, Remains::Nothing) {
            // Copies without a journal mean nothing.
            let _ = fs::remove_dir_all(root.join(FOLDER));
        }
        let is_recovered = matches!(remains, Remains::Journal(_));
        let undo =
            Undo { root: root.to_owned(), key, journal, noted: HashSet::new(), next_copy: 0, is_recovered, lock };
        Ok((undo, remains))
    }

    /// Begins with an empty journal, once what was left is undone or kept.
    pub fn restart(&mut self, what: &str, at: i64) -> Result<(), Failure> {
        self.forget()?;
        self.journal = Journal::new(what, at);
        self.is_recovered = false;
        Ok(())
    }

    /// Returns whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.journal.steps.is_empty()
    }

    /// Notes that a file is going to be written, and keeps a copy of it.
    pub fn note_file(&mut self, path: &Path) -> Result<(), Failure> {
        if self.note(path, None)? { self.save() } else { Ok(()) }
    }

    /// Adds a file to the journal, which isn't saved; returns whether it was added. `written` is the digest of what will be written.
    fn note(&mut self, path: &Path, written: Option<Digest>) -> Result<bool, Failure> {
        let name = self.name(path)?;
        if self.noted.contains(&name) {
            // What it held before the first time is what counts.
            return Ok(false);
        }
        let cannot = || format!("a copy of {} can't be saved", path.display());
        let kept = match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {
                let bytes = plain_file::read(path, LIMIT).with_context(cannot)?;
                let number = self.next_copy;
                self.next_copy += 1;
                let mode = found.permissions().mode() & 0o7777;
                plain_file::create_folder(&self.folder()).with_context(cannot)?;
                let copied = AtomicFile::new(&self.copy(number)).mode(plain_file::PRIVATE).durable().write(&bytes);
                copied.with_context(cannot)?;
                Some(Copy { number, digest: Digest::of(&bytes), mode })
            }
            Ok(_) => return Err(Failure::new(format!("{} is a symbolic link or not a file", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
        };
        let missing = path.ancestors().skip(1).take_while(|folder| !folder.exists()).count();
        let folders = u8::try_from(missing).unwrap_or(u8::MAX);
        self.noted.insert(name.clone());
        self.journal.steps.push(Step::File { path: name, kept, written, folders });
        Ok(true)
    }

    /// Returns a path as the journal has it. One outside the project has to be absolute, as fleet.yaml has it.
    fn name(&self, path: &Path) -> Result<String, Failure> {
        let name = path.strip_prefix(&self.root).unwrap_or(path);
        let name = name.to_str().ok_or_else(|| Failure::new(format!("the name of {} is not UTF-8", path.display())))?;
        if !name.starts_with('/') {
            plain_file::project_file(&self.root, name)
                .map_err(|why| Failure::new(format!("{name} can't be written: {why}")))?;
        }
        Ok(name.to_owned())
    }

    /// Notes what was written to a file, so that what others write there afterwards isn't undone.
    pub fn note_written(&mut self, path: &Path) -> Result<(), Failure> {
        let digest = plain_file::read(path, LIMIT).ok().map(|bytes| Digest::of(&bytes));
        self.set_written(path, digest)?;
        self.save()
    }

    fn set_written(&mut self, path: &Path, digest: Option<Digest>) -> Result<(), Failure> {
        let name = self.name(path)?;
        for step in &mut self.journal.steps {
            if let Step::File { path: other, written, .. } = step
                && *other == name
            {
                *written = digest;
            }
        }
        Ok(())
    }

    /// Notes a file and writes it; one that holds these bytes already is left as it is.
    pub fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let written = |path: &Path| AtomicFile::new(path).known_temporary().keep_permissions().durable().write(bytes);
        self.write_with(&[(path.to_owned(), bytes)], &|path, _| written(path).map(drop))
    }

    /// Notes files and writes them, as [`Undo::write`] does, but doesn't wait for the disk after each: for files that can be made
    /// again.
    pub fn write_all(&mut self, files: &[(PathBuf, &[u8])]) -> Result<(), Failure> {
        self.write_with(files, &|path, bytes| {
            AtomicFile::new(path).known_temporary().keep_permissions().write(bytes).map(drop)
        })
    }

    fn write_with(
        &mut self,
        files: &[(PathBuf, &[u8])],
        replace: &dyn Fn(&Path, &[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut changed = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            if plain_file::read(path, LIMIT).is_ok_and(|now| now == *bytes) {
                continue;
            }
            let is_first = self.note(path, Some(Digest::of(bytes)))?;
            if !is_first {
                // Until it is written, it holds what this command wrote before.
                self.set_written(path, None)?;
            }
            changed.push((path, bytes, is_first));
        }
        if changed.is_empty() {
            return Ok(());
        }
        self.save()?;
        for (path, bytes, _) in &changed {
            replace(path, bytes).with_context(|| format!("{} can't be written", path.display()))?;
        }
        let again: Vec<_> = changed.iter().filter(|(.., is_first)| !is_first).collect();
        for (path, bytes, _) in &again {
            self.set_written(path, Some(Digest::of(bytes)))?;
        }
        if again.is_empty() { Ok(()) } else { self.save() }
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
        self.noted.clear();
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
                hint: format!("if it exists and is empty: wrangler d1 delete {}", made.name),
            }),
            Step::File { path: name, kept, written, folders } => {
                let by_hand = || match kept {
                    Some(copy) => format!("its old content is in {FOLDER}/{}", copy.number),
                    None => "it did not exist before: delete it if nothing needs it".to_owned(),
                };
                let left = |what: String| Leftover { what, hint: by_hand() };
                let path = match name.starts_with('/') {
                    true if self.is_recovered => {
                        return Err(left(format!("{name} is outside the project and was not changed")));
                    }
                    true => PathBuf::from(name),
                    false => plain_file::project_file(&self.root, name)
                        .map_err(|why| left(format!("{name} was not changed: {why}")))?,
                };
                let unreadable = |error: io::Error| left(format!("{name} can't be restored: {error}"));
                let now = match plain_file::read(&path, LIMIT) {
                    Ok(bytes) => Some(Digest::of(&bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(unreadable(error)),
                };
                let before = kept.as_ref().map(|copy| copy.digest);
                if now != before {
                    if written.is_some() && now != *written {
                        return Err(left(format!("{name} was changed since")));
                    }
                    match kept {
                        None => fs::remove_file(&path).map_err(unreadable)?,
                        Some(copy) => {
                            let lost = || Leftover {
                                what: format!("{name} was not changed: its copy is lost or was edited"),
                                hint: String::new(),
                            };
                            let bytes = plain_file::read(&self.copy(copy.number), LIMIT).map_err(|_| lost())?;
                            if Digest::of(&bytes) != copy.digest {
                                return Err(lost());
                            }
                            let restored = AtomicFile::new(&path)
                                .known_temporary()
                                .mode(copy.mode & 0o777)
                                .durable()
                                .write(&bytes);
                            restored.map_err(unreadable)?;
                        }
                    }
                }
                // What a kill in the middle of writing it left.
                let temporary = atomic_file::beside(&path);
                if fs::symlink_metadata(&temporary).is_ok_and(|found| found.is_file()) {
                    let _ = fs::remove_file(temporary);
                }
                for folder in path.ancestors().skip(1).take(usize::from(*folders)) {
                    // Other files in it are somebody's.
                    let _ = fs::remove_dir(folder);
                }
                Ok(())
            }
        }
    }

    /// Keeps all changes, or what an earlier process left.
    pub fn commit(&mut self) -> Result<(), Failure> {
        self.journal.steps.clear();
        self.noted.clear();
        self.forget()
    }

    fn forget(&mut self) -> Result<(), Failure> {
        self.noted.clear();
        // The journal first: without it, the copies mean nothing.
        let removed = match fs::remove_file(self.folder().join(JOURNAL)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        removed.with_context(|| format!("{FOLDER}/{JOURNAL} can't be removed"))?;
        let _ = fs::remove_dir_all(self.folder());
        Ok(())
    }

    fn save(&mut self) -> Result<(), Failure> {
        plain_file::create_folder(&self.folder()).with_context(|| format!("{FOLDER} can't be created"))?;
        let text = serde_json::to_string(&self.journal).expect("BUG: a journal is JSON");
        let path = self.folder().join(JOURNAL);
        let sealed = sealed(self.key.as_ref(), &self.root, &text);
        let written = AtomicFile::new(&path).mode(plain_file::PRIVATE).durable().write(sealed.as_bytes());
        written.context("the journal can't be written")?;
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }

    /// Returns the path of a copy. Copies are private, whatever the permissions of the file are.
    fn copy(&self, number: u32) -> PathBuf {
        self.folder().join(number.to_string())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // Nothing stays of a command that left nothing: a new project has no file more for it.
        if self.is_empty() && !is_left(&self.root) {
            self.lock.remove_file(&self.root.join(LOCK));
            let _ = fs::remove_dir(self.root.join(".flotilla"));
        }
    }
}

#[cfg(test)]
mod tests;
