//! Bundles a pack's runtime by the pack's own command, once per change of what decides it. Runs npm and node;
//! doesn't know what the runtime does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::syntax;
use flotilla_model::bundle::PackBundle;
use flotilla_model::cache;
use flotilla_model::child::{Environment, Job, Trouble};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;
use flotilla_model::progress::Progress;
use flotilla_model::spec::RuntimeFile;
use flotilla_model::text::with_unix_line_ends;
use flotilla_spec::pack::{self, Pack};

/// The reason why there is no bundle.
pub enum Error {
    /// The pack's author has to fix these.
    Diagnostics(Vec<Diagnostic>),
    /// The world failed.
    Failure(Failure),
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Error {
        Error::Diagnostics(vec![diagnostic])
    }
}

impl From<Box<Diagnostic>> for Error {
    fn from(diagnostic: Box<Diagnostic>) -> Error {
        Error::Diagnostics(vec![*diagnostic])
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Failure(failure)
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Error {
        Error::Failure(error.into())
    }
}

/// The largest bundle that is read.
pub(crate) const LARGEST_BUNDLE: u64 = 128 << 20;
/// The time and the memory that a build may take, unless the pack sets others.
pub(crate) const TIME: Duration = Duration::from_secs(600);
pub(crate) const MEMORY_MIB: u64 = 4096;

/// Returns a pack's runtime: from the cache, or bundled now. `fleet` is the name of the fleet: what one fleet's build made is never
/// another's.
pub fn pack_bundle(fleet: &str, name: &str, pack: &Pack, progress: &dyn Progress) -> Result<PackBundle, Error> {
    let sources = sources(pack)?;
    let environment = environment(pack);
    let mut broken = None;
    let folder = cache::entry("runtime", &key(fleet, pack, &environment, &sources), |folder| {
        let bundled = bundle(pack, &sources, environment, folder, progress);
        progress.end();
        bundled.map_err(|error| match error {
            Error::Failure(failure) => failure,
            Error::Diagnostics(diagnostics) => {
                let failure = Failure::new(diagnostics.first().map_or("", |diagnostic| diagnostic.message.as_str()));
                broken = Some(diagnostics);
                failure
            }
        })
    });
    if let Some(diagnostics) = broken {
        return Err(Error::Diagnostics(diagnostics));
    }
    let folder = folder?;
    let read = |file: &str| {
        fs::read(folder.join(file))
            .with_context(|| format!("the cached bundle of the pack {} can't be read", pack.path))
    };
    Ok(PackBundle::new(name, read("runtime.js")?, read("runtime.d.ts")?))
}

/// Returns how a pack's own command bundles it.
fn runtime(pack: &Pack) -> &RuntimeFile {
    pack.runtime().expect("BUG: a pack that wrangler doesn't bundle has a runtime")
}

/// Returns the digest of everything that decides a bundle: whose it is, the command, its variables, and the sources.
fn key(fleet: &str, pack: &Pack, environment: &[(String, String)], sources: &BTreeMap<String, Vec<u8>>) -> Digest {
    let count = |framed: Framed, count: usize| framed.field(&(count as u64).to_le_bytes());
    let words = &runtime(pack).build;
    let start = Framed::new("pack bundle").field(fleet.as_bytes()).field(pack.path.as_bytes());
    let start = start.field(std::env::consts::OS.as_bytes()).field(std::env::consts::ARCH.as_bytes());
    let start = words.iter().fold(count(start, words.len()), |framed, word| framed.field(word.as_bytes()));
    let start = environment.iter().fold(count(start, environment.len()), |framed, (name, value)| {
        framed.field(name.as_bytes()).field(value.as_bytes())
    });
    let all = sources.iter().fold(start, |framed, (path, bytes)| framed.field(path.as_bytes()).field(bytes));
    all.finish()
}

/// Returns the variables that the pack's build may read, with their values: those of `buildEnv` that are set.
fn environment(pack: &Pack) -> Vec<(String, String)> {
    let names: BTreeSet<&String> = runtime(pack).build_env.iter().flatten().collect();
    names.into_iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect()
}

/// Returns the files that decide the runtime, by path within the pack.
fn sources(pack: &Pack) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let (found, errors) = pack::sources(&pack.folder, &pack.path, &runtime(pack).sources);
    if let Some(error) = errors.into_iter().next() {
        return Err(error.into());
    }
    let mut files = BTreeMap::new();
    let mut left = pack::MOST_SOURCE_BYTES;
    for (path, target) in found {
        let bytes = plain_file::read_through_links(&target, left)
            .map_err(|error| Error::from(pack::unreadable_source(&pack.path, &path, &error)))?;
        left -= bytes.len() as u64;
        files.insert(path, with_unix_line_ends(bytes));
    }
    Ok(files)
}

