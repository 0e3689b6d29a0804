//! Cron expressions, and the schedules that are due. Knows time and workers; not what they do when they are called.
//!
//! Source: Cloudflare docs, Workers › Cron Triggers (2026): five fields in UTC, days of the week from 1 for Sunday, with `L`, `W` and `#`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::cloud::Cloud;
use super::envelope::Refusal;
use super::store::{self, Key};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Calls the workers whose schedules are due, each minute, for as long as it is polled.
pub async fn run(cloud: Arc<Cloud>) {
    let minute = |cloud: &Cloud| (cloud.clock)().as_secs() / MINUTE;
    let mut last = minute(&cloud);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = minute(&cloud);
        // Triggers that were due while the machine slept are skipped.
        if now <= last {
            continue;
        }
        last = now;
        let due = super::routing::blocking(|| due(&cloud, Duration::from_secs(now * MINUTE)));
        for (key, cron) in due.unwrap_or_default() {
            let cloud = cloud.clone();
            tokio::spawn(async move { call(&cloud, &key, &cron, Duration::from_secs(now * MINUTE)).await });
        }
    }
}

/// The schedules that are due at a time.
fn due(cloud: &Cloud, now: Duration) -> Result<Vec<(Key, String)>, Refusal> {
    cloud.store.read(|db| {
        let all = store::rows(db, "SELECT account, script, cron FROM schedule", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let due = all.into_iter().filter(|(.., cron)| is_due(cron, now.as_secs()));
        Ok(due.map(|(account, script, cron)| (Key::of_account(&account, &script), cron)).collect())
    })
}

/// Calls a worker's `scheduled()`; returns what became of it.
///
/// # Errors
/// Why it can't be called.
pub async fn call(cloud: &Cloud, key: &Key, cron: &str, now: Duration) -> Result<Value, String> {
    let worker = super::routing::blocking(|| cloud.store.read(|db| store::get(db, key)));
    let worker = worker.map_err(|refusal| refusal.message)?;
    let time = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    super::routing::trigger(cloud, &worker, &json!({"kind": "scheduled", "cron": cron, "time": time})).await
}

/// Returns whether a cron is due in the minute that begins at a time, in seconds since 1970.
#[must_use]
pub fn is_due(cron: &str, time: u64) -> bool {
    let fields: Vec<String> = cron.split_whitespace().map(str::to_uppercase).collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else { return false };
    let date = Date::of(time / DAY);
    let number = |seconds: u64| u32::try_from(seconds).unwrap_or_default();
    fits(minute, number(time / MINUTE % 60), (0, 59), &[])
        && fits(hour, number(time / (60 * MINUTE) % 24), (0, 23), &[])
        && fits(month, date.month, (1, 12), &MONTHS)
        && fits_day(day, weekday, &date)
}

/// Of the two fields about days, one is enough where both are restricted.
fn fits_day(day: &str, weekday: &str, date: &Date) -> bool {
    let by_day = day.split(',').any(|item| match item {
        "L" => date.day == date.days,
        "LW" => date.day == date.nearest_weekday(date.days),
        item => match item.strip_suffix('W').map(str::parse) {
            Some(Ok(wanted)) => date.day == date.nearest_weekday(wanted),
            _ => fits(item, date.day, (1, 31), &[]),
        },
    });
    let by_weekday = weekday.split(',').any(|item| {
        let number = |text: &str| word(text, &WEEKDAYS, 1);
        if let Some((weekday, nth)) = item.split_once('#') {
            return number(weekday) == Some(date.weekday) && nth.parse() == Ok((date.day - 1) / 7 + 1);
        }
        match item.strip_suffix('L') {
            Some("") => date.weekday == 7,
            Some(weekday) => number(weekday) == Some(date.weekday) && date.day + 7 > date.days,
            None => fits(item, date.weekday, (1, 7), &WEEKDAYS),
        }
    });
    match (day.starts_with('*'), weekday.starts_with('*')) {
        (false, false) => by_day || by_weekday,
        _ => by_day && by_weekday,
    }
}

fn word(text: &str, words: &[&str], first: u32) -> Option<u32> {
    let index = words.iter().position(|word| *word == text);
    index.and_then(|index| Some(u32::try_from(index).ok()? + first)).or_else(|| text.parse().ok())
}

/// Returns whether a number is in a field: `*`, numbers, ranges and steps.
fn fits(field: &str, number: u32, (least, most): (u32, u32), words: &[&str]) -> bool {
    field.split(',').any(|item| {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let value = |text: &str| word(text, words, least);
        let bounds = match range.split_once('-') {
            _ if range == "*" => Some((least, most)),
            Some((from, to)) => value(from).zip(value(to)),
            // With a step, a number is where it begins.
            None => value(range).map(|from| (from, if step.is_some() { most } else { from })),
        };
        let Some((from, to)) = bounds else { return false };
        let step = step.map_or(Some(1), |step| step.parse::<u32>().ok()).filter(|step| *step > 0);
        // A range of days can go over the end of the week.
        let is_within = if from <= to { (from..=to).contains(&number) } else { number >= from || number <= to };
        let distance = if number >= from { number - from } else { number + most - from };
        is_within && step.is_some_and(|step| distance.is_multiple_of(step))
    })
}

/// A day of the calendar.
struct Date {
    day: u32,
    month: u32,
    /// The days of its month.
    days: u32,
    /// From 1 for Sunday.
    weekday: u32,
}

impl Date {
    /// The day of that number, from 0 for 1970-01-01, a Thursday.
    fn of(number: u64) -> Date {
        let (mut left, mut year) = (number, 1970_u64);
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days_of = |year: u64| if is_leap(year) { 366 } else { 365 };
        while left >= days_of(year) {
            left -= days_of(year);
            year += 1;
        }
        let february = if is_leap(year) { 29 } else { 28 };
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while left >= lengths[month] {
            left -= lengths[month];
            month += 1;
        }
        let small = |number: u64| u32::try_from(number).unwrap_or_default();
        let month_number = u32::try_from(month).unwrap_or_default() + 1;
        Date {
            day: small(left) + 1,
            month: month_number,
            days: small(lengths[month]),
            weekday: small((number + 4) % 7) + 1,
        }
    }

    /// The weekday of the month that is nearest to a day of it.
    fn nearest_weekday(&self, day: u32) -> u32 {
        let day = day.clamp(1, self.days);
        let weekday = (self.weekday + 7 * 5 + day - self.day - 1) % 7 + 1;
        match weekday {
            7 if day > 1 => day - 1,
            7 => day + 2,
            1 if day < self.days => day + 1,
            1 => day - 2,
            _ => day,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let time = humantime::parse_rfc3339(&format!("{text}:00Z")).unwrap();
        time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn crons_are_due_when_cloudflare_says_so() {
        // 2026-11-30 is a Monday, the last day of its month.
        for (cron, time, expect) in [
            ("* * * * *", "2026-11-30T15:28", true),
            ("*/15 * * * *", "2026-11-30T15:30", true),
            ("*/15 * * * *", "2026-11-30T15:31", false),
            ("5/20 * * * *", "2026-11-30T15:45", true),
            ("0 4-6,15 * * *", "2026-11-30T15:00", true),
            ("0 4-6 * * *", "2026-11-30T15:00", false),
            ("0 0 * NOV mon", "2026-11-30T00:00", true),
            ("0 0 * * 2", "2026-11-30T00:00", true),
            ("0 0 * * 1", "2026-11-30T00:00", false),
            ("0 0 * * 6-2", "2026-11-30T00:00", true),
            ("0 0 L * *", "2026-11-30T00:00", true),
            ("0 0 L * *", "2026-11-29T00:00", false),
            ("0 0 LW * *", "2026-11-30T00:00", true),
            ("0 0 15W * *", "2026-11-16T00:00", true),
            ("0 0 1W * *", "2026-08-03T00:00", true),
            ("0 0 * * 2L", "2026-11-30T00:00", true),
            ("0 0 * * 2L", "2026-11-23T00:00", false),
            ("0 0 * * MON#5", "2026-11-30T00:00", true),
            ("0 0 * * MON#4", "2026-11-30T00:00", false),
            ("0 0 1 * MON", "2026-11-30T00:00", true),
            ("0 0 29 2 *", "2028-02-29T00:00", true),
            ("0 0 1 3 *", "2100-03-01T00:00", true),
            ("0 0 * *", "2026-11-30T00:00", false),
        ] {
            assert_eq!(is_due(cron, at(time)), expect, "{cron} at {time}");
        }
    }
}
