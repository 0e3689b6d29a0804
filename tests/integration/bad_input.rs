//! Shows: bad input is told, all of it in one run, quickly and without a secret; it changes nothing, and what is good
//! beside it is still built.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::{cache, tiny};
use super::folders::temporary_folder;
use super::support::{PATIENCE, Project, Run, output, timed};

/// Long enough, and with a digit, as tokens are.
const CANARY: &str = "eyJhbGciOiJFZERTQSJ9canary0123456789";

/// Everything below a folder: bytes, and where links lead.
fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a file has a type"));
            let name = path.to_string_lossy().into_owned();
            if kind.is_symlink() {
                let target = std::fs::read_link(&path).expect("a link leads somewhere");
                found.insert(name, target.into_os_string().into_encoded_bytes());
            } else if kind.is_dir() {
                open.push(path);
            } else if entry.metadata().is_ok_and(|metadata| metadata.len() < 1 << 24) {
                found.insert(name, std::fs::read(&path).expect("a file"));
            } else {
                found.insert(name, Vec::new());
            }
        }
    }
    found
}

fn run(project: &Project, arguments: &[&str]) -> Run {
    project.run_with(arguments, &[cache()])
}

/// Runs a command that has to fail with this code and leave everything as it is.
#[track_caller]
fn refused(project: &Project, arguments: &[&str], code: i32) -> Run {
    let before = snapshot(project.root());
    let run = run(project, arguments).exits(code);
    let after = snapshot(project.root());
    let touched: Vec<&String> = before
        .iter()
        .filter(|(name, bytes)| after.get(*name) != Some(*bytes))
        .map(|(name, _)| name)
        .chain(after.keys().filter(|name| !before.contains_key(*name)))
        // What a build remembers of the customers that are right is no change.
        .filter(|name| !name.contains(".flotilla/build/"))
        .collect();
    assert!(touched.is_empty(), "{arguments:?} touches {touched:?}");
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

#[track_caller]
fn says(run: &Run, texts: &[&str]) {
    for text in texts {
        assert!(run.stderr.contains(text), "{text:?} is not in\n{}", run.stderr);
    }
}

/// `code file` of each diagnostic that `check` finds.
fn found(project: &Project) -> Vec<String> {
    let run = refused(project, &["check", "--format", "json"], 1);
    let told = |diagnostic: &Value| {
        let field = |name: &str| diagnostic[name].as_str().expect("text").to_owned();
        format!("{} {}", field("code"), field("file"))
    };
    run.json()["diagnostics"].as_array().expect("a list").iter().map(told).collect()
}

#[test]
fn without_customers_there_is_nothing_to_build() {
    let project = tiny();
    for command in ["check", "build", "plan", "deploy"] {
        let run = if command == "deploy" {
            // It takes its lock first.
            run(&project, &["deploy", "--local"]).exits(1)
        } else {
            refused(&project, &[command], 1)
        };
        says(&run, &["error[F0501]", "create customers/acme.yaml"]);
    }
    std::fs::remove_dir(project.path("customers")).unwrap();
    says(&refused(&project, &["check"], 1), &["error[F0501]"]);
    project.write("customers", "a file");
    says(&refused(&project, &["build"], 1), &["error[F0501]"]);
}

#[test]
fn every_file_is_told_of_in_one_run_and_none_is_waited_for() {
    let project = tiny();
    let mut bomb = "id: bomb\nvars:\n  A: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb += &format!("  {}: &{to} [{}]\n", to.to_ascii_uppercase(), vec![format!("*{from}"); 9].join(", "));
    }
    let deep: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("id: x\n".bytes().flat_map(|byte| [byte, 0])).collect();
    let files: [(&str, &str, Vec<u8>); 15] = [
        ("aliases", "Y0110", bomb.into()),
        ("anchor", "Y0111", b"id: anchor\nvars: { A: &a [*a] }\n".into()),
        ("binary", "Y0102", vec![0xfe; 4096]),
        ("comments", "Y0105", b"# id: comments\n".into()),
        ("deep-block", "Y0109", deep.into()),
        ("deep-dashes", "Y0109", format!("vars:\n  {}x\n", "- ".repeat(10_000)).into()),
        ("deep-flow", "Y0109", format!("vars: {}", "[".repeat(10_000)).into()),
        ("deep-maps", "Y0109", format!("vars: {}", "{a: ".repeat(10_000)).into()),
        ("empty", "Y0105", Vec::new()),
        ("latin1", "Y0102", b"id: latin1\nname: Caf\xe9\n".into()),
        ("list", "S0202", b"- id: list\n".into()),
        ("lists", "Y0110", format!("id: lists\nvars: {{ A: [{}] }}\n", "[],".repeat(250_000)).into()),
        ("nul", "Y0106", b"id: nul\nname: a\0b\n".into()),
        ("tabs", "Y0106", b"id: tabs\nlabels:\n\ttier: gold\n".into()),
        ("utf16", "Y0102", utf16),
    ];
    for (name, _, bytes) in &files {
        project.write(&format!("customers/{name}.yaml"), bytes);
    }
    // Of which nothing may be read: it takes no space on the disk, but would in memory.
    let huge = std::fs::File::create(project.path("customers/huge.yaml")).unwrap();
    huge.set_len(4 << 30).unwrap();
    project.write("customers/good.yaml", "id: good\n");
    let told = found(&project);
    let (_, took) = timed(&mut project.command(&["check"]));
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    for (name, code, _) in &files {
        let of_file: Vec<&String> =
            told.iter().filter(|line| line.ends_with(&format!(" customers/{name}.yaml"))).collect();
        assert!(of_file.iter().any(|line| line.starts_with(code)), "{name}: {of_file:?}, not {code}");
    }
    assert!(told.contains(&"Y0103 customers/huge.yaml".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line.ends_with("good.yaml")), "{told:?}");
    // And the good one is built all the same.
    run(&project, &["build"]).exits(1);
    assert_eq!(std::fs::read_dir(project.path("out/production")).unwrap().count(), 1);
    assert!(project.path("out/production/good/index.ts").is_file());
}

