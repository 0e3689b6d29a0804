//! A project on disk: fleet.yaml, its packs, and the customers' files. Reads; doesn't resolve or check across files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::envfile;
use crate::pack::{self, Pack};
use crate::schema::{Checker, add_unreported, empty_values};
use crate::tree::Tree;
use crate::yaml::{self, Document, Kind, Node, Span};
use flotilla_model::diagnostic::{Code, Diagnostic, Place, did_you_mean};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::failure::Failure;
use flotilla_model::limits::{Limit, Limits, Plan, WORKERS_PER_CUSTOMER, grouped};
use flotilla_model::names;
use flotilla_model::preview::{self, Preview};
use flotilla_model::spec::{
    Account, AccountId, Assignment, Destination, Environment, FleetFile, Identity, LayerRule, Roles, SecretReference,
    Settings,
};

/// The file that makes a folder a project.
pub const FLEET_FILE: &str = "fleet.yaml";
/// The folder of the customers' files.
pub const CUSTOMERS: &str = "customers";
/// The folder of the layers' files.
pub const LAYERS: &str = "layers";
/// The folder of previews: each has what the project's folder has, `out/` and `.flotilla/`.
pub const PREVIEWS: &str = ".flotilla/previews";
/// The environment variable with the id of the default account; wrangler's own.
pub const ACCOUNT_ID_VARIABLE: &str = "CLOUDFLARE_ACCOUNT_ID";
/// The environment variable with the API token; wrangler's own.
pub const TOKEN_VARIABLE: &str = "CLOUDFLARE_API_TOKEN";

/// fleet.yaml, read, with the layers and packs that it names.
pub struct Fleet {
    /// The tree of the file, for places.
    pub document: Document,
    /// The file.
    pub file: FleetFile,
    /// The accounts by name.
    pub accounts: BTreeMap<String, Account>,
    /// The packs by name.
    pub packs: BTreeMap<String, Pack>,
    /// The packs that can't be used, by name, with their errors. They hold back the customers that use them, and nobody else.
    pub broken_packs: BTreeMap<String, Vec<Diagnostic>>,
    /// The layers, weakest first.
    pub layers: Vec<Layer>,
    /// The labels that all customers have unless they say otherwise.
    pub labels: BTreeMap<String, String>,
    /// The digest of what of fleet.yaml and the packs decides how customers are resolved.
    pub decides: Digest,
    /// The digest of the file's bytes.
    pub raw: Digest,
    /// The preview that is looked at, if it isn't the fleet itself.
    pub preview: Option<Preview>,
}

impl Layer {
    /// Returns its name among the parts of a project that customers can need.
    pub fn part(&self) -> String {
        format!("layer {}", self.name)
    }
}

impl Fleet {
    /// Returns the broken parts that customers can need, by name, each with its errors: packs and layers.
    pub fn broken_parts(&self) -> impl Iterator<Item = (String, &[Diagnostic])> {
        let packs = self.broken_packs.iter().map(|(name, errors)| (name.clone(), errors.as_slice()));
        let layers = self.layers.iter().filter(|layer| !layer.errors.is_empty());
        packs.chain(layers.map(|layer| (layer.part(), layer.errors.as_slice())))
    }

