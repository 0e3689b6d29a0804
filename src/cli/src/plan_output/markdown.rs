//! A plan as Markdown: for a comment of a pull request, which holds 65,536 characters, and for the summary of a job. Text from files never
//! becomes markup.

use flotilla_deploy::plan::{Change, HostChange};
use flotilla_deploy::refresh::Finding;
use flotilla_model::reason::Reason;
use flotilla_model::text::grouped;

use super::super::report::count;
use super::super::summary::{boxed, text};
use super::super::ui::duration;
use super::reason_groups::{ChangeGroup, group_reasons};
use super::{FEW, PlanOutput, by_reason, migrations, skipped};
use flotilla_engine::plan_view::{Estimate, eta};

/// The limit of bytes: a comment's characters, and a reserve for what people add.
const MOST: usize = 60_000;
/// The bytes that are left for the last line.
const END: usize = 400;
/// The limit of rows of a table.
const ROWS: usize = 50;
/// The limit of names.
const NAMES: usize = 20;
/// The limit of reasons of a change.
const REASONS: usize = 6;

impl PlanOutput<'_> {
    /// Returns the plan as Markdown: counts first, the rest folded; by its first line it is found again. `options`: those of the command
    /// that applies it.
    pub fn markdown(&self, options: &str) -> String {
        let (plan, digest) = (self.plan, self.plan.digest);
        let [create, update, delete] = self.counts().map(|number| grouped(number as u64));
        let title = match (plan.is_empty(), plan.hosts.len()) {
            (true, _) if plan.unchanged == 0 && !plan.held.is_empty() => {
                format!("nothing is planned: {}", skipped(&plan.held))
            }
            (true, _) => "nothing to deploy".to_owned(),
            (false, hosts) => {
                let databases = migrations::total(&plan.databases);
                let hosts = if hosts == 0 { String::new() } else { format!(", {}", count(hosts, "host")) };
                format!("{create} to create, {update} to update, {delete} to delete{databases}{hosts}")
            }
        };
        let mut parts = vec![format!("{} unchanged", grouped(plan.unchanged as u64))];
        for (number, what) in [(plan.held.len(), "skipped"), (plan.orphans.len(), "deployed that no spec defines")] {
            if number > 0 {
                parts.push(format!("{} {what}", grouped(number as u64)));
            }
        }
        if !plan.is_empty() {
            parts.push(self.price());
            parts.push(format!("about {}", duration(eta(&self.estimates))));
        }
        let mut page =
            Page(format!("<!-- flotilla plan {digest} -->\n### flotilla plan: {title}\n\n{}\n", parts.join(" · ")));
        if !self.unknown_accounts.is_empty() && !plan.is_empty() {
            let names = first_names(self.unknown_accounts.iter().copied());
            page.add(&format!("\nThe id of {names} is not set, so all of its workers are shown as not deployed.\n"));
        }
        if let Some(line) = self.missing_secrets_line() {
            page.add(&format!("\n{line}.\n"));
        }
        for invalid in &self.invalid_ids {
            let invalid = text(&invalid.to_string());
            page.add(&format!(
                "\nError: {invalid}. All of its workers are shown as not deployed, and a deploy fails.\n"
            ));
        }
        if !self.findings.is_empty() {
            page.fold(&format!("{} found at Cloudflare", grouped(self.findings.len() as u64)), |page| {
                let row = |finding: &Finding| format!("| {} | {} |\n", finding.what.kind(), text(&finding.text()));
                page.table("| what | which |\n|---|---|\n", self.findings.iter().map(row));
            });
        }
        self.changes(&mut page);
        self.others(&mut page);
        self.lanes(&mut page);
        let short = digest.short();
        let options = if options.is_empty() { String::new() } else { format!(" {options}") };
        let command = format!("flotilla deploy --digest {short}{options}");
        match plan.is_empty() {
            true => page.0 += &format!("\nPlan `{short}`.\n"),
            false => {
                page.0 += &format!(
                    "\nPlan `{short}`. {} applies it and no other.\n",
                    format_args!("`{}`", command.replace('`', "'"))
                );
            }
        }
        page.0
    }

    fn changes(&self, page: &mut Page) {
        let changes = &self.plan.changes;
        if changes.len() <= FEW {
            page.table(HEAD, changes.iter().map(|change| row(change, change.reasons.iter())));
            return;
        }
        let grouped_reasons = group_reasons(changes);
        let (groups, single) = grouped_reasons.change_groups();
        let shown = groups.iter().take(FEW).filter(|group| page.add(&folded(group))).count();
        page.more(groups.len() - shown, "groups");
        if !single.is_empty() {
            let what = if groups.is_empty() { "change" } else { "other change" };
            page.fold(&count(single.len(), what), |page| {
                page.table(HEAD, single.iter().map(|(change, reasons)| row(change, reasons.iter().copied())));
            });
        }
    }

    /// Adds the hosts that point to another worker, the customers that are skipped, and the orphaned workers.
    fn others(&self, page: &mut Page) {
        if !self.plan.databases.is_empty() {
            page.fold(&format!("{} to migrate", count(self.plan.databases.len(), "database")), |page| {
                let lines = migrations::lines(&self.plan.databases, ROWS);
                page.add(&format!("\n{}\n", lines.iter().map(|line| text(line)).collect::<Vec<_>>().join("<br>\n")));
            });
        }
        if !self.plan.hosts.is_empty() {
            page.fold(&count(self.plan.hosts.len(), "host"), |page| {
                let cell = |worker: &Option<String>| worker.as_deref().map(text).unwrap_or_default();
                let row = |change: &HostChange| {
                    let (host, table) = (text(&change.host), text(&change.table));
                    format!("| {host} | {} | {} | {table} |\n", cell(&change.from), cell(&change.to))
                };
                page.table("| host | from | to | table |\n|---|---|---|---|\n", self.plan.hosts.iter().map(row));
            });
        }
        if !self.plan.held.is_empty() {
            page.fold(&format!("{} skipped", grouped(self.plan.held.len() as u64)), |page| {
                let held = by_reason(&self.plan.held);
                let rows = held.iter().map(|(reason, customers)| {
                    format!("| {} | {} |\n", text(reason), first_names(customers.iter().copied()))
                });
                page.table("| why | customers |\n|---|---|\n", rows);
            });
        }
        if !self.plan.orphans.is_empty() {
            let what = count(self.plan.orphans.len(), "worker");
            page.fold(&format!("{what} that no spec defines"), |page| {
                let names = first_names(self.plan.orphans.iter().map(|orphan| orphan.worker.as_str()));
                page.add(&format!("\n{names}; `flotilla prune` deletes\n"));
            });
        }
    }

    /// Adds waves and lanes, where there are several.
    fn lanes(&self, page: &mut Page) {
        let plan = self.plan;
        if plan.waves.len() > 1 {
            page.fold(&count(plan.waves.len(), "wave"), |page| {
                let waves = plan.waves.iter().zip(plan.sizes());
                let rows = waves.map(|(name, changes)| format!("| {} | {} |\n", text(name), grouped(changes as u64)));
                page.table("| wave | changes |\n|---|---:|\n", rows);
            });
        }
        let lanes = &self.estimates;
        if lanes.len() > 1 || lanes.iter().any(|lane| lane.used > 0) {
            page.fold(&count(lanes.len(), "API token"), |page| {
                page.table(
                    "| accounts | requests | checks | time | used of the window |\n|---|---:|---:|---:|---|\n",
                    lanes.iter().map(lane_row),
                );
            });
        }
    }
}

