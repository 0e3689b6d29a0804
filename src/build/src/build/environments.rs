//! The environments of a fleet, seen together: a name that only one customer uses may be a typing error.

use std::collections::{BTreeMap, BTreeSet};

use super::Project;
use crate::manifest::Record;
use flotilla_model::diagnostic::{Code, Diagnostic};
use flotilla_model::environment::{Environment, is_misspelt};
use flotilla_spec::project::CUSTOMERS;
use flotilla_spec::yaml::{self, Kind};

/// Returns a warning for each environment that one customer alone has, and whose name is almost that of an environment of others.
pub(super) fn similar_environments(project: &Project, records: &[Record]) -> Vec<Diagnostic> {
    let mut customers: BTreeMap<Environment, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let own: BTreeSet<Environment> =
            record.units.iter().map(|unit| unit.environment).filter(|environment| environment.is_own()).collect();
        own.into_iter().for_each(|environment| customers.entry(environment).or_default().push(record));
    }
    let similar = |name: Environment| {
        let shared = customers.iter().filter(|(_, customers)| customers.len() > 1);
        shared.map(|(other, _)| *other).find(|other| is_misspelt(name.name(), other.name()))
    };
    let mut found = Vec::new();
    for (environment, of) in &customers {
        let ([record], Some(other)) = (of.as_slice(), similar(*environment)) else { continue };
        // What a layer or fleet.yaml names is read by others, too.
        let place = project.tree.plain(record.file()).ok().and_then(|bytes| {
            let document = yaml::parse(record.file(), &bytes).0?;
            let roles = document.root.get("workers").map(|workers| match &workers.kind {
                Kind::Map(roles) => roles.as_slice(),
                _ => &[],
            });
            let roots = roles.into_iter().flatten().map(|(_, _, own)| own).chain([&document.root]);
            let span = roots.filter_map(|root| root.get("environments")?.key_span(environment.name())).next()?;
            Some(document.place(span))
        });
        let Some(place) = place.filter(|place| place.file.starts_with(CUSTOMERS)) else { continue };
        let message = format!("no other customer has an environment `{environment}`, but some have `{other}`");
        let help =
            format!("did you mean `{other}`? If not, add a rule for this customer under `diagnostics` in fleet.yaml");
        found.push(Diagnostic::warning(Code::SimilarEnvironment, place, message, help));
    }
    found
}