#[test]
fn an_id_leads_nowhere_else() {
    let project = tiny();
    for (file, id) in [("a", "../../etc/x"), ("b", "/etc/x"), ("c", "B"), ("d", "other"), ("e", "a b"), ("f", "\"\"")] {
        project.write(&format!("customers/{file}.yaml"), format!("id: {id}\n"));
    }
    project.write("customers/twice.yaml", "id: twice\n").write("customers/twice.yml", "id: twice\n");
    project.write("customers/long.yaml", format!("id: {}\n", "x".repeat(300)));
    let told = found(&project);
    for file in ["a", "b", "c", "d", "e", "f", "long"] {
        assert!(told.contains(&format!("S0207 customers/{file}.yaml")), "{file}: {told:?}");
    }
    assert!(told.contains(&"S0208 customers/twice.yml".to_owned()), "{told:?}");
    run(&project, &["build"]).exits(1);
    let built: Vec<String> = project.files("out").into_keys().filter(|name| !name.starts_with("runtime/")).collect();
    assert_eq!(built, [""; 0]);
}

#[test]
fn odd_file_names_are_told_and_drive_no_terminal() {
    let project = tiny();
    let names =
        ["two words.yaml", "line\nbreak.yaml", "🚢.yaml", "\u{1b}[2Jred.yaml", "UPPER.YAML", "a;b.yml", "-x.yaml"];
    for name in names {
        let id = name.rsplit_once('.').unwrap().0;
        project.write(&format!("customers/{name}"), format!("id: {}\n", serde_json::to_string(id).unwrap()));
    }
    // No customers: hidden files, as editors leave them, and other kinds.
    project.write("customers/..yaml", "id: x\n").write("customers/.#acme.yaml", ":").write("customers/acme.yaml~", ":");
    let told = found(&project);
    for name in names {
        assert!(told.iter().any(|line| line[6..] == format!("customers/{name}")), "{name:?}: {told:?}");
    }
    assert_eq!(told.iter().filter(|line| line.contains("/.")).count(), 0, "{told:?}");
    let run = refused(&project, &["check"], 1);
    plain(&run);
    assert!(run.stderr.contains(r"customers/line\u{a}break.yaml:1:5"), "{}", run.stderr);
}

