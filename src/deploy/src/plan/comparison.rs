//! One worker's change: the steps from the state to the desired state, and the reasons. Knows no other workers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Change, Desired, Options, PlannedAssets, PlannedMigration, RecordedWorker, Step};
use crate::rotation::LOST;
use crate::state::{Deployed, DeployedResources, InFlight, Uncertainty, WorkerId};
use flotilla_model::assets;
use flotilla_model::bundle::{by_name, differences, workers};
use flotilla_model::customer::Database;
use flotilla_model::digest::Digest;
use flotilla_model::objects::{self, ClassExport, ClassState};
use flotilla_model::reason::Reason;
use flotilla_model::spec::{Environment, QueueConsumer};

/// Returns the change of a worker, if it needs one.
pub(super) fn change(wanted: &Desired<'_>, known: &RecordedWorker<'_>, options: &Options<'_>) -> Option<Change> {
    let (worker, live) = (wanted.worker, known.live);
    let in_flight = known.in_flight.map(|in_flight| &in_flight.uncertainties[..]).unwrap_or_default();
    let uncertainties: Vec<Uncertainty> = in_flight.iter().chain(known.contested).cloned().collect();
    let is_uncertain =
        |uncertainty: Uncertainty| uncertainties.contains(&uncertainty) || uncertainties.contains(&Uncertainty::Delete);
    let mut reasons = Vec::new();
    let mut steps = Vec::new();
    let before = live.map(|deployed| &deployed.live);
    match live {
        None if options.missing.contains(&(wanted.home.clone(), worker.name.clone())) => {
            reasons.push(Reason::Missing);
        }
        None => reasons.push(Reason::New),
        Some(deployed) => reasons.extend(upload_reasons(wanted, deployed, known)),
    }
    let Migrated { migration, reasons: migrations, destroys_objects } = migrated(wanted, known);
    reasons.extend(migrations);
    if reasons.is_empty() && is_uncertain(Uncertainty::Upload) {
        reasons.push(Reason::UploadInterrupted);
    }
    if reasons.is_empty() {
        let since = |live: &Deployed| options.forced_since.is_some_and(|since| live.deployed_at > since);
        let force = options.force.filter(|_| !known.live.is_some_and(since));
        reasons.extend(force.map(|reason| Reason::Forced { reason: reason.to_owned() }));
    }
    let assets = uploaded_assets(wanted, known, &uncertainties).filter(|_| !reasons.is_empty());
    if !reasons.is_empty() {
        for name in known.unknown_databases {
            let (jurisdiction, location_hint) = match &worker.database {
                Database::D1 { name: own, jurisdiction, location_hint, .. } if own == name => {
                    (*jurisdiction, *location_hint)
                }
                _ => (None, None),
            };
            reasons.push(Reason::DatabaseCreated { new: name.clone() });
            steps.push(Step::CreateDatabase { name: name.clone(), jurisdiction, location_hint });
        }
        steps.extend(assets.iter().map(|_| Step::UploadAssets));
        steps.push(Step::Upload);
    }
    let (domains, routes) = uncertain(&uncertainties);
    // A host goes only after those that come are there.
    let mut releases = Vec::new();
    for (domain, id) in before.iter().flat_map(|live| &live.domains) {
        if !worker.domains.contains(domain) && !domains.contains(domain.as_str()) {
            reasons.push(Reason::DomainRemoved { old: domain.clone() });
            releases.push(Step::DetachDomain { domain: domain.clone(), id: id.clone() });
        }
    }
    for domain in domains.iter().filter(|domain| !worker.domains.contains(**domain)) {
        reasons.push(Reason::DomainRemoved { old: (*domain).to_owned() });
        releases.push(Step::DropDomain { domain: (*domain).to_owned() });
    }
    let patterns: BTreeSet<&str> = worker.routes.iter().map(|route| route.pattern.as_str()).collect();
    let added = |pattern: &str| routes.get(pattern).cloned().flatten();
    for (pattern, (zone_id, id)) in before.iter().flat_map(|live| &live.routes) {
        if !patterns.contains(pattern.as_str()) && added(pattern).is_none() {
            reasons.push(Reason::RouteRemoved { old: pattern.clone() });
            releases.push(Step::RemoveRoute { pattern: pattern.clone(), zone_id: zone_id.clone(), id: id.clone() });
        }
    }
    for (pattern, zone) in routes.iter().filter(|(pattern, _)| !patterns.contains(**pattern)) {
        if let Some(zone) = zone {
            reasons.push(Reason::RouteRemoved { old: (*pattern).to_owned() });
            releases.push(Step::DropRoute { pattern: (*pattern).to_owned(), zone: (*zone).to_owned() });
        }
    }
    let on = before.is_some_and(|live| live.workers_dev);
    let previews = before.is_some_and(|live| live.preview_urls);
    let is_switched = worker.workers_dev != on || is_uncertain(Uncertainty::WorkersDev);
    if is_switched {
        reasons.push(Reason::WorkersDev { old: on, new: worker.workers_dev });
    }
    if worker.preview_urls != previews {
        reasons.push(Reason::PreviewUrls { old: previews, new: worker.preview_urls });
    }
    if is_switched || worker.preview_urls != previews {
        let hosts = if worker.workers_dev || !is_switched { &mut steps } else { &mut releases };
        hosts.push(Step::SetWorkersDev { on: worker.workers_dev, previews: worker.preview_urls });
    }
    for domain in &worker.domains {
        if domains.contains(domain.as_str()) || !before.is_some_and(|live| live.domains.contains_key(domain)) {
            reasons.push(Reason::DomainAdded { new: domain.clone() });
            steps.push(Step::AttachDomain { domain: domain.clone() });
        }
    }
    for route in &worker.routes {
        let pattern = &route.pattern;
        if routes.contains_key(pattern.as_str()) || !before.is_some_and(|live| live.routes.contains_key(pattern)) {
            reasons.push(Reason::RouteAdded { new: pattern.clone() });
            steps.push(Step::AddRoute { pattern: pattern.clone(), zone: route.zone.clone() });
        }
    }
    let none = BTreeSet::new();
    let crons = before.map_or(&none, |live| &live.crons);
    if &worker.crons != crons || is_uncertain(Uncertainty::Crons) {
        reasons.push(Reason::Crons { old: crons.clone(), new: worker.crons.clone() });
        steps.push(Step::SetCrons { crons: worker.crons.clone() });
    }
    let mut queues = BTreeSet::new();
    let no_consumers = BTreeMap::new();
    let consumers = before.map_or(&no_consumers, |live| &live.consumers);
    for (queue, consumer) in &worker.queue_consumers {
        let there = consumers.get(queue);
        if there != Some(consumer) || is_uncertain(Uncertainty::Consumer(queue.clone())) {
            queues.extend(there.is_none().then_some(queue));
            let dead =
                |consumer: Option<&QueueConsumer>| consumer.and_then(|consumer| consumer.dead_letter_queue.clone());
            queues.extend(consumer.dead_letter_queue.as_ref().filter(|name| dead(there).as_ref() != Some(name)));
            reasons.push(match there {
                None => Reason::ConsumerAdded { new: queue.clone() },
                Some(_) => Reason::ConsumerChanged { queue: queue.clone() },
            });
            steps.push(Step::SetConsumer { queue: queue.clone(), consumer: consumer.clone() });
        }
    }
    let (uncertain_consumers, _) = uncertain_parts(&uncertainties);
    let had: BTreeSet<&str> = consumers.keys().map(String::as_str).chain(uncertain_consumers).collect();
    for queue in had.into_iter().filter(|queue| !worker.queue_consumers.contains_key(*queue)) {
        reasons.push(Reason::ConsumerRemoved { old: queue.to_owned() });
        releases.push(Step::RemoveConsumer { queue: queue.to_owned() });
    }
    let (workflows, none) = (worker.workflows(), BTreeMap::new());
    let live_workflows = before.map_or(&none, |live| &live.workflows);
    for (name, workflow) in &workflows {
        if live_workflows.get(name) != Some(workflow) || is_uncertain(Uncertainty::Workflow(name.clone())) {
            reasons.push(Reason::WorkflowDeployed { new: name.clone() });
            steps.push(Step::PutWorkflow { name: name.clone(), workflow: workflow.clone() });
        }
    }
    let kept = live_workflows.keys().filter(|name| !workflows.contains_key(*name));
    reasons.extend(kept.map(|name| Reason::WorkflowKept { old: name.clone() }));
    // What the upload may be bound to is there before it.
    reasons.extend(queues.iter().map(|name| Reason::QueueCreated { new: (*name).clone() }));
    steps.splice(0..0, queues.into_iter().map(|name| Step::CreateQueue { name: name.clone() }));
    steps.append(&mut releases);
    (!steps.is_empty()).then(|| Change {
        customer: worker.customer.clone(),
        environment: worker.environment,
        worker: worker.name.clone(),
        account: worker.account.clone(),
        action: if live.is_some() { Action::Update } else { Action::Create },
        reasons,
        steps,
        digest: wanted.bundle.digest,
        was: live.map(|live| live.digest),
        wave: 0,
        migration,
        assets,
        destroys_objects,
        adopts: false,
        home: wanted.home.clone(),
        revision: live.map(|live| live.revision),
        calls: worker.services.values().cloned().collect(),
        refers: workers(&wanted.bundle.metadata),
        rejects: None,
        zone_ids: worker.routes.iter().filter_map(|route| Some((route.zone.clone(), route.zone_id.clone()?))).collect(),
        needs: by_name(&wanted.bundle.metadata).map(|(resource, name)| (resource, name.to_owned())).collect(),
        picked: options.waves.iter().position(|wave| wave.picks(&worker.labels)),
        rank: 0,
        cycle: None,
    })
}

