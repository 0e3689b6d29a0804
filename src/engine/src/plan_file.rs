//! A plan in a file: written by `plan --out`, applied by `deploy --plan` if it is still the plan, or refused with what differs. It
//! holds no secret, no time and nothing of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use flotilla_deploy::plan::{Action, Change, DatabaseAction, DatabaseChange, HostAction, Plan, PlannedAction, Step};
use flotilla_deploy::state::State;
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::digest::Digest;
use flotilla_model::failure::Failure;
use flotilla_model::reason::{Reason, details};
use flotilla_model::text::and_more;
use flotilla_model::text::{bounded, count};

use crate::planning::Planned;

/// The version of the file's form; version 1 had no `reason_details`. One of a newer one is refused.
const VERSION: u64 = 2;
/// The maximum size, in bytes, of a file: a plan of a million workers has fewer.
const LIMIT: u64 = 4 << 30;
/// The number of deploys that are searched for the one that a plan continues.
const RUNS: usize = 100;
/// The number of differences that are listed.
const NAMED: usize = 20;

/// A plan as it was written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The version.
    flotilla_plan: u64,
    /// The fleet's name.
    fleet: String,
    /// The plan's digest.
    digest: Digest,
    /// The request, in words of the command line.
    asked: Vec<String>,
    /// The changes, with their reasons.
    changes: Vec<Entry>,
    /// The databases whose migrations are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    databases: Vec<DatabaseAction>,
    /// The hosts that point to another worker afterwards.
    hosts: Vec<HostAction>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reasons: Vec<String>,
    /// The same as values, for other programs.
    #[serde(default)]
    reason_details: Vec<Value>,
    does: PlannedAction,
}

impl Entry {
    fn of(change: &Change) -> Entry {
        let reasons = sentences(&change.reasons);
        Entry { reasons, reason_details: details(&change.reasons), does: PlannedAction::of(change) }
    }
}

/// Returns the bytes of a file; of one that can't be a plan, only the first.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    (&mut file).take(1).read_to_end(&mut bytes)?;
    if bytes == b"{" {
        file.take(LIMIT).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Returns an error that can quote the file, which can be anything.
fn quoting(error: &serde_json::Error) -> String {
    bounded(error.to_string())
}

fn sentences(reasons: &[Reason]) -> Vec<String> {
    reasons.iter().map(Reason::to_string).collect()
}

/// The fields that a file of any version has.
#[derive(Deserialize)]
struct Head {
    flotilla_plan: u64,
}

impl PlanFile {
    /// Returns a plan with the words of its request.
    pub fn new(planned: &Planned, asked: Vec<String>) -> PlanFile {
        let changes = planned.plan.changes.iter();
        let entries = changes.map(Entry::of);
        let fleet = planned.project.fleet.file.name.clone();
        let digest = planned.plan.digest;
        let hosts = planned.plan.hosts.iter().map(HostAction::of).collect();
        let databases = planned.plan.databases.iter().map(DatabaseAction::of).collect();
        PlanFile { flotilla_plan: VERSION, fleet, digest, asked, changes: entries.collect(), databases, hosts }
    }

    /// Writes it to a file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec(self).expect("BUG: a plan is JSON");
        bytes.push(b'\n');
        let written = AtomicFile::new(path).keep_permissions().follow_link().durable().write(&bytes);
        written.with_context(|| format!("the plan can't be written to {}", path.display()))?;
        Ok(())
    }

    /// Reads a plan from a file. What isn't one, or isn't whole, is refused.
    pub fn read(path: &Path) -> Result<PlanFile, Failure> {
        let shown = path.display();
        let bytes = bytes(path).with_context(|| format!("the plan {shown} can't be read"))?;
        Self::parse(&bytes).map_err(|why| {
            Failure::refused(format!("{shown} {why}; nothing was sent"))
                .hint("create a new one: flotilla plan --out FILE")
        })
    }

    fn parse(bytes: &[u8]) -> Result<PlanFile, String> {
        let head: Head = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => "is not a plan file".to_owned(),
            _ => format!("is damaged or not a plan file: {}", quoting(&error)),
        })?;
        if !(1..=VERSION).contains(&head.flotilla_plan) {
            let number = head.flotilla_plan;
            return Err(format!(
                "has the format version {number}, and this flotilla reads {VERSION}: another version wrote it"
            ));
        }
        let file: PlanFile =
            serde_json::from_slice(bytes).map_err(|error| format!("is damaged: {}", quoting(&error)))?;
        let changes = file.changes.iter().map(|entry| entry.does.clone());
        if PlannedAction::digest(changes, file.databases.iter().cloned(), file.hosts.iter().cloned()) != file.digest {
            return Err("is damaged: its changes don't match its digest".to_owned());
        }
        Ok(file)
    }

    /// Returns the request, in words of the command line.
    pub fn asked(&self) -> &[String] {
        &self.asked
    }

    /// Refuses another fleet's plan, and one that isn't the plan any more; names what differs.
    pub fn refuse_other(&self, planned: &Planned) -> Result<(), Failure> {
        let fleet = &planned.project.fleet.file.name;
        if *fleet != self.fleet {
            let theirs = &self.fleet;
            return Err(Failure::refused(format!("the plan is of the fleet {theirs}, not {fleet}; nothing was sent")));
        }
        if planned.plan.digest == self.digest || self.is_continued_by(planned)? {
            return Ok(());
        }
        let differences = differences(self, &planned.plan);
        let number = differences.len();
        let mut named: Vec<String> = differences.into_iter().take(NAMED).collect();
        if number > NAMED {
            named.push(and_more(number - NAMED));
        }
        let differ =
            if number == 1 { "1 change differs".to_owned() } else { format!("{} differ", count(number, "change")) };
        Err(Failure::refused(format!("the plan is stale: {differ} from what is planned now; nothing was sent"))
            .hint(named.join("\n"))
            .hint("create a new one: flotilla plan --out FILE"))
    }
}

