//! Framed sha256 digests, which decide equality. Knows bytes; doesn't know where they come from.
//!
//! The content of each digest:
//!
//! | value                                         | bundle digest | runtime digest |
//! |-----------------------------------------------|---------------|----------------|
//! | the rendered module, byte for byte            | yes           |                |
//! | the runtime bundle, byte for byte             | yes           | yes            |
//! | the runtime's types (`.d.ts`)                 |               | yes            |
//! | compatibility date and flags, observability   | yes           |                |
//! | variables, database binding                   | yes           |                |
//! | names of secrets                              | yes           |                |
//! | values of secrets                             | never         | never          |
//! | domains, routes, crons, workers.dev           | no: compared one by one, each has a request of its own | |
//! | comments, key order and white space of a spec | no            |                |
//! | time, paths of the machine, host names        | never         | never          |
//!
//! The values of secrets are compared by a keyed fingerprint that is kept in the state, so that a
//! digest means the same on every machine. `FLOTILLA_DIGEST`, the variable by which a worker reports
//! its digest, is left out of the digest, as it can't contain itself.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A sha256, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of some bytes, unframed: what `sha256sum` prints.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Returns the first 16 hexadecimal digits: for file names and for people.
    pub fn short(&self) -> String {
        self.to_string()[..16].to_owned()
    }

    /// Returns the first half: enough to tell values apart that aren't made alike on purpose.
    pub fn short_hash(&self) -> ShortHash {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        ShortHash(half)
    }

    /// Returns the bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Returns a digest from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes).ok()?;
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 64];
        f.write_str(HEXLOWER.encode_mut_str(&self.0, &mut text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).ok_or_else(|| serde::de::Error::custom("not a sha256 in hexadecimal"))
    }
}

/// Half a sha256, for values that are compared on one machine only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShortHash(pub [u8; 16]);

/// A digest over a sequence of fields. Each field is framed by its length, so that no two different
/// sequences feed the same bytes to the hash.
#[derive(Clone)]
pub struct Framed(Sha256);

impl Framed {
    /// Starts a digest for one purpose; two purposes never share a digest.
    pub fn new(purpose: &str) -> Framed {
        Framed(Sha256::new()).field(purpose.as_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Framed {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Returns the digest of all fields so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_tells_apart_what_concatenation_would_not() {
        let ab_c = Framed::new("t").field(b"ab").field(b"c").finish();
        let a_bc = Framed::new("t").field(b"a").field(b"bc").finish();
        let abc = Framed::new("t").field(b"abc").finish();
        assert!(ab_c != a_bc && a_bc != abc && abc != ab_c);
    }

    #[test]
    fn text_round_trips() {
        let digest = Digest::of(b"flotilla");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("xyz"), None);
        assert_eq!(Digest::parse(&"é".repeat(32)), None);
    }
}
