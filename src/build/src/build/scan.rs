//! The first two passes over a fleet: each customer scanned, and the checks across all of them. Knows what earlier builds recorded;
//! renders and writes nothing.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rayon::prelude::*;

use super::Project;
use super::accounts;
use super::environments::similar_environments;
use super::future_dates::{FutureDates, today};
use super::scanner::{Findings, Scanned, Scanner, folder, has_errors, id, name_digest};
use crate::check::{self, Conflict};
use crate::index::{RecordIndex, WorkerIndex};
use crate::manifest::{Manifest, Record, RenderRecord, Stamp, Unit, Writer};
use crate::policy::{self, Judged, Suppressed};
use crate::resolve::{Claimant, ClaimedResource, UniqueClaim};
use crate::usage::{self, LimitUsage, Usage};
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, sorted};
use flotilla_model::digest::{Digest, ShortHash};
use flotilla_model::names::own_secret;
use flotilla_model::progress::Progress;
use flotilla_model::spec::Environment;
use flotilla_spec::project::{self, CUSTOMERS, FLEET_FILE};

/// The customers of a project as they are now: the records of earlier builds, brought up to date.
pub struct Scan {
    /// The number of customers' files.
    pub customers: usize,
    /// The record of each customer, in the order of the project's files; that of the shared workers is the last.
    pub records: Vec<Record>,
    /// Whether each record differs from the one in the manifest.
    pub(super) dirty: Vec<bool>,
    /// The findings about each customer.
    findings: Vec<Option<Box<Findings>>>,
    /// The folders under out/ of workers that no longer exist.
    pub(super) orphaned: Vec<String>,
    /// Whether any record differs from what is in the manifest, or was removed.
    pub(super) is_dirty: bool,
    /// The ids of customers with errors, whose workers are skipped. Among them the ids that are written in files of other
    /// names, as these may be customers that were renamed.
    pub held: BTreeSet<String>,
    /// Whether a file could not be read at all. It isn't known whose it is, so no customer counts as removed.
    pub unread: bool,
    /// The customers that are held back by a broken pack or layer, by the name of that part.
    blocked: BTreeMap<String, Blocked>,
    /// The number of customers with errors.
    pub invalid: usize,
    /// The author's errors and warnings, sorted.
    pub diagnostics: Vec<Diagnostic>,
    /// The diagnostics that fleet.yaml turns off, sorted.
    pub suppressed: Vec<Suppressed>,
    /// The manifest of earlier builds.
    pub(super) manifest: Manifest,
    /// Writes the manifest.
    pub(super) writer: Writer,
    /// Whether records may be written to disk.
    pub(super) is_persistent: bool,
}

/// The customers that a broken pack or layer holds back.
#[derive(Default)]
struct Blocked {
    customers: BTreeSet<String>,
    /// The errors of the part.
    diagnostics: Vec<Diagnostic>,
}

/// Scans all customers, whose own accounts become those of the fleet. `persist`: the result may be recorded on disk.
pub fn scan(project: &mut Project, persist: bool, progress: &dyn Progress) -> Result<Scan, Vec<Diagnostic>> {
    let mut manifest = Manifest::read(project.output_root());
    let writer = Writer::new(project.output_root(), &mut manifest, persist);
    let mut remembered = std::mem::take(&mut manifest.records);
    let known: Vec<Option<Record>> = project.files.iter().map(|file| remembered.remove(file)).collect();
    progress.begin("reading customers", Some(project.files.len() as u64));
    let scanner = Scanner::new(project, &writer);
    let scan_one = |(file, known): (&String, Option<Record>)| {
        let scanned = scanner.scan_customer(file, known);
        progress.step(1);
        scanned
    };
    let mut scanned: Vec<Scanned> = project.files.par_iter().zip(known).map(scan_one).collect();
    progress.end();
    if let Some(shared) = scanner.scan_shared(remembered.get(FLEET_FILE).cloned()) {
        remembered.remove(FLEET_FILE);
        scanned.push(shared);
    }
    writer.flush();
    let mut scan = Scan {
        customers: project.files.len(),
        records: Vec::with_capacity(scanned.len()),
        dirty: Vec::with_capacity(scanned.len()),
        findings: Vec::with_capacity(scanned.len()),
        orphaned: Vec::new(),
        is_dirty: !remembered.is_empty(),
        held: BTreeSet::new(),
        unread: false,
        blocked: BTreeMap::new(),
        invalid: 0,
        diagnostics: Vec::new(),
        suppressed: Vec::new(),
        manifest,
        writer,
        is_persistent: persist,
    };
    scan.merge(scanned, remembered.values());
    scan.set_accounts(project);
    scan.finalize(project)?;
    Ok(scan)
}

