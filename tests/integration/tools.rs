//! Shows: that the npm packages of the tests install and run. Holds what the tests run beside flotilla: those packages
//! (tsc, wrangler and the Node.js that it needs), and `flotilla local`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use flotilla_http::builder;
use flotilla_model::digest::Digest;
use flotilla_model::progress::Progress;
use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;

use crate::folders::temporary_folder;
use crate::support::{Project, Run, output, same_variables};

/// The versions that the lock file pins, as `--version` prints them.
const VERSIONS: [(&str, &str); 3] = [("node", "v22.23.3"), ("tsc", "Version 7.0.2"), ("wrangler", "4.164.0")];

/// The folder with the `node_modules` of `tests/npm`: in flotilla's cache, installed by the first test that asks.
pub fn packages() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let (package, lock) = (include_bytes!("../npm/package.json"), include_bytes!("../npm/package-lock.json"));
        flotilla_model::cache::npm("the tests", package, lock, &Told)
            .unwrap_or_else(|failure| panic!("{failure}; {}", failure.hints.join("; ")))
    })
}

/// Straight to stderr, past the test harness, which would keep it: the first run downloads for some time.
struct Told;

impl Progress for Told {
    fn begin(&self, phase: &str, _: Option<u64>) {
        self.note(phase);
    }
    fn step(&self, _: u64) {}
    fn note(&self, text: &str) {
        // Without a stderr there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    fn end(&self) {}
}

/// The Node.js that wrangler needs, which may be newer than the machine's: its binary lies in a package of its own for
/// each system. Where there is none, the machine's.
pub fn node() -> PathBuf {
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let cpu = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let packed = packages().join(format!("node_modules/node-{os}-{cpu}/bin/node"));
    if packed.exists() { packed } else { PathBuf::from("node") }
}

/// A script of the packages, run by that Node.js.
fn script(path: &str) -> Command {
    let mut command = Command::new(node());
    command.arg(packages().join("node_modules").join(path)).stdin(Stdio::null());
    command
}

/// The TypeScript compiler.
pub fn tsc() -> Command {
    script("typescript/bin/tsc")
}

/// A port that nobody serves. wrangler takes it for the proxy to everything but this machine, so that nothing it sends
/// leaves the machine.
static ELSEWHERE: LazyLock<TcpListener> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener that doesn't wait");
    listener
});

/// Whether wrangler tried to reach another host since the last time: then a connection waits at its proxy.
pub fn sent_elsewhere() -> bool {
    ELSEWHERE.accept().is_ok()
}

