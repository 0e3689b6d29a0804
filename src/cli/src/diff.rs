//! `flotilla diff`: what differs between two bundles of a customer, from the state.

use serde_json::Value;
use similar::TextDiff;

use flotilla_build::provenance;
use flotilla_deploy::state::{Record, State, Stored};
use flotilla_model::credential::{self, STARS};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text::{holds_ids, mask_ids, mask_value};

use super::cloud::CloudArguments;
use super::report;
use super::ui::{Style, clean, clean_lines, time};
use super::{Format, Session};

/// The number of earlier uploads of a worker that are searched.
const UPLOADS: usize = 1000;
/// The least length of a secret that is replaced wherever it is in a module, in characters.
const LEAST: usize = 4;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The customer
    #[arg(value_name = "CUSTOMER")]
    customer: String,
    /// Record to compare [default: the one before the live one]
    #[arg(value_name = "A")]
    from: Option<i64>,
    /// Record to compare it with [default: the live one]
    #[arg(value_name = "B")]
    to: Option<i64>,
    #[command(flatten)]
    cloud: CloudArguments,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let state = arguments.cloud.state(session)?;
    CloudArguments::check_customer(session, &state, &arguments.customer)?;
    let pairs = pairs(&state, arguments)?;
    if pairs.is_empty() {
        let failure = Failure::new(format!("`{}` has fewer than two bundles to compare", clean(&arguments.customer)));
        return Err(failure.hint("`flotilla history CUSTOMER` lists what ran, and which bundles are kept"));
    }
    let mut objects = Vec::new();
    for (before, after) in pairs {
        let (old, new) = (kept(&state, &before)?, kept(&state, &after)?);
        let values = differences(&old, &new);
        let text = |stored: &Stored| -> Result<String, Failure> {
            let bytes = state.object(&stored.module)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        // A pack can write variables into its module.
        let secrets: Vec<String> = [&old, &new].into_iter().flat_map(|stored| secrets_of(&stored.source)).collect();
        let module = without(&secrets, unified(&text(&old)?, &text(&new)?, "index.ts"));
        let pretty =
            |stored: &Stored| serde_json::to_string_pretty(&masked(&stored.metadata)).unwrap_or_default() + "\n";
        let metadata = unified(&pretty(&old), &pretty(&new), "metadata");
        let runtime = (old.runtime != new.runtime).then(|| (old.runtime_file.clone(), new.runtime_file.clone()));
        if session.format == Format::Json {
            objects.push(serde_json::json!({
                "worker": after.worker.1, "from": before.id, "to": after.id, "differences": values, "module": module,
                "metadata": metadata, "runtime": runtime,
            }));
            continue;
        }
        report::print(&format!(
            "{}: record {} of {} → record {} of {}",
            after.worker.1,
            before.id,
            time(before.at),
            after.id,
            time(after.at)
        ));
        for value in &values {
            report::print(&format!("  {}", clean(value)));
        }
        if let Some((before, after)) = runtime {
            report::print(&format!("  the runtime: {} → {}", clean(&before), clean(&after)));
        }
        for line in [metadata, module].iter().flat_map(|text| text.lines()) {
            let style = match line.as_bytes().first() {
                Some(b'+') => Style::Good,
                Some(b'-') => Style::Error,
                _ => Style::Dim,
            };
            report::print(&session.ui.paint(style, clean_lines(line).trim_end()));
        }
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "diffs": objects }))?;
    }
    Ok(Exit::Done)
}

/// Returns the records to compare: two for each worker of the customer.
fn pairs(state: &State, arguments: &Arguments) -> Result<Vec<(Record, Record)>, Failure> {
    let mut pairs = Vec::new();
    for (id, live) in state.of_customer(&arguments.customer)? {
        let uploads = state.uploads_of(&id, &arguments.customer, UPLOADS)?;
        let by_id = |record: i64| uploads.iter().find(|other| other.id == record).cloned();
        let now = uploads.iter().find(|record| record.digest == live.digest).cloned();
        let (from, to) = match (arguments.from, arguments.to) {
            (Some(from), Some(to)) => (by_id(from), by_id(to)),
            (Some(from), None) => (by_id(from), now),
            (None, _) => (uploads.iter().find(|record| record.digest != live.digest).cloned(), now),
        };
        pairs.extend(from.zip(to));
    }
    Ok(pairs)
}

fn kept(state: &State, record: &Record) -> Result<Stored, Failure> {
    state.stored(&record.digest)?.ok_or_else(|| {
        Failure::new(format!("the bundle of record {} is no longer kept", record.id))
            .hint("`deploy: { keep: 5 }` in fleet.yaml sets the number of bundles to keep per worker")
    })
}

/// Returns the differences between the resolved workers, as far as they are known.
fn differences(old: &Stored, new: &Stored) -> Vec<String> {
    let (before, after) = (&old.source["worker"], &new.source["worker"]);
    if !before.is_object() || !after.is_object() {
        return Vec::new();
    }
    let written =
        |value: Option<serde_json::Value>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
    let line = |(path, before, after): (Vec<String>, Option<Value>, Option<Value>)| {
        let [before, after] = [before, after].map(|value| Some(credential::masked(&path, value?)));
        let (path, values) = (provenance::notation(&path), format!("{} → {}", written(before), written(after)));
        format!("{path} {}", if holds_ids(&path) { mask_ids(&values) } else { values })
    };
    provenance::differences(before, after).into_iter().map(line).collect()
}

/// Returns a bundle's metadata with the ids of resources masked: in its bindings, but for variables, in which secrets are masked.
fn masked(metadata: &Value) -> Value {
    let mut metadata = metadata.clone();
    for binding in metadata.get_mut("bindings").and_then(Value::as_array_mut).into_iter().flatten() {
        let key = match binding["type"].as_str() {
            Some("plain_text") => "text",
            Some("json") => "json",
            _ => {
                *binding = mask_value(binding.take());
                continue;
            }
        };
        let name = binding["name"].as_str().unwrap_or_default().to_owned();
        binding[key] = credential::masked(&["vars", &name], binding[key].take());
    }
    metadata
}

/// Returns the secrets in the variables of a worker that was deployed.
fn secrets_of(source: &Value) -> Vec<String> {
    fn walk(value: &Value, masked: &Value, found: &mut Vec<String>) {
        match (value, masked) {
            (Value::String(text), Value::String(shown)) if text != shown => found.push(text.clone()),
            (Value::Array(items), Value::Array(shown)) => {
                items.iter().zip(shown).for_each(|(item, shown)| walk(item, shown, found));
            }
            (Value::Object(map), Value::Object(shown)) => {
                map.values().zip(shown.values()).for_each(|(value, shown)| walk(value, shown, found));
            }
            _ => {}
        }
    }
    let vars = &source["worker"]["vars"];
    let mut found = Vec::new();
    walk(vars, &credential::masked(&["vars"], vars.clone()), &mut found);
    // A short one would be replaced in other words; its name shows what it is. The longer ones first: another one may be a part of them.
    found.retain(|secret| secret.chars().count() >= LEAST);
    found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    found
}

/// Returns a text without these secrets, as they are and as JavaScript writes them.
fn without(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| {
        let quoted = Value::from(secret.as_str()).to_string();
        text.replace(&quoted[1..quoted.len() - 1], STARS).replace(secret.as_str(), STARS)
    })
}

fn unified(before: &str, after: &str, name: &str) -> String {
    TextDiff::from_lines(before, after).unified_diff().header(name, name).to_string()
}
