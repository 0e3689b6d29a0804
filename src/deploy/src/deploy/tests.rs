//! The bench on which deploys are tested: a platform in memory that fails on request, a clock that waiting moves, and fleets.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::pace::Rate;
use crate::plan::handover::{Contested, Giver, Holder, Holders, hosts_of};
use crate::plan::{
    self, DatabaseDecision, DatabaseReference, DatabaseUser, Desired, Options, Plan, Planner, RecordedWorker, Wave,
    decide_database,
};
use crate::retry::{ATTEMPTS, THROTTLED_ATTEMPTS};
use crate::state::{DatabaseId, ResourceKind};
use flotilla_model::bundle::Bundle;
use flotilla_model::clock::FakeClock;
use flotilla_model::customer::{Database, Hosts, Worker, sample};
use flotilla_model::diagnostic::Place;
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::migrations::{DEFAULT_TABLE, DatabaseMigrations, Migration};
use flotilla_model::platform::{
    CONCURRENT_CHANGE, Call, CallError, DATABASE_EXISTS, Health, HealthCheck, Home, KEYS_PER_CALL, KV_EXISTS,
    ListedRoute, Placeholders, Platform, Quota, ROUTE_EXISTS, Reply,
};
use flotilla_model::spec::Route;
use flotilla_model::uploaded::Uploaded;

mod guarantees;
mod model;

/// The desired state of a customer.
#[derive(Clone, Debug, Default, PartialEq)]
struct DesiredState {
    account: String,
    version: u32,
    workers_dev: bool,
    domains: BTreeSet<String>,
    routes: BTreeSet<String>,
    crons: BTreeSet<String>,
    /// The hosts that a dispatch worker points to it.
    hosts: BTreeSet<String>,
    /// Whether it has a database, by its name alone.
    database: bool,
    /// The number of its migrations.
    migrations: usize,
    /// The customers whose workers it is bound to.
    binds: BTreeSet<String>,
}

/// The migrations of databases up to this number; the third comes after the upload.
fn migrations(count: usize) -> Arc<DatabaseMigrations> {
    let file = |number: usize| {
        let sql = if number == 3 { "-- flotilla: after\nSELECT 3" } else { "SELECT 1" };
        Migration::new(&format!("{number}.sql"), &format!("m/{number}.sql"), sql)
    };
    let (files, place) = ((1..=count).map(file).collect(), Place::file("pack.yaml"));
    Arc::new(DatabaseMigrations { table: DEFAULT_TABLE.to_owned(), files, folder: "m".to_owned(), place })
}

type Fleet = BTreeMap<String, DesiredState>;

/// A customer of the account `one` with one of everything.
fn full(customer: &str) -> (String, DesiredState) {
    let desired = DesiredState {
        account: "one".to_owned(),
        version: 1,
        workers_dev: true,
        domains: BTreeSet::from([format!("{customer}.example.com")]),
        routes: BTreeSet::from([format!("{customer}.example.org/*")]),
        crons: BTreeSet::from(["* * * * *".to_owned()]),
        ..DesiredState::default()
    };
    (customer.to_owned(), desired)
}

/// The ways in which a request is interrupted.
fn interruptions() -> impl Iterator<Item = Fault> {
    [true, false].into_iter().flat_map(|applied| [Fault::Lost { applied }, Fault::Crash { applied }])
}

/// A customer with a worker and nothing else.
fn bare(customer: &str) -> (String, DesiredState) {
    (customer.to_owned(), DesiredState { account: "one".to_owned(), version: 1, ..DesiredState::default() })
}

/// The zone of a route: `example.org` of `a.example.org/*`.
fn zone_of(pattern: &str) -> &str {
    pattern.split_once('.').map_or(pattern, |(_, zone)| zone).trim_end_matches("/*")
}

fn worker(customer: &str, desired: &DesiredState) -> Worker {
    let route = |pattern: &String| Route { pattern: pattern.clone(), zone: zone_of(pattern).to_owned(), zone_id: None };
    let database = || Database::D1 {
        binding: "DB".to_owned(),
        name: format!("db-{customer}"),
        id: None,
        jurisdiction: None,
        location_hint: None,
    };
    Worker {
        name: format!("w-{customer}"),
        pack: "tiny".to_owned(),
        account: desired.account.clone(),
        workers_dev: desired.workers_dev,
        domains: desired.domains.clone(),
        routes: desired.routes.iter().map(route).collect(),
        hosts: Some(Hosts { table: "hosts".to_owned(), names: desired.hosts.clone() }),
        database: if desired.database { database() } else { Database::None },
        crons: desired.crons.clone(),
        ..sample(customer)
    }
}