/// Checks all that can be checked of a project whose fleet.yaml has errors; returns them with all others. Nothing is written.
pub(super) fn check_all(mut project: Project, errors: Vec<Diagnostic>, progress: &dyn Progress) -> Vec<Diagnostic> {
    project.broken.extend(errors);
    match scan(&mut project, false, progress) {
        Ok(scan) => scan.diagnostics,
        Err(diagnostics) => diagnostics,
    }
}

impl Scan {
    /// Scans some files of customers again, and lists the files that exist: for `--watch`.
    pub fn rescan(&mut self, project: &mut Project, touched: &BTreeSet<String>) -> Result<(), Vec<Diagnostic>> {
        let project::SpecFiles { files, unread } = project::spec_files(&project.tree)?;
        // What is resolved again may define others.
        project.fleet.accounts.set_own(BTreeMap::new());
        project.unread = unread;
        let mut gone: HashMap<String, Scanned> = HashMap::new();
        let all = std::mem::take(&mut self.records).into_iter().zip(std::mem::take(&mut self.dirty));
        for ((record, is_dirty), findings) in all.zip(std::mem::take(&mut self.findings)) {
            gone.insert(record.file().to_owned(), Scanned { record, is_dirty, orphaned: Vec::new(), findings });
        }
        let shared_before = gone.remove(FLEET_FILE).map(|known| known.record);
        let known: Vec<_> = files.iter().map(|file| (file, gone.remove(file))).collect();
        let gone: Vec<Record> = gone.into_values().map(|gone| gone.record).collect();
        project.files.clone_from(&files);
        let scanner = Scanner::new(project, &self.writer);
        let mut scanned: Vec<Scanned> = known
            .into_par_iter()
            .map(|(file, known)| match known {
                Some(known) if !touched.contains(file) => known,
                known => scanner.scan_customer(file, known.map(|known| known.record)),
            })
            .collect();
        self.writer.flush();
        self.customers = files.len();
        scanned.extend(scanner.scan_shared(shared_before));
        self.merge(scanned, &gone);
        self.is_dirty = true;
        self.set_accounts(project);
        self.finalize(project)
    }

    /// Adds customers' own accounts to those of the fleet: of a preview, also those of the customers that are no part of it.
    fn set_accounts(&self, project: &mut Project) {
        let mut own = match project.other_files.is_empty() {
            true => BTreeMap::new(),
            false => accounts::own_accounts(project.root()),
        };
        own.extend(accounts::of_records(&self.records));
        project.fleet.accounts.set_own(own);
    }

