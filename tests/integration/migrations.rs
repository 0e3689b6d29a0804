//! Shows: the migrations of D1 databases: each is applied to each database once and in order, before the upload or after it, whatever fails and
//! whenever the program is killed; what is known costs no request; what was edited after it was applied is an error; one database's failure
//! stops its customer alone; wrangler agrees on what was applied.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use flotilla_model::failure::Exit;
use serde_json::{Value, json};

use crate::engine::Heard;
use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::folders::temporary_folder;
use crate::support::{Project, output};

const FOLDER: &str = "packs/tiny/migrations";
/// Applied twice, it would give another sum.
const FIRST: &str = "CREATE TABLE counter (n INTEGER);\nINSERT INTO counter VALUES (0);\n";

/// A fleet with a database for each customer.
fn with_databases(customers: &[&str]) -> Project {
    let project = fleet(&[]);
    project.write(
        "fleet.yaml",
        "name: test\npacks:\n  tiny: { path: packs/tiny }\ndefaults:\n  database: { type: d1, name: \"app-{customer}\" }\n",
    );
    for customer in customers {
        project.write(&format!("customers/{customer}.yaml"), format!("id: {customer}\n"));
    }
    let manifest = project.read("packs/tiny/pack.yaml");
    project.write("packs/tiny/pack.yaml", format!("{manifest}databases: {{ DB: {{ migrationsDir: migrations }} }}\n"));
    project.write(&format!("{FOLDER}/0001_counter.sql"), FIRST);
    project
}

/// Adds the migration with this number, which counts.
fn count_up(project: &Project, number: usize) {
    let sql = format!("UPDATE counter SET n = n * 10 + {number};\nSELECT ';' AS text;\n");
    project.write(&format!("{FOLDER}/{number:04}_count.sql"), sql);
}

fn ids(cloud: &Cloud) -> BTreeMap<String, String> {
    let path = format!("/client/v4/accounts/{ACCOUNT}/d1/database?per_page=10000");
    let listed = cloud.http("GET", &path, &Value::Null);
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    let rows = listed["result"].as_array().expect("a list").iter();
    rows.map(|row| (text(row, "name"), text(row, "uuid"))).collect()
}

fn query(cloud: &Cloud, id: &str, sql: &str) -> Value {
    cloud.http("POST", &format!("/client/v4/accounts/{ACCOUNT}/d1/database/{id}/query"), &json!({ "sql": sql }))
}

/// The names of the applied migrations of each database, in order, and its counter.
fn applied(cloud: &Cloud) -> BTreeMap<String, (Vec<String>, i64)> {
    let of = |id: &String| {
        let answer = query(cloud, id, "SELECT name FROM d1_migrations ORDER BY id");
        let rows = answer["result"][0]["results"].as_array().cloned().unwrap_or_default();
        let names = rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
        let answer = query(cloud, id, "SELECT n FROM counter");
        (names, answer["result"][0]["results"][0]["n"].as_i64().unwrap_or(-1))
    };
    ids(cloud).iter().map(|(name, id)| (name.clone(), of(id))).collect()
}

fn names(count: usize) -> Vec<String> {
    let count_up = (2..=count).map(|number| format!("{number:04}_count.sql"));
    std::iter::once("0001_counter.sql".to_owned()).chain(count_up).collect()
}

#[track_caller]
fn all_have(cloud: &Cloud, databases: usize, migrations: usize) {
    let n = (2..=migrations).fold(0, |n, number| n * 10 + i64::try_from(number).expect("a small number"));
    let found = applied(cloud);
    assert_eq!(found.len(), databases);
    for (name, has) in found {
        assert_eq!(has, (names(migrations), n), "{name}");
    }
}

/// The requests about databases since the last time.
fn requests(cloud: &Cloud) -> Vec<String> {
    let all = cloud.take().into_iter().map(|request| request.what);
    all.filter(|what| what.contains("d1/database"))
        .map(|what| {
            what.split(' ').next().unwrap_or_default().to_owned() + " " + what.rsplit('/').next().unwrap_or_default()
        })
        .collect()
}