fn bundle(customer: &str, desired: &DesiredState) -> Bundle {
    let DesiredState { version, database, binds, .. } = desired;
    let digest = Digest::of(format!("{customer} {version} {database} {binds:?}").as_bytes());
    let database = database.then(|| json!({"type": "d1", "name": "DB", "database_name": format!("db-{customer}")}));
    let services = binds.iter().map(|name| json!({"type": "service", "name": name, "service": format!("w-{name}")}));
    let bindings: Vec<_> = database.into_iter().chain(services).collect();
    Bundle { digest, module: digest, runtime: Digest::of(b"runtime"), metadata: json!({"bindings": bindings}) }
}

/// The resources of the platform.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    /// Workers by name, with the digest that they run.
    scripts: BTreeMap<String, String>,
    workers_dev: BTreeSet<String>,
    crons: BTreeMap<String, BTreeSet<String>>,
    /// Domains, with their ids and workers.
    domains: BTreeMap<String, (String, String)>,
    /// Routes, with their ids and workers.
    routes: BTreeMap<String, (String, String)>,
    /// Databases by name, with their ids.
    databases: BTreeMap<String, String>,
    /// The numbers of the migrations that were applied, by the ids of the databases.
    migrated: BTreeMap<String, Vec<usize>>,
    /// KV namespaces by title, with their ids.
    tables: BTreeMap<String, String>,
    /// Hosts, with the workers that they point to.
    hosts: BTreeMap<String, String>,
    ids: usize,
    /// The workers that a host may point to while a deploy runs.
    expected: BTreeMap<String, [String; 2]>,
    /// The workers that may answer a name while a deploy runs, whatever kind of host it is.
    answering: BTreeMap<String, [String; 2]>,
    /// The workers that each worker is bound to.
    bound: BTreeMap<String, BTreeSet<String>>,
    /// The workers that were uploaded without some of their bindings.
    incomplete: BTreeSet<String>,
}

impl World {
    fn apply_checked(&mut self, call: &Call) -> Result<Reply, CallError> {
        let result = self.apply(call);
        self.check_hosts();
        result
    }

    /// The worker that answers each name that is not a wildcard: that of its route, of a wildcard route, or of its domain.
    fn answers(&self) -> BTreeMap<String, String> {
        let names =
            self.domains.keys().map(String::as_str).chain(self.routes.keys().map(|route| route.trim_end_matches("/*")));
        let mut wide: Vec<(&str, &String)> =
            self.routes.iter().map(|(route, (_, worker))| (route.trim_end_matches("/*"), worker)).collect();
        wide.retain(|(name, _)| name.starts_with('*'));
        let answer = |name: &str| {
            let route = self.routes.get(&format!("{name}/*")).map(|(_, worker)| worker);
            let wide = || wide.iter().find(|(wide, _)| name.ends_with(&wide[1..])).map(|(_, worker)| *worker);
            route.or_else(wide).or_else(|| self.domains.get(name).map(|(_, worker)| worker)).cloned()
        };
        names.filter_map(|name| Some((name.to_owned(), answer(name)?))).collect()
    }

    /// Asserts that each host points to its old or its new worker.
    fn check_hosts(&self) {
        let answers = if self.answering.is_empty() { BTreeMap::new() } else { self.answers() };
        for (name, workers) in &self.answering {
            let answers = answers.get(name);
            assert!(
                answers.is_some_and(|worker| workers.contains(worker)),
                "{name} is {answers:?}'s, not {workers:?}'s"
            );
        }
        for (host, workers) in &self.expected {
            let holder = self.domains.get(host).or_else(|| self.routes.get(host)).map(|(_, holder)| holder);
            assert!(
                holder.is_some_and(|holder| workers.contains(holder)),
                "{host} points to {holder:?}, not {workers:?}"
            );
        }
    }
}

/// The ways in which a call fails.
#[derive(Clone, Debug)]
enum Fault {
    Throttled(Option<u64>),
    /// The answer is lost, after the call was applied or before.
    Lost {
        applied: bool,
    },
    Rejected,
    Concurrent,
    Unauthorized,
    /// The program dies at this call.
    Crash {
        applied: bool,
    },
}

/// The time after which the platform answers.
const LATENCY: Duration = Duration::from_millis(100);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chooses the fault of a call: by its words, and the number of earlier calls with the same words.
type Faults = Box<dyn Fn(&str, usize) -> Option<Fault> + Send + Sync>;

#[derive(Default)]
struct Log {
    world: World,
    /// Every call: when, what, and whether its answer was a success.
    calls: Vec<(Duration, String, bool)>,
    asked: HashMap<String, usize>,
    crashed: bool,
}

