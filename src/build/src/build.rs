//! The left half of the line: from files to bundles, make-style. Scans all customers, decides what is out of date, renders
//! that and writes out/, in parallel over customers; the manifest of earlier builds decides what can be skipped. Knows no
//! platform, no state and no secrets.
//!
//! Three passes over the fleet, none of which keeps more of a customer than its record:
//!
//! 1. *Scan.* A customer's files are read if their stamps moved, and resolved if their bytes or the fleet's did. The
//!    resolved workers go to the file of values.
//! 2. *Checks across the fleet*, on what each customer claims and counts.
//! 3. *Build.* A worker is rendered if what it is rendered from, or by, isn't what its files were made of, or if its files
//!    aren't what was written.

mod accounts;
mod declared;
mod dirty;
mod environments;
mod explain;
mod files;
pub mod future_dates;
mod open;
mod project;
mod scan;
mod scanner;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use crate::assets;
use crate::index::UnitIndex;
use crate::manifest::{DirtyReason, Input, Output, Record, Stamp, Unit};
use crate::out::{self, Out};
use crate::pack_bundle;
use crate::renderer::{Part, Rendered, Request};
use crate::syntax;
use crate::wrangler_bundle::{Compatibility, wrangler_bundle};
use dirty::{Recipes, dirty_reasons};
use files::Done;
use flotilla_model::assets::PackAssets;
use flotilla_model::bundle::{PackBundle, compatibility};
use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic, Place, sorted};
use flotilla_model::digest::ShortHash;
use flotilla_model::failure::Failure;
use flotilla_model::limits::Limit;
use flotilla_model::modules::ModuleKind;
use flotilla_model::progress::Progress;
use flotilla_model::reason::Reason;
use flotilla_model::spec::Environment;
use flotilla_model::trace;
use flotilla_spec::pack::{AssetSource, Pack};
use flotilla_spec::project::FLEET_FILE;
use flotilla_spec::tree::Tree;

pub use accounts::own_accounts;
pub use declared::{missing_code, not_in_specs};
pub use explain::{Explained, LiveTriggers, explain, recipe, since, source};
pub use files::{RenderedFiles, files, module};
pub use open::{open, open_preview};
pub use project::Project;
pub use scan::{Scan, scan};
pub use scanner::id;

/// The bundles of packs, by the pack's name and the variant.
#[derive(Clone, Default)]
pub struct PackBundles(HashMap<String, HashMap<ShortHash, PackBundle>>);

impl PackBundles {
    /// Returns the bundle of a pack in one variant. It must be there.
    pub fn get(&self, pack: &str, variant: ShortHash) -> &PackBundle {
        self.find(pack, variant).expect("BUG: the bundle of a worker that is built was made")
    }

    /// Returns the bundle of a pack in one variant, if it was made.
    pub fn find(&self, pack: &str, variant: ShortHash) -> Option<&PackBundle> {
        self.0.get(pack)?.get(&variant)
    }

    /// Returns the bundle of a worker. It must be there.
    pub fn of(&self, worker: &Worker) -> &PackBundle {
        self.get(&worker.pack, self.variant(worker))
    }

    /// Returns the variant of its pack's bundle that a worker has.
    pub fn variant(&self, worker: &Worker) -> ShortHash {
        let none = ShortHash::default();
        let is_one = self.0.get(&worker.pack).is_none_or(|variants| variants.contains_key(&none));
        if is_one { none } else { compatibility(worker) }
    }

    /// Adds the bundle of a pack in one variant.
    pub fn insert(&mut self, pack: &str, variant: ShortHash, bundle: PackBundle) {
        self.0.entry(pack.to_owned()).or_default().insert(variant, bundle);
    }

