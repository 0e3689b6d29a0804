//! A project on disk: fleet.yaml, its packs, and the customers' files. Reads; doesn't resolve or check across files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use crate::diagnostic::{Code, Diagnostic, Place, did_you_mean};
use crate::failure::Failure;
use crate::names;
use crate::pack::{self, Pack};
use crate::schema::Checker;
use crate::spec::{Account, AccountId, Assignment, FleetFile, Identity, SecretReference, Settings};
use crate::yaml::{self, Document};

/// The file that makes a folder a project.
pub const FLEET_FILE: &str = "fleet.yaml";
/// The folder of the customers' files.
pub const CUSTOMERS: &str = "customers";
/// The environment variable with the id of the default account; wrangler's own.
pub const ACCOUNT_ID_VARIABLE: &str = "CLOUDFLARE_ACCOUNT_ID";
/// The environment variable with the API token; wrangler's own.
pub const TOKEN_VARIABLE: &str = "CLOUDFLARE_API_TOKEN";

/// fleet.yaml, read, with the packs that it names.
pub struct Fleet {
    /// The tree of the file, for places.
    pub document: Document,
    /// The file.
    pub file: FleetFile,
    /// What `defaults` assigns.
    pub assignment: Assignment,
    /// What `defaults` sets.
    pub settings: Settings,
    /// The accounts by name.
    pub accounts: BTreeMap<String, Account>,
    /// The packs by name.
    pub packs: BTreeMap<String, Pack>,
}

/// A customer's file, read.
pub struct Spec {
    /// The tree of the file, for places.
    pub document: Document,
    /// Who it is.
    pub identity: Identity,
    /// What it is made of.
    pub assignment: Assignment,
    /// How it is set.
    pub settings: Settings,
}

/// Finds the project: the nearest folder upwards from `from` with a fleet.yaml. A folder with customers and without
/// one is a project, too, whose mistake is told as such.
pub fn find(from: &Path) -> Result<PathBuf, Failure> {
    let from = from
        .canonicalize()
        .map_err(|error| Failure::new(format!("the folder {} can't be opened: {error}", from.display())))?;
    let found = from.ancestors().find(|folder| folder.join(FLEET_FILE).is_file());
    let customers = || Some(from.as_path()).filter(|folder| folder.join(CUSTOMERS).is_dir());
    found.or_else(customers).map(Path::to_owned).ok_or_else(|| {
        Failure::new(format!("there is no {FLEET_FILE} in {} or above it", from.display()))
            .hint("go to a project's folder, or name one with --project DIR")
    })
}

