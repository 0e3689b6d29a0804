//! `flotilla diff`: the differences between the bundles of a customer that are deployed and those that a deploy would upload, or between
//! two that ran. Reads the state and the files, and sends nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use similar::TextDiff;

use flotilla_build::{build, provenance};
use flotilla_deploy::state::{Deployed, Record, State, Stored, WorkerId};
use flotilla_engine::planning::{PlanRequest, Planned, plan_fleet};
use flotilla_engine::selection::Selection;
use flotilla_model::bundle::{BUNDLES, kept_modules};
use flotilla_model::credential::{self, STARS};
use flotilla_model::digest::Digest;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::platform::Module;
use flotilla_model::progress::Progress as _;
use flotilla_model::text::{grouped, holds_ids, mask_ids, mask_value};
use flotilla_spec::project::{id_of, spec_files};
use flotilla_spec::tree::Tree;

use super::cloud::CloudArguments;
use super::report::{self, count};
use super::status::unknown_accounts;
use super::ui::{Style, clean, clean_lines, time};
use super::{Format, Session};

/// The number of earlier uploads of a worker that are searched.
const UPLOADS: usize = 1000;
/// The number of lines of the pack's code that are printed, and the width of each, in characters.
const CODE_LINES: usize = 300;
const CODE_WIDTH: usize = 300;
/// The least length of a secret that is replaced wherever it is in a module, in characters.
const LEAST: usize = 4;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The customer
    #[arg(value_name = "CUSTOMER")]
    customer: String,
    /// Record to compare, as listed by `flotilla history` [default: what is deployed, compared with what a deploy would upload]
    #[arg(value_name = "A")]
    from: Option<i64>,
    /// Record to compare it with [default: the live one]
    #[arg(value_name = "B", requires = "from")]
    to: Option<i64>,
    #[command(flatten)]
    cloud: CloudArguments,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments.from {
        Some(from) => records(session, arguments, from),
        None => planned(session, arguments),
    }
}

/// Compares what is deployed with what a deploy would upload.
fn planned(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let customer = &arguments.customer;
    let state = arguments.cloud.state(session)?;
    CloudArguments::check_customer(session, &state, customer)?;
    let deployed = state.of_customer(customer)?;
    let selection = Selection::new(vec![customer.clone()], Vec::new(), Vec::new(), None);
    let request =
        PlanRequest { selection, cloud: arguments.cloud.options(), dry_build: true, ..PlanRequest::default() };
    let has_spec =
        spec_files(&Tree::new(&session.root)).is_ok_and(|found| found.files.iter().any(|file| id_of(file) == customer));
    let planned = if has_spec { Some(plan_fleet(&session.context(), &request)?) } else { None };
    session.ui.end();
    let mut compared = Vec::new();
    if let Some(Planned { project, scan, runtimes, cloud, plan, .. }) = &planned {
        if scan.held.contains(customer) {
            let failure = format!("{} has errors, so a deploy would upload nothing", clean(customer));
            return Err(Failure::new(failure).hint("fix the errors that are reported above"));
        }
        let records = scan.records.iter().filter(|record| build::id(record) == customer);
        for (record, unit) in records.flat_map(|record| record.units.iter().map(move |unit| (record, unit))) {
            let Some(worker) = scan.worker(project, record, unit) else { continue };
            if let Some(failure) = unknown_accounts(&cloud.unknown([worker.account.as_str()])) {
                return Err(failure);
            }
            let (module, bundle) =
                build::module(project, runtimes, &worker).map_err(|error| Failure::invalid(vec![*error]))?;
            let pack_bundle = runtimes.of(&worker);
            let (module, code) = main_and_others(pack_bundle.upload_modules("", module.into_bytes()));
            let side = Side {
                source: build::source(&worker, &build::recipe(project, runtimes, unit)),
                module,
                code,
                metadata: bundle.metadata,
                pack_bundle: pack_bundle.file.clone(),
                digest: bundle.digest,
            };
            let id = (cloud.home(&worker.account, worker.namespace.as_deref()), worker.name);
            let live = deployed.iter().find(|(other, _)| *other == id);
            let change = plan.changes.iter().find(|change| change.id() == id);
            // Resources with requests of their own change without an upload.
            let mut values: Vec<String> =
                change.into_iter().flat_map(|change| &change.reasons).map(ToString::to_string).collect();
            let hosts = plan.hosts.iter().filter(|host| host.home == id.0);
            values.extend(
                hosts.filter(|host| host.to.as_ref() == Some(&id.1)).map(|host| format!("host {} added", host.host)),
            );
            compared.push((id.1, live, Some(side), values));
        }
    }
    let is_defined = |name: &String| compared.iter().any(|(other, ..)| other == name);
    let gone: Vec<_> = deployed.iter().filter(|((_, name), _)| !is_defined(name)).collect();
    compared.extend(gone.into_iter().map(|gone| (gone.0.1.clone(), Some(gone), None, Vec::new())));
    let mut objects = Vec::new();
    for (worker, live, after, values) in compared {
        let before = live.map(|(id, live)| Side::kept(&state, id, live)).transpose()?;
        let live = live.map(|(_, live)| live);
        let head = head(&worker, live, after.as_ref());
        let same = live.zip(after.as_ref()).is_some_and(|(live, after)| live.digest == after.digest);
        let change = match same {
            true => Differences { values, ..Differences::default() },
            false => Differences { values, ..Differences::of(before.as_ref(), after.as_ref()) },
        };
        if session.format == Format::Json {
            objects.push(serde_json::json!({
                "worker": worker,
                "deployed": live.map(|live| live.digest),
                "planned": after.as_ref().map(|after| after.digest),
                "differences": change.values, "module": change.module, "metadata": change.metadata,
                "runtime": change.pack_bundle, "code": change.code,
            }));
            continue;
        }
        report::print(&head);
        if let Some(drift) = live.and_then(|live| live.drift.as_ref()) {
            report::print(&format!("  {} {}", session.ui.paint(Style::Warning, "!"), clean(&drift.to_string())));
        }
        if same && change.values.is_empty() {
            report::print("  no differences");
        }
        change.print(session);
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "diffs": objects }))?;
    } else {
        report::print("compared with the state on this machine; `flotilla plan --refresh` compares with Cloudflare");
    }
    Ok(Exit::Done)
}

