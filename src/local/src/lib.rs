//! The local Cloudflare emulator: the operations of the API that flotilla and wrangler use, the limits, faults on
//! request, and the deployed workers, served by workerd. Knows nothing of flotilla, apart from the rules of static
//! assets, which both need.
//!
//! Everything is stored in one folder: `cloudflare.db` (the account's objects), `d1/` and `libsql/` (the workers' databases), `objects/`
//! (the workers' Durable Objects) and `key`. Secrets are stored sealed with that key, which only keeps their plain text out of the folder:
//! anyone who can read the folder can open them, so use made-up credentials.
//!
//! It sends nothing anywhere, and what workers fetch never leaves the machine.

mod accounts;
mod activity;
mod api;
mod asset_service;
mod asset_store;
mod assets;
mod audit;
mod bookmarks;
mod caches;
mod call;
mod capnp;
mod clock;
mod cloud;
mod crons;
mod databases;
mod directory;
mod domains;
mod egress;
mod envelope;
mod faults;
mod form;
mod hrana;
mod index;
mod journal;
mod kv;
mod libsql;
mod limits;
mod namespaces;
mod objects;
mod page;
mod queues;
mod r2;
mod routing;
mod scratch;
mod scripts;
mod seal;
mod secrets;
mod serve;
mod settings;
mod sql;
mod store;
mod tail_list;
mod tails;
mod triggers;
mod upload;
mod versions;
mod workerd;
mod workers;
mod workflows;
mod zone_settings;
mod zones;

use std::fs::Metadata;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use activity::{Observer, Trace};
pub use api::operations;
pub use asset_service::AssetWorkers;
pub use clock::Clock;
pub use directory::Group;
pub use faults::{Effect, ErrorAnswer, Fault, Matches, Reset};
pub use limits::{Meter, PlatformLimits, RateLimit, Verdict};
pub use scratch::{Rejected, Scratch};
pub use workerd::Workerd;

/// The options of a local Cloudflare emulator.
#[derive(Clone)]
pub struct Options {
    /// The folder of the storage; created if missing.
    pub folder: PathBuf,
    /// The address to listen on; port 0: any free one.
    pub address: SocketAddr,
    /// The API rate limit of a token.
    pub limit: RateLimit,
    /// The limits of an account.
    pub limits: PlatformLimits,
    /// The emulator's own token, see [`own_token`]. Its control endpoints require it, and the API accepts it. None: they require no token.
    pub token: Option<String>,
    /// The other accepted tokens. Without any, and without a token of the emulator's own: any that has the form of one. `token@account` is one of the account's own, which reaches
    /// nothing else.
    pub tokens: Vec<String>,
    /// The zones; empty: the last two labels of every host are one. `zone@account` belongs to that account, others to the
    /// account that first names them.
    pub zones: Vec<String>,
    /// Hosts whose DNS records Workers doesn't manage: attaching one is refused (100117) unless overridden.
    pub dns_records: Vec<String>,
    /// Make a D1 database or KV namespace when an upload first binds its id. Off: an id that doesn't exist is refused (10181, 10041), as at
    /// Cloudflare. On: specs that name what the real Cloudflare has can be tried out.
    pub make_bound: bool,
    /// The workerd binary.
    pub workerd: Workerd,
    /// Finds the workers that serve static assets; none: workers with assets don't run.
    pub asset_workers: Option<AssetWorkers>,
    /// Secrets that an upload neither sends nor keeps by `keep_bindings` stay. Cloudflare's docs say that a script's
    /// upload replaces all bindings, and wrangler 4.85 relies on secrets that stay: a
    /// client should do the right thing with either. Off: what isn't sent or kept is gone.
    pub keep_secrets: bool,
    /// Let workerd load every upload before it is accepted, so that errors of syntax and imports are refused (10021) as
    /// at Cloudflare. Costs a process per upload; without it they show when the worker is first called.
    pub validate: bool,
    /// The most entries on a page of a list that has pages; none: as many as at Cloudflare.
    pub page_size: Option<usize>,
    /// The faults from the start on.
    pub faults: Vec<Fault>,
    /// Called with each event of a worker: its requests, console lines and exceptions.
    pub observer: Option<Observer>,
    /// The group of a worker on the index page, by its tags; none: there are no groups.
    pub group: Option<Group>,
    /// The path of a worker's health check, by which the index page knows its health.
    pub health_path: String,
    /// The time: for the rate limit, expiries and dates.
    pub clock: Clock,
}

