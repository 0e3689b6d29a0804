//! Shows: what is in the cloud is found and believed: a machine without a state deploys only what changed, what others
//! did is found, what isn't ours is neither overwritten nor deleted, and the state can be made anew.

use std::path::PathBuf;

use flotilla_deploy::deploy::Outcome;
use flotilla_deploy::refresh::What;
use flotilla_engine::deploy_fleet::DeployRequest;
use flotilla_model::failure::Exit;
use flotilla_model::reason::Reason;
use reqwest::Method;
use serde_json::{Value, json};

use crate::engine::{Engine, customers, names, reasons};
use crate::support::{Project, Run};
use crate::tools::Local;

/// The account of the fleet.
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
/// The zone's routes lie in it.
const ZONE: &str = "acme.test";

/// A fleet and the Cloudflare that it is deployed to, which lies in another project: the fleet's own folder gets lost.
struct World {
    fleet: Project,
    cloud: Local,
    elsewhere: Project,
}

impl World {
    /// A fleet of these customers.
    fn new(customers: &[&str]) -> World {
        let fleet = Project::empty();
        for customer in customers {
            fleet.write(&format!("customers/{customer}.yaml"), format!("id: {customer}\n"));
        }
        let elsewhere = Project::empty();
        let cloud = Local::start(&elsewhere, None);
        World { fleet, cloud, elsewhere }
    }

    /// `acme` with all kinds of triggers, and two customers without any.
    fn three() -> World {
        let world = World::new(&["acme", "bee", "cat"]);
        world.fleet.write(
            "customers/acme.yaml",
            format!(
                "id: acme\ndomains: [consent.acme.example]\nroutes: [{{ pattern: consent.{ZONE}/*, zone: {ZONE} }}]\n\
                 crons: ['*/5 * * * *']\n"
            ),
        );
        world
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let base = format!("{}/client/v4", self.cloud.origin);
        let variables = [
            ("CLOUDFLARE_API_BASE_URL", base.as_str()),
            ("CLOUDFLARE_API_TOKEN", "t"),
            ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT),
        ];
        self.fleet.run_with(arguments, &variables)
    }

    /// The engine for the fleet and its Cloudflare.
    #[track_caller]
    fn engine(&self) -> Engine<'_> {
        Engine::new(&self.fleet, &format!("{}/client/v4", self.cloud.origin))
    }

    /// Deploys what a refresh finds to be otherwise, these workers adopted; what was done.
    #[track_caller]
    fn refreshed(&self, adopt: &[&str]) -> Outcome {
        let change = |request: &mut DeployRequest<'_>| {
            request.plan.refresh = true;
            request.plan.adopt = names(adopt);
        };
        self.engine().deploy_with(change).exits(Exit::Done).outcome()
    }

    /// Asserts that without asking the platform there is nothing to do.
    #[track_caller]
    fn has_no_changes(&self) {
        let planned = self.engine().plan();
        assert!(planned.plan.is_empty(), "{:#?}", planned.plan);
    }

    /// Deploys with a refresh; what was done, and the requests that it made.
    #[track_caller]
    fn requests(&self) -> (Outcome, Vec<String>) {
        self.requests_of(|| self.refreshed(&[]))
    }

    /// Does something; what it gave, and the requests that it made.
    #[track_caller]
    fn requests_of<T>(&self, run: impl FnOnce() -> T) -> (T, Vec<String>) {
        let before = self.cloud.journal().len();
        let outcome = run();
        let requests = self.cloud.journal().split_off(before);
        let short = |request: String| request.replace(&format!("/client/v4/accounts/{ACCOUNT}"), "");
        (outcome, requests.into_iter().map(short).collect())
    }

    fn deploy(&self) {
        let outcome = self.engine().deploy().exits(Exit::Done).outcome();
        assert!(outcome.is_complete(), "{outcome:?}");
    }

    fn state(&self) -> PathBuf {
        let folder = self.fleet.path(".flotilla");
        let files = std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path());
        files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "db")).expect("a state")
    }

    /// Another machine: the same files, and nothing on record.
    fn forget(&self) {
        std::fs::remove_dir_all(self.fleet.path(".flotilla")).expect("what is on record");
    }

    /// The findings of `plan --refresh`, as kind and worker.
    fn findings(&self) -> Vec<(String, String)> {
        let planned = self.engine().plan_with(|request| request.refresh = true);
        let kind = |what: &What| json!(what)["finding"].as_str().expect("a kind").to_owned();
        planned.findings.iter().map(|finding| (kind(&finding.what), finding.worker.clone())).collect()
    }

    fn script(worker: &str) -> String {
        format!("/accounts/{ACCOUNT}/workers/scripts/{worker}")
    }

    /// Uploads something else under a worker's name, as another tool would.
    fn overwrite(&self, worker: &str, tags: Option<Value>) {
        let mut metadata = json!({"main_module": "other.js", "compatibility_date": "2026-06-01"});
        if let Some(tags) = tags {
            metadata["tags"] = tags;
        }
        let code = "export default { fetch: () => new Response('other') };";
        self.cloud.upload(&World::script(worker), &metadata, "other.js", code);
    }

    /// What the cloud has of a worker.
    fn listed(&self, worker: &str) -> Option<Value> {
        let list = self.cloud.api(&format!("/accounts/{ACCOUNT}/workers/scripts"));
        list.as_array().expect("a list").iter().find(|one| one["id"] == worker).cloned()
    }

    fn attach(&self, domain: &str, worker: &str) {
        let body = json!({"hostname": domain, "service": worker});
        self.cloud.call(Method::PUT, &format!("/accounts/{ACCOUNT}/workers/domains"), Some(body));
    }

    fn holder(&self, domain: &str) -> Option<String> {
        let list = self.cloud.api(&format!("/accounts/{ACCOUNT}/workers/domains?hostname={domain}"));
        list[0]["service"].as_str().map(str::to_owned)
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, worker)| ((*kind).to_owned(), (*worker).to_owned())).collect()
}

