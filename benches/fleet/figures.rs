//! Figures: runs that take turns, their medians and ratios, and how both are told, as Markdown and as JSON. Doesn't know
//! what is measured.

pub use flotilla_model::text::grouped as thousands;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::process::Sample;

/// One of those that take turns.
pub struct Contender<'a> {
    /// What it does, for people.
    what: String,
    /// Makes ready for a round, unmeasured.
    prepare: Box<dyn FnMut(usize) + 'a>,
    run: Box<dyn FnMut(usize) -> Sample + 'a>,
}

impl<'a> Contender<'a> {
    /// One that needs no preparation.
    pub fn new(what: &str, run: impl FnMut(usize) -> Sample + 'a) -> Contender<'a> {
        Contender { what: what.to_owned(), prepare: Box::new(|_| {}), run: Box::new(run) }
    }

    /// What is done before each run.
    pub fn after(mut self, prepare: impl FnMut(usize) + 'a) -> Contender<'a> {
        self.prepare = Box::new(prepare);
        self
    }
}

/// What was measured of one contender, round by round.
pub struct Figure {
    /// What it does.
    pub what: String,
    samples: Vec<Sample>,
}

/// Lets the contenders run in turns, A B A B …, so that what slows the machine for a while slows all of them.
pub fn in_turns(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Figure> {
    assert!(rounds % 2 == 1, "a median needs an odd number of runs");
    let mut samples: Vec<Vec<Sample>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            (contender.prepare)(round);
            let sample = (contender.run)(round);
            eprintln!("  {} of {rounds}  {:<60} {:>10.4} s", round + 1, contender.what, sample.seconds);
            samples.push(sample);
        }
    }
    contenders.into_iter().zip(samples).map(|(contender, samples)| Figure { what: contender.what, samples }).collect()
}

/// The median, the lowest and the highest of some numbers.
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

fn spread(numbers: impl Iterator<Item = f64>) -> Spread {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    Spread { median: numbers[numbers.len() / 2], lowest: numbers[0], highest: numbers[numbers.len() - 1] }
}

impl Figure {
    fn seconds(&self) -> Spread {
        spread(self.samples.iter().map(|sample| sample.seconds))
    }

    /// The median of the seconds.
    pub fn median(&self) -> f64 {
        self.seconds().median
    }

    /// The median of the processor times, if all runs know theirs.
    pub fn processor(&self) -> Option<f64> {
        let known: Option<Vec<f64>> = self.samples.iter().map(|sample| sample.processor).collect();
        known.map(|seconds| spread(seconds.into_iter()).median)
    }

    /// How many seconds more this takes than another, by the median of the rounds.
    pub fn more_than(&self, other: &Figure) -> f64 {
        let rounds = self.samples.iter().zip(&other.samples);
        spread(rounds.map(|(one, other)| one.seconds - other.seconds)).median
    }

    /// The highest peak of memory, in bytes.
    pub fn memory(&self) -> Option<u64> {
        self.samples.iter().filter_map(|sample| sample.memory).max()
    }
}

/// What is promised of a ratio or an amount.
#[derive(Clone, Copy)]
pub enum Aim {
    /// Up to this.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// What a run has found, told at its end.
#[derive(Default)]
pub struct Report {
    markdown: String,
    lines: Vec<Value>,
}

impl Report {
    /// Adds a paragraph, or a heading.
    pub fn text(&mut self, text: &str) {
        let _ = writeln!(self.markdown, "{text}\n");
    }

    /// Adds a line of JSON.
    pub fn line(&mut self, line: Value) {
        self.lines.push(line);
    }

    /// Adds a table; the first row is its head.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        for (at, row) in rows.iter().enumerate() {
            let _ = writeln!(self.markdown, "| {} |", row.join(" | "));
            if at == 0 {
                let _ = writeln!(self.markdown, "|{}", "---|".repeat(row.len()));
            }
        }
        self.markdown.push('\n');
    }

