// The helper of @c15t/scripts that implements each destination type, and what a type has beyond its helper. Knows
// nothing about requests. That the catalogue's settings fit the helpers' options is checked by the compiler.

import { adobeAnalytics } from "@c15t/scripts/adobe-analytics";
import { ahrefsAnalytics } from "@c15t/scripts/ahrefs-analytics";
import { amplitude } from "@c15t/scripts/amplitude";
import { clearbit } from "@c15t/scripts/clearbit";
import { cloudflareWebAnalytics } from "@c15t/scripts/cloudflare-web-analytics";
import { crisp } from "@c15t/scripts/crisp";
import { databuddy } from "@c15t/scripts/databuddy";
import { fathomAnalytics } from "@c15t/scripts/fathom-analytics";
import { gtag } from "@c15t/scripts/google-tag";
import { googleTagManager } from "@c15t/scripts/google-tag-manager";
import { heap } from "@c15t/scripts/heap";
import { hightouch } from "@c15t/scripts/hightouch";
import { hotjar } from "@c15t/scripts/hotjar";
import { intercom } from "@c15t/scripts/intercom";
import { linkedinInsights } from "@c15t/scripts/linkedin-insights";
import { logRocket } from "@c15t/scripts/logrocket";
import { matomoAnalytics } from "@c15t/scripts/matomo-analytics";
import { metaPixel } from "@c15t/scripts/meta-pixel";
import { clarity } from "@c15t/scripts/microsoft-clarity";
import { microsoftUet } from "@c15t/scripts/microsoft-uet";
import { mixpanelAnalytics } from "@c15t/scripts/mixpanel-analytics";
import { pirsch } from "@c15t/scripts/pirsch";
import { plausibleAnalytics } from "@c15t/scripts/plausible-analytics";
import { posthog } from "@c15t/scripts/posthog";
import { promptwatch } from "@c15t/scripts/promptwatch";
import { redditPixel } from "@c15t/scripts/reddit-pixel";
import { rudderstack } from "@c15t/scripts/rudderstack";
import { rybbitAnalytics } from "@c15t/scripts/rybbit-analytics";
import { segment } from "@c15t/scripts/segment";
import { snapchatPixel } from "@c15t/scripts/snapchat-pixel";
import { tiktokPixel } from "@c15t/scripts/tiktok-pixel";
import { umamiAnalytics } from "@c15t/scripts/umami-analytics";
import { vercelAnalytics } from "@c15t/scripts/vercel-analytics";
import { xPixel } from "@c15t/scripts/x-pixel";
import type { Consent, DestinationType } from "./config.ts";
import type { Settings } from "./settings.ts";
import { call, phases, type Phases, type ResolvedManifest, type Step, type VendorScript } from "./steps.ts";

/** The scripts that a page needs for one destination. */
export interface Installation extends Phases {
  /** The vendor's own script, if there is one. */
  script?: NonNullable<ResolvedManifest["loadScript"]>;
}

type Vendor<T extends DestinationType> = (settings: Settings[T], consent: Consent) => Installation | undefined;

/** A vendor that its helper implements completely. */
const helper =
  <T extends DestinationType>(script: (settings: Settings[T]) => unknown): Vendor<T> =>
  (settings, consent) =>
    install(script(settings), consent);

/** The same, where the helper writes the setting of this name into a URL as it is. */
const helperWithUrl =
  <T extends DestinationType>(name: string & keyof Settings[T], script: (settings: Settings[T]) => unknown): Vendor<T> =>
  (settings, consent) => {
    checkUrlPart(name, settings[name]);
    return install(script(settings), consent);
  };

/** No vendor's ids need escaping, so a value that does is not an id, and would change the URL around it. */
function checkUrlPart(name: string, value: unknown): void {
  const text = String(value ?? "");
  if (encodeURIComponent(text) !== text) throw new TypeError(`${name} has characters that no id has`);
}

/** A helper's result for a given consent, with steps that its manifest does not contain. */
function install(result: unknown, consent: Consent, more: { setup?: Step[]; update?: Step[] } = {}): Installation | undefined {
  // Its declared type is that of the engine which steps.ts replaces.
  const script = result as VendorScript;
  const { manifest } = script;
  if (!manifest) return undefined;
  const whole: ResolvedManifest = {
    ...manifest,
    setupSteps: [...manifest.setupSteps, ...(more.setup ?? [])],
    onConsentChangeSteps: [...manifest.onConsentChangeSteps, ...(more.update ?? [])],
  };
  const installation = phases({ ...script, manifest: whole }, consent);
  return manifest.loadScript ? { ...installation, script: manifest.loadScript } : installation;
}

const nothing: ResolvedManifest = {
  category: "necessary",
  bootstrapSteps: [],
  setupSteps: [],
  afterLoadSteps: [],
  onBeforeLoadGrantedSteps: [],
  onBeforeLoadDeniedSteps: [],
  onLoadGrantedSteps: [],
  onLoadDeniedSteps: [],
  onConsentChangeSteps: [],
  onConsentGrantedSteps: [],
  onConsentDeniedSteps: [],
};

