//! Explores the loop systematically: answers come in any order, any of them goes wrong in any way, and a person stops or pauses at
//! any time. A run is a list of choices. The first one takes the first option everywhere; from there the search tries every other
//! option, up to a number of departures from the first option in one run.

use super::super::pool::answer;
use super::*;

/// The faults of an answer.
const FAULTS: &[Fault] = &[
    Fault::Lost { applied: true },
    Fault::Lost { applied: false },
    Fault::Throttled(Some(1)),
    Fault::Rejected,
    Fault::Unauthorized,
    Fault::Concurrent,
];

/// The most times that a run waits: one that waits longer never ends.
const WAITS: usize = 20_000;

/// The choices of a run.
#[derive(Default)]
struct Script {
    /// The choices that are given; after them, always the first option.
    given: Vec<usize>,
    /// The choices so far, each with the number of its options.
    chosen: Vec<(usize, usize)>,
}

impl Script {
    fn choose(&mut self, options: usize) -> usize {
        let choice = self.given.get(self.chosen.len()).map_or(0, |choice| choice % options);
        self.chosen.push((choice, options));
        choice
    }

    /// Returns the script that the search tries next, with at most this number of departures.
    fn next(&self, departures: usize) -> Option<Script> {
        let is_allowed = |place: &usize| {
            let (choice, options) = self.chosen[*place];
            let before = self.chosen[..*place].iter().filter(|(choice, _)| *choice > 0).count();
            choice + 1 < options && before < departures
        };
        let place = (0..self.chosen.len()).rev().find(is_allowed)?;
        let mut given: Vec<usize> = self.chosen[..=place].iter().map(|(choice, _)| *choice).collect();
        given[place] += 1;
        Some(Script { given, chosen: Vec::new() })
    }
}

/// A pool that answers after a script.
struct Scripted<'a> {
    fake: &'a Fake,
    make: &'a MakeUpload,
    script: &'a RefCell<Script>,
    faults: &'static [Fault],
    fault: Arc<Mutex<Option<Fault>>>,
    in_flight: Vec<(RequestId, Job)>,
    waits: usize,
}

impl Pool for Scripted<'_> {
    fn size(&self) -> usize {
        64
    }

    fn submit(&mut self, id: RequestId, job: Job) {
        assert!(self.in_flight.iter().all(|(other, _)| *other != id), "{id:?} is in flight twice");
        self.in_flight.push((id, job));
    }

    fn wait(&mut self, until: Duration) -> Vec<(RequestId, Answer)> {
        self.waits += 1;
        assert!(self.waits < WAITS, "the run doesn't end");
        // One of the answers comes, or none of them does in time.
        let which = match self.in_flight.len() {
            0 => 0,
            count => self.script.borrow_mut().choose(count + 1),
        };
        if which >= self.in_flight.len() {
            self.fake.clock.sleep(until.saturating_sub(self.fake.clock.now()));
            return Vec::new();
        }
        self.fake.clock.sleep(Duration::from_millis(1));
        let fault = self.script.borrow_mut().choose(self.faults.len() + 1);
        *lock(&self.fault) = fault.checked_sub(1).map(|fault| self.faults[fault].clone());
        let (id, job) = self.in_flight.remove(which);
        vec![(id, answer(self.fake, self.make, job))]
    }
}

/// A fleet before and after a deploy.
struct Scenario {
    before: Fleet,
    after: Fleet,
    /// The faults that may occur.
    faults: &'static [Fault],
}

/// Asserts that a customer that had hosts, and is to have some, has one.
fn check_nobody_is_worse_off(bench: &Bench, scenario: &Scenario) {
    let world = lock(&bench.fake.log).world.clone();
    let has_host =
        |desired: &DesiredState| desired.workers_dev || !desired.domains.is_empty() || !desired.routes.is_empty();
    for (customer, before) in scenario.before.iter().filter(|(_, before)| has_host(before)) {
        let worker = format!("w-{customer}");
        if scenario.after.get(customer).is_some_and(|after| has_host(after) && after.account == before.account) {
            let mut held = world.domains.values().chain(world.routes.values());
            let is_reachable = held.any(|(_, holder)| *holder == worker) || world.workers_dev.contains(&worker);
            assert!(is_reachable, "{worker} has no host");
        }
    }
}

