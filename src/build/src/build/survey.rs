//! The first two passes: each customer looked at, and what only the whole fleet shows. Knows what is remembered; renders and
//! writes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::SystemTime;

use rayon::prelude::*;

use super::Project;
use crate::check;
use crate::manifest::{Input, Made, Manifest, Record, Stamp, Unit, Writer};
use crate::policy::{self, Judged, Suppressed};
use crate::resolve::UniqueClaim;
use crate::tally::{self, Counted, Full, Tally};
use flotilla_model::customer::{self, SHARED, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, Severity, sorted};
use flotilla_model::digest::{Digest, Mark};
use flotilla_model::progress::Progress;
use flotilla_model::spec::Environment;
use flotilla_model::trace;
use flotilla_spec::project::{self, CUSTOMERS, FLEET_FILE, Fleet};
use flotilla_spec::tree::Tree;

/// The customers of a project, as they are now: what is remembered of them, brought up to date.
pub struct Survey {
    /// How many customers' files there are.
    pub customers: usize,
    /// Each customer, in the order of the project's files; the shared workers are the last.
    pub records: Vec<Record>,
    /// Which of them are not as they are remembered.
    pub(super) fresh: Vec<bool>,
    /// What there is to tell of them.
    told: Vec<Option<Box<Told>>>,
    /// The folders under out/ of workers that there were and are no longer.
    pub(super) left: Vec<String>,
    /// Whether any is not as it is remembered, or was taken away.
    pub(super) changed: bool,
    /// The ids of customers with errors: their workers are held as they are. Among them the ids that stand in files of
    /// other names, as these may be customers of old.
    pub held: BTreeSet<String>,
    /// Whether a file could not be read at all. Whose it is isn't known then, and so no customer counts as gone.
    pub unread: bool,
    /// How many customers have errors.
    pub invalid: usize,
    /// The author's mistakes, sorted.
    pub diagnostics: Vec<Diagnostic>,
    /// What fleet.yaml turns off, sorted.
    pub suppressed: Vec<Suppressed>,
    /// What was remembered before.
    pub(super) manifest: Manifest,
    /// Where it is kept.
    pub(super) writer: Writer,
    /// Whether anything may be written.
    pub(super) keeps: bool,
}

/// The id of the customer whose record it is.
pub fn id(record: &Record) -> &str {
    match record.file() {
        FLEET_FILE => SHARED,
        file => project::id_of(file),
    }
}

/// One customer, looked at.
struct Seen {
    record: Record,
    fresh: bool,
    /// The folders under out/ of workers that it had and has no longer.
    left: Vec<String>,
    /// Nothing, of most.
    told: Option<Box<Told>>,
}

/// What there is to tell of a customer.
#[derive(Default)]
struct Told {
    /// The other id that stands in the file.
    written: Option<String>,
    /// Whether the file can't be read at all.
    unread: bool,
    judged: Judged,
}

/// Surveys all customers. `keep`: what is found may be remembered on disk.
pub fn survey(project: &Project, keep: bool, progress: &dyn Progress) -> Result<Survey, Vec<Diagnostic>> {
    let mut manifest = Manifest::read(project.place());
    let writer = Writer::new(project.place(), &mut manifest, keep);
    let contexts = Contexts::default();
    let mut remembered = std::mem::take(&mut manifest.records);
    let known: Vec<Option<Record>> = project.files.iter().map(|file| remembered.remove(file)).collect();
    progress.begin("reading customers", Some(project.files.len() as u64));
    let mut seen: Vec<Seen> = project
        .files
        .par_iter()
        .zip(known)
        .map(|(file, known)| {
            let seen = see(project, file, known, &writer, &contexts);
            progress.step(1);
            seen
        })
        .collect();
    progress.end();
    if !project.shared.resolved.workers.is_empty() || !project.shared.resolved.diagnostics.is_empty() {
        seen.push(see_shared(project, remembered.remove(FLEET_FILE), &writer));
    }
    writer.flush();
    let mut survey = Survey {
        customers: project.files.len(),
        records: Vec::with_capacity(seen.len()),
        fresh: Vec::with_capacity(seen.len()),
        told: Vec::with_capacity(seen.len()),
        left: Vec::new(),
        changed: !remembered.is_empty(),
        held: BTreeSet::new(),
        unread: false,
        invalid: 0,
        diagnostics: Vec::new(),
        suppressed: Vec::new(),
        manifest,
        writer,
        keeps: keep,
    };
    survey.take_in(seen, remembered.values());
    survey.conclude(project)?;
    Ok(survey)
}

