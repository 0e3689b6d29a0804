//! Tests that the documentation is true as far as a test can see: the `sh` blocks of each page run as one script in an empty folder,
//! every command that a page or `--help` names exists, every command has a page, and relative links and their anchors have a target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::{ACCOUNT, Cloud, cache};
use crate::folders::temporary_folder;
use crate::support::{Project, output, repository};
use crate::tools::node;

/// Returns the pages of the documentation.
pub fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
        .iter()
        .map(|page| repository().join(page))
        .collect();
    for folder in ["docs", "templates/consent", "templates/dispatch", "templates/toggles", "templates/worker"] {
        collect(&repository().join(folder), &mut pages);
    }
    pages.sort();
    pages
}

/// Adds the pages of a folder and those below it.
fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, pages);
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
}

/// Returns a page's text.
pub fn text(page: &Path) -> String {
    std::fs::read_to_string(page).expect("a page")
}

/// Returns a page's path from the repository's root.
pub fn name(page: &Path) -> String {
    page.strip_prefix(repository()).expect("a page of the repository").display().to_string()
}

/// The `sh` blocks of a page, as one script.
fn script(page: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line.trim()) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, _) => script += &format!("{line}\n"),
            _ => {}
        }
    }
    assert!(!inside, "a block isn't closed");
    script
}

/// Runs a page as its reader would, with a Cloudflare of its own.
fn follow(page: &Path) {
    let script = script(&text(page));
    if script.is_empty() {
        return;
    }
    let (cloud, project) = (Cloud::with_workerd(), Project::at(temporary_folder()));
    let own = Path::new(env!("CARGO_BIN_EXE_flotilla")).parent().expect("a folder").to_owned();
    // wrangler, which bundles packs, needs a newer Node.js than this machine may have.
    let node = node().parent().map(|folder| format!("{}:", folder.display())).unwrap_or_default();
    let path = format!("{}:{node}{}", own.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script])
        .current_dir(project.root())
        .env("PATH", path)
        .env("CLOUDFLARE_API_BASE_URL", cloud.base())
        .env("CLOUDFLARE_API_TOKEN", "test-token")
        .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
        .env("FLOTILLA_CACHE_DIR", cache())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(std::process::Stdio::null());
    let run = output(&mut bash);
    assert_eq!(run.code, 0, "{} doesn't run:\n{}\n{}", page.display(), run.stdout, run.stderr);
}

#[test]
fn the_spec_in_the_readme_is_valid() {
    let readme = text(&repository().join("README.md"));
    let (_, spec) = readme.split_once("```yaml\n# customers/acme.yaml\n").expect("a spec");
    let (spec, _) = spec.split_once("```").expect("its end");
    let project = Project::empty();
    project.run(&["init", "fleet"]).exits(0);
    project.write("fleet/customers/acme.yaml", spec);
    let checked = project.run(&["-C", "fleet", "check"]).exits(0);
    assert_eq!(checked.stdout, "checked 1 customer: no errors\n", "{checked:?}");
}

#[test]
fn the_pages_run() {
    let pages = pages();
    let mut wrong = Vec::new();
    // Two at a time: some deploy, some start workers.
    for pair in pages.chunks(2) {
        std::thread::scope(|scope| {
            let runs: Vec<_> = pair.iter().map(|page| scope.spawn(|| follow(page))).collect();
            for run in runs {
                wrong.extend(run.join().err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default()));
            }
        });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The words of a command line: quotes keep spaces together; it ends at a pipe, at a comment, or where a column begins that
/// explains it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let mut spaces = 0;
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => (quote, any) = (Some(c), true),
            (None, '|' | '>' | '#' | ';' | '&') if word.is_empty() => break,
            (None, ' ') => {
                spaces += 1;
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    any = false;
                } else if spaces > 1 && words.len() > 1 {
                    break;
                }
                continue;
            }
            (None, c) => word.push(c),
        }
        spaces = 0;
    }
    words
}

/// The command lines in a page's inline code, in its blocks of shell and in what is indented.
fn named(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut fence: Option<String> = None;
    for line in page.lines() {
        if let Some(kind) = line.trim().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(kind.to_owned()) };
            continue;
        }
        let whole = line.trim().trim_start_matches("$ ");
        match fence.as_deref() {
            // Scripts run anyway; others aren't commands.
            Some(_) => {}
            None if line.starts_with("    ") => found.extend(whole.starts_with("flotilla ").then(|| whole.to_owned())),
            None => {
                let codes = line.split('`').skip(1).step_by(2);
                found.extend(codes.filter(|code| code.starts_with("flotilla ")).map(str::to_owned));
            }
        }
    }
    found
}

/// The examples of a command's help, and of its subcommands'.
fn examples(project: &Project, path: &[&str], found: &mut BTreeSet<String>) {
    let help = project.run(&[path, &["--help"]].concat()).exits(0).stdout;
    found.extend(help.lines().map(str::trim).filter(|line| line.starts_with("flotilla ")).map(str::to_owned));
    let Some(list) = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()) else { return };
    for line in list.lines() {
        let name =
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split(' ').next());
        if let Some(name) = name.filter(|name| !name.is_empty() && *name != "help") {
            examples(project, &[path, &[name]].concat(), found);
        }
    }
}

