//! `flotilla dev` and `flotilla logs`: a save is deployed, what workers log is printed, errors leave the workers as they are, and nothing
//! stays behind when they end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::bundler;
use crate::fleet::{cache, fleet, until};
use crate::support::{PATIENCE, Project};
use crate::terminal::Terminal;
use crate::tools::Local;

/// A pack whose workers say `one`, print a line, and throw on request.
const BUILD: &str = "import { mkdirSync, writeFileSync } from 'node:fs';
const out = process.argv.at(-1);
mkdirSync(out, { recursive: true });
writeFileSync(`${out}/runtime.js`, `export const defineWorker = () => ({ fetch(request, env) {
  const { pathname } = new URL(request.url);
  console.log('got', pathname, env.API_KEY);
  if (pathname === '/odd') {
    let deep = [];
    for (let i = 0; i < 500; i++) deep = [deep];
    console.log('\\ud800', deep);
  }
  if (pathname === '/throw') throw new TypeError('boom');
  return new Response('one');
} });\\n`);
writeFileSync(`${out}/runtime.d.ts`, 'export declare function defineWorker(config: unknown): object;\\n');
";

fn project() -> Project {
    let project =
        fleet(&[("acme", "environments: { production: {} }\n"), ("bird", "environments: { production: {} }\n")]);
    project.write("packs/tiny/build.mjs", BUILD);
    project
}

/// flotilla without any account or token.
fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.env("FLOTILLA_CACHE_DIR", cache());
    for name in ["CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_BASE_URL"] {
        command.env_remove(name);
    }
    command
}

/// A running command and the objects that it prints.
struct Running {
    child: Child,
    lines: Receiver<Value>,
    stderr: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut stderr = child.stderr.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no object: {line}")));
            }
        });
        let (sender, errors) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        Running { child, lines, stderr: errors }
    }

    /// The next object that is wanted; others are passed over.
    fn next(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(object) if wanted(&object) => return object,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {what}; stderr: {:?}", self.stderr.try_recv())
                }
            }
        }
    }

    fn deployed(&self) -> Value {
        self.next("deploy", |object| object["deployed"].is_u64())
    }

    fn event(&self, path: &str) -> Value {
        self.next(path, |object| object["event"]["request"]["url"].as_str().is_some_and(|url| url.ends_with(path)))
    }

    /// Interrupts it; its exit code.
    fn interrupt(&mut self) -> i32 {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it is there");
        self.child.wait().expect("it ends").code().unwrap_or(-1)
    }
}

/// The processes below one.
fn below(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_tasks: String =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
    let mut found: Vec<u32> =
        (children + " " + &of_tasks).split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found.iter().flat_map(|pid| [vec![*pid], below(*pid)].concat()).collect()
}

fn answer(address: &str, worker: &str, path: &str) -> String {
    let http = flotilla_http::builder().no_proxy().build().expect("a client");
    let request =
        http.get(format!("{}{path}", address.trim_end_matches('/'))).header("host", format!("{worker}.localhost"));
    request.send().expect("an answer").text().expect("text")
}

