//! The files of a project, as they are on disk or, in part, as they were at another time. Reads only regular files, of a size that people
//! write; doesn't know what is in them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::yaml;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::plain_file;
use flotilla_model::text::with_unix_line_ends;

/// The maximum size, in bytes, of any file that is read.
const MOST_BYTES: u64 = 64 << 20;

/// A project's files.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The project's folder.
    pub root: PathBuf,
    /// The files that were different at that time, by path; nothing if there was no file.
    pub past: HashMap<String, Option<Vec<u8>>>,
    /// Whether it is no error that there are no customers: the last one is being deleted.
    pub may_have_no_customers: bool,
}

impl Tree {
    /// Returns the files on disk.
    pub fn new(root: &Path) -> Tree {
        Tree { root: root.to_owned(), ..Tree::default() }
    }

    /// Returns the bytes of a file, with `\n` at the ends of lines if it is text; its path is from the project's root, with `/`.
    pub fn bytes(&self, file: &str) -> io::Result<Vec<u8>> {
        let bytes = match self.past.get(file) {
            Some(Some(bytes)) => bytes.clone(),
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => plain_file::read_through_links(&self.root.join(file), MOST_BYTES)?,
        };
        Ok(with_unix_line_ends(bytes))
    }

    /// Returns the text of a file of a pack: a regular file in the pack's folder, or a link to one. What lies outside it is not under the
    /// pack's control, and could be anything that this user can read.
    pub fn pack_text(&self, pack: &str, name: &str, limit: u64) -> io::Result<String> {
        let file = format!("{pack}/{name}");
        if !self.past.contains_key(&file) {
            let (root, path) = (self.root.join(pack), self.root.join(&file));
            if !path.canonicalize()?.starts_with(root.canonicalize()?) {
                return Err(io::Error::other("it is a symbolic link to something outside the pack"));
            }
            let bytes = with_unix_line_ends(plain_file::read_through_links(&path, limit)?);
            return String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"));
        }
        self.text(&file)
    }

    /// Returns the text of a file.
    pub fn text(&self, file: &str) -> io::Result<String> {
        String::from_utf8(self.bytes(file)?).map_err(|_| io::Error::other("it is not UTF-8"))
    }

    /// Returns whether there is such a file, or something else of that name.
    pub fn has(&self, file: &str) -> bool {
        match self.past.get(file) {
            Some(bytes) => bytes.is_some(),
            None => std::fs::symlink_metadata(self.root.join(file)).is_ok(),
        }
    }

    /// Returns whether there is a folder, or a link to one.
    pub fn has_files(&self, folder: &str) -> bool {
        self.root.join(folder).is_dir()
    }

    /// Returns the names in a folder, sorted. A name that is no text is kept as well: a customer that is silently left out would count as
    /// removed.
    pub fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(self.root.join(folder))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        for (file, bytes) in &self.past {
            let Some(name) = file.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { continue };
            if !name.contains('/') {
                names.retain(|other| other != name);
                names.extend(bytes.is_some().then(|| name.to_owned()));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the bytes of a file that people write: a regular file, not a link, and not larger than is read.
    pub fn plain(&self, file: &str) -> Result<Vec<u8>, Box<Diagnostic>> {
        if self.past.contains_key(file) {
            return self.bytes(file).map_err(|error| unreadable(file, &error));
        }
        let path = self.root.join(file);
        let metadata = std::fs::symlink_metadata(&path).map_err(|error| {
            let lost = file.contains(char::REPLACEMENT_CHARACTER) && error.kind() == io::ErrorKind::NotFound;
            if !lost {
                return unreadable(file, &error);
            }
            let help = "rename it: the name is the customer's id and `.yaml`";
            Box::new(Diagnostic::error(Code::Unreadable, Place::file(file), "the file's name is not UTF-8", help))
        })?;
        if !metadata.is_file() {
            return Err(Box::new(Diagnostic::error(
                Code::NotAFile,
                Place::file(file),
                if metadata.is_symlink() { "the file is a symbolic link" } else { "the file is not a regular file" },
                "specs are read from the project itself: put a copy here",
            )));
        }
        if metadata.len() > yaml::MAX_BYTES {
            return Err(Box::new(Diagnostic::error(
                Code::TooLarge,
                Place::file(file),
                format!("the file has {} bytes, but the limit is {}", metadata.len(), yaml::MAX_BYTES),
                "specs are never that large: is this the right file?",
            )));
        }
        self.bytes(file).map_err(|error| unreadable(file, &error))
    }
}

fn unreadable(file: &str, error: &io::Error) -> Box<Diagnostic> {
    let message = format!("it can't be read: {error}");
    Box::new(Diagnostic::error(Code::Unreadable, Place::file(file), message, "check its permissions"))
}
