//! The seam to the platform: the calls that a deploy makes, and what can come back. Knows no HTTP.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::binding::OwnWorkflow;
use crate::paging::{Entry, ListPage, Page, Unsteady};
use crate::spec::{Jurisdiction, LocationHint, Probe, QueueConsumer};
use crate::uploaded::Uploaded;

/// A route that already exists. Source: Cloudflare's API, error 10020 of worker routes.
pub const ROUTE_EXISTS: u64 = 10020;
/// Concurrent changes of one resource: to be repeated. Source: Cloudflare's API, error 10035.
pub const CONCURRENT_CHANGE: u64 = 10035;

/// A D1 database that doesn't exist. Source: public clients' probes, and wrangler.
pub const DATABASE_MISSING: u64 = 7404;
/// A D1 database that already exists. Source: Cloudflare's API, error 7502 of D1.
pub const DATABASE_EXISTS: u64 = 7502;
/// A binding to a D1 database, or to a KV namespace, that doesn't exist. Source: the codes that wrangler's users report.
pub const BINDING_MISSING: [u64; 2] = [10181, 10041];
/// A KV namespace whose title is taken. Source: Cloudflare's API, error 10014 of KV.
pub const KV_EXISTS: u64 = 10014;

/// A queue that already has a consumer. Source: workers-sdk, issue 5347.
pub const CONSUMER_EXISTS: u64 = 11_004;
/// An upload whose migrations follow another tag than the live one. Source: workers-sdk, issue 705.
pub const MIGRATION_TAG_FAILED: u64 = 10_079;

/// A worker that doesn't exist; in a dispatch namespace, either. Source: Cloudflare docs, Workers › Errors, and public clients' probes.
pub const WORKER_MISSING: [u64; 2] = [10007, 10092];
/// A dispatch namespace that doesn't exist. Source: public clients' probes.
pub const DISPATCH_NAMESPACE_MISSING: u64 = 100_119;

/// Scripts on a page of a dispatch namespace's list. Source: cloudflare-docs, pull request 28765: at most 1,000.
pub const SCRIPTS_PER_PAGE: usize = 1000;
/// Databases on a page of their list. Source: Cloudflare's API, D1 › List D1 Databases: at most 10,000.
pub const DATABASES_PER_PAGE: usize = 10_000;
/// Zones on a page of their list, and accounts on one of theirs. Source: Cloudflare's API, Zones › List Zones and Accounts › List
/// Accounts: at most 50.
pub const ZONES_PER_PAGE: usize = 50;
/// KV namespaces on a page of their list. Source: Cloudflare's API, KV › List Namespaces: at most 100.
pub const KV_PER_PAGE: usize = 100;
/// Queues on a page of their list, and workflows on one of theirs. Source: the SDK cloudflare-typescript 7.3.0, queues and workflows.
pub const QUEUES_PER_PAGE: usize = 100;
/// Workflows on a page of their list.
pub const WORKFLOWS_PER_PAGE: usize = 100;
/// Keys that one call writes or removes. Source: Cloudflare's API, KV › Write multiple key-value pairs.
pub const KEYS_PER_CALL: usize = 10_000;

/// The home of a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// The account's id.
    pub account_id: String,
    /// The dispatch namespace, if it is in one.
    pub namespace: Option<String>,
}

/// A module of an upload.
#[derive(Clone)]
pub struct Module {
    /// Its name, with `/`.
    pub name: String,
    /// Its content type.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// A file of an upload of static assets.
#[derive(Clone)]
pub struct AssetBody {
    /// Its hash.
    pub hash: String,
    /// The content type with which it is answered, if it has one.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// A token of an upload session. Anyone who has it can upload files.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Returns the token of a text.
    pub fn new(text: String) -> Token {
        Token(text)
    }

