//! `flotilla schema`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Map, Value};

use flotilla_model::failure::{Exit, Failure};
use flotilla_model::plain_file;
use flotilla_model::text::with_unix_line_ends;
use flotilla_spec::project::{self, Fleet};
use flotilla_spec::schema;
use flotilla_spec::tree::Tree;

use super::Session;
use super::report::{self, count};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print this schema instead of writing all of them
    #[arg(value_enum)]
    print: Option<Which>,
    /// Write nothing; exit with 3 if schema/ is out of date
    #[arg(long, conflicts_with = "print")]
    check: bool,
}

/// The most bytes of a schema that are read to compare it.
const LIMIT: u64 = 64 << 20;

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Customer,
    Fleet,
    Layer,
    Pack,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let fleet = match project::read_fleet(&Tree::new(&session.root)) {
        Ok(fleet) if fleet.broken_packs.is_empty() => fleet,
        // The schemas have the destination types of all packs.
        found => {
            let errors = found.map_or_else(
                |errors| errors,
                |fleet| fleet.broken_packs.into_values().flat_map(|pack| pack.errors).collect(),
            );
            report::diagnostics(&session.root, &session.ui, &errors);
            return Ok(Exit::Diagnostics);
        }
    };
    if let Some(which) = arguments.print {
        report::print(text(&fleet, which).trim_end());
        return Ok(Exit::Done);
    }
    let differ = update(session, &fleet, arguments.check)?;
    report::print(&match (differ, arguments.check) {
        (0, _) => "schema/ is current".to_owned(),
        (n, true) => format!("schema/ is out of date: {} differ; run `flotilla schema`", count(n, "file")),
        (n, false) => format!("{} written to schema/", count(n, "file")),
    });
    Ok(if arguments.check && differ > 0 { Exit::Pending } else { Exit::Done })
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

/// Writes the schemas that differ, or only counts them.
fn update(session: &Session, fleet: &Fleet, dry: bool) -> Result<usize, Failure> {
    let mut differ = 0;
    for (path, text) in of_fleet(&session.root, fleet) {
        let current = plain_file::inside(&session.root, &path).and_then(|file| plain_file::read(&file, LIMIT));
        if current.is_ok_and(|found| with_unix_line_ends(found) == text.as_bytes()) {
            continue;
        }
        differ += 1;
        if !dry {
            report::write_file(&session.root, &path, text.as_bytes())?;
        }
    }
    Ok(differ)
}

fn text(fleet: &Fleet, which: Which) -> String {
    let catalogue: Map<String, Value> = fleet.packs.values().flat_map(|pack| pack.catalogue.clone()).collect();
    let schema = match which {
        Which::Customer => schema::customer(Some(&catalogue)),
        Which::Fleet => schema::fleet(Some(&catalogue)),
        Which::Layer => schema::layer(Some(&catalogue)),
        Which::Pack => schema::pack(),
    };
    format!("{:#}\n", schema::published(schema))
}
