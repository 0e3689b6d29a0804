//! `flotilla preview`: temporary copies of workers. They are listed from the cloud each time: a preview is deployed
//! by one machine and removed by another.

mod down;
mod list;
mod up;

use std::path::PathBuf;

use clap::Subcommand;

use flotilla_model::failure::{Exit, Failure};
use flotilla_model::preview::check_id;

use super::{Session, summary};

#[derive(Subcommand)]
pub(super) enum Arguments {
    /// Create or update a preview, and wait until each worker is healthy
    Up(up::Arguments),
    /// List the fleet's previews: customers, hosts, expiry
    List(list::Arguments),
    /// Remove a preview: its domains, databases and workers
    Down(down::Arguments),
}

impl Arguments {
    /// The file that a summary is appended to.
    pub(super) fn summary(&self) -> Option<PathBuf> {
        match self {
            Arguments::Up(arguments) => arguments.summary.clone(),
            Arguments::List(_) | Arguments::Down(_) => None,
        }
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments {
        Arguments::Up(arguments) => summary::of("flotilla preview up", session, up::run(session, arguments)),
        Arguments::List(arguments) => list::run(session, arguments),
        Arguments::Down(arguments) => down::run(session, arguments),
    }
}

/// The id of a preview, on the command line.
fn id(text: &str) -> Result<String, String> {
    check_id(text).map(|()| text.to_owned())
}
