//! Writes the manifest: appends to the log, stores values, and rewrites both when most of them no longer count.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::records::{Chunk, Record};
use super::{Entry, FOLDER, FRAME, Manifest, frame, number_of_values, write_log};
use crate::render::Recipe;
use crate::stamp::{Stamp, TICK};
use flotilla_model::digest::ShortHash;
use flotilla_model::plain_file;
use flotilla_model::user_key::UserKey;

/// Appends to the build cache. If that fails, the build doesn't: the cache is dropped, and this is noted.
pub struct Writer {
    inner: Mutex<Inner>,
}

struct Inner {
    /// None if nothing is kept.
    log: Option<File>,
    /// Its path, and how long it is.
    path: PathBuf,
    length: u64,
    open: Vec<Entry>,
    values: Store,
    /// Whether files under out/ are being written.
    began: bool,
    /// The time at which one was last written.
    written: Option<SystemTime>,
    failed: Option<io::Error>,
}

enum Store {
    File { file: File, end: u64, pending: Vec<u8> },
    Memory(Vec<u8>),
}

/// The values of this run, those of earlier runs among them.
impl Writer {
    /// Continues a manifest. Without `keep`, everything stays in memory and is forgotten with the process; so it does where this user has
    /// no key.
    pub fn new(root: &Path, manifest: &mut Manifest, keep: bool) -> Writer {
        Writer::with_key(root, manifest, if keep { UserKey::load() } else { None }.as_ref())
    }

