//! One workerd process: how it is started, how it reports that it listens, how it ends. Knows processes; not what they run.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::capnp::{Config, SOCKET};

/// The time that workerd may take to listen. It takes 40 ms; a machine under load takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The maximum size, in bytes, of its stderr that are kept: the first ones, which say why it ended.
const KEPT: usize = 16 << 10;

/// Runs workerd ("$@") and ends it when stdin closes, so that no workerd outlives its parent however that ends, `kill -9`
/// included. Descriptor 3 of workerd is our stdout and nothing else is, so its end is workerd's end. Its folder goes with it: once
/// workerd runs, the shell ends by no signal of the terminal, which goes to all its processes, and prints nothing to a parent that is
/// gone, as that would end it before the folder is removed.
const WATCH: &str = r#"
exec 4<&0
"$@" 3>&1 1>&2 4<&- </dev/null &
workerd=$!
trap '' HUP INT QUIT TERM PIPE
exec >&- 2>/dev/null
{ read -r _ <&4; kill -9 "$workerd"; } &
watch=$!
exec 4<&-
wait "$workerd"
kill -9 "$watch"
rm -f socket trigger config.capnp
folder=$PWD
cd / && rmdir "$folder"
"#;

/// The longest path of a socket that all systems take, in bytes.
const LONGEST_PATH: usize = 100;

/// The workerd binary.
#[derive(Clone)]
pub enum Workerd {
    /// Missing, with the reason: the API works, workers don't run.
    Missing(String),
    /// There.
    Path(PathBuf),
    /// Found by this function, which is called when the first worker runs, and again only after a failure.
    Lazy(Arc<dyn Fn() -> anyhow::Result<PathBuf> + Send + Sync>),
}

impl std::fmt::Debug for Workerd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(why) => write!(f, "Missing({why:?})"),
            Self::Path(path) => write!(f, "Path({})", path.display()),
            Self::Lazy(_) => f.write_str("Lazy"),
        }
    }
}

/// A binary that was found, and its version.
#[derive(Debug, Clone)]
pub struct Binary {
    path: PathBuf,
    /// The newest compatibility date that it knows.
    pub date: String,
}

/// Finds the binary once.
#[derive(Debug)]
pub struct Finder {
    workerd: Workerd,
    // Held while the binary is looked for, so that two requests don't fetch it twice.
    found: Mutex<Option<Binary>>,
}

impl Finder {
    /// Returns a finder that hasn't looked yet.
    #[must_use]
    pub fn new(workerd: Workerd) -> Self {
        Self { workerd, found: Mutex::new(None) }
    }