    /// Returns the owner in its workers' tags: the fleet, or the preview.
    pub fn owner(&self) -> Cow<'_, str> {
        match &self.preview {
            None => Cow::Borrowed(&self.file.name),
            Some(preview) => Cow::Owned(preview::owner(&self.file.name, &preview.id)),
        }
    }

    /// Returns the environments whose workers are looked at.
    pub fn environments(&self) -> &'static [Environment] {
        if self.preview.is_some() { &[Environment::Preview] } else { &Environment::ALL }
    }

    /// Returns a limit of an account; that of the paid plan for one that isn't known.
    pub fn limit(&self, account: &str, limit: Limit) -> u64 {
        let same = self.alike(account, |one, other| one.id == other.id);
        same.map(|(_, account)| account.limit(limit)).max().unwrap_or_else(|| Plan::default().limit(limit))
    }

    /// Returns the first name of an account: one account can have several entries, for a namespace each or a token
    /// each. `same` decides whether two entries are one.
    pub fn first_name<'a>(&'a self, account: &'a str, same: fn(&Account, &Account) -> bool) -> &'a str {
        self.alike(account, same).next().map_or(account, |(name, _)| name)
    }

    fn alike(&self, account: &str, same: fn(&Account, &Account) -> bool) -> impl Iterator<Item = (&str, &Account)> {
        let one = self.accounts.get(account);
        let like = move |(_, other): &(&String, &Account)| one.is_some_and(|one| same(one, other));
        self.accounts.iter().filter(like).map(|(name, account)| (name.as_str(), account))
    }

    /// Returns a hint on how to raise a limit of an account.
    pub fn raise(&self, account: &str, limit: Limit) -> String {
        let plan = self.accounts.get(account).map_or(Plan::default(), |account| account.plan);
        let (own, paid) = (plan.limit(limit), Plan::Paid.limit(limit));
        let upgrade = if own < paid { format!("`plan: paid` has {}; ", grouped(paid)) } else { String::new() };
        let key = limit.row().key;
        format!("{upgrade}if Cloudflare raised it, set `limits: {{ {key}: … }}` of the account `{account}`")
    }

    /// Returns the zone of a host name: the longest one of fleet.yaml that it ends with, or else what can be registered.
    pub fn zone_of<'a>(&'a self, host: &'a str) -> &'a str {
        let below = |zone: &&String| {
            host.strip_suffix(zone.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let listed = self.file.zones.iter().filter(below).max_by_key(|zone| zone.len());
        listed.map_or_else(|| names::zone_of(host), String::as_str)
    }
}

/// Settings that several customers share.
pub struct Layer {
    /// Its name.
    pub name: String,
    /// The rule that decides when it is used.
    pub rule: LayerRule,
    /// Its settings; of a folder of env files, those that are for all customers.
    pub documents: Vec<Document>,
    /// Its errors: while there are any, it sets nothing, and holds back the customers that use it.
    pub errors: Vec<Diagnostic>,
    /// The digest of what it sets.
    pub digest: Digest,
}

/// A customer's file, read.
pub struct Spec {
    /// The tree of the file.
    pub document: Document,
    /// The identity of the customer.
    pub identity: Identity,
    /// The id in the file, if it differs from the file's name: perhaps only the file was renamed.
    pub written: Option<String>,
    /// The layers that it uses, by their place in [`Fleet::layers`], weakest first.
    pub layers: Vec<usize>,
    /// The env files that are looked for, for this customer.
    pub env_files: Vec<EnvFile>,
}

/// A customer's own env file, or its absence.
pub struct EnvFile {
    /// The layer that it belongs to.
    pub layer: usize,
    /// The environment that it is for.
    pub environment: Environment,
    /// Its path from the project's root.
    pub file: String,
    /// Its bytes, if it is there.
    pub bytes: Option<Vec<u8>>,
    /// Its settings.
    pub document: Option<Document>,
}

/// Finds the project: the nearest folder upwards from `from` with a fleet.yaml. A folder with customers and without
/// one is a project, too, and the error reports that its fleet.yaml is missing.
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

/// Returns the folders of packs and env files that fleet.yaml names, whether or not anything else about it is right. Paths that
/// lead out of the project, or that are the project, are left out.
pub fn named_folders(tree: &Tree) -> BTreeSet<String> {
    let document = tree.plain(FLEET_FILE).ok().and_then(|bytes| yaml::parse(FLEET_FILE, &bytes).0);
    let value = document.map(|document| document.root.to_value()).unwrap_or_default();
    let named = |list: &str, key: &str| -> Vec<String> {
        let entries = value.get(list).and_then(Value::as_object).into_iter().flat_map(Map::values);
        entries.filter_map(|entry| Some(entry.get(key)?.as_str()?.trim_end_matches('/').to_owned())).collect()
    };
    let is_within = |path: &String| path.split('/').all(|step| !["", ".", ".."].contains(&step));
    [("packs", "path"), ("layers", "envFiles")]
        .into_iter()
        .flat_map(|(list, key)| named(list, key))
        .filter(is_within)
        .collect()
}

/// Reads fleet.yaml, its layers and its packs. A pack or a layer that can't be read is no error of the fleet as a
/// whole.
pub fn read_fleet(tree: &Tree) -> Result<Fleet, Vec<Diagnostic>> {
    if !tree.has(FLEET_FILE) {
        return Err(vec![Diagnostic::error(
            Code::NoFleetFile,
            Place::file(FLEET_FILE),
            "the project has no fleet.yaml",
            "write one at its root, with the lines `name: my-fleet` and `packs: { consent: { path: templates/consent } }`",
        )]);
    }
    let bytes = tree.plain(FLEET_FILE).map_err(|diagnostic| vec![*diagnostic])?;
    let (document, mut diagnostics) = yaml::parse(FLEET_FILE, &bytes);
    let Some(document) = document else {
        if diagnostics.is_empty() {
            diagnostics.push(empty(FLEET_FILE));
        }
        return Err(diagnostics);
    };
    let value = document.root.to_value();
    let keys = literal_keys(&document);
    let found = Checker::fleet().check(&document, &[], &value, "a fleet");
    // What else is wrong with a key would show it.
    let found = found.into_iter().filter(|found| keys.iter().all(|key| key.place.line != found.place.line)).collect();
    add_findings(&mut diagnostics, &document, found);
    diagnostics.extend(keys);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let file = FleetFile::deserialize(&value).map_err(|error| {
        let place = Place::file(FLEET_FILE);
        vec![Diagnostic::error(Code::WrongForm, place, error.to_string(), "see schema/fleet.schema.json")]
    })?;
    if let Some(pattern) = &file.worker_name
        && let Err((message, help)) = names::pattern(pattern, true)
    {
        diagnostics.push(Diagnostic::error(Code::BadNamePattern, document.place_of(["workerName"]), message, help));
    }
    let accounts = file.accounts.clone().unwrap_or_else(|| {
        let account = Account {
            id: AccountId::Variable { env: ACCOUNT_ID_VARIABLE.to_owned() },
            token: SecretReference { secret: TOKEN_VARIABLE.to_owned() },
            dispatch_namespace: None,
            dispatch: None,
            subdomain: None,
            plan: Plan::default(),
            limits: Limits::default(),
            api_limit: None,
        };
        BTreeMap::from([("default".to_owned(), account)])
    });
    let (mut packs, mut broken_packs) = (BTreeMap::new(), BTreeMap::new());
    for (name, reference) in &file.packs {
        let outside = reference.path.split('/').any(|step| step == "..");
        if outside || !tree.root.join(&reference.path).is_dir() {
            let error = Diagnostic::error(
                Code::BadPack,
                document.place_of(["packs", name, "path"]),
                format!("`{}` is not a folder of this project", reference.path),
                "a pack is a folder such as templates/consent",
            );
            broken_packs.insert(name.clone(), vec![error]);
            continue;
        }
        match pack::read(tree, reference.path.trim_end_matches('/')) {
            Ok(pack) => drop(packs.insert(name.clone(), pack)),
            Err(found) => drop(broken_packs.insert(name.clone(), found)),
        }
    }
    let layers = read_layers(tree, &document);
    check_secret_sources(&document, &file, &mut diagnostics);
    if !diagnostics.is_empty() {
        diagnostics.extend(broken_packs.into_values().flatten());
        diagnostics.extend(layers.into_iter().flat_map(|layer| layer.errors));
        return Err(diagnostics);
    }
    let decides = fleet_digest(&document.root, &packs);
    let raw = Framed::new("fleet.yaml").field(&bytes).finish();
    let labels = serde_json::from_value(value["defaults"]["labels"].clone()).unwrap_or_default();
    Ok(Fleet { document, file, accounts, packs, broken_packs, layers, labels, decides, raw, preview: None })
}

/// Adds what a schema finds in a document, and its empty values where the schema has nothing against them.
fn add_findings(diagnostics: &mut Vec<Diagnostic>, document: &Document, found: Vec<Diagnostic>) {
    let is_new = |empty: &Diagnostic| found.iter().all(|found| found.place.line != empty.place.line);
    let empty: Vec<Diagnostic> = empty_values(document).into_iter().filter(is_new).collect();
    add_unreported(diagnostics, found);
    add_unreported(diagnostics, empty);
}

/// Returns the digest of everything in fleet.yaml and the packs that decides how customers are resolved: neither comments, nor
/// settings for deploys alone.
fn fleet_digest(root: &Node, packs: &BTreeMap<String, Pack>) -> Digest {
    let mut digest = Framed::new("fleet");
    let entries = if let Kind::Map(entries) = &root.kind { entries.as_slice() } else { &[] };
    for (key, _, node) in entries {
        let value = match key.as_str() {
            "deploy" | "previews" => continue,
            "accounts" => accounts_that_decide(node),
            // Values are no part of what is resolved, wherever they come from; the names that specs may use are.
            "secrets" => names_that_decide(node),
            // The order of layers decides, and within one that of a list and what is appended to it.
            _ => node.in_order(),
        };
        digest = digest.field(key.as_bytes()).field(value.as_bytes());
    }
    for (name, pack) in packs {
        digest = digest.field(name.as_bytes()).field(pack.manifest.prefix.as_bytes());
        digest = digest.field(&serde_json::to_vec(&pack.catalogue).expect("BUG: a catalogue is JSON"));
        for kind in pack.types.values() {
            digest = digest.field(&serde_json::to_vec(&kind.required_consent).expect("BUG: consents are JSON"));
        }
    }
    digest.finish()
}

fn accounts_that_decide(node: &Node) -> String {
    let mut accounts = node.to_value();
    for account in accounts.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(account) = account.as_object_mut() {
            let decide = ["id", "token", "dispatchNamespace", "dispatch", "subdomain", "plan", "limits"];
            account.retain(|key, _| decide.contains(&key.as_str()));
        }
    }
    accounts.to_string()
}

