// In place of @paralleldrive/cuid2, which makes ids for columns that ask fumadb for them. No column of c15t does:
// it makes its own. Should one ask, it says so.

export function createId(): never {
  throw new Error("the bundle holds no cuid2");
}
