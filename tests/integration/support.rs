//! Projects in temporary folders, and the program run in them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use wait4::Wait4 as _;

use crate::folders::temporary_folder;

/// The time after which a test gives up waiting for a condition: far more than any takes, also on a machine that does
/// much else.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The repository: the sample fleet lies there.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project in a folder of its own, removed at the end.
pub struct Project {
    folder: TempDir,
}

/// What a command gave.
#[derive(Debug)]
pub struct Run {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Run {
    /// The JSON object on the last line of stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}\n{self:#?}"))
    }

    /// Asserts an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, code, "\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl Project {
    /// A project with no customers: the sample fleet's pack and a fleet.yaml that names it.
    pub fn empty() -> Project {
        Project::empty_in(temporary_folder())
    }

    /// The same, in this folder.
    pub fn empty_in(folder: TempDir) -> Project {
        let project = Project { folder };
        copy(&repository().join("templates"), &project.path("templates"));
        project.write("fleet.yaml", "name: test\npacks:\n  consent: { path: templates/consent }\n");
        std::fs::create_dir(project.path("customers")).expect("a folder for customers");
        project
    }

    /// A folder as a project, with nothing in it.
    pub fn at(folder: TempDir) -> Project {
        Project { folder }
    }

    /// A copy of the sample fleet.
    pub fn sample() -> Project {
        let project = Project::empty();
        for file in ["fleet.yaml", "customers", "schema"] {
            copy(&repository().join(file), &project.path(file));
        }
        project
    }

    /// The project's folder.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the project.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Project {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
        self
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Replaces text in a file; it must be there.
    #[track_caller]
    pub fn edit(&self, path: &str, from: &str, to: &str) -> &Project {
        let text = self.read(path);
        assert!(text.contains(from), "{path} has no {from:?}");
        self.write(path, text.replace(from, to))
    }

    /// The program with these arguments, in this project, with none of the caller's Cloudflare variables.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null());
        for name in ["CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_BASE_URL", "NO_COLOR"] {
            command.env_remove(name);
        }
        // A third of a short run is zeroing the huge pages that the allocator would take.
        command.env("MIMALLOC_ALLOW_THP", "0");
        command
    }

    /// Runs the program.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, &[])
    }

    /// Runs the program with these environment variables.
    #[track_caller]
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
        output(self.command(arguments).envs(environment.iter().copied()))
    }

    /// All files below a folder, by path from there, with their bytes.
    pub fn files(&self, folder: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
        let mut files = std::collections::BTreeMap::new();
        let root = self.path(folder);
        let mut open = vec![root.clone()];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(&root).expect("below the folder").to_string_lossy().into_owned();
                    files.insert(name, std::fs::read(&path).expect("a file"));
                }
            }
        }
        files
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn output(command: &mut Command) -> Run {
    ended(&command.output().expect("the program starts"))
}

/// Runs a command to its end; what it gave, and the processor's time that it took, which doesn't depend on what else the
/// machine does.
#[track_caller]
pub fn timed(command: &mut Command) -> (Run, Duration) {
    let mut child = spawn(command);
    let (mut stdout, mut stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes).expect("its output");
    let stderr = reader.join().expect("the reader ends").expect("its output");
    let used = child.wait4().expect("it ends");
    let run = ended(&Output { status: used.status, stdout: bytes, stderr });
    (run, used.rusage.utime + used.rusage.stime)
}

/// Starts a command with its output kept, for [`finish`].
pub fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// What a command gives that was started before.
pub fn finish(child: Child) -> Run {
    ended(&child.wait_with_output().expect("it ends"))
}

fn ended(output: &Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Gives a command the variables of another one, and takes from it those that the other one is without.
pub fn same_variables(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// Reads an HTTP request to its end: its head, and its body.
pub fn http_request(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                head += &line;
            }
        }
    }
    let mut body = Vec::new();
    let _ = reader.take(length).read_to_end(&mut body);
    (head, body)
}

/// Copies a file or a folder, without node_modules.
pub fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("a folder");
        for entry in std::fs::read_dir(from).expect("a folder").flatten() {
            if entry.file_name() != "node_modules" {
                copy(&entry.path(), &to.join(entry.file_name()));
            }
        }
    } else {
        std::fs::copy(from, to).expect("a file");
    }
}
