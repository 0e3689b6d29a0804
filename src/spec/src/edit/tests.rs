//! Shows: a change is that change alone, in the value and in the lines.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn path(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

fn set(text: &str, at: &str, value: Value) -> String {
    yaml(text, &Change::Set(path(at), value), &["id", "name", "domains", "vars"])
        .unwrap_or_else(|why| panic!("{why}: {text}"))
}

fn append(text: &str, at: &str, value: Value) -> String {
    yaml(text, &Change::Append(path(at), value), &[]).unwrap_or_else(|why| panic!("{why}: {text}"))
}

fn remove(text: &str, at: &str) -> String {
    yaml(text, &Change::Remove(path(at)), &[]).unwrap_or_else(|why| panic!("{why}: {text}"))
}

const SPEC: &str = "\
# yaml-language-server: $schema=../schema/customer.schema.json
id: acme
name: 'Acme Ltd.' # as on the bill

# What the shop calls.
domains: [ a.acme.example ]
database:   # ours
  type: turso
  url: \"libsql://acme.turso.io\"
  token: { secret: TURSO_AUTH_TOKEN }
destinations:
  # The first.
  - name: Pixel
    type: meta-pixel # why
    settings:
      pixelId: \"123\"

  - name: Analytics
    type: posthog
    settings: { apiKey: phc_1 }
notes: |
  as it
    is

# The end.
";

#[test]
fn a_value_is_put_in_the_place_of_another() {
    let with = |from: &str, to: &str| SPEC.replace(from, to);
    assert_eq!(set(SPEC, "name", json!("It's new")), with("'Acme Ltd.'", "'It''s new'"));
    assert_eq!(set(SPEC, "id", json!("b")), with("id: acme", "id: b"));
    assert_eq!(set(SPEC, "id", json!("0123")), with("id: acme", "id: \"0123\""));
    assert_eq!(set(SPEC, "domains", json!(["x.example"])), with("[ a.acme.example ]", "[x.example]"));
    assert_eq!(set(SPEC, "domains.0", json!("x.example")), with("[ a.acme.example ]", "[ x.example ]"));
    assert_eq!(set(SPEC, "database.url", json!("libsql://b")), with("libsql://acme.turso.io", "libsql://b"));
    assert_eq!(set(SPEC, "database.token.secret", json!("B")), with("TURSO_AUTH_TOKEN", "B"));
    assert_eq!(set(SPEC, "destinations.1.settings.apiKey", json!("phc_2")), with("phc_1", "phc_2"));
    assert_eq!(set(SPEC, "destinations.0.settings.pixelId", json!(7)), with("\"123\"", "7"));
    assert_eq!(set(SPEC, "notes", json!("none")), with("|\n  as it\n    is", "none"));
    assert_eq!(set(SPEC, "name", json!("Acme Ltd.")), SPEC);
}

#[test]
fn a_block_takes_the_place_of_what_was_there() {
    let d1 = json!({"type": "d1", "name": "acme"});
    let changed = set(SPEC, "database", d1.clone());
    assert!(changed.contains("\ndatabase: { name: acme, type: d1 }\n"), "{changed}");
    assert!(
        changed.starts_with(SPEC.split("database").next().unwrap())
            && changed.ends_with(SPEC.split("TURSO_AUTH_TOKEN }").nth(1).unwrap())
    );
    assert_eq!(set("a: 1 # x\nb: 2\n", "a", json!({"b": {"c": 1}})), "a:\n  b: { c: 1 } # x\nb: 2\n");
    assert_eq!(set("a:\n- 1\n- 2\nb: 2\n", "a", json!([[1], 2])), "a:\n- [1]\n- 2\nb: 2\n");
    assert_eq!(set("a:\nb: 2\n", "a", json!("x")), "a: x\nb: 2\n");
    assert_eq!(set("a:\nb: 2\n", "a.c.d", json!("x")), "a:\n  c: { d: x }\nb: 2\n");
    assert_eq!(set("a: {b: }\n", "a.b.c", json!(1)), "a: {b: { c: 1 } }\n");
}