    /// Returns all bundles, each with its pack's name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PackBundle)> {
        self.0.iter().flat_map(|(name, variants)| variants.values().map(move |bundle| (name.as_str(), bundle)))
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bundles of packs that have one variant.
impl FromIterator<(String, PackBundle)> for PackBundles {
    fn from_iter<I: IntoIterator<Item = (String, PackBundle)>>(bundles: I) -> PackBundles {
        let mut all = PackBundles::default();
        bundles.into_iter().for_each(|(pack, bundle)| all.insert(&pack, ShortHash::default(), bundle));
        all
    }
}

/// Returns the bundles of the packs that these workers use: from the cache, or built now. A pack that can't be bundled holds back its
/// customers, or those of one compatibility date and set of flags; it is an error if that leaves no customer.
pub fn pack_bundles(
    project: &Project,
    scan: &mut Scan,
    includes: &dyn Fn(&Record, &Unit) -> bool,
    progress: &dyn Progress,
) -> Result<PackBundles, Failure> {
    let mut used: BTreeMap<(&str, ShortHash), Option<Compatibility>> = BTreeMap::new();
    for record in scan.records.iter().filter(|record| !scan.is_held(record)) {
        for unit in &record.units {
            let key = (unit.pack.as_str(), unit.variant);
            if used.contains_key(&key) || !includes(record, unit) {
                continue;
            }
            let is_wrangler = unit.variant != ShortHash::default();
            let worker = if is_wrangler { scan.worker(project, record, unit) } else { None };
            if is_wrangler && worker.is_none() {
                // The spec has changed in the meantime; the next build sees that.
                continue;
            }
            let compatibility =
                |worker: Worker| Compatibility { date: worker.compatibility_date, flags: worker.compatibility_flags };
            used.insert(key, worker.map(compatibility));
        }
    }
    let mut accounts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in scan.records.iter().filter(|record| !scan.is_held(record)) {
        for unit in record.units.iter().filter(|unit| project.fleet.packs[&unit.pack].assets.is_some()) {
            if includes(record, unit) {
                accounts.entry(unit.pack.as_str()).or_default().insert(unit.usage.account());
            }
        }
    }
    let mut assets: BTreeMap<&str, Result<PackAssetsInUse, Vec<Diagnostic>>> = BTreeMap::new();
    let (mut bundles, mut failure) = (PackBundles::default(), None);
    let mut errors: BTreeMap<String, (BTreeSet<ShortHash>, Vec<Diagnostic>)> = BTreeMap::new();
    for ((name, variant), compatibility) in used {
        let pack = &project.fleet.packs[name];
        let fleet = &project.fleet.file.name;
        let bundled = match (&pack.wrangler, &compatibility) {
            // Without code, wrangler has nothing to bundle; but a command of the project can make the assets.
            (Some(wrangler), Some(compatibility)) if wrangler.main.is_none() => match &wrangler.build {
                Some(_) => wrangler_bundle(fleet, pack, wrangler, compatibility, progress)
                    .map(|bundle| PackBundle { sources: bundle.sources, ..PackBundle::without_code() }),
                None => Ok(PackBundle::without_code()),
            },
            (Some(wrangler), Some(compatibility)) => wrangler_bundle(fleet, pack, wrangler, compatibility, progress),
            _ if pack.assets.as_ref().is_some_and(|assets| assets.is_all) => Ok(PackBundle::without_code()),
            _ => pack_bundle::pack_bundle(fleet, name, pack, progress),
        };
        let mut add = |found: Vec<Diagnostic>| {
            let (variants, errors) = errors.entry(name.to_owned()).or_default();
            variants.insert(variant);
            found.into_iter().for_each(|error| {
                if !errors.contains(&error) {
                    errors.push(error)
                }
            });
        };
        match bundled {
            Ok(bundle) => {
                // After the code, as what makes that can make these as well.
                let found = pack.assets.as_ref().map(|source| {
                    let all = accounts.get(name).into_iter().flatten();
                    let most = all.map(|account| project.fleet.limit(account, Limit::AssetFiles)).min();
                    assets
                        .entry(name)
                        .or_insert_with(|| PackAssetsInUse::read(source, most.unwrap_or(u64::MAX)))
                        .clone()
                });
                let mut errors = missing_classes(pack, &bundle);
                match found.transpose() {
                    Ok(found) if errors.is_empty() => bundles.insert(name, variant, with_assets(bundle, found)),
                    Ok(_) => add(errors),
                    Err(more) => {
                        errors.extend(more);
                        add(errors);
                    }
                }
            }
            Err(pack_bundle::Error::Diagnostics(found)) => add(found),
            Err(pack_bundle::Error::Failure(found)) => {
                let help = found.hints.first().map_or("the other packs are built all the same", String::as_str);
                let place = Place::file(&format!("{}/pack.yaml", pack.path));
                add(vec![Diagnostic::error(Code::RuntimeFailed, place, found.to_string(), help)]);
                failure.get_or_insert(found);
            }
        }
    }
    match failure {
        // It isn't the packs' fault, and nothing can be built.
        Some(failure) if bundles.is_empty() => Err(failure),
        _ => scan.block(errors).map(|()| bundles).map_err(Failure::invalid),
    }
}

/// The static assets of a pack, and the names of the files that they are.
#[derive(Clone)]
struct PackAssetsInUse {
    assets: Arc<PackAssets>,
    files: Arc<[(String, u32)]>,
}

impl PackAssetsInUse {
    fn read(source: &AssetSource, most: u64) -> Result<PackAssetsInUse, Vec<Diagnostic>> {
        let assets = assets::pack_assets(source, most)?;
        let files = assets::named(&source.shown, &assets.list).into_iter().take(MOST_NAMED).collect();
        Ok(PackAssetsInUse { assets: assets.into(), files })
    }
}

/// The most files of a pack's assets that are remembered to explain what changed, as each deployed worker keeps them.
const MOST_NAMED: usize = 2000;

fn with_assets(bundle: PackBundle, found: Option<PackAssetsInUse>) -> PackBundle {
    match found {
        Some(PackAssetsInUse { assets, files }) => PackBundle { assets: Some(assets), asset_files: files, ..bundle },
        None => bundle,
    }
}

/// Returns the errors in the static assets of packs that workers use: for checks, which make no bundles. Where a command of the project makes
/// them, they needn't be there yet.
pub fn asset_errors(project: &Project, scan: &Scan) -> Vec<Diagnostic> {
    let used: BTreeSet<&str> =
        scan.records.iter().flat_map(|record| &record.units).map(|unit| unit.pack.as_str()).collect();
    let mut errors = Vec::new();
    for (name, pack) in project.fleet.packs.iter().filter(|(name, _)| used.contains(name.as_str())) {
        let Some(source) = &pack.assets else { continue };
        let is_made = pack.wrangler.as_ref().is_some_and(|wrangler| wrangler.build.is_some());
        if is_made && source.folder.as_ref().is_some_and(|folder| !folder.exists()) {
            continue;
        }
        let units = scan.records.iter().flat_map(|record| &record.units).filter(|unit| unit.pack == *name);
        let limits = units.map(|unit| project.fleet.limit(unit.usage.account(), Limit::AssetFiles));
        errors.extend(assets::pack_assets(source, limits.min().unwrap_or(u64::MAX)).err().into_iter().flatten());
    }
    errors
}

/// Returns the files and folders of customers' own static assets, from the project's root.
pub fn asset_inputs(scan: &Scan) -> impl Iterator<Item = &str> {
    scan.records
        .iter()
        .flat_map(|record| &record.inputs)
        .filter(|input| is_asset_input(input))
        .map(|input| input.file.as_str())
}

/// Returns whether an input is of a folder with static assets: what its bytes are, the worker itself says.
fn is_asset_input(input: &Input) -> bool {
    input.content == Some(ShortHash::default())
}

/// Returns an error for each Durable Object class of a pack that its bundle doesn't export, as far as that is known.
fn missing_classes(pack: &Pack, bundle: &PackBundle) -> Vec<Diagnostic> {
    let Some(modules) = &bundle.modules else { return Vec::new() };
    let main = modules.list.iter().find(|module| module.name == modules.main && module.kind == ModuleKind::Esm);
    let text = main.and_then(|main| std::str::from_utf8(&main.bytes).ok());
    let Some(exports) = text.and_then(syntax::exports) else { return Vec::new() };
    let missing = pack.objects.classes().into_iter().filter(|class| !exports.contains(*class));
    let error = |class: &str| {
        let place = pack.objects.place_of(class).cloned();
        let place = place.unwrap_or_else(|| Place::file(&format!("{}/pack.yaml", pack.path)));
        let message = format!("the code doesn't export the Durable Object class `{class}`");
        let help =
            "export the class from the main module: `export { CLASS } from …`; or delete or rename it with a migration";
        Diagnostic::error(Code::MissingClass, place, message, help.replace("CLASS", class))
    };
    missing.map(error).collect()
}

/// The part of the fleet that a build is for.
pub struct Scope<'a> {
    /// Returns whether a worker belongs to it, by its customer's record and its unit.
    pub includes: &'a (dyn Fn(&Record, &Unit) -> bool + Sync),
    /// Whether it is the whole fleet, so that orphaned files are removed.
    pub whole: bool,
    /// Whether changes are only counted, and nothing is written.
    pub dry: bool,
    /// Whether the reasons of each rendering are reported.
    pub explain: bool,
}

