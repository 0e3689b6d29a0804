//! Makes the upload of a change: from the plan, or from what the state keeps of an earlier one. Sends nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use flotilla_build::build;
use flotilla_deploy::deploy::{Assets, Make, MakeUpload, Upload, UploadRecord};
use flotilla_deploy::plan::{Action, Change, Step};
use flotilla_deploy::state::{Deployed, State, Stored, WorkerId, deflated};
use flotilla_model::assets::{self, AssetList};
use flotilla_model::bundle::{self, Bundle};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::plain_file;
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
    Ok(Arc::new(OfPlan { live: LiveSecrets::of_plan(planned)?, planned: Arc::clone(planned), lists: Mutex::default() }))
}

/// Makes the uploads of a plan.
struct OfPlan {
    planned: Arc<Planned>,
    live: LiveSecrets,
    /// The lists of static assets that several workers have, deflated once.
    lists: Mutex<HashMap<Digest, Vec<u8>>>,
}

impl Make for OfPlan {
    fn upload(&self, change: &Change) -> Result<Upload, String> {
        // By the threads that render, one for each core: each thread keeps the memory that rendering took, and the pool has dozens.
        rayon::scope(|_| self.planned_upload(change))
    }

    fn assets(&self, change: &Change) -> Result<Assets, String> {
        let (worker, _) = self.planned.worker(change).ok_or("its bundle can't be read any more")?;
        let pack = self.planned.runtimes.of(&worker).assets.clone();
        let (pack, own) = pack.zip(worker.assets).ok_or("BUG: it has no static assets")?;
        let (list, root) = (pack.list_of(&own), self.planned.project.root().to_owned());
        let find = move |path: &str, hash: &str| {
            let of_customer =
                own.own.as_ref().filter(|own| own.list.files.get(path).is_some_and(|file| file.hash == hash));
            let folder = of_customer.map(|own| root.join(&own.directory)).or_else(|| pack.folder.clone())?;
            Some(folder.join(path.trim_start_matches('/')))
        };
        Ok(Assets { list, find: Box::new(find) })
    }
}

impl OfPlan {
    /// Returns a list of static assets as the state keeps it.
    fn deflated_list(&self, digest: &Digest, list: &AssetList, is_shared: bool) -> Vec<u8> {
        let deflate = || deflated(&serde_json::to_vec(list).expect("BUG: a list is JSON"));
        match is_shared {
            true => self.lists.lock().entry(*digest).or_insert_with(deflate).clone(),
            false => deflate(),
        }
    }
}

/// Makes the uploads of a rollback: of the bundles that the state keeps.
pub(crate) fn of_state(
    (root, path): (&Path, &Path),
    fleet: &Fleet,
    secrets: &Arc<Secrets>,
    changes: &[Change],
) -> Result<Arc<MakeUpload>, Failure> {
    let (kept, live) = (State::read(path)?, LiveSecrets::open(path)?);
    let (root, folders) = (root.to_owned(), asset_folders(fleet));
    let refusals = changes.iter().filter_map(|change| {
        let names = Kept::find(&kept, change).ok()?.secret_names();
        Some((change.id(), refusal(fleet, change, &names)?))
    });
    let refusals: HashMap<WorkerId, String> = refusals.collect();
    let (kept, owner, secrets) = (Mutex::new(kept), fleet.owner().into_owned(), Arc::clone(secrets));
    Ok(Arc::new(OfState { kept, owner, secrets, live, refusals, root, folders }))
}

/// Makes the uploads of a rollback.
struct OfState {
    kept: Mutex<State>,
    owner: String,
    secrets: Arc<Secrets>,
    live: LiveSecrets,
    refusals: HashMap<WorkerId, String>,
    root: PathBuf,
    /// The folders with static assets that packs have now.
    folders: Vec<PathBuf>,
}

impl Make for OfState {
    fn upload(&self, change: &Change) -> Result<Upload, String> {
        if let Some(refusal) = self.refusals.get(&change.id()) {
            return Err(refusal.clone());
        }
        let kept = Kept::find(&self.kept.lock(), change)?;
        kept_upload(change, kept, &self.owner, &self.secrets, &self.live)
    }

