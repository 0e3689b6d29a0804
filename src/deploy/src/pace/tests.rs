//! Tests of lanes on one file under a clock that the tests move: what they may send, which ones go first, what they
//! remember.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use flotilla_model::clock::FakeClock;
use flotilla_model::platform::{Left, Policy};

const SECOND: Duration = Duration::from_secs(1);

/// A clock and a file that lanes share.
struct Machine {
    clock: Arc<FakeClock>,
    folder: TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine { clock: Arc::default(), folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("lanes/one")
    }

    fn lane(&self, rate: Rate) -> Lane {
        Lane::shared(rate, &self.file(), self.clock.clone())
    }

    fn pass(&self, time: Duration) {
        self.clock.sleep(time);
    }
}

fn rate(requests: usize, seconds: u64) -> Rate {
    Rate::of(requests, Duration::from_secs(seconds))
}

fn policy(name: &str, requests: u64, window: u64) -> Policy {
    Policy { name: name.to_owned(), requests, window: Duration::from_secs(window) }
}

fn left(name: &str, requests: u64, reset: u64) -> Left {
    Left { name: name.to_owned(), requests, reset: Duration::from_secs(reset) }
}

/// Sends and answers at once, as often as it may; how often.
fn send_all(lane: &Lane) -> usize {
    std::iter::from_fn(|| lane.try_acquire().ok()).map(|ticket| lane.answered(ticket, None)).count()
}

#[track_caller]
fn waits(lane: &Lane) -> Duration {
    lane.try_acquire().expect_err("it has to wait")
}

/// The most requests that the platform can have counted in any window, wherever between its sending and its answer it
/// counted each.
fn most(requests: &[(Duration, Duration)], window: Duration) -> usize {
    let starts = requests.iter().map(|(_, answered)| *answered);
    let within = |start: Duration| {
        requests.iter().filter(|(sent, answered)| *answered >= start && *sent < start + window).count()
    };
    starts.map(within).max().unwrap_or(0)
}

#[derive(Clone, Debug)]
enum Act {
    /// A lane sends, if it may.
    Send(usize),
    /// The lane sends as often as it may.
    Flood(usize),
    /// One of the requests in flight is answered.
    Answer(usize),
    /// One is answered by a 429.
    Throttle(usize, Option<u64>),
    /// Time goes by.
    Pass(u64),
    /// Waits as long as a lane requires.
    Wait(usize),
    /// A process is killed and another one takes its place: the answers that it waited for are lost.
    Restart(usize),
    /// The lane ends its claim.
    Release(usize),
}

const LANES: usize = 3;

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..LANES).prop_map(Act::Send),
        2 => (0..LANES).prop_map(Act::Flood),
        6 => (0..100_usize).prop_map(Act::Answer),
        1 => (0..100_usize, proptest::option::of(0..9_u64)).prop_map(|(at, wait)| Act::Throttle(at, wait)),
        3 => (0..3000_u64).prop_map(Act::Pass),
        1 => (0..200_000_u64).prop_map(Act::Pass),
        3 => (0..LANES).prop_map(Act::Wait),
        1 => (0..LANES).prop_map(Act::Restart),
        1 => (0..LANES).prop_map(Act::Release),
    ];
    proptest::collection::vec(act, 1..120)
}

/// The priorities of the lanes, alike or not.
fn priorities() -> impl Strategy<Value = [Priority; LANES]> {
    let one = || proptest::sample::select(vec![Priority::Interactive, Priority::Bulk, Priority::Sweep]);
    prop_oneof![Just([Priority::Bulk; LANES]), [one(), one(), one()]]
}

/// Acquires a permit from a lane; the classes before it must not have tried within the last seconds.
fn acquire(lane: &Lane, now: Duration, asked: &mut [Option<Duration>; 3]) -> Result<Ticket, Duration> {
    let given = lane.try_acquire();
    let class = lane.priority as usize;
    if given.is_ok() {
        let before = asked[..class].iter().flatten().max();
        assert!(before.is_none_or(|at| *at + ledger::YIELD <= now), "{:?} at {now:?}, {asked:?}", lane.priority);
    }
    asked[class] = Some(now);
    given
}

