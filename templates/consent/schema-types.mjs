// Turns the JSON Schemas of the catalogue into TypeScript. Supports the keywords that the catalogue uses, and rejects
// others, so that no rule is silently lost. Knows no destination type.

// Rules about values that types cannot express; `flotilla check` enforces them in specs.
const VALUES_ONLY = new Set([
  "pattern", "format", "minimum", "maximum", "minLength", "maxLength", "minItems", "examples", "default", "description",
]);
const SECRET = "#/$defs/secret";

/** The text of `src/settings.ts`. */
export function settingsModule(destinations) {
  const types = Object.entries(destinations);
  const members = types.map(([type, { label, settings }]) =>
    `${comment([label, settings.description].filter(Boolean).join(". "), "  ")}  ${JSON.stringify(type)}: ${settingsType(settings, type)};\n`);
  const urls = types
    .map(([type, { settings }]) => [type, Object.keys(settings.properties).filter((name) => settings.properties[name].format === "uri")])
    .filter(([, names]) => names.length > 0)
    .map(([type, names]) => `  ${JSON.stringify(type)}: ${JSON.stringify(names).replaceAll(",", ", ")},\n`);
  return `// Generated from catalogue.json by \`npm run settings\`: the types of all settings, and which of them are URLs.

/** A secret by its name; its value is a binding of the worker. */
export interface Secret {
  readonly secret: string;
}

/** The settings of each destination type. */
export interface Settings {
${members.join("")}}

/** The settings that hold a URL. */
export const urlSettings: { readonly [T in keyof Settings]?: readonly string[] } = {
${urls.join("")}};
`;
}

/** A settings schema; alternatives of required keys are only at its top level. */
function settingsType(schema, at) {
  const { oneOf, anyOf, ...object } = schema;
  const alternatives = oneOf ?? anyOf;
  if (!alternatives) return typeOf(object, at, "  ");
  const names = [...new Set(alternatives.flatMap(({ required }) => required))];
  const variants = alternatives.map(({ required, ...rest }, index) => {
    if (Object.keys(rest).length > 0) throw new Error(`${at}: an alternative has ${Object.keys(rest)}; only required is known`);
    const chosen = required.map((name) => `${name}: ${typeOf(object.properties[name], `${at}.${name}`, "  ")}`);
    const excluded = oneOf ? names.filter((name) => !required.includes(name)).map((name) => `${name}?: never`) : [];
    return `{ ${[...chosen, ...excluded].join("; ")} }`;
  });
  return `${typeOf(object, at, "  ")} & (${variants.join(" | ")})`;
}

function typeOf(schema, at, indent) {
  const { type, properties, required = [], additionalProperties, items, enum: values, const: constant, $ref, ...rest } = schema;
  const unknown = Object.keys(rest).filter((keyword) => !VALUES_ONLY.has(keyword));
  if (unknown.length > 0) throw new Error(`catalogue.json: ${at} has the keyword ${unknown.join(", ")}, which has no type`);
  if ($ref !== undefined) {
    if ($ref !== SECRET) throw new Error(`catalogue.json: ${at} refers to ${$ref}; only ${SECRET} is known`);
    return "Secret";
  }
  if (values) return values.map((value) => JSON.stringify(value)).join(" | ");
  if (constant !== undefined) return JSON.stringify(constant);
  switch (type) {
    case "string":
    case "boolean":
      return type;
    case "integer":
    case "number":
      return "number";
    case "array":
      return `(${typeOf(items, `${at}[]`, indent)})[]`;
    case "object":
      break;
    default:
      throw new Error(`catalogue.json: ${at} has the type ${type}, which is not known`);
  }
  if (!properties) return "{ [key: string]: unknown }";
  if (additionalProperties !== false) throw new Error(`catalogue.json: ${at} must say additionalProperties: false`);
  const missing = required.filter((name) => !Object.hasOwn(properties, name));
  if (missing.length > 0) throw new Error(`catalogue.json: ${at} requires ${missing.join(", ")}, which it does not have`);
  const inner = `${indent}  `;
  const members = Object.entries(properties).map(([name, property]) => {
    const optional = required.includes(name) ? "" : "?";
    return `${comment(property.description, inner)}${inner}${name}${optional}: ${typeOf(property, `${at}.${name}`, inner)};\n`;
  });
  return `{\n${members.join("")}${indent}}`;
}

function comment(text, indent) {
  if (!text) throw new Error("catalogue.json: a property has no description");
  return `${indent}/** ${text.replaceAll("*/", "*\\/")} */\n`;
}