    pub(super) fn with_key(root: &Path, manifest: &mut Manifest, key: Option<&UserKey>) -> Writer {
        let inner = key.ok_or(None).and_then(|key| Inner::open(&root.join(FOLDER), manifest, key).map_err(Some));
        let inner = inner.unwrap_or_else(|failed| Inner {
            log: None,
            path: PathBuf::new(),
            length: 0,
            open: Vec::new(),
            values: Store::Memory(Vec::new()),
            began: false,
            written: None,
            failed,
        });
        Writer { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Stores a value.
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

    /// Returns the JSON of a value of this run or an earlier one; call [`Writer::flush`] before.
    pub fn read(&self, manifest: &Manifest, chunk: Chunk, hash: ShortHash) -> Option<Vec<u8>> {
        if chunk.offset >= MEMORY {
            let inner = self.lock();
            let Store::Memory(all) = &inner.values else { return None };
            let start = usize::try_from(chunk.offset - MEMORY).ok()?;
            return all.get(start..start + chunk.length as usize).map(<[u8]>::to_vec);
        }
        manifest.value(chunk, hash)
    }

    /// Stores the record of a customer.
    pub fn record(&self, record: Record) {
        self.entry(Entry::Customer(record));
    }

    /// Forgets a customer.
    pub fn forget(&self, file: &str) {
        self.entry(Entry::Gone(file.to_owned()));
    }

    /// Stores a recipe.
    pub fn recipe(&self, recipe: Recipe) {
        self.entry(Entry::Recipe(recipe));
    }

    /// Stores the stamp of a folder without orphaned files.
    pub fn folder(&self, folder: &str, stamp: Stamp) {
        self.entry(Entry::Folder(folder.to_owned(), stamp));
    }

    /// Returns whether the log is as long as this process left it: no other process has written to it.
    pub fn is_current(&self) -> bool {
        let inner = self.lock();
        let length = |file: &File| file.metadata().map(|metadata| metadata.len()).ok();
        match &inner.log {
            Some(log) => {
                length(log) == Some(inner.length)
                    && inner.path.metadata().is_ok_and(|now| log.metadata().is_ok_and(|own| own.ino() == now.ino()))
            }
            None => true,
        }
    }

    /// Notes once that files under out/ are going to be written: until that has ended, it isn't known what is in these folders.
    pub fn begin<'a>(&self, folders: impl IntoIterator<Item = &'a String>) {
        let mut inner = self.lock();
        if inner.log.is_some() && !inner.began {
            inner.began = true;
            inner.open.extend(folders.into_iter().map(|folder| Entry::Folder(folder.clone(), Stamp::NONE)));
            inner.flush();
        }
    }

    /// Returns whether files under out/ were written since the last call.
    pub fn ended(&self) -> bool {
        std::mem::take(&mut self.lock().began)
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

    /// Writes everything, and waits until the file system's clock has moved on from the last file that was written:
    /// any later change of that file leaves a trace. Returns the error that kept it from being stored.
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

/// The first offset of values in memory: no file is so long.
const MEMORY: u64 = 1 << 62;

impl Inner {
    fn open(folder: &Path, manifest: &mut Manifest, key: &UserKey) -> io::Result<Inner> {
        plain_file::create_folder(folder)?;
        let live = manifest.records.len() + manifest.recipes.len() + manifest.folders.len();
        if manifest.values.is_none() || manifest.wastes_values() {
            compact(folder, manifest, key)?;
        } else if manifest.stale > live / 4 + 1000 {
            let (path, _) = manifest.values.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            write_log(folder, manifest, &name, key)?;
        }
        let log = plain_file::open_with(&folder.join("log"), File::options().append(true))?;
        log.set_len(manifest.whole)?;
        let (path, _) = manifest.values.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = plain_file::open_with(path, File::options().read(true).write(true))?;
        let end = file.metadata()?.len();
        let values = Store::File { file, end, pending: Vec::new() };
        Ok(Inner {
            log: Some(log),
            path: folder.join("log"),
            length: manifest.whole,
            open: Vec::new(),
            values,
            began: false,
            written: None,
            failed: None,
        })
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
        {
            let frame = frame(&open);
            match log.write_all(&frame) {
                Ok(()) => self.length += frame.len() as u64,
                Err(error) => {
                    self.failed.get_or_insert(error);
                    self.log = None;
                }
            }
        }
    }
}

/// Rewrites values and log, with the records that count alone.
fn compact(folder: &Path, manifest: &mut Manifest, key: &UserKey) -> io::Result<()> {
    let mut last = 0;
    for entry in fs::read_dir(folder)? {
        last = last.max(entry?.file_name().to_str().and_then(number_of_values).unwrap_or(0));
    }
    let name = format!("values-{}", last + 1);
    let path = folder.join(&name);
    let file = plain_file::open_with(&path, File::options().read(true).write(true).create_new(true))?;
    let mut values = io::BufWriter::with_capacity(1 << 20, &file);
    let mut end = 0;
    let mut records = std::mem::take(&mut manifest.records);
    for record in records.values_mut() {
        for unit in &mut record.units {
            let mut moved: HashMap<u64, Chunk> = HashMap::new();
            let mut keep = |chunk: &mut Chunk, hash: ShortHash| -> io::Result<bool> {
                if let Some(new) = moved.get(&chunk.offset) {
                    *chunk = *new;
                    return Ok(true);
                }
                let Some(bytes) = manifest.value(*chunk, hash) else { return Ok(false) };
                values.write_all(&bytes)?;
                let new = Chunk { offset: end, length: chunk.length };
                end += bytes.len() as u64;
                moved.insert(chunk.offset, new);
                *chunk = new;
                Ok(true)
            };
            if !keep(&mut unit.value, unit.resolved)? {
                // It never counts as known: it is resolved again.
                record.context = ShortHash::default();
            }
            if let Some(rendering) = &mut unit.rendered {
                keep(&mut rendering.value, rendering.from)?;
                if let Some((hash, chunk, _)) = &mut rendering.before
                    && !keep(chunk, *hash)?
                {
                    rendering.before = None;
                }
            }
        }
    }
    values.flush()?;
    drop(values);
    manifest.records = records;
    write_log(folder, manifest, &name, key)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.file_name();
        if other.to_str().and_then(number_of_values).is_some() && other.to_str() != Some(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    manifest.values = Some((path, file));
    Ok(())
}
