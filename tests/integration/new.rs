//! Shows: `flotilla new` makes a customer from a few answers, on a terminal and by options, and leaves nothing half done.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use flotilla_model::lock::Lock;
use flotilla_model::progress::Silent;
use serde_json::{Value, json};

use crate::fleet::{ACCOUNT, Cloud, cache, fleet};
use crate::support::{Project, output};
use crate::terminal::Terminal;

/// What must never be seen.
const TOKEN: &str = "canary-token-0123456789";
const SECRET: &str = "canary-secret-0123456789";
/// Another account than that of the fleet.
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const ENTER: &str = "\r";
const DOWN: &str = "\x1b[B";

/// A Cloudflare with zones in two accounts, and a fleet with one customer.
fn world() -> (Cloud, Project) {
    world_with(|_| {})
}

fn world_with(change: impl FnOnce(&mut flotilla_local::Options)) -> (Cloud, Project) {
    let cloud = Cloud::start_with(|options| {
        options.zones = vec![format!("shop.example@{ACCOUNT}"), format!("other.example@{OTHER}")];
        options.tokens = [TOKEN, "test", "test-token"].map(str::to_owned).to_vec();
        options.tokens.push(format!("stranger@{OTHER}"));
        change(options);
    });
    let project = fleet(&[("first", "domains: [first.shop.example] # theirs\n")]);
    let setting = |more: Value| {
        let mut setting = json!({"type": "string"});
        setting.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        setting
    };
    project.write(
        "packs/tiny/catalogue.json",
        json!({"destinations": {
            "pixel": {"label": "Pixel", "requiredConsent": ["marketing"], "settings": {
                "type": "object", "additionalProperties": false, "required": ["id", "accessToken"],
                "properties": {
                    "id": setting(json!({"pattern": "^[0-9]+$", "examples": ["123"]})),
                    "accessToken": {"$ref": "#/$defs/secret"},
                    "level": setting(json!({"enum": ["low", "high"], "default": "low"})),
                },
            }},
            "plain": {"label": "Plain", "requiredConsent": [], "settings": {"type": "object", "properties": {}}},
        }})
        .to_string(),
    );
    project.write(".gitignore", ".env\n/.flotilla/\n");
    (cloud, project)
}

/// All files of a project that people have.
fn files(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let mut files = project.files("");
    files.retain(|name, _| !name.starts_with(".flotilla/"));
    files
}