/// Plays some acts; all requests with their answers. What is lost can be counted until its time is over.
fn play(
    machine: &Machine,
    rate: Rate,
    priorities: [Priority; LANES],
    quota: Option<&Quota>,
    acts: &[Act],
) -> Vec<(Duration, Duration)> {
    let mut lanes = priorities.map(|priority| machine.lane(rate).with_priority(priority));
    let mut asked = [None; 3];
    let (mut flying, mut done) = (Vec::new(), Vec::new());
    let mut blocked = Duration::ZERO;
    if let Some(quota) = quota {
        let ticket = acquire(&lanes[0], machine.clock.now(), &mut asked).expect("nothing was sent");
        lanes[0].answered(ticket, Some(quota));
        done.push((machine.clock.now(), machine.clock.now()));
    }
    for act in acts {
        let now = machine.clock.now();
        match act {
            Act::Send(_) | Act::Flood(_) => {
                let (lane, times) = match act {
                    Act::Send(lane) => (*lane, 1),
                    Act::Flood(lane) => (*lane, 1000),
                    _ => unreachable!(),
                };
                for ticket in std::iter::from_fn(|| acquire(&lanes[lane], now, &mut asked).ok()).take(times) {
                    assert!(now >= blocked, "sent at {now:?}, though blocked until {blocked:?}");
                    flying.push((lane, now, ticket));
                }
            }
            Act::Answer(index) | Act::Throttle(index, _) if !flying.is_empty() => {
                let (lane, sent, ticket) = flying.swap_remove(index % flying.len());
                // What sends it gave up before.
                done.push((sent, now.min(sent + ledger::FLIGHT)));
                match act {
                    Act::Throttle(_, wait) => {
                        let wait = wait.map(Duration::from_secs);
                        lanes[lane].throttled(ticket, wait);
                        blocked = blocked.max(now + wait.unwrap_or_default());
                    }
                    _ => lanes[lane].answered(ticket, quota),
                }
            }
            Act::Pass(time) => machine.pass(Duration::from_millis(*time)),
            Act::Wait(lane) => match acquire(&lanes[*lane], now, &mut asked) {
                Ok(ticket) => flying.push((*lane, now, ticket)),
                Err(wait) => machine.pass(wait),
            },
            Act::Restart(lane) => {
                lanes[*lane] = machine.lane(rate).with_priority(priorities[*lane]);
                for index in (0..flying.len()).rev().filter(|index| flying[*index].0 == *lane).collect::<Vec<_>>() {
                    let (_, sent, _) = flying.swap_remove(index);
                    done.push((sent, sent + ledger::FLIGHT));
                }
            }
            Act::Release(lane) => {
                lanes[*lane].release();
                asked[priorities[*lane] as usize] = None;
            }
            _ => {}
        }
    }
    let last = flying.into_iter().map(|(_, sent, _)| (sent, sent + ledger::FLIGHT));
    done.into_iter().chain(last).collect()
}

proptest! {
    #[test]
    fn no_window_ever_holds_more_than_the_limit(acts in acts(), priorities in priorities()) {
        let requests = play(&Machine::new(), rate(7, 10), priorities, None, &acts);
        prop_assert!(most(&requests, 10 * SECOND) <= 7, "{requests:?}");
    }

    #[test]
    fn no_window_holds_more_than_any_of_the_limits_that_the_platform_tells(acts in acts(), priorities in priorities()) {
        let quota = Quota { left: vec![], policies: vec![policy("burst", 5, 4), policy("default", 12, 40)] };
        let requests = play(&Machine::new(), rate(9, 10), priorities, Some(&quota), &acts);
        for (limit, window) in [(5, 4), (9, 10), (12, 40)] {
            prop_assert!(most(&requests, window * SECOND) <= limit, "{limit} in {window} s: {requests:?}");
        }
    }

    #[test]
    fn what_a_lane_says_to_wait_is_neither_too_short_nor_much_too_long(pauses in proptest::collection::vec(0..2500_u64, 1..60)) {
        // Alone, with each answered at once: when the wait is over it may send.
        let machine = Machine::new();
        let lane = machine.lane(rate(6, 10));
        let mut times: Vec<Duration> = Vec::new();
        for pause in pauses {
            machine.pass(Duration::from_millis(pause));
            let ticket = lane.try_acquire().or_else(|wait| {
                machine.pass(wait);
                lane.try_acquire()
            });
            lane.answered(ticket.expect("the wait was long enough"), None);
            let now = machine.clock.now();
            if times.len() >= 6 {
                let earliest = times[times.len() - 6] + 10 * SECOND;
                prop_assert!(now >= earliest);
                prop_assert!(now <= (earliest + 10 * SECOND / 299).max(times[times.len() - 1] + Duration::from_millis(pause)));
            }
            times.push(now);
        }
    }
}

