//! The reason why a change failed, and the next step: running the same command again is one of several. Knows no wording of the platform's
//! but its codes.

use std::fmt;

use serde::Serialize;

use flotilla_model::platform::CallError;

/// The next step of a person after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
pub enum NextStep {
    /// Set or replace the API token, or its permissions.
    Token,
    /// Add the zone to the account, or correct the spec.
    Zone,
    /// Free a host that something else has, or take it over.
    Host,
    /// Adopt a worker that this fleet doesn't manage, or use another name.
    Adopt,
    /// Correct the state, as it differs from the platform.
    Refresh,
    /// Enable what the account lacks: a workers.dev subdomain, a dispatch namespace, a higher limit.
    Account,
    /// Change the input that the platform rejects.
    Input,
    /// Set the secret that has no value, or a smaller value.
    Secret,
    /// Plan again: the plan is out of date, or didn't show what it destroys.
    Plan,
    /// Find out why workers are unhealthy.
    Health,
    /// Fix the failures that ended the run.
    FailureLimit,
    /// Fix the failure of the other change that this one waited for.
    OtherFailure,
    /// Run the same command again.
    Retry,
}

impl NextStep {
    /// Returns what to do, in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            NextStep::Token => {
                "set a valid API token for the account, or give it the missing permission, and run the same command again"
            }
            NextStep::Zone => {
                "add the zone to the account and let the token read it, or correct `zone` in the spec; until then, the same command fails again"
            }
            NextStep::Host => {
                "remove the host from where the failure shows that it is in use; until then, the same command fails again"
            }
            NextStep::Adopt => {
                "adopt the worker with `flotilla deploy --adopt WORKER`, or give yours another name with `workerName`: otherwise, nothing \
                 that belongs to another fleet is changed"
            }
            NextStep::Refresh => {
                "`flotilla deploy --refresh` compares the state with what exists, corrects it, and recreates what is missing"
            }
            NextStep::Account => {
                "the account lacks something that the deploy needs: change the account or fleet.yaml as the failure describes, and deploy again"
            }
            NextStep::Input => {
                "fix what the failure names in the spec, the pack or the secrets, and deploy again: without a fix, a retry fails in the same way"
            }
            NextStep::Secret => {
                "set the secret, in the environment, in a dotenv file outside git or in a source of fleet.yaml (`flotilla secrets set NAME`), and \
                 deploy again; `flotilla secrets check` lists what is missing"
            }
            NextStep::Plan => "`flotilla plan --refresh` shows the current plan: review and deploy that one",
            NextStep::Health => {
                "`flotilla verify` shows what is unhealthy: fix it and deploy again, or roll back with `flotilla rollback`; until then, the same command \
                 stops at the same wave"
            }
            NextStep::FailureLimit => {
                "the failures above stopped the deploy: fix them first; `deploy.failures.count` in fleet.yaml sets the limit"
            }
            NextStep::OtherFailure => "fix the failure of the other worker that the message names, and deploy again",
            NextStep::Retry => "run the same command again: changes that were acknowledged are not repeated",
        }
    }

    /// Returns a problem with this next step.
    pub(super) fn because(self, text: impl Into<String>) -> Problem {
        Problem { text: text.into(), next: self }
    }

    /// Returns the next step after an error of the platform, if nothing more is known.
    #[must_use]
    pub fn after(error: &CallError) -> NextStep {
        match error {
            CallError::Unavailable(_) | CallError::Throttled { .. } => NextStep::Retry,
            CallError::Unauthorized(_) | CallError::Rejected { status: 401 | 403, .. } => NextStep::Token,
            CallError::Rejected { code: TOO_MANY_WORKERS | NO_SUBDOMAIN, .. } => NextStep::Account,
            CallError::Rejected { code: NO_WORKER | NO_SCRIPT, .. } => NextStep::Refresh,
            // A server that fails, or another change at the same time.
            CallError::Rejected { status: 500.. | 409 | 423, .. } => NextStep::Retry,
            CallError::Rejected { .. } => NextStep::Input,
        }
    }
}

/// The account holds no more workers.
pub(super) const TOO_MANY_WORKERS: u64 = 10_037;
/// The account has no workers.dev subdomain.
pub(super) const NO_SUBDOMAIN: u64 = 10_063;
/// The worker, or the account's workers.dev subdomain, isn't found.
pub(super) const NO_WORKER: u64 = 10_007;
/// The script isn't found.
pub(super) const NO_SCRIPT: u64 = 10_019;

/// A binding names a Durable Object class that isn't found, or a worker that should have it. Source: workers-sdk, issue 10034; public
/// deploys' logs.
pub(super) const NO_CLASS: u64 = 10_061;
/// A binding, or a consumer of logs, names a worker that isn't found. Source: the codes that wrangler's users report; workers-sdk,
/// issue 8275.
pub(super) const CALLEE_MISSING: [u64; 3] = [10_143, 10_203, NO_CLASS];

/// The reason why something failed, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub text: String,
    pub next: NextStep,
}

impl Problem {
    /// Returns the problem of an error of the platform's.
    pub fn of(error: &CallError) -> Problem {
        NextStep::after(error).because(error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::VariantArray as _;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_a_next_step_of_its_own() {
        let texts: BTreeSet<&str> = NextStep::VARIANTS.iter().map(|next| next.text()).collect();
        assert_eq!(texts.len(), NextStep::VARIANTS.len());
        for next in NextStep::VARIANTS {
            assert_eq!(next.text().starts_with("run the same command again"), *next == NextStep::Retry, "{next:?}");
        }
    }

    #[test]
    fn errors_of_the_platform_have_the_step_that_helps() {
        let rejected = |status, code| CallError::Rejected { status, code, message: "no".to_owned() };
        for (error, next) in [
            (CallError::Unavailable("HTTP 502".to_owned()), NextStep::Retry),
            (CallError::Throttled { retry_after: None }, NextStep::Retry),
            (rejected(409, 10_035), NextStep::Retry),
            (CallError::Unauthorized("no".to_owned()), NextStep::Token),
            (rejected(403, 10_000), NextStep::Token),
            (rejected(404, 10_007), NextStep::Refresh),
            (rejected(400, 10_037), NextStep::Account),
            (rejected(400, 10_063), NextStep::Account),
            (rejected(400, 10_021), NextStep::Input),
            (rejected(413, 10_027), NextStep::Input),
        ] {
            assert_eq!(NextStep::after(&error), next, "{error}");
        }
    }
}
