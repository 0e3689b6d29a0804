//! The keys by which workers recognize each other's calls: all derived from one secret of the fleet, which no worker gets. Knows names and
//! values, not where the secret comes from.
//!
//! A called worker has one key, and derives those of its callers from it when they call. So a worker that all customers share needs no key
//! for each of them, and a new caller changes nothing at the called worker but the list of those that it accepts.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::names::own_secret;

/// The secret that all keys are derived from, in the sources of secrets.
pub const SOURCE: &str = "FLOTILLA_SERVICE_KEY";
/// The value that it had before, while a rotation is under way.
pub const PREVIOUS: &str = "FLOTILLA_SERVICE_KEY_PREVIOUS";
/// The secret of a called worker. A caller's is followed by `_` and the name of the worker that it calls.
pub const BINDING: &str = "FLOTILLA_SERVICE_KEY";
/// The variable with the name by which a caller is known.
pub const CALLER: &str = "FLOTILLA_CALLER";
/// The variable with the callers that a called worker accepts.
pub const CALLERS: &str = "FLOTILLA_CALLERS";
/// The minimum length of the secret that keys are derived from.
pub const MINIMUM_LENGTH: usize = 32;

/// Returns the name under which a key is looked up: no other secret has a `/` in its name. `path` is the called worker's:
/// `production/acme/api`; without a caller, the key is that of the called worker itself.
pub fn name(path: &str, caller: Option<&str>) -> String {
    match caller {
        None => format!("{SOURCE}/{path}"),
        Some(caller) => format!("{SOURCE}/{path}/{caller}"),
    }
}

/// Returns the name of the secret in the sources that a name of a worker's secret is about.
pub fn source_name(name: &str) -> &str {
    if path(name).is_some() { SOURCE } else { name }
}

/// Returns the names in the sources that a customer's secret of a name can have.
pub fn wanted(customer: &str, name: &str) -> String {
    match path(name) {
        Some(path) => format!("{SOURCE}, from which the key of {path} is derived,"),
        None => format!("{name} or {}", own_secret(customer, name)),
    }
}

/// Returns the rest of a key's name, if it is that of a key.
pub fn path(name: &str) -> Option<&str> {
    name.strip_prefix(SOURCE)?.strip_prefix('/')
}

/// Returns the key, or during a rotation both, separated by a space and the new one first. `path` is [that of its name](path).
pub fn derive(source: &str, previous: Option<&str>, path: &str) -> String {
    // Three parts are the called worker's; what follows is the caller.
    let end = path.match_indices('/').nth(2).map_or(path.len(), |(index, _)| index);
    let (called, caller) = path.split_at(end);
    let key = |source: &str| {
        let key = mac(source, called);
        caller.strip_prefix('/').map_or(key.clone(), |caller| mac(&key, caller))
    };
    let keys: Vec<String> = [Some(source), previous].into_iter().flatten().map(key).collect();
    keys.join(" ")
}

fn mac(key: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("BUG: HMAC takes keys of any length");
    mac.update(text.as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(source: &str, previous: Option<&str>, name: &str) -> String {
        derive(source, previous, path(name).unwrap())
    }

    #[test]
    fn a_callers_key_is_derived_from_that_of_the_called_worker() {
        let called = value("source", None, &name("production/acme/api", None));
        let caller = value("source", None, &name("production/acme/api", Some("acme/web")));
        assert_eq!(caller, mac(&called, "acme/web"));
        assert_eq!(caller.len(), 64);
        let others = [
            ("source", "production/acme/api", Some("acme/jobs")),
            ("source", "production/bluebird/api", Some("acme/web")),
            ("source", "staging/acme/api", Some("acme/web")),
            ("other", "production/acme/api", Some("acme/web")),
            ("source", "production/acme/api", None),
        ];
        for (source, path, caller_name) in others {
            assert_ne!(value(source, None, &name(path, caller_name)), caller);
        }
    }

    #[test]
    fn during_a_rotation_there_are_both() {
        let name = name("production/acme/api", None);
        let both = format!("{} {}", value("new", None, &name), value("old", None, &name));
        assert_eq!(value("new", Some("old"), &name), both);
    }

    #[test]
    fn only_keys_have_a_path() {
        assert_eq!(source_name("FLOTILLA_SERVICE_KEY/production/acme/api"), SOURCE);
        assert_eq!((source_name("API_KEY"), path(SOURCE), path(PREVIOUS)), ("API_KEY", None, None));
    }
}
