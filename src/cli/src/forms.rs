//! The forms of a plan: for people, as JSON, and as Markdown for a pull request. Makes no choice about what is done.

mod hunks;
mod markdown;

use std::collections::BTreeMap;

use serde::Serialize;

use flotilla_deploy::plan::{Action, Change, Held, HostChange, Orphan, Plan};
use flotilla_deploy::refresh::Finding;
use flotilla_model::digest::Digest;
use flotilla_model::limits::grouped;
use flotilla_model::listing;

use super::prices::{self, Price, eta};
use super::refresh;
use super::report::count;
use super::ui::{Style, Ui, clean, duration};

use hunks::{Hunks, hunks};

/// So many changes are told one by one; of more, what they have in common.
const FEW: usize = 20;
/// So many lines of a kind at the most.
const LINES: usize = 20;
/// So many names in a line.
const NAMES: usize = 12;
/// So many examples of a hunk.
const EXAMPLES: usize = 3;
/// So many reasons of a change.
const REASONS: usize = 12;
/// So many characters of a reason.
const LONGEST: usize = 300;

/// A plan and what is told with it.
pub struct Form<'a> {
    pub plan: &'a Plan,
    /// What it costs; what takes longest first.
    pub prices: Vec<Price>,
    /// What the cloud has otherwise than the state or the specs, if it was asked.
    pub findings: &'a [Finding],
    /// The accounts whose ids aren't known here.
    pub unknown: Vec<&'a str>,
    /// Whether it is for the Cloudflare on this machine.
    pub local: bool,
}

/// A plan as JSON.
#[derive(Serialize)]
pub struct Report<'a> {
    create: usize,
    update: usize,
    delete: usize,
    unchanged: usize,
    requests: usize,
    eta_seconds: f64,
    digest: Digest,
    changes: &'a [Change],
    hosts: &'a [HostChange],
    held: &'a [Held],
    orphans: &'a [Orphan],
    /// With --refresh.
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    findings: &'a [Finding],
    waves: Vec<WaveReport<'a>>,
    lanes: &'a [Price],
    groups: Vec<GroupReport>,
}

#[derive(Serialize)]
struct WaveReport<'a> {
    name: &'a str,
    changes: usize,
}

/// What many changes have in common.
#[derive(Serialize)]
struct GroupReport {
    action: Action,
    reason: String,
    /// Whether all have the reason word for word.
    alike: bool,
    workers: usize,
    examples: Vec<String>,
}

impl Form<'_> {
    /// The plan as JSON.
    pub fn report(&self) -> Report<'_> {
        let plan = self.plan;
        let [create, update, delete] = self.counts();
        let groups = hunks(&plan.changes).common.into_iter().map(|hunk| GroupReport {
            action: hunk.action,
            workers: hunk.members.len(),
            examples: hunk.members.iter().take(EXAMPLES).map(|change| change.worker.clone()).collect(),
            alike: hunk.alike,
            reason: hunk.reason,
        });
        let waves = plan.waves.iter().zip(plan.sizes()).map(|(name, changes)| WaveReport { name, changes });
        Report {
            create,
            update,
            delete,
            unchanged: plan.unchanged,
            requests: self.requests(),
            eta_seconds: eta(&self.prices),
            digest: plan.digest,
            changes: &plan.changes,
            hosts: &plan.hosts,
            held: &plan.held,
            orphans: &plan.orphans,
            findings: self.findings,
            waves: waves.collect(),
            lanes: &self.prices,
            groups: groups.collect(),
        }
    }

    /// The plan for people: a page, however many changes there are, unless it is to be all of it. With `hints`: what to run next.
    pub fn text(&self, ui: &Ui, full: bool, hints: bool) -> String {
        let plan = self.plan;
        let mut lines = refresh::text(ui, self.findings);
        if full || plan.changes.len() <= FEW {
            lines.extend(plan.changes.iter().map(|change| one(ui, change, &reasons(change), full)));
        } else {
            lines.extend(together(ui, &hunks(&plan.changes)));
        }
        let most = |most: usize| if full { usize::MAX } else { most };
        lines.extend(hosts(ui, &plan.hosts, most(NAMES)));
        lines.extend(self.held(ui, most(LINES), most(NAMES)));
        if !plan.orphans.is_empty() {
            let some = names(plan.orphans.iter().map(|orphan| orphan.worker.as_str()), most(NAMES));
            lines.push(format!(
                "{} orphan {} deployed that no spec owns: {some}; --prune deletes",
                ui.paint(Style::Warning, "!"),
                count(plan.orphans.len(), "worker"),
            ));
        }
        if plan.is_empty() {
            lines.push(format!("nothing to deploy: {} as they should be", count(plan.unchanged, "worker")));
            return lines.join("\n");
        }
        if hints && !self.unknown.is_empty() {
            lines.push(format!(
                "{} the id of {} is not set here, so that nothing counts as deployed there",
                ui.paint(Style::Warning, "!"),
                names(self.unknown.iter().copied(), most(NAMES))
            ));
        }
        if plan.waves.len() > 1 {
            let waves = plan.waves.iter().zip(plan.sizes());
            let waves: Vec<String> =
                waves.map(|(name, changes)| format!("{} {}", clean(name), grouped(changes as u64))).collect();
            lines.push(format!("waves: {}", first(&waves, most(NAMES), " → ")));
        }
        lines.extend(prices::text(&self.prices));
        let [create, update, delete] = self.counts().map(|number| grouped(number as u64));
        let hosts = match plan.hosts.len() {
            0 => String::new(),
            number => format!(", {}", count(number, "host")),
        };
        lines.push(format!(
            "plan: {create} to create, {update} to update, {delete} to delete, {} unchanged{hosts} · {} · about {}",
            grouped(plan.unchanged as u64),
            requests(self.requests()),
            duration(eta(&self.prices))
        ));
        if hints {
            let local = if self.local { "--local" } else { "--yes" };
            lines.push(format!(
                "`flotilla deploy {local}` applies it; --digest {} this one and no other",
                plan.digest.short()
            ));
        }
        lines.join("\n")
    }

    fn counts(&self) -> [usize; 3] {
        [Action::Create, Action::Update, Action::Delete].map(|action| self.plan.count(action))
    }

    fn requests(&self) -> usize {
        self.plan.requests().values().sum()
    }

    /// Who is left alone, by why.
    fn held(&self, ui: &Ui, most: usize, most_names: usize) -> Vec<String> {
        let held = by_reason(&self.plan.held);
        let mut lines: Vec<String> = held
            .iter()
            .take(most)
            .map(|(reason, customers)| {
                let some = names(customers.iter().copied(), most_names);
                format!("{} held   {some}  ({})", ui.paint(Style::Dim, "="), clean(reason))
            })
            .collect();
        if held.len() > most {
            lines.push(format!("… and held for {} reasons more", grouped((held.len() - most) as u64)));
        }
        lines
    }
}