#[test]
fn each_database_is_migrated_once_and_what_is_known_costs_nothing() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme", "bolt", "cafe"]));
    count_up(&project, 2);
    let planned = cloud.engine(&project).plan();
    assert_eq!(planned.plan.databases.len(), 3);
    assert_eq!(planned.plan.databases[0].migrations, names(2));
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.applied, outcome.migrations), (3, 6));
    all_have(&cloud, 3, 2);
    cloud.take();
    cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
    assert_eq!(requests(&cloud), Vec::<String>::new());

    // The workers don't change: a bookmark and the migration, for each database.
    count_up(&project, 3);
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.applied, outcome.migrations, outcome.requests), (0, 3, 6));
    let mut sent = requests(&cloud);
    sent.sort();
    assert_eq!(sent, ["GET bookmark", "GET bookmark", "GET bookmark", "POST query", "POST query", "POST query"]);
    all_have(&cloud, 3, 3);

    // Without the state, each table is read once, and nothing is applied again.
    std::fs::remove_dir_all(project.path(".flotilla")).expect("the state");
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.applied, outcome.migrations), (3, 0));
    all_have(&cloud, 3, 3);
    let planned = cloud.engine(&project).plan();
    assert!(planned.plan.is_empty());
}

#[test]
fn one_failure_stops_its_customer_alone_and_names_the_bookmark() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme", "bolt", "cafe"]));
    cloud.deployed(&project);
    count_up(&project, 2);
    project.edit("fleet.yaml", "defaults:\n", "defaults:\n  vars: { A: b }\n");
    let id = ids(&cloud)["app-bolt"].clone();
    query(&cloud, &id, "DROP TABLE counter");
    let ended = cloud.engine(&project).deploy().exits(Exit::SomeFailed);
    assert!(!ended.heard.contains(&Heard::Applied("t-bolt".to_owned())), "{:?}", ended.heard);
    let outcome = ended.outcome();
    assert_eq!((outcome.applied, outcome.failed, outcome.skipped, outcome.migrations), (2, 1, 1, 2));
    let error = &outcome.failures[0].error;
    assert!(
        error.starts_with("migration 0002_count.sql of the D1 database app-bolt: no such table: counter"),
        "{error}"
    );
    assert!(error.contains("wrangler d1 time-travel restore app-bolt --bookmark="), "{error}");
    let bookmark = error.rsplit('=').next().expect("a bookmark").to_owned();

    // Going back to a bookmark is possible in the emulator, too.
    query(&cloud, &id, "CREATE TABLE counter (n); INSERT INTO counter VALUES (0)");
    assert_eq!(cloud.deployed(&project).migrations, 1);
    all_have(&cloud, 3, 2);
    let path = format!("/client/v4/accounts/{ACCOUNT}/d1/database/{id}/time_travel/restore?bookmark={bookmark}");
    assert_eq!(cloud.http("POST", &path, &Value::Null)["success"], true);
    assert_eq!(applied(&cloud)["app-bolt"], (names(1), -1));
}

#[test]
fn clean_ups_come_after_the_upload_that_no_longer_needs_what_they_remove() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme"]));
    cloud.deployed(&project);
    cloud.take();
    count_up(&project, 2);
    project.write(&format!("{FOLDER}/0003_count.sql"), "-- flotilla: after\nUPDATE counter SET n = n * 10 + 3;\n");
    project.edit("fleet.yaml", "defaults:\n", "defaults:\n  vars: { A: b }\n");
    // Alone, what comes after an upload waits for it.
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.only_databases = true);
    assert_eq!(ended.exits(Exit::Done).outcome().migrations, 1);
    cloud.take();
    assert_eq!(cloud.deployed(&project).migrations, 1);
    let sent: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    let place = |what: &str| sent.iter().rposition(|sent| sent.starts_with(what)).expect("it is sent");
    assert!(place("PUT scripts/t-acme") < place("POST d1"), "{sent:?}");
    all_have(&cloud, 1, 3);
}

#[test]
fn an_upload_that_fails_leaves_the_clean_up_for_later() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme", "bolt"]));
    cloud.deployed(&project);
    project.write(&format!("{FOLDER}/0002_count.sql"), "-- flotilla: after\nUPDATE counter SET n = n * 10 + 2;\n");
    project.edit("fleet.yaml", "defaults:\n", "defaults:\n  vars: { A: b }\n");
    let error = json!({"status": 400, "code": 10021, "message": "no"});
    cloud.faults(&json!([{"match": {"method": "PUT", "path": "scripts/t-acme"}, "times": 0, "do": {"error": error}}]));
    let outcome = cloud.engine(&project).deploy().exits(Exit::SomeFailed).outcome();
    assert_eq!((outcome.failed, outcome.migrations, outcome.migrations_skipped), (1, 1, 1));
    assert_eq!(applied(&cloud)["app-acme"].0, names(1));
    cloud.clear_faults();
    assert_eq!(cloud.deployed(&project).migrations, 1);
    all_have(&cloud, 2, 2);
}