/// The names of the account's databases.
fn databases(cloud: &Cloud) -> Vec<String> {
    let answer = cloud.http("GET", &format!("/client/v4/accounts/{ACCOUNT}/d1/database"), &Value::Null);
    let rows = answer["result"].as_array().expect("a list").clone();
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// The command on a machine that knows no token yet.
fn bare(cloud: &Cloud, project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.env("CLOUDFLARE_API_BASE_URL", cloud.base()).env("FLOTILLA_CACHE_DIR", cache());
    command
}

/// The questions of a whole dialogue, and the keys that answer them.
fn dialogue() -> Vec<(&'static str, String)> {
    vec![
        ("Cloudflare API token:", format!("{TOKEN}{ENTER}")),
        ("Zone", format!("{DOWN}{ENTER}")),
        ("Host name", format!("\x15consent.shop.example{ENTER}")),
        ("Reached by", ENTER.to_owned()),
        ("The customer's id", format!("acme{ENTER}")),
        ("Display name", format!("Acme Ltd.{ENTER}")),
        ("Origins", ENTER.to_owned()),
        ("Database", format!("{DOWN}{DOWN}{ENTER}")),
        ("Its name", ENTER.to_owned()),
        ("Destination", format!("{DOWN}{ENTER}")),
        ("Its name", ENTER.to_owned()),
        ("can be left out", ENTER.to_owned()),
        ("Set accessToken now?", "y".to_owned()),
        ("accessToken:", format!("{SECRET}{ENTER}")),
        ("id", format!("123{ENTER}")),
        ("Another destination", ENTER.to_owned()),
        ("All right?", ENTER.to_owned()),
    ]
}

/// Whether there is a colour in what was written: beside those, the cursor is moved.
fn coloured(raw: &str) -> bool {
    raw.split("\u{1b}[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

/// Answers the questions of a dialogue, from the first on.
fn answer(terminal: &mut Terminal, questions: &[(&str, String)]) {
    for (question, keys) in questions {
        terminal.answer(question, keys);
    }
}

const SPEC: &str = "\
# yaml-language-server: $schema=../schema/customer.schema.json
id: acme
name: Acme Ltd.
trustedOrigins: [https://shop.example]
domains: [consent.shop.example]
database:
  type: d1
  name: acme
  id: ID
destinations:
  - name: Pixel
    type: pixel
    settings:
      accessToken: { secret: PIXEL_ACCESS_TOKEN }
      id: \"123\"
";

#[test]
fn a_dialogue_makes_a_customer_and_shows_no_secret() {
    for (columns, no_colour) in [(100, false), (40, true)] {
        let (cloud, project) = world();
        let mut command = bare(&cloud, &project, &["new"]);
        if no_colour {
            command.env("NO_COLOR", "1");
        }
        let mut terminal = Terminal::run(columns, command);
        // Without colours, there is no mark at what is answered: the screen has to be looked at more closely.
        answer(&mut terminal, &dialogue());
        terminal.wait_for("flotilla deploy acme");
        let raw = terminal.raw();
        let (code, seen, last) = terminal.end();
        assert_eq!(code, 0, "{last}");
        for canary in [TOKEN, SECRET] {
            assert!(!raw.contains(canary) && !seen.iter().any(|screen| screen.contains(canary)), "{last}");
        }
        assert_eq!(coloured(&raw), !no_colour, "{raw:?}");
        // Ids are shown in part alone.
        assert!(!raw.contains(ACCOUNT) && raw.contains(&ACCOUNT[..8]));
        let spec = project.read("customers/acme.yaml");
        let id = spec.split("id: ").nth(2).and_then(|rest| rest.lines().next()).expect("the database's id").to_owned();
        assert_eq!(spec.replace(&id, "ID"), SPEC);
        assert!(!raw.contains(&id));
        assert_eq!(databases(&cloud), ["acme"]);
        let fleet = project.read("fleet.yaml");
        assert!(
            fleet.starts_with("name: test\n") && fleet.contains("packs:\n  tiny: { path: packs/tiny }\n"),
            "{fleet}"
        );
        assert!(fleet.contains(ACCOUNT) && fleet.contains("{ secret: CLOUDFLARE_API_TOKEN }"), "{fleet}");
        assert_eq!(project.read(".env"), format!("CLOUDFLARE_API_TOKEN={TOKEN}\nACME__PIXEL_ACCESS_TOKEN={SECRET}\n"));
        project.run(&["check"]).exits(0);
        // And it can be deployed as it is.
        output(&mut bare(&cloud, &project, &["deploy", "--yes", "acme"])).exits(0);
    }
}

#[test]
fn without_a_token_the_dialogue_goes_on_without_requests() {
    let (cloud, project) = world();
    let mut terminal = Terminal::run(100, bare(&cloud, &project, &["new"]));
    terminal.answer("Cloudflare API token:", ENTER);
    terminal.wait_for("continuing without a token");
    terminal.answer("Host name", &format!("shop.acme.example{ENTER}"));
    terminal.answer("Reached by", ENTER);
    terminal.answer("The customer's id", &format!("cust_abc123{ENTER}"));
    terminal.wait_for("as in `cust-abc123`");
    terminal.press(&format!("\x15cust-abc123{ENTER}"));
    for question in ["Display name", "Origins", "Destination", "All right?"] {
        terminal.answer(question, ENTER);
    }
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    let spec = project.read("customers/cust-abc123.yaml");
    assert!(spec.contains("domains: [shop.acme.example]\n") && !spec.contains("database"), "{spec}");
    assert!(cloud.sent().is_empty(), "nothing is requested");
    let refused = project.run(&["new", "cust_abc123", "--offline", "--yes"]).exits(2).stderr;
    assert!(refused.contains("as in `cust-abc123`; `--set 'vars.CUSTOMER_ID=cust_abc123'`"), "{refused}");
}

#[test]
fn wrong_answers_are_told_and_asked_for_again() {
    let (cloud, project) = world_with(|options| {
        options.zones.extend((0..60).map(|number| format!("z{number:02}.example@{ACCOUNT}")));
    });
    let mut terminal = Terminal::run(100, bare(&cloud, &project, &["new"]));
    terminal.answer("Cloudflare API token:", &format!("wrong-token{ENTER}"));
    terminal.wait_for("Cloudflare rejects the token");
    terminal.answer("Cloudflare API token:", &format!("{TOKEN}{ENTER}"));
    // Of many zones, all pages are there, and typing finds one.
    terminal.answer("type to filter", "shop.ex");
    terminal.answer("shop.example", ENTER);
    terminal.answer("Host name", &format!("\x15elsewhere.example{ENTER}"));
    terminal.wait_for("is not in the zone shop.example");
    terminal.press(&format!("\x15first.shop.example{ENTER}"));
    terminal.wait_for("is the host of first");
    terminal.press(&format!("\x15new.shop.example{ENTER}"));
    terminal.answer("Reached by", ENTER);
    terminal.answer("The customer's id", &format!("\x15first{ENTER}"));
    terminal.wait_for("the customer first already exists");
    terminal.press(&format!("\x15second{ENTER}"));
    terminal.answer("Display name", ENTER);
    terminal.answer("Origins", ENTER);
    terminal.answer("Database", ENTER);
    terminal.answer("Destination", &format!("{DOWN}{ENTER}"));
    terminal.answer("Its name", ENTER);
    terminal.answer("can be left out", ENTER);
    terminal.answer("Set accessToken now?", "n");
    terminal.answer("id", &format!("abc{ENTER}"));
    terminal.wait_for("expected a match of ^[0-9]+$, such as 123");
    terminal.press(&format!("\x157{ENTER}"));
    terminal.answer("Another destination", ENTER);
    // A step can be gone back to.
    terminal.answer("All right?", &format!("{DOWN}{DOWN}{DOWN}{DOWN}{DOWN}{ENTER}"));
    terminal.answer("Destination", ENTER);
    terminal.answer("All right?", ENTER);
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    assert!(last.contains("flotilla plan second"), "{last}");
    let spec = project.read("customers/second.yaml");
    assert!(spec.contains("domains: [new.shop.example]\n") && !spec.contains("destinations"), "{spec}");
}

#[test]
fn ctrl_c_at_each_question_leaves_everything_as_it_was() {
    let questions = dialogue();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if at > questions.len() {
                        return;
                    }
                    let (cloud, project) = world();
                    let before = files(&project);
                    let mut terminal = Terminal::run(100, bare(&cloud, &project, &["new"]));
                    answer(&mut terminal, &questions[..at.min(questions.len() - 1)]);
                    terminal.asks(questions[at.min(questions.len() - 1)].0);
                    // The last time, somebody else asks it to end.
                    let wanted = if at == questions.len() {
                        terminal.signal("-TERM");
                        143
                    } else {
                        terminal.press("\x03");
                        130
                    };
                    let (code, seen, last) = terminal.end();
                    assert_eq!(code, wanted, "{at}: {last}");
                    assert!(last.contains("interrupted; nothing was changed"), "{at}: {last}");
                    assert!(!seen.iter().any(|screen| screen.contains("canary")));
                    assert_eq!(files(&project), before, "{at}");
                    assert_eq!(databases(&cloud), Vec::<String>::new(), "{at}");
                }
            });
        }
    });
}

