//! Plans of made-up workers.

use super::*;
use crate::state::DeployedResources;
use flotilla_model::customer::sample as worker;
use serde_json::json;

fn home() -> Home {
    Home { account_id: "a".to_owned(), namespace: None }
}

fn bundle() -> Bundle {
    let digest = Digest::of(b"1");
    Bundle { digest, module: digest, runtime: digest, metadata: json!({"bindings": []}) }
}

fn live(worker: &Worker, bundle: &Bundle) -> (WorkerId, Deployed) {
    let live = DeployedResources {
        etag: String::new(),
        created_on: None,
        workers_dev: worker.workers_dev,
        domains: worker.domains.iter().map(|domain| (domain.clone(), "d".to_owned())).collect(),
        routes: worker.routes.iter().map(|route| (route.pattern.clone(), ("z".to_owned(), "r".to_owned()))).collect(),
        crons: worker.crons.clone(),
        secrets: BTreeMap::from([("S".to_owned(), "1".to_owned())]),
        ..DeployedResources::default()
    };
    let deployed = Deployed {
        account: worker.account.clone(),
        customer: worker.customer.clone(),
        environment: worker.environment,
        digest: bundle.digest,
        revision: 1,
        deployed_at: 1,
        rejected: None,
        drift: None,
        live,
    };
    ((home(), worker.name.clone()), deployed)
}

fn check(
    worker: &Worker,
    bundle: &Bundle,
    secret: &str,
    deployed: &BTreeMap<WorkerId, Deployed>,
    options: &Options<'_>,
) -> Plan {
    let secrets = BTreeMap::from([("S".to_owned(), secret.to_owned())]);
    let id = (home(), worker.name.clone());
    let same = Stored {
        module: Digest::of(b"1"),
        runtime: Digest::of(b"1"),
        runtime_file: String::new(),
        metadata: json!({"bindings": []}),
        source: json!(null),
    };
    let known = RecordedWorker { live: deployed.get(&id), bundle: Some(&same), ..RecordedWorker::default() };
    let mut planner = Planner::new(options);
    planner.add(&id, decide(&Desired { home: home(), worker, bundle, secrets }, &known, options));
    for (id, live) in deployed {
        planner.gone(id, Some(live), None);
    }
    planner.finish()
}

fn whole() -> Options<'static> {
    Options { whole: true, homes: BTreeSet::from([home()]), ..Options::default() }
}

#[test]
fn a_new_worker_takes_one_request_for_each_thing() {
    let plan = check(&worker("acme"), &bundle(), "1", &BTreeMap::new(), &whole());
    assert_eq!(plan.changes[0].action, Action::Create);
    assert_eq!(plan.changes[0].steps.len(), 5);
    assert_eq!(plan.changes[0].steps[0], Step::Upload);
}

#[test]
fn what_is_deployed_needs_nothing() {
    let (worker, bundle) = (worker("acme"), bundle());
    let plan = check(&worker, &bundle, "1", &BTreeMap::from([live(&worker, &bundle)]), &whole());
    assert_eq!((plan.changes.len(), plan.unchanged), (0, 1));
}

#[test]
fn a_changed_bundle_secret_or_cron_takes_one_request() {
    let (mut worker, bundle) = (worker("acme"), bundle());
    let deployed = BTreeMap::from([live(&worker, &bundle)]);
    let other = Bundle { digest: Digest::of(b"2"), module: Digest::of(b"2"), ..bundle.clone() };
    let upload = |plan: Plan| (plan.changes[0].steps.clone(), plan.changes[0].reasons.clone());
    assert_eq!(
        upload(check(&worker, &other, "1", &deployed, &whole())),
        (vec![Step::Upload], vec![Reason::ModuleChanged { old: bundle.module.short(), new: other.module.short() }])
    );
    assert_eq!(
        upload(check(&worker, &bundle, "2", &deployed, &whole())),
        (vec![Step::Upload], vec![Reason::SecretChanged { name: "S".to_owned() }])
    );
    let force = Options { force: Some("CVE"), ..whole() };
    assert_eq!(
        upload(check(&worker, &bundle, "1", &deployed, &force)),
        (vec![Step::Upload], vec![Reason::Forced { reason: "CVE".to_owned() }])
    );
    // What was uploaded since a redeploy for this reason began isn't uploaded by its next run.
    let since = |time| Options { forced_since: Some(time), ..Options { force: Some("CVE"), ..whole() } };
    let at = deployed.values().next().map_or(0, |deployed| deployed.deployed_at);
    assert!(check(&worker, &bundle, "1", &deployed, &since(at - 1)).is_empty());
    assert!(!check(&worker, &bundle, "1", &deployed, &since(at)).is_empty());
    worker.crons.clear();
    let steps = upload(check(&worker, &bundle, "1", &deployed, &whole())).0;
    assert_eq!(steps, vec![Step::SetCrons { crons: BTreeSet::new() }]);
}

