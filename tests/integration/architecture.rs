//! Shows: the modules keep to their layers, each crate of the outer world is named in one place only, and the
//! repository holds nothing of the machine on which it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::support::{output, repository};

struct Layer {
    name: &'static str,
    modules: &'static [&'static str],
    /// The layers that it may use. Within a layer modules use each other, without circles.
    layers: &'static [&'static str],
    /// And single modules of other layers, for their types.
    and: &'static [&'static str],
}

/// The layers, from the inside out. A new module needs a line here; a new entry under `layers` or `and` is a change of
/// the architecture, and worth a discussion.
const LAYERS: &[Layer] = &[
    // What everybody talks about: values, and the seams to time, to the platform and to those who watch. `spec` is here
    // for its types (environment, log level), which customers keep.
    Layer {
        name: "words",
        modules: &[
            "binding",
            "clock",
            "customer",
            "diagnostic",
            "digest",
            "explanation",
            "failure",
            "limits",
            "names",
            "platform",
            "preview",
            "progress",
            "selection",
            "spec",
            "tags",
            "trace",
        ],
        layers: &["words"],
        and: &[],
    },
    // From files to typed values.
    Layer {
        name: "reading",
        modules: &["edit", "envfile", "layer", "pack", "project", "schema", "tree", "yaml"],
        layers: &["words", "reading"],
        and: &[],
    },
    // From typed values to bundles: pure.
    Layer {
        name: "core",
        modules: &["bundle", "check", "escape", "origin", "policy", "render", "resolve", "syntax", "tally"],
        layers: &["words", "reading", "core"],
        and: &[],
    },
    // What stays on disk.
    Layer {
        name: "memory",
        modules: &["cache", "lock", "out", "state", "undo"],
        layers: &["words", "memory"],
        and: &["bundle"],
    },
    // The left half of the line: reading, core and memory in their order.
    Layer {
        name: "line",
        modules: &["build", "export", "git", "manifest", "runtime", "since"],
        layers: &["words", "reading", "core", "memory", "line"],
        and: &[],
    },
    // What is to be done: pure.
    Layer {
        name: "decision",
        modules: &["plan", "refresh", "safety"],
        layers: &["words", "decision"],
        and: &["bundle", "state"],
    },
    // The right half of the line. It sees no spec and renders nothing: what it does was decided before.
    Layer {
        name: "world",
        modules: &["cloudflare", "deploy", "pace", "secrets", "verify"],
        layers: &["words", "memory", "decision", "world"],
        and: &["bundle"],
    },
    // Other tools' projects, as files of ours: values in, values out, and then all files or none.
    Layer { name: "import", modules: &["import"], layers: &["words", "reading", "import"], and: &[] },
    // Stands for Cloudflare, and so knows nothing of us.
    Layer { name: "local", modules: &["local"], layers: &[], and: &[] },
    // Where people and other programs come in.
    Layer {
        name: "edge",
        modules: &["command", "main", "lib"],
        layers: &["words", "reading", "core", "memory", "line", "decision", "world", "import", "local", "edge"],
        and: &[],
    },
];

/// Which files may name something: a crate by its path, or a macro that prints.
const ONLY: &[(&[&str], &[&str])] = &[
    (&["reqwest::", "rustls::"], &["src/cloudflare.rs", "src/cloudflare/"]),
    (&["tera::"], &["src/render.rs", "src/escape.rs"]),
    (&["clap::", "clap_complete::", "dialoguer::", "indicatif::"], &["src/command/", "src/main.rs"]),
    (&["println!", "eprintln!", "print!(", "stdout()", "stderr()"], &["src/command/", "src/main.rs"]),
    (&["rusqlite::"], &["src/state.rs", "src/state/", "src/local/"]),
    (&["saphyr_parser::"], &["src/yaml.rs", "src/yaml/"]),
    (&["oxc_parser::", "jsonc_parser::"], &["src/syntax.rs", "src/import/"]),
    (&["jsonschema::"], &["src/schema.rs"]),
    (&["rustix::"], &["src/clock.rs", "src/lock.rs", "src/command/"]),
    (&["age::", "dotenvy::"], &["src/secrets/"]),
    (&["rpassword::"], &["src/command/secrets/"]),
    (&["include_dir::"], &["src/command/packs.rs"]),
    (&["tar::", "zip::"], &["src/export.rs"]),
    (&["quick_xml::"], &["src/command/junit.rs"]),
];

/// The sources by path, without their tests and comments.
fn sources() -> BTreeMap<String, String> {
    tracked()
        .into_iter()
        .filter(|file| file.starts_with("src/") && file.ends_with(".rs"))
        .map(|file| {
            let text = read(&file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            (file, code)
        })
        .collect()
}

/// The files under version control, and those that are about to be.
fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(repository());
    let run = output(&mut git);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let exists = |file: &&str| !file.is_empty() && repository().join(file).is_file();
    run.stdout.split('\0').filter(exists).map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(repository().join(file)).expect("a file")).into_owned()
}

