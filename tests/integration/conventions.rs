//! Shows: the command line keeps to the conventions that people know from other tools: help, versions, folders, colours for each
//! stream, dry runs that change nothing, completions, man pages, and the names of other tools' commands.

use std::process::Command;

use serde_json::json;

use crate::fleet::{Cloud, fleet};
use crate::support::{Project, output};
use crate::terminal::Terminal;

/// Two customers that are deployed, and a change of one of them.
fn changed() -> (Cloud, Project) {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ""), ("bolt", "domains: [bolt.example.com]\n")]));
    cloud.deployed(&project);
    project.edit("customers/acme.yaml", "id: acme\n", "id: acme\nvars: { GREETING: hello }\n");
    cloud.take();
    (cloud, project)
}

#[test]
fn help_and_versions_are_where_people_look() {
    let project = Project::empty();
    let help = project.run(&["help", "deploy"]).exits(0).stdout;
    assert_eq!(help, project.run(&["deploy", "--help"]).exits(0).stdout);
    // Also of the help command itself.
    let of_help = project.run(&["help", "help"]).exits(0).stdout;
    for arguments in [&["help", "--help"][..], &["help", "-h"]] {
        assert_eq!(project.run(arguments).exits(0).stdout, project.run(&["help"]).exits(0).stdout, "{arguments:?}");
    }
    assert_eq!(project.run(&["help", "help", "--help"]).exits(0).stdout, of_help);
    let of_list = project.run(&["secrets", "list", "--help"]).exits(0).stdout;
    assert_eq!(project.run(&["secrets", "help", "list", "--help"]).exits(0).stdout, of_list);
    project.run(&["help", "--nonsense"]).exits(2);
    assert!(project.run(&["--help"]).exits(0).stdout.contains("\n  man "), "man is listed");
    let version = project.run(&["--version"]).exits(0).stdout;
    assert!(version.starts_with(concat!("flotilla ", env!("CARGO_PKG_VERSION"), " ")), "{version}");
    let target = version.split_whitespace().last().expect("a target");
    assert!(target.split('-').count() >= 3, "{version}");
    for (typed, instead) in
        [("apply", "flotilla deploy"), ("remove", "flotilla destroy"), ("tail", "flotilla logs CUSTOMER")]
    {
        let told = project.run(&[typed, "acme"]).exits(2).stderr;
        assert!(told.contains("tip: ") && told.contains(instead), "{told}");
    }
}

#[test]
fn a_folder_and_json_can_be_asked_for_briefly() {
    let (cloud, project) = changed();
    let elsewhere = Project::empty();
    let mut command = elsewhere.command(&["-C", project.root().to_str().unwrap(), "check", "--json"]);
    assert_eq!(output(&mut command).exits(0).json()["errors"], 0);
    let long = cloud.run(&project, &["plan", "--format", "json"]).exits(0).json();
    assert_eq!(cloud.run(&project, &["plan", "--json"]).exits(0).json()["digest"], long["digest"]);
    cloud.run(&project, &["plan", "--json", "--format", "text"]).exits(2);
}

