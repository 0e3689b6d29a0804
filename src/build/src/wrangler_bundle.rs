//! Bundles the code of a wrangler project by the team's own wrangler, once per change of what decides it. Runs node; doesn't know what the
//! code does.
//!
//! Which files decide a bundle is known only after it was made: esbuild's metafile lists them, with the packages and settings around them.
//! The list is kept by everything that is known beforehand (the configuration, the versions, the variables); a bundle by that and by the
//! content of the files. So a build without changes reads the files and runs nothing. A bundle of files that changed while wrangler ran is
//! used, but not kept.

mod failure;
mod form;
mod inputs;
mod tools;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde_json::Value;

pub use crate::pack_bundle::Error;
use crate::pack_bundle::{LARGEST_BUNDLE, MEMORY_MIB, TIME};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::bundle::PackBundle;
use flotilla_model::cache;
use flotilla_model::child::{Environment, Job, Trouble};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::failure::Failure;
use flotilla_model::modules::Modules;
use flotilla_model::plain_file;
use flotilla_model::progress::Progress;
use flotilla_spec::pack::{Pack, WranglerProject};
use inputs::{Contents, Inputs};
use tools::{Node, Wrangler};

/// The folder of the cache in which Node.js keeps the JavaScript that it has compiled.
const COMPILED: &str = "node";
/// The kind of the cache's entries, and of the lists of inputs.
const KIND: &str = "wrangler";
const INPUTS: &str = "wrangler-inputs";
/// The files of an entry.
const MODULES: &str = "modules";
const SOURCES: &str = "sources.json";
/// The maximum size, in bytes, of a metafile, of a list of inputs, and of what wrangler prints.
const MOST_LISTED: u64 = 64 << 20;
const MOST_PRINTED: u64 = 16 << 20;

/// The settings of workers that decide how their code is bundled.
pub struct Compatibility {
    /// The compatibility date.
    pub date: String,
    /// The compatibility flags.
    pub flags: BTreeSet<String>,
}

/// A bundle that is to be made.
struct Task<'a> {
    pack: &'a Pack,
    project: &'a WranglerProject,
    compatibility: &'a Compatibility,
    wrangler: Wrangler,
    node: Node,
    variables: Vec<(String, String)>,
    /// The digest of everything that decides the bundle and is known beforehand.
    key: Digest,
}

/// The result of a run of wrangler.
struct Bundled {
    /// The modules that it would upload.
    modules: Modules,
    /// esbuild's metafile.
    metafile: Value,
    /// The time at which the metafile was written: everything that was bundled had been read.
    time: SystemTime,
}

/// Returns the bundle of a wrangler project: from the cache, or bundled now. `fleet` is the name of the fleet: what one fleet's build made is
/// never another's.
pub fn wrangler_bundle(
    fleet: &str,
    pack: &Pack,
    project: &WranglerProject,
    compatibility: &Compatibility,
    progress: &dyn Progress,
) -> Result<PackBundle, Error> {
    let wrangler = Wrangler::find(pack, project)?;
    let names: BTreeSet<&String> = pack.manifest.build_env.iter().flatten().collect();
    let variables = names.into_iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    let mut task = Task {
        pack,
        project,
        compatibility,
        wrangler,
        node: Node::find(),
        variables: variables.collect(),
        key: Digest::of(b""),
    };
    task.key = task.key(fleet);
    let known = known_inputs(&task.key)?;
    if let Some(known) = &known
        && let Ok(contents) = known.contents(project)
        && let Some(folder) = cache::existing(KIND, &task.entry(&contents))?
        && let Some(bundle) = read(&folder)
    {
        return Ok(bundle);
    }
    let before = Inputs::of_project(project).contents(project).map_err(|what| task.error(what))?;
    let start = SystemTime::now();
    let work = cache::workspace(KIND)?;
    let result = task.run(&work, progress);
    progress.end();
    let _ = fs::remove_dir_all(&work);
    let Bundled { modules, metafile, time } = result?;
    let found = Inputs::of_bundle(project, &metafile, &modules);
    let contents = match &found {
        Some(found) => found.contents(project).map_err(|what| task.error(what))?,
        None => Contents::new(),
    };
    let sources = inputs::named(project, &contents);
    if let Some(found) = found
        && inputs::are_settled(project, &before, &contents, &metafile, (start, time))
    {
        cache::entry(KIND, &task.entry(&contents), |folder| {
            let list = serde_json::to_vec(&sources).expect("BUG: names and digests are JSON");
            fs::write(folder.join(MODULES), modules.pack()).context("the cache can't be written")?;
            fs::write(folder.join(SOURCES), list).context("the cache can't be written")?;
            Ok(())
        })?;
        let list = serde_json::to_vec(&found).expect("BUG: paths are JSON");
        let folder = cache::subfolder(INPUTS)?;
        let written = AtomicFile::new(&folder.join(task.key.to_string())).write(&list);
        written.context("the cache can't be written")?;
    }
    Ok(PackBundle::of_modules(modules, sources))
}

