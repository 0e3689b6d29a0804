//! Shows: builds that are killed, that run at the same time, that may not write or find no room leave nothing torn, and the
//! next build gives what a clean one gives.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flotilla_build::manifest::Manifest;
use flotilla_model::user_key::UserKey;
use serde_json::Value;
use tempfile::TempDir;

use super::fleet::{cache, fleet_in, until};
use super::folders::temporary_folder_on_disk;
use super::support::{PATIENCE, Project, Run, output};

type Files = BTreeMap<String, Vec<u8>>;

/// A fleet on a disk: what a killed write leaves there is what this is about.
fn on_disk(customers: &[(&str, &str)]) -> Project {
    fleet_in(temporary_folder_on_disk(), customers)
}

fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.env("FLOTILLA_CACHE_DIR", cache());
    command
}

#[track_caller]
fn build(project: &Project) -> Value {
    output(&mut command(project, &["build", "--format", "json"])).exits(0).json()
}

/// A fleet in one of two versions, no worker of which has the same files in both. Some customers, environments and roles are
/// there in only one.
fn version(project: &Project, even: bool, customers: usize) {
    let word = if even { "even" } else { "odd" };
    project.write(
        "fleet.yaml",
        format!("name: test\npacks: {{ tiny: {{ path: packs/tiny }} }}\ndefaults: {{ vars: {{ WORD: {word} }} }}\n"),
    );
    for at in 0..customers {
        let file = format!("customers/c{at:03}.yaml");
        let more = match (at % 10, even) {
            (0, true) => "environments: { production: {}, staging: {} }\n",
            (0, false) => "environments: { production: null, staging: {}, development: {} }\n",
            (1, true) => "workers: { web: {}, api: {} }\n",
            (2, false) => {
                let _ = fs::remove_file(project.path(&file));
                continue;
            }
            _ => "",
        };
        project.write(&file, format!("id: c{at:03}\nvars: {{ TEXT: \"{}\" }}\n{more}", word.repeat(50)));
    }
}

/// Both versions of a fleet as clean builds give them.
fn clean(customers: usize) -> [Files; 2] {
    [true, false].map(|even| {
        let project = on_disk(&[]);
        version(&project, even, customers);
        build(&project);
        project.files("out")
    })
}

/// What is not a neighbour that is still being written.
fn is_seen(name: &str) -> bool {
    name.split('/').all(|step| !(step.starts_with('.') && step.ends_with(".new")))
}

#[track_caller]
fn equals(project: &Project, wanted: &Files) {
    let found = project.files("out");
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(wanted));
    assert!(found == *wanted, "the bytes of a clean build");
}

#[track_caller]
fn nothing_to_do(project: &Project) {
    let report = build(project);
    assert_eq!([&report["rendered"], &report["written"], &report["removed"]], [0, 0, 0], "{report}");
}

#[test]
fn a_build_that_is_killed_leaves_whole_files_and_the_next_one_goes_on() {
    const CUSTOMERS: usize = 150;
    let wanted = clean(CUSTOMERS);
    let project = on_disk(&[]);
    version(&project, true, CUSTOMERS);
    build(&project);
    // How long it takes, from the last one that came to its end.
    let mut whole = Duration::from_millis(400);
    let (mut killed, mut unfinished) = (0, 0);
    for round in 0..100_u32 {
        let even = round % 2 == 1;
        version(&project, even, CUSTOMERS);
        let start = Instant::now();
        let mut child = command(&project, &["build", "--quiet"]).stderr(Stdio::null()).spawn().expect("it starts");
        // Spread over its duration, in no order.
        std::thread::sleep(whole * (round * 37 % 100) / 100);
        let ended = child.try_wait().expect("a child").is_some();
        child.kill().expect("it is there");
        child.wait().expect("a child");
        killed += usize::from(!ended);

        let found = project.files("out");
        for (name, bytes) in &found {
            if !is_seen(name) {
                unfinished += 1;
                continue;
            }
            let is = |files: &Files| files.get(name) == Some(bytes);
            assert!(wanted.iter().any(is), "round {round}: {name} is neither old nor new");
        }
        let known = Manifest::read_with(project.root(), || UserKey::of(&cache()).ok()).records;
        let lost = (0..CUSTOMERS).filter(|at| at % 10 != 2).map(|at| format!("customers/c{at:03}.yaml"));
        let lost: Vec<String> = lost.filter(|file| !known.contains_key(file)).collect();
        assert!(lost.is_empty(), "round {round}: what was remembered of {lost:?} is lost");
        if round % 5 == 4 {
            // Also if the files are those of before the build that was killed.
            let even = if round % 10 == 4 { even } else { !even };
            version(&project, even, CUSTOMERS);
            let again = Instant::now();
            build(&project);
            whole = again.elapsed().max(Duration::from_millis(100));
            equals(&project, &wanted[usize::from(!even)]);
            nothing_to_do(&project);
        }
        assert!(start.elapsed() < PATIENCE, "a round takes a second or so");
    }
    assert!(killed >= 50, "{killed} of 100 were killed before their end");
    eprintln!("{killed} killed, {unfinished} unfinished neighbours seen");
}

