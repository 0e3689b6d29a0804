//! fleet.yaml: reads it with the layers and packs that it names. Knows no customers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::layers::{Layer, read_layers};
use super::{ACCOUNT_ID_VARIABLE, FLEET_FILE, TOKEN_VARIABLE, add_findings, empty};
use crate::accounts::Accounts;
use crate::leave_out::{leave_out, mark_key};
use crate::pack::{self, BrokenPack, Pack};
use crate::schema::Checker;
use crate::tree::Tree;
use crate::yaml::{self, Document, Kind, Node};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::{Digest, Framed};
use flotilla_model::limits::{Limit, Limits, Plan};
use flotilla_model::names;
use flotilla_model::preview::{self, Preview};
use flotilla_model::spec::{Account, AccountId, FleetFile, SecretReference};
use flotilla_model::text::grouped;

/// fleet.yaml, read, with the layers and packs that it names.
pub struct Fleet {
    /// The tree of the file, for places.
    pub document: Document,
    /// The file.
    pub file: FleetFile,
    /// The accounts by name. Customers' own are among them as soon as the specs were scanned.
    pub accounts: Accounts,
    /// The packs by name.
    pub packs: BTreeMap<String, Pack>,
    /// The packs that can't be used, by name. They only stop the customers that use them.
    pub broken_packs: BTreeMap<String, BrokenPack>,
    /// The layers, weakest first.
    pub layers: Vec<Layer>,
    /// The labels that all customers have unless they say otherwise.
    pub labels: BTreeMap<String, String>,
    /// The digest of what of fleet.yaml and the packs decides how customers are resolved.
    pub decides: Digest,
    /// The digest of the file's bytes.
    pub raw: Digest,
    /// The preview that is handled, if it isn't the fleet itself.
    pub preview: Option<Preview>,
    /// Whether something of fleet.yaml was left out as faulty. Such a fleet is checked, and never built or deployed.
    pub is_partial: bool,
    /// The entries of `diagnostics` that were left out as faulty.
    pub left_out_rules: LeftOutRules,
}

/// The entries of `diagnostics` in fleet.yaml that were left out as faulty: the severity of the warnings that they are about is unknown.
#[derive(Clone, Debug, Default)]
pub struct LeftOutRules {
    /// The codes that they are about, as far as they can be read.
    pub codes: BTreeSet<Code>,
    /// Whether there is one of which that can't be read.
    pub any: bool,
}

/// The result of reading fleet.yaml with its layers and packs.
pub struct FleetReading {
    /// The fleet without what is faulty in fleet.yaml; `None` if it can't be read at all.
    pub fleet: Option<Fleet>,
    /// The errors in fleet.yaml itself. Those of packs and layers are in the fleet.
    pub errors: Vec<Diagnostic>,
}

impl Fleet {
    /// Returns the broken parts that customers can need, by name, each with its errors: packs and layers.
    pub fn broken_parts(&self) -> impl Iterator<Item = (String, &[Diagnostic])> {
        let packs = self.broken_packs.iter().map(|(name, pack)| (name.clone(), pack.errors.as_slice()));
        let layers = self.layers.iter().filter(|layer| !layer.errors.is_empty());
        packs.chain(layers.map(|layer| (layer.part(), layer.errors.as_slice())))
    }

    /// Returns whether what is at a path of fleet.yaml was left out as faulty, or anything in it: its value is unknown.
    pub fn has_left_out(&self, path: &[&str]) -> bool {
        let mut node = &self.document.root;
        for step in path.iter().filter(|_| self.is_partial) {
            match node.get(step) {
                Some(next) if !next.is_left_out() => node = next,
                next => return next.is_some(),
            }
        }
        self.is_partial && node.has_left_out()
    }

    /// Returns whether a map of fleet.yaml, such as `accounts`, was left out as a whole, so that it isn't known what is in it.
    pub fn lacks(&self, key: &str) -> bool {
        self.is_partial && self.document.root.get(key).is_some_and(Node::is_left_out)
    }

