//! The running workers: one workerd process each, started by its first request, ended when a newer version is
//! requested, when it is idle, or when too many others are in use. Knows which process runs which version; not who
//! sends requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::activity::Activity;
use super::asset_service::{AssetService, AssetWorkers};
use super::asset_store;
use super::capnp::{Outside, WorkerSource, config, traced};
use super::envelope::Refusal;
use super::store::{self, Store, Version, Worker};
use super::upload::{Upload, is_secret};
use super::workerd::{Binary, Finder, Process, Workerd};

/// The most processes that run at once; each takes some 50 to 100 MB.
const RUNNING: usize = 16;
/// A process unused for so long is ended.
const IDLE: Duration = Duration::from_secs(300);
/// A worker that names no date gets the first one, as at Cloudflare (docs, compatibility dates, 2026).
const OLDEST: &str = "2021-11-02";

/// The reason why a worker can't be started.
#[derive(Debug)]
pub enum StartError {
    /// Its code or configuration: the status of the page and the reason.
    Page(u16, String),
    /// The local database failed.
    Refused(Refusal),
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The report of workerd on the code, if it was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Handlers of the default export.
    pub handlers: Vec<String>,
    /// Named exports with their handlers.
    pub named: Vec<Value>,
    /// Milliseconds to load it.
    pub startup_ms: u64,
}

/// The processes.
#[derive(Debug)]
pub struct Workers {
    finder: Finder,
    asset_workers: AssetFinder,
    outside: OnceLock<Outside>,
    slots: parking_lot::Mutex<HashMap<i64, Arc<Slot>>>,
    turn: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    version: String,
    turn: AtomicU64,
    /// The process of an earlier version: two can't have the same Durable Objects at once.
    replaces: parking_lot::Mutex<Option<Arc<Slot>>>,
    /// Held while the process starts, so that one start serves all who wait.
    process: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    used: Instant,
}

/// Finds the workers that serve static assets.
struct AssetFinder(Option<AssetWorkers>);

impl AssetFinder {
    fn find(&self) -> Result<PathBuf, String> {
        let find = self.0.as_ref().ok_or("static assets can't be served here: the workers that do it weren't given")?;
        find().map_err(|error| format!("can't get the workers that serve static assets: {error:#}"))
    }
}

impl std::fmt::Debug for AssetFinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AssetFinder")
    }
}

/// The code in place of a worker that only has static assets: no request reaches it.
const NO_CODE: &str = "export default { fetch: () => new Response(null, { status: 404 }) };\n";

impl Workers {
    /// Returns a pool in which nothing runs yet.
    #[must_use]
    pub fn new(workerd: Workerd, asset_workers: Option<AssetWorkers>) -> Self {
        Self {
            finder: Finder::new(workerd),
            asset_workers: AssetFinder(asset_workers),
            outside: OnceLock::new(),
            slots: parking_lot::Mutex::default(),
            turn: AtomicU64::new(0),
        }
    }

    /// Sets the address that calls of workers go to. Once, before the first request.
    pub fn connect(&self, address: SocketAddr, word: String) {
        // A second call would be a bug of the one caller; the first address stays.
        let _ = self.outside.set(Outside { address, word });
    }

    /// The word by which the egress listener knows a worker's call.
    #[must_use]
    pub fn word(&self) -> &str {
        self.outside.get().map_or("", |outside| &outside.word)
    }

    fn outside(&self) -> Result<&Outside, String> {
        self.outside.get().ok_or_else(|| "BUG: the egress listener doesn't run".to_owned())
    }

    fn binary(&self) -> Result<Binary, String> {
        tokio::task::block_in_place(|| self.finder.find())
    }

