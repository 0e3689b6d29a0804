//! Shows: no version in Cargo.lock has a known advisory. Needs no network: `tests/advisories/rustsec.json` is a snapshot of the RustSec
//! database, of the date that it says. `tests/advisories/refresh` takes a new one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::support::repository;

const SNAPSHOT: &str = "tests/advisories/rustsec.json";
/// Advisories that stand although a locked version has them: the id, and why they do no harm here. One that no longer applies has to go.
const ACCEPTED: &[(&str, &str)] = &[];

/// The advisories of all crates.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    source: String,
    license: String,
    commit: String,
    date: String,
    advisories: Vec<Advisory>,
}

/// An advisory, as far as it decides whether a version has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Advisory {
    id: String,
    package: String,
    title: String,
    /// The kind of one that is no vulnerability: `unmaintained`, `unsound`, `notice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    informational: Option<String>,
    /// The license of its text, where it is another than the database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    patched: Vec<VersionReq>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unaffected: Vec<VersionReq>,
}

impl Advisory {
    fn affects(&self, version: &Version) -> bool {
        // A pre-release of an affected version is affected; semver's requirements match none.
        let plain = Version::new(version.major, version.minor, version.patch);
        !self.patched.iter().chain(&self.unaffected).any(|range| range.matches(version) || range.matches(&plain))
    }
}

fn snapshot() -> Snapshot {
    let text = std::fs::read_to_string(repository().join(SNAPSHOT)).expect("the snapshot");
    serde_json::from_str(&text).expect("a snapshot")
}

/// Returns the advisories that versions of a lock file have.
fn hits(snapshot: &Snapshot, lock: &str) -> Vec<(String, Advisory)> {
    let lock: toml::Table = lock.parse().expect("a lock file");
    let packages = lock["package"].as_array().expect("packages").iter();
    // What has a source comes from a registry; the others are this workspace's own.
    let packages = packages.filter(|package| package.get("source").is_some()).map(|package| {
        let text = |key: &str| package[key].as_str().expect("text").to_owned();
        (text("name"), text("version").parse::<Version>().expect("a version"))
    });
    let mut found = Vec::new();
    for (name, version) in packages {
        let of_it =
            snapshot.advisories.iter().filter(|advisory| advisory.package == name && advisory.affects(&version));
        found.extend(of_it.map(|advisory| (version.to_string(), advisory.clone())));
    }
    found
}

#[test]
fn no_locked_version_has_a_known_advisory() {
    let snapshot = snapshot();
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).expect("Cargo.lock");
    let found = hits(&snapshot, &lock);
    let is_accepted = |advisory: &Advisory| ACCEPTED.iter().any(|(id, _)| *id == advisory.id);
    let told: Vec<String> = found
        .iter()
        .filter(|(_, advisory)| !is_accepted(advisory))
        .map(|(version, advisory)| {
            let Advisory { id, package, title, informational, patched, .. } = advisory;
            let kind = informational.as_deref().unwrap_or("vulnerability");
            let patched: Vec<String> = patched.iter().map(ToString::to_string).collect();
            let fix = if patched.is_empty() {
                "no version is patched".to_owned()
            } else {
                format!("patched: {}", patched.join("; "))
            };
            format!("{id} ({kind}): {package} {version}: {title}: {fix}")
        })
        .collect();
    assert!(told.is_empty(), "advisories, by the database of {}:\n{}", snapshot.date, told.join("\n"));
    let stale: Vec<&str> =
        ACCEPTED.iter().map(|(id, _)| *id).filter(|id| found.iter().all(|(_, advisory)| advisory.id != **id)).collect();
    assert!(stale.is_empty(), "these no longer apply: {stale:?}");
}

