//! Shows: the forms of what `check` finds. SARIF is valid by its official schema, GitHub's commands are one for each
//! diagnostic, ten thousand errors are told in a hundred blocks, the summary is Markdown; and hostile names and
//! texts mean nothing in any of them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;

use flotilla_model::diagnostic::Code;
use flotilla_model::progress::Progress;
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::cases::{cache, tiny};
use crate::support::{Project, Run, copy, repository};

/// A name that would be something else in each of the forms.
const HOSTILE: &str = "a\n::error::x%0A,b|`c`<img src=x>\x1b[31m\u{202e}.yaml";

/// What the tests of forms are made with: all kinds of places, related ones, suppressed ones, whole files.
fn mistaken() -> Project {
    let project = tiny();
    let fleet = project.read("fleet.yaml");
    project.write(
        "fleet.yaml",
        fleet + "diagnostics:\n  - { code: N0309, customers: [quiet], severity: off, reason: 'a `b` | c' }\n",
    );
    project.write("customers/acme.yaml", "id: acme\nlogLevel: loud\nlogLevel: info\ndomains: [shop.example.com]\n");
    project.write("customers/bluebird.yaml", "id: bluebird\ndomains: [shop.example.com]\n");
    project.write("customers/café.yaml", "id: acme\n");
    project.write("customers/empty.yaml", "");
    project.write("customers/quiet.yaml", "id: quiet\nworkersDev: false\n");
    project.write("customers/still.yaml", "id: still\nworkersDev: false\n");
    project.write(&format!("customers/{HOSTILE}"), "id: |\n  x\n  ::error::y\n\"k%0A|`<b>\\e[31m\\n::z\": 1\n");
    project
}

struct Told;

impl Progress for Told {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn step(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
}

/// The schema of SARIF 2.1.0, from the npm package of its authors that brings it.
fn sarif() -> &'static Validator {
    static SCHEMA: OnceLock<Validator> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let (package, lock) = (include_bytes!("../sarif/package.json"), include_bytes!("../sarif/package-lock.json"));
        let folder: PathBuf = flotilla_model::cache::npm("the tests of SARIF", package, lock, &Told)
            .unwrap_or_else(|failure| panic!("{failure}; {}", failure.hints.join("; ")));
        let path = folder.join("node_modules/@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json");
        let text = std::fs::read_to_string(path).expect("the schema");
        // One pattern has a lone `]`, which JavaScript takes for itself and others don't.
        let schema: Value = serde_json::from_str(&text.replace("{2}]?$", "{2}\\\\]?$")).expect("JSON");
        assert!(schema["title"].as_str().is_some_and(|title| title.contains("SARIF) Version 2.1.0")), "{schema}");
        // It is written for draft 4 and names the formats of draft 7, such as `uri-reference`.
        let options = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true);
        options.build(&schema).expect("a schema")
    })
}

fn wrong(log: &Value) -> Vec<String> {
    sarif().iter_errors(log).map(|error| format!("{} {error}", error.instance_path())).collect()
}

#[test]
fn sarif_is_valid_by_its_official_schema() {
    let project = mistaken();
    let log = project.run(&["check", "--format", "sarif"]).exits(1).json();
    assert_eq!(wrong(&log), [""; 0]);
    // That the schema would find something.
    for (pointer, bad) in [
        ("/runs/0/results/0/level", json!("fatal")),
        ("/runs/0/results/0/locations/0/physicalLocation/artifactLocation/uri", json!("a b")),
        ("/runs/0/tool/driver/rules/0/helpUri", json!("docs/reference/diagnostics.md")),
        ("/runs/0/columnKind", json!("bytes")),
    ] {
        let mut broken = log.clone();
        match broken.pointer_mut(pointer) {
            Some(value) => *value = bad,
            None => broken["runs"][0]["tool"]["driver"]["rules"][0]["helpUri"] = bad,
        }
        assert!(!wrong(&broken).is_empty(), "{pointer}");
    }
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), Code::ALL.len());
    let results = run["results"].as_array().unwrap();
    let fingerprints: HashSet<&str> =
        results.iter().map(|result| result["partialFingerprints"]["flotilla/v1"].as_str().unwrap()).collect();
    assert_eq!(fingerprints.len(), results.len());
    for result in results {
        assert_eq!(rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"], result["ruleId"]);
    }
    let of = |code: &str, file: &str| {
        let there = |result: &&Value| {
            let location = &result["locations"][0]["physicalLocation"]["artifactLocation"];
            result["ruleId"] == code && location["uri"].as_str().is_some_and(|uri| uri.ends_with(file))
        };
        results.iter().find(there).unwrap_or_else(|| panic!("no {code} in {file}: {results:#?}"))
    };
    let domain = of("N0302", "customers/acme.yaml");
    let region = &domain["locations"][0]["physicalLocation"]["region"];
    assert_eq!(*region, json!({"startLine": 4, "startColumn": 11, "endColumn": 27}));
    let related = &domain["relatedLocations"][0];
    assert_eq!(related["physicalLocation"]["artifactLocation"]["uri"], "customers/bluebird.yaml");
    assert_eq!(related["message"]["text"], "claimed here by bluebird (production)");
    let empty = &of("Y0105", "customers/empty.yaml")["locations"][0]["physicalLocation"];
    assert!(empty.get("region").is_none(), "{empty}");
    of("S0207", "customers/caf%C3%A9.yaml");
    of("S0201", ".yaml");
    // Turned off, it is there, and not counted.
    let quiet = of("N0309", "customers/quiet.yaml");
    assert_eq!(
        quiet["suppressions"],
        json!([{"kind": "external", "status": "accepted", "justification": "a `b` | c"}])
    );
    assert!(of("N0309", "customers/still.yaml").get("suppressions").is_none());
}