    /// The socket of the worker's live version, started if necessary.
    ///
    /// # Errors
    /// The reason why it can't run.
    pub async fn socket(&self, ground: Ground<'_>, worker: &Worker) -> Result<PathBuf, StartError> {
        let id = worker
            .version
            .as_deref()
            .ok_or_else(|| StartError::Page(404, format!("{} has no deployed version", worker.key.name)))?;
        let (slot, ended) = self.slot(worker.id, id);
        for old in ended {
            tokio::spawn(end(old));
        }
        slot.turn.store(self.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut running = slot.process.lock().await;
        if let Some(running) = running.as_mut()
            && !running.process.ended()
        {
            running.used = Instant::now();
            return Ok(running.process.socket.clone());
        }
        let replaced = slot.replaces.lock().take();
        if let Some(replaced) = replaced {
            end(replaced).await;
        }
        let version = ground.store.read(|db| store::version(db, worker.id, id))?;
        let process = self.start(ground, worker, &version).await?;
        let socket = process.socket.clone();
        *running = Some(Running { process, used: Instant::now() });
        Ok(socket)
    }

    /// The slot of a worker's version, and the slots that have to go for it.
    fn slot(&self, worker: i64, version: &str) -> (Arc<Slot>, Vec<Arc<Slot>>) {
        let mut slots = self.slots.lock();
        let mut ended = Vec::new();
        let mut replaces = None;
        if slots.get(&worker).is_some_and(|slot| slot.version != version) {
            replaces = slots.remove(&worker);
        }
        if !slots.contains_key(&worker) && slots.len() >= RUNNING {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.turn.load(Ordering::Relaxed)).map(|(id, _)| *id);
            ended.extend(oldest.and_then(|id| slots.remove(&id)));
        }
        let new = || {
            let (version, turn, process) = (version.to_owned(), AtomicU64::new(0), Mutex::new(None));
            Arc::new(Slot { version, turn, replaces: parking_lot::Mutex::new(replaces), process })
        };
        (slots.entry(worker).or_insert_with(new).clone(), ended)
    }

    async fn start(&self, ground: Ground<'_>, worker: &Worker, version: &Version) -> Result<Process, StartError> {
        let activity = ground.activity;
        activity.register(&worker.key, worker.tags(), []);
        let binary = self.binary().map_err(|why| StartError::Page(503, why))?;
        let mut source = source(ground, worker, version, &binary)?;
        source.assets = self.assets(ground, worker, version)?;
        let secrets = source.bindings.iter().filter(|binding| is_secret(binding));
        let secrets = secrets.filter_map(|binding| binding["text"].as_str().map(ToOwned::to_owned));
        activity.register(&worker.key, worker.tags(), secrets);
        let outside = self.outside().map_err(|why| StartError::Page(503, why))?;
        let config =
            config(&source, outside).map_err(|why| StartError::Page(501, format!("{}: {why}", worker.key.name)))?;
        let process = Process::start(&binary, &config).await.map_err(|why| {
            StartError::Page(500, format!("{} doesn't start. workerd says:\n\n{why}", worker.key.name))
        })?;
        activity.add_printed(&worker.key, &version.id, &process.printed);
        Ok(process)
    }

    /// Returns what serves the static assets of a version, if it has any.
    fn assets(
        &self,
        ground: Ground<'_>,
        worker: &Worker,
        version: &Version,
    ) -> Result<Option<AssetService>, StartError> {
        let Some(assets) = &version.assets else { return Ok(None) };
        let page = |why: String| StartError::Page(503, why);
        let folder = tokio::task::block_in_place(|| self.asset_workers.find()).map_err(page)?;
        let list = ground.store.read(|db| asset_store::list(db, &assets.list))?;
        let (options, scope) = (Value::Object(version.options.clone()), asset_store::scope(&worker.key));
        let has_worker = !version.modules.is_empty();
        AssetService::new(&folder, &list, &assets.config, &options, scope, has_worker).map(Some).map_err(page)
    }

