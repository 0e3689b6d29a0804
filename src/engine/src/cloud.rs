//! The cloud of a run: accounts, their tokens, the API's address; or the local Cloudflare emulator.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};

use flotilla_deploy::cloudflare::{BASE, BASE_VARIABLE};
use flotilla_deploy::pace::{Priority, Rate};
use flotilla_local as local;
use flotilla_model::customer::SHARED;
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::limits::Limit;
use flotilla_model::lock::Lock;
use flotilla_model::plain_file;
use flotilla_model::platform::Home;
use flotilla_model::progress::Progress;
use flotilla_model::spec::{Account, AccountId, ApiLimit};
use flotilla_model::tags;
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use crate::context::{Context, FOLDER};
use crate::credentials::{InvalidId, TOKEN_FORM, check_account_id, check_token};
use crate::workerd;

/// The port of the local Cloudflare emulator, unless another one is chosen.
pub const PORT: u16 = 8787;

/// A cloud and how to reach it.
pub struct Cloud {
    /// The API's address.
    pub base: String,
    /// The port on which the emulator serves the workers, if the cloud is local.
    pub local: Option<u16>,
    /// The emulator's folder, if the cloud is local.
    folder: Option<PathBuf>,
    /// The file of its state.
    pub state: PathBuf,
    /// The accounts' ids by name, as far as they are known here.
    ids: BTreeMap<String, Option<String>>,
    /// The accounts' ids that no account can have, by name.
    invalid: BTreeMap<String, InvalidId>,
    /// The accounts' names by their ids, as far as these are known here: of several, the last one, whose token is used.
    names: HashMap<String, String>,
    /// The priority of the requests that look at it.
    pub priority: Priority,
    /// Running as long as this value lives.
    pub running: Option<local::Running>,
    /// The workers.dev subdomains that this run has looked up, by account id; none where that failed. Each is looked up once.
    pub(crate) subdomains: Mutex<HashMap<String, Option<String>>>,
    /// The limits of the local emulator's accounts.
    limits: local::PlatformLimits,
}

/// The cloud of a run.
#[derive(Clone, Debug, Default)]
pub struct CloudOptions {
    /// The local emulator instead of Cloudflare.
    pub local: bool,
    /// The dotenv file with secrets, in place of those of fleet.yaml.
    pub env_file: Option<PathBuf>,
}

impl CloudOptions {
    /// Opens the sources of a fleet's secrets.
    pub fn secrets(&self, context: &Context<'_>, fleet: &Fleet) -> Result<Secrets, Failure> {
        Secrets::open(&context.root, fleet.file.secrets.as_deref(), self.env_file.as_deref(), self.local)
    }
}

impl Cloud {
    /// Returns the cloud of a command. Starts nothing and sends nothing.
    pub fn new(
        context: &Context<'_>,
        fleet: &Fleet,
        options: &CloudOptions,
        secrets: &Secrets,
    ) -> Result<Cloud, Failure> {
        if options.local {
            // Each account of the fleet is one of its own, named after itself.
            let folder = local_folder(&context.root);
            let running = running(&folder);
            let ids = fleet.accounts.keys().map(|name| (name.clone(), Some(local_account_id(name)))).collect();
            return Ok(Cloud {
                names: names_by_id(&ids),
                base: running.map_or_else(String::new, api),
                local: Some(running.map_or(PORT, |address| address.port())),
                folder: Some(folder),
                state: local_folder(&context.place()).join("state.db"),
                ids,
                priority: Priority::Interactive,
                limits: platform_limits(fleet),
                running: None,
                invalid: BTreeMap::new(),
                subdomains: Mutex::default(),
            });
        }
        let base = api_base(secrets)?;
        let (mut ids, mut invalid) = (BTreeMap::new(), BTreeMap::new());
        for (name, account) in fleet.accounts.iter() {
            let (id, place) = match &account.id {
                AccountId::Literal(id) => (Some(id.clone()), "in fleet.yaml".to_owned()),
                AccountId::Variable { env } => match secrets.find_named(env) {
                    Some(found) if found.source == "environment" => {
                        (Some(found.value.expose_secret().to_owned()), format!("the variable {env}"))
                    }
                    Some(found) => (Some(found.value.expose_secret().to_owned()), format!("{env} in {}", found.source)),
                    None => (None, String::new()),
                },
            };
            if let Some(Err(problem)) = id.as_deref().map(check_account_id) {
                invalid.insert(name.clone(), InvalidId { account: name.clone(), place, problem });
            }
            ids.insert(name.clone(), id);
        }
        // Another address is another cloud: what is deployed there says nothing about this one.
        let state = if base.trim_end_matches('/') == BASE {
            context.folder().join("state.db")
        } else {
            context.folder().join(format!("state-{}.db", Digest::of(base.as_bytes()).short()))
        };
        let (priority, limits) = (Priority::Interactive, local::PlatformLimits::default());
        Ok(Cloud {
            base,
            local: None,
            folder: None,
            state,
            names: names_by_id(&ids),
            ids,
            invalid,
            priority,
            limits,
            running: None,
            subdomains: Mutex::default(),
        })
    }

