//! A fleet as it was built: from files to out/. Every plan begins here.

use std::time::Instant;

use flotilla_build::build::{self, PackBundles, Project, Scan, Scope};
use flotilla_build::manifest::{Record, Unit};
use flotilla_model::diagnostic::{Diagnostic, Severity, sorted};
use flotilla_model::failure::Failure;
use flotilla_model::lock::Lock;
use flotilla_spec::tree::Tree;

use crate::context::Context;
use crate::selection::Selection;

/// A fleet as it was built.
pub struct Built {
    /// Its files.
    pub project: Project,
    /// Its customers.
    pub scan: Scan,
    /// The bundles of its packs.
    pub runtimes: PackBundles,
    /// The rendered workers.
    pub built: build::Built,
    /// The errors and warnings of the selected customers, and of what concerns all.
    pub diagnostics: Vec<Diagnostic>,
    /// The duration, in seconds.
    pub seconds: f64,
}

impl Built {
    /// Returns whether there are errors: of customers that are left as they were.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// A fleet as its files describe it, with the bundles of its packs.
pub struct ScannedFleet {
    /// Its files.
    pub project: Project,
    /// Its customers.
    pub scan: Scan,
    /// The bundles of its packs.
    pub pack_bundles: PackBundles,
}

/// Reads the files, checks the selection against them, and bundles the packs. With `keep`, what was read is remembered for the next
/// time. Fails with diagnostics where the fleet as a whole can't be built; errors of single customers come with the result.
pub fn scan_fleet(context: &Context<'_>, selection: &Selection, keep: bool) -> Result<ScannedFleet, Failure> {
    let operator = context.operator;
    let tree = Tree { may_have_no_customers: context.may_have_no_customers, ..Tree::new(&context.root) };
    let opened = match &context.preview {
        None => build::open(tree, operator),
        Some(preview) => build::open_preview(tree, preview, operator),
    };
    let mut project = opened.map_err(Failure::invalid)?;
    let mut scan = build::scan(&mut project, keep, operator).map_err(Failure::invalid)?;
    selection.verify(operator, &project, &mut scan)?;
    let includes = |record: &Record, unit: &Unit| selection.includes_unit(record, unit);
    let pack_bundles = build::pack_bundles(&project, &mut scan, &includes, operator)?;
    Ok(ScannedFleet { project, scan, pack_bundles })
}

/// Reads the files and renders out/ where it isn't current; `dry` writes nothing, `explain` keeps why each worker is rendered. Fails
/// with diagnostics where the fleet as a whole can't be built; errors of single customers come with the result.
pub fn build_fleet(context: &Context<'_>, selection: &Selection, dry: bool, explain: bool) -> Result<Built, Failure> {
    let start = Instant::now();
    let operator = context.operator;
    // One at a time: the second one waits, and then has little to do. Nothing is read before, as it might be old by then.
    let _lock = if dry { None } else { Lock::wait(&context.build_lock(), "build", operator)? };
    let ScannedFleet { project, mut scan, pack_bundles: runtimes } = scan_fleet(context, selection, !dry)?;
    let includes = |record: &Record, unit: &Unit| selection.includes_unit(record, unit);
    let scope = Scope { includes: &includes, whole: selection.is_all(), dry, explain };
    let mut built = build::build(&project, &mut scan, &runtimes, &scope, operator)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut diagnostics: Vec<Diagnostic> =
        scan.diagnostics.iter().filter(|found| selection.concerns(found)).cloned().collect();
    diagnostics.append(&mut built.diagnostics);
    let diagnostics = sorted(diagnostics);
    Ok(Built { project, scan, runtimes, built, diagnostics, seconds })
}
