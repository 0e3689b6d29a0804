//! The workflow of GitHub Actions that `flotilla init --ci github` writes: a text, made of what the fleet refers to.
//! Reads and writes nothing.

use std::collections::BTreeSet;

use flotilla_import::yaml_text;

/// The services that workflows are written for.
#[derive(Clone, Copy, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Ci {
    Github,
}

/// The actions, each pinned to the commit of a release.
const ACTIONS: [(&str, &str); 4] = [
    ("CHECKOUT", "3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"),
    ("SETUP-NODE", "820762786026740c76f36085b0efc47a31fe5020 # v7.0.0"),
    ("CACHE", "27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5"),
    ("UPLOAD-SARIF", "8aad20d150bbac5944a9f9d289da16a4b0d87c1e # v4.36.2"),
];

/// Returns the pinned version of an action.
pub fn action(name: &str) -> String {
    ACTIONS.iter().find(|(known, _)| *known == name).map_or_else(String::new, |(_, version)| (*version).to_owned())
}

/// The most secrets of customers that are listed one by one; a repository holds no more than 100.
const LISTED: usize = 60;

/// The values that a workflow is rendered from.
pub struct Workflow<'a> {
    /// The project's folder from the repository's root, with `/`; empty if that is the same.
    pub folder: &'a str,
    /// The command that installs flotilla.
    pub install: Option<&'a str>,
    /// The variables with the accounts' ids.
    pub ids: BTreeSet<&'a str>,
    /// The secrets with the accounts' tokens.
    pub tokens: BTreeSet<&'a str>,
    /// The secrets that customers refer to.
    pub secrets: BTreeSet<&'a str>,
}

/// Returns the text of the workflow that checks, plans and deploys.
pub fn github(workflow: &Workflow<'_>) -> String {
    let prepare = include_str!("init/prepare.yml").replace("STATE\n", include_str!("init/state.yml"));
    filled(workflow, &include_str!("init/github.yml").replace("PREPARE\n", &prepare))
}

/// Returns the text of the workflow that creates and deletes previews of pull requests.
pub fn previews(workflow: &Workflow<'_>) -> String {
    // What is deployed is asked of the cloud.
    let prepare = include_str!("init/prepare.yml").replace("STATE\n", "");
    let checkout = "          persist-credentials: false\n";
    let is_hint =
        |line: &&str| line.trim_start().starts_with("# One commit is enough") || line.contains("git fetch --depth=1");
    let prepare: String = prepare.split_inclusive('\n').filter(|line| !is_hint(line)).collect();
    let at = |more: &str| prepare.replace(checkout, &format!("{more}{checkout}"));
    // The merge and the branch that it goes into; or that branch alone.
    let merge = at("          fetch-depth: 2\n");
    let base = at("          ref: ${{ github.event.pull_request.base.ref }}\n");
    let text = include_str!("init/previews.yml");
    filled(workflow, &text.replace("PREPARE-BASE\n", &base).replace("PREPARE\n", &merge))
}

