// GET /analytics/scripts: the destinations that a consent allows, and the scripts that a page loads for them. Knows
// neither the vendors' details nor the database.

import type { Consent, Destination, Purpose, WorkerConfig } from "./config.ts";
import { json } from "./http.ts";
import { quote } from "./literal.ts";
import type { Log } from "./log.ts";
import { urlSettings } from "./settings.ts";
import { type Installation, vendors } from "./vendors.ts";

const PURPOSES = ["necessary", "measurement", "marketing", "functionality", "experience"] as const satisfies readonly Purpose[];

// The longest meaningful consent has 100 characters; the rest leaves room for escapes and other parameters.
const LONGEST_QUERY = 4096;

const CACHE_LIFE_MS = 5 * 60 * 1000;

/** One element for the page, in the order in which the page must insert them. */
interface Script {
  id: string;
  destination: string;
  destinationId: string;
  type: "script" | "inline";
  src?: string;
  content?: string;
  /** Instead of `content`, if this destination's scripts are already in the page and only the consent is new. */
  update?: string;
  async?: boolean;
  defer?: boolean;
  attributes?: Record<string, string>;
  requiredConsent: readonly Purpose[];
}

interface Generation {
  at: number;
  scripts: Script[];
  destinationCount: number;
}

/** The response to GET /analytics/scripts, with its cache: one entry for each of the 32 possible consents. */
export function createScripts(config: WorkerConfig, log: Log): (url: URL) => Response {
  const cache = new Map<number, Generation>();
  const destinations = config.destinations.map((destination) => ({ destination, settings: browserSettings(destination) }));

  function generate(consent: Consent): Generation {
    const allowed = destinations.filter(({ destination }) =>
      (destination.requiredConsent ?? []).every((purpose) => consent[purpose] === true),
    );
    const scripts = allowed.flatMap(({ destination, settings }) => {
      try {
        return scriptsOf(destination, settings, consent);
      } catch (error) {
        // The error's message may quote a setting; its name does not.
        const name = error instanceof Error ? error.name : "Error";
        log("error", "destination skipped", { type: destination.type, id: destination.id, error: name });
        return [];
      }
    });
    log("info", "scripts generated", {
      totalDestinations: destinations.length,
      enabledDestinations: allowed.length,
      generatedScripts: scripts.length,
    });
    return { at: Date.now(), scripts, destinationCount: allowed.length };
  }

  return (url) => {
    const consent = parseConsent(url);
    if (consent instanceof Response) return consent;
    const key = PURPOSES.reduce((bits, purpose, index) => bits | (consent[purpose] ? 1 << index : 0), 0);
    const known = cache.get(key);
    const cached = known !== undefined && Date.now() - known.at < CACHE_LIFE_MS;
    const generation = cached ? known : generate(consent);
    if (cached) log("debug", "scripts from the cache", { scriptCount: generation.scripts.length });
    else cache.set(key, generation);
    const { at, scripts, destinationCount } = generation;
    const metadata = { generatedAt: new Date(at).toISOString(), consent, destinationCount, cached };
    return json(200, { scripts, metadata });
  };
}

/** The consent in a request, with a value for every purpose; or the response to a request that has none. */
function parseConsent(url: URL): Consent | Response {
  const refuse = (message: string) => json(400, { error: "Invalid consent parameter", message });
  if (url.search.length > LONGEST_QUERY) return refuse(`The query is longer than ${LONGEST_QUERY} characters`);
  const [text, ...others] = url.searchParams.getAll("consent");
  if (!text) return json(400, { error: "Missing consent parameter", message: "Consent preferences are required" });
  if (others.length > 0) return refuse("Consent is given more than once");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return refuse("Consent is not valid JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return refuse("Consent must be an object of purposes and booleans");
  const answers = new Map(Object.entries(value));
  for (const [purpose, answer] of answers) {
    if (!(PURPOSES as readonly string[]).includes(purpose))
      return refuse(`Consent names an unknown purpose; known are ${PURPOSES.join(", ")}`);
    if (typeof answer !== "boolean") return refuse(`Consent to ${purpose} must be true or false`);
  }
  return Object.fromEntries(PURPOSES.map((purpose) => [purpose, answers.get(purpose) === true])) as Record<Purpose, boolean>;
}

function scriptsOf(destination: Destination, settings: Record<string, unknown>, consent: Consent): Script[] {
  const { id, type, requiredConsent } = destination;
  if (!Object.hasOwn(vendors, type)) throw new TypeError("the type is not in the catalogue");
  checkUrls(type, settings);
  const installation = (vendors[type] as (settings: unknown, consent: Consent) => Installation | undefined)(settings, consent);
  if (!installation) return [];
  const { script, setup, loaded, update } = installation;
  const common = { destination: type, destinationId: id, requiredConsent };
  const src = script && httpUrl(script.src, "src");
  const content = inline(setup + (src && loaded ? onceLoaded(src, loaded) : ""));
  const scripts: Script[] = [];
  if (content || update)
    scripts.push({ id: `${id}/setup`, type: "inline", content, ...(update && { update: inline(update) }), ...common });
  if (script && src) {
    const { async, defer } = script;
    const attributes = Object.fromEntries(
      Object.entries(script.attributes ?? {})
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => [name, String(value)]),
    );
    scripts.push({
      id: `${id}/load`,
      type: "script",
      src,
      ...(async === undefined ? {} : { async }),
      ...(defer === undefined ? {} : { defer }),
      ...(Object.keys(attributes).length > 0 ? { attributes } : {}),
      ...common,
    });
  }
  return scripts;
}

const inline = (code: string): string => (code && `(function(w,d){${code}})(window,document);`);

// The vendor's script is inserted by the page, after this one; load events do not bubble, but the document captures them.
const onceLoaded = (src: string, code: string): string =>
  `d.addEventListener("load",function f(e){if(e.target.src!==${quote(src)})return;d.removeEventListener("load",f,true);${code}},true);`;

/** The settings that a browser may see: without secrets, and copied so that no key can reach a prototype. */
function browserSettings({ settings }: Destination): Record<string, unknown> {
  const isSecret = (value: unknown) => typeof value === "object" && value !== null && Object.hasOwn(value, "secret");
  return Object.fromEntries(
    Object.entries(copy(settings) as Record<string, unknown>).filter(([, value]) => !isSecret(value)),
  );
}

function copy(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copy);
  if (typeof value !== "object" || value === null) return value;
  // The helpers assign keys one by one, and assigning `__proto__` sets the prototype. No vendor has such a setting.
  const members = Object.entries(value).filter(([key]) => key !== "__proto__");
  return Object.fromEntries(members.map(([key, member]) => [key, copy(member)]));
}

function checkUrls(type: Destination["type"], settings: Record<string, unknown>): void {
  for (const name of urlSettings[type] ?? []) if (settings[name] !== undefined) httpUrl(String(settings[name]), name);
}

/** The URL as a browser will write it. Some vendors leave the protocol to the page: those get https. */
function httpUrl(text: string, name: string): string {
  const url = new URL(text, "https://localhost");
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new TypeError(`${name} must be an http or https URL`);
  return url.href;
}
