//! Shows: what layers, env files, roles and references between workers come to, and that hostile ones are told in time.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use flotilla_build::build;
use flotilla_model::customer::Worker;
use flotilla_model::progress::Silent;
use serde_json::{Value, json};

use super::fleet::{cache, fleet};
use super::folders::temporary_folder;
use super::support::{Project, output, timed};

/// What a project comes to: its workers by folder, and `code file:line message` of each mistake.
struct Found {
    workers: BTreeMap<String, Worker>,
    told: Vec<String>,
}

fn find(project: &Project) -> Found {
    let (workers, diagnostics) = match build::load(project.root(), &Silent) {
        Ok(loaded) => (loaded.workers, loaded.scan.diagnostics),
        Err(diagnostics) => (Vec::new(), diagnostics),
    };
    Found {
        workers: workers.into_iter().map(|worker| (worker.folder(), worker)).collect(),
        told: diagnostics.iter().map(|found| format!("{} {} {}", found.code, found.place, found.message)).collect(),
    }
}

impl Found {
    #[track_caller]
    fn well(self) -> Found {
        assert_eq!(self.told, Vec::<String>::new());
        self
    }

    #[track_caller]
    fn worker(&self, folder: &str) -> &Worker {
        self.workers.get(folder).unwrap_or_else(|| panic!("{folder}: {:?}", self.workers.keys()))
    }

    #[track_caller]
    fn var(&self, folder: &str, name: &str) -> Value {
        self.worker(folder).vars.get(name).cloned().unwrap_or(Value::Null)
    }

    /// The one mistake has these words in it.
    #[track_caller]
    fn tells(&self, words: &[&str]) {
        assert_eq!(self.told.len(), 1, "{:?}", self.told);
        for word in words {
            assert!(self.told[0].contains(word), "{word:?} is not in {:?}", self.told[0]);
        }
    }
}

const FLEET: &str = "name: test\npacks: { tiny: { path: packs/tiny } }\n";
const SUBDOMAIN: &str = "accounts: { default: { id: { env: ID }, token: { secret: TOKEN }, subdomain: sub } }\n";

/// A project of one customer, with this after the usual lines of fleet.yaml.
fn one(more: &str, spec: &str) -> Project {
    let project = fleet(&[("acme", spec)]);
    project.write("fleet.yaml", format!("{FLEET}{more}"));
    project
}

#[test]
fn stronger_sources_win_in_each_environment_and_role() {
    let rows = |source: &str| {
        // Each source sets four variables, each at another of its places, and one at all of them.
        format!(
            "vars: {{ ALL: {source}, {source}_ALWAYS: x }}\n\
             environments: {{ production: {{}}, staging: {{ vars: {{ ALL: {source}-staging, STAGING: {source} }} }} }}\n\
             workers:\n  web:\n    vars: {{ ROLE: {source} }}\n    environments: {{ production: {{}}, staging: {{ vars: {{ BOTH: {source} }} }} }}\n  api: {{}}\n"
        )
    };
    let indented = |source: &str| rows(source).trim_end().replace('\n', "\n  ");
    let project = one(
        &format!(
            "layers: {{ gold: {{ when: {{ tier: [gold] }} }}, x: {{}} }}\ndefaults:\n  {}\n",
            indented("defaults")
        ),
        "",
    );
    let spec = |text: &str| {
        project.write("customers/acme.yaml", format!("id: acme\nlabels: {{ tier: gold }}\nlayers: [x]\n{text}"));
    };
    project.write("layers/gold.yaml", rows("gold")).write("layers/x.yaml", rows("x"));
    spec(&rows("spec"));
    let check = |wanted: &str| {
        let found = find(&project).well();
        let names = ["production/acme/api", "production/acme/web", "staging/acme/api", "staging/acme/web"];
        assert_eq!(found.workers.keys().collect::<Vec<_>>(), names);
        assert_eq!(found.var("production/acme/web", "ALL"), wanted);
        assert_eq!(found.var("staging/acme/web", "ALL"), format!("{wanted}-staging"));
        assert_eq!(found.var("staging/acme/web", "BOTH"), wanted);
        assert_eq!(found.var("staging/acme/api", "STAGING"), wanted);
        assert_eq!(found.var("production/acme/web", "ROLE"), wanted);
        assert_eq!(found.var("staging/acme/web", "ROLE"), wanted);
        // Nothing of one place is at another.
        for (folder, name) in
            [("production/acme/web", "BOTH"), ("staging/acme/api", "BOTH"), ("production/acme/api", "ROLE")]
        {
            assert_eq!(found.var(folder, name), Value::Null, "{folder} {name}");
        }
        assert_eq!(found.var("production/acme/web", "STAGING"), Value::Null);
        assert_eq!(found.var("production/acme/web", "defaults_ALWAYS"), "x");
    };
    check("spec");
    spec("");
    check("x");
    project.write("layers/x.yaml", "logLevel: info\n");
    check("gold");
    project.write("layers/gold.yaml", "logLevel: info\n");
    check("defaults");

    // A weaker source's role always comes before a stronger one's environment: sources are laid over each other whole.
    project.write("layers/gold.yaml", "workers: { web: { vars: { ALL: role-of-gold } } }\n");
    project.write("layers/x.yaml", "environments: { staging: { vars: { ALL: staging-of-x } } }\n");
    let found = find(&project).well();
    assert_eq!(found.var("production/acme/web", "ALL"), "role-of-gold");
    assert_eq!(found.var("staging/acme/web", "ALL"), "staging-of-x");
}

