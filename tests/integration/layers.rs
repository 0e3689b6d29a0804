//! Shows: what layers, roles and shared workers come to: in `show`, under out/, in real wrangler's eyes, and deployed.

use serde_json::{Value, json};

use crate::cases::{cache, tiny};
use crate::fleet::{Cloud, fleet};
use crate::support::{Project, Run};

fn run(project: &Project, arguments: &[&str]) -> Run {
    project.run_with(arguments, &[cache()])
}

/// A project with a fleet.yaml that goes on as given.
fn project(fleet: &str) -> Project {
    let project = tiny();
    project.write("fleet.yaml", format!("name: test\npacks: {{ tiny: {{ path: templates/tiny }} }}\n{fleet}"));
    project
}

fn workers(project: &Project, arguments: &[&str]) -> Vec<Value> {
    let shown = run(project, &[&["show", "--format", "json"], arguments].concat()).exits(0).json();
    shown["workers"].as_array().expect("a list").clone()
}

#[test]
fn layers_lie_over_each_other_and_each_value_tells_its_place() {
    let project = project(
        "layers: { gold: { when: { tier: [gold, platinum] } }, eu: { when: { region: eu } }, beta: }\n\
         defaults:\n  logLevel: warn\n  vars: { A: default, B: default, C: default, D: default, MAP: { x: 1, y: 1 } }\n  \
         trustedOrigins: [https://default.example]\n  environments: { production: { vars: { D: of production } } }\n",
    );
    project
        .write("layers/gold.yaml", "vars: { B: gold, C: gold }\ntrustedOrigins+: [https://gold.example]\n")
        .write("layers/eu.yaml", "vars: { C: eu, MAP: { y: 2 } }\nenvironments: { staging: { logLevel: debug } }\n")
        .write("layers/beta.yaml", "vars: { A: null, BETA: true }\nlogLevel: error\n")
        .write(
            "customers/acme.yaml",
            "id: acme\nlabels: { tier: gold, region: eu }\nlayers: [beta]\nvars: { E: acme }\n\
             trustedOrigins+: [https://acme.example]\nenvironments: { production: , staging: { vars: { E: null } } }\n",
        )
        .write("customers/plain.yaml", "id: plain\n");
    let all = workers(&project, &[]);
    let acme = all.iter().find(|worker| worker["name"] == "tiny-acme").expect("acme");
    assert_eq!(
        acme["vars"],
        json!({"B": "gold", "BETA": true, "C": "eu", "D": "of production", "E": "acme", "MAP": {"x": 1, "y": 2}})
    );
    assert_eq!(acme["logLevel"], "error", "a layer that is listed is stronger than those that labels choose");
    assert_eq!(
        acme["trustedOrigins"],
        json!(["https://default.example", "https://gold.example", "https://acme.example"])
    );
    let staging = all.iter().find(|worker| worker["environment"] == "staging").expect("staging");
    assert_eq!((&staging["vars"]["D"], staging["vars"].get("E")), (&json!("default"), None));
    let plain = all.iter().find(|worker| worker["name"] == "tiny-plain").expect("plain");
    assert_eq!((&plain["vars"]["A"], &plain["logLevel"]), (&json!("default"), &json!("warn")));

    let origins = &acme["origins"];
    let place = |path: &str| origins[path].as_str().unwrap_or_else(|| panic!("{path} in {origins:#}")).to_owned();
    assert_eq!(place("vars.B"), "layers/gold.yaml:1:12");
    assert_eq!(place("vars.D"), "fleet.yaml:8:44");
    assert_eq!(place("vars.MAP.x"), "fleet.yaml:6:69");
    assert_eq!(place("vars.MAP.y"), "layers/eu.yaml:1:26");
    assert_eq!(place("vars.BETA"), "layers/beta.yaml:1:24");
    assert_eq!(place("trustedOrigins[1]"), "layers/gold.yaml:2:19");
    assert_eq!(place("trustedOrigins[2]"), "customers/acme.yaml:5:19");
    assert_eq!(
        (place("logLevel"), place("crons"), place("name")),
        ("layers/beta.yaml:2:11".into(), "default".into(), "derived".into())
    );
    let text = run(&project, &["show", "acme", "--env", "production"]).exits(0).stdout;
    assert!(
        text.lines().any(|line| line.starts_with("  B: gold ") && line.ends_with("# layers/gold.yaml:1:12")),
        "{text}"
    );
}

