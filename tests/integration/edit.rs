//! Shows: `flotilla edit` changes what it is told to and no line more, by options and on a terminal, and leaves nothing half done.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::{Project, Run};
use crate::terminal::Terminal;

const OTHER: &str = "fedcba9876543210fedcba9876543210";
const TOKEN: &str = "canary-token-0123456789";
const ENTER: &str = "\r";
const DOWN: &str = "\x1b[B";

const SPEC: &str = "\
# The oldest of all.
id: acme
name: 'Acme Ltd.'   # as on the bill

domains: [ shop.acme.example ]  # theirs
vars:
  LANGUAGE: \"de\"
  # Nobody knows why.
  OLD: 1
destinations:
  # The first.
  - name: Heatmaps
    type: any
    settings: {}

  - name: Pixel   # paid
    type: any
    settings: { apiSecret: { secret: PIXEL_SECRET } }
environments:
  production:
  staging:
    domains: []
    logLevel: debug # loud
# The end.
";

fn world() -> (Cloud, Project) {
    let cloud = Cloud::start_with(|options| {
        options.zones = vec![format!("acme.example@{ACCOUNT}"), format!("other.example@{OTHER}")];
        options.tokens = [TOKEN, "test", "test-token"].map(str::to_owned).to_vec();
        options.tokens.push(format!("stranger@{OTHER}"));
    });
    let project = fleet(&[("other", "domains: [other.acme.example]\n")]);
    project.write("customers/acme.yaml", SPEC).write(".gitignore", ".env\n/.flotilla/\n");
    (cloud, project)
}

fn files(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let mut files = project.files("");
    files.retain(|name, _| !name.starts_with(".flotilla/"));
    files
}

/// Changes the customer, and shows the spec.
fn edit(cloud: &Cloud, project: &Project, arguments: &[&str]) -> String {
    project.write("customers/acme.yaml", SPEC);
    cloud.run(project, &[&["edit", "acme", "--yes"], arguments].concat()).exits(0);
    project.run(&["check"]).exits(0);
    project.read("customers/acme.yaml")
}