    /// Starts the local Cloudflare emulator if the cloud is that, unless one is running for this project already.
    pub fn start(&mut self, context: &Context<'_>) -> Result<(), Failure> {
        if self.local.is_none() || !self.base.is_empty() {
            return Ok(());
        }
        let progress = context.operator.background();
        let mut options = local_options(&context.root, progress, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        options.limits = self.limits.clone();
        let running = local::start(options).map_err(|error| cannot_start(&local_folder(&context.root), error))?;
        self.base = running.api_base();
        self.running = Some(running);
        Ok(())
    }

    /// Returns why the local emulator that was found running can't be reached at its address any more; nothing while it can, and for
    /// other clouds.
    pub fn outage(&self) -> Option<String> {
        let folder = self.folder.as_deref().filter(|_| self.running.is_none() && !self.base.is_empty())?;
        match running(folder) {
            None => Some("the local Cloudflare emulator has stopped".to_owned()),
            Some(address) if api(address) == self.base => None,
            Some(address) => Some(format!("the local Cloudflare emulator now listens on {address}")),
        }
    }

    /// The home of an account's workers. Without the account's id, a home that nothing is deployed to.
    pub fn home(&self, account: &str, namespace: Option<&str>) -> Home {
        let id = self.ids.get(account).cloned().flatten().unwrap_or_default();
        Home { account_id: id, namespace: namespace.map(str::to_owned) }
    }

    /// Returns the rate of an account's requests, by its limit in fleet.yaml.
    pub fn rate(&self, limit: Option<ApiLimit>) -> Rate {
        let rate = Rate::new(limit);
        if self.local.is_some() { rate.of_emulator() } else { rate }
    }

    /// Returns the name of the account with this id; of several, the last one.
    pub fn account_name(&self, account_id: &str) -> Option<&str> {
        self.names.get(account_id).map(String::as_str)
    }

    /// Returns whether it is Cloudflare itself: neither the local emulator nor another API.
    pub fn is_cloudflare(&self) -> bool {
        self.local.is_none() && self.base.trim_end_matches('/') == BASE
    }

    /// The accounts whose ids aren't known here.
    pub fn unknown<'a>(&self, accounts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        accounts.into_iter().filter(|account| self.ids.get(*account).cloned().flatten().is_none()).collect()
    }

