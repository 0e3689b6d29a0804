//! Shows: whatever is edited, damaged or left over, a build gives what a clean build of the same files gives, and a second
//! one has nothing to do. Random sequences of edits, in this process; the runtime is given, so that no npm is needed.
//!
//! It is long because it has a list of everything that can happen to a project: first the edits and what they may write,
//! then the bench that makes them and compares, then sequences that once went wrong, then the random ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flotilla_build::build::{self, Built, PackBundles, Project, Scope};
use flotilla_build::manifest::{Record, Unit};
use flotilla_model::bundle::PackBundle;
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_model::progress::Silent;
use flotilla_model::spec::Environment;
use flotilla_spec::tree::Tree;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::{RngSeed, TestCaseError};
use tempfile::TempDir;

use crate::folders::{temporary_folder, temporary_folder_on_disk};

/// The customers that come and go.
const CUSTOMERS: [&str; 4] = ["ash", "birch", "cedar", "dogwood"];
/// A name that no pack gives its files.
const FOREIGN: &str = "notes.txt";

/// What is done to the project's files.
#[derive(Clone, Debug)]
enum Edit {
    /// Writes a file, if it would be another one.
    Write(String, String),
    /// Writes the same bytes once more.
    Touch(String),
    Remove(String),
    /// The customer's file ends in `.yml` instead, or the other way round.
    Rename(&'static str),
    /// Puts a link in a file's place, to the same bytes elsewhere.
    Link(String),
    Out(Index, Damage),
    Memory(Memory),
}

/// What is done to a file under out/, or around it.
#[derive(Clone, Debug)]
enum Damage {
    Deleted,
    FolderDeleted,
    AllDeleted,
    /// One byte is another, the length and the time of the last change are the same.
    Edited,
    Touched,
    Linked,
    ForeignBeside,
    ForeignFolder,
    /// As a build that is killed leaves it.
    Unfinished,
}

/// What is done to what builds remember.
#[derive(Clone, Debug)]
enum Memory {
    Deleted,
    LogDeleted,
    LogTruncated(Index),
    LogFlipped(Index),
    OtherFormat,
    ValuesDeleted,
    ValuesTruncated(Index),
    ValuesFlipped(Index),
    /// As a cache of CI does it: kept at one time, put back at another.
    Kept,
    PutBack,
}

/// How far a build gets.
#[derive(Clone, Debug)]
enum Run {
    Whole,
    Customer(&'static str),
    In(Environment),
    /// Killed when the customers were read.
    Surveyed,
}

type Step = (Vec<Edit>, Run);

fn lines(choices: &'static [&'static [&'static str]]) -> impl Strategy<Value = String> {
    choices.iter().map(|of| select(*of)).collect::<Vec<_>>().prop_map(|lines| lines.concat())
}

fn customer() -> impl Strategy<Value = &'static str> {
    select(CUSTOMERS.as_slice())
}

const SPEC: &[&[&str]] = &[
    &["", "", "# a comment\n", "\n\n"],
    &["", "labels: { tier: gold }\n", "labels: { tier: silver }\n"],
    &["", "", "layers: [x]\n", "layers: [y]\n", "layers: [x, y]\n", "layers: [y, x]\n"],
    &[
        "",
        "",
        "environments: { staging: {} }\n",
        "environments: { production: {}, staging: { vars: { S: s } } }\n",
        "environments: { development: { vars: { A: null } }, production: {} }\n",
        "environments: { qa: { vars: { A: q } } }\n",
    ],
    &[
        "",
        "",
        "workers: { web: {} }\n",
        "workers: { web: { vars: { A: web } }, api: { services: { WEB: web } } }\n",
        "workers: { web: { environments: { staging: {} } }, api: {} }\n",
    ],
    &["", "vars: { A: one }\n", "vars: { A: two, PART: one }\n", "vars: { PART: two }\n", "vars: { A: null }\n"],
    &["", "trustedOrigins: [https://a.example]\n", "trustedOrigins+: [https://b.example]\n"],
    &["", "", "", "domains: [one.example.com]\n"],
    &["", "", "services: { AUTH: auth }\n"],
    &["", "", "pack: other\n"],
    &["", "", "", "", "", "", "", "colour: red\n", "x: [\n"],
];

const LAYER: &[&[&str]] = &[
    &["", "# a comment\n"],
    &["", "vars: { A: layer }\n", "vars: { A: another, B: b }\n", "vars: { A: null }\n", "vars: { PART: one }\n"],
    &[
        "",
        "trustedOrigins+: [https://c.example]\n",
        "trustedOrigins: [https://d.example]\ntrustedOrigins+: [https://e.example]\n",
        "trustedOrigins+: [https://e.example]\ntrustedOrigins: [https://d.example]\n",
    ],
    &["", "environments: { staging: { vars: { A: layered } } }\n"],
    &["", "workers: { web: { vars: { B: web } } }\n"],
    &["logLevel: info\n"],
];

const FLEET: &[&[&str]] = &[
    &["name: test\npacks: { tiny: { path: packs/tiny }, other: { path: packs/other } }\n"],
    &["", "# a comment\n"],
    &["", "", "workerName: \"{customer}-of-{fleet}\"\n"],
    &["", "accounts: { default: { id: { env: ID }, token: { secret: TOKEN }, subdomain: sub } }\n"],
    &[
        "",
        "sharedWorkers: { auth: {} }\n",
        "sharedWorkers: { auth: { environments: { production: {}, staging: {} } } }\n",
    ],
    &["defaults:\n  pack: tiny\n"],
    &["", "  vars: { A: default }\n", "  vars: { PART: two }\n"],
    &["", "", "  labels: { tier: gold }\n"],
    &["", "  trustedOrigins: [https://f.example]\n"],
];

/// The layers of fleet.yaml, in any order.
fn fleet() -> impl Strategy<Value = String> {
    const LAYERS: [&str; 5] = [
        "  gold: { when: { tier: gold } }\n",
        "  metal: { when: { tier: [gold, silver] } }\n",
        "  x: {}\n",
        "  y: {}\n",
        "  env: { when: { tier: gold }, envFiles: envs }\n",
    ];
    let layers = prop_oneof![3 => Just(LAYERS.to_vec()), 1 => subsequence(LAYERS.to_vec(), 0..=5)].prop_shuffle();
    (lines(FLEET), layers).prop_map(|(fleet, layers)| match layers.len() {
        0 => fleet,
        _ => format!("{fleet}layers:\n{}", layers.concat()),
    })
}

const MANIFEST: &str =
    "prefix: t\nmodule: index.ts.tera\nruntime: { build: [\"true\"], sources: [] }\ncatalogue: catalogue.json\n";
const FILES: &[&[&str]] = &[&["files: [wrangler.jsonc.tera]\n", "files: [wrangler.jsonc.tera, extra.json.tera]\n"]];
const MODULE: &[&[&str]] = &[
    &["// {{ worker.file }}\nimport { defineWorker } from \"{{ runtime }}\";\n"],
    &["", "// another\n"],
    &[
        "{% if worker.vars.PART is defined %}{% if worker.vars.PART == \"one\" %}{% include \"one.tera\" %}{% else %}{% include \"two.tera\" %}{% endif %}{% endif %}\n",
    ],
    // It fails for some.
    &["", "", "", "", "{% if worker.vars.B is defined %}{{ nowhere.at.all }}{% endif %}\n"],
    &[
        "export default defineWorker({ vars: {{ worker.vars | ts }}, services: {{ worker.services | ts }}, origins: {{ worker.trustedOrigins | ts }} });\n",
    ],
];
const PARTIAL: &[&[&str]] = &[&["// a partial\n", "// another one\n", "// {{ worker.name }}\n", "{# nothing #}"]];

/// A file of the project's and what it may hold.
fn write() -> impl Strategy<Value = Edit> {
    let packs = || select(&["packs/tiny", "packs/other"][..]);
    let partials = select(&["one.tera", "two.tera", "nested.tera", "unused.tera", "aaa.tera"][..]);
    let environment = select(&["production", "staging", "qa"][..]);
    let env = || select(&["A=env\n", "A=other\nB=env\n", "# a comment\nA=env\n", "PART=two\n", "", "no equals\n"][..]);
    prop_oneof![
        8 => (customer(), lines(SPEC)).prop_map(|(id, spec)| (format!("customers/{id}.yaml"), format!("id: {id}\n{spec}"))),
        3 => fleet().prop_map(|fleet| ("fleet.yaml".to_owned(), fleet)),
        3 => (select(&["x", "y", "gold", "metal"][..]), lines(LAYER)).prop_map(|(name, layer)| (format!("layers/{name}.yaml"), layer)),
        1 => (select(&["a", "b"][..]), env()).prop_map(|(name, text)| (format!("envs/base/{name}.env"), text.to_owned())),
        2 => (customer(), environment, env()).prop_map(|(id, environment, text)| (format!("envs/customers/{id}/{environment}.env"), text.to_owned())),
        1 => (packs(), lines(FILES)).prop_map(|(pack, files)| (format!("{pack}/pack.yaml"), format!("name: pack\n{MANIFEST}{files}"))),
        1 => (packs(), lines(MODULE)).prop_map(|(pack, text)| (format!("{pack}/index.ts.tera"), text)),
        2 => (packs(), partials, lines(PARTIAL)).prop_map(|(pack, name, text)| {
            let nested = if name == "two.tera" { "{% include \"nested.tera\" %}" } else { "" };
            (format!("{pack}/{name}"), format!("{text}{nested}"))
        }),
    ]
    .prop_map(|(file, text)| Edit::Write(file, text))
}

fn edit() -> impl Strategy<Value = Edit> {
    let file = || {
        let env = (customer(), select(&["production", "staging", "qa"][..]));
        prop_oneof![
            2 => customer().prop_map(|id| format!("customers/{id}.yaml")),
            1 => env.prop_map(|(id, environment)| format!("envs/customers/{id}/{environment}.env")),
            1 => select(&["layers/x.yaml", "envs/base/a.env", "packs/tiny/aaa.tera", "packs/tiny/unused.tera"][..]).prop_map(str::to_owned),
        ]
    };
    let damage = select(vec![
        Damage::Deleted,
        Damage::FolderDeleted,
        Damage::AllDeleted,
        Damage::Edited,
        Damage::Touched,
        Damage::Linked,
        Damage::ForeignBeside,
        Damage::ForeignFolder,
        Damage::Unfinished,
    ]);
    let memory = prop_oneof![
        Just(Memory::Deleted),
        Just(Memory::LogDeleted),
        any::<Index>().prop_map(Memory::LogTruncated),
        any::<Index>().prop_map(Memory::LogFlipped),
        Just(Memory::OtherFormat),
        Just(Memory::ValuesDeleted),
        any::<Index>().prop_map(Memory::ValuesTruncated),
        any::<Index>().prop_map(Memory::ValuesFlipped),
        Just(Memory::Kept),
        Just(Memory::PutBack),
    ];
    prop_oneof![
        12 => write(),
        2 => file().prop_map(Edit::Remove),
        1 => file().prop_map(Edit::Touch),
        1 => file().prop_map(Edit::Link),
        1 => customer().prop_map(Edit::Rename),
        3 => (any::<Index>(), damage).prop_map(|(at, damage)| Edit::Out(at, damage)),
        2 => memory.prop_map(Edit::Memory),
    ]
}

fn environments() -> Vec<Environment> {
    let qa = Environment::of("qa").expect("a name");
    Environment::USUAL.into_iter().chain([qa]).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = prop_oneof![
        4 => Just(Run::Whole),
        1 => customer().prop_map(Run::Customer),
        1 => select(environments()).prop_map(Run::In),
        1 => Just(Run::Surveyed),
    ];
    prop::collection::vec((prop::collection::vec(edit(), 1..4), run), 1..10)
}

/// A project that is built again and again.
struct Bench {
    folder: TempDir,
    /// Where links lead, and what is kept.
    beside: TempDir,
    runtimes: PackBundles,
    /// Whether what builds remember was damaged: then nobody knows which files a pack once had.
    forgot: bool,
}

/// What a build gave: or nothing, where the fleet as a whole can't be built.
struct Outcome {
    built: Option<Built>,
    diagnostics: Vec<Diagnostic>,
    /// Whose files are left as they were.
    left: BTreeSet<String>,
    /// Whether it isn't known who is gone.
    unread: bool,
}

/// Files by path, with their bytes; a link or an empty folder is told as such.
type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let entries: Vec<_> = fs::read_dir(&path).into_iter().flatten().flatten().collect();
        let name = |path: &Path| path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
        if entries.is_empty() && path != folder {
            found.insert(format!("{}/", name(&path)), Vec::new());
        }
        for entry in entries {
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_symlink() {
                found.insert(name(&entry.path()), b"a link".to_vec());
            } else {
                found.insert(name(&entry.path()), fs::read(entry.path()).expect("a file"));
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (kind, to) = (entry.file_type().expect("a type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).expect("a link"), to).expect("a link");
        } else {
            fs::copy(entry.path(), to).expect("a file");
        }
    }
}

fn open(root: &Path) -> Result<Project, Vec<Diagnostic>> {
    build::open(Tree::new(root), &Silent)
}

fn write_file(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

impl Bench {
    fn new() -> Bench {
        let runtimes = ["tiny", "other"].map(|name| {
            let script = format!("export const defineWorker = (config) => config; // {name}\n");
            (name.to_owned(), PackBundle::new(name, script.into_bytes(), b"export {};\n".to_vec()))
        });
        // Which file is believed to be the same depends on the file system.
        let (folder, beside) = (temporary_folder_on_disk(), temporary_folder());
        let bench = Bench { folder, beside, runtimes: runtimes.into_iter().collect(), forgot: false };
        let first = |choices: &[&[&str]]| choices.iter().map(|of| of[0]).collect::<String>();
        for pack in ["packs/tiny", "packs/other"] {
            bench.write(&format!("{pack}/pack.yaml"), &format!("name: pack\n{MANIFEST}{}", first(FILES)));
            for file in ["package.json", "package-lock.json"] {
                bench.write(&format!("{pack}/{file}"), "{}");
            }
            bench.write(&format!("{pack}/catalogue.json"), "{\"destinations\": {}}");
            bench.write(&format!("{pack}/index.ts.tera"), &first(MODULE));
            bench.write(
                &format!("{pack}/wrangler.jsonc.tera"),
                "{ \"name\": \"{{ worker.name }}\", \"vars\": {{ vars | json }} }\n",
            );
            bench.write(&format!("{pack}/extra.json.tera"), "{ \"environment\": \"{{ worker.environment }}\" }\n");
            for partial in ["one.tera", "nested.tera", "unused.tera"] {
                bench.write(&format!("{pack}/{partial}"), &format!("// {partial}\n"));
            }
            bench.write(&format!("{pack}/two.tera"), "// two\n{% include \"nested.tera\" %}");
        }
        bench.write("fleet.yaml", &first(FLEET));
        for layer in ["x", "y", "gold", "metal"] {
            bench.write(&format!("layers/{layer}.yaml"), "logLevel: info\n");
        }
        bench.write("envs/base/a.env", "C=base\n");
        bench.write(
            "customers/always.yaml",
            "id: always\nlabels: { tier: gold }\nenvironments: { production: {}, staging: {} }\n",
        );
        bench
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        write_file(&self.path(file), text);
    }

    fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Write(file, text) => {
                let path = self.path(file);
                if path.is_symlink() {
                    fs::remove_file(&path).unwrap();
                }
                if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                    self.write(file, text);
                }
            }
            Edit::Touch(file) => {
                if let Ok(bytes) = fs::read(self.path(file)) {
                    fs::write(self.path(file), bytes).unwrap();
                }
            }
            Edit::Remove(file) => {
                let _ = fs::remove_file(self.path(file));
            }
            Edit::Rename(id) => {
                let [yaml, yml] = ["yaml", "yml"].map(|end| self.path(&format!("customers/{id}.{end}")));
                let _ = fs::rename(&yaml, &yml).or_else(|_| fs::rename(&yml, &yaml));
            }
            Edit::Link(file) => self.link(&self.path(file)),
            Edit::Out(at, damage) => self.damage(at, damage),
            Edit::Memory(memory) => self.forget(memory),
        }
    }