/// wrangler, in a folder, with the machine's configuration and Cloudflare variables out of its sight: `home` takes the
/// place of the user's folder.
pub fn wrangler(folder: &Path, home: &Path) -> Command {
    let mut command = script("wrangler/bin/wrangler.js");
    command.current_dir(folder).env_clear().env("HOME", home).env("XDG_CONFIG_HOME", home.join("config"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs([("WRANGLER_SEND_METRICS", "false"), ("CI", "1"), ("NO_COLOR", "1")]);
    command.env("WRANGLER_LOG_PATH", home.join("logs"));
    // Compiling its 10 MB of JavaScript is a third of what a run costs; this way the first run does it for all.
    command.env("NODE_COMPILE_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/node"));
    // It asks for its newest version once an hour, and retries for ever where nobody answers: here, it has just asked.
    let asked = home.join("update-check");
    std::fs::create_dir_all(&asked).expect("a folder");
    let never_again = r#"{"latest":"4.164.0","lastUpdate":9007199254740991}"#;
    std::fs::write(asked.join("wrangler-latest.json"), never_again).expect("a file");
    command.env("TMPDIR", home);
    let proxy = format!("http://{}", ELSEWHERE.local_addr().expect("an address"));
    command.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", proxy).env("NO_PROXY", "127.0.0.1,localhost");
    command
}

/// The id of the sample fleet's account at the local Cloudflare, which names each account after itself.
pub fn local_account() -> String {
    Digest::of(b"default").to_string()[..32].to_owned()
}

/// The tokens of made-up deployers, which [`Local`] accepts beside its own.
const TOKENS: [&str; 3] = ["a-token", "t", crate::engine::TOKEN];

/// `flotilla local` for a project, as a process of its own, on a free port.
pub struct Local {
    shell: Child,
    /// `http://127.0.0.1:PORT`.
    pub origin: String,
    /// The emulator's own token.
    pub token: String,
    http: Client,
}

impl Local {
    /// Starts it and waits until it listens. A server that a `static` holds is never dropped, so a shell stands
    /// between: it ends the server, and removes `remove`, when the pipe to the tests closes, however they end.
    pub fn start(project: &Project, remove: Option<&Path>) -> Local {
        Local::start_with(project, remove, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(project: &Project, remove: Option<&Path>, more: &[&str]) -> Local {
        let mut server = project.command(&[&["local", "--port", "0"], more].concat());
        server.args(TOKENS.iter().flat_map(|token| ["--token", token]));
        let mut shell = Command::new("sh");
        let script = r#"remove=$1; shift; "$@" & server=$!; cat > /dev/null; kill $server; wait $server; [ -z "$remove" ] || rm -rf "$remove""#;
        shell.args(["-c", script, "sh"]).arg(remove.unwrap_or(Path::new(""))).arg(server.get_program());
        shell.args(server.get_args()).current_dir(project.root());
        same_variables(&server, &mut shell);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
        let lines = BufReader::new(shell.stdout.take().expect("a pipe")).lines();
        // The first lines say where it listens; nothing is written after them.
        let api = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.trim().strip_prefix("API")?.trim().to_owned()))
            .expect("`flotilla local` says where its API is");
        let origin = api.strip_suffix("/client/v4").expect("the API's address has its path").to_owned();
        let http = builder().timeout(Duration::from_secs(60)).build().expect("an HTTP client");
        let token = project.read(".flotilla/local/token").trim().to_owned();
        Local { shell, origin, token, http }
    }

    /// A request to a worker by its host.
    pub fn request(&self, method: Method, host: &str, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.origin)).header("host", host)
    }

    /// `GET` of a worker by its name.
    #[track_caller]
    pub fn get(&self, worker: &str, path: &str) -> Response {
        self.request(Method::GET, &format!("{worker}.localhost"), path).send().expect("the local Cloudflare answers")
    }

    /// What the API answers to `GET`, its `result` alone. `path` begins behind `/client/v4`.
    #[track_caller]
    pub fn api(&self, path: &str) -> Value {
        self.call(Method::GET, path, None)
    }

    /// A call of the API, which must succeed; its `result`.
    #[track_caller]
    pub fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request =
            self.http.request(method, format!("{}/client/v4{path}", self.origin)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = json(request.send().expect("the local Cloudflare answers"));
        assert_eq!(answer["success"], true, "{path}: {answer}");
        answer["result"].clone()
    }

    /// An upload through the API, which must succeed.
    #[track_caller]
    pub fn upload(&self, path: &str, metadata: &Value, module: &str, code: &str) {
        let boundary = "edge";
        let body = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"metadata\"\r\ncontent-type: application/json\r\n\r\n\
             {metadata}\r\n--{boundary}\r\ncontent-disposition: form-data; name=\"{module}\"; filename=\"{module}\"\r\n\
             content-type: application/javascript+module\r\n\r\n{code}\r\n--{boundary}--\r\n"
        );
        let request = self.http.put(format!("{}/client/v4{path}", self.origin)).bearer_auth(&self.token);
        let request = request.header("content-type", format!("multipart/form-data; boundary={boundary}"));
        let answer = json(request.body(body).send().expect("the local Cloudflare answers"));
        assert_eq!(answer["success"], true, "{path}: {answer}");
    }

    /// Sets faults, or clears them: see `flotilla_local::Fault`.
    #[track_caller]
    pub fn control(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/__local/{path}", self.origin);
        let request = match body {
            Some(body) => self.http.post(url).json(&body),
            None => self.http.delete(url),
        };
        let request = request.bearer_auth(&self.token);
        json(request.send().expect("the local Cloudflare answers"))
    }

    /// The requests to the API so far, as `METHOD path`; this look at them is none.
    pub fn journal(&self) -> Vec<String> {
        let request = self.http.get(format!("{}/__local/requests", self.origin));
        let answer = request.bearer_auth(&self.token).send();
        let answer = json(answer.expect("the local Cloudflare answers"));
        let entries = answer["requests"].as_array().expect("a list of requests");
        entries
            .iter()
            .filter(|entry| entry["path"].is_string())
            .map(|entry| format!("{} {}", entry["method"].as_str().unwrap(), entry["path"].as_str().unwrap()))
            .collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It was asked to end; how it ended matters to nobody.
        let _ = self.shell.wait();
    }
}

/// The JSON of an answer.
#[track_caller]
pub fn json(response: Response) -> Value {
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().expect("a body");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url} {status}: {error} in {text:?}"))
}

#[test]
fn the_packages_are_those_of_the_lock_file() {
    let home = temporary_folder();
    for (name, version) in VERSIONS {
        let mut command = match name {
            "node" => Command::new(node()),
            "tsc" => tsc(),
            _ => wrangler(home.path(), home.path()),
        };
        let Run { code, stdout, stderr } = output(command.arg("--version"));
        assert_eq!((code, stdout.trim()), (0, version), "{name}: {stderr}");
    }
}

#[test]
fn a_server_ends_with_its_test() {
    let project = Project::sample();
    let local = Local::start(&project, None);
    assert!(local.journal().is_empty());
    let origin = local.origin.clone();
    drop(local);
    assert!(builder().build().expect("an HTTP client").get(origin).send().is_err(), "it still listens");
    assert!(!project.path(".flotilla/local/address").exists(), "and says so to `flotilla deploy --local`");
}
