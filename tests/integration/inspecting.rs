//! Shows: `explain` says of a customer what `plan` says, and `status` what is deployed, whatever the specs are like; and both leave
//! everything as it is.

use serde_json::{Value, json};

use crate::fleet::{Cloud, cache, fleet};
use crate::support::Project;
use crate::terminal::Terminal;

const ACME: &str = "vars: { GREETING: hello }\nsecrets: { KEY: { secret: SHARED_KEY } }\ndomains: [a.example.com]\n";

/// What the plan says of a customer: of each worker that it changes, the action, the reasons and the digest; the reasons of those that it
/// skips; the hosts.
fn planned(plan: &Value) -> Value {
    let changes = plan["changes"].as_array().expect("a list").iter();
    let changes: Vec<Value> = changes
        .map(|change| json!([change["worker"], change["action"], change["reasons"], change["digest"]]))
        .collect();
    let held = plan["held"].as_array().expect("a list").iter().map(|held| held["reason"].clone());
    json!([changes, held.collect::<Vec<_>>()])
}

/// The same of what `explain` says.
fn explained(explained: &Value) -> Value {
    let workers = || explained["workers"].as_array().expect("a list").iter();
    let changes = workers().filter(|worker| !["none", "skip"].contains(&worker["deploy"]["action"].as_str().unwrap()));
    let changes = changes.map(|worker| {
        let deploy = &worker["deploy"];
        json!([worker["worker"], deploy["action"], deploy["reasons"], deploy["digest"]])
    });
    let held = workers().flat_map(|worker| worker["deploy"]["held"].as_array().expect("a list").clone());
    json!([changes.collect::<Vec<_>>(), held.collect::<Vec<_>>()])
}

/// Asserts that `explain` agrees with `plan`, before the files are built and afterwards; returns what they say.
#[track_caller]
fn agree(cloud: &Cloud, project: &Project, more: &[&str]) -> Value {
    let out = project.read("out/production/acme/index.ts");
    let explain = || cloud.run(project, &[&["explain", "acme", "--json"], more].concat()).exits(0).json();
    let before = explained(&explain());
    assert_eq!(project.read("out/production/acme/index.ts"), out, "explain builds nothing on disk");
    let plan = planned(&cloud.run(project, &[&["plan", "acme", "--json"], more].concat()).exits(0).json());
    assert_eq!(before, plan, "not built yet");
    assert_eq!(explained(&explain()), plan, "built");
    plan
}

#[test]
fn explain_agrees_with_the_plan_over_all_kinds_of_changes() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ACME), ("bolt", "")]));
    project.write(".env", "SHARED_KEY=one\n");
    cloud.run(&project, &["build"]).exits(0);
    let new = agree(&cloud, &project, &[]);
    assert_eq!((&new[0][0][1], &new[0][0][2][0]), (&json!("create"), &json!("it is new")));
    cloud.deploy(&project, &[]);
    assert_eq!(agree(&cloud, &project, &[]), json!([[], []]));
    let spec = |lines: &str| format!("id: acme\n{lines}");
    let key = "secrets: { KEY: { secret: SHARED_KEY } }\n";
    let changes = [
        ("a value", spec(&format!("vars: {{ GREETING: bye }}\n{key}domains: [a.example.com]\n")), "vars.GREETING"),
        (
            "a domain",
            spec(&format!("{}domains: [a.example.com, b.example.com]\n", &ACME[..ACME.len() - 25])),
            "b.example.com",
        ),
        ("a cron", spec(&format!("{ACME}crons: ['0 3 * * *']\n")), "crons"),
        ("workers.dev", spec(&format!("{ACME}workersDev: false\n")), "workers.dev"),
        (
            "an environment",
            spec(&format!("{ACME}environments: {{ production: {{}}, staging: {{ domains: [] }} }}\n")),
            "it is new",
        ),
    ];
    for (what, text, expected) in changes {
        project.write("customers/acme.yaml", text);
        let told = agree(&cloud, &project, &[]);
        assert!(told[0].to_string().contains(expected), "{what}: {told}");
    }
    project.write("customers/acme.yaml", spec(ACME));
    project.write(".env", "SHARED_KEY=two\n");
    assert!(agree(&cloud, &project, &[])[0].to_string().contains("secret KEY changed"));
    project.write(".env", "SHARED_KEY=one\n");
    let template = project.read("packs/tiny/index.ts.tera");
    project.write("packs/tiny/index.ts.tera", format!("{template}// more\n"));
    assert!(agree(&cloud, &project, &[])[0].to_string().contains("index.ts.tera"));
    project.write("packs/tiny/index.ts.tera", template);
    // Elsewhere, nothing of this is deployed; there, the account is another one.
    assert_eq!(agree(&cloud, &project, &["--local"])[0][0][1], "create");
    project.write("customers/acme.yaml", spec(&format!("{ACME}delivery: gitops\n")));
    assert_eq!(agree(&cloud, &project, &[])[1], json!(["its delivery is gitops: its own pipeline deploys it"]));
}