struct Fake {
    log: Mutex<Log>,
    faults: Mutex<Faults>,
    clock: Arc<FakeClock>,
    /// The workers that report that they are unhealthy.
    unhealthy: Mutex<BTreeSet<String>>,
}

/// Describes a call in words: `upload w-a`. The same call again has the same words.
fn words(call: &Call, world: &World) -> String {
    let name_of = |things: &BTreeMap<String, (String, String)>, id: &str| {
        things.iter().find(|(_, (other, _))| other == id).map_or_else(|| format!("gone {id}"), |(name, _)| name.clone())
    };
    match call {
        Call::Upload { worker, .. } => format!("upload {worker}"),
        Call::Delete { worker, .. } => format!("delete {worker}"),
        Call::SetWorkersDev { worker, on, .. } => format!("workers.dev {worker} {on}"),
        Call::SetCrons { worker, crons } => format!("crons {worker} {crons:?}"),
        Call::AttachDomain { worker, domain } => format!("attach {domain} {worker}"),
        Call::MoveDomain { worker, domain } => format!("move {domain} {worker}"),
        Call::DetachDomain { id } => format!("detach {}", name_of(&world.domains, id)),
        Call::FindDomain { domain, .. } => format!("find {domain}"),
        Call::FindZone { name } => format!("zone {name}"),
        Call::AddRoute { worker, pattern, .. } => format!("route {pattern} {worker}"),
        Call::ListRoutes { zone_id, .. } => format!("routes of {zone_id}"),
        Call::MoveRoute { worker, pattern, .. } => format!("move {pattern} {worker}"),
        Call::RemoveRoute { id, .. } => format!("unroute {}", name_of(&world.routes, id)),
        Call::ListDatabases { name, .. } => format!("databases {name:?} 1"),
        Call::CreateDatabase { name, .. } => format!("create database {name}"),
        Call::QueryDatabase { id, sql } => match migration_of(sql) {
            Some(number) => format!("migrate {id} {number}"),
            None => format!("read {id}"),
        },
        Call::ReadBookmark { id } => format!("bookmark {id}"),
        Call::ListKv { .. } => "tables 1".to_owned(),
        Call::CreateKv { title } => format!("create table {title}"),
        Call::PutKeys { pairs, .. } => format!("put {} {}", pairs.len(), pairs[0].0),
        Call::DeleteKeys { keys, .. } => format!("drop {} {}", keys.len(), keys[0]),
        _ => unreachable!("a deploy makes no such call"),
    }
}

/// The number of the migration that a query applies.
fn migration_of(sql: &str) -> Option<usize> {
    sql.rsplit_once("VALUES ('")?.1.split('.').next()?.parse().ok()
}

fn rejected(status: u16, code: u64, message: &str) -> CallError {
    CallError::Rejected { status, code, message: message.to_owned() }
}

