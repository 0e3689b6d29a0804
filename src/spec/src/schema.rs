//! JSON Schemas: documents are checked by them, and the validator's findings are translated into the author's terms. Doesn't know where
//! documents come from.

mod generator;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use crate::yaml::{Document, Kind, Node, Span};
use flotilla_model::binding;
use flotilla_model::customer::TURSO_TOKEN;
use flotilla_model::diagnostic::{Code, Diagnostic, Place, did_you_mean};
use flotilla_model::environment::{self, Environment, Flaw};

pub use generator::{customer, fleet, layer, pack, published, secret};

/// The name of the definition for references to secrets, in catalogues as well.
const SECRET: &str = "SecretReference";

/// A schema that is ready to check documents.
pub struct Checker {
    schema: Value,
    validator: Validator,
}

impl Checker {
    /// Compiles a schema. Errors describe what is wrong with the schema itself.
    pub fn new(schema: Value) -> Result<Checker, String> {
        let options = jsonschema::options()
            .should_validate_formats(true)
            .with_format(environment::FORMAT, |name: &str| Environment::written(name).is_ok())
            .with_format(environment::LASTING, |name: &str| Environment::lasting(name).is_ok());
        let validator = options.build(&schema).map_err(|error| error.to_string())?;
        Ok(Checker { schema, validator })
    }

