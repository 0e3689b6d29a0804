//! Renders workers in helper processes, so that a template can't exhaust the program's memory or stack, or block it. A helper is flotilla
//! itself under a hidden first argument; it has a limit of memory, of time for each worker and of output, and ends when its stdin closes.
//! In a program that isn't flotilla's binary, such as a test, templates are rendered in the program itself, without these limits.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::render::{self, RenderContext, Templates};
use flotilla_model::assets::{AssetDigests, AssetList, PackAssets};
use flotilla_model::bundle::{self, Bundle, PackBundle};
use flotilla_model::child;
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::Digest;
use flotilla_model::modules::{ModuleKind, Modules};
use flotilla_spec::pack::Pack;

/// The first argument with which flotilla is a helper that renders.
const RENDER: &str = "__render";
/// The memory of a helper, in MiB. A worker's files are a few KiB.
const MEMORY_MIB: u64 = 512;
/// The processor's time that the files of one worker may take. They take less than a millisecond; on a busy machine, a process can have to
/// wait for seconds until it runs.
const TIME: Duration = Duration::from_secs(5);
/// The exit code of a helper that took longer, or needed more.
const STOPPED: u8 = 124;
/// The stack of the thread that renders.
const STACK: usize = 16 << 20;
/// The number of times that a pack's templates may end a helper before the rest of its workers isn't tried.
const CRASHES: usize = 3;

/// The part of a worker that is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All files.
    Files,
    /// The module alone.
    Module,
}

/// A worker that is to be rendered.
pub struct Request<'a> {
    /// The worker.
    pub worker: &'a Worker,
    /// Its pack's bundle.
    pub bundle: &'a PackBundle,
    /// The part of it that is rendered.
    pub part: Part,
}

/// The files of a worker.
pub struct Rendered {
    /// The names and texts of its files; the module is the first.
    pub files: Vec<(String, String)>,
    /// Its bundle.
    pub bundle: Bundle,
    /// The partials that were read, a bit for each.
    pub partials: u64,
}

/// The names and texts of files.
type Texts = Vec<(String, String)>;

/// The result for one worker.
pub type Outcome = Result<Rendered, Box<Diagnostic>>;

/// The templates of a project's packs, and the processes that render them.
pub struct Renderer {
    packs: BTreeMap<String, PackTemplates>,
    /// The first thing that a helper is sent.
    setup: Vec<u8>,
    idle: Mutex<Vec<Helper>>,
    crashes: Mutex<HashMap<String, usize>>,
}

struct PackTemplates {
    path: String,
    names: Vec<String>,
    templates: Templates,
}

/// The templates of a pack, as a helper is sent them.
#[derive(Serialize, Deserialize)]
struct PackSetup {
    name: String,
    path: String,
    templates: Vec<(String, String)>,
    partials: Vec<(String, String)>,
}

