//! Shows: static assets, deployed by the engine: what is the same is not uploaded again, each changed file is uploaded once, in a dispatch
//! namespace once for all workers; lost answers leave every worker with the files that it was to have; a rollback brings the files back; a
//! customer can have files of its own; and real workerd answers with them as Cloudflare does.

use std::collections::BTreeMap;
use std::process::Stdio;

use flotilla_engine::rollback::Target;
use flotilla_model::failure::Exit;
use flotilla_model::reason::Reason;
use reqwest::redirect::Policy;
use serde_json::json;

use crate::engine::{Heard, reasons};
use crate::fleet::{ACCOUNT, Cloud, Request, fleet, until};
use crate::folders::temporary_folder;
use crate::support::Project;
use crate::tools::wrangler;

const PACK: &str = "packs/tiny/pack.yaml";
const NAMESPACE: &str = "accounts:\n  default:\n    id: { env: CLOUDFLARE_ACCOUNT_ID }\n    token: { secret: CLOUDFLARE_API_TOKEN }\n    \
                         dispatchNamespace: shops\n";

/// A fleet whose workers are nothing but the files of a folder.
fn site(customers: &[(&str, &str)]) -> Project {
    let project = fleet(customers);
    project
        .write(PACK, "name: tiny\nprefix: t\nassets: { directory: public, notFoundHandling: 404-page }\n")
        .write("packs/tiny/public/index.html", "<p>index</p>")
        .write("packs/tiny/public/404.html", "<p>nothing here</p>")
        .write("packs/tiny/public/docs/index.html", "<p>docs</p>")
        .write("packs/tiny/public/app.css", "p {}")
        .write("packs/tiny/public/_redirects", "/old /docs/ 301\n")
        .write("packs/tiny/public/_headers", "/*\n  X-Of: site\n");
    project
}

/// The same, with code beside the files.
fn with_code(customers: &[(&str, &str)], options: &str) -> Project {
    let project = fleet(customers);
    let manifest = project.read(PACK);
    project
        .write(PACK, format!("{manifest}assets: {{ directory: public, binding: ASSETS{options} }}\n"))
        .write(
            "packs/tiny/index.ts.tera",
            "export default { async fetch(request, env) {\n\
             if (new URL(request.url).pathname === '/through') return env.ASSETS.fetch(new URL('/app.css', request.url));\n\
             return new Response('code'); } };\n",
        )
        .write("packs/tiny/public/app.css", "p {}")
        .write("packs/tiny/public/api/file.txt", "a file");
    project
}

/// How many sessions were opened, how many requests uploaded files, and how many workers were uploaded.
fn counts(requests: &[Request]) -> [usize; 3] {
    let count = |is: &dyn Fn(&str) -> bool| requests.iter().filter(|request| is(&request.what)).count();
    [
        count(&|what| what.ends_with("/assets-upload-session")),
        count(&|what| what.ends_with("assets/upload")),
        count(&|what| what.strip_prefix("PUT ").is_some_and(|path| path.rsplit('/').nth(1) == Some("scripts"))),
    ]
}

#[track_caller]
fn is_up_to_date(cloud: &Cloud, project: &Project) {
    cloud.take();
    cloud.engine(project).deploy().exits(Exit::Done).is_up_to_date();
    assert_eq!(cloud.take().len(), 0, "nothing is sent");
    let planned = cloud.engine(project).plan_with(|request| request.refresh = true);
    assert!(planned.plan.is_empty(), "{:#?}", planned.plan.changes);
    cloud.take();
}

/// What a worker answers at a path: the status, where it leads, the type and the text.
fn ask(cloud: &Cloud, worker: &str, path: &str) -> (u16, BTreeMap<String, String>, String) {
    let origin = cloud.base().replace("/client/v4", "");
    let http = flotilla_http::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
    let answer =
        http.get(format!("{origin}{path}")).header("host", format!("{worker}.localhost")).send().expect("an answer");
    let headers = answer.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned())).collect();
    (answer.status().as_u16(), headers, answer.text().expect("a body"))
}

