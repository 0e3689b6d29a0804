//! Colours: which of stdout and stderr shows them. Text is painted once, for either stream; the stream that shows none
//! takes the colours out.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;

static STDOUT: AtomicBool = AtomicBool::new(false);
static STDERR: AtomicBool = AtomicBool::new(false);

/// The values of `--color`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// Returns the choice of a command line that may not be valid, for the errors about it.
pub(super) fn of_arguments(arguments: &[OsString]) -> clap::ColorChoice {
    let mut words = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut choice = clap::ColorChoice::Auto;
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--color") {
            Some("") => words.next(),
            Some(value) => value.strip_prefix('='),
            None => continue,
        };
        choice = value.and_then(|value| value.parse().ok()).unwrap_or(choice);
    }
    choice
}

/// A stream of output.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Decides for both streams, before anything is written. `auto` respects `NO_COLOR`, `CI` and `TERM=dumb`.
pub(super) fn choose(choice: ColorChoice) {
    let plain = || is_set("NO_COLOR") || is_set("CI") || is_dumb();
    let shows = |is_terminal: bool| match choice {
        ColorChoice::Auto => is_terminal && !plain(),
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    };
    STDOUT.store(shows(io::stdout().is_terminal()), Ordering::Relaxed);
    STDERR.store(shows(io::stderr().is_terminal()), Ordering::Relaxed);
}

/// Returns whether an environment variable is set to something.
pub(super) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Returns whether the terminal can only append text.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Returns whether text is painted at all.
pub(super) fn is_used() -> bool {
    shows(Stream::Stdout) || shows(Stream::Stderr)
}

/// Returns whether a stream shows colours.
pub(super) fn shows(stream: Stream) -> bool {
    match stream {
        Stream::Stdout => STDOUT.load(Ordering::Relaxed),
        Stream::Stderr => STDERR.load(Ordering::Relaxed),
    }
}

/// Returns a text as a stream shows it: with its colours, or without.
pub(super) fn for_stream(stream: Stream, text: &str) -> Cow<'_, str> {
    match shows(stream) || !text.contains('\x1b') {
        true => Cow::Borrowed(text),
        false => Cow::Owned(anstream::adapter::strip_str(text).to_string()),
    }
}