#[test]
fn sarif_of_a_fleet_without_mistakes_and_of_one_that_cannot_be_read() {
    let project = Project::sample();
    let log = project.run(&["--format", "sarif", "check"]).exits(0).json();
    assert_eq!(wrong(&log), [""; 0]);
    assert_eq!(log["runs"][0]["results"], json!([]));
    project.write("fleet.yaml", "nam: x\n");
    let log = project.run(&["check", "--format", "sarif"]).exits(1).json();
    assert_eq!(wrong(&log), [""; 0]);
    assert!(!log["runs"][0]["results"].as_array().unwrap().is_empty());
}

#[test]
fn fingerprints_stay_when_lines_shift() {
    let project = mistaken();
    let of = |project: &Project| -> HashSet<String> {
        let log = project.run(&["check", "--format", "sarif"]).exits(1).json();
        let results = log["runs"][0]["results"].as_array().unwrap().clone();
        results.iter().map(|result| result["partialFingerprints"].to_string()).collect()
    };
    let before = of(&project);
    let text = project.read("customers/acme.yaml");
    project.write("customers/acme.yaml", format!("# A comment\n\n{text}"));
    assert_eq!(of(&project), before);
}

#[test]
fn github_gets_a_command_for_each_diagnostic() {
    let project = mistaken();
    let diagnostics = project.run(&["check", "--format", "json"]).exits(1).json();
    let Run { stdout, stderr, .. } = project.run(&["check", "--format", "github"]).exits(1);
    let lines: Vec<&str> = stdout.lines().collect();
    let count = |name: &str| diagnostics[name].as_u64().unwrap() as usize;
    let of = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!((of("::error file="), of("::warning file=")), (count("errors"), count("warnings")), "{stdout}");
    assert_eq!(lines.len(), count("errors") + count("warnings"), "{stdout}");
    let domain = lines.iter().find(|line| line.contains("file=customers/acme.yaml,title=N0302")).expect("a command");
    assert!(domain.contains(",line=4,endLine=4,col=11,endColumn=27::the domain `shop.example.com` is"), "{domain}");
    assert!(
        domain.contains("%0Acustomers/bluebird.yaml:2:11: claimed here by bluebird (production)%0Ahelp: "),
        "{domain}"
    );
    assert!(stderr.ends_with("1 suppressed\n") && stderr.starts_with("checked 7 customers: "), "{stderr}");
    // In a folder of a repository, paths begin at its root.
    std::fs::create_dir(project.path(".git")).unwrap();
    std::fs::create_dir(project.path("fleet")).unwrap();
    for name in ["fleet.yaml", "customers", "templates"] {
        std::fs::rename(project.path(name), project.path("fleet").join(name)).unwrap();
    }
    let below = project.run(&["check", "--format", "github", "--project", "fleet"]).exits(1).stdout;
    assert_eq!(below, stdout.replace(" file=", " file=fleet/"));
}

#[test]
fn other_commands_say_that_they_have_no_such_format() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\n");
    for format in ["github", "sarif"] {
        for command in ["build", "plan", "deploy", "show", "explain", "status"] {
            let run = project.run(&[command, "--format", format]).exits(2);
            assert!(run.stderr.contains("only `flotilla check` supports github and sarif"), "{}", run.stderr);
            assert_eq!(run.stdout, "");
        }
    }
}

