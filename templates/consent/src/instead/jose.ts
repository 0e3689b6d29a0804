// In place of jose, with which c15t signs and verifies snapshot tokens where it was given a signing key. It is given
// none here, and looks for one before it comes to jose.

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
