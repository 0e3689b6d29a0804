//! Customers' own accounts, across the fleet: gathered from the records of the scan, and checked against each other. And found on their own,
//! for commands that need no specs beside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;

use super::Project;
use super::scanner::{Scanned, Scanner, has_errors, id, secret_digest};
use crate::manifest::{Manifest, Record, Writer};
use crate::policy::Judged;
use flotilla_model::customer::SHARED;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::names::own_secret;
use flotilla_model::spec::{Account, AccountId};
use flotilla_spec::accounts::names_for_workers;
use flotilla_spec::project::{self, FLEET_FILE, FleetReading};
use flotilla_spec::tree::Tree;

/// Returns the accounts that records of customers have.
pub(super) fn of_records<'r>(records: impl IntoIterator<Item = &'r Record>) -> BTreeMap<String, Account> {
    let all = records.into_iter().flat_map(|record| &record.accounts);
    all.filter_map(|(name, own)| Some((name.clone(), own.account()?))).collect()
}

/// Returns the accounts that the specs of a project define, as far as its files can be read: what the build cache knows isn't read again.
/// Writes nothing.
pub fn own_accounts(root: &Path) -> BTreeMap<String, Account> {
    let tree = Tree::new(root);
    let FleetReading { fleet: Some(fleet), .. } = project::read_fleet_in_part(&tree) else { return BTreeMap::new() };
    let files = project::spec_files(&tree).unwrap_or_default();
    let project = Project::new(tree, fleet, files, None);
    let mut manifest = Manifest::read(project.output_root());
    let writer = Writer::new(project.output_root(), &mut manifest, false);
    let known: Vec<Option<Record>> = project.files.iter().map(|file| manifest.records.remove(file)).collect();
    let scanner = Scanner::new(&project, &writer);
    let scan_one = |(file, known): (&String, Option<Record>)| {
        let Scanned { record, .. } = scanner.scan_customer(file, known);
        record.accounts.into_iter().filter_map(|(name, own)| Some((name, own.account()?))).collect::<Vec<_>>()
    };
    project.files.par_iter().zip(known).flat_map_iter(scan_one).collect()
}

/// Checks the accounts that specs define, and that no customer's worker has one of their tokens. The customers with errors are held.
pub(super) fn judge(project: &Project, records: &[Record], held: &mut BTreeSet<String>, judged: &mut Judged) {
    if project.fleet.accounts.own().is_empty() {
        return;
    }
    let mut found = conflicts(project, records);
    found.extend(exposed_tokens(project, records).into_iter().filter(|one| !judged.diagnostics.contains(one)));
    for diagnostic in found {
        let customer = project::id_of(&diagnostic.place.file).to_owned();
        let mut of_customer = project.policy.judge(Some(&customer), vec![diagnostic]);
        held.extend(has_errors(&of_customer).then_some(customer));
        judged.append(&mut of_customer);
    }
}

/// An account of a record.
struct Use<'a> {
    record: &'a Record,
    name: &'a str,
    token: &'a str,
}

/// Finds accounts that are defined with several tokens: a request could have either.
fn conflicts(project: &Project, records: &[Record]) -> Vec<Diagnostic> {
    let mut uses: BTreeMap<&str, Vec<Use<'_>>> = BTreeMap::new();
    for record in records {
        for (name, own) in &record.accounts {
            if let (Some(id), Some(token)) = (&own.id, &own.token) {
                uses.entry(id).or_default().push(Use { record, name, token: &token.secret });
            }
        }
    }
    let mut found = Vec::new();
    for (id, uses) in &uses {
        let listed: Vec<(&str, &Account)> =
            project.fleet.accounts.listed_with(&AccountId::Literal((*id).to_owned())).collect();
        let is_one = uses.iter().all(|other| other.token == uses[0].token);
        for own in uses {
            if !listed.is_empty() {
                if listed.iter().all(|(_, account)| account.token.secret != own.token) {
                    let (name, account) = listed[0];
                    let there = project.fleet.document.place_of(["accounts", name, "token"]);
                    found.extend(two_tokens(project, own, (name, &account.token.secret), there));
                }
            } else if let Some(other) = uses.iter().find(|other| !is_one && other.token != own.token) {
                let there = place_of(project, other.record, other.name);
                found.extend(two_tokens(project, own, (other.name, other.token), there));
            }
        }
    }
    found
}

fn two_tokens(project: &Project, own: &Use<'_>, other: (&str, &str), there: Place) -> Option<Diagnostic> {
    let file = own.record.file();
    let message = format!(
        "the accounts `{}` and `{}` have the same id and different tokens: {} and {}",
        own.name, other.0, own.token, other.1
    );
    let help = "name one token for both; or, if they are different accounts, correct the id";
    let place = place_of(project, own.record, own.name);
    // A default or a layer has it for several customers.
    let place = if place.file == file { place } else { Place::file(file) };
    Some(Diagnostic::error(Code::Conflict, place, message, help).also(there, "the other one"))
}

/// Returns the place where an account of a record is defined.
pub(super) fn place_of(project: &Project, record: &Record, name: &str) -> Place {
    let resolved = || Some(project.resolve(record.file(), &project.tree.plain(record.file()).ok()?).1);
    let defined = resolved().and_then(|resolved| resolved.accounts.into_iter().find(|own| own.name == name));
    defined.map_or_else(|| Place::file(record.file()), |own| own.place)
}

/// Finds secrets of workers that are tokens of customers' own accounts. Digests find the few customers that are resolved again for it.
fn exposed_tokens(project: &Project, records: &[Record]) -> Vec<Diagnostic> {
    let tokens: HashSet<&str> = project.fleet.accounts.own_tokens().collect();
    let mut suspicious: HashMap<u64, Vec<&str>> = HashMap::new();
    for (prefix, name) in tokens.into_iter().flat_map(names_for_workers) {
        suspicious.entry(secret_digest(name)).or_default().push(prefix);
    }
    let is_suspect = |record: &&Record| {
        record.file() != FLEET_FILE
            && id(record) != SHARED
            && record.secrets.iter().filter_map(|digest| suspicious.get(digest)).any(|prefixes| {
                let own = own_secret(id(record), "");
                prefixes.iter().any(|prefix| prefix.is_empty() || *prefix == own)
            })
    };
    let suspects: Vec<&Record> = records.iter().filter(is_suspect).collect();
    let resolve = |record: &&Record| {
        let bytes = project.tree.plain(record.file()).ok()?;
        Some(project.resolve(record.file(), &bytes).0.diagnostics)
    };
    let found = suspects.par_iter().filter_map(resolve).flatten_iter();
    found.filter(|found| found.code == Code::ForeignSecret).collect()
}
