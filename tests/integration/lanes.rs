//! Shows that lanes keep the platform's limit and use it: in thought against the local Cloudflare's counting, and as processes
//! that share a file.

use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flotilla_deploy::pace::{Lane, Rate, Ticket};
use flotilla_local::{Meter, RateLimit, Verdict};
use flotilla_model::clock::{Clock as _, FakeClock};
use flotilla_model::platform::{Left, Policy, Quota};
use tempfile::TempDir;

use crate::fleet::{Cloud, fleet, until, uploads};
use crate::folders::temporary_folder;
use crate::support::{Project, output};
use crate::tools::Local;

#[test]
fn the_emulators_limit_holds_unless_fleet_yaml_has_one() {
    let project = fleet(&[("acme", ""), ("bolt", "")]);
    let account = |more: &str| {
        let account = "{ id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN }";
        let fleet =
            format!("name: test\npacks:\n  tiny: {{ path: packs/tiny }}\naccounts:\n  default: {account}{more} }}\n");
        project.write("fleet.yaml", fleet);
    };
    let variables = [("FLOTILLA_CACHE_DIR", crate::fleet::cache())];
    let run = |arguments: &[&str]| {
        let mut command = project.command(&[arguments, &["--local", "--format", "json"]].concat());
        output(command.envs(variables.clone())).exits(0).json()
    };
    let lane = || {
        let planned = run(&["plan"]);
        let lane = &planned["lanes"][0];
        (lane["limit"].as_u64().expect("a limit"), lane["window_seconds"].as_f64().expect("seconds"))
    };
    account("");
    let _local = Local::start_with(&project, None, &["--limit", "2000/2"]);
    assert_eq!(lane(), (1140, 300.0), "nothing has been reported yet");
    assert_eq!(run(&["deploy", "acme"])["applied"], 1);
    assert_eq!(lane(), (1900, 2.0));
    account(", apiLimit: { requests: 50, seconds: 60, headroom: 0 }");
    assert_eq!(lane(), (50, 60.0));
}

/// What the local Cloudflare tells of its limit with each answer.
fn told(limit: RateLimit, verdict: Verdict) -> Quota {
    let name = "default".to_owned();
    let reset = Duration::from_secs(verdict.reset);
    Quota {
        left: vec![Left { name: name.clone(), requests: verdict.remaining, reset }],
        policies: vec![Policy { name, requests: limit.requests, window: limit.window }],
    }
}

/// One process sends as fast as it may, so many at once, each answered after the latency, against a platform that counts in
/// fixed windows. The share of the quota that was used in so many windows, and how often the platform refused.
fn used(limit: RateLimit, latency: Duration, at_once: usize, windows: u32) -> (f64, usize) {
    let clock = Arc::new(FakeClock::default());
    clock.sleep(Duration::from_millis(1_763_571));
    let end = clock.now() + limit.window * windows;
    let lane = Lane::new(Rate::of(limit.requests as usize, limit.window), clock.clone());
    let mut meter = Meter::default();
    let mut flying: VecDeque<(Ticket, Verdict, Duration)> = VecDeque::new();
    let (mut sent, mut refused) = (0_u64, 0);
    while clock.now() < end {
        while flying.front().is_some_and(|(_, _, answered)| *answered <= clock.now()) {
            let (ticket, verdict, _) = flying.pop_front().expect("there is one");
            if verdict.blocked {
                refused += 1;
                lane.throttled(ticket, Some(Duration::from_secs(verdict.reset)));
            } else {
                lane.answered(ticket, Some(&told(limit, verdict)));
            }
        }
        let now = clock.now();
        let mut next = flying.front().map(|(_, _, answered)| *answered);
        if flying.len() < at_once {
            match lane.try_acquire() {
                Ok(ticket) => {
                    sent += 1;
                    // It is counted half way.
                    flying.push_back((ticket, meter.count(limit, "token", now + latency / 2), now + latency));
                    continue;
                }
                Err(wait) => next = Some(next.map_or(now + wait, |next| next.min(now + wait))),
            }
        }
        clock.reach(next.expect("it waits for something"));
    }
    (sent as f64 / (limit.requests * u64::from(windows)) as f64, refused)
}

#[test]
fn nearly_the_whole_quota_is_used_and_nothing_is_refused() {
    for (requests, seconds, latency, at_once) in
        [(6000, 15, 80, 64), (1200, 300, 1000, 16), (1200, 300, 30, 4), (600, 15, 80, 8), (1000, 60, 300, 8)]
    {
        let limit = RateLimit { requests, window: Duration::from_secs(seconds) };
        // Enough windows for what each loses to add up to more than one.
        let windows = if requests > 5000 { 100 } else { 200 };
        let (used, refused) = used(limit, Duration::from_millis(latency), at_once, windows);
        assert_eq!(refused, 0, "{requests} per {seconds} s");
        assert!((0.98..=1.01).contains(&used), "{requests} per {seconds} s: {used}");
    }
}

