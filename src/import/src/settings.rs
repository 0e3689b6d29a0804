//! One worker's configuration as a spec's settings. What a spec can't express becomes a finding with its place. Knows one worker
//! at a time.

mod bindings;
mod hosts;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use flotilla_model::binding::KINDS;
use flotilla_model::credential::holds_credential;
use flotilla_model::diagnostic::Place;
use flotilla_model::names;
use flotilla_spec::yaml::{Kind, Node};

use super::Findings;
use super::forms::{cache, is_date, is_secret_name, is_turso, is_variable};
use super::keys::{Fate, key};
use super::wrangler::{Config, entries, items, text};

/// A worker's configuration, mapped.
#[derive(Debug, Default)]
pub struct Settings {
    /// The settings of the spec.
    pub settings: Map<String, Value>,
    /// The workers that it calls: the binding's name, the worker's, and its place.
    pub calls: BTreeMap<String, (String, Place)>,
    /// The settings that a spec can't express, so that a deploy would break the worker.
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
    // Some kinds share a key of wrangler's: the first one stands for them.
    for (index, kind) in KINDS.iter().enumerate() {
        if !KINDS[..index].iter().any(|before| before.wrangler == kind.wrangler) {
            mapping.bindings(kind);
        }
    }
    mapping.unsafe_limits();
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

    fn set_list<T: Serialize>(&mut self, key: &str, items: &[T]) {
        if !items.is_empty() {
            self.set(key, json!(items));
        }
    }

    fn entry(&mut self, map: &str, key: &str, value: Value) {
        let map = self.into.settings.entry(map).or_insert_with(|| json!({}));
        map.as_object_mut().expect("BUG: a map").insert(key.to_owned(), value);
    }

    fn lost(&mut self, place: Place, what: &str, message: String, help: impl Into<String>) {
        self.into.lost.push(what.to_owned());
        self.findings.lost(place, message, help);
    }

    fn at(&self, node: &Node) -> Place {
        self.config.document.place(node.span)
    }

    /// Reports the keys that can't be mapped, whatever their values are.
    fn keys(&mut self) {
        for (name, place) in self.config.keys() {
            let Some(node) = self.config.get(name) else { continue };
            match key(name) {
                Some((_, Fate::Mapped | Fate::Local)) => {}
                Some(_) if says_nothing(node) => {}
                Some((_, Fate::LeftOut(help))) => {
                    self.findings.left_out(place, format!("`{name}` has no counterpart in a spec"), help);
                }
                Some((_, Fate::Lost(help))) => {
                    self.lost(place, name, format!("`{name}` has no counterpart in a spec"), help);
                }
                None => {
                    let help = "wrangler doesn't know it, either: remove it if no other program reads it";
                    self.findings.left_out(place, format!("`{name}` is not a key of wrangler"), help);
                }
            }
        }
        if self.config.get("legacy_env").is_some_and(|node| node.to_value() == false) {
            let help =
                "wrangler no longer supports service environments: deploy each environment as a worker of its own";
            self.lost(
                self.config.place("legacy_env"),
                "legacy_env",
                "`legacy_env = false` can't be mapped".to_owned(),
                help,
            );
        }
        if self.config.get("preview_urls").is_some_and(|node| node.to_value() == true) {
            self.set("previewUrls", true.into());
        }
    }

    fn name(&mut self) {
        if let Some(name) = self.config.name()
            && let Err((wrong, _)) = names::worker(&name)
        {
            let help = "deploy it under a valid name first, or keep deploying it with `wrangler deploy`";
            self.lost(
                self.config.place("name"),
                "name",
                format!("{wrong}, which flotilla does not allow in names"),
                help,
            );
        }
    }

