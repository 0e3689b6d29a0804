//! The migrations of D1 databases: files of SQL in order, and the statements of a file. Knows SQL as far as where a statement ends; runs none
//! and reads no files.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::Place;
use crate::digest::Digest;

/// The table in which a database records its migrations, unless another is set. Source: wrangler 4.164, `migrations_table`.
pub const DEFAULT_TABLE: &str = "d1_migrations";
/// The maximum length, in bytes, of a statement. Source: Cloudflare docs, D1 › Limits, "Maximum SQL statement length".
pub const MAX_STATEMENT: usize = 100_000;
/// The comment by which a migration is applied after the upload.
const AFTER: &str = "-- flotilla: after";

/// A migration of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its name, as the table has it: `0002_add_orders.sql`.
    pub name: String,
    /// Its file from the project's root, with `/`.
    pub file: String,
    /// The digest of its text, the line ends apart.
    pub digest: Digest,
    /// Its text, with `\n` at the ends of lines.
    pub sql: Arc<str>,
    /// Whether it is applied after the upload.
    pub is_after: bool,
}

impl Migration {
    /// Returns the migration of a file's text. Line ends are those of Unix, so that a checkout on Windows is the same migration, and because
    /// Cloudflare splits statements with other ones wrongly (workers-sdk, issue 14991).
    pub fn new(name: &str, file: &str, text: &str) -> Migration {
        let sql: Arc<str> = text.replace("\r\n", "\n").into();
        let comments = sql.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with("--"));
        let is_after = comments.into_iter().any(|line| line == AFTER);
        let digest = Digest::of(sql.as_bytes());
        Migration { name: name.to_owned(), file: file.to_owned(), digest, sql, is_after }
    }
}

/// The migrations of a database that a pack's workers are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseMigrations {
    /// The table in which the database records them.
    pub table: String,
    /// The migrations, in order.
    pub files: Vec<Migration>,
    /// Their folder from the project's root, with `/`.
    pub folder: String,
    /// The place that names the folder.
    pub place: Place,
}

/// A difference between a pack's migrations and what was applied to a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A migration was edited after it was applied.
    Edited(String),
    /// A migration was applied, and the pack doesn't have it any more.
    Removed(String),
}

impl DatabaseMigrations {
    /// Returns the indices of the migrations that are pending, given the names and digests of those that were applied.
    pub fn pending(&self, applied: &BTreeMap<String, Option<Digest>>) -> Vec<usize> {
        (0..self.files.len()).filter(|index| !applied.contains_key(&self.files[*index].name)).collect()
    }

    /// Returns what contradicts that these were applied. Of a migration that another tool applied, the text is unknown.
    pub fn faults(&self, applied: &BTreeMap<String, Option<Digest>>) -> Vec<Fault> {
        let known = applied.iter().filter_map(|(name, digest)| Some((name, (*digest)?)));
        let fault = |(name, digest): (&String, Digest)| match self.files.iter().find(|file| file.name == *name) {
            None => Some(Fault::Removed(name.clone())),
            Some(file) if file.digest != digest => Some(Fault::Edited(name.clone())),
            Some(_) => None,
        };
        known.filter_map(fault).collect()
    }

    /// Returns the number of these pending migrations that come before the upload: all up to the last one that isn't marked to come after it,
    /// as the order of migrations never changes.
    pub fn before_upload(&self, pending: &[usize]) -> usize {
        pending.iter().rposition(|index| !self.files[*index].is_after).map_or(0, |last| last + 1)
    }

    /// Returns the query that creates the table, unless it exists.
    pub fn create_table(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {}(\n\tid         INTEGER PRIMARY KEY AUTOINCREMENT,\n\tname       TEXT UNIQUE,\n\tapplied_at \
             TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL\n);\n",
            self.quoted_table()
        )
    }

    /// Returns the query that reads which migrations were applied.
    pub fn read_table(&self) -> String {
        format!("SELECT name FROM {} ORDER BY id", self.quoted_table())
    }

    /// Returns the query that applies a migration and records it, in one transaction.
    pub fn apply(&self, index: usize, creates_table: bool) -> String {
        let Migration { name, sql, .. } = &self.files[index];
        let create = if creates_table { self.create_table() } else { String::new() };
        // The last statement may have no semicolon, and a comment may be the last line.
        let end = if is_ended(sql) { "" } else { "\n;" };
        let name = name.replace('\'', "''");
        format!("{create}{sql}{end}\nINSERT INTO {} (name) VALUES ('{name}');", self.quoted_table())
    }

    fn quoted_table(&self) -> String {
        format!("\"{}\"", self.table.replace('"', "\"\""))
    }

    /// Returns the message of the platform where the table doesn't exist.
    pub fn is_missing_table(&self, message: &str) -> bool {
        message.contains(&format!("no such table: {}", self.table))
    }
}

