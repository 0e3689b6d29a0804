//! Shows: the sample fleet, deployed to the local Cloudflare and served by real workerd, does what the pack promises:
//! health, the scripts that a consent allows, c15t's API over Turso and D1, CORS; and only what changed is deployed.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use reqwest::blocking::Response;
use serde_json::{Value, json};

use crate::support::Project;
use crate::tools::{Local, json, local_account};

/// A destination: its id, its purpose, and what of its settings must be in the scripts.
type Destination = (&'static str, &'static str, &'static str);

/// The destinations of each worker and what has to be granted for each, read off customers/*.yaml and the vendors'
/// categories by hand: what the program makes of them is held to this.
const WORKERS: &[(&str, &[Destination])] = &[
    (
        "c15t-acme",
        &[
            ("meta-pixel", "marketing", "123456789012345"),
            ("google-analytics", "measurement", "G-ABC123DEF4"),
            ("posthog", "measurement", "phc_acme0000000000000000000000000000"),
        ],
    ),
    ("c15t-bluebird", &[("google-tag-manager", "necessary", "GTM-BLUE123"), ("hotjar", "measurement", "3456789")]),
    ("c15t-cafe-central", &[("matomo-analytics", "measurement", "https://matomo.cafe-central.example/")]),
    ("c15t-driftwood", &[("tiktok-pixel", "marketing", "C4A1B2C3D4E5F6G7H8I9")]),
    ("c15t-evergreen", &[("plausible-analytics", "measurement", "evergreen.example")]),
    (
        "c15t-fjord",
        &[
            ("linkedin-insights", "marketing", "1234567"),
            ("segment", "measurement", "fjordWriteKey0000000000000000000"),
        ],
    ),
    ("c15t-goldfinch", &[("snapchat-pixel", "marketing", "1a2b3c4d-0000-4000-8000-000000000000")]),
    ("c15t-harbour", &[("umami-analytics", "measurement", "5a2f0c1e-7f64-4f1b-9d0a-1f2e3d4c5b6a")]),
    (
        "c15t-iris-optics",
        &[("microsoft-clarity", "measurement", "irisclarity"), ("microsoft-uet", "marketing", "97001234")],
    ),
    ("c15t-juniper", &[("console", "necessary", "console")]),
    (
        "c15t-kestrel",
        &[
            ("meta-pixel", "marketing", "234567890123456"),
            ("google-analytics", "measurement", "G-KES123TREL"),
            ("posthog", "measurement", "phc_kestrel0000000000000000000000000"),
        ],
    ),
    (
        "c15t-kestrel-staging",
        &[
            ("google-analytics", "measurement", "G-KES123TREL"),
            ("posthog", "measurement", "phc_kestrel0000000000000000000000000"),
        ],
    ),
];

/// Five consents: the purposes that each grants.
const CONSENTS: [&[&str]; 5] = [
    &["necessary"],
    &["necessary", "measurement"],
    &["necessary", "marketing"],
    &["functionality", "experience"],
    PURPOSES,
];
const PURPOSES: &[&str] = &["necessary", "measurement", "marketing", "functionality", "experience"];

/// The sample fleet, deployed and served.
struct Fleet {
    project: Project,
    local: Local,
}

/// One for all tests that only ask. No test changes the project or deploys.
fn fleet() -> &'static Fleet {
    static FLEET: OnceLock<Fleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let fleet = serve(true);
        let outcome = fleet.project.run(&["deploy", "--local", "--format", "json"]).exits(0).json();
        assert_eq!((&outcome["applied"], &outcome["failed"]), (&json!(WORKERS.len()), &json!(0)), "{outcome}");
        fleet
    })
}

/// The sample fleet with a local Cloudflare, not deployed yet.
fn serve(shared: bool) -> Fleet {
    let project = Project::sample();
    let local = Local::start(&project, shared.then(|| project.root()));
    // A D1 database has to exist before a worker is bound to it, and Cloudflare gives it its id.
    let path = format!("/accounts/{}/d1/database", local_account());
    let made = local.call(Method::POST, &path, Some(json!({"name": "bluebird-consent"})));
    project.edit("customers/bluebird.yaml", "0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01", made["uuid"].as_str().unwrap());
    Fleet { project, local }
}

/// The path of the scripts for a consent.
fn scripts(consent: &str) -> String {
    let consent: String = consent.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("/analytics/scripts?consent={consent}")
}

