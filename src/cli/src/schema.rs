//! `flotilla schema`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use flotilla_model::failure::{Exit, Failure};
use flotilla_model::plain_file;
use flotilla_model::text::with_unix_line_ends;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::schema;
use flotilla_spec::tree::Tree;

use super::report::{self, count};
use super::{Format, Session};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print this schema instead of writing all of them
    #[arg(value_enum)]
    print: Option<Which>,
    /// Write nothing; exit with 3 if schema/ is out of date
    #[arg(long, conflicts_with = "print")]
    check: bool,
}

/// The maximum size, in bytes, of a schema that are read to compare it.
const LIMIT: u64 = 64 << 20;

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Customer,
    Fleet,
    Layer,
    Pack,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    // The schemas have the destination types of all packs.
    let fleet = project::read_fleet(&Tree::new(&session.root)).map_err(Failure::invalid)?;
    if !fleet.broken_packs.is_empty() {
        return Err(Failure::invalid(fleet.broken_packs.into_values().flat_map(|pack| pack.errors).collect()));
    }
    if let Some(which) = arguments.print {
        let schema = schema_of(&fleet, which);
        match session.format {
            Format::Json => session.json(&schema)?,
            Format::Text => report::print(&format!("{schema:#}")),
        }
        return Ok(Exit::Done);
    }
    let outdated = update(session, &fleet, arguments.check)?;
    if session.format == Format::Json {
        let key = if arguments.check { "outdated" } else { "written" };
        session.json(&json!({ key: outdated }))?;
    } else {
        report::print(&match (outdated.len(), arguments.check) {
            (0, _) => "schema/ is current".to_owned(),
            (n, true) => {
                let differ = if n == 1 { "differs" } else { "differ" };
                format!("schema/ is out of date: {} {differ}; run `flotilla schema`", count(n, "file"))
            }
            (n, false) => format!("{} written to schema/", count(n, "file")),
        });
    }
    Ok(if arguments.check && !outdated.is_empty() { Exit::Pending } else { Exit::Done })
}

/// Returns the schemas of a project that has just been begun, by path.
pub(super) fn files(root: &Path) -> Vec<(PathBuf, String)> {
    let fleet =
        project::read_fleet(&Tree::new(root)).unwrap_or_else(|found| panic!("BUG: a new project has {found:?}"));
    of_fleet(root, &fleet)
}

fn of_fleet(root: &Path, fleet: &Fleet) -> Vec<(PathBuf, String)> {
    let folder = root.join("schema");
    let mut files = Vec::new();
    for which in [Which::Customer, Which::Fleet, Which::Layer, Which::Pack] {
        let name = match which {
            Which::Customer => "customer.schema.json",
            Which::Fleet => "fleet.schema.json",
            Which::Layer => "layer.schema.json",
            Which::Pack => "pack.schema.json",
        };
        files.push((folder.join(name), text(fleet, which)));
    }
    files
}

/// Writes the schemas that differ, unless it is dry; returns their paths.
fn update(session: &Session, fleet: &Fleet, dry: bool) -> Result<Vec<String>, Failure> {
    let mut differ = Vec::new();
    for (path, text) in of_fleet(&session.root, fleet) {
        let current = plain_file::inside(&session.root, &path).and_then(|file| plain_file::read(&file, LIMIT));
        if current.is_ok_and(|found| with_unix_line_ends(found) == text.as_bytes()) {
            continue;
        }
        let shown = path.strip_prefix(&session.root).unwrap_or(&path);
        differ.push(shown.to_string_lossy().into_owned());
        if !dry {
            report::write_file(&session.root, &path, text.as_bytes())?;
        }
    }
    Ok(differ)
}

fn text(fleet: &Fleet, which: Which) -> String {
    format!("{:#}\n", schema_of(fleet, which))
}

fn schema_of(fleet: &Fleet, which: Which) -> Value {
    let catalogue: Map<String, Value> = fleet.packs.values().flat_map(|pack| pack.catalogue.clone()).collect();
    let schema = match which {
        Which::Customer => schema::customer(Some(&catalogue)),
        Which::Fleet => schema::fleet(Some(&catalogue)),
        Which::Layer => schema::layer(Some(&catalogue)),
        Which::Pack => schema::pack(),
    };
    schema::published(schema)
}
