//! Shows: workers call each other with the keys that flotilla derives, in real workerd, also while the keys are rotated; browsers get what `cors`
//! defines, in a preview as well; and a key comes from one secret, which no worker gets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fleet::Cloud;
use crate::folders::temporary_folder;
use crate::support::{Project, copy, repository};

const FLEET: &str = "name: shop
accounts: { default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN } } }
packs: { worker: { path: packs/worker } }
deploy: { health: { enabled: false } }
sharedWorkers:
  auth: { callers: [web], domains: [auth.shop.example] }
defaults:
  workers:
    web: { domains: [], services: { API: api, AUTH: auth }, vars: { API_URL: { workerUrl: api } } }
    api: { callers: [web], trustedOrigins: [own, 'https://partner.example'], cors: { credentials: true, headers: [x-own] } }
";

/// Passes a request on to another worker: `/call/api?by=API`, by a service binding, or `?url=…`.
const CALL: &str = r#"    default: {
      const called = /^\/call\/([a-z]+)$/.exec(pathname)?.[1];
      const { searchParams } = new URL(request.url);
      const by = (env as unknown as Record<string, Fetcher | undefined>)[searchParams.get("by") ?? ""];
      if (called) return callService(env, called, new Request(searchParams.get("url") ?? "https://worker.example/caller"), by as never);
"#;

/// Two customers with two workers each that are the pack's sample, which also calls others.
fn project() -> Project {
    let project = Project::at(temporary_folder());
    copy(&repository().join("templates/worker"), &project.path("packs/worker"));
    project.write("fleet.yaml", FLEET);
    project.edit("packs/worker/src/index.ts", "import { verifyService }", "import { callService, verifyService }");
    project.edit("packs/worker/src/index.ts", "    default:\n", CALL);
    project.edit("packs/worker/src/index.ts", "{ status: 404 });\n", "{ status: 404 });\n    }\n");
    for id in ["acme", "bluebird"] {
        let spec = format!(
            "id: {id}\nworkers:\n  web: {{ domains: [{id}.example] }}\n  api: {{ domains: [api.{id}.example] }}\n"
        );
        project.write(&format!("customers/{id}.yaml"), spec);
    }
    project
}

/// Sends a request to a host; the status, the headers that are of interest here, and the text.
fn ask(
    cloud: &Cloud,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    method: reqwest::Method,
) -> (u16, BTreeMap<String, String>, String) {
    let http = flotilla_http::builder().no_proxy().build().expect("a client");
    let url = format!("{}{path}", cloud.base().replace("/client/v4", ""));
    let request = headers
        .iter()
        .fold(http.request(method, url).header("host", host), |request, (name, value)| request.header(*name, *value));
    let answer = request.send().expect("an answer");
    let named =
        answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    let kept = named.filter(|(name, _)| name.starts_with("access-control-") || name == "vary").collect();
    (answer.status().as_u16(), kept, answer.text().expect("text"))
}

