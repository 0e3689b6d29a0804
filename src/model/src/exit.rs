//! The exit codes of the program.

/// The exit codes of the program; documented in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Errors in the files, or a failure before anything was changed.
    Diagnostics = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Changes are pending (`plan --exit-code`, `build --check`).
    Pending = 3,
    /// Some changes failed.
    SomeFailed = 4,
    /// Refused: unsafe or stale plan, lock, no confirmation.
    Refused = 5,
    /// A bug in flotilla.
    Bug = 70,
}