/// Nothing but text and line ends.
#[track_caller]
fn plain(run: &Run) {
    for text in [&run.stdout, &run.stderr] {
        let hostile = text.chars().find(|c| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c));
        assert_eq!(hostile, None, "{text:?}");
    }
}

#[test]
fn what_files_hold_drives_no_terminal() {
    let project = tiny();
    let evil = r#""\e[31m\e]0;title\a\u009b2J\u202e""#;
    project.write(
        "customers/acme.yaml",
        format!(
            "id: acme\nname: {evil}\nlogLevel: {evil}\n{evil}: 1\nlabels: {{ {evil}: {evil} }}\ndomains: [{evil}]\n\
             routes: [{{ pattern: {evil}, zone: {evil} }}]\ncrons: [{evil}]\ntrustedOrigins: [{evil}]\naccount: {evil}\n\
             pack: {evil}\nvars: {{ {evil}: 1 }}\ndestinations: [{{ name: {evil}, type: {evil} }}]\n"
        ),
    );
    project.write("customers/raw.yaml", b"id: raw\nname: \x1b[31mred\xc2\x9b2J\n");
    project.write(
        "customers/good.yaml",
        format!("id: good\nname: {evil}\nlabels: {{ tier: {evil} }}\nvars: {{ A: {evil} }}\n"),
    );
    for arguments in [&["check"][..], &["build"], &["plan"], &["status"], &["check", "\u{1b}[31mred"]] {
        plain(&run(&project, arguments));
    }
    let json = run(&project, &["check", "--format", "json"]);
    assert!(!json.stdout.contains('\u{1b}') && !json.stdout.contains('\u{7}'), "{:?}", json.stdout);
}