/// All that can be said by options, with a new database.
const OPTIONS: [&str; 16] = [
    "new",
    "acme",
    "--name",
    "Acme Ltd.",
    "--domain",
    "consent.shop.example",
    "--origin",
    "https://shop.example",
    "--database",
    "d1-new:acme",
    "--destination",
    "pixel",
    "id=123",
    "--set",
    "logLevel=debug",
    "--yes",
];

#[test]
fn options_say_the_same() {
    let (cloud, project) = world();
    let run = cloud.run(&project, &OPTIONS).exits(0);
    assert!(run.stdout.contains("flotilla secrets set PIXEL_ACCESS_TOKEN --customer acme"), "{}", run.stdout);
    let spec = project.read("customers/acme.yaml");
    let id = spec.split("id: ").nth(2).and_then(|rest| rest.lines().next()).expect("the database's id").to_owned();
    assert_eq!(spec.replace(&id, "ID"), SPEC.replace("domains:", "logLevel: debug\ndomains:"));
    // A second one is told what is taken; nothing is asked of the cloud that isn't needed.
    cloud.take();
    let refused = |arguments: &[&str], code: i32, told: &str| {
        let before = files(&project);
        let run = cloud.run(&project, &[&["new"], arguments, &["--yes"]].concat()).exits(code);
        assert!(run.stderr.contains(told), "{}", run.stderr);
        assert_eq!(files(&project), before);
    };
    refused(&["acme"], 2, "the customer acme already exists: `flotilla edit acme` changes it");
    refused(&["b", "--domain", "consent.shop.example"], 2, "is the host of acme");
    assert_eq!(cloud.sent(), ["GET user/tokens/verify"], "a host of the fleet's is not looked up");
    refused(&["b", "--domain", "b.other.example"], 1, "the account default has no zone for b.other.example");
    refused(&["b", "--database", "d1:nothing"], 1, "create it: --database d1-new:nothing");
    refused(&["b", "--database", "d1:acme"], 1, "belongs to acme");
    refused(&["b", "--database", "d1-new:acme"], 1, "use it: --database d1:acme");
    refused(&["b", "--destination", "pixl"], 2, "did you mean `pixel`?");
    refused(&["b", "--destination", "pixel", "id=x"], 2, "^[0-9]+$");
    refused(&["b", "--destination", "pixel", "id=1", &format!("accessToken={SECRET}")], 2, "the secret's NAME");
    refused(&["b", "--set", "nonsense=1"], 1, "unknown key `nonsense`");
    refused(&["b", "--account", "nobody"], 2, "there is no account `nobody`");
    let json = cloud.run(&project, &["new", "b", "--offline", "--yes", "--format", "json"]).exits(0).json();
    assert_eq!((&json["customer"], &json["file"]), (&json!("b"), &json!("customers/b.yaml")));
    assert!(!json.to_string().contains(ACCOUNT));
    project.run(&["check"]).exits(0);
}