#[test]
fn the_digest_is_of_what_is_done_and_where_not_of_why() {
    let (acme, bundle) = (worker("acme"), bundle());
    let deployed = BTreeMap::from([live(&acme, &bundle)]);
    let plan = |options: &Options<'_>| check(&acme, &bundle, "1", &deployed, options);
    let (one, other) = (Options { force: Some("a"), ..whole() }, Options { force: Some("b"), ..whole() });
    let (one, other) = (plan(&one), plan(&other));
    assert_ne!(one.changes[0].reasons, other.changes[0].reasons);
    assert_eq!(one.digest, other.digest);
    let change = |edit: &dyn Fn(&mut Change)| {
        let mut change = one.changes[0].clone();
        edit(&mut change);
        PlannedAction::digest([PlannedAction::of(&change)], [], [])
    };
    assert_eq!(change(&|_| {}), one.digest);
    let edits: [&dyn Fn(&mut Change); 8] = [
        &|change| change.home.account_id = "b".to_owned(),
        &|change| change.home.namespace = Some(String::new()),
        &|change| change.worker.push('x'),
        &|change| change.digest = Digest::of(b"3"),
        &|change| change.was = None,
        &|change| change.wave = 1,
        &|change| change.steps.push(Step::Delete),
        &|change| change.action = Action::Create,
    ];
    let mut seen: BTreeSet<Digest> = edits.iter().map(|edit| change(edit)).collect();
    seen.insert(one.digest);
    assert_eq!(seen.len(), 9, "each of them is another plan");
    let action = PlannedAction::of(&one.changes[0]);
    let read: PlannedAction = serde_json::from_slice(&serde_json::to_vec(&action).unwrap()).unwrap();
    assert_eq!(read, action);
    assert!(!serde_json::to_string(&action).unwrap().contains("\"a\""), "an account's id is in it");
}

#[test]
fn a_worker_without_a_spec_is_deleted_only_by_pruning_the_whole_fleet() {
    let (acme, bundle) = (worker("acme"), bundle());
    let deployed = BTreeMap::from([live(&acme, &bundle), live(&worker("gone"), &bundle)]);
    let plan = check(&acme, &bundle, "1", &deployed, &whole());
    assert_eq!((plan.changes.len(), plan.orphans.len()), (0, 1));
    let pruned = check(&acme, &bundle, "1", &deployed, &Options { prune: true, ..whole() });
    assert_eq!(pruned.changes[0].action, Action::Delete);
    assert_eq!(pruned.changes[0].steps.last(), Some(&Step::Delete));
    let partial = check(&acme, &bundle, "1", &deployed, &Options { prune: true, ..Options::default() });
    assert_eq!((partial.changes.len(), partial.orphans.len()), (0, 0));
    let invalid = Options { prune: true, invalid: BTreeSet::from(["gone".to_owned()]), ..whole() };
    let held = check(&acme, &bundle, "1", &deployed, &invalid);
    assert_eq!((held.changes.len(), held.held.len()), (0, 1), "an invalid spec never implies a deletion");
}

#[test]
fn workers_are_uploaded_after_those_that_their_bindings_name() {
    let ranks = |workers: &[(&str, Action, &[&str])]| {
        let mut changes: Vec<Change> = workers
            .iter()
            .map(|(name, action, refers)| {
                let mut change = Change::made_up(name, *action);
                change.worker = (*name).to_owned();
                change.refers = refers.iter().map(|name| (*name).to_owned()).collect();
                change
            })
            .collect();
        rank::rank(&mut changes);
        changes.into_iter().map(|change| change.rank).collect::<Vec<_>>()
    };
    use Action::{Create, Delete, Update};
    assert_eq!(ranks(&[("a", Create, &[]), ("b", Update, &[])]), [0, 0]);
    assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Create, &["c"]), ("c", Create, &[])]), [2, 1, 0]);
    assert_eq!(ranks(&[("a", Create, &["a", "elsewhere"]), ("b", Create, &["a"])]), [0, 1], "itself is no need");
    // In a circle, the one that is new comes first, whichever name it has.
    assert_eq!(ranks(&[("a", Update, &["b"]), ("b", Create, &["a"])]), [1, 0]);
    assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Update, &["a"]), ("c", Create, &["a"])]), [0, 1, 2]);
    // What points to workers that are all new comes after the uploads, and the one that needs them after that.
    assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Create, &["a"]), ("c", Update, &["a"])]), [2, 2, 3]);
    assert_eq!(ranks(&[("a", Create, &["b"]), ("b", Delete, &[])]), [0, 0]);
}

#[test]
fn a_queue_gets_its_new_consumer_after_it_lost_the_old_one() {
    let change = |name: &str, takes: &[&str], gives: &[&str]| {
        let mut change = Change::made_up(name, Action::Update);
        let set = |queue: &&str| Step::SetConsumer { queue: (*queue).to_owned(), consumer: QueueConsumer::default() };
        let remove = |queue: &&str| Step::RemoveConsumer { queue: (*queue).to_owned() };
        change.steps = takes.iter().map(set).chain(gives.iter().map(remove)).collect();
        change
    };
    let ranks = |mut changes: Vec<Change>| {
        rank::rank(&mut changes);
        changes.into_iter().map(|change| change.rank).collect::<Vec<_>>()
    };
    assert_eq!(ranks(vec![change("a", &["q"], &[]), change("b", &[], &["q"]), change("c", &["r"], &[])]), [1, 0, 0]);
    assert_eq!(ranks(vec![change("a", &["q"], &["r"]), change("b", &[], &["q"]), change("c", &["r"], &[])]), [1, 0, 2]);
    let mut elsewhere = change("b", &[], &["q"]);
    elsewhere.home.account_id = "b".to_owned();
    assert_eq!(ranks(vec![change("a", &["q"], &[]), elsewhere]), [0, 0]);
}

#[test]
fn deliveries_that_are_not_ours_are_held() {
    let mut acme = worker("acme");
    acme.delivery = Delivery::Manual;
    assert_eq!(check(&acme, &bundle(), "1", &BTreeMap::new(), &whole()).held.len(), 1);
    let named = ["acme".to_owned()];
    let options = Options { named: &named, ..Options::default() };
    assert_eq!(check(&acme, &bundle(), "1", &BTreeMap::new(), &options).changes.len(), 1);
}
