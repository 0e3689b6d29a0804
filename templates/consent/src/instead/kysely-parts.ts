// Replaces parts of Kysely that SQLite or c15t does not use: `withSchema`, values in the definition of a view or
// a partial index (these two rewrite whole queries, which takes a lot of code), and MERGE.

class Absent {
  constructor() {
    throw new Error("the bundle holds no such part of Kysely");
  }
}
export { Absent as ImmediateValueTransformer, Absent as MergeQueryBuilder, Absent as WithSchemaPlugin };