/// Reads fleet.yaml and its packs.
pub fn read_fleet(root: &Path) -> Result<Fleet, Vec<Diagnostic>> {
    if std::fs::symlink_metadata(root.join(FLEET_FILE)).is_err() {
        return Err(vec![Diagnostic::error(
            Code::NoFleetFile,
            Place::file(FLEET_FILE),
            "the project has no fleet.yaml",
            "write one at its root, with the lines `name: my-fleet` and `packs: { consent: { path: templates/consent } }`",
        )]);
    }
    let bytes = read_plain(root, FLEET_FILE).map_err(|diagnostic| vec![diagnostic])?;
    let (document, mut diagnostics) = yaml::parse(FLEET_FILE, &bytes);
    let Some(document) = document else {
        if diagnostics.is_empty() {
            diagnostics.push(empty(FLEET_FILE));
        }
        return Err(diagnostics);
    };
    let value = document.root.to_value();
    diagnostics.extend(Checker::fleet().check(&document, &[], &value, "a fleet"));
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let typed = |error: serde_json::Error| {
        vec![Diagnostic::error(
            Code::WrongForm,
            Place::file(FLEET_FILE),
            error.to_string(),
            "see schema/fleet.schema.json",
        )]
    };
    let file = FleetFile::deserialize(&value).map_err(typed)?;
    let defaults = Value::Object(file.defaults.clone().unwrap_or_default());
    let assignment = Assignment::deserialize(&defaults).map_err(typed)?;
    let settings = Settings::deserialize(&defaults).map_err(typed)?;

    if let Some(pattern) = &file.worker_name {
        diagnostics.extend(name_pattern(&document, pattern));
    }
    let accounts = file.accounts.clone().unwrap_or_else(|| {
        let account = Account {
            id: AccountId::Variable { env: ACCOUNT_ID_VARIABLE.to_owned() },
            token: SecretReference { secret: TOKEN_VARIABLE.to_owned() },
            dispatch_namespace: None,
            worker_limit: None,
            api_limit: None,
        };
        BTreeMap::from([("default".to_owned(), account)])
    });
    let mut packs = BTreeMap::new();
    for (name, reference) in &file.packs {
        let outside = reference.path.split('/').any(|step| step == "..");
        if outside || !root.join(&reference.path).is_dir() {
            diagnostics.push(Diagnostic::error(
                Code::BadPack,
                document.place_of(["packs", name, "path"]),
                format!("`{}` is not a folder of this project", reference.path),
                "a pack is a folder such as templates/consent",
            ));
            continue;
        }
        match pack::read(root, reference.path.trim_end_matches('/')) {
            Ok(pack) => {
                packs.insert(name.clone(), pack);
            }
            Err(found) => diagnostics.extend(found),
        }
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    Ok(Fleet { document, file, assignment, settings, accounts, packs })
}

fn name_pattern(document: &Document, pattern: &str) -> Option<Diagnostic> {
    const KNOWN: [&str; 3] = ["customer", "pack-prefix", "environment"];
    let place = document.place_of(["workerName"]);
    let bad =
        |message: String, help: String| Some(Diagnostic::error(Code::BadNamePattern, place.clone(), message, help));
    let mut rest = pattern;
    while let Some(at) = rest.find('{') {
        let Some(end) = rest[at..].find('}') else {
            return bad(format!("`{pattern}` has a `{{` that isn't closed"), "write {customer}".to_owned());
        };
        let name = &rest[at + 1..at + end];
        if !KNOWN.contains(&name) {
            let help = match did_you_mean(name, KNOWN) {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => "known: {customer}, {pack-prefix}, {environment}".to_owned(),
            };
            return bad(format!("`{pattern}` has an unknown part {{{name}}}"), help);
        }
        rest = &rest[at + end + 1..];
    }
    if !pattern.contains("{customer}") {
        return bad(format!("`{pattern}` gives all customers the same worker"), "put {customer} into it".to_owned());
    }
    None
}

/// The customers' files, sorted by name. Other files of the folder are left alone.
pub fn spec_files(root: &Path) -> Result<Vec<String>, Vec<Diagnostic>> {
    let missing = |message: String| {
        vec![Diagnostic::error(
            Code::NoCustomers,
            Place::file(CUSTOMERS),
            message,
            "write customers/acme.yaml with the line `id: acme` to begin",
        )]
    };
    let entries = match std::fs::read_dir(root.join(CUSTOMERS)) {
        Ok(entries) => entries,
        Err(error) => return Err(missing(format!("the folder of customers can't be read: {error}"))),
    };
    let mut files: Vec<String> = entries
        // A name that is no text is kept as well: a customer left out in silence would count as removed.
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| {
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
            ["yaml", "yml"].contains(&extension.as_str()) && !name.starts_with('.')
        })
        .map(|name| format!("{CUSTOMERS}/{name}"))
        .collect();
    if files.is_empty() {
        return Err(missing("there are no customers".to_owned()));
    }
    files.sort_unstable();
    Ok(files)
}

/// The id that a spec's file name gives it.
pub fn id_of(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
}

