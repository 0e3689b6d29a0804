//! `build --watch`: how long an edit takes until it is built.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::figures::{Report, seconds, thousands};
use crate::process;
use crate::project::Project;

/// Measures edits of one customer among many: from before the file is written to the line that says that it is built.
pub fn run(report: &mut Report, project: &Project, customers: usize, rounds: usize) {
    let mut command = process::program(env!("CARGO_BIN_EXE_flotilla"));
    command.args(["build", "--watch", "--quiet", "--format", "json"]).current_dir(project.path("."));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("flotilla starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut built = || -> Value {
        let line = lines.next().expect("a build").expect("text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    };
    built();
    let number = customers / 4;
    let mut times: Vec<f64> = (0..rounds.max(5))
        .map(|round| {
            let start = Instant::now();
            project.change_spec(number, round + 100);
            let told = built();
            assert!(
                told["written"].as_u64().is_some_and(|written| written > 0),
                "the build did something else: {told}"
            );
            start.elapsed().as_secs_f64()
        })
        .collect();
    child.kill().expect("flotilla ends");
    let _ = child.wait();
    project.put_back(number);
    times.sort_by(f64::total_cmp);
    let [median, lowest, highest] = [times[times.len() / 2], times[0], times[times.len() - 1]].map(seconds);
    report.text(&format!(
        "With `build --watch`, an edit among {} customers is built after {median} ({lowest} – {highest}; aim: 100 ms at 10,000).",
        thousands(customers as u64)
    ));
    report.line(serde_json::json!({"scenario": "watch", "customers": customers, "seconds": times}));
}
