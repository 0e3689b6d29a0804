// Connects Kysely to a remote SQLite database, and creates c15t's schema there. Knows neither Hrana nor D1: those are
// connections. Knows nothing about requests.

import { DB } from "@c15t/backend/db/schema";
import { kyselyAdapter } from "@c15t/backend/db/adapters/kysely";
import {
  CompiledQuery,
  type DatabaseConnection,
  type DatabaseIntrospector,
  type Dialect,
  Kysely,
  type QueryResult,
  SqliteAdapter,
  SqliteQueryCompiler,
} from "kysely";
import { openD1 } from "./d1.ts";
import type { Database as DatabaseConfig, Env } from "./config.ts";
import { openTurso } from "./turso.ts";

/** The outcome of one statement. */
export interface Rows {
  rows: Record<string, unknown>[];
  affected: number;
  lastId: number | undefined;
}

/** A place to run statements one after the other; in a transaction, between `begin` and `end`. */
export interface Connection {
  run(sql: string, parameters: readonly unknown[]): Promise<Rows>;
  begin(): Promise<void>;
  end(outcome: "COMMIT" | "ROLLBACK"): Promise<void>;
}

/** A remote database. */
export interface Source {
  /** Equal for equal databases, so that an instance for one of them is reused. */
  readonly identity: readonly unknown[];
  connect(): Connection;
  /** Where there are no transactions, the statements of a migration as one atomic batch. */
  batch?(statements: readonly string[]): Promise<void>;
}

/** A database that c15t can use. */
export interface Database {
  readonly adapter: ReturnType<typeof kyselyAdapter>;
  /** Fails when the database does not answer. */
  ping(): Promise<void>;
  /** Brings the schema up to date; quick once it is. */
  prepare(): Promise<void>;
}

/** The source that a worker's configuration and bindings name, if it has one. Fails when a binding is missing. */
export function openSource(config: DatabaseConfig, env: Env): Source | undefined {
  switch (config.type) {
    case "none":
      return undefined;
    case "turso":
      return openTurso(text(env, "TURSO_DATABASE_URL"), text(env, "TURSO_AUTH_TOKEN"));
    case "d1":
      return openD1(env[config.binding], config.binding);
  }
}

function text(env: Env, name: string): string {
  const value = env[name];
  if (typeof value !== "string" || value === "") throw new Error(`the binding ${name} is missing`);
  return value;
}

export function createDatabase(source: Source): Database {
  const db = new Kysely<any>({ dialect: dialect(source) });
  const adapter = kyselyAdapter({ db, provider: "sqlite" });
  // Requests only share the fact, never the promise, which would hang with the request that began it.
  let prepared = false;

  return {
    adapter,
    async ping() {
      await db.executeQuery(CompiledQuery.raw("select 1"));
    },
    async prepare() {
      if (prepared) return;
      const since = Date.now();
      for (const pause of PAUSES_MS)
        try {
          await migrate(db, adapter, source);
          break;
        } catch (error) {
          // Another isolate may have begun at the same time. Then its schema exists soon, or the next attempt creates
          // it.
          if (pause === undefined || Date.now() - since > RETRY_WITHIN_MS) throw error;
          await new Promise((resolve) => setTimeout(resolve, pause));
        }
      prepared = true;
    },
  };
}

// A migration takes about twenty statements, each of them a round trip. Slow errors are no race: the database does not
// respond.
const PAUSES_MS = [100, 300, 900, 2700, undefined];
const RETRY_WITHIN_MS = 4000;

// c15t names its settings table after the namespace of its schema.
const SETTINGS = "private_c15t_settings";

/** A query of this pack's own: c15t treats a failing query as an empty database, and would then migrate a full one. */
async function isCurrent(db: Kysely<any>): Promise<boolean> {
  const tables = await db.selectFrom("sqlite_master").select("name").where("name", "=", SETTINGS).execute();
  if (tables.length === 0) return false;
  const [version] = await db.selectFrom(SETTINGS).select("value").where("key", "=", "version").execute();
  return version?.value === latestVersion;
}

const latestVersion: string = DB.client({} as Database["adapter"]).schemas.at(-1)!.version;

async function migrate(db: Kysely<any>, adapter: Database["adapter"], source: Source): Promise<void> {
  if (await isCurrent(db)) return;
  const migration = await DB.client(adapter).createMigrator().migrateToLatest({ mode: "from-schema" });
  if (source.batch) await source.batch(migration.getSQL!().split(";\n\n"));
  else await migration.execute();
}

function dialect(source: Source): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: (db) => introspector(db),
    createDriver: () => ({
      async init() {},
      async acquireConnection() {
        return new KyselyConnection(source.connect());
      },
      beginTransaction: (connection) => (connection as KyselyConnection).wire.begin(),
      commitTransaction: (connection) => (connection as KyselyConnection).wire.end("COMMIT"),
      rollbackTransaction: (connection) => (connection as KyselyConnection).wire.end("ROLLBACK"),
      async releaseConnection() {},
      async destroy() {},
    }),
  };
}

class KyselyConnection implements DatabaseConnection {
  constructor(readonly wire: Connection) {}

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const { rows, affected, lastId } = await this.wire.run(sql, parameters);
    return {
      rows: rows as R[],
      numAffectedRows: BigInt(affected),
      ...(lastId === undefined ? {} : { insertId: BigInt(lastId) }),
    };
  }

  // c15t doesn't stream.
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("streaming is not supported");
  }
}

/** A migration from schema to schema only needs the names of tables; D1 refuses to describe its own tables. */
function introspector(db: Kysely<any>): DatabaseIntrospector {
  const getTables = async () => {
    const tables = await db.selectFrom("sqlite_master").select("name").where("type", "=", "table").execute();
    return tables.map(({ name }) => ({ name: String(name), isView: false, columns: [] }));
  };
  return { getSchemas: async () => [], getTables, getMetadata: async () => ({ tables: await getTables() }) };
}
