//! What decides equality: framed sha256 digests. Knows bytes; doesn't know where they come from.
//!
//! What is in which digest:
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
//! digest means the same on every machine. `FLOTILLA_DIGEST`, the variable by which a worker tells
//! its digest, is left out of the digest, as it can't contain itself.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A sha256, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes, unframed: what `sha256sum` prints.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The first 16 hexadecimal digits: for file names and for people.
    pub fn short(&self) -> String {
        self.to_string()[..16].to_owned()
    }

    /// The first half: enough to tell values apart that nobody makes alike on purpose.
    pub fn mark(&self) -> Mark {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        Mark(half)
    }

    /// The bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// A digest from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 64];
        for (at, byte) in self.0.iter().enumerate() {
            text[2 * at] = HEX[usize::from(byte >> 4)];
            text[2 * at + 1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
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

/// Half a sha256, for what is compared with itself on one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark(pub [u8; 16]);

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

    /// The digest of all fields so far.
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