fn spawn(project: &Project, arguments: &[&str]) -> Child {
    let mut command = command(project, arguments);
    command.env("CLOUDFLARE_ACCOUNT_ID", super::fleet::ACCOUNT).env("USER", "somebody");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[track_caller]
fn finish(child: Child) -> Run {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn builds_at_the_same_time_take_turns() {
    const CUSTOMERS: usize = 60;
    let wanted = clean(CUSTOMERS);
    let project = on_disk(&[]);
    for round in 0..6 {
        let even = round % 2 == 0;
        version(&project, even, CUSTOMERS);
        let children: Vec<Child> = (0..3)
            .map(|at| {
                spawn(&project, if at == 2 { &["plan", "--format", "json"] } else { &["build", "--format", "json"] })
            })
            .collect();
        let runs: Vec<Run> = children.into_iter().map(|child| finish(child).exits(0)).collect();
        equals(&project, &wanted[usize::from(!even)]);
        // Each worker is rendered by one of them; those of the plan aren't told.
        let rendered: u64 = runs[..2].iter().map(|run| run.json()["rendered"].as_u64().expect("a number")).sum();
        let workers = runs[0].json()["workers"].as_u64().expect("a number");
        assert!(rendered == workers || rendered == 0, "{rendered} of {workers}");
        assert_eq!(runs[2].json()["create"], workers, "{}", runs[2].stdout);
        nothing_to_do(&project);
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill is there");
    assert!(status.success());
}

#[test]
fn a_build_waits_for_one_that_is_stopped_and_says_whose_it_is() {
    const CUSTOMERS: usize = 150;
    let project = on_disk(&[]);
    version(&project, true, CUSTOMERS);
    build(&project);
    let lock = project.path(".flotilla/build/lock");
    let noted = |of: &Child| fs::read_to_string(&lock).is_ok_and(|text| text.contains(&of.id().to_string()));
    let mut even = false;
    let first = loop {
        version(&project, even, CUSTOMERS);
        let mut first = spawn(&project, &["build", "--format", "json"]);
        until("the build has the lock", || noted(&first) || first.try_wait().expect("a child").is_some());
        signal(&first, "-STOP");
        if noted(&first) {
            break first;
        }
        // It was faster than this test: once more.
        signal(&first, "-CONT");
        finish(first).exits(0);
        even = !even;
    };
    let holder = format!("process {}", first.id());

    for arguments in [&["build", "--format", "json"][..], &["plan", "--format", "json"]] {
        let mut waiting = spawn(&project, arguments);
        let mut told = [0; 256];
        let length = waiting.stderr.as_mut().expect("a pipe").read(&mut told).expect("it tells");
        let told = String::from_utf8_lossy(&told[..length]).into_owned();
        assert!(
            told.contains("waiting: another build is running: build by somebody on ")
                && told.contains(&format!(", {holder}, since ")),
            "{told}"
        );
        assert!(waiting.try_wait().expect("a child").is_none(), "it waits");
        waiting.kill().expect("it is there");
        waiting.wait().expect("a child");
    }
    // Who only looks waits for nobody.
    let check = output(&mut command(&project, &["build", "--check"]));
    assert_eq!(check.code, 3, "{}", check.stderr);

    // What changes while it waits is seen when its turn comes.
    let waiting = spawn(&project, &["build", "--format", "json"]);
    std::thread::sleep(Duration::from_millis(300));
    project.write("customers/late.yaml", "id: late\n");
    fs::remove_file(project.path("customers/c003.yaml")).unwrap();
    signal(&first, "-CONT");
    // The first one has read its customers, or finds one gone: both are told or none.
    let first = finish(first);
    assert!([0, 1].contains(&first.code), "{}", first.stderr);
    let second = finish(waiting).exits(0).json();
    assert_eq!(second["invalid"], 0);
    let fresh = on_disk(&[]);
    version(&fresh, even, CUSTOMERS);
    fresh.write("customers/late.yaml", "id: late\n");
    fs::remove_file(fresh.path("customers/c003.yaml")).unwrap();
    build(&fresh);
    equals(&project, &fresh.files("out"));
    nothing_to_do(&project);
}

/// Everything below a folder may be read by all, and written by nobody or by all.
fn writable(folder: &Path, is: bool) {
    let mode = |is_folder: bool| match (is_folder, is) {
        (true, true) => 0o777,
        (true, false) => 0o555,
        (false, true) => 0o666,
        (false, false) => 0o444,
    };
    if is {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            writable(&entry.path(), is);
        } else {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode(false))).unwrap();
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode(true))).unwrap();
}