impl Survey {
    /// Looks again at some files of customers, and at which there are: for who watches them.
    pub fn look_again(&mut self, project: &mut Project, touched: &BTreeSet<String>) -> Result<(), Vec<Diagnostic>> {
        let files = project::spec_files(&project.tree)?;
        let mut known: HashMap<String, (Record, bool, Option<Box<Told>>)> = HashMap::new();
        let all = std::mem::take(&mut self.records).into_iter().zip(std::mem::take(&mut self.fresh));
        for ((record, fresh), told) in all.zip(std::mem::take(&mut self.told)) {
            known.insert(record.file().to_owned(), (record, fresh, told));
        }
        let shared_before = known.remove(FLEET_FILE).map(|known| known.0);
        let mut gone = known;
        let known: Vec<_> = files.iter().map(|file| (file, gone.remove(file))).collect::<Vec<_>>();
        let gone: Vec<Record> = gone.into_values().map(|gone| gone.0).collect();
        project.files.clone_from(&files);
        let project: &Project = project;
        let contexts = Contexts::default();
        let seen: Vec<Seen> = known
            .into_par_iter()
            .map(|(file, known)| match known {
                Some((record, fresh, told)) if !touched.contains(file) => {
                    Seen { record, fresh, left: Vec::new(), told }
                }
                known => see(project, file, known.map(|known| known.0), &self.writer, &contexts),
            })
            .collect();
        self.writer.flush();
        self.customers = files.len();
        let mut shared = None;
        if !project.shared.resolved.workers.is_empty() {
            shared = Some(see_shared(project, shared_before, &self.writer));
        }
        self.take_in(seen.into_iter().chain(shared), &gone);
        self.changed = true;
        self.conclude(project)
    }

