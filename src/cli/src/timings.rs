//! `--timings`: where the time went, as a table and as JSON.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::table::{Column, Fit, Table};

/// One phase, or a sum.
#[derive(Clone, Serialize)]
pub struct Timing {
    phase: String,
    /// The wall-clock time.
    seconds: f64,
    /// The time of all threads of this process, without npm and Node.js.
    cpu_seconds: f64,
    /// The part of the whole time.
    share: f64,
    items: Option<u64>,
    items_per_second: Option<f64>,
}

/// The measurements of a phase.
pub struct Measured {
    pub phase: String,
    pub wall: Duration,
    pub cpu: Duration,
    pub items: u64,
}

/// The processor's time that this process has used, on all its threads.
pub fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or(0), used.tv_nsec.try_into().unwrap_or(0))
}

/// The phases, what lay between them, and the total.
pub fn timings(measured: &[Measured], wall: Duration, cpu: Duration) -> Vec<Timing> {
    let timing = |phase: &str, seconds: Duration, cpu: Duration, items: u64| {
        let items = (items > 0).then_some(items);
        Timing {
            phase: phase.to_owned(),
            seconds: seconds.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            share: seconds.as_secs_f64() / wall.as_secs_f64().max(f64::MIN_POSITIVE),
            items,
            items_per_second: items.map(|items| items as f64 / seconds.as_secs_f64().max(1e-9)),
        }
    };
    let mut rows: Vec<Timing> =
        measured.iter().map(|phase| timing(&phase.phase, phase.wall, phase.cpu, phase.items)).collect();
    let (in_phases, cpu_in_phases) = measured
        .iter()
        .fold((Duration::ZERO, Duration::ZERO), |(walls, cpus), phase| (walls + phase.wall, cpus + phase.cpu));
    rows.push(timing("other", wall.saturating_sub(in_phases), cpu.saturating_sub(cpu_in_phases), 0));
    rows.push(timing("total", wall, cpu, 0));
    rows
}

/// The same for people.
pub(super) fn table(timings: &[Timing]) -> Table<'static> {
    let mut table = Table::new(&[
        Column::new("phase", Fit::Name),
        Column::number("wall", Fit::Whole(1)),
        Column::number("CPU", Fit::Whole(2)),
        Column::number("share", Fit::Whole(3)),
        Column::number("items", Fit::Whole(4)),
        Column::number("items/s", Fit::Whole(5)),
    ]);
    for timing in timings {
        table.row([
            timing.phase.as_str().into(),
            format!("{:.3} s", timing.seconds).into(),
            format!("{:.3} s", timing.cpu_seconds).into(),
            format!("{:.0} %", timing.share * 100.0).into(),
            timing.items.map(|items| items.to_string()).unwrap_or_default().into(),
            timing.items_per_second.map(|rate| format!("{rate:.0}")).unwrap_or_default().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::ui::Ui;
    use super::*;

    #[test]
    fn the_rows_make_up_the_total() {
        let second = Duration::from_secs(1);
        let phase = |phase: &str, wall, items| Measured { phase: phase.to_owned(), wall, cpu: second, items };
        let measured = [phase("reading customers", second, 500), phase("building", 2 * second, 0)];
        let table = table(&timings(&measured, 4 * second, 3 * second));
        let lines = |limit| table.lines(&Ui::new(true, false), limit).join("\n");
        assert_eq!(
            lines(None),
            "\
phase                 wall      CPU  share  items  items/s
reading customers  1.000 s  1.000 s   25 %    500      500
building           2.000 s  1.000 s   50 %
other              1.000 s  1.000 s   25 %
total              4.000 s  3.000 s  100 %"
        );
        let narrow = lines(Some(30));
        assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        assert!(narrow.contains("\nreading customers  1.000 s\n    1.000 s   25 %    500"), "{narrow}");
    }

    #[test]
    fn the_processors_time_is_counted() {
        let before = cpu();
        let mut sum = 0_u64;
        while cpu() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
    }
}