/// A customer of an account with these hosts: routes in zones, domains, and hosts of a dispatch worker.
fn customer(name: &str, account: &str, hosts: &[&str]) -> (String, DesiredState) {
    let mut desired = DesiredState { account: account.to_owned(), version: 1, ..DesiredState::default() };
    for host in hosts {
        match host {
            host if host.ends_with("/*") => desired.routes.insert((*host).to_owned()),
            host if host.ends_with(".com") => desired.domains.insert((*host).to_owned()),
            host => desired.hosts.insert((*host).to_owned()),
        };
    }
    (name.to_owned(), desired)
}

/// Deploys a fleet from a state, after a script; returns the outcome, and the customers that were reported as
/// applied.
fn deploy_scripted(
    bench: &Bench,
    state: &mut State,
    fleet: &Fleet,
    faults: &'static [Fault],
    script: &RefCell<Script>,
) -> (Plan, Outcome, BTreeSet<String>) {
    let plan = bench.plan_from(state, fleet);
    let make = maker(fleet);
    let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
    let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
    let of_call = Arc::clone(&fault);
    *lock(&bench.fake.faults) = Box::new(move |_, _| lock(&of_call).take());
    let (fake, in_flight) = (bench.fake.as_ref(), Vec::new());
    let applied = RefCell::new(BTreeSet::new());
    let mut control = Control::Continue;
    let ctx = DeployContext {
        pool: Box::new(Scripted { fake, make: &make, script, faults, fault, in_flight, waits: 0 }),
        clock: Arc::clone(&clock),
        lanes: (0..2).map(|_| Arc::new(Lane::new(bench.rate, Arc::clone(&clock)))).collect(),
        lane_of: HashMap::from([("one".to_owned(), LaneId::new(0)), ("two".to_owned(), LaneId::new(1))]),
        state,
        run: RunId(1),
        concurrent_run: None,
        ownership: None,
        budget: bench.budget,
        health_check: Box::new(|_, _, _| None),
        control: Box::new(|| {
            control = match (script.borrow_mut().choose(3), control) {
                (1, _) | (_, Control::Stop) => Control::Stop,
                (2, Control::Continue) => Control::Pause,
                _ => Control::Continue,
            };
            control
        }),
        on_event: Box::new(|event| {
            if let Event::Applied(change) = event {
                assert!(applied.borrow_mut().insert(change.customer.clone()), "it is applied once");
            }
        }),
    };
    let outcome = deploy(&plan, ctx).expect("the state can be written");
    (plan, outcome, applied.into_inner())
}