    /// Returns the owner in its workers' tags: the fleet, or the preview.
    pub fn owner(&self) -> Cow<'_, str> {
        match &self.preview {
            None => Cow::Borrowed(&self.file.name),
            Some(preview) => Cow::Owned(preview::owner(&self.file.name, &preview.id)),
        }
    }

    /// Returns a limit of an account; that of the paid plan for one that isn't known.
    pub fn limit(&self, account: &str, limit: Limit) -> u64 {
        let account = self.accounts.get(account);
        account.map_or_else(|| Plan::default().limit(limit), |account| self.limit_of(account, limit))
    }

    /// Returns a limit of an account, of which fleet.yaml can have several entries.
    pub fn limit_of(&self, account: &Account, limit: Limit) -> u64 {
        let listed = self.accounts.listed_with(&account.id);
        listed.map(|(_, other)| other.limit(limit)).fold(account.limit(limit), u64::max)
    }

    /// Returns the first name of an account: one account can have several entries, for a namespace each or a token
    /// each. `same` decides whether two entries are one.
    pub fn first_name<'a>(&'a self, account: &'a str, same: fn(&Account, &Account) -> bool) -> &'a str {
        let Some(one) = self.accounts.get(account) else { return account };
        self.accounts.with_id(&one.id).find(|(_, other)| same(one, other)).map_or(account, |(name, _)| name)
    }

    /// Returns a hint on how to raise a limit of an account.
    pub fn raise(&self, account: &str, limit: Limit) -> String {
        self.raise_of(account, self.accounts.get(account), limit)
    }

    /// Returns a hint on how to raise a limit of an account of this name.
    pub fn raise_of(&self, name: &str, account: Option<&Account>, limit: Limit) -> String {
        let plan = account.map_or(Plan::default(), |account| account.plan);
        let (own, paid) = (plan.limit(limit), Plan::Paid.limit(limit));
        let upgrade = if own < paid { format!("`plan: paid` has {}; ", grouped(paid)) } else { String::new() };
        let key = limit.row().key;
        format!("{upgrade}if Cloudflare has raised the limit, set `limits: {{ {key}: … }}` of the account `{name}`")
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
    match read_fleet_in_part(tree) {
        FleetReading { fleet: Some(fleet), errors } if errors.is_empty() => Ok(fleet),
        FleetReading { fleet, mut errors } => {
            errors.extend(fleet.iter().flat_map(Fleet::broken_parts).flat_map(|(_, errors)| errors).cloned());
            Err(errors)
        }
    }
}

/// Reads fleet.yaml, its layers and its packs. What is faulty in fleet.yaml is left out, in the smallest parts, so that the rest of the
/// project can be checked all the same.
pub fn read_fleet_in_part(tree: &Tree) -> FleetReading {
    let failed = |errors: Vec<Diagnostic>| FleetReading { fleet: None, errors };
    if !tree.has(FLEET_FILE) {
        return failed(vec![Diagnostic::error(
            Code::NoFleetFile,
            Place::file(FLEET_FILE),
            "the project has no fleet.yaml",
            "create one in the project's root with the lines `name: my-fleet` and `packs: { consent: { path: templates/consent } }`",
        )]);
    }
    let bytes = match tree.plain(FLEET_FILE) {
        Ok(bytes) => bytes,
        Err(diagnostic) => return failed(vec![*diagnostic]),
    };
    let (document, mut errors) = yaml::parse(FLEET_FILE, &bytes);
    let Some(mut document) = document else {
        if errors.is_empty() {
            errors.push(empty(FLEET_FILE));
        }
        return failed(errors);
    };
    let value = document.root.to_value();
    let keys = literal_keys(&document);
    let found = Checker::fleet().check(&document, &[], &value, "a fleet");
    // What else is wrong with a key would show it.
    let found = found.into_iter().filter(|found| keys.iter().all(|key| key.place.line != found.place.line)).collect();
    add_findings(&mut errors, &document, found);
    errors.extend(keys);
    let mut left_out_rules = LeftOutRules::default();
    let is_partial = !errors.is_empty();
    if is_partial {
        let written = document.root.clone();
        let more = leave_out(&mut document, &errors, Checker::fleet(), "a fleet");
        errors.extend(more);
        if !matches!(document.root.kind, Kind::Map(_)) {
            return failed(errors);
        }
        for key in ["name", "packs"] {
            if document.root.get(key).is_none() {
                mark_key(&mut document, key);
            }
        }
        left_out_rules = LeftOutRules::of(&written, document.root.get("diagnostics"));
    }
    let file = match FleetFile::deserialize(&readable(&document.root)) {
        Ok(file) => file,
        Err(error) => {
            let place = Place::file(FLEET_FILE);
            errors.push(Diagnostic::error(Code::WrongForm, place, error.to_string(), "see schema/fleet.schema.json"));
            return failed(errors);
        }
    };
    let fleet = read_parts(tree, document, file, &bytes, &mut errors);
    FleetReading { fleet: Some(Fleet { is_partial: !errors.is_empty(), left_out_rules, ..fleet }), errors }
}