#[test]
fn explain_says_that_a_manual_customer_is_skipped_unless_it_is_named() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", "delivery: manual\n")]));
    let told = cloud.run(&project, &["explain", "acme"]).exits(0).stdout;
    assert!(told.contains("a deploy would skip it: its delivery is manual: name it to deploy it\n"), "{told}");
    let plan = cloud.run(&project, &["plan", "--json"]).exits(0).json();
    assert_eq!(plan["held"][0]["worker"], "t-acme");
}

#[test]
fn status_lists_what_is_deployed_whatever_the_specs_are_like() {
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ""), ("bolt", ""), ("cove", "")]));
    cloud.deploy(&project, &[]);
    project.write("customers/acme.yaml", "id: acme\ndomains: 1\n");
    std::fs::remove_file(project.path("customers/bolt.yaml")).expect("it is there");
    let status = |code: i32| {
        let json = cloud.run(&project, &["status", "--json"]).exits(code).json();
        let rows = json["workers"].as_array().expect("a list").iter();
        let rows: Vec<Value> = rows.map(|row| json!([row["worker"], row["spec"], row["digest"].is_string()])).collect();
        (Value::from(rows), json)
    };
    let (rows, json) = status(0);
    assert_eq!(rows, json!([["t-acme", "invalid", true], ["t-bolt", "none", true], ["t-cove", "valid", true]]));
    assert_eq!(json["invalid"], json!(["acme"]));
    let text = cloud.run(&project, &["status"]).exits(0).stdout;
    assert!(
        text.contains("\n! 1 customer has errors, which `flotilla check` shows: acme\n3 workers, 3 deployed\n"),
        "{text}"
    );
    // One that was selected.
    let text = cloud.run(&project, &["status", "acme"]).exits(0).stdout;
    assert!(text.contains("t-acme") && text.ends_with("1 worker, 1 deployed\n"), "{text}");
    // Without the account's id, nothing that a spec defines is taken for one that none defines.
    let mut command = cloud.command(&project, &["status", "--json"]);
    let without = crate::support::output(command.env_remove("CLOUDFLARE_ACCOUNT_ID")).exits(1).json();
    let cove: Vec<&Value> =
        without["workers"].as_array().expect("a list").iter().filter(|row| row["worker"] == "t-cove").collect();
    assert!(cove.len() == 1 && cove[0]["spec"] == "valid", "{without}");
    // Not even the fleet is valid.
    let fleet = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{fleet}nonsense: 1\n"));
    let (rows, json) = status(1);
    assert_eq!(rows, json!([["t-acme", "unknown", true], ["t-bolt", "unknown", true], ["t-cove", "unknown", true]]));
    assert!(json["diagnostics"].to_string().contains("S0201"), "{json}");
    project.write("fleet.yaml", "[");
    let (rows, json) = status(1);
    assert_eq!(rows, json!([["t-acme", "unknown", true], ["t-bolt", "unknown", true], ["t-cove", "unknown", true]]));
    assert!(json["diagnostics"].to_string().contains("Y0"), "{json}");
    let text = cloud.run(&project, &["status"]).exits(1);
    assert!(text.stdout.ends_with("3 workers, 3 deployed\n") && text.stderr.contains("fleet.yaml:1"), "{text:?}");
    // Where the state knows nothing, either, the errors are all there is.
    let other = crate::fleet::fleet(&[("acme", "")]);
    other.write("fleet.yaml", "[");
    assert!(other.run(&["status"]).exits(1).stdout.is_empty());
}

#[test]
fn where_all_customers_have_errors_nobody_is_told_that_there_is_nothing_to_deploy() {
    let project = fleet(&[("acme", "domains: 1\n"), ("bolt", "domains: 1\n")]);
    let run = |arguments: &[&str]| project.run_with(arguments, &[("FLOTILLA_CACHE_DIR", cache().to_str().unwrap())]);
    let text = run(&["plan", "--local"]).exits(1).stdout;
    assert!(text.ends_with("nothing is planned: 2 customers are skipped\n"), "{text}");
    let markdown = run(&["plan", "--local", "--format", "markdown"]).exits(1).stdout;
    assert!(
        markdown.contains("nothing is planned: 2 customers are skipped") && !markdown.contains("nothing to deploy")
    );
}