/// Returns the static assets that have to be uploaded with a worker. Those of the version before stay where it is certain which these are: the
/// state knows the live bundle, nobody else changed the worker, and no upload was interrupted.
fn uploaded_assets(
    wanted: &Desired<'_>,
    known: &RecordedWorker<'_>,
    uncertain: &[Uncertainty],
) -> Option<PlannedAssets> {
    let metadata = &wanted.bundle.metadata;
    let digests = assets::digests_of(metadata)?;
    let is_certain = !uncertain.iter().any(|part| matches!(part, Uncertainty::Upload | Uncertainty::Delete));
    let live = known.live.filter(|live| is_certain && live.drift.is_none());
    let is_same = live.is_some_and(|live| live.digest == wanted.bundle.digest);
    let before = live.and(known.bundle).is_some_and(|before| assets::can_keep(&before.metadata, metadata));
    (!is_same && !before).then_some(PlannedAssets {
        list: digests.list,
        uploads_at_most: known.missing_assets.0,
        own_at_most: known.missing_assets.1,
        pack: Some(wanted.worker.pack.clone()),
    })
}

/// The changes that an upload makes to Durable Object classes.
#[derive(Default)]
struct Migrated {
    migration: Option<PlannedMigration>,
    reasons: Vec<Reason>,
    destroys_objects: bool,
}

