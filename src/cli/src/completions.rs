//! `flotilla completions`.

use clap::CommandFactory as _;

use flotilla_model::failure::{Exit, Failure};

use super::{Arguments, report};

pub(super) fn run(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "flotilla", &mut script);
    report::print(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}