impl Renderer {
    /// Returns a renderer of packs whose templates were parsed.
    pub fn new<'a>(packs: impl IntoIterator<Item = (String, &'a Pack, Templates)>) -> Renderer {
        let (mut parsed, mut setup) = (BTreeMap::new(), Vec::new());
        for (name, pack, templates) in packs {
            setup.push(PackSetup {
                name: name.clone(),
                path: pack.path.clone(),
                templates: pack.templates.clone(),
                partials: pack.partials.clone(),
            });
            let names = pack.file_names().map(str::to_owned).collect();
            parsed.insert(name, PackTemplates { path: pack.path.clone(), names, templates });
        }
        Renderer {
            packs: parsed,
            setup: postcard::to_stdvec(&setup).expect("BUG: texts can be written"),
            idle: Mutex::default(),
            crashes: Mutex::default(),
        }
    }

    /// Renders one worker.
    pub fn render(&self, worker: &Worker, bundle: &PackBundle, part: Part) -> Outcome {
        let mut outcome = None;
        self.render_all(&[Request { worker, bundle, part }], |_, found, _| outcome = Some(found));
        outcome.expect("BUG: each request has an outcome")
    }

    /// Returns the partials that a worker's templates include, a bit for each: found by rendering it. What goes wrong is the build's to
    /// report.
    pub fn partials(&self, worker: &Worker, bundle: &PackBundle) -> u64 {
        let mut partials = 0;
        self.render_all(&[Request { worker, bundle, part: Part::Files }], |_, _, found| partials = found);
        partials
    }

    /// Renders workers, and passes on the index of each, its files, and the partials that were read even if it failed; in order, each as
    /// soon as it is there.
    pub fn render_all(&self, requests: &[Request<'_>], mut receive: impl FnMut(usize, Outcome, u64)) {
        let Some(program) = child::helper_program() else {
            for (index, request) in requests.iter().enumerate() {
                let (outcome, partials) = self.packs[&request.worker.pack].render(request, |_| ());
                receive(index, outcome, partials);
            }
            return;
        };
        let mut next = 0;
        // After a crash one by one, so that it is known who caused it, and in which template.
        let mut is_careful = false;
        while let Some(request) = requests.get(next) {
            if self.crashes.lock().get(&request.worker.pack).is_some_and(|crashes| *crashes >= CRASHES) {
                receive(next, Err(Box::new(self.not_tried(request))), 0);
                next += 1;
                continue;
            }
            let batch = if is_careful { &requests[next..=next] } else { &requests[next..] };
            let start = next;
            let idle = if is_careful { None } else { self.idle.lock().pop() };
            let ended = match idle.map_or_else(|| Helper::start(program, &self.setup), Ok) {
                Ok(mut helper) => {
                    let asked = helper.ask(batch, is_careful, |partials, found| {
                        let request = &requests[next];
                        receive(next, found.map(|found| found.with_bundle(request, partials)), partials);
                        next += 1;
                    });
                    if asked.is_ok() && !is_careful {
                        self.idle.lock().push(helper);
                        continue;
                    }
                    helper.end()
                }
                Err(error) => format!("the process that renders can't be started: {error}"),
            };
            if is_careful && next == start {
                *self.crashes.lock().entry(request.worker.pack.clone()).or_default() += 1;
                receive(next, Err(Box::new(self.crashed(request, &ended))), 0);
                next += 1;
            }
            is_careful = true;
        }
    }

    fn not_tried(&self, request: &Request<'_>) -> Diagnostic {
        let pack = &self.packs[&request.worker.pack];
        let place = Place::file(&format!("{}/{}.tera", pack.path, pack.names[0]));
        let message =
            format!("the pack's other workers are not rendered: its templates had to be stopped {CRASHES} times");
        Diagnostic::error(Code::RenderFailed, place, message, "fix the other errors first")
    }

    /// Returns the error of a worker whose rendering ended its process. `ended` is what the process left.
    fn crashed(&self, request: &Request<'_>, ended: &str) -> Diagnostic {
        let (pack, worker) = (&self.packs[&request.worker.pack], request.worker);
        let current = ended.lines().rev().find_map(|line| line.strip_prefix(CURRENT)).unwrap_or(&pack.names[0]);
        let place = Place::file(&format!("{}/{current}.tera", pack.path));
        let message = if ended.contains(TOO_MUCH) {
            format!("rendering it needs more than {MEMORY_MIB} MiB of memory")
        } else if ended.contains("overflowed its stack") {
            "rendering it overflows the stack: its values or its output are nested too deeply".to_owned()
        } else if ended.contains(TOO_LONG) {
            format!("rendering it takes more than {} s", TIME.as_secs())
        } else {
            format!("rendering it ended the process: {}", ended.lines().last().unwrap_or_default())
        };
        let help = format!(
            "it failed for {}, in {}; look for values that grow in a loop, and for templates that include themselves",
            worker.file, worker.environment
        );
        Diagnostic::error(Code::RenderFailed, place, message, help)
    }
}

/// The beginning of the line by which a helper reports which template it renders, where that is asked.
const CURRENT: &str = "renders ";
/// The report of a helper that needs too much memory: the words of Rust's runtime when there is none left.
const TOO_MUCH: &str = "memory allocation";
/// The line by which it reports that it took too long.
const TOO_LONG: &str = "took too long";

impl PackTemplates {
    /// Renders a worker here, and returns the partials that were read as well. `begin` is called with the name of each file before it is
    /// rendered.
    fn render(&self, request: &Request<'_>, begin: impl Fn(&str)) -> (Outcome, u64) {
        render::partials_read();
        let rendered = self.files(request, begin);
        let partials = render::partials_read();
        (rendered.map(|(files, bundle)| Rendered { files, bundle, partials }), partials)
    }

    fn files(&self, request: &Request<'_>, begin: impl Fn(&str)) -> Result<(Texts, Bundle), Box<Diagnostic>> {
        let Request { worker, bundle: pack_bundle, part } = request;
        let mut context = RenderContext::new(worker, pack_bundle);
        let (mut files, mut more, mut bundle) = (Vec::new(), self.names.as_slice(), None);
        if pack_bundle.modules.is_none() {
            let (name, others) = self.names.split_first().expect("BUG: a pack has a module");
            begin(name);
            let module = self.templates.render_context(name, &mut context, None)?;
            more = others;
            bundle = Some(bundle::bundle(worker, &module, pack_bundle));
            files.push((name.clone(), module));
        }
        // What wrangler bundled has no module of the worker's own.
        let bundle = bundle.unwrap_or_else(|| bundle::bundle(worker, "", pack_bundle));
        if *part == Part::Files {
            for name in more {
                begin(name);
                files.push((name.clone(), self.templates.render_context(name, &mut context, Some(&bundle.digest))?));
            }
        }
        Ok((files, bundle))
    }
}

