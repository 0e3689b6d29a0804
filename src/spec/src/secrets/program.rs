//! Runs a program that prints secrets: without a shell, with a time limit, and without showing what it prints. Doesn't know
//! which programs there are.

use std::path::Path;
use std::time::Duration;

use flotilla_model::child::{self, Job};
use secrecy::zeroize::Zeroizing;

/// More than any file of secrets has.
const MOST: u64 = 1 << 20;

/// The end of a program.
pub struct Ended {
    /// The exit code; none for a signal.
    pub code: Option<i32>,
    /// Its stdout.
    pub printed: Zeroizing<Vec<u8>>,
    /// The first line that it wrote to stderr, without what may be a secret.
    pub complaint: String,
}

/// The reason why a program didn't end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The program doesn't exist, or can't be started.
    NotStarted,
    /// It took too long.
    TimedOut,
    /// It wrote more than is read.
    TooMuch,
}

/// Runs a program in a folder, at a path from there if it is one. It gets this process's environment, and nothing to read; it can ask
/// questions on the terminal.
pub fn run(words: &[String], folder: &Path, limit: Duration) -> Result<Ended, Trouble> {
    let Some((program, arguments)) = words.split_first() else { return Err(Trouble::NotStarted) };
    let job = Job::new(program, arguments, folder).time(limit).output(MOST).interactive();
    let ended = job.run().map_err(|trouble| match trouble {
        child::Trouble::TimedOut(_) => Trouble::TimedOut,
        child::Trouble::TooMuchOutput(_) => Trouble::TooMuch,
        _ => Trouble::NotStarted,
    })?;
    let printed = Zeroizing::new(ended.stdout);
    let complaint = redacted(&String::from_utf8_lossy(&ended.stderr), &String::from_utf8_lossy(&printed));
    Ok(Ended { code: ended.status.code(), printed, complaint })
}

/// Returns how a program failed, in words.
pub fn failed(program: &str, code: Option<i32>, complaint: &str) -> String {
    let how = code.map_or("was killed".to_owned(), |code| format!("ended with {code}"));
    if complaint.is_empty() { format!("{program} {how}") } else { format!("{program} {how}: {complaint}") }
}

/// Returns the first line of a program's stderr. A word that has digits, that is long, or that is in its stdout as
/// well may be a secret, and isn't shown.
fn redacted(complaint: &str, printed: &str) -> String {
    let line = complaint.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let is_shown = |word: &&str| {
        let short = word.chars().count() <= 3;
        let plain = word.chars().all(|c| c.is_alphabetic() || "/.,:;'\"()-_".contains(c)) && word.chars().count() < 24;
        (short && !word.contains(|c: char| c.is_control()))
            || (plain && !printed.contains(word.trim_matches(['"', '\'', '.', ',', ':'])))
    };
    let words: Vec<&str> = line.split_whitespace().map(|word| if is_shown(&word) { word } else { "***" }).collect();
    words.into_iter().take(30).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn sh(script: &str, seconds: u64) -> Result<Ended, Trouble> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run(&words, Path::new("."), Duration::from_secs(seconds))
    }

    #[test]
    fn what_it_prints_and_how_it_ends() {
        let ended = sh("printf value; echo 'no key token-0123 here' >&2; exit 3", 30).ok().unwrap();
        assert_eq!((ended.code, ended.printed.as_slice()), (Some(3), b"value".as_slice()));
        assert_eq!(ended.complaint, "no key *** here");
        assert_eq!(sh("kill -9 $$", 30).ok().unwrap().code, None);
        let missing = run(&["no-such-program-anywhere".to_owned()], Path::new("."), Duration::from_secs(1));
        assert_eq!(missing.err(), Some(Trouble::NotStarted));
    }

    #[test]
    fn one_that_hangs_or_never_stops_writing_is_ended() {
        let start = Instant::now();
        assert_eq!(sh("sleep 60", 1).err(), Some(Trouble::TimedOut));
        assert_eq!(sh("exec >&-; sleep 60", 1).err(), Some(Trouble::TimedOut));
        assert_eq!(sh("sleep 60 & echo x", 1).err(), Some(Trouble::TimedOut), "somebody holds its output open");
        assert_eq!(sh("cat /dev/zero", 60).err(), Some(Trouble::TooMuch));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn complaints_are_shown_without_secrets() {
        for (complaint, shown) in [
            ("", ""),
            ("\n  permission denied\nmore\n", "permission denied"),
            ("got canary for secret/data/acme", "got *** for secret/data/acme"),
            ("http://127.0.0.1:8200/v1 refused", "*** refused"),
            ("\u{1b}[31mred", "***"),
            ("aVeryLongWordWithoutAnyDigitsInIt is hidden", "*** is hidden"),
        ] {
            assert_eq!(redacted(complaint, "the canary"), shown);
        }
    }
}
