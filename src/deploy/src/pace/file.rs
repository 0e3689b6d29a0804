//! A ledger in a file: what all processes of a user know of a token's requests. Knows bytes and locks; not what the
//! counts are for.
//!
//! The file has two slots, and each change is written to the older one, with a checksum: a process that is killed
//! while it writes loses at most the change that it was about to make, and the permit with it. Reading, changing and
//! writing happen under the operating system's lock, which a killed process no longer holds. Nothing is flushed to
//! the disk: after a power failure the clock is another one, and the file starts over.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use flotilla_model::plain_file::{self, HeldFile};

use super::ledger::{Ledger, Nanos, WINDOWS, Window};

/// The beginning of a slot: the format and its version.
const MAGIC: &[u8; 8] = b"flotlan1";
/// The size of a place: pages, so that writing one never touches the other.
const PLACE: usize = 12 << 10;
/// The length of the header: the magic, the checksum of the rest, the number of the change, the time, the epoch.
const HEAD: usize = 8 + 8 + 8 + 8 + 16;
/// The size of a ledger as the first version wrote it.
const BODY: usize = 8 * 5 + 4 * Ledger::FLIGHTS + WINDOWS * (8 * 5 + 4 * Window::COUNTS);
/// The length of the fields that were added later, at the end, where the first version has zeros: the claim of
/// [`Priority::Bulk`](super::Priority::Bulk). An older flotilla ignores them and writes zeros again, which costs
/// nothing but the order of two classes.
const MORE: usize = 8;
const _: () = assert!(HEAD + BODY + MORE <= PLACE);

/// The time without a change after which a file is removed: longer than any window or block.
const UNUSED: Duration = Duration::from_secs(7 * 86_400);

/// The folders from which this process has removed unused files.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The file.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    file: File,
    epoch: [u8; 16],
    /// The head of what this process read or wrote last.
    last: [u8; HEAD],
}

impl Shared {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path, epoch: [u8; 16]) -> io::Result<Shared> {
        if let Some(folder) = path.parent() {
            plain_file::create_folder(folder)?;
            if !path.exists() {
                // Once: a run can have a token for each customer.
                if SWEPT.lock().insert(folder.to_owned()) {
                    sweep(folder);
                }
            }
        }
        Ok(Shared { path: path.to_owned(), file: file(path)?, epoch, last: [0; HEAD] })
    }

    /// Changes the ledger while no other process can. `now` is called under the lock; `change` returns its result
    /// with whether the ledger has to be written. `ledger` is what this process saw last: it counts where the file is
    /// damaged, foreign or gone.
    pub(super) fn change<T>(
        &mut self,
        ledger: &mut Ledger,
        now: impl FnOnce() -> Nanos,
        change: impl FnOnce(&mut Ledger, Nanos) -> (T, bool),
    ) -> (T, io::Result<()>) {
        if let Err(error) = self.lock() {
            return (change(ledger, now()).0, Err(error));
        }
        let now = now();
        let number = self.read(ledger, now);
        let (given, write) = change(ledger, now);
        let written = if write { self.write(ledger, number + 1, now) } else { Ok(()) };
        let _ = self.file.unlock();
        (given, written)
    }

    /// Takes the lock of the file that has the name now, as the cache may have been emptied, or the file moved.
    fn lock(&mut self) -> io::Result<()> {
        for _ in 0..3 {
            while let Err(error) = self.file.lock() {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            if HeldFile::of(&self.file, &self.path)?.has_its_name() {
                return Ok(());
            }
            if let Some(folder) = self.path.parent() {
                plain_file::create_folder(folder)?;
            }
            self.file = file(&self.path)?;
        }
        Err(io::Error::other("the file is removed again and again"))
    }

    /// Reads the newest whole ledger of this epoch, if there is one, and if it isn't the one that this process wrote; the
    /// number of its change.
    fn read(&mut self, ledger: &mut Ledger, now: Nanos) -> u64 {
        let heads = [0, 1].map(|at| self.bytes::<HEAD>(at));
        let newest = heads.iter().flatten().max_by_key(|head| self.number(*head, now));
        if newest.is_some_and(|head| *head == self.last) {
            return self.number(&self.last, now).unwrap_or(0);
        }
        let places = [0, 1].map(|at| self.bytes::<PLACE>(at));
        let whole = places.iter().flatten().filter(|place| whole(*place));
        let numbered = whole.filter_map(|place| Some((self.number(place, now)?, place)));
        let Some((number, place)) = numbered.max_by_key(|(number, _)| *number) else { return 0 };
        *ledger = decoded(&place[HEAD..]);
        self.last.copy_from_slice(&place[..HEAD]);
        number
    }

    /// The first bytes of a place, if it has that many.
    fn bytes<const N: usize>(&self, place: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, place * PLACE as u64).ok().map(|()| bytes)
    }

    /// The number of a place's change, if it can be one of this epoch.
    fn number(&self, place: &[u8], now: Nanos) -> Option<u64> {
        let mut reader = Reader(place);
        let magic = reader.take(8) == MAGIC;
        let (_, number, written) = (reader.u64(), reader.u64(), reader.u64());
        // A time in the future: the clock has changed.
        (magic && reader.take(16) == self.epoch && written <= now).then_some(number)
    }

    fn write(&mut self, ledger: &Ledger, number: u64, now: Nanos) -> io::Result<()> {
        let mut place = Vec::with_capacity(PLACE);
        place.extend_from_slice(MAGIC);
        place.extend_from_slice(&[0; 8]);
        place.extend_from_slice(&number.to_le_bytes());
        place.extend_from_slice(&now.to_le_bytes());
        place.extend_from_slice(&self.epoch);
        encode(ledger, &mut place);
        place.resize(PLACE, 0);
        let sum = checksum(&place);
        place[8..16].copy_from_slice(&sum.to_le_bytes());
        self.last.copy_from_slice(&place[..HEAD]);
        self.file.write_all_at(&place, (number % 2) * PLACE as u64)
    }
}