    /// Takes in what was seen, and forgets who is gone.
    fn take_in<'g>(&mut self, seen: impl IntoIterator<Item = Seen>, gone: impl IntoIterator<Item = &'g Record>) {
        for one in seen {
            self.changed |= one.fresh;
            self.records.push(one.record);
            self.fresh.push(one.fresh);
            self.told.push(one.told);
            self.left.extend(one.left);
        }
        let gone: Vec<&Record> = gone.into_iter().collect();
        self.left.extend(gone.iter().flat_map(|gone| gone.units.iter().map(|unit| folder(gone, unit))));
        self.mark_left();
        for gone in gone {
            self.changed = true;
            self.writer.forget(gone.file());
        }
    }

    /// Notes that something may be left over under out/, before what it was is forgotten: this build may be for a part of the
    /// fleet, or end early, and then another one has to look for it.
    fn mark_left(&self) {
        for environment in Environment::EACH {
            let below = format!("{environment}/");
            if self.left.iter().any(|folder| folder.starts_with(&below)) {
                self.writer.folder(environment.as_str(), Stamp::NONE);
            }
        }
    }

    /// What only the whole fleet shows. An error of the fleet as a whole comes back with all the others.
    fn conclude(&mut self, project: &Project) -> Result<(), Vec<Diagnostic>> {
        let mut judged = Judged { diagnostics: project.broken.clone(), ..Judged::default() };
        let mut held = BTreeSet::new();
        let mut renamed = Vec::new();
        self.unread = false;
        for (record, told) in self.records.iter().zip(&self.told) {
            let Some(told) = told else { continue };
            if is_wrong(&told.judged) {
                held.insert(id(record).to_owned());
            }
            judged.append(&mut told.judged.clone());
            self.unread |= told.unread;
            renamed.extend(told.written.clone());
        }
        // What all customers share can't be held for one.
        let stopped = held.contains(SHARED) || !project.broken.is_empty();
        let mut first: HashMap<&str, &str> = HashMap::with_capacity(project.files.len());
        for file in &project.files {
            let id = project::id_of(file);
            if let Some(other) = first.insert(id, file) {
                held.insert(id.to_owned());
                let message = format!("two files have the id `{id}`");
                let diagnostic =
                    Diagnostic::error(Code::DuplicateId, Place::file(file), message, "keep one of the two");
                judged.diagnostics.push(diagnostic.also(Place::file(other), "the other one"));
            }
        }
        for contest in contested(project, &self.records) {
            held.extend(contest.holds);
            let Some(diagnostic) = contest.diagnostic else { continue };
            let file = diagnostic.place.file.clone();
            let customer = file.starts_with(CUSTOMERS).then(|| project::id_of(&file));
            let mut found = project.policy.judge(customer, vec![diagnostic]);
            if is_wrong(&found) {
                held.extend(customer.map(str::to_owned));
            }
            judged.append(&mut found);
        }
        self.invalid = held.len();
        held.extend(renamed.into_iter().filter(|id| !first.contains_key(id.as_str())));
        let tally = self
            .records
            .par_iter()
            .filter(|record| held.is_empty() || !held.contains(id(record)))
            .fold(Tally::default, |mut tally, record| {
                record.units.iter().for_each(|unit| tally.add(&unit.counted));
                tally
            })
            .reduce(Tally::default, Tally::and);
        let told = |full: &Full| full.diagnostic(&project.fleet, greatest(project, &self.records, &held, full));
        let mut full: Vec<Diagnostic> = tally.full(&project.fleet).iter().map(told).collect();
        full.extend(project.exposed.iter().cloned());
        let mut of_fleet = project.policy.judge(None, full);
        judged.matched.append(&mut of_fleet.matched.clone());
        if self.invalid == 0 {
            of_fleet.append(&mut project.policy.unused(&judged.matched));
        }
        let stopped = stopped || is_wrong(&of_fleet);
        judged.append(&mut of_fleet);
        let Judged { diagnostics, suppressed, .. } = judged;
        if stopped {
            return Err(sorted(diagnostics));
        }
        self.held = held;
        self.diagnostics = sorted(diagnostics);
        self.suppressed = policy::sorted_suppressed(suppressed);
        Ok(())
    }

    /// Whether what is remembered is still what this process remembers: another one may have built meanwhile.
    pub fn is_current(&self) -> bool {
        self.writer.is_current()
    }
}

/// Contexts by the layers that they are made of: most customers use one of few sets.
#[derive(Default)]
struct Contexts(Mutex<HashMap<Vec<String>, Option<Mark>>>);

impl Contexts {
    fn of(&self, project: &Project, layers: &[String]) -> Option<Mark> {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match known.get(layers) {
            Some(mark) => *mark,
            None => *known.entry(layers.to_vec()).or_insert(project.context(layers)),
        }
    }
}

