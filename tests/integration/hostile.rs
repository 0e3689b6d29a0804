//! Shows that whatever a customer's file holds reaches the outputs as the value that it is, and as nothing else: the
//! generated modules are evaluated by a JavaScript engine. And that the same inputs give the same bytes everywhere.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use flotilla_build::render::Templates;
use flotilla_build::resolve::{Shared, resolve};
use flotilla_model::bundle::{self, Bundle, PackBundle};
use flotilla_model::customer::Worker;
use flotilla_model::digest::{Digest, Framed};
use flotilla_spec::project::{self, Fleet, Reading};
use flotilla_spec::schema::Checker;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

use crate::fleet::{cache, fleet};
use crate::support::{Project, output, repository};

/// Pieces that would do something if they were pasted.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "`",
    "\\",
    "\\\\",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    "\u{b}",
    "\u{c}",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{9f}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{fffd}",
    "\u{ffff}",
    "\u{202e}",
    "\u{2066}",
    "\u{200d}",
    "\u{ad}",
    "\u{e0041}",
    "😀",
    "👩‍👩‍👧",
    "e\u{301}",
    "é",
    "ß",
    "中",
    "</script>",
    "<script>",
    "<!--",
    "-->",
    "<![CDATA[",
    "*/",
    "/*",
    "//",
    "#",
    "\n// ",
    "${",
    "${globalThis.canary = 1}",
    "`;globalThis.canary = 1;//",
    "\");globalThis.canary = 1;//",
    "'+(globalThis.canary = 1)+'",
    "\n};globalThis.canary = 1;\n",
    "{{ worker.name }}",
    "{% raw %}",
    "{% endraw %}",
    "{%- if true %}",
    "{#",
    "}}",
    "{{",
    "\\u0022",
    "\\ud800",
    "\\x22",
    "\\",
    "\\n",
    "&quot;",
    "&lt;",
    "%22",
    "on",
    "off",
    "yes",
    "~",
    "null",
    "true",
    "1e3",
    "0x1f",
    "0o7",
    ".inf",
    "2026-06-01",
    "12:30:45",
    "!!str",
    "&a",
    "*a",
    "<<",
    "? ",
    "- ",
    ": ",
    " #",
    "|",
    ">",
    "@",
    "%YAML",
    "---",
    "...",
    " ",
    "  ",
    "__proto__",
    "constructor",
    "prototype",
    "toString",
    "hasOwnProperty",
    "import(\"fs\")",
    "</",
    "]]>",
    "\"\"\"",
    "'''",
    "[x]",
    "a = 1",
];

/// Hostile text.
fn text() -> BoxedStrategy<String> {
    let piece = prop_oneof![
        6 => prop::sample::select(PIECES).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => "[ -~]{1,8}",
    ];
    prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat()).boxed()
}

/// A hostile JSON value; numbers are those that JavaScript prints as they are written here. Others are refused.
fn value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        5 => text().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => (-(1i64 << 53) + 1..1i64 << 53).prop_map(Value::from),
        // Without an exponent: JavaScript begins to write one at the same numbers as serde_json, but with a sign.
        1 => (1e-5..1e15).prop_filter("a fraction", |number: &f64| number.fract() != 0.0).prop_map(Value::from),
        1 => prop::sample::select(&[0.1, -0.25, 1e-7, 5e-324, 1.5, 1e-300, 123_456_789.125][..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().filter(|(key, _)| key != "<<").collect())),
        ]
    })
    .boxed()
}

