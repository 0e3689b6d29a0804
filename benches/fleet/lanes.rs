//! Deploys at the limit: how much of it is used, what it costs, how many tokens help, beside wrangler one by one; and the rehearsal
//! of a million workers. The Cloudflare on this machine runs in the stand's process, on the same cores; each worker is a
//! module of a few lines, so that the limit is the bound and not this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_deploy::state::State;
use flotilla_local::{self as local, RateLimit};
use serde_json::{Value, json};

use crate::figures::{Report, megabytes, seconds, thousands, times};
use crate::peers::Wrangler;
use crate::process::{self, Sample};
use crate::project::{settle, stand};
use crate::rehearsal::{Rehearse, Rehearsed, rehearse};

/// The limit that most of a deploy waits for, and how long each answer takes.
const LIMIT: RateLimit = RateLimit { requests: 6000, window: Duration::from_secs(15) };
const LATENCY: Duration = Duration::from_millis(80);
/// The limit of each of several tokens: so small that this machine isn't the bound.
const SMALL: RateLimit = RateLimit { requests: 20, window: Duration::from_secs(2) };
/// The limit of Cloudflare's API.
const REAL: RateLimit = RateLimit { requests: 1200, window: Duration::from_secs(300) };
/// Out of the way.
const NONE: RateLimit = RateLimit { requests: 1_000_000, window: Duration::from_secs(1) };
/// How many workers wrangler deploys.
const WRANGLER: usize = 8;

/// Measures deploys at the limit.
pub fn run(report: &mut Report, workers: usize, rehearsed: usize) {
    report.text("### Deploys at the limit");
    at_the_limit(report, workers);
    several_tokens(report);
    beside_wrangler(report);
    rehearsal(report, rehearsed);
}

