//! The output of a plan: for people, as JSON, and as Markdown for a pull request. Makes no choice about what is done.

mod markdown;
mod migrations;
mod reason_groups;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use serde::Serialize;

use flotilla_deploy::plan::{Action, Change, DatabaseChange, Held, HostChange, Orphan, Plan};
use flotilla_deploy::refresh::Finding;
use flotilla_engine::credentials::InvalidId;
use flotilla_engine::plan_view::{Estimate, PlanView, eta};
use flotilla_model::digest::Digest;
use flotilla_model::reason::Reason;
use flotilla_model::text::{self, grouped};

use super::findings;
use super::report::count;
use super::ui::{Style, Ui, clean, duration};

use reason_groups::{ChangeGroup, GroupedReasons, group_reasons};

/// The number of changes that are shown one by one; of more, what they have in common is shown.
const FEW: usize = 20;
/// The limit of lines of a kind.
const LINES: usize = 20;
/// The limit of names in a line.
pub(super) const NAMES: usize = 12;
/// The number of examples of a group.
const EXAMPLES: usize = 3;
/// The limit of reasons of a change.
const REASONS: usize = 12;
/// The number of lanes that are shown, those that take longest.
const LANES: usize = 3;
/// The space before what belongs to the line above.
const INDENT: &str = "    ";
/// The characters of a line up to which a change's reasons are beside it.
const WIDTH: usize = 100;
/// The limit of characters of a reason.
const LONGEST: usize = 300;

/// A plan and what is shown with it, to be put into a form.
pub struct PlanOutput<'a>(pub PlanView<'a>);

impl<'a> Deref for PlanOutput<'a> {
    type Target = PlanView<'a>;

    fn deref(&self) -> &PlanView<'a> {
        &self.0
    }
}

/// A plan as JSON.
#[derive(Serialize)]
pub struct Report<'a> {
    create: usize,
    update: usize,
    delete: usize,
    unchanged: usize,
    requests: usize,
    /// The most requests beside them that upload static assets.
    asset_uploads_at_most: usize,
    /// Additional requests, which read what is deployed.
    checks: usize,
    eta_seconds: f64,
    digest: Digest,
    changes: Vec<ChangeReport<'a>>,
    hosts: &'a [HostChange],
    held: &'a [Held],
    orphans: &'a [Orphan],
    /// The secrets that have no value here.
    missing_secrets: Vec<MissingSecret<'a>>,
    /// The findings of `--refresh`; without it, none.
    findings: &'a [Finding],
    waves: Vec<WaveReport<'a>>,
    lanes: &'a [Estimate],
    groups: Vec<GroupReport>,
    /// The accounts whose ids no account can have, if there are any.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    invalid_ids: &'a [&'a InvalidId],
}

/// A change of a plan: of a worker, or of a database.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum ChangeReport<'a> {
    Worker(&'a Change),
    Migration(&'a DatabaseChange),
}

/// A secret without a value.
#[derive(Serialize)]
struct MissingSecret<'a> {
    customer: &'a str,
    worker: &'a str,
    secret: &'a str,
}

#[derive(Serialize)]
struct WaveReport<'a> {
    name: &'a str,
    changes: usize,
}

/// A reason that many changes have in common.
#[derive(Serialize)]
struct GroupReport {
    action: Action,
    reason: String,
    /// Whether all have the reason word for word, apart from its place.
    alike: bool,
    workers: usize,
    examples: Vec<String>,
}

