//! Deletes customers: their specs, and everything of theirs that is deployed. Databases, buckets and the sources of secrets are kept.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use flotilla_build::build;
use flotilla_deploy::state::{State, WorkerId};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::binding::WORKER;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::plain_file;
use flotilla_model::spec::Environment;
use flotilla_model::text::clean;
use flotilla_spec::project::{self, CUSTOMERS, Fleet};
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml::MAX_BYTES;

use crate::accounts::{self, cloud_of_all, read_fleet};
use crate::cloud::{Cloud, CloudOptions};
use crate::context::{Context, LOCK};
use crate::deploy_fleet::Deployed;
use crate::destroy_target::{Caller, DestroyTarget, OtherCloud};
use crate::operator::{Approval, Event, Question};
use crate::prune::{PruneRequest, prune_under_lock};

/// The customers to delete.
pub struct DestroyRequest {
    /// Their ids.
    pub customers: BTreeSet<String>,
    /// The cloud.
    pub cloud: CloudOptions,
    /// The approval.
    pub approval: Approval,
}

/// Customers that were deleted.
pub struct Destroyed {
    /// The files and workers; after a dry run, all of them are still there.
    pub target: DestroyTarget,
    /// The result of deleting the workers; none, if none were deployed, and after a dry run.
    pub deployed: Option<Deployed>,
}

/// Deletes customers. The specs are deleted first: a run that ends halfway leaves orphaned workers, which `prune` deletes. Where nothing could
/// be sent, the specs are written back.
pub fn destroy(context: &Context<'_>, request: &DestroyRequest) -> Result<Destroyed, Failure> {
    let is_dry_run = request.approval.is_dry_run();
    // 1. Lock.
    let take = || Lock::take_from_all(&context.folder().join(LOCK), "destroy", context.operator);
    let lock = (!is_dry_run).then(take).transpose()?;
    // 2. Find what is there.
    let tree = Tree::new(&context.root);
    let mut fleet = read_fleet(&context.root)?;
    let secrets = Arc::new(request.cloud.secrets(context, &fleet)?);
    let cloud = cloud_of_all(context, &mut fleet, &request.cloud, &secrets)?;
    let state = State::read(&cloud.state)?;
    let mut target = find(&tree, &state, &request.customers)?;
    check_specs(context, &target.specs)?;
    target.env_files = env_files(context, &fleet, &request.customers);
    target.elsewhere = elsewhere(context, &cloud, &request.customers);
    target.callers = callers(context, &cloud, &target, &request.customers);
    target.shared = left_shared(&tree, &state, &target)?;
    drop(state);
    context.operator.on_event(&Event::DestroyPlanned(&target));
    if is_dry_run {
        return Ok(Destroyed { target, deployed: None });
    }
    // 3. Confirm. Also where the emulator is the cloud: files are deleted.
    if request.approval == Approval::Ask {
        context.operator.confirm(&Question::Destroy(&target))?;
    }
    // 4. Delete the specs, then the workers, whose accounts the specs may define.
    if !target.workers.is_empty() {
        accounts::note_all(&fleet, &cloud)?;
    }
    let specs = Specs::delete(context, &target.specs)?;
    if target.workers.is_empty() {
        return Ok(Destroyed { target, deployed: None });
    }
    drop(cloud);
    let prune = PruneRequest {
        cloud: request.cloud.clone(),
        approval: Approval::Given,
        max_deletions: Some(usize::MAX),
        hosts: false,
        customers: request.customers.clone(),
    };
    let context = &Context { may_have_no_customers: true, ..context.clone() };
    match prune_under_lock(context, &prune, lock.as_ref()) {
        Ok(Deployed::UpToDate(planned)) if planned.scan.unread => {
            let failure = Failure::new("the workers can't be deleted while a spec can't be read");
            Err(specs.restore(failure.hint("fix the file reported above, and run the command again")))
        }
        Ok(deployed) => Ok(Destroyed { target, deployed: Some(deployed) }),
        Err(failure) if failure.exit == Exit::SomeFailed => Err(failure),
        Err(failure) => Err(specs.restore(failure)),
    }
}

/// Finds the specs and the deployed workers of customers. Fails for one that never had either.
fn find(tree: &Tree, state: &State, customers: &BTreeSet<String>) -> Result<DestroyTarget, Failure> {
    let files = project::spec_files(tree).map(|found| found.files).unwrap_or_default();
    let mut target = DestroyTarget::default();
    for customer in customers {
        let specs: Vec<String> = files.iter().filter(|file| project::id_of(file) == customer).cloned().collect();
        let workers = state.of_customer(customer)?;
        // A customer that was already deleted, as after a run that ended halfway, has a history.
        if specs.is_empty() && workers.is_empty() && state.records_of(customer, 1)?.is_empty() {
            return Err(Failure::usage(format!("there is no customer `{}`", clean(customer))).hint(format!(
                "a customer's id is the name of its file in {CUSTOMERS}/, without `.yaml`; `flotilla state show` lists what is deployed"
            )));
        }
        target.specs.extend(specs);
        target.workers.extend(workers);
    }
    Ok(target)
}

/// Rejects a spec that would not be deleted, such as a symbolic link, before anything is.
fn check_specs(context: &Context<'_>, specs: &[String]) -> Result<(), Failure> {
    for file in specs {
        plain_file::read(&context.root.join(file), MAX_BYTES)
            .map_err(|error| Failure::new(format!("{file} can't be deleted: {error}; nothing was deleted")))?;
    }
    Ok(())
}

