//! The migrations of databases in a plan, in words: what many databases have in common is shown once.

use std::collections::BTreeMap;

use flotilla_deploy::plan::DatabaseChange;
use flotilla_model::text::{grouped, names};

use super::super::report::count;
use super::EXAMPLES;

/// The limit of names of migrations in a line.
const MIGRATIONS: usize = 6;

/// Returns a line for each group of databases that have the same migrations pending.
pub(super) fn lines(databases: &[DatabaseChange], limit: usize) -> Vec<String> {
    let mut groups: BTreeMap<(&[String], bool), Vec<&DatabaseChange>> = BTreeMap::new();
    for change in databases {
        groups.entry((&change.migrations, change.reads_table)).or_default().push(change);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    let line = |((migrations, is_unsure), members): &((&[String], bool), Vec<&DatabaseChange>)| {
        let examples: Vec<&str> = members.iter().take(EXAMPLES).map(|change| change.database.as_str()).collect();
        let more = if members.len() > EXAMPLES { ", …" } else { "" };
        // What a database that the state doesn't know has is read before anything is applied.
        let most = if *is_unsure { "at most " } else { "" };
        format!(
            "apply {most}{} to {}: {}  ({}{more})",
            count(migrations.len(), "migration"),
            count(members.len(), "database"),
            names(migrations, MIGRATIONS),
            examples.join(", ")
        )
    };
    let mut lines: Vec<String> = groups.iter().take(limit).map(line).collect();
    if groups.len() > limit {
        let left = groups[limit..].iter().map(|(_, members)| members.len()).sum::<usize>();
        lines.push(format!("… and {} with others; --full shows all", count(left, "database")));
    }
    lines
}

/// Returns the number of databases for the last line of a plan: `, 80 databases to migrate`.
pub(super) fn total(databases: &[DatabaseChange]) -> String {
    match databases.len() {
        0 => String::new(),
        1 => ", 1 database to migrate".to_owned(),
        number => format!(", {} databases to migrate", grouped(number as u64)),
    }
}