/// Returns what the upload of a worker does with its Durable Object classes. Without anything to do, there is no reason for an upload.
fn migrated(wanted: &Desired<'_>, known: &RecordedWorker<'_>) -> Migrated {
    let (metadata, name) = (&wanted.bundle.metadata, wanted.worker.name.as_str());
    let mut done = Migrated::default();
    let (all, exports) = (objects::migrations_of(metadata), objects::exports_of(metadata));
    if all.is_empty() && exports.is_empty() {
        return done;
    }
    let is_same = known.live.is_some_and(|live| live.digest == wanted.bundle.digest);
    let before = known.bundle.map(|bundle| &bundle.metadata).or(is_same.then_some(metadata));
    let live_tag = known.live.and_then(|live| live.live.migration_tag.clone());
    let pending = objects::pending(&all, live_tag.as_deref()).unwrap_or_default();
    let bound = before.map(|before| objects::bound_classes(before, name)).unwrap_or_default();
    let (count, held) = objects::at_once(pending, &bound);
    let now = &pending[..count];
    // A class that is created and deleted within these never had an object.
    let mut there = objects::classes(&all[..all.len() - pending.len()]);
    let mut destroyed = Vec::new();
    if let Some(last) = now.last() {
        done.reasons.push(Reason::Migrated { old: live_tag.clone(), new: last.tag.clone() });
        for migration in now {
            destroyed.extend(
                migration.deleted_classes.iter().filter(|class| there.remove(class.as_str()).is_some()).cloned(),
            );
            for class in &migration.renamed_classes {
                if let Some(storage) = there.remove(class.from.as_str()) {
                    there.insert(&class.to, storage);
                }
            }
        }
        done.migration = Some(PlannedMigration { from: live_tag, steps: now.to_vec(), all: all.clone() });
    }
    if !is_same {
        done.reasons.extend(held.into_iter().map(|class| Reason::ClassUnbound { class: class.to_owned() }));
        let deleted =
            exports.iter().filter(|(_, export)| export.state() == ClassState::Deleted).map(|(class, _)| class);
        // An unknown resource may exist.
        let was_there = |class: &&String| {
            let Some(before) = before else { return true };
            objects::exports_of(before).get(*class).is_some_and(ClassExport::is_live)
                || objects::classes(&objects::migrations_of(before)).contains_key(class.as_str())
                || bound.contains(*class)
        };
        destroyed.extend(deleted.filter(|_| known.live.is_some()).filter(was_there).cloned());
    }
    done.destroys_objects = !destroyed.is_empty();
    done.reasons.extend(destroyed.into_iter().map(|class| Reason::ClassDeleted { class }));
    done
}

