//! Hosts that move from one worker to another, by every way in which a move comes about: it is carried out so that the host always points to
//! the old or the new worker, or it is refused before anything is sent.

use std::collections::BTreeSet;

use flotilla_engine::deploy_fleet::DeployRequest;
use flotilla_engine::selection::Selection;
use flotilla_model::failure::Exit;
use flotilla_model::spec::Environment;
use serde_json::Value;

use crate::engine::customers;
use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::Project;

/// The kinds of hosts: each as the key of a spec, for a host name.
const KINDS: [fn(&str) -> String; 2] = [
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

fn write(project: &Project, specs: &[(&str, &str)], kind: fn(&str) -> String) {
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
