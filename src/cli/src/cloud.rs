//! Where a command's workers go: the accounts, their tokens, the API's address; or the Cloudflare on this machine.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use flotilla_deploy::cloudflare::{BASE, BASE_VARIABLE};
use flotilla_deploy::pace::Priority;
use flotilla_deploy::state::Deployed;
use flotilla_local as local;
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::platform::Home;
use flotilla_model::spec::AccountId;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use super::Session;

/// The folder of what flotilla keeps for a project.
pub const FOLDER: &str = ".flotilla";
/// The port of the Cloudflare on this machine, unless told otherwise.
pub const PORT: u16 = 8787;
/// The token that the Cloudflare on this machine is asked with.
const LOCAL_TOKEN: &str = "local";

/// A cloud and how to reach it.
pub struct Cloud {
    /// The API's address.
    pub base: String,
    /// Where it serves the workers, if it is on this machine.
    pub local: Option<u16>,
    /// The file of its state.
    pub state: PathBuf,
    /// The accounts' ids by name, as far as they are known here.
    ids: BTreeMap<String, Option<String>>,
    /// The priority of the requests that look at it.
    pub priority: Priority,
    /// Running as long as this value lives.
    pub running: Option<local::Running>,
}

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
    /// The sources of a fleet's secrets, with these options.
    pub fn secrets(&self, session: &Session, fleet: &Fleet) -> Result<Secrets, Failure> {
        Secrets::open(&session.root, fleet.file.secrets.as_deref(), self.env_file.as_deref(), self.local)
    }
}

impl Cloud {
    /// The cloud that a command is for. Starts nothing and asks nothing.
    pub fn new(
        session: &Session,
        fleet: &Fleet,
        arguments: &CloudArguments,
        secrets: &Secrets,
    ) -> Result<Cloud, Failure> {
        if arguments.local {
            // Each account of the fleet is one of its own, named after itself.
            let folder = local_folder(&session.root);
            let running = running(&folder);
            let ids = fleet
                .accounts
                .keys()
                .map(|name| (name.clone(), Some(Digest::of(name.as_bytes()).to_string()[..32].to_owned())));
            return Ok(Cloud {
                base: running.map_or_else(String::new, api),
                local: Some(running.map_or(PORT, |address| address.port())),
                state: local_folder(&session.place()).join("state.db"),
                ids: ids.collect(),
                priority: Priority::Interactive,
                running: None,
            });
        }
        let base = secrets_variable(secrets, BASE_VARIABLE).unwrap_or_else(|| BASE.to_owned());
        let ids = fleet.accounts.iter().map(|(name, account)| {
            let id = match &account.id {
                AccountId::Literal(id) => Some(id.clone()),
                AccountId::Variable { env } => secrets_variable(secrets, env),
            };
            (name.clone(), id)
        });
        let ids = ids.collect();
        // Another address is another cloud: what is deployed there says nothing about this one.
        let state = if base.trim_end_matches('/') == BASE {
            session.place().join(FOLDER).join("state.db")
        } else {
            session.place().join(FOLDER).join(format!("state-{}.db", Digest::of(base.as_bytes()).short()))
        };
        Ok(Cloud { base, local: None, state, ids, priority: Priority::Interactive, running: None })
    }

