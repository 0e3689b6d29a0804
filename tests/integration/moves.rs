//! Hosts that move from one worker to another, by every way in which a move comes about: it is carried out so that the host always points to
//! the old or the new worker, or it is refused before anything is sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_deploy::deploy::Control;
use flotilla_engine::deploy_fleet::DeployRequest;
use flotilla_engine::selection::Selection;
use flotilla_model::failure::Exit;
use flotilla_model::spec::Environment;
use serde_json::{Value, json};

use crate::engine::customers;
use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::Project;

/// Returns the key of a spec for a host name.
type Kind = fn(&str) -> String;

/// The kinds of hosts.
const KINDS: [Kind; 2] = [
    |host| format!("domains: [{host}]\n"),
    |host| format!("routes: [{{ pattern: \"{host}/*\", zone: acme.example }}]\n"),
];

/// The host that moves, and the one that the receiver had before.
const MOVES: &str = "shop.acme.example";
const OWN: &str = "own.acme.example";

/// A way in which a host comes to another worker.
struct Way {
    name: &'static str,
    /// The specs before and after, by customer; a host's key is where `{moves}` and `{own}` stand.
    before: &'static [(&'static str, &'static str)],
    after: &'static [(&'static str, &'static str)],
    /// More of fleet.yaml afterwards.
    fleet: &'static str,
    select: fn(&mut DeployRequest<'_>),
    /// The worker that has the host in the end; `None` where it is refused.
    to: Option<&'static str>,
}

const APART: &[(&str, &str)] = &[("acme", "{moves}"), ("bob", "labels: { tier: gold }\n{own}")];
const GIVEN: &[(&str, &str)] = &[("acme", ""), ("bob", "labels: { tier: gold }\n{moves}")];

fn nothing(_: &mut DeployRequest<'_>) {}

fn bob(request: &mut DeployRequest<'_>) {
    request.plan.selection = customers(&["bob"]);
}

const WAYS: &[Way] = &[
    Way { name: "both are deployed", before: APART, after: GIVEN, fleet: "", select: nothing, to: Some("t-bob") },
    Way { name: "the receiver is named", before: APART, after: GIVEN, fleet: "", select: bob, to: None },
    Way {
        name: "the receiver is selected by its label",
        before: APART,
        after: GIVEN,
        fleet: "",
        select: |request| {
            let gold = "tier=gold".parse().expect("a selector");
            request.plan.selection = Selection::new(Vec::new(), vec![gold], Vec::new(), None);
        },
        to: None,
    },
    Way {
        name: "the giver has an error",
        before: APART,
        after: &[("acme", "logLevel: loud\n"), ("bob", "{moves}")],
        fleet: "",
        select: nothing,
        to: None,
    },
    Way {
        name: "the giver's delivery is manual",
        before: APART,
        after: &[("acme", "delivery: manual\n"), ("bob", "{moves}")],
        fleet: "",
        select: nothing,
        to: None,
    },
    Way {
        name: "a customer is renamed",
        before: &[("acme", "{moves}")],
        after: &[("bob", "{moves}")],
        fleet: "",
        select: nothing,
        to: Some("t-bob"),
    },
    Way {
        name: "a customer is renamed and named",
        before: &[("acme", "{moves}")],
        after: &[("bob", "{moves}")],
        fleet: "",
        select: bob,
        to: Some("t-bob"),
    },
    Way {
        name: "a customer is renamed, and what is gone is deleted",
        before: &[("acme", "{moves}")],
        after: &[("bob", "{moves}")],
        fleet: "",
        select: |request| {
            request.plan.prune = true;
            request.max_deletions = Some(9);
        },
        to: Some("t-bob"),
    },
    Way {
        name: "all workers are renamed",
        before: &[("bob", "{moves}")],
        after: &[("bob", "{moves}")],
        fleet: "workerName: \"new-{customer}\"\n",
        select: nothing,
        to: Some("new-bob"),
    },
    Way {
        name: "all workers are renamed, and one is named",
        before: &[("bob", "{moves}")],
        after: &[("bob", "{moves}")],
        fleet: "workerName: \"new-{customer}\"\n",
        select: bob,
        to: Some("new-bob"),
    },
    Way {
        name: "from staging to production",
        before: &[("bob", "{own}environments: { production: , staging: { {moves} } }\n")],
        after: &[("bob", "{moves}environments: { production: , staging: { domains: [], routes: [] } }\n")],
        fleet: "",
        select: nothing,
        to: Some("t-bob"),
    },
    Way {
        name: "from staging to production, which alone is deployed",
        before: &[("bob", "{own}environments: { production: , staging: { {moves} } }\n")],
        after: &[("bob", "{moves}environments: { production: , staging: { domains: [], routes: [] } }\n")],
        fleet: "",
        select: |request| {
            request.plan.selection = Selection::new(Vec::new(), Vec::new(), vec![Environment::Production], None);
        },
        to: None,
    },
    Way {
        name: "from an environment that is gone",
        before: &[("bob", "{own}environments: { production: , staging: { {moves} } }\n")],
        after: &[("bob", "{moves}")],
        fleet: "",
        select: |request| {
            request.plan.selection = Selection::new(Vec::new(), Vec::new(), vec![Environment::Production], None);
        },
        to: Some("t-bob"),
    },
];

fn write(project: &Project, specs: &[(&str, &str)], kind: Kind) {
    for id in ["acme", "bob"] {
        let _ = std::fs::remove_file(project.path(&format!("customers/{id}.yaml")));
    }
    for (id, spec) in specs {
        // Within braces, a key stands without its line break.
        let inside = spec.replace("{ {moves} }", &format!("{{ {} }}", kind(MOVES).trim_end()));
        let spec = inside.replace("{moves}", &kind(MOVES)).replace("{own}", &kind(OWN));
        project.write(&format!("customers/{id}.yaml"), format!("id: {id}\n{spec}"));
    }
}

/// The hosts of the account's zone, with their workers: domains and routes.
fn hosts(cloud: &Cloud) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let domains = cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/workers/domains"), &Value::Null);
    let of_domains = domains["result"].as_array().expect("a list").iter();
    let mut hosts: Vec<_> =
        of_domains.map(|domain| (text(&domain["hostname"]), text(&domain["service"]), text(&domain["id"]))).collect();
    let zones = cloud.http("GET", "/client/v4/zones?name=acme.example", &Value::Null);
    if let Some(zone) = zones["result"][0]["id"].as_str() {
        let routes = cloud.http("GET", &format!("/client/v4/zones/{zone}/workers/routes"), &Value::Null);
        hosts.extend(
            routes["result"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|route| (text(&route["pattern"]).replace("/*", ""), text(&route["script"]), text(&route["id"]))),
        );
    }
    hosts
}

fn holder(cloud: &Cloud, host: &str) -> Option<String> {
    hosts(cloud).into_iter().find(|(name, ..)| name == host).map(|(_, worker, _)| worker)
}

#[test]
fn a_host_that_moves_is_moved_or_the_move_is_refused_before_anything_is_sent() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        for way in WAYS {
            let name = format!("{}, kind {number}", way.name);
            let (cloud, project) = (Cloud::start(), fleet(&[]));
            write(&project, way.before, kind);
            cloud.engine(&project).deploy().exits(Exit::Done);
            let (before, had_own) = (hosts(&cloud), holder(&cloud, OWN));
            let fleet_file = std::fs::read_to_string(project.path("fleet.yaml")).expect("fleet.yaml");
            project.write("fleet.yaml", format!("{fleet_file}{}", way.fleet));
            write(&project, way.after, kind);
            cloud.take();
            let ended = cloud.engine(&project).deploy_with(way.select);
            let requests = cloud.take();
            let is_change = |what: &str| !what.starts_with("GET");
            match way.to {
                Some(worker) => {
                    ended.exits(Exit::Done);
                    assert_eq!(holder(&cloud, MOVES).as_deref(), Some(worker), "{name}");
                    let (_, _, id) = before.iter().find(|(host, ..)| host == MOVES).expect("it was there");
                    // Between two requests it is never nobody's: nothing detaches it.
                    let removed: Vec<&str> = requests
                        .iter()
                        .filter(|request| request.what.starts_with("DELETE"))
                        .filter(|request| request.entry["path"].as_str().is_some_and(|path| path.ends_with(id)))
                        .map(|request| request.what.as_str())
                        .collect();
                    assert!(removed.is_empty(), "{name}: {removed:?}");
                    // The receiver's old host goes after the new one came.
                    let at = |start: &str| requests.iter().rposition(|request| request.what.starts_with(start));
                    if had_own.is_some() && holder(&cloud, OWN).is_none() {
                        assert!(at("PUT domains").max(at("PUT zones")) < at("DELETE "), "{name}");
                    }
                    cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
                }
                None => {
                    let expected = if way.name == "the giver has an error" { Exit::Diagnostics } else { Exit::Refused };
                    ended.exits(expected);
                    let sent: BTreeSet<&str> =
                        requests.iter().map(|request| request.what.as_str()).filter(|what| is_change(what)).collect();
                    assert!(sent.is_empty(), "{name}: {sent:?}");
                    assert_eq!(hosts(&cloud), before, "{name}");
                }
            }
        }
    }
}