/// Looks at one customer: its files if their stamps moved, itself if anything that decides it did.
fn see(project: &Project, file: &str, known: Option<Record>, writer: &Writer, contexts: &Contexts) -> Seen {
    let (touched, stamps) = match &known {
        Some(record) if !record.loud => {
            let stamps: Vec<Stamp> = record.inputs.iter().map(|input| stamp(&project.tree, &input.file)).collect();
            let same = record.inputs.iter().zip(&stamps).all(|(input, now)| match input.content {
                Some(_) => input.stamp.same(*now),
                None => *now == Stamp::NONE && !project.tree.has(&input.file),
            });
            (!same, stamps)
        }
        _ => (true, Vec::new()),
    };
    let in_context = |record: &Record| contexts.of(project, &record.layers) == Some(record.context);
    let known = match known {
        Some(record) if !touched && in_context(&record) => {
            return Seen { record, fresh: false, left: Vec::new(), told: None };
        }
        other => other,
    };
    // The stamp is that of before the file was read: what changes meanwhile is seen next time.
    let start = SystemTime::now();
    let before = stamp_at(&project.tree, file, start);
    let bytes = match project.tree.plain(file) {
        Ok(bytes) => bytes,
        Err(diagnostic) => {
            let record = Record {
                inputs: vec![Input { file: file.to_owned(), stamp: Stamp::NONE, content: None }],
                loud: true,
                context: Mark::default(),
                layers: Vec::new(),
                labels: Vec::new(),
                claims: Vec::new(),
                units: known.map(|record| record.units).unwrap_or_default(),
            };
            let judged = project.policy.judge(Some(project::id_of(file)), vec![*diagnostic]);
            return Seen {
                record,
                fresh: true,
                left: Vec::new(),
                told: Some(Box::new(Told { written: None, unread: true, judged })),
            };
        }
    };
    let content = Digest::of(&bytes).mark();
    if let Some(mut record) = known.as_ref().filter(|record| !record.loud && in_context(record)).cloned() {
        // Only touched, perhaps: the same bytes under another stamp.
        let mut same = record.inputs.first().is_some_and(|input| input.content == Some(content));
        for (input, now) in record.inputs.iter_mut().zip(&stamps).skip(1) {
            // What is there and can't be read has to be told.
            same &= match project.tree.has(&input.file) {
                true => {
                    project.tree.plain(&input.file).is_ok_and(|bytes| Some(Digest::of(&bytes).mark()) == input.content)
                }
                false => input.content.is_none(),
            };
            input.stamp = *now;
        }
        if same {
            record.inputs[0].stamp = before;
            return Seen { record, fresh: true, left: Vec::new(), told: None };
        }
    }
    let _span = trace::span("read and resolve", file);
    let (reading, resolved) = project.resolve(file, &bytes);
    let mut inputs = vec![Input { file: file.to_owned(), stamp: before, content: Some(content) }];
    let (mut layers, mut labels, mut written) = (Vec::new(), Vec::new(), None);
    if let Some(spec) = &reading.spec {
        labels = project::labels(&project.fleet, &spec.identity).into_iter().collect();
        layers = spec.layers.iter().map(|at| project.fleet.layers[*at].name.clone()).collect();
        written = spec.written.clone();
        inputs.extend(spec.env_files.iter().map(|file| Input {
            file: file.file.clone(),
            // Which they are is known only when they were read; what changed since the start isn't settled.
            stamp: stamp_at(&project.tree, &file.file, start),
            content: file.bytes.as_ref().map(|bytes| Digest::of(bytes).mark()),
        }));
    }
    let loud = !reading.diagnostics.is_empty();
    let judged = project.policy.judge(Some(project::id_of(file)), reading.diagnostics);
    let failed = is_wrong(&judged);
    let context = contexts.of(project, &layers).unwrap_or_default();
    let old = known.as_ref().map(|record| record.units.clone()).unwrap_or_default();
    let claims = claims(&resolved.claims);
    let units = if failed { old } else { units(&project.fleet, &resolved.workers, old, writer) };
    let record = Record { inputs, context, layers, labels, loud, claims, units };
    Seen {
        // Who has something to tell is read each time, mostly without news.
        fresh: known.as_ref() != Some(&record),
        left: left(known.as_ref(), &record),
        record,
        told: (loud || written.is_some()).then(|| Box::new(Told { written, unread: reading.spec.is_none(), judged })),
    }
}

/// The folders of workers that a customer had and has no longer.
fn left(known: Option<&Record>, now: &Record) -> Vec<String> {
    let has =
        |unit: &&Unit| now.units.iter().any(|other| other.environment == unit.environment && other.role == unit.role);
    known.into_iter().flat_map(|known| &known.units).filter(|unit| !has(unit)).map(|unit| folder(now, unit)).collect()
}

