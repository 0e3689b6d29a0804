//! Estimates the cost of a plan: the requests of each lane, the time that the rate limit makes them take, and how much of it is already
//! used. Sends nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use flotilla_deploy::deploy::LaneId;
use flotilla_deploy::pace::{Lane, Priority};
use flotilla_deploy::plan::Plan;
use flotilla_model::clock::Clock;
use flotilla_spec::project::Fleet;

use crate::cloud::Cloud;
use crate::plan_view::Estimate;

/// The lanes of a plan.
pub struct Lanes {
    /// The lanes, one for each token.
    pub lanes: Vec<Lane>,
    /// The lane of each account's requests, by the account's id.
    pub of: HashMap<String, LaneId>,
}

impl Lanes {
    /// Opens one lane for each token, shared with all processes that have it. Where the token isn't known, opens one
    /// for the account, with no known usage.
    pub fn open(
        plan: &Plan,
        fleet: &Fleet,
        cloud: &Cloud,
        tokens: &HashMap<String, SecretString>,
        clock: &Arc<dyn Clock>,
    ) -> Lanes {
        // Those of hosts, too: a plan can have hosts to set, and no worker.
        let accounts: BTreeMap<&str, &str> = plan.accounts().collect();
        let (mut lanes, mut of_token, mut of) = (Vec::new(), HashMap::new(), HashMap::new());
        for (id, account) in accounts {
            let token = tokens.get(id).map(|token| token.expose_secret());
            let lane = *of_token.entry((token, token.is_none().then_some(id))).or_insert_with(|| {
                let rate = cloud.rate(fleet.accounts.get(account).and_then(|account| account.api_limit));
                lanes.push(match token.filter(|_| !cloud.base.is_empty()) {
                    Some(token) => Lane::of_token(rate, &cloud.base, token, Arc::clone(clock)),
                    None => Lane::new(rate, Arc::clone(clock)),
                });
                LaneId::new(lanes.len() - 1)
            });
            of.insert(id.to_owned(), lane);
        }
        Lanes { lanes, of }
    }

    /// The same, for requests of this priority.
    pub fn with_priority(self, priority: Priority) -> Lanes {
        Lanes { lanes: self.lanes.into_iter().map(|lane| lane.with_priority(priority)).collect(), ..self }
    }

    /// Returns the cost of a plan, lane by lane; the longest time first. `checks` are requests beside the plan's, by account.
    pub fn estimates(
        &self,
        plan: &Plan,
        lookups: &BTreeMap<String, usize>,
        checks: &BTreeMap<&str, usize>,
    ) -> Vec<Estimate> {
        let mut requests = vec![(0, 0); self.lanes.len()];
        let mut accounts = vec![BTreeSet::new(); self.lanes.len()];
        let ids: BTreeMap<&str, &str> = plan.accounts().map(|(id, account)| (account, id)).collect();
        for (account, count) in plan.requests() {
            let lane = self.of[ids[account]].place();
            requests[lane].0 += count;
            accounts[lane].insert(account);
        }
        for (account_id, count) in lookups {
            requests[self.of[account_id.as_str()].place()].0 += count;
        }
        for (account, count) in checks {
            requests[self.of[ids[account]].place()].1 += count;
        }
        let mut estimates: Vec<Estimate> = self
            .lanes
            .iter()
            .zip(requests.into_iter().zip(accounts))
            .map(|(lane, ((requests, checks), accounts))| {
                let usage = lane.usage();
                Estimate {
                    accounts: accounts.into_iter().map(str::to_owned).collect(),
                    requests,
                    checks,
                    seconds: lane.finish(requests + checks, lane.per_second()).as_secs_f64(),
                    used: usage.used,
                    limit: usage.limit,
                    window_seconds: usage.window.as_secs_f64(),
                    blocked_seconds: usage.blocked.as_secs_f64(),
                }
            })
            .collect();
        estimates.sort_by(|one, other| {
            other.seconds.total_cmp(&one.seconds).then_with(|| one.accounts.cmp(&other.accounts))
        });
        estimates
    }
}
