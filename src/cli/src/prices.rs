//! What a plan costs: the requests of each lane, how long the limit lets them take, and what of it is used already. Sends
//! nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use flotilla_deploy::pace::{self, Lane, Priority, Rate};
use flotilla_deploy::plan::Plan;
use flotilla_model::clock::Clock;
use flotilla_spec::project::Fleet;

use super::cloud::Cloud;
use super::report::count;
use super::ui::{clean, duration};

/// So many lanes are told of, those that take longest.
const SHOWN: usize = 3;

/// The lanes of a plan.
pub(super) struct Lanes {
    pub lanes: Vec<Lane>,
    /// Which one an account's requests go through, by the account's id.
    pub of: HashMap<String, usize>,
}

impl Lanes {
    /// One for each token, shared with all processes that have it. Where the token isn't known, one for the account, of which
    /// nothing is known either.
    pub(super) fn open(
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
            let at = *of_token.entry((token, token.is_none().then_some(id))).or_insert_with(|| {
                let rate = Rate::new(fleet.accounts.get(account).and_then(|account| account.api_limit));
                let file =
                    token.filter(|_| !cloud.base.is_empty()).and_then(|token| pace::file(&cloud.base, token).ok());
                lanes.push(match file {
                    Some(file) => Lane::shared(rate, &file, Arc::clone(clock)),
                    None => Lane::new(rate, Arc::clone(clock)),
                });
                lanes.len() - 1
            });
            of.insert(id.to_owned(), at);
        }
        Lanes { lanes, of }
    }

    /// The same, before those of other processes.
    pub(super) fn ahead(self) -> Lanes {
        Lanes { lanes: self.lanes.into_iter().map(|lane| lane.with_priority(Priority::Interactive)).collect(), ..self }
    }

    /// What a plan costs, lane by lane; what takes longest first.
    pub(super) fn prices(&self, plan: &Plan) -> Vec<Price> {
        let mut requests = vec![0; self.lanes.len()];
        let mut accounts = vec![BTreeSet::new(); self.lanes.len()];
        let ids: BTreeMap<&str, &str> = plan.accounts().map(|(id, account)| (account, id)).collect();
        for (account, count) in plan.requests() {
            let lane = self.of[ids[account]];
            requests[lane] += count;
            accounts[lane].insert(account);
        }
        let mut prices: Vec<Price> = self
            .lanes
            .iter()
            .zip(requests.into_iter().zip(accounts))
            .map(|(lane, (requests, accounts))| {
                let usage = lane.usage();
                Price {
                    accounts: accounts.into_iter().map(str::to_owned).collect(),
                    requests,
                    seconds: lane.finish(requests, lane.per_second()).as_secs_f64(),
                    used: usage.used,
                    limit: usage.limit,
                    window_seconds: usage.window.as_secs_f64(),
                    blocked_seconds: usage.blocked.as_secs_f64(),
                }
            })
            .collect();
        prices.sort_by(|one, other| {
            other.seconds.total_cmp(&one.seconds).then_with(|| one.accounts.cmp(&other.accounts))
        });
        prices
    }
}

/// What the requests of a lane cost.
#[derive(Debug, Serialize)]
pub(super) struct Price {
    /// The accounts, which have one token.
    pub accounts: Vec<String>,
    /// Requests that the plan makes.
    pub requests: usize,
    /// How long they take.
    pub seconds: f64,
    /// Requests that count in the present window already.
    pub used: u64,
    /// So many fit into it, without those that are left to people.
    pub limit: u64,
    /// How long it is.
    pub window_seconds: f64,
    /// How long the platform lets nothing pass yet.
    pub blocked_seconds: f64,
}

/// How long a plan takes, in seconds: lanes run side by side.
pub(super) fn eta(prices: &[Price]) -> f64 {
    prices.iter().map(|price| price.seconds).fold(0.0, f64::max)
}

/// The prices for people; nothing, where one lane is all there is and all of it is free.
pub(super) fn text(prices: &[Price]) -> Vec<String> {
    let mut lines = Vec::new();
    let many = prices.len() > 1;
    for price in prices.iter().take(SHOWN).filter(|price| many || price.used > 0 || price.blocked_seconds > 0.0) {
        let mut line = format!(
            "  {}: {}, about {}",
            clean(&price.accounts.join(" and ")),
            count(price.requests, "request"),
            duration(price.seconds)
        );
        if price.used > 0 {
            let window = duration(price.window_seconds);
            line += &format!("; {} of the {} in {window} that the limit allows are used", price.used, price.limit);
        }
        if price.blocked_seconds > 0.0 {
            line += &format!("; the API refuses requests for another {}", duration(price.blocked_seconds));
        }
        lines.push(line);
    }
    if prices.len() > SHOWN {
        lines.push(format!("  … and {} more side by side", count(prices.len() - SHOWN, "token")));
    }
    lines
}