#[test]
fn a_secret_that_was_written_down_is_repeated_nowhere() {
    let destination =
        |settings: &str| format!("destinations:\n  - name: A\n    type: pixel\n    settings: {settings}\n");
    let database = |token: &str| format!("database: {{ type: turso, url: \"libsql://a.turso.io\", {token} }}\n");
    let c = CANARY;
    let layouts = [
        database(&format!("token: {c}")),
        database(&format!("token: \"{c}\"")),
        database(&format!("tokn: {c}")),
        database(&format!("token: [{c}]")),
        database(&format!("token: {{ secret: {c} }}")),
        database(&format!("token: {{ secrt: {c} }}")),
        database(&format!("token: {{ {c} }}")),
        database(&format!("token: {{ env: {c}, secret: T }}")),
        format!("database:\n  type: turso\n  url: libsql://a.turso.io?authToken={c}\n  token:\n    {c}\n"),
        format!("database: libsql://a.turso.io?authToken={c}\n"),
        format!("database: {{ type: turso, url: \"libsql://x:{c}@a.turso.io\", token: {{ secret: T }} }}\n"),
        destination(&format!("{{ pixelId: \"1\", accessToken: {c} }}")),
        destination(&format!("{{ pixelId: \"1\", accesToken: '{c}' }}")),
        destination(&format!("\n      pixelId: \"1\"\n      accessToken: |\n        {c}\n        {c}\n")),
        destination(&format!("\n      pixelId: \"1\"\n      accessToken: >-\n        {c}\n")),
        destination(&format!("\n      pixelId: \"1\"\n      accessToken: \"{c}\n        {c}\"\n")),
        destination(&format!("\n      pixelId: \"1\"\n      accessToken:\n        - {c}\n")),
        destination(&format!("\n      pixelId: \"1\"\n      accessToken:\n        value: {c}\n")),
        destination(&format!("\n      pixelId: 1\n      accessToken: {{ secret: [{{ a: {c} }}] }}\n")),
        destination(&format!("\n      pixelId: \"1\"\n      acessToken:\n        {c}\n")),
        destination(c),
        destination(&format!("[{c}]")),
        format!("secrets: {c}\n"),
        format!("secrets: [{c}]\n"),
        format!("secrets:\n  - {c}\n"),
        format!("secrets: {{ WEBHOOK_KEY: {c} }}\n"),
        format!("secrets:\n  WEBHOOK_KEY: {{ secret: {c} }}\n  webhook_key: {c}\n"),
        format!("secret: {c}\n"),
        format!("secrts: {{ WEBHOOK_KEY: {c} }}\n"),
        format!("environments: {{ staging: {{ secrets: {{ A: {c} }} }}, stagin: {{ secrets: {{ A: {c} }} }} }}\n"),
        // What isn't YAML is shown as well.
        format!("secrets: {{ WEBHOOK_KEY: \"{c} }}\n"),
        format!("database: {{ tokn: {c}\nname: a\n"),
        format!("database:\n\ttokn: {c}\n"),
        format!("database: {{ tokn: {c}, tokn: {c} }}\n"),
        format!("secrets: {{ A: !secret {c} }}\n"),
        format!("secrets: {{ A: @{c} }}\n"),
        format!("secrets:\n  A: {c}: {c}\n"),
        format!("secrets: {{ [{c}]: a }}\n"),
        format!("name: caf\u{e9}\n---\nsecrets: {c}\n"),
    ];
    let project = tiny();
    for (at, layout) in layouts.iter().enumerate() {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\n{layout}"));
    }
    let checked = run(&project, &["check", "--format", "json"]).exits(1);
    for (at, layout) in layouts.iter().enumerate() {
        assert!(checked.stdout.contains(&format!("\"customers/c{at}.yaml\"")), "nothing is reported of {layout}");
    }
    project.write("customers/good.yaml", "id: good\n");
    for arguments in
        [&["check"][..], &["check", "--format", "json"], &["build"], &["build", "--format", "json"], &["plan"]]
    {
        canary_free(&project, arguments);
    }
    canary_free(&project, &["plan", "--format", "json"]);
    for text in project.files("out").values() {
        assert!(!String::from_utf8_lossy(text).contains(c));
    }
    // At the fleet's level, too.
    for accounts in [
        format!("accounts: {{ default: {{ id: 0123456789abcdef0123456789abcdef, token: {c} }} }}\n"),
        format!("accounts:\n  default:\n    id: abc\n    tokn: {c}\n    token: {{ secret: {c} }}\n"),
        format!("accounts: {{ default: {{ id: {{ env: 1 }}, token: [{c}] }} }}\n"),
        format!("defaults: {{ secrets: {{ A: {c} }}, database: {{ type: turso, token: {c} }} }}\n"),
    ] {
        project.write("fleet.yaml", format!("name: test\npacks: {{ tiny: {{ path: templates/tiny }} }}\n{accounts}"));
        for arguments in [&["check"][..], &["check", "--format", "json"], &["deploy", "--local"]] {
            says(&canary_free(&project, arguments), if arguments.len() == 1 { &["S0206", "fleet.yaml"] } else { &[] });
        }
    }
}

#[track_caller]
fn canary_free(project: &Project, arguments: &[&str]) -> Run {
    let run = run(project, arguments).exits(1);
    for text in [&run.stdout, &run.stderr] {
        let line = text.lines().position(|line| line.contains("canary") || line.contains("eyJhbG"));
        let around = |at: usize| text.lines().skip(at.saturating_sub(4)).take(6).collect::<Vec<_>>().join("\n");
        assert!(line.is_none(), "{arguments:?} repeats the secret:\n{}", around(line.unwrap_or(0)));
    }
    run
}