    /// The binary. A failure isn't remembered: it may be there the next time. Blocks.
    ///
    /// # Errors
    /// A sentence on why workers can't run.
    pub fn find(&self) -> Result<Binary, String> {
        let mut found = self.found.lock();
        if let Some(found) = found.as_ref() {
            return Ok(found.clone());
        }
        let path = match &self.workerd {
            Workerd::Missing(why) => return Err(format!("workers can't run here: {why}")),
            Workerd::Path(path) => path.clone(),
            Workerd::Lazy(find) => find().map_err(|error| format!("can't get workerd: {error:#}"))?,
        };
        let output = std::process::Command::new(&path).arg("--version").env_clear().output();
        let output = output.map_err(|error| format!("can't run {}: {error}", path.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        let date = version.split_whitespace().find(|word| word.len() == 10 && word.as_bytes()[4] == b'-');
        let date = date.ok_or_else(|| format!("{} --version says {version:?}: is it workerd?", path.display()))?;
        Ok(found.insert(Binary { path, date: date.to_owned() }).clone())
    }
}

/// A running workerd. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// The socket that it listens on.
    pub socket: PathBuf,
    /// The time from its start until it listened.
    pub startup: Duration,
    /// The text that the worker printed while it was loaded.
    pub printed: String,
    /// Whether it has Durable Objects.
    pub has_objects: bool,
    child: Child,
    // Its end is what ends workerd.
    stdin: Option<ChildStdin>,
    // The folder of the socket, which only its owner can enter.
    _folder: TempDir,
}

impl Process {
    /// Starts workerd with this configuration, waits until it listens, and removes the configuration's files again.
    ///
    /// # Errors
    /// The message of workerd when it doesn't start: an error of syntax, a module that doesn't exist, …
    pub async fn start(binary: &Binary, config: &Config) -> Result<Self, String> {
        let folder = private_folder().map_err(|error| format!("can't make a temporary folder: {error}"))?;
        let socket = folder.path().join(SOCKET);
        for (name, body) in &config.files {
            std::fs::write(folder.path().join(name), body).map_err(|error| format!("can't write {name}: {error}"))?;
        }
        // Taken first: on a busy machine it can be up before this thread runs again.
        let started = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", WATCH, "workerd"])
            .arg(&binary.path)
            // The worker that calls handlers has a flag that is experimental.
            .args(["serve", "--experimental", "--control-fd=3", "config.capnp"])
            .current_dir(folder.path())
            // Only what the worker is bound to: nothing of ours may leak into it.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(config.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("can't start sh: {error}"))?;
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let said = said.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                    let mut said = said.lock();
                    if said.len() < KEPT {
                        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let mut lines = BufReader::new(stdout.ok_or("BUG: stdout is piped")?).lines();
        let listening = async {
            let mut left = config.sockets.max(1);
            while let Ok(Some(line)) = lines.next_line().await {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if event["event"] == "listen" {
                    left -= 1;
                    if left == 0 {
                        return true;
                    }
                }
            }
            false
        };
        match tokio::time::timeout(PATIENCE, listening).await {
            Ok(true) => {
                for (name, _) in &config.files {
                    let _ = std::fs::remove_file(folder.path().join(name));
                }
                let startup = started.elapsed();
                let printed = said.lock().trim().to_owned();
                Ok(Self { socket, startup, printed, has_objects: config.has_objects, child, stdin, _folder: folder })
            }
            Ok(false) => {
                // It ended. Its last words may still be on their way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let said = said.lock().clone();
                Err(mask(said.trim(), &config.environment))
            }
            Err(_) => Err(format!("workerd didn't listen within {} seconds", PATIENCE.as_secs())),
        }
    }

    /// Returns whether it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None)) || !self.socket.exists()
    }

    /// Ends it and waits until it has.
    pub async fn end(mut self) {
        drop(self.stdin.take());
        // The shell kills workerd as soon as its stdin closes; nothing more can be done where that hangs.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
    }
}

/// The beginning of the names of folders with sockets; the id of their process follows.
const PREFIX: &str = "local-cloudflare-";

/// Removes the folders of workers whose emulator and whose shell were killed, so that nothing could remove them: those of this user on
/// whose sockets nothing listens. Others' are left alone.
pub fn remove_leftovers() {
    let Ok(own) = private_folder().and_then(|folder| folder.path().metadata()) else { return };
    let mut places = vec![std::env::temp_dir(), PathBuf::from("/tmp")];
    places.dedup();
    for entry in places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // One that doesn't listen yet is starting.
        let is_settled =
            |found: &Metadata| found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > PATIENCE));
        let is_own =
            entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own.uid() && is_settled(&found));
        if is_own && std::os::unix::net::UnixStream::connect(entry.path().join(SOCKET)).is_err() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Creates a folder that only its owner can enter, with a path that is short enough for a socket.
fn private_folder() -> std::io::Result<TempDir> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).permissions(std::fs::Permissions::from_mode(0o700));
    let folder = builder.tempdir()?;
    match folder.path().join(SOCKET).as_os_str().len() > LONGEST_PATH {
        true => builder.tempdir_in(Path::new("/tmp")),
        false => Ok(folder),
    }
}

/// The text without the values of variables.
fn mask(text: &str, environment: &[(String, String)]) -> String {
    let values = environment.iter().map(|(_, value)| value).filter(|value| value.len() > 3);
    values.fold(text.to_owned(), |text, value| text.replace(value.as_str(), "***"))
}