fn file(path: &Path) -> io::Result<File> {
    let file = plain_file::open_with(path, File::options().read(true).write(true).create(true))?;
    plain_file::make_private(path);
    Ok(file)
}

/// Removes the files of tokens that were not used for long: nothing in them counts any more. A process that has one
/// open creates it again.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age > UNUSED);
        if entry.metadata().and_then(|file| file.modified()).is_ok_and(old) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn checksum(place: &[u8]) -> u64 {
    u64::from(crc32fast::hash(&place[16..]))
}

fn whole(place: &[u8]) -> bool {
    place[8..16] == checksum(place).to_le_bytes()
}

fn encode(ledger: &Ledger, bytes: &mut Vec<u8>) {
    let mut number = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    number(ledger.sent);
    number(ledger.blocked_until);
    number(u64::from(ledger.strikes));
    number(ledger.claims[0]);
    number(ledger.flight.newest);
    for count in &ledger.flight.counts {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    for window in &ledger.windows {
        let newest = window.answered.newest;
        for number in [window.length, window.reported, window.foreign, window.foreign_until, newest] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for count in &window.answered.counts {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
    }
    bytes.resize(HEAD + BODY, 0);
    bytes.extend_from_slice(&ledger.claims[1].to_le_bytes());
}

fn decoded(bytes: &[u8]) -> Ledger {
    let mut reader = Reader(bytes);
    let (sent, blocked_until, strikes, interactive) = (reader.u64(), reader.u64(), reader.u64(), reader.u64());
    let newest = reader.u64();
    let mut ledger = Ledger::of(newest, reader.counts(Ledger::FLIGHTS));
    (ledger.sent, ledger.blocked_until) = (sent, blocked_until);
    ledger.strikes = u32::try_from(strikes).unwrap_or(u32::MAX);
    for _ in 0..WINDOWS {
        let (length, reported, foreign, foreign_until) = (reader.u64(), reader.u64(), reader.u64(), reader.u64());
        let newest = reader.u64();
        let window = Window::of(length, newest, reader.counts(Window::COUNTS));
        // The rest of the place is empty.
        if length > 0 {
            ledger.windows.push(Window { reported, foreign, foreign_until, ..window });
        }
    }
    ledger.claims = [interactive, reader.u64()];
    ledger
}

/// The bytes that are yet to be read; the size is known, so that they never run out.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("BUG: eight bytes"))
    }

    fn counts(&mut self, number: usize) -> Vec<u32> {
        let bytes = self.take(4 * number);
        bytes.chunks_exact(4).map(|count| u32::from_le_bytes(count.try_into().expect("BUG: four bytes"))).collect()
    }
}