    fn link(&self, file: &Path) {
        if let Ok(bytes) = fs::read(file) {
            let target = self.beside.path().join(file.to_string_lossy().replace('/', "-"));
            fs::write(&target, bytes).unwrap();
            fs::remove_file(file).unwrap();
            symlink(target, file).unwrap();
        }
    }

    fn damage(&self, at: &Index, damage: &Damage) {
        let ours = |name: &String| !name.ends_with('/') && !name.ends_with(FOREIGN);
        let all: Vec<String> = files(&self.path("out")).into_keys().filter(ours).collect();
        if all.is_empty() {
            return;
        }
        let file = self.path("out").join(&all[at.index(all.len())]);
        let folder = file.parent().unwrap().to_owned();
        let regular = fs::symlink_metadata(&file).unwrap().is_file();
        match damage {
            Damage::Deleted => fs::remove_file(&file).unwrap(),
            Damage::FolderDeleted => fs::remove_dir_all(&folder).unwrap(),
            Damage::AllDeleted => fs::remove_dir_all(self.path("out")).unwrap(),
            Damage::Edited if regular => {
                let mut bytes = fs::read(&file).unwrap();
                let middle = bytes.len() / 2;
                let Some(byte) = bytes.get_mut(middle) else { return };
                *byte ^= 1;
                let open = fs::File::options().write(true).open(&file).unwrap();
                let modified = open.metadata().unwrap().modified().unwrap();
                std::os::unix::fs::FileExt::write_all_at(&open, &bytes, 0).unwrap();
                open.set_modified(modified).unwrap();
            }
            Damage::Touched if regular => {
                fs::File::options()
                    .write(true)
                    .open(&file)
                    .unwrap()
                    .set_modified(std::time::SystemTime::now())
                    .unwrap();
            }
            Damage::Linked if regular => self.link(&file),
            Damage::ForeignBeside => write_file(&folder.join(FOREIGN), "mine"),
            Damage::ForeignFolder => write_file(&self.path("out/production/notes").join(FOREIGN), "mine"),
            Damage::Unfinished => {
                let name = file.file_name().unwrap().to_string_lossy();
                write_file(&folder.join(format!(".{name}.new")), "torn");
            }
            Damage::Edited | Damage::Touched | Damage::Linked => {}
        }
    }