const HEAD: &str = "| | worker | customer | environment | why |\n|---|---|---|---|---|\n";

fn row<'a>(change: &Change, mut reasons: impl ExactSizeIterator<Item = &'a Reason>) -> String {
    let mut why: Vec<String> = reasons.by_ref().take(REASONS).map(|reason| text(&reason.to_string())).collect();
    if reasons.len() > 0 {
        why.push(format!("… {} more", grouped(reasons.len() as u64)));
    }
    let (worker, customer) = (text(&change.worker), text(&change.customer));
    format!("| {} | {worker} | {customer} | {} | {} |\n", change.action.as_ref(), change.environment, why.join("<br>"))
}

fn lane_row(lane: &Estimate) -> String {
    let used = format!("{} of {} in {}", grouped(lane.used), grouped(lane.limit), duration(lane.window_seconds));
    let accounts = first_names(lane.accounts.iter().map(String::as_str));
    let (requests, checks) = (grouped(lane.requests as u64), grouped(lane.checks as u64));
    format!("| {accounts} | {requests} | {checks} | {} | {used} |\n", duration(lane.seconds))
}

fn folded(group: &ChangeGroup<'_>) -> String {
    let (number, action) = (group.members.len(), group.action.as_ref());
    let names = first_names(group.members.iter().map(|change| change.worker.as_str()));
    let reason = |(reason, of): &(&str, usize)| match *of < number {
        true => format!("{} ({} of them)", text(reason), grouped(*of as u64)),
        false => text(reason),
    };
    let reasons: Vec<String> = group.reasons.iter().take(REASONS).map(reason).collect();
    let number = grouped(number as u64);
    let summary = format!("{action} {number} workers: {}", reasons.join(", "));
    let mut folded = format!("\n<details><summary>{summary}</summary>\n\n{names}\n");
    for (index, (change, reasons)) in group.own.iter().take(ROWS).enumerate() {
        let row = row(change, reasons.iter().copied());
        folded += &if index == 0 { format!("\n{HEAD}{row}") } else { row };
    }
    if group.own.len() > ROWS {
        folded += &format!("\n… and {} more\n", grouped((group.own.len() - ROWS) as u64));
    }
    folded + "\n</details>\n"
}