    /// Compiled once, as all of these: the schema of a customer's spec, without the destination types of any pack.
    pub fn customer() -> &'static Checker {
        static ONCE: LazyLock<Checker> =
            LazyLock::new(|| Checker::new(customer(None)).expect("BUG: the schema of customers compiles"));
        &ONCE
    }

    /// Returns the schema of a layer.
    pub fn layer() -> &'static Checker {
        static ONCE: LazyLock<Checker> =
            LazyLock::new(|| Checker::new(layer(None)).expect("BUG: the schema of layers compiles"));
        &ONCE
    }

    /// Returns the schema of fleet.yaml.
    pub fn fleet() -> &'static Checker {
        static ONCE: LazyLock<Checker> =
            LazyLock::new(|| Checker::new(fleet(None)).expect("BUG: the schema of fleet.yaml compiles"));
        &ONCE
    }

    /// Returns the schema of pack.yaml.
    pub fn pack() -> &'static Checker {
        static ONCE: LazyLock<Checker> =
            LazyLock::new(|| Checker::new(pack()).expect("BUG: the schema of pack.yaml compiles"));
        &ONCE
    }

    /// Checks the part of a document at `path`, whose JSON form is `value`. `subject` names it, as in `a destination
    /// of type meta-pixel`.
    pub fn check(&self, document: &Document, path: &[&str], value: &Value, subject: &str) -> Vec<Diagnostic> {
        self.check_node(document, document.root.along(path.iter().copied()).0, value, subject)
    }

    /// Returns whether a value is right.
    pub fn is_valid(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Checks a node of a document, whose JSON form is `value`.
    pub fn check_node(&self, document: &Document, base: &Node, value: &Value, subject: &str) -> Vec<Diagnostic> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let errors: Vec<ValidationError<'_>> = self.validator.iter_errors(value).collect();
        let misspelt: HashSet<(&str, &str)> = errors.iter().flat_map(|error| self.misspelt(error)).collect();
        let at = |is: fn(&ValidationErrorKind) -> bool| -> HashSet<&str> {
            errors.iter().filter(|error| is(error.kind())).map(|error| error.instance_path().as_str()).collect()
        };
        let (shapeless, several) = (at(is_shapeless), at(is_several));
        errors
            .iter()
            // A value that isn't a map, or has an unknown key, is reported as that, and so is one of several kinds at once.
            .filter(|error| match error.kind() {
                ValidationErrorKind::OneOfNotValid { .. } | ValidationErrorKind::OneOfMultipleValid { .. } => {
                    !shapeless.contains(error.instance_path().as_str())
                }
                ValidationErrorKind::PropertyNames { .. } | ValidationErrorKind::Required { .. } if of_type(error) => {
                    !several.contains(error.instance_path().as_str())
                }
                _ => true,
            })
            // A key that is there, but misspelt, is not missing as well.
            .filter(|error| match error.kind() {
                ValidationErrorKind::Required { property } => {
                    !misspelt.contains(&(error.instance_path().as_str(), property.as_str().unwrap_or_default()))
                }
                _ => true,
            })
            // What was left out as faulty is there, and reported already.
            .filter(|error| match error.kind() {
                ValidationErrorKind::Required { property } => {
                    let path = steps(error.instance_path().as_str());
                    let node = base.along(path.iter().map(String::as_str)).0;
                    !property.as_str().and_then(|key| node.get(key)).is_some_and(Node::is_left_out)
                }
                _ => true,
            })
            .flat_map(|error| self.report(document, base, error, subject))
            .collect()
    }

    /// Returns the smallest parts of a value that are faulty.
    pub fn faults(&self, value: &Value) -> Vec<Fault> {
        let mut faults = Vec::new();
        for error in self.validator.iter_errors(value) {
            let path = steps(error.instance_path().as_str());
            match error.kind() {
                // An entry twice is as good as one.
                ValidationErrorKind::UniqueItems => {}
                ValidationErrorKind::AdditionalProperties { unexpected }
                | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                    let known = self.siblings(&error);
                    for key in unexpected {
                        let meant = did_you_mean(key, known.iter().copied()).map(str::to_owned);
                        faults.push(Fault::Key { path: path.clone(), key: key.clone(), meant });
                    }
                }
                ValidationErrorKind::PropertyNames { error: inner } => {
                    let key = inner.instance().as_str().unwrap_or_default().to_owned();
                    let meant = match inner.kind() {
                        // A key of another type is known, but what was meant by the whole isn't.
                        ValidationErrorKind::Enum { options } if !of_type(&error) => {
                            let words = options.as_array().into_iter().flatten().filter_map(Value::as_str);
                            Some(did_you_mean(&key, words))
                        }
                        ValidationErrorKind::Format { format } if format == environment::FORMAT => Some(meant(&key)),
                        _ => None,
                    };
                    match meant {
                        Some(meant) => faults.push(Fault::Key { path, key, meant: meant.map(str::to_owned) }),
                        None => faults.push(Fault::Value([path, vec![key]].concat())),
                    }
                }
                _ => faults.push(Fault::Value(path)),
            }
        }
        faults
    }

    /// Returns the keys that an error's unknown keys were probably meant to be, with the place of their object.
    fn misspelt<'a>(&'a self, error: &'a ValidationError<'_>) -> Vec<(&'a str, &'a str)> {
        let (ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected }) = error.kind()
        else {
            return Vec::new();
        };
        let known = self.siblings(error);
        let near = unexpected.iter().filter_map(|key| did_you_mean(key, known.iter().copied()));
        near.map(|near| (error.instance_path().as_str(), near)).collect()
    }

    /// Returns what an error means, in the author's terms.
    fn report(&self, document: &Document, base: &Node, error: &ValidationError<'_>, subject: &str) -> Vec<Diagnostic> {
        let pointer = error.instance_path().as_str();
        let steps = steps(pointer);
        if self.is_secret(error) {
            return vec![literal_secret(document, base, error, steps, subject)];
        }
        let (node, _) = base.along(steps.iter().map(String::as_str));
        let what = describe(&steps, subject);
        let whole = if steps.is_empty() { subject.to_owned() } else { what.clone() };
        let at = Located { document, node, what, whole };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => self.unknown_keys(&at, error, unexpected),
            ValidationErrorKind::PropertyNames { error: inner } => self.bad_name(&at, error, inner),
            ValidationErrorKind::UniqueItems => vec![duplicate_item(&at)],
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let help = match self.described(error, key) {
                    Some(description) => format!("add `{key}`: {description}"),
                    None => format!("add `{key}`"),
                };
                at.error(Code::MissingKey, format!("{} has no `{key}`", at.whole), help)
            }
            ValidationErrorKind::Type { kind } => {
                let is_secrets = steps.last().is_some_and(|step| step == "secrets");
                wrong_type(&at, kind, is_secrets && expected(kind) == "a map")
            }
            ValidationErrorKind::Enum { .. }
            | ValidationErrorKind::Constant { .. }
            | ValidationErrorKind::AnyOf { .. }
            | ValidationErrorKind::OneOfNotValid { .. }
            | ValidationErrorKind::OneOfMultipleValid { .. } => self.not_allowed(&at, error),
            ValidationErrorKind::Pattern { .. } | ValidationErrorKind::Format { .. } => self.wrong_form(&at, error),
            _ => out_of_range(&at, error),
        }
    }

    fn unknown_keys(&self, at: &Located<'_>, error: &ValidationError<'_>, unexpected: &[String]) -> Vec<Diagnostic> {
        let known = self.siblings(error);
        let report = |key: &String| {
            let help = match did_you_mean(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "nothing can be set here".to_owned(),
                None => {
                    let plain: Vec<&str> = known.iter().copied().filter(|key| !key.ends_with('+')).collect();
                    format!("known here: {}", plain.join(", "))
                }
            };
            let message = format!("unknown key `{key}` in {}", at.whole);
            Diagnostic::error(Code::UnknownKey, at.key_place(key), message, help)
        };
        unexpected.iter().map(report).collect()
    }

    /// Reports a key that can't be one here.
    fn bad_name(&self, at: &Located<'_>, error: &ValidationError<'_>, inner: &ValidationError<'_>) -> Vec<Diagnostic> {
        let key = inner.instance().as_str().unwrap_or_default().to_owned();
        let (place, what) = (at.key_place(&key), &at.what);
        let (code, help) = match inner.kind() {
            ValidationErrorKind::Pattern { pattern } => (Code::WrongForm, explain_pattern(pattern)),
            // Keys of another type of the same thing.
            ValidationErrorKind::Enum { options } if of_type(error) => {
                let known = self.of_all_types(error);
                if known.is_some_and(|known| known.get(&key).is_none()) {
                    // No type has it, which is reported already.
                    return Vec::new();
                }
                let help = format!("its type takes {}", one_of("", options).trim_start_matches("allowed: "));
                let message = format!("`{key}` doesn't belong to the type of {what}");
                return vec![Diagnostic::error(Code::Conflict, place, message, help)];
            }
            ValidationErrorKind::Enum { options } => (Code::UnknownKey, one_of(&key, options)),
            ValidationErrorKind::Format { format } if format == environment::FORMAT => {
                let flaw = Environment::written(&key).err().unwrap_or(Flaw::Form);
                let code = if meant(&key).is_some() { Code::UnknownKey } else { Code::WrongForm };
                (code, flaw.help())
            }
            _ => (Code::WrongForm, inner.to_string()),
        };
        vec![Diagnostic::error(code, place, format!("`{key}` can't be a name in {what}"), help)]
    }

    /// Reports a value that is none of those that are allowed, or a map that is none of the forms.
    fn not_allowed(&self, at: &Located<'_>, error: &ValidationError<'_>) -> Vec<Diagnostic> {
        let written = error.instance().as_str().unwrap_or_default();
        let message = format!("{} can't be {}", at.what, found(at.node));
        match error.kind() {
            ValidationErrorKind::Enum { options } => at.error(Code::NotAllowed, message, one_of(written, options)),
            ValidationErrorKind::Constant { expected_value } => {
                at.error(Code::NotAllowed, message, format!("expected {expected_value}"))
            }
            kind => {
                let constants = match kind {
                    ValidationErrorKind::OneOfMultipleValid { .. } => None,
                    _ => self.constants(error),
                };
                if let Some(options) = constants {
                    return at.error(Code::NotAllowed, message, one_of(written, &options));
                }
                let help = format!("set exactly one of these: {}", self.alternatives(error).join(" | "));
                at.error(Code::Conflict, format!("{} matches none or several of the allowed forms", at.whole), help)
            }
        }
    }

    /// Reports a text of another form.
    fn wrong_form(&self, at: &Located<'_>, error: &ValidationError<'_>) -> Vec<Diagnostic> {
        let (what, found, example) = (&at.what, found(at.node), self.example(error));
        match error.kind() {
            ValidationErrorKind::Format { format } => {
                let name = error.instance().as_str().unwrap_or_default();
                if let Some(Err(flaw)) = Environment::with_format(format, name) {
                    return at.error(Code::NotAllowed, format!("{what} can't be {found}"), flaw.help());
                }
                let help = match example {
                    Some(example) => format!("write it like {example}"),
                    None => format!("write a valid {format}"),
                };
                at.error(Code::WrongForm, format!("{what} is not a valid {format}: {found}"), help)
            }
            ValidationErrorKind::Pattern { pattern } => {
                let help = match example {
                    Some(example) => format!("{}, such as {example}", explain_pattern(pattern)),
                    None => explain_pattern(pattern),
                };
                at.error(Code::WrongForm, format!("{what} is invalid: {found}"), help)
            }
            _ => out_of_range(at, error),
        }
    }

    /// Returns the schema object that has an error's keyword.
    fn around(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let path = error.schema_path().as_str();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.schema.pointer(parent)
    }

    fn siblings(&self, error: &ValidationError<'_>) -> Vec<&str> {
        self.around(error)
            .and_then(|schema| schema.get("properties"))
            .and_then(Value::as_object)
            .map(|properties| properties.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// Returns the properties of all types where an error is about one type.
    fn of_all_types(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let (whole, _) = error.schema_path().as_str().split_once("/allOf/")?;
        self.schema.pointer(whole)?.get("properties")
    }

    fn described(&self, error: &ValidationError<'_>, key: &str) -> Option<&str> {
        let around =
            self.around(error).and_then(|schema| schema.get("properties")).or_else(|| self.of_all_types(error));
        // Conditions on another key are next to the properties.
        let root = || self.schema.get("properties").filter(|_| error.instance_path().as_str().is_empty());
        let around = around.filter(|around| around.get(key).is_some()).or_else(root);
        let description = around?.get(key)?.get("description")?.as_str()?;
        description.split(['\n']).next().map(|line| line.trim_end_matches('.'))
    }

    fn example(&self, error: &ValidationError<'_>) -> Option<String> {
        Some(self.around(error)?.get("examples")?.get(0)?.to_string())
    }

    /// Returns the allowed values, where the branches of a choice are nothing but constants.
    fn constants(&self, error: &ValidationError<'_>) -> Option<Value> {
        let branches = self.schema.pointer(error.schema_path().as_str())?.as_array()?;
        branches.iter().map(|branch| branch.get("const").cloned()).collect::<Option<Vec<_>>>().map(Value::from)
    }

    fn alternatives(&self, error: &ValidationError<'_>) -> Vec<String> {
        self.schema
            .pointer(error.schema_path().as_str())
            .and_then(Value::as_array)
            .map(|branches| {
                branches
                    .iter()
                    .filter_map(|branch| branch.get("required")?.as_array())
                    .map(|keys| keys.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" and "))
                    .collect()
            })
            .unwrap_or_default()
    }

    fn is_secret(&self, error: &ValidationError<'_>) -> bool {
        let path = error.schema_path().as_str();
        path.starts_with(&format!("/$defs/{SECRET}/")) || path.starts_with("/$defs/secret/")
    }
}

