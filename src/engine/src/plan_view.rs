//! A plan with everything that is shown beside it. Values alone; the operator has the words.

use serde::Serialize;

use flotilla_deploy::plan::Plan;
use flotilla_deploy::refresh::Finding;

use crate::credentials::InvalidId;

/// A plan and what is shown with it.
#[derive(Clone)]
pub struct PlanView<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The cost, lane by lane; the longest time first.
    pub estimates: Vec<Estimate>,
    /// The differences of the platform from the state and the specs, if it was listed.
    pub findings: &'a [Finding],
    /// The accounts whose ids aren't known here.
    pub unknown_accounts: Vec<&'a str>,
    /// The accounts of its workers whose ids no account can have.
    pub invalid_ids: Vec<&'a InvalidId>,
    /// Whether it is for the local Cloudflare emulator.
    pub local: bool,
}

/// The cost of the requests of a lane.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// The accounts, which have one token.
    pub accounts: Vec<String>,
    /// Requests that the plan makes.
    pub requests: usize,
    /// Additional requests, which read what is deployed.
    pub checks: usize,
    /// The duration, in seconds.
    pub seconds: f64,
    /// Requests that count in the present window already.
    pub used: u64,
    /// The number of requests that fit into it, without those that are left to people.
    pub limit: u64,
    /// The length of the window, in seconds.
    pub window_seconds: f64,
    /// The time for which the platform still rejects requests, in seconds.
    pub blocked_seconds: f64,
}

/// Returns how long a plan takes, in seconds: lanes run side by side.
pub fn eta(estimates: &[Estimate]) -> f64 {
    estimates.iter().map(|estimate| estimate.seconds).fold(0.0, f64::max)
}
