//! `flotilla check`.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::build;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::tree::Tree;

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
    let tree = Tree::new(&session.root);
    let surveyed = build::open(tree.clone()).and_then(|project| build::survey(&project, false, &session.ui));
    let (customers, diagnostics) = match surveyed {
        Ok(survey) => {
            selection.verify(&survey)?;
            let selected: BTreeSet<&str> = selection.customers.iter().map(String::as_str).collect();
            let customers = if selected.is_empty() { survey.customers } else { selected.len() };
            (customers, survey.diagnostics)
        }
        Err(diagnostics) => (crate::project::spec_files(&tree).map_or(0, |files| files.len()), diagnostics),
    };
    let diagnostics: Vec<Diagnostic> =
        diagnostics.into_iter().filter(|diagnostic| selection.concerns(diagnostic)).collect();
    let (errors, warnings) = report::counts(&diagnostics);
    match session.format {
        Format::Json => report::json(&Report { customers, errors, warnings, diagnostics: &diagnostics })?,
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
