//! Files that are written whole or not at all: the bytes go to a temporary file in the same folder, which is then renamed. Knows nothing of
//! what they hold.

use std::fs::{self, File, Metadata, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::plain_file;

/// A file that is to be written. Readers see the old bytes or the new ones, never a part of them; a process that is killed
/// leaves a temporary file at most. Missing folders are created.
///
/// Unless something else is set: a symbolic link is replaced, not followed; the permissions are those of a new file; and the
/// bytes survive the death of the process, but not necessarily that of the machine. A device, a pipe or a socket is never replaced.
#[derive(Clone, Debug)]
pub struct AtomicFile<'a> {
    path: &'a Path,
    temporary: Option<PathBuf>,
    mode: Option<u32>,
    keeps_permissions: bool,
    follows_link: bool,
    is_durable: bool,
}

impl<'a> AtomicFile<'a> {
    /// Returns a file at a path.
    pub fn new(path: &'a Path) -> AtomicFile<'a> {
        AtomicFile {
            path,
            temporary: None,
            mode: None,
            keeps_permissions: false,
            follows_link: false,
            is_durable: false,
        }
    }

    /// Sets the permissions of a new file, independent of the umask. If the mode doesn't allow it, no other user can
    /// read the bytes at any time.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Keeps the permissions of the file that is replaced.
    #[must_use]
    pub fn keep_permissions(mut self) -> Self {
        self.keeps_permissions = true;
        self
    }

    /// Replaces the file that a symbolic link points to, instead of the link, or creates it. Devices and pipes are written to directly.
    #[must_use]
    pub fn follow_link(mut self) -> Self {
        self.follows_link = true;
        self
    }

    /// Makes the bytes and the name survive a power cut: for files that can't be recreated. It costs two waits for the disk.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    /// Sets the temporary file, instead of one with a name of its own: for folders that one process at a time writes to,
    /// where what a killed one left is found by its name. Such a leftover is replaced.
    #[must_use]
    pub fn temporary(mut self, path: PathBuf) -> Self {
        self.temporary = Some(path);
        self
    }

    /// Sets the temporary file to [`beside`]: so a killed process leaves nothing that a later one doesn't know by name. For files that one
    /// process at a time writes.
    #[must_use]
    pub fn known_temporary(mut self) -> Self {
        self.temporary = Some(beside(self.path));
        self
    }

    /// Writes the file; returns its metadata: that of the file that was written here, even if another one has taken its place
    /// since.
    pub fn write(self, bytes: &[u8]) -> io::Result<Metadata> {
        if self.follows_link && fs::metadata(self.path).is_ok_and(|found| plain_file::is_special(&found)) {
            let mut file = File::options().write(true).open(self.path)?;
            file.write_all(bytes)?;
            file.flush()?;
            return file.metadata();
        }
        self.stage(bytes)?.commit()
    }

    /// Writes the bytes to the temporary file; [`Staged::commit`] puts it in place.
    pub fn stage(self, bytes: &[u8]) -> io::Result<Staged> {
        let path = match self.follows_link {
            true => plain_file::resolve(self.path)?,
            false => self.path.to_owned(),
        };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let before = if self.keeps_permissions { fs::metadata(&path).ok() } else { None };
        let mode = before.map(|before| before.permissions().mode()).or(self.mode);
        let is_replaceable = self.temporary.is_some();
        let temporary = self.temporary.unwrap_or_else(|| {
            let unique = RandomState::new().hash_one(std::process::id());
            folder.join(format!(".{}.{unique:016x}.new", name.to_string_lossy()))
        });
        let file = create(&temporary, folder, mode.is_some(), is_replaceable)?;
        let mut staged = Staged { file, temporary, path, is_durable: self.is_durable, is_committed: false };
        staged.file.write_all(bytes)?;
        if let Some(mode) = mode {
            staged.file.set_permissions(Permissions::from_mode(mode))?;
        }
        if staged.is_durable {
            staged.file.sync_all()?;
        }
        Ok(staged)
    }
}

/// Returns the temporary file of [`AtomicFile::known_temporary`].
pub fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.flotilla.new", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Creates a temporary file; never through an existing link.
fn create(temporary: &Path, folder: &Path, is_private: bool, is_replaceable: bool) -> io::Result<File> {
    let create = || {
        let mode = if is_private { 0o600 } else { 0o666 };
        File::options().write(true).create_new(true).mode(mode).open(temporary)
    };
    match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            create()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_replaceable => {
            if fs::symlink_metadata(temporary).is_ok_and(|found| plain_file::is_special(&found)) {
                return Err(io::Error::other(format!("{} is a device, a pipe or a socket", temporary.display())));
            }
            fs::remove_file(temporary)?;
            create()
        }
        other => other,
    }
}

