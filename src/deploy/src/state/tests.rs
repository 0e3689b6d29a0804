//! Values that the state reads back, and files that are no state.

use std::fs;

use super::*;

pub(super) fn sample() -> (WorkerId, Deployed) {
    let live = DeployedResources {
        etag: "e".to_owned(),
        created_on: None,
        workers_dev: true,
        domains: BTreeMap::from([("a.example.com".to_owned(), "d1".to_owned())]),
        routes: BTreeMap::new(),
        crons: BTreeSet::new(),
        secrets: BTreeMap::new(),
        ..DeployedResources::default()
    };
    let deployed = Deployed {
        account: "default".to_owned(),
        customer: "acme".to_owned(),
        environment: Environment::Production,
        digest: Digest::of(b"b"),
        revision: 0,
        deployed_at: 7,
        rejected: None,
        drift: None,
        live,
    };
    ((Home { account_id: "a".to_owned(), namespace: None }, "c15t-acme".to_owned()), deployed)
}

fn entry(action: &str) -> Entry<'_> {
    Entry { run: RunId(1), at: 7, action, reasons: &[], left: &[] }
}

#[test]
fn a_file_that_is_deleted_or_replaced_is_noticed_at_the_next_write() {
    let (id, deployed) = sample();
    let folder = tempfile::tempdir().unwrap();
    let begin = |path: &Path, ways: &dyn Fn(&Path)| {
        let mut state = State::open(path).unwrap();
        state.open_batch().unwrap();
        state.record(&id, &mut deployed.clone(), &entry("created")).unwrap();
        state.close_batch().unwrap();
        ways(path);
        let batch = state.open_batch().and_then(|()| state.close_batch()).unwrap_err();
        let single = state.cache_id("a", ResourceKind::Zone, "z", "1").unwrap_err();
        for failure in [batch, single] {
            assert!(failure.to_string().contains("was deleted or replaced while it was in use"), "{failure}");
            assert_eq!(failure.exit, Exit::SomeFailed);
        }
    };
    begin(&folder.path().join("a/state.db"), &|path| fs::remove_file(path).unwrap());
    begin(&folder.path().join("b/state.db"), &|path| fs::remove_dir_all(path.parent().unwrap()).unwrap());
    begin(&folder.path().join("c/state.db"), &|path| {
        fs::copy(path, path.with_extension("copy")).unwrap();
        fs::rename(path.with_extension("copy"), path).unwrap();
    });
    begin(&folder.path().join("d/state.db"), &|path| {
        fs::rename(path.parent().unwrap(), folder.path().join("aside")).unwrap();
        fs::create_dir(path.parent().unwrap()).unwrap();
    });
    begin(&folder.path().join("f/state.db"), &|path| fs::remove_file(format!("{}-wal", path.display())).unwrap());
    begin(&folder.path().join("g/state.db"), &|path| fs::remove_file(format!("{}-shm", path.display())).unwrap());
    // In the middle of a batch: what was answered isn't taken for recorded.
    let path = folder.path().join("e/state.db");
    let mut state = State::open(&path).unwrap();
    state.open_batch().unwrap();
    state.record(&id, &mut deployed.clone(), &entry("created")).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(state.close_batch().is_err());
}

