//! Shows: an export is the same bytes each time, in each form; real wrangler deploys it with flotilla's digest; and its workflow
//! takes a newer export whole or not at all.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use flotilla_spec::yaml;
use reqwest::Method;
use serde_json::Value;

use crate::fleet::{cache, fleet};
use crate::folders::temporary_folder;
use crate::support::{Project, Run, output};
use crate::tools::{Local, json, local_account, node, packages, sent_elsewhere, tsc, wrangler};

/// Runs an export of the tests' small pack.
fn run(project: &Project, more: &[&str]) -> Run {
    output(project.command(&[&["export"], more].concat()).env("FLOTILLA_CACHE_DIR", cache()))
}

fn small() -> Project {
    let acme = "secrets: { KEY: { secret: OF_ACME } }\nenvironments: { production: {}, staging: {} }\n";
    fleet(&[("acme", acme), ("bluebird", "")])
}

#[test]
fn the_same_bytes_in_each_form_and_each_time() {
    let project = small();
    project.write(".env", "OF_ACME=canary-value\n");
    let told = run(&project, &["acme", "--format", "json"]).exits(0).json();
    let export = &told["exports"][0];
    assert_eq!((&export["to"], &export["form"]), (&"export/acme".into(), &"folder".into()));
    assert_eq!(export["workers"].as_array().map(Vec::len), Some(2));
    let folder = project.files("export/acme");
    for path in ["README.md", "package.json", "production/acme/index.ts", "staging/acme/wrangler.jsonc", "update.mjs"] {
        assert!(folder.contains_key(path), "{path}");
    }
    assert!(!project.path("out").exists(), "an export builds nothing");
    // What is under out/ is in it as it is.
    output(project.command(&["build", "acme"]).env("FLOTILLA_CACHE_DIR", cache())).exits(0);
    for (path, bytes) in project.files("out") {
        assert!(folder[&path] == bytes, "{path}");
    }
    for text in folder.values() {
        let text = String::from_utf8_lossy(text);
        assert!(!text.contains("canary") && !text.contains("OF_ACME"), "{text}");
    }
    for form in ["tar.gz", "zip"] {
        let (first, second) = (format!("a/one.{form}"), format!("b/one.{form}"));
        for to in [&first, &second] {
            run(&project, &["acme", "--to", to]).exits(0);
        }
        let bytes = std::fs::read(project.path(&first)).expect("an archive");
        assert!(bytes == std::fs::read(project.path(&second)).expect("an archive"), "{form}");
        let mut command = project.command(&["export", "acme", "--form", form, "--to", "-"]);
        let printed = command.env("FLOTILLA_CACHE_DIR", cache()).output().expect("it runs").stdout;
        assert!(printed == bytes, "{form} to stdout");
        // As others read it: sha256sum, tar, Python.
        let at = project.path("a");
        output(Command::new("sha256sum").args(["--check", &format!("one.{form}.sha256")]).current_dir(&at)).exits(0);
        let unpack = match form {
            "zip" => "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall('unpacked-zip')",
            _ => "import sys, tarfile; tarfile.open(sys.argv[1]).extractall('unpacked-tar.gz')",
        };
        let unpacked = Command::new("python3").args(["-c", unpack, &format!("one.{form}")]).current_dir(&at).status();
        assert!(unpacked.expect("python3").success());
        assert!(project.files(&format!("a/unpacked-{form}/acme")) == folder, "{form}");
    }
    let all = run(&project, &["*", "--form", "zip", "--to", "all", "--format", "json"]).exits(0).json();
    assert_eq!(all["exports"].as_array().map(Vec::len), Some(2));
    assert!(project.path("all/acme.zip").exists() && project.path("all/bluebird.zip.sha256").exists());
    for wrong in [
        &[][..],
        &["acme", "--to", "-"],
        &["*", "--form", "zip", "--to", "-"],
        &["acme", "--workflow", "github"],
        &["acme", "--workflow", "github", "--url", "http://example.com/a.tar.gz"],
        &["acme", "--workflow", "github", "--url", "https://example.com/$(id)"],
        &["*", "--workflow", "github", "--url", "https://example.com/a.tar.gz"],
        &["acme", "--role", "web"],
        &["nobody"],
    ] {
        run(&project, wrong).exits(2);
    }
}

