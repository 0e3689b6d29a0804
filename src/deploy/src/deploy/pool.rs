//! Pools that make a deploy's requests: with threads, or in a rehearsal. They know how to make requests, not when or
//! why.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use blocking_threadpool::{Builder, ThreadPool};
use serde_json::Value;

use super::schedule::RequestId;
use super::{MakeUpload, UploadRecord};
use crate::plan::Change;
use flotilla_model::assets;
use flotilla_model::bundle::{MIGRATIONS, Resource, with_ids, without_workers};
use flotilla_model::clock::Clock;
use flotilla_model::platform::{Call, CallError, Health, HealthCheck, Home, Platform, Quota, Reply, Token};

/// The ids that the names in a bundle stand for.
pub type Ids = Vec<(Resource, String, String)>;

/// The parts of an upload that are known only when it is sent.
#[derive(Default)]
pub struct Extras {
    /// The migrations that it goes through.
    pub migrations: Option<Value>,
    /// The token that stands for its static assets.
    pub token: Option<Token>,
    /// The workers to which it has no bindings yet, if its worker is only created now and completed later.
    pub without: Option<Vec<String>>,
}

/// A request, as the pool makes it.
pub enum Job {
    /// A request.
    Call(Home, Call),
    /// An upload, with the ids that it needs and what was found out for it: made when it is its turn, so that no more than what is in flight is
    /// in memory.
    Upload(Box<Change>, Ids, Extras),
    /// The beginning of a session of static assets, likewise.
    AssetSession(Box<Change>),
    /// The upload of these files in a session, likewise.
    Assets(Box<Change>, Token, Vec<String>),
    /// A health check.
    Health(Box<HealthCheck>),
}

impl Job {
    /// A request that is about an account, and no worker of it.
    pub(super) fn of_account(account_id: String, call: Call) -> Job {
        Job::Call(Home { account_id, namespace: None }, call)
    }
}

/// The answer to a job.
pub enum Answer {
    /// The answer to a request; that to an upload comes with what the state keeps of it.
    Called(Result<Reply, CallError>, Option<Quota>, Option<Box<UploadRecord>>),
    /// The upload could not be made, for this reason.
    NotMade(String),
    /// The health of the worker.
    Health(Health),
}

/// Makes requests, several at once.
pub trait Pool {
    /// The most jobs at once.
    fn size(&self) -> usize;
    /// Begins a job; its answer comes from [`Pool::wait`] under the same id.
    fn submit(&mut self, id: RequestId, job: Job);
    /// Waits for responses, but not longer than until a time of the clock; returns those that have arrived.
    fn wait(&mut self, until: Duration) -> Vec<(RequestId, Answer)>;
}

/// Answers a job. This is all that a rehearsal and a deploy have in common with a platform.
pub(super) fn answer(platform: &dyn Platform, make: &MakeUpload, job: Job) -> Answer {
    match job {
        Job::Call(home, call) => {
            let (result, quota) = platform.call(&home, &call);
            Answer::Called(result, quota, None)
        }
        Job::AssetSession(change) => match make.assets(&change) {
            Err(why) => Answer::NotMade(why),
            Ok(assets) => {
                let call = Call::OpenAssets { worker: change.worker.clone(), manifest: assets.list.manifest() };
                let (result, quota) = platform.call(&change.home, &call);
                Answer::Called(result, quota, None)
            }
        },
        Job::Assets(change, session, files) => {
            let made = make.assets(&change).and_then(|assets| files.iter().map(|hash| assets.body(hash)).collect());
            match made {
                Err(why) => Answer::NotMade(why),
                Ok(files) => {
                    let (result, quota) = platform.call(&change.home, &Call::UploadAssets { session, files });
                    Answer::Called(result, quota, None)
                }
            }
        }
        Job::Upload(change, ids, Extras { migrations, token, without }) => match make.upload(&change) {
            Err(why) => Answer::NotMade(why),
            Ok(mut upload) => {
                let id = |resource, name: &str| {
                    ids.iter().find(|(of, known, _)| *of == resource && known == name).map(|(_, _, id)| id.clone())
                };
                if let Err(name) = with_ids(&mut upload.metadata, id) {
                    return Answer::NotMade(format!("the id of `{name}` is unknown"));
                }
                if let Some(migrations) = migrations {
                    upload.metadata[MIGRATIONS] = migrations;
                }
                if let Some(names) = &without {
                    without_workers(&mut upload.metadata, names, &change.digest);
                } else if let Some(list) = &upload.assets {
                    assets::complete(&mut upload.metadata, token.as_ref().map(Token::expose), list);
                }
                let call =
                    Call::Upload { worker: change.worker.clone(), metadata: upload.metadata, modules: upload.modules };
                let (result, quota) = platform.call(&change.home, &call);
                Answer::Called(result, quota, Some(Box::new(upload.record)))
            }
        },
        Job::Health(check) => Answer::Health(platform.health(&check)),
    }
}

