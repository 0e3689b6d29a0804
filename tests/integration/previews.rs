//! Shows: a preview is a fleet of its own beside the one that it is made from; it comes up, changes and goes, and leaves the
//! Cloudflare as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use flotilla_build::build;
use flotilla_model::customer::{Database, Worker};
use flotilla_model::failure::Exit;
use flotilla_model::preview::Preview;
use flotilla_model::progress::Silent;
use flotilla_model::spec::Environment;
use flotilla_spec::tree::Tree;
use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use crate::engine::{Heard, customers};
use crate::fleet::{Cloud, fleet, until};
use crate::support::{Project, Run, output, spawn};

/// What a preview of these customers comes to: its workers by name, and `code message` of each mistake.
fn seen(
    project: &Project,
    from: Environment,
    domain: Option<&str>,
    ids: &[&str],
) -> (BTreeMap<String, Worker>, Vec<String>) {
    let preview = Preview {
        id: "7".to_owned(),
        from,
        domain: domain.map(str::to_owned),
        customers: ids.iter().map(|id| (*id).to_owned()).collect(),
        shared: None,
        hosts: BTreeMap::new(),
    };
    let scanned = build::open_preview(Tree::new(project.root()), &preview, &Silent).and_then(|mut project| {
        let mut scan = build::scan(&mut project, false, &Silent)?;
        Ok((scan.workers(&project), scan.diagnostics))
    });
    let (workers, told) = match scanned {
        Ok(scanned) => scanned,
        Err(told) => (Vec::new(), told),
    };
    let told = told.iter().map(|one| format!("{} {} {}", one.code, one.place, one.message)).collect();
    (workers.into_iter().map(|worker| (worker.name.clone(), worker)).collect(), told)
}

/// The workers of a preview without mistakes.
#[track_caller]
fn workers(project: &Project, from: Environment, domain: Option<&str>, ids: &[&str]) -> BTreeMap<String, Worker> {
    let (workers, told) = seen(project, from, domain, ids);
    assert_eq!(told, Vec::<String>::new());
    workers
}

fn names(workers: &BTreeMap<String, Worker>) -> Vec<&str> {
    workers.keys().map(String::as_str).collect()
}

fn domains(worker: &Worker) -> Vec<&str> {
    worker.domains.iter().map(String::as_str).collect()
}

const PACK: &str = "name: test\npacks: { tiny: { path: packs/tiny } }\n";

/// The fifth seed's three workers, as one customer's.
const STUDIO: &str = "
workers:
  web:
    workerName: codex-web-{environment}
    domains: [codex.revelations.example]
    vars: { AUTH_WORKER_URL: { workerUrl: auth }, API_URL: { workerUrl: api } }
  api:
    workerName: stripe-webhook-handler-{environment}
    domains: [api.revelations.example]
    vars: { WEB_APP_URL: { workerUrl: web }, AUTH_WORKER_URL: { workerUrl: auth } }
    trustedOrigins: ['https://codex.revelations.example', 'https://elsewhere.example']
  auth:
    workerName: auth-worker-{environment}
    domains: [auth.revelations.example]
    vars: { WEB_APP_URL: { workerUrl: web }, API_URL: { workerUrl: api } }
environments:
  production: {}
  staging: { logLevel: debug, crons: ['* * * * *'] }
  preview: { vars: { ONLY: here } }
";

#[test]
fn workers_of_a_preview_refer_to_each_other_under_names_and_hosts_of_their_own() {
    let project = fleet(&[("codex", STUDIO)]);
    let of = |from, domain| workers(&project, from, domain, &["codex"]);
    let staging = of(Environment::Staging, None);
    assert_eq!(names(&staging), ["auth-worker-preview-7", "codex-web-preview-7", "stripe-webhook-handler-preview-7"]);
    let [auth, web, api] =
        ["auth-worker-preview-7", "codex-web-preview-7", "stripe-webhook-handler-preview-7"].map(|name| &staging[name]);
    assert_eq!(domains(web), ["codex-preview-7.revelations.example"]);
    assert_eq!(domains(api), ["api-preview-7.revelations.example"]);
    assert_eq!(domains(auth), ["auth-preview-7.revelations.example"]);
    assert_eq!(web.vars["AUTH_WORKER_URL"], "https://auth-preview-7.revelations.example");
    assert_eq!(web.vars["API_URL"], "https://api-preview-7.revelations.example");
    assert_eq!(api.vars["WEB_APP_URL"], "https://codex-preview-7.revelations.example");
    assert_eq!(auth.vars["API_URL"], "https://api-preview-7.revelations.example");
    assert_eq!(api.trusted_origins, ["https://codex-preview-7.revelations.example", "https://elsewhere.example"]);
    assert_eq!((web.environment, web.log_level as u8), (Environment::Preview, 0));
    assert_eq!(web.vars["ONLY"], "here");
    assert!(web.crons.is_empty(), "nothing is started by the clock");
    assert_eq!(web.folder(), "preview/codex/web");
    let production = of(Environment::Production, Some("previews.example"));
    assert_eq!(domains(&production["codex-web-preview-7"]), ["web-codex-preview-7.previews.example"]);
    assert_eq!(
        production["stripe-webhook-handler-preview-7"].trusted_origins[0],
        "https://web-codex-preview-7.previews.example"
    );
    assert_eq!(production["codex-web-preview-7"].log_level as u8, 1);
}

