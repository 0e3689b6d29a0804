//! The left half of the line: from files to bundles, make-style. Surveys all customers, decides what is out of date, renders
//! that and writes out/, in parallel over customers; what earlier builds remember says what need not be looked at. Knows no
//! platform, no state and no secrets.
//!
//! Three passes over the fleet, none of which keeps more of a customer than its record:
//!
//! 1. *Survey.* A customer's files are read if their stamps moved, and resolved if their bytes or the fleet's did. The
//!    resolved workers go to the file of values.
//! 2. *Checks across the fleet*, on what each customer claims and counts.
//! 3. *Build.* A worker is rendered if what it is rendered from, or by, isn't what its files were made of, or if its files
//!    aren't what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::bundle::{self, Bundle, Runtime};
use crate::check;
use crate::customer::{self, SHARED, Worker};
use crate::diagnostic::{Code, Diagnostic, Place, Severity, sorted};
use crate::digest::{Digest, Framed, Mark};
use crate::failure::Failure;
use crate::manifest::{Input, Made, Manifest, Output, Record, Stamp, Unit, Why, Writer};
use crate::origin::{self, Origin, Origins};
use crate::out::Out;
use crate::policy::{self, Judged, Policy, Suppressed};
use crate::progress::Progress;
use crate::project::{self, CUSTOMERS, FLEET_FILE, Fleet, Reading};
use crate::render::{self, Scene, TOOL, Templates};
use crate::resolve::{self, Claim, Resolved, Shared};
use crate::runtime;
use crate::schema::Checker;
use crate::spec::Environment;
use crate::tally::{self, Counted, Full, Room, Tally};
use crate::trace;
use crate::tree::Tree;

/// A project, open: what holds for all of its customers.
pub struct Project {
    /// Its files.
    pub tree: Tree,
    /// fleet.yaml, its layers and packs.
    pub fleet: Fleet,
    /// The customers' files, sorted by name.
    pub files: Vec<String>,
    /// The workers that all customers share.
    pub shared: Shared,
    /// Each pack's templates.
    templates: BTreeMap<String, Templates>,
    /// Which warnings count, and how much.
    policy: Policy,
    /// What is wrong with templates and with the policy.
    broken: Vec<Diagnostic>,
    /// The schema of customers' files; compiled when the first one is read.
    checker: OnceLock<&'static Checker>,
}

/// Opens a project. A mistake in fleet.yaml, a layer or a pack ends it: with all other mistakes that can be found.
pub fn open(tree: Tree, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    progress.begin("reading the fleet", None);
    let checker = OnceLock::new();
    let (fleet, files) = match (project::read_fleet(&tree), project::spec_files(&tree)) {
        (Ok(fleet), Ok(files)) => (fleet, files),
        (fleet, files) => {
            let mut diagnostics: Vec<Diagnostic> = Vec::new();
            diagnostics.extend(fleet.err().into_iter().flatten());
            match files {
                // What is wrong with the fleet hides nothing of what a spec shows by itself.
                Ok(files) => {
                    let checker = checker.get_or_init(Checker::customer);
                    let read = |file: &String| match tree.plain(file) {
                        Ok(bytes) => project::read_spec(&tree, None, file, &bytes, checker).diagnostics,
                        Err(diagnostic) => vec![*diagnostic],
                    };
                    diagnostics.par_extend(files.par_iter().flat_map_iter(read));
                }
                Err(missing) => diagnostics.extend(missing),
            }
            return Err(sorted(diagnostics));
        }
    };
    let shared = resolve::shared(&fleet);
    let mut templates = BTreeMap::new();
    let (policy, mut broken) = Policy::new(&fleet.document, &fleet.file);
    for (name, pack) in &fleet.packs {
        match Templates::new(pack) {
            Ok(parsed) => {
                templates.insert(name.clone(), parsed);
            }
            Err(found) => broken.extend(found),
        }
    }
    Ok(Project { tree, fleet, files, shared, templates, policy, broken, checker })
}

