//! Shows: `--since` selects exactly the workers that are made otherwise than at a commit: by their own files, by a layer, a
//! default, a template or the runtime; and nobody for what changes nothing. In a shallow clone, too.

use std::process::Command;

use crate::cases::{cache, tiny};
use crate::folders::temporary_folder;
use crate::support::{Project, Run, output};

fn git(project: &Project, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
    let mut command = Command::new("git");
    output(command.args(identity).args(arguments).current_dir(project.root())).exits(0).stdout
}

/// Six customers: two in a layer by label, one that lists a layer, one with staging, committed.
fn fleet() -> Project {
    let project = tiny();
    project
        .write(
            "fleet.yaml",
            "name: test\npacks: { tiny: { path: templates/tiny } }\ndefaults: { vars: { A: a, B: b } }\n\
             layers: { eu: { when: { region: eu } }, beta: }\n",
        )
        .write("layers/eu.yaml", "vars: { REGION: eu }\n")
        .write("layers/beta.yaml", "vars: { BETA: yes }\n")
        .write("customers/a.yaml", "id: a\nlabels: { region: eu }\n")
        .write("customers/b.yaml", "id: b\nlabels: { region: eu }\nvars: { A: own }\n")
        .write("customers/c.yaml", "id: c\nlayers: [beta]\n")
        .write("customers/d.yaml", "id: d\n")
        .write("customers/e.yaml", "id: e\nenvironments: { production: , staging: { logLevel: debug } }\n")
        .write("customers/f.yaml", "id: f\nvars: { A: own }\n")
        .write(".gitignore", ".flotilla/\nout/\n");
    git(&project, &["init", "--quiet", "--initial-branch", "main"]);
    git(&project, &["add", "."]);
    git(&project, &["commit", "--quiet", "-m", "first"]);
    project
}

fn run(project: &Project, arguments: &[&str]) -> Run {
    project.run_with(arguments, &[cache()])
}

