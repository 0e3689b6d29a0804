//! Shows: what people see of long work, on a terminal and elsewhere; where the time went (`--timings`, `--trace`); how
//! many threads work (`-j`).

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::support::{Project, Run, output};
use crate::terminal::Terminal;

/// Eight customers, whose deploy takes more than seven seconds on any machine: the limit is two requests a second, and
/// each wants two.
fn slow_deploy() -> (Cloud, Project) {
    let ids: Vec<String> = (1..=8).map(|number| format!("c{number}")).collect();
    let customers: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "")).collect();
    let project = fleet(&customers);
    project.write(
        "fleet.yaml",
        "name: test\npacks:\n  tiny: { path: packs/tiny }\naccounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    \
         token: { secret: CLOUDFLARE_API_TOKEN }\n    apiLimit: { requests: 2, seconds: 1, headroom: 0 }\n",
    );
    (Cloud::start(), project)
}

fn command(project: &Project, cloud: Option<&Cloud>, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.env("FLOTILLA_CACHE_DIR", cache());
    if let Some(cloud) = cloud {
        let variables = [("CLOUDFLARE_API_TOKEN", "test"), ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)];
        command.env("CLOUDFLARE_API_BASE_URL", cloud.base()).envs(variables);
    }
    command
}

fn run(project: &Project, arguments: &[&str]) -> Run {
    output(&mut command(project, None, arguments))
}

#[test]
fn keys_pause_resume_and_stop_a_deploy() {
    let (cloud, project) = slow_deploy();
    run(&project, &["build"]).exits(0);
    let mut terminal = Terminal::run(100, command(&project, Some(&cloud), &["deploy", "--yes"]));
    terminal.wait_for("[p]ause  [r]esume  [q]uit");
    terminal.press("p");
    terminal.wait_for("paused");
    // What was begun comes to its end; then nothing is sent, though there is something left.
    let mut before = 0;
    crate::fleet::until("nothing more is sent", || {
        std::thread::sleep(Duration::from_secs(2));
        let now = cloud.requests().len();
        std::mem::replace(&mut before, now) == now
    });
    terminal.press("r");
    terminal.wait_for("resumed");
    crate::fleet::until("something more is sent", || cloud.requests().len() > before);
    terminal.press("q");
    let (code, _, last) = terminal.end();
    assert_eq!(code, 4, "{last}");
    assert!(last.contains(" not attempted") && last.contains("run the same command again"), "{last}");
    assert!(last.contains("0 failed"), "{last}");
}

#[test]
fn a_large_share_of_the_fleet_is_confirmed_by_the_plans_digest() {
    let ids: Vec<String> = (10..25).map(|number| format!("c{number}")).collect();
    let project = fleet(&ids.iter().map(|id| (id.as_str(), "")).collect::<Vec<_>>());
    let cloud = Cloud::start();
    run(&project, &["build"]).exits(0);
    let plan = output(&mut command(&project, Some(&cloud), &["plan", "--format", "json"])).exits(0).json();
    let digest = plan["digest"].as_str().expect("a digest")[..8].to_owned();
    for (answer, code, applied) in [("y", 5, false), (digest.as_str(), 0, true)] {
        let mut terminal = Terminal::run(100, command(&project, Some(&cloud), &["deploy"]));
        terminal.wait_for("Type the first eight characters of the plan's digest");
        terminal.press(&format!("{answer}\n"));
        let (exit, _, last) = terminal.end();
        assert_eq!(exit, code, "{last}");
        assert_eq!(last.contains("15 applied"), applied, "{last}");
    }
}

/// The bars' fill, which no other text has.
const BAR: [char; 2] = ['█', '░'];