/// The result of a build.
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
    /// The reasons of each rendering, if they were requested: the worker's folder, and the reasons in the author's
    /// terms.
    pub reasons: Vec<(String, Vec<Reason>)>,
    /// The errors in templates.
    pub diagnostics: Vec<Diagnostic>,
    /// The error because of which the manifest could not be written.
    pub forgotten: Option<std::io::Error>,
}

impl Built {
    fn add(&mut self, mut other: Built) {
        self.workers += other.workers;
        self.rendered += other.rendered;
        self.unchanged += other.unchanged;
        self.written += other.written;
        self.removed += other.removed;
        self.failed.append(&mut other.failed);
        self.reasons.append(&mut other.reasons);
        self.diagnostics.append(&mut other.diagnostics);
    }

    /// Counts a worker as one that could not be built.
    fn fail(&mut self, customer: &str, diagnostic: Diagnostic) {
        self.workers -= 1;
        self.diagnostics.push(diagnostic);
        self.failed.insert(customer.to_owned());
    }
}

/// Builds what is out of date.
pub fn build(
    project: &Project,
    scan: &mut Scan,
    bundles: &PackBundles,
    scope: &Scope<'_>,
    progress: &dyn Progress,
) -> Result<Built, Failure> {
    let out = Out::new(project.output_root(), scope.dry);
    let quiet = quiet_environments(project, scan, &out);
    let written = write_bundles(bundles, &out)? + write_assets(project, scan, bundles, &out)?;
    let mut built = Built { written, ..Built::default() };
    let mut records = std::mem::take(&mut scan.records);
    let builder = Builder { project, scan, recipes: Recipes::new(project, scan, bundles), out: &out, scope };
    let result = builder.customers(&mut records, progress);
    drop(builder);
    scan.records = records;
    match result {
        Ok(of_customers) => built.add(of_customers),
        Err(failure) => {
            // Completed work is recorded anyway.
            scan.writer.settle();
            return Err(failure);
        }
    }
    let is_whole = scope.whole && !scan.unread;
    if is_whole {
        let removed = prune_workers(project, scan, &out, &quiet)?;
        if removed > 0 && !scope.dry {
            scan.writer.wrote();
        }
        built.removed += removed;
        if scan.held.is_empty() && built.diagnostics.is_empty() {
            built.removed += prune_bundles(bundles, &out)?;
        }
    }
    built.diagnostics = sorted(std::mem::take(&mut built.diagnostics));
    built.forgotten = scan.writer.settle();
    if is_whole && !scope.dry {
        remember_folders(project, scan, &out, &quiet);
        built.forgotten = built.forgotten.take().or(scan.writer.settle());
    }
    if !scope.dry {
        scan.dirty.fill(false);
        scan.is_dirty = false;
    }
    built.reasons.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(built)
}

