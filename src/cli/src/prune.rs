//! `flotilla prune`: deletes what no spec owns any more, and tells of domains and routes that lead nowhere.

use flotilla_deploy::refresh::{Finding, What};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, Home};

use super::apply::{ApplyArguments, Kind};
use super::cloud::{CloudArguments, FOLDER};
use super::deploy::{LOCK, apply_plan};
use super::plan::{LineArguments, line};
use super::preflight::ask;
use super::refresh::{self, Asking};
use super::report;
use super::{Format, Session, summary};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cloud: CloudArguments,
    #[command(flatten)]
    pub apply: ApplyArguments,
    /// Detach domains and remove routes that lead to workers which don't exist
    #[arg(long)]
    domains: bool,
}

/// Something that leads nowhere, and how it is removed.
fn removal(finding: &Finding) -> Option<(String, Call)> {
    match &finding.what {
        What::OrphanedDomain { domain, id, exists: false } => {
            Some((domain.clone(), Call::DetachDomain { id: id.clone() }))
        }
        What::OrphanedRoute { pattern, zone_id, id, exists: false } => {
            Some((pattern.clone(), Call::RemoveRoute { zone_id: zone_id.clone(), id: id.clone() }))
        }
        _ => None,
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    summary::of("flotilla prune", session, prune(session, arguments))
}

fn prune(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let _lock = Lock::take_from_all(&session.root.join(FOLDER).join(LOCK), "deploy")?;
    let line_arguments = LineArguments {
        cloud: arguments.cloud.clone(),
        prune: true,
        only_prune: true,
        refresh: true,
        applies: true,
        ..LineArguments::default()
    };
    let Some(mut planned) = line(session, &line_arguments)? else {
        return Ok(Exit::Diagnostics);
    };
    // The rest of what differs is for plan and deploy to tell.
    planned.findings.retain(|finding| matches!(finding.what, What::OrphanedDomain { .. } | What::OrphanedRoute { .. }));
    let nowhere: Vec<(Finding, String, Call)> = planned
        .findings
        .iter()
        .filter_map(|finding| removal(finding).map(|(name, call)| (finding.clone(), name, call)))
        .collect();
    if arguments.domains && !nowhere.is_empty() {
        for line in refresh::text(&session.ui, &nowhere.iter().map(|(finding, ..)| finding.clone()).collect::<Vec<_>>())
        {
            session.ui.line(&line);
        }
        let what = if nowhere.len() == 1 { "it".to_owned() } else { format!("these {}", nowhere.len()) };
        if !arguments.apply.yes && planned.cloud.local.is_none() {
            ask(&format!("remove {what}?"))?;
        }
        let id_of = |finding: &Finding| planned.cloud.home(&finding.account, None).account_id;
        let account_ids = nowhere.iter().map(|(finding, ..)| id_of(finding)).collect();
        let removals: Vec<(Home, String, Call)> = nowhere
            .iter()
            .map(|(finding, name, call)| {
                (Home { account_id: id_of(finding), namespace: None }, name.clone(), call.clone())
            })
            .collect();
        let fleet = &planned.project.fleet;
        let mut asking = Asking::new(session, fleet, &mut planned.cloud, &planned.secrets, &account_ids)?;
        for (home, name, call) in removals {
            asking.ask(&home, call)?;
            if session.format == Format::Text {
                report::print(&super::ui::clean(&format!("removed {name}")));
            }
        }
        planned.findings.retain(|finding| removal(finding).is_none());
    }
    apply_plan(
        session,
        planned,
        &arguments.apply,
        &Kind { what: "prune", command: "flotilla prune", reason: "", ahead: false },
        None,
    )
}
