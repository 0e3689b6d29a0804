//! Applies the migrations of D1 databases: in each wave before its uploads, and the clean-ups after them. A migration is sent with the
//! statement that records it, in one transaction; where it isn't certain whether it was applied, the database's table is read. Knows no SQL.

use std::collections::{BTreeMap, HashMap};

use super::index::{ChangeIndex, DatabaseIndex, WaveIndex};
use super::lookups::explained;
use super::problem::{NextStep, Problem};
use super::run::{Phase, Run};
use super::schedule::{Delivery, RequestId, RequestState};
use super::{Event, Failed};
use crate::plan::DatabaseChange;
use crate::retry::{Attempts, Verdict};
use crate::state::{DatabaseId, ResourceKind, WorkerId};
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::migrations::Fault;
use flotilla_model::paging::{Page, Pages, Progress};
use flotilla_model::platform::{Call, CallError, DATABASE_EXISTS, DATABASE_MISSING, Reply};

/// A database whose migrations are being applied.
pub(super) struct DatabaseTask<'p> {
    /// The database, with all of its pack's migrations.
    pub change: &'p DatabaseChange,
    /// Its present request.
    pub delivery: Delivery,
    request: Request,
    /// Its id, once it is known.
    id: String,
    /// The pages of databases that were read to find it.
    pages: Pages<(String, String)>,
    /// The indices of the migrations that are pending, in order.
    pending: Vec<usize>,
    /// Whether all of them are applied now, and not only those that come before the upload.
    is_after: bool,
    /// Whether the table exists that records them.
    has_table: bool,
    /// The bookmark from before the first migration of this run; none for a new database, which has nothing to go back to.
    bookmark: Option<String>,
    /// Whether the run has to read a bookmark before it applies anything.
    is_bookmark_due: bool,
    /// The attempts at the present migration.
    attempts: Attempts,
    /// Whether an attempt at it was not answered.
    is_lost: bool,
    /// The answer that rejected it, while the table is read.
    rejected: Option<CallError>,
}

/// The present request of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    /// Creates the database.
    Create,
    /// Finds the one that has its name, on this page of the account's list.
    Find(Page),
    /// Reads which migrations were applied.
    Read,
    /// Reads the bookmark.
    Bookmark,
    /// Applies the first of the pending migrations.
    Apply,
}

impl<'p> DatabaseTask<'p> {
    /// Returns its present request.
    pub fn call(&self) -> Call {
        let (id, all) = (self.id.clone(), &self.change.all);
        match &self.request {
            Request::Create => Call::CreateDatabase {
                name: self.change.reference.name.clone(),
                jurisdiction: self.change.reference.jurisdiction,
                location_hint: self.change.reference.location_hint,
            },
            Request::Find(page) => {
                Call::ListDatabases { name: Some(self.change.reference.name.clone()), page: page.clone() }
            }
            Request::Read => Call::QueryDatabase { id, sql: all.read_table() },
            Request::Bookmark => Call::ReadBookmark { id },
            Request::Apply => Call::QueryDatabase { id, sql: all.apply(self.pending[0], !self.has_table) },
        }
    }

    /// Returns how the state identifies it.
    fn key(&self) -> DatabaseId {
        self.change.id(&self.id)
    }

    /// Returns the number of pending migrations that are applied now.
    fn due(&self) -> usize {
        if self.is_after { self.pending.len() } else { self.change.all.before_upload(&self.pending) }
    }

    /// Returns the name and the digest of the migration that is next.
    fn next_migration(&self) -> (&'p str, Digest) {
        let migration = &self.change.all.files[self.pending[0]];
        (&migration.name, migration.digest)
    }
}

impl<'p> Run<'p> {
    /// Applies the migrations of a wave's databases that come before its uploads.
    pub(super) fn migrate_before(&mut self, wave: WaveIndex) -> Result<(), Failure> {
        for id in self.databases_of(wave) {
            let change = &self.plan.databases[id.place()];
            let account_id = &change.home.account_id;
            let known = self.ids.get(account_id, ResourceKind::Database, &change.reference.name);
            let database = change.reference.id.as_ref().or(known).cloned();
            // What was recorded of it belongs to the database with this id.
            let request = match &database {
                None => Request::Create,
                Some(_) if change.is_unknown => Request::Read,
                Some(_) => Request::Bookmark,
            };
            let task = DatabaseTask {
                change,
                delivery: Delivery::new(self.ctx.lane_of[account_id]),
                request,
                id: database.unwrap_or_default(),
                pages: Pages::default(),
                pending: change.pending.clone(),
                is_after: false,
                has_table: !change.is_unknown && change.pending.len() < change.all.files.len(),
                bookmark: None,
                is_bookmark_due: true,
                attempts: Attempts::default(),
                is_lost: false,
                rejected: None,
            };
            self.schedule.add_database(id, task);
        }
        self.run_phase(Phase::Apply)
    }

