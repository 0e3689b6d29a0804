//! Shows: where secrets come from, and that what is found there is what is uploaded: age, SOPS, programs, a file for each
//! environment; what an upload sends and what it keeps; `flotilla secrets`, on a terminal and elsewhere.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, tcgetattr};
use rustix_openpty::openpty;
use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::support::{PATIENCE, Project, Run, output, repository};

const HEAD: &str = "name: test\npacks:\n  tiny: { path: packs/tiny }\n";
const SPEC: &str = "secrets:\n  TOKEN: { secret: TOKEN }\n  KEY: { secret: KEY }\n";

/// A project of acme and bolt with these sources.
fn project(sources: &str) -> Project {
    let project = fleet(&[("acme", SPEC), ("bolt", SPEC)]);
    project.write("fleet.yaml", format!("{HEAD}secrets:\n{sources}"));
    project
}

/// Runs a command with something on its stdin.
#[track_caller]
fn piped(project: &Project, arguments: &[&str], input: &str) -> Run {
    let mut command = project.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // It may refuse before it reads.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A server that says yes to everything, and keeps what it was sent.
struct Yes {
    base: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Yes {
    fn start() -> Yes {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}/client/v4", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut there = std::collections::BTreeSet::new();
            for mut stream in listener.incoming().flatten() {
                let mut bytes = Vec::new();
                let mut piece = [0; 4096];
                let whole = |bytes: &[u8]| {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    let (head, body) = text.split_once("\r\n\r\n")?;
                    let length = head.to_ascii_lowercase().lines().find_map(|line| {
                        line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
                    });
                    (body.len() >= length.unwrap_or(0)).then_some(text.clone())
                };
                let text = loop {
                    match stream.read(&mut piece) {
                        Ok(number @ 1..) => bytes.extend(&piece[..number]),
                        _ => break None,
                    }
                    if let Some(text) = whole(&bytes) {
                        break Some(text);
                    }
                };
                let list = text.as_ref().is_some_and(|text| text.starts_with("GET "));
                let worker = text.as_ref().and_then(|text| {
                    text.split_once("/workers/scripts/")?.1.split([' ', '?', '/']).next().map(str::to_owned)
                });
                let of_worker = text
                    .as_ref()
                    .is_some_and(|text| text.split(' ').nth(1).is_some_and(|path| path.ends_with("/settings")));
                let is_there = worker.as_ref().is_some_and(|worker| there.contains(worker));
                if !list {
                    there.extend(worker.clone());
                }
                let of_account = text.as_ref().is_some_and(|text| text.contains("/workers/subdomain "));
                keep.lock().unwrap().extend(text);
                // Whoever asks what there is learns that there is nothing.
                let result = if list { json!([]) } else { json!({"id": worker, "etag": "e", "enabled": true}) };
                let result = if list && of_worker { json!({"bindings": [], "tags": []}) } else { result };
                let result = if of_account { json!({"subdomain": "team"}) } else { result };
                let (status, answer) = match list && of_worker && !is_there {
                    true => {
                        (404, json!({"success": false, "errors": [{"code": 10007, "message": "no"}], "messages": []}))
                    }
                    false => (200, json!({"success": true, "errors": [], "messages": [], "result": result})),
                };
                let answer = answer.to_string();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
            }
        });
        Yes { base, heard }
    }

    /// The secrets of each upload since the last time, as `worker NAME=value …`, with a `+` at the end if others are kept.
    fn uploads(&self) -> Vec<String> {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let mut uploads: Vec<String> = heard
            .iter()
            .filter_map(|request| {
                let worker = request.split_once("/workers/scripts/")?.1.split([' ', '?']).next()?;
                let from = request.find("{\"")?;
                let metadata =
                    serde_json::Deserializer::from_str(&request[from..]).into_iter::<Value>().next()?.ok()?;
                let secrets =
                    metadata["bindings"].as_array()?.iter().filter(|binding| binding["type"] == "secret_text");
                let mut words: Vec<String> = secrets
                    .map(|binding| {
                        format!("{}={}", binding["name"].as_str().unwrap(), binding["text"].as_str().unwrap())
                    })
                    .collect();
                words.sort();
                if metadata["keep_bindings"] == json!(["secret_text", "secret_key"]) {
                    words.push("+".to_owned());
                }
                Some(format!("{worker} {}", words.join(" ")))
            })
            .collect();
        uploads.sort();
        uploads
    }

    fn command(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = project.command(arguments);
        command
            .env("CLOUDFLARE_API_BASE_URL", &self.base)
            .env("CLOUDFLARE_API_TOKEN", "test-token")
            .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
            .env("FLOTILLA_CACHE_DIR", cache());
        command
    }

    #[track_caller]
    fn deploy(&self, project: &Project) -> Run {
        output(&mut self.command(project, &["deploy", "--yes"]))
    }
}

