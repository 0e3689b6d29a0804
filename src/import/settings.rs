//! One worker's configuration as a spec's settings. What a spec can't say becomes a finding with its place. Knows one worker
//! at a time.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::binding::{self, Binding, Form, KINDS};
use crate::diagnostic::Place;
use crate::names;
use crate::yaml::{Kind, Node};

use super::credential;
use super::keys::{Fate, key};
use super::wrangler::{Config, entries, items, text};
use super::{Findings, News};

/// Fields of bindings that are for `wrangler dev` and for wrangler's own commands.
const LOCAL_FIELDS: [&str; 11] = [
    "preview_id",
    "preview_bucket_name",
    "preview_database_id",
    "remote",
    "experimental_remote",
    "migrations_dir",
    "migrations_table",
    "migrations_pattern",
    "database_internal_env",
    "localConnectionString",
    "local_connection_string",
];

/// What a worker's configuration says.
#[derive(Debug, Default)]
pub struct Settings {
    /// As a spec says it.
    pub settings: Map<String, Value>,
    /// The workers that it calls: the binding's name, the worker's, and where that stands.
    pub calls: BTreeMap<String, (String, Place)>,
    /// What a spec can't say, so that a deploy would break it.
    pub lost: Vec<String>,
}

/// Maps a configuration. `zones` are names of zones by their ids, as far as they are known.
pub fn settings(config: &Config<'_>, zones: &BTreeMap<String, String>, findings: &mut Findings) -> Settings {
    let mut mapping = Mapping { config, zones, findings, into: Settings::default() };
    mapping.keys();
    mapping.name();
    mapping.compatibility();
    mapping.hosts();
    mapping.vars();
    mapping.databases();
    for kind in KINDS {
        mapping.bindings(kind);
    }
    mapping.queue_consumers();
    mapping.clock();
    mapping.observability();
    mapping.limits();
    mapping.into
}

struct Mapping<'a, 'f> {
    config: &'a Config<'a>,
    zones: &'a BTreeMap<String, String>,
    findings: &'f mut Findings,
    into: Settings,
}

impl Mapping<'_, '_> {
    fn set(&mut self, key: &str, value: Value) {
        self.into.settings.insert(key.to_owned(), value);
    }

    fn entry(&mut self, map: &str, key: &str, value: Value) {
        let map = self.into.settings.entry(map).or_insert_with(|| json!({}));
        map.as_object_mut().expect("BUG: a map").insert(key.to_owned(), value);
    }

    fn note(&mut self, place: Place, message: String, help: impl Into<String>) {
        self.findings.push(News::Note, place, message, help);
    }

    fn left_out(&mut self, place: Place, message: String, help: impl Into<String>) {
        self.findings.push(News::LeftOut, place, message, help);
    }

    fn lost(&mut self, place: Place, what: &str, message: String, help: impl Into<String>) {
        self.into.lost.push(what.to_owned());
        self.findings.push(News::Lost, place, message, help);
    }

    fn at(&self, node: &Node) -> Place {
        self.config.document.place(node.span)
    }

    /// What of the keys is told by themselves.
    fn keys(&mut self) {
        for (name, place) in self.config.keys() {
            let Some(node) = self.config.get(name) else { continue };
            match key(name) {
                Some((_, Fate::Mapped | Fate::Local)) => {}
                Some(_) if says_nothing(node) => {}
                Some((_, Fate::LeftOut(help))) => {
                    self.left_out(place, format!("`{name}` has nothing in a spec that says it"), help);
                }
                Some((_, Fate::Lost(help))) => {
                    self.lost(place, name, format!("`{name}` has nothing in a spec that says it"), help);
                }
                None => {
                    let help = "wrangler doesn't know it either: it can go, if no other program reads it";
                    self.left_out(place, format!("`{name}` is no key of wrangler's"), help);
                }
            }
        }
        if self.config.get("legacy_env").is_some_and(|node| node.to_value() == false) {
            let help = "service environments are done away with: deploy each environment as a worker of its own";
            self.lost(
                self.config.place("legacy_env"),
                "legacy_env",
                "`legacy_env = false` can't be mapped".to_owned(),
                help,
            );
        }
        if let Some(node) = self.config.get("build").filter(|node| node.get("command").is_some()) {
            let place = self.at(node);
            let help = "run it before `flotilla build`, if what it makes is imported by the worker";
            self.note(place, "`build.command` isn't run by flotilla".to_owned(), help);
        }
        if self.config.get("preview_urls").is_some_and(|node| node.to_value() == true) {
            let help = "flotilla switches them off; `flotilla preview` makes workers to look at";
            self.left_out(self.config.place("preview_urls"), "`preview_urls` has nothing in a spec".to_owned(), help);
        }
    }

