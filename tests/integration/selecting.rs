//! Shows: customers selected by id, glob, label and environment, by the commands themselves; what no customer has is
//! refused.

use serde_json::Value;

use crate::cases::{cache, tiny};
use crate::support::{Project, Run};

/// Four customers, one of them with two environments.
fn fleet() -> Project {
    let project = tiny();
    project.write("customers/shop-eu.yaml", "id: shop-eu\nlabels: { tier: gold, region: eu }\n");
    project.write("customers/shop-us.yaml", "id: shop-us\nlabels: { tier: gold, region: us }\n");
    project.write("customers/cafe-eu.yaml", "id: cafe-eu\nlabels: { tier: silver, region: eu, legacy: '' }\n");
    project.write("customers/zoo.yaml", "id: zoo\nenvironments: { production: , staging: }\n");
    project
}

fn run(project: &Project, arguments: &[&str]) -> Run {
    project.run_with(arguments, &[cache()])
}

#[test]
fn each_way_of_selecting_gives_its_workers() {
    let project = fleet();
    for (arguments, expected) in [
        (&[][..], "cafe-eu shop-eu shop-us zoo zoo:staging"),
        (&["zoo", "shop-eu"], "shop-eu zoo zoo:staging"),
        (&["shop-*"], "shop-eu shop-us"),
        (&["*-eu", "zoo"], "cafe-eu shop-eu zoo zoo:staging"),
        (&["shop-??"], "shop-eu shop-us"),
        (&["-l", "tier=gold"], "shop-eu shop-us"),
        (&["-l", "tier=gold,region!=eu"], "shop-us"),
        (&["-l", "tier=gold", "-l", "region=eu"], "shop-eu"),
        (&["-l", "!tier"], "zoo zoo:staging"),
        (&["-l", "legacy"], "cafe-eu"),
        (&["-l", "tier in (silver, bronze)"], "cafe-eu"),
        (&["-l", "tier notin (gold)"], "cafe-eu zoo zoo:staging"),
        (&["--env", "staging"], "zoo:staging"),
        (&["--env", "staging,production", "zoo"], "zoo zoo:staging"),
        (&["--env", "staging", "--env", "production", "*o*", "-l", "!tier"], "zoo zoo:staging"),
    ] {
        let run = run(&project, &[&["show", "--format", "json"], arguments].concat()).exits(0);
        let shown = run.json();
        let mut found: Vec<String> = shown["workers"]
            .as_array()
            .expect("workers")
            .iter()
            .map(|worker| match (&worker["customer"], &worker["environment"]) {
                (Value::String(customer), Value::String(environment)) if environment == "production" => {
                    customer.clone()
                }
                (Value::String(customer), Value::String(environment)) => format!("{customer}:{environment}"),
                other => panic!("{other:?}"),
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), expected, "{arguments:?}");
    }
    for (arguments, told) in [
        (&["-l", "tier=platinum"][..], "no customer's labels match `tier=platinum`"),
        (&["shop-*", "-l", "region=us", "--env", "staging"], "no customer matches the whole selection"),
        (&["--env", "development"], "no customer has a worker in development"),
    ] {
        for command in ["show", "list", "check", "build", "plan", "status"] {
            let run = run(&project, &[&[command], arguments].concat()).exits(2);
            assert!(run.stderr.contains(told), "{command} {arguments:?}: {}", run.stderr);
        }
    }
}

#[test]
fn only_the_selected_are_built_and_planned() {
    let project = fleet();
    run(&project, &["build", "shop-*", "-l", "region=eu"]).exits(0);
    let built: Vec<String> = project.files("out").into_keys().filter(|path| path.ends_with("index.ts")).collect();
    assert_eq!(built, ["production/shop-eu/index.ts"]);
    let plan = run(&project, &["plan", "--format", "json", "--env", "staging"]).exits(0).json();
    let customers: Vec<&Value> = plan["changes"].as_array().expect("changes").iter().map(|c| &c["customer"]).collect();
    assert_eq!(customers, ["zoo"]);
    // A glob is no name: who is deployed by hand wants to be named.
    project.edit("customers/zoo.yaml", "id: zoo\n", "id: zoo\ndelivery: manual\n");
    let planned = |customer: &str| {
        let plan = run(&project, &["plan", "--format", "json", "--env", "production", customer]).exits(0).json();
        (plan["create"].as_u64(), plan["held"].as_array().map(Vec::len))
    };
    assert_eq!(planned("zo*"), (Some(0), Some(1)));
    assert_eq!(planned("zoo"), (Some(1), Some(0)));
}

#[test]
fn mistakes_of_others_are_not_told() {
    let project = fleet();
    project.write("customers/bad-eu.yaml", "id: bad-eu\nnam: x\n");
    let checked = run(&project, &["check", "--format", "json", "shop-*"]).exits(0).json();
    assert_eq!((&checked["customers"], &checked["errors"]), (&2.into(), &0.into()));
    let checked = run(&project, &["check", "--format", "json", "*-eu"]).exits(1).json();
    assert_eq!((&checked["customers"], &checked["errors"]), (&3.into(), &1.into()));
}

#[test]
fn what_no_customer_has_is_refused() {
    let project = fleet();
    for (arguments, message, help) in [
        (&["shop-eu", "zo"][..], "there is no customer `zo`", "did you mean `zoo`?"),
        (&["elephant"], "there is no customer `elephant`", "a customer's id is the name of its file in customers/"),
        (&["shap-e*"], "no customer's id matches `shap-e*`", "did you mean `shop-eu`?"),
        (&["x*"], "no customer's id matches `x*`", "`*` matches any characters"),
        (&["-l", "teir=gold"], "no customer has a label `teir`", "did you mean `tier`?"),
        (&["-l", "!colour"], "no customer has a label `colour`", "set `labels` in the customers' files"),
        (&["-l", "tier=gold silver"], "`silver` where a comma or the end is expected", ""),
        (&["-l", "tier in gold"], "write the values in parentheses", ""),
        (&["--env", "production,stagin"], "did you mean staging?", ""),
        (&["\u{1b}[31mx"], "there is no customer `\\u{1b}[31mx`", ""),
    ] {
        for command in ["check", "build", "plan", "status", "show"] {
            let told = run(&project, &[&[command], arguments].concat()).exits(2).stderr;
            assert!(told.contains(message) && told.contains(help), "{command} {arguments:?}: {told}");
        }
    }
    // The labels of a customer with errors are not known: then none can be called unknown.
    project.write("customers/bad.yaml", "id: bad\nnam: x\nlabels: { colour: red }\n");
    run(&project, &["show", "-l", "!colour", "zoo"]).exits(0);
}