/// Returns the environments whose folders under out/ are this build's: those that are there, and the usual ones.
fn environments(project: &Project, out: &Out) -> BTreeSet<Environment> {
    match project.fleet.preview {
        Some(_) => BTreeSet::from([Environment::Preview]),
        None => out.environments().chain(Environment::USUAL).collect(),
    }
}

/// Returns the environments whose folder under out/ hasn't changed since it was known to have no orphaned files.
fn quiet_environments(project: &Project, scan: &Scan, out: &Out) -> Vec<Environment> {
    let is_quiet = |environment: &Environment| match folder_stamp(out, *environment) {
        Some(now) => scan.manifest.folders.get(environment.as_ref()).is_some_and(|stamp| stamp.same(now)),
        None => true,
    };
    environments(project, out).into_iter().filter(is_quiet).collect()
}

fn folder_stamp(out: &Out, environment: Environment) -> Option<Stamp> {
    out.folder(environment.as_ref()).map(|found| Stamp::of(&found))
}

/// Writes the packs' bundles; returns the number of files that differed.
fn write_bundles(bundles: &PackBundles, out: &Out) -> Result<usize, Failure> {
    let mut differed = 0;
    for (_, bundle) in bundles.iter() {
        let mut folders: BTreeMap<String, Vec<(String, &[u8])>> = BTreeMap::new();
        for (path, bytes) in bundle.files() {
            let (folder, file) = path.rsplit_once('/').expect("BUG: a runtime has a folder");
            folders.entry(folder.to_owned()).or_default().push((file.to_owned(), bytes));
        }
        for (folder, files) in folders {
            let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
            let written = out.write_folder(&folder, &files)?;
            differed += written.iter().filter(|written| written.differed).count();
        }
    }
    Ok(differed)
}

