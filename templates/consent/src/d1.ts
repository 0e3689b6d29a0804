// D1's binding, as far as a worker uses it. Knows nothing about Kysely.

import type { Source } from "./database.ts";

interface Statement {
  bind(...values: unknown[]): Statement;
  all(): Promise<{ results: Record<string, unknown>[]; meta: { changes?: number; last_row_id?: number } }>;
}

interface D1 {
  prepare(sql: string): Statement;
  batch(statements: Statement[]): Promise<unknown>;
}

export function openD1(binding: unknown, name: string): Source {
  if (typeof binding !== "object" || binding === null) throw new Error(`the binding ${name} is missing`);
  const d1 = binding as D1;
  return {
    identity: ["d1", binding],
    connect: () => ({
      async run(sql, parameters) {
        const { results, meta } = await d1.prepare(sql).bind(...parameters.map(encode)).all();
        return { rows: results, affected: meta.changes ?? 0, lastId: meta.last_row_id };
      },
      // D1 has no transactions that span requests, only batches. So the statements of a transaction run one at a time,
      // and are not undone if a later one fails.
      async begin() {},
      async end() {},
    }),
    async batch(statements) {
      await d1.batch(statements.map((sql) => d1.prepare(sql)));
    },
  };
}

/** D1 accepts null, numbers, strings and bytes. */
function encode(value: unknown): unknown {
  if (value === undefined) return null;
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return value.getTime();
  return value;
}
