//! JSON Schemas, generated from the types of `spec`: those that documents are checked by, and those that are published for editors.

use std::collections::HashSet;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use flotilla_model::binding;
use flotilla_model::environment;
use flotilla_model::spec::{
    Assignment, BUNDLER_KEYS, FleetFile, Identity, InEnvironment, LayerRule, PackFile, Role, Roles, SecretReference,
    Settings, TEMPLATE_KEYS,
};

/// Returns the JSON Schema of customers/*.yaml. With a catalogue, editors complete and check destinations, too.
pub fn customer(catalogue: Option<&Map<String, Value>>) -> Value {
    let mut schema = layered(&[of::<Identity>(), settable()], "flotilla customer");
    schema["required"] = json!(["id"]);
    complete(&mut schema, catalogue);
    schema
}

/// Returns the JSON Schema of layers/*.yaml.
pub fn layer(catalogue: Option<&Map<String, Value>>) -> Value {
    let mut schema = layered(&[settable()], "flotilla layer");
    schema["description"] = "Settings that several customers share.".into();
    complete(&mut schema, catalogue);
    schema
}

/// Returns the JSON Schema of fleet.yaml.
pub fn fleet(catalogue: Option<&Map<String, Value>>) -> Value {
    let mut schema = of::<FleetFile>();
    let mut labels = of::<Identity>();
    labels["properties"].as_object_mut().expect("BUG: an object").retain(|key, _| key == "labels");
    let mut defaults = layered(&[settable(), labels], "defaults");
    let definitions = defaults["$defs"].take();
    merge(&mut schema["$defs"], definitions);
    let object = defaults.as_object_mut().expect("BUG: a schema is an object");
    for key in ["$defs", "$schema", "title"] {
        object.remove(key);
    }
    defaults["description"] = schema["properties"]["defaults"]["description"].take();
    schema["properties"]["defaults"] = defaults;
    let mut rule = of::<LayerRule>();
    merge(&mut schema["$defs"], rule["$defs"].take());
    for key in ["$defs", "$schema", "title"] {
        rule.as_object_mut().expect("BUG: a schema is an object").remove(key);
    }
    rule["type"] = json!(["object", "null"]);
    schema["properties"]["layers"]["additionalProperties"] = rule;
    complete(&mut schema, catalogue);
    schema
}

/// Returns the properties that can be set at every level: in the defaults, in a layer, in a spec.
fn settable() -> Value {
    let mut schema = of::<Settings>();
    for part in [of::<Assignment>(), of::<Roles>()] {
        merge(&mut schema["properties"], part["properties"].clone());
        merge(&mut schema["$defs"], part["$defs"].clone());
    }
    // Both may be empty: `production:`.
    for (name, from) in [("InEnvironment", of::<InEnvironment>()), ("Role", of::<Role>())] {
        schema["$defs"][name] = json!({
            "description": schema["$defs"][name]["description"],
            "type": ["object", "null"],
            "properties": from["properties"],
            "additionalProperties": false,
        });
        merge_into_layers(&mut schema["$defs"][name]["properties"]);
    }
    for name in ["Cors", "Database", "Logs", "Observability", "QueueConsumer", "RequestLimits", "Traces"] {
        merge_into_layers(&mut schema["$defs"][name]["properties"]);
    }
    let kinds: HashSet<&str> = binding::KINDS.iter().map(binding::Kind::key).collect();
    let fields = schema["$defs"]["Binding"]["properties"].as_object_mut().into_iter().flatten();
    fields.filter(|(key, _)| !kinds.contains(key.as_str())).for_each(|(_, field)| nullable(field));
    merge_into_layers(&mut schema["properties"]);
    schema
}

/// Extends properties for layers, which can remove one by `null`, and append to a list by `key+`.
fn merge_into_layers(properties: &mut Value) {
    let Some(properties) = properties.as_object_mut() else { return };
    let mut appended = Map::new();
    for (key, property) in properties.iter_mut() {
        if property["type"] == "array" {
            let mut append = property.clone();
            append["description"] = format!("Appended to the `{key}` of the weaker layers.").into();
            appended.insert(format!("{key}+"), append);
        }
        if let Some(entries) = property.get_mut("additionalProperties")
            && key != "environments"
            && key != "workers"
        {
            nullable(entries);
        }
        nullable(property);
    }
    properties.extend(appended);
}

fn nullable(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(reference) = object.remove("$ref") {
        // Not a choice of two: the errors of the intended one would be lost.
        object.insert("if".to_owned(), json!({"type": "null"}));
        object.insert("else".to_owned(), json!({"$ref": reference}));
    }
    match object.get_mut("type") {
        Some(Value::Array(types)) if !types.contains(&"null".into()) => types.push("null".into()),
        Some(kind @ Value::String(_)) => *kind = json!([kind, "null"]),
        _ => {}
    }
    if let Some(Value::Array(options)) = object.get_mut("enum") {
        options.push(Value::Null);
    }
}

/// Returns the JSON Schema of pack.yaml.
pub fn pack() -> Value {
    let mut schema = of::<PackFile>();
    schema["if"] = json!({"required": ["bundler"]});
    schema["then"] = json!({"required": BUNDLER_KEYS[..1]});
    // Assets alone need no code.
    let has_code = TEMPLATE_KEYS.map(|key| json!({"required": [key]}));
    schema["else"] = json!({
        "if": {"required": ["assets"], "not": {"anyOf": has_code}},
        "else": {"required": TEMPLATE_KEYS},
    });
    schema
}

