//! The types of pack.yaml and of a pack's catalogue. Knows the shape alone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Purpose;
use crate::assets::{AssetOptions, HtmlHandling, NotFoundHandling, WorkerFirst};
use crate::binding;
use crate::objects::{ClassExport, Migration};

/// A pack's manifest: pack.yaml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "flotilla pack")]
pub struct PackFile {
    /// The pack's name.
    #[schemars(length(max = 40), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The pack's purpose.
    pub description: Option<String>,
    /// The prefix of the names of its workers.
    #[schemars(length(max = 20), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub prefix: String,
    /// The template of the module that is uploaded. Required without `bundler`, unless the pack has `assets` alone.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.tera$"))]
    pub module: Option<String>,
    /// The other templates, among them the wrangler file. Required with `module`.
    #[schemars(inner(regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.tera$")))]
    pub files: Option<Vec<String>>,
    /// The code that all workers of the pack share. Required with `module`.
    pub runtime: Option<RuntimeFile>,
    /// The program that bundles the code of an existing wrangler project, which takes the place of `module`, `files` and `runtime`.
    pub bundler: Option<Bundler>,
    /// The configuration of the wrangler project, from the pack's folder: `../../apps/web/wrangler.jsonc`. It must be in the project, or
    /// in the git repository that the project is part of. Required with `bundler`.
    #[schemars(length(min = 1, max = 1000), regex(pattern = "\\.(toml|json|jsonc)$"))]
    pub config: Option<String>,
    /// The environment of the configuration whose code is bundled. Default: the top level.
    #[schemars(length(min = 1, max = 100))]
    pub environment: Option<String>,
    /// The version of wrangler, which flotilla installs. Default: the wrangler in the `node_modules` of the wrangler project.
    #[schemars(regex(pattern = "^[0-9]+\\.[0-9]+\\.[0-9]+$"))]
    pub wrangler: Option<String>,
    /// The environment variables that wrangler and the configuration's `build.command` get in addition to PATH, HOME, TMPDIR and LANG, if
    /// they are set. Their values decide the bundle, as the sources do; a secret among them can end up in it.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub build_env: Option<Vec<String>>,
    /// The timeout of wrangler, the configuration's `build.command` included, in seconds. Default: 600.
    #[schemars(range(min = 1, max = 86400))]
    pub build_timeout: Option<u64>,
    /// The memory limit of wrangler and the programs that it starts, in MiB. Default: 4096.
    #[schemars(range(min = 64, max = 1048576))]
    pub build_memory: Option<u64>,
    /// The Durable Object classes of the pack's own code that each of its workers is bound to, by the names of the bindings:
    /// `{ ROOMS: Room }`. With `bundler`, those of the configuration.
    #[schemars(extend("propertyNames" = {"pattern": binding::NAME}), inner(regex(pattern = "^[A-Za-z_$][A-Za-z0-9_$]*$")))]
    pub durable_objects: Option<BTreeMap<String, String>>,
    /// The migrations of the Durable Object classes, in order. Only append to the list: Cloudflare applies the migrations after the last one
    /// that it has applied. With `bundler`, those of the configuration.
    pub migrations: Option<Vec<Migration>>,
    /// The declared Durable Object classes, by name, instead of `migrations`. With `bundler`, those of the configuration.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_$][A-Za-z0-9_$]*$"}))]
    pub exports: Option<BTreeMap<String, ClassExport>>,
    /// The D1 databases whose migrations flotilla applies, by the names of the workers' bindings: `{ DB: { migrationsDir: migrations } }`;
    /// `DB` is that of `database` in a spec. With `bundler`, those of the configuration that have `migrations_dir`.
    #[schemars(extend("propertyNames" = {"pattern": binding::NAME}))]
    pub databases: Option<BTreeMap<String, DatabaseFile>>,
    /// The static assets that all workers of the pack have. With `bundler`, those of the configuration. A pack with neither code nor
    /// templates has assets alone.
    pub assets: Option<PackAssetsFile>,
    /// The file with the destination types.
    pub catalogue: Option<String>,
    /// The probes that `flotilla verify` sends to its workers.
    pub verify: Option<Vec<Probe>>,
    /// Which of the settings `trustedOrigins` and `logLevel` its templates use. `check` warns if a spec sets another one. Default:
    /// both, or none without templates.
    #[schemars(extend("uniqueItems" = true))]
    pub settings: Option<Vec<PackSetting>>,
}

/// The migrations of a D1 database.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct DatabaseFile {
    /// The folder with the migrations, from the pack's folder: files such as `0001_create_orders.sql`, which are applied in the order of
    /// their numbers. It must be in the project, or in the git repository that the project is part of.
    #[schemars(length(min = 1, max = 1000))]
    pub migrations_dir: String,
    /// The table in which a database records the migrations that were applied. Default: `d1_migrations`, as in wrangler.
    #[schemars(length(min = 1, max = 100))]
    pub migrations_table: Option<String>,
}