    /// Returns the token as it is sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// One request to the platform. Each is safe to repeat.
#[derive(Clone)]
pub enum Call {
    /// Uploads a worker, in place of the one with its name. The metadata holds secrets.
    Upload {
        /// The worker's name.
        worker: String,
        /// The metadata.
        metadata: Value,
        /// The modules, the main one first.
        modules: Vec<Module>,
    },
    /// Opens a session in which the static assets of a worker are uploaded: [`Reply::Assets`].
    OpenAssets {
        /// The worker's name.
        worker: String,
        /// The list of files: hashes and sizes by paths.
        manifest: Value,
    },
    /// Uploads files of a session, with its token in the place of the account's: [`Reply::Assets`].
    UploadAssets {
        /// The session's token.
        session: Token,
        /// The files.
        files: Vec<AssetBody>,
    },
    /// Removes a worker.
    Delete {
        /// The worker's name.
        worker: String,
        /// Only if it carries this tag, which no other worker has: the platform checks it, in dispatch namespaces alone. If none
        /// carries it, the reply is [`Reply::Nothing`].
        tag: Option<String>,
    },
    /// Starts a tail: a stream of a worker's requests, console lines and exceptions. If there is no such worker, the reply is
    /// [`Reply::Nothing`].
    StartTail {
        /// The worker's name.
        worker: String,
        /// The filters that an event has to pass, in the platform's form.
        filters: Vec<Value>,
    },
    /// Ends a tail.
    DeleteTail {
        /// The worker's name.
        worker: String,
        /// The tail's id.
        id: String,
    },
    /// Turns a worker's addresses on workers.dev on or off.
    SetWorkersDev {
        /// The worker's name.
        worker: String,
        /// Whether it has one.
        on: bool,
        /// Whether each of its versions has one.
        previews: bool,
    },
    /// Replaces a worker's crons.
    SetCrons {
        /// The worker's name.
        worker: String,
        /// The crons.
        crons: Vec<String>,
    },
    /// Attaches a custom domain to a worker.
    AttachDomain {
        /// The worker's name.
        worker: String,
        /// The host name.
        domain: String,
    },
    /// Points a custom domain that another worker has to this one.
    MoveDomain {
        /// The worker's name.
        worker: String,
        /// The host name.
        domain: String,
    },
    /// Detaches a custom domain.
    DetachDomain {
        /// The domain's id.
        id: String,
    },
    /// Finds the id of a worker's domain. If another worker has it, the reply is [`Reply::HeldBy`].
    FindDomain {
        /// The worker's name.
        worker: String,
        /// The host name.
        domain: String,
    },
    /// Finds the id of a zone.
    FindZone {
        /// The zone's name.
        name: String,
    },
    /// Adds a route that points to a worker.
    AddRoute {
        /// The worker's name.
        worker: String,
        /// The zone's id.
        zone_id: String,
        /// The pattern.
        pattern: String,
    },
    /// Reads which worker a route points to: [`Reply::HeldBy`].
    ReadRoute {
        /// The zone's id.
        zone_id: String,
        /// The route's id.
        id: String,
    },
    /// Points a route that another worker has to this one.
    MoveRoute {
        /// The worker's name.
        worker: String,
        /// The zone's id.
        zone_id: String,
        /// The route's id.
        id: String,
        /// The pattern.
        pattern: String,
    },
    /// Removes a route.
    RemoveRoute {
        /// The zone's id.
        zone_id: String,
        /// The route's id.
        id: String,
    },
    /// Finds the account's part of its workers.dev addresses.
    FindSubdomain,
    /// Creates the dispatch namespace.
    CreateNamespace,
    /// Lists the workers of the home.
    ListWorkers {
        /// Only those that this filter of tags lets through: `a:yes,b:no`.
        tags: Option<String>,
        /// The page.
        page: Page,
    },
    /// Lists the custom domains of the account.
    ListDomains {
        /// The page.
        page: Page,
    },
    /// Lists the routes of a zone.
    ListRoutes {
        /// The zone's id.
        zone_id: String,
        /// The page.
        page: Page,
    },
    /// Reads whether a worker answers on workers.dev.
    ReadWorkersDev {
        /// The worker's name.
        worker: String,
    },
    /// Reads a worker's crons.
    ReadCrons {
        /// The worker's name.
        worker: String,
    },
    /// Reads a worker's settings: its bindings, without the values of secrets, and what else was uploaded with it.
    ReadSettings {
        /// The worker's name.
        worker: String,
    },
    /// Lists the names of a worker's secrets. Their values are never shown.
    ListSecrets {
        /// The worker's name.
        worker: String,
    },
    /// Reads a worker's tags.
    ReadTags {
        /// The worker's name.
        worker: String,
    },
    /// Reads a worker's code.
    ReadContent {
        /// The worker's name.
        worker: String,
    },
    /// Replaces a worker's tags, and nothing else of it.
    SetTags {
        /// The worker's name.
        worker: String,
        /// The tags.
        tags: Vec<String>,
    },
    /// Lists the account's D1 databases, a page of [`DATABASES_PER_PAGE`]; with a name, those that have it in theirs.
    ListDatabases {
        /// The name.
        name: Option<String>,
        /// The page.
        page: Page,
    },
    /// Creates a D1 database. If it already exists, the error is [`DATABASE_EXISTS`].
    CreateDatabase {
        /// Its name.
        name: String,
        /// The jurisdiction of its data.
        jurisdiction: Option<Jurisdiction>,
        /// A hint for its location.
        location_hint: Option<LocationHint>,
    },
    /// Deletes a D1 database, with all that is in it.
    DeleteDatabase {
        /// Its id.
        id: String,
    },
    /// Runs statements on a D1 database, all of them in one transaction: [`Reply::Rows`]. What was not answered may be done: only queries
    /// that can't take effect twice are sent again.
    QueryDatabase {
        /// Its id.
        id: String,
        /// The statements.
        sql: String,
    },
    /// Reads the bookmark to which a D1 database can be restored as it is now: [`Reply::Value`].
    ReadBookmark {
        /// Its id.
        id: String,
    },
    /// Lists the account's KV namespaces, a page of [`KV_PER_PAGE`].
    ListKv {
        /// The page.
        page: Page,
    },
    /// Creates a KV namespace. If it already exists, the error is [`KV_EXISTS`].
    CreateKv {
        /// Its title.
        title: String,
    },
    /// Lists the keys of a KV namespace.
    ListKeys {
        /// The namespace's id.
        namespace_id: String,
        /// The page.
        page: Page,
    },
    /// Reads a value of a KV namespace.
    ReadKey {
        /// The namespace's id.
        namespace_id: String,
        /// The key.
        key: String,
    },
    /// Writes values of a KV namespace.
    PutKeys {
        /// The namespace's id.
        namespace_id: String,
        /// Keys and values, at most [`KEYS_PER_CALL`].
        pairs: Arc<[(String, String)]>,
    },
    /// Removes values of a KV namespace; those that don't exist are no failure.
    DeleteKeys {
        /// The namespace's id.
        namespace_id: String,
        /// The keys, at most [`KEYS_PER_CALL`].
        keys: Arc<[String]>,
    },
    /// Lists the account's queues with their consumers, a page of [`QUEUES_PER_PAGE`]; with a name, those that have it.
    ListQueues {
        /// The name.
        name: Option<String>,
        /// The page.
        page: Page,
    },
    /// Creates a queue.
    CreateQueue {
        /// Its name.
        name: String,
    },
    /// Makes a worker the consumer of a queue.
    CreateConsumer {
        /// The worker's name.
        worker: String,
        /// The queue's id.
        queue_id: String,
        /// The settings.
        consumer: QueueConsumer,
    },
    /// Changes the settings of a worker that is the consumer of a queue.
    UpdateConsumer {
        /// The worker's name.
        worker: String,
        /// The queue's id.
        queue_id: String,
        /// The consumer's id.
        id: String,
        /// The settings.
        consumer: QueueConsumer,
    },
    /// Removes a consumer of a queue.
    DeleteConsumer {
        /// The queue's id.
        queue_id: String,
        /// The consumer's id.
        id: String,
    },
    /// Reads which worker a workflow is of: [`Reply::HeldBy`], or [`Reply::Nothing`].
    ReadWorkflow {
        /// Its name.
        name: String,
    },
    /// Deploys a workflow: which class of which worker it runs, and its settings.
    PutWorkflow {
        /// Its name.
        name: String,
        /// The request's body.
        workflow: OwnWorkflow,
    },
    /// Deletes a workflow with its instances.
    DeleteWorkflow {
        /// Its name.
        name: String,
    },
    /// Lists the account's workflows, a page of [`WORKFLOWS_PER_PAGE`].
    ListWorkflows {
        /// The page.
        page: Page,
    },
    /// Reads the status of the token that is sent with the call.
    VerifyToken {
        /// Whether it belongs to the account and not to a user: each has a path of its own.
        of_account: bool,
    },
    /// Lists the zones that the token reaches, in all accounts, a page of [`ZONES_PER_PAGE`]; with a name, that one.
    ListZones {
        /// The zone's name.
        name: Option<String>,
        /// The page.
        page: Page,
    },
    /// Lists the accounts that the token reaches, a page of [`ZONES_PER_PAGE`].
    ListAccounts {
        /// The page.
        page: Page,
    },
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// It is done, or found, and this is its id: a domain's, route's or zone's id, a subdomain.
    Id(String),
    /// A worker was uploaded.
    Uploaded(Uploaded),
    /// A session of static assets, or the next part of one.
    Assets {
        /// The token: of the session, or, if no file is missing any more, the one that stands for the assets in an upload.
        token: Option<Token>,
        /// The hashes of the missing files, by the requests that upload them.
        buckets: Vec<Vec<String>>,
    },
    /// The resource doesn't exist.
    Nothing,
    /// The resource exists, and this worker has it and not the one that was named; none: it points to no worker.
    HeldBy(Option<String>),
    /// The workers of a home.
    Workers(ListPage<ListedWorker>),
    /// The custom domains of an account.
    Domains(ListPage<ListedDomain>),
    /// The routes of a zone.
    Routes(ListPage<ListedRoute>),
    /// The addresses of a worker on workers.dev.
    WorkersDev {
        /// Whether it has one.
        on: bool,
        /// Whether each of its versions has one.
        previews: bool,
    },
    /// The crons of a worker.
    Crons(BTreeSet<String>),
    /// The names of a worker's secrets.
    Secrets(BTreeSet<String>),
    /// The tags of a worker, and what else decides whether it may be changed.
    Tags {
        /// Its tags.
        tags: Vec<String>,
        /// Whether it has Durable Objects of its own. Of a worker in a dispatch namespace, the answer doesn't say it.
        has_objects: bool,
    },
    /// A tail was started.
    Tail {
        /// Its id.
        id: String,
        /// The address of its stream. Anyone who knows it can read the stream.
        url: String,
        /// The time at which it ends, RFC 3339.
        expires_at: String,
    },
    /// The settings of a worker, in the platform's form.
    Settings(Value),
    /// The code of a worker.
    Content {
        /// The name of its main module; none if it is a script in the older form, without modules.
        main: Option<String>,
        /// Its modules.
        modules: Vec<ReadModule>,
    },
    /// The queues of an account.
    Queues(ListPage<ListedQueue>),
    /// The workflows of an account.
    Workflows(ListPage<ListedWorkflow>),
    /// The status of a token: `active`, `disabled`, `expired`.
    Token(String),
    /// The zones that a token reaches.
    Zones(ListPage<ListedZone>),
    /// A value, or a bookmark, as text.
    Value(String),
    /// The rows that the last statement of a query returned.
    Rows(Vec<Value>),
    /// Names, each with its id.
    Names(ListPage<(String, String)>),
}

/// A module as it was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadModule {
    /// Its name, with `/`.
    pub name: String,
    /// Its content type, without parameters.
    pub kind: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A worker in the list of its home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedWorker {
    /// Its name.
    pub name: String,
    /// The platform's ETag of its content.
    pub etag: String,
    /// The time at which it was created, as the platform writes it.
    pub created_on: String,
    /// The time at which it was last changed, as the platform writes it.
    pub modified_on: String,
    /// The tool that last uploaded it: `api`, `wrangler`, `dash`; `None` where the platform doesn't say.
    pub uploaded_by: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it has static assets.
    pub has_assets: bool,
    /// The tag of the last migration of its Durable Object classes; none if it has no classes of its own.
    pub migration_tag: Option<String>,
}

/// A queue in the list of its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedQueue {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its consumers.
    pub consumers: Vec<ListedConsumer>,
}

/// A consumer of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedConsumer {
    /// Its id.
    pub id: String,
    /// The worker; none where programs pull the messages.
    pub worker: Option<String>,
    /// Its settings.
    pub consumer: QueueConsumer,
}