/// Returns the inputs that an earlier bundle had.
fn known_inputs(key: &Digest) -> Result<Option<Inputs>, Failure> {
    let bytes = plain_file::read(&cache::subfolder(INPUTS)?.join(key.to_string()), MOST_LISTED);
    Ok(bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Reads a bundle of the cache.
fn read(folder: &Path) -> Option<PackBundle> {
    let modules = Modules::unpack(&plain_file::read(&folder.join(MODULES), LARGEST_BUNDLE * 2).ok()?)?;
    let sources: Vec<(String, u32)> =
        serde_json::from_slice(&plain_file::read(&folder.join(SOURCES), MOST_LISTED).ok()?).ok()?;
    Some(PackBundle::of_modules(modules, sources))
}

impl Task<'_> {
    fn key(&self, fleet: &str) -> Digest {
        let Compatibility { date, flags } = self.compatibility;
        let count = |framed: Framed, count: usize| framed.field(&(count as u64).to_le_bytes());
        let environment = self.pack.manifest.environment.as_deref().unwrap_or_default();
        let start = Framed::new("wrangler bundle 1").field(fleet.as_bytes()).field(self.pack.path.as_bytes());
        let start = start.field(self.project.config.as_os_str().as_encoded_bytes());
        let start = start.field(&self.project.digest.to_bytes()).field(environment.as_bytes());
        let start = start.field(self.wrangler.version.as_bytes()).field(self.node.identity().as_bytes());
        let start = start.field(std::env::consts::OS.as_bytes()).field(std::env::consts::ARCH.as_bytes());
        let start = count(start.field(date.as_bytes()), flags.len());
        let start = flags.iter().fold(start, |framed, flag| framed.field(flag.as_bytes()));
        let all = self
            .variables
            .iter()
            .fold(start, |framed, (name, value)| framed.field(name.as_bytes()).field(value.as_bytes()));
        all.finish()
    }

    /// Returns the key of the bundle of these contents.
    fn entry(&self, contents: &Contents) -> Digest {
        Framed::new("wrangler bundle of")
            .field(&self.key.to_bytes())
            .field(&inputs::digest(contents).to_bytes())
            .finish()
    }

    /// Returns an error of the configuration as a whole.
    fn error(&self, message: String) -> Error {
        let help = "see the wrangler project, and `wrangler deploy --dry-run` in its folder";
        Diagnostic::error(Code::RuntimeFailed, Place::file(&self.project.path), message, help).into()
    }

    /// Runs wrangler. `work`: an empty folder.
    fn run(&self, work: &Path, progress: &dyn Progress) -> Result<Bundled, Error> {
        let Task { pack, project, .. } = self;
        let script = self.wrangler.script(pack, &self.node, progress)?;
        progress.begin(&format!("bundling {} with wrangler {}", project.path, self.wrangler.version), None);
        let (form, metafile) = (work.join("form"), work.join("metafile.json"));
        let environment = pack.manifest.environment.as_deref().unwrap_or_default();
        let mut words: Vec<OsString> = vec![script.into(), "deploy".into(), "--dry-run".into()];
        let mut option = |name: &str, value: OsString| {
            // An empty value is one only as an argument of its own.
            let mut word = OsString::from(format!("--{name}"));
            if value.is_empty() {
                words.extend([word, value]);
            } else {
                word.push("=");
                word.push(value);
                words.push(word);
            }
        };
        option("config", project.config.clone().into());
        option("env", environment.into());
        option("name", "bundle".into());
        // In place of those of the configuration: hosts are defined in specs, and don't prevent code from being bundled.
        option("routes", "flotilla.invalid/*".into());
        option("outfile", form.clone().into());
        option("metafile", metafile.clone().into());
        option("compatibility-date", self.compatibility.date.clone().into());
        // With none, those of the configuration would count.
        let none = String::new();
        let flags = &self.compatibility.flags;
        flags
            .iter()
            .chain(flags.is_empty().then_some(&none))
            .for_each(|flag| option("compatibility-flags", flag.into()));
        let program = self.node.program.clone().unwrap_or_default();
        let time = pack.manifest.build_timeout.map_or(TIME, Duration::from_secs);
        let memory = pack.manifest.build_memory.unwrap_or(MEMORY_MIB) << 20;
        let job = Job::new(&program, words, &project.folder).time(time).memory(memory).output(MOST_PRINTED);
        let ended =
            job.environment(self.environment(&program, work)?).run().map_err(|trouble| self.stopped(&trouble))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !ended.status.success() {
            if let Some(signal) = ended.status.signal() {
                return Err(self.error(format!("wrangler was ended by signal {signal}")));
            }
            let (stdout, stderr) = (text(&ended.stdout), text(&ended.stderr));
            return Err(Error::Diagnostics(failure::diagnostics(
                pack,
                project,
                &self.wrangler.version,
                &stdout,
                &stderr,
            )));
        }
        let form = plain_file::read(&form, LARGEST_BUNDLE)
            .map_err(|error| self.error(format!("what wrangler bundled can't be read: {error}")))?;
        let modules = form::modules(&form)
            .map_err(|what| self.error(format!("what wrangler bundled can't be deployed: {what}")))?;
        // A project that isn't bundled has none.
        let time = fs::metadata(&metafile).and_then(|found| found.modified()).unwrap_or_else(|_| SystemTime::now());
        let metafile = plain_file::read(&metafile, MOST_LISTED).ok();
        let metafile = metafile.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let metafile = metafile.unwrap_or_else(|| serde_json::json!({"inputs": {}}));
        Ok(Bundled { modules, metafile, time })
    }

    /// Returns the variables of wrangler and of what it starts.
    fn environment(&self, node: &Path, work: &Path) -> Result<Environment, Failure> {
        // As where a package manager runs wrangler: the programs of the project's packages are found by their names.
        let folders = self.project.folder.ancestors().take_while(|folder| folder.starts_with(&self.project.workspace));
        let bins = folders.map(|folder| folder.join("node_modules/.bin"));
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let own: Vec<PathBuf> = node.parent().map(Path::to_owned).into_iter().collect();
        let path = std::env::join_paths(bins.chain(own).chain(std::env::split_paths(&path))).unwrap_or(path);
        let set = [
            ("PATH", path.to_string_lossy().into_owned()),
            ("CI", "1".to_owned()),
            ("NO_COLOR", "1".to_owned()),
            ("FORCE_COLOR", "0".to_owned()),
            ("WRANGLER_SEND_METRICS", "false".to_owned()),
            ("WRANGLER_SEND_ERROR_REPORTS", "false".to_owned()),
            // Without its banner, it doesn't look for newer versions either.
            ("WRANGLER_HIDE_BANNER", "true".to_owned()),
            ("WRANGLER_LOG_PATH", work.join("logs").to_string_lossy().into_owned()),
            // Compiling wrangler's 10 MB of JavaScript takes a third of its time; this way, only its first run does it.
            ("NODE_COMPILE_CACHE", cache::subfolder(COMPILED)?.to_string_lossy().into_owned()),
        ];
        let set = set.into_iter().map(|(name, value)| (name.to_owned(), value));
        Ok(Environment::plain().with(set).with(self.variables.clone()))
    }

    /// Returns the error of a run that didn't end by itself.
    fn stopped(&self, trouble: &Trouble) -> Error {
        let limit = match trouble {
            Trouble::TimedOut(_) => "buildTimeout",
            Trouble::TooMuchMemory(_) => "buildMemory",
            Trouble::NotFound | Trouble::NotStarted(_) => {
                return Error::Failure(Failure::new(format!(
                    "node, which runs wrangler for the pack {}, {trouble}",
                    self.pack.path
                )));
            }
            Trouble::TooMuchOutput(_) => return self.error(format!("wrangler {trouble}")),
        };
        let help = format!(
            "it was stopped, with all processes that it started; `{limit}` in {}/pack.yaml sets a larger limit",
            self.pack.path
        );
        let (what, place) = match &self.project.build {
            Some((command, place)) => {
                (format!("the project's own build, `{command}`, or wrangler after it {trouble}"), place.clone())
            }
            None => (format!("wrangler {trouble}"), Place::file(&self.project.path)),
        };
        Diagnostic::error(Code::RuntimeFailed, place, what, help).into()
    }
}
