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
    outside: OnceLock<Outside>,
    slots: parking_lot::Mutex<HashMap<i64, Arc<Slot>>>,
    turn: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    version: String,
    turn: AtomicU64,
    /// Held while the process starts, so that one start serves all who wait.
    process: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    used: Instant,
}

impl Workers {
    /// Returns a pool in which nothing runs yet.
    #[must_use]
    pub fn new(workerd: Workerd) -> Self {
        Self {
            finder: Finder::new(workerd),
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

    /// The socket of the worker's live version, started if need be.
    ///
    /// # Errors
    /// The reason why it can't run.
    pub async fn socket(&self, store: &Store, activity: &Activity, worker: &Worker) -> Result<PathBuf, StartError> {
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
        let version = store.read(|db| store::version(db, worker.id, id))?;
        let process = self.start(store, activity, worker, &version).await?;
        let socket = process.socket.clone();
        *running = Some(Running { process, used: Instant::now() });
        Ok(socket)
    }

    /// The slot of a worker's version, and the slots that have to go for it.
    fn slot(&self, worker: i64, version: &str) -> (Arc<Slot>, Vec<Arc<Slot>>) {
        let mut slots = self.slots.lock();
        let mut ended = Vec::new();
        if slots.get(&worker).is_some_and(|slot| slot.version != version) {
            ended.extend(slots.remove(&worker));
        }
        if !slots.contains_key(&worker) && slots.len() >= RUNNING {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.turn.load(Ordering::Relaxed)).map(|(id, _)| *id);
            ended.extend(oldest.and_then(|id| slots.remove(&id)));
        }
        let new = || Arc::new(Slot { version: version.to_owned(), turn: AtomicU64::new(0), process: Mutex::new(None) });
        (slots.entry(worker).or_insert_with(new).clone(), ended)
    }

    async fn start(
        &self,
        store: &Store,
        activity: &Activity,
        worker: &Worker,
        version: &Version,
    ) -> Result<Process, StartError> {
        activity.register(&worker.key, worker.tags(), []);
        let binary = self.binary().map_err(|why| StartError::Page(503, why))?;
        let source = source(store, worker, version, &binary)?;
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
                Ok(running) => running.as_ref().is_none_or(|running| running.used.elapsed() > IDLE),
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

/// The entry that answers with the handlers of the real entry's exports.
const PROBE: &str = "import * as entry from ENTRY;
const names = (value) => {
  const own = typeof value === 'function' ? value.prototype : value;
  const known = ['fetch', 'scheduled', 'queue', 'email', 'tail', 'trace', 'alarm'];
  return own && typeof own === 'object' ? known.filter((name) => typeof own[name] === 'function') : [];
};
export default { fetch: () => Response.json(Object.fromEntries(
  Object.entries(entry).map(([name, value]) => [name, names(value)]).filter(([, list]) => list.length))) };
";

fn compatibility(date: &Value, flags: &Value, binary: &Binary) -> (String, Vec<String>) {
    let date = date.as_str().unwrap_or(OLDEST).to_owned().min(binary.date.clone());
    (date, flags.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
}

fn source(store: &Store, worker: &Worker, version: &Version, binary: &Binary) -> Result<WorkerSource, Refusal> {
    let option = |name: &str| version.options.get(name).cloned().unwrap_or_default();
    let (date, flags) = compatibility(&option("compatibility_date"), &option("compatibility_flags"), binary);
    let modules = store.read(|db| {
        let body = |module: &store::Module| {
            Ok((module.name.clone(), module.content_type.clone(), store::module(db, &module.hash)?))
        };
        version.modules.iter().map(body).collect::<Result<_, Refusal>>()
    })?;
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
        trace: traced(&version.id, &worker.key),
    })
}
