//! Shows: golden cases: a small project, a command, what it prints; each diagnostic code has one, and whatever
//! succeeds has nothing to do the second time.
//!
//! A case is a folder of `tests/cases`. Its files are laid over `_base`, a project without customers whose pack needs
//! no npm packages. Beside them it has:
//!
//! - `command`: the arguments of the program, perhaps after variables, as in `CLOUDFLARE_API_TOKEN=wrong deploy --yes`.
//!   Several lines are several runs, one after the other; `$ ` begins a line for the shell.
//! - `setup`, where needed: shell, run in the project before, for what git can't hold well.
//! - `cloud`, where needed: the case has a local Cloudflare of its own, and credentials for it. The file is empty, or
//!   JSON: `tokens`, `zones`, and the `faults` that the commands (not `setup`) meet.
//! - what is expected: `stdout`, `stderr`, `exit`, and `out/` where the whole tree is of interest.
//!
//! `UPDATE_CASES=1 cargo test --test integration cases` writes what is expected anew; the difference is for review.
//! `CASES=n03,deploy-waves` runs those whose names begin so. All
//! that is printed is compared, but for what differs from run to run, see [`redacted`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use flotilla_model::diagnostic::Code;
use serde_json::Value;

use super::fleet::{ACCOUNT, Cloud};
use super::support::{Project, Run, copy, output, repository};

/// What belongs to the case rather than to its project.
const OF_THE_CASE: [&str; 7] = ["command", "setup", "cloud", "stdout", "stderr", "exit", "out"];

fn folder() -> PathBuf {
    repository().join("tests/cases")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder of cases")
        .map(|entry| entry.expect("a case").file_name().into_string().expect("a plain name"))
        .filter(|name| !name.starts_with('_'))
        .collect();
    names.sort_unstable();
    names
}

/// A project without customers, whose pack is bundled in a moment.
pub fn tiny() -> Project {
    let project = Project::empty();
    std::fs::remove_dir_all(project.path("templates")).expect("the real pack goes");
    copy(&folder().join("_base"), project.root());
    project
}

/// The cache that all cases share, so that npm is asked once.
pub fn cache() -> (&'static str, &'static str) {
    ("FLOTILLA_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"))
}