impl World {
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("id{}", self.ids)
    }

    /// Applies a call, as Cloudflare does.
    fn apply(&mut self, call: &Call) -> Result<Reply, CallError> {
        let there = |world: &World, worker: &String| match world.scripts.contains_key(worker) {
            true => {
                let called = std::iter::once(worker).chain(&world.bound[worker]);
                let incomplete: Vec<_> = called.filter(|name| world.incomplete.contains(*name)).collect();
                assert!(incomplete.is_empty(), "{worker} gets requests, and {incomplete:?} isn't complete");
                Ok(())
            }
            false => Err(rejected(404, 10007, "This Worker does not exist on your account.")),
        };
        match call {
            Call::Upload { worker, metadata, .. } => {
                let bindings = || metadata["bindings"].as_array().into_iter().flatten();
                let services: BTreeSet<String> =
                    bindings().filter_map(|binding| Some(binding["service"].as_str()?.to_owned())).collect();
                if services.iter().any(|name| name != worker && !self.scripts.contains_key(name)) {
                    return Err(rejected(400, 10143, "there is no such Worker"));
                }
                for binding in bindings().filter(|binding| binding["type"] == "d1") {
                    let id = binding["database_id"].as_str().expect("a database has an id when it is uploaded");
                    if !self.databases.values().any(|known| known == id) {
                        return Err(rejected(400, 10181, "there is no such database"));
                    }
                }
                let digest =
                    metadata["tags"][0].as_str().and_then(|tag| tag.strip_prefix("digest-")).expect("a digest");
                match metadata["whole"] == digest {
                    true => self.incomplete.remove(worker),
                    false => {
                        assert_eq!(
                            self.scripts.get(worker),
                            self.scripts.get(worker).filter(|_| self.incomplete.contains(worker))
                        );
                        self.incomplete.insert(worker.clone())
                    }
                };
                self.bound.insert(worker.clone(), services);
                self.scripts.insert(worker.clone(), digest.to_owned());
                Ok(Reply::Uploaded(Uploaded { etag: self.id(), ..Uploaded::default() }))
            }
            Call::Delete { worker, .. } => {
                let leads = self.hosts.iter().find(|(_, to)| *to == worker);
                assert_eq!(leads, None, "a host leads to a worker that is being deleted");
                self.scripts.remove(worker);
                self.workers_dev.remove(worker);
                self.crons.remove(worker);
                self.incomplete.remove(worker);
                Ok(Reply::Done)
            }
            Call::SetWorkersDev { worker, on, .. } => {
                there(self, worker)?;
                if *on {
                    self.workers_dev.insert(worker.clone())
                } else {
                    self.workers_dev.remove(worker)
                };
                Ok(Reply::Done)
            }
            Call::SetCrons { worker, crons } => {
                there(self, worker)?;
                self.crons.insert(worker.clone(), crons.iter().cloned().collect());
                Ok(Reply::Done)
            }
            Call::AttachDomain { worker, domain } => {
                there(self, worker)?;
                if let Some((id, holder)) = self.domains.get(domain) {
                    return if holder == worker {
                        Ok(Reply::Id(id.clone()))
                    } else {
                        Err(rejected(409, 100_116, &format!("{domain} is already attached to the Worker {holder}")))
                    };
                }
                let id = self.id();
                self.domains.insert(domain.clone(), (id.clone(), worker.clone()));
                Ok(Reply::Id(id))
            }
            Call::MoveDomain { worker, domain } => {
                there(self, worker)?;
                let (id, holder) = self.domains.get_mut(domain).expect("it was looked for just now");
                holder.clone_from(worker);
                Ok(Reply::Id(id.clone()))
            }
            Call::MoveRoute { worker, pattern, id, .. } => match self.routes.get_mut(pattern) {
                Some((other, holder)) if other == id => {
                    holder.clone_from(worker);
                    Ok(Reply::Id(id.clone()))
                }
                _ => Err(rejected(404, 10007, "there is no such route")),
            },
            Call::DetachDomain { id } => {
                self.domains.retain(|_, (other, _)| other != id);
                Ok(Reply::Done)
            }
            Call::FindDomain { worker, domain } => Ok(match self.domains.get(domain) {
                Some((id, holder)) if holder == worker => Reply::Id(id.clone()),
                Some((_, holder)) => Reply::HeldBy(Some(holder.clone())),
                None => Reply::Nothing,
            }),
            Call::FindZone { name } => {
                Ok(if name.starts_with("example.") { Reply::Id(format!("zone {name}")) } else { Reply::Nothing })
            }
            Call::AddRoute { worker, pattern, zone_id } => {
                assert_eq!(*zone_id, format!("zone {}", zone_of(pattern)));
                there(self, worker)?;
                if self.routes.contains_key(pattern) {
                    return Err(rejected(409, ROUTE_EXISTS, "A route with the same pattern already exists."));
                }
                let id = self.id();
                self.routes.insert(pattern.clone(), (id.clone(), worker.clone()));
                Ok(Reply::Id(id))
            }
            Call::ListRoutes { zone_id, .. } => {
                let of_zone = |(pattern, _): &(&String, _)| *zone_id == format!("zone {}", zone_of(pattern));
                let route = |(pattern, (id, worker)): (&String, &(String, String))| ListedRoute {
                    id: id.clone(),
                    pattern: pattern.clone(),
                    worker: Some(worker.clone()),
                };
                Ok(Reply::Routes(self.routes.iter().filter(of_zone).map(route).collect::<Vec<_>>().into()))
            }
            Call::RemoveRoute { id, .. } => {
                self.routes.retain(|_, (other, _)| other != id);
                Ok(Reply::Done)
            }
            Call::ListDatabases { name, .. } => {
                let listed =
                    self.databases.iter().filter(|(has, _)| name.as_ref().is_none_or(|name| has.contains(name)));
                let names: Vec<_> = listed.map(|(name, id)| (name.clone(), id.clone())).collect();
                Ok(Reply::Names(names.into()))
            }
            Call::CreateDatabase { name, .. } => {
                if self.databases.contains_key(name) {
                    return Err(rejected(400, DATABASE_EXISTS, "a database with this name exists"));
                }
                let id = self.id();
                self.databases.insert(name.clone(), id.clone());
                Ok(Reply::Id(id))
            }
            Call::QueryDatabase { id, sql } => {
                assert!(self.databases.values().any(|known| known == id));
                let applied = self.migrated.entry(id.clone()).or_default();
                match migration_of(sql) {
                    None if applied.is_empty() => {
                        Err(rejected(400, 7500, "no such table: d1_migrations: SQLITE_ERROR"))
                    }
                    None => {
                        let row = |number: &usize| json!({"name": format!("{number}.sql")});
                        Ok(Reply::Rows(applied.iter().map(row).collect()))
                    }
                    Some(number) if applied.contains(&number) => {
                        Err(rejected(400, 7500, "UNIQUE constraint failed: d1_migrations.name: SQLITE_CONSTRAINT"))
                    }
                    Some(number) => {
                        assert_eq!(number, applied.len() + 1, "in order");
                        assert_eq!(sql.contains("CREATE TABLE IF NOT EXISTS"), applied.is_empty());
                        applied.push(number);
                        Ok(Reply::Rows(Vec::new()))
                    }
                }
            }
            Call::ReadBookmark { id } => Ok(Reply::Value(format!("bookmark of {id}"))),
            Call::ListKv { .. } => {
                let listed = self.tables.iter().map(|(title, id)| (title.clone(), id.clone()));
                Ok(Reply::Names(listed.collect::<Vec<_>>().into()))
            }
            Call::CreateKv { title } => {
                if self.tables.contains_key(title) {
                    return Err(rejected(400, KV_EXISTS, "a namespace with this title exists"));
                }
                let id = self.id();
                self.tables.insert(title.clone(), id.clone());
                Ok(Reply::Id(id))
            }
            Call::PutKeys { namespace_id, pairs } => {
                assert!(self.tables.values().any(|id| id == namespace_id) && pairs.len() <= KEYS_PER_CALL);
                for (host, worker) in pairs.iter() {
                    assert!(self.scripts.contains_key(worker), "{host} would lead to {worker}, which isn't there");
                    self.hosts.insert(host.clone(), worker.clone());
                }
                Ok(Reply::Done)
            }
            Call::DeleteKeys { namespace_id, keys } => {
                assert!(self.tables.values().any(|id| id == namespace_id) && keys.len() <= KEYS_PER_CALL);
                self.hosts.retain(|host, _| !keys.contains(host));
                Ok(Reply::Done)
            }
            _ => unreachable!("a deploy makes no such call"),
        }
    }
}