#[test]
fn shared_workers_belong_to_it_as_far_as_they_are_referred_to() {
    let project = fleet(&[
        ("acme", "domains: [www.acme.example, acme.example]\nvars: { AUTH: { workerUrl: auth } }\n"),
        (
            "bluebird",
            "routes: [{ pattern: 'shop.bluebird.example/cart/*', zone: bluebird.example }, { pattern: '*.bluebird.example/*', zone: bluebird.example }]\n",
        ),
    ]);
    project.write(
        "fleet.yaml",
        format!(
            "{PACK}sharedWorkers:\n  auth: {{ domains: [auth.example.com], services: {{ LOG: log }}, trustedOrigins: ['https://www.acme.example'] }}\n  \
             log: {{ workersDev: false, domains: [log.example.com] }}\n  other: {{ domains: [other.example.com] }}\n"
        ),
    );
    let of = |domain, ids: &[&str]| workers(&project, Environment::Staging, domain, ids);
    let both = of(None, &["acme", "bluebird"]);
    assert_eq!(names(&both), ["t-acme-preview-7", "t-bluebird-preview-7", "test-auth-preview-7", "test-log-preview-7"]);
    assert_eq!(domains(&both["t-acme-preview-7"]), ["preview-7.acme.example", "www-preview-7.acme.example"]);
    assert_eq!(both["t-acme-preview-7"].vars["AUTH"], "https://auth-preview-7.example.com");
    assert_eq!(both["test-auth-preview-7"].services["LOG"], "test-log-preview-7");
    assert_eq!(both["test-auth-preview-7"].trusted_origins, ["https://www-preview-7.acme.example"]);
    // Routes make no DNS record: their hosts become custom domains, wildcards don't.
    assert_eq!(domains(&both["t-bluebird-preview-7"]), ["shop-preview-7.bluebird.example"]);
    assert!(both.values().all(|worker| worker.routes.is_empty()));
    // Whoever isn't reached from outside isn't in a preview either.
    assert_eq!(names(&of(None, &["bluebird"])), ["t-bluebird-preview-7"]);
    project.edit("fleet.yaml", "workersDev: false, domains: [log.example.com]", "workersDev: false");
    let (found, told) = seen(&project, Environment::Staging, Some("p.example"), &["acme"]);
    assert_eq!(domains(&found["test-auth-preview-7"]), ["auth-preview-7.p.example"]);
    assert!(found["test-log-preview-7"].domains.is_empty());
    assert_eq!(told, [""; 0], "auth calls it");
    project.edit("fleet.yaml", "services: { LOG: log }, ", "vars: { LOG: { workerUrl: log } }, ");
    let (_, told) = seen(&project, Environment::Staging, Some("p.example"), &["acme"]);
    assert!(told.iter().any(|text| text.starts_with("N0309")), "{told:?}");
}

#[test]
fn a_host_of_a_preview_that_is_too_long_is_told() {
    let id = "a".repeat(50);
    let project = fleet(&[(&id, "workers: { web: {}, api: { domains: [api.example.com] } }\n")]);
    let (_, told) = seen(&project, Environment::Staging, Some("p.example"), &[&id]);
    // `web-`, fifty letters and `-preview-7`.
    let hosts = told.iter().filter(|told| told.starts_with("N0301") && told.contains("more than 63"));
    assert_eq!(hosts.count(), 2, "{told:?}");
    // And so are names.
    let names = told.iter().filter(|told| told.starts_with("N0303") && told.contains("at most 63 are allowed"));
    assert_eq!((names.count(), told.len()), (2, 4), "{told:?}");
}

#[test]
fn destinations_databases_and_environments_are_those_of_a_preview() {
    let project = fleet(&[(
        "acme",
        "destinations:
  - { name: all, type: any }
  - { name: live, type: any, environments: [production] }
  - { name: staged, type: any, environment: staging }
  - { name: seen, type: any, environments: [preview, production] }
environments:
  production: { database: { type: d1, name: acme, id: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a02 } }
  staging: { database: { type: d1, name: acme_db, id: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01 } }
",
    )]);
    let of = || workers(&project, Environment::Staging, None, &["acme"]).into_values().next().expect("a worker");
    let worker = of();
    let found: Vec<&str> = worker.destinations.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(found, ["all", "seen"]);
    let Database::D1 { name, id, .. } = &worker.database else { panic!("{:?}", worker.database) };
    assert_eq!((name.as_str(), id), ("acme_db-preview-7", &None));
    // What is said of previews counts, wherever it is said.
    project.write("fleet.yaml", format!("{PACK}defaults: {{ environments: {{ preview: {{ database: {{ type: none }}, vars: {{ A: fleet }} }} }} }}\n"));
    assert_eq!((of().database, &of().vars["A"]), (Database::None, &json!("fleet")));
    // A spec that speaks of previews alone is in production, as if it didn't.
    project.write("customers/bare.yaml", "id: bare\nenvironments: { preview: { vars: { A: own } } }\n");
    let standing = build::load(project.root(), &Silent).unwrap_or_else(|told| panic!("{told:?}"));
    let folders: Vec<String> = standing.workers.iter().map(Worker::folder).collect();
    assert_eq!(folders, ["staging/acme", "production/acme", "production/bare"]);
    let bare = workers(&project, Environment::Staging, None, &["bare"]);
    assert_eq!(bare["t-bare-preview-7"].vars["A"], "own");
    project.run(&["check"]).exits(0);
}