    /// Applies the rest of the migrations, where the workers were uploaded that are bound to the database.
    pub(super) fn migrate_after(&mut self, wave: WaveIndex) -> Result<(), Failure> {
        let ids = self.databases_of(wave);
        if ids.is_empty() {
            return Ok(());
        }
        let plan = self.plan;
        let changes = plan.changes.iter().enumerate();
        let of_worker: HashMap<WorkerId, ChangeIndex> =
            changes.map(|(place, change)| (change.id(), ChangeIndex::new(place))).collect();
        let tasks: Vec<_> = ids.into_iter().filter_map(|id| Some((id, self.schedule.take_database(id)?))).collect();
        for (id, mut task) in tasks {
            let failed = matches!(task.delivery.state, RequestState::Failed(_) | RequestState::Cancelled);
            if failed || task.pending.is_empty() || task.change.leaves_after {
                continue;
            }
            let is_left = |user: &WorkerId| of_worker.get(user).is_some_and(|index| self.schedule.has_failed(*index));
            if task.change.users.iter().any(is_left) || self.is_halted_or_stopped() {
                self.skip_migrations(task.change, task.pending.len());
                continue;
            }
            task.delivery = Delivery::new(task.delivery.lane);
            task.is_after = true;
            task.request = if task.is_bookmark_due { Request::Bookmark } else { Request::Apply };
            self.schedule.add_database(id, task);
        }
        self.run_phase(Phase::Apply)
    }

    /// The databases of a wave.
    fn databases_of(&self, wave: WaveIndex) -> Vec<DatabaseIndex> {
        let databases = self.plan.databases.iter().enumerate();
        let of_wave = databases.filter(|(_, change)| change.wave == wave.place());
        of_wave.map(|(place, _)| DatabaseIndex::new(place)).collect()
    }

    /// Notes what the first request of a database may do.
    pub(super) fn begin_database(&mut self, id: DatabaseIndex) -> Result<(), Failure> {
        self.open_notes()?;
        self.note_migration(id)
    }

    /// Notes that a migration is about to be applied: whether it was is unknown until it is recorded.
    fn note_migration(&mut self, id: DatabaseIndex) -> Result<(), Failure> {
        let task = self.schedule.database(id);
        if task.request != Request::Apply {
            return Ok(());
        }
        let (key, (name, _)) = (task.key(), task.next_migration());
        let bookmark = task.bookmark.clone();
        self.ctx.state.begin_migration(&key, name, bookmark.as_deref())
    }

    /// Sends the next request of a database, or ends its migrations if none is due any more.
    fn continue_database(&mut self, id: DatabaseIndex) -> Result<(), Failure> {
        let task = self.schedule.database(id);
        if task.due() == 0 {
            if task.pending.is_empty() {
                self.drop_steps(id);
            }
            self.schedule.end(RequestId::Database(id), RequestState::Succeeded);
            return Ok(());
        }
        task.request = if task.is_bookmark_due { Request::Bookmark } else { Request::Apply };
        self.note_migration(id)?;
        self.schedule.continue_with(RequestId::Database(id));
        Ok(())
    }

    /// Handles the answer to a request of a database.
    pub(super) fn on_database_answer(
        &mut self,
        id: DatabaseIndex,
        result: Result<Reply, CallError>,
    ) -> Result<(), Failure> {
        let account_id = self.plan.databases[id.place()].home.account_id.clone();
        if self.is_repeatedly_unauthorized(&account_id, &result) {
            return self.cancel_database(id);
        }
        if self.schedule.database(id).request == Request::Apply {
            return self.on_applied(id, result);
        }
        let Some(result) = self.handle_transient_error(RequestId::Database(id), result) else { return Ok(()) };
        let request = self.schedule.database(id).request.clone();
        match (request, result) {
            (Request::Create, Ok(Reply::Id(database))) => {
                let task = self.schedule.database(id);
                // Nothing was in it before.
                (task.id, task.is_bookmark_due) = (database.clone(), false);
                let name = task.change.reference.name.clone();
                self.cache_id(&account_id, ResourceKind::Database, &name, database)?;
                self.continue_database(id)
            }
            (Request::Create, Err(CallError::Rejected { code: DATABASE_EXISTS, .. })) => {
                self.schedule.database(id).request = Request::Find(Page::First);
                self.schedule.continue_with(RequestId::Database(id));
                Ok(())
            }
            (Request::Find(_), Ok(Reply::Names(listed))) => {
                let task = self.schedule.database(id);
                let name = task.change.reference.name.clone();
                let found = listed.entries.iter().find(|(other, _)| *other == name).map(|(_, found)| found.clone());
                match (found, task.pages.add(listed)) {
                    (Some(found), _) => {
                        (task.id, task.request) = (found.clone(), Request::Read);
                        self.cache_id(&account_id, ResourceKind::Database, &name, found)?;
                    }
                    (None, Ok(Progress::Next(page))) => task.request = Request::Find(page),
                    (None, Ok(Progress::Whole(_))) => {
                        let why = format!("the database {name} exists, but can't be found");
                        return self.fail_database(id, NextStep::Retry.because(why));
                    }
                    (None, Err(unsteady)) => {
                        return self.fail_database(id, NextStep::Retry.because(unsteady.to_string()));
                    }
                }
                self.schedule.continue_with(RequestId::Database(id));
                Ok(())
            }
            (Request::Read, result) => self.on_table(id, result),
            (Request::Bookmark, Ok(Reply::Value(bookmark))) => {
                let task = self.schedule.database(id);
                (task.bookmark, task.is_bookmark_due) = (Some(bookmark), false);
                self.continue_database(id)
            }
            (request, Ok(other)) => unreachable!("BUG: {other:?} answers {request:?}"),
            (_, Err(error)) => {
                let why = self.database_problem(id, &error)?;
                self.fail_database(id, why)
            }
        }
    }

