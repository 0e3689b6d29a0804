//! From a worker to the text of its files, by the pack's templates. The only module that names tera. Pure: reads
//! nothing and writes nothing.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tera::{Context, Kwargs, State, Tera};

use crate::escape::{self, Language};
use crate::out;
use crate::syntax;
use flotilla_model::binding;
use flotilla_model::bundle::{self, PackBundle};
use flotilla_model::customer::{DIGEST_VARIABLE, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::{Digest, Framed, ShortHash};
use flotilla_model::reason::Reason;
use flotilla_spec::pack::Pack;

/// A pack's templates, parsed.
pub struct Templates {
    tera: Tera,
    path: String,
}

/// The names that templates can use for one worker: `worker`, `runtime` (the module specifier of the runtime), `vars`, `routes`,
/// `services`, `assets` and `observability` as wrangler calls them, `bindings` (everything else that it is bound to, by wrangler's keys),
/// and `options` (limits, placement, the account's id and the like, likewise). Made once for all files of a worker.
pub struct RenderContext<'a> {
    worker: &'a Worker,
    context: Context,
    /// Whether the digest is among the variables.
    digest: Option<Digest>,
}

impl<'a> RenderContext<'a> {
    /// Returns the context of a worker.
    pub fn new(worker: &'a Worker, pack_bundle: &PackBundle) -> RenderContext<'a> {
        let runtime = pack_bundle.specifier(worker);
        let domains = worker.domains.iter().map(|domain| json!({"pattern": domain, "custom_domain": true}));
        let routes = worker.routes.iter().map(|route| match &route.zone_id {
            Some(id) => json!({"pattern": route.pattern, "zone_id": id}),
            None => json!({"pattern": route.pattern, "zone_name": route.zone}),
        });
        let services = worker.services.iter().map(|(name, to)| json!({"binding": name, "service": to}));
        let mut bindings = binding::wrangler(&worker.bindings);
        // Those within the fleet are in the same list.
        let outside = bindings.remove("services");
        let outside = outside.as_ref().and_then(Value::as_array).into_iter().flatten().cloned();
        if !worker.queue_consumers.is_empty() {
            let consumers = worker.queue_consumers.iter().map(|(queue, consumer)| consumer.wrangler(queue));
            bindings.entry("queues").or_default()["consumers"] = consumers.collect();
        }
        let mut context = Context::new();
        context.insert("worker", worker);
        context.insert("runtime", &runtime);
        if let Some(modules) = &pack_bundle.modules {
            let more = [modules.has_more(), modules.has_source_maps()];
            let bundle = json!({
                "folder": runtime, "main": modules.main, "rules": modules.rules(),
                "has_more": more[0], "has_source_maps": more[1],
            });
            context.insert("bundle", &bundle);
        }
        context.insert("routes", &domains.chain(routes).collect::<Vec<Value>>());
        context.insert("services", &services.chain(outside).collect::<Vec<Value>>());
        context.insert("bindings", &bindings);
        let account_id = worker.account_id.as_ref().map(|id| ("account_id", json!(id)));
        context.insert(
            "options",
            &bundle::wrangler_options(worker).into_iter().chain(account_id).collect::<BTreeMap<_, _>>(),
        );
        context.insert("assets", &wrangler_assets(worker, pack_bundle));
        context.insert("observability", &bundle::observability(worker));
        let mut context = RenderContext { worker, context, digest: None };
        context.vars(None);
        context
    }

    /// Sets the variables; the digest is one as well, once it is known.
    fn vars(&mut self, digest: Option<&Digest>) {
        let own = self.worker.vars.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value)));
        let digest_entry = digest.map(|digest| (DIGEST_VARIABLE, Cow::Owned(json!(digest))));
        self.context.insert("vars", &own.chain(digest_entry).collect::<BTreeMap<&str, Cow<'_, Value>>>());
        self.digest = digest.copied();
    }
}

/// Returns the assets of a worker as wrangler's configuration has them; none if it has none.
fn wrangler_assets(worker: &Worker, pack_bundle: &PackBundle) -> Option<Value> {
    let (assets, digests) = (worker.assets.as_ref()?, pack_bundle.assets_of(worker)?);
    let mut options = assets.options.api();
    let directory = match &assets.own {
        Some(_) => format!("./{}", out::OWN_ASSETS),
        None => {
            let up = if worker.role.is_some() { "../../.." } else { "../.." };
            format!("{up}/{}", out::shared_assets(&digests))
        }
    };
    options.insert("directory".to_owned(), directory.into());
    options.extend(assets.options.binding.as_ref().map(|binding| ("binding".to_owned(), binding.clone().into())));
    Some(options.into())
}

/// The way to fix a template.
const TERA_HELP: &str = "see the documentation of tera 2";