#[test]
fn the_default_rate_leaves_room_for_people() {
    let rate = Rate::new(None);
    assert_eq!(
        (rate.requests, rate.window.as_secs(), rate.reserve, rate.assumed),
        (1140, 300, 60, Some(Assumed::Documented))
    );
    assert_eq!(rate.wait(1140).as_secs(), 0);
    assert_eq!(rate.wait(100_000).as_secs(), 87 * 300);
    assert_eq!((rate.without_reserve(1200), rate.without_reserve(100), rate.without_reserve(1)), (1140, 95, 1));
}

#[test]
fn what_others_sent_of_the_same_file_counts_also_after_they_ended() {
    let machine = Machine::new();
    let (one, two) = (machine.lane(rate(10, 60)), machine.lane(rate(10, 60)));
    let tickets: Vec<Ticket> = (0..4).map(|_| one.try_acquire().unwrap()).collect();
    for ticket in tickets {
        one.answered(ticket, None);
    }
    assert_eq!(send_all(&two), 6);
    drop((one, two));
    let three = machine.lane(rate(10, 60));
    let (blocked, yields, free_in) = (Duration::ZERO, Duration::ZERO, waits(&three));
    assert_eq!(three.usage(), Usage { used: 10, limit: 10, window: 60 * SECOND, blocked, yields, free_in });
    machine.pass(waits(&three));
    assert_eq!(send_all(&three), 10);
}

#[test]
fn what_was_not_sent_after_all_does_not_count() {
    let machine = Machine::new();
    let lane = machine.lane(rate(2, 60));
    let (one, two) = (lane.try_acquire().unwrap(), lane.try_acquire().unwrap());
    lane.unused(one);
    lane.answered(two, None);
    assert_eq!(send_all(&machine.lane(rate(2, 60))), 1);
}

#[test]
fn what_a_killed_process_sent_counts_until_its_time_is_over() {
    let machine = Machine::new();
    let ticket = machine.lane(rate(1, 60)).try_acquire().unwrap();
    drop(ticket);
    let lane = machine.lane(rate(1, 60));
    let mut waited = Duration::ZERO;
    while let Err(wait) = lane.try_acquire() {
        machine.pass(wait);
        waited += wait;
        assert!(wait > Duration::ZERO && waited < 300 * SECOND, "{waited:?}");
    }
    assert!(machine.clock.now() >= ledger::FLIGHT + 60 * SECOND, "{:?}", machine.clock.now());
}

#[test]
fn a_429_stops_all_lanes_of_the_file_until_it_is_over_and_the_next_process_too() {
    let machine = Machine::new();
    let (one, two) = (machine.lane(rate(100, 10)), machine.lane(rate(100, 10)));
    one.throttled(one.try_acquire().unwrap(), Some(300 * SECOND));
    assert_eq!(waits(&two), 300 * SECOND);
    machine.pass(299 * SECOND);
    drop((one, two));
    let three = machine.lane(rate(100, 10));
    assert_eq!(three.usage().blocked, SECOND);
    assert_eq!(waits(&three), SECOND);
    machine.pass(SECOND);
    assert!(three.try_acquire().is_ok());
}

#[test]
fn the_wait_after_429s_that_do_not_say_grows_and_begins_anew_once_something_passed() {
    let machine = Machine::new();
    let lane = machine.lane(rate(1000, 10));
    let mut waits_seen = Vec::new();
    for _ in 0..7 {
        // Several that were sent together say the same once.
        let tickets: Vec<Ticket> = (0..3).map(|_| lane.try_acquire().unwrap()).collect();
        machine.pass(SECOND);
        for ticket in tickets {
            lane.throttled(ticket, None);
        }
        let wait = waits(&lane);
        waits_seen.push(wait.as_secs());
        machine.pass(wait);
    }
    assert_eq!(waits_seen, [10, 20, 40, 80, 160, 300, 300]);
    lane.answered(lane.try_acquire().unwrap(), None);
    lane.throttled(lane.try_acquire().unwrap(), Some(Duration::ZERO));
    assert_eq!(waits(&lane), 10 * SECOND, "no time is none that was told");
}