/// A spec with hostile values wherever text is free.
fn spec() -> impl Strategy<Value = Value> {
    let settings = prop::collection::btree_map(text(), value(), 0..4);
    let destinations = prop::collection::vec((text(), settings), 0..3);
    let labels = prop::collection::btree_map(text(), text(), 0..3);
    let vars = prop::collection::vec(value(), 0..4);
    (text(), labels, vars, destinations).prop_map(|(name, labels, vars, destinations)| {
        let vars: Map<String, Value> = vars
            .into_iter()
            .enumerate()
            .map(|(at, value)| (["A", "__proto__", "constructor", "b_9"][at].to_owned(), value))
            .collect();
        let destinations: Vec<Value> = destinations
            .into_iter()
            .map(|(name, settings)| {
                let settings: Map<String, Value> =
                    settings.into_iter().filter(|(key, _)| key != "apiSecret" && key != "<<").collect();
                json!({"name": name, "type": "any", "settings": settings})
            })
            .collect();
        let labels: BTreeMap<String, String> = labels.into_iter().filter(|(key, _)| key != "<<").collect();
        json!({"id": "acme", "name": name, "labels": labels, "vars": vars, "destinations": destinations})
    })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

/// A fleet in memory, up to the rendered files.
struct Bench {
    project: Project,
    fleet: Fleet,
    templates: Templates,
    checker: &'static Checker,
    node: Mutex<Node>,
}

/// A JavaScript engine.
struct Node {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The runtime that bundles are made with here.
fn runtime() -> PackBundle {
    PackBundle::new("tiny", b"export const defineWorker = (config) => config;\n".to_vec(), b"export {};\n".to_vec())
}

/// The same, under the name by which the modules import it here.
fn imported() -> PackBundle {
    PackBundle { file: "runtime/tiny.js".to_owned(), ..runtime() }
}

impl Bench {
    fn new() -> Bench {
        let project = fleet(&[]);
        let labels = "{{ worker.labels | toml }}";
        project
            .edit("packs/tiny/pack.yaml", "[wrangler.jsonc.tera]", "[wrangler.jsonc.tera, sample.toml.tera, sample.js.tera]")
            .write(
                "packs/tiny/sample.toml.tera",
                format!("# {{{{ worker.customerName }}}}\nname = \"{{{{ worker.customerName }}}}\" # {{{{ worker.customerName }}}}\nlabels = {labels}\n"),
            )
            .write(
                "packs/tiny/sample.js.tera",
                "// {{ worker.customerName }}\n/* {{ worker.customerName }} */\nexport const data = {\n  \
                 double: \"{{ worker.customerName }}\", // {{ worker.customerName }}\n  single: '{{ worker.customerName }}',\n  \
                 template: `{{ worker.customerName }}`,\n  labels: {{ worker.labels | js }},\n  \
                 destinations: {{ worker.destinations | js(indent=4) }},\n};\n",
            );
        let tree = Tree::new(project.root());
        let fleet = project::read_fleet(&tree).unwrap_or_else(|found| panic!("{found:?}"));
        let templates = Templates::new(&fleet.packs["tiny"]).unwrap_or_else(|found| panic!("{found:?}"));
        let mut child = Command::new("node")
            .args(["--experimental-vm-modules", "--no-warnings"])
            .arg(repository().join("tests/integration/evaluate.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let node = Mutex::new(Node { child, stdin, stdout });
        Bench { project, fleet, templates, checker: Checker::customer(), node }
    }

    fn read(&self, yaml: &str) -> Reading {
        let tree = Tree::new(self.project.root());
        project::read_spec(&tree, Some(&self.fleet), "customers/acme.yaml", yaml.as_bytes(), self.checker)
    }

    /// The worker of a spec's text.
    fn worker(&self, yaml: &str) -> Worker {
        let read = self.read(yaml);
        assert_eq!(read.diagnostics, vec![], "{yaml:?}");
        let spec = read.spec.expect("a spec");
        let mut resolved = resolve(&self.fleet, &Shared::default(), &spec);
        assert!(resolved.diagnostics.is_empty(), "{:?}", resolved.diagnostics);
        resolved.workers.remove(0)
    }

    fn render(&self, name: &str, worker: &Worker) -> String {
        self.templates
            .render(name, worker, &imported(), Some(&Digest::of(b"")))
            .unwrap_or_else(|diagnostic| panic!("{diagnostic:?}"))
    }

    fn bundle(&self, worker: &Worker) -> Bundle {
        let module = self.templates.render("index.ts", worker, &runtime(), None).expect("it renders");
        bundle::bundle(worker, &module, &runtime())
    }

    /// What a module gives when it is evaluated, and nothing else happens.
    fn evaluate(&self, name: &str, text: &str) -> Value {
        let mut node = self.node.lock().expect("one at a time");
        writeln!(node.stdin, "{}", json!({"name": name, "text": text})).expect("node reads");
        let mut line = String::new();
        node.stdout.read_line(&mut line).expect("node answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(answer["error"].is_null(), "{answer}\n{text}");
        assert_eq!(answer["added"], json!([]), "nothing else is defined\n{text}");
        let exported = if name == "index.ts" { "default" } else { "data" };
        assert_eq!(answer["exported"], json!([exported]), "{text}");
        assert_eq!(answer["values"].as_array().map(Vec::len), Some(1), "defineWorker is called once\n{text}");
        serde_json::from_str(answer["values"][0].as_str().expect("JSON")).expect("JSON")
    }

    /// All outputs of a spec hold just the spec's values.
    fn check(&self, spec: &Value, yaml: &str) {
        let worker = self.worker(yaml);
        let module = self.render("index.ts", &worker);
        let destinations: Vec<Value> = spec["destinations"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(at, destination)| {
                json!({
                    "id": if at == 0 { "any".to_owned() } else { format!("any-{}", at + 1) },
                    "name": destination["name"],
                    "type": "any",
                    "requiredConsent": ["marketing"],
                    "settings": destination["settings"],
                })
            })
            .collect();
        let expected = json!({
            "worker": "t-acme", "customer": "acme", "environment": "production", "trustedOrigins": [], "logLevel": "info",
            "database": {"type": "none"}, "secrets": [], "destinations": destinations,
        });
        same(&self.evaluate("index.ts", &module), &expected, &module);

        let wrangler = self.render("wrangler.jsonc", &worker);
        // Without its comments, which are whole lines, it is plain JSON.
        let plain: String =
            wrangler.lines().filter(|line| !line.starts_with("//")).map(|line| format!("{line}\n")).collect();
        let parsed: Value = serde_json::from_str(&plain).unwrap_or_else(|error| panic!("{error}\n{wrangler}"));
        let mut vars = spec["vars"].clone();
        vars["FLOTILLA_DIGEST"] = json!(Digest::of(b""));
        same(&parsed["vars"], &vars, &wrangler);
        assert_eq!((&parsed["name"], &parsed["main"]), (&json!("t-acme"), &json!("index.ts")));

        let sample = self.render("sample.js", &worker);
        let name = &spec["name"];
        let expected = json!({
            "double": name, "single": name, "template": name, "labels": spec["labels"], "destinations": destinations,
        });
        same(&self.evaluate("sample.js", &sample), &expected, &sample);

        let toml_text = self.render("sample.toml", &worker);
        let parsed: toml::Table = toml::from_str(&toml_text).unwrap_or_else(|error| panic!("{error}\n{toml_text}"));
        let parsed = serde_json::to_value(parsed).expect("text alone");
        same(&parsed, &json!({"name": name, "labels": spec["labels"]}), &toml_text);

        // What is uploaded beside the module.
        let metadata = self.bundle(&worker).metadata;
        for binding in metadata["bindings"].as_array().expect("a list") {
            let given = if binding["type"] == "json" { &binding["json"] } else { &binding["text"] };
            same(given, &spec["vars"][binding["name"].as_str().expect("a name")], "the metadata");
        }
    }
}

/// Equal, where a number is a number however it is written.
#[track_caller]
fn same(found: &Value, expected: &Value, shown: &str) {
    fn equal(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
            }
            _ => a == b,
        }
    }
    let cut = |text: &str| text.chars().take(4000).collect::<String>();
    assert!(
        equal(found, expected),
        "found    {}\nexpected {}\n{}",
        cut(&found.to_string()),
        cut(&expected.to_string()),
        cut(shown)
    );
}

/// JSON in which all that isn't ASCII is escaped as YAML escapes it.
fn escaped(value: &Value) -> String {
    value
        .to_string()
        .chars()
        .map(|c| match c {
            ' '..='~' => c.to_string(),
            c => format!("\\U{:08x}", u32::from(c)),
        })
        .collect()
}

/// A spec as people could have written it otherwise: keys in another order, comments, white space, other styles.
fn rewritten(value: &Value, seed: u64, depth: usize) -> String {
    let pad = " ".repeat(2 * depth);
    let roll = |at: usize| Digest::of(format!("{seed} {depth} {at}").as_bytes()).to_string();
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<(usize, (&String, &Value))> = map.iter().enumerate().collect();
            entries.sort_by_key(|(at, _)| roll(*at));
            let mut text = String::new();
            for (at, (key, value)) in entries {
                if roll(at).starts_with(['0', '1', '2', '3']) {
                    text += &format!("\n{pad}# A comment: \"with\" {{ all }} kinds of things\n\n");
                }
                let key = escaped(&Value::from(key.as_str()));
                text += &format!("\n{pad}? {key}\n{pad}:   {}", rewritten(value, seed, depth + 1));
            }
            text
        }
        Value::Array(items) if !items.is_empty() => {
            let items: Vec<String> = items.iter().map(escaped).collect();
            format!("[ {} ]   # a list\n", items.join(&format!(" ,\n{pad}     ")))
        }
        other => format!("{}  # a value\n", escaped(other)),
    }
}

/// As another writer writes it. It is of YAML 1.1, where these characters break lines; in YAML 1.2 they don't.
fn block_style(value: &Value) -> String {
    let breaks = |c: char| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    let json = value.to_string();
    if json.contains(breaks) { json } else { serde_yaml::to_string(value).expect("it can be written") }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_value_comes_out_as_it_went_in(spec in spec()) {
        thread_local! {
            static BENCH: Bench = Bench::new();
        }
        BENCH.with(|bench| bench.check(&spec, &spec.to_string()));
    }

    #[test]
    fn yaml_gives_back_what_was_written_in_any_style(value in value()) {
        let map = json!({"a": value});
        let block = block_style(&map);
        for text in [map.to_string(), serde_json::to_string_pretty(&map).unwrap(), escaped(&map), block, rewritten(&map, 1, 0)] {
            let (document, diagnostics) = yaml::parse("a.yaml", text.as_bytes());
            prop_assert!(diagnostics.is_empty(), "{:?} in {:?}", diagnostics, text);
            let found = document.expect("a document").root.to_value();
            same(&found, &map, &text);
        }
    }

    #[test]
    fn comments_order_and_white_space_change_no_digest(spec in spec(), seed in any::<u64>()) {
        thread_local! {
            static BENCH: Bench = Bench::new();
        }
        BENCH.with(|bench| {
            let first = bench.bundle(&bench.worker(&spec.to_string()));
            let text = rewritten(&spec, seed, 0);
            let second = bench.bundle(&bench.worker(&text));
            assert_eq!(first, second, "{text}");
        });
    }

    #[test]
    fn another_value_is_another_digest(spec in spec(), which in 0usize..4, more in text()) {
        thread_local! {
            static BENCH: Bench = Bench::new();
        }
        let mut other = spec.clone();
        match which {
            0 => other["name"] = json!(format!("{}{more}", spec["name"].as_str().unwrap())),
            1 => other["vars"]["MORE"] = json!(more),
            2 => other["vars"]["MORE"] = json!({more: null}),
            _ => {
                let list = other["destinations"].as_array_mut().unwrap();
                list.push(json!({"name": more, "type": "any", "settings": {}}));
            }
        }
        BENCH.with(|bench| {
            let digest = |spec: &Value| bench.bundle(&bench.worker(&spec.to_string())).digest;
            assert_ne!(digest(&spec), digest(&other));
        });
    }

    #[test]
    fn framed_digests_tell_all_sequences_apart(
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..5),
        others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..5),
        cut in 0usize..16,
    ) {
        let digest = |fields: &[Vec<u8>]| fields.iter().fold(Framed::new("t"), |framed, field| framed.field(field)).finish();
        prop_assert_eq!(digest(&fields) == digest(&others), fields == others);
        // The same bytes, cut elsewhere.
        let bytes = fields.concat();
        let (before, after) = bytes.split_at(cut.min(bytes.len()));
        let halves = vec![before.to_vec(), after.to_vec()];
        prop_assert_eq!(digest(&fields) == digest(&halves), fields == halves);
    }
}