fn script(project: &Project, path: &str, text: &str) {
    project.write(path, format!("#!/bin/sh\n{text}"));
    std::fs::set_permissions(project.path(path), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Files that the age of its author wrote, and their key.
fn fixture(project: &Project) {
    for name in ["key.txt", "fleet.env.age", "fleet.yaml.age"] {
        let bytes = std::fs::read(repository().join("tests/fixtures/age").join(name)).unwrap();
        project.write(name, bytes);
    }
}

#[test]
fn what_age_encrypted_is_what_is_uploaded() {
    let yes = Yes::start();
    let project = project(
        "  - { age: fleet.env.age, identity: { env: FLEET_KEY } }\n  - { age: fleet.yaml.age, identity: { file: key.txt } }\n",
    );
    fixture(&project);
    let key = project.read("key.txt");
    output(yes.command(&project, &["deploy", "--yes"]).env("FLEET_KEY", &key)).exits(0);
    // The first file in lines, the second a map; and acme has one of its own.
    assert_eq!(yes.uploads(), ["t-acme KEY=own TOKEN=from age", "t-bolt KEY=0123 TOKEN=from age"]);
    // Without the key nothing is known, and nothing changes.
    let told = output(&mut yes.command(&project, &["plan", "--exit-code"])).exits(0);
    let closed = "fleet.env.age is unavailable (FLEET_KEY, which decrypts it, is not set)";
    assert!(told.stderr.contains(closed), "{told:?}");
    // A new worker can't be uploaded then, and the others can: what they have is kept.
    project.write("customers/acme.yaml", format!("id: acme\n{SPEC}vars: {{ A: changed }}\n"));
    yes.deploy(&project).exits(0);
    assert_eq!(yes.uploads(), ["t-acme +"]);
    project.write("customers/new.yaml", format!("id: new\n{SPEC}"));
    let told = yes.deploy(&project).exits(1);
    let missing = "TOKEN or NEW__TOKEN for new (fleet.env.age: FLEET_KEY, which decrypts it, is not set)";
    assert!(told.stderr.contains("nothing was sent") && told.stderr.contains(missing), "{told:?}");
    assert!(yes.uploads().is_empty());
}

#[test]
fn what_flotilla_encrypts_age_decrypts() {
    let Ok(version) = Command::new("age").arg("--version").output() else {
        eprintln!("age is not installed: its own program wasn't asked");
        return;
    };
    assert!(version.status.success());
    let project = project("  - { age: fleet.yaml.age, identity: { file: key.txt } }\n");
    fixture(&project);
    piped(&project, &["secrets", "set", "TOKEN", "--customer", "acme"], "it's \"new\"\n").exits(0);
    let mut age = Command::new("age");
    let told = output(age.args(["-d", "-i", "key.txt", "fleet.yaml.age"]).current_dir(project.root())).exits(0);
    assert_eq!(told.stdout, "TOKEN: from yaml\nKEY: \"0123\"\nACME__TOKEN: \"it's \\\"new\\\"\"\n");
}

#[test]
fn each_environment_has_a_file_of_its_own() {
    let yes = Yes::start();
    let project = project("  - { dotenv: \"secrets/{environment}.env\" }\n");
    project.write("customers/bolt.yaml", format!("id: bolt\nenvironments: {{ staging: , production: }}\n{SPEC}"));
    project.write("secrets/staging.env", "TOKEN=staging\nKEY=staging\n");
    project.write("secrets/production.env", "TOKEN=production\nKEY=production\n");
    yes.deploy(&project).exits(0);
    assert_eq!(
        yes.uploads(),
        [
            "t-acme KEY=production TOKEN=production",
            "t-bolt KEY=production TOKEN=production",
            "t-bolt-staging KEY=staging TOKEN=staging"
        ]
    );
    // A rotation in one is none in the other.
    project.edit("secrets/staging.env", "TOKEN=staging", "TOKEN=other");
    yes.deploy(&project).exits(0);
    assert_eq!(yes.uploads(), ["t-bolt-staging TOKEN=other +"]);
    let told = project.run(&["secrets", "set", "TOKEN"]).exits(2).stderr;
    assert!(told.contains("name the environment: --env staging"), "{told}");
    let set = ["secrets", "set", "TOKEN", "--env", "staging"];
    let told = piped(&project, &set, "third").exits(0).stdout;
    // For this cloud: nothing is deployed there yet.
    assert!(
        told.contains("TOKEN is replaced in secrets/staging.env\n") && told.contains("1 worker: t-bolt-staging"),
        "{told}"
    );
    assert_eq!(project.read("secrets/staging.env"), "TOKEN=third\nKEY=staging\n");
}

#[test]
fn a_program_is_asked_for_each_secret_and_a_failing_one_holds_what_it_has() {
    let yes = Yes::start();
    let project = project(
        "  - { command: [bin/vault, \"{customer}\", \"{name}\", \"{environment}\"], atOnce: 2 }\n  - { dotenv: old.env }\n",
    );
    project.write("old.env", "TOKEN=old\nKEY=old\n");
    let vault = "echo \"$*\" >> asked\n[ -e down ] && { echo \"$1 is down, token-1234\" >&2; exit 2; }\n[ $2 = TOKEN ] && echo \"$1's $3\"\nexit 0\n";
    script(&project, "bin/vault", vault);
    yes.deploy(&project).exits(0);
    assert_eq!(yes.uploads(), ["t-acme KEY=old TOKEN=acme's production", "t-bolt KEY=old TOKEN=bolt's production"]);
    let asked = project.read("asked");
    let mut asked: Vec<&str> = asked.lines().collect();
    asked.sort_unstable();
    assert_eq!(asked, ["acme KEY production", "acme TOKEN production", "bolt KEY production", "bolt TOKEN production"]);
    // Down: the old value from behind it is not taken instead.
    project.write("down", "");
    let plan = output(&mut yes.command(&project, &["plan", "--exit-code"]));
    plan.exits(0);
    let run = output(&mut yes.command(&project, &["secrets", "list", "acme"])).exits(0);
    // Once, and not in each row.
    let reason = "command bin/vault: bin/vault ended with 2: acme is down, ***";
    assert_eq!(run.stderr.matches(reason).count(), 1, "{run:?}");
    let list = run.stdout;
    assert!(list.contains("command bin/vault can't be read") && list.contains("deployed, unchanged"), "{list}");
    assert!(!(list.clone() + &run.stderr).contains("old.env") && !(list + &run.stderr).contains("1234"));
}

/// Deploys what a sops, real or not, opens.
fn deploys_from_sops(path: &Path, project: &Project) {
    let yes = Yes::start();
    let paths = std::env::var("PATH").unwrap();
    let with = |arguments: &[&str]| {
        let mut command = yes.command(project, arguments);
        command.env("PATH", format!("{}:{paths}", path.display())).env("SOPS_AGE_KEY_FILE", project.path("key.txt"));
        output(&mut command)
    };
    with(&["deploy", "--yes"]).exits(0);
    assert_eq!(yes.uploads(), ["t-acme KEY=own TOKEN=from sops", "t-bolt KEY=0123 TOKEN=from sops"]);
    let told = piped(project, &["secrets", "set", "TOKEN"], "x").exits(2).stderr;
    assert!(told.contains("`sops set` writes its own files"), "{told}");
}

#[test]
fn sops_is_run_to_open_its_files() {
    let project = project("  - { sops: secrets.yaml }\n");
    project.write("secrets.yaml", "TOKEN: ENC[…]\n");
    let opened = "[ \"$*\" = \"decrypt --output-type json $PWD/secrets.yaml\" ] || exit 9\n\
                  echo '{\"TOKEN\": \"from sops\", \"KEY\": \"0123\", \"ACME__KEY\": \"own\"}'\n";
    script(&project, "bin/sops", opened);
    deploys_from_sops(&project.path("bin"), &project);
    // One that can't, and none at all.
    let list = |path: &str| {
        let mut command = project.command(&["secrets", "list", "acme"]);
        let run = output(command.env("PATH", path)).exits(0);
        run.stdout + &run.stderr
    };
    script(
        &project,
        "bin/sops",
        "echo 'Failed to get the data key required to decrypt the SOPS file.' >&2; exit 128\n",
    );
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    let told = list(&path);
    let why = "secrets.yaml: sops ended with 128: Failed to get the data key required to decrypt the SOPS file.";
    assert!(told.contains(why) && told.contains("missing"), "{told}");
    script(&project, "bin/sops", "echo '{\"TOKEN\": {\"a\": \"canary\"}}'\n");
    let told = list(&path);
    assert!(told.contains("something other than names and text") && !told.contains("canary"), "{told}");
    assert!(list("/nowhere").contains("secrets.yaml: sops is not installed"));
}

#[test]
fn the_real_sops_opens_what_it_encrypted() {
    let Ok(version) = Command::new("sops").args(["--version", "--disable-version-check"]).output() else {
        eprintln!("sops is not installed: its own program wasn't asked");
        return;
    };
    assert!(version.status.success());
    let project = project("  - { sops: secrets.yaml }\n");
    fixture(&project);
    project.write("secrets.yaml", "TOKEN: from sops\nKEY: \"0123\"\nACME__KEY: own\n");
    let key = project.read("key.txt");
    let public = key.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("age-keygen writes it");
    let mut sops = Command::new("sops");
    sops.args(["encrypt", "--age", public, "--in-place", "secrets.yaml"]).current_dir(project.root());
    output(&mut sops).exits(0);
    assert!(!project.read("secrets.yaml").contains("from sops"));
    deploys_from_sops(Path::new("/usr/bin"), &project);
}

#[test]
fn an_upload_sends_what_differs_and_keeps_the_rest() {
    let (cloud, project) = (Cloud::start(), project("  - { dotenv: .env }\n"));
    project.write(".env", "TOKEN=one\nKEY=two\n");
    /// The bindings that uploads sent, and whether they keep others.
    fn sent(cloud: &Cloud) -> Vec<String> {
        let uploads = cloud.take().into_iter().filter(|request| request.what.starts_with("PUT scripts/"));
        let mut sent: Vec<String> = uploads
            .map(|request| {
                let parts = request.entry["parts"].as_array().unwrap();
                let metadata = &parts.iter().find(|part| part["name"] == "metadata").unwrap()["json"];
                let bindings = metadata["bindings"].as_array().unwrap().iter();
                let names = bindings.filter(|binding| binding["type"] == "secret_text").map(|binding| &binding["name"]);
                let names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
                let keep = if metadata["keep_bindings"][0] == "secret_text" { "+" } else { "" };
                format!("{} {}{keep}", request.what.trim_start_matches("PUT scripts/"), names.join(","))
            })
            .collect();
        sent.sort();
        sent
    }
    let live = |worker: &str| {
        let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/{worker}/secrets");
        let shown = cloud.http("GET", &path, &Value::Null);
        let names =
            shown["result"].as_array().unwrap().iter().map(|secret| secret["name"].as_str().unwrap().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.join(",")
    };
    cloud.deploy(&project, &[]);
    assert_eq!(sent(&cloud), ["t-acme KEY,TOKEN", "t-bolt KEY,TOKEN"]);
    // Another bundle: no secret is sent, and all stay.
    project.write("customers/acme.yaml", format!("id: acme\n{SPEC}vars: {{ A: b }}\n"));
    cloud.deploy(&project, &[]);
    assert_eq!((sent(&cloud), live("t-acme").as_str()), (vec!["t-acme +".to_owned()], "KEY,TOKEN"));
    // One rotated: it alone.
    project.write(".env", "TOKEN=one\nKEY=two\nBOLT__KEY=three\n");
    let list = cloud.run(&project, &["secrets", "list", "bolt", "--format", "json"]).exits(0).json();
    let status =
        |at: usize| (&list["secrets"][at]["binding"], &list["secrets"][at]["status"], &list["secrets"][at]["deployed"]);
    assert_eq!(status(0), (&json!("KEY"), &json!("changed"), &json!(true)));
    assert_eq!(status(1), (&json!("TOKEN"), &json!("unchanged"), &json!(true)));
    let told = cloud.run(&project, &["deploy", "--yes"]).exits(0);
    assert!(told.stderr.contains("secret KEY changed"), "{told:?}");
    assert_eq!((sent(&cloud), live("t-bolt").as_str()), (vec!["t-bolt KEY+".to_owned()], "KEY,TOKEN"));
    assert_eq!(cloud.deploy(&project, &[])["requests"], 0);
    // One more binding: it is sent, and the others stay.
    let more = SPEC.replace("secrets:\n", "secrets:\n  MORE: { secret: TOKEN }\n");
    project.write("customers/bolt.yaml", format!("id: bolt\n{more}"));
    cloud.deploy(&project, &[]);
    assert_eq!((sent(&cloud), live("t-bolt").as_str()), (vec!["t-bolt MORE+".to_owned()], "KEY,MORE,TOKEN"));
    // One less: nothing can be kept, and all have to be known.
    project.write("customers/bolt.yaml", format!("id: bolt\n{SPEC}"));
    project.write(".env", "TOKEN=one\n");
    let told = cloud.run(&project, &["deploy", "--yes"]).exits(1).stderr;
    let why = "KEY or BOLT__KEY for bolt (MORE is removed, so all other secrets have to be sent again)";
    assert!(told.contains(why), "{told}");
    let told = cloud.run(&project, &["secrets", "check"]).exits(1).stderr;
    assert!(told.contains("it is deployed, but MORE is removed, so all other secrets have to be sent again"), "{told}");
    assert!(sent(&cloud).is_empty());
    project.write(".env", "TOKEN=one\nKEY=two\n");
    cloud.deploy(&project, &[]);
    assert_eq!((sent(&cloud), live("t-bolt").as_str()), (vec!["t-bolt KEY,TOKEN".to_owned()], "KEY,TOKEN"));
    // Nothing is known here any more: what is deployed stays, and that is fine.
    std::fs::remove_file(project.path(".env")).unwrap();
    cloud.run(&project, &["secrets", "check"]).exits(0);
    assert_eq!(cloud.deploy(&project, &[])["requests"], 0);
}

#[test]
fn a_rollback_leaves_secrets_as_they_are_where_it_can() {
    let yes = Yes::start();
    let project = project("  - { dotenv: .env }\n");
    project.write(".env", "TOKEN=one\nKEY=two\n");
    yes.deploy(&project).exits(0);
    project.write("customers/acme.yaml", format!("id: acme\n{SPEC}vars: {{ A: b }}\n"));
    let more = SPEC.replace("secrets:\n", "secrets:\n  MORE: { secret: TOKEN }\n");
    project.write("customers/bolt.yaml", format!("id: bolt\n{more}"));
    yes.deploy(&project).exits(0);
    yes.uploads();
    // Rotated here, and not deployed: going back is no rotation.
    project.write(".env", "TOKEN=new\nKEY=two\n");
    let back = |customer: &str| output(&mut yes.command(&project, &["rollback", customer, "--yes"]));
    back("acme").exits(0);
    assert_eq!(yes.uploads(), ["t-acme +"]);
    // What was added since has to go, so that all are sent.
    back("bolt").exits(0);
    assert_eq!(yes.uploads(), ["t-bolt KEY=two TOKEN=new"]);
}

#[test]
fn after_an_interrupted_upload_all_secrets_are_sent() {
    let (cloud, project) = (Cloud::start(), project("  - { dotenv: .env }\n"));
    project.write(".env", "TOKEN=one\nKEY=two\n");
    cloud.deploy(&project, &[]);
    cloud.take();
    // It arrives, and no answer comes, however often it is tried: whether the new value is live nobody knows.
    cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 1000, "do": {"reset": "after"}}]));
    project.write(".env", "TOKEN=one\nKEY=two\nACME__KEY=three\n");
    cloud.run(&project, &["deploy", "--yes"]).exits(4);
    cloud.clear_faults();
    cloud.take();
    // Taken back: by the fingerprints alone, nothing would be to do.
    project.write(".env", "TOKEN=one\nKEY=two\n");
    cloud.deploy(&project, &[]);
    let uploads: Vec<_> = cloud.take().into_iter().filter(|request| request.what == "PUT scripts/t-acme").collect();
    assert_eq!(uploads.len(), 1);
    let entry = uploads[0].entry.to_string();
    assert_eq!(entry.matches("\"secret_text\"").count(), 2, "both, and nothing is kept: {entry}");
    assert!(entry.contains("\"keep_bindings\":[\"secret_key\"]"), "{entry}");
}

