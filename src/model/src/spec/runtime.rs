//! The settings of a spec for how Cloudflare runs a worker: its logs, its limits, its place. Knows the shape alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The worker's logs and traces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Observability {
    /// Whether logs are written. Default: true.
    pub enabled: Option<bool>,
    /// The share of requests that is recorded, from 0 to 1. Default: 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Settings of logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
    /// Settings of traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// The worker's logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Logs {
    /// Whether they are written. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The share of requests that is recorded, from 0 to 1. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Whether each invocation is logged. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_logs: Option<bool>,
    /// Whether Cloudflare keeps them. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<bool>,
    /// The account's destinations that they are exported to, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<String>>,
}

/// The worker's traces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Traces {
    /// Whether they are written. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The share of requests that is recorded, from 0 to 1. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Whether Cloudflare keeps them. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<bool>,
    /// The account's destinations that they are exported to, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<String>>,
}

/// Cloudflare's cache in front of a worker. It keeps responses as their `Cache-Control` headers define.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct CacheOptions {
    /// Whether the cache is used.
    pub enabled: bool,
    /// Whether cached responses of an older version of the worker may be served. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_version: Option<bool>,
}

/// Limits per request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct RequestLimits {
    /// CPU time in milliseconds. Default: the account's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cpu_ms: Option<u64>,
    /// The number of subrequests. Default: the account's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub subrequests: Option<u64>,
}

/// The place where a worker runs, if not near its callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Close to the services that it calls, as Cloudflare measures it.
    Smart,
    /// In a region of a cloud: `aws:us-east-1`.
    #[serde(untagged)]
    Region {
        /// The region.
        region: String,
    },
    /// Close to a host and port.
    #[serde(untagged)]
    Host {
        /// The host and port.
        host: String,
    },
    /// Close to a host that speaks HTTP.
    #[serde(untagged)]
    Hostname {
        /// The host.
        hostname: String,
    },
}

impl JsonSchema for Placement {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Placement".into()
    }

    // Flat, so that an error is reported as what it is.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`smart`; or where the worker runs: `{ region: aws:us-east-1 }`, `{ host: db.example.com:5432 }` or \
                            `{ hostname: api.example.com }`.",
            "type": ["string", "object"],
            "pattern": "^smart$",
            "properties": {
                "region": {"type": "string", "minLength": 1, "description": "A cloud region, with the cloud's name before it."},
                "host": {"type": "string", "minLength": 1, "description": "A host and port to run close to."},
                "hostname": {"type": "string", "minLength": 1, "description": "A host that speaks HTTP to run close to."}
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false
        })
    }
}