#[test]
fn without_a_terminal_a_missing_answer_names_its_option() {
    let (cloud, project) = world();
    let run = cloud.run(&project, &["new"]).exits(2);
    assert!(
        run.stderr.contains("the customer's id is missing") && run.stderr.contains("pass CUSTOMER"),
        "{}",
        run.stderr
    );
    let run = cloud.run(&project, &["new", "acme"]).exits(5);
    assert!(run.stderr.contains("pass --yes"), "{}", run.stderr);
    let mut nothing = bare(&cloud, &project, &["new", "acme", "--domain", "a.shop.example", "--yes"]);
    let run = output(&mut nothing).exits(1);
    assert!(run.stderr.contains("CLOUDFLARE_API_TOKEN"), "{}", run.stderr);
    // Neither is there one whose cursor can't be moved.
    let mut command = cloud.command(&project, &["new"]);
    command.env("TERM", "dumb");
    let (code, _, last) = Terminal::run(80, command).end();
    assert_eq!(code, 2, "{last}");
    assert!(last.contains("pass CUSTOMER"), "{last}");
    assert!(!project.path("customers/acme.yaml").exists());
}

#[test]
fn an_account_that_is_new_is_added_and_the_others_stay() {
    let (cloud, project) = world();
    project.write(
        "fleet.yaml",
        format!(
            "# ours\nname: test\naccounts:\n  # the first\n  main: {{ id: {ACCOUNT}, token: {{ secret: CLOUDFLARE_API_TOKEN }} }}\n\npacks:\n  \
             tiny: {{ path: packs/tiny }} # small\n"
        ),
    );
    let before = project.read("fleet.yaml");
    let mut terminal = Terminal::run(100, bare(&cloud, &project, &["new", "second"]));
    terminal.answer("Cloudflare API token:", &format!("stranger{ENTER}"));
    terminal.answer("Zone", ENTER);
    terminal.answer("Host name", ENTER);
    terminal.answer("Reached by", &format!("{DOWN}{ENTER}"));
    for question in ["Display name", "Origins", "Database", "Destination", "All right?"] {
        terminal.answer(question, ENTER);
    }
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    let after = project.read("fleet.yaml");
    assert!(before.lines().all(|line| after.contains(line)), "{after}");
    assert!(
        after.contains("defaults:\n  account: main\n") || after.contains("defaults: { account: main }\n"),
        "{after}"
    );
    let own = after.lines().find(|line| line.contains(OTHER)).or(after.lines().last()).expect("a line");
    let name = project
        .read("customers/second.yaml")
        .lines()
        .find_map(|line| line.strip_prefix("account: ").map(str::to_owned));
    let name = name.unwrap_or_else(|| panic!("no account: {own}"));
    assert!(after.contains(&format!("\n  {name}:")), "{name} in {after}");
    assert!(
        project.read(".env").starts_with("CLOUDFLARE_API_TOKEN_"),
        "the token of another account has a name of its own"
    );
    assert!(project.read("customers/second.yaml").contains("routes:"), "{}", project.read("customers/second.yaml"));
    project.run(&["check"]).exits(0);
}

