//! Limits that flotilla counts against: Cloudflare's, each with its value on both plans and its source, and one of
//! its own; and what fleet.yaml raises for an account. Doesn't know who counts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::diagnostic::Code;
use crate::text::grouped;

/// The length of a worker's name: it is a DNS label on workers.dev.
/// Source: RFC 1035, and wrangler's own check of worker names.
pub const WORKER_NAME_LENGTH: usize = 63;

/// The same of a worker whose versions have addresses of their own, `<8 digits>-<worker>.…`.
pub const PREVIEWED_NAME_LENGTH: usize = WORKER_NAME_LENGTH - 9;

/// The length of a DNS label, in bytes. Source: RFC 1035.
pub const LABEL_LENGTH: usize = 63;

/// The length of a host name, in bytes. Source: RFC 1035.
pub const HOST_LENGTH: usize = 253;

/// Tags of one worker, of which none has `,` or `&` in it. Source: Cloudflare docs, Workers for Platforms › Limits (2026).
pub const TAGS: usize = 8;

/// Requests of one token in one window of Cloudflare's API; over it, all calls are blocked for the next five minutes.
/// Source: Cloudflare docs, API › Reference › Limits (2026): 1,200 requests per five minutes and user.
pub const API_REQUESTS: u32 = 1200;

/// The window of [`API_REQUESTS`], in seconds.
pub const API_WINDOW_SECONDS: u32 = 300;

/// The largest number of workers of one customer, and of workers that all customers share. Ours, not Cloudflare's: no customer has that
/// many roles, and references between workers are followed one by one.
pub const WORKERS_PER_CUSTOMER: usize = 100;

/// The scope that a limit is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An account.
    Account,
    /// A zone of an account.
    Zone,
    /// One worker.
    Worker,
}

/// A limit that fleet.yaml can set for an account; its name there is the variant's in camel case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the table says it")]
pub enum Limit {
    Workers,
    Crons,
    Databases,
    Queues,
    KvNamespaces,
    CustomDomainsPerZone,
    RoutesPerZone,
    ZonesPerWorker,
    Variables,
    VariableBytes,
    ScriptBytes,
    AssetFiles,
}

/// A line of the table.
#[derive(Debug)]
pub struct Row {
    /// The limit.
    pub limit: Limit,
    /// Its name in fleet.yaml.
    pub key: &'static str,
    /// The counted resources.
    pub what: &'static str,
    /// The unit: the word after the number.
    pub unit: &'static str,
    /// The scope that it is counted for.
    pub scope: Scope,
    /// The number on the free plan.
    pub free: u64,
    /// The number on the paid plan.
    pub paid: u64,
    /// The code of its diagnostic.
    pub code: Code,
    /// The source of the numbers.
    pub source: &'static str,
}

const WORKERS_DOCS: &str = "Cloudflare docs, Workers › Platform › Limits (2026)";
const QUEUES_DOCS: &str = "Cloudflare docs, Queues › Platform › Limits (2026)";
const KV_DOCS: &str = "Cloudflare docs, KV › Platform › Limits (2026)";
const D1_DOCS: &str = "Cloudflare docs, D1 › Platform › Limits (2026)";

