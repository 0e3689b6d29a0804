//! Checks whether deployed workers exist and do what their packs promise: DNS, TLS, and the requests that a pack
//! declares; repeats failed checks until they pass or the time is up. Knows no HTTP, no terminal, and no specs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use flotilla_model::clock::Clock;
use flotilla_model::platform::{HealthCheck, Placeholders};
use flotilla_model::progress::Progress;
use flotilla_model::spec::{Environment, Probe};

/// The number of workers that are checked at once.
const AT_ONCE: usize = 32;
/// The wait before failed checks are repeated for the first time; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The number of days before the end of a certificate from which it is a warning.
const SOON: i64 = 14;
/// The path that returns a worker's health.
const HEALTH: &str = "/health";
/// The variable that holds a worker's digest.
const DIGEST_VARIABLE: &str = "FLOTILLA_DIGEST";
/// The reason why a deployed worker isn't requested: it isn't known what a healthy one answers.
const NO_PROBES: &str = "no request is defined in `verify` of the pack";
/// The number of characters that are shown of a value that differs.
const SHOWN: usize = 40;

/// The seam to the network.
pub trait Web: Sync {
    /// Looks up whether DNS has an address for a host.
    fn resolve(&self, host: &str) -> Result<(), String>;
    /// Returns the time until which the certificate of a host is valid, in seconds since 1970, or the reason why it
    /// can't be trusted.
    fn certificate(&self, host: &str) -> Result<i64, String>;
    /// Returns the answer to a request. Sends no credentials.
    fn get(&self, url: &str) -> Result<Answer, String>;
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as JSON; null, if it is none.
    pub body: Value,
}

/// A worker to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its customer.
    pub customer: String,
    /// Its environment.
    pub environment: Environment,
    /// Its name.
    pub worker: String,
    /// The address at which it answers.
    pub address: Option<String>,
    /// The hosts whose DNS and TLS are checked.
    pub hosts: BTreeSet<String>,
    /// The reason why they aren't, if so.
    pub apart: Option<&'static str>,
    /// The digest that was deployed.
    pub digest: String,
    /// The probes that are sent to it.
    pub probes: Vec<Probe>,
    /// The bindings and variables by which it calls other workers, each with whether the pack behind it declares that
    /// it serves `/health`.
    pub peers: BTreeMap<String, bool>,
    /// The reason why it isn't checked at all.
    pub skip: Option<String>,
}

/// The result of one worker.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its customer.
    pub customer: String,
    /// Its environment.
    pub environment: Environment,
    /// Its name.
    pub worker: String,
    /// The address at which it was checked.
    pub address: Option<String>,
    /// Whether one check failed, all were skipped, or neither.
    pub status: Status,
    /// The reason why no request is sent to it, if so.
    pub not_requested: Option<String>,
    /// The checks in their order.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Its name: `dns`, `tls`, or the pack's name for it.
    pub name: String,
    /// The host, or the path.
    pub of: String,
    /// Its status.
    pub status: Status,
    /// The duration of the last attempt.
    pub seconds: f64,
    /// The message; empty if there is none.
    pub message: String,
}

/// The status of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It passed.
    Passed,
    /// It passed, and will fail soon.
    Warning,
    /// It failed.
    Failed,
    /// It was not made.
    Skipped,
}

impl Status {
    /// Returns whether it needs no further attempt.
    fn is_settled(self) -> bool {
        matches!(self, Status::Passed | Status::Warning)
    }
}

/// Checks all targets, and repeats those that fail, until `deadline` has passed since the first attempts. Returns the
/// reports in the order of the targets.
pub fn verify(
    targets: &[Target],
    web: &dyn Web,
    clock: &dyn Clock,
    deadline: Duration,
    progress: &dyn Progress,
) -> Vec<Report> {
    let reports: Vec<Mutex<Report>> = targets.iter().map(|target| Mutex::new(unasked(target))).collect();
    let mut open: Vec<usize> = (0..targets.len()).collect();
    let (mut wait, mut end) = (FIRST_WAIT, None);
    progress.begin("verifying", Some(open.len() as u64));
    loop {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(open.len()) {
                scope.spawn(|| {
                    while let Some(at) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut report = reports[*at].lock();
                        check_target(&targets[*at], &mut report, web, clock);
                        progress.step(1);
                    }
                });
            }
        });
        open.retain(|at| reports[*at].lock().status == Status::Failed);
        let end = *end.get_or_insert_with(|| clock.now() + deadline);
        let left = end.saturating_sub(clock.now());
        if open.is_empty() || left.is_zero() {
            break;
        }
        progress.begin("waiting for unhealthy workers", Some(open.len() as u64));
        clock.sleep(wait.min(left));
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    progress.end();
    reports.into_iter().map(Mutex::into_inner).collect()
}