/// Returns the fleet of a project whose fleet.yaml can't be read at all: it names nothing. For commands that look at what the state knows.
pub fn unknown_fleet(tree: &Tree) -> Fleet {
    let text = b"name: fleet\npacks: {}\naccounts: {}\n";
    let document = yaml::parse(FLEET_FILE, text).0.expect("BUG: it is YAML");
    let file = FleetFile::deserialize(&document.root.to_value()).expect("BUG: it is a fleet");
    Fleet { is_partial: true, ..read_parts(tree, document, file, text, &mut Vec::new()) }
}

/// Returns fleet.yaml as JSON, with something in place of the required keys that were left out.
fn readable(root: &Node) -> Value {
    let mut value = root.to_value();
    if let Some(map) = value.as_object_mut() {
        map.entry("name").or_insert_with(|| "fleet".into());
        map.entry("packs").or_insert_with(|| Map::new().into());
    }
    value
}

/// Checks what the schema doesn't, and reads the packs and layers that the file names.
fn read_parts(
    tree: &Tree,
    mut document: Document,
    file: FleetFile,
    bytes: &[u8],
    errors: &mut Vec<Diagnostic>,
) -> Fleet {
    if let Some(pattern) = &file.worker_name
        && let Err((message, help)) = names::pattern(pattern, true)
    {
        errors.push(Diagnostic::error(Code::BadNamePattern, document.place_of(["workerName"]), message, help));
        mark_key(&mut document, "workerName");
    }
    let accounts = Accounts::new(file.accounts.clone().unwrap_or_else(|| match document.root.get("accounts") {
        Some(_) => BTreeMap::new(),
        None => BTreeMap::from([("default".to_owned(), default_account())]),
    }));
    let (mut packs, mut broken_packs) = (BTreeMap::new(), BTreeMap::new());
    if let Some(Kind::Map(entries)) = document.root.get("packs").map(|node| &node.kind) {
        let left_out = entries.iter().filter(|(_, _, node)| node.is_left_out());
        broken_packs.extend(left_out.map(|(name, ..)| (name.clone(), BrokenPack::default())));
    }
    for (name, reference) in &file.packs {
        let outside = reference.path.split('/').any(|step| step == "..");
        if outside || !tree.root.join(&reference.path).is_dir() {
            let error = Diagnostic::error(
                Code::BadPack,
                document.place_of(["packs", name, "path"]),
                format!("`{}` is not a folder of this project", reference.path),
                "a pack is a folder such as templates/consent",
            );
            broken_packs.insert(name.clone(), BrokenPack { errors: vec![error], ..BrokenPack::default() });
            continue;
        }
        match pack::read(tree, reference.path.trim_end_matches('/')) {
            Ok(pack) => drop(packs.insert(name.clone(), pack)),
            Err(broken) => drop(broken_packs.insert(name.clone(), *broken)),
        }
    }
    let layers = read_layers(tree, &document);
    check_secret_sources(&document, &file, errors);
    let decides = fleet_digest(&document.root, &packs);
    let raw = Framed::new("fleet.yaml").field(bytes).finish();
    let labels = document.root.get("defaults").and_then(|defaults| defaults.get("labels"));
    let labels = labels.and_then(|labels| serde_json::from_value(labels.to_value()).ok()).unwrap_or_default();
    Fleet {
        document,
        file,
        accounts,
        packs,
        broken_packs,
        layers,
        labels,
        decides,
        raw,
        preview: None,
        is_partial: false,
        left_out_rules: LeftOutRules::default(),
    }
}

