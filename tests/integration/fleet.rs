//! A small fleet with a pack of its own, which needs no npm packages, and a Cloudflare in the test's own process that
//! it is deployed to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use flotilla_local as local;
use flotilla_model::progress::Silent;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::folders::temporary_folder;
use crate::support::{PATIENCE, Project, Run, output, repository};

/// The account that fleets are deployed to.
pub const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// The tests' cache: apart from the user's.
pub fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("flotilla-cache")
}

/// A project with the tests' pack and these customers.
pub fn fleet(customers: &[(&str, &str)]) -> Project {
    fleet_in(temporary_folder(), customers)
}

/// The same, in this folder.
pub fn fleet_in(folder: TempDir, customers: &[(&str, &str)]) -> Project {
    let project = Project::empty_in(folder);
    std::fs::remove_dir_all(project.path("templates")).expect("the sample's pack goes");
    write_pack(&project);
    project.write("fleet.yaml", "name: test\npacks:\n  tiny: { path: packs/tiny }\n");
    for (id, spec) in customers {
        project.write(&format!("customers/{id}.yaml"), format!("id: {id}\n{spec}"));
    }
    project
}

/// Writes the tests' pack: the templates of the real one, a type with free settings, a runtime of two lines.
pub fn write_pack(project: &Project) {
    let template = |name: &str| {
        std::fs::read_to_string(repository().join("templates/consent").join(name)).expect("a template of the pack")
    };
    project
        .write(
            "packs/tiny/pack.yaml",
            "name: tiny\nprefix: t\nmodule: index.ts.tera\nfiles: [wrangler.jsonc.tera]\n\
             runtime:\n  build: [node, build.mjs]\n  sources: [build.mjs]\ncatalogue: catalogue.json\n",
        )
        .write("packs/tiny/package.json", "{ \"name\": \"tiny\", \"private\": true }\n")
        .write(
            "packs/tiny/package-lock.json",
            "{ \"name\": \"tiny\", \"lockfileVersion\": 3, \"requires\": true, \"packages\": { \"\": { \"name\": \"tiny\" } } }\n",
        )
        .write(
            "packs/tiny/build.mjs",
            "import { mkdirSync, writeFileSync } from 'node:fs';\n\
             const out = process.argv.at(-1);\n\
             mkdirSync(out, { recursive: true });\n\
             writeFileSync(`${out}/runtime.js`, 'export const defineWorker = () => ({ fetch: () => new Response(\"tiny\") });\\n');\n\
             writeFileSync(`${out}/runtime.d.ts`, 'export declare function defineWorker(config: unknown): object;\\n');\n",
        )
        .write(
            "packs/tiny/catalogue.json",
            json!({"destinations": {"any": {
                "label": "Anything",
                "requiredConsent": ["marketing"],
                "settings": {"type": "object", "properties": {"apiSecret": {"$ref": "#/$defs/secret"}}},
            }}})
            .to_string(),
        )
        .write("packs/tiny/index.ts.tera", template("index.ts.tera"))
        .write("packs/tiny/wrangler.jsonc.tera", template("wrangler.jsonc.tera"));
}

/// A Cloudflare in this process.
pub struct Cloud {
    running: local::Running,
    folder: TempDir,
}

/// One request of the Cloudflare's log.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method and path below the account or the API's base, ids of zones and the like replaced: `PUT scripts/t-acme`.
    pub what: String,
    /// The status that was answered; 0 where the connection was dropped.
    pub status: u64,
    /// The whole entry.
    pub entry: Value,
}

impl Cloud {
    /// Starts one.
    pub fn start() -> Cloud {
        Cloud::start_with(|_| {})
    }

    /// Starts one that is set up otherwise.
    pub fn start_with(change: impl FnOnce(&mut local::Options)) -> Cloud {
        let folder = temporary_folder();
        let mut options = local::Options::new(folder.path());
        options.address = SocketAddr::from(([127, 0, 0, 1], 0));
        change(&mut options);
        Cloud { running: local::start(options).expect("the local Cloudflare starts"), folder }
    }