/// Two workers of a customer have one database.
#[test]
fn two_workers_that_share_a_database_migrate_it_once() {
    let (cloud, project) = (Cloud::start(), with_databases(&[]));
    project.write("customers/acme.yaml", "id: acme\nworkers: { web: {}, api: {} }\n");
    let planned = cloud.engine(&project).plan();
    assert_eq!(planned.plan.databases.len(), 1, "{:?}", planned.plan.databases);
    assert_eq!(planned.plan.databases[0].workers.len(), 2);
    assert_eq!(cloud.deployed(&project).migrations, 1);
    all_have(&cloud, 1, 1);
}

#[test]
fn a_database_that_a_binding_gives_by_name_is_created_and_migrated() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme", "bolt"]));
    project.edit("packs/tiny/pack.yaml", "{ DB: {", "{ ORDERS: {").edit(
        "fleet.yaml",
        "  database: { type: d1, name: \"app-{customer}\" }",
        "  bindings: { ORDERS: { d1: \"app-{customer}\" } }",
    );
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.applied, outcome.migrations), (2, 2));
    all_have(&cloud, 2, 1);
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/t-acme/settings");
    let bound = cloud.http("GET", &path, &Value::Null)["result"]["bindings"].clone();
    let bound = bound.as_array().expect("bindings").iter().find(|binding| binding["name"] == "ORDERS").cloned();
    let bound = bound.expect("the binding");
    let id = &ids(&cloud)["app-acme"];
    assert!([&bound["database_id"], &bound["id"]].contains(&&json!(id)), "{bound}");
    cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();

    // One that somebody deleted is created anew.
    let path = format!("/client/v4/accounts/{ACCOUNT}/d1/database/{id}");
    cloud.http("DELETE", &path, &Value::Null);
    count_up(&project, 2);
    let outcome = cloud.engine(&project).deploy().exits(Exit::SomeFailed).outcome();
    assert!(outcome.failures[0].error.contains("no longer exists"), "{:?}", outcome.failures);
    assert_eq!(cloud.deployed(&project).migrations, 2);
    all_have(&cloud, 2, 2);
}

#[test]
fn a_rollback_names_the_migrations_that_stay() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme"]));
    output(&mut command(&cloud, &project, &["deploy", "--yes"])).exits(0);
    count_up(&project, 2);
    project.edit("fleet.yaml", "defaults:\n", "defaults:\n  vars: { A: b }\n");
    output(&mut command(&cloud, &project, &["deploy", "--yes"])).exits(0);
    let run = output(&mut command(&cloud, &project, &["rollback", "acme", "--yes"])).exits(0);
    assert!(
        run.stderr.contains("keep 1 migration that the earlier code may not expect: 0002_count.sql of app-acme"),
        "{run:?}"
    );
    all_have(&cloud, 1, 2);
}

#[test]
fn whatever_fails_each_migration_is_applied_once() {
    let kinds = [
        json!({"reset": "after"}),
        json!({"reset": "before"}),
        json!({"status": 502, "after": true}),
        json!({"status": 200, "html": true, "after": true}),
        json!({"set": {"result": null}}),
        json!({"error": {"status": 400, "code": 7500, "message": "internal error: SQLITE_ERROR"}}),
        json!({"error": {"status": 400, "code": 7500, "message": "internal error: SQLITE_ERROR"}, "after": true}),
        json!({"error": {"status": 403, "code": 10000, "message": "Authentication error"}}),
        json!({"status": 429, "retry_after": 1}),
    ];
    std::thread::scope(|scope| {
        for kind in &kinds {
            scope.spawn(move || {
                // The requests of a database: its list, its creation, three migrations; later a bookmark and two of them.
                for skip in 0..6 {
                    let (cloud, project) = (Cloud::start(), with_databases(&["acme"]));
                    count_up(&project, 2);
                    if skip > 2 {
                        cloud.deployed(&project);
                    }
                    count_up(&project, 3);
                    count_up(&project, 4);
                    cloud
                        .faults(&json!([{"match": {"path": "d1/database"}, "skip": skip % 3, "times": 1, "do": kind}]));
                    let ended = cloud.engine(&project).deploy();
                    let is_done = ended.exit() == Exit::Done;
                    if is_done {
                        all_have(&cloud, 1, 4);
                    }
                    cloud.clear_faults();
                    cloud.engine(&project).deploy().exits(Exit::Done);
                    all_have(&cloud, 1, 4);
                    cloud.engine(&project).deploy().exits(Exit::Done).is_up_to_date();
                }
            });
        }
    });
}