/// The folder under out/ of a customer's worker.
pub(super) fn folder(record: &Record, unit: &Unit) -> String {
    customer::folder(unit.environment, id(record), unit.role.as_deref())
}

fn is_wrong(judged: &Judged) -> bool {
    judged.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

/// The workers that all customers share: resolved each time, as there are few.
fn see_shared(project: &Project, known: Option<Record>, writer: &Writer) -> Seen {
    let resolved = &project.shared.resolved;
    let old = known.as_ref().map(|record| record.units.clone()).unwrap_or_default();
    let record = Record {
        inputs: vec![Input { file: FLEET_FILE.to_owned(), stamp: Stamp::NONE, content: None }],
        context: Mark::default(),
        layers: Vec::new(),
        labels: Vec::new(),
        loud: true,
        claims: claims(&resolved.claims),
        units: units(&project.fleet, &resolved.workers, old, writer),
    };
    let fresh = known.as_ref() != Some(&record);
    let judged = project.policy.judge(None, resolved.diagnostics.clone());
    let left = left(known.as_ref(), &record);
    Seen { record, fresh, left, told: Some(Box::new(Told { written: None, unread: false, judged })) }
}

fn stamp(tree: &Tree, file: &str) -> Stamp {
    // The clock first: what changes between the two is younger than the clock says.
    stamp_at(tree, file, SystemTime::now())
}

fn stamp_at(tree: &Tree, file: &str, now: SystemTime) -> Stamp {
    if tree.past.contains_key(file) {
        return Stamp::NONE;
    }
    std::fs::symlink_metadata(tree.root.join(file)).map_or(Stamp::NONE, |metadata| Stamp::settled(&metadata, now))
}

/// The digests of what a customer claims. What its workers may share is there once.
fn claims(claims: &[UniqueClaim]) -> Vec<u64> {
    let digests = |shared: bool| {
        claims.iter().filter(move |claim| claim.resource.is_customers() == shared).map(|claim| claim.resource.digest())
    };
    let mut all: Vec<u64> = digests(false).collect();
    let (own, shared): (BTreeSet<u64>, BTreeSet<u64>) = (all.iter().copied().collect(), digests(true).collect());
    all.extend(shared.difference(&own));
    all
}

/// Resolved workers as they are remembered, each with what was written of it.
fn units(fleet: &Fleet, workers: &[Worker], mut old: Vec<Unit>, writer: &Writer) -> Vec<Unit> {
    workers
        .iter()
        .zip(Counted::all(fleet, workers))
        .map(|(worker, counted)| {
            let json = serde_json::to_vec(worker).expect("BUG: a worker is JSON");
            let resolved = Digest::of(&json).mark();
            let same = |unit: &Unit| unit.environment == worker.environment && unit.role == worker.role;
            let before = old.iter().position(same).map(|at| old.swap_remove(at));
            let value = match &before {
                Some(before) if before.resolved == resolved => before.value,
                _ => writer.value(&json),
            };
            Unit {
                environment: worker.environment,
                role: worker.role.clone(),
                pack: worker.pack.clone(),
                resolved,
                value,
                counted,
                made: before.and_then(|before| before.made),
            }
        })
        .collect()
}

/// What is claimed twice. Digests find the few customers that are looked at again for it.
fn contested(project: &Project, records: &[Record]) -> Vec<check::Contest> {
    let mut claims: Vec<(u64, u32)> = records
        .iter()
        .enumerate()
        .flat_map(|(at, record)| record.claims.iter().map(move |claim| (*claim, at as u32)))
        .collect();
    claims.par_sort_unstable();
    let mut suspects: BTreeSet<u32> = claims
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|group| group.len() > 1)
        .flat_map(|group| group.iter().map(|(_, at)| *at))
        .collect();
    let counted = records.iter().enumerate().flat_map(|(at, record)| {
        let units = record.units.iter();
        units.map(move |unit| (at as u32, &unit.counted))
    });
    suspects.append(&mut tally::beside_wildcards(counted));
    let suspects: Vec<u32> = suspects.into_iter().collect();
    let mut full: Vec<UniqueClaim> = suspects
        .par_iter()
        .flat_map_iter(|at| match records[*at as usize].file() {
            FLEET_FILE => project.shared.resolved.claims.clone(),
            file => match project.tree.plain(file) {
                Ok(bytes) => project.resolve(file, &bytes).1.claims,
                Err(_) => Vec::new(),
            },
        })
        .collect();
    check::claims(&mut full)
}

