//! Shows: a dotenv file is read as npm's dotenv and wrangler read it, and as Docker Compose documents it; what they read differently is an
//! error. An empty value is a missing secret.

use std::io::Write as _;
use std::process::{Command, Stdio};

use flotilla_spec::dotenv;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};

use crate::cases::tiny;
use crate::tools::{node, packages};

/// Lines, what Docker Compose makes of the value of A by its documentation (<https://docs.docker.com/compose/environment-variables/>,
/// "Syntax of env files"; null where it documents an error, or nothing), and whether flotilla takes the line.
const LINES: [(&str, Option<&str>, bool); 43] = [
    ("A=x", Some("x"), true),
    ("A=", Some(""), true),
    ("A=''", Some(""), true),
    ("A=\"\"", Some(""), true),
    ("A = x ", Some("x"), true),
    ("export A=x", Some("x"), true),
    ("  A=x", Some("x"), true),
    ("A=two words", Some("two words"), true),
    ("A=x # comment", Some("x"), true),
    ("# A=y\nA=x", Some("x"), true),
    ("A=y\nA=x", Some("x"), true),
    ("A=it's", Some("it's"), true),
    ("A=say \"hi\"", Some("say \"hi\""), true),
    ("A=a=b=", Some("a=b="), true),
    ("A=C:\\dir", Some("C:\\dir"), true),
    ("A=https://a.example/?b=c&d", Some("https://a.example/?b=c&d"), true),
    ("A='x'", Some("x"), true),
    ("A='x' # comment", Some("x"), true),
    ("A=\"x\" # comment", Some("x"), true),
    ("A='$2b$12$abc'", Some("$2b$12$abc"), true),
    ("A='a#b'", Some("a#b"), true),
    ("A=\"a#b\"", Some("a#b"), true),
    ("A='a\\nb'", Some("a\\nb"), true),
    ("A=\"a\\nb\"", Some("a\nb"), true),
    ("A=\"a\\r\\nb\"", Some("a\r\nb"), true),
    ("A='a\nb'", Some("a\nb"), true),
    ("A=\"it's\"", Some("it's"), true),
    ("A='say \"hi\"'", Some("say \"hi\""), true),
    // What a variable is made of.
    ("A=$B/x\nB=1", Some("/x"), false),
    ("A=${B}/x\nB=1", Some("/x"), false),
    ("A=$2b$12$abc.xyz", Some(".xyz"), false),
    ("A=\"$B\"\nB=1", Some(""), false),
    // What begins a comment.
    ("A=pass#word", Some("pass#word"), false),
    ("A=# x", Some("# x"), false),
    ("A=\"x\"#y", None, false),
    // What escapes.
    ("A=\"a\\tb\"", Some("a\tb"), false),
    ("A=\"a\\\\b\"", Some("a\\b"), false),
    ("A=\"say \\\"hi\\\"\"", Some("say \"hi\""), false),
    ("A='it\\'s'", Some("it's"), false),
    // What is a quote, and where it ends.
    ("A=`x`", Some("`x`"), false),
    ("A='x", None, false),
    ("A='x'y", None, false),
    // What separates.
    ("A: x", None, false),
];

/// Returns what npm's dotenv, `wrangler secret bulk` and `wrangler dev` read.
fn elsewhere(texts: &[String]) -> Vec<[Map<String, Value>; 3]> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/dotenv.cjs");
    let mut command = Command::new(node());
    command.arg(script).arg(packages().join("node_modules")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("node runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let written = serde_json::to_vec(texts).expect("texts are JSON");
    let writer = std::thread::spawn(move || stdin.write_all(&written));
    let output = child.wait_with_output().expect("node ends");
    writer.join().expect("no panic").expect("node reads");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// Returns what flotilla reads; nothing where it reports an error.
fn own(text: &str) -> Option<Map<String, Value>> {
    let (entries, wrong) = dotenv::read(text);
    wrong
        .is_empty()
        .then(|| entries.iter().map(|entry| (entry.name.to_owned(), Value::from(entry.value.as_str()))).collect())
}

#[test]
fn each_line_is_read_as_everybody_reads_it_or_is_an_error() {
    let texts: Vec<String> = LINES.iter().map(|(text, ..)| (*text).to_owned()).collect();
    for ((text, compose, is_taken), read) in LINES.iter().zip(elsewhere(&texts)) {
        let [npm, bulk, dev] = read;
        let compose = compose.map(Value::from);
        match own(text) {
            Some(own) => {
                assert!(is_taken, "{text:?} is taken as {own:?}");
                assert_eq!(own, npm, "{text:?}: npm's dotenv");
                assert_eq!(own, bulk, "{text:?}: wrangler secret bulk");
                assert_eq!(own.get("A"), compose.as_ref(), "{text:?}: Docker Compose");
            }
            None => {
                assert!(!is_taken, "{text:?}: {:?}", dotenv::read(text).1);
                let all = [npm.get("A"), bulk.get("A"), dev.get("A"), compose.as_ref()];
                assert!(all.iter().any(|value| *value != all[0]), "{text:?} is read alike by all: {all:?}");
            }
        }
    }
}

#[test]
fn whatever_is_taken_is_read_alike_elsewhere() {
    let part = prop_oneof![
        6 => "[ABC]=",
        6 => "[a-z0-9 .:/@é]{1,4}",
        3 => "['\"]",
        3 => "\n",
        1 => "[`$#\\\\\t\r]",
        1 => "\\\\n| #|export |\u{a0}|\u{2028}|\u{feff}|\r\n",
    ];
    let text = prop::collection::vec(part, 1..14).prop_map(|parts| parts.concat());
    let mut runner = TestRunner::deterministic();
    let texts: Vec<String> = (0..20_000)
        .map(|_| text.new_tree(&mut runner).expect("a text").current())
        .filter(|text| own(text).is_some_and(|read| !read.is_empty()))
        .collect();
    assert!(texts.len() > 2_000, "only {} are taken", texts.len());
    for (text, [npm, bulk, _]) in texts.iter().zip(elsewhere(&texts)) {
        let own = own(text).unwrap_or_default();
        assert_eq!((&npm, &bulk), (&own, &own), "{text:?}");
    }
}

#[test]
fn an_error_names_its_line_and_an_empty_value_is_missing() {
    let project = tiny();
    project.write("customers/acme.yaml", "id: acme\nsecrets: { HASH: { secret: HASH }, TOKEN: { secret: TOKEN } }\n");
    project.write("dot.env", "DB_HOST=h1\nHASH=$2b$12$canary\nURL=$DB_HOST/x\nTOKEN=\n");
    let run = project.run(&["secrets", "check", "--env-file", "dot.env"]).exits(1);
    for told in ["dot.env", "line 2, column 6: the value of `HASH` has a `$`", "line 3, column 5: the value of `URL`"] {
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    }
    assert!(!run.stderr.contains("canary"));
    project.write("dot.env", "HASH='$2b$12$canary'\nTOKEN=\n");
    let run = project.run(&["secrets", "check", "--env-file", "dot.env", "--format", "json"]).exits(1);
    let told = run.json();
    assert_eq!(told["missing"].as_array().map(Vec::len), Some(1), "{told}");
}
