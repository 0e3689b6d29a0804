//! Shows: the packs' own tests pass, and their sources hold to their types.

use std::process::Command;

use flotilla_model::cache;
use flotilla_model::progress::Silent;

use crate::folders::temporary_folder;
use crate::support::{copy, output, repository};
use crate::tools;

/// A pack in a folder of its own, with its npm packages.
fn pack(name: &str) -> tempfile::TempDir {
    let folder = temporary_folder();
    let pack = repository().join("templates").join(name);
    copy(&pack, folder.path());
    let read = |name: &str| std::fs::read(pack.join(name)).expect("a file of the pack");
    let packages = cache::npm(&format!("the pack {name}"), &read("package.json"), &read("package-lock.json"), &Silent)
        .unwrap_or_else(|failure| panic!("{failure}"));
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.path().join("node_modules")).expect("a link");
    folder
}

/// Runs a pack's own tests, of which there are at least so many.
fn test(name: &str, least: u32) {
    let pack = pack(name);
    let tests = std::fs::read_dir(pack.path().join("test")).expect("its tests");
    let names = tests.flatten().map(|entry| entry.path());
    let mut command = Command::new("node");
    command.arg("--test").args(names.filter(|path| path.to_string_lossy().contains(".test."))).current_dir(pack.path());
    let run = output(&mut command).exits(0);
    let passed = run.stdout.lines().find_map(|line| line.trim_start_matches(['#', 'ℹ', ' ']).strip_prefix("pass "));
    assert!(passed.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count >= least)), "{run:?}");
}

#[test]
fn their_own_tests_pass() {
    test("consent", 10);
    test("dispatch", 9);
    test("worker", 4);
}

#[test]
fn their_sources_hold_to_their_types() {
    for name in ["consent", "dispatch", "worker"] {
        let pack = pack(name);
        let run = output(tools::tsc().args(["-p", "."]).current_dir(pack.path()));
        assert_eq!(run.code, 0, "{name}: {run:?}");
    }
}