/// Returns the errors of syntax in a pack's templates and partials. That what one includes isn't there is none.
pub fn syntax_errors(path: &str, templates: &[(String, String)], partials: &[(String, String)]) -> Vec<Diagnostic> {
    let error = |(name, text): &(String, String)| {
        let error = engine().add_raw_template(name, text).err()?;
        let is_syntax = matches!(error.kind(), tera::ErrorKind::SyntaxError(_));
        is_syntax.then(|| template_error(Code::BadTemplate, path, name, &error, TERA_HELP))
    };
    templates.iter().chain(partials).filter_map(error).collect()
}

impl Templates {
    /// Parses a pack's templates; returns the errors of all of them at once.
    pub fn new(pack: &Pack) -> Result<Templates, Vec<Diagnostic>> {
        Templates::parse(&pack.path, &pack.templates, &pack.partials)
    }

    /// The same, of a pack's folder and the names and texts of its templates and partials.
    pub fn parse(
        path: &str,
        templates: &[(String, String)],
        partials: &[(String, String)],
    ) -> Result<Templates, Vec<Diagnostic>> {
        let all = || templates.iter().map(|(name, text)| (name, Cow::from(text))).chain(noted(partials));
        let mut tera = engine();
        let Err(error) = tera.add_raw_templates(all()) else {
            return Ok(Templates { tera, path: path.to_owned() });
        };
        let mut diagnostics = syntax_errors(path, templates, partials);
        if diagnostics.is_empty() {
            let help = "see the documentation of tera 2; flotilla adds the filters `ts`, `js`, `json` and `toml`";
            diagnostics = reported_together(path, &error.to_string(), help);
        }
        if diagnostics.is_empty() {
            diagnostics.push(template_error(Code::BadTemplate, path, &templates[0].0, &error, TERA_HELP));
        }
        Err(diagnostics)
    }

    /// Renders one file and parses what came out.
    pub fn render(
        &self,
        name: &str,
        worker: &Worker,
        pack_bundle: &PackBundle,
        digest: Option<&Digest>,
    ) -> Result<String, Box<Diagnostic>> {
        self.render_context(name, &mut RenderContext::new(worker, pack_bundle), digest)
    }

    /// The same, of what was made for several files.
    pub fn render_context(
        &self,
        name: &str,
        context: &mut RenderContext<'_>,
        digest: Option<&Digest>,
    ) -> Result<String, Box<Diagnostic>> {
        let worker = context.worker;
        if context.digest.as_ref() != digest {
            context.vars(digest);
        }
        let failed = |error: &tera::Error| {
            let help = format!("it failed for {}, in {}", worker.file, worker.environment);
            Box::new(template_error(Code::RenderFailed, &self.path, name, error, &help))
        };
        let mut text = Limited(Vec::new());
        self.tera.render_to(name, &context.context, &mut text).map_err(|error| failed(&error))?;
        let text = String::from_utf8(text.0).expect("BUG: templates and values are text");
        syntax::check(name, &text).map_err(|(message, position)| {
            let line = position.and_then(|(line, _)| text.lines().nth(line - 1)).unwrap_or_default();
            let shown: String = line.trim().chars().take(80).collect();
            Box::new(Diagnostic::error(
                Code::RenderedInvalid,
                Place::file(&format!("{}/{name}.tera", self.path)),
                format!("the output for {} ({}) can't be parsed: {message}", worker.file, worker.environment),
                match position {
                    Some((line, column)) => format!("line {line}, column {column} of the rendered {name}: `{shown}`"),
                    None => format!("see the rendered {name}"),
                },
            ))
        })?;
        Ok(text)
    }
}

/// The maximum size, in bytes, of a rendered file: more than any worker may have.
const MOST_BYTES: usize = 64 << 20;

