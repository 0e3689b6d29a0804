//! The types of fleet.yaml. Knows the shape alone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Account, Environment, Role};
use crate::diagnostic::Code;
use crate::environment;
use crate::limits;

/// The fleet: fleet.yaml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "flotilla fleet")]
pub struct FleetFile {
    /// The fleet's name. Each worker is tagged with it, to show that this fleet manages it.
    #[schemars(length(max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The pattern of worker names. `{customer}`, `{role}`, `{pack-prefix}`, `{fleet}` and `{environment}` are replaced. `-{role}` is
    /// appended if a customer has several workers and the pattern doesn't contain it, and `-{environment}` outside production.
    /// Default: `{pack-prefix}-{customer}`.
    pub worker_name: Option<String>,
    /// The Cloudflare accounts by name. Default: one named `default`, taken from CLOUDFLARE_ACCOUNT_ID and
    /// CLOUDFLARE_API_TOKEN.
    pub accounts: Option<BTreeMap<String, Account>>,
    /// The packs by name.
    #[schemars(extend("minProperties" = 1))]
    pub packs: BTreeMap<String, PackReference>,
    /// Settings of all customers, which specs and layers can override.
    pub defaults: Option<Map<String, Value>>,
    /// Warnings that are turned off, or that are errors in this fleet. The last matching entry wins.
    pub diagnostics: Option<Vec<DiagnosticRule>>,
    /// The layers between the defaults and the specs, weakest first, by the names of their files,
    /// `layers/<name>.yaml`.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}))]
    pub layers: Option<Map<String, Value>>,
    /// Workers that all customers share, by name. Each exists once per environment.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30}, "maxProperties" = limits::WORKERS_PER_CUSTOMER))]
    #[schemars(with = "Option<BTreeMap<String, Option<Role>>>")]
    pub shared_workers: Option<Map<String, Value>>,
    /// Zones below a registrable domain, such as `eu.shop.example`. A custom domain counts against the limits of the longest zone that it
    /// ends with.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub zones: Vec<String>,
    /// Host names that several customers share on purpose, each with its own routes. Any other host belongs to one customer.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^(\\*\\.?)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub shared_hosts: Vec<String>,
    /// The sources of secrets, in order of precedence: the first source that has a value wins. Default: the
    /// environment, then the dotenv file `.env`.
    #[schemars(extend("minItems" = 1))]
    pub secrets: Option<Vec<SecretSource>>,
    /// How changes are deployed: waves, health checks, failure limits.
    #[serde(default)]
    pub deploy: DeployRule,
    /// Settings of `flotilla preview`.
    #[serde(default)]
    pub previews: PreviewRule,
}

/// Settings of `flotilla preview`: temporary deployments with their own names and hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct PreviewRule {
    /// The environment whose settings previews use; a worker that doesn't exist there uses those of production. Settings under
    /// `environments: { preview: … }` take precedence. Default: staging.
    #[schemars(extend("format" = environment::LASTING))]
    pub from: Option<Environment>,
    /// The domain of preview hosts: `<customer>-preview-<id>.<domain>`. Default: `-preview-<id>` is appended to the first label of each of
    /// the worker's hosts.
    #[schemars(regex(pattern = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub domain: Option<String>,
    /// The number of days after which a preview expires; `flotilla preview down --expired` then removes it. Default: 7.
    #[schemars(range(min = 1, max = 365))]
    pub days: Option<u16>,
    /// The maximum number of workers in a preview. Default: 50.
    #[schemars(range(min = 1))]
    pub most: Option<usize>,
}

/// The dotenv file that is read, unless fleet.yaml lists other sources of secrets.
pub const DOTENV: &str = ".env";

/// A source of secrets: one of `env`, `dotenv`, `age`, `sops` and `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, extend("oneOf" = [
    {"required": ["env"]}, {"required": ["dotenv"]}, {"required": ["age"]}, {"required": ["sops"]}, {"required": ["command"]}
]))]
pub struct SecretSource {
    /// The environment of the process: `true`.
    #[schemars(extend("const" = true))]
    pub env: Option<bool>,
    /// A dotenv file outside git; the path is relative to the project or absolute. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub dotenv: Option<String>,
    /// A file encrypted with age, which can be committed: dotenv lines, or a YAML map of names to strings if its name ends in
    /// `.yaml.age`. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub age: Option<String>,
    /// age: the identity that decrypts the file.
    pub identity: Option<IdentityPlace>,
    /// age: the public keys that the file is encrypted for when flotilla writes it. Default: the identity's.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true), inner(regex(pattern = "^age1[02-9ac-hj-np-z]{58}$")))]
    pub recipients: Option<Vec<String>>,
    /// A file encrypted with SOPS; the program `sops` decrypts it. `{environment}` is replaced.
    #[schemars(regex(pattern = "^[^\\\\]+$"))]
    pub sops: Option<String>,
    /// A program and its arguments, run without a shell, that prints one value. `{name}`, `{customer}` and
    /// `{environment}` are replaced.
    #[schemars(extend("minItems" = 1))]
    pub command: Option<Vec<String>>,
    /// command, sops: the timeout in seconds. Default: 30.
    #[schemars(range(min = 1, max = 600))]
    pub timeout: Option<u64>,
    /// command: the maximum number of concurrent runs. Default: 8.
    #[schemars(range(min = 1, max = 64))]
    pub at_once: Option<u8>,
    /// What the source is used for: `workers`, the secrets that specs name; or `deploy`, the values that flotilla itself needs, such as API
    /// tokens and the keys of other sources. Default: both.
    pub purpose: Option<SourcePurpose>,
    /// The names that specs may take from the source; a trailing `*` matches any characters. The prefix of a customer's own value is not
    /// part of the match. Default: every name that flotilla and CI don't use themselves.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true), inner(regex(pattern = "^([A-Z][A-Z0-9_]*[*]?|[*])$")))]
    pub names: Option<Vec<String>>,
}