#[test]
fn an_earlier_export_is_brought_up_to_date_and_nothing_else_is_touched() {
    let project = small();
    run(&project, &["acme"]).exits(0);
    let first = project.files("export/acme");
    run(&project, &["acme"]).exits(0);
    assert!(project.files("export/acme") == first);
    project.write("export/acme/notes.txt", "mine").write("export/acme/node_modules/x", "y");
    project.write("customers/acme.yaml", "id: acme\nlogLevel: debug\n");
    run(&project, &["acme"]).exits(0);
    assert!(project.read("export/acme/production/acme/index.ts").contains("debug"));
    assert!(!project.path("export/acme/staging/acme/index.ts").exists(), "what is no longer in it goes");
    assert_eq!(project.read("export/acme/notes.txt"), "mine");
    project.write("export/acme/README.md", "changed");
    let told = run(&project, &["acme"]).exits(5).stderr;
    assert!(told.contains("README.md was edited after it was exported"), "{told}");
    run(&project, &["acme", "--force"]).exits(0);
    assert!(project.read("export/acme/README.md").starts_with("# acme\n"));
    let told = run(&project, &["bluebird", "--to", "export/acme"]).exits(5).stderr;
    assert!(told.contains("contains something other than an export of bluebird"), "{told}");
    project.write("other/file", "");
    run(&project, &["acme", "--to", "other"]).exits(5);
    project.write("customers/acme.yaml", "id: acme\nlogLvel: debug\n");
    let told = run(&project, &["*", "--to", "some"]).exits(1);
    assert!(told.stderr.contains("S0201") && project.path("some").exists(), "{told:?}");
}

/// npm with the Node.js that wrangler needs, in a folder.
fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(folder).env("PATH", path());
    command
}

/// The PATH, that Node.js first.
fn path() -> std::ffi::OsString {
    let own = node().parent().map(PathBuf::from).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.chain(std::env::split_paths(&path))).expect("a path")
}

/// What keeps wrangler on this machine, and sends it to a Cloudflare there.
fn variables(home: &Path, local: &Local) -> Vec<(String, String)> {
    let command = wrangler(home, home);
    let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    let mut all: Vec<(String, String)> =
        command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect();
    all.retain(|(name, _)| name != "PATH");
    all.extend([
        ("CLOUDFLARE_API_BASE_URL".to_owned(), format!("{}/client/v4", local.origin)),
        ("CLOUDFLARE_API_TOKEN".to_owned(), local.token.clone()),
        ("CLOUDFLARE_ACCOUNT_ID".to_owned(), "0123456789abcdef0123456789abcdef".to_owned()),
    ]);
    all
}

#[test]
fn wrangler_deploys_an_export_with_the_digest_of_flotilla() {
    let project = Project::sample();
    let local = Local::start(&project, None);
    project.run(&["deploy", "--local", "evergreen"]).exits(0);
    let health = || json(local.get("c15t-evergreen", "/health"));
    let ours = health();
    local.call(Method::DELETE, &format!("/accounts/{}/workers/scripts/c15t-evergreen", local_account()), None);
    let told = project.run(&["export", "evergreen", "--format", "json"]).exits(0).json();
    assert_eq!(told["exports"][0]["workers"][0]["digest"], ours["digest"]);
    let folder = project.path("export/evergreen");
    output(&mut npm(&folder, &["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"])).exits(0);
    let home = temporary_folder();
    output(npm(&folder, &["run", "deploy"]).env_clear().env("PATH", path()).envs(variables(home.path(), &local)))
        .exits(0);
    let theirs = health();
    assert_eq!((&theirs["status"], &theirs["digest"]), (&"healthy".into(), &ours["digest"]), "{theirs}");
    assert!(project.read("export/evergreen/README.md").contains(ours["digest"].as_str().expect("a digest")));
    let consent = local.get("c15t-evergreen", "/analytics/scripts?consent=%7B%22measurement%22:true%7D");
    assert_eq!(json(consent)["metadata"]["destinationCount"], 1);
    // Its types, by its own compiler and by another; and those of its bindings.
    output(&mut npm(&folder, &["run", "check"])).exits(0);
    output(tsc().args(["--project", "."]).current_dir(&folder)).exits(0);
    // It asks the network for something that it can do without, and waits for minutes where nobody answers: here, nobody listens.
    let mut types = npm(&folder, &["run", "types"]);
    types.env_clear().env("PATH", path()).envs(variables(home.path(), &local));
    output(types.envs([("HTTP_PROXY", "http://127.0.0.1:9"), ("HTTPS_PROXY", "http://127.0.0.1:9")])).exits(0);
    assert!(
        project.read("export/evergreen/production/evergreen/worker-configuration.d.ts").contains("FLOTILLA_DIGEST")
    );
    assert!(!sent_elsewhere(), "wrangler asked for another host");
}

/// Answers by path: a status and bytes.
type Answers = Arc<Mutex<BTreeMap<String, (u16, Vec<u8>)>>>;

