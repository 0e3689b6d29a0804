// Lets browsers call the worker from other origins, as the spec's `cors` and `trustedOrigins` define.

/** The variable FLOTILLA_CORS, which flotilla makes of the spec. */
export interface Cors {
  /** The origins, as browsers send them: scheme, host and port. */
  readonly origins: readonly string[];
  readonly methods: readonly string[];
  /** The headers that requests may have; "*" is any. */
  readonly headers: readonly string[];
  readonly exposeHeaders: readonly string[];
  readonly credentials: boolean;
  readonly maxAge: number;
}

/**
 * Answers preflight requests, and adds the headers of CORS to the responses of `respond`. An origin that isn't listed gets none of them, so
 * that browsers keep the response from its scripts. CORS doesn't keep requests from the worker: `respond` runs for every origin.
 */
export async function withCors(
  request: Request,
  cors: Cors | undefined,
  respond: () => Response | Promise<Response>,
): Promise<Response> {
  if (cors === undefined) return respond();
  const origin = request.headers.get("origin");
  const allowed = origin !== null && cors.origins.includes(origin);
  if (request.method === "OPTIONS" && origin !== null && request.headers.has("access-control-request-method")) {
    const response = new Response(null, { status: 204, headers: { vary: "Origin, Access-Control-Request-Headers" } });
    if (!allowed) return response;
    allow(response.headers, origin, cors);
    response.headers.set("access-control-allow-methods", cors.methods.join(", "));
    // Browsers don't take "*" for Authorization, so that what the request asks for is named.
    const asked = request.headers.get("access-control-request-headers");
    const headers = cors.headers.includes("*") && !cors.credentials ? asked : cors.headers.join(", ");
    if (headers) response.headers.set("access-control-allow-headers", headers);
    response.headers.set("access-control-max-age", String(cors.maxAge));
    return response;
  }
  const answer = await respond();
  // A WebSocket's response can't be copied, and browsers don't ask for CORS there.
  if (answer.status === 101) return answer;
  const response = new Response(answer.body, answer);
  // Also without an origin: caches must not give one origin's response to another.
  if (response.headers.get("vary") !== "*") response.headers.append("vary", "Origin");
  for (const name of NAMES) response.headers.delete(name);
  if (allowed) {
    allow(response.headers, origin, cors);
    if (cors.exposeHeaders.length > 0) response.headers.set("access-control-expose-headers", cors.exposeHeaders.join(", "));
  }
  return response;
}

/** What the code behind may have set for itself or passed on from another server. */
const NAMES = ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"];

function allow(headers: Headers, origin: string, cors: Cors): void {
  headers.set("access-control-allow-origin", origin);
  if (cors.credentials) headers.set("access-control-allow-credentials", "true");
}
