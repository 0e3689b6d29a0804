//! The secrets of a deploy: finds what is missing or too large before the first request, and decides what each upload
//! sends and what the platform keeps. Shows names, never values.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use parking_lot::Mutex;
use rayon::prelude::*;
use serde_json::Value;

use flotilla_build::build;
use flotilla_deploy::plan::{Change, Step};
use flotilla_deploy::rotation::{Missing, without_lost};
use flotilla_deploy::state::{State, Uncertainty, WorkerId};
use flotilla_model::customer::{DIGEST_VARIABLE, Worker};
use flotilla_model::failure::Failure;
use flotilla_model::fingerprint::Fingerprints;
use flotilla_model::limits::Limit;
use flotilla_model::platform::{Call, Reply};
use flotilla_model::service_key;
use flotilla_model::text::{count, first_lines, grouped};
use flotilla_spec::project::Fleet;
use flotilla_spec::secrets::Secrets;

use crate::context::Context;
use crate::planning::Planned;
use crate::requests::PlatformRequester;
use crate::secret_needs::{Hidden, Needs, Sent, sent};

/// The number of changes that are looked at at a time.
const CHUNK: usize = 4096;
/// The number of secrets that are listed.
const SHOWN: usize = 20;

/// The secrets of an upload that have no value, with the reasons by name.
type Lacked = (Missing, HashMap<String, Hidden>);

/// The secrets that are live, as the state has them; read through a connection of its own, as uploads are made on other
/// threads than the one that writes.
pub struct LiveSecrets {
    state: Mutex<State>,
    /// The workers whose secrets are unknown: an upload was interrupted.
    uncertain: HashSet<WorkerId>,
    /// The secrets that the platform reported for workers where the state doesn't know them.
    there: HashMap<WorkerId, BTreeSet<String>>,
}

/// The fingerprint of a secret that exists, and whose value isn't known here: no value has it.
const UNKNOWN: &str = "";

impl LiveSecrets {
    /// Opens it. Uncertainties are those from the beginning: changes that this deploy itself begins are also ended or repeated by it.
    pub fn open(path: &Path) -> Result<LiveSecrets, Failure> {
        let state = State::read(path)?;
        let is_uncertain = |uncertainty: &Uncertainty| matches!(uncertainty, Uncertainty::Upload | Uncertainty::Delete);
        let in_flight =
            state.in_flight()?.into_iter().filter(|(_, in_flight)| in_flight.uncertainties.iter().any(is_uncertain));
        let uncertain = in_flight.map(|(id, _)| id).collect();
        Ok(LiveSecrets { state: Mutex::new(state), uncertain, there: HashMap::new() })
    }

    /// Returns the live secrets, with those that were looked up for a plan.
    pub fn of_plan(planned: &Planned) -> Result<LiveSecrets, Failure> {
        Ok(LiveSecrets { there: planned.unknown_secrets.clone(), ..LiveSecrets::open(&planned.cloud.state)? })
    }

    /// Returns the fingerprints of a worker's secrets, by binding. None if it doesn't exist, or if they aren't
    /// certain: then all are sent.
    fn of(&self, id: &WorkerId) -> Result<Option<BTreeMap<String, String>>, Failure> {
        if self.uncertain.contains(id) {
            return Ok(None);
        }
        if let Some(names) = self.there.get(id) {
            return Ok(Some(names.iter().map(|name| (name.clone(), UNKNOWN.to_owned())).collect()));
        }
        let state = self.state.lock();
        let live = state.one(id)?.filter(|deployed| deployed.drift.is_none());
        Ok(live.map(|deployed| without_lost(deployed.live.secrets)))
    }

    /// Returns whether a worker is in the state, and its secrets aren't known.
    fn has_without_secrets(&self, id: &WorkerId) -> Result<bool, Failure> {
        let state = self.state.lock();
        let row = state.one(id)?;
        Ok(row.is_some_and(|deployed| deployed.drift.is_some() || deployed.live.secrets.is_empty()))
    }

    fn fingerprints(&self) -> Fingerprints {
        self.state.lock().fingerprints()
    }

    /// Returns what the upload of a change sends: what differs from what is live.
    pub fn sending(&self, secrets: &Secrets, needs: &Needs<'_>, change: &Change) -> Result<Sent, String> {
        let live = self.of(&change.id()).map_err(|failure| failure.to_string())?;
        sent(secrets, needs, live.as_ref(), &self.fingerprints()).map_err(|(missing, _)| missing.to_string())
    }

    /// Returns what it sends where secrets stay as they are, also those that were rotated here: what isn't live, or
    /// all if they can't be kept.
    pub fn keeping(&self, secrets: &Secrets, needs: &Needs<'_>, change: &Change) -> Result<Sent, String> {
        let kept = self.kept(secrets, needs, change).map_err(|failure| failure.to_string())?;
        kept.map_err(|(missing, hidden)| {
            let lacks = lacks(needs.customer, &missing, &hidden);
            format!("no value for {}", lacks.join(", "))
        })
    }

