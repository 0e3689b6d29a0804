//! The table of `--timings`, for people.

use super::table::{Column, Fit, Table};
use super::timings::Timing;

/// Returns the table.
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
    use std::time::Duration;

    use super::super::timings::{Measured, timings};
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
}
