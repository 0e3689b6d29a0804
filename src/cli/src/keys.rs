//! The keys of a terminal, one by one and without an echo, for as long as something runs. Knows no command.

use std::io::{IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use flotilla_model::progress::Progress as _;

use super::ui::Ui;

/// Keys are read until this is dropped; then the terminal is as it was.
pub(super) struct Keys {
    /// The terminal's modes before.
    before: Termios,
}

impl Keys {
    /// Reads keys if there is a terminal, and shows what they do.
    pub(super) fn read(ui: &Ui, help: &str, mut on_key: impl FnMut(u8) + Send + 'static) -> Option<Keys> {
        if !ui.0.bars || !std::io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        ui.note(help);
        let _ = std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            for byte in std::io::stdin().lock().bytes() {
                match byte {
                    Ok(key) => on_key(key),
                    Err(_) => return,
                }
            }
        });
        Some(Keys { before })
    }

    /// Restores the modes of the terminal.
    pub(super) fn restore(&self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.restore();
    }
}
