//! Shows: what `init` writes works: a new project is checked and built; the workflow is one to GitHub's own parser, and
//! its steps do in a shell here what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use flotilla_model::progress::Silent;
use flotilla_spec::yaml;
use serde_json::Value;

use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::folders::temporary_folder;
use crate::import::path_variable;
use crate::packaging::Linters;
use crate::support::{Project, Run, copy, http_request, output, repository, same_variables};
use crate::tools::{Local, json};
use crate::{cases, fleet as small};

#[test]
fn a_new_project_is_checked_and_built() {
    let project = cases::tiny();
    let told = project.run(&["init", "Acme Consent"]).exits(0).stdout;
    assert!(told.contains("44 files") && told.contains("flotilla deploy --local"), "{told}");
    let at = |arguments: &[&str]| project.run(&[&["--project", "Acme Consent"], arguments].concat());
    assert_eq!(at(&["check"]).exits(0).stdout, "checked 1 customer: no errors\n");
    at(&["build"]).exits(0);
    at(&["build", "--check"]).exits(0);
    at(&["schema", "--check"]).exits(0);
    let worker = at(&["show", "--format", "json"]).exits(0).json();
    assert_eq!(
        (&worker["workers"][0]["name"], worker["workers"][0]["secrets"].to_string().as_str()),
        (&"c15t-acme".into(), "{}")
    );
    assert!(project.read("Acme Consent/fleet.yaml").contains("\nname: acme-consent\n"));
    // As a new repository sees it: neither the state nor secrets are added; what is generated is.
    let git = |arguments: &[&str]| {
        output(Command::new("git").args(arguments).current_dir(project.path("Acme Consent"))).exits(0).stdout
    };
    project.write("Acme Consent/.flotilla/state.db", "").write("Acme Consent/.env", "A=1");
    assert!(project.read("Acme Consent/.gitattributes").contains("\n* text=auto eol=lf\n"));
    git(&["init", "--quiet"]);
    let seen = git(&["ls-files", "--others", "--exclude-standard"]);
    assert!(!seen.contains(".flotilla") && !seen.contains(".env") && seen.contains("out/production/acme/index.ts"));
}

#[test]
fn the_packs_in_the_program_are_those_in_the_repository() {
    for pack in ["consent", "worker"] {
        let project = cases::tiny();
        project.run(&["init", "new", "--pack", pack]).exits(0);
        let mut git = Command::new("git");
        let folder = format!("templates/{pack}");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", &folder]);
        let listed = output(git.current_dir(repository())).exits(0).stdout;
        let expected: BTreeSet<&str> = listed.split_terminator('\0').collect();
        let files = project.files("new");
        let found: BTreeSet<&str> =
            files.keys().map(String::as_str).filter(|path| path.starts_with("templates/")).collect();
        assert_eq!(found, expected);
        for path in expected {
            assert!(files[path] == std::fs::read(repository().join(path)).expect("a file"), "{path} differs");
        }
    }
}