/// Asserts what holds however a run went.
fn check(bench: &Bench, state: &State, fleet: &Fleet, (plan, outcome, applied): (Plan, Outcome, BTreeSet<String>)) {
    // What fails for a database isn't a change's failure: the change is skipped.
    let is_change = |failed: &&Failed| !failed.customer.is_empty() && !failed.error.contains("D1 database");
    let failed: Vec<&Failed> = outcome.failures.iter().filter(is_change).collect();
    let names: BTreeSet<&str> = failed.iter().map(|failed| failed.worker.as_str()).collect();
    assert_eq!(names.len(), failed.len(), "a change fails once");
    assert_eq!(outcome.failures.len(), outcome.failed, "each failure is named");
    assert_eq!(outcome.applied, applied.len());
    assert_eq!((outcome.applied + failed.len() + outcome.skipped, outcome.overtaken), (plan.changes.len(), 0));
    assert_eq!(outcome.hosts + outcome.hosts_skipped, plan.hosts.len());
    let world = lock(&bench.fake.log).world.clone();
    let held = |things: &BTreeMap<String, (String, String)>, worker: &str| -> BTreeSet<String> {
        things.iter().filter(|(_, (_, holder))| holder == worker).map(|(name, _)| name.clone()).collect()
    };
    for customer in &applied {
        let worker = format!("w-{customer}");
        match fleet.get(customer) {
            None => assert!(!world.scripts.contains_key(&worker), "{worker} is deleted"),
            Some(desired) => {
                assert_eq!(world.scripts[&worker], bundle(customer, desired).digest.to_string());
                assert_eq!(held(&world.routes, &worker), desired.routes, "{worker} has its routes");
                assert_eq!(held(&world.domains, &worker), desired.domains, "{worker} has its domains");
            }
        }
    }
    // What isn't uncertain is as the state says.
    let (deployed, in_flight) = (state.deployed().unwrap(), state.in_flight().unwrap());
    for ((home, worker), live) in deployed.iter().filter(|(id, _)| !in_flight.contains_key(*id)) {
        assert_eq!(world.scripts.get(worker), Some(&live.digest.to_string()), "{worker} in {}", home.account_id);
        assert_eq!(held(&world.routes, worker), live.live.routes.keys().cloned().collect());
        assert_eq!(held(&world.domains, worker), live.live.domains.keys().cloned().collect());
    }
    let known = |worker: &String| deployed.keys().chain(in_flight.keys()).any(|(_, name)| name == worker);
    assert!(world.scripts.keys().all(known), "the state knows each worker that exists");
    let hosts = state.hosts().unwrap();
    for ((_, host), lead) in hosts.iter().filter(|(_, lead)| lead.sure) {
        assert_eq!(world.hosts.get(host), lead.worker.as_ref());
    }
}

/// Runs a scenario after a script, and then to its end.
fn run(scenario: &Scenario, script: Script) -> Script {
    run_checked(scenario, script, |_, _| ())
}

fn run_checked(scenario: &Scenario, script: Script, more: fn(&Bench, &Scenario)) -> Script {
    let mut bench = Bench::new();
    // Nothing halts it: what is not attempted is left by a failure, an unauthorized token or a stop.
    bench.budget = Budget { count: usize::MAX, health: None, ..Budget::default() };
    let mut state = State::in_memory();
    let first = RefCell::new(Script::default());
    if !scenario.before.is_empty() {
        deploy_scripted(&bench, &mut state, &scenario.before, &[], &first);
    }
    let script = RefCell::new(script);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let ran = deploy_scripted(&bench, &mut state, &scenario.after, scenario.faults, &script);
        check(&bench, &state, &scenario.after, ran);
        more(&bench, scenario);
        let rest = RefCell::new(Script::default());
        let ran = deploy_scripted(&bench, &mut state, &scenario.after, &[], &rest);
        assert_eq!(ran.1.failed, 0, "{:?}", ran.1.failures);
        bench.converged_in(&state, &scenario.after);
    }));
    assert!(result.is_ok(), "the choices of the run that failed: {:?}", script.borrow().chosen);
    script.into_inner()
}

/// Tries every run of a scenario with at most this number of departures; returns the number of runs.
fn explore(scenario: &Scenario, departures: usize) -> usize {
    explore_checked(scenario, departures, |_, _| ())
}

fn explore_checked(scenario: &Scenario, departures: usize, more: fn(&Bench, &Scenario)) -> usize {
    let mut next = Some(Script::default());
    let mut runs = 0;
    while let Some(script) = next {
        next = run_checked(scenario, script, more).next(departures);
        runs += 1;
    }
    runs
}

#[test]
fn zones_are_looked_up_once_whatever_fails() {
    let after = fleet([
        customer("a", "one", &["a.example.org/*"]),
        customer("b", "one", &["b.example.net/*"]),
        customer("c", "one", &["c.example.org/*"]),
        customer("d", "two", &["d.example.org/*"]),
    ]);
    let runs = explore(&Scenario { before: Fleet::new(), after, faults: FAULTS }, 1);
    assert!(runs > 50, "{runs}");
}