#[test]
fn a_new_key_comes_to_its_place() {
    let vars = set(SPEC, "vars.A", json!("x y"));
    assert_eq!(vars, SPEC.replace("[ a.acme.example ]\n", "[ a.acme.example ]\nvars: { A: x y }\n"));
    assert_eq!(set(SPEC, "other", json!(true)), SPEC.replace("    is\n", "    is\nother: true\n"));
    assert_eq!(
        set(SPEC, "database.name", json!("n")),
        SPEC.replace("TURSO_AUTH_TOKEN }", "TURSO_AUTH_TOKEN }\n  name: n")
    );
    let enabled = SPEC.replace("\"123\"\n", "\"123\"\n    enabled: false\n");
    assert_eq!(set(SPEC, "destinations.0.enabled", json!(false)), enabled);
    assert_eq!(set(SPEC, "destinations.1.settings.b", json!("c, d")), SPEC.replace("phc_1 }", "phc_1, b: \"c, d\" }"));
    assert_eq!(set("a: {}", "a.b", json!(null)), "a: { b: null }");
    assert_eq!(set("a: 1", "b", json!("x")), "a: 1\nb: x\n");
    assert_eq!(set("a: 1\r\nb:\r\n  c: 1\r\n", "b.d", json!(2)), "a: 1\r\nb:\r\n  c: 1\r\n  d: 2\r\n");
    assert_eq!(set("\u{feff}a: 1\n", "a", json!(2)), "\u{feff}a: 2\n");
    assert_eq!(set("a: |+\n  x\n\nb: 1\n", "c", json!(1)), "a: |+\n  x\n\nb: 1\nc: 1\n");
    assert_eq!(set("b: 1\na: |+\n  x\n\n", "c", json!(1)), "b: 1\na: |+\n  x\n\nc: 1\n");
}

#[test]
fn items_are_added_at_the_end() {
    let pixel = json!({"name": "B", "type": "c", "settings": {"d": {"e": 1}}});
    let changed = append(SPEC, "destinations", pixel);
    assert!(changed.contains("apiKey: phc_1 }\n  - name: B\n"), "{changed}");
    assert!(changed.contains("    settings:\n      d: { e: 1 }\n"), "{changed}");
    assert_eq!(
        append(SPEC, "domains", json!("b.example")),
        SPEC.replace("a.acme.example ]", "a.acme.example, b.example ]")
    );
    assert_eq!(append("a: 1\nb: []\n", "b", json!("x")), "a: 1\nb: [x]\n");
    assert_eq!(append("a: 1\nb: []\n", "b", json!({"x": {"y": 1}})), "a: 1\nb:\n  - x: { y: 1 }\n");
    assert_eq!(append("a: 1\n", "b", json!("x")), "a: 1\nb: [x]\n");
    assert_eq!(append("a:\n- 1\n# c\nb: 1\n", "a", json!(2)), "a:\n- 1\n- 2\n# c\nb: 1\n");
    assert_eq!(append("a:\n  -\n  - # c\n    b: 1\n", "a", json!(2)), "a:\n  -\n  - # c\n    b: 1\n  - 2\n");
}

#[test]
fn what_is_taken_out_leaves_the_rest() {
    assert_eq!(remove(SPEC, "name"), SPEC.replace("name: 'Acme Ltd.' # as on the bill\n", ""));
    assert_eq!(remove(SPEC, "database.url"), SPEC.replace("  url: \"libsql://acme.turso.io\"\n", ""));
    let first = SPEC.find("  - name: Pixel").unwrap()..SPEC.find("\n  - name: Analytics").unwrap();
    assert_eq!(remove(SPEC, "destinations.0"), format!("{}{}", &SPEC[..first.start], &SPEC[first.end..]));
    assert_eq!(remove(SPEC, "destinations.0.name"), SPEC.replace("name: Pixel\n    ", ""));
    assert_eq!(remove(SPEC, "domains.0"), SPEC.replace("[ a.acme.example ]", "[]"));
    assert_eq!(remove("a: {b: 1, c: 2, d: 3}\n", "a.b"), "a: {c: 2, d: 3}\n");
    assert_eq!(remove("a: {b: 1, c: 2, d: 3}\n", "a.d"), "a: {b: 1, c: 2}\n");
    assert_eq!(remove("a:\n  b: 1 # x\nc: 2\n", "a.b"), "a:\n  {} # x\nc: 2\n");
    assert_eq!(remove("a:\n- b\nc: 2\n", "a.0"), "a:\n []\nc: 2\n");
    assert_eq!(remove("a:\n- b: 1\n  # of c\n  c: 2\n", "a.0.b"), "a:\n-\n  # of c\n  c: 2\n");
}

#[test]
fn what_would_change_more_is_refused() {
    let refused = |text: &str, change: Change| yaml(text, &change, &[]).unwrap_err().0;
    let set = |at: &str| Change::Set(path(at), json!(2));
    assert!(refused("a: &x 1\nb: *x\n", set("a")).contains("by hand"));
    assert!(refused("a: {b: 1}\nc: [1\n", set("a.b")).contains("fix them first"));
    assert!(refused("a: 1\n", set("a.b")).contains("neither a map nor a list"));
    assert!(refused("a: [1]\n", set("a.7")).contains("no `7`"));
    assert!(refused("a: 1\n", Change::Remove(path("b"))).contains("no `b`"));
    assert!(refused("a: 1\n", Change::Append(path("a"), json!(1))).contains("not a list"));
}