/// Two customers that swap their hosts.
fn circle(project: &Project, kind: Kind, hosts: [&str; 2], more: &str) {
    for (id, host) in ["acme", "bob"].into_iter().zip(hosts) {
        project.write(&format!("customers/{id}.yaml"), format!("id: {id}\nworkersDev: false\n{}{more}", kind(host)));
    }
}

#[test]
fn hosts_that_are_swapped_are_both_moved_or_both_put_back() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        for skip in 0..2 {
            let name = format!("kind {number}, request {skip}");
            let (cloud, project) = (Cloud::start(), fleet(&[]));
            circle(&project, kind, [MOVES, OWN], "");
            cloud.engine(&project).deploy().exits(Exit::Done);
            let before = hosts(&cloud);
            circle(&project, kind, [OWN, MOVES], "vars: { A: b }\n");
            for path in ["workers/domains", "workers/routes"] {
                cloud.faults(&json!([{"match": {"method": "PUT", "path": path}, "skip": skip,
                    "do": {"error": {"status": 400, "code": 10021, "message": "no"}}}]));
            }
            cloud.take();
            let ended = cloud.engine(&project).deploy().exits(Exit::SomeFailed);
            let outcome = ended.outcome();
            assert_eq!((outcome.applied, outcome.failed), (0, 2), "{name}");
            assert_eq!(hosts(&cloud), before, "{name}");
            // Uploads come first, so that no host waits for them.
            let requests = cloud.take();
            let at = |what: &str| requests.iter().rposition(|request| request.what.starts_with(what));
            assert!(at("PUT scripts") < requests.iter().position(|request| request.status == 400), "{name}");
            cloud.clear_faults();
            cloud.engine(&project).deploy().exits(Exit::Done);
            let holders = [MOVES, OWN].map(|host| holder(&cloud, host));
            assert_eq!(holders, [Some("t-bob".to_owned()), Some("t-acme".to_owned())], "{name}");
            cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
        }
    }
}