    /// Merges the results of a scan, and drops customers that no longer exist.
    fn merge<'g>(&mut self, scanned: Vec<Scanned>, gone: impl IntoIterator<Item = &'g Record>) {
        for Scanned { record, is_dirty, orphaned, findings } in scanned {
            self.is_dirty |= is_dirty;
            self.records.push(record);
            self.dirty.push(is_dirty);
            self.findings.push(findings);
            self.orphaned.extend(orphaned);
        }
        let gone: Vec<&Record> = gone.into_iter().collect();
        self.orphaned.extend(gone.iter().flat_map(|gone| gone.units.iter().map(|unit| folder(gone, unit))));
        self.mark_orphaned();
        for gone in gone {
            self.is_dirty = true;
            self.writer.forget(gone.file());
        }
    }

    /// Notes that orphaned files may lie under out/, before their owner is forgotten: this build may be for a part of the
    /// fleet, or end early, and then another one has to look for them.
    fn mark_orphaned(&self) {
        let environments: BTreeSet<&str> =
            self.orphaned.iter().filter_map(|folder| Some(folder.split_once('/')?.0)).collect();
        for environment in environments {
            self.writer.folder(environment, Stamp::NONE);
        }
    }

    /// Runs the checks across the fleet. An error of the fleet as a whole is returned with all the others.
    fn finalize(&mut self, project: &Project) -> Result<(), Vec<Diagnostic>> {
        let mut judged = Judged { diagnostics: project.broken.clone(), ..Judged::default() };
        let mut held = BTreeSet::new();
        let mut renamed = Vec::new();
        let blocked = |diagnostics: &[Diagnostic]| Blocked { diagnostics: diagnostics.to_vec(), ..Blocked::default() };
        self.blocked = project.fleet.broken_parts().map(|(name, errors)| (name, blocked(errors))).collect();
        judged.diagnostics.extend(project.fleet.broken_parts().flat_map(|(_, errors)| errors).cloned());
        self.unread = false;
        for (record, findings) in self.records.iter().zip(&self.findings) {
            let Some(findings) = findings else { continue };
            if has_errors(&findings.judged) {
                held.insert(id(record).to_owned());
            }
            for part in &findings.broken_parts {
                self.blocked.entry(part.clone()).or_default().customers.insert(id(record).to_owned());
            }
            judged.append(&mut findings.judged.clone());
            self.unread |= findings.is_unreadable;
            renamed.extend(findings.other_id.clone().map(|id| (id, record.file().to_owned())));
        }
        // The customer of a file that isn't read counts as one with errors, not as removed.
        self.unread |= !project.unread.is_empty();
        let mut unread = project.unread.clone();
        unread.extend(project::unread_layers(&project.tree, &project.fleet));
        let has_env_files = project.fleet.layers.iter().any(|layer| layer.rule.env_files.is_some());
        // Where there are no customers at all, that is the error.
        if has_env_files && project.fleet.preview.is_none() && !project.files.is_empty() {
            let of_id = self.records.iter().zip(&self.findings).map(|(record, findings)| {
                let is_known = findings.as_ref().is_none_or(|found| !found.is_unreadable && !found.is_open);
                (id(record), is_known.then_some(record))
            });
            let of_id: HashMap<&str, Option<&Record>> = of_id.collect();
            let uses = |id: &str, layer: &str| match of_id.get(id) {
                Some(record) => record.map(|record| record.layers.iter().any(|name| name == layer)),
                None => Some(false),
            };
            let reads = |id: &str, file: &str| {
                let record = of_id.get(id).copied().flatten();
                record.is_some_and(|record| record.inputs.iter().any(|input| input.file == file))
            };
            unread.extend(project::unread_env_files(&project.tree, &project.fleet, uses, reads));
        }
        judged.diagnostics.extend(unread);
        // An error of what all customers share can't skip a single one.
        let mut is_stopped = held.contains(SHARED) || !project.broken.is_empty();
        held.extend(self.blocked.values().flat_map(|blocked| blocked.customers.iter().cloned()));
        is_stopped |= self.is_all_blocked(&held);
        let ids = unique_ids(project, &mut held, &mut judged);
        self.judge_conflicts(project, &renamed, &mut held, &mut judged);
        accounts::judge(project, &self.records, &mut held, &mut judged);
        judged.append(&mut project.policy.judge(None, self.unreachable(project)));
        for diagnostic in similar_environments(project, &self.records) {
            let customer = project::id_of(&diagnostic.place.file).to_owned();
            let mut found = project.policy.judge(Some(&customer), vec![diagnostic]);
            held.extend(has_errors(&found).then_some(customer));
            judged.append(&mut found);
        }
        self.invalid = held.len();
        held.extend(project.unread.iter().map(|unread| project::id_of_any(&unread.place.file).to_owned()));
        let renamed = renamed.into_iter().map(|(id, _)| id);
        held.extend(renamed.filter(|id| !ids.contains(id.as_str())));
        is_stopped |= self.judge_limits(project, &held, &mut judged);
        let Judged { mut diagnostics, suppressed, .. } = judged;
        self.held = held;
        if is_stopped {
            let (mut future, today) = (FutureDates::default(), today());
            for worker in self.workers(project) {
                future.add(project, &worker, &today);
            }
            diagnostics.extend(future.into_diagnostics());
            return Err(sorted(diagnostics));
        }
        self.diagnostics = sorted(diagnostics);
        self.suppressed = policy::sorted_suppressed(suppressed);
        Ok(())
    }

    /// Returns the warnings of shared workers that nothing reaches. It isn't known which those are where specs can't be read.
    fn unreachable(&self, project: &Project) -> Vec<Diagnostic> {
        let unreachable = &project.shared.resolved.unreachable;
        if unreachable.is_empty() || self.unread {
            return Vec::new();
        }
        let refers: HashSet<u64> = self.records.iter().flat_map(|record| &record.refers).copied().collect();
        let alone = unreachable.iter().filter(|(name, _)| !refers.contains(&name_digest(name)));
        alone.map(|(_, warning)| warning.clone()).collect()
    }

    /// Returns whether broken packs and layers leave nothing that could be built.
    fn is_all_blocked(&self, held: &BTreeSet<String>) -> bool {
        self.blocked.values().any(|blocked| !blocked.customers.is_empty())
            && self.records.iter().all(|record| held.contains(id(record)))
    }

    /// Holds back the customers of packs that turned out to be broken in these variants. If no customer is left, all errors are returned.
    pub(super) fn block(
        &mut self,
        errors: BTreeMap<String, (BTreeSet<ShortHash>, Vec<Diagnostic>)>,
    ) -> Result<(), Vec<Diagnostic>> {
        for (pack, (variants, errors)) in errors {
            let uses = |record: &&Record| {
                record.units.iter().any(|unit| unit.pack == pack && variants.contains(&unit.variant))
            };
            let customers = self.records.iter().filter(uses).map(|record| id(record).to_owned()).collect();
            self.diagnostics.extend(errors.iter().cloned());
            let blocked = Blocked { customers, diagnostics: errors };
            self.invalid += blocked.customers.difference(&self.held).count();
            self.held.extend(blocked.customers.iter().cloned());
            self.blocked.insert(pack, blocked);
        }
        self.diagnostics = sorted(std::mem::take(&mut self.diagnostics));
        if self.is_all_blocked(&self.held) { Err(self.diagnostics.clone()) } else { Ok(()) }
    }

    /// Adds diagnostics that were found after the scan, as fleet.yaml judges them.
    pub fn add_findings(&mut self, project: &Project, found: Vec<Diagnostic>) {
        for diagnostic in found {
            let file = diagnostic.place.file.clone();
            let customer = file.starts_with(CUSTOMERS).then(|| project::id_of(&file));
            let Judged { diagnostics, suppressed, .. } = project.policy.judge(customer, vec![diagnostic]);
            self.diagnostics.extend(diagnostics);
            self.suppressed.extend(suppressed);
        }
        self.diagnostics = sorted(std::mem::take(&mut self.diagnostics));
        self.suppressed = policy::sorted_suppressed(std::mem::take(&mut self.suppressed));
    }

    /// Returns the errors of the packs and layers that hold back a customer.
    pub fn part_errors(&self, id: &str) -> impl Iterator<Item = &Diagnostic> {
        self.blocked
            .values()
            .filter(move |blocked| blocked.customers.contains(id))
            .flat_map(|blocked| &blocked.diagnostics)
    }

    /// Leaves out the errors of packs and layers that none of these customers needs.
    pub fn leave_out_other_parts(&mut self, includes: impl Fn(&str) -> bool) {
        for blocked in self.blocked.values().filter(|blocked| !blocked.customers.iter().any(|id| includes(id))) {
            self.diagnostics.retain(|diagnostic| !blocked.diagnostics.contains(diagnostic));
        }
    }

    /// Judges resources that are claimed twice; the customers that claim them are skipped.
    fn judge_conflicts(
        &self,
        project: &Project,
        renamed: &[(String, String)],
        held: &mut BTreeSet<String>,
        judged: &mut Judged,
    ) {
        for conflict in conflicts(project, &self.records, &self.names(project, renamed)) {
            held.extend(conflict.held);
            let Some(diagnostic) = conflict.diagnostic else { continue };
            let file = diagnostic.place.file.clone();
            let customer = file.starts_with(CUSTOMERS).then(|| project::id_of(&file));
            let mut found = project.policy.judge(customer, vec![diagnostic]);
            if has_errors(&found) {
                held.extend(customer.map(str::to_owned));
            }
            judged.append(&mut found);
        }
    }

    /// Returns the claims of customers to their own secrets, where the specs that would claim them have errors, aren't read, or are
    /// no part of the preview: a secret is its customer's all the same.
    fn names(&self, project: &Project, renamed: &[(String, String)]) -> Vec<UniqueClaim> {
        let broken = self.records.iter().zip(&self.findings);
        let broken = broken.filter(|(record, findings)| {
            let has_errors = findings.as_ref().is_some_and(|found| has_errors(&found.judged));
            id(record) != SHARED && (has_errors || record.claims.is_empty())
        });
        let broken = broken.map(|(record, _)| (id(record), record.file()));
        let unread =
            project.unread.iter().map(|unread| (project::id_of_any(&unread.place.file), unread.place.file.as_str()));
        let others = project.other_files.iter().map(|file| (project::id_of(file), file.as_str()));
        let renamed = renamed.iter().map(|(id, file)| (id.as_str(), file.as_str()));
        let claim = |(id, file): (&str, &str)| UniqueClaim {
            resource: ClaimedResource::Secrets(own_secret(id, "")),
            place: Place::file(file),
            claimant: Claimant { customer: id.to_owned(), environment: Environment::Production, role: None },
        };
        broken.chain(unread).chain(others).chain(renamed).map(claim).collect()
    }

    /// Judges what concerns the fleet as a whole: the limits of accounts and zones, secrets in git, and unused rules. Returns
    /// whether an error is among it.
    fn judge_limits(&self, project: &Project, held: &BTreeSet<String>, judged: &mut Judged) -> bool {
        let usage = self
            .records
            .par_iter()
            .filter(|record| held.is_empty() || !held.contains(id(record)))
            .fold(Usage::default, |mut usage, record| {
                record.units.iter().for_each(|unit| usage.add(&project.fleet, &unit.usage));
                usage
            })
            .reduce(Usage::default, Usage::and);
        let by_id: OnceCell<HashMap<&str, &Record>> = OnceCell::new();
        let by_account = |account: &str| {
            let records = by_id.get_or_init(|| self.records.iter().map(|record| (id(record), record)).collect());
            let own = account.split('/').next().and_then(|customer| records.get(customer).copied());
            own.filter(|_| project.fleet.accounts.own().contains_key(account))
        };
        let place = |account: &str| match by_account(account) {
            Some(record) => accounts::place_of(project, record, account),
            None => usage::account_place(&project.fleet, account),
        };
        let diagnostic = |full: &LimitUsage| {
            // A customer's own account has few others' workers.
            let own = by_account(&full.account).map(|record| vec![record]);
            let greatest = greatest(project, &own.unwrap_or_else(|| self.records.iter().collect()), held, full);
            full.diagnostic(&project.fleet, place(&full.account), greatest)
        };
        // Limits of what was left out as faulty aren't known.
        let is_known = |full: &&LimitUsage| {
            let lacks_zones = full.zone.is_some() && project.fleet.has_left_out(&["zones"]);
            !project.fleet.has_left_out(&["accounts", &full.account]) && !lacks_zones
        };
        let mut found: Vec<Diagnostic> = usage.full(&project.fleet).iter().filter(is_known).map(diagnostic).collect();
        found.extend(project.committed_secrets.iter().cloned());
        let mut of_fleet = project.policy.judge(None, found);
        judged.matched.append(&mut of_fleet.matched.clone());
        if self.invalid == 0 && !project.fleet.is_partial {
            of_fleet.append(&mut project.policy.unused(&judged.matched));
        }
        let is_wrong = has_errors(&of_fleet);
        judged.append(&mut of_fleet);
        is_wrong
    }

    /// Returns whether the manifest on disk is the one that this process knows: another one may have built meanwhile.
    pub fn is_current(&self) -> bool {
        self.writer.is_current()
    }
}