#[test]
fn what_is_the_same_is_not_uploaded_again() {
    let project = site(&[("acme", ""), ("bolt", "")]);
    let cloud = Cloud::start();
    let planned = cloud.engine(&project).plan();
    assert_eq!(planned.plan.asset_uploads_at_most(), 8, "four files of each of two workers");
    cloud.take();
    cloud.deployed(&project);
    let [sessions, uploads, workers] = counts(&cloud.take());
    assert_eq!((sessions, workers), (2, 2));
    assert!((1..=8).contains(&uploads), "{uploads}");
    is_up_to_date(&cloud, &project);

    project.write("packs/tiny/public/app.css", "p { color: red }");
    let planned = cloud.engine(&project).plan();
    let changed = Reason::AssetChanged { file: "packs/tiny/public/app.css".to_owned() };
    assert!(
        planned.plan.changes.iter().all(|change| change.reasons == [changed.clone()]),
        "{:#?}",
        planned.plan.changes
    );
    assert_eq!(planned.plan.asset_uploads_at_most(), 2);
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(counts(&cloud.take()), [2, 2, 2], "one file for each worker of an account");
    is_up_to_date(&cloud, &project);

    // A file that is gone: nothing is uploaded but the list.
    std::fs::remove_file(project.path("packs/tiny/public/app.css")).expect("a file");
    let planned = cloud.engine(&project).plan();
    let gone = Reason::AssetRemoved { file: "packs/tiny/public/app.css".to_owned() };
    assert_eq!(planned.plan.changes[0].reasons, [gone]);
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(counts(&cloud.take()), [2, 0, 2]);
    is_up_to_date(&cloud, &project);
}

#[test]
fn workers_of_a_namespace_share_their_files() {
    let own = "assets: { directory: 'assets/{customer}' }\n";
    let project = site(&[("acme", own), ("bolt", ""), ("cove", own), ("dune", "")]);
    project.write("assets/acme/a.txt", "acme").write("assets/cove/c.txt", "cove");
    project.edit("fleet.yaml", "packs:", &format!("{NAMESPACE}packs:"));
    let cloud = Cloud::start();
    let namespaces = format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces");
    cloud.http("POST", &namespaces, &json!({"name": "shops"}));
    cloud.take();
    cloud.deployed(&project);
    let [sessions, uploads, workers] = counts(&cloud.take());
    assert_eq!((sessions, workers), (4, 4));
    assert!((2..=6).contains(&uploads), "{uploads}");
    is_up_to_date(&cloud, &project);

    project.write("packs/tiny/public/app.css", "p { color: red }");
    assert!((1..=3).contains(&cloud.engine(&project).plan().plan.asset_uploads_at_most()));
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(
        counts(&cloud.take()),
        [4, 1, 4],
        "the file is uploaded once for all, those with files of their own too"
    );
    is_up_to_date(&cloud, &project);
}

#[test]
fn files_stay_where_only_a_setting_changed() {
    let project = with_code(&[("acme", "vars: { A: one }\n")], "");
    let cloud = Cloud::start();
    cloud.deployed(&project);
    project.edit("customers/acme.yaml", "one", "two");
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(counts(&cloud.take()), [0, 0, 1], "no session");
    is_up_to_date(&cloud, &project);
}

