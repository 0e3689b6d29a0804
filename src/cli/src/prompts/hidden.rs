//! Values that aren't shown: typed on the terminal, or read from stdin. None of them is printed.

use std::io::{ErrorKind, Read as _};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use flotilla_model::failure::Failure;

use super::{is_terminal, wait_for_shutdown};

/// The maximum number of bytes that are read from stdin: far more than fits into a binding.
const MAX_BYTES: u64 = 1 << 20;

/// Asks on a terminal for a value without showing it; otherwise reads all of stdin.
pub fn hidden_or_piped(prompt: &str) -> Result<SecretString, Failure> {
    if is_terminal() { hidden(prompt) } else { piped() }
}

/// Asks on the terminal for a value, showing a star for each key.
pub fn hidden(prompt: &str) -> Result<SecretString, Failure> {
    valid(typed(prompt)?)
}

/// The same; nothing, if nothing was typed.
pub fn hidden_or_nothing(prompt: &str) -> Result<Option<SecretString>, Failure> {
    match typed(prompt)? {
        text if text.is_empty() => Ok(None),
        text => valid(text).map(Some),
    }
}

fn typed(prompt: &str) -> Result<String, Failure> {
    // The terminal of stdin, so that nothing of it can end up in a file that stdout or stderr were sent to.
    let terminal = rpassword::ConfigBuilder::new()
        .input_file_path("/dev/stdin")
        .output_writer(std::io::stderr())
        .password_feedback_mask('*')
        .build();
    rpassword::prompt_password_with_config(prompt, terminal).map_err(|error| match error.kind() {
        // Without a handler, the signal has ended the program.
        ErrorKind::Interrupted => wait_for_shutdown(),
        _ => Failure::new(format!("no value was entered: {error}")),
    })
}

/// Reads a value from stdin, without the line break at its end.
pub fn piped() -> Result<SecretString, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::io::stdin()
        .lock()
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("stdin can't be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::new("stdin contains more than a secret can have"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::new("stdin is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    valid(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn valid(value: String) -> Result<SecretString, Failure> {
    let value = SecretString::from(value);
    match value.expose_secret() {
        "" => Err(Failure::new("the value is empty")
            .hint("enter it, or pipe it in: printf %s \"$VALUE\" | flotilla secrets set NAME")),
        text if text.contains('\0') => Err(Failure::new("the value contains a character that is not text")),
        _ => Ok(value),
    }
}
