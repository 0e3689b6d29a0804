//! Shows that secrets stay secret: canaries in the environment, in the dotenv file and in places where they don't
//! belong turn up in no file of the project, in nothing that a command prints, whatever fails, and in no type's Debug.

use std::collections::{BTreeSet, HashMap};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::state::State;
use flotilla_model::spec::Environment;
use flotilla_spec::secrets::Secrets;
use secrecy::SecretString;
use serde_json::json;

use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::folders::temporary_folder;
use crate::support::{Project, Run, http_request, output};

/// Canaries: what must be nowhere. The forms in which they could be somewhere all the same are searched, too.
const ENVIRONMENT: &str = "canary/env'\"ironment+0123456789";
const DOTENV: &str = "canary-dotenv-0123456789";
const OWN: &str = "canary-own-0123456789";
const TOKEN: &str = "canary-token-0123456789";
const AGE: &str = "canary-age-0123456789";
const SOPS: &str = "canary-sops-0123456789";
const PROGRAM: &str = "canary-program-0123456789";
const TYPED: &str = "canary-typed-0123456789";
const CANARIES: [&str; 8] = [ENVIRONMENT, DOTENV, OWN, TOKEN, AGE, SOPS, PROGRAM, TYPED];

/// A canary, and how it looks in JSON, in a URL, in base64, in hexadecimal and reversed.
fn forms(canary: &str) -> Vec<Vec<u8>> {
    let json = serde_json::to_string(canary).unwrap();
    let bytes = canary.as_bytes();
    let url: String = bytes
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // The middle of its base64, whatever stands before it; the three alignments.
    let base64 = (0..3).map(|skip| base64(&bytes[skip..skip + 15]).into_bytes());
    let reversed = bytes.iter().rev().copied().collect();
    [canary.into(), json[1..json.len() - 1].into(), url.into_bytes(), hex.into_bytes(), reversed]
        .into_iter()
        .chain(base64)
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let three = |three: &[u8]| {
        let number = three.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[number >> shift & 63]))
    };
    bytes.chunks_exact(3).flat_map(three).collect()
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) {
    for canary in CANARIES {
        for form in forms(canary) {
            let found = bytes.windows(form.len()).any(|window| window == form);
            assert!(!found, "{what} holds {canary:?} as {:?}", String::from_utf8_lossy(&form));
        }
    }
}

#[track_caller]
fn clean_run(what: &str, run: &Run) {
    clean(&format!("{what}, stdout"), run.stdout.as_bytes());
    clean(&format!("{what}, stderr"), run.stderr.as_bytes());
}

/// A project whose customers have secrets from everywhere.
fn project() -> Project {
    let secrets = "secrets:\n  FROM_ENVIRONMENT: { secret: FROM_ENVIRONMENT }\n  FROM_DOTENV: { secret: FROM_DOTENV }\n\
                   destinations:\n  - name: One\n    type: any\n    settings: { apiSecret: { secret: FROM_OWN } }\n";
    let database = "database: { type: turso, url: \"libsql://acme.turso.io\", token: { secret: FROM_DOTENV } }\n";
    let project = fleet(&[("acme", &format!("{secrets}{database}")), ("bolt", secrets)]);
    project.write(".env", format!("FROM_DOTENV={DOTENV}\nACME__FROM_OWN={OWN}\nBOLT__FROM_OWN='{OWN}'\n"));
    project
}

#[track_caller]
fn run(project: &Project, base: &str, arguments: &[&str]) -> Run {
    let run = output(
        project
            .command(arguments)
            .env("CLOUDFLARE_API_BASE_URL", base)
            .env("CLOUDFLARE_API_TOKEN", TOKEN)
            .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
            .env("FLOTILLA_CACHE_DIR", cache())
            .env("FROM_ENVIRONMENT", ENVIRONMENT)
            .env("RUST_BACKTRACE", "full")
            .env("RUST_LOG", "trace"),
    );
    clean_run(&arguments.join(" "), &run);
    run
}

/// All files but the dotenv file.
#[track_caller]
fn clean_files(project: &Project) {
    let files = project.files("");
    assert!(files.keys().any(|name| name.starts_with(".flotilla/state")), "the state is among them");
    assert!(files.keys().any(|name| name.starts_with("out/production/acme/")), "out/ is among them");
    for (name, bytes) in files.iter().filter(|(name, _)| *name != ".env") {
        clean(name, bytes);
    }
}