#[test]
fn a_stop_between_two_moves_that_belong_together_waits_for_the_second() {
    let (cloud, project) = (Arc::new(Cloud::start()), fleet(&[]));
    circle(&project, KINDS[0], [MOVES, OWN], "");
    cloud.engine(&project).deploy().exits(Exit::Done);
    circle(&project, KINDS[0], [OWN, MOVES], "");
    cloud.faults(&json!([{"match": {"method": "PUT", "path": "workers/domains"}, "skip": 1, "do": {"status": 503}}]));
    let seen = Arc::clone(&cloud);
    let is_moved = move || {
        let holders: BTreeSet<String> = [MOVES, OWN].iter().filter_map(|host| holder(&seen, host)).collect();
        if holders.len() == 1 { Control::Stop } else { Control::Continue }
    };
    cloud.engine(&project).steered(is_moved).deploy().exits(Exit::Done);
    let holders = [MOVES, OWN].map(|host| holder(&cloud, host));
    assert_eq!(holders, [Some("t-bob".to_owned()), Some("t-acme".to_owned())]);
}

/// Swaps in which at least one host changes its kind: the kinds before and after, of both customers.
const KIND_SWAPS: [[usize; 4]; 6] =
    [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1]];

#[test]
fn hosts_that_are_swapped_and_change_their_kind_are_refused_before_anything_is_sent() {
    for kinds in KIND_SWAPS {
        let kinds = kinds.map(|number| KINDS[number]);
        let (cloud, project) = (Cloud::start(), fleet(&[]));
        let write = |hosts: [(&str, Kind); 2]| {
            for (id, (host, kind)) in ["acme", "bob"].into_iter().zip(hosts) {
                project.write(&format!("customers/{id}.yaml"), format!("id: {id}\nworkersDev: false\n{}", kind(host)));
            }
        };
        write([(MOVES, kinds[0]), (OWN, kinds[1])]);
        cloud.engine(&project).deploy().exits(Exit::Done);
        let before = hosts(&cloud);
        let swapped = [(OWN, kinds[2]), (MOVES, kinds[3])];
        write(swapped);
        cloud.take();
        cloud.engine(&project).deploy().exits(Exit::Refused);
        assert!(cloud.sent().is_empty());
        assert_eq!(hosts(&cloud), before);
        let planned = cloud.engine(&project).plan_with(|_| ());
        let reasons: BTreeSet<&str> = planned.plan.held.iter().map(|held| held.reason.as_str()).collect();
        assert_eq!((planned.plan.held.len(), reasons.len()), (2, 1), "{reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains("first change its kind on")), "{reasons:?}");
        // What the message advises: the kinds change where the hosts are, and then the hosts are swapped.
        write([(MOVES, kinds[3]), (OWN, kinds[2])]);
        cloud.engine(&project).deploy().exits(Exit::Done);
        write(swapped);
        cloud.engine(&project).deploy().exits(Exit::Done);
        let holders = [MOVES, OWN].map(|host| holder(&cloud, host));
        assert_eq!(holders, [Some("t-bob".to_owned()), Some("t-acme".to_owned())]);
        cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
    }
}

#[test]
fn a_route_takes_no_domain_of_a_worker_whose_own_new_host_fails() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", DOMAIN), ("bob", "")]));
    cloud.engine(&project).deploy().exits(Exit::Done);
    let before = hosts(&cloud);
    project.write("customers/acme.yaml", format!("id: acme\n{}", KINDS[0](OWN)));
    let wide = EXACT.replace("shop.", "*shop.");
    for route in [EXACT, wide.as_str()] {
        project.write("customers/bob.yaml", format!("id: bob\n{route}"));
        cloud.faults(&json!([{"match": {"method": "PUT", "path": "workers/domains"},
            "do": {"error": {"status": 409, "code": 100117, "message": "it has records"}}}]));
        cloud.engine(&project).deploy().exits(Exit::SomeFailed);
        assert_eq!(hosts(&cloud), before, "{route}");
    }
    cloud.clear_faults();
    cloud.engine(&project).deploy().exits(Exit::Done);
    assert_eq!(holder(&cloud, OWN).as_deref(), Some("t-acme"));
    assert_eq!(holder(&cloud, "*shop.acme.example").as_deref(), Some("t-bob"));
    cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
}

