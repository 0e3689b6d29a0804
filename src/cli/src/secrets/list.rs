//! `flotilla secrets list`.

use std::collections::BTreeSet;

use flotilla_model::failure::{Exit, Failure};

use super::super::cloud::CustomersArguments;
use super::super::report::{self, count};
use super::super::table::{Cell, Column, Fit, Table};
use super::super::ui::{Style, clean};
use super::super::{Format, Session};
use super::{Row, Status, live, open};

/// The options of `flotilla secrets list`.
#[derive(clap::Args)]
pub(in super::super) struct Arguments {
    #[command(flatten)]
    customers: CustomersArguments,
    /// Compare with the secrets that are set at Cloudflare, one request per worker; exits with 1 if a deployed worker lacks one
    #[arg(long)]
    live: bool,
}

/// The columns of the table.
const COLUMNS: [Column<'_>; 6] = [
    Column::new("customer", Fit::Name),
    Column::new("environment", Fit::Whole(3)),
    Column::new("worker", Fit::Whole(4)),
    Column::new("secret", Fit::Name),
    Column::new("source", Fit::Cut(2)),
    Column::new("status", Fit::Whole(1)),
];

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let Arguments { customers: arguments, live } = arguments;
    let mut opened = open(session, &arguments.cloud)?;
    let loaded = &mut opened.loaded;
    arguments.selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    if *live {
        return live::run(session, opened, &arguments.selection);
    }
    let needs = opened.needs(session, |worker| arguments.selection.includes(worker))?;
    let rows: Vec<Row> = needs.into_iter().flat_map(|needs| needs.rows).collect();
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "secrets": rows }))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&COLUMNS);
    for row in &rows {
        let status = match row.status {
            Status::Unchanged => Cell::styled("deployed", Style::Dim),
            Status::Changed => Cell::styled("deployed, changes with the next deploy", Style::Warning),
            Status::New => Cell::styled("sent with the next deploy", Style::Good),
            Status::Kept => Cell::styled("deployed, unchanged", Style::Dim),
            Status::Missing => Cell::styled("missing", Style::Error),
        };
        table.row([
            Cell::from(clean(&row.customer)),
            Cell::from(row.environment.as_ref()),
            Cell::from(clean(&row.worker)),
            Cell::from(clean(&row.binding)),
            Cell::from(from(row)),
            status,
        ]);
    }
    table.print(&session.ui);
    // Once for each source, and not in each row.
    let hidden: BTreeSet<&str> = rows.iter().filter_map(|row| row.hidden.as_deref()).collect();
    for reason in hidden {
        session.ui.line(&format!("{} {}", session.ui.paint(Style::Warning, "!"), clean(reason)));
    }
    let missing = rows.iter().filter(|row| row.status == Status::Missing).count();
    report::print(&format!("{}, {missing} missing", count(rows.len(), "secret")));
    Ok(Exit::Done)
}

/// Returns the source of a value, with its name there if that isn't the binding's.
fn from(row: &Row) -> String {
    match (&row.source, &row.found_as, &row.unreadable) {
        (Some(source), Some(name), _) if *name != row.binding => format!("{} ({name})", clean(source)),
        (Some(source), ..) => clean(source),
        (None, _, Some(source)) => format!("{} can't be read", clean(source)),
        (None, ..) => format!("{} not found", row.name),
    }
}