#[test]
fn roles_are_those_of_all_sources_and_environments_are_added() {
    let project =
        one("defaults: { workers: { web: {}, api: {} }, environments: { production: {}, staging: {} } }\n", "");
    let folders = |spec: &str| {
        project.write("customers/acme.yaml", format!("id: acme\n{spec}"));
        find(&project).well().workers.into_keys().collect::<Vec<_>>()
    };
    let four = ["production/acme/api", "production/acme/web", "staging/acme/api", "staging/acme/web"];
    assert_eq!(folders(""), four);
    assert_eq!(folders("workers: { api: null }\n"), ["production/acme/web", "staging/acme/web"]);
    assert_eq!(folders("workers: { api: null, web: null }\n"), ["production/acme", "staging/acme"]);
    let six = [&["development/acme/api", "development/acme/web"][..], &four].concat();
    assert_eq!(folders("environments: { development: {} }\n"), six);
    assert_eq!(folders("environments: { staging: null }\n"), ["production/acme/api", "production/acme/web"]);
    assert_eq!(folders("environments: { production: ~ }\n"), ["staging/acme/api", "staging/acme/web"]);
    assert_eq!(folders("environments: {}\n"), four, "none is no answer");
    assert_eq!(folders("environments: { production: }\n"), four, "a key without a value removes nothing");
    let environments =
        "environments: { production: null }\nworkers: { api: { environments: { production:, staging: null } } }\n";
    assert_eq!(folders(environments), ["production/acme/api", "staging/acme/web"], "a role comes over its customer");
    assert_eq!(
        folders("workers: { api: { environments: { production: null } }, cron: {} }\n"),
        ["production/acme/cron", "production/acme/web", "staging/acme/api", "staging/acme/cron", "staging/acme/web"]
    );
    // Names differ where folders do.
    let names: Vec<String> = find(&project).well().workers.into_values().map(|worker| worker.name).collect();
    assert_eq!(names, ["t-acme-cron", "t-acme-web", "t-acme-api-staging", "t-acme-cron-staging", "t-acme-web-staging"]);
}

