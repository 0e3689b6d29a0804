//! Shows: `build --watch` builds what is edited as soon as it is on disk, tells of mistakes as they appear and as they are
//! fixed, and goes on whatever is edited: a customer, a layer, a template, fleet.yaml.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cases::{cache, tiny};
use crate::folders::temporary_folder;
use crate::support::{PATIENCE, Project};

/// A running watch, and the objects that it prints.
struct Watch {
    child: Child,
    built: Receiver<Value>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    fn start(project: &Project) -> Watch {
        Watch::start_in(project, &[])
    }

    fn start_in(project: &Project, more: &[&str]) -> Watch {
        let (name, value) = cache();
        let mut command = project.command(&["build", "--watch", "--format", "json"]);
        command.args(more);
        let mut child =
            command.env(name, value).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut stderr = child.stderr.take().expect("a pipe");
        std::thread::spawn(move || drop(stderr.read_to_end(&mut Vec::new())));
        let (sender, built) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).expect("an object on a line"));
            }
        });
        let watch = Watch { child, built };
        watch.next();
        watch
    }

    /// The processor's time that it took until now.
    fn worked(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // Behind the program's name; in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        Duration::from_millis(10 * fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>())
    }

    fn next(&self) -> Value {
        self.built.recv_timeout(PATIENCE).expect("a build")
    }
}

fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

#[test]
fn edits_are_built_as_they_come() {
    let project = tiny();
    project
        .write(
            "fleet.yaml",
            "name: test\npacks: { tiny: { path: templates/tiny } }\nlayers: { eu: { when: { region: eu } } }\n",
        )
        .write("layers/eu.yaml", "vars: { REGION: eu }\n")
        .write("customers/a.yaml", "id: a\nlabels: { region: eu }\n")
        .write("customers/b.yaml", "id: b\n");
    let watch = Watch::start(&project);
    let wrangler = |id: &str| project.read(&format!("out/production/{id}/wrangler.jsonc"));
    let file = |id: &str| project.path(&format!("out/production/{id}/wrangler.jsonc"));

    project.write("customers/b.yaml", "id: b\nvars: { X: edited }\n");
    until("an edit is built", || wrangler("b").contains("edited"));
    let built = watch.next();
    assert_eq!((&built["written"], &built["new"]), (&1.into(), &Value::Array(Vec::new())));

    project.write("customers/c.yaml", "id: c\n");
    until("a new customer is built", || file("c").exists());
    watch.next();
    project.write("customers/b.yaml", "id: b\nnam: x\n");
    let built = watch.next();
    assert_eq!((&built["written"], &built["new"][0]["code"], &built["open"]), (&0.into(), &"S0201".into(), &1.into()));
    assert!(wrangler("b").contains("edited"), "it is left as it was");
    // Another customer's edit neither tells it again nor waits for it.
    project.write("customers/c.yaml", "id: c\nvars: { X: other }\n");
    let built = watch.next();
    assert_eq!((&built["new"], &built["open"]), (&Value::Array(Vec::new()), &1.into()));
    project.write("customers/b.yaml", "id: b\n");
    let built = watch.next();
    assert_eq!((&built["fixed"][0]["code"], &built["open"]), (&"S0201".into(), &0.into()));
    until("what is fixed is built", || !wrangler("b").contains("edited"));

    project.write("layers/eu.yaml", "vars: { REGION: europe }\n");
    until("a layer is built", || wrangler("a").contains("europe"));
    watch.next();
    std::fs::remove_file(project.path("customers/c.yaml")).expect("a file");
    until("who is gone is removed", || !file("c").exists());
    watch.next();
    let template = project.read("templates/tiny/index.ts.tera");
    project.write("templates/tiny/index.ts.tera", format!("{template}// edited\n"));
    until("a template is built", || project.read("out/production/a/index.ts").contains("// edited"));
    watch.next();
    let fleet = project.read("fleet.yaml");
    project.write("fleet.yaml", "nam: x\n");
    assert_eq!(watch.next()["new"][0]["file"], "fleet.yaml");
    project.write("fleet.yaml", fleet.replace("name: test", "name: other"));
    assert!(watch.next()["fixed"].as_array().is_some_and(|fixed| !fixed.is_empty()));
    // Two claims of one thing, by edits of two files.
    project.write("customers/a.yaml", "id: a\ndomains: [x.example.com]\n");
    watch.next();
    project.write("customers/b.yaml", "id: b\ndomains: [x.example.com]\n");
    let built = watch.next();
    assert_eq!((&built["new"][0]["code"], &built["open"]), (&"N0302".into(), &2.into()));
    project.write("customers/b.yaml", "id: b\ndomains: [y.example.com]\n");
    assert_eq!(watch.next()["open"], 0);
    // What another process builds is no surprise.
    project.write("customers/d.yaml", "id: d\n");
    project.run_with(&["build"], &[cache()]).exits(0);
    until("it is there", || file("d").exists());
    drop(watch);
    let check = project.run_with(&["build", "--check", "--format", "json"], &[cache()]).exits(0).json();
    assert_eq!((&check["rendered"], &check["written"]), (&0.into(), &0.into()));
    // That it watches is told also where nothing is to be done.
    drop(Watch::start(&project));
}

