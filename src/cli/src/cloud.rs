//! The options that select a command's cloud.

use std::path::PathBuf;

use flotilla_deploy::state::State;
use flotilla_engine::cloud::{Cloud, CloudOptions};
use flotilla_engine::operator::{Event, Operator as _};
use flotilla_model::failure::Failure;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::secrets::Secrets;
use flotilla_spec::tree::Tree;

use super::Session;
use super::selection::Selection;
use super::ui::clean;

/// The options of commands that read from Cloudflare.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CloudArguments {
    /// Use the local Cloudflare emulator
    #[arg(long)]
    pub local: bool,
    /// Read secrets from this dotenv file instead of the sources in fleet.yaml [default: .env, if it exists]
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// The options of commands that read customers' resources from Cloudflare.
#[derive(clap::Args)]
pub struct CustomersArguments {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub cloud: CloudArguments,
}

impl CloudArguments {
    /// Returns the engine's options.
    pub fn options(&self) -> CloudOptions {
        CloudOptions { local: self.local, env_file: self.env_file.clone() }
    }

    /// Opens the sources of a fleet's secrets, the cloud and its state. Starts nothing and sends nothing.
    pub fn open(&self, session: &Session, fleet: &Fleet) -> Result<(Secrets, Cloud, State), Failure> {
        let secrets = self.options().secrets(&session.context(), fleet)?;
        let cloud = Cloud::new(&session.context(), fleet, &self.options(), &secrets)?;
        for invalid in cloud.invalid(fleet.accounts.keys().map(String::as_str)) {
            session.operator.on_event(&Event::InvalidId(invalid));
        }
        let state = State::read(&cloud.state)?;
        Ok((secrets, cloud, state))
    }

    /// Rejects a customer that has no file and is not in the state.
    pub fn check_customer(session: &Session, state: &State, customer: &str) -> Result<(), Failure> {
        let is_plain = !customer.is_empty() && !customer.contains(['/', '\\']);
        let has_file = is_plain && session.root.join("customers").join(format!("{customer}.yaml")).is_file();
        if has_file || !state.of_customer(customer)?.is_empty() || !state.records_of(customer, 1)?.is_empty() {
            return Ok(());
        }
        let failure = Failure::usage(format!("there is no customer `{}`", clean(customer)));
        Err(failure.hint(
            "a customer's id is the name of its file in customers/, without `.yaml`; `flotilla state show` lists what is deployed",
        ))
    }

    /// Opens the cloud of the session's fleet, and its state.
    pub fn state(&self, session: &Session) -> Result<State, Failure> {
        let fleet = project::read_fleet(&Tree::new(&session.root)).map_err(Failure::invalid)?;
        Ok(self.open(session, &fleet)?.2)
    }
}
