//! Completions of values: customers, environments, accounts, deploys and codes of diagnostics, as the project in the current folder has
//! them. The shell calls the program itself for them, so they are never out of date.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCandidates;
use clap_complete::env::Shells;

use flotilla_build::out::Out;
use flotilla_deploy::state::State;
use flotilla_engine::context::FOLDER;
use flotilla_model::diagnostic::Code;
use flotilla_model::failure::Failure;
use flotilla_model::spec::Environment;
use flotilla_model::text::{clean, time};
use flotilla_spec::project;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml;

/// The variable by which a shell asks for completions.
pub(super) const VARIABLE: &str = "COMPLETE";
/// The number of deploys that are offered, the newest first.
const RUNS: usize = 50;

/// Adds completions to all arguments whose values the project knows.
pub(super) fn with_values(command: Command) -> Command {
    command.mut_args(with_value).mut_subcommands(with_values)
}

fn with_value(argument: Arg) -> Arg {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let candidates: fn() -> Vec<CompletionCandidate> = match (argument.get_id().as_str(), name.as_deref()) {
        ("subject", _) => subjects,
        (_, Some("CUSTOMER")) | ("customer", Some("ID")) => customers,
        ("env" | "from", Some("NAME" | "ENV")) => environments,
        ("account", Some("NAME")) => accounts,
        ("run", _) => runs,
        _ => return argument,
    };
    argument.add(ArgValueCandidates::new(candidates))
}

/// Returns the script that a shell loads.
pub(super) fn script(shell: &str) -> Result<String, Failure> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).expect("BUG: each shell of the option is known");
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "flotilla", "flotilla", "flotilla", &mut script)
        .map_err(anyhow::Error::from)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Returns the tree of the project in the current folder.
fn project() -> Option<Tree> {
    Some(Tree::new(&project::find(std::path::Path::new(".")).ok()?))
}

fn customers() -> Vec<CompletionCandidate> {
    let files = project().and_then(|tree| project::spec_files(&tree).ok()).map(|found| found.files).unwrap_or_default();
    // A shell inserts them as they are: only what can be an id.
    let is_id = |id: &&str| {
        !id.starts_with('-') && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    files.iter().map(|file| project::id_of(file)).filter(is_id).map(CompletionCandidate::new).collect()
}

fn environments() -> Vec<CompletionCandidate> {
    // A fleet's own as far as they were built or fleet.yaml has them: reading each customer's file would take too long.
    let mut all = BTreeSet::from(Environment::USUAL);
    if let Some(tree) = project() {
        all.extend(Out::new(&tree.root, true).environments());
        let document =
            tree.plain(project::FLEET_FILE).ok().and_then(|bytes| yaml::parse(project::FLEET_FILE, &bytes).0);
        let defaults = document.as_ref().and_then(|document| document.root.get("defaults"));
        all.extend(defaults.into_iter().flat_map(project::environments_in));
    }
    all.remove(&Environment::Preview);
    all.into_iter().map(|environment| CompletionCandidate::new(environment.name())).collect()
}

/// Returns the accounts of fleet.yaml, whatever else is wrong with it.
fn accounts() -> Vec<CompletionCandidate> {
    let bytes = project().and_then(|tree| tree.plain(project::FLEET_FILE).ok());
    let document = bytes.and_then(|bytes| yaml::parse(project::FLEET_FILE, &bytes).0);
    let value = document.map(|document| document.root.to_value()).unwrap_or_default();
    let names = value["accounts"].as_object().into_iter().flatten().map(|(name, _)| clean(name));
    names.map(CompletionCandidate::new).collect()
}

fn runs() -> Vec<CompletionCandidate> {
    let own = project().map(|tree| tree.root.join(FOLDER));
    let folders = own.into_iter().flat_map(|own| [own.join("local"), own]);
    let is_state = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("state") && name.ends_with(".db")
    };
    // Each address of an API has its own, and so has the emulator; the one that was written last is meant.
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok());
    let states = files.flatten().flatten().map(|entry| entry.path()).filter(is_state);
    let state = states.max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok());
    let runs = state.and_then(|state| State::read(&state).ok()?.runs(RUNS).ok()).unwrap_or_default();
    let candidate = |(id, run): (flotilla_deploy::state::RunId, flotilla_deploy::state::Run)| {
        let about = clean(&format!("{} of {}", run.what, time(run.began)));
        CompletionCandidate::new(id.0.to_string()).help(Some(StyledStr::from(about)))
    };
    runs.into_iter().map(candidate).collect()
}

fn subjects() -> Vec<CompletionCandidate> {
    let codes = Code::ALL
        .iter()
        .map(|code| CompletionCandidate::new(code.as_str()).help(Some(StyledStr::from(code.meaning().to_owned()))));
    codes.chain(customers()).collect()
}