#[test]
fn out_is_repaired_and_is_the_only_place_that_is_written() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\n").write("customers/bluebird.yaml", "id: bluebird\n");
    run(&project, &["build"]).exits(0);
    let built = project.files("out");

    project.write("out/production/acme/index.ts", "edited by hand");
    std::fs::remove_file(project.path("out/production/bluebird/wrangler.jsonc")).unwrap();
    project.write("out/production/acme/.index.ts.new", "left by a build that was killed");
    let stale = refused(&project, &["build", "--check"], 3);
    assert!(stale.stdout.contains("2 to write"), "{}", stale.stdout);
    assert_eq!(run(&project, &["build", "--format", "json"]).exits(0).json()["written"], 2);
    assert_eq!(project.files("out"), built);
    refused(&project, &["build", "--check"], 0);

    // Files of any size, which take no space on the disk: they are replaced, not read.
    for file in ["index.ts", "wrangler.jsonc"] {
        let large = std::fs::File::create(project.path("out/production/acme").join(file)).unwrap();
        large.set_len(1 << 40).unwrap();
    }
    refused(&project, &["build", "--check"], 3);
    assert_eq!(run(&project, &["build", "--format", "json"]).exits(0).json()["written"], 2);
    assert_eq!(project.files("out"), built);

    // Links out of out/: a file is replaced by a file, a folder is not entered.
    let elsewhere = temporary_folder();
    let outside = |name: &str| elsewhere.path().join(name);
    std::fs::write(outside("index.ts"), "outside").unwrap();
    let link = |target: &Path, path: &str| {
        let path = project.path(path);
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    link(&outside("index.ts"), "out/production/acme/index.ts");
    run(&project, &["build"]).exits(0);
    assert_eq!(project.files("out"), built);
    assert!(!project.path("out/production/acme/index.ts").is_symlink());
    for folder in ["out/production/acme", "out/production", "out/runtime"] {
        link(elsewhere.path(), folder);
        says(&run(&project, &["build"]).exits(1), &["is a symbolic link"]);
        std::fs::remove_file(project.path(folder)).unwrap();
        run(&project, &["build"]).exits(0);
        assert_eq!(project.files("out"), built, "{folder}");
    }
    // Also not to remove: the customer is gone, the link stays with what it leads to.
    link(elsewhere.path(), "out/production/bluebird");
    std::fs::remove_file(project.path("customers/bluebird.yaml")).unwrap();
    run(&project, &["build"]).exits(0);
    assert_eq!(std::fs::read_to_string(outside("index.ts")).unwrap(), "outside");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);

    // Not writable, also for root: a file in the place of a folder.
    std::fs::remove_dir_all(project.path("out")).unwrap();
    project.write("out", "a file");
    for command in ["build", "plan"] {
        says(&refused(&project, &[command], 1), &["error: ", "out"]);
    }
}

#[test]
fn one_bad_customer_among_twenty_holds_no_other() {
    let project = tiny();
    for at in 0..20 {
        project.write(&format!("customers/c{at:02}.yaml"), format!("id: c{at:02}\nvars: {{ A: one }}\n"));
    }
    run(&project, &["build"]).exits(0);
    let before = project.files("out");
    for at in 0..20 {
        project.edit(&format!("customers/c{at:02}.yaml"), "one", "two");
    }
    project.edit("customers/c07.yaml", "id: c07", "id: c07\nlogLevel: loud");
    let built = run(&project, &["build", "--format", "json"]).exits(1);
    says(&built, &["error[S0204]", "customers/c07.yaml:2:11"]);
    assert_eq!((&built.json()["workers"], &built.json()["invalid"]), (&Value::from(19), &Value::from(1)));
    let after = project.files("out");
    let changed: Vec<&String> = after.keys().filter(|name| after[*name] != before[*name]).collect();
    assert_eq!(changed.len(), 19, "each wrangler file but one: {changed:?}");
    assert!(after.keys().eq(before.keys()) && !changed.iter().any(|name| name.contains("c07")));
    // Nor is a deploy of the others stopped; the bad one is held, and never counts as gone.
    let plan = run(&project, &["plan", "--format", "json"]).exits(1).json();
    assert_eq!((&plan["create"], &plan["delete"]), (&Value::from(19), &Value::from(0)));
}

