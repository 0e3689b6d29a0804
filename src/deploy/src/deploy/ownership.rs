//! Checks, right before a change, that what it changes is still this fleet's: what a plan knows can be hours old when its turn comes. One
//! list of each home before a wave finds the workers that don't carry the fleet's tag; what is created, deleted or rolled back, and what
//! that list shows to be a stranger's, is read again, one by one. The platform has no conditional upload, so a gap remains between that
//! check and the upload.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::index::{ChangeIndex, LookupId};
use super::lookups::Target;
use super::problem::{NextStep, Problem};
use super::run::Run;
use super::schedule::{RequestId, RequestState};
use crate::plan::{Action, Change, Step};
use crate::state::{Table, WorkerId};
use flotilla_model::failure::Failure;
use flotilla_model::paging::{Page, Pages, Progress};
use flotilla_model::platform::{CallError, Home, ListedWorker, Reply};
use flotilla_model::tags;

/// The resources that the fleet may change at the platform.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    /// The fleet, as the tags of its workers name it.
    pub fleet: String,
    /// The workers that may belong to others: they are adopted.
    pub adopt: BTreeSet<String>,
    /// The domains and hosts in KV that may be taken from others, by account id and host name.
    pub take_over: BTreeSet<(String, String)>,
    /// The workers that hosts in KV pointed to before the run, and that may lose them although the state doesn't have them.
    pub holders: BTreeMap<(Table, String), String>,
}

/// The workers that don't carry the fleet's tag, as listed before a wave.
#[derive(Default)]
pub(super) struct Strangers {
    /// The homes that were listed.
    listed: HashSet<Home>,
    workers: HashSet<WorkerId>,
}

/// A list of a home's strangers that is being read.
pub(super) struct StrangersList {
    pub home: Home,
    pub page: Page,
    pages: Pages<ListedWorker>,
}

/// The owner of a worker, by its tags.
enum Owner<'a> {
    Fleet,
    Other(&'a str),
    Nobody,
}

impl Ownership {
    /// The filter of a list that lets all workers through but this fleet's.
    pub(super) fn strangers(&self) -> String {
        format!("flotilla-{}:no", self.fleet)
    }

    fn owner<'a>(&self, tags: &'a [String]) -> Owner<'a> {
        match tags::read(tags).fleet {
            Some(owner) if owner == self.fleet => Owner::Fleet,
            Some(other) => Owner::Other(other),
            None => Owner::Nobody,
        }
    }

    /// Checks a worker right before it is changed, from the answer to what its tags are. The reason why it isn't changed.
    pub(super) fn check(&self, change: &Change, reply: &Reply) -> Result<(), Problem> {
        let worker = &change.worker;
        let tags = match reply {
            Reply::Tags { has_objects: true, .. } if change.action == Action::Delete && !change.destroys_objects => {
                return Err(NextStep::Plan.because(format!(
                    "not deleted: {worker} has Durable Objects, whose data would be destroyed, and the plan didn't show that; a plan with \
                     `--refresh` shows it, and so does `flotilla prune`"
                )));
            }
            Reply::Tags { tags, .. } => tags,
            Reply::Nothing if change.action == Action::Update => {
                return Err(NextStep::Refresh.because(format!(
                    "{worker} no longer exists; `--refresh` corrects the state, and the worker is recreated"
                )));
            }
            Reply::Nothing => return Ok(()),
            other => unreachable!("BUG: {other:?} are no tags"),
        };
        if self.adopt.contains(worker) && change.action != Action::Delete {
            return Ok(());
        }
        match (self.owner(tags), change.action) {
            (Owner::Fleet, _) => Ok(()),
            (Owner::Other(other), Action::Delete) => Err(NextStep::Refresh.because(format!(
                "not deleted: {worker} belongs to the fleet {other} now; `--refresh` removes it from this fleet's state"
            ))),
            (Owner::Nobody, Action::Delete) => Err(NextStep::Refresh.because(format!(
                "not deleted: {worker} no longer carries a tag of this fleet, so somebody else may have created it; if it was created by this fleet, delete it by hand"
            ))),
            (Owner::Other(other), action) => Err(NextStep::Adopt.because(format!(
                "not {}: {worker} belongs to the fleet {other}; `deploy --adopt {worker}` adopts it, `--refresh` removes it \
                 from this fleet's state",
                done(action)
            ))),
            (Owner::Nobody, Action::Create) => Err(NextStep::Adopt.because(format!(
                "not created: {worker} exists, but this fleet doesn't manage it; `deploy --adopt {worker}` adopts it"
            ))),
            // It is in the state, and lost its tags: changed outside, as a refresh calls it.
            (Owner::Nobody, Action::Update) => Ok(()),
        }
    }

    /// Returns whether a domain may be taken from a worker with these tags; none: the worker doesn't exist.
    pub(super) fn may_take(&self, tags: Option<&[String]>) -> bool {
        tags.is_none_or(|tags| matches!(self.owner(tags), Owner::Fleet))
    }
}

