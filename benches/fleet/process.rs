//! Runs a program and says what it used: seconds, processor time, the peak of its memory. Doesn't know what it runs.
//!
//! What a child's memory peaks at is counted from the fork on, when it still shares its parent's. So that the stand's
//! own memory is in no figure, each program is started by a launcher: the stand's binary again, which has done nothing
//! yet.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wait4::Wait4 as _;

/// The word by which the binary knows that it is to be the launcher.
pub const LAUNCH: &str = "launch";

/// What one run used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// From start to end, by the clock.
    pub seconds: f64,
    /// User and system time of all cores. None where a part of the program alone was timed.
    pub processor: Option<f64>,
    /// The peak of the resident memory in bytes; of several processes, that of the largest.
    pub memory: Option<u64>,
}

impl Sample {
    /// A sample of which the time alone is known.
    pub fn timed(seconds: f64) -> Sample {
        Sample { seconds, processor: None, memory: None }
    }

    /// The same for one of so many.
    pub fn each(self, count: usize) -> Sample {
        let count = count as f64;
        Sample { seconds: self.seconds / count, processor: self.processor.map(|seconds| seconds / count), ..self }
    }
}

/// A program to measure, to be given arguments and a folder.
pub fn program(path: impl Into<OsString>) -> Command {
    let mut command = Command::new(env::current_exe().expect("the stand's own path"));
    command.arg(LAUNCH).arg(report()).arg(path.into()).stdin(Stdio::null());
    command
}

/// Where the launcher leaves its figures. One program runs at a time.
fn report() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("launched-{}.json", std::process::id()))
}

/// Runs what [`program`] gave; what it used, and its stdout. It has to succeed.
pub fn measure(mut command: Command) -> (Sample, String) {
    let output = command.output().expect("the launcher starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} failed ({}):\n{errors}", words(&command), output.status);
    let figures = fs::read(report()).expect("the launcher's figures");
    fs::remove_file(report()).expect("the launcher's figures");
    let sample = serde_json::from_slice(&figures).expect("the launcher's figures");
    (sample, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program and its arguments, without the launcher's.
fn words(command: &Command) -> Vec<String> {
    command.get_args().skip(2).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The launcher: runs the program, writes what it used.
pub fn launch(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (report, program) = (arguments.next().expect("a report"), arguments.next().expect("a program"));
    let start = Instant::now();
    let child = match Command::new(&program).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{} can't be started: {error}", program.display());
            return ExitCode::FAILURE;
        }
    };
    let used = child.wait4().expect("the child ends");
    let sample = Sample {
        seconds: start.elapsed().as_secs_f64(),
        processor: Some((used.rusage.utime + used.rusage.stime).as_secs_f64()),
        memory: Some(used.rusage.maxrss),
    };
    fs::write(report, serde_json::to_vec(&sample).expect("figures are JSON")).expect("a report");
    if used.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