impl PlanFile {
    /// Returns whether its digest begins with these characters.
    pub fn is(&self, digest: &str) -> bool {
        self.digest.to_string().starts_with(&digest.to_ascii_lowercase())
    }

    /// Returns whether a deploy of this plan was begun, and the present plan is the rest of it.
    pub fn is_continued_by(&self, planned: &Planned) -> Result<bool, Failure> {
        let digest = self.digest.to_string();
        let in_flight = State::read(&planned.cloud.state)?.runs(RUNS)?.iter().any(|(_, run)| run.plan == digest);
        Ok(in_flight && self.leaves(&planned.plan))
    }

    /// Returns whether a plan has no changes but those of this one, or the rest of them.
    fn leaves(&self, rest: &Plan) -> bool {
        let all: BTreeMap<Key<'_>, &PlannedAction> =
            self.changes.iter().map(|entry| (key(&entry.does), &entry.does)).collect();
        let to = |host: &HostAction| HostAction { wave: 0, ..host.clone() };
        let hosts: BTreeSet<HostAction> = self.hosts.iter().map(to).collect();
        let known = rest.hosts.iter().all(|host| hosts.contains(&to(&HostAction::of(host))));
        let migrated = |change: &DatabaseChange| {
            let rest = DatabaseAction::of(change);
            self.databases.iter().any(|planned| rest.is_rest_of(planned))
        };
        known
            && rest.databases.iter().all(migrated)
            && rest.changes.iter().map(PlannedAction::of).all(|action| {
                all.get(&key(&action)).is_some_and(|whole| {
                    let uploads = action.steps.contains(&Step::Upload);
                    whole.home == action.home
                    && whole.digest == action.digest
                    && (whole.adopts || !action.adopts)
                    // What was already uploaded isn't uploaded again.
                    && (!uploads || whole.was == action.was)
                    && action.steps.iter().all(|step| whole.steps.iter().any(|other| is_of(step, other)))
                })
            })
    }
}

