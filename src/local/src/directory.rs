//! The deployed workers as people look for them: by group and name, a page at a time. Knows the list; not how it is shown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::envelope::Refusal;
use super::store::{self, Key, Store, Worker};

/// A list that is older than this is made again if anything has changed: a deploy of ten thousand workers changes it all the time.
const FRESH: Duration = Duration::from_millis(500);

/// Returns the group that a worker with these tags belongs to, such as a customer, if it belongs to one.
pub type Group = Arc<dyn Fn(&[String]) -> Option<String> + Send + Sync>;

/// A deployed worker.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The worker.
    pub key: Key,
    /// The group that it belongs to; `""`: none.
    pub group: String,
    /// The time at which it was last changed, RFC 3339.
    pub modified: String,
    /// Its row in the database.
    pub row: i64,
    /// The version that serves.
    pub version: String,
    /// Another worker has the same name.
    pub is_ambiguous: bool,
}

/// All deployed workers, by group and name.
#[derive(Default)]
pub struct Directory {
    known: Mutex<Option<Known>>,
}

struct Known {
    generation: u64,
    made: Instant,
    entries: Arc<Vec<Entry>>,
}

impl Directory {
    /// Returns the workers.
    ///
    /// # Errors
    /// When the database fails.
    pub fn entries(&self, store: &Store, group: Option<&Group>) -> Result<Arc<Vec<Entry>>, Refusal> {
        let mut known = self.known.lock();
        let generation = store.generation();
        if let Some(known) = &*known
            && (known.generation == generation || known.made.elapsed() < FRESH)
        {
            return Ok(known.entries.clone());
        }
        let workers = store.read(|db| store::deployed(db, None))?;
        let entries = Arc::new(sorted(workers, group));
        *known = Some(Known { generation, made: Instant::now(), entries: entries.clone() });
        Ok(entries)
    }
}

fn sorted(workers: Vec<Worker>, group: Option<&Group>) -> Vec<Entry> {
    let mut names: HashMap<String, usize> = HashMap::new();
    for worker in &workers {
        *names.entry(worker.key.name.clone()).or_default() += 1;
    }
    let entry = |worker: Worker| {
        let tags = worker.tags();
        Entry {
            group: group.and_then(|group| group(&tags)).unwrap_or_default(),
            is_ambiguous: names[&worker.key.name] > 1,
            row: worker.id,
            version: worker.version.unwrap_or_default(),
            modified: worker.modified,
            key: worker.key,
        }
    };
    let mut entries: Vec<Entry> = workers.into_iter().map(entry).collect();
    // Those of no group come last.
    entries.sort_by(|a, b| {
        (a.group.is_empty(), &a.group, &a.key.name, &a.key.namespace).cmp(&(
            b.group.is_empty(),
            &b.group,
            &b.key.name,
            &b.key.namespace,
        ))
    });
    entries
}