#[test]
fn a_machine_without_a_state_deploys_only_what_changed() {
    let world = World::three();
    world.deploy();
    // All triggers were set after the uploads; from now on each upload knows that they are there.
    world.fleet.edit("customers/acme.yaml", "id: acme", "id: acme\nvars: { A: one }");
    world.deploy();

    world.forget();
    let (outcome, requests) = world.requests();
    assert_eq!((outcome.applied, outcome.requests), (0, 0));
    // bee and cat were uploaded with their workers.dev address still to come.
    let asked = |name: &str| requests.iter().filter(|request| request.contains(name)).count();
    assert_eq!(asked("PUT") + asked("POST") + asked("DELETE"), 0, "{requests:#?}");
    assert_eq!(asked("scripts/c15t-acme"), 0, "its tag says it all: {requests:#?}");
    for worker in ["c15t-bee", "c15t-cat"] {
        // Its triggers, and its tags once more before they are replaced.
        assert_eq!(asked(&format!("GET /workers/scripts/{worker}")), 3, "{requests:#?}");
        assert_eq!(asked(&format!("PATCH /workers/scripts/{worker}/script-settings")), 1, "{requests:#?}");
    }
    assert_eq!(requests.len(), 12, "workers, domains, the zone and its routes; and two tags: {requests:#?}");
    // Who asked has told what the answer was: the next machine doesn't ask again.
    world.forget();
    let (outcome, requests) = world.requests();
    assert_eq!((outcome.applied, outcome.requests), (0, 0));
    assert_eq!(requests.len(), 4, "{requests:#?}");

    // Another machine again, and one change.
    world.forget();
    world.fleet.write("customers/bee.yaml", "id: bee\nvars: { A: two }\n");
    let (outcome, requests) = world.requests();
    assert_eq!((outcome.applied, outcome.requests), (1, 2), "one list of strangers, one upload");
    let put = "PUT /workers/scripts/c15t-bee";
    assert_eq!(requests.len(), 6, "{requests:#?}");
    assert!(requests.last().is_some_and(|request| request == put), "{requests:#?}");
    // And what it has on record is what the first machine had.
    let shown = world.run(&["state", "show", "acme", "--format", "json"]).exits(0).json();
    let acme = &shown["workers"][0];
    assert_eq!(acme["domains"], json!(["consent.acme.example"]), "{acme}");
    assert_eq!(acme["routes"], json!([format!("consent.{ZONE}/*")]), "{acme}");
    assert_eq!((&acme["crons"], &acme["workers_dev"]), (&json!(["*/5 * * * *"]), &json!(true)), "{acme}");
    assert_eq!(acme["account"], "01234567…");
    world.has_no_changes();
}