    fn forget(&mut self, memory: &Memory) {
        let folder = self.path(".flotilla/build");
        let (log, kept) = (folder.join("log"), self.beside.path().join("kept"));
        let values = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("values-"));
        let truncate = |path: &Path, at: &Index| {
            let bytes = fs::read(path).unwrap_or_default();
            if !bytes.is_empty() {
                fs::write(path, &bytes[..at.index(bytes.len())]).unwrap();
            }
        };
        let flip = |path: &Path, at: &Index| {
            let mut bytes = fs::read(path).unwrap_or_default();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 0x10;
                fs::write(path, bytes).unwrap();
            }
        };
        match memory {
            Memory::Kept => {
                let _ = fs::remove_dir_all(&kept);
                if folder.is_dir() {
                    copy(&folder, &kept);
                }
                return;
            }
            Memory::Deleted => {
                let _ = fs::remove_dir_all(&folder);
            }
            Memory::LogDeleted => {
                let _ = fs::remove_file(&log);
            }
            Memory::LogTruncated(at) => truncate(&log, at),
            Memory::LogFlipped(at) => flip(&log, at),
            Memory::OtherFormat => {
                if log.exists() {
                    fs::write(&log, "flotilla build log 999 values-1\n").unwrap();
                }
            }
            Memory::ValuesDeleted => {
                let _ = values.map(fs::remove_file);
            }
            Memory::ValuesTruncated(at) => {
                let _ = values.map(|values| truncate(&values, at));
            }
            Memory::ValuesFlipped(at) => {
                let _ = values.map(|values| flip(&values, at));
            }
            Memory::PutBack => {
                if kept.is_dir() {
                    let _ = fs::remove_dir_all(&folder);
                    copy(&kept, &folder);
                }
            }
        }
        self.forgot = true;
    }

    fn build(&self, root: &Path, run: &Run, dry: bool, keep: bool) -> Outcome {
        let mut project = match open(root) {
            Ok(project) => project,
            Err(diagnostics) => return Outcome { built: None, diagnostics, left: BTreeSet::new(), unread: false },
        };
        let mut scan = match build::scan(&mut project, keep, &Silent) {
            Ok(scan) => scan,
            Err(diagnostics) => return Outcome { built: None, diagnostics, left: BTreeSet::new(), unread: false },
        };
        let mut diagnostics = scan.diagnostics.clone();
        let mut left = scan.held.clone();
        if matches!(run, Run::Surveyed) {
            return Outcome { built: None, diagnostics, left, unread: scan.unread };
        }
        let valid = scan.records.iter().filter(|record| !scan.held.contains(build::id(record)));
        let used: BTreeSet<&str> = valid.flat_map(|record| record.units.iter().map(|unit| &unit.pack[..])).collect();
        let runtimes: PackBundles = self
            .runtimes
            .iter()
            .filter(|(name, _)| used.contains(name))
            .map(|(name, runtime)| (name.to_owned(), runtime.clone()))
            .collect();
        let includes = |record: &Record, unit: &Unit| match run {
            Run::Customer(id) => build::id(record) == *id,
            Run::In(environment) => unit.environment == *environment,
            Run::Whole | Run::Surveyed => true,
        };
        let scope = Scope { includes: &includes, whole: matches!(run, Run::Whole), dry, explain: false };
        let built = build::build(&project, &mut scan, &runtimes, &scope, &Silent)
            .unwrap_or_else(|failure| panic!("{failure:?}"));
        assert!(built.forgotten.is_none(), "{:?}", built.forgotten);
        diagnostics.extend(built.diagnostics.iter().cloned());
        left.extend(built.failed.iter().cloned());
        Outcome { built: Some(built), diagnostics, left, unread: scan.unread }
    }

    /// A build of the whole fleet, held against a clean one.
    fn check(&mut self) -> Result<Vec<Diagnostic>, TestCaseError> {
        let before = files(&self.path("out"));
        let outcome = self.build(self.root(), &Run::Whole, false, true);
        let after = files(&self.path("out"));

        let fresh = temporary_folder();
        for folder in ["customers", "layers", "envs", "packs"] {
            copy(&self.path(folder), &fresh.path().join(folder));
        }
        fs::copy(self.path("fleet.yaml"), fresh.path().join("fleet.yaml")).unwrap();
        let clean = self.build(fresh.path(), &Run::Whole, false, false);
        prop_assert_eq!(&outcome.diagnostics, &clean.diagnostics);
        prop_assert_eq!(&outcome.left, &clean.left);
        prop_assert_eq!(outcome.built.is_some(), clean.built.is_some());
        let Some(built) = outcome.built else {
            prop_assert!(before == after, "a fleet that can't be built is left alone");
            return Ok(outcome.diagnostics);
        };
        let held = !outcome.left.is_empty();
        let is_left = |name: &str| {
            let customer = name.split('/').nth(1).unwrap_or_default();
            held && (outcome.left.contains(customer) || name.starts_with("runtime/"))
        };
        let counts = |name: &&String| {
            // A file that a pack had before nobody remembers what it had is like one of the people's.
            let lost = self.forgot && name.ends_with("/extra.json");
            // What a killed build left beside a file goes when something else has changed.
            !is_left(name) && !name.ends_with(FOREIGN) && !name.ends_with(".new") && !lost
        };
        let names = |files: &Files| files.keys().filter(counts).cloned().collect::<Vec<_>>();
        let wanted = files(&fresh.path().join("out"));
        let mut found = names(&after);
        if outcome.unread {
            // The file that can't be read may be anybody's: nobody is taken for gone.
            found.retain(|name| wanted.contains_key(name));
        }
        prop_assert_eq!(found, names(&wanted), "the names, and those of a clean build");
        for name in names(&wanted) {
            let [a, b] = [&after, &wanted].map(|files| String::from_utf8_lossy(&files[&name]));
            prop_assert_eq!(a, b, "{}", name);
        }
        for name in wanted.keys().filter(|name| name.starts_with("runtime/")) {
            prop_assert_eq!(&after[name], &wanted[name], "{}", name);
        }
        for customer in &outcome.left {
            let of = |files: &Files| -> Files {
                let own = |name: &&String| name.split('/').nth(1) == Some(customer);
                files.iter().filter(|(name, _)| own(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
            };
            if built.failed.is_empty() {
                prop_assert_eq!(of(&before), of(&after), "{} is held", customer);
            }
        }
        for (what, dry) in [("checked", true), ("built once more", false)] {
            let again = self.build(self.root(), &Run::Whole, dry, !dry);
            let again = again.built.expect("as before");
            // Who fails is tried each time.
            let done = [again.written, again.removed, if held { 0 } else { again.rendered }];
            prop_assert_eq!(done, [0, 0, 0], "{}", what);
        }
        prop_assert!(files(&self.path("out")) == after, "a build that has nothing to do writes nothing");
        Ok(outcome.diagnostics)
    }
}

/// What the last build told.
fn sequence(steps: &[Step]) -> Result<Vec<Diagnostic>, TestCaseError> {
    let mut bench = Bench::new();
    bench.check()?;
    for (edits, run) in steps {
        for edit in edits {
            bench.edit(edit);
        }
        match run {
            Run::Whole => {
                bench.check()?;
            }
            part => {
                bench.build(bench.root(), part, false, true);
            }
        }
    }
    bench.check()
}

fn write_to(file: &str, text: &str) -> Edit {
    Edit::Write(file.to_owned(), text.to_owned())
}

#[track_caller]
fn passes(steps: &[Step]) {
    match sequence(steps) {
        // The layers that fleet.yaml doesn't list are on disk all the time.
        Ok(mut diagnostics) => {
            diagnostics.retain(|found| found.code != Code::Unread || !found.place.file.starts_with("layers/"));
            assert_eq!(diagnostics, [], "all is well at the end");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_a_part_of_the_fleet_left_over_the_whole_fleet_removes() {
    let two = write_to(
        "customers/ash.yaml",
        "id: ash\nenvironments: { production: {}, staging: {} }\nworkers: { web: {}, api: {} }\n",
    );
    let one = write_to("customers/ash.yaml", "id: ash\nworkers: { web: {} }\n");
    for part in [Run::Customer("always"), Run::In(Environment::Production), Run::Surveyed] {
        // A worker less, and then the customer.
        passes(&[
            (vec![two.clone()], Run::Whole),
            (vec![one.clone()], part.clone()),
            (vec![], Run::Whole),
            (vec![Edit::Remove("customers/ash.yaml".to_owned())], part),
            (vec![], Run::Whole),
        ]);
    }
}

#[test]
fn the_order_of_layers_and_of_what_is_appended_counts() {
    let fleet = |layers: &str| {
        write_to("fleet.yaml", &format!("name: test\npacks: {{ tiny: {{ path: packs/tiny }} }}\nlayers:\n{layers}"))
    };
    let rule = "{ when: { tier: gold } }";
    passes(&[
        (
            vec![
                write_to("layers/x.yaml", "vars: { A: x }\n"),
                write_to("layers/y.yaml", "vars: { A: y }\n"),
                fleet(&format!("  x: {rule}\n  y: {rule}\n")),
            ],
            Run::Whole,
        ),
        (vec![fleet(&format!("  y: {rule}\n  x: {rule}\n"))], Run::Whole),
    ]);
    let (list, appended) = ("trustedOrigins: [https://a.example]", "trustedOrigins+: [https://b.example]");
    let both = [format!("{list}\n{appended}\n"), format!("{appended}\n{list}\n")];
    passes(&[
        (vec![fleet(&format!("  x: {rule}\n")), write_to("layers/x.yaml", &both[0])], Run::Whole),
        (vec![write_to("layers/x.yaml", &both[1])], Run::Whole),
    ]);
    let defaults = |text: &str| fleet(&format!("  x: {rule}\ndefaults:\n  {}\n", text.trim().replace('\n', "\n  ")));
    passes(&[(vec![defaults(&both[0])], Run::Whole), (vec![defaults(&both[1])], Run::Whole)]);
}

#[test]
fn an_env_file_that_becomes_a_link_is_told_as_one() {
    let file = "envs/customers/always/production.env";
    let fleet = "name: test\npacks: { tiny: { path: packs/tiny } }\nlayers: { env: { when: { tier: gold }, envFiles: envs } }\n";
    passes(&[
        (vec![write_to("fleet.yaml", fleet), write_to(file, "A=1\n")], Run::Whole),
        (vec![Edit::Link(file.to_owned())], Run::Whole),
        (vec![Edit::Remove(file.to_owned())], Run::Whole),
        (vec![write_to(file, "A=2\n")], Run::Whole),
    ]);
}

#[test]
fn a_file_that_a_pack_no_longer_has_goes() {
    let pack = |files: &str| write_to("packs/tiny/pack.yaml", &format!("name: pack\n{MANIFEST}files: [{files}]\n"));
    let birch = write_to("customers/birch.yaml", "id: birch\n");
    passes(&[
        (vec![pack("wrangler.jsonc.tera, extra.json.tera"), birch], Run::Whole),
        // Also of a customer who goes at the same time.
        (vec![pack("wrangler.jsonc.tera"), Edit::Remove("customers/birch.yaml".to_owned())], Run::Whole),
    ]);
    passes(&[
        (
            vec![pack("wrangler.jsonc.tera, extra.json.tera"), write_to("customers/birch.yaml", "id: birch\n")],
            Run::Whole,
        ),
        (vec![write_to("customers/birch.yaml", "id: birch\npack: other\n")], Run::Whole),
        (
            vec![write_to("customers/birch.yaml", "id: birch\npack: other\nworkers: { web: {} }\n")],
            Run::Customer("birch"),
        ),
        (vec![pack("wrangler.jsonc.tera")], Run::Surveyed),
    ]);
}

#[test]
fn partials_can_extend_and_be_extended() {
    let index = |text: &str| write_to("packs/tiny/index.ts.tera", &format!("{text}export default {{}};\n"));
    let base = |text: &str| {
        write_to(
            "packs/tiny/base.tera",
            &format!("// {text} {{% block mark %}}{{% endblock %}}\nexport default {{}};\n"),
        )
    };
    let middle = |text: &str| {
        write_to(
            "packs/tiny/middle.tera",
            &format!("{{% extends \"base.tera\" %}}{{% block mark %}}{text}{{% endblock %}}"),
        )
    };
    let extends = |of: &str| write_to("packs/tiny/index.ts.tera", &format!("{{%\n extends \"{of}\" %}}"));
    passes(&[
        (vec![index("")], Run::Whole),
        (vec![base("a"), extends("base.tera")], Run::Whole),
        (vec![base("b")], Run::Whole),
        (vec![middle("c"), extends("middle.tera")], Run::Whole),
        (vec![middle("d")], Run::Whole),
        (vec![base("e")], Run::Whole),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_was_edited_a_build_gives_what_a_clean_one_gives(steps in steps()) {
        sequence(&steps)?;
    }
}

/// More of them, or others: `FLOTILLA_TEST_SEQUENCES=2000 FLOTILLA_TEST_SEED=3`.
fn cases() -> u32 {
    number("FLOTILLA_TEST_SEQUENCES").unwrap_or(40) as u32
}

fn seed() -> u64 {
    number("FLOTILLA_TEST_SEED").unwrap_or(7)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
