//! The cache that all projects of a user share: npm packages and bundled runtimes, each under the digest of what
//! decides it. Knows folders; deleting it costs time only.
//!
//! What is in it is run and deployed, so it is trusted only if nobody else can have written it: a folder that other users can write to, or
//! replace, is refused; and each entry carries the digest of its content, which is compared at each use. Processes tell their work apart by
//! random names, never by process ids: those repeat in containers that share a cache.

use std::fs::{self, File, Metadata};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::child::{Environment, Job, Trouble};
use crate::digest::{Digest, Framed};
use crate::failure::Failure;
use crate::plain_file;
use crate::progress::Progress;

/// The environment variable that moves the cache.
pub const CACHE_VARIABLE: &str = "FLOTILLA_CACHE_DIR";
/// The file of an entry with the digest of its content.
const SEAL: &str = ".digest";
/// The beginning of the names of folders in an entry in which processes work; they are no part of its content.
const STAGING: &str = "staging-";
/// The maximum size, in bytes, of a seal.
const SEAL_BYTES: u64 = 1 << 10;
/// The maximum size, in bytes, of a file of an entry: workerd has about 120 MB.
const MOST_BYTES: u64 = 1 << 30;
/// The age after which leftovers of a killed process are removed.
const LEFTOVER: Duration = Duration::from_secs(24 * 60 * 60);
/// The time that npm may take.
const NPM_TIME: Duration = Duration::from_secs(15 * 60);

/// Returns the cache's folder: `$FLOTILLA_CACHE_DIR`, or `flotilla` where the system keeps caches. It is created if it is missing. Where
/// that place can't be used, as in a CI job's container whose HOME belongs to another user, it is a folder of this user among the
/// temporary files: never one in the project, where a checkout could bring entries along, with fitting digests, and a key.
///
/// # Errors
/// If there is no place for it, or if other users can write to the one that the variable names, or replace it.
pub fn folder() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable(CACHE_VARIABLE) {
        return private(&folder);
    }
    // The XDG specification requires that a relative path is ignored: it would be another folder in each working directory.
    let usual = variable("XDG_CACHE_HOME").filter(|home| home.is_absolute()).or_else(|| {
        let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        variable("HOME").map(|home| home.join(caches))
    });
    let failure = match usual {
        Some(caches) => match private(&caches.join("flotilla")) {
            Ok(folder) => return Ok(folder),
            Err(failure) => failure,
        },
        None => Failure::new("there is no folder for the cache: neither HOME nor XDG_CACHE_HOME is set")
            .hint(format!("set {CACHE_VARIABLE} to a folder")),
    };
    let temporary = std::env::temp_dir().join(format!("flotilla-{}", rustix::process::geteuid().as_raw()));
    let Ok(folder) = private(&temporary) else { return Err(failure) };
    let shown = folder.display();
    let _ = NOTE.set(format!("{failure}; it is in {shown} instead ({CACHE_VARIABLE} names another folder)"));
    Ok(folder)
}

/// The sentence that says that the cache isn't in its usual place.
static NOTE: OnceLock<String> = OnceLock::new();

/// Returns the reason why the cache isn't in its usual place, if that was noticed in this process.
pub fn note() -> Option<&'static str> {
    NOTE.get().map(String::as_str)
}

