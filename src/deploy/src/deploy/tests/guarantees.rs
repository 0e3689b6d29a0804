//! Tests the guarantees of a deploy against the platform in memory: it converges, it never reports as done what it doesn't know, and it
//! repeats nothing that was acknowledged.

use super::*;

#[test]
fn what_is_planned_is_done_and_nothing_is_done_twice() {
    let bench = Bench::new();
    let fleet: Fleet = (0..30).map(|index| full(&format!("c{index}"))).collect();
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed, outcome.requests), (30, 0, 151), "five each, and the zone once");
    bench.converged(&fleet);
    bench.calls();
    assert_eq!(bench.deploy(&fleet).requests, 0);
}

#[test]
fn a_customer_that_fails_is_named_and_the_others_go_on() {
    let bench = Bench::new();
    let fleet = fleet(["a", "b", "c"].map(full));
    bench.faults(&[("upload w-b", 0, Fault::Rejected)]);
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed, outcome.skipped), (2, 1, 0));
    let failed = &outcome.failures[0];
    assert_eq!((failed.customer.as_str(), failed.worker.as_str()), ("b", "w-b"));
    assert_eq!(failed.error, "it is not to our liking (HTTP 400, code 10021)");
    assert!(!bench.called().iter().any(|words| words.contains('b') && words != "upload w-b"), "nothing follows it");
    bench.faults(&[]);
    bench.deploy(&fleet);
    bench.converged(&fleet);
}

#[test]
fn an_unknown_outcome_is_repeated_and_never_recorded_as_done() {
    for applied in [false, true] {
        let bench = Bench::new();
        let fleet = fleet([bare("a"), bare("b")]);
        bench.faults(&[("upload w-a", 0, Fault::Lost { applied })]);
        let outcome = bench.deploy(&fleet);
        assert_eq!((outcome.applied, outcome.failed, outcome.retries), (1, 1, 4));
        assert_eq!(outcome.failures[0].error, "the connection broke, 5 times in a row");
        assert!(bench.clock.now() >= Duration::from_millis(7500), "it waits longer each time");
        let known: Vec<String> = bench.state().deployed().unwrap().into_keys().map(|(_, name)| name).collect();
        assert_eq!(known, ["w-b"]);
        bench.faults(&[]);
        bench.calls();
        bench.deploy(&fleet);
        assert_eq!(bench.called(), ["upload w-a"]);
        bench.converged(&fleet);
    }
}

#[test]
fn what_may_have_been_done_is_undone_when_it_is_no_longer_wished() {
    // Of each kind of step: its answer is lost, then the wish is taken back.
    type Edit = (&'static str, fn(&mut DesiredState));
    let all: [Edit; 8] = [
        ("upload w-a", |desired| desired.version = 2),
        ("workers.dev w-a false", |desired| desired.workers_dev = false),
        ("crons w-a [\"1 * * * *\"]", |desired| desired.crons = BTreeSet::from(["1 * * * *".to_owned()])),
        ("attach new.example.com w-a", |desired| {
            desired.domains.insert("new.example.com".to_owned());
        }),
        ("detach a.example.com", |desired| desired.domains.clear()),
        ("route new.example.org/* w-a", |desired| {
            desired.routes.insert("new.example.org/*".to_owned());
        }),
        ("unroute a.example.org/*", |desired| desired.routes.clear()),
        ("delete w-a", |desired| desired.account = "nowhere".to_owned()),
    ];
    for (what, change) in all {
        for fault in interruptions() {
            let bench = Bench::new();
            let before = fleet([full("a")]);
            bench.deploy(&before);
            let mut after = before.clone();
            change(after.get_mut("a").unwrap());
            after.retain(|_, desired| desired.account != "nowhere");
            bench.faults(&[(what, 0, fault.clone())]);
            bench.calls();
            bench.try_deploy(&after);
            assert!(bench.called().iter().any(|words| words == what), "{what} is asked for");
            bench.faults(&[]);
            let outcome = bench.deploy(&before);
            assert_eq!(outcome.failed, 0, "{what}, {fault:?}: {outcome:?}");
            let result = catch_unwind(AssertUnwindSafe(|| bench.converged(&before)));
            assert!(result.is_ok(), "{what}, {fault:?}");
        }
    }
}

#[test]
fn a_refused_token_fails_once_and_stops_its_account_alone() {
    let bench = Bench::new();
    let mut fleet: Fleet = (0..200).map(|index| bare(&format!("a{index}"))).collect();
    fleet.extend((0..5).map(|index| {
        let (customer, desired) = bare(&format!("b{index}"));
        (customer, DesiredState { account: "two".to_owned(), ..desired })
    }));
    *lock(&bench.fake.faults) = Box::new(|words, _| words.starts_with("upload w-a").then_some(Fault::Unauthorized));
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed, outcome.skipped), (5, 1, 199));
    assert_eq!(outcome.failures[0].error, "the token is refused");
    let sent = bench.called().iter().filter(|words| words.starts_with("upload w-a")).count();
    assert!(sent <= INITIAL_WINDOW, "{sent} were in flight when it was known");
}

