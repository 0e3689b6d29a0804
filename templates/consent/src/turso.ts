// Hrana over HTTP, version 2, as far as a worker uses it: one statement per request, and the baton that keeps a
// transaction's statements on one stream. Knows nothing about Kysely.

import type { Connection, Rows, Source } from "./database.ts";

// Longer than any statement of c15t, shorter than a visitor waits.
const ANSWER_WITHIN_MS = 5000;

type Value =
  | { type: "null" }
  | { type: "integer"; value: string }
  | { type: "float"; value: number }
  | { type: "text"; value: string }
  | { type: "blob"; base64: string };

interface StatementResult {
  cols: { name: string | null }[];
  rows: Value[][];
  affected_row_count: number;
  last_insert_rowid: string | null;
}

interface PipelineAnswer {
  baton: string | null;
  base_url: string | null;
  results: (
    | { type: "ok"; response: { type: "execute"; result: StatementResult } | { type: "close" } }
    | { type: "error"; error: { message: string; code?: string } }
  )[];
}

export function openTurso(url: string, token: string): Source {
  const base = httpBase(url);
  return { identity: ["turso", base, token], connect: () => connect(base, token) };
}

/** `libsql:` means https, unless the URL has `?tls=0`: a local server has no certificate. */
function httpBase(text: string): string {
  const url = new URL(text);
  const plain = url.protocol === "http:" || url.protocol === "ws:" || url.searchParams.get("tls") === "0";
  if (!["libsql:", "https:", "http:", "wss:", "ws:"].includes(url.protocol))
    throw new Error("TURSO_DATABASE_URL must be a libsql or https URL");
  return `${plain ? "http" : "https"}://${url.host}${url.pathname.replace(/\/+$/, "")}`;
}

function connect(start: string, token: string): Connection {
  let base = start;
  let baton: string | null = null;
  let inTransaction = false;

  async function send(requests: readonly object[]): Promise<PipelineAnswer["results"]> {
    const response = await fetch(`${base}/v2/pipeline`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ baton, requests }),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`the database answered with status ${response.status}`);
    }
    const answer: PipelineAnswer = await response.json();
    baton = answer.baton;
    base = answer.base_url ?? base;
    return answer.results;
  }

  async function execute(sql: string, parameters: readonly unknown[], close: boolean): Promise<Rows> {
    const stmt = { sql, args: parameters.map(encode), want_rows: true };
    const [first] = await send([{ type: "execute", stmt }, ...(close ? [{ type: "close" }] : [])]);
    if (first?.type === "error") throw new Error(first.error.message);
    if (first?.response.type !== "execute") throw new Error("the database answered without a result");
    return decodeRows(first.response.result);
  }

  return {
    run: (sql, parameters) => execute(sql, parameters, !inTransaction),
    async begin() {
      try {
        // For writing from the beginning: a transaction that reads first and then writes could not wait for the lock of
        // another one.
        await execute("BEGIN IMMEDIATE", [], false);
        inTransaction = true;
      } catch (error) {
        if (baton !== null) await send([{ type: "close" }]).catch(() => undefined);
        throw error;
      }
    },
    async end(outcome) {
      inTransaction = false;
      // The server closes a stream whose transaction it aborted; then there is nothing left to roll back.
      if (baton === null && outcome === "ROLLBACK") return;
      await execute(outcome, [], true);
    },
  };
}

function decodeRows({ cols, rows, affected_row_count, last_insert_rowid }: StatementResult): Rows {
  return {
    rows: rows.map((row) => Object.fromEntries(row.map((value, column) => [cols[column]?.name ?? String(column), decode(value)]))),
    affected: affected_row_count,
    lastId: last_insert_rowid === null ? undefined : Number(last_insert_rowid),
  };
}

function encode(value: unknown): Value {
  switch (typeof value) {
    case "string":
      return { type: "text", value };
    case "number":
      return Number.isSafeInteger(value) ? { type: "integer", value: String(value) } : { type: "float", value };
    case "bigint":
      return { type: "integer", value: String(value) };
    case "boolean":
      return { type: "integer", value: value ? "1" : "0" };
  }
  if (value === null || value === undefined) return { type: "null" };
  if (value instanceof Date) return { type: "integer", value: String(value.getTime()) };
  if (value instanceof Uint8Array) return { type: "blob", base64: btoa(String.fromCharCode(...value)) };
  throw new TypeError("a parameter of a kind that SQLite does not know");
}

function decode(value: Value): unknown {
  switch (value.type) {
    case "null":
      return null;
    case "integer":
      return Number(value.value);
    case "blob":
      return Uint8Array.from(atob(value.base64), (char) => char.charCodeAt(0));
    default:
      return value.value;
  }
}