    /// Adds a table of figures, in seconds or smaller units of them.
    pub fn figures(&mut self, scenario: &str, customers: usize, figures: &[&Figure]) {
        let head = ["", "time", "lowest – highest", "processor time", "memory", "runs"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for figure in figures {
            let Spread { median, lowest, highest } = figure.seconds();
            rows.push(vec![
                figure.what.clone(),
                seconds(median),
                format!("{} – {}", seconds(lowest), seconds(highest)),
                figure.processor().map_or_else(|| "–".to_owned(), seconds),
                figure.memory().map_or_else(|| "–".to_owned(), megabytes),
                figure.samples.len().to_string(),
            ]);
            self.line(json!({
                "scenario": scenario, "what": figure.what, "customers": customers, "runs": figure.samples.len(),
                "seconds": {"median": median, "lowest": lowest, "highest": highest},
                "processor_seconds": figure.processor(), "memory_bytes": figure.memory(),
            }));
        }
        self.table(&rows);
    }

    /// Adds a table of ratios: how many times as much the first takes as the second. Each round gives a ratio of its own;
    /// the median of these is told. That of the processor times is told as well: it hardly notices what else the machine
    /// does.
    pub fn ratios(&mut self, scenario: &str, customers: usize, ratios: &[(&Figure, &Figure, Option<Aim>)]) {
        let head = ["", "times", "lowest – highest", "of processor time", "aim"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (one, other, aim) in ratios {
            let rounds = || one.samples.iter().zip(&other.samples);
            let Spread { median, lowest, highest } = spread(rounds().map(|(one, other)| one.seconds / other.seconds));
            let processor: Option<Vec<f64>> =
                rounds().map(|(one, other)| Some(one.processor? / other.processor?)).collect();
            let processor = processor.map(|ratios| spread(ratios.into_iter()).median);
            let what = format!("{} / {}", one.what, other.what);
            rows.push(vec![
                what.clone(),
                times(median),
                format!("{} – {}", times(lowest), times(highest)),
                processor.map_or_else(|| "–".to_owned(), times),
                told(*aim, customers, median),
            ]);
            self.line(json!({
                "scenario": scenario, "ratio": what, "customers": customers,
                "times": {"median": median, "lowest": lowest, "highest": highest},
                "processor_times": processor, "aim": aim_value(*aim),
            }));
        }
        self.table(&rows);
    }

    /// Everything as Markdown.
    pub fn markdown(&self) -> &str {
        self.markdown.trim_end()
    }

    /// Everything as JSON, an object on each line.
    pub fn json(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// What is aimed at, and whether it was missed.
pub fn told(aim: Option<Aim>, customers: usize, value: f64) -> String {
    match aim {
        None => "–".to_owned(),
        Some(Aim::AtMost(most)) => format!("≤ {}{}", times(most), verdict(customers, value <= most)),
        Some(Aim::AtLeast(least)) => format!("≥ {}{}", times(least), verdict(customers, value >= least)),
    }
}

/// How many customers the aims are for: in a smaller fleet, what every run costs counts for more.
pub const AIMED: usize = 100_000;

/// What is said of an aim that was missed.
pub fn verdict(customers: usize, met: bool) -> &'static str {
    if met || customers < AIMED { "" } else { ", **missed**" }
}

fn aim_value(aim: Option<Aim>) -> Value {
    match aim {
        None => Value::Null,
        Some(Aim::AtMost(most)) => json!({"at_most": most}),
        Some(Aim::AtLeast(least)) => json!({"at_least": least}),
    }
}

/// A time with three digits that count.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        100.0.. => format!("{} s", thousands(seconds.round() as u64)),
        10.0.. => format!("{seconds:.1} s"),
        1.0.. => format!("{seconds:.2} s"),
        0.1.. => format!("{:.0} ms", seconds * 1e3),
        0.01.. => format!("{:.1} ms", seconds * 1e3),
        0.001.. => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

/// An amount of memory or disk.
pub fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    match bytes {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{:.0} kB", megabytes * 1e3),
        1_000_000..10_000_000 => format!("{megabytes:.1} MB"),
        _ => format!("{} MB", thousands(megabytes.round() as u64)),
    }
}

/// A ratio.
pub fn times(times: f64) -> String {
    match times {
        100.0.. => thousands(times.round() as u64),
        10.0.. => format!("{times:.1}"),
        _ => format!("{times:.2}"),
    }
}