/// A Cloudflare with a limit of 100 requests, the times at which it was asked something, and a cache for the processes.
struct Limited {
    cloud: Cloud,
    asked: Arc<Mutex<Vec<Duration>>>,
    cache: TempDir,
    seconds: u64,
}

impl Limited {
    fn start(seconds: u64) -> Limited {
        let asked: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let (times, start) = (Arc::clone(&asked), Instant::now());
        let cloud = Cloud::start_with(move |options| {
            options.limit = RateLimit { requests: 100, window: Duration::from_secs(seconds) };
            options.clock = Arc::new(move || {
                // A day of 2026.
                let now = Duration::from_secs(1_795_000_000) + start.elapsed();
                times.lock().expect("nobody panicked").push(now);
                now
            });
        });
        Limited { cloud, asked, cache: temporary_folder(), seconds }
    }

    /// A project with so many workers that take a request each, built.
    fn project(&self, prefix: &str, workers: usize) -> Project {
        let project = fleet(&[]);
        let fleet = project.read("fleet.yaml");
        let account = "accounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    \
                       token: { secret: CLOUDFLARE_API_TOKEN }\n";
        let limit = format!("    apiLimit: {{ requests: 100, seconds: {}, headroom: 0 }}\n", self.seconds);
        project.write("fleet.yaml", format!("{fleet}{account}{limit}"));
        for at in 0..workers {
            project.write(&format!("customers/{prefix}{at}.yaml"), format!("id: {prefix}{at}\nworkersDev: false\n"));
        }
        let built = self.command(&project, &["build"]).output().expect("it runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        project
    }

    fn command(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = self.cloud.command(project, arguments);
        command.env("FLOTILLA_CACHE_DIR", self.cache.path());
        command
    }

    fn deploy(&self, project: &Project) -> Child {
        let mut command = self.command(project, &["deploy", "--yes", "--format", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    /// How often a worker was uploaded and how often a request was refused.
    fn outcome(&self) -> (usize, usize) {
        let requests = self.cloud.requests();
        let refused = requests.iter().filter(|request| request.status == 429).count();
        (uploads(&requests).values().sum(), refused)
    }
}

#[track_caller]
fn succeeds(child: Child) {
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn two_processes_with_one_token_share_its_limit_and_use_it() {
    // Long windows: what the answers of a busy machine take is little beside them.
    let limited = Limited::start(8);
    // Together two windows and a few: each worker takes a look and an upload.
    let (one, two) = (limited.project("a", 50), limited.project("b", 52));
    limited.asked.lock().expect("nobody panicked").clear();
    let children = [limited.deploy(&one), limited.deploy(&two)];
    children.into_iter().for_each(succeeds);
    let asked = limited.asked.lock().expect("nobody panicked").clone();
    assert_eq!(limited.outcome(), (102, 0));
    let took = asked[asked.len() - 1] - asked[0];
    let share = 2.0 * limited.seconds as f64 / took.as_secs_f64();
    assert!((0.95..=1.0).contains(&share), "{share} of the limit was used: it took {took:?}");
}

#[test]
fn a_process_that_is_killed_and_one_that_follows_keep_to_the_limit() {
    let limited = Limited::start(2);
    let (one, two) = (limited.project("a", 90), limited.project("b", 90));
    let (mut killed, other) = (limited.deploy(&one), limited.deploy(&two));
    until("something is uploaded", || limited.outcome().0 > 30);
    killed.kill().expect("it was running");
    killed.wait().expect("it ends");
    succeeds(limited.deploy(&one));
    succeeds(other);
    // The next one begins when the budget is used up.
    succeeds(limited.deploy(&limited.project("c", 70)));
    let (uploaded, refused) = limited.outcome();
    assert_eq!(refused, 0);
    // What was in flight may be uploaded twice.
    assert!((250..=250 + 64).contains(&uploaded), "{uploaded}");
}

#[test]
fn what_a_command_waits_for_is_said_with_its_reason_and_once_on_a_line_of_its_own() {
    let limited = Limited::start(10);
    let project = limited.project("a", 1);
    let fleet = project.read("fleet.yaml").replace("requests: 100", "requests: 1");
    project.write("fleet.yaml", fleet);
    let plan = || {
        let output = limited.command(&project, &["plan", "--refresh"]).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        stderr
    };
    // The first one uses up what there is.
    plan();
    let stderr = plan();
    let waiting = "waiting for the API rate limit of account default (1 request per 10 s used) · continues in ";
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains(waiting)).collect();
    assert!(lines.iter().any(|line| line.starts_with("asking the cloud")), "beside the progress: {stderr}");
    let own = lines.iter().filter(|line| line.starts_with(waiting)).count();
    let requests = limited.cloud.requests().len();
    assert!((1..requests).contains(&own), "once per wait, of {requests} requests: {stderr}");
    assert_eq!(limited.outcome().1, 0, "Cloudflare refused none");
}