    /// The accounts whose ids no account can have.
    pub fn invalid<'a>(&self, accounts: impl IntoIterator<Item = &'a str>) -> Vec<&InvalidId> {
        accounts.into_iter().filter_map(|account| self.invalid.get(account)).collect()
    }

    /// The tokens of accounts, by account id; what to set where one is missing.
    pub fn tokens<'a>(
        &self,
        fleet: &Fleet,
        accounts: impl IntoIterator<Item = &'a str>,
        secrets: &Secrets,
    ) -> Result<HashMap<String, SecretString>, Failure> {
        let token = |folder| local::own_token(folder).map_err(|error| cannot_start(folder, error));
        let own = self.folder.as_deref().map(token).transpose()?;
        self.tokens_with(own, fleet, accounts, secrets)
    }

    /// The same, for reading only: the local emulator gets no token that it doesn't have, so that nothing is written.
    pub fn tokens_to_look_at<'a>(
        &self,
        fleet: &Fleet,
        accounts: impl IntoIterator<Item = &'a str>,
        secrets: &Secrets,
    ) -> Result<HashMap<String, SecretString>, Failure> {
        let own = self.folder.as_deref().map(|folder| local::known_token(folder).unwrap_or_default());
        self.tokens_with(own, fleet, accounts, secrets)
    }

    fn tokens_with<'a>(
        &self,
        own: Option<String>,
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
            let token = match &own {
                Some(own) => Some(SecretString::from(own.as_str())),
                None => secrets.token(&account.token.secret),
            };
            match token {
                Some(token) => {
                    self.check_credentials(name, account, &token)?;
                    tokens.insert(self.home(name, None).account_id, token);
                }
                None => missing.push(format!("{} (the API token of the account `{name}`)", account.token.secret)),
            }
        }
        if missing.is_empty() {
            return Ok(tokens);
        }
        let closed = secrets.closed().into_iter().map(|(source, why)| format!("{source} can't be read: {why}"));
        Err(closed.fold(Failure::new("Cloudflare credentials are not set"), Failure::hint)
            .hint(format!("set {}, in the environment or in .env", missing.join(" and ")))
            .hint("the token needs the permissions `Workers Scripts: Edit`, `Workers Routes: Edit` for routes and domains, and `D1: Edit` for databases")
            .hint("or use the local emulator: flotilla deploy --local"))
    }
}

impl Cloud {
    /// Rejects credentials that no request can carry, before one is tried.
    fn check_credentials(&self, name: &str, account: &Account, token: &SecretString) -> Result<(), Failure> {
        check_token(token).map_err(|what| {
            let name = format!("the API token of the account `{name}`, {},", account.token.secret);
            Failure::new(format!("{name} contains {what}")).hint(TOKEN_FORM)
        })?;
        self.invalid.get(name).map_or(Ok(()), |invalid| Err(invalid.failure()))
    }
}

/// Returns the last name of each account by its id.
fn names_by_id(ids: &BTreeMap<String, Option<String>>) -> HashMap<String, String> {
    ids.iter().filter_map(|(name, id)| Some((id.clone()?, name.clone()))).collect()
}

/// Returns the id that an account has in the local emulator.
pub fn local_account_id(name: &str) -> String {
    Digest::of(name.as_bytes()).to_string()[..32].to_owned()
}

/// Returns the API's address: Cloudflare's own, or the one that the environment sets. A project's file that sets another is refused, as
/// it would send the account's token there.
pub fn api_base(secrets: &Secrets) -> Result<String, Failure> {
    match secrets.chosen(BASE_VARIABLE) {
        Ok(set) => Ok(set.map_or_else(|| BASE.to_owned(), |base| base.expose_secret().to_owned())),
        Err(set) if set.value.trim_end_matches('/') == BASE => Ok(BASE.to_owned()),
        Err(set) => Err(Failure::refused(format!(
            "{} sets {BASE_VARIABLE}, which decides where the API token is sent: a project's file must not set it",
            set.file
        ))
        .hint(format!(
            "remove it from {}, and set it in the environment if this is intended: `export {BASE_VARIABLE}=…`",
            set.file
        ))
        .hint(format!("or name the file on the command line: `--env-file {}`", set.file))),
    }
}

/// Returns the folder of the local Cloudflare emulator.
pub fn local_folder(root: &Path) -> PathBuf {
    root.join(FOLDER).join("local")
}

/// The file with the address of a running one.
pub fn address_file(folder: &Path) -> PathBuf {
    folder.join("address")
}

/// A running emulator holds this lock. Without it, the address is outdated, and another program may listen there now.
pub fn lock_file(folder: &Path) -> PathBuf {
    folder.join("local.lock")
}

