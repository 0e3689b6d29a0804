//! The phases of long work as people see them: a bar on a terminal, a line now and then elsewhere. Short work shows
//! nothing. Measures what `--timings` shows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use flotilla_model::progress::Progress;
use flotilla_model::trace;

use super::{Inner, Ui, clean, duration, stderr};
use crate::signals::Handler;
use crate::timings::{self, Measured};

/// The interval at which the watcher of a phase looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The time after which a bar is shown, and only for work that will take as long again, or whose duration is unknown and that took twice as
/// long: a bar that only flickers is useless.
const BAR_AFTER: Duration = Duration::from_millis(500);
/// The time after which the first line is printed where there is no terminal.
const LINE_AFTER: Duration = Duration::from_secs(3);

/// A phase that is under way.
pub struct Phase {
    name: String,
    start: Instant,
    cpu: Duration,
    /// The duration, if it is known better than by the steps so far; zero otherwise.
    expected: Arc<Mutex<Duration>>,
    /// The text that is shown beside.
    detail: Arc<Mutex<String>>,
    /// Hidden until it is useful; without a terminal, always.
    pub bar: ProgressBar,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
    _span: trace::Span<'static>,
}

impl Progress for Ui {
    fn begin(&self, phase: &str, steps: Option<u64>) {
        self.end();
        let inner = &self.0;
        inner.done.store(0, Ordering::Relaxed);
        let name = clean(phase);
        let bar = ProgressBar::with_draw_target(steps, ProgressDrawTarget::hidden());
        bar.set_style(style(steps.is_some()));
        bar.set_message(name.clone());
        let (expected, detail): (Arc<Mutex<Duration>>, Arc<Mutex<String>>) = (Arc::default(), Arc::default());
        let watcher = (!inner.quiet).then(|| {
            let (ended, end) = channel();
            let watched = Watched { inner: Arc::clone(inner), name: name.clone(), steps, bar: bar.clone() };
            let (expected, detail) = (Arc::clone(&expected), Arc::clone(&detail));
            let watch = move || watched.watch(&expected, &detail, &end);
            std::thread::Builder::new().name("progress".to_owned()).spawn(watch).ok().map(|thread| (ended, thread))
        });
        let span = trace::phase(&name);
        let (start, cpu) = (Instant::now(), timings::cpu());
        let phase = Phase { name, start, cpu, expected, detail, bar, watcher: watcher.flatten(), _span: span };
        *inner.phase.lock() = Some(phase);
    }

    fn step(&self, steps: u64) {
        // Nothing else: this is called for each of a million customers by all threads.
        self.0.done.fetch_add(steps, Ordering::Relaxed);
    }

    fn expect(&self, time: Duration) {
        if let Some(phase) = &*self.0.phase.lock() {
            *phase.expected.lock() = phase.start.elapsed() + time;
        }
    }

    fn detail(&self, text: &str) {
        if let Some(phase) = &*self.0.phase.lock() {
            text.clone_into(&mut phase.detail.lock());
        }
    }

    fn note(&self, text: &str) {
        if !self.0.quiet {
            self.line(text);
        }
    }

    fn end(&self) {
        let Some(phase) = self.0.phase.lock().take() else { return };
        let (wall, cpu) = (phase.start.elapsed(), timings::cpu().saturating_sub(phase.cpu));
        if let Some((ended, thread)) = phase.watcher {
            drop(ended);
            let _ = thread.join();
        }
        phase.bar.finish_and_clear();
        let items = self.0.done.load(Ordering::Relaxed);
        // What comes after a semicolon is said to those who wait.
        let name = phase.name.split(';').next().unwrap_or_default().to_owned();
        self.0.measured.lock().push(Measured { phase: name, wall, cpu, items });
    }
}

/// A phase as its watcher sees it.
struct Watched {
    inner: Arc<Inner>,
    name: String,
    steps: Option<u64>,
    bar: ProgressBar,
}

