//! Shows: what lies under `.flotilla/` or comes in a plan's file is believed only as far as this user wrote it here, and what disappears
//! meanwhile is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flotilla_deploy::deploy::Control;
use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, cache, fleet, until};
use crate::folders::temporary_folder;
use crate::support::{Project, finish, output, same_variables, spawn};

fn databases(cloud: &Cloud) -> Vec<String> {
    let listed = cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/d1/database"), &Value::Null);
    let rows = listed["result"].as_array().expect("a list").iter();
    rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// What people have in a project, git's folder included.
fn files(project: &Project) -> BTreeMap<String, Vec<u8>> {
    project.files("").into_iter().filter(|(path, _)| !path.starts_with(".flotilla/")).collect()
}

#[test]
fn a_planted_undo_journal_changes_nothing() {
    let cloud = Cloud::start();
    let made = cloud.http("POST", &format!("/client/v4/accounts/{ACCOUNT}/d1/database"), &json!({"name": "orders"}));
    let id = made["result"]["uuid"].as_str().expect("an id").to_owned();
    let outside = temporary_folder();
    let victim = outside.path().join("victim");
    fs::write(&victim, "somebody's").expect("a file");
    let victim_path = victim.to_str().expect("UTF-8");
    let project = fleet(&[("acme", "")]);
    project.write(".git/config", "[core]\n").write(".flotilla/undo/0", "#!/bin/sh\nplanted\n");
    let old =
        |path: &str, kept: Option<&str>| json!({"File": {"path": path, "kept": kept, "written": null, "folders": []}});
    let now =
        |path: &str, kept: Option<Value>| json!({"File": {"path": path, "kept": kept, "written": null, "folders": 0}});
    let copy = json!({"number": 0, "digest": "0".repeat(64), "mode": 493});
    let database = json!({"Database": {"account_id": ACCOUNT, "name": "orders", "id": id}});
    let mut journals: Vec<String> = Vec::new();
    for step in [
        old(victim_path, None),
        old(victim_path, Some("0")),
        old("../outside", Some("0")),
        old(".git/hooks/pre-commit", Some("0")),
        old(project.path("customers/acme.yaml").to_str().expect("UTF-8"), None),
        old("customers/acme.yaml", Some("../../../../../../etc/passwd")),
        database.clone(),
    ] {
        journals.push(json!({"version": 1, "what": "new acme", "at": 7, "steps": [step]}).to_string());
    }
    for step in [now("customers/acme.yaml", None), now(".git/config", Some(copy)), now(victim_path, None), database] {
        let text = json!({"what": "new acme", "at": 7, "steps": [step]});
        journals.push(format!("flotilla-undo-2 {}\n{text}", "0".repeat(32)));
        journals.push(format!("flotilla-undo-2 -\n{text}"));
    }
    journals.push("{\"version\":1,\"what\":".to_owned());
    journals.push("[".repeat(100_000));
    let before = files(&project);
    for journal in &journals {
        project.write(".flotilla/undo/journal.json", journal);
        for arguments in [&["new", "b", "--offline", "--yes"][..], &["edit", "acme", "--set", "vars.A=b", "--yes"]] {
            for more in [&[][..], &["--interrupted", "undo"]] {
                let refused = cloud.run(&project, &[arguments, more].concat()).exits(5);
                assert!(
                    refused.stderr.contains("can't be used") && refused.stderr.contains("nothing was undone"),
                    "{refused:?}"
                );
            }
        }
        let refused = cloud.run(&project, &["import", "nowhere"]);
        assert_ne!(refused.code, 0);
        // It says nothing about this project, and stops nobody else.
        cloud.run(&project, &["check"]).exits(0);
        assert_eq!(files(&project), before, "{journal}");
        assert_eq!(fs::read(&victim).expect("it is there"), b"somebody's");
        assert_eq!(databases(&cloud), ["orders"]);
    }
    cloud.run(&project, &["new", "b", "--offline", "--yes", "--interrupted", "keep"]).exits(0);
    assert!(project.path("customers/b.yaml").exists() && !project.path(".flotilla/undo").exists());
    assert_eq!(databases(&cloud), ["orders"]);
}

#[test]
fn a_changed_plan_file_adopts_nothing_that_was_not_planned() {
    let cloud = Cloud::start();
    let project = fleet(&[("acme", "")]);
    cloud.foreign("scripts/t-acme", &["theirs"]);
    let theirs = cloud.scripts();
    cloud.run(&project, &["plan", "--out", "plan.json"]).exits(0);
    cloud.run(&project, &["deploy", "--plan", "plan.json"]).exits(5);
    let mut plan: Value = serde_json::from_str(&project.read("plan.json")).expect("JSON");
    for asked in [json!(["--adopt=t-acme"]), json!(["--adopt", "t-acme"]), json!(["--project", "/"]), json!(["--help"])]
    {
        plan["asked"] = asked;
        project.write("plan.json", plan.to_string());
        let refused = cloud.run(&project, &["deploy", "--plan", "plan.json"]).exits(5);
        assert!(refused.stderr.contains("nothing was sent"), "{refused:?}");
        assert_eq!(cloud.scripts(), theirs);
    }
    // One that was planned so is another plan, and is applied.
    cloud.run(&project, &["plan", "--adopt", "t-acme", "--out", "adopting.json"]).exits(0);
    cloud.run(&project, &["deploy", "--plan", "adopting.json"]).exits(0);
    assert_ne!(cloud.scripts(), theirs);
}

#[test]
fn a_state_that_disappears_during_a_deploy_is_noticed() {
    let customers: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
    let specs: Vec<(&str, &str)> = customers.iter().map(|id| (id.as_str(), "")).collect();
    // Its name depends on the address of the API.
    let found = |project: &Project| {
        let entries = fs::read_dir(project.path(".flotilla")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("state-") && name.ends_with(".db")
        })
    };
    let state = |project: &Project| found(project).expect("the state is there");
    let remove = |project: &Project| fs::remove_file(state(project)).expect("it is there");
    let replace = |project: &Project| {
        fs::copy(state(project), project.path("copy")).expect("it is there");
        fs::rename(project.path("copy"), state(project)).expect("it is there");
    };
    let remove_all = |project: &Project| fs::remove_dir_all(project.path(".flotilla")).expect("it is there");
    let ways: [&dyn Fn(&Project); 3] = [&remove, &replace, &remove_all];
    for way in ways {
        let cloud = Cloud::start();
        let project = fleet(&specs);
        cloud.run(&project, &["build"]).exits(0);
        cloud.faults(&json!([{"match": {"method": "PUT"}, "times": 0, "do": {"delay_ms": 2500}}]));
        let child = spawn(&mut cloud.command(&project, &["deploy", "--yes"]));
        until("the state is there", || found(&project).is_some());
        std::thread::sleep(std::time::Duration::from_millis(700));
        way(&project);
        let run = finish(child);
        assert!(run.stderr.contains(".db was deleted or replaced while it was in use"), "{run:?}");
        assert!(run.code == 4 && !run.stdout.contains("6 applied"), "{run:?}");
        assert!(run.stderr.contains("flotilla state rebuild"), "{run:?}");
    }
}