/// Reads one customer's file. Beside mistakes there can be a spec without the parts that are beyond reading: what else
/// is wrong in it is found in the same run.
pub fn read_spec(root: &Path, file: &str, checker: &Checker) -> (Option<Spec>, Vec<Diagnostic>) {
    let bytes = match read_plain(root, file) {
        Ok(bytes) => bytes,
        Err(diagnostic) => return (None, vec![diagnostic]),
    };
    let (document, mut diagnostics) = yaml::parse(file, &bytes);
    let Some(document) = document else {
        if diagnostics.is_empty() {
            diagnostics.push(empty(file));
        }
        return (None, diagnostics);
    };
    let mut value = document.root.to_value();
    diagnostics.extend(checker.check(&document, &[], &value, "a customer"));
    let expected = id_of(file);
    if let Some(id) = value["id"].as_str()
        && id != expected
    {
        let place = document.place_of(["id"]);
        let form = "an id is lower-case letters, digits and hyphens, and the file is called after it";
        let help = if is_id(expected) {
            // The form of what is to be replaced anyhow is nothing to dwell on.
            diagnostics.retain(|diagnostic| diagnostic.place != place);
            format!("write `id: {expected}`, or rename the file")
        } else if is_id(id) {
            format!("rename the file to {id}.yaml: {form}")
        } else {
            form.to_owned()
        };
        let message = format!("the id {id:?} is not the file's name, {expected:?}");
        diagnostics.push(Diagnostic::error(Code::IdNotFileName, place, message, help));
    }
    if !diagnostics.is_empty()
        && let Some(object) = value.as_object_mut()
    {
        // The file's name is what its folder in out/ is called after.
        object.insert("id".to_owned(), expected.into());
        object.retain(|key, value| {
            let alone =
                Value::Object([("id".to_owned(), expected.into()), (key.clone(), value.clone())].into_iter().collect());
            typed(&alone).is_ok()
        });
    }
    match typed(&value) {
        Ok((identity, assignment, settings)) => (Some(Spec { identity, assignment, settings, document }), diagnostics),
        Err(error) => {
            if diagnostics.is_empty() {
                let help = "see schema/customer.schema.json";
                diagnostics.push(Diagnostic::error(Code::WrongForm, Place::file(file), error.to_string(), help));
            }
            (None, diagnostics)
        }
    }
}

fn typed(value: &Value) -> serde_json::Result<(Identity, Assignment, Settings)> {
    Ok((Identity::deserialize(value)?, Assignment::deserialize(value)?, Settings::deserialize(value)?))
}

/// Whether a text has the form of an id; its length is the schema's business.
fn is_id(text: &str) -> bool {
    names::label(text).is_ok()
}

fn read_plain(root: &Path, file: &str) -> Result<Vec<u8>, Diagnostic> {
    let path = root.join(file);
    let unreadable = |error: std::io::Error| {
        Diagnostic::error(
            Code::Unreadable,
            Place::file(file),
            format!("it can't be read: {error}"),
            "check its permissions",
        )
    };
    let metadata = std::fs::symlink_metadata(&path).map_err(|error| {
        let lost = file.contains(char::REPLACEMENT_CHARACTER) && error.kind() == std::io::ErrorKind::NotFound;
        if !lost {
            return unreadable(error);
        }
        let help = "rename it: the name is the customer's id and `.yaml`";
        Diagnostic::error(Code::Unreadable, Place::file(file), "its name is not UTF-8", help)
    })?;
    if !metadata.is_file() {
        return Err(Diagnostic::error(
            Code::NotAFile,
            Place::file(file),
            if metadata.is_symlink() { "it is a symbolic link" } else { "it is not a plain file" },
            "specs are read from the project itself: put a copy here",
        ));
    }
    if metadata.len() > yaml::MAX_BYTES {
        return Err(Diagnostic::error(
            Code::TooLarge,
            Place::file(file),
            format!("it has {} bytes; up to {} are read", metadata.len(), yaml::MAX_BYTES),
            "no spec is that large: is it the right file?",
        ));
    }
    std::fs::read(&path).map_err(unreadable)
}

fn empty(file: &str) -> Diagnostic {
    let help = if file == FLEET_FILE {
        "it begins with `name: my-fleet`".to_owned()
    } else {
        format!("it begins with `id: {}`", id_of(file))
    };
    Diagnostic::error(Code::EmptyFile, Place::file(file), "the file is empty", help)
}