#[test]
fn each_case_prints_what_is_expected_and_has_nothing_to_do_twice() {
    // One build before all others, so that no case has to wait for another's.
    tiny().write("customers/warm.yaml", "id: warm\n").run_with(&["build"], &[cache()]).exits(0);
    let mut names = names();
    // A few of them, for those who write one: their names' beginnings, with commas between them.
    if let Ok(some) = std::env::var("CASES") {
        names.retain(|name| some.split(',').any(|start| name.starts_with(start)));
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = run(name) {
                        wrong.lock().expect("no case panics").insert(name, message);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no case panics");
    let told: String = wrong.iter().map(|(name, message)| format!("\n== tests/cases/{name}\n{message}\n")).collect();
    assert!(wrong.is_empty(), "{} of {} cases differ:\n{told}", wrong.len(), names.len());
}

#[test]
fn each_diagnostic_code_has_a_case() {
    let told: String = names()
        .iter()
        .map(|name| std::fs::read_to_string(folder().join(name).join("stderr")).unwrap_or_default())
        .collect();
    let missing: Vec<&str> =
        Code::ALL.iter().map(|code| code.as_str()).filter(|code| !told.contains(&format!("[{code}]"))).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

/// A case that runs: its project, and the variables that its commands get.
struct Stage {
    project: Project,
    environment: Vec<(String, String)>,
    cloud: Option<(Cloud, Value)>,
}

impl Stage {
    /// Lays the case's files over the base, and starts the Cloudflare that it asks for.
    fn set(case: &Path) -> Result<Stage, String> {
        let project = tiny();
        for entry in std::fs::read_dir(case).expect("a case").flatten() {
            if !OF_THE_CASE.iter().any(|own| entry.file_name() == *own) {
                copy(&entry.path(), &project.path(&entry.file_name().to_string_lossy()));
            }
        }
        let mut environment = vec![(cache().0.to_owned(), cache().1.to_owned())];
        let cloud = match std::fs::read_to_string(case.join("cloud")) {
            Err(_) => None,
            Ok(text) => {
                let text = if text.trim().is_empty() { "{}" } else { &text };
                let wanted: Value = serde_json::from_str(text).map_err(|error| format!("cloud: {error}"))?;
                let strings = |key: &str| -> Vec<String> {
                    let values = wanted[key].as_array().into_iter().flatten();
                    values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
                };
                let cloud = Cloud::start_with(|options| {
                    options.tokens = strings("tokens");
                    options.zones = strings("zones");
                });
                // A token of its own: what is counted against another's limit is not told here.
                let token = format!("token-{}", project.root().file_name().expect("a name").to_string_lossy());
                let token = strings("tokens").into_iter().next().unwrap_or(token);
                environment.extend([
                    ("CLOUDFLARE_API_BASE_URL".to_owned(), cloud.base()),
                    ("CLOUDFLARE_API_TOKEN".to_owned(), token),
                    ("CLOUDFLARE_ACCOUNT_ID".to_owned(), ACCOUNT.to_owned()),
                ]);
                Some((cloud, wanted["faults"].clone()))
            }
        };
        Ok(Stage { project, environment, cloud })
    }

    /// Runs the shell in the project; it has to succeed.
    fn shell(&self, what: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
        let mut shell = Command::new("sh");
        shell.arg("-eu").args(arguments).current_dir(self.project.root());
        shell
            .env("FLOTILLA", env!("CARGO_BIN_EXE_flotilla"))
            .env("MIMALLOC_ALLOW_THP", "0")
            .envs(self.environment.iter().cloned());
        let run = output(&mut shell);
        if run.code == 0 { Ok(()) } else { Err(format!("{what} fails: {run:#?}")) }
    }

    /// Runs the program with a line of `command`.
    fn program(&self, line: &str) -> Run {
        let (set, arguments) = words(line);
        let mut command = self.project.command(&arguments);
        output(command.envs(self.environment.iter().cloned()).envs(set))
    }
}

/// A line of `command`: the variables that it sets, and the arguments.
fn words(line: &str) -> (Vec<(&str, &str)>, Vec<&str>) {
    let mut words = line.split_whitespace().peekable();
    let mut set = Vec::new();
    while let Some(variable) = words.peek().and_then(|word| word.split_once('=')) {
        set.push(variable);
        words.next();
    }
    (set, words.collect())
}

/// Runs a case; what differs comes back.
fn run(name: &str) -> Result<(), String> {
    let case = folder().join(name);
    let stage = Stage::set(&case)?;
    if case.join("setup").exists() {
        stage.shell("setup", &[case.join("setup").as_os_str()])?;
    }
    if let Some((cloud, faults)) = &stage.cloud
        && faults.is_array()
    {
        cloud.faults(faults);
    }
    let commands = std::fs::read_to_string(case.join("command")).map_err(|error| format!("command: {error}"))?;
    let several = commands.lines().count() > 1;
    let before = files(stage.project.root());
    let mut found = BTreeMap::<String, String>::new();
    let mut last = None;
    for line in commands.lines() {
        if let Some(script) = line.strip_prefix("$ ") {
            stage.shell(line, &["-c".as_ref(), script.as_ref()])?;
            continue;
        }
        let run = stage.program(line);
        if stage.cloud.as_ref().is_some_and(|(_, faults)| !faults.is_array()) {
            exact(&run)?;
        }
        let head = if several { format!("$ flotilla {line}\n") } else { String::new() };
        for (name, text) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
            *found.entry(name.to_owned()).or_default() += &format!("{head}{}", redacted(&stage, text));
        }
        *found.entry("exit".to_owned()).or_default() += &format!("{}\n", run.code);
        last = Some((line, run));
    }
    let (line, last) = last.ok_or("command: nothing to run")?;
    let after = files(stage.project.root());
    if words(line).1.contains(&"check") && before != after {
        return Err("check changes files".to_owned());
    }
    if case.join("out").is_dir() {
        let tree = stage.project.files("out").into_iter();
        found.extend(tree.map(|(path, bytes)| {
            let text = redacted(&stage, &String::from_utf8_lossy(&bytes));
            (format!("out/{}", redacted(&stage, &path)), text)
        }));
    }
    expect(&case, &found)?;
    // A case of several commands shows itself what a second run prints.
    if several { Ok(()) } else { again(&stage, line, &last, &after) }
}

/// A deploy that succeeds sends as many requests as its plan says.
fn exact(run: &Run) -> Result<(), String> {
    let number = |text: &str| text.replace(',', "").parse::<usize>().ok();
    let figure = |text: &str, before: &str, line: &str| {
        let line = text.lines().find(|one| one.contains(line) && one.contains(before))?;
        number(line.split_once(before)?.0.rsplit(' ').next()?)
    };
    let sent = figure(&run.stdout, " requests in ", " applied, 0 failed, 0 not attempted");
    let requests = figure(&run.stderr, " request", "plan: ");
    let (Some(sent), Some(requests)) = (sent, requests) else { return Ok(()) };
    let checks = figure(&run.stderr, " check", "plan: ").unwrap_or(0);
    match sent == requests + checks {
        true => Ok(()),
        false => Err(format!("planned are {requests} requests and {checks} checks, sent {sent}")),
    }
}

/// Whatever a command did, the second time it finds it done; what it could not do, it tells again.
fn again(stage: &Stage, line: &str, first: &Run, after: &Tree) -> Result<(), String> {
    let (_, arguments) = words(line);
    let second = stage.program(line);
    if second.code != first.code {
        return Err(format!("the second run exits with {} instead of {}: {second:#?}", second.code, first.code));
    }
    if first.code != 0 && redacted(stage, &second.stderr) != redacted(stage, &first.stderr) {
        return Err(format!("the second run tells other mistakes:\n{}", second.stderr));
    }
    let differs = files(stage.project.root());
    let touched: Vec<&PathBuf> = differs
        .iter()
        .filter(|(path, file)| after.get(*path) != Some(*file))
        .map(|(path, _)| path)
        .chain(after.keys().filter(|path| !differs.contains_key(*path)))
        .collect();
    if !touched.is_empty() {
        return Err(format!("the second run touches {touched:?}"));
    }
    let says = match arguments.iter().find(|word| ["build", "deploy"].contains(word)) {
        _ if first.code != 0 || arguments.contains(&"json") || arguments.contains(&"--check") => return Ok(()),
        Some(&"build") => "nothing to do: out/ is up to date",
        Some(&"deploy") => "nothing to deploy",
        _ => return Ok(()),
    };
    match second.stdout.contains(says) {
        true => Ok(()),
        false => Err(format!("the second run doesn't say {says:?}, but {:?}", second.stdout)),
    }
}

/// Files by path, with bytes and the time of the last change.
type Tree = BTreeMap<PathBuf, (Vec<u8>, Option<SystemTime>)>;

/// All files of a project that a second run has to leave alone: not the state's, whose write-ahead log comes and goes.
fn files(root: &Path) -> Tree {
    let mut files = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("a file has a type");
            if kind.is_dir() {
                if entry.file_name() != ".flotilla" {
                    open.push(path);
                }
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).expect("a link leads somewhere");
                files.insert(path, (target.as_os_str().as_encoded_bytes().to_owned(), None));
            } else if kind.is_file() {
                let metadata = entry.metadata().expect("a file");
                // A file too large for a spec is not read here either.
                let bytes =
                    if metadata.len() > 1 << 24 { Vec::new() } else { std::fs::read(&path).unwrap_or_default() };
                files.insert(path, (bytes, metadata.modified().ok()));
            }
        }
    }
    files
}

