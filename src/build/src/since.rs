//! The workers that changed since another state of the project in git. Compares contents: the files that differ from that
//! state's tree, and the workers that they resolve to. Runs git; needs nothing of history but the one tree, so that a shallow
//! clone is enough.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use rayon::prelude::*;

use crate::build::{self, Project, Scan};
use crate::git::{self, git, output};
use crate::manifest::{Record, Unit};
use crate::out::OUT;
use crate::render;
use flotilla_model::bundle::PackBundle;
use flotilla_model::customer;
use flotilla_model::digest::{Digest, ShortHash};
use flotilla_model::failure::Failure;
use flotilla_model::progress::Silent;
use flotilla_spec::pack::WranglerProject;
use flotilla_spec::project::{CUSTOMERS, FLEET_FILE, Fleet, LAYERS};
use flotilla_spec::tree::Tree;

/// The difference to a state of the past.
#[derive(Clone, Debug, Default)]
pub struct Since {
    /// The folders of the workers that changed since.
    pub folders: HashSet<String>,
    /// The customers whose own files differ, or whose workers do.
    pub customers: HashSet<String>,
}

/// Compares with the tree of a commit, a branch or a tag.
pub fn since(project: &Project, scan: &Scan, reference: &str) -> Result<Since, Failure> {
    let root = project.root();
    let commit = commit(root, reference)?;
    let changed = changed(project, &commit)?;
    let mut since = Since::default();
    let mut rebundled: HashSet<&str> = HashSet::new();
    for (name, pack) in &project.fleet.packs {
        let is_changed = match &pack.wrangler {
            Some(wrangler) => is_project_changed(wrangler, &commit)?,
            None => false,
        };
        let are_assets_changed = match pack.assets.as_ref().and_then(|assets| assets.folder.as_ref()) {
            Some(folder) => is_folder_changed(root, folder, &commit)?,
            None => false,
        };
        if is_changed || are_assets_changed || is_bundle_changed(pack, &changed) {
            rebundled.insert(name);
        }
    }
    if changed.is_empty() && rebundled.is_empty() {
        return Ok(since);
    }
    let past = contents(root, &commit, &changed)?;
    if matches!(past.get(FLEET_FILE), Some(None)) {
        // Before there was a project, there was no worker.
        for record in &scan.records {
            since.folders.extend(record.units.iter().map(|unit| folder(record, unit)));
            if !record.units.is_empty() {
                since.customers.insert(build::id(record).to_owned());
            }
        }
        return Ok(since);
    }
    let before = build::open(Tree { past, ..Tree::new(root) }, &Silent).map_err(|mistakes| {
        let first = mistakes.first().map_or_else(String::new, |first| format!("{}: {}", first.place, first.message));
        Failure::usage(format!("the project at `{reference}` has errors, so nothing can be compared with it: {first}"))
            .hint("name a commit whose fleet.yaml, layers and packs are valid")
    })?;
    let comparison = Comparison {
        project,
        scan,
        before: &before,
        changed: &changed,
        rebundled,
        is_same_fleet: before.fleet.decides == project.fleet.decides,
    };
    let differing: Vec<(&Record, Vec<String>)> =
        scan.records.par_iter().map(|record| (record, comparison.differing(record))).collect();
    for (record, folders) in differing {
        if !folders.is_empty() || (comparison.is_touched(record) && record.file() != FLEET_FILE) {
            since.customers.insert(build::id(record).to_owned());
        }
        since.folders.extend(folders);
    }
    Ok(since)
}

fn folder(record: &Record, unit: &Unit) -> String {
    customer::folder(unit.environment, build::id(record), unit.role.as_deref())
}

/// A project, and the same project at a state of the past.
struct Comparison<'a> {
    project: &'a Project,
    scan: &'a Scan,
    before: &'a Project,
    /// The files that differ.
    changed: &'a BTreeSet<String>,
    /// The packs whose bundles are built from other sources.
    rebundled: HashSet<&'a str>,
    is_same_fleet: bool,
}