/// Sorts names of migrations as wrangler does: by the number before `_`, then by the name; those without a number come last.
pub fn compare_names(a: &str, b: &str) -> Ordering {
    match (number(a), number(b)) {
        (Some(one), Some(other)) if one != other => one.cmp(&other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        _ => a.cmp(b),
    }
}

/// Returns the number at the beginning of a name.
pub fn number(name: &str) -> Option<u64> {
    let digits: String = name.split('_').next()?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A statement within a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The place of its first byte.
    pub start: usize,
    /// The place after its last byte, without the semicolon.
    pub end: usize,
    /// Whether a semicolon ends it.
    pub is_ended: bool,
}

/// A text whose end is missing: a string, a comment, or a trigger without its END.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The place of its first byte.
    pub start: usize,
    /// The part in words.
    pub what: &'static str,
}

/// A token: white space and comments are none.
struct Token<'a> {
    start: usize,
    end: usize,
    text: &'a str,
}

/// Splits a text into tokens: words, quoted names and texts, and single characters.
fn tokens(sql: &str) -> Result<Vec<Token<'_>>, Unfinished> {
    let bytes = sql.as_bytes();
    let (mut at, mut tokens) = (0, Vec::new());
    while at < bytes.len() {
        let (start, rest) = (at, &sql[at..]);
        let quoted = |close: char, what: &'static str| {
            // A quote is doubled within.
            let mut characters = rest.char_indices().skip(1).peekable();
            while let Some((place, character)) = characters.next() {
                if character == close {
                    if close != ']' && characters.peek().is_some_and(|(_, next)| *next == close) {
                        characters.next();
                        continue;
                    }
                    return Ok(start + place + 1);
                }
            }
            Err(Unfinished { start, what })
        };
        match bytes[at] {
            b'-' if rest.starts_with("--") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with("/*") => {
                let end = rest[2..].find("*/").ok_or(Unfinished { start, what: "a comment" })?;
                at += 2 + end + 2;
                continue;
            }
            byte if byte.is_ascii_whitespace() || byte == 0xef && rest.starts_with('\u{feff}') => {
                at += if byte == 0xef { 3 } else { 1 };
                continue;
            }
            b'\'' => at = quoted('\'', "a text in quotes")?,
            b'"' => at = quoted('"', "a name in quotes")?,
            b'`' => at = quoted('`', "a name in quotes")?,
            b'[' => at = quoted(']', "a name in brackets")?,
            byte if is_word(byte) => {
                at += rest.bytes().take_while(|byte| is_word(*byte)).count();
            }
            _ => at += 1,
        }
        tokens.push(Token { start, end: at, text: &sql[start..at] });
    }
    Ok(tokens)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Returns the statements of a text. The body of a trigger, with its semicolons, is part of one.
///
/// # Errors
/// Something in it has no end.
pub fn statements(sql: &str) -> Result<Vec<Statement>, Unfinished> {
    let tokens = tokens(sql)?;
    let is = |token: &Token<'_>, word: &str| token.text.eq_ignore_ascii_case(word);
    let (mut statements, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at].text == ";" {
            at += 1;
            continue;
        }
        let first = at;
        let mut words = tokens[first..].iter().map(|token| token.text.to_ascii_uppercase());
        let is_trigger = words.next().as_deref() == Some("CREATE")
            && words.find(|word| word != "TEMP" && word != "TEMPORARY").as_deref() == Some("TRIGGER");
        // The number of BEGIN and CASE without their END.
        let mut depth = 0;
        while at < tokens.len() && (tokens[at].text != ";" || depth > 0) {
            if is_trigger && (is(&tokens[at], "BEGIN") || is(&tokens[at], "CASE")) {
                depth += 1;
            } else if is_trigger && is(&tokens[at], "END") {
                depth = usize::saturating_sub(depth, 1);
            }
            at += 1;
        }
        if depth > 0 {
            return Err(Unfinished { start: tokens[first].start, what: "a trigger" });
        }
        statements.push(Statement { start: tokens[first].start, end: tokens[at - 1].end, is_ended: at < tokens.len() });
    }
    Ok(statements)
}

/// Returns whether a semicolon ends the last statement of a text.
fn is_ended(sql: &str) -> bool {
    statements(sql).is_ok_and(|statements| statements.last().is_none_or(|last| last.is_ended))
}

/// Returns the first word of a statement, in capital letters.
pub fn first_word(sql: &str, statement: &Statement) -> String {
    let text = &sql[statement.start..statement.end];
    text.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase()
}