#[test]
fn each_save_is_deployed_and_what_workers_log_is_printed() {
    let project = project();
    project.write(".env", "ACME_KEY=canary-of-acme\n");
    project.write(
        "customers/acme.yaml",
        "id: acme\nenvironments: { production: {} }\nsecrets: { API_KEY: { secret: ACME_KEY } }\n",
    );
    let mut dev = Running::start(command(&project, &["dev", "--port", "0", "--json"]));
    let address =
        dev.next("address", |object| object["address"].is_string())["address"].as_str().expect("text").to_owned();
    let first = dev.deployed();
    assert_eq!((&first["deployed"], &first["failed"], &first["open"]), (&2.into(), &0.into(), &0.into()));
    assert_eq!(answer(&address, "t-acme", "/first"), "one");
    let event = dev.event("/first");
    assert_eq!((&event["scriptName"], &event["event"]["response"]["status"]), (&"t-acme".into(), &200.into()));
    // The value of a secret is not printed.
    assert_eq!(event["logs"][0]["message"], serde_json::json!(["got", "/first", "***"]), "{event}");
    // Half of a surrogate pair, and what is nested deeper than readers of JSON follow.
    answer(&address, "t-bird", "/odd");
    assert_eq!(dev.event("/odd")["logs"][1]["message"][0], "\u{fffd}");
    answer(&address, "t-bird", "/throw");
    let event = dev.event("/throw");
    assert_eq!((&event["outcome"], &event["exceptions"][0]["message"]), (&"exception".into(), &"boom".into()));

    // The code: all workers. A customer: its own.
    project.write("packs/tiny/build.mjs", BUILD.replace("'one'", "'two'"));
    assert_eq!(dev.deployed()["deployed"], 2);
    assert_eq!(answer(&address, "t-bird", "/second"), "two");
    project.write("customers/bird.yaml", "id: bird\nenvironments: { production: {} }\nvars: { A: b }\n");
    assert_eq!(dev.deployed()["deployed"], 1);
    // A secret's value.
    project.write(".env", "ACME_KEY=canary-of-another\n");
    assert_eq!(dev.deployed()["deployed"], 1);

    // An error stays its customer's, and the worker runs on.
    project.write("customers/bird.yaml", "id: bird\nnonsense: 1\n");
    let broken = dev.deployed();
    assert_eq!((&broken["deployed"], &broken["open"]), (&0.into(), &1.into()));
    assert_eq!(answer(&address, "t-bird", "/third"), "two");
    project.write("customers/acme.yaml", "id: acme\nenvironments: { production: {} }\nvars: { A: c }\n");
    let other = dev.deployed();
    assert_eq!((&other["deployed"], &other["open"]), (&1.into(), &1.into()));
    project.write("fleet.yaml", "name: [\n");
    assert_eq!(dev.deployed()["deployed"], 0);
    project.write("fleet.yaml", "name: test\npacks:\n  tiny: { path: packs/tiny }\n");
    dev.deployed();
    project.write("customers/bird.yaml", "id: bird\nenvironments: { production: {} }\nvars: { A: d }\n");
    let fixed = dev.deployed();
    assert_eq!((&fixed["deployed"], &fixed["open"]), (&1.into(), &0.into()));

    // Another command follows a worker of it, and leaves no tail behind.
    let mut logs = Running::start(command(&project, &["logs", "acme", "--local", "--json", "--method", "post"]));
    let http = flotilla_http::builder().no_proxy().build().expect("a client");
    until("the tail is there", || {
        let token = project.read(".flotilla/local/token");
        let requests =
            http.get(format!("{address}__local/requests")).bearer_auth(token.trim()).send().expect("an answer");
        requests.text().expect("text").contains("/tails\"")
    });
    let post = |path: &str| {
        http.post(format!("{}{path}", address.trim_end_matches('/')))
            .header("host", "t-acme.localhost")
            .send()
            .expect("an answer");
    };
    let got = (0..50).find_map(|_| {
        answer(&address, "t-acme", "/not-followed");
        post("/followed");
        logs.lines.recv_timeout(Duration::from_millis(400)).ok()
    });
    let got = got.expect("an event");
    assert!(got["event"]["request"]["url"].as_str().expect("text").ends_with("/followed"), "{got}");
    assert_eq!(logs.interrupt(), 0);
    let stderr = logs.stderr.recv_timeout(PATIENCE).expect("stderr");
    assert!(stderr.contains("connected to t-acme"), "{stderr}");
    let requests =
        http.get(format!("{address}__local/requests")).bearer_auth(project.read(".flotilla/local/token").trim()).send();
    let requests = requests.expect("an answer").json::<Value>().expect("JSON");
    let requests = requests["requests"].as_array().expect("a list");
    let of = |method: &str| {
        let is = |request: &&Value| {
            request["method"] == method && request["path"].as_str().is_some_and(|path| path.contains("/tails"))
        };
        requests.iter().filter(is).count()
    };
    assert_eq!((of("POST"), of("DELETE")), (1, 1));

    // A stdout that is full ends it at the first event.
    let mut full = command(&project, &["logs", "acme", "--local", "--json"]);
    let full = full.stdout(File::options().write(true).open("/dev/full").expect("Linux")).stderr(Stdio::piped());
    let mut full = full.spawn().expect("it starts");
    until("it ends", || {
        answer(&address, "t-acme", "/full");
        full.try_wait().expect("a process").is_some()
    });
    let lost = full.wait_with_output().expect("it has ended");
    let told = String::from_utf8_lossy(&lost.stderr);
    assert_eq!(lost.status.code(), Some(1), "{told}");
    assert!(told.contains("error: stdout can't be written: No space left on device"), "{told}");

    // It ends with everything that it started.
    let children = below(dev.child.id());
    assert!(children.len() >= 2, "workers run: {children:?}");
    assert_eq!(dev.interrupt(), 0);
    until("no process is left", || children.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
    assert!(!project.path(".flotilla/local/address").exists());
    for (file, bytes) in project.files(".flotilla") {
        assert!(!String::from_utf8_lossy(&bytes).contains("canary-of"), "{file} holds a secret");
    }
    let stderr = dev.stderr.recv_timeout(PATIENCE).expect("stderr");
    for text in ["error[S0201]: unknown key `nonsense`", "fixed [S0201] customers/bird.yaml"] {
        assert!(stderr.contains(text), "{text}: {stderr}");
    }
    assert_eq!(stderr.matches("error[S0201]").count(), 1, "an error is printed once: {stderr}");
}

#[test]
fn a_terminal_shows_logs_and_takes_keys() {
    let project = project();
    let mut terminal = Terminal::run(100, command(&project, &["dev", "acme", "--port", "0"]));
    terminal.wait_for("t-acme deployed in");
    terminal.wait_for("[q]uit");
    let address = format!("http://{}", project.read(".flotilla/local/address"));
    answer(&address, "t-acme", "/throw");
    terminal.wait_for("t-acme  error  TypeError: boom");
    terminal.press("r");
    terminal.wait_for("no changes in");
    // Once, also when it has been quiet for longer than it looks.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(terminal.raw().matches("no changes in").count(), 1, "{}", terminal.raw());
    project.write("customers/acme.yaml", "id: acme\nenvironments: { production: {} }\nnonsense: 1\n");
    terminal.wait_for("unknown key `nonsense`");
    terminal.wait_for("nothing deployed in");
    terminal.press("q");
    let (code, _, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("t-acme  GET    /throw exception") && screen.contains("stopped"), "{screen}");
    assert!(!screen.contains("t-bird"), "only what is selected is deployed: {screen}");
}

#[test]
fn a_lost_connection_is_made_again() {
    let project = project();
    let start = |port: &str| {
        let dev = Running::start(command(&project, &["dev", "acme", "--port", port, "--json"]));
        let address = dev.next("address", |object| object["address"].is_string())["address"].clone();
        dev.deployed();
        (dev, address.as_str().expect("text").to_owned())
    };
    let (mut dev, address) = start("0");
    let logs = Running::start(command(&project, &["logs", "acme", "--local", "--json"]));
    let follows = |path: &str| {
        let got = (0..200).find_map(|_| {
            answer(&address, "t-acme", path);
            let url = |event: &Value| event["event"]["request"]["url"].as_str().is_some_and(|url| url.ends_with(path));
            logs.lines.recv_timeout(Duration::from_millis(300)).ok().filter(url)
        });
        assert!(got.is_some(), "no {path}");
    };
    follows("/before");
    assert_eq!(dev.interrupt(), 0);
    let port = address.trim_end_matches('/').rsplit_once(':').expect("a port").1.to_owned();
    let (_dev, again) = start(&port);
    assert_eq!(again, address);
    follows("/after");
}

#[test]
fn logs_say_that_the_emulator_has_stopped() {
    let project = project();
    let mut dev = Running::start(command(&project, &["dev", "acme", "--port", "0", "--json"]));
    dev.deployed();
    let mut logs = Running::start(command(&project, &["logs", "acme", "--local", "--json"]));
    let address = format!("http://{}/", project.read(".flotilla/local/address"));
    let is_followed = (0..200).any(|_| {
        answer(&address, "t-acme", "/before");
        logs.lines.recv_timeout(Duration::from_millis(300)).is_ok()
    });
    assert!(is_followed, "no event");
    kill_process(Pid::from_child(&dev.child), Signal::KILL).expect("it is there");
    dev.child.wait().expect("it ends");
    // Two attempts.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(logs.interrupt(), 0);
    let stderr = logs.stderr.recv_timeout(PATIENCE).expect("stderr");
    let lost = "the connection to t-acme is lost (the local Cloudflare emulator has stopped); connecting again in ";
    assert!(stderr.contains(lost), "{stderr}");
}

/// The folders of workers' sockets.
fn socket_folders(folder: &std::path::Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("local-cloudflare-")).collect()
}

