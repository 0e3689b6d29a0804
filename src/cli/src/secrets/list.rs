//! `flotilla secrets list`.

use flotilla_model::failure::{Exit, Failure};

use super::super::cloud::CustomersArguments;
use super::super::report::{self, count};
use super::super::ui::{Style, clean};
use super::super::{Format, Session};
use super::{Row, Status, open};

pub(super) fn run(session: &Session, arguments: &CustomersArguments) -> Result<Exit, Failure> {
    let mut opened = open(session, &arguments.cloud)?;
    let loaded = &mut opened.loaded;
    arguments.selection.verify(&session.operator, &loaded.project, &mut loaded.scan)?;
    let needs = opened.needs(session, |worker| arguments.selection.includes(worker))?;
    let rows: Vec<Row> = needs.into_iter().flat_map(|needs| needs.rows).collect();
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "secrets": rows }))?;
        return Ok(Exit::Done);
    }
    let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
    let (customer, worker, binding) = (width(|row| &row.customer), width(|row| &row.worker), width(|row| &row.binding));
    let from: Vec<String> = rows.iter().map(from).collect();
    let wide = from.iter().map(|from| from.chars().count()).max().unwrap_or(0);
    for (row, from) in rows.iter().zip(&from) {
        let (style, word) = match row.status {
            Status::Unchanged => (Style::Dim, "deployed"),
            Status::Changed => (Style::Warning, "deployed, changes with the next deploy"),
            Status::New => (Style::Good, "sent with the next deploy"),
            Status::Kept => (Style::Dim, "deployed, unchanged"),
            Status::Missing => (Style::Error, "missing"),
        };
        report::print(&format!(
            "{:customer$}  {:11}  {:worker$}  {:binding$}  {from:wide$}  {}",
            row.customer,
            row.environment.as_ref(),
            row.worker,
            row.binding,
            session.ui.paint(style, word)
        ));
    }
    let missing = rows.iter().filter(|row| row.status == Status::Missing).count();
    report::print(&format!("{}, {missing} missing", count(rows.len(), "secret")));
    Ok(Exit::Done)
}

/// Returns the source of a value, with its name there if that isn't the binding's.
fn from(row: &Row) -> String {
    match (&row.source, &row.found_as, &row.hidden) {
        (Some(source), Some(name), _) if *name != row.binding => format!("{} ({name})", clean(source)),
        (Some(source), ..) => clean(source),
        (None, _, Some(hidden)) => clean(hidden),
        (None, ..) => format!("{} is nowhere", row.name),
    }
}