    fn name(&mut self) {
        if let Some(name) = self.config.name()
            && let Err((wrong, _)) = names::worker(&name)
        {
            let help = "deploy it under such a name first, or keep deploying it with `wrangler deploy`";
            self.lost(self.config.place("name"), "name", format!("{wrong}, which flotilla's names can't have"), help);
        }
    }

    fn compatibility(&mut self) {
        match self.config.text("compatibility_date") {
            Some(date) if is_date(date) => self.set("compatibilityDate", date.into()),
            Some(_) => {
                let place = self.config.place("compatibility_date");
                self.left_out(place, "`compatibility_date` is no day".to_owned(), "write it as 2026-06-01");
            }
            None => {
                let help = "set `compatibilityDate` in the spec to the day that the worker was deployed with";
                let what = format!("{} says no `compatibility_date`", self.config.what());
                self.note(self.config.start(), what, help);
            }
        }
        let mut flags = Vec::new();
        for item in items(self.config.get("compatibility_flags")) {
            match text(item)
                .filter(|flag| flag.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
            {
                Some(flag) if !flag.is_empty() => flags.push(flag),
                _ => self.left_out(self.at(item), "it is no flag of the runtime".to_owned(), "take it out"),
            }
        }
        if !flags.is_empty() {
            self.set("compatibilityFlags", json!(flags));
        }
        if flags.iter().any(|flag| flag.starts_with("nodejs_compat")) {
            let help = "the runtime's own modules of Node.js are used, without those that wrangler puts in the place of missing ones; \
                        `flotilla build` and the worker's tests tell whether that is enough";
            let place = self.config.place("compatibility_flags");
            self.note(place, "`nodejs_compat` is bundled otherwise than by wrangler".to_owned(), help);
        }
    }

    /// Domains, routes, workers.dev: what `wrangler deploy` would set.
    fn hosts(&mut self) {
        let config = self.config;
        // `routes` comes before `route`, wherever the two stand.
        let one;
        let (all, has_routes) = match config.get("routes") {
            Some(node) => (items(Some(node)), true),
            None => {
                one = config.get("route").cloned();
                (one.as_slice(), one.is_some())
            }
        };
        let (mut domains, mut routes) = (Vec::new(), Vec::new());
        for item in all {
            self.host(item, &mut domains, &mut routes);
        }
        let dev = config.get("workers_dev").map(Node::to_value);
        let is_dev = dev.as_ref().and_then(Value::as_bool).unwrap_or(!has_routes || all.is_empty());
        if !is_dev {
            self.set("workersDev", false.into());
        }
        if !domains.is_empty() {
            self.set("domains", json!(domains));
        }
        if !routes.is_empty() {
            self.set("routes", json!(routes));
        }
    }

    fn host(&mut self, item: &Node, domains: &mut Vec<String>, routes: &mut Vec<Value>) {
        let place = self.at(item);
        let pattern = text(item).or_else(|| text(item.get("pattern")?));
        let Some(pattern) = pattern else {
            self.lost(place, "routes", "a route without a pattern can't be mapped".to_owned(), "write its pattern");
            return;
        };
        let known = ["pattern", "custom_domain", "zone_id", "zone_name", "enabled", "previews_enabled"];
        for (name, span, _) in entries(Some(item)) {
            if !known.contains(&name.as_str()) || name == "enabled" || name == "previews_enabled" {
                let place = self.config.document.place(*span);
                self.left_out(place, format!("`{name}` of a route has nothing in a spec"), "set it at Cloudflare");
            }
        }
        let is_domain = item.get("custom_domain").is_some_and(|node| node.to_value() == true);
        let (host, path) = pattern.split_once('/').map_or((pattern, None), |(host, path)| (host, Some(path)));
        if is_domain && !host.contains('*') && matches!(path, None | Some("" | "*")) {
            let host = names::same_host(host).into_owned();
            if let Err((wrong, help)) = names::domain(&host) {
                self.lost(place, "routes", format!("the domain {wrong}"), help);
                return;
            }
            if path.is_some() {
                let message = format!(
                    "`{pattern}` with `custom_domain = true` is refused by wrangler: a custom domain is a bare host"
                );
                self.note(place, message, format!("it is mapped to the domain `{host}`, all paths included"));
            }
            if !domains.contains(&host) {
                domains.push(host);
            }
            return;
        }
        let bare = host.trim_start_matches("*.").trim_start_matches('*');
        let id = item.get("zone_id").and_then(text).or_else(|| self.config.text("zone_id"));
        let named = item.get("zone_name").and_then(text);
        let live = id.and_then(|id| self.zones.get(id)).map(String::as_str);
        let zone = named.or(live).unwrap_or_else(|| names::zone_of(bare)).to_owned();
        let written = match path {
            None if is_domain => format!("{host}/*"),
            _ => pattern.to_owned(),
        };
        if let Err((wrong, help)) = names::zone(&zone).and_then(|()| names::route(&written, &zone)) {
            self.lost(place, "routes", wrong, help);
            return;
        }
        if is_domain {
            let message = format!("`{pattern}` can't be a custom domain: those have neither wildcards nor paths");
            let help = format!(
                "it is mapped to a route of the zone `{zone}`; a proxied DNS record for `{host}` has to be there, as routes make none"
            );
            self.note(place, message, help);
        } else if named.is_none() && live.is_none() && id.is_some() {
            let message = format!("the zone of `{pattern}` is given by its id");
            let help = format!("specs name zones: `{zone}` is what the host tells; look whether that is the zone");
            self.note(place, message, help);
        }
        routes.push(json!({"pattern": written, "zone": zone}));
    }

    fn vars(&mut self) {
        let config = self.config;
        for item in items(config.get("secrets").and_then(|node| node.get("required"))) {
            match text(item) {
                Some(name) if is_secret_name(name) => self.entry("secrets", name, json!({"secret": name})),
                _ => self.lost(
                    self.at(item),
                    "secrets",
                    "it can't be a secret's name".to_owned(),
                    "upper-case letters, digits and `_`",
                ),
            }
        }
        let all = entries(config.get("vars"));
        let value = |name: &str| all.iter().find(|(key, _, _)| key == name).and_then(|(_, _, node)| text(node));
        let turso = value("TURSO_DATABASE_URL").filter(|url| is_turso(url)).map(str::to_owned);
        if let Some(url) = &turso {
            self.set("database", json!({"type": "turso", "url": url, "token": {"secret": "TURSO_AUTH_TOKEN"}}));
        }
        for (name, span, node) in all {
            let (place, value) = (config.document.place(*span), node.to_value());
            let secret = holds_credential(name, &value);
            let told = "its value was not copied; if the file was ever committed, replace it where it was issued";
            if secret && matches!(name.as_str(), "CLOUDFLARE_API_TOKEN" | "CF_API_TOKEN") {
                let help = format!(
                    "it is what deploys the account, and no worker needs it: set the environment variable; {told}"
                );
                self.findings.push(News::Credential, place, format!("`{name}` is an API token of the account"), help);
            } else if secret && value.is_string() && is_secret_name(name) {
                let help = format!("it is a secret of the worker now; {told}");
                self.findings.push(
                    News::Credential,
                    place,
                    format!("`{name}` is a secret that stands in the file"),
                    help,
                );
                if name != "TURSO_AUTH_TOKEN" || turso.is_none() {
                    self.entry("secrets", name, json!({"secret": name}));
                }
            } else if secret {
                let help = format!(
                    "take the secret out of it, and read it from a secret of its own: `secrets: {{ NAME: {{ secret: NAME }} }}`; {told}"
                );
                self.findings.push(News::Credential, place.clone(), format!("`{name}` holds a secret"), help);
                let message = format!("`{name}` can't be mapped: it is no text under an upper-case name");
                self.lost(place, name, message, "give the secret a name of its own, such as API_KEY");
            } else if name == "FLOTILLA_DIGEST" || (turso.is_some() && name == "TURSO_DATABASE_URL") {
                // flotilla gives both itself.
            } else if matches!(name.as_str(), "DB" | "TURSO_DATABASE_URL" | "TURSO_AUTH_TOKEN") {
                let message =
                    format!("the variable `{name}` can't be mapped: flotilla gives it to workers with a database");
                self.lost(place, name, message, "call it otherwise, in the code and here");
            } else if !is_variable(name) {
                let message = "a variable's name in a spec is letters, digits and `_`".to_owned();
                self.lost(place, "vars", message, "call it otherwise, in the code and here");
            } else {
                self.entry("vars", name, value);
            }
        }
    }

    /// The database that a spec has under `database`: D1, bound as `DB`. All others are bindings.
    fn databases(&mut self) {
        for item in items(self.config.get("d1_databases")) {
            let field = |name: &str| item.get(name).and_then(text);
            let (name, id) = (field("database_name"), field("database_id"));
            let fits = name.is_some_and(is_database_name) && id.is_none_or(is_uuid);
            if field("binding") != Some("DB") || !fits || self.into.settings.contains_key("database") {
                continue;
            }
            let mut database = json!({"type": "d1", "name": name});
            if let Some(id) = id {
                database["id"] = id.into();
            }
            self.set("database", database);
        }
    }

    fn bindings(&mut self, kind: &'static binding::Kind) {
        let config = self.config;
        let mut steps = kind.wrangler.split('.');
        let section = steps.next().unwrap_or_default();
        let Some(node) = steps.try_fold(config.get(section), |node, step| Some(node?.get(step))).flatten() else {
            return;
        };
        let single = [node.clone()];
        let all = if kind.is_single { &single } else { items(Some(node)) };
        for item in all {
            let place = self.at(item);
            let name = item.get(kind.name).and_then(text).unwrap_or_default().to_owned();
            let is_database = kind.wrangler == "d1_databases"
                && name == "DB"
                && self.into.settings.get("database").is_some_and(|database| database["type"] == "d1");
            if is_database {
                continue;
            }
            let mut entry = item.to_value();
            if let Some(entry) = entry.as_object_mut() {
                entry.retain(|key, _| !LOCAL_FIELDS.contains(&key.as_str()));
            }
            let own = config.name();
            let script = entry["script_name"].as_str().map(str::to_owned);
            let has_class = matches!(kind.key(), "durableObject" | "workflow");
            if has_class && (script.is_none() || script == own) {
                let what = if kind.key() == "workflow" { "workflow" } else { "class of Durable Objects" };
                let class = entry["class_name"].as_str().unwrap_or_default();
                let message =
                    format!("the {what} `{class}` is the worker's own, which `wrangler deploy` alone deploys");
                let help = "keep deploying this worker with it; or move the class to a worker that you do so, and name it: `worker: …`";
                self.lost(place, section, message, help);
                continue;
            }
            // wrangler calls a dataset after its binding, unless told otherwise.
            if kind.key() == "analyticsEngine" && entry["dataset"].is_null() {
                entry["dataset"] = name.clone().into();
            }
            match Binding::of_wrangler(kind.wrangler, &entry) {
                Some((name, binding)) if is_variable(&name) && fits(&binding) => {
                    let calls = kind.wrangler == "services" && binding.0.len() == 1;
                    match binding.text(binding::WORKER).filter(|_| calls) {
                        Some(worker) => _ = self.into.calls.insert(name, (worker.to_owned(), place)),
                        None => self.entry("bindings", &name, Value::Object(binding.0)),
                    }
                }
                _ => {
                    let (message, help) = unread(kind, &name, &entry);
                    self.lost(place, &name, message, help);
                }
            }
        }
    }

    fn queue_consumers(&mut self) {
        for item in items(self.config.get("queues").and_then(|node| node.get("consumers"))) {
            let queue = item.get("queue").and_then(text).unwrap_or_default();
            let help = "the consumer stays as it is at Cloudflare when the worker is uploaded; make and change it with \
                        `wrangler queues consumer`";
            self.lost(
                self.at(item),
                "queues.consumers",
                format!("that the worker consumes the queue `{queue}` has nothing in a spec"),
                help,
            );
        }
    }

    fn clock(&mut self) {
        let mut crons = Vec::new();
        for item in items(self.config.get("triggers").and_then(|node| node.get("crons"))) {
            match text(item).map(|cron| (cron, names::cron(cron))) {
                Some((cron, Ok(()))) => crons.push(cron),
                Some((_, Err((wrong, help)))) => self.lost(self.at(item), "triggers.crons", wrong, help),
                None => {}
            }
        }
        if !crons.is_empty() {
            self.set("crons", json!(crons));
        }
    }

    fn observability(&mut self) {
        let Some(node) = self.config.get("observability") else {
            self.set("observability", json!({"enabled": false}));
            return;
        };
        let mut observability = self.translate(
            node,
            &[("enabled", "enabled"), ("head_sampling_rate", "sampling"), ("logs", ""), ("traces", "")],
        );
        let logs = [
            ("enabled", "enabled"),
            ("head_sampling_rate", "sampling"),
            ("invocation_logs", "invocationLogs"),
            ("persist", "persist"),
            ("destinations", "destinations"),
        ];
        for part in ["logs", "traces"] {
            let Some(below) = node.get(part) else { continue };
            let known: Vec<_> =
                logs.into_iter().filter(|(key, _)| part == "logs" || *key != "invocation_logs").collect();
            let below = self.translate(below, &known);
            observability.insert(part.to_owned(), Value::Object(below));
        }
        self.set("observability", Value::Object(observability));
    }

    fn limits(&mut self) {
        if let Some(node) = self.config.get("limits") {
            let limits = self.translate(node, &[("cpu_ms", "cpuMs"), ("subrequests", "subrequests")]);
            if !limits.is_empty() {
                self.set("limits", Value::Object(limits));
            }
        }
        if let Some(node) = self.config.get("placement") {
            let value = node.to_value();
            let target = ["region", "host", "hostname"].into_iter().find(|key| value[key].is_string());
            match (value["mode"].as_str(), target) {
                (_, Some(key)) => self.set("placement", json!({key: value[key]})),
                (Some("smart"), None) => self.set("placement", "smart".into()),
                _ => {}
            }
            if value.get("hint").is_some() {
                self.left_out(
                    self.at(node),
                    "`placement.hint` has nothing in a spec".to_owned(),
                    "`placement: smart` is kept",
                );
            }
        }
        if let Some(Value::Bool(logpush)) = self.config.get("logpush").map(Node::to_value) {
            self.set("logpush", logpush.into());
        }
        let mut consumers = Vec::new();
        for item in items(self.config.get("tail_consumers")) {
            match item.get("service").and_then(text).filter(|_| item.get("environment").is_none()) {
                Some(service) => consumers.push(service),
                None => self.left_out(
                    self.at(item),
                    "a tail consumer in a service environment can't be mapped".to_owned(),
                    "name a worker",
                ),
            }
        }
        if !consumers.is_empty() {
            self.set("tailConsumers", json!(consumers));
        }
    }

    /// A map under other names. A known key without one is read elsewhere.
    fn translate(&mut self, node: &Node, known: &[(&str, &str)]) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, span, value) in entries(Some(node)) {
            match known.iter().find(|(key, _)| key == name) {
                Some((_, "")) => {}
                Some((_, key)) => _ = map.insert((*key).to_owned(), value.to_value()),
                None => {
                    let place = self.config.document.place(*span);
                    self.left_out(
                        place,
                        format!("`{name}` has nothing in a spec that says it"),
                        "set it at Cloudflare",
                    );
                }
            }
        }
        map
    }
}

