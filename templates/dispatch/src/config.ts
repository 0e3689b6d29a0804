// Knows what a dispatch worker's module says to defineDispatcher, and its bindings. Knows nothing of how it is served.

/** What a dispatch worker is told of itself. */
export interface DispatcherConfig {
  readonly worker: string;
  readonly environment: "development" | "staging" | "production" | "preview";
  readonly logLevel: "debug" | "info" | "warn" | "error";
}

/** The workers of a dispatch namespace. That one isn't there is known only when it is asked. */
export interface Dispatcher {
  get(worker: string): { fetch(request: Request): Promise<Response> };
}

/** The hosts: a host name's value is the name of its worker. */
export interface HostTable {
  get(host: string): Promise<string | null>;
}

/** The bindings. */
export interface Env {
  readonly DISPATCHER: Dispatcher;
  readonly HOSTS: HostTable;
  readonly FLOTILLA_DIGEST?: string;
}

/** What a module worker exports. */
export interface ModuleWorker {
  fetch(request: Request, env: Env): Promise<Response>;
}
