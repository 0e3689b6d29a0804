//! The answer to an upload, and whether the upload created the worker that it was to change. Compares what the platform says of one
//! worker at different times, never with this machine's clock.

use std::time::{Duration, SystemTime};

/// The difference of two times of creation up to which they are one worker's: the platform need not write them with one precision.
const PRECISION: Duration = Duration::from_secs(1);

/// The answer to an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// The ETag of what was uploaded.
    pub etag: String,
    /// The time at which the worker was created, as the platform writes it; none if the answer doesn't say it.
    pub created_on: Option<String>,
    /// The time at which it was last changed, as the platform writes it; none if the answer doesn't say it.
    pub modified_on: Option<String>,
}

impl Uploaded {
    /// Returns whether this is another worker than the one that was there before, of which the time of creation is `known`: it was
    /// created since. An answer without times proves nothing.
    #[must_use]
    pub fn is_recreated(&self, known: Option<&str>) -> bool {
        let Some(created) = self.created_on.as_deref() else { return false };
        // What was created by this very upload was not changed since.
        let is_new = self.modified_on.as_deref() == Some(created);
        match known {
            None => is_new,
            Some(known) => known != created && (is_new || is_apart(known, created)),
        }
    }
}

/// Returns whether two times differ by more than their precision. Ones that can't be read don't.
fn is_apart(one: &str, other: &str) -> bool {
    let time = |text: &str| humantime::parse_rfc3339_weak(text).ok();
    let between = |one: SystemTime, other| one.duration_since(other).unwrap_or_else(|error| error.duration());
    time(one).zip(time(other)).is_some_and(|(one, other)| between(one, other) >= PRECISION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_another_if_it_was_created_since() {
        let early = "2026-11-21T06:30:00.000000Z";
        let late = "2026-11-29T10:00:00.5Z";
        let cases = [
            // An ordinary update, with and without a record of the worker's creation.
            (Some(early), Some(late), Some(early), false),
            (Some(early), Some(late), None, false),
            // Created by this upload.
            (Some(late), Some(late), Some(early), true),
            (Some(late), Some(late), None, true),
            // The second upload in the moment of the first, where the platform's clock is coarse.
            (Some(early), Some(early), Some(early), false),
            // Created by an attempt whose answer was lost, or by somebody else.
            (Some("2026-11-29T10:00:00.1Z"), Some(late), Some(early), true),
            // The same time, written otherwise or rounded.
            (Some("2026-11-21T06:30:00Z"), Some(late), Some(early), false),
            (Some("2026-11-21T06:30:00.4Z"), Some(late), Some(early), false),
            // An answer that doesn't say it.
            (None, None, Some(early), false),
            (None, Some(late), None, false),
            (Some(late), None, None, false),
            (Some("yesterday"), Some("today"), Some(early), false),
        ];
        for (created, modified, known, expected) in cases {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let answer = Uploaded { etag: String::new(), created_on: text(created), modified_on: text(modified) };
            assert_eq!(answer.is_recreated(known), expected, "{answer:?} {known:?}");
        }
    }
}