#[test]
fn a_project_of_own_code_is_deployed_and_tells_that_it_is_well() {
    let project = cases::tiny();
    project.run(&["init", "Own Code", "--pack", "worker"]).exits(0);
    let at = |arguments: &[&str]| project.run(&[&["--project", "Own Code"], arguments].concat());
    assert_eq!(at(&["check"]).exits(0).stdout, "checked 1 customer: no errors\n");
    at(&["schema", "--check"]).exits(0);
    assert_eq!(at(&["deploy", "--local", "--format", "json"]).exits(0).json()["applied"], 1);
    at(&["build", "--check"]).exits(0);
    let module = project.read("Own Code/out/production/acme/index.ts");
    assert!(module.contains("export { default } from \"../../runtime/worker-"), "{module}");
    // In workerd: that it answers with the digest that was deployed is what makes it healthy.
    let own = Project::at(temporary_folder());
    copy(&project.path("Own Code"), own.root());
    let local = Local::start(&own, None);
    let health = json(local.get("app-acme", "/health"));
    let (status, environment) = (&health["status"], &health["environment"]);
    assert_eq!((status, environment), (&"healthy".into(), &"production".into()), "{health}");
    assert!(health["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{health}");
    assert_eq!(local.get("app-acme", "/").text().unwrap(), "Hello Acme\n");
    project.run(&["init", "x", "--pack", "nothing"]).exits(2);
    project.run(&["init", "--ci", "github", "--pack", "worker"]).exits(2);
}

#[test]
fn a_wrangler_project_is_deployed_and_tells_that_it_is_well() {
    let project = cases::tiny();
    let (name, path) = path_variable();
    project.run(&["init", "fleet", "--pack", "wrangler"]).exits(0);
    let at = |arguments: &[&str]| project.run_with(&[&["-C", "fleet"], arguments].concat(), &[(name, &path)]);
    assert_eq!(at(&["check"]).exits(0).stdout, "checked 1 customer: no errors\n");
    at(&["schema", "--check"]).exits(0);
    assert_eq!(at(&["deploy", "--local", "--format", "json"]).exits(0).json()["applied"], 1);
    at(&["build", "--check"]).exits(0);
    let own = Project::at(temporary_folder());
    copy(&project.path("fleet"), own.root());
    let local = Local::start(&own, None);
    assert!(json(local.get("app-acme", "/health"))["digest"].as_str().is_some_and(|digest| digest.len() == 64));
    assert_eq!(local.get("app-acme", "/").text().unwrap(), "Hello Acme (production)\n");
    // A project that is there is imported.
    project.write("theirs/wrangler.toml", "name = \"theirs\"\n");
    let refused = project.run(&["init", "theirs", "--pack", "wrangler"]).exits(5);
    assert!(refused.stderr.contains("flotilla import ."), "{refused:?}");
}

#[test]
fn what_is_there_is_never_overwritten() {
    let project = cases::tiny();
    // A folder that is in use, but no project: what is ignored is added to.
    project.write("used/.gitignore", "target/").write("used/README.md", "mine");
    project.run(&["init", "used"]).exits(0);
    assert_eq!(project.read("used/README.md"), "mine");
    let ignored = project.read("used/.gitignore");
    assert!(ignored.starts_with("target/\n# The state") && ignored.contains("\n/.flotilla/\n"), "{ignored}");
    let before = project.files("used");
    let told = project.run(&["init", "used"]).exits(5).stderr;
    assert!(told.contains("is already a project") && told.contains("found fleet.yaml and "), "{told}");
    assert!(project.files("used") == before);
    // Parts of one.
    project.write("part/templates/consent/pack.yaml", "mine");
    let told = project.run(&["init", "part", "--format", "json"]).exits(5).json();
    assert!(told["error"].as_str().is_some_and(|error| error.contains("already has files of a project")), "{told}");
    assert_eq!(project.files("part").len(), 1);
    for wrong in
        [&["init", "x", "--ci", "github"][..], &["init", "--print"], &["init", "--force"], &["init", "--ci", "jenkins"]]
    {
        project.run(wrong).exits(2);
    }
}

#[test]
fn a_workflow_is_written_where_github_looks_and_replaced_only_by_force() {
    let project = cases::tiny();
    project.write(".git/HEAD", "").write("customers/acme.yaml", "id: acme\n");
    let path = ".github/workflows/flotilla.yml";
    let init = |more: &[&str]| project.run(&[&["init", "--ci", "github"], more].concat());
    let printed = init(&["--print"]).exits(0).stdout;
    assert!(!project.path(path).exists());
    let told = init(&[]).exits(0).stdout;
    assert!(told.contains("wrote ") && told.contains("\n  gh variable set FLOTILLA_DEPLOY --body true\n"), "{told}");
    assert_eq!(project.read(path), printed);
    assert!(init(&[]).exits(0).stdout.contains("is up to date"));
    project.write(path, "mine\n");
    let told = init(&[]).exits(5).stderr;
    assert!(told.contains("differs from what would be written") && told.contains("--force"), "{told}");
    assert_eq!(project.read(path), "mine\n");
    assert_eq!(init(&["--force", "--format", "json"]).exits(0).json()["written"], true);
    assert_eq!(project.read(path), printed);
    // A project below the repository's root: the file belongs to the root, and speaks of the folder.
    copy(&project.path("templates"), &project.path("my fleet/templates"));
    copy(&project.path("fleet.yaml"), &project.path("my fleet/fleet.yaml"));
    project.write("my fleet/customers/acme.yaml", "id: acme\n");
    project.run(&["--project", "my fleet", "init", "--ci", "github", "--force"]).exits(0);
    let text = project.read(path);
    assert!(text.contains("working-directory: \"my fleet\"\n") && text.contains("path: \"my fleet/.flotilla\"\n"));
    assert!(!project.path("my fleet/.github").exists());
    project.write("customers/bad.yaml", "id: bad\nnam: x\n");
    let told = init(&["--print"]).exits(0).stderr;
    assert!(told.contains("the secrets of 1 customer with errors are left out"), "{told}");
    for wrong in ["", " ", " x", "a\u{1b}b", "a\tb"] {
        init(&["--print", "--install", wrong]).exits(2);
    }
}

/// The workflow of this repository, for its sample fleet.
fn own() -> String {
    let install = "cargo install --locked --path .";
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    command.args(["init", "--ci", "github", "--print", "--install", install]).current_dir(repository());
    output(&mut command).exits(0).stdout
}

#[test]
fn the_workflow_of_this_repository_is_current() {
    let path = repository().join(".github/workflows/flotilla.yml");
    let committed = std::fs::read_to_string(path).expect("the workflow of this repository");
    assert!(committed == own(), "run `flotilla init --ci github --force --install 'cargo install --locked --path .'`");
}

/// What GitHub's own parser has against a workflow.
pub fn mistakes(text: &str) -> Vec<String> {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    let packages = PACKAGES.get_or_init(|| {
        let (package, lock) =
            (include_bytes!("../workflow/package.json"), include_bytes!("../workflow/package-lock.json"));
        flotilla_model::cache::npm("the tests", package, lock, &Silent).unwrap_or_else(|failure| panic!("{failure}"))
    });
    let folder = temporary_folder();
    let file = folder.path().join("workflow.yml");
    std::fs::write(&file, text).expect("a file");
    let mut node = Command::new("node");
    let run = output(node.arg(repository().join("tests/workflow/parse.mjs")).arg(packages).arg(file)).exits(0);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn it_is_a_workflow_to_githubs_own_parser() {
    let own = own();
    assert_eq!(mistakes(&own), [""; 0]);
    assert_eq!(mistakes(&Project::sample().run(&["init", "--ci", "github", "--print"]).exits(0).stdout), [""; 0]);
    // A folder and a command that are hard to write in YAML.
    let project = cases::tiny();
    let folder = "it's: a #fleet \"x\"";
    copy(&project.path("templates"), &project.path(folder).join("templates"));
    copy(&project.path("fleet.yaml"), &project.path(folder).join("fleet.yaml"));
    project.write(".git/HEAD", "").write(&format!("{folder}/customers/acme.yaml"), "id: acme\n");
    let install = "echo 'a: b' # \"c\"\n- {x}\n%y";
    let text = project.run(&["--project", folder, "init", "--ci", "github", "--print", "--install", install]).exits(0);
    assert_eq!(mistakes(&text.stdout), [""; 0]);
    assert_eq!(workflow(&text.stdout)["defaults"]["run"]["working-directory"], folder);
    // And the parser does find mistakes.
    for (right, wrong) in [
        ("contents: read", "contnts: read"),
        ("secrets.CLOUDFLARE_API_TOKEN", "secretz.CLOUDFLARE_API_TOKEN"),
        ("runs-on: ubuntu-latest", "run-on: ubuntu-latest"),
        ("!cancelled()", "!canceled()"),
    ] {
        assert!(own.contains(right));
        assert_ne!(mistakes(&own.replace(right, wrong)), [""; 0], "{wrong}");
    }
}

fn workflow(text: &str) -> Value {
    let (document, mistakes) = yaml::parse("workflow", text.as_bytes());
    assert_eq!(mistakes, vec![]);
    document.expect("a document").root.to_value()
}

#[test]
fn it_may_do_little_and_its_actions_are_pinned() {
    let workflow = workflow(&own());
    assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}));
    let jobs = workflow["jobs"].as_object().expect("jobs");
    assert_eq!(
        jobs.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["check", "comment", "deploy"])
    );
    // What may write runs nothing of the repository: it isn't even checked out there.
    let comment = &jobs["comment"];
    assert_eq!(comment["permissions"], serde_json::json!({"pull-requests": "write"}));
    assert!(comment["if"].as_str().is_some_and(|only| only.contains("head.repo.full_name == github.repository")));
    assert_eq!(comment["steps"].as_array().map(Vec::len), Some(1));
    assert_eq!(jobs["deploy"]["permissions"], serde_json::json!({"contents": "read", "pull-requests": "read"}));
    assert_eq!(jobs["deploy"]["concurrency"]["cancel-in-progress"], false);
    // No text from outside stands in a script: it comes in a variable.
    for job in jobs.values() {
        let scripts = job["steps"].as_array().expect("steps").iter().filter_map(|step| step["run"].as_str());
        assert!(!scripts.into_iter().any(|script| script.contains("${{")));
    }
    let mut actions = 0;
    for (name, job) in jobs {
        for step in job["steps"].as_array().expect("steps") {
            if let Some(action) = step["uses"].as_str() {
                let (_, commit) = action.split_once('@').expect("a pinned action");
                assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action}");
                actions += 1;
            }
            let env = step["env"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            let may: &[&str] = match (name.as_str(), step["name"].as_str()) {
                ("deploy", Some("Deploy")) => continue,
                ("deploy", Some("Find the reviewed plan")) => &["GH_TOKEN", "DIGEST"],
                ("comment", Some("Comment")) => &["GH_TOKEN", "NUMBER", "PLAN"],
                _ => &["CLOUDFLARE_ACCOUNT_ID"],
            };
            for variable in env {
                assert!(may.contains(&variable), "{variable} in {step}");
            }
        }
    }
    assert_eq!(actions, 10);
    // Each secret of the sample fleet is named.
    let shown = Project::sample().run(&["show", "--format", "json"]).exits(0).json();
    let deploy = jobs["deploy"]["steps"].as_array().expect("steps");
    let env = &deploy.iter().find(|step| step["name"] == "Deploy").expect("the step that deploys")["env"];
    let names: BTreeSet<&str> = shown["workers"]
        .as_array()
        .expect("workers")
        .iter()
        .flat_map(|worker| worker["secrets"].as_object().expect("secrets").values().filter_map(Value::as_str))
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        assert_eq!(env[name], format!("${{{{ secrets.{name} }}}}"));
    }
}

