//! The emulated account's secrets at rest, and fresh ids. Knows one key file; not what is sealed.
//!
//! The key lies beside the database (mode 0600), so this is not protection from anyone who can read the folder: it only keeps the plain
//! values out of it, so that a search, a backup or a commit of the folder doesn't contain them in plain text. Use made-up credentials with
//! the emulator.

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Seals values and makes ids that don't repeat.
pub struct Seal {
    key: [u8; 32],
    run: [u8; 16],
    count: AtomicU64,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Reads the key file, or makes it.
    ///
    /// # Errors
    /// When the file can't be read or written, has another length, or the system gives no random bytes.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        if !file.exists() {
            write_private(file, &random::<32>()?).with_context(|| format!("can't write {}", file.display()))?;
        }
        let bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        let key = bytes.try_into().map_err(|_| anyhow::anyhow!("{} isn't a key of 32 bytes", file.display()))?;
        Ok(Self { key, run: random()?, count: AtomicU64::new(0) })
    }

    /// 32 hexadecimal digits that no other call returns.
    #[must_use]
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.unique()[..16])
    }

    /// A random-looking UUID (version 4) that no other call returns.
    #[must_use]
    pub fn uuid(&self) -> String {
        let mut bytes = self.unique();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let digits = HEXLOWER.encode(&bytes[..16]);
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }

    /// The value, unreadable without the key: hexadecimal.
    #[must_use]
    pub fn seal(&self, value: &str) -> String {
        let nonce = &self.unique()[..16];
        HEXLOWER.encode(nonce) + &HEXLOWER.encode(&self.stream(nonce, value.as_bytes()))
    }

    /// The value that was sealed, or nothing where it was sealed with another key.
    #[must_use]
    pub fn unseal(&self, sealed: &str) -> Option<String> {
        let bytes = HEXLOWER.decode(sealed.as_bytes()).ok()?;
        let (nonce, body) = bytes.split_at_checked(16)?;
        String::from_utf8(self.stream(nonce, body)).ok()
    }

    fn unique(&self) -> [u8; 32] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        Sha256::new().chain_update(self.key).chain_update(self.run).chain_update(count.to_le_bytes()).finalize().into()
    }

    /// `bytes` xor the hash of key, nonce and block number.
    fn stream(&self, nonce: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for (block, chunk) in bytes.chunks(32).enumerate() {
            let pad = Sha256::new()
                .chain_update(self.key)
                .chain_update(nonce)
                .chain_update((block as u64).to_le_bytes())
                .finalize();
            out.extend(chunk.iter().zip(pad).map(|(byte, pad)| byte ^ pad));
        }
        out
    }
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// When the file exists or can't be written.
pub fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(bytes)
}

/// 64 random hexadecimal digits.
///
/// # Errors
/// When the system gives no random bytes.
pub fn random_word() -> anyhow::Result<String> {
    Ok(HEXLOWER.encode(&random::<32>()?))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("the system gives no random bytes")?;
    Ok(bytes)
}

/// The sha256 of `bytes`, in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_again_and_with_no_other_key() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::open(&folder.path().join("key")).unwrap();
        let value = "geheim — ".repeat(20);
        let sealed = seal.seal(&value);
        assert_ne!(sealed, seal.seal(&value));
        assert_eq!(Seal::open(&folder.path().join("key")).unwrap().unseal(&sealed).as_deref(), Some(value.as_str()));
        assert_ne!(Seal::open(&folder.path().join("other")).unwrap().unseal(&sealed).as_deref(), Some(value.as_str()));
        assert_eq!(seal.unseal("zz"), None);
    }

    #[test]
    fn ids_have_their_form_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::open(&folder.path().join("key")).unwrap();
        assert_eq!(seal.id().len(), 32);
        let uuid = seal.uuid();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert_ne!(uuid, seal.uuid());
    }
}