#[test]
fn a_terminal_shows_a_bar_for_long_work_and_nothing_for_short() {
    let (cloud, project) = slow_deploy();
    run(&project, &["build"]).exits(0);
    let (code, seen, last) = Terminal::run(80, command(&project, Some(&cloud), &["deploy", "--yes"])).end();
    assert_eq!(code, 0, "{last}");
    let bars: Vec<&str> = seen
        .iter()
        .flat_map(|screen| screen.lines())
        .map(str::trim_end)
        .filter(|line| line.starts_with("deploying "))
        .collect();
    let full = |line: &&&str| line.contains(BAR) && line.contains("/8 · ") && line.contains("/s · ");
    assert!(bars.iter().filter(full).filter(|line| line.ends_with(" s left")).count() > 10, "{bars:#?}");
    // What the limit makes it wait is known from the start: seven seconds, not what the first gust lets one hope.
    let first = bars.iter().find_map(|line| line.strip_suffix(" s left")?.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(first.is_some_and(|left| left > 4.0), "{bars:#?}");
    let counts: Vec<u64> =
        bars.iter().filter_map(|line| line.split_once("/8")?.0.rsplit(' ').next()?.parse().ok()).collect();
    assert!(counts.is_sorted() && counts.last() > counts.first(), "{counts:?}");
    assert!(!last.contains(BAR) && !last.contains("deploying") && last.contains("8 applied, 0 failed"), "{last}");
    for short in ["reading customers", "building", "planning"] {
        assert!(!seen.iter().any(|screen| screen.contains(short)), "{short} flickers");
    }
}

#[test]
fn ctrl_c_leaves_a_clean_terminal() {
    // What a command ends by itself; here, where a bar is longer than a line.
    let (cloud, project) = slow_deploy();
    run(&project, &["build"]).exits(0);
    let terminal = Terminal::run(40, command(&project, Some(&cloud), &["deploy", "--yes"]));
    terminal.wait_for("deploying");
    terminal.interrupt();
    terminal.wait_for("stopping after the requests in flight");
    let (code, _, last) = terminal.end();
    assert_eq!(code, 4, "{last}");
    assert!(!last.contains(BAR) && last.contains("not attempted"), "{last}");
    // Twice: at once.
    let terminal = Terminal::run(80, command(&project, Some(&cloud), &["deploy", "--yes", "--all"]));
    terminal.wait_for("deploying");
    terminal.interrupt();
    terminal.wait_for("stopping after the requests in flight");
    terminal.interrupt();
    let (code, _, last) = terminal.end();
    assert!(matches!(code, 130 | 4) && !last.contains(BAR), "{code}: {last}");
    // And what it doesn't.
    let project = fleet(&[("acme", "")]);
    let wait = format!("await new Promise((end) => setTimeout(end, 5000)); // {}\n", std::process::id());
    project.edit("packs/tiny/build.mjs", "const out", &format!("{wait}const out"));
    let terminal = Terminal::run(80, command(&project, None, &["build"]));
    terminal.wait_for("bundling the pack packs/tiny");
    terminal.interrupt();
    let (code, _, last) = terminal.end();
    assert_eq!((code, last.trim()), (130, ""));
}

#[test]
fn without_a_terminal_there_is_a_line_now_and_then() {
    let (cloud, project) = slow_deploy();
    crate::fleet::until("work takes less than three seconds", || {
        let start = Instant::now();
        let short = run(&project, &["build"]).exits(0);
        let is_short = start.elapsed() < Duration::from_secs(3);
        assert!(!is_short || short.stderr.is_empty(), "{}", short.stderr);
        is_short
    });
    let start = Instant::now();
    let long = output(&mut command(&project, Some(&cloud), &["deploy", "--yes"])).exits(0);
    let seconds = start.elapsed().as_secs();
    let lines: Vec<&str> = long.stderr.lines().filter(|line| line.starts_with("deploying ")).collect();
    assert!((1..=seconds / 3).contains(&(lines.len() as u64)), "{seconds} s: {lines:?}");
    for line in lines {
        assert!(line.contains("/8 · ") && line.contains("/s · ") && line.ends_with(" s left"), "{line:?}");
    }
    assert!(!long.stderr.contains('\u{1b}') && !long.stderr.contains('\r'), "{:?}", long.stderr);
    let quiet = output(&mut command(&project, Some(&cloud), &["deploy", "--yes", "--all", "--quiet"])).exits(0);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn timings_are_a_table_and_json() {
    let project = fleet(&[("acme", ""), ("bluebird", "")]);
    run(&project, &["build"]).exits(0);
    let table = run(&project, &["plan", "--timings"]).exits(0).stderr;
    let phases: Vec<&str> = table.lines().filter_map(|line| line.split("  ").next()).collect();
    let expected = ["phase", "reading the fleet", "reading customers", "building", "planning", "other", "total"];
    assert_eq!(phases, expected, "{table}");
    let json = run(&project, &["build", "--timings", "--format", "json"]).exits(0).json();
    assert_eq!(json["workers"], 2, "the rest of the object is as ever");
    let timings = json["timings"].as_array().expect("timings");
    let of = |phase: &str| timings.iter().find(|timing| timing["phase"] == phase).expect("a phase");
    assert_eq!((&of("reading customers")["items"], &of("building")["items"]), (&2.into(), &2.into()));
    let number = |timing: &Value, key: &str| timing[key].as_f64().expect("a number");
    let (total, parts) = (of("total"), &timings[..timings.len() - 1]);
    for (key, slack) in [("seconds", 1e-6), ("cpu_seconds", 1e-3), ("share", 1e-6)] {
        let sum: f64 = parts.iter().map(|part| number(part, key)).sum();
        assert!((sum - number(total, key)).abs() <= slack, "{key}: {timings:#?}");
        assert!(number(total, key) > 0.0);
    }
    // A failure has them, too; without the option there are none.
    assert!(run(&project, &["plan", "nobody", "--timings", "--format", "json"]).exits(2).json()["timings"].is_array());
    assert!(run(&project, &["build", "--format", "json"]).exits(0).json().get("timings").is_none());
}

/// The events of a trace: phases, and stages.
fn trace(project: &Project, arguments: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let run = run(project, &[arguments, &["--trace", "trace.json"]].concat());
    assert!(run.code < 2, "{run:?}");
    let events: Vec<Value> = serde_json::from_str(&project.read("trace.json")).expect("JSON");
    let of = |category: &str| events.iter().filter(|event| event["cat"] == category).cloned().collect();
    (of("phase"), of("stage"))
}

/// The threads that worked on customers.
fn threads(stages: &[Value]) -> usize {
    let mut threads: Vec<i64> = stages.iter().map(|stage| stage["tid"].as_i64().expect("a thread")).collect();
    threads.sort_unstable();
    threads.dedup();
    threads.len()
}

#[test]
fn a_trace_has_phases_and_within_them_each_customers_stages() {
    let ids: Vec<String> = (1..=200).map(|number| format!("c{number}")).collect();
    let customers: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "")).collect();
    let project = fleet(&customers);
    let hostile = "customers/a\"},\u{1b}[31m\\\n.yaml";
    project.write(hostile, "id: x\n");
    let (phases, stages) = trace(&project, &["build", "-j", "2"]);
    let named = |name: &str| phases.iter().find(|phase| phase["name"] == name).expect("a phase");
    let times = |event: &Value| {
        assert_eq!((&event["ph"], &event["pid"]), (&"X".into(), &1.into()));
        let (from, length) = (event["ts"].as_f64().expect("a time"), event["dur"].as_f64().expect("a time"));
        assert!(from >= 0.0 && length >= 0.0);
        (from, from + length)
    };
    let each =
        [("read and resolve", "reading customers", 201), ("render", "building", 200), ("write", "building", 200)];
    for (name, phase, number) in each {
        let of: Vec<&Value> = stages.iter().filter(|stage| stage["name"] == name).collect();
        assert_eq!(of.len(), number, "{name}");
        let (begin, end) = times(named(phase));
        for stage in of {
            let (from, to) = times(stage);
            assert!(begin <= from && to <= end + 0.01, "{stage} is not within {phase}");
            assert_ne!(stage["tid"], named(phase)["tid"], "it works on a thread of its own");
        }
    }
    assert!(stages.iter().any(|stage| stage["args"]["of"] == hostile));
    // On one thread, one after the other.
    let mut spans: Vec<(i64, f64, f64)> =
        stages.iter().map(|s| (s["tid"].as_i64().unwrap(), times(s).0, times(s).1)).collect();
    spans.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    assert!(spans.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1 + 0.01));
}