    /// Loads an upload once, without its bindings, and returns its exports.
    ///
    /// # Errors
    /// The message of workerd.
    pub async fn load(&self, upload: &Upload) -> Result<Loaded, String> {
        let binary = self.binary()?;
        let body =
            |(module, body): &(store::Module, Bytes)| (module.name.clone(), module.content_type.clone(), body.to_vec());
        let mut source = WorkerSource {
            modules: upload.modules.iter().map(body).collect(),
            classic: upload.classic,
            ..WorkerSource::default()
        };
        let option = |name: &str| upload.metadata.get(name).cloned().unwrap_or_default();
        (source.date, source.flags) =
            compatibility(&option("compatibility_date"), &option("compatibility_flags"), &binary);
        if !upload.classic {
            let probe = PROBE.replace("ENTRY", &json!(format!("./{}", upload.main)).to_string());
            let name = "local-cloudflare-probe.js".to_owned();
            source.modules.insert(0, (name, "application/javascript+module".to_owned(), probe.into_bytes()));
        }
        let process = Process::start(&binary, &config(&source, self.outside()?)?).await?;
        let startup_ms = u64::try_from(process.startup.as_millis()).unwrap_or(u64::MAX);
        let exports = if upload.classic { json!({}) } else { fetch_json(&process.socket).await.unwrap_or_default() };
        process.end().await;
        let handlers = |list: &Value| {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let named = exports.as_object().into_iter().flatten().filter(|(name, _)| *name != "default");
        Ok(Loaded {
            handlers: handlers(&exports["default"]),
            named: named.map(|(name, list)| json!({"name": name, "handlers": list})).collect(),
            startup_ms,
        })
    }

    /// Ends the processes that have been idle for long. Called now and then.
    pub async fn sweep(&self) {
        let slots: Vec<(i64, Arc<Slot>)> = {
            let slots = self.slots.lock();
            slots.iter().map(|(id, slot)| (*id, slot.clone())).collect()
        };
        for (id, slot) in slots {
            let idle = match slot.process.try_lock() {
                // Alarms of Durable Objects have to find their process.
                Ok(running) => {
                    running.as_ref().is_none_or(|running| running.used.elapsed() > IDLE && !running.process.has_objects)
                }
                Err(_) => false,
            };
            if idle {
                self.slots.lock().remove(&id);
                end(slot).await;
            }
        }
    }

    /// Ends all processes.
    pub async fn end(&self) {
        let slots: Vec<Arc<Slot>> = {
            let mut slots = self.slots.lock();
            slots.drain().map(|(_, slot)| slot).collect()
        };
        for slot in slots {
            end(slot).await;
        }
    }
}

impl Workers {
    /// Forgets the process of a worker: the next call starts another one.
    pub fn restart(&self, worker: i64) {
        let mut slots = self.slots.lock();
        let Some(old) = slots.remove(&worker) else { return };
        let (version, turn, process) = (old.version.clone(), AtomicU64::new(0), Mutex::new(None));
        let slot = Slot { version, turn, replaces: parking_lot::Mutex::new(Some(old)), process };
        slots.insert(worker, Arc::new(slot));
    }
}

async fn end(slot: Arc<Slot>) {
    if let Some(running) = slot.process.lock().await.take() {
        running.process.end().await;
    }
}

/// Returns the answer of a worker on that socket to `GET /`, as JSON.
///
/// # Errors
/// When it can't be reached or doesn't answer with JSON.
async fn fetch_json(socket: &Path) -> anyhow::Result<Value> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/").header(header::HOST, "local").body(Full::<Bytes>::default())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

/// The stores of the workers: what they are made of, and what they log.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The database.
    pub store: &'a Store,
    /// The log of the workers.
    pub activity: &'a Activity,
    /// The folder of everything that is stored.
    pub folder: &'a Path,
}

/// The folder of the workers' Durable Objects.
const OBJECTS: &str = "objects";

/// Returns whether a worker gets the events of another one of its account.
fn is_tail(db: &rusqlite::Connection, key: &store::Key) -> Result<bool, Refusal> {
    let sql = "SELECT 1 FROM worker, json_each(worker.settings, '$.tail_consumers') AS consumer
               WHERE worker.account = ?1 AND json_extract(consumer.value, '$.service') = ?2";
    Ok(key.namespace.is_empty() && store::has(db, sql, [&key.account, &key.name])?)
}