/// A runner of GitHub, as far as shell steps need one.
struct Runner<'a> {
    project: &'a Project,
    jobs: Value,
    /// Where it keeps files; outside the project.
    temp: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
    secrets: Vec<(&'static str, &'static str)>,
    /// What else stands between `${{` and `}}`.
    known: BTreeMap<String, String>,
}

/// GitHub's own program, as far as the workflow needs it: answers from files, and keeps what it is given.
const GH: &str = r#"#!/bin/bash -eu
test "$GH_TOKEN" = a-token
echo "$*" >> "$GH_FOLDER/calls"
case "$*" in
  *--method*) cp "${@: -1}" "$GH_FOLDER/sent.json"; echo '{"secret": "of nobody"}' ;;
  "api repos/o/r/commits/c0ffee/pulls") cat "$GH_FOLDER/pulls.json" ;;
  "api --paginate repos/o/r/issues/7/comments?per_page=100") cat "$GH_FOLDER/comments.json" ;;
  *) exit 1 ;;
esac
"#;

/// npm, but for the installation of flotilla: that version is in no registry yet, and is on the PATH.
const NPM: &str = r#"#!/bin/bash -eu
if [ "$1 $2" = "install --global" ]; then echo "$*" >> "$GH_FOLDER/calls"; exit; fi
PATH=${PATH#*:} exec npm "$@"
"#;

/// Writes the programs that stand in for those of a runner, in `bin`.
fn programs(folder: &Path) {
    std::fs::create_dir(folder.join("bin")).expect("a folder");
    for (name, text) in [("gh", GH), ("npm", NPM)] {
        let file = folder.join("bin").join(name);
        std::fs::write(&file, text).expect("a program");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a program");
    }
}

impl<'a> Runner<'a> {
    fn new(project: &'a Project) -> Runner<'a> {
        Runner::of(project, &[])
    }

    /// Of another workflow than the one that deploys.
    fn of(project: &'a Project, which: &[&str]) -> Runner<'a> {
        let text = project.run(&[&["init", "--ci", "github", "--print"], which].concat()).exits(0).stdout;
        let temp = temporary_folder();
        programs(temp.path());
        let known = BTreeMap::from([("github.token".to_owned(), "a-token".to_owned())]);
        let jobs = workflow(&text)["jobs"].take();
        Runner { project, jobs, temp, environment: Vec::new(), secrets: Vec::new(), known }
    }

    /// Writes a file beside the project.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.temp.path().join(name), text).expect("a file");
    }

    /// Reads one, and takes it away.
    fn take(&self, name: &str) -> String {
        let path = self.temp.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text
    }

    /// The outputs of the last step, with what they are known by later.
    fn outputs(&mut self, prefix: &str) {
        let text = self.take("output");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let (name, value) = match (line.split_once("<<"), line.split_once('=')) {
                (Some((name, end)), _) => {
                    let value: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
                    (name, value.join("\n"))
                }
                (None, Some((name, value))) => (name, value.to_owned()),
                (None, None) => panic!("no output: {line}"),
            };
            self.known.insert(format!("{prefix}.outputs.{name}"), value);
        }
    }

    /// Runs a step as GitHub runs `shell: bash`.
    fn step(&self, job: &str, name: &str) -> Run {
        let steps = self.jobs[job]["steps"].as_array().expect("steps");
        let mut found = steps.iter().filter(|step| step["name"] == name);
        let step = found.next().unwrap_or_else(|| panic!("no step {name}"));
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script(step)]);
        command.current_dir(self.project.root());
        // As the project's own commands, without the caller's variables.
        same_variables(&self.project.command(&[]), &mut command);
        let bin = Path::new(env!("CARGO_BIN_EXE_flotilla")).parent().expect("a folder");
        let path = std::env::join_paths(
            [self.temp.path().join("bin"), bin.to_owned()]
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        );
        command.env("PATH", path.expect("a path")).env("RUNNER_TEMP", self.temp.path());
        command.env("GITHUB_STEP_SUMMARY", self.temp.path().join("summary.md"));
        command.env("GITHUB_OUTPUT", self.temp.path().join("output")).env("GH_FOLDER", self.temp.path());
        command.env("GITHUB_REPOSITORY", "o/r").env("GITHUB_SHA", "c0ffee");
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            let inner = value.as_str().and_then(|value| value.strip_prefix("${{ ")?.strip_suffix(" }}"));
            let inner = inner.expect("an expression");
            // One that isn't set is empty.
            let value = match inner.strip_prefix("secrets.") {
                Some(secret) => self.secrets.iter().find(|(name, _)| *name == secret).map_or("", |(_, value)| value),
                None => self.known.get(inner).map_or("", String::as_str),
            };
            command.env(name, value);
        }
        output(&mut command)
    }
}

