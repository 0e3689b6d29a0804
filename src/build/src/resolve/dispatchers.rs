//! The dispatch workers of accounts. Knows the shared workers, no customers.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::customer::Worker;
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_model::names;
use flotilla_spec::project::{Fleet, unknown};
use flotilla_spec::yaml::Kind;

use super::Resolved;
use super::peers::Peers;

/// Checks the dispatch workers of accounts; returns the hosts that reach them, by account.
pub(super) fn dispatchers(fleet: &Fleet, peers: &Peers, resolved: &mut Resolved) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let document = &fleet.document;
    for (name, account) in fleet.accounts.listed() {
        let Some(dispatch) = &account.dispatch else { continue };
        let place = |key: &[&str]| document.place_of([&["accounts", name, "dispatch"], key].concat());
        let is_open = fleet.has_left_out(&["accounts", name]);
        let Some(namespace) = &account.dispatch_namespace else {
            if is_open {
                continue;
            }
            let message = format!("the account `{name}` has a dispatch worker and no `dispatchNamespace`");
            let help = "add `dispatchNamespace: customers`, or remove `dispatch`";
            resolved.diagnostics.push(Diagnostic::error(Code::MissingKey, place(&[]), message, help));
            continue;
        };
        let alike = fleet
            .accounts
            .listed_with(&account.id)
            .find(|(_, other)| other.hosts() == account.hosts() && other.dispatch_namespace.as_ref() < Some(namespace));
        if let Some((other, _)) = alike {
            let message =
                format!("the accounts `{other}` and `{name}` have different namespaces, but the same list of hosts");
            let help = "give each a title of its own under `hosts`";
            resolved.diagnostics.push(Diagnostic::error(Code::Conflict, place(&["hosts"]), message, help));
        }
        let known: Vec<&str> = match document.root.get("sharedWorkers").map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries.iter().map(|(name, _, _)| name.as_str()).collect(),
            _ => Vec::new(),
        };
        if fleet.lacks("sharedWorkers") {
            continue;
        }
        if !known.contains(&dispatch.worker.as_str()) {
            let diagnostic = unknown("shared worker", &dispatch.worker, place(&["worker"]), known.iter().copied());
            resolved.diagnostics.push(diagnostic);
            continue;
        }
        let workers = resolved.workers.iter().chain(&resolved.unusable);
        let of_role: Vec<&Worker> =
            workers.clone().filter(|worker| worker.role.as_ref() == Some(&dispatch.worker)).collect();
        // Where it is, and what reaches it, isn't known.
        let own = peers.0.iter().filter(|((name, _), _)| *name == dispatch.worker);
        if is_open || own.into_iter().any(|(_, peer)| !peer.has_all_hosts) {
            continue;
        }
        let here: Vec<&&Worker> = of_role.iter().filter(|worker| worker.account == *name).collect();
        if let (Some(elsewhere), true) = (of_role.first(), here.is_empty()) {
            let message = format!(
                "the dispatch worker `{}` of the account `{name}` is in the account `{}`",
                dispatch.worker, elsewhere.account
            );
            let help = format!("set `account: {name}` under `sharedWorkers` for `{}`", dispatch.worker);
            resolved.diagnostics.push(Diagnostic::error(Code::Conflict, place(&["worker"]), message, help));
            continue;
        }
        let hosts: BTreeSet<String> = here
            .iter()
            .flat_map(|worker| {
                let routes = worker.routes.iter().filter_map(|route| route.pattern.split('/').next());
                routes.chain(worker.domains.iter().map(String::as_str))
            })
            .map(|host| names::same_host(host).into_owned())
            .collect();
        if hosts.is_empty() && !here.is_empty() {
            let message =
                format!("no host reaches the dispatch worker `{}`: it has no route and no domain", dispatch.worker);
            let help = format!(
                "under `sharedWorkers` for `{}`, add `routes: [{{ pattern: \"*.example.com/*\", zone: example.com }}]`, with a \
                 proxied DNS record of that name",
                dispatch.worker
            );
            resolved.diagnostics.push(Diagnostic::warning(Code::Undispatched, place(&["worker"]), message, help));
        }
        all.insert(name.clone(), hosts);
    }
    all
}
