//! Runs other programs so that none outlives the run: with limits of time, memory and output, and with the variables that it may have.
//!
//! Between flotilla and the program is a supervisor, which is flotilla itself under a hidden first argument. It holds one end of a pipe
//! whose other end only flotilla has: when that closes, however flotilla ended, the supervisor ends the program with all of its
//! descendants. The program ends if the supervisor is killed. On Linux, descendants are found even if they left their process group;
//! elsewhere, and where /proc belongs to another PID namespace, the process group is ended. In a process that isn't flotilla's binary, such
//! as a test, there is no supervisor, and only the process group's end is certain, once the run is over.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// The first argument with which flotilla is a supervisor.
const SUPERVISE: &str = "__supervise";
/// The first argument with which flotilla becomes the supervised program.
const EXECUTE: &str = "__execute";
/// The exit code of a supervisor that ended a program because of its memory.
const TOO_MUCH_MEMORY: u8 = 125;
/// The time between two looks at the memory of a process tree.
const LOOK: Duration = Duration::from_millis(200);
/// The bytes of stderr that are kept: the first ones say why a program failed.
const COMPLAINT: u64 = 16 << 10;
/// The variables that every child gets.
const PLAIN: [&str; 4] = ["HOME", "LANG", "PATH", "TMPDIR"];

static HELPER: OnceLock<PathBuf> = OnceLock::new();

/// Declares that the running program is flotilla's binary, which can be its own helper: [`helper`] is the first thing that it calls.
pub fn is_binary() {
    // The file that runs, even if another version has been installed in its place since.
    let own = Path::new("/proc/self/exe");
    let path = if own.exists() { Some(own.to_owned()) } else { std::env::current_exe().ok() };
    if let Some(path) = path {
        let _ = HELPER.set(path);
    }
}

/// Returns the program that is started as a helper, in flotilla's binary.
pub fn helper_program() -> Option<&'static Path> {
    HELPER.get().map(PathBuf::as_path)
}

/// Runs as a supervisor or a supervised program if the arguments request it, and doesn't return to the command line then.
pub fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments.get(1)?.to_str()? {
        SUPERVISE => Some(supervise(&arguments[2..])),
        EXECUTE => Some(execute(&arguments[2..])),
        _ => None,
    }
}

/// Returns the path of a program that is looked up in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    Job::new(name, [""; 0], Path::new("/")).find()
}

/// The variables of a child.
#[derive(Clone, Debug)]
pub enum Environment {
    /// The variables of this process.
    Inherited,
    /// Only these.
    Only(Vec<(OsString, OsString)>),
}

impl Environment {
    /// Returns PATH, HOME, TMPDIR and LANG, as far as they are set.
    pub fn plain() -> Environment {
        Environment::Only(Vec::new()).and(|name| PLAIN.contains(&name))
    }

    /// Adds this process's variables whose names satisfy a condition.
    #[must_use]
    pub fn and(self, includes: impl Fn(&str) -> bool) -> Environment {
        match self {
            Environment::Inherited => Environment::Inherited,
            Environment::Only(mut variables) => {
                variables.extend(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(&includes)));
                Environment::Only(variables)
            }
        }
    }

    /// Adds variables with their values.
    #[must_use]
    pub fn with(self, more: impl IntoIterator<Item = (String, String)>) -> Environment {
        match self {
            Environment::Inherited => Environment::Inherited,
            Environment::Only(mut variables) => {
                variables.extend(more.into_iter().map(|(name, value)| (name.into(), value.into())));
                Environment::Only(variables)
            }
        }
    }

    fn get(&self, name: &str) -> Option<OsString> {
        match self {
            Environment::Inherited => std::env::var_os(name),
            Environment::Only(variables) => {
                variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
            }
        }
    }
}

/// A program that is to be run to its end.
#[derive(Clone, Debug)]
pub struct Job {
    program: OsString,
    arguments: Vec<OsString>,
    folder: PathBuf,
    environment: Environment,
    time: Duration,
    memory: Option<u64>,
    output: Option<u64>,
    is_interactive: bool,
}

/// The end of a program.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// Its stdout, if that is read.
    pub stdout: Vec<u8>,
    /// The beginning of its stderr.
    pub stderr: Vec<u8>,
}

/// The reason why a program didn't end by itself.
#[derive(Debug)]
pub enum Trouble {
    /// There is no such program.
    NotFound,
    /// It can't be started.
    NotStarted(io::Error),
    /// It took too long.
    TimedOut(Duration),
    /// It and its children needed more memory than this, in bytes.
    TooMuchMemory(u64),
    /// It wrote more than this to stdout, in bytes.
    TooMuchOutput(u64),
}

