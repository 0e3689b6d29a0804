//! What no build of the same files can beat: only writing them, only asking for their times. Each runs in a process of
//! its own, with as many threads as flotilla, and times itself, without the reading of what it needs to know.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use rayon::prelude::*;

use crate::process::Sample;
use crate::project::{Project, entries};

/// The words by which the binary knows that it is to be a baseline.
pub const WRITE: &str = "only-write";
/// See [`WRITE`].
pub const STAT: &str = "only-stat";

/// Writes the files of out/ once more, in a folder that isn't there yet.
pub fn only_write(project: &Project) -> Sample {
    run(project, WRITE, &[project.aside().into_os_string()])
}

/// Asks for size and time of each spec and each file of out/.
pub fn only_stat(project: &Project) -> Sample {
    run(project, STAT, &[])
}

fn run(project: &Project, what: &str, arguments: &[OsString]) -> Sample {
    let mut command = Command::new(env::current_exe().expect("the stand's own path"));
    let output = command.arg(what).args(arguments).current_dir(project.path("")).output().expect("a baseline starts");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Sample::timed(String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds"))
}

/// The process of [`only_write`]: in the project's folder, told where to write to.
pub fn write(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let to = PathBuf::from(arguments.next().expect("a folder"));
    type Files = Vec<(PathBuf, Vec<u8>)>;
    let mut folders: Vec<(PathBuf, Files)> = Vec::new();
    let mut open = vec![PathBuf::from("out")];
    let mut above = Vec::new();
    while let Some(folder) = open.pop() {
        let (nested, files): (Vec<PathBuf>, Vec<PathBuf>) =
            entries(&folder).into_iter().partition(|path| path.is_dir());
        let read = |file: &PathBuf| (to.join(file), fs::read(file).expect("a file"));
        if nested.is_empty() {
            folders.push((to.join(&folder), files.iter().map(read).collect()));
        } else {
            assert!(files.is_empty(), "{} has files beside folders", folder.display());
            above.push(to.join(&folder));
        }
        open.extend(nested);
    }
    folders.sort_unstable();
    let start = Instant::now();
    for folder in &above {
        fs::create_dir_all(folder).expect("a folder");
    }
    folders.par_iter().for_each(|(folder, files)| {
        fs::create_dir(folder).expect("a folder");
        for (file, bytes) in files {
            fs::write(file, bytes).expect("a file");
        }
    });
    println!("{}", start.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// The process of [`only_stat`]: in the project's folder.
pub fn stat() -> ExitCode {
    let mut files = entries(Path::new("customers"));
    let mut open = vec![PathBuf::from("out")];
    while let Some(folder) = open.pop() {
        let (nested, plain): (Vec<PathBuf>, Vec<PathBuf>) =
            entries(&folder).into_iter().partition(|path| path.is_dir());
        files.extend(plain);
        open.extend(nested);
    }
    let start = Instant::now();
    let bytes: u64 = files.par_iter().map(|file| fs::symlink_metadata(file).expect("a file").len()).sum();
    let took = start.elapsed();
    assert!(bytes > 0, "empty files");
    println!("{}", took.as_secs_f64());
    ExitCode::SUCCESS
}
