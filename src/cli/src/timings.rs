//! `--timings`: where the time went, as values and as JSON. The table is `timings_table`'s.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// One phase, or a sum.
#[derive(Clone, Serialize)]
pub struct Timing {
    /// The name of the phase.
    pub phase: String,
    /// The wall-clock time.
    pub seconds: f64,
    /// The time of all threads of this process, without npm and Node.js.
    pub cpu_seconds: f64,
    /// The part of the whole time.
    pub share: f64,
    /// The items that it handled.
    pub items: Option<u64>,
    /// The number of them in a second.
    pub items_per_second: Option<f64>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
