// Knows how the worker answers: JSON, methods, CORS. Knows nothing of what it answers.

const READABLE = "GET, HEAD, OPTIONS";

/** An answer that no cache keeps. */
export const json = (status: number, body: unknown, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json; charset=utf-8", "cache-control": "no-store", ...headers },
  });

/** An error in the shape of c15t's own, which its clients read. */
export const c15tError = (status: number, code: string, message: string): Response =>
  json(status, { code, message, status, defined: true, data: {} });

/** For what can only be read: refuses other methods and sends a HEAD no body. */
export async function readOnly(request: Request, answer: () => Response | Promise<Response>): Promise<Response> {
  if (request.method !== "GET" && request.method !== "HEAD")
    return json(405, { error: "Method Not Allowed", message: `Use ${READABLE}` }, { allow: READABLE });
  const response = await answer();
  return request.method === "HEAD" ? new Response(null, response) : response;
}

// What c15t's clients send; the same lists that c15t itself allows.
const METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const HEADERS =
  "Content-Type, Authorization, x-request-id, x-c15t-version, x-c15t-country, x-c15t-region, accept-language";

/**
 * CORS for the trusted origins alone. c15t has its own, which ignores the scheme, trusts `www.` beside the apex and
 * answers `*` to requests without an origin; what it sets is taken out, so that one rule holds for every answer.
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
