//! Shows: `build --watch` builds what is edited as soon as it is on disk, tells of mistakes as they appear and as they are
//! mended, and goes on whatever is edited: a customer, a layer, a template, fleet.yaml.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cases::{cache, tiny};
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
        let (name, value) = cache();
        let mut command = project.command(&["build", "--watch", "--format", "json"]);
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
    assert_eq!((&built["mended"][0]["code"], &built["open"]), (&"S0201".into(), &0.into()));
    until("what is mended is built", || !wrangler("b").contains("edited"));

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
    assert!(watch.next()["mended"].as_array().is_some_and(|mended| !mended.is_empty()));
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