#[test]
fn no_window_holds_more_calls_than_the_limit() {
    let mut bench = Bench::new();
    bench.rate = Rate::of(7, Duration::from_secs(10));
    let fleet: Fleet = (0..40).map(|index| full(&format!("c{index}"))).collect();
    // Failures count as well as successes.
    *lock(&bench.fake.faults) = Box::new(|words, nth| match (words.len() % 5, nth) {
        (0, 1) => Some(Fault::Lost { applied: true }),
        (1, 1) => Some(Fault::Throttled(Some(3))),
        (2, 1) => Some(Fault::Concurrent),
        _ => None,
    });
    assert_eq!(bench.deploy(&fleet).failed, 0);
    let mut times: Vec<Duration> = lock(&bench.fake.log).calls.iter().map(|(index, _, _)| *index).collect();
    times.sort();
    assert!(times.len() > 200);
    for window in times.windows(8) {
        assert!(window[7] - window[0] >= Duration::from_secs(10), "{window:?}");
    }
    bench.converged(&fleet);
}

#[test]
fn a_429_is_waited_for_as_long_as_it_says() {
    for (reports, least) in [(Some(120), 120), (None, 10)] {
        let bench = Bench::new();
        let fleet = fleet([bare("a")]);
        bench.faults(&[("upload w-a", 1, Fault::Throttled(reports))]);
        let outcome = bench.deploy(&fleet);
        assert_eq!((outcome.applied, outcome.throttled, outcome.retries), (1, 1, 0));
        let times: Vec<u64> = lock(&bench.fake.log).calls.iter().map(|(at, _, _)| at.as_secs()).collect();
        assert!(times.len() == 2 && (least..least + 2).contains(&(times[1] - times[0])), "{times:?}");
    }
}

#[test]
fn a_429_stops_all_workers_of_its_account() {
    let bench = Bench::new();
    let fleet: Fleet = (0..300).map(|at| bare(&format!("c{at}"))).collect();
    bench.faults(&[("upload w-c0", 1, Fault::Throttled(Some(300)))]);
    assert_eq!(bench.deploy(&fleet).applied, 300);
    let calls = std::mem::take(&mut lock(&bench.fake.log).calls);
    let at = calls.iter().position(|(_, _, done)| !done).expect("it is throttled");
    let (reports, until) = (calls[at].0 + LATENCY, calls[at].0 + Duration::from_secs(300));
    let between = calls.iter().filter(|(time, _, _)| *time > reports && *time < until).count();
    assert_eq!(between, 0, "nothing is sent once it is known");
    assert!(calls.iter().any(|(time, _, _)| *time >= until));
}

#[test]
fn a_429_that_never_ends_fails_the_change() {
    let bench = Bench::new();
    bench.faults(&[("upload w-a", 0, Fault::Throttled(Some(300)))]);
    let outcome = bench.deploy(&fleet([bare("a")]));
    assert_eq!((outcome.failed, outcome.throttled), (1, u64::from(THROTTLED_ATTEMPTS)));
    assert_eq!(outcome.failures[0].error, "the API's limit was reached");
}

#[test]
fn concurrent_changes_are_repeated_for_a_while() {
    let bench = Bench::new();
    let fleet = fleet([bare("a")]);
    bench.faults(&[
        ("upload w-a", 1, Fault::Concurrent),
        ("upload w-a", 2, Fault::Lost { applied: true }),
        ("upload w-a", 3, Fault::Throttled(None)),
    ]);
    assert_eq!(bench.deploy(&fleet).applied, 1);
    let bench = Bench::new();
    bench.faults(&[("upload w-a", 0, Fault::Concurrent)]);
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.failed, bench.calls().len()), (1, ATTEMPTS as usize));
}

#[test]
fn a_route_whose_answer_was_lost_is_found_again() {
    let bench = Bench::new();
    let fleet = fleet([full("a")]);
    bench.faults(&[("route a.example.org/* w-a", 1, Fault::Lost { applied: true })]);
    assert_eq!(bench.deploy(&fleet).failed, 0);
    bench.converged(&fleet);
    // So that it can be removed again: its id is known.
    let mut without = fleet.clone();
    without.get_mut("a").unwrap().routes.clear();
    bench.deploy(&without);
    bench.converged(&without);
}

