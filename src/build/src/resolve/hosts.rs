//! By which hosts a worker is reached: domains, routes, the entries of a dispatch worker. Knows one worker at a time.

use std::collections::BTreeSet;

use flotilla_model::customer::{Dispatch, Hosts, SHARED};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::names;
use flotilla_model::spec::Domain;

use super::claim::Thing;
use super::worker::One;

impl One<'_, '_> {
    /// What the worker passes requests on to, if it is the dispatch worker of its account.
    pub(super) fn dispatch(&self, account: &str) -> Option<Dispatch> {
        let account = self.fleet.accounts.get(account)?;
        let named =
            self.who.id == SHARED && account.dispatch.as_ref().map(|dispatch| &dispatch.worker[..]) == self.role;
        let dispatch = || Some(Dispatch { namespace: account.dispatch_namespace.clone()?, hosts: account.hosts()? });
        named.then(dispatch).flatten()
    }

    /// Checks and claims domains and routes. In a dispatch namespace they are hosts that the dispatch worker looks up, if it
    /// has one.
    pub(super) fn hosts(&mut self, account: &str, namespace: Option<&str>) -> Option<Hosts> {
        let settings = self.settings;
        let table = namespace.and_then(|_| self.fleet.accounts.get(account)?.hosts());
        let mut names = BTreeSet::new();
        for (at, domain) in settings.domains.iter().flatten().enumerate() {
            let at = at.to_string();
            let place = match domain {
                Domain::Name(_) => self.place(&["domains", &at]),
                Domain::Entry { .. } => self.place(&["domains", &at, "name"]),
            };
            let domain = domain.name();
            if let Err(wrong) = names::domain(domain) {
                self.error(Code::BadDomain, place.clone(), wrong);
            }
            let host = names::same_host(domain).into_owned();
            if table.is_some() {
                self.entry(account, &host, place);
                names.insert(host);
                continue;
            }
            if let Some(namespace) = namespace {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("custom domains", account, namespace));
            }
            self.claim(Thing::Domain(host), place);
        }
        for (at, route) in settings.routes.iter().flatten().enumerate() {
            let at = at.to_string();
            let place = self.place(&["routes", &at, "pattern"]);
            if let Err(wrong) = names::zone(&route.zone) {
                self.error(Code::BadRoute, self.place(&["routes", &at, "zone"]), wrong);
            } else if let Err(wrong) = names::route(&route.pattern, &route.zone) {
                self.error(Code::BadRoute, place.clone(), wrong);
            }
            let host = names::same_host(route.pattern.split('/').next().unwrap_or_default()).into_owned();
            let path = route.pattern.find('/').map_or("", |at| &route.pattern[at..]);
            if let (Some(namespace), Some(_)) = (namespace, &table) {
                if path == "/*" && !host.starts_with('*') {
                    self.entry(account, &host, place);
                    names.insert(host);
                } else {
                    let message = format!(
                        "the dispatch worker of `{namespace}` looks up whole hosts, and `{}` is something else",
                        route.pattern
                    );
                    let help = "name each host under `domains`; what has to be told by its path needs an account without \
                                `dispatchNamespace`";
                    self.push(Diagnostic::error(Code::NotInNamespace, place, message, help));
                }
                continue;
            }
            if let Some(namespace) = namespace {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("routes", account, namespace));
            }
            self.claim(Thing::Route(format!("{host}{path}")), place.clone());
            if !self.fleet.file.shared_hosts.contains(&host) {
                self.claim(Thing::Host(host), place);
            }
        }
        Some(Hosts { table: table?, names })
    }

    /// A host that the dispatch worker is to lead to this worker.
    pub(super) fn entry(&mut self, account: &str, host: &str, place: Place) {
        let reach = self.shared.and_then(|shared| shared.reach.get(account));
        let takes = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => pattern == host,
        };
        if reach.is_some_and(|reach| !reach.is_empty() && !reach.iter().any(takes)) {
            let message = format!("no route and no domain of the dispatch worker takes in `{host}`");
            let zone = self.fleet.zone_of(host);
            let pattern = if host == zone { format!("{host}/*") } else { format!("*.{zone}/*") };
            let help = format!(
                "add `routes: [{{ pattern: \"{pattern}\", zone: {zone} }}]` or the host to it under `sharedWorkers`; a custom \
                 hostname of a zone of yours (Cloudflare for SaaS) needs neither"
            );
            self.push(Diagnostic::warning(Code::Undispatched, place.clone(), message, help));
        }
        self.claim(Thing::Entry(host.to_owned()), place);
    }

    /// Where a worker is reached from outside, as far as files tell.
    pub(super) fn address(&self, name: &str, account: &str, workers_dev: bool) -> Option<String> {
        let domain = self.settings.domains.iter().flatten().next().map(|domain| domain.name().to_owned());
        let route = self.settings.routes.iter().flatten().find_map(|route| {
            let host = route.pattern.split('/').next()?;
            (!host.contains('*')).then(|| host.to_owned())
        });
        let subdomain = self.fleet.accounts.get(account).and_then(|account| account.subdomain.as_ref());
        let dev = subdomain.filter(|_| workers_dev).map(|subdomain| format!("{name}.{subdomain}.workers.dev"));
        domain.or(route).or(dev).map(|host| format!("https://{host}"))
    }
}

fn no_hosts(what: &str, account: &str, namespace: &str) -> names::Wrong {
    (
        format!("workers of the dispatch namespace `{namespace}` have no {what} of their own"),
        format!(
            "name the namespace's dispatch worker in fleet.yaml, `dispatch: {{ worker: … }}` of the account `{account}`: it leads \
             each host to its worker; or use an account without `dispatchNamespace`"
        ),
    )
}
