//! The types of fleet.yaml. Knows the shape alone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Environment, Role, SecretReference};
use crate::diagnostic::Code;
use crate::limits::{self, Limit, Limits, Plan};

/// The fleet: fleet.yaml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "flotilla fleet")]
pub struct FleetFile {
    /// The fleet's name: it tags each worker as owned by this fleet.
    #[schemars(length(max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// How workers are named. `{customer}`, `{role}`, `{pack-prefix}`, `{fleet}` and `{environment}` are replaced. `-{role}`
    /// follows if there are several workers and the pattern doesn't have it, and so does `-{environment}` outside of production.
    /// Default: `{pack-prefix}-{customer}`.
    pub worker_name: Option<String>,
    /// The Cloudflare accounts by name. Default: one named `default`, taken from CLOUDFLARE_ACCOUNT_ID and
    /// CLOUDFLARE_API_TOKEN.
    pub accounts: Option<BTreeMap<String, Account>>,
    /// The packs by name.
    #[schemars(extend("minProperties" = 1))]
    pub packs: BTreeMap<String, PackReference>,
    /// What holds for each customer whose spec doesn't say otherwise.
    pub defaults: Option<Map<String, Value>>,
    /// Warnings that are turned off, or that are errors in this fleet. Of several entries for one warning the last counts.
    pub diagnostics: Option<Vec<DiagnosticRule>>,
    /// The layers between the defaults and the specs, weakest first: the name of each is that of its file,
    /// `layers/<name>.yaml`.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}))]
    pub layers: Option<Map<String, Value>>,
    /// Workers that all customers share, by name. Each exists once per environment.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30}, "maxProperties" = limits::WORKERS_PER_CUSTOMER))]
    #[schemars(with = "Option<BTreeMap<String, Option<Role>>>")]
    pub shared_workers: Option<Map<String, Value>>,
    /// Zones that are not the domain which can be registered, but further down: `eu.shop.example`. Custom domains count
    /// against the limits of the longest one that they end with.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub zones: Vec<String>,
    /// Host names that several customers share on purpose, each by routes of its own. Any other host is one customer's.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^(\\*\\.?)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub shared_hosts: Vec<String>,
    /// Where the values of secrets come from, in this order: the first source that has a value counts. Default: the
    /// environment, then the dotenv file `.env`.
    #[schemars(extend("minItems" = 1))]
    pub secrets: Option<Vec<SecretSource>>,
    /// How changes are deployed: in which waves, and when it stops.
    #[serde(default)]
    pub deploy: DeployRule,
    /// What `flotilla preview` makes.
    #[serde(default)]
    pub previews: PreviewRule,
}

/// What `flotilla preview` makes: workers once more, for a while, under names and hosts of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct PreviewRule {
    /// The environment whose settings a preview takes; a worker that doesn't exist there takes those of production. What
    /// `environments: { preview: … }` says comes over them. Default: staging.
    #[schemars(with = "Option<Standing>")]
    pub from: Option<Environment>,
    /// The domain of the hosts: `<customer>-preview-<id>.<domain>`. Default: the first part of each of a worker's own hosts gets
    /// `-preview-<id>`.
    #[schemars(regex(pattern = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub domain: Option<String>,
    /// After so many days a preview has expired, and `flotilla preview down --expired` removes it. Default: 7.
    #[schemars(range(min = 1, max = 365))]
    pub days: Option<u16>,
    /// How many workers one preview has at the most. Default: 50.
    #[schemars(range(min = 1))]
    pub most: Option<usize>,
}

/// The environments that stand, as the schema has them.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(dead_code, missing_docs)]
enum Standing {
    Development,
    Staging,
    Production,
}

/// The dotenv file that is read, unless fleet.yaml lists other sources of secrets.
pub const DOTENV: &str = ".env";

/// A source of secrets' values: one of `env`, `dotenv`, `age`, `sops` and `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, extend("oneOf" = [
    {"required": ["env"]}, {"required": ["dotenv"]}, {"required": ["age"]}, {"required": ["sops"]}, {"required": ["command"]}
]))]
pub struct SecretSource {
    /// The environment of the process: `true`.
    #[schemars(extend("const" = true))]
    pub env: Option<bool>,
    /// A dotenv file outside of git, from the project's root or with an absolute path. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub dotenv: Option<String>,
    /// A file that is encrypted with age and can be committed: dotenv lines, or a YAML map of names to texts if it is named
    /// `….yaml.age`. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub age: Option<String>,
    /// age: where the identity is that opens the file.
    pub identity: Option<IdentityPlace>,
    /// age: for whom the file is encrypted when flotilla writes it. Default: for the identity.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true), inner(regex(pattern = "^age1[02-9ac-hj-np-z]{58}$")))]
    pub recipients: Option<Vec<String>>,
    /// A file that is encrypted with SOPS; the program `sops` opens it. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub sops: Option<String>,
    /// A program and its arguments, which prints one value; it is run without a shell. `{name}`, `{customer}` and
    /// `{environment}` are replaced.
    #[schemars(extend("minItems" = 1))]
    pub command: Option<Vec<String>>,
    /// command, sops: how many seconds it may take. Default: 30.
    #[schemars(range(min = 1, max = 600))]
    pub timeout: Option<u64>,
    /// command: how many run at once. Default: 8.
    #[schemars(range(min = 1, max = 64))]
    pub at_once: Option<u8>,
    /// What its values are for: `workers`, the secrets that specs name, or `deploy`, what flotilla itself needs, such as API
    /// tokens and the keys of other sources. Default: both.
    pub purpose: Option<SourcePurpose>,
    /// The names that specs may take from it; a `*` at the end stands for any characters. The prefix of a customer's own value
    /// doesn't count. Default: every name that flotilla and CI don't need themselves.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true), inner(regex(pattern = "^([A-Z][A-Z0-9_]*[*]?|[*])$")))]
    pub names: Option<Vec<String>>,
}

