//! Locks for work that one process at a time may do: a build, a deploy, the local Cloudflare emulator. The lock is
//! the operating system's, so that a killed process holds none. It has a note of its holder, for people; and for
//! other hosts, whose locks don't always reach here over a network's file system.
//!
//! A note that a holder on another host renews counts as its lock. Whether it does is observed, for a while on this host's own clock:
//! the clocks of two hosts are never compared to call a lock dead.

use std::fs::{File, TryLockError};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};
use crate::plain_file::{self, HeldFile};
use crate::progress::Progress;

/// The interval at which a holder renews its note.
const BEAT: Duration = Duration::from_secs(10);
/// The age up to which a note of another host counts as renewed without being observed: it delays the takeover of a dead lock by as
/// much at most, whatever the clocks show.
const FRESH: Duration = Duration::from_secs(20);
/// The time for which a note of another host is observed before its lock is taken: six beats, for disks that are slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time for which it is observed by a command that only clears notes: three beats.
const CLEARING: Duration = Duration::from_secs(30);
/// The interval at which it is looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// The longest note that is read, in bytes.
const NOTE: u64 = 16 << 10;
/// The longest command that a note has, in characters.
const COMMAND: usize = 200;

/// A lock that is held as long as this value lives.
pub struct Lock {
    file: File,
    path: PathBuf,
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
    /// A process on another host renews its note; the time since it last did, as far as that is known.
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
            by: set("USER")
                .or_else(|| set("LOGNAME"))
                .unwrap_or_else(|| format!("user {}", rustix::process::geteuid().as_raw())),
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
    file.rewind().ok()?;
    let text = String::from_utf8(plain_file::read_all(file, NOTE).ok()?).ok()?;
    text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Returns this host's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the holder of a lock whose file this process has locked. A note of another host is observed for so long.
fn left(path: &Path, file: &mut File, progress: &dyn Progress, patience: Duration) -> Holder {
    let empty = file.metadata().map_or(true, |metadata| metadata.len() == 0);
    match Note::read(file) {
        None if empty => Holder::Nobody,
        None => Holder::Stale(None),
        // Here, the operating system would know.
        Some(note) if note.host == host_name() => Holder::Stale(Some(note)),
        Some(note) => {
            let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = modified.and_then(|modified| modified.elapsed().ok());
            if let Some(age) = age.filter(|age| *age < FRESH) {
                return Holder::Elsewhere(note, age);
            }
            progress.note(&format!(
                "waiting up to {} s: is {} on {} still running? ({})",
                patience.as_secs(),
                note.what,
                note.host,
                path.display()
            ));
            if is_renewed(path, patience) { Holder::Elsewhere(note, Duration::ZERO) } else { Holder::Stale(Some(note)) }
        }
    }
}

/// Returns whether a note is renewed while it is observed. Its file is opened again at each glance, so that a network's file system
/// doesn't answer from memory.
fn is_renewed(path: &Path, patience: Duration) -> bool {
    let glance = || {
        let mut file = plain_file::open(path).ok()?;
        let modified = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        Some((modified, text(&mut file)))
    };
    let (first, start) = (glance(), Instant::now());
    while start.elapsed() < patience {
        std::thread::sleep(GLANCE.min(patience / 4));
        if glance() != first {
            return true;
        }
    }
    false
}

impl Lock {
    /// Returns whether the lock is held.
    pub fn is_held(path: &Path) -> bool {
        plain_file::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Removes a stale note; returns the earlier holder.
    pub fn clear(path: &Path, progress: &dyn Progress) -> Result<Holder, Failure> {
        Lock::clear_after(path, progress, CLEARING)
    }

    fn clear_after(path: &Path, progress: &dyn Progress, patience: Duration) -> Result<Holder, Failure> {
        let cannot = || format!("the lock {} can't be cleared", path.display());
        let mut file = match plain_file::open_with(path, File::options().read(true).write(true)) {
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
        let holder = left(path, &mut file, progress, patience);
        if let Holder::Stale(_) = holder {
            file.set_len(0).with_context(cannot)?;
        }
        Ok(holder)
    }

    /// Takes the lock for `what`; while another process has it, reports that and waits. Where it can't be made, as on
    /// a read-only disk, there is nothing to guard.
    pub fn wait(path: &Path, what: &str, progress: &dyn Progress) -> Result<Option<Lock>, Failure> {
        if path.parent().is_some_and(|folder| plain_file::create_folder(folder).is_err()) {
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
                Err(_) if plain_file::open_with(path, File::options().write(true)).is_err() => return Ok(None),
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
        Ok(Lock { file, path: path.to_owned(), _beat: None })
    }

    /// Takes the lock against holders on other hosts as well: for what is shared with them. Renews its note as long
    /// as it is held. A note of another host that looks old is observed first, which takes up to a minute.
    pub fn take_from_all(path: &Path, what: &str, progress: &dyn Progress) -> Result<Lock, Failure> {
        Lock::take_after(path, what, progress, PATIENCE)
    }

    /// Removes the file of a lock that is held, where nothing of it should stay.
    pub fn remove_file(&self, path: &Path) {
        if is_named(&self.file, path) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Returns its file, without which another process could take the lock as well.
    pub fn held_file(&self) -> Option<HeldFile> {
        HeldFile::of(&self.file, &self.path).ok()
    }

    fn take_after(path: &Path, what: &str, progress: &dyn Progress, patience: Duration) -> Result<Lock, Failure> {
        let mut file = locked(path, what)?;
        if let Holder::Elsewhere(note, age) = left(path, &mut file, progress, patience) {
            let ago = age.as_secs();
            let what = if note.what == what { what } else { "command" };
            let what =
                format!("another {what} is running on another host: {note}; its lock was last renewed {ago} s ago");
            return Err(Failure::refused(what)
                .hint("wait for it to end")
                .hint(format!(
                    "if that process was killed, run the same command again in {} s: it waits {} s for the lock to be renewed and continues if it isn't; `flotilla state unlock` does the same and removes the lock",
                    FRESH.as_secs(),
                    patience.as_secs()
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
        Ok(Lock { file, path: path.to_owned(), _beat: beat })
    }
}

/// Returns whether a file is the one that has this name.
fn is_named(file: &File, path: &Path) -> bool {
    HeldFile::of(file, path).is_ok_and(|held| held.has_its_name())
}

/// Opens the lock's file and locks it.
fn locked(path: &Path, what: &str) -> Result<File, Failure> {
    let cannot = || format!("the lock {} can't be opened", path.display());
    if let Some(folder) = path.parent() {
        plain_file::create_folder(folder).with_context(cannot)?;
    }
    let mut options = File::options();
    let mut file = plain_file::open_with(path, options.read(true).write(true).create(true)).with_context(cannot)?;
    match file.try_lock() {
        Ok(()) if is_named(&file, path) => Ok(file),
        // Its holder removed it when it ended: there is another file by now, or none.
        Ok(()) => locked(path, what),
        Err(TryLockError::WouldBlock) => {
            let note = Note::read(&mut file);
            let is_other = note.as_ref().is_some_and(|note| note.what != what);
            let holder = match (note, text(&mut file)) {
                (Some(note), _) => note.to_string(),
                // As an older flotilla wrote it.
                (None, Some(text)) => text,
                (None, None) => "another process".to_owned(),
            };
            Err(Failure::refused(match is_other {
                true => format!("another command is running: {holder}"),
                false => format!("another {what} is running: {holder}"),
            })
            .hint("wait for it to end, or stop it with Ctrl-C, which loses nothing"))
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
    use crate::progress::Silent;

    #[test]
    fn a_second_deploy_is_refused_and_told_who_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.lock");
        let first = Lock::take_from_all(&path, "deploy", &Silent).unwrap();
        let second = Lock::take_from_all(&path, "deploy", &Silent);
        for failure in [Lock::take(&path, "deploy").err().unwrap(), second.err().unwrap()] {
            let text = failure.to_string();
            assert!(text.contains(&format!("on {}, process {}, since 2", host_name(), std::process::id())), "{text}");
            assert_eq!(failure.exit, crate::failure::Exit::Refused);
        }
        let held = |holder| matches!(holder, Holder::Process(Some(note)) if note.process == std::process::id());
        assert!(held(Lock::clear(&path, &Silent).unwrap()), "what is held is not cleared");
        drop(first);
        assert_eq!(Lock::clear(&path, &Silent).unwrap(), Holder::Nobody);
        let third = Lock::take(&path, "deploy").unwrap();
        // Removed by its holder, and taken by another.
        third.remove_file(&path);
        let fourth = Lock::take(&path, "deploy").unwrap();
        third.remove_file(&path);
        assert!(path.exists() && Lock::take(&path, "deploy").is_err());
        drop((third, fourth));
    }

    /// Long enough to see a renewal of the tests' holders.
    const WHILE: Duration = Duration::from_millis(800);

    fn leave(path: &Path, note: &Note, modified: SystemTime) {
        let mut file = File::create(path).unwrap();
        write(&mut file, note);
        file.set_modified(modified).unwrap();
    }

    fn far() -> Note {
        Note { host: "far-away".to_owned(), since: "2026-11-21T10:00:00Z".to_owned(), ..Note::new("deploy") }
    }

    #[test]
    fn a_dead_note_of_another_host_is_taken_whatever_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.lock");
        let now = SystemTime::now();
        for modified in
            [now - FRESH, now - 100 * FRESH, now + Duration::from_secs(3600), now + Duration::from_secs(1 << 32)]
        {
            leave(&path, &far(), modified);
            drop(Lock::take_after(&path, "deploy", &Silent, WHILE).unwrap());
            leave(&path, &far(), modified);
            assert_eq!(Lock::clear_after(&path, &Silent, WHILE).unwrap(), Holder::Stale(Some(far())));
            assert_eq!(Lock::clear_after(&path, &Silent, WHILE).unwrap(), Holder::Nobody);
        }
        // A recent sign of life: that is known without waiting.
        leave(&path, &far(), now);
        let failure = Lock::take_after(&path, "deploy", &Silent, Duration::MAX).err().unwrap();
        assert!(failure.to_string().contains("on far-away") && failure.exit == Exit::Refused, "{failure}");
        assert!(
            matches!(Lock::clear_after(&path, &Silent, Duration::MAX).unwrap(), Holder::Elsewhere(note, _) if note == far())
        );
    }

    #[test]
    fn a_live_note_of_another_host_holds_whatever_its_clock_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.lock");
        for skew in [-3600, -125, 125, 3600_i64] {
            let shown = move || {
                let (now, skew_by) = (SystemTime::now(), Duration::from_secs(skew.unsigned_abs()));
                if skew < 0 { now - skew_by } else { now + skew_by }
            };
            leave(&path, &far(), shown());
            let (ended, end) = channel::<()>();
            let holder = {
                let path = path.clone();
                std::thread::spawn(move || {
                    let file = File::options().write(true).open(path).unwrap();
                    while end.recv_timeout(WHILE / 8) == Err(RecvTimeoutError::Timeout) {
                        file.set_modified(shown()).unwrap();
                    }
                })
            };
            let refused = Lock::take_after(&path, "deploy", &Silent, WHILE).err().unwrap();
            assert_eq!(refused.exit, Exit::Refused, "{refused}");
            let seen = Lock::clear_after(&path, &Silent, WHILE).unwrap();
            assert_eq!(seen, Holder::Elsewhere(far(), Duration::ZERO), "{skew}");
            drop(ended);
            holder.join().unwrap();
        }
    }

    #[test]
    fn notes_of_this_host_and_damaged_ones_are_stale_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.lock");
        let later = SystemTime::now() + Duration::from_secs(3600);
        leave(&path, &Note::new("deploy"), later);
        drop(Lock::take_after(&path, "deploy", &Silent, Duration::MAX).unwrap());
        leave(&path, &Note::new("deploy"), later);
        assert!(matches!(Lock::clear_after(&path, &Silent, Duration::MAX).unwrap(), Holder::Stale(Some(_))));
        // A note that nobody can read, as of a disk that was full, or one that isn't ours.
        let long = format!("{{\"what\":\"{}\"}}", "x".repeat(1 << 20));
        for text in ["{\"what\":", &long, "\u{feff}{}", "[1]"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Lock::clear_after(&path, &Silent, Duration::MAX).unwrap(), Holder::Stale(None));
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(Lock::clear(&path, &Silent).is_err() && Lock::take(&path, "deploy").is_err(), "not through a link");
        assert!(!Lock::is_held(&path));
    }
}