#[test]
fn lost_answers_leave_every_worker_with_its_files() {
    let sessions = "/assets-upload-session";
    let uploads = "/assets/upload";
    for (method, path, fault) in [
        ("POST", sessions, json!({"reset": "after"})),
        ("POST", sessions, json!({"reset": "before"})),
        ("POST", sessions, json!({"status": 500, "html": true})),
        ("POST", uploads, json!({"reset": "after"})),
        ("POST", uploads, json!({"reset": "before"})),
        ("POST", uploads, json!({"status": 500, "html": true, "after": true})),
        ("PUT", "scripts/t-acme", json!({"reset": "after"})),
        ("PUT", "scripts/t-acme", json!({"reset": "before"})),
        ("PUT", "scripts/t-acme", json!({"status": 500, "html": true, "after": true})),
    ] {
        let project = site(&[("acme", ""), ("bolt", "")]);
        let cloud = Cloud::start();
        cloud.faults(&json!([{"match": {"method": method, "path": path}, "times": 1, "do": fault}]));
        cloud.engine(&project).deploy();
        cloud.clear_faults();
        cloud.engine(&project).deploy().exits(Exit::Done);
        assert_eq!(cloud.scripts().len(), 2, "{method} {path} {fault}");
        is_up_to_date(&cloud, &project);
        project.write("packs/tiny/public/app.css", "p { color: red }");
        cloud.faults(&json!([{"match": {"method": method, "path": path}, "times": 1, "do": fault}]));
        cloud.engine(&project).deploy();
        cloud.clear_faults();
        cloud.engine(&project).deploy().exits(Exit::Done);
        is_up_to_date(&cloud, &project);
    }
}

#[test]
fn a_rollback_brings_the_files_back() {
    let project = site(&[("acme", "")]);
    let cloud = Cloud::with_workerd();
    cloud.deployed(&project);
    project.write("packs/tiny/public/app.css", "p { color: red }");
    cloud.deployed(&project);
    let back = || Target::Customers { customers: vec!["acme".to_owned()], record: None, environment: None };
    let (result, heard) = cloud.engine(&project).rollback(back());
    assert_eq!(result.unwrap_or_else(|failure| panic!("{failure}")).applied, 1, "{heard:?}");
    assert_eq!(ask(&cloud, "t-acme", "/app.css").2, "p {}", "the platform still has the file");

    // The platform no longer has what it is to go back to, and neither has the working tree: the worker stays, and says which file.
    project.write("packs/tiny/public/app.css", "p { color: blue }");
    cloud.deployed(&project);
    project.write("packs/tiny/public/app.css", "p { color: green }");
    cloud.deployed(&project);
    cloud.forget_assets();
    let (result, heard) = cloud.engine(&project).rollback(back());
    let told = format!("{:?} {heard:?}", result.as_ref().err().map(ToString::to_string));
    assert!(told.contains("app.css"), "{told}");
    assert_eq!(ask(&cloud, "t-acme", "/app.css").2, "p { color: green }");

    // With the files in the working tree, they are uploaded again.
    project.write("packs/tiny/public/app.css", "p { color: blue }");
    let (result, heard) = cloud.engine(&project).rollback(back());
    assert_eq!(result.unwrap_or_else(|failure| panic!("{failure}")).applied, 1, "{heard:?}");
    assert_eq!(ask(&cloud, "t-acme", "/app.css").2, "p { color: blue }");
}

#[test]
fn a_customer_can_have_files_of_its_own() {
    let project = site(&[("acme", "assets: { directory: 'assets/{customer}' }\n"), ("bolt", "")]);
    project.write("assets/acme/index.html", "<p>acme</p>").write("assets/acme/logo.svg", "<svg/>");
    let cloud = Cloud::with_workerd();
    cloud.deployed(&project);
    assert_eq!(ask(&cloud, "t-acme", "/").2, "<p>acme</p>");
    assert_eq!(ask(&cloud, "t-acme", "/docs/").2, "<p>docs</p>", "what it hasn't, the pack has");
    assert_eq!(ask(&cloud, "t-acme", "/logo.svg").1["content-type"], "image/svg+xml");
    assert_eq!(ask(&cloud, "t-bolt", "/").2, "<p>index</p>");
    assert_eq!(ask(&cloud, "t-bolt", "/logo.svg").0, 404);
    is_up_to_date(&cloud, &project);

    project.write("assets/acme/logo.svg", "<svg><g/></svg>");
    let planned = cloud.engine(&project).plan();
    let workers: Vec<&str> = planned.plan.changes.iter().map(|change| change.worker.as_str()).collect();
    assert_eq!(workers, ["t-acme"], "nobody else's change");
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(counts(&cloud.take()), [1, 1, 1]);
    is_up_to_date(&cloud, &project);
}

