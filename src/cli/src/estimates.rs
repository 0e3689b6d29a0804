//! The estimates of a plan for people.

use flotilla_engine::plan_view::Estimate;
use flotilla_model::text::{clean, count, duration};

/// The number of lanes that are shown, those that take longest.
const SHOWN: usize = 3;

/// The estimates for people; nothing, where one lane is all there is and all of it is free.
pub fn text(estimates: &[Estimate]) -> Vec<String> {
    let mut lines = Vec::new();
    let many = estimates.len() > 1;
    for estimate in
        estimates.iter().take(SHOWN).filter(|estimate| many || estimate.used > 0 || estimate.blocked_seconds > 0.0)
    {
        let mut line = format!(
            "  {}: {}, about {}",
            clean(&estimate.accounts.join(" and ")),
            count(estimate.requests, "request"),
            duration(estimate.seconds)
        );
        if estimate.used > 0 {
            let window = duration(estimate.window_seconds);
            line +=
                &format!("; {} of the {} in {window} that the limit allows are used", estimate.used, estimate.limit);
        }
        if estimate.blocked_seconds > 0.0 {
            line += &format!("; the API refuses requests for another {}", duration(estimate.blocked_seconds));
        }
        lines.push(line);
    }
    if estimates.len() > SHOWN {
        lines.push(format!("  … and {} more side by side", count(estimates.len() - SHOWN, "token")));
    }
    lines
}
