//! The keys of wrangler's configuration: how each is imported, and which of them environments inherit. Knows no values.
//!
//! Source: wrangler 4.164, its config-schema.json and the checks of its configuration (`inheritable`, `notInheritable`).

/// The inheritance of a key of the top level by `[env.X]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Inherited, unless the environment has its own.
    Inherited,
    /// Not inherited.
    Own,
    /// The key is allowed at the top level alone, and applies to all.
    Whole,
}

/// The way in which a key is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is mapped, decides the code's bundle, or is something that packs can't deploy yet: see `flotilla_spec::pack::unsupported`.
    Mapped,
    /// It changes nothing that is deployed.
    Local,
    /// A spec can't express it; a deploy leaves it as it is or omits it.
    LeftOut(&'static str),
    /// A spec can't express it, and a deploy without it would break the worker.
    Lost(&'static str),
}

use Fate::{LeftOut, Local, Lost, Mapped};
use Scope::{Inherited, Own, Whole};

const BY_WRANGLER: &str = "flotilla doesn't support it; keep deploying this worker with `wrangler deploy`";
const AT_CLOUDFLARE: &str = "set it at Cloudflare, or keep deploying this worker with `wrangler deploy`";
/// Every key that wrangler knows, and some that older ones knew.
pub const KEYS: &[(&str, Scope, Fate)] = &[
    ("$schema", Whole, Local),
    ("access", Inherited, LeftOut(AT_CLOUDFLARE)),
    ("account_id", Inherited, Mapped),
    ("addresses", Whole, LeftOut(AT_CLOUDFLARE)),
    ("agent_memory", Own, Mapped),
    ("ai", Own, Mapped),
    ("ai_search", Own, Mapped),
    ("ai_search_namespaces", Own, Mapped),
    ("alias", Whole, Mapped),
    ("analytics", Own, Lost(BY_WRANGLER)),
    ("analytics_engine_datasets", Own, Mapped),
    ("artifacts", Own, Mapped),
    ("assets", Inherited, Mapped),
    ("base_dir", Inherited, Local),
    ("browser", Own, Mapped),
    ("build", Inherited, Mapped),
    ("cache", Inherited, Mapped),
    ("cloudchamber", Own, Mapped),
    ("compatibility_date", Inherited, Mapped),
    ("compatibility_flags", Inherited, Mapped),
    ("compliance_region", Inherited, Lost(BY_WRANGLER)),
    ("connect", Own, Mapped),
    ("containers", Own, Mapped),
    ("d1_databases", Own, Mapped),
    ("data_blobs", Whole, Mapped),
    ("define", Own, Mapped),
    ("dependencies_instrumentation", Whole, Local),
    ("dev", Whole, Local),
    ("dispatch_namespaces", Own, Mapped),
    ("durable_objects", Own, Mapped),
    ("exports", Inherited, Mapped),
    ("find_additional_modules", Inherited, Mapped),
    ("first_party_worker", Inherited, Lost(BY_WRANGLER)),
    ("flagship", Own, Mapped),
    ("hyperdrive", Own, Mapped),
    ("images", Own, Mapped),
    ("jsx_factory", Inherited, Mapped),
    ("jsx_fragment", Inherited, Mapped),
    ("k2", Own, Mapped),
    ("keep_names", Inherited, Local),
    ("keep_vars", Whole, Mapped),
    ("kv_namespaces", Own, Mapped),
    ("legacy_env", Whole, Mapped),
    ("limits", Inherited, Mapped),
    ("logfwdr", Inherited, Mapped),
    ("logpush", Inherited, Mapped),
    ("main", Inherited, Mapped),
    ("media", Own, Mapped),
    ("migrations", Inherited, Mapped),
    ("minify", Inherited, Local),
    ("mtls_certificates", Own, Mapped),
    ("name", Inherited, Mapped),
    ("no_bundle", Inherited, Mapped),
    ("node_compat", Inherited, Lost("wrangler no longer supports it: use the flag `nodejs_compat`")),
    ("observability", Inherited, Mapped),
    ("pages_build_output_dir", Whole, Mapped),
    ("pipelines", Own, Mapped),
    ("placement", Inherited, Mapped),
    ("preserve_file_names", Inherited, Local),
    ("preview_urls", Inherited, Mapped),
    ("previews", Inherited, Local),
    ("python_modules", Inherited, Mapped),
    ("queues", Own, Mapped),
    ("r2_buckets", Own, Mapped),
    ("ratelimits", Own, Mapped),
    ("route", Inherited, Mapped),
    ("routes", Inherited, Mapped),
    ("rules", Inherited, Mapped),
    ("secrets", Own, Mapped),
    ("secrets_store_secrets", Own, Mapped),
    ("send_email", Own, Mapped),
    ("send_metrics", Whole, Local),
    ("services", Own, Mapped),
    ("site", Whole, Mapped),
    ("stream", Own, Mapped),
    ("streaming_tail_consumers", Own, Mapped),
    ("tail_consumers", Own, Mapped),
    ("text_blobs", Whole, Mapped),
    ("triggers", Inherited, Mapped),
    ("tsconfig", Inherited, Mapped),
    ("type", Whole, Local),
    ("unsafe", Own, Mapped),
    ("unsafe_hello_world", Own, Lost(BY_WRANGLER)),
    ("upload_source_maps", Inherited, Mapped),
    ("usage_model", Inherited, Local),
    ("vars", Own, Mapped),
    ("vectorize", Own, Mapped),
    ("version_metadata", Own, Mapped),
    ("vpc_networks", Own, Mapped),
    ("vpc_services", Own, Mapped),
    ("wasm_modules", Whole, Mapped),
    ("worker_loaders", Own, Mapped),
    ("workers_dev", Inherited, Mapped),
    ("workflows", Own, Mapped),
    // Where projects keep it, though wrangler wants it in a route.
    ("zone_id", Inherited, Mapped),
];

/// Returns how a key is inherited and imported.
pub fn key(name: &str) -> Option<(Scope, Fate)> {
    KEYS.binary_search_by_key(&name, |(key, _, _)| key).ok().map(|at| (KEYS[at].1, KEYS[at].2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_sorted_and_each_stands_once() {
        assert!(KEYS.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!(key("vars"), Some((Own, Mapped)));
        assert_eq!(key("routes"), Some((Inherited, Mapped)));
        assert_eq!(key("varz"), None);
    }
}