impl Comparison<'_> {
    /// Returns the folders of a customer's workers that differ.
    fn differing(&self, record: &Record) -> Vec<String> {
        let before = match self.is_resolved_alike(record) {
            true => record.units.iter().map(|unit| ((unit.environment, unit.role.clone()), unit.resolved)).collect(),
            false => short_hashes(self.before, record.file()),
        };
        let differs = |unit: &&Unit| {
            before.get(&(unit.environment, unit.role.clone())) != Some(&unit.resolved)
                || self.rebundled.contains(unit.pack.as_str())
                || self.has_changed_assets(record, unit)
                || self.recipe(self.project, record, unit) != self.recipe(self.before, record, unit)
        };
        record.units.iter().filter(differs).map(|unit| folder(record, unit)).collect()
    }

    /// Returns whether a file of the worker's own folder of static assets differs.
    fn has_changed_assets(&self, record: &Record, unit: &Unit) -> bool {
        let is_possible = self.project.fleet.packs.get(&unit.pack).is_some_and(|pack| pack.assets.is_some());
        let worker = || self.scan.worker(self.project, record, unit);
        let own = is_possible.then(worker).flatten().and_then(|worker| worker.assets?.own);
        own.is_some_and(|own| {
            let below = format!("{}/", own.directory);
            self.changed.iter().any(|file| file.starts_with(&below))
        })
    }

    /// Returns whether one of the customer's own files differs.
    fn is_touched(&self, record: &Record) -> bool {
        record.inputs.iter().any(|input| self.changed.contains(&input.file))
    }

    /// Returns whether the customer surely resolved to the same workers: by the same files in the same fleet.
    fn is_resolved_alike(&self, record: &Record) -> bool {
        let layers = |fleet: &Fleet| -> Vec<Option<Digest>> {
            let digest =
                |name: &String| fleet.layers.iter().find(|layer| layer.name == *name).map(|layer| layer.digest);
            record.layers.iter().map(digest).collect()
        };
        self.is_same_fleet
            && !record.has_diagnostics
            && !self.is_touched(record)
            && layers(&self.project.fleet) == layers(&self.before.fleet)
    }

    /// Returns the digest of the recipe that a project renders a worker by.
    fn recipe(&self, project: &Project, record: &Record, unit: &Unit) -> Option<ShortHash> {
        let pack = project.fleet.packs.get(&unit.pack)?;
        let partials = match &unit.rendered {
            Some(rendering) if rendering.from == unit.resolved => rendering.partials,
            _ => self.scan.worker(self.project, record, unit).map_or(u64::MAX, |worker| project.partials(&worker)),
        };
        Some(render::recipe(pack, &PackBundle::new("", Vec::new(), Vec::new()), partials).short_hash())
    }
}

/// Returns the digests of the resolved workers of a customer's file, by environment and role.
fn short_hashes(
    project: &Project,
    file: &str,
) -> HashMap<(flotilla_model::spec::Environment, Option<String>), ShortHash> {
    let workers = match file {
        FLEET_FILE => project.shared.resolved.workers.clone(),
        file => match project.tree.plain(file) {
            Ok(bytes) => project.resolve(file, &bytes).1.workers,
            Err(_) => Vec::new(),
        },
    };
    workers
        .iter()
        .map(|worker| {
            let json = serde_json::to_vec(worker).expect("BUG: a worker is JSON");
            ((worker.environment, worker.role.clone()), Digest::of(&json).short_hash())
        })
        .collect()
}

fn is_bundle_changed(pack: &flotilla_spec::pack::Pack, changed: &BTreeSet<String>) -> bool {
    let own: &[String] = pack.runtime().map_or(&[], |runtime| &runtime.sources);
    let sources = own.iter().map(String::as_str).chain(["package.json", "package-lock.json", "pack.yaml"]);
    let mut sources = sources.map(|source| format!("{}/{source}", pack.path));
    sources.any(|source| {
        let below = format!("{source}/");
        changed.iter().any(|file| *file == source || file.starts_with(&below))
    })
}