fn names_that_decide(node: &Node) -> String {
    let mut sources = node.to_value();
    for source in sources.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        source.retain(|key, _| ["age", "identity", "purpose", "names"].contains(&key.as_str()));
    }
    sources.to_string()
}

/// Reports keys to encrypted files that fleet.yaml holds themselves.
fn literal_keys(document: &Document) -> Vec<Diagnostic> {
    fn walk(node: &Node, document: &Document, found: &mut Vec<Diagnostic>) {
        match &node.kind {
            Kind::Text(text) if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") => {
                let help = "take it out here, and name the variable or the file that holds it: `identity: { env: FLOTILLA_AGE_KEY }`; \
                            if it was ever committed, replace it and what it opens";
                let message = "an age identity stands in the file";
                found.push(Diagnostic::error(Code::LiteralSecret, document.place(node.span), message, help));
            }
            Kind::Map(entries) => entries.iter().for_each(|(_, _, node)| walk(node, document, found)),
            Kind::List(items) => items.iter().for_each(|node| walk(node, document, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(node) = document.root.get("secrets") {
        walk(node, document, &mut found);
    }
    found
}

/// Checks what the schema doesn't: that the sources of secrets can be used.
fn check_secret_sources(document: &Document, file: &FleetFile, diagnostics: &mut Vec<Diagnostic>) {
    for (at, source) in file.secrets.iter().flatten().enumerate() {
        let at = at.to_string();
        let place = |key| document.place_of(["secrets", at.as_str(), key]);
        if let Some((key, only)) = source.misplaced() {
            let message = format!("`{key}` belongs to sources with `{only}` alone");
            diagnostics.push(Diagnostic::error(Code::Conflict, place(key), message, "take it out"));
        }
        let mut wrong = |key, message: String, help: &str| {
            diagnostics.push(Diagnostic::error(Code::BadSecretSource, place(key), message, help));
        };
        if let Some((key, path)) = source.path() {
            if path.split('/').any(|step| step == "..") {
                let help = "name a file of the project, or write an absolute path";
                wrong(key, format!("`{path}` leads out of the project"), help);
            } else if path.replace("{environment}", "").contains(['{', '}']) {
                wrong(
                    key,
                    format!("`{path}` has another placeholder than `{{environment}}`"),
                    "only that one is replaced",
                );
            }
        }
        if source.age.is_some() && source.identity.is_none() {
            let help = "add the variable or the file with the key that opens it: `identity: { env: FLOTILLA_AGE_KEY }`";
            wrong("age", "nothing says what opens the file".to_owned(), help);
        }
        if let Some(command) = &source.command {
            if command.first().is_none_or(|program| program.is_empty() || program.contains('{')) {
                wrong("command", "it begins with no program".to_owned(), "name the program first, then its arguments");
            } else if !command.iter().any(|argument| argument.contains("{name}")) {
                let help = "write `{name}` where the secret's name belongs: `[vault, kv, get, \"-field={name}\", secret/fleet]`";
                wrong("command", "it would print the same value for every secret".to_owned(), help);
            }
        }
    }
}

/// Reads the layers. One that can't be used holds back the customers that use it, and nobody else.
fn read_layers(tree: &Tree, fleet: &Document) -> Vec<Layer> {
    let Some(Kind::Map(entries)) = fleet.root.get("layers").map(|node| &node.kind) else { return Vec::new() };
    let checker = Checker::layer();
    let read = |(name, span, node): &(String, Span, Node)| {
        let value = node.to_value();
        let rule =
            if value.is_null() { LayerRule::default() } else { LayerRule::deserialize(&value).unwrap_or_default() };
        let mut reader = LayerReader {
            tree,
            documents: Vec::new(),
            errors: Vec::new(),
            digest: Framed::new("layer").field(name.as_bytes()),
        };
        match &rule.env_files {
            Some(folder) => reader.env_files(folder, &fleet.place_of(["layers", name, "envFiles"])),
            None => reader.file(&format!("{LAYERS}/{name}.yaml"), &fleet.place(*span), checker),
        }
        let LayerReader { documents, errors, digest, .. } = reader;
        let documents = if errors.is_empty() { documents } else { Vec::new() };
        Layer { name: name.clone(), rule, documents, errors, digest: digest.finish() }
    };
    entries.iter().map(read).collect()
}

/// A layer while it is read.
struct LayerReader<'a> {
    tree: &'a Tree,
    documents: Vec<Document>,
    errors: Vec<Diagnostic>,
    digest: Framed,
}

impl LayerReader<'_> {
    /// Reads the env files that are for all customers.
    fn env_files(&mut self, folder: &str, place: &Place) {
        let mut bad = |message: String, help: &str| {
            self.errors.push(Diagnostic::error(Code::BadLayer, place.clone(), message, help));
        };
        if folder.split('/').any(|step| step == "..") {
            bad(format!("`{folder}` is not a folder of this project"), "name a folder within it, without `..`");
            return;
        }
        if !self.tree.root.join(folder).is_dir() {
            bad(format!("there is no folder `{folder}`"), "name a folder with base/ and customers/ in it");
        }
        let base = format!("{folder}/base");
        let names = self.tree.names(&base).unwrap_or_default();
        for name in names.iter().filter(|name| name.ends_with(".env")) {
            let file = format!("{base}/{name}");
            let Some(bytes) = self.bytes(&file) else { continue };
            let (document, found) = envfile::parse(&file, &bytes);
            self.errors.extend(found);
            self.digest(&bytes);
            self.documents.push(document);
        }
    }

    /// Reads the file of its settings.
    fn file(&mut self, file: &str, place: &Place, checker: &Checker) {
        if !self.tree.has(file) {
            let help = format!("write {file}, with what its customers share, or take the layer out here");
            self.errors.push(Diagnostic::error(Code::BadLayer, place.clone(), format!("there is no {file}"), help));
            return;
        }
        let Some(bytes) = self.bytes(file) else { return };
        let (document, found) = yaml::parse(file, &bytes);
        self.errors.extend(found);
        let Some(document) = document else { return self.digest(&bytes) };
        let value = document.root.to_value();
        add_findings(&mut self.errors, &document, checker.check(&document, &[], &value, "a layer"));
        match self.errors.is_empty() {
            true => self.digest(document.root.in_order().as_bytes()),
            // What was wrong with it is no part of its values.
            false => self.digest(&bytes),
        }
        self.documents.push(document);
    }

    fn bytes(&mut self, file: &str) -> Option<Vec<u8>> {
        let read = self.tree.plain(file);
        read.map_err(|diagnostic| self.errors.push(*diagnostic)).ok()
    }

    fn digest(&mut self, bytes: &[u8]) {
        self.digest = self.digest.clone().field(bytes);
    }
}

/// The files under customers/.
#[derive(Debug, Default)]
pub struct SpecFiles {
    /// The customers' files, sorted by name.
    pub files: Vec<String>,
    /// An error for each file that looks like a spec and isn't read: its customer would count as removed.
    pub unread: Vec<Diagnostic>,
}

/// The endings of files that hold values, and are no specs.
const VALUES: [&str; 4] = ["json", "jsonc", "json5", "toml"];
/// The number of folders in each other that are searched for specs.
const DEEPEST: usize = 8;
/// The number of files that aren't read, of which each is named.
const UNREAD: usize = 100;

/// Returns the files under customers/.
pub fn spec_files(tree: &Tree) -> Result<SpecFiles, Vec<Diagnostic>> {
    let missing = |message: String| {
        vec![Diagnostic::error(
            Code::NoCustomers,
            Place::file(CUSTOMERS),
            message,
            "write customers/acme.yaml with the line `id: acme` to begin",
        )]
    };
    let names =
        tree.names(CUSTOMERS).map_err(|error| missing(format!("the folder of customers can't be read: {error}")))?;
    let mut found = SpecFiles::default();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        let file = format!("{CUSTOMERS}/{name}");
        match ending(name).as_str() {
            "yaml" | "yml" => found.files.push(file),
            ending if VALUES.contains(&ending) => found.unread.push(unread(&file)),
            _ => found.unread.extend(unread_below(tree, &file, DEEPEST)),
        }
    }
    found.unread.truncate(UNREAD);
    if found.files.is_empty() && found.unread.is_empty() {
        return Err(missing("there are no customers".to_owned()));
    }
    Ok(found)
}

