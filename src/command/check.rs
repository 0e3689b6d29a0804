//! `flotilla check`.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::build;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::policy::Suppressed;

use super::report::{self, count};
use super::selection::Selection;
use super::{Format, Session};

#[derive(Serialize)]
struct Report<'a> {
    customers: usize,
    errors: usize,
    warnings: usize,
    diagnostics: &'a [Diagnostic],
    suppressed: &'a [Suppressed],
}

pub(super) fn run(session: &Session, selection: &Selection) -> Result<Exit, Failure> {
    let (customers, diagnostics, suppressed) = match build::load(&session.root, &session.ui) {
        Ok(loaded) => {
            selection.verify(&loaded)?;
            let selected: BTreeSet<&str> = selection.customers.iter().map(String::as_str).collect();
            let customers = if selected.is_empty() { loaded.customers } else { selected.len() };
            (customers, loaded.diagnostics, loaded.suppressed)
        }
        Err(diagnostics) => {
            let customers = crate::project::spec_files(&session.root).map_or(0, |files| files.len());
            (customers, diagnostics, Vec::new())
        }
    };
    let diagnostics: Vec<Diagnostic> =
        diagnostics.into_iter().filter(|diagnostic| selection.concerns(diagnostic)).collect();
    let suppressed: Vec<Suppressed> =
        suppressed.into_iter().filter(|suppressed| selection.concerns(&suppressed.diagnostic)).collect();
    let (errors, warnings) = report::counts(&diagnostics);
    match session.format {
        Format::Json => {
            report::json(&Report { customers, errors, warnings, diagnostics: &diagnostics, suppressed: &suppressed })?
        }
        Format::Text => {
            report::diagnostics(&session.root, &session.ui, &diagnostics);
            let found = match (errors, warnings) {
                (0, 0) => "no mistakes".to_owned(),
                (errors, 0) => count(errors, "error"),
                (0, warnings) => count(warnings, "warning"),
                (errors, warnings) => format!("{} and {}", count(errors, "error"), count(warnings, "warning")),
            };
            let off = match suppressed.len() {
                0 => String::new(),
                number => format!(", {number} suppressed"),
            };
            report::print(&format!("checked {}: {found}{off}", count(customers, "customer")));
        }
    }
    Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done })
}