/// Returns the line above a worker's differences.
fn head(worker: &str, live: Option<&Deployed>, after: Option<&Side>) -> String {
    let from = match live {
        Some(live) => format!("deployed {} of {}", live.digest.short(), time(live.deployed_at)),
        None => "not deployed".to_owned(),
    };
    let to = match after {
        Some(after) => format!("planned {}", after.digest.short()),
        None => "no spec defines it".to_owned(),
    };
    format!("{}: {from} → {to}", clean(worker))
}

/// Compares bundles that ran.
fn records(session: &Session, arguments: &Arguments, from: i64) -> Result<Exit, Failure> {
    let state = arguments.cloud.state(session)?;
    CloudArguments::check_customer(session, &state, &arguments.customer)?;
    let pairs = pairs(&state, arguments, from)?;
    if pairs.is_empty() {
        let customer = clean(&arguments.customer);
        let records = match arguments.to {
            Some(to) => format!("records {from} and {to} are not both uploads"),
            None => format!("record {from} is not an upload"),
        };
        let failure = Failure::usage(format!("{records} of a worker of `{customer}`"));
        return Err(failure.hint("`flotilla history CUSTOMER` lists what ran, and which bundles are kept"));
    }
    let mut objects = Vec::new();
    for (before, after) in pairs {
        let side = |record: &Record| Side::of(&state, &kept(&state, record)?, record.digest);
        let change = Differences::of(Some(&side(&before)?), Some(&side(&after)?));
        if session.format == Format::Json {
            objects.push(serde_json::json!({
                "worker": after.worker.1, "from": before.id, "to": after.id, "differences": change.values,
                "module": change.module, "metadata": change.metadata, "runtime": change.pack_bundle, "code": change.code,
            }));
            continue;
        }
        report::print(&format!(
            "{}: record {} of {} → record {} of {}",
            clean(&after.worker.1),
            before.id,
            time(before.at),
            after.id,
            time(after.at)
        ));
        change.print(session);
    }
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "diffs": objects }))?;
    }
    Ok(Exit::Done)
}