/// One token, with answers that take their time.
fn at_the_limit(report: &mut Report, workers: usize) {
    let cloud = Cloud::start(LIMIT);
    cloud.delay(LATENCY);
    let fleet = Fleet::write("limit", &cloud, workers, 1, LIMIT);
    let (sample, outcome) = fleet.deploy();
    let asked = cloud.asked();
    // Before workers are made, one list tells whether they are there.
    assert_eq!((asked.len(), &outcome["applied"]), (workers + 1, &json!(workers)), "{outcome}");
    let asked = &asked[1..];
    let quota = LIMIT.requests as usize;
    assert!(workers > quota, "with so few workers the limit is no bound");
    // Between a request and the one that had to wait for it.
    let gaps: Vec<f64> =
        asked[quota..].iter().zip(asked).map(|(later, first)| (*later - *first).as_secs_f64()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let share = LIMIT.window.as_secs_f64() / mean;
    report.text(&format!(
        "{} workers of one request each, {} requests in {} s allowed, each answered after {} ms, no headroom:",
        thousands(workers as u64),
        thousands(LIMIT.requests),
        LIMIT.window.as_secs(),
        LATENCY.as_millis(),
    ));
    report.table(&[
        row(["quota used while it was the bound", "refused", "time", "processor time", "memory"]),
        row([
            &format!("{:.1} % (aim: ≥ 98 %{})", share * 100.0, missed(share >= 0.98)),
            &outcome["throttled"].to_string(),
            &seconds(sample.seconds),
            &seconds(sample.processor.expect("it was measured")),
            &format!("{} (aim: < 250 MB)", megabytes(sample.memory.expect("it was measured"))),
        ]),
    ]);
    report.line(json!({"scenario": "limit", "workers": workers, "share": share, "outcome": outcome, "sample": sample}));
}

/// One token, and eight.
fn several_tokens(report: &mut Report) {
    let rates = [1, 8].map(|tokens| {
        let cloud = Cloud::start(SMALL);
        // With the list that each token asks for first, a whole number of windows.
        let workers = 792;
        let fleet = Fleet::write(&format!("tokens-{tokens}"), &cloud, workers, tokens, SMALL);
        let (sample, outcome) = fleet.deploy();
        let asked = cloud.asked();
        assert_eq!((asked.len(), &outcome["throttled"]), (workers + tokens, &json!(0)), "{outcome}");
        // Of the first window each token has all at once.
        let at_once = SMALL.requests as usize * tokens;
        let rate = (asked.len() - at_once) as f64 / (asked[asked.len() - 1] - asked[0]).as_secs_f64();
        report.line(json!({"scenario": "tokens", "tokens": tokens, "rate": rate, "sample": sample}));
        (tokens, rate, sample)
    });
    report.text(&format!(
        "792 workers, {} requests in {} s allowed for each token; requests a second after the first window, of which each \
         token has all at once:",
        SMALL.requests,
        SMALL.window.as_secs()
    ));
    let mut rows = vec![row(["tokens", "requests a second", "times one token", "time"])];
    for (tokens, rate, sample) in rates {
        let ratio = rate / rates[0].1;
        let aim = if tokens == 8 { format!(" (aim: ≥ 7.8{})", missed(ratio >= 7.8)) } else { String::new() };
        rows.push(row([
            &tokens.to_string(),
            &format!("{rate:.2}"),
            &format!("{}{aim}", times(ratio)),
            &seconds(sample.seconds),
        ]));
    }
    report.table(&rows);
}

/// The same workers by flotilla and by wrangler, one after the other as a script would.
fn beside_wrangler(report: &mut Report) {
    let workers = 1000;
    let cloud = Cloud::start(NONE);
    let fleet = Fleet::write("wrangler", &cloud, workers, 1, NONE);
    let wrangler = Wrangler::install();
    let home = fleet.folder.join("home");
    let by_wrangler: Vec<Sample> = (0..WRANGLER)
        .map(|at| {
            let mut command = wrangler.deploy(&fleet.folder.join("out/production").join(id(at)), &home);
            command.env("CLOUDFLARE_API_BASE_URL", &cloud.base).env("CLOUDFLARE_API_TOKEN", "bench");
            // In an account of its own: flotilla doesn't overwrite what isn't its own.
            command.env("CLOUDFLARE_ACCOUNT_ID", account(1));
            process::measure(command).0
        })
        .collect();
    let requests = cloud.asked().len();
    let of_wrangler = Each {
        requests: requests as f64 / WRANGLER as f64,
        seconds: mean(&by_wrangler, |sample| sample.seconds),
        processor: mean(&by_wrangler, |sample| sample.processor.expect("it was measured")),
    };
    let (sample, outcome) = fleet.deploy();
    assert_eq!(outcome["applied"], workers, "{outcome}");
    let of_flotilla = Each {
        requests: outcome["requests"].as_f64().expect("a number") / workers as f64,
        seconds: sample.seconds / workers as f64,
        processor: sample.processor.expect("it was measured") / workers as f64,
    };
    report.text(&format!(
        "Each worker costs, without a limit: of {} by flotilla, the build and the plan included, and of {WRANGLER} by `wrangler deploy`, one \
         after the other ({}):",
        thousands(workers as u64),
        wrangler.versions(),
    ));
    let mut rows = vec![row(["", "requests", "time", "processor time"])];
    for (what, each) in [("flotilla", &of_flotilla), ("`wrangler deploy`", &of_wrangler)] {
        rows.push(row([what, &format!("{:.2}", each.requests), &seconds(each.seconds), &seconds(each.processor)]));
    }
    let share = of_flotilla.processor / of_wrangler.processor;
    rows.push(row([
        "wrangler : flotilla",
        &times(of_wrangler.requests / of_flotilla.requests),
        &times(of_wrangler.seconds / of_flotilla.seconds),
        &format!("{} (aim: ≥ 10{})", times(1.0 / share), missed(share <= 0.1)),
    ]));
    report.table(&rows);
    let each = |each: &Each| json!({"requests": each.requests, "seconds": each.seconds, "processor": each.processor});
    report.line(json!({"scenario": "wrangler", "flotilla": each(&of_flotilla), "wrangler": each(&of_wrangler)}));
}

/// The loop under a clock that waiting moves.
fn rehearsal(report: &mut Report, workers: usize) {
    let tokens = workers.div_ceil(4000);
    let what = Rehearse { workers, tokens, limit: REAL, latency: Duration::from_millis(250) };
    let rehearsed = rehearse(what, State::in_memory());
    crate::rehearsal::holds(what, &rehearsed);
    let Rehearsed { outcome, estimate, allowed, took } = rehearsed;
    report.text(&format!(
        "The rehearsal of a bulk redeploy, by the same loop under a clock that waiting moves: {} workers, {tokens} tokens with \
         Cloudflare's limit, each answer after 250 ms, the state in memory. It must end within 1 % of what the limits allow, and within 5 % of the \
         estimate.",
        thousands(workers as u64)
    ));
    report.table(&[
        row(["its end", "what the limits allow", "estimate", "refused", "the rehearsal took"]),
        row([
            &seconds(outcome.seconds),
            &format!("{} ({:+.2} %)", seconds(allowed), (outcome.seconds / allowed - 1.0) * 100.0),
            &format!("{} ({:+.2} %)", seconds(estimate), (estimate / outcome.seconds - 1.0) * 100.0),
            &outcome.throttled.to_string(),
            &format!("{} (aim: < 60 s{})", seconds(took.as_secs_f64()), missed(took.as_secs() < 60)),
        ]),
    ]);
    report.line(json!({
        "scenario": "rehearsal", "workers": workers, "tokens": tokens, "end": outcome.seconds, "allowed": allowed,
        "estimate": estimate, "took": took.as_secs_f64(),
    }));
}

/// What one worker costs.
struct Each {
    requests: f64,
    seconds: f64,
    processor: f64,
}

fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).sum::<f64>() / samples.len() as f64
}

