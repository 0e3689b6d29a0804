//! Shows: what the documentation says to type runs. Each page's `sh` blocks are one script, from an empty folder on; and each
//! command that is named in passing, in a page or in `--help`, is one that flotilla has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::{ACCOUNT, Cloud, cache};
use crate::folders::temporary_folder;
use crate::support::{Project, output, repository};

/// The pages, from the repository's root.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = vec![repository().join("README.md"), repository().join("CHANGELOG.md")];
    for folder in ["docs", "templates/consent", "templates/dispatch", "templates/worker"] {
        let entries = std::fs::read_dir(repository().join(folder)).into_iter().flatten().flatten();
        pages.extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    pages.sort();
    pages
}

fn text(page: &Path) -> String {
    std::fs::read_to_string(page).expect("a page")
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
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default());
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
fn the_pages_run() {
    let pages = pages();
    // Two at a time: some deploy, some start workers.
    for pair in pages.chunks(2) {
        std::thread::scope(|scope| {
            let runs: Vec<_> = pair.iter().map(|page| (page, scope.spawn(|| follow(page)))).collect();
            for (page, run) in runs {
                if let Err(panic) = run.join() {
                    let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    panic!("{}: {why}", page.display());
                }
            }
        });
    }
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
        let mut arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        // With it, nothing is done; but what comes before it has to be there.
        arguments.push("--help");
        let run = project.run(&arguments);
        if run.code != 0 {
            wrong.push(format!("`{command}`: {}", run.stderr.lines().next().unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