/// The hosts that are to lead elsewhere: a line each, or for many of one kind.
fn hosts(ui: &Ui, changes: &[HostChange], most: usize) -> Vec<String> {
    let mut kinds: BTreeMap<(&str, Action), Vec<&HostChange>> = BTreeMap::new();
    for change in changes {
        let kind = match (&change.from, &change.to) {
            (_, None) => Action::Delete,
            (None, Some(_)) => Action::Create,
            (Some(_), Some(_)) => Action::Update,
        };
        kinds.entry((&change.table, kind)).or_default().push(change);
    }
    let mut lines = Vec::new();
    for ((table, kind), changes) in kinds {
        let sign = sign(ui, kind);
        if changes.len() > most {
            let some: Vec<&str> = changes.iter().take(EXAMPLES).map(|change| change.host.as_str()).collect();
            let what = match kind {
                Action::Create => "lead to their workers",
                Action::Update => "lead to other workers",
                Action::Delete => "lead nowhere any more",
            };
            lines.push(format!(
                "{sign} host   {} ({}, …) {what}  ({table})",
                count(changes.len(), "host"),
                some.join(", ")
            ));
            continue;
        }
        for change in changes {
            let way = match (&change.from, &change.to) {
                (Some(from), Some(to)) if from != to => format!("{from} → {to}"),
                (_, Some(to)) => format!("→ {to}"),
                (from, None) => format!("{} →", from.as_deref().unwrap_or_default()),
            };
            lines.push(format!("{sign} host   {}  {way}  ({table})", change.host));
        }
    }
    lines
}

/// Who is held, by why.
fn by_reason(held: &[Held]) -> Vec<(&str, Vec<&str>)> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in held {
        reasons.entry(&one.reason).or_default().push(&one.customer);
    }
    reasons.into_iter().collect()
}

/// A change's reasons.
fn reasons(change: &Change) -> Vec<&str> {
    change.reasons.iter().map(String::as_str).collect()
}

/// A change as a line.
fn one(ui: &Ui, change: &Change, reasons: &[&str], full: bool) -> String {
    let told = match full {
        true => reasons.join("; "),
        false => first(&reasons.iter().map(|reason| short(reason)).collect::<Vec<_>>(), REASONS, "; "),
    };
    let action = change.action.as_str();
    let (worker, customer, environment) = (clean(&change.worker), clean(&change.customer), change.environment);
    format!("{} {action:<7}{worker}  ({customer} · {environment})  {}", sign(ui, change.action), clean(&told))
}

