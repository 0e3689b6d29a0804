//! Reading: customers' YAML, fleet.yaml, packs, env files and the sources of secrets become typed values. Doesn't know what is made of them.

pub mod accounts;
pub mod documents;
pub mod dotenv;
pub mod edit;
pub mod envfile;
pub mod jsonc;
pub mod layer;
pub mod leave_out;
pub mod masked;
pub mod pack;
pub mod project;
pub mod schema;
pub mod secrets;
pub mod tree;
pub mod yaml;
