//! A preview: workers of a fleet, a second time, under names and hosts of their own. Knows how these are called; doesn't know what the
//! workers are.
//!
//! At Cloudflare a preview is a fleet of its own: its workers carry the tag `flotilla-<fleet>.preview-<id>`, which no fleet's
//! own tag can be, as the name of a fleet has no dot.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::customer::{Database, Worker};
use crate::names;
use crate::spec::Environment;

/// The longest id of a preview.
pub const ID_LENGTH: usize = 20;
/// The separator between a fleet's name and a preview's id in the tag of its workers.
const OWNER: &str = ".preview-";

/// A preview, as it is resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Its id.
    pub id: String,
    /// The environment whose settings it takes.
    pub from: Environment,
    /// The domain of its hosts; without it, each host stays in its own.
    pub domain: Option<String>,
    /// The customers that belong to it.
    pub customers: BTreeSet<String>,
    /// The shared workers that belong to it. Before it is opened: those that belong to it in any case; in between, nothing, as long as that
    /// is unknown.
    pub shared: Option<BTreeSet<String>>,
    /// The hosts of its workers: what each is outside the preview, and in it.
    pub hosts: BTreeMap<String, String>,
}

impl Preview {
    /// Returns the suffix of names: of workers, of databases, and of the first part of hosts.
    pub fn suffix(&self) -> String {
        format!("-preview-{}", self.id)
    }

    /// Returns the word that replaces `{environment}` in names.
    pub fn word(&self) -> String {
        format!("preview-{}", self.id)
    }

    /// Returns a host in the preview: its first part gets the suffix, in place of the environment's name if it ends
    /// with that. The zone itself has no such part, and gets one.
    pub fn host(&self, host: &str, zone: &str, from: Environment) -> String {
        let host = names::same_host(host);
        match host.split_once('.') {
            Some((label, rest)) if host != zone => {
                let label = label.strip_suffix(&format!("-{from}")).unwrap_or(label);
                format!("{label}{}.{rest}", self.suffix())
            }
            _ => format!("{}.{host}", self.word()),
        }
    }

    /// Returns the host of a worker in the preview's own domain.
    pub fn host_in(&self, domain: &str, customer: Option<&str>, role: Option<&str>) -> String {
        let tenant: Vec<&str> = [role, customer].into_iter().flatten().collect();
        format!("{}{}.{domain}", tenant.join("-"), self.suffix())
    }

    /// Returns an origin, of the preview if it is that of a worker which belongs to it.
    pub fn origin(&self, origin: &str) -> String {
        let moved = || {
            let (scheme, rest) = origin.split_once("://")?;
            let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
            let host = self.hosts.get(&*names::same_host(host))?;
            Some(port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}")))
        };
        moved().unwrap_or_else(|| origin.to_owned())
    }

    /// Returns the name of a database that is the preview's own.
    pub fn database(&self, name: &str) -> String {
        format!("{name}{}", self.suffix())
    }
}

/// Returns the D1 database of a worker that belongs to the preview alone, by its name.
pub fn own_database<'w>(preview: &Preview, worker: &'w Worker) -> Option<&'w str> {
    match &worker.database {
        Database::D1 { id: None, name, .. } if name.ends_with(&preview.suffix()) => Some(name),
        _ => None,
    }
}

/// Returns whether a text can be the id of a preview, and what else it has to be.
pub fn check_id(id: &str) -> Result<(), String> {
    if names::label(id).is_ok() && id.len() <= ID_LENGTH {
        return Ok(());
    }
    Err(format!(
        "expected lower-case letters, digits and hyphens between them, at most {ID_LENGTH} characters, such as 123 or pr-7"
    ))
}

/// Returns the owner in its workers' tags.
pub fn owner(fleet: &str, id: &str) -> String {
    format!("{fleet}{OWNER}{id}")
}

/// Returns the id of the preview of a fleet in an owner.
pub fn id_of<'a>(fleet: &str, owner: &'a str) -> Option<&'a str> {
    owner.strip_prefix(fleet)?.strip_prefix(OWNER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> Preview {
        Preview {
            id: "123".to_owned(),
            from: Environment::Staging,
            domain: None,
            customers: BTreeSet::new(),
            shared: None,
            hosts: BTreeMap::from([("codex.example".to_owned(), "preview-123.codex.example".to_owned())]),
        }
    }

    #[test]
    fn hosts_of_a_preview_have_a_name_of_their_own_beside_the_others() {
        let host = |host: &str| preview().host(host, names::zone_of(host), Environment::Staging);
        assert_eq!(host("api.revelations.example"), "api-preview-123.revelations.example");
        assert_eq!(host("api-staging.revelations.example"), "api-preview-123.revelations.example");
        assert_eq!(host("staging.revelations.example"), "staging-preview-123.revelations.example");
        assert_eq!(host("a.b.revelations.example"), "a-preview-123.b.revelations.example");
        assert_eq!(host("revelations.example"), "preview-123.revelations.example");
        let inside = |customer, role| preview().host_in("preview.example", customer, role);
        assert_eq!(inside(Some("acme"), None), "acme-preview-123.preview.example");
        assert_eq!(inside(Some("acme"), Some("web")), "web-acme-preview-123.preview.example");
        assert_eq!(inside(None, Some("auth")), "auth-preview-123.preview.example");
    }

    #[test]
    fn origins_of_its_own_workers_become_those_of_the_preview() {
        for (origin, expected) in [
            ("https://codex.example", "https://preview-123.codex.example"),
            ("https://codex.example:8443", "https://preview-123.codex.example:8443"),
            ("https://other.example", "https://other.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(preview().origin(origin), expected);
        }
    }

    #[test]
    fn owners_are_told_apart() {
        assert_eq!(id_of("shop", &owner("shop", "123")), Some("123"));
        for other in ["shop", "shop.preview", "shops.preview-1", "sho.preview-1"] {
            assert_eq!(id_of("shop", other), None, "{other}");
        }
        for good in ["1", "pr-7", "a", &"a".repeat(ID_LENGTH)] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        for bad in ["", "-1", "1-", "A", "a.b", "a_b", "../x", &"a".repeat(ID_LENGTH + 1)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