    fn assets(&self, change: &Change) -> Result<Assets, String> {
        let kept = Kept::find(&self.kept.lock(), change)?;
        let list = kept.assets.ok_or("BUG: it has no static assets")?;
        let own =
            kept.stored.source["worker"]["assets"]["directory"].as_str().map(|directory| self.root.join(directory));
        let folders: Vec<PathBuf> = own.into_iter().chain(self.folders.iter().cloned()).collect();
        // What was deployed then can be there still, under this name or another.
        let find = move |path: &str, hash: &str| {
            let name = path.trim_start_matches('/');
            let is_it = |file: &PathBuf| {
                let bytes = plain_file::read_through_links(file, flotilla_assets::MOST_BYTES);
                bytes.is_ok_and(|bytes| flotilla_assets::hash(&bytes, path) == hash)
            };
            let there = folders.iter().map(|folder| folder.join(name)).find(is_it);
            there.or_else(|| {
                folders.iter().find_map(|folder| {
                    let list = flotilla_build::assets::list_of(folder)?;
                    let (path, _) = list.files.iter().find(|(_, file)| file.hash == hash)?;
                    Some(folder.join(path.trim_start_matches('/')))
                })
            })
        };
        Ok(Assets { list, find: Box::new(find) })
    }
}

/// Returns the folders with static assets that packs have.
fn asset_folders(fleet: &Fleet) -> Vec<PathBuf> {
    fleet.packs.values().filter_map(|pack| pack.assets.as_ref()?.folder.clone()).collect()
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
    /// The list of static assets, with its digest, and deflated.
    assets: Option<(Digest, Arc<AssetList>, Vec<u8>)>,
}

impl Parts {
    fn upload(self) -> Upload {
        let Parts { digest, replaces, tags, secrets, stored, modules, deflated_module, deflated_runtime, assets } =
            self;
        let bundle =
            Bundle { digest, module: stored.module, runtime: stored.runtime, metadata: stored.metadata.clone() };
        // Keys are never sent from here, so that those that the worker has are kept in any case.
        let keep: &[&str] = match (secrets.sending.keep, replaces) {
            (true, _) => &["secret_text", "secret_key"],
            (false, true) => &["secret_key"],
            (false, false) => &[],
        };
        let metadata = bundle::upload_metadata(&bundle, &tags, keep, |binding| secrets.value(binding));
        let mut objects = vec![(stored.module, deflated_module), (stored.runtime, deflated_runtime)];
        let assets = assets.map(|(digest, list, deflated)| {
            objects.push((digest, deflated));
            list
        });
        let record = UploadRecord { secrets: secrets.sending.live, objects, stored };
        Upload { metadata, modules, assets, record }
    }
}

impl OfPlan {
    fn planned_upload(&self, change: &Change) -> Result<Upload, String> {
        let OfPlan { planned, live, .. } = self;
        let (worker, recipe) = planned.worker(change).ok_or("its bundle can no longer be read")?;
        let (module, bundle) =
            build::module(&planned.project, &planned.runtimes, &worker).map_err(|diagnostic| diagnostic.message)?;
        if bundle.digest != change.digest {
            return Err("BUG: it renders otherwise than it was planned".to_owned());
        }
        let runtime = planned.runtimes.of(&worker);
        let pending = change.steps.iter().any(|step| !matches!(step, Step::CreateFirst { .. } | Step::Upload));
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
        let assets = runtime.assets.as_ref().zip(worker.assets.as_ref()).map(|(pack, own)| {
            let (digest, list) = (pack.digests_of(own).list, pack.list_of(own));
            let deflated = self.deflated_list(&digest, &list, own.own.is_none());
            (digest, list, deflated)
        });
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
            assets,
        };
        Ok(parts.upload())
    }
}

/// The record that the state keeps of an upload.
struct Kept {
    stored: Stored,
    /// The worker that is live.
    live: Option<Deployed>,
    module: Vec<u8>,
    runtime: Vec<u8>,
    /// The list of its static assets.
    assets: Option<Arc<AssetList>>,
}

impl Kept {
    fn find(state: &State, change: &Change) -> Result<Kept, String> {
        let text = |failure: Failure| failure.to_string();
        let gone = || "its bundle is no longer kept".to_owned();
        let stored = state.stored(&change.id(), &change.digest).map_err(text)?.ok_or_else(gone)?;
        let module = state.object(&stored.module).map_err(text)?.ok_or_else(gone)?;
        let runtime = state.object(&stored.runtime).map_err(text)?.ok_or_else(gone)?;
        let assets = state.assets_of(&stored).map_err(text)?.map(Arc::new);
        if assets.is_none() && assets::digests_of(&stored.metadata).is_some() {
            return Err(gone());
        }
        Ok(Kept { stored, live: state.one(&change.id()).map_err(text)?, module, runtime, assets })
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
        assets: assets::digests_of(&kept.stored.metadata).zip(kept.assets).map(|(digests, list)| {
            let deflated = deflated(&serde_json::to_vec(&*list).expect("BUG: a list is JSON"));
            (digests.list, list, deflated)
        }),
        stored: kept.stored,
    };
    Ok(parts.upload())
}