/// The text of a rendered file, which has a limit.
struct Limited(Vec<u8>);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(std::io::Error::other(format!("it renders more than {} MiB", MOST_BYTES >> 20)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

thread_local! {
    /// The partials that the templates have included since it was last emptied, a bit for each.
    static READ: Cell<u64> = const { Cell::new(0) };
}

/// The function that each partial calls at its end, to note that it was read.
const NOTE_READ: &str = "__flotilla_read";

/// Returns the partials, each with a call that notes when it is read. What a template extends, and where components are defined, isn't
/// read line by line, and so is always counted as read: see [`always_read`].
fn noted(partials: &[(String, String)]) -> impl Iterator<Item = (&String, Cow<'_, str>)> {
    partials.iter().enumerate().map(|(index, (name, text))| {
        // At the top level of a template that extends another, only blocks are allowed.
        let text = if index < 64 && !text.contains("extends") {
            format!("{text}{{{{ {NOTE_READ}(n={index}) }}}}").into()
        } else {
            text.into()
        };
        (name, text)
    })
}

/// Returns the partials that always count as read.
fn always_read(pack: &Pack) -> u64 {
    let texts = || pack.templates.iter().chain(&pack.partials).map(|(_, text)| text);
    let mut bits = 0;
    for (index, (name, text)) in pack.partials.iter().enumerate().take(64) {
        let extended = |text: &String| {
            text.split("{%")
                .any(|tag| tag.trim_start_matches(['-', ' ']).starts_with("extends") && tag.contains(name.as_str()))
        };
        if text.contains("component") || text.contains("extends") || texts().any(extended) {
            bits |= 1 << index;
        }
    }
    bits
}

/// Returns the partials that were read in this thread since the last call, a bit for each.
pub fn partials_read() -> u64 {
    READ.take()
}

/// Returns the recipe of a worker's files: the templates of its pack, and those partials that were read.
pub fn recipe(pack: &Pack, bundle: &PackBundle, read: u64) -> Recipe {
    // The template of a wrangler project's packs is flotilla's own.
    let own = if pack.has_own_templates() { pack.templates.as_slice() } else { &[] };
    let templates = own.iter().map(|(name, text)| (format!("{name}.tera"), Digest::of(text.as_bytes()).short_hash()));
    let read = read | always_read(pack);
    let partials = pack.partials.iter().enumerate();
    // A pack with more partials than bits reads them all.
    let partials = partials.filter(|(index, _)| *index >= 64 || read & (1 << index) != 0);
    let partials = partials.map(|(_, (name, text))| (name.clone(), Digest::of(text.as_bytes()).short_hash()));
    Recipe {
        tool: TOOL.to_owned(),
        pack: pack.path.clone(),
        runtime: bundle.file.clone(),
        sources: bundle.sources.to_vec(),
        assets: bundle.assets.as_ref().map(|assets| assets.digests.list.short()),
        asset_files: bundle.asset_files.to_vec(),
        files: pack.file_names().map(str::to_owned).collect(),
        templates: templates.chain(partials).collect(),
    }
}

/// The version of this program, with the digest of its sources that decide bytes.
pub const TOOL: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("FLOTILLA_SOURCES"));

/// Everything that decides a worker's files, beside the worker itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// flotilla's version, and the digest of its sources.
    pub tool: String,
    /// The pack's folder.
    pub pack: String,
    /// The runtime's file.
    pub runtime: String,
    /// The names of the files that it makes.
    pub files: Vec<String>,
    /// The templates that were read, with their digests.
    pub templates: Vec<(String, ShortHash)>,
    /// The files that the runtime was made of, each with the beginning of its digest, if that is known. They explain a recipe, and are no part of its digest:
    /// a change that leaves the runtime as it is rebuilds nothing.
    #[serde(default)]
    pub sources: Vec<(String, u32)>,
    /// The digest of the pack's static assets, if it has any.
    #[serde(default)]
    pub assets: Option<String>,
    /// The files that these are, likewise.
    #[serde(default)]
    pub asset_files: Vec<(String, u32)>,
}

impl Recipe {
    /// Returns the differences from an earlier recipe, in the author's terms.
    pub fn differences(&self, before: &Recipe) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if before.tool != self.tool {
            reasons.push(Reason::ToolChanged { old: before.tool.clone(), new: self.tool.clone() });
        }
        let file = |name: &str| format!("{}/{name}", self.pack);
        for (name, hash) in &self.templates {
            match before.templates.iter().find(|(other, _)| other == name) {
                Some((_, other)) if other != hash => reasons.push(Reason::TemplateChanged { file: file(name) }),
                Some(_) => {}
                None => reasons.push(Reason::TemplateAdded { file: file(name) }),
            }
        }
        let gone = before.templates.iter().filter(|(name, _)| self.templates.iter().all(|(other, _)| other != name));
        reasons.extend(gone.map(|(name, _)| Reason::TemplateRemoved { file: file(name) }));
        if before.assets != self.assets {
            reasons.extend(file_differences(&before.asset_files, &self.asset_files).into_iter().map(of_asset));
        }
        if before.runtime != self.runtime {
            let sources = match before.sources.is_empty() {
                true => Vec::new(),
                false => file_differences(&before.sources, &self.sources),
            };
            if !sources.is_empty() {
                reasons.extend(sources);
                return reasons;
            }
            let (old, new) = (Some(before.runtime.clone()), Some(self.runtime.clone()));
            reasons.push(Reason::PackBundleChanged { old, new });
        }
        reasons
    }

    /// Returns a digest: equal recipes have equal ones.
    pub fn short_hash(&self) -> ShortHash {
        let start = Framed::new("recipe").field(self.tool.as_bytes()).field(self.runtime.as_bytes());
        // A template can become a file, or no longer be one, without another byte.
        let start = start.field(&(self.files.len() as u64).to_le_bytes());
        let files = self.files.iter().fold(start, |framed, name| framed.field(name.as_bytes()));
        let files = self.assets.iter().fold(files, |framed, digest| framed.field(b"assets").field(digest.as_bytes()));
        let all =
            self.templates.iter().fold(files, |framed, (name, hash)| framed.field(name.as_bytes()).field(&hash.0));
        all.finish().short_hash()
    }
}