    /// Handles the answer to a migration. One that isn't a success says only that the table has to be read.
    fn on_applied(&mut self, id: DatabaseIndex, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let name = self.plan.databases[id.place()].database.clone();
        let task = self.schedule.database(id);
        match task.attempts.decide(&name, result) {
            Verdict::WhenAllowed => {
                self.schedule.retry_when_allowed(RequestId::Database(id));
                Ok(())
            }
            Verdict::Retry { wait, unknown } => {
                if unknown {
                    (task.is_lost, task.request) = (true, Request::Read);
                }
                self.outcome.retries += 1;
                self.schedule.retry_at(RequestId::Database(id), self.ctx.clock.now() + wait);
                Ok(())
            }
            Verdict::Final(Ok(_)) => {
                self.record_next_migration(id)?;
                self.continue_database(id)
            }
            Verdict::Final(Err(error @ CallError::Rejected { .. })) => {
                // Another run, or an attempt without an answer, may have applied it: then it can't be applied twice.
                (task.rejected, task.request) = (Some(error), Request::Read);
                self.schedule.continue_with(RequestId::Database(id));
                Ok(())
            }
            Verdict::Final(Err(error)) => {
                let why = self.database_problem(id, &error)?;
                self.fail_database(id, why)
            }
        }
    }

    /// Records that the next migration of a database was applied.
    fn record_next_migration(&mut self, id: DatabaseIndex) -> Result<(), Failure> {
        let (run, at) = (self.ctx.run, self.ctx.clock.unix());
        let task = self.schedule.database(id);
        let (change, key, (name, digest)) = (task.change, task.key(), task.next_migration());
        task.pending.remove(0);
        (task.has_table, task.attempts, task.is_lost) = (true, Attempts::default(), false);
        let by = (&change.users[0], change.customer.as_str(), change.environment);
        self.ctx.state.record_migration(&key, (name, digest), (run, at), by, &change.database)?;
        self.outcome.migrations += 1;
        let lane = self.lane_of_database(id);
        lane.done += 1;
        lane.drop_steps(1);
        self.emit(&Event::Migrated(change, name));
        Ok(())
    }

    /// Handles the contents of a database's table.
    fn on_table(&mut self, id: DatabaseIndex, result: Result<Reply, CallError>) -> Result<(), Failure> {
        let task = self.schedule.database(id);
        let (change, key) = (task.change, task.key());
        let rows = match result {
            Ok(Reply::Rows(rows)) => {
                task.has_table = true;
                rows
            }
            Err(CallError::Rejected { message, .. }) if change.all.is_missing_table(&message) => {
                task.has_table = false;
                Vec::new()
            }
            Ok(other) => unreachable!("BUG: {other:?} are no rows"),
            Err(error) => {
                let error = task.rejected.take().unwrap_or(error);
                let why = self.database_problem(id, &error)?;
                return self.fail_database(id, why);
            }
        };
        let names = rows.iter().filter_map(|row| row["name"].as_str());
        let digest = |name: &str| change.all.files.iter().find(|file| file.name == name).map(|file| file.digest);
        let applied: Vec<(String, Option<Digest>)> = names.map(|name| (name.to_owned(), digest(name))).collect();
        let (run, at) = (self.ctx.run, self.ctx.clock.unix());
        self.ctx.state.record_table(&key, &applied, (run, at))?;
        let recorded = self.ctx.state.database(&key)?.unwrap_or_default();
        if let Some(fault) = change.all.faults(&recorded.applied).first() {
            return self.fail_database(id, NextStep::Input.because(contradiction(fault)));
        }
        let there: BTreeMap<String, Option<Digest>> = applied.into_iter().collect();
        let task = self.schedule.database(id);
        let is_there = task.pending.first().is_some_and(|index| there.contains_key(&change.all.files[*index].name));
        if is_there && task.is_lost {
            self.record_next_migration(id)?;
        }
        let task = self.schedule.database(id);
        let rejected = task.rejected.take();
        if let Some(error) = rejected.filter(|_| !is_there) {
            let why = self.database_problem(id, &error)?;
            return self.fail_database(id, why);
        }
        let before = task.pending.len();
        task.pending = change.all.pending(&there);
        if is_there {
            (task.attempts, task.is_lost) = (Attempts::default(), false);
        }
        let found = before.saturating_sub(task.pending.len());
        self.lane_of_database(id).drop_steps(found);
        self.continue_database(id)
    }