/// Creates a folder unless it is there, and returns its path without symbolic links. Refuses one that another user can write to, or can
/// replace by way of a folder above it.
fn private(folder: &Path) -> Result<PathBuf, Failure> {
    let cannot = || format!("the cache in {} can't be written", folder.display());
    let folder = std::path::absolute(folder).with_context(cannot)?;
    // Before anything is created: what is refused stays as it was.
    if let Some(there) = folder.ancestors().find(|path| fs::symlink_metadata(path).is_ok()) {
        checked(&folder, there)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(cannot).map_err(|error| {
        Failure::from(error).hint(format!("set {CACHE_VARIABLE} to a folder that only you can write to"))
    })?;
    checked(&folder, &folder)
}

/// Returns the path of a folder, which is the cache's or one above it, without symbolic links. Refuses it as [`private`] does.
fn checked(folder: &Path, there: &Path) -> Result<PathBuf, Failure> {
    let cannot = || format!("the cache in {} can't be written", folder.display());
    let user = rustix::process::geteuid().as_raw();
    let refused = |path: &Path, why: String, help: String| {
        let what = if path == folder { "it".to_owned() } else { format!("{}, in its path,", path.display()) };
        let message = format!("the cache in {} is not safe to use: {what} {why}", folder.display());
        let other = format!("or set {CACHE_VARIABLE} to a folder that only you can write to");
        Err(Failure::refused(message).hint(format!("{help}, {other}: what is in the cache is run and deployed")))
    };
    // A link is followed only if nobody else can have made it.
    for path in there.ancestors() {
        let found = fs::symlink_metadata(path).with_context(cannot)?;
        if found.is_symlink() && found.uid() != user && found.uid() != 0 {
            let help = format!("remove the link {}", path.display());
            return refused(path, format!("is a symbolic link of another user (uid {})", found.uid()), help);
        }
    }
    let real = fs::canonicalize(there).with_context(cannot)?;
    for (depth, path) in real.ancestors().enumerate() {
        let found = fs::metadata(path).with_context(cannot)?;
        let is_cache = depth == 0 && there == folder;
        let shown = if is_cache { folder } else { path };
        if found.uid() != user && (is_cache || found.uid() != 0) {
            let help = format!("give the folder to the user who runs flotilla (`chown {user} {}`)", path.display());
            return refused(shown, format!("belongs to another user (uid {})", found.uid()), help);
        }
        // In a folder such as /tmp, nobody can replace what belongs to others.
        let is_sticky = !is_cache && found.mode() & 0o1000 != 0;
        if !is_sticky && is_writable_by_others(&found, user) {
            let why = format!("can be written by other users (mode {:03o})", found.mode() & 0o777);
            return refused(shown, why, format!("run `chmod go-w {}`", path.display()));
        }
    }
    Ok(real)
}

/// Returns whether users beside this one and the administrator can write to a folder. A group with the number of its owner is, by the
/// convention of most systems, the group of this one user.
fn is_writable_by_others(found: &Metadata, user: u32) -> bool {
    let has_own_group = found.uid() == found.gid() && (found.uid() == user || found.uid() == 0);
    found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && !has_own_group)
}

/// Returns an entry of the cache: the folder `<kind>/<key>`, made by `make` in a folder of its own if it doesn't exist yet, or if its
/// content is no longer what was made. The key is the digest of everything that decides the content.
///
/// Only one process at a time makes an entry; a process that is killed leaves nothing that looks like an entry.
pub fn entry(kind: &str, key: &Digest, make: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
    let parent = private(&folder()?.join(kind))?;
    let entry = parent.join(key.to_string());
    if is_intact(&entry, kind, key) {
        return Ok(entry);
    }
    let cannot = || format!("the cache in {} can't be written", parent.display());
    let lock = parent.join(format!("{key}.lock"));
    let lock = plain_file::open_with(&lock, File::options().write(true).create(true)).with_context(cannot)?;
    lock.lock().with_context(cannot)?;
    if is_intact(&entry, kind, key) {
        return Ok(entry);
    }
    sweep(&parent, |name| name.contains(".making-") || name.contains(".stale-"));
    let making = unique(&parent, &format!("{key}.making-")).with_context(cannot)?;
    let result = make(&making).and_then(|()| {
        let digest = content(&making, kind, key).with_context(cannot)?;
        fs::write(making.join(SEAL), digest.to_string()).with_context(cannot)?;
        // A process that works in the old one continues there.
        let stale = parent.join(format!("{key}.stale-{}", random()));
        if fs::rename(&entry, &stale).is_ok() {
            let _ = fs::remove_dir_all(&stale);
        }
        fs::rename(&making, &entry).with_context(cannot)?;
        Ok(())
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&making);
    }
    result.map(|()| entry)
}