    /// Starts the Cloudflare on this machine, unless one is running for this project already.
    pub fn start(&mut self, session: &Session) -> Result<(), Failure> {
        if !self.base.is_empty() {
            return Ok(());
        }
        let options = local_options(session, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let running = local::start(options)?;
        self.base = running.api_base();
        self.running = Some(running);
        Ok(())
    }

    /// The home of an account's workers. Without the account's id, a home that nothing is deployed to.
    pub fn home(&self, account: &str, namespace: Option<&str>) -> Home {
        let id = self.ids.get(account).cloned().flatten().unwrap_or_default();
        Home { account_id: id, namespace: namespace.map(str::to_owned) }
    }

    /// Where a worker is asked whether it is well. Behind another address than Cloudflare's own, its workers' public names mean
    /// nothing: there they are asked by their path, as the Cloudflare on this machine serves them.
    pub fn address(&self, worker: &str, live: &Deployed, subdomain: Option<String>) -> Option<String> {
        if let (Some(port), true) = (self.local, self.base.is_empty()) {
            return Some(format!("http://127.0.0.1:{port}/workers/{worker}"));
        }
        if self.base.trim_end_matches('/') != BASE {
            let origin = self.base.trim_end_matches('/').trim_end_matches("/client/v4");
            return Some(format!("{origin}/workers/{worker}"));
        }
        super::status::url(self, worker, live, || subdomain)
    }

    /// The accounts whose ids aren't known here.
    pub fn unknown<'a>(&self, accounts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        accounts.into_iter().filter(|account| self.ids.get(*account).cloned().flatten().is_none()).collect()
    }

    /// The tokens of accounts, by account id; what to set where one is missing.
    pub fn tokens<'a>(
        &self,
        fleet: &Fleet,
        accounts: impl IntoIterator<Item = &'a str>,
        secrets: &Secrets,
    ) -> Result<HashMap<String, SecretString>, Failure> {
        let mut tokens = HashMap::new();
        let mut missing = Vec::new();
        for name in accounts {
            let account = &fleet.accounts[name];
            if let (AccountId::Variable { env }, None) = (&account.id, self.ids.get(name).cloned().flatten()) {
                missing.push(format!("{env} (the id of the account `{name}`)"));
            }
            let token = if self.local.is_some() {
                Some(SecretString::from(LOCAL_TOKEN))
            } else {
                secrets.token(&account.token.secret)
            };
            match token {
                Some(token) => {
                    tokens.insert(self.home(name, None).account_id, token);
                }
                None => missing.push(format!("{} (the API token of the account `{name}`)", account.token.secret)),
            }
        }
        if missing.is_empty() {
            return Ok(tokens);
        }
        Err(Failure::new("the credentials of Cloudflare are not set")
            .hint(format!("set {}, in the environment or in .env", missing.join(" and ")))
            .hint("a token with the permission `Workers Scripts: Edit` (and `Workers Routes: Edit` for routes and domains) is enough")
            .hint("or try it without Cloudflare: flotilla deploy --local"))
    }
}

fn secrets_variable(secrets: &Secrets, name: &str) -> Option<String> {
    use secrecy::ExposeSecret as _;
    secrets.named(name).map(|value| value.expose_secret().to_owned())
}

/// The folder of the Cloudflare on this machine.
pub fn local_folder(root: &Path) -> PathBuf {
    root.join(FOLDER).join("local")
}

/// The file with the address of a running one.
pub fn address_file(folder: &Path) -> PathBuf {
    folder.join("address")
}

/// The lock that a running one holds. Without it, the address is an old one, and something else may be there now.
pub fn lock_file(folder: &Path) -> PathBuf {
    folder.join("local.lock")
}

/// The address of a Cloudflare that runs for this project, if one does.
fn running(folder: &Path) -> Option<SocketAddr> {
    if !Lock::is_held(&lock_file(folder)) {
        return None;
    }
    std::fs::read_to_string(address_file(folder)).ok()?.trim().parse().ok()
}

fn api(address: SocketAddr) -> String {
    format!("http://{address}/client/v4")
}

/// How the Cloudflare on this machine is started.
pub fn local_options(session: &Session, address: SocketAddr) -> local::Options {
    let ui = session.ui.clone();
    let mut options = local::Options::new(local_folder(&session.root));
    options.address = address;
    options.make_bound = true;
    options.workerd = local::Workerd::Lazy(Arc::new(move || {
        flotilla_engine::workerd::path(&ui)
            .map_err(|failure| anyhow::anyhow!("{failure}; {}", failure.hints.join("; ")))
    }));
    options
}