    /// Starts one that serves its workers.
    pub fn with_workerd() -> Cloud {
        Cloud::start_with(|options| {
            let path = flotilla_engine::workerd::path(&Silent).unwrap_or_else(|failure| panic!("{failure}"));
            options.workerd = local::Workerd::Path(path);
            options.asset_workers = Some(Arc::new(|| {
                Ok(flotilla_engine::workerd::asset_workers(&Silent).unwrap_or_else(|failure| panic!("{failure}")))
            }));
        })
    }

    /// Where it stores what it has.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The API's address.
    pub fn base(&self) -> String {
        self.running.api_base()
    }

    /// A request to it; the body of its answer.
    pub fn http(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(method, path, "application/json", &body)
    }

    /// What a GET answers, as text: a value of KV has no envelope.
    pub fn text(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.running.address()).expect("it listens");
        let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer test";
        write!(stream, "GET {path} {head}\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer.split_once("\r\n\r\n").expect("an HTTP answer").1.to_owned()
    }

    /// The same, with a body of any type.
    pub fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.running.address()).expect("it listens");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer test\r\n\
             content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Uploads a worker as somebody else does, over the one that is there; its path is below the account's workers.
    #[track_caller]
    pub fn foreign(&self, path: &str, tags: &[&str]) {
        let metadata = json!({"main_module": "index.js", "compatibility_date": "2026-06-01", "tags": tags});
        let body = format!(
            "--b\r\ncontent-disposition: form-data; name=\"metadata\"\r\ncontent-type: application/json\r\n\r\n{metadata}\r\n\
             --b\r\ncontent-disposition: form-data; name=\"index.js\"; filename=\"index.js\"\r\n\
             content-type: application/javascript+module\r\n\r\nexport default {{ fetch: () => new Response(\"theirs\") }};\r\n--b--\r\n"
        );
        let path = format!("/client/v4/accounts/{ACCOUNT}/workers/{path}");
        let answer = self.request("PUT", &path, "multipart/form-data; boundary=b", &body);
        assert_eq!(answer["success"], true, "{answer}");
    }

    /// The workers of the account by name, with the ETags of their content and their tags.
    pub fn scripts(&self) -> BTreeMap<String, (String, Vec<String>)> {
        let listed = self.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/workers/scripts"), &Value::Null);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let rows = listed["result"].as_array().expect("a list").iter();
        rows.map(|row| {
            let tags = row["tags"].as_array().expect("tags").iter().map(text).collect();
            (text(&row["id"]), (text(&row["etag"]), tags))
        })
        .collect()
    }

    /// The static assets of the workers, by namespace and name.
    pub fn assets(&self) -> BTreeMap<String, Value> {
        assets(self.folder.path())
    }

    /// Forgets the files that no worker has any more, as Cloudflare may do at any time.
    pub fn forget_assets(&self) {
        let file = self.folder.path().join("cloudflare.db");
        let db = rusqlite::Connection::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        db.execute_batch(
            "DELETE FROM asset WHERE (scope, hash) NOT IN (
               SELECT l.scope, json_extract(file.value, '$.hash') FROM asset_list l, json_each(l.body) AS file WHERE l.id IN (
                 SELECT json_extract(body, '$.assets.list') FROM version WHERE number = (SELECT max(number) FROM version)))",
        )
        .expect("the files go");
    }

    /// Adds faults.
    pub fn faults(&self, faults: &Value) {
        let shown = self.http("POST", "/__local/faults", faults);
        assert!(shown.is_array(), "{shown}");
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.http("DELETE", "/__local/faults", &Value::Null);
    }

    /// The requests since the last time that this was asked.
    pub fn take(&self) -> Vec<Request> {
        let requests = self.requests();
        self.http("DELETE", "/__local/requests", &Value::Null);
        requests
    }

    /// The requests since the log was taken.
    pub fn requests(&self) -> Vec<Request> {
        let shown = self.http("GET", "/__local/requests", &Value::Null);
        assert_eq!(shown["dropped"], 0);
        let entries = shown["requests"].as_array().expect("a list").clone();
        entries
            .into_iter()
            .map(|entry| {
                let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                let path = text("path");
                let mut below = path.strip_prefix("/client/v4/").unwrap_or(&path).to_owned();
                for prefix in [format!("accounts/{ACCOUNT}/workers/"), format!("accounts/{ACCOUNT}/")] {
                    below = below.strip_prefix(&prefix).unwrap_or(&below).to_owned();
                }
                // Ids are random: they would stand in the way of comparing.
                let steps: Vec<&str> = below
                    .split('/')
                    .map(|step| {
                        let id = step.len() == 32 && step.bytes().all(|byte| byte.is_ascii_hexdigit());
                        if id { "*" } else { step }
                    })
                    .collect();
                Request {
                    what: format!("{} {}", text("method"), steps.join("/")),
                    status: entry["status"].as_u64().expect("a status"),
                    entry,
                }
            })
            .collect()
    }

    /// What was requested since the last time that this was asked, sorted; without what a deploy looks at: the lists, and each worker,
    /// domain and route right before it is changed.
    pub fn sent(&self) -> Vec<String> {
        let is_look = |what: &str| {
            let ends = ["scripts", "domains", "settings", "tags", "workers/routes/*"];
            what.starts_with("GET ") && ends.iter().any(|end| what.ends_with(end))
        };
        let mut sent: Vec<String> =
            self.take().into_iter().map(|request| request.what).filter(|what| !is_look(what)).collect();
        sent.sort();
        sent
    }

    /// The program with these arguments in a project, set up for this Cloudflare.
    pub fn command(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = project.command(arguments);
        command
            .env("CLOUDFLARE_API_BASE_URL", self.base())
            .env("CLOUDFLARE_API_TOKEN", "test-token")
            .env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
            .env("FLOTILLA_CACHE_DIR", cache());
        command
    }

    /// Runs the program against this Cloudflare.
    #[track_caller]
    pub fn run(&self, project: &Project, arguments: &[&str]) -> Run {
        output(&mut self.command(project, arguments))
    }

    /// Deploys without asking; the report.
    #[track_caller]
    pub fn deploy(&self, project: &Project, more: &[&str]) -> Value {
        let arguments = [&["deploy", "--yes", "--format", "json"], more].concat();
        self.run(project, &arguments).exits(0).json()
    }
}