#[test]
fn a_trace_that_cannot_be_written_is_told() {
    let project = fleet(&[("acme", "")]);
    let told = run(&project, &["check", "--trace", "no/such/folder"]).exits(1).stderr;
    assert!(told.contains("the trace no/such/folder can't be written"), "{told}");
    let full = run(&project, &["check", "--trace", "/dev/full"]);
    assert!(!cfg!(target_os = "linux") || full.exits(1).stderr.contains("the trace /dev/full can't be written"));
}

#[test]
fn threads_are_as_many_as_asked_for() {
    let ids: Vec<String> = (1..=100).map(|number| format!("c{number}")).collect();
    let customers: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "")).collect();
    let project = fleet(&customers);
    assert_eq!(threads(&trace(&project, &["build", "-j", "1"]).1), 1);
    // What is up to date isn't worked on.
    assert_eq!(threads(&trace(&project, &["build"]).1), 0);
    // On a busy machine, one of them can have done all before the next one begins.
    crate::fleet::until("several threads have worked", || {
        std::fs::remove_dir_all(project.path(".flotilla/build")).expect("a folder");
        let number = threads(&trace(&project, &["plan", "--threads", "3"]).1);
        assert!((1..=3).contains(&number), "{number}");
        number > 1
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::fs::remove_dir_all(project.path(".flotilla/build")).expect("a folder");
    assert!((1..=cores).contains(&threads(&trace(&project, &["check"]).1)));
    for wrong in ["0", "1025", "x"] {
        run(&project, &["build", "-j", wrong]).exits(2);
    }
}
