//! Scans one customer at a time: whether its record still holds, and otherwise what its files resolve to now. Knows nothing of the
//! other customers.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Project;
use crate::manifest::{Input, Record, Stamp, Unit, Writer};
use crate::policy::Judged;
use crate::resolve::UniqueClaim;
use crate::usage::WorkerUsage;
use flotilla_model::bundle;
use flotilla_model::customer::{self, SHARED, Worker};
use flotilla_model::diagnostic::{Diagnostic, Severity};
use flotilla_model::digest::{Digest, ShortHash};
use flotilla_model::names::without_own;
use flotilla_model::trace;
use flotilla_spec::project::{self, FLEET_FILE, Fleet, id_of};
use flotilla_spec::tree::Tree;

/// Returns the id of the customer that a record is about.
pub fn id(record: &Record) -> &str {
    match record.file() {
        FLEET_FILE => SHARED,
        file => project::id_of(file),
    }
}

/// The result of scanning one customer.
pub(super) struct Scanned {
    pub(super) record: Record,
    pub(super) is_dirty: bool,
    /// The folders under out/ of workers that it had and no longer has.
    pub(super) orphaned: Vec<String>,
    /// `None` for most customers.
    pub(super) findings: Option<Box<Findings>>,
}

impl Scanned {
    /// Returns a customer that resolves to what is known already.
    fn known(record: Record, is_dirty: bool) -> Scanned {
        Scanned { record, is_dirty, orphaned: Vec::new(), findings: None }
    }
}

/// The findings about a customer.
#[derive(Default)]
pub(super) struct Findings {
    /// The id that is written in the file, if it isn't that of the file's name.
    pub(super) other_id: Option<String>,
    /// Whether the file can't be read at all.
    pub(super) is_unreadable: bool,
    /// Whether it isn't known which layers it uses.
    pub(super) is_open: bool,
    /// The broken packs and layers that its workers need.
    pub(super) broken_parts: BTreeSet<String>,
    pub(super) judged: Judged,
}

/// Context digests by the layers that they are made of: most customers use one of few sets.
#[derive(Default)]
struct Contexts(Mutex<HashMap<Vec<String>, Option<ShortHash>>>);

impl Contexts {
    fn of(&self, project: &Project, layers: &[String]) -> Option<ShortHash> {
        let mut known = self.0.lock();
        match known.get(layers) {
            Some(hash) => *hash,
            None => *known.entry(layers.to_vec()).or_insert(project.context(layers)),
        }
    }
}