/// What the values of a source of secrets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SourcePurpose {
    /// The secrets of workers.
    Workers,
    /// What flotilla itself needs.
    Deploy,
}

impl SecretSource {
    /// Returns whether its values may be those of workers' secrets.
    pub fn is_for_workers(&self) -> bool {
        self.purpose != Some(SourcePurpose::Deploy)
    }

    /// Returns whether its values may be used by flotilla itself.
    pub fn is_for_deploys(&self) -> bool {
        self.purpose != Some(SourcePurpose::Workers)
    }

    /// Returns whether a worker may take a secret of this name, without a customer's prefix, from it.
    pub fn admits(&self, name: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        self.is_for_workers() && self.names.as_ref().is_none_or(|names| names.iter().any(matches))
    }

    /// Returns whether it lists this very name for workers.
    pub fn lists(&self, name: &str) -> bool {
        self.is_for_workers() && self.names.iter().flatten().any(|listed| listed == name)
    }

    /// Returns the keys that only some sources have, each with those sources.
    pub fn misplaced(&self) -> Option<(&'static str, &'static str)> {
        let only_age = self.age.is_none();
        let runs = self.command.is_some() || self.sops.is_some();
        match self {
            SecretSource { identity: Some(_), .. } if only_age => Some(("identity", "age")),
            SecretSource { recipients: Some(_), .. } if only_age => Some(("recipients", "age")),
            SecretSource { timeout: Some(_), .. } if !runs => Some(("timeout", "command` and `sops")),
            SecretSource { at_once: Some(_), .. } if self.command.is_none() => Some(("atOnce", "command")),
            _ => None,
        }
    }

    /// Returns the key and the path of its file, if it is one.
    pub fn path(&self) -> Option<(&'static str, &str)> {
        let paths = [("dotenv", &self.dotenv), ("age", &self.age), ("sops", &self.sops)];
        paths.into_iter().find_map(|(key, path)| Some((key, path.as_deref()?)))
    }
}

/// Where an age identity is: `{ env: NAME }` or `{ file: PATH }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}]))]
pub struct IdentityPlace {
    /// The environment variable that holds it: `AGE-SECRET-KEY-…`.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub env: Option<String>,
    /// The file that holds it, as age-keygen writes it; `~/` is the home directory. It doesn't belong into git.
    #[schemars(length(min = 1))]
    pub file: Option<String>,
}

/// How changes are deployed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct DeployRule {
    /// The waves, one after the other: each has to be healthy before the next one begins. What no wave takes is the last
    /// one. Default: one wave with everything.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub waves: Vec<WaveRule>,
    /// How much may fail: `count` changes in all, and nothing more is begun; `percent` of a wave, and the next one doesn't
    /// begin. Default: 10, and 0 percent.
    pub failures: Option<Share>,
    /// How workers are asked between waves whether they are well.
    #[serde(default)]
    pub health: HealthRule,
    /// What happens to a wave that isn't healthy: `halt` leaves it as it is, `rollback` puts back what ran before. Default:
    /// halt.
    pub on_breach: Option<OnBreach>,
    /// How many workers one deploy may delete. Default: 10, or 10 % of all, whichever is less; one is always allowed.
    pub max_deletions: Option<Share>,
    /// The share of the fleet, in percent, from which on a deploy wants the plan's digest or `--yes`, also at a terminal.
    /// Default: 20.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub confirm_above: Option<f64>,
    /// How many bundles of each worker are kept to go back to. Default: 5.
    #[schemars(range(min = 1, max = 100))]
    pub keep: Option<usize>,
}

/// One wave: whoever has its labels, or so many customers, or so much of all that change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct WaveRule {
    /// Its name, for people. Default: its number.
    pub name: Option<String>,
    /// The labels that its customers have, as in a layer's `when`.
    #[schemars(extend("minProperties" = 1))]
    pub labels: Option<BTreeMap<String, OneOrMore>>,
    /// So many customers.
    #[schemars(range(min = 1))]
    pub count: Option<usize>,
    /// So much of all customers that change, in percent, those of the waves before included.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
}

/// A number and a share; where both are there, the text beside says which one holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Share {
    /// So many.
    pub count: Option<usize>,
    /// So much of all, in percent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
}