/// The address of a Cloudflare that runs for this project, if one does.
fn running(folder: &Path) -> Option<SocketAddr> {
    if !Lock::is_held(&lock_file(folder)) {
        return None;
    }
    let text = plain_file::read(&address_file(folder), 100).ok()?;
    let address: SocketAddr = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
    address.ip().is_loopback().then_some(address)
}

fn api(address: SocketAddr) -> String {
    format!("http://{address}/client/v4")
}

/// Returns the failure for an emulator that can't start: another program has its port, or its folder can't be written to.
pub fn cannot_start(folder: &Path, error: anyhow::Error) -> Failure {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let kinds: Vec<ErrorKind> = kinds.collect();
    let failure = Failure::from(error.context("the local Cloudflare emulator can't start"));
    if kinds.contains(&ErrorKind::AddrInUse) {
        return failure.hint("--port 0 picks a free port");
    }
    match kinds.iter().any(|kind| matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)) {
        true => {
            failure.hint(format!("it keeps its data in {}: make that folder and its files writable", folder.display()))
        }
        false => failure,
    }
}

/// Returns how the local Cloudflare emulator of a project is started.
pub fn local_options(
    root: &Path,
    progress: Arc<dyn Progress + Send + Sync>,
    address: SocketAddr,
) -> Result<local::Options, Failure> {
    let mut options = local::Options::new(local_folder(root));
    let token = local::own_token(&options.folder).map_err(|error| cannot_start(&options.folder, error))?;
    options.token = Some(token);
    options.address = address;
    options.make_bound = true;
    options.group = Some(Arc::new(|tags: &[String]| {
        tags::read(tags)
            .customer
            .map(|customer| if customer == SHARED { "shared workers" } else { customer }.to_owned())
    }));
    let failed = |failure: Failure| anyhow::anyhow!("{failure}; {}", failure.hints.join("; "));
    let of_assets = Arc::clone(&progress);
    options.workerd = local::Workerd::Lazy(Arc::new(move || workerd::path(&*progress).map_err(failed)));
    options.asset_workers = Some(Arc::new(move || workerd::asset_workers(&*of_assets).map_err(failed)));
    Ok(options)
}

/// Returns the limits that the local emulator has: those of fleet.yaml's accounts, by their plan and `limits`. The emulator has one set for
/// all accounts: of several, the largest; the plan checks each account's own.
pub fn platform_limits(fleet: &Fleet) -> local::PlatformLimits {
    let mut limits = local::PlatformLimits::default();
    let of = |limit: Limit| fleet.accounts.values().map(|account| fleet.limit_of(account, limit)).max();
    let size = |limit: Limit| of(limit).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    limits.workers = of(Limit::Workers).unwrap_or(limits.workers);
    limits.crons = of(Limit::Crons).unwrap_or(limits.crons);
    limits.databases = of(Limit::Databases).unwrap_or(limits.databases);
    limits.domains = of(Limit::CustomDomainsPerZone).unwrap_or(limits.domains);
    limits.routes = of(Limit::RoutesPerZone).unwrap_or(limits.routes);
    limits.vars = size(Limit::Variables).unwrap_or(limits.vars);
    limits.var_bytes = size(Limit::VariableBytes).unwrap_or(limits.var_bytes);
    limits.script_bytes = size(Limit::ScriptBytes).unwrap_or(limits.script_bytes);
    limits.asset_files = size(Limit::AssetFiles).unwrap_or(limits.asset_files);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everyone is refused a new folder in /sys: it belongs to the system, or is mounted read-only.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_folder_that_cannot_be_written_to_is_named_with_what_to_do() {
        let folder = Path::new("/sys/kernel/flotilla");
        let failure = cannot_start(folder, local::own_token(folder).expect_err("nothing can be created there"));
        assert!(failure.to_string().starts_with("the local Cloudflare emulator can't start: "), "{failure}");
        assert!(failure.to_string().contains("/sys/kernel/flotilla"), "{failure}");
        let hint = "it keeps its data in /sys/kernel/flotilla: make that folder and its files writable";
        assert_eq!(failure.hints, [hint]);
    }
}
