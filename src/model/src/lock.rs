//! Locks for work that one process at a time may do: a build, a deploy, the local Cloudflare emulator. The lock is
//! the operating system's, so that a killed process holds none. It has a note of its holder, for people; and for
//! other hosts, whose locks don't always reach here over a network's file system.
//!
//! A note that a holder on another host renews counts as its lock. One that isn't renewed is stale.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};
use crate::progress::Progress;

/// The interval at which a holder renews its note.
const BEAT: Duration = Duration::from_secs(15);
/// The time without renewal after which a note of another host is stale: eight beats, for clocks that differ and
/// disks that are slow.
const STALE: Duration = Duration::from_secs(120);
/// The longest command that a note has, in characters.
const COMMAND: usize = 200;

/// A lock that is held as long as this value lives.
pub struct Lock {
    file: File,
    /// Closed with the lock: then the note is no longer renewed.
    _beat: Option<Sender<()>>,
}

/// The note of a lock's holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The command: `deploy`.
    pub what: String,
    /// The user.
    pub by: String,
    /// The host.
    pub host: String,
    /// The process there.
    pub process: u32,
    /// Since when.
    pub since: String,
    /// The program that was called.
    pub command: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Note { what, by, host, process, since, command } = self;
        write!(f, "{what} by {by} on {host}, process {process}, since {since}: {command}")
    }
}

/// The holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The lock is free.
    Nobody,
    /// A process that this machine's operating system knows holds it. The note can be missing, as on a full disk.
    Process(Option<Note>),
    /// A process on another host renewed its note so long ago.
    Elsewhere(Note, Duration),
    /// A process that did not come to its end left its note.
    Stale(Option<Note>),
}

impl Note {
    fn new(what: &str) -> Note {
        let set = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
        let command: Vec<String> =
            std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        Note {
            what: what.to_owned(),
            by: set("USER").or_else(|| set("LOGNAME")).unwrap_or_else(|| "unknown".to_owned()),
            host: host_name(),
            process: std::process::id(),
            since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: format!("flotilla {}", command.join(" ")).chars().take(COMMAND).collect(),
        }
    }

    fn read(file: &mut File) -> Option<Note> {
        serde_json::from_str(&text(file)?).ok()
    }
}

/// Returns the first line of a lock's file.
fn text(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Returns this host's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the holder of a lock whose file no process here has locked.
fn left(file: &mut File) -> Holder {
    let empty = file.metadata().map_or(true, |metadata| metadata.len() == 0);
    match Note::read(file) {
        None if empty => Holder::Nobody,
        None => Holder::Stale(None),
        // Here, the operating system would know.
        Some(note) if note.host == host_name() => Holder::Stale(Some(note)),
        Some(note) => {
            let renewed = file.metadata().and_then(|metadata| metadata.modified());
            // Of a clock that is ahead of ours, it is as of now.
            let age = renewed.map_or(STALE, |renewed| renewed.elapsed().unwrap_or_default());
            if age < STALE { Holder::Elsewhere(note, age) } else { Holder::Stale(Some(note)) }
        }
    }
}

impl Lock {
    /// Returns whether the lock is held.
    pub fn is_held(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Returns the holder of the lock.
    pub fn holder(path: &Path) -> Holder {
        let Ok(mut file) = File::open(path) else { return Holder::Nobody };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Holder::Process(Note::read(&mut file)),
            _ => left(&mut file),
        }
    }

    /// Removes a stale note; returns the earlier holder.
    pub fn clear(path: &Path) -> Result<Holder, Failure> {
        let cannot = || format!("the lock {} can't be cleared", path.display());
        let mut file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(error) => return Err(anyhow::Error::from(error).context(cannot()).into()),
        };
        // With the lock in hand, so that nobody takes it meanwhile.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(Holder::Process(Note::read(&mut file))),
            Err(TryLockError::Error(error)) => return Err(anyhow::Error::from(error).context(cannot()).into()),
            Ok(()) => {}
        }
        let holder = left(&mut file);
        if let Holder::Stale(_) = holder {
            file.set_len(0).with_context(cannot)?;
        }
        Ok(holder)
    }

    /// Takes the lock for `what`; while another process has it, reports that and waits. Where it can't be made, as on
    /// a read-only disk, there is nothing to guard.
    pub fn wait(path: &Path, what: &str, progress: &dyn Progress) -> Result<Option<Lock>, Failure> {
        if path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_err()) {
            return Ok(None);
        }
        for attempt in 0_u32.. {
            match Lock::take(path, what) {
                Ok(lock) => return Ok(Some(lock)),
                Err(failure) if failure.exit == Exit::Refused => {
                    if attempt == 0 {
                        progress.note(&format!("waiting: {failure}"));
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(_) if File::options().write(true).open(path).is_err() => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        unreachable!("BUG: it waits for ever")
    }

    /// Takes the lock for `what`. The failure names its holder and since when. Sees the holders of this machine
    /// alone.
    pub fn take(path: &Path, what: &str) -> Result<Lock, Failure> {
        let mut file = locked(path, what)?;
        write(&mut file, &Note::new(what));
        Ok(Lock { file, _beat: None })
    }

    /// Takes the lock against holders on other hosts as well: for what is shared with them. Renews its note as long
    /// as it is held.
    pub fn take_from_all(path: &Path, what: &str) -> Result<Lock, Failure> {
        let mut file = locked(path, what)?;
        if let Holder::Elsewhere(note, age) = left(&mut file) {
            return Err(Failure::refused(format!(
                "another {what} is running on another host: {note}; it was heard of {} s ago",
                age.as_secs()
            ))
            .hint("wait for it to end")
            .hint(format!(
                "if that process was killed, its note is stale {} s after it was last heard of: then the same command \
                 goes on; `flotilla state unlock` tells",
                STALE.as_secs()
            )));
        }
        write(&mut file, &Note::new(what));
        let beat = file.try_clone().ok().map(|file| {
            let (ended, end) = channel();
            let renew = move || {
                while end.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    let _ = file.set_modified(SystemTime::now());
                }
            };
            // Without the thread it holds on this machine all the same.
            let _ = std::thread::Builder::new().name("lock".to_owned()).spawn(renew);
            ended
        });
        Ok(Lock { file, _beat: beat })
    }
}

/// Opens the lock's file and locks it.
fn locked(path: &Path, what: &str) -> Result<File, Failure> {
    let cannot = || format!("the lock {} can't be opened", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(cannot)?;
    }
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let holder = match (Note::read(&mut file), text(&mut file)) {
                (Some(note), _) => note.to_string(),
                // As an older flotilla wrote it.
                (None, Some(text)) => text,
                (None, None) => "another process".to_owned(),
            };
            Err(Failure::refused(format!("another {what} is running: {holder}"))
                .hint("wait for it to end, or stop it with Ctrl-C: it loses nothing"))
        }
        Err(TryLockError::Error(error)) => Err(anyhow::Error::from(error).context(cannot()).into()),
    }
}

