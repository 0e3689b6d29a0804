//! Keyed fingerprints of secrets' values. Knows no values' names and keeps no key.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Makes keyed fingerprints of secrets' values: they show that a value changed, without revealing it. The key is
/// random, and is kept in the state beside the fingerprints.
#[derive(Clone)]
pub struct Fingerprints(Hmac<Sha256>);

impl Fingerprints {
    /// Returns fingerprints under this key.
    pub fn new(key: &[u8]) -> Fingerprints {
        Fingerprints(Hmac::new_from_slice(key).expect("BUG: HMAC takes keys of any length"))
    }

    /// Returns the fingerprint of a value.
    pub fn of(&self, value: &str) -> String {
        self.of_bytes(value.as_bytes())
    }

    /// Returns the fingerprint of bytes.
    pub fn of_bytes(&self, value: &[u8]) -> String {
        // A plan makes one for each secret of the fleet.
        let mut mac = self.0.clone();
        mac.update(value);
        let bytes = mac.finalize().into_bytes();
        HEXLOWER.encode(&bytes[..16])
    }
}