#[test]
fn a_fleet_without_triggers_takes_one_list_and_what_changed() {
    let world = World::new(&["acme", "bee", "cat"]);
    world.fleet.write(
        "fleet.yaml",
        "name: test\npacks:\n  consent: { path: templates/consent }\naccounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    \
         token: { secret: CLOUDFLARE_API_TOKEN }\n    dispatchNamespace: fleet\n",
    );
    let namespaces = format!("/accounts/{ACCOUNT}/workers/dispatch/namespaces");
    world.cloud.call(Method::POST, &namespaces, Some(json!({"name": "fleet"})));
    let ((), requests) = world.requests_of(|| world.deploy());
    assert_eq!(requests.len(), 7, "one list, three looks, three uploads: {requests:#?}");
    world.forget();
    world.fleet.write("customers/bee.yaml", "id: bee\nlogLevel: debug\n");
    let (outcome, requests) = world.requests();
    assert_eq!((outcome.applied, outcome.requests), (1, 2), "one list of strangers, one upload");
    let list = "GET /workers/dispatch/namespaces/fleet/scripts";
    let put = "PUT /workers/dispatch/namespaces/fleet/scripts/c15t-bee";
    assert_eq!(requests, [list, list, put]);
}

#[test]
fn plan_asks_and_changes_nothing() {
    let world = World::three();
    world.deploy();
    let before = std::fs::read(world.state()).unwrap();
    world.cloud.call(Method::DELETE, &World::script("c15t-cat"), None);
    let plan = world.run(&["plan", "--refresh", "--format", "json"]).exits(0).json();
    assert_eq!(plan["changes"][0]["reasons"][0], "it is no longer at Cloudflare", "{plan}");
    assert_eq!(std::fs::read(world.state()).unwrap(), before);
    // Without asking, nobody knows.
    world.has_no_changes();
    let (outcome, requests) = world.requests();
    assert_eq!(outcome.applied, 1);
    assert!(requests.contains(&"PUT /workers/scripts/c15t-cat".to_owned()), "{requests:#?}");
    assert_eq!(world.findings(), pairs(&[]));
}

#[test]
fn a_state_from_last_week_is_brought_up_to_date() {
    let world = World::three();
    world.deploy();
    let last_week = std::fs::read(world.state()).unwrap();
    let shown = |world: &World| world.run(&["state", "show", "--format", "json"]).exits(0).json()["workers"].clone();
    world.fleet.write("customers/bee.yaml", "id: bee\nvars: { A: two }\n");
    world.fleet.edit("customers/acme.yaml", "consent.acme.example", "privacy.acme.example");
    std::fs::remove_file(world.fleet.path("customers/cat.yaml")).unwrap();
    world.engine().deploy_with(|request| request.plan.prune = true).exits(Exit::Done);
    let now = shown(&world);
    let state = world.state();
    for file in [state.with_extension("db-wal"), state.with_extension("db-shm")] {
        let _ = std::fs::remove_file(file);
    }
    std::fs::write(&state, &last_week).unwrap();
    let expected = pairs(&[("missing", "c15t-cat"), ("domain_gone", "c15t-acme"), ("deployed_elsewhere", "c15t-bee")]);
    assert_eq!(world.findings(), expected);
    // It all is as it should be, and so nothing is sent; the record is right again.
    assert_eq!(world.refreshed(&[]).requests, 0);
    let strip = |rows: Value| {
        let mut rows = rows.as_array().expect("a list").clone();
        for row in &mut rows {
            // Whose values another machine uploaded, nobody knows; and its clock isn't this one's.
            row.as_object_mut().expect("a row").retain(|key, _| !["deployed_at", "secrets"].contains(&key.as_str()));
        }
        rows
    };
    assert_eq!(strip(shown(&world)), strip(now));
    assert_eq!(world.findings(), pairs(&[]));
}

