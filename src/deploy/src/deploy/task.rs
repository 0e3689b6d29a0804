//! One change in progress: its next request, and what an answer means for what is live. Pure; knows neither pace nor
//! state.

use std::collections::VecDeque;

use serde_json::Value;

use super::advice::{DOMAIN_HAS_RECORDS, attached_elsewhere, explained};
use super::index::StepIndex;
use super::ownership::Ownership;
use super::problem::{NextStep, Problem};
use super::steps::is_upload;
use crate::plan::handover::Host;
use crate::plan::{Change, Step};
use crate::retry::Attempts;
use crate::state::{Deployed, Uncertainty, WorkerId};
use flotilla_model::objects;
use flotilla_model::paging::{Page, Pages};
use flotilla_model::platform::{
    CONSUMER_EXISTS, Call, CallError, DATABASE_EXISTS, ListedConsumer, ListedQueue, ListedRoute, ROUTE_EXISTS, Reply,
    Token,
};
use flotilla_model::tags;

/// The code of the failure to attach a domain that another worker has.
const DOMAIN_ATTACHED: u64 = 100_116;

/// The part of a change that is done before the last one, which waits for the other changes of its wave.
pub(super) struct Released {
    /// The steps that were done.
    pub steps: Vec<StepIndex>,
    /// The worker's revision since.
    pub revision: Option<i64>,
}

/// A change that has begun.
pub(super) struct Task {
    /// Its worker.
    pub id: WorkerId,
    /// The steps that are done now.
    steps: Vec<StepIndex>,
    /// The number of steps that are done.
    done: usize,
    /// The worker as far as it is known.
    pub live: Option<Deployed>,
    /// The uncertainties that an earlier deploy left.
    pub earlier: Vec<Uncertainty>,
    /// The uncertainties until the rest of this change was acknowledged: one entry for each step that is left.
    pub left: Vec<Uncertainty>,
    /// The attempts at the present step.
    pub attempts: Attempts,
    /// Whether a request of the present step was sent and not answered.
    pub is_outcome_unknown: bool,
    /// Whether the worker's owner is to be looked at before anything else is sent.
    pub is_check_due: bool,
    /// Whether the worker existed when its owner was looked at.
    exists: bool,
    /// Whether the worker's live migrations are to be read before it is uploaded.
    pub is_migration_due: bool,
    /// The migrations that the upload goes through, as they are sent; none if it goes through none.
    pub migrations: Option<Value>,
    /// The tag of the last migration after the upload, if that was found out.
    pub migration_tag: Option<String>,
    /// The session in which its static assets are uploaded.
    pub assets: Option<AssetSession>,
    /// The token that stands for its static assets in the upload.
    pub assets_token: Option<Token>,
    /// The worker's tags when its owner was looked at.
    tags: Vec<String>,
    /// The results of the present step's lookups.
    pub found: StepLookups,
    /// The domains and routes that it released earlier.
    pub released: Option<Box<Released>>,
}

/// The results of look-ups in the present step.
#[derive(Default)]
pub(super) struct StepLookups {
    /// The id of the domain or route that is to go, or of the database.
    pub id: Option<Option<String>>,
    /// The worker that has the host which is moved.
    pub held_by: Option<String>,
    /// A resource with that name already exists.
    exists: bool,
    /// The message of the failure to attach the domain, while the worker that has it is looked up.
    rejected: Option<Problem>,
    /// The owner of the worker that has the domain was looked at.
    is_holder_checked: bool,
    /// The page of the list that is read next.
    page: Page,
    /// The pages of names that were read.
    names: Pages<(String, String)>,
    /// The pages of routes that were read.
    routes: Pages<ListedRoute>,
    /// The queue that was found.
    queue: Option<ListedQueue>,
    /// The pages of queues that were read.
    queues: Pages<ListedQueue>,
}

/// A session of static assets that is open.
pub(super) struct AssetSession {
    /// Its token.
    pub token: Token,
    /// The hashes of the files that are still missing, by the requests that upload them.
    pub buckets: VecDeque<Vec<String>>,
}

/// The result of looking for something in a list.
enum Found {
    /// It, or that it isn't there.
    Reply(Reply),
    /// The next page has to be read.
    NotYet,
}