#[test]
fn two_failures_of_lookups_leave_nobody_behind() {
    let after = fleet([
        customer("a", "one", &["a.example.org/*"]),
        customer("b", "one", &["b.example.net/*"]),
        customer("c", "one", &["c.example.org/*"]),
    ]);
    let faults = &[Fault::Lost { applied: true }, Fault::Unauthorized];
    let runs = explore(&Scenario { before: Fleet::new(), after, faults }, 2);
    assert!(runs > 300, "{runs}");
}

#[test]
fn what_moves_between_workers_is_never_lost() {
    let before = fleet([
        customer("a", "one", &["x.example.org/*", "y.example.com"]),
        customer("b", "one", &["z.example.net/*", "h.internal"]),
    ]);
    let after = fleet([
        customer("b", "one", &["x.example.org/*", "z.example.net/*"]),
        customer("c", "two", &["y.example.com"]),
        customer("d", "one", &["h.internal"]),
    ]);
    let runs = explore(&Scenario { before, after, faults: FAULTS }, 1);
    assert!(runs > 50, "{runs}");
}

/// Fleets whose customers swap hosts: two domains, routes and domains round about, and more than one host at once.
fn circles() -> [(Fleet, Fleet); 3] {
    let changed = |fleet: Fleet| -> Fleet {
        fleet.into_iter().map(|(name, desired)| (name, DesiredState { version: 2, ..desired })).collect()
    };
    let two = |a, b| fleet([customer("a", "one", &[a]), customer("b", "one", &[b])]);
    let three = |hosts: [&str; 3]| {
        let [a, b, c] = hosts;
        fleet([customer("a", "one", &[a]), customer("b", "one", &[b]), customer("c", "one", &[c])])
    };
    let many =
        fleet([customer("a", "one", &["x.example.com", "v.example.com"]), customer("b", "one", &["y.example.com"])]);
    let mut many_after = fleet([
        customer("a", "one", &["y.example.com"]),
        customer("b", "one", &["x.example.com"]),
        customer("d", "one", &["w.example.com"]),
    ]);
    many_after.get_mut("a").unwrap().version = 2;
    [
        (two("x.example.com", "y.example.com"), changed(two("y.example.com", "x.example.com"))),
        (
            three(["x.example.org/*", "y.example.com", "z.example.net/*"]),
            three(["y.example.com", "z.example.net/*", "x.example.org/*"]),
        ),
        (many, many_after),
    ]
}

#[test]
fn who_swaps_hosts_has_one_whatever_fails() {
    for (before, after) in circles() {
        let scenario = Scenario { before, after, faults: FAULTS };
        let runs = explore_checked(&scenario, 1, check_nobody_is_worse_off);
        assert!(runs > 40, "{runs}");
    }
}

#[test]
fn who_swaps_hosts_has_one_after_a_stop_and_a_lost_answer() {
    let faults = &[Fault::Lost { applied: true }];
    for (before, after) in circles() {
        let runs = explore_checked(&Scenario { before, after, faults }, 2, check_nobody_is_worse_off);
        assert!(runs > 200, "{runs}");
    }
}

#[test]
fn the_address_on_workers_dev_goes_after_the_hosts_came() {
    for host in ["x.example.com", "x.example.org/*"] {
        let (name, mut desired) = customer("a", "one", &[]);
        desired.workers_dev = true;
        let before = fleet([(name, desired), customer("b", "one", &[host, "own.example.com"])]);
        let after = fleet([customer("a", "one", &[host]), customer("b", "one", &["own.example.com"])]);
        explore_checked(&Scenario { before, after, faults: FAULTS }, 1, check_nobody_is_worse_off);
        let before = fleet([(
            String::from("a"),
            DesiredState { account: "one".to_owned(), version: 1, workers_dev: true, ..DesiredState::default() },
        )]);
        let after = fleet([customer("a", "one", &[host])]);
        explore_checked(&Scenario { before, after, faults: FAULTS }, 1, check_nobody_is_worse_off);
    }
}

