//! Checks across customers: one resource claimed by two workers or by two customers. Pure; checks push diagnostics and
//! never stop early.

use std::collections::BTreeSet;

use crate::resolve::{ClaimedResource, UniqueClaim};
use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::names::own_secret;

/// Finds resources that are claimed twice: returns a diagnostic for each claim, and the customer that is skipped for
/// it. Sorts the claims.
pub fn claims(claims: &mut [UniqueClaim]) -> Vec<Conflict> {
    claims.sort_unstable();
    let groups = claims.chunk_by(|a, b| a.resource == b.resource).filter(|group| group.len() > 1);
    let (names, groups): (Vec<_>, Vec<_>) =
        groups.partition(|group| matches!(group[0].resource, ClaimedResource::DatabaseName { .. }));
    let mut conflicts: Vec<Conflict> = groups.into_iter().flat_map(contested).collect();
    let places = |conflicts: &[Conflict]| -> BTreeSet<Place> {
        conflicts.iter().filter_map(|conflict| Some(conflict.diagnostic.as_ref()?.place.clone())).collect()
    };
    let described = places(&conflicts);
    // An error about a database's id isn't reported again for its name.
    conflicts.extend(names.into_iter().flat_map(contested).map(|conflict| Conflict {
        diagnostic: conflict.diagnostic.filter(|diagnostic| !described.contains(&diagnostic.place)),
        ..conflict
    }));
    let described = places(&conflicts);
    conflicts.extend(hosts(claims, &described));
    conflicts.extend(wildcards(claims));
    conflicts
}

/// A claim that can't be granted, or only with a warning.
#[derive(Debug)]
pub struct Conflict {
    /// The customer that is skipped for it.
    pub held: Option<String>,
    /// The diagnostic; `None` where it is reported at another claim of the same place.
    pub diagnostic: Option<Diagnostic>,
}

/// The number of other claims that are shown with each; more would hide the relevant one.
const OTHERS: usize = 3;

fn contested(group: &[UniqueClaim]) -> Vec<Conflict> {
    let described =
        |claim: &UniqueClaim, diagnostic| Conflict { held: Some(claim.claimant.customer.clone()), diagnostic };
    match &group[0].resource {
        ClaimedResource::Secrets(owner) => {
            // The customer that they belong to is never at fault.
            let is_own = |claim: &&UniqueClaim| {
                claim.claimant.customer != SHARED && own_secret(&claim.claimant.customer, "") == *owner
            };
            let Some(own) = group.iter().find(is_own) else { return Vec::new() };
            let others = group.iter().filter(|claim| claim.claimant.customer != own.claimant.customer);
            return others.map(|claim| described(claim, Some(foreign(claim, own)))).collect();
        }
        ClaimedResource::Database(_) | ClaimedResource::DatabaseName { .. }
            if group.iter().all(|claim| claim.claimant.customer == group[0].claimant.customer) =>
        {
            return Vec::new();
        }
        // See `hosts`.
        ClaimedResource::Host(_) => return Vec::new(),
        _ => {}
    }
    let places: Vec<&[UniqueClaim]> = group.chunk_by(|a, b| a.place == b.place).collect();
    match places.as_slice() {
        // Reported once, at the one place.
        [_] => match shared(group) {
            None => Vec::new(),
            Some(diagnostic) => {
                let mut first = Some(diagnostic);
                group.iter().map(|claim| described(claim, first.take())).collect()
            }
        },
        places => group.iter().filter_map(|claim| Some(described(claim, Some(rival(claim, places)?)))).collect(),
    }
}

