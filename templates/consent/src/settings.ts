// Generated from catalogue.json by `npm run settings`: the types of all settings, and which of them are URLs.

/** A secret by its name; its value is a binding of the worker. */
export interface Secret {
  readonly secret: string;
}

/** The settings of each destination type. */
export interface Settings {
  /** Adobe Analytics */
  "adobe-analytics": {
    /** Embed URL of the Adobe Data Collection property; https only. */
    scriptUrl: string;
    /** Load the library asynchronously. */
    async?: boolean;
    /** Create window.adobeDataLayer before the library loads. */
    seedAdobeDataLayer?: boolean;
  };
  /** Ahrefs Analytics */
  "ahrefs-analytics": {
    /** Project key of Ahrefs Web Analytics. */
    key: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Amplitude */
  "amplitude": {
    /** Project API key (public). */
    apiKey: string;
    /** Options of amplitude.init. */
    initOptions?: { [key: string]: unknown };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Clearbit */
  "clearbit": {
    /** Publishable key. */
    publishableKey: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Cloudflare Web Analytics */
  "cloudflare-web-analytics": {
    /** Site token. */
    token: string;
    /** Follow route changes of a single-page application. */
    spa?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Browser console. Writes to the browser's console that it was loaded and with which consent: to see the line from consent to script at work. */
  "console": {
    /** Method of the browser's console. */
    logLevel?: "debug" | "info" | "warn" | "error";
  };
  /** Browser console (older name). Writes to the browser's console that it was loaded and with which consent: to see the line from consent to script at work. */
  "console-log": {
    /** Method of the browser's console. */
    logLevel?: "debug" | "info" | "warn" | "error";
  };
  /** Crisp */
  "crisp": {
    /** Website id. */
    websiteId: string;
    /** Language of the widget. */
    locale?: string;
    /** Domain of the cookie. */
    cookieDomain?: string;
    /** Life of the cookie in seconds. */
    cookieExpiry?: number;
    /** Token that continues a session. */
    tokenId?: string;
    /** Merge anonymous sessions into the token's. */
    sessionMerge?: boolean;
    /** Hide Crisp's warnings. */
    safeMode?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
  /** Databuddy. c15t loads this vendor whatever its own category says and tells it what was consented to (its option "disabled"). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "databuddy": {
    /** Client id. */
    clientId: string;
    /** API that receives the events. */
    apiUrl?: string;
    /** window.databuddyConfig when measurement is granted. */
    configWhenGranted: { [key: string]: unknown };
    /** window.databuddyConfig when measurement is denied. */
    configWhenDenied: { [key: string]: unknown };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Fathom Analytics */
  "fathom-analytics": {
    /** Site id. */
    site: string;
    /** How page changes of a single-page application are noticed. */
    spa?: "auto" | "history" | "hash";
    /** Track page views by itself. */
    auto?: boolean;
    /** Report the canonical URL. */
    canonical?: boolean;
    /** Respect Do Not Track. */
    honorDnt?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Google Analytics 4. c15t loads this vendor whatever its own category says and tells it what was consented to (Google Consent Mode v2). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "google-analytics": {
    /** Measurement id. */
    measurementId: string;
    /** API secret of the Measurement Protocol, for delivery from the server. It stays a binding of the worker and never reaches a script. */
    apiSecret?: Secret;
    /** Send the browser's script. */
    enableClientSide?: boolean;
    /** Show events in DebugView (debug_mode). */
    debugMode?: boolean;
    /** Ask for anonymised addresses (anonymize_ip). */
    anonymizeIp?: boolean;
    /** Flags of the cookies (cookie_flags). */
    cookieFlags?: string;
    /** More parameters of gtag("config"). */
    customParameters?: { [key: string]: unknown };
    /** Purposes to Google consent types, instead of the usual mapping of Consent Mode v2. */
    consentMapping?: {
      /** Names granted with necessary. */
      necessary?: (string)[];
      /** Names granted with functionality. */
      functionality?: (string)[];
      /** Names granted with measurement. */
      measurement?: (string)[];
      /** Names granted with marketing. */
      marketing?: (string)[];
      /** Names granted with experience. */
      experience?: (string)[];
    };
  };
  /** Google Tag (gtag.js). c15t loads this vendor whatever its own category says and tells it what was consented to (Google Consent Mode v2). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "google-tag": {
    /** Google tag id. */
    id: string;
    /** The purpose that the tag serves: measurement for Analytics, marketing for Ads and Floodlight. */
    category: "necessary" | "functionality" | "measurement" | "marketing" | "experience";
    /** Purposes to Google consent types, instead of the usual mapping of Consent Mode v2. */
    consentMapping?: {
      /** Names granted with necessary. */
      necessary?: (string)[];
      /** Names granted with functionality. */
      functionality?: (string)[];
      /** Names granted with measurement. */
      measurement?: (string)[];
      /** Names granted with marketing. */
      marketing?: (string)[];
      /** Names granted with experience. */
      experience?: (string)[];
    };
  };
  /** Google Tag Manager. c15t loads this vendor whatever its own category says and tells it what was consented to (Google Consent Mode v2). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "google-tag-manager": {
    /** Container id. */
    id: string;
    /** Event pushed when consent changes. */
    updateEventName?: string;
    /** Purposes to Google consent types, instead of the usual mapping of Consent Mode v2. */
    consentMapping?: {
      /** Names granted with necessary. */
      necessary?: (string)[];
      /** Names granted with functionality. */
      functionality?: (string)[];
      /** Names granted with measurement. */
      measurement?: (string)[];
      /** Names granted with marketing. */
      marketing?: (string)[];
      /** Names granted with experience. */
      experience?: (string)[];
    };
  };
  /** Heap */
  "heap": {
    /** Environment (app) id. */
    envId: string;
    /** Client configuration of heap.js. */
    clientConfig?: { [key: string]: unknown };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Hightouch */
  "hightouch": {
    /** Write key of the event source (public). */
    writeKey: string;
    /** Host of the Events API: a host name, not a URL. */
    apiHost?: string;
    /** Report the first page view. */
    trackPageView?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Hotjar */
  "hotjar": {
    /** Site id. */
    siteId: string;
    /** Version of the snippet. */
    version?: number;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Intercom */
  "intercom": {
    /** App id. */
    appId: string;
    /** Regional API. */
    apiBase?: "https://api-iam.intercom.io" | "https://api-iam.eu.intercom.io" | "https://api-iam.au.intercom.io";
    /** More of window.intercomSettings. */
    settings?: { [key: string]: unknown };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
  /** LinkedIn Insight Tag */
  "linkedin-insights": {
    /** Partner id, quoted. */
    id: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
  /** LogRocket */
  "logrocket": {
    /** App id, org/app. */
    appId: string;
    /** Options of LogRocket.init. */
    initOptions?: { [key: string]: unknown };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
    /** Proxied address of the logger bundle. */
    asyncScriptUrl?: string;
  };
  /** Matomo Analytics */
  "matomo-analytics": {
    /** Site id. */
    siteId?: string;
    /** Base URL of a Matomo of your own. */
    matomoUrl?: string;
    /** Matomo Cloud name. */
    cloudId?: string;
    /** Tracker endpoint, if not matomo.php at the base URL. */
    trackerUrl?: string;
    /** Script, if not matomo.js at the base URL. */
    scriptUrl?: string;
    /** Track outlinks and downloads. */
    enableLinkTracking?: boolean;
    /** Work without cookies. */
    disableCookies?: boolean;
    /** Report the first page view. */
    trackPageView?: boolean;
    /** Use Matomo's own consent mode: required holds tracking back, given starts it. */
    defaultConsent?: "required" | "given";
  } & ({ matomoUrl: string } | { cloudId: string } | { trackerUrl: string; scriptUrl: string });
  /** Meta Pixel */
  "meta-pixel": {
    /** Pixel id, quoted. */
    pixelId: string;
    /** Access token of the Conversions API, for delivery from the server. It stays a binding of the worker and never reaches a script. */
    accessToken?: Secret;
    /** Test event code of the Conversions API, for delivery from the server; the browser's script does not use it. */
    testEventCode?: string;
    /** Send the browser's script. */
    enableClientSide?: boolean;
    /** Third argument of fbq("init"). */
    initOptions?: { [key: string]: unknown };
    /** Report the first page view. */
    trackPageView?: boolean;
    /** Limited Data Use. */
    dataProcessingOptions?: {
      /** ["LDU"] switches it on, [] off. */
      options: ("LDU")[];
      /** 0 lets Meta locate the event, 1 is the USA. */
      country?: number;
      /** 0 lets Meta locate the event, 1000 is California. */
      state?: number;
    };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
  /** Microsoft Clarity */
  "microsoft-clarity": {
    /** Project id. */
    id: string;
    /** Consent at boot for both storages, instead of what the visitor chose. */
    defaultConsent?: "granted" | "denied";
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Microsoft UET. c15t loads this vendor whatever its own category says and tells it what was consented to (ad_storage). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "microsoft-uet": {
    /** UET tag id, quoted. */
    id: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
  /** Mixpanel Analytics. c15t loads this vendor whatever its own category says and tells it what was consented to (opt_in_tracking, opt_out_tracking). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "mixpanel-analytics": {
    /** Project token (public). */
    token: string;
    /** Options of mixpanel.init. */
    initOptions?: { [key: string]: unknown };
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Pirsch */
  "pirsch": {
    /** Identification code. */
    identificationCode: string;
    /** More dashboard domains. */
    domain?: (string)[];
    /** Host name to report when testing on localhost. */
    dev?: string;
    /** Endpoint of page views. */
    hitEndpoint?: string;
    /** Endpoint of events. */
    eventEndpoint?: string;
    /** Report no page views by itself. */
    disablePageViews?: boolean;
    /** Load the extended script. */
    extended?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Plausible Analytics */
  "plausible-analytics": {
    /** Id of the site's own script (the newer form). */
    scriptId?: string;
    /** Domain of the site (the older form). */
    domain?: string;
    /** Extensions of the older script. */
    extension?: ("hash" | "outbound-links" | "file-downloads" | "tagged-events" | "revenue" | "pageview-props" | "compat" | "local" | "manual")[];
    /** Properties sent with each page view. */
    customProperties?: { [key: string]: unknown };
    /** Endpoint of events. */
    endpoint?: string;
    /** File downloads that are tracked. */
    fileDownloads?: {
      /** File extensions. */
      fileExtensions?: (string)[];
    };
    /** The site routes by the URL's hash. */
    hashBasedRouting?: boolean;
    /** Track page views by itself. */
    autoCapturePageviews?: boolean;
    /** Track on localhost too. */
    captureOnLocalhost?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  } & ({ scriptId: string } | { domain: string });
  /** PostHog. c15t loads this vendor whatever its own category says and tells it what was consented to (opt_in_capturing, opt_out_capturing). Here it is sent once requiredConsent is granted; list only "necessary" there to send it always. Its own category then decides whether it starts granted or denied. */
  "posthog": {
    /** Project API key (public). */
    apiKey?: string;
    /** The same key under c15t's name. */
    id?: string;
    /** PostHog host; another name for apiHost. */
    host?: string;
    /** PostHog Cloud region, when no host is given. */
    region?: "eu" | "us";
    /** API host; wins over region. */
    apiHost?: string;
    /** Host of the user interface. */
    uiHost?: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
    /** always and after-consent load it once requiredConsent is granted; disabled sends nothing. */
    loadMode?: "always" | "after-consent" | "disabled";
    /** Options of posthog.init. */
    initOptions?: { [key: string]: unknown };
  } & ({ apiKey: string; id?: never } | { id: string; apiKey?: never });
  /** Promptwatch */
  "promptwatch": {
    /** Project id. */
    projectId: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Reddit Pixel */
  "reddit-pixel": {
    /** Pixel id. */
    pixelId: string;
    /** Report the first page visit. */
    trackPageVisit?: boolean;
    /** Third argument of rdt("init"). */
    initOptions?: { [key: string]: unknown };
    /** Set no first-party cookies. */
    disableFirstPartyCookies?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** RudderStack */
  "rudderstack": {
    /** Write key of the source (public). */
    writeKey: string;
    /** Data plane; https only. */
    dataPlaneUrl: string;
    /** Load before consent and tell RudderStack what was consented to. */
    consentManagement?: {
      /** Purposes to RudderStack consent ids. */
      mapping: {
        /** Names granted with necessary. */
        necessary?: (string)[];
        /** Names granted with functionality. */
        functionality?: (string)[];
        /** Names granted with measurement. */
        measurement?: (string)[];
        /** Names granted with marketing. */
        marketing?: (string)[];
        /** Names granted with experience. */
        experience?: (string)[];
      };
    };
    /** Options of rudderanalytics.load. */
    loadOptions?: { [key: string]: unknown };
    /** Report the first page view. */
    trackPageView?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor; https only. */
    scriptUrl?: string;
  };
  /** Rybbit Analytics */
  "rybbit-analytics": {
    /** Site id. */
    siteId: string;
    /** Track page views by itself. */
    autoTrackPageview?: boolean;
    /** Follow route changes of a single-page application. */
    trackSpa?: boolean;
    /** Keep the query of URLs. */
    trackQuery?: boolean;
    /** Track outbound links. */
    trackOutbound?: boolean;
    /** Track JavaScript errors. */
    trackErrors?: boolean;
    /** Record sessions. */
    sessionReplay?: boolean;
    /** Report Web Vitals. */
    webVitals?: boolean;
    /** URL patterns that are not tracked. */
    skipPatterns?: (string)[];
    /** URL patterns that are masked. */
    maskPatterns?: (string)[];
    /** Milliseconds between page views. */
    debounce?: number;
    /** Key that the browser sends for tracking; visible to every visitor. */
    apiKey?: string;
    /** Base URL of a Rybbit of your own. */
    analyticsHost?: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Segment */
  "segment": {
    /** Write key of the source (public). */
    writeKey: string;
    /** Report the first page view. */
    trackPageView?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Snapchat Pixel */
  "snapchat-pixel": {
    /** Pixel id. */
    pixelId: string;
    /** Third argument of snaptr("init"). */
    initOptions?: { [key: string]: unknown };
    /** Report the first page view. */
    trackPageView?: boolean;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** TikTok Pixel */
  "tiktok-pixel": {
    /** Pixel id. */
    pixelId: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
  /** Umami Analytics */
  "umami-analytics": {
    /** Website id. */
    websiteId: string;
    /** Where events are sent. */
    hostUrl?: string;
    /** Track by itself. */
    autoTrack?: boolean;
    /** Only on these domains, separated by commas. */
    domains?: string;
    /** Tag of the events. */
    tag?: string;
    /** Name of a global function that sees each event first. */
    beforeSend?: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** Vercel Analytics */
  "vercel-analytics": {
    /** DSN, outside Vercel. */
    dsn?: string;
    /** Report no page views by itself. */
    disableAutoTrack?: boolean;
    /** Which script is loaded. */
    mode?: "auto" | "development" | "production";
    /** Load the debugging script. */
    debug?: boolean;
    /** Endpoint of events: a URL or a path. */
    endpoint?: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptUrl?: string;
  };
  /** X (Twitter) Pixel */
  "x-pixel": {
    /** Pixel id. */
    pixelId: string;
    /** Where the vendor's script is loaded from, if not from the vendor. */
    scriptSrc?: string;
  };
}

/** The settings that hold a URL. */
export const urlSettings: { readonly [T in keyof Settings]?: readonly string[] } = {
  "adobe-analytics": ["scriptUrl"],
  "ahrefs-analytics": ["scriptUrl"],
  "amplitude": ["scriptUrl"],
  "clearbit": ["scriptUrl"],
  "cloudflare-web-analytics": ["scriptUrl"],
  "crisp": ["scriptSrc"],
  "databuddy": ["apiUrl", "scriptUrl"],
  "fathom-analytics": ["scriptUrl"],
  "heap": ["scriptUrl"],
  "hightouch": ["scriptUrl"],
  "hotjar": ["scriptUrl"],
  "intercom": ["scriptSrc"],
  "linkedin-insights": ["scriptSrc"],
  "logrocket": ["scriptUrl", "asyncScriptUrl"],
  "matomo-analytics": ["matomoUrl", "trackerUrl", "scriptUrl"],
  "meta-pixel": ["scriptSrc"],
  "microsoft-clarity": ["scriptUrl"],
  "microsoft-uet": ["scriptSrc"],
  "mixpanel-analytics": ["scriptUrl"],
  "pirsch": ["hitEndpoint", "eventEndpoint", "scriptUrl"],
  "plausible-analytics": ["endpoint", "scriptUrl"],
  "posthog": ["host", "apiHost", "uiHost", "scriptUrl"],
  "promptwatch": ["scriptUrl"],
  "reddit-pixel": ["scriptUrl"],
  "rudderstack": ["dataPlaneUrl", "scriptUrl"],
  "rybbit-analytics": ["analyticsHost", "scriptUrl"],
  "segment": ["scriptUrl"],
  "snapchat-pixel": ["scriptUrl"],
  "tiktok-pixel": ["scriptSrc"],
  "umami-analytics": ["hostUrl", "scriptUrl"],
  "vercel-analytics": ["scriptUrl"],
  "x-pixel": ["scriptSrc"],
};
