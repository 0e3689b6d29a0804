//! The folder out/: writes a file only where its bytes differ, whole or not at all, and removes what no worker owns.
//! Doesn't know what the files mean.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use flotilla_assets::{HEADERS_FILE, IGNORE_FILE, REDIRECTS_FILE, is_pages_worker};
use flotilla_model::assets::{AssetDigests, AssetList};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::bundle::BUNDLES;
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;
use flotilla_model::spec::Environment;
use flotilla_model::text::with_unix_line_ends;

/// The folder's name.
pub const OUT: &str = "out";
/// The folder of packs' static assets, each list under its digest.
const ASSETS: &str = "assets";
/// The folder, in a worker's, of the static assets of one with files of its own.
pub const OWN_ASSETS: &str = "_assets";

/// Returns the folder of static assets that several workers have.
pub fn shared_assets(digests: &AssetDigests) -> String {
    format!("{ASSETS}/{}", digests.list.short())
}

/// The maximum size, in bytes, of a file that are read: more than any that a build writes.
const LARGEST: u64 = 256 << 20;

/// The folder out/ of a project.
pub struct Out {
    root: PathBuf,
    dry: bool,
}

/// Returns the error of a folder or file of this run that is a symbolic link.
fn leads_out(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is a symbolic link or not a folder, and flotilla only writes inside its own out/: remove it, and build again",
        path.display()
    ))
}

impl Out {
    /// Returns the out/ of a project. Dry: nothing is written, only counted.
    pub fn new(project: &Path, dry: bool) -> Out {
        Out { root: project.join(OUT), dry }
    }