#[test]
fn one_that_is_killed_leaves_no_folders_behind() {
    let project = project();
    let temporary = tempfile::Builder::new().prefix("t").tempdir_in("/tmp").expect("a folder");
    let start = || {
        let mut dev = command(&project, &["dev", "--port", "0", "--json"]);
        std::os::unix::process::CommandExt::process_group(dev.env("TMPDIR", temporary.path()), 0);
        let dev = Running::start(dev);
        dev.deployed();
        let address = format!("http://{}/", project.read(".flotilla/local/address"));
        answer(&address, "t-acme", "/");
        assert!(!socket_folders(temporary.path()).is_empty(), "a worker runs");
        dev
    };
    // As when the machine ends it, and when its terminal is closed: then everything that it started gets the signal, too.
    for (signal, whole_group) in [(Signal::KILL, false), (Signal::HUP, true)] {
        let mut dev = start();
        let pid = Pid::from_child(&dev.child);
        match whole_group {
            true => rustix::process::kill_process_group(pid, signal).expect("it is there"),
            false => kill_process(pid, signal).expect("it is there"),
        }
        dev.child.wait().expect("it ends");
        until("no folder is left", || socket_folders(temporary.path()).is_empty());
    }
    // Where even the shells are killed, the next one removes what is left of a process that is gone.
    let mut dev = start();
    rustix::process::kill_process_group(Pid::from_child(&dev.child), Signal::KILL).expect("it is there");
    dev.child.wait().expect("it ends");
    let left = socket_folders(temporary.path());
    assert!(!left.is_empty(), "nobody could remove them");
    let before = std::time::SystemTime::now() - Duration::from_secs(120);
    for name in &left {
        let folder = File::open(temporary.path().join(name)).expect("a folder");
        folder.set_modified(before).expect("its time is set");
    }
    let dev = start();
    let now = socket_folders(temporary.path());
    assert!(left.iter().all(|name| !now.contains(name)), "{left:?} {now:?}");
    drop(dev);
    until("no folder is left", || socket_folders(temporary.path()).is_empty());
}