/// Returns whether a step does the same as a planned one, though its outcome may be unknown since.
fn is_of(step: &Step, planned: &Step) -> bool {
    match (step, planned) {
        (Step::DropDomain { domain }, Step::DetachDomain { domain: other, .. }) => domain == other,
        (Step::DropRoute { pattern, .. }, Step::RemoveRoute { pattern: other, .. }) => pattern == other,
        _ => step == planned,
    }
}

/// Identifies a change: a worker that moves within its account is deleted and created.
type Key<'a> = (&'a str, &'a str, &'a str, bool);

fn key(action: &PlannedAction) -> Key<'_> {
    (action.worker.as_str(), action.customer.as_str(), action.account.as_str(), action.action == Action::Delete)
}

/// Returns the differences between a plan as it was and as it is now, a line each.
fn differences(was: &PlanFile, is: &Plan) -> Vec<String> {
    let mut old: BTreeMap<Key<'_>, &Entry> = was.changes.iter().map(|entry| (key(&entry.does), entry)).collect();
    let actions: Vec<(&Change, PlannedAction)> =
        is.changes.iter().map(|change| (change, PlannedAction::of(change))).collect();
    let mut lines = Vec::new();
    for (change, action) in &actions {
        let head = head(action);
        match old.remove(&key(action)) {
            None => lines.push(format!(
                "{head}: not in the plan, {}: {}",
                action.action.as_ref(),
                why(&sentences(&change.reasons))
            )),
            Some(entry) if entry.does != *action => {
                lines.push(format!("{head}: {}", change_differences(&entry.does, action).join("; ")))
            }
            Some(_) => {}
        }
    }
    let gone = old.values().map(|Entry { does, reasons, .. }| {
        format!("{}: only in the plan, {}: {}", head(does), does.action.as_ref(), why(reasons))
    });
    lines.extend(gone);
    let hosts: Vec<HostAction> = is.hosts.iter().map(HostAction::of).collect();
    for (these, those, what) in [(&hosts, &was.hosts, "not in the plan"), (&was.hosts, &hosts, "only in the plan")] {
        let there: BTreeSet<&HostAction> = those.iter().collect();
        lines.extend(these.iter().filter(|host| !there.contains(host)).map(|host| {
            let to = host.to.as_deref().unwrap_or("nothing");
            format!("host {}: {what}, to {to} in wave {}", host.host, host.wave + 1)
        }));
    }
    lines.extend(database_differences(was, is));
    lines
}

fn head(action: &PlannedAction) -> String {
    format!("{} ({} · {})", action.worker, action.customer, action.environment)
}

fn why(reasons: &[String]) -> String {
    let some: Vec<String> = reasons.iter().take(3).map(|reason| reason.chars().take(120).collect()).collect();
    let more = if reasons.len() > 3 { "; …" } else { "" };
    format!("{}{more}", some.join("; "))
}

/// Returns the databases that differ, a line each.
fn database_differences(was: &PlanFile, is: &Plan) -> Vec<String> {
    let shown = |action: &DatabaseAction| {
        let names: Vec<&str> = action.migrations.iter().map(|(name, _)| name.as_str()).collect();
        format!("{} to {}", names.join(", "), action.database)
    };
    let now: Vec<DatabaseAction> = is.databases.iter().map(DatabaseAction::of).collect();
    let new = now.iter().filter(|action| !was.databases.contains(action));
    let gone = was.databases.iter().filter(|action| !now.contains(action));
    let new = new.map(|action| format!("migrations: not in the plan, {}", shown(action)));
    new.chain(gone.map(|action| format!("migrations: only in the plan, {}", shown(action)))).collect()
}