impl Options {
    /// The defaults: 127.0.0.1:8787, Cloudflare's limits, any token, any zone, no workerd.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            address: SocketAddr::from(([127, 0, 0, 1], 8787)),
            limit: RateLimit::default(),
            limits: PlatformLimits::default(),
            token: None,
            tokens: Vec::new(),
            zones: Vec::new(),
            dns_records: Vec::new(),
            make_bound: false,
            workerd: Workerd::Missing("no workerd was given".to_owned()),
            asset_workers: None,
            keep_secrets: false,
            validate: false,
            page_size: None,
            faults: Vec::new(),
            observer: None,
            group: None,
            health_path: "/health".to_owned(),
            clock: clock::machine(),
        }
    }
}

/// The file of an emulator's folder with its own token.
pub const TOKEN_FILE: &str = "token";

/// Returns the token of an emulator's folder, if it has one that nobody else can read; writes nothing.
pub fn known_token(folder: &Path) -> Option<String> {
    let file = folder.join(TOKEN_FILE);
    let is_private =
        |found: Metadata| found.is_file() && found.len() <= 1024 && found.permissions().mode() & 0o077 == 0;
    let known = std::fs::symlink_metadata(&file).is_ok_and(is_private).then(|| std::fs::read_to_string(&file).ok());
    let known = known.flatten().map(|text| text.trim().to_owned());
    known.filter(|token| token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Returns the own token of the emulator in a folder, which is created if it has none. Only its owner can read the file.
///
/// # Errors
/// When the file can't be read or written.
pub fn own_token(folder: &Path) -> anyhow::Result<String> {
    let file = folder.join(TOKEN_FILE);
    let cannot = || format!("{} can't be written", file.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    // What others could read, or is no file, is replaced.
    if let Some(token) = known_token(folder) {
        return Ok(token);
    }
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(cannot),
        _ => {}
    }
    let token = seal::random_word()?;
    match seal::write_private(&file, format!("{token}\n").as_bytes()) {
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(std::fs::read_to_string(&file).with_context(cannot)?.trim().to_owned())
        }
        written => written.map(|()| token).with_context(cannot),
    }
}

/// A running emulator. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    page: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts an emulator on threads of its own; returns when it listens.
///
/// # Errors
/// When the address is in use or the folder can't be used.
pub fn start(options: Options) -> anyhow::Result<Running> {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("local-cloudflare").enable_all().build()?;
    let wanted = options.address;
    workerd::remove_leftovers();
    let cloud = Arc::new(cloud::Cloud::open(options)?);
    zones::make(&cloud).map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    let (listener, egress) = runtime.block_on(async {
        let listener = TcpListener::bind(wanted).await.with_context(|| match wanted.port() {
            0 => format!("can't listen on {wanted}"),
            port => format!("can't listen on {wanted}: is something else using port {port}?"),
        })?;
        let egress =
            TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.context("can't listen for workers' calls")?;
        anyhow::Ok((listener, egress))
    })?;
    let address = listener.local_addr()?;
    cloud.workers.connect(egress.local_addr()?, cloud.store.seal.id());
    let page = format!("http://{address}/?key={}", cloud.page_key);
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("local-cloudflare".to_owned()).spawn(move || {
        runtime.block_on(serve_until(stopped, &cloud, listener, egress));
        // Connections still open are dropped with the runtime.
        runtime.shutdown_timeout(Duration::from_secs(1));
    })?;
    Ok(Running { address, page, stop: Some(stop), thread: Some(thread) })
}

async fn serve_until(
    stopped: oneshot::Receiver<()>,
    cloud: &Arc<cloud::Cloud>,
    listener: TcpListener,
    egress: TcpListener,
) {
    let (outer, inner) = (cloud.clone(), cloud.clone());
    tokio::select! {
        // An error means that the sender is gone, which is as good as told to stop.
        _ = stopped => {}
        () = serve::listen(listener, move |request| serve::answer(outer.clone(), request)) => {}
        () = queues::run(cloud.clone()) => {}
        () = crons::run(cloud.clone()) => {}
        () = serve::listen(egress, move |request| egress::answer(inner.clone(), request)) => {}
        () = async {
            loop {
                tokio::time::sleep(Duration::from_secs(30)).await;
                cloud.workers.sweep().await;
            }
        } => {}
    }
    cloud.workers.end().await;
}

impl Running {
    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of its API, for `CLOUDFLARE_API_BASE_URL`.
    #[must_use]
    pub fn api_base(&self) -> String {
        format!("http://{}{}", self.address, api::BASE)
    }

    /// The address of its page, with the word with which that shows what workers do. Anyone who knows it can read their logs.
    #[must_use]
    pub fn page(&self) -> &str {
        &self.page
    }

    /// Stops it and ends all workers.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself, by a panic; then there is nobody to tell.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