/// A workflow in the list of its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedWorkflow {
    /// Its name.
    pub name: String,
    /// The worker that defines it.
    pub worker: String,
}

/// A custom domain in the list of its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDomain {
    /// Its id.
    pub id: String,
    /// The host name.
    pub hostname: String,
    /// The worker that it points to.
    pub worker: String,
}

/// A route in the list of its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRoute {
    /// Its id.
    pub id: String,
    /// The pattern.
    pub pattern: String,
    /// The worker that it points to; none where it keeps requests from all workers.
    pub worker: Option<String>,
}

/// A zone in the list of those that a token reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedZone {
    /// Its id.
    pub id: String,
    /// Its name: `example.com`.
    pub name: String,
    /// The id of its account.
    pub account_id: String,
    /// The name of its account, for people.
    pub account_name: String,
}

impl Entry for ListedWorker {
    fn key(&self) -> &str {
        &self.name
    }
}

impl Entry for ListedDomain {
    fn key(&self) -> &str {
        &self.id
    }
}

impl Entry for ListedRoute {
    fn key(&self) -> &str {
        &self.id
    }
}

impl Entry for ListedQueue {
    fn key(&self) -> &str {
        &self.id
    }
}

impl Entry for ListedWorkflow {
    fn key(&self) -> &str {
        &self.name
    }
}

