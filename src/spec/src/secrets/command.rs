//! A source that is a program: run for one value after the other, a few at a time, and for each at most once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use secrecy::SecretString;

use flotilla_model::spec::Environment;

use super::program::{self, Trouble};
use super::source::Answer;

/// The number of runs of one program at once, unless fleet.yaml sets another.
const AT_ONCE: u8 = 8;
/// The number of time-outs in a row after which a program isn't run any more: a vault that is down would take hours
/// to fail for each secret.
const TIMED_OUT: usize = 3;

/// A program that is run for one value after the other.
pub struct Program {
    root: PathBuf,
    /// The program and its arguments, with placeholders.
    pub words: Vec<String>,
    timeout: Duration,
    pub at_once: u8,
    running: Mutex<u8>,
    ended: Condvar,
    timed_out: AtomicUsize,
    outcomes: Mutex<HashMap<Vec<String>, Arc<OnceLock<Outcome>>>>,
}

/// The output of a program.
enum Outcome {
    Value(SecretString),
    None,
    Failed(String),
}

impl Program {
    pub fn new(root: &Path, words: &[String], timeout: Duration, at_once: Option<u8>) -> Program {
        Program {
            root: root.to_owned(),
            words: words.to_vec(),
            timeout,
            at_once: at_once.unwrap_or(AT_ONCE),
            running: Mutex::new(0),
            ended: Condvar::new(),
            timed_out: AtomicUsize::new(0),
            outcomes: Mutex::default(),
        }
    }

    /// Runs the program for a value, which is a customer's own if the command has `{customer}`, and otherwise for
    /// all.
    pub fn run_for(&self, environment: Environment, name: &str, whose: Option<(&str, &str)>) -> Answer {
        if whose.is_some() != self.is_for_one() {
            return Answer::None;
        }
        let (customer, name) = whose.unwrap_or(("", name));
        let fill = |word: &String| {
            word.replace("{customer}", customer).replace("{environment}", environment.as_ref()).replace("{name}", name)
        };
        let words: Vec<String> = self.words.iter().map(fill).collect();
        let outcome = Arc::clone(self.outcomes.lock().entry(words.clone()).or_default());
        match outcome.get_or_init(|| self.run(&words)) {
            Outcome::Value(value) => Answer::Value(value.clone()),
            Outcome::None => Answer::None,
            Outcome::Failed(why) => Answer::Unknown(why.clone()),
        }
    }

    /// Returns whether it has another value for each customer.
    pub fn is_for_one(&self) -> bool {
        self.words.iter().any(|word| word.contains("{customer}"))
    }

    /// Returns the reason of a failure, if it failed for any value: that of the first value in the order of its arguments.
    pub fn failure(&self) -> Option<String> {
        let outcomes = self.outcomes.lock();
        let failed = outcomes.iter().filter_map(|(words, outcome)| match outcome.get()? {
            Outcome::Failed(why) => Some((words, why)),
            Outcome::Value(_) | Outcome::None => None,
        });
        failed.min().map(|(_, why)| why.clone())
    }

    fn run(&self, words: &[String]) -> Outcome {
        let mut running = self.running.lock();
        while *running >= self.at_once {
            self.ended.wait(&mut running);
        }
        *running += 1;
        drop(running);
        let outcome = self.run_now(words);
        *self.running.lock() -= 1;
        self.ended.notify_one();
        outcome
    }

    fn run_now(&self, words: &[String]) -> Outcome {
        let program = &self.words[0];
        if self.timed_out.load(Ordering::Relaxed) >= TIMED_OUT {
            return Outcome::Failed(format!(
                "{program} timed out {TIMED_OUT} times in a row, and is not called any more"
            ));
        }
        let ended = match program::run(words, &self.root, self.timeout) {
            Ok(ended) => ended,
            Err(trouble) => {
                return Outcome::Failed(match trouble {
                    Trouble::NotStarted => format!("{program} can't be started"),
                    Trouble::TooMuch => format!("{program} prints more than one secret"),
                    Trouble::TimedOut => {
                        self.timed_out.fetch_add(1, Ordering::Relaxed);
                        format!("{program} took more than {} s", self.timeout.as_secs())
                    }
                });
            }
        };
        self.timed_out.store(0, Ordering::Relaxed);
        if ended.code != Some(0) {
            return Outcome::Failed(program::failed(program, ended.code, &ended.complaint));
        }
        let Ok(text) = std::str::from_utf8(&ended.printed) else {
            return Outcome::Failed(format!("{program} prints something other than text"));
        };
        // Programs end their output with a line break that is no part of the value.
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() { Outcome::None } else { Outcome::Value(SecretString::from(text)) }
    }
}