/// A server of files; where it listens.
fn serve(answers: &Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let answers = Arc::clone(answers);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let (mut status, mut body) =
                answers.lock().expect("answers").get(path).cloned().unwrap_or((404, Vec::new()));
            if answers.lock().expect("answers").contains_key("token") && !head.contains("Bearer of-the-export") {
                (status, body) = (401, b"who are you?".to_vec());
            }
            let head = format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    origin
}

/// A repository with an export in it, and a runner of its workflow.
struct Repository {
    temp: tempfile::TempDir,
    steps: Vec<Value>,
    environment: Vec<(String, String)>,
}

impl Repository {
    fn folder(&self) -> PathBuf {
        self.temp.path().join("repository")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        output(Command::new("git").args(identity).args(arguments).current_dir(self.folder())).exits(0).stdout
    }

    /// Runs all steps until one fails, as GitHub does; gives the last, and which ran.
    fn run(&self, token: &str) -> (Run, Vec<String>) {
        let mut ran = Vec::new();
        let mut last = Run { code: 0, stdout: String::new(), stderr: String::new() };
        let _ = std::fs::remove_file(self.temp.path().join("output"));
        for step in &self.steps {
            let Some(script) = step["run"].as_str() else { continue };
            let name = step["name"].as_str().expect("a name");
            let outputs = std::fs::read_to_string(self.temp.path().join("output")).unwrap_or_default();
            if step["if"].as_str() == Some("steps.replace.outputs.pending == 'true'")
                && !outputs.contains("pending=true\n")
            {
                continue;
            }
            ran.push(name.to_owned());
            if name == "Install" {
                // The packages of the tests are the same ones.
                assert_eq!(script, "npm ci --ignore-scripts");
                continue;
            }
            let mut command = Command::new("bash");
            command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).current_dir(self.folder());
            command.env_clear().env("PATH", path()).envs(self.environment.iter().cloned());
            command.env("RUNNER_TEMP", self.temp.path().join("runner"));
            command.env("GITHUB_OUTPUT", self.temp.path().join("output"));
            for (name, value) in step["env"].as_object().into_iter().flatten() {
                match value.as_str().expect("text") {
                    "${{ secrets.EXPORT_TOKEN }}" => drop(command.env(name, token)),
                    // Of the environment, as the secrets of a repository.
                    secret if secret.starts_with("${{ secrets.CLOUDFLARE_") => {}
                    plain => drop(command.env(name, plain)),
                }
            }
            last = output(&mut command);
            if last.code != 0 {
                break;
            }
        }
        (last, ran)
    }
}

