//! The static assets of a folder: which files they are, their hashes, and what Cloudflare would reject of them. Reads the disk and writes
//! nothing but what it remembers in the cache: the hashes of files by their stamps, so that a build without changes reads none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::stamp::Stamp;
use flotilla_assets::{
    HEADERS_FILE, IGNORE_FILE, Ignored, MOST_BYTES, REDIRECTS_FILE, headers, is_pages_worker, redirects,
};
use flotilla_model::assets::{AssetFile, AssetList, HtmlHandling, PackAssets};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::cache;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::Digest;
use flotilla_model::plain_file;
use flotilla_model::text::grouped;
use flotilla_spec::pack::AssetSource;

/// The maximum size, in bytes, of `_headers`, `_redirects` and `.assetsignore`.
const MOST_RULES: u64 = 1 << 20;
/// The kind of the cache's files, and the maximum size of one, in bytes.
const KIND: &str = "assets";
const MOST_REMEMBERED: u64 = 64 << 20;
/// The most files and folders that are looked at in one folder, ignored ones included.
const MOST_SEEN: usize = 1_000_000;
/// The number of errors of a kind that are reported of one folder.
const MOST_REPORTED: usize = 20;

/// A folder with assets.
pub struct AssetFolder<'a> {
    /// The folder.
    pub path: &'a Path,
    /// The folder from the project's root, for people.
    pub shown: &'a str,
    /// The place that names it.
    pub place: &'a Place,
    /// The handling of HTML files, which decides what a redirect may be.
    pub html_handling: Option<HtmlHandling>,
    /// The most files, by the limits of the accounts.
    pub most: u64,
}

/// The assets of a folder.
#[derive(Default)]
pub struct Found {
    /// The list.
    pub list: AssetList,
    /// The files and folders that decide it, by their paths in the folder, each with its stamp from before it was read.
    pub inputs: Vec<(String, Stamp)>,
}

/// Returns the assets of a pack. The folder is the shared one, of which there is one list for all customers.
pub fn pack_assets(source: &AssetSource, most: u64) -> Result<PackAssets, Vec<Diagnostic>> {
    let Some(path) = &source.folder else { return Ok(PackAssets::new(None, AssetList::default())) };
    let (shown, place, html_handling) = (source.shown.as_str(), &source.place, source.options.html_handling);
    let folder = AssetFolder { path, shown, place, html_handling, most };
    let mut remembered = Remembered::read(path);
    let found = folder.read(&mut remembered)?;
    remembered.write(path);
    Ok(PackAssets::new(Some(path.clone()), found.list))
}

/// Returns the list of the files in a folder that are assets, as they are now: for what was generated, where nothing is reported.
pub fn list_of(path: &Path) -> Option<AssetList> {
    let place = Place::file("");
    let folder =
        AssetFolder { path, shown: "", place: &place, html_handling: Some(HtmlHandling::None), most: u64::MAX };
    let mut remembered = Remembered::read(path);
    let found = folder.read(&mut remembered).ok()?;
    remembered.write(path);
    Some(found.list)
}

/// The hashes of files by their paths, with their stamps.
#[derive(Default, Serialize, Deserialize)]
pub struct Remembered {
    files: BTreeMap<String, (Stamp, String)>,
    #[serde(skip)]
    is_changed: bool,
}

impl Remembered {
    fn file(folder: &Path) -> Option<PathBuf> {
        let name = Digest::of(folder.as_os_str().as_encoded_bytes()).to_string();
        Some(cache::subfolder(KIND).ok()?.join(name))
    }

    /// Reads what is remembered of a folder; nothing, if it can't be read.
    fn read(folder: &Path) -> Remembered {
        let bytes = Remembered::file(folder).and_then(|file| plain_file::read(&file, MOST_REMEMBERED).ok());
        bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
    }

