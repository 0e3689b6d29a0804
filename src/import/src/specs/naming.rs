//! The names of workers in their shortest form. Knows how names follow from a spec.

use std::collections::BTreeMap;

use flotilla_model::names;
use flotilla_model::spec::Environment;

use super::super::FoundWorker;
use super::{PREFIX_LENGTH, Settings};

/// Returns the prefix of the workers' names, if it is the same for all: then no spec has to name them.
pub(super) fn prefix(found: &[&FoundWorker], pack: &str) -> String {
    let of = |worker: &FoundWorker| {
        let environment = match worker.environment {
            Environment::Production => String::new(),
            other => format!("-{other}"),
        };
        let role = worker.role.as_ref().map(|role| format!("-{role}")).unwrap_or_default();
        let rest = worker.name.strip_suffix(&environment)?.strip_suffix(&role)?;
        rest.strip_suffix(worker.customer.as_str())?.strip_suffix('-').map(str::to_owned)
    };
    let mut all = found.iter().filter(|worker| !worker.name.is_empty()).map(|worker| of(worker));
    let first = all.next().flatten().filter(|prefix| prefix.len() <= PREFIX_LENGTH && names::label(prefix).is_ok());
    if let Some(first) = first
        && all.all(|other| other.as_ref() == Some(&first))
    {
        return first;
    }
    let mut short = pack.to_owned();
    short.truncate(PREFIX_LENGTH);
    short.trim_end_matches('-').to_owned()
}

pub(super) fn expected(prefix: &str, id: &str, role: Option<&str>) -> String {
    match role {
        Some(role) => format!("{prefix}-{id}-{role}"),
        None => format!("{prefix}-{id}"),
    }
}

/// Writes the workers' names in the shortest form: not at all, as one pattern, or for each environment.
pub(super) fn name(
    base: &mut Settings,
    environments: &mut [(Environment, Settings)],
    names: Option<&BTreeMap<Environment, String>>,
    expected: &str,
) {
    let Some(names) = names else { return };
    let gives = |pattern: &str, environment: Environment| {
        let name = pattern.replace("{environment}", environment.as_ref());
        match environment {
            _ if pattern.contains("{environment}") => name,
            Environment::Production => name,
            other => format!("{name}-{other}"),
        }
    };
    let all = |pattern: &str| names.iter().all(|(environment, name)| gives(pattern, *environment) == *name);
    if all(expected) {
        return;
    }
    let production = names.get(&Environment::Production).cloned();
    let with_word = names.iter().map(|(environment, name)| name.replacen(environment.as_ref(), "{environment}", 1));
    let mut candidates: Vec<String> = production.clone().into_iter().collect();
    candidates.extend(
        names.iter().filter_map(|(environment, name)| name.strip_suffix(&format!("-{environment}")).map(str::to_owned)),
    );
    candidates.extend(with_word.filter(|pattern| pattern.contains('{')));
    if let Some(pattern) = candidates.into_iter().find(|pattern| all(pattern)) {
        base.insert("workerName".to_owned(), pattern.into());
        return;
    }
    let pattern = match production {
        Some(name) => {
            base.insert("workerName".to_owned(), name.clone().into());
            name
        }
        None => expected.to_owned(),
    };
    for (environment, settings) in environments {
        if let Some(name) = names.get(environment).filter(|name| gives(&pattern, *environment) != **name) {
            settings.insert("workerName".to_owned(), name.as_str().into());
        }
    }
}