#[test]
fn an_edit_among_ten_thousand_is_soon_on_disk() {
    let project = tiny();
    for at in 0..10_000 {
        project.write(&format!("customers/c{at}.yaml"), format!("id: c{at}\n"));
    }
    project.write("fleet.yaml", "name: test\npacks: { tiny: { path: templates/tiny } }\naccounts: { default: { id: 0123456789abcdef0123456789abcdef, token: { secret: T }, limits: { workers: 20000 } } }\n");
    let watch = Watch::start(&project);
    let edit = |at: usize| {
        project.write("customers/c77.yaml", format!("id: c77\nvars: {{ EDIT: edit-{at} }}\n"));
        let path = "out/production/c77/wrangler.jsonc";
        let took = until("an edit is built", || project.read(path).contains(&format!("edit-{at}")));
        watch.next();
        took
    };
    // Without optimisation: what a release does is in README. The time counts that the processor works for it, and that
    // nothing else is waited for: on a machine that does much else, one of many edits shows it.
    const SOON: Duration = Duration::from_millis(400);
    let worked = watch.worked();
    let mut times: Vec<Duration> = (0..7).map(edit).collect();
    let each = (watch.worked() - worked) / 7;
    assert!(each < SOON, "{each:?} of work for each edit");
    while !times.iter().any(|took| *took < SOON) {
        assert!(times.len() < 100, "{times:?}");
        times.push(edit(times.len()));
    }
}

/// A pack's module with a line of its own at the end.
fn edit_template(project: &Project, line: &str) {
    let template = project.read("templates/tiny/index.ts.tera");
    project.write("templates/tiny/index.ts.tera", format!("{template}// {line}\n"));
}

#[test]
fn folders_that_are_replaced_stay_watched() {
    let project = tiny();
    project.write("customers/a.yaml", "id: a\n").write("customers/b.yaml", "id: b\n");
    let watch = Watch::start(&project);
    let aside = temporary_folder();
    let value = |value: &str| {
        project.write("customers/a.yaml", format!("id: a\nvars: {{ X: \"{value}\" }}\n"));
        until(&format!("{value} is built"), || {
            let file = project.path("out/production/a/wrangler.jsonc");
            std::fs::read_to_string(file).is_ok_and(|text| text.contains(value))
        });
    };
    let template = |line: &str| {
        edit_template(&project, line);
        until(&format!("{line} is built"), || {
            std::fs::read_to_string(project.path("out/production/a/index.ts")).is_ok_and(|text| text.contains(line))
        });
    };
    value("before");
    // Deleted and made anew, at once and after a while in which it is away.
    for pause in [false, true] {
        std::fs::remove_dir_all(project.path("customers")).expect("a folder");
        if pause {
            // A fleet without customers is an error: what was built stays.
            while !watch.next()["new"].to_string().contains("F0501") {}
        }
        std::fs::create_dir(project.path("customers")).expect("a folder");
        for edit in ["first", "second", "third"] {
            value(&format!("{edit}-{pause}"));
        }
    }
    // A pack, and the folder that it lies in, moved away and back, or replaced by a copy.
    for folder in ["templates/tiny", "templates"] {
        let kept = aside.path().join("kept");
        std::fs::rename(project.path(folder), &kept).expect("a folder");
        project.write("customers/b.yaml", format!("id: b\nvars: {{ X: {} }}\n", folder.len()));
        std::fs::rename(&kept, project.path(folder)).expect("a folder");
        template(&format!("moved back {folder}"));
        crate::support::copy(&project.path(folder), &kept);
        std::fs::remove_dir_all(project.path(folder)).expect("a folder");
        crate::support::copy(&kept, &project.path(folder));
        std::fs::remove_dir_all(&kept).expect("a folder");
        template(&format!("first copy {folder}"));
        template(&format!("second copy {folder}"));
    }
    // A folder that wasn't there.
    project.edit("fleet.yaml", "name: test\n", "name: test\nlayers: { all: { when: {} } }\n");
    project.write("layers/all.yaml", "vars: { LAYER: one }\n");
    let layered = |text: &str| {
        until(text, || {
            ["a", "b"].iter().all(|id| {
                let file = project.path(&format!("out/production/{id}/wrangler.jsonc"));
                std::fs::read_to_string(file).is_ok_and(|found| found.contains(text))
            })
        })
    };
    layered("one");
    project.write("layers/all.yaml", "vars: { LAYER: two }\n");
    layered("two");
    drop(watch);
    project.run_with(&["build", "--check"], &[cache()]).exits(0);
}

