//! The files of an import on disk: all of them, or none. Knows bytes and paths.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::Failure;

/// Returns the files that exist already with other bytes.
pub fn taken(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let differs = |(path, bytes): &(&String, &Vec<u8>)| {
        let full = root.join(path);
        full.symlink_metadata().is_ok() && fs::read(&full).ok().as_ref() != Some(*bytes)
    };
    files.iter().filter(differs).map(|(path, _)| path.clone()).collect()
}

/// Writes all files; if one can't be written, restores everything.
pub fn write(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Failure> {
    let mut undo = Undo::default();
    for (path, bytes) in files {
        if let Err(error) = undo.put(&root.join(path), bytes) {
            let kept = undo.back();
            let failure: Failure =
                Err::<(), _>(error).with_context(|| format!("{path} can't be written")).unwrap_err().into();
            return Err(match kept.is_empty() {
                true => failure.hint("nothing was changed"),
                false => failure.hint(format!("these could not be put back: {}", kept.join(", "))),
            });
        }
    }
    undo.done();
    Ok(())
}

/// The changes so far, to undo them.
#[derive(Default)]
struct Undo {
    /// The files that were replaced, each with the path of its old bytes.
    replaced: Vec<(PathBuf, PathBuf)>,
    /// The new files.
    new: Vec<PathBuf>,
    /// The new folders, the outer ones first.
    folders: Vec<PathBuf>,
}

impl Undo {
    fn put(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().expect("BUG: a file has a folder");
        let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder)?;
            self.folders.push(folder.to_owned());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let old = path.with_file_name(format!(".{name}.old-{}", std::process::id()));
        let staged = AtomicFile::new(path).stage(bytes)?;
        let was = path.symlink_metadata().is_ok();
        if was {
            fs::rename(path, &old)?;
            self.replaced.push((path.to_owned(), old));
        }
        staged.commit()?;
        if !was {
            self.new.push(path.to_owned());
        }
        Ok(())
    }

    /// Undoes everything; returns what could not be undone.
    fn back(self) -> Vec<String> {
        let mut kept = Vec::new();
        for path in self.new {
            if fs::remove_file(&path).is_err() {
                kept.push(path.display().to_string());
            }
        }
        for (path, old) in self.replaced {
            if fs::rename(&old, &path).is_err() {
                kept.push(format!("{} (its old bytes are in {})", path.display(), old.display()));
            }
        }
        for folder in self.folders.into_iter().rev() {
            // One that isn't empty holds what somebody else wrote meanwhile.
            let _ = fs::remove_dir(folder);
        }
        kept
    }

    fn done(self) {
        for (_, old) in self.replaced {
            let _ = fs::remove_file(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("b"), "old").unwrap();
        // A folder stands where a file should, and has something in it.
        fs::create_dir_all(root.join("z/full")).unwrap();
        let file = |path: &str| (path.to_owned(), b"new".to_vec());
        let files: BTreeMap<String, Vec<u8>> = ["a/x/y", "b", "z/full/in/the/way"].map(file).into();
        write(root, &files).unwrap();
        assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "new");
        fs::write(root.join("b"), "old").unwrap();
        let files: BTreeMap<String, Vec<u8>> = ["b", "c/d", "z/full/in/the/way/is/a/file"].map(file).into();
        let failure = write(root, &files).unwrap_err();
        assert!(failure.to_string().starts_with("z/full/in/the/way/is/a/file can't be written"), "{failure}");
        assert_eq!(failure.hints, ["nothing was changed"]);
        assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "old");
        assert!(!root.join("c").exists());
        let names: Vec<_> = fs::read_dir(root).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(taken(root, &files), ["b"]);
    }
}
