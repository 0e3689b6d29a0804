//! The stamps of files: what of their metadata shows that they changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use flotilla_model::digest::ShortHash;

/// The longest time between two ticks of a file system's clock that has fractions of seconds.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// The same for one that has none.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// The time of a file's last change, as far as its metadata shows: a digest of length, times and inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(pub(crate) u64);

impl Stamp {
    /// The stamp of no file. A file that has it is read again.
    pub const NONE: Stamp = Stamp(0);

    /// Returns the stamp of a file that was not just changed. A file that was changed within the same tick of the
    /// clock can change again without a trace: its stamp proves nothing.
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

    /// Returns the stamp of a file that this build has just written; see [`Writer::settle`](crate::manifest::Writer::settle).
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

    /// Returns whether it is certain that nothing changed.
    pub fn same(self, now: Stamp) -> bool {
        self != Stamp::NONE && self == now
    }
}

/// A file that was read for a customer, beside the fleet's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its path from the project's root.
    pub file: String,
    /// Its stamp when it was read.
    pub stamp: Stamp,
    /// The digest of its bytes; nothing if there was no file.
    pub content: Option<ShortHash>,
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_stamp_is_known_only_when_its_file_can_not_change_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let stat = || fs::metadata(&path).unwrap();
        fs::write(&path, "one").unwrap();
        let written = SystemTime::now();
        assert_eq!(Stamp::settled(&stat(), written), Stamp::NONE);
        // Neither is the time a guide by which the file is of the future.
        assert_eq!(Stamp::settled(&stat(), written - Duration::from_secs(60)), Stamp::NONE);
        let later = written + COARSE_TICK;
        let settled = Stamp::settled(&stat(), later);
        assert_eq!(settled, Stamp::of(&stat()));
        assert!(settled.same(Stamp::of(&stat())));
        assert!(!Stamp::NONE.same(Stamp::NONE), "nothing is known of two files that aren't settled");

        // Length and time of the last change as they were: the time of the last change of its entry tells.
        std::thread::sleep(TICK);
        let open = File::options().write(true).open(&path).unwrap();
        let modified = stat().modified().unwrap();
        open.write_all_at(b"two", 0).unwrap();
        open.set_modified(modified).unwrap();
        assert_eq!((stat().len(), stat().modified().unwrap()), (3, modified));
        assert!(!settled.same(Stamp::of(&stat())));

        // Another file in its place, of the same times.
        let settled = Stamp::of(&stat());
        let other = folder.path().join("other");
        fs::copy(&path, &other).unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!settled.same(Stamp::of(&stat())));
    }
}