#[test]
fn somebody_elses_route_and_domain_are_never_taken() {
    let bench = Bench::new();
    {
        let world = &mut lock(&bench.fake.log).world;
        world.routes.insert("a.example.org/*".to_owned(), ("x".to_owned(), "theirs".to_owned()));
        world.domains.insert("b.example.com".to_owned(), ("y".to_owned(), "theirs".to_owned()));
    }
    let outcome = bench.deploy(&fleet(["a", "b", "c"].map(full)));
    let errors: Vec<&str> = outcome.failures.iter().map(|failed| failed.error.as_str()).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors[0].contains("the route a.example.org/* already points to the worker theirs"), "{errors:?}");
    assert_eq!(
        errors[1],
        "b.example.com is attached to the worker theirs: remove it from that worker and deploy again; if theirs is not managed by this \
         fleet, `{ name: b.example.com, takeOver: true }` under `domains` takes it over"
    );
    let finds = bench.called().iter().filter(|call| *call == "find b.example.com").count();
    assert_eq!(finds, 1, "it is looked up once");
    let world = &lock(&bench.fake.log).world;
    assert_eq!((&world.routes["a.example.org/*"].1[..], &world.domains["b.example.com"].1[..]), ("theirs", "theirs"));
}

#[test]
fn half_done_changes_are_finished_with_what_is_missing_alone() {
    let bench = Bench::new();
    let fleet = fleet([full("a")]);
    bench.faults(&[("attach a.example.com w-a", 0, Fault::Rejected)]);
    assert_eq!(bench.deploy(&fleet).failed, 1);
    assert_eq!(bench.called(), ["attach a.example.com w-a", "upload w-a", "workers.dev w-a true"]);
    bench.faults(&[]);
    bench.deploy(&fleet);
    assert_eq!(
        bench.called(),
        ["attach a.example.com w-a", "crons w-a [\"* * * * *\"]", "route a.example.org/* w-a", "zone example.org"]
    );
    bench.converged(&fleet);
}

#[test]
fn an_unknown_zone_fails_its_own_customers() {
    let bench = Bench::new();
    let fleet = fleet([full("a"), bare("b")]);
    // The answer is a success: the list of zones is empty.
    *lock(&bench.fake.faults) = Box::new(|words, _| words.starts_with("zone").then_some(Fault::Rejected));
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed), (1, 1));
    assert!(!bench.called().iter().any(|words| words.starts_with("route")));
}

#[test]
fn domains_and_routes_move_between_customers_in_one_plan() {
    let moves: &[&[(&str, &[&str])]] = &[
        // From one to another.
        &[("a", &["x"]), ("b", &[])],
        &[("a", &[]), ("b", &["x"])],
        // A swap, both ways.
        &[("a", &["x"]), ("b", &["y"])],
        &[("a", &["y"]), ("b", &["x"])],
        // Around, through a chain.
        &[("a", &["x"]), ("b", &["y"]), ("c", &["z"])],
        &[("a", &["y"]), ("b", &["z"]), ("c", &["x"])],
        &[("a", &["w"]), ("b", &["y"]), ("c", &["z"]), ("d", &["x"])],
        // From one who goes, to one who comes.
        &[("e", &["x", "y", "z"])],
        &[("a", &["x"]), ("b", &["y", "z"])],
    ];
    let bench = Bench::new();
    for step in moves {
        let fleet: Fleet = step
            .iter()
            .map(|(customer, hosts)| {
                let (customer, desired) = bare(customer);
                let domains = hosts.iter().map(|host| format!("{host}.example.com")).collect();
                let routes = hosts.iter().map(|host| format!("{host}.example.org/*")).collect();
                (customer, DesiredState { domains, routes, ..desired })
            })
            .collect();
        let outcome = bench.deploy(&fleet);
        assert_eq!(
            (outcome.failed, outcome.overtaken, outcome.skipped),
            (0, 0, 0),
            "{step:?}: {:?} {:?}",
            outcome.failures,
            bench.calls()
        );
        bench.converged(&fleet);
    }
}

fn waves(counts: &[usize]) -> Vec<Wave> {
    counts.iter().map(|count| Wave { count: Some(*count), name: format!("{count}"), ..Wave::default() }).collect()
}

