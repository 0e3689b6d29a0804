//! `flotilla list`: each worker on a line, as it is read, so that a hundred thousand customers are never in memory as text.

use std::io::{BufWriter, Write as _};

use rayon::prelude::*;
use serde::Serialize;

use flotilla_build::build::{self, Scan, id};
use flotilla_build::manifest::Record;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::Environment;

use super::cloud::CustomersArguments;
use super::report::{self, count};
use super::selection::Selection;
use super::stdout::{self, Stdout};
use super::table::{Cell, Column, Fit, Layout};
use super::ui::clean;
use super::worker_details::{Sources, WorkerDetails};
use super::{Format, Session};

/// The number of customers that are read at once; the columns are as wide as the first of them need.
const CHUNK: usize = 1024;
/// The columns of the table.
const COLUMNS: [Column<'_>; 9] = [
    Column::new("customer", Fit::Name),
    Column::new("environment", Fit::Whole(3)),
    Column::new("worker", Fit::Name),
    Column::new("account", Fit::Cut(5)),
    Column::new("zone", Fit::Cut(2)),
    Column::new("token", Fit::Whole(4)),
    Column::new("domain", Fit::Whole(1)),
    Column::new("database", Fit::Cut(6)),
    Column::new("database id", Fit::Whole(7)),
];

#[derive(Serialize)]
struct Row<'a> {
    customer: &'a str,
    environment: Environment,
    role: Option<&'a str>,
    worker: &'a str,
    #[serde(flatten)]
    pieces: WorkerDetails,
}

pub(super) fn run(session: &Session, arguments: &CustomersArguments) -> Result<Exit, Failure> {
    let (project, mut scan) = build::open_and_scan(&session.root, &session.ui).map_err(Failure::invalid)?;
    let selection = &arguments.selection;
    selection.verify(&session.operator, &project, &mut scan)?;
    let diagnostics: Vec<_> = scan.diagnostics.iter().filter(|found| selection.concerns(found)).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    let sources = Sources::open(session, &project.fleet, &arguments.cloud)?;
    let invalid: Vec<&str> =
        scan.held.iter().map(String::as_str).filter(|id| *id != SHARED && selection.includes_id(id)).collect();
    let stdout = BufWriter::with_capacity(1 << 16, Stdout);
    let mut out = Out { stdout, layout: None };
    let (mut workers, mut customers) = (0, 0);
    if session.format == Format::Json {
        out.write("{\"workers\":[");
    }
    for records in scan.records.chunks(CHUNK) {
        let read: Vec<Vec<Worker>> = records.par_iter().map(|record| of(&project, &scan, record, selection)).collect();
        customers += read.iter().filter(|of| of.first().is_some_and(|worker| worker.customer != SHARED)).count();
        let mut cells = Vec::new();
        for worker in read.iter().flatten() {
            let row = Row {
                customer: &worker.customer,
                environment: worker.environment,
                role: worker.role.as_deref(),
                worker: &worker.name,
                pieces: sources.of(worker)?,
            };
            match session.format {
                Format::Json => {
                    let comma = if workers == 0 { "" } else { "," };
                    out.write(&format!("{comma}{}", super::report::json_text(&row).map_err(anyhow::Error::from)?));
                }
                Format::Text => cells.push(row.cells()),
            }
            workers += 1;
        }
        out.rows(cells);
        if stdout::is_closed() {
            break;
        }
    }
    session.ui.end();
    match session.format {
        Format::Json => {
            let mut end = serde_json::json!({"customers": customers, "invalid": invalid});
            if let Some(timings) = session.ui.timings() {
                end["timings"] = serde_json::to_value(timings).map_err(anyhow::Error::from)?;
            }
            // The rest of the object, without its opening brace.
            out.write(&format!("],{}\n", &end.to_string()[1..]));
        }
        Format::Text => {
            for id in &invalid {
                out.write(&format!("{}  has errors\n", clean(id)));
            }
            let held = match invalid.len() {
                0 => String::new(),
                number => format!(" · {} with errors", count(number, "customer")),
            };
            out.write(&format!("{} of {}{held}\n", count(workers, "worker"), count(customers, "customer")));
        }
    }
    let _ = out.stdout.flush();
    drop(out);
    let errors = report::counts(&diagnostics).0;
    // The process ends here: a hundred thousand records need not be put away one by one.
    std::mem::forget(scan);
    Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done })
}

/// The selected workers of a customer without errors.
fn of(project: &build::Project, scan: &Scan, record: &Record, selection: &Selection) -> Vec<Worker> {
    if scan.held.contains(id(record)) {
        return Vec::new();
    }
    let units = record.units.iter().filter(|unit| selection.includes_unit(record, unit));
    units.filter_map(|unit| scan.worker(project, record, unit)).collect()
}

impl Row<'_> {
    fn cells(&self) -> Vec<Cell> {
        let pieces = &self.pieces;
        let texts = [
            clean(self.customer),
            self.environment.as_ref().to_owned(),
            clean(self.worker),
            clean(&pieces.account()),
            clean(&pieces.zones()),
            pieces.token.to_owned(),
            clean(&pieces.domains()),
            clean(&pieces.database()),
            clean(&pieces.database_id()),
        ];
        texts.into_iter().map(Cell::from).collect()
    }
}

/// The output.
struct Out {
    stdout: BufWriter<Stdout>,
    layout: Option<Layout<'static>>,
}

impl Out {
    fn write(&mut self, text: &str) {
        if !stdout::is_closed() {
            // The error is kept.
            let _ = self.stdout.write_all(text.as_bytes());
        }
    }

    fn rows(&mut self, rows: Vec<Vec<Cell>>) {
        if rows.is_empty() {
            return;
        }
        let cells = || rows.iter().map(Vec::as_slice);
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => {
                let layout = Layout::new(&COLUMNS, cells(), stdout::columns());
                self.write(&(layout.head() + "\n"));
                layout
            }
        };
        for row in &rows {
            self.write(&(layout.row(row, &|_, text| text.to_owned()) + "\n"));
        }
        self.layout = Some(layout);
    }
}
