//! What people see: colours and bars on a terminal, lines elsewhere. Everything here goes to stderr.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::failure::Failure;
use crate::progress::Progress;

/// Where nobody watches, a line every so often.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// How to speak to people.
#[derive(Clone)]
pub struct Ui(Arc<Inner>);

struct Inner {
    quiet: bool,
    bars: bool,
    colours: bool,
    phase: Mutex<Option<Phase>>,
}

struct Phase {
    name: String,
    steps: Option<u64>,
    done: u64,
    start: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Ui {
    /// Looks at the terminal and at `NO_COLOR`, `CI` and `TERM`.
    pub fn new(quiet: bool) -> Ui {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal = std::io::stderr().is_terminal() && std::env::var("TERM").map_or(true, |term| term != "dumb");
        Ui(Arc::new(Inner {
            quiet,
            bars: terminal && !set("CI") && !quiet,
            colours: terminal && !set("NO_COLOR") && !set("CI"),
            phase: Mutex::new(None),
        }))
    }

    /// Text in a colour, if colours are on.
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.0.colours { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_owned() }
    }

    /// A line to stderr, above a bar.
    pub fn line(&self, text: &str) {
        let phase = self.lock();
        match phase.as_ref().and_then(|phase| phase.bar.as_ref()) {
            Some(bar) => bar.suspend(|| stderr(text)),
            None => stderr(text),
        }
    }

    /// Why the command ended.
    pub fn failure(&self, failure: &Failure) {
        self.line(&format!("{} {}", self.paint(Style::Error, "error:"), clean(&failure.to_string())));
        for hint in &failure.hints {
            let hint = clean_lines(hint).replace('\n', "\n    ");
            self.line(&format!("  {} {hint}", self.paint(Style::Help, "=")));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Phase>> {
        self.0.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The styles that are in use, as their numbers of ECMA-48.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Style {
    Dim = 2,
    Error = 31,
    Good = 32,
    Warning = 33,
    Help = 36,
}

/// A broken pipe is no error.
fn stderr(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Text from files without what would drive a terminal.
pub fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let hostile = c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
            if hostile { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

/// The same for text of several lines.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// A duration for people: `4.2 s`, `3 min 20 s`, `6 h 57 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// How a bar looks.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {bar:30} {human_pos}/{human_len} · {rate} · {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec());
        })
}

impl Progress for Ui {
    fn begin(&self, phase: &str, steps: Option<u64>) {
        let bar = self.0.bars.then(|| {
            let bar = match steps {
                Some(steps) => ProgressBar::new(steps).with_style(style()),
                None => ProgressBar::new_spinner(),
            };
            bar.set_message(phase.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() && steps.is_none() && !self.0.quiet {
            stderr(phase);
        }
        let now = Instant::now();
        *self.lock() = Some(Phase { name: phase.to_owned(), steps, done: 0, start: now, told: now, bar });
    }

    fn step(&self, steps: u64) {
        let mut phase = self.lock();
        let Some(phase) = phase.as_mut() else { return };
        phase.done += steps;
        if let Some(bar) = &phase.bar {
            bar.inc(steps);
        } else if !self.0.quiet && phase.told.elapsed() >= LINE_EVERY {
            phase.told = Instant::now();
            let rate = phase.done as f64 / phase.start.elapsed().as_secs_f64();
            let left = phase.steps.map(|all| duration(all.saturating_sub(phase.done) as f64 / rate));
            match (phase.steps, left) {
                (Some(all), Some(left)) => {
                    stderr(&format!("{} {}/{all} · {rate:.0}/s · {left} left", phase.name, phase.done))
                }
                _ => stderr(&format!("{} {} · {rate:.0}/s", phase.name, phase.done)),
            }
        }
    }

    fn note(&self, text: &str) {
        if !self.0.quiet {
            self.line(text);
        }
    }

    fn end(&self) {
        if let Some(Phase { bar: Some(bar), .. }) = self.lock().take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_drives_no_terminal() {
        assert_eq!(clean("a\x1b[31mb\u{202e}é"), "a\\u{1b}[31mb\\u{202e}é");
    }

    #[test]
    fn durations() {
        assert_eq!([1.25, 42.0, 200.0, 25_020.0].map(duration), ["1.2 s", "42 s", "3 min 20 s", "6 h 57 min"]);
    }
}