/// Returns a report in which every check is pending.
fn unasked(target: &Target) -> Report {
    let check = |name: &str, of: &str| Check {
        name: name.to_owned(),
        of: of.to_owned(),
        status: Status::Skipped,
        seconds: 0.0,
        message: String::new(),
    };
    let hosts = target.hosts.iter().flat_map(|host| [check("dns", host), check("tls", host)]);
    let mut checks: Vec<Check> = hosts.chain(probes(target).map(|probe| check(&probe.name, &probe.path))).collect();
    for check in &mut checks {
        let of_host = !check.of.starts_with('/');
        let why = target.skip.as_deref().or(target.apart.filter(|_| of_host));
        check.message = why.unwrap_or_default().to_owned();
    }
    Report {
        customer: target.customer.clone(),
        environment: target.environment,
        worker: target.worker.clone(),
        address: target.address.clone(),
        status: Status::Skipped,
        not_requested: target.skip.clone().or_else(|| probes(target).next().is_none().then(|| NO_PROBES.to_owned())),
        checks,
    }
}

/// Returns the probes of a worker: without those about peers, if it calls none.
fn probes(target: &Target) -> impl Iterator<Item = &Probe> {
    target.probes.iter().filter(|probe| probe.peers != Some(true) || !target.peers.is_empty())
}

/// Makes the checks of a worker that aren't settled yet.
fn check_target(target: &Target, report: &mut Report, web: &dyn Web, clock: &dyn Clock) {
    if target.skip.is_some() {
        return;
    }
    let own_host = target.address.as_deref().map(host_of);
    // What can't be reached isn't asked further: each attempt would take its time.
    let mut unreachable: Option<String> = None;
    let mut checks = std::mem::take(&mut report.checks);
    let (of_hosts, of_worker) = checks.split_at_mut(2 * target.hosts.len());
    for (host, pair) in target.hosts.iter().zip(of_hosts.chunks_mut(2)) {
        if target.apart.is_some() {
            break;
        }
        let [dns, tls] = pair else { unreachable!("BUG: two checks for each host") };
        timed(dns, clock, || web.resolve(host).map(|()| None));
        if dns.status == Status::Failed {
            skipped(tls, "DNS has no address");
        } else {
            timed(tls, clock, || web.certificate(host).and_then(|until| expiry(until, clock.unix())));
        }
        let failed = [&*dns, &*tls].into_iter().find(|check| check.status == Status::Failed);
        if let (Some(failed), true) = (failed, own_host == Some(host)) {
            unreachable = Some(format!("{} failed", failed.name.to_uppercase()));
        }
    }
    for (probe, check) in probes(target).zip(of_worker) {
        let Some(address) = &target.address else {
            skipped(check, "it has no address of its own");
            continue;
        };
        if check.status.is_settled() {
            continue;
        }
        if let Some(why) = &unreachable {
            skipped(check, why);
            continue;
        }
        let url = format!("{}{}", address.trim_end_matches('/'), probe.path);
        timed(check, clock, || {
            let answer = web.get(&url).inspect_err(|_| unreachable = Some("it doesn't answer".to_owned()))?;
            judged(target, probe, &answer).map(|()| None)
        });
    }
    let any = |status: Status| checks.iter().any(|check| check.status == status);
    report.status = if any(Status::Failed) {
        Status::Failed
    } else if any(Status::Warning) {
        Status::Warning
    } else if any(Status::Passed) {
        Status::Passed
    } else {
        Status::Skipped
    };
    report.checks = checks;
}

fn skipped(check: &mut Check, why: &str) {
    (check.status, check.message) = (Status::Skipped, why.to_owned());
}

/// Makes a check, unless it is settled. A success with a message is a warning.
fn timed(check: &mut Check, clock: &dyn Clock, make: impl FnOnce() -> Result<Option<String>, String>) {
    if check.status.is_settled() {
        return;
    }
    let start = clock.now();
    (check.status, check.message) = match make() {
        Ok(None) => (Status::Passed, String::new()),
        Ok(Some(warning)) => (Status::Warning, warning),
        Err(why) => (Status::Failed, why),
    };
    check.seconds = clock.now().saturating_sub(start).as_secs_f64();
}