/// Returns an error for each file of layers/ that no layer of fleet.yaml reads.
pub fn unread_layers(tree: &Tree, fleet: &Fleet) -> Vec<Diagnostic> {
    let is_read = |name: &str| {
        fleet
            .layers
            .iter()
            .any(|layer| layer.rule.env_files.is_none() && name.strip_suffix(".yaml") == Some(&layer.name))
    };
    let mut found = Vec::new();
    for name in tree.names(LAYERS).unwrap_or_default().iter().filter(|name| !name.starts_with('.') && !is_read(name)) {
        let file = format!("{LAYERS}/{name}");
        if ["yaml", "yml"].contains(&ending(name).as_str()) {
            let name = id_of(name);
            let help = match name.is_empty() || fleet.layers.iter().any(|layer| layer.name == name) {
                true => "a layer is a file layers/NAME.yaml: put the two files together".to_owned(),
                false => format!("add `{name}:` to `layers` in fleet.yaml, or move the file out of layers/"),
            };
            let message = "no layer of fleet.yaml reads this file";
            found.push(Diagnostic::error(Code::Unread, Place::file(&file), message, help));
        } else {
            found.extend(unread_below(tree, &file, DEEPEST));
        }
    }
    found.truncate(UNREAD);
    found
}

/// Returns an error for each file in the folders of env files that nobody reads: not for all customers, and not for one that uses the
/// layer. `uses`: whether a customer uses a layer; nothing where that isn't known.
pub fn unread_env_files(
    tree: &Tree,
    fleet: &Fleet,
    uses: impl Fn(&str, &str) -> Option<bool> + Sync,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for layer in &fleet.layers {
        let Some(folder) = layer.rule.env_files.as_deref().filter(|_| layer.errors.is_empty()) else { continue };
        let folder = folder.trim_end_matches('/');
        let (base, customers) = (format!("{folder}/base"), format!("{folder}/customers"));
        for name in
            values_in(tree, &base).filter(|name| !name.ends_with(".env") || tree.has_files(&format!("{base}/{name}")))
        {
            found.push(unread_env_file(
                &format!("{base}/{name}"),
                "files for all customers are `.env` files in this folder: rename it, or move it out of the folder",
            ));
        }
        let names = tree.names(&customers).unwrap_or_default();
        let of_one = |name: &String| -> Vec<Diagnostic> {
            let below = format!("{customers}/{name}");
            if name.starts_with('.') {
                return Vec::new();
            }
            if !tree.has_files(&below) {
                let help = format!(
                    "a customer's files are in a folder of its id: move it to {customers}/{}/production.env",
                    id_of_any(name)
                );
                return if holds_values(name) { vec![unread_env_file(&below, &help)] } else { Vec::new() };
            }
            match uses(name, &layer.name) {
                None => return Vec::new(),
                Some(false) => {
                    let help = format!(
                        "the customer {name} isn't there, or doesn't use the layer `{0}`: add `{0}` to `layers` of its spec, or move the files out",
                        layer.name
                    );
                    let files = values_in(tree, &below);
                    return files.map(|file| unread_env_file(&format!("{below}/{file}"), &help)).collect();
                }
                Some(true) => {}
            }
            let is_read =
                |file: &String| Environment::ALL.iter().any(|environment| *file == format!("{environment}.env"));
            let files = values_in(tree, &below).filter(|file| !is_read(file));
            let help = "a customer's files are production.env, staging.env and development.env: rename it, or move it out of the folder";
            files.map(|file| unread_env_file(&format!("{below}/{file}"), help)).collect()
        };
        found.par_extend(names.par_iter().flat_map_iter(of_one));
    }
    found.sort_by(|a, b| a.place.cmp(&b.place));
    found.truncate(UNREAD);
    found
}