fn clean_folder(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            clean_folder(&entry.path());
        } else {
            clean(&entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn keys_that_others_set_are_kept_by_every_upload() {
    let project = fleet(&[("acme", "secrets: { TOKEN: { secret: TOKEN } }\n")]);
    let cloud = Cloud::start();
    project.write(".env", "TOKEN=one\n");
    cloud.deployed(&project);
    let secrets = format!("/client/v4/accounts/{}/workers/scripts/t-acme/secrets", crate::fleet::ACCOUNT);
    let key = json!({"type": "secret_key", "name": "SIGNING", "format": "raw", "algorithm": {"name": "HMAC"}, "usages": ["sign"],
        "key_base64": "c2VjcmV0"});
    let put = cloud.http("PUT", &secrets, &key);
    assert_eq!(put["success"], true, "{put}");
    let names = || {
        let listed = cloud.http("GET", &secrets, &serde_json::Value::Null);
        let rows = listed["result"].as_array().expect("a list").clone();
        let mut names: Vec<String> = rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    };
    // One that keeps the secret, one that sends it, one that takes it away.
    project.write("customers/acme.yaml", "id: acme\nvars: { A: b }\nsecrets: { TOKEN: { secret: TOKEN } }\n");
    cloud.deployed(&project);
    assert_eq!(names(), ["SIGNING", "TOKEN"]);
    project.write(".env", "TOKEN=two\n");
    cloud.deployed(&project);
    assert_eq!(names(), ["SIGNING", "TOKEN"]);
    project.write("customers/acme.yaml", "id: acme\n");
    cloud.deployed(&project);
    assert_eq!(names(), ["SIGNING"]);
}

#[test]
fn the_search_finds_what_it_searches_for() {
    for canary in CANARIES {
        for text in [
            format!("x{canary}x"),
            serde_json::to_string(&json!({"a": canary})).unwrap(),
            canary.chars().rev().collect(),
            base64(format!("ab{canary}cdef").as_bytes()),
            base64(format!("a{canary}cdef").as_bytes()),
            base64(format!("{canary}cdef").as_bytes()),
        ] {
            assert!(std::panic::catch_unwind(|| clean("text", text.as_bytes())).is_err(), "{text}");
        }
    }
}

#[test]
fn no_command_tells_or_keeps_a_secret() {
    let (cloud, project) = (Cloud::start(), project());
    for format in ["text", "json"] {
        for quiet in [&[][..], &["-q"]] {
            for arguments in [
                &["check"][..],
                &["build"],
                &["build", "--check"],
                &["plan"],
                &["plan", "--all", "--reason", "again"],
                &["deploy", "--yes", "--all"],
                &["plan", "--prune"],
                &["status"],
            ] {
                let arguments = [arguments, &["--format", format], quiet].concat();
                run(&project, &cloud.base(), &arguments).exits(0);
            }
        }
    }
    clean_files(&project);
    // The local Cloudflare keeps what it was sent, sealed; its log shows none of it.
    clean_folder(cloud.folder());
    clean("the log of requests", cloud.http("GET", "/__local/requests", &json!(null)).to_string().as_bytes());
    let uploads: Vec<String> = cloud.take().iter().map(|request| request.entry.to_string()).collect();
    let of = |text: &str| uploads.iter().filter(|entry| entry.contains(text)).count();
    assert_eq!(
        (of("\"type\":\"secret_text\""), of("\"keep_bindings\":[\"secret_text\"")),
        (2, 6),
        "sent once, and kept from then on"
    );
}

#[test]
fn no_failure_tells_a_secret() {
    // A server that gives back what it is sent: as an error's message, as a page, as plain text.
    let server = Echo::start();
    let base = &|status: u16, kind: &str| format!("{}/{status}/{kind}/client/v4", server.base);
    // Side by side, as most of the time is waited: what is unknown is repeated before it fails.
    std::thread::scope(|scope| {
        for (status, kind) in [(200, "message"), (400, "message"), (403, "message"), (403, "page"), (404, "text")] {
            scope.spawn(move || {
                let project = project();
                let report =
                    run(&project, &base(status, kind), &["deploy", "--yes", "--format", "json"]).exits(4).json();
                let error = report["failures"][0]["error"].as_str().unwrap();
                assert_eq!(error.contains("Bearer ***"), kind == "message", "{error}");
                run(&project, &base(status, kind), &["deploy", "--yes", "-q"]).exits(4);
                clean_files(&project);
            });
        }
        // Already where it only asks what there is.
        for (status, kind) in [(400, "message-all"), (403, "page-all"), (404, "text-all")] {
            scope.spawn(move || {
                let project = project();
                assert_ne!(run(&project, &base(status, kind), &["deploy", "--yes"]).code, 0);
                run(&project, &base(status, kind), &["plan"]);
                clean_files(&project);
            });
        }
        // What is unknown is repeated; then its last answer is told.
        scope.spawn(move || {
            let project = project();
            run(&project, &base(500, "message"), &["deploy", "--yes"]).exits(4);
            clean_files(&project);
        });
    });
}

/// A server that answers with what it is sent: `/STATUS/KIND/…`. Whoever asks what there is learns that there is nothing,
/// unless KIND ends in `-all`.
struct Echo {
    base: String,
}

impl Echo {
    fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || echo(&stream));
            }
        });
        Echo { base }
    }
}

