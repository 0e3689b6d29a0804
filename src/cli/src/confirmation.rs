//! The words of the confirmations before something is changed. `prompts` knows how to ask.

use flotilla_deploy::plan::Plan;
use flotilla_engine::operator::Question;
use flotilla_model::failure::Failure;
use flotilla_model::text::{self, clean, count};

use super::prompts;

/// The number of customers that a question names.
const NAMES: usize = 10;

/// Asks a question of the engine.
pub(super) fn confirm(question: &Question<'_>) -> Result<(), Failure> {
    match question {
        Question::Apply { plan, workers, by_digest } => confirm_plan(plan, *workers, *by_digest),
        Question::PreviewUp { id, changes } => {
            prompts::require_confirmation(&format!("deploy the preview {id}, {}?", count(*changes, "change")))
        }
        Question::Destroy(target) => {
            let callers = target.calling_customers();
            let called = match callers.is_empty() {
                true => String::new(),
                false => format!(", which {} still uses", text::names(&Vec::from_iter(callers), NAMES)),
            };
            let workers = format!("{}{called}", count(target.workers.len(), "worker"));
            prompts::require_confirmation(&clean(&match &target.specs[..] {
                [] => format!("delete {workers}?"),
                specs => format!("delete {} and {workers}?", specs.join(", ")),
            }))
        }
        Question::PreviewDown(previews) => {
            prompts::require_confirmation(&format!("permanently remove {}?", count(*previews, "preview")))
        }
        Question::RemoveHosts(1) => prompts::require_confirmation("remove it?"),
        Question::RemoveHosts(hosts) => prompts::require_confirmation(&format!("remove these {hosts}?")),
        Question::ReplaceState(workers) => prompts::require_confirmation(&format!(
            "replace the state of {} with what Cloudflare runs?",
            count(*workers, "worker")
        )),
    }
}

/// Asks whether to apply a plan: a large one is confirmed by its digest.
fn confirm_plan(plan: &Plan, workers: usize, by_digest: bool) -> Result<(), Failure> {
    let digest = plan.digest.to_string();
    if !prompts::is_terminal() {
        return Err(Failure::refused("can't ask for confirmation: stdin is not a terminal; nothing was deployed")
            .hint(format!("pass --yes to apply the plan, or --digest {} to apply exactly this one", &digest[..16])));
    }
    // A rollback consists of nothing else.
    let is_rollback = !plan.changes.is_empty() && plan.changes.iter().all(|change| change.rejects.is_some());
    let action = match plan.changes.len() {
        changes if is_rollback => format!("roll back {}", count(changes, "worker")),
        changes => format!("deploy {}", count(changes, "change")),
    };
    let destroyed: Vec<&str> =
        plan.changes.iter().filter(|change| change.destroys_objects).map(|change| change.worker.as_str()).collect();
    if !destroyed.is_empty() {
        prompts::require_confirmation(&format!(
            "permanently destroy the Durable Objects of {} with all of their data?",
            clean(&destroyed.join(", "))
        ))?;
    }
    let question = if by_digest {
        let share = (plan.changes.len() as f64 * 100.0 / workers.max(1) as f64).round();
        format!(
            "{action}, {share} % of the fleet? Type the first eight characters of the plan's digest, {}: ",
            &digest[..8]
        )
    } else {
        format!("{action}? [y/N] ")
    };
    let digest = [&digest[..8]];
    if prompts::confirm_text(&question, if by_digest { &digest } else { &prompts::YES }) {
        return Ok(());
    }
    Err(Failure::refused("not confirmed; nothing was sent"))
}