#[test]
fn a_folder_that_cannot_be_used_leaves_the_others_deployed() {
    let project = site(&[("acme", "assets: { directory: 'assets/{customer}' }\n"), ("bolt", "")]);
    project.write("assets/acme/index.html", "<p>acme</p>");
    let cloud = Cloud::start();
    cloud.deployed(&project);
    std::fs::remove_dir_all(project.path("assets/acme")).expect("a folder");
    project.write("packs/tiny/public/app.css", "p { color: red }");
    let before = cloud.scripts();
    let ended = cloud.engine(&project).deploy();
    assert_ne!(ended.exit(), Exit::Done, "it is reported");
    assert!(ended.heard.contains(&Heard::Applied("t-bolt".to_owned())), "{:#?}", ended.heard);
    let after = cloud.scripts();
    assert_eq!(before["t-acme"], after["t-acme"], "the one with the mistake stays as it is");
    assert_ne!(before["t-bolt"].1, after["t-bolt"].1);
}

#[test]
fn a_site_answers_as_at_cloudflare() {
    let project = site(&[("acme", "")]);
    let cloud = Cloud::with_workerd();
    cloud.deployed(&project);
    let (status, headers, body) = ask(&cloud, "t-acme", "/");
    assert_eq!((status, body.as_str()), (200, "<p>index</p>"));
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["x-of"], "site", "_headers");
    let (status, headers, _) = ask(&cloud, "t-acme", "/old");
    assert_eq!((status, headers["location"].as_str()), (301, "/docs/"), "_redirects");
    let (status, headers, _) = ask(&cloud, "t-acme", "/docs");
    assert_eq!((status, headers["location"].as_str()), (307, "/docs/"));
    assert_eq!(ask(&cloud, "t-acme", "/docs/").2, "<p>docs</p>");
    assert_eq!(ask(&cloud, "t-acme", "/index.html").0, 307);
    let (status, _, body) = ask(&cloud, "t-acme", "/nothing");
    assert_eq!((status, body.as_str()), (404, "<p>nothing here</p>"));
    for hidden in ["/_headers", "/_redirects"] {
        assert_eq!(ask(&cloud, "t-acme", hidden).0, 404, "{hidden}");
    }

    project.edit(PACK, "404-page", "single-page-application");
    cloud.deployed(&project);
    let (status, _, body) = ask(&cloud, "t-acme", "/nothing");
    assert_eq!((status, body.as_str()), (200, "<p>index</p>"));
}

#[test]
fn code_and_files_answer_in_the_order_that_is_set() {
    let project = with_code(&[("acme", "")], ", runWorkerFirst: ['/api/*', '!/api/file.txt']");
    let cloud = Cloud::with_workerd();
    cloud.deployed(&project);
    assert_eq!(ask(&cloud, "t-acme", "/app.css").2, "p {}");
    assert_eq!(ask(&cloud, "t-acme", "/other").2, "code");
    assert_eq!(ask(&cloud, "t-acme", "/through").2, "p {}", "the binding");
    assert_eq!(ask(&cloud, "t-acme", "/api/file.txt").2, "a file");
    assert_eq!(ask(&cloud, "t-acme", "/api/more").2, "code");
    project.edit(PACK, "runWorkerFirst: ['/api/*', '!/api/file.txt']", "runWorkerFirst: true");
    cloud.take();
    cloud.deployed(&project);
    assert_eq!(counts(&cloud.take()), [0, 0, 1], "the files stay");
    assert_eq!(ask(&cloud, "t-acme", "/app.css").2, "code");
    is_up_to_date(&cloud, &project);
}