/// Kills the deploy of `after` at each of its calls, before and after the call takes effect: the next deploy ends it, and then `check` holds.
fn killed_anywhere(before: &Fleet, after: &Fleet, calls: usize, check: impl Fn(&Bench)) {
    for (place, applied) in (0..calls).flat_map(|place| [(place, true), (place, false)]) {
        let bench = Bench::new();
        bench.deploy(before);
        let count = Mutex::new(0);
        *lock(&bench.fake.faults) = Box::new(move |_, _| {
            let mut count = lock(&count);
            *count += 1;
            (*count == place + 1).then_some(Fault::Crash { applied })
        });
        assert!(bench.try_deploy(after).is_none());
        *lock(&bench.fake.faults) = Box::new(|_, _| None);
        let outcome = bench.deploy(after);
        assert_eq!(outcome.failed, 0, "{:?}", outcome.failures);
        bench.converged(after);
        check(&bench);
    }
}

#[test]
fn a_circle_that_was_killed_anywhere_is_ended_by_the_next_deploy() {
    for (before, after) in circles() {
        let bench = Bench::new();
        bench.deploy(&before);
        bench.calls();
        bench.deploy(&after);
        let calls = bench.calls();
        assert!(calls.iter().any(|(words, _)| words.starts_with("move ")), "{calls:?}");
        killed_anywhere(&before, &after, calls.len(), |_| ());
    }
}

#[test]
fn a_host_that_can_not_be_put_back_is_named() {
    let (before, after) = circles()[0].clone();
    let bench = Bench::new();
    bench.deploy(&before);
    // One move fails for good, and so does what takes the other one back.
    *lock(&bench.fake.faults) = Box::new(|words, _| {
        ["move x.example.com w-b", "move y.example.com w-b"].contains(&words).then_some(Fault::Rejected)
    });
    let outcome = bench.deploy(&after);
    let errors: Vec<&str> = outcome.failures.iter().map(|failed| failed.error.as_str()).collect();
    assert_eq!(
        errors,
        [
            "y.example.com points to w-a and could not be moved back to w-b: it is not to our liking (HTTP 400, code 10021); the next \
             deploy moves all of these hosts",
            "it is not to our liking (HTTP 400, code 10021)",
        ]
    );
    *lock(&bench.fake.faults) = Box::new(|_, _| None);
    assert_eq!(bench.deploy(&after).failed, 0);
    bench.converged(&after);
}

#[test]
fn databases_and_tables_are_there_before_who_needs_them() {
    let mut after = fleet([customer("a", "one", &["h.internal"]), with_database("b"), with_database("c")]);
    after.get_mut("c").unwrap().account = "two".to_owned();
    let runs = explore(&Scenario { before: Fleet::new(), after, faults: FAULTS }, 1);
    assert!(runs > 50, "{runs}");
}

/// Fleets whose databases get their first migrations, and more of them; one worker is as before.
fn migrated() -> (Fleet, Fleet) {
    let with = |name: &str, version: u32, migrations: usize| {
        let (name, desired) = with_database(name);
        (name, DesiredState { version, migrations, ..desired })
    };
    let before = fleet([with("a", 1, 1), with("b", 1, 0), with("d", 1, 1)]);
    (before, fleet([with("a", 2, 4), with("b", 1, 3), with("c", 1, 2), with("d", 1, 3)]))
}

#[test]
fn databases_are_migrated_once_and_in_order_whatever_fails() {
    let (before, after) = migrated();
    let runs = explore(&Scenario { before, after, faults: FAULTS }, 1);
    assert!(runs > 100, "{runs}");
}

#[test]
fn two_lost_answers_of_migrations_are_looked_up() {
    let (_, mut after) = migrated();
    after.retain(|customer, _| customer == "c");
    let runs = explore(
        &Scenario {
            before: Fleet::new(),
            after,
            faults: &[Fault::Lost { applied: true }, Fault::Lost { applied: false }],
        },
        2,
    );
    assert!(runs > 100, "{runs}");
}

