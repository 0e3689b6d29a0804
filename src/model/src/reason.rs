//! The reasons for which a worker is rendered, uploaded, changed or deleted: one variant for each cause, with what was, what
//! is, and where that is written. Puts each cause into words in one place, and nothing reads these words. Doesn't know who
//! finds a cause, who shows it and who records it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::clock::timestamp;
use crate::credential;
use crate::diagnostic::Place;
use crate::text::{holds_ids, mask_ids, mask_value, names};

/// The longest JSON of a value that a reason holds as a whole, in characters.
const LONGEST_VALUE: usize = 80;
/// The fields that each reason has in `reason_details`; null where they don't apply.
const COMMON_FIELDS: [&str; 3] = ["old", "new", "place"];

/// The reason why a worker is rendered, uploaded, changed or deleted.
///
/// Shown by `Display`, and serialised as an object with its `kind`: that is how the state records it, so that kinds
/// and fields that were released keep their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::IntoStaticStr, strum::VariantNames), strum(serialize_all = "snake_case"))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The worker was never deployed.
    New,
    /// The worker was deployed, and the platform doesn't have it any more.
    Missing,
    /// The worker was deleted by other means, and the upload that was meant to update it created it again, without its other parts.
    Recreated,
    /// The worker is created before the upload that completes it, without its bindings to new workers that are bound to it in turn.
    CreatedFirst {
        /// These workers.
        without: Vec<String>,
    },
    /// The worker was created without its bindings to these workers, and the upload that completes it is missing.
    BindingsMissing {
        /// The workers.
        without: Vec<String>,
    },
    /// Every selected worker is uploaded, changed or not.
    Forced {
        /// The reason, in the words of the person who ordered it.
        reason: String,
    },
    /// An earlier upload was interrupted: the bundle that is live is unknown.
    UploadInterrupted,
    /// An earlier change of the worker was interrupted.
    ChangeInterrupted,
    /// A value in a file that the worker is resolved from differs.
    ValueChanged(Box<ValueChange>),
    /// An entry of the bundle's metadata differs, apart from its bindings.
    MetadataChanged(Box<MetadataChange>),
    /// A binding was added.
    BindingAdded {
        /// Its name.
        name: String,
    },
    /// A binding has the same name and another value.
    BindingChanged {
        /// Its name.
        name: String,
    },
    /// A binding was removed.
    BindingRemoved {
        /// Its name.
        name: String,
    },
    /// The bundled code of the worker's pack differs.
    PackBundleChanged {
        /// The file that had it; nothing where the state doesn't know.
        old: Option<String>,
        /// The file that has it.
        new: Option<String>,
    },
    /// The worker's own module differs.
    ModuleChanged {
        /// The short digest of the one that is live.
        old: String,
        /// The short digest of the one that is built.
        new: String,
    },
    /// The bundle differs, and the state doesn't know in what.
    BundleChanged {
        /// The short digest of the one that is live.
        old: String,
        /// The short digest of the one that is built.
        new: String,
    },
    /// The bundle differs, and what the live one was made from isn't known.
    SourceUnknown {
        /// The short digest of the one that is live.
        old: String,
        /// The short digest of the one that is built.
        new: String,
    },
    /// A template or a partial of the pack differs.
    TemplateChanged {
        /// Its file.
        file: String,
    },
    /// A template or a partial is read that wasn't before.
    TemplateAdded {
        /// Its file.
        file: String,
    },
    /// A template or a partial is no longer read.
    TemplateRemoved {
        /// Its file.
        file: String,
    },
    /// A file differs that the pack's bundle is made of.
    SourceChanged {
        /// Its path.
        file: String,
    },
    /// The pack's bundle is made of a file that it wasn't made of before.
    SourceAdded {
        /// Its path.
        file: String,
    },
    /// The pack's bundle is no longer made of a file.
    SourceRemoved {
        /// Its path.
        file: String,
    },
    /// A static asset of the pack has changed.
    AssetChanged {
        /// Its path.
        file: String,
    },
    /// The pack has a static asset that it hadn't before.
    AssetAdded {
        /// Its path.
        file: String,
    },
    /// The pack no longer has a static asset.
    AssetRemoved {
        /// Its path.
        file: String,
    },
    /// flotilla itself differs in what decides the bytes of files.
    ToolChanged {
        /// The version before.
        old: String,
        /// The version that runs.
        new: String,
    },
    /// The value of a secret was rotated.
    SecretChanged {
        /// The name of its binding.
        name: String,
    },
    /// A secret was deleted at Cloudflare by somebody else.
    SecretLost {
        /// The name of its binding.
        name: String,
    },
    /// A secret that the upload needs has no value here: it is what a deploy fails on, not a cause of the change.
    SecretMissing {
        /// The name under which it is looked up.
        name: String,
    },
    /// A custom domain is attached.
    DomainAdded {
        /// The host name.
        new: String,
    },
    /// A custom domain is detached.
    DomainRemoved {
        /// The host name.
        old: String,
    },
    /// A custom domain is taken from another worker.
    DomainTaken {
        /// The host name.
        domain: String,
        /// The worker that it is taken from.
        old: String,
    },
    /// A route is taken from another worker.
    RouteTaken {
        /// The pattern.
        pattern: String,
        /// The worker that it is taken from.
        old: String,
    },
    /// A D1 database is created, as none of that name is known.
    DatabaseCreated {
        /// Its name.
        new: String,
    },
    /// A migration of a D1 database was applied.
    DatabaseMigrated {
        /// The database's name, or its id.
        database: String,
        /// The migration's name.
        new: String,
    },
    /// A route is added.
    RouteAdded {
        /// The pattern.
        new: String,
    },
    /// A route is removed.
    RouteRemoved {
        /// The pattern.
        old: String,
    },
    /// The worker's address on workers.dev is turned on or off.
    WorkersDev {
        /// Whether it was on, as far as the state knows.
        old: bool,
        /// Whether it has to be on.
        new: bool,
    },
    /// The addresses of the worker's versions are turned on or off.
    PreviewUrls {
        /// Whether they were on, as far as the state knows.
        old: bool,
        /// Whether they have to be on.
        new: bool,
    },
    /// The crons are replaced.
    Crons {
        /// The crons before, as far as the state knows.
        old: BTreeSet<String>,
        /// The crons from now on.
        new: BTreeSet<String>,
    },
    /// A queue is created, as none of that name is known.
    QueueCreated {
        /// Its name.
        new: String,
    },
    /// The worker becomes the consumer of a queue.
    ConsumerAdded {
        /// The queue.
        new: String,
    },
    /// The worker consumes a queue with other settings.
    ConsumerChanged {
        /// The queue.
        queue: String,
    },
    /// The worker is no longer the consumer of a queue.
    ConsumerRemoved {
        /// The queue.
        old: String,
    },
    /// A workflow of the worker's own is deployed, or its settings are changed.
    WorkflowDeployed {
        /// Its name.
        new: String,
    },
    /// A workflow of the worker's own is no longer defined; it stays at the platform, with its instances.
    WorkflowKept {
        /// Its name.
        old: String,
    },
    /// Migrations of Durable Object classes are applied.
    Migrated {
        /// The tag of the last one that was applied before; none if there was none.
        old: Option<String>,
        /// The tag of the last one that is applied now.
        new: String,
    },
    /// A Durable Object class is deleted, with the data of all its objects.
    ClassDeleted {
        /// The class.
        class: String,
    },
    /// A Durable Object class is unbound: only then, a later deploy can delete it.
    ClassUnbound {
        /// The class.
        class: String,
    },
    /// Drift: somebody changed the worker by other means.
    ChangedOutside {
        /// The time, as the platform writes it; empty if it isn't known.
        at: String,
        /// The means, as `wrangler` or `dash`, if the platform reports it.
        by: Option<String>,
    },
    /// The worker was not managed by this fleet, and is adopted.
    Adopted,
    /// The worker is not managed by this fleet any more.
    NotManaged,
    /// No spec defines the worker any more.
    Orphaned,
    /// The data of the worker's Durable Objects is destroyed with it.
    ObjectsDestroyed,
    /// The worker is put back to an earlier bundle.
    RolledBack {
        /// The record of the upload that it is rolled back to.
        record: i64,
        /// The time of that upload, in seconds since 1970.
        at: i64,
        /// The short digest of the bundle that is live.
        old: String,
        /// The short digest of the bundle that it is put back to.
        new: String,
    },
    /// The worker was never rendered, or is not in the build cache.
    NotRemembered,
    /// A rendered file is gone.
    OutputMissing {
        /// Its path.
        file: String,
    },
    /// A rendered file was edited.
    OutputEdited {
        /// Its path.
        file: String,
    },
    /// The worker's values in the files differ, and it isn't known which.
    ValuesChanged,
    /// The templates, the pack's bundle or flotilla itself differ, and it isn't known which.
    RecipeChanged,
    /// A reason that a version of flotilla recorded which kept sentences.
    Recorded {
        /// The sentence.
        text: String,
    },
}

