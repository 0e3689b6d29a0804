//! Runs git in a project, and reads its output. Doesn't know what the files are for.

use std::path::Path;
use std::process::{Command, Stdio};

use flotilla_model::failure::Failure;

/// Returns a command that runs git in a folder without prompts.
pub fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Returns the output of a git command; if it fails, its complaint.
pub fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new("git is not installed"),
        _ => Failure::new(format!("git can't be started: {error}")),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("git: {}", stderr.lines().next().unwrap_or("it failed"))))
}

/// Returns whether git tracks a file. Without a repository, or without git, nothing is tracked.
pub fn is_tracked(file: &Path) -> bool {
    asked(file, &["--literal-pathspecs", "ls-files", "--error-unmatch"])
}

/// Returns whether a file lies in a repository that would take it in with the next `git add`.
pub fn is_exposed(file: &Path) -> bool {
    let in_repository =
        in_folder(file).is_some_and(|folder| output(git(folder).args(["rev-parse", "--git-dir"])).is_ok());
    in_repository && !asked(file, &["check-ignore", "--quiet"])
}

fn asked(file: &Path, question: &[&str]) -> bool {
    let (Some(folder), Some(name)) = (in_folder(file), file.file_name()) else { return false };
    output(git(folder).args(question).arg("--").arg(name)).is_ok()
}

/// Returns the folder of a file, if it is there.
fn in_folder(file: &Path) -> Option<&Path> {
    file.parent().filter(|folder| folder.is_dir())
}
