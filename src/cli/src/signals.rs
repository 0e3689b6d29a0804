//! Ctrl-C (SIGINT) and SIGTERM: one listener for the whole process, and what is done when one of them comes. Knows no command.

use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// Returns the exit code of a program that this signal ended.
    pub fn exit_code(self) -> i32 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// Called on the listener's thread with each signal.
pub type Handler = Box<dyn FnMut(Signal) + Send>;

/// The process's signals. Until something is handled or listened to, a signal ends the process as the system does.
#[derive(Default)]
pub struct Signals {
    handler: Arc<Mutex<Option<Handler>>>,
    listener: OnceLock<bool>,
}

impl Signals {
    /// Replaces the handler, and starts no listener: for commands that have a listener of their own.
    pub fn set_handler(&self, handler: Handler) {
        *self.handler.lock() = Some(handler);
    }

    /// Listens from now on, with this handler unless there is one already. Returns false where signal handlers can't be installed.
    pub fn listen(&self, default: impl FnOnce() -> Handler) -> bool {
        self.handler.lock().get_or_insert_with(default);
        *self.listener.get_or_init(|| start(Arc::clone(&self.handler)))
    }
}

/// Starts the listener's thread, and waits until it handles signals.
fn start(handler: Arc<Mutex<Option<Handler>>>) -> bool {
    let (ready, wait) = channel();
    let listen = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let _ = ready.send(());
            loop {
                let signal = tokio::select! {
                    biased;
                    _ = terminate.recv() => Signal::Terminate,
                    _ = interrupt.recv() => Signal::Interrupt,
                };
                if let Some(handler) = &mut *handler.lock() {
                    handler(signal);
                }
            }
        });
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
    thread.is_ok() && wait.recv().is_ok()
}