#[test]
fn a_lock_that_is_deleted_or_replaced_is_noticed_at_the_next_write() {
    let (id, deployed) = sample();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deploy.lock");
    let ways: [fn(&Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::rename(path, path.with_extension("aside")).unwrap(),
        |path| {
            fs::copy(path, path.with_extension("copy")).unwrap();
            fs::rename(path.with_extension("copy"), path).unwrap();
        },
    ];
    for way in ways {
        let lock = Lock::take(&path, "deploy").unwrap();
        let mut state = State::open(&folder.path().join("state.db")).unwrap();
        state.rely_on(Some(&lock));
        state.record(&id, &mut deployed.clone(), &entry("created")).unwrap();
        way(&path);
        let failure = state.open_batch().unwrap_err();
        assert!(failure.to_string().contains("deploy.lock was deleted or replaced while it was in use"), "{failure}");
        assert_eq!(failure.exit, Exit::SomeFailed);
    }
}

#[test]
fn its_files_are_private_whatever_they_were() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own/state.db");
    let (id, deployed) = sample();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let all = || ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())));
    for _ in 0..2 {
        let mut state = State::open(&path).unwrap();
        state.open_batch().unwrap();
        state.record(&id, &mut deployed.clone(), &entry("created")).unwrap();
        state.close_batch().unwrap();
        assert_eq!(all().map(|file| mode(&file)), [0o600; 3]);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        // As an earlier version left them; the process was killed, so that all three are there.
        std::mem::forget(state);
        for file in all() {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    // A link isn't followed.
    let victim = folder.path().join("victim");
    std::os::unix::fs::symlink(&victim, folder.path().join("link.db")).unwrap();
    assert!(State::open(&folder.path().join("link.db")).is_err());
    assert!(!victim.exists());
}

#[test]
fn what_is_recorded_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (id, mut deployed) = sample();
    let fingerprint = {
        let mut state = State::open(&path).unwrap();
        state.record(&id, &mut deployed, &entry("create")).unwrap();
        state.cache_id("a", ResourceKind::Zone, "example.com", "z").unwrap();
        state.fingerprints().of("s3cret")
    };
    let mut state = State::open(&path).unwrap();
    assert_eq!(state.deployed().unwrap(), BTreeMap::from([(id.clone(), deployed.clone())]));
    assert_eq!(state.cached_id("a", ResourceKind::Zone, "example.com").unwrap(), Some("z".to_owned()));
    assert_eq!(state.fingerprints().of("s3cret"), fingerprint);
    assert_ne!(State::in_memory().fingerprints().of("s3cret"), fingerprint, "each state has a key of its own");
    state.forget(&id, &deployed, &entry("delete")).unwrap();
    assert!(State::read(&path).unwrap().deployed().unwrap().is_empty());
}

#[test]
fn newer_damaged_and_foreign_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(State::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    assert!(State::open(&path).err().unwrap().to_string().contains("newer flotilla"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::write(&path, &before[..before.len() / 2]).unwrap();
    assert!(State::open(&path).err().unwrap().to_string().contains("damaged"), "truncated");
    std::fs::write(
        &path,
        "no database, but long enough for a header, or so one would think; it is just text".repeat(9),
    )
    .unwrap();
    assert!(State::open(&path).err().unwrap().to_string().contains("damaged"), "text");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(State::open(&path).err().unwrap().to_string().contains("another program"));
}

#[test]
fn a_state_that_cannot_be_looked_for_is_not_an_empty_one() {
    for read in [State::read, State::shadow] {
        let Err(failure) = read(Path::new("/dev/null/state.db")) else { panic!("it is not there") };
        assert!(failure.to_string().contains("/dev/null/state.db can't be read"), "{failure}");
    }
}

#[test]
fn a_locked_state_is_refused_with_exit_code_5() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut state = State::open(&path).unwrap();
    state.db.busy_timeout(Duration::from_millis(50)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (id, mut deployed) = sample();
    let failure = state.record(&id, &mut deployed, &entry("create")).unwrap_err();
    assert_eq!(failure.exit, flotilla_model::failure::Exit::Refused);
    assert!(failure.to_string().contains("in use"));
}

#[test]
fn workers_with_one_bundle_keep_what_each_was_made_from() {
    let mut state = State::in_memory();
    let id = |name: &str| (Home { account_id: "a".to_owned(), namespace: None }, name.to_owned());
    let digest = Digest::of(b"bundle");
    let stored = |secret: &str| Stored {
        module: Digest::of(b"module"),
        runtime: Digest::of(b"runtime"),
        runtime_file: "runtime/r.js".to_owned(),
        metadata: serde_json::json!({"bindings": []}),
        source: serde_json::json!({"worker": {"secrets": {"KEY": secret}}}),
    };
    let name = |state: &State, worker: &str| {
        let stored = state.stored(&id(worker), &digest).unwrap().unwrap();
        stored.source["worker"]["secrets"]["KEY"].as_str().map(str::to_owned)
    };
    for (worker, secret) in
        [("one", "ONE"), ("two", "TWO"), ("one", "OTHER"), ("three", "ONE"), ("one", "ONE"), ("two", "LAST")]
    {
        state.store(&id(worker), &digest, &stored(secret), &[]).unwrap();
        assert_eq!(name(&state, worker).as_deref(), Some(secret), "{worker}");
    }
    let names = ["one", "two", "three"].map(|worker| name(&state, worker).unwrap());
    assert_eq!(names, ["ONE", "LAST", "ONE"]);
}