#[test]
fn what_others_changed_is_put_right() {
    let world = World::three();
    world.deploy();
    let digest = |world: &World| world.listed("c15t-bee").unwrap()["etag"].clone();
    let ours = digest(&world);
    world.overwrite("c15t-bee", None);
    world.overwrite("c15t-cat", Some(json!([])));
    assert_eq!(world.findings(), pairs(&[("changed", "c15t-bee"), ("changed", "c15t-cat")]));
    let text = world.run(&["plan", "--refresh"]).exits(0).stdout;
    assert!(text.contains("c15t-bee was changed outside flotilla at 2"), "{text}");
    let outcome = world.refreshed(&[]);
    assert_eq!((outcome.applied, outcome.requests), (2, 4), "one list, and a look at the one that lost its tags");
    assert_eq!(digest(&world), ours);
    assert_eq!(world.findings(), pairs(&[]));

    // Found by one run and put right by a later one, which doesn't ask.
    world.overwrite("c15t-bee", None);
    let rebuilt = world.engine().rebuild();
    assert_eq!(rebuilt.number(|what| matches!(what, What::Changed { .. })), 1, "{:?}", rebuilt.findings);
    let planned = world.engine().plan();
    let [("c15t-bee", [reason])] = reasons(&planned.plan)[..] else { panic!("{:#?}", planned.plan) };
    assert!(matches!(reason, Reason::ChangedOutside { at, .. } if at.starts_with('2')), "{reason:?}");
    assert!(reason.to_string().starts_with("it was changed outside flotilla at 2"), "{reason}");
    let shown = world.run(&["state", "show", "bee"]).exits(0).stdout;
    assert!(shown.contains("changed outside flotilla"), "{shown}");
    world.deploy();
    assert_eq!(world.findings(), pairs(&[]));
}

#[test]
fn a_worker_of_others_is_not_overwritten_unless_it_is_adopted() {
    let world = World::three();
    world.overwrite("c15t-bee", None);
    world.overwrite("c15t-cat", Some(json!(["flotilla-else"])));
    // It looks before it creates.
    let refused = world.run(&["deploy", "--yes"]).exits(5);
    assert!(
        refused.stderr.contains("2 resources are not managed by this fleet; nothing was sent"),
        "{}",
        refused.stderr
    );
    assert!(world.listed("c15t-acme").is_none());
    // Asked for, it tells before, and leaves alone what isn't ours.
    let run = world.run(&["deploy", "--refresh", "--yes"]).exits(0);
    assert!(run.stderr.contains("c15t-bee exists, but this fleet doesn't manage it"), "{}", run.stderr);
    assert!(run.stderr.contains("c15t-cat belongs to the fleet else"), "{}", run.stderr);
    let tags = |worker: &str| world.listed(worker).unwrap()["tags"].clone();
    assert_eq!((tags("c15t-bee"), tags("c15t-cat")), (json!([]), json!(["flotilla-else"])));
    assert!(world.listed("c15t-acme").is_some(), "the others go on");
    let refused = world.run(&["deploy", "--yes", "bee"]).exits(5);
    assert!(refused.stderr.contains("--adopt c15t-bee"), "{}", refused.stderr);
    assert_eq!(tags("c15t-bee"), json!([]));
    let adopting = |request: &mut DeployRequest<'_>| {
        request.plan.selection = customers(&["bee"]);
        request.plan.adopt = names(&["c15t-bee"]);
    };
    assert_eq!(world.engine().deploy_with(adopting).exits(Exit::Done).outcome().applied, 1);
    assert_eq!(tags("c15t-bee")[0], "flotilla-test");
    assert_eq!(world.refreshed(&["c15t-cat"]).applied, 1);
    assert_eq!(tags("c15t-cat")[0], "flotilla-test");
    assert_eq!(world.findings(), pairs(&[]));
}

#[test]
fn a_domain_of_others_is_not_taken_unless_the_spec_says_so() {
    let world = World::three();
    world.overwrite("dashboard", None);
    world.attach("consent.acme.example", "dashboard");
    let refused = world.run(&["deploy", "--yes"]).exits(5);
    assert!(refused.stderr.contains("points to dashboard, which this fleet doesn't manage"), "{}", refused.stderr);
    assert!(world.listed("c15t-bee").is_none(), "nothing was sent");
    world.fleet.edit(
        "customers/acme.yaml",
        "[consent.acme.example]",
        "[{ name: consent.acme.example, takeOver: true }]",
    );
    world.deploy();
    assert_eq!(world.holder("consent.acme.example").as_deref(), Some("c15t-acme"));
    world.has_no_changes();
    // Somebody takes it back. Without asking nobody knows; asked, it is told and taken again.
    let id =
        world.cloud.api(&format!("/accounts/{ACCOUNT}/workers/domains?hostname=consent.acme.example"))[0]["id"].clone();
    let path = format!("/accounts/{ACCOUNT}/workers/domains/{}", id.as_str().unwrap());
    let _ = world.cloud.request(Method::DELETE, "127.0.0.1", &format!("/client/v4{path}")).bearer_auth("t").send();
    world.attach("consent.acme.example", "dashboard");
    assert_eq!(world.findings(), pairs(&[("domain_held", "c15t-acme"), ("domain_moved", "c15t-acme")]));
    assert_eq!(world.refreshed(&[]).applied, 1);
    assert_eq!(world.holder("consent.acme.example").as_deref(), Some("c15t-acme"));
}