fn echo(mut stream: &TcpStream) {
    use std::io::Write as _;
    let (head, body) = http_request(stream);
    let sent = format!("{head}\n{}", String::from_utf8_lossy(&body));
    let mut steps = sent.split([' ', '/']).skip(2);
    let (status, kind) = (steps.next().unwrap_or_default(), steps.next().unwrap_or_default());
    let all = kind.ends_with("-all");
    let (status, kind) = match sent.starts_with("GET ") && !all {
        // The worker that is about to be created isn't there.
        true if head.contains("/settings ") => ("404", "missing"),
        true if head.contains("/workers/subdomain ") => ("200", "subdomain"),
        true => ("200", "nothing"),
        false => (status, kind.trim_end_matches("-all")),
    };
    let answer = match kind {
        "nothing" => json!({"success": true, "errors": [], "messages": [], "result": []}).to_string(),
        "subdomain" => {
            json!({"success": true, "errors": [], "messages": [], "result": {"subdomain": "team"}}).to_string()
        }
        "missing" => json!({"success": false, "errors": [{"code": 10007, "message": "no"}]}).to_string(),
        "message" => json!({"success": false, "errors": [{"code": 10021, "message": sent}]}).to_string(),
        "page" => format!("<html><body><pre>{sent}</pre></body></html>"),
        _ => sent.clone(),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_told_of_without_its_value() {
    let cloud = Cloud::start();
    let in_settings =
        |value: &str| format!("destinations:\n  - name: One\n    type: any\n    settings:\n      {value}\n");
    for (spec, told) in [
        // The value itself instead of a reference.
        (format!("secrets: {{ KEY: {DOTENV} }}\n"), "must be a reference to a secret"),
        (format!("secrets:\n  KEY: \"a, b: {{c}} {DOTENV}\"\n"), "must be a reference to a secret"),
        (format!("secrets:\n  KEY: '{DOTENV}, {OWN}'\n"), "must be a reference to a secret"),
        (format!("secrets:\n  KEY: |\n    a\n    {DOTENV}\n"), "must be a reference to a secret"),
        (format!("secrets:\n  KEY:\n    {DOTENV}\n"), "must be a reference to a secret"),
        (format!("secrets: {{ KEY: [{DOTENV}] }}\n"), "must be a reference to a secret"),
        (
            format!("database: {{ type: turso, url: \"libsql://a.turso.io\", token: {DOTENV} }}\n"),
            "must be a reference to a secret",
        ),
        (in_settings(&format!("apiSecret: {DOTENV}")), "must be a reference to a secret"),
        (in_settings(&format!("apiSecret: \"x,{DOTENV}\"")), "must be a reference to a secret"),
        // Within the reference, where the name belongs.
        (format!("secrets: {{ KEY: {{ secret: {DOTENV} }} }}\n"), "secret"),
        (format!("secrets:\n  KEY:\n    secret: {DOTENV}\n"), "secret"),
        (in_settings(&format!("apiSecret: {{ secret: \"{DOTENV}, x\" }}")), "secret"),
        (in_settings(&format!("apiSecret: {{ secret: A, value: {DOTENV} }}")), "must be a reference to a secret"),
        // Beside another mistake.
        (format!("API_TOKEN: {DOTENV}\n"), "unknown key"),
        (format!("token: \"{DOTENV}\n"), "acme.yaml"),
    ] {
        let project = fleet(&[("acme", &spec)]);
        for arguments in [&["check"][..], &["check", "--format", "json"], &["deploy", "--yes"]] {
            let run = output(&mut cloud.command(&project, arguments)).exits(1);
            assert!(format!("{run:?}").contains(told), "{spec}: {run:?}");
            clean_run(&format!("{} of {spec:?}", arguments.join(" ")), &run);
        }
        assert!(cloud.sent().is_empty());
    }
}

#[test]
fn a_broken_dotenv_file_and_missing_secrets_tell_no_value() {
    let cloud = Cloud::start();
    let project = project();
    project.write(".env", format!("FROM_DOTENV={DOTENV}\nACME__FROM_OWN='{OWN}\n"));
    for arguments in [&["plan"][..], &["deploy", "--yes"], &["plan", "--format", "json"]] {
        let told = run(&project, &cloud.base(), arguments).exits(1).stderr;
        assert!(told.contains("error[F0507]") && told.contains(".env:2:16"), "{told}");
        assert!(!told.contains(DOTENV) && !told.contains(OWN), "{told}");
    }
    // What needs none of it works.
    run(&project, &cloud.base(), &["status"]).exits(0);
    run(&project, &cloud.base(), &["list"]).exits(0);
    assert!(cloud.sent().iter().all(|what| what.starts_with("GET ")));
    project.write(".env", format!("FROM_DOTENV={DOTENV}\nACME__FROM_OWN={OWN}\n"));
    let told = run(&project, &cloud.base(), &["deploy", "--yes"]).exits(4).stderr;
    assert!(told.contains("FROM_OWN or BOLT__FROM_OWN for bolt"), "{told}");
    let sent = cloud.sent();
    assert!(sent.iter().all(|what| what.starts_with("GET ") || !what.contains("bolt")), "{sent:?}");
}

#[test]
fn an_address_of_the_api_with_a_password_is_not_told() {
    // What a proxy's address often holds.
    let project = project();
    let base = format!("http://user:{DOTENV}@api.example.com/client/v4");
    run(&project, &base, &["deploy", "--yes"]).exits(1);
    let base = format!("http://user:{DOTENV}@127.0.0.1:9/client/v4");
    let run = run(&project, &base, &["deploy", "--yes"]);
    assert_ne!(run.code, 0);
}

#[test]
fn rotated_secrets_leave_no_trace_of_the_old_or_the_new_value() {
    let (cloud, project) = (Cloud::start(), project());
    run(&project, &cloud.base(), &["deploy", "--yes"]).exits(0);
    project.edit(".env", OWN, "another-value-0123456789");
    let told = run(&project, &cloud.base(), &["deploy", "--yes"]).exits(0);
    assert!(told.stderr.contains("secret FROM_OWN changed"), "{}", told.stderr);
    clean_files(&project);
    let files: BTreeSet<String> = project.files(".flotilla").into_keys().collect();
    for name in &files {
        let bytes = &project.files(".flotilla")[name];
        assert!(!bytes.windows(13).any(|window| window == b"another-value"), "{name}");
        // A digest without a key would let whoever has the state try values.
        for value in [OWN, DOTENV, ENVIRONMENT] {
            let digest = flotilla_model::digest::Digest::of(value.as_bytes()).to_string();
            assert!(!bytes.windows(16).any(|window| window == &digest.as_bytes()[..16]), "{name}");
        }
    }
}

#[test]
fn the_types_that_hold_secrets_print_none() {
    let folder = temporary_folder();
    std::fs::write(folder.path().join(".env"), format!("KEY={DOTENV}\n")).unwrap();
    let secrets = Secrets::open(folder.path(), None, None, false).unwrap();
    let value = secrets.named("KEY").expect("it is there");
    clean("a value", format!("{value:?}").as_bytes());
    clean("an option", format!("{:?}", secrets.find("acme", Environment::Production, "KEY")).as_bytes());
    let tokens = HashMap::from([("a".to_owned(), SecretString::from(TOKEN))]);
    clean("tokens", format!("{tokens:?}").as_bytes());
    let failure = Cloudflare::new("http://api.example.com", tokens).err().expect("it is refused");
    clean("a failure", format!("{failure} {failure:?}").as_bytes());
    let fingerprint = State::in_memory().fingerprints().of(DOTENV);
    clean("a fingerprint", fingerprint.as_bytes());
    assert_eq!(fingerprint.len(), 32);
}

/// A project with a secret in each kind of source, and one that was typed; and the programs that it needs.
fn everywhere() -> (Project, impl Fn(&[&str]) -> std::process::Command) {
    let names = ["BY_AGE", "BY_SOPS", "BY_PROGRAM", "BY_HAND"];
    let lines: String = names.iter().map(|name| format!("  {name}: {{ secret: {name} }}\n")).collect();
    let spec = format!("secrets:\n{lines}  FROM_ENVIRONMENT: {{ secret: FROM_ENVIRONMENT }}\n");
    let project = fleet(&[("acme", &spec), ("bolt", &spec)]);
    project.write(
        "fleet.yaml",
        "name: test\npacks:\n  tiny: { path: packs/tiny }\nsecrets:\n  - { env: true }\n  - { dotenv: .env }\n  \
         - { age: fleet.age, identity: { env: FLEET_KEY } }\n  - { sops: sops.yaml }\n  - { command: [bin/vault, \"{name}\"] }\n",
    );
    project.write("sops.yaml", "BY_SOPS: ENC\n");
    for (name, script) in [
        ("sops", format!("echo '{{\"BY_SOPS\": \"{SOPS}\"}}'; echo 'opened {SOPS}' >&2")),
        ("vault", format!("[ $1 = BY_PROGRAM ] && echo '{PROGRAM}'; echo 'said {PROGRAM}' >&2; [ ! -e down ]")),
    ] {
        let path = project.path(&format!("bin/{name}"));
        project.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let key = include_str!("../fixtures/age/key.txt");
    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap());
    let root = project.root().to_owned();
    let command = move |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flotilla"));
        command.args(arguments).current_dir(&root).env("FLEET_KEY", key).env("PATH", &path);
        command.env("FROM_ENVIRONMENT", ENVIRONMENT).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
        command
    };
    for (name, source, value) in [("BY_AGE", "fleet.age", AGE), ("BY_HAND", ".env", TYPED)] {
        use std::io::Write as _;
        let mut set = command(&["secrets", "set", name, "--source", source]);
        set.stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = set.spawn().expect("it starts");
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        clean("what `set` says", &[output.stdout, output.stderr].concat());
    }
    (project, command)
}

#[test]
fn no_source_of_secrets_tells_or_keeps_one() {
    let cloud = Cloud::start();
    let (project, command) = everywhere();
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command
            .env("CLOUDFLARE_API_BASE_URL", cloud.base())
            .env("CLOUDFLARE_API_TOKEN", TOKEN)
            .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
            .env("FLOTILLA_CACHE_DIR", cache());
        let run = output(&mut command);
        clean_run(&arguments.join(" "), &run);
        run
    };
    for format in ["text", "json"] {
        for arguments in [
            &["check"][..],
            &["secrets", "list"],
            &["secrets", "check"],
            &["plan"],
            &["deploy", "--yes", "--all"],
            &["secrets", "rotate", "BY_HAND", "--source", ".env"],
            &["status"],
        ] {
            run(&[arguments, &["--format", format, "--trace", &format!("{format}.trace")]].concat()).exits(0);
        }
    }
    let uploads = cloud.take();
    let sent = uploads.iter().filter(|request| request.entry.to_string().contains("secret_text")).count();
    assert!(sent >= 2, "they were uploaded");
    // A program that fails and tells; a key that is wrong; files that are broken.
    project.write("down", "");
    run(&["secrets", "list"]).exits(0);
    run(&["plan", "--all"]).exits(0);
    project.write("bin/sops", format!("#!/bin/sh\necho '{{\"BY_SOPS\": [\"{SOPS}\"]}}'\n"));
    run(&["secrets", "check"]);
    project.write("bin/sops", format!("#!/bin/sh\necho '{SOPS}'; echo {SOPS} >&2; exit 1\n"));
    run(&["secrets", "check"]);
    project.write("fleet.age", format!("{AGE}\n"));
    run(&["secrets", "list"]).exits(0);
    std::fs::remove_file(project.path("fleet.age")).unwrap();
    project.write(".env", format!("BY_HAND='{TYPED}\n"));
    assert!(run(&["secrets", "list"]).exits(0).stderr.contains(".env: line 1, column 9"));
    run(&["secrets", "check"]);
    run(&["deploy", "--yes", "--all"]);
    for (name, bytes) in project.files("") {
        if name != ".env" && !name.starts_with("bin/") {
            clean(&name, &bytes);
        }
    }
    clean_folder(cloud.folder());
}

