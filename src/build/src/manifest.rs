//! The manifest of builds: of each customer, the files that were read, the workers that they resolved to, and the
//! files that were written, so that the next build does only what is out of date. Knows bytes, stamps and digests;
//! decides nothing.
//!
//! `.flotilla/build/log` is a log of records: the last one of a customer counts. Each frame of records has its length
//! and checksum, and a frame that isn't whole ends the log: a process that is killed while writing loses what was not
//! written, and nothing else. `.flotilla/build/values-<n>` holds the resolved workers as JSON, one after the other;
//! records say where. A value is believed only if its digest is the one that the record names. Both can be deleted at
//! any time: that costs a build.
//!
//! A log can come from elsewhere, with a repository for one: it would say that edited files are what was rendered. So its first line has a
//! seal by a key of this user, and a log without it counts as none. A name in it that isn't one of a file in the worker's folder makes all
//! of it count as damaged all the same, since builds remove files by these names.

mod records;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::render::Recipe;
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::digest::{Digest, ShortHash};
use flotilla_model::plain_file;
use flotilla_model::user_key::{UserKey, nonce};
use records::is_name;

pub use crate::stamp::{Input, Stamp};
pub use records::{Chunk, DirtyReason, Output, Record, RenderRecord, Unit};
pub use writer::Writer;

/// The folder, from the project's root.
pub const FOLDER: &str = ".flotilla/build";
/// The first line of a log: its format, the file of its values, a random number, and the seal of both.
const FORMAT: &str = "flotilla build log 8";
/// The purpose of the seal of a log.
const PURPOSE: &str = "build log";
/// The number of records that are written at once.
const FRAME: usize = 256;
/// The number of frames that are read at once.
const AT_ONCE: usize = 64;
/// The longest first line.
const HEAD: u64 = 256;
/// The longest frame and the longest value that are read, in bytes.
const LONGEST: u64 = 256 << 20;
/// The highest number of a file of values.
const NUMBERS: u64 = 1 << 32;
#[derive(Serialize, Deserialize)]
enum Entry {
    Customer(Record),
    Gone(String),
    Recipe(Recipe),
    Folder(String, Stamp),
}

impl Entry {
    fn is_sound(&self) -> bool {
        match self {
            Entry::Customer(record) => record.is_sound(),
            Entry::Recipe(recipe) => recipe.files.iter().all(|name| is_name(name)),
            Entry::Gone(_) | Entry::Folder(..) => true,
        }
    }
}

/// Returns the number of a file of values.
fn number_of_values(name: &str) -> Option<u64> {
    let number: u64 = name.strip_prefix("values-")?.parse().ok()?;
    (number < NUMBERS && format!("values-{number}") == name).then_some(number)
}

/// The records of earlier builds.
#[derive(Default)]
pub struct Manifest {
    /// The customers by file.
    pub records: HashMap<String, Record>,
    /// The recipes by digest.
    pub recipes: HashMap<ShortHash, Recipe>,
    /// The folders of out/ in which nothing was left over.
    pub folders: HashMap<String, Stamp>,
    /// The file of values.
    values: Option<(PathBuf, File)>,
    /// Up to where the log can be read, and how many entries of it no longer count.
    whole: u64,
    stale: usize,
}

impl Manifest {
    /// Reads the build cache of a project; nothing if there is none or it can't be read.
    pub fn read(root: &Path) -> Manifest {
        Manifest::read_with(root, UserKey::load)
    }

    /// Reads the build cache that is sealed with this key.
    pub fn read_with(root: &Path, key: impl FnOnce() -> Option<UserKey>) -> Manifest {
        Manifest::try_read(&root.join(FOLDER), key).unwrap_or_default()
    }