    /// Writes it. Where it can't be written, the files are read again the next time.
    fn write(&self, folder: &Path) {
        if let (true, Some(file)) = (self.is_changed, Remembered::file(folder)) {
            let bytes = postcard::to_stdvec(self).expect("BUG: stamps can be written");
            let _ = AtomicFile::new(&file).mode(plain_file::PRIVATE).write(&bytes);
        }
    }
}

/// A file that is an asset.
struct Candidate {
    path: String,
    file: PathBuf,
    size: u64,
    stamp: Stamp,
}

/// The contents of a folder, found so far.
#[derive(Default)]
struct Walk {
    files: Vec<Candidate>,
    /// Folders, and files that are no assets, which decide what is one.
    others: Vec<(String, Stamp)>,
    errors: Vec<Diagnostic>,
    too_large: usize,
    seen: usize,
    /// The real paths of the folders that are open, so that links end.
    above: Vec<PathBuf>,
}

impl AssetFolder<'_> {
    /// Reads the folder. Reports everything that is wrong with it at once.
    pub fn read(&self, remembered: &mut Remembered) -> Result<Found, Vec<Diagnostic>> {
        let root = self.path.canonicalize().map_err(|error| vec![self.unusable(&error)])?;
        if !root.is_dir() {
            return Err(vec![self.error(
                self.place.clone(),
                format!("`{}` is a file, not a folder", self.shown),
                HELP,
            )]);
        }
        let mut walk = Walk::default();
        let text = |name: &str| match plain_file::read_through_links(&root.join(name), MOST_RULES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let message = format!("it can't be read: {error}");
                Err(self.error(self.file(name), message, "make it a regular file of up to 1 MiB, or remove it"))
            }
        };
        let mut texts = [IGNORE_FILE, HEADERS_FILE, REDIRECTS_FILE].map(text).into_iter().map(|text| {
            text.unwrap_or_else(|error| {
                walk.errors.push(error);
                None
            })
        });
        let (ignored, headers, redirects) = (texts.next().flatten(), texts.next().flatten(), texts.next().flatten());
        drop(texts);
        let ignored = Ignored::new(ignored.as_deref()).unwrap_or_else(|why| {
            let message = format!("it can't be read: {why}");
            walk.errors.push(self.error(
                self.file(IGNORE_FILE),
                message,
                "write it in UTF-8, in the form of a .gitignore",
            ));
            Ignored::new(None).expect("BUG: without a file, there is nothing to be read")
        });
        let lossy = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (headers, redirects) = (lossy(headers), lossy(redirects));
        self.check_rules(headers.as_deref(), redirects.as_deref(), &mut walk);
        walk.above.push(root.clone());
        self.walk(&root, &root, "", &ignored, &mut walk);
        self.check(&ignored, &mut walk);
        if !walk.errors.is_empty() {
            return Err(walk.errors);
        }
        let mut files = BTreeMap::new();
        let hashed: Vec<Result<(Candidate, String), Diagnostic>> =
            walk.files.into_par_iter().map(|found| self.hash(found, remembered)).collect();
        let (mut kept, mut errors) = (BTreeMap::new(), Vec::new());
        let mut inputs = walk.others;
        for result in hashed {
            match result {
                Ok((Candidate { path, size, stamp, .. }, hash)) => {
                    inputs.push((path.clone(), stamp));
                    files.insert(format!("/{path}"), AssetFile { hash: hash.clone(), size });
                    if stamp != Stamp::NONE {
                        kept.insert(path, (stamp, hash));
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        remembered.is_changed = kept != remembered.files;
        remembered.files = kept;
        Ok(Found { list: AssetList { files, headers, redirects }, inputs })
    }

    fn hash(&self, found: Candidate, remembered: &Remembered) -> Result<(Candidate, String), Diagnostic> {
        if let Some((stamp, hash)) = remembered.files.get(&found.path)
            && stamp.same(found.stamp)
        {
            return Ok((found, hash.clone()));
        }
        // The size is that of the bytes that were hashed, or the file is looked at again.
        match plain_file::read_through_links(&found.file, MOST_BYTES) {
            Ok(bytes) => {
                let hash = flotilla_assets::hash(&bytes, &found.path);
                Ok((Candidate { size: bytes.len() as u64, ..found }, hash))
            }
            Err(error) => {
                let message = format!("the asset can't be read: {error}");
                Err(self.error(self.file(&found.path), message, "make the file readable, or name it in .assetsignore"))
            }
        }
    }

    fn walk(&self, root: &Path, folder: &Path, below: &str, ignored: &Ignored, walk: &mut Walk) {
        let now = SystemTime::now();
        let stamp = fs::metadata(folder).map_or(Stamp::NONE, |found| Stamp::settled(&found, now));
        walk.others.push((below.trim_end_matches('/').to_owned(), stamp));
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                let message = format!("the folder can't be read: {error}");
                walk.errors.push(self.error(
                    self.file(below),
                    message,
                    "make it readable, or name it in .assetsignore",
                ));
                return;
            }
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        for name in names {
            walk.seen += 1;
            if walk.seen > MOST_SEEN {
                return;
            }
            let Some(text) = name.to_str() else {
                let message = format!("the name {name:?} is not UTF-8, so that no request can ask for it");
                walk.errors.push(self.error(self.file(below), message, "give the file another name"));
                continue;
            };
            self.add(root, &folder.join(&name), &format!("{below}{text}"), ignored, walk);
        }
    }

    fn add(&self, root: &Path, full: &Path, path: &str, ignored: &Ignored, walk: &mut Walk) {
        let now = SystemTime::now();
        let (real, found) = match real(root, full) {
            Ok(found) => found,
            // What is ignored may be anything.
            Err(_) if ignored.has_file(path) || ignored.has_folder(path) => return,
            Err(why) => {
                let help = "replace it with a copy, or name it in .assetsignore";
                walk.errors.push(self.error(self.file(path), format!("the asset can't be read: {why}"), help));
                return;
            }
        };
        if found.is_dir() {
            if ignored.has_folder(path) {
                return;
            }
            if walk.above.contains(&real) {
                let message = "it is a symbolic link to a folder that holds it".to_owned();
                walk.errors.push(self.error(self.file(path), message, "remove the link, or name it in .assetsignore"));
                return;
            }
            walk.above.push(real);
            self.walk(root, full, &format!("{path}/"), ignored, walk);
            walk.above.pop();
            return;
        }
        let stamp = Stamp::settled(&found, now);
        if ignored.has_file(path) {
            // Files with rules decide, without being assets.
            if [IGNORE_FILE, HEADERS_FILE, REDIRECTS_FILE].contains(&path) {
                walk.others.push((path.to_owned(), stamp));
            }
            return;
        }
        if !found.is_file() {
            let message = "it is not a regular file".to_owned();
            walk.errors.push(self.error(self.file(path), message, "remove it, or name it in .assetsignore"));
            return;
        }
        if found.len() > MOST_BYTES {
            walk.too_large += 1;
            if walk.too_large <= MOST_REPORTED {
                let message = format!(
                    "the asset has {} bytes, and Cloudflare takes {} (25 MiB)",
                    grouped(found.len()),
                    grouped(MOST_BYTES)
                );
                let help = "make it smaller, keep it in an R2 bucket, or name it in .assetsignore";
                walk.errors.push(Diagnostic::error(Code::AssetTooLarge, self.file(path), message, help));
            }
            return;
        }
        walk.files.push(Candidate { path: path.to_owned(), file: full.to_owned(), size: found.len(), stamp });
    }

    /// Checks the files as a whole.
    fn check(&self, ignored: &Ignored, walk: &mut Walk) {
        if let Some(found) = walk.files.iter().find(|found| !ignored.is_written() && is_pages_worker(&found.path)) {
            let message = "it is server code of Cloudflare Pages, which would be published".to_owned();
            let help = "remove it, or name it in a .assetsignore: `_worker.js`; an empty .assetsignore publishes it";
            walk.errors.push(self.error(self.file(&found.path.clone()), message, help));
        }
        let count = (walk.files.len() + walk.too_large) as u64;
        if count > self.most || walk.seen > MOST_SEEN {
            let message = format!(
                "the folder `{}` has {}{} assets, and a worker can have {}",
                self.shown,
                if walk.seen > MOST_SEEN { "more than " } else { "" },
                grouped(count),
                grouped(self.most)
            );
            let help = "name what isn't published in .assetsignore; `limits: { assetFiles: … }` of the account in fleet.yaml, if \
                        Cloudflare raised yours";
            walk.errors.push(Diagnostic::error(Code::TooManyAssets, self.place.clone(), message, help));
        } else if count == 0 && walk.errors.is_empty() {
            let message = format!("the folder `{}` has no assets", self.shown);
            walk.errors.push(self.error(
                self.place.clone(),
                message,
                "run the build that makes them, or name another folder",
            ));
        }
    }

    /// Reports the lines of `_headers` and `_redirects` that Cloudflare would reject.
    fn check_rules(&self, headers: Option<&str>, redirects: Option<&str>, walk: &mut Walk) {
        let has_html_handling = self.html_handling != Some(HtmlHandling::None);
        let of_headers = headers.map(|text| headers::parse(text).faults).unwrap_or_default();
        let of_redirects = redirects.map(|text| redirects::parse(text, has_html_handling).faults).unwrap_or_default();
        for (file, faults, help) in [
            (HEADERS_FILE, of_headers, "a path, and below it `name: value` for each header, or `! name` to remove one"),
            (REDIRECTS_FILE, of_redirects, "`FROM TO STATUS`: `/old/* /new/:splat 301`"),
        ] {
            for fault in faults.into_iter().take(MOST_REPORTED) {
                let place = Place { line: fault.line, column: 1, ..self.file(file) };
                walk.errors.push(Diagnostic::error(Code::BadAssetRule, place, fault.message, help));
            }
        }
    }

    fn unusable(&self, error: &std::io::Error) -> Diagnostic {
        let message = match error.kind() {
            ErrorKind::NotFound => format!("the folder `{}` with static assets doesn't exist", self.shown),
            _ => format!("the folder `{}` with static assets can't be read: {error}", self.shown),
        };
        self.error(self.place.clone(), message, HELP)
    }

    fn file(&self, path: &str) -> Place {
        Place::file(format!("{}/{path}", self.shown).trim_end_matches('/'))
    }

    fn error(&self, place: Place, message: String, help: &str) -> Diagnostic {
        Diagnostic::error(Code::BadAssets, place, message, help)
    }
}

/// The way to fix a folder.
const HELP: &str = "run the build that makes the folder, or correct its path";

/// Returns the real path of a file or folder, and what it is. The error is the reason why it can't be used.
fn real(root: &Path, full: &Path) -> Result<(PathBuf, Metadata), String> {
    let is_link = fs::symlink_metadata(full).map_err(|error| error.to_string())?.is_symlink();
    let real = match full.canonicalize() {
        Err(error) if is_link && error.kind() == ErrorKind::NotFound => {
            return Err("it is a symbolic link to a file that doesn't exist".to_owned());
        }
        real => real.map_err(|error| error.to_string())?,
    };
    if !real.starts_with(root) {
        return Err("it is a symbolic link that leads out of the folder of the assets".to_owned());
    }
    let found = real.metadata().map_err(|error| error.to_string())?;
    Ok((real, found))
}

/// Returns the files of a list with the beginnings of their hashes, to explain what changed: paths from the project's root.
pub fn named(shown: &str, list: &AssetList) -> Vec<(String, u32)> {
    let mark = |hash: &str| u32::from_str_radix(hash.get(..8).unwrap_or_default(), 16).unwrap_or_default();
    let rules = [(HEADERS_FILE, &list.headers), (REDIRECTS_FILE, &list.redirects)];
    let rules = rules.into_iter().filter_map(|(name, text)| {
        let hash = flotilla_assets::hash(text.as_ref()?.as_bytes(), name);
        Some((format!("{shown}/{name}"), mark(&hash)))
    });
    let files = list.files.iter().map(|(path, file)| (format!("{shown}{path}"), mark(&file.hash)));
    rules.chain(files).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(path: &Path, most: u64) -> Result<Found, Vec<Diagnostic>> {
        let place = Place::file("pack.yaml");
        let folder = AssetFolder { path, shown: "web", place: &place, html_handling: None, most };
        folder.read(&mut Remembered::default())
    }

    fn errors(path: &Path, most: u64) -> Vec<(Code, String)> {
        let Err(errors) = read(path, most) else { panic!("it can be read") };
        errors.into_iter().map(|error| (error.code, error.place.to_string())).collect()
    }

    #[test]
    fn a_folder_is_read_as_wrangler_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("deep/.well-known")).unwrap();
        fs::create_dir_all(root.join("node_modules/x")).unwrap();
        for name in ["index.html", "deep/.well-known/x", ".hidden", "a.map", "node_modules/x/y.js", "_worker.js"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join(".assetsignore"), "*.map\n_worker.js\n").unwrap();
        fs::write(root.join("_headers"), "/*\n A: b\n").unwrap();
        symlink("index.html", root.join("link.html")).unwrap();
        symlink("deep", root.join("also")).unwrap();
        let found = read(root, 100).unwrap();
        let paths: Vec<&str> = found.list.files.keys().map(String::as_str).collect();
        let expected = [
            "/.hidden",
            "/also/.well-known/x",
            "/deep/.well-known/x",
            "/index.html",
            "/link.html",
            "/node_modules/x/y.js",
        ];
        assert_eq!(paths, expected);
        assert_eq!((found.list.headers.as_deref(), found.list.redirects), (Some("/*\n A: b\n"), None));
        assert_eq!(found.list.files["/link.html"], found.list.files["/index.html"]);
        assert!(
            found.inputs.iter().any(|(path, _)| path == "deep/.well-known")
                && found.inputs.iter().any(|(path, _)| path == ".assetsignore")
        );
    }

    #[test]
    fn everything_that_is_wrong_is_reported_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("web");
        assert_eq!(errors(&root, 1), [(Code::BadAssets, "pack.yaml".to_owned())], "it doesn't exist");
        fs::create_dir(&root).unwrap();
        assert_eq!(errors(&root, 1), [(Code::BadAssets, "pack.yaml".to_owned())], "it is empty");
        fs::File::create(root.join("large")).unwrap().set_len(MOST_BYTES + 1).unwrap();
        fs::write(root.join("_redirects"), "/a /b\n/c\n").unwrap();
        fs::write(root.join("_worker.js"), "").unwrap();
        symlink("/etc/hostname", root.join("out")).unwrap();
        symlink(".", root.join("loop")).unwrap();
        symlink("nowhere", root.join("gone")).unwrap();
        let found = errors(&root, 1);
        let expected = [
            (Code::BadAssetRule, "web/_redirects:2:1"),
            (Code::BadAssets, "web/gone"),
            (Code::AssetTooLarge, "web/large"),
            (Code::BadAssets, "web/loop"),
            (Code::BadAssets, "web/out"),
            (Code::BadAssets, "web/_worker.js"),
            (Code::TooManyAssets, "pack.yaml"),
        ];
        assert_eq!(found, expected.map(|(code, place)| (code, place.to_owned())));
    }

    #[test]
    fn what_is_remembered_is_believed_only_as_long_as_the_stamp_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("a"), "one").unwrap();
        let place = Place::file("pack.yaml");
        let folder = AssetFolder { path: root, shown: "web", place: &place, html_handling: None, most: 10 };
        let mut remembered = Remembered::default();
        let first = folder.read(&mut remembered).unwrap().list;
        fs::write(root.join("a"), "two").unwrap();
        let second = folder.read(&mut remembered).unwrap().list;
        assert_ne!(first.files, second.files, "the same size, within the same tick");
        assert_eq!(named("web", &second).len(), 1);
    }
}