#[test]
fn a_project_that_is_replaced_stays_watched() {
    // As a branch that doesn't have the project's folder does, when it is checked out and left again.
    let project = tiny();
    project.write("fleet/customers/a.yaml", "id: a\n");
    for name in ["fleet.yaml", "templates"] {
        std::fs::rename(project.path(name), project.path(&format!("fleet/{name}"))).expect("a file");
    }
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        let mut command = std::process::Command::new("git");
        crate::support::output(command.args(identity).args(arguments).current_dir(project.root())).exits(0);
    };
    project.write(".gitignore", "out/\n.flotilla/\n");
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", ".gitignore"]);
    git(&["commit", "--quiet", "-m", "before there was a fleet"]);
    git(&["branch", "old"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "a fleet"]);
    let watch = Watch::start_in(&project, &["--project", "fleet"]);
    for round in ["one", "two"] {
        git(&["checkout", "--quiet", "old"]);
        let _ = std::fs::remove_dir_all(project.path("fleet"));
        git(&["checkout", "--quiet", "main"]);
        project.write("fleet/customers/a.yaml", format!("id: a\nvars: {{ X: {round} }}\n"));
        until(round, || {
            let file = project.path("fleet/out/production/a/wrangler.jsonc");
            std::fs::read_to_string(file).is_ok_and(|text| text.contains(round))
        });
        git(&["checkout", "--quiet", "--", "."]);
    }
    drop(watch);
}

#[test]
#[cfg(target_os = "linux")]
fn events_that_are_lost_are_made_up_for() {
    let project = tiny();
    project.write("customers/a.yaml", "id: a\n").write("customers/b.yaml", "id: b\n");
    let watch = Watch::start(&project);
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let limit: usize = limit.trim().parse().expect("a number");
    let signal = |signal| {
        let id = i32::try_from(watch.child.id()).expect("an id");
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).expect("an id"), signal).expect("it runs");
    };
    // Nobody reads the queue, and two files take turns, so that no event is like the one before it.
    signal(rustix::process::Signal::STOP);
    for number in 0..limit {
        let name = ["customers/.x", "customers/.y"][number % 2];
        std::fs::File::create(project.path(name)).expect("a file");
    }
    std::fs::remove_file(project.path("customers/.x")).expect("a file");
    std::fs::remove_file(project.path("customers/.y")).expect("a file");
    // Behind the end of the queue.
    project.write("customers/b.yaml", "id: b\nvars: { X: unheard }\n");
    signal(rustix::process::Signal::CONT);
    until("it is built", || project.read("out/production/b/wrangler.jsonc").contains("unheard"));
}

#[test]
fn a_pack_that_is_not_there_yet_is_waited_for() {
    let project = tiny();
    project.write("customers/a.yaml", "id: a\n");
    let aside = temporary_folder();
    let kept = aside.path().join("templates");
    std::fs::rename(project.path("templates"), &kept).expect("a folder");
    let watch = Watch::start(&project);
    std::fs::create_dir(project.path("templates")).expect("a folder");
    std::fs::rename(kept.join("tiny"), project.path("templates/tiny")).expect("a folder");
    until("it is built", || project.path("out/production/a/index.ts").exists());
    drop(watch);
}