/// Runs a command in a terminal of so many columns; the lines that it wrote to it.
fn lines_at(cloud: &Cloud, project: &Project, columns: u16, arguments: &[&str]) -> Vec<String> {
    let terminal = Terminal::run(columns, cloud.command(project, arguments));
    let raw = terminal.raw_at_end();
    raw.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

/// A line without escape sequences.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        text += before;
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, after)| after);
    }
    text + rest
}

#[test]
fn tables_fit_a_terminal_of_60_and_of_100_columns() {
    let long = "the-customer-with-a-long-id";
    let spec =
        "secrets: { KEY: { secret: A_NAME_THAT_IS_QUITE_LONG } }\ndomains: [a-long-name-of-a-shop.example.com]\n";
    let (cloud, project) = (Cloud::start(), fleet(&[("acme", ""), (long, spec)]));
    project.write(".env", "A_NAME_THAT_IS_QUITE_LONG=one\n");
    cloud.deploy(
        &project,
        &["--all", "--reason", "a reason that is so long that it doesn't fit into a line of sixty columns"],
    );
    let worker = format!("t-{long}");
    // The command, what has to be shown whole, and how the last line begins.
    let tables: [(&[&str], &[&str], &str); 8] = [
        (&["status"], &["acme", long, &worker], "2 workers, 2 deployed"),
        (&["list"], &["acme", long, &worker], "2 workers of 2 customers"),
        (&["history"], &["run", "began", "redeploy"], "1 deploy"),
        (&["history", long], &["record", &worker], "        "),
        (&["secrets", "list"], &[long, "KEY"], "1 secret, 0 missing"),
        (&["state", "show"], &["acme", long, &worker], "2 workers in the state"),
        (&["verify", "--deadline", "0"], &["t-acme", &worker], "0 workers passed"),
        (&["plan"], &[], "nothing to deploy: 2 workers up to date"),
    ];
    for columns in [60, 100] {
        for (arguments, whole, end) in &tables {
            let lines = lines_at(&cloud, &project, columns, arguments);
            let lines: Vec<String> = lines.iter().map(|line| plain(line)).filter(|line| !line.is_empty()).collect();
            let shown = lines.join("\n");
            for word in *whole {
                assert!(shown.contains(word), "{columns} {arguments:?}: no {word} in\n{shown}");
            }
            assert!(lines.last().is_some_and(|line| line.starts_with(end)), "{columns} {arguments:?}:\n{shown}");
            // The table, from its headings to the line before the summary.
            let Some(head) = lines.iter().position(|line| {
                ["customer ", "record ", "run ", "worker "].iter().any(|head| line.trim_start().starts_with(head))
            }) else {
                assert!(whole.is_empty(), "{columns} {arguments:?}: no headings in\n{shown}");
                continue;
            };
            let ends = |line: &&String| {
                (!line.starts_with("  ") || line.starts_with("    "))
                    && !line.starts_with("        ")
                    && !line.contains("not checked: ")
                    && !line.starts_with("the workers.dev addresses ")
            };
            for line in lines[head..].iter().filter(ends).take_while(|line| !line.starts_with(end)) {
                let width = line.chars().count();
                assert!(width <= usize::from(columns), "{columns} {arguments:?}: {width} columns: {line}\n{shown}");
            }
        }
    }
}

#[test]
fn the_table_of_a_check_fits_its_terminal() {
    let specs: Vec<(String, String)> =
        (0..30).map(|at| (format!("c{at}"), "domains: 1\nnonsense: 2\n".to_owned())).collect();
    let specs: Vec<(&str, &str)> = specs.iter().map(|(id, spec)| (id.as_str(), spec.as_str())).collect();
    let (cloud, project) = (Cloud::start(), fleet(&specs));
    for columns in [60, 100] {
        let lines: Vec<String> = lines_at(&cloud, &project, columns, &["check"])
            .iter()
            .map(|line| plain(line))
            .filter(|line| !line.is_empty())
            .collect();
        let head = lines.iter().position(|line| line.starts_with("code ")).expect("headings");
        let rows: Vec<&String> = lines[head..].iter().take_while(|line| !line.starts_with('`')).collect();
        assert!(rows.len() >= 3 && rows.iter().all(|line| line.chars().count() <= usize::from(columns)), "{rows:#?}");
        assert!(lines.last().is_some_and(|line| line.contains("60 errors")), "{lines:#?}");
    }
}