impl Watched {
    /// Watches the phase until it ends, and shows it.
    fn watch(&self, expected: &Mutex<Duration>, detail: &Mutex<String>, end: &Receiver<()>) {
        let start = Instant::now();
        let mut rate = Rate::default();
        let mut line_at = LINE_AFTER;
        while end.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let (done, passed) = (self.inner.done.load(Ordering::Relaxed), start.elapsed());
            rate.observe(done, passed);
            let left = self.steps.and_then(|steps| rate.left(steps.saturating_sub(done)));
            let expected = *expected.lock();
            let left = if expected.is_zero() { left } else { Some(expected.saturating_sub(passed)) };
            let detail = match detail.lock().as_str() {
                "" => String::new(),
                detail => format!(" · {detail}"),
            };
            if self.inner.bars {
                self.bar.set_position(done);
                match self.steps {
                    Some(_) => self.bar.set_prefix(pace(rate.per_second, left) + &detail),
                    None => self.bar.set_message(format!("{}{detail}", self.name)),
                }
                let long = match (left, self.steps) {
                    (Some(left), _) => left >= BAR_AFTER,
                    // Nothing is done yet.
                    (None, Some(_)) => true,
                    (None, None) => passed >= 2 * BAR_AFTER,
                };
                if self.bar.is_hidden() && passed >= BAR_AFTER && long {
                    // Unless a command handles Ctrl-C itself, it ends the program, and the bar is removed first.
                    let inner = Arc::clone(&self.inner);
                    self.inner.signals.listen(|| Box::new(move |signal| inner.leave(signal.exit_code())));
                    self.bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                self.bar.tick();
            } else if passed >= line_at {
                line_at = passed + pause(passed);
                stderr(&(line(&self.name, done, self.steps, rate.per_second, left, passed) + &detail));
            }
        }
    }
}

/// Steps per second: a mean over the whole phase in which each moment counts in proportion to when it was. What was
/// long ago is soon forgotten, and a pause, of which a limit makes many, moves it less the longer the phase is.
#[derive(Default)]
struct Rate {
    per_second: f64,
    done: u64,
    passed: Duration,
}

impl Rate {
    fn observe(&mut self, done: u64, passed: Duration) {
        let (time, steps) = (passed.saturating_sub(self.passed).as_secs_f64(), done.saturating_sub(self.done));
        if time <= 0.0 {
            return;
        }
        let weight = (2.0 * time / passed.as_secs_f64()).min(1.0);
        self.per_second += (steps as f64 / time - self.per_second) * weight;
        (self.done, self.passed) = (done, passed);
    }

    /// Returns the time for this number of steps; unknown as long as none was done.
    fn left(&self, steps: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(steps as f64 / self.per_second).ok().filter(|_| self.done > 0)
    }
}

/// Returns the time until the next line: a log of a deploy of hours has hundreds of lines, not thousands.
fn pause(passed: Duration) -> Duration {
    Duration::from_secs(match passed.as_secs() {
        0..60 => 3,
        60..600 => 15,
        _ => 60,
    })
}

/// Returns the progress of a phase in a line, where there is no terminal.
fn line(name: &str, done: u64, steps: Option<u64>, rate: f64, left: Option<Duration>, passed: Duration) -> String {
    match steps {
        Some(steps) => format!("{name} {done}/{steps} · {}", pace(rate, left)),
        None if done > 0 => format!("{name} {done} · {}", per_second(rate)),
        None => format!("{name} · {}", duration(passed.as_secs_f64())),
    }
}

/// The rate, and how long the rest will take.
fn pace(rate: f64, left: Option<Duration>) -> String {
    // In whole seconds: nobody reads tenths that change ten times a second.
    let left = left.map(|left| match left.as_secs_f64().ceil() {
        seconds @ ..60.0 => format!(" · {seconds:.0} s left"),
        seconds => format!(" · {} left", duration(seconds)),
    });
    per_second(rate) + &left.unwrap_or_default()
}

fn per_second(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}/s") } else { format!("{rate:.0}/s") }
}

