//! Rebuilds the state from what the platform has.

use std::collections::BTreeSet;

use flotilla_deploy::refresh::{Finding, What};
use flotilla_deploy::state::State;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;

use crate::cloud::CloudOptions;
use crate::context::{Context, LOCK};
use crate::operator::{Approval, Question};
use crate::planning::{DesiredFleet, desired_fleet};
use crate::refresh::{self, RefreshOptions};

/// A state that was rebuilt.
pub struct Rebuilt {
    /// The number of workers that it has now.
    pub workers: usize,
    /// The number of workers whose row was corrected.
    pub corrected: usize,
    /// The number of workers that the state had and the platform hasn't.
    pub missing: usize,
    /// The differences of the platform from the specs.
    pub findings: Vec<Finding>,
    /// The accounts that could not be listed: the state has them as it had.
    pub refused: Vec<(String, Failure)>,
}

impl Rebuilt {
    /// Returns the number of findings of a kind.
    pub fn number(&self, is: fn(&What) -> bool) -> usize {
        self.findings.iter().filter(|finding| is(&finding.what)).count()
    }
}

/// Rebuilds the state.
pub fn rebuild_state(context: &Context<'_>, cloud: &CloudOptions, approval: &Approval) -> Result<Rebuilt, Failure> {
    let lock = Lock::take_from_all(&context.folder().join(LOCK), "state rebuild", context.operator)?;
    let DesiredFleet { project, secrets, mut cloud, wanted, held, whole, homes } = desired_fleet(context, cloud)?;
    if *approval == Approval::Ask && cloud.local.is_none() {
        context.operator.confirm(&Question::ReplaceState(State::read(&cloud.state)?.live()?))?;
    }
    let mut state = State::open(&cloud.state)?;
    state.rely_on(Some(&lock));
    let options = RefreshOptions {
        wanted,
        held: &held,
        whole,
        adopt: BTreeSet::new(),
        homes: &homes,
        anew: true,
        all_domains: true,
        tag: true,
    };
    let result = refresh::refresh(context, &project.fleet, &mut cloud, &secrets, &mut state, options)?;
    Ok(Rebuilt {
        workers: state.live()?,
        corrected: result.corrected,
        missing: result.missing.len(),
        findings: result.refreshed.findings,
        refused: result.refused,
    })
}