#[test]
fn new_names_the_variables_that_every_other_customer_sets() {
    let spec = |id: &str| format!("vars: {{ CUSTOMER_ID: {id}, SERVICE_DOMAIN: {id}.example.com, SAME: x }}\n");
    let (acme, bolt) = (spec("acme"), spec("bolt"));
    let project = fleet(&[("acme", &acme), ("bolt", &bolt)]);
    let told = project.run(&["new", "cafe", "--local", "--yes"]).exits(0).stdout;
    let line = "! every other customer sets CUSTOMER_ID, SERVICE_DOMAIN: `flotilla edit cafe --set vars.CUSTOMER_ID=… --set vars.SERVICE_DOMAIN=…`";
    assert!(told.contains(line), "{told}");
    let json =
        project.run(&["new", "dune", "--local", "--yes", "--json", "--set", "vars.CUSTOMER_ID=dune"]).exits(0).json();
    assert_eq!(json["siblings_set"], json!([]), "one of the others doesn't set it");
    // What most of them set is named all the same.
    let need = json!({"key": "vars", "name": "SERVICE_DOMAIN", "set_by": 2, "of": 3});
    assert_eq!(json["needs"], json!([need]));
    let told = project.run(&["new", "elm", "--offline", "--yes"]).exits(0).stdout;
    let line = "! 3 of 4 other customers set CUSTOMER_ID: `flotilla edit elm --set vars.CUSTOMER_ID=…`";
    assert!(told.contains(line) && !told.contains("SERVICE_DOMAIN"), "{told}");
}

#[test]
fn new_names_the_bindings_that_other_customers_of_the_pack_have() {
    let spec =
        |id: &str| format!("bindings: {{ FILES: {{ r2: {id}-files, jurisdiction: eu }}, SAME: {{ r2: all }} }}\n");
    let (acme, bolt) = (spec("acme"), spec("bolt"));
    let project = fleet(&[("acme", &acme), ("bolt", &bolt)]);
    let told = project.run(&["new", "cafe", "--offline", "--yes"]).exits(0).stdout;
    let line = "! every other customer sets FILES: `flotilla edit cafe --set 'bindings.FILES.jurisdiction=\"eu\"' --set bindings.FILES.r2=…`";
    assert!(told.contains(line), "{told}");
    let set = ["new", "dune", "--offline", "--yes", "--json", "--set", "bindings.FILES={ r2: dune }"];
    assert_eq!(project.run(&set).exits(0).json()["needs"], json!([]));
}

#[test]
fn new_names_what_the_only_other_customer_has_of_its_own() {
    let project = fleet(&[("acme", "vars: { CUSTOMER_ID: acme, LANGUAGE: de }\n")]);
    let told = project.run(&["new", "bolt", "--offline", "--yes"]).exits(0).stdout;
    assert!(told.contains("! the other customer sets CUSTOMER_ID: ") && !told.contains("LANGUAGE"), "{told}");
}

#[test]
fn new_and_edit_find_and_create_databases_in_the_local_emulator() {
    let project = fleet(&[("acme", "")]);
    let run = |arguments: &[&str]| project.run_with(arguments, &[("FLOTILLA_CACHE_DIR", cache().to_str().unwrap())]);
    let new = |id: &str, database: &str| {
        let arguments = ["new", id, "--local", "--yes", "--json", "--domain", &format!("{id}.example.com")];
        run(&[&arguments[..], &["--database", database]].concat())
    };
    let json = new("bolt", "d1-new:bolt-data").exits(0).json();
    assert_eq!(json["next"], json!(["flotilla plan bolt --local", "flotilla deploy bolt --local"]));
    let spec = project.read("customers/bolt.yaml");
    assert!(spec.contains("name: bolt-data") && !spec.contains("id: 0") && spec.matches("id:").count() == 1, "{spec}");
    let taken = new("cafe", "d1-new:bolt-data").exits(1).stderr;
    assert!(taken.contains("that account already has a D1 database bolt-data"), "{taken}");
    let held = new("cafe", "d1:bolt-data").exits(1).stderr;
    assert!(held.contains("the D1 database bolt-data belongs to bolt"), "{held}");
    assert!(!project.path("customers/cafe.yaml").exists());
    let edit = ["edit", "acme", "--local", "--yes", "--database", "d1-new:acme-data"];
    assert!(run(&edit).exits(0).stdout.ends_with("next:\n  flotilla plan acme --local\n"));
    assert!(project.read("customers/acme.yaml").contains("{ type: d1, name: acme-data }"));
    // The deploy finds both, and creates none.
    let plan = run(&["plan", "--local"]).exits(0).stdout;
    assert!(plan.contains("t-bolt") && plan.contains("bolt.example.com"), "{plan}");
    run(&["deploy", "--local", "--yes"]).exits(0);
    let two = run(&["new", "dune", "--local", "--yes", "--database", "d1:acme-data"]).exits(1).stderr;
    assert!(two.contains("belongs to acme"), "{two}");
    run(&["new", "dune", "--local", "--offline", "--yes"]).exits(2);
}