/// Returns whether a wrangler project may be bundled from other sources than in a commit: a file of the repository differs that is none of
/// the fleet's own. Which of them are bundled is known to builds alone, so that rather too many count.
fn is_project_changed(wrangler: &WranglerProject, commit: &str) -> Result<bool, Failure> {
    let workspace = &wrangler.workspace;
    let arguments = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--relative"];
    let differ = output(git(workspace).args(arguments).args([commit, "--", "."]))?;
    let new = output(git(workspace).args(["ls-files", "-z", "--others", "--exclude-standard", "--", "."]))?;
    let is_source = |file: String| {
        let path = workspace.join(file);
        let of_fleet = |name: &str| path.starts_with(wrangler.root.join(name));
        let fleets = [CUSTOMERS, LAYERS, "templates", OUT, "export", FLEET_FILE, ".flotilla"];
        path.starts_with(&wrangler.folder) && !wrangler.root.starts_with(&wrangler.folder)
            || !fleets.into_iter().any(of_fleet)
    };
    Ok(names(&differ).chain(names(&new)).any(is_source))
}

/// Returns whether a file of a folder differs from a commit.
fn is_folder_changed(root: &Path, folder: &Path, commit: &str) -> Result<bool, Failure> {
    let differ = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", commit, "--"];
    let differ = output(git(root).args(differ).arg(folder))?;
    let new = output(git(root).args(["ls-files", "-z", "--others", "--exclude-standard", "--"]).arg(folder))?;
    Ok(names(&differ).chain(names(&new)).next().is_some())
}

/// Returns the id of a commit, which stays the same while branches move.
fn commit(root: &Path, reference: &str) -> Result<String, Failure> {
    if !git::is_in_work_tree(root)? {
        return Err(Failure::usage(format!(
            "{} is not in a git work tree, so it can't be compared with `{reference}`",
            root.display()
        )));
    }
    let verify = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
    if output(git(root).args(verify).arg(reference)).is_ok()
        && output(git(root).args(verify).arg(format!("{reference}^{{commit}}"))).is_err()
    {
        return Err(Failure::usage(format!(
            "`{reference}` is not a commit, or the commit is missing in this repository"
        ))
        .hint("name a commit, a branch or a tag; git fsck shows what is missing"));
    }
    let commit = format!("{reference}^{{commit}}");
    let id =
        output(git(root).args(["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])).map_err(|_| {
            Failure::usage(format!("git knows no commit `{reference}` here"))
                .hint(format!("in a shallow clone, fetch it first: git fetch --depth=1 origin {reference}:{reference}"))
        })?;
    Ok(String::from_utf8_lossy(&id).trim().to_owned())
}

/// Returns the files below the project that differ from a commit: changed, added, removed, or new to git.
fn changed(project: &Project, commit: &str) -> Result<BTreeSet<String>, Failure> {
    let root = project.root();
    let arguments =
        ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules=none", "--relative"];
    let differ = output(git(root).args(arguments).args([commit, "--", "."]))?;
    let new = output(git(root).args(["ls-files", "-z", "--others", "--exclude-standard", "--", "."]))?;
    let of_project = |file: &String| !file.starts_with("out/") && !file.starts_with(".flotilla/");
    let mut changed: BTreeSet<String> = names(&differ).chain(names(&new)).filter(of_project).collect();
    if let Some(repository) = changed.iter().find(|file| is_nested(project, file)) {
        let repository = repository.trim_end_matches('/');
        return Err(Failure::usage(format!(
            "`{repository}` is a git repository of its own, and git can't tell which of its files differ from `{commit}`"
        ))
        .hint("name the customers instead, or select them by label"));
    }
    changed.extend(unwatched(root, commit)?);
    Ok(changed)
}

/// Returns whether a name that git lists is a repository (a submodule, or one that git doesn't track) with inputs of the
/// project in it.
fn is_nested(project: &Project, name: &str) -> bool {
    let folder = name.trim_end_matches('/');
    let is_within = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}/"));
    let packs = project.fleet.packs.values().map(|pack| pack.path.as_str());
    let mut inputs = [CUSTOMERS, LAYERS].into_iter().chain(packs);
    project.root().join(folder).is_dir() && inputs.any(|input| is_within(input, folder) || is_within(folder, input))
}