/// Threads.
pub struct Threads {
    platform: Arc<dyn Platform>,
    make: Arc<MakeUpload>,
    clock: Arc<dyn Clock>,
    size: usize,
    pool: ThreadPool,
    sender: Sender<(RequestId, Option<Answer>)>,
    answers: Receiver<(RequestId, Option<Answer>)>,
}

impl Threads {
    /// A pool of this number of threads.
    pub fn new(size: usize, platform: Arc<dyn Platform>, make: Arc<MakeUpload>, clock: Arc<dyn Clock>) -> Threads {
        let pool = Builder::new().num_threads(size).queue_len(size).thread_name("deploy".to_owned()).build();
        let (sender, answers) = channel();
        Threads { platform, make, clock, size, pool, sender, answers }
    }
}

impl Pool for Threads {
    fn size(&self) -> usize {
        self.size
    }

    fn submit(&mut self, id: RequestId, job: Job) {
        let (platform, make, sender) = (Arc::clone(&self.platform), Arc::clone(&self.make), self.sender.clone());
        self.pool.execute(move || {
            // A panic is reported to the loop, which would wait forever otherwise.
            let answered = catch_unwind(AssertUnwindSafe(|| answer(platform.as_ref(), make.as_ref(), job)));
            // Before the response is known: the deploy ends with the last one, and nothing holds its inputs any more.
            drop((platform, make));
            let _ = sender.send((id, answered.ok()));
        });
    }

    fn wait(&mut self, until: Duration) -> Vec<(RequestId, Answer)> {
        let left = until.saturating_sub(self.clock.now());
        let first = match self.answers.recv_timeout(left) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return Vec::new(),
            Err(RecvTimeoutError::Disconnected) => unreachable!("BUG: the pool itself holds a sender"),
        };
        let all = std::iter::once(first).chain(self.answers.try_iter());
        all.map(|(id, answered)| (id, answered.expect("BUG: a request panicked"))).collect()
    }
}

/// A pool without threads: it answers after a latency of a clock that waiting moves, so that hours pass in seconds, each
/// time alike.
pub struct Rehearsal<'a> {
    platform: &'a dyn Platform,
    make: &'a MakeUpload,
    clock: Arc<dyn Clock>,
    latency: Duration,
    size: usize,
    /// The times at which answers arrive, in order; answers of the same time in the order of their requests.
    due: BinaryHeap<Reverse<(Duration, u64, RequestId)>>,
    answers: HashMap<RequestId, Answer>,
    sequence: u64,
}

impl<'a> Rehearsal<'a> {
    /// Returns a pool whose answers take as long as `latency`.
    pub fn new(
        platform: &'a dyn Platform,
        make: &'a MakeUpload,
        clock: Arc<dyn Clock>,
        latency: Duration,
        size: usize,
    ) -> Rehearsal<'a> {
        Rehearsal { platform, make, clock, latency, size, due: BinaryHeap::new(), answers: HashMap::new(), sequence: 0 }
    }
}

impl Pool for Rehearsal<'_> {
    fn size(&self) -> usize {
        self.size
    }

    fn submit(&mut self, id: RequestId, job: Job) {
        self.sequence += 1;
        self.due.push(Reverse((self.clock.now() + self.latency, self.sequence, id)));
        self.answers.insert(id, answer(self.platform, self.make, job));
    }

    fn wait(&mut self, until: Duration) -> Vec<(RequestId, Answer)> {
        let now = self.clock.now();
        let next = self.due.peek().map_or(until, |Reverse((at, ..))| (*at).min(until));
        self.clock.sleep(next.saturating_sub(now));
        let now = self.clock.now();
        let mut answers = Vec::new();
        while self.due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, id))) = self.due.pop() else { break };
            answers.push((id, self.answers.remove(&id).expect("BUG: each one that is due has an answer")));
        }
        answers
    }
}
