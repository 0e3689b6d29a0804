//! Shows: what a command can't write makes it fail, whatever it writes to; devices, pipes and links are written to or refused, never
//! replaced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use flotilla_model::lock::Lock;

use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::folders::temporary_folder;
use crate::support::{PATIENCE, Project, Run, output, repository};

/// The file that `migrations new` makes.
const MADE_MIGRATION: &str = "packs/tiny/migrations/0002_add_items.sql";

/// A deployed fleet with a history, and what else commands need to have something to print.
fn world() -> (Cloud, Project) {
    let cloud = Cloud::start();
    let project = fleet(&[("acme", "vars: { A: one }\ndatabase: { type: d1, name: acme }\n"), ("bluebird", "")]);
    let pack = project.read("packs/tiny/pack.yaml");
    project.write("packs/tiny/pack.yaml", format!("{pack}databases:\n  DB: {{ migrationsDir: migrations }}\n"));
    project.write("packs/tiny/migrations/0001_orders.sql", "CREATE TABLE orders (id INTEGER);\n");
    project.write(".gitignore", ".env\n/.flotilla/\n").write(".env", "KEY=value-that-is-long\n");
    cloud.run(&project, &["deploy", "--yes"]).exits(0);
    project.write("customers/acme.yaml", "id: acme\nvars: { A: two }\ndatabase: { type: d1, name: acme }\n");
    cloud.run(&project, &["deploy", "--yes"]).exits(0);
    // Something for plan, deploy and build to do, and something to prune.
    project.write("customers/acme.yaml", "id: acme\nvars: { A: three }\ndatabase: { type: d1, name: acme }\n");
    fs::remove_file(project.path("customers/bluebird.yaml")).expect("it is there");
    project
        .write("theirs/wrangler.toml", "name = \"theirs\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-15\"\n");
    project.write("theirs/index.js", "export default {};\n");
    // Code that stays where it is has to be in the fleet's repository.
    output(Command::new("git").args(["init", "-q"]).arg(project.path("."))).exits(0);
    (cloud, project)
}

/// How each command is called so that it succeeds and prints something. A command that isn't here fails the test.
fn arguments(command: &str) -> &'static [&'static str] {
    match command {
        "init" => &["init", "another", "--pack", "worker"],
        "import" => &["import", "theirs", "--project", "imported"],
        "new" => &["new", "third", "--offline", "--yes"],
        "edit" => &["edit", "acme", "--set", "vars.B=x", "--yes"],
        "check" => &["check"],
        "build" => &["build"],
        "plan" => &["plan"],
        "deploy" => &["deploy", "--yes", "acme"],
        "rollback" => &["rollback", "acme", "--yes"],
        "destroy" => &["destroy", "acme", "--dry-run"],
        "history" => &["history"],
        "migrations list" => &["migrations", "list"],
        "migrations status" => &["migrations", "status"],
        "migrations apply" => &["migrations", "apply", "--yes"],
        "migrations new" => &["migrations", "new", "add_items"],
        "diff" => &["diff", "acme"],
        "control" => &["control", "resume"],
        "list" => &["list"],
        "show" => &["show"],
        "status" => &["status"],
        "verify" => &["verify", "--deadline", "0"],
        "secrets list" => &["secrets", "list"],
        "secrets check" => &["secrets", "check"],
        "secrets set" => &["secrets", "set", "KEY"],
        "secrets rotate" => &["secrets", "rotate", "KEY"],
        "preview up" => &["preview", "up", "--id", "7", "--yes", "acme"],
        "preview list" => &["preview", "list"],
        "preview down" => &["preview", "down", "--id", "7", "--yes"],
        "prune" => &["prune", "--yes"],
        "state show" => &["state", "show"],
        "state rebuild" => &["state", "rebuild", "--yes"],
        "state unlock" => &["state", "unlock"],
        "local" => &["local", "--port", "0"],
        "dev" => &["dev", "--port", "0"],
        "explain" => &["explain", "S0201"],
        "schema" => &["schema", "customer"],
        "export" => &["export", "acme"],
        "man" => &["man", "pages"],
        "completions" => &["completions", "bash"],
        other => panic!("how is `flotilla {other}` called? Add it here"),
    }
}

