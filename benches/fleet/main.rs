//! The stand: measures flotilla on generated fleets, side by side with what else could do the work, in one run:
//! `cargo bench --bench fleet -- [CUSTOMERS]`. Prints Markdown, fit for the README, on stdout.
//!
//! How it measures: each figure is the median of an odd number of runs, which take turns (A B A B …), with the page cache
//! warm and nothing left to write from before; beside it stand the lowest and the highest. A run that did something else
//! than what it is to measure ends the stand, and so does a peer that can't be installed. What was generated goes at the
//! end; leave some minutes between two runs (`project` says why). 100,000 customers need 25 GB of disk, a growth to a
//! million 25 GB more.
//!
//! It needs Linux or macOS, Python 3 with venv, Node.js 22.12 or newer and npm; pip and npm install the peers, each in its pinned
//! version.

mod baseline;
mod builds;
mod deploys;
mod figures;
#[path = "../../examples/generate-fleet/fleet.rs"]
mod fleet;
mod growth;
mod lanes;
mod peers;
mod process;
mod project;
#[path = "../../tests/integration/rehearsal.rs"]
mod rehearsal;
mod watch;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, ValueEnum};
use serde_json::json;

/// Measures flotilla on generated fleets, side by side with what else could do the work
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench fleet --")]
struct Arguments {
    /// How many customers the fleet of builds, peers and deploys has
    #[arg(default_value = "10000", value_parser = clap::value_parser!(u32).range(10..))]
    customers: u32,
    /// These scenarios alone
    #[arg(long, value_delimiter = ',', value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// How many runs make a figure; an odd number. Of what takes long, at most three
    #[arg(long, default_value = "5", value_name = "RUNS", value_parser = odd)]
    rounds: usize,
    /// How many workers the rehearsal of a bulk redeploy has
    #[arg(long, default_value = "1000000", value_name = "WORKERS", value_parser = clap::value_parser!(u32).range(4000..))]
    rehearsed: u32,
    /// Up to how many customers the growth is measured, from 1,000 on in steps of ten times as many
    #[arg(long, default_value = "100000", value_name = "CUSTOMERS", value_parser = clap::value_parser!(u32).range(1000..))]
    growth_to: u32,
    /// Write all figures to a file as well, one JSON object on each line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Cargo says so to all benches
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Flotilla's builds, beside only writing and only looking at the same files
    Builds,
    /// Ninja, a Python script, esbuild's API, wrangler
    Peers,
    /// Deploys to a Cloudflare on this machine
    Deploys,
    /// Deploys at the API's limit, beside wrangler, and the rehearsal of a bulk redeploy
    Lanes,
    /// Ten times the customers
    Growth,
}

fn odd(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number % 2 == 1 => Ok(number),
        _ => Err("an odd number is needed for a median".to_owned()),
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(|word| word.to_str()) {
        Some(process::LAUNCH) => return process::launch(words),
        Some(baseline::WRITE) => return baseline::write(words),
        Some(baseline::STAT) => return baseline::stat(),
        _ => {}
    }
    let arguments = Arguments::parse();
    let wanted = |scenario| arguments.only.is_empty() || arguments.only.contains(&scenario);
    let (customers, rounds) = (arguments.customers as usize, arguments.rounds);
    let mut report = figures::Report::default();
    let machine = machine();
    report.text(&format!(
        "flotilla {} on {machine}. Each figure is the median of so many runs, which take turns; a ratio is the median of \
         those of the runs that followed each other. The page cache is warm. \
         Memory is the peak of a process. Aims are for {} customers.",
        env!("CARGO_PKG_VERSION"),
        figures::thousands(figures::AIMED as u64),
    ));
    let lately = project::removed_lately();
    if lately {
        let warning =
            "Another run removed its files a few minutes ago; making files may take several times as long here.";
        eprintln!("{warning}");
        report.text(warning);
    }
    report.line(json!({"flotilla": env!("CARGO_PKG_VERSION"), "machine": machine, "files_removed_lately": lately}));
    warm_runtime();
    if wanted(Scenario::Builds) {
        builds::run(&mut report, customers, rounds);
    }
    if wanted(Scenario::Peers) {
        peers::run(&mut report, customers, rounds);
    }
    if wanted(Scenario::Deploys) {
        deploys::run(&mut report, customers, rounds);
    }
    if wanted(Scenario::Lanes) {
        lanes::run(&mut report, customers, arguments.rehearsed as usize);
    }
    if wanted(Scenario::Growth) {
        growth::run(&mut report, arguments.growth_to as usize, rounds);
    }
    println!("{}", report.markdown());
    if let Some(file) = arguments.json {
        fs::write(&file, report.json()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    project::clean();
    ExitCode::SUCCESS
}

/// Builds one customer, so that the pack's runtime is in the cache: it is bundled once for all fleets.
fn warm_runtime() {
    let project = project::Project::new("runtime", 1);
    project.bring_up_to_date();
}

/// The machine and the day, in a few words.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = value(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory =
        memory.map_or_else(String::new, |kilobytes| format!(", {:.0} GiB", kilobytes as f64 / f64::from(1 << 20)));
    let release = read("/proc/sys/kernel/osrelease");
    let release = release.split('-').next().unwrap_or_default().trim();
    let system = if cfg!(target_os = "linux") { "Linux" } else { std::env::consts::OS };
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().filter(|load| !load.is_empty());
    let load = load.map_or_else(String::new, |load| format!(", load {load} at the beginning"));
    let day = humantime::format_rfc3339(SystemTime::now()).to_string();
    format!("{cores} cores ({processor}{memory}), {system} {release}{load}, {}", &day[..10])
}