#[test]
fn a_mistake_is_never_taken_for_a_deletion() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\n").write("customers/bluebird.yaml", "id: bluebird\n");
    run(&project, &["deploy", "--local"]).exits(0);
    let built = project.files("out");
    let spec = project.path("customers/acme.yaml");
    let beside = |name: &[u8]| project.path("customers").join(<std::ffi::OsStr as OsStrExt>::from_bytes(name));
    let mistakes: [(&str, &dyn Fn()); 8] = [
        ("a broken spec", &|| std::fs::write(&spec, "id: acme\nlogLevel: loud\n").unwrap()),
        ("an empty spec", &|| std::fs::write(&spec, "").unwrap()),
        ("another id", &|| std::fs::write(&spec, "id: acme-shop\n").unwrap()),
        ("another file name", &|| std::fs::rename(&spec, beside(b"acme-shop.yaml")).unwrap()),
        ("a file name that is no text", &|| std::fs::rename(&spec, beside(b"acm\xe9.yaml")).unwrap()),
        ("another file name, and no YAML", &|| {
            std::fs::remove_file(&spec).unwrap();
            std::fs::write(beside(b"shop.yaml"), "id: acme\nname: \"\n").unwrap();
        }),
        ("twice", &|| std::fs::write(beside(b"acme.yml"), "id: acme\n").unwrap()),
        ("a link", &|| {
            std::fs::rename(&spec, project.path("elsewhere.yaml")).unwrap();
            std::os::unix::fs::symlink("../elsewhere.yaml", &spec).unwrap();
        }),
    ];
    for (what, make) in mistakes {
        make();
        let plan = run(&project, &["plan", "--local", "--prune", "--format", "json"]).exits(1).json();
        assert_eq!((&plan["delete"], &plan["unchanged"]), (&Value::from(0), &Value::from(1)), "{what}: {plan}");
        assert_eq!(project.files("out"), built, "{what}");
        std::fs::remove_dir_all(project.path("customers")).unwrap();
        project.write("customers/acme.yaml", "id: acme\n").write("customers/bluebird.yaml", "id: bluebird\n");
    }
    // What is gone is gone, but only where it is asked for.
    std::fs::remove_file(&spec).unwrap();
    assert_eq!(run(&project, &["plan", "--local", "--format", "json"]).exits(0).json()["delete"], 0);
    assert_eq!(run(&project, &["plan", "--local", "--prune", "--format", "json"]).exits(0).json()["delete"], 1);
    assert!(!project.path("out/production/acme").exists());
}

#[test]
fn more_workers_than_an_account_holds() {
    let project = tiny();
    for at in 0..501 {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\n"));
    }
    for command in ["check", "build"] {
        let run = refused(&project, &[command], 1);
        says(
            &run,
            &["error[L0401]: 501 workers in the account `default`, which can have 500", "set `dispatchNamespace`"],
        );
    }
    let account = "id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN }";
    let fleet = project.read("fleet.yaml");
    for extra in ["dispatchNamespace: shops", "limits: { workers: 501 }"] {
        project.write("fleet.yaml", format!("{fleet}accounts: {{ default: {{ {account}, {extra} }} }}\n"));
        run(&project, &["check"]).exits(0);
    }
    project.write("fleet.yaml", &fleet);
    std::fs::remove_file(project.path("customers/c0.yaml")).unwrap();
    run(&project, &["check"]).exits(0);
}

#[test]
fn a_state_that_is_not_ours_to_read_is_left_alone() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\n");
    run(&project, &["deploy", "--local"]).exits(0);
    let state = ".flotilla/local/state.db";
    let good = std::fs::read(project.path(state)).unwrap();
    // SQLite keeps the version of the tables at byte 60, the application's mark at byte 68.
    let patched = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        bytes
    };
    let without_log = || {
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(project.path(&format!("{state}{end}")));
        }
    };
    for (bytes, text) in [
        (patched(60, 99), "was written by a newer flotilla"),
        (patched(68, 7), "is a database of another program"),
        (good[..good.len() / 2].to_vec(), "is damaged"),
        (b"not a database at all, but text of some length".repeat(20), "is damaged"),
    ] {
        for command in ["plan", "deploy", "status"] {
            without_log();
            project.write(state, &bytes);
            let run = run(&project, &[command, "--local"]).exits(1);
            says(&run, &[text, "state.db"]);
            assert!(std::fs::read(project.path(state)).unwrap() == bytes, "{command} changes what {text}");
        }
    }
    without_log();
    project.write(state, &good);
    assert_eq!(run(&project, &["plan", "--local", "--format", "json"]).exits(0).json()["unchanged"], 1);

    // Somebody else has the file, and keeps it for longer than one waits.
    {
        let other = rusqlite::Connection::open(project.path(state)).unwrap();
        other.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
        other.execute_batch("BEGIN EXCLUSIVE; CREATE TABLE other (x); ROLLBACK; BEGIN EXCLUSIVE").unwrap();
        says(&run(&project, &["plan", "--local"]).exits(5), &["state.db is in use by another process", "wait for it"]);
    }
    run(&project, &["plan", "--local"]).exits(0);

    // Somebody else deploys.
    let lock = std::fs::File::options().write(true).open(project.path(".flotilla/deploy.lock")).unwrap();
    lock.lock().unwrap();
    (&lock).write_all(b"deploy by jane, process 42, since yesterday\n").unwrap();
    let refused = run(&project, &["deploy", "--local", "--format", "json"]).exits(5);
    says(&refused, &["running", "deploy by jane, process 42, since yesterday", "wait for it to end"]);
    assert!(refused.json()["error"].as_str().unwrap().contains("jane"));
    run(&project, &["plan", "--local"]).exits(0);
}