#[test]
fn who_knows_no_value_keeps_what_workers_have_that_are_adopted_or_found_again() {
    let (cloud, project) = (Cloud::start(), project("  - { dotenv: .env }\n"));
    project.write(".env", "TOKEN=one\nKEY=two\n");
    cloud.deploy(&project, &[]);
    // Another machine, without a state and without values; and a worker that isn't the fleet's.
    std::fs::remove_dir_all(project.path(".flotilla")).unwrap();
    std::fs::remove_file(project.path(".env")).unwrap();
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/t-bolt/script-settings");
    assert_eq!(cloud.http("PATCH", &path, &json!({"tags": ["somebody-elses"]}))["success"], true);
    project.write("customers/acme.yaml", format!("id: acme\n{SPEC}vars: {{ A: b }}\n"));
    cloud.take();
    let deployed = cloud.deploy(&project, &["--refresh", "--adopt", "t-bolt"]);
    assert_eq!(deployed["applied"], 2, "{deployed}");
    let requests = cloud.take();
    let asked = requests.iter().filter(|request| request.what.ends_with("/settings")).count();
    let uploads: Vec<_> = requests.iter().filter(|request| request.what.starts_with("PUT scripts/")).collect();
    assert_eq!((asked, uploads.len()), (3, 2), "their secrets, and whose the one without the tag is");
    for upload in uploads {
        let entry = upload.entry.to_string();
        assert!(!entry.contains("\"secret_text\",\"name\"") && !entry.contains("\"type\":\"secret_text\""), "{entry}");
        assert!(entry.contains("\"keep_bindings\":[\"secret_text\",\"secret_key\"]"), "{entry}");
    }
    for worker in ["t-acme", "t-bolt"] {
        let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/{worker}/secrets");
        let names = cloud.http("GET", &path, &Value::Null)["result"].as_array().unwrap().len();
        assert_eq!(names, 2, "{worker} has what it had");
    }
    assert_eq!(cloud.deploy(&project, &[])["requests"], 0);
    // What was never there has to be known: nobody can keep it.
    project.write("customers/acme.yaml", format!("id: acme\n{SPEC}  NEW: {{ secret: NEW }}\n"));
    let refused = cloud.run(&project, &["deploy", "--yes"]).exits(1);
    assert!(refused.stderr.contains("NEW or ACME__NEW for acme"), "{}", refused.stderr);
    // A value that is known from now on is sent, once.
    project.write("customers/acme.yaml", format!("id: acme\n{SPEC}vars: {{ A: b }}\n"));
    project.write(".env", "TOKEN=one\n");
    assert_eq!(cloud.deploy(&project, &[])["applied"], 2);
    assert_eq!(cloud.deploy(&project, &[])["requests"], 0);
}

