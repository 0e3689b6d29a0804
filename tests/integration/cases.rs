//! Shows: golden cases: a small project, a command, what it prints; each diagnostic code has one, and whatever
//! succeeds has nothing to do the second time.
//!
//! A case is a folder of `tests/cases`. Its files are laid over `_base`, a project without customers whose pack needs
//! no npm packages. Beside them it has `command` (the arguments), perhaps `setup` (shell, run in the project, for what
//! git can't hold well), and what is expected: `stdout`, `stderr`, `exit`, and `out/` where the whole tree is of
//! interest. `UPDATE_CASES=1 cargo test --test integration cases` writes these anew; the difference is for review.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use flotilla_model::diagnostic::Code;

use super::support::{Project, Run, copy, output, repository};

/// What belongs to the case rather than to its project.
const OF_THE_CASE: [&str; 6] = ["command", "setup", "stdout", "stderr", "exit", "out"];

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
    let names = names();
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

/// Runs a case; what differs comes back.
fn run(name: &str) -> Result<(), String> {
    let case = folder().join(name);
    let project = tiny();
    for entry in std::fs::read_dir(&case).expect("a case").flatten() {
        if !OF_THE_CASE.iter().any(|own| entry.file_name() == *own) {
            copy(&entry.path(), &project.path(&entry.file_name().to_string_lossy()));
        }
    }
    if case.join("setup").exists() {
        let mut setup = Command::new("sh");
        setup.args(["-eu".as_ref(), case.join("setup").as_os_str()]).current_dir(project.root());
        let run = output(setup.env("FLOTILLA", env!("CARGO_BIN_EXE_flotilla")).envs([cache()]));
        if run.code != 0 {
            return Err(format!("setup fails: {run:#?}"));
        }
    }
    let command = std::fs::read_to_string(case.join("command")).map_err(|error| format!("command: {error}"))?;
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let before = files(project.root());
    let first = project.run_with(&arguments, &[cache()]);
    let after = files(project.root());
    if arguments.contains(&"check") && before != after {
        return Err("check changes files".to_owned());
    }
    let mut found = BTreeMap::from([
        ("stdout".to_owned(), redacted(&project, &first.stdout)),
        ("stderr".to_owned(), redacted(&project, &first.stderr)),
        ("exit".to_owned(), format!("{}\n", first.code)),
    ]);
    if case.join("out").is_dir() {
        let tree = project.files("out").into_iter();
        found.extend(tree.map(|(path, bytes)| {
            let text = redacted(&project, &String::from_utf8_lossy(&bytes));
            (format!("out/{}", redacted(&project, &path)), text)
        }));
    }
    expect(&case, &found)?;
    again(&project, &arguments, &first, &after)
}

/// Whatever a command did, the second time it finds it done; what it could not do, it tells again.
fn again(project: &Project, arguments: &[&str], first: &Run, after: &Tree) -> Result<(), String> {
    let second = project.run_with(arguments, &[cache()]);
    if second.code != first.code {
        return Err(format!("the second run exits with {} instead of {}: {second:#?}", second.code, first.code));
    }
    if first.code != 0 && redacted(project, &second.stderr) != redacted(project, &first.stderr) {
        return Err(format!("the second run tells other mistakes:\n{}", second.stderr));
    }
    let differs = files(project.root());
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
        Some(&"build") => "nothing to do: out/ is current",
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

/// Text without what differs from run to run and from machine to machine: paths, durations, digests, and what is told
/// only as long as the cache is cold.
fn redacted(project: &Project, text: &str) -> String {
    let root = project.root().canonicalize().expect("the project's folder");
    let text = text
        .replace(&root.to_string_lossy().into_owned(), "[PROJECT]")
        .replace(&project.root().to_string_lossy().into_owned(), "[PROJECT]");
    let lines = text.split_inclusive('\n').filter(|line| {
        !line.starts_with("bundling the runtime of ") && !line.starts_with("installing the npm packages of ")
    });
    let mut redacted = String::new();
    let mut word = String::new();
    for c in lines.flat_map(str::chars).chain(['\0']) {
        if c.is_ascii_alphanumeric() || (c == '.' && word.ends_with(|c: char| c.is_ascii_digit())) {
            word.push(c);
            continue;
        }
        let digest = [16, 64].contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && word.bytes().any(|b| b.is_ascii_digit());
        let seconds = word.parse::<f64>().is_ok() && (redacted.ends_with(" in ") || redacted.ends_with("\"seconds\":"));
        redacted += if digest {
            "[DIGEST]"
        } else if seconds {
            "[SECONDS]"
        } else {
            &word
        };
        word.clear();
        if c != '\0' {
            redacted.push(c);
        }
    }
    redacted
}