#[test]
fn a_version_with_an_advisory_is_found() {
    let snapshot = snapshot();
    let has = |name: &str, version: &str, id: &str| {
        let source = "source = \"registry+x\"";
        let lock = format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n"
        );
        hits(&snapshot, &lock).iter().any(|(_, advisory)| advisory.id == id)
    };
    // A range, a range with two ends, one without a patch, and pre-releases.
    assert!(has("abi_stable", "0.9.0", "RUSTSEC-2020-0105") && !has("abi_stable", "0.9.1", "RUSTSEC-2020-0105"));
    assert!(has("time", "0.1.40", "RUSTSEC-2020-0071") && !has("time", "0.2.23", "RUSTSEC-2020-0071"));
    assert!(has("ansi_term", "0.12.1", "RUSTSEC-2021-0139"), "unmaintained");
    assert!(has("abi_stable", "0.9.0-rc.1", "RUSTSEC-2020-0105"));
    let ids: BTreeSet<&str> = snapshot.advisories.iter().map(|advisory| advisory.id.as_str()).collect();
    assert!(ids.len() > 800 && ids.len() == snapshot.advisories.len(), "{} advisories", ids.len());
    assert!(snapshot.date.len() == 10 && snapshot.commit.len() == 40 && !snapshot.license.is_empty());
}

/// Writes the snapshot from a checkout of the database, which `tests/advisories/refresh` names; otherwise it does nothing.
#[test]
fn the_snapshot_is_taken_on_request() {
    let Some(folder) = std::env::var_os("RUSTSEC_DATABASE") else { return };
    let folder = Path::new(&folder);
    let git = |format: &str| {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).args(["log", "-1", "--date=short", format!("--format={format}").as_str()]);
        let output = command.output().expect("git runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let mut advisories = Vec::new();
    for package in std::fs::read_dir(folder.join("crates")).expect("the database's crates").flatten() {
        for file in std::fs::read_dir(package.path()).expect("a crate's advisories").flatten() {
            let text = std::fs::read_to_string(file.path()).expect("an advisory");
            advisories.extend(parse(&text).unwrap_or_else(|why| panic!("{}: {why}", file.path().display())));
        }
    }
    advisories.sort_by(|a, b| a.id.cmp(&b.id));
    let snapshot = Snapshot {
        source:
            "The RustSec advisory database, https://github.com/rustsec/advisory-db: ids, crates, titles and versions"
                .to_owned(),
        license: "CC0-1.0; entries with another license are adapted from GitHub's advisories".to_owned(),
        commit: git("%H"),
        date: git("%cd"),
        advisories,
    };
    // A line for each advisory, so that a difference can be read.
    let lines: Vec<String> =
        snapshot.advisories.iter().map(|entry| serde_json::to_string(entry).expect("JSON")).collect();
    let head = serde_json::to_string_pretty(&Snapshot { advisories: Vec::new(), ..snapshot }).expect("JSON");
    let text = head.replace("\"advisories\": []", &format!("\"advisories\": [\n{}\n  ]", lines.join(",\n")));
    std::fs::write(repository().join(SNAPSHOT), text + "\n").expect("the snapshot is written");
}

/// Returns the advisory of a file of the database: TOML at the top of a Markdown page. Nothing for one that was withdrawn.
fn parse(text: &str) -> Result<Option<Advisory>, String> {
    let toml = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).ok_or("it has no TOML")?;
    let table: toml::Table = toml.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let advisory = table["advisory"].as_table().ok_or("it has no [advisory]")?;
    if advisory.contains_key("withdrawn") {
        return Ok(None);
    }
    let get = |key: &str| advisory.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let versions = |key: &str| -> Result<Vec<VersionReq>, String> {
        let listed = table.get("versions").and_then(|versions| versions.get(key)).and_then(|found| found.as_array());
        let texts = listed.into_iter().flatten().filter_map(|value| value.as_str());
        texts.map(|text| text.parse().map_err(|error| format!("{text}: {error}"))).collect()
    };
    let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    Ok(Some(Advisory {
        id: get("id").ok_or("it has no id")?,
        package: get("package").ok_or("it has no package")?,
        title: title.trim().to_owned(),
        informational: get("informational"),
        license: get("license"),
        patched: versions("patched")?,
        unaffected: versions("unaffected")?,
    }))
}