impl Platform for Fake {
    fn call(&self, _: &Home, call: &Call) -> (Result<Reply, CallError>, Option<Quota>) {
        let mut log = lock(&self.log);
        if log.crashed {
            drop(log);
            die();
        }
        let words = words(call, &log.world);
        let nth = log.asked.entry(words.clone()).or_insert(0);
        *nth += 1;
        let fault = lock(&self.faults)(&words, *nth);
        let result = match fault {
            None => log.world.apply_checked(call),
            Some(Fault::Throttled(seconds)) => {
                Err(CallError::Throttled { retry_after: seconds.map(Duration::from_secs) })
            }
            Some(Fault::Lost { applied }) => {
                if applied {
                    let _ = log.world.apply_checked(call);
                }
                Err(CallError::Unavailable("the connection broke".to_owned()))
            }
            Some(Fault::Rejected) => Err(rejected(400, 10021, "it is not to our liking")),
            Some(Fault::Concurrent) => Err(rejected(409, CONCURRENT_CHANGE, "two at once")),
            Some(Fault::Unauthorized) => Err(CallError::Unauthorized("the token is refused".to_owned())),
            Some(Fault::Crash { applied }) => {
                if applied {
                    let _ = log.world.apply_checked(call);
                }
                log.crashed = true;
                log.calls.push((self.clock.now(), words, false));
                drop(log);
                die();
            }
        };
        log.calls.push((self.clock.now(), words, result.is_ok()));
        (result, None)
    }

    fn health(&self, check: &HealthCheck) -> Health {
        let address = &check.address;
        lock(&self.log).calls.push((self.clock.now(), format!("health {address}"), true));
        match lock(&self.log).world.scripts.get(address) {
            _ if lock(&self.unhealthy).contains(address) => Health::Unhealthy("degraded".to_owned()),
            Some(digest) if *digest == check.placeholders.digest => Health::Healthy,
            Some(digest) => Health::Unhealthy(format!("digest is {digest}, not {}", check.placeholders.digest)),
            None => Health::Unreachable("no connection".to_owned()),
        }
    }
}

/// A check that the worker of a change runs what was uploaded; its address is its name.
fn health_check(change: &Change) -> HealthCheck {
    let probe = serde_json::from_value(json!({ "name": "health", "path": "/health" })).unwrap();
    let placeholders = Placeholders { digest: change.digest.to_string(), ..Placeholders::default() };
    HealthCheck::new(&[probe], change.worker.clone(), placeholders).unwrap()
}