impl Project {
    /// The project's folder.
    pub fn root(&self) -> &Path {
        &self.tree.root
    }

    /// Reads and resolves a customer.
    pub fn resolve(&self, file: &str, bytes: &[u8]) -> (Reading, Resolved) {
        let checker = self.checker.get_or_init(Checker::customer);
        let mut reading = project::read_spec(&self.tree, Some(&self.fleet), file, bytes, checker);
        let mut resolved = match &reading.spec {
            Some(spec) => resolve::resolve(&self.fleet, &self.shared, spec),
            None => Resolved::default(),
        };
        // Of one place, the first thing that is wrong is enough.
        resolved.diagnostics.retain(|found| reading.diagnostics.iter().all(|told| told.place != found.place));
        reading.diagnostics.append(&mut resolved.diagnostics);
        (reading, resolved)
    }

    /// Which partials a worker's templates include: found by rendering it.
    pub fn partials(&self, worker: &Worker) -> u64 {
        let (templates, pack) = (&self.templates[&worker.pack], &self.fleet.packs[&worker.pack]);
        if pack.partials.is_empty() {
            return 0;
        }
        render::partials_read();
        for name in pack.file_names() {
            // What goes wrong is the build's to tell.
            let _ = templates.render(name, worker, "./runtime.js", None);
        }
        render::partials_read()
    }

    /// Looks up where a worker's values come from.
    pub fn origins<T>(&self, worker: &Worker, look: impl FnOnce(&Origins<'_>) -> T) -> T {
        let fleet = &self.fleet;
        let role = worker.role.as_deref();
        let spec = if worker.customer == SHARED {
            None
        } else {
            let checker = self.checker.get_or_init(Checker::customer);
            let bytes = self.tree.bytes(&worker.file).unwrap_or_default();
            project::read_spec(&self.tree, Some(fleet), &worker.file, &bytes, checker).spec
        };
        let merged = match &spec {
            Some(spec) => resolve::merged(fleet, spec, worker.environment, role),
            None => resolve::merged_shared(fleet, worker.environment, role.unwrap_or_default()),
        };
        look(&Origins { fleet, spec: spec.as_ref(), merged, worker })
    }

    /// What differs between two resolved workers, with the places where what is now stands.
    fn differences(&self, worker: &Worker, before: &Value, after: &Value) -> Vec<String> {
        let written = |value: Option<&Value>| match value {
            None => "nothing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                if text.chars().count() > 80 {
                    format!("{}…", text.chars().take(80).collect::<String>())
                } else {
                    text
                }
            }
        };
        self.origins(worker, |origins| {
            let line = |(path, before, after): (Vec<String>, Option<Value>, Option<Value>)| {
                let steps: Vec<&str> = path.iter().map(String::as_str).collect();
                let place = match origins.of(&steps) {
                    Origin::At(place) if after.is_some() => format!("{place} "),
                    _ => String::new(),
                };
                let change = format!("{} → {}", written(before.as_ref()), written(after.as_ref()));
                format!("{place}{} {change}", origin::notation(&path))
            };
            origin::differences(before, after).into_iter().map(line).collect()
        })
    }

    /// The digest of everything beside a customer's own files that decides how it is resolved.
    fn context(&self, layers: &[String]) -> Option<Mark> {
        let start = Framed::new("context").field(TOOL.as_bytes()).field(&self.fleet.decides.to_bytes());
        let all = layers.iter().try_fold(start, |framed, name| {
            let layer = self.fleet.layers.iter().find(|layer| layer.name == *name)?;
            Some(framed.field(&layer.digest.to_bytes()))
        });
        all.map(|framed| framed.finish().mark())
    }
}