/// How workers are asked whether they are well.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct HealthRule {
    /// Whether they are asked at all. Default: true.
    pub enabled: Option<bool>,
    /// How long a worker may take to say that it runs the new bundle, in seconds: a new address needs a while until it is
    /// known everywhere. Default: 60.
    #[schemars(range(min = 1, max = 3600))]
    pub deadline_seconds: Option<u64>,
}

/// What happens to a wave that isn't healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum OnBreach {
    #[default]
    Halt,
    Rollback,
}

/// When a layer is used, and where it is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct LayerRule {
    /// The labels that a customer must have for it: a value, or a list of values of which one has to hold. Without it, the
    /// layer is used by the customers that list it.
    pub when: Option<BTreeMap<String, OneOrMore>>,
    /// Instead of a file in layers/, a folder of env files: `base/*.env`, and `customers/<customer>/<environment>.env`.
    #[schemars(regex(pattern = "^[^/\\\\.][^\\\\]*$"))]
    pub env_files: Option<String>,
}

/// A text, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// Returns whether a text is among them.
    pub fn has(&self, text: &str) -> bool {
        match self {
            OneOrMore::One(item) => item == text,
            OneOrMore::More(more) => more.iter().any(|item| item == text),
        }
    }
}

impl JsonSchema for OneOrMore {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMore".into()
    }

    // Flat, so that a mistake is told as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "array"], "items": {"type": "string"}})
    }
}

/// How bad a warning is in this fleet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DiagnosticRule {
    /// The warning's code, as it is printed: `N0309`.
    pub code: Code,
    /// The customers for whom this holds, by id; `*` stands for any characters, `?` for one. Default: all.
    #[schemars(extend("minItems" = 1))]
    pub customers: Option<Vec<String>>,
    /// `off`, `warning` or `error`.
    pub severity: Level,
    /// Why, for those who read the report.
    #[schemars(length(min = 1))]
    pub reason: String,
}

/// What a warning can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Level {
    /// Not told, only counted.
    Off,
    /// A warning.
    Warning,
    /// An error, which holds the customer.
    Error,
}

/// Where a pack is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PackReference {
    /// The folder, from the project's root.
    #[schemars(regex(pattern = "^[^/\\\\.][^\\\\]*$"))]
    pub path: String,
}

/// A Cloudflare account and what may be done with it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Account {
    /// The account's id, or the environment variable that holds it: `{ env: CLOUDFLARE_ACCOUNT_ID }`.
    pub id: AccountId,
    /// The reference to its API token.
    pub token: SecretReference,
    /// The dispatch namespace that the workers go into (Workers for Platforms). Without it, an account holds 500.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub dispatch_namespace: Option<String>,
    /// How requests reach the workers of the dispatch namespace. Without it they have no host names.
    pub dispatch: Option<Dispatch>,
    /// The account's part of its workers.dev addresses, `<worker>.<subdomain>.workers.dev`: for workers that have to know each
    /// other's address.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub subdomain: Option<String>,
    /// What is paid for Workers: `free` or `paid`, from which the account's limits follow. Default: paid.
    #[serde(default)]
    pub plan: Plan,
    /// The limits that are other than the plan's: those that Cloudflare has raised.
    #[serde(default)]
    pub limits: Limits,
    /// The API's limit for this token. Default: 1,200 requests in 300 seconds.
    pub api_limit: Option<ApiLimit>,
}

/// The worker in front of a dispatch namespace, and where it looks hosts up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Dispatch {
    /// The worker that gets all requests and passes them on; a name under `sharedWorkers`, with the routes and domains that
    /// lead to it. It is a worker of the account, outside of the namespace.
    pub worker: String,
    /// The title of the KV namespace that says which host is which worker's; made if there is none. Default: the
    /// `dispatchNamespace` with `-hosts` after it.
    #[schemars(length(min = 1, max = 512))]
    pub hosts: Option<String>,
}

impl Account {
    /// Returns the title of the KV namespace with the hosts of the account's workers.
    pub fn hosts(&self) -> Option<String> {
        let (namespace, dispatch) = (self.dispatch_namespace.as_ref()?, self.dispatch.as_ref()?);
        Some(dispatch.hosts.clone().unwrap_or_else(|| format!("{namespace}-hosts")))
    }

    /// Returns one of its limits.
    pub fn limit(&self, limit: Limit) -> u64 {
        self.limits.get(limit).unwrap_or_else(|| self.plan.limit(limit))
    }
}

/// An account's id, as it is or by reference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum AccountId {
    /// The id itself.
    Literal(String),
    /// The name of the environment variable that holds it.
    Variable {
        /// The variable.
        env: String,
    },
}

impl JsonSchema for AccountId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AccountId".into()
    }

    // One flat schema rather than a choice of two, so that a mistake is told as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The account's id, or the environment variable that holds it: `{ env: NAME }`.",
            "type": ["string", "object"],
            "pattern": crate::binding::ID,
            "properties": {"env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
            "required": ["env"],
            "additionalProperties": false
        })
    }
}

/// A limit of Cloudflare's API.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ApiLimit {
    /// How many requests fit into a window.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The window in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub seconds: u32,
    /// The share of the limit that is left for people, from 0 to 0.9. Default: 0.05.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub headroom: Option<f64>,
}