/// Returns the differences of a change from the planned one.
fn change_differences(was: &PlannedAction, is: &PlannedAction) -> Vec<String> {
    let digest = |digest: Option<Digest>| digest.map_or_else(|| "nothing".to_owned(), |digest| digest.short());
    let mut lines = Vec::new();
    if was.action != is.action {
        lines.push(format!("{} instead of {}", is.action.as_ref(), was.action.as_ref()));
    }
    if was.digest != is.digest {
        lines.push(format!("its bundle is {} instead of {}", digest(Some(is.digest)), digest(Some(was.digest))));
    }
    if was.was != is.was {
        lines.push(format!("what runs is {} instead of {}", digest(is.was), digest(was.was)));
    }
    if was.home != is.home {
        lines.push("it is in another account or namespace".to_owned());
    }
    let steps = |some: &[Step], others: &[Step]| -> Vec<String> {
        some.iter().filter(|step| !others.contains(step)).take(3).map(step).collect()
    };
    for (word, steps) in [("also", steps(&is.steps, &was.steps)), ("no longer", steps(&was.steps, &is.steps))] {
        if !steps.is_empty() {
            lines.push(format!("{word} {}", steps.join(", ")));
        }
    }
    if was.wave != is.wave {
        lines.push(format!("it is in wave {} instead of {}", is.wave + 1, was.wave + 1));
    }
    if lines.is_empty() {
        lines.push("it is otherwise".to_owned());
    }
    lines
}

