//! fleet.yaml: reads it with the layers and packs that it names. Knows no customers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::layers::{Layer, read_layers};
use super::{ACCOUNT_ID_VARIABLE, FLEET_FILE, TOKEN_VARIABLE, add_findings, empty};
use crate::pack::{self, Pack};
use crate::schema::Checker;
use crate::tree::Tree;
use crate::yaml::{self, Document, Kind, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::limits::{Limit, Limits, Plan, grouped};
use flotilla_model::names;
use flotilla_model::preview::{self, Preview};
use flotilla_model::spec::{Account, AccountId, Environment, FleetFile, SecretReference};

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

/// Reads fleet.yaml, its layers and its packs. A pack or a layer that can't be read is no error of the fleet as a
/// whole.
pub fn read_fleet(tree: &Tree) -> Result<Fleet, Vec<Diagnostic>> {
    if !tree.has(FLEET_FILE) {
        return Err(vec![Diagnostic::error(
            Code::NoFleetFile,
            Place::file(FLEET_FILE),
            "the project has no fleet.yaml",
            "create one in the project's root with the lines `name: my-fleet` and `packs: { consent: { path: templates/consent } }`",
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
                let help = "remove it here, and name the variable or the file that holds it: `identity: { env: FLOTILLA_AGE_KEY }`; if it was ever committed, replace it and everything it decrypts";
                let message = "the file contains an age identity";
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
            let message = format!("`{key}` is only for sources with `{only}`");
            diagnostics.push(Diagnostic::error(Code::Conflict, place(key), message, "remove it"));
        }
        let mut wrong = |key, message: String, help: &str| {
            diagnostics.push(Diagnostic::error(Code::BadSecretSource, place(key), message, help));
        };
        if let Some((key, path)) = source.path() {
            if path.split('/').any(|step| step == "..") {
                let help = "name a file of the project, or write an absolute path";
                wrong(key, format!("`{path}` is outside of the project"), help);
            } else if path.replace("{environment}", "").contains(['{', '}']) {
                wrong(
                    key,
                    format!("`{path}` has a placeholder other than `{{environment}}`"),
                    "only `{environment}` is replaced",
                );
            }
        }
        if source.age.is_some() && source.identity.is_none() {
            let help = "add the variable or the file with the key that opens it: `identity: { env: FLOTILLA_AGE_KEY }`";
            wrong("age", "nothing names the key that decrypts the file".to_owned(), help);
        }
        if let Some(command) = &source.command {
            if command.first().is_none_or(|program| program.is_empty() || program.contains('{')) {
                wrong(
                    "command",
                    "it doesn't start with a program".to_owned(),
                    "name the program first, then its arguments",
                );
            } else if !command.iter().any(|argument| argument.contains("{name}")) {
                let help = "write `{name}` where the secret's name belongs: `[vault, kv, get, \"-field={name}\", secret/fleet]`";
                wrong("command", "it would print the same value for every secret".to_owned(), help);
            }
        }
    }
}
