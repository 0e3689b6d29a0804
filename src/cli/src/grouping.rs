//! Diagnostics that say the same of many places, grouped, and counted by code. Knows no form of output.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use flotilla_model::diagnostic::{Code, Diagnostic, Severity};
use flotilla_model::text::grouped;
use flotilla_spec::project::FLEET_FILE;

/// The limit of groups of one code: the largest, and one of all the others.
const GROUPS_PER_CODE: usize = 8;

/// Diagnostics of one code and one severity.
pub struct Group<'a> {
    /// In the order in which they came; at least one.
    pub members: Vec<&'a Diagnostic>,
    /// Whether their messages are the same, apart from numbers and quoted text. Otherwise they are the rest of a
    /// code.
    pub alike: bool,
}

impl Group<'_> {
    /// Returns the one that represents them all.
    pub fn first(&self) -> &Diagnostic {
        self.members[0]
    }

    /// Returns what follows the ones that are shown: `3 more like it, in 2 files`.
    pub fn more(&self, shown: usize) -> String {
        let rest = &self.members[shown..];
        let files = rest.iter().map(|diagnostic| &diagnostic.place.file).collect::<HashSet<_>>().len();
        let like = if self.alike { "like it".to_owned() } else { format!("of {}", self.first().code) };
        format!(
            "{} more {like}, in {} file{}",
            grouped(rest.len() as u64),
            grouped(files as u64),
            if files == 1 { "" } else { "s" }
        )
    }
}

/// Groups diagnostics that are alike. Errors come first, then by place.
pub fn groups(diagnostics: &[Diagnostic]) -> Vec<Group<'_>> {
    let mut alike: HashMap<(Code, Severity, String), usize> = HashMap::new();
    let mut found: Vec<Group<'_>> = Vec::new();
    for diagnostic in diagnostics {
        let next = found.len();
        let index = *alike.entry((diagnostic.code, diagnostic.severity, shape(&diagnostic.message))).or_insert(next);
        if index == next {
            found.push(Group { members: Vec::new(), alike: true });
        }
        found[index].members.push(diagnostic);
    }
    let mut by_code: BTreeMap<(Severity, Code), Vec<Group<'_>>> = BTreeMap::new();
    for group in found {
        by_code.entry((group.first().severity, group.first().code)).or_default().push(group);
    }
    let mut all: Vec<Group<'_>> = Vec::new();
    for mut groups in by_code.into_values() {
        groups.sort_by_key(|group| Reverse(group.members.len()));
        if groups.len() > GROUPS_PER_CODE {
            let mut members: Vec<_> =
                groups.split_off(GROUPS_PER_CODE - 1).into_iter().flat_map(|group| group.members).collect();
            members.sort_by(|a, b| a.place.cmp(&b.place));
            groups.push(Group { members, alike: false });
        }
        all.append(&mut groups);
    }
    all.sort_by(|a, b| (a.first().severity, &a.first().place).cmp(&(b.first().severity, &b.first().place)));
    // Errors that stop everything are among those that are shown.
    all.iter_mut().for_each(|group| group.members.sort_by_key(|found| found.place.file != FLEET_FILE));
    all
}

/// Returns a message without what differs from place to place: numbers, and text in double quotes.
fn shape(message: &str) -> String {
    let mut shape = String::with_capacity(message.len());
    let mut quoted = false;
    for c in message.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                shape.push(c);
            }
            _ if quoted => {}
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            _ => shape.push(c),
        }
    }
    shape
}

/// The number of times that a code is reported.
pub struct Tally {
    /// The code.
    pub code: Code,
    /// The severity that it is reported with.
    pub severity: Severity,
    /// The number of diagnostics.
    pub number: usize,
    /// The number of files that have one.
    pub files: usize,
}

/// Counts diagnostics by code: errors first, the most frequent first.
pub fn tallies(diagnostics: &[Diagnostic]) -> Vec<Tally> {
    let mut codes: BTreeMap<(Severity, Code), (usize, HashSet<&str>)> = BTreeMap::new();
    for diagnostic in diagnostics {
        let (number, files) = codes.entry((diagnostic.severity, diagnostic.code)).or_default();
        *number += 1;
        files.insert(&diagnostic.place.file);
    }
    let tally = |((severity, code), (number, files)): (_, (usize, HashSet<&str>))| Tally {
        code,
        severity,
        number,
        files: files.len(),
    };
    let mut tallies: Vec<Tally> = codes.into_iter().map(tally).collect();
    tallies.sort_by_key(|tally| (tally.severity, Reverse(tally.number)));
    tallies
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::diagnostic::Place;

    fn diagnostic(file: usize, message: String) -> Diagnostic {
        Diagnostic::error(Code::UnknownKey, Place::file(&format!("customers/c{file:05}.yaml")), message, "")
    }

    #[test]
    fn what_says_the_same_is_one_group() {
        let mut all: Vec<Diagnostic> = (0..100)
            .map(|index| diagnostic(index, format!("unknown key `enbled` in `destinations[{index}]`")))
            .collect();
        all.extend((0..50).map(|index| diagnostic(index, format!("the id \"a{index}\" is \"é{index}`\""))));
        all.extend((0..30).map(|index| diagnostic(index, format!("unknown key `{}`", "x".repeat(index)))));
        let all = flotilla_model::diagnostic::sorted(all);
        let groups = groups(&all);
        let sizes: Vec<(usize, bool)> = groups.iter().map(|group| (group.members.len(), group.alike)).collect();
        assert_eq!(groups.iter().map(|group| group.members.len()).sum::<usize>(), 180);
        assert_eq!(groups.len(), GROUPS_PER_CODE);
        assert!(
            sizes.contains(&(100, true)) && sizes.contains(&(50, true)) && sizes.contains(&(25, false)),
            "{sizes:?}"
        );
        let rest = groups.iter().find(|group| !group.alike).expect("the others");
        assert_eq!(rest.more(2), "23 more of S0201, in 23 files");
        let tallies = tallies(&all);
        assert_eq!((tallies.len(), tallies[0].number, tallies[0].files), (1, 180, 100));
    }
}
