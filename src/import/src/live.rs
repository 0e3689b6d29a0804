//! The live workers of an account as settings of specs: bindings, code, hosts and crons. Sends requests through a
//! function that it is given, which paces and retries; sends nothing that changes anything. Never sees a secret's
//! value, as Cloudflare returns none.
//!
//! The requests come first, then the mapping of one worker's answers, key by key; the two are one file because each
//! of the API's answers has a single reader.
//!
//! It costs a request for the workers and one for the domains; one for each fifty zones and each zone of the account;
//! three for each worker, and one more for each that runs other code than those before.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Map, Value, json};

use flotilla_model::binding::{self, Binding};
use flotilla_model::credential::holds_credential;
use flotilla_model::diagnostic::Place;
use flotilla_model::names;
use flotilla_model::paging::read_list;
use flotilla_model::platform::{Call, CallError, ListedWorker, ReadModule, Reply};
use flotilla_model::tags;

use super::code::is_module_path;
use super::forms::{cache, fits, is_date, is_secret_name, is_turso, is_variable};
use super::{Findings, LiveAccount, LiveWorker};

/// The day of workers that were uploaded with none. Source: Cloudflare docs, Workers › Compatibility dates.
const OLDEST: &str = "2021-11-02";
/// The keys of a binding that the API returns and that can't be set: whose default environment, and the id of a
/// class's objects.
const API_ONLY: [&str; 2] = ["environment", "namespace_id"];

/// The help for what wrangler alone can deploy.
const KEEP: &str = "keep deploying this worker as before";

/// Reads an account. Workers that carry the tag of `fleet` are skipped, as that fleet manages them already. What a token may not see is
/// a finding; that the workers themselves can't be read is an error.
pub fn read(
    account_id: &str,
    fleet: Option<&str>,
    mut request: impl FnMut(&Call) -> Result<Reply, CallError>,
) -> Result<LiveAccount, CallError> {
    let mut findings = Findings::default();
    let listed = read_list(|page| match request(&Call::ListWorkers { tags: None, page })? {
        Reply::Workers(workers) => Ok::<_, CallError>(workers),
        other => unreachable!("BUG: {other:?} is no list of workers"),
    })?;
    let mut hosts = Hosts::default();
    hosts.domains(&mut request, &mut findings)?;
    let zones = hosts.routes(account_id, &mut request, &mut findings)?;
    let mut workers = Vec::new();
    let mut contents: HashMap<String, Content> = HashMap::new();
    for item in listed {
        let place = place(&item.name);
        match tags::read(&item.tags).fleet {
            Some(owner) if fleet.is_some_and(|fleet| is_of(owner, fleet)) => {
                let message = format!("`{}` is already managed by this fleet, and was skipped", item.name);
                findings.note(place, message, "nothing to do");
                continue;
            }
            Some(owner) => {
                let message = format!("the fleet `{owner}` manages `{}`", item.name);
                let help = format!("once this fleet deploys it, remove it from the specs of `{owner}`");
                findings.note(place, message, help);
            }
            None => {}
        }
        let worker = item.name.clone();
        let Reply::Settings(settings) = request(&Call::ReadSettings { worker: worker.clone() })? else {
            // Somebody deleted it meanwhile.
            continue;
        };
        let addresses = match request(&Call::ReadWorkersDev { worker: worker.clone() })? {
            Reply::WorkersDev { on, previews } => [on, previews],
            _ => [false, false],
        };
        let crons = match request(&Call::ReadCrons { worker: worker.clone() })? {
            Reply::Crons(crons) => crons.into_iter().collect(),
            _ => Vec::new(),
        };
        let content = match contents.get(&item.etag).filter(|_| !item.etag.is_empty()) {
            Some(content) => content.clone(),
            None => {
                let content = match request(&Call::ReadContent { worker })? {
                    Reply::Content { main, modules } => Content { main, modules },
                    _ => continue,
                };
                contents.insert(item.etag.clone(), content.clone());
                content
            }
        };
        let mut reading = Reading { name: &item.name, findings: &mut findings, into: empty(&item.name) };
        reading.name();
        reading.settings(&settings);
        reading.bindings(&settings);
        reading.hosts(&hosts, addresses, crons);
        reading.content(content);
        reading.beside(&item);
        workers.push(reading.into);
    }
    Ok(LiveAccount { account_id: Some(account_id.to_owned()), workers, zones, findings: findings.sorted() })
}