impl fmt::Display for Trouble {
    /// Writes what a program did, without its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NotFound => f.write_str("can't be started: no such program"),
            Trouble::NotStarted(error) => write!(f, "can't be started: {error}"),
            Trouble::TimedOut(time) => write!(f, "took more than {} s", time.as_secs()),
            Trouble::TooMuchMemory(limit) => write!(f, "needed more than {} MiB of memory", limit >> 20),
            Trouble::TooMuchOutput(limit) => write!(f, "wrote more than {limit} bytes"),
        }
    }
}

impl Job {
    /// Returns a job: a program, looked up in PATH unless it is a path, with its arguments, in a folder. Its stdin is empty, its stdout
    /// isn't read, it gets this process's variables, and it may take ten minutes.
    pub fn new<A: Into<OsString>>(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Job {
        Job {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            folder: folder.to_owned(),
            environment: Environment::Inherited,
            time: Duration::from_secs(600),
            memory: None,
            output: None,
            is_interactive: false,
        }
    }

    /// Sets its variables.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Job {
        self.environment = environment;
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Job {
        self.time = time;
        self
    }

    /// Sets how many bytes of memory it may have, together with its descendants. Only Linux knows.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Job {
        self.memory = Some(bytes);
        self
    }

    /// Reads its stdout, up to this number of bytes.
    #[must_use]
    pub fn output(mut self, bytes: u64) -> Job {
        self.output = Some(bytes);
        self
    }

    /// Leaves it in the foreground, so that it can ask questions on the terminal, and leaves alone what it starts as a service.
    #[must_use]
    pub fn interactive(mut self) -> Job {
        self.is_interactive = true;
        self
    }

    /// Runs it to its end. When this returns, it and its descendants are gone, those of an interactive one aside that left its session.
    pub fn run(&self) -> Result<Ended, Trouble> {
        let deadline = Instant::now() + self.time;
        let program = self.find().ok_or(Trouble::NotFound)?;
        let mut command = self.command(&program);
        command.current_dir(&self.folder).stderr(Stdio::piped());
        command.stdout(if self.output.is_some() { Stdio::piped() } else { Stdio::null() });
        if let Environment::Only(variables) = &self.environment {
            command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::NotFound,
            _ => Trouble::NotStarted(error),
        })?;
        let leash = child.stdin.take();
        let ended = self.wait(&mut child, deadline);
        if ended.is_err() || leash.is_none() {
            // The supervisor ends everything when its stdin closes.
            let is_supervised = leash.is_some();
            drop(leash);
            end(&mut child, is_supervised);
        }
        let ended = ended?;
        match self.memory {
            Some(limit) if ended.status.code() == Some(i32::from(TOO_MUCH_MEMORY)) => {
                Err(Trouble::TooMuchMemory(limit))
            }
            _ => Ok(ended),
        }
    }

    /// Returns the path of the program.
    fn find(&self) -> Option<PathBuf> {
        let program = Path::new(&self.program);
        if program.components().count() > 1 || program.is_absolute() {
            let path = self.folder.join(program);
            return path.is_file().then_some(path);
        }
        let path = self.environment.get("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        std::env::split_paths(&path).map(|folder| self.folder.join(folder).join(program)).find(|path| is_program(path))
    }

    /// Returns the command that is started: the supervisor's, or the program's own where there is none.
    fn command(&self, program: &Path) -> Command {
        let Some(helper) = HELPER.get() else {
            let mut command = Command::new(program);
            command.args(&self.arguments).stdin(Stdio::null()).process_group(0);
            return command;
        };
        let group = if self.is_interactive { Numbers::own().group.map_or(Group::Same, Group::Of) } else { Group::Own };
        let mut command = Command::new(helper);
        command.stdin(Stdio::piped());
        if group != Group::Same {
            // In a group of its own: a key that ends flotilla on the terminal must not end the supervisor, which cleans up.
            command.process_group(0);
        }
        command.arg(SUPERVISE).arg(group.argument()).arg(self.memory.unwrap_or(0).to_string());
        command.arg(program).args(&self.arguments);
        command
    }

    fn wait(&self, child: &mut Child, deadline: Instant) -> Result<Ended, Trouble> {
        // Each in a thread that may outlive the program: a child of its own can hold the pipes open.
        let printed = child.stdout.take().map(|pipe| reader(pipe, self.output.unwrap_or(0)));
        let complained = child.stderr.take().map(|pipe| reader(pipe, COMPLAINT));
        let left = || deadline.saturating_duration_since(Instant::now());
        let timed_out = || Trouble::TimedOut(self.time);
        let mut stdout = Vec::new();
        if let (Some(printed), Some(limit)) = (printed, self.output) {
            stdout = printed.recv_timeout(left()).map_err(|_| timed_out())?;
            if stdout.len() as u64 > limit {
                return Err(Trouble::TooMuchOutput(limit));
            }
        }
        // It has closed its output: it has usually ended.
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if left().is_zero() => return Err(timed_out()),
                Ok(None) => std::thread::sleep(pause.min(left())),
                Err(error) => return Err(Trouble::NotStarted(error)),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let wait = left().min(Duration::from_secs(1));
        let mut stderr = complained.and_then(|pipe| pipe.recv_timeout(wait).ok()).unwrap_or_default();
        stderr.truncate(COMPLAINT as usize);
        Ok(Ended { status, stdout, stderr })
    }
}

fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

fn reader(pipe: impl Read + Send + 'static, most: u64) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut bytes, mut pipe) = (Vec::new(), pipe);
        let _ = pipe.by_ref().take(most + 1).read_to_end(&mut bytes);
        let is_whole = bytes.len() as u64 <= most;
        let _ = sender.send(bytes);
        // So that the program doesn't wait for somebody to read the rest.
        if !is_whole {
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
    });
    receiver
}

/// Ends a child with everything that it started, and waits for it.
fn end(child: &mut Child, is_supervised: bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while is_supervised && Instant::now() < until {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            _ => return,
        }
    }
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The process group of a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// One that it leads.
    Own,
    /// This one.
    Of(i32),
    /// The group of the process that starts it, whose number isn't known.
    Same,
}

impl Group {
    fn argument(self) -> String {
        match self {
            Group::Own => "own".to_owned(),
            Group::Of(number) => number.to_string(),
            Group::Same => "same".to_owned(),
        }
    }

    fn parse(argument: &str) -> Option<Group> {
        match argument {
            "own" => Some(Group::Own),
            "same" => Some(Group::Same),
            number => number.parse().ok().map(Group::Of),
        }
    }
}

/// The numbers of this process's group and session, where they have one. In a container that was entered from outside (`docker exec`,
/// `nsenter`), the leaders of both can be outside, and the kernel says 0: see pid_namespaces(7).
#[derive(Clone, Copy)]
struct Numbers {
    group: Option<i32>,
    session: u32,
}

impl Numbers {
    #[cfg(target_os = "linux")]
    fn own() -> Numbers {
        // Not by getpgrp(2) and getsid(2): rustix takes a 0 of theirs for impossible.
        let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = Fields::of(&text);
        let number = |index: usize| if lists_this_namespace() { fields.number(index) } else { 0 };
        let group = i32::try_from(number(Fields::GROUP)).ok().filter(|group| *group > 0);
        Numbers { group, session: number(Fields::SESSION) as u32 }
    }

    #[cfg(not(target_os = "linux"))]
    fn own() -> Numbers {
        let session = rustix::process::getsid(None).map_or(0, |session| session.as_raw_nonzero().get().unsigned_abs());
        Numbers { group: Some(rustix::process::getpgrp().as_raw_nonzero().get()), session }
    }
}

/// Returns whether /proc numbers processes as this process does. One that was mounted outside its PID namespace doesn't, and relying on it
/// would end other processes.
fn lists_this_namespace() -> bool {
    let own = fs::read_link("/proc/self");
    own.is_ok_and(|own| own.to_str().and_then(|own| own.parse().ok()) == Some(std::process::id()))
}

/// The fields of `/proc/<pid>/stat` after the program's name: see proc_pid_stat(5).
struct Fields<'a>(Vec<&'a str>);

impl<'a> Fields<'a> {
    const PARENT: usize = 1;
    const GROUP: usize = 2;
    const SESSION: usize = 3;
    const RESIDENT_PAGES: usize = 21;