/// Why an entry isn't a binding that a spec can have.
fn unread(kind: &binding::Kind, name: &str, entry: &Value) -> (String, String) {
    let what = kind.wrangler;
    let field = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let known: Vec<String> = kind.fields.iter().map(|own| field(own.wrangler)).chain([kind.name.to_owned()]).collect();
    let more: Vec<&String> =
        entry.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| !known.contains(key)).collect();
    if let Some(key) = more.first() {
        let message = format!("`{key}` of the binding `{name}` (`{what}`) has nothing in a spec that says it");
        return (message, "keep deploying this worker with `wrangler deploy`, or do without it".to_owned());
    }
    let missing = kind.fields.iter().find(|own| {
        own.is_required
            && !own.wrangler.is_empty()
            && entry.pointer(&format!("/{}", own.wrangler.replace('.', "/"))).is_none()
    });
    match missing {
        Some(own) => (
            format!("the binding `{name}` (`{what}`) has no `{}`", own.wrangler),
            format!(
                "wrangler finds or makes one when it deploys; look it up at Cloudflare and add it to the spec: `bindings: {{ {name}: {{ {}: … }} }}`",
                kind.key()
            ),
        ),
        None => (
            format!("the binding `{name}` (`{what}`) isn't one that a spec can have"),
            "look at its ids: placeholders such as `<your-id>` have to be filled in".to_owned(),
        ),
    }
}

