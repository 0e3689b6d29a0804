//! Shows: a process that is killed at any of its writes to the disk, each of them, leaves what the next command puts back or completes. A
//! small library, loaded before the C library's, counts the calls that change files, and kills the process with SIGKILL before one of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::fleet::{ACCOUNT, cache, fleet_in};
use crate::folders::temporary_folder_on_disk;
use crate::support::{Project, Run, output};

/// The files of a project, by path.
type Files = BTreeMap<String, Vec<u8>>;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_int left = -1;

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("KILL_AT");
    if (at) left = atoi(at);
    /* Processes that it starts aren't meant. */
    unsetenv("LD_PRELOAD");
}

static void step(void) {
    if (left > 0 && atomic_fetch_sub(&left, 1) == 1) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
int rename(const char *a, const char *b) { step(); return NEXT(rename)(a, b); }
int unlink(const char *a) { step(); return NEXT(unlink)(a); }
int unlinkat(int d, const char *a, int f) { step(); return NEXT(unlinkat)(d, a, f); }
int rmdir(const char *a) { step(); return NEXT(rmdir)(a); }
int mkdir(const char *a, mode_t m) { step(); return NEXT(mkdir)(a, m); }
int linkat(int a, const char *b, int c, const char *d, int e) { step(); return NEXT(linkat)(a, b, c, d, e); }
int fchmod(int f, mode_t m) { step(); return NEXT(fchmod)(f, m); }
int ftruncate64(int f, off64_t l) { step(); return NEXT(ftruncate64)(f, l); }
ssize_t write(int f, const void *b, size_t n) {
    struct stat found;
    if (fstat(f, &found) == 0 && S_ISREG(found.st_mode)) step();
    return NEXT(write)(f, b, n);
}
int open64(const char *a, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if (flags & (O_CREAT | O_TRUNC)) step();
    return NEXT(open64)(a, flags, mode);
}
"#;

/// The library, compiled once.
fn shim() -> &'static Path {
    static SHIM_FILE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &SHIM_FILE
        .get_or_init(|| {
            let folder = temporary_folder_on_disk();
            let (source, library) = (folder.path().join("kill.c"), folder.path().join("kill.so"));
            fs::write(&source, SHIM).expect("a file");
            let mut cc = Command::new("cc");
            output(cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl")).exits(0);
            (folder, library)
        })
        .1
}

/// What people have in a project. Of flotilla's own folder, nothing but a journal counts.
fn files(project: &Project) -> Files {
    let own = |path: &str| path.contains(".flotilla/") && path != ".flotilla/undo/journal.json";
    project.files("").into_iter().filter(|(path, _)| !own(path) && !path.starts_with("cache/")).collect()
}

fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    // The user's key is of this project's own, so that its creation is interrupted, too.
    command.env("FLOTILLA_CACHE_DIR", project.path("cache")).env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);
    command
}

/// A command that is killed at each of its writes.
struct Killed<'a> {
    /// Makes the project.
    project: &'a dyn Fn() -> Project,
    arguments: &'a [&'a str],
    /// What is typed.
    stdin: &'a str,
    /// The next command, which puts everything back, whatever it does besides.
    next: &'a [&'a str],
    /// The exit codes of the next command.
    codes: &'a [i32],
    /// Changes the files after the next command to those without what it did itself.
    without: &'a dyn Fn(&mut Files),
}

impl Killed<'_> {
    /// Kills at each write; returns their number.
    fn check(&self) -> usize {
        let before = files(&(self.project)());
        let whole = (self.project)();
        self.run(&whole, None);
        let after = files(&whole);
        assert_ne!(before, after, "{:?} changes something", self.arguments);
        let (mut restored, mut done) = (0, 0);
        for at in 1.. {
            let project = (self.project)();
            if !self.run(&project, Some(at)) {
                assert_eq!(files(&project), after);
                assert!(restored > 0 && at > 3, "{restored} of {at}");
                eprintln!("{:?}: {} kills, {restored} put back, {done} done before", self.arguments, at - 1);
                return at - 1;
            }
            let run = output(command(&project, self.next).stdin(Stdio::null()));
            assert!(self.codes.contains(&run.code), "killed at {at}: {run:?}");
            let mut now = files(&project);
            (self.without)(&mut now);
            match () {
                () if now == before => restored += 1,
                () if now == after => done += 1,
                () => {
                    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
                    let differ: Vec<&String> = now
                        .iter()
                        .filter(|(path, bytes)| before.get(*path) != Some(bytes))
                        .map(|(path, _)| path)
                        .collect();
                    panic!("killed at {at}: neither before nor after: {differ:?} of {:?}\n{run:?}", names(&now));
                }
            }
        }
        unreachable!("it ends")
    }

    /// Runs the command; returns whether it was killed.
    fn run(&self, project: &Project, at: Option<usize>) -> bool {
        let mut command = command(project, self.arguments);
        project.write("cache/stdin", self.stdin);
        command.stdin(fs::File::open(project.path("cache/stdin")).expect("it is there"));
        if let Some(at) = at {
            command.env("LD_PRELOAD", shim()).env("KILL_AT", at.to_string());
        }
        let ended = command.output().expect("it starts");
        if at.is_some() && ended.status.signal() == Some(9) {
            return true;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { code: ended.status.code().unwrap_or(-1), stdout: text(&ended.stdout), stderr: text(&ended.stderr) }
            .exits(0);
        false
    }
}