/// The command, with the cloud's credentials.
fn command(cloud: &Cloud, project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command
        .env("FLOTILLA_CACHE_DIR", cache())
        .env("CLOUDFLARE_API_BASE_URL", cloud.base())
        .env("CLOUDFLARE_API_TOKEN", "test-token")
        .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);
    command
}

#[test]
fn a_deploy_that_is_killed_several_times_applies_each_migration_once() {
    const DATABASES: usize = 200;
    let customers: Vec<String> = (0..DATABASES).map(|number| format!("c{number:03}")).collect();
    let customers: Vec<&str> = customers.iter().map(String::as_str).collect();
    let cloud = Cloud::start_with(|options| options.limit.requests = u64::MAX / 2);
    let project = with_databases(&customers);
    count_up(&project, 2);
    count_up(&project, 3);
    project.edit("fleet.yaml", "name: test\n", "name: test\naccounts: { default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN }, apiLimit: { requests: 1000000, seconds: 300, headroom: 0 } } }\n");
    let mut killed = 0;
    for round in 1..=6 {
        let mut child = command(&cloud, &project, &["deploy", "--yes", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        // As soon as some more databases have a migration, wherever it is then.
        let wanted = round * DATABASES / 8;
        let done = || {
            let folder = cloud.folder().join("d1");
            std::fs::read_dir(folder).map_or(0, |entries| {
                entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "db")).count()
            })
        };
        while done() < wanted && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        killed += usize::from(child.try_wait().expect("a child").is_none());
        child.kill().expect("it is there");
        child.wait().expect("a child");
    }
    assert!(killed >= 3, "{killed}");
    output(&mut command(&cloud, &project, &["deploy", "--yes", "--quiet"])).exits(0);
    all_have(&cloud, DATABASES, 3);
    let status = output(&mut command(&cloud, &project, &["migrations", "status", "--json"])).exits(0).json();
    let rows = status["databases"].as_array().expect("databases");
    assert!(rows.len() == DATABASES && rows.iter().all(|row| row["pending"] == json!([]) && row["known"] == true));
}

#[test]
fn wrangler_and_flotilla_agree_on_what_was_applied() {
    let (cloud, project) = (Cloud::start(), with_databases(&["acme"]));
    cloud.deployed(&project);
    count_up(&project, 2);
    let id = ids(&cloud)["app-acme"].clone();
    let config = json!({
        "name": "t-acme", "account_id": ACCOUNT, "compatibility_date": "2026-06-01",
        "d1_databases": [{"binding": "DB", "database_name": "app-acme", "database_id": id, "migrations_dir": FOLDER}],
    });
    project.write("wrangler.json", config.to_string());
    let home = temporary_folder();
    let wrangler = |arguments: &[&str]| {
        let mut command = crate::tools::wrangler(project.root(), home.path());
        command
            .args(["d1", "migrations"])
            .args(arguments)
            .args(["DB", "--remote"])
            .env("CI", "1")
            .env("CLOUDFLARE_API_BASE_URL", cloud.base())
            .env("CLOUDFLARE_API_TOKEN", "test-token");
        output(&mut command).exits(0).stdout
    };
    let listed = wrangler(&["list"]);
    assert!(listed.contains("0002_count.sql") && !listed.contains("0001_counter.sql"), "{listed}");
    wrangler(&["apply"]);
    all_have(&cloud, 1, 2);
    // The state doesn't know of it: the answer to the migration says that it was applied.
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.migrations, outcome.failed), (0, 0));
    all_have(&cloud, 1, 2);
    count_up(&project, 3);
    cloud.deployed(&project);
    let listed = wrangler(&["list"]);
    assert!(listed.contains("No migrations"), "{listed}");
}
