// Turns the steps of a vendor manifest into JavaScript source. Replaces the engine of @c15t/scripts, which runs them in
// the browser, where c15t itself is available; here the worker writes them out, for a page that only has the scripts
// that it is sent. Knows no vendor and no destination.

import { literal, quote } from "./literal.ts";
import type { Consent } from "./config.ts";

type Values = Record<string, unknown>;
/** A step as @c15t/scripts declares it; which fields there are depends on its type. */
export type Step = { type: string } & Values;

/** The result of the compile phase of @c15t/scripts, as far as it is used here. */
export interface ResolvedManifest {
  category: string;
  alwaysLoad?: boolean;
  loadScript?: { src: string; async?: boolean; defer?: boolean; attributes?: Values };
  bootstrapSteps: Step[];
  setupSteps: Step[];
  afterLoadSteps: Step[];
  onBeforeLoadGrantedSteps: Step[];
  onBeforeLoadDeniedSteps: Step[];
  onLoadGrantedSteps: Step[];
  onLoadDeniedSteps: Step[];
  onConsentChangeSteps: Step[];
  onConsentGrantedSteps: Step[];
  onConsentDeniedSteps: Step[];
  consentMapping?: Record<string, string[]>;
  consentSignal?: "gtag" | "rudderstack";
  consentSignalTarget?: string;
}

/** The result of a helper of @c15t/scripts: the manifest as data, where its own engine returns closures. */
export interface VendorScript {
  alwaysLoad?: boolean;
  /** Missing where the vendor loads nothing at all (posthog, disabled). */
  manifest?: ResolvedManifest;
}

/** The name that the helpers import. */
export const resolvedManifestToScript = (manifest: ResolvedManifest): VendorScript => ({
  ...(manifest.alwaysLoad === undefined ? {} : { alwaysLoad: manifest.alwaysLoad }),
  manifest,
});

/** The three moments of a vendor in a page, as source: before its script, after it, and when the consent changes. */
export interface Phases {
  setup: string;
  loaded: string;
  update: string;
}

export function phases({ alwaysLoad, manifest }: VendorScript & { manifest: ResolvedManifest }, consent: Consent): Phases {
  // A vendor that waits for its consent is sent only when that was given; one that always loads has to be informed.
  const granted = !alwaysLoad || consent[manifest.category as keyof Consent] === true;
  const setup = [
    ...manifest.bootstrapSteps,
    ...consentSignal(manifest, "default", consent),
    ...manifest.setupSteps,
    ...(granted ? manifest.onBeforeLoadGrantedSteps : manifest.onBeforeLoadDeniedSteps),
  ];
  const loaded = [...manifest.afterLoadSteps, ...(granted ? manifest.onLoadGrantedSteps : manifest.onLoadDeniedSteps)];
  const update = [
    ...consentSignal(manifest, "update", consent),
    ...manifest.onConsentChangeSteps,
    ...(granted ? manifest.onConsentGrantedSteps : manifest.onConsentDeniedSteps),
  ];
  return { setup: source(setup), loaded: source(loaded), update: source(update) };
}

/** A step that calls a global function, or a method of a global object, if it is there. */
export const call = (global: string, args: unknown[], method?: string): Step => ({
  type: "callGlobal",
  global,
  args,
  ...(method === undefined ? {} : { method }),
});

/** The vendor's own consent API, in the vendor's own terms. */
function consentSignal(manifest: ResolvedManifest, mode: "default" | "update", consent: Consent): Step[] {
  const { consentMapping, consentSignal: signal, consentSignalTarget: target } = manifest;
  if (!consentMapping || !signal) return [];
  const names = Object.entries(consentMapping).flatMap(([purpose, names]) =>
    names.map((name) => [name, consent[purpose as keyof Consent] === true] as const),
  );
  if (signal === "gtag") {
    const state = Object.fromEntries(names.map(([name, granted]) => [name, granted ? "granted" : "denied"]));
    return [call(target ?? "gtag", ["consent", mode, state])];
  }
  const consentManagement = {
    enabled: true,
    provider: "custom",
    allowedConsentIds: names.filter(([, granted]) => granted).map(([name]) => name),
    deniedConsentIds: names.filter(([, granted]) => !granted).map(([name]) => name),
  };
  return [call(target ?? "rudderanalytics", [{ consentManagement }], "consent")];
}

const source = (steps: readonly Step[]): string => steps.map(stepSource).join("");

function stepSource(step: Step): string {
  const write = writers[step.type];
  if (!write) throw new Error(`a manifest step of the unknown type ${step.type}`);
  return write(step);
}

// In the written source `w` is the window.
const global = (name: unknown): string => `w[${quote(String(name))}]`;
const unlessDefined = (step: Step, name: unknown, code: string): string =>
  step.ifUndefined === false ? code : `if(${global(name)}===void 0){${code}}`;
const strings = (value: unknown): string[] => (value as string[] | undefined) ?? [];
const isObject = (expression: string): string => `${expression}&&(typeof ${expression}==="object"||typeof ${expression}==="function")`;

type Queue = { global?: string; property?: string };
const queueOf = (queue: Queue, owner: string): string =>
  queue.global === undefined ? `(${owner}&&${owner}[${quote(queue.property ?? "")}])` : global(queue.global);

