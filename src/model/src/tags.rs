//! The tags of a worker at Cloudflare: its fleet, its bundle, and what points to it. One list call returns them for all
//! workers, so that a machine without a state knows what is deployed. Knows no platform.
//!
//! | tag                     | shows                                                                    |
//! |-------------------------|--------------------------------------------------------------------------|
//! | `flotilla-<fleet>`      | which fleet owns the worker                                              |
//! | `digest-<digest>`       | which bundle runs                                                        |
//! | `triggers-<digest>`     | which triggers it had, all acknowledged, when it was uploaded            |
//! | `pending-<digest>`      | which triggers it was to have: the change that uploaded it had more steps |
//! | `customer-<id>`         | whose worker it is                                                       |
//! | `environment-<name>`    | where it runs                                                            |
//! | `worker-<fleet>/<name>` | in a dispatch namespace: which worker of which fleet it is, for its deletion |
//! | `expires-<seconds>`     | of a preview: when it expires, in seconds since 1970                     |
//! | `database-<name>`       | of a preview: the D1 database that is its own, and goes with it          |
//! | `hosts-<host>_<host>`   | of a preview in a dispatch namespace: the hosts that point to it         |
//!
//! Either `triggers-` or `pending-`: five tags, or six, of [`crate::limits::TAGS`]; of a preview, at most eight, which leaves no room for
//! `worker-`. Triggers that change later without an upload leave the tag as it is: it then names triggers that are no longer desired, and
//! the present ones are requested. A refresh that found them as desired updates the tag, so that the next one needs no request.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::OwnWorkflow;
use crate::customer::Worker;
use crate::digest::{Digest, Framed};
use crate::spec::{Environment, QueueConsumer};

/// The triggers of a worker: its workers.dev address, custom domains, the patterns of its routes, crons, the queues that it consumes, its
/// workflows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Whether it answers on workers.dev.
    pub workers_dev: bool,
    /// Whether each of its versions has an address there.
    pub preview_urls: bool,
    /// Custom domains.
    pub domains: BTreeSet<String>,
    /// The patterns of routes.
    pub patterns: BTreeSet<String>,
    /// Crons.
    pub crons: BTreeSet<String>,
    /// The queues that it consumes.
    pub consumers: BTreeMap<String, QueueConsumer>,
    /// The workflows of its own, as they are deployed.
    pub workflows: BTreeMap<String, OwnWorkflow>,
}

impl Triggers {
    /// Returns those that a worker should have.
    pub fn of(worker: &Worker) -> Triggers {
        Triggers {
            workers_dev: worker.workers_dev,
            preview_urls: worker.preview_urls,
            domains: worker.domains.clone(),
            patterns: worker.routes.iter().map(|route| route.pattern.clone()).collect(),
            crons: worker.crons.clone(),
            consumers: worker.queue_consumers.clone(),
            workflows: worker.workflows(),
        }
    }

    /// Their digest.
    pub fn digest(&self) -> Digest {
        let mut framed = Framed::new("triggers").field(&[u8::from(self.workers_dev)]);
        for list in [&self.domains, &self.patterns, &self.crons] {
            // How many there are keeps a domain from being taken for a pattern.
            framed = framed.field(&(list.len() as u64).to_le_bytes());
            framed = list.iter().fold(framed, |framed, one| framed.field(one.as_bytes()));
        }
        // What most workers have none of isn't counted: their tags stay as they are.
        if self.preview_urls {
            framed = framed.field(b"preview urls");
        }
        let consumers = self.consumers.iter().map(|(queue, consumer)| consumer.wrangler(queue).to_string());
        framed = consumers.fold(framed, |framed, one| framed.field(b"consumer").field(one.as_bytes()));
        for (name, workflow) in &self.workflows {
            framed = framed.field(b"workflow").field(name.as_bytes()).field(workflow.0.to_string().as_bytes());
        }
        framed.finish()
    }
}

/// Returns the tags of an upload. With `pending`, the change that uploads still has triggers to set.
pub fn of(
    fleet: &str,
    customer: &str,
    environment: Environment,
    digest: &Digest,
    triggers: &Triggers,
    pending: bool,
) -> Vec<String> {
    let settled = if pending { "pending" } else { "triggers" };
    vec![
        format!("flotilla-{fleet}"),
        self::digest(digest),
        format!("{settled}-{}", triggers.digest().short()),
        format!("customer-{customer}"),
        format!("environment-{environment}"),
    ]
}

/// Returns the tag of the bundle that runs.
pub fn digest(digest: &Digest) -> String {
    format!("digest-{digest}")
}

/// Returns the tag that no other worker has: a dispatch namespace deletes what carries it, and nothing else.
pub fn identity(fleet: &str, worker: &str) -> String {
    format!("worker-{fleet}/{worker}")
}

/// The separator between hosts in a tag: no host has it, and tags can't have commas.
const BETWEEN: char = '_';

/// Returns the tags that a preview's worker has in addition to the others, from which a removal knows what belongs to the preview.
pub fn of_preview(expires: i64, database: Option<&str>, hosts: &BTreeSet<String>) -> Vec<String> {
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut tags = vec![format!("expires-{expires}")];
    tags.extend(database.map(|database| format!("database-{database}")));
    tags.extend((!hosts.is_empty()).then(|| format!("hosts-{}", hosts.join(&BETWEEN.to_string()))));
    tags
}

/// Returns the tags of a worker that expires at another time.
pub fn renewed(tags: &[String], expires: i64) -> Vec<String> {
    let others = tags.iter().filter(|tag| !tag.starts_with("expires-"));
    others.cloned().chain([format!("expires-{expires}")]).collect()
}