/// The next action of a step.
pub(super) enum Next {
    /// Sends this request.
    Call(Call),
    /// The upload.
    Upload,
    /// The beginning of a session of static assets.
    AssetSession,
    /// The upload of these files in a session, by their hashes.
    Assets(Token, Vec<String>),
    /// A zone's id, by its name.
    Zone(String),
    /// Sends nothing: the step is done.
    Done,
}

impl Task {
    /// A change of which no step is done yet; `left` has what each of its steps makes uncertain.
    pub fn new(
        id: WorkerId,
        steps: Vec<StepIndex>,
        live: Option<Deployed>,
        earlier: Vec<Uncertainty>,
        left: Vec<Uncertainty>,
    ) -> Task {
        Task {
            id,
            steps,
            done: 0,
            live,
            earlier,
            left,
            attempts: Attempts::default(),
            is_outcome_unknown: false,
            is_check_due: false,
            exists: false,
            is_migration_due: false,
            migrations: None,
            migration_tag: None,
            assets: None,
            assets_token: None,
            tags: Vec::new(),
            found: StepLookups::default(),
            released: None,
        }
    }

    /// Returns what it did, when all of its steps of this phase are done.
    pub fn into_released(self) -> Released {
        let mut steps = self.released.map(|released| released.steps).unwrap_or_default();
        steps.extend(self.steps);
        Released { steps, revision: self.live.map(|live| live.revision) }
    }

    /// Returns the number of steps that are left, the present one included.
    pub fn steps_left(&self) -> usize {
        self.steps.len() - self.done
    }

    /// Returns the steps that are left, the present one included.
    pub fn open_steps(&self) -> impl Iterator<Item = StepIndex> {
        self.steps[self.done..].iter().copied()
    }