/// Returns the reasons for which a live worker is uploaded again.
fn upload_reasons(wanted: &Desired<'_>, deployed: &Deployed, known: &RecordedWorker<'_>) -> Vec<Reason> {
    let (bundle, live) = (wanted.bundle, &deployed.live);
    let mut reasons: Vec<Reason> = deployed.drift.iter().cloned().collect();
    if !live.without.is_empty() {
        reasons.push(Reason::BindingsMissing { without: live.without.clone() });
    } else if bundle.digest != deployed.digest {
        reasons.extend(known.differences.iter().cloned());
        if let (Some(before), true) = (known.bundle, known.differences.is_empty()) {
            if bundle.runtime != before.runtime {
                reasons.push(Reason::PackBundleChanged { old: None, new: None });
            } else if bundle.module != before.module {
                // The module names the runtime, so that it differs with it.
                reasons.push(Reason::ModuleChanged { old: before.module.short(), new: bundle.module.short() });
            }
            reasons.extend(differences(&before.metadata, &bundle.metadata));
        }
        if reasons.is_empty() {
            reasons.push(Reason::BundleChanged { old: deployed.digest.short(), new: bundle.digest.short() });
        }
    }
    for (name, fingerprint) in &wanted.secrets {
        match live.secrets.get(name) {
            Some(before) if before == LOST => reasons.push(Reason::SecretLost { name: name.clone() }),
            Some(before) if before != fingerprint => reasons.push(Reason::SecretChanged { name: name.clone() }),
            _ => {}
        }
    }
    reasons
}

/// Returns the domains of which it is unknown whether the worker has them, and the routes, with their zones where they were being
/// added.
fn uncertain(uncertainties: &[Uncertainty]) -> (BTreeSet<&str>, BTreeMap<&str, Option<&str>>) {
    let mut domains = BTreeSet::new();
    let mut routes = BTreeMap::new();
    for uncertainty in uncertainties {
        match uncertainty {
            Uncertainty::Domain(domain) => {
                domains.insert(domain.as_str());
            }
            Uncertainty::Route { pattern, zone } => {
                routes.insert(pattern.as_str(), zone.as_deref());
            }
            Uncertainty::Upload
            | Uncertainty::Assets
            | Uncertainty::Delete
            | Uncertainty::WorkersDev
            | Uncertainty::Crons
            | Uncertainty::Queue
            | Uncertainty::Consumer(_)
            | Uncertainty::Workflow(_)
            | Uncertainty::Database => {}
        }
    }
    (domains, routes)
}

/// Returns the queues of which it is unknown whether the worker consumes them, and the workflows of which it is unknown how they are
/// deployed.
fn uncertain_parts(uncertainties: &[Uncertainty]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut consumers, mut workflows) = (BTreeSet::new(), BTreeSet::new());
    for uncertainty in uncertainties {
        match uncertainty {
            Uncertainty::Consumer(queue) => _ = consumers.insert(queue.as_str()),
            Uncertainty::Workflow(name) => _ = workflows.insert(name.as_str()),
            _ => {}
        }
    }
    (consumers, workflows)
}

