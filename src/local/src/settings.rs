//! Settings of a worker: the versioned ones (bindings, compatibility), the unversioned ones and tags. Knows how they are
//! merged; not what they do.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::scripts::tags;
use super::store::{self, Key, Version, Worker};
use super::upload::{UNVERSIONED, check_bindings, check_options, check_tags, object, resolve, shown};
use super::{objects, versions};

fn active(db: &rusqlite::Connection, worker: &Worker) -> Result<Version, Refusal> {
    store::serving(db, worker)?.ok_or_else(Refusal::no_worker)
}

/// `GET …/settings`.
pub fn read(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| {
        let worker = store::get(db, key)?;
        Ok(Answer::ok(&all(&worker, &active(db, &worker)?)))
    })
}

/// `GET …/bindings` of a namespace's script.
pub fn bindings(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&shown(&active(db, &store::get(db, key)?)?.bindings).into())))
}

/// `PATCH …/settings`: what is sent replaces what is there, `bindings` as a whole. Versioned settings make a new version.
pub fn patch(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let sent = object(call.form()?, "settings")?;
    check_options(&sent, &cloud.limits, &cloud.now()[..10])?;
    let strict = versions::strict(call)?;
    cloud.store.write(|db| {
        let mut worker = store::get(db, key)?;
        let versioned: Map<String, Value> = sent
            .iter()
            .filter(|(name, _)| !UNVERSIONED.contains(&name.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let version = if versioned.is_empty() {
            active(db, &worker)?
        } else {
            versions::edit(cloud, db, &worker, call, |version| {
                for (name, value) in versioned {
                    match (name.as_str(), value) {
                        ("bindings", bindings) => {
                            let bindings = inherited(bindings, &version.bindings);
                            check_bindings(Some(&bindings), &cloud.limits)?;
                            let bindings = bindings.as_array().cloned().unwrap_or_default();
                            version.bindings =
                                resolve(&bindings, &[], &version.bindings, &cloud.store, &cloud.limits, strict)?;
                            versions::check_references(cloud, db, key, &version.bindings)?;
                        }
                        (_, value) => {
                            version.options.insert(name, value);
                        }
                    }
                }
                Ok(())
            })?
        };
        merge(db, &mut worker, &sent)?;
        store::save(db, &worker, &cloud.now())?;
        Ok(Answer::ok(&all(&worker, &version)))
    })
}

/// In a patch, a binding of which only name and type are sent stays as it is (wrangler 4.85 relies on that).
fn inherited(mut bindings: Value, had: &[Value]) -> Value {
    for binding in bindings.as_array_mut().into_iter().flatten() {
        let bare = binding.as_object().is_some_and(|fields| fields.len() == 2);
        if bare && had.iter().any(|had| had["name"] == binding["name"] && had["type"] == binding["type"]) {
            binding["type"] = "inherit".into();
        }
    }
    bindings
}

/// `GET …/script-settings`: the unversioned ones.
pub fn read_unversioned(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&unversioned(&store::get(db, key)?))))
}

/// `PATCH …/script-settings`.
pub fn patch_unversioned(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let Value::Object(sent) = call.json()? else { return Err(Refusal::unparseable("it must be an object")) };
    check_options(sent, &cloud.limits, &cloud.now()[..10])?;
    cloud.store.write(|db| {
        let mut worker = store::get(db, key)?;
        merge(db, &mut worker, sent)?;
        store::save(db, &worker, &cloud.now())?;
        Ok(Answer::ok(&unversioned(&worker)))
    })
}

fn merge(db: &rusqlite::Connection, worker: &mut Worker, sent: &Map<String, Value>) -> Result<(), Refusal> {
    versions::check_consumers(db, &worker.key.account, sent.get("tail_consumers").unwrap_or(&Value::Null))?;
    for name in UNVERSIONED {
        if let Some(value) = sent.get(name) {
            worker.settings.insert(name.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn unversioned(worker: &Worker) -> Value {
    let mut shown = json!({"logpush": false, "tail_consumers": [], "tags": []});
    for (name, value) in &worker.settings {
        if !value.is_null() && name != objects::TAG {
            shown[name] = value.clone();
        }
    }
    shown
}

fn all(worker: &Worker, version: &Version) -> Value {
    let mut settings = unversioned(worker);
    settings["bindings"] = shown(&version.bindings).into();
    settings["usage_model"] = "standard".into();
    if let Some(tag) = worker.settings.get(objects::TAG) {
        settings[objects::TAG] = tag.clone();
    }
    for (name, value) in &version.options {
        settings[name] = value.clone();
    }
    settings
}

/// `GET …/tags` of a namespace's script.
pub fn read_tags(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&tags(&store::get(db, key)?).into())))
}

/// `PUT …/tags`: replaces them; `null` removes all.
pub fn put_tags(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let wanted = match call.json()? {
        Value::Null => Vec::new(),
        Value::Array(tags) if tags.iter().all(Value::is_string) => tags.clone(),
        _ => return Err(Refusal::unparseable("it must be an array of texts")),
    };
    change_tags(cloud, key, |tags| *tags = wanted, |tags| Answer::ok(&tags.into()))
}

/// `PUT` and `DELETE …/tags/{tag}`.
pub fn change_tag(cloud: &Cloud, key: &Key, tag: &str, present: bool) -> Outcome {
    let change = |tags: &mut Vec<Value>| {
        tags.retain(|has| has != tag);
        if present {
            tags.push(tag.into());
        }
    };
    change_tags(cloud, key, change, |_| Answer::ok(&Value::Null))
}

fn change_tags(
    cloud: &Cloud,
    key: &Key,
    change: impl FnOnce(&mut Vec<Value>),
    show: impl FnOnce(&[Value]) -> Answer,
) -> Outcome {
    cloud.store.write(|db| {
        let mut worker = store::get(db, key)?;
        let mut tags = tags(&worker).to_vec();
        change(&mut tags);
        check_tags(&tags, &cloud.limits)?;
        let answer = show(&tags);
        worker.settings.insert("tags".to_owned(), tags.into());
        store::save(db, &worker, &cloud.now())?;
        Ok(answer)
    })
}