#[test]
fn workers_that_are_skipped_are_counted() {
    let project = project();
    project.write("customers/bird.yaml", "id: bird\nenvironments: { production: {} }\ncompatibilityDate: 2099-01-01\n");
    let dev = Running::start(command(&project, &["dev", "--port", "0", "--json"]));
    let first = dev.deployed();
    assert_eq!((&first["deployed"], &first["skipped"][0]["customer"]), (&1.into(), &"bird".into()), "{first}");
    drop(dev);
    let mut terminal = Terminal::run(120, command(&project, &["dev", "--port", "0"]));
    terminal.wait_for(" · 1 customer is skipped");
    terminal.wait_for("[q]uit");
    terminal.press("q");
    let (code, _, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("skipped bird: its compatibility date is in the future"), "{screen}");
}

#[test]
fn the_emulator_prints_its_addresses_as_json() {
    let project = project();
    let mut local = Running::start(command(&project, &["local", "--port", "0", "--json"]));
    let object = local.next("address", |object| object["address"].is_string());
    let address = object["address"].as_str().expect("text");
    assert_eq!(object["api"], format!("{address}client/v4"));
    assert!(object["page"].as_str().expect("text").starts_with(address), "{object}");
    assert_eq!(local.interrupt(), 0);
}

#[test]
fn only_one_runs_and_logs_need_one() {
    let project = project();
    let logs = project.run(&["logs", "acme", "--local"]).exits(1);
    assert!(logs.stderr.contains("the local Cloudflare emulator is not running"), "{logs:?}");
    assert!(logs.stderr.contains("`flotilla dev`"), "{logs:?}");
    let _local = Local::start(&project, None);
    let second = project.run_with(&["dev", "--port", "0"], &[("FLOTILLA_CACHE_DIR", cache().to_str().expect("text"))]);
    assert_eq!(second.code, 5, "{second:?}");
    for text in ["another local Cloudflare emulator is running", "`flotilla deploy --local`"] {
        assert!(second.stderr.contains(text) && !second.stderr.contains("unknown"), "{second:?}");
    }
    let missing = project.run(&["logs", "nobody", "--local"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    let undeployed = project.run(&["logs", "acme", "--local"]).exits(1);
    assert!(undeployed.stderr.contains("t-acme is not deployed"), "{undeployed:?}");
    let role = project.run(&["logs", "acme", "--local", "--worker", "api"]).exits(2);
    assert!(role.stderr.contains("no worker is selected"), "{role:?}");
}

#[test]
fn workers_of_a_namespace_have_no_tails() {
    let project = project();
    project.write(
        "fleet.yaml",
        "name: test\npacks:\n  tiny: { path: packs/tiny }\naccounts:\n  main:\n    id: 0123456789abcdef0123456789abcdef\n    \
         token: { secret: CLOUDFLARE_API_TOKEN }\n    dispatchNamespace: shops\ndefaults: { account: main }\n",
    );
    let logs = project.run_with(&["logs", "acme"], &[("CLOUDFLARE_API_TOKEN", "a-token")]).exits(1);
    for text in ["in the dispatch namespace shops", "npx wrangler tail", "Logpush"] {
        assert!(logs.stderr.contains(text), "{text}: {logs:?}");
    }
}

#[test]
fn a_source_outside_of_a_wrangler_projects_folder_is_followed() {
    let project = bundler::fleet();
    project.write("apps/shared/name.ts", "export const name = \"one\";\n");
    let code = "import { name } from \"../../shared/name\";\nexport class Counter {}\nexport default { fetch: () => new Response(name) };\n";
    project.write("apps/web/src/index.ts", code);
    for arguments in [&["dev", "--port", "0", "--json"][..], &["build", "--watch", "--json"]] {
        let mut command = command(&project, arguments);
        command.envs(bundler::variables(&project));
        let watch = Running::start(command);
        let is_whole = |object: &Value| object["deployed"].is_u64() || object["written"].is_u64();
        watch.next("first result", is_whole);
        let before = project.files("out/bundles");
        project.edit("apps/shared/name.ts", "one", "one more");
        until("the edit is built", || project.files("out/bundles") != before);
    }
}