/// Returns the names in a folder of files that hold values, and of folders.
fn values_in(tree: &Tree, folder: &str) -> impl Iterator<Item = String> {
    let names = tree.names(folder).unwrap_or_default();
    let of_values =
        |name: &String| !name.starts_with('.') && (holds_values(name) || tree.has_files(&format!("{folder}/{name}")));
    names.into_iter().filter(of_values).collect::<Vec<_>>().into_iter()
}

/// Returns whether a file holds values, by its name: `production.env`, `production.env.old` and `production.yaml` do, a README doesn't.
fn holds_values(name: &str) -> bool {
    let ending = ending(name);
    name.split('.').any(|part| part == "env")
        || ["yaml", "yml"].contains(&ending.as_str())
        || VALUES.contains(&ending.as_str())
}

fn unread_env_file(file: &str, help: &str) -> Diagnostic {
    let message = "no customer reads this file";
    Diagnostic::error(Code::Unread, Place::file(file), message, help)
}

fn ending(name: &str) -> String {
    name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase()
}

/// Returns an error for each file in a folder that looks like a spec or a layer.
fn unread_below(tree: &Tree, folder: &str, deepest: usize) -> Vec<Diagnostic> {
    let names = if deepest > 0 && tree.has_files(folder) { tree.names(folder).unwrap_or_default() } else { Vec::new() };
    let mut found = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')).take(UNREAD) {
        let file = format!("{folder}/{name}");
        let ending = ending(name);
        match ending == "yaml" || ending == "yml" || VALUES.contains(&ending.as_str()) {
            true if !tree.has_files(&file) => found.push(unread(&file)),
            _ => found.extend(unread_below(tree, &file, deepest - 1)),
        }
    }
    found
}