/// Returns a warning if a certificate expires soon, and an error if it has expired.
fn expiry(until: i64, now: i64) -> Result<Option<String>, String> {
    match (until - now).div_euclid(86_400) {
        ..0 => Err("the certificate has expired".to_owned()),
        0 => Ok(Some("the certificate expires today".to_owned())),
        1 => Ok(Some("the certificate expires in a day".to_owned())),
        days if days < SOON => Ok(Some(format!("the certificate expires in {days} days"))),
        _ => Ok(None),
    }
}

/// The host of an address.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

/// Checks whether an answer is what a health check expects; the error is the difference.
pub fn judge_health(check: &HealthCheck, answer: &Answer) -> Result<(), String> {
    judge_answer(&check.placeholders, &check.probe, answer)
}

/// Checks whether an answer is what the probe expects; the error is the difference.
fn judged(target: &Target, probe: &Probe, answer: &Answer) -> Result<(), String> {
    judge_answer(&placeholders(target), probe, answer)?;
    if probe.peers == Some(true) { peers(target, &answer.body) } else { Ok(()) }
}

fn placeholders(target: &Target) -> Placeholders {
    Placeholders {
        worker: target.worker.clone(),
        customer: target.customer.clone(),
        environment: target.environment.to_string(),
        digest: target.digest.clone(),
    }
}

fn judge_answer(placeholders: &Placeholders, probe: &Probe, answer: &Answer) -> Result<(), String> {
    let wanted = probe.status.unwrap_or(200);
    if answer.status != wanted && !(probe.peers == Some(true) && answer.status == 503) {
        let reported = answer.body["status"].as_str().map(|word| format!(", {}", truncated(word))).unwrap_or_default();
        let failing_checks = failing_checks(&answer.body).map(|names| format!(": {names}")).unwrap_or_default();
        return Err(format!("HTTP {} instead of {wanted}{reported}{failing_checks}", answer.status));
    }
    if probe.json.is_some() && !answer.body.is_object() {
        return Err("the response is not a JSON object".to_owned());
    }
    for (key, pattern) in probe.json.iter().flatten() {
        differs(placeholders, pattern, &answer.body[key], key)?;
    }
    Ok(())
}

/// Returns the worker's own checks that it reports as failed.
fn failing_checks(body: &Value) -> Option<String> {
    let failing = body["checks"].as_object()?.iter().filter(|(_, check)| check["ok"] == false);
    let name = |(name, check): (&String, &Value)| {
        let missing: Vec<&str> = check["missing"].as_array()?.iter().filter_map(Value::as_str).collect();
        Some(if missing.is_empty() { name.clone() } else { format!("{name} (missing: {})", missing.join(", ")) })
    };
    let names: Vec<String> = failing.map(|entry| name(entry).unwrap_or_else(|| entry.0.clone())).collect();
    (!names.is_empty()).then(|| truncated(&names.join(", ")))
}