#[test]
fn a_wave_that_is_not_well_is_the_last_one() {
    let mut bench = Bench::new();
    bench.waves = waves(&[3, 10]);
    let mut fleet: Fleet = (0..40).map(|index| bare(&format!("c{index}"))).collect();
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed, outcome.halted.is_some()), (40, 0, false));
    let health = bench.called().into_iter().filter(|words| words.starts_with("health")).count();
    assert_eq!(health, 13, "the last wave isn't asked: nothing comes after it");
    // A new version that makes one canary sick.
    for desired in fleet.values_mut() {
        desired.version = 2;
    }
    let canary = bench.plan(&fleet).changes.iter().find(|change| change.wave == 0).unwrap().worker.clone();
    lock(&bench.fake.unhealthy).insert(canary.clone());
    let before = bench.clock.now();
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.unhealthy, outcome.skipped), (3, 1, 37));
    assert_eq!(outcome.breached, Some(0));
    assert!(outcome.failures[0].error.contains("degraded") && outcome.failures[0].worker == canary);
    assert!(bench.clock.now() - before >= Duration::from_secs(60), "it had its time to become well");
    lock(&bench.fake.unhealthy).clear();
    assert_eq!(bench.deploy(&fleet).applied, 37);
    bench.converged(&fleet);
}

#[test]
fn a_failure_in_a_wave_stops_before_the_next_and_a_share_of_failures_may_be_allowed() {
    let fleet: Fleet = (0..40).map(|index| bare(&format!("c{index}"))).collect();
    for (percent, applied, skipped) in [(0.0, 9, 30), (10.0, 39, 0)] {
        let mut bench = Bench::new();
        bench.waves = waves(&[10]);
        bench.budget.percent = percent;
        let canary = bench.plan(&fleet).changes.iter().find(|change| change.wave == 0).unwrap().worker.clone();
        let call = format!("upload {canary}");
        *lock(&bench.fake.faults) = Box::new(move |words, _| (words == call).then_some(Fault::Rejected));
        let outcome = bench.deploy(&fleet);
        assert_eq!((outcome.applied, outcome.failed, outcome.skipped), (applied, 1, skipped));
    }
}

#[test]
fn a_mistake_stops_after_ten_workers() {
    let mut bench = Bench::new();
    bench.budget = Budget::default();
    let fleet: Fleet = (0..500).map(|index| bare(&format!("c{index}"))).collect();
    *lock(&bench.fake.faults) = Box::new(|words, _| words.starts_with("upload").then_some(Fault::Rejected));
    let outcome = bench.deploy(&fleet);
    // Those that were in flight when the tenth failed end, too.
    assert!(outcome.failed >= 10 && outcome.failed < 10 + INITIAL_WINDOW, "{} failed", outcome.failed);
    assert_eq!(outcome.skipped, 500 - outcome.failed);
    assert!(outcome.halted.is_some());
}

#[test]
fn what_another_deploy_changed_meanwhile_is_left_to_it() {
    let bench = Bench::new();
    let mut fleet = fleet([bare("a"), bare("b")]);
    bench.deploy(&fleet);
    fleet.values_mut().for_each(|desired| desired.version = 2);
    let plan = bench.plan(&fleet);
    // Another deploy is faster with one of them.
    let mut newer = fleet.clone();
    newer.get_mut("a").unwrap().version = 3;
    newer.remove("b");
    let mut others = bench.plan(&newer);
    others.changes.retain(|change| change.customer == "a");
    bench.apply(&others, &newer, &mut bench.state()).unwrap();
    let outcome = bench.apply(&plan, &fleet, &mut bench.state()).unwrap();
    assert_eq!((outcome.applied, outcome.overtaken), (1, 1));
    fleet.get_mut("a").unwrap().version = 3;
    bench.converged(&fleet);
}

#[test]
fn a_stop_ends_after_what_is_in_flight_and_the_next_run_does_the_rest() {
    let mut bench = Bench::new();
    bench.stop_after = 5;
    let fleet: Fleet = (0..60).map(|index| full(&format!("c{index}"))).collect();
    let outcome = bench.deploy(&fleet);
    assert!(outcome.applied >= 5 && outcome.skipped > 0, "{outcome:?}");
    assert_eq!((outcome.applied + outcome.skipped, outcome.failed), (60, 0));
    let first: BTreeSet<String> = bench.called().into_iter().collect();
    bench.stop_after = usize::MAX;
    assert_eq!(bench.deploy(&fleet).skipped, 0);
    assert!(bench.called().iter().all(|words| !first.contains(words)), "nothing acknowledged is repeated");
    bench.converged(&fleet);
}

#[test]
fn a_stop_is_heard_while_a_limit_is_waited_for() {
    let mut bench = Bench::new();
    bench.stop_after = 1;
    bench.rate = Rate::of(1, Duration::from_secs(1_000_000_000));
    let outcome = bench.deploy(&(0..30).map(|index| bare(&format!("c{index}"))).collect());
    assert_eq!((outcome.applied, outcome.skipped), (1, 29));
    assert!(bench.clock.now() < Duration::from_secs(1_000_000_000), "it waited for the limit first");
}

