//! Files whose type, place and size aren't trusted: those under `.flotilla/` and in the cache, and output files in a project. They are
//! opened without following a link, without waiting for the other end of a pipe, and read up to a limit; paths stay inside a folder. What
//! flotilla writes for itself is private to its owner, whatever the umask is.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// The permissions of private files.
pub const PRIVATE: u32 = 0o600;
/// The permissions of private folders.
pub const PRIVATE_FOLDER: u32 = 0o700;
/// The depth to which [`refuse_foreign`] looks.
const DEPTH: usize = 2;
/// The longest path that is taken from a file, in bytes, and its most steps.
const PATH: (usize, usize) = (1024, 64);

/// Opens a regular file. A link, a folder, a device, a pipe and a socket are errors, and none of them is opened.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, File::options().read(true))
}

/// Opens a regular file with these options, or creates one that is private.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) => require_plain(&found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.mode(PRIVATE).custom_flags(flags.bits() as i32).open(path)?;
    require_plain(&file.metadata()?)?;
    Ok(file)
}

/// Returns an error unless this is the metadata of a regular file.
fn require_plain(found: &Metadata) -> io::Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(io::Error::other(format!("it is {}, not a regular file", kind(found)))),
    }
}

/// Returns what a path is, in words.
fn kind(found: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = found.file_type();
    match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_file() => "a regular file",
        () => "a device",
    }
}

/// Returns whether a path is a device, a pipe or a socket: something that is written to and can't be replaced by a file.
pub fn is_special(found: &Metadata) -> bool {
    !found.is_file() && !found.is_dir() && !found.is_symlink()
}

/// Reads a regular file of at most this many bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_all(&open(path)?, limit)
}

/// Reads a regular file of at most this many bytes, or one that a link leads to.
pub fn read_through_links(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Looked at first: to open a device can have an effect.
    require_plain(&fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    require_plain(&file.metadata()?)?;
    read_all(&file, limit)
}

/// Reads the rest of a file, at most this many bytes; a longer one is an error.
pub fn read_all(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata().map_or(0, |found| found.len()).min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!("it has more than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// Creates a folder, and those above it that are missing; new ones are private.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(path)
}

/// Takes permissions away from others if this user owns the file or the folder. Does nothing where it isn't there or can't be changed.
pub fn make_private(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let mode = found.permissions().mode() & 0o7777;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if mode & 0o077 != 0 && is_ours && (found.is_file() || found.is_dir()) {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o700));
    }
}

/// Returns the permissions of a file if other users can read or write it.
pub fn readable_by_others(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o066 != 0).then_some(mode)
}

/// Returns an error if a folder of flotilla's own, or something in it down to the second level, is a link, a device, a pipe or a
/// socket: flotilla makes none of these there, and through a link it would write elsewhere.
pub fn refuse_foreign(folder: &Path) -> io::Result<()> {
    refuse(folder, DEPTH)
}

fn refuse(path: &Path, depth: usize) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // Others come and go, such as the state's journals.
        Err(_) => return Ok(()),
    };
    if !found.is_file() && !found.is_dir() {
        return Err(io::Error::other(format!("{} is {}", path.display(), kind(&found))));
    }
    if found.is_dir() && depth > 0 {
        // A folder that can't be read is an error for those that need it.
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if depth > 1 || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                refuse(&entry.path(), depth - 1)?;
            }
        }
    }
    Ok(())
}

/// Returns the path of a file of a project for a path that was read from a file: relative, without `.` and `..`, not below `.git` or
/// flotilla's own folder, and not through links that point outside the project. The error describes what is wrong with it.
pub fn project_file(root: &Path, path: &str) -> Result<PathBuf, String> {
    project_path(path)?;
    let path = root.join(path);
    inside(root, &path).map_err(|error| error.to_string())?;
    Ok(path)
}

/// Checks a path that was read from a file as [`project_file`] does, without looking at the disk.
pub fn project_path(path: &str) -> Result<(), String> {
    let steps: Vec<&str> = path.split('/').collect();
    if path.is_empty() || path.len() > PATH.0 || steps.len() > PATH.1 || path.contains('\0') {
        return Err("it is not a path in the project".to_owned());
    }
    if steps.iter().any(|step| step.is_empty() || *step == "." || *step == "..") {
        return Err("it isn't relative to the project, or is outside it".to_owned());
    }
    if steps.iter().any(|step| is_reserved(step)) {
        return Err("it is in a folder that belongs to git or to flotilla".to_owned());
    }
    Ok(())
}

/// Returns whether a name is that of git's folder or of flotilla's own, on any file system: names can differ in case, in trailing dots
/// and spaces, and in characters that are ignored.
fn is_reserved(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii).collect::<String>().to_ascii_lowercase();
    let name = name.trim_end_matches(['.', ' ']).split(':').next().unwrap_or_default();
    matches!(name, ".git" | "git~1" | ".flotilla")
}