/// What a source of secrets is used for.
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

/// The location of an age identity: `{ env: NAME }` or `{ file: PATH }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}]))]
pub struct IdentityPlace {
    /// The environment variable that holds it: `AGE-SECRET-KEY-…`.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub env: Option<String>,
    /// The file that holds it, as age-keygen writes it; `~/` is the home folder. Don't commit it.
    #[schemars(length(min = 1))]
    pub file: Option<String>,
}

/// How changes are deployed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct DeployRule {
    /// The waves, in order: each must be healthy before the next one begins. Changes that belong to no wave come last.
    /// Default: one wave with all changes.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub waves: Vec<WaveRule>,
    /// The failure limits: after `count` failures nothing more begins, and if more than `percent` of a wave fails, the next wave doesn't
    /// begin. Default: 10, and 0 percent.
    pub failures: Option<Share>,
    /// The health checks between waves.
    #[serde(default)]
    pub health: HealthRule,
    /// What happens to a wave that isn't healthy: `halt` leaves it as it is, `rollback` restores what ran before. Default:
    /// halt.
    pub on_breach: Option<OnBreach>,
    /// The maximum number of workers that one deploy may delete. Default: 10, or 10 % of all, whichever is less; one is always allowed.
    pub max_deletions: Option<Share>,
    /// The share of the fleet, in percent, above which a deploy requires the plan's digest or `--yes`, even on a terminal.
    /// Default: 20.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub confirm_above: Option<f64>,
    /// The number of bundles of each worker that are kept for rollbacks. Default: 5.
    #[schemars(range(min = 1, max = 100))]
    pub keep: Option<usize>,
}

/// One wave: the customers with its labels, a number of customers, or a share of all that change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct WaveRule {
    /// The wave's display name. Default: its number.
    pub name: Option<String>,
    /// The labels of its customers, as in a layer's `when`.
    #[schemars(extend("minProperties" = 1))]
    pub labels: Option<BTreeMap<String, OneOrMore>>,
    /// The number of customers.
    #[schemars(range(min = 1))]
    pub count: Option<usize>,
    /// The share of all customers that change, in percent, including those of earlier waves.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
}

/// A number, and a share of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Share {
    /// The number.
    pub count: Option<usize>,
    /// The share of all, in percent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
}

/// The health checks between waves.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct HealthRule {
    /// Whether workers are checked between waves. Default: true.
    pub enabled: Option<bool>,
    /// The time within which a worker must be healthy with its new bundle, in seconds: a new address takes a while to work everywhere.
    /// Default: 60.
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

/// The customers that use a layer, and its location.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct LayerRule {
    /// The labels that a customer must have: a value, or a list of values of which one must match. Without it, the
    /// customers that list the layer use it.
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

    // Flat, so that an error is reported as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "array"], "items": {"type": "string"}})
    }
}

/// The severity of a warning in this fleet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DiagnosticRule {
    /// The warning's code, as it is printed: `N0309`.
    pub code: Code,
    /// The customers that this applies to, by id; `*` matches any characters, `?` one. Default: all.
    #[schemars(extend("minItems" = 1))]
    pub customers: Option<Vec<String>>,
    /// `off`, `warning` or `error`.
    pub severity: Level,
    /// The reason, which is shown in reports.
    #[schemars(length(min = 1))]
    pub reason: String,
}

/// What a warning can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Level {
    /// Not reported, only counted.
    Off,
    /// A warning.
    Warning,
    /// An error, which stops the customer.
    Error,
}

/// The location of a pack.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PackReference {
    /// The folder, relative to the project.
    #[schemars(regex(pattern = "^[^/\\\\.][^\\\\]*$"))]
    pub path: String,
}
