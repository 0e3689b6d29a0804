//! Finds the settings of packs' wrangler configurations that no spec has: flotilla takes these from specs alone, so that no worker gets
//! them. And the entry points that don't exist.

use std::collections::{BTreeMap, BTreeSet};

use super::project::Project;
use super::scan::Scan;
use flotilla_model::customer::{Database, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_spec::pack::{Declared, Subject};
use flotilla_spec::project::{LAYERS, id_of};

/// Returns a warning for each pack of a wrangler project whose entry point doesn't exist, unless the project's own build makes it.
pub fn missing_code(project: &Project, scan: &Scan) -> Vec<Diagnostic> {
    let used: BTreeSet<&str> =
        scan.records.iter().flat_map(|record| &record.units).map(|unit| unit.pack.as_str()).collect();
    let packs = project.fleet.packs.iter().filter(|(name, _)| used.contains(name.as_str()));
    let missing = packs.filter_map(|(_, pack)| {
        let wrangler = pack.wrangler.as_ref().filter(|wrangler| wrangler.build.is_none())?;
        let (main, place) = wrangler.main.as_ref()?;
        let path = wrangler.folder.join(main);
        let message = format!("`{main}`, the entry point of the worker, does not exist");
        let help = "run the build that creates it before `flotilla build`, or set that build as `build.command` in the configuration";
        (!path.exists()).then(|| Diagnostic::warning(Code::NoEntryPoint, place.clone(), message, help))
    });
    missing.collect()
}

/// Returns a warning for each setting of a wrangler configuration that no worker of its pack has. What specs with errors may set counts as
/// set.
pub fn not_in_specs(project: &Project, scan: &Scan) -> Vec<Diagnostic> {
    let packs = project.fleet.packs.iter();
    let mut open: BTreeMap<&str, Vec<&Declared>> = packs
        .filter_map(|(name, pack)| Some((name.as_str(), pack.wrangler.as_ref()?.declared.iter().collect())))
        .collect();
    open.retain(|_, declared| !declared.is_empty());
    if open.is_empty() || project.fleet.is_partial {
        return Vec::new();
    }
    let mut is_used: BTreeMap<&str, bool> = BTreeMap::new();
    for record in scan.records.iter().filter(|record| !scan.is_held(record)) {
        for unit in &record.units {
            // Usually, the first worker has all of them.
            let Some(declared) = open.get_mut(unit.pack.as_str()) else { continue };
            let first = is_used.insert(unit.pack.as_str(), true).is_none();
            if (first || !declared.is_empty())
                && let Some(worker) = scan.worker(project, record, unit)
            {
                declared.retain(|one| !has(&worker, &one.subject));
            }
        }
    }
    open.retain(|pack, declared| is_used.contains_key(pack) && !declared.is_empty());
    if !scan.held.is_empty() && !open.is_empty() {
        let texts = texts_with_errors(project, scan);
        open.values_mut()
            .for_each(|declared| declared.retain(|one| !texts.iter().any(|text| may_have(text, &one.subject))));
    }
    open.into_values().flatten().map(warning).collect()
}

/// Returns the texts of the specs with errors, and of the layers that they may use.
fn texts_with_errors(project: &Project, scan: &Scan) -> Vec<String> {
    let layers = project.tree.names(LAYERS).unwrap_or_default().into_iter().map(|name| format!("{LAYERS}/{name}"));
    let specs = project.files.iter().filter(|file| scan.held.contains(id_of(file))).cloned();
    specs.chain(layers).filter_map(|file| project.tree.text(&file).ok()).collect()
}

/// Returns whether a spec with errors may have a setting, by its text.
fn may_have(text: &str, subject: &Subject) -> bool {
    match subject {
        Subject::Variable(name) | Subject::Secret(name) | Subject::Binding(name) => text.contains(name),
        Subject::Flag(flag) => text.contains(flag),
        Subject::Routes => ["domains", "routes", "hosts"].iter().any(|key| text.contains(key)),
        Subject::Crons => text.contains("crons"),
        Subject::Consumers => text.contains("queueConsumers"),
        Subject::Option(key) => text.contains(of_spec(key)),
    }
}

/// Returns whether a worker has a setting.
fn has(worker: &Worker, subject: &Subject) -> bool {
    let is_bound = |name: &String| {
        let of_database = matches!(&worker.database, Database::D1 { binding, .. } if binding == name);
        let is_var = worker.vars.contains_key(name) || worker.secrets.contains_key(name);
        is_var || of_database || worker.bindings.contains_key(name) || worker.services.contains_key(name)
    };
    match subject {
        Subject::Variable(name) | Subject::Secret(name) | Subject::Binding(name) => is_bound(name),
        Subject::Flag(flag) => worker.compatibility_flags.contains(flag),
        Subject::Routes => !worker.domains.is_empty() || !worker.routes.is_empty() || worker.hosts.is_some(),
        Subject::Crons => !worker.crons.is_empty(),
        Subject::Consumers => !worker.queue_consumers.is_empty(),
        Subject::Option(key) => match *key {
            "limits" => worker.limits.is_some(),
            "placement" => worker.placement.is_some(),
            "cache" => worker.cache.is_some(),
            "keep_vars" => worker.keep_vars,
            "logpush" => worker.logpush.is_some(),
            _ => worker.tail_consumers.is_some(),
        },
    }
}

/// Returns how specs name an option of wrangler's configuration.
fn of_spec(key: &'static str) -> &'static str {
    match key {
        "tail_consumers" => "tailConsumers",
        "keep_vars" => "keepVars",
        key => key,
    }
}

fn warning(declared: &Declared) -> Diagnostic {
    let (what, key) = match &declared.subject {
        Subject::Variable(name) => (format!("the variable {name}"), "vars"),
        Subject::Secret(name) => (format!("the secret {name}"), "secrets"),
        Subject::Binding(name) => (format!("the binding {name}"), "bindings"),
        Subject::Flag(flag) => (format!("the compatibility flag {flag}"), "compatibilityFlags"),
        Subject::Routes => ("routes".to_owned(), "domains` or `routes"),
        Subject::Crons => ("cron triggers".to_owned(), "crons"),
        Subject::Consumers => ("queue consumers".to_owned(), "queueConsumers"),
        Subject::Option(key) => (format!("`{key}`"), of_spec(key)),
    };
    let message = format!("{what} of this configuration is in no spec of the pack's customers, so no worker gets it");
    let message = if matches!(declared.subject, Subject::Routes | Subject::Crons | Subject::Consumers) {
        format!("{what} of this configuration are in no spec of the pack's customers, so no worker gets them")
    } else {
        message
    };
    let help = format!(
        "flotilla takes this from specs: add it under `{key}`, in `defaults` in fleet.yaml if all customers share it"
    );
    Diagnostic::warning(Code::NotInSpecs, declared.place.clone(), message, help)
}