/// Returns the files that differ although git was told not to look at them (`update-index --skip-worktree` and
/// `--assume-unchanged`).
fn unwatched(root: &Path, commit: &str) -> Result<BTreeSet<String>, Failure> {
    let listed = output(git(root).args(["ls-files", "-z", "-v", "--", "."]))?;
    let flagged = |line: String| {
        let (flag, file) = line.split_once(' ')?;
        (flag == "S" || flag.chars().all(char::is_lowercase)).then(|| file.to_owned())
    };
    let mut files: BTreeSet<String> =
        names(&listed).filter_map(flagged).filter(|file| root.join(file).is_file()).collect();
    let past = contents(root, commit, &files)?;
    files.retain(|file| std::fs::read(root.join(file)).ok() != past.get(file).cloned().flatten());
    Ok(files)
}

fn names(bytes: &[u8]) -> impl Iterator<Item = String> {
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).into_owned())
}

/// Returns the contents that files have in a tree.
fn contents(root: &Path, commit: &str, files: &BTreeSet<String>) -> Result<HashMap<String, Option<Vec<u8>>>, Failure> {
    let prefix = output(git(root).args(["rev-parse", "--show-prefix"]))?;
    let prefix = String::from_utf8_lossy(&prefix).trim_end_matches('\n').to_owned();
    let mut child = git(root)
        .args(["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("git can't be started")?;
    let mut stdin = child.stdin.take().context("BUG: git has an input")?;
    // A name with a line break can't be requested, and belongs to no customer: ids have none.
    let (files, odd): (Vec<&String>, Vec<&String>) = files.iter().partition(|file| !file.contains('\n'));
    let asked: Vec<String> = files.iter().map(|file| format!("{commit}:{prefix}{file}\n")).collect();
    let asking = std::thread::spawn(move || {
        for line in asked {
            if stdin.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
    });
    let mut stdout = BufReader::new(child.stdout.take().context("BUG: git has an output")?);
    let mut past = HashMap::new();
    let mut missing = Vec::new();
    let mut read = || -> std::io::Result<()> {
        for file in &files {
            let mut head = Vec::new();
            stdout.read_until(b'\n', &mut head)?;
            let head = String::from_utf8_lossy(&head);
            let head = head.trim_end_matches('\n');
            let mut words = head.rsplit(' ');
            let (size, kind) = (words.next().unwrap_or_default().parse::<usize>(), words.next());
            match (size, kind) {
                (Ok(size), Some("blob")) => {
                    let mut bytes = vec![0; size + 1];
                    stdout.read_exact(&mut bytes)?;
                    bytes.pop();
                    past.insert((*file).clone(), Some(bytes));
                }
                (Ok(size), Some(_)) => {
                    // A folder of that name: no file.
                    std::io::copy(&mut (&mut stdout).take(size as u64 + 1), &mut std::io::sink())?;
                    past.insert((*file).clone(), None);
                }
                _ => missing.push((*file).clone()),
            }
        }
        Ok(())
    };
    let result = read();
    drop(stdout);
    let _ = child.kill();
    let _ = child.wait();
    let _ = asking.join();
    result.context("git's output can't be read")?;
    if !missing.is_empty() {
        // "missing" is said of a file that the commit doesn't have, and of one whose bytes aren't in this clone.
        let listed = output(git(root).args(["ls-tree", "-r", "-z", "--name-only", commit]))?;
        let there: HashSet<String> = names(&listed).collect();
        if let Some(file) = missing.iter().find(|file| there.contains(*file)) {
            return Err(Failure::new(format!("git: the bytes of {file} at `{commit}` are not in this repository"))
                .hint("git fsck shows what is missing; git fetch --refetch fetches it again"));
        }
    }
    past.extend(missing.into_iter().chain(odd.into_iter().cloned()).map(|file| (file, None)));
    Ok(past)
}