    /// Returns the present step.
    pub fn step<'c>(&self, change: &'c Change) -> &'c Step {
        &change.steps[self.steps[self.done].place()]
    }

    /// Returns whether the present step is done without a request: what it is to create exists.
    pub fn is_done_already(&self, change: &Change) -> bool {
        self.exists && self.steps_left() > 0 && matches!(self.step(change), Step::CreateFirst { .. })
    }

    /// Returns what comes next in the present step. `ownership`: what may be changed, unless all of it may; `zone` gives the ids of
    /// zones that are known.
    pub fn next(&self, change: &Change, ownership: Option<&Ownership>, zone: impl Fn(&str) -> Option<String>) -> Next {
        let worker = change.worker.clone();
        if self.is_check_due {
            return Next::Call(Call::ReadTags { worker });
        }
        match self.step(change) {
            Step::CreateDatabase { name, .. } if self.found.exists => {
                Next::Call(Call::ListDatabases { name: Some(name.clone()), page: self.found.page.clone() })
            }
            Step::CreateDatabase { name, jurisdiction, location_hint } => Next::Call(Call::CreateDatabase {
                name: name.clone(),
                jurisdiction: *jurisdiction,
                location_hint: *location_hint,
            }),
            Step::UploadAssets => match &self.assets {
                None => Next::AssetSession,
                Some(session) => {
                    let files = session.buckets.front().cloned().unwrap_or_default();
                    Next::Assets(session.token.clone(), files)
                }
            },
            Step::CreateFirst { .. } | Step::Upload if self.is_migration_due => {
                Next::Call(Call::ReadSettings { worker })
            }
            Step::CreateFirst { .. } | Step::Upload => Next::Upload,
            Step::CreateQueue { name } if self.found.id.is_some() => {
                Next::Call(Call::CreateQueue { name: name.clone() })
            }
            Step::SetConsumer { queue: name, .. }
            | Step::RemoveConsumer { queue: name }
            | Step::CreateQueue { name }
                if self.found.queue.is_none() =>
            {
                Next::Call(Call::ListQueues { name: Some(name.clone()), page: self.found.page.clone() })
            }
            Step::CreateQueue { .. } => Next::Done,
            Step::SetConsumer { consumer, .. } => {
                let (queue_id, consumer) = (self.queue().id.clone(), consumer.clone());
                match self.consumer_of(&worker) {
                    Some(id) => Next::Call(Call::UpdateConsumer { worker, queue_id, id, consumer }),
                    None => Next::Call(Call::CreateConsumer { worker, queue_id, consumer }),
                }
            }
            Step::RemoveConsumer { .. } => match self.consumer_of(&worker) {
                Some(id) => Next::Call(Call::DeleteConsumer { queue_id: self.queue().id.clone(), id }),
                None => Next::Done,
            },
            Step::PutWorkflow { name, .. } | Step::DeleteWorkflow { name } if self.found.id.is_none() => {
                Next::Call(Call::ReadWorkflow { name: name.clone() })
            }
            Step::PutWorkflow { name, workflow } => {
                Next::Call(Call::PutWorkflow { name: name.clone(), workflow: workflow.clone() })
            }
            Step::DeleteWorkflow { name } => match &self.found.id {
                Some(Some(_)) => Next::Call(Call::DeleteWorkflow { name: name.clone() }),
                _ => Next::Done,
            },
            Step::DeleteDatabase { name } => match &self.found.id {
                None => Next::Call(Call::ListDatabases { name: Some(name.clone()), page: self.found.page.clone() }),
                Some(Some(id)) => Next::Call(Call::DeleteDatabase { id: id.clone() }),
                Some(None) => Next::Done,
            },
            Step::Delete => {
                let tag = ownership.map(|ownership| tags::identity(&ownership.fleet, &worker));
                let tag = tag.filter(|tag| change.home.namespace.is_some() && self.tags.contains(tag));
                Next::Call(Call::Delete { worker, tag })
            }
            Step::SetWorkersDev { on, previews } => {
                Next::Call(Call::SetWorkersDev { worker, on: *on, previews: *previews })
            }
            Step::SetCrons { crons } => Next::Call(Call::SetCrons { worker, crons: crons.iter().cloned().collect() }),
            Step::AttachDomain { domain } | Step::MoveDomain { domain, .. } | Step::TakeDomain { domain, .. }
                if self.found.rejected.is_some() =>
            {
                Next::Call(Call::FindDomain { worker, domain: domain.clone() })
            }
            Step::AttachDomain { domain } => Next::Call(Call::AttachDomain { worker, domain: domain.clone() }),
            // That it is still that worker's is asked first: what somebody else has by now isn't taken.
            Step::MoveDomain { domain, from } => Next::Call(match &self.found.id {
                None => Call::FindDomain { worker: from.first().unwrap_or(&worker).clone(), domain: domain.clone() },
                Some(Some(_)) => Call::MoveDomain { worker, domain: domain.clone() },
                Some(None) => Call::AttachDomain { worker, domain: domain.clone() },
            }),
            Step::DetachDomain { id, .. } if ownership.is_none() => Next::Call(Call::DetachDomain { id: id.clone() }),
            Step::TakeDomain { domain, from, .. } => match &self.found.id {
                None => Next::Call(Call::FindDomain { worker: from.clone(), domain: domain.clone() }),
                Some(Some(_)) if !self.found.is_holder_checked && !is_taken_over(change, domain, ownership) => {
                    Next::Call(Call::ReadTags { worker: from.clone() })
                }
                Some(Some(_)) => Next::Call(Call::MoveDomain { worker, domain: domain.clone() }),
                Some(None) => Next::Call(Call::AttachDomain { worker, domain: domain.clone() }),
            },
            Step::RemoveRoute { zone_id, id, .. } => {
                let (zone_id, id) = (zone_id.clone(), id.clone());
                match self.found.id.is_none() && ownership.is_some() {
                    true => Next::Call(Call::ReadRoute { zone_id, id }),
                    false => Next::Call(Call::RemoveRoute { zone_id, id }),
                }
            }
            Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => match &self.found.id {
                None => Next::Call(Call::FindDomain { worker, domain: domain.clone() }),
                Some(Some(id)) => Next::Call(Call::DetachDomain { id: id.clone() }),
                Some(None) => Next::Done,
            },
            Step::MoveRoute { pattern, zone: name, .. } if self.found.id.as_ref().is_none_or(Option::is_some) => {
                match (zone(name), &self.found.id) {
                    (None, _) => Next::Zone(name.clone()),
                    (Some(zone_id), Some(Some(id))) => {
                        let (id, pattern) = (id.clone(), pattern.clone());
                        Next::Call(Call::MoveRoute { worker, zone_id, id, pattern })
                    }
                    (Some(zone_id), _) => Next::Call(Call::ListRoutes { zone_id, page: self.found.page.clone() }),
                }
            }
            Step::AddRoute { pattern, zone: name } | Step::MoveRoute { pattern, zone: name, .. } => match zone(name) {
                None => Next::Zone(name.clone()),
                Some(zone_id) if self.found.exists => {
                    Next::Call(Call::ListRoutes { zone_id, page: self.found.page.clone() })
                }
                Some(zone_id) => Next::Call(Call::AddRoute { worker, zone_id, pattern: pattern.clone() }),
            },
            Step::DropRoute { zone: name, .. } => match (zone(name), &self.found.id) {
                (None, _) => Next::Zone(name.clone()),
                (Some(zone_id), None) => Next::Call(Call::ListRoutes { zone_id, page: self.found.page.clone() }),
                (Some(zone_id), Some(Some(id))) => Next::Call(Call::RemoveRoute { zone_id, id: id.clone() }),
                (Some(_), Some(None)) => Next::Done,
            },
        }
    }

    /// Handles the answer to a request of the present step. Returns whether the step is done.
    pub fn on_answer(
        &mut self,
        change: &Change,
        result: Result<Reply, CallError>,
        ownership: Option<&Ownership>,
        zone: impl Fn(&str) -> Option<String>,
    ) -> Result<bool, Problem> {
        if self.is_check_due {
            let unread = |error: CallError| {
                let why = format!("the owner of {} can't be read: {error}", change.worker);
                NextStep::after(&error).because(why)
            };
            let reply = result.map_err(unread)?;
            ownership.map_or(Ok(()), |ownership| ownership.check(change, &reply))?;
            self.exists = matches!(reply, Reply::Tags { .. });
            self.tags = if let Reply::Tags { tags, .. } = reply { tags } else { Vec::new() };
            (self.is_check_due, self.attempts) = (false, Attempts::default());
            return Ok(self.is_done_already(change));
        }
        let step = self.step(change);
        if self.is_migration_due && is_upload(step) {
            return self.on_settings(change, result).map(|()| false);
        }
        if *step == Step::UploadAssets {
            return self.on_assets(change, result);
        }
        let reply = match (step, result) {
            // It may be our own doing, by an attempt whose answer was lost: then it is there by now.
            (Step::CreateQueue { .. }, Err(error @ CallError::Rejected { status: 400 | 409 | 422, .. }))
                if self.found.id.is_some() && !self.found.exists =>
            {
                self.found = StepLookups {
                    exists: true,
                    rejected: Some(explained(change, step, &error)),
                    ..StepLookups::default()
                };
                self.attempts = Attempts::default();
                return Ok(false);
            }
            (Step::SetConsumer { .. }, Err(CallError::Rejected { code: CONSUMER_EXISTS, .. }))
            | (Step::SetConsumer { .. } | Step::RemoveConsumer { .. }, Err(CallError::Rejected { status: 404, .. }))
                if self.found.id.is_none() =>
            {
                self.found = StepLookups { id: Some(None), ..StepLookups::default() };
                return Ok(false);
            }
            // That it already exists can be our own doing, by an attempt whose answer was lost.
            (Step::CreateDatabase { .. }, Err(CallError::Rejected { code: DATABASE_EXISTS, .. }))
                if !self.found.exists =>
            {
                self.found.exists = true;
                return Ok(false);
            }
            (Step::AddRoute { .. } | Step::MoveRoute { .. }, Err(CallError::Rejected { code: ROUTE_EXISTS, .. }))
                if !self.found.exists =>
            {
                self.found.exists = true;
                return Ok(false);
            }
            // The worker that has it is named.
            (
                Step::AttachDomain { .. } | Step::MoveDomain { .. } | Step::TakeDomain { .. },
                Err(error @ CallError::Rejected { code: DOMAIN_ATTACHED | DOMAIN_HAS_RECORDS, .. }),
            ) if self.found.rejected.is_none() => {
                self.found.rejected = Some(explained(change, step, &error));
                self.attempts = Attempts::default();
                return Ok(false);
            }
            (_, Err(error)) => {
                return Err(self.found.rejected.take().unwrap_or_else(|| explained(change, step, &error)));
            }
            (_, Ok(reply)) => reply,
        };
        let reply = match self.find(change, reply)? {
            Found::Reply(reply) => reply,
            Found::NotYet => return Ok(false),
        };
        match step {
            Step::CreateDatabase { name, .. } => {
                let Reply::Id(id) = reply else {
                    return Err(NextStep::Retry.because(format!("the database {name} exists, but can't be found")));
                };
                self.found.id = Some(Some(id));
                return Ok(true);
            }
            Step::CreateQueue { .. } if self.found.queue.is_none() && self.found.id.is_none() => {
                if let Some(rejected) = self.found.rejected.take().filter(|_| self.found.queue.is_none()) {
                    return Err(rejected);
                }
                self.found.id = Some(None);
                return Ok(false);
            }
            Step::CreateQueue { .. } => return Ok(true),
            Step::SetConsumer { queue, .. } if reply == Reply::Nothing => {
                return Err(NextStep::Retry.because(format!("the queue {queue} doesn't exist")));
            }
            Step::SetConsumer { queue, .. } if !self.found.exists => {
                self.found.exists = true;
                let own = self.consumer_of(&change.worker);
                return match self.queue().consumers.first().filter(|_| own.is_none()) {
                    None => Ok(false),
                    Some(ListedConsumer { worker: Some(other), .. }) => Err(NextStep::Input.because(format!(
                        "the queue {queue} is consumed by the worker {other}, and a queue has one consumer: remove it there, or name another \
                         queue"
                    ))),
                    Some(_) => Err(NextStep::Input.because(format!(
                        "messages of the queue {queue} are pulled over HTTP, and a queue has one consumer: remove that one, or name another \
                         queue"
                    ))),
                };
            }
            // Without the queue, there is no consumer.
            Step::RemoveConsumer { .. } if !self.found.exists => {
                self.found.exists = true;
                let nothing = self.found.queue.is_none() || self.consumer_of(&change.worker).is_none();
                return Ok(nothing && self.apply(step, Reply::Nothing, &zone));
            }
            Step::PutWorkflow { name, .. } if self.found.id.is_none() => match reply {
                Reply::HeldBy(Some(other)) if other != change.worker => {
                    return Err(NextStep::Input.because(format!(
                        "the workflow {name} is defined by the worker {other}: give this one another name, or delete that one"
                    )));
                }
                _ => {
                    self.found.id = Some(None);
                    return Ok(false);
                }
            },
            Step::DeleteWorkflow { .. } if self.found.id.is_none() => {
                let is_own = matches!(&reply, Reply::HeldBy(Some(worker)) if *worker == change.worker);
                self.found.id = Some(is_own.then(String::new));
                return Ok(!is_own && self.apply(step, Reply::Nothing, &zone));
            }
            Step::DeleteDatabase { .. } if self.found.id.is_none() => {
                let id = if let Reply::Id(id) = reply { Some(id) } else { None };
                let nothing = id.is_none();
                self.found.id = Some(id);
                return Ok(nothing);
            }
            Step::AttachDomain { domain } | Step::MoveDomain { domain, .. } | Step::TakeDomain { domain, .. }
                if self.found.rejected.is_some() =>
            {
                return match (reply, self.found.rejected.take()) {
                    (Reply::HeldBy(Some(holder)), _) => Err(attached_elsewhere(domain, &holder)),
                    (Reply::Id(id), _) => Ok(self.apply(step, Reply::Id(id), &zone)),
                    (_, rejected) => Err(rejected.expect("BUG: it was rejected")),
                };
            }
            Step::MoveDomain { from, .. } | Step::MoveRoute { from, .. } if self.found.id.is_none() => {
                self.found.id = Some(match reply {
                    Reply::Id(id) => {
                        let holder = self.found.held_by.take();
                        self.found.held_by = holder.or_else(|| from.first().cloned());
                        Some(id)
                    }
                    // A domain moves by its name.
                    Reply::HeldBy(Some(holder)) if from.contains(&holder) => {
                        self.found.held_by = Some(holder);
                        Some(String::new())
                    }
                    _ => None,
                });
                (self.found.page, self.found.routes) = (Page::default(), Pages::default());
                return Ok(false);
            }
            // Nothing carries its tag: an attempt whose answer was lost deleted it, or it is somebody else's.
            Step::Delete if reply == Reply::Nothing => {
                if std::mem::replace(&mut self.found.exists, true) {
                    let why = format!("not deleted: the platform finds no worker that is {}", change.worker);
                    return Err(NextStep::Refresh.because(why));
                }
                self.is_check_due = true;
                return Ok(false);
            }
            Step::TakeDomain { domain, from } => match (&self.found.id, reply) {
                (None, Reply::Id(id)) => {
                    self.found.id = Some(Some(id));
                    return Ok(false);
                }
                (None, Reply::HeldBy(Some(holder))) if holder != change.worker => {
                    let why = format!("{domain} points to {holder} now, and no longer to {from}: it is not taken");
                    return Err(NextStep::Host.because(why));
                }
                // It is free, or has already been taken.
                (None, _) => {
                    self.found.id = Some(None);
                    return Ok(false);
                }
                (Some(_), reply @ (Reply::Tags { .. } | Reply::Nothing)) => {
                    let tags = if let Reply::Tags { tags, .. } = &reply { Some(&tags[..]) } else { None };
                    if !ownership.is_some_and(|ownership| ownership.may_take(tags)) {
                        return Err(NextStep::Host.because(format!(
                            "{domain} points to {from}, which this fleet no longer manages; `{{ name: {domain}, takeOver: true \
                             }}` under `domains` takes it over"
                        )));
                    }
                    self.found.is_holder_checked = true;
                    return Ok(false);
                }
                (Some(_), reply) => return Ok(self.apply(step, reply, &zone)),
            },
            Step::DetachDomain { .. } | Step::RemoveRoute { .. } | Step::DropDomain { .. } | Step::DropRoute { .. }
                if self.found.id.is_none() && is_looked_up(step, ownership) =>
            {
                // What points to another worker by now isn't this worker's to remove.
                let id = match (step, reply) {
                    (Step::RemoveRoute { id, .. }, Reply::HeldBy(Some(holder))) if holder == change.worker => {
                        Some(id.clone())
                    }
                    (_, Reply::Id(id)) => Some(id),
                    _ => None,
                };
                let nothing = id.is_none();
                self.found.id = Some(id);
                return Ok(nothing && self.apply(step, Reply::Nothing, &zone));
            }
            Step::AddRoute { pattern, .. } | Step::MoveRoute { pattern, .. } if self.found.exists => match &reply {
                Reply::Id(_) => {}
                Reply::HeldBy(Some(holder)) => {
                    return Err(NextStep::Host.because(format!(
                        "the route {pattern} already points to the worker {holder}: remove it from that worker, and deploy again"
                    )));
                }
                Reply::HeldBy(None) => {
                    let why = format!("the route {pattern} already exists, and excludes its requests from all workers");
                    return Err(NextStep::Host.because(why));
                }
                _ => {
                    let why = format!("the route {pattern} already exists, but can't be found");
                    return Err(NextStep::Retry.because(why));
                }
            },
            _ => {}
        }
        Ok(self.apply(step, reply, &zone))
    }

    /// Returns the queue that was found.
    fn queue(&self) -> &ListedQueue {
        self.found.queue.as_ref().expect("BUG: the queue was found")
    }

    /// Returns the id of a worker as the consumer of the queue that was found.
    fn consumer_of(&self, worker: &str) -> Option<String> {
        let mut consumers = self.found.queue.iter().flat_map(|queue| &queue.consumers);
        let own = consumers.find(|consumer| consumer.worker.as_deref() == Some(worker));
        own.map(|consumer| consumer.id.clone())
    }

    /// Handles the settings of the worker that is going to be uploaded: which migrations it has yet to go through.
    fn on_settings(&mut self, change: &Change, result: Result<Reply, CallError>) -> Result<(), Problem> {
        let settings = match result {
            Ok(Reply::Settings(settings)) => settings,
            Ok(_) => Value::Null,
            Err(error) => {
                let why = format!("the live migrations of {} can't be read: {error}", change.worker);
                return Err(NextStep::after(&error).because(why));
            }
        };
        self.is_migration_due = false;
        let Some(migration) = &change.migration else { return Ok(()) };
        let live = settings["migration_tag"].as_str();
        let bound = objects::bound_classes(&settings, &change.worker);
        let steps = migration.of_live(live, &bound).map_err(|why| NextStep::Plan.because(why))?;
        self.migrations = objects::payload(live, steps);
        let last = steps.last().map(|migration| migration.tag.as_str());
        self.migration_tag = last.or(live.filter(|tag| !tag.is_empty())).map(str::to_owned);
        Ok(())
    }

    /// Handles the answer to a part of the upload of static assets. Returns whether all of them are there.
    fn on_assets(&mut self, change: &Change, result: Result<Reply, CallError>) -> Result<bool, Problem> {
        let (token, buckets) = match result {
            Ok(Reply::Assets { token, buckets }) => (token, buckets),
            Ok(_) => (None, Vec::new()),
            // A session is valid for an hour. What was uploaded in it is there, and a new one lists the rest.
            Err(CallError::Rejected { .. }) if self.assets.take().is_some() && !self.found.exists => {
                (self.found.exists, self.attempts) = (true, Attempts::default());
                return Ok(false);
            }
            Err(error) => return Err(explained(change, &Step::UploadAssets, &error)),
        };
        self.attempts = Attempts::default();
        let finished = match self.assets.take() {
            // The session itself: its token is the one of the upload, if no file is missing.
            None => match token {
                Some(token) if buckets.is_empty() => Some(token),
                Some(token) => {
                    self.assets = Some(AssetSession { token, buckets: buckets.into() });
                    return Ok(false);
                }
                None => None,
            },
            Some(mut session) => {
                session.buckets.pop_front();
                let is_last = session.buckets.is_empty();
                match (is_last, token) {
                    (false, None) => {
                        self.assets = Some(session);
                        return Ok(false);
                    }
                    // Others can have uploaded the rest meanwhile.
                    (_, token) => token,
                }
            }
        };
        match finished {
            Some(token) => {
                self.assets_token = Some(token);
                Ok(true)
            }
            None => {
                let why = format!(
                    "the static assets of {} were uploaded, and Cloudflare doesn't confirm that",
                    change.worker
                );
                Err(NextStep::Retry.because(why))
            }
        }
    }

    /// Finds what the present step looks for in a page of a list; a reply that is none is returned as it is.
    fn find(&mut self, change: &Change, reply: Reply) -> Result<Found, Problem> {
        let (found, progress) = match (self.step(change), reply) {
            (Step::CreateDatabase { name, .. } | Step::DeleteDatabase { name }, Reply::Names(listed)) => {
                let entry = listed.entries.iter().find(|(other, _)| other == name);
                let found = entry.map(|(_, id)| Reply::Id(id.clone()));
                (found, self.found.names.add(listed).map(|progress| progress.next()))
            }
            (Step::MoveRoute { pattern, from, .. }, Reply::Routes(listed)) if self.found.id.is_none() => {
                let entry = listed.entries.iter().find(|route| route.pattern == *pattern);
                let found = entry.map(|route| match &route.worker {
                    Some(worker) if from.contains(worker) => {
                        self.found.held_by = Some(worker.clone());
                        Reply::Id(route.id.clone())
                    }
                    _ => Reply::Nothing,
                });
                (found, self.found.routes.add(listed).map(|progress| progress.next()))
            }
            (
                Step::AddRoute { pattern, .. } | Step::MoveRoute { pattern, .. } | Step::DropRoute { pattern, .. },
                Reply::Routes(listed),
            ) => {
                let entry = listed.entries.iter().find(|route| route.pattern == *pattern);
                let found = entry.map(|route| match &route.worker {
                    Some(worker) if *worker == change.worker => Reply::Id(route.id.clone()),
                    holder => Reply::HeldBy(holder.clone()),
                });
                (found, self.found.routes.add(listed).map(|progress| progress.next()))
            }
            (
                Step::CreateQueue { name }
                | Step::SetConsumer { queue: name, .. }
                | Step::RemoveConsumer { queue: name },
                Reply::Queues(listed),
            ) => {
                self.found.queue = listed.entries.iter().find(|queue| queue.name == *name).cloned();
                let found = self.found.queue.as_ref().map(|queue| Reply::Id(queue.id.clone()));
                (found, self.found.queues.add(listed).map(|progress| progress.next()))
            }
            (_, reply) => return Ok(Found::Reply(reply)),
        };
        match (found, progress) {
            (Some(reply), _) => Ok(Found::Reply(reply)),
            (None, Err(unsteady)) => Err(NextStep::Retry.because(unsteady.to_string())),
            (None, Ok(None)) => Ok(Found::Reply(Reply::Nothing)),
            (None, Ok(Some(page))) => {
                (self.found.page, self.attempts) = (page, Attempts::default());
                Ok(Found::NotYet)
            }
        }
    }

    /// Applies a step that was acknowledged to what is known to be live.
    fn apply(&mut self, step: &Step, reply: Reply, zone: &impl Fn(&str) -> Option<String>) -> bool {
        let id = match &reply {
            Reply::Id(id) => id.clone(),
            _ => String::new(),
        };
        let Some(deployed) = &mut self.live else { return true };
        let live = &mut deployed.live;
        match step {
            // What is live after an upload comes with the upload.
            Step::CreateFirst { .. } | Step::Upload => {
                if let Reply::Uploaded(uploaded) = reply {
                    (live.etag, live.created_on) = (uploaded.etag, uploaded.created_on.or(live.created_on.take()));
                }
                live.migration_tag = self.migration_tag.take().or(live.migration_tag.take());
            }
            Step::Delete
            | Step::UploadAssets
            | Step::CreateDatabase { .. }
            | Step::DeleteDatabase { .. }
            | Step::CreateQueue { .. } => {}
            Step::SetConsumer { queue, consumer } => drop(live.consumers.insert(queue.clone(), consumer.clone())),
            Step::RemoveConsumer { queue } => drop(live.consumers.remove(queue)),
            Step::PutWorkflow { name, workflow } => drop(live.workflows.insert(name.clone(), workflow.clone())),
            Step::DeleteWorkflow { name } => drop(live.workflows.remove(name)),
            Step::SetWorkersDev { on, previews } => (live.workers_dev, live.preview_urls) = (*on, *previews),
            Step::SetCrons { crons } => live.crons.clone_from(crons),
            Step::AttachDomain { domain } | Step::MoveDomain { domain, .. } | Step::TakeDomain { domain, .. } => {
                drop(live.domains.insert(domain.clone(), id));
            }
            Step::DetachDomain { domain, .. } | Step::DropDomain { domain } => drop(live.domains.remove(domain)),
            Step::AddRoute { pattern, zone: name } | Step::MoveRoute { pattern, zone: name, .. } => {
                live.routes.insert(pattern.clone(), (zone(name).unwrap_or_default(), id));
            }
            Step::RemoveRoute { pattern, .. } | Step::DropRoute { pattern, .. } => drop(live.routes.remove(pattern)),
        }
        true
    }

    /// Notes that a host was moved away from the worker.
    pub fn given(&mut self, host: &Host, revision: i64) {
        let Some(live) = &mut self.live else { return };
        match host {
            Host::Domain(domain) => drop(live.live.domains.remove(domain)),
            Host::Route(pattern) => drop(live.live.routes.remove(pattern)),
        }
        live.revision = revision;
    }

    /// Proceeds to the next step.
    pub fn proceed(&mut self) {
        self.done += 1;
        self.left.remove(0);
        (self.attempts, self.is_outcome_unknown, self.found) = (Attempts::default(), false, StepLookups::default());
    }
}

/// Returns whether a domain or a route is looked up before it is removed.
fn is_looked_up(step: &Step, ownership: Option<&Ownership>) -> bool {
    ownership.is_some() || matches!(step, Step::DropDomain { .. } | Step::DropRoute { .. })
}

/// Returns whether a domain may be taken from any worker.
fn is_taken_over(change: &Change, domain: &str, ownership: Option<&Ownership>) -> bool {
    let key = (change.home.account_id.clone(), domain.to_owned());
    ownership.is_some_and(|ownership| ownership.take_over.contains(&key))
}
