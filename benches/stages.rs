//! What each stage of the line costs for one worker, on one thread: `cargo bench --bench stages`. The worker is the
//! typical one of a generated fleet, that of the spec of median length.

#[path = "../examples/generate-fleet/fleet.rs"]
#[allow(dead_code, reason = "single customers are enough here")]
mod fleet;

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use flotilla_build::render::Templates;
use flotilla_build::resolve::{Shared, resolve};
use flotilla_build::{build, manifest, syntax};
use flotilla_model::bundle::{self, PackBundle};
use flotilla_model::customer::Worker;
use flotilla_model::digest::Digest;
use flotilla_model::progress::Silent;
use flotilla_spec::project::{self, Fleet, Spec};
use flotilla_spec::schema::Checker;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    reading(&mut criterion);
    making(&mut criterion);
    remembering(&mut criterion);
    criterion.final_summary();
}

/// The text of the typical spec, and its file.
fn typical() -> (String, String) {
    let mut specs: Vec<(usize, usize, String)> = (0..101)
        // Those that need no account but the sample fleet's.
        .filter(|number| fleet::customer(*number)["account"].is_null())
        .map(|number| (number, fleet::spec(number, false).expect("a spec")))
        .map(|(number, text)| (text.len(), number, text))
        .collect();
    specs.sort_unstable();
    let (_, number, text) = specs.swap_remove(specs.len() / 2);
    (format!("customers/{}.yaml", fleet::id(number)), text)
}

/// From text to a checked tree.
fn reading(criterion: &mut Criterion) {
    let (file, text) = typical();
    let checker = Checker::customer();
    let document = yaml::parse(&file, text.as_bytes()).0.expect("a document");
    let value = document.root.to_value();
    let mut group = criterion.benchmark_group("reading");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse YAML", |bencher| bencher.iter(|| yaml::parse(&file, black_box(text.as_bytes()))));
    group.bench_function("tree to JSON", |bencher| bencher.iter(|| black_box(&document).root.to_value()));
    group.bench_function("check by the schema", |bencher| {
        bencher.iter(|| {
            let mistakes = checker.check(&document, &[], black_box(&value), "a customer");
            assert!(mistakes.is_empty());
        });
    });
    group.finish();
}

/// From a spec to the bytes of its production worker's files.
fn making(criterion: &mut Criterion) {
    let Line { fleet, spec, worker } = line();
    let pack = &fleet.packs[&worker.pack];
    let templates = Templates::new(pack).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let runtime = PackBundle::new(&worker.pack, b"export const defineWorker = 0;".to_vec(), Vec::new());
    let render = |name: &str, digest: Option<&Digest>| {
        templates.render(name, black_box(&worker), &runtime, digest).unwrap_or_else(|mistake| panic!("{mistake:?}"))
    };
    let module = render(pack.module().unwrap_or_default(), None);
    let made = bundle::bundle(&worker, &module, &runtime);

    let mut group = criterion.benchmark_group("making");
    group.bench_function("resolve", |bencher| bencher.iter(|| resolve(&fleet, &Shared::default(), black_box(&spec))));
    for name in pack.file_names() {
        let digest = (Some(name) != pack.module()).then_some(&made.digest);
        let text = render(name, digest);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("render {name} and parse it"), |bencher| bencher.iter(|| render(name, digest)));
        group.bench_function(format!("parse {name}"), |bencher| {
            bencher.iter(|| syntax::check(name, black_box(&text)).expect("a valid file"));
        });
    }
    group.throughput(Throughput::Bytes(module.len() as u64));
    group.bench_function("digest of the module", |bencher| bencher.iter(|| Digest::of(black_box(module.as_bytes()))));
    group.bench_function("bundle", |bencher| bencher.iter(|| bundle::bundle(black_box(&worker), &module, &runtime)));
    group.finish();
}

/// A fleet in which nothing changed: what is remembered of it is read, and everything is looked at.
fn remembering(criterion: &mut Criterion) {
    const CUSTOMERS: usize = 1_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    std::os::unix::fs::symlink(templates, folder.path().join("templates")).expect("a link");
    fleet::write(folder.path(), CUSTOMERS, 0.0).expect("a generated fleet");
    let all = build::Scope { includes: &|_, _| true, whole: true, dry: false, explain: false };
    let once = || {
        let told = |mistakes| -> ! { panic!("{mistakes:?}") };
        let mut project = build::open(Tree::new(folder.path()), &Silent).unwrap_or_else(|mistakes| told(mistakes));
        let mut scan = build::scan(&mut project, true, &Silent).unwrap_or_else(|mistakes| told(mistakes));
        let Ok(runtimes) = build::pack_bundles(&project, &mut scan, &|_, _| true, &Silent) else {
            panic!("no runtime")
        };
        let built = build::build(&project, &mut scan, &runtimes, &all, &Silent).expect("a build");
        built.rendered
    };
    assert!(once() >= CUSTOMERS);
    let mut group = criterion.benchmark_group("1,000 customers in which nothing changed");
    group.throughput(Throughput::Elements(CUSTOMERS as u64));
    group.bench_function("what is remembered is read", |bencher| {
        bencher.iter(|| manifest::Manifest::read(folder.path()).records.len());
    });
    group.bench_function("a build", |bencher| bencher.iter(|| assert_eq!(once(), 0)));
    group.finish();
}

/// What the stages of making begin with.
struct Line {
    fleet: Fleet,
    spec: Spec,
    worker: Worker,
}

/// Reads the typical spec into the sample fleet.
fn line() -> Line {
    let (file, text) = typical();
    let tree = Tree::new(Path::new(env!("CARGO_MANIFEST_DIR")));
    let told = |mistakes| -> ! { panic!("{mistakes:?}") };
    let fleet = project::read_fleet(&tree).unwrap_or_else(|mistakes| told(mistakes));
    let read = project::read_spec(&tree, Some(&fleet), &file, text.as_bytes(), Checker::customer());
    let Some(spec) = read.spec.filter(|_| read.diagnostics.is_empty()) else { told(read.diagnostics) };
    let mut resolved = resolve(&fleet, &Shared::default(), &spec);
    assert!(resolved.diagnostics.is_empty(), "{:?}", resolved.diagnostics);
    let worker = resolved.workers.pop().expect("a worker");
    Line { fleet, spec, worker }
}