#[test]
fn a_preview_on_the_database_of_production_is_refused() {
    let turso = "{ type: turso, url: 'libsql://acme.turso.io', token: { secret: T } }";
    let refused = |spec: String| {
        let project = fleet(&[("acme", &spec)]);
        let (found, told) = seen(&project, Environment::Staging, None, &["acme"]);
        match told.first() {
            None => false,
            Some(first) => {
                assert!(first.starts_with("S0220 customers/acme.yaml") && found.is_empty(), "{told:?}");
                true
            }
        }
    };
    assert!(refused(format!("database: {turso}\n")));
    assert!(refused(format!("database: {turso}\nenvironments: {{ production: {{}}, staging: {{}} }}\n")));
    let own = "environments: { production: {}, staging: { database: { url: 'libsql://staging.turso.io' } } }\n";
    assert!(!refused(format!("database: {turso}\n{own}")));
    assert!(refused(format!("database: {turso}\nenvironments: {{ staging: {{}} }}\n")), "production is implied");
    assert!(!refused(format!("database: {turso}\nenvironments: {{ staging: {{}}, production: null }}\n")));
    for said in [
        "{ type: none }",
        "{ type: d1, name: previews }",
        "{ type: turso, url: 'libsql://acme.turso.io', token: { secret: T } }",
    ] {
        assert!(
            !refused(format!("database: {turso}\nenvironments: {{ preview: {{ database: {said} }} }}\n")),
            "{said}"
        );
    }
}

#[test]
fn a_preview_with_a_binding_of_production_is_refused() {
    let id = |digit: &str| digit.repeat(32);
    let spec = |more: &str| {
        format!("bindings: {{ CACHE: {{ kv: {} }}, AI: {{ ai: true }}, FILES: {{ r2: files }} }}\n{more}", id("a"))
    };
    let told = |more: &str| {
        let project = fleet(&[("acme", &spec(more))]);
        seen(&project, Environment::Staging, None, &["acme"]).1
    };
    let both = told("");
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.iter().all(|told| told.starts_with("S0220 customers/acme.yaml:2")), "{both:?}");
    let said = format!("CACHE: {{ kv: {} }}", id("b"));
    let one = told(&format!("environments: {{ preview: {{ bindings: {{ {said} }} }} }}\n"));
    assert!(one.len() == 1 && one[0].contains("`FILES`"), "{one:?}");
    assert!(told(&format!("environments: {{ preview: {{ bindings: {{ {said}, FILES: null }} }} }}\n")).is_empty());
    let staging = format!(
        "environments: {{ production: {{}}, staging: {{ bindings: {{ {said}, FILES: {{ r2: staged }} }} }} }}\n"
    );
    assert!(told(&staging).is_empty());
}

/// All that a Cloudflare has, table by table; without the bytes of modules, which it keeps.
fn content(cloud: &Cloud) -> BTreeMap<String, BTreeSet<String>> {
    let mut path = None;
    for entry in std::fs::read_dir(cloud.folder()).expect("its folder").flatten() {
        let found = entry.path();
        if found.extension().is_some_and(|extension| extension == "db" || extension == "sqlite") {
            path = Some(found);
        }
    }
    let db = rusqlite::Connection::open(path.expect("its store")).expect("it opens");
    let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let rows = |table: &String| {
        let mut statement = db.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = statement.column_count();
        let rows = statement
            .query_map([], |row| {
                Ok((0..columns)
                    .map(|at| format!("{:?}", row.get::<_, Cell>(at).unwrap()))
                    .collect::<Vec<_>>()
                    .join(" "))
            })
            .unwrap();
        rows.map(Result::unwrap).collect::<BTreeSet<String>>()
    };
    let kept = tables.iter().filter(|table| !["module", "sqlite_sequence"].contains(&table.as_str()));
    kept.map(|table| (table.clone(), rows(table))).collect()
}

fn up(cloud: &Cloud, project: &Project, more: &[&str]) -> Run {
    cloud.run(project, &[&["preview", "up", "--id", "7", "--yes", "--format", "json"], more].concat())
}

fn list(cloud: &Cloud, project: &Project) -> Vec<Value> {
    let listed = cloud.run(project, &["preview", "list", "--format", "json"]).exits(0).json();
    listed["previews"].as_array().expect("a list").clone()
}

/// The tests' pack says nothing of its health.
const QUIET: &str = "deploy: { health: { enabled: false } }\n";

fn three() -> Project {
    let project = fleet(&[
        (
            "acme",
            "domains: [acme.example.com]\ndatabase: { type: d1, name: acme }\nenvironments: { production: {}, staging: { domains: [acme-staging.example.com], database: { type: d1, name: acme-staging } } }\n",
        ),
        ("bluebird", "domains: [bluebird.example.com]\ncrons: ['* * * * *']\nlabels: { tier: gold }\n"),
        ("cafe", "routes: [{ pattern: 'cafe.example.com/*', zone: example.com }]\nworkersDev: false\n"),
    ]);
    project.write("fleet.yaml", format!("{PACK}{QUIET}"));
    project
}