/// Writes the static assets of packs, and of workers with files of their own; returns the number of files that differed.
fn write_assets(project: &Project, scan: &Scan, bundles: &PackBundles, out: &Out) -> Result<usize, Failure> {
    let mut differed = 0;
    let shared: BTreeMap<String, &PackAssets> = bundles
        .iter()
        .filter_map(|(_, bundle)| bundle.assets.as_deref())
        .filter(|assets| assets.folder.is_some())
        .map(|assets| (out::shared_assets(&assets.digests), assets))
        .collect();
    for (folder, assets) in shared {
        let from = assets.folder.as_ref().expect("BUG: those without a folder are left out");
        differed +=
            out.write_assets(&folder, &assets.list, assets::list_of, |path| from.join(path.trim_start_matches('/')))?;
    }
    let has_assets = |unit: &&Unit| project.fleet.packs.get(&unit.pack).is_some_and(|pack| pack.assets.is_some());
    let units: Vec<(&Record, &Unit)> = scan
        .records
        .iter()
        .filter(|record| !scan.is_held(record))
        .flat_map(|record| record.units.iter().filter(has_assets).map(move |unit| (record, unit)))
        .collect();
    let written = units.par_iter().map(|(record, unit)| -> Result<usize, Failure> {
        let folder = scanner::folder(record, unit);
        // The files of a folder of its own are inputs; what all share is read each time.
        if record.file() != FLEET_FILE && !record.inputs.iter().any(is_asset_input) {
            return out.remove_own_assets(&folder);
        }
        let bundle = bundles.find(&unit.pack, unit.variant);
        let (Some(pack), Some(worker)) =
            (bundle.and_then(|bundle| bundle.assets.as_ref()), scan.worker(project, record, unit))
        else {
            return Ok(0);
        };
        let Some((assets, own)) = worker.assets.as_ref().and_then(|assets| Some((assets, assets.own.as_ref()?))) else {
            return out.remove_own_assets(&folder);
        };
        let own_folder = project.root().join(&own.directory);
        let locate = |path: &str| {
            let is_own = own.list.files.contains_key(path);
            let from = pack.folder.as_ref().filter(|_| !is_own).unwrap_or(&own_folder);
            from.join(path.trim_start_matches('/'))
        };
        out.write_assets(&format!("{folder}/{}", out::OWN_ASSETS), &pack.list_of(assets), assets::list_of, locate)
    });
    Ok(differed + written.sum::<Result<usize, Failure>>()?)
}