#[test]
fn fleet_yaml_is_told_of_like_any_other_file() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\nlogLevel: loud\n");
    for (fleet, code) in [
        ("", "Y0105"),
        ("# nothing\n", "Y0105"),
        ("name: [\n", "Y0106"),
        ("name: a\nname: b\npacks: { tiny: { path: templates/tiny } }\n", "Y0107"),
        ("- name: a\n", "S0202"),
        ("name: A\npacks: { tiny: { path: templates/tiny } }\n", "S0205"),
        ("name: a\npacks: { tiny: { path: ../elsewhere } }\n", "S0205"),
        ("name: a\npacks: { tiny: { path: templates/tiny } }\ndefaults: { logLevel: loud, id: x }\n", "S0201"),
    ] {
        project.write("fleet.yaml", fleet);
        let told = found(&project);
        assert!(told.contains(&format!("{code} fleet.yaml")), "{fleet:?}: {told:?}");
        assert!(told.contains(&"S0204 customers/acme.yaml".to_owned()), "{fleet:?} hides the customer's: {told:?}");
        refused(&project, &["build"], 1);
    }
    let huge = std::fs::File::create(project.path("fleet.yaml")).unwrap();
    huge.set_len(4 << 30).unwrap();
    assert!(found(&project).contains(&"Y0103 fleet.yaml".to_owned()));
    let nowhere = temporary_folder();
    let elsewhere = nowhere.path().to_string_lossy().into_owned();
    says(&refused(&project, &["check", "--project", &elsewhere], 1), &["there is no fleet.yaml in", "-C DIR"]);
    let missing = format!("{elsewhere}/missing");
    says(&refused(&project, &["check", "--project", &missing], 1), &["can't be opened"]);
}