/// Whether the fields of a binding have the form that the schema wants.
pub(super) fn fits(binding: &Binding) -> bool {
    binding.kind().is_some_and(|kind| {
        kind.fields.iter().all(|field| match (binding.0.get(field.key), field.form) {
            (None, _) => !field.is_required,
            (Some(value), Form::Pattern(binding::ID)) => value.as_str().is_some_and(|id| id.len() == 32 && is_hex(id)),
            (Some(value), Form::Pattern(binding::UUID)) => value.as_str().is_some_and(is_uuid),
            (Some(value), Form::Pattern(_)) => {
                value.as_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            }
            (Some(value), Form::Text) => value.as_str().is_some_and(|text| !text.is_empty()),
            (Some(value), Form::OneOf(options)) => value.as_str().is_some_and(|text| options.contains(&text)),
            (Some(value), Form::Count) => value.as_u64().is_some_and(|count| count > 0),
            (Some(value), Form::Texts) => {
                value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_string))
            }
            (Some(value), Form::True) => *value == true,
        })
    })
}

/// Whether a variable's value, or anything in it, is a secret.
pub fn holds_credential(name: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => credential::is_credential(name, text),
        Value::Array(items) => items.iter().any(|item| holds_credential(name, item)),
        Value::Object(map) => map.iter().any(|(key, value)| holds_credential(key, value)),
        _ => false,
    }
}

fn says_nothing(node: &Node) -> bool {
    match &node.kind {
        Kind::Null | Kind::Bool(false) => true,
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.iter().all(|(_, _, node)| says_nothing(node)),
        _ => false,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hex(part))
}

pub(super) fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse::<u8>().unwrap_or(0);
    digits(year, 4)
        && year.starts_with("20")
        && digits(month, 2)
        && digits(day, 2)
        && (1..=12).contains(&number(month))
        && (1..=31).contains(&number(day))
}

/// What a variable or a binding can be called.
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What a secret can be called.
pub fn is_secret_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// What a D1 database can be called in a spec.
pub fn is_database_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// Whether an id is that of a D1 database.
pub fn is_database_id(id: &str) -> bool {
    is_uuid(id)
}

pub(super) fn is_turso(url: &str) -> bool {
    let host = url.strip_prefix("libsql://").or_else(|| url.strip_prefix("https://"));
    host.is_some_and(|host| {
        let host = host.strip_suffix('/').unwrap_or(host);
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
    })
}