/// Joins the first names, and adds the number of the others.
fn first_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.peekable();
    let shown: Vec<String> = names.by_ref().take(NAMES).map(|name| boxed(name, 80)).collect();
    let more = names.count();
    let shown = shown.join(", ");
    if more > 0 { format!("{shown} and {} more", grouped(more as u64)) } else { shown }
}

/// A page that grows no further than it may.
struct Page(String);

impl Page {
    /// Adds a text if there is room for it and for the last line.
    fn add(&mut self, text: &str) -> bool {
        let fits = self.0.len() + text.len() <= MOST - END;
        if fits {
            self.0 += text;
        }
        fits
    }

    /// Adds a table, as far as there is room for it.
    fn table(&mut self, head: &str, rows: impl ExactSizeIterator<Item = String>) {
        let number = rows.len();
        // Without a row, a head says nothing.
        let mut shown = 0;
        for row in rows.take(ROWS) {
            let row = if shown == 0 { format!("\n{head}{row}") } else { row };
            if !self.add(&row) {
                break;
            }
            shown += 1;
        }
        self.more(number - shown, "");
    }

    /// Adds the number of the others, if there are any.
    fn more(&mut self, number: usize, what: &str) {
        if number > 0 {
            let line = format!("\n… and {} more {what}", grouped(number as u64));
            self.add(&format!("{}\n", line.trim_end()));
        }
    }