/// The status of a call that a customer's web worker makes, and who called if it was recognized.
fn call(cloud: &Cloud, customer: &str, path: &str) -> (u16, Value) {
    let (status, _, text) = ask(cloud, &format!("{customer}.example"), path, &[], reqwest::Method::GET);
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// All calls are recognized: by a service binding and by an address, of a customer's own worker and of the shared one.
#[track_caller]
fn all_pass(cloud: &Cloud, when: &str) {
    for customer in ["acme", "bluebird"] {
        let caller = (200, json!({"customer": customer, "role": "web"}));
        let by_address = format!("/call/api?url=https://api.{customer}.example/caller");
        for path in ["/call/api?by=API", &by_address, "/call/auth?by=AUTH"] {
            assert_eq!(call(cloud, customer, path), caller, "{customer} {path} {when}");
        }
    }
}

/// The value of a line of `.env`.
fn value(project: &Project, name: &str) -> String {
    let text = project.read(".env");
    let start = format!("{name}=");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().trim_matches(['\'', '"']).to_owned()
}

#[test]
fn workers_recognize_their_callers_while_keys_are_rotated_too() {
    let (cloud, project) = (Cloud::with_workerd(), project());
    let rotate = ["secrets", "rotate", "FLOTILLA_SERVICE_KEY"];
    let end = ["secrets", "rotate", "FLOTILLA_SERVICE_KEY", "--end"];
    let deploy = |customers: &[&str]| cloud.run(&project, &[&["deploy", "--yes"], customers].concat()).exits(0);

    // Without the secret, nothing is deployed that would need it.
    let missing = cloud.run(&project, &["deploy", "--yes"]);
    assert!(missing.code != 0 && missing.stderr.contains("FLOTILLA_SERVICE_KEY"), "{missing:?}");
    cloud.run(&project, &["secrets", "check"]).exits(1);
    let made = cloud.run(&project, &rotate).exits(0);
    assert!(made.stdout.contains("FLOTILLA_SERVICE_KEY is new in .env"), "{made:?}");
    cloud.run(&project, &["secrets", "check"]).exits(0);
    deploy(&[]);
    all_pass(&cloud, "at first");

    // Nobody, and nobody else.
    let nobody = ask(&cloud, "api.acme.example", "/caller", &[], reqwest::Method::GET);
    assert_eq!(nobody.0, 401);
    assert_eq!(
        call(&cloud, "bluebird", "/call/api?url=https://api.acme.example/caller").0,
        401,
        "another customer's key"
    );
    assert_eq!(
        call(&cloud, "acme", "/call/auth?url=https://api.acme.example/caller").0,
        401,
        "the key for another worker"
    );

    // Half of the workers have the new key, in whatever order.
    let first = value(&project, "FLOTILLA_SERVICE_KEY");
    cloud.run(&project, &rotate).exits(0);
    let second = value(&project, "FLOTILLA_SERVICE_KEY");
    assert!(first.len() >= 43 && second.len() >= 43 && first != second);
    assert_eq!(value(&project, "FLOTILLA_SERVICE_KEY_PREVIOUS"), first);
    cloud.run(&project, &rotate).exits(5);
    let early = cloud.run(&project, &end).exits(5);
    assert!(early.stderr.contains("5 workers without the new value"), "{early:?}");
    deploy(&["acme"]);
    all_pass(&cloud, "when one customer has the new key, and neither the other nor the shared worker has it");
    deploy(&[]);
    all_pass(&cloud, "when all have both keys");

    cloud.run(&project, &end).exits(0);
    assert_eq!(value(&project, "FLOTILLA_SERVICE_KEY_PREVIOUS"), "");
    deploy(&["acme"]);
    all_pass(&cloud, "when one customer no longer has the old key");
    deploy(&[]);
    all_pass(&cloud, "at last");
    cloud.run(&project, &end).exits(1);
    let planned = cloud.run(&project, &["plan", "--format", "json"]).exits(0).json();
    assert_eq!((&planned["create"], &planned["update"]), (&json!(0), &json!(0)), "{planned}");

    // The secret itself is where it was written, and nowhere else.
    for (name, bytes) in project.files("").iter().filter(|(name, _)| *name != ".env") {
        for secret in [&first, &second] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{name}");
        }
    }
}

#[test]
fn browsers_may_call_from_the_customers_own_workers_and_from_those_that_are_listed() {
    let (cloud, project) = (Cloud::with_workerd(), project());
    project.write(".env", "FLOTILLA_SERVICE_KEY=0123456789abcdef0123456789abcdef\n");
    cloud.run(&project, &["deploy", "--yes"]).exits(0);
    let up = ["preview", "up", "acme", "--id", "7", "--from", "production", "--yes", "--format", "json"];
    cloud.run(&project, &up).exits(0);
    let preflight = |host: &str, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-own"),
        ];
        ask(&cloud, host, "/health", &headers, reqwest::Method::OPTIONS)
    };
    let vary = ("vary", "Origin, Access-Control-Request-Headers");
    let allowed = |origin: &str| -> BTreeMap<String, String> {
        let all = [
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, HEAD, POST"),
            ("access-control-allow-headers", "x-own"),
            ("access-control-max-age", "600"),
            vary,
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let (own, preview) = ("api.acme.example", "api-preview-7.acme.example");
    for (host, origin) in [
        (own, "https://acme.example"),
        (own, "https://partner.example"),
        (preview, "https://preview-7.acme.example"),
        (preview, "https://partner.example"),
    ] {
        assert_eq!(preflight(host, origin), (204, allowed(origin), String::new()), "{host} {origin}");
    }
    for (host, origin) in [
        (own, "https://bluebird.example"),
        (own, "https://stranger.example"),
        (own, "http://acme.example"),
        (own, "https://preview-7.acme.example"),
        (preview, "https://acme.example"),
    ] {
        let none = BTreeMap::from([(vary.0.to_owned(), vary.1.to_owned())]);
        assert_eq!(preflight(host, origin), (204, none, String::new()), "{host} {origin}");
    }
    let (status, headers, _) = ask(&cloud, own, "/", &[("origin", "https://acme.example")], reqwest::Method::GET);
    let expected = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", "https://acme.example"),
        ("vary", "Origin"),
    ];
    assert_eq!(
        (status, headers),
        (200, expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    );
    let (_, headers, _) = ask(&cloud, own, "/", &[("origin", "https://stranger.example")], reqwest::Method::GET);
    assert_eq!(headers, BTreeMap::from([("vary".to_owned(), "Origin".to_owned())]));
}