/// Records the stamps of folders that have no orphaned files: the next build needn't look into them.
fn remember_folders(project: &Project, scan: &mut Scan, out: &Out, quiet: &[Environment]) {
    // Once the clock has moved on, later changes leave a trace.
    let has_written = scan.writer.ended();
    // A held customer's orphaned files stay, and are looked for again.
    let held = |folder: &&String| folder.split('/').nth(1).is_some_and(|id| scan.held.contains(id));
    let orphaned: Vec<&String> = scan.orphaned.iter().filter(held).collect();
    let is_clean = |environment: &Environment| {
        let below = format!("{environment}/");
        (scan.held.is_empty() || quiet.contains(environment))
            && !orphaned.iter().any(|folder| folder.starts_with(&below))
    };
    let recorded = |environment: &Environment| scan.manifest.folders.get(environment.as_ref()).copied();
    let clean = environments(project, out).into_iter().filter(is_clean);
    let stamps: Vec<(Environment, Stamp)> = clean
        .filter_map(|environment| Some((environment, folder_stamp(out, environment)?)))
        .filter(|(environment, now)| has_written || recorded(environment) != Some(*now) || !scan.orphaned.is_empty())
        .collect();
    for (environment, now) in stamps {
        scan.writer.folder(environment.as_ref(), now);
        scan.manifest.folders.insert(environment.as_ref().to_owned(), now);
    }
    scan.orphaned.clear();
}

/// The number of customers whose workers are rendered together.
const BATCH: usize = 32;

/// A worker that is to be rendered.
struct Pending {
    /// The position of its customer's record in the batch.
    position: usize,
    index: UnitIndex,
    worker: Worker,
    reasons: Vec<DirtyReason>,
}

/// Builds customers, in any thread.
struct Builder<'a> {
    project: &'a Project,
    scan: &'a Scan,
    recipes: Recipes<'a>,
    out: &'a Out,
    scope: &'a Scope<'a>,
}

