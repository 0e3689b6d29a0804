//! Finds the settings of packs' wrangler configurations that no spec has: flotilla takes these from specs alone, so that no worker gets them.

use std::collections::BTreeMap;

use super::project::Project;
use super::scan::Scan;
use flotilla_model::customer::{Database, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_spec::pack::{Declared, Subject};

/// Returns a warning for each setting of a wrangler configuration that no worker of its pack has. Nothing where specs have errors: what they
/// set isn't known, then.
pub fn not_in_specs(project: &Project, scan: &Scan) -> Vec<Diagnostic> {
    let packs = project.fleet.packs.iter();
    let mut open: BTreeMap<&str, Vec<&Declared>> = packs
        .filter_map(|(name, pack)| Some((name.as_str(), pack.wrangler.as_ref()?.declared.iter().collect())))
        .collect();
    open.retain(|_, declared| !declared.is_empty());
    if open.is_empty() || !scan.held.is_empty() || project.fleet.is_partial {
        return Vec::new();
    }
    let mut is_used: BTreeMap<&str, bool> = BTreeMap::new();
    for record in &scan.records {
        for unit in &record.units {
            // As a rule, the first worker has them all.
            let Some(declared) = open.get_mut(unit.pack.as_str()) else { continue };
            let first = is_used.insert(unit.pack.as_str(), true).is_none();
            if (first || !declared.is_empty())
                && let Some(worker) = scan.worker(project, record, unit)
            {
                declared.retain(|one| !has(&worker, &one.subject));
            }
        }
    }
    let used = open.into_iter().filter(|(pack, _)| is_used.contains_key(pack));
    used.flat_map(|(_, declared)| declared).map(warning).collect()
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

fn warning(declared: &Declared) -> Diagnostic {
    let (what, key) = match &declared.subject {
        Subject::Variable(name) => (format!("the variable {name}"), "vars"),
        Subject::Secret(name) => (format!("the secret {name}"), "secrets"),
        Subject::Binding(name) => (format!("the binding {name}"), "bindings"),
        Subject::Flag(flag) => (format!("the compatibility flag {flag}"), "compatibilityFlags"),
        Subject::Routes => ("routes".to_owned(), "domains` or `routes"),
        Subject::Crons => ("cron triggers".to_owned(), "crons"),
        Subject::Consumers => ("queue consumers".to_owned(), "queueConsumers"),
        Subject::Option(key) => {
            let spec = match *key {
                "tail_consumers" => "tailConsumers",
                "keep_vars" => "keepVars",
                key => key,
            };
            (format!("`{key}`"), spec)
        }
    };
    let message = format!("{what} of this configuration is in no spec of the pack's customers, so no worker gets it");
    let message = if matches!(declared.subject, Subject::Routes | Subject::Crons | Subject::Consumers) {
        format!("{what} of this configuration are in no spec of the pack's customers, so no worker gets them")
    } else {
        message
    };
    let help = format!(
        "flotilla deploys what specs say: add it under `{key}`, in fleet.yaml's defaults if all customers share it"
    );
    Diagnostic::warning(Code::NotInSpecs, declared.place.clone(), message, help)
}