    fn lane_of_database(&mut self, id: DatabaseIndex) -> &mut super::schedule::LaneQueue {
        let lane = self.schedule.database(id).delivery.lane;
        self.schedule.lane(lane)
    }

    /// Forgets the steps that are left of a database.
    fn drop_steps(&mut self, id: DatabaseIndex) {
        let left = self.schedule.database(id).pending.len();
        self.lane_of_database(id).drop_steps(left);
    }

    /// Returns the problem of a database for an error of the platform's. An id that isn't valid any more is forgotten.
    fn database_problem(&mut self, id: DatabaseIndex, error: &CallError) -> Result<Problem, Failure> {
        let task = self.schedule.database(id);
        let (call, change, key) = (task.call(), task.change, task.key());
        if let CallError::Rejected { code: DATABASE_MISSING, .. } = error
            && !key.id.is_empty()
        {
            let account_id = &change.home.account_id;
            self.ctx.state.forget_id(account_id, ResourceKind::Database, &change.reference.name)?;
            self.ctx.state.forget_database(account_id, &key.id)?;
            self.ids.remove(account_id, ResourceKind::Database, &change.reference.name);
            let why = format!("{error}; the database no longer exists: the next deploy looks it up again");
            return Ok(NextStep::Retry.because(why));
        }
        Ok(explained(&call, error))
    }

    /// Ends the migrations of a database with an error: its workers stay as they are.
    fn fail_database(&mut self, id: DatabaseIndex, why: Problem) -> Result<(), Failure> {
        self.drop_steps(id);
        let task = self.schedule.database(id);
        let change = task.change;
        let at = task.pending.first().map(|index| change.all.files[*index].name.as_str());
        let mut text = match at {
            Some(name) => format!("migration {name} of the D1 database {}: {why}", change.database),
            None => format!("the migrations of the D1 database {}: {why}", change.database),
        };
        if let Some(bookmark) = &task.bookmark {
            text += &format!(
                "; to restore the database as it was before this run: wrangler d1 time-travel restore {} --bookmark={bookmark}",
                change.database
            );
        }
        self.schedule.end(RequestId::Database(id), RequestState::Failed(why.clone()));
        self.unmigrated.extend(change.users.iter().cloned());
        self.emit(&Event::MigrationFailed(change, &text));
        self.outcome.failed += 1;
        let (worker, customer) = (change.users[0].1.clone(), change.customer.clone());
        self.outcome.failures.push(Failed { worker, customer, error: text, next_step: why.next });
        self.check_failure_budget();
        Ok(())
    }

    /// Leaves a database as it is, because the deploy was stopped or its token is unauthorized.
    pub(super) fn cancel_database(&mut self, id: DatabaseIndex) -> Result<(), Failure> {
        self.drop_steps(id);
        let task = self.schedule.database(id);
        let (change, left) = (task.change, task.pending.len());
        if task.request == Request::Apply && !task.is_lost {
            let key = task.key();
            self.ctx.state.undo_migration(&key)?;
        }
        self.schedule.end(RequestId::Database(id), RequestState::Cancelled);
        self.skip_migrations(change, left);
        Ok(())
    }

    fn skip_migrations(&mut self, change: &DatabaseChange, left: usize) {
        self.unmigrated.extend(change.users.iter().cloned());
        self.outcome.migrations_skipped += left;
    }
}

/// Returns a contradiction between what was applied and the pack, in words.
fn contradiction(fault: &Fault) -> String {
    match fault {
        Fault::Edited(name) => {
            format!("{name} was edited after it was applied: restore the file, and write a new migration")
        }
        Fault::Removed(name) => format!("{name} was applied, and the pack no longer has it: restore the file"),
    }
}