#[test]
fn each_piece_alone_stands_anywhere() {
    let bench = Bench::new();
    for piece in PIECES {
        let key = if *piece == "<<" { "< <" } else { piece };
        let spec = json!({
            "id": "acme", "name": piece, "labels": {key: piece},
            "vars": {"A": piece, "B": {key: [piece, {key: piece}]}, "__proto__": {"__proto__": piece}},
            "destinations": [
                {"name": piece, "type": "any", "settings": {key: piece, "list": [piece, [piece]]}},
                {"name": "two", "type": "any", "settings": {"initOptions": {key: {key: piece}}, "n": 1}},
            ],
        });
        bench.check(&spec, &spec.to_string());
        bench.check(&spec, &escaped(&spec));
        bench.check(&spec, &block_style(&spec));
    }
}

#[test]
fn a_megabyte_of_text_comes_through_whole() {
    let bench = Bench::new();
    let long: String = PIECES.concat().repeat((1 << 20) / PIECES.concat().len() + 1);
    let spec = json!({
        "id": "acme", "name": long, "labels": {"a": long}, "vars": {},
        "destinations": [{"name": "one", "type": "any", "settings": {"text": long, "list": [long]}}],
    });
    bench.check(&spec, &spec.to_string());
}

#[test]
fn what_is_quoted_stays_text() {
    for text in [
        "on",
        "off",
        "yes",
        "no",
        "y",
        "n",
        "true",
        "false",
        "~",
        "null",
        "",
        "1",
        "007",
        "1e3",
        "0x1f",
        "0o17",
        "1_000",
        ".5",
        "-0",
        ".inf",
        ".nan",
        "12:30:45",
        "2026-06-01",
        "123456789012345678901234567890",
        "=",
        "<<",
    ] {
        for quoted in [format!("'{text}'"), format!("\"{text}\""), format!("!!str '{text}'")] {
            let (document, diagnostics) = yaml::parse("a.yaml", format!("a: {quoted}\n").as_bytes());
            assert!(diagnostics.is_empty(), "{quoted}: {diagnostics:?}");
            assert_eq!(document.unwrap().root.to_value(), json!({"a": text}), "{quoted}");
        }
    }
}

