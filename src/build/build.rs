//! Run by cargo before it compiles this crate: a digest of everything that decides the bytes of an output, so that files
//! rendered by another version of flotilla are known to be. That is the sources of `assets`, `model`, `spec` and `build`, the versions
//! of the crates that they depend on, and the compiler. Help texts, the deploy and the command line aren't part of it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;

/// The folders of the crates, seen from this one.
const CRATES: [&str; 4] = ["../assets", "../model", "../spec", "."];
/// The package whose dependencies count.
const PACKAGE: &str = "flotilla-build";

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let root = Path::new(&root);
    let mut hasher = DefaultHasher::new();
    for folder in CRATES {
        for path in ["src", "Cargo.toml"] {
            let name = format!("{folder}/{path}");
            println!("cargo::rerun-if-changed={name}");
            add(&mut hasher, &root.join(&name), &name);
        }
    }
    let lock = root.join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = std::fs::read_to_string(lock).expect("the workspace has a Cargo.lock");
    for dependency in dependencies(&lock) {
        hasher.write(dependency.as_bytes());
        hasher.write_u8(0xff);
    }
    // How std hashes can change between compilers.
    let rustc = std::env::var("RUSTC").expect("cargo sets it");
    let version = std::process::Command::new(rustc).arg("--version").output().expect("the compiler prints its version");
    hasher.write(&version.stdout);
    println!("cargo::rustc-env=FLOTILLA_SOURCES={:016x}", hasher.finish());
}

fn add(hasher: &mut DefaultHasher, path: &Path, name: &str) {
    if path.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .expect("a folder of sources")
            .map(|entry| entry.expect("a source").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        for inner in names {
            add(hasher, &path.join(&inner), &format!("{name}/{inner}"));
        }
    } else {
        hasher.write(name.as_bytes());
        hasher.write(&std::fs::read(path).unwrap_or_default());
        hasher.write_u8(0xff);
    }
}

/// The packages that [`PACKAGE`] depends on, directly or not, with versions and checksums.
fn dependencies(lock: &str) -> BTreeSet<String> {
    let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
    let packages = lock["package"].as_array().expect("Cargo.lock lists packages");
    let text =
        |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or("").to_owned();
    let mut found = BTreeSet::new();
    let mut open = vec![PACKAGE.to_owned()];
    while let Some(wanted) = open.pop() {
        // `name`, or `name version` where there are several.
        let mut words = wanted.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        let is_it = |package: &&toml::Value| {
            text(package, "name") == name && version.is_none_or(|version| text(package, "version") == version)
        };
        for package in packages.iter().filter(is_it) {
            if found.insert(format!("{name} {} {}", text(package, "version"), text(package, "checksum"))) {
                let dependencies = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
                open.extend(dependencies.filter_map(toml::Value::as_str).map(str::to_owned));
            }
        }
    }
    found
}