#[test]
fn up_and_down_leave_the_cloudflare_as_it_was() {
    let project = three();
    let cloud = Cloud::start();
    cloud.deployed(&project);
    // What only the first machine knows is asked once, and noted in the tags.
    cloud.engine(&project).rebuild();
    let before = content(&cloud);
    let standing = project.files("out");
    let state = cloud.run(&project, &["state", "show", "--format", "json"]).exits(0).json();
    let report = up(&cloud, &project, &[]).exits(0).json();
    assert_eq!((&report["applied"], report["workers"].as_array().unwrap().len()), (&json!(3), 3), "{report}");
    assert_eq!(report["workers"][0]["address"], "https://acme-preview-7.example.com/");
    assert_eq!(report["from"], "staging");
    assert_ne!(content(&cloud), before);
    cloud.take();

    // Again: the lists, and nothing else.
    assert_eq!(up(&cloud, &project, &[]).exits(0).json()["applied"], 0);
    assert_eq!(cloud.sent(), Vec::<String>::new());
    // From another machine, what only the first one knew is asked once, and noted in the tags.
    std::fs::remove_dir_all(project.path(".flotilla/previews")).unwrap();
    assert_eq!(up(&cloud, &project, &[]).exits(0).json()["applied"], 0);
    let asked = cloud.sent();
    assert!(asked.iter().all(|sent| sent.starts_with("GET ") || sent.ends_with("/script-settings")), "{asked:?}");
    std::fs::remove_dir_all(project.path(".flotilla/previews")).unwrap();
    assert_eq!(up(&cloud, &project, &[]).exits(0).json()["applied"], 0);
    assert_eq!(cloud.sent(), Vec::<String>::new());

    // The fleet itself sees nothing of it.
    project.run(&["build", "--check"]).exits(0);
    let planned = cloud.engine(&project).plan_with(|request| request.refresh = true);
    assert!(planned.plan.is_empty() && planned.plan.orphans.is_empty(), "{:#?}", planned.plan);
    assert!(planned.findings.is_empty(), "{:#?}", planned.findings);
    let pruned = cloud.engine(&project).prune(true).exits(Exit::Done);
    pruned.is_up_to_date();
    assert!(!pruned.heard.iter().any(|heard| matches!(heard, Heard::HostRemoved(_))), "{:#?}", pruned.heard);
    cloud.engine(&project).rebuild();
    let workers = |state: &Value| state["workers"].as_array().map(Vec::len);
    assert_eq!(workers(&cloud.run(&project, &["state", "show", "--format", "json"]).exits(0).json()), workers(&state));
    assert_eq!(project.files("out"), standing);

    let listed = list(&cloud, &project);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["id"], &listed[0]["expired"]), (&json!("7"), &json!(false)));
    assert_eq!(listed[0]["customers"], json!(["acme", "bluebird", "cafe"]));
    let hosts = ["acme-preview-7.example.com", "bluebird-preview-7.example.com", "cafe-preview-7.example.com"];
    assert_eq!(listed[0]["hosts"], json!(hosts));

    // Down, from a machine that has no state.
    std::fs::remove_dir_all(project.path(".flotilla/previews")).unwrap();
    cloud.take();
    let asked = cloud.run(&project, &["preview", "down", "--id", "7"]).exits(5);
    assert!(asked.stderr.contains("pass --yes") && asked.stderr.contains("acme-preview-7.example.com"), "{asked:?}");
    let removed = cloud.run(&project, &["preview", "down", "--id", "7", "--yes", "--format", "json"]).exits(0).json();
    let counts = ["removed", "workers", "hosts", "databases"].map(|key| removed[key].clone());
    assert_eq!(counts, [json!(["7"]), json!(3), json!(3), json!(1)], "{removed}");
    let sent: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    let at =
        |what: &str| sent.iter().position(|sent| sent.starts_with(what)).unwrap_or_else(|| panic!("{what}: {sent:?}"));
    assert!(at("DELETE domains/") < at("DELETE scripts/t-acme-preview-7"), "{sent:?}");
    assert!(at("DELETE d1/database/") < at("DELETE scripts/t-acme-preview-7"), "{sent:?}");
    assert!(!project.path(".flotilla/previews/7").exists());
    assert!(list(&cloud, &project).is_empty());
    let after = content(&cloud);
    for (table, rows) in &before {
        assert_eq!(&after[table], rows, "{table}");
    }
    assert_eq!(cloud.run(&project, &["preview", "down", "--id", "7", "--yes"]).exits(0).code, 0);
    cloud.run(&project, &["preview", "down", "--yes"]).exits(2);
}

#[test]
fn what_is_no_longer_selected_goes_with_its_database() {
    let project = three();
    let cloud = Cloud::start();
    let before = content(&cloud);
    assert_eq!(
        up(&cloud, &project, &["acme", "-l", "tier!=gold", "--from", "production"]).exits(0).json()["applied"],
        1
    );
    assert_eq!(list(&cloud, &project)[0]["customers"], json!(["acme"]));
    // Another machine puts up another part of it.
    std::fs::remove_dir_all(project.path(".flotilla/previews")).unwrap();
    let report = up(&cloud, &project, &["-l", "tier=gold"]).exits(0).json();
    assert_eq!(report["applied"], 2, "{report}");
    assert_eq!(list(&cloud, &project)[0]["workers"], json!(["t-bluebird-preview-7"]));
    assert!(content(&cloud)["d1"].is_empty(), "the database went with its worker");
    // Nobody is selected: nothing is left of it.
    cloud.run(&project, &["preview", "up", "--id", "7", "--yes", "nobody"]).exits(2);
    cloud.run(&project, &["preview", "down", "--all", "--yes"]).exits(0);
    as_before(&before, &content(&cloud), "at the end");
}