/// Silently ends the thread; the deploy then ends as a whole.
fn die() -> ! {
    resume_unwind(Box::new("the program is killed"))
}

/// Makes the uploads of a fleet.
fn maker(fleet: &Fleet) -> impl Fn(&Change) -> Result<Upload, String> + Send + Sync + use<> {
    let source = fleet.clone();
    move |change: &Change| {
        let bundle = bundle(&change.customer, &source[&change.customer]);
        let stored = Stored {
            module: bundle.module,
            runtime: bundle.runtime,
            runtime_file: String::new(),
            metadata: bundle.metadata,
            source: json!(null),
        };
        let record = UploadRecord { secrets: BTreeMap::new(), stored, objects: Vec::new() };
        let (whole, bindings) = (bundle.digest, &record.stored.metadata["bindings"]);
        let metadata = json!({"whole": whole, "tags": [format!("digest-{whole}")], "bindings": bindings});
        Ok(Upload { metadata, modules: Vec::new(), assets: None, record })
    }
}

/// A platform, a state in a file, and a clock.
struct Bench {
    folder: TempDir,
    fake: Arc<Fake>,
    clock: Arc<FakeClock>,
    rate: Rate,
    /// Stops the deploy after this number of changes.
    stop_after: usize,
    waves: Vec<Wave>,
    budget: Budget,
}

impl Bench {
    fn new() -> Bench {
        let folder = state_folder();
        let clock: Arc<FakeClock> = Arc::default();
        let fake = Arc::new(Fake {
            log: Mutex::default(),
            faults: Mutex::new(Box::new(|_, _| None)),
            clock: Arc::clone(&clock),
            unhealthy: Mutex::default(),
        });
        let rate = Rate::of(1000, Duration::from_secs(60));
        let budget = Budget { count: usize::MAX, ..Budget::default() };
        Bench { folder, fake, clock, rate, stop_after: usize::MAX, waves: Vec::new(), budget }
    }