/// The program, run by somebody whom permissions hold for: by nobody, where the tests are run by root.
fn run_as_somebody(project: &Project, arguments: &[&str]) -> Run {
    static CACHE: OnceLock<TempDir> = OnceLock::new();
    let mut command = command(project, arguments);
    // A cache is private to its user.
    let cache = CACHE.get_or_init(|| {
        let folder = temporary_folder_on_disk();
        if fs::metadata("/proc/self").expect("Linux").uid() == 0 {
            std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).expect("root may");
        }
        folder
    });
    command.env("FLOTILLA_CACHE_DIR", cache.path().join("own"));
    if fs::metadata("/proc/self").expect("Linux").uid() == 0 {
        command.uid(65534).gid(65534);
    }
    output(&mut command)
}

#[test]
fn where_nothing_may_be_written_it_says_what_it_could_not_write() {
    let project = on_disk(&[("acme", "vars: { A: \"1\" }\n"), ("bluebird", "")]);
    if run_as_somebody(&project, &["--version"]).code != 0 {
        // The tests' folder is closed to others: permissions can't be tried here.
        eprintln!("SKIPPED: nobody may not run {}", env!("CARGO_BIN_EXE_flotilla"));
        return;
    }
    build(&project);
    writable(project.root(), true);
    // Its own cache has what it needs from here on.
    run_as_somebody(&project, &["build"]).exits(0);
    let built = project.files("out");
    writable(project.root(), false);
    let same = |run: &Run| assert!(project.files("out") == built, "{run:?}");

    // Nothing to do, and nothing is said but that.
    let run = run_as_somebody(&project, &["build"]).exits(0);
    assert!(run.stdout.contains("nothing to do"), "{}", run.stdout);
    assert_eq!(run.stderr, "");
    run_as_somebody(&project, &["build", "--check"]).exits(0);
    run_as_somebody(&project, &["check"]).exits(0);

    // Something to do.
    let spec = project.path("customers/acme.yaml");
    writable(&project.path("customers"), true);
    fs::write(&spec, "id: acme\nvars: { A: \"2\" }\n").unwrap();
    run_as_somebody(&project, &["build", "--check"]).exits(3);
    let run = run_as_somebody(&project, &["build"]).exits(1);
    same(&run);
    for text in ["out/production/acme", "can't be written", "Permission denied", "out/ must be writable"] {
        assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
    }

    // Only out/: what was not written is not taken for written.
    writable(project.root(), true);
    writable(&project.path("out"), false);
    let run = run_as_somebody(&project, &["build"]).exits(1);
    same(&run);
    assert!(run.stderr.contains("out/production/acme"), "{}", run.stderr);
    writable(&project.path("out"), true);
    let report = run_as_somebody(&project, &["build", "--format", "json"]).exits(0).json();
    assert_eq!(report["rendered"], 1);

    // Only what builds remember: it is built, and it is told that it will be forgotten.
    writable(&project.path(".flotilla"), false);
    fs::write(&spec, "id: acme\nvars: { A: \"3\" }\n").unwrap();
    let run = run_as_somebody(&project, &["build", "--format", "json"]).exits(0);
    assert_eq!([&run.json()["rendered"], &run.json()["written"]], [1, 1], "{}", run.stdout);
    assert!(run.stderr.contains("the build cache can't be written"), "{}", run.stderr);
    writable(&project.path(".flotilla"), true);
    assert_eq!(run_as_somebody(&project, &["build", "--format", "json"]).exits(0).json()["written"], 0);
    let fresh = on_disk(&[("acme", "vars: { A: \"3\" }\n"), ("bluebird", "")]);
    build(&fresh);
    equals(&project, &fresh.files("out"));
    assert_eq!(run_as_somebody(&project, &["build", "--format", "json"]).exits(0).json()["rendered"], 0);
}