/// The workers that a reference selects.
fn since(project: &Project, reference: &str) -> Vec<String> {
    let shown = run(project, &["show", "--since", reference, "--format", "json"]).exits(0).json();
    let workers = shown["workers"].as_array().expect("a list").iter();
    workers.map(|worker| worker["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn what_is_made_otherwise_is_selected_and_nothing_else() {
    let project = fleet();
    assert_eq!(since(&project, "HEAD"), [""; 0]);
    let all = ["tiny-a", "tiny-b", "tiny-c", "tiny-d", "tiny-e", "tiny-f", "tiny-e-staging"];
    for built in [false, true] {
        if built {
            run(&project, &["build"]).exits(0);
        }
        let check = |file: &str, text: &str, expected: &[&str]| {
            let before = project.path(file).exists().then(|| project.read(file));
            project.write(file, text);
            let mut found = since(&project, "HEAD");
            found.sort_by_key(|name| all.iter().position(|other| other == name));
            assert_eq!(found, expected, "{file}: {text}");
            match before {
                Some(before) => drop(project.write(file, before)),
                None => std::fs::remove_file(project.path(file)).expect("a file"),
            }
        };
        check("customers/d.yaml", "id: d\nlogLevel: debug\n", &["tiny-d"]);
        check("customers/d.yaml", "# a comment\nid: d\n", &[]);
        check("customers/g.yaml", "id: g\n", &["tiny-g"]);
        let staging = "id: e\nenvironments: { production: , staging: { logLevel: warn } }\n";
        check("customers/e.yaml", staging, &["tiny-e-staging"]);
        check("layers/eu.yaml", "vars: { REGION: europe }\n", &["tiny-a", "tiny-b"]);
        check("layers/beta.yaml", "vars: { BETA: no }\n", &["tiny-c"]);
        check("layers/beta.yaml", "# the same\nvars: { BETA: yes }\n", &[]);
        let fleet = project.read("fleet.yaml");
        let others = ["tiny-a", "tiny-c", "tiny-d", "tiny-e", "tiny-e-staging"];
        let mut of_default = since_with(&project, "fleet.yaml", &fleet.replace("A: a", "A: other"));
        of_default.sort();
        let mut others: Vec<String> = others.map(str::to_owned).into();
        others.sort();
        assert_eq!(of_default, others);
        check("fleet.yaml", &format!("# a comment\n{fleet}"), &[]);
        check("fleet.yaml", &fleet.replace("region: eu }", "region: us }"), &["tiny-a", "tiny-b"]);
        let template = project.read("templates/tiny/index.ts.tera");
        assert_eq!(since_with(&project, "templates/tiny/index.ts.tera", &format!("{template}\n")).len(), all.len());
        check("templates/tiny/unused.tera", "nobody includes it", &[]);
        let runtime = project.read("templates/tiny/runtime.js");
        assert_eq!(since_with(&project, "templates/tiny/runtime.js", &format!("{runtime}\n// new\n")).len(), all.len());
    }
}

fn since_with(project: &Project, file: &str, text: &str) -> Vec<String> {
    let before = project.read(file);
    project.write(file, text);
    let found = since(project, "HEAD");
    project.write(file, before);
    found
}

#[test]
fn a_shallow_clone_is_enough_and_what_is_not_there_is_told() {
    let project = fleet();
    git(&project, &["checkout", "--quiet", "-b", "change"]);
    project.write("customers/d.yaml", "id: d\nlogLevel: debug\n");
    git(&project, &["commit", "--quiet", "-am", "second"]);
    let url = format!("file://{}", project.root().display());
    let clone = Project::empty();
    std::fs::remove_dir_all(clone.root()).expect("a folder");
    let parent = clone.root().parent().expect("a folder");
    let into = clone.root().to_str().expect("a path");
    let mut command = Command::new("git");
    output(command.args(["clone", "--quiet", "--depth=1", "--branch", "change", &url, into]).current_dir(parent))
        .exits(0);
    let missing = run(&clone, &["build", "--since", "main"]).exits(2).stderr;
    assert!(
        missing.contains("git knows no commit `main` here") && missing.contains("git fetch --depth=1 origin main:main"),
        "{missing}"
    );
    git(&clone, &["fetch", "--quiet", "--depth=1", "origin", "main:main"]);
    assert_eq!(since(&clone, "main"), ["tiny-d"]);
    let built = run(&clone, &["build", "--since", "main", "--format", "json"]).exits(0).json();
    assert_eq!((&built["workers"], &built["rendered"]), (&1.into(), &1.into()));
    for hostile in ["--output=/tmp/x", "-x", "no such"] {
        let told = run(&clone, &["build", &format!("--since={hostile}")]).exits(2).stderr;
        assert!(told.contains("git knows no"), "{told}");
    }
}

#[test]
fn a_customer_with_mistakes_is_told_of_if_its_file_differs() {
    let project = fleet();
    project.write("customers/a.yaml", "id: a\nnam: x\n").write("customers/d.yaml", "id: d\nlogLevel: debug\n");
    git(&project, &["commit", "--quiet", "-am", "a mistake"]);
    project.write("customers/d.yaml", "id: d\nnam: x\n");
    let told = run(&project, &["check", "--since", "HEAD", "--format", "json"]).exits(1).json();
    assert_eq!((&told["errors"], &told["diagnostics"][0]["file"]), (&1.into(), &"customers/d.yaml".into()));
}

/// A command of git's, or of flotilla's, that reads no configuration of this machine's.
fn alone(command: &mut Command) -> &mut Command {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env(cache().0, cache().1)
}

/// Runs flotilla as somebody to whom the repository doesn't belong: the variable is one of git's own for its tests.
fn as_stranger(project: &Project, arguments: &[&str]) -> Run {
    output(alone(&mut project.command(arguments)).env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1"))
}

#[test]
fn a_repository_that_git_refuses_is_never_taken_for_none() {
    let project = fleet();
    project.write(".env", "TOKEN=x\n");
    git(&project, &["add", "--force", ".env"]);
    let told = as_stranger(&project, &["list", "--since", "HEAD"]).exits(1);
    assert!(told.stderr.contains("git: detected dubious ownership"), "{told:?}");
    assert!(told.stderr.contains("git config --global --add safe.directory"), "{told:?}");
    assert_eq!(told.stdout, "");
    let told = as_stranger(&project, &["check"]).exits(0).stderr;
    assert!(told.contains("F0508") && told.contains("whether git tracks .env"), "{told}");
    assert!(told.contains("git config --global --add safe.directory"), "{told}");
    let told = as_stranger(&project, &["secrets", "set", "TOKEN", "--from", "-"]);
    assert_ne!(told.code, 0, "{told:?}");
    assert_eq!(project.read(".env"), "TOKEN=x\n");

    // A linked worktree whose repository is gone, a file of git's that is none, a repository without a HEAD.
    for damage in ["gitdir: /nowhere/.git/worktrees/x\n", "nonsense\n"] {
        std::fs::rename(project.path(".git"), project.path("git.kept")).expect("a repository");
        project.write(".git", damage);
        let told = output(alone(&mut project.command(&["list", "--since", "HEAD"]))).exits(1).stderr;
        assert!(told.contains("error: git: "), "{told}");
        let told = output(alone(&mut project.command(&["check"]))).exits(0).stderr;
        assert!(told.contains("F0508"), "{told}");
        std::fs::remove_file(project.path(".git")).expect("a file");
        std::fs::rename(project.path("git.kept"), project.path(".git")).expect("a repository");
    }

    // A HEAD that is none or gone, a repository that says it has no work tree: git takes these for no repository.
    let head = project.read(".git/HEAD");
    for damage in [Some("nonsense\n"), None] {
        match damage {
            Some(text) => drop(project.write(".git/HEAD", text)),
            None => std::fs::remove_file(project.path(".git/HEAD")).expect("a file"),
        }
        let told = output(alone(&mut project.command(&["list", "--since", "HEAD"]))).exits(1).stderr;
        assert!(told.contains("is not a valid repository"), "{told}");
        let told = output(alone(&mut project.command(&["check"]))).exits(0).stderr;
        assert!(told.contains("F0508"), "{told}");
        project.write(".git/HEAD", &head);
    }
    git(&project, &["config", "core.bare", "true"]);
    let told = output(alone(&mut project.command(&["list", "--since", "HEAD"]))).exits(1).stderr;
    assert!(told.contains("has no work tree") && told.contains("core.bare"), "{told}");
    let told = output(alone(&mut project.command(&["check"]))).exits(0).stderr;
    assert!(told.contains("F0508"), "{told}");
    git(&project, &["config", "core.bare", "false"]);

    // No repository at all: nothing is tracked, and there is nothing to compare with.
    std::fs::remove_dir_all(project.path(".git")).expect("a repository");
    let told = output(alone(&mut project.command(&["list", "--since", "HEAD"]))).exits(2).stderr;
    assert!(told.contains("is not in a git work tree"), "{told}");
    let told = output(alone(&mut project.command(&["check"]))).exits(0).stderr;
    assert!(!told.contains("F0508"), "{told}");
    let hook = output(alone(&mut project.command(&["check"])).env("GIT_DIR", "/nowhere/.git")).exits(0).stderr;
    assert!(hook.contains("F0508") && hook.contains("GIT_DIR is set"), "{hook}");

    // A bare repository has no work tree.
    git(&project, &["init", "--quiet", "--bare", "."]);
    let told = output(alone(&mut project.command(&["list", "--since", "HEAD"]))).exits(2).stderr;
    assert!(told.contains("is not in a git work tree"), "{told}");
}

#[test]
fn a_hook_in_a_linked_worktree_sees_the_project_of_that_worktree() {
    let outer = Project::at(temporary_folder());
    let inner = fleet();
    std::fs::remove_dir_all(inner.path(".git")).expect("a repository");
    crate::support::copy(inner.root(), &outer.path("main/fleet"));
    let fleet_file = outer.read("main/fleet/fleet.yaml");
    outer
        .write("main/fleet/fleet.yaml", format!("{fleet_file}secrets: [{{ env: true }}, {{ dotenv: prod.env }}]\n"))
        .write("main/fleet/prod.env", "TOKEN=x\n");
    let git = |folder: &str, arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        let mut command = Command::new("git");
        output(alone(command.args(identity).args(arguments).current_dir(outer.path(folder))))
    };
    git("main", &["init", "--quiet", "--initial-branch", "main"]).exits(0);
    git("main", &["add", "."]).exits(0);
    git("main", &["commit", "--quiet", "-m", "first"]).exits(0);
    git("main", &["worktree", "add", "--quiet", "../linked", "-b", "linked"]).exits(0);
    let program = env!("CARGO_BIN_EXE_flotilla");
    let hook = format!("#!/bin/sh\nset -e\ncd fleet\n{program} list --since HEAD\n{program} check\nexit 1\n");
    outer.write("main/.git/hooks/pre-commit", hook);
    let mut command = Command::new("chmod");
    output(command.arg("+x").arg(outer.path("main/.git/hooks/pre-commit"))).exits(0);
    for folder in ["linked", "main"] {
        outer.write(&format!("{folder}/fleet/customers/c.yaml"), "id: c\nlogLevel: debug\n");
        // With `-a`, git gives the hook an index of its own as well.
        let refused = git(folder, &["commit", "--quiet", "-am", "second"]);
        let told = format!("{}{}", refused.stdout, refused.stderr);
        assert_ne!(refused.code, 0, "{told}");
        assert!(told.contains("F0508") && told.contains("git tracks prod.env"), "{told}");
        assert!(told.contains("1 customer") && !told.contains("6 customers,"), "{told}");
        let selected: Vec<&str> = told.lines().filter(|line| line.trim_start().starts_with("tiny-")).collect();
        assert!(selected.iter().all(|line| line.contains("tiny-c")), "{told}");
    }
}

#[test]
fn what_git_does_not_look_at_is_looked_at_or_refused() {
    let project = fleet();
    git(&project, &["update-index", "--skip-worktree", "customers/a.yaml"]);
    git(&project, &["update-index", "--assume-unchanged", "customers/b.yaml"]);
    assert_eq!(since(&project, "HEAD"), [""; 0]);
    project.write("customers/a.yaml", "id: a\nlabels: { region: eu }\nlogLevel: debug\n");
    assert_eq!(since(&project, "HEAD"), ["tiny-a"]);
    project.write("customers/b.yaml", "id: b\n");
    let mut both = since(&project, "HEAD");
    both.sort();
    assert_eq!(both, ["tiny-a", "tiny-b"]);
    // A tree isn't the project of any time.
    let told = run(&project, &["list", "--since", "HEAD:customers"]).exits(2).stderr;
    assert!(told.contains("`HEAD:customers` is not a commit"), "{told}");
    // Customers in a repository of their own: as a submodule, or as one that git leaves alone.
    let project = fleet();
    git(&project, &["rm", "--quiet", "-r", "--cached", "customers"]);
    git(&project, &["commit", "--quiet", "-m", "customers live elsewhere"]);
    let inner = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        output(command.args(identity).args(arguments).current_dir(project.path("customers"))).exits(0)
    };
    inner(&["init", "--quiet"]);
    inner(&["add", "."]);
    inner(&["commit", "--quiet", "-m", "first"]);
    let refused = |project: &Project| {
        let told = run(project, &["list", "--since", "HEAD"]).exits(2).stderr;
        assert!(told.contains("`customers` is a git repository of its own"), "{told}");
    };
    refused(&project);
    git(&project, &["add", "customers"]);
    git(&project, &["commit", "--quiet", "-m", "as a submodule"]);
    assert_eq!(since(&project, "HEAD"), [""; 0]);
    project.write("customers/a.yaml", "id: a\n");
    refused(&project);
    // A commit whose files this clone doesn't have.
    let project = fleet();
    let blob = git(&project, &["rev-parse", "HEAD:customers/d.yaml"]);
    let blob = blob.trim();
    std::fs::remove_file(project.path(&format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).expect("an object");
    project.write("customers/d.yaml", "id: d\nlogLevel: debug\n");
    let told = run(&project, &["list", "--since", "HEAD"]).exits(1).stderr;
    assert!(told.contains("error: git: "), "{told}");
    std::fs::remove_file(project.path("customers/d.yaml")).expect("a file");
    let told = run(&project, &["list", "--since", "HEAD"]).exits(1).stderr;
    assert!(told.contains("git: the bytes of customers/d.yaml"), "{told}");
}

#[test]
fn line_ends_of_a_checkout_change_nothing() {
    let project = fleet();
    project
        .write(
            "customers/a.yaml",
            "id: a\nlabels: { region: eu }\nvars:\n  TEXT: |\n    two\n    lines\n  QUOTED: \"a\n    b\"\n",
        )
        .write(".gitignore", ".flotilla/\ndist/\n");
    run(&project, &["schema"]).exits(0);
    run(&project, &["build"]).exits(0);
    git(&project, &["add", "."]);
    git(&project, &["commit", "--quiet", "-m", "second"]);
    let clone = Project::at(temporary_folder());
    let arguments = ["-c", "core.autocrlf=true", "clone", "--quiet", "--config", "core.autocrlf=true"];
    let mut command = Command::new("git");
    output(command.args(arguments).arg(project.root()).arg(clone.root())).exits(0);
    assert!(
        clone.read("customers/a.yaml").contains("\r\n") && clone.read("templates/tiny/runtime.js").contains("\r\n")
    );
    run(&clone, &["build", "--check"]).exits(0);
    run(&clone, &["schema", "--check"]).exits(0);
    assert_eq!(since(&clone, "HEAD"), [""; 0]);
    let digest = |project: &Project| {
        let plan = run(project, &["plan", "--format", "json"]).exits(0).json();
        plan["digest"].as_str().expect("a digest").to_owned()
    };
    assert_eq!(digest(&clone), digest(&project));
    // A build writes nothing, as the check said, with and without its cache; one from nothing writes what it writes elsewhere.
    let checked_out = clone.files("out");
    assert_ne!(checked_out, project.files("out"));
    for _ in 0..2 {
        let built = run(&clone, &["build", "--format", "json"]).exits(0).json();
        assert_eq!((&built["written"], &built["removed"]), (&0.into(), &0.into()), "{built}");
        assert_eq!(clone.files("out"), checked_out);
    }
    assert_eq!(digest(&clone), digest(&project));
    std::fs::remove_dir_all(clone.path("out")).expect("it is there");
    run(&clone, &["build"]).exits(0);
    assert_eq!(clone.files("out"), project.files("out"));
    // A change is seen all the same.
    let text = clone.read("customers/d.yaml");
    clone.write("customers/d.yaml", format!("{text}vars: {{ X: edited }}\r\n"));
    assert_eq!(since(&clone, "HEAD"), ["tiny-d"]);
    run(&clone, &["build", "--check"]).exits(3);
}
