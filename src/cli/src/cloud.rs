//! The options that select a command's cloud.

use std::path::PathBuf;

use flotilla_engine::cloud::{Cloud, CloudOptions};
use flotilla_model::failure::Failure;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use super::Session;

/// The options of commands that look at the cloud.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CloudArguments {
    /// A Cloudflare on this machine instead of the real one
    #[arg(long)]
    pub local: bool,
    /// The dotenv file with secrets, in place of those of fleet.yaml [default: .env, if it is there]
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

impl CloudArguments {
    /// Returns the engine's options.
    pub fn options(&self) -> CloudOptions {
        CloudOptions { local: self.local, env_file: self.env_file.clone() }
    }

    /// Opens the sources of a fleet's secrets.
    pub fn secrets(&self, session: &Session, fleet: &Fleet) -> Result<Secrets, Failure> {
        self.options().secrets(&session.context(), fleet)
    }

    /// Returns the cloud. Starts nothing and sends nothing.
    pub fn cloud(&self, session: &Session, fleet: &Fleet, secrets: &Secrets) -> Result<Cloud, Failure> {
        Cloud::new(&session.context(), fleet, &self.options(), secrets)
    }
}