/// One of two bundles that are compared.
struct Side {
    /// The worker that it was made from, with its recipe.
    source: Value,
    /// The text of its module.
    module: String,
    /// The other modules, which all workers of the pack share.
    code: Vec<Module>,
    metadata: Value,
    /// The file of the pack's bundle.
    pack_bundle: String,
    digest: Digest,
}

impl Side {
    /// Returns a bundle that the state keeps.
    fn of(state: &State, stored: &Stored, digest: Digest) -> Result<Side, Failure> {
        let module = state.object(&stored.module)?.unwrap_or_default();
        let script = state.object(&stored.runtime)?.unwrap_or_default().into();
        // The main module comes first: the worker's own, or that of wrangler's bundle.
        let modules = kept_modules("", module, &stored.runtime_file, &script).unwrap_or_default();
        let (module, code) = main_and_others(modules);
        Ok(Side {
            source: stored.source.clone(),
            module,
            code,
            metadata: stored.metadata.clone(),
            pack_bundle: stored.runtime_file.clone(),
            digest,
        })
    }

    /// Returns the bundle of a deployed worker.
    fn kept(state: &State, id: &WorkerId, live: &Deployed) -> Result<Side, Failure> {
        let stored = state.stored(id, &live.digest)?.ok_or_else(|| {
            let failure = Failure::new(format!(
                "the state on this machine does not have the deployed bundle {}",
                live.digest.short()
            ));
            failure
                .hint("another machine deployed it: use that machine's state, or read the live worker with `flotilla import --account`")
        })?;
        Side::of(state, &stored, live.digest)
    }
}

/// Returns the text of the main module, which is the first, and the modules beside it.
fn main_and_others(mut modules: Vec<Module>) -> (String, Vec<Module>) {
    if modules.is_empty() {
        return (String::new(), Vec::new());
    }
    let main = modules.remove(0);
    (String::from_utf8_lossy(&main.bytes).into_owned(), modules)
}

/// The differences between two bundles.
#[derive(Default)]
struct Differences {
    /// The values that differ, if both sides are known.
    values: Vec<String>,
    /// The lines of the module that differ.
    module: String,
    metadata: String,
    /// The files of the packs' bundles, if they differ.
    pack_bundle: Option<(String, String)>,
    /// The lines of the pack's code that differ.
    code: String,
}

impl Differences {
    /// Compares two bundles; of one that there is only on one side, everything differs.
    fn of(before: Option<&Side>, after: Option<&Side>) -> Differences {
        let pretty = |side: &Side| serde_json::to_string_pretty(&masked(&side.metadata)).unwrap_or_default() + "\n";
        let metadata = |side: Option<&Side>| side.map(pretty).unwrap_or_default();
        let module = |side: Option<&Side>| side.map(|side| side.module.clone()).unwrap_or_default();
        let both = before.zip(after);
        // Where wrangler bundled the modules, the main one has a name of its own.
        let is_bundled = |side: &&Side| side.pack_bundle.starts_with(&format!("{BUNDLES}/"));
        let main = after.or(before).filter(is_bundled).and_then(|side| side.metadata["main_module"].as_str());
        let secrets: Vec<String> = before.iter().chain(&after).flat_map(|side| secrets_of(&side.source)).collect();
        Differences {
            values: both.map(|(before, after)| differences(&before.source, &after.source)).unwrap_or_default(),
            // A pack can write variables into its module.
            module: without(&secrets, unified(&module(before), &module(after), main.unwrap_or("index.ts"))),
            metadata: unified(&metadata(before), &metadata(after), "metadata"),
            pack_bundle: both
                .filter(|(before, after)| before.pack_bundle != after.pack_bundle)
                .map(|(before, after)| (before.pack_bundle.clone(), after.pack_bundle.clone())),
            code: both.map(|(before, after)| without(&secrets, code_differences(before, after))).unwrap_or_default(),
        }
    }