/// The commands that have no other commands below them.
fn commands() -> Vec<String> {
    let mut open = vec![(String::new(), flotilla_cli::command_line())];
    let mut all = Vec::new();
    while let Some((path, command)) = open.pop() {
        if command.has_subcommands() {
            open.extend(command.get_subcommands().map(|below| {
                let name =
                    if path.is_empty() { below.get_name().to_owned() } else { format!("{path} {}", below.get_name()) };
                (name, below.clone())
            }));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

fn run(cloud: &Cloud, project: &Project, arguments: &[&str], stdout: Stdio) -> Run {
    let mut command = cloud.command(project, arguments);
    let stdin = project.path("value");
    fs::write(&stdin, "value-from-stdin-long\n").expect("a file");
    command.stdin(File::open(stdin).expect("it is there")).stdout(stdout).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    crate::support::finish(child)
}

#[test]
fn every_command_fails_if_stdout_is_full() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("Linux"));
    let (cloud, project) = world();
    let mut tried = BTreeSet::new();
    // `logs` prints nothing until something happens: `dev::each_save_…` has it.
    for name in commands().into_iter().filter(|name| name != "logs") {
        for format in ["text", "json"] {
            let arguments = arguments(&name);
            // What is made once is taken away, so that it can be made again.
            for made in ["another", "imported", "export", "customers/third.yaml", MADE_MIGRATION] {
                let made = project.path(made);
                let _ = if made.is_dir() { fs::remove_dir_all(&made) } else { fs::remove_file(&made) };
            }
            fs::create_dir_all(project.path("imported")).expect("a folder");
            let lock = (name == "control")
                .then(|| Lock::take(&project.path(".flotilla/deploy.lock"), "deploy").expect("the lock"));
            if name == "preview list" || name == "preview down" {
                cloud.run(&project, &["preview", "up", "--id", "7", "--yes", "acme"]).exits(0);
            }
            let lost = run(&cloud, &project, &[arguments, &["--format", format]].concat(), full());
            drop(lock);
            assert!(![0, 3, -1].contains(&lost.code), "{name} as {format}: {lost:?}");
            let told = lost.stderr.matches("error: stdout can't be written: No space left on device").count();
            assert_eq!(told, 1, "{name} as {format}: {lost:?}");
            tried.insert(name.clone());
        }
    }
    assert!(tried.len() >= 30, "{tried:?}");
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["plan", "--help"],
        &["check", "--format", "github"],
        &["plan", "--format", "markdown"],
        &["export", "acme", "--form", "zip", "--to", "-"],
        &["check", "--format", "sarif"],
        &["deploy", "--yes", "acme", "--all", "--events", "-"],
    ] {
        let lost = run(&cloud, &project, arguments, full());
        if arguments[..2.min(arguments.len())] == ["check", "--format"] && arguments[2] == "github" {
            // It prints only what is wrong, and nothing is.
            continue;
        }
        assert!(
            ![0, 3, -1].contains(&lost.code) && lost.stderr.contains("stdout can't be written"),
            "{arguments:?}: {lost:?}"
        );
    }
    // A deploy whose output is lost is done nevertheless.
    assert_eq!(cloud.run(&project, &["plan", "acme", "--format", "json"]).exits(0).json()["unchanged"], 1);
}