fn project() -> Project {
    let project = fleet_in(temporary_folder_on_disk(), &[("acme", "vars: { A: one } # kept\n")]);
    project.write(".gitignore", ".env\n/.flotilla/\n").write(".env", "KEY=old-value\n");
    project
}

#[test]
fn new_and_edit_are_put_back_wherever_they_are_killed() {
    let next = ["edit", "acme", "--set", "vars.NEXT=x", "--yes", "--interrupted", "undo"];
    let without = |files: &mut Files| {
        let text = String::from_utf8(files["customers/acme.yaml"].clone()).expect("UTF-8");
        let text = text.replace(", NEXT: x", "").replace("\n  NEXT: x", "");
        files.insert("customers/acme.yaml".to_owned(), text.into_bytes());
    };
    let mut kills = 0;
    for arguments in [&["new", "third", "--offline", "--yes"][..], &["edit", "acme", "--set", "vars.A=two", "--yes"]] {
        kills +=
            Killed { project: &project, arguments, stdin: "", next: &next, codes: &[0], without: &without }.check();
    }
    assert!(kills >= 20, "{kills} kills");
}

#[test]
fn a_secret_that_is_set_is_the_old_one_or_the_new_one() {
    let same = |files: &mut Files| {
        // A kill before the new file takes the name leaves it beside, private, and the next change of the same file replaces it.
        files.retain(|path, _| path != "..env.flotilla.new");
    };
    let arguments = ["secrets", "set", "KEY"];
    let killed = Killed {
        project: &project,
        arguments: &arguments,
        stdin: "a-new-value-that-is-long\n",
        next: &["secrets", "list"],
        codes: &[0, 1],
        without: &same,
    };
    assert!(killed.check() >= 5);
    let project = project();
    project.write("..env.flotilla.new", "left over");
    killed.run(&project, None);
    assert!(!project.path("..env.flotilla.new").exists());
}

#[test]
fn init_is_put_back_wherever_it_is_killed() {
    let empty = || {
        let project = Project::at(temporary_folder_on_disk());
        project.write(".gitignore", "node_modules\n");
        project
    };
    // Again, and then everything is there; what was complete is refused.
    let arguments = ["init", "--pack", "worker"];
    let whole = empty();
    output(command(&whole, &arguments).stdin(Stdio::null())).exits(0);
    let wanted = files(&whole);
    let same = |files: &mut Files| assert_eq!(files.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    let name = |text: &[u8]| {
        String::from_utf8_lossy(text).lines().filter(|line| !line.starts_with("name: ")).collect::<String>()
    };
    let mut at = 0;
    loop {
        at += 1;
        let project = empty();
        let mut killed = command(&project, &arguments);
        let ended = killed
            .env("LD_PRELOAD", shim())
            .env("KILL_AT", at.to_string())
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        if ended.status.signal() != Some(9) {
            break;
        }
        // In between, the half-written project is reported.
        let warned = output(command(&project, &["check"]).stdin(Stdio::null()));
        let is_half = project.path(".flotilla/undo/journal.json").exists();
        assert!(
            !is_half
                || !project.path("fleet.yaml").exists()
                || warned.stderr.contains("`flotilla init` was interrupted"),
            "{at}: {warned:?}"
        );
        let run = output(command(&project, &arguments).stdin(Stdio::null()));
        assert!(
            run.code == 0 || (run.code == 5 && run.stderr.contains("is already a project")),
            "killed at {at}: {run:?}"
        );
        let mut now = files(&project);
        same(&mut now);
        assert!(now.iter().all(|(path, bytes)| name(bytes) == name(&wanted[path])), "killed at {at}");
    }
    assert!(at > 60, "{at} writes");
    eprintln!("init: {} kills", at - 1);
}

#[test]
fn import_is_put_back_wherever_it_is_killed() {
    let existing = || {
        let project = Project::at(temporary_folder_on_disk());
        project
            .write("theirs/wrangler.toml", "name = \"a\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n")
            .write("theirs/index.js", "export default {};\n")
            .write("nothing/README", "no worker\n")
            .write(".gitignore", "node_modules\n")
            .write("customers/a.yaml", "id: a # somebody's\n")
            .write("fleet.yaml", "name: theirs\n");
        project
    };
    let same = |_: &mut Files| {};
    let killed = Killed {
        project: &existing,
        arguments: &["import", "theirs", "--force"],
        stdin: "",
        // It finds nothing to import, after it put back what there was.
        next: &["import", "nothing"],
        codes: &[1],
        without: &same,
    };
    assert!(killed.check() >= 60);
    let _ = cache();
}
