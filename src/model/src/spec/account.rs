//! The types of Cloudflare accounts: those of fleet.yaml, and those that customers have of their own. Knows the shape alone.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::SecretReference;
use crate::binding;
use crate::limits::{Limit, Limits, Plan};

/// A Cloudflare account.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Account {
    /// The account's id, or the environment variable that holds it: `{ env: CLOUDFLARE_ACCOUNT_ID }`.
    pub id: AccountId,
    /// A reference to the API token.
    pub token: SecretReference,
    /// The dispatch namespace that the workers are deployed to (Workers for Platforms). Without it, an account holds 500 workers.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]*$"))]
    pub dispatch_namespace: Option<String>,
    /// The dispatch worker of the namespace. Without it, the workers have no host names.
    pub dispatch: Option<Dispatch>,
    /// The account's workers.dev subdomain, as in `<worker>.<subdomain>.workers.dev`. If it isn't set, flotilla reads it from Cloudflare to
    /// show or check addresses. It is required if a worker's variables contain another worker's workers.dev address, as builds send no
    /// requests.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub subdomain: Option<String>,
    /// The Workers plan, which decides the account's limits: `free` or `paid`. Default: paid.
    #[serde(default)]
    pub plan: Plan,
    /// Limits that differ from the plan's, because Cloudflare has raised them.
    #[serde(default)]
    pub limits: Limits,
    /// The API rate limit of this token. Default: 1,200 requests in 300 seconds.
    pub api_limit: Option<ApiLimit>,
}

/// The worker in front of a dispatch namespace, and where it looks up hosts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Dispatch {
    /// The worker that receives all requests and forwards them; a name under `sharedWorkers`, with the routes and domains of the fleet. It is
    /// a worker of the account, outside the namespace.
    pub worker: String,
    /// The title of the KV namespace that maps hosts to workers; it is created if there is none. Default: the
    /// `dispatchNamespace` followed by `-hosts`.
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
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

impl AccountId {
    /// Returns the id itself, if it is written.
    pub fn literal(&self) -> Option<String> {
        match self {
            AccountId::Literal(id) => Some(id.clone()),
            AccountId::Variable { .. } => None,
        }
    }
}

impl JsonSchema for AccountId {
    fn schema_name() -> Cow<'static, str> {
        "AccountId".into()
    }

    // One flat schema rather than a choice of two, so that an error is reported as what it is.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The account's id, or the environment variable that holds it: `{ env: NAME }`.",
            "type": ["string", "object"],
            "pattern": binding::ID,
            "properties": {"env": {
                "description": "The environment variable that holds the account's id.",
                "type": "string",
                "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"
            }},
            "required": ["env"],
            "additionalProperties": false
        })
    }
}

/// A rate limit of Cloudflare's API.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ApiLimit {
    /// The number of requests per window.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The window in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub seconds: u32,
    /// The share of the limit that is left to people and other tools, from 0 to 0.9. Default: 0.05.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub headroom: Option<f64>,
}

/// The account of a spec: one that fleet.yaml lists, or the customer's own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum AccountChoice {
    /// The name of an account under `accounts` in fleet.yaml.
    Name(String),
    /// An account of the customer's own.
    Own(Box<OwnAccount>),
}

impl JsonSchema for AccountChoice {
    fn schema_name() -> Cow<'static, str> {
        "AccountChoice".into()
    }

    // Flat, so that an error is reported as what it is.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = OwnAccount::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        let description = "The name of an account under `accounts` in fleet.yaml; or the customer's own account: \
                           `{ id: …, token: { secret: NAME } }`.";
        schema.insert("description".to_owned(), description.into());
        schema
    }
}

/// A Cloudflare account of a customer's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct OwnAccount {
    /// The account's id: 32 hexadecimal digits.
    #[schemars(regex(pattern = binding::ID))]
    pub id: Option<String>,
    /// A reference to the account's API token, which is looked up by this very name. No worker can have it.
    pub token: Option<SecretReference>,
    /// The account's workers.dev subdomain, as in `<worker>.<subdomain>.workers.dev`. If it isn't set, flotilla reads it from Cloudflare to
    /// show or check addresses. It is required if a worker's variables contain another worker's workers.dev address.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub subdomain: Option<String>,
    /// The Workers plan, which decides the account's limits: `free` or `paid`. Default: paid.
    pub plan: Option<Plan>,
    /// Limits that differ from the plan's, because Cloudflare has raised them.
    #[serde(default)]
    pub limits: Limits,
    /// The API rate limit of this token. Default: 1,200 requests in 300 seconds.
    pub api_limit: Option<ApiLimit>,
}

impl OwnAccount {
    /// Returns an account as a spec defines it.
    pub fn of(account: &Account) -> OwnAccount {
        OwnAccount {
            id: account.id.literal(),
            token: Some(account.token.clone()),
            subdomain: account.subdomain.clone(),
            plan: Some(account.plan),
            limits: account.limits.clone(),
            api_limit: account.api_limit,
        }
    }

    /// Returns the account, if its id and its token are known.
    pub fn account(&self) -> Option<Account> {
        Some(Account {
            id: AccountId::Literal(self.id.clone()?),
            token: self.token.clone()?,
            dispatch_namespace: None,
            dispatch: None,
            subdomain: self.subdomain.clone(),
            plan: self.plan.unwrap_or_default(),
            limits: self.limits.clone(),
            api_limit: self.api_limit,
        })
    }
}