impl PlanOutput<'_> {
    /// Returns the plan as JSON.
    pub fn report(&self) -> Report<'_> {
        let plan = self.plan;
        let [create, update, delete] = self.counts();
        let groups = group_reasons(&plan.changes).common.into_iter().map(|group| GroupReport {
            action: group.action,
            workers: group.members.len(),
            examples: group.members.iter().take(EXAMPLES).map(|change| change.worker.clone()).collect(),
            alike: group.alike,
            reason: group.reason,
        });
        let waves = plan.waves.iter().zip(plan.sizes()).map(|(name, changes)| WaveReport { name, changes });
        Report {
            create,
            update,
            delete,
            unchanged: plan.unchanged,
            requests: self.requests(),
            asset_uploads_at_most: self.plan.asset_uploads_at_most(),
            checks: self.checks(),
            eta_seconds: eta(&self.estimates),
            digest: plan.digest,
            changes: plan
                .changes
                .iter()
                .map(ChangeReport::Worker)
                .chain(plan.databases.iter().map(ChangeReport::Migration))
                .collect(),
            hosts: &plan.hosts,
            held: &plan.held,
            orphans: &plan.orphans,
            missing_secrets: self.missing_secrets().collect(),
            findings: self.findings,
            waves: waves.collect(),
            lanes: &self.estimates,
            groups: groups.collect(),
            invalid_ids: &self.invalid_ids,
        }
    }

    /// Returns the plan for people: a page, however many changes there are, or with `full` all of it. With `next`, it ends with
    /// the command that applies it.
    pub fn text(&self, ui: &Ui, full: bool, next: Option<&str>) -> String {
        let plan = self.plan;
        let mut lines = findings::text(ui, self.findings);
        if full || plan.changes.len() <= FEW {
            lines.extend(plan.changes.iter().flat_map(|change| {
                let reasons: Vec<&Reason> = change.reasons.iter().collect();
                change_lines(ui, change, &reasons, full)
            }));
        } else {
            lines.extend(group_lines(ui, &group_reasons(&plan.changes)));
        }
        let limit = |limit: usize| if full { usize::MAX } else { limit };
        lines.extend(migrations::lines(&plan.databases, limit(LINES)).into_iter().map(|line| {
            let sign = ui.paint(Style::Warning, "~");
            format!("{sign} {}", clean(&line))
        }));
        lines.extend(hosts(ui, &plan.hosts, limit(NAMES)));
        lines.extend(self.held(ui, limit(LINES), limit(NAMES)));
        if !plan.orphans.is_empty() {
            let orphans = names(plan.orphans.iter().map(|orphan| orphan.worker.as_str()), limit(NAMES));
            lines.push(format!(
                "{} {} deployed that no spec defines: {orphans}; `flotilla prune` deletes {}",
                ui.paint(Style::Warning, "!"),
                count(plan.orphans.len(), "worker"),
                if plan.orphans.len() == 1 { "it" } else { "them" },
            ));
        }
        if plan.is_empty() {
            lines.push(match plan.unchanged {
                0 if !plan.held.is_empty() => format!("nothing is planned: {}", skipped(&plan.held)),
                0 => "nothing to deploy".to_owned(),
                number if !plan.held.is_empty() => {
                    format!("nothing to deploy: {} up to date, {}", count(number, "worker"), skipped(&plan.held))
                }
                number => format!("nothing to deploy: {} up to date", count(number, "worker")),
            });
            return lines.join("\n");
        }
        for invalid in &self.invalid_ids {
            lines.push(format!(
                "{} {}; all of its workers are shown as not deployed, and a deploy fails",
                ui.paint(Style::Error, "!"),
                clean(&invalid.to_string())
            ));
        }
        if next.is_some() && !self.unknown_accounts.is_empty() {
            lines.push(format!(
                "{} the id of {} is not set, so all of its workers are shown as not deployed",
                ui.paint(Style::Warning, "!"),
                names(self.unknown_accounts.iter().copied(), limit(NAMES))
            ));
        }
        lines.extend(self.missing_secrets_line().map(|line| format!("{} {line}", ui.paint(Style::Warning, "!"))));
        if plan.waves.len() > 1 {
            let waves = plan.waves.iter().zip(plan.sizes());
            let waves: Vec<String> =
                waves.map(|(name, changes)| format!("{} {}", clean(name), grouped(changes as u64))).collect();
            lines.push(format!("waves: {}", first(&waves, limit(NAMES), " → ")));
        }
        lines.extend(estimate_lines(&self.estimates));
        let [create, update, delete] = self.counts().map(|number| grouped(number as u64));
        let hosts = match plan.hosts.len() {
            0 => String::new(),
            number => format!(", {}", count(number, "host")),
        };
        let databases = migrations::total(&plan.databases);
        lines.push(format!(
            "plan: {create} to create, {update} to update, {delete} to delete, {} unchanged{databases}{hosts} · {} · about {}",
            grouped(plan.unchanged as u64),
            self.price(),
            duration(eta(&self.estimates))
        ));
        if let Some(command) = next {
            lines.push(match command.contains(" --plan") {
                true => format!("`{command}` applies this plan and no other"),
                false => {
                    format!("`{command}` applies it; add --digest {} to apply exactly this plan", plan.digest.short())
                }
            });
        }
        lines.join("\n")
    }

    /// Returns the secrets that have no value here.
    fn missing_secrets(&self) -> impl Iterator<Item = MissingSecret<'_>> {
        self.plan.changes.iter().flat_map(|change| {
            let missing = change.reasons.iter().filter_map(|reason| match reason {
                Reason::SecretMissing { name } => Some(name.as_str()),
                _ => None,
            });
            missing.map(|secret| MissingSecret { customer: &change.customer, worker: &change.worker, secret })
        })
    }

    /// Returns the line that says that a deploy of this plan fails, if secrets have no value.
    fn missing_secrets_line(&self) -> Option<String> {
        let missing: BTreeSet<(&str, &str)> =
            self.missing_secrets().map(|missing| (missing.customer, missing.secret)).collect();
        let (have, them) = if missing.len() == 1 { ("has", "it") } else { ("have", "them") };
        (!missing.is_empty()).then(|| {
            format!(
                "{} {have} no value here, and a deploy fails without {them}: `flotilla secrets check` lists what to set",
                count(missing.len(), "secret")
            )
        })
    }

    fn counts(&self) -> [usize; 3] {
        [Action::Create, Action::Update, Action::Delete].map(|action| self.plan.count(action))
    }

    fn requests(&self) -> usize {
        self.estimates.iter().map(|estimate| estimate.requests).sum()
    }

    /// Returns the number of requests that read what is deployed.
    fn checks(&self) -> usize {
        self.estimates.iter().map(|estimate| estimate.checks).sum()
    }

    /// Returns the price: `41 requests and 7 checks`.
    fn price(&self) -> String {
        let price = match self.checks() {
            0 => requests(self.requests()),
            checks => format!("{} and {}", requests(self.requests()), count(checks, "check")),
        };
        match self.plan.asset_uploads_at_most() {
            0 => price,
            most => format!("{price}, and at most {} of static assets", count(most, "upload")),
        }
    }

    /// Returns the customers that are skipped, by reason.
    fn held(&self, ui: &Ui, limit: usize, name_limit: usize) -> Vec<String> {
        let held = by_reason(&self.plan.held);
        let mut lines: Vec<String> = held
            .iter()
            .take(limit)
            .map(|(reason, customers)| {
                let customers = names(customers.iter().copied(), name_limit);
                format!("{} skip   {customers}  {}", ui.paint(Style::Dim, "="), clean(reason))
            })
            .collect();
        if held.len() > limit {
            lines.push(format!("… and customers skipped for {} more reasons", grouped((held.len() - limit) as u64)));
        }
        lines
    }
}

