//! A random key of this user on this machine, kept outside projects. What is sealed with it was written by this user here: a file in a
//! project that somebody else wrote, a repository's author for one, doesn't have the seal.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::atomic_file::AtomicFile;
use crate::cache;
use crate::fingerprint::Fingerprints;
use crate::plain_file;

/// The file, beside the cache.
const FILE: &str = "user.key";
/// The length of a key.
const LENGTH: usize = 32;

/// A key.
#[derive(Clone)]
pub struct UserKey([u8; LENGTH]);

impl UserKey {
    /// Returns the key of this user; it is created at its first use. Nothing, if there is no place that only this user can read.
    pub fn load() -> Option<UserKey> {
        UserKey::of(&cache::folder().ok()?).ok()
    }

    /// Returns the key in a folder.
    pub fn of(folder: &Path) -> io::Result<UserKey> {
        let path = folder.join(FILE);
        match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(UserKey),
        }
        plain_file::create_folder(folder)?;
        let random: [u8; LENGTH + 8] = random()?;
        let (key, name) = random.split_at(LENGTH);
        let beside = folder.join(format!("{FILE}.{}", data_encoding::HEXLOWER.encode(name)));
        // Another process may create one at the same time: the first link counts, and it is whole.
        AtomicFile::new(&beside).mode(plain_file::PRIVATE).durable().write(key)?;
        let linked = fs::hard_link(&beside, &path);
        let _ = fs::remove_file(&beside);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => read(&path).map(UserKey),
        }
    }

    /// Returns the seal of a text that is meant for one purpose and place.
    pub fn seal(&self, purpose: &str, place: &Path, text: &str) -> String {
        let place = place.as_os_str().as_encoded_bytes();
        let framed = format!("{} {} {} ", purpose.len(), place.len(), text.len());
        let mut all = framed.into_bytes();
        all.extend([purpose.as_bytes(), place, text.as_bytes()].concat());
        Fingerprints::new(&self.0).of_bytes(&all)
    }
}

/// Returns a random number as text, so that no two seals are of the same text.
///
/// # Errors
/// If the system gives none.
pub fn nonce() -> io::Result<String> {
    Ok(data_encoding::HEXLOWER.encode(&random::<16>()?))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut random = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random)
}

fn read(path: &Path) -> io::Result<[u8; LENGTH]> {
    let file = plain_file::open(path)?;
    let found = file.metadata()?;
    if found.permissions().mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} can be read by others", path.display())));
    }
    let bytes = plain_file::read_all(&file, LENGTH as u64)?;
    bytes.try_into().map_err(|_| io::Error::other(format!("{} is not a key", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("cache");
        let seal = |text: &str| UserKey::of(&below).unwrap().seal("test", Path::new("/p"), text);
        let first = seal("a");
        assert_eq!(first, seal("a"));
        assert_ne!(first, seal("b"));
        let path = below.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(UserKey::of(&below).is_err(), "others can read it");
        fs::remove_file(&path).unwrap();
        assert_ne!(first, seal("a"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(UserKey::of(&below).is_err());
    }
}