fn missed(met: bool) -> &'static str {
    if met { "" } else { ", **missed**" }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn id(at: usize) -> String {
    format!("c{at:05}")
}

/// An account's id.
fn account(at: usize) -> String {
    format!("{at:032x}")
}

/// A Cloudflare with a limit.
struct Cloud {
    running: local::Running,
    base: String,
}

impl Cloud {
    fn start(limit: RateLimit) -> Cloud {
        let folder = stand().join(std::process::id().to_string()).join("limited-cloud");
        let _ = fs::remove_dir_all(&folder);
        let mut options = local::Options::new(&folder);
        options.address = ([127, 0, 0, 1], 0).into();
        options.limit = limit;
        options.limits.workers = u64::MAX / 2;
        let running = local::start(options).expect("a local Cloudflare");
        let base = running.api_base();
        Cloud { running, base }
    }

    fn http(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("http://{}{path}", self.running.address());
        let client = flotilla_http::builder().no_proxy().build().expect("an HTTP client");
        let request = client.request(method.parse().expect("a method"), url);
        let request = if body.is_null() { request } else { request.json(body) };
        request.send().and_then(|answer| answer.json()).expect("an answer")
    }

    /// Each answer takes so long.
    fn delay(&self, delay: Duration) {
        self.http("POST", "/__local/faults", &json!([{"times": 0, "do": {"delay_ms": delay.as_millis() as u64}}]));
    }

    /// When it was asked something, in order.
    fn asked(&self) -> Vec<Duration> {
        let shown = self.http("GET", "/__local/requests", &Value::Null);
        assert_eq!(shown["dropped"], 0, "there were too many requests to be told of each");
        let entries = shown["requests"].as_array().expect("a list").iter();
        let mut times: Vec<_> = entries.map(|entry| entry["at"].as_u64().expect("a time")).collect();
        times.sort_unstable();
        times.into_iter().map(Duration::from_millis).collect()
    }
}