    fn compatibility(&mut self) {
        match self.config.text("compatibility_date") {
            Some(date) if is_date(date) => self.set("compatibilityDate", date.into()),
            Some(_) => {
                let place = self.config.place("compatibility_date");
                self.findings.left_out(place, "`compatibility_date` is not a date", "write it as 2026-06-01");
            }
            None => {
                let help = "set `compatibilityDate` in the spec to the date with which the worker was deployed";
                let what = format!("{} has no `compatibility_date`", self.config.what());
                self.findings.note(self.config.start(), what, help);
            }
        }
        let mut flags = Vec::new();
        for item in items(self.config.get("compatibility_flags")) {
            match text(item)
                .filter(|flag| flag.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
            {
                Some(flag) if !flag.is_empty() => flags.push(flag),
                _ => self.findings.left_out(self.at(item), "it is not a flag of the Workers runtime", "remove it"),
            }
        }
        self.set_list("compatibilityFlags", &flags);
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
            let told = "its value was not copied; if the file was ever committed, have a new one issued";
            if secret && matches!(name.as_str(), "CLOUDFLARE_API_TOKEN" | "CF_API_TOKEN") {
                let help = format!(
                    "it is the deploy credential of the account, and no worker needs it: set the environment variable; {told}"
                );
                self.findings.credential(place, format!("`{name}` is an API token of the account"), help);
            } else if secret && value.is_string() && is_secret_name(name) {
                let help = format!("it is now a secret of the worker; {told}");
                self.findings.credential(place, format!("the file contains the secret `{name}`"), help);
                if name != "TURSO_AUTH_TOKEN" || turso.is_none() {
                    self.entry("secrets", name, json!({"secret": name}));
                }
            } else if secret {
                let help = format!(
                    "remove the secret from it, and use a secret of its own: `secrets: {{ NAME: {{ secret: NAME }} }}`; {told}"
                );
                self.findings.credential(place.clone(), format!("`{name}` contains a secret"), help);
                let message = format!("`{name}` can't be mapped: it is not text under an upper-case name");
                self.lost(place, name, message, "give the secret a name of its own, such as API_KEY");
            } else if name == "FLOTILLA_DIGEST" || (turso.is_some() && name == "TURSO_DATABASE_URL") {
                // flotilla gives both itself.
            } else if matches!(name.as_str(), "DB" | "TURSO_DATABASE_URL" | "TURSO_AUTH_TOKEN") {
                let message =
                    format!("the variable `{name}` can't be mapped: flotilla sets it for workers with a database");
                self.lost(place, name, message, "rename it in the code and here");
            } else if !is_variable(name) {
                let message = "a variable's name in a spec consists of letters, digits and `_`".to_owned();
                self.lost(place, "vars", message, "rename it in the code and here");
            } else {
                self.entry("vars", name, value);
            }
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
        self.set_list("crons", &crons);
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
                self.findings.left_out(
                    self.at(node),
                    "`placement.hint` has no counterpart in a spec",
                    "`placement: smart` is kept",
                );
            }
        }
        if self.config.get("keep_vars").is_some_and(|node| node.to_value() == true) {
            self.set("keepVars", true.into());
        }
        if let Some(options) = self.config.get("cache").and_then(|node| cache(&node.to_value())) {
            self.set("cache", options);
        }
        if let Some(Value::Bool(logpush)) = self.config.get("logpush").map(Node::to_value) {
            self.set("logpush", logpush.into());
        }
        let mut consumers = Vec::new();
        for item in items(self.config.get("tail_consumers")) {
            match item.get("service").and_then(text).filter(|_| item.get("environment").is_none()) {
                Some(service) => consumers.push(service),
                None => self.findings.left_out(
                    self.at(item),
                    "a tail consumer in a service environment can't be mapped",
                    "name a worker",
                ),
            }
        }
        self.set_list("tailConsumers", &consumers);
    }

    /// Renames the keys of a map. A known key without a new name is read elsewhere.
    fn translate(&mut self, node: &Node, known: &[(&str, &str)]) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, span, value) in entries(Some(node)) {
            match known.iter().find(|(key, _)| key == name) {
                Some((_, "")) => {}
                Some((_, key)) => _ = map.insert((*key).to_owned(), value.to_value()),
                None => {
                    let place = self.config.document.place(*span);
                    self.findings.left_out(
                        place,
                        format!("`{name}` has no counterpart in a spec"),
                        "set it at Cloudflare",
                    );
                }
            }
        }
        map
    }
}

fn says_nothing(node: &Node) -> bool {
    match &node.kind {
        Kind::Empty | Kind::Null | Kind::Bool(false) => true,
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.iter().all(|(_, _, node)| says_nothing(node)),
        _ => false,
    }
}