#[test]
fn an_absurd_wait_is_an_hour() {
    let machine = Machine::new();
    let lane = machine.lane(rate(10, 10));
    lane.throttled(lane.try_acquire().unwrap(), Some(Duration::from_secs(u64::MAX)));
    assert_eq!(waits(&lane), 3_600 * SECOND);
    let quota = Quota { left: vec![], policies: vec![policy("a", u64::MAX, u64::MAX), policy("b", 0, 0)] };
    machine.pass(3_600 * SECOND);
    lane.answered(lane.try_acquire().unwrap(), Some(&quota));
    assert!(lane.try_acquire().is_ok());
}

#[test]
fn limits_that_no_platform_has_block_no_token() {
    let left = |requests, reset| Left { name: "a".to_owned(), requests, reset: Duration::from_secs(reset) };
    for (policies, left) in [
        (vec![policy("a", 1, u64::MAX)], vec![]),
        (vec![policy("a", 1, 86_400 * 365)], vec![left(0, u64::MAX)]),
        (vec![policy("a", u64::MAX, 1)], vec![left(0, u64::MAX)]),
        (vec![policy("a", 100, 60)], vec![left(0, 86_400 * 365)]),
        (vec![], vec![left(0, u64::MAX)]),
    ] {
        let machine = Machine::new();
        let lane = machine.lane(rate(10, 10));
        let quota = Quota { left, policies };
        lane.answered(lane.try_acquire().unwrap(), Some(&quota));
        let wait = lane.try_acquire().err().unwrap_or_default();
        let longest = if quota.policies.is_empty() { 10 * SECOND } else { 3_600 * SECOND };
        assert!(wait <= longest, "{quota:?}: {wait:?}");
        machine.pass(3_601 * SECOND);
        assert!(lane.try_acquire().is_ok(), "{quota:?}");
    }
}

#[test]
fn the_platforms_limits_count_with_headroom_and_fleet_yamls_is_an_upper_bound() {
    let quota = Quota { left: vec![], policies: vec![policy("burst", 100, 60), policy("default", 2400, 300)] };
    let clock = || Arc::new(FakeClock::default());
    // Assumed: the platform's own take its place.
    let lane = Lane::new(Rate::new(None), clock());
    lane.answered(lane.try_acquire().unwrap(), Some(&quota));
    assert_eq!((lane.usage().limit, send_all(&lane)), (95, 94));
    // Said: it stays.
    let limit = ApiLimit { requests: 50, seconds: 300, headroom: Some(0.1) };
    let lane = Lane::new(Rate::new(Some(limit)), clock());
    lane.answered(lane.try_acquire().unwrap(), Some(&quota));
    assert_eq!((lane.usage().limit, send_all(&lane)), (45, 44));
    // A limit that is no longer reported doesn't apply.
    let clock = clock();
    let lane = Lane::new(Rate { requests: 1000, ..rate(0, 60) }, clock.clone());
    lane.answered(lane.try_acquire().unwrap(), Some(&quota));
    assert_eq!(send_all(&lane), 99);
    clock.sleep(61 * SECOND);
    let only = Quota { left: vec![], policies: vec![policy("default", 2400, 300)] };
    lane.answered(lane.try_acquire().unwrap(), Some(&only));
    assert_eq!(send_all(&lane), 999);
}

#[test]
fn a_shorter_window_replaces_the_default_only_where_nothing_else_can_hold() {
    let quota = Quota { left: vec![], policies: vec![policy("default", 2000, 1)] };
    let limit = ApiLimit { requests: 50, seconds: 300, headroom: Some(0.0) };
    for (rate, sent) in [
        (Rate::new(None), 1139),
        (Rate::new(None).of_emulator(), 1899),
        (Rate::new(Some(limit)), 49),
        (Rate::new(Some(limit)).of_emulator(), 49),
    ] {
        let lane = Lane::new(rate, Arc::new(FakeClock::default()));
        lane.answered(lane.try_acquire().unwrap(), Some(&quota));
        assert_eq!(send_all(&lane), sent, "{rate:?}");
    }
    // Until it has reported one, the default holds for the emulator, too.
    let lane = Lane::new(Rate::new(None).of_emulator(), Arc::new(FakeClock::default()));
    assert_eq!(send_all(&lane), 1140);
}

