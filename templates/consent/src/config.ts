// The argument that a customer's module passes to defineWorker. Knows nothing about how it is served.

import type { Settings } from "./settings.ts";

/** The purposes that a visitor can consent to. */
export type Purpose = "necessary" | "functionality" | "marketing" | "measurement" | "experience";

/** One answer for each purpose. */
export type Consent = { readonly [P in Purpose]: boolean };

/** The types that the catalogue knows. */
export type DestinationType = keyof Settings;

/** A destination to which a customer sends events. */
export interface Destination<T extends DestinationType = DestinationType> {
  readonly id: string;
  readonly name: string;
  readonly type: T;
  /** The scripts are sent only when all of these are granted. */
  readonly requiredConsent: readonly Purpose[];
  readonly settings: Settings[T];
}

/** Where consents are kept. */
export type Database =
  /** libSQL over HTTP, at the variable TURSO_DATABASE_URL with the secret TURSO_AUTH_TOKEN. */
  | { readonly type: "turso" }
  /** D1, under this binding. */
  | { readonly type: "d1"; readonly binding: string }
  | { readonly type: "none" };

/**
 * Everything in which customers' workers differ. Each destination has a type of its own, so the compiler reports errors
 * in its settings in the terms of that type.
 */
export interface WorkerConfig<Types extends readonly DestinationType[] = readonly DestinationType[]> {
  readonly worker: string;
  readonly customer: string;
  readonly environment: string;
  /** Origins whose pages may read the responses, written as browsers write them: "https://acme.example". */
  readonly trustedOrigins: readonly string[];
  readonly logLevel: "debug" | "info" | "warn" | "error";
  readonly database: Database;
  /** Every secret that must be bound. */
  readonly secrets: readonly string[];
  /** The workers that it calls: by these service bindings, and at the addresses in these variables. */
  readonly peers?: { readonly services: readonly string[]; readonly addresses: readonly string[] };
  readonly destinations: { readonly [Index in keyof Types]: Destination<Types[Index]> };
}

/** The bindings of a worker. */
export type Env = { readonly [binding: string]: unknown };

/** The exports of a module worker. */
export interface ModuleWorker {
  fetch(request: Request, env: Env): Promise<Response>;
  scheduled(event: unknown, env: Env): Promise<void>;
}
