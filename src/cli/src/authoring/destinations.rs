//! Destinations out of the pack's catalogue, and their settings, each by its JSON Schema. A secret's value is entered and stored in a
//! source of secrets; the spec refers to it by name.

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use flotilla_model::diagnostic::did_you_mean;
use flotilla_model::failure::Failure;
use flotilla_model::names::own_secret;
use flotilla_spec::pack::Pack;
use flotilla_spec::schema::{self, Checker};

use super::super::prompts::Prompter;
use super::super::ui::clean;

/// A destination, and the secrets that were typed for it.
pub struct Destination {
    /// Its name for people.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its settings.
    pub settings: Map<String, Value>,
    /// The secrets to store: each entry's name and value.
    pub secrets: Vec<(String, SecretString)>,
}

impl Destination {
    /// Returns its entry in the spec.
    pub fn entry(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "settings": self.settings})
    }
}

/// The schema of one setting.
struct Setting<'a> {
    name: &'a str,
    schema: &'a Value,
    required: bool,
    checker: Checker,
}

impl Setting<'_> {
    fn is_secret(&self) -> bool {
        self.schema["$ref"] == "#/$defs/secret"
    }

    /// Checks a value; the error describes what is expected.
    fn fits(&self, value: &Value) -> Result<(), String> {
        if self.checker.is_valid(&json!({self.name: value})) {
            return Ok(());
        }
        let example = self.schema["examples"][0].as_str().map(|example| format!(", such as {example}"));
        let form = match (&self.schema["pattern"], &self.schema["type"]) {
            (Value::String(pattern), _) => format!("expected a match of {pattern}"),
            (_, Value::String(kind)) => format!("expected a value of type {kind}, within its limits"),
            _ => "it doesn't fit".to_owned(),
        };
        Err(form + &example.unwrap_or_default())
    }

    /// Parses a text as a value of the setting's type.
    fn read(&self, text: &str) -> Result<Value, String> {
        let value = match self.schema["type"].as_str() {
            None | Some("string") => Value::from(text),
            Some(_) => serde_json::from_str(text).map_err(|_| "expected JSON".to_owned())?,
        };
        self.fits(&value).map(|()| value)
    }
}

/// Returns the settings of a type, the required ones first.
fn settings<'a>(pack: &'a Pack, kind: &str) -> Vec<Setting<'a>> {
    let Some(schema) = pack.catalogue.get(kind) else { return Vec::new() };
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|item| item == name));
    let setting = |(name, property): (&'a String, &'a Value)| {
        let own = json!({
            "type": "object", "properties": {name: property}, "$defs": {"secret": schema::secret()},
        });
        let checker = Checker::new(own).ok()?;
        Some(Setting { name, schema: property, required: required(name), checker })
    };
    let mut settings: Vec<Setting<'_>> =
        schema["properties"].as_object().into_iter().flatten().filter_map(setting).collect();
    settings.sort_by_key(|setting| !setting.required);
    settings
}

/// Returns the name of a type's secret: `META_PIXEL_ACCESS_TOKEN`.
fn secret_name(kind: &str, setting: &str) -> String {
    let mut name = kind.to_uppercase().replace('-', "_") + "_";
    for (index, c) in setting.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            name.push('_');
        }
        name.push(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    }
    name
}

/// Parses the destinations of a command line: a type, then its settings as KEY=VALUE, then perhaps another type.
pub fn parse_flags(pack: &Pack, words: &[String]) -> Result<Vec<Destination>, Failure> {
    let mut all: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for word in words {
        match (word.split_once('='), all.last_mut()) {
            (None, _) => all.push((word.clone(), Vec::new())),
            (Some((key, value)), Some((_, settings))) => settings.push((key.to_owned(), value.to_owned())),
            (Some(_), None) => {
                return Err(Failure::usage("--destination needs a type first")
                    .hint("for example: --destination posthog apiKey=phc_…"));
            }
        }
    }
    all.into_iter().map(|(kind, pairs)| destination(pack, &kind, &pairs)).collect()
}