fn script(step: &Value) -> String {
    step["run"].as_str().expect("a script").to_owned()
}

#[test]
fn the_steps_of_the_check_do_what_they_say() {
    let project = Project::sample();
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(project.root())).exits(0);
    git(&["init", "--quiet"]);
    let mut runner = Runner::new(&project);
    let step = |name: &str| runner.step("check", name);
    // The version that generated the workflow, from npm.
    assert!(step("Install flotilla").exits(0).stdout.starts_with("flotilla "));
    let calls = runner.take("calls");
    let version = env!("CARGO_PKG_VERSION");
    assert!(calls.starts_with("install --global ") && calls.ends_with(&format!(" flotilla@{version}\n")), "{calls}");
    step("Check").exits(0);
    step("Report to code scanning").exits(0);
    let found = std::fs::read_to_string(runner.temp.path().join("flotilla.sarif")).expect("a file for code scanning");
    assert!(serde_json::from_str::<Value>(&found).is_ok_and(|value| value.is_object()), "{found}");
    // Where out/ is in git, it has to be current.
    step("Build").exits(3);
    project.run(&["build"]).exits(0);
    step("Build").exits(0);
    // Where it isn't, it is built.
    project.write(".gitignore", "/out/\n");
    std::fs::remove_dir_all(project.path("out")).expect("out/ goes");
    step("Build").exits(0);
    assert!(project.path("out/production/acme/index.ts").exists());
    step("Plan").exits(0);
    let summary = std::fs::read_to_string(runner.temp.path().join("summary.md")).expect("a summary");
    assert!(summary.trim_start().starts_with("### flotilla check: no errors\n"), "{summary}");
    assert!(summary.contains("### flotilla plan: 8 to create, 0 to update, 0 to delete\n"), "{summary}");
    // The plan becomes a comment, whose first line says which plan it is; later plans replace it.
    runner.outputs("needs.check");
    let plan = runner.known["needs.check.outputs.plan"].clone();
    assert!(summary.trim_end().ends_with(&plan) && plan.starts_with("<!-- flotilla plan "), "{plan}");
    runner.known.insert("github.event.pull_request.number".to_owned(), "7".to_owned());
    let other = r#"{"id": 1, "user": {"login": "mallory"}, "body": "<!-- flotilla plan 0 -->"}"#;
    let chat = r#"{"id": 2, "user": {"login": "github-actions[bot]"}, "body": "well done"}"#;
    runner.write("comments.json", &format!("[{other}]\n[{chat}]"));
    let told = runner.step("comment", "Comment").exits(0);
    assert!(told.stdout.is_empty(), "{told:?}");
    assert!(runner.take("calls").contains("\napi --method POST repos/o/r/issues/7/comments --input "));
    let sent: Value = serde_json::from_str(&runner.take("sent.json")).expect("a comment");
    assert_eq!(sent, serde_json::json!({ "body": plan }));
    let mine = r#"{"id": 3, "user": {"login": "github-actions[bot]"}, "body": "<!-- flotilla plan 0 -->"}"#;
    runner.write("comments.json", &format!("[{other},{mine}]\n[{chat}]"));
    runner.step("comment", "Comment").exits(0);
    assert!(runner.take("calls").contains("\napi --method PATCH repos/o/r/issues/comments/3 --input "));
    let step = |name: &str| runner.step("check", name);
    // A mistake fails the check, and is a finding.
    project.edit("customers/acme.yaml", "name: Acme", "nam: Acme");
    step("Check").exits(1);
    step("Report to code scanning").exits(0);
    step("Plan").exits(1);
}