/// Reads a worker's code.
#[derive(Clone)]
struct Content {
    main: Option<String>,
    modules: Vec<ReadModule>,
}

/// The hosts that point to each worker.
#[derive(Default)]
struct Hosts {
    domains: BTreeMap<String, Vec<String>>,
    routes: BTreeMap<String, Vec<(String, String)>>,
}

type Ask<'a> = &'a mut dyn FnMut(&Call) -> Result<Reply, CallError>;

impl Hosts {
    fn domains(&mut self, request: Ask<'_>, findings: &mut Findings) -> Result<(), CallError> {
        let domains = read_list(|page| match request(&Call::ListDomains { page })? {
            Reply::Domains(domains) => Ok(domains),
            other => unreachable!("BUG: {other:?} is no list of domains"),
        });
        for domain in seen(domains, "the custom domains", findings)?.unwrap_or_default() {
            self.domains.entry(domain.worker).or_default().push(domain.hostname);
        }
        Ok(())
    }

    /// The routes of all zones of the account; the names of these by their ids.
    fn routes(
        &mut self,
        account_id: &str,
        request: Ask<'_>,
        findings: &mut Findings,
    ) -> Result<BTreeMap<String, String>, CallError> {
        let zones = read_list(|page| match request(&Call::ListZones { name: None, page })? {
            Reply::Zones(zones) => Ok(zones),
            other => unreachable!("BUG: {other:?} is no list of zones"),
        });
        let zones = seen(zones, "the zones, and so the routes", findings)?.unwrap_or_default();
        let own = zones.into_iter().filter(|zone| zone.account_id == account_id);
        let names: BTreeMap<String, String> = own.map(|zone| (zone.id, zone.name)).collect();
        for (zone_id, name) in &names {
            let what = format!("the routes of the zone {name}");
            let routes = read_list(|page| match request(&Call::ListRoutes { zone_id: zone_id.clone(), page })? {
                Reply::Routes(routes) => Ok(routes),
                other => unreachable!("BUG: {other:?} is no list of routes"),
            });
            let Some(routes) = seen(routes, &what, findings)? else { continue };
            for route in routes {
                match route.worker {
                    Some(worker) => self.routes.entry(worker).or_default().push((route.pattern, name.clone())),
                    None => {
                        let message =
                            format!("the route `{}` of {name} excludes requests from all workers", route.pattern);
                        let help = "the route stays unchanged: it belongs to no worker, so no spec can define it";
                        findings.note(account(), message, help);
                    }
                }
            }
        }
        Ok(names)
    }
}