/// Returns where a value doesn't match a pattern: a map has to have at least the pattern's keys, a list the pattern's
/// entries.
fn differs(names: &Placeholders, pattern: &Value, value: &Value, path: &str) -> Result<(), String> {
    match (pattern, value) {
        (Value::Object(wanted), Value::Object(is)) => wanted.iter().try_for_each(|(key, pattern)| {
            differs(names, pattern, is.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"))
        }),
        (Value::Array(wanted), Value::Array(is)) => wanted.iter().enumerate().try_for_each(|(index, pattern)| {
            differs(names, pattern, is.get(index).unwrap_or(&Value::Null), &format!("{path}[{index}]"))
        }),
        (Value::String(text), _) => {
            let wanted = text
                .replace("{worker}", &names.worker)
                .replace("{customer}", &names.customer)
                .replace("{environment}", &names.environment)
                .replace("{digest}", &names.digest);
            match value.as_str() {
                Some(is) if is == wanted => Ok(()),
                // Whatever is deployed, such code doesn't show it.
                is if text == "{digest}" && is.is_none_or(str::is_empty) => {
                    Err(format!("{path} is missing: the worker's code doesn't return {DIGEST_VARIABLE} there"))
                }
                None if value.is_null() => Err(format!("{path} is missing")),
                Some(is) if is.len() == 64 => Err(format!("{path} is {:.16}, not {wanted:.16}", truncated(is))),
                Some(is) => Err(format!("{path} is {}, not {wanted}", truncated(is))),
                None => Err(format!("{path} is {}, not {wanted}", truncated(&value.to_string()))),
            }
        }
        (Value::Object(_), _) => Err(format!("{path} is not a map")),
        (Value::Array(_), _) => Err(format!("{path} is not a list")),
        _ if pattern == value => Ok(()),
        _ => Err(format!("{path} is {}, not {pattern}", truncated(&value.to_string()))),
    }
}

/// Returns a foreign text, cut to the length that is shown.
fn truncated(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Checks what a worker reports of those that it calls.
fn peers(target: &Target, body: &Value) -> Result<(), String> {
    let Some(list) = body["peers"].as_array() else {
        return Err("it reports nothing about the workers that it calls".to_owned());
    };
    let missing = |name: &&String| list.iter().all(|peer| peer["name"].as_str() != Some(name.as_str()));
    let mut wrong: Vec<String> = target.peers.keys().filter(missing).map(|name| format!("{name}: not asked")).collect();
    for peer in list {
        let name = peer["name"].as_str().unwrap_or_default();
        let answered = peer["http"].as_u64();
        // Of a pack that serves no health, any answer shows that the call arrives.
        let serves = target.peers.get(name).copied().unwrap_or(true);
        if peer["ok"] == true || (!serves && answered.is_some_and(|status| status < 500)) {
            continue;
        }
        let why = match (peer["error"].as_str(), answered, peer["status"].as_str()) {
            (Some(error), _, _) => truncated(error).to_lowercase(),
            (None, Some(status), Some(word)) => format!("HTTP {status}, {}", truncated(word)),
            (None, Some(status), None) => format!("HTTP {status}"),
            (None, None, _) => "no answer".to_owned(),
        };
        wrong.push(format!("{}: {why}", truncated(name)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// Returns whether a pack's workers report their health.
pub fn serves_health(probes: &[Probe]) -> bool {
    probes.iter().any(|probe| probe.path == HEALTH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use flotilla_model::clock::FakeClock;
    use flotilla_model::progress::Silent;

    /// An answer, and from when on it is given.
    type At = (u64, Result<Answer, String>);

    /// The network's answers.
    #[derive(Default)]
    struct Fake {
        clock: FakeClock,
        answers: BTreeMap<String, Vec<At>>,
        certificates: BTreeMap<String, Result<i64, String>>,
        asked: Mutex<Vec<String>>,
    }

    impl Fake {
        fn note(&self, what: String) {
            self.asked.lock().push(what);
        }
    }

    impl Web for Fake {
        fn resolve(&self, host: &str) -> Result<(), String> {
            self.note(format!("dns {host}"));
            self.certificates.contains_key(host).then_some(()).ok_or_else(|| "no address".to_owned())
        }
        fn certificate(&self, host: &str) -> Result<i64, String> {
            self.note(format!("tls {host}"));
            self.certificates[host].clone()
        }
        fn get(&self, url: &str) -> Result<Answer, String> {
            self.note(format!("get {url}"));
            self.clock.sleep(Duration::from_millis(10));
            let now = self.clock.now().as_secs();
            let all = self.answers.get(url).map(Vec::as_slice).unwrap_or_default();
            let found = all.iter().rev().find(|(from, _)| *from <= now);
            found.map_or_else(|| Err("no connection".to_owned()), |(_, answer)| answer.clone())
        }
    }

    fn probe(name: &str, path: &str, json: Value) -> Probe {
        serde_json::from_value(json!({"name": name, "path": path, "json": json})).unwrap()
    }

    fn target() -> Target {
        let host = "a.example.com".to_owned();
        let wanted =
            json!({"status": "healthy", "worker": "{worker}", "environment": "{environment}", "digest": "{digest}"});
        Target {
            customer: "acme".to_owned(),
            environment: Environment::Production,
            worker: "t-acme".to_owned(),
            address: Some(format!("https://{host}/")),
            hosts: BTreeSet::from([host]),
            apart: None,
            digest: "d1".to_owned(),
            probes: vec![probe("health", "/health", wanted)],
            peers: BTreeMap::new(),
            skip: None,
        }
    }

    const URL: &str = "https://a.example.com/health";
    const DAY: i64 = 86_400;

    fn answer(status: u16, body: Value) -> Result<Answer, String> {
        Ok(Answer { status, body })
    }

    fn healthy(digest: &str) -> Result<Answer, String> {
        answer(200, json!({"status": "healthy", "worker": "t-acme", "environment": "production", "digest": digest}))
    }

    fn fake(answers: Vec<At>) -> Fake {
        let mut fake = Fake::default();
        fake.answers.insert(URL.to_owned(), answers);
        fake.certificates.insert("a.example.com".to_owned(), Ok(1_800_000_000 + 90 * DAY));
        fake
    }

    fn run(target: &Target, fake: &Fake, deadline: u64) -> Report {
        let targets = std::slice::from_ref(target);
        verify(targets, fake, &fake.clock, Duration::from_secs(deadline), &Silent).remove(0)
    }

    fn lines(report: &Report) -> Vec<String> {
        let line = |check: &Check| format!("{} {:?} {}", check.name, check.status, check.message).trim_end().to_owned();
        report.checks.iter().map(line).collect()
    }

    #[test]
    fn a_worker_that_is_well_is_asked_once() {
        let fake = fake(vec![(0, healthy("d1"))]);
        let report = run(&target(), &fake, 60);
        assert_eq!(report.status, Status::Passed);
        assert_eq!(lines(&report), ["dns Passed", "tls Passed", "health Passed"]);
        assert_eq!(report.checks[2].seconds, 0.01);
        assert_eq!(*fake.asked.lock(), ["dns a.example.com", "tls a.example.com", &format!("get {URL}")]);
    }

    #[test]
    fn who_is_not_well_yet_is_asked_again_and_nothing_else_is() {
        let fake = fake(vec![(0, Err("no connection".to_owned())), (5, healthy("old")), (20, healthy("d1"))]);
        assert_eq!(run(&target(), &fake, 60).status, Status::Passed);
        let asked = fake.asked.lock();
        assert_eq!(asked.iter().filter(|what| what.starts_with("get")).count(), 7, "{asked:?}");
        assert_eq!(asked.iter().filter(|what| what.starts_with("dns")).count(), 1);
        assert!((20..30).contains(&fake.clock.now().as_secs()));
    }

    #[test]
    fn at_the_deadline_the_last_reason_counts() {
        let fake = fake(vec![(0, Err("no connection".to_owned())), (5, healthy("old"))]);
        let report = run(&target(), &fake, 30);
        assert_eq!(lines(&report)[2], "health Failed digest is old, not d1");
        assert!((30..31).contains(&fake.clock.now().as_secs()));
        let once = super::tests::fake(vec![(0, healthy("old")), (1, healthy("d1"))]);
        assert_eq!(run(&target(), &once, 0).status, Status::Failed);
        assert_eq!(once.asked.lock().len(), 3);
    }

    #[test]
    fn what_a_host_lacks_is_told_and_nobody_waits_for_the_rest() {
        let mut nowhere = fake(vec![(0, healthy("d1"))]);
        nowhere.certificates.clear();
        let report = run(&target(), &nowhere, 0);
        let expected = ["dns Failed no address", "tls Skipped DNS has no address", "health Skipped DNS failed"];
        assert_eq!(lines(&report), expected);
        for (until, reported) in [
            (-DAY, "tls Failed the certificate has expired"),
            (DAY / 2, "tls Warning the certificate expires today"),
            (DAY, "tls Warning the certificate expires in a day"),
            (13 * DAY, "tls Warning the certificate expires in 13 days"),
            (14 * DAY, "tls Passed"),
        ] {
            let mut fake = fake(vec![(0, healthy("d1"))]);
            fake.certificates.insert("a.example.com".to_owned(), Ok(1_800_000_000 + until));
            assert_eq!(lines(&run(&target(), &fake, 0))[1], reported);
        }
        // Another host than the one that it is asked at.
        let mut two = target();
        two.hosts.insert("b.example.com".to_owned());
        let expected = lines(&run(&two, &fake(vec![(0, healthy("d1"))]), 0));
        assert_eq!(expected[2..], ["dns Failed no address", "tls Skipped DNS has no address", "health Passed"]);
    }

    #[test]
    fn why_an_answer_is_not_the_one_that_is_wanted() {
        let failing_checks = json!({"status": "degraded", "checks": {
            "secrets": {"ok": false, "missing": ["A", "B"]}, "database": {"ok": true}, "hosts": {"ok": false}
        }});
        let hostile = "\u{1b}".to_owned() + &"x".repeat(100);
        for (given, reported) in [
            (
                answer(503, failing_checks),
                "HTTP 503 instead of 200, degraded: hosts, secrets (missing: A, B)".to_owned(),
            ),
            (answer(404, Value::Null), "HTTP 404 instead of 200".to_owned()),
            (answer(200, json!("text")), "the response is not a JSON object".to_owned()),
            (
                answer(200, json!({"digest": "d1", "environment": hostile})),
                format!("environment is {}…, not production", &hostile[..40]),
            ),
            (Err("no response in time".to_owned()), "no response in time".to_owned()),
        ] {
            let report = run(&target(), &fake(vec![(0, given)]), 0);
            assert_eq!(report.checks[2].message, reported);
        }
        let differs = |pattern: Value, value: Value| {
            super::differs(&placeholders(&target()), &pattern, &value, "p").err().unwrap_or_default()
        };
        assert_eq!(differs(json!([]), json!([1])), "");
        assert_eq!(differs(json!([]), json!({})), "p is not a list");
        assert_eq!(differs(json!({"a": {"b": true}}), json!({"a": {"b": true, "c": 1}})), "");
        assert_eq!(differs(json!({"a": {"b": true}}), json!({"a": {}})), "p.a.b is null, not true");
        assert_eq!(differs(json!([{"x": 1}]), json!([{"x": 2}])), "p[0].x is 2, not 1");
        assert_eq!(differs(json!("a"), json!(1)), "p is 1, not a");
        // Whatever is deployed, such code doesn't show it.
        for nothing in [Value::Null, json!("")] {
            let why = "p is missing: the worker's code doesn't return FLOTILLA_DIGEST there";
            assert_eq!(differs(json!("{digest}"), nothing), why);
        }
        assert_eq!(differs(json!("{worker}"), Value::Null), "p is missing");
    }

    #[test]
    fn peers_are_asked_for_where_there_are_some() {
        let mut caller = target();
        caller.probes =
            vec![serde_json::from_value(json!({"name": "peers", "path": "/health", "peers": true})).unwrap()];
        let lines_of = |target: &Target, peers: Value| {
            let fake = fake(vec![(0, answer(503, json!({"status": "degraded", "peers": peers})))]);
            lines(&run(target, &fake, 0)).get(2).cloned().unwrap_or_default()
        };
        assert_eq!(lines_of(&caller, json!([])), "", "it calls nobody");
        caller.peers = BTreeMap::from([("AUTH".to_owned(), true), ("OLD".to_owned(), false)]);
        let old = json!({"name": "OLD", "ok": false, "http": 404});
        assert_eq!(lines_of(&caller, json!([{"name": "AUTH", "ok": true, "http": 200}, old])), "peers Passed");
        let down = json!([{"name": "AUTH", "ok": false, "http": 503, "status": "degraded"}, old]);
        assert_eq!(lines_of(&caller, down), "peers Failed AUTH: HTTP 503, degraded");
        let silent = json!([{"name": "AUTH", "ok": false, "error": "No answer"}]);
        assert_eq!(lines_of(&caller, silent), "peers Failed OLD: not asked; AUTH: no answer");
        assert_eq!(lines_of(&caller, Value::Null), "peers Failed it reports nothing about the workers that it calls");
    }

    #[test]
    fn who_is_not_asked_says_why() {
        let fake = fake(vec![(0, healthy("d1"))]);
        let mut apart = target();
        apart.apart = Some("elsewhere");
        assert_eq!(lines(&run(&apart, &fake, 0)), ["dns Skipped elsewhere", "tls Skipped elsewhere", "health Passed"]);
        let mut skip = target();
        skip.skip = Some("not deployed".to_owned());
        let report = run(&skip, &fake, 60);
        assert_eq!((report.status, lines(&report)[2].as_str()), (Status::Skipped, "health Skipped not deployed"));
        let mut nowhere = target();
        (nowhere.address, nowhere.hosts) = (None, BTreeSet::new());
        assert_eq!(lines(&run(&nowhere, &fake, 60)), ["health Skipped it has no address of its own"]);
    }
}
