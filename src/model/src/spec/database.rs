//! The database of a worker in a spec. Knows the shape alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretReference;

/// The customer's own database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    deny_unknown_fields,
    extend("allOf" = [
        {"if": {"properties": {"type": {"const": "turso"}}, "required": ["type"]}, "then": {"propertyNames": {"enum": ["type", "url", "token"]}}},
        {"if": {"properties": {"type": {"const": "d1"}}, "required": ["type"]}, "then": {"propertyNames": {"enum": ["type", "name", "id", "jurisdiction", "locationHint"]}}},
        {"if": {"properties": {"type": {"const": "none"}}, "required": ["type"]}, "then": {"propertyNames": {"enum": ["type"]}}}
    ])
)]
pub struct Database {
    /// `turso`, `d1` or `none`.
    #[serde(rename = "type")]
    pub kind: Option<DatabaseKind>,
    /// turso: the database's address, `libsql://…`. `{customer}` and `{environment}` are replaced.
    #[schemars(regex(pattern = "^(libsql|https)://[^\\s/?#@]+/?$"))]
    pub url: Option<String>,
    /// turso: the reference to its token.
    pub token: Option<SecretReference>,
    /// d1: the database's name. `{customer}` and `{environment}` are replaced.
    #[schemars(regex(
        pattern = "^([a-z0-9]|\\{(customer|environment)\\})([a-z0-9_-]|\\{(customer|environment)\\})*$"
    ))]
    pub name: Option<String>,
    /// d1: the database's id. Default: the account's database of this name, which is created if there is none.
    #[schemars(regex(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    pub id: Option<String>,
    /// d1: the jurisdiction of a new database's data. It can't be changed later.
    pub jurisdiction: Option<Jurisdiction>,
    /// d1: the region of a new database. Default: close to the machine that deploys. It can't be changed later.
    pub location_hint: Option<LocationHint>,
}

/// The jurisdiction of a database's data. Source: Cloudflare's API, D1 › Create D1 Database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, strum::AsRefStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Jurisdiction {
    Eu,
    Fedramp,
    Us,
}

/// A region for a new database: western and eastern North America and Europe, Asia and the Pacific, Oceania.
/// Source: Cloudflare's API, D1 › Create D1 Database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, strum::AsRefStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum LocationHint {
    Wnam,
    Enam,
    Weur,
    Eeur,
    Apac,
    Oc,
}

/// The kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DatabaseKind {
    /// libSQL at Turso.
    Turso,
    /// Cloudflare D1.
    D1,
    /// No database.
    None,
}