#[test]
fn a_limit_that_is_told_later_knows_what_was_sent_before() {
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::new(rate(1000, 300), clock.clone());
    for _ in 0..8 {
        clock.sleep(SECOND);
        send_and_answer(&lane);
    }
    let quota = Quota { left: vec![], policies: vec![policy("burst", 10, 5)] };
    lane.answered(lane.try_acquire().unwrap(), Some(&quota));
    // Those of the last five seconds, and the one before, whose bucket ends in them.
    assert_eq!(lane.usage().used, 7);
    assert_eq!(send_all(&lane), 3);
}

#[test]
fn what_others_used_is_left_to_them_until_the_window_is_over() {
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::new(Rate { reserve: 5, ..rate(95, 60) }, clock.clone());
    let policies = vec![policy("default", 100, 60)];
    // Of 100, 30 are left, though only one is ours: 25 are to be had.
    let quota = Quota { left: vec![left("default", 30, 40)], policies: policies.clone() };
    lane.answered(lane.try_acquire().unwrap(), Some(&quota));
    assert_eq!(send_all(&lane), 25);
    assert_eq!(waits(&lane), 40 * SECOND);
    clock.sleep(40 * SECOND);
    assert_eq!(send_all(&lane), 95 - 26);
}

#[test]
fn what_is_left_is_not_ours_to_the_last() {
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::new(Rate { reserve: 5, ..rate(95, 60) }, clock.clone());
    // A limit of which only this is known.
    for (requests, waits) in [(6, None), (5, Some(7))] {
        let quota = Quota { left: vec![left("default", requests, 7)], policies: vec![] };
        lane.answered(lane.try_acquire().unwrap(), Some(&quota));
        match waits {
            None => send_and_answer(&lane),
            Some(seconds) => assert_eq!(self::waits(&lane), Duration::from_secs(seconds)),
        }
    }
    clock.sleep(7 * SECOND);
    send_and_answer(&lane);
}

fn send_and_answer(lane: &Lane) {
    lane.answered(lane.try_acquire().expect("it may send"), None);
}

#[test]
fn who_goes_ahead_is_let_through_first() {
    let machine = Machine::new();
    let (bulk, single) = (machine.lane(rate(5, 10)), machine.lane(rate(5, 10)).with_priority(Priority::Interactive));
    assert_eq!(send_all(&bulk), 5);
    // It has a request to send: from now on, capacity that becomes free belongs to it.
    let mut sent = Vec::new();
    while sent.len() < 3 {
        match single.try_acquire() {
            Ok(ticket) => {
                single.answered(ticket, None);
                sent.push(machine.clock.now());
            }
            Err(wait) => {
                assert!(wait <= SECOND, "it asks often enough to be waited for");
                assert!(bulk.try_acquire().is_err());
                machine.pass(wait);
            }
        }
        assert!(bulk.try_acquire().is_err(), "the other waits");
    }
    assert!(sent.iter().all(|at| *at < 11 * SECOND), "{sent:?}");
    // It is done: soon it isn't waited for any more.
    let wait = waits(&bulk);
    assert!(wait <= ledger::YIELD);
    machine.pass(wait);
    assert_eq!(send_all(&bulk), 2);
}

#[test]
fn a_killed_process_that_went_ahead_holds_nobody_up() {
    let machine = Machine::new();
    drop(machine.lane(rate(5, 10)).with_priority(Priority::Interactive).try_acquire().unwrap());
    let bulk = machine.lane(rate(5, 10));
    machine.pass(waits(&bulk));
    assert_eq!(machine.clock.now(), ledger::YIELD);
    assert_eq!(send_all(&bulk), 4);
}

