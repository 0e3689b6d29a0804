//! Makes the upload of a change: from the plan, or from what the state keeps of an earlier one. Sends nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use flotilla_build::build;
use flotilla_deploy::deploy::{MakeUpload, Upload, UploadRecord};
use flotilla_deploy::plan::{Action, Change, Step};
use flotilla_deploy::state::{Deployed, State, Stored, WorkerId, deflated};
use flotilla_model::bundle::{self, Bundle};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::platform::Module;
use flotilla_model::preview;
use flotilla_model::tags::{self, Triggers};
use flotilla_model::text::{count, first_lines};
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;
use flotilla_spec::secrets::access;

use crate::planning::Planned;
use crate::secret_needs::{Needs, Sent};
use crate::secret_upload::{self, LiveSecrets};

/// The number of refusals that are listed.
const SHOWN: usize = 20;

/// Makes the uploads of a plan: each is rendered again when its turn comes, so that it is the planned bundle or none.
pub(crate) fn of_plan(planned: &Arc<Planned>) -> Result<Arc<MakeUpload>, Failure> {
    let (live, planned) = (LiveSecrets::of_plan(planned)?, Arc::clone(planned));
    // By the threads that render, one for each core: each thread keeps the memory that rendering took, and the pool has dozens.
    Ok(Arc::new(move |change: &Change| rayon::scope(|_| planned_upload(&planned, change, &live))))
}

/// Makes the uploads of a rollback: of the bundles that the state keeps.
pub(crate) fn of_state(
    path: &Path,
    fleet: &Fleet,
    secrets: &Arc<Secrets>,
    changes: &[Change],
) -> Result<Arc<MakeUpload>, Failure> {
    let (kept, live) = (State::read(path)?, LiveSecrets::open(path)?);
    let refusals = changes.iter().filter_map(|change| {
        let names = Kept::find(&kept, change).ok()?.secret_names();
        Some((change.id(), refusal(fleet, change, &names)?))
    });
    let refusals: HashMap<WorkerId, String> = refusals.collect();
    let (kept, owner, secrets) = (Mutex::new(kept), fleet.owner().into_owned(), Arc::clone(secrets));
    Ok(Arc::new(move |change: &Change| {
        if let Some(refusal) = refusals.get(&change.id()) {
            return Err(refusal.clone());
        }
        let kept = Kept::find(&kept.lock(), change)?;
        kept_upload(change, kept, &owner, &secrets, &live)
    }))
}

/// Returns why a worker may not have the secrets that an earlier bundle names. The state is no spec that was checked, and fleet.yaml may have
/// been changed since.
fn refusal(fleet: &Fleet, change: &Change, names: &BTreeMap<String, String>) -> Option<String> {
    let (message, _) = names.values().find_map(|name| access::refusal(fleet, &change.customer, name))?;
    Some(message)
}

