//! Shows: the commands that only print: show, help; and that the README speaks of commands and options that exist.

use flotilla_spec::yaml;
use serde_json::json;

use crate::support::{Project, repository};

#[test]
fn show_prints_what_holds_in_an_environment() {
    let project = Project::sample();
    let shown = project.run(&["show", "kestrel", "--env", "staging"]).exits(0).stdout;
    let (document, mistakes) = yaml::parse("shown", shown.as_bytes());
    assert_eq!(mistakes, vec![]);
    let worker = document.expect("a document").root.to_value();
    // Of the environment, of the spec, of the defaults, and derived.
    assert_eq!(worker["logLevel"], "debug");
    assert_eq!(worker["vars"], json!({"TURSO_DATABASE_URL": "libsql://kestrel-staging.turso.io"}));
    assert_eq!(worker["labels"], json!({"tier": "gold", "region": "eu"}));
    assert_eq!(worker["compatibilityDate"], "2026-06-01");
    assert_eq!(worker["name"], "c15t-kestrel-staging");
    // The pixel exists in production alone.
    let names: Vec<_> = worker["destinations"].as_array().expect("a list").iter().map(|d| &d["name"]).collect();
    assert_eq!(names, ["Web analytics", "Product analytics"]);
    let all = project.run(&["show", "kestrel", "--format", "json"]).exits(0).json();
    assert_eq!(all["workers"].as_array().map(Vec::len), Some(2));
    let mut all = all["workers"].as_array().expect("a list").clone();
    for shown in &mut all {
        // Where each value stands is behind it in the text.
        shown.as_object_mut().expect("an object").remove("origins").expect("places");
        // And the six core pieces above it.
        shown.as_object_mut().expect("an object").remove("core").expect("pieces");
    }
    assert!(all.contains(&worker));
}

#[test]
fn the_readme_names_commands_and_options_that_exist() {
    let project = Project::empty();
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md");
    let mut seen = 0;
    for code in readme.split('`').skip(1).step_by(2).chain(readme.lines().filter_map(|line| line.strip_prefix("    ")))
    {
        let Some(words) = code.strip_prefix("flotilla ").or_else(|| code.strip_prefix("cargo run --release -- "))
        else {
            continue;
        };
        let mut words = words.split_whitespace();
        let command = words.next().expect("a command");
        let help = project.run(&[command, "--help"]).exits(0).stdout;
        for option in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "`{code}`: {command} has no {option}");
        }
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} commands found");
}
