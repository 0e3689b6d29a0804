//! Runs git in a project, and reads its output. Doesn't know what the files are for.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flotilla_model::failure::Failure;

/// The variables by which a caller of git chooses another repository, index or object store, as hooks do for their own (`git rev-parse
/// --local-env-vars`, without those that carry configuration). Questions are about the repository that contains a folder.
const OF_A_REPOSITORY: [&str; 14] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Returns a command that runs git in a folder, in the repository of that folder, without prompts, in English.
pub fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).stdin(Stdio::null()).env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0");
    for name in
        OF_A_REPOSITORY.into_iter().chain(["GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"])
    {
        command.env_remove(name);
    }
    command
}

/// Returns the output of a git command. If git fails, the error has git's own words.
pub fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new("git is not installed"),
        _ => Failure::new(format!("git can't be started: {error}")),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(refusal(&output.stderr))
}

/// Returns what git said before it failed, and as help the command that it suggests, if it does.
fn refusal(stderr: &[u8]) -> Failure {
    let stderr = String::from_utf8_lossy(stderr);
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines().find(|line| line.starts_with("fatal:") || line.starts_with("error:")).or_else(|| lines().next());
    let said = said.map_or("it failed without a message", |line| line.trim_start_matches("fatal:").trim());
    let failure = Failure::new(format!("git: {said}"));
    match lines().find(|line| line.starts_with("git config ")) {
        Some(command) => failure.hint(format!("if you trust that repository: {command}")),
        None => failure,
    }
}

/// Returns whether a folder is in a git work tree. In a bare repository, it doesn't.
///
/// # Errors
/// A repository that is there but that git can't or won't read: it is broken, or belongs to another user.
pub fn is_in_work_tree(folder: &Path) -> Result<bool, Failure> {
    // Of a repository without a valid HEAD, git says that there is none.
    let repository = searched(folder).map(|folder| folder.join(".git")).find(|path| path.exists());
    let answer = match (git(folder).args(["rev-parse", "--is-inside-work-tree"]).output(), &repository) {
        (Ok(answer), _) => answer,
        // Without git, nothing can be committed on this machine; but in a repository, somebody else may have.
        (Err(_), Some(_)) => return Err(Failure::new("git is not installed, and the project is in a git repository")),
        (Err(_), None) => return Ok(false),
    };
    let is_inside = answer.stdout.trim_ascii() == b"true";
    match (answer.status.success(), repository) {
        (true, None) => Ok(is_inside),
        (true, Some(_)) if is_inside => Ok(true),
        (true, Some(path)) => Err(Failure::new(format!("git: the repository {} has no work tree", path.display()))
            .hint("is `core.bare` set in its configuration? git config --unset core.bare")),
        // "(or any of the parent directories)" and "(or any parent up to mount point /)": git looked everywhere. Any other complaint,
        // as "not a git repository: /gone/.git/worktrees/x", is about a repository that is there.
        (false, None) if answer.stderr.starts_with(b"fatal: not a git repository (or any ") => {
            match std::env::var_os("GIT_DIR") {
                Some(_) => {
                    Err(Failure::new(format!("GIT_DIR is set, but {} is in no git work tree", folder.display()))
                        .hint("unset GIT_DIR, or run this in a work tree (git worktree add)"))
                }
                None => Ok(false),
            }
        }
        (false, Some(path)) if answer.stderr.starts_with(b"fatal: not a git repository (or any ") => {
            Err(Failure::new(format!("git: {} is not a valid repository", path.display()))
                .hint("make `git status` work in this folder"))
        }
        (false, _) => Err(refusal(&answer.stderr)),
    }
}

/// Returns the folders in which git looks for the repository of a folder: this one and those above it, as far as they are on the
/// same file system, unless GIT_DISCOVERY_ACROSS_FILESYSTEM says otherwise.
fn searched(folder: &Path) -> impl Iterator<Item = &Path> {
    let device = |folder: &Path| std::fs::metadata(folder).map(|metadata| metadata.dev()).ok();
    let across = std::env::var("GIT_DISCOVERY_ACROSS_FILESYSTEM");
    let is_across = across.is_ok_and(|value| !["", "0", "false", "no", "off"].contains(&value.to_lowercase().as_str()));
    searched_while(folder, move |above, below| is_across || device(above) == device(below))
}

/// Returns a folder and those above it, as long as each may be reached from the one below it.
fn searched_while(folder: &Path, reaches: impl Fn(&Path, &Path) -> bool) -> impl Iterator<Item = &Path> {
    let mut below: Option<&Path> = None;
    folder.ancestors().take_while(move |above| {
        let is_reached = below.is_none_or(|below| reaches(above, below));
        below = Some(above);
        is_reached
    })
}

/// Returns whether git tracks a file, or the file that a symbolic link of that path leads to.
///
/// # Errors
/// As [`is_in_work_tree`].
pub fn is_tracked(file: &Path) -> Result<bool, Failure> {
    let target = file.canonicalize().ok().filter(|target| target != file);
    for file in [Some(file), target.as_deref()].into_iter().flatten() {
        let Some((folder, name)) = in_work_tree(file)? else { continue };
        if !output(git(folder).args(["--literal-pathspecs", "ls-files", "-z", "--"]).arg(name))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether the next `git add` would add a file: it is in a work tree, and no rule ignores it.
///
/// # Errors
/// As [`is_in_work_tree`].
pub fn is_exposed(file: &Path) -> Result<bool, Failure> {
    let Some((folder, name)) = in_work_tree(file)? else { return Ok(false) };
    let mut question = git(folder);
    let answer = question.args(["check-ignore", "--quiet", "--"]).arg(name).output();
    let answer = answer.map_err(|error| Failure::new(format!("git can't be started: {error}")))?;
    match answer.status.code() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(refusal(&answer.stderr)),
    }
}

/// Returns the folder and the name of a file, if it is in a work tree.
fn in_work_tree(file: &Path) -> Result<Option<(&Path, &OsStr)>, Failure> {
    let (Some(folder), Some(name)) = (file.parent().filter(|folder| folder.is_dir()), file.file_name()) else {
        return Ok(None);
    };
    Ok(is_in_work_tree(folder)?.then_some((folder, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_beyond_a_mount_point_is_none() {
        let all = |mounted: &'static str| {
            let reaches = move |_: &Path, below: &Path| below != Path::new(mounted);
            searched_while(Path::new("/a/b/c"), reaches)
                .map(|path| path.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(all("/none"), ["/a/b/c", "/a/b", "/a", "/"]);
        assert_eq!(all("/a/b"), ["/a/b/c", "/a/b"]);
        assert_eq!(all("/a/b/c"), ["/a/b/c"]);
        // Folders of one file system are all looked at.
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x/y");
        std::fs::create_dir_all(&deep).unwrap();
        assert!(searched(&deep).any(|path| path == folder.path()));
    }
}
