//! Standard output, and the errors of writing output: to stdout, and to files that the command line names. They are kept until the command
//! ends, and make it fail, so that no result is silently lost and nothing is left half done because of one. Only a reader that went away is
//! no error.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use flotilla_model::failure::Failure;
use flotilla_model::text::without_commands;

use super::color::{self, Stream};

/// The outputs that could not be written.
static FAILED: Mutex<Vec<Lost>> = Mutex::new(Vec::new());
/// Whether stdout accepts nothing more, for whatever reason.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// An output that could not be written.
struct Lost {
    /// The output, in words: `stdout can't be written`.
    what: String,
    /// The first error.
    error: String,
    is_reported: bool,
}

/// Standard output. Its errors are kept, besides being returned.
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        kept(io::stdout().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        kept(io::stdout().lock().flush())
    }
}

/// Writes lines to stdout, without what a CI system would read as a command.
pub fn print(text: &str) {
    print_line(&color::for_stream(Stream::Stdout, &without_commands(text)));
}

/// Writes a line to stdout as it is.
pub fn print_line(text: &str) {
    // The error is kept.
    let _ = Stdout.write_all(format!("{text}\n").as_bytes()).and_then(|()| Stdout.flush());
}

/// Returns whether stdout is a terminal, with its number of columns if that is known.
pub fn columns() -> Option<usize> {
    columns_of(io::stdout())
}

/// Returns the number of columns of stderr, if it is a terminal.
pub fn stderr_columns() -> Option<usize> {
    columns_of(io::stderr())
}

fn columns_of(stream: impl io::IsTerminal + std::os::fd::AsFd) -> Option<usize> {
    let size = stream.is_terminal().then(|| rustix::termios::tcgetwinsize(&stream).ok()).flatten()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Returns whether stdout accepts nothing more: then further output is useless.
pub fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

fn kept<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() != io::ErrorKind::Interrupted
    {
        IS_CLOSED.store(true, Ordering::Relaxed);
        keep_error("stdout can't be written", error);
    }
    result
}

/// Keeps the error of an output until the command ends, unless it is that of a reader that went away.
pub fn keep_error(what: &str, error: &io::Error) {
    let mut failed = FAILED.lock();
    if error.kind() != io::ErrorKind::BrokenPipe && failed.iter().all(|lost| lost.what != what) {
        failed.push(Lost { what: what.to_owned(), error: error.to_string(), is_reported: false });
    }
}

/// Appends to a file that the command line names, a device or a pipe, or creates it. An error is kept.
pub fn append(what: &str, path: &Path, bytes: &[u8]) {
    let written =
        std::fs::OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(bytes));
    if let Err(error) = written {
        keep_error(&format!("{what} can't be written to {}", path.display()), &error);
    }
}

/// Returns the failures of the outputs that could not be written, each once.
pub fn failures() -> Vec<Failure> {
    let mut failed = FAILED.lock();
    let new = failed.iter_mut().filter(|lost| !lost.is_reported);
    new.map(|lost| {
        lost.is_reported = true;
        Failure::new(format!("{}: {}", lost.what, lost.error))
    })
    .collect()
}

/// Fails if an output could not be written: for commands that run until they are stopped.
pub fn require_written() -> Result<(), Failure> {
    match failures().into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