/// Panics with a secret in hand, in each of the ways in which code does.
fn panic_with_a_secret_in_hand() {
    let folder = temporary_folder();
    std::fs::write(folder.path().join(".env"), format!("KEY={DOTENV}\n")).unwrap();
    let secrets = Secrets::open(folder.path(), None, None, false).unwrap();
    let found = secrets.find("acme", Environment::Production, "KEY");
    let value = secrets.value("acme", Environment::Production, "KEY");
    // All the ways in which code panics with a value: a message, an `expect`, an `unwrap` of what it isn't in.
    let ways: [Box<dyn Fn() + std::panic::UnwindSafe>; 4] = [
        Box::new({
            let found = found.clone();
            move || panic!("BUG: {found:?}")
        }),
        Box::new({
            let value = value.clone();
            move || assert!(value.is_none(), "{value:?}")
        }),
        Box::new({
            let value = value.clone();
            move || std::hint::black_box(Err::<(), _>(value.clone())).expect("BUG")
        }),
        Box::new(move || assert_eq!(format!("{value:?}"), format!("{found:?}"))),
    ];
    for way in ways {
        let payload = std::panic::catch_unwind(way).expect_err("it panics");
        let text = payload.downcast_ref::<String>().cloned().unwrap_or_default();
        clean("a panic's message", text.as_bytes());
        eprintln!("PANICKED");
    }
}