/// A value of a file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValueChange {
    /// The path of the value, as in `destinations[0].settings.pixelId`.
    pub path: String,
    /// The value before; nothing where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub old: Option<Excerpt>,
    /// The value now; nothing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub new: Option<Excerpt>,
    /// The place that defines the new value, if it is one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Position>,
}

/// An entry of a bundle's metadata that differs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetadataChange {
    /// Its name in a spec.
    pub name: String,
    /// The value before; null where there was none.
    #[serde(default)]
    pub old: Value,
    /// The value now; null where there is none.
    #[serde(default)]
    pub new: Value,
}

/// A place in a file. Lines and columns count from 1; line 0 is the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The path from the project's root.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl From<Place> for Position {
    fn from(Place { file, line, column, .. }: Place) -> Position {
        Position { file, line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// A value's JSON, cut after 80 characters: plans and records of many workers hold many of them. Serialised as the value
/// itself, or as a string that ends in `…` where it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Excerpt(String);

impl From<&Value> for Excerpt {
    fn from(value: &Value) -> Excerpt {
        let text = value.to_string();
        Excerpt(match text.char_indices().nth(LONGEST_VALUE) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        })
    }
}

impl Excerpt {
    /// Returns it without secrets in variables and without ids, given its path: earlier versions recorded them in the state.
    fn masked(self, path: &str) -> Excerpt {
        let has_ids = holds_ids(path);
        if !has_ids && !path.contains("vars") {
            return self;
        }
        match serde_json::from_str::<Value>(&self.0) {
            Ok(value) => {
                let value = credential::masked(&credential::steps(path), value);
                Excerpt::from(&if has_ids { mask_value(value) } else { value })
            }
            Err(_) => {
                let text = credential::masked_cut(path, &self.0).unwrap_or(self.0);
                Excerpt(if has_ids { mask_ids(&text) } else { text })
            }
        }
    }
}

impl ValueChange {
    /// Returns the change as it is shown.
    fn shown(&self) -> ValueChange {
        let ValueChange { path, old, new, place } = self.clone();
        let [old, new] = [old, new].map(|value| Some(value?.masked(&path)));
        ValueChange { path, old, new, place }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Excerpt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<Value>(&self.0) {
            Ok(value) => value.serialize(serializer),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Excerpt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Excerpt, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let excerpt = Excerpt::from(&value);
        // A whole value that is cut now was cut before: it is what is left of its JSON.
        Ok(match value {
            Value::String(text) if excerpt.0.ends_with('…') && text.ends_with('…') => Excerpt(text),
            _ => excerpt,
        })
    }
}

/// Reads a value that is there: null is a value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Excerpt>, D::Error> {
    Excerpt::deserialize(deserializer).map(Some)
}

impl Reason {
    /// Returns the place where the cause is written, if it is one.
    pub fn place(&self) -> Option<&Position> {
        match self {
            Reason::ValueChanged(change) => change.place.as_ref(),
            _ => None,
        }
    }

    /// Returns the reason in words, without its place: the same edit in two files reads the same.
    pub fn statement(&self) -> String {
        Statement(self).to_string()
    }

    /// Returns the common text of reasons about the same subject, whatever the values: `…` takes the place of a
    /// value, a domain, a pattern.
    pub fn pattern(&self) -> String {
        match self {
            Reason::ValueChanged(change) => format!("{} … → …", change.path),
            Reason::MetadataChanged(change) => format!("{} … → …", change.name),
            Reason::ToolChanged { .. } => "flotilla itself changed: … → …".to_owned(),
            Reason::PackBundleChanged { old: Some(_), new: Some(_) } => "the pack's bundle changed: … → …".to_owned(),
            Reason::RolledBack { .. } => "rolled back to record …".to_owned(),
            Reason::CreatedFirst { .. } => "created first without its bindings to …, bound in a cycle".to_owned(),
            Reason::BindingsMissing { .. } => "created without its bindings to …".to_owned(),
            Reason::DomainAdded { .. } => "domain … added".to_owned(),
            Reason::DomainRemoved { .. } => "domain … removed".to_owned(),
            Reason::DatabaseCreated { .. } => "D1 database … is created unless it exists".to_owned(),
            Reason::DatabaseMigrated { .. } => "migration … applied to D1 database …".to_owned(),
            Reason::RouteAdded { .. } => "route … added".to_owned(),
            Reason::RouteRemoved { .. } => "route … removed".to_owned(),
            Reason::Crons { new, .. } if !new.is_empty() => "crons …".to_owned(),
            Reason::QueueCreated { .. } => "queue … is created unless it exists".to_owned(),
            Reason::ConsumerAdded { .. } => "consumes queue …".to_owned(),
            Reason::ConsumerChanged { .. } => "consumes queue … with other settings".to_owned(),
            Reason::ConsumerRemoved { .. } => "no longer consumes queue …".to_owned(),
            Reason::WorkflowDeployed { .. } => "workflow … deployed".to_owned(),
            Reason::WorkflowKept { .. } => {
                "workflow … is no longer defined: it stays at Cloudflare with its instances".to_owned()
            }
            other => other.statement(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            write!(f, "{place} ")?;
        }
        Statement(self).fmt(f)
    }
}

/// A reason in words, without its place.
struct Statement<'a>(&'a Reason);

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reason::New => f.write_str("it is new"),
            Reason::Missing => f.write_str("it is no longer at Cloudflare"),
            Reason::Recreated => f.write_str("it was deleted outside flotilla and recreated without its secrets"),
            Reason::CreatedFirst { without } => {
                write!(f, "created first without its bindings to {}, bound in a cycle", names(without, 5))
            }
            Reason::BindingsMissing { without } => write!(f, "created without its bindings to {}", names(without, 5)),
            Reason::Forced { reason } => write!(f, "forced: {reason}"),
            Reason::UploadInterrupted => f.write_str("an earlier upload was interrupted"),
            Reason::ChangeInterrupted => f.write_str("an earlier change of it was interrupted"),
            Reason::ValueChanged(change) => {
                let ValueChange { path, old, new, .. } = change.shown();
                let text = |value: Option<Excerpt>| value.map_or("nothing".to_owned(), |value| value.0);
                write!(f, "{path} {} → {}", text(old), text(new))
            }
            Reason::MetadataChanged(change) => {
                let MetadataChange { name, old, new } = &**change;
                let shown = |value: &Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
                write!(f, "{name} {} → {}", shown(old), shown(new))
            }
            Reason::BindingAdded { name } => write!(f, "{name} added"),
            Reason::BindingChanged { name } => write!(f, "{name} changed"),
            Reason::BindingRemoved { name } => write!(f, "{name} removed"),
            Reason::PackBundleChanged { old: Some(old), new: Some(new) } => {
                write!(f, "the pack's bundle changed: {old} → {new}")
            }
            Reason::PackBundleChanged { .. } => f.write_str("the pack's bundle changed"),
            Reason::ModuleChanged { .. } => f.write_str("the module changed"),
            Reason::BundleChanged { .. } => f.write_str("the bundle changed"),
            Reason::SourceUnknown { .. } => f.write_str("its bundle changed"),
            Reason::TemplateChanged { file } => write!(f, "{file} changed"),
            Reason::TemplateAdded { file } => write!(f, "{file} is included now"),
            Reason::TemplateRemoved { file } => write!(f, "{file} is no longer included"),
            Reason::SourceChanged { file } => write!(f, "{file} changed"),
            Reason::SourceAdded { file } => write!(f, "{file} is bundled now"),
            Reason::SourceRemoved { file } => write!(f, "{file} is no longer bundled"),
            Reason::AssetChanged { file } => write!(f, "{file} changed"),
            Reason::AssetAdded { file } => write!(f, "{file} is a new asset"),
            Reason::AssetRemoved { file } => write!(f, "{file} is no longer an asset"),
            Reason::ToolChanged { old, new } => write!(f, "flotilla itself changed: {old} → {new}"),
            Reason::SecretChanged { name } => write!(f, "secret {name} changed"),
            Reason::SecretLost { name } => write!(f, "secret {name} is no longer set at Cloudflare"),
            Reason::SecretMissing { name } => write!(f, "secret {name} has no value here"),
            Reason::DomainAdded { new } => write!(f, "domain {new} added"),
            Reason::DomainRemoved { old } => write!(f, "domain {old} removed"),
            Reason::DomainTaken { domain, old } => write!(f, "domain {domain} is taken from {old}"),
            Reason::RouteTaken { pattern, old } => write!(f, "route {pattern} is taken from {old}"),
            Reason::DatabaseCreated { new } => write!(f, "D1 database {new} is created unless it exists"),
            Reason::DatabaseMigrated { database, new } => {
                write!(f, "migration {new} applied to D1 database {database}")
            }
            Reason::RouteAdded { new } => write!(f, "route {new} added"),
            Reason::RouteRemoved { old } => write!(f, "route {old} removed"),
            Reason::WorkersDev { new, .. } => write!(f, "workers.dev {}", if *new { "on" } else { "off" }),
            Reason::PreviewUrls { new, .. } => write!(f, "preview URLs {}", if *new { "on" } else { "off" }),
            Reason::Crons { new, .. } if new.is_empty() => f.write_str("crons removed"),
            Reason::Crons { new, .. } => {
                write!(f, "crons {}", new.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Reason::QueueCreated { new } => write!(f, "queue {new} is created unless it exists"),
            Reason::ConsumerAdded { new } => write!(f, "consumes queue {new}"),
            Reason::ConsumerChanged { queue } => write!(f, "consumes queue {queue} with other settings"),
            Reason::ConsumerRemoved { old } => write!(f, "no longer consumes queue {old}"),
            Reason::WorkflowDeployed { new } => write!(f, "workflow {new} deployed"),
            Reason::WorkflowKept { old } => {
                write!(f, "workflow {old} is no longer defined: it stays at Cloudflare with its instances")
            }
            Reason::Migrated { old, new } => {
                write!(f, "Durable Object migrations {} → {new}", old.as_deref().unwrap_or("none"))
            }
            Reason::ClassDeleted { class } => {
                write!(f, "the Durable Object class {class} is deleted with all of its data")
            }
            Reason::ClassUnbound { class } => write!(
                f,
                "the Durable Object class {class} is unbound; the next deploy deletes it with all of its data, and the code has to export it until then"
            ),
            Reason::ChangedOutside { at, by } => write!(f, "it was {}", changed_outside(at, by.as_deref())),
            Reason::Adopted => f.write_str("it is adopted"),
            Reason::NotManaged => f.write_str("it is no longer managed by this fleet"),
            Reason::Orphaned => f.write_str("no spec defines it"),
            Reason::ObjectsDestroyed => f.write_str("its Durable Objects and their data are destroyed"),
            Reason::RolledBack { record, at, new, .. } => {
                write!(f, "rolled back to record {record}, {new} of {}", timestamp(*at))
            }
            Reason::NotRemembered => f.write_str("it is new, or not in the build cache"),
            Reason::OutputMissing { file } => write!(f, "{file} is missing"),
            Reason::OutputEdited { file } => write!(f, "{file} was edited"),
            Reason::ValuesChanged => f.write_str("its values changed"),
            Reason::RecipeChanged => f.write_str("its templates, its pack's bundle or flotilla itself have changed"),
            Reason::Recorded { text } => f.write_str(&mask_ids(&credential::masked_sentence(text))),
        }
    }
}