#[test]
fn a_sweep_waits_for_a_deploy_also_while_that_waits_and_both_for_a_person() {
    let machine = Machine::new();
    let bulk = machine.lane(rate(5, 10));
    let sweep = machine.lane(rate(5, 10)).with_priority(Priority::Sweep);
    let person = machine.lane(rate(5, 10)).with_priority(Priority::Interactive);
    assert_eq!(send_all(&sweep), 5);
    let wait = waits(&bulk);
    // The deploy comes back when it was told to, and finds what became free.
    assert_eq!(waits(&sweep), wait + ledger::YIELD);
    assert_eq!(sweep.usage().yields, wait + ledger::YIELD);
    machine.pass(wait);
    assert!(sweep.try_acquire().is_err());
    send_and_answer(&bulk);
    send_and_answer(&person);
    assert_eq!((bulk.usage().yields, sweep.usage().yields), (ledger::YIELD, ledger::YIELD));
    assert!(bulk.try_acquire().is_err() && sweep.try_acquire().is_err());
    machine.pass(ledger::YIELD);
    send_and_answer(&bulk);
    machine.pass(ledger::YIELD);
    assert_eq!(send_all(&sweep), 2, "what is left of the window");
}

#[test]
fn who_is_done_is_waited_for_no_longer() {
    let machine = Machine::new();
    let bulk = machine.lane(rate(5, 10));
    let person = machine.lane(rate(5, 10)).with_priority(Priority::Interactive);
    send_and_answer(&person);
    assert_eq!(waits(&bulk), ledger::YIELD);
    person.release();
    send_and_answer(&bulk);
    // The class behind it can't give away the turn of the one before.
    send_and_answer(&person);
    bulk.release();
    assert_eq!(waits(&bulk), ledger::YIELD);
}

#[test]
fn a_file_of_the_version_before_is_read_and_what_it_does_not_know_is_at_its_end() {
    let machine = Machine::new();
    let (bulk, sweep) = (machine.lane(rate(5, 10)), machine.lane(rate(5, 10)).with_priority(Priority::Sweep));
    send_and_answer(&bulk);
    assert!(sweep.try_acquire().is_err());
    // As the version before writes it: with zeros there, in both places.
    let mut bytes = fs::read(machine.file()).unwrap();
    for place in bytes.chunks_mut(12 << 10).filter(|place| place.starts_with(b"flotlan1")) {
        place[48 + 40 + 4 * 51 + 4 * (40 + 4 * 601)..].fill(0);
        let sum = u64::from(crc32fast::hash(&place[16..]));
        place[8..16].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(machine.file(), bytes).unwrap();
    let sweep = machine.lane(rate(5, 10)).with_priority(Priority::Sweep);
    assert_eq!((sweep.usage().used, sweep.usage().yields), (1, Duration::ZERO));
    assert_eq!(send_all(&sweep), 4);
}

#[test]
fn a_file_that_is_damaged_foreign_or_gone_begins_anew_and_forgets_nothing_that_a_running_process_knows() {
    let garbage = |path: &Path| fs::write(path, [7; 30_000]).unwrap();
    let empty = |path: &Path| fs::write(path, []).unwrap();
    let short = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(200).unwrap();
    let gone = |path: &Path| fs::remove_file(path).unwrap();
    let no_folder = |path: &Path| fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let version = |path: &Path| {
        let text = fs::read(path).unwrap();
        let mut text: Vec<u8> = text.chunks(12 << 10).flat_map(|place| [b"flotlan9", &place[8..]].concat()).collect();
        text.truncate(24 << 10);
        fs::write(path, text).unwrap();
    };
    let damages: [&dyn Fn(&Path); 6] = [&garbage, &empty, &short, &gone, &no_folder, &version];
    for (index, damage) in damages.iter().enumerate() {
        let machine = Machine::new();
        let lane = machine.lane(rate(10, 60));
        assert_eq!(send_all(&lane), 10);
        damage(&machine.file());
        assert!(lane.try_acquire().is_err(), "{index}");
        damage(&machine.file());
        assert_eq!(send_all(&machine.lane(rate(10, 60))), 10, "{index}: begun anew");
        // What one wrote who knows nothing is what counts: it is whole.
        assert!(lane.try_acquire().is_err(), "{index}");
    }
}

#[test]
fn a_change_that_was_not_written_to_its_end_is_none() {
    let machine = Machine::new();
    let lane = machine.lane(rate(10, 60));
    for _ in 0..4 {
        send_and_answer(&lane);
    }
    let before = fs::read(machine.file()).unwrap();
    let _lost = lane.try_acquire().unwrap();
    let after = fs::read(machine.file()).unwrap();
    let changed: BTreeSet<usize> = (0..before.len()).filter(|index| before[*index] != after[*index]).collect();
    assert!(changed.iter().all(|index| index / (12 << 10) == changed.first().unwrap() / (12 << 10)), "in one place");
    // Torn after any page.
    for page in [512, 1 << 10, 4 << 10, 8 << 10] {
        let start = changed.first().unwrap() / (12 << 10) * (12 << 10);
        let mut torn = after.clone();
        torn[start + page..start + (12 << 10)].copy_from_slice(&before[start + page..start + (12 << 10)]);
        if torn == after {
            continue;
        }
        fs::write(machine.file(), torn).unwrap();
        assert_eq!(machine.lane(rate(10, 60)).usage().used, 4);
    }
    fs::write(machine.file(), after).unwrap();
    assert_eq!(machine.lane(rate(10, 60)).usage().used, 5);
}

/// A clock of another start of the machine.
struct Restarted(FakeClock);

impl Clock for Restarted {
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn epoch(&self) -> [u8; 16] {
        [1; 16]
    }
    fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
    }
    fn unix(&self) -> i64 {
        self.0.unix()
    }
}

