/** The part of Cloudflare's API that the dashboard needs. */

export type Setting = { value: unknown; editable: boolean };
export type Settings = Record<string, Setting>;

export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly retryAfter = 0) {
    super(message);
  }
}

export interface Api {
  list(zone: string): Promise<Settings>;
  set(zone: string, setting: string, value: string): Promise<Setting>;
}

type Entry = { id: string; value: unknown; editable?: boolean };

export function cloudflare(token: string, base = "https://api.cloudflare.com/client/v4"): Api {
  const call = async <T>(path: string, init: RequestInit = {}): Promise<T> => {
    const answer = await fetch(base + path, {
      ...init,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      signal: AbortSignal.timeout(30_000),
    });
    const body = (await answer.json().catch(() => null)) as { result: T; errors?: { message: string }[] } | null;
    if (!answer.ok || body === null) {
      const text = body?.errors?.map(({ message }) => message).join("; ") || `HTTP status ${answer.status}`;
      throw new ApiError(answer.status, text, Number(answer.headers.get("retry-after")) || 0);
    }
    return body.result;
  };
  const setting = ({ value, editable }: Entry): Setting => ({ value, editable: editable !== false });
  return {
    async list(zone) {
      const entries = await call<Entry[]>(`/zones/${encodeURIComponent(zone)}/settings`);
      // In the order of the ids, so that the same settings are the same text.
      entries.sort((a, b) => (a.id < b.id ? -1 : 1));
      return Object.fromEntries(entries.map((entry) => [entry.id, setting(entry)]));
    },
    async set(zone, id, value) {
      const path = `/zones/${encodeURIComponent(zone)}/settings/${id}`;
      return setting(await call<Entry>(path, { method: "PATCH", body: JSON.stringify({ value }) }));
    },
  };
}