#[test]
fn a_crash_at_any_call_loses_nothing_and_repeats_what_was_in_flight_alone() {
    let fleet = fleet(["a", "b", "c"].map(full));
    for index in 0..16 {
        for applied in [false, true] {
            let bench = Bench::new();
            let count = AtomicU64::new(0);
            *lock(&bench.fake.faults) = Box::new(move |_, _| {
                (count.fetch_add(1, Ordering::Relaxed) == index).then_some(Fault::Crash { applied })
            });
            assert!(bench.try_deploy(&fleet).is_none());
            let killed = bench.clock.now();
            let first = std::mem::take(&mut lock(&bench.fake.log).calls);
            bench.faults(&[]);
            bench.deploy(&fleet);
            for (words, _) in bench.calls() {
                let known = |(when, other, done): &(Duration, String, bool)| {
                    *other == words && *done && *when + LATENCY <= killed
                };
                assert!(!first.iter().any(known), "{words} was acknowledged before the crash at {index}");
            }
            bench.converged(&fleet);
        }
    }
}

#[test]
fn where_nothing_can_be_recorded_nothing_more_is_done() {
    let bench = Bench::new();
    let fleet: Fleet = (0..60).map(|index| bare(&format!("c{index}"))).collect();
    drop(bench.state());
    let plan = bench.plan(&fleet);
    // Opened for reading: each write fails, as on a full disk.
    let mut state = State::read(&bench.folder.path().join("state.db")).unwrap();
    let failure = bench.apply(&plan, &fleet, &mut state).expect_err("it can't be recorded");
    assert!(failure.to_string().contains("writ"), "{failure}");
    assert!(bench.calls().is_empty(), "what can't be noted isn't begun");
}

#[test]
fn each_kind_of_failure_says_what_helps() {
    let steps = |outcome: &Outcome| outcome.next_steps().into_iter().collect::<Vec<_>>();
    let only = |step| vec![step];
    // One answer, and what is done about it.
    for (call, fault, step) in [
        ("upload w-a", Fault::Rejected, NextStep::Input),
        ("upload w-a", Fault::Unauthorized, NextStep::Token),
        ("upload w-a", Fault::Lost { applied: false }, NextStep::Retry),
        ("upload w-a", Fault::Throttled(Some(1)), NextStep::Retry),
        ("upload w-a", Fault::Concurrent, NextStep::Retry),
        ("zone example.org", Fault::Unauthorized, NextStep::Token),
        ("zone example.org", Fault::Lost { applied: false }, NextStep::Retry),
        ("attach a.example.com w-a", Fault::Rejected, NextStep::Input),
    ] {
        let bench = Bench::new();
        bench.faults(&[(call, 0, fault)]);
        let outcome = bench.deploy(&fleet([full("a")]));
        assert_eq!(steps(&outcome), only(step), "{call}: {:?}", outcome.failures);
    }
    // What something else has, or nothing has.
    let bench = Bench::new();
    let mut zoneless = full("a");
    zoneless.1.routes = BTreeSet::from(["a.elsewhere.net/*".to_owned()]);
    assert_eq!(steps(&bench.deploy(&fleet([zoneless]))), only(NextStep::Zone));
    for is_route in [true, false] {
        let bench = Bench::new();
        let theirs = ("id0".to_owned(), "theirs".to_owned());
        let mut log = lock(&bench.fake.log);
        match is_route {
            true => log.world.routes.insert("a.example.org/*".to_owned(), theirs),
            false => log.world.domains.insert("a.example.com".to_owned(), theirs),
        };
        drop(log);
        assert_eq!(steps(&bench.deploy(&fleet([full("a")]))), only(NextStep::Host));
    }
    // The worker was deleted by other means.
    let bench = Bench::new();
    bench.deploy(&fleet([full("a")]));
    lock(&bench.fake.log).world.scripts.clear();
    let mut changed = full("a");
    changed.1.crons = BTreeSet::from(["1 * * * *".to_owned()]);
    assert_eq!(steps(&bench.deploy(&fleet([changed]))), only(NextStep::Refresh));
    // A wave that isn't healthy, and one that waits for what failed.
    let mut bench = Bench::new();
    bench.waves = waves(&[1]);
    bench.budget = Budget { health: Some(Duration::from_secs(5)), ..Budget::default() };
    lock(&bench.fake.unhealthy).extend(["w-a".to_owned(), "w-b".to_owned()]);
    assert_eq!(steps(&bench.deploy(&fleet([full("a"), full("b")]))), only(NextStep::Health));
    let bench = Bench::new();
    let (one, other) = (hosted_by("a", "x.example.com"), hosted_by("b", "y.example.com"));
    bench.deploy(&fleet([one, other]));
    bench.faults(&[("upload w-a", 0, Fault::Rejected)]);
    let mut swapped = fleet([hosted_by("a", "y.example.com"), hosted_by("b", "x.example.com")]);
    swapped.values_mut().for_each(|desired| desired.version = 2);
    let outcome = bench.deploy(&swapped);
    assert_eq!((steps(&outcome), outcome.failed), (only(NextStep::Input), 2));
    // Too many failures, and a stop.
    let mut bench = Bench::new();
    bench.budget = Budget { count: 1, ..Budget::default() };
    bench.faults(&[("upload w-a", 0, Fault::Rejected)]);
    assert_eq!(steps(&bench.deploy(&fleet([full("a")]))), [NextStep::Input, NextStep::FailureLimit]);
    let mut bench = Bench::new();
    bench.stop_after = 0;
    assert_eq!(steps(&bench.deploy(&fleet([full("a")]))), only(NextStep::Retry));
    bench.stop_after = usize::MAX;
    assert_eq!(steps(&bench.deploy(&fleet([full("a")]))), []);
}

