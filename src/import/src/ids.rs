//! Ids of customers, and environments, out of names that people gave. Knows texts alone.

use flotilla_model::environment::Flaw;
use flotilla_model::names::nearest_id;
use flotilla_model::spec::Environment;

/// Returns the environment that a word names: `prod`, `stage`, `dev`, …
pub fn environment(text: &str) -> Option<Environment> {
    Some(match text.to_ascii_lowercase().as_str() {
        "production" | "prod" | "prd" | "live" | "main" => Environment::Production,
        "staging" | "stage" | "stg" => Environment::Staging,
        "development" | "develop" | "dev" | "local" => Environment::Development,
        own @ ("test" | "testing" | "qa" | "uat" | "preprod") => return Environment::of(own),
        _ => return None,
    })
}

/// Returns whether a word is an environment's own name, and not another word for it.
pub fn is_exact(text: &str) -> bool {
    environment(text).is_some_and(|environment| environment.as_ref() == text)
}

/// Splits a name into the customer's id and the environment: `acme-prod` and `prod-acme`.
pub fn split(name: &str) -> (Option<String>, Option<Environment>) {
    if let Some(environment) = environment(name) {
        return (None, Some(environment));
    }
    let of_end = name.rsplit_once(['-', '_']).and_then(|(rest, last)| Some((rest, environment(last)?)));
    let of_start = || name.split_once(['-', '_']).and_then(|(first, rest)| Some((rest, environment(first)?)));
    match of_end.or_else(of_start).filter(|(rest, _)| !rest.is_empty()) {
        Some((customer, environment)) => (Some(slug(customer)), Some(environment)),
        None => (Some(slug(name)), None),
    }
}

/// Returns the environment that has a name, or almost: `production_eu` is `production-eu`.
pub fn named(name: &str) -> Result<Environment, Flaw> {
    match Environment::written(&slug(name))? {
        Environment::Preview => Err(Flaw::Reserved),
        environment => Ok(environment),
    }
}

/// Turns a text into an id: lower-case letters, digits and hyphens.
pub fn slug(text: &str) -> String {
    nearest_id(text).unwrap_or_else(|| "customer".to_owned())
}
