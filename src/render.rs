//! From a worker to the text of its files, by the pack's templates. The only module that names tera. Pure: reads
//! nothing and writes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tera::{Context, Kwargs, State, Tera};

use crate::bundle;
use crate::customer::{DIGEST_VARIABLE, Worker};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::digest::Digest;
use crate::escape::{self, Language};
use crate::pack::Pack;
use crate::syntax;

/// A pack's templates, parsed.
pub struct Templates {
    tera: Tera,
    path: String,
}

/// What a template can name.
#[derive(Serialize)]
struct View<'a> {
    worker: &'a Worker,
    /// The module specifier of the runtime, relative to the worker's folder.
    runtime: &'a str,
    /// What wrangler calls `vars`; the digest is among them once it is known.
    vars: BTreeMap<&'a str, Cow<'a, Value>>,
    /// What wrangler calls `routes`: custom domains and routes.
    routes: Vec<Value>,
    /// What wrangler calls `observability`.
    observability: Value,
}

impl<'a> View<'a> {
    fn new(worker: &'a Worker, runtime: &'a str, digest: Option<&Digest>) -> View<'a> {
        let mut vars: BTreeMap<&str, Cow<'_, Value>> =
            worker.vars.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value))).collect();
        vars.extend(digest.map(|digest| (DIGEST_VARIABLE, Cow::Owned(json!(digest)))));
        let domains = worker.domains.iter().map(|domain| json!({"pattern": domain, "custom_domain": true}));
        let routes = worker.routes.iter().map(|route| json!({"pattern": route.pattern, "zone_name": route.zone}));
        View {
            worker,
            runtime,
            vars,
            routes: domains.chain(routes).collect(),
            observability: bundle::observability(worker),
        }
    }
}

impl Templates {
    /// Parses a pack's templates; all their mistakes at once.
    pub fn new(pack: &Pack) -> Result<Templates, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let mut tera = engine();
        for (name, text) in &pack.templates {
            if let Err(error) = tera.add_raw_template(name, text) {
                diagnostics.push(told(Code::BadTemplate, &pack.path, name, &error, "see the documentation of tera 2"));
            }
        }
        match diagnostics.as_slice() {
            [] => Ok(Templates { tera, path: pack.path.clone() }),
            _ => Err(diagnostics),
        }
    }

    /// Renders one file and parses what came out.
    pub fn render(
        &self,
        name: &str,
        worker: &Worker,
        runtime: &str,
        digest: Option<&Digest>,
    ) -> Result<String, Box<Diagnostic>> {
        let view = View::new(worker, runtime, digest);
        let failed = |error: &tera::Error| {
            let help = format!("it failed for {}, in {}", worker.file, worker.environment);
            Box::new(told(Code::RenderFailed, &self.path, name, error, &help))
        };
        let context = Context::from_serialize(&view).map_err(|error| failed(&error))?;
        let text = self.tera.render(name, &context).map_err(|error| failed(&error))?;
        syntax::check(name, &text).map_err(|(message, at)| {
            let line = at.and_then(|(line, _)| text.lines().nth(line - 1)).unwrap_or_default();
            let shown: String = line.trim().chars().take(80).collect();
            Box::new(Diagnostic::error(
                Code::RenderedInvalid,
                Place::file(&format!("{}/{name}.tera", self.path)),
                format!("what it renders for {} ({}) does not parse: {message}", worker.file, worker.environment),
                match at {
                    Some((line, column)) => format!("line {line}, column {column} of the rendered {name}: `{shown}`"),
                    None => format!("see the rendered {name}"),
                },
            ))
        })?;
        Ok(text)
    }
}

fn engine() -> Tera {
    let mut tera = Tera::new();
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

fn told(code: Code, path: &str, name: &str, error: &tera::Error, help: &str) -> Diagnostic {
    use tera::ErrorKind::{RenderingError, SyntaxError};
    let mut place = Place::file(&format!("{path}/{name}.tera"));
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
    // As all messages are: no capital, no full stop.
    let mut letters = message.trim_end_matches('.').chars();
    let message: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
    Diagnostic::error(code, place, message, help)
}