#[test]
fn the_commands_that_are_named_are_there() {
    let project = Project::empty();
    let mut commands: BTreeSet<String> = pages().iter().flat_map(|page| named(&text(page))).collect();
    examples(&project, &[], &mut commands);
    assert!(commands.len() > 60, "only {} found", commands.len());
    let mut wrong = Vec::new();
    for command in &commands {
        let mut words = words(command);
        words.retain(|word| !word.starts_with('…') && !word.starts_with('[') && !word.ends_with(']'));
        // It prints help itself, and takes the name of any command.
        let is_help = words.get(1).is_some_and(|word| word == "help");
        words.retain(|word| !(is_help && word == "COMMAND"));
        let mut arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        // With it, nothing is done; but what comes before it has to be there.
        arguments.extend((!is_help).then_some("--help"));
        let run = project.run(&arguments);
        if run.code != 0 {
            wrong.push(format!("`{command}`: {}", run.stderr.lines().next().unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the names of the commands, and of their subcommands with a space between.
pub fn commands(project: &Project) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = project.run(&[&words[..], &["--help"]].concat()).exits(0).stdout;
        let list = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        let names =
            list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty());
        open.extend(names.filter(|name| *name != "help").map(|name| [&path[..], &[name.to_owned()]].concat()));
        found.push(path);
    }
    found
}

#[test]
fn every_command_has_a_page() {
    let pages: Vec<(PathBuf, String)> = pages().into_iter().map(|page| (page.clone(), text(&page))).collect();
    let undocumented: Vec<String> = commands(&Project::empty())
        .into_iter()
        .filter(|path| path.len() == 1)
        .map(|path| format!("flotilla {}", path[0]))
        .filter(|command| {
            let written = |text: &str| {
                text.match_indices(command.as_str())
                    .any(|(at, _)| !text[at + command.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '-'))
            };
            !pages.iter().any(|(page, text)| page.starts_with(repository().join("docs")) && written(text))
        })
        .collect();
    assert!(undocumented.is_empty(), "no page under docs/ names {undocumented:?}");
}

/// Returns a page's text without its code blocks.
fn prose(page: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose += line;
            prose.push('\n');
        }
    }
    prose
}

/// Returns the anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for heading in prose(page).lines().filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let number = (1..).find(|number| {
            *number == 1 && !found.contains(&anchor) || !found.contains(&format!("{anchor}-{}", number - 1))
        });
        found.insert(match number {
            Some(1) | None => anchor,
            Some(number) => format!("{anchor}-{}", number - 1),
        });
    }
    found
}

/// Returns the targets of the links and images in a page.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn relative_links_have_targets() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for link in links(&text(&page)).iter().filter(|link| !link.contains("://")) {
            seen += 1;
            let (path, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            let why = match anchor {
                _ if !target.exists() => "there is no such file",
                Some(anchor) if !anchors(&text(&target)).contains(anchor) => "there is no such heading",
                _ => continue,
            };
            broken.push(format!("{}: {link}: {why}", name(&page)));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(seen > 100, "only {seen} links found");
}

#[test]
fn every_page_is_reachable_from_the_index() {
    let index = repository().join("docs/README.md");
    let (mut reached, mut open) = (BTreeSet::new(), vec![index]);
    while let Some(page) = open.pop() {
        let Ok(page) = page.canonicalize() else { continue };
        if reached.insert(page.clone()) && page.extension().is_some_and(|end| end == "md") {
            let targets = links(&text(&page));
            open.extend(
                targets
                    .iter()
                    .map(|link| page.parent().expect("a folder").join(link.split('#').next().unwrap_or_default())),
            );
        }
    }
    let pages = pages().into_iter().filter(|page| page.starts_with(repository().join("docs")));
    let lost: Vec<String> =
        pages.filter(|page| !reached.contains(&page.canonicalize().expect("a page"))).map(|page| name(&page)).collect();
    assert!(lost.is_empty(), "no page links to {lost:?}");
}

#[test]
fn the_recorded_start_is_the_readmes() {
    let svg = std::fs::read_to_string(repository().join("docs/start.svg")).expect("docs/start.svg");
    let script = std::fs::read_to_string(repository().join("docs/record-start.py")).expect("docs/record-start.py");
    let list = script.split("COMMANDS = [").nth(1).and_then(|rest| rest.split(']').next()).expect("a list");
    let project = Project::empty();
    let mut seen = 0;
    for command in list.split('"').skip(1).step_by(2) {
        let shown = command.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(svg.contains(&shown), "docs/start.svg doesn't show `{command}`: record it again");
        if let Some(arguments) = command.strip_prefix("flotilla ") {
            let mut arguments = words(&format!("flotilla {arguments}"));
            arguments.push("--help".to_owned());
            project.run(&arguments.iter().skip(1).map(String::as_str).collect::<Vec<_>>()).exits(0);
            seen += 1;
        }
    }
    assert!(seen > 3, "only {seen} commands found");
    for folder in ["home", "root", "tmp", "Users"] {
        assert!(!svg.contains(&format!("/{folder}/")), "docs/start.svg contains a path below /{folder}");
    }
}

#[test]
fn pages_that_the_program_names_exist() {
    let mut open: Vec<PathBuf> = ["src", "benches", "examples", ".ci", ".github", "templates", "tests/cases"]
        .iter()
        .map(|folder| repository().join(folder))
        .collect();
    let (mut missing, mut seen) = (BTreeSet::new(), 0);
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.ends_with("node_modules") {
            open.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (at, _) in text.match_indices("docs/").filter(|(at, _)| !text[..*at].ends_with('/')) {
            let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.');
            let page = text[at..].split(|c| !is_path(c)).next().unwrap_or_default().trim_end_matches('.');
            if page.ends_with(".md") {
                seen += 1;
                if !repository().join(page).exists() {
                    missing.insert(format!("{}: {page}", name(&path)));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(seen > 5, "only {seen} seen");
}
