//! Reads regular files up to a size. Pipes, devices and sockets are never waited for, and files that never end are not read to their
//! end.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Returns the bytes of a regular file. An error for anything else, and for a file of more bytes than the limit.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Looked at first: to open a device can have an effect.
    let found = fs::metadata(path)?;
    check(&found, limit)?;
    // Without waiting, in case it has become a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    check(&found, limit)?;
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(limit));
    }
    Ok(bytes)
}

fn check(found: &fs::Metadata, limit: u64) -> io::Result<()> {
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if found.len() > limit { Err(too_large(limit)) } else { Ok(()) }
}

fn too_large(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_regular_files_up_to_a_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(folder.path(), 5).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        for path in [pipe, folder.path().join("socket"), "/dev/zero".into(), "/dev/null".into()] {
            assert_eq!(read(&path, 5).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        }
        assert_eq!(read(&folder.path().join("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        if Path::new("/proc/self/maps").exists() {
            let found = read(Path::new("/proc/self/maps"), 5).unwrap_err();
            assert_eq!(found.kind(), io::ErrorKind::FileTooLarge, "its length is said to be 0");
        }
    }
}