fn destination(pack: &Pack, kind: &str, pairs: &[(String, String)]) -> Result<Destination, Failure> {
    let Some(type_) = pack.types.get(kind) else {
        let near = did_you_mean(kind, pack.types.keys().map(String::as_str));
        let known = pack.types.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        if pack.types.is_empty() {
            return Err(Failure::usage("the pack has no destination types")
                .hint("`catalogue` in its pack.yaml names the file that defines them"));
        }
        return Err(Failure::usage(format!("the pack has no destination type `{}`", clean(kind)))
            .hint(near.map_or(format!("known: {known}"), |near| format!("did you mean `{near}`?"))));
    };
    let settings = settings(pack, kind);
    let mut destination =
        Destination { name: type_.label.clone(), kind: kind.to_owned(), settings: Map::new(), secrets: Vec::new() };
    for (key, written) in pairs {
        let Some(setting) = settings.iter().find(|setting| setting.name == key) else {
            if key == "name" {
                destination.name.clone_from(written);
                continue;
            }
            let near = did_you_mean(key, settings.iter().map(|setting| setting.name));
            return Err(Failure::usage(format!("{kind} has no setting `{}`", clean(key))).hint(
                near.map_or("`flotilla schema customer` has all of them".to_owned(), |near| {
                    format!("did you mean `{near}`?")
                }),
            ));
        };
        let value = match setting.is_secret() {
            true => reference(written).map_err(|wrong| Failure::usage(format!("{kind}, {key}: {wrong}")))?,
            // Not what was written: it may be a secret in the wrong place.
            false => setting.read(written).map_err(|wrong| Failure::usage(format!("{kind}, {key}: {wrong}")))?,
        };
        destination.settings.insert(key.clone(), value);
    }
    for setting in settings.iter().filter(|setting| setting.required) {
        if destination.settings.contains_key(setting.name) {
            continue;
        }
        if !setting.is_secret() {
            return Err(Failure::usage(format!("{kind} requires the setting {}", setting.name))
                .hint(format!("--destination {kind} {}=…", setting.name)));
        }
        let name = secret_name(kind, setting.name);
        destination.settings.insert(setting.name.to_owned(), json!({"secret": name}));
    }
    Ok(destination)
}

/// Returns a reference to a secret by its name: values are never taken from a command line.
fn reference(name: &str) -> Result<Value, String> {
    let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(letters) {
        return Ok(json!({"secret": name}));
    }
    Err("write the secret's NAME, in capital letters; its value is set with `flotilla secrets set NAME`".to_owned())
}

/// Asks for any number of destinations.
pub fn ask(prompter: &Prompter, pack: &Pack, customer: &str) -> Result<Vec<Destination>, Failure> {
    let mut all = Vec::new();
    if pack.types.is_empty() {
        return Ok(all);
    }
    let kinds: Vec<&String> = pack.types.keys().collect();
    let line = |kind: &&String| format!("{} ({kind})", pack.types[*kind].label);
    let items: Vec<String> = std::iter::once("none".to_owned()).chain(kinds.iter().map(line)).collect();
    loop {
        let prompt = if all.is_empty() { "Destination" } else { "Another destination" };
        match prompter.select(prompt, &items, 0)?.checked_sub(1) {
            None => return Ok(all),
            Some(index) => all.push(ask_one(prompter, pack, kinds[index], customer)?),
        }
    }
}

/// Asks for the settings of one destination.
fn ask_one(prompter: &Prompter, pack: &Pack, kind: &str, customer: &str) -> Result<Destination, Failure> {
    let not_empty = |text: &str| if text.is_empty() { Err("it needs a name".to_owned()) } else { Ok(()) };
    let name = prompter.line("Its name", &pack.types[kind].label, not_empty)?;
    let mut destination = Destination { name, kind: kind.to_owned(), settings: Map::new(), secrets: Vec::new() };
    let settings = settings(pack, kind);
    let (wanted, others): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| setting.required);
    let picked = match others.is_empty() {
        true => Vec::new(),
        false => {
            let names: Vec<String> = others.iter().map(|setting| setting.name.to_owned()).collect();
            prompter.multi_select("Settings that can be left out", &names)?
        }
    };
    for setting in wanted.into_iter().chain(picked.into_iter().map(|index| others[index])) {
        if let Some(description) = setting.schema["description"].as_str() {
            prompter.note(&format!("  {}", clean(description)));
        }
        let value = setting_value(prompter, setting, kind, customer, &mut destination.secrets)?;
        destination.settings.insert(setting.name.to_owned(), value);
    }
    Ok(destination)
}

fn setting_value(
    prompter: &Prompter,
    setting: &Setting<'_>,
    kind: &str,
    customer: &str,
    secrets: &mut Vec<(String, SecretString)>,
) -> Result<Value, Failure> {
    let default = &setting.schema["default"];
    if setting.is_secret() {
        let name = secret_name(kind, setting.name);
        if prompter.confirm(&format!("Set {} now?", setting.name), true)? {
            secrets.push((own_secret(customer, &name), prompter.hidden(setting.name)?));
        }
        return Ok(json!({"secret": name}));
    }
    if let Some(choices) = setting.schema["enum"].as_array() {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let items: Vec<String> = choices.iter().map(text).collect();
        let index = choices.iter().position(|choice| choice == default).unwrap_or(0);
        return Ok(choices[prompter.select(setting.name, &items, index)?].clone());
    }
    if setting.schema["type"] == "boolean" {
        return prompter.confirm(setting.name, default.as_bool().unwrap_or(true)).map(Value::from);
    }
    let shown = match default {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = prompter.line(setting.name, &shown, |text| setting.read(text).map(drop))?;
    setting.read(&text).map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_those_that_people_would_choose() {
        assert_eq!(secret_name("meta-pixel", "accessToken"), "META_PIXEL_ACCESS_TOKEN");
        assert_eq!(secret_name("google-analytics", "apiSecret"), "GOOGLE_ANALYTICS_API_SECRET");
        assert!(reference("EAAB1c").is_err() && reference("META_PIXEL_ACCESS_TOKEN").is_ok());
    }
}
