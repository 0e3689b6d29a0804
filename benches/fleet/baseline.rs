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
use crate::project::{Project, entries, files};

/// The words by which the binary knows that it is to be a baseline.
pub const WRITE: &str = "only-write";
/// See [`WRITE`].
pub const STAT: &str = "only-stat";

/// Writes the files of out/ once more, in a folder that doesn't exist yet.
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
    serde_json::from_slice(&output.stdout).expect("a sample")
}

/// Does something, in this process, and prints what it used.
fn timed(work: impl FnOnce()) {
    let (start, before) = (Instant::now(), processor());
    work();
    let seconds = start.elapsed().as_secs_f64();
    let processor = processor().zip(before).map(|(after, before)| after - before);
    let sample = Sample { processor, ..Sample::timed(seconds) };
    println!("{}", serde_json::to_string(&sample).expect("a sample is JSON"));
}

/// The processor time of this process's threads so far, where Linux tells it.
fn processor() -> Option<f64> {
    // Rayon's threads begin with the first work that there is for them, and stay.
    rayon::broadcast(|_| ());
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let nanoseconds = threads.map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    Some(nanoseconds.sum::<Option<f64>>()? / 1e9)
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
    timed(|| {
        for folder in &above {
            fs::create_dir_all(folder).expect("a folder");
        }
        folders.par_iter().for_each(|(folder, files)| {
            fs::create_dir(folder).expect("a folder");
            for (file, bytes) in files {
                fs::write(file, bytes).expect("a file");
            }
        });
    });
    ExitCode::SUCCESS
}

/// The process of [`only_stat`]: in the project's folder.
pub fn stat() -> ExitCode {
    let mut asked = files(Path::new("customers"));
    asked.extend(files(Path::new("out")));
    timed(|| {
        let bytes: u64 = asked.par_iter().map(|file| fs::symlink_metadata(file).expect("a file").len()).sum();
        assert!(bytes > 0, "empty files");
    });
    ExitCode::SUCCESS
}