#[test]
fn orphans_are_found_and_pruned_within_limits() {
    let world = World::three();
    world.deploy();
    world.forget();
    for customer in ["acme", "cat"] {
        std::fs::remove_file(world.fleet.path(&format!("customers/{customer}.yaml"))).unwrap();
    }
    // A spec with errors holds its worker, also where the record doesn't know whose it is.
    world.fleet.write("customers/acme.yaml", "id: acme\nnonsense: 1\n");
    let kinds = || -> Vec<(String, String)> {
        world.findings().into_iter().filter(|(kind, _)| kind != "deployed_elsewhere").collect()
    };
    assert_eq!(kinds(), pairs(&[("orphan", "c15t-cat")]));
    let run = world.run(&["prune", "--yes", "--format", "json"]);
    assert_eq!(run.json()["applied"], 1, "{run:?}");
    assert!(world.listed("c15t-cat").is_none() && world.listed("c15t-acme").is_some());

    // Gone as a whole, its domain and route are orphans as well: whoever takes the worker's name has them.
    std::fs::remove_file(world.fleet.path("customers/acme.yaml")).unwrap();
    let expected = pairs(&[("orphan", "c15t-acme")]);
    assert_eq!(kinds(), expected, "no spec has a domain, and so a plan doesn't look for any");
    world.fleet.write(
        "customers/bee.yaml",
        format!("id: bee\ndomains: [bee.example]\nroutes: [{{ pattern: bee.{ZONE}/*, zone: {ZONE} }}]\n"),
    );
    let expected = pairs(&[("orphan", "c15t-acme"), ("orphaned_domain", "c15t-acme"), ("orphaned_route", "c15t-acme")]);
    assert_eq!(kinds(), expected);
    // Deleted under its own hands by somebody, and its domain forgotten.
    world.attach("lost.acme.example", "c15t-acme");
    assert_eq!(world.engine().prune(false).exits(Exit::Done).outcome().applied, 1);
    assert!(world.listed("c15t-acme").is_none() && world.holder("lost.acme.example").is_none());
    assert_eq!(kinds(), pairs(&[]));
    let again = world.run(&["prune", "--yes"]).exits(0);
    assert!(!again.stdout.contains("http"), "what stays isn't told: {}", again.stdout);
    // prune does nothing but delete.
    assert_eq!(world.holder("bee.example"), None);
}

