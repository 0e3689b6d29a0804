//! Shows: a generated fleet is the same each time, valid, and of some variety; of one with mistakes, each bad spec is
//! found, and no other.

#[path = "../../examples/generate-fleet/assets.rs"]
mod assets;
#[path = "../../examples/generate-fleet/fleet.rs"]
mod fleet;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Project;

const CUSTOMERS: usize = 400;

#[test]
fn generated_customers_are_valid_and_differ() {
    let project = Project::empty();
    fleet::write(project.root(), CUSTOMERS, 0.0).expect("a fleet");
    let report = project.run(&["check", "--format", "json"]).exits(0).json();
    assert_eq!((&report["customers"], &report["diagnostics"]), (&CUSTOMERS.into(), &Value::Array(vec![])));

    let customers: Vec<Value> = (0..CUSTOMERS).map(fleet::customer).collect();
    let share = |what: &dyn Fn(&Value) -> bool| customers.iter().filter(|customer| what(customer)).count();
    let database = |kind: &str| share(&|customer| customer["database"]["type"] == kind);
    for (what, count) in [
        ("staging", share(&|customer| customer["environments"]["staging"].is_object())),
        ("domains", share(&|customer| customer["domains"].is_array())),
        ("crons", share(&|customer| customer["crons"].is_array())),
        ("vars", share(&|customer| customer["vars"].is_object())),
        ("turso", database("turso")),
        ("d1", database("d1")),
        ("none", database("none")),
    ] {
        assert!(0 < count && count < CUSTOMERS, "{what}: {count}");
    }
    for count in 1..=6 {
        assert!(share(&|customer| customer["destinations"].as_array().map(Vec::len) == Some(count)) > 0, "{count}");
    }
    let refers = customers.iter().map(Value::to_string).collect::<String>();
    for secret in fleet::SECRETS {
        assert!(refers.contains(secret), "no spec refers to {secret}");
    }
}

#[test]
fn a_generated_site_is_planned_whole() {
    let project = Project::at(crate::folders::temporary_folder());
    assets::write(project.root(), 3, 40).expect("a fleet");
    let plan = project.run(&["plan", "--local", "--format", "json"]).exits(0).json();
    assert_eq!((&plan["create"], &plan["asset_uploads_at_most"]), (&3.into(), &120.into()), "{plan}");
}

#[test]
fn each_bad_spec_is_found_and_no_other() {
    let project = Project::empty();
    fleet::write(project.root(), CUSTOMERS, 10.0).expect("a fleet");
    let report = project.run(&["check", "--format", "json"]).exits(1).json();
    let diagnostics = report["diagnostics"].as_array().expect("a list");
    let found: BTreeSet<&str> = diagnostics.iter().filter_map(|diagnostic| diagnostic["file"].as_str()).collect();
    let bad: Vec<String> = (0..CUSTOMERS)
        .filter(|number| fleet::is_bad(*number, 10.0))
        .map(|number| format!("customers/{}.yaml", fleet::id(number)))
        .collect();
    assert!((CUSTOMERS / 20..CUSTOMERS / 5).contains(&bad.len()), "{} of {CUSTOMERS}", bad.len());
    assert_eq!(found.into_iter().collect::<Vec<_>>(), bad);
    let codes: BTreeSet<&str> = diagnostics.iter().filter_map(|diagnostic| diagnostic["code"].as_str()).collect();
    assert!(codes.len() > 5, "all of one kind: {codes:?}");
}
