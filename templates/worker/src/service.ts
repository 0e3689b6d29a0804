// Calls between workers: the caller signs, and the called worker learns who called. The keys are those that flotilla derives for `callers`.

/** The header with the caller's name, the time and the signatures. */
export const HEADER = "flotilla-service";
/** The time for which a signature is accepted, in seconds, before and after it was made: clocks differ. */
export const WINDOW = 60;

/** The caller of a request. */
export interface Caller {
  /** The customer whose worker it is; "_shared" for a worker that all customers share. */
  readonly customer: string;
  /** The role of the worker. */
  readonly role: string;
}

/** What has a method `fetch`: a service binding, or `globalThis`. */
export interface Fetches {
  fetch(request: Request): Promise<Response>;
}

/**
 * Calls another worker, whose role, or name if it is shared, is `called`: through its service binding, or else by the address in `request`.
 * A redirect is returned, not followed: the signature is for this request alone.
 */
export async function callService(
  env: object,
  called: string,
  request: Request,
  service: Fetches = globalThis,
): Promise<Response> {
  const key = text(env, `FLOTILLA_SERVICE_KEY_${called.toUpperCase().replaceAll("-", "_")}`);
  const caller = text(env, "FLOTILLA_CALLER");
  if (key === undefined || caller === undefined)
    throw new Error(`this worker has no key for ${called}: list its role under \`callers\` of ${called}`);
  const signed = new Request(request, { redirect: "manual" });
  const time = String(Math.floor(Date.now() / 1000));
  // During a rotation there are two keys: the called worker may have either of them.
  const signatures = await Promise.all(
    key.split(" ").map(async (part) => {
      const signature = await crypto.subtle.sign("HMAC", await imported(part, "sign"), message(signed, caller, time));
      return hex(signature);
    }),
  );
  signed.headers.set(HEADER, [caller, time, ...signatures].join(" "));
  return service.fetch(signed);
}

/**
 * Returns the caller of a request, if one of the `callers` of the spec has signed it within the last minute, for this worker, method, path and
 * query. The body isn't signed. Answer with status 401 if there is none.
 */
export async function verifyService(request: Request, env: object): Promise<Caller | undefined> {
  const keys = text(env, "FLOTILLA_SERVICE_KEY");
  const [caller, time, ...signatures] = (request.headers.get(HEADER) ?? "").split(" ");
  if (keys === undefined || !caller || !time || !/^[0-9]{1,12}$/.test(time)) return undefined;
  const [customer, role, ...rest] = caller.split("/");
  if (!customer || !role || rest.length > 0 || !accepts(env, customer, role)) return undefined;
  if (Math.abs(Date.now() / 1000 - Number(time)) > WINDOW) return undefined;
  // More would let a stranger have the worker compute.
  const candidates = signatures.slice(0, 2).map(bytes).filter((signature) => signature !== undefined);
  for (const own of keys.split(" ")) {
    // The caller's key is derived from that of this worker.
    const derived = await crypto.subtle.sign("HMAC", await imported(own, "sign"), new TextEncoder().encode(caller));
    const key = await imported(hex(derived), "verify");
    for (const signature of candidates) {
      // It compares in constant time.
      if (await crypto.subtle.verify("HMAC", key, signature, message(request, caller, time))) return { customer, role };
    }
  }
  return undefined;
}

/** Returns whether a caller is listed: `acme/web`, or `*` and a role for those of all customers. */
function accepts(env: object, customer: string, role: string): boolean {
  const callers = (env as Record<string, unknown>)["FLOTILLA_CALLERS"];
  if (!Array.isArray(callers)) return false;
  return callers.includes(`${customer}/${role}`) || (customer !== "_shared" && callers.includes(`*/${role}`));
}

/** Returns what is signed. The called worker is no part of it: the key is for that one alone. */
function message(request: Request, caller: string, time: string): Uint8Array {
  const { pathname, search } = new URL(request.url);
  return new TextEncoder().encode([time, caller, request.method, pathname + search].join("\n"));
}

function text(env: object, name: string): string | undefined {
  const value = (env as Record<string, unknown>)[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}

function imported(key: string, use: "sign" | "verify"): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", new TextEncoder().encode(key), { name: "HMAC", hash: "SHA-256" }, false, [use]);
}

function hex(buffer: ArrayBuffer): string {
  return [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns the bytes of a signature; `undefined`, if it is none. */
function bytes(signature: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{64}$/.test(signature)) return undefined;
  const parsed = new Uint8Array(32);
  for (let index = 0; index < 32; index++) parsed[index] = Number.parseInt(signature.slice(2 * index, 2 * index + 2), 16);
  return parsed;
}