#[test]
fn a_lock_that_disappears_during_a_deploy_is_noticed() {
    let ways: [fn(&Path); 2] = [
        |lock| fs::remove_file(lock).expect("it is there"),
        |lock| {
            fs::copy(lock, lock.with_extension("copy")).expect("it is there");
            fs::rename(lock.with_extension("copy"), lock).expect("it is there");
        },
    ];
    for way in ways {
        let (cloud, project) = (Cloud::start(), fleet(&[("acme", ""), ("bob", "")]));
        let lock = project.path(".flotilla/deploy.lock");
        let once = std::sync::atomic::AtomicBool::new(false);
        // The loop polls before it sends anything.
        let steer = move || {
            if !once.swap(true, std::sync::atomic::Ordering::Relaxed) {
                way(&lock);
            }
            Control::Continue
        };
        let failure = cloud.engine(&project).steered(steer).deploy().failure(Exit::SomeFailed);
        let text = failure.to_string();
        assert!(text.contains("deploy.lock was deleted or replaced while it was in use"), "{text}");
        assert!(cloud.sent().is_empty() && cloud.scripts().is_empty(), "nothing was begun");
        cloud.engine(&project).deploy().exits(Exit::Done);
    }
}

#[test]
fn what_flotilla_keeps_is_private_whatever_the_umask_is() {
    let cloud = Cloud::start();
    let project = fleet(&[("acme", "domains: [a.example.com]\n")]);
    project.write(".gitignore", ".env\n/.flotilla/\n");
    let cache = temporary_folder();
    let with_umask = |arguments: &str| {
        let mut shell = std::process::Command::new("sh");
        let command = cloud.command(&project, &[]);
        let line = format!("umask 000; exec \"$0\" {arguments}");
        shell.args(["-c", &line, command.get_program().to_str().expect("UTF-8")]).current_dir(project.root());
        crate::support::same_variables(&command, &mut shell);
        output(shell.env("FLOTILLA_CACHE_DIR", cache.path().join("own")))
    };
    with_umask("deploy --yes");
    with_umask("new third --offline --yes").exits(0);
    let set = with_umask("secrets set KEY < /dev/null");
    assert_ne!(set.code, 0, "an empty value");
    project.write("value", "value-that-is-long\n");
    with_umask("secrets set KEY < value").exits(0);
    let mode = |path: &Path| fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777;
    let mut open = vec![project.path(".flotilla"), cache.path().join("own/lanes")];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        assert_eq!(mode(&folder) & 0o077, 0, "{}", folder.display());
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => open.push(entry.path()),
                false => {
                    seen += 1;
                    // What builds remember is nobody's secret, and lies in a private folder.
                    let is_remembered = entry.path().starts_with(project.path(".flotilla/build"));
                    assert!(is_remembered || mode(&entry.path()) & 0o077 == 0, "{}", entry.path().display());
                }
            }
        }
    }
    assert!(seen >= 3, "{seen} files");
    assert_eq!(mode(&project.path(".env")), 0o600);
    // One that was there before with wider permissions is reported.
    fs::set_permissions(project.path(".env"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let told = with_umask("secrets set KEY < value").exits(0);
    assert!(told.stderr.contains("other users can read .env (its mode is 644): chmod 600 .env"), "{told:?}");
    // A folder that an earlier version made is made private again.
    fs::set_permissions(project.path(".flotilla"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    with_umask("check").exits(0);
    assert_eq!(mode(&project.path(".flotilla")), 0o700);
    let _ = self::cache();
}

/// What is planted in a project in place of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Planted {
    Link,
    Dangling,
    Zero,
    Pipe,
    Socket,
    Folder,
    Noise,
    Huge,
    WorldWritable,
    OfAnother,
}

impl Planted {
    const ALL: [Planted; 10] = [
        Planted::Link,
        Planted::Dangling,
        Planted::Zero,
        Planted::Pipe,
        Planted::Socket,
        Planted::Folder,
        Planted::Noise,
        Planted::Huge,
        Planted::WorldWritable,
        Planted::OfAnother,
    ];

    /// Plants it; returns whether flotilla makes nothing of this kind, so that any command refuses it.
    fn plant(self, path: &Path, victim: &Path) -> bool {
        use std::os::unix::fs::symlink;
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        match self {
            Planted::Link => symlink(victim, path).expect("a link"),
            Planted::Dangling => symlink(victim.with_extension("nothing"), path).expect("a link"),
            Planted::Zero => symlink("/dev/zero", path).expect("a link"),
            Planted::Pipe => {
                let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
                assert!(made.success());
            }
            Planted::Socket => drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")),
            Planted::Folder => fs::create_dir(path).expect("a folder"),
            Planted::Noise => {
                let noise: Vec<u8> =
                    (0..20_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
                fs::write(path, noise).expect("a file");
            }
            // Nothing of it is on the disk.
            Planted::Huge => fs::File::create(path).and_then(|file| file.set_len(16 << 30)).expect("a file"),
            Planted::WorldWritable => {
                fs::write(path, "pause").expect("a file");
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("permissions");
            }
            Planted::OfAnother => {
                fs::write(path, "").expect("a file");
                // Only the administrator can give files away.
                let _ = std::os::unix::fs::chown(path, Some(12_345), Some(12_345));
            }
        }
        matches!(self, Planted::Link | Planted::Dangling | Planted::Zero | Planted::Pipe | Planted::Socket)
    }
}

#[test]
fn what_is_planted_among_flotillas_files_is_contained() {
    let outside = temporary_folder();
    let victim = outside.path().join("victim");
    let (deploy, status, pause): (&[&str], &[&str], &[&str]) =
        (&["deploy", "--local", "--yes"], &["status"], &["control", "pause"]);
    for (place, commands) in [
        ("state.db", &[status, deploy][..]),
        ("control", &[pause, deploy]),
        ("local/state.db", &[&["plan", "--local"], deploy]),
        ("local/token", &[deploy]),
        ("local/address", &[deploy]),
        ("local/local.lock", &[deploy]),
        ("local", &[deploy]),
    ] {
        for planted in Planted::ALL {
            fs::write(&victim, "somebody's").expect("a file");
            let project = fleet(&[("acme", "")]);
            let is_refused = planted.plant(&project.path(&format!(".flotilla/{place}")), &victim);
            for arguments in commands {
                // What would wait for ever, or read without end, is stopped by the time or by the memory.
                let mut command = std::process::Command::new("sh");
                command.args(["-c", "ulimit -v 12000000; exec timeout 60 \"$@\"", "sh"]);
                let program = project.command(arguments);
                command.arg(program.get_program()).args(program.get_args()).current_dir(project.root());
                same_variables(&program, &mut command);
                command.env("FLOTILLA_CACHE_DIR", cache()).env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);
                let run = output(&mut command);
                let shown = format!("{place} {planted:?} {arguments:?} {run:?}");
                assert!(matches!(run.code, 0 | 1 | 5), "{shown}");
                assert!(run.code == 0 || run.stderr.contains("error: "), "{shown}");
                if is_refused {
                    assert!(run.code == 5 && run.stderr.contains("nothing was done"), "{shown}");
                }
                assert!(!run.stderr.contains("BUG") && !run.stderr.contains("disk I/O error"), "{shown}");
                assert_eq!(fs::read(&victim).expect("it is there"), b"somebody's", "{shown}");
                assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 1, "{shown}");
            }
            if is_refused {
                continue;
            }
            let mode = fs::metadata(project.path(".flotilla")).expect("a folder").permissions().mode();
            assert_eq!(mode & 0o077, 0, "nobody else reaches what is in it");
        }
    }
}
