//! What builds remember: of each customer, which files were read, what came of them, and what was written, so that the next
//! build does only what is out of date. Knows bytes, stamps and digests; decides nothing.
//!
//! `.flotilla/build/log` is a log of records: the last one of a customer counts. Each frame of records has its length and
//! checksum, and a frame that isn't whole ends the log: who is killed while writing loses what was not written, and nothing
//! else. `.flotilla/build/values-<n>` holds the resolved workers as JSON, one after the other; records say where. A value is
//! believed only if its digest is the one that the record names. Both can be deleted at any time: that costs a build.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::check::Counted;
use crate::digest::{Digest, Mark};
use crate::render::Recipe;
use crate::spec::Environment;

/// The folder, from the project's root.
pub const FOLDER: &str = ".flotilla/build";
/// The first line of a log: its format, and the file of its values.
const FORMAT: &str = "flotilla build log 1";
/// So many records are written at once.
const FRAME: usize = 256;
/// The longest time between two ticks of a file system's clock that has fractions of seconds.
const TICK: Duration = Duration::from_millis(20);
/// The same for one that has none.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// When a file was last changed, as far as its entry in the file system tells: a digest of length, times and inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// Nothing: never the stamp of a file. What has it is looked at again.
    pub const NONE: Stamp = Stamp(0);

    /// The stamp of a file that was not just changed. A file that was changed within the same tick of the clock can change
    /// again without a trace: its stamp says nothing.
    pub fn settled(metadata: &fs::Metadata, now: SystemTime) -> Stamp {
        let coarse = metadata.mtime_nsec() == 0 && metadata.ctime_nsec() == 0;
        let tick = if coarse { COARSE_TICK } else { TICK };
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let changed = nanoseconds(metadata.mtime(), metadata.mtime_nsec())
            .max(nanoseconds(metadata.ctime(), metadata.ctime_nsec()));
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since_epoch.as_nanos() as i128 - changed < tick.as_nanos() as i128 {
            Stamp::NONE
        } else {
            Stamp::of(metadata)
        }
    }

    /// The stamp of a file that this build has just written; see [`Writer::settle`].
    pub fn of(metadata: &fs::Metadata) -> Stamp {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        let parts = [
            metadata.size(),
            metadata.mtime() as u64,
            metadata.mtime_nsec() as u64,
            metadata.ctime() as u64,
            metadata.ctime_nsec() as u64,
            metadata.ino(),
            u64::from(metadata.mode()),
        ];
        for part in parts {
            // The finaliser of splitmix64: each bit reaches each other one.
            hash = (hash ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash ^= hash >> 29;
            hash = hash.wrapping_mul(0x94d0_49bb_1331_11eb);
            hash ^= hash >> 32;
        }
        Stamp(hash.max(1))
    }

    /// Whether it is known that nothing changed.
    pub fn same(self, now: Stamp) -> bool {
        self != Stamp::NONE && self == now
    }
}

/// Where a value stands in the file of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    offset: u64,
    length: u32,
}

/// A file that was read for a customer, beside the fleet's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its path from the project's root.
    pub file: String,
    /// Its stamp when it was read.
    pub stamp: Stamp,
    /// The digest of its bytes; nothing if there was no file.
    pub content: Option<Mark>,
}

/// A file that was written for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its name in the worker's folder.
    pub name: String,
    /// The digest of its bytes.
    pub content: Mark,
    /// Its stamp after it was written.
    pub stamp: Stamp,
}

/// A worker's files under out/ and what they were made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The digest of the resolved worker that was rendered.
    pub from: Mark,
    /// That worker.
    pub value: Chunk,
    /// The digest of the recipe.
    pub recipe: Mark,
    /// The partial templates that were read, a bit for each.
    pub partials: u64,
    /// The files.
    pub outputs: Vec<Output>,
    /// The digest of the bundle.
    pub bundle: [u8; 32],
    /// The digest of the module.
    pub module: [u8; 32],
    /// Seconds since 1970 when it was rendered.
    pub at: i64,
    /// Why it was rendered.
    pub why: Vec<Why>,
    /// What it was rendered from the time before: the digest of the resolved worker, where it stands, and the recipe.
    pub before: Option<(Mark, Chunk, Mark)>,
}

impl Made {
    /// The digest of the bundle.
    pub fn bundle(&self) -> Digest {
        Digest::from_bytes(self.bundle)
    }
}