/// Returns the env files of customers that are there.
fn env_files(context: &Context<'_>, fleet: &Fleet, customers: &BTreeSet<String>) -> Vec<String> {
    let folders = fleet.layers.iter().filter_map(|layer| layer.rule.env_files.as_deref());
    let folders: Vec<String> = folders
        .flat_map(|folder| customers.iter().map(move |customer| format!("{folder}/customers/{customer}")))
        .collect();
    let files = folders.iter().flat_map(|folder| {
        let names = std::fs::read_dir(context.root.join(folder)).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let is_read = |name: &String| name.strip_suffix(".env").and_then(Environment::of).is_some();
        names.filter(is_read).map(move |name| format!("{folder}/{name}"))
    });
    let mut files: Vec<String> = files.collect();
    files.sort();
    files
}

/// Returns the other clouds that customers are deployed to, as far as this machine knows.
fn elsewhere(context: &Context<'_>, cloud: &Cloud, customers: &BTreeSet<String>) -> BTreeSet<OtherCloud> {
    let folder = context.folder();
    let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut states: Vec<(PathBuf, OtherCloud)> = names
        .filter(|name| name.starts_with("state") && name.ends_with(".db"))
        .map(|name| {
            let other = if name == "state.db" { OtherCloud::Cloudflare } else { OtherCloud::OtherApi };
            (folder.join(name), other)
        })
        .collect();
    states.push((folder.join("local").join("state.db"), OtherCloud::Local));
    let is_there = |path: &PathBuf| {
        // One that can't be read says nothing.
        let state = State::read(path).ok();
        state.is_some_and(|state| {
            customers.iter().any(|customer| state.of_customer(customer).is_ok_and(|workers| !workers.is_empty()))
        })
    };
    states
        .into_iter()
        .filter(|(path, _)| *path != cloud.state && path.is_file() && is_there(path))
        .map(|(_, other)| other)
        .collect()
}

/// Returns the workers of other customers that call those that are deleted, as far as their specs can be read.
fn callers(
    context: &Context<'_>,
    cloud: &Cloud,
    target: &DestroyTarget,
    customers: &BTreeSet<String>,
) -> BTreeSet<Caller> {
    let Ok((project, mut scan)) = build::open_and_scan(&context.root, context.operator) else { return BTreeSet::new() };
    context.operator.end();
    let home = |worker: &Worker| cloud.home(&worker.account, worker.namespace.as_deref());
    let workers = scan.workers(&project);
    let (gone, others): (Vec<Worker>, Vec<Worker>) =
        workers.into_iter().partition(|worker| customers.contains(&worker.customer));
    let mut deleted: BTreeSet<WorkerId> = target.workers.iter().map(|(id, _)| id.clone()).collect();
    deleted.extend(gone.into_iter().map(|worker| (home(&worker), worker.name)));
    let mut callers = BTreeSet::new();
    for worker in others {
        let home = home(&worker);
        let bindings = worker.bindings.values().flat_map(|binding| [binding.0.get(WORKER), binding.0.get("outbound")]);
        let bound = bindings.flatten().filter_map(|name| name.as_str().map(str::to_owned));
        let callees = worker.services.values().chain(worker.peers.values()).cloned().chain(bound);
        for callee in callees.chain(worker.tail_consumers.iter().flatten().cloned()) {
            if deleted.contains(&(home.clone(), callee.clone())) {
                let customer = worker.customer.clone();
                callers.insert(Caller { customer, worker: worker.name.clone(), callee });
            }
        }
    }
    callers
}

/// Returns the deployed shared workers, if no customer is left.
fn left_shared(tree: &Tree, state: &State, target: &DestroyTarget) -> Result<Vec<String>, Failure> {
    let files = project::spec_files(tree).map(|found| found.files).unwrap_or_default();
    if files.iter().any(|file| !target.specs.contains(file)) {
        return Ok(Vec::new());
    }
    Ok(state.of_customer(SHARED)?.into_iter().map(|((_, worker), _)| worker).collect())
}

/// Specs that were deleted, to be written back.
struct Specs(Vec<(PathBuf, Vec<u8>)>);

impl Specs {
    fn delete(context: &Context<'_>, files: &[String]) -> Result<Specs, Failure> {
        let mut specs = Specs(Vec::new());
        for file in files {
            let path = context.root.join(file);
            let deleted = plain_file::read(&path, MAX_BYTES).and_then(|bytes| {
                std::fs::remove_file(&path)?;
                Ok(bytes)
            });
            match deleted {
                Ok(bytes) => specs.0.push((path, bytes)),
                Err(error) => return Err(specs.restore(Failure::new(format!("{file} can't be deleted: {error}")))),
            }
        }
        Ok(specs)
    }

    /// Writes the specs back because of a failure, and returns it with what could not be written.
    fn restore(self, failure: Failure) -> Failure {
        self.0.into_iter().fold(failure.hint("nothing was deleted"), |failure, (path, bytes)| {
            match AtomicFile::new(&path).keep_permissions().write(&bytes) {
                Ok(_) => failure,
                Err(error) => failure.hint(format!("{} can't be written back: {error}", path.display())),
            }
        })
    }
}