/// Returns the ids of all files. Those of two files are skipped.
fn unique_ids<'p>(project: &'p Project, held: &mut BTreeSet<String>, judged: &mut Judged) -> HashSet<&'p str> {
    let mut first: HashMap<&str, &str> = HashMap::with_capacity(project.files.len());
    for file in &project.files {
        let id = project::id_of(file);
        if let Some(other) = first.insert(id, file) {
            held.insert(id.to_owned());
            let message = format!("two files have the id `{id}`");
            let diagnostic = Diagnostic::error(Code::DuplicateId, Place::file(file), message, "keep one of the two");
            judged.diagnostics.push(diagnostic.also(Place::file(other), "the other one"));
        }
    }
    first.into_keys().collect()
}

/// Finds resources that are claimed twice, also by claims that no record has. Digests find the few customers that are resolved again
/// for it.
fn conflicts(project: &Project, records: &[Record], more: &[UniqueClaim]) -> Vec<Conflict> {
    let indexed = || records.iter().enumerate().map(|(index, record)| (RecordIndex::new(index), record));
    let mut claims: Vec<(u64, RecordIndex)> =
        indexed().flat_map(|(index, record)| record.claims.iter().map(move |claim| (*claim, index))).collect();
    claims.par_sort_unstable();
    let mut suspects: BTreeSet<RecordIndex> = claims
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|group| group.len() > 1)
        .flat_map(|group| group.iter().map(|(_, index)| *index))
        .collect();
    let digests: HashSet<u64> = more.iter().map(|claim| claim.resource.digest()).collect();
    if !digests.is_empty() {
        suspects.extend(claims.iter().filter(|(digest, _)| digests.contains(digest)).map(|(_, index)| *index));
    }
    let usage = indexed().flat_map(|(index, record)| record.units.iter().map(move |unit| (index, &unit.usage)));
    suspects.append(&mut usage::beside_wildcards(usage));
    let suspects: Vec<RecordIndex> = suspects.into_iter().collect();
    let mut full: Vec<UniqueClaim> = suspects
        .par_iter()
        .flat_map_iter(|index| match records[index.get()].file() {
            FLEET_FILE => project.shared.resolved.claims.clone(),
            file => match project.tree.plain(file) {
                Ok(bytes) => project.resolve(file, &bytes).1.claims,
                Err(_) => Vec::new(),
            },
        })
        .collect();
    full.extend_from_slice(more);
    check::claims(&mut full)
}