/// A step in words.
fn step(step: &Step) -> String {
    let value = serde_json::to_value(step).expect("BUG: a step is JSON");
    let text = |key: &str| value[key].as_str().map(|text| text.replace('_', " "));
    let what = text("do").unwrap_or_default();
    let of = ["domain", "pattern", "name"].into_iter().find_map(|key| value[key].as_str());
    of.map_or_else(|| what.clone(), |of| format!("{what} {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(customer: &str) -> Change {
        let mut change = Change::made_up(customer, Action::Update);
        change.reasons = vec![Reason::PackBundleChanged { old: None, new: None }];
        change
    }

    fn plan(changes: Vec<Change>) -> Plan {
        let digest = PlannedAction::digest(changes.iter().map(PlannedAction::of), [], []);
        Plan {
            changes,
            databases: Vec::new(),
            hosts: Vec::new(),
            unchanged: 0,
            held: Vec::new(),
            orphans: Vec::new(),
            waves: vec!["all".to_owned()],
            digest,
        }
    }

    fn file(plan: &Plan) -> PlanFile {
        let entries = plan.changes.iter().map(Entry::of);
        let (fleet, changes) = ("test".to_owned(), entries.collect());
        let (hosts, asked) = (plan.hosts.iter().map(HostAction::of).collect(), vec!["--all".to_owned()]);
        let databases = Vec::new();
        PlanFile { flotilla_plan: VERSION, fleet, digest: plan.digest, asked, changes, databases, hosts }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan(vec![change("a"), change("b")]);
        let bytes = serde_json::to_vec(&file(&plan)).unwrap();
        let read = PlanFile::parse(&bytes).unwrap();
        assert_eq!(read.digest, plan.digest);
        assert!(differences(&read, &plan).is_empty());
        assert_eq!(read.asked(), ["--all"]);
        assert_eq!(read.changes[0].reason_details[0]["kind"], "pack_bundle_changed");
    }

    #[test]
    fn a_plan_of_version_1_is_read() {
        let plan = plan(vec![change("a"), change("b")]);
        let mut old = serde_json::to_value(file(&plan)).unwrap();
        old["flotilla_plan"] = 1.into();
        for entry in old["changes"].as_array_mut().unwrap() {
            entry.as_object_mut().unwrap().remove("reason_details").unwrap();
        }
        let read = PlanFile::parse(old.to_string().as_bytes()).unwrap();
        assert_eq!(read.digest, plan.digest, "reasons are no part of it");
        assert!(differences(&read, &plan).is_empty());
    }

    #[test]
    fn what_is_damaged_foreign_or_newer_is_refused() {
        let plan = plan(vec![change("a"), change("b")]);
        let text = serde_json::to_string(&file(&plan)).unwrap();
        let refused = |text: &str| PlanFile::parse(text.as_bytes()).unwrap_err();
        assert!(refused("").starts_with("is damaged or not a plan"));
        assert!(refused("name: fleet\n").starts_with("is damaged or not a plan"));
        assert_eq!(refused("{\"create\": 1}"), "is not a plan file");
        assert!(refused("[1]").starts_with("is damaged: "));
        assert!(refused(&text.replace("\"flotilla_plan\":2", "\"flotilla_plan\":3")).contains("format version 3"));
        assert!(refused(&text.replace("\"flotilla_plan\":2", "\"flotilla_plan\":0")).contains("format version 0"));
        assert!(refused(&text.replace("t-b", "t-c")).contains("don't match its digest"));
        assert!(refused(&text.replace("\"fleet\":", "\"flet\":")).contains("is damaged: unknown field `flet`"));
        // Wherever it is cut.
        for end in 0..text.len() {
            refused(&text[..end]);
        }
    }

    #[test]
    fn what_an_interrupted_deploy_left_is_known_and_nothing_else() {
        let domain = |domain: &str| Step::AttachDomain { domain: domain.to_owned() };
        let mut whole = vec![change("a"), change("b")];
        whole[1].steps =
            vec![Step::Upload, Step::DetachDomain { domain: "o".to_owned(), id: "1".to_owned() }, domain("b")];
        let file = file(&plan(whole.clone()));
        let leaves = |edit: &dyn Fn(&mut Vec<Change>)| {
            let mut rest = whole.clone();
            edit(&mut rest);
            file.leaves(&plan(rest))
        };
        assert!(leaves(&|_| {}) && leaves(&|rest| rest.clear()) && leaves(&|rest| rest[1].wave = 3));
        // One is done, and of the other the upload.
        assert!(leaves(&|rest| {
            rest.remove(0);
            rest[0].was = Some(rest[0].digest);
            rest[0].steps = vec![Step::DropDomain { domain: "o".to_owned() }, domain("b")];
        }));
        assert!(!leaves(&|rest| rest[0].was = Some(rest[0].digest)), "it would be uploaded again");
        assert!(!leaves(&|rest| rest[0].digest = Digest::of(b"x")));
        assert!(!leaves(&|rest| rest[0].home.account_id.push('x')));
        assert!(!leaves(&|rest| rest[0].action = Action::Delete));
        assert!(!leaves(&|rest| rest[0].steps.push(domain("a"))));
        assert!(!leaves(&|rest| rest[1].steps.push(Step::DropDomain { domain: "x".to_owned() })));
        assert!(!leaves(&|rest| rest.push(change("c"))));
    }

    #[test]
    fn what_differs_is_named() {
        let was = plan(vec![change("a"), change("b"), change("c"), change("d")]);
        let mut now = was.changes.clone();
        now[0].digest = Digest::of(b"x");
        now[1].steps.push(Step::AttachDomain { domain: "b.example".to_owned() });
        now[1].wave = 1;
        // Why it is done is no difference.
        now[2].reasons = vec![Reason::SecretChanged { name: "KEY".to_owned() }];
        now.remove(3);
        now.push(change("e"));
        let (a, x) = (Digest::of(b"a").short(), Digest::of(b"x").short());
        assert_eq!(
            differences(&file(&was), &plan(now.clone())),
            [
                format!("t-a (a · production): its bundle is {x} instead of {a}"),
                "t-b (b · production): also attach domain b.example; it is in wave 2 instead of 1".to_owned(),
                "t-e (e · production): not in the plan, update: the pack's bundle changed".to_owned(),
                "t-d (d · production): only in the plan, update: the pack's bundle changed".to_owned(),
            ]
        );
        // A worker that moves is deleted and created; both are reported.
        let mut moved = change("a");
        moved.home.namespace = Some("n".to_owned());
        let lines = differences(&file(&plan(vec![change("a")])), &plan(vec![moved]));
        assert_eq!(lines, ["t-a (a · production): it is in another account or namespace"]);
    }
}