#[test]
fn checked_values_are_refused_or_come_through() {
    let bench = Bench::new();
    for piece in PIECES.iter().filter(|piece| !piece.trim().is_empty()) {
        for origin in
            [format!("https://{piece}.example"), format!("https://a.example{piece}"), format!("{piece}://a.example")]
        {
            let text = json!({"id": "acme", "trustedOrigins": [origin]}).to_string();
            let Some(spec) = bench.read(&text).spec else { continue };
            let mut resolved = resolve(&bench.fleet, &Shared::default(), &spec);
            if resolved.diagnostics.is_empty() {
                let module = bench.render("index.ts", &resolved.workers.remove(0));
                assert_eq!(bench.evaluate("index.ts", &module)["trustedOrigins"], json!([origin]));
                assert!(origin.is_ascii() && !origin.contains(['"', '<', '\\', ' ']), "{origin:?} is no origin");
            }
        }
    }
}

/// A fleet with something of everything.
fn varied(backwards: bool) -> Project {
    let project = fleet(&[]);
    let mut pieces: Vec<_> = PIECES.iter().enumerate().take(40).collect();
    if backwards {
        pieces.reverse();
    }
    for (at, piece) in pieces {
        let spec = json!({
            "id": format!("c{at:02}"), "name": format!("Ünïcode {at} {piece}"),
            "labels": {"z": "1", "a": "2", "m": piece},
            "vars": {"Z": {"b": 1, "a": [at, 1.5, null]}, "A": piece},
            "crons": ["5 * * * *", "1 * * * *"], "compatibilityFlags": ["nodejs_compat", "a_flag"],
            "secrets": {"Z_KEY": {"secret": "Z_KEY"}, "A_KEY": {"secret": "A_KEY"}},
            "environments": {"staging": {"logLevel": "debug"}, "production": {}},
            "destinations": [{"name": "one", "type": "any", "settings": {"z": 1, "a": {"y": 1, "b": 2}}}],
        });
        project.write(&format!("customers/c{at:02}.yaml"), spec.to_string());
    }
    project
}

