// Replaces @paralleldrive/cuid2, which creates ids for columns that request them from fumadb. No column of c15t does:
// c15t creates its own ids. If one ever does, this throws an error.

export function createId(): never {
  throw new Error("the bundle holds no cuid2");
}
