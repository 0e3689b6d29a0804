//! The form of account ids and API tokens: what no request can carry is reported before one is sent, and never repeated in a message.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use flotilla_model::failure::Failure;

/// An account's id that no account can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InvalidId {
    /// The account's name.
    pub account: String,
    /// The place that it comes from.
    pub place: String,
    /// The problem, as in `has 4 characters instead of 32`.
    pub problem: String,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InvalidId { account, place, problem } = self;
        write!(f, "the id of the account `{account}`, {place}, is invalid: it {problem}")
    }
}

impl InvalidId {
    /// Returns it as a failure.
    pub fn failure(&self) -> Failure {
        Failure::new(self.to_string()).hint(ACCOUNT_ID_FORM)
    }
}

/// The form of a token, for messages.
pub const TOKEN_FORM: &str =
    "a token consists of letters, digits, `_` and `-`: set it again, without any other characters";

/// The form of an account's id, for messages.
pub const ACCOUNT_ID_FORM: &str =
    "expected 32 hexadecimal digits in lower case, as the dashboard and `wrangler whoami` show them";

/// Returns which characters of a token no request can carry, or no bearer token has (RFC 6750).
pub fn check_token(token: &SecretString) -> Result<(), String> {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let what = match token.expose_secret().chars().find(|c| !is_of_token(*c)) {
        None => return Ok(()),
        Some('\n' | '\r') => "a line break",
        Some(c) if c.is_whitespace() => "white space",
        Some(c) if c.is_control() => "a control character",
        Some(c) if !c.is_ascii() => "a character that isn't ASCII",
        Some('"' | '\'' | '`') => "quotes",
        Some('$') => "a `$`, as a variable that wasn't replaced does",
        Some(c) => return Err(format!("the character `{c}`")),
    };
    Err(what.to_owned())
}

/// Returns what is invalid about an account's id.
pub fn check_account_id(id: &str) -> Result<(), String> {
    let count = id.chars().count();
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let what = match id.chars().find(|c| !is_hex(*c)) {
        None if count != 32 => return Err(format!("has {count} characters instead of 32")),
        None if id.chars().any(|c| c.is_ascii_uppercase()) => "has upper-case letters",
        None => return Ok(()),
        Some('\n' | '\r') => "contains a line break",
        Some(c) if c.is_whitespace() => "contains white space",
        Some('"' | '\'' | '`') => "is in quotes",
        Some('$') => "contains a `$`, like a variable that wasn't replaced",
        Some('-') if count == 36 => "has the format of another kind of id, with dashes",
        Some(_) => "contains characters other than 0-9 and a-f",
    };
    Err(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_no_request_can_carry_are_named() {
        let check = |token: &str| check_token(&SecretString::from(token));
        assert_eq!(check("aZ09_-~"), Ok(()));
        for (token, what) in [
            ("tok\n", "a line break"),
            ("tok\r", "a line break"),
            (" tok", "white space"),
            ("to\u{a0}k", "white space"),
            ("tok\u{7f}", "a control character"),
            ("tök", "a character that isn't ASCII"),
            ("\"tok\"", "quotes"),
            ("'tok'", "quotes"),
            ("“tok”", "a character that isn't ASCII"),
            ("$TOKEN", "a `$`, as a variable that wasn't replaced does"),
            ("<token>", "the character `<`"),
        ] {
            assert_eq!(check(token), Err(what.to_owned()), "{token:?}");
        }
        assert_eq!(check_account_id("0123456789abcdef0123456789abcdef"), Ok(()));
        for (id, what) in [
            ("", "has 0 characters instead of 32"),
            ("local", "contains characters other than 0-9 and a-f"),
            ("0123", "has 4 characters instead of 32"),
            ("0123456789ABCDEF0123456789ABCDEF", "has upper-case letters"),
            ("0123456789abcdef0123456789abcdeg", "contains characters other than 0-9 and a-f"),
            ("0123456789abcdef0123456789abcdef\n", "contains a line break"),
            ("\"0123456789abcdef0123456789abcdef\"", "is in quotes"),
            ("${ACCOUNT}", "contains a `$`, like a variable that wasn't replaced"),
            ("0f3f6a10-9a4e-4c51-8f5c-2b7d1d2f9a01", "has the format of another kind of id, with dashes"),
        ] {
            assert_eq!(check_account_id(id), Err(what.to_owned()), "{id:?}");
        }
    }
}
