//! The binary: runs the command line and exits with its code. A panic is a bug, and is reported as one.

use std::process::ExitCode;

use flotilla_model::failure::Exit;

/// Building is mostly small values; the system's allocator takes a fifth longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version, commit and target that `--version` prints.
const VERSION: &str = env!("FLOTILLA_VERSION");

fn main() -> ExitCode {
    if let Some(code) = flotilla_cli::helper() {
        return code;
    }
    // A panic of any thread that matters arrives here; its message and place were printed when it happened.
    let exit = std::panic::catch_unwind(|| flotilla_cli::run(std::env::args_os(), VERSION)).unwrap_or(Exit::Bug);
    ExitCode::from(exit as u8)
}
