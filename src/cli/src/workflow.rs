//! The workflows that `flotilla init --ci` generates, for GitHub Actions and for GitLab CI: texts, rendered from what the fleet
//! refers to. Reads and writes nothing.

use std::collections::BTreeSet;

use flotilla_import::yaml_text;

/// The services that workflows are written for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Ci {
    Github,
    Gitlab,
}

/// The command that installs this version of flotilla from npm. The package has no install scripts.
const NPM: &str =
    concat!("npm install --global --ignore-scripts --no-audit --no-fund flotilla@", env!("CARGO_PKG_VERSION"));

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
    /// The command that installs flotilla; npm, if there is none.
    pub install: Option<&'a str>,
    /// The variables with the accounts' ids.
    pub ids: BTreeSet<&'a str>,
    /// The secrets with the accounts' tokens.
    pub tokens: BTreeSet<&'a str>,
    /// The secrets that customers refer to.
    pub secrets: BTreeSet<&'a str>,
}

impl Workflow<'_> {
    /// Returns the prefix of a path of the project: the folder with `/`, or nothing.
    fn prefix(&self) -> String {
        if self.folder.is_empty() { String::new() } else { format!("{}/", self.folder) }
    }

    /// Returns the secrets that customers alone refer to.
    pub fn secrets_of_customers(&self) -> BTreeSet<&str> {
        &(&self.secrets - &self.tokens) - &self.ids
    }
}

/// Returns the text of the GitHub workflow that checks, plans and deploys.
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

/// Returns the text of the GitLab pipeline that checks, plans and deploys.
pub fn gitlab(workflow: &Workflow<'_>) -> String {
    let text = include_str!("init/gitlab.yml").replace("STATE\n", include_str!("init/gitlab-state.yml"));
    let named: BTreeSet<&str> = workflow.ids.iter().chain(&workflow.tokens).chain(&workflow.secrets).copied().collect();
    let mut needed: String = named.iter().take(LISTED).map(|name| format!("    # - {name}\n")).collect();
    if named.len() > LISTED {
        needed += &format!("    # - and {} more\n", named.len() - LISTED);
    }
    let lines = workflow.install.unwrap_or(NPM).lines();
    let install = lines.map(|line| format!("      {line}").trim_end().to_owned() + "\n").collect();
    let paths = quoted_for_gitlab(&format!("{}.flotilla/", workflow.prefix()));
    let directory = if workflow.folder.is_empty() { "." } else { workflow.folder };
    let fills = [
        ("NEEDED\n", needed),
        ("INSTALL\n", install),
        ("[PREFIX.flotilla/]\n", format!("[{paths}]\n")),
        (": DIRECTORY\n", format!(": {}\n", quoted_for_gitlab(directory))),
    ];
    fill(&text, &fills)
}

/// Returns a text as a scalar of YAML in which GitLab expands no variable.
fn quoted_for_gitlab(text: &str) -> String {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.') && text.contains(['/', '.']);
    if is_plain && is_word { text.to_owned() } else { yaml_text::quoted(&text.replace('$', "$$")) }
}

/// Renders a workflow.
fn filled(workflow: &Workflow<'_>, text: &str) -> String {
    let entries = |names: &mut dyn Iterator<Item = &&str>| {
        names.map(|name| format!("          {name}: ${{{{ secrets.{name} }}}}\n")).collect::<String>()
    };
    let (ids, tokens) = (&workflow.ids, &workflow.tokens);
    let others = workflow.secrets_of_customers();
    let alone = entries(&mut tokens.difference(ids));
    let mut listed = alone.clone();
    match others.len() {
        0 => {}
        1..=LISTED => {
            listed += "          # Secrets that the customers refer to.\n";
            listed += &entries(&mut others.iter());
        }
        number => {
            listed += &format!(
                "          # The customers refer to {number} secrets, too many to list here: put them in FLOTILLA_SECRETS.\n"
            );
        }
    }
    let prefix = workflow.prefix();
    let install = match workflow.install {
        None => include_str!("init/installed.yml").replace("NPM\n", &format!("{NPM}\n")),
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
    // Values from the project come last, so that nothing in them is taken for a placeholder.
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
    // Where fleet.yaml has the ids themselves, a job needs none.
    filled.replace("        env:\n        run:", "        run:")
}

/// Returns a text as a scalar of YAML that is a string, and no expression of GitHub's.
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
        for place in ["PREPARE", "INSTALL\n", "NPM", "IDS\n", "TOKENS\n", "PREFIX", "DIRECTORY", "@C", "@S", "@U"] {
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
    fn every_place_of_gitlabs_is_filled_and_its_commands_are_flotillas() {
        let text = gitlab(&Workflow { folder: "my $fleet", ..workflow() });
        for place in ["STATE", "INSTALL", "NEEDED", "PREFIX", "DIRECTORY"] {
            assert!(!text.contains(place), "{place}");
        }
        assert!(text.contains("FLOTILLA_FOLDER: \"my $$fleet\"\n") && text.contains("[\"my $$fleet/.flotilla/\"]\n"));
        assert_eq!(text.matches(NPM).count(), 1);
        for name in ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "TURSO_AUTH_TOKEN"] {
            assert_eq!(text.matches(&format!("    # - {name}\n")).count(), 1, "{name}");
        }
        let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
        let mut seen = Vec::new();
        for line in lines.filter(|line| line.starts_with("flotilla ") && !line.ends_with(':')) {
            let command = line.split(['>', '|']).next().unwrap_or_default().replace(" \"${files[@]}\"", "");
            let words: Vec<&str> = command.split_whitespace().collect();
            if words[1] == "--version" {
                continue;
            }
            if let Err(error) = Arguments::try_parse_from(&words) {
                panic!("{command}: {error}");
            }
            seen.push(words[1].to_owned());
        }
        assert_eq!(seen, ["check", "build", "build", "build", "plan", "build", "deploy"]);
        let names: Vec<String> = (0..100).map(|number| format!("S{number}")).collect();
        let text = gitlab(&Workflow { secrets: names.iter().map(String::as_str).collect(), ..workflow() });
        assert!(text.contains("    # - and 42 more\n"), "{text}");
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