/// Returns an entry of the cache, if it is there with exactly the content that was made for this key.
pub fn existing(kind: &str, key: &Digest) -> Result<Option<PathBuf>, Failure> {
    let entry = private(&folder()?.join(kind))?.join(key.to_string());
    Ok(Some(entry).filter(|entry| is_intact(entry, kind, key)))
}

/// Returns a folder of the cache, for files that are no entries. It is created if it is missing.
pub fn subfolder(kind: &str) -> Result<PathBuf, Failure> {
    private(&folder()?.join(kind))
}

/// Creates a folder that no other process uses, to work in before it is known which entry of a kind results. The caller removes it.
pub fn workspace(kind: &str) -> Result<PathBuf, Failure> {
    let parent = private(&folder()?.join(kind))?;
    Ok(unique(&parent, "work.making-")
        .with_context(|| format!("the cache in {} can't be written", parent.display()))?)
}

/// Returns a folder whose `node_modules` has one npm package in exactly this version, and what it depends on.
pub fn npm_package(name: &str, version: &str, what: &str, progress: &dyn Progress) -> Result<PathBuf, Failure> {
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let key = Framed::new("npm package").field(system.as_bytes()).field(name.as_bytes()).field(version.as_bytes());
    entry("npm", &key.finish(), |folder| {
        let package = serde_json::json!({"private": true, "dependencies": {name: version}});
        fs::write(folder.join("package.json"), package.to_string()).context("the cache can't be written")?;
        progress.begin(&format!("installing {name} {version} for {what}; once, about half a minute"), None);
        let result = npm_run(what, folder, "install", &[]);
        progress.end();
        result
    })
}

/// Creates a folder in an entry that no other process uses, to work in. It is not part of the entry's content; the caller removes it.
pub fn staging(entry: &Path) -> io::Result<PathBuf> {
    sweep(entry, |name| name.starts_with(STAGING));
    unique(entry, STAGING)
}

fn random() -> String {
    // Keyed by the system's random numbers.
    let number = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", number(), number())
}

/// Creates a folder with a random name that only its owner can use; never takes one that is there.
fn unique(parent: &Path, prefix: &str) -> io::Result<PathBuf> {
    let folder = parent.join(format!("{prefix}{}", random()));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Removes what killed processes left, once it is old.
fn sweep(folder: &Path, is_leftover: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_old = |found: Metadata| {
            found.modified().is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > LEFTOVER))
        };
        if is_leftover(&entry.file_name().to_string_lossy()) && entry.metadata().is_ok_and(is_old) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns whether an entry has exactly the content that was made for this key.
fn is_intact(entry: &Path, kind: &str, key: &Digest) -> bool {
    let is_folder = fs::symlink_metadata(entry).is_ok_and(|found| found.is_dir());
    let text = || String::from_utf8(plain_file::read(&entry.join(SEAL), SEAL_BYTES).ok()?).ok();
    let sealed = || text().and_then(|text| Digest::parse(&text));
    is_folder && sealed().is_some_and(|sealed| content(entry, kind, key).is_ok_and(|found| found == sealed))
}

/// Returns the digest of an entry's files: their paths, whether they can be run, and their bytes.
fn content(entry: &Path, kind: &str, key: &Digest) -> io::Result<Digest> {
    let mut framed = Framed::new("cache entry").field(kind.as_bytes()).field(&key.to_bytes());
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let mut names = Vec::new();
        for found in fs::read_dir(entry.join(&folder))? {
            names.push(found?.file_name());
        }
        names.sort_unstable();
        for name in names {
            let is_top = folder.as_os_str().is_empty();
            if is_top && (name == SEAL || name.to_string_lossy().starts_with(STAGING)) {
                continue;
            }
            let path = folder.join(&name);
            let found = fs::symlink_metadata(entry.join(&path))?;
            framed = framed.field(path.as_os_str().as_encoded_bytes());
            framed = if found.is_dir() {
                open.push(path);
                framed.field(b"folder")
            } else if found.is_symlink() {
                framed.field(b"link").field(fs::read_link(entry.join(&path))?.as_os_str().as_encoded_bytes())
            } else if found.is_file() {
                let kind: &[u8] = if found.permissions().mode() & 0o111 == 0 { b"file" } else { b"program" };
                framed.field(kind).field(&plain_file::read(&entry.join(&path), MOST_BYTES)?)
            } else {
                return Err(io::Error::other("neither a file nor a folder"));
            };
        }
    }
    Ok(framed.finish())
}

