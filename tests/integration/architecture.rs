//! Shows: the crates depend on each other as they should, each crate of the outer world is named in one place only, and the
//! repository holds nothing of the machine on which it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::support::{output, repository};

/// The crates and those of flotilla that each may depend on, from the inside out, as ARCHITECTURE.md draws them. A new entry
/// is a change of the architecture, and worth a discussion.
const CRATES: &[(&str, &[&str])] = &[
    ("http", &[]),
    ("assets", &[]),
    ("zone-settings", &[]),
    ("model", &[]),
    ("spec", &["assets", "model"]),
    ("build", &["assets", "model", "spec"]),
    ("deploy", &["assets", "http", "model"]),
    ("import", &["model", "spec"]),
    ("local", &["assets", "zone-settings"]),
    ("engine", &["assets", "model", "spec", "build", "deploy", "local"]),
    ("cli", &["model", "spec", "build", "deploy", "import", "local", "engine"]),
];

/// The paths that may name something: a crate, or a macro that prints.
const ONLY: &[(&[&str], &[&str])] = &[
    (&["reqwest::", "rustls::", "rustls_platform_verifier::"], &["src/http/"]),
    (&["TcpStream::", "hyper::"], &["src/http/", "src/local/"]),
    (&["tera::"], &["src/build/src/render.rs", "src/build/src/escape.rs"]),
    // Everything that goes to stdout goes through one writer, which loses no error.
    (
        &["println!", "print!(", "stdout()", "Stdout::"],
        &["src/cli/src/stdout.rs", "src/build/build.rs", "src/version.rs"],
    ),
    (&["eprintln!", "stderr()"], &["src/cli/"]),
    (&["rusqlite::"], &["src/deploy/src/state.rs", "src/deploy/src/state/", "src/local/"]),
    (&["saphyr_parser::"], &["src/spec/src/yaml.rs", "src/spec/src/yaml/"]),
    // YAML is read by one parser; serde writes only.
    (&["serde_yaml::from_", "serde_yaml::Deserializer"], &[]),
    (
        &["oxc_parser::", "jsonc_parser::"],
        &["src/build/src/syntax.rs", "src/spec/src/jsonc.rs", "src/spec/src/documents.rs", "src/import/"],
    ),
    (&["jsonschema::"], &["src/spec/src/schema", "src/zone-settings/"]),
    (&["rustix::"], &["src/model/src/", "src/build/src/renderer.rs", "src/cli/"]),
    (&["age::"], &["src/spec/src/secrets/"]),
    (&["dialoguer::", "rpassword::"], &["src/cli/src/prompts.rs", "src/cli/src/prompts/"]),
    (&["include_dir::"], &["src/cli/src/packs.rs"]),
    (&["tar::", "zip::"], &["src/build/src/export/archive.rs"]),
    (&["quick_xml::"], &["src/cli/src/junit.rs"]),
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

/// The crate and the module that a source file belongs to: `cli` and `preview` for all of src/cli/src/preview/.
fn module_of(file: &str) -> Option<(&str, &str)> {
    let (name, path) = file.strip_prefix("src/")?.split_once("/src/")?;
    let path = path.trim_end_matches(".rs");
    Some((name, path.split('/').next().unwrap_or(path)))
}

/// The modules that each module of a crate names, of the same crate.
fn uses(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in &sources() {
        let Some((_, from)) = module_of(file).filter(|(of, module)| *of == name && *module != "lib") else { continue };
        let named = uses.entry(from.to_owned()).or_default();
        // The parent of a module in the crate's own folder is the crate.
        let parent = (!file.trim_start_matches("src/").replacen("/src/", "", 1).contains('/')).then_some("super::");
        for prefix in ["crate::"].into_iter().chain(parent) {
            for (at, _) in code.match_indices(prefix) {
                let rest = &code[at + prefix.len()..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                named.insert(rest[..end].to_owned());
            }
        }
        named.remove(from);
    }
    uses
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let listed: Vec<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    for folder in std::fs::read_dir(repository().join("src")).expect("a folder").flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        assert!(!folder.path().is_dir() || listed.contains(&name.as_str()), "{name} isn't listed in this file");
    }
    for (name, may) in CRATES {
        let manifest: toml::Table = read(&format!("src/{name}/Cargo.toml")).parse().expect("a manifest");
        let dependencies = manifest["dependencies"].as_table().expect("dependencies");
        let named: BTreeSet<&str> = dependencies.keys().filter_map(|name| name.strip_prefix("flotilla-")).collect();
        assert_eq!(named, may.iter().copied().collect(), "the dependencies of {name}");
    }
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    for (name, _) in CRATES {
        let uses = uses(name);
        // A catalogue is one module.
        assert!(uses.len() > 3 || *name == "zone-settings", "the sources of {name} are read wrongly: {uses:?}");
        let mut left: BTreeSet<&String> = uses.keys().collect();
        // Takes away what uses nothing that is left, until nothing is left.
        while let Some(free) = left.iter().copied().find(|module| !uses[*module].iter().any(|to| left.contains(to))) {
            left.remove(free);
        }
        assert!(left.is_empty(), "modules of {name} use each other in circles: {left:?}");
    }
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
    // From values to values: what is parsed, resolved, checked, rendered, hashed and planned.
    let build = ["check", "escape", "policy", "provenance", "render", "resolve", "syntax", "usage"];
    let pure = |file: &str| match module_of(file) {
        Some(("model", module)) => module == "bundle",
        Some(("spec", module)) => ["yaml", "schema"].contains(&module),
        Some(("build", module)) => build.contains(&module),
        Some(("deploy", module)) => ["plan", "refresh", "rotation", "safety"].contains(&module),
        _ => false,
    };
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| pure(file))
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

/// Returns the first lines of the doc comments of a file, with their numbers. Left out are those that users read: the help of
/// options, the texts of schemas and the meanings of codes.
fn documented(source: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = source.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_doc = |line: &str| line.trim_start().starts_with("///") || line.trim_start().starts_with("//!");
    let for_users = |number: usize| {
        // The attributes below the comment, and those of the type around it.
        let attributes =
            |from: usize| lines[from..].iter().take_while(|line| !line.contains("struct ") && !line.contains("enum "));
        let own = attributes(number).take_while(|line| is_doc(line) || !line.trim_end().ends_with('}'));
        let around = (0..number).rev().find(|&above| {
            !lines[above].trim().is_empty() && !is_doc(lines[above]) && indent(lines[above]) < indent(lines[number])
        });
        let above = around.map(|around| {
            let blank = |line: &str| line.trim().is_empty() || line.trim_end() == "}";
            let start = lines[..around].iter().rposition(|line| blank(line)).unwrap_or(0);
            lines[start..=around].join("\n")
        });
        let text = own.copied().chain(above.as_deref()).collect::<Vec<_>>().join("\n");
        ["JsonSchema", "Args", "Parser", "Subcommand", "ValueEnum", "codes! {"].iter().any(|name| text.contains(name))
    };
    let first = |number: &usize| is_doc(lines[*number]) && (*number == 0 || !is_doc(lines[*number - 1]));
    let numbers = (0..lines.len()).filter(first).filter(|number| !for_users(*number));
    numbers.map(|number| (number + 1, lines[number].trim_start()[3..].trim_start())).collect()
}

#[test]
fn doc_comments_say_in_the_third_person_what_an_item_is() {
    let openings = [
        "Asks what ",
        "Gives ",
        "Hears ",
        "How ",
        "Nothing, if",
        "Says ",
        "So many ",
        "So much ",
        "Something",
        "Tells ",
        "That ",
        "Those ",
        "What ",
        "When ",
        "Where ",
        "Whether it is to be ",
        "Which ",
        "Who ",
        "Whom ",
        "Why ",
    ];
    let mut wrong = Vec::new();
    for file in tracked().into_iter().filter(|file| file.starts_with("src/") && file.ends_with(".rs")) {
        let source = read(&file);
        let found = documented(&source);
        let old = found.iter().filter(|(_, text)| openings.iter().any(|opening| text.starts_with(opening)));
        wrong.extend(old.map(|(number, text)| format!("{file}:{number}: {text}")));
    }
    assert!(wrong.is_empty(), "write \"Returns …\", \"The number of …\":\n{}", wrong.join("\n"));
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
