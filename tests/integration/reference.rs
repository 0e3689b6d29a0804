//! Shows: the reference in docs/reference is that of the program: cli.md is made of the command line, spec.md and fleet.md of the JSON
//! Schemas. `UPDATE_DOCS=1 cargo test --test integration reference` writes them anew.

use std::collections::BTreeSet;

use clap::{Arg, Command};
use serde_json::{Map, Value};

use crate::support::repository;

/// The definitions whose keys are described elsewhere.
const ELSEWHERE: [(&str, &str); 4] = [
    ("Binding", "[a binding](bindings.md)"),
    ("Destination", "a destination"),
    ("InEnvironment", "[the keys of a spec](spec.md)"),
    ("Role", "[the keys of a spec](spec.md)"),
];

#[test]
fn the_command_line_is_described() {
    check("cli.md", &commands(flotilla_cli::command_line()));
}

#[test]
fn specs_are_described() {
    let intro = "# Customer specs\n\nThe keys of `customers/NAME.yaml`. Layers (`layers/NAME.yaml`), `defaults` in fleet.yaml, each environment under \
                 `environments` and each role under `workers` take the same keys, apart from `id`. A list under `key+` is appended to \
                 the weaker layer's `key`; `null` removes what a weaker layer sets. `flotilla schema` writes the schemas for your editor, with the destination types of \
                 your packs.\n\n";
    check("spec.md", &(intro.to_owned() + &schema("customer")));
}

#[test]
fn fleet_yaml_is_described() {
    let intro = "# fleet.yaml\n\nThe file that makes a folder a project: accounts, packs, layers and defaults.\n\n";
    check("fleet.md", &(intro.to_owned() + &schema("fleet")));
}

/// Compares a page with what it has to be.
fn check(page: &str, current: &str) {
    let path = repository().join("docs/reference").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, current).expect("it can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == current, "docs/reference/{page} is out of date: UPDATE_DOCS=1 writes it anew");
}

fn commands(mut root: Command) -> String {
    root = root.term_width(0);
    root.build();
    let mut page = "# Command line\n\nEvery command and option, as `flotilla help COMMAND` prints them.\n".to_owned();
    let about = root.get_after_help().map(ToString::to_string).unwrap_or_default();
    page += &format!("\n```text\n{}\n```\n", about.trim_end());
    let globals: Vec<&Arg> = root.get_arguments().filter(|argument| argument.is_global_set()).collect();
    page += &format!("\n## Global options\n\nEvery command takes them.\n\n{}", options(&globals));
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(command, &mut page);
    }
    page
}

