//! The approval of a plan that changes something: requested, given, or given to one plan alone.

use flotilla_deploy::plan::Plan;
use flotilla_model::failure::Failure;
use flotilla_spec::project::Fleet;

use crate::operator::{Approval, Question};

/// The share of a fleet, in percent, above which a plan is confirmed by its digest, unless fleet.yaml sets another.
const CONFIRM_ABOVE: f64 = 20.0;
/// The number of changes from which this applies.
const CONFIRM_FROM: usize = 10;
/// The length of the shortest prefix of a digest that names a plan: by chance, one in four billion has it.
const SHORTEST_DIGEST: usize = 8;

/// Refuses a plan that isn't the approved one.
pub(crate) fn check_digest(approval: &Approval, plan: &Plan) -> Result<(), Failure> {
    let Approval::Digest(digest) = approval else { return Ok(()) };
    let actual = plan.digest.to_string();
    if !names_a_plan(digest) || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "`{digest}` is not a plan's digest: expected at least {SHORTEST_DIGEST} hexadecimal digits; nothing was sent"
        ))
        .hint("`flotilla plan` prints the digest"));
    }
    if names_a_plan(digest) && actual.starts_with(&digest.to_ascii_lowercase()) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the plan has changed since the review: its digest is {}, not {digest}; nothing was sent",
        &actual[..16]
    ))
    .hint("review it again with `flotilla plan`, and pass the new digest"))
}

/// Returns whether it is long enough to name one plan.
pub(crate) fn names_a_plan(digest: &str) -> bool {
    digest.len() >= SHORTEST_DIGEST
}

/// Returns the question whether to apply a plan, for a fleet with this number of workers.
pub(crate) fn question<'a>(plan: &'a Plan, fleet: &Fleet, workers: usize) -> Question<'a> {
    let changes = plan.changes.len();
    let limit = fleet.file.deploy.confirm_above.unwrap_or(CONFIRM_ABOVE);
    let by_digest = changes >= CONFIRM_FROM && changes as f64 > workers as f64 * limit / 100.0;
    Question::Apply { plan, workers, by_digest }
}