/// Compares with the expected files; with UPDATE_CASES, writes them.
fn expect(case: &Path, found: &BTreeMap<String, String>) -> Result<(), String> {
    if std::env::var_os("UPDATE_CASES").is_some() {
        if case.join("out").is_dir() {
            std::fs::remove_dir_all(case.join("out")).expect("the old tree goes");
        }
        for (name, text) in found {
            let path = case.join(name);
            std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
            std::fs::write(path, text).expect("an expected file");
        }
        return Ok(());
    }
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for name in ["stdout", "stderr", "exit"] {
        expected.insert(name.to_owned(), std::fs::read_to_string(case.join(name)).unwrap_or_default());
    }
    let mut open = vec![case.join("out")];
    while let Some(path) = open.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => open.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) if path.is_file() => {
                let name = path.strip_prefix(case).expect("below the case").to_string_lossy().into_owned();
                expected.insert(name, std::fs::read_to_string(&path).expect("an expected file"));
            }
            Err(_) => {}
        }
    }
    let names = expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>();
    let different: String = names
        .into_iter()
        .filter(|name| expected.get(*name) != found.get(*name))
        .map(|name| {
            let show = |text: Option<&String>| text.map_or("(nothing)\n".to_owned(), Clone::clone);
            format!("{name}, expected:\n{}{name}, found:\n{}", show(expected.get(name)), show(found.get(name)))
        })
        .collect();
    if different.is_empty() { Ok(()) } else { Err(different) }
}

