//! What the program reads and didn't write: each target takes any bytes and panics if the reader misbehaves. `cargo test` drives
//! them with mutations of the seeds (`tests/integration/fuzz.rs`), `cargo fuzz` with its own (`tests/fuzz/Cargo.toml`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use flotilla_deploy::cloudflare::Cloudflare;
use flotilla_deploy::undo::{self, Remains, Undo};
use flotilla_engine::plan_file::PlanFile;
use flotilla_import::{ImportOptions, LiveAccount};
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::lock::Lock;
use flotilla_model::paging::Page;
use flotilla_model::platform::{Call, Home, Platform as _};
use flotilla_model::progress::Silent;
use flotilla_model::user_key::UserKey;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::schema::Checker;
use flotilla_spec::tree::Tree;
use flotilla_spec::{dotenv, envfile, yaml};
use secrecy::SecretString;
use tempfile::TempDir;

/// A target, by the name of its seeds and of its program under `tests/fuzz/bin`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("yaml", yaml),
    ("spec", spec),
    ("fleet", fleet),
    ("dotenv", dotenv),
    ("wrangler_toml", wrangler_toml),
    ("wrangler_jsonc", wrangler_jsonc),
    ("plan_file", plan_file),
    ("undo_journal", undo_journal),
    ("lock", lock),
    ("answer", answer),
];

/// The longest message of a diagnostic in characters: a reader that repeats its input is of no help.
const MAX_MESSAGE: usize = 2_000;
/// A text in secrets' places that no message may repeat.
pub const CANARY: &str = "c4n4ry-of-a-secret";
/// The token with which the API is asked.
const TOKEN: &str = "t0ken-that-nobody-may-see";

/// A folder for a target's files, one for each thread; it is there as long as the thread.
fn folder(name: &str) -> PathBuf {
    thread_local!(static FOLDER: TempDir = TempDir::new().expect("a temporary folder"));
    FOLDER.with(|folder| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    })
}

/// Checks that diagnostics lead to places in the text, and are messages.
fn check_diagnostics(bytes: &[u8], diagnostics: &[Diagnostic]) {
    let lines = bytes.split(|byte| *byte == b'\n' || *byte == b'\r').count() + 1;
    for diagnostic in diagnostics {
        let place = &diagnostic.place;
        assert!(place.line <= lines, "{diagnostic:?} is in none of {lines} lines");
        assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty(), "{diagnostic:?}");
        assert!(diagnostic.message.chars().count() <= MAX_MESSAGE, "a message of {}", diagnostic.message.len());
    }
}

/// Any YAML file.
pub fn yaml(bytes: &[u8]) {
    let (document, diagnostics) = yaml::parse("file.yaml", bytes);
    check_diagnostics(bytes, &diagnostics);
    if let Some(document) = document {
        // What was read is a value that JSON can say, and reads back.
        let value = document.root.to_value();
        let text = serde_json::to_string(&value).expect("a value is JSON");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    } else if diagnostics.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        let empty = |line: &str| {
            // An anchor of nothing, or null itself, says no more than an empty file.
            let is_null = matches!(line, "~" | "null" | "Null" | "NULL");
            let is_bare_anchor = line.starts_with('&') && !line.contains(char::is_whitespace);
            is_null
                || is_bare_anchor
                || line.is_empty()
                || ["#", "---", "...", "%", "\u{feff}"].iter().any(|start| line.starts_with(start))
        };
        assert!(text.split(['\n', '\r']).all(|line| empty(line.trim())), "nothing was read of {text:?}");
    }
}

/// A customer's spec.
pub fn spec(bytes: &[u8]) {
    let root = folder("spec");
    let reading = project::read_spec(&Tree::new(&root), None, "customers/a.yaml", bytes, Checker::customer());
    check_diagnostics(bytes, &reading.diagnostics);
    assert!(reading.spec.is_some() || !reading.diagnostics.is_empty(), "nothing was read, and nothing is said");
}

/// fleet.yaml.
pub fn fleet(bytes: &[u8]) {
    let root = folder("fleet");
    std::fs::write(root.join("fleet.yaml"), bytes).expect("a file");
    match project::read_fleet(&Tree::new(&root)) {
        Ok(Fleet { .. }) => {}
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "nothing was read, and nothing is said");
            check_diagnostics(bytes, &diagnostics);
        }
    }
}

/// A file of secrets, which is also how env files of layers are read.
pub fn dotenv(bytes: &[u8]) {
    let (_, diagnostics) = envfile::parse("file.env", bytes);
    check_diagnostics(bytes, &diagnostics);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (entries, wrong) = dotenv::read(text);
    let lines = text.split(['\n', '\r']).count() + 1;
    for entry in &entries {
        assert!(entry.name_span.line <= lines && entry.value_span.line <= lines);
        assert!(text.get(entry.written.clone()).is_some() && text.get(entry.lines.clone()).is_some());
    }
    // A name is all that a message may repeat.
    let is_named = text.lines().any(|line| line.split('=').next().is_some_and(|name| name.contains(CANARY)));
    for error in wrong {
        assert!(error.span.line <= lines);
        assert!(is_named || !error.message.contains(CANARY), "{}", error.message);
    }
}

