// In place of parts of Kysely that SQLite or c15t has no use for: `withSchema`, values in the definition of a view or
// a partial index (these two rewrite whole queries, which is much code), and MERGE.

class Absent {
  constructor() {
    throw new Error("the bundle holds no such part of Kysely");
  }
}
export { Absent as ImmediateValueTransformer, Absent as MergeQueryBuilder, Absent as WithSchemaPlugin };