    fn print(&self, session: &Session) {
        for value in &self.values {
            report::print(&format!("  {}", clean(value)));
        }
        if let Some((before, after)) = &self.pack_bundle {
            report::print(&format!("  the pack's bundle: {} → {}", clean(before), clean(after)));
        }
        let print = |line: &str| {
            let style = match line.as_bytes().first() {
                Some(b'+') => Style::Good,
                Some(b'-') => Style::Error,
                _ => Style::Dim,
            };
            report::print(&session.ui.paint(style, clean_lines(line).trim_end()));
        };
        [&self.metadata, &self.module].into_iter().flat_map(|text| text.lines()).for_each(print);
        // Bundled code has no end, and lines without an end.
        for line in self.code.lines().take(CODE_LINES) {
            match line.char_indices().nth(CODE_WIDTH) {
                Some((end, _)) => print(&format!("{}…", &line[..end])),
                None => print(line),
            }
        }
        if let more @ 1.. = self.code.lines().count().saturating_sub(CODE_LINES) {
            report::print(&format!("… and {} more; --json has all of them", count(more, "line")));
        }
    }
}

/// Returns the lines of the pack's code that differ. The name of its one module changes with it; wrangler's modules keep theirs.
fn code_differences(before: &Side, after: &Side) -> String {
    if before.pack_bundle == after.pack_bundle {
        return String::new();
    }
    let pairs: Vec<(Option<&Module>, Option<&Module>)> = match (&before.code[..], &after.code[..]) {
        ([before], [after]) => vec![(Some(before), Some(after))],
        (before, after) => {
            let find = |side: &'_ [Module], name: &str| side.iter().position(|module| module.name == name);
            let names: BTreeSet<&str> = before.iter().chain(after).map(|module| module.name.as_str()).collect();
            let pair = |name| (find(before, name).map(|at| &before[at]), find(after, name).map(|at| &after[at]));
            names.into_iter().map(pair).collect()
        }
    };
    let differ = |module: &(Option<&Module>, Option<&Module>)| {
        module.0.map(|before| &before.bytes) != module.1.map(|after| &after.bytes)
    };
    let mut text = String::new();
    for (before, after) in pairs.into_iter().filter(differ) {
        let name = |module: Option<&Module>| module.map_or("nothing", |module| module.name.as_str()).to_owned();
        let (from, to) = (name(before), name(after));
        let as_text = |module: Option<&Module>| match module {
            Some(module) => std::str::from_utf8(&module.bytes).ok().map(str::to_owned),
            None => Some(String::new()),
        };
        match (as_text(before), as_text(after)) {
            (Some(before), Some(after)) => text += &unified_of(&before, &after, &from, &to),
            _ => {
                let size = |module: Option<&Module>| module.map_or(0, |module| module.bytes.len() as u64);
                let (size_before, size_after) = (grouped(size(before)), grouped(size(after)));
                text += &format!("--- {from}\n+++ {to}\n binary: {size_before} bytes → {size_after} bytes\n");
            }
        }
    }
    text
}

/// Returns the records to compare: two for each worker of the customer.
fn pairs(state: &State, arguments: &Arguments, from: i64) -> Result<Vec<(Record, Record)>, Failure> {
    let mut pairs = Vec::new();
    for (id, live) in state.of_customer(&arguments.customer)? {
        let uploads = state.uploads_of(&id, &arguments.customer, UPLOADS)?;
        let by_id = |record: i64| uploads.iter().find(|other| other.id == record).cloned();
        let now = uploads.iter().find(|record| record.digest == live.digest).cloned();
        let to = match arguments.to {
            Some(to) => by_id(to),
            None => now,
        };
        pairs.extend(by_id(from).zip(to));
    }
    Ok(pairs)
}

fn kept(state: &State, record: &Record) -> Result<Stored, Failure> {
    state.stored(&record.worker, &record.digest)?.ok_or_else(|| {
        Failure::new(format!("the bundle of record {} is no longer kept", record.id))
            .hint("`deploy: { keep: 5 }` in fleet.yaml sets the number of bundles to keep per worker")
    })
}

/// Returns the differences between the resolved workers, as far as they are known.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let (before, after) = (&old["worker"], &new["worker"]);
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
    unified_of(before, after, name, name)
}

fn unified_of(before: &str, after: &str, from: &str, to: &str) -> String {
    // Of code without anything in common, the best differences could take minutes.
    let lines = TextDiff::configure().timeout(Duration::from_secs(2)).diff_lines(before, after);
    lines.unified_diff().header(from, to).to_string()
}
