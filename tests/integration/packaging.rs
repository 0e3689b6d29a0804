//! Shows: what a release publishes works: the npm packages start the binary, archives hold what they should, and the workflows, the
//! Dockerfile and the forms have nothing that their linters object to.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use flotilla_model::cache;
use flotilla_model::digest::Framed;
use flotilla_model::failure::Failure;
use flotilla_spec::yaml;
use serde_json::Value;

use crate::folders::temporary_folder;
use crate::init::mistakes;
use crate::support::{Run, finish, output, repository, spawn};
use crate::tools;

/// The targets of packaging/project.mjs.
const TARGETS: [&str; 4] =
    ["aarch64-apple-darwin", "aarch64-unknown-linux-musl", "x86_64-apple-darwin", "x86_64-unknown-linux-musl"];

/// The linters, installed once by pip.
pub struct Linters {
    folder: PathBuf,
}

impl Linters {
    /// Returns the linters of tests/packaging/requirements.txt.
    pub fn get() -> &'static Linters {
        static LINTERS: OnceLock<Linters> = OnceLock::new();
        LINTERS.get_or_init(|| {
            let requirements = repository().join("tests/packaging/requirements.txt");
            let text = std::fs::read(&requirements).expect("a list of packages");
            let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
            let key = Framed::new("pip").field(system.as_bytes()).field(&text).finish();
            let folder = cache::entry("pip", &key, |folder| {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:", "--no-deps"])
                    .args(["--disable-pip-version-check", "--root-user-action=ignore", "--requirement"])
                    .arg(&requirements)
                    .arg("--target")
                    .arg(folder);
                let run = output(&mut pip);
                if run.code == 0 { Ok(()) } else { Err(Failure::new(format!("pip failed: {run:?}"))) }
            });
            Linters { folder: folder.unwrap_or_else(|failure| panic!("{failure}")) }
        })
    }

    /// Returns a linter as a command in the repository's root.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(name));
        command.env("PYTHONPATH", &self.folder).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
        command.current_dir(repository()).stdin(Stdio::null());
        command
    }

    /// Asserts that a text is valid by one of the schemas that come with check-jsonschema, such as `gitlab-ci`.
    pub fn follows_schema(&self, schema: &str, text: &str) {
        let folder = temporary_folder();
        let file = folder.path().join("file.yml");
        std::fs::write(&file, text).expect("a file");
        let mut check = self.command("check-jsonschema");
        let run = output(check.args(["--builtin-schema", &format!("vendor.{schema}")]).arg(file));
        assert_eq!(run.code, 0, "{}{}\n{text}", run.stdout, run.stderr);
    }

    /// Asserts that shellcheck has nothing against a script as `bash -e` runs it.
    pub fn is_clean_script(&self, what: &str, script: &str) {
        let folder = temporary_folder();
        let file = folder.path().join("script");
        std::fs::write(&file, format!("#!/bin/bash -e\n{script}\n")).expect("a file");
        let run = output(self.command("shellcheck").args(["--shell=bash", "--format=gcc"]).arg(file));
        assert_eq!(run.code, 0, "{what}: {}\n{script}", run.stdout);
    }

    /// Asserts that zizmor finds nothing in workflows.
    pub fn are_safe_workflows(&self, files: &[&Path]) {
        let run = output(self.command("zizmor").args(["--offline", "--no-progress", "--no-config"]).args(files));
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn parsed(path: &str) -> Value {
    let (document, errors) = yaml::parse(path, read(path).as_bytes());
    assert_eq!(errors, vec![]);
    document.expect("a document").root.to_value()
}

/// A folder with a script in place of the binary for each of some targets.
fn binaries(targets: &[&str], script: &str) -> tempfile::TempDir {
    let folder = temporary_folder();
    for target in targets {
        let file = folder.path().join(target).join("flotilla");
        std::fs::create_dir(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(&file, script).expect("a file");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("a program");
    }
    folder
}

/// A script that is this repository's binary, or takes some of its commands over.
fn stand_in(commands: &str) -> String {
    let flotilla = env!("CARGO_BIN_EXE_flotilla");
    format!("#!/bin/bash\ncase $1 in\n{commands}\nesac\nexec '{flotilla}' \"$@\"\n")
}

fn own_target() -> &'static str {
    TARGETS
        .into_iter()
        .find(|target| target.starts_with(std::env::consts::ARCH) && target.ends_with("musl"))
        .expect("Linux")
}

fn npm(folder: &Path, words: &[&str]) -> Run {
    let mut npm = Command::new("npm");
    output(npm.args(words).args(["--offline", "--no-audit", "--no-fund", "--no-update-notifier"]).current_dir(folder))
}

#[test]
fn the_npm_packages_start_the_binary_and_pass_its_exit_code_and_signals() {
    let commands = "  wait) trap 'echo terminated; exit 7' TERM; echo ready; while :; do sleep 0.05; done ;;\n\
                    \x20 die) kill -KILL $$ ;;";
    let binaries = binaries(&[own_target()], &stand_in(commands));
    let folder = temporary_folder();
    let packed = folder.path().join("packed");
    let mut pack = Command::new("node");
    output(pack.arg(repository().join("packaging/npm.mjs")).arg(binaries.path()).arg(&packed)).exits(0);
    let mut files: Vec<String> = std::fs::read_dir(&packed)
        .expect("packages")
        .map(|entry| entry.expect("a package").path().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let version = env!("CARGO_PKG_VERSION");
    let cpu = if std::env::consts::ARCH == "x86_64" { "x64" } else { "arm64" };
    let names: Vec<&str> = files.iter().filter_map(|file| file.rsplit('/').next()).collect();
    assert_eq!(names, [format!("flotilla-{version}.tgz"), format!("flotilla-linux-{cpu}-{version}.tgz")]);

    // Without a registry: as what was published, and without an installation.
    let user = folder.path().join("user");
    std::fs::create_dir(&user).expect("a folder");
    std::fs::write(user.join("package.json"), r#"{"private": true}"#).expect("a file");
    npm(&user, &["install", &files[0], &files[1]]).exits(0);
    let mut npx = Command::new("npx");
    npx.args(["--offline", "--yes", "--package", &files[0], "--package", &files[1], "flotilla", "--version"]);
    let run = output(npx.current_dir(folder.path())).exits(0);
    assert!(run.stdout.starts_with(&format!("flotilla {version} ")), "{run:?}");
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        for package in ["flotilla".to_owned(), format!("@flotilla/linux-{cpu}")] {
            assert!(user.join("node_modules").join(&package).join(license).is_file(), "{package} has no {license}");
        }
    }

    // An older Node.js starts a child; a newer one becomes the binary.
    let launcher = user.join("node_modules/.bin/flotilla");
    for node in [PathBuf::from("node"), tools::node()] {
        let start = |words: &[&str]| {
            let mut command = Command::new(&node);
            command.arg(&launcher).args(words).current_dir(&user);
            command
        };
        let run = output(&mut start(&["check"])).exits(1);
        assert!(run.stdout.is_empty() && run.stderr.starts_with("error: "), "{run:?}");
        let run = output(&mut start(&["init", "a b", "--pack", "nothing"])).exits(2);
        assert!(!run.stderr.contains("Warning"), "{run:?}");
        assert_eq!(output(&mut start(&["die"])).code, -1, "it ends by the signal that ended the binary");
        let mut child = spawn(&mut start(&["wait"]));
        let mut first = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("a line");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let run = finish(child).exits(7);
        assert_eq!(run.stdout, "terminated\n");
    }

    // A machine that no package is for, and one whose package was left out.
    let start = || output(Command::new("node").arg(&launcher).current_dir(&user));
    let platform = user.join("node_modules/@flotilla");
    std::fs::rename(&platform, user.join("elsewhere")).expect("a folder");
    let run = start().exits(1);
    assert!(run.stderr.contains("is not installed") && run.stderr.contains("--omit=optional"), "{run:?}");
    let manifest = user.join("node_modules/flotilla/package.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, text.replace(&format!("linux-{cpu}"), "plan9-mips")).expect("a file");
    let run = start().exits(1);
    assert!(run.stderr.contains(&format!("no binary for linux-{cpu}, only for plan9-mips")), "{run:?}");
}

#[test]
fn archives_hold_what_a_user_needs_and_are_the_same_each_time() {
    let binaries = binaries(&TARGETS, &stand_in(""));
    let folder = temporary_folder();
    let made = |name: &str| {
        let out = folder.path().join(name);
        let mut node = Command::new("node");
        output(node.arg(repository().join("packaging/archives.mjs")).arg(binaries.path()).arg(&out)).exits(0);
        out
    };
    let out = made("first");
    let version = env!("CARGO_PKG_VERSION");
    for target in TARGETS {
        let name = format!("flotilla-{version}-{target}");
        let archive = out.join(format!("{name}.tar.gz"));
        let mut tar = Command::new("tar");
        let listed = output(tar.args(["--numeric-owner", "-tvzf"]).arg(&archive)).exits(0).stdout;
        let files: BTreeMap<&str, &str> =
            listed.lines().filter_map(|line| Some((line.rsplit_once(' ')?.1, line.split(' ').next()?))).collect();
        let inside = |file: &str| files.get(format!("{name}/{file}").as_str()).copied();
        assert_eq!(inside("flotilla"), Some("-rwxr-xr-x"), "{listed}");
        for file in [
            "LICENSE-APACHE",
            "LICENSE-MIT",
            "README.md",
            "CHANGELOG.md",
            "completions/flotilla.bash",
            "completions/_flotilla",
            "completions/flotilla.fish",
            "man/flotilla.1",
            "man/flotilla-deploy.1",
        ] {
            assert_eq!(inside(file), Some("-rw-r--r--"), "{file}: {listed}");
        }
        assert!(listed.lines().all(|line| line.contains(" 0/0 ")), "{listed}");
    }
    let mut check = Command::new("sha256sum");
    output(check.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&out)).exits(0);
    let sums = std::fs::read_to_string(out.join("SHA256SUMS")).expect("the sums");
    assert_eq!(sums.lines().count(), TARGETS.len());
    let again = made("second");
    assert_eq!(std::fs::read_to_string(again.join("SHA256SUMS")).expect("the sums"), sums);

    let mut node = Command::new("node");
    let formula =
        output(node.arg(repository().join("packaging/formula.mjs")).arg(out.join("SHA256SUMS"))).exits(0).stdout;
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").expect("a sum and a file");
        let at = formula.find(&format!("/releases/download/v{version}/{file}\"")).expect(file);
        assert!(formula[at..].lines().nth(1).is_some_and(|next| next.contains(sum)), "{formula}");
    }
    let description = formula.lines().find_map(|line| line.strip_prefix("  desc \"")).expect("a description");
    assert!(description.len() <= 81 && !description.ends_with(".\""), "{description}");
}

#[test]
fn the_address_of_the_project_is_in_one_place() {
    let address = env!("CARGO_PKG_REPOSITORY");
    let mut git = Command::new("git");
    let files = output(git.args(["grep", "--untracked", "-lF", address]).current_dir(repository())).exits(0).stdout;
    let placeholder = address.trim_start_matches("https://github.com/");
    assert_eq!(files, "Cargo.toml\n", "read it from Cargo.toml");
    let mut git = Command::new("git");
    let files = output(git.args(["grep", "--untracked", "-lF", placeholder]).current_dir(repository())).exits(0).stdout;
    assert_eq!(files, "Cargo.toml\n", "read it from Cargo.toml");
}

/// The workflows of this repository that flotilla doesn't generate.
const WORKFLOWS: [&str; 2] = [".github/workflows/ci.yml", ".github/workflows/release.yml"];

#[test]
fn the_workflows_of_the_repository_have_no_errors() {
    let linters = Linters::get();
    for path in WORKFLOWS {
        assert_eq!(mistakes(&read(path)), [""; 0], "{path}");
        let workflow = parsed(path);
        assert_eq!(workflow["permissions"], serde_json::json!({}), "each job has its own");
        let jobs = workflow["jobs"].as_object().expect("jobs");
        for (name, job) in jobs {
            assert!(job["permissions"].is_object() && job["timeout-minutes"].is_number(), "{path}: {name}");
            for step in job["steps"].as_array().expect("steps") {
                if let Some(script) = step["run"].as_str() {
                    assert!(!script.contains("${{"), "{path}: an expression in a script: {step}");
                    linters.is_clean_script(&format!("{path}: {name}: {}", step["name"]), script);
                }
            }
        }
        for line in read(path).lines().filter_map(|line| line.split_once("uses: ")) {
            let (action, comment) = line.1.split_once(" # v").expect("the version of the commit");
            let (_, commit) = action.split_once('@').expect("a commit");
            assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action} {comment}");
        }
    }
    let folder = repository().join(".github/workflows");
    let all: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("workflows").map(|file| file.expect("a file").path()).collect();
    linters.are_safe_workflows(&all.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    // And zizmor does find something.
    let unsafe_one = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file");
    let text = read(WORKFLOWS[0]).replace("persist-credentials: false", "fetch-depth: 1");
    std::fs::write(unsafe_one.path(), text).expect("a file");
    assert_ne!(output(linters.command("zizmor").args(["--offline", "--no-progress"]).arg(unsafe_one.path())).code, 0);
}

#[test]
fn the_release_builds_what_is_packaged() {
    let release = parsed(".github/workflows/release.yml");
    let matrix = release["jobs"]["build"]["strategy"]["matrix"]["include"].as_array().expect("a matrix");
    let built: BTreeSet<&str> = matrix.iter().filter_map(|entry| entry["target"].as_str()).collect();
    let packaged = read("packaging/project.mjs");
    let packaged: BTreeSet<&str> =
        packaged.split("target: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(built, packaged);
    assert_eq!(built, TARGETS.into_iter().collect());
    let described = read("packaging/README.md");
    assert!(built.iter().all(|target| described.contains(target)), "packaging/README.md lists them");
    // Only the jobs that publish may write, and none of them runs a script of the repository but the notes.
    for (name, job) in release["jobs"].as_object().expect("jobs") {
        let writes = job["permissions"].as_object().expect("permissions").iter().any(|(_, may)| may == "write");
        let publishes = ["package", "draft", "npm", "image", "publish"].contains(&name.as_str());
        assert_eq!(writes, publishes, "{name}");
    }
    let notes = |version: &str| output(Command::new(repository().join("packaging/notes.sh")).arg(version));
    assert!(notes("Unreleased").exits(0).stdout.contains("- "));
    notes("0.0").exits(1);
}

#[test]
fn the_dockerfile_and_the_forms_are_valid() {
    let linters = Linters::get();
    let run = output(linters.command("hadolint").args(["--no-color", "packaging/Dockerfile"]));
    assert_eq!(run.code, 0, "{}", run.stdout);
    let dockerfile = read("packaging/Dockerfile");
    let from = dockerfile.lines().find(|line| line.starts_with("FROM ")).expect("a base");
    assert!(from.split_once("@sha256:").is_some_and(|(_, digest)| digest.len() == 64), "{from}");
    for form in ["bug", "feature"] {
        linters.follows_schema("github-issue-forms", &read(&format!(".github/ISSUE_TEMPLATE/{form}.yml")));
    }
    linters.follows_schema("github-issue-config", &read(".github/ISSUE_TEMPLATE/config.yml"));
}