/// Returns the account of a fleet that lists none.
fn default_account() -> Account {
    Account {
        id: AccountId::Variable { env: ACCOUNT_ID_VARIABLE.to_owned() },
        token: SecretReference { secret: TOKEN_VARIABLE.to_owned() },
        dispatch_namespace: None,
        dispatch: None,
        subdomain: None,
        plan: Plan::default(),
        limits: Limits::default(),
        api_limit: None,
    }
}

impl LeftOutRules {
    /// Returns the rules that are faulty, by the file as it is written and what is left of them.
    fn of(written: &Node, left: Option<&Node>) -> LeftOutRules {
        let Some(left) = left else { return LeftOutRules::default() };
        let mut rules = LeftOutRules { any: left.is_left_out(), ..LeftOutRules::default() };
        // Under a key that is misspelt, perhaps.
        let Kind::Map(entries) = &written.kind else { return rules };
        let written = entries.iter().map(|(_, _, node)| node).find(|node| node.span == left.span);
        let left = Some(left);
        let items = |node: Option<&Node>| match node.map(|node| &node.kind) {
            Some(Kind::List(items)) => items.clone(),
            _ => Vec::new(),
        };
        let at = |rule: &Node| (rule.span.line, rule.span.column);
        let whole: HashSet<_> = items(left).iter().filter(|rule| !rule.has_left_out()).map(at).collect();
        let is_whole = |rule: &Node| whole.contains(&at(rule));
        for rule in items(written).iter().filter(|rule| !is_whole(rule)) {
            match rule.get("code").and_then(|code| Code::deserialize(&code.to_value()).ok()) {
                Some(code) => drop(rules.codes.insert(code)),
                None => rules.any = true,
            }
        }
        rules
    }

    /// Returns whether the severity of a warning with a code is unknown.
    pub fn has(&self, code: Code) -> bool {
        self.any || self.codes.contains(&code)
    }
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
        let objects = &pack.objects;
        let objects = (&objects.bindings, &objects.migrations, &objects.exports);
        digest = digest.field(&serde_json::to_vec(&objects).expect("BUG: migrations are JSON"));
        if pack.wrangler.is_some() {
            digest = digest.field(b"wrangler");
        }
        if let Some(assets) = &pack.assets {
            let options = serde_json::to_vec(&assets.options).expect("BUG: options are JSON");
            digest = digest.field(b"assets").field(&options);
            digest = digest.field(&[u8::from(assets.is_all), u8::from(assets.folder.is_some())]);
        }
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
        let node = document.root.along(["secrets", at.as_str()]).0;
        // What was left out as faulty isn't missing.
        let has_left_out = |key| node.get(key).is_some_and(Node::has_left_out);
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
                wrong(key, format!("`{path}` is outside the project"), help);
            } else if path.replace("{environment}", "").contains(['{', '}']) {
                wrong(
                    key,
                    format!("`{path}` has a placeholder other than `{{environment}}`"),
                    "only `{environment}` is replaced",
                );
            }
        }
        if source.age.is_some() && source.identity.is_none() && !has_left_out("identity") {
            let help = "add the variable or the file with the key that opens it: `identity: { env: FLOTILLA_AGE_KEY }`";
            wrong("age", "the file has no `identity` that decrypts it".to_owned(), help);
        }
        if let Some(command) = source.command.as_ref().filter(|_| !has_left_out("command")) {
            if command.first().is_none_or(|program| program.is_empty() || program.contains('{')) {
                wrong(
                    "command",
                    "the command doesn't start with a program".to_owned(),
                    "name the program first, then its arguments",
                );
            } else if !command.iter().any(|argument| argument.contains("{name}")) {
                let help = "write `{name}` where the secret's name belongs: `[vault, kv, get, \"-field={name}\", secret/fleet]`";
                wrong("command", "the command would print the same value for every secret".to_owned(), help);
            }
        }
    }
}