/// Returns an answer; nothing, and a finding, if the token lacks the permission.
fn seen<T>(answer: Result<T, CallError>, what: &str, findings: &mut Findings) -> Result<Option<T>, CallError> {
    match answer {
        Ok(reply) => Ok(Some(reply)),
        Err(CallError::Unauthorized(why) | CallError::Rejected { status: 400..500, message: why, .. }) => {
            let help = format!("give the token the permission to read them, and import again: {why}");
            findings.left_out(account(), format!("the token cannot read {what}"), help);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn account() -> Place {
    Place::file("the account")
}

fn place(worker: &str) -> Place {
    Place::file(&format!("the account: {worker}"))
}

fn empty(name: &str) -> LiveWorker {
    LiveWorker {
        name: name.to_owned(),
        settings: Map::new(),
        calls: BTreeMap::new(),
        lost: Vec::new(),
        main: String::new(),
        modules: BTreeMap::new(),
    }
}

/// One worker while it is mapped.
struct Reading<'a> {
    name: &'a str,
    findings: &'a mut Findings,
    into: LiveWorker,
}

impl Reading<'_> {
    fn set(&mut self, key: &str, value: Value) {
        self.into.settings.insert(key.to_owned(), value);
    }

    fn set_list<T: Serialize>(&mut self, key: &str, items: &[T]) {
        if !items.is_empty() {
            self.set(key, json!(items));
        }
    }

    fn entry(&mut self, map: &str, key: &str, value: Value) {
        self.into.settings.entry(map).or_insert_with(|| json!({}))[key] = value;
    }

    fn lost(&mut self, what: &str, message: String, help: &str) {
        self.into.lost.push(what.to_owned());
        self.findings.lost(place(self.name), message, help);
    }

    fn left_out(&mut self, message: String, help: &str) {
        self.findings.left_out(place(self.name), message, help);
    }

    fn name(&mut self) {
        if let Err((wrong, _)) = names::worker(self.name) {
            self.lost("its name", format!("{wrong}, which flotilla does not allow in names"), KEEP);
        }
    }

    fn settings(&mut self, settings: &Value) {
        let date = settings["compatibility_date"].as_str().filter(|date| is_date(date));
        self.set("compatibilityDate", date.unwrap_or(OLDEST).into());
        if settings["compatibility_flags"].as_array().is_some_and(|flags| !flags.is_empty()) {
            self.set("compatibilityFlags", settings["compatibility_flags"].clone());
        }
        let observability = self.observability(&settings["observability"]);
        self.set("observability", observability);
        let limits = renamed(&settings["limits"], &[("cpu_ms", "cpuMs"), ("subrequests", "subrequests")]);
        if !limits.is_empty() {
            self.set("limits", Value::Object(limits));
        }
        let placement = &settings["placement"];
        let target = ["region", "host", "hostname"].into_iter().find(|key| placement[key].is_string());
        match (target, placement["mode"].as_str()) {
            (Some(key), _) => self.set("placement", json!({key: placement[key]})),
            (None, Some("smart")) => self.set("placement", "smart".into()),
            (None, Some("targeted")) => {
                let message = format!("a spec cannot express the placement of `{}`", self.name);
                self.lost("its placement", message, "set `placement` in the spec to a region, host or hostname");
            }
            _ => {}
        }
        if settings["logpush"] == true {
            self.set("logpush", true.into());
        }
        let consumers = settings["tail_consumers"].as_array().map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = consumers.iter().filter_map(|consumer| consumer["service"].as_str()).collect();
        self.set_list("tailConsumers", &names);
        if let Some(options) = cache(&settings["cache_options"]).filter(|options| options["enabled"] == true) {
            self.set("cache", options);
        }
    }

    fn observability(&mut self, answer: &Value) -> Value {
        let mut observability = renamed(answer, &[("enabled", "enabled"), ("head_sampling_rate", "sampling")]);
        observability.entry("enabled").or_insert(Value::Bool(false));
        for part in ["logs", "traces"] {
            let mut known = vec![
                ("enabled", "enabled"),
                ("head_sampling_rate", "sampling"),
                ("persist", "persist"),
                ("destinations", "destinations"),
            ];
            if part == "logs" {
                known.push(("invocation_logs", "invocationLogs"));
            }
            let below = renamed(&answer[part], &known);
            if !below.is_empty() {
                observability.insert(part.to_owned(), Value::Object(below));
            }
        }
        if answer["redact_query_string"] == true || answer["issues"]["enabled"] == true {
            let message = format!("a spec cannot express a part of the observability of `{}`", self.name);
            self.left_out(message, "a deploy by flotilla doesn't send `redact_query_string` and `issues`");
        }
        Value::Object(observability)
    }

    fn bindings(&mut self, settings: &Value) {
        let all = settings["bindings"].as_array().map_or(&[][..], Vec::as_slice);
        let turso = all.iter().find(|binding| binding["name"] == "TURSO_DATABASE_URL");
        let turso = turso.and_then(|binding| binding["text"].as_str()).filter(|url| is_turso(url));
        if let Some(url) = turso {
            self.set("database", json!({"type": "turso", "url": url, "token": {"secret": "TURSO_AUTH_TOKEN"}}));
        }
        for binding in all {
            let (name, kind) =
                (binding["name"].as_str().unwrap_or_default(), binding["type"].as_str().unwrap_or_default());
            let of_turso = turso.is_some() && matches!(name, "TURSO_DATABASE_URL" | "TURSO_AUTH_TOKEN");
            if name == "FLOTILLA_DIGEST" || (of_turso && matches!(kind, "plain_text" | "secret_text")) {
                continue;
            }
            match kind {
                "plain_text" => self.variable(name, binding["text"].clone()),
                "json" => self.variable(name, binding["json"].clone()),
                "secret_text" if is_secret_name(name) && !is_reserved(name) => {
                    self.entry("secrets", name, json!({"secret": name}));
                }
                _ if !is_variable(name) => {
                    let message = format!("the name of the binding `{name}` of `{}` is not valid in a spec", self.name);
                    self.lost(name, message, "use letters, digits and `_`: rename it in the code and at Cloudflare");
                }
                "secret_text" => {
                    let message = format!("the name of the secret `{name}` of `{}` is not valid in a spec", self.name);
                    self.lost(
                        name,
                        message,
                        "use upper-case letters, digits and `_`, but no name that flotilla sets itself",
                    );
                }
                _ => self.binding(name, kind, binding),
            }
        }
    }

    fn variable(&mut self, name: &str, value: Value) {
        let refers = value.as_object().is_some_and(|map| map.len() == 1 && map.contains_key("workerUrl"));
        if holds_credential(name, &value) {
            let message =
                format!("the variable `{name}` of `{}` holds a secret that everybody with access can read", self.name);
            let help = "it is now a secret of the worker, and its value was not copied; have a new one issued";
            if is_secret_name(name) && value.is_string() && !is_reserved(name) {
                self.findings.credential(place(self.name), message, help);
                self.entry("secrets", name, json!({"secret": name}));
            } else {
                self.findings.credential(place(self.name), message.clone(), "its value was not copied");
                self.lost(name, message, "give the secret a name of its own, such as API_KEY");
            }
        } else if !is_variable(name) || is_reserved(name) || refers {
            let message = format!("the variable `{name}` of `{}` can't be mapped", self.name);
            self.lost(name, message, "rename it in the code and at Cloudflare");
        } else {
            self.entry("vars", name, value);
        }
    }

    fn binding(&mut self, name: &str, kind: &str, answer: &Value) {
        let mut binding = answer.clone();
        let own = matches!(kind, "durable_object_namespace" | "workflow")
            && answer["script_name"].as_str().is_none_or(|script| script == self.name);
        if own {
            let class = answer["class_name"].as_str().unwrap_or(name);
            let message = format!("`{}` itself defines the class `{class}`, which a spec cannot express", self.name);
            let help = "keep deploying this worker as before; or move the class to a worker of its own, and name that: `worker: …`";
            self.lost(name, message, help);
            return;
        }
        if let Some(fields) = binding.as_object_mut() {
            fields.retain(|key, value| {
                let answer = API_ONLY.contains(&key.as_str()) && matches!(kind, "durable_object_namespace" | "service");
                !(answer && (key == "namespace_id" || *value == "production"))
            });
        }
        match Binding::of_upload(&binding).filter(fits) {
            Some(binding) => {
                match binding.text(binding::WORKER).filter(|_| kind == "service" && binding.0.len() == 1) {
                    Some(worker) => _ = self.into.calls.insert(name.to_owned(), worker.to_owned()),
                    None => self.entry("bindings", name, Value::Object(binding.0)),
                }
            }
            None => {
                let message = format!("the binding `{name}` of `{}`, of type {kind}, can't be mapped", self.name);
                self.lost(name, message, KEEP);
            }
        }
    }

    fn hosts(&mut self, hosts: &Hosts, [is_on, has_previews]: [bool; 2], crons: Vec<String>) {
        if !is_on {
            self.set("workersDev", false.into());
        }
        if has_previews {
            self.set("previewUrls", true.into());
        }
        let mut domains = hosts.domains.get(self.name).cloned().unwrap_or_default();
        domains.sort();
        domains.retain(|host| match names::domain(host) {
            Ok(()) => true,
            Err((wrong, help)) => {
                self.lost("its domains", format!("the domain {wrong}"), &help);
                false
            }
        });
        self.set_list("domains", &domains);
        let mut routes = hosts.routes.get(self.name).cloned().unwrap_or_default();
        routes.sort();
        routes.retain(|(pattern, zone)| match names::route(pattern, zone) {
            Ok(()) => true,
            Err((wrong, help)) => {
                self.lost("its routes", wrong, &help);
                false
            }
        });
        if !routes.is_empty() {
            let route = |(pattern, zone): &(String, String)| json!({"pattern": pattern, "zone": zone});
            self.set("routes", routes.iter().map(route).collect());
        }
        let mut kept = Vec::new();
        for cron in crons {
            match names::cron(&cron) {
                Ok(()) => kept.push(cron),
                Err((wrong, help)) => self.lost("its crons", wrong, &help),
            }
        }
        self.set_list("crons", &kept);
    }

    fn content(&mut self, content: Content) {
        let Some(main) = content.main else {
            let message = format!("`{}` is a script in the older form, with `addEventListener`", self.name);
            self.lost(
                "its code",
                message,
                "write it as a module first: `export default { async fetch(request, env) { … } }`",
            );
            return;
        };
        for mut module in content.modules {
            // wrangler calls texts that it leaves beside its bundle `./<hash>-page.html`.
            if let Some(plain) = module.name.strip_prefix("./") {
                module.name = plain.to_owned();
            }
            match unread(&module) {
                None if module.kind == "application/source-map" => {}
                None => _ = self.into.modules.insert(module.name, module.bytes),
                Some(what) => {
                    let message = format!("the module `{}` of `{}` is {what}", module.name, self.name);
                    self.lost("its code", message, KEEP);
                }
            }
        }
        self.into.main = main.trim_start_matches("./").to_owned();
    }

    /// Reports what exists beside the settings and is lost when somebody else uploads the worker.
    fn beside(&mut self, listed: &ListedWorker) {
        if listed.has_assets {
            let message = format!("the static assets of `{}` can't be read: Cloudflare gives back no files", self.name);
            let help = "add their folder to the manifest of its pack: `assets: { directory: … }`";
            self.lost("its assets", message, help);
        }
        if listed.migration_tag.is_some() {
            let message = format!("`{}` has Durable Object classes that migrations created", self.name);
            self.lost("its classes", message, KEEP);
        }
        let others: Vec<&str> = listed
            .tags
            .iter()
            .map(String::as_str)
            .filter(|tag| tags::read(&[(*tag).to_owned()]) == tags::Marks::default())
            // wrangler's own, with which it tells environments apart.
            .filter(|tag| !tag.starts_with("cf:"))
            .collect();
        if !others.is_empty() {
            let message = format!("the tags of `{}`, {}, have no counterpart in a spec", self.name, others.join(", "));
            self.left_out(message, "a deploy by flotilla replaces them with its own");
        }
    }
}

/// Returns whether the owner of a worker is a fleet, or a preview of it: `shop.preview-123`.
fn is_of(owner: &str, fleet: &str) -> bool {
    owner.strip_prefix(fleet).is_some_and(|rest| rest.is_empty() || rest.starts_with(".preview-"))
}

/// Returns whether a name is one that flotilla gives itself.
fn is_reserved(name: &str) -> bool {
    matches!(name, "DB" | "TURSO_DATABASE_URL" | "TURSO_AUTH_TOKEN")
}

/// Returns the kind of a module that a pack doesn't bundle.
fn unread(module: &ReadModule) -> Option<&'static str> {
    let extension = module.name.rsplit('/').next().unwrap_or_default().rsplit_once('.').map_or("", |(_, end)| end);
    let leads_out = !is_module_path(&module.name);
    match module.kind.as_str() {
        "application/source-map" => None,
        _ if leads_out => Some("called so that it can't be a file of a pack"),
        "application/javascript+module" | "text/javascript+module" | "application/javascript" | "text/javascript" => {
            (!matches!(extension, "js" | "mjs" | "cjs" | "ts" | "mts"))
                .then_some("JavaScript that isn't called so: `….js`")
        }
        "text/plain" => (!matches!(extension, "txt" | "html" | "sql"))
            .then_some("text that the pack's bundler doesn't load as text"),
        "application/wasm" => Some("WebAssembly"),
        "application/octet-stream" => Some("binary data"),
        "text/x-python" | "text/x-python-requirement" => Some("Python"),
        _ => Some("of a type that flotilla doesn't know"),
    }
}

/// Returns the fields that have a value, under a spec's names.
fn renamed(answer: &Value, known: &[(&str, &str)]) -> Map<String, Value> {
    let there = known.iter().filter_map(|(key, name)| Some((*name, answer.get(key)?)));
    there.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value.clone())).collect()
}
