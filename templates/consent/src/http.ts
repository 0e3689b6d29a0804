// How the worker responds: JSON, methods, CORS. Knows nothing about the content of responses.

const READABLE = "GET, HEAD, OPTIONS";

/** A response that no cache keeps. */
export const json = (status: number, body: unknown, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json; charset=utf-8", "cache-control": "no-store", ...headers },
  });

/** An error in the format of c15t's own errors, which its clients read. */
export const c15tError = (status: number, code: string, message: string): Response =>
  json(status, { code, message, status, defined: true, data: {} });

/** For read-only paths: rejects other methods, and sends no body for HEAD. */
export async function readOnly(request: Request, answer: () => Response | Promise<Response>): Promise<Response> {
  if (request.method !== "GET" && request.method !== "HEAD")
    return json(405, { error: "Method Not Allowed", message: `Use ${READABLE}` }, { allow: READABLE });
  const response = await answer();
  return request.method === "HEAD" ? new Response(null, response) : response;
}

// The methods and headers that c15t's clients send: the same lists that c15t itself allows.
const METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const HEADERS =
  "Content-Type, Authorization, x-request-id, x-c15t-version, x-c15t-country, x-c15t-region, accept-language";

/**
 * CORS for the trusted origins only. c15t's own rule ignores the scheme, also trusts `www.` of a domain, and returns
 * `*` for requests without an origin; its headers are removed, so that one rule applies to every response.
 */
export function createCors(trustedOrigins: readonly string[]) {
  const trusted = new Set(trustedOrigins.map(originOf));

  function allow(request: Request, headers: Headers): boolean {
    for (const name of [...headers.keys()]) if (name.startsWith("access-control-")) headers.delete(name);
    if (!/(^|,)\s*origin\s*(,|$)/i.test(headers.get("vary") ?? "")) headers.append("vary", "Origin");
    const origin = request.headers.get("origin");
    if (origin === null || !trusted.has(origin)) return false;
    headers.set("access-control-allow-origin", origin);
    headers.set("access-control-allow-credentials", "true");
    return true;
  }

  return {
    preflight(request: Request): Response {
      const headers = new Headers();
      if (allow(request, headers)) {
        headers.set("access-control-allow-methods", METHODS);
        headers.set("access-control-allow-headers", HEADERS);
        headers.set("access-control-max-age", "600");
      }
      return new Response(null, { status: 204, headers });
    },
    apply(request: Request, response: Response): Response {
      const answer = new Response(response.body, response);
      allow(request, answer.headers);
      return answer;
    },
  };
}

function originOf(text: string): string {
  try {
    const { origin } = new URL(text);
    return origin === "null" ? text : origin;
  } catch {
    return text;
  }
}