    /// Adds a part that is folded.
    fn fold(&mut self, title: &str, inside: impl FnOnce(&mut Page)) {
        let before = self.0.len();
        // Whatever is in it, its end has room.
        if !self.add(&format!("\n<details><summary>{title}</summary>\n")) {
            return;
        }
        let open = self.0.len();
        inside(self);
        if self.0.len() == open {
            self.0.truncate(before);
            return;
        }
        self.0 += "\n</details>\n";
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flotilla_deploy::plan::Action;
    use flotilla_engine::plan_view::PlanView;

    use super::super::PlanOutput;
    use super::super::tests::{
        change, computed, hundred_thousand, output, plan, price, recorded, runtime_changed, secret_changed,
    };
    use super::*;

    #[test]
    fn counts_come_first_and_its_first_line_names_the_plan() {
        let plan = plan(vec![change(
            1,
            Action::Create,
            vec![Reason::New, Reason::DomainAdded { new: "a.example".to_owned() }],
        )]);
        let page = output(&plan).markdown("");
        let digest = plan.digest;
        let head = format!(
            "<!-- flotilla plan {digest} -->\n### flotilla plan: 1 to create, 0 to update, 0 to delete\n\n\
             3 unchanged · 1 request · about 1 min 30 s\n\n{HEAD}| create | "
        );
        assert!(page.starts_with(&head), "{page}");
        let end = format!("\nPlan `{0}`. `flotilla deploy --digest {0}` applies it and no other.\n", digest.short());
        assert!(page.ends_with(&end), "{page}");
        let none = super::super::tests::plan(Vec::new());
        let page = output(&none).markdown("");
        assert!(page.contains("### flotilla plan: nothing to deploy\n\n3 unchanged\n\nPlan `"), "{page}");
    }

    #[test]
    fn many_changes_are_folded_by_what_they_have_in_common() {
        let mut changes: Vec<Change> =
            (0..100).map(|index| change(index, Action::Update, vec![runtime_changed()])).collect();
        changes[7].reasons.push(secret_changed());
        let plan = plan(changes);
        let estimates = vec![price("gold", 60, 12), price("rest", 40, 0)];
        let page = PlanOutput(PlanView { unknown_accounts: vec!["rest"], estimates, ..output(&plan).0 }).markdown("");
        assert!(page.contains(
            "\n<details><summary>update 100 workers: <code>the pack's bundle changed</code></summary>\n\n<code>t-c0</code>, "
        ));
        assert!(page.contains(" and 80 more\n\n| | worker "), "{page}");
        assert!(page.contains("| update | <code>t-c7</code> | <code>c7</code> | production | <code>secret KEY changed</code> |\n\n</details>"));
        assert!(page.contains("| <code>gold</code> | 60 | 0 | 1 min | 12 of 1,140 in 5 min |\n"), "{page}");
        assert!(page.contains("| <code>rest</code> | 40 | 0 | 40 s | 0 of 1,140 in 5 min |\n"), "{page}");
        assert!(page.contains("\nThe id of <code>rest</code> is not set, so "), "{page}");
    }

    #[test]
    fn a_hundred_thousand_changes_and_hostile_names_fit_into_a_comment() {
        let plan = hundred_thousand();
        let estimates = (0..300).map(|index| price(&plan.waves[index], 1, 1)).collect();
        let unknown = plan.waves.iter().map(String::as_str).collect();
        let start = computed();
        let page = PlanOutput(PlanView { unknown_accounts: unknown, estimates, ..output(&plan).0 }).markdown("");
        assert!(computed() - start < Duration::from_secs(20), "{:?}", computed() - start);
        assert!(page.len() < 65_536, "{}", page.len());
        assert!(page.len() > 20_000, "there is room for more than {}", page.len());
        assert!(page.contains("update 80,000 workers: <code>the pack's bundle changed</code>"), "{page}");
        check_markup(&page);
        // Also where each change is by itself.
        let mut each = super::super::tests::plan(
            (0..FEW)
                .map(|index| change(index, Action::Update, vec![recorded(&plan.held[index].reason.repeat(50)); 30]))
                .collect(),
        );
        each.held = plan.held.clone();
        let page = output(&each).markdown("");
        assert!(page.len() < 65_536, "{}", page.len());
        check_markup(&page);
    }

    /// Checks that only this file's own markup is in a page.
    fn check_markup(page: &str) {
        assert_eq!(page.matches("<!--").count(), 1, "{page}");
        for tag in ["details", "summary", "code"] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(page.matches(&open).count(), page.matches(&close).count(), "{tag}");
        }
        let mut rest = page;
        while let Some(at) = rest.find('<') {
            let known = [
                "<!-- flotilla plan ",
                "<details><summary>",
                "<summary>",
                "</summary>",
                "</details>",
                "<code>",
                "</code>",
                "<br>",
            ];
            assert!(known.iter().any(|tag| rest[at..].starts_with(tag)), "{}", &rest[at..(at + 60).min(rest.len())]);
            rest = &rest[at + 1..];
        }
        for c in ['@', '!', '[', '\u{1b}', '\\'] {
            assert!(!page.lines().skip(1).any(|line| line.contains(c)), "{c:?}");
        }
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert!([3, 5, 6].contains(&line.matches('|').count()), "{line}");
        }
        assert!(page.lines().filter(|line| line.starts_with('#')).count() == 1);
    }
}