#[test]
fn a_reader_of_stdout_that_went_away_is_no_error() {
    let (cloud, project) = world();
    for arguments in
        [&["show"][..], &["list"], &["plan"], &["schema", "customer"], &["completions", "zsh"], &["--help"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let run = run(&cloud, &project, arguments, Stdio::from(writer));
        assert!(run.code == 0 && !run.stderr.contains("error"), "{arguments:?}: {run:?}");
    }
}

#[test]
fn files_that_the_command_line_names_are_written_or_the_command_fails() {
    let (cloud, project) = world();
    let deploy = ["deploy", "--yes", "acme", "--all"];
    let plan = ["plan", "acme", "--all"];
    for (arguments, file) in [
        (&[&plan[..], &["--out", "/dev/full"]].concat(), "/dev/full"),
        (&[&plan[..], &["--summary", "/dev/full"]].concat(), "/dev/full"),
        (&[&deploy[..], &["--events", "/dev/full"]].concat(), "/dev/full"),
        (&[&deploy[..], &["--summary", "/dev/full"]].concat(), "/dev/full"),
        (&[&deploy[..], &["--trace", "/dev/full"]].concat(), "/dev/full"),
        (&[&deploy[..], &["--summary", "missing/file"]].concat(), "missing/file"),
        (&vec!["verify", "--deadline", "0", "--junit", "/dev/full"], "/dev/full"),
        (&vec!["check", "--summary", "/dev/full"], "/dev/full"),
        (&vec!["build", "--summary", "/dev/full"], "/dev/full"),
        (&vec!["export", "acme", "--form", "zip", "--to", "/dev/full"], "/dev/full"),
    ] {
        let lost = cloud.run(&project, arguments);
        assert!(lost.code == 1 || lost.code == 4, "{arguments:?}: {lost:?}");
        let line = lost.stderr.lines().find(|line| line.starts_with("error: ") && line.contains(file));
        assert!(line.is_some_and(|line| line.contains("can't be written")), "{arguments:?}: {lost:?}");
        if arguments[0] == "deploy" {
            assert!(lost.stdout.contains("1 applied, 0 failed"), "the result is there all the same: {lost:?}");
        }
    }
}

/// Makes a named pipe.
fn pipe(path: &Path) {
    output(Command::new("mkfifo").arg(path)).exits(0);
}

#[test]
fn devices_and_pipes_are_written_to_and_links_are_followed() {
    let (cloud, project) = world();
    let folder = temporary_folder();
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).to_str().expect("UTF-8").to_owned();
    // As `/dev/stdout` is: a link to what the process has open. Nothing that is there for all is written to.
    let piped = cloud.run(&project, &["plan", "--quiet", "--out", "/dev/stdout"]).exits(0);
    assert!(piped.stdout.starts_with("{\"flotilla_plan\":"), "{piped:?}");
    assert!(fs::symlink_metadata("/dev/stdout").expect("it is there").is_symlink());
    // A device of the test's own, where it may make one.
    let made = Command::new("mknod").args([&text("null"), "c", "1", "3"]).status().expect("mknod is there").success();
    if made && File::options().write(true).open(at("null")).is_ok() {
        for arguments in [&["plan", "--out"][..], &["verify", "--deadline", "0", "--junit"], &["check", "--summary"]] {
            let run = cloud.run(&project, &[arguments, &[&text("null")]].concat());
            assert!(!run.stderr.contains("can't be written"), "{run:?}");
            assert!(
                fs::symlink_metadata(at("null")).expect("it is there").file_type().is_char_device(),
                "{arguments:?}"
            );
        }
        cloud.run(&project, &["export", "acme", "--form", "zip", "--to", &text("null")]).exits(0);
        assert!(fs::symlink_metadata(at("null")).expect("it is there").file_type().is_char_device());
        assert!(!at("null.sha256").exists());
    } else {
        eprintln!("SKIPPED: no device can be made here");
    }
    pipe(&at("pipe"));
    let mut reading =
        cloud.command(&project, &["plan", "--out", &text("pipe")]).stdout(Stdio::null()).spawn().expect("it starts");
    let read = fs::read(at("pipe")).expect("it is written");
    assert!(reading.wait().expect("it ends").success() && read.ends_with(b"}\n"), "{read:?}");
    assert!(fs::symlink_metadata(at("pipe")).expect("it is there").file_type().is_fifo());
    // A link is followed, also where nothing is yet.
    fs::write(at("old"), "old").expect("a file");
    for (link, target) in [("a", "old"), ("b", "new")] {
        symlink(target, at(link)).expect("a link");
        cloud.run(&project, &["plan", "--out", &text(link)]).exits(0);
        assert!(fs::symlink_metadata(at(link)).expect("it is there").is_symlink(), "{link}");
        assert!(fs::read(at(target)).expect("it is written").starts_with(b"{\"flotilla_plan\":"), "{target}");
    }
    assert_eq!(
        fs::read_dir(folder.path())
            .expect("a folder")
            .filter(|entry| { entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".new")) })
            .count(),
        0
    );
}