/// Returns the customers with the largest shares of an exceeded limit: the place, the name and the share of each.
fn greatest(
    project: &Project,
    records: &[&Record],
    held: &BTreeSet<String>,
    full: &LimitUsage,
) -> Vec<(Place, String, u64)> {
    if !full.is_passed() {
        return Vec::new();
    }
    let share = |record: &Record| match held.contains(id(record)) {
        true => 0,
        false => record.units.iter().map(|unit| full.share(&project.fleet, &unit.usage)).sum(),
    };
    let found = full.greatest(records.iter().map(|record| share(record)));
    let place = |record: &Record| {
        let claims = match record.file() {
            FLEET_FILE => project.shared.resolved.claims.clone(),
            file => project.resolve(file, &project.tree.plain(file).ok()?).1.claims,
        };
        claims.into_iter().find(|claim| full.is_of(&project.fleet, &claim.resource)).map(|claim| claim.place)
    };
    let name = |record: &Record| if id(record) == SHARED { "what all share".to_owned() } else { id(record).to_owned() };
    let records = found.into_iter().map(|(index, share)| (records[index], share));
    records
        .map(|(record, share)| (place(record).unwrap_or_else(|| Place::file(record.file())), name(record), share))
        .collect()
}

impl Scan {
    /// Returns the indices of all records.
    pub fn indices(&self) -> impl Iterator<Item = RecordIndex> + use<> {
        (0..self.records.len()).map(RecordIndex::new)
    }