#[test]
fn the_same_inputs_give_the_same_bytes_everywhere() {
    let runs = [
        ("1", "UTC", "C", "/nowhere"),
        ("2", "America/St_Johns", "de_DE.ISO-8859-1", "/"),
        ("4", "Asia/Kathmandu", "tr_TR.UTF-8", "/somewhere/else"),
        ("7", "Pacific/Kiritimati", "ja_JP.SJIS", "/somewhere/else"),
    ];
    let built = runs.map(|(threads, zone, language, home)| {
        let project = varied(threads == "2" || threads == "7");
        let mut command = project.command(&["build", "-j", threads, "--format", "json"]);
        if threads == "7" {
            // From elsewhere, to a folder below the project's.
            command.current_dir("/").arg("--project").arg(project.path("customers"));
        }
        command
            .env("TZ", zone)
            .env("LANG", language)
            .env("LC_ALL", language)
            .env("HOME", home)
            .env("USER", threads)
            .env("FLOTILLA_CACHE_DIR", cache());
        let report = output(&mut command).exits(0).json();
        assert_eq!(report["rendered"], 80);
        let root = project.root().to_string_lossy().into_owned();
        let files = project.files("out");
        for (name, bytes) in &files {
            assert!(!String::from_utf8_lossy(bytes).contains(&root), "{name} names the folder");
        }
        files
    });
    assert_eq!(built[0].len(), 162);
    assert!(built.iter().all(|files| *files == built[0]));
}

