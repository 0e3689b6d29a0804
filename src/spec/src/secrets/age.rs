//! Files that are encrypted with age: opens them with an identity, writes them for recipients. Plain text exists in memory
//! alone. Doesn't know what is in them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::x25519::{Identity, Recipient};
use secrecy::zeroize::Zeroizing;

/// Reads identities as age-keygen writes them: a key in each line, and comments.
pub fn identities(text: &str) -> Result<Vec<Identity>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<Identity> = lines
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| "it contains something other than age identities".to_owned())?;
    if keys.is_empty() { Err("it contains no age identity".to_owned()) } else { Ok(keys) }
}

/// Opens a file; the text in it.
pub fn open(bytes: &[u8], identities: &[Identity]) -> Result<Zeroizing<String>, String> {
    let describe = |error: age::DecryptError| match error {
        age::DecryptError::NoMatchingKeys => "it isn't encrypted for this identity".to_owned(),
        age::DecryptError::InvalidHeader | age::DecryptError::UnknownFormat => "it is not an age file".to_owned(),
        _ => "it is damaged".to_owned(),
    };
    let damaged = || "it is damaged".to_owned();
    let file = age::Decryptor::new_buffered(ArmoredReader::new(bytes)).map_err(describe)?;
    let mut reader =
        file.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity)).map_err(describe)?;
    let mut text = Zeroizing::new(Vec::new());
    reader.read_to_end(&mut text).map_err(|_| damaged())?;
    match std::str::from_utf8(&text) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("its content is not UTF-8".to_owned()),
    }
}

/// Returns a text as a file for these recipients, as lines of ASCII.
pub fn close(text: &str, recipients: &[Recipient]) -> Result<Vec<u8>, String> {
    let write = || -> Result<Vec<u8>, String> {
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let armor = ArmoredWriter::wrap_output(&mut bytes, Format::AsciiArmor).map_err(|error| error.to_string())?;
        let mut writer = encryptor.wrap_output(armor).map_err(|error| error.to_string())?;
        writer.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
        writer.finish().and_then(ArmoredWriter::finish).map_err(|error| error.to_string())?;
        Ok(bytes)
    };
    write().map_err(|error| format!("it can't be encrypted: {error}"))
}

/// Recipients by their public keys; without any, those of the identities.
pub fn recipients(keys: Option<&[String]>, identities: &[Identity]) -> Result<Vec<Recipient>, String> {
    let Some(keys) = keys else { return Ok(identities.iter().map(Identity::to_public).collect()) };
    let unique: BTreeSet<&String> = keys.iter().collect();
    unique.into_iter().map(|key| key.parse().map_err(|_| format!("`{key}` is not an age recipient"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_a_recipient_opens_it_and_nobody_else() {
        let [one, two, other] = [(); 3].map(|()| Identity::generate());
        let keys = [one.to_public().to_string(), two.to_public().to_string()];
        let file = close("A=canary\n", &recipients(Some(&keys), &[]).unwrap()).unwrap();
        assert!(file.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
        for identity in [&one, &two] {
            assert_eq!(open(&file, std::slice::from_ref(identity)).unwrap().as_str(), "A=canary\n");
        }
        assert_eq!(open(&file, &[other]).unwrap_err(), "it isn't encrypted for this identity");
        let alone = close("A=1", &recipients(None, std::slice::from_ref(&one)).unwrap()).unwrap();
        assert_eq!(open(&alone, &[two, one]).unwrap().as_str(), "A=1");
    }

    #[test]
    fn what_is_no_file_or_no_identity_is_told_without_its_text() {
        let identity = Identity::generate();
        let file = close(&"canary ".repeat(100), &[identity.to_public()]).unwrap();
        let mut damaged = file.clone();
        let at = (file.len() * 3 / 4..).find(|at| file[*at] != b'\n').unwrap();
        damaged[at] = if file[at] == b'A' { b'B' } else { b'A' };
        for bytes in [b"canary".as_slice(), b"", &damaged, &file[..80]] {
            let describe = open(bytes, std::slice::from_ref(&identity)).err();
            assert!(describe.is_some_and(|describe| !describe.contains("canary")));
        }
        for text in ["", "# nothing\n", "canary", "AGE-SECRET-KEY-1CANARY"] {
            assert!(identities(text).err().is_some_and(|describe| !describe.to_lowercase().contains("canary")));
        }
    }
}
