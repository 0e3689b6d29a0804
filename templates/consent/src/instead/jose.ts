// Replaces jose, with which c15t signs and verifies snapshot tokens if it has a signing key. It has none here, and
// checks that before it uses jose.

const noKey = () => {
  throw new Error("the bundle holds no jose");
};
export class SignJWT {
  constructor() {
    noKey();
  }
}
export const jwtVerify = noKey;
export const errors = { JWTExpired: class extends Error {} };