#[test]
fn migrations_that_were_killed_anywhere_are_ended_by_the_next_deploy() {
    let (before, after) = migrated();
    let bench = Bench::new();
    bench.deploy(&before);
    bench.calls();
    bench.deploy(&after);
    let calls = bench.calls();
    let migrations = calls.iter().filter(|(words, _)| words.starts_with("migrate "));
    assert_eq!(migrations.count(), 3 + 3 + 2 + 2, "{calls:?}");
    killed_anywhere(&before, &after, calls.len(), |bench| {
        bench.calls();
        assert_eq!(bench.deploy(&after).requests, 0);
    });
}

/// A customer of the account `one` with a domain, whose worker is bound to those of others.
fn binding(name: &str, binds: &[&str]) -> (String, DesiredState) {
    let (name, mut desired) = customer(name, "one", &[&format!("{name}.example.com")]);
    desired.crons = BTreeSet::from(["* * * * *".to_owned()]);
    desired.binds = binds.iter().map(|name| (*name).to_owned()).collect();
    (name, desired)
}

/// Fleets whose new workers are bound to each other: two, three round about with one that needs them and one that they need, two with two
/// that are live, and three that are all bound to each other.
fn cycles_of_bindings() -> [(Fleet, Fleet); 4] {
    let all = fleet([binding("a", &["b", "c"]), binding("b", &["a", "c"]), binding("c", &["a", "b"])]);
    let mut round = fleet([
        binding("a", &["b"]),
        binding("b", &["c", "x"]),
        binding("c", &["a"]),
        binding("x", &[]),
        binding("y", &["a"]),
    ]);
    round.get_mut("b").unwrap().database = true;
    [
        (Fleet::new(), fleet([binding("a", &["b"]), binding("b", &["a"])])),
        (fleet([binding("y", &[])]), round),
        (
            fleet([binding("l", &[]), binding("m", &["l"])]),
            fleet([
                binding("a", &["b", "l"]),
                binding("b", &["a", "m"]),
                binding("l", &["a", "m"]),
                binding("m", &["l"]),
            ]),
        ),
        (Fleet::new(), all),
    ]
}

#[test]
fn who_is_bound_to_each_other_is_complete_before_it_is_called_whatever_fails() {
    for (before, after) in cycles_of_bindings() {
        let runs = explore(&Scenario { before, after, faults: FAULTS }, 1);
        assert!(runs > 40, "{runs}");
    }
    let [(before, after), ..] = cycles_of_bindings();
    let faults = &[Fault::Lost { applied: true }, Fault::Lost { applied: false }, Fault::Rejected];
    let runs = explore(&Scenario { before, after, faults }, 2);
    assert!(runs > 500, "{runs}");
}