/// A request, as a helper is sent it.
#[derive(Serialize, Deserialize)]
struct Asked<'a> {
    part: Part,
    /// Whether the helper reports each template that it begins.
    is_reported: bool,
    /// The pack's bundle, as far as it decides anything.
    file: &'a str,
    digest: [u8; 32],
    /// The names and kinds of its modules, if wrangler bundled it.
    modules: Option<(String, Vec<(String, ModuleKind)>)>,
    /// The digests of the pack's static assets, if it has any.
    assets: Option<([u8; 32], [u8; 32])>,
    /// The worker as JSON.
    worker: &'a [u8],
}

/// An answer of a helper.
#[derive(Serialize, Deserialize)]
struct Answer {
    partials: u64,
    outcome: Result<Files, Error>,
}

#[derive(Serialize, Deserialize)]
struct Files {
    files: Vec<(String, String)>,
    digest: [u8; 32],
    module: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Error {
    code: Code,
    place: (String, usize, usize, usize),
    message: String,
    help: String,
}

impl Files {
    fn with_bundle(self, request: &Request<'_>, partials: u64) -> Rendered {
        let (digest, module) = (Digest::from_bytes(self.digest), Digest::from_bytes(self.module));
        let bundle = bundle::remembered(request.worker, digest, module, request.bundle);
        Rendered { files: self.files, bundle, partials }
    }
}

impl Error {
    fn diagnostic(self) -> Diagnostic {
        let (file, line, column, width) = self.place;
        Diagnostic::error(self.code, Place { file, line, column, width }, self.message, self.help)
    }
}

/// A process that renders.
struct Helper {
    child: Child,
    stdin: BufWriter<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Helper {
    fn start(program: &std::path::Path, setup: &[u8]) -> io::Result<Helper> {
        let mut child = Command::new(program)
            .arg(RENDER)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pipe = "BUG: it was asked for";
        let mut helper = Helper {
            stdin: BufWriter::with_capacity(1 << 16, child.stdin.take().expect(pipe)),
            stdout: BufReader::with_capacity(1 << 16, child.stdout.take().expect(pipe)),
            stderr: child.stderr.take().expect(pipe),
            child,
        };
        // Whether it has already died is detected by the next request.
        let _ = write_frame(&mut helper.stdin, setup);
        Ok(helper)
    }

    /// Sends requests and passes on the answers. With `is_reported`, it reports each template that it begins.
    fn ask(
        &mut self,
        requests: &[Request<'_>],
        is_reported: bool,
        mut receive: impl FnMut(u64, Result<Files, Box<Diagnostic>>),
    ) -> io::Result<()> {
        for Request { worker, bundle, part } in requests {
            let json = serde_json::to_vec(worker).expect("BUG: a worker is JSON");
            let digest = bundle.digest.to_bytes();
            let modules = bundle.modules.as_ref().map(|modules| modules.outline());
            let digests = bundle.assets.as_ref().map(|assets| assets.digests);
            let assets = digests.map(|digests| (digests.files.to_bytes(), digests.list.to_bytes()));
            let asked = Asked { part: *part, is_reported, file: &bundle.file, digest, modules, assets, worker: &json };
            write_frame(&mut self.stdin, &postcard::to_stdvec(&asked).map_err(io::Error::other)?)?;
        }
        // An empty frame: the answers so far are wanted now.
        write_frame(&mut self.stdin, &[])?;
        self.stdin.flush()?;
        for _ in requests {
            let frame = read_frame(&mut self.stdout)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let answer: Answer = postcard::from_bytes(&frame).map_err(io::Error::other)?;
            receive(answer.partials, answer.outcome.map_err(|error| Box::new(error.diagnostic())));
        }
        Ok(())
    }

    /// Ends it; returns what it wrote to stderr, and how it ended.
    fn end(self) -> String {
        let Helper { mut child, stdin, stdout, stderr } = self;
        drop((stdin, stdout));
        let mut text = Vec::new();
        let _ = stderr.take(1 << 16).read_to_end(&mut text);
        let status = child.wait().map(|status| status.to_string()).unwrap_or_default();
        format!("{status}\n{}", String::from_utf8_lossy(&text))
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        // They end by themselves; this reaps them.
        for helper in self.idle.get_mut().drain(..) {
            let _ = helper.end();
        }
    }
}

fn write_frame(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads a frame; nothing at the end.
fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// Runs as a helper if the arguments request it, and doesn't return to the command line then.
pub fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    (arguments.get(1)? == RENDER).then(|| serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// The processor's time at which the current worker was begun, in milliseconds and one more; 0: none.
static BEGAN: AtomicU64 = AtomicU64::new(0);

fn serve() -> io::Result<()> {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    let _ = setrlimit(Resource::Core, limit(0));
    // An upper bound: memory that the allocator has reserved but doesn't use counts, too.
    let reserved = own_memory("VmData").unwrap_or(0);
    let _ = setrlimit(Resource::Data, limit(reserved + ((2 * MEMORY_MIB) << 20)));
    let (sender, frames) = mpsc::channel::<Vec<u8>>();
    std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let result = std::panic::catch_unwind(move || {
            answer_all(&frames).inspect_err(|error| drop(writeln!(io::stderr(), "{error}")))
        });
        // The pipe is closed because the parent process has ended, or the template engine has panicked.
        std::process::exit(i32::from(!matches!(result, Ok(Ok(())))));
    })?;
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let began = BEGAN.load(Ordering::Relaxed);
            if began != 0 && u128::from(processor_time().saturating_sub(began)) > TIME.as_millis() {
                let _ = writeln!(io::stderr(), "{TOO_LONG}");
                std::process::exit(i32::from(STOPPED));
            }
            if began != 0 && own_memory("VmRSS").is_some_and(|bytes| bytes > MEMORY_MIB << 20) {
                let _ = writeln!(io::stderr(), "{TOO_MUCH}");
                std::process::exit(i32::from(STOPPED));
            }
        }
    });
    let mut stdin = io::stdin().lock();
    while let Some(frame) = read_frame(&mut stdin)? {
        if sender.send(frame).is_err() {
            break;
        }
    }
    // What is still being rendered is not needed any more.
    std::process::exit(0)
}

