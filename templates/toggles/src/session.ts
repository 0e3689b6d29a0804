/** The customer of a session token, or null. The token is a JSON Web Token with HS256; `dest` is the shop's address. */

const bytes = (text: string) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
const json = (text: string) => JSON.parse(new TextDecoder().decode(bytes(text)));

export async function customerOf(token: string, secret: string, now: number): Promise<string | null> {
  try {
    const [head, body, signature, ...more] = token.split(".");
    if (!secret || !head || !body || !signature || more.length > 0 || json(head).alg !== "HS256") return null;
    const encoder = new TextEncoder();
    const key = await crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
    // `verify` compares in constant time.
    if (!(await crypto.subtle.verify("HMAC", key, bytes(signature), encoder.encode(`${head}.${body}`)))) return null;
    const { dest, exp, nbf } = json(body);
    if (typeof exp !== "number" || exp <= now || (nbf !== undefined && !(nbf <= now))) return null;
    return new URL(dest).hostname || null;
  } catch {
    return null;
  }
}