    /// Returns the record at an index.
    pub fn record(&self, index: RecordIndex) -> &Record {
        &self.records[index.get()]
    }

    /// Returns the unit of a worker, and the record of its customer.
    pub fn unit(&self, index: WorkerIndex) -> (&Record, &Unit) {
        let record = self.record(index.record);
        (record, record.unit(index.unit))
    }

    /// Returns whether a customer is skipped because it has errors.
    pub fn is_held(&self, record: &Record) -> bool {
        !self.held.is_empty() && self.held.contains(id(record))
    }

    /// Returns the resolved worker of a unit.
    pub fn worker(&self, project: &Project, record: &Record, unit: &Unit) -> Option<Worker> {
        let read = self.writer.read(&self.manifest, unit.value, unit.resolved);
        if let Some(worker) = read.and_then(|json| serde_json::from_slice(&json).ok()) {
            return Some(worker);
        }
        // The stored value is damaged: it is resolved again.
        let workers = match record.file() {
            FLEET_FILE => project.shared.resolved.workers.clone(),
            file => project.resolve(file, &project.tree.plain(file).ok()?).1.workers,
        };
        let same = |worker: &Worker| {
            serde_json::to_vec(worker).is_ok_and(|json| Digest::of(&json).short_hash() == unit.resolved)
        };
        workers.into_iter().find(same)
    }

