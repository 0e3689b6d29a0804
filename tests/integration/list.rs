//! Shows: `list` and `show` tell the six core pieces of each worker, and neither a token nor a whole id.

use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::Project;

const DATABASE: &str = "0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01";

fn project() -> Project {
    let d1 =
        format!("domains: [shop.acme.co.uk, b.acme.co.uk]\ndatabase: {{ type: d1, name: of-acme, id: {DATABASE} }}\n");
    let turso = "workersDev: false\nroutes: [{ pattern: \"cafe.example/consent/*\", zone: cafe.example }]\n\
                 database: { type: turso, url: \"libsql://of-cafe.turso.io\", token: { secret: KEY } }\n";
    fleet(&[("acme", &d1), ("cafe", turso), ("plain", "")])
}

fn row<'a>(listed: &'a Value, worker: &str) -> &'a Value {
    let rows = listed["workers"].as_array().expect("workers");
    rows.iter().find(|row| row["worker"] == worker).unwrap_or_else(|| panic!("{worker}: {listed}"))
}

#[test]
fn the_six_pieces_of_each_worker_and_nothing_whole() {
    let project = project();
    let variables = [("CLOUDFLARE_ACCOUNT_ID", ACCOUNT), ("CLOUDFLARE_API_TOKEN", "canary-token-1")];
    let run = project.run_with(&["list", "--format", "json"], &variables).exits(0);
    assert_eq!(run.stdout.lines().count(), 1);
    let listed = run.json();
    let acme = row(&listed, "t-acme");
    assert_eq!(acme["account"], json!({"name": "default", "id": "01234567…"}));
    assert_eq!(acme["zones"], json!([{"name": "acme.co.uk", "id": null}]));
    assert_eq!((&acme["token"], &acme["domains"]), (&json!("found"), &json!(["b.acme.co.uk", "shop.acme.co.uk"])));
    assert_eq!(acme["database"], json!({"type": "d1", "name": "of-acme", "id": "0f3f6a10…"}));
    let cafe = row(&listed, "t-cafe");
    assert_eq!((&cafe["zones"][0]["name"], &cafe["domains"]), (&json!("cafe.example"), &json!(["cafe.example"])));
    assert_eq!(cafe["database"], json!({"type": "turso", "name": "of-cafe.turso.io", "id": null}));
    let plain = row(&listed, "t-plain");
    assert_eq!((&plain["zones"], &plain["database"]["type"]), (&json!([]), &json!("none")));
    assert_eq!((&listed["customers"], &listed["invalid"]), (&json!(3), &json!([])));
    let shown = project.run_with(&["show", "--format", "json", "acme"], &variables).exits(0).json();
    let core = &shown["workers"][0]["core"];
    for piece in ["account", "zones", "token", "domains", "database"] {
        assert_eq!(core[piece], acme[piece]);
    }
    let text = project.run_with(&["list"], &variables).exits(0).stdout;
    let line = text.lines().find(|line| line.starts_with("acme ")).expect("a line of acme");
    for word in
        ["production", "t-acme", "default 01234567…", "acme.co.uk", "found", "b.acme.co.uk +1", "of-acme", "0f3f6a10…"]
    {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(text.ends_with("3 workers of 3 customers\n"), "{text}");
    let head = project.run_with(&["show", "acme"], &variables).exits(0).stdout;
    assert!(
        head.contains("\n# account default 01234567… · zone acme.co.uk · token found · domain b.acme.co.uk +1"),
        "{head}"
    );
    // The spec says the database's id whole; nothing that shows it does.
    for all in [listed.to_string(), text, shown.to_string(), head] {
        assert!(!all.contains("canary") && !all.contains(ACCOUNT) && !all.contains(DATABASE), "{all}");
    }
}

#[test]
fn a_token_that_is_missing_and_a_customer_with_mistakes() {
    let project = project();
    let listed = project.run(&["list", "--format", "json", "acme"]).exits(0).json();
    assert_eq!(listed["workers"].as_array().map(Vec::len), Some(1));
    let acme = row(&listed, "t-acme");
    assert_eq!((&acme["token"], &acme["account"]["id"]), (&json!("missing"), &Value::Null));
    // A source that isn't the environment.
    project.write("secrets.env", "CLOUDFLARE_API_TOKEN=canary\n");
    let listed = project.run(&["list", "--format", "json", "--env-file", "secrets.env"]).exits(0).json();
    assert_eq!(row(&listed, "t-acme")["token"], "found");
    let none = project.run(&["list", "--env", "staging"]).exits(2).stderr;
    assert!(none.contains("no customer has a worker in staging"), "{none}");
    project.write("customers/bad.yaml", "id: bad\nnam: x\n");
    let run = project.run(&["list", "--format", "json"]).exits(1);
    assert_eq!((&run.json()["invalid"], run.json()["workers"].as_array().map(Vec::len)), (&json!(["bad"]), Some(3)));
    assert!(run.stderr.contains("S0201"));
    let text = project.run(&["list"]).exits(1).stdout;
    assert!(text.contains("bad  has errors\n3 workers of 3 customers · 1 customer with errors\n"), "{text}");
    project.run(&["list", "nobody"]).exits(2);
}

#[test]
fn ids_that_a_deploy_found_are_known() {
    let project = fleet(&[("acme", "database: { type: d1, name: of-acme }\ndomains: [a.example.com]\n")]);
    let cloud = Cloud::start_with(|options| options.make_bound = true);
    let listed =
        |cloud: &Cloud| row(&cloud.run(&project, &["list", "--format", "json"]).exits(0).json(), "t-acme").clone();
    assert_eq!(listed(&cloud)["database"]["id"], Value::Null);
    cloud.deployed(&project);
    let id = listed(&cloud)["database"]["id"].as_str().expect("an id").to_owned();
    assert!(id.chars().count() == 9 && id.ends_with('…'), "{id}");
}