/// The static assets of a pack.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct PackAssetsFile {
    /// The folder with the files, from the pack's folder: `../../web/dist`. It must be in the project, or in the git repository that the
    /// project is part of. Default: none; then each customer has a folder of its own.
    #[schemars(length(min = 1, max = 1000))]
    pub directory: Option<String>,
    /// The name of the binding by which the code reads them: `ASSETS`.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub binding: Option<String>,
    /// The handling of the paths of HTML files. Default: `auto-trailing-slash`.
    pub html_handling: Option<HtmlHandling>,
    /// The answer where no asset fits, and no code answers. Default: `none`.
    pub not_found_handling: Option<NotFoundHandling>,
    /// Whether requests reach the code before the assets: all of them with `true`, or those with the paths of a list, such as
    /// `[/api/*, "!/api/docs/*"]`. Default: `false`.
    pub run_worker_first: Option<WorkerFirst>,
}

impl PackAssetsFile {
    /// Returns how the assets answer.
    pub fn options(&self) -> AssetOptions {
        AssetOptions {
            binding: self.binding.clone(),
            html_handling: self.html_handling,
            not_found_handling: self.not_found_handling,
            run_worker_first: self.run_worker_first.clone(),
        }
    }
}

/// A program that bundles the code of an existing project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Bundler {
    /// The team's own wrangler.
    Wrangler,
}

/// The keys of a pack with templates, all of them required, which a pack with a `bundler` cannot have.
pub const TEMPLATE_KEYS: [&str; 3] = ["module", "files", "runtime"];
/// The keys that only a pack with a `bundler` can have; the first is required there.
pub const BUNDLER_KEYS: [&str; 6] = ["config", "environment", "wrangler", "buildEnv", "buildTimeout", "buildMemory"];

/// The keys of a pack about Durable Objects, which a pack with a `bundler` has in its configuration.
pub const OBJECT_KEYS: [&str; 3] = ["durableObjects", "migrations", "exports"];

/// A setting that some packs use and others don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PackSetting {
    /// The origins that may call the worker from a browser.
    TrustedOrigins,
    /// What the worker logs.
    LogLevel,
}

impl PackSetting {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::TrustedOrigins, Self::LogLevel];

    /// Returns its key in a spec.
    pub fn key(self) -> &'static str {
        match self {
            Self::TrustedOrigins => "trustedOrigins",
            Self::LogLevel => "logLevel",
        }
    }
}

impl PackFile {
    /// Returns whether its templates use a setting. One without templates has none.
    pub fn uses(&self, setting: PackSetting) -> bool {
        self.settings.as_ref().map_or(self.module.is_some(), |settings| settings.contains(&setting))
    }
}

/// A request to a deployed worker, and the expected response.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Probe {
    /// Its name in results, such as `search`; several can have the same name. The first one named `health` is the health check of waves,
    /// previews and `status --health`.
    #[schemars(length(max = 20), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub name: String,
    /// The path of the request, with its query.
    #[schemars(length(max = 1000), regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// The expected HTTP status. Default: 200.
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// The values that the JSON response must contain; an empty list or map matches any. `{worker}`, `{customer}`,
    /// `{environment}` and `{digest}` are replaced with the worker's own values.
    pub json: Option<BTreeMap<String, Value>>,
    /// Whether it is only sent to workers that call others; `peers` in the response reports on each of these.
    pub peers: Option<bool>,
}

/// How a pack's code is bundled.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct RuntimeFile {
    /// The command that bundles it. `--out DIR` is appended, and it must write `runtime.js` and `runtime.d.ts` there.
    #[schemars(length(min = 1))]
    pub build: Vec<String>,
    /// The files and folders that the bundle depends on. package.json and package-lock.json are always included.
    pub sources: Vec<String>,
    /// The environment variables that the command gets in addition to PATH, HOME, TMPDIR and LANG, if they are set. Their values decide the
    /// bundle, as the sources do; a secret among them can end up in it.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub build_env: Option<Vec<String>>,
    /// The timeout of the command in seconds. Default: 600.
    #[schemars(range(min = 1, max = 86400))]
    pub build_timeout: Option<u64>,
    /// The memory limit of the command and the programs that it starts, in MiB. Default: 4096.
    #[schemars(range(min = 64, max = 1048576))]
    pub build_memory: Option<u64>,
}

/// A pack's catalogue of destination types.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueFile {
    /// The types by name.
    pub destinations: BTreeMap<String, DestinationType>,
}

/// A destination type of a catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationType {
    /// Its display name.
    pub label: String,
    /// The consents that a visitor must have given, unless a spec sets others.
    pub required_consent: Vec<Purpose>,
    /// The JSON Schema of its settings; `#/$defs/secret` is a reference to a secret.
    pub settings: Value,
}
