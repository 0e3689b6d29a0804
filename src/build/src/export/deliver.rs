//! Exports on disk: as a folder, which may hold an earlier export, or as an archive with its sum beside. Knows nothing of how
//! they are made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{Files, LIST, sum};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::Failure;

/// Writes an archive, and its SHA-256 beside it in a file that `sha256sum -c` reads.
pub fn archive(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    write(path, bytes)?;
    let beside = PathBuf::from(format!("{}.sha256", path.display()));
    write(&beside, format!("{}  {name}\n", sum(bytes)).as_bytes())
}

/// Writes an export as a folder: into a new or empty one, or over an earlier export of the same customer. Files that were
/// changed there since are replaced only with `force`; files that aren't the export's are left alone.
pub fn folder(to: &Path, customer: &str, files: &Files, force: bool) -> Result<(), Failure> {
    let before = Earlier::read(to, customer)?;
    if !force && let Some(path) = before.changed(to, files) {
        return Err(Failure::refused(format!("{} was changed since it was exported", to.join(path).display()))
            .hint("--force replaces it; nothing was written"));
    }
    for (path, bytes) in files.iter().filter(|(path, _)| *path != LIST) {
        if fs::read(to.join(path)).ok().as_ref() != Some(bytes) {
            write(&to.join(path), bytes)?;
        }
    }
    for (path, _) in before.sums().filter(|(path, _)| !files.contains_key(*path) && is_plain(path)) {
        let _ = fs::remove_file(to.join(path));
    }
    // The last: until then it is the earlier export.
    write(&to.join(LIST), &files[LIST])
}

/// The list of an earlier export in the same folder.
struct Earlier(Option<Value>);

impl Earlier {
    fn read(to: &Path, customer: &str) -> Result<Earlier, Failure> {
        let is_empty = fs::read_dir(to).map_or(true, |mut entries| entries.next().is_none());
        let list = fs::read(to.join(LIST)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if !is_empty && list.as_ref().is_none_or(|list| list["customer"] != customer) {
            return Err(Failure::refused(format!(
                "{} holds something else than an export of {customer}",
                to.display()
            ))
            .hint("--to names another folder"));
        }
        Ok(Earlier(list))
    }

    /// Returns the paths of its files with their sums.
    fn sums(&self) -> impl Iterator<Item = (&str, &str)> {
        let sums = self.0.as_ref().and_then(|list| list["files"].as_object());
        sums.into_iter().flatten().filter_map(|(path, sum)| Some((path.as_str(), sum.as_str()?)))
    }

    /// Returns a file that would be replaced and isn't as it was exported: changed, or somebody else's.
    fn changed<'a>(&'a self, to: &Path, files: &'a Files) -> Option<&'a str> {
        let now = |path: &str| fs::read(to.join(path)).ok();
        let is_edited = |(path, exported): &(&str, &str)| {
            now(path).is_some_and(|bytes| sum(&bytes) != *exported && files.get(*path) != Some(&bytes))
        };
        let is_foreign = |path: &&String| {
            let is_listed = self.sums().any(|(known, _)| known == path.as_str()) || path.as_str() == LIST;
            !is_listed && now(path).is_some_and(|bytes| files.get(*path) != Some(&bytes))
        };
        let edited = self.sums().find(is_edited).map(|(path, _)| path);
        edited.or_else(|| files.keys().find(is_foreign).map(String::as_str))
    }
}

/// Returns whether a path that was read stays below its folder.
fn is_plain(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|step| !step.is_empty() && step != "." && step != "..")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
    }
    let written = AtomicFile::new(path).keep_permissions().follow_link().write(bytes);
    written.with_context(|| format!("{} can't be written", path.display()))?;
    Ok(())
}