/// Runs it with something on stdin.
fn piped(cloud: &Cloud, project: &Project, arguments: &[&str], text: &str) -> Run {
    let mut command = cloud.command(project, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("CLOUDFLARE_API_TOKEN");
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn only_the_lines_that_are_meant_change() {
    let (cloud, project) = world();
    let with = |from: &str, to: &str| {
        assert!(SPEC.contains(from));
        SPEC.replace(from, to)
    };
    let cases: [(&[&str], String); 9] = [
        (&["--domain", "new.acme.example"], with("[ shop.acme.example ]", "[ new.acme.example ]")),
        (&["--set", "vars.LANGUAGE=fr"], with("\"de\"", "\"fr\"")),
        (&["--unset", "vars.OLD"], with("  OLD: 1\n", "")),
        (&["--set", "name=Acme Inc."], with("'Acme Ltd.'", "'Acme Inc.'")),
        (&["--set", "logLevel=warn", "--env", "staging"], with("debug # loud", "warn # loud")),
        (&["--disable", "Pixel"], with("PIXEL_SECRET } }\n", "PIXEL_SECRET } }\n    enabled: false\n")),
        (&["--remove-destination", "Heatmaps"], with("  - name: Heatmaps\n    type: any\n    settings: {}\n", "")),
        (
            &["--destination", "any", "name=New", "--set", "vars.NEW=x y"],
            with("PIXEL_SECRET } }\n", "PIXEL_SECRET } }\n  - name: New\n    type: any\n    settings: {}\n")
                .replace("  OLD: 1\n", "  OLD: 1\n  NEW: x y\n"),
        ),
        (
            &["--database", "turso:libsql://acme.turso.io", "--env", "production"],
            with(
                "  production:\n",
                "  production:\n    database:\n      type: turso\n      url: libsql://acme.turso.io\n      token: { secret: TURSO_AUTH_TOKEN }\n",
            ),
        ),
    ];
    for (arguments, wanted) in cases {
        let spec = edit(&cloud, &project, arguments);
        assert_eq!(spec, wanted, "{arguments:?}");
    }
    let d1 = edit(&cloud, &project, &["--database", "d1-new:acme-db", "--env", "production"]);
    let id = d1.split("  id: ").nth(1).and_then(|rest| rest.lines().next()).expect("an id").to_owned();
    assert_eq!(d1.replace(&format!("    database:\n      type: d1\n      name: acme-db\n      id: {id}\n"), ""), SPEC);
    // One database for two environments is refused, and nothing is written.
    project.write("customers/acme.yaml", SPEC);
    let refused =
        cloud.run(&project, &["edit", "acme", "--yes", "--database", "turso:libsql://acme.turso.io"]).exits(1);
    assert!(refused.stderr.contains("N0312"), "{refused:?}");
    assert_eq!(project.read("customers/acme.yaml"), SPEC);
    assert_eq!(edit(&cloud, &project, &["--enable", "Pixel"]), SPEC);
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_changed() {
    let (cloud, project) = world();
    let before = files(&project);
    let refused = |arguments: &[&str], code: i32, told: &str| {
        let run = cloud.run(&project, &[&["edit"], arguments].concat()).exits(code);
        assert!(run.stderr.contains(told), "{}", run.stderr);
        assert_eq!(files(&project), before);
    };
    refused(&["acme", "--yes"], 2, "what to change is missing");
    refused(&["--set", "a=b"], 2, "pass CUSTOMER");
    refused(&["acm", "--set", "a=b"], 2, "did you mean `acme`?");
    refused(&["acme", "--set", "logLevel=debug"], 5, "pass --yes");
    refused(&["acme", "--set", "logLevel=loud", "--yes"], 1, "`logLevel` can't be \"loud\"");
    refused(&["acme", "--set", "id=b", "--yes"], 1, "is not the file's name");
    refused(&["acme", "--unset", "vars.NOT", "--yes"], 2, "vars.NOT is not set in customers/acme.yaml");
    refused(&["acme", "--domain", "other.acme.example", "--yes"], 2, "is the host of other");
    refused(&["acme", "--domain", "a.other.example", "--yes"], 1, "has no zone for a.other.example");
    refused(&["acme", "--disable", "Pixl", "--yes"], 2, "it has: Heatmaps, Pixel");
    refused(&["acme", "--rotate-secret", "NOPE", "--yes"], 2, "it has: PIXEL_SECRET");
    // The database that was made is deleted when the rest fails.
    cloud.faults(&json!([{"match": {"method": "POST", "path": "d1"}, "times": 1, "do": {"error": {"status": 400, "code": 7000, "message": "no"}}}]));
    refused(
        &["acme", "--database", "d1-new:acme-db", "--set", "logLevel=warn", "--yes"],
        1,
        "everything is as it was before",
    );
    let answer = cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/d1/database"), &Value::Null);
    assert_eq!(answer["result"], json!([]));
}

#[test]
fn a_token_is_verified_before_it_takes_the_place_of_another() {
    let (cloud, project) = world();
    project.write(".env", "# ours\nCLOUDFLARE_API_TOKEN=test-token\nOTHER='x' # y\n");
    let before = files(&project);
    let rotate = ["edit", "acme", "--rotate-token", "--yes"];
    let wrong = piped(&cloud, &project, &rotate, "canary-wrong\n").exits(1);
    assert!(wrong.stderr.contains("Cloudflare rejects the token"), "{}", wrong.stderr);
    let stranger = piped(&cloud, &project, &rotate, "stranger\n").exits(1);
    let told = stranger.stderr.contains("has no access to the account default")
        || stranger.stderr.contains("rejects the token");
    assert!(told, "{}", stranger.stderr);
    assert_eq!(files(&project), before);
    let good = piped(&cloud, &project, &rotate, &format!("{TOKEN}\n")).exits(0);
    assert!(good.stdout.contains("stored CLOUDFLARE_API_TOKEN in .env"), "{}", good.stdout);
    assert_eq!(project.read(".env"), format!("# ours\nCLOUDFLARE_API_TOKEN={TOKEN}\nOTHER='x' # y\n"));
    let secret =
        piped(&cloud, &project, &["edit", "acme", "--rotate-secret", "PIXEL_SECRET", "--yes"], "canary-2").exits(0);
    assert!(project.read(".env").ends_with("ACME__PIXEL_SECRET=canary-2\n"));
    for run in [wrong, stranger, good, secret] {
        assert!(!format!("{run:?}").contains("canary"), "{run:?}");
    }
}

#[test]
fn variables_change_where_they_stand() {
    let (cloud, project) = world();
    let text = "# of the old days\nexport REGION = 'eu' # for now\n\nSHOP=a\n";
    project.write("config/base/all.env", "EVERYONE=1\n").write("config/customers/acme/production.env", text);
    project.write(
        "fleet.yaml",
        "name: test\npacks:\n  tiny: { path: packs/tiny }\nlayers:\n  old: { when: { old: \"yes\" }, envFiles: config }\n",
    );
    let spec = SPEC.replace("domains: [ shop", "labels: { old: \"yes\" }\ndomains: [ shop");
    project.write("customers/acme.yaml", &spec);
    let env = || project.read("config/customers/acme/production.env");
    cloud.run(&project, &["edit", "acme", "--set", "vars.REGION=us east", "--yes"]).exits(0);
    assert_eq!(env(), text.replace("'eu'", "'us east'"));
    cloud.run(&project, &["edit", "acme", "--unset", "vars.SHOP", "--set", "vars.EVERYONE=2", "--yes"]).exits(0);
    assert_eq!(env(), text.replace("'eu'", "'us east'").replace("SHOP=a\n", ""));
    // What holds for everybody is overruled, not changed.
    assert_eq!(project.read("config/base/all.env"), "EVERYONE=1\n");
    assert_eq!(project.read("customers/acme.yaml"), spec.replace("  OLD: 1\n", "  OLD: 1\n  EVERYONE: 2\n"));
}

#[test]
fn a_dialogue_shows_what_is_there_and_what_will_be() {
    let (cloud, project) = world();
    project.write(".env", "PIXEL_SECRET=1\n");
    cloud.deploy(&project, &["acme"]);
    let mut terminal = Terminal::run(100, cloud.command(&project, &["edit"]));
    terminal.answer("Deployment", ENTER);
    terminal.wait_for("******** (configured)");
    terminal.wait_for("just now");
    // The domain, and the destinations.
    terminal.answer("What to change", &format!(" {DOWN}{DOWN}{DOWN} {ENTER}"));
    terminal.answer("Host name", &format!("\x15other.acme.example{ENTER}"));
    terminal.wait_for("is the host of other");
    terminal.press(&format!("\x15new.acme.example{ENTER}"));
    terminal.answer("Destination", &format!("{DOWN}{DOWN}{DOWN}{ENTER}"));
    terminal.answer("Pixel", ENTER);
    terminal.answer("Destination", ENTER);
    terminal.asks("Write it?");
    terminal.wait_for("- domains: [ shop.acme.example ]  # theirs");
    terminal.wait_for("+ domains: [ new.acme.example ]  # theirs");
    terminal.wait_for("+     enabled: false");
    terminal.press("y");
    let raw = terminal.raw();
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    assert!(!raw.contains(ACCOUNT) && raw.contains("01234567…"), "{last}");
    let wanted = SPEC
        .replace("[ shop.acme.example ]", "[ new.acme.example ]")
        .replace("PIXEL_SECRET } }\n", "PIXEL_SECRET } }\n    enabled: false\n");
    assert_eq!(project.read("customers/acme.yaml"), wanted);
}

#[test]
fn ctrl_c_leaves_everything_as_it_was() {
    let (cloud, project) = world();
    let before = files(&project);
    let steps = [
        ("Deployment", ENTER.to_owned()),
        ("What to change", format!(" {DOWN}{DOWN}{DOWN}{DOWN} {ENTER}")),
        ("Host name", format!("\x15new.acme.example{ENTER}")),
        ("New API token", format!("{TOKEN}{ENTER}")),
        ("Write it?", String::new()),
    ];
    for at in 0..steps.len() {
        let mut terminal = Terminal::run(40, cloud.command(&project, &["edit", "acme"]));
        for (question, keys) in &steps[..at] {
            terminal.answer(question, keys);
        }
        terminal.answer(steps[at].0, "\x03");
        let (code, seen, last) = terminal.end();
        assert_eq!(code, 130, "{at}: {last}");
        assert!(!seen.iter().any(|screen| screen.contains("canary")), "{at}");
        assert_eq!(files(&project), before, "{at}");
    }
}

#[test]
fn one_environment_alone_is_changed_and_what_others_share_stays() {
    let (cloud, project) = world();
    let before = files(&project);
    // A secret of all environments isn't one for staging alone.
    let rotate = ["edit", "acme", "--env", "staging", "--rotate-secret", "PIXEL_SECRET", "--yes"];
    let refused = piped(&cloud, &project, &rotate, "canary-1").exits(5);
    assert!(refused.stderr.contains("can't be set for staging only"), "{}", refused.stderr);
    assert_eq!(files(&project), before);
    let sources = "secrets:\n  - { dotenv: \"secrets/{environment}.env\" }\n  - { dotenv: .env }\n  - { env: true }\n";
    let fleet = project.read("fleet.yaml");
    project.write("fleet.yaml", format!("{fleet}{sources}")).write(".gitignore", ".env\nsecrets/\n/.flotilla/\n");
    piped(&cloud, &project, &rotate, "canary-2").exits(0);
    assert_eq!(project.read("secrets/staging.env"), "ACME__PIXEL_SECRET=canary-2\n");
    assert!(!project.path(".env").exists() && !project.path("secrets/production.env").exists());
    // A file for all that comes first would hide it.
    let sources = "secrets:\n  - { dotenv: .env }\n  - { dotenv: \"secrets/{environment}.env\" }\n  - { env: true }\n";
    project.write("fleet.yaml", format!("{fleet}{sources}")).write(".env", "ACME__PIXEL_SECRET=all\n");
    let hidden = piped(&cloud, &project, &rotate, "canary-3").exits(5);
    assert!(hidden.stderr.contains(".env has it for all"), "{}", hidden.stderr);
    assert_eq!(project.read("secrets/staging.env"), "ACME__PIXEL_SECRET=canary-2\n");
    // In a dialogue, a shared variable is taken out of the environment, and the zone's id is known before the first deploy.
    let mut terminal = Terminal::run(100, cloud.command(&project, &["edit", "acme", "--env", "production"]));
    terminal.asks("What to change");
    terminal.wait_for("acme.example (");
    terminal.press(&format!("{DOWN}{DOWN} {ENTER}"));
    terminal.answer("Variable", &format!("{DOWN}{DOWN}{ENTER}"));
    terminal.answer("another value", "n");
    terminal.answer("Variable", ENTER);
    terminal.answer("Write it?", "y");
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    let spec = project.read("customers/acme.yaml");
    assert_eq!(spec, SPEC.replace("  production:\n", "  production:\n    vars: { LANGUAGE: null }\n"));
}

#[test]
fn environments_are_added_and_removed_in_a_dialogue() {
    let (cloud, project) = world();
    project.write(".env", "PIXEL_SECRET=1\n");
    cloud.deploy(&project, &["acme"]);
    let mut terminal = Terminal::run(100, cloud.command(&project, &["edit", "acme"]));
    terminal.answer("Deployment", ENTER);
    terminal.answer("What to change", &format!("{}{} {ENTER}", DOWN.repeat(5), DOWN));
    // Development comes, and staging goes.
    terminal.answer("Environment", &format!("{DOWN}{ENTER}"));
    terminal.answer("Environment", &format!("{DOWN}{DOWN}{ENTER}"));
    terminal.answer("Environment", ENTER);
    terminal.asks("Write it?");
    terminal.wait_for("development: the next deploy creates its workers");
    terminal.wait_for("t-acme-staging stays deployed until `flotilla prune`");
    terminal.press("y");
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    let spec = project.read("customers/acme.yaml");
    assert!(
        spec.contains("  development: { domains: [] }\n") || spec.contains("  development:\n    domains: []\n"),
        "{spec}"
    );
    assert!(!spec.contains("staging") && spec.contains("  production:\n"), "{spec}");
    project.run(&["check"]).exits(0);
}