impl Entry for ListedZone {
    fn key(&self) -> &str {
        &self.id
    }
}

/// The reason why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The limit was reached; nothing was done.
    Throttled {
        /// The time after which to retry.
        retry_after: Option<Duration>,
    },
    /// The platform could not be reached, or broke: the outcome is unknown, and the call is to be repeated.
    Unavailable(String),
    /// The token is wrong, or may not do this: no call of the same token will succeed.
    Unauthorized(String),
    /// The platform refused this call.
    Rejected {
        /// The HTTP status.
        status: u16,
        /// Cloudflare's error code; 0 if there was none.
        code: u64,
        /// Its message.
        message: String,
    },
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Throttled { .. } => write!(f, "the API's limit was reached"),
            CallError::Unavailable(message) | CallError::Unauthorized(message) => f.write_str(message),
            CallError::Rejected { status, code: 0, message } => write!(f, "{message} (HTTP {status})"),
            CallError::Rejected { status, code, message } => write!(f, "{message} (HTTP {status}, code {code})"),
        }
    }
}

impl From<Unsteady> for CallError {
    fn from(unsteady: Unsteady) -> CallError {
        CallError::Rejected { status: 200, code: 0, message: unsteady.to_string() }
    }
}

/// The limits of a token that an answer reports: what is left, and which limits there are. Cloudflare reports both with each
/// answer, and several of each; a limit and what is left of it have the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The remaining requests (`Ratelimit`).
    pub left: Vec<Left>,
    /// The limits (`Ratelimit-Policy`).
    pub policies: Vec<Policy>,
}