#[test]
fn what_does_not_fit_is_refused_with_numbers_before_anything_is_sent() {
    let project = three();
    let cloud = Cloud::start();
    let set = |more: &str| {
        project.write("fleet.yaml", format!("{PACK}{QUIET}{more}"));
    };
    set("previews: { most: 2 }\n");
    let refused = up(&cloud, &project, &[]).exits(5);
    assert!(refused.stderr.contains("would have 3 customers, more than the maximum of 2"), "{refused:?}");
    set(
        "accounts: { default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN }, limits: { customDomainsPerZone: 4 } } }\n",
    );
    let two = cloud.engine(&project).deploy_with(|request| request.plan.selection = customers(&["acme", "bluebird"]));
    assert_eq!(two.exits(Exit::Done).outcome().failed, 0);
    up(&cloud, &project, &["bluebird"]).exits(0);
    cloud.take();
    let other = ["preview", "up", "--id", "8", "--yes", "bluebird"];
    let refused = cloud.run(&project, &other).exits(5);
    let told = "the zone example.com has 4 custom domains, the preview adds 1, and the limit is 4; nothing was sent";
    assert!(refused.stderr.contains(told), "{refused:?}");
    assert!(refused.stderr.contains("the oldest previews: 7 (1 host"), "{refused:?}");
    assert_eq!(cloud.sent(), Vec::<String>::new());
    // Its own hosts count once.
    up(&cloud, &project, &["bluebird"]).exits(0);
    cloud.run(&project, &["preview", "down", "--id", "7", "--yes"]).exits(0);
    cloud.run(&project, &other).exits(0);
}