/// Why a worker is rendered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// It never was, as far as is known.
    New,
    /// What the spec, its layers and the defaults say of it changed.
    Values,
    /// A template, the runtime, or flotilla itself changed.
    Recipe,
    /// A file under out/ is gone.
    Missing(String),
    /// A file under out/ isn't what was written.
    Edited(String),
}

/// A worker of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Where it runs.
    pub environment: Environment,
    /// Its role, if the customer has several workers.
    pub role: Option<String>,
    /// Its pack's name.
    pub pack: String,
    /// The digest of the resolved worker.
    pub resolved: Mark,
    /// The resolved worker.
    pub value: Chunk,
    /// What of it counts against limits.
    pub counted: Counted,
    /// What was written of it, if it was.
    pub made: Option<Made>,
}

/// What is remembered of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The files that were read; the spec is the first.
    pub inputs: Vec<Input>,
    /// The digest of everything else that decided how it was resolved.
    pub context: Mark,
    /// The layers that it uses.
    pub layers: Vec<String>,
    /// Whether there was something to tell of it: then it is read each time.
    pub loud: bool,
    /// Its labels, sorted.
    pub labels: Vec<(String, String)>,
    /// The digests of what it claims.
    pub claims: Vec<u64>,
    /// Its workers.
    pub units: Vec<Unit>,
}

impl Record {
    /// The customer's file.
    pub fn file(&self) -> &str {
        self.inputs.first().map_or("", |input| &input.file)
    }
}

#[derive(Serialize, Deserialize)]
enum Entry {
    Customer(Record),
    Gone(String),
    Recipe(Recipe),
    Folder(String, Stamp),
}

/// What earlier builds remember.
#[derive(Default)]
pub struct Manifest {
    /// The customers by file.
    pub records: HashMap<String, Record>,
    /// The recipes by digest.
    pub recipes: HashMap<Mark, Recipe>,
    /// The folders of out/ in which nothing was left over.
    pub folders: HashMap<String, Stamp>,
    /// The file of values.
    values: Option<(PathBuf, File)>,
    /// Up to where the log can be read, and how many entries of it no longer count.
    whole: u64,
    stale: usize,
}

impl Manifest {
    /// Reads what is remembered of a project; nothing, if nothing is or it can't be read.
    pub fn read(root: &Path) -> Manifest {
        Manifest::try_read(&root.join(FOLDER)).unwrap_or_default()
    }