/// Returns the tags of a worker whose triggers were found to be these, and all set.
pub fn settled(tags: &[String], triggers: &Triggers) -> Vec<String> {
    let others = tags.iter().filter(|tag| !tag.starts_with("pending-") && !tag.starts_with("triggers-"));
    others.cloned().chain([format!("triggers-{}", triggers.digest().short())]).collect()
}

/// The content of a worker's tags. Tags of others have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks<'a> {
    /// The fleet that owns it.
    pub fleet: Option<&'a str>,
    /// The bundle that runs.
    pub digest: Option<Digest>,
    /// The short digest of its triggers, and whether they were all set.
    pub triggers: Option<(&'a str, bool)>,
    /// The customer.
    pub customer: Option<&'a str>,
    /// The environment.
    pub environment: Option<Environment>,
    /// The time at which it expires, in seconds since 1970.
    pub expires: Option<i64>,
    /// The database that is its own.
    pub database: Option<&'a str>,
    /// The hosts that point to it in its dispatch namespace.
    pub hosts: Vec<&'a str>,
}

/// Reads a worker's tags.
pub fn read(tags: &[String]) -> Marks<'_> {
    let mut marks = Marks::default();
    for tag in tags {
        let Some((kind, value)) = tag.split_once('-') else { continue };
        match kind {
            "flotilla" => marks.fleet = Some(value),
            "digest" => marks.digest = Digest::parse(value),
            "triggers" => marks.triggers = Some((value, true)),
            "pending" => marks.triggers = Some((value, false)),
            "customer" => marks.customer = Some(value),
            "environment" => {
                marks.environment = Environment::of(value);
            }
            "expires" => marks.expires = value.parse().ok(),
            "database" => marks.database = Some(value),
            "hosts" => marks.hosts = value.split(BETWEEN).collect(),
            _ => {}
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::customer::sample;
    use crate::limits;

    #[test]
    fn what_is_written_is_read() {
        let (worker, digest) = (sample("acme"), Digest::of(b"bundle"));
        let of = |fleet, worker: &Worker, digest, pending| {
            of(fleet, &worker.customer, worker.environment, digest, &Triggers::of(worker), pending)
        };
        for pending in [false, true] {
            let tags = of("shop", &worker, &digest, pending);
            let triggers = Triggers::of(&worker).digest().short();
            let expected = Marks {
                fleet: Some("shop"),
                digest: Some(digest),
                triggers: Some((&triggers, !pending)),
                customer: Some("acme"),
                environment: Some(worker.environment),
                ..Marks::default()
            };
            assert_eq!(read(&tags), expected);
            assert!(tags.len() <= limits::TAGS);
            assert!(tags.iter().all(|tag| !tag.contains([',', '&', ':'])));
        }
        let pending = of("shop", &worker, &digest, true);
        let after = settled(&pending, &Triggers::of(&worker));
        assert_eq!(read(&after), read(&of("shop", &worker, &digest, false)));
        assert_eq!(read(&["team-shop".to_owned(), "flotilla".to_owned(), "digest-1".to_owned()]), Marks::default());
    }

    #[test]
    fn a_preview_tells_what_belongs_to_it() {
        let worker = sample("acme");
        let mut tags =
            of("shop.preview-1", "acme", Environment::Preview, &Digest::of(b""), &Triggers::of(&worker), true);
        let hosts = BTreeSet::from(["a-preview-1.example.com".to_owned(), "b-preview-1.example.com".to_owned()]);
        tags.extend(of_preview(1_764_000_000, Some("acme_db-preview-1"), &hosts));
        assert_eq!(tags.len(), limits::TAGS);
        assert!(tags.iter().all(|tag| !tag.contains([',', '&', ':'])));
        let marks = read(&tags);
        assert_eq!((marks.fleet, marks.environment), (Some("shop.preview-1"), Some(Environment::Preview)));
        assert_eq!((marks.expires, marks.database), (Some(1_764_000_000), Some("acme_db-preview-1")));
        assert_eq!(marks.hosts, ["a-preview-1.example.com", "b-preview-1.example.com"]);
        let later = renewed(&tags, 1_765_000_000);
        assert_eq!((later.len(), read(&later).expires), (tags.len(), Some(1_765_000_000)));
        let bare = of_preview(1, None, &BTreeSet::new());
        assert_eq!(read(&bare), Marks { expires: Some(1), ..Marks::default() });
    }

    #[test]
    fn each_trigger_is_in_the_digest() {
        let of = |dev: bool, lists: [&[&str]; 3]| {
            let [domains, patterns, crons] =
                lists.map(|list| list.iter().map(|item| (*item).to_owned()).collect::<BTreeSet<_>>());
            Triggers { workers_dev: dev, domains, patterns, crons, ..Triggers::default() }.digest()
        };
        let with = |change: fn(&mut Triggers)| {
            let mut triggers = Triggers::default();
            change(&mut triggers);
            triggers.digest()
        };
        let digests = [
            of(false, [&[], &[], &[]]),
            of(true, [&[], &[], &[]]),
            of(true, [&["a"], &[], &[]]),
            of(true, [&[], &["a"], &[]]),
            of(true, [&[], &[], &["a"]]),
            of(true, [&["a", "b"], &[], &[]]),
            of(true, [&["a"], &["b"], &[]]),
            of(true, [&["ab"], &[], &[]]),
            with(|triggers| drop(triggers.consumers.insert("q".to_owned(), QueueConsumer::default()))),
            with(|triggers| {
                let consumer = QueueConsumer { max_retries: Some(1), ..QueueConsumer::default() };
                triggers.consumers.insert("q".to_owned(), consumer);
            }),
            with(|triggers| drop(triggers.workflows.insert("w".to_owned(), OwnWorkflow(serde_json::Value::Null)))),
        ];
        assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), digests.len());
    }
}