/// The limits that can be set, in the order of [`Limit`].
pub const TABLE: [Row; 12] = [
    Row {
        limit: Limit::Workers,
        key: "workers",
        what: "workers outside dispatch namespaces",
        unit: "workers",
        scope: Scope::Account,
        free: 100,
        paid: 500,
        code: Code::TooManyWorkers,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::Crons,
        key: "crons",
        what: "cron triggers of all workers",
        unit: "crons",
        scope: Scope::Account,
        free: 5,
        paid: 250,
        code: Code::TooManyCrons,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::Databases,
        key: "databases",
        what: "D1 databases of all workers",
        unit: "D1 databases",
        scope: Scope::Account,
        free: 10,
        paid: 50_000,
        code: Code::TooManyDatabases,
        source: D1_DOCS,
    },
    Row {
        limit: Limit::Queues,
        key: "queues",
        what: "queues that workers send to, consume or give up to",
        unit: "queues",
        scope: Scope::Account,
        free: 10_000,
        paid: 10_000,
        code: Code::TooManyQueues,
        source: QUEUES_DOCS,
    },
    Row {
        limit: Limit::KvNamespaces,
        key: "kvNamespaces",
        what: "KV namespaces of all workers",
        unit: "KV namespaces",
        scope: Scope::Account,
        free: 1000,
        paid: 1000,
        code: Code::TooManyKvNamespaces,
        source: KV_DOCS,
    },
    Row {
        limit: Limit::CustomDomainsPerZone,
        key: "customDomainsPerZone",
        what: "custom domains",
        unit: "custom domains",
        scope: Scope::Zone,
        free: 100,
        paid: 100,
        code: Code::TooManyDomains,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::RoutesPerZone,
        key: "routesPerZone",
        what: "routes",
        unit: "routes",
        scope: Scope::Zone,
        free: 1000,
        paid: 1000,
        code: Code::TooManyRoutes,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::ZonesPerWorker,
        key: "zonesPerWorker",
        what: "zones in which the worker has routes",
        unit: "zones",
        scope: Scope::Worker,
        free: 1000,
        paid: 1000,
        code: Code::TooManyZones,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::Variables,
        key: "variables",
        what: "variables and secrets, including FLOTILLA_DIGEST",
        unit: "variables and secrets",
        scope: Scope::Worker,
        free: 64,
        paid: 128,
        code: Code::TooManyVariables,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::VariableBytes,
        key: "variableBytes",
        what: "bytes of a variable",
        unit: "bytes",
        scope: Scope::Worker,
        free: 5 << 10,
        paid: 5 << 10,
        code: Code::VariableTooLarge,
        source: WORKERS_DOCS,
    },
    Row {
        limit: Limit::ScriptBytes,
        key: "scriptBytes",
        what: "bytes of all modules of an upload, uncompressed",
        unit: "bytes",
        scope: Scope::Worker,
        free: 64 << 20,
        paid: 64 << 20,
        code: Code::ScriptTooLarge,
        source: "Cloudflare docs, Workers › Platform › Limits (2026), and wrangler's own check",
    },
    Row {
        limit: Limit::AssetFiles,
        key: "assetFiles",
        what: "static assets",
        unit: "static assets",
        scope: Scope::Worker,
        free: 20_000,
        paid: 100_000,
        code: Code::TooManyAssets,
        source: WORKERS_DOCS,
    },
];

impl Limit {
    /// Returns its line of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// What is paid to Cloudflare for Workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Plan {
    /// Nothing.
    Free,
    /// Workers Paid.
    #[default]
    Paid,
}

impl Plan {
    /// Returns the value of a limit on it.
    pub fn limit(self, limit: Limit) -> u64 {
        match self {
            Plan::Free => limit.row().free,
            Plan::Paid => limit.row().paid,
        }
    }
}

/// The limits of an account that differ from its plan's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limits(BTreeMap<Limit, u64>);

impl Limits {
    /// Returns a limit, if it differs from the plan's.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0.get(&limit).copied()
    }
}

impl JsonSchema for Limits {
    fn schema_name() -> Cow<'static, str> {
        "Limits".into()
    }

    // From the table, so that each limit is defined in one place.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let property = |row: &Row| {
            let whose = match row.scope {
                Scope::Account => "in the account",
                Scope::Zone => "per zone",
                Scope::Worker => "per worker",
            };
            let default = match row.free == row.paid {
                true => grouped(row.paid),
                false => format!("{}; {} on the free plan", grouped(row.paid), grouped(row.free)),
            };
            let description = format!("The maximum {whose}: {}. Default: {default}.", row.what);
            (row.key.to_owned(), json!({"type": "integer", "minimum": 1, "description": description}))
        };
        let properties: Map<String, Value> = TABLE.iter().map(property).collect();
        schemars::json_schema!({
            "description": "The limits of an account, its zones and its workers that differ from the plan's.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_line_under_its_name() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.limit as usize, index);
            assert_eq!(serde_json::from_value::<Limit>(json!(row.key)).unwrap(), row.limit);
            assert!(0 < row.free && row.free <= row.paid, "{}", row.key);
            assert_eq!(row.limit.row().key, row.key);
        }
    }

    #[test]
    fn numbers_for_people() {
        let numbers = [0, 999, 1000, 9998, 1_234_567, 67_108_864];
        assert_eq!(numbers.map(grouped), ["0", "999", "1,000", "9,998", "1,234,567", "67,108,864"]);
    }
}