fn done(action: Action) -> &'static str {
    match action {
        Action::Create => "created",
        Action::Update => "changed",
        Action::Delete => "deleted",
    }
}

impl Run<'_> {
    /// Lists the strangers of the homes in which these changes update workers.
    pub(super) fn list_strangers(&mut self, changes: &[ChangeIndex]) -> Result<(), Failure> {
        self.strangers = Strangers::default();
        if self.ctx.ownership.is_none() {
            return Ok(());
        }
        // Workers that are read one by one in any case need no list.
        let updated = changes.iter().map(|index| self.change(*index)).filter(|change| !change.is_checked());
        let homes: BTreeSet<&Home> = updated.map(|change| &change.home).collect();
        for home in homes {
            let list = StrangersList { home: home.clone(), page: Page::First, pages: Pages::default() };
            let id = self.add_lookup(&home.account_id, Target::Strangers(list));
            self.schedule.queue_request(RequestId::Lookup(id));
        }
        self.run_phase(super::run::Phase::Apply)
    }

    /// Handles a page of a list of strangers. Without the list, each worker of its home is read by itself.
    pub(super) fn on_strangers(&mut self, id: LookupId, result: Result<Reply, CallError>) {
        let listed = match result {
            Ok(Reply::Workers(listed)) => listed,
            Ok(Reply::Nothing) => Vec::new().into(),
            Ok(other) => unreachable!("BUG: {other:?} is no list of workers"),
            Err(error) => {
                self.schedule.fail_lookup(id, Problem::of(&error));
                return;
            }
        };
        let Target::Strangers(list) = &mut self.schedule.lookup(id).target else {
            unreachable!("BUG: only a list of strangers has such pages")
        };
        match list.pages.add(listed) {
            Ok(Progress::Next(page)) => {
                list.page = page;
                self.schedule.continue_lookup(id);
            }
            Ok(Progress::Whole(workers)) => {
                let home = list.home.clone();
                // Where the platform doesn't know the filter, the fleet's own workers are in the list, too.
                let ownership = self.ctx.ownership.as_ref();
                let is_ours = |listed: &ListedWorker| {
                    ownership.is_some_and(|ownership| matches!(ownership.owner(&listed.tags), Owner::Fleet))
                };
                let strangers = workers.into_iter().filter(|listed| !is_ours(listed));
                self.strangers.workers.extend(strangers.map(|listed| (home.clone(), listed.name)));
                self.strangers.listed.insert(home);
                self.schedule.end_lookup(id, RequestState::Succeeded);
            }
            Err(unsteady) => drop(self.schedule.fail_lookup(id, NextStep::Retry.because(unsteady.to_string()))),
        }
    }

    /// Returns whether a worker has to be looked at right before it is changed.
    pub(super) fn is_check_needed(&self, change: &Change) -> bool {
        if self.ctx.ownership.is_none() {
            return false;
        }
        let is_known = self.strangers.listed.contains(&change.home) && !self.strangers.workers.contains(&change.id());
        change.is_checked() || !is_known
    }
}

impl Change {
    /// Returns whether its worker is looked at right before it, whatever the lists say: it creates, deletes or rolls back.
    pub fn is_checked(&self) -> bool {
        self.action != Action::Update || self.rejects.is_some()
    }

    /// Returns the number of requests that look at what it changes.
    pub fn checks(&self) -> usize {
        let looks = |step: &&Step| {
            matches!(step, Step::DetachDomain { .. } | Step::TakeDomain { .. } | Step::RemoveRoute { .. })
        };
        // So do the migrations that it still has to go through. What is created before its upload is looked at before each.
        let uploads = 1 + usize::from(self.steps_to_create() > 0);
        let before_uploads = usize::from(self.is_checked()) + usize::from(self.migration.is_some());
        before_uploads * uploads + self.steps.iter().filter(looks).count()
    }
}