    /// Returns the workers of all customers without errors, sorted by environment, customer and role. A customer that
    /// can no longer be read, because its stored value is damaged and its files have changed in this instant, is
    /// skipped from now on.
    pub fn workers(&mut self, project: &Project) -> Vec<Worker> {
        let read: Vec<Result<Worker, String>> = self
            .records
            .par_iter()
            .filter(|record| !self.is_held(record))
            .flat_map_iter(|record| {
                let worker = |unit| self.worker(project, record, unit).ok_or_else(|| id(record).to_owned());
                record.units.iter().map(worker)
            })
            .collect();
        let mut workers = Vec::with_capacity(read.len());
        for result in read {
            match result {
                Ok(worker) => workers.push(worker),
                Err(id) => drop(self.held.insert(id)),
            }
        }
        workers.retain(|worker| self.held.is_empty() || !self.held.contains(&worker.customer));
        workers.par_sort_by(|a, b| (a.environment, &a.customer, &a.role).cmp(&(b.environment, &b.customer, &b.role)));
        workers
    }

    /// Returns the worker from which a rendering was made, if it is still known.
    pub fn earlier(&self, rendering: &RenderRecord) -> Option<serde_json::Value> {
        let json = self.writer.read(&self.manifest, rendering.value, rendering.from)?;
        serde_json::from_slice(&json).ok()
    }
}