#[test]
fn what_a_spec_does_not_say_is_not_taken_from_a_worker_that_is_adopted() {
    let (cloud, project) = (Cloud::start(), project("  - { dotenv: .env }\n"));
    project.write(".env", "TOKEN=one\nKEY=two\n");
    project.write("customers/bolt.yaml", format!("id: bolt\n{SPEC}vars: {{ A: b }}\n"));
    cloud.deploy(&project, &[]);
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/t-bolt/script-settings");
    assert_eq!(cloud.http("PATCH", &path, &json!({"tags": ["somebody-elses"]}))["success"], true);
    std::fs::remove_dir_all(project.path(".flotilla")).unwrap();
    project.write("customers/bolt.yaml", "id: bolt\nsecrets: { KEY: { secret: KEY } }\n");
    cloud.take();
    for more in [&["--refresh"][..], &[]] {
        let run = cloud.run(&project, &[&["deploy", "--yes", "--adopt", "t-bolt", "bolt"], more].concat()).exits(5);
        assert!(run.stderr.contains("t-bolt: A, TOKEN\n"), "{}", run.stderr);
    }
    assert!(cloud.sent().iter().all(|what| what.starts_with("GET ")));
    project.write("customers/bolt.yaml", format!("id: bolt\n{SPEC}vars: {{ A: b }}\n"));
    assert_eq!(cloud.deploy(&project, &["--adopt", "t-bolt", "bolt"])["applied"], 1);
}