/// Returns the hosts that are to point to another worker: a line each, or one for many of a kind.
fn hosts(ui: &Ui, changes: &[HostChange], limit: usize) -> Vec<String> {
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
        if changes.len() > limit {
            let examples: Vec<&str> = changes.iter().take(EXAMPLES).map(|change| change.host.as_str()).collect();
            let what = match kind {
                Action::Create => "point to their workers",
                Action::Update => "point to other workers",
                Action::Delete => "point to no worker any more",
            };
            lines.push(format!(
                "{sign} host   {} ({}, …) {what}  ({table})",
                count(changes.len(), "host"),
                examples.join(", ")
            ));
            continue;
        }
        for change in changes {
            let direction = match (&change.from, &change.to) {
                (Some(from), Some(to)) if from != to => format!("{from} → {to}"),
                (_, Some(to)) => format!("→ {to}"),
                (from, None) => format!("{} →", from.as_deref().unwrap_or_default()),
            };
            lines.push(format!("{sign} host   {}  {direction}  ({table})", change.host));
        }
    }
    lines
}

/// The estimates for people; nothing, where one lane is all there is and all of it is free.
fn estimate_lines(estimates: &[Estimate]) -> Vec<String> {
    let mut lines = Vec::new();
    let many = estimates.len() > 1;
    for estimate in
        estimates.iter().take(LANES).filter(|estimate| many || estimate.used > 0 || estimate.blocked_seconds > 0.0)
    {
        let mut line = format!(
            "  {}: {}, about {}",
            clean(&estimate.accounts.join(" and ")),
            count(estimate.requests, "request"),
            duration(estimate.seconds)
        );
        if estimate.used > 0 {
            let window = duration(estimate.window_seconds);
            let (used, limit) = (grouped(estimate.used), grouped(estimate.limit));
            line += &format!("; {used} of {limit} requests per {window} are already used");
        }
        if estimate.blocked_seconds > 0.0 {
            line += &format!("; rate limited for another {}", duration(estimate.blocked_seconds));
        }
        lines.push(line);
    }
    if estimates.len() > LANES {
        lines.push(format!("  … and {} more side by side", count(estimates.len() - LANES, "token")));
    }
    lines
}