/// A faulty part of a value.
pub enum Fault {
    /// The value at a path.
    Value(Vec<String>),
    /// A key that isn't known in the map at a path, and the one that was probably meant.
    Key {
        /// The path of the map.
        path: Vec<String>,
        /// The key.
        key: String,
        /// The key that was probably meant.
        meant: Option<String>,
    },
}

/// Returns the steps of a JSON pointer.
fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// Maps whose entries can be empty: a name alone says that there is one.
const NAMES: [&str; 4] = ["environments", "workers", "sharedWorkers", "layers"];

/// Returns an error for each key of a document that has no value. As null, it would remove what weaker layers set, and that is seldom
/// meant: its entries are commented out, or it isn't filled in yet.
pub fn empty_values(document: &Document) -> Vec<Diagnostic> {
    fn walk(document: &Document, node: &Node, above: &str, path: &str, found: &mut Vec<Diagnostic>) {
        match &node.kind {
            Kind::Map(entries) => {
                for (key, span, value) in entries {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    // Of a key that was meant to be one of these as well.
                    let is_name = || NAMES.contains(&above) || did_you_mean(above, NAMES).is_some();
                    if matches!(value.kind, Kind::Empty) && !is_name() {
                        let message = format!("`{path}` is empty, which would remove what the defaults and layers set");
                        let help = "write `null` to remove that, `{}` or `[]` for an empty value, or leave the key out";
                        found.push(Diagnostic::error(Code::WrongType, document.place(*span), message, help));
                    }
                    walk(document, value, key, &path, found);
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if matches!(item.kind, Kind::Empty) {
                        let message = format!("`{path}` is an empty item");
                        let help = "write its value after the dash, or remove the dash";
                        found.push(Diagnostic::error(Code::WrongType, document.place(item.span), message, help));
                    }
                    walk(document, item, "", &path, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(document, &document.root, "", "", &mut found);
    found
}

/// Adds what a schema finds, except where reading the file already failed: a value that can't be read has no type.
pub fn add_unreported(diagnostics: &mut Vec<Diagnostic>, found: Vec<Diagnostic>) {
    let reported: Vec<Place> = diagnostics.iter().map(|diagnostic| diagnostic.place.clone()).collect();
    diagnostics.extend(found.into_iter().filter(|found| !reported.contains(&found.place)));
}

/// Returns whether an error reports that something isn't a map of known keys.
fn is_shapeless(kind: &ValidationErrorKind) -> bool {
    use ValidationErrorKind::{AdditionalProperties, Type, UnevaluatedProperties};
    matches!(kind, Type { .. } | AdditionalProperties { .. } | UnevaluatedProperties { .. })
}

/// Returns whether an error reports that something is of several forms at once.
fn is_several(kind: &ValidationErrorKind) -> bool {
    matches!(kind, ValidationErrorKind::OneOfMultipleValid { .. })
}

/// The value that an error is about.
struct Located<'a> {
    document: &'a Document,
    node: &'a Node,
    /// The value in words.
    what: String,
    /// The map whose keys an error is about, in words.
    whole: String,
}

impl Located<'_> {
    fn error(&self, code: Code, message: String, help: String) -> Vec<Diagnostic> {
        vec![Diagnostic::error(code, self.document.place(self.node.span), message, help)]
    }

    fn key_place(&self, key: &str) -> Place {
        self.document.place(self.node.key_span(key).unwrap_or(self.node.span))
    }
}

fn wrong_type(at: &Located<'_>, kind: &TypeKind, is_map_of_secrets: bool) -> Vec<Diagnostic> {
    let what = &at.what;
    if is_map_of_secrets {
        let help = format!("write `{{ MY_KEY: {{ secret: MY_KEY }} }}`; {NEVER_HERE}");
        return at.error(Code::LiteralSecret, format!("{what} must be a map of references to secrets"), help);
    }
    // Text where a map belongs may be a whole database with its token.
    let found = match &at.node.kind {
        Kind::Text(_) if expected(kind) == "a map" => "text".to_owned(),
        _ => found(at.node),
    };
    let message = format!("{what} must be {}, but is {found}", expected(kind));
    at.error(Code::WrongType, message, quoting_help(kind, at.node))
}

/// Reports a value that is too short, too long, too small or too large.
fn out_of_range(at: &Located<'_>, error: &ValidationError<'_>) -> Vec<Diagnostic> {
    let what = &at.what;
    let (message, help) = match error.kind() {
        ValidationErrorKind::MinLength { limit: 1 } => {
            (format!("{what} is empty"), "write something between the quotes".to_owned())
        }
        ValidationErrorKind::MinLength { limit } => {
            (format!("{what} is too short"), format!("it needs at least {limit} characters"))
        }
        ValidationErrorKind::MaxLength { limit } => {
            (format!("{what} is too long"), format!("it may have at most {limit} characters"))
        }
        ValidationErrorKind::MaxProperties { limit } => {
            (format!("{what} has too many keys"), format!("it may have at most {limit}"))
        }
        ValidationErrorKind::Minimum { limit } => {
            (format!("{what} is too small: {}", found(at.node)), format!("it must be at least {}", plain(limit)))
        }
        ValidationErrorKind::Maximum { limit } => {
            (format!("{what} is too large: {}", found(at.node)), format!("it must be at most {}", plain(limit)))
        }
        _ => (format!("{what}: {}", error.masked()), "see the schema".to_owned()),
    };
    at.error(Code::WrongForm, message, help)
}

fn duplicate_item(at: &Located<'_>) -> Diagnostic {
    let items: &[Node] = if let Kind::List(items) = &at.node.kind { items } else { &[] };
    // By lookup: a list can be long.
    let mut first: HashMap<String, Span> = HashMap::new();
    let twice = items
        .iter()
        .find_map(|item| first.insert(item.to_value().to_string(), item.span).map(|before| (before, item.span)));
    let place = at.document.place(twice.map_or(at.node.span, |(_, again)| again));
    let message = format!("{} has a duplicate entry", at.what);
    let diagnostic = Diagnostic::error(Code::WrongForm, place, message, "keep one of them");
    match twice {
        Some((first, _)) => diagnostic.also(at.document.place(first), "first defined here"),
        None => diagnostic,
    }
}

/// Returns whether an error is about the fields of one type.
fn of_type(error: &ValidationError<'_>) -> bool {
    error.schema_path().as_str().contains("/allOf/")
}

/// The place where the values of secrets belong.
const NEVER_HERE: &str = "the value belongs in the environment or in a dotenv file outside git; if it was ever \
                          committed, replace it";

/// Reports a wrong reference to a secret: nothing of its value is repeated.
fn literal_secret(
    document: &Document,
    base: &Node,
    error: &ValidationError<'_>,
    mut steps: Vec<String>,
    subject: &str,
) -> Diagnostic {
    let place = document.place(base.along(steps.iter().map(String::as_str)).0.span);
    // Within the reference: the name in it.
    let inner = steps.last().is_some_and(|step| step == "secret") && error.schema_path().as_str().contains("/secret/");
    if inner {
        steps.pop();
    }
    let last = steps.last().map_or("", String::as_str);
    let name = match steps.first().map(String::as_str) {
        Some("database") => TURSO_TOKEN.to_owned(),
        Some("accounts") => "CLOUDFLARE_API_TOKEN".to_owned(),
        _ => secret_name(last, subject),
    };
    let what = describe(&steps, subject);
    let message = if inner {
        format!("{what} is not the name of a secret")
    } else {
        format!("{what} must be a reference to a secret, and nothing else")
    };
    let help = format!("write `{{ secret: {name} }}`, with a name in upper case; {NEVER_HERE}");
    Diagnostic::error(Code::LiteralSecret, place, message, help)
}

/// Returns a path in the author's notation: `destinations[0].settings.pixelId`.
fn describe(steps: &[String], subject: &str) -> String {
    let mut text = String::new();
    for step in steps {
        if step.bytes().all(|byte| byte.is_ascii_digit()) {
            text += &format!("[{step}]");
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text += step;
        }
    }
    match (text.as_str(), subject) {
        ("", subject) => subject.to_owned(),
        (_, "a customer" | "a fleet" | "a pack" | "the defaults") => format!("`{text}`"),
        (_, subject) => format!("`{text}` of {subject}"),
    }
}

/// Returns the usual environment that a name was probably meant to be.
fn meant(name: &str) -> Option<&'static str> {
    match Environment::written(name) {
        Err(Flaw::Misspelt(near)) => Some(near),
        _ => None,
    }
}

/// Returns a help text with the allowed values, or the one that was probably meant.
fn one_of(written: &str, options: &Value) -> String {
    let options: Vec<&str> =
        options.as_array().map(|options| options.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    match did_you_mean(written, options.iter().copied()) {
        // If a suggestion is close, a long list of values doesn't help.
        Some(near) if options.len() > 40 => format!("did you mean `{near}`?"),
        Some(near) => format!("did you mean `{near}`? allowed: {}", options.join(", ")),
        None => format!("allowed: {}", options.join(", ")),
    }
}

fn expected(kind: &TypeKind) -> String {
    let name = |kind: String| match kind.as_str() {
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "nothing",
    };
    match kind {
        TypeKind::Single(kind) => name(kind.to_string()).to_owned(),
        // Null, which removes what a weaker layer has, isn't one of the forms to suggest.
        TypeKind::Multiple(kinds) => kinds
            .iter()
            .map(|kind| kind.to_string())
            .filter(|kind| kind != "null")
            .map(|kind| name(kind).to_owned())
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

fn found(node: &Node) -> String {
    match &node.kind {
        Kind::Empty => "empty".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::Bool(bool) => format!("{bool}"),
        Kind::Number(_, raw) => format!("the number {raw}"),
        // An address can carry credentials.
        Kind::Text(text) if text.contains("://") && text.contains(['@', '?']) => {
            "an address with credentials or a query".to_owned()
        }
        Kind::Text(text) if text.chars().count() <= 60 => format!("{text:?}"),
        Kind::Text(text) => format!("a text of {} characters", text.chars().count()),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
        Kind::LeftOut => "left out".to_owned(),
    }
}

/// Returns a limit as people write it: 1 rather than 1.0.
fn plain(limit: &Value) -> String {
    let text = limit.to_string();
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn quoting_help(kind: &TypeKind, node: &Node) -> String {
    let wanted = expected(kind);
    match &node.kind {
        Kind::Number(_, raw) if wanted == "text" => format!("write it in quotes: \"{raw}\""),
        Kind::Bool(bool) if wanted == "text" => format!("write it in quotes: \"{bool}\""),
        Kind::Empty | Kind::Null => "give it a value, or remove the key".to_owned(),
        Kind::Text(text) if wanted == "a list" => format!("write it as a list: `[{text}]`"),
        _ if wanted == "a map" => "write it as a map: `key: value`".to_owned(),
        Kind::Text(text) if wanted == "true or false" => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => "write `true`: in YAML 1.2, on and yes are text".to_owned(),
            "no" | "off" | "n" => "write `false`: in YAML 1.2, off and no are text".to_owned(),
            _ => "write `true` or `false`".to_owned(),
        },
        Kind::Text(text) if wanted.ends_with("number") && text.parse::<f64>().is_ok() => {
            format!("write it without quotes: {text}")
        }
        _ => format!("expected {wanted}"),
    }
}

/// Explains a pattern to people.
fn explain_pattern(pattern: &str) -> String {
    match pattern {
        "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" => {
            "lower-case letters, digits and hyphens, with a letter or digit at both ends".to_owned()
        }
        "^[A-Z][A-Z0-9_]*$" => {
            "expected the name of a secret: upper-case letters, digits and underscores, as in TURSO_AUTH_TOKEN"
                .to_owned()
        }
        "^[A-Za-z_][A-Za-z0-9_]*$" => {
            "use letters, digits and underscores; the first character can't be a digit".to_owned()
        }
        binding::ID => "expected an id of 32 characters: digits, and letters from a to f".to_owned(),
        binding::UUID => "expected an id such as 0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01".to_owned(),
        "^[0-9]+$" => "expected only digits, in quotes".to_owned(),
        "^[0-9]+\\.[0-9]+\\.[0-9]+$" => "expected an exact version, such as 4.164.0".to_owned(),
        "\\.(toml|json|jsonc)$" => "expected the path of a wrangler.toml, wrangler.json or wrangler.jsonc".to_owned(),
        "^smart$" => "expected `smart`, or a map: `{ region: aws:us-east-1 }`".to_owned(),
        "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$" => "expected a date, such as 2026-06-01".to_owned(),
        "^(libsql|https)://[^\\s/?#@]+/?$" => {
            "expected an address without a path or credentials, such as libsql://acme.turso.io".to_owned()
        }
        other => format!("expected a match of {other}"),
    }
}

/// Returns a name for a secret, from the setting that holds it: `accessToken` of meta-pixel → META_PIXEL_ACCESS_TOKEN.
fn secret_name(setting: &str, subject: &str) -> String {
    if !setting.is_empty() && setting.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
        return setting.to_owned();
    }
    let kind = subject.rsplit_once(" type ").map_or("", |(_, kind)| kind);
    let mut name = String::new();
    for part in [kind, setting] {
        if !name.is_empty() && !part.is_empty() {
            name.push('_');
        }
        let mut before = '_';
        for c in part.chars() {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                name.push('_');
            }
            before = c;
            name.push(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        }
    }
    if name.starts_with(|c: char| c.is_ascii_uppercase()) { name } else { "NAME".to_owned() }
}

#[cfg(test)]
mod tests;
