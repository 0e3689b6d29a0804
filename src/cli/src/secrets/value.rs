//! Values of secrets: typed without being shown, read from stdin, or made at random. None of them is printed.

use std::io::{ErrorKind, IsTerminal as _, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::ValueEnum;
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use flotilla_model::failure::Failure;

use super::super::changes::wait_for_the_end;

/// Far more than fits into a binding.
const MOST: u64 = 1 << 20;

/// How a random value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Alphabet {
    /// Two digits for each byte.
    Hex,
    /// With `+`, `/` and `=`.
    Base64,
    /// With `-` and `_`, as it can stand in an address.
    #[default]
    Base64url,
}

/// Asks for a value: on a terminal without showing it, and else all of stdin, without the line break at its end.
pub fn read(prompt: &str) -> Result<SecretString, Failure> {
    if std::io::stdin().is_terminal() { typed(prompt) } else { piped() }
}

/// Asks on the terminal, showing a star for each key.
pub fn typed(prompt: &str) -> Result<SecretString, Failure> {
    // The terminal of stdin, so that nothing of it can end up in a file that stdout or stderr were sent to.
    let terminal = rpassword::ConfigBuilder::new()
        .input_file_path("/dev/stdin")
        .output_writer(std::io::stderr())
        .password_feedback_mask('*')
        .build();
    let value = rpassword::prompt_password_with_config(prompt, terminal).map_err(|error| match error.kind() {
        // Where nobody hears it, the signal has ended the program.
        ErrorKind::Interrupted => wait_for_the_end(),
        _ => Failure::new(format!("nothing was typed: {error}")),
    })?;
    valid(value)
}

/// All of stdin.
pub fn piped() -> Result<SecretString, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::io::stdin()
        .lock()
        .take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("stdin can't be read: {error}")))?;
    if bytes.len() as u64 > MOST {
        return Err(Failure::new("stdin holds more than any secret can"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::new("stdin is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    valid(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn valid(value: String) -> Result<SecretString, Failure> {
    let value = SecretString::from(value);
    match value.expose_secret() {
        "" => Err(Failure::new("the value is empty")
            .hint("type it, or pipe it in: printf %s \"$VALUE\" | flotilla secrets set NAME")),
        text if text.contains('\0') => Err(Failure::new("the value has a character that is no text")),
        _ => Ok(value),
    }
}

/// A random value of so many bytes.
pub fn random(bytes: usize, alphabet: Alphabet) -> Result<SecretString, Failure> {
    let mut random = Zeroizing::new(vec![0; bytes]);
    SystemRandom::new().fill(&mut random).map_err(|_| Failure::new("the system gives no random numbers"))?;
    Ok(SecretString::from(match alphabet {
        Alphabet::Hex => random.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        Alphabet::Base64 => STANDARD.encode(&random[..]),
        Alphabet::Base64url => URL_SAFE_NO_PAD.encode(&random[..]),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

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