/// A fleet of workers that take a request each, in a folder of its own, and a cache of its own.
struct Fleet {
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Fleet {
    /// Writes and builds it: so many workers, spread over so many accounts, each with a token of its own.
    fn write(name: &str, cloud: &Cloud, workers: usize, tokens: usize, limit: RateLimit) -> Fleet {
        eprintln!("writing {workers} workers for {tokens} tokens");
        let folder = stand().join(std::process::id().to_string()).join(name);
        let mut environment = vec![
            ("CLOUDFLARE_API_BASE_URL".to_owned(), cloud.base.clone()),
            ("FLOTILLA_CACHE_DIR".to_owned(), folder.join("cache").to_str().expect("ASCII").to_owned()),
        ];
        let (requests, seconds) = (limit.requests, limit.window.as_secs());
        let mut text =
            "name: bench\npacks:\n  tiny: { path: packs/tiny }\ndefaults:\n  workersDev: false\naccounts:\n".to_owned();
        for at in 0..tokens {
            text += &format!(
                "  a{at}:\n    id: {{ env: ACCOUNT_{at} }}\n    token: {{ secret: TOKEN_{at} }}\n    \
                 limits: {{ workers: 1000000 }}\n    \
                 apiLimit: {{ requests: {requests}, seconds: {seconds}, headroom: 0 }}\n"
            );
            environment.push((format!("ACCOUNT_{at}"), account(at)));
            environment.push((format!("TOKEN_{at}"), format!("bench-{at}")));
        }
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        write("fleet.yaml", &text);
        write_pack(&write);
        for at in 0..workers {
            let id = id(at);
            write(&format!("customers/{id}.yaml"), &format!("id: {id}\naccount: a{}\n", at % tokens));
        }
        let fleet = Fleet { folder, environment };
        fleet.flotilla(&["build"]);
        settle();
        fleet
    }

    /// Deploys all of it; what that used, and what is told of it.
    fn deploy(&self) -> (Sample, Value) {
        eprintln!("deploying {}", self.folder.display());
        self.flotilla(&["deploy", "--yes"])
    }

    fn flotilla(&self, arguments: &[&str]) -> (Sample, Value) {
        let mut command = process::program(env!("CARGO_BIN_EXE_flotilla"));
        command.args(arguments).args(["--quiet", "--format", "json"]).current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let (sample, stdout) = process::measure(command);
        let last = stdout.lines().last().unwrap_or_default();
        (sample, serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {last:?}")))
    }
}

/// A pack with a runtime of a line, and the templates of the real one.
fn write_pack(write: &dyn Fn(&str, &str)) {
    let template = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/consent").join(name);
        fs::read_to_string(path).expect("a template of the pack")
    };
    write(
        "packs/tiny/pack.yaml",
        "name: tiny\nprefix: t\nmodule: index.ts.tera\nfiles: [wrangler.jsonc.tera]\n\
         runtime:\n  build: [node, build.mjs]\n  sources: [build.mjs]\ncatalogue: catalogue.json\n",
    );
    write("packs/tiny/package.json", "{ \"name\": \"tiny\", \"private\": true }\n");
    let lock = json!({
        "name": "tiny", "lockfileVersion": 3, "requires": true, "packages": {"": {"name": "tiny"}},
    });
    write("packs/tiny/package-lock.json", &lock.to_string());
    write(
        "packs/tiny/build.mjs",
        "import { mkdirSync, writeFileSync } from 'node:fs';\n\
         const out = process.argv.at(-1);\n\
         mkdirSync(out, { recursive: true });\n\
         writeFileSync(`${out}/runtime.js`, 'export const defineWorker = () => ({ fetch: () => new Response(\"tiny\") });\\n');\n\
         writeFileSync(`${out}/runtime.d.ts`, 'export declare function defineWorker(config: unknown): object;\\n');\n",
    );
    write("packs/tiny/catalogue.json", &json!({"destinations": {}}).to_string());
    for name in ["index.ts.tera", "wrangler.jsonc.tera"] {
        write(&format!("packs/tiny/{name}"), &template(name));
    }
}
