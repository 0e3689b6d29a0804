//! How browsers may call a worker from other origins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The variable with a worker's CORS settings and the origins that they hold for.
pub const CORS_VARIABLE: &str = "FLOTILLA_CORS";
/// In place of an origin: those of the customer's own workers.
pub const OWN_ORIGINS: &str = "own";

/// What browsers may do from the `trustedOrigins`. The code gets it as the variable `FLOTILLA_CORS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Cors {
    /// The methods of requests. Default: `[GET, HEAD, POST]`.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true), inner(regex(pattern = "^[A-Z]+$")))]
    pub methods: Option<Vec<String>>,
    /// The headers that requests may have; `*` is any, without `credentials`. Default: `[content-type]`.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^([A-Za-z0-9-]+|[*])$")))]
    pub headers: Option<Vec<String>>,
    /// The headers of responses that scripts may read; `*` is any, without `credentials`. Default: those that browsers always show.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = "^([A-Za-z0-9-]+|[*])$")))]
    pub expose_headers: Option<Vec<String>>,
    /// Whether browsers may send cookies and other credentials. Default: false.
    pub credentials: Option<bool>,
    /// The number of seconds for which browsers keep the answer to a preflight request. Default: 600.
    #[schemars(range(min = 0, max = 86400))]
    pub max_age: Option<u32>,
}
