//! Shows: the packs' own tests pass, and their sources hold to their types.

use std::process::Command;

use flotilla_model::cache;
use flotilla_model::progress::Silent;
use flotilla_model::spec::{PackFile, PackSetting};

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
    test_in(&pack(name), least);
}

fn test_in(pack: &tempfile::TempDir, least: u32) {
    let tests = std::fs::read_dir(pack.path().join("test")).expect("its tests");
    let names = tests.flatten().map(|entry| entry.path());
    let mut command = Command::new(tools::node());
    command.arg("--test").args(names.filter(|path| path.to_string_lossy().contains(".test."))).current_dir(pack.path());
    let run = output(&mut command).exits(0);
    let passed = run.stdout.lines().find_map(|line| line.trim_start_matches(['#', 'ℹ', ' ']).strip_prefix("pass "));
    assert!(passed.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count >= least)), "{run:?}");
}

#[test]
fn their_own_tests_pass() {
    test("consent", 10);
    test("dispatch", 9);
    // The machine's own Node.js may be too old to have SQLite.
    test("toggles", 13);
    test("worker", 6);
}

#[test]
fn the_worker_packs_tests_pass_after_the_sample_is_replaced() {
    let pack = pack("worker");
    let module = "import { greet } from './greet.ts';\nexport default { fetch: () => new Response(greet()) } satisfies ExportedHandler;\n";
    std::fs::write(pack.path().join("src/index.ts"), module).expect("a module");
    std::fs::write(pack.path().join("src/greet.ts"), "export const greet = () => 'hello';\n").expect("a module");
    std::fs::remove_file(pack.path().join("test/index.test.mjs")).expect("the sample's tests");
    test_in(&pack, 3);
    output(tools::tsc().args(["-p", "."]).current_dir(pack.path())).exits(0);
}

#[test]
fn their_manifests_list_the_settings_that_their_templates_use() {
    for name in ["consent", "dispatch", "toggles", "worker"] {
        let folder = repository().join("templates").join(name);
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the pack");
        let manifest: PackFile = serde_yaml::from_str(&read("pack.yaml")).expect("a manifest");
        let templates = read("index.ts.tera") + &read("wrangler.jsonc.tera");
        for setting in PackSetting::ALL {
            let is_used = templates.contains(&format!("worker.{}", setting.key()));
            assert_eq!(manifest.uses(setting), is_used, "{name}: {}", setting.key());
        }
    }
}

#[test]
fn their_sources_hold_to_their_types() {
    for name in ["consent", "dispatch", "toggles", "worker"] {
        let pack = pack(name);
        let run = output(tools::tsc().args(["-p", "."]).current_dir(pack.path()));
        assert_eq!(run.code, 0, "{name}: {run:?}");
    }
}