/// Returns the changes of a rollback for people: like those of a plan, each on its own or in groups.
pub fn rollback_lines(ui: &Ui, plan: &Plan) -> Vec<String> {
    match plan.changes.len() <= FEW {
        true => plan
            .changes
            .iter()
            .flat_map(|change| change_lines(ui, change, &change.reasons.iter().collect::<Vec<_>>(), false))
            .collect(),
        false => group_lines(ui, &group_reasons(&plan.changes)),
    }
}

/// Returns the number of customers that are skipped, in words: `1 customer is skipped`.
pub(super) fn skipped(held: &[Held]) -> String {
    let customers: BTreeSet<&str> = held.iter().map(|held| held.customer.as_str()).collect();
    format!("{} {} skipped", count(customers.len(), "customer"), if customers.len() == 1 { "is" } else { "are" })
}

/// Groups the customers that are skipped by reason.
pub(super) fn by_reason(held: &[Held]) -> Vec<(&str, BTreeSet<&str>)> {
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Held { customer, reason, .. } in held {
        // Once, in however many environments.
        reasons.entry(reason).or_default().insert(customer);
    }
    reasons.into_iter().collect()
}

/// Returns a change with these of its reasons: beside it where that is a short line, else below it.
fn change_lines(ui: &Ui, change: &Change, reasons: &[&Reason], full: bool) -> Vec<String> {
    let action = change.action.as_ref();
    let (worker, customer, environment) = (clean(&change.worker), clean(&change.customer), change.environment);
    let head = format!("{} {action:<7}{worker}  {customer} · {environment}", sign(ui, change.action));
    let reasons = reason_texts(reasons, full);
    let line = format!("{head}  {}", reasons.join("; "));
    match reasons.len() <= 1 || line.chars().count() <= WIDTH {
        true => vec![line.trim_end().to_owned()],
        false => std::iter::once(head).chain(reasons.iter().map(|reason| format!("{INDENT}{reason}"))).collect(),
    }
}

/// Returns reasons as text; without `full`, the first of them, cut to the length of a line.
fn reason_texts(reasons: &[&Reason], full: bool) -> Vec<String> {
    let limit = if full { usize::MAX } else { REASONS };
    let texts = reasons.iter().take(limit).map(|reason| reason.to_string());
    let mut texts: Vec<String> = texts.map(|text| clean(&if full { text } else { short(&text) })).collect();
    texts.extend((reasons.len() > limit).then(|| text::and_more(reasons.len() - limit)));
    texts
}

/// Returns the changes in groups, and those that are like no others.
fn group_lines(ui: &Ui, grouped_reasons: &GroupedReasons<'_>) -> Vec<String> {
    let (groups, single) = grouped_reasons.change_groups();
    let mut lines: Vec<String> = groups.iter().take(LINES).flat_map(|group| lines_of_group(ui, group)).collect();
    if groups.len() > LINES {
        let left = groups[LINES..].iter().map(|group| group.members.len()).sum::<usize>();
        let more = groups.len() - LINES;
        lines.push(format!("… and {} in {} more; --full shows all", workers(left), count(more, "group")));
    }
    let shown = single.iter().take(LINES);
    lines.extend(shown.flat_map(|(change, reasons)| change_lines(ui, change, reasons, false)));
    if single.len() > LINES {
        let more = single.len() - LINES;
        lines.push(format!("{}; --full shows all, `flotilla plan CUSTOMER` one", text::and_more(more)));
    }
    lines
}

