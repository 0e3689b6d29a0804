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
use super::columns;
use super::report::{self, count};
use super::selection::Selection;
use super::stdout::{self, Stdout};
use super::ui::clean;
use super::worker_details::{Sources, WorkerDetails};
use super::{Format, Session};

/// The number of customers that are read at once; the columns are as wide as the first of them need.
const CHUNK: usize = 1024;
/// A column that has to give way keeps so many characters.
const LEAST: usize = 8;
/// The space between two columns.
const GAP: &str = "  ";
const HEAD: [&str; 9] =
    ["customer", "environment", "worker", "account", "zone", "token", "domain", "database", "database id"];

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
    let mut out = Out { stdout: BufWriter::with_capacity(1 << 16, Stdout), widths: None };
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
                out.write(&format!("{}{GAP}has errors\n", clean(id)));
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
    fn cells(&self) -> [String; 9] {
        let pieces = &self.pieces;
        [
            clean(self.customer),
            self.environment.as_ref().to_owned(),
            clean(self.worker),
            clean(&pieces.account()),
            clean(&pieces.zones()),
            pieces.token.to_owned(),
            clean(&pieces.domains()),
            clean(&pieces.database()),
            clean(&pieces.database_id()),
        ]
    }
}

/// The output.
struct Out {
    stdout: BufWriter<Stdout>,
    widths: Option<[usize; 9]>,
}

impl Out {
    fn write(&mut self, text: &str) {
        if !stdout::is_closed() {
            // The error is kept.
            let _ = self.stdout.write_all(text.as_bytes());
        }
    }

    fn rows(&mut self, rows: Vec<[String; 9]>) {
        if rows.is_empty() {
            return;
        }
        let terminal = stdout::columns();
        let widths = match self.widths {
            Some(widths) => widths,
            None => {
                let widths = widths(&rows, terminal);
                self.widths = Some(widths);
                self.write(&line(&HEAD.map(str::to_owned), &widths, terminal.is_some()));
                widths
            }
        };
        for row in rows {
            self.write(&line(&row, &widths, terminal.is_some()));
        }
    }
}

/// Returns the widths that the rows need; where that is too much, the widest columns are cut.
fn widths(rows: &[[String; 9]], limit: Option<usize>) -> [usize; 9] {
    let mut widths = HEAD.map(columns::width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns::width(cell));
        }
    }
    let gaps = GAP.len() * (HEAD.len() - 1);
    while limit.is_some_and(|limit| widths.iter().sum::<usize>() + gaps > limit) {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => break,
        }
    }
    widths
}

fn line(cells: &[String; 9], widths: &[usize; 9], cut: bool) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let shown = if cut { columns::cut(cell, *width) } else { cell.clone() };
        line += &columns::pad(&shown, *width);
        line += GAP;
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal() {
        let mut row = HEAD.map(str::to_owned);
        row[6] = "a-very-long-name-of-a-shop.of-a-customer.example.com".to_owned();
        row[4] = "of-a-customer.example.com".to_owned();
        let rows = vec![row.clone()];
        assert_eq!(widths(&rows, None)[6], row[6].len());
        let narrow = widths(&rows, Some(120));
        assert_eq!(narrow.iter().sum::<usize>() + 16, 120);
        assert_eq!(narrow[5], 8.min("token".len()), "the narrow ones keep theirs");
        let shown = line(&row, &narrow, true);
        assert!(shown.chars().count() <= 121 && shown.contains("a-very-long") && shown.contains('…'), "{shown}");
        assert!(line(&row, &narrow, false).contains(&row[6]), "nothing is cut where there is no terminal");
        // Less than all of them need at the least is nobody's table.
        assert!(widths(&rows, Some(10)).iter().all(|width| *width <= LEAST));
    }
}
