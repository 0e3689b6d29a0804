//! Shows: of 10,000 customers, a build does for each what has to be done and no more, in time and in memory.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use wait4::Wait4 as _;

use super::fleet::{cache, write_pack};
use super::folders::temporary_folder;
use super::support::Project;

const CUSTOMERS: usize = 10_000;
/// A customer with a layer of its own tier, of which there are so many.
const TIERS: usize = 20;

/// What a build told, and what it took.
struct Took {
    report: Value,
    /// The processor's time: it doesn't depend on what else the machine does.
    time: Duration,
    /// The most memory that it had, in bytes.
    peak: u64,
    /// The bytes that it read.
    read: u64,
}

/// The letter of a process's state: `Z` is one that ended.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The last number after a word of a file in /proc.
fn number(pid: u32, file: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word)?.trim().trim_end_matches(" kB").parse().ok())
}

#[track_caller]
fn build(project: &Project, more: &[&str]) -> Took {
    let arguments = [&["build", "--quiet", "--format", "json"], more].concat();
    let mut command = project.command(&arguments);
    // As for users: what it takes of memory is what is measured.
    command.env_remove("MIMALLOC_ALLOW_THP");
    let mut child = command.env("FLOTILLA_CACHE_DIR", cache()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut peak = 0;
    while state(child.id()) != Some('Z') {
        peak = number(child.id(), "status", "VmHWM:").map_or(peak, |found| found.max(peak));
        std::thread::sleep(Duration::from_millis(1));
    }
    // The operating system keeps what it counted until it is waited for.
    let read = number(child.id(), "io", "rchar:").expect("what it read");
    let stdout = child.stdout.take().expect("a pipe");
    let used = child.wait4().expect("it ended");
    assert!(used.status.success(), "{:?}", used.status);
    let report = serde_json::from_reader(stdout).expect("a report");
    Took { report, time: used.rusage.utime + used.rusage.stime, peak: peak << 10, read }
}

fn customer(project: &Project, at: usize, word: &str) {
    // As long as specs are: a comment is of no account but to who reads it.
    project.write(
        &format!("customers/c{at:05}.yaml"),
        format!(
            "# {}\nid: c{at:05}\nname: Customer {at} Ltd.\nlabels: {{ tier: t{} }}\nvars:\n  WORD: {word}\n\
             destinations:\n  - {{ name: One, type: any, settings: {{ id: \"{at}\" }} }}\n",
            "what there is to say of it. ".repeat(20),
            at % TIERS
        ),
    );
}

#[test]
fn ten_thousand_customers_cost_what_changed() {
    let project = Project::at(temporary_folder());
    write_pack(&project);
    let mut yaml = "name: test\npacks: { tiny: { path: packs/tiny } }\n\
                    accounts: { default: { id: { env: ID }, token: { secret: TOKEN }, dispatchNamespace: fleet } }\nlayers:\n"
        .to_owned();
    for tier in 0..TIERS {
        yaml += &format!("  t{tier}: {{ when: {{ tier: t{tier} }} }}\n");
        project.write(&format!("layers/t{tier}.yaml"), "logLevel: info\n");
    }
    project.write("fleet.yaml", yaml);
    (0..CUSTOMERS).for_each(|at| customer(&project, at, "first"));
    let did = |took: &Took, rendered: usize, written: usize| {
        let counts = ["workers", "rendered", "written"].map(|name| took.report[name].as_u64().expect("a number"));
        assert_eq!(counts, [CUSTOMERS, rendered, written].map(|count| count as u64), "{}", took.report);
    };

    let cold = build(&project, &[]);
    did(&cold, CUSTOMERS, 2 * CUSTOMERS + 2);
    let log = fs::metadata(project.path(".flotilla/build/log")).expect("a log").len();
    let specs: u64 = project.files("customers").values().map(|bytes| bytes.len() as u64).sum();

    // Nothing changed: nothing is read but what is remembered and what all customers share.
    let same = build(&project, &[]);
    did(&same, 0, 0);
    assert!(same.read < log + (1 << 20) && cold.read > specs, "{} read of {log} + {specs}", same.read);
    assert!(same.time < cold.time / 5, "{:?}, cold {:?}", same.time, cold.time);
    did(&build(&project, &["--check"]), 0, 0);

    // One changed.
    customer(&project, 4321, "second");
    let one = build(&project, &[]);
    did(&one, 1, 1);
    assert!(one.time < cold.time / 2, "{:?}, cold {:?}", one.time, cold.time);
    // A comment of one.
    customer(&project, 4321, "second # as it is");
    did(&build(&project, &[]), 0, 0);
    // What some share.
    project.write("layers/t7.yaml", "logLevel: warn\n");
    did(&build(&project, &[]), CUSTOMERS / TIERS, 2 * CUSTOMERS / TIERS);
    // All touched: read, and found to be as they were.
    (0..CUSTOMERS).filter(|at| *at != 4321).for_each(|at| customer(&project, at, "first"));
    did(&build(&project, &[]), 0, 0);
    did(&build(&project, &[]), 0, 0);

    let peak = cold.peak.max(same.peak) >> 20;
    eprintln!("cold {:?}, nothing {:?}, one {:?}, at most {peak} MB", cold.time, same.time, one.time);
    assert!(peak < 150, "{peak} MB");
}