#[test]
fn a_failure_of_any_request_leaves_everything_as_it_was() {
    let mut failed = 0;
    for skip in 0..40 {
        let (cloud, project) = world();
        let before = files(&project);
        let error = json!({"status": 400, "code": 7000, "message": "no such luck"});
        cloud.faults(&json!([{"match": {}, "skip": skip, "times": 1, "do": {"error": error}}]));
        let run = cloud.run(&project, &OPTIONS);
        let requests = cloud.requests().len() as u64;
        cloud.clear_faults();
        if run.code == 0 {
            assert_eq!(databases(&cloud), ["acme"]);
            if requests <= skip {
                break;
            }
            continue;
        }
        failed += 1;
        assert!(
            run.stderr.contains("as it was before") || run.stderr.contains("nothing was changed"),
            "{skip}: {}",
            run.stderr
        );
        assert_eq!(files(&project), before, "{skip}: {}", run.stderr);
        assert_eq!(databases(&cloud), Vec::<String>::new(), "{skip}: {}", run.stderr);
    }
    assert!(failed >= 4, "only {failed} requests could fail");
}

#[test]
fn an_answer_that_never_came_is_found_out() {
    // The database is made, and nobody is told: asked once more, it is there.
    let (cloud, project) = world();
    let fault = json!([{"match": {"method": "POST", "path": "d1/database"}, "times": 1, "do": {"reset": "after"}}]);
    cloud.faults(&fault);
    cloud.run(&project, &OPTIONS).exits(0);
    assert_eq!(databases(&cloud), ["acme"]);
    // Never told: it is deleted by its name.
    let (cloud, project) = world();
    let before = files(&project);
    let fault = json!([
        {"match": {"method": "POST", "path": "d1/database"}, "times": 1, "do": {"reset": "after"}},
        {"match": {"method": "POST", "path": "d1/database"}, "times": 0, "do": {"status": 503}},
    ]);
    cloud.faults(&fault);
    let run = cloud.run(&project, &OPTIONS).exits(1);
    assert!(run.stderr.contains("everything is as it was before"), "{}", run.stderr);
    assert_eq!((files(&project), databases(&cloud)), (before, Vec::new()));
}

#[test]
fn a_zone_further_down_is_noted() {
    let (cloud, project) = world_with(|options| options.zones.push(format!("eu.shop.example@{ACCOUNT}")));
    let run = cloud.run(&project, &["new", "acme", "--domain", "a.eu.shop.example", "--yes"]).exits(0);
    assert!(run.stdout.contains("wrote the zone eu.shop.example in fleet.yaml"), "{}", run.stdout);
    assert!(project.read("fleet.yaml").contains("zones: [eu.shop.example]\n"), "{}", project.read("fleet.yaml"));
    project.run(&["check"]).exits(0);
}