/// An orphaned worker, as far as it is known.
pub(super) struct Gone<'a> {
    account: &'a str,
    pub(super) customer: &'a str,
    pub(super) environment: Environment,
    digest: Digest,
    live: Option<&'a DeployedResources>,
    revision: Option<i64>,
    uncertainties: &'a [Uncertainty],
}

impl<'a> Gone<'a> {
    pub(super) fn of(deployed: &'a Deployed, in_flight: Option<&'a InFlight>) -> Gone<'a> {
        Gone {
            account: &deployed.account,
            customer: &deployed.customer,
            environment: deployed.environment,
            digest: deployed.digest,
            live: Some(&deployed.live),
            revision: Some(deployed.revision),
            uncertainties: in_flight.map(|in_flight| &in_flight.uncertainties[..]).unwrap_or_default(),
        }
    }

    pub(super) fn in_flight(in_flight: &'a InFlight) -> Gone<'a> {
        let InFlight { account, customer, environment, digest, uncertainties, .. } = in_flight;
        Gone {
            account,
            customer,
            environment: *environment,
            digest: *digest,
            live: None,
            revision: None,
            uncertainties,
        }
    }

    /// Returns whether it has Durable Objects of its own, as far as the state knows.
    pub(super) fn has_objects(&self) -> bool {
        self.live.is_some_and(|live| live.has_objects)
    }

    pub(super) fn deletion(&self, (home, worker): &WorkerId, destroys_objects: bool) -> Change {
        let mut steps = Vec::new();
        let (domains, routes) = uncertain(self.uncertainties);
        // First the hosts that point to it, so that no host points to nothing.
        for (domain, id) in self.live.iter().flat_map(|live| &live.domains) {
            if !domains.contains(domain.as_str()) {
                steps.push(Step::DetachDomain { domain: domain.clone(), id: id.clone() });
            }
        }
        steps.extend(domains.iter().map(|domain| Step::DropDomain { domain: (*domain).to_owned() }));
        for (pattern, (zone_id, id)) in self.live.iter().flat_map(|live| &live.routes) {
            if routes.get(pattern.as_str()).is_none_or(Option::is_none) {
                steps.push(Step::RemoveRoute { pattern: pattern.clone(), zone_id: zone_id.clone(), id: id.clone() });
            }
        }
        steps.extend(routes.iter().filter_map(|(pattern, zone)| {
            Some(Step::DropRoute { pattern: (*pattern).to_owned(), zone: (*zone)?.to_owned() })
        }));
        let (consumers, workflows) = uncertain_parts(self.uncertainties);
        let queues = self.live.iter().flat_map(|live| live.consumers.keys()).map(String::as_str);
        let queues: BTreeSet<&str> = queues.chain(consumers).collect();
        steps.extend(queues.into_iter().map(|queue| Step::RemoveConsumer { queue: queue.to_owned() }));
        let own = self.live.iter().flat_map(|live| live.workflows.keys()).map(String::as_str);
        let own: BTreeSet<&str> = own.chain(workflows).collect();
        steps.extend(own.into_iter().map(|name| Step::DeleteWorkflow { name: name.to_owned() }));
        steps.push(Step::Delete);
        Change {
            customer: self.customer.to_owned(),
            environment: self.environment,
            worker: worker.clone(),
            account: self.account.to_owned(),
            action: Action::Delete,
            reasons: [Some(Reason::Orphaned), destroys_objects.then_some(Reason::ObjectsDestroyed)]
                .into_iter()
                .flatten()
                .collect(),
            steps,
            digest: self.digest,
            was: self.live.map(|_| self.digest),
            wave: 0,
            migration: None,
            assets: None,
            destroys_objects,
            adopts: false,
            home: home.clone(),
            revision: self.revision,
            calls: Vec::new(),
            refers: Vec::new(),
            rejects: None,
            zone_ids: BTreeMap::new(),
            needs: Vec::new(),
            picked: None,
            rank: 0,
            cycle: None,
        }
    }
}