/// Where those are who have the most of what is too much.
fn greatest(project: &Project, records: &[Record], held: &BTreeSet<String>, full: &Full) -> Vec<(Place, String, u64)> {
    if !full.is_passed() {
        return Vec::new();
    }
    let share = |record: &Record| match held.contains(id(record)) {
        true => 0,
        false => record.units.iter().map(|unit| full.share(&unit.counted)).sum(),
    };
    let found = full.greatest(records.iter().map(share));
    let place = |record: &Record| {
        let claims = match record.file() {
            FLEET_FILE => project.shared.resolved.claims.clone(),
            file => project.resolve(file, &project.tree.plain(file).ok()?).1.claims,
        };
        claims.into_iter().find(|claim| full.is_of(&project.fleet, &claim.resource)).map(|claim| claim.place)
    };
    let name = |record: &Record| if id(record) == SHARED { "what all share".to_owned() } else { id(record).to_owned() };
    let records = found.into_iter().map(|(at, share)| (&records[at], share));
    records
        .map(|(record, share)| (place(record).unwrap_or_else(|| Place::file(record.file())), name(record), share))
        .collect()
}

impl Survey {
    /// Which customers' workers are to be built: those without errors.
    pub(super) fn is_held(&self, record: &Record) -> bool {
        !self.held.is_empty() && self.held.contains(id(record))
    }

    /// The resolved worker that a unit stands for.
    pub fn worker(&self, project: &Project, record: &Record, unit: &Unit) -> Option<Worker> {
        let read = self.writer.read(&self.manifest, unit.value, unit.resolved);
        if let Some(worker) = read.and_then(|json| serde_json::from_slice(&json).ok()) {
            return Some(worker);
        }
        // What is kept is damaged: resolved anew.
        let workers = match record.file() {
            FLEET_FILE => project.shared.resolved.workers.clone(),
            file => project.resolve(file, &project.tree.plain(file).ok()?).1.workers,
        };
        let same =
            |worker: &Worker| serde_json::to_vec(worker).is_ok_and(|json| Digest::of(&json).mark() == unit.resolved);
        workers.into_iter().find(same)
    }

    /// The workers of all customers without errors, sorted by environment, customer and role. Who can't be read any more,
    /// because what is kept is damaged and its files have changed in this instant, is held from now on.
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
        for one in read {
            match one {
                Ok(worker) => workers.push(worker),
                Err(id) => drop(self.held.insert(id)),
            }
        }
        workers.retain(|worker| self.held.is_empty() || !self.held.contains(&worker.customer));
        workers.par_sort_by(|a, b| (a.environment, &a.customer, &a.role).cmp(&(b.environment, &b.customer, &b.role)));
        workers
    }

    /// What was written of each worker, by its folder; with the digest of the worker as it is now.
    pub fn made(&self) -> HashMap<String, (&Made, &Mark)> {
        let valid = self.records.iter().filter(|record| !self.is_held(record));
        let units = valid.flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
        units
            .filter_map(|(record, unit)| {
                let folder = customer::folder(unit.environment, id(record), unit.role.as_deref());
                Some((folder, (unit.made.as_ref()?, &unit.resolved)))
            })
            .collect()
    }

    /// What is known of an earlier state of a worker.
    pub fn earlier(&self, made: &Made) -> Option<serde_json::Value> {
        let json = self.writer.read(&self.manifest, made.value, made.from)?;
        serde_json::from_slice(&json).ok()
    }
}