/// Returns how and when a worker was changed by other means: `changed by wrangler at …`.
pub fn changed_outside(at: &str, by: Option<&str>) -> String {
    let by = by.map_or_else(|| "outside flotilla".to_owned(), |by| format!("by {by}"));
    if at.is_empty() { format!("changed {by}") } else { format!("changed {by} at {at}") }
}

/// Serialises reasons as a list of sentences.
pub fn sentences<S: Serializer>(reasons: &[Reason], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(reasons.iter().map(Reason::to_string))
}

/// Returns reasons as values for programs, with ids and secrets masked as in their sentences: each with its `kind`, and with `old`, `new`
/// and `place`, which are null where they don't apply.
pub fn details(reasons: &[Reason]) -> Vec<Value> {
    let detail = |reason: &Reason| {
        let shown = match reason {
            Reason::ValueChanged(change) => &Reason::ValueChanged(Box::new(change.shown())),
            Reason::Recorded { .. } => &Reason::Recorded { text: reason.to_string() },
            other => other,
        };
        let mut value = serde_json::to_value(shown).expect("BUG: a reason is JSON");
        for field in COMMON_FIELDS {
            value.as_object_mut().expect("BUG: a reason is an object").entry(field).or_insert(Value::Null);
        }
        value
    };
    reasons.iter().map(detail).collect()
}

/// Serialises reasons as two fields of an object, which are in the same order: `reasons`, as sentences, and `reason_details`,
/// as values.
pub fn with_details<S: Serializer>(reasons: &[Reason], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields {
        reasons: Vec<String>,
        reason_details: Vec<Value>,
    }
    let sentences = reasons.iter().map(Reason::to_string).collect();
    Fields { reasons: sentences, reason_details: details(reasons) }.serialize(serializer)
}

#[cfg(any(test, feature = "testing"))]
impl Reason {
    /// Returns a reason that is a sentence, for tests of other modules.
    pub fn recorded(text: &str) -> Reason {
        Reason::Recorded { text: text.to_owned() }
    }

    /// Returns a change of a value of a file, for tests of other modules.
    pub fn value_changed(place: Option<(&str, usize, usize)>, path: &str, old: Value, new: Value) -> Reason {
        let place = place.map(|(file, line, column)| Position { file: file.to_owned(), line, column });
        let (path, old, new) = (path.to_owned(), Some(Excerpt::from(&old)), Some(Excerpt::from(&new)));
        Reason::ValueChanged(Box::new(ValueChange { path, old, new, place }))
    }
}

#[cfg(test)]
mod tests;