/// Removes the stored objects of classes that are gone. Done at the start only.
///
/// # Errors
/// When the database fails.
pub fn sweep_objects(store: &Store, folder: &Path) -> Result<(), Refusal> {
    let known = store.read(|db| store::rows(db, "SELECT id FROM object_class", [], |row| row.get::<_, String>(0)))?;
    for entry in std::fs::read_dir(folder.join(OBJECTS)).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| !known.iter().any(|id| id == name)) {
            // What can't be removed is found again the next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// The entry that answers with the handlers of the real entry's exports.
const PROBE: &str = "import * as entry from ENTRY;
const names = (value) => {
  const own = typeof value === 'function' ? value.prototype : value;
  const known = ['fetch', 'scheduled', 'queue', 'email', 'tail', 'trace', 'alarm'];
  return own && typeof own === 'object' ? known.filter((name) => typeof own[name] === 'function') : [];
};
const isClass = (value) => typeof value === 'function' && /^class\\b/.test(Function.prototype.toString.call(value));
export default { fetch: () => Response.json(Object.fromEntries(
  Object.entries(entry).map(([name, value]) => [name, names(value)])
    .filter(([name, list]) => list.length || (name !== 'default' && isClass(entry[name]))))) };
";

fn compatibility(date: &Value, flags: &Value, binary: &Binary) -> (String, Vec<String>) {
    let date = date.as_str().unwrap_or(OLDEST).to_owned().min(binary.date.clone());
    (date, flags.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
}

fn source(ground: Ground<'_>, worker: &Worker, version: &Version, binary: &Binary) -> Result<WorkerSource, Refusal> {
    let store = ground.store;
    let option = |name: &str| version.options.get(name).cloned().unwrap_or_default();
    let (date, flags) = compatibility(&option("compatibility_date"), &option("compatibility_flags"), binary);
    let mut modules = store.read(|db| {
        let body = |module: &store::Module| {
            Ok((module.name.clone(), module.content_type.clone(), store::module(db, &module.hash)?))
        };
        version.modules.iter().map(body).collect::<Result<Vec<_>, Refusal>>()
    })?;
    if modules.is_empty() {
        modules.push(("index.js".to_owned(), "application/javascript+module".to_owned(), NO_CODE.into()));
    }
    let classes = store.read(|db| store::classes(db, worker.id))?;
    let folder = ground.folder.join(OBJECTS);
    if !classes.is_empty() {
        std::fs::create_dir_all(&folder)
            .map_err(|error| Refusal::new(500, 10002, format!("can't create {}: {error}", folder.display())))?;
    }
    let folder = folder.canonicalize().unwrap_or(folder).to_string_lossy().into_owned();
    let is_tail = store.read(|db| is_tail(db, &worker.key))?;
    // In an untrusted namespace, the Cache API is off (Cloudflare docs, Workers for Platforms › Worker isolation).
    let is_trusted = "SELECT 1 FROM namespace WHERE account = ?1 AND name = ?2 AND trusted";
    let has_cache = worker.key.namespace.is_empty()
        || store.read(|db| store::has(db, is_trusted, [&worker.key.account, &worker.key.namespace]))?;
    let opened = |binding: &Value| {
        let mut binding = binding.clone();
        if is_secret(&binding)
            && let Some(secret) = binding["sealed"].as_str().and_then(|sealed| store.seal.unseal(sealed))
        {
            binding["text"] = secret.into();
        }
        binding
    };
    Ok(WorkerSource {
        modules,
        classic: version.classic,
        bindings: version.bindings.iter().map(opened).collect(),
        date,
        flags,
        version: version.id.clone(),
        account: worker.key.account.clone(),
        name: worker.key.name.clone(),
        objects: classes.into_iter().map(|class| (class.name, class.id, class.sqlite)).collect(),
        folder,
        has_cache,
        is_tail,
        has_triggers: true,
        assets: None,
        trace: traced(&version.id, &worker.key),
    })
}