fn lines_of_group(ui: &Ui, group: &ChangeGroup<'_>) -> Vec<String> {
    let (number, action) = (group.members.len(), group.action.as_ref());
    let examples: Vec<String> = group.members.iter().take(EXAMPLES).map(|change| clean(&change.worker)).collect();
    let more = if number > EXAMPLES { ", …" } else { "" };
    let head = format!("{} {action:<7}{}", sign(ui, group.action), workers(number));
    let mut lines = vec![format!("{head}  {}{more}", examples.join(", "))];
    for (reason, of) in group.reasons.iter().take(REASONS) {
        let of = if *of < number { format!("  ({} of them)", grouped(*of as u64)) } else { String::new() };
        lines.push(format!("{INDENT}{}{of}", clean(&short(reason))));
    }
    if group.reasons.len() > REASONS {
        lines.push(format!("{INDENT}{}", text::and_more(group.reasons.len() - REASONS)));
    }
    for (change, reasons) in group.own.iter().take(EXAMPLES) {
        lines.push(format!("{INDENT}{}: {}", clean(&change.worker), reason_texts(reasons, false).join("; ")));
    }
    if group.own.len() > EXAMPLES {
        let more = workers(group.own.len() - EXAMPLES);
        lines.push(format!("{INDENT}… and {more} with reasons of their own; --full shows all"));
    }
    lines
}

/// Joins words up to a limit, and adds the number of the others.
fn first(words: &[impl AsRef<str>], limit: usize, between: &str) -> String {
    let shown: Vec<&str> = words.iter().take(limit).map(AsRef::as_ref).collect();
    let more = words.len() - shown.len();
    let more = if more > 0 { format!("{between}… {} more", grouped(more as u64)) } else { String::new() };
    shown.join(between) + &more
}

/// Joins names up to a limit, and adds the number of the others.
pub(super) fn names<'a>(names: impl Iterator<Item = &'a str>, limit: usize) -> String {
    text::names(&names.map(clean).collect::<Vec<_>>(), limit)
}