#[test]
fn the_steps_of_the_deploy_do_what_they_say() {
    let cloud = Cloud::start();
    let project = fleet(&[
        ("acme", "secrets: { KEY: { secret: API_KEY }, OTHER: { secret: OTHER_KEY } }\n"),
        ("bluebird", "secrets: { KEY: { secret: API_KEY } }\n"),
    ]);
    let mut runner = Runner::new(&project);
    runner.environment = vec![
        ("CLOUDFLARE_API_BASE_URL", cloud.base()),
        ("FLOTILLA_CACHE_DIR", small::cache().to_string_lossy().into_owned()),
    ];
    runner.step("deploy", "Build").exits(0);
    // What was only looked at is left out.
    let changed = || cloud.sent().into_iter().filter(|what| !what.starts_with("GET ")).collect::<Vec<_>>();
    let plan = |runner: &Runner<'_>| {
        let environment: Vec<(&str, &str)> =
            runner.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let environment = [&environment[..], &[("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)]].concat();
        let plan = project.run_with(&["plan", "--format", "json"], &environment).json();
        plan["digest"].as_str().expect("a digest").to_owned()
    };
    // What a pull request's comments say, once it is merged.
    let reviewed = |runner: &mut Runner<'_>, digest: &str| {
        let pulls = r#"[{"number": 6, "merged_at": null, "merge_commit_sha": "c0ffee"},
            {"number": 5, "merged_at": "2026", "merge_commit_sha": "bad"},
            {"number": 7, "merged_at": "2026", "merge_commit_sha": "c0ffee"}]"#;
        let said = |who: &str, digest: &str| serde_json::json!({"id": 1, "user": {"login": who}, "body": format!("<!-- flotilla plan {digest} -->\n")});
        let comments = serde_json::json!([said("github-actions[bot]", digest), said("mallory", &"f".repeat(64))]);
        runner.write("pulls.json", pulls);
        runner.write("comments.json", &comments.to_string());
        let run = runner.step("deploy", "Find the reviewed plan").exits(0);
        assert!(run.stdout.is_empty(), "{run:?}");
        runner.outputs("steps.reviewed");
    };
    let digest = plan(&runner);
    reviewed(&mut runner, &digest);
    assert_eq!(runner.known["steps.reviewed.outputs.digest"], digest);
    // Nothing is set: it says what, and sends nothing.
    let told = runner.step("deploy", "Deploy").exits(1).stderr;
    assert!(told.contains("CLOUDFLARE_API_TOKEN") && told.contains("CLOUDFLARE_ACCOUNT_ID"), "{told}");
    runner.secrets = vec![
        ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT),
        ("CLOUDFLARE_API_TOKEN", "test"),
        ("API_KEY", "canary-1"),
        ("FLOTILLA_SECRETS", "ACME__API_KEY=canary-2\nOTHER_KEY='canary 3'"),
    ];
    assert!(changed().is_empty());
    let run = runner.step("deploy", "Deploy").exits(0);
    assert!(run.stdout.contains("2 applied, 0 failed"), "{run:?}");
    assert!(!format!("{run:?}").contains("canary"));
    assert_eq!(cloud.take().iter().filter(|request| request.what.starts_with("PUT scripts/t-")).count(), 2);
    assert!(!runner.temp.path().join("flotilla.env").exists(), "the file with secrets stays");
    let summary = runner.take("summary.md");
    assert!(
        summary.contains("### flotilla deploy: 2 applied, 0 failed, 0 not attempted\n") && !summary.contains("canary")
    );
    // Nothing is left to do, reviewed or not.
    let none = plan(&runner);
    reviewed(&mut runner, &none);
    let again = runner.step("deploy", "Deploy").exits(0);
    assert!(again.stdout.contains("nothing to deploy") && changed().is_empty(), "{again:?}");
    runner.known.remove("steps.reviewed.outputs.digest");
    runner.step("deploy", "Deploy").exits(0);
    // Without a reviewed plan nothing is deployed, and it is said how to go on.
    project.edit("customers/bluebird.yaml", "id: bluebird", "id: bluebird\nlogLevel: debug");
    let told = runner.step("deploy", "Deploy").exits(3);
    assert!(told.stdout.contains("::error::No pull request of this commit has a reviewed plan"), "{told:?}");
    assert!(runner.take("summary.md").contains("### flotilla plan: 0 to create, 1 to update, 0 to delete\n"));
    // What was reviewed isn't the plan any more: a secret is another one.
    let digest = plan(&runner);
    reviewed(&mut runner, &digest);
    runner.secrets[3].1 = "ACME__API_KEY=canary-4\nOTHER_KEY='canary 3'";
    let told = runner.step("deploy", "Deploy").exits(5);
    assert!(told.stdout.contains("::error::The reviewed plan was not deployed."), "{told:?}");
    assert!(told.stderr.contains("secret KEY changed") && !format!("{told:?}").contains("canary"), "{told:?}");
    let summary = runner.take("summary.md");
    assert!(summary.contains("<code>secret KEY changed</code>") && !summary.contains("canary"), "{summary}");
    assert!(changed().is_empty());
    // By hand, with the digest that it names.
    let digest = summary.split("flotilla plan ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a digest");
    runner.known.insert("inputs.digest".to_owned(), "$(id)".to_owned());
    runner.step("deploy", "Find the reviewed plan").exits(1);
    runner.known.insert("inputs.digest".to_owned(), digest[..16].to_owned());
    runner.step("deploy", "Find the reviewed plan").exits(0);
    runner.outputs("steps.reviewed");
    assert!(runner.step("deploy", "Deploy").exits(0).stdout.contains("2 applied, 0 failed"));
    cloud.take();
    // A customer with mistakes holds up no other.
    project.edit("customers/acme.yaml", "id: acme", "id: acme\nnam: x");
    project.edit("customers/bluebird.yaml", "logLevel: debug", "logLevel: info");
    runner.step("deploy", "Build").exits(0);
    runner.known.insert("steps.reviewed.outputs.digest".to_owned(), plan(&runner));
    runner.step("deploy", "Deploy").exits(1);
    assert_eq!(cloud.take().iter().filter(|request| request.what == "PUT scripts/t-bluebird").count(), 1);
}

/// The workflow of previews, of the sample fleet.
fn of_previews() -> String {
    Project::sample().run(&["init", "--ci", "github", "--previews", "--print"]).exits(0).stdout
}

