//! Custom domains whose requests a route of another worker of the same customer takes. Knows the claims of one customer.

use std::collections::BTreeSet;

use flotilla_model::diagnostic::{Code, Diagnostic, Place};

use super::claim::{ClaimedResource, UniqueClaim};

/// Finds custom domains whose requests a route of another worker of the same customer takes: routes come before custom domains. A route of
/// the domain's own worker for the whole host takes precedence over that.
pub(super) fn siblings(claims: &[UniqueClaim]) -> Vec<Diagnostic> {
    let host_of = |claim: &UniqueClaim| match &claim.resource {
        // Hosts that are shared on purpose are not claimed.
        ClaimedResource::Host(host) => Some((claim.place.clone(), host.clone())),
        _ => None,
    };
    let hosts: BTreeSet<(Place, String)> = claims.iter().filter_map(host_of).collect();
    if hosts.is_empty() {
        return Vec::new();
    }
    let routes: Vec<(&str, &str, &UniqueClaim)> = claims
        .iter()
        .filter_map(|claim| match &claim.resource {
            ClaimedResource::Route(pattern) => {
                let (host, path) = pattern.split_at(pattern.find('/').unwrap_or(pattern.len()));
                hosts.contains(&(claim.place.clone(), host.to_owned())).then_some((host, path, claim))
            }
            _ => None,
        })
        .collect();
    let mut found: BTreeSet<(&Place, &Place)> = BTreeSet::new();
    let mut diagnostics = Vec::new();
    for claim in claims {
        let ClaimedResource::Domain(domain) = &claim.resource else { continue };
        let takes = |host: &str| match host.strip_prefix('*') {
            Some(suffix) => domain.ends_with(suffix),
            None => host == domain,
        };
        let own = |route: &(&str, &str, &UniqueClaim)| {
            route.2.claimant == claim.claimant && route.0 == domain && matches!(route.1, "" | "/*")
        };
        let others = routes.iter().filter(|(host, _, route)| route.claimant != claim.claimant && takes(host));
        for (host, path, route) in others {
            let is_whole = matches!(*path, "" | "/*");
            // A path of this very host is written for it; a host with a wildcard may be meant for others.
            if (!is_whole && !host.starts_with('*'))
                || routes.iter().any(own)
                || !found.insert((&claim.place, &route.place))
            {
                continue;
            }
            let (by, of) = (route.claimant.own(), claim.claimant.own());
            let pattern = format!("{host}{path}");
            let meant =
                format!("if this is intended, list the route's host in fleet.yaml: `sharedHosts: [\"{host}\"]`");
            let (code, message) = match is_whole {
                true => (
                    Code::SharedHost,
                    format!(
                        "the custom domain `{domain}` of the {of} worker gets no requests: the route `{pattern}` of the {by} \
                         worker takes all of them"
                    ),
                ),
                false => (
                    Code::CloseHosts,
                    format!(
                        "the route `{pattern}` of the {by} worker takes requests for the custom domain `{domain}` of the {of} \
                         worker"
                    ),
                ),
            };
            let help = format!(
                "routes take precedence over custom domains: write the route's hosts without a wildcard, or write `{domain}` as a route, too; {meant}"
            );
            let diagnostic = match is_whole {
                true => Diagnostic::error(code, claim.place.clone(), message, help),
                false => Diagnostic::warning(code, claim.place.clone(), message, help),
            };
            diagnostics.push(diagnostic.also(route.place.clone(), "the route"));
        }
    }
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::super::claim::Claimant;
    use super::*;
    use flotilla_model::spec::Environment::{Production, Staging};

    /// `acme`, or `acme/web`, or `acme@staging`: the worker that claims something, each at a place of its own.
    fn claim(resource: ClaimedResource, who: &str, line: usize) -> UniqueClaim {
        let (who, environment) = who.split_once('@').map_or((who, Production), |(who, _)| (who, Staging));
        let (customer, role) = who.split_once('/').map_or((who, None), |(who, role)| (who, Some(role.to_owned())));
        let place = Place { line, column: 1, ..Place::file("customers/acme.yaml") };
        UniqueClaim { resource, place, claimant: Claimant { customer: customer.to_owned(), environment, role } }
    }

    #[test]
    fn a_route_takes_no_domain_of_another_worker_of_the_customer() {
        let route = |pattern: &str, who: &str, line: usize| {
            let host = pattern.split('/').next().unwrap_or_default().to_owned();
            [ClaimedResource::Route(pattern.to_owned()), ClaimedResource::Host(host)].map(|what| claim(what, who, line))
        };
        let found = |routes: &[(&str, &str)], who: &str| -> Vec<String> {
            let mut all = vec![claim(ClaimedResource::Domain("api.w.example".to_owned()), who, 1)];
            for (index, (pattern, who)) in routes.iter().enumerate() {
                all.extend(route(pattern, who, index + 2));
            }
            let short = |found: &Diagnostic| format!("{} {}", found.code, found.related[0].0.line);
            siblings(&all).iter().map(short).collect()
        };
        assert_eq!(found(&[("*.w.example/*", "acme/web")], "acme/api"), ["N0314 2"]);
        assert_eq!(found(&[("api.w.example/*", "acme/web")], "acme/api"), ["N0314 2"], "exact hosts, too");
        assert_eq!(found(&[("*w.example/*", "acme@staging")], "acme"), ["N0314 2"], "staging over production");
        assert_eq!(found(&[("*.w.example/*", "_shared/web")], "_shared/api"), ["N0314 2"]);
        assert_eq!(found(&[("*.w.example/v1/*", "acme/web")], "acme/api"), ["N0315 2"]);
        let none: [String; 0] = [];
        assert_eq!(found(&[("api.w.example/v1/*", "acme/web")], "acme/api"), none, "a path of that host is meant");
        assert_eq!(found(&[("*.w.example/*", "acme/api")], "acme/api"), none, "its own");
        assert_eq!(found(&[("*.w.example/*", "acme/web"), ("api.w.example/*", "acme/api")], "acme/api"), none);
        assert_eq!(found(&[("*.x.example/*", "acme/web")], "acme/api"), none);
    }
}