/// A file whose bytes are written, under a temporary name. Unless it is committed, it is removed.
#[derive(Debug)]
pub struct Staged {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    is_durable: bool,
    is_committed: bool,
}

impl Staged {
    /// Renames the file to its name; returns its metadata.
    pub fn commit(mut self) -> io::Result<Metadata> {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| plain_file::is_special(&found)) {
            return Err(io::Error::other("a device, a pipe or a socket is there"));
        }
        fs::rename(&self.temporary, &self.path)?;
        self.is_committed = true;
        if self.is_durable
            && let Some(folder) = self.path.parent()
        {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        self.file.metadata()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn bytes_and_permissions_are_as_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        AtomicFile::new(&path).mode(0o600).write(b"one").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (&b"one"[..], 0o600));
        let written = AtomicFile::new(&path).keep_permissions().mode(0o644).durable().write(b"two").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path), written.len()), (&b"two"[..], 0o600, 3));
        fs::write(folder.path().join("plain"), "").unwrap();
        AtomicFile::new(&path).write(b"three").unwrap();
        assert_eq!(mode(&path), mode(&folder.path().join("plain")), "as any new file");
        assert_eq!(names(path.parent().unwrap()), ["file"]);
    }

    #[test]
    fn links_are_replaced_or_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        symlink("target", &link).unwrap();
        AtomicFile::new(&link).follow_link().write(b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        AtomicFile::new(&link).write(b"own").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        AtomicFile::new(Path::new("/dev/null")).follow_link().write(b"gone").unwrap();
    }

    #[test]
    fn a_leftover_is_replaced_and_a_link_in_its_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, temporary) = (folder.path().join("file"), folder.path().join(".file.new"));
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, &temporary).unwrap();
        AtomicFile::new(&path).temporary(temporary).write(b"new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(folder.path()), ["file", "victim"]);
    }

    #[test]
    fn devices_and_pipes_are_written_to_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        symlink("pipe", at("link")).unwrap();
        // A link to a device that exists everywhere; nothing here makes nodes.
        symlink("/dev/null", at("null")).unwrap();
        for name in ["pipe", "link"] {
            let reader = {
                let path = at(name);
                std::thread::spawn(move || fs::read(path).unwrap())
            };
            AtomicFile::new(&at(name)).follow_link().write(b"new").unwrap();
            assert_eq!(reader.join().unwrap(), b"new");
        }
        AtomicFile::new(&at("null")).follow_link().write(b"new").unwrap();
        assert!(AtomicFile::new(&at("pipe")).write(b"new").is_err());
        let before = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(AtomicFile::new(&at("socket")).write(b"new").is_err());
        assert!(AtomicFile::new(&at("socket")).follow_link().write(b"new").is_err());
        drop(before);
        // A link to a file that doesn't exist yet.
        symlink("below/file", at("dangling")).unwrap();
        AtomicFile::new(&at("dangling")).follow_link().write(b"new").unwrap();
        assert_eq!(fs::read(at("below/file")).unwrap(), b"new");
        assert!(fs::symlink_metadata(at("dangling")).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["below", "dangling", "link", "null", "pipe", "socket"]);
    }

    #[test]
    fn an_error_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("taken/full")).unwrap();
        assert!(AtomicFile::new(&folder.path().join("taken")).write(b"x").is_err(), "a folder is there");
        assert_eq!(names(folder.path()), ["taken"]);
        let file = folder.path().join("file");
        fs::write(&file, "old").unwrap();
        assert!(AtomicFile::new(&file.join("below")).write(b"x").is_err(), "a file is no folder");
        drop(AtomicFile::new(&file).stage(b"new").unwrap());
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(folder.path())),
            ("old", vec!["file".to_owned(), "taken".to_owned()])
        );
        assert!(AtomicFile::new(Path::new("/")).write(b"x").is_err());
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
        // The administrator may write there.
        if fs::write(closed.join("probe"), "").is_err() {
            assert!(AtomicFile::new(&closed.join("file")).durable().write(b"x").is_err());
        }
    }
}
