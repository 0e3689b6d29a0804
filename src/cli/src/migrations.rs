//! `flotilla migrations`: the migrations of the packs' D1 databases, where they were applied, and how to apply them without a deploy.

mod new;

use clap::Subcommand;
use serde::Serialize;

use flotilla_build::build;
use flotilla_deploy::pace::Priority;
use flotilla_engine::RunKind;
use flotilla_engine::databases::rehearse;
use flotilla_engine::deploy_fleet::{DeployRequest, deploy_fleet};
use flotilla_engine::planning::PlanRequest;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use super::apply::ApplyArguments;
use super::cloud::{CloudArguments, CustomersArguments};
use super::database_rows::{DatabaseRow, databases};
use super::deploy::report_deployed;
use super::report::{self, count};
use super::selection::Selection;
use super::table::{Cell, Column, Fit, Table};
use super::ui::clean;
use super::{Format, Session, summary};

/// The columns of the list.
const FILES: [Column<'_>; 7] = [
    Column::new("pack", Fit::Whole(3)),
    Column::new("binding", Fit::Whole(4)),
    Column::new("migration", Fit::Name),
    Column::new("applied", Fit::Whole(5)),
    Column::number("done", Fit::Name),
    Column::number("pending", Fit::Name),
    Column::number("unknown", Fit::Name),
];
/// The columns of the status.
const DATABASES: [Column<'_>; 5] = [
    Column::new("customer", Fit::Name),
    Column::new("environment", Fit::Whole(3)),
    Column::new("database", Fit::Name),
    Column::new("applied", Fit::Whole(2)),
    Column::new("status", Fit::Whole(1)),
];

#[derive(Subcommand)]
pub(super) enum Arguments {
    /// List the migrations of the packs, with the number of databases that have each
    List(CloudArguments),
    /// Show for each database what was applied, and what is pending
    Status(CustomersArguments),
    /// Apply pending migrations without uploading workers
    Apply(Apply),
    /// Create the next migration of a pack
    New(new::Arguments),
}

#[derive(clap::Args)]
pub(super) struct Apply {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    cloud: CloudArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments {
        Arguments::List(cloud) => list(session, cloud),
        Arguments::Status(arguments) => status(session, arguments),
        Arguments::Apply(arguments) => summary::of("flotilla migrations apply", session, apply(session, arguments)),
        Arguments::New(arguments) => new::run(session, arguments),
    }
}

/// A migration of a pack, and the number of databases that have it.
#[derive(Serialize)]
struct FileRow<'a> {
    pack: &'a str,
    binding: &'a str,
    table: &'a str,
    migration: &'a str,
    file: &'a str,
    after_upload: bool,
    /// Databases to which it was applied.
    done: usize,
    /// Databases to which it wasn't.
    pending: usize,
    /// Databases whose table was not read yet.
    unknown: usize,
}

fn list(session: &Session, arguments: &CloudArguments) -> Result<Exit, Failure> {
    let loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    let (_, cloud, state) = arguments.open(session, &loaded.project.fleet)?;
    let databases = databases(&loaded, &cloud, &state, |_| true)?;
    let mut rows = Vec::new();
    for (pack, (binding, all)) in
        loaded.project.fleet.packs.iter().flat_map(|(name, pack)| pack.databases.iter().map(move |all| (name, all)))
    {
        let of: Vec<&DatabaseRow> =
            databases.iter().filter(|row| row.pack == *pack && row.binding == *binding).collect();
        let unknown = of.iter().filter(|row| !row.known).count();
        for file in &all.files {
            let done = of.iter().filter(|row| row.applied.contains(&file.name)).count();
            rows.push(FileRow {
                pack,
                binding,
                table: &all.table,
                migration: &file.name,
                file: &file.file,
                after_upload: file.is_after,
                done,
                pending: of.len() - unknown - done,
                unknown,
            });
        }
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "migrations": rows }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&FILES);
    for row in &rows {
        table.row([
            Cell::from(clean(row.pack)),
            Cell::from(clean(row.binding)),
            Cell::from(clean(row.migration)),
            Cell::from(if row.after_upload { "after the upload" } else { "before the upload" }),
            Cell::from(row.done.to_string()),
            Cell::from(row.pending.to_string()),
            Cell::from(row.unknown.to_string()),
        ]);
    }
    table.print(&session.ui);
    report::print(&format!("{}, {}", count(rows.len(), "migration"), count(databases.len(), "database")));
    Ok(Exit::Done)
}

fn status(session: &Session, arguments: &CustomersArguments) -> Result<Exit, Failure> {
    let CustomersArguments { selection, cloud } = arguments;
    let mut loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    let (_, cloud, state) = cloud.open(session, &loaded.project.fleet)?;
    let rows = databases(&loaded, &cloud, &state, |worker| selection.includes(worker))?;
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "databases": rows }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&DATABASES);
    for row in &rows {
        let all = row.applied.len() + row.pending.len();
        let applied = if row.known { format!("{} of {all}", row.applied.len()) } else { String::new() };
        table.row([
            Cell::from(clean(&row.customer)),
            Cell::from(row.environment.as_ref()),
            Cell::from(clean(&row.database)),
            Cell::from(applied),
            row.status(),
        ]);
    }
    table.print(&session.ui);
    let behind = rows.iter().filter(|row| row.is_behind()).count();
    report::print(&format!("{}, {behind} behind", count(rows.len(), "database")));
    Ok(Exit::Done)
}

fn apply(session: &Session, arguments: &Apply) -> Result<Exit, Failure> {
    if arguments.apply.approval().is_dry_run() {
        try_in_memory(session)?;
    }
    session.operator.write_events(arguments.apply.events.as_deref())?;
    let request = DeployRequest {
        plan: PlanRequest {
            selection: (*arguments.selection).clone(),
            cloud: arguments.cloud.options(),
            only_databases: true,
            ..PlanRequest::default()
        },
        reviewed: None,
        approval: arguments.apply.approval(),
        max_deletions: arguments.apply.max_deletions,
        kind: RunKind { name: "migrations", reason: "", ahead: false, priority: Priority::Bulk },
        verify: None,
    };
    let deployed = deploy_fleet(&session.context(), request)?;
    report_deployed(session, "flotilla migrations apply", deployed, &arguments.apply, None)
}

/// Applies the migrations of each pack to an empty database in memory: a dry run sends nothing to Cloudflare.
fn try_in_memory(session: &Session) -> Result<(), Failure> {
    let fleet = project::read_fleet(&Tree::new(&session.root)).map_err(Failure::invalid)?;
    let all: Vec<_> = fleet.packs.values().flat_map(|pack| pack.databases.values()).collect();
    let errors: Vec<_> = all.iter().filter_map(|all| rehearse(all)).collect();
    if !errors.is_empty() {
        return Err(Failure::invalid(errors));
    }
    let number = count(all.iter().map(|all| all.files.len()).sum(), "migration");
    session.ui.note(&format!("{number} applied to empty databases in memory without an error"));
    Ok(())
}
