//! Random values of secrets. None of them is printed.

use clap::ValueEnum;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use flotilla_model::failure::Failure;

/// The characters that a random value is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Alphabet {
    /// Two digits per byte
    Hex,
    /// Standard alphabet, with `+`, `/` and `=`
    Base64,
    /// URL-safe alphabet, with `-` and `_`
    #[default]
    Base64url,
}

/// Returns a random value of this number of bytes.
pub fn random(bytes: usize, alphabet: Alphabet) -> Result<SecretString, Failure> {
    let mut random = Zeroizing::new(vec![0; bytes]);
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Failure::new("the operating system provides no random numbers"))?;
    let encoding = match alphabet {
        Alphabet::Hex => HEXLOWER,
        Alphabet::Base64 => BASE64,
        Alphabet::Base64url => BASE64URL_NOPAD,
    };
    Ok(SecretString::from(encoding.encode(&random)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn random_values_have_their_length_and_their_letters() {
        for (alphabet, length, letters) in
            [(Alphabet::Hex, 64, "0123456789abcdef"), (Alphabet::Base64, 44, "+/="), (Alphabet::Base64url, 43, "-_")]
        {
            let values: HashSet<String> =
                (0..50).map(|_| random(32, alphabet).unwrap().expose_secret().to_owned()).collect();
            assert_eq!(values.len(), 50);
            for value in values {
                assert_eq!(value.len(), length);
                let own = |c: char| letters.contains(c) || (alphabet != Alphabet::Hex && c.is_ascii_alphanumeric());
                assert!(value.chars().all(own), "{value}");
            }
        }
    }
}
