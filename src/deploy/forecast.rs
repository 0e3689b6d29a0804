//! How long a deploy takes, by what its lanes may send. Asks the lanes and sends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::MOST_IN_FLIGHT;
use crate::pace::Lane;
use crate::plan::{Change, Plan};

/// How long an answer takes, where nothing better is known.
pub const LATENCY: Duration = Duration::from_millis(250);

/// Changes that wait for all of those before them: of one wave and one rank.
#[derive(Default)]
struct Stage {
    /// Requests by lane.
    requests: BTreeMap<usize, usize>,
    /// The most requests of one change; they are made one after the other.
    longest: usize,
}

/// How long a plan takes, if each answer takes as long as `latency`: what was sent lately counts, lanes run side by side, and
/// a wave waits for the slowest lane of the one before. Without repetitions, and without asking workers how they are.
pub fn forecast(plan: &Plan, lanes: &[Arc<Lane>], lane_of: impl Fn(&Change) -> usize, latency: Duration) -> Duration {
    let mut stages: BTreeMap<(usize, usize), Stage> = BTreeMap::new();
    for change in &plan.changes {
        let stage = stages.entry((change.wave, change.rank)).or_default();
        *stage.requests.entry(lane_of(change)).or_default() += change.steps.len();
        stage.longest = stage.longest.max(change.steps.len());
    }
    let in_flight = plan.changes.len().clamp(1, MOST_IN_FLIGHT.min(lanes.len().max(1) * 64));
    let all_at_once = in_flight as f64 / latency.as_secs_f64().max(1e-3);
    let mut sent: BTreeMap<usize, usize> = BTreeMap::new();
    let mut end = Duration::ZERO;
    for (at, stage) in stages.values().enumerate() {
        let rates: BTreeMap<usize, f64> =
            stage.requests.keys().map(|lane| (*lane, lanes[*lane].without_limit(latency))).collect();
        // Together they have no more in flight than the pool does.
        let share = (all_at_once / rates.values().sum::<f64>()).min(1.0);
        let total: usize = stage.requests.values().sum();
        let begin = end;
        end = begin + (latency * stage.longest as u32).max(Duration::from_secs_f64(total as f64 / all_at_once));
        for (lane, requests) in &stage.requests {
            let (per_second, lane_at) = (rates[lane] * share, &lanes[*lane]);
            let before = sent.entry(*lane).or_default();
            *before += requests;
            // Whatever it waits for the others, its own limit lets it end no sooner; and if it has waited for long, what it may
            // send at once is no more than a rested lane may.
            end = end.max(lane_at.finish(*before, per_second) + latency);
            if at > 0 {
                end = end.max(begin + lane_at.finish_rested(*requests, per_second) + latency);
            }
        }
    }
    end
}