#[test]
fn env_files_hold_where_they_say_and_lie_where_they_should() {
    let layers = "layers:\n  weak: { when: { tier: gold } }\n  env: { when: { tier: gold }, envFiles: envs }\n  strong: { when: { tier: gold } }\n";
    let project = one(layers, "labels: { tier: gold }\nenvironments: { production: {}, staging: {} }\n");
    project
        .write("layers/weak.yaml", "vars: { A: weak, B: weak, C: weak, D: weak }\n")
        .write("layers/strong.yaml", "vars: { D: strong }\n")
        .write("envs/base/1.env", "A=first\nB=first\nD=first\n")
        .write("envs/base/2.env", "B=second\n")
        .write("envs/base/notes.txt", "no equals\n")
        .write("envs/customers/acme/staging.env", "B=own\nC='${HOME} $(id)'\n")
        .write("envs/customers/acme/elsewhere.env", "B=never\n")
        .write("envs/customers/other/production.env", "B=never\n");
    // Files that nobody reads are reported, and no others.
    let unread = find(&project).told;
    let told: Vec<&str> = unread.iter().map(|told| told.split(' ').nth(1).unwrap()).collect();
    assert_eq!(told, ["envs/customers/acme/elsewhere.env", "envs/customers/other/production.env"], "{unread:?}");
    assert!(unread.iter().all(|told| told.starts_with("Y0112 ")), "{unread:?}");
    std::fs::remove_file(project.path("envs/customers/acme/elsewhere.env")).unwrap();
    std::fs::remove_dir_all(project.path("envs/customers/other")).unwrap();
    let found = find(&project).well();
    let vars = |folder: &str| ["A", "B", "C", "D"].map(|name| found.var(folder, name));
    assert_eq!(vars("production/acme"), ["first", "second", "weak", "strong"]);
    assert_eq!(vars("staging/acme"), ["first", "own", "${HOME} $(id)", "strong"]);

    // What is no file of the project's is told, and its customer held or the fleet stopped.
    let secret = temporary_folder();
    std::fs::create_dir(secret.path().join("base")).unwrap();
    std::fs::write(secret.path().join("base/x.env"), "LEAK=canary\n").unwrap();
    let own = project.path("envs/customers/acme/production.env");
    symlink(secret.path().join("base/x.env"), &own).unwrap();
    find(&project).tells(&["Y0104 envs/customers/acme/production.env", "symbolic link"]);
    std::fs::remove_file(&own).unwrap();
    symlink("nowhere", &own).unwrap();
    find(&project).tells(&["Y0104 envs/customers/acme/production.env"]);
    std::fs::remove_file(&own).unwrap();
    std::fs::create_dir(&own).unwrap();
    find(&project).tells(&["Y0104 envs/customers/acme/production.env", "not a regular file"]);
    std::fs::remove_dir(&own).unwrap();
    // Whoever opens it waits for ever.
    let pipe = project.path("envs/base/pipe.env");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    find(&project).tells(&["Y0104 envs/base/pipe.env", "not a regular file"]);
    std::fs::remove_file(&pipe).unwrap();
    std::fs::File::create(project.path("envs/base/huge.env")).unwrap().set_len(1 << 40).unwrap();
    find(&project).tells(&["Y0103 envs/base/huge.env"]);
    std::fs::remove_file(project.path("envs/base/huge.env")).unwrap();
    project.write("envs/base/3.env", b"A=\xff\n");
    find(&project).tells(&["Y0102 envs/base/3.env:1"]);
    std::fs::remove_file(project.path("envs/base/3.env")).unwrap();
    find(&project).well();

    // Folders that are none of the project's. The other layers are gone, and their files are read by nobody.
    std::fs::remove_dir_all(project.path("layers")).unwrap();
    let relative = format!("envs/../../{}", secret.path().file_name().unwrap().to_string_lossy());
    for folder in [relative.as_str(), "..", "envs/..", "/etc", "./envs", "envs\\\\base", ""] {
        project.write(
            "fleet.yaml",
            format!("{FLEET}layers: {{ env: {{ when: {{ tier: gold }}, envFiles: \"{folder}\" }} }}\n"),
        );
        let found = find(&project);
        assert_eq!(found.told.len(), 1, "{folder}: {:?}", found.told);
        assert!(["F0506", "S0205"].contains(&&found.told[0][..5]), "{folder}: {:?}", found.told);
        assert!(!format!("{:?}", found.workers).contains("canary"));
    }
    project.write("fleet.yaml", format!("{FLEET}layers: {{ env: {{ when: {{ tier: gold }}, envFiles: nowhere }} }}\n"));
    find(&project).tells(&["F0506 fleet.yaml:3", "there is no folder `nowhere`"]);
}

