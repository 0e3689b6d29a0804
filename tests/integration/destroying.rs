//! Shows: `destroy` names everything that it deletes and everything that stays, before it asks; and dry runs leave nothing behind.

use serde_json::json;

use crate::fleet::{Cloud, cache, fleet};

#[test]
fn what_stays_and_who_calls_is_named_before_anything_is_deleted() {
    let (cloud, project) =
        (Cloud::start(), fleet(&[("acme", "layers: [values]\n"), ("bolt", "bindings: { API: { worker: t-acme } }\n")]));
    let yaml = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{yaml}layers: {{ values: {{ envFiles: envs }} }}\n"));
    project.write("envs/customers/acme/production.env", "A=1\n");
    cloud.deploy(&project, &["acme"]);
    cloud.deploy(&project, &[]);
    let local = |arguments: &[&str]| project.run_with(arguments, &[("FLOTILLA_CACHE_DIR", cache().to_str().unwrap())]);
    local(&["deploy", "acme", "--local", "--yes"]).exits(0);
    let dry = cloud.run(&project, &["destroy", "acme", "--dry-run"]).exits(0).stderr;
    for line in [
        "- customers/acme.yaml\n",
        "! t-bolt of bolt calls t-acme, ",
        "! also deployed to the local emulator: `flotilla destroy --local` deletes it there\n",
        "env files are kept: envs/customers/acme/production.env\n",
    ] {
        assert!(dry.contains(line), "no {line} in {dry}");
    }
    let json = cloud.run(&project, &["destroy", "acme", "--dry-run", "--json"]).exits(0).json();
    assert_eq!((&json["elsewhere"], &json["shared_workers"]), (&json!(["local"]), &json!([])));
    let other = local(&["destroy", "acme", "--local", "--dry-run"]).exits(0).stderr;
    assert!(other.contains("! also deployed to another API"), "{other}");
    let json = cloud.run(&project, &["destroy", "acme", "--dry-run", "--json"]).exits(0).json();
    assert_eq!(
        (&json["callers"], &json["env_files"]),
        (&json!(["bolt"]), &json!(["envs/customers/acme/production.env"]))
    );
    let asked = cloud.run(&project, &["destroy", "acme"]).exits(5).stderr;
    assert!(asked.contains("delete customers/acme.yaml and 1 worker, which bolt still uses?"), "{asked}");
    // A spec that is a link is rejected before the question, and by a dry run as well.
    std::fs::rename(project.path("customers/acme.yaml"), project.path("acme.yaml")).expect("it is moved");
    std::os::unix::fs::symlink("../acme.yaml", project.path("customers/acme.yaml")).expect("a link");
    for more in [&["--dry-run"][..], &["--yes"]] {
        let refused = cloud.run(&project, &[&["destroy", "acme"], more].concat()).exits(1).stderr;
        assert!(
            refused.contains("customers/acme.yaml can't be deleted") && refused.contains("nothing was deleted"),
            "{refused}"
        );
    }
    assert_eq!(cloud.scripts().len(), 2);
}

#[test]
fn nothing_that_is_deleted_is_called_orphaned() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", "domains: [a.example.com]\n"), ("bolt", "")]));
    cloud.deploy(&project, &[]);
    let done = cloud.run(&project, &["destroy", "acme", "--yes", "-v"]).exits(0);
    assert!(!done.stderr.contains("orphaned domain") && !done.stdout.contains("orphaned domain"), "{done:?}");
    assert_eq!(cloud.scripts().keys().collect::<Vec<_>>(), ["t-bolt"]);
    let json = cloud.run(&project, &["destroy", "bolt", "--yes", "--json"]).exits(0).json();
    assert_eq!((&json["specs"], &json["workers"]), (&json!(["customers/bolt.yaml"]), &json!(["t-bolt"])));
    assert_eq!((&json["applied"], &json["elsewhere"]), (&json!(1), &json!([])));
}

#[test]
fn shared_workers_can_be_deleted_after_the_last_customer() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", "")]));
    let yaml = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{yaml}sharedWorkers: {{ auth: {{ pack: tiny }} }}\n"));
    cloud.deploy(&project, &[]);
    assert_eq!(cloud.scripts().len(), 2);
    // A project without customers is a mistake as long as any of them is deployed.
    std::fs::rename(project.path("customers/acme.yaml"), project.path("acme.yaml")).expect("it is moved");
    let refused = cloud.run(&project, &["prune", "--yes", "--max-deletions", "9"]).exits(1);
    assert!(refused.stderr.contains("F0501"), "{refused:?}");
    std::fs::rename(project.path("acme.yaml"), project.path("customers/acme.yaml")).expect("it is moved back");
    let done = cloud.run(&project, &["destroy", "acme", "--yes"]).exits(0);
    assert!(
        done.stderr.contains("! shared workers stay: ") && done.stderr.contains("remove `sharedWorkers`"),
        "{done:?}"
    );
    assert_eq!(cloud.scripts().len(), 1);
    project.write("fleet.yaml", yaml);
    cloud.run(&project, &["prune", "--yes", "--max-deletions", "1"]).exits(0);
    assert!(cloud.scripts().is_empty());
}

#[test]
fn dry_runs_leave_nothing_behind() {
    let project = fleet(&[("acme", "")]);
    let yaml = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{yaml}previews: {{ domain: previews.example.com }}\n"));
    let run = |arguments: &[&str]| project.run_with(arguments, &[("FLOTILLA_CACHE_DIR", cache().to_str().unwrap())]);
    run(&["deploy", "--local", "--dry-run"]).exits(0);
    run(&["plan", "--local"]).exits(0);
    assert!(!project.path(".flotilla/local").exists());
    let cloud = Cloud::start();
    cloud.run(&project, &["preview", "up", "--id", "7", "acme", "--dry-run"]).exits(0);
    assert!(!project.path(".flotilla/previews").exists());
}

#[test]
fn a_large_rollback_is_grouped() {
    let customers: Vec<(String, String)> =
        (0..30).map(|at| (format!("c{at}"), "vars: { A: one }\n".to_owned())).collect();
    let customers: Vec<(&str, &str)> = customers.iter().map(|(id, spec)| (id.as_str(), spec.as_str())).collect();
    let (cloud, project) = (Cloud::start(), fleet(&customers));
    cloud.deploy(&project, &[]);
    for (id, _) in &customers {
        project.edit(&format!("customers/{id}.yaml"), "one", "two");
    }
    let run = cloud.deploy(&project, &[]);
    let runs = cloud.run(&project, &["history", "--json"]).exits(0).json();
    let number = runs["runs"][0]["run"].to_string();
    let dry = cloud.run(&project, &["rollback", "--run", &number, "--dry-run"]).exits(0);
    assert!(
        dry.stderr.contains("~ update 30 workers  ") && dry.stderr.contains("rolled back to record …"),
        "{run} {dry:?}"
    );
    assert!(dry.stderr.lines().filter(|line| line.contains("t-c")).count() < 10, "{dry:?}");
    let mut terminal = crate::terminal::Terminal::run(100, cloud.command(&project, &["rollback", "--run", &number]));
    terminal.answer("roll back 30 workers", "n\r");
    assert_eq!(terminal.end().0, 5);
}