/// Returns the processor's time that this process has used, in milliseconds and one more.
fn processor_time() -> u64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec.unsigned_abs() * 1000 + used.tv_nsec.unsigned_abs() / 1_000_000 + 1
}

/// Returns an entry of this process's status in bytes, where the system has it.
fn own_memory(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn answer_all(frames: &mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let Ok(setup) = frames.recv() else { return Ok(()) };
    let setup: Vec<PackSetup> = postcard::from_bytes(&setup).map_err(io::Error::other)?;
    let mut packs = HashMap::new();
    for PackSetup { name, path, templates, partials } in setup {
        let names = templates.iter().map(|(name, _)| name.clone()).collect();
        let parsed = Templates::parse(&path, &templates, &partials);
        let templates = parsed.map_err(|_| io::Error::other("the templates can't be parsed"))?;
        packs.insert(name, PackTemplates { path, names, templates });
    }
    let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    while let Ok(frame) = frames.recv() {
        if frame.is_empty() {
            stdout.flush()?;
            continue;
        }
        let asked: Asked<'_> = postcard::from_bytes(&frame).map_err(io::Error::other)?;
        let worker: Worker = serde_json::from_slice(asked.worker).map_err(io::Error::other)?;
        let pack = packs.get(&worker.pack).ok_or_else(|| io::Error::other("an unknown pack"))?;
        let bundle = PackBundle {
            digest: Digest::from_bytes(asked.digest),
            file: asked.file.to_owned(),
            script: Vec::new().into(),
            types: Vec::new().into(),
            modules: asked.modules.map(|outline| Modules::of_outline(outline).into()),
            sources: Arc::new([]),
            assets: asked.assets.map(|(files, list)| {
                let digests = AssetDigests { files: Digest::from_bytes(files), list: Digest::from_bytes(list) };
                PackAssets { folder: None, list: AssetList::default().into(), digests }.into()
            }),
            asset_files: Arc::new([]),
        };
        let request = Request { worker: &worker, bundle: &bundle, part: asked.part };
        BEGAN.store(processor_time(), Ordering::Relaxed);
        let (outcome, partials) = pack.render(&request, |name| {
            if asked.is_reported {
                let _ = writeln!(io::stderr(), "{CURRENT}{name}");
            }
        });
        BEGAN.store(0, Ordering::Relaxed);
        let outcome = outcome.map_err(|found| Error {
            code: found.code,
            place: (found.place.file, found.place.line, found.place.column, found.place.width),
            message: found.message,
            help: found.help,
        });
        let outcome = outcome.map(|found| Files {
            files: found.files,
            digest: found.bundle.digest.to_bytes(),
            module: found.bundle.module.to_bytes(),
        });
        let answer = postcard::to_stdvec(&Answer { partials, outcome }).map_err(io::Error::other)?;
        write_frame(&mut stdout, &answer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_processor_counts_for_nothing() {
        // Other tests of this process use it in the meantime, but not forever.
        let is_still = || {
            let before = processor_time();
            std::thread::sleep(Duration::from_millis(50));
            processor_time() - before < 25
        };
        assert!((0..600).any(|_| is_still()), "it goes on while nothing runs");
    }
}