/// The rest of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The limit's name.
    pub name: String,
    /// Requests that are left.
    pub requests: u64,
    /// The time until it is whole again.
    pub reset: Duration,
}

/// A limit of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The number of requests…
    pub requests: u64,
    /// … in a window of this length.
    pub window: Duration,
}

/// A platform that workers are deployed to.
pub trait Platform: Send + Sync {
    /// Makes one request, with the token of its account. Doesn't retry and doesn't wait.
    fn call(&self, home: &Home, call: &Call) -> (Result<Reply, CallError>, Option<Quota>);

    /// Checks the health of a worker. Costs nothing of a token's quota, and sends no credentials.
    fn health(&self, check: &HealthCheck) -> Health;
}

/// A health check of a deployed worker: the probe that its pack names `health`.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// The address of the worker, without the probe's path.
    pub address: String,
    /// The request, and what the answer has to be.
    pub probe: Probe,
    /// The values of the probe's placeholders.
    pub placeholders: Placeholders,
}

/// The values of the placeholders in a probe's expected answer.
#[derive(Clone, Debug, Default)]
pub struct Placeholders {
    /// `{worker}`: the worker's name.
    pub worker: String,
    /// `{customer}`: its customer's id.
    pub customer: String,
    /// `{environment}`: its environment.
    pub environment: String,
    /// `{digest}`: the digest of the bundle that it should run.
    pub digest: String,
}

impl HealthCheck {
    /// Returns the check that a pack's probes describe; none if no probe is named `health`.
    pub fn new(probes: &[Probe], address: String, placeholders: Placeholders) -> Option<HealthCheck> {
        let probe = probes.iter().find(|probe| probe.name == HEALTH && probe.peers != Some(true))?.clone();
        Some(HealthCheck { address, probe, placeholders })
    }
}

/// The name of the probe that is the health check.
const HEALTH: &str = "health";

/// The health of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers as its pack's health check expects.
    Healthy,
    /// It answers something else: the difference.
    Unhealthy(String),
    /// It does not answer: the reason.
    Unreachable(String),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Healthy => f.write_str("healthy"),
            Health::Unhealthy(difference) => f.write_str(difference),
            Health::Unreachable(reason) => write!(f, "unreachable: {reason}"),
        }
    }
}