#[test]
fn after_a_start_of_the_machine_the_file_begins_anew() {
    let machine = Machine::new();
    machine.pass(1000 * SECOND);
    assert_eq!(send_all(&machine.lane(rate(10, 60))), 10);
    let clock = Arc::new(Restarted(FakeClock::default()));
    clock.sleep(2000 * SECOND);
    assert_eq!(send_all(&Lane::shared(rate(10, 60), &machine.file(), clock)), 10);
    // A clock that is behind, of a system that doesn't tell its starts.
    let lane = Lane::shared(rate(10, 60), &machine.file(), Arc::new(FakeClock::default()));
    assert_eq!(send_all(&lane), 10);
}

#[test]
fn the_time_of_day_does_nothing() {
    struct Jumping(FakeClock, std::sync::atomic::AtomicI64);
    impl Clock for Jumping {
        fn now(&self) -> Duration {
            self.0.now()
        }
        fn epoch(&self) -> [u8; 16] {
            self.0.epoch()
        }
        fn sleep(&self, duration: Duration) {
            self.0.sleep(duration);
        }
        fn unix(&self) -> i64 {
            self.1.load(std::sync::atomic::Ordering::Relaxed)
        }
    }
    let machine = Machine::new();
    let clock = Arc::new(Jumping(FakeClock::default(), 1_800_000_000.into()));
    let lane = Lane::shared(rate(10, 60), &machine.file(), clock.clone());
    assert_eq!(send_all(&lane), 10);
    let wait = waits(&lane);
    for unix in [0, -5, 4_000_000_000] {
        clock.1.store(unix, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(waits(&lane), wait);
        assert_eq!(waits(&Lane::shared(rate(10, 60), &machine.file(), clock.clone())), wait);
    }
    clock.sleep(wait);
    assert_eq!(send_all(&lane), 10);
}

#[test]
fn where_no_file_can_be_kept_the_budget_is_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lanes"), "a file, where a folder should be").unwrap();
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::shared(rate(10, 60), &folder.path().join("lanes/one"), clock.clone());
    assert_eq!(send_all(&lane), 10);
    clock.sleep(waits(&lane));
    assert_eq!(send_all(&lane), 10);
}

#[test]
fn files_of_tokens_that_nobody_uses_are_removed() {
    let machine = Machine::new();
    let lanes = machine.folder.path().join("lanes");
    fs::create_dir_all(&lanes).unwrap();
    // By earlier runs: each removes such files once.
    for (name, days) in [("old", 8), ("used", 6)] {
        let file = fs::File::create(lanes.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - days * 86_400 * SECOND).unwrap();
    }
    let _new = machine.lane(rate(10, 60));
    let left: BTreeSet<_> = fs::read_dir(&lanes).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, BTreeSet::from(["one".into(), "used".into()]));
}

#[test]
fn files_are_by_address_and_token_and_hold_no_token() {
    let (base, token) = ("https://api.example.com/client/v4", "canary-token-1234567890");
    // Without a cache folder there is none; the tests of the program have theirs.
    let Ok(path) = file(base, token) else { return };
    assert_eq!(path, file(&format!("{base}/"), token).unwrap());
    assert_ne!(path, file(base, "another").unwrap());
    assert_ne!(path, file("https://other.example.com", token).unwrap());
    assert!(!path.to_string_lossy().contains("canary"));
}

