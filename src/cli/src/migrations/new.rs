//! `flotilla migrations new`: the next file of a pack's migrations.

use std::sync::Arc;

use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::migrations::{DatabaseMigrations, number};
use flotilla_model::plain_file;
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use super::super::report;
use super::super::ui::clean;
use super::super::{Format, Session};

#[derive(clap::Args)]
pub(in super::super) struct Arguments {
    /// What the migration does, such as add_orders; it becomes part of the file's name
    #[arg(value_name = "NAME")]
    name: String,
    /// The pack [default: the only one with migrations]
    #[arg(long, value_name = "PACK")]
    pack: Option<String>,
    /// The binding of the database [default: the only one of the pack]
    #[arg(long, value_name = "BINDING")]
    binding: Option<String>,
    /// Apply it after the upload of the workers, as a clean-up
    #[arg(long)]
    after: bool,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let fleet = project::read_fleet(&Tree::new(&session.root)).map_err(Failure::invalid)?;
    let all =
        fleet.packs.iter().flat_map(|(pack, read)| read.databases.iter().map(move |(name, all)| (pack, name, all)));
    let is_named = |of: &Option<String>, name: &String| of.as_ref().is_none_or(|of| of == name);
    let found: Vec<(&String, &String, &Arc<DatabaseMigrations>)> =
        all.filter(|(pack, name, _)| is_named(&arguments.pack, pack) && is_named(&arguments.binding, name)).collect();
    let all = match found[..] {
        [(_, _, all)] => all,
        [] => {
            return Err(Failure::usage("no pack has such a database with migrations").hint(
                "add it to the pack's pack.yaml, `databases: { DB: { migrationsDir: migrations } }`, and create the folder; or to the \
                 wrangler configuration, `migrations_dir`",
            ));
        }
        _ => {
            let names: Vec<String> = found.iter().map(|(pack, name, _)| format!("{pack} {name}")).collect();
            return Err(Failure::usage("several databases have migrations: choose one with --pack and --binding")
                .hint(clean(&names.join(", "))));
        }
    };
    let words: String = arguments.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let words = words.trim_matches('_');
    if words.is_empty() || words.len() > 100 {
        return Err(Failure::usage("a migration's name has up to 100 letters, digits and underscores"));
    }
    let next = all.files.iter().filter_map(|file| number(&file.name)).max().unwrap_or(0) + 1;
    let name = format!("{next:04}_{words}.sql");
    let file = if all.folder.is_empty() { name.clone() } else { format!("{}/{name}", all.folder) };
    let path = plain_file::without_dots(&session.root.join(&file));
    let after = if arguments.after { "-- flotilla: after\n" } else { "" };
    let text = format!("-- Migration {next:04}: {}\n{after}", arguments.name.replace(['\n', '\r'], " "));
    AtomicFile::new(&path)
        .durable()
        .write(text.as_bytes())
        .map_err(|error| Failure::new(format!("{file} can't be written: {error}")))?;
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "file": file, "migration": name }))?,
        Format::Text => report::print(&format!("created {}: write its statements", clean(&file))),
    }
    Ok(Exit::Done)
}