/// A customer with this domain.
fn hosted_by(customer: &str, domain: &str) -> (String, DesiredState) {
    let (customer, mut desired) = bare(customer);
    desired.domains.insert(domain.to_owned());
    (customer, desired)
}

/// A customer with these hosts.
fn hosted(customer: &str, hosts: &[&str]) -> (String, DesiredState) {
    let (customer, desired) = bare(customer);
    (customer, DesiredState { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..desired })
}

#[test]
fn hosts_go_ten_thousand_at_a_time_and_only_differences_go() {
    let mut bench = Bench::new();
    bench.rate = Rate::of(100_000, Duration::from_secs(60));
    let names: Vec<String> = (0..25_000).map(|index| format!("h{index}.example.net")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fleet = fleet([hosted("a", &names[..10_000]), hosted("b", &names[10_000..]), bare("c")]);
    let requests = bench.plan(&fleet).requests()["one"];
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed, outcome.hosts), (3, 0, 25_000));
    let called = bench.called();
    let puts: Vec<&String> = called.iter().filter(|words| words.starts_with("put")).collect();
    assert_eq!(puts.len(), 3, "{puts:?}");
    assert_eq!(called.len(), 3 + 3 + 2, "three uploads, three writes, and the namespace is looked for and made");
    assert_eq!(requests, 6, "the plan knows it, but for what is found out once");
    bench.converged(&fleet);
    assert_eq!(bench.deploy(&fleet).requests, 0);
    // One host moves, one goes: two requests, without an upload.
    fleet.get_mut("a").unwrap().hosts.remove(names[0]);
    fleet.get_mut("c").unwrap().hosts.insert(names[0].to_owned());
    fleet.get_mut("b").unwrap().hosts.remove(names[20_000]);
    assert_eq!(bench.plan(&fleet).requests()["one"], 2);
    bench.deploy(&fleet);
    assert_eq!(bench.called(), [format!("drop 1 {}", names[20_000]), format!("put 1 {}", names[0])]);
    bench.converged(&fleet);
}

#[test]
fn a_host_that_moves_is_never_without_a_worker_that_is_there() {
    let host = "x.example.net";
    let before = fleet([hosted("a", &[host])]);
    // To another who comes, while the old one goes; and back.
    for after in [fleet([hosted("b", &[host])]), fleet([bare("a"), hosted("b", &[host])])] {
        for fault in [
            None,
            Some(("upload w-b", Fault::Rejected)),
            Some(("put 1 x.example.net", Fault::Rejected)),
            Some(("put 1 x.example.net", Fault::Lost { applied: true })),
            Some(("put 1 x.example.net", Fault::Lost { applied: false })),
            Some(("put 1 x.example.net", Fault::Crash { applied: true })),
            Some(("put 1 x.example.net", Fault::Crash { applied: false })),
        ] {
            let bench = Bench::new();
            bench.deploy(&before);
            bench.calls();
            let faults: Vec<_> = fault.iter().map(|(what, fault)| (*what, 0, fault.clone())).collect();
            bench.faults(&faults);
            let outcome = bench.try_deploy(&after);
            let called = bench.called();
            assert!(!called.iter().any(|words| words.starts_with("drop")), "{called:?}");
            let leads = lock(&bench.fake.log).world.hosts[host].clone();
            assert!(lock(&bench.fake.log).world.scripts.contains_key(&leads), "{fault:?}");
            if let (Some(outcome), Some(_)) = (&outcome, &fault) {
                assert!(outcome.failed > 0, "{fault:?}: {outcome:?}");
                let goes = !after.contains_key("a");
                let reports = outcome.failures.iter().any(|failed| failed.error.contains("still points to it"));
                assert_eq!(reports, goes, "{fault:?}: {outcome:?}");
            }
            bench.faults(&[]);
            // Taken back at once, what may have been done is undone.
            let taken_back = Bench { folder: copy(&bench.folder), ..Bench::new() };
            lock(&taken_back.fake.log).world = lock(&bench.fake.log).world.clone();
            assert_eq!(taken_back.deploy(&before).failed, 0);
            taken_back.converged(&before);
            assert_eq!(bench.deploy(&after).failed, 0);
            bench.converged(&after);
            bench.deploy(&before);
            bench.converged(&before);
        }
    }
}

