// The argument that a dispatch worker's module passes to defineDispatcher, and its bindings. Knows nothing about how it
// is served.

/** The settings of a dispatch worker. */
export interface DispatcherConfig {
  readonly worker: string;
  readonly environment: string;
  readonly logLevel: "debug" | "info" | "warn" | "error";
}

/** The workers of a dispatch namespace. Only a request shows that one doesn't exist. */
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

/** The exports of a module worker. */
export interface ModuleWorker {
  fetch(request: Request, env: Env): Promise<Response>;
}
