//! Run by cargo before it compiles flotilla: a digest of the sources, so that what an earlier flotilla built is known to be
//! an earlier flotilla's. Knows files; std alone, as nothing else is compiled yet.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut hasher = DefaultHasher::new();
    for path in ["src", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
        add(&mut hasher, &Path::new(&root).join(path), path);
    }
    // The compiler decides, too: how std hashes is not the same for ever.
    let rustc = std::env::var("RUSTC").expect("cargo sets it");
    let version = std::process::Command::new(rustc).arg("--version").output().expect("the compiler tells its version");
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