/// Returns a folder with the `node_modules` of a package.json and its lock file.
pub fn npm(what: &str, package: &[u8], lock: &[u8], progress: &dyn Progress) -> Result<PathBuf, Failure> {
    npm_with(what, package, lock, &[], progress)
}

/// The same, without the packages that others can do without.
pub fn npm_without_optional(
    what: &str,
    package: &[u8],
    lock: &[u8],
    progress: &dyn Progress,
) -> Result<PathBuf, Failure> {
    npm_with(what, package, lock, &["--omit=optional"], progress)
}

fn npm_with(
    what: &str,
    package: &[u8],
    lock: &[u8],
    options: &[&str],
    progress: &dyn Progress,
) -> Result<PathBuf, Failure> {
    // Some packages differ by system and processor.
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let key = Framed::new("npm").field(system.as_bytes()).field(package).field(lock);
    let key = options.iter().fold(key, |framed, option| framed.field(option.as_bytes())).finish();
    entry("npm", &key, |folder| {
        fs::write(folder.join("package.json"), package).context("the cache can't be written")?;
        fs::write(folder.join("package-lock.json"), lock).context("the cache can't be written")?;
        progress.begin(&format!("installing the npm packages of {what}; once, about half a minute"), None);
        let result = npm_run(what, folder, "ci", options);
        progress.end();
        result
    })
}