/// The customers of a project, as they are now: what is remembered of them, brought up to date.
pub struct Survey {
    /// How many customers' files there are.
    pub customers: usize,
    /// Each customer, in the order of the project's files; the shared workers are the last.
    pub records: Vec<Record>,
    /// Which of them are not as they are remembered.
    fresh: Vec<bool>,
    /// What there is to tell of them.
    told: Vec<Option<Box<Told>>>,
    /// Whether any is not as it is remembered, or was taken away.
    changed: bool,
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
    manifest: Manifest,
    /// Where it is kept.
    writer: Writer,
    /// Whether anything may be written.
    keeps: bool,
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
    let mut manifest = Manifest::read(project.root());
    let writer = Writer::new(project.root(), &mut manifest, keep);
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
    for one in seen {
        survey.changed |= one.fresh;
        survey.records.push(one.record);
        survey.fresh.push(one.fresh);
        survey.told.push(one.told);
    }
    if survey.changed {
        // Before anything of it is remembered: this build may be for a part of the fleet, or end early, and then another one
        // has to remove what is left over.
        for environment in Environment::ALL {
            survey.writer.folder(environment.as_str(), Stamp::NONE);
        }
    }
    for file in remembered.keys() {
        survey.writer.forget(file);
    }
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
        let known: Vec<_> = files.iter().map(|file| (file, known.remove(file))).collect::<Vec<_>>();
        project.files.clone_from(&files);
        let project: &Project = project;
        let contexts = Contexts::default();
        let seen: Vec<Seen> = known
            .into_par_iter()
            .map(|(file, known)| match known {
                Some((record, fresh, told)) if !touched.contains(file) => Seen { record, fresh, told },
                known => see(project, file, known.map(|known| known.0), &self.writer, &contexts),
            })
            .collect();
        self.writer.flush();
        self.customers = files.len();
        let mut shared = None;
        if !project.shared.resolved.workers.is_empty() {
            shared = Some(see_shared(project, shared_before, &self.writer));
        }
        for one in seen.into_iter().chain(shared) {
            self.changed |= one.fresh;
            self.records.push(one.record);
            self.fresh.push(one.fresh);
            self.told.push(one.told);
        }
        self.changed = true;
        self.conclude(project)
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
        let full = tally.full(&project.fleet).iter().map(told).collect();
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
            return Seen { record, fresh: false, told: None };
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
            return Seen { record, fresh: true, told: Some(Box::new(Told { written: None, unread: true, judged })) };
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
            return Seen { record, fresh: true, told: None };
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
        record,
        told: (loud || written.is_some()).then(|| Box::new(Told { written, unread: reading.spec.is_none(), judged })),
    }
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
    Seen { record, fresh, told: Some(Box::new(Told { written: None, unread: false, judged })) }
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
fn claims(claims: &[Claim]) -> Vec<u64> {
    let digests = |shared: bool| {
        claims.iter().filter(move |claim| claim.thing.is_customers() == shared).map(|claim| claim.thing.digest())
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
    let mut full: Vec<Claim> = suspects
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
        claims.into_iter().find(|claim| full.is_of(&project.fleet, &claim.thing)).map(|claim| claim.place)
    };
    let name = |record: &Record| if id(record) == SHARED { "what all share".to_owned() } else { id(record).to_owned() };
    let records = found.into_iter().map(|(at, share)| (&records[at], share));
    records
        .map(|(record, share)| (place(record).unwrap_or_else(|| Place::file(record.file())), name(record), share))
        .collect()
}

impl Survey {
    /// Which customers' workers are to be built: those without errors.
    fn is_held(&self, record: &Record) -> bool {
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

/// The runtimes by pack.
pub type Runtimes = HashMap<String, Runtime>;

/// The runtimes of the packs that workers use: from the cache, or bundled now.
pub fn runtimes(project: &Project, survey: &Survey, progress: &dyn Progress) -> Result<Runtimes, runtime::Error> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for unit in survey.records.iter().filter(|record| !survey.is_held(record)).flat_map(|record| &record.units) {
        if !used.contains(unit.pack.as_str()) {
            used.insert(&unit.pack);
        }
    }
    used.into_iter()
        .map(|name| Ok((name.to_owned(), runtime::runtime(name, &project.fleet.packs[name], progress)?)))
        .collect()
}

/// Which part of the fleet a build is for.
pub struct Scope<'a> {
    /// Whether a worker belongs to it: by its customer's record, and by itself.
    pub includes: &'a (dyn Fn(&Record, &Unit) -> bool + Sync),
    /// Whether it is the whole fleet, so that what no worker owns can go.
    pub whole: bool,
    /// Count what differs, and write nothing.
    pub dry: bool,
    /// Say why each worker is rendered.
    pub explain: bool,
}