#[test]
fn how_long_requests_take_is_told_beforehand() {
    // A lane that sends as fast as it says, each answered at once, takes as long as it said.
    let quota = Quota { left: vec![], policies: vec![policy("burst", 100, 60), policy("default", 400, 300)] };
    for (rate, quota, before, requests, per_second) in [
        (rate(100, 10), None, 0, 100, 1000.0),
        (rate(100, 10), None, 0, 1000, 1000.0),
        (rate(100, 10), None, 60, 950, 1000.0),
        (rate(100, 10), None, 99, 1, 1000.0),
        (rate(100, 10), None, 30, 5000, 4.0),
        (rate(100, 10), None, 0, 5000, 9.9),
        (rate(1140, 300), None, 700, 20_000, 8.0),
        (rate(1140, 300), Some(&quota), 50, 10_000, 50.0),
        (rate(1_000_000, 300), Some(&quota), 50, 9_999, 3.0),
    ] {
        let clock = Arc::new(FakeClock::default());
        let lane = Lane::new(rate, clock.clone());
        lane.answered(lane.try_acquire().unwrap(), quota);
        for _ in 0..before {
            send_and_answer(&lane);
        }
        clock.sleep(3 * SECOND);
        let (start, waits_seen) = (clock.now(), lane.finish(requests, per_second));
        let each = Duration::from_secs_f64(1.0 / per_second);
        for _ in 0..requests {
            while let Err(wait) = lane.try_acquire().map(|ticket| lane.answered(ticket, None)) {
                clock.sleep(wait);
            }
            clock.sleep(each);
        }
        let (took, waits_seen) = ((clock.now() - start).as_secs_f64(), waits_seen.as_secs_f64());
        assert!(
            (waits_seen - took).abs() <= 0.01 * took + 0.1,
            "{rate:?}, {requests}: {waits_seen} s, and it took {took} s"
        );
    }
}

#[test]
fn a_block_is_part_of_how_long_it_takes() {
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::new(rate(100, 10), clock);
    lane.throttled(lane.try_acquire().unwrap(), Some(300 * SECOND));
    assert_eq!(lane.finish(0, 1e9), Duration::ZERO);
    // And the answer, of which nothing is known yet.
    assert_eq!(lane.finish(100, 1e9).as_secs(), 301);
}

#[test]
fn as_many_at_once_as_rate_and_latency_ask_for() {
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::new(rate(6000, 15), clock.clone());
    assert_eq!(lane.in_flight_bound(), 64, "not more, whatever the limit");
    for _ in 0..200 {
        let ticket = lane.try_acquire().unwrap();
        clock.sleep(Duration::from_millis(5));
        lane.answered(ticket, None);
    }
    assert_eq!(lane.in_flight_bound(), 32);
    assert_eq!(Lane::new(rate(1200, 300), clock.clone()).in_flight_bound(), 64);
    assert_eq!(Lane::new(rate(10, 300), clock).in_flight_bound(), 4);
}

#[test]
fn after_a_429_there_are_fewer_at_once_for_a_while() {
    let clock = Arc::new(FakeClock::default());
    let lane = Lane::new(rate(100_000, 10), clock.clone());
    let tickets: Vec<Ticket> = (0..64).map(|_| lane.try_acquire().unwrap()).collect();
    clock.sleep(SECOND);
    for ticket in tickets {
        lane.throttled(ticket, Some(SECOND));
    }
    assert_eq!(lane.in_flight_bound(), 32, "a crowd that is refused is one refusal");
    for fewer in [16, 8, 4, 2, 1, 1] {
        clock.sleep(SECOND);
        lane.throttled(lane.try_acquire().unwrap(), Some(SECOND));
        assert_eq!(lane.in_flight_bound(), fewer);
    }
    clock.sleep(SECOND);
    let mut answers = 0;
    while lane.in_flight_bound() < 64 {
        answers += 1;
        let ticket = lane.try_acquire().unwrap();
        clock.sleep(SECOND / 100);
        lane.answered(ticket, None);
    }
    assert!((1500..3000).contains(&answers), "{answers}");
}
