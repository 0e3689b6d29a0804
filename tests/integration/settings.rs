//! Shows what settings of a worker do at the platform: variables of the dashboard that stay, the cache in front of it, names with
//! underscores.

use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, fleet};

fn settings(cloud: &Cloud, worker: &str) -> Value {
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/{worker}/settings");
    cloud.http("GET", &path, &Value::Null)["result"].clone()
}

/// The names of a worker's variables, without flotilla's own.
fn variables(cloud: &Cloud, worker: &str) -> Vec<String> {
    let settings = settings(cloud, worker);
    let bindings = settings["bindings"].as_array().expect("a list");
    let of_type = |binding: &&Value| matches!(binding["type"].as_str(), Some("plain_text" | "json"));
    let names = bindings.iter().filter(of_type).filter_map(|binding| binding["name"].as_str());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("FLOTILLA_")).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn variables_of_others_stay_where_the_spec_says_so() {
    let keeping = |vars: &str| format!("keepVars: true\nvars: {{ {vars} }}\n");
    let (cloud, project) = (
        Cloud::start(),
        fleet(&[("a", &keeping("A: one, B: { c: 1 }, C: x")), ("b", "vars: { A: one, B: { c: 1 }, C: x }\n")]),
    );
    cloud.deployed(&project);
    // For the platform, what the spec doesn't have any more is what others set.
    project.write("customers/a.yaml", format!("id: a\n{}", keeping("C: y")));
    project.write("customers/b.yaml", "id: b\nvars: { C: y }\n");
    cloud.deployed(&project);
    assert_eq!(
        (variables(&cloud, "t-a"), variables(&cloud, "t-b")),
        (["A", "B", "C"].map(str::to_owned).to_vec(), vec!["C".to_owned()])
    );
    cloud.is_up_to_date(&project);

    project.write("customers/a.yaml", "id: a\nvars: { C: y }\n");
    cloud.deployed(&project);
    assert_eq!(variables(&cloud, "t-a"), ["C"]);
}

#[test]
fn a_cache_is_switched_on_and_off() {
    let (cloud, project) = (Cloud::start(), fleet(&[("a", "cache: { enabled: true, crossVersion: true }\n")]));
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "t-a")["cache_options"], json!({"enabled": true, "cross_version_cache": true}));
    project.write("customers/a.yaml", "id: a\n");
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "t-a")["cache_options"], Value::Null);
}

#[test]
fn a_name_with_underscores_is_a_name() {
    let (cloud, project) = (Cloud::start(), fleet(&[("a", "workerName: temp_mail\n")]));
    cloud.deployed(&project);
    assert_eq!(settings(&cloud, "temp_mail")["bindings"].as_array().map(|all| all.is_empty()), Some(false));
    cloud.is_up_to_date(&project);
}