#[test]
fn layers_are_files_of_layers_and_nothing_else() {
    for name in ["../customers/acme", "a/b", "..", "", "A", "x.yaml"] {
        let project = one(&format!("layers: {{ \"{name}\": {{}} }}\n"), "");
        let found = find(&project);
        assert!(
            found.workers.is_empty() && found.told.iter().any(|told| told.starts_with("S0205 fleet.yaml:3")),
            "{:?}",
            found.told
        );
    }
    let project = one("layers: { x: {} }\n", "layers: [\"../../etc/passwd\"]\n");
    // What is wrong with the one hides nothing of the other.
    let told = find(&project).told;
    let [customer, layer] = told.as_slice() else { panic!("{told:?}") };
    assert!(customer.starts_with("S0209 customers/acme.yaml:2"), "{told:?}");
    assert!(layer.starts_with("F0506 fleet.yaml:3") && layer.contains("there is no layers/x.yaml"), "{told:?}");
    project.write("layers/x.yaml", "logLevel: info\n");
    find(&project).tells(&["S0209 customers/acme.yaml:2", "there is no layer"]);
    project.write("customers/acme.yaml", "id: acme\nlayers: [x, x]\n");
    find(&project).tells(&["customers/acme.yaml:2"]);

    project.write("customers/acme.yaml", "id: acme\nlayers: [x]\n");
    let file = project.path("layers/x.yaml");
    std::fs::remove_file(&file).unwrap();
    symlink(project.path("customers/acme.yaml"), &file).unwrap();
    find(&project).tells(&["Y0104 layers/x.yaml", "symbolic link"]);
    std::fs::remove_file(&file).unwrap();
    // A layer isn't a customer.
    for (text, code) in
        [("id: acme\n", "S0201"), ("layers: [x]\n", "S0201"), ("vars: {\n", "Y0106"), ("- 1\n", "S0202")]
    {
        project.write("layers/x.yaml", text);
        let found = find(&project);
        assert!(
            found.workers.is_empty()
                && found.told.iter().any(|told| told.starts_with(&format!("{code} layers/x.yaml:1"))),
            "{text:?}: {:?}",
            found.told
        );
    }
    // A secret in a layer is none of the output's.
    project.write("layers/x.yaml", "secrets: { KEY: canary-5f0c1 }\n");
    let found = find(&project);
    assert!(found.workers.is_empty() && !format!("{:?}", found.told).contains("canary"), "{:?}", found.told);
}

#[test]
fn bombs_end_in_time_and_hold_their_customer_alone() {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let laughs = {
        let list = |of: &str| [of; 9].join(", ");
        let mut text = format!("vars:\n  A0: &a0 [{}]\n", list("lol"));
        for at in 1..10 {
            text += &format!("  A{at}: &a{at} [{}]\n", list(&format!("*a{}", at - 1)));
        }
        text
    };
    let bombs = [
        ("aliases", laughs),
        ("variables", format!("vars:\n{}", lines(50_000, &|at| format!("  A{at}: x\n")))),
        (
            "roles",
            format!("workers:\n{}", lines(30_000, &|at| format!("  r{at}: {{ services: {{ N: r{} }} }}\n", at + 1))),
        ),
        (
            "roles that miss",
            format!("workers:\n{}", lines(100, &|at| format!("  r{at}: {{ services: {{ N: none }} }}\n"))),
        ),
        (
            "one list",
            format!("domains:\n{}  - a0.example.com\n", lines(50_000, &|at| format!("  - a{at}.example.com\n"))),
        ),
        ("depth", format!("vars: {{ A: {}1{} }}\n", "[".repeat(10_000), "]".repeat(10_000))),
    ];
    for (what, spec) in bombs {
        let project = one("layers: { bomb: {} }\n", &format!("layers: [bomb]\n{spec}"));
        let layer = match what {
            "variables" => format!("vars:\n{}", lines(30_000, &|at| format!("  A{at}: null\n"))),
            _ => "logLevel: info\n".to_owned(),
        };
        project.write("layers/bomb.yaml", layer);
        project.write("customers/good.yaml", "id: good\n");
        let (run, took) = timed(project.command(&["build"]).env("FLOTILLA_CACHE_DIR", cache()));
        let run = run.exits(1);
        assert!(took < Duration::from_secs(20), "{what}: {took:?}");
        assert!(run.stderr.len() < 1 << 20, "{what}: {} bytes are told", run.stderr.len());
        assert!(run.stderr.contains("customers/acme.yaml"), "{what}: {}", run.stderr);
        let files: Vec<String> =
            project.files("out").into_keys().filter(|name| !name.starts_with("runtime/")).collect();
        assert_eq!(files, ["production/good/index.ts", "production/good/wrangler.jsonc"], "{what}");
    }
}

