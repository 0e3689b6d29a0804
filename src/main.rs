//! The binary: runs the command line and exits with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(flotilla::command::run(std::env::args_os()) as u8)
}
