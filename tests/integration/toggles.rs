//! Shows: the pack `toggles`, deployed to the local Cloudflare and served by real workerd over D1. Pages send nothing to the API; a change goes to
//! Cloudflare and then to D1, of its own customer alone; the cron trigger brings what changed elsewhere and repairs what D1 missed.

use std::process::Command;
use std::thread::scope;

use reqwest::Method;
use reqwest::blocking::Response;
use serde_json::{Map, Value, json};

use crate::cases::cache;
use crate::fleet::until;
use crate::folders::temporary_folder;
use crate::support::{Project, copy, output, repository};
use crate::tools::{self, Local, local_account};

const FLEET: &str = "name: test
packs: { toggles: { path: templates/toggles } }
accounts: { default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN } } }
";
const HOST: &str = "toggles-dashboard.localhost";
const SECRET: &str = "a secret of tests";
const CUSTOMERS: [&str; 2] = ["a.example", "b.example"];
/// Prints session tokens for the arguments: a secret, and then a shop and a number of seconds each.
const SIGN: &str = r#"
const [secret, ...more] = process.argv.slice(1);
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
for (let at = 0; at < more.length; at += 2) {
  const exp = Math.floor(Date.now() / 1000) + Number(more[at + 1]);
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ dest: `https://${more[at]}`, exp })}`;
  console.log(`${text}.${require("node:crypto").createHmac("sha256", secret).update(text).digest("base64url")}`);
}"#;

fn sign(secret: &str, shops: &[(&str, i32)]) -> Vec<String> {
    let mut node = Command::new(tools::node());
    node.args(["-e", SIGN, secret])
        .args(shops.iter().flat_map(|(shop, lasts)| [(*shop).to_owned(), lasts.to_string()]));
    output(&mut node).exits(0).stdout.lines().map(str::to_owned).collect()
}

/// The dashboard of two customers.
struct Dashboard {
    _project: Project,
    local: Local,
    database: String,
    zones: [String; 2],
    sessions: Vec<String>,
}

/// The dashboard as the pack's README describes it, for two zones that are in one bucket.
fn dashboard() -> Dashboard {
    let project = Project::at(temporary_folder());
    copy(&repository().join("templates/toggles"), &project.path("templates/toggles"));
    let readme = project.read("templates/toggles/README.md");
    let spec = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("its spec");
    project.write("fleet.yaml", FLEET).write("customers/dashboard.yaml", spec);
    project.write(".env", format!("SESSION_SECRET={SECRET}\nZONES_TOKEN=t\n"));
    let local = Local::start(&project, None);
    project.run_with(&["deploy", "--local", "--yes"], &[cache()]).exits(0);
    let databases = local.api(&format!("/accounts/{}/d1/database", local_account()));
    assert_eq!(databases[0]["name"], "toggles-production");
    let database = databases[0]["uuid"].as_str().expect("an id").to_owned();
    let zones = CUSTOMERS.map(|name| {
        let zones = local.api(&format!("/zones?name={name}"));
        zones[0]["id"].as_str().expect("an id").to_owned()
    });
    let dashboard = Dashboard {
        _project: project,
        local,
        database,
        zones,
        sessions: sign(SECRET, &CUSTOMERS.map(|name| (name, 3600))),
    };
    for (customer, zone) in CUSTOMERS.iter().zip(&dashboard.zones) {
        let sql = format!("INSERT INTO zone (customer_id, zone_id, bucket) VALUES ('{customer}', '{zone}', 0)");
        dashboard.sql(&sql);
    }
    dashboard
}

impl Dashboard {
    /// The rows of a query to D1.
    #[track_caller]
    fn sql(&self, sql: &str) -> Value {
        let path = format!("/accounts/{}/d1/database/{}/query", local_account(), self.database);
        self.local.call(Method::POST, &path, Some(json!({ "sql": sql })))[0]["results"].clone()
    }

    fn page(&self, session: &str) -> (u16, String) {
        let answer = self.local.get_host(&format!("/?id_token={session}"));
        (answer.status().as_u16(), answer.text().expect("a page"))
    }

    /// Changes a setting; the status, and the new value or the error.
    fn change(&self, session: &str, setting: &str, value: &str) -> (u16, Value) {
        let path = format!("/api/v1/optimizations/{setting}");
        let request =
            self.local.request(Method::POST, HOST, &path).bearer_auth(session).json(&json!({ "value": value }));
        let answer = request.send().expect("an answer");
        let status = answer.status().as_u16();
        let body = tools::json(answer);
        (status, if status == 200 { body["value"].clone() } else { body["error"].clone() })
    }

    /// What Cloudflare has.
    fn cloudflare(&self, customer: usize, setting: &str) -> Value {
        self.local.api(&format!("/zones/{}/settings/{setting}", self.zones[customer]))["value"].clone()
    }

    /// What the mirror has, by the view.
    fn mirror(&self, customer: usize, toggle: &str) -> Value {
        let customer = CUSTOMERS[customer];
        let sql =
            format!("SELECT state FROM customer_toggles WHERE customer_id = '{customer}' AND toggle_id = '{toggle}'");
        self.sql(&sql)[0]["state"].clone()
    }

    fn pending(&self) -> Value {
        self.sql("SELECT customer_id, setting FROM pending")
    }

    /// Has everything synced long ago, and every change that is under way begun long ago.
    fn grow_old(&self) {
        self.sql("UPDATE sweep SET seen_at = 0");
        self.sql("UPDATE zone SET seen_at = 0");
        self.sql("UPDATE pending SET started_at = started_at - 3600");
    }

    /// Fires the cron trigger.
    #[track_caller]
    fn cron(&self) {
        let answer = self.local.get_host("/cdn-cgi/handler/scheduled");
        assert_eq!((answer.status().as_u16(), answer.text().expect("text").as_str()), (200, "ok\n"));
    }

    /// The requests for settings so far.
    fn requests(&self) -> Vec<String> {
        self.local.journal().into_iter().filter(|line| line.contains("/settings")).collect()
    }
}

impl Local {
    fn get_host(&self, path: &str) -> Response {
        self.request(Method::GET, HOST, path).send().expect("an answer")
    }
}

#[test]
fn customers_change_their_own_settings() {
    let dashboard = dashboard();
    let [a, b] = [&dashboard.sessions[0], &dashboard.sessions[1]];

    // Of many pages that find the mirror old, one has it synced, after its answer.
    let pages = |count: usize, shown: &str| {
        scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..count / 8 {
                        let (status, page) = dashboard.page(a);
                        assert!(status == 200 && page.contains(shown), "{status} {page}");
                    }
                });
            }
        });
    };
    pages(24, "<p role=\"status\">");
    until("the sync", || dashboard.page(a).1.contains("Synced less than a minute ago."));
    assert_eq!(dashboard.requests().iter().filter(|line| line.starts_with("GET")).count(), 1);
    pages(200, "aria-labelledby=\"rocket_loader\"");
    assert_eq!(dashboard.requests().len(), 1, "a page sends no request: {:?}", dashboard.requests());

    // A change: Cloudflare, then D1; of nobody else.
    assert_eq!(dashboard.mirror(0, "rocket-loader"), "off");
    assert_eq!(dashboard.change(a, "rocket-loader", "on"), (200, json!("on")));
    assert_eq!(
        (dashboard.cloudflare(0, "rocket_loader"), dashboard.mirror(0, "rocket-loader")),
        (json!("on"), json!("on"))
    );
    assert_eq!(
        (dashboard.cloudflare(1, "rocket_loader"), dashboard.mirror(1, "rocket-loader")),
        (json!("off"), Value::Null)
    );
    assert_eq!(dashboard.pending(), json!([]));

    // What isn't allowed changes nothing and asks nothing.
    let before = dashboard.requests().len();
    let ssl = "All shops use the same TLS settings.";
    assert_eq!(dashboard.change(a, "ssl", "off"), (409, json!(ssl)));
    assert_eq!(dashboard.change(a, "brotli", "maybe").0, 400);
    assert_eq!(dashboard.change(a, "nothing", "on").0, 404);
    let forged = sign("another secret", &[("b.example", 3600)]).remove(0);
    let others = sign(SECRET, &[("b.example", -1), ("c.example", 3600)]);
    for (session, status) in [(&forged, 401), (&others[0], 401), (&others[1], 404)] {
        assert_eq!((dashboard.page(session).0, dashboard.change(session, "brotli", "off").0), (status, status));
    }
    assert_eq!(dashboard.requests().len(), before);
    assert_eq!(dashboard.change(b, "brotli", "off"), (200, json!("off")));
    assert_eq!(dashboard.mirror(0, "brotli"), dashboard.cloudflare(0, "brotli"));
}

#[test]
fn the_mirror_follows_cloudflare_whatever_fails() {
    let dashboard = dashboard();
    let [a, b] = [&dashboard.sessions[0], &dashboard.sessions[1]];
    dashboard.cron();
    // Each zone is one request, and the settings are in the mirror.
    let read = |zone: &str| format!("GET /client/v4/zones/{zone}/settings");
    assert_eq!(dashboard.requests(), dashboard.zones.each_ref().map(|zone| read(zone)));
    assert_eq!(
        (dashboard.mirror(0, "rocket-loader"), dashboard.mirror(1, "rocket-loader")),
        (json!("off"), json!("off"))
    );
    dashboard.cron();
    assert_eq!(dashboard.requests().len(), 2, "what is fresh isn't read");

    // Somebody changes a zone in Cloudflare's dashboard.
    let changes = json!([{"zone": "a.example", "plan": "free", "set": {"rocket_loader": "on"}}]);
    dashboard.local.control("zones", Some(changes));
    dashboard.grow_old();
    dashboard.cron();
    assert_eq!(dashboard.mirror(0, "rocket-loader"), "on");
    assert_eq!(dashboard.change(a, "polish", "lossy"), (409, json!("The zone's plan does not allow changes.")));
    let versions = "SELECT version FROM zone ORDER BY customer_id";
    assert_eq!(dashboard.sql(versions), json!([{"version": 2}, {"version": 1}]), "only what changed is written");

    // D1 fails after Cloudflare made the change: the change is known to be open, and the next sync repairs it.
    dashboard.sql("CREATE TRIGGER away BEFORE UPDATE OF settings ON zone BEGIN SELECT raise(FAIL, 'D1 is away'); END");
    assert_eq!(dashboard.change(b, "rocket-loader", "on").0, 502);
    dashboard.sql("DROP TRIGGER away");
    assert_eq!(
        (dashboard.cloudflare(1, "rocket_loader"), dashboard.mirror(1, "rocket-loader")),
        (json!("on"), json!("off"))
    );
    assert_eq!(dashboard.pending(), json!([{"customer_id": "b.example", "setting": "rocket_loader"}]));
    assert_eq!(dashboard.change(b, "rocket-loader", "off").0, 409, "the open change is the only one of its setting");
    dashboard.grow_old();
    dashboard.cron();
    assert_eq!((dashboard.mirror(1, "rocket-loader"), dashboard.pending()), (json!("on"), json!([])));

    // Cloudflare has too many requests, or no answer.
    let fault = |effect: Value| {
        dashboard.local.control("faults", Some(json!([{"match": {"method": "PATCH"}, "do": effect}])));
    };
    fault(json!({"status": 429, "retry_after": 60}));
    assert_eq!((dashboard.change(b, "brotli", "off").0, dashboard.pending()), (503, json!([])));
    fault(json!({"reset": "after"}));
    assert_eq!(dashboard.change(b, "brotli", "off").0, 502);
    assert_eq!(
        (dashboard.cloudflare(1, "brotli"), dashboard.pending().as_array().map(Vec::len)),
        (json!("off"), Some(1))
    );

    // One zone's failure stops no other, and its page doesn't claim to be fresh.
    let first = format!("zones/{}/settings", dashboard.zones[0]);
    dashboard
        .local
        .control("faults", Some(json!([{"match": {"method": "GET", "path": first}, "do": {"status": 500}}])));
    dashboard.local.control("zones", Some(json!([{"zone": "a.example", "set": {"rocket_loader": "off"}}])));
    dashboard.grow_old();
    dashboard.cron();
    assert_eq!((dashboard.mirror(1, "brotli"), dashboard.pending()), (json!("off"), json!([])));
    assert_eq!(dashboard.mirror(0, "rocket-loader"), "on");
    assert!(!dashboard.page(a).1.contains("Synced less than a minute ago."));
    assert!(dashboard.page(b).1.contains("Synced less than a minute ago."));
    // That page had it synced again.
    until("the sync", || dashboard.mirror(0, "rocket-loader") == "off");
}

#[test]
fn the_packs_list_of_settings_is_the_catalogues() {
    let read = |path: &str| -> Map<String, Value> {
        serde_json::from_slice(&std::fs::read(repository().join(path)).expect("a file")).expect("JSON")
    };
    let all = read("src/zone-settings/catalogue.json");
    let texts: Map<String, Value> = all
        .into_iter()
        .filter(|(_, setting)| setting["value"]["type"] == "string" && setting["value"]["enum"].is_array())
        .map(|(id, setting)| (id, setting["value"]["enum"].clone()))
        .collect();
    assert_eq!(read("templates/toggles/src/catalogue.json"), texts);
}