#[test]
fn set_and_rotate_say_what_follows_and_never_the_value() {
    let project = project("  - { dotenv: .env }\n");
    let clean = |run: Run, value: &str| {
        assert!(!format!("{run:?}").contains(value), "{run:?}");
        run
    };
    let told = clean(piped(&project, &["secrets", "set", "TOKEN"], "canary-1\n"), "canary-1").exits(0).stdout;
    assert_eq!(told, "TOKEN is new in .env\nthe next deploy uploads 2 workers: t-acme, t-bolt\n");
    let told =
        clean(piped(&project, &["secrets", "set", "TOKEN", "--customer", "bolt"], "canary 2"), "canary 2").exits(0);
    assert_eq!(told.stdout, "BOLT__TOKEN is new in .env\nthe next deploy uploads 1 worker: t-bolt\n");
    project.write(".env", format!("# ours\n{}", project.read(".env")));
    let told = project.run(&["secrets", "rotate", "TOKEN", "--format", "json"]).exits(0).json();
    assert_eq!(told, json!({"name": "TOKEN", "source": ".env", "done": "replaced", "uploads": ["t-acme"]}));
    let text = project.read(".env");
    let value = text.lines().nth(1).and_then(|line| line.strip_prefix("TOKEN=")).expect("in its place");
    assert_eq!(
        (value.len(), text.lines().next(), text.lines().nth(2)),
        (43, Some("# ours"), Some("BOLT__TOKEN='canary 2'"))
    );
    let rotate = ["secrets", "rotate", "TOKEN", "--customer", "bolt", "--generate", "hex", "--length", "16"];
    project.run(&rotate).exits(0);
    let text = project.read(".env");
    let value = text.lines().nth(2).and_then(|line| line.strip_prefix("BOLT__TOKEN=")).expect("in its place");
    assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    let rotate = ["secrets", "rotate", "TOKEN", "--stdin"];
    clean(piped(&project, &rotate, "canary-3"), "canary-3").exits(0);
    assert!(project.read(".env").contains("TOKEN=canary-3\n"));
    // The environment comes later in this fleet; a name that nobody needs; one that comes before.
    let told = piped(&project, &["secrets", "set", "NOBODYS"], "x").exits(0).stdout;
    assert_eq!(told, "NOBODYS is new in .env\nno worker needs it\n");
    project.write("fleet.yaml", format!("{HEAD}secrets: [{{ env: true }}, {{ dotenv: .env }}]\n"));
    let mut command = project.command(&["secrets", "rotate", "TOKEN"]);
    let told = output(command.env("TOKEN", "canary-4")).exits(0);
    let told = clean(told, "canary-4").stdout;
    assert!(told.contains("2 workers have another value: t-acme has TOKEN from environment"), "{told}");
    assert!(told.contains("the next deploy uploads no worker for it"), "{told}");
    // What is no value, and what is no name.
    for (input, why) in [("", "the value is empty"), ("\n", "the value is empty"), ("a\0b", "not text")] {
        let told = piped(&project, &["secrets", "set", "TOKEN"], input).exits(1).stderr;
        assert!(told.contains(why), "{told}");
    }
    // What no request can carry, and no account has.
    for (name, input, why) in [
        ("CLOUDFLARE_API_TOKEN", "\"canary-6\"\n", "the token contains quotes, and was not stored"),
        ("CLOUDFLARE_ACCOUNT_ID", "canary-6\n", "the account's id contains characters other than 0-9 and a-f"),
    ] {
        let told = clean(piped(&project, &["secrets", "set", name], input), "canary-6").exits(1).stderr;
        assert!(told.contains(why) && !project.read(".env").contains(name), "{told}");
    }
    let large = "x".repeat(6000);
    let told = piped(&project, &["secrets", "set", "TOKEN"], &large).exits(1).stderr;
    assert!(told.contains("the value has 6,000 bytes, but the limit is 5,120"), "{told}");
    let told = piped(&project, &["secrets", "set", "TOKEN=canary-5"], "").exits(2);
    assert!(!clean(told, "canary-5").stderr.is_empty());
    piped(&project, &["secrets", "set", "TOKEN", "--source", "other.env"], "x").exits(2);
}