const browserConsole: Vendor<"console" | "console-log"> = ({ logLevel = "info" }, consent) => {
  const granted = Object.entries(consent).flatMap(([purpose, given]) => (given ? [purpose] : []));
  const say = (when: string) => [call("console", [`[consent] ${when}`, granted], logLevel)];
  const manifest: ResolvedManifest = {
    ...nothing,
    setupSteps: say("loaded with"),
    onConsentChangeSteps: say("changed to"),
  };
  return install({ manifest }, consent);
};

export const vendors: { readonly [T in DestinationType]: Vendor<T> } = {
  "adobe-analytics": helper(adobeAnalytics),
  "ahrefs-analytics": helper(ahrefsAnalytics),
  amplitude: helper(amplitude),
  clearbit: helper(clearbit),
  "cloudflare-web-analytics": helper(cloudflareWebAnalytics),
  console: browserConsole,
  "console-log": browserConsole,
  crisp: helper(crisp),
  databuddy: helper(databuddy),
  "fathom-analytics": helper(fathomAnalytics),

  // A Google tag of Analytics under the names that Analytics uses; the helper's `gtag("config")` has no parameters, this one has.
  "google-analytics"({ measurementId, enableClientSide = true, consentMapping, ...settings }, consent) {
    if (!enableClientSide) return undefined;
    checkUrlPart("measurementId", measurementId);
    const tag = { id: measurementId, category: "measurement", ...(consentMapping ? { consentMapping } : {}) } as const;
    const script = gtag(tag) as unknown as { manifest: ResolvedManifest };
    const parameters = {
      debug_mode: settings.debugMode || undefined,
      anonymize_ip: settings.anonymizeIp,
      cookie_flags: settings.cookieFlags,
      ...settings.customParameters,
    };
    const isConfig = ({ args }: Step) => Array.isArray(args) && args[0] === "config";
    const setupSteps = script.manifest.setupSteps.map((step) =>
      isConfig(step) ? call("gtag", ["config", measurementId, parameters]) : step,
    );
    return install({ ...script, manifest: { ...script.manifest, setupSteps } }, consent);
  },

  "google-tag": helperWithUrl("id", gtag),
  "google-tag-manager": helperWithUrl("id", googleTagManager),
  heap: helperWithUrl("envId", heap),
  hightouch: helper(hightouch),
  hotjar: helperWithUrl("siteId", hotjar),
  intercom: helperWithUrl("appId", intercom),
  "linkedin-insights": helper(linkedinInsights),
  logrocket: helper(logRocket),
  "matomo-analytics": helper(matomoAnalytics),

  "meta-pixel": ({ enableClientSide = true, ...settings }, consent) =>
    enableClientSide ? install(metaPixel(settings as Parameters<typeof metaPixel>[0]), consent) : undefined,

  // The helper passes the consent to Clarity in a closure; here it is two steps.
  "microsoft-clarity"({ defaultConsent, ...settings }, consent) {
    const state = (granted: boolean) => (granted ? "granted" : "denied");
    const chosen = { ad_Storage: state(consent.marketing), analytics_Storage: state(consent.measurement) };
    const first = defaultConsent ? { ad_Storage: defaultConsent, analytics_Storage: defaultConsent } : chosen;
    const tell = (value: typeof first) => [call("clarity", ["consentv2", value])];
    return install(clarity(settings), consent, { setup: tell(first), update: tell(chosen) });
  },

  "microsoft-uet": helper(microsoftUet),
  "mixpanel-analytics": helper(mixpanelAnalytics),

  // The helper adds a closure: Pirsch starts itself when the page is parsed, so it has to be started if it was inserted
  // later.
  pirsch(settings, consent) {
    const installation = install(pirsch(settings), consent);
    const start = 'if(d.readyState!=="loading"&&typeof w.pirschInit==="function")w.pirschInit();';
    return installation && { ...installation, loaded: installation.loaded + start };
  },

  "plausible-analytics": helperWithUrl("scriptId", plausibleAnalytics),

  posthog({ apiKey, host, ...settings }, consent) {
    const id = apiKey ?? settings.id ?? "";
    return install(posthog({ ...(host === undefined ? {} : { apiHost: host }), ...settings, id }), consent);
  },

  promptwatch: helper(promptwatch),
  "reddit-pixel": helper(redditPixel),
  rudderstack: helper(rudderstack as (settings: Settings["rudderstack"]) => unknown),
  "rybbit-analytics": helper(rybbitAnalytics),
  segment: helperWithUrl("writeKey", segment),
  "snapchat-pixel": helper(snapchatPixel),
  "tiktok-pixel": helperWithUrl("pixelId", tiktokPixel),
  "umami-analytics": helper(umamiAnalytics),
  "vercel-analytics": helper(vercelAnalytics),
  "x-pixel": helper(xPixel),
};