/// Another folder with the same state.
fn copy(folder: &TempDir) -> TempDir {
    let other = state_folder();
    for entry in std::fs::read_dir(folder.path()).expect("a folder").flatten() {
        std::fs::copy(entry.path(), other.path().join(entry.file_name())).expect("a file");
    }
    other
}

#[test]
fn no_worker_goes_to_which_a_host_may_lead() {
    let host = "x.example.net";
    let bench = Bench::new();
    // Whether it leads to b isn't known; then b is to go, and its new worker can't be written.
    bench.faults(&[("put 1 x.example.net", 0, Fault::Lost { applied: true })]);
    assert_eq!(bench.deploy(&fleet([hosted("b", &[host])])).failed, 1);
    bench.faults(&[("put 1 x.example.net", 0, Fault::Rejected)]);
    let after = fleet([hosted("c", &[host])]);
    let outcome = bench.deploy(&after);
    assert!(outcome.failures.iter().any(|failed| failed.error.contains("still points to it")), "{outcome:?}");
    bench.faults(&[]);
    assert_eq!(bench.deploy(&after).failed, 0);
    bench.converged(&after);
}

#[test]
fn who_goes_gives_up_its_routes_and_hosts_to_who_comes() {
    let bench = Bench::new();
    let routed = |customer: &str| {
        let (customer, desired) = hosted(customer, &["x.example.net"]);
        (customer, DesiredState { routes: BTreeSet::from(["x.example.org/*".to_owned()]), ..desired })
    };
    bench.deploy(&fleet([routed("a")]));
    let after = fleet([routed("d")]);
    assert_eq!(bench.deploy(&after).failed, 0);
    bench.converged(&after);
}

#[test]
fn a_host_goes_before_its_worker_does() {
    let bench = Bench::new();
    bench.deploy(&fleet([hosted("a", &["x.example.net", "y.example.net"]), bare("b")]));
    bench.calls();
    let after = fleet([bare("b")]);
    let outcome = bench.deploy(&after);
    assert_eq!((outcome.applied, outcome.hosts), (1, 2));
    let order: Vec<String> = bench.calls().into_iter().map(|(words, _)| words).collect();
    assert_eq!(order, ["drop 2 x.example.net", "delete w-a"]);
    bench.converged(&after);
}

#[test]
fn hosts_of_others_and_of_those_who_are_held_are_left_alone() {
    let bench = Bench::new();
    let both = fleet([hosted("a", &["x.example.net"]), hosted("b", &["y.example.net"])]);
    bench.deploy(&both);
    let recorded = bench.state().hosts().unwrap();
    let home = Home { account_id: "one".to_owned(), namespace: None };
    let changes = |held: bool, whole: bool, claimed: &str| {
        let options = Options { whole, homes: BTreeSet::from([home.clone()]), ..Options::default() };
        let mut planner = Planner::new(&options);
        // a has no host any more; b isn't in the plan.
        let hosts = Hosts { table: "hosts".to_owned(), names: BTreeSet::new() };
        planner.add_hosts(&(home.clone(), "w-a".to_owned()), "one", Some(&hosts), held);
        let plan = planner.finish_with(&recorded, &|host| host == claimed);
        plan.hosts.into_iter().map(|change| change.host).collect::<Vec<_>>()
    };
    assert_eq!(changes(false, false, ""), ["x.example.net"], "b's is not looked at");
    assert_eq!(changes(false, true, ""), ["x.example.net"], "nor where b may only be held");
    assert_eq!(changes(true, true, ""), [""; 0]);
    assert_eq!(changes(false, true, "x.example.net"), [""; 0], "somebody wants it: it moves, later");
}

