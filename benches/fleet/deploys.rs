//! Deploys to a Cloudflare on this machine, whose limits are out of the way. It runs in the stand's process, on the same
//! cores.

use std::time::Duration;

use flotilla_local as local;
use serde_json::json;

use crate::figures::{Contender, Report, in_turns, thousands};
use crate::fleet;
use crate::project::{Project, settle};

/// The accounts of the generated fleet.
const ACCOUNTS: [(&str, &str); 2] = [
    ("CLOUDFLARE_ACCOUNT_ID", "00000000000000000000000000000001"),
    ("CLOUDFLARE_HOSTS_ACCOUNT_ID", "00000000000000000000000000000002"),
];

/// Measures deploys of a fleet of this size.
pub fn run(report: &mut Report, customers: usize, rounds: usize) {
    let scenario = "deploys";
    let project = Project::new(scenario, customers);
    report.text(&format!("### Deploys of {} customers", thousands(customers as u64)));
    let mut options = local::Options::new(project.path("cloud"));
    options.address = ([127, 0, 0, 1], 0).into();
    options.limit = local::RateLimit { requests: u64::MAX / 2, window: Duration::from_secs(1) };
    options.limits.workers = u64::MAX / 2;
    options.limits.crons = u64::MAX / 2;
    options.make_bound = true;
    let running = local::start(options).expect("a local Cloudflare");
    let base = running.api_base();
    let namespace = flotilla_http::builder()
        .build()
        .expect("an HTTP client")
        .post(format!("{base}/accounts/{}/workers/dispatch/namespaces", ACCOUNTS[0].1))
        .bearer_auth("bench")
        .json(&json!({"name": "generated"}))
        .send()
        .expect("a namespace");
    assert!(namespace.status().is_success(), "{}", namespace.text().unwrap_or_default());

    let mut environment = vec![("CLOUDFLARE_API_BASE_URL", base.as_str()), ("CLOUDFLARE_API_TOKEN", "bench")];
    environment.extend(ACCOUNTS);
    environment.extend(fleet::SECRETS.map(|name| (name, "bench")));
    // What it used, its requests and the workers that it changed.
    let deploy = |applied: std::ops::RangeInclusive<u64>| {
        let (sample, outcome) = project.flotilla(&["deploy", "--yes"], &environment);
        let count = |what: &str| outcome[what].as_u64().unwrap_or_else(|| panic!("no number of {what}: {outcome}"));
        assert!(applied.contains(&count("applied")) && count("failed") == 0, "another deploy: {outcome}");
        (sample, count("requests"), count("applied"))
    };
    project.bring_up_to_date();
    settle();
    let (mut first, mut nothing, mut one, mut workers) = (0, 0, 0, 0);
    let mut figures = in_turns(
        1,
        vec![Contender::new("first deploy", |_| {
            let sample;
            (sample, first, workers) = deploy(customers as u64..=u64::MAX);
            sample
        })],
    );
    figures.extend(in_turns(
        rounds,
        vec![
            Contender::new("deploy, nothing changed", |_| {
                let sample;
                (sample, nothing, _) = deploy(0..=0);
                sample
            }),
            Contender::new("deploy, one spec changed", |_| {
                let sample;
                (sample, one, _) = deploy(1..=2);
                sample
            })
            .after(|round| project.change_spec(customers / 3, round)),
        ],
    ));
    report.figures(scenario, customers, &figures.iter().collect::<Vec<_>>());
    report.text(&format!(
        "Requests: {} for the first deploy of {} workers, {nothing} when nothing changed, {one} for the changed spec.",
        thousands(first),
        thousands(workers)
    ));
    report.line(json!({
        "scenario": scenario, "customers": customers, "workers": workers,
        "requests": {"first": first, "nothing": nothing, "one": one},
    }));
    running.stop();
}