/// Scans customers one by one, in any thread.
pub(super) struct Scanner<'a> {
    project: &'a Project,
    writer: &'a Writer,
    contexts: Contexts,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(project: &'a Project, writer: &'a Writer) -> Scanner<'a> {
        Scanner { project, writer, contexts: Contexts::default() }
    }

    /// Scans one customer: reads its files if their stamps moved, and resolves it if anything that decides the result did.
    pub(super) fn scan_customer(&self, file: &str, known: Option<Record>) -> Scanned {
        let tree = &self.project.tree;
        let reusable = known
            .as_ref()
            .filter(|record| !record.has_diagnostics && self.is_in_context(record) && self.has_packs(record));
        let stamps = reusable.map(|record| self.stamps(record));
        let known = match (known, &stamps) {
            (Some(record), Some(stamps)) if self.is_untouched(&record, stamps) => {
                return Scanned::known(record, false);
            }
            (known, _) => known,
        };
        // The stamp is that of before the file was read: what changes meanwhile is seen next time.
        let start = SystemTime::now();
        let stamp = stamp_at(tree, file, start);
        let bytes = match tree.plain(file) {
            Ok(bytes) => bytes,
            Err(diagnostic) => return self.unreadable(file, known, *diagnostic),
        };
        let input = Input { file: file.to_owned(), stamp, content: Some(Digest::of(&bytes).short_hash()) };
        if let (Some(record), Some(stamps)) = (&known, stamps)
            && let Some(record) = self.restamped(record, &input, &stamps)
        {
            return Scanned::known(record, true);
        }
        self.resolve(input, &bytes, start, known.as_ref())
    }

    /// Returns whether the packs of a record's workers can be used. A template that can't be parsed changes nothing that decides what a
    /// spec resolves to, and its customers are held all the same.
    fn has_packs(&self, record: &Record) -> bool {
        record.units.iter().all(|unit| self.project.fleet.packs.contains_key(&unit.pack))
    }

    fn is_in_context(&self, record: &Record) -> bool {
        self.contexts.of(self.project, &record.layers) == Some(record.context)
    }

    fn stamps(&self, record: &Record) -> Vec<Stamp> {
        record.inputs.iter().map(|input| stamp(&self.project.tree, &input.file)).collect()
    }

    /// Returns whether the stamps show that no input of a record changed.
    fn is_untouched(&self, record: &Record, stamps: &[Stamp]) -> bool {
        record.inputs.iter().zip(stamps).all(|(input, now)| match input.content {
            Some(_) => input.stamp.same(*now),
            None => *now == Stamp::NONE && !self.project.tree.has(&input.file),
        })
    }

    /// Returns the record of a customer whose files have other stamps and the same bytes, with these stamps.
    fn restamped(&self, record: &Record, spec: &Input, stamps: &[Stamp]) -> Option<Record> {
        let tree = &self.project.tree;
        if record.inputs.first()?.content != spec.content {
            return None;
        }
        let mut record = record.clone();
        record.inputs[0].stamp = spec.stamp;
        for (input, now) in record.inputs.iter_mut().zip(stamps).skip(1) {
            // A file that exists and can't be read has to be reported.
            let is_same = match tree.has(&input.file) {
                true => {
                    tree.plain(&input.file).is_ok_and(|bytes| Some(Digest::of(&bytes).short_hash()) == input.content)
                }
                false => input.content.is_none(),
            };
            if !is_same {
                return None;
            }
            input.stamp = *now;
        }
        Some(record)
    }

    fn unreadable(&self, file: &str, known: Option<Record>, diagnostic: Diagnostic) -> Scanned {
        let record = Record {
            inputs: vec![Input { file: file.to_owned(), stamp: Stamp::NONE, content: None }],
            has_diagnostics: true,
            context: ShortHash::default(),
            layers: Vec::new(),
            labels: Vec::new(),
            claims: Vec::new(),
            accounts: known.as_ref().map(|record| record.accounts.clone()).unwrap_or_default(),
            secrets: Vec::new(),
            units: known.map(|record| record.units).unwrap_or_default(),
        };
        let judged = self.project.policy.judge(Some(project::id_of(file)), vec![diagnostic]);
        let findings = Findings { is_unreadable: true, judged, ..Findings::default() };
        Scanned { record, is_dirty: true, orphaned: Vec::new(), findings: Some(Box::new(findings)) }
    }

    /// Reads and resolves a customer. `start`: the time before its first file was read.
    fn resolve(&self, spec: Input, bytes: &[u8], start: SystemTime, known: Option<&Record>) -> Scanned {
        let project = self.project;
        let file = spec.file.clone();
        let _span = trace::span("read and resolve", &file);
        let (reading, mut resolved) = project.resolve(&file, bytes);
        let mut inputs = vec![spec];
        let (mut layers, mut labels, mut other_id) = (Vec::new(), Vec::new(), None);
        if let Some(spec) = &reading.spec {
            labels = project::labels(&project.fleet, &spec.identity).into_iter().collect();
            layers = spec.layers.iter().map(|index| project.fleet.layers[*index].name.clone()).collect();
            other_id = spec.written.clone();
            inputs.extend(spec.env_files.iter().map(|file| Input {
                file: file.file.clone(),
                // Which they are is known only after they were read; what changed since the start isn't settled.
                stamp: stamp_at(&project.tree, &file.file, start),
                content: file.bytes.as_ref().map(|bytes| Digest::of(bytes).short_hash()),
            }));
        }
        inputs.append(&mut resolved.asset_inputs);
        // With a broken pack or layer, too, the customer is resolved again the next time.
        let has_diagnostics = !reading.diagnostics.is_empty() || !resolved.broken_parts.is_empty();
        let is_held = |judged: &Judged| has_errors(judged) || !resolved.broken_parts.is_empty();
        let judged = project.policy.judge(Some(project::id_of(&file)), reading.diagnostics);
        let context = self.contexts.of(project, &layers).unwrap_or_default();
        let old = known.map(|record| record.units.clone()).unwrap_or_default();
        let claims = claims(&resolved.claims);
        let secrets = secrets(id_of(&file), &resolved.workers);
        let mut accounts: Vec<_> = resolved.accounts.into_iter().map(|own| (own.name, own.own)).collect();
        let units = match is_held(&judged) {
            true => {
                // Its workers stay where they are.
                if accounts.is_empty() {
                    accounts = known.map(|record| record.accounts.clone()).unwrap_or_default();
                }
                old
            }
            false => units(&project.fleet, &resolved.workers, old, self.writer),
        };
        let record = Record { inputs, context, layers, labels, has_diagnostics, claims, accounts, secrets, units };
        let is_reported = has_diagnostics || other_id.is_some();
        let is_unreadable = reading.spec.is_none();
        let is_open = reading.spec.as_ref().is_some_and(|spec| spec.is_open || !spec.open_layers.is_empty());
        let is_reported = is_reported || is_open;
        let findings = Findings { other_id, is_unreadable, is_open, broken_parts: resolved.broken_parts, judged };
        Scanned {
            // A customer with diagnostics is read each time, mostly with the same result.
            is_dirty: known != Some(&record),
            orphaned: orphaned(known, &record),
            record,
            findings: is_reported.then(|| Box::new(findings)),
        }
    }

    /// Scans the workers that all customers share: resolved each time, as there are few.
    pub(super) fn scan_shared(&self, known: Option<Record>) -> Option<Scanned> {
        let project = self.project;
        let resolved = &project.shared.resolved;
        if resolved.workers.is_empty() && resolved.diagnostics.is_empty() && resolved.broken_parts.is_empty() {
            return None;
        }
        let old = known.as_ref().map(|record| record.units.clone()).unwrap_or_default();
        let record = Record {
            inputs: vec![Input { file: FLEET_FILE.to_owned(), stamp: Stamp::NONE, content: None }],
            context: ShortHash::default(),
            layers: Vec::new(),
            labels: Vec::new(),
            has_diagnostics: true,
            claims: claims(&resolved.claims),
            accounts: Vec::new(),
            secrets: Vec::new(),
            units: match resolved.broken_parts.is_empty() {
                true => units(&project.fleet, &resolved.workers, old, self.writer),
                false => old,
            },
        };
        let judged = project.policy.judge(None, resolved.diagnostics.clone());
        let findings = Findings { broken_parts: resolved.broken_parts.clone(), judged, ..Findings::default() };
        Some(Scanned {
            is_dirty: known.as_ref() != Some(&record),
            orphaned: orphaned(known.as_ref(), &record),
            record,
            findings: Some(Box::new(findings)),
        })
    }
}