    /// The same, or the secrets that are missing.
    fn kept(&self, secrets: &Secrets, needs: &Needs<'_>, change: &Change) -> Result<Result<Sent, Lacked>, Failure> {
        let known = self.of(&change.id())?;
        let live = known.clone().unwrap_or_default();
        let all_wanted = live.keys().all(|binding| needs.names.contains_key(binding));
        let left: BTreeMap<String, String> = needs
            .names
            .iter()
            .filter(|(binding, _)| !live.contains_key(*binding))
            .map(|(b, n)| (b.clone(), n.clone()))
            .collect();
        if !all_wanted || live.is_empty() {
            return Ok(sent(secrets, needs, known.as_ref(), &self.fingerprints()));
        }
        let left = sent(secrets, &Needs { names: &left, ..*needs }, None, &self.fingerprints());
        Ok(left.map(|mut sent| {
            sent.sending.keep = true;
            sent.sending.live.extend(live);
            sent
        }))
    }

    /// Returns the secrets that the upload of a rollback needs and that have no value here.
    pub fn lacked(&self, secrets: &Secrets, needs: &Needs<'_>, change: &Change) -> Result<Vec<String>, Failure> {
        let kept = self.kept(secrets, needs, change)?;
        Ok(kept.err().map(|(missing, hidden)| lacks(needs.customer, &missing, &hidden)).unwrap_or_default())
    }
}

/// Looks up the bindings of workers where they aren't known here. Of workers that are adopted: bindings that their specs don't have would
/// be removed by the upload, which is refused. And of workers that are in the state without their secrets, if an upload lacks a value: they
/// were changed outside flotilla, or found by a rebuild. Their secrets are kept then.
pub fn look(context: &Context<'_>, planned: &mut Planned) -> Result<(), Failure> {
    let live = LiveSecrets::open(&planned.cloud.state)?;
    let fingerprints = live.fingerprints();
    // With the names of what it is to be bound to, if it is adopted.
    let mut unsure: Vec<(WorkerId, Option<BTreeSet<String>>)> = Vec::new();
    for change in planned.plan.changes.iter().filter(|change| change.steps.contains(&Step::Upload)) {
        let id = change.id();
        let adopted = planned.adopt.contains(&change.worker);
        if !adopted && (live.uncertain.contains(&id) || !live.has_without_secrets(&id)?) {
            continue;
        }
        let Some((worker, _)) = planned.worker(change) else { continue };
        if adopted {
            let bundle = build::module(&planned.project, &planned.runtimes, &worker);
            unsure.push((id, bundle.ok().map(|(_, bundle)| bindings(&bundle.metadata, |_| true))));
        } else if sent(&planned.secrets, &Needs::of(&worker), live.of(&id)?.as_ref(), &fingerprints).is_err() {
            unsure.push((id, None));
        }
    }
    if unsure.is_empty() {
        return Ok(());
    }
    context.operator.begin("reading the bindings of workers", Some(unsure.len() as u64));
    let account_ids = unsure.iter().map(|((home, _), _)| home.account_id.clone()).collect();
    let fleet = &planned.project.fleet;
    let mut requester = PlatformRequester::new(context, fleet, &mut planned.cloud, &planned.secrets, &account_ids)?;
    let mut lost = BTreeSet::new();
    for ((home, worker), wanted) in unsure {
        if let Reply::Settings(settings) = requester.fetch(&home, Call::ReadSettings { worker: worker.clone() })? {
            if let Some(wanted) = wanted {
                // Keys are kept by every upload.
                let there = bindings(&settings, |kind| kind != "secret_key");
                let more: Vec<&str> =
                    there.difference(&wanted).map(String::as_str).filter(|name| *name != DIGEST_VARIABLE).collect();
                if !more.is_empty() {
                    lost.insert(format!("{worker}: {}", more.join(", ")));
                }
            }
            planned.unknown_secrets.insert((home, worker), bindings(&settings, |kind| kind == "secret_text"));
        }
        context.operator.step(1);
    }
    context.operator.end();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Failure::refused("adopting these workers would remove bindings that the specs don't define; nothing was sent")
        .hint(format!(
            "add it to the specs (`secrets`, `vars`, `bindings`), or remove it at Cloudflare first:\n{}",
            first_lines(lost, SHOWN)
        )))
}

/// The names of the bindings of some kinds.
fn bindings(metadata: &Value, kinds: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let all = metadata["bindings"].as_array().into_iter().flatten();
    let some = all.filter(|binding| kinds(binding["type"].as_str().unwrap_or_default()));
    some.filter_map(|binding| binding["name"].as_str().map(str::to_owned)).collect()
}

