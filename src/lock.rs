//! One process at a time for what only one may do: a deploy, the Cloudflare on this machine. The lock is the operating
//! system's, so that a killed process holds none.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::failure::{Exit, Failure};
use crate::progress::Progress;

/// A lock that is held as long as this value lives.
pub struct Lock {
    file: File,
}

impl Lock {
    /// Whether somebody holds the lock.
    pub fn is_held(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Takes the lock for `what`; while somebody else has it, waits, and says so. Where it can't be made, as on a disk that
    /// is only read, there is nothing to guard.
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

    /// Takes the lock for `what`, or says who has it and since when.
    pub fn take(path: &Path, what: &str) -> Result<Lock, Failure> {
        let cannot = || format!("the lock {} can't be opened", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(cannot)?;
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.lines().next().filter(|line| !line.is_empty()).unwrap_or("another process");
                return Err(Failure::refused(format!("another {what} is running: {holder}"))
                    .hint("wait for it to end, or stop it with Ctrl-C: it loses nothing"));
            }
            Err(TryLockError::Error(error)) => return Err(anyhow::Error::from(error).context(cannot()).into()),
        }
        let since = humantime::format_rfc3339_seconds(SystemTime::now());
        let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let told = format!("{what} by {user}, process {}, since {since}\n", std::process::id());
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(told.as_bytes())
        };
        // The lock holds without the note, as on a disk that is full.
        let _ = write(&mut file);
        Ok(Lock { file })
    }
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
        let first = Lock::take(&path, "deploy").unwrap();
        let failure = Lock::take(&path, "deploy").err().unwrap();
        assert!(failure.to_string().contains(&format!("process {}", std::process::id())), "{failure}");
        assert_eq!(failure.exit, crate::failure::Exit::Refused);
        drop(first);
        assert!(Lock::take(&path, "deploy").is_ok());
    }
}
