//! `flotilla check`.

use serde::Serialize;

use crate::build;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

use super::report::{self, count};
use super::selection::Selection;
use super::{Format, Session};

#[derive(Serialize)]
struct Report<'a> {
    customers: usize,
    errors: usize,
    warnings: usize,
    diagnostics: &'a [Diagnostic],
}

pub(super) fn run(session: &Session, selection: &Selection) -> Result<Exit, Failure> {
    let (customers, diagnostics) = match build::load(&session.root, &session.ui) {
        Ok(loaded) => {
            selection.verify(&session.ui, &loaded)?;
            (selection.count(&loaded), loaded.diagnostics)
        }
        Err(diagnostics) => (crate::project::spec_files(&session.root).map_or(0, |files| files.len()), diagnostics),
    };
    let diagnostics: Vec<Diagnostic> =
        diagnostics.into_iter().filter(|diagnostic| selection.concerns(diagnostic)).collect();
    let (errors, warnings) = report::counts(&diagnostics);
    match session.format {
        Format::Json => session.json(&Report { customers, errors, warnings, diagnostics: &diagnostics })?,
        Format::Text => {
            report::diagnostics(&session.root, &session.ui, &diagnostics);
            let found = match (errors, warnings) {
                (0, 0) => "no mistakes".to_owned(),
                (errors, 0) => count(errors, "error"),
                (0, warnings) => count(warnings, "warning"),
                (errors, warnings) => format!("{} and {}", count(errors, "error"), count(warnings, "warning")),
            };
            report::print(&format!("checked {}: {found}", count(customers, "customer")));
        }
    }
    Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done })
}
