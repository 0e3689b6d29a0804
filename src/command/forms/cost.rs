//! What a plan costs: requests and time, by lane. Looks at what the lanes have sent lately, and sends nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::deploy::{LATENCY, forecast};
use crate::pace::{self, Lane, Rate};
use crate::plan::Plan;
use crate::project::Fleet;
use crate::secrets::Secrets;

use super::super::cloud::Cloud;

/// What a plan costs.
pub struct Cost {
    pub requests: usize,
    /// How long it takes.
    pub seconds: f64,
    /// The lanes that it needs, in the order of their first accounts.
    pub lanes: Vec<LaneCost>,
}

/// What a plan costs a token.
#[derive(Serialize)]
pub struct LaneCost {
    /// The accounts that it is for, by their names in fleet.yaml.
    pub accounts: Vec<String>,
    pub requests: usize,
    /// How long it takes by itself.
    pub seconds: f64,
    /// What of the present window is used; nothing, where the token isn't known.
    pub used: Option<u64>,
    /// So many requests fit into a window.
    pub limit: u64,
    pub window_seconds: f64,
    /// How long nothing can be sent.
    pub blocked_seconds: f64,
}

/// What a plan costs, with the lanes as they are now.
pub fn cost(plan: &Plan, fleet: &Fleet, cloud: &Cloud, secrets: &Secrets) -> Cost {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (mut lanes, mut known, mut of_token, mut of_account) =
        (Vec::new(), Vec::new(), HashMap::new(), BTreeMap::new());
    let requests = plan.requests();
    for account in requests.keys() {
        let rule = &fleet.accounts[*account];
        let token = cloud.token(rule, secrets);
        // Accounts whose token has one name have one token, whatever it is.
        let same = token
            .as_ref()
            .map_or_else(|| (false, rule.token.secret.clone()), |token| (true, token.expose_secret().to_owned()));
        let at = *of_token.entry(same).or_insert_with(|| {
            let rate = Rate::new(rule.api_limit);
            let file = token.as_ref().and_then(|token| pace::file(&cloud.base, token.expose_secret()).ok());
            // Where nothing was sent yet, none is made.
            let file = file.filter(|file| file.exists());
            let lane = file.map_or_else(
                || Lane::new(rate, Arc::clone(&clock)),
                |file| Lane::shared(rate, &file, Arc::clone(&clock)),
            );
            lanes.push(Arc::new(lane));
            known.push(token.is_some());
            lanes.len() - 1
        });
        of_account.insert(*account, at);
    }
    let seconds = forecast(plan, &lanes, |change| of_account[change.account.as_str()], LATENCY);
    let costs = lanes.iter().zip(known).enumerate().map(|(at, (lane, known))| {
        let accounts: Vec<&str> = of_account.iter().filter(|(_, lane)| **lane == at).map(|(name, _)| *name).collect();
        let requests = accounts.iter().map(|account| requests[account]).sum();
        let usage = lane.usage();
        LaneCost {
            accounts: accounts.into_iter().map(str::to_owned).collect(),
            requests,
            seconds: rounded(lane.finish(requests, lane.without_limit(LATENCY)) + LATENCY),
            used: known.then_some(usage.used),
            limit: usage.limit,
            window_seconds: usage.window.as_secs_f64(),
            blocked_seconds: usage.blocked.as_secs_f64(),
        }
    });
    let lanes = costs.collect();
    Cost { requests: requests.values().sum(), seconds: rounded(seconds), lanes }
}

/// Seconds; nobody can tell more of them than tenths.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
