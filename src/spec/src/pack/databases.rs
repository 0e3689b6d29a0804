//! The migrations of the D1 databases of a pack: their folders, and what D1 would reject of their statements. Read from pack.yaml, or from
//! the configuration of a wrangler project.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::migrations::{
    DEFAULT_TABLE, DatabaseMigrations, MAX_STATEMENT, Migration, Statement, compare_names, first_word, position,
    statements,
};
use flotilla_model::plain_file;
use flotilla_model::spec::DatabaseFile;
use flotilla_model::text::grouped;

use super::assets::workspace;
use super::wrangler::relative;
use crate::tree::Tree;
use crate::yaml::{Document, Kind, Node};

/// The maximum size, in bytes, of a file of migrations.
const MOST_BYTES: u64 = 16 << 20;
/// The maximum number of migrations of a database.
const MOST_FILES: usize = 10_000;
/// The statements that D1 rejects, because it runs each migration in a transaction of its own, on one database.
const REJECTED: [&str; 9] =
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM"];
/// The help for a folder that can't be used.
const FOLDER_HELP: &str =
    "what a fleet deploys must be under the version control of the fleet: move the folder, or the fleet";

/// The migrations of databases, by the names of the bindings.
type Databases = BTreeMap<String, Arc<DatabaseMigrations>>;

/// The folders that a folder of migrations is looked for in: the project's, the one that it has to be in, and the one that paths are
/// relative to.
type Folders<'a> = (&'a Path, &'a Path, &'a Path);

/// Reads those of a pack.yaml. The schema reports what is wrong with their form.
pub(super) fn of_pack(
    tree: &Tree,
    pack: &str,
    document: &Document,
    manifest: &Value,
) -> Result<Databases, Vec<Diagnostic>> {
    let root = tree.root.canonicalize().unwrap_or_else(|_| tree.root.clone());
    let (workspace, base) = (workspace(&root), root.join(pack));
    let (mut databases, mut errors) = (Databases::new(), Vec::new());
    for (name, value) in manifest["databases"].as_object().into_iter().flatten() {
        let Ok(file) = DatabaseFile::deserialize(value) else { continue };
        let place = document.place_of(["databases", name, "migrationsDir"]);
        match read((&root, &workspace, &base), &file.migrations_dir, file.migrations_table, place) {
            Ok(found) => drop(databases.insert(name.clone(), Arc::new(found))),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(databases) } else { Err(errors) }
}

/// Reads those of a wrangler configuration that have `migrations_dir`.
pub(super) fn of_wrangler(
    document: &Document,
    bound: &[Node],
    folders: Folders<'_>,
) -> Result<Databases, Vec<Diagnostic>> {
    let text = |node: Option<&Node>| match node.map(|node| &node.kind) {
        Some(Kind::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let (mut databases, mut errors) = (Databases::new(), Vec::new());
    for node in bound {
        let (Some(name), Some(folder)) = (text(node.get("binding")), text(node.get("migrations_dir"))) else {
            continue;
        };
        // wrangler deploys without it, and so do others who have the configuration alone.
        if !folders.2.join(&folder).is_dir() {
            continue;
        }
        let place = document.place(node.get("migrations_dir").unwrap_or(node).span);
        if let Some(pattern) = node.get("migrations_pattern")
            && text(Some(pattern)).is_none_or(|text| {
                text.trim_start_matches("./") != format!("{}/*.sql", folder.trim_start_matches("./"))
            })
        {
            let message = "`migrations_pattern` is one that flotilla can't apply".to_owned();
            let help = "flotilla applies the files that end in .sql in the folder itself, and none in folders below it: remove the key";
            errors.push(Diagnostic::error(Code::BadSql, document.place(pattern.span), message, help));
            continue;
        }
        match read(folders, &folder, text(node.get("migrations_table")), place) {
            Ok(found) => drop(databases.insert(name, Arc::new(found))),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(databases) } else { Err(errors) }
}

/// Reads a folder of migrations.
fn read(
    (root, workspace, base): Folders<'_>,
    written: &str,
    table: Option<String>,
    place: Place,
) -> Result<DatabaseMigrations, Vec<Diagnostic>> {
    let bad = |message: String, help: &str| vec![Diagnostic::error(Code::BadSql, place.clone(), message, help)];
    let folder = plain_file::without_dots(&base.join(written));
    let shown = relative(root, &folder);
    if !folder.starts_with(workspace) {
        let message = format!(
            "the migrations are outside of what belongs to this project: they must be in {}",
            workspace.display()
        );
        return Err(bad(message, FOLDER_HELP));
    }
    let listed = std::fs::read_dir(&folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let listed = listed.map_err(|error| {
        let help = "create the folder, or correct the path";
        bad(format!("the migrations in {shown} can't be read: {error}"), help)
    })?;
    let names = listed.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".sql") && !name.starts_with('.')).collect();
    if names.len() > MOST_FILES {
        return Err(bad(
            format!("{shown} has more than {MOST_FILES} migrations"),
            "join old ones that all databases have",
        ));
    }
    names.sort_by(|a, b| compare_names(a, b));
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        let file = if shown.is_empty() { name.clone() } else { format!("{shown}/{name}") };
        let text = plain_file::read_through_links(&folder.join(&name), MOST_BYTES).map_err(|error| error.to_string());
        match text.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())) {
            Ok(text) => {
                let migration = Migration::new(&name, &file, &text);
                errors.extend(faults(&migration));
                files.push(migration);
            }
            Err(why) => {
                let message = format!("the migration can't be read: {why}");
                let help = "migrations are regular files in UTF-8";
                errors.push(Diagnostic::error(Code::BadSql, Place::file(&file), message, help));
            }
        }
    }
    let table = table.unwrap_or_else(|| DEFAULT_TABLE.to_owned());
    match errors.is_empty() {
        true => Ok(DatabaseMigrations { table, files, folder: shown, place }),
        false => Err(errors),
    }
}

/// Returns what D1 would reject of a migration.
fn faults(migration: &Migration) -> Vec<Diagnostic> {
    let sql = &*migration.sql;
    let place = |offset: usize| {
        let (line, column) = position(sql, offset);
        Place { line, column, ..Place::file(&migration.file) }
    };
    let all = match statements(sql) {
        Ok(all) => all,
        Err(unfinished) => {
            let message = format!("{} has no end", unfinished.what);
            let help = "D1 rejects the migration: end what begins here";
            return vec![Diagnostic::error(Code::BadSql, place(unfinished.start), message, help)];
        }
    };
    if all.is_empty() {
        let help = "D1 rejects a query without a statement: write one, such as `SELECT 1;`, or delete the file";
        return vec![Diagnostic::error(Code::BadSql, place(0), "the migration has no statement", help)];
    }
    let fault = |statement: &Statement| {
        let (word, length) = (first_word(sql, statement), statement.end - statement.start);
        let (message, help) = match () {
            () if REJECTED.contains(&word.as_str()) => (
                format!("D1 doesn't run {word} in a migration"),
                "remove the statement: each migration is a transaction of its own, which D1 begins and ends",
            ),
            () if length > MAX_STATEMENT => (
                format!(
                    "the statement has {} bytes, but D1 accepts at most {}",
                    grouped(length as u64),
                    grouped(MAX_STATEMENT as u64)
                ),
                "split it into several statements",
            ),
            () => return None,
        };
        Some(Diagnostic::error(Code::BadSql, place(statement.start), message, help))
    };
    all.iter().filter_map(fault).collect()
}