impl Builder<'_> {
    fn customers(&self, records: &mut [Record], progress: &dyn Progress) -> Result<Built, Failure> {
        progress.begin("building", Some(records.len() as u64));
        let results: Vec<Result<Built, Failure>> = records
            .par_chunks_mut(BATCH)
            .zip(self.scan.dirty.par_chunks(BATCH))
            .fold(
                || Ok(Built::default()),
                |built: Result<Built, Failure>, (records, dirty)| {
                    let mut built = built?;
                    let result = self.batch(records, dirty, &mut built);
                    progress.step(records.len() as u64);
                    result.map(|()| built)
                },
            )
            .collect();
        progress.end();
        results.into_iter().try_fold(Built::default(), |mut all, result| {
            all.add(result?);
            Ok(all)
        })
    }

    /// Builds the workers of some customers, and records the results. They are rendered together: see [`crate::renderer`].
    fn batch(&self, records: &mut [Record], dirty: &[bool], built: &mut Built) -> Result<(), Failure> {
        let mut is_changed = dirty.to_vec();
        let mut pending = Vec::new();
        for (position, record) in records.iter_mut().enumerate().filter(|(_, record)| !self.scan.is_held(record)) {
            for index in record.unit_indices() {
                if (self.scope.includes)(record, record.unit(index)) {
                    let (restamped, found) = self.look(record, index, built);
                    is_changed[position] |= restamped;
                    pending.extend(found.map(|(worker, reasons)| Pending { position, index, worker, reasons }));
                }
            }
        }
        let result = if pending.is_empty() { Ok(()) } else { self.render(records, &mut is_changed, pending, built) };
        for (record, _) in records.iter().zip(is_changed).filter(|(_, is_changed)| *is_changed) {
            if self.scan.is_persistent && !self.scope.dry {
                self.scan.writer.record(record.clone());
            }
        }
        result
    }

    /// Looks at one worker: returns whether its record changed, and the worker with the reasons if it has to be rendered.
    fn look(
        &self,
        record: &mut Record,
        index: UnitIndex,
        built: &mut Built,
    ) -> (bool, Option<(Worker, Vec<DirtyReason>)>) {
        built.workers += 1;
        let folder = scanner::folder(record, record.unit(index));
        let (reasons, is_restamped) = dirty_reasons(record.unit_mut(index), &folder, &self.recipes, self.out);
        if reasons.is_empty() {
            let unit = record.unit(index);
            let size = unit.rendered.as_ref().map_or(0, |rendering| rendering.size);
            match self.recipes.size_limit.check(record.file(), &unit.pack, unit.usage.account(), size) {
                None => built.unchanged += 1,
                Some(diagnostic) => built.fail(id(record), *diagnostic),
            }
            return (is_restamped, None);
        }
        built.rendered += 1;
        // Without a worker, the spec has changed in the meantime; the next build sees that.
        let worker = self.scan.worker(self.project, record, record.unit(index));
        (is_restamped, worker.map(|worker| (worker, reasons)))
    }

    /// Renders workers and writes their files, each as soon as it is rendered.
    fn render(
        &self,
        records: &mut [Record],
        is_changed: &mut [bool],
        pending: Vec<Pending>,
        built: &mut Built,
    ) -> Result<(), Failure> {
        if !self.scope.dry {
            self.scan.writer.begin(self.scan.manifest.folders.keys());
        }
        let requests: Vec<Request<'_>> = pending
            .iter()
            .map(|item| {
                let bundle = self.recipes.bundles.of(&item.worker);
                Request { worker: &item.worker, bundle, part: Part::Files }
            })
            .collect();
        let mut result = Ok(());
        let mut span = requests.first().map(|request| trace::span("render", &request.worker.name));
        self.project.renderer.render_all(&requests, |index, outcome, _| {
            drop(span.take());
            let Pending { position, index: unit, worker, reasons } = &pending[index];
            let record = &mut records[*position];
            is_changed[*position] = true;
            let too_large = |rendered: Rendered| {
                let size = files::size(self.project, worker, &rendered.files);
                let limit = &self.recipes.size_limit;
                limit.check(&worker.file, &worker.pack, &worker.account, size).map_or(Ok(rendered), Err)
            };
            match outcome.and_then(too_large) {
                // What could not be written is the same for all others.
                Ok(_) if result.is_err() => {}
                Ok(rendered) => {
                    let written = files::write(self.project, &self.recipes, worker, rendered, self.out);
                    result = written
                        .and_then(|done| self.note(record.unit_mut(*unit), worker, done, reasons.clone(), built));
                }
                Err(diagnostic) => {
                    built.rendered -= 1;
                    built.fail(id(record), *diagnostic);
                }
            }
            span = requests.get(index + 1).map(|request| trace::span("render", &request.worker.name));
        });
        result
    }

    /// Counts what a rendering wrote, removes files that the pack no longer has, and records it.
    fn note(
        &self,
        unit: &mut Unit,
        worker: &Worker,
        done: Done,
        reasons: Vec<DirtyReason>,
        built: &mut Built,
    ) -> Result<(), Failure> {
        let folder = worker.folder();
        let written = done.written.iter().filter(|written| written.differed).count();
        built.written += written;
        built.unchanged += usize::from(written == 0);
        if written > 0 && !self.scope.dry {
            self.scan.writer.wrote();
        }
        let before = unit.rendered.take();
        let is_old = |output: &&Output| done.files.iter().all(|(name, _)| *name != output.name);
        for output in before.iter().flat_map(|before| &before.outputs).filter(is_old) {
            built.removed += usize::from(self.out.remove_file(&folder, &output.name)?);
        }
        unit.rendered = Some(done.record(unit, before, reasons));
        if self.scope.explain {
            built.reasons.push((folder, explain::last(self.project, self.scan, &self.recipes, unit, worker)));
        }
        Ok(())
    }
}