#[test]
fn env_files_are_a_layer() {
    let project = project("layers: { legacy: { when: { old: \"yes\" }, envFiles: config } }\n");
    project
        .write("config/base/variables.base.env", "SHARED=base\nOWN=base\n# a comment\n")
        .write("config/customers/acme/production.env", "OWN=\"of acme\"\nexport URL=https://acme.example # why\n")
        .write("config/customers/acme/staging.env", "OWN=staging\n")
        .write("customers/acme.yaml", "id: acme\nlabels: { old: \"yes\" }\nenvironments: { production: , staging: }\n")
        .write("customers/none.yaml", "id: none\n");
    let all = workers(&project, &[]);
    let vars = |name: &str| all.iter().find(|worker| worker["name"] == name).expect(name)["vars"].clone();
    assert_eq!(vars("tiny-acme"), json!({"OWN": "of acme", "SHARED": "base", "URL": "https://acme.example"}));
    assert_eq!(vars("tiny-acme-staging"), json!({"OWN": "staging", "SHARED": "base"}));
    assert_eq!(vars("tiny-none"), json!({}));
    run(&project, &["build"]).exits(0);
    let rendered = |expected: u64| {
        let built = run(&project, &["build", "--format", "json"]).exits(0).json();
        assert_eq!(built["rendered"], expected, "{built}");
    };
    rendered(0);
    project.write("config/customers/acme/staging.env", "OWN=other\n");
    rendered(1);
    project.write("config/customers/acme/development.env", "OWN=nobody\n");
    rendered(0);
    project.write("config/base/more.env", "MORE=1\n");
    rendered(2);
    std::fs::remove_file(project.path("config/customers/acme/staging.env")).expect("a file");
    rendered(1);
    // Credentials in such files are told, and go nowhere.
    project.write("config/customers/acme/production.env", "API_TOKEN=canary-4711\n");
    let told = run(&project, &["build"]).exits(1);
    assert!(told.stderr.contains("error[S0206]") && !told.stderr.contains("canary-4711"), "{}", told.stderr);
}

/// A web shop: each customer has web and api, all share auth.
const ROLES: &str = "sharedWorkers:\n  auth: { domains: [auth.example.com], environments: { production: , staging: { domains: [auth-staging.example.com] } } }\n\
defaults:\n  workers:\n    web: { vars: { AUTH_WORKER_URL: { workerUrl: auth }, API_URL: { workerUrl: api } } }\n    \
api: { vars: { WEB_APP_URL: { workerUrl: web } }, services: { AUTH: auth } }\n";

fn shop() -> Project {
    let project = project(ROLES);
    project.write(
        "customers/acme.yaml",
        "id: acme\nworkers:\n  web: { domains: [www.acme.example], environments: { production: , staging: { domains: [staging.acme.example] } } }\n  \
         api: { domains: [api.acme.example], environments: { production: , staging: { domains: [api-staging.acme.example] } } }\n",
    );
    project
}

