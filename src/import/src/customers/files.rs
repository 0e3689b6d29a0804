//! The meaning of a configuration's name and folder: the customer, the environment, or the part of the project that it deploys. Files
//! that deploy the same code are customers and environments of one pack; files that deploy different code are different workers.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::spec::Environment;
use flotilla_spec::yaml::Document;

use super::super::code::Projects;
use super::super::ids::{environment, slug, split};
use super::super::wrangler::{CUSTOMERS, configs, text, word};

/// Folders whose names don't describe their content.
const PLAIN: [&str; 8] = ["src", "dist", "build", "worker", "workers", "lib", "deploy", "config"];
/// The longest role.
const ROLE_LENGTH: usize = 30;

/// A configuration file, and what its place says about it.
pub(super) struct Member<'a> {
    /// The file.
    pub document: &'a Document,
    /// The word for its environment, if its name has one.
    pub word: Option<&'a str>,
    /// Its customer, if the file is one customer's.
    pub customer: Option<String>,
    /// Its environment, if the file is for one.
    pub environment: Option<Environment>,
    /// Its role, if the project has several workers.
    pub role: Option<String>,
}

fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the customer that the folders name, and the folder below: `customers/acme/api` is acme's `api`.
fn owner(file: &str) -> Option<(String, &str)> {
    let folder = folder(file);
    let mut at = 0;
    for step in folder.split('/') {
        let rest = folder.get(at + step.len() + 1..);
        if let Some(rest) = rest.filter(|rest| CUSTOMERS.contains(&step) && !rest.is_empty()) {
            let (customer, below) = rest.split_once('/').unwrap_or((rest, ""));
            return Some((slug(customer), below));
        }
        at += step.len() + 1;
    }
    None
}

/// Returns what each file is. `named`: the customer that something else than its place names.
pub(super) fn members<'a>(
    documents: &[&'a Document],
    projects: &Projects<'_>,
    named: impl Fn(&Document) -> Option<String>,
) -> Vec<Member<'a>> {
    // The files of each code, in their order.
    let mut groups: Vec<(String, Vec<&'a Document>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for document in documents {
        let top = configs(document)[0];
        // A file with environments of its own is a project of its own, unless its name shows its purpose.
        let is_alone =
            document.root.get("env").is_some() && word(&document.file).is_none() && owner(&document.file).is_none();
        let key = if is_alone { document.file.clone() } else { projects.key(&top) };
        let index = *known.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[index].1.push(document);
    }
    // `wrangler.acme.toml` beside a `wrangler.toml` with environments runs the code of that one.
    join_alone(&mut groups, projects);
    let mut members = Vec::new();
    for (group, (_, files)) in groups.iter().enumerate() {
        let plain: Vec<&str> =
            files.iter().filter(|file| word(&file.file).is_none()).map(|file| folder(&file.file)).collect();
        let several = plain.iter().collect::<BTreeSet<_>>().len() > 1;
        for document in files {
            let file = document.file.as_str();
            let beside = |wanted: Environment| {
                let words = files
                    .iter()
                    .filter(|other| folder(&other.file) == folder(file))
                    .filter_map(|other| word(&other.file));
                words.map(environment).any(|found| found == Some(wanted))
            };
            let (owned, below) = owner(file).map_or((None, ""), |(customer, below)| (Some(customer), below));
            let owned = named(document).or(owned);
            let alone = files.len() == 1;
            let siblings = documents.iter().filter(|other| folder(&other.file) == folder(file)).count();
            let last = folder(file).rsplit('/').next().unwrap_or_default();
            let word = word(file);
            let mut member = Member { document, word: None, customer: owned, environment: None, role: None };
            let said = word.map(|word| word.replace('.', "-"));
            let said =
                said.or_else(|| (several && member.customer.is_none() && !last.is_empty()).then(|| last.to_owned()));
            let mut part = None;
            if let Some(said) = said {
                let (customer, environment) = split(&said);
                member.environment = environment;
                member.word = word;
                match customer {
                    // The only file with this code: another worker beside those of the folder, or the folder's own.
                    Some(customer) if alone && word.is_some() && member.customer.is_none() => {
                        part = (siblings > 1).then_some(customer)
                    }
                    Some(customer) if member.customer.is_none() => member.customer = Some(customer),
                    _ => {}
                }
            } else if document.root.get("env").is_none()
                && beside(Environment::Production)
                && !beside(Environment::Development)
            {
                // Beside a file for production, the plain one is for development.
                member.environment = Some(Environment::Development);
            }
            let base = part.unwrap_or_else(|| if member.customer.is_some() { below.to_owned() } else { String::new() });
            members.push((group, base, member));
        }
    }
    roles(&groups, members)
}

/// Joins files whose name shows their purpose with the file of the same folder that runs the same code and has environments.
fn join_alone(groups: &mut Vec<(String, Vec<&Document>)>, projects: &Projects<'_>) {
    let mut index = 0;
    while index < groups.len() {
        let key = groups[index].0.clone();
        let target = groups.iter().position(|(other, files)| {
            *other != key && files.iter().any(|file| *other == file.file && projects.key(&configs(file)[0]) == key)
        });
        match target.filter(|_| groups[index].1.iter().all(|file| word(&file.file).is_some())) {
            Some(target) => {
                let (_, files) = groups.remove(index);
                let target = if target > index { target - 1 } else { target };
                groups[target].1.extend(files);
            }
            None => index += 1,
        }
    }
}

/// Assigns roles to files of different code, where one customer would have several of them.
fn roles<'a>(groups: &[(String, Vec<&'a Document>)], members: Vec<(usize, String, Member<'a>)>) -> Vec<Member<'a>> {
    let of_project: BTreeSet<usize> = members
        .iter()
        .filter(|(_, _, member)| owner(&member.document.file).is_none() && !is_named(member))
        .map(|(group, ..)| *group)
        .collect();
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    for group in &of_project {
        let files = &groups[*group].1;
        let own =
            members.iter().find(|(other, part, _)| other == group && !part.is_empty()).map(|(_, part, _)| part.clone());
        let folders: BTreeSet<&str> = files.iter().map(|file| folder(&file.file)).collect();
        let folder =
            folders.iter().flat_map(|folder| folder.rsplit('/')).find(|step| !step.is_empty() && !PLAIN.contains(step));
        let folder = folder.filter(|_| folders.len() == 1).map(|folder| (*folder).to_owned());
        let name = files[0].root.get("name").and_then(text).map(str::to_owned);
        let mut role = slug(&own.or(folder).or(name).unwrap_or_else(|| "root".to_owned()));
        role.truncate(ROLE_LENGTH);
        let role = role.trim_end_matches('-').to_owned();
        let mut free = role.clone();
        let mut number = 2;
        while names.values().any(|other| *other == free) {
            free = format!("{role}-{number}");
            number += 1;
        }
        names.insert(*group, free);
    }
    let several = of_project.len() > 1;
    let all = members.into_iter().map(|(group, part, mut member)| {
        if is_named(&member) || owner(&member.document.file).is_some() {
            // A customer's own folders: `customers/acme/api`.
            member.role = Some(slug(&part)).filter(|_| !part.is_empty());
        }
        if member.role.is_none() && several {
            member.role = names.get(&group).cloned();
        }
        member
    });
    all.collect()
}

/// Returns whether a file's name or folder says that it is one customer's.
fn is_named(member: &Member<'_>) -> bool {
    member.customer.is_some()
}