/// Reports one place that claims a resource for several workers: a customer's environments, or all customers by a default.
fn shared(group: &[UniqueClaim]) -> Option<Diagnostic> {
    let (first, last) = (group.first()?, group.last()?);
    let (code, what) = named(&first.resource);
    let (whose, help) = if first.claimant == last.claimant {
        // The schema reports duplicate entries; a worker's name and a domain are claimed once by each worker.
        matches!(first.resource, ClaimedResource::Route(_)).then(|| ("twice by this worker".to_owned(), keep_one()))?
    } else if group.iter().all(|claim| {
        (&claim.claimant.customer, &claim.claimant.role) == (&first.claimant.customer, &first.claimant.role)
    }) {
        let environments: Vec<String> = group.iter().map(|claim| claim.claimant.environment.to_string()).collect();
        (format!("by each environment: {}", environments.join(", ")), own_each(code, first))
    } else {
        let sample: Vec<String> = group.iter().take(OTHERS).map(|claim| claim.claimant.to_string()).collect();
        let more = if group.len() > OTHERS { ", …" } else { "" };
        let help = if first.claimant.customer == last.claimant.customer {
            let role = first.claimant.role.as_deref().unwrap_or("web");
            format!("give each worker its own: `workers: {{ {role}: {{ {} }} }}`", key(code))
        } else {
            match code {
                Code::DuplicateConsumer | Code::DuplicateWorkflow => {
                    "give each customer its own: write `{customer}` in the name".to_owned()
                }
                _ => "give each customer its own".to_owned(),
            }
        };
        (format!("by {} workers: {}{more}", group.len(), sample.join(", ")), help)
    };
    Some(Diagnostic::error(code, first.place.clone(), format!("{what} is claimed {whose}"), help))
}

/// Reports a claim of a resource that is claimed at other places, too.
fn rival(claim: &UniqueClaim, places: &[&[UniqueClaim]]) -> Option<Diagnostic> {
    let rivals = |other: &&UniqueClaim| {
        other.place != claim.place
            && (!matches!(claim.resource, ClaimedResource::Database(_) | ClaimedResource::DatabaseName { .. })
                || other.claimant.customer != claim.claimant.customer)
    };
    let elsewhere = || places.iter().map(|here| &here[0]).filter(rivals);
    let other = elsewhere().next()?;
    let own = other.claimant.customer == claim.claimant.customer;
    let twice = other.claimant == claim.claimant;
    if twice && !matches!(claim.resource, ClaimedResource::Route(_)) {
        // Two files of one id, or one entry twice: the files are reported, and the schema reports the entry.
        return None;
    }
    let (code, what) = named(&claim.resource);
    let message = if twice {
        format!("{what} is claimed twice by this worker")
    } else if own {
        format!("{what} is also claimed by the {} worker", other.claimant.own())
    } else {
        format!("{what} is also claimed by {}", other.claimant)
    };
    let help = if twice {
        keep_one()
    } else if code == Code::DuplicateWorkerName {
        "rename one of the customers, or change `workerName` in fleet.yaml".to_owned()
    } else if code == Code::SharedDatabase {
        "each customer has a database of its own: give one of them another database".to_owned()
    } else if own && other.claimant.role == claim.claimant.role {
        own_each(code, places[0].first()?)
    } else {
        "only one worker can have it".to_owned()
    };
    let diagnostic = Diagnostic::error(code, claim.place.clone(), message, help);
    Some(also(diagnostic, elsewhere(), |other| {
        match (other.claimant == claim.claimant, other.claimant.customer == claim.claimant.customer) {
            (true, _) => "claimed here, too".to_owned(),
            (_, true) => format!("claimed here by the {} worker", other.claimant.own()),
            _ => format!("claimed here by {}", other.claimant),
        }
    }))
}

/// Finds hosts that several customers use: one of them as a custom domain and others by routes, or all by routes. A
/// place with an earlier diagnostic gets no second one.
fn hosts(claims: &[UniqueClaim], described: &BTreeSet<Place>) -> Vec<Conflict> {
    let mut claims: Vec<(&str, &UniqueClaim)> = claims
        .iter()
        .filter_map(|claim| match &claim.resource {
            ClaimedResource::Domain(host) | ClaimedResource::Entry(host) | ClaimedResource::Host(host)
                if !described.contains(&claim.place) =>
            {
                Some((host.as_str(), claim))
            }
            _ => None,
        })
        .collect();
    // Domains before what a dispatch worker looks up, that before routes, and so on in the order of claims.
    claims.sort_unstable();
    let dispatched: BTreeSet<&str> = claims
        .iter()
        .filter(|(_, claim)| matches!(claim.resource, ClaimedResource::Entry(_)))
        .map(|(host, _)| *host)
        .collect();
    // By its own domains and routes, a dispatch worker is reached.
    claims.retain(|(host, claim)| claim.claimant.customer != SHARED || !dispatched.contains(host));
    let groups = claims.chunk_by(|a, b| a.0 == b.0);
    groups
        .filter(|group| group.iter().any(|(_, claim)| claim.claimant.customer != group[0].1.claimant.customer))
        .flat_map(shared_host)
        .collect()
}