/// Returns the variables that npm gets: those that any child gets, and what decides how it reaches its registry.
pub fn npm_environment() -> Environment {
    let names = ["NODE_AUTH_TOKEN", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    Environment::plain().and(|name| {
        let upper = name.to_ascii_uppercase();
        names.contains(&name) || upper.starts_with("NPM_") || upper.ends_with("_PROXY") || upper.starts_with("XDG_")
    })
}

fn npm_run(what: &str, folder: &Path, command: &str, options: &[&str]) -> Result<(), Failure> {
    let words = [command, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"];
    let words = words.into_iter().chain(options.iter().copied());
    let job = Job::new("npm", words, folder).environment(npm_environment()).time(NPM_TIME);
    let ended = job.run().map_err(|trouble| match trouble {
        Trouble::NotFound => Failure::new(format!("npm is not installed; it is needed for {what}"))
            .hint("install Node.js 22.12 or newer, which brings npm"),
        Trouble::NotStarted(error) => Failure::new(format!("npm can't be started: {error}")),
        other => Failure::new(format!("`npm {command}` for {what} was stopped: it {other}")),
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&ended.stderr);
    let last: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(12).collect();
    let offline = ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET", "ENOTCACHED"];
    let failure = if offline.iter().any(|code| text.contains(code)) {
        Failure::new(format!("the npm registry can't be reached, so the npm packages of {what} can't be installed"))
            .hint("check the network, or point npm at a mirror with `npm config set registry URL`; then run the same command again")
    } else {
        Failure::new(format!("`npm {command}` failed for {what} ({})", ended.status))
    };
    Err(failure.hint(format!("npm printed:\n{}", last.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_to_or_replace_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let above = root.path().join("above");
        let cache = above.join("cache");
        assert!(private(&cache).is_ok(), "it is created, for its owner alone");
        assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
        for (path, mode, is_safe) in [
            (&cache, 0o755, true),
            (&cache, 0o702, false),
            (&cache, 0o1777, false),
            (&cache, 0o700, true),
            (&above, 0o777, false),
            (&above, 0o1777, true),
            (&above, 0o755, true),
        ] {
            set(path, mode);
            let found = private(&cache);
            assert_eq!(found.is_ok(), is_safe, "{} {mode:o}", path.display());
            if let Err(failure) = found {
                assert!(failure.to_string().contains("can be written by other users"), "{failure}");
            }
        }
        // What is refused stays as it was.
        for (mode, is_safe) in [(0o777, false), (0o755, true)] {
            set(&above, mode);
            let below = above.join(format!("new-{mode:o}/cache"));
            assert_eq!((private(&below).is_ok(), below.exists()), (is_safe, is_safe), "{mode:o}");
            assert_eq!(above.join(format!("new-{mode:o}")).exists(), is_safe, "{mode:o}");
        }
        let failure = private(Path::new("/dev/null/cache")).unwrap_err();
        assert!(failure.hints.iter().any(|hint| hint.contains(CACHE_VARIABLE)), "{failure}");
        // Only the administrator can give folders away.
        if rustix::process::geteuid().is_root() {
            for path in [&cache, &above] {
                std::os::unix::fs::chown(path, Some(12345), Some(12345)).unwrap();
                let failure = private(&cache).unwrap_err();
                assert!(failure.to_string().contains("belongs to another user (uid 12345)"), "{failure}");
                std::os::unix::fs::chown(path, Some(0), Some(12345)).unwrap();
                set(path, 0o775);
                assert!(private(&cache).is_err(), "a group of several can write to it");
                std::os::unix::fs::chown(path, Some(0), Some(0)).unwrap();
                set(path, 0o755);
            }
            let link = root.path().join("link");
            symlink(&cache, &link).unwrap();
            assert_eq!(private(&link).unwrap(), fs::canonicalize(&cache).unwrap());
            std::os::unix::fs::lchown(&link, Some(12345), Some(12345)).unwrap();
            let failure = private(&link.join("below")).unwrap_err();
            assert!(failure.to_string().contains("symbolic link of another user"), "{failure}");
        }
    }

    #[test]
    fn content_that_changed_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let entry = root.path();
        let key = Digest::of(b"key");
        fs::create_dir_all(entry.join("a/b")).unwrap();
        fs::write(entry.join("a/b/file"), "one").unwrap();
        symlink("b/file", entry.join("a/link")).unwrap();
        let seal = || fs::write(entry.join(SEAL), content(entry, "npm", &key).unwrap().to_string()).unwrap();
        assert!(!is_intact(entry, "npm", &key), "it has no digest");
        seal();
        assert!(is_intact(entry, "npm", &key));
        let staging = staging(entry).unwrap();
        fs::write(staging.join("x"), "x").unwrap();
        assert!(is_intact(entry, "npm", &key), "work in progress is no content");
        assert!(!is_intact(entry, "runtime", &key) && !is_intact(entry, "npm", &Digest::of(b"other")));
        let changes: [&dyn Fn(); 6] = [
            &|| fs::write(entry.join("a/b/file"), "two").unwrap(),
            &|| fs::write(entry.join("a/more"), "").unwrap(),
            &|| set(&entry.join("a/b/file"), 0o755),
            &|| fs::remove_file(entry.join("a/link")).unwrap(),
            &|| symlink("elsewhere", entry.join("a/link")).unwrap(),
            &|| fs::create_dir(entry.join("empty")).unwrap(),
        ];
        for change in changes {
            change();
            assert!(!is_intact(entry, "npm", &key));
            seal();
            assert!(is_intact(entry, "npm", &key));
        }
        let link = entry.join("staging-link");
        symlink(entry.join("a"), &link).unwrap();
        assert!(!is_intact(&link, "npm", &key));
    }

    #[test]
    fn every_staging_folder_is_ones_own_and_old_leftovers_go() {
        let root = tempfile::tempdir().unwrap();
        let names: std::collections::BTreeSet<PathBuf> = (0..50).map(|_| staging(root.path()).unwrap()).collect();
        assert_eq!(names.len(), 50, "one process, fifty folders");
        let old = names.first().unwrap();
        let before = SystemTime::now() - LEFTOVER - Duration::from_secs(60);
        File::open(old).unwrap().set_modified(before).unwrap();
        staging(root.path()).unwrap();
        assert!(!old.exists() && names.iter().skip(1).all(|name| name.exists()));
    }
}
