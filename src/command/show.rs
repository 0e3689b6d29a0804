//! `flotilla show`.

use anyhow::Context as _;

use crate::build;
use crate::customer::Worker;
use crate::failure::{Exit, Failure};

use super::report;
use super::selection::Selection;
use super::{Format, Session};

pub(super) fn run(session: &Session, selection: &Selection) -> Result<Exit, Failure> {
    let loaded = match build::load(&session.root, &session.ui) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    selection.verify(&session.ui, &loaded.survey)?;
    let diagnostics: Vec<_> =
        loaded.survey.diagnostics.iter().filter(|diagnostic| selection.concerns(diagnostic)).cloned().collect();
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    let workers: Vec<&Worker> = loaded.workers.iter().filter(|worker| selection.includes(worker)).collect();
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "workers": workers }))?,
        Format::Text => {
            // One YAML document for each worker.
            for worker in workers {
                let text = serde_yaml::to_string(worker).context("a worker is YAML")?;
                report::print(&format!("---\n{}", text.trim_end()));
            }
        }
    }
    Ok(if report::counts(&diagnostics).0 > 0 { Exit::Diagnostics } else { Exit::Done })
}
