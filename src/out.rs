//! The folder out/: writes a file only where its bytes differ, whole or not at all, and removes what no worker owns.
//! Doesn't know what the files mean.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::failure::Failure;
use crate::spec::Environment;

/// The folder's name.
pub const OUT: &str = "out";

/// The folder out/ of a project.
pub struct Out {
    root: PathBuf,
    dry: bool,
}

/// A folder or file that this run owns was found to be a symbolic link.
fn leads_out(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is a symbolic link or no folder; flotilla writes only inside of its own out/: remove it, and build again",
        path.display()
    ))
}

impl Out {
    /// The out/ of a project. Dry: nothing is written, only counted.
    pub fn new(project: &Path, dry: bool) -> Out {
        Out { root: project.join(OUT), dry }
    }

    /// Writes the files of one folder; says how many of them differed.
    pub fn write_folder(&self, folder: &str, files: &[(&str, &[u8])]) -> Result<usize, Failure> {
        let path = self.root.join(folder);
        // The folder and the one above it: out/ itself may be a link to another disk, by its owner's choice.
        for folder in [path.parent().unwrap_or(&path), &path] {
            match fs::symlink_metadata(folder) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) if folder != self.root => return Err(anyhow::Error::from(leads_out(folder)).into()),
                _ => {}
            }
        }
        let mut written = 0;
        for (name, bytes) in files {
            let file = path.join(name);
            if same(&file, bytes).with_context(|| format!("{} can't be read", file.display()))? {
                continue;
            }
            written += 1;
            if !self.dry {
                replace(&path, name, bytes).with_context(|| format!("{} can't be written", file.display())).map_err(|error| {
                    Failure::from(error).hint("out/ has to be writable; what was written so far is complete, and the next build goes on from there")
                })?;
            }
        }
        Ok(written)
    }

    /// Removes the files of folders that no worker owns, by the names that packs give their files; says how many
    /// folders there were. What people put there stays.
    pub fn prune(&self, owned: &HashSet<String>, names: &HashSet<String>) -> Result<usize, Failure> {
        let mut removed = 0;
        for environment in Environment::ALL {
            let parent = self.root.join(environment.as_str());
            if fs::symlink_metadata(&parent).map_or(true, |metadata| !metadata.is_dir()) {
                continue;
            }
            for (folder, path) in entries(&parent)? {
                if owned.contains(&format!("{environment}/{folder}")) {
                    continue;
                }
                if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    continue;
                }
                removed += usize::from(self.remove_files(&path, names)?);
            }
            if !self.dry {
                let _ = fs::remove_dir(&parent);
            }
        }
        Ok(removed)
    }

    /// Removes the runtimes that no worker imports; says how many files there were.
    pub fn prune_runtimes(&self, keep: &HashSet<String>) -> Result<usize, Failure> {
        let folder = self.root.join("runtime");
        let mut removed = 0;
        if !fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(0);
        }
        for (name, path) in entries(&folder)? {
            let stem = name.trim_start_matches('.').split('.').next().unwrap_or_default();
            let generated = stem
                .rsplit_once('-')
                .is_some_and(|(_, digest)| digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
            if generated && !keep.contains(stem) {
                removed += 1;
                self.remove(&path)?;
            }
        }
        Ok(removed)
    }

    fn remove_files(&self, folder: &Path, names: &HashSet<String>) -> Result<bool, Failure> {
        let mut ours = false;
        for name in names {
            for path in [folder.join(name), temporary(folder, name)] {
                if fs::symlink_metadata(&path).is_ok() {
                    ours = true;
                    self.remove(&path)?;
                }
            }
        }
        if !self.dry {
            // Only if nothing else is in it.
            let _ = fs::remove_dir(folder);
        }
        Ok(ours)
    }

    fn remove(&self, path: &Path) -> Result<(), Failure> {
        if !self.dry {
            fs::remove_file(path).with_context(|| format!("{} can't be removed", path.display()))?;
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let read = || -> io::Result<BTreeMap<String, PathBuf>> {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
            .collect()
    };
    Ok(read().with_context(|| format!("{} can't be read", folder.display()))?)
}

/// Whether a plain file holds just these bytes.
fn same(file: &Path, bytes: &[u8]) -> io::Result<bool> {
    let metadata = match fs::symlink_metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut found = Vec::with_capacity(bytes.len() + 1);
    fs::File::open(file)?.read_to_end(&mut found)?;
    Ok(found == bytes)
}

fn temporary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.new"))
}

/// A file is never seen half-written: its bytes go into a neighbour, which then takes its name.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let neighbour = temporary(folder, name);
    // Never through a link that somebody left there.
    let create = || fs::File::options().write(true).create_new(true).open(&neighbour);
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            create()?
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&neighbour)?;
            create()?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    drop(file);
    fs::rename(neighbour, folder.join(name))
}