#[test]
fn where_nothing_can_be_noted_nothing_is_done() {
    let (cloud, project) = world();
    project.write(".flotilla", "a file where a folder belongs");
    let before = project.files("");
    let run = cloud.run(&project, &OPTIONS).exits(5);
    assert!(run.stderr.contains(".flotilla is a regular file"), "{}", run.stderr);
    assert_eq!((project.files(""), databases(&cloud)), (before, Vec::new()));
}

/// A project whose secrets can't be stored: the last step of all fails.
fn without_a_place_for_secrets(project: &Project) {
    project.write(".env", "A=1\n");
    for arguments in [&["init", "-q"][..], &["add", "-f", ".env"]] {
        output(Command::new("git").args(arguments).current_dir(project.root())).exits(0);
    }
}

#[test]
fn what_cannot_be_taken_back_is_told_and_offered_again() {
    let (cloud, project) = world();
    without_a_place_for_secrets(&project);
    let before = files(&project);
    let run = |keys: bool| {
        let mut command = bare(&cloud, &project, &["new"]);
        command.env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);
        let mut terminal = Terminal::run(120, command);
        answer(&mut terminal, &dialogue());
        let (code, _, last) = terminal.end();
        assert!(keys && code == 5 && last.contains("git tracks .env"), "{code}: {last}");
        last
    };
    assert!(run(true).contains("everything is as it was before"));
    assert_eq!((files(&project), databases(&cloud)), (before.clone(), Vec::new()));
    // And where the cloud doesn't do it:
    cloud.faults(&json!([{"match": {"method": "DELETE"}, "times": 0, "do": {"error": {"status": 403, "code": 10000, "message": "no"}}}]));
    let last = run(true);
    assert!(last.contains("the D1 database acme is not deleted") && last.contains("wrangler d1 delete acme"), "{last}");
    assert_eq!((files(&project), databases(&cloud)), (before.clone(), vec!["acme".to_owned()]));
    cloud.clear_faults();
    let refused = cloud.run(&project, &["new", "b", "--offline", "--yes"]).exits(5);
    assert!(refused.stderr.contains("the D1 database acme was created"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--interrupted undo undoes them"), "{}", refused.stderr);
    cloud.run(&project, &["new", "b", "--offline", "--yes", "--interrupted", "undo"]).exits(0);
    assert_eq!(databases(&cloud), Vec::<String>::new());
    assert!(project.path("customers/b.yaml").exists() && !project.path("customers/acme.yaml").exists());
}

/// The time that the creation of a database takes in the tests that interrupt it: long, as a busy machine is late to interrupt.
const CREATION: Duration = Duration::from_secs(4);

/// A fault by which the creation of a database takes that time.
fn slow_creation() -> Value {
    json!([{"match": {"method": "POST", "path": "d1/database"}, "times": 1, "do": {"delay_ms": CREATION.as_millis() as u64}}])
}

#[test]
fn a_killed_process_is_told_of_and_taken_back() {
    // While the database is being made, and before the secrets are stored.
    for late in [false, true] {
        let (cloud, project) = world();
        let before = files(&project);
        let secrets = project.path(".flotilla/secrets.lock");
        std::fs::create_dir_all(project.path(".flotilla")).expect("a folder");
        let lock = late.then(|| Lock::wait(&secrets, "secrets", &Silent).expect("a lock"));
        if !late {
            cloud.faults(&slow_creation());
        }
        let mut command = bare(&cloud, &project, &["new"]);
        command.env("CLOUDFLARE_ACCOUNT_ID", ACCOUNT);
        let mut terminal = Terminal::run(100, command);
        answer(&mut terminal, &dialogue());
        if late {
            terminal.wait_for("waiting: ");
        } else {
            crate::fleet::until("the spec is written", || project.path("customers/acme.yaml").exists());
            std::thread::sleep(Duration::from_millis(700));
        }
        terminal.kill();
        drop(lock);
        // Of a request whose sender is gone, the emulator makes nothing.
        std::thread::sleep(if late { Duration::ZERO } else { CREATION + Duration::from_millis(500) });
        assert_eq!(databases(&cloud).len(), usize::from(late));
        assert_ne!(files(&project), before);
        let told = cloud.run(&project, &["edit", "first", "--set", "logLevel=debug", "--yes"]).exits(5).stderr;
        assert!(told.contains("was interrupted:") && told.contains("customers/acme.yaml was created"), "{told}");
        // On a terminal it is asked.
        let mut terminal = Terminal::run(100, cloud.command(&project, &["edit", "first", "--set", "logLevel=debug"]));
        terminal.answer("Undo it?", "y");
        terminal.answer("Write it?", "n");
        let (code, _, last) = terminal.end();
        assert_eq!(code, 5, "{last}");
        assert!(last.contains("undone") && last.contains("nothing was changed"), "{last}");
        assert_eq!((files(&project), databases(&cloud)), (before, Vec::new()), "late: {late}");
        cloud.run(&project, &["new", "b", "--offline", "--yes"]).exits(0);
    }
}

#[test]
fn a_signal_in_the_middle_of_the_work_takes_it_back() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let (cloud, project) = world();
        let before = files(&project);
        cloud.faults(&slow_creation());
        let child = cloud.command(&project, &OPTIONS).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
        crate::fleet::until("the spec is written", || project.path("customers/acme.yaml").exists());
        std::thread::sleep(Duration::from_millis(500));
        output(Command::new("kill").args([signal, &child.id().to_string()])).exits(0);
        let ended = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{told}");
        assert!(told.contains("everything is as it was before"), "{told}");
        assert_eq!((files(&project), databases(&cloud)), (before, Vec::new()));
    }
}