fn shared_host(group: &[(&str, &UniqueClaim)]) -> Vec<Conflict> {
    let (host, first) = group[0];
    // An asterisk at the beginning is an alias to YAML.
    let written = if host.starts_with('*') { format!("\"{host}\"") } else { host.to_owned() };
    let others: Vec<&UniqueClaim> = group
        .iter()
        .map(|(_, claim)| *claim)
        .filter(|claim| claim.claimant.customer != first.claimant.customer)
        .collect();
    let also = |diagnostic: Diagnostic, what: &str| {
        let shown = others.chunk_by(|a, b| a.claimant.customer == b.claimant.customer).map(|own| own[0]);
        also(diagnostic, shown, |other| format!("{what} of {}", other.claimant))
    };
    if matches!(first.resource, ClaimedResource::Host(_)) {
        let customers: BTreeSet<&str> = group.iter().map(|(_, claim)| claim.claimant.customer.as_str()).collect();
        let message = format!("routes of {} customers share the host `{host}`", customers.len());
        let help = format!(
            "a route of one can take requests that are meant for another: give each a host of its own, or, if this is intended, \
             list it in fleet.yaml: `sharedHosts: [{written}]`"
        );
        let diagnostic = Diagnostic::warning(Code::CloseHosts, first.place.clone(), message, help);
        return vec![Conflict { held: None, diagnostic: Some(also(diagnostic, "a route")) }];
    }
    let help = format!(
        "routes take precedence over custom domains, so one worker would get the other's requests: give each a host of its own, or, if \
         this is intended, list it in fleet.yaml: `sharedHosts: [{written}]`"
    );
    let error =
        |claim: &UniqueClaim, message: String| Diagnostic::error(Code::SharedHost, claim.place.clone(), message, &help);
    let what = if matches!(first.resource, ClaimedResource::Domain(_)) { "custom domain" } else { "dispatched host" };
    let other = if matches!(others[0].resource, ClaimedResource::Entry(_)) { "dispatched host" } else { "route" };
    let own = match other {
        "route" => format!("a route of {} has the host of the {what} `{host}`", others[0].claimant),
        _ => format!("a dispatched host of {} is the {what} `{host}`", others[0].claimant),
    };
    let own = error(first, own);
    let mut conflicts = vec![Conflict {
        held: Some(first.claimant.customer.clone()),
        diagnostic: Some(also(own, &format!("the {other}"))),
    }];
    conflicts.extend(others.iter().map(|claim| {
        let subject =
            if matches!(claim.resource, ClaimedResource::Entry(_)) { "dispatched host" } else { "route's host" };
        let message = format!("the {subject} `{host}` is a {what} of {}", first.claimant);
        let diagnostic = error(claim, message).also(first.place.clone(), format!("claimed here by {}", first.claimant));
        Conflict { held: Some(claim.claimant.customer.clone()), diagnostic: Some(diagnostic) }
    }));
    conflicts
}

/// Routes with a wildcard for their host that takes in another customer's host. A custom domain there is never reached, because routes take
/// precedence; of a route there, the requests that it doesn't match itself are taken.
fn wildcards(claims: &[UniqueClaim]) -> Vec<Conflict> {
    let hosts: Vec<(&str, &UniqueClaim)> = claims
        .iter()
        .filter_map(|claim| match &claim.resource {
            ClaimedResource::Domain(host) | ClaimedResource::Host(host) => Some((host.as_str(), claim)),
            _ => None,
        })
        .collect();
    let wild = hosts.iter().filter_map(|(host, claim)| Some((*host, host.strip_prefix('*')?, *claim)));
    wild.flat_map(|(host, suffix, claim)| {
        let taken = |other: &&(&str, &UniqueClaim)| {
            other.1.claimant.customer != claim.claimant.customer && other.0 != host && other.0.ends_with(suffix)
        };
        wildcard(host, claim, &hosts.iter().filter(taken).copied().collect::<Vec<_>>())
    })
    .collect()
}