#[test]
fn the_bytes_of_the_output_are_what_they_were() {
    let bench = Bench::new();
    let worker = bench.worker(
        "id: acme\nname: Acme & Söhne\nlabels: { tier: gold }\ntrustedOrigins: [https://acme.example]\nlogLevel: warn\n\
         workersDev: false\ndomains: [acme.example]\ncrons: [\"*/5 * * * *\"]\ncompatibilityDate: 2026-05-05\n\
         compatibilityFlags: [nodejs_compat]\nobservability: { enabled: true, sampling: 0.5 }\n\
         database: { type: turso, url: \"libsql://acme.turso.io\", token: { secret: TURSO_AUTH_TOKEN } }\n\
         vars: { TEXT: \"a \\\"b\\\"\", MAP: { b: [1, 1.5, null], a: true } }\nsecrets: { KEY: { secret: SHARED_KEY } }\n\
         destinations:\n  - { name: First, type: any, settings: { id: \"1\", nested: { a: [x, y] } } }\n  \
         - { name: Second, type: any, requiredConsent: [measurement], settings: {} }\n",
    );
    let bundle = bench.bundle(&worker);
    // Another digest means that each customer of each fleet is uploaded again after an update of flotilla. Where that is
    // wanted, say so in the changelog.
    assert_eq!(
        [bundle.digest, bundle.module, bundle.runtime].map(|digest| digest.short()),
        ["ad2274155ee206c5", "46bb306cc2e83cd8", "55939ffe4082c6c2"],
        "\n{}\n{}",
        bench.render("index.ts", &worker),
        bundle.metadata
    );
    assert_eq!(Digest::of(bench.render("wrangler.jsonc", &worker).as_bytes()).short(), "fb378b4534b5539c");
}