#[test]
fn files_that_somebody_else_changed_are_drift_and_are_restored() {
    let project = site(&[("acme", ""), ("bolt", "")]);
    let cloud = Cloud::with_workerd();
    cloud.deployed(&project);
    // wrangler sends no tags, and a site has no code: neither the tags nor the ETag show the change.
    let (theirs, home) = (Project::at(temporary_folder()), temporary_folder());
    let (date, files) = ("2026-06-01", json!({"directory": "public"}));
    let config = json!({"name": "t-acme", "compatibility_date": date, "preview_urls": false, "assets": files});
    theirs.write("wrangler.json", config.to_string()).write("public/index.html", "<p>theirs</p>");
    let mut command = wrangler(theirs.root(), home.path());
    command.arg("deploy").env("CLOUDFLARE_API_BASE_URL", cloud.base());
    command.env("CLOUDFLARE_API_TOKEN", "test-token").env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);
    let before = cloud.scripts();
    crate::wrangler::run(&mut command, home.path());
    assert_eq!(cloud.scripts(), before);
    assert_eq!(ask(&cloud, "t-acme", "/").2, "<p>theirs</p>");

    let planned = cloud.engine(&project).plan_with(|request| request.refresh = true);
    let [("t-acme", [Reason::ChangedOutside { by: Some(by), .. }])] = reasons(&planned.plan)[..] else {
        panic!("{:#?}", planned.plan.changes)
    };
    assert_eq!(by, "wrangler");
    cloud.take();
    cloud.engine(&project).deploy_with(|request| request.plan.refresh = true).exits(Exit::Done);
    // The files are still there, so that only the list is sent.
    assert_eq!(counts(&cloud.take()), [1, 0, 1]);
    assert_eq!(ask(&cloud, "t-acme", "/").2, "<p>index</p>");
    assert_eq!(ask(&cloud, "t-acme", "/app.css").2, "p {}");
    is_up_to_date(&cloud, &project);
}

#[test]
fn the_state_is_rebuilt_with_the_files() {
    let project = site(&[("acme", "")]);
    let cloud = Cloud::start();
    cloud.deployed(&project);
    for entry in std::fs::read_dir(project.path(".flotilla")).expect("the folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("state") {
            std::fs::remove_file(entry.path()).expect("a file of the state");
        }
    }
    cloud.engine(&project).rebuild();
    is_up_to_date(&cloud, &project);
    project.write("packs/tiny/public/app.css", "p { color: red }");
    cloud.deployed(&project);
    is_up_to_date(&cloud, &project);
}

#[test]
fn the_token_of_a_session_is_in_no_file_of_the_project() {
    let project = site(&[("acme", "")]);
    let cloud = Cloud::start();
    assert_eq!(cloud.deployed(&project).applied, 1);
    let found = std::process::Command::new("grep")
        .args(["-rlE", "\"jwt\"|eyJ[A-Za-z0-9_-]{8,}"])
        .arg(project.path(".flotilla"))
        .arg(project.path("out"))
        .output()
        .expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn a_deploy_that_is_killed_leaves_no_worker_with_the_wrong_files() {
    for (method, path) in [("POST", "/assets-upload-session"), ("POST", "/assets/upload"), ("PUT", "scripts/t-acme")] {
        for is_reverted in [true, false] {
            let project = with_code(&[("acme", "")], "");
            let cloud = Cloud::start();
            cloud.deployed(&project);
            let before = cloud.assets();
            project.write("packs/tiny/public/app.css", "p { color: red }");
            cloud.take();
            // The request is carried out, its answer never comes.
            cloud.faults(&json!([{"match": {"method": method, "path": path}, "times": 0, "do": {"reset": "after"}}]));
            let mut command = cloud.command(&project, &["deploy", "--yes"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            until("the request is sent", || {
                cloud.requests().iter().any(|request| {
                    request.entry["method"] == method
                        && request.entry["path"].as_str().is_some_and(|found| found.contains(path))
                })
            });
            child.kill().expect("it is killed");
            child.wait().expect("it is gone");
            cloud.clear_faults();
            if is_reverted {
                project.write("packs/tiny/public/app.css", "p {}");
            }
            cloud.engine(&project).deploy().exits(Exit::Done);
            assert_eq!(cloud.assets() == before, is_reverted, "{method} {path}");
            is_up_to_date(&cloud, &project);
        }
    }
}