/// Imports a project with one file of wrangler's.
fn import(name: &str, bytes: &[u8]) {
    let root = folder(name);
    std::fs::write(root.join(name), bytes).expect("a file");
    let files: [(String, Vec<u8>); 0] = [];
    let options = ImportOptions { worker_pack: &files, ..ImportOptions::default() };
    match flotilla_import::import(Some(&root), LiveAccount::default(), options) {
        Ok(imported) => {
            for path in imported.files.keys() {
                let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                assert!(inside, "{path} leads out of the project");
            }
            for (path, bytes) in imported.files.iter().filter(|(path, _)| path.ends_with(".yaml")) {
                let (document, diagnostics) = yaml::parse(path, bytes);
                assert!(document.is_some() && diagnostics.is_empty(), "{path}: {diagnostics:?}");
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "nothing was read, and nothing is said");
            check_diagnostics(bytes, &diagnostics);
        }
    }
}

/// A wrangler.toml that is imported.
pub fn wrangler_toml(bytes: &[u8]) {
    import("wrangler.toml", bytes);
}

/// A wrangler.jsonc that is imported.
pub fn wrangler_jsonc(bytes: &[u8]) {
    import("wrangler.jsonc", bytes);
}

/// The file of a plan.
pub fn plan_file(bytes: &[u8]) {
    let path = folder("plan").join("plan.json");
    std::fs::write(&path, bytes).expect("a file");
    if let Err(failure) = PlanFile::read(&path) {
        assert!(failure.to_string().chars().count() <= MAX_MESSAGE, "a message of {}", failure.to_string().len());
    }
}

/// The journal of an interrupted command, which is taken back: as it was found, nothing of it is undone; and with the seal of this user,
/// nothing outside the project changes.
pub fn undo_journal(bytes: &[u8]) {
    undo_with(bytes, None);
    undo_with(bytes, Some(&UserKey::of(&folder("undo-key")).expect("a key")));
}

fn undo_with(bytes: &[u8], key: Option<&UserKey>) {
    let around = folder("undo");
    let root = around.join("project");
    let journal = root.join(".flotilla/undo");
    std::fs::create_dir_all(&journal).expect("a folder");
    std::fs::create_dir_all(root.join(".git/hooks")).expect("a folder");
    std::fs::create_dir_all(root.join("customers")).expect("a folder");
    std::fs::write(root.join("customers/a.yaml"), "id: a\n").expect("a file");
    std::fs::write(around.join("outside"), "outside\n").expect("a file");
    std::fs::write(journal.join("0"), "kept\n").expect("a file");
    let link = root.join("link");
    if std::fs::symlink_metadata(&link).is_err() {
        std::os::unix::fs::symlink("..", &link).expect("a link");
    }
    // A seed names the project's folder by this word: its path is another each time.
    let text = String::from_utf8_lossy(bytes).replace("@ROOT@", &root.to_string_lossy());
    let text = text.replace("@AROUND@", &around.to_string_lossy());
    let on_disk = if key.is_some() { undo::sealed(key, &root, &text) } else { text };
    std::fs::write(journal.join("journal.json"), on_disk).expect("a file");
    let own = key.cloned().or_else(|| UserKey::of(&folder("undo-key")).ok());
    match Undo::begin(&root, own, "fuzz", 0) {
        Ok((mut undo, Remains::Journal(left))) => {
            assert!(key.is_some(), "it has no seal");
            for described in left.descriptions() {
                assert!(described.chars().count() <= 2 * MAX_MESSAGE, "a message of {}", described.len());
            }
            let _ = undo.roll_back(&mut |_| Err("is not deleted here".to_owned()));
        }
        Ok((_, Remains::Untrusted(why))) => {
            assert!(why.chars().count() <= MAX_MESSAGE, "a message of {}", why.len());
            assert_eq!(std::fs::read_to_string(root.join("customers/a.yaml")).expect("it stays"), "id: a\n");
        }
        Ok((_, Remains::Nothing)) | Err(_) => {}
    }
    let outside = std::fs::read_to_string(around.join("outside")).expect("what is outside stays");
    assert_eq!(outside, "outside\n");
    let around: Vec<_> =
        std::fs::read_dir(&around).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(around.len(), 2, "nothing was made outside: {around:?}");
    let hooks = std::fs::read_dir(root.join(".git/hooks")).expect("git's folder stays");
    assert_eq!(hooks.count(), 0, "nothing was made in git's folder");
    let _ = std::fs::remove_dir_all(root);
}

/// The note in a lock's file.
pub fn lock(bytes: &[u8]) {
    let path = folder("lock").join("lock");
    std::fs::write(&path, bytes).expect("a file");
    drop(Lock::clear(&path, &Silent));
    // Whatever stood there, the next one can take it once it is cleared.
    // A process that another test starts has the open file for an instant.
    let taken = (0..100).find_map(|_| {
        let taken = Lock::take(&path, "fuzz").ok();
        if taken.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        taken
    });
    drop(taken.expect("a cleared lock is free"));
}