#[test]
fn its_workflow_takes_a_newer_export_whole_or_not_at_all() {
    let project = Project::sample();
    let local = Local::start(&project, None);
    let answers = Answers::default();
    let origin = serve(&answers);
    let url = format!("{origin}/juniper.tar.gz");
    let archive = || {
        project.run(&["export", "juniper", "--to", "archive.tar.gz"]).exits(0);
        ["archive.tar.gz", "archive.tar.gz.sha256"].map(|name| std::fs::read(project.path(name)).expect("an archive"))
    };
    let put = |status: u16, [archive, sum]: [Vec<u8>; 2]| {
        let mut answers = answers.lock().expect("answers");
        answers.insert("/juniper.tar.gz".to_owned(), (status, archive));
        answers.insert("/juniper.tar.gz.sha256".to_owned(), (status, sum));
    };
    let temp = temporary_folder();
    let (folder, home) = (temp.path().join("repository"), temp.path().join("home"));
    for name in ["home", "runner"] {
        std::fs::create_dir(temp.path().join(name)).expect("a folder");
    }
    let to = folder.to_str().expect("a path");
    project.run(&["export", "juniper", "--to", to, "--workflow", "github", "--url", &url]).exits(0);
    let text = std::fs::read_to_string(folder.join(".github/workflows/deploy-c15t.yml")).expect("the workflow");
    assert_eq!(crate::init::mistakes(&text), [""; 0], "to GitHub's own parser");
    let (document, mistakes) = yaml::parse("workflow", text.as_bytes());
    assert_eq!(mistakes, vec![]);
    let workflow = document.expect("a document").root.to_value();
    assert_eq!(workflow["on"]["schedule"][0]["cron"], "0 */6 * * *");
    let steps = workflow["jobs"]["deploy"]["steps"].as_array().expect("steps").clone();
    assert!(!steps.iter().filter_map(|step| step["run"].as_str()).any(|script| script.contains("${{")));
    for action in steps.iter().filter_map(|step| step["uses"].as_str()) {
        assert!(action.split_once('@').is_some_and(|(_, commit)| commit.len() == 40), "{action}");
    }
    let repository = Repository { environment: variables(&home, &local), temp, steps };
    output(
        Command::new("git")
            .args(["init", "--quiet", "--bare", "--initial-branch", "main", "../origin"])
            .current_dir(&folder),
    )
    .exits(0);
    repository.git(&["init", "--quiet", "--initial-branch", "main"]);
    repository.git(&["remote", "add", "origin", "../origin"]);
    std::os::unix::fs::symlink(packages().join("node_modules"), folder.join("node_modules")).expect("a link");
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--message", "the export"]);
    repository.git(&["push", "--quiet", "--set-upstream", "origin", "main"]);
    let pushed = || repository.git(&["rev-list", "--count", "origin/main"]).trim().parse::<u32>().expect("a number");
    let running = || json(local.get("c15t-juniper", "/health"))["digest"].as_str().unwrap_or_default().to_owned();
    let all = ["Fetch", "Replace", "Install", "Deploy", "Commit"];

    // The first time: nothing new, but never deployed.
    put(200, archive());
    let (last, ran) = repository.run("");
    assert_eq!((last.code, &ran[..]), (0, &all.map(str::to_owned)[..]), "{last:?}");
    let first = running();
    assert!(first.len() == 64 && pushed() == 2);
    // Again: nothing is deployed and nothing committed.
    let (last, ran) = repository.run("");
    assert_eq!((last.code, ran.len(), pushed(), running()), (0, 3, 2, first.clone()), "{last:?}");

    // What isn't a whole export replaces nothing: an error page, one with the status of success, a truncated archive, one whose
    // sum isn't there, one of another customer, one with a link, one with more than it lists.
    project.edit("customers/juniper.yaml", "id: juniper", "id: juniper\nlogLevel: warn");
    let [good, sum] = archive();
    let page = b"<html>Bad Gateway</html>".to_vec();
    let summed = |bytes: &[u8]| flotilla_build::export::sum(bytes).into_bytes();
    project.run(&["export", "acme", "--env", "production", "--to", "other.tar.gz"]).exits(0);
    let other = std::fs::read(project.path("other.tar.gz")).expect("an archive");
    let packed = |script: &str| {
        let pack = format!(
            "rm -rf juniper && tar xzf archive.tar.gz && {script} && tar czf packed.tar.gz juniper/* juniper/.gitignore"
        );
        output(Command::new("sh").args(["-ec", &pack]).current_dir(project.root())).exits(0);
        std::fs::read(project.path("packed.tar.gz")).expect("an archive")
    };
    let files = "find juniper -type f > list && tar czf packed.tar.gz -T list; exit 0";
    let plain = |script: &str| packed(&format!("{script} && {files}"));
    let link = packed("ln -s /etc/passwd juniper/passwd");
    let more = plain("echo x > juniper/more.txt");
    let edited = plain("echo >> juniper/production/juniper/index.ts");
    let less = plain("rm juniper/tsconfig.json");
    let before = repository.git(&["status", "--porcelain"]);
    for (what, status, answer) in [
        ("an error page", 502, [page.clone(), page.clone()]),
        ("a page as if it were the archive", 200, [page.clone(), page.clone()]),
        ("a page with its sum", 200, [page.clone(), summed(&page)]),
        ("truncated", 200, [good[..good.len() / 2].to_vec(), sum.clone()]),
        ("no sum", 200, [good.clone(), Vec::new()]),
        ("another customer", 200, [other.clone(), summed(&other)]),
        ("a link", 200, [link.clone(), summed(&link)]),
        ("more than listed", 200, [more.clone(), summed(&more)]),
        ("edited", 200, [edited.clone(), summed(&edited)]),
        ("less than listed", 200, [less.clone(), summed(&less)]),
    ] {
        put(status, answer);
        let (last, ran) = repository.run("");
        assert!(last.code != 0 && !ran.contains(&"Deploy".to_owned()), "{what}: {ran:?} {last:?}");
        assert_eq!(
            (repository.git(&["status", "--porcelain"]), pushed(), running()),
            (before.clone(), 2, first.clone()),
            "{what}"
        );
    }

    // The newer one, from behind a token.
    put(200, [good, sum]);
    answers.lock().expect("answers").insert("token".to_owned(), (200, Vec::new()));
    assert_ne!(repository.run("wrong").0.code, 0);
    let (last, ran) = repository.run("of-the-export");
    assert_eq!((last.code, &ran[..]), (0, &all.map(str::to_owned)[..]), "{last:?}");
    assert!(running() != first && pushed() == 3);
    assert!(
        repository
            .git(&["log", "-1", "--format=%s"])
            .starts_with(&format!("juniper: c15t-juniper {}", &running()[..16]))
    );
    assert!(!sent_elsewhere(), "wrangler asked for another host");
}