fn describe(command: &Command, page: &mut String) {
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    let name = command.get_bin_name().expect("it is built").to_owned();
    *page += &format!("\n## {name}\n\n{}.\n", text(command.get_about()));
    *page += &format!("\n```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
    let own = |argument: &&Arg| !argument.is_global_set() && !argument.is_hide_set() && argument.get_id() != "help";
    let (positional, flags): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(own).partition(|argument| argument.is_positional());
    if !positional.is_empty() {
        *page += &format!("\n{}", options(&positional));
    }
    if !flags.is_empty() {
        *page += &format!("\n{}", options(&flags));
    }
    if let Some(after) = command.get_after_help() {
        *page += &format!("\n```text\n{}\n```\n", after.to_string().trim_end());
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        describe(inner, page);
    }
}

/// Returns a table of options or arguments.
fn options(arguments: &[&Arg]) -> String {
    let mut table = "| option | |\n|---|---|\n".to_owned();
    for argument in arguments {
        let names = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>();
        let takes = argument.get_action().takes_values();
        let value = if takes { names.join(" ") } else { String::new() };
        let mut flags = Vec::new();
        flags.extend(argument.get_short().map(|short| format!("-{short}")));
        flags.extend(argument.get_long().map(|long| format!("--{long}")));
        let name = match flags.is_empty() {
            true => value,
            false => format!("{} {}", flags.join(", "), if takes { format!("<{value}>") } else { String::new() }),
        };
        let mut about = text(argument.get_help());
        let possible = argument.get_possible_values();
        if takes && !possible.is_empty() && !argument.is_hide_possible_values_set() {
            let values: Vec<String> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
            about += &format!(": {}", values.join(", "));
        }
        let defaults = argument.get_default_values();
        if takes && !defaults.is_empty() && !argument.is_hide_default_value_set() {
            let values: Vec<String> = defaults.iter().map(|value| value.to_string_lossy().into_owned()).collect();
            about += &format!(" [default: {}]", values.join(" "));
        }
        table += &format!("| `{}` | {} |\n", name.trim_end(), cell(&about));
    }
    table
}

fn text(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default()
}

/// Describes a schema of schema/: its keys, and those of the definitions that they use.
fn schema(name: &str) -> String {
    let path = repository().join(format!("schema/{name}.schema.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("it is JSON");
    let definitions = schema["$defs"].as_object().expect("it has definitions");
    let mut used = BTreeSet::new();
    let mut page = keys(&schema, definitions, &mut used);
    // In the order of their names, with those that they use themselves.
    let mut described = BTreeSet::new();
    while let Some(name) = used.difference(&described).next().cloned() {
        described.insert(name.clone());
        keys(&definitions[&name], definitions, &mut used);
    }
    for name in described {
        let definition = &definitions[&name];
        page += &format!("\n## {name}\n\n{}\n\n", sentence(definition));
        page += &keys(definition, definitions, &mut BTreeSet::new());
    }
    page
}

/// Returns the table of an object's keys; notes the definitions that they use.
fn keys(object: &Value, definitions: &Map<String, Value>, used: &mut BTreeSet<String>) -> String {
    let Some(properties) = properties(object) else { return String::new() };
    let required: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut table = "| key | value | |\n|---|---|---|\n".to_owned();
    for (key, value) in properties.iter().filter(|(key, _)| !key.ends_with('+')) {
        // The same keys as those of a spec.
        let kind = match key.as_str() {
            "defaults" => "[the keys of a spec](spec.md)".to_owned(),
            _ => kind(value, definitions, used),
        };
        let mark = if required.contains(&key.as_str()) { " **Required.**" } else { "" };
        table += &format!("| `{key}` | {} | {}{mark} |\n", cell(&kind), cell(&sentence(value)));
    }
    table
}

/// Returns the properties of an object, or of the one form among several that is an object.
fn properties(object: &Value) -> Option<&Map<String, Value>> {
    let forms = object["allOf"].as_array().into_iter().flatten();
    let forms = forms.flat_map(|all| all["anyOf"].as_array().into_iter().flatten());
    std::iter::once(object).chain(forms).find_map(|form| form["properties"].as_object())
}

/// Returns the kind of a value in words.
fn kind(value: &Value, definitions: &Map<String, Value>, used: &mut BTreeSet<String>) -> String {
    if let Some(name) = value["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        if let Some((_, text)) = ELSEWHERE.iter().find(|(known, _)| *known == name) {
            return (*text).to_owned();
        }
        if properties(&definitions[name]).is_some() {
            used.insert(name.to_owned());
            return format!("[{name}](#{})", name.to_lowercase());
        }
        return kind(&definitions[name], definitions, used);
    }
    if let Some(values) = value["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("`{}`", value.as_str().unwrap_or("null")))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(value) = value["const"].as_str() {
        return format!("`{value}`");
    }
    // `null` removes what a weaker layer has; its own branch says nothing more.
    if value["if"]["type"] == "null" {
        return kind(&value["else"], definitions, used);
    }
    for list in ["anyOf", "oneOf", "allOf"] {
        if let Some(forms) = value[list].as_array().filter(|_| value["type"].is_null()) {
            let mut kinds: Vec<String> = forms.iter().map(|form| kind(form, definitions, used)).collect();
            kinds.retain(|kind| kind != "null" && kind != "any value");
            kinds.dedup();
            return if kinds.is_empty() { "any value".to_owned() } else { kinds.join(" or ") };
        }
    }
    let types = match &value["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        _ => Vec::new(),
    };
    let kinds: Vec<String> = types
        .iter()
        .map(|one| match *one {
            "string" => "text".to_owned(),
            "integer" | "number" => "number".to_owned(),
            "boolean" => "`true` or `false`".to_owned(),
            "array" => format!("list of {}", kind(&value["items"], definitions, used)),
            "object" if value["additionalProperties"].is_object() => {
                format!("map to {}", kind(&value["additionalProperties"], definitions, used))
            }
            "object" => match value["properties"].as_object() {
                Some(keys) => format!("`{{ {} }}`", keys.keys().cloned().collect::<Vec<_>>().join(", ")),
                None => "map".to_owned(),
            },
            other => other.to_owned(),
        })
        .collect();
    if kinds.is_empty() { "any value".to_owned() } else { kinds.join(" or ") }
}

/// Returns the description on one line.
fn sentence(value: &Value) -> String {
    value["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Escapes what would end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
