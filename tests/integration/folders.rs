//! Temporary folders of the tests: in memory where this machine has a file system for that, as making and removing thousands of small files
//! is a third of what the tests cost on a disk; otherwise where temporary files are.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::{StatVfsMountFlags, statvfs};
use tempfile::{Builder, TempDir};

/// A file system in memory on Linux. In a container it is often small, or doesn't let programs run.
const MEMORY: &str = "/dev/shm";
/// The space that has to be free there: several times what the tests take at once.
const ROOM: u64 = 2 << 30;
/// What the names of this module's folders begin with.
const PREFIX: &str = "flotilla-tests-";
/// The file by whose lock a folder is known to be in use, also from another container.
const LOCK: &str = "lock";

/// The folder of this process in memory.
struct InMemory {
    folder: TempDir,
    _lock: File,
}

/// Never dropped, as statics aren't: the next run of the tests removes it.
static IN_MEMORY: LazyLock<Option<InMemory>> = LazyLock::new(|| in_memory(Path::new(MEMORY)));

/// A temporary folder: in memory, if there is room.
pub fn temporary_folder() -> TempDir {
    match &*IN_MEMORY {
        Some(memory) => tempfile::tempdir_in(memory.folder.path()).expect("a temporary folder"),
        None => temporary_folder_on_disk(),
    }
}

/// A temporary folder on a disk, for what depends on how a disk's file system behaves: its inodes, its times, its writes.
pub fn temporary_folder_on_disk() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn in_memory(memory: &Path) -> Option<InMemory> {
    let found = statvfs(memory).ok()?;
    let unfit = StatVfsMountFlags::NOEXEC | StatVfsMountFlags::RDONLY;
    if found.f_flag.intersects(unfit) || found.f_bavail.saturating_mul(found.f_frsize) < ROOM {
        return None;
    }
    remove_left(memory);
    let folder = Builder::new().prefix(PREFIX).tempdir_in(memory).ok()?;
    let lock = File::create(folder.path().join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    // Some tests run the program as another user, who has to come through.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).ok()?;
    Some(InMemory { folder, _lock: lock })
}

/// Removes the folders of processes that have ended: what is left in memory stays there until the machine is restarted.
fn remove_left(memory: &Path) {
    for entry in fs::read_dir(memory).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // One without a lock is just being made, or somebody else's.
        if is_ours && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[test]
fn a_folder_in_memory_is_removed_once_nobody_uses_it() {
    let memory = temporary_folder_on_disk();
    let begun = memory.path().join(format!("{PREFIX}begun"));
    let (left, other) = (memory.path().join(format!("{PREFIX}left")), memory.path().join("others"));
    for folder in [&begun, &left, &other] {
        fs::create_dir_all(folder.join("project")).expect("a folder");
    }
    for folder in [&left, &other] {
        fs::write(folder.join(LOCK), "").expect("a file");
    }
    let used = in_memory(memory.path());
    assert!(!left.exists() && begun.exists() && other.exists(), "only what has ended is removed");
    // A disk can be without room, too.
    let Some(used) = used else { return };
    remove_left(memory.path());
    assert!(used.folder.path().exists());
    drop(used);
    assert_eq!(fs::read_dir(memory.path()).expect("a folder").count(), 2);
}
