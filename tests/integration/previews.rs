//! Shows: a preview is a fleet of its own beside the one that it is made from; it comes up, changes and goes, and leaves the
//! Cloudflare as it was.

use std::collections::{BTreeMap, BTreeSet};

use flotilla::build;
use flotilla::customer::{Database, Worker};
use flotilla::preview::Preview;
use flotilla::progress::Silent;
use flotilla::spec::Environment;
use flotilla::tree::Tree;
use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use crate::fleet::{Cloud, fleet};
use crate::support::{Project, Run};

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
    let surveyed = build::open_preview(Tree::new(project.root()), &preview, &Silent).and_then(|project| {
        let mut survey = build::survey(&project, false, &Silent)?;
        Ok((survey.workers(&project), survey.diagnostics))
    });
    let (workers, told) = match surveyed {
        Ok(surveyed) => surveyed,
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
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("N0309"), "{told:?}");
}

#[test]
fn destinations_databases_and_environments_are_those_of_a_preview() {
    let project = fleet(&[(
        "acme",
        "database: { type: d1, name: acme_db, id: 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01 }
destinations:
  - { name: all, type: any }
  - { name: live, type: any, environments: [production] }
  - { name: staged, type: any, environment: staging }
  - { name: seen, type: any, environments: [preview, production] }
environments: { production: {}, staging: {} }
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
    assert!(!refused(format!("database: {turso}\nenvironments: {{ staging: {{}} }}\n")));
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
            "domains: [acme.example.com]\ndatabase: { type: d1, name: acme }\nenvironments: { production: {}, staging: { domains: [acme-staging.example.com] } }\n",
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
    cloud.deploy(&project, &[]);
    // What only the first machine knows is asked once, and noted in the tags.
    cloud.run(&project, &["state", "rebuild", "--yes"]).exits(0);
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
    let planned = cloud.run(&project, &["plan", "--refresh", "--format", "json"]).exits(0).json();
    assert_eq!((&planned["changes"], &planned["orphans"]), (&json!([]), &json!([])));
    assert!(planned["findings"].as_array().is_none_or(Vec::is_empty), "{planned}");
    let pruned = cloud.run(&project, &["prune", "--yes", "--domains", "--format", "json"]).exits(0).json();
    assert_eq!(pruned["applied"], 0);
    cloud.run(&project, &["state", "rebuild", "--yes"]).exits(0);
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