    fn try_read(folder: &Path) -> io::Result<Manifest> {
        let mut bytes = Vec::new();
        File::open(folder.join("log"))?.read_to_end(&mut bytes)?;
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
        let name = head.strip_prefix(FORMAT).map(str::trim).ok_or(io::ErrorKind::InvalidData)?;
        if !name.starts_with("values-") || name.contains('/') {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let path = folder.join(name);
        let file = File::options().read(true).write(true).open(&path).or_else(|_| File::open(&path))?;
        let mut manifest = Manifest { values: Some((path, file)), ..Manifest::default() };
        let mut frames = Vec::new();
        let mut at = end + 1;
        while let Some((head, rest)) = bytes.get(at..).and_then(|rest| rest.split_at_checked(8)) {
            let number = |part: &[u8]| u32::from_le_bytes(part.try_into().expect("BUG: four bytes"));
            let Some(frame) = rest.get(..number(&head[..4]) as usize) else { break };
            frames.push((number(&head[4..]), frame));
            at += 8 + frame.len();
        }
        let read: Vec<Option<Vec<Entry>>> = frames
            .par_iter()
            .map(|(checksum, frame)| {
                (crc32fast::hash(frame) == *checksum).then(|| postcard::from_bytes(frame).ok()).flatten()
            })
            .collect();
        manifest.whole = end as u64 + 1;
        manifest.records.reserve(read.iter().flatten().map(Vec::len).sum());
        // What follows a broken frame was written after it, and may rely on it.
        for (entries, (_, frame)) in read.into_iter().map_while(|entries| entries).zip(&frames) {
            manifest.whole += 8 + frame.len() as u64;
            for entry in entries {
                manifest.add(entry);
            }
        }
        Ok(manifest)
    }

    fn add(&mut self, entry: Entry) {
        let replaced = match entry {
            Entry::Customer(record) => self.records.insert(record.file().to_owned(), record).is_some(),
            Entry::Gone(file) => {
                self.records.remove(&file);
                true
            }
            Entry::Recipe(recipe) => self.recipes.insert(recipe.mark(), recipe).is_some(),
            Entry::Folder(folder, stamp) => self.folders.insert(folder, stamp).is_some(),
        };
        self.stale += usize::from(replaced);
    }

    /// The JSON of a value, if it is what it should be.
    pub fn value(&self, chunk: Chunk, mark: Mark) -> Option<Vec<u8>> {
        let (_, file) = self.values.as_ref()?;
        let mut bytes = vec![0; chunk.length as usize];
        file.read_exact_at(&mut bytes, chunk.offset).ok()?;
        (Digest::of(&bytes).mark() == mark).then_some(bytes)
    }
}

/// Writes on what builds remember. That it can't is no failure of a build: it is forgotten, and noted.
pub struct Writer {
    inner: Mutex<Inner>,
}

struct Inner {
    /// None where nothing is to be kept.
    log: Option<File>,
    open: Vec<Entry>,
    values: Store,
    /// When a file under out/ was last written.
    written: Option<SystemTime>,
    failed: Option<io::Error>,
}

enum Store {
    File { file: File, end: u64, pending: Vec<u8> },
    Memory(Vec<u8>),
}

/// The values of this run, those of earlier runs among them.
impl Writer {
    /// Goes on where a manifest ended. `keep`: without it, everything stays in memory and is forgotten with the process.
    pub fn new(root: &Path, manifest: &mut Manifest, keep: bool) -> Writer {
        let inner = if keep { Inner::open(&root.join(FOLDER), manifest) } else { Err(None) };
        let inner = inner.unwrap_or_else(|failed| Inner {
            log: None,
            open: Vec::new(),
            values: Store::Memory(Vec::new()),
            written: None,
            failed,
        });
        Writer { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps a value.
    pub fn value(&self, bytes: &[u8]) -> Chunk {
        let mut inner = self.lock();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match &mut inner.values {
            Store::Memory(all) => {
                let offset = MEMORY + all.len() as u64;
                all.extend_from_slice(bytes);
                Chunk { offset, length }
            }
            Store::File { end, pending, .. } => {
                let offset = *end + pending.len() as u64;
                pending.extend_from_slice(bytes);
                if pending.len() > 1 << 20 {
                    inner.flush_values();
                }
                Chunk { offset, length }
            }
        }
    }

    /// Everything kept so far can be read.
    pub fn flush(&self) {
        self.lock().flush_values();
    }

    /// The JSON of a value of this run or an earlier one; call [`Writer::flush`] before.
    pub fn read(&self, manifest: &Manifest, chunk: Chunk, mark: Mark) -> Option<Vec<u8>> {
        if chunk.offset >= MEMORY {
            let inner = self.lock();
            let Store::Memory(all) = &inner.values else { return None };
            let start = usize::try_from(chunk.offset - MEMORY).ok()?;
            return all.get(start..start + chunk.length as usize).map(<[u8]>::to_vec);
        }
        manifest.value(chunk, mark)
    }

    /// Keeps what is known of a customer.
    pub fn record(&self, record: Record) {
        self.entry(Entry::Customer(record));
    }

    /// Forgets a customer.
    pub fn forget(&self, file: &str) {
        self.entry(Entry::Gone(file.to_owned()));
    }

    /// Keeps a recipe.
    pub fn recipe(&self, recipe: Recipe) {
        self.entry(Entry::Recipe(recipe));
    }

    /// Keeps the stamp of a folder in which nothing is left over.
    pub fn folder(&self, folder: &str, stamp: Stamp) {
        self.entry(Entry::Folder(folder.to_owned(), stamp));
    }

    /// A file under out/ was written just now.
    pub fn wrote(&self) {
        let mut inner = self.lock();
        // Where no stamp is kept, none has to settle.
        inner.written = inner.log.is_some().then(SystemTime::now);
    }

    fn entry(&self, entry: Entry) {
        let mut inner = self.lock();
        if inner.log.is_none() {
            return;
        }
        inner.open.push(entry);
        if inner.open.len() >= FRAME {
            inner.flush();
        }
    }

    /// Writes everything, and waits until the file system's clock has moved on from the last file that was written: whatever
    /// happens to that file from now on leaves a trace. Says what could not be kept.
    pub fn settle(&self) -> Option<io::Error> {
        let mut inner = self.lock();
        inner.flush();
        if let Some(written) = inner.written.take() {
            let since = written.elapsed().unwrap_or_default();
            std::thread::sleep(TICK.saturating_sub(since));
        }
        inner.failed.take()
    }
}

/// Where the offsets of values in memory begin: no file is so long.
const MEMORY: u64 = 1 << 62;

impl Inner {
    fn open(folder: &Path, manifest: &mut Manifest) -> Result<Inner, Option<io::Error>> {
        let open = |manifest: &mut Manifest| -> io::Result<Inner> {
            fs::create_dir_all(folder)?;
            let live = manifest.records.len() + manifest.recipes.len() + manifest.folders.len();
            if manifest.values.is_none() || manifest.stale > live + 1000 {
                compact(folder, manifest)?;
            }
            let log = File::options().append(true).open(folder.join("log"))?;
            log.set_len(manifest.whole)?;
            let (path, _) = manifest.values.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let file = File::options().read(true).write(true).open(path)?;
            let end = file.metadata()?.len();
            let values = Store::File { file, end, pending: Vec::new() };
            Ok(Inner { log: Some(log), open: Vec::new(), values, written: None, failed: None })
        };
        open(manifest).map_err(Some)
    }

    fn flush_values(&mut self) {
        let Store::File { file, end, pending } = &mut self.values else { return };
        match file.write_all_at(pending, *end) {
            Ok(()) => *end += pending.len() as u64,
            Err(error) => {
                self.failed.get_or_insert(error);
                self.log = None;
            }
        }
        pending.clear();
    }

    fn flush(&mut self) {
        self.flush_values();
        let open = std::mem::take(&mut self.open);
        if let Some(log) = &mut self.log
            && !open.is_empty()
            && let Err(error) = log.write_all(&frame(&open))
        {
            self.failed.get_or_insert(error);
            self.log = None;
        }
    }
}

fn frame(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes = postcard::to_extend(entries, bytes).expect("BUG: records can be written");
    let length = u32::try_from(bytes.len() - 8).expect("BUG: a frame is small");
    let checksum = crc32fast::hash(&bytes[8..]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Writes log and values anew, with what counts alone. The new log takes the old one's name at the end, so that at any
/// instant there is one that is whole.
fn compact(folder: &Path, manifest: &mut Manifest) -> io::Result<()> {
    let number = |name: &str| name.strip_prefix("values-")?.parse::<u64>().ok();
    let mut last = 0;
    for entry in fs::read_dir(folder)? {
        last = last.max(entry?.file_name().to_str().and_then(number).unwrap_or(0));
    }
    let name = format!("values-{}", last + 1);
    let path = folder.join(&name);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let mut values = io::BufWriter::with_capacity(1 << 20, &file);
    let mut end = 0;
    let mut records = std::mem::take(&mut manifest.records);
    for record in records.values_mut() {
        for unit in &mut record.units {
            let mut moved: HashMap<u64, Chunk> = HashMap::new();
            let mut keep = |chunk: &mut Chunk, mark: Mark| -> io::Result<bool> {
                if let Some(at) = moved.get(&chunk.offset) {
                    *chunk = *at;
                    return Ok(true);
                }
                let Some(bytes) = manifest.value(*chunk, mark) else { return Ok(false) };
                values.write_all(&bytes)?;
                let at = Chunk { offset: end, length: chunk.length };
                end += bytes.len() as u64;
                moved.insert(chunk.offset, at);
                *chunk = at;
                Ok(true)
            };
            if !keep(&mut unit.value, unit.resolved)? {
                // Never taken for known: it is resolved anew.
                record.context = Mark::default();
            }
            if let Some(made) = &mut unit.made {
                keep(&mut made.value, made.from)?;
                if let Some((mark, chunk, _)) = &mut made.before
                    && !keep(chunk, *mark)?
                {
                    made.before = None;
                }
            }
        }
    }
    values.flush()?;
    drop(values);
    let mut log = format!("{FORMAT} {name}\n").into_bytes();
    let recipes = manifest.recipes.values().cloned().map(Entry::Recipe);
    let folders = manifest.folders.iter().map(|(folder, stamp)| Entry::Folder(folder.clone(), *stamp));
    let mut entries: Vec<Entry> = recipes.chain(folders).collect();
    let mut sorted: Vec<&Record> = records.values().collect();
    sorted.sort_by(|a, b| a.file().cmp(b.file()));
    for chunk in sorted.chunks(FRAME) {
        entries.extend(chunk.iter().map(|record| Entry::Customer((*record).clone())));
        log.extend(frame(&std::mem::take(&mut entries)));
    }
    if !entries.is_empty() {
        log.extend(frame(&entries));
    }
    let new = folder.join("log.new");
    fs::write(&new, &log)?;
    fs::rename(&new, folder.join("log"))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.file_name();
        if other.to_str().and_then(number).is_some() && other.to_str() != Some(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    manifest.whole = log.len() as u64;
    manifest.stale = 0;
    manifest.values = Some((path, file));
    manifest.records = records;
    Ok(())
}