#[test]
fn partials_that_go_round_in_circles_are_told() {
    let circles = [
        ("{% include \"a.tera\" %}", "{% include \"b.tera\" %}", "{% include \"a.tera\" %}", "P0602"),
        ("{% include \"a.tera\" %}", "{% include \"a.tera\" %}", "", "P0602"),
        ("{% extends \"a.tera\" %}", "{% extends \"b.tera\" %}", "{% extends \"a.tera\" %}", "P0602"),
        ("{{ <round/> }}", "{% component round() %}{{ <round/> }}{% endcomponent %}", "", "P0603"),
        ("{% include \"../../fleet.yaml\" %}", "", "", "P0602"),
    ];
    for (index, a, b, code) in circles {
        let project = one("", "");
        project.write("packs/tiny/index.ts.tera", index).write("packs/tiny/a.tera", a).write("packs/tiny/b.tera", b);
        let run = output(project.command(&["build"]).env("FLOTILLA_CACHE_DIR", cache())).exits(1);
        assert!(run.stderr.contains(&format!("error[{code}]")), "{index}: {}", run.stderr);
        assert!(run.stderr.contains("packs/tiny/"), "{index}: {}", run.stderr);
        assert!(!project.path("out/production").exists());
    }
}

#[test]
fn service_bindings_name_workers_in_any_order() {
    let spec = |text: &str| find(&one("", &format!("workers:\n{text}")));
    let found =
        spec("  web: { services: { API: api, AUTH: auth } }\n  api: { services: { AUTH: auth } }\n  auth: {}\n").well();
    let services = |folder: &str| json!(found.worker(folder).services);
    assert_eq!(services("production/acme/web"), json!({"API": "t-acme-api", "AUTH": "t-acme-auth"}));
    assert_eq!(services("production/acme/api"), json!({"AUTH": "t-acme-auth"}));

    // Workers may call themselves and each other.
    let round =
        spec("  a: { services: { B: b, SELF: a } }\n  b: { services: { C: c } }\n  c: { services: { A: a } }\n").well();
    assert_eq!(json!(round.worker("production/acme/a").services), json!({"B": "t-acme-b", "SELF": "t-acme-a"}));
    assert_eq!(json!(round.worker("production/acme/c").services), json!({"A": "t-acme-a"}));
    spec("  a: { services: { B: b, C: c } }\n  b: { services: { D: d } }\n  c: { services: { D: d } }\n  d: {}\n")
        .well();

    spec("  web: { services: { API: apy } }\n  api: {}\n")
        .tells(&["S0209 customers/acme.yaml:3", "there is no worker `apy`"]);
    spec("  web: { services: { API: api } }\n  api: { environments: { production: null, staging: {} } }\n")
        .tells(&["customers/acme.yaml:3", "doesn't exist in production, only in staging"]);
    // A variable of the same name, or a name that is taken.
    let found = spec("  web: { services: { API: api }, vars: { API: x } }\n  api: {}\n");
    found.tells(&["`API` is a service binding, but is also used for something else"]);
    // `null` takes back what the defaults say.
    let project = one(
        "defaults: { services: { AUTH: auth } }\nsharedWorkers: { auth: { services: { AUTH: null } } }\n",
        "services: { AUTH: null }\n",
    );
    assert!(find(&project).well().worker("production/acme").services.is_empty());
}