/// The secrets of one worker's upload that have no value or are too large, each in words.
pub struct Lacking {
    /// The worker.
    pub id: WorkerId,
    missing: Vec<String>,
    large: Vec<String>,
}

impl Lacking {
    /// Returns why the worker can't be uploaded.
    pub fn reason(&self) -> String {
        let missing = self.missing.iter().map(|what| format!("{what} has no value"));
        missing.chain(self.large.iter().cloned()).collect::<Vec<_>>().join("; ")
    }
}

/// Returns the workers whose uploads need a secret that has no value, or too large a one: before the first request.
pub fn lacking(planned: &Planned) -> Result<Vec<Lacking>, Failure> {
    let live = LiveSecrets::of_plan(planned)?;
    let fingerprints = live.fingerprints();
    let mut lacking = Vec::new();
    let uploads: Vec<&Change> =
        planned.plan.changes.iter().filter(|change| change.steps.contains(&Step::Upload)).collect();
    for changes in uploads.chunks(CHUNK) {
        let with_live = changes.iter().map(|change| Ok((*change, live.of(&change.id())?)));
        let with_live: Vec<(&Change, _)> = with_live.collect::<Result<_, Failure>>()?;
        lacking.par_extend(with_live.par_iter().filter_map(|(change, live)| {
            let (worker, _) = planned.worker(change)?;
            let (missing, large) = match sent(&planned.secrets, &Needs::of(&worker), live.as_ref(), &fingerprints) {
                Ok(sent) => (Vec::new(), too_large(planned, &worker, &sent)),
                Err((names, hidden)) => (lacks(&worker.customer, &names, &hidden), Vec::new()),
            };
            let is_fine = missing.is_empty() && large.is_empty();
            (!is_fine).then(|| Lacking { id: change.id(), missing, large })
        }));
    }
    Ok(lacking)
}

/// Returns the error of a plan in which no upload can be made.
pub fn refusal(fleet: &Fleet, lacking: Vec<Lacking>) -> Failure {
    let (mut missing, mut large) = (BTreeSet::new(), BTreeSet::new());
    for one in lacking {
        missing.extend(one.missing);
        large.extend(one.large);
    }
    match refuse_lacked(fleet, missing) {
        Err(failure) => failure,
        Ok(()) => {
            let what = count(large.len(), "secret");
            let is = if large.len() == 1 { "is" } else { "are" };
            Failure::new(format!("{what} {is} too large; nothing was sent")).hint(first_lines(large, SHOWN))
        }
    }
}

/// Fails if secrets have no value, with where each of them is set.
pub fn refuse_lacked(fleet: &Fleet, missing: BTreeSet<String>) -> Result<(), Failure> {
    let number = missing.len();
    if number == 0 {
        return Ok(());
    }
    let what = if number == 1 { "1 secret has".to_owned() } else { format!("{number} secrets have") };
    let to_set = match &fleet.file.secrets {
        None => "set, in the environment or in a dotenv file outside git:",
        Some(_) => "set, in one of the sources of fleet.yaml (`flotilla secrets set NAME`):",
    };
    let is_key = missing.iter().any(|name| name.starts_with(service_key::SOURCE));
    let failure = Failure::new(format!("{what} no value; nothing was sent"))
        .hint(format!("{to_set}\n{}", first_lines(missing, SHOWN)));
    Err(match is_key {
        true => failure.hint(format!("`flotilla secrets rotate {0}` generates {0}", service_key::SOURCE)),
        false => failure,
    })
}

fn lacks(customer: &str, missing: &Missing, hidden: &HashMap<String, Hidden>) -> Vec<String> {
    let each = missing.names.iter().map(|name| {
        let what = format!("{} for {customer}", service_key::wanted(customer, name));
        let removed: Vec<&str> = missing.removed.iter().map(String::as_str).collect();
        match hidden.get(name) {
            Some(Hidden { why, .. }) => format!("{what} ({why})"),
            None if removed.is_empty() => what,
            None => format!("{what} ({} is removed, so all other secrets have to be sent again)", removed.join(", ")),
        }
    });
    each.collect()
}

fn too_large(planned: &Planned, worker: &Worker, sent: &Sent) -> Vec<String> {
    let fleet = &planned.project.fleet;
    let most = fleet.limit(&worker.account, Limit::VariableBytes);
    let sizes = sent.sending.send.iter().map(|binding| (binding, sent.value(binding).map_or(0, str::len) as u64));
    let each = sizes.filter(|(_, size)| *size > most).map(|(binding, size)| {
        let (name, size, most) = (&worker.secrets[binding], grouped(size), grouped(most));
        let raise = fleet.raise(&worker.account, Limit::VariableBytes);
        format!("{name} for {} has {size} bytes, but the limit is {most}; {raise}", worker.customer)
    });
    each.collect()
}