#[test]
fn a_file_in_clear_that_git_tracks_is_not_written() {
    let project = project("  - { dotenv: .env }\n  - { age: fleet.env.age, identity: { file: key.txt } }\n");
    fixture(&project);
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(project.root())).exits(0);
    git(&["init", "--quiet"]);
    let told = piped(&project, &["secrets", "set", "KEY"], "x").exits(0).stderr;
    assert!(told.contains("git doesn't ignore .env"), "{told}");
    git(&["add", ".env", "fleet.env.age"]);
    let before = project.read(".env");
    let told = piped(&project, &["secrets", "set", "KEY"], "y").exits(5).stderr;
    assert!(told.contains("git tracks .env"), "{told}");
    project.run(&["secrets", "rotate", "KEY"]).exits(5);
    assert_eq!(project.read(".env"), before);
    // What is encrypted may be tracked.
    let set = ["secrets", "set", "KEY", "--source", "fleet.env.age"];
    let told = piped(&project, &set, "z").exits(0).stderr;
    assert!(!told.contains("git"), "{told}");
    git(&["rm", "--quiet", "--cached", ".env"]);
    project.write(".gitignore", ".env\n");
    let told = piped(&project, &["secrets", "set", "KEY"], "y").exits(0).stderr;
    assert_eq!(told, "");
}