#[test]
fn the_dialogue_asks_for_what_the_other_customers_have_also_for_the_local_emulator() {
    let spec =
        |id: &str| format!("vars: {{ SERVICE: {id}.example.com }}\nbindings: {{ FILES: {{ r2: {id}-files }} }}\n");
    let (acme, bolt) = (spec("acme"), spec("bolt"));
    let project = fleet(&[("acme", &acme), ("bolt", &bolt)]);
    let mut command = project.command(&["new", "cafe", "--local"]);
    command.env("FLOTILLA_CACHE_DIR", cache());
    let mut terminal = Terminal::run(100, command);
    let questions = [
        ("Host name", "cafe.example.com"),
        ("Reached by", ""),
        ("Display name", ""),
        ("Origins", ""),
        ("Binding FILES", "cafe-files"),
        ("Variable SERVICE", "\x15cafe.example.com"),
        ("Database", ""),
        ("Destination", ""),
        ("All right?", ""),
    ];
    answer(&mut terminal, &questions.map(|(question, keys)| (question, format!("{keys}{ENTER}"))));
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    assert!(last.contains("flotilla deploy cafe --local"), "{last}");
    let spec = project.read("customers/cafe.yaml");
    assert!(spec.contains("vars: { SERVICE: cafe.example.com }\n"), "{spec}");
    assert!(spec.contains("bindings:\n  FILES: { r2: cafe-files }\n"), "{spec}");
    project.run(&["check"]).exits(0);
    // What is left out is told at the end.
    let mut command = project.command(&["new", "dune", "--local"]);
    command.env("FLOTILLA_CACHE_DIR", cache());
    let mut terminal = Terminal::run(100, command);
    let questions = [
        "Host name",
        "Display name",
        "Origins",
        "Binding FILES",
        "Variable SERVICE",
        "Database",
        "Destination",
        "All right?",
    ];
    answer(&mut terminal, &questions.map(|question| (question, ENTER.to_owned())));
    let (code, _, last) = terminal.end();
    assert_eq!(code, 0, "{last}");
    assert!(last.contains("! every other customer sets FILES, SERVICE: `flotilla edit dune"), "{last}");
}