#[test]
fn json_has_the_names_that_others_rely_on() {
    let project = tiny();
    project
        .write("customers/acme.yaml", "id: acme\n")
        .write("customers/bluebird.yaml", "id: bluebird\nlogLevel: loud\n");
    #[track_caller]
    fn has(value: &Value, names: &[&str]) {
        let missing: Vec<&&str> = names.iter().filter(|name| value.get(**name).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?} are not in {value}");
    }
    let json = |arguments: &[&str]| run(&project, &[arguments, &["--format", "json"]].concat()).exits(1).json();
    let check = json(&["check"]);
    has(&check, &["customers", "errors", "warnings", "diagnostics"]);
    has(&check["diagnostics"][0], &["code", "severity", "message", "file", "line", "column", "help"]);
    let build = ["customers", "workers", "rendered", "unchanged", "written", "removed", "invalid", "seconds"];
    has(&json(&["build"]), &build);
    let plan = json(&["plan", "--local"]);
    has(&plan, &["create", "update", "delete", "unchanged", "requests", "eta_seconds", "digest", "changes"]);
    has(&plan["changes"][0], &["customer", "environment", "worker", "action", "reasons"]);
    let deploy = ["applied", "failed", "skipped", "requests", "retries", "throttled", "seconds", "failures"];
    has(&json(&["deploy", "--local"]), &deploy);
    has(&json(&["deploy", "--local"]), &deploy);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let project = tiny();
    for at in 0..400 {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\nlogLevel: loud\n"));
    }
    for (arguments, from_stderr) in [(&["check", "--format", "json"][..], false), (&["check"], true)] {
        let mut child = project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut rest = String::new();
        // More than a pipe holds is still to come.
        if from_stderr {
            stderr.read_exact(&mut [0]).unwrap();
            drop(stderr);
            stdout.read_to_string(&mut rest).unwrap();
        } else {
            stdout.read_exact(&mut [0]).unwrap();
            drop(stdout);
            stderr.read_to_string(&mut rest).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(!rest.contains("panic") && !rest.contains("pipe"), "{rest}");
    }
}

#[test]
fn without_npm_or_node_or_a_network_it_says_what_is_missing() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\n");
    let (nothing, cold) = (temporary_folder(), temporary_folder());
    let path = |folder: &tempfile::TempDir| folder.path().to_string_lossy().into_owned();
    let (nothing, cold_path) = (path(&nothing), path(&cold));
    let bare =
        |arguments: &[&str]| project.run_with(arguments, &[("PATH", &nothing), ("FLOTILLA_CACHE_DIR", &cold_path)]);
    let run = bare(&["build"]).exits(1);
    says(&run, &["npm is not installed; it is needed for templates/tiny", "install Node.js"]);
    assert!(!project.path("out").exists());
    // Checking needs neither.
    bare(&["check"]).exits(0);
    // The packages are there, node is not.
    project.run_with(&["build"], &[("FLOTILLA_CACHE_DIR", &cold_path)]).exits(0);
    std::fs::remove_dir_all(cold.path().join("runtime")).unwrap();
    std::fs::remove_dir_all(project.path("out")).unwrap();
    let run = bare(&["build"]).exits(1);
    says(&run, &["`node`, which bundles the pack templates/tiny, can't be started", "install Node.js"]);
    assert!(!project.path("out").exists());

    // Nothing listens there. The real pack, as it has packages to fetch.
    let project = Project::empty();
    project.write("customers/acme.yaml", "id: acme\n");
    let started = Instant::now();
    let (cold, packages) = (temporary_folder(), temporary_folder());
    let run = project.run_with(
        &["build"],
        &[
            ("FLOTILLA_CACHE_DIR", &path(&cold)),
            ("npm_config_cache", &path(&packages)),
            ("npm_config_registry", "http://127.0.0.1:9/"),
            ("npm_config_fetch_retries", "0"),
        ],
    );
    says(&run.exits(1), &["the npm registry can't be reached", "check the network"]);
    assert!(started.elapsed() < PATIENCE, "it took {:?}", started.elapsed());
    assert!(!project.path("out").exists());
}

#[test]
fn a_runtime_with_a_syntax_error_is_told_where_it_stands() {
    let project = Project::empty();
    project.write("customers/acme.yaml", "id: acme\n");
    let source = "templates/consent/src/worker.ts";
    let lines = project.read(source).lines().count();
    project.write(source, project.read(source) + "const broken = = 1;\n");
    let run = project.run(&["build"]).exits(1);
    says(&run, &["error[P0605]", &format!("{source}:{}:16", lines + 1), "const broken = = 1;"]);
    assert!(!project.path("out").exists());
}

#[test]
fn a_relative_xdg_cache_home_is_ignored() {
    let project = Project::empty();
    project.write("customers/acme.yaml", "id: acme\n");
    let home = temporary_folder();
    let run = |cache_home: &str| {
        let mut command = project.command(&["new", "bolt", "--offline", "--yes"]);
        command.env_remove("FLOTILLA_CACHE_DIR").env("HOME", home.path()).env("XDG_CACHE_HOME", cache_home);
        output(&mut command).exits(0);
        std::fs::remove_file(project.path("customers/bolt.yaml")).expect("it was written");
    };
    // The key of this user, which seals what `new` notes, is in the cache.
    let default = home.path().join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" });
    run("caches");
    assert!(!project.path("caches").exists(), "a relative path is another folder in each working directory");
    assert!(default.join("flotilla/user.key").exists());
    let absolute = home.path().join("caches");
    run(absolute.to_str().expect("UTF-8"));
    assert!(absolute.join("flotilla/user.key").exists());
}