/// A command whose stdin, stdout and stderr are a terminal.
struct Typed {
    child: Child,
    controller: File,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Typed {
    fn run(mut command: Command) -> Typed {
        let pair = openpty(None, None).expect("a pseudo-terminal");
        let end = || Stdio::from(pair.user.try_clone().expect("a second descriptor"));
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm").env_remove("CI");
        let child = command.spawn().expect("the program starts");
        drop(command);
        drop(pair.user);
        let controller = File::from(pair.controller);
        let (mut reader, seen) = (controller.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let keep = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(number @ 1..) = reader.read(&mut bytes) {
                keep.lock().unwrap().extend(&bytes[..number]);
            }
        });
        Typed { child, controller, seen, reader }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} in {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types where nothing is echoed, as a person does: the prompt is there an instant before the terminal stops echoing.
    fn types(&mut self, text: &str) {
        let start = Instant::now();
        let echoes = |terminal: &File| tcgetattr(terminal).expect("a terminal").local_modes.contains(LocalModes::ECHO);
        while echoes(&self.controller) {
            assert!(start.elapsed() < PATIENCE, "the terminal echoes: {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.controller.write_all(text.as_bytes()).expect("a terminal");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("the program ends");
        // Nobody has the terminal any more: what it wrote last is read, and then reading fails.
        self.reader.join().expect("the reader ends");
        let screen = String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned();
        (status.code(), screen)
    }
}

#[test]
fn a_workflow_is_given_the_keys_that_open_files_and_what_comes_from_the_environment() {
    let age = "  - { age: fleet.age, identity: { env: FLEET_KEY } }\n";
    let project = project(age);
    let of = |name: &str| format!("{name}: ${{{{ secrets.{name} }}}}");
    let workflow = || project.run(&["init", "--ci", "github", "--print"]).exits(0).stdout;
    let text = workflow();
    assert!(text.contains(&of("FLEET_KEY")) && !text.contains(&of("TOKEN")), "{text}");
    project.write("fleet.yaml", format!("{HEAD}secrets:\n  - {{ env: true }}\n{age}"));
    let text = workflow();
    assert!(text.contains(&of("FLEET_KEY")) && text.contains(&of("TOKEN")), "{text}");
}

#[test]
fn on_a_terminal_a_value_is_typed_and_not_shown() {
    let project = project("  - { dotenv: .env }\n");
    let mut typed = Typed::run(project.command(&["secrets", "set", "TOKEN", "--customer", "acme"]));
    typed.wait_for("ACME__TOKEN: ");
    typed.types("canaryX\u{7f}-typed\r");
    let (code, screen) = typed.end();
    assert_eq!(code, Some(0), "{screen}");
    assert_eq!(project.read(".env"), "ACME__TOKEN=canary-typed\n");
    assert!(screen.contains("***") && screen.contains("ACME__TOKEN is new in .env"), "{screen}");
    assert!(!screen.contains("canary") && !screen.contains("typed"), "{screen}");
    // Ctrl-C: nothing is written.
    let mut typed = Typed::run(project.command(&["secrets", "set", "KEY"]));
    typed.wait_for("KEY: ");
    typed.types("canary");
    typed.wait_for("***");
    typed.types("\u{3}");
    let (code, screen) = typed.end();
    assert_ne!(code, Some(0), "{screen}");
    assert!(!screen.contains("canary"), "{screen}");
    assert_eq!(project.read(".env"), "ACME__TOKEN=canary-typed\n");
}

#[test]
fn a_program_that_fails_is_reported_where_deployed_secrets_are_kept() {
    let yes = Yes::start();
    let project = project("  - { command: [sh, secrets.sh, \"{name}\"] }\n");
    project.write("secrets.sh", "echo value\n");
    yes.deploy(&project).exits(0);
    project.write("secrets.sh", "echo the vault is sealed, token s3cr3t-canary >&2; exit 3\n");
    for command in [&["plan"][..], &["deploy", "--yes"], &["secrets", "check"]] {
        let told = output(&mut yes.command(&project, command)).exits(0).stderr;
        assert_eq!(told.matches("sh ended with 3: the vault is sealed, token ***").count(), 1, "{command:?} {told}");
        assert!(!told.contains("canary"), "{told}");
    }
}
