// Turns a value into JavaScript source that is safe inside a <script> element. Knows nothing about vendors.

const escapes: Record<string, string> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

/** The string as a JavaScript literal that can end neither itself, nor its line, nor a script element. */
export const quote = (text: string): string =>
  JSON.stringify(text).replace(/[<>&\u2028\u2029]/g, (char) => escapes[char]!);

/**
 * The value as a JavaScript expression. Two kinds of value exist only in the browser, c15t's runtime values:
 * the date and the timestamp at which the script runs.
 */
export function literal(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (value === undefined) return "void 0";
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "null";
  if (Array.isArray(value)) return `[${value.map(literal).join(",")}]`;
  if (typeof value !== "object") throw new TypeError(`a ${typeof value} cannot be written into a script`);
  const record = value as Record<string, unknown>;
  if (record.kind === "c15t.runtime-value") return record.value === "date" ? "new Date()" : "Date.now()";
  const members = Object.entries(record)
    .filter(([, member]) => member !== undefined)
    // A computed key: `{"__proto__": x}` would set the prototype, `{["__proto__"]: x}` does not.
    .map(([key, member]) => `${key === "__proto__" ? '["__proto__"]' : quote(key)}:${literal(member)}`);
  return `{${members.join(",")}}`;
}