/// A fleet whose files take room.
fn large(word: &str) -> Project {
    let project = on_disk(&[]);
    for at in 0..40 {
        project.write(
            &format!("customers/c{at:02}.yaml"),
            format!("id: c{at:02}\nvars: {{ TEXT: \"{}\" }}\n", word.repeat(1000)),
        );
    }
    project
}

#[test]
fn on_a_full_disk_it_says_what_it_could_not_write_and_goes_on_later() {
    let (before, project) = (large("one"), large("two"));
    build(&before);
    build(&project);
    let wanted = project.files("out");
    for folder in ["out", ".flotilla"] {
        fs::remove_dir_all(project.path(folder)).unwrap();
    }
    // A disk of its own for a copy of the first fleet, built there; then almost full; then the second fleet's customers.
    let script = "set -u
        mkdir disk && mount -t tmpfs -o size=4m tmpfs disk || exit 90
        cp -a \"$1\"/. disk/ && flotilla() { \"$2\" build --project disk; } || exit 91
        for kept in 0 24 120 400; do
            cp customers/* disk/customers/ && cp \"$1\"/customers/c0* disk/customers/ || exit 92
            dd if=/dev/zero of=disk/ballast bs=1k 2>/dev/null
            [ $kept = 0 ] || truncate -s -${kept}k disk/ballast
            flotilla \"$1\" \"$2\" > said-$kept 2>&1
            echo $? > code-$kept
            rm disk/ballast
        done
        cp customers/* disk/customers/ || exit 93
        flotilla \"$1\" \"$2\" > said-after 2>&1 || exit 94
        flotilla \"$1\" \"$2\" > said-again 2>&1 || exit 95
        cp -a disk/out out || exit 96";
    let run = output(
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "bash", "-c", script, "bash"])
            .args([before.root(), Path::new(env!("CARGO_BIN_EXE_flotilla"))])
            .current_dir(project.root())
            .env("FLOTILLA_CACHE_DIR", cache()),
    );
    if run.code == 90 || run.stderr.starts_with("unshare:") {
        eprintln!("SKIPPED: no file system can be mounted here: {}", run.stderr);
        return;
    }
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(project.read("code-0").trim(), "1");
    for kept in ["0", "24", "120", "400"] {
        let said = project.read(&format!("said-{kept}"));
        if project.read(&format!("code-{kept}")).trim() != "0" {
            for text in ["error: ", "out/production/c", "can't be written", "No space left on device"] {
                assert!(said.contains(text), "{kept}: {text}: {said}");
            }
        }
    }
    equals(&project, &wanted);
    assert!(project.read("said-again").contains("nothing to do"), "{}", project.read("said-again"));
}
