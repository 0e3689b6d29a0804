//! Shows: `--since` selects exactly the workers that are made otherwise than at a commit: by their own files, by a layer, a
//! default, a template or the runtime; and nobody for what changes nothing. In a shallow clone, too.

use std::process::Command;

use crate::cases::{cache, tiny};
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
        missing.contains("git knows no `main` here") && missing.contains("git fetch --depth=1 origin main:main"),
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