/// What a build did.
#[derive(Default)]
pub struct Built {
    /// Workers that belong to it.
    pub workers: usize,
    /// Workers that were rendered.
    pub rendered: usize,
    /// Workers none of whose files differed.
    pub unchanged: usize,
    /// Files that were written, or would be.
    pub written: usize,
    /// Folders, runtimes, and files that a pack no longer has, that were removed, or would be.
    pub removed: usize,
    /// The ids of customers with a worker that could not be rendered.
    pub failed: BTreeSet<String>,
    /// Why each worker was rendered, where that was asked for: its folder, and the reasons in the author's terms.
    pub why: Vec<(String, Vec<String>)>,
    /// What the templates' author did wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// What could not be remembered.
    pub forgotten: Option<std::io::Error>,
}

/// The recipes by pack and partials; put together once each.
struct Recipes<'a> {
    project: &'a Project,
    runtimes: &'a Runtimes,
    room: Room<'a>,
    known: Mutex<HashMap<(String, u64), Mark>>,
    writer: &'a Writer,
    kept: &'a HashMap<Mark, render::Recipe>,
}

impl<'a> Recipes<'a> {
    fn new(project: &'a Project, survey: &'a Survey, runtimes: &'a Runtimes) -> Recipes<'a> {
        let (writer, kept) = (&survey.writer, &survey.manifest.recipes);
        let sizes = runtimes.iter().map(|(name, runtime)| (name.as_str(), runtime.script.len() as u64));
        Recipes { project, runtimes, room: Room::new(&project.fleet, sizes), known: Mutex::default(), writer, kept }
    }

    /// A recipe by its digest, of this run or an earlier one.
    fn recipe(&self, mark: Mark) -> Option<render::Recipe> {
        if let Some(recipe) = self.kept.get(&mark) {
            return Some(recipe.clone());
        }
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ((pack, partials), _) = known.iter().find(|(_, known)| **known == mark)?;
        Some(render::recipe(&self.project.fleet.packs[pack], &self.runtimes[pack].file, *partials))
    }

    fn of(&self, pack: &str, partials: u64) -> Mark {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mark) = known.get(&(pack.to_owned(), partials)) {
            return *mark;
        }
        let recipe = render::recipe(&self.project.fleet.packs[pack], &self.runtimes[pack].file, partials);
        let mark = recipe.mark();
        known.insert((pack.to_owned(), partials), mark);
        if !self.kept.contains_key(&mark) {
            self.writer.recipe(recipe);
        }
        mark
    }
}

/// Builds what is out of date.
pub fn build(
    project: &Project,
    survey: &mut Survey,
    runtimes: &Runtimes,
    scope: &Scope<'_>,
    progress: &dyn Progress,
) -> Result<Built, Failure> {
    let out = Out::new(project.root(), scope.dry);
    let mut built = Built::default();
    for runtime in runtimes.values() {
        let (folder, file) = runtime.file.split_once('/').expect("BUG: a runtime has a folder");
        let types = file.replace(".js", ".d.ts");
        let written = out.write_folder(folder, &[(file, &runtime.script), (&types, &runtime.types)])?;
        built.written += written.iter().filter(|written| written.differed).count();
    }
    let mut records = std::mem::take(&mut survey.records);
    let recipes = Recipes::new(project, survey, runtimes);
    progress.begin("building", Some(records.len() as u64));
    let results: Vec<Result<Built, Failure>> = records
        .par_iter_mut()
        .zip(&survey.fresh)
        .fold(
            || Ok(Built::default()),
            |built: Result<Built, Failure>, (record, fresh)| {
                let mut built = built?;
                let result = customer(project, survey, &recipes, record, *fresh, &out, scope, &mut built);
                progress.step(1);
                result.map(|()| built)
            },
        )
        .collect();
    progress.end();
    drop(recipes);
    survey.records = records;
    let mut failure = None;
    for result in results {
        match result {
            Ok(part) => built.add(part),
            Err(error) => failure = Some(error),
        }
    }
    if let Some(failure) = failure {
        // What was done is remembered, all the same.
        survey.writer.settle();
        return Err(failure);
    }
    if scope.whole && !survey.unread {
        prune(project, survey, runtimes, &out, scope, &mut built)?;
    }
    built.diagnostics = sorted(std::mem::take(&mut built.diagnostics));
    built.forgotten = survey.writer.settle();
    if !scope.dry {
        survey.fresh.fill(false);
        survey.changed = false;
    }
    built.why.sort();
    Ok(built)
}