/** How a method that waits for the vendor's script is kept in the queue `q`; `m` is its name, `a` are its arguments. */
const queued: Record<string, (target: string) => string> = {
  tuple: () => "q.push([m].concat(a))",
  methodCall: () => "return new Promise(function(r){q.push({name:m,args:a,resolve:r})})",
  wrappedMethodCall: () => "return{promise:new Promise(function(r){q.push({name:m,args:a,resolve:r})})}",
  voidMethodCall: () => "new Promise(function(r){q.push({name:m,args:a,resolve:r})})",
  callback: (target) =>
    `q.push({name:m,fn:function(){var o=${target};if(${isObject("o")}&&typeof o[m]==="function")o[m].apply(o,a)}})`,
};

const writers: Record<string, (step: Step) => string> = {
  // The caller sends it as a script element of its own.
  loadScript: () => "",

  setGlobal: (step) => unlessDefined(step, step.name, `${global(step.name)}=${literal(step.value)};`),

  defineQueueFunction(step) {
    const item = step.pushStyle === "array" ? "Array.from(arguments)" : "arguments";
    const body = `var q=${global(step.queue)};if(Array.isArray(q))q.push(${item})`;
    return unlessDefined(step, step.name, `${global(step.name)}=function(){${body}};`);
  },

  defineStubFunction(step) {
    const queue = step.queue as Queue;
    const self = global(step.name);
    const item = step.queueFormat === "array" ? "Array.from(arguments)" : "arguments";
    const dispatcher = step.dispatchProperty === undefined ? "" : `s[${quote(String(step.dispatchProperty))}]`;
    const dispatch = dispatcher && `if(s&&typeof ${dispatcher}==="function"){${dispatcher}.apply(s,arguments);return}`;
    const stub = `function(){var s=${self};${dispatch}var q=${queueOf(queue, "s")};if(Array.isArray(q))q.push(${item})}`;
    const own = (name: string, value: string) => `f[${quote(name)}]=${value};`;
    const code = [
      `var f=${self}=${stub};`,
      queue.property === undefined ? "" : own(queue.property, "[]"),
      ...strings(step.aliases).map((alias) => `${global(alias)}=f;`),
      ...strings(step.selfReferences).map((name) => own(name, "f")),
      ...Object.entries((step.properties ?? {}) as Values).map(([name, value]) => own(name, literal(value))),
    ].join("");
    return unlessDefined(step, step.name, `(function(){${code}})();`);
  },

  callGlobal(step) {
    const args = ((step.args ?? []) as unknown[]).map(literal).join(",");
    const object = global(step.global);
    if (step.method === undefined) return `if(typeof ${object}==="function")${object}(${args});`;
    const method = `${object}[${quote(String(step.method))}]`;
    return `if(${object}&&typeof ${method}==="function")${method}(${args});`;
  },

  pushToQueue: (step) => `if(Array.isArray(${global(step.queue)}))${global(step.queue)}.push(${literal(step.value)});`,

  setGlobalPath(step) {
    const path = strings(step.path);
    const parents = path.slice(0, -1).map((_, depth) => "w" + path.slice(0, depth + 1).map((key) => `[${quote(key)}]`).join(""));
    const guards = parents.map((parent) => `${parent}&&typeof ${parent}==="object"`);
    if (step.ifGlobalIsQueue) guards.unshift(`Array.isArray(${global(path[0])})`);
    return `if(${guards.join("&&") || "true"})w${path.map((key) => `[${quote(key)}]`).join("")}=${literal(step.value)};`;
  },

  defineQueueMethods(step) {
    const target = global(step.target);
    const queue = step.queue as Queue | undefined;
    const push = queued[String(step.queueFormat ?? "tuple")];
    if (!push) throw new Error(`a queue of the unknown format ${String(step.queueFormat)}`);
    const method = `function(){var a=Array.from(arguments),q=${queue ? queueOf(queue, "t") : "t"};if(Array.isArray(q)){${push(target)}}}`;
    const guard = queue ? isObject("t") : "Array.isArray(t)";
    return `(function(t){if(${guard})${literal(step.methods)}.forEach(function(m){t[m]=${method}})})(${target});`;
  },

  defineQueueClass(step) {
    const queue = quote(String(step.queueProperty ?? "_q"));
    const method = `function(){var q=this[${queue}];if(Array.isArray(q))q.push({name:m,args:Array.from(arguments)});return this}`;
    const build = `var C=t[${quote(String(step.name))}]=function(){this[${queue}]=[]};`;
    return `(function(t){if(${isObject("t")}){${build}${literal(step.methods)}.forEach(function(m){C.prototype[m]=${method}})}})(${global(step.target)});`;
  },

  defineGlobalMethods(step) {
    const methods = (step.methods as { name: string; behavior: string; value?: unknown }[]).map(
      ({ name, behavior, value }) =>
        `t[${quote(name)}]=function(){${behavior === "return" ? `return ${literal(value)}` : ""}};`,
    );
    const guard = step.ifGlobalIsQueue ? "Array.isArray(t)" : isObject("t");
    return `(function(t){if(${guard}){${methods.join("")}}})(${global(step.target)});`;
  },

  constructGlobal(step) {
    const [first = {}, ...rest] = (step.args ?? []) as unknown[];
    const copied = step.copyAssignedValueToArgProperty;
    const copy = copied === undefined ? "" : `o[${quote(String(copied))}]=${global(step.assignTo)};`;
    const constructor = global(step.constructor);
    const args = ["o", ...rest.map(literal)].join(",");
    return `if(typeof ${constructor}==="function")(function(o){${copy}${global(step.assignTo)}=new ${constructor}(${args})})(${literal(first)});`;
  },
};