fn wildcard(host: &str, claim: &UniqueClaim, taken: &[(&str, &UniqueClaim)]) -> Vec<Conflict> {
    let domains: Vec<&(&str, &UniqueClaim)> =
        taken.iter().filter(|(_, other)| matches!(other.resource, ClaimedResource::Domain(_))).collect();
    let meant = format!("if this is intended, list it in fleet.yaml: `sharedHosts: [\"{host}\"]`");
    let Some((domain, first)) = domains.first() else {
        // That is the purpose of a worker for all customers.
        if taken.is_empty() || claim.claimant.customer == SHARED {
            return Vec::new();
        }
        let message = format!("the route's hosts `{host}` include `{}` of {}", taken[0].0, taken[0].1.claimant);
        let help = format!(
            "it gets the requests that the other's own routes don't match: write its hosts without a wildcard, or, {meant}"
        );
        let warning = Diagnostic::warning(Code::CloseHosts, claim.place.clone(), message, help);
        let warning =
            also(warning, taken.iter().map(|(_, other)| *other), |other| format!("a route of {}", other.claimant));
        return vec![Conflict { held: None, diagnostic: Some(warning) }];
    };
    let help =
        format!("routes take precedence over custom domains: write the route's hosts without a wildcard, or, {meant}");
    let error =
        |claim: &UniqueClaim, message: String| Diagnostic::error(Code::SharedHost, claim.place.clone(), message, &help);
    let own =
        error(claim, format!("the route's hosts `{host}` include the custom domain `{domain}` of {}", first.claimant));
    let label = |other: &UniqueClaim| format!("the custom domain of {}", other.claimant);
    let own = also(own, domains.iter().map(|(_, other)| *other), label);
    let mut conflicts = vec![Conflict { held: Some(claim.claimant.customer.clone()), diagnostic: Some(own) }];
    conflicts.extend(domains.iter().map(|(domain, other)| {
        let message =
            format!("the custom domain `{domain}` is among the hosts `{host}` of a route of {}", claim.claimant);
        let diagnostic = error(other, message).also(claim.place.clone(), "the route");
        Conflict { held: Some(other.claimant.customer.clone()), diagnostic: Some(diagnostic) }
    }));
    conflicts
}

/// Adds the places of the first of other claims, each with a label.
fn also<'a>(
    diagnostic: Diagnostic,
    others: impl Iterator<Item = &'a UniqueClaim>,
    label: impl Fn(&UniqueClaim) -> String,
) -> Diagnostic {
    others.take(OTHERS).fold(diagnostic, |diagnostic, other| diagnostic.also(other.place.clone(), label(other)))
}

/// Reports a reference to a secret that is another customer's.
fn foreign(claim: &UniqueClaim, own: &UniqueClaim) -> Diagnostic {
    let ClaimedResource::Secrets(owner) = &claim.resource else { unreachable!("BUG: only secrets are foreign") };
    let (customer, prefix) = (&own.claimant.customer, own_secret(&claim.claimant.customer, ""));
    let (message, help) = match owner.strip_prefix(&prefix) {
        Some(rest) => {
            let message = if rest.is_empty() {
                format!(
                    "a secret of this worker is looked up as `{prefix}…` first: those are the secrets of {customer}"
                )
            } else {
                format!(
                    "a secret named `{rest}…` is looked up as `{owner}…` for {}: those are the secrets of {customer}",
                    claim.claimant.customer
                )
            };
            (message, "give the secret another name, or rename one of the two")
        }
        None => (
            format!("secrets whose names begin with `{owner}` belong to {customer}"),
            "write the name without the customer: it is looked up as CUSTOMER__NAME first, and then as NAME",
        ),
    };
    Diagnostic::error(Code::ForeignSecret, claim.place.clone(), message, help)
        .also(own.place.clone(), "the customer that they belong to")
}

fn named(resource: &ClaimedResource) -> (Code, String) {
    match resource {
        ClaimedResource::Domain(domain) => (Code::DuplicateDomain, format!("the domain `{domain}`")),
        ClaimedResource::Route(pattern) => (Code::DuplicateRoute, format!("the route `{pattern}`")),
        ClaimedResource::Entry(host) => (Code::DuplicateDomain, format!("the host `{host}`")),
        ClaimedResource::WorkerName { name, .. } => (Code::DuplicateWorkerName, format!("the worker name `{name}`")),
        ClaimedResource::Database(database) => (Code::SharedDatabase, format!("the database `{database}`")),
        ClaimedResource::DatabaseName { name, .. } => (Code::SharedDatabase, format!("the database `{name}`")),
        ClaimedResource::Secrets(owner) => (Code::ForeignSecret, format!("the secrets `{owner}…`")),
        ClaimedResource::Host(host) => (Code::SharedHost, format!("the host `{host}`")),
        ClaimedResource::QueueConsumer { queue, .. } => {
            (Code::DuplicateConsumer, format!("the consumer of the queue `{queue}`"))
        }
        ClaimedResource::Workflow { name, .. } => (Code::DuplicateWorkflow, format!("the workflow `{name}`")),
    }
}