#[test]
fn workers_by_role_know_each_others_addresses() {
    let project = shop();
    let all = workers(&project, &[]);
    let names: Vec<&str> = all.iter().map(|worker| worker["name"].as_str().expect("a name")).collect();
    assert_eq!(
        names,
        [
            "test-auth-staging",
            "tiny-acme-api-staging",
            "tiny-acme-web-staging",
            "test-auth",
            "tiny-acme-api",
            "tiny-acme-web"
        ]
    );
    let of = |name: &str| all.iter().find(|worker| worker["name"] == name).expect(name);
    assert_eq!(
        of("tiny-acme-web-staging")["vars"],
        json!({"API_URL": "https://api-staging.acme.example", "AUTH_WORKER_URL": "https://auth-staging.example.com"})
    );
    assert_eq!(of("tiny-acme-api")["vars"], json!({"WEB_APP_URL": "https://www.acme.example"}));
    assert_eq!(of("tiny-acme-api")["services"], json!({"AUTH": "test-auth"}));
    assert_eq!(of("tiny-acme-api-staging")["services"], json!({"AUTH": "test-auth-staging"}));
    run(&project, &["build"]).exits(0);
    for folder in ["production/acme/web", "production/acme/api", "staging/acme/web", "production/_shared/auth"] {
        assert!(project.path(&format!("out/{folder}/index.ts")).exists(), "{folder}");
    }
    assert!(project.read("out/production/acme/web/index.ts").contains("../../../runtime/tiny-"));
    // From several workers to one, and back: what is no longer owned goes.
    let spec = project.read("customers/acme.yaml");
    project.write("customers/acme.yaml", "id: acme\nworkers: { web: null, api: null }\n");
    run(&project, &["build"]).exits(0);
    assert!(project.path("out/production/acme/index.ts").exists() && !project.path("out/production/acme/web").exists());
    project.write("customers/acme.yaml", spec);
    run(&project, &["build"]).exits(0);
    assert!(
        project.path("out/production/acme/web/index.ts").exists()
            && !project.path("out/production/acme/index.ts").exists()
    );
    // An address that moves takes its callers with it.
    let spec = project.read("customers/acme.yaml");
    project.write("customers/acme.yaml", spec.replace("www.acme.example", "shop.acme.example"));
    let built = run(&project, &["build", "--explain"]).exits(0).stdout;
    assert!(built.contains("vars.WEB_APP_URL \"https://www.acme.example\" → \"https://shop.acme.example\""), "{built}");
}

#[test]
fn what_refers_to_nothing_is_told_where_it_stands() {
    let told = |spec: &str| {
        let project = shop();
        project.write("customers/bolt.yaml", format!("id: bolt\n{spec}"));
        run(&project, &["check", "bolt"]).exits(1).stderr
    };
    let missing = told("workers: { web: { vars: { X: { workerUrl: aut } }, domains: [w.bolt.example] }, api: null }\n");
    assert!(missing.contains("there is no worker `aut`") && missing.contains("did you mean `auth`?"), "{missing}");
    let elsewhere =
        told("workers: { web: { domains: [w.bolt.example], environments: { development: } }, api: null }\n");
    assert!(elsewhere.contains("error[S0212]: the worker `auth` doesn't exist in development, only in"), "{elsewhere}");
    let nowhere = told("workers: { web: { domains: [w.bolt.example] } }\n");
    assert!(nowhere.contains("error[S0212]: the worker `api` has no address in production"), "{nowhere}");
    assert!(
        nowhere.contains("fleet.yaml:") && nowhere.contains("set `subdomain` of the account `default`"),
        "{nowhere}"
    );
    let own = told("workers: { web: { tailConsumers: [{ role: web }], vars: null, domains: [w.bolt.example] } }\n");
    assert!(own.contains("error[S0213]: a worker can't get its own logs"), "{own}");
}

#[test]
fn workers_are_deployed_after_those_that_they_call() {
    let (cloud, project) = (Cloud::start(), fleet(&[]));
    project.write(
        "customers/acme.yaml",
        "id: acme\nworkers:\n  a: { services: { B: b } }\n  b: { services: { C: c } }\n  c: {}\n  d: { services: { A: a, C: c } }\n",
    );
    let outcome = cloud.deployed(&project);
    assert_eq!((outcome.failed, outcome.applied), (0, 4));
    let uploads: Vec<String> = cloud
        .take()
        .iter()
        .filter(|request| request.what.starts_with("PUT"))
        .map(|request| request.what.rsplit('/').next().expect("a name").to_owned())
        .collect();
    assert_eq!(uploads, ["t-acme-c", "t-acme-b", "t-acme-a", "t-acme-d"]);
}
