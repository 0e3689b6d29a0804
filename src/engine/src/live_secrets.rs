//! Lists the secrets that workers have at the platform: their names, as the platform never shows a value. Notes in the state which were
//! deleted there, so that the next deploy sends them again.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_deploy::requester::RequestError;
use flotilla_deploy::state::{State, WorkerId};
use flotilla_model::customer::Worker;
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_model::platform::{Call, CallError, Reply};
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use crate::cloud::Cloud;
use crate::context::{Context, LOCK};
use crate::requests::PlatformRequester;

/// The secrets of a worker at the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveSecrets {
    /// Their names.
    Set(BTreeSet<String>),
    /// The worker doesn't exist there.
    NotDeployed,
    /// They could not be listed, for this reason.
    Unknown(String),
}

/// Lists the secrets of each of these workers, in their order, with one request per worker. If an account can't be read, the secrets of its
/// workers are unknown; if none can be read, it is an error.
pub fn list_live_secrets(
    context: &Context<'_>,
    fleet: &Fleet,
    cloud: &mut Cloud,
    secrets: &Secrets,
    workers: &[&Worker],
) -> Result<Vec<LiveSecrets>, Failure> {
    let mut accounts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, worker) in workers.iter().enumerate() {
        accounts.entry(&worker.account).or_default().push(index);
    }
    cloud.start(context)?;
    let mut listed = vec![LiveSecrets::NotDeployed; workers.len()];
    let mut unreachable = Vec::new();
    context.operator.begin("listing secrets", Some(workers.len() as u64));
    for (account, indices) in &accounts {
        let ids = BTreeSet::from([cloud.home(account, None).account_id]);
        let requester = cloud
            .tokens(fleet, [*account], secrets)
            .and_then(|tokens| PlatformRequester::with_tokens(context, fleet, cloud, tokens, &ids));
        let mut refusal = None;
        let mut requester = match requester {
            Ok(requester) => Some(requester),
            Err(failure) => {
                let parts: Vec<String> =
                    std::iter::once(failure.to_string()).chain(failure.hints.first().cloned()).collect();
                refusal = Some(parts.join("; "));
                unreachable.push(failure);
                None
            }
        };
        for index in indices {
            let worker = workers[*index];
            let home = cloud.home(account, worker.namespace.as_deref());
            let call = Call::ListSecrets { worker: worker.name.clone() };
            listed[*index] = match (&refusal, &mut requester) {
                (None, Some(requester)) => match requester.request(&home, &call) {
                    Ok(Reply::Secrets(names)) => LiveSecrets::Set(names),
                    Ok(_) => LiveSecrets::NotDeployed,
                    Err(error) => {
                        let reason = error.to_string();
                        match error {
                            RequestError::Call(CallError::Rejected { .. }) => {}
                            RequestError::Cancelled => return Err(error.into()),
                            // It would be the same for all others of the account, after the same number of attempts.
                            error => {
                                refusal = Some(reason.clone());
                                unreachable.push(Failure::from(error));
                            }
                        }
                        LiveSecrets::Unknown(reason)
                    }
                },
                (reason, _) => LiveSecrets::Unknown(reason.clone().unwrap_or_default()),
            };
            context.operator.step(1);
        }
    }
    context.operator.end();
    let is_known = |secrets: &LiveSecrets| !matches!(secrets, LiveSecrets::Unknown(_));
    match unreachable.is_empty() || listed.iter().any(is_known) {
        true => Ok(listed),
        false => Err(unreachable.swap_remove(0)),
    }
}

/// Notes in the state that the platform has lost secrets, so that the next deploy sends them again. Fails where a deploy is running: it may be
/// sending them.
pub fn mark_lost_secrets(
    context: &Context<'_>,
    cloud: &Cloud,
    lost: &BTreeMap<WorkerId, BTreeSet<String>>,
) -> Result<(), Failure> {
    let lock = Lock::take_from_all(&context.folder().join(LOCK), "secrets list", context.operator)?;
    let mut state = State::open(&cloud.state)?;
    state.rely_on(Some(&lock));
    state.all(|state| lost.iter().try_for_each(|(id, bindings)| state.mark_lost_secrets(id, bindings)))
}
