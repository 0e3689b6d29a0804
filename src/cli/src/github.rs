//! Diagnostics as workflow commands of GitHub Actions, which become annotations of a pull request. Doesn't know who runs it.

use std::cmp::Reverse;
use std::path::Path;

use flotilla_model::diagnostic::Diagnostic;

use super::grouping::{Group, groups};
use super::ui::{clean, clean_lines};

/// A line for each diagnostic. GitHub shows ten errors and ten warnings of a step and leaves the others in its log: so
/// the first of each group come first, the largest group before the others, and say how many are like them.
pub fn commands(prefix: &str, diagnostics: &[Diagnostic]) -> Vec<String> {
    let mut groups = groups(diagnostics);
    groups.sort_by_key(|group| (group.first().severity, Reverse(group.members.len())));
    let first = groups.iter().map(|group| command(prefix, group.first(), Some(group)));
    let others =
        groups.iter().flat_map(|group| &group.members[1..]).map(|diagnostic| command(prefix, diagnostic, None));
    first.chain(others).collect()
}

fn command(prefix: &str, diagnostic: &Diagnostic, group: Option<&Group<'_>>) -> String {
    let Diagnostic { code, severity, message, place, help, related } = diagnostic;
    let mut properties = vec![("file", format!("{prefix}{}", place.file)), ("title", code.to_string())];
    if place.line > 0 {
        let (line, end) = (place.line.to_string(), place.column + place.width);
        properties.extend([("line", line.clone()), ("endLine", line)]);
        properties.extend([("col", place.column.to_string()), ("endColumn", end.to_string())]);
    }
    let properties: Vec<String> =
        properties.into_iter().map(|(name, value)| format!("{name}={}", escaped(&clean(&value), true))).collect();
    let mut text = clean(message);
    for (place, label) in related {
        text += &format!("\n{}: {}", clean(&place.to_string()), clean(label));
    }
    text += &format!("\nhelp: {}", clean_lines(help));
    if let Some(group) = group.filter(|group| group.members.len() > 1) {
        text += &format!("\nand {}", group.more(1));
    }
    format!("::{} {}::{}", severity.as_ref(), properties.join(","), escaped(&text, false))
}

/// Text as GitHub takes it: these characters, and no others, end a line or a property.
/// Source: GitHub's docs, Workflow commands, and its toolkit's `escapeData` and `escapeProperty`.
fn escaped(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

/// Returns the prefix of a path from the project's root, from the root of its repository: `fleets/eu/`. Empty where
/// the project is the repository's root, or in none.
pub fn prefix(root: &Path) -> String {
    let repository = root.ancestors().find(|folder| folder.join(".git").exists());
    let inner = repository.and_then(|repository| root.strip_prefix(repository).ok());
    let steps = inner.into_iter().flat_map(Path::components);
    steps.map(|step| format!("{}/", step.as_os_str().to_string_lossy())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::diagnostic::{Code, Place};

    /// Parses a line as GitHub's runner does: the command, its properties, its text. Source: actions/runner,
    /// ActionCommand.TryParseV2, and its unescaping.
    pub fn parsed(line: &str) -> (String, Vec<(String, String)>, String) {
        let rest = line.strip_prefix("::").expect("a command");
        let (head, text) = rest.split_once("::").expect("a text");
        let (word, properties) = head.split_once(' ').expect("properties");
        let raw = |text: &str| text.replace("%0D", "\r").replace("%0A", "\n");
        let property = |pair: &str| {
            let (name, value) = pair.split_once('=').expect("a property");
            (name.to_owned(), raw(value).replace("%3A", ":").replace("%2C", ",").replace("%25", "%"))
        };
        (word.to_owned(), properties.split(',').map(property).collect(), raw(text).replace("%25", "%"))
    }

    #[test]
    fn hostile_text_stays_where_it_is() {
        let file = "customers/a,b::error file=x::%0A\n\r::warning::.yaml".to_owned();
        let place = Place { file, line: 3, column: 7, width: 6 };
        let message = "100%0A\n::error::\x1b[31m|`<b>\r::set-output name=a::b";
        let diagnostic = Diagnostic::error(Code::UnknownKey, place.clone(), message, "one\ntwo::")
            .also(Place { line: 9, ..place }, "first\n::debug::");
        let lines = commands("eu%/", &[diagnostic]);
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains(['\n', '\r', '\x1b']), "{:?}", lines[0]);
        let (word, properties, text) = parsed(&lines[0]);
        assert_eq!(word, "error");
        let of = |name: &str| properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(of("file"), Some("eu%/customers/a,b::error file=x::%0A\\u{a}\\u{d}::warning::.yaml"));
        assert_eq!(
            (of("line"), of("endLine"), of("col"), of("endColumn")),
            (Some("3"), Some("3"), Some("7"), Some("13"))
        );
        assert_eq!((of("title"), properties.len()), (Some("S0201"), 6));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "100%0A\\u{a}::error::\\u{1b}[31m|`<b>\\u{d}::set-output name=a::b");
        assert!(lines[1].ends_with(":9:7: first\\u{a}::debug::"), "{lines:?}");
        assert_eq!(lines[2..], ["help: one", "two::"]);
    }

    #[test]
    fn what_github_shows_is_one_of_each() {
        let diagnostic = |code, file: usize, message: &str| {
            Diagnostic::error(code, Place::file(&format!("customers/c{file:04}.yaml")), message, "fix it")
        };
        let mut all: Vec<Diagnostic> = (0..5000)
            .map(|index| diagnostic(Code::UnknownKey, index, "unknown key `pixlId` in a destination"))
            .collect();
        all.extend((0..6).map(|index| diagnostic(Code::Syntax, index, &format!("a tab {}", "x".repeat(index)))));
        let place = Place::file("customers/c0000.yaml");
        all.push(Diagnostic::warning(Code::Unreachable, place, "nothing reaches it", "add a domain"));
        let lines = commands("", &flotilla_model::diagnostic::sorted(all));
        assert_eq!(lines.len(), 5007);
        let (first, ten) = (parsed(&lines[0]), &lines[..8]);
        assert!(first.2.ends_with("\nand 4,999 more like it, in 4,999 files"), "{first:?}");
        assert_eq!(ten.iter().filter(|line| line.contains("title=Y0106")).count(), 6);
        assert!(ten[7].starts_with("::warning ") && !ten[7].contains("line="), "{}", ten[7]);
    }

    #[test]
    fn paths_are_those_of_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("fleets/eu");
        std::fs::create_dir_all(&project).unwrap();
        std::fs::create_dir(folder.path().join(".git")).unwrap();
        assert_eq!(prefix(&project), "fleets/eu/");
        assert_eq!(prefix(folder.path()), "");
    }
}
