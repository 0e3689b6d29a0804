//! The rules of Cloudflare's static assets, as wrangler and Cloudflare apply them: which files of a folder are assets, their hashes and content
//! types, and the rules in `_headers`, `_redirects` and `run_worker_first`. Pure: reads no disk and sends nothing.
//!
//! Both sides need them: a build, which finds errors before anything is sent, and the local emulator, which serves what was uploaded.

mod content_type;
mod hash;
pub mod headers;
mod ignored;
pub mod redirects;
pub mod routing;
mod urls;

pub use content_type::content_type;
pub use hash::{HASH_LENGTH, hash};
pub use ignored::{Ignored, is_pages_worker};

/// The maximum size, in bytes, of an asset. Source: Cloudflare docs, Workers › Platform › Limits (2026), and wrangler's own check.
pub const MOST_BYTES: u64 = 25 << 20;
/// The file whose patterns name the files of a folder that are no assets.
pub const IGNORE_FILE: &str = ".assetsignore";
/// The file with the headers of answers.
pub const HEADERS_FILE: &str = "_headers";
/// The file with redirects.
pub const REDIRECTS_FILE: &str = "_redirects";

/// An error in a line of a file with rules, which Cloudflare ignores or rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The error.
    pub message: String,
}

/// The most characters of a line with a rule. Source: wrangler.
const LONGEST_LINE: usize = 2000;

/// Returns a line without the spaces around it, as JavaScript trims it.
fn trimmed(line: &str) -> &str {
    line.trim_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}')
}

/// Returns whether a line is longer than those that are read, in the units of JavaScript.
fn is_too_long(line: &str) -> bool {
    line.len() > LONGEST_LINE && line.encode_utf16().count() > LONGEST_LINE
}

/// Returns whether a path has a placeholder: `:name`.
fn has_placeholder(path: &str) -> bool {
    path.match_indices(':').any(|(at, _)| path[at + 1..].starts_with(|next: char| next.is_ascii_alphabetic()))
}

/// Returns a text as JSON.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