#[test]
fn no_more_is_deleted_at_once_than_is_allowed() {
    let world = World::three();
    world.deploy();
    for customer in ["bee", "cat"] {
        std::fs::remove_file(world.fleet.path(&format!("customers/{customer}.yaml"))).unwrap();
    }
    for command in [&["prune", "--yes"][..], &["deploy", "--prune", "--yes"]] {
        let refused = world.run(command).exits(5);
        assert!(
            refused.stderr.contains("the plan deletes 2 workers of 3, but at most 1 may be deleted at once"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("--max-deletions 2"), "{refused:?}");
    }
    assert!(world.listed("c15t-bee").is_some());
    let fleet = world.fleet.read("fleet.yaml");
    world.fleet.write("fleet.yaml", format!("{fleet}deploy: {{ maxDeletions: {{ count: 0 }} }}\n"));
    let refused = world.engine().prune(false).failure(Exit::Refused);
    assert!(refused.to_string().contains("but at most 0 may be deleted at once"), "{refused}");
    world.fleet.write("fleet.yaml", format!("{fleet}deploy: {{ maxDeletions: {{ percent: 70 }} }}\n"));
    assert_eq!(world.engine().prune(false).exits(Exit::Done).outcome().applied, 2);
    assert!(world.listed("c15t-bee").is_none() && world.listed("c15t-acme").is_some());
}

#[test]
fn domains_and_routes_that_lead_nowhere_are_removed_on_request() {
    let world = World::three();
    world.deploy();
    world.overwrite("dashboard", None);
    world.attach("old.acme.example", "dashboard");
    let zone = world.cloud.api(&format!("/zones?name={ZONE}"))[0]["id"].as_str().unwrap().to_owned();
    let body = json!({"pattern": format!("old.{ZONE}/*"), "script": "dashboard"});
    world.cloud.call(Method::POST, &format!("/zones/{zone}/workers/routes"), Some(body));
    // Of a worker that exists it is none of ours.
    assert_eq!(world.findings(), pairs(&[]));
    // The local Cloudflare takes them with the worker. So it gets two whose worker went without them.
    let file = world.elsewhere.path(".flotilla/local/cloudflare.db");
    let db = rusqlite::Connection::open(file).expect("what the local Cloudflare has");
    db.execute("UPDATE domain SET service = 'nobody' WHERE hostname = 'old.acme.example'", []).expect("a domain");
    db.execute("UPDATE route SET script = 'nobody' WHERE pattern LIKE 'old.%'", []).expect("a route");
    let expected = pairs(&[("orphaned_domain", "nobody"), ("orphaned_route", "nobody")]);
    assert_eq!(world.findings(), expected);
    let told = world.run(&["prune", "--yes"]).exits(0);
    assert!(told.stdout.contains("old.acme.example points to nobody, which does not exist"), "{told:?}");
    assert_eq!(world.holder("old.acme.example").as_deref(), Some("nobody"), "told, and left as it is");
    let run = world.run(&["prune", "--domains"]).exits(5);
    assert!(run.stderr.contains("remove these 2?"), "{run:?}");
    let run = world.run(&["prune", "--domains", "--yes"]).exits(0);
    assert!(run.stdout.contains("removed old.acme.example"), "{run:?}");
    assert_eq!(world.findings(), pairs(&[]));
    assert_eq!(world.holder("consent.acme.example").as_deref(), Some("c15t-acme"));
}

#[test]
fn a_state_is_made_anew() {
    let world = World::three();
    world.deploy();
    let shown = |world: &World| world.run(&["state", "show", "--format", "json"]).exits(0).json();
    let before = shown(&world);
    let refused = world.run(&["state", "rebuild"]).exits(5);
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    // A dashboard's change that neither tags nor ETag tell.
    let body = json!({"enabled": false, "previews_enabled": false});
    world.cloud.call(Method::POST, &format!("{}/subdomain", World::script("c15t-bee")), Some(body));
    let rebuilt = world.run(&["state", "rebuild", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!((&rebuilt["workers"], &rebuilt["missing"]), (&json!(3), &json!(0)), "{rebuilt}");
    let after = shown(&world);
    assert_eq!(after["workers"][1]["workers_dev"], false, "{after}");
    assert_eq!(after["workers"][0], before["workers"][0]);
    let planned = world.engine().plan();
    let expected = [Reason::WorkersDev { old: false, new: true }];
    assert_eq!(reasons(&planned.plan), [("c15t-bee", &expected[..])]);
    assert_eq!(expected[0].to_string(), "workers.dev on");
    // A damaged one is moved away first.
    std::fs::write(world.state(), "no database, but long enough for a header, or so one would think".repeat(9))
        .unwrap();
    let run = world.run(&["state", "rebuild", "--yes"]).exits(1);
    assert!(run.stderr.contains("is damaged") && run.stderr.contains("state rebuild"), "{run:?}");
}

#[test]
fn unlock_tells_who_holds_the_lock_and_removes_only_what_is_stale() {
    let project = Project::empty();
    let unlock = || project.run(&["state", "unlock"]);
    assert!(unlock().exits(0).stdout.contains("the lock of deploys is free"));
    let note = |host: &str| {
        format!(
            "{{\"what\":\"deploy\",\"by\":\"ada\",\"host\":\"{host}\",\"process\":7,\"since\":\"2026-11-21T10:00:00Z\",\
             \"command\":\"flotilla deploy \\u001b[31m--all\"}}\n"
        )
    };
    project.write(".flotilla/deploy.lock", note("far-away"));
    let held = unlock().exits(5);
    assert!(held.stdout.contains("held on another host: deploy by ada on far-away, process 7"), "{held:?}");
    assert!(!held.stdout.contains('\u{1b}'), "{held:?}");
    let refused = project.run(&["deploy", "--yes"]).exits(5);
    assert!(refused.stderr.contains("on far-away"), "{refused:?}");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(300);
    std::fs::File::options()
        .write(true)
        .open(project.path(".flotilla/deploy.lock"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    let cleared = unlock().exits(0);
    assert!(cleared.stdout.contains("removed a stale lock file of deploy by ada on far-away"), "{cleared:?}");
    assert_eq!(project.read(".flotilla/deploy.lock"), "");
    assert_eq!(project.run(&["state", "unlock", "--format", "json"]).exits(0).json()["locks"][0]["holder"], "free");
}