impl Built {
    fn add(&mut self, mut other: Built) {
        self.workers += other.workers;
        self.rendered += other.rendered;
        self.unchanged += other.unchanged;
        self.written += other.written;
        self.removed += other.removed;
        self.failed.append(&mut other.failed);
        self.why.append(&mut other.why);
        self.diagnostics.append(&mut other.diagnostics);
    }
}

/// Builds one customer's workers, and remembers what came of it.
#[expect(clippy::too_many_arguments, reason = "one caller, just above")]
fn customer(
    project: &Project,
    survey: &Survey,
    recipes: &Recipes<'_>,
    record: &mut Record,
    fresh: bool,
    out: &Out,
    scope: &Scope<'_>,
    built: &mut Built,
) -> Result<(), Failure> {
    let mut news = fresh;
    if !survey.is_held(record) {
        for at in 0..record.units.len() {
            if !(scope.includes)(record, &record.units[at]) {
                continue;
            }
            built.workers += 1;
            let folder = customer::folder(record.units[at].environment, id(record), record.units[at].role.as_deref());
            let (why, stamped) = reasons(&mut record.units[at], &folder, recipes, out);
            news |= stamped;
            if why.is_empty() {
                let unit = &record.units[at];
                let size = unit.made.as_ref().map_or(0, |made| made.size);
                match recipes.room.check(record.file(), &unit.pack, unit.counted.account(), size) {
                    None => built.unchanged += 1,
                    Some(diagnostic) => {
                        built.workers -= 1;
                        built.diagnostics.push(*diagnostic);
                        built.failed.insert(id(record).to_owned());
                    }
                }
                continue;
            }
            built.rendered += 1;
            let Some(worker) = survey.worker(project, record, &record.units[at]) else {
                // The spec changed under our hands; the next build sees it.
                continue;
            };
            match render(project, recipes, &worker, out) {
                Ok(done) => {
                    let written = done.written.iter().filter(|written| written.differed).count();
                    built.written += written;
                    built.unchanged += usize::from(written == 0);
                    if written > 0 && !scope.dry {
                        survey.writer.wrote();
                    }
                    let unit = &mut record.units[at];
                    let before = unit.made.take();
                    let is_old = |output: &&Output| done.files.iter().all(|(name, _)| *name != output.name);
                    for output in before.iter().flat_map(|before| &before.outputs).filter(is_old) {
                        built.removed += usize::from(out.remove_file(&folder, &output.name)?);
                    }
                    unit.made = Some(made(unit, before, done, why));
                    if scope.explain {
                        built.why.push((folder, last(project, survey, recipes, &record.units[at], &worker)));
                    }
                    news = true;
                }
                Err(Broken::Diagnostic(diagnostic)) => {
                    built.workers -= 1;
                    built.rendered -= 1;
                    built.diagnostics.push(*diagnostic);
                    built.failed.insert(id(record).to_owned());
                    news = true;
                }
                Err(Broken::Failure(failure)) => return Err(failure),
            }
        }
    }
    if news && survey.keeps && !scope.dry {
        survey.writer.record(record.clone());
    }
    Ok(())
}

