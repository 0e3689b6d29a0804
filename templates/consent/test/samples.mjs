// Knows how to make settings from the catalogue's schemas: the least, all of them, and hostile ones.

import { readFileSync } from "node:fs";

export const { destinations: catalogue } = JSON.parse(readFileSync(new URL("../catalogue.json", import.meta.url), "utf8"));

/** Ends a string, a template, a line, a comment and a script element, if anything lets it. */
export const HOSTILE = "\"'`${alert(1)}</script><!--\u2028\u2029\n\\*/&a=b#c";

const NAMES = { least: leastNames, all: allNames };

/** One destination of each type. */
export const sampleDestinations = (kind) =>
  Object.entries(catalogue).map(([type, { requiredConsent, settings }]) => ({
    id: type,
    name: type,
    type,
    requiredConsent,
    settings: Object.fromEntries(NAMES[kind](settings).map((name) => [name, sample(name, settings.properties[name])])),
  }));

export const hostileDestinations = () =>
  sampleDestinations("all").map((destination) => ({
    ...destination,
    id: destination.id + HOSTILE,
    settings: Object.fromEntries(
      Object.entries(destination.settings).map(([name, value]) => {
        const { type, format, properties, enum: values } = catalogue[destination.type].settings.properties[name];
        if (type === "string" && !format && !values) return [name, HOSTILE];
        if (type === "object" && !properties) return [name, JSON.parse(`{"__proto__":{"polluted":true},"key":${JSON.stringify(HOSTILE)}}`)];
        return [name, value];
      }),
    ),
  }));

function leastNames({ required, oneOf, anyOf }) {
  return [...required, ...((oneOf ?? anyOf)?.[0].required ?? [])];
}

function allNames({ properties, oneOf }) {
  const excluded = oneOf?.slice(1).flatMap(({ required }) => required) ?? [];
  return Object.keys(properties).filter((name) => !excluded.includes(name));
}

function sample(name, { $ref, type, examples, default: byDefault, enum: values, format, items, properties }) {
  if ($ref) return { secret: "A_SECRET" };
  if (examples) return examples[0];
  if (byDefault !== undefined) return byDefault;
  if (values) return values[0];
  if (format === "uri") return "https://cdn.example/script.js";
  switch (type) {
    case "string":
      return `${name}-sample`;
    case "boolean":
      return true;
    case "integer":
      return 7;
    case "array":
      return [sample(name, items)];
    case "object":
      return properties ? Object.fromEntries(Object.entries(properties).map(([inner, schema]) => [inner, sample(inner, schema)])) : { key: "value" };
  }
}