fn bundle(
    pack: &Pack,
    sources: &BTreeMap<String, Vec<u8>>,
    environment: Vec<(String, String)>,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let (package, lock) = (&sources["package.json"], &sources["package-lock.json"]);
    let npm = cache::npm(&pack.path, package, lock, progress)?;
    progress.begin(&format!("bundling the pack {}", pack.path), None);
    // Within the folder that holds node_modules, so that the sources find their packages there and nowhere else.
    let staging = cache::staging(&npm).context("the cache can't be written")?;
    let result = (|| {
        for (path, bytes) in sources {
            let file = staging.join(path);
            fs::create_dir_all(file.parent().expect("BUG: a file has a folder"))
                .context("the cache can't be written")?;
            fs::write(file, bytes).context("the cache can't be written")?;
        }
        run(pack, environment, &staging)?;
        for file in ["runtime.js", "runtime.d.ts"] {
            let written = staging.join("dist").join(file);
            let text = plain_file::read_through_links(&written, LARGEST_BUNDLE)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8")));
            let text = text.map_err(|error| {
                failed(
                    pack,
                    Place::file(&format!("{}/pack.yaml", pack.path)),
                    format!("the command wrote no {file}: {error}"),
                    "",
                )
            })?;
            if file == "runtime.js"
                && let Err((message, _)) = syntax::check(file, &text)
            {
                let place = Place::file(&format!("{}/pack.yaml", pack.path));
                return Err(failed(pack, place, format!("the pack's bundle can't be parsed: {message}"), ""));
            }
            fs::write(folder.join(file), text).context("the cache can't be written")?;
        }
        Ok(())
    })();
    let _ = fs::remove_dir_all(&staging);
    result
}

fn run(pack: &Pack, environment: Vec<(String, String)>, staging: &Path) -> Result<(), Error> {
    let settings = runtime(pack);
    let (program, arguments) = settings.build.split_first().expect("BUG: the schema wants a command");
    let arguments = arguments.iter().map(String::as_str).chain(["--out", "dist"]);
    let time = settings.build_timeout.map_or(TIME, Duration::from_secs);
    let memory = settings.build_memory.unwrap_or(MEMORY_MIB) << 20;
    let job = Job::new(program, arguments, staging).time(time).memory(memory);
    let output = job.environment(Environment::plain().with(environment)).run().map_err(|trouble| {
        let limit = match &trouble {
            Trouble::TimedOut(_) => "buildTimeout",
            Trouble::TooMuchMemory(_) => "buildMemory",
            _ => {
                let what = format!("`{program}`, which bundles the pack {}, {trouble}", pack.path);
                let failure = Failure::new(what);
                let is_node = program == "node";
                return Error::Failure(if is_node { failure.hint("install Node.js 22.12 or newer") } else { failure });
            }
        };
        let place = Place::file(&format!("{}/pack.yaml", pack.path));
        let help = format!(
            "`{}` was stopped, with all processes that it started; `{limit}` in {}/pack.yaml sets a larger limit",
            settings.build.join(" "),
            pack.path
        );
        failed(pack, place, format!("the command that bundles the pack {trouble}"), &help)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).take(12).collect();
    let place = lines
        .iter()
        .find_map(|line| position(&pack.path, line))
        .unwrap_or_else(|| Place::file(&format!("{}/pack.yaml", pack.path)));
    let what = lines
        .first()
        .map_or("it printed no error", |line| line.trim_start_matches(['✘', ' ']).trim_start_matches("[ERROR] "));
    let killed = output.status.signal().map(|signal| format!("the build command was ended by signal {signal}: "));
    let said: Vec<String> = lines.iter().map(|line| with_place(&pack.path, line)).collect();
    let help = format!("`{}` printed:\n{}", settings.build.join(" "), said.join("\n"));
    Err(failed(pack, place, format!("the pack's code can't be bundled: {}{what}", killed.unwrap_or_default()), &help))
}

fn failed(pack: &Pack, place: Place, message: String, help: &str) -> Error {
    let help = if help.is_empty() {
        format!("`{} --out DIR` has to write DIR/runtime.js and DIR/runtime.d.ts", runtime(pack).build.join(" "))
    } else {
        help.to_owned()
    };
    Diagnostic::error(Code::RuntimeFailed, place, message, help).into()
}

/// Returns a line of esbuild with its place as flotilla prints it: the path in the project, and the column counted from 1.
fn with_place(pack: &str, line: &str) -> String {
    let Some(place) = position(pack, line) else { return line.to_owned() };
    let indent = &line[..line.len() - line.trim_start().len()];
    let rest = line.splitn(4, ':').nth(3).unwrap_or_default();
    format!("{indent}{place}:{rest}")
}

/// Returns a place as esbuild prints it: `src/index.ts:3:7:`, its columns counted from 0.
fn position(pack: &str, line: &str) -> Option<Place> {
    let line = line.trim_start();
    let mut parts = line.splitn(4, ':');
    let (file, row, column) = (parts.next()?, parts.next()?, parts.next()?);
    if file.contains(' ') || !file.contains('.') {
        return None;
    }
    Some(Place {
        file: format!("{pack}/{file}"),
        line: row.parse().ok()?,
        column: column.parse::<usize>().ok()? + 1,
        width: 1,
    })
}
