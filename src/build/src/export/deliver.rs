//! Exports on disk: as a folder, which may hold an earlier export, or as an archive with its sum beside. Knows nothing of how
//! they are made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{Files, LIST, sum};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;

/// The maximum size, in bytes, of a file that are read to compare it.
const LIMIT: u64 = 64 << 20;

/// Writes an archive, and its SHA-256 beside it in a file that `sha256sum -c` reads.
pub fn archive(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    write(path, bytes)?;
    // There is nothing next to a pipe or a device.
    if fs::metadata(path).is_ok_and(|found| plain_file::is_special(&found)) {
        return Ok(());
    }
    let beside = PathBuf::from(format!("{}.sha256", path.display()));
    write(&beside, format!("{}  {name}\n", sum(bytes)).as_bytes())
}

/// Writes an export as a folder: into a new or empty one, or over an earlier export of the same customer. Files that were
/// changed there since are replaced only with `force`; files that aren't the export's are left alone.
pub fn folder(to: &Path, customer: &str, files: &Files, force: bool) -> Result<(), Failure> {
    let before = Earlier::read(to, customer)?;
    if !force && let Some(path) = before.changed(to, files) {
        return Err(Failure::refused(format!("{} was edited after it was exported", to.join(path).display()))
            .hint("--force overwrites it; nothing was written"));
    }
    for (path, bytes) in files.iter().filter(|(path, _)| *path != LIST) {
        if plain_file::read(&to.join(path), LIMIT).ok().as_ref() != Some(bytes) {
            write_below(to, path, bytes)?;
        }
    }
    for (path, exported) in before.sums().filter(|(path, _)| !files.contains_key(*path)) {
        // The list isn't trusted: files that were changed since the export stay.
        if let Ok(file) = plain_file::project_file(to, path)
            && (force || plain_file::read(&file, LIMIT).is_ok_and(|bytes| sum(&bytes) == exported))
        {
            let _ = fs::remove_file(file);
        }
    }
    // The last: until then it is the earlier export.
    write_below(to, LIST, &files[LIST])
}

/// Writes a file of an export to its folder, and not through a link that leads out of it.
fn write_below(to: &Path, path: &str, bytes: &[u8]) -> Result<(), Failure> {
    fs::create_dir_all(to).with_context(|| format!("{} can't be created", to.display()))?;
    let cannot = |error| Failure::new(format!("{} can't be written: {error}", to.join(path).display()));
    let target = plain_file::inside(to, &to.join(path)).map_err(cannot)?;
    write(&target, bytes)
}

/// The list of an earlier export in the same folder.
struct Earlier(Option<Value>);

impl Earlier {
    fn read(to: &Path, customer: &str) -> Result<Earlier, Failure> {
        let is_empty = fs::read_dir(to).map_or(true, |mut entries| entries.next().is_none());
        let list =
            plain_file::read(&to.join(LIST), LIMIT).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if !is_empty && list.as_ref().is_none_or(|list| list["customer"] != customer) {
            return Err(Failure::refused(format!(
                "{} contains something other than an export of {customer}",
                to.display()
            ))
            .hint("name another folder with --to"));
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
        let now = |path: &str| plain_file::read(&to.join(path), LIMIT).ok();
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

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{} can't be created", parent.display()))?;
    }
    let written = AtomicFile::new(path).keep_permissions().follow_link().write(bytes);
    written.with_context(|| format!("{} can't be written", path.display()))?;
    Ok(())
}
