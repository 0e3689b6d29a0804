//! Turns what wrangler printed before it failed into diagnostics at the places in the team's sources. Runs nothing.

use std::path::{Component, Path};

use serde_json::Value;

use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::plain_file;
use flotilla_spec::pack::{Pack, WranglerProject};

use super::tools;

/// The maximum number of lines of what a program printed that are shown.
const SHOWN: usize = 12;
/// The maximum size, in bytes, of a package.json.
const MOST_BYTES: u64 = 1 << 20;
/// The mark of an error of wrangler's and esbuild's.
const ERROR: &str = "[ERROR] ";

/// Returns the diagnostics of a failed run. `stdout` and `stderr` are what wrangler printed.
pub(super) fn diagnostics(
    pack: &Pack,
    project: &WranglerProject,
    version: &str,
    stdout: &str,
    stderr: &str,
) -> Vec<Diagnostic> {
    let (stdout, stderr) = (plain(stdout), plain(stderr));
    if stderr.contains("Unknown argument") || stderr.contains("Unknown arguments") {
        return vec![*tools::too_old(pack, version)];
    }
    if let Some((command, place)) = &project.build
        && (stderr.contains("Running custom build") || stderr.contains("Process exited with non-zero status"))
    {
        let said: Vec<&str> =
            stdout.lines().filter_map(|line| line.strip_prefix("[custom build]")).map(str::trim).collect();
        let said: Vec<&str> =
            said.into_iter().filter(|line| !line.is_empty() && !line.starts_with("Running: ")).collect();
        let last = said[said.len().saturating_sub(SHOWN)..].join("\n");
        let help = if last.is_empty() { "it printed no error".to_owned() } else { format!("it printed:\n{last}") };
        let message = format!("the project's own build failed: `{command}`");
        return vec![Diagnostic::error(Code::RuntimeFailed, place.clone(), message, help)];
    }
    let found = located(project, &stderr);
    if !found.is_empty() {
        return found;
    }
    let lines: Vec<&str> =
        stderr.lines().chain(stdout.lines()).map(str::trim).filter(|line| !line.is_empty()).collect();
    let what = lines.iter().find_map(|line| Some(line.split_once(ERROR)?.1)).or(lines.first().copied());
    let shown: Vec<&str> =
        lines.iter().copied().filter(|line| !line.contains("Logs were written to")).take(SHOWN).collect();
    let message = format!("wrangler can't bundle it: {}", what.unwrap_or("it printed no error"));
    let help = format!("wrangler printed:\n{}", shown.join("\n"));
    vec![Diagnostic::error(Code::RuntimeFailed, Place::file(&project.path), message, help)]
}

/// Returns the errors that have a place, all of them.
fn located(project: &WranglerProject, stderr: &str) -> Vec<Diagnostic> {
    let lines: Vec<&str> = stderr.lines().collect();
    let mut found: Vec<Diagnostic> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((_, message)) = line.split_once(ERROR) else { continue };
        let rest = || lines[index + 1..].iter().take_while(|line| !line.contains(ERROR)).map(|line| line.trim());
        let Some(place) = rest().take(4).find_map(|line| position(project, line)) else { continue };
        // flotilla prints the line itself, in place of esbuild's drawing of it.
        let is_drawn = |line: &&str| line.contains('│') || line.contains('╵') || position(project, line).is_some();
        let notes: Vec<&str> = rest()
            .filter(|line| !line.is_empty() && !is_drawn(line) && !line.contains("Logs were written"))
            .take(SHOWN)
            .collect();
        let help = not_installed(project, message).unwrap_or_else(|| match notes.is_empty() {
            true => "fix it in the source of the wrangler project".to_owned(),
            false => notes.join("\n"),
        });
        let message = format!("wrangler can't bundle it: {}", message.trim());
        if !found.iter().any(|other| other.place == place && other.message == message) {
            found.push(Diagnostic::error(Code::RuntimeFailed, place, message, help));
        }
    }
    found
}

/// Returns how to get a package that could not be resolved, if a package.json of the project lists it.
fn not_installed(project: &WranglerProject, message: &str) -> Option<String> {
    let name = message.split("Could not resolve \"").nth(1)?.split('"').next()?;
    let steps = if name.starts_with('@') { 2 } else { 1 };
    let name = name.split('/').take(steps).collect::<Vec<_>>().join("/");
    let folders = project.folder.ancestors().take_while(|folder| folder.starts_with(&project.workspace));
    let lists = |folder: &Path| {
        let bytes = plain_file::read_through_links(&folder.join("package.json"), MOST_BYTES).ok()?;
        let package: Value = serde_json::from_slice(&bytes).ok()?;
        let kinds = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
        kinds.iter().any(|kind| package[kind][&name].is_string()).then(|| project.shown(&folder.join("package.json")))
    };
    let file = folders.into_iter().find_map(lists)?;
    Some(format!("{file} lists `{name}`: install the packages of the project, as with `npm ci`"))
}

/// Returns a place as esbuild prints it, `src/index.ts:3:7:`, its columns counted from 0.
fn position(project: &WranglerProject, line: &str) -> Option<Place> {
    let mut parts = line.strip_suffix(':')?.rsplitn(3, ':');
    let (column, row, file) = (parts.next()?, parts.next()?, parts.next()?);
    let (column, row): (usize, usize) = (column.parse().ok()?, row.parse().ok()?);
    let mut path = project.folder.clone();
    for step in Path::new(file).components() {
        match step {
            Component::CurDir => {}
            Component::ParentDir => drop(path.pop()),
            step => path.push(step),
        }
    }
    path.is_file().then(|| Place { file: project.shown(&path), line: row, column: column + 1, width: 1 })
}

/// Returns text without the sequences that color a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('\x1b');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end =
            part.strip_prefix('[').and_then(|rest| rest.find(|c: char| c.is_ascii_alphabetic()).map(|end| end + 2));
        plain.push_str(&part[end.unwrap_or(0)..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_taken_out() {
        assert_eq!(plain("\x1b[31m✘ \x1b[41;31m[\x1b[0m\x1b[1mx\x1b[0m"), "✘ [x");
    }
}
