//! The records of customers: the stamps and digests of their files, their resolved workers, and the renderings of these.

use serde::{Deserialize, Serialize};

use crate::index::UnitIndex;
use crate::stamp::{Input, Stamp};
use crate::usage::WorkerUsage;
use flotilla_model::digest::{Digest, ShortHash};
use flotilla_model::plain_file;
use flotilla_model::spec::{Environment, OwnAccount};

/// The position of a value in the file of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// A file that was written for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its name in the worker's folder.
    pub name: String,
    /// The digest of its bytes.
    pub content: ShortHash,
    /// Its stamp after it was written.
    pub stamp: Stamp,
}

/// A rendering of a worker: its files under out/, and what they were rendered from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderRecord {
    /// The digest of the resolved worker that was rendered.
    pub from: ShortHash,
    /// The resolved worker, as a value.
    pub value: Chunk,
    /// The digest of the recipe.
    pub recipe: ShortHash,
    /// The partial templates that were read, a bit for each.
    pub partials: u64,
    /// The bytes of the module.
    pub size: u64,
    /// The files.
    pub outputs: Vec<Output>,
    /// The digest of the bundle.
    pub bundle: [u8; 32],
    /// The digest of the module.
    pub module: [u8; 32],
    /// Seconds since 1970 when it was rendered.
    pub rendered_at: i64,
    /// The reasons of the rendering.
    pub reasons: Vec<DirtyReason>,
    /// The rendering before this one: the digest of the resolved worker, its chunk, and the digest of the recipe.
    pub before: Option<(ShortHash, Chunk, ShortHash)>,
}

impl RenderRecord {
    /// Returns the digest of the bundle.
    pub fn bundle(&self) -> Digest {
        Digest::from_bytes(self.bundle)
    }
}

/// The reason why a worker is rendered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DirtyReason {
    /// It never was, as far as the manifest shows.
    New,
    /// Its values in the spec, the layers or the defaults changed.
    Values,
    /// A template, the runtime, or flotilla itself changed.
    Recipe,
    /// A file under out/ is gone.
    Missing(String),
    /// A file under out/ isn't what was written.
    Edited(String),
}

/// A worker of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its environment.
    pub environment: Environment,
    /// Its role, if the customer has several workers.
    pub role: Option<String>,
    /// Its pack's name.
    pub pack: String,
    /// The variant of its pack's bundle: a digest of its compatibility date and flags if wrangler bundles the pack, otherwise nothing.
    pub variant: ShortHash,
    /// The digest of the resolved worker.
    pub resolved: ShortHash,
    /// The resolved worker.
    pub value: Chunk,
    /// Its compatibility date, as the number 20260601.
    pub compatibility_date: u32,
    /// Its usage of limits.
    pub usage: WorkerUsage,
    /// Its last rendering, if there was one.
    pub rendered: Option<RenderRecord>,
}

/// The record of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The files that were read; the spec is the first.
    pub inputs: Vec<Input>,
    /// The digest of everything else that decided how it was resolved.
    pub context: ShortHash,
    /// The layers that it uses.
    pub layers: Vec<String>,
    /// Whether diagnostics were found: then it is read each time.
    pub has_diagnostics: bool,
    /// Its labels, sorted.
    pub labels: Vec<(String, String)>,
    /// The digests of what it claims.
    pub claims: Vec<u64>,
    /// The accounts of its own, with their names.
    pub accounts: Vec<(String, OwnAccount)>,
    /// The digests of the names of its secrets, without the customer's prefix.
    pub secrets: Vec<u64>,
    /// Its workers.
    pub units: Vec<Unit>,
}

impl Record {
    /// Returns the customer's file.
    pub fn file(&self) -> &str {
        self.inputs.first().map_or("", |input| &input.file)
    }

    /// Returns whether its names are those of files and folders at their places.
    pub(super) fn is_sound(&self) -> bool {
        let names = self.units.iter().flat_map(|unit| {
            let outputs =
                unit.rendered.iter().flat_map(|rendering| rendering.outputs.iter().map(|output| &output.name));
            outputs.chain(&unit.role)
        });
        let file = self.file().strip_prefix("customers/").unwrap_or(self.file());
        is_name(file)
            && names.into_iter().all(|name| is_name(name))
            && self.inputs.iter().all(|input| plain_file::project_path(&input.file).is_ok())
    }

    /// Returns the unit at an index.
    pub fn unit(&self, index: UnitIndex) -> &Unit {
        &self.units[index.get()]
    }

    /// Returns the unit at an index, to be changed.
    pub fn unit_mut(&mut self, index: UnitIndex) -> &mut Unit {
        &mut self.units[index.get()]
    }

    /// Returns its units, each with its index.
    pub fn indexed_units(&self) -> impl Iterator<Item = (UnitIndex, &Unit)> {
        self.units.iter().enumerate().map(|(index, unit)| (UnitIndex::new(index), unit))
    }

    /// Returns the indices of its units.
    pub fn unit_indices(&self) -> impl Iterator<Item = UnitIndex> + use<> {
        (0..self.units.len()).map(UnitIndex::new)
    }
}

/// Returns whether a name is that of a file in a folder.
pub(super) fn is_name(name: &str) -> bool {
    !name.contains('/') && plain_file::project_path(name).is_ok()
}
