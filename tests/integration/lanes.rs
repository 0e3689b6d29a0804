//! Shows that lanes keep the platform's limit and use it: in thought against the local Cloudflare's counting, and as processes
//! that share a file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flotilla::clock::{Clock as _, FakeClock};
use flotilla::local::{Meter, RateLimit, Verdict};
use flotilla::pace::{Lane, Rate, Ticket};
use flotilla::platform::{Left, Policy, Quota};

/// What the local Cloudflare tells of its limit with each answer.
fn told(limit: RateLimit, verdict: Verdict) -> Quota {
    let name = "default".to_owned();
    let reset = Duration::from_secs(verdict.reset);
    Quota {
        left: vec![Left { name: name.clone(), requests: verdict.remaining, reset }],
        policies: vec![Policy { name, requests: limit.requests, window: limit.window }],
    }
}

/// One process sends as fast as it may, so many at once, each answered after the latency, against a platform that counts in
/// fixed windows. The share of the quota that was used in so many windows, and how often the platform refused.
fn used(limit: RateLimit, latency: Duration, at_once: usize, windows: u32) -> (f64, usize) {
    let clock = Arc::new(FakeClock::default());
    clock.sleep(Duration::from_millis(1_763_571));
    let end = clock.now() + limit.window * windows;
    let lane = Lane::new(Rate::of(limit.requests as usize, limit.window), clock.clone());
    let mut meter = Meter::default();
    let mut flying: VecDeque<(Ticket, Verdict, Duration)> = VecDeque::new();
    let (mut sent, mut refused) = (0_u64, 0);
    while clock.now() < end {
        while flying.front().is_some_and(|(_, _, answered)| *answered <= clock.now()) {
            let (ticket, verdict, _) = flying.pop_front().expect("there is one");
            if verdict.blocked {
                refused += 1;
                lane.throttled(ticket, Some(Duration::from_secs(verdict.reset)));
            } else {
                lane.answered(ticket, Some(&told(limit, verdict)));
            }
        }
        let now = clock.now();
        let mut next = flying.front().map(|(_, _, answered)| *answered);
        if flying.len() < at_once {
            match lane.try_acquire() {
                Ok(ticket) => {
                    sent += 1;
                    // It is counted half way.
                    flying.push_back((ticket, meter.count(limit, "token", now + latency / 2), now + latency));
                    continue;
                }
                Err(wait) => next = Some(next.map_or(now + wait, |next| next.min(now + wait))),
            }
        }
        clock.reach(next.expect("it waits for something"));
    }
    (sent as f64 / (limit.requests * u64::from(windows)) as f64, refused)
}

#[test]
fn nearly_the_whole_quota_is_used_and_nothing_is_refused() {
    for (requests, seconds, latency, at_once) in
        [(6000, 15, 80, 64), (1200, 300, 1000, 16), (1200, 300, 30, 4), (600, 15, 80, 8), (1000, 60, 300, 8)]
    {
        let limit = RateLimit { requests, window: Duration::from_secs(seconds) };
        // Enough windows for what each loses to add up to more than one.
        let windows = if requests > 5000 { 100 } else { 200 };
        let (used, refused) = used(limit, Duration::from_millis(latency), at_once, windows);
        println!("{requests} {seconds} {latency} {at_once} {used}");
        assert_eq!(refused, 0, "{requests} per {seconds} s");
        assert!((0.98..=1.01).contains(&used), "{requests} per {seconds} s: {used}");
    }
}