    fn of(text: &'a str) -> Fields<'a> {
        // The name of the program, which can hold anything, ends with the last parenthesis.
        Fields(text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect())
    }

    fn number(&self, index: usize) -> u64 {
        self.0.get(index).and_then(|field| field.parse().ok()).unwrap_or(0)
    }

    /// Returns whether the program has ended. Of one that ends, one thread may be gone and others not yet: then it still has its children.
    fn has_ended(&self) -> bool {
        self.0.first().is_none_or(|state| ["Z", "X"].contains(state))
    }
}

/// Starts a program and ends it when stdin closes. Its arguments: the process group of the program, the limit of memory in bytes (0:
/// none), the program with its arguments.
fn supervise(arguments: &[OsString]) -> ExitCode {
    let text = |index: usize| arguments.get(index)?.to_str();
    let (Some(group), Some(memory), Some(program)) =
        (text(0).and_then(Group::parse), text(1).and_then(|text| text.parse::<u64>().ok()), arguments.get(2..))
    else {
        return ExitCode::from(2);
    };
    let own = rustix::process::getpid();
    // What loses its parent becomes a child of this process, and can be found.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(own));
    let Some(helper) = HELPER.get() else { return ExitCode::from(2) };
    let mut command = Command::new(helper);
    command.arg(EXECUTE).arg(own.as_raw_nonzero().to_string()).args(program).stdin(Stdio::null());
    match group {
        Group::Own => drop(command.process_group(0)),
        Group::Of(number) => drop(command.process_group(number)),
        Group::Same => {}
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return not_started(&error),
    };
    let pid = child.id();
    // The exit code of a program that was stopped; its parent checks for it.
    static STOPPED: AtomicU8 = AtomicU8::new(0);
    let stop = move |code: u8| -> ! {
        STOPPED.store(code, Ordering::SeqCst);
        end_all(pid, |_| true);
        std::process::exit(i32::from(code));
    };
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        stop(1)
    });
    if memory > 0 {
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(LOOK);
                if descendants().iter().map(|process| process.memory).sum::<u64>() > memory {
                    stop(TOO_MUCH_MEMORY);
                }
            }
        });
    }
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return not_started(&error),
    };
    let stopped = STOPPED.load(Ordering::SeqCst);
    if stopped != 0 {
        end_all(pid, |_| true);
        std::process::exit(i32::from(stopped));
    }
    // A service that an interactive program started, such as a key agent, has a session of its own.
    let session = Numbers::own().session;
    end_all(pid, |process| group == Group::Own || process.session == session);
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(code), _) => std::process::exit(code),
        (None, Some(signal)) => {
            // It ends as the program did.
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            let _ = rustix::process::setrlimit(Resource::Core, none);
            let _ = rustix::process::kill_process(own, signal);
            std::thread::sleep(Duration::from_secs(1));
            ExitCode::from(1)
        }
        (None, None) => ExitCode::from(1),
    }
}

/// Becomes a program that ends with its parent. Its arguments: the parent's id, the program with its arguments.
fn execute(arguments: &[OsString]) -> ExitCode {
    let [parent, program, rest @ ..] = arguments else { return ExitCode::from(2) };
    // A program that crashes leaves no copy of its memory.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let parent = parent.to_str().and_then(|parent| parent.parse().ok());
        if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != parent {
            return ExitCode::from(1);
        }
    }
    let _ = parent;
    not_started(&Command::new(program).args(rest).exec())
}

fn not_started(error: &io::Error) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "it can't be started: {error}");
    ExitCode::from(127)
}

/// A process below this one.
struct Process {
    pid: Pid,
    session: u32,
    /// Its resident memory in bytes.
    memory: u64,
    /// Whether it has ended, as far as its first thread shows.
    has_ended: bool,
}

/// Ends the process group that a child leads, and the descendants of this process that satisfy a condition.
fn end_all(child: u32, includes: impl Fn(&Process) -> bool) {
    if let Some(group) = Pid::from_raw(child.cast_signed()) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    // A process that is started, or loses its parent, while the list is made is on the next list.
    let mut empty = 0;
    for _ in 0..200 {
        let found: Vec<Process> = descendants().into_iter().filter(&includes).collect();
        empty = if found.is_empty() { empty + 1 } else { 0 };
        if empty == 2 {
            return;
        }
        for process in found {
            let _ = rustix::process::kill_process(process.pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns all processes below this one that haven't ended. Only Linux lists them, and only where /proc is of this PID namespace.
fn descendants() -> Vec<Process> {
    if !lists_this_namespace() {
        return Vec::new();
    }
    let page = rustix::param::page_size() as u64;
    let mut all: Vec<(u32, u32, Process)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields = Fields::of(&text);
        let has_ended = fields.has_ended();
        let Some(pid) = Pid::from_raw(id.cast_signed()) else { continue };
        let parent = fields.number(Fields::PARENT) as u32;
        let session = fields.number(Fields::SESSION) as u32;
        let memory = fields.number(Fields::RESIDENT_PAGES) * page;
        all.push((id, parent, Process { pid, session, memory, has_ended }));
    }
    let mut below = vec![std::process::id()];
    let mut found = Vec::new();
    while let Some(parent) = below.pop() {
        let (children, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, above, _)| *above == parent);
        all = rest;
        for (id, _, process) in children {
            below.push(id);
            found.extend(Some(process).filter(|process| !process.has_ended));
        }
    }
    found
}