#[test]
fn a_database_is_found_or_made_once() {
    let bench = Bench::new();
    lock(&bench.fake.log).world.databases.insert("db-b".to_owned(), "old".to_owned());
    let mut fleet = fleet([with_database("a"), with_database("b"), bare("c")]);
    assert_eq!(bench.deploy(&fleet).failed, 0);
    let order: Vec<String> = bench.calls().into_iter().map(|(words, _)| words).collect();
    assert_eq!(order[0], "databases None 1", "one list for all, before the first upload");
    assert_eq!(order.iter().filter(|words| words.contains("database")).count(), 2, "{order:?}");
    bench.converged(&fleet);
    assert_eq!(bench.deploy(&fleet).requests, 0);
    // Its id is known from then on.
    fleet.get_mut("b").unwrap().version = 2;
    bench.deploy(&fleet);
    assert_eq!(bench.called(), ["upload w-b"]);
    // A single one is requested by its name.
    fleet.extend([with_database("d")]);
    bench.deploy(&fleet);
    assert_eq!(bench.called(), ["create database db-d", "databases Some(\"db-d\") 1", "upload w-d"]);
    assert_eq!(lock(&bench.fake.log).world.databases.len(), 3);
}

#[test]
fn a_database_whose_answer_was_lost_is_found_and_not_made_twice() {
    for fault in interruptions() {
        let bench = Bench::new();
        let fleet = fleet([with_database("a")]);
        bench.faults(&[("create database db-a", 1, fault)]);
        bench.try_deploy(&fleet);
        bench.faults(&[]);
        assert_eq!(bench.deploy(&fleet).failed, 0);
        bench.converged(&fleet);
        assert_eq!(lock(&bench.fake.log).world.databases.len(), 1);
    }
}

#[test]
fn a_database_that_somebody_deleted_is_made_anew_by_the_next_deploy() {
    let bench = Bench::new();
    let mut fleet = fleet([with_database("a")]);
    bench.deploy(&fleet);
    lock(&bench.fake.log).world.databases.clear();
    fleet.get_mut("a").unwrap().version = 2;
    let outcome = bench.deploy(&fleet);
    assert!(outcome.failures[0].error.contains("looks it up again"), "{outcome:?}");
    assert_eq!(bench.deploy(&fleet).failed, 0);
    bench.converged(&fleet);
}

#[test]
fn what_can_not_be_looked_up_fails_those_who_need_it() {
    let bench = Bench::new();
    let fleet = fleet([with_database("a"), hosted("b", &["x.example.net"]), bare("c")]);
    *lock(&bench.fake.faults) =
        Box::new(|words, _| (words.starts_with("databases") || words.starts_with("tables")).then_some(Fault::Rejected));
    let outcome = bench.deploy(&fleet);
    assert_eq!((outcome.applied, outcome.failed, outcome.hosts_skipped), (2, 2, 1), "{outcome:?}");
    assert_eq!(outcome.failures[0].worker, "the hosts in hosts");
    assert_eq!(outcome.failures[1].worker, "w-a");
    bench.faults(&[]);
    bench.deploy(&fleet);
    bench.converged(&fleet);
}

/// Faults by chance, the same for the same seed whatever the threads do.
fn chaos(seed: u64, of_thousand: u64, crash: bool) -> Faults {
    Box::new(move |words, nth| {
        let digest = Digest::of(format!("{seed} {words} {nth}").as_bytes()).to_string();
        let roll = u64::from_str_radix(&digest[..8], 16).expect("hexadecimal digits");
        if roll % 1000 >= of_thousand {
            return None;
        }
        let applied = (roll / 1000).is_multiple_of(2);
        Some(match roll / 2000 % 12 {
            0 | 1 => Fault::Throttled(Some(2)),
            2 => Fault::Throttled(None),
            3..=7 => Fault::Lost { applied },
            8 => Fault::Rejected,
            9 => Fault::Concurrent,
            10 => Fault::Unauthorized,
            _ if crash => Fault::Crash { applied },
            _ => Fault::Lost { applied },
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_it_converges(
        rounds in prop::collection::vec((fleets(), any::<u64>(), 0u64..600), 1..5),
        crash in any::<bool>(),
    ) {
        let bench = Bench::new();
        let mut last = Fleet::new();
        for (desired, seed, of_thousand) in rounds {
            *lock(&bench.fake.faults) = chaos(seed, of_thousand, crash);
            lock(&bench.fake.log).asked.clear();
            bench.try_deploy(&desired);
            last = desired;
        }
        bench.faults(&[]);
        let outcome = bench.deploy(&last);
        prop_assert_eq!(outcome.failed, 0, "{:?}", outcome.failures);
        bench.converged(&last);
    }
}