#[test]
fn hostile_text_drives_nothing() {
    let project = mistaken();
    for format in ["text", "json", "github", "sarif"] {
        let run = project.run(&["check", "--format", format, "--summary", "summary.md"]).exits(1);
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(['\x1b', '\r']), "{format}: {text:?}");
        }
        let hidden = [&run.stdout, &run.stderr].iter().all(|text| !text.contains('\u{202e}'));
        assert!(hidden, "{format}: {run:#?}");
        let plain = run.stderr.lines().chain(run.stdout.lines());
        let commands = plain.filter(|line| line.starts_with("::")).count();
        assert_eq!(commands > 0, format == "github", "{format}");
        assert!(!run.stdout.lines().any(|line| line.starts_with("::error::")), "{}", run.stdout);
    }
    let summary = project.read("summary.md");
    assert!(!summary.contains(['\x1b', '\u{202e}', '\r']), "{summary}");
    assert!(!summary.contains("<img") && !summary.contains("\n::error"), "{summary}");
    for row in summary.lines().filter(|line| line.starts_with("| error") || line.starts_with("| warning")) {
        assert_eq!(row.matches('|').count(), 6, "{row}");
    }
}

#[test]
fn ten_thousand_errors_are_told_in_a_hundred_blocks() {
    let project = tiny();
    for at in 0..10_000 {
        let mistake = match at {
            7 => "logLevel: loud".to_owned(),
            _ if at % 10 == 0 => format!("domains: [\"bad {at}\"]"),
            _ => "trusted_origins: []".to_owned(),
        };
        project.write(&format!("customers/c{at:05}.yaml"), format!("id: c{at:05}\n{mistake}\n"));
    }
    let Run { stderr, stdout, .. } = project.run(&["check"]).exits(1);
    assert_eq!(stdout, "checked 10000 customers: 10000 errors\n");
    let blocks = stderr.lines().filter(|line| line.starts_with("error[")).count();
    assert!((5..=100).contains(&blocks), "{blocks}:\n{stderr}");
    assert!(stderr.len() < 32 << 10, "{}", stderr.len());
    assert!(stderr.contains("… and 8,997 more like it, in 8,997 files"), "{stderr}");
    // What there is one of is not lost.
    assert!(stderr.contains("error[S0204]: `logLevel` can't be \"loud\""), "{stderr}");
    for row in [
        "S0201   8,999  8,999  An unknown key",
        "N0301   1,000  1,000  A custom domain",
        "S0204       1      1  A value that",
    ] {
        assert!(stderr.contains(row), "no {row:?} in\n{stderr}");
    }
}

#[test]
fn a_summary_is_appended() {
    let project = mistaken();
    project.write("summary.md", "Before");
    project.run(&["check", "--summary", "summary.md"]).exits(1);
    let check = project.read("summary.md");
    assert!(check.starts_with("Before\n### flotilla check: "), "{check}");
    assert!(check.contains("\n7 customers · 1 suppressed\n"), "{check}");
    assert!(check.contains("| error | N0302 | 1 | <code>customers/acme.yaml&#58;4&#58;11</code> | "), "{check}");
    project.run_with(&["build", "--summary", "summary.md"], &[cache()]).exits(1);
    let build = project.read("summary.md");
    let build = build.strip_prefix(&check).expect("what stood there stays");
    assert!(build.starts_with("\n### flotilla build: ") && build.contains(" written · 0 removed · "), "{build}");
    assert!(build.contains("customers with errors") && build.contains("| error | N0302 |"), "{build}");
    // Also when nothing could be built.
    project.write("fleet.yaml", "nam: x\n");
    project.run_with(&["build", "--summary", "stopped.md"], &[cache()]).exits(1);
    let stopped = project.read("stopped.md");
    assert!(stopped.contains("\nnothing was changed\n") && stopped.contains("| error | S0201 |"), "{stopped}");
    // And one that can't be written is told.
    let run = project.run(&["check", "--summary", "missing/summary.md"]).exits(1);
    assert!(run.stderr.contains("the summary can't be written to missing/summary.md"), "{}", run.stderr);
}

#[test]
fn no_form_tells_a_secret() {
    let project = tiny();
    copy(&repository().join("tests/cases/s0206-everywhere/customers"), &project.path("customers"));
    // On the line of a claim that another customer's diagnostic shows, before and after it.
    let one_line = "{ id: bluebird, tokn: hunter2canary, domains: [shop.example.com], tken: hunter2canary }\n";
    project.write("customers/bluebird.yaml", one_line);
    project.write("customers/cafe.yaml", "id: cafe\ndomains: [shop.example.com]\n");
    for format in ["text", "json", "github", "sarif"] {
        for customers in [&[][..], &["cafe"], &["acme"], &["bluebird"]] {
            let run = project.run(&[&["check", "--summary", "summary.md", "--format", format], customers].concat());
            assert!(!format!("{run:?}").contains("hunter2canary"), "{format} {customers:?}: {}", run.stderr);
        }
    }
    let shown = project.run(&["check", "cafe"]).exits(1).stderr;
    assert!(shown.contains("::: customers/bluebird.yaml:1:48: claimed here by bluebird (production)"), "{shown}");
    assert!(!project.read("summary.md").contains("hunter2canary"));
}