#[test]
fn the_workflow_of_previews_may_do_little_and_forks_get_none() {
    let text = of_previews();
    assert_eq!(mistakes(&text), [""; 0]);
    let workflow = workflow(&text);
    assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}));
    // Not `pull_request_target`, which gives secrets to what forks send.
    assert_eq!(
        workflow["on"].as_object().expect("events").keys().collect::<Vec<_>>(),
        ["pull_request", "schedule", "workflow_dispatch"]
    );
    let jobs = workflow["jobs"].as_object().expect("jobs");
    assert_eq!(
        jobs.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["comment", "down", "expired", "up"])
    );
    for job in ["up", "down"] {
        let only = jobs[job]["if"].as_str().expect("a condition");
        assert!(only.contains("head.repo.full_name == github.repository") && only.contains("vars.FLOTILLA_PREVIEWS"));
        assert_eq!(jobs[job]["concurrency"]["group"], "flotilla-preview-${{ github.event.number }}");
        assert_eq!(jobs[job]["concurrency"]["cancel-in-progress"], false);
    }
    for (name, job) in jobs {
        let writes = name == "comment";
        let may = if writes {
            serde_json::json!({"pull-requests": "write"})
        } else {
            serde_json::json!({"contents": "read"})
        };
        assert_eq!(job["permissions"], may, "{name}");
        for step in job["steps"].as_array().expect("steps") {
            assert!(!step["run"].as_str().is_some_and(|script| script.contains("${{")), "{step}");
            assert!(!writes || step["uses"].is_null(), "what may write runs nothing of the repository");
            if let Some(action) = step["uses"].as_str() {
                let (_, commit) = action.split_once('@').expect("a pinned action");
                assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{action}");
            }
            // Only where it is put up are there secrets of customers, and only after the build.
            let env = step["env"].to_string();
            assert!(!env.contains("FLOTILLA_SECRETS") || (name == "up" && step["id"] == "up"), "{step}");
        }
    }
    let names: Vec<&str> =
        jobs["up"]["steps"].as_array().expect("steps").iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names[names.len() - 2..], ["Build", "Create the preview"]);
    // It lies beside the other one.
    let project = cases::tiny();
    project.write(".git/HEAD", "").write("customers/acme.yaml", "id: acme\n");
    project.run(&["init", "--ci", "github", "--previews"]).exits(0);
    assert!(project.read(".github/workflows/flotilla-previews.yml").starts_with("# Generated by"));
    assert!(!project.path(".github/workflows/flotilla.yml").exists());
    project.run(&["init", "--previews"]).exits(2);
}

#[test]
fn the_steps_of_previews_do_what_they_say() {
    let cloud = Cloud::start();
    let project = fleet(&[
        ("acme", "domains: [acme.example.com]\nsecrets: { KEY: { secret: API_KEY } }\n"),
        ("bluebird", "domains: [bluebird.example.com]\nlabels: { tier: demo }\n"),
    ]);
    project.edit("fleet.yaml", "packs:", "deploy: { health: { enabled: false } }\npacks:");
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        output(Command::new("git").args(name).args(arguments).current_dir(project.root())).exits(0)
    };
    project.write(".gitignore", "/out/\n/.flotilla/\n");
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "main"]);
    project.edit("customers/acme.yaml", "acme.example.com", "www.acme.example.com");
    git(&["commit", "--quiet", "-am", "the pull request, merged"]);
    let mut runner = Runner::of(&project, &["--previews"]);
    runner.environment = vec![
        ("CLOUDFLARE_API_BASE_URL", cloud.base()),
        ("FLOTILLA_CACHE_DIR", small::cache().to_string_lossy().into_owned()),
    ];
    runner.secrets = vec![
        ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT),
        ("CLOUDFLARE_API_TOKEN", "test"),
        ("FLOTILLA_SECRETS", "ACME__API_KEY=canary-2"),
    ];
    runner.known.insert("github.event.number".to_owned(), "7".to_owned());
    runner.step("up", "Build").exits(0);
    assert!(cloud.take().is_empty());
    let run = runner.step("up", "Create the preview").exits(0);
    assert!(run.stdout.contains("www-preview-7.acme.example.com") && !run.stdout.contains("bluebird"), "{run:?}");
    assert!(!format!("{run:?}").contains("canary") && !runner.temp.path().join("flotilla.env").exists());
    runner.outputs("needs.up");
    let page = runner.known["needs.up.outputs.page"].clone();
    assert!(
        page.starts_with("<!-- flotilla preview -->\n") && page.contains("https://www-preview-7.acme.example.com/"),
        "{page}"
    );
    assert!(runner.take("summary.md").contains("### Preview 7"));
    // The addresses become a comment, which later ones replace; the plan's is another.
    runner.known.insert("needs.up.outputs.page || needs.down.outputs.page".to_owned(), page.clone());
    let plan = r#"{"id": 2, "user": {"login": "github-actions[bot]"}, "body": "<!-- flotilla plan 0 -->"}"#;
    runner.write("comments.json", &format!("[{plan}]"));
    runner.step("comment", "Comment").exits(0);
    assert!(runner.take("calls").contains("\napi --method POST repos/o/r/issues/7/comments --input "));
    let sent: Value = serde_json::from_str(&runner.take("sent.json")).expect("a comment");
    assert_eq!(sent, serde_json::json!({ "body": page }));
    let mine = r#"{"id": 3, "user": {"login": "github-actions[bot]"}, "body": "<!-- flotilla preview -->"}"#;
    runner.write("comments.json", &format!("[{plan},{mine}]"));
    runner.step("comment", "Comment").exits(0);
    assert!(runner.take("calls").contains("\napi --method PATCH repos/o/r/issues/comments/3 --input "));
    // Others than those who change, by the repository's variable.
    runner.known.insert("vars.FLOTILLA_PREVIEW_CUSTOMERS".to_owned(), "'blue*' -l tier=demo".to_owned());
    let run = runner.step("up", "Create the preview").exits(0);
    assert!(run.stdout.contains("bluebird-preview-7.example.com") && !run.stdout.contains("acme"), "{run:?}");
    // What doesn't come about is told as well.
    runner.take("output");
    runner.known.insert("vars.FLOTILLA_PREVIEW_CUSTOMERS".to_owned(), "nobody".to_owned());
    runner.step("up", "Create the preview").exits(2);
    runner.outputs("needs.up");
    assert!(runner.known["needs.up.outputs.page"].contains("### flotilla preview up failed"), "{:?}", runner.known);
    // By another machine, it is taken down.
    std::fs::remove_dir_all(project.path(".flotilla")).expect("what is kept goes");
    cloud.take();
    runner.step("expired", "Delete").exits(0);
    assert!(cloud.take().iter().all(|request| !request.what.starts_with("DELETE")));
    let run = runner.step("down", "Delete the preview").exits(0);
    assert!(run.stdout.contains("1 preview removed: 1 host, 0 databases, 1 worker"), "{run:?}");
    runner.outputs("needs.down");
    assert_eq!(runner.known["needs.down.outputs.page"], "<!-- flotilla preview -->\nPreview 7 is deleted.");
}

/// A runner of GitLab, as far as the jobs of the pipeline need one.
struct Gitlab<'a> {
    project: &'a Project,
    /// The checkout, whose folder `path` is the project.
    checkout: PathBuf,
    jobs: Value,
    /// Where it keeps files; outside the checkout.
    temp: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    /// Those of the environment `production`, which only the job that deploys has.
    production: BTreeMap<String, String>,
}