/// An answer of the API: the first byte says which call it answers, the second its status and type, the rest is its body.
pub fn answer(bytes: &[u8]) {
    let [call, head, body @ ..] = bytes else { return };
    let calls = calls();
    let (home, call) = &calls[usize::from(*call) % calls.len()];
    let (cloudflare, answers) = api();
    answers.lock().expect("no answer panics").push_back((*head, body.to_vec()));
    let (result, _) = cloudflare.call(home, call);
    if let Err(error) = result {
        let shown = format!("{error:?}");
        assert!(!shown.contains(TOKEN), "an error repeats the token");
        assert!(shown.chars().count() <= 4 * MAX_MESSAGE, "an error of {}", shown.len());
    }
}

/// What an API answers next: the byte of the head, and the body.
type Answers = Arc<Mutex<VecDeque<(u8, Vec<u8>)>>>;

/// A client of an API on this machine, and what it answers next; one for each thread, so that nobody gets another's answer.
fn api() -> (Arc<Cloudflare>, Answers) {
    thread_local!(static API: OnceLock<(Arc<Cloudflare>, Answers)> = const { OnceLock::new() });
    API.with(|api| {
        let (cloudflare, answers) = api.get_or_init(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let base = format!("http://{}/client/v4", listener.local_addr().expect("an address"));
            let tokens = HashMap::from([(String::new(), SecretString::from(TOKEN))]);
            let cloudflare = Arc::new(Cloudflare::new(&base, tokens).expect("a client"));
            let answers = Answers::default();
            let given = Arc::clone(&answers);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let given = Arc::clone(&given);
                    std::thread::spawn(move || serve(&stream, &given));
                }
            });
            (cloudflare, answers)
        });
        (Arc::clone(cloudflare), Arc::clone(answers))
    })
}

/// Answers the requests of a connection.
fn serve(stream: &TcpStream, answers: &Answers) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        if std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).is_err() {
            return;
        }
        let (head, body) = answers.lock().expect("no answer panics").pop_front().unwrap_or((0, Vec::new()));
        let status =
            [200, 201, 204, 301, 307, 400, 401, 403, 404, 408, 409, 413, 429, 500, 503, 520][usize::from(head % 16)];
        let kind = ["application/json", "text/html", "multipart/form-data; boundary=b", ""][usize::from(head / 16 % 4)];
        let length = if status == 204 { 0 } else { body.len() };
        let head = format!("HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        if (&mut &*stream).write_all(&[head.as_bytes(), &body[..length]].concat()).is_err() {
            return;
        }
    }
}

/// The calls whose answers hold something that is read.
fn calls() -> Vec<(Home, Call)> {
    let id = || "00112233445566778899aabbccddeeff".to_owned();
    let account = |namespace: Option<&str>| Home { account_id: id(), namespace: namespace.map(str::to_owned) };
    let (worker, domain, pattern) =
        (|| "w-a".to_owned(), || "a.example.com".to_owned(), || "a.example.com/*".to_owned());
    let page = Page::default;
    let calls = vec![
        Call::Upload { worker: worker(), metadata: serde_json::json!({}), modules: Vec::new() },
        Call::Delete { worker: worker(), tag: None },
        Call::SetWorkersDev { worker: worker(), on: true, previews: false },
        Call::SetCrons { worker: worker(), crons: vec!["* * * * *".to_owned()] },
        Call::AttachDomain { worker: worker(), domain: domain() },
        Call::FindDomain { worker: worker(), domain: domain() },
        Call::DetachDomain { id: id() },
        Call::FindZone { name: "example.com".to_owned() },
        Call::AddRoute { worker: worker(), zone_id: id(), pattern: pattern() },
        Call::ReadRoute { zone_id: id(), id: id() },
        Call::RemoveRoute { zone_id: id(), id: id() },
        Call::FindSubdomain,
        Call::ListWorkers { tags: None, page: page() },
        Call::ListDomains { page: page() },
        Call::ListRoutes { zone_id: id(), page: page() },
        Call::ReadWorkersDev { worker: worker() },
        Call::ReadCrons { worker: worker() },
        Call::ReadSettings { worker: worker() },
        Call::ReadTags { worker: worker() },
        Call::ReadContent { worker: worker() },
        Call::SetTags { worker: worker(), tags: vec!["a".to_owned()] },
    ];
    let namespaced = [
        Call::ListWorkers { tags: None, page: page() },
        Call::Delete { worker: worker(), tag: Some("a".to_owned()) },
        Call::ReadTags { worker: worker() },
        Call::CreateNamespace,
    ];
    let calls = calls.into_iter().map(|call| (account(None), call));
    calls.chain(namespaced.into_iter().map(|call| (account(Some("n")), call))).collect()
}

/// The seeds of a target: files that are read without errors, or nearly.
pub fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = if folder.ends_with("fuzz") { folder.to_owned() } else { folder.join("tests/fuzz") }.join("seeds");
    let seeds_of = |name: &str| {
        let mut paths: Vec<_> = std::fs::read_dir(folder.join(name))
            .expect("a folder of seeds")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
    };
    TARGETS.iter().map(|(name, _)| (*name, seeds_of(name))).collect()
}