/// Fails if the uploads of a rollback need secrets that have no value here, or that the worker may not have: before the first request.
pub(crate) fn check_of_state(path: &Path, fleet: &Fleet, secrets: &Secrets, changes: &[Change]) -> Result<(), Failure> {
    let (state, live) = (State::read(path)?, LiveSecrets::open(path)?);
    let (mut lacked, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for change in changes {
        // If it is no longer kept, the change itself reports that.
        let Ok(kept) = Kept::find(&state, change) else { continue };
        let names = kept.secret_names();
        if let Some(refusal) = refusal(fleet, change, &names) {
            refused.insert(format!("{}: {refusal}", change.worker));
            continue;
        }
        let needs = Needs { customer: &change.customer, environment: change.environment, names: &names };
        lacked.extend(live.lacked(secrets, &needs, change)?);
    }
    if !refused.is_empty() {
        let what = count(refused.len(), "worker");
        return Err(Failure::refused(format!(
            "{what} would be rolled back to secrets that it may not use; nothing was sent"
        ))
        .hint(first_lines(refused, SHOWN)));
    }
    secret_upload::refuse_lacked(fleet, lacked)
}

/// The parts of an upload.
struct Parts {
    digest: Digest,
    /// Whether it goes over a worker that is there.
    replaces: bool,
    tags: Vec<String>,
    secrets: Sent,
    stored: Stored,
    modules: Vec<Module>,
    deflated_module: Vec<u8>,
    deflated_runtime: Vec<u8>,
}

impl Parts {
    fn upload(self) -> Upload {
        let Parts { digest, replaces, tags, secrets, stored, modules, deflated_module, deflated_runtime } = self;
        let bundle =
            Bundle { digest, module: stored.module, runtime: stored.runtime, metadata: stored.metadata.clone() };
        // Keys are never sent from here, so that those that the worker has are kept in any case.
        let keep: &[&str] = match (secrets.sending.keep, replaces) {
            (true, _) => &["secret_text", "secret_key"],
            (false, true) => &["secret_key"],
            (false, false) => &[],
        };
        let metadata = bundle::upload_metadata(&bundle, &tags, keep, |binding| secrets.value(binding));
        let record = UploadRecord {
            secrets: secrets.sending.live,
            objects: vec![(stored.module, deflated_module), (stored.runtime, deflated_runtime)],
            stored,
        };
        Upload { metadata, modules, record }
    }
}

fn planned_upload(planned: &Planned, change: &Change, live: &LiveSecrets) -> Result<Upload, String> {
    let (worker, recipe) = planned.worker(change).ok_or("its bundle can no longer be read")?;
    let (module, bundle) =
        build::module(&planned.project, &planned.runtimes, &worker).map_err(|diagnostic| diagnostic.message)?;
    if bundle.digest != change.digest {
        return Err("BUG: it renders otherwise than it was planned".to_owned());
    }
    let runtime = planned.runtimes.of(&worker);
    let pending = change.steps.iter().any(|step| !matches!(step, Step::Upload));
    let fleet = planned.project.fleet.owner();
    let (customer, environment) = (&worker.customer, worker.environment);
    let mut tags = tags::of(&fleet, customer, environment, &bundle.digest, &Triggers::of(&worker), pending);
    if let Some(preview) = &planned.project.fleet.preview {
        let database = preview::own_database(preview, &worker);
        let hosts = worker.hosts.as_ref().map(|hosts| hosts.names.clone()).unwrap_or_default();
        tags.extend(tags::of_preview(planned.expires, database, &hosts));
    } else if change.home.namespace.is_some() {
        tags.push(tags::identity(&fleet, &change.worker));
    }
    let main = bundle.metadata["main_module"].as_str().unwrap_or_default();
    let modules = runtime.upload_modules(main, module.clone().into_bytes());
    let parts = Parts {
        digest: bundle.digest,
        replaces: change.action != Action::Create || planned.adopt.contains(&change.worker),
        tags,
        secrets: live.sending(&planned.secrets, &Needs::of(&worker), change)?,
        stored: Stored {
            module: bundle.module,
            runtime: bundle.runtime,
            runtime_file: runtime.file.clone(),
            metadata: bundle.metadata,
            source: build::source(&worker, &recipe),
        },
        deflated_module: deflated(module.as_bytes()),
        modules,
        deflated_runtime: planned.deflated_runtime(runtime),
    };
    Ok(parts.upload())
}

/// The record that the state keeps of an upload.
struct Kept {
    stored: Stored,
    /// The worker that is live.
    live: Option<Deployed>,
    module: Vec<u8>,
    runtime: Vec<u8>,
}

impl Kept {
    fn find(state: &State, change: &Change) -> Result<Kept, String> {
        let text = |failure: Failure| failure.to_string();
        let gone = || "its bundle is no longer kept".to_owned();
        let stored = state.stored(&change.digest).map_err(text)?.ok_or_else(gone)?;
        let module = state.object(&stored.module).map_err(text)?.ok_or_else(gone)?;
        let runtime = state.object(&stored.runtime).map_err(text)?.ok_or_else(gone)?;
        Ok(Kept { stored, live: state.one(&change.id()).map_err(text)?, module, runtime })
    }

    /// The name under which each secret is looked up, by its binding.
    fn secret_names(&self) -> BTreeMap<String, String> {
        let lookups = self.stored.source["worker"]["secrets"].as_object();
        let bindings = self.stored.metadata["bindings"].as_array().into_iter().flatten();
        bindings
            .filter(|binding| binding["type"] == "secret_text")
            .filter_map(|binding| binding["name"].as_str())
            .map(|binding| {
                let name = lookups.and_then(|lookups| lookups.get(binding)?.as_str()).unwrap_or(binding);
                (binding.to_owned(), name.to_owned())
            })
            .collect()
    }
}

fn kept_upload(
    change: &Change,
    kept: Kept,
    owner: &str,
    secrets: &Secrets,
    live: &LiveSecrets,
) -> Result<Upload, String> {
    let names = kept.secret_names();
    let needs = Needs { customer: &change.customer, environment: change.environment, names: &names };
    let sent = live.keeping(secrets, &needs, change)?;
    // The hosts and crons that it has stay as they are.
    let triggers = kept.live.as_ref().map(|there| there.live.triggers());
    let pending = triggers.is_none();
    let (triggers, digest) = (triggers.unwrap_or_default(), &change.digest);
    let mut tags = tags::of(owner, &change.customer, change.environment, digest, &triggers, pending);
    tags.extend(change.home.namespace.as_ref().map(|_| tags::identity(owner, &change.worker)));
    let main = kept.stored.metadata["main_module"].as_str().unwrap_or_default();
    let script = Arc::from(kept.runtime.as_slice());
    let modules = bundle::kept_modules(main, kept.module.clone(), &kept.stored.runtime_file, &script);
    let parts = Parts {
        digest: change.digest,
        replaces: true,
        tags,
        secrets: sent,
        deflated_module: deflated(&kept.module),
        deflated_runtime: deflated(&kept.runtime),
        modules: modules.ok_or_else(|| "its bundle is damaged".to_owned())?,
        stored: kept.stored,
    };
    Ok(parts.upload())
}
