//! Shows: what flotilla runs, be it a pack's build, its templates or a source of secrets, has limits, sees no more of the environment than
//! it may, and is gone when flotilla is, however that ends; and what one build leaves behind reaches no other.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cases::{cache, tiny};
use crate::folders::temporary_folder;
use crate::support::{Project, Run, output, same_variables, spawn};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pack's build, with what it does before it writes the bundle.
fn build_script(before: &str) -> String {
    format!(
        "import {{ mkdirSync, writeFileSync, readdirSync, existsSync, appendFileSync }} from \"node:fs\";\n\
         import {{ spawn }} from \"node:child_process\";\n{before}\n\
         mkdirSync(\"dist\", {{ recursive: true }});\n\
         writeFileSync(\"dist/runtime.js\", \"export const answer = \" + JSON.stringify(globalThis.found ?? null) + \";\\n\");\n\
         writeFileSync(\"dist/runtime.d.ts\", \"export declare const answer: unknown;\\n\");\n"
    )
}

fn project(before: &str) -> Project {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\n");
    project.write("templates/tiny/build.mjs", build_script(before));
    project
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The process ids in a file, once it has so many.
fn pids(file: &Path, count: usize) -> Vec<u32> {
    until("the processes start", || {
        let text = std::fs::read_to_string(file).ok()?;
        let pids: Vec<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        (pids.len() >= count && text.ends_with('\n')).then_some(pids)
    })
}

/// Returns whether a process is there and isn't only waiting to be reaped.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn are_gone(pids: &[u32]) {
    let start = Instant::now();
    while let Some(pid) = pids.iter().find(|pid| is_alive(**pid)) {
        assert!(start.elapsed() < PATIENCE, "the process {pid} of {pids:?} goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) {
    output(Command::new("kill").args([name, &child.id().to_string()])).exits(0);
}

/// Makes a command hear Ctrl-C also where these tests run in a shell's background: what is started there ignores it, and so does all that
/// it starts in turn.
fn hears_interrupts(command: Command) -> Command {
    const SIGINT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.is_none_or(|signals| signals & SIGINT == 0) {
        return command;
    }
    let mut hears = Command::new("env");
    hears.arg("--default-signal=INT").arg(command.get_program()).args(command.get_args());
    hears.current_dir(command.get_current_dir().expect("the project's folder")).stdin(Stdio::null());
    same_variables(&command, &mut hears);
    hears
}

/// A shell that notes its own id and those of a child in the group and of one that has a session of its own, and waits.
fn family(file: &Path) -> String {
    format!(
        "setsid sh -c 'echo $$ >> {0}; exec sleep 600' & sh -c 'echo $$ >> {0}; exec sleep 600' & echo $$ >> {0}; wait",
        file.display()
    )
}

#[test]
fn a_pack_s_build_ends_with_all_that_it_started_when_flotilla_does() {
    for name in ["-INT", "-TERM", "-KILL"] {
        let folder = temporary_folder();
        let file = folder.path().join("pids");
        let start = format!(
            "spawn(\"sh\", [\"-c\", {:?}], {{ detached: true }}); setInterval(() => {{}}, 1000); await new Promise(() => {{}});",
            family(&file)
        );
        let project = project(&start);
        let environment = [cache()];
        let mut child = spawn(hears_interrupts(project.command(&["build"])).envs(environment));
        let pids = pids(&file, 3);
        assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
        signal(&child, name);
        until("flotilla ends", || child.try_wait().expect("a child"));
        are_gone(&pids);
    }
}

#[test]
fn a_source_of_secrets_ends_with_all_that_it_started_when_flotilla_does() {
    for name in ["-TERM", "-KILL"] {
        let folder = temporary_folder();
        let file = folder.path().join("pids");
        let project = tiny();
        project.write("customers/acme.yaml", "id: acme\nsecrets: { TOKEN: { secret: TOKEN } }\n");
        let script = project.path("source.sh");
        std::fs::write(&script, format!("#!/bin/sh\n{}\n", family(&file))).unwrap();
        project.edit(
            "fleet.yaml",
            "packs:",
            "secrets:\n  - command: [sh, source.sh, \"{name}\"]\n    timeout: 600\npacks:",
        );
        let mut child =
            spawn(project.command(&["secrets", "check"]).envs([cache()]).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let pids = pids(&file, 3);
        signal(&child, name);
        until("flotilla ends", || child.try_wait().expect("a child"));
        are_gone(&pids);
    }
}

#[test]
fn what_a_build_leaves_running_is_ended() {
    let folder = temporary_folder();
    let file = folder.path().join("pids");
    let start = format!(
        "spawn(\"sh\", [\"-c\", {:?}], {{ detached: true, stdio: \"ignore\" }}).unref();\n\
         while (!existsSync({1:?})) await new Promise((done) => setTimeout(done, 10));\n\
         await new Promise((done) => setTimeout(done, 300));",
        family(&file),
        file.display().to_string()
    );
    project(&start).run_with(&["build"], &[cache()]).exits(0);
    are_gone(&pids(&file, 3));
}

/// As after `docker exec` or `nsenter`: the leaders of the process group and of the session are outside the container, and the kernel
/// gives 0 as their numbers.
#[test]
fn builds_and_sources_of_secrets_run_where_the_session_has_no_number() {
    let enter = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let inside = |project: &Project, arguments: &[&str]| {
        let command = project.command(arguments);
        let mut entered = Command::new(enter[0]);
        entered.args(&enter[1..]).arg(command.get_program()).args(arguments).current_dir(project.root());
        output(entered.stdin(Stdio::null()).envs([cache()]))
    };
    let probe = Command::new(enter[0]).args(&enter[1..]).arg("true").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("not run: this system gives no PID namespace");
        return;
    }
    let folder = temporary_folder();
    let file = folder.path().join("pids");
    let start = format!(
        "spawn(\"sh\", [\"-c\", {:?}], {{ detached: true, stdio: \"ignore\" }}).unref();\n\
         while (!existsSync({1:?})) await new Promise((done) => setTimeout(done, 10));",
        family(&file),
        file.display().to_string()
    );
    let project = project(&start);
    project.write("customers/acme.yaml", "id: acme\nsecrets: { TOKEN: { secret: TOKEN } }\n");
    project.edit("fleet.yaml", "packs:", "secrets:\n  - command: [echo, \"{name}\"]\npacks:");
    inside(&project, &["build"]).exits(0);
    let found = inside(&project, &["secrets", "check"]).exits(0);
    assert!(found.stdout.contains(": 0 missing"), "{found:?}");
}

fn limited(limit: &str, before: &str) -> Run {
    let project = project(before);
    project.edit("templates/tiny/pack.yaml", "runtime:", &format!("runtime:\n  {limit}"));
    let run = project.run_with(&["build"], &[cache()]).exits(1);
    assert!(!project.path("out").exists());
    run
}

#[test]
fn a_build_has_limits_of_time_and_memory() {
    let run = limited("buildTimeout: 1", "setInterval(() => {}, 1000); await new Promise(() => {});");
    let expected = "error[P0605]: the command that bundles the pack took more than 1 s\n  --> templates/tiny/pack.yaml";
    assert!(run.stderr.contains(expected) && run.stderr.contains("`buildTimeout`"), "{run:?}");
    let run = limited("buildTimeout: 1", "while (true) {}");
    assert!(run.stderr.contains(expected), "{run:?}");
    // In a child of its own, so that the whole tree has to be looked at.
    let greedy = "const all = []; setInterval(() => all.push(Buffer.alloc(40e6, 1)), 10)";
    let start = format!("spawn(\"node\", [\"-e\", {greedy:?}]); await new Promise(() => {{}});");
    let run = limited("buildMemory: 400", &format!("setInterval(() => {{}}, 1000); {start}"));
    let expected = "the command that bundles the pack needed more than 400 MiB of memory";
    assert!(run.stderr.contains(expected) && run.stderr.contains("`buildMemory`"), "{run:?}");
    // An endless message takes no memory of ours, and no pipe is waited for.
    let run = limited(
        "buildTimeout: 5",
        "import { writeSync } from \"node:fs\"; while (true) writeSync(2, \"x\".repeat(65536));",
    );
    assert!(run.stderr.contains("took more than 5 s") && run.stderr.len() < 4096, "{}", run.stderr.len());
}

#[test]
fn a_build_that_crashes_is_a_diagnostic() {
    for (crash, signal) in [("process.abort();", 6), ("process.kill(process.pid, \"SIGKILL\");", 9)] {
        let project = project(&format!("{crash} await new Promise((done) => setTimeout(done, 10_000));"));
        let run = project.run_with(&["build"], &[cache()]).exits(1);
        let expected =
            format!("error[P0605]: the pack's code can't be bundled: the build command was ended by signal {signal}");
        assert!(run.stderr.contains(&expected), "{run:?}");
    }
}

#[test]
fn a_build_sees_only_the_variables_that_it_may() {
    let project =
        project("globalThis.found = Object.keys(process.env).sort().filter((name) => !name.startsWith(\"__CF\"));");
    project.edit("templates/tiny/pack.yaml", "runtime:", "runtime:\n  buildEnv: [RELEASE, NOT_SET]");
    let run = |release: &str| {
        let variables =
            [cache(), ("CLOUDFLARE_API_TOKEN", "s3cret"), ("RELEASE", release), ("LANG", "C"), ("TMPDIR", "/tmp")];
        project.run_with(&["build"], &variables).exits(0);
        bundle(&project)
    };
    let found = run("1");
    assert_eq!(found, "export const answer = [\"HOME\",\"LANG\",\"PATH\",\"RELEASE\",\"TMPDIR\"];\n");
    // The value decides the bundle: it is made again, and not with what others have.
    project.write("templates/tiny/build.mjs", build_script("globalThis.found = process.env.RELEASE;"));
    assert_eq!(run("1"), "export const answer = \"1\";\n");
    assert_eq!(run("2"), "export const answer = \"2\";\n");
    assert_eq!(run("1"), "export const answer = \"1\";\n");
}

/// The text of a project's only bundle.
fn bundle(project: &Project) -> String {
    let mut scripts = project.files("out/runtime").into_iter().filter(|(name, _)| name.ends_with(".js"));
    let (_, bytes) = scripts.next().expect("a bundle");
    assert!(scripts.next().is_none(), "one bundle");
    String::from_utf8(bytes).expect("text")
}

/// Builds a project whose module is this template, or whose partial is.
fn rendered(template: &str) -> (Project, Run) {
    let project = tiny();
    for name in ["acme", "bluebird", "cedar", "dune", "elm"] {
        project.write(&format!("customers/{name}.yaml"), format!("id: {name}\n"));
    }
    project.write("templates/tiny/index.ts.tera", template);
    let run = project.run_with(&["build"], &[cache()]);
    (project, run)
}

#[test]
fn templates_have_limits_of_memory_and_stack() {
    for (template, message) in [
        (
            "{% set x = \"aaaaaaaa\" %}{% for i in range(end=60) %}{% set_global x = x ~ x %}{% endfor %}{{ x }}",
            "rendering it needs more than 512 MiB of memory",
        ),
        (&"[".repeat(300_000), "rendering it overflows the stack"),
    ] {
        let (project, run) = rendered(template);
        let run = run.exits(1);
        assert_eq!(run.stderr.matches(message).count(), 3, "{run:?}");
        assert!(
            run.stderr.contains("error[P0603]") && run.stderr.contains("--> templates/tiny/index.ts.tera"),
            "{run:?}"
        );
        assert!(run.stderr.contains("the pack's other workers are not rendered"), "{run:?}");
        assert!(!project.path("out/production").exists());
    }
}

#[test]
fn a_template_that_never_ends_is_stopped_and_other_packs_are_built() {
    let project = tiny();
    crate::support::copy(&project.path("templates/tiny"), &project.path("templates/other"));
    project.edit("templates/other/pack.yaml", "name: tiny", "name: other");
    project.edit("templates/other/pack.yaml", "prefix: tiny", "prefix: other");
    project.edit("fleet.yaml", "packs:", "packs:\n  other: { path: templates/other }");
    project.write("customers/acme.yaml", "id: acme\npack: other\n");
    project.write("customers/bluebird.yaml", "id: bluebird\npack: tiny\n");
    project.write("customers/cedar.yaml", "id: cedar\npack: other\n");
    let endless = "{% for i in range(end=99999) %}{% for j in range(end=99999) %}{% endfor %}{% endfor %}";
    let wrangler = project.read("templates/other/wrangler.jsonc.tera");
    let when = format!("{{% if worker.customer == \"acme\" %}}{endless}{{% endif %}}{wrangler}");
    project.write("templates/other/wrangler.jsonc.tera", when);
    let run = project.run_with(&["build"], &[cache()]).exits(1);
    let expected = "error[P0603]: rendering it takes more than 5 s\n  --> templates/other/wrangler.jsonc.tera";
    assert!(run.stderr.contains(expected) && run.stderr.contains("customers/acme.yaml"), "{run:?}");
    assert_eq!(run.stderr.matches("error[").count(), 1, "{run:?}");
    let built = project.files("out/production");
    let has = |name: &str| built.keys().any(|path| path.contains(name));
    assert!(has("bluebird") && has("cedar") && !has("acme"), "{:?}", built.keys());
}

#[test]
fn a_killed_build_leaves_no_renderer_and_nothing_of_use_to_others() {
    let cache = temporary_folder();
    let variables = [("FLOTILLA_CACHE_DIR", cache.path().to_str().unwrap())];
    let folder = temporary_folder();
    let file = folder.path().join("pids");
    // The first build writes its bundle where a careless one would be found, and never ends.
    let leave = format!(
        "mkdirSync(\"dist\", {{ recursive: true }}); writeFileSync(\"dist/runtime.js\", \"export const answer = 'theirs';\\n\");\n\
         writeFileSync(\"dist/runtime.d.ts\", \"\"); appendFileSync({:?}, process.pid + \"\\n\");\n\
         setInterval(() => {{}}, 1000); await new Promise(() => {{}});",
        file.display().to_string()
    );
    let theirs = project(&leave);
    let child = spawn(theirs.command(&["build"]).envs(variables).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let pids = pids(&file, 1);
    signal(&child, "-KILL");
    child.wait_with_output().expect("it ends");
    are_gone(&pids);
    // Another project with the same packages, and so with the same folder to work in: it sees none of that.
    let ours = project("globalThis.found = existsSync(\"dist\") ? readdirSync(\"dist\") : \"nothing\";");
    ours.run_with(&["build"], &variables).exits(0);
    assert_eq!(bundle(&ours), "export const answer = \"nothing\";\n");
}

#[test]
fn two_fleets_never_share_a_bundle_and_a_bundle_that_was_changed_is_made_again() {
    let cache = temporary_folder();
    let variables = [("FLOTILLA_CACHE_DIR", cache.path().to_str().unwrap())];
    let (first, second) = (project(""), project(""));
    second.edit("fleet.yaml", "name: test", "name: other");
    let bundles = || {
        let names = std::fs::read_dir(cache.path().join("runtime")).expect("bundles").flatten();
        let mut folders: Vec<_> = names.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    };
    first.run_with(&["build"], &variables).exits(0);
    assert_eq!(bundles().len(), 1);
    second.run_with(&["build"], &variables).exits(0);
    assert_eq!(bundles().len(), 2, "the sources are the same, the fleets are not");
    let built = first.files("out/runtime");
    for bundle in bundles() {
        std::fs::write(bundle.join("runtime.js"), "export const answer = 'evil';\n").unwrap();
    }
    for (project, name) in [(&first, "acme"), (&second, "acme")] {
        std::fs::remove_dir_all(project.path("out")).unwrap();
        project.run_with(&["build", name], &variables).exits(0);
        assert_eq!(project.files("out/runtime"), built);
    }
    let text = std::fs::read_to_string(bundles()[0].join("runtime.js")).unwrap();
    assert!(!text.contains("evil"), "{text}");
}

#[test]
fn a_cache_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let cache = temporary_folder();
    let variables = [("FLOTILLA_CACHE_DIR", cache.path().to_str().unwrap())];
    let project = project("");
    let set = |mode: u32| std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o777);
    let run = project.run_with(&["build"], &variables).exits(5);
    let expected =
        ["is not safe to use: it can be written by other users (mode 777)", "chmod go-w", "FLOTILLA_CACHE_DIR"];
    assert!(expected.iter().all(|part| run.stderr.contains(part)), "{run:?}");
    assert!(!project.path("out").exists());
    set(0o700);
    project.run_with(&["build"], &variables).exits(0);
}

/// The environment of a CI job's container: the user is root, and HOME belongs to another one.
#[test]
fn a_home_of_another_user_has_the_cache_among_the_temporary_files() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let folders = tempfile::tempdir().unwrap();
    let (home, temporary) = (folders.path().join("home"), folders.path().join("tmp"));
    let project = project("");
    std::fs::create_dir(&temporary).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let run = |home: &std::path::Path, arguments: &[&str]| {
        let mut command = project.command(arguments);
        command.env_remove("FLOTILLA_CACHE_DIR").env_remove("XDG_CACHE_HOME");
        output(command.env("HOME", path(home)).env("TMPDIR", path(&temporary)))
    };
    let uid = std::fs::metadata(&temporary).unwrap().uid();
    let instead = temporary.join(format!("flotilla-{uid}"));
    // A HOME that can't be written, and one of another user; only the administrator can give folders away.
    let mut homes = vec![std::path::PathBuf::from("/dev/null")];
    if uid == 0 {
        std::fs::create_dir(&home).unwrap();
        chown(&home, Some(12345), Some(12345)).unwrap();
        chown(project.path(""), Some(12345), Some(12345)).unwrap();
        homes.push(home.clone());
    }
    for home in &homes {
        let _ = std::fs::remove_dir_all(project.path(".flotilla"));
        let built = run(home, &["build"]).exits(0);
        let says = format!("it is in {} instead", instead.display());
        assert_eq!(built.stderr.matches(&says).count(), 1, "{built:?}");
        assert!(instead.join("user.key").exists(), "{built:?}");
        // It is used again.
        let again = run(home, &["build", "--json"]).exits(0);
        assert!(again.stdout.contains("\"rendered\":0"), "{again:?}");
        assert!(!project.path(".flotilla/cache").exists());
    }
    // A folder of somebody else in its place is refused, and so is one that is named and can't be trusted.
    if uid == 0 {
        chown(&instead, Some(12345), Some(12345)).unwrap();
        std::fs::remove_dir_all(project.path(".flotilla")).unwrap();
        let refused = run(&home, &["build"]).exits(5);
        assert!(refused.stderr.contains("belongs to another user (uid 12345)"), "{refused:?}");
    }
}

