//! Secrets of a worker, one by one or in bulk. Each edit is a new version, live at once. Values go in and never come out.

use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key, Version};
use super::upload::{check_bindings, is_secret, sealed, shown};
use super::versions;

/// The number of changes that one bulk request may have: Cloudflare had 25 and raised it in 2026-06, to an
/// undocumented number.
const BULK: usize = 100;

/// `GET …/secrets` and `GET …/secrets/{name}`.
pub fn read(cloud: &Cloud, key: &Key, name: Option<&str>) -> Outcome {
    let secrets = cloud.store.read(|db| {
        let worker = store::get(db, key)?;
        let version = store::latest(db, worker.id)?.unwrap_or_default();
        Ok(shown(&version.bindings).into_iter().filter(is_secret).collect::<Vec<_>>())
    })?;
    match name {
        None => Ok(Answer::ok(&secrets.into())),
        Some(name) => {
            let found = secrets.into_iter().find(|secret| secret["name"] == name);
            Ok(Answer::ok(&found.ok_or_else(|| missing(name))?))
        }
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::new(404, 10056, format!("Binding {name:?} not found."))
}

/// `PUT …/secrets`.
pub fn put(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let mut secret = call.json()?.clone();
    call.text("name")?;
    set_type(&mut secret)?;
    check_bindings(Some(&json!([secret])), &cloud.limits)?;
    cloud.store.write(|db| {
        let worker = store::get(db, key)?;
        let secret = sealed(secret, &cloud.store);
        versions::edit(cloud, db, &worker, call, |version| set(cloud, version, secret.clone()))?;
        Ok(Answer::ok(&shown(&[secret])[0]))
    })
}

/// Sets the type of a secret that has none, and refuses one that isn't a secret's.
fn set_type(secret: &mut Value) -> Result<(), Refusal> {
    if secret["type"].is_null() {
        secret["type"] = "secret_text".into();
    }
    match is_secret(secret) {
        true => Ok(()),
        false => Err(Refusal::invalid("the type of a secret is secret_text or secret_key")),
    }
}

/// `DELETE …/secrets/{name}`.
pub fn delete(cloud: &Cloud, key: &Key, call: &Call, name: &str) -> Outcome {
    cloud.store.write(|db| {
        let worker = store::get(db, key)?;
        versions::edit(cloud, db, &worker, call, |version| {
            let before = version.bindings.len();
            version.bindings.retain(|binding| !is_secret(binding) || binding["name"] != name);
            if version.bindings.len() == before { Err(missing(name)) } else { Ok(()) }
        })?;
        Ok(Answer::ok(&Value::Null))
    })
}

/// `PATCH …/secrets-bulk`: a merge patch; `null` removes a secret.
pub fn bulk(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let Value::Object(changes) = &call.json()?["secrets"] else {
        return Err(Refusal::unparseable("secrets is required and must be an object"));
    };
    if changes.len() > BULK {
        return Err(Refusal::new(400, 100_160, format!("{} secrets in one request, more than {BULK}", changes.len())));
    }
    let mut sent = Vec::new();
    for (name, change) in changes.iter().filter(|(_, change)| !change.is_null()) {
        let mut secret = change.clone();
        if !secret.is_object() {
            return Err(Refusal::unparseable(format!("the secret {name} must be an object or null")));
        }
        secret["name"] = name.clone().into();
        set_type(&mut secret)?;
        sent.push(secret);
    }
    check_bindings(Some(&sent.clone().into()), &cloud.limits)?;
    cloud.store.write(|db| {
        let worker = store::get(db, key)?;
        let version = versions::edit(cloud, db, &worker, call, |version| {
            version.bindings.retain(|binding| {
                !is_secret(binding)
                    || !binding["name"].as_str().is_some_and(|name| changes.get(name).is_some_and(Value::is_null))
            });
            sent.into_iter().try_for_each(|secret| set(cloud, version, sealed(secret, &cloud.store)))
        })?;
        let secrets = shown(&version.bindings).into_iter().filter(is_secret);
        let by_name = secrets.map(|secret| (secret["name"].as_str().unwrap_or_default().to_owned(), secret));
        Ok(Answer::ok(&Value::Object(by_name.collect())))
    })
}

fn set(cloud: &Cloud, version: &mut Version, secret: Value) -> Result<(), Refusal> {
    match version.bindings.iter_mut().find(|binding| binding["name"] == secret["name"]) {
        Some(binding) if is_secret(binding) => *binding = secret,
        // Cloudflare's wording and code as wrangler's users report them.
        Some(_) => return Err(Refusal::new(400, 10053, format!("Binding name {} already in use.", secret["name"]))),
        None => version.bindings.push(secret),
    }
    let vars = version
        .bindings
        .iter()
        .filter(|binding| is_secret(binding) || matches!(binding["type"].as_str(), Some("plain_text" | "json")));
    if vars.count() > cloud.limits.vars {
        return Err(Refusal::new(400, 10055, format!("more than {} variables and secrets", cloud.limits.vars)));
    }
    Ok(())
}