/// The module that a source file belongs to: `command` for all of src/command/.
fn module_of(file: &str) -> &str {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').next().unwrap_or(path)
}

/// The modules that a module names, with the file in which it does.
fn uses() -> BTreeMap<(String, String), String> {
    let mut uses = BTreeMap::new();
    for (file, code) in sources() {
        for prefix in ["crate::", "flotilla::"] {
            for (at, _) in code.match_indices(prefix) {
                let rest = &code[at + prefix.len()..];
                assert!(!rest.starts_with(['{', '*']), "{file}: write a line for each module that is used");
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let edge = (module_of(&file).to_owned(), rest[..end].to_owned());
                if edge.0 != edge.1 {
                    uses.insert(edge, file.clone());
                }
            }
        }
    }
    uses
}

fn layer_of(module: &str) -> &'static Layer {
    LAYERS
        .iter()
        .find(|layer| layer.modules.contains(&module))
        .unwrap_or_else(|| panic!("the module `{module}` has no layer: give it one in this file"))
}

#[test]
fn modules_use_only_what_their_layer_may() {
    let uses = uses();
    assert!(uses.len() > 50, "the sources are read wrongly: {uses:?}");
    let wrong: Vec<String> = uses
        .iter()
        .filter(|((from, to), _)| {
            let (layer, target) = (layer_of(from), layer_of(to));
            !layer.layers.contains(&target.name) && !layer.and.contains(&to.as_str())
        })
        .map(|((from, to), file)| {
            format!("{file}: `{from}` ({}) uses `{to}` ({})", layer_of(from).name, layer_of(to).name)
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_has_each_module_once() {
    let there: BTreeSet<String> = sources().keys().map(|file| module_of(file).to_owned()).collect();
    let listed: Vec<&str> = LAYERS.iter().flat_map(|layer| layer.modules).copied().collect();
    let unique: BTreeSet<String> = listed.iter().map(|module| (*module).to_owned()).collect();
    assert_eq!(unique, there);
    assert_eq!(listed.len(), unique.len(), "a module stands in two layers");
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let uses = uses();
    let mut left: BTreeSet<&str> = LAYERS.iter().flat_map(|layer| layer.modules).copied().collect();
    // Takes away what uses nothing that is left, until nothing is left.
    while let Some(free) =
        left.iter().copied().find(|module| !uses.keys().any(|(from, to)| from == module && left.contains(to.as_str())))
    {
        left.remove(free);
    }
    assert!(left.is_empty(), "these use each other in circles: {left:?}");
}

#[test]
fn each_outside_crate_has_its_place() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (names, places) in ONLY {
            for name in *names {
                // At the beginning of a word: `escape::tera` and `eprintln!` are other names.
                let named = code
                    .match_indices(name)
                    .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':'));
                if named && !places.iter().any(|place| file.starts_with(place)) {
                    wrong.push(format!("{file} names {name} which belongs to {places:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_pure_layers_name_no_clock_no_disk_and_no_network() {
    let world =
        ["std::fs", "std::env", "std::net", "std::process", "std::thread", "SystemTime", "Instant::now", "tokio::"];
    // Words hold the seams: the machine's own clock is one side of one.
    let pure =
        |module: &str| ["core", "decision"].contains(&layer_of(module).name) || module == "yaml" || module == "schema";
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| pure(module_of(file)))
        .flat_map(|(file, code)| {
            world.iter().filter(|name| code.contains(**name)).map(move |name| format!("{file}: {name}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn each_module_says_what_it_is() {
    let silent: Vec<String> = tracked()
        .into_iter()
        .filter(|file| file.ends_with(".rs") && (file.starts_with("src/") || file.starts_with("tests/")))
        .filter(|file| !read(file).starts_with("//! "))
        .collect();
    assert!(silent.is_empty(), "no `//!` on the first line of {silent:?}");
}

#[test]
fn nothing_of_this_machine_and_nothing_unfinished_is_kept() {
    // In two parts, so that they don't stand here themselves.
    let machine = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/home", "/"),
        concat!("/Us", "ers/"),
        concat!("registry.", "npm"),
        concat!("registry.", "yarn"),
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
    ];
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented!"), concat!("to", "do!(")];
    let here = repository().to_string_lossy().into_owned();
    let mut wrong = Vec::new();
    for file in tracked() {
        let text = read(&file);
        let lock = Path::new(&file).file_name().is_some_and(|name| name == "package-lock.json" || name == "Cargo.lock");
        for (at, line) in text.lines().enumerate() {
            let mut tell = |what: &str| wrong.push(format!("{file}:{}: {what}", at + 1));
            for name in machine.iter().copied().chain([here.as_str()]).filter(|name| line.contains(name)) {
                tell(name);
            }
            // Lock files have hashes, which can spell anything; where their packages were fetched from is no one's business.
            if lock && line.contains("\"resolved\"") {
                tell("resolved");
            }
            for name in unfinished.iter().filter(|name| !lock && line.contains(*name)) {
                tell(name);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