#[test]
fn each_stream_has_colours_of_its_own() {
    let (cloud, project) = changed();
    let never = cloud.run(&project, &["plan"]).exits(0);
    assert!(!never.stdout.contains('\u{1b}') && !never.stderr.contains('\u{1b}'), "{never:?}");
    let always = cloud.run(&project, &["plan", "--color", "always"]).exits(0);
    assert!(always.stdout.contains("\u{1b}[33m~\u{1b}[0m"), "{always:?}");
    // The plan goes into a file, and the terminal has the rest.
    let file = project.path("plan.txt");
    let script = format!("\"$0\" plan --color auto > {}; \"$0\" check nobody; true", file.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_flotilla")]).current_dir(project.root());
    crate::support::same_variables(&cloud.command(&project, &["plan"]), &mut command);
    command.env("TERM", "xterm-256color").env_remove("CI").env_remove("NO_COLOR");
    let terminal = Terminal::run(100, command);
    terminal.wait_for("there is no customer `nobody`");
    assert!(terminal.raw().contains("\u{1b}[31merror:\u{1b}[0m"), "{:?}", terminal.raw());
    let (_, _, _) = terminal.end();
    let plan = std::fs::read_to_string(file).unwrap();
    assert!(plan.contains("~ update t-acme") && !plan.contains('\u{1b}'), "{plan:?}");
}

#[test]
fn requests_are_shown_when_asked_for_without_what_is_secret() {
    let (cloud, project) = changed();
    let told = cloud.run(&project, &["deploy", "--yes", "--verbose"]).exits(0).stderr;
    let put = told.lines().find(|line| line.starts_with("PUT ")).expect("the upload");
    assert!(put.contains("/workers/scripts/t-acme → 200 in ") && put.ends_with(" ms"), "{told}");
    assert!(!told.contains(crate::fleet::ACCOUNT) && !told.contains("test-token"), "{told}");
    assert!(!cloud.run(&project, &["deploy", "--yes"]).exits(0).stderr.contains("PUT "));
}

#[test]
fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let (cloud, project) = changed();
    let before = (project.files("customers"), state(&cloud, &project));
    let dry = cloud.run(&project, &["deploy", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("~ update t-acme") && dry.stdout.contains("1 to update"), "{dry:?}");
    let json = cloud.run(&project, &["deploy", "--dry-run", "--json"]).exits(0).json();
    assert_eq!((&json["update"], &json["changes"][0]["worker"]), (&json!(1), &json!("t-acme")));
    assert!(cloud.sent().is_empty());
    cloud.deploy(&project, &[]);
    cloud.take();
    let dry = cloud.run(&project, &["rollback", "acme", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("would roll back 1 worker") && dry.stderr.contains("~ update t-acme"), "{dry:?}");
    let json = cloud.run(&project, &["rollback", "acme", "--dry-run", "--json"]).exits(0).json();
    assert_eq!(json["changes"][0]["worker"], "t-acme");
    let dry = cloud.run(&project, &["destroy", "acme", "bolt", "--dry-run"]).exits(0);
    for line in ["- customers/acme.yaml", "- t-bolt  (bolt · production)  bolt.example.com"] {
        assert!(dry.stderr.contains(line), "{dry:?}");
    }
    assert!(dry.stdout.contains("would delete 2 specs and 2 workers"), "{dry:?}");
    let dry = cloud.run(&project, &["preview", "up", "--id", "7", "acme", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("+ create t-acme-preview-7"), "{dry:?}");
    std::fs::remove_file(project.path("customers/bolt.yaml")).unwrap();
    let dry = cloud.run(&project, &["prune", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("- delete t-bolt"), "{dry:?}");
    let sent = cloud.sent();
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(cloud.scripts().len(), 2);
    assert_ne!(before.1, state(&cloud, &project), "the deploy was none");
    assert_eq!(before.0.len(), 2);
    // It asks for nothing, and needs no answer.
    cloud.run(&project, &["deploy", "--dry-run", "--yes"]).exits(2);
}

fn state(cloud: &Cloud, project: &Project) -> serde_json::Value {
    cloud.run(project, &["state", "show", "--json"]).exits(0).json()
}

#[test]
fn a_customer_is_destroyed_with_its_workers_and_hosts_and_no_other() {
    let (cloud, project) = changed();
    cloud.deploy(&project, &[]);
    cloud.take();
    // There is no terminal to ask on, and nothing is deleted.
    let asked = cloud.run(&project, &["destroy", "bolt"]).exits(5);
    assert!(asked.stderr.contains("delete customers/bolt.yaml and 1 worker?"), "{asked:?}");
    assert!(project.path("customers/bolt.yaml").exists() && cloud.sent().is_empty());
    cloud.run(&project, &["destroy", "nobody", "--yes"]).exits(2);
    // Another customer whose spec can't be read: any worker could be its own, and the spec stays.
    project.write("customers/broken.yaml", "id: [\n");
    let refused = cloud.run(&project, &["destroy", "bolt", "--yes"]).exits(1);
    assert!(refused.stderr.contains("can't be deleted while a spec can't be read"), "{refused:?}");
    assert!(project.path("customers/bolt.yaml").exists() && cloud.scripts().len() == 2);
    std::fs::remove_file(project.path("customers/broken.yaml")).unwrap();
    // Orphans of others stay.
    std::fs::rename(project.path("customers/acme.yaml"), project.path("acme.yaml")).unwrap();
    let done = cloud.run(&project, &["destroy", "bolt", "--yes"]).exits(0);
    assert!(done.stdout.contains("1 applied, 0 failed"), "{done:?}");
    assert_eq!(cloud.scripts().keys().collect::<Vec<_>>(), ["t-acme"]);
    assert!(!project.path("customers/bolt.yaml").exists());
    std::fs::rename(project.path("acme.yaml"), project.path("customers/acme.yaml")).unwrap();
    assert!(cloud.engine(&project).plan().plan.is_empty());
    // One that was never deployed has a spec alone.
    project.write("customers/cafe.yaml", "id: cafe\n");
    let done = cloud.run(&project, &["destroy", "cafe", "--yes", "--json"]).exits(0).json();
    assert_eq!((&done["specs"], &done["workers"]), (&json!(["customers/cafe.yaml"]), &json!([])));
    assert!(!project.path("customers/cafe.yaml").exists());
}

#[test]
fn a_destroy_that_cannot_begin_writes_the_spec_back_and_one_that_fails_can_be_finished() {
    let (cloud, project) = changed();
    cloud.deploy(&project, &[]);
    let spec = project.read("customers/bolt.yaml");
    let environment = project.read(".env");
    std::fs::remove_file(project.path(".env")).unwrap();
    let mut command = cloud.command(&project, &["destroy", "bolt", "--yes"]);
    let failed = output(command.env_remove("CLOUDFLARE_API_TOKEN")).exits(1);
    assert!(failed.stderr.contains("nothing was deleted"), "{failed:?}");
    assert_eq!(project.read("customers/bolt.yaml"), spec);
    project.write(".env", environment);
    let refusal = json!({ "status": 403, "code": 10000, "message": "no" });
    cloud.faults(&json!([{ "match": { "method": "DELETE", "path": "scripts/t-bolt" }, "do": { "error": refusal } }]));
    let failed = cloud.run(&project, &["destroy", "bolt", "--yes"]).exits(4);
    assert!(failed.stdout.contains("run the same command again to delete what is left"), "{failed:?}");
    assert!(!project.path("customers/bolt.yaml").exists());
    cloud.clear_faults();
    // Also together with one that is there, and once more when all of it is gone.
    cloud.run(&project, &["destroy", "bolt", "acme", "--yes"]).exits(0);
    assert!(cloud.scripts().is_empty() && !project.path("customers/acme.yaml").exists());
    assert_eq!(cloud.run(&project, &["destroy", "bolt", "acme", "--yes"]).exits(0).stdout, "nothing to delete\n");
    cloud.run(&project, &["destroy", "bolt", "nobody", "--yes"]).exits(2);
}

#[test]
fn shells_complete_commands_and_what_the_project_has() {
    let (cloud, project) = changed();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = project.run(&["completions", shell]).exits(0).stdout;
        assert!(script.contains("COMPLETE") && script.contains("flotilla"), "{shell}: {script}");
    }
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_flotilla")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let completed = |words: &[&str]| -> Vec<String> {
        let script = "source <(flotilla completions bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                      _clap_complete_flotilla flotilla \"${@: -1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).args(words).current_dir(project.root());
        crate::support::same_variables(&cloud.command(&project, &[]), &mut command);
        let run = output(command.env("PATH", &path)).exits(0);
        run.stdout.lines().map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(completed(&["flotilla", "des"]), ["destroy"]);
    project.write("customers/$(touch pwned).yaml", "");
    project.write("customers/-rf.yaml", "");
    let all = completed(&["flotilla", "plan", ""]);
    assert!(all.starts_with(&["acme".to_owned(), "bolt".to_owned(), "--label".to_owned()]), "{all:?}");
    assert!(all.iter().all(|word| !word.contains("pwned") && word != "-rf"), "{all:?}");
    assert_eq!(completed(&["flotilla", "plan", "a"]), ["acme"]);
    assert_eq!(completed(&["flotilla", "deploy", "--env", "s"]), ["staging"]);
    assert_eq!(completed(&["flotilla", "history", "--run", ""]), ["1"]);
    // The emulator's deploys as well.
    std::fs::create_dir_all(project.path(".flotilla/local")).unwrap();
    for name in project.files(".flotilla").into_keys().filter(|name| name.starts_with("state")) {
        std::fs::rename(project.path(&format!(".flotilla/{name}")), project.path(&format!(".flotilla/local/{name}")))
            .unwrap();
    }
    assert_eq!(completed(&["flotilla", "history", "--run", ""]), ["1"]);
    assert!(completed(&["flotilla", "explain", "S020"]).contains(&"S0201".to_owned()));
    assert!(completed(&["flotilla", "plan", "--with"]).contains(&"--with-dependencies".to_owned()));
    project.edit("fleet.yaml", "packs:", "accounts: { main: { id: { env: A }, token: { secret: T } } }\npacks:");
    assert_eq!(completed(&["flotilla", "new", "--account", ""]), ["main"]);
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let project = Project::empty();
    project.run(&["man", "pages"]).exits(0);
    let pages = project.files("pages");
    for page in ["flotilla.1", "flotilla-deploy.1", "flotilla-secrets-rotate.1"] {
        let text = String::from_utf8_lossy(pages.get(page).unwrap_or_else(|| panic!("{page}: {:?}", pages.keys())));
        assert!(text.contains(".SH NAME") && text.contains(".SH OPTIONS"), "{page}: {text}");
    }
    assert!(pages.keys().all(|page| page.ends_with(".1")), "{:?}", pages.keys());
    let json = project.run(&["man", "pages", "--json"]).exits(0).json();
    assert_eq!(json, json!({"folder": "pages", "written": pages.len()}));
}

#[test]
fn commands_that_write_files_for_tools_answer_in_json_or_refuse() {
    let project = fleet(&[("acme", "")]);
    let schemas = ["customer", "fleet", "layer", "pack"].map(|name| format!("schema/{name}.schema.json"));
    let outdated = project.run(&["schema", "--check", "--json"]).exits(3).json();
    assert_eq!(outdated, json!({"outdated": schemas}));
    assert_eq!(project.run(&["schema", "--json"]).exits(0).json(), json!({"written": schemas}));
    assert_eq!(project.run(&["schema", "--json"]).exits(0).json(), json!({"written": []}));
    assert_eq!(project.run(&["schema", "--check", "--json"]).exits(0).json(), json!({"outdated": []}));
    let one = project.run(&["schema", "customer", "--json"]).exits(0);
    assert_eq!(one.stdout.lines().count(), 1, "one object on one line");
    let text: serde_json::Value = serde_json::from_str(&project.run(&["schema", "customer"]).exits(0).stdout).unwrap();
    assert_eq!(one.json(), text);
    let refused = project.run(&["completions", "bash", "--json"]).exits(2);
    assert!(refused.json()["error"].as_str().is_some_and(|error| error.contains("no JSON output")), "{refused:?}");
    project.write("fleet.yaml", "name: [\n");
    let broken = project.run(&["schema", "--json"]).exits(1).json();
    assert!(broken["diagnostics"][0]["code"].is_string(), "{broken}");
}

#[test]
fn status_says_that_it_does_not_know_where_no_account_is_set() {
    let (cloud, project) = changed();
    std::fs::remove_file(project.path(".env")).unwrap();
    let mut command = cloud.command(&project, &["status"]);
    let told = output(command.env_remove("CLOUDFLARE_ACCOUNT_ID")).exits(1);
    assert!(told.stderr.contains("the id of default is not set, so what is deployed there is unknown"), "{told:?}");
    assert!(told.stdout.contains("t-acme  unknown\n") && !told.stdout.contains("not deployed"), "{told:?}");
    assert!(cloud.run(&project, &["status"]).exits(0).stdout.contains("2 workers, 2 deployed"));
}

#[test]
fn a_wrong_command_line_is_reported_as_json_and_in_colour_where_that_was_asked_for() {
    let project = Project::empty();
    for arguments in
        [&["plan", "--nonsense", "--json"][..], &["--format", "json", "plann"], &["destroy", "--format=json"]]
    {
        let run = project.run(arguments).exits(2);
        assert!(run.json()["error"].as_str().is_some_and(|error| !error.is_empty()), "{run:?}");
    }
    assert_eq!(project.run(&["plan", "--nonsense"]).exits(2).stdout, "");
    let painted = project.run(&["plan", "--nonsense", "--color", "always"]).exits(2).stderr;
    assert!(painted.contains("\u{1b}["), "{painted}");
    let plain = project.run(&["--color=never", "plan", "--nonsense"]).exits(2).stderr;
    assert!(!plain.contains('\u{1b}'), "{plain}");
}

#[test]
fn man_pages_replace_links_and_a_digest_has_a_form() {
    let project = fleet(&[("acme", "")]);
    project.write("victim", "mine").write("man/none", "");
    std::os::unix::fs::symlink("../victim", project.path("man/flotilla.1")).expect("a link");
    project.run(&["man", "man"]).exits(0);
    assert_eq!(project.read("victim"), "mine");
    assert!(project.read("man/flotilla.1").contains(".TH flotilla 1"));
    let cloud = Cloud::start();
    let short = cloud.run(&project, &["deploy", "--digest", "123"]).exits(2);
    assert!(short.stderr.contains("`123` is not a plan's digest"), "{short:?}");
    cloud.deploy(&project, &[]);
    let records = cloud.run(&project, &["history", "acme", "--json"]).exits(0).json();
    let live = records["records"].as_array().unwrap().iter().find(|record| record["kept"] == true).unwrap()["record"]
        .to_string();
    let same = cloud.run(&project, &["rollback", "acme", "--to", &live, "--yes"]).exits(1);
    assert!(same.stderr.contains(&format!("record {live} is what runs; there is nothing to roll back")), "{same:?}");
}

#[test]
fn the_pack_of_a_dispatch_namespace_is_added_to_a_project_once() {
    let project = fleet(&[("acme", "")]);
    let done = project.run(&["init", "--pack", "dispatch"]).exits(0).stdout;
    assert!(done.contains("to templates/dispatch. Add it to fleet.yaml"), "{done}");
    assert!(project.read("templates/dispatch/src/worker.ts").contains("export"));
    assert!(project.run(&["init", "--pack", "dispatch"]).exits(5).stderr.contains("templates/dispatch already exists"));
}