/// A header of an answer, empty where it isn't set.
fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn every_worker_is_healthy_and_runs_what_was_deployed() {
    let Fleet { project, local } = fleet();
    let status = project.run(&["status", "--local", "--format", "json"]).exits(0).json();
    let rows = status["workers"].as_array().unwrap();
    let mut names: Vec<&str> = rows.iter().map(|row| row["worker"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, WORKERS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for row in rows {
        let worker = row["worker"].as_str().unwrap();
        let response = local.get(worker, "/health");
        assert_eq!(response.status(), 200, "{worker}");
        let port = local.origin.rsplit(':').next().unwrap();
        assert_eq!(row["url"], format!("http://{worker}.localhost:{port}/"));
        assert_eq!(header(&response, "cache-control"), "no-store");
        let health = json(response);
        assert_eq!(health["status"], "healthy", "{health}");
        assert_eq!((&health["worker"], &health["environment"]), (&row["worker"], &row["environment"]));
        let digest = health["digest"].as_str().unwrap();
        assert_eq!(row["digest"], digest[..16], "{worker}");
        let file = format!(
            "out/{}/{}/wrangler.jsonc",
            row["environment"].as_str().unwrap(),
            row["customer"].as_str().unwrap()
        );
        assert!(project.read(&file).contains(&format!("\"FLOTILLA_DIGEST\": \"{digest}\"")), "{file}");
        let time = humantime::parse_rfc3339(health["timestamp"].as_str().unwrap()).unwrap();
        let off = SystemTime::now().duration_since(time).unwrap_or_else(|early| early.duration());
        assert!(off < Duration::from_secs(60), "{health}");
    }
}

#[test]
fn scripts_are_those_that_the_consent_allows() {
    let local = &fleet().local;
    for (worker, destinations) in WORKERS {
        for granted in CONSENTS {
            // Half of the time a purpose that isn't granted is left out, which says the same as `false`.
            let all = |purpose: &&&str| granted.contains(*purpose) || granted.len() % 2 == 1;
            let consent: BTreeMap<&str, bool> =
                PURPOSES.iter().filter(all).map(|purpose| (*purpose, granted.contains(purpose))).collect();
            let path = scripts(&json!(consent).to_string());
            let first = local.get(worker, &path);
            assert_eq!(first.status(), 200, "{worker} {granted:?}");
            assert!(header(&first, "content-type").starts_with("application/json"));
            let first = json(first);
            let expected: Vec<_> = destinations.iter().filter(|(_, purpose, _)| granted.contains(purpose)).collect();
            let context = format!("{worker} {granted:?}: {first}");

            let metadata = &first["metadata"];
            assert_eq!(metadata["destinationCount"], expected.len(), "{context}");
            assert_eq!(metadata["cached"], false, "{context}");
            let complete: BTreeMap<&str, bool> = PURPOSES.iter().map(|p| (*p, granted.contains(p))).collect();
            assert_eq!(metadata["consent"], json!(complete), "{context}");
            humantime::parse_rfc3339(metadata["generatedAt"].as_str().unwrap()).unwrap();

            let scripts = first["scripts"].as_array().unwrap();
            let mut found: Vec<&str> = scripts.iter().map(|script| script["destinationId"].as_str().unwrap()).collect();
            found.dedup();
            assert_eq!(found, expected.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), "{context}");
            for (id, purpose, setting) in expected {
                let of: Vec<&Value> = scripts.iter().filter(|script| script["destinationId"] == *id).collect();
                assert!(of.iter().all(|script| script["requiredConsent"] == json!([purpose])), "{context}");
                let text = json!(of).to_string().replace("\\\\u002f", "/").replace("\\\\/", "/");
                assert!(text.contains(setting), "{setting} isn't in the scripts: {context}");
            }
            assert!(!first.to_string().contains("made-up-for-"), "a secret's value: {context}");

            let again = json(local.get(worker, &path));
            assert_eq!(again["metadata"]["cached"], true, "{context}");
            assert_eq!(again["metadata"]["generatedAt"], metadata["generatedAt"]);
            assert_eq!(again["scripts"], first["scripts"]);
        }
    }
}

#[test]
fn what_is_no_consent_is_refused() {
    let local = &fleet().local;
    let missing = json(local.get("c15t-acme", "/analytics/scripts"));
    assert_eq!(missing["error"], "Missing consent parameter");
    let twice = format!("{}&consent=%7b%7d", scripts("{}"));
    let long = scripts(&format!("{{\"necessary\":{}true}}", " ".repeat(2000)));
    let requests = [
        "/analytics/scripts".to_owned(),
        "/analytics/scripts?consent=".to_owned(),
        scripts("{necessary:true}"),
        scripts("{\"necessary\":true"),
        scripts("true"),
        scripts("null"),
        scripts("[]"),
        scripts("{\"necessary\":true,\"advertising\":true}"),
        scripts("{\"necessary\":\"true\"}"),
        scripts("{\"marketing\":1}"),
        scripts("{\"marketing\":null}"),
        scripts("{\"__proto__\":{\"marketing\":true}}"),
        twice,
        long,
    ];
    for path in requests {
        let response = local.get("c15t-acme", &path);
        assert_eq!(response.status(), 400, "{path}");
        let refusal = json(response);
        assert!(refusal["error"].is_string() && refusal["message"].is_string(), "{path}: {refusal}");
        assert!(refusal["scripts"].is_null(), "{path}: {refusal}");
    }
}

#[test]
fn only_trusted_origins_may_read_answers() {
    let local = &fleet().local;
    let ask = |method: Method, path: &str, origin: Option<&str>| {
        let mut request = local.request(method, "c15t-acme.localhost", path);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.send().unwrap()
    };
    let trusted = ["https://acme.example", "https://shop.acme.example"];
    // Answers of every kind: of the pack, of c15t, of neither.
    for path in ["/health", "/analytics/scripts", "/init", "/status", "/nowhere"] {
        for origin in trusted {
            let response = ask(Method::GET, path, Some(origin));
            assert_eq!(header(&response, "access-control-allow-origin"), origin, "{path}");
            assert_eq!(header(&response, "access-control-allow-credentials"), "true", "{path}");
            assert!(header(&response, "vary").to_lowercase().contains("origin"), "{path}");
        }
        let others = [
            "http://acme.example",
            "https://www.acme.example",
            "https://acme.example.evil.example",
            "https://evil-acme.example",
            "https://acme.example:8443",
            "null",
        ];
        for origin in others.map(Some).into_iter().chain([None]) {
            let response = ask(Method::GET, path, origin);
            assert_eq!(header(&response, "access-control-allow-origin"), "", "{path} {origin:?}");
            assert!(header(&response, "vary").to_lowercase().contains("origin"), "{path}");
        }
    }
    let preflight = ask(Method::OPTIONS, "/subjects", Some(trusted[0]));
    assert_eq!(
        (preflight.status().as_u16(), header(&preflight, "access-control-allow-origin")),
        (204, trusted[0].into())
    );
    assert!(header(&preflight, "access-control-allow-methods").contains("POST"));
    let preflight = ask(Method::OPTIONS, "/subjects", Some("https://evil.example"));
    assert_eq!(
        header(&preflight, "access-control-allow-origin") + &header(&preflight, "access-control-allow-methods"),
        ""
    );
}

#[test]
fn c15t_answers_with_and_without_a_database() {
    let local = &fleet().local;
    for (worker, database) in [("c15t-acme", true), ("c15t-bluebird", true), ("c15t-juniper", false)] {
        let init = local.get(worker, "/init");
        assert_eq!(init.status(), 200, "{worker}");
        assert!(json(init)["translations"]["translations"].is_object(), "{worker}");
        assert_eq!(local.get(worker, "/status").status(), if database { 200 } else { 503 }, "{worker}");
        assert_eq!(local.get(worker, "/").status(), 200, "{worker}");
        let nowhere = local.get(worker, "/nowhere");
        assert_eq!(nowhere.status(), 404, "{worker}");
        assert!(!nowhere.text().unwrap().contains("no worker"), "the local Cloudflare answered for {worker}");
        let refused = local.request(Method::POST, &format!("{worker}.localhost"), "/health").send().unwrap();
        assert_eq!(refused.status(), 405, "{worker}");
    }
}

/// A visitor of a shop gives a consent; what is kept of it comes back.
#[test]
fn a_consent_is_kept_in_turso_and_in_d1() {
    let local = &fleet().local;
    // Fjord's token has another name than the binding.
    for worker in ["c15t-acme", "c15t-bluebird", "c15t-fjord"] {
        let host = format!("{worker}.localhost");
        let unknown = local.get(worker, "/subjects/sub_3kw7x9m5r2");
        assert_eq!(unknown.status(), 404, "{worker}");
        let consent = json!({
            "type": "cookie_banner", "subjectId": "sub_2jv6z8n4q9", "domain": "shop.example",
            "preferences": {"necessary": true, "measurement": true, "marketing": false}, "givenAt": 1_790_000_000_000_u64,
        });
        let made = local.request(Method::POST, &host, "/subjects").json(&consent).send().unwrap();
        assert_eq!(made.status(), 200, "{worker}: {}", made.text().unwrap());
        let made = json(made);
        assert_eq!(made["subjectId"], "sub_2jv6z8n4q9", "{worker}: {made}");
        let kept = local.get(worker, "/subjects/sub_2jv6z8n4q9");
        assert_eq!(kept.status(), 200, "{worker}");
        let kept = json(kept);
        assert_eq!(kept["subject"]["id"], "sub_2jv6z8n4q9", "{worker}: {kept}");
        if worker == "c15t-bluebird" {
            // It lies in the customer's own database.
            let spec = fleet().project.read("customers/bluebird.yaml");
            let id = spec.lines().find_map(|line| line.strip_prefix("  id: ")).unwrap();
            let path = format!("/accounts/{}/d1/database/{id}/query", local_account());
            let found = local.call(Method::POST, &path, Some(json!({"sql": "SELECT id FROM subject"})));
            assert_eq!(found[0]["results"], json!([{"id": "sub_2jv6z8n4q9"}]), "{found}");
        }
        let consents = kept["consents"].as_array().unwrap();
        assert_eq!(consents.len(), 1, "{worker}: {kept}");
        // c15t keeps what was granted.
        let granted = json!({"necessary": true, "measurement": true});
        assert_eq!(consents[0]["preferences"], granted, "{worker}: {kept}");
    }
}

#[test]
fn an_error_of_the_database_is_not_told() {
    // A worker whose database no other test uses.
    let (worker, local) = ("c15t-kestrel-staging", &fleet().local);
    assert_eq!(local.get(worker, "/status").status(), 200, "which makes the schema");
    let drop = json!({"baton": null, "requests": [{"type": "execute", "stmt": {"sql": "DROP TABLE subject"}}, {"type": "close"}]});
    let path = "/__local/libsql/kestrel-staging.turso.io/v2/pipeline";
    let dropped = local.request(Method::POST, "127.0.0.1", path).bearer_auth("made-up-for-kestrel-TURSO_AUTH_TOKEN");
    let dropped = json(dropped.json(&drop).send().unwrap());
    assert_eq!(dropped["results"][0]["type"], "ok", "{dropped}");
    let response = local.get(worker, "/subjects/sub_2jv6z8n4q9");
    assert!(response.status().is_server_error(), "{}", response.status());
    let told = response.text().unwrap();
    for word in ["subject", "table", "turso", "select", "made-up-for", "    at "] {
        assert!(!told.to_lowercase().contains(word), "{word:?} is told: {told}");
    }
}

#[test]
fn a_domain_reaches_its_worker() {
    let local = &fleet().local;
    let response = local.request(Method::GET, "consent.goldfinch.example", "/health").send().unwrap();
    assert_eq!(json(response)["worker"], "c15t-goldfinch");
    let response = local.request(Method::GET, "nobody.goldfinch.example", "/health").send().unwrap();
    assert_eq!(response.status(), 404);
}

#[test]
fn status_asks_each_worker_how_it_is() {
    let Fleet { project, .. } = fleet();
    let status = project.run(&["status", "--local", "--health", "--format", "json"]).exits(0).json();
    let workers = status["workers"].as_array().expect("workers");
    assert_eq!(workers.len(), WORKERS.len());
    for worker in workers {
        assert_eq!(worker["health"], "healthy", "{worker}");
    }
}

#[test]
fn only_what_changed_is_deployed() {
    let Fleet { project, local } = serve(false);
    let deploy = || project.run(&["deploy", "--local", "--format", "json"]).exits(0).json();
    let first = deploy();
    assert_eq!(first["applied"], WORKERS.len(), "{first}");
    // It went to the one that runs, and each request that was counted was sent.
    let before = local.journal();
    assert_eq!(first["requests"], before.len() - 1, "one of them made the database: {before:#?}");

    let second = deploy();
    assert_eq!((&second["applied"], &second["requests"]), (&json!(0), &json!(0)), "{second}");
    let text = project.run(&["deploy", "--local"]).exits(0).stdout;
    assert!(text.contains("nothing to deploy: 12 workers"), "{text}");
    project.edit("customers/cafe-central.yaml", "logLevel: warn", "logLevel: warn # until the summer");
    assert_eq!(deploy()["requests"], 0, "a comment deploys nothing");
    assert_eq!(local.journal(), before);

    project.edit("customers/cafe-central.yaml", "logLevel: warn", "logLevel: error");
    let third = deploy();
    assert_eq!((&third["applied"], &third["requests"]), (&json!(1), &json!(1)), "{third}");
    let upload = format!("PUT /client/v4/accounts/{}/workers/scripts/c15t-cafe-central", local_account());
    assert_eq!(local.journal()[before.len()..], [upload]);
}

#[test]
fn status_says_which_worker_does_not_answer() {
    let project = Project::sample();
    project.run(&["deploy", "--local", "juniper"]).exits(0);
    let run = project.run(&["status", "--local", "--health", "juniper"]).exits(4);
    assert!(run.stdout.contains("unreachable"), "{run:?}");
}