impl<'a> Gitlab<'a> {
    fn new(project: &'a Project, checkout: &Path, more: &[&str]) -> Gitlab<'a> {
        let text = project.run(&[&["init", "--ci", "gitlab", "--print"], more].concat()).exits(0).stdout;
        let temp = temporary_folder();
        programs(temp.path());
        let (variables, production) = (BTreeMap::new(), BTreeMap::new());
        Gitlab { project, checkout: checkout.to_owned(), jobs: workflow(&text), temp, variables, production }
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Sets a variable of the environment `production`.
    fn protect(&mut self, name: &str, value: impl Into<String>) {
        self.production.insert(name.to_owned(), value.into());
    }

    /// Runs a job as GitLab's runner does: one shell for all lines, in the checkout.
    fn job(&self, name: &str) -> Run {
        let (job, base) = (&self.jobs[name], &self.jobs[".flotilla"]);
        assert_eq!(job["extends"], ".flotilla");
        let lines = [&base["before_script"], &job["script"]];
        let lines = lines.into_iter().flat_map(|lines| lines.as_array().expect("lines"));
        let script: Vec<&str> = lines.map(|line| line.as_str().expect("a line")).collect();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script.join("\n")]);
        command.current_dir(&self.checkout);
        same_variables(&self.project.command(&[]), &mut command);
        let bin = Path::new(env!("CARGO_BIN_EXE_flotilla")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let own = self.temp.path().join("bin");
        command.env("PATH", format!("{}:{}:{path}", own.display(), bin.display()));
        command.env("GH_FOLDER", self.temp.path()).env("CI_PROJECT_DIR", &self.checkout);
        command.envs(&self.variables);
        if job["environment"]["name"] == "production" {
            command.envs(&self.production);
        }
        let checkout = self.checkout.to_string_lossy();
        for (name, value) in base["variables"].as_object().expect("variables") {
            let value = value.as_str().expect("a value").replace("$CI_PROJECT_DIR", &checkout).replace("$$", "$");
            // The packages that the tests have already.
            let value =
                if name == "FLOTILLA_CACHE_DIR" { small::cache().to_string_lossy().into_owned() } else { value };
            command.env(name, value);
        }
        output(&mut command)
    }

    /// Takes over the variables of a report.
    fn dotenv(&mut self) {
        let text = std::fs::read_to_string(self.checkout.join("flotilla-plan.env")).expect("a report");
        let (name, value) = text.trim_end().split_once('=').expect("a variable");
        self.set(name, value);
    }
}

#[test]
fn gitlabs_pipeline_follows_its_schema_and_says_what_is_to_be_set() {
    let linters = Linters::get();
    let project = cases::tiny();
    let folder = "it's: a #$fleet \"x\"";
    copy(&project.path("templates"), &project.path(folder).join("templates"));
    copy(&project.path("fleet.yaml"), &project.path(folder).join("fleet.yaml"));
    project.write(".git/HEAD", "").write(&format!("{folder}/customers/acme.yaml"), "id: acme\n");
    let install = "echo 'a: b' # \"c\"\n- {x}\n%y";
    let hard = project.run(&["--project", folder, "init", "--ci", "gitlab", "--print", "--install", install]).exits(0);
    let sample = Project::sample().run(&["init", "--ci", "gitlab", "--print"]).exits(0);
    for text in [&sample.stdout, &hard.stdout] {
        linters.follows_schema("gitlab-ci", text);
    }
    let pipeline = workflow(&sample.stdout);
    let jobs = ["flotilla check", "flotilla plan", "flotilla deploy"];
    for name in jobs {
        let lines = [&pipeline[".flotilla"]["before_script"], &pipeline[name]["script"]];
        let lines = lines.into_iter().flat_map(|lines| lines.as_array().expect("lines").iter());
        let script: Vec<&str> = lines.filter_map(Value::as_str).collect();
        linters.is_clean_script(name, &script.join("\n"));
    }
    // Only a person starts a deploy. The packages of merge requests, which are run, stay apart from those of protected branches.
    let deploy = &pipeline["flotilla deploy"];
    assert_eq!(deploy["rules"][0]["when"], "manual");
    assert_eq!(deploy["environment"]["name"], "production");
    for name in jobs {
        for cache in pipeline[name]["cache"].as_array().expect("caches") {
            let is_state = cache["key"] == "flotilla-state";
            assert_eq!(cache["unprotect"] == true, is_state, "{cache}");
            // The deploy alone writes the state, and nothing else.
            assert_eq!(cache["policy"] != "pull", (name == "flotilla deploy") == is_state, "{name}: {cache}");
        }
    }
    let image = pipeline[".flotilla"]["image"].as_str().expect("an image");
    assert!(image.split_once("@sha256:").is_some_and(|(_, digest)| digest.len() == 64), "{image}");

    let path = ".gitlab-ci.yml";
    let init = |more: &[&str]| project.run(&[&["--project", folder, "init", "--ci", "gitlab"], more].concat());
    let told = init(&[]).exits(0).stdout;
    assert!(told.contains("\n  FLOTILLA_DEPLOY        `true`\n"), "{told}");
    assert!(told.contains("\n  CLOUDFLARE_API_TOKEN   masked, protected; environment production\n"), "{told}");
    assert!(project.path(path).exists());
    let set = init(&["--format", "json"]).exits(0).json()["set"].take();
    assert_eq!(set["repositorySecrets"], serde_json::json!(["CLOUDFLARE_ACCOUNT_ID"]));
    assert_eq!(set["variables"], serde_json::json!({"FLOTILLA_DEPLOY": "true"}));
    project.write(path, "mine\n");
    let told = init(&[]).exits(5).stderr;
    assert!(told.contains("another file that .gitlab-ci.yml includes"), "{told}");
    assert_eq!(project.read(path), "mine\n");
    init(&["--previews"]).exits(2);
}

#[test]
fn the_jobs_of_gitlabs_pipeline_do_what_they_say() {
    let cloud = Cloud::start();
    let project = fleet(&[
        ("acme", "secrets: { KEY: { secret: API_KEY }, OTHER: { secret: OTHER_KEY } }\n"),
        ("bluebird", "secrets: { KEY: { secret: API_KEY } }\n"),
    ]);
    project.write(".gitignore", "/out/\n/.flotilla/\n");
    output(Command::new("git").args(["init", "--quiet"]).current_dir(project.root())).exits(0);
    // As the runner leaves it.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(project.root(), everybody).expect("a folder");
    let mut gitlab = Gitlab::new(&project, project.root(), &[]);
    gitlab.set("CLOUDFLARE_API_BASE_URL", cloud.base());
    gitlab.set("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);

    // A merge request: what is wrong fails the check alone, and no token is there.
    let run = gitlab.job("flotilla check").exits(0);
    assert!(run.stdout.contains("flotilla ") && run.stdout.contains("no errors"), "{run:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&project.root().metadata().expect("a folder").permissions());
    assert_eq!(mode & 0o022, 0);
    let calls = std::fs::read_to_string(gitlab.temp.path().join("calls")).expect("calls");
    assert!(calls.ends_with(&format!(" flotilla@{}\n", env!("CARGO_PKG_VERSION"))), "{calls}");
    let notes = Notes::start();
    gitlab.set("CI_API_V4_URL", notes.base.clone());
    gitlab.set("CI_PROJECT_ID", "5");
    gitlab.set("CI_MERGE_REQUEST_IID", "7");
    gitlab.job("flotilla plan").exits(0);
    assert!(notes.take().is_empty(), "there is no token for a comment");
    gitlab.set("FLOTILLA_GITLAB_TOKEN", "a-token");
    let plan = gitlab.job("flotilla plan").exits(0);
    assert!(plan.stdout.contains("2 to create"), "{plan:?}");
    let page = project.read("flotilla-plan.md");
    let sent = notes.take();
    let lines: Vec<&str> = sent.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "GET /user",
            "GET /projects/5/merge_requests/7/notes?per_page=100&page=1",
            "POST /projects/5/merge_requests/7/notes"
        ]
    );
    assert_eq!(sent[2].1, serde_json::json!({ "body": page }));
    *notes.existing.lock().unwrap() = serde_json::json!([
        {"id": 1, "author": {"id": 3}, "body": "<!-- flotilla plan 0 -->"},
        {"id": 2, "author": {"id": 9}, "body": "<!-- flotilla plan 0 -->"},
        {"id": 4, "author": {"id": 9}, "body": "well done"},
    ]);
    gitlab.job("flotilla plan").exits(0);
    assert_eq!(notes.take().last().expect("a request").0, "PUT /projects/5/merge_requests/7/notes/2");
    assert!(cloud.sent().is_empty(), "a merge request has no token");
    for name in ["CI_MERGE_REQUEST_IID", "FLOTILLA_GITLAB_TOKEN"] {
        gitlab.variables.remove(name);
    }

    // The default branch: the plan of the same pipeline, and no other.
    gitlab.job("flotilla plan").exits(0);
    gitlab.dotenv();
    assert_eq!(gitlab.variables["FLOTILLA_PLAN"].len(), 64);
    let told = gitlab.job("flotilla deploy").exits(1).stderr;
    assert!(told.contains("CLOUDFLARE_API_TOKEN"), "{told}");
    gitlab.protect("CLOUDFLARE_API_TOKEN", "test");
    gitlab.protect("API_KEY", "canary-1");
    let secrets = gitlab.temp.path().join("secrets.env");
    std::fs::write(&secrets, "ACME__API_KEY=canary-2\nOTHER_KEY='canary 3'\n").expect("a file");
    gitlab.protect("FLOTILLA_SECRETS", secrets.to_string_lossy());
    let run = gitlab.job("flotilla deploy").exits(0);
    assert!(run.stdout.contains("2 applied, 0 failed") && !format!("{run:?}").contains("canary"), "{run:?}");
    assert_eq!(cloud.take().iter().filter(|request| request.what.starts_with("PUT scripts/t-")).count(), 2);
    // What is planned has changed since: nothing is deployed, and it says what to do.
    project.edit("customers/bluebird.yaml", "id: bluebird", "id: bluebird\nlogLevel: debug");
    let run = gitlab.job("flotilla deploy").exits(5);
    assert!(run.stdout.contains("was not deployed. Run a new pipeline"), "{run:?}");
    assert!(cloud.take().iter().all(|request| request.what.starts_with("GET ")));
    gitlab.job("flotilla plan").exits(0);
    gitlab.dotenv();
    assert!(gitlab.job("flotilla deploy").exits(0).stdout.contains("1 applied, 0 failed"));
    // An error of a customer fails the check, and doesn't block the others.
    project.edit("customers/acme.yaml", "id: acme", "id: acme\nnam: x");
    gitlab.job("flotilla check").exits(1);
    gitlab.job("flotilla plan").exits(0);
    // Where nothing can be planned, there is nothing to deploy.
    project.edit("fleet.yaml", "packs:", "pakcs:");
    let run = gitlab.job("flotilla plan").exits(1);
    assert!(run.stderr.contains("pakcs"), "{run:?}");
}

/// GitLab's API, as far as a comment needs it.
struct Notes {
    base: String,
    sent: Arc<Mutex<Vec<(String, Value)>>>,
    existing: Arc<Mutex<Value>>,
}

impl Notes {
    fn start() -> Notes {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let sent: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let existing = Arc::new(Mutex::new(serde_json::json!([])));
        let (requests, comments) = (Arc::clone(&sent), Arc::clone(&existing));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (head, body) = http_request(&stream);
                assert!(head.to_lowercase().contains("\nprivate-token: a-token"), "{head}");
                let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                let answer = match line.as_str() {
                    "GET /user" => serde_json::json!({"id": 9}),
                    _ if line.starts_with("GET ") => comments.lock().unwrap().clone(),
                    _ => serde_json::json!({}),
                };
                requests.lock().unwrap().push((line, serde_json::from_slice(&body).unwrap_or_default()));
                let text = answer.to_string();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
                let _ = write!(&stream, "{head}Content-Length: {}\r\n\r\n{text}", text.len());
            }
        });
        Notes { base, sent, existing }
    }

    fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}