#[test]
fn addresses_are_known_or_missed() {
    let spec = |more: &str, text: &str| find(&one(more, text));
    let url = "  web: { vars: { API: { workerUrl: api } } }\n";
    let api = |more: &str, api: &str| spec(more, &format!("workers:\n{url}  api: {api}\n"));
    let address = |found: Found| found.well().var("production/acme/web", "API");
    assert_eq!(address(api(SUBDOMAIN, "{}")), "https://t-acme-api.sub.workers.dev");
    assert_eq!(address(api("", "{ domains: [api.acme.example] }")), "https://api.acme.example");
    assert_eq!(
        address(api(
            "",
            "{ routes: [{ pattern: \"*.acme.example/*\", zone: acme.example }, { pattern: shop.acme.example/api/*, zone: acme.example }] }"
        )),
        "https://shop.acme.example"
    );
    api("", "{}").tells(&["customers/acme.yaml:3", "`api` has no address in production"]);
    api(SUBDOMAIN, "{ workersDev: false, routes: [{ pattern: \"*.acme.example/*\", zone: acme.example }] }")
        .tells(&["has no address"]);
    // By address, they may call each other, and themselves.
    let round = spec(SUBDOMAIN, "workers:\n  a: { vars: { B: { workerUrl: b }, A: { workerUrl: a } } }\n  b: { vars: { A: { workerUrl: a } } }\n").well();
    assert_eq!(round.var("production/acme/b", "A"), "https://t-acme-a.sub.workers.dev");
    assert_eq!(round.var("production/acme/a", "A"), "https://t-acme-a.sub.workers.dev");
    // Each environment has its own.
    let each =
        spec(SUBDOMAIN, &format!("environments: {{ production: {{}}, staging: {{}} }}\nworkers:\n{url}  api: {{}}\n"))
            .well();
    assert_eq!(each.var("staging/acme/web", "API"), "https://t-acme-api-staging.sub.workers.dev");
    spec(SUBDOMAIN, "vars: { A: { workerUrl: nobody } }\n").tells(&["S0209", "there is no worker `nobody`"]);
    spec(SUBDOMAIN, "vars: { A: { workerUrl: [a] } }\n").tells(&["`workerUrl` of `A` must be the name of a worker"]);
    // A map that has more in it is a value like any other.
    let value = spec("", "vars: { A: { workerUrl: x, more: 1 } }\n").well();
    assert_eq!(value.var("production/acme", "A"), json!({"workerUrl": "x", "more": 1}));
}

#[test]
fn shared_workers_serve_all_customers_in_their_environments() {
    let shared = "sharedWorkers: { auth: { environments: { production: {}, staging: {} } }, log: {} }\n";
    let project = one(&format!("{SUBDOMAIN}{shared}"), "services: { AUTH: auth }\nvars: { LOG: { workerUrl: log } }\n");
    project
        .write("customers/bluebird.yaml", "id: bluebird\nworkers: { auth: {}, web: { services: { AUTH: auth } } }\n");
    let found = find(&project).well();
    assert_eq!(found.worker("production/acme").services["AUTH"], "test-auth");
    assert_eq!(found.var("production/acme", "LOG"), "https://test-log.sub.workers.dev");
    assert_eq!(found.worker("staging/_shared/auth").name, "test-auth-staging");
    // An own worker of that name is nearer.
    assert_eq!(found.worker("production/bluebird/web").services["AUTH"], "t-bluebird-auth");

    project
        .write("customers/acme.yaml", "id: acme\nenvironments: { staging: {} }\nservices: { AUTH: auth, LOG: log }\n");
    find(&project).tells(&["customers/acme.yaml:3", "`log` doesn't exist in staging, only in production"]);

    // Shared workers may refer to each other, and not to customers' workers: that stops the fleet.
    let stopped = |shared: &str| {
        project.write("fleet.yaml", format!("{FLEET}{SUBDOMAIN}sharedWorkers: {shared}\n"));
        let found = find(&project);
        assert!(found.workers.is_empty());
        found
    };
    project.write("customers/acme.yaml", "id: acme\n");
    project.write(
        "fleet.yaml",
        format!(
            "{FLEET}{SUBDOMAIN}sharedWorkers: {{ a: {{ services: {{ B: b }} }}, b: {{ services: {{ A: a }} }} }}\n"
        ),
    );
    assert_eq!(find(&project).well().worker("production/_shared/b").services["A"], "test-a");
    assert!(
        stopped("{ a: { services: { WEB: web } } }").told.iter().any(|told| told.contains("there is no worker `web`"))
    );

    // Neither over accounts, nor in a namespace.
    let two = "accounts:\n  default: { id: { env: ID }, token: { secret: TOKEN } }\n  other: { id: { env: ID2 }, token: { secret: TOKEN2 } }\n  spaced: { id: { env: ID3 }, token: { secret: TOKEN3 }, dispatchNamespace: space }\n";
    for (account, words) in [("other", "is in the account `other`"), ("spaced", "dispatch namespace `space`")] {
        let project =
            one(&format!("{two}sharedWorkers: {{ auth: {{ account: {account} }} }}\n"), "services: { AUTH: auth }\n");
        find(&project).tells(&["customers/acme.yaml:2", words]);
    }
    // No customer can be called as the shared ones are.
    let project = one("", "");
    project.write("customers/_shared.yaml", "id: _shared\n");
    assert!(find(&project).told.iter().all(|told| told.contains("customers/_shared.yaml")));
    assert!(!find(&project).told.is_empty());
}
