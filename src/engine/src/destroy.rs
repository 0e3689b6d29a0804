//! Deletes customers: their specs, and everything of theirs that is deployed. Databases, buckets and the sources of secrets are kept.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use flotilla_deploy::state::{Deployed as LiveWorker, State, WorkerId};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::plain_file;
use flotilla_model::text::clean;
use flotilla_spec::project::{self, CUSTOMERS};
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml::MAX_BYTES;

use crate::cloud::{Cloud, CloudOptions};
use crate::context::{Context, LOCK};
use crate::deploy_fleet::Deployed;
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

/// The files and workers that are deleted with customers.
pub struct Target {
    /// The files of the specs, from the project's root.
    pub specs: Vec<String>,
    /// The workers that are deployed, as far as the state knows.
    pub workers: Vec<(WorkerId, LiveWorker)>,
}

/// Customers that were deleted.
pub struct Destroyed {
    /// The files and workers; after a dry run, all of them are still there.
    pub target: Target,
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
    let fleet = project::read_fleet(&tree).map_err(Failure::invalid)?;
    let secrets = Arc::new(request.cloud.secrets(context, &fleet)?);
    let cloud = Cloud::new(context, &fleet, &request.cloud, &secrets)?;
    let target = find(&tree, &State::read(&cloud.state)?, &request.customers)?;
    context.operator.on_event(&Event::DestroyPlanned { specs: &target.specs, workers: &target.workers });
    if is_dry_run {
        return Ok(Destroyed { target, deployed: None });
    }
    // 3. Confirm. Also where the emulator is the cloud: files are deleted.
    if request.approval == Approval::Ask {
        context.operator.confirm(&Question::Destroy { specs: &target.specs, workers: target.workers.len() })?;
    }
    // 4. Delete the specs, then the workers.
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
            Err(specs.restore(failure.hint("fix the file that is reported above, and run the command again")))
        }
        Ok(deployed) => Ok(Destroyed { target, deployed: Some(deployed) }),
        Err(failure) if failure.exit == Exit::SomeFailed => Err(failure),
        Err(failure) => Err(specs.restore(failure)),
    }
}

/// Finds the specs and the deployed workers of customers. Fails for one that never had either.
fn find(tree: &Tree, state: &State, customers: &BTreeSet<String>) -> Result<Target, Failure> {
    let files = project::spec_files(tree).map(|found| found.files).unwrap_or_default();
    let mut target = Target { specs: Vec::new(), workers: Vec::new() };
    for customer in customers {
        let specs: Vec<String> = files.iter().filter(|file| project::id_of(file) == customer).cloned().collect();
        let workers = state.of_customer(customer)?;
        // Of one that is gone already, as after a run that ended halfway, there is history.
        if specs.is_empty() && workers.is_empty() && state.records_of(customer, 1)?.is_empty() {
            return Err(Failure::usage(format!("there is no customer `{}`", clean(customer))).hint(format!(
                "customers are the files of {CUSTOMERS}/, without `.yaml`; `flotilla state show` lists what is deployed"
            )));
        }
        target.specs.extend(specs);
        target.workers.extend(workers);
    }
    Ok(target)
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
