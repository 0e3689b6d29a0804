//! Shows: each code has a section in docs/reference/diagnostics.md, `flotilla explain` prints it, and the examples there are true: the
//! wrong ones give the code, and the right ones give nothing.

use std::collections::BTreeMap;

use flotilla_model::diagnostic::Code;
use flotilla_model::explanation::{Example, explanation};
use serde_json::Value;

use crate::cases::{cache, tiny};
use crate::folders::temporary_folder;
use crate::support::{Project, repository};

/// The codes that files of these cause, and nothing a few lines of text can show.
const WITHOUT_EXAMPLE: [&str; 20] = [
    "Y0101", "Y0102", "Y0103", "Y0104", "Y0109", "Y0110", "S0215", "L0402", "L0403", "L0409", "L0411", "L0412",
    "F0501", "F0502", "F0508", "P0608", "P0610", "P0611", "P0613", "P0621",
];

/// The codes that another command than `check` gives, and that command.
const OF_COMMANDS: [(&str, &[&str]); 2] = [("S0220", &["preview", "up", "--id", "7"]), ("S0221", &["plan"])];

/// The codes of packs that `check` gives, as their examples can't be built without packages of npm.
const OF_CHECK: [&str; 6] = ["P0606", "P0607", "P0609", "P0612", "P0615", "P0620"];

/// The codes that a command gives for a project of these files; `check`, unless another is named.
fn codes(examples: &[Example], command: Option<&[&str]>, is_checked: bool) -> Vec<String> {
    // The real pack for specs, the tiny one for templates: it is bundled without npm packages.
    let pack = examples.iter().any(|example| example.file.starts_with("templates/"));
    let project = if pack { tiny() } else { Project::empty() };
    if examples.iter().all(|example| !example.file.starts_with("customers/")) {
        project.write("customers/acme.yaml", "id: acme\n");
    }
    for example in examples {
        project.write(example.file, example.text);
    }
    if (pack && !is_checked) || command.is_some() {
        let told = project.run_with(command.unwrap_or(&["build"]), &[cache()]).stderr;
        let code = |line: &str| Some(line.strip_prefix("error[")?.split_once(']')?.0.to_owned());
        return told.lines().filter_map(code).collect();
    }
    let report = project.run(&["check", "--format", "json"]).json();
    report["diagnostics"].as_array().unwrap().iter().map(|told| told["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn examples_are_what_they_say() {
    let mut wrong = BTreeMap::new();
    std::thread::scope(|scope| {
        let ones: Vec<_> = Code::ALL
            .chunks(Code::ALL.len().div_ceil(4))
            .map(|codes| {
                scope.spawn(move || {
                    codes.iter().filter_map(|code| Some((code.as_str(), differs(*code)?))).collect::<Vec<_>>()
                })
            })
            .collect();
        for one in ones {
            wrong.extend(one.join().expect("no example panics"));
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn differs(code: Code) -> Option<String> {
    let told = explanation(code);
    if told.wrong.is_empty() != WITHOUT_EXAMPLE.contains(&code.as_str()) {
        return Some("an example is missing, or one more code has one".to_owned());
    }
    if told.wrong.is_empty() {
        return None;
    }
    let command = OF_COMMANDS.iter().find(|(own, _)| *own == code.as_str()).map(|(_, command)| *command);
    let is_checked = OF_CHECK.contains(&code.as_str());
    let (wrong, right) = (codes(&told.wrong, command, is_checked), codes(&told.right, command, is_checked));
    let only = |found: &str| found == code.as_str();
    let good = !wrong.is_empty() && wrong.iter().all(|found| only(found)) && right.is_empty();
    (!good).then(|| format!("the wrong example gives {wrong:?}, the right one {right:?}"))
}

#[test]
fn explain_prints_a_section_or_the_list() {
    // No project is needed.
    let elsewhere = temporary_folder();
    let project = Project::empty();
    let run = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        crate::support::output(command.current_dir(elsewhere.path()))
    };
    let text = run(&["explain", "s0201"]).exits(0).stdout;
    assert!(text.starts_with("S0201 (error)\n\nAn unknown key.\n\nWhy: "), "{text}");
    assert!(text.contains("\n    trusted_origins: [https://acme.example]\n") && !text.contains("```"), "{text}");
    let json = run(&["explain", "S0201", "--format", "json"]).exits(0).json();
    assert_eq!(json["wrong"][0]["file"], "customers/acme.yaml");
    assert_eq!(json["severity"], "error");
    for key in ["code", "meaning", "why", "fix", "right"] {
        assert!(!json[key].is_null(), "{key}");
    }
    let list = run(&["explain"]).exits(0).stdout;
    assert_eq!(list.lines().count(), Code::ALL.len());
    assert!(list.contains("N0309  warning  A worker that nothing can reach"), "{list}");
    let codes = run(&["explain", "--format", "json"]).exits(0).json();
    assert_eq!(codes["codes"].as_array().map(Vec::len), Some(Code::ALL.len()));
    assert!(codes["codes"].as_array().unwrap().iter().all(|code| code["meaning"].is_string()));
    // Near, far, and no code at all.
    let near = run(&["explain", "S021"]).exits(2).stderr;
    assert!(near.contains("there is no code `S021`") && near.contains("did you mean `S0201`?"), "{near}");
    let far = run(&["explain", "s9876", "--format", "json"]).exits(2).json();
    assert_eq!(far["error"], "there is no code `s9876`");
    project.write("customers/bolt.yaml", "id: bolt\n");
    let customer = project.run(&["explain", "acme"]).exits(2).stderr;
    assert!(customer.contains("there is no customer and no code `acme`"), "{customer}");
}

#[test]
fn each_code_is_told_as_bad_as_it_is_by_itself() {
    let mut seen = 0;
    for entry in std::fs::read_dir(repository().join("tests/cases")).unwrap() {
        let folder = entry.unwrap().path();
        // Where fleet.yaml makes warnings errors.
        if folder.file_name().unwrap().to_string_lossy().contains("policy") {
            continue;
        }
        for line in std::fs::read_to_string(folder.join("stderr")).unwrap_or_default().lines() {
            let Some((severity, code)) = line.split_once("]: ").and_then(|(head, _)| head.split_once('[')) else {
                continue;
            };
            let Some(code) = Code::parse(code) else { continue };
            let own: Value = serde_json::to_value(code.severity()).unwrap();
            assert_eq!(own, severity, "{}: {line}", folder.display());
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} seen");
}