fn unread(file: &str) -> Diagnostic {
    let stem = id_of_any(file);
    let folder = file.split_once('/').map_or(file, |(folder, _)| folder);
    let is_below = file.matches('/').count() > 1;
    let message = match is_below {
        true => format!("this file is in a folder of {folder}/, and isn't read"),
        false => "this file isn't read: specs are `.yaml` files".to_owned(),
    };
    let help = match VALUES.contains(&ending(file).as_str()) {
        true => format!(
            "YAML takes JSON as it is: if it is a spec, rename it to {folder}/{stem}.yaml; otherwise move it out of {folder}/"
        ),
        false => format!("move it to {folder}/{stem}.yaml, or out of {folder}/"),
    };
    Diagnostic::error(Code::Unread, Place::file(file), message, help)
}

/// Returns the folder of a preview, from the project's root.
pub fn preview_folder(id: &str) -> String {
    format!("{PREVIEWS}/{id}")
}

/// Returns the id that a spec's file name gives it.
pub fn id_of(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
}

/// Returns the id that the name of any file would give a spec, whatever its ending.
pub fn id_of_any(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Reads one customer's file. Beside diagnostics there can be a spec without the parts that can't be read: the other
/// errors in it are found in the same run.
pub fn read_spec(tree: &Tree, fleet: Option<&Fleet>, file: &str, bytes: &[u8], checker: &Checker) -> Reading {
    let (document, mut diagnostics) = yaml::parse(file, bytes);
    let Some(mut document) = document else {
        if diagnostics.is_empty() {
            diagnostics.push(empty(file));
        }
        return Reading { spec: None, diagnostics };
    };
    let value = document.root.to_value();
    add_findings(&mut diagnostics, &document, checker.check(&document, &[], &value, "a customer"));
    let expected = id_of(file);
    let mut written = None;
    if let Some(id) = value["id"].as_str()
        && id != expected
    {
        written = Some(id.to_owned());
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
    if !diagnostics.is_empty() {
        complete_destinations(&mut document.root);
    }
    if !diagnostics.is_empty()
        && let Kind::Map(entries) = &mut document.root.kind
    {
        entries.retain(|(key, _, node)| {
            let alone = Value::Object(
                [("id".to_owned(), expected.into()), (key.clone(), node.to_value())].into_iter().collect(),
            );
            // Half a database is none: what is missing in it is told already.
            let crowd = key == "workers" && alone[key].as_object().is_some_and(|all| all.len() > WORKERS_PER_CUSTOMER);
            key == "id" || (typed(&alone) && !crowd && (key != "database" || checker.is_valid(&alone)))
        });
    }
    let value = if diagnostics.is_empty() { value } else { document.root.to_value() };
    let identity = match Identity::deserialize(&value) {
        // The file's name is what its folder in out/ is called after.
        Ok(identity) => Identity { id: expected.to_owned(), ..identity },
        Err(_) => Identity { id: expected.to_owned(), ..Identity::default() },
    };
    let mut spec = Spec { identity, document, written, layers: Vec::new(), env_files: Vec::new() };
    if let Some(fleet) = fleet {
        layers_of(fleet, &mut spec, &mut diagnostics);
        env_files_of(tree, fleet, &mut spec, &mut diagnostics);
    }
    Reading { spec: Some(spec), diagnostics }
}

/// The result of reading a customer's file.
pub struct Reading {
    /// The spec, as far as it could be read.
    pub spec: Option<Spec>,
    /// Its errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Makes each destination in a file with errors readable, so that one which isn't hides nothing of the others, nor of its own settings.
/// A name or a type that is missing stands where its destination does, where an error is reported already.
fn complete_destinations(node: &mut Node) {
    let Kind::Map(entries) = &mut node.kind else { return };
    for (key, _, node) in entries {
        match &mut node.kind {
            Kind::List(items) if key.trim_end_matches('+') == "destinations" => {
                items.iter_mut().enumerate().for_each(|(index, item)| complete_destination(index, item));
            }
            Kind::Map(_) => complete_destinations(node),
            _ => {}
        }
    }
}

fn complete_destination(index: usize, item: &mut Node) {
    let is_readable = |value: Value| Destination::deserialize(&value).is_ok();
    if is_readable(item.to_value()) {
        return;
    }
    let span = item.span;
    let Kind::Map(entries) = &mut item.kind else { return };
    for key in ["name", "type"] {
        let text = || Kind::Text(format!("destinations[{index}]"));
        match entries.iter_mut().find(|(name, ..)| name == key) {
            Some((_, _, node)) if matches!(node.kind, Kind::Text(_)) => {}
            Some((_, _, node)) => node.kind = text(),
            None => entries.push((key.to_owned(), span, Node { span, kind: text() })),
        }
    }
    entries.retain(|(key, _, node)| {
        let name = || Value::from("x");
        let mut alone: Map<String, Value> =
            [("name".to_owned(), name()), ("type".to_owned(), name())].into_iter().collect();
        alone.insert(key.clone(), node.to_value());
        is_readable(Value::Object(alone))
    });
}

fn typed(value: &Value) -> bool {
    Identity::deserialize(value).is_ok()
        && Assignment::deserialize(value).is_ok()
        && Roles::deserialize(value).is_ok()
        && Settings::deserialize(value).is_ok()
}

/// The layers of a customer: those that its labels choose, in the order of fleet.yaml, then those that it lists.
fn layers_of(fleet: &Fleet, spec: &mut Spec, diagnostics: &mut Vec<Diagnostic>) {
    if fleet.layers.is_empty() && spec.identity.layers.is_none() {
        return;
    }
    let labels = labels(fleet, &spec.identity);
    let listed = spec.identity.layers.clone().unwrap_or_default();
    let chosen = |layer: &Layer| {
        let when = layer.rule.when.as_ref();
        when.is_some_and(|when| when.iter().all(|(key, wanted)| labels.get(key).is_some_and(|value| wanted.has(value))))
    };
    spec.layers = (0..fleet.layers.len())
        .filter(|index| chosen(&fleet.layers[*index]) && !listed.contains(&fleet.layers[*index].name))
        .collect();
    for (index, name) in listed.iter().enumerate() {
        match fleet.layers.iter().position(|layer| layer.name == *name) {
            Some(layer) => spec.layers.push(layer),
            None => {
                let place = spec.document.place_of(["layers", &index.to_string()]);
                let known = fleet.layers.iter().map(|layer| layer.name.as_str());
                diagnostics.push(unknown("layer", name, place, known));
            }
        }
    }
}

fn env_files_of(tree: &Tree, fleet: &Fleet, spec: &mut Spec, diagnostics: &mut Vec<Diagnostic>) {
    for layer in spec.layers.clone() {
        let Some(folder) = &fleet.layers[layer].rule.env_files else { continue };
        for environment in Environment::ALL {
            let file = format!("{folder}/customers/{}/{environment}.env", spec.identity.id);
            let document = if tree.has(&file) {
                match tree.plain(&file) {
                    Ok(bytes) => {
                        let (document, found) = envfile::parse(&file, &bytes);
                        diagnostics.extend(found);
                        Some((document, bytes))
                    }
                    Err(diagnostic) => {
                        diagnostics.push(*diagnostic);
                        None
                    }
                }
            } else {
                None
            };
            let (document, bytes) = document.unzip();
            spec.env_files.push(EnvFile { layer, environment, file, bytes, document });
        }
    }
}

/// Returns the labels of a customer: the fleet's defaults, and its own over them.
pub fn labels(fleet: &Fleet, identity: &Identity) -> BTreeMap<String, String> {
    let mut labels = fleet.labels.clone();
    labels.extend(identity.labels.clone().unwrap_or_default());
    labels
}

/// Returns a name that nothing has, with what was probably meant.
pub fn unknown<'a>(what: &str, name: &str, place: Place, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let help = match did_you_mean(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match known.collect::<Vec<_>>() {
            known if known.is_empty() => format!("there is no {what} at all"),
            known => format!("known: {}", known.join(", ")),
        },
    };
    Diagnostic::error(Code::UnknownName, place, format!("there is no {what} `{name}`"), help)
}

/// Returns whether a text has the form of an id; its length is the schema's business.
fn is_id(text: &str) -> bool {
    names::label(text).is_ok()
}

fn empty(file: &str) -> Diagnostic {
    let help = if file == FLEET_FILE {
        "it begins with `name: my-fleet`".to_owned()
    } else {
        format!("it begins with `id: {}`", id_of(file))
    };
    Diagnostic::error(Code::EmptyFile, Place::file(file), "the file is empty", help)
}
