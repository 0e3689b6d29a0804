//! Tests that the tables of docs/reference/limits.md match the code, that the local emulator enforces these limits, and that limits are
//! counted across customers, accounts and zones.
//!
//! `UPDATE_DOCS=1 cargo test --test integration limits` regenerates the tables; review the difference.

use flotilla_local::PlatformLimits;
use flotilla_model::failure::Exit;
use flotilla_model::limits::{self, Limit, Plan, Scope, TABLE};
use flotilla_model::text::grouped;

use super::cases::{cache, tiny};
use super::engine::Engine;
use super::support::{Project, Run, repository};

/// A document with what stands between two marks replaced.
pub fn with(document: &str, mark: &str, table: &str) -> String {
    let (before, rest) = document.split_once(&format!("<!-- {mark} -->\n")).unwrap_or_else(|| panic!("no mark {mark}"));
    let (_, after) = rest.split_once("<!-- end -->").expect("the end of the table");
    format!("{before}<!-- {mark} -->\n{table}<!-- end -->{after}")
}

#[test]
fn the_documents_tables_are_the_codes() {
    let mut settable =
        "| `limits` | what is counted | per | free | paid | code |\n|---|---|---|---|---|---|\n".to_owned();
    let mut sources: Vec<&str> = Vec::new();
    for row in &TABLE {
        let scope = match row.scope {
            Scope::Account => "account",
            Scope::Zone => "zone",
            Scope::Worker => "worker",
        };
        let (free, paid) = (grouped(row.free), grouped(row.paid));
        settable += &format!("| `{}` | {} | {scope} | {free} | {paid} | {} |\n", row.key, row.what, row.code);
        if !sources.contains(&row.source) {
            sources.push(row.source);
        }
    }
    settable += &format!("\nSources: {}.\n", sources.join("; "));
    let fixed = format!(
        "| what | limit |\n|---|---|\n\
         | characters in a worker's name | {} |\n\
         | characters in a label of a host name | {} |\n\
         | characters in a host name | {} |\n\
         | tags of a worker; flotilla sets five or six, and up to eight in a preview | {} |\n\
         | API requests per token in {} seconds (set `apiLimit` if yours differs) | {} |\n",
        limits::WORKER_NAME_LENGTH,
        limits::LABEL_LENGTH,
        limits::HOST_LENGTH,
        limits::TAGS,
        limits::API_WINDOW_SECONDS,
        grouped(limits::API_REQUESTS.into()),
    );
    let path = repository().join("docs/reference/limits.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let current = with(&with(&written, "limits", &settable), "fixed", &fixed);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), current, "UPDATE_DOCS=1 regenerates it");
}

#[test]
fn the_cloudflare_on_this_machine_has_the_same_limits() {
    let local = PlatformLimits::default();
    for (limit, there) in [
        (Limit::Workers, local.workers),
        (Limit::Crons, local.crons),
        (Limit::Databases, local.databases),
        (Limit::CustomDomainsPerZone, local.domains),
        (Limit::RoutesPerZone, local.routes),
        (Limit::Variables, local.vars as u64),
        (Limit::VariableBytes, local.var_bytes as u64),
        (Limit::ScriptBytes, local.script_bytes as u64),
        (Limit::AssetFiles, local.asset_files as u64),
    ] {
        assert_eq!(Plan::Paid.limit(limit), there, "{limit:?}");
    }
}

fn fleet(project: &Project, extra: &str) {
    let account = |id: &str| format!("{{ id: {id}, token: {{ secret: CLOUDFLARE_API_TOKEN }}");
    project.write(
        "fleet.yaml",
        format!(
            "name: test\npacks: {{ tiny: {{ path: templates/tiny }} }}\naccounts:\n  one: {} }}\n  two: {}, {extra} }}\n",
            account("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            account("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
        ),
    );
}

fn check(project: &Project) -> Run {
    project.run_with(&["check"], &[cache()])
}

#[test]
fn at_the_limit_is_within_it_and_one_more_is_not() {
    let project = tiny();
    fleet(&project, "plan: free");
    let route = |at: usize| format!("  - {{ pattern: h{at}.shops.example/*, zone: shops.example }}\n");
    let domains =
        |range: std::ops::Range<usize>| -> String { range.map(|at| format!("  - d{at}.shops.example\n")).collect() };
    // Half of them in each of two customers; the other account's zones are counted apart.
    for (id, account, first) in [("a", "one", 0), ("b", "one", 50), ("c", "two", 1000)] {
        let text = format!("id: {id}\naccount: {account}\ndomains:\n{}", domains(first..first + 50));
        project.write(&format!("customers/{id}.yaml"), text);
    }
    let told = check(&project).exits(0);
    assert!(told.stderr.contains(
        "warning[L0410]: the zone `shops.example` (account `one`) is almost full: 100 of 100 custom domains"
    ));
    assert_eq!(told.stdout, "checked 3 customers: 1 warning\n");
    project.edit("customers/b.yaml", "domains:\n", "domains:\n  - more.shops.example\n");
    let told = check(&project).exits(1);
    assert!(
        told.stderr.contains(
            "error[L0405]: 101 custom domains in the zone `shops.example`, which can have 100 (account `one`)"
        )
    );
    assert!(told.stderr.contains("b has 51 of them") && told.stderr.contains("a has 50 of them"), "{}", told.stderr);
    assert!(!told.stderr.contains("account `two`"), "{}", told.stderr);
    // A customer's own routes, a thousand of them, and one more.
    project.edit("customers/b.yaml", "  - more.shops.example\n", "");
    let routes: String = (0..1000).map(route).collect();
    project.write("customers/d.yaml", format!("id: d\naccount: two\nroutes:\n{routes}"));
    check(&project).exits(0);
    // Two entries of one account are counted together.
    project.edit("fleet.yaml", "id: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "id: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    let told = check(&project).exits(1).stderr;
    assert!(told.contains("150 custom domains") && told.contains("c has 50 of them"), "{told}");
    project.edit(
        "fleet.yaml",
        "  two: { id: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "  two: { id: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    );
    project.write("customers/d.yaml", format!("id: d\naccount: two\nroutes:\n{routes}{}", route(1000)));
    let told = check(&project).exits(1);
    assert!(
        told.stderr
            .contains("error[L0406]: 1,001 routes in the zone `shops.example`, which can have 1,000 (account `two`)")
    );
}

#[test]
fn a_full_account_hides_no_mistake_and_raised_limits_hold() {
    let project = tiny();
    fleet(&project, "limits: { workers: 2, crons: 1 }");
    for id in ["a", "b", "c"] {
        project.write(&format!("customers/{id}.yaml"), format!("id: {id}\naccount: two\ncrons: [\"0 1 * * *\"]\n"));
    }
    project.write("customers/d.yaml", "id: d\naccount: one\nlogLevel: loud\ndomains: [\"*.d.example\"]\n");
    for command in [["check"], ["build"]] {
        let told = project.run_with(&command, &[cache()]).exits(1).stderr;
        for code in ["error[L0401]: 3 workers", "error[L0404]: 3 crons", "error[S0204]", "error[N0301]"] {
            assert!(told.contains(code), "{command:?} doesn't tell {code}:\n{told}");
        }
    }
    assert!(!project.path("out/production").exists(), "nothing is built for an account that is full");
    // What builds remember doesn't outlive the limits that it was made under.
    project.write("customers/d.yaml", "id: d\naccount: one\n");
    fleet(&project, "limits: { workers: 3, crons: 3 }");
    project.run_with(&["build"], &[cache()]).exits(0);
    fleet(&project, "limits: { workers: 3, crons: 2 }");
    assert!(project.run_with(&["build"], &[cache()]).exits(1).stderr.contains("error[L0404]"));
    fleet(&project, "limits: { workers: 3, crons: 3, variables: 1 }");
    project.write("customers/a.yaml", "id: a\naccount: two\nvars: { A: b }\n");
    assert!(project.run_with(&["build"], &[cache()]).exits(1).stderr.contains("error[L0402]: 2 variables"));
    fleet(&project, "limits: { workers: 3, crons: 3, scriptBytes: 100 }");
    let told = project.run_with(&["build"], &[cache()]).exits(1);
    assert!(told.stderr.contains("error[L0409]"), "{}", told.stderr);
    // Of the account whose limit it is, none; of the other one, which was built before, all.
    assert!(
        told.stdout.contains("· 1 worker in") && told.stdout.contains("3 customers with errors"),
        "{}",
        told.stdout
    );
}

#[test]
fn a_secret_that_no_binding_holds_is_told_before_anything_is_sent() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\nsecrets: { KEY: { secret: LONG } }\n");
    let deploy = |bytes: usize| {
        project.write(".env", format!("LONG={}\n", "canary".repeat(bytes).split_at(bytes).0));
        project.run_with(&["deploy", "--local"], &[cache()])
    };
    let told = deploy(5121).exits(1);
    assert!(told.stderr.contains("1 secret is too large; nothing was sent"), "{told:#?}");
    assert!(
        told.stderr
            .contains("LONG for acme has 5,121 bytes, but the limit is 5,120; if Cloudflare has raised the limit, set"),
        "{told:#?}"
    );
    assert!(!format!("{told:?}").contains("canary"));
    project.write(".env", format!("LONG={}\n", "canary".repeat(5120).split_at(5120).0));
    let fits = Engine::local(&project).deploy_with(|request| request.plan.cloud.local = true);
    assert_eq!(fits.exits(Exit::Done).outcome().applied, 1);
    // As the help says; the Cloudflare on this machine holds as much.
    let account = "id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN }";
    let raised = format!("accounts: {{ default: {{ {account}, limits: {{ variableBytes: 5121 }} }} }}\n");
    project.write("fleet.yaml", project.read("fleet.yaml") + &raised);
    deploy(5121).exits(0);
    deploy(5122).exits(1);
}

#[test]
fn who_takes_anothers_host_is_seen_beside_what_was_built_before() {
    let project = tiny();
    let build = || project.run_with(&["build"], &[cache()]);
    project.write("customers/acme.yaml", "id: acme\ndomains: [shop.example.com]\n");
    build().exits(0);
    let route = "routes: [{ pattern: shop.example.com/b/*, zone: example.com }]\n";
    project.write("customers/bluebird.yaml", format!("id: bluebird\n{route}"));
    // The first time bluebird is new; the second time both are remembered.
    for _ in 0..2 {
        let told = build().exits(1);
        assert_eq!(told.stderr.matches("error[N0314]").count(), 2, "{}", told.stderr);
        assert!(
            told.stdout.contains("0 workers") && told.stdout.contains("2 customers with errors"),
            "{}",
            told.stdout
        );
    }
    assert!(project.path("out/production/acme").exists(), "it is left as it was");
    let fleet = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{fleet}sharedHosts: [shop.example.com]\n"));
    assert_eq!(build().exits(0).stderr, "");
    // Routes alone: a warning, with which all is built.
    project.write("fleet.yaml", &fleet);
    project.write("customers/acme.yaml", format!("id: acme\n{}", route.replace("/b/", "/a/")));
    for _ in 0..2 {
        let told = build().exits(0);
        assert_eq!(told.stderr.matches("warning[N0315]").count(), 1, "{}", told.stderr);
        assert!(told.stdout.contains("2 workers"), "{}", told.stdout);
    }
    // A wildcard for all hosts of the zone, of a customer that was there before.
    let wildcard = "routes: [{ pattern: \"*.example.com/*\", zone: example.com }]\n";
    project.write("customers/acme.yaml", format!("id: acme\n{wildcard}"));
    project.write("customers/bluebird.yaml", "id: bluebird\n");
    assert_eq!(build().exits(0).stderr, "");
    project.write("customers/bluebird.yaml", "id: bluebird\ndomains: [b.example.com]\n");
    for _ in 0..2 {
        assert_eq!(build().exits(1).stderr.matches("error[N0314]").count(), 2);
    }
    project.write("fleet.yaml", format!("{fleet}sharedHosts: [\"*.example.com\"]\n"));
    assert_eq!(build().exits(0).stderr, "");
    project.write("fleet.yaml", &fleet);
    // A customer's own workers may share one.
    std::fs::remove_file(project.path("customers/bluebird.yaml")).unwrap();
    let roles = format!("workers:\n  api: {{ {} }}\n  web: {{ domains: [shop.example.com] }}\n", route.trim());
    project.write("customers/acme.yaml", format!("id: acme\n{roles}"));
    assert_eq!(build().exits(0).stderr, "");
}

#[test]
fn the_documents_examples_are_taken() {
    let document = std::fs::read_to_string(repository().join("docs/reference/limits.md")).unwrap();
    let examples: Vec<&str> =
        document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 3);
    let project = tiny();
    let fleet = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{fleet}{}", examples.concat()));
    project.write("customers/acme.yaml", "id: acme\n");
    check(&project).exits(0);
}