/// Returns the folders of workers that a customer had and no longer has.
fn orphaned(known: Option<&Record>, now: &Record) -> Vec<String> {
    let has =
        |unit: &&Unit| now.units.iter().any(|other| other.environment == unit.environment && other.role == unit.role);
    known.into_iter().flat_map(|known| &known.units).filter(|unit| !has(unit)).map(|unit| folder(now, unit)).collect()
}

/// Returns the folder under out/ of a customer's worker.
pub(super) fn folder(record: &Record, unit: &Unit) -> String {
    customer::folder(unit.environment, id(record), unit.role.as_deref())
}

pub(super) fn has_errors(judged: &Judged) -> bool {
    judged.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
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

/// Returns the digests of a customer's claims. A resource that its workers may share is there once.
fn claims(claims: &[UniqueClaim]) -> Vec<u64> {
    let digests = |shared: bool| {
        claims.iter().filter(move |claim| claim.resource.is_customers() == shared).map(|claim| claim.resource.digest())
    };
    let mut all: Vec<u64> = digests(false).collect();
    let (own, shared): (BTreeSet<u64>, BTreeSet<u64>) = (all.iter().copied().collect(), digests(true).collect());
    all.extend(shared.difference(&own));
    all
}

/// Returns the digests of the names of a customer's secrets, without the customer's prefix.
fn secrets(customer: &str, workers: &[Worker]) -> Vec<u64> {
    let names = workers.iter().flat_map(|worker| worker.secrets.values());
    let digests: BTreeSet<u64> = names.map(|name| secret_digest(without_own(customer, name))).collect();
    digests.into_iter().collect()
}

/// Returns a digest of the name of a secret.
pub(super) fn secret_digest(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Returns the units of resolved workers, each with the record of its last rendering.
fn units(fleet: &Fleet, workers: &[Worker], mut old: Vec<Unit>, writer: &Writer) -> Vec<Unit> {
    workers
        .iter()
        .zip(WorkerUsage::all(fleet, workers))
        .map(|(worker, usage)| {
            let json = serde_json::to_vec(worker).expect("BUG: a worker is JSON");
            let resolved = Digest::of(&json).short_hash();
            let same = |unit: &Unit| unit.environment == worker.environment && unit.role == worker.role;
            let before = old.iter().position(same).map(|index| old.swap_remove(index));
            let value = match &before {
                Some(before) if before.resolved == resolved => before.value,
                _ => writer.value(&json),
            };
            Unit {
                environment: worker.environment,
                role: worker.role.clone(),
                pack: worker.pack.clone(),
                variant: match fleet.packs.get(&worker.pack).is_some_and(|pack| pack.wrangler.is_some()) {
                    true => bundle::compatibility(worker),
                    false => ShortHash::default(),
                },
                resolved,
                value,
                compatibility_date: worker.compatibility_date.replace('-', "").parse().unwrap_or_default(),
                usage,
                rendered: before.and_then(|before| before.rendered),
            }
        })
        .collect()
}