#[test]
fn previews_expire_and_are_put_off_when_they_are_put_up_again() {
    let project = three();
    let cloud = Cloud::start();
    up(&cloud, &project, &["bluebird", "--days", "1"]).exits(0);
    cloud.run(&project, &["preview", "up", "--id", "old", "--yes", "bluebird"]).exits(0);
    let expires = |at: usize| list(&cloud, &project)[at]["expires"].as_str().expect("a day").to_owned();
    let day = expires(0);
    assert!(day < expires(1));
    cloud.take();
    up(&cloud, &project, &["bluebird", "--days", "30"]).exits(0);
    assert_eq!(cloud.sent(), ["PATCH scripts/t-bluebird-preview-7/script-settings"]);
    assert!(expires(0) > expires(1));
    // One that expired long ago, as its tag says.
    let path = format!("/client/v4/accounts/{}/workers/scripts/t-bluebird-preview-old", crate::fleet::ACCOUNT);
    let tags = cloud.http("GET", &format!("{path}/script-settings"), &Value::Null)["result"]["tags"].clone();
    let late = |tag: &Value| match tag.as_str() {
        Some(tag) if tag.starts_with("expires-") => json!("expires-1000000000"),
        _ => tag.clone(),
    };
    let tags: Vec<Value> = tags.as_array().expect("tags").iter().map(late).collect();
    assert_eq!(cloud.http("PATCH", &format!("{path}/script-settings"), &json!({"tags": tags}))["success"], true);
    assert_eq!(list(&cloud, &project)[1]["expired"], true);
    let text = cloud.run(&project, &["preview", "list"]).exits(0).stdout;
    assert!(
        text.contains("expired 2001-09-09") && text.contains("  bluebird  ") && text.starts_with("preview  "),
        "{text}"
    );
    let removed = cloud.run(&project, &["preview", "down", "--expired", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!(removed["removed"], json!(["old"]));
    assert_eq!(list(&cloud, &project).len(), 1);
    let none = cloud.run(&project, &["preview", "down", "--expired", "--yes"]).exits(0);
    assert_eq!(none.stdout, "there is no preview to remove\n");
}

#[test]
fn a_removal_that_was_interrupted_is_finished_by_the_next() {
    let project = three();
    let cloud = Cloud::start();
    let before = content(&cloud);
    up(&cloud, &project, &[]).exits(0);
    // Of each kind of request, the first one is refused once.
    for (method, path) in
        [("DELETE", "/workers/domains/"), ("DELETE", "/d1/database/"), ("DELETE", "/workers/scripts/")]
    {
        cloud.faults(&json!([{"match": {"method": method, "path": path}, "times": 1, "do": {"status": 403}}]));
        std::fs::remove_dir_all(project.path(".flotilla/previews")).unwrap();
        let down = cloud.run(&project, &["preview", "down", "--id", "7", "--yes", "--format", "json"]);
        assert_eq!((down.code, &down.json()["left"]), (4, &json!(["7"])), "{path}: {down:?}");
        cloud.clear_faults();
        assert!(!list(&cloud, &project).is_empty(), "{path}");
        up(&cloud, &project, &[]).exits(0);
    }
    cloud.run(&project, &["preview", "down", "--id", "7", "--yes"]).exits(0);
    as_before(&before, &content(&cloud), "at the end");
}

#[test]
fn nobody_elses_workers_are_touched() {
    let project = three();
    let cloud = Cloud::start();
    up(&cloud, &project, &["bluebird"]).exits(0);
    let other = three();
    other.edit("fleet.yaml", "name: test", "name: tests");
    other.edit("customers/bluebird.yaml", "bluebird.example.com", "bluebird.example.org");
    // The same name, of another fleet.
    let refused = up(&cloud, &other, &["bluebird"]).exits(5);
    assert!(
        refused
            .stderr
            .contains("the worker t-bluebird-preview-7 belongs to the fleet test.preview-7; nothing was sent"),
        "{refused:?}"
    );
    assert!(list(&cloud, &other).is_empty());
    let before = content(&cloud);
    for which in [&["--id", "7"][..], &["--all"], &["--expired"]] {
        cloud.run(&other, &[&["preview", "down", "--yes"], which].concat()).exits(0);
    }
    assert_eq!(content(&cloud), before);
}

#[test]
fn hosts_of_a_dispatch_namespace_go_with_the_preview() {
    let project = fleet(&[("acme", "domains: [acme.example.com, www.acme.example]\n")]);
    project.write(
        "fleet.yaml",
        format!(
            "{PACK}{QUIET}accounts:\n  default:\n    id: {{ env: CLOUDFLARE_ACCOUNT_ID }}\n    token: {{ secret: CLOUDFLARE_API_TOKEN }}\n    \
             dispatchNamespace: shops\n    dispatch: {{ worker: front }}\nsharedWorkers: {{ front: {{ domains: [front.example.com] }} }}\n"
        ),
    );
    let cloud = Cloud::start();
    let namespaces = format!("/client/v4/accounts/{}/workers/dispatch/namespaces", crate::fleet::ACCOUNT);
    assert_eq!(cloud.http("POST", &namespaces, &json!({"name": "shops"}))["success"], true);
    cloud.deployed(&project);
    cloud.engine(&project).rebuild();
    let before = content(&cloud);
    assert_eq!(before["kv"].len(), 2);
    let report = up(&cloud, &project, &[]).exits(0).json();
    assert_eq!((&report["applied"], report["workers"].as_array().unwrap().len()), (&json!(1), 1), "{report}");
    assert_eq!(content(&cloud)["kv"].len(), 4);
    let hosts = json!(["acme-preview-7.example.com", "www-preview-7.acme.example"]);
    assert_eq!(list(&cloud, &project)[0]["hosts"], hosts);
    std::fs::remove_dir_all(project.path(".flotilla/previews")).unwrap();
    cloud.take();
    let removed = cloud.run(&project, &["preview", "down", "--id", "7", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!((&removed["hosts"], &removed["workers"]), (&json!(2), &json!(1)), "{removed}");
    let sent: Vec<String> = cloud.take().into_iter().map(|request| request.what).collect();
    let at =
        |what: &str| sent.iter().position(|sent| sent.contains(what)).unwrap_or_else(|| panic!("{what}: {sent:?}"));
    assert!(at("/bulk/delete") < at("DELETE dispatch"), "{sent:?}");
    let after = content(&cloud);
    for (table, rows) in &before {
        assert_eq!(&after[table], rows, "{table}");
    }
}

/// A worker that tells its name, and those of all whose addresses it is given.
const ASKING: &str = "export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === '/health') return Response.json({ status: env.SICK ?? 'healthy', digest: env.FLOTILLA_DIGEST });
    if (pathname === '/who') return new Response(env.WHO);
    const asked = {};
    for (const [name, value] of Object.entries(env)) {
      if (name.endsWith('_URL')) asked[name] = await (await fetch(`${value}/who`)).text();
      if (name.endsWith('_SERVICE')) asked[name] = await (await value.fetch('https://service/who')).text();
    }
    return Response.json(asked);
  },
};
";

/// What the pack expects of a healthy worker.
const HEALTH: &str = "verify: [{ name: health, path: /health, json: { status: healthy, digest: '{digest}' } }]\n";

fn asking(project: &Project) {
    let build = "import { mkdirSync, copyFileSync, writeFileSync } from 'node:fs';\n\
                 const out = process.argv.at(-1);\nmkdirSync(out, { recursive: true });\n\
                 copyFileSync('worker.js', `${out}/runtime.js`);\nwriteFileSync(`${out}/runtime.d.ts`, 'export default {};\\n');\n";
    project
        .write("packs/tiny/worker.js", ASKING)
        .write("packs/tiny/build.mjs", build)
        .write("packs/tiny/index.ts.tera", "export { default } from \"{{ runtime }}\";\n")
        .edit("packs/tiny/pack.yaml", "sources: [build.mjs]", &format!("sources: [build.mjs, worker.js]\n{HEALTH}"));
}

#[test]
fn three_workers_of_a_preview_call_each_other_in_workerd() {
    let studio = STUDIO
        .replace("vars: { AUTH_WORKER_URL", "vars: { WHO: web, AUTH_WORKER_URL")
        .replace(
            "vars: { WEB_APP_URL: { workerUrl: web }, AUTH",
            "vars: { WHO: api, WEB_APP_URL: { workerUrl: web }, AUTH",
        )
        .replace(
            "vars: { WEB_APP_URL: { workerUrl: web }, API",
            "services: { LOG_SERVICE: log }\n    vars: { WHO: auth, WEB_APP_URL: { workerUrl: web }, API",
        )
        .replace("  staging: { logLevel: debug, crons: ['* * * * *'] }\n", "");
    let project = fleet(&[("codex", &studio)]);
    asking(&project);
    project.write("fleet.yaml", format!("{PACK}sharedWorkers: {{ log: {{ workersDev: false, domains: [log.example.com], vars: {{ WHO: log }} }} }}\n"));
    let cloud = Cloud::with_workerd();
    cloud.deployed(&project);
    cloud.engine(&project).rebuild();
    let before = content(&cloud);
    let summary = project.path("preview.md");
    let report = up(&cloud, &project, &["--summary", summary.to_str().expect("a path")]).exits(0).json();
    let rows = report["workers"].as_array().expect("workers");
    assert!(rows.len() == 4 && rows.iter().all(|row| row["health"] == "healthy"), "{report}");
    let origin = cloud.base().replace("/client/v4", "");
    let http = flotilla_http::builder().no_proxy().build().expect("a client");
    let ask = |host: &str| -> Value {
        let answer = http.get(format!("{origin}/ask")).header("host", host).send().expect("an answer");
        answer.json().unwrap_or_else(|error| panic!("{host}: {error}"))
    };
    let of_preview = |name: &str| ask(&format!("{name}-preview-7.revelations.example"));
    // The preview's and nobody else's: of the workers outside it, none knows these names.
    assert_eq!(of_preview("codex"), json!({"AUTH_WORKER_URL": "auth", "API_URL": "api"}));
    assert_eq!(of_preview("api"), json!({"WEB_APP_URL": "web", "AUTH_WORKER_URL": "auth"}));
    assert_eq!(of_preview("auth"), json!({"WEB_APP_URL": "web", "API_URL": "api", "LOG_SERVICE": "log"}));
    // And its calls went to the preview's workers.
    let seen = workers(&project, Environment::Staging, None, &["codex"]);
    let addresses: Vec<&Value> = seen
        .values()
        .flat_map(|one| one.vars.iter())
        .filter(|(name, _)| name.ends_with("_URL"))
        .map(|(_, value)| value)
        .collect();
    assert!(
        addresses.len() == 6
            && addresses.iter().all(|value| value.as_str().is_some_and(|url| url.contains("-preview-7.")))
    );
    let page = project.read("preview.md");
    assert!(
        page.contains("### Preview 7") && page.contains("| https://codex-preview-7.revelations.example/ |"),
        "{page}"
    );
    // What is uploaded and doesn't get well in time is told.
    project.edit("fleet.yaml", "packs:", "deploy: { health: { deadlineSeconds: 2 } }\npacks:");
    project.edit("customers/codex.yaml", "WHO: api,", "WHO: api, SICK: degraded,");
    let report = up(&cloud, &project, &[]).exits(4).json();
    assert_eq!((&report["applied"], &report["unhealthy"]), (&json!(1), &json!(1)), "{report}");
    cloud.run(&project, &["preview", "down", "--id", "7", "--yes"]).exits(0);
    let after = content(&cloud);
    for (table, rows) in &before {
        assert_eq!(&after[table], rows, "{table}");
    }
}

#[test]
fn a_preview_is_tried_out_on_this_machine() {
    let project = fleet(&[("acme", "vars: { WHO: acme }\ndatabase: { type: d1, name: acme }\n")]);
    asking(&project);
    let run = |more: &[&str]| {
        let cache = crate::fleet::cache();
        let environment = [("FLOTILLA_CACHE_DIR", cache.to_str().expect("a path"))];
        project.run_with(&[&["preview"], more, &["--local", "--format", "json"]].concat(), &environment).exits(0).json()
    };
    let report = run(&["up", "--id", "try"]);
    let row = &report["workers"][0];
    assert_eq!((&row["health"], &row["worker"]), (&json!("healthy"), &json!("t-acme-preview-try")), "{report}");
    assert!(
        row["address"].as_str().is_some_and(|url| url.starts_with("http://t-acme-preview-try.localhost:")),
        "{row}"
    );
    assert_eq!(run(&["list"])["previews"][0]["id"], "try");
    assert!(!project.path("out").exists() && !project.path(".flotilla/local/state.db").exists());
    let removed = run(&["down", "--id", "try"]);
    assert_eq!((&removed["workers"], &removed["databases"]), (&json!(1), &json!(1)), "{removed}");
    assert_eq!(run(&["list"])["previews"], json!([]));
}

/// Nothing stays of a preview: all tables are as they were, but for accounts and zones, which come into being when they are named.
#[track_caller]
fn as_before(before: &BTreeMap<String, BTreeSet<String>>, after: &BTreeMap<String, BTreeSet<String>>, when: &str) {
    for (table, rows) in before.iter().filter(|(table, _)| !["account", "zone"].contains(&table.as_str())) {
        assert_eq!(&after[table], rows, "{table} {when}");
    }
}

/// Runs a command that is killed after so many requests; how it ended, if it came to its end.
fn killed_after(cloud: &Cloud, project: &Project, arguments: &[&str], most: usize) -> Option<ExitStatus> {
    cloud.take();
    let mut child = spawn(&mut cloud.command(project, arguments));
    let over = loop {
        if let Some(status) = child.try_wait().expect("a process") {
            break Some(status);
        }
        if cloud.requests().len() >= most {
            child.kill().expect("it is killed");
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    // What was in flight arrives all the same.
    let mut before = 0;
    until("what was in flight has arrived", || {
        std::thread::sleep(Duration::from_millis(60));
        let now = cloud.requests().len();
        std::mem::replace(&mut before, now) == now
    });
    over
}

#[test]
fn a_removal_that_was_killed_is_finished_by_another_machine() {
    let project = three();
    let cloud = Cloud::start();
    let before = content(&cloud);
    let mut killed = 0;
    for most in 3.. {
        up(&cloud, &project, &[]).exits(0);
        cloud.faults(&json!([{"match": {}, "times": 1_000_000, "do": {"delay_ms": 15}}]));
        let over = killed_after(&cloud, &project, &["preview", "down", "--id", "7", "--yes"], most);
        cloud.clear_faults();
        let _ = std::fs::remove_dir_all(project.path(".flotilla/previews"));
        cloud.run(&project, &["preview", "down", "--id", "7", "--yes"]).exits(0);
        as_before(&before, &content(&cloud), &format!("after {most} requests"));
        if let Some(status) = over {
            assert!(status.success());
            break;
        }
        killed += 1;
    }
    assert!(killed >= 6, "only {killed} were killed");
}

#[test]
fn a_preview_that_was_killed_while_it_came_up_goes_without_a_trace() {
    let project = three();
    let cloud = Cloud::start();
    let before = content(&cloud);
    cloud.faults(&json!([{"match": {}, "times": 1_000_000, "do": {"delay_ms": 15}}]));
    let mut killed = 0;
    for most in 2.. {
        let over = killed_after(&cloud, &project, &["preview", "up", "--id", "7", "--yes"], most);
        if most % 2 == 0 {
            // Another machine takes it down.
            let _ = std::fs::remove_dir_all(project.path(".flotilla/previews"));
        }
        cloud.run(&project, &["preview", "down", "--id", "7", "--yes"]).exits(0);
        as_before(&before, &content(&cloud), &format!("after {most} requests"));
        assert!(!project.path(".flotilla/previews/7").exists());
        if let Some(status) = over {
            assert!(status.success());
            break;
        }
        killed += 1;
    }
    assert!(killed >= 6, "only {killed} were killed");
}

#[test]
fn nothing_selected_is_nothing_put_up_and_nothing_removed_is_told() {
    let project = three();
    let cloud = Cloud::start();
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        output(Command::new("git").args(name).args(arguments).current_dir(project.root())).exits(0)
    };
    project.write(".gitignore", "/out/\n/.flotilla/\n");
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    let report = up(&cloud, &project, &["--since", "HEAD"]).exits(0).json();
    assert_eq!((&report["applied"], &report["workers"]), (&json!(0), &json!([])), "{report}");
    project.edit("customers/cafe.yaml", "cafe.example.com", "cafes.example.com");
    assert_eq!(up(&cloud, &project, &["--since", "HEAD"]).exits(0).json()["workers"][0]["customer"], "cafe");
    // One without them, and what was there goes.
    git(&["commit", "--quiet", "-am", "two"]);
    let report = up(&cloud, &project, &["--since", "HEAD"]).exits(0).json();
    assert_eq!((&report["applied"], &report["workers"]), (&json!(1), &json!([])), "{report}");
    assert!(list(&cloud, &project).is_empty());
    // A shared worker that is changed itself belongs to it, though nobody refers to it.
    let with = |host: &str| {
        project.write(
            "fleet.yaml",
            format!("{PACK}{QUIET}sharedWorkers: {{ auth: {{ domains: [{host}] }}, log: {{}} }}\n"),
        );
    };
    with("auth.example.com");
    git(&["commit", "--quiet", "-am", "three"]);
    with("login.example.com");
    let report = up(&cloud, &project, &["--since", "HEAD"]).exits(0).json();
    assert_eq!(report["workers"][0]["worker"], "test-auth-preview-7", "{report}");
    assert_eq!(report["workers"].as_array().map(Vec::len), Some(1));
    assert!(
        up(&cloud, &project, &["--since", "HEAD", "-l", "!tier"]).exits(0).json()["workers"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    cloud.take();
    let asked = cloud.run(&project, &["preview", "up", "--id", "8", "cafe"]).exits(5);
    assert!(
        asked.stderr.contains("nothing was changed (deploy the preview 8, 1 change?)")
            && asked.stderr.contains("pass --yes"),
        "{asked:?}"
    );
    assert_eq!(cloud.sent(), Vec::<String>::new());
    let none = cloud.run(&project, &["preview", "down", "--id", "other", "--yes"]).exits(0);
    assert_eq!(none.stdout, "there is no preview to remove\n");
    for wrong in [&["up", "--yes"][..], &["up", "--id", "A"], &["up", "--id", "../x"], &["down", "--all", "--expired"]]
    {
        cloud.run(&project, &[&["preview"], wrong].concat()).exits(2);
    }
}