#[test]
fn a_fresh_file_is_written_as_people_write_it() {
    let text = fresh(
        &[
            ("id", json!("acme")),
            ("name", json!("Café: \"x\"")),
            ("labels", json!({"tier": "gold"})),
            ("domains", json!(["consent.acme.example"])),
            ("destinations", json!([{"name": "A", "settings": {"apiKey": "k"}, "type": "posthog"}])),
            ("database", json!({"id": "1", "type": "d1", "name": "n"})),
        ],
        &["database.type", "database.name", "destinations.name", "destinations.type"],
    );
    let wanted = "id: acme\nname: \"Café: \\\"x\\\"\"\nlabels: { tier: gold }\ndomains: [consent.acme.example]\n\
                  destinations:\n  - name: A\n    type: posthog\n    settings: { apiKey: k }\ndatabase: { type: d1, name: n, id: \"1\" }\n";
    assert_eq!(text, wanted);
}

#[test]
fn variables_of_env_files_change_in_their_lines() {
    let text = "# ours\nA=1\nexport B = 'two' # why\n\nC=\"x'y\" # z\r\n";
    assert_eq!(env(text, "A", Some("2")).unwrap(), text.replace("A=1", "A=2"));
    assert_eq!(env(text, "B", Some("a b")).unwrap(), text.replace("'two'", "'a b'"));
    assert_eq!(env(text, "C", Some("it's")).unwrap(), text.replace("\"x'y\"", "\"it's\""));
    assert_eq!(env(text, "B", None).unwrap(), text.replace("export B = 'two' # why\n", ""));
    assert_eq!(env("A=1", "D", Some("")).unwrap(), "A=1\nD=\n");
    assert_eq!(env(text, "NOT", None).unwrap(), text);
    assert!(env("A=1\nA=2\n", "A", Some("3")).is_err());
}