/// Returns the reason of a file that is an asset.
fn of_asset(reason: Reason) -> Reason {
    match reason {
        Reason::SourceAdded { file } => Reason::AssetAdded { file },
        Reason::SourceRemoved { file } => Reason::AssetRemoved { file },
        Reason::SourceChanged { file } => Reason::AssetChanged { file },
        other => other,
    }
}

/// Returns the differences between two lists of files with the beginnings of their digests.
fn file_differences(old: &[(String, u32)], new: &[(String, u32)]) -> Vec<Reason> {
    let by_path = |list: &[(String, u32)]| list.iter().cloned().collect::<BTreeMap<_, _>>();
    let (old, new) = (by_path(old), by_path(new));
    let changed = new.iter().filter_map(|(file, hash)| match old.get(file) {
        Some(other) if other == hash => None,
        Some(_) => Some(Reason::SourceChanged { file: file.clone() }),
        None => Some(Reason::SourceAdded { file: file.clone() }),
    });
    let removed = old.keys().filter(|file| !new.contains_key(*file));
    let removed = removed.map(|file| Reason::SourceRemoved { file: file.clone() });
    changed.chain(removed).collect()
}

fn engine() -> Tera {
    let mut tera = Tera::new();
    tera.register_function(NOTE_READ, |arguments: Kwargs, _: &State| -> tera::TeraResult<tera::Value> {
        let index: u64 = arguments.must_get("n")?;
        READ.set(READ.get() | 1 << index);
        Ok(tera::Value::safe_string(""))
    });
    tera.autoescape_on([""]);
    tera.set_escape_fn(escape::tera);
    for (name, language) in
        [("ts", Language::Script), ("js", Language::Script), ("json", Language::Json), ("toml", Language::Toml)]
    {
        tera.register_filter(
            name,
            move |value: &tera::Value, arguments: Kwargs, _: &State| -> tera::TeraResult<tera::Value> {
                let indent = arguments.get::<usize>("indent")?.unwrap_or(0);
                let text = escape::literal(value, language, indent).map_err(tera::Error::message)?;
                Ok(tera::Value::safe_string(&text))
            },
        );
    }
    tera
}

/// Returns the errors that tera finds in several templates at once, such as unknown filters: it has no values for them, only one text
/// with a report for each.
fn reported_together(path: &str, text: &str, help: &str) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let (mut message, mut is_marked) = (None, true);
    let is_mark = |line: &str| {
        line.split_once('|')
            .is_some_and(|(_, mark)| mark.contains('^') && mark.chars().all(|c| c == '^' || c.is_whitespace()))
    };
    for line in text.lines() {
        if let Some(found) = line.strip_prefix("error: ") {
            message = Some(lower_case(found));
        } else if let Some(position) = line.trim_start().strip_prefix("--> ")
            && let Some(message) = message.take()
        {
            let mut parts = position.rsplitn(3, ':');
            let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
            let (column, line) = (number(), number());
            let file = template_file(path, parts.next().unwrap_or_default());
            let place = Place { file, line, column, width: 1 };
            diagnostics.push(Diagnostic::error(Code::BadTemplate, place, message, help));
            is_marked = false;
        } else if let Some(last) = diagnostics.last_mut().filter(|_| !is_marked && is_mark(line)) {
            last.place.width = line.matches('^').count();
            is_marked = true;
        }
    }
    diagnostics
}

fn template_file(path: &str, name: &str) -> String {
    format!("{path}/{}.tera", name.trim_end_matches(".tera"))
}

/// Returns a message of tera as all messages are: no capital, no full stop.
fn lower_case(message: &str) -> String {
    // Of several lines, tera's messages are lists.
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let message = lines.join("; ");
    let mut letters = message.trim_end_matches('.').chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}

fn template_error(code: Code, path: &str, name: &str, error: &tera::Error, help: &str) -> Diagnostic {
    use tera::ErrorKind::{RenderingError, SyntaxError};
    let mut place = Place::file(&template_file(path, name));
    let message = match error.kind() {
        SyntaxError(report) | RenderingError(report) => {
            let span = report.span();
            place.line = span.start_line;
            place.column = span.start_col + 1;
            place.width =
                if span.start_line == span.end_line { (span.end_col.saturating_sub(span.start_col)).max(1) } else { 1 };
            report.message().to_owned()
        }
        other => other.to_string(),
    };
    Diagnostic::error(code, place, lower_case(&message), help)
}