#[test]
fn commands_write_into_a_project_and_not_through_it() {
    let outside = temporary_folder();
    let victim = outside.path().join("victim");
    let kept = || assert_eq!(fs::read(&victim).expect("it is there"), b"somebody's");
    fs::write(&victim, "somebody's").expect("a file");
    let plain = |project: &Project, arguments: &[&str]| {
        let start = Instant::now();
        let run = output(project.command(arguments).env("FLOTILLA_CACHE_DIR", cache()));
        assert!(start.elapsed() < PATIENCE);
        run
    };
    // schema/
    let project = fleet(&[("acme", "")]);
    fs::create_dir(project.path("schema")).expect("a folder");
    let schema = project.path("schema/customer.schema.json");
    pipe(&schema);
    let refused = plain(&project, &["schema"]).exits(1);
    assert!(refused.stderr.contains("customer.schema.json can't be written: it is a named pipe"), "{refused:?}");
    assert!(fs::symlink_metadata(&schema).expect("it is there").file_type().is_fifo());
    plain(&project, &["schema", "--check"]).exits(3);
    fs::remove_file(&schema).expect("it goes");
    for target in [victim.clone(), outside.path().join("nothing")] {
        symlink(&target, &schema).expect("a link");
        let refused = plain(&project, &["schema"]).exits(1);
        assert!(refused.stderr.contains("is a symbolic link to something outside of"), "{refused:?}");
        fs::remove_file(&schema).expect("it goes");
    }
    fs::remove_dir_all(project.path("schema")).expect("it goes");
    symlink(outside.path(), project.path("schema")).expect("a link");
    plain(&project, &["schema"]).exits(1);
    assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 1);
    fs::remove_file(project.path("schema")).expect("it goes");
    // Inside, links are followed.
    fs::create_dir(project.path("elsewhere")).expect("a folder");
    symlink("elsewhere", project.path("schema")).expect("a link");
    plain(&project, &["schema"]).exits(0);
    assert!(project.path("elsewhere/pack.schema.json").exists());
    plain(&project, &["schema", "--check"]).exits(0);
    // customers/, with `new`.
    fs::remove_dir_all(project.path("customers")).expect("it goes");
    symlink(outside.path(), project.path("customers")).expect("a link");
    let _ = plain(&project, &["new", "third", "--offline", "--yes"]);
    assert!(!outside.path().join("third.yaml").exists());
    // init and its CI.
    let begun = temporary_folder();
    symlink(outside.path(), begun.path().join("templates")).expect("a link");
    let begun = Project::at(begun);
    let refused = plain(&begun, &["init", "--pack", "worker"]);
    assert!(refused.code != 0 && refused.stderr.contains("is a symbolic link to something outside of"), "{refused:?}");
    assert_eq!(begun.files(".").len(), fs::read_dir(outside.path()).expect("a folder").count(), "nothing was written");
    fs::remove_file(begun.path("templates")).expect("it goes");
    symlink(&victim, begun.path(".gitignore")).expect("a link");
    plain(&begun, &["init", "--pack", "worker"]).exits(1);
    fs::remove_file(begun.path(".gitignore")).expect("it goes");
    begun.write(".gitignore", b"caf\xe9\n");
    plain(&begun, &["init", "--pack", "worker"]).exits(0);
    assert!(
        fs::read(begun.path(".gitignore")).expect("it is there").starts_with(b"caf\xe9\n"),
        "names that aren't UTF-8 stay"
    );
    fs::create_dir_all(begun.path(".github")).expect("a folder");
    symlink(outside.path(), begun.path(".github/workflows")).expect("a link");
    fs::create_dir(begun.path(".git")).expect("a folder");
    let refused = plain(&begun, &["init", "--ci", "github"]).exits(1);
    assert!(refused.stderr.contains("is a symbolic link to something outside of"), "{refused:?}");
    // export, into a folder that somebody else prepared.
    let project = fleet(&[("acme", "")]);
    plain(&project, &["export", "acme", "--to", "exported"]).exits(0);
    fs::remove_file(project.path("exported/README.md")).expect("it goes");
    symlink(&victim, project.path("exported/README.md")).expect("a link");
    let refused = plain(&project, &["export", "acme", "--to", "exported", "--force"]).exits(1);
    assert!(refused.stderr.contains("is a symbolic link to something outside of"), "{refused:?}");
    fs::remove_file(project.path("exported/README.md")).expect("it goes");
    project.write("exported/keep.me", "the customer's own");
    let list = project.read("exported/export.json");
    let planted =
        list.replacen("\"files\": {", "\"files\": { \"keep.me\": \"0\", \"../customers/acme.yaml\": \"0\", ", 1);
    assert_ne!(list, planted);
    project.write("exported/export.json", planted);
    let _ = plain(&project, &["export", "acme", "--to", "exported"]);
    assert!(project.path("exported/keep.me").exists() && project.path("customers/acme.yaml").exists());
    kept();
}

#[test]
fn a_folder_of_flotillas_own_that_is_something_else_is_refused() {
    let outside = temporary_folder();
    let victim = outside.path().join("victim");
    fs::write(&victim, "somebody's").expect("a file");
    for (name, is_pipe) in [
        (".flotilla", false),
        (".flotilla/build", false),
        (".flotilla/undo", false),
        (".flotilla/previews", false),
        (".flotilla/state.db", false),
        (".flotilla/control", false),
        (".flotilla/deploy.lock", true),
        (".flotilla/build/log", true),
        (".flotilla/build/values-1", false),
        (".flotilla/undo/journal.json", true),
        (".flotilla/local/address", true),
    ] {
        let project = fleet(&[("acme", "")]);
        let path = project.path(name);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
        if is_pipe {
            pipe(&path)
        } else {
            symlink(
                if name.contains('.')
                    && name.rsplit('/').next().is_some_and(|last| last.contains('.') && last != ".flotilla")
                {
                    &victim
                } else {
                    outside.path()
                },
                &path,
            )
            .expect("a link")
        }
        for arguments in [
            &["check"][..],
            &["build"],
            &["plan", "--local"],
            &["new", "third", "--offline", "--yes"],
            &["state", "unlock"],
        ] {
            let start = Instant::now();
            let run = output(
                project.command(arguments).env("FLOTILLA_CACHE_DIR", cache()).env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT),
            )
            .exits(5);
            assert!(run.stderr.contains("nothing was done") && start.elapsed() < PATIENCE, "{name}: {run:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 1, "{name}");
        assert_eq!(fs::read(&victim).expect("it is there"), b"somebody's", "{name}");
    }
    assert!(repository().exists());
}