/// Why a worker is out of date; nothing, if it isn't. Files that were touched only get their new stamps: the second value
/// says whether there were any. This is the one place where it is decided, for `build` as well as for `explain`.
fn reasons(unit: &mut Unit, folder: &str, recipes: &Recipes<'_>, out: &Out) -> (Vec<Why>, bool) {
    let resolved = unit.resolved;
    let Some(made) = &mut unit.made else { return (vec![Why::New], false) };
    let mut why = Vec::new();
    if made.from != resolved {
        why.push(Why::Values);
    }
    if made.recipe != recipes.of(&unit.pack, made.partials) {
        why.push(Why::Recipe);
    }
    let mut stamped = false;
    for output in &mut made.outputs {
        let now = SystemTime::now();
        let Some(metadata) = out.metadata(folder, &output.name) else {
            why.push(Why::Missing(output.name.clone()));
            continue;
        };
        if output.stamp.same(Stamp::of(&metadata)) {
            continue;
        }
        match out.bytes(folder, &output.name) {
            Ok(bytes) if Digest::of(&bytes).mark() == output.content => {
                output.stamp = Stamp::settled(&metadata, now);
                stamped |= output.stamp != Stamp::NONE;
            }
            _ => why.push(Why::Edited(output.name.clone())),
        }
    }
    (why, stamped)
}

/// Why a worker was rendered the last time, in the author's terms.
fn last(project: &Project, survey: &Survey, recipes: &Recipes<'_>, unit: &Unit, worker: &Worker) -> Vec<String> {
    let Some(made) = &unit.made else { return Vec::new() };
    let read = |mark, chunk| serde_json::from_slice::<Value>(&survey.writer.read(&survey.manifest, chunk, mark)?).ok();
    let before = made.before.and_then(|(mark, chunk, _)| read(mark, chunk));
    let after = read(made.from, made.value).or_else(|| serde_json::to_value(worker).ok());
    let recipe_before = made.before.and_then(|(_, _, recipe)| recipes.recipe(recipe));
    let recipe = recipes.recipe(made.recipe);
    told(project, worker, &made.why, (before, after), (recipe_before, recipe))
}

/// Reasons, in the author's terms: which value of which file, which template.
fn told(
    project: &Project,
    worker: &Worker,
    why: &[Why],
    (before, after): (Option<Value>, Option<Value>),
    (recipe_before, recipe): (Option<render::Recipe>, Option<render::Recipe>),
) -> Vec<String> {
    let mut lines = Vec::new();
    for why in why {
        match why {
            Why::New => lines.push("it is new, or nothing is remembered of it".to_owned()),
            Why::Missing(name) => lines.push(format!("out/{}/{name} is gone", worker.folder())),
            Why::Edited(name) => lines.push(format!("out/{}/{name} isn't what was written", worker.folder())),
            Why::Values => match (&before, &after) {
                (Some(before), Some(after)) => lines.extend(project.differences(worker, before, after)),
                _ => lines.push("what its files say of it changed".to_owned()),
            },
            Why::Recipe => match (&recipe_before, &recipe) {
                (Some(before), Some(after)) => lines.extend(after.differences(before)),
                _ => lines.push("its templates, its runtime or flotilla itself changed".to_owned()),
            },
        }
    }
    lines
}

/// Why a worker was rendered the last time, and what would have it rendered now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its folder under out/.
    pub folder: String,
    /// Its name.
    pub worker: String,
    /// The digest of its bundle, if it was built.
    pub digest: Option<Digest>,
    /// When it was rendered last, in seconds since 1970.
    pub rendered_at: Option<i64>,
    /// Why.
    pub last: Vec<String>,
    /// Why it would be rendered now; nothing, if it is up to date.
    pub now: Vec<String>,
    /// The files that decide it.
    pub files: Vec<String>,
}