/// Removes folders that no worker owns; returns their number. A customer with errors keeps its folders.
fn prune_workers(project: &Project, scan: &Scan, out: &Out, quiet: &[Environment]) -> Result<usize, Failure> {
    let environments = environments(project, out);
    let changed: Vec<Environment> =
        environments.iter().copied().filter(|environment| !quiet.contains(environment)).collect();
    if changed.is_empty() && scan.orphaned.is_empty() {
        return Ok(0);
    }
    let units = scan.records.iter().flat_map(|record| record.units.iter().map(move |unit| (record, unit)));
    let mut owned: HashSet<String> = units.map(|(record, unit)| scanner::folder(record, unit)).collect();
    for customer in &scan.held {
        owned.extend(environments.iter().map(|environment| format!("{environment}/{customer}/")));
    }
    let mut names: HashSet<String> =
        project.fleet.packs.values().flat_map(|pack| pack.file_names().map(str::to_owned)).collect();
    names.extend(scan.manifest.recipes.values().flat_map(|recipe| recipe.files.iter().cloned()));
    let mut removed = 0;
    for environment in changed {
        removed += out.prune(environment, &owned, &names)?;
    }
    // Folders that are known to be orphaned are removed by name, without looking for them.
    for folder in &scan.orphaned {
        let customer = folder.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        if !owned.contains(folder) && !owned.contains(&format!("{customer}/")) {
            removed += usize::from(out.prune_folder(folder, &names)?);
        }
    }
    Ok(removed)
}

/// Removes packs' bundles that no worker imports; returns the number of files. All are kept as long as a customer with
/// errors might import them.
fn prune_bundles(bundles: &PackBundles, out: &Out) -> Result<usize, Failure> {
    let assets = bundles.iter().filter_map(|(_, bundle)| Some(out::shared_assets(&bundle.assets.as_ref()?.digests)));
    out.prune_bundles(&bundles.iter().map(|(_, bundle)| bundle.file.clone()).chain(assets).collect())
}

/// The fleet with all of its workers in memory: for what looks at each of them.
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Its customers.
    pub scan: Scan,
    /// The workers of all valid customers, sorted by environment and customer.
    pub workers: Vec<Worker>,
}

/// Opens and scans a project; writes nothing.
pub fn open_and_scan(root: &Path, progress: &dyn Progress) -> Result<(Project, Scan), Vec<Diagnostic>> {
    let mut project = open(Tree::new(root), progress)?;
    let scan = scan(&mut project, false, progress)?;
    Ok((project, scan))
}

/// Opens and scans a project, and reads all workers; writes nothing.
pub fn load(root: &Path, progress: &dyn Progress) -> Result<Loaded, Vec<Diagnostic>> {
    let (project, mut scan) = open_and_scan(root, progress)?;
    let workers = scan.workers(&project);
    Ok(Loaded { project, scan, workers })
}