    /// Makes these calls fail: their words, the number of the call (0: each), and the fault.
    fn faults(&self, faults: &[(&'static str, usize, Fault)]) {
        let faults = faults.to_vec();
        *lock(&self.fake.faults) = Box::new(move |words, nth| {
            let hit = |(what, which, _): &&(&str, usize, Fault)| words == *what && (*which == 0 || *which == nth);
            faults.iter().find(hit).map(|(_, _, fault)| fault.clone())
        });
        lock(&self.fake.log).asked.clear();
    }

    fn state(&self) -> State {
        State::open(&self.folder.path().join("state.db")).expect("the state opens")
    }

    /// The plan of a whole fleet, orphans deleted.
    fn plan(&self, fleet: &Fleet) -> Plan {
        self.plan_from(&self.state(), fleet)
    }

    fn plan_from(&self, state: &State, fleet: &Fleet) -> Plan {
        let home = |account: &str| Home { account_id: account.to_owned(), namespace: None };
        let (mut in_flight, deployed) = (state.in_flight().unwrap(), state.deployed().unwrap());
        let options = Options {
            whole: true,
            prune: true,
            homes: BTreeSet::from([home("one"), home("two")]),
            waves: &self.waves,
            ..Options::default()
        };
        let contested = Contested::of(&in_flight);
        let mut planner = Planner::new(&options);
        for (customer, desired) in fleet {
            let (worker, bundle) = (worker(customer, desired), bundle(customer, desired));
            let id = (home(&worker.account), worker.name.clone());
            let found = state.cached_id(&worker.account, ResourceKind::Database, &format!("db-{customer}")).unwrap();
            let contested = deployed.get(&id).map(|live| contested.of_worker(&id, live)).unwrap_or_default();
            let unknown = [format!("db-{customer}")];
            let known = RecordedWorker {
                contested: &contested,
                live: deployed.get(&id),
                in_flight: in_flight.get(&id),
                unknown_databases: if found.is_some() || !desired.database { &[] } else { &unknown },
                ..RecordedWorker::default()
            };
            let desired = Desired { home: id.0.clone(), worker: &worker, bundle: &bundle, secrets: BTreeMap::new() };
            let decision = plan::decide(&desired, &known, &options);
            if let Some(wanted) = fleet.get(customer).filter(|wanted| wanted.migrations > 0) {
                let all = migrations(wanted.migrations);
                let recorded = found.as_ref().and_then(|found| {
                    let table = all.table.clone();
                    let of = DatabaseId { account_id: worker.account.clone(), id: found.clone(), table };
                    state.database(&of).unwrap()
                });
                if let DatabaseDecision::Behind { pending, reads_table } = decide_database(&all, recorded.as_ref()) {
                    let name = format!("db-{customer}");
                    let reference = DatabaseReference { name, id: found, jurisdiction: None, location_hint: None };
                    let labels = BTreeMap::new();
                    let user = DatabaseUser {
                        id: &id,
                        customer,
                        labels: &labels,
                        environment: worker.environment,
                        account: &worker.account,
                        is_new: reference.id.is_none(),
                    };
                    planner.add_database(&user, &reference, &all, (pending, reads_table));
                }
            }
            planner.add(&id, decision);
            planner.add_hosts(&id, &worker.account, worker.hosts.as_ref(), false);
        }
        for (id, live) in &deployed {
            planner.gone(id, Some(live), in_flight.remove(id).as_ref());
        }
        for (id, in_flight) in &in_flight {
            planner.gone(id, None, Some(in_flight));
        }
        let in_flight = state.in_flight().unwrap();
        let acquired = planner.acquired();
        let ids: BTreeSet<_> = deployed.keys().chain(in_flight.keys()).collect();
        let mut holders = Holders::default();
        for id in ids {
            let sure = hosts_of(deployed.get(id), None);
            for host in hosts_of(deployed.get(id), in_flight.get(id)) {
                if acquired.contains(&id.0.account_id, &host) {
                    let holder = Holder { id: id.clone(), customer: String::new(), giver: Giver::Free };
                    let is_sure = sure.contains(&host);
                    holders.add(host, holder, is_sure);
                }
            }
        }
        planner.hand_over(&holders);
        planner.finish_with(&state.hosts().unwrap(), &|_| false)
    }

    /// Deploys once; none if the program was killed.
    fn try_deploy(&self, fleet: &Fleet) -> Option<Outcome> {
        let plan = self.plan(fleet);
        let mut state = self.state();
        self.expect_hosts(fleet);
        lock(&self.fake.log).crashed = false;
        let result = catch_unwind(AssertUnwindSafe(|| self.apply(&plan, fleet, &mut state)));
        assert_eq!(result.is_err(), lock(&self.fake.log).crashed, "it ends early only when it is killed");
        result.ok().map(|outcome| outcome.expect("the state can be written"))
    }

    /// From now on, each host that points to a worker and is still wanted points to that worker or the wanted one after every call.
    fn expect_hosts(&self, fleet: &Fleet) {
        let mut log = lock(&self.fake.log);
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        let mut account_of: BTreeMap<String, String> = BTreeMap::new();
        for (customer, desired) in fleet {
            account_of.insert(format!("w-{customer}"), desired.account.clone());
            for host in desired.domains.iter().chain(&desired.routes) {
                wanted.insert(host.clone(), format!("w-{customer}"));
            }
        }
        for ((home, worker), _) in self.state().deployed().unwrap() {
            let account = account_of.entry(worker).or_insert_with(|| home.account_id.clone());
            if *account != home.account_id {
                *account = "both".to_owned();
            }
        }
        let World { domains, routes, .. } = &log.world;
        // No request moves a host to another account, and none moves a worker there.
        let stays = |old: &String, new: &String| account_of.get(old) == account_of.get(new);
        let expected = domains.iter().chain(routes).filter_map(|(host, (_, old))| {
            let new = wanted.get(host)?;
            stays(old, new).then(|| (host.clone(), [old.clone(), new.clone()]))
        });
        log.world.expected = expected.collect();
    }

    fn apply(&self, plan: &Plan, fleet: &Fleet, state: &mut State) -> Result<Outcome, Failure> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let make = maker(fleet);
        let lane = |_| Arc::new(Lane::new(self.rate, Arc::clone(&clock)));
        let left = Cell::new(self.stop_after);
        let reports = RefCell::new(Vec::new());
        let outcome = deploy(
            plan,
            DeployContext {
                pool: Box::new(Rehearsal::new(self.fake.as_ref(), &make, Arc::clone(&clock), LATENCY, 64)),
                clock: Arc::clone(&clock),
                lanes: (0..2).map(lane).collect(),
                lane_of: HashMap::from([("one".to_owned(), LaneId::new(0)), ("two".to_owned(), LaneId::new(1))]),
                state,
                run: RunId(1),
                concurrent_run: None,
                ownership: None,
                budget: self.budget,
                health_check: Box::new(|change, _, _| Some(health_check(change))),
                control: Box::new(|| if left.get() == 0 { Control::Stop } else { Control::Continue }),
                on_event: Box::new(|event| {
                    if let Event::Applied(change) = event {
                        left.set(left.get().saturating_sub(1));
                        reports.borrow_mut().push(change.worker.clone());
                    }
                }),
            },
        )?;
        assert_eq!(reports.borrow().len(), outcome.applied, "who hears of it hears of each");
        Ok(outcome)
    }

    fn deploy(&self, fleet: &Fleet) -> Outcome {
        self.try_deploy(fleet).expect("it isn't killed")
    }

    /// Returns the calls since the last call of this function, in order: in words, and whether each succeeded.
    fn calls(&self) -> Vec<(String, bool)> {
        let calls = std::mem::take(&mut lock(&self.fake.log).calls);
        calls.into_iter().map(|(_, words, done)| (words, done)).collect()
    }

    /// The calls in words, sorted: several threads make them.
    fn called(&self) -> Vec<String> {
        let mut words: Vec<String> = self.calls().into_iter().map(|(words, _)| words).collect();
        words.sort();
        words
    }

    /// Asserts that the platform is in the fleet's desired state, and that no changes are left.
    #[track_caller]
    fn converged(&self, fleet: &Fleet) {
        self.converged_in(&self.state(), fleet);
    }

    #[track_caller]
    fn converged_in(&self, state: &State, fleet: &Fleet) {
        let mut world = lock(&self.fake.log).world.clone();
        world.ids = 0;
        world.expected.clear();
        for (_, (id, _)) in world.domains.iter_mut().chain(world.routes.iter_mut()) {
            id.clear();
        }
        world.crons.retain(|_, crons| !crons.is_empty());
        // Neither databases nor KV namespaces are ever deleted.
        world.tables.clear();
        world.bound.clear();
        let databases = std::mem::take(&mut world.databases);
        let migrated = std::mem::take(&mut world.migrated);
        let mut wanted = World::default();
        for (customer, desired) in fleet {
            let name = format!("w-{customer}");
            wanted.scripts.insert(name.clone(), bundle(customer, desired).digest.to_string());
            if desired.workers_dev {
                wanted.workers_dev.insert(name.clone());
            }
            if !desired.crons.is_empty() {
                wanted.crons.insert(name.clone(), desired.crons.clone());
            }
            let held = |thing: &String| (thing.clone(), (String::new(), name.clone()));
            wanted.domains.extend(desired.domains.iter().map(held));
            wanted.routes.extend(desired.routes.iter().map(held));
            wanted.hosts.extend(desired.hosts.iter().map(|host| (host.clone(), name.clone())));
            let database = databases.get(&format!("db-{customer}"));
            assert!(!desired.database || database.is_some());
            if desired.migrations > 0 {
                let all: Vec<usize> = (1..=desired.migrations).collect();
                assert_eq!(database.and_then(|id| migrated.get(id)), Some(&all), "{customer}");
            }
        }
        assert_eq!(world, wanted);
        let plan = self.plan_from(state, fleet);
        assert_eq!((plan.changes, plan.hosts, plan.databases), (Vec::new(), Vec::new(), Vec::new()));
    }
}

fn fleet<const N: usize>(customers: [(String, DesiredState); N]) -> Fleet {
    BTreeMap::from(customers)
}

/// A customer with a worker and a database.
fn with_database(customer: &str) -> (String, DesiredState) {
    let (customer, desired) = bare(customer);
    (customer, DesiredState { database: true, ..desired })
}

/// Generates a fleet of up to five customers over a few hosts, each of at most one customer.
fn fleets() -> impl Strategy<Value = Fleet> {
    let customer = (any::<bool>(), 1u32..4, any::<bool>(), 0usize..3, any::<bool>());
    let holders = prop::collection::vec(0usize..8, 9);
    (prop::collection::vec(customer, 5), holders).prop_map(|(customers, holders)| {
        let names = ["a", "b", "c", "d", "e"];
        let mut fleet = Fleet::new();
        for (index, (there, version, workers_dev, crons, database)) in customers.into_iter().enumerate() {
            if there {
                let (customer, desired) = bare(names[index]);
                let crons = (0..crons).map(|minute| format!("{minute} * * * *")).collect();
                fleet.insert(customer, DesiredState { version, workers_dev, crons, database, ..desired });
            }
        }
        for (host, holder) in holders.into_iter().enumerate() {
            if let Some(desired) = names.get(holder).and_then(|name| fleet.get_mut(*name)) {
                if host < 3 {
                    desired.domains.insert(format!("h{host}.example.com"));
                } else if host < 6 {
                    desired.routes.insert(format!("h{host}.example.org/*"));
                } else {
                    desired.hosts.insert(format!("h{host}.example.net"));
                }
            }
        }
        fleet
    })
}

/// A folder for a state, in memory where that can be: each of thousands of runs records each of its steps, and waits for the disk.
fn state_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}