#[test]
fn who_is_bound_to_each_other_and_was_killed_anywhere_is_complete_after_the_next_deploy() {
    for (before, after) in cycles_of_bindings() {
        let bench = Bench::new();
        bench.deploy(&before);
        bench.calls();
        let outcome = bench.deploy(&after);
        let calls = bench.calls();
        assert!(calls.iter().all(|(_, done)| *done), "{calls:?}");
        let uploads = calls.iter().filter(|(words, _)| words.starts_with("upload ")).count();
        let firsts = if after.values().all(|desired| desired.binds.len() == 2) { 2 } else { 1 };
        assert_eq!(uploads, outcome.applied + firsts, "{calls:?}");
        killed_anywhere(&before, &after, calls.len(), |bench| {
            bench.calls();
            assert_eq!(bench.deploy(&after).requests, 0);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 200, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    /// Any workers that are bound in any way, some of them live before.
    #[test]
    fn any_bindings_survive_any_run(
        before in prop::collection::vec(prop::option::of(prop::collection::btree_set(0usize..5, 0..3)), 5),
        after in prop::collection::vec(prop::option::weighted(0.9, prop::collection::btree_set(0usize..5, 0..4)), 5),
        choices in prop::collection::vec(prop_oneof![4 => Just(0usize), 1 => 0usize..12], 0..80),
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let fleet_of = |all: Vec<Option<BTreeSet<usize>>>| -> Fleet {
            let there: Vec<bool> = all.iter().map(Option::is_some).collect();
            let bound = |binds: BTreeSet<usize>| -> Vec<&str> {
                binds.into_iter().filter(|other| there[*other]).map(|other| names[other]).collect()
            };
            let workers = all.into_iter().enumerate();
            workers.filter_map(|(at, binds)| Some(binding(names[at], &bound(binds?)))).collect()
        };
        let (before, after) = (fleet_of(before), fleet_of(after));
        run(&Scenario { before, after, faults: FAULTS }, Script { given: choices, chosen: Vec::new() });
    }
}

/// The same fleet over three zones, and two accounts: of the second one are two customers, without hosts.
fn spread(mut fleet: Fleet) -> Fleet {
    for (customer, desired) in &mut fleet {
        desired.routes = desired
            .routes
            .iter()
            .map(|route| match route.as_str() {
                "h3.example.org/*" => "h3.example.net/*".to_owned(),
                "h4.example.org/*" => "h4.example.edu/*".to_owned(),
                route => route.to_owned(),
            })
            .collect();
        if customer.as_str() >= "d" {
            desired.account = "two".to_owned();
            desired.hosts.clear();
        }
    }
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_fleet_survives_any_run(
        before in fleets(),
        after in fleets(),
        choices in prop::collection::vec(prop_oneof![4 => Just(0usize), 1 => 0usize..12], 0..120),
    ) {
        let (before, after) = (spread(before), spread(after));
        run(&Scenario { before, after, faults: FAULTS }, Script { given: choices, chosen: Vec::new() });
    }
}

/// Each name with the worker that has it, if one does, by a route or by a custom domain.
type Owners = [Option<(&'static str, bool)>];

/// The names of which the hosts are made. The last one is of routes alone.
const NAMES: [&str; 3] = ["x.example.com", "y.example.com", "*.example.com"];

/// A fleet of workers that have these names.
fn owning(workers: &[&str], owners: &Owners, version: u32) -> Fleet {
    let named = |worker: &&str| {
        let (name, desired) = customer(worker, "one", &[]);
        (name, DesiredState { version, ..desired })
    };
    let mut fleet: Fleet = workers.iter().map(named).collect();
    for (name, owner) in NAMES.iter().zip(owners) {
        let Some((worker, is_route)) = owner else { continue };
        let Some(desired) = fleet.get_mut(*worker) else { continue };
        match *is_route || name.starts_with('*') {
            true => desired.routes.insert(format!("{name}/*")),
            false => desired.domains.insert((*name).to_owned()),
        };
    }
    fleet
}

/// Deploys what changes hands, with an error at each of its requests, and asserts that no worker loses its last host and that no host is left
/// without a worker. Returns the number of runs; none if the plan refuses it.
fn check_hands(workers: [&[&str]; 2], owners: [&Owners; 2]) -> usize {
    let [before, after] = [0, 1].map(|at| owning(workers[at], owners[at], at as u32 + 1));
    // A domain behind another worker's route has no requests.
    let answering = |fleet: &Fleet| -> BTreeSet<String> {
        let mut world = World::default();
        for (name, desired) in fleet {
            let held = |host: &String| (host.clone(), (String::new(), format!("w-{name}")));
            world.domains.extend(desired.domains.iter().map(held));
            world.routes.extend(desired.routes.iter().map(held));
        }
        world.answers().into_values().collect()
    };
    let keeping: Vec<String> = answering(&before).intersection(&answering(&after)).cloned().collect();
    let deployed = |place: Option<usize>| {
        let (mut bench, mut state) = (Bench::new(), State::in_memory());
        bench.budget = Budget { count: usize::MAX, health: None, ..Budget::default() };
        let deploy = |state: &mut State, fleet: &Fleet| {
            let plan = bench.plan_from(state, fleet);
            assert!(plan.held.iter().all(|held| held.is_refused));
            plan.held.is_empty().then(|| bench.apply(&plan, fleet, state).expect("the state can be written"))
        };
        assert_eq!(deploy(&mut state, &before).expect("nothing changes hands").failed, 0);
        bench.calls();
        {
            let mut log = lock(&bench.fake.log);
            let earlier = log.world.answers();
            let wanted =
                |name: &str| Some(format!("w-{}", owners[1][NAMES.iter().position(|known| *known == name)?]?.0));
            let stays = |(name, old): (String, String)| {
                // With a wildcard among them, another worker may answer in between.
                let has_wildcard = owners.iter().any(|owners| owners.len() > 2);
                let new = wanted(&name).filter(|_| !has_wildcard)?;
                after.contains_key(new.strip_prefix("w-")?).then_some((name, [old, new]))
            };
            log.world.answering = earlier.into_iter().filter_map(stays).collect();
        }
        // A request that fails keeps failing when it is sent again.
        let (count, failing) = (Mutex::new(0), Mutex::new(String::new()));
        *lock(&bench.fake.faults) = Box::new(move |words, _| {
            let (mut count, mut failing) = (lock(&count), lock(&failing));
            if place == Some(*count) {
                words.clone_into(&mut failing);
            }
            *count += 1;
            (*failing == words).then_some(Fault::Rejected)
        });
        let outcome = deploy(&mut state, &after)?;
        assert_eq!(outcome.failed > 0, place.is_some(), "{:?}", outcome.failures);
        let calls = bench.calls().len();
        let world = lock(&bench.fake.log).world.clone();
        for name in &keeping {
            assert!(world.answers().values().any(|worker| worker == name), "{name} has no host left");
        }
        *lock(&bench.fake.faults) = Box::new(|_, _| None);
        lock(&bench.fake.log).world.answering.clear();
        let rest = deploy(&mut state, &after).expect("the rest isn't refused");
        assert_eq!(rest.failed, 0, "{:?}", rest.failures);
        bench.converged_in(&state, &after);
        Some(calls)
    };
    let Some(calls) = deployed(None) else { return 0 };
    (0..calls).for_each(|place| {
        let result = catch_unwind(AssertUnwindSafe(|| deployed(Some(place))));
        assert!(result.is_ok(), "{owners:?} of {workers:?}, an error at request {place}");
    });
    calls
}

/// Two names that two workers have, in all ways in which they change hands and kinds: carried out without harm, or refused.
#[test]
fn hosts_that_change_their_kind_and_their_worker_harm_nobody() {
    let kinds = [("a", false), ("a", true), ("b", false), ("b", true)];
    let (mut runs, mut refused) = (0, 0);
    let pairs = || kinds.iter().flat_map(|one| kinds.iter().map(move |other| [Some(*one), Some(*other)]));
    // What begins with b is the same with other names.
    for before in pairs().filter(|[first, _]| first.is_some_and(|(worker, _)| worker == "a")) {
        for after in pairs().filter(|after| *after != before) {
            match check_hands([&["a", "b"]; 2], [&before, &after]) {
                0 => refused += 1,
                more => runs += more,
            }
        }
    }
    assert!(runs > 500, "{runs}");
    // Each has one name before and the other one afterwards, and at least one name changes its kind.
    assert_eq!(refused, 4 * 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 50, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() })]

    /// The same with a wildcard, three workers, of which some are new and some are deleted.
    #[test]
    fn hosts_that_change_hands_in_any_fleet_harm_nobody(
        before in prop::collection::vec(prop::option::weighted(0.9, (prop::sample::select(vec!["a", "b", "c"]), any::<bool>())), 3),
        after in prop::collection::vec(prop::option::weighted(0.9, (prop::sample::select(vec!["a", "b", "c"]), any::<bool>())), 3),
        workers in prop::collection::vec(prop::sample::select(vec![&["a", "b", "c"][..], &["a", "b"], &["b", "c"], &["a", "b", "c"]]), 2),
    ) {
        check_hands([workers[0], workers[1]], [&before, &after]);
    }
}
