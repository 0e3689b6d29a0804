//! `flotilla check`.

use std::path::PathBuf;

use serde::Serialize;

use flotilla_build::build;
use flotilla_build::policy::Suppressed;
use flotilla_engine::databases::syntax_errors;
use flotilla_engine::implied;
use flotilla_model::diagnostic::Diagnostic;
use flotilla_model::failure::{Exit, Failure};
use flotilla_spec::project::spec_files;
use flotilla_spec::tree::Tree;

use super::report::{self, count, found};
use super::selection::Selection;
use super::{Output, Session, github, sarif, summary};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Append a Markdown summary to this file, such as "$GITHUB_STEP_SUMMARY"
    #[arg(long, value_name = "FILE")]
    pub(super) summary: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    customers: usize,
    errors: usize,
    warnings: usize,
    diagnostics: &'a [Diagnostic],
    suppressed: &'a [Suppressed],
}

pub(super) fn run(session: &Session, arguments: &Arguments, output: Output) -> Result<Exit, Failure> {
    let selection = &arguments.selection;
    let (customers, mut diagnostics, mut suppressed) = match build::open_and_scan(&session.root, &session.ui) {
        Ok((project, mut scan)) => {
            selection.verify(&session.operator, &project, &mut scan)?;
            // fleet.yaml's policy also applies to errors that depend on the day and the state.
            let mut found = implied::future_dates(&project, &scan, selection);
            found.extend(implied::missing_callees(&session.context(), &project, &scan, selection)?);
            found.extend(build::not_in_specs(&project, &scan));
            found.extend(build::missing_code(&project, &scan));
            found.extend(build::asset_errors(&project, &scan));
            let databases = project.fleet.packs.values().flat_map(|pack| pack.databases.values());
            found.extend(databases.flat_map(|all| syntax_errors(all)));
            scan.add_findings(&project, found);
            (selection.count(&scan), scan.diagnostics, scan.suppressed)
        }
        Err(diagnostics) => {
            let customers = spec_files(&Tree::new(&session.root)).map_or(0, |found| found.files.len());
            (customers, diagnostics, Vec::new())
        }
    };
    diagnostics.retain(|diagnostic| selection.concerns(diagnostic));
    suppressed.retain(|suppressed| selection.concerns(&suppressed.diagnostic));
    let (errors, warnings) = report::counts(&diagnostics);
    let off = match suppressed.len() {
        0 => String::new(),
        number => format!(", {number} suppressed"),
    };
    let checked = format!("checked {}: {}{off}", count(customers, "customer"), found(&diagnostics));
    match output {
        Output::Json => {
            session.json(&Report { customers, errors, warnings, diagnostics: &diagnostics, suppressed: &suppressed })?
        }
        Output::Text | Output::Markdown => {
            report::diagnostics(&session.root, &session.ui, &diagnostics);
            report::print(&checked);
        }
        Output::Github => {
            let commands = github::commands(&github::prefix(&session.root), &diagnostics);
            if !commands.is_empty() {
                report::print_commands(&commands);
            }
            session.ui.line(&checked);
        }
        Output::Sarif => {
            report::json(&session.ui, &sarif::log(&github::prefix(&session.root), &diagnostics, &suppressed))?;
            session.ui.line(&checked);
        }
    }
    summary::append(session.summary.as_deref(), &summary::check(customers, &diagnostics, suppressed.len()));
    Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done })
}
