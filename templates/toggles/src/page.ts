/** The dashboard's page. It has no script: a switch is a button of a form, so it works with a keyboard and a screen reader. */

import catalogue from "./catalogue.json";
import type { Settings } from "./cloudflare.ts";

export const values: Record<string, string[] | undefined> = catalogue;

const escape = (text: string) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
const title = (id: string) => escape(id.replace(/_/g, " ").replace(/^./, (char) => char.toUpperCase()));
const isSwitch = (allowed: string[]) => allowed.length === 2 && allowed.includes("on") && allowed.includes("off");

function ago(seconds: number): string {
  if (seconds < 60) return "less than a minute ago";
  const [count, unit] = seconds < 3600 ? [seconds / 60, "minute"] : seconds < 86400 ? [seconds / 3600, "hour"] : [seconds / 86400, "day"];
  return `${Math.floor(count)} ${unit}${count >= 2 ? "s" : ""} ago`;
}

function row(id: string, settings: Settings, session: string, enforced: Record<string, string>): string {
  const { value, editable } = settings[id]!;
  const allowed = values[id];
  const shown = escape(typeof value === "string" ? value : JSON.stringify(value));
  const why = enforced[id] ?? (editable ? undefined : "The zone's plan does not allow changes.");
  const name = `<span id="${escape(id)}">${title(id)}</span>`;
  if (why !== undefined || allowed === undefined)
    return `<li>${name}<span><b>${shown}</b>${why === undefined ? "" : ` <small>${escape(why)}</small>`}</span></li>`;
  const form = (inside: string) => `<li>${name}<form method="post" action="/api/v1/optimizations/${escape(id)}">
<input type="hidden" name="session" value="${escape(session)}">${inside}</form></li>`;
  if (isSwitch(allowed))
    return form(`<button role="switch" aria-checked="${value === "on"}" aria-labelledby="${escape(id)}" name="value"
 value="${value === "on" ? "off" : "on"}">${shown}</button>`);
  const options = allowed.map((each) => `<option${each === value ? " selected" : ""}>${escape(each)}</option>`);
  return form(`<select name="value" aria-labelledby="${escape(id)}">${options.join("")}</select> <button>Save</button>`);
}

const style = `:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{max-width:44rem;margin:0 auto;padding:1rem}
ul{list-style:none;padding:0}li{display:flex;flex-wrap:wrap;gap:.5rem;justify-content:space-between;padding:.6rem 0;border-bottom:1px solid GrayText}
button,select{font:inherit;min-height:2.5rem;min-width:4rem}:focus-visible{outline:3px solid Highlight;outline-offset:2px}
[aria-checked=true]{background:#0b5cad;color:#fff;border:1px solid #0b5cad;border-radius:4px}`;

export function page(settings: Settings, age: number | null, session: string, enforced: Record<string, string>, message = "", status = 200): Response {
  const ids = Object.keys(settings).sort();
  const group = (name: string, some: string[]) =>
    some.length === 0 ? "" : `<h2>${name}</h2><ul>${some.map((id) => row(id, settings, session, enforced)).join("\n")}</ul>`;
  const kind = (id: string) => (values[id] === undefined ? 2 : isSwitch(values[id]) ? 0 : 1);
  const nonce = crypto.randomUUID();
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Settings</title><style nonce="${nonce}">${style}</style><main><h1>Settings</h1>
<p role="status">${message === "" ? "" : `${escape(message)} `}${age === null ? "Not synced yet." : `Synced ${ago(age)}.`}</p>
${["On or off", "Levels", "Values"].map((name, at) => group(name, ids.filter((id) => kind(id) === at))).join("\n")}</main></html>`;
  return new Response(html, {
    status,
    headers: {
      "content-type": "text/html; charset=utf-8",
      "cache-control": "no-store",
      "referrer-policy": "no-referrer",
      "content-security-policy": `default-src 'none'; style-src 'nonce-${nonce}'; form-action 'self'; base-uri 'none'`,
    },
  });
}