/// The static assets of the workers of an emulator, by namespace and name: the configuration, and the files with their hashes and
/// sizes, each of which has to be there.
pub fn assets(folder: &std::path::Path) -> BTreeMap<String, Value> {
    let file = folder.join("cloudflare.db");
    let db = rusqlite::Connection::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let sql = "SELECT worker.namespace || '/' || worker.name, json_extract(version.body, '$.assets.config'), l.body,
                      (SELECT count(*) FROM json_each(l.body) AS file WHERE NOT EXISTS
                        (SELECT 1 FROM asset WHERE asset.scope = l.scope AND asset.hash = json_extract(file.value, '$.hash')))
               FROM worker JOIN version ON version.id = worker.version
               JOIN asset_list l ON l.id = json_extract(version.body, '$.assets.list')";
    let mut query = db.prepare(sql).expect("the tables of assets");
    let rows = query.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, Option<String>>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, i64>(3)?,
        ))
    });
    let json = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
    rows.expect("rows")
        .map(|row| {
            let (worker, config, list, missing) = row.expect("a row");
            assert_eq!(missing, 0, "files of {worker} are missing");
            (worker, json!({"config": config.map(json), "files": json(list)}))
        })
        .collect()
}

/// How often each upload succeeded, by worker.
pub fn uploads(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests.iter().filter(|request| request.status == 200) {
        if let Some(worker) = request.what.strip_prefix("PUT scripts/")
            && !worker.contains('/')
        {
            *counts.entry(worker.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "still waiting: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