/// Writes the note. The lock holds without it, as on a disk that is full.
fn write(file: &mut File, note: &Note) {
    let text = serde_json::to_string(note).expect("BUG: a note is JSON");
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(format!("{text}\n").as_bytes()));
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_deploy_is_refused_and_told_who_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.lock");
        assert_eq!(Lock::holder(&path), Holder::Nobody);
        let first = Lock::take_from_all(&path, "deploy").unwrap();
        for failure in [Lock::take(&path, "deploy").err().unwrap(), Lock::take_from_all(&path, "deploy").err().unwrap()]
        {
            let text = failure.to_string();
            assert!(text.contains(&format!("on {}, process {}, since 2", host_name(), std::process::id())), "{text}");
            assert_eq!(failure.exit, crate::failure::Exit::Refused);
        }
        let held = |holder| matches!(holder, Holder::Process(Some(note)) if note.process == std::process::id());
        assert!(held(Lock::holder(&path)) && held(Lock::clear(&path).unwrap()), "what is held is not cleared");
        drop(first);
        assert_eq!(Lock::holder(&path), Holder::Nobody);
        assert!(Lock::take(&path, "deploy").is_ok());
    }

    #[test]
    fn the_note_of_another_host_holds_as_long_as_it_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.lock");
        let leave = |note: &Note, age: Duration| {
            let mut file = File::create(&path).unwrap();
            write(&mut file, note);
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let far = Note { host: "far-away".to_owned(), ..Note::new("deploy") };
        leave(&far, Duration::from_secs(60));
        assert!(matches!(Lock::holder(&path), Holder::Elsewhere(note, age) if note == far && age.as_secs() >= 60));
        let failure = Lock::take_from_all(&path, "deploy").err().unwrap();
        assert!(failure.to_string().contains("on far-away") && failure.exit == Exit::Refused, "{failure}");
        assert!(matches!(Lock::clear(&path).unwrap(), Holder::Elsewhere(..)), "not stale yet");
        // A build is this machine's own business.
        leave(&far, STALE);
        assert_eq!(Lock::holder(&path), Holder::Stale(Some(far.clone())));
        assert_eq!(Lock::clear(&path).unwrap(), Holder::Stale(Some(far.clone())));
        assert_eq!(Lock::holder(&path), Holder::Nobody);
        // Nobody has to clear it.
        leave(&far, STALE);
        drop(Lock::take_from_all(&path, "deploy").unwrap());
        // Of this host, the operating system knows at once.
        leave(&Note::new("deploy"), Duration::ZERO);
        assert!(matches!(Lock::holder(&path), Holder::Stale(Some(_))));
        drop(Lock::take_from_all(&path, "deploy").unwrap());
        // A note that nobody can read, as of a disk that was full.
        std::fs::write(&path, "{\"what\":").unwrap();
        assert_eq!(Lock::clear(&path).unwrap(), Holder::Stale(None));
    }
}