/// A host that one customer gives up, and an overlapping one that another customer gets.
const OVERLAPS: &[(&str, &str)] = &[
    (DOMAIN, EXACT),
    (DOMAIN, WILDCARD),
    (DOMAIN, "routes: [{ pattern: \"shop.acme.example/api/*\", zone: acme.example }]\n"),
    (EXACT, DOMAIN),
    (WILDCARD, DOMAIN),
    ("routes: [{ pattern: \"*acme.example/*\", zone: acme.example }]\n", DOMAIN),
];
const DOMAIN: &str = "domains: [shop.acme.example]\n";
const EXACT: &str = "routes: [{ pattern: \"shop.acme.example/*\", zone: acme.example }]\n";
const WILDCARD: &str = "routes: [{ pattern: \"*.acme.example/*\", zone: acme.example }]\n";

#[test]
fn a_host_that_overlaps_one_which_is_still_deployed_is_refused_where_its_worker_is_left_out() {
    for (given, taken) in OVERLAPS {
        let name = format!("{given}{taken}");
        let (cloud, project) = (Cloud::start(), fleet(&[("acme", given), ("bob", "")]));
        cloud.engine(&project).deploy().exits(Exit::Done);
        let before = hosts(&cloud);
        project.write("customers/acme.yaml", "id: acme\n").write("customers/bob.yaml", format!("id: bob\n{taken}"));
        cloud.take();
        cloud.engine(&project).deploy_with(bob).exits(Exit::Refused);
        assert!(cloud.sent().is_empty(), "{name}");
        assert_eq!(hosts(&cloud), before, "{name}");
        let planned = cloud.engine(&project).plan_with(|request| request.selection = customers(&["bob"]));
        let reason = &planned.plan.held[0].reason;
        assert!(reason.contains(" overlaps ") && reason.contains("deploy acme in the same run"), "{reason}");
        // In one run, both change.
        cloud.engine(&project).deploy().exits(Exit::Done);
        assert_eq!(hosts(&cloud).len(), 1, "{name}");
        cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
    }
}

#[test]
fn hosts_that_overlap_on_purpose_are_deployed_one_by_one() {
    // Named in fleet.yaml, or another customer's that the specs have still.
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", DOMAIN), ("bob", "")]));
    let file = std::fs::read_to_string(project.path("fleet.yaml")).expect("fleet.yaml");
    project.write("fleet.yaml", format!("{file}sharedHosts: [\"*.acme.example\"]\n"));
    cloud.engine(&project).deploy().exits(Exit::Done);
    project.write("customers/bob.yaml", format!("id: bob\n{WILDCARD}"));
    cloud.engine(&project).deploy_with(bob).exits(Exit::Done);
    assert_eq!(hosts(&cloud).len(), 2);
}