/// The keywords that hold for values of one type alone.
const KEYWORDS: [(&[&str], &[&str]); 4] = [
    (
        &["object"],
        &["properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"],
    ),
    (&["array"], &["items", "uniqueItems", "minItems", "maxItems"]),
    (&["string"], &["pattern", "format", "minLength", "maxLength"]),
    (&["number", "integer"], &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
];

/// Returns a schema as it is written to schema/: it takes the same values, and ajv compiles it in its strict mode, as ajv-cli and
/// SchemaStore do. That mode has no formats for numbers, and requires each required key under `properties`, and one type at a time.
pub fn published(schema: Value) -> Value {
    let mut object = match schema {
        Value::Object(object) => object,
        Value::Array(items) => return items.into_iter().map(published).collect(),
        other => return other,
    };
    for (keyword, value) in &mut object {
        let inner = value.take();
        *value = match (keyword.as_str(), inner) {
            ("enum" | "const" | "examples" | "default", inner) => inner,
            ("properties" | "$defs", Value::Object(named)) => {
                named.into_iter().map(|(name, schema)| (name, published(schema))).collect()
            }
            (_, inner) => published(inner),
        };
    }
    if let Some(names) = object.get("format").and_then(Value::as_str).and_then(environment::published) {
        object.remove("format");
        object.extend(names);
    }
    if object
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| ["int", "uint", "float", "double"].iter().any(|number| format.starts_with(number)))
    {
        object.remove("format");
    }
    if let Some(required) = object.get("required").and_then(Value::as_array).cloned()
        && let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut()
    {
        for key in required.iter().filter_map(Value::as_str) {
            properties.entry(key).or_insert(Value::Bool(true));
        }
    }
    let types = object.get("type").and_then(Value::as_array).cloned().unwrap_or_default();
    if types.iter().filter(|kind| *kind != "null").count() > 1 {
        let branch = |kind: Value| {
            let own =
                KEYWORDS.iter().filter(|(kinds, _)| kinds.iter().any(|own| kind == *own)).flat_map(|(_, words)| *words);
            let own = own.filter_map(|word| Some(((*word).to_owned(), object.get(*word)?.clone())));
            Value::Object([("type".to_owned(), kind.clone())].into_iter().chain(own).collect())
        };
        let branches = json!({"anyOf": types.into_iter().map(branch).collect::<Vec<_>>()});
        object.remove("type");
        KEYWORDS.iter().flat_map(|(_, words)| *words).for_each(|word| drop(object.remove(*word)));
        match object.entry("allOf").or_insert_with(|| json!([])) {
            Value::Array(all) => all.push(branches),
            other => *other = branches,
        }
    }
    Value::Object(object)
}

/// Returns the schema of a reference to a secret, which catalogues call `#/$defs/secret`.
pub fn secret() -> Value {
    let mut schema = of::<SecretReference>();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
    }
    schema
}

fn of<T: JsonSchema>() -> Value {
    let schema = SchemaSettings::draft2020_12()
        .with_transform(schemars::transform::RecursiveTransform(without_null))
        .into_generator()
        .into_root_schema_for::<T>();
    let mut value = Value::from(schema);
    if value.get("$defs").is_none() {
        value["$defs"] = json!({});
    }
    value
}

/// An option is a key that may be left out, not one that may be null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [single] = types.as_slice() {
            let single = single.clone();
            object.insert("type".to_owned(), single);
        }
    }
    if let Some(Value::Array(options)) = object.get_mut("enum") {
        options.retain(|option| !option.is_null());
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| branch != &json!({"type": "null"}));
        if let [single] = branches.as_slice() {
            let single = single.clone();
            object.remove("anyOf");
            for (key, value) in single.as_object().into_iter().flatten() {
                object.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

/// Merges several object schemas into one.
fn layered(parts: &[Value], title: &str) -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": parts[0]["description"],
        "type": "object",
        "properties": {},
        "additionalProperties": false,
        "$defs": {},
    });
    for part in parts {
        merge(&mut schema["properties"], part["properties"].clone());
        merge(&mut schema["$defs"], part["$defs"].clone());
    }
    schema
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Adds a pack's destination types.
fn complete(schema: &mut Value, catalogue: Option<&Map<String, Value>>) {
    let Some(catalogue) = catalogue else { return };
    schema["$defs"]["secret"] = secret();
    if catalogue.is_empty() {
        let none = "No pack of this fleet has destination types, so there are no destinations.";
        schema["$defs"]["Destination"] = json!({"description": none, "not": {}});
        return;
    }
    let destination = &mut schema["$defs"]["Destination"];
    destination["properties"]["type"]["enum"] = catalogue.keys().cloned().collect();
    destination["allOf"] = catalogue
        .iter()
        .map(|(name, settings)| {
            let mut then = json!({"properties": {"settings": settings}});
            if settings["required"].as_array().is_some_and(|required| !required.is_empty()) {
                then["required"] = json!(["settings"]);
            }
            json!({"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": then})
        })
        .collect();
}