/// Returns the key that defines the resource.
fn key(code: Code) -> &'static str {
    match code {
        Code::DuplicateDomain => "domains: […]",
        Code::DuplicateWorkerName => "workerName: …",
        Code::SharedDatabase => "database: { … }",
        Code::DuplicateConsumer => "queueConsumers: { … }",
        Code::DuplicateWorkflow => "bindings: { … }",
        _ => "routes: […]",
    }
}

fn keep_one() -> String {
    "keep one of the two".to_owned()
}

fn own_each(code: Code, first: &UniqueClaim) -> String {
    format!("give each its own: `environments: {{ {}: {{ {} }} }}`", first.claimant.environment, key(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Claimant;
    use flotilla_model::spec::Environment::{Production, Staging};

    /// `acme`, or `acme/web`, or `acme@staging`: who claims something, each at a place of its own.
    fn claim(resource: ClaimedResource, who: &str, line: usize) -> UniqueClaim {
        let (who, environment) = who.split_once('@').map_or((who, Production), |(who, _)| (who, Staging));
        let (customer, role) = who.split_once('/').map_or((who, None), |(who, role)| (who, Some(role.to_owned())));
        let place = Place { line, column: 1, ..Place::file(&format!("customers/{customer}.yaml")) };
        UniqueClaim { resource, place, claimant: Claimant { customer: customer.to_owned(), environment, role } }
    }

    fn domain(host: &str) -> ClaimedResource {
        ClaimedResource::Domain(host.to_owned())
    }

    fn host(host: &str) -> ClaimedResource {
        ClaimedResource::Host(host.to_owned())
    }

    /// Returns the diagnostics in short, and the customers that are skipped.
    fn described(mut all: Vec<UniqueClaim>) -> (Vec<String>, Vec<String>) {
        let conflicts = claims(&mut all);
        let short = |found: &Diagnostic| {
            let related: Vec<String> = found.related.iter().map(|(place, _)| format!(" + {place}")).collect();
            format!("{} {} {}{}", found.code, found.place, found.message, related.concat())
        };
        let mut held: Vec<String> = conflicts.iter().filter_map(|conflict| conflict.held.clone()).collect();
        held.dedup();
        (conflicts.iter().filter_map(|conflict| conflict.diagnostic.as_ref()).map(short).collect(), held)
    }

    #[test]
    fn one_host_belongs_to_one_customer() {
        let (found, held) =
            described(vec![claim(host("a.example"), "acme/web", 1), claim(host("a.example"), "acme/api", 2)]);
        assert!(found.is_empty() && held.is_empty(), "a customer's own workers may share one: {found:?}");
        let (found, held) =
            described(vec![claim(domain("a.example"), "acme/web", 1), claim(host("a.example"), "acme/api", 2)]);
        assert!(found.is_empty() && held.is_empty(), "{found:?}");
        let (found, held) = described(vec![
            claim(domain("a.example"), "acme", 1),
            claim(host("a.example"), "cafe", 3),
            claim(host("a.example"), "bluebird", 2),
            claim(host("a.example"), "acme@staging", 4),
        ]);
        assert_eq!(held, ["acme", "bluebird", "cafe"]);
        assert_eq!(
            found,
            [
                "N0314 customers/acme.yaml:1:1 a route of bluebird (production) has the host of the custom domain \
                 `a.example` + customers/bluebird.yaml:2:1 + customers/cafe.yaml:3:1",
                "N0314 customers/bluebird.yaml:2:1 the route's host `a.example` is a custom domain of acme (production) \
                 + customers/acme.yaml:1:1",
                "N0314 customers/cafe.yaml:3:1 the route's host `a.example` is a custom domain of acme (production) \
                 + customers/acme.yaml:1:1",
            ]
        );
    }

    #[test]
    fn a_dispatched_host_is_one_workers_and_reached_by_the_dispatch_worker() {
        let entry = |host: &str| ClaimedResource::Entry(host.to_owned());
        let (found, held) = described(vec![
            claim(entry("a.example"), "acme/web", 1),
            claim(host("a.example"), "_shared/front", 2),
            claim(domain("b.example"), "_shared/front", 3),
            claim(entry("b.example"), "bluebird", 1),
            claim(host("*.example"), "_shared/front", 4),
        ]);
        assert!(found.is_empty() && held.is_empty(), "{found:?}");
        let (found, held) = described(vec![
            claim(entry("a.example"), "acme/web", 1),
            claim(entry("a.example"), "acme/api", 2),
            claim(entry("b.example"), "bluebird", 1),
            claim(host("b.example"), "cafe", 1),
            claim(domain("d.example"), "dove", 1),
            claim(entry("d.example"), "eagle", 1),
        ]);
        assert_eq!(held, ["acme", "bluebird", "cafe", "dove", "eagle"]);
        assert_eq!(
            found,
            [
                "N0302 customers/acme.yaml:1:1 the host `a.example` is also claimed by the api worker + customers/acme.yaml:2:1",
                "N0302 customers/acme.yaml:2:1 the host `a.example` is also claimed by the web worker + customers/acme.yaml:1:1",
                "N0314 customers/bluebird.yaml:1:1 a route of cafe (production) has the host of the dispatched host `b.example` \
                 + customers/cafe.yaml:1:1",
                "N0314 customers/cafe.yaml:1:1 the route's host `b.example` is a dispatched host of bluebird (production) \
                 + customers/bluebird.yaml:1:1",
                "N0314 customers/dove.yaml:1:1 a dispatched host of eagle (production) is the custom domain `d.example` \
                 + customers/eagle.yaml:1:1",
                "N0314 customers/eagle.yaml:1:1 the dispatched host `d.example` is a custom domain of dove (production) \
                 + customers/dove.yaml:1:1",
            ]
        );
    }

    #[test]
    fn a_databases_name_tells_of_those_that_give_no_id() {
        let name = || ClaimedResource::DatabaseName { account: "default".to_owned(), name: "shop".to_owned() };
        let id = || ClaimedResource::Database("0-1".to_owned());
        let (found, held) = described(vec![
            claim(name(), "acme", 1),
            claim(id(), "bluebird", 1),
            claim(name(), "bluebird", 1),
            claim(id(), "cafe", 1),
            claim(name(), "cafe", 1),
        ]);
        assert_eq!(held, ["bluebird", "cafe", "acme", "bluebird", "cafe"]);
        let also = |message: &str| format!("{message} + customers/bluebird.yaml:1:1");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("N0312 customers/bluebird.yaml:1:1 the database `0-1` is also claimed by cafe"));
        assert!(found[1].starts_with(&also(
            "N0312 customers/cafe.yaml:1:1 the database `0-1` is also claimed by bluebird (production)"
        )));
        assert!(found[2].starts_with("N0312 customers/acme.yaml:1:1 the database `shop` is also claimed by bluebird"));
    }

    #[test]
    fn routes_on_one_host_are_a_warning_told_once() {
        let all: Vec<UniqueClaim> =
            (0..9).map(|index| claim(host("a.example"), &format!("c{index}"), index + 1)).collect();
        let mut sorted = all.clone();
        assert!(
            claims(&mut sorted).iter().all(|conflict| conflict.diagnostic.as_ref().unwrap().severity
                == flotilla_model::diagnostic::Severity::Warning)
        );
        let (found, held) = described(all);
        assert!(held.is_empty());
        assert_eq!(
            found,
            ["N0315 customers/c0.yaml:1:1 routes of 9 customers share the host `a.example` \
              + customers/c1.yaml:2:1 + customers/c2.yaml:3:1 + customers/c3.yaml:4:1"]
        );
    }

    #[test]
    fn a_wildcard_takes_in_no_host_of_another() {
        let (found, held) = described(vec![
            claim(host("*.shop.example"), "acme", 1),
            claim(domain("own.shop.example"), "acme@staging", 2),
            claim(domain("b.shop.example"), "bluebird", 1),
            claim(host("c.shop.example"), "cafe", 1),
            claim(domain("shop.example"), "dove", 1),
            claim(domain("myshop.example"), "eagle", 1),
        ]);
        assert_eq!(held, ["acme", "bluebird"]);
        assert_eq!(
            found,
            [
                "N0314 customers/acme.yaml:1:1 the route's hosts `*.shop.example` include the custom domain \
                 `b.shop.example` of bluebird (production) + customers/bluebird.yaml:1:1",
                "N0314 customers/bluebird.yaml:1:1 the custom domain `b.shop.example` is among the hosts \
                 `*.shop.example` of a route of acme (production) + customers/acme.yaml:1:1",
            ]
        );
        let routes = |who| vec![claim(host("*shop.example"), who, 1), claim(host("shop.example"), "cafe", 1)];
        let (found, held) = described(routes("acme"));
        assert!(held.is_empty());
        assert_eq!(
            found,
            [
                "N0315 customers/acme.yaml:1:1 the route's hosts `*shop.example` include `shop.example` of cafe (production) \
              + customers/cafe.yaml:1:1"
            ]
        );
        assert!(described(routes("_shared/all")).0.is_empty(), "what all share may be there for the rest");
    }

    #[test]
    fn what_is_told_of_a_route_is_not_told_of_its_host_again() {
        let route = |who, line| {
            [ClaimedResource::Route("a.example/*".to_owned()), host("a.example")]
                .map(|resource| claim(resource, who, line))
        };
        let (found, held) = described([route("acme", 1), route("bluebird", 2)].concat());
        assert_eq!(held, ["acme", "bluebird"]);
        assert!(found.len() == 2 && found.iter().all(|line| line.starts_with("N0306")), "{found:?}");
    }

    #[test]
    fn a_database_is_one_customers_and_all_of_its_workers() {
        let database = || ClaimedResource::Database("db.example".to_owned());
        let (found, _) = described(vec![claim(database(), "acme/web", 1), claim(database(), "acme/web@staging", 1)]);
        assert_eq!(found, [""; 0]);
        let (found, held) = described(vec![
            claim(database(), "acme/web", 1),
            claim(database(), "acme/web@staging", 1),
            claim(database(), "bluebird", 2),
        ]);
        assert_eq!(held, ["acme", "bluebird"]);
        assert_eq!(
            found,
            [
                "N0312 customers/acme.yaml:1:1 the database `db.example` is also claimed by bluebird (production) + customers/bluebird.yaml:2:1",
                "N0312 customers/acme.yaml:1:1 the database `db.example` is also claimed by bluebird (production) + customers/bluebird.yaml:2:1",
                "N0312 customers/bluebird.yaml:2:1 the database `db.example` is also claimed by acme (web, staging) + customers/acme.yaml:1:1",
            ]
        );
    }

    #[test]
    fn secrets_belong_to_whom_they_are_named_after() {
        let secrets = |owner: &str| ClaimedResource::Secrets(owner.to_owned());
        let (found, held) = described(vec![
            claim(secrets("ACME__"), "acme", 1),
            claim(secrets("ACME__"), "bluebird", 2),
            claim(secrets("NOBODY__"), "bluebird", 3),
            claim(secrets("NOBODY__"), "cafe", 3),
        ]);
        assert_eq!(held, ["bluebird"], "whose they are, is not at fault");
        assert_eq!(
            found,
            [
                "N0313 customers/bluebird.yaml:2:1 secrets whose names begin with `ACME__` belong to acme + customers/acme.yaml:1:1"
            ]
        );
    }

    #[test]
    fn one_place_for_several_workers_is_told_once() {
        let at = |who: &str| claim(domain("a.example"), who, 1);
        let help = |all: Vec<UniqueClaim>| {
            let mut all = all;
            let mut conflicts = claims(&mut all).into_iter().filter_map(|conflict| conflict.diagnostic);
            let found = conflicts.next().unwrap();
            assert!(conflicts.next().is_none());
            format!("{}; {}", found.message, found.help)
        };
        assert_eq!(
            help(vec![at("acme"), at("acme@staging")]),
            "the domain `a.example` is claimed by each environment: staging, production; \
             give each its own: `environments: { staging: { domains: […] } }`"
        );
        // The first and the last of them have one role; the one between has not.
        assert_eq!(
            help(vec![at("acme/api"), at("acme/api@staging"), at("acme/web@staging")]),
            "the domain `a.example` is claimed by 3 workers: acme (api, staging), acme (web, staging), acme (api, production); \
             give each worker its own: `workers: { api: { domains: […] } }`"
        );
        let name = |role: &str| {
            let resource = ClaimedResource::WorkerName { account: "default".to_owned(), name: "x".to_owned() };
            claim(resource, &format!("acme/{role}"), 1)
        };
        assert!(help(vec![name("api"), name("web")]).ends_with("`workers: { api: { workerName: … } }`"));
    }
}
