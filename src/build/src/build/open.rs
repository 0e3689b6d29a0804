//! Opens a project: reads fleet.yaml, its layers and packs, and lists the customers' files. Where fleet.yaml is faulty, everything else
//! is checked all the same, and nothing is opened.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::project::{Project, read_assets};
use super::scan::check_all;
use crate::resolve::{self, Resolved};
use flotilla_model::diagnostic::{Diagnostic, sorted};
use flotilla_model::digest::Framed;
use flotilla_model::preview::Preview;
use flotilla_model::progress::Progress;
use flotilla_spec::project::{self, FleetReading, SpecFiles};
use flotilla_spec::schema::Checker;
use flotilla_spec::tree::Tree;

/// Opens a project. An error in fleet.yaml ends it, with all other errors of the project.
pub fn open(tree: Tree, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    open_as(tree, None, progress)
}

/// Opens a project as it is in a preview: a fleet of its own, of the preview's customers and of the shared workers that these refer to. Its
/// files are separate from the fleet's.
pub fn open_preview(tree: Tree, preview: &Preview, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    let roots = preview.shared.clone().unwrap_or_default();
    let preview = &Preview { shared: None, ..preview.clone() };
    let mut project = open_as(tree, Some(preview), progress)?;
    // Which shared workers belong to it, and which hosts are others in it, is known once its customers are resolved.
    let resolve = |file: &String| Some(project.resolve(file, &project.tree.plain(file).ok()?).1);
    let resolved: Vec<Resolved> = project.files.par_iter().filter_map(resolve).collect();
    let referred = resolved.iter().flat_map(|item| &item.refers).map(|(_, to)| to.clone());
    let mut wanted: BTreeSet<String> = roots.into_iter().chain(referred).collect();
    loop {
        let refers = project.shared.resolved.refers.iter();
        let more = refers.filter(|(from, _)| from.as_ref().is_some_and(|from| wanted.contains(from)));
        let more: Vec<String> = more.map(|(_, to)| to.clone()).filter(|to| !wanted.contains(to)).collect();
        if more.is_empty() {
            break;
        }
        wanted.extend(more);
    }
    let mut preview = Preview { shared: Some(wanted), ..preview.clone() };
    preview.hosts.extend(resolved.into_iter().flat_map(|item| item.moved));
    project.fleet.preview = Some(preview.clone());
    preview.hosts.extend(resolve::shared(&project.fleet).resolved.moved);
    let decides = serde_json::to_vec(&preview).expect("BUG: a preview is JSON");
    project.fleet.decides = Framed::new("preview").field(&project.fleet.decides.to_bytes()).field(&decides).finish();
    project.fleet.preview = Some(preview);
    project.shared = resolve::shared(&project.fleet);
    read_assets(&project.tree, &mut project.shared.resolved);
    Ok(project)
}

fn open_as(tree: Tree, preview: Option<&Preview>, progress: &dyn Progress) -> Result<Project, Vec<Diagnostic>> {
    progress.begin("reading the fleet", None);
    // Side by side: the schemas take time to compile.
    let (FleetReading { fleet, mut errors }, files) =
        rayon::join(|| project::read_fleet_in_part(&tree), || project::spec_files(&tree));
    let files = files.unwrap_or_else(|missing| {
        errors.extend(missing);
        SpecFiles::default()
    });
    match fleet {
        Some(fleet) => {
            let project = Project::new(tree, fleet, files, preview);
            if errors.is_empty() { Ok(project) } else { Err(check_all(project, errors, progress)) }
        }
        None => {
            // Errors that don't depend on fleet.yaml are reported anyway.
            errors.extend(files.unread);
            errors.extend(project::check_layer_files(&tree));
            let checker = Checker::customer();
            let read = |file: &String| match tree.plain(file) {
                Ok(bytes) => project::read_spec(&tree, None, file, &bytes, checker).diagnostics,
                Err(diagnostic) => vec![*diagnostic],
            };
            errors.par_extend(files.files.par_iter().flat_map_iter(read));
            Err(sorted(errors))
        }
    }
}