/// Returns the file that a path of a project points to. It is an error if that is outside the project, because of a link anywhere in the
/// path, or if it is not a regular file; the file doesn't have to exist.
pub fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let root_path = root.canonicalize()?;
    let escapes = |at: &Path| {
        io::Error::other(format!("{} is a symbolic link to something outside of {}", at.display(), root.display()))
    };
    let target = resolve(path)?;
    // What exists of it, and what will be created below that.
    let there = target.ancestors().find(|at| fs::symlink_metadata(at).is_ok()).unwrap_or(&root_path);
    let real = there.canonicalize()?;
    if !real.starts_with(&root_path) {
        return Err(escapes(path));
    }
    match fs::symlink_metadata(&target) {
        Ok(found) => require_plain(&found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(target)
}

/// Returns the final target of a symbolic link, also if nothing is there; the path itself if it is no link.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(to) => path = normalized(&path.parent().unwrap_or(Path::new("")).join(to)),
            // No link, or nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{} is a cycle of symbolic links", path.display())))
}

/// Returns a path without `.` and `..`, without looking at the disk: `a/../b` is `b` even where `a` is a symbolic link.
pub fn without_dots(path: &Path) -> PathBuf {
    let mut steps = PathBuf::new();
    for step in path.components() {
        match step {
            Component::CurDir => {}
            Component::ParentDir => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps
}

/// Returns a path without `.`; a `..` after a folder that doesn't exist stays.
fn normalized(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// A file that a process relies on as long as it has it open: its path, and the identity that shows whether it still has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl HeldFile {
    /// Identifies an open file.
    ///
    /// # Errors
    /// When the file can't be examined.
    pub fn of(file: &File, path: &Path) -> io::Result<HeldFile> {
        file.metadata().map(|found| HeldFile::new(&found, path))
    }

    /// Identifies the file that has this name now.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(path: &Path) -> io::Result<HeldFile> {
        fs::symlink_metadata(path).map(|found| HeldFile::new(&found, path))
    }

    fn new(found: &fs::Metadata, path: &Path) -> HeldFile {
        use std::os::unix::fs::MetadataExt as _;
        HeldFile { path: path.to_owned(), device: found.dev(), inode: found.ino() }
    }

    /// Returns whether the file was neither deleted nor moved nor replaced.
    pub fn has_its_name(&self) -> bool {
        HeldFile::at(&self.path).is_ok_and(|present| present == *self)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }

    #[test]
    fn only_plain_files_are_opened_and_only_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        pipe(&at("pipe"));
        assert_eq!(read(&at("file"), 5).unwrap(), b"12345");
        assert_eq!(read(&at("file"), 4).unwrap_err().to_string(), "it has more than 4 bytes");
        for (name, kind) in
            [("link", "a symbolic link"), ("zero", "a symbolic link"), ("pipe", "a named pipe"), (".", "a folder")]
        {
            assert_eq!(read(&at(name), 5).unwrap_err().to_string(), format!("it is {kind}, not a regular file"));
        }
        assert_eq!(read(Path::new("/dev/zero"), 5).unwrap_err().to_string(), "it is a device, not a regular file");
        assert_eq!(read(&at("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read_through_links(&at("link"), 5).unwrap(), b"12345");
        for name in ["zero", "pipe", "."] {
            assert!(
                read_through_links(&at(name), 5).unwrap_err().to_string().ends_with(", not a regular file"),
                "{name}"
            );
        }
        let maps = Path::new("/proc/self/maps");
        assert!(
            !maps.exists() || read(maps, 5).unwrap_err().to_string() == "it has more than 5 bytes",
            "its length is 0"
        );
    }

    #[test]
    fn paths_from_files_stay_in_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("project"), folder.path().join("outside"));
        fs::create_dir_all(root.join("customers")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("customers", root.join("alias")).unwrap();
        symlink("../outside/file", root.join("dangling")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        for path in [
            "fleet.yaml",
            "customers/acme.yaml",
            "alias/acme.yaml",
            "new/folder/file",
            "a.git",
            ".github/x",
            ".gitignore",
        ] {
            assert!(project_file(&root, path).is_ok(), "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "./a",
            "a//b",
            "a/",
            ".git/hooks/pre-commit",
            ".GIT/config",
            "a/.Git/x",
            ".git./x",
            ".git /x",
            ".g\u{200c}it/x",
            "GIT~1/x",
            ".git::$INDEX_ALLOCATION/x",
            ".flotilla/state.db",
            ".Flotilla/x",
            "out/file",
            "out",
            "dangling",
            "circle",
            "customers",
            "a\0b",
        ] {
            assert!(project_file(&root, path).is_err(), "{path:?}");
        }
        assert!(project_file(&root, &"a/".repeat(3000)).is_err());
    }

    #[test]
    fn what_flotilla_does_not_make_is_refused_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join(".flotilla");
        assert!(refuse_foreign(&own).is_ok());
        create_folder(&own.join("undo")).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(own.join("undo/0"), "").unwrap();
        assert!(refuse_foreign(&own).is_ok());
        pipe(&own.join("undo/journal.json"));
        assert!(refuse_foreign(&own).unwrap_err().to_string().ends_with("undo/journal.json is a named pipe"));
        fs::remove_dir_all(&own).unwrap();
        symlink("/tmp", &own).unwrap();
        assert!(refuse_foreign(&own).unwrap_err().to_string().ends_with(".flotilla is a symbolic link"));
    }

    #[test]
    fn wider_permissions_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        make_private(&file);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        make_private(&folder.path().join("none"));
    }
}