/// Cuts a reason that is too long for a line.
fn short(reason: &str) -> String {
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

fn workers(number: usize) -> String {
    if number == 1 { "1 worker".to_owned() } else { format!("{} workers", grouped(number as u64)) }
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
    use std::time::Duration;

    use flotilla_deploy::plan::Plan;
    use flotilla_model::spec::Environment;

    use super::*;

    /// A change of the customer with this number.
    pub fn change(at: usize, action: Action, reasons: Vec<Reason>) -> Change {
        let mut change = Change::made_up(&format!("c{at}"), action);
        change.reasons = reasons;
        change
    }

    pub fn recorded(text: &str) -> Reason {
        Reason::recorded(text)
    }

    pub fn runtime_changed() -> Reason {
        Reason::PackBundleChanged { old: None, new: None }
    }

    pub fn secret_changed() -> Reason {
        Reason::SecretChanged { name: "KEY".to_owned() }
    }

    fn domain_added(domain: &str) -> Reason {
        Reason::DomainAdded { new: domain.to_owned() }
    }

    pub fn plan(changes: Vec<Change>) -> Plan {
        let digest = Digest::of(b"plan");
        let waves = vec!["the rest".to_owned()];
        Plan {
            changes,
            databases: Vec::new(),
            hosts: Vec::new(),
            unchanged: 3,
            held: Vec::new(),
            orphans: Vec::new(),
            waves,
            digest,
        }
    }

    pub fn price(account: &str, requests: usize, used: u64) -> Estimate {
        let accounts = vec![account.to_owned()];
        let (limit, window_seconds) = (1140, 300.0);
        Estimate {
            accounts,
            requests,
            checks: 0,
            seconds: requests as f64,
            used,
            limit,
            window_seconds,
            blocked_seconds: 0.0,
        }
    }

    pub fn output(plan: &Plan) -> PlanOutput<'_> {
        let price = Estimate { seconds: 90.0, ..price("default", plan.requests().values().sum(), 0) };
        let (findings, unknown_accounts, invalid_ids) = (&[][..], Vec::new(), Vec::new());
        PlanOutput(PlanView { plan, estimates: vec![price], findings, unknown_accounts, invalid_ids, local: false })
    }

    fn text(plan: &Plan, full: bool) -> String {
        output(plan).text(&Ui::new(true, false), full, Some("flotilla deploy --yes"))
    }

    /// Returns a plan with a hundred thousand changes of all kinds, and unusual names.
    pub fn hundred_thousand() -> Plan {
        let hostile = "-->`</code></details><script>alert(1)</script>|@everyone\n\n# a\u{1b}[31m &#96; ![x](y) \\";
        let changes = (0..100_000usize).map(|index| {
            let (file, path) = (format!("customers/c{index}.yaml"), format!("vars.N{}", index % 7000));
            let value = || Reason::value_changed(Some((&file, 3, 19)), &path, index.into(), hostile.into());
            let long = || recorded(&format!("{hostile}{}{index}", "x".repeat(2000)));
            let on = Reason::WorkersDev { old: false, new: true };
            match index % 10 {
                0 => change(index, Action::Create, vec![Reason::New, on, domain_added(&format!("c{index}.example"))]),
                1 => change(index, Action::Update, vec![runtime_changed(), value(), long()]),
                2 => change(index, Action::Delete, vec![Reason::Orphaned]),
                _ => change(index, Action::Update, vec![runtime_changed()]),
            }
        });
        let mut plan = plan(changes.collect());
        for index in 0..1000 {
            plan.changes[index].worker = format!("{hostile}{index}");
            plan.changes[index].customer = format!("{hostile}{index}");
            let (customer, reason) = (format!("{hostile}{index}"), format!("{hostile}{}", index % 300));
            plan.held.push(Held { customer, environment: None, worker: None, reason, is_refused: false });
            let orphan = format!("{hostile}{index}");
            plan.orphans.push(Orphan {
                worker: orphan.clone(),
                customer: orphan,
                environment: Environment::Production,
            });
        }
        plan.waves = (0..300).map(|index| format!("{hostile}{index}")).collect();
        plan
    }

    #[test]
    fn few_changes_are_told_one_by_one() {
        let crons = || Reason::Crons { old: BTreeSet::new(), new: BTreeSet::from(["*".to_owned()]) };
        let changes = (0..FEW).map(|index| change(index, Action::Update, vec![runtime_changed(), crons()]));
        let plan = plan(changes.collect());
        let text = text(&plan, false);
        assert_eq!(text.matches("  the pack's bundle changed; crons *\n").count(), FEW, "{text}");
        assert!(text.contains("~ update t-c0  c0 · production  the pack's bundle changed; crons *\n"), "{text}");
        let long = recorded(&"x".repeat(90));
        let below = self::text(&self::plan(vec![change(0, Action::Update, vec![runtime_changed(), long])]), false);
        assert!(below.starts_with("~ update t-c0  c0 · production\n    the pack's bundle changed\n    xxx"), "{below}");
        assert!(text.contains(
            "\nplan: 0 to create, 20 to update, 0 to delete, 3 unchanged · 20 requests · about 1 min 30 s\n"
        ));
    }

    #[test]
    fn of_many_changes_what_they_have_in_common_is_told_once() {
        let mut changes: Vec<Change> =
            (0..9812).map(|index| change(index, Action::Update, vec![runtime_changed()])).collect();
        let value = Reason::value_changed(None, "vars.A", "1".into(), "2".into());
        for (index, own) in [(3, value), (5, secret_changed()), (9000, domain_added("a.example"))] {
            changes[index].reasons.push(own);
        }
        changes.push(change(9812, Action::Create, vec![Reason::New]));
        let text = text(&plan(changes), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "~ update 9,812 workers  t-c0, t-c1, t-c2, …",
                "    the pack's bundle changed",
                "    t-c3: vars.A \"1\" → \"2\"",
                "    t-c5: secret KEY changed",
                "    t-c9000: domain a.example added",
                "+ create t-c9812  c9812 · production  it is new",
            ]
        );
        assert_eq!(lines.len(), 8, "{text}");
    }

    /// The processor's time of this thread: on a busy machine, the clock says little.
    pub fn computed() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[test]
    fn a_page_is_enough_for_a_hundred_thousand_changes_and_full_shows_all() {
        let plan = hundred_thousand();
        let start = computed();
        let page = text(&plan, false);
        assert!(computed() - start < Duration::from_secs(20), "{:?}", computed() - start);
        assert!(page.lines().count() < 100 && page.len() < 64 << 10, "{} lines, {}", page.lines().count(), page.len());
        assert!(!page.contains('\u{1b}'), "a terminal is driven");
        assert!(page.contains("~ update 80,000 workers  -->"), "{page}");
        assert!(page.contains("\n    the pack's bundle changed\n    vars.N"), "{page}");
        assert!(page.contains("+ create 10,000 workers  "), "{page}");
        assert!(page.contains("\n    domain … added\n"), "{page}");
        // Each worker is counted once.
        let counted = page.lines().filter_map(|line| {
            let (_, rest) = line.strip_prefix(['+', '~', '-'])?.trim_start().split_once(' ')?;
            rest.split_once(" workers  ")
        });
        let sum: usize = counted.map(|(number, _)| number.replace(',', "").parse::<usize>().unwrap()).sum();
        assert_eq!(sum, 100_000, "{page}");
        let full = text(&plan, true);
        assert!(full.lines().filter(|line| line.starts_with(['+', '~', '-'])).count() == 100_000);
    }

    #[test]
    fn lanes_and_waves_are_told_where_they_say_something() {
        let mut plan = plan((0..3).map(|index| change(index, Action::Update, vec![recorded("x")])).collect());
        assert!(!text(&plan, false).contains("\n  b"));
        plan.waves = vec!["canaries".to_owned(), "the rest".to_owned()];
        plan.changes[1].wave = 1;
        plan.changes[2].wave = 1;
        let estimates = vec![price("b", 1200, 0), price("a", 7, 312)];
        let output = PlanOutput(PlanView { estimates, ..output(&plan).0 });
        let text = output.text(&Ui::new(true, false), false, Some("flotilla deploy --yes"));
        assert!(text.contains("\nwaves: canaries 1 → the rest 2\n  b: 1200 requests, about 20 min\n"), "{text}");
        assert!(
            text.contains("\n  a: 7 requests, about 7.0 s; 312 of 1,140 requests per 5 min are already used"),
            "{text}"
        );
        assert!(text.contains("· 1,207 requests · about 20 min\n"), "{text}");
        let report = serde_json::to_value(output.report()).unwrap();
        assert_eq!(
            report["waves"],
            serde_json::json!([{"name": "canaries", "changes": 1}, {"name": "the rest", "changes": 2}])
        );
        assert_eq!((&report["lanes"][0]["used"], &report["lanes"][1]["used"]), (&0.into(), &312.into()));
        assert_eq!(report["requests"], 1207);
        assert_eq!(report["groups"], serde_json::json!([]));
    }

    #[test]
    fn a_customer_that_is_skipped_in_two_environments_is_named_once() {
        let mut plan = plan(Vec::new());
        for environment in [Environment::Staging, Environment::Production] {
            let (customer, reason) = ("juniper".to_owned(), "it is to be skipped".to_owned());
            plan.held.push(Held { customer, environment: Some(environment), worker: None, reason, is_refused: false });
        }
        plan.unchanged = 0;
        assert_eq!(
            text(&plan, false),
            "= skip   juniper  it is to be skipped\nnothing is planned: 1 customer is skipped"
        );
        let report = serde_json::to_value(output(&plan).report()).unwrap();
        assert_eq!(report["findings"], serde_json::json!([]));
    }

    #[test]
    fn json_has_what_many_changes_have_in_common() {
        let plan = plan((0..5).map(|index| change(index, Action::Create, vec![Reason::New])).collect());
        let report = serde_json::to_value(output(&plan).report()).unwrap();
        let group = serde_json::json!({
            "action": "create", "reason": "it is new", "alike": true, "workers": 5, "examples": ["t-c0", "t-c1", "t-c2"],
        });
        assert_eq!((&report["groups"], &report["create"]), (&serde_json::json!([group]), &5.into()));
    }
}