/// Returns the style of a bar.
fn style(known: bool) -> ProgressStyle {
    let template = if known { "{msg} {bar:30} {human_pos}/{human_len} · {prefix}" } else { "{spinner} {wide_msg}" };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Ui {
    /// Hands signals to this handler from now on. Returns false where signal handlers can't be installed.
    pub fn on_signal(&self, handler: Handler) -> bool {
        self.0.signals.set_handler(handler);
        self.0.signals.listen(|| Box::new(|_| {}))
    }

    /// Ends the program at once, the terminal as it was.
    pub fn leave(&self, code: i32) -> ! {
        self.0.leave(code)
    }
}

impl Inner {
    fn leave(&self, code: i32) -> ! {
        // The lock is kept: other threads that draw wait for the end.
        let phase = self.phase.lock();
        if let Some(phase) = &*phase {
            phase.bar.finish_and_clear();
            phase.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let _ = trace::finish();
        std::process::exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log() {
        let line = |done, steps, rate, left: Option<u64>| {
            line("building", done, steps, rate, left.map(Duration::from_secs), Duration::from_secs(3))
        };
        assert_eq!(line(500, Some(1000), 160.4, Some(200)), "building 500/1000 · 160/s · 3 min 20 s left");
        assert_eq!(line(3, Some(1000), 4.0, Some(60)), "building 3/1000 · 4.0/s · 1 min left");
        assert_eq!(line(9, Some(20), 4.0, Some(3)), "building 9/20 · 4.0/s · 3 s left");
        assert_eq!(line(0, Some(1000), 0.0, None), "building 0/1000 · 0.0/s");
        assert_eq!(line(7, None, 2.5, None), "building 7 · 2.5/s");
        assert_eq!(line(0, None, 0.0, None), "building · 3.0 s");
    }

    /// Returns the estimates of the seconds left of 1,000 steps, tick by tick; `speed` returns the steps of each
    /// tick.
    fn estimates_left(ticks: u32, speed: impl Fn(u32) -> u64) -> Vec<f64> {
        let (mut rate, mut done) = (Rate::default(), 0);
        let left = |tick: u32| {
            done += speed(tick);
            rate.observe(done, LOOK_EVERY * (tick + 1));
            rate.left(1_000_u64.saturating_sub(done)).map_or(f64::INFINITY, |left| left.as_secs_f64())
        };
        (0..ticks).map(left).collect()
    }

    #[test]
    fn what_is_said_to_be_left_is_right_and_does_not_jump() {
        // Steady: right from the first look on.
        for (tick, left) in (1..).zip(estimates_left(100, |_| 1)) {
            assert!((left - (1_000.0 - f64::from(tick)) / 10.0).abs() < 1e-6, "{left} after {tick}");
        }
        // In gusts of one second in two: on average five a second.
        let gusts = estimates_left(1_000, |tick| u64::from(tick / 10 % 2 == 0));
        for (tick, left) in gusts.iter().enumerate().skip(300) {
            let right = (1_000.0 - tick as f64 / 2.0) / 5.0;
            assert!((left / right - 1.0).abs() < 0.12, "{left} instead of {right} after {tick}");
        }
        let largest = gusts.windows(2).skip(300).map(|pair| (pair[0] - pair[1]).abs() / pair[0]).fold(0.0, f64::max);
        assert!(largest < 0.02, "it jumps by {largest}");
        // Ten times slower after ten seconds: half a minute later that is most of what counts.
        let slower = estimates_left(400, |tick| if tick < 100 { 5 } else { u64::from(tick % 2 == 0) });
        let right = (1_000.0 - 500.0 - 150.0) / 5.0;
        assert!((0.6..1.0).contains(&(slower[399] / right)), "{} instead of {right}", slower[399]);
        // Nothing done: nothing is known.
        assert_eq!(estimates_left(3, |_| 0), [f64::INFINITY; 3]);
    }

    #[test]
    fn a_phase_is_measured_and_its_steps_are_counted_by_all_threads() {
        let ui = Ui::new(true, true);
        ui.begin("building; it takes long", Some(40_000));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| ui.step(1)));
            }
        });
        // The next one ends it; an end without a phase is nothing.
        ui.begin("writing", None);
        ui.end();
        ui.end();
        let phases: Vec<(String, u64)> =
            ui.0.measured.lock().iter().map(|measured| (measured.phase.clone(), measured.items)).collect();
        assert_eq!(phases, [("building".to_owned(), 40_000), ("writing".to_owned(), 0)]);
    }
}