/// Returns the line and the column of a place in a text, from 1; columns count characters.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        statements(sql).unwrap().iter().map(|statement| &sql[statement.start..statement.end]).collect()
    }

    #[test]
    fn statements_end_where_sqlite_ends_them() {
        assert_eq!(texts("SELECT 1; -- a; b\n;;\nSELECT ';' /* ; */ ; SELECT \"a;\"\"b\"").len(), 3);
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a WHEN new.x BEGIN\n  UPDATE a SET b = CASE WHEN 1 THEN 2 END;\n  DELETE FROM \
                       c;\nEND";
        assert_eq!(texts(&format!("{trigger};\nSELECT [x;y], `a;`")), [trigger, "SELECT [x;y], `a;`"]);
        // A column may be called so.
        assert_eq!(texts("CREATE TABLE t (begin TEXT, trigger TEXT); SELECT 'it''s; so'").len(), 2);
        assert!(texts(" -- nothing\n/* at all */ ;").is_empty());
        for (sql, what) in [
            ("SELECT 'a", "a text in quotes"),
            ("SELECT 1; /* a", "a comment"),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;", "a trigger"),
        ] {
            assert_eq!(statements(sql).unwrap_err().what, what);
        }
        let sql = "SELECT 1;\n ä; VACUUM x";
        let last = *statements(sql).unwrap().last().unwrap();
        assert_eq!((first_word(sql, &last).as_str(), position(sql, last.start)), ("VACUUM", (2, 5)));
    }

    fn set(files: &[(&str, &str)]) -> DatabaseMigrations {
        let files = files.iter().map(|(name, sql)| Migration::new(name, &format!("m/{name}"), sql)).collect();
        let place = Place::file("pack.yaml");
        DatabaseMigrations { table: DEFAULT_TABLE.to_owned(), files, folder: "m".to_owned(), place }
    }

    #[test]
    fn a_migration_and_its_record_are_one_query() {
        let all = set(&[
            ("1_a.sql", "SELECT 1"),
            ("2_it's.sql", "SELECT 1; -- end"),
            ("3.sql", "SELECT 1; -- ;\nSELECT 2 -- ;"),
        ]);
        assert_eq!(all.apply(0, false), "SELECT 1\n;\nINSERT INTO \"d1_migrations\" (name) VALUES ('1_a.sql');");
        assert_eq!(
            all.apply(1, false),
            "SELECT 1; -- end\nINSERT INTO \"d1_migrations\" (name) VALUES ('2_it''s.sql');"
        );
        assert_eq!(texts(&all.apply(2, true)).len(), 4);
        assert!(all.is_missing_table("no such table: d1_migrations: SQLITE_ERROR"));
    }

    #[test]
    fn names_are_in_wranglers_order_and_the_order_never_changes() {
        let mut names = ["b.sql", "10_a.sql", "0002_b.sql", "2_a.sql", "a.sql", "0001_x.sql"];
        names.sort_by(|a, b| compare_names(a, b));
        assert_eq!(names, ["0001_x.sql", "0002_b.sql", "2_a.sql", "10_a.sql", "a.sql", "b.sql"]);
        let after = "-- A clean-up.\n-- flotilla: after\nDROP TABLE t";
        let all =
            set(&[("1.sql", "SELECT 1"), ("2.sql", after), ("3.sql", "SELECT 3"), ("4.sql", after), ("5.sql", after)]);
        let is_after: Vec<bool> = all.files.iter().map(|file| file.is_after).collect();
        assert_eq!(is_after, [false, true, false, true, true]);
        assert_eq!(
            (all.before_upload(&[0, 1, 2, 3, 4]), all.before_upload(&[1, 3, 4]), all.before_upload(&[])),
            (3, 0, 0)
        );
        assert!(
            !Migration::new("1.sql", "1.sql", "SELECT 1;\n-- flotilla: after").is_after,
            "it stands before the statements"
        );
    }

    #[test]
    fn what_was_applied_is_compared_with_the_files() {
        let all = set(&[("1.sql", "SELECT 1"), ("2.sql", "SELECT 2\r\n"), ("3.sql", "SELECT 3")]);
        let same = Some(Digest::of(b"SELECT 2\n"));
        let applied = BTreeMap::from([
            ("0.sql".to_owned(), Some(Digest::of(b"gone"))),
            ("1.sql".to_owned(), Some(Digest::of(b"other"))),
            ("2.sql".to_owned(), same),
            ("unknown.sql".to_owned(), None),
        ]);
        assert_eq!(all.faults(&applied), [Fault::Removed("0.sql".to_owned()), Fault::Edited("1.sql".to_owned())]);
        assert_eq!(all.pending(&applied), [2]);
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(sql in "[a-zA-Z ;'\"`\\[\\]/*\\-\nä]{0,60}|(CREATE TRIGGER|BEGIN|CASE|END|;| ){0,12}") {
            if let Ok(statements) = statements(&sql) {
                let mut end = 0;
                for statement in statements {
                    prop_assert!(end <= statement.start && statement.start < statement.end);
                    end = statement.end;
                    position(&sql, end);
                }
            }
        }
    }
}