/// Renders a workflow.
fn filled(workflow: &Workflow<'_>, text: &str) -> String {
    let entries = |names: &mut dyn Iterator<Item = &&str>| {
        names.map(|name| format!("          {name}: ${{{{ secrets.{name} }}}}\n")).collect::<String>()
    };
    let (ids, tokens) = (&workflow.ids, &workflow.tokens);
    let others: BTreeSet<&str> = &(&workflow.secrets - tokens) - ids;
    let alone = entries(&mut tokens.difference(ids));
    let mut listed = alone.clone();
    match others.len() {
        0 => {}
        1..=LISTED => {
            listed += "          # What the customers refer to.\n";
            listed += &entries(&mut others.iter());
        }
        number => {
            listed += &format!(
                "          # The customers refer to {number} secrets, too many to list here: put them into FLOTILLA_SECRETS.\n"
            );
        }
    }
    let prefix = match workflow.folder {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let install = match workflow.install {
        // On the runner already: flotilla is in no registry.
        None => include_str!("init/installed.yml").to_owned(),
        Some(command) => {
            let lines = command.lines().chain(["flotilla --version"]);
            let lines: String = lines.map(|line| format!("          {line}").trim_end().to_owned() + "\n").collect();
            let head =
                "      - name: Install flotilla\n        working-directory: ${{ github.workspace }}\n        run: |\n";
            format!("{head}{lines}")
        }
    };
    let mut text = text.to_owned();
    for (name, pinned) in ACTIONS {
        text = text.replace(&format!("@{name}\n"), &format!("@{pinned}\n"));
    }
    // What comes from the project comes last, so that nothing in it is taken for a place to fill.
    let fills = [
        ("IDS\n", entries(&mut ids.iter())),
        ("TOKENS\n", listed),
        ("TOKENS-ALONE\n", alone),
        ("INSTALL\n", install),
        (": PREFIX.flotilla\n", format!(": {}\n", scalar(&format!("{prefix}.flotilla")))),
        (": DIRECTORY\n", format!(": {}\n", scalar(if prefix.is_empty() { "." } else { workflow.folder }))),
    ];
    fill(&text, &fills)
}

/// Replaces the placeholders of a text in one pass.
fn fill(text: &str, fills: &[(&str, String)]) -> String {
    let mut filled = String::with_capacity(2 * text.len());
    for line in text.split_inclusive('\n') {
        match fills.iter().find(|(place, _)| line.ends_with(place)) {
            Some((place, with)) => {
                filled += line.trim_end_matches(place);
                filled += with;
            }
            None => filled += line,
        }
    }
    // A job whose ids stand in the fleet itself needs none.
    filled.replace("        env:\n        run:", "        run:")
}

/// Returns a text as a scalar of YAML that is nothing but text, and no expression of GitHub's.
fn scalar(text: &str) -> String {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
        && (text == "." || text.contains(|c: char| c.is_ascii_alphabetic()))
        && !text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && !words.contains(&text.to_ascii_lowercase().as_str());
    match plain {
        true => text.to_owned(),
        false => yaml_text::quoted(&text.replace("${{", "${{ '${{' }}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Arguments;

    fn workflow() -> Workflow<'static> {
        Workflow {
            folder: "",
            install: None,
            ids: BTreeSet::from(["CLOUDFLARE_ACCOUNT_ID"]),
            tokens: BTreeSet::from(["CLOUDFLARE_API_TOKEN"]),
            secrets: BTreeSet::from(["TURSO_AUTH_TOKEN", "CLOUDFLARE_API_TOKEN"]),
        }
    }

    #[test]
    fn each_command_in_it_is_one_that_flotilla_takes() {
        let text = github(&workflow());
        let mut seen = Vec::new();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let command = line.trim_start().trim_start_matches("run: ").split(" > ").next().unwrap_or_default();
            let command = command.split(" || ").next().unwrap_or_default().trim_end_matches(" \\");
            if !command.starts_with("flotilla ") || command == "flotilla --version" {
                continue;
            }
            let words: Vec<&str> = command.split_whitespace().collect();
            if let Err(error) = Arguments::try_parse_from(&words) {
                panic!("{command}: {error}");
            }
            seen.push(words[1]);
        }
        assert_eq!(seen, ["check", "check", "build", "build", "plan", "build", "deploy", "plan"]);
    }

    #[test]
    fn every_place_is_filled() {
        let text = github(&workflow());
        for place in ["PREPARE", "INSTALL\n", "IDS\n", "TOKENS\n", "PREFIX", "DIRECTORY", "@C", "@S", "@U"] {
            assert!(!text.contains(place), "{place}");
        }
        assert_eq!(text.matches("TURSO_AUTH_TOKEN: ${{ secrets.TURSO_AUTH_TOKEN }}").count(), 1);
        assert_eq!(text.matches("CLOUDFLARE_ACCOUNT_ID: ${{ secrets.CLOUDFLARE_ACCOUNT_ID }}").count(), 2);
        assert_eq!(text.matches("CLOUDFLARE_API_TOKEN: ${{ secrets.CLOUDFLARE_API_TOKEN }}").count(), 1);
    }

    #[test]
    fn every_place_of_that_of_previews_is_filled() {
        let text = previews(&Workflow { folder: "my fleet", ..workflow() });
        for place in ["PREPARE", "INSTALL\n", "IDS\n", "TOKENS", "STATE", "DIRECTORY", "@C", "@S", "@U"] {
            assert!(!text.contains(place), "{place}");
        }
        assert!(text.contains("working-directory: \"my fleet\"\n"));
        // Where it is taken down, no secret of a customer is there.
        assert_eq!(text.matches("TURSO_AUTH_TOKEN: ${{ secrets.TURSO_AUTH_TOKEN }}").count(), 1);
        assert_eq!(text.matches("CLOUDFLARE_API_TOKEN: ${{ secrets.CLOUDFLARE_API_TOKEN }}").count(), 3);
        assert_eq!(text.matches("fetch-depth: 2\n").count(), 2);
        assert_eq!(text.matches("ref: ${{ github.event.pull_request.base.ref }}\n").count(), 1);
    }

    #[test]
    fn a_fleet_may_have_no_ids_or_too_many_secrets() {
        let names: Vec<String> = (0..100).map(|number| format!("S{number}")).collect();
        let secrets = names.iter().map(String::as_str).collect();
        let text = github(&Workflow { ids: BTreeSet::new(), secrets, ..workflow() });
        assert!(text.contains("      - name: Plan\n        id: plan\n        run: |\n"), "{text}");
        assert!(text.contains("The customers refer to 100 secrets") && !text.contains("S1:"), "{text}");
    }

    #[test]
    fn a_project_in_a_folder_and_an_installation_of_several_lines() {
        let install = "make flotilla\n\n  echo IDS\nTOKENS";
        let text = github(&Workflow { folder: "my fleet", install: Some(install), ..workflow() });
        assert!(text.contains("working-directory: \"my fleet\"\n"));
        assert_eq!(text.matches("path: \"my fleet/.flotilla\"\n").count(), 3);
        let lines = "        run: |\n          make flotilla\n\n            echo IDS\n          TOKENS\n          flotilla --version\n";
        assert_eq!(text.matches(lines).count(), 2, "{text}");
    }
}
