//! The files of an import that are on disk already. Knows bytes and paths.

use std::collections::BTreeMap;
use std::path::Path;

use flotilla_model::plain_file;

/// Returns the paths at which something else is already than a file with these bytes.
pub fn taken(root: &Path, files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let differs = |(path, bytes): &(&String, &Vec<u8>)| {
        let full = root.join(path);
        let is_same = || plain_file::read(&full, bytes.len() as u64).ok().as_ref() == Some(*bytes);
        full.symlink_metadata().is_ok() && !is_same()
    };
    files.iter().filter(differs).map(|(path, _)| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_files_with_these_bytes_are_not_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::write(at("same"), "new").unwrap();
        fs::write(at("longer"), "newer").unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink("same", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let file = |path: &str| (path.to_owned(), b"new".to_vec());
        let files = ["same", "longer", "folder", "link", "dangling", "pipe", "missing", "missing/too"].map(file).into();
        assert_eq!(taken(folder.path(), &files), ["dangling", "folder", "link", "longer", "pipe"]);
    }
}