/// Text without what differs from run to run and from machine to machine: paths, the local Cloudflare's address, times,
/// durations, digests, and what is told only as long as the cache is cold.
fn redacted(stage: &Stage, text: &str) -> String {
    let root = stage.project.root().canonicalize().expect("the project's folder");
    let mut text = text
        .replace(&root.to_string_lossy().into_owned(), "[PROJECT]")
        .replace(&stage.project.root().to_string_lossy().into_owned(), "[PROJECT]");
    if let Some((cloud, _)) = &stage.cloud {
        text = text.replace(&cloud.base(), "[API]");
    }
    let lines = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("bundling the pack ") && !line.starts_with("installing the npm packages of "));
    let text: String = lines.collect();
    let (mut redacted, mut rest) = (String::new(), text.as_str());
    while let Some(c) = rest.chars().next() {
        let (length, word) = match word_length(rest) {
            0 => (c.len_utf8(), &rest[..c.len_utf8()]),
            length => (length, shown(&rest[..length], &redacted, &rest[length..])),
        };
        redacted += word;
        rest = &rest[length..];
    }
    redacted
}

/// The length of the word that a text begins with: letters and digits, a number with its fraction, a time.
fn word_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    const TIME: &[u8] = b"0000-00-00T00:00:00";
    let is_time = bytes.iter().zip(TIME).take_while(|(c, of)| if **of == b'0' { c.is_ascii_digit() } else { c == of });
    if is_time.count() == TIME.len() {
        let fraction = text[TIME.len()..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
        if fraction.starts_with('Z') {
            return text.len() - fraction.len() + 1;
        }
    }
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let inner = |at: &usize| match bytes[*at] {
        b'.' => *at > 0 && digit(at - 1) && digit(at + 1),
        c => c.is_ascii_alphanumeric(),
    };
    (0..bytes.len()).take_while(inner).count()
}

/// A word as cases show it, by what stands before and after it.
fn shown<'a>(word: &'a str, before: &str, after: &str) -> &'a str {
    let hex = word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let number = || word.parse::<f64>().is_ok();
    match word.len() {
        16 | 64 if hex && word.bytes().any(|b| b.is_ascii_digit()) => "[DIGEST]",
        20.. if word.ends_with('Z') && word.as_bytes()[10] == b'T' => "[TIME]",
        _ if before.ends_with(" in ") && after.starts_with(" s") && number() => "[SECONDS]",
        _ if (before.ends_with("\"seconds\":") || after.starts_with(" s ago")) && number() => "[SECONDS]",
        _ => word,
    }
}