#[test]
fn a_build_log_of_another_user_is_rendered_anew_once_and_hides_no_edit() {
    use flotilla_build::manifest::{Manifest, Stamp, Writer};
    use flotilla_model::digest::Digest;
    let cache = tempfile::tempdir().unwrap();
    let project = project("");
    project.run(&["build"]).exits(0);
    // What was remembered is changed, so that it says that an edited file is what was rendered; the writer has the tests' own key.
    let plant = || {
        let mut manifest = Manifest::read(&project.path(""));
        let writer = Writer::new(&project.path(""), &mut manifest, true);
        let mut records: Vec<_> = manifest.records.values().cloned().collect();
        assert!(!records.is_empty());
        for record in &mut records {
            for rendering in record.units.iter_mut().filter_map(|unit| unit.rendered.as_mut()) {
                for output in rendering.outputs.iter_mut().filter(|output| output.name == "index.ts") {
                    let path = project.path("out/production/acme/index.ts");
                    let edited = format!("{}// edited\n", std::fs::read_to_string(&path).unwrap());
                    std::fs::write(&path, &edited).unwrap();
                    output.content = Digest::of(edited.as_bytes()).short_hash();
                    output.stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
                }
            }
        }
        records.into_iter().for_each(|record| writer.record(record));
        assert!(writer.settle().is_none());
    };
    plant();
    // Whoever has the key believes it: that is what the seal is for.
    project.run(&["build", "--check"]).exits(0);
    let theirs = [("FLOTILLA_CACHE_DIR", cache.path().to_str().unwrap())];
    let checked = project.run_with(&["build", "--check"], &theirs).exits(3);
    assert!(checked.stdout.contains("1 to write"), "{checked:?}");
    project.run_with(&["build"], &theirs).exits(0);
    assert!(!project.read("out/production/acme/index.ts").contains("// edited"));
    let again = project.run_with(&["build", "--json"], &theirs).exits(0);
    assert!(again.stdout.contains("\"rendered\":0"), "{again:?}");
}
