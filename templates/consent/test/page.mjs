// Knows a page as far as a vendor's first script does: a window, a document, scripts that load in order. Also runs the
// helpers of @c15t/scripts with their own engine in such a page, for comparison. Knows nothing of the worker.

import { register } from "node:module";
import vm from "node:vm";
import { builtInScriptIntegrations } from "@c15t/scripts/registry";

// The engine reports what it does to c15t, which is not installed.
register(`data:text/javascript,${encodeURIComponent(`
  export const resolve = (specifier, context, next) => specifier === "c15t"
    ? { url: "data:text/javascript,export const emitScriptDebugEvent = () => {}", shortCircuit: true }
    : next(specifier, context);`)}`);

/** What vendors' own scripts would have brought, written down when it is called. */
function vendorGlobals() {
  const calls = [];
  return {
    calls,
    UET: function (options) {
      this.options = options;
      this.push = (...args) => calls.push(["uetq.push", args]);
    },
    LogRocket: { init: (...args) => calls.push(["LogRocket.init", args]) },
    databuddy: { options: { disabled: "unset" } },
    pirschInit: () => calls.push(["pirschInit", []]),
    console: Object.fromEntries(["debug", "info", "warn", "error"].map((level) => [level, (...args) => calls.push([level, args])])),
  };
}

/** The window after a page inserted these scripts, and then had them again for the same consent. */
export function insert(scripts) {
  const window = vendorGlobals();
  const listeners = new Set();
  const document = {
    readyState: "complete",
    addEventListener: (_type, listener) => listeners.add(listener),
    removeEventListener: (_type, listener) => listeners.delete(listener),
  };
  const context = vm.createContext({ window, document });
  for (const { type, content, src } of scripts)
    if (type === "inline") vm.runInContext(content, context);
    else for (const listener of [...listeners]) listener({ target: { src } });
  if (listeners.size > 0) throw new Error("a script waits for another that was not sent");
  for (const { update } of scripts) if (update) vm.runInContext(update, context);
  return window;
}

/** The same with the vendor's helper and engine: the window, and what the helper wants loaded. */
export async function insertOriginal(type, settings, consents) {
  const { key, packageSubpath } = builtInScriptIntegrations.find((it) => it.packageSubpath === type);
  const module = await import(`@c15t/scripts/${packageSubpath}`);
  const script = (module[key] ?? module.clarity)(settings);
  const info = { consents, hasConsent: script.alwaysLoad ? consents[script.category] : true, elementId: "element" };
  const window = vendorGlobals();
  Object.assign(globalThis, { window, document: { readyState: "complete" } });
  script.onBeforeLoad?.(info);
  script.onLoad?.(info);
  script.onConsentChange?.(info);
  return { window, script };
}

/** A value of a page as plain data that can be compared: functions by their properties, times by their kind. */
export function plain(value, seen = new Set()) {
  if (typeof value === "number") return value > 1e12 ? "time" : value;
  if (value === null || (typeof value !== "object" && typeof value !== "function")) return value;
  if (seen.has(value)) return "seen";
  seen.add(value);
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind === "Date" || kind === "Promise") return kind;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => [name, plain(member, seen)]);
  return { kind, members };
}
