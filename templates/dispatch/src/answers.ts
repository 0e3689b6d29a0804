// The dispatch worker's own responses: JSON, and HTML for browsers. They reveal nothing about its internals.

const ANSWERS = {
  unknown_host: [404, "Not found", "There is nothing at this address."],
  unavailable: [503, "Not available", "This can't be answered now. Try again in a moment."],
  over_limit: [503, "Not available", "What is at this address needed more resources than it may use."],
  worker_failed: [502, "Something went wrong", "What is at this address failed. Try again in a moment."],
} as const;

/** A response that no cache keeps. */
export const json = (status: number, body: unknown, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json; charset=utf-8", ...PLAIN, ...headers },
  });

const PLAIN = { "cache-control": "no-store", "x-content-type-options": "nosniff" };

/** The response to a request for which there is no worker: HTML if the client accepts it, as browsers do, or else JSON. */
export function refusal(request: Request, host: string, error: keyof typeof ANSWERS): Response {
  const [status, title, message] = ANSWERS[error];
  const headers: Record<string, string> = { vary: "Accept", ...(error === "unavailable" && { "retry-after": "5" }) };
  const response = /\btext\/html\b/i.test(request.headers.get("accept") ?? "")
    ? new Response(page(title, message, host), {
        status,
        headers: { "content-type": "text/html; charset=utf-8", "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'", ...PLAIN, ...headers },
      })
    : json(status, { error, message, host }, headers);
  return request.method === "HEAD" ? new Response(null, response) : response;
}

const page = (title: string, message: string, host: string): string => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 32rem; padding: 0 1rem }</style>
<h1>${title}</h1>
<p>${message}</p>
<p><small>${escaped(host)}</small></p>
</html>
`;

const escaped = (text: string): string => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