/// Set for the process of its own that the next test starts.
const PANICS: &str = "FLOTILLA_TEST_PANICS";

#[test]
fn a_panic_with_a_secret_in_hand_tells_nothing() {
    if std::env::var_os(PANICS).is_some() {
        return panic_with_a_secret_in_hand();
    }
    let mut own = std::process::Command::new(std::env::current_exe().unwrap());
    own.args(["--exact", "secrets::a_panic_with_a_secret_in_hand_tells_nothing", "--nocapture"]);
    let run = output(own.env("RUST_BACKTRACE", "full").env(PANICS, "1")).exits(0);
    assert_eq!(run.stderr.matches("PANICKED").count(), 4, "{run:?}");
    assert!(run.stderr.matches("panicked at").count() >= 4, "{run:?}");
    clean_run("a panic", &run);
}

/// Keeps what is logged.
struct Logged(std::sync::Mutex<Vec<String>>);

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}", record.target(), record.args()));
    }
    fn flush(&self) {}
}

#[test]
fn what_the_http_client_logs_at_its_loudest_has_no_secret() {
    use flotilla_model::platform::{Call, Home, Module, Platform as _};
    static LOGGED: Logged = Logged(std::sync::Mutex::new(Vec::new()));
    log::set_logger(&LOGGED).expect("nobody else logs");
    log::set_max_level(log::LevelFilter::Trace);
    log::trace!("the logger works");
    let cloud = Cloud::start();
    let tokens = HashMap::from([(ACCOUNT.to_owned(), SecretString::from(TOKEN))]);
    let cloudflare = Cloudflare::new(&cloud.base(), tokens).unwrap_or_else(|failure| panic!("{failure}"));
    let home = Home { account_id: ACCOUNT.to_owned(), namespace: None };
    let metadata = json!({"main_module": "a.js", "bindings": [{"type": "secret_text", "name": "A", "text": DOTENV}]});
    let module = Module {
        name: "a.js".to_owned(),
        content_type: "application/javascript+module",
        bytes: b"export default {}".to_vec().into(),
    };
    let call = Call::Upload { worker: "a".to_owned(), metadata, modules: vec![module] };
    assert!(cloudflare.call(&home, &call).0.is_ok());
    log::set_max_level(log::LevelFilter::Off);
    let logged = LOGGED.0.lock().unwrap();
    for text in ["the logger works", "reqwest::"] {
        assert!(logged.iter().any(|line| line.contains(text)), "{text}: {logged:#?}");
    }
    for line in logged.iter() {
        clean("the log", line.as_bytes());
    }
}