/// Explains the workers of one customer, by the code that builds them.
pub fn explain(project: &Project, survey: &Survey, runtimes: &Runtimes, record: &Record) -> Vec<Explained> {
    let out = Out::new(project.root(), true);
    let recipes = Recipes::new(project, survey, runtimes);
    let units = record.units.iter().filter_map(|unit| {
        let worker = survey.worker(project, record, unit)?;
        let folder = worker.folder();
        let (why, _) = reasons(&mut unit.clone(), &folder, &recipes, &out);
        let made = unit.made.as_ref();
        let before = made.and_then(|made| survey.earlier(made));
        let after = serde_json::to_value(&worker).ok();
        let partials = made.map_or(0, |made| made.partials);
        let recipe = render::recipe(&project.fleet.packs[&unit.pack], &runtimes[&unit.pack].file, partials);
        let mut files = project.origins(&worker, |origins| origins.files());
        files.extend(recipe.templates.iter().map(|(name, _)| format!("{}/{name}", recipe.pack)));
        files.push(format!("out/{}", recipe.runtime));
        let recipe_before = made.and_then(|made| recipes.recipe(made.recipe));
        Some(Explained {
            worker: worker.name.clone(),
            digest: made.map(Made::bundle),
            rendered_at: made.map(|made| made.at),
            last: last(project, survey, &recipes, unit, &worker),
            now: told(project, &worker, &why, (before, after), (recipe_before, Some(recipe))),
            folder,
            files,
        })
    });
    units.collect()
}

/// What rendering a worker gave.
struct Done {
    /// When it began.
    start: SystemTime,
    bundle: Bundle,
    recipe: Mark,
    partials: u64,
    /// The bytes of the module.
    size: u64,
    /// The names and digests of the files.
    files: Vec<(String, Mark)>,
    written: Vec<crate::out::Written>,
}

fn made(unit: &Unit, before: Option<Made>, done: Done, why: Vec<Why>) -> Made {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let outputs = done.files.into_iter().zip(&done.written).map(|((name, content), written)| Output {
        name,
        content,
        stamp: match &written.metadata {
            Some(metadata) if written.differed => Stamp::of(metadata),
            // Somebody else wrote it, perhaps just now.
            Some(metadata) => Stamp::settled(metadata, done.start),
            None => Stamp::NONE,
        },
    });
    Made {
        from: unit.resolved,
        value: unit.value,
        recipe: done.recipe,
        partials: done.partials,
        size: done.size,
        outputs: outputs.collect(),
        bundle: done.bundle.digest.to_bytes(),
        module: done.bundle.module.to_bytes(),
        at: i64::try_from(since.as_secs()).unwrap_or_default(),
        why,
        before: before.map(|before| (before.from, before.value, before.recipe)),
    }
}

enum Broken {
    Diagnostic(Box<Diagnostic>),
    Failure(Failure),
}

/// Renders one worker and writes its folder.
fn render(project: &Project, recipes: &Recipes<'_>, worker: &Worker, out: &Out) -> Result<Done, Broken> {
    let span = trace::span("render", &worker.name);
    let start = SystemTime::now();
    render::partials_read();
    let templates = &project.templates[&worker.pack];
    let mut scene = Scene::new(worker, &recipes.runtimes[&worker.pack].specifier(worker));
    let (module, bundle) = made_module(project, recipes.runtimes, &mut scene, worker).map_err(Broken::Diagnostic)?;
    let size = module.len() as u64;
    if let Some(diagnostic) = recipes.room.check(&worker.file, &worker.pack, &worker.account, size) {
        return Err(Broken::Diagnostic(diagnostic));
    }
    let pack = &project.fleet.packs[&worker.pack];
    let mut files = vec![(pack.module(), module)];
    for name in pack.file_names().filter(|name| *name != pack.module()) {
        let text = templates.render_scene(name, &mut scene, Some(&bundle.digest)).map_err(Broken::Diagnostic)?;
        files.push((name, text));
    }
    let partials = render::partials_read();
    let bytes: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    drop(span);
    let _span = trace::span("write", &worker.name);
    let written = out.write_folder(&worker.folder(), &bytes).map_err(Broken::Failure)?;
    let module_mark = bundle.module.mark();
    let mark =
        |name: &str, text: &str| if name == pack.module() { module_mark } else { Digest::of(text.as_bytes()).mark() };
    Ok(Done {
        start,
        recipe: recipes.of(&worker.pack, partials),
        partials,
        size,
        files: files.iter().map(|(name, text)| ((*name).to_owned(), mark(name, text))).collect(),
        written,
        bundle,
    })
}