    fn try_read(folder: &Path, key: impl FnOnce() -> Option<UserKey>) -> io::Result<Manifest> {
        let file = plain_file::open(&folder.join("log"))?;
        let key = key().ok_or(io::ErrorKind::NotFound)?;
        let mut left = file.metadata()?.len();
        let mut log = BufReader::with_capacity(1 << 20, file);
        let mut head = Vec::new();
        (&mut log).take(HEAD).read_until(b'\n', &mut head)?;
        let name = std::str::from_utf8(&head)
            .map_err(io::Error::other)?
            .strip_suffix('\n')
            .ok_or(io::ErrorKind::InvalidData)?;
        let rest =
            name.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' ')).ok_or(io::ErrorKind::InvalidData)?;
        let (sealed, seal) = rest.rsplit_once(' ').ok_or(io::ErrorKind::InvalidData)?;
        if key.seal(PURPOSE, Path::new(""), sealed) != seal {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let name = sealed.split(' ').next().unwrap_or_default();
        number_of_values(name).ok_or(io::ErrorKind::InvalidData)?;
        let path = folder.join(name);
        let writable = plain_file::open_with(&path, File::options().read(true).write(true));
        let file = writable.or_else(|_| plain_file::open(&path))?;
        let mut manifest = Manifest { values: Some((path, file)), whole: head.len() as u64, ..Manifest::default() };
        left -= manifest.whole;
        // Some frames at a time: of what was recorded several times, only the last is ever in memory.
        loop {
            let mut frames: Vec<(u32, Vec<u8>)> = Vec::with_capacity(AT_ONCE);
            while frames.len() < AT_ONCE && left >= 8 {
                let mut head = [0; 8];
                log.read_exact(&mut head)?;
                let number = |part: &[u8]| u32::from_le_bytes(part.try_into().expect("BUG: four bytes"));
                let (length, checksum) = (number(&head[..4]), number(&head[4..]));
                left -= 8;
                if u64::from(length) > left.min(LONGEST) {
                    left = 0;
                    break;
                }
                let mut frame = vec![0; length as usize];
                log.read_exact(&mut frame)?;
                left -= u64::from(length);
                frames.push((checksum, frame));
            }
            if frames.is_empty() {
                return Ok(manifest);
            }
            let read: Vec<Option<Vec<Entry>>> = frames
                .par_iter()
                .map(|(checksum, frame)| {
                    (crc32fast::hash(frame) == *checksum).then(|| postcard::from_bytes(frame).ok()).flatten()
                })
                .collect();
            for (entries, (_, frame)) in read.into_iter().zip(&frames) {
                // What follows a broken frame was written after it, and may rely on it.
                let Some(entries) = entries else { return Ok(manifest) };
                manifest.whole += 8 + frame.len() as u64;
                for entry in entries {
                    if !entry.is_sound() {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    manifest.add(entry);
                }
            }
        }
    }

    fn add(&mut self, entry: Entry) {
        let replaced = match entry {
            Entry::Customer(record) => self.records.insert(record.file().to_owned(), record).is_some(),
            Entry::Gone(file) => {
                self.records.remove(&file);
                true
            }
            Entry::Recipe(recipe) => self.recipes.insert(recipe.short_hash(), recipe).is_some(),
            Entry::Folder(folder, stamp) => self.folders.insert(folder, stamp).is_some(),
        };
        self.stale += usize::from(replaced);
    }

    /// Returns whether most of the values are no longer those of any record.
    fn wastes_values(&self) -> bool {
        let of_made = |rendering: &RenderRecord| {
            u64::from(rendering.value.length) + rendering.before.map_or(0, |before| u64::from(before.1.length))
        };
        let units = self.records.values().flat_map(|record| &record.units);
        let live: u64 =
            units.map(|unit| u64::from(unit.value.length) + unit.rendered.as_ref().map_or(0, of_made)).sum();
        let length = self.values.as_ref().and_then(|(_, file)| file.metadata().ok()).map_or(0, |found| found.len());
        length > 2 * live + 4096
    }

    /// Returns the JSON of a value, if its digest is right.
    pub fn value(&self, chunk: Chunk, hash: ShortHash) -> Option<Vec<u8>> {
        let (_, file) = self.values.as_ref()?;
        let end = chunk.offset.checked_add(u64::from(chunk.length))?;
        if u64::from(chunk.length) > LONGEST || file.metadata().ok()?.len() < end {
            return None;
        }
        let mut bytes = vec![0; chunk.length as usize];
        file.read_exact_at(&mut bytes, chunk.offset).ok()?;
        (Digest::of(&bytes).short_hash() == hash).then_some(bytes)
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

/// Rewrites the log, with the records that count alone. The new one takes the old one's name at the end, so that at
/// any instant one of them is whole.
fn write_log(folder: &Path, manifest: &mut Manifest, name: &str, key: &UserKey) -> io::Result<()> {
    let sealed = format!("{name} {}", nonce()?);
    let mut log = format!("{FORMAT} {sealed} {}\n", key.seal(PURPOSE, Path::new(""), &sealed)).into_bytes();
    let recipes = manifest.recipes.values().cloned().map(Entry::Recipe);
    let folders = manifest.folders.iter().map(|(folder, stamp)| Entry::Folder(folder.clone(), *stamp));
    let mut entries: Vec<Entry> = recipes.chain(folders).collect();
    let mut sorted: Vec<&Record> = manifest.records.values().collect();
    sorted.sort_by(|a, b| a.file().cmp(b.file()));
    for chunk in sorted.chunks(FRAME) {
        entries.extend(chunk.iter().map(|record| Entry::Customer((*record).clone())));
        log.extend(frame(&std::mem::take(&mut entries)));
    }
    if !entries.is_empty() {
        log.extend(frame(&entries));
    }
    AtomicFile::new(&folder.join("log")).temporary(folder.join("log.new")).write(&log)?;
    manifest.whole = log.len() as u64;
    manifest.stale = 0;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::time::SystemTime;

    use flotilla_model::spec::{Environment, OwnAccount};

    use super::*;
    use crate::stamp::TICK;
    use crate::usage::WorkerUsage;

    /// Returns a record of a customer with one worker, of which the text is all that is known.
    fn record(writer: &Writer, file: &str, text: &str) -> Record {
        let resolved = Digest::of(text.as_bytes()).short_hash();
        let value = writer.value(text.as_bytes());
        let rendering = RenderRecord {
            from: resolved,
            value,
            recipe: ShortHash([7; 16]),
            partials: 5,
            outputs: vec![Output { name: "index.ts".to_owned(), content: resolved, stamp: Stamp(3) }],
            bundle: [1; 32],
            module: [2; 32],
            size: 9,
            rendered_at: 1_800_000_000,
            reasons: vec![DirtyReason::New, DirtyReason::Missing("index.ts".to_owned())],
            before: Some((resolved, value, ShortHash([8; 16]))),
        };
        let unit = Unit {
            environment: Environment::Staging,
            role: Some("web".to_owned()),
            pack: "tiny".to_owned(),
            variant: ShortHash::default(),
            resolved,
            value,
            compatibility_date: 20_260_601,
            usage: WorkerUsage::default(),
            rendered: Some(rendering),
        };
        Record {
            inputs: vec![Input { file: file.to_owned(), stamp: Stamp(9), content: Some(resolved) }],
            context: ShortHash([4; 16]),
            layers: vec!["gold".to_owned()],
            has_diagnostics: false,
            labels: vec![("tier".to_owned(), "gold".to_owned())],
            claims: vec![1, u64::MAX],
            accounts: vec![("acme".to_owned(), OwnAccount { id: Some("1".repeat(32)), ..OwnAccount::default() })],
            secrets: vec![7],
            units: vec![unit],
        }
    }

    fn recipe(tool: &str) -> Recipe {
        Recipe {
            tool: tool.to_owned(),
            pack: "packs/tiny".to_owned(),
            sources: Vec::new(),
            runtime: "runtime/tiny-0.js".to_owned(),
            files: vec!["index.ts".to_owned()],
            templates: vec![("index.ts.tera".to_owned(), ShortHash([6; 16]))],
            assets: Some("7".repeat(64)),
            asset_files: vec![("public/index.html".to_owned(), 8)],
        }
    }

    /// Returns the manifest of a folder, and its writer.
    fn open(root: &Path) -> (Manifest, Writer) {
        let mut manifest = Manifest::read(root);
        let writer = Writer::new(root, &mut manifest, true);
        (manifest, writer)
    }

    fn text(manifest: &Manifest, file: &str) -> Option<String> {
        let unit = &manifest.records.get(file)?.units[0];
        manifest.value(unit.value, unit.resolved).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// Returns a record whose file, role, output and recipe have these names.
    fn named(writer: &Writer, file: &str, role: &str, output: &str, input: &str) -> Record {
        let mut record = record(writer, file, "text");
        record.inputs.push(Input { file: input.to_owned(), stamp: Stamp::NONE, content: None });
        let unit = &mut record.units[0];
        unit.role = Some(role.to_owned());
        unit.rendered.as_mut().unwrap().outputs[0].name = output.to_owned();
        record
    }

    #[test]
    fn a_log_without_the_seal_of_this_user_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| UserKey::of(&folder.path().join(name)).unwrap();
        let (own, other) = (key("own"), key("other"));
        let project = folder.path().join("project");
        let log = project.join(FOLDER).join("log");
        let read = |key: &UserKey| Manifest::try_read(&project.join(FOLDER), || Some(key.clone()));
        let write = |key: &UserKey, text: &str| {
            let mut manifest = read(key).unwrap_or_default();
            let writer = Writer::with_key(&project, &mut manifest, Some(key));
            writer.record(record(&writer, "customers/acme.yaml", text));
            assert!(writer.settle().is_none());
        };
        write(&own, "one");
        assert_eq!(read(&own).unwrap().records.len(), 1);
        assert!(read(&other).is_err() && Manifest::try_read(&project.join(FOLDER), || None).is_err());
        // A build that doesn't believe it begins a log of its own, and forgets what was planted.
        write(&other, "two");
        assert_eq!(text(&read(&other).unwrap(), "customers/acme.yaml").as_deref(), Some("two"));
        assert!(read(&own).is_err());
        let bytes = fs::read(&log).unwrap();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let parts: Vec<&str> = head.rsplitn(3, ' ').collect();
        for head in [
            "flotilla build log 4 values-1".to_owned(),
            format!("{FORMAT} values-1"),
            format!("{FORMAT} values-1 {} {}", "0".repeat(parts[1].len()), parts[0]),
            head.replace("values-2", "values-1"),
            format!("{head}0"),
            format!(" {head}"),
        ] {
            fs::write(&log, [head.as_bytes(), &bytes[end..]].concat()).unwrap();
            assert!(read(&other).is_err(), "{head}");
        }
        fs::write(&log, &bytes).unwrap();
        assert!(read(&other).is_ok());
        // Without a key, nothing is kept, and nothing fails.
        fs::remove_dir_all(project.join(FOLDER)).unwrap();
        let writer = Writer::with_key(&project, &mut Manifest::default(), None);
        writer.record(record(&writer, "customers/acme.yaml", "three"));
        assert!(writer.settle().is_none() && !log.exists());
    }

    #[test]
    fn a_log_that_names_files_elsewhere_is_damaged() {
        let good = ["customers/acme.yaml", "web", "index.ts", "layers/eu.yaml"];
        let bad = ["../x", "..", "/etc/passwd", "a/../../x", ".git", "a\0b", ""];
        let read = |names: [&str; 4], recipe: &str| {
            let folder = tempfile::tempdir().unwrap();
            let mut manifest = Manifest::default();
            let writer = Writer::new(folder.path(), &mut manifest, true);
            writer.recipe(Recipe {
                tool: String::new(),
                pack: String::new(),
                sources: Vec::new(),
                runtime: String::new(),
                files: vec![recipe.to_owned()],
                templates: Vec::new(),
                assets: None,
                asset_files: Vec::new(),
            });
            writer.record(named(&writer, names[0], names[1], names[2], names[3]));
            assert!(writer.settle().is_none());
            Manifest::read(folder.path()).records.len()
        };
        assert_eq!(read(good, "index.ts"), 1);
        assert_eq!(read(["fleet.yaml", "web", "index.ts", "layers/eu.yaml"], "index.ts"), 1);
        for name in bad {
            assert_eq!(read(good, name), 0, "{name:?} as a recipe's file");
            for index in 0..4 {
                let mut names = good;
                names[index] = name;
                assert_eq!(read(names, "index.ts"), 0, "{names:?}");
                let below = format!("customers/{name}/x");
                names[0] = &below;
                assert_eq!(read(names, "index.ts"), 0, "{names:?}");
            }
        }
    }

    #[test]
    fn links_and_pipes_in_place_of_the_log_and_the_values_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (own, victim) = (folder.path().join(FOLDER), folder.path().join("victim"));
        let build = |text: &str| {
            let mut manifest = Manifest::read(folder.path());
            let writer = Writer::new(folder.path(), &mut manifest, true);
            writer.record(record(&writer, "customers/acme.yaml", text));
            writer.settle()
        };
        assert!(build("one").is_none());
        assert_eq!(Manifest::read(folder.path()).records.len(), 1);
        fs::write(&victim, "somebody's").unwrap();
        fs::remove_file(own.join("values-1")).unwrap();
        std::os::unix::fs::symlink(&victim, own.join("values-1")).unwrap();
        assert_eq!(Manifest::read(folder.path()).records.len(), 0);
        let _ = build("two");
        fs::write(own.join("values-18446744073709551615"), "").unwrap();
        fs::remove_file(own.join("log")).unwrap();
        std::os::unix::fs::symlink(&victim, own.join("log")).unwrap();
        let _ = build("three");
        assert_eq!(fs::read(&victim).unwrap(), b"somebody's");
        let _ = fs::remove_file(own.join("log"));
        let made = std::process::Command::new("mkfifo").arg(own.join("log")).status().unwrap();
        assert!(made.success());
        assert_eq!(Manifest::read(folder.path()).records.len(), 0);
        assert!(build("four").is_some(), "it says that nothing is remembered");
    }

    #[test]
    fn lengths_in_a_log_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        let writer = Writer::new(folder.path(), &mut manifest, true);
        writer.record(record(&writer, "customers/acme.yaml", "text"));
        assert!(writer.settle().is_none());
        let manifest = Manifest::read(folder.path());
        let hash = manifest.records["customers/acme.yaml"].units[0].resolved;
        for chunk in [
            Chunk { offset: 0, length: u32::MAX },
            Chunk { offset: u64::MAX, length: 9 },
            Chunk { offset: 1 << 40, length: 1 },
        ] {
            assert_eq!(manifest.value(chunk, hash), None);
        }
        // A hole of four gigabytes as a frame.
        let log = File::options().append(true).open(folder.path().join(FOLDER).join("log")).unwrap();
        (&log).write_all(&[0xff; 8]).unwrap();
        log.set_len(5 << 30).unwrap();
        assert_eq!(Manifest::read(folder.path()).records.len(), 1);
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (manifest, writer) = open(folder.path());
        assert!(manifest.records.is_empty() && manifest.recipes.is_empty() && manifest.folders.is_empty());
        let (a, b) = (record(&writer, "a.yaml", "one"), record(&writer, "b.yaml", "two"));
        for record in [&a, &b] {
            writer.record(record.clone());
        }
        writer.recipe(recipe("1"));
        writer.folder("production", Stamp(11));
        assert!(writer.settle().is_none());

        let (manifest, writer) = open(folder.path());
        assert_eq!(manifest.records, HashMap::from([("a.yaml".to_owned(), a.clone()), ("b.yaml".to_owned(), b)]));
        assert_eq!(manifest.recipes, HashMap::from([(recipe("1").short_hash(), recipe("1"))]));
        assert_eq!(manifest.folders, HashMap::from([("production".to_owned(), Stamp(11))]));
        assert_eq!(
            [text(&manifest, "a.yaml"), text(&manifest, "b.yaml")],
            [Some("one".to_owned()), Some("two".to_owned())]
        );
        // A value under another name is none.
        assert_eq!(manifest.value(a.units[0].value, ShortHash([0; 16])), None);

        // The last one counts, and what is gone is gone.
        writer.forget("b.yaml");
        let newer = Record { has_diagnostics: true, ..a };
        writer.record(newer.clone());
        writer.folder("production", Stamp::NONE);
        assert!(writer.settle().is_none());
        let manifest = Manifest::read(folder.path());
        assert_eq!(manifest.records, HashMap::from([("a.yaml".to_owned(), newer)]));
        assert_eq!(manifest.folders["production"], Stamp::NONE);
        assert_eq!(manifest.stale, 3);
    }

    #[test]
    fn a_log_that_is_cut_or_damaged_anywhere_gives_what_was_written_before() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(FOLDER).join("log");
        // Each in a frame of its own, and how long the log is with it.
        let mut ends = Vec::new();
        for index in 0..4 {
            let (_, writer) = open(folder.path());
            if index == 0 {
                ends.push(fs::metadata(&log).unwrap().len());
            }
            writer.record(record(&writer, &format!("{index}.yaml"), &format!("text {index}")));
            assert!(writer.settle().is_none());
            ends.push(fs::metadata(&log).unwrap().len());
        }
        let whole = fs::read(&log).unwrap();
        let known = |bytes: &[u8]| {
            fs::write(&log, bytes).unwrap();
            let manifest = Manifest::read(folder.path());
            let mut files: Vec<String> = manifest.records.keys().cloned().collect();
            files.sort();
            for (index, file) in files.iter().enumerate() {
                assert_eq!(text(&manifest, file), Some(format!("text {index}")));
            }
            files.len()
        };
        for cut in 0..whole.len() {
            // How many frames are whole.
            let wanted = ends.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
            assert_eq!(known(&whole[..cut]), wanted, "cut at {cut}");
        }
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x41;
            let wanted = ends.iter().filter(|end| **end <= index as u64).count().saturating_sub(1);
            assert_eq!(known(&bytes), wanted, "damaged at {index}");
        }
        // Who writes on cuts off what is torn.
        fs::write(&log, &whole[..whole.len() - 1]).unwrap();
        let (manifest, writer) = open(folder.path());
        assert_eq!(manifest.records.len(), 3);
        writer.record(record(&writer, "new.yaml", "new"));
        assert!(writer.settle().is_none());
        let manifest = Manifest::read(folder.path());
        assert_eq!((manifest.records.len(), text(&manifest, "new.yaml")), (4, Some("new".to_owned())));
    }

    #[test]
    fn a_log_that_grew_too_long_is_written_anew_with_what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let build = folder.path().join(FOLDER);
        let (_, writer) = open(folder.path());
        for round in 0..600 {
            for file in ["a.yaml", "b.yaml"] {
                writer.record(record(&writer, file, &format!("{file} {round}")));
            }
        }
        // One whose value is damaged, one that is gone.
        writer.record(record(&writer, "lost.yaml", "lost"));
        writer.record(record(&writer, "gone.yaml", "gone"));
        writer.forget("gone.yaml");
        writer.recipe(recipe("1"));
        writer.folder("production", Stamp(11));
        assert!(writer.settle().is_none());
        drop(writer);
        let mut values = fs::read(build.join("values-1")).unwrap();
        let lost = values.windows(4).position(|window| window == b"lost").unwrap();
        values[lost] = b'L';
        fs::write(build.join("values-1"), values).unwrap();
        let size = || ["log", "values-2"].map(|name| fs::metadata(build.join(name)).map_or(0, |found| found.len()));
        let [long, _] = size();

        let before = Manifest::read(folder.path());
        let (manifest, writer) = open(folder.path());
        let [log, values] = size();
        assert!(log < long / 50 && values < 100, "{long} → {log}, {values}");
        assert!(!build.join("values-1").exists() && !build.join("log.new").exists());
        let read = Manifest::read(folder.path());
        for manifest in [&manifest, &read] {
            assert_eq!(text(manifest, "a.yaml"), Some("a.yaml 599".to_owned()));
            assert_eq!(text(manifest, "b.yaml"), Some("b.yaml 599".to_owned()));
            assert_eq!(manifest.records.len(), 3);
            // What earlier workers were made from is kept as well.
            let rendering = manifest.records["a.yaml"].units[0].rendered.as_ref().unwrap();
            assert_eq!(manifest.value(rendering.value, rendering.from), Some(b"a.yaml 599".to_vec()));
            let (hash, chunk, recipe) = rendering.before.unwrap();
            assert_eq!((manifest.value(chunk, hash), recipe), (Some(b"a.yaml 599".to_vec()), ShortHash([8; 16])));
            assert_eq!((manifest.recipes.len(), manifest.folders["production"]), (1, Stamp(11)));
            // If a customer's value is lost, nothing about it counts as known.
            assert_eq!(text(manifest, "lost.yaml"), None);
            assert_eq!(manifest.records["lost.yaml"].context, ShortHash::default());
        }
        assert_eq!(before.records["a.yaml"].inputs, read.records["a.yaml"].inputs);
        // It is written on, where it ends.
        writer.record(record(&writer, "c.yaml", "c"));
        assert!(writer.settle().is_none());
        assert_eq!(text(&Manifest::read(folder.path()), "c.yaml"), Some("c".to_owned()));
    }

    #[test]
    fn what_is_not_to_be_kept_is_in_memory_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::read(folder.path());
        let writer = Writer::new(folder.path(), &mut manifest, false);
        let record = record(&writer, "a.yaml", "one");
        let unit = &record.units[0];
        assert_eq!(writer.read(&manifest, unit.value, unit.resolved), Some(b"one".to_vec()));
        writer.record(record.clone());
        writer.wrote();
        let start = std::time::Instant::now();
        assert!(writer.settle().is_none());
        assert!(start.elapsed() < TICK, "nothing has to settle");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // The same if the folder can't be created, which is reported.
        fs::write(folder.path().join(".flotilla"), "a file").unwrap();
        let writer = Writer::new(folder.path(), &mut manifest, true);
        let record = self::record(&writer, "a.yaml", "two");
        let unit = &record.units[0];
        assert_eq!(writer.read(&manifest, unit.value, unit.resolved), Some(b"two".to_vec()));
        assert!(writer.settle().is_some());
    }

    #[test]
    fn a_build_settles_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (_, writer) = open(folder.path());
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        writer.wrote();
        assert!(writer.settle().is_none());
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(Stamp::settled(&metadata, SystemTime::now()), Stamp::of(&metadata));
    }
}
