//! The control channel of a running deploy: commands by Ctrl-C, by keys, or by another process through a file.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use flotilla_deploy::deploy::Control;
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;

use super::keys::Keys;
use super::ui::Ui;

/// The file through which another process sends commands.
const FILE: &str = "control";

/// The maximum size, in bytes, of the file.
const LIMIT: u64 = 64;

const CONTINUE: u8 = Control::Continue as u8;
const PAUSE: u8 = Control::Pause as u8;
const STOP: u8 = Control::Stop as u8;

/// Receives the commands of a deploy.
pub(super) struct ControlChannel {
    /// The present command, a [`Control`].
    command: Arc<AtomicU8>,
    file: PathBuf,
    /// Whether the file is read: only by the deploy that holds the lock.
    reads_file: bool,
    /// The keys of the terminal, read one by one.
    _keys: Option<Keys>,
}

/// Sends a command to a running deploy.
pub(super) fn send_command(folder: &Path, word: &str) -> Result<(), Failure> {
    let file = folder.join(FILE);
    let written = AtomicFile::new(&file).mode(plain_file::PRIVATE).write(word.as_bytes());
    written.map(drop).map_err(|error| Failure::new(format!("{} can't be written: {error}", file.display())))
}

impl ControlChannel {
    /// Receives commands until it is dropped. The first Ctrl-C stops after what is in flight, the second one at once;
    /// on a terminal `p` pauses, `r` resumes, `q` stops.
    pub(super) fn open(ui: &Ui, folder: &Path, reads_file: bool) -> ControlChannel {
        let command = Arc::new(AtomicU8::new(CONTINUE));
        let file = folder.join(FILE);
        if reads_file {
            // A command to an earlier deploy isn't meant for this one.
            let _ = std::fs::remove_file(&file);
        }
        signals(ui, &command);
        let pressed = Arc::clone(&command);
        let keys = Keys::read(ui, "[p]ause  [r]esume  [q]uit after the requests in flight", move |key| match key {
            b'p' | b'P' => set(&pressed, PAUSE),
            b'r' | b'R' => set(&pressed, CONTINUE),
            b'q' | b'Q' => set(&pressed, STOP),
            _ => {}
        });
        ControlChannel { command, file, reads_file, _keys: keys }
    }

    /// Returns the present command.
    pub(super) fn poll(&mut self) -> Control {
        if self.reads_file
            && let Some(word) = take_command(&self.file)
        {
            match word.trim_ascii() {
                b"pause" => set(&self.command, PAUSE),
                b"resume" => set(&self.command, CONTINUE),
                b"abort" => set(&self.command, STOP),
                _ => {}
            }
        }
        match self.command.load(Ordering::Relaxed) {
            CONTINUE => Control::Continue,
            PAUSE => Control::Pause,
            _ => Control::Stop,
        }
    }
}

/// Returns the bytes of the file, if it is there, and removes it; none of anything else than a short regular file.
fn take_command(file: &Path) -> Option<Vec<u8>> {
    let read = plain_file::read(file, LIMIT);
    if read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return None;
    }
    let _ = std::fs::remove_file(file);
    read.ok()
}

/// Sets the command; a stop is final.
fn set(command: &AtomicU8, new: u8) {
    let _ = command.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now != STOP).then_some(new));
}

fn signals(ui: &Ui, command: &Arc<AtomicU8>) {
    let (shown, command) = (ui.clone(), Arc::clone(command));
    let before = std::io::stdin().is_terminal().then(|| tcgetattr(std::io::stdin()).ok()).flatten();
    let mut stopping = false;
    ui.on_signal(Box::new(move |_| {
        if stopping {
            if let Some(before) = &before {
                let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
            }
            shown.leave(130);
        }
        stopping = true;
        set(&command, STOP);
        shown.line("stopping after the requests in flight; press Ctrl-C again to stop immediately");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_files_are_commands() {
        let folder = tempfile::tempdir().unwrap();
        let (file, victim) = (folder.path().join(FILE), folder.path().join("victim"));
        assert_eq!(take_command(&file), None);
        send_command(folder.path(), "pause").unwrap();
        assert_eq!(take_command(&file).as_deref(), Some(&b"pause"[..]));
        assert!(!file.exists());
        std::fs::write(&file, "pause".repeat(1000)).unwrap();
        assert_eq!(take_command(&file), None);
        std::fs::write(&victim, "pause").unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        send_command(folder.path(), "abort").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"pause", "a link is replaced, not followed");
        assert_eq!(take_command(&file).as_deref(), Some(&b"abort"[..]));
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        assert_eq!(take_command(&file), None);
        assert!(victim.exists() && !file.exists());
        let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
        assert!(made.success());
        assert!(send_command(folder.path(), "abort").is_err(), "a pipe is not replaced");
        assert_eq!(take_command(&file), None);
    }
}