/// Changes by what they have in common; those that have reasons of their own beside, below.
fn together(ui: &Ui, hunks: &Hunks<'_>) -> Vec<String> {
    let mut lines: Vec<String> = hunks
        .common
        .iter()
        .take(LINES)
        .map(|hunk| {
            let (number, some) = (hunk.members.len(), hunk.members.iter().take(EXAMPLES));
            let some: Vec<String> = some.map(|change| clean(&change.worker)).collect();
            let more = if number > EXAMPLES { ", …" } else { "" };
            let action = hunk.action.as_str();
            let head = format!("{} {action:<7}{} workers", sign(ui, hunk.action), grouped(number as u64));
            format!("{head}  {}  ({}{more})", clean(&short(&hunk.reason)), some.join(", "))
        })
        .collect();
    if hunks.common.len() > LINES {
        lines.push(format!("… and {} reasons more; --full shows all", grouped((hunks.common.len() - LINES) as u64)));
    }
    if hunks.own.is_empty() {
        return lines;
    }
    if !hunks.common.is_empty() {
        let others = if hunks.own.len() == 1 {
            "1 differs:".to_owned()
        } else {
            format!("{} differ:", grouped(hunks.own.len() as u64))
        };
        lines.push(others);
    }
    lines.extend(hunks.own.iter().take(LINES).map(|(change, reasons)| one(ui, change, reasons, false)));
    if hunks.own.len() > LINES {
        let more = hunks.own.len() - LINES;
        lines.push(format!("{}; --full shows all, `flotilla plan CUSTOMER` one", listing::and_more(more)));
    }
    lines
}

/// The first of some words, and how many more there are.
fn first(words: &[impl AsRef<str>], most: usize, between: &str) -> String {
    let some: Vec<&str> = words.iter().take(most).map(AsRef::as_ref).collect();
    let more = words.len() - some.len();
    let more = if more > 0 { format!("{between}… {} more", grouped(more as u64)) } else { String::new() };
    some.join(between) + &more
}

/// The first of some names, and how many more there are.
fn names<'a>(names: impl Iterator<Item = &'a str>, most: usize) -> String {
    listing::names(&names.map(clean).collect::<Vec<_>>(), most)
}

