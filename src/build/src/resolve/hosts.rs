//! The hosts of a worker: domains, routes, the entries of a dispatch worker. Knows one worker at a time.

use std::collections::BTreeSet;

use flotilla_model::customer::{Dispatch, Hosts, SHARED};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::names;
use flotilla_model::spec::Domain;

use super::claim::ClaimedResource;
use super::worker::WorkerResolver;

impl WorkerResolver<'_, '_> {
    /// Returns the namespace that the worker dispatches to, if it is the dispatch worker of its account.
    pub(super) fn dispatch(&self, account: &str) -> Option<Dispatch> {
        let account = self.batch.account(account)?;
        let named = self.target.subject.id == SHARED
            && account.dispatch.as_ref().map(|dispatch| &dispatch.worker[..]) == self.target.role;
        let dispatch = || Some(Dispatch { namespace: account.dispatch_namespace.clone()?, hosts: account.hosts()? });
        named.then(dispatch).flatten()
    }

    /// Checks and claims domains and routes. In a dispatch namespace they are hosts that the dispatch worker looks up, if it
    /// has one.
    pub(super) fn hosts(&mut self, account: &str, namespace: Option<&str>) -> Option<Hosts> {
        let settings = self.settings;
        let table = namespace.and_then(|_| self.batch.account(account)?.hosts());
        let (is_account_open, may_be_dispatched) = (self.is_account_open(account), self.may_be_dispatched(account));
        let mut names = BTreeSet::new();
        for (index, domain) in settings.domains.iter().flatten().enumerate() {
            let index = index.to_string();
            let place = match domain {
                Domain::Name(_) => self.place(&["domains", &index]),
                Domain::Entry { .. } => self.place(&["domains", &index, "name"]),
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
            if let Some(namespace) = namespace.filter(|_| !is_account_open) {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("custom domains", account, namespace));
            }
            if !may_be_dispatched {
                self.claim(ClaimedResource::Domain(host), place);
            }
        }
        for (index, route) in settings.routes.iter().flatten().enumerate() {
            let index = index.to_string();
            let place = self.place(&["routes", &index, "pattern"]);
            if let Err(wrong) = names::zone(&route.zone) {
                self.error(Code::BadRoute, self.place(&["routes", &index, "zone"]), wrong);
            } else if let Err(wrong) = names::route(&route.pattern, &route.zone) {
                self.error(Code::BadRoute, place.clone(), wrong);
            }
            let host = names::same_host(route.pattern.split('/').next().unwrap_or_default()).into_owned();
            let path = route.pattern.find('/').map_or("", |start| &route.pattern[start..]);
            if let (Some(namespace), Some(_)) = (namespace, &table) {
                if path == "/*" && !host.starts_with('*') {
                    self.entry(account, &host, place);
                    names.insert(host);
                } else if !is_account_open {
                    let message = format!(
                        "the dispatch worker of `{namespace}` looks up whole hosts, and `{}` is not one",
                        route.pattern
                    );
                    let help = "list each host under `domains`; routes with a path need an account without \
                                `dispatchNamespace`";
                    self.push(Diagnostic::error(Code::NotInNamespace, place, message, help));
                }
                continue;
            }
            if let Some(namespace) = namespace.filter(|_| !is_account_open) {
                self.error(Code::NotInNamespace, place.clone(), no_hosts("routes", account, namespace));
            }
            if may_be_dispatched {
                continue;
            }
            self.claim(ClaimedResource::Route(format!("{host}{path}")), place.clone());
            let fleet = self.batch.fleet;
            if !fleet.file.shared_hosts.contains(&host) && !fleet.has_left_out(&["sharedHosts"]) {
                self.claim(ClaimedResource::Host(host), place);
            }
        }
        Some(Hosts { table: table?, names })
    }

    /// Claims a host that the dispatch worker points to this worker.
    pub(super) fn entry(&mut self, account: &str, host: &str, place: Place) {
        let reach = self.batch.shared.and_then(|shared| shared.reach.get(account));
        let takes = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => pattern == host,
        };
        if reach.is_some_and(|reach| !reach.is_empty() && !reach.iter().any(takes)) {
            let message = format!("no route and no domain of the dispatch worker covers `{host}`");
            let zone = self.batch.fleet.zone_of(host);
            let pattern = if host == zone { format!("{host}/*") } else { format!("*.{zone}/*") };
            let help = format!(
                "add `routes: [{{ pattern: \"{pattern}\", zone: {zone} }}]` or the host to it under `sharedWorkers`; a custom \
                 hostname in one of your zones (Cloudflare for SaaS) needs neither"
            );
            self.push(Diagnostic::warning(Code::Undispatched, place.clone(), message, help));
        }
        self.claim(ClaimedResource::Entry(host.to_owned()), place);
    }

    /// Returns the address of a worker, as far as it is known from the specs.
    pub(super) fn address(&self, name: &str, account: &str, workers_dev: bool) -> Option<String> {
        let domain = self.settings.domains.iter().flatten().next().map(|domain| domain.name().to_owned());
        let route = self.settings.routes.iter().flatten().find_map(|route| {
            let host = route.pattern.split('/').next()?;
            (!host.contains('*')).then(|| host.to_owned())
        });
        let subdomain = self.batch.account(account).and_then(|account| account.subdomain.as_ref());
        let dev = subdomain.filter(|_| workers_dev).map(|subdomain| format!("{name}.{subdomain}.workers.dev"));
        domain.or(route).or(dev).map(|host| format!("https://{host}"))
    }
}

fn no_hosts(what: &str, account: &str, namespace: &str) -> names::Wrong {
    (
        format!("workers of the dispatch namespace `{namespace}` have no {what} of their own"),
        format!(
            "name the namespace's dispatch worker in fleet.yaml, `dispatch: {{ worker: … }}` of the account `{account}`: it routes each host to its worker; or use an account without `dispatchNamespace`"
        ),
    )
}