/// Renders a worker's module and makes its bundle.
pub fn module(project: &Project, runtimes: &Runtimes, worker: &Worker) -> Result<(String, Bundle), Box<Diagnostic>> {
    let mut scene = Scene::new(worker, &runtimes[&worker.pack].specifier(worker));
    made_module(project, runtimes, &mut scene, worker)
}

fn made_module(
    project: &Project,
    runtimes: &Runtimes,
    scene: &mut Scene<'_>,
    worker: &Worker,
) -> Result<(String, Bundle), Box<Diagnostic>> {
    let runtime = &runtimes[&worker.pack];
    let name = project.fleet.packs[&worker.pack].module();
    let module = project.templates[&worker.pack].render_scene(name, scene, None)?;
    let bundle = bundle::bundle(worker, &module, runtime);
    Ok((module, bundle))
}

/// Removes what no worker owns. A customer with errors keeps its folders, and so do all runtimes as long as one
/// might import them.
fn prune(
    project: &Project,
    survey: &Survey,
    runtimes: &Runtimes,
    out: &Out,
    scope: &Scope<'_>,
    built: &mut Built,
) -> Result<(), Failure> {
    let settled = |folder: &str| {
        let now = SystemTime::now();
        out.folder(folder).map(|metadata| Stamp::settled(&metadata, now))
    };
    // Names come and go in a folder with its stamp; what lies deeper is pruned when a customer changed.
    let quiet = |folder: &str| match settled(folder) {
        Some(now) => survey.manifest.folders.get(folder).is_some_and(|stamp| stamp.same(now)),
        None => true,
    };
    let open: Vec<Environment> =
        Environment::ALL.into_iter().filter(|environment| survey.changed || !quiet(environment.as_str())).collect();
    let mut owned: HashSet<String> = HashSet::new();
    let mut names: HashSet<String> = HashSet::new();
    if !open.is_empty() {
        for record in &survey.records {
            for unit in &record.units {
                owned.insert(customer::folder(unit.environment, id(record), unit.role.as_deref()));
            }
        }
        for customer in &survey.held {
            owned.extend(Environment::ALL.iter().map(|environment| format!("{environment}/{customer}/")));
        }
        names = project.fleet.packs.values().flat_map(|pack| pack.file_names().map(str::to_owned)).collect();
        names.extend(survey.manifest.recipes.values().flat_map(|recipe| recipe.files.iter().cloned()));
    }
    for environment in open {
        built.removed += out.prune(environment, &owned, &names)?;
        if let Some(stamp) = settled(environment.as_str())
            && !scope.dry
        {
            survey.writer.folder(environment.as_str(), stamp);
        }
    }
    if survey.held.is_empty() && built.diagnostics.is_empty() {
        let keep = runtimes
            .values()
            .map(|runtime| runtime.file.trim_start_matches("runtime/").trim_end_matches(".js").to_owned())
            .collect();
        built.removed += out.prune_runtimes(&keep)?;
    }
    Ok(())
}

/// The fleet with all of its workers in memory: for what looks at each of them.
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Its customers.
    pub survey: Survey,
    /// The workers of all valid customers, sorted by environment and customer.
    pub workers: Vec<Worker>,
}

/// Opens and surveys a project, and reads all workers; writes nothing.
pub fn load(root: &Path, progress: &dyn Progress) -> Result<Loaded, Vec<Diagnostic>> {
    let project = open(Tree::new(root), progress)?;
    let mut survey = survey(&project, false, progress)?;
    let workers = survey.workers(&project);
    Ok(Loaded { project, survey, workers })
}