/// A reason that isn't too long for a line.
fn short(reason: &str) -> String {
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

fn requests(number: usize) -> String {
    if number == 1 { "1 request".to_owned() } else { format!("{} requests", grouped(number as u64)) }
}

fn sign(ui: &Ui, action: Action) -> String {
    match action {
        Action::Create => ui.paint(Style::Good, "+"),
        Action::Update => ui.paint(Style::Warning, "~"),
        Action::Delete => ui.paint(Style::Error, "-"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use flotilla_model::spec::Environment;

    /// A change of the customer with this number.
    pub fn change(at: usize, action: Action, reasons: &[&str]) -> Change {
        let mut change = Change::made_up(&format!("c{at}"), action);
        change.reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
        change
    }

    pub fn plan(changes: Vec<Change>) -> Plan {
        let digest = Digest::of(b"plan");
        let waves = vec!["the rest".to_owned()];
        Plan { changes, hosts: Vec::new(), unchanged: 3, held: Vec::new(), orphans: Vec::new(), waves, digest }
    }

    pub fn price(account: &str, requests: usize, used: u64) -> Price {
        let accounts = vec![account.to_owned()];
        let (limit, window_seconds) = (1140, 300.0);
        Price { accounts, requests, seconds: requests as f64, used, limit, window_seconds, blocked_seconds: 0.0 }
    }

    pub fn form(plan: &Plan) -> Form<'_> {
        let price = Price { seconds: 90.0, ..price("default", plan.requests().values().sum(), 0) };
        Form { plan, prices: vec![price], findings: &[], unknown: Vec::new(), local: false }
    }

    fn text(plan: &Plan, full: bool) -> String {
        form(plan).text(&Ui::new(true, false), full, true)
    }

    /// A hundred thousand changes of all kinds, and names that nobody should choose.
    pub fn hundred_thousand() -> Plan {
        let hostile = "-->`</code></details><script>alert(1)</script>|@everyone\n\n# a\u{1b}[31m &#96; ![x](y) \\";
        let changes = (0..100_000usize).map(|at| {
            let mine = format!("customers/c{at}.yaml:3:19 vars.N{} \"{at}\" → \"{hostile}\"", at % 7000);
            let domain = format!("domain c{at}.example added");
            let long = format!("{}{at}", "x".repeat(2000));
            match at % 10 {
                0 => change(at, Action::Create, &["it is new", "workers.dev on", &domain]),
                1 => change(at, Action::Update, &["the runtime changed", &mine, &long]),
                2 => change(at, Action::Delete, &["no spec owns it any more"]),
                _ => change(at, Action::Update, &["the runtime changed"]),
            }
        });
        let mut plan = plan(changes.collect());
        for at in 0..1000 {
            plan.changes[at].worker = format!("{hostile}{at}");
            plan.changes[at].customer = format!("{hostile}{at}");
            let (customer, reason) = (format!("{hostile}{at}"), format!("{hostile}{}", at % 300));
            plan.held.push(Held { customer, environment: None, reason });
            let orphan = format!("{hostile}{at}");
            plan.orphans.push(Orphan {
                worker: orphan.clone(),
                customer: orphan,
                environment: Environment::Production,
            });
        }
        plan.waves = (0..300).map(|at| format!("{hostile}{at}")).collect();
        plan
    }

    #[test]
    fn few_changes_are_told_one_by_one() {
        let plan = plan((0..FEW).map(|at| change(at, Action::Update, &["the runtime changed", "crons *"])).collect());
        let text = text(&plan, false);
        assert_eq!(text.matches("the runtime changed; crons *").count(), FEW, "{text}");
        assert!(text.contains("~ update t-c0  (c0 · production)  the runtime changed; crons *\n"), "{text}");
        assert!(text.contains(
            "\nplan: 0 to create, 20 to update, 0 to delete, 3 unchanged · 20 requests · about 1 min 30 s\n"
        ));
    }

    #[test]
    fn of_many_changes_what_they_have_in_common_is_told_once() {
        let mut changes: Vec<Change> =
            (0..9812).map(|at| change(at, Action::Update, &["the runtime changed"])).collect();
        for (at, own) in [(3, "vars.A \"1\" → \"2\""), (5, "secret KEY changed"), (9000, "domain a.example added")] {
            changes[at].reasons.push(own.to_owned());
        }
        changes.push(change(9812, Action::Create, &["it is new"]));
        let text = text(&plan(changes), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "~ update 9,812 workers  the runtime changed  (t-c0, t-c1, t-c2, …)",
                "4 differ:",
                "~ update t-c3  (c3 · production)  vars.A \"1\" → \"2\"",
                "~ update t-c5  (c5 · production)  secret KEY changed",
                "~ update t-c9000  (c9000 · production)  domain a.example added",
                "+ create t-c9812  (c9812 · production)  it is new",
            ]
        );
        assert_eq!(lines.len(), 8, "{text}");
    }

    #[test]
    fn a_page_is_enough_for_a_hundred_thousand_changes_and_full_shows_all() {
        let plan = hundred_thousand();
        let start = Instant::now();
        let page = text(&plan, false);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert!(page.lines().count() < 100 && page.len() < 64 << 10, "{} lines, {}", page.lines().count(), page.len());
        assert!(!page.contains('\u{1b}'), "a terminal is driven");
        assert!(page.contains("~ update 80,000 workers  the runtime changed  ("), "{page}");
        assert!(page.contains("+ create 10,000 workers  domain … added"), "{page}");
        let full = text(&plan, true);
        assert!(full.lines().filter(|line| line.starts_with(['+', '~', '-'])).count() == 100_000);
    }

    #[test]
    fn lanes_and_waves_are_told_where_they_say_something() {
        let mut plan = plan((0..3).map(|at| change(at, Action::Update, &["x"])).collect());
        assert!(!text(&plan, false).contains("\n  "));
        plan.waves = vec!["canaries".to_owned(), "the rest".to_owned()];
        plan.changes[1].wave = 1;
        plan.changes[2].wave = 1;
        let prices = vec![price("b", 1200, 0), price("a", 7, 312)];
        let form = Form { prices, ..form(&plan) };
        let text = form.text(&Ui::new(true, false), false, true);
        assert!(text.contains("\nwaves: canaries 1 → the rest 2\n  b: 1200 requests, about 20 min 0 s\n"), "{text}");
        assert!(text.contains("\n  a: 7 requests, about 7.0 s; 312 of the 1140 in 5 min 0 s that"), "{text}");
        assert!(text.contains("· 3 requests · about 20 min 0 s\n"), "{text}");
        let report = serde_json::to_value(form.report()).unwrap();
        assert_eq!(
            report["waves"],
            serde_json::json!([{"name": "canaries", "changes": 1}, {"name": "the rest", "changes": 2}])
        );
        assert_eq!((&report["lanes"][0]["used"], &report["lanes"][1]["used"]), (&0.into(), &312.into()));
        assert_eq!(report["requests"], 3);
        assert_eq!(report["groups"], serde_json::json!([]));
    }

    #[test]
    fn json_has_what_many_changes_have_in_common() {
        let plan = plan((0..5).map(|at| change(at, Action::Create, &["it is new"])).collect());
        let report = serde_json::to_value(form(&plan).report()).unwrap();
        let group = serde_json::json!({
            "action": "create", "reason": "it is new", "alike": true, "workers": 5, "examples": ["t-c0", "t-c1", "t-c2"],
        });
        assert_eq!((&report["groups"], &report["create"]), (&serde_json::json!([group]), &5.into()));
    }
}