/// Returns a YAML text with all that people do to it: `depth` levels below a key or a dash at `indent`.
fn node(depth: u32, indent: usize) -> BoxedStrategy<String> {
    let comment = || prop_oneof![4 => Just(String::new()), 1 => Just(" # a: [comment".to_owned())];
    let word = || "[a-z][a-z0-9]{0,3}";
    let scalar = prop_oneof![
        word().prop_map(|word| word.to_string()),
        "[ a-z:#,\\[é-]{0,6}".prop_map(|text| format!("'{text}'")),
        "[ a-z:#,\\[é-]{0,6}".prop_map(|text| format!("\"{text}\"")),
        (0..999u32).prop_map(|number| number.to_string()),
        Just("true".to_owned()),
        Just("[a, 'b', { c: d }]".to_owned()),
        Just("{x: 1, y: [ ], z: {}}".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just(String::new()),
    ];
    let scalar = (scalar, comment()).prop_map(|(text, comment)| format!(" {text}{comment}\n"));
    let pad = " ".repeat(indent);
    let literal = (comment(), prop::collection::vec("[a-z# :]{1,6}", 1..3), 0..2usize).prop_map({
        let pad = pad.clone();
        move |(comment, lines, empty)| {
            let lines: String = lines.iter().map(|line| format!("{pad}  x{line}\n")).collect();
            format!(" |{comment}\n{lines}{}", "\n".repeat(empty))
        }
    });
    if depth == 0 {
        return prop_oneof![6 => scalar, 1 => literal].boxed();
    }
    let between = || prop_oneof![5 => Just(String::new()), 1 => Just("\n".to_owned()), 1 => Just(format!("{}# b: 1\n", " ".repeat(indent)))];
    let keys = prop::collection::vec((between(), node(depth - 1, indent + 2)), 1..4);
    let map = (comment(), keys.clone()).prop_map({
        let pad = pad.clone();
        move |(comment, keys)| {
            let lines =
                keys.iter().enumerate().map(|(index, (between, value))| format!("{between}{pad}k{index}:{value}"));
            format!("{comment}\n{}", lines.collect::<String>())
        }
    });
    let list = (comment(), keys).prop_map({
        let pad = pad.clone();
        move |(comment, keys)| {
            let items = keys.iter().map(|(between, value)| {
                // A map or list may begin behind its dash.
                let value = match value.strip_prefix('\n') {
                    Some(below)
                        if below.starts_with(&format!("{pad}  k")) || below.starts_with(&format!("{pad}  - ")) =>
                    {
                        format!(" {}", below.trim_start())
                    }
                    _ => value.clone(),
                };
                format!("{between}{pad}-{value}")
            });
            format!("{comment}\n{}", items.collect::<String>())
        }
    });
    prop_oneof![2 => scalar, 1 => literal, 3 => map, 2 => list].boxed()
}

fn document() -> impl Strategy<Value = String> {
    let keys = prop::collection::vec(node(3, 2), 1..4);
    (keys, any::<bool>()).prop_map(|(keys, crlf)| {
        let text: String = keys.iter().enumerate().map(|(index, value)| format!("k{index}:{value}")).collect();
        let text = format!("# first\n{text}# last\n");
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

/// Collects all paths of a value.
fn paths(value: &Value, path: &[String], all: &mut Vec<Vec<String>>) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (step, value) in parts {
        let path: Vec<String> = path.iter().cloned().chain([step]).collect();
        paths(value, &path, all);
        all.push(path);
    }
}

fn read(text: &str) -> Value {
    let (document, mistakes) = crate::yaml::parse("", text.as_bytes());
    assert_eq!(mistakes, vec![], "{text}");
    document.expect("a document").root.to_value()
}

/// Returns the number of lines at the beginning and at the end that are the same.
fn kept(before: &str, after: &str) -> usize {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let start = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let rest = before.len().min(after.len()) - start;
    let end = before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    start + end
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The change and nothing but the change: in the value, and in the lines.
    #[test]
    fn a_change_is_that_change_alone(
        text in document(), pick in any::<prop::sample::Index>(), what in 0..4u8,
        value in prop_oneof![
            Just(json!("new")), Just(json!("0x: #")), Just(json!(7)), Just(json!(["a", {"b": ["c"]}])), Just(json!({"a": {"b": "é"}})),
        ],
    ) {
        let old = read(&text);
        let mut all = Vec::new();
        paths(&old, &[], &mut all);
        let path = pick.get(&all).clone();
        let at = old.pointer(&format!("/{}", path.join("/"))).expect("it is there");
        let below = |step: &str| path.iter().cloned().chain([step.to_owned()]).collect::<Vec<_>>();
        let change = match what {
            0 => Change::Set(path.clone(), value),
            1 => Change::Remove(path.clone()),
            2 if at.is_object() || at.is_null() => Change::Set(below("new"), value),
            3 if at.is_array() || at.is_null() => Change::Append(path.clone(), value),
            _ => return Ok(()),
        };
        let mut wanted = old.clone();
        apply(&mut wanted, &change).expect("it can be applied");
        let changed = yaml(&text, &change, &[]);
        let changed = changed.unwrap_or_else(|why| panic!("{why}\n{change:?}\n{text}"));
        prop_assert_eq!(read(&changed), wanted);
        // The lines that the node had, and no others, may differ. A scalar has at most four (a literal of two lines
        // and an empty one), an empty line before the next key, and that key moves up to a dash whose first key goes.
        let most = match at {
            Value::Object(_) | Value::Array(_) => text.lines().count(),
            _ => 6,
        };
        prop_assert!(text.lines().count() - kept(&text, &changed) <= most, "{:?}\n{}\n---\n{}", change, text, changed);
        for line in text.lines().filter(|line| line.trim_start().starts_with("# first") || line.starts_with("# last")) {
            prop_assert!(changed.contains(line));
        }
    }

    #[test]
    fn any_variable_of_an_env_file(
        lines in prop::collection::vec(("[A-C]", "[ -~é]{0,8}", prop_oneof![Just(""), Just(" # c"), Just("\n\n# d")]), 0..5),
        name in "[A-D]", value in "[ -~é\n\"'\\\\]{0,10}",
    ) {
        let mut text = String::new();
        for (name, value, tail) in &lines {
            let form = dotenv::written(value).filter(|form| !(form.is_empty() && tail.starts_with(" #")));
            if let Some(form) = form.filter(|_| !text.contains(&format!("{name}="))) {
                text += &format!("{name}={}{tail}\n", form.as_str());
            }
        }
        let read = |text: &str| crate::envfile::parse("", text.as_bytes()).0.root.to_value()["vars"].clone();
        let Some(form) = dotenv::written(&value) else {
            prop_assert_eq!(env(&text, &name, Some(&value)), Err(unwritable()));
            return Ok(());
        };
        let changed = env(&text, &name, Some(&value)).unwrap_or_else(|why| panic!("{why}: {text}"));
        let mut wanted = read(&text);
        wanted[&name] = value.clone().into();
        prop_assert_eq!(read(&changed), wanted);
        let others = |text: &str| text.lines().filter(|line| !line.starts_with(&format!("{name}="))).map(str::to_owned).collect::<Vec<_>>();
        if !form.contains('\n') {
            prop_assert_eq!(others(&text), others(&changed));
        }
    }
}