    /// Writes those files of one folder that differ; returns for each whether it did, and its metadata.
    pub fn write_folder(&self, folder: &str, files: &[(&str, &[u8])]) -> Result<Vec<Written>, Failure> {
        let path = self.root.join(folder);
        // The folders below out/: that may be a link to another disk itself, by its owner's choice.
        let mut there = true;
        for folder in path.ancestors().take_while(|folder| *folder != self.root) {
            match fs::symlink_metadata(folder) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(anyhow::Error::from(leads_out(folder)).into()),
                Err(_) => there &= folder != path,
            }
        }
        let refused = |error: io::Error, file: &Path| {
            let error = anyhow::Error::from(error).context(format!("{} can't be written", file.display()));
            Failure::from(error).hint(
                "out/ must be writable; the files that were written are complete, and the next build continues from there",
            )
        };
        if !there && !self.dry {
            return new_folder(&path, files).map_err(|error| refused(error, &path));
        }
        let mut all = Vec::with_capacity(files.len());
        for (name, bytes) in files {
            let file = path.join(name);
            let found = same_text(&file, bytes).with_context(|| format!("{} can't be read", file.display()))?;
            all.push(match found {
                Some(metadata) => Written { differed: false, metadata: Some(metadata) },
                None if self.dry => Written { differed: true, metadata: None },
                None => {
                    let metadata = replace(&path, name, bytes).map_err(|error| refused(error, &file))?;
                    Written { differed: true, metadata: Some(metadata) }
                }
            });
        }
        Ok(all)
    }

    /// Makes a folder hold exactly these assets; returns the number of files that differed. `read` lists what a folder
    /// has; `locate` returns the file of a path.
    pub fn write_assets(
        &self,
        folder: &str,
        list: &AssetList,
        read: impl Fn(&Path) -> Option<AssetList>,
        locate: impl Fn(&str) -> PathBuf,
    ) -> Result<usize, Failure> {
        let path = self.root.join(folder);
        let is_link = |folder: &&Path| fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir());
        if let Some(link) = path.ancestors().take_while(|folder| *folder != self.root).find(is_link) {
            return Err(anyhow::Error::from(leads_out(link)).into());
        }
        let there = if path.is_dir() { read(&path).unwrap_or_default() } else { AssetList::default() };
        let mut differed = 0;
        let cannot = |file: &Path| format!("{} can't be written", file.display());
        let mut put = |name: &str, bytes: &dyn Fn() -> Result<Vec<u8>, Failure>| -> Result<(), Failure> {
            differed += 1;
            if self.dry {
                return Ok(());
            }
            let file = path.join(name);
            let parent = file.parent().expect("BUG: a file has a folder");
            fs::create_dir_all(parent).with_context(|| cannot(parent))?;
            let name = file.file_name().expect("BUG: a file has a name").to_string_lossy();
            replace(parent, &name, &bytes()?).with_context(|| cannot(&file))?;
            Ok(())
        };
        for (path, file) in list.files.iter().filter(|(path, file)| there.files.get(*path) != Some(*file)) {
            put(path.trim_start_matches('/'), &|| {
                let from = locate(path);
                let bytes = plain_file::read_through_links(&from, file.size)
                    .with_context(|| format!("{} can't be read", from.display()))?;
                match flotilla_assets::hash(&bytes, path) == file.hash {
                    true => Ok(bytes),
                    false => Err(Failure::new(format!("{} changed while it was built", from.display()))
                        .hint("run the same command again")),
                }
            })?;
        }
        for (name, text, before) in
            [(HEADERS_FILE, &list.headers, &there.headers), (REDIRECTS_FILE, &list.redirects, &there.redirects)]
        {
            if let Some(text) = text.as_ref().filter(|_| text != before) {
                put(name, &|| Ok(text.clone().into_bytes()))?;
            }
        }
        // Without it, wrangler would refuse what the pack publishes on purpose.
        let needs_ignore = list.files.keys().any(|path| is_pages_worker(path.trim_start_matches('/')));
        if needs_ignore && !path.join(IGNORE_FILE).is_file() {
            put(IGNORE_FILE, &|| Ok(Vec::new()))?;
        }
        let mut keep: HashSet<String> = list.files.keys().map(|path| path.trim_start_matches('/').to_owned()).collect();
        keep.extend(list.headers.as_ref().map(|_| HEADERS_FILE.to_owned()));
        keep.extend(list.redirects.as_ref().map(|_| REDIRECTS_FILE.to_owned()));
        keep.extend(needs_ignore.then(|| IGNORE_FILE.to_owned()));
        Ok(differed + if path.is_dir() { self.remove_others(&path, "", &keep)? } else { 0 })
    }

    /// Removes the files of a folder that aren't among these, and folders that are empty then; returns their number.
    fn remove_others(&self, folder: &Path, below: &str, keep: &HashSet<String>) -> Result<usize, Failure> {
        let (folders, files) = folders(folder)?;
        let mut removed = 0;
        for file in files.iter().filter(|file| !keep.contains(&format!("{below}{file}"))) {
            removed += 1;
            self.remove(&folder.join(file))?;
        }
        for (name, path) in folders {
            removed += self.remove_others(&path, &format!("{below}{name}/"), keep)?;
            if !self.dry {
                let _ = fs::remove_dir(&path);
            }
        }
        Ok(removed)
    }

    /// Removes the static assets in a worker's folder, if it has any of its own.
    pub fn remove_own_assets(&self, folder: &str) -> Result<usize, Failure> {
        let path = self.root.join(folder).join(OWN_ASSETS);
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        if is_folder && !self.dry {
            fs::remove_dir_all(&path).with_context(|| format!("{} can't be removed", path.display()))?;
        }
        Ok(usize::from(is_folder))
    }

    /// Returns the metadata of a file; `None` if there is no regular file.
    pub fn metadata(&self, folder: &str, name: &str) -> Option<fs::Metadata> {
        // Put together by hand: this is what a build without changes does for each file.
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + folder.len() + name.len() + 2);
        path.push(&self.root);
        path.push(folder);
        path.push(name);
        fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)
    }

    /// Returns the bytes of a file. One that is larger than what a build writes is an error.
    pub fn bytes(&self, folder: &str, name: &str) -> io::Result<Vec<u8>> {
        plain_file::read(&self.root.join(folder).join(name), LARGEST)
    }

    /// Returns the metadata of a folder.
    pub fn folder(&self, folder: &str) -> Option<fs::Metadata> {
        fs::symlink_metadata(self.root.join(folder)).ok()
    }

    /// Returns the lasting environments that have a folder.
    pub fn environments(&self) -> impl Iterator<Item = Environment> + use<> {
        let names = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let named = names.filter_map(|entry| Environment::of(&entry.file_name().into_string().ok()?));
        named.filter(|environment| *environment != Environment::Preview)
    }

    /// Removes the files of folders that no worker owns in one environment, by the names that packs give their files;
    /// returns the number of folders. Other files stay. With a `/` at its end, an owned folder is left alone with
    /// everything below it.
    pub fn prune(
        &self,
        environment: Environment,
        owned: &HashSet<String>,
        names: &HashSet<String>,
    ) -> Result<usize, Failure> {
        let mut removed = 0;
        let parent = self.root.join(environment.as_ref());
        if fs::symlink_metadata(&parent).map_or(true, |metadata| !metadata.is_dir()) {
            return Ok(0);
        }
        for (folder, path) in folders(&parent)?.0 {
            let customer = format!("{environment}/{folder}");
            if owned.contains(&format!("{customer}/")) {
                continue;
            }
            let whole = owned.contains(&customer);
            if !whole {
                removed += usize::from(self.remove_files(&path, names)?);
            }
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                let (roles, files) = folders(&path)?;
                self.remove_unfinished(&path, &files, names)?;
                for (role, path) in roles {
                    if owned.contains(&format!("{customer}/{role}")) {
                        self.remove_unfinished(&path, &folders(&path)?.1, names)?;
                    } else {
                        removed += usize::from(self.remove_files(&path, names)?);
                    }
                }
                if !self.dry && !whole {
                    let _ = fs::remove_dir(&path);
                }
            }
        }
        if !self.dry {
            let _ = fs::remove_dir(&parent);
        }
        Ok(removed)
    }

    /// Removes the files of one folder that no worker owns any more, and the folder if it is empty then; returns
    /// whether there were any.
    pub fn prune_folder(&self, folder: &str, names: &HashSet<String>) -> Result<bool, Failure> {
        let path = self.root.join(folder);
        let plain = path.ancestors().take_while(|folder| *folder != self.root);
        if !plain.into_iter().all(|folder| fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir())) {
            return Ok(false);
        }
        let removed = self.remove_files(&path, names)?;
        if !self.dry {
            // Those above it, as far as nothing else is in them.
            for parent in path.ancestors().skip(1).take_while(|folder| *folder != self.root) {
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(removed)
    }

    /// Removes packs' bundles that no worker has, but for these files and folders, named from out/; returns the number of files and folders.
    pub fn prune_bundles(&self, keep: &HashSet<String>) -> Result<usize, Failure> {
        let is_digest = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut removed = 0;
        for (parent, path) in ["runtime", BUNDLES, ASSETS].map(|name| (name, self.root.join(name))) {
            if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                continue;
            }
            for (name, path) in entries(&path)? {
                let stem = name.trim_start_matches('.').split('.').next().unwrap_or_default();
                let is_generated = match parent {
                    BUNDLES | ASSETS => is_digest(&name),
                    _ => stem.rsplit_once('-').is_some_and(|(_, digest)| is_digest(digest)),
                };
                let is_folders = parent != "runtime";
                let kept = if is_folders { format!("{parent}/{name}") } else { format!("{parent}/{stem}.js") };
                if is_generated && !keep.contains(&kept) {
                    removed += 1;
                    if is_folders && !self.dry && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                        fs::remove_dir_all(&path).with_context(|| format!("{} can't be removed", path.display()))?;
                    } else {
                        self.remove(&path)?;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Removes a regular file of a folder, if it exists; returns whether it did.
    pub fn remove_file(&self, folder: &str, name: &str) -> Result<bool, Failure> {
        let there = self.metadata(folder, name).is_some();
        if there {
            self.remove(&self.root.join(folder).join(name))?;
        }
        Ok(there)
    }

    fn remove_files(&self, folder: &Path, names: &HashSet<String>) -> Result<bool, Failure> {
        let mut ours = false;
        let assets = folder.join(OWN_ASSETS);
        if fs::symlink_metadata(&assets).is_ok_and(|found| found.is_dir()) {
            ours = true;
            if !self.dry {
                fs::remove_dir_all(&assets).with_context(|| format!("{} can't be removed", assets.display()))?;
            }
        }
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

    /// Removes what a killed build left beside the files of a folder. It belongs to no worker, and so isn't counted.
    fn remove_unfinished(&self, folder: &Path, files: &[String], names: &HashSet<String>) -> Result<(), Failure> {
        let unfinished = |file: &&String| {
            let name = file.strip_prefix('.').and_then(|rest| rest.strip_suffix(".new"));
            name.is_some_and(|name| names.contains(name))
        };
        files.iter().filter(unfinished).try_for_each(|file| self.remove(&folder.join(file)))
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

/// Returns the folders in a folder, without links to folders, and the names of everything else.
fn folders(folder: &Path) -> Result<(BTreeMap<String, PathBuf>, Vec<String>), Failure> {
    let read = || -> io::Result<(BTreeMap<String, PathBuf>, Vec<String>)> {
        let (mut found, mut others) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                found.insert(name, entry.path());
            } else {
                others.push(name);
            }
        }
        Ok((found, others))
    };
    Ok(read().with_context(|| format!("{} can't be read", folder.display()))?)
}

/// A file of a folder that was written.
pub struct Written {
    /// Whether its bytes were others, or it didn't exist.
    pub differed: bool,
    /// Its metadata; `None` if nothing was written.
    pub metadata: Option<fs::Metadata>,
}

/// Returns the metadata of a regular file that holds this text, with whichever line ends git checked it out.
fn same_text(file: &Path, bytes: &[u8]) -> io::Result<Option<fs::Metadata>> {
    let metadata = match fs::symlink_metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One that is shorter, or longer than with two bytes for each of these, can't be the same: it isn't read, however large it is.
    let length = bytes.len() as u64;
    if !metadata.is_file() || !(length..=2 * length).contains(&metadata.len()) {
        return Ok(None);
    }
    let mut found = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1);
    fs::File::open(file)?.read_to_end(&mut found)?;
    Ok((found == bytes || is_checked_out(&found, |text| text == bytes)).then_some(metadata))
}

/// Returns whether bytes hold a text that git wrote with `\r\n` at the ends of lines.
pub fn is_checked_out(bytes: &[u8], is_text: impl Fn(&[u8]) -> bool) -> bool {
    bytes.contains(&b'\r') && is_text(&with_unix_line_ends(bytes.to_vec()))
}

/// Creates a folder that doesn't exist yet: beside its place, with all its files, and then it takes its name. One step for
/// all.
fn new_folder(path: &Path, files: &[(&str, &[u8])]) -> io::Result<Vec<Written>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let making = temporary(parent, &name.to_string_lossy());
    match fs::create_dir(&making) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(parent)?;
            fs::create_dir(&making)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a build that was killed; never through a link.
            fs::remove_dir_all(&making).or_else(|_| fs::remove_file(&making))?;
            fs::create_dir(&making)?;
        }
        other => other?,
    }
    let mut all = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let mut file = fs::File::options().write(true).create_new(true).open(making.join(name))?;
        file.write_all(bytes)?;
        all.push(Written { differed: true, metadata: Some(file.metadata()?) });
    }
    fs::rename(&making, path)?;
    Ok(all)
}

fn temporary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.new"))
}

/// Replaces a file. One process at a time builds: what a killed one left beside is found by its name. A build can be
/// repeated, and writes hundreds of thousands of files: none of them waits for the disk.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<fs::Metadata> {
    AtomicFile::new(&folder.join(name)).temporary(temporary(folder, name)).write(bytes)
}
