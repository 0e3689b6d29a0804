//! Tests of each finding, from lists as the platform would return them.

use super::*;
use flotilla_model::platform::{Call, CallError, ListedRoute, Reply};

const FLEET: &str = "shop";

fn home() -> Home {
    outside("a")
}

fn id(name: &str) -> WorkerId {
    (home(), name.to_owned())
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A fleet, its state and a cloud that agree; each test changes one of them.
struct World {
    rows: BTreeMap<WorkerId, Row>,
    wanted: BTreeMap<WorkerId, Wanted>,
    held: BTreeSet<String>,
    adopt: BTreeSet<String>,
    uncertain: BTreeSet<WorkerId>,
    whole: bool,
    anew: bool,
    inventory: Inventory,
}

fn listed(name: &str, tags: &[String]) -> ListedWorker {
    ListedWorker {
        name: name.to_owned(),
        etag: format!("etag of {name}"),
        created_on: "2026-01-01T00:00:00Z".to_owned(),
        modified_on: "2026-02-02T00:00:00Z".to_owned(),
        uploaded_by: Some("api".to_owned()),
        tags: tags.to_vec(),
        ..ListedWorker::default()
    }
}

fn tags_of(fleet: &str, digest: Digest, triggers: &Triggers, customer: &str) -> Vec<String> {
    let triggers = triggers.digest().short();
    vec![
        format!("flotilla-{fleet}"),
        format!("digest-{digest}"),
        format!("triggers-{triggers}"),
        format!("customer-{customer}"),
        "environment-production".to_owned(),
    ]
}

fn asked(workers_dev: bool, crons: &[&str]) -> AskedTriggers {
    AskedTriggers { workers_dev, preview_urls: false, crons: names(crons) }
}

impl World {
    /// Returns a world with one worker, `w-acme`, with a domain, a route and a cron.
    fn new() -> World {
        let triggers = Triggers {
            workers_dev: true,
            domains: names(&["acme.example"]),
            patterns: names(&["acme.test/*"]),
            crons: names(&["* * * * *"]),
            ..Triggers::default()
        };
        let wanted = Wanted {
            account: "default".to_owned(),
            customer: "acme".to_owned(),
            environment: Environment::Production,
            digest: digest("1"),
            triggers: triggers.clone(),
            zones: names(&["acme.test"]),
            ours: true,
        };
        let row = Row {
            account: "default".to_owned(),
            customer: "acme".to_owned(),
            environment: Environment::Production,
            digest: Some(digest("1")),
            etag: "etag of w-acme".to_owned(),
            workers_dev: true,
            preview_urls: false,
            domains: BTreeMap::from([("acme.example".to_owned(), "d".to_owned())]),
            routes: BTreeMap::from([("acme.test/*".to_owned(), ("z".to_owned(), "r".to_owned()))]),
            crons: triggers.crons.clone(),
            consumers: BTreeMap::new(),
            workflows: BTreeMap::new(),
            migration_tag: None,
        };
        let mut inventory = Inventory::default();
        let worker = listed("w-acme", &tags_of(FLEET, digest("1"), &triggers, "acme"));
        inventory.workers.insert(home(), BTreeMap::from([("w-acme".to_owned(), worker)]));
        let domain =
            ListedDomain { id: "d".to_owned(), hostname: "acme.example".to_owned(), worker: "w-acme".to_owned() };
        inventory.domains.insert("a".to_owned(), vec![domain]);
        let route =
            ListedRoute { id: "r".to_owned(), pattern: "acme.test/*".to_owned(), worker: Some("w-acme".to_owned()) };
        inventory.zones.insert("z".to_owned(), Zone { account_id: "a".to_owned(), routes: vec![route] });
        World {
            rows: BTreeMap::from([(id("w-acme"), row)]),
            wanted: BTreeMap::from([(id("w-acme"), wanted)]),
            held: BTreeSet::new(),
            adopt: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            whole: true,
            anew: false,
            inventory,
        }
    }

    fn worker(&mut self, name: &str) -> &mut ListedWorker {
        self.inventory.workers.get_mut(&home()).unwrap().get_mut(name).unwrap()
    }

    fn list(&mut self, worker: ListedWorker) {
        self.inventory.workers.get_mut(&home()).unwrap().insert(worker.name.clone(), worker);
    }

    /// Returns the result of a refresh, and the workers that have to be requested.
    fn refresh(&self) -> (Refreshed, Vec<String>) {
        self.with(|known| {
            let asked = unclear(&self.inventory, known).into_iter().map(|(_, name)| name).collect();
            (refresh(&self.inventory, known), asked)
        })
    }

    fn with<T>(&self, run: impl FnOnce(&Baseline<'_>) -> T) -> T {
        let accounts = BTreeMap::from([("a".to_owned(), "default".to_owned())]);
        run(&Baseline {
            fleet: FLEET,
            accounts: &accounts,
            rows: &self.rows,
            wanted: &self.wanted,
            held: &self.held,
            whole: self.whole,
            adopt: &self.adopt,
            uncertain: &self.uncertain,
            anew: self.anew,
        })
    }

    #[track_caller]
    fn finds(&self, expected: &[&str]) -> Refreshed {
        let refreshed = self.refresh().0;
        let kinds: Vec<&str> = refreshed.findings.iter().map(|finding| finding.what.kind()).collect();
        assert_eq!(kinds, expected, "{:#?}", refreshed.findings);
        // Each names its subject.
        for finding in &refreshed.findings {
            assert_eq!(finding.account, "default");
            assert!(finding.text().contains(&finding.worker), "{}", finding.text());
        }
        refreshed
    }
}

#[test]
fn what_agrees_is_unchanged_and_nobody_is_asked() {
    let world = World::new();
    let refreshed = world.finds(&[]);
    assert_eq!(refreshed.rows, world.rows);
    assert_eq!(refreshed.unchanged, 1);
    assert_eq!(world.refresh().1, [""; 0]);
}

#[test]
fn a_machine_without_a_state_takes_the_tags_word() {
    let mut world = World::new();
    let rows = std::mem::take(&mut world.rows);
    let refreshed = world.finds(&["deployed elsewhere"]);
    assert_eq!(refreshed.rows, rows, "all of it comes back, the ids of domains and routes included");
    assert_eq!(world.refresh().1, [""; 0], "and no worker is asked by itself");
    assert!(refreshed.reasons.is_empty());
}

#[test]
fn triggers_are_asked_for_where_the_tags_do_not_settle_them() {
    let mut world = World::new();
    let rows = std::mem::take(&mut world.rows);
    // Its upload was the last that was heard of the change.
    world.worker("w-acme").tags[2] = world.worker("w-acme").tags[2].replace("triggers-", "pending-");
    assert_eq!(world.refresh().1, ["w-acme"]);
    // Or other triggers are wanted than those that were there with the upload.
    let mut other = World::new();
    other.rows.clear();
    other.wanted.get_mut(&id("w-acme")).unwrap().triggers.crons = names(&["0 0 * * *"]);
    assert_eq!(other.refresh().1, ["w-acme"]);
    // Or it is of a time before there was such a tag.
    let mut old = World::new();
    old.rows.clear();
    old.worker("w-acme").tags.truncate(2);
    assert_eq!(old.refresh().1, ["w-acme"]);
    // Or a change of it was begun, and nobody knows how it ended.
    let mut in_flight = World::new();
    in_flight.uncertain.insert(id("w-acme"));
    assert_eq!(in_flight.refresh().1, ["w-acme"]);
    // What is said then counts.
    world.inventory.triggers.insert(id("w-acme"), asked(false, &["5 5 * * *"]));
    let refreshed = world.finds(&["deployed elsewhere"]);
    let row = &refreshed.rows[&id("w-acme")];
    assert_eq!((row.workers_dev, &row.crons), (false, &names(&["5 5 * * *"])));
    assert_eq!(row.domains, rows[&id("w-acme")].domains);
    // They aren't as desired, and so no tag says that they are.
    let tagged = |world: &World| world.with(|known| tagged(&world.inventory, known, &refresh(&world.inventory, known)));
    assert_eq!(tagged(&world), []);
    world.inventory.triggers.insert(id("w-acme"), asked(true, &["* * * * *"]));
    let tags = &tagged(&world)[0].1;
    world.worker("w-acme").tags.clone_from(tags);
    assert_eq!(world.refresh().1, [""; 0], "so nobody has to be asked again");
    assert_eq!(tagged(&world), []);
}

#[test]
fn a_record_that_is_made_anew_takes_no_rows_word_for_triggers() {
    let mut world = World::new();
    world.rows.get_mut(&id("w-acme")).unwrap().crons = names(&["1 1 * * *"]);
    assert_eq!(world.finds(&[]).rows, world.rows);
    world.anew = true;
    assert_eq!(world.refresh().1, [""; 0]);
    assert_eq!(world.finds(&[]).rows[&id("w-acme")].crons, names(&["* * * * *"]), "the tag's word");
    world.worker("w-acme").tags.remove(2);
    assert_eq!(world.refresh().1, ["w-acme"]);
    // But that others changed it, the row tells.
    world.worker("w-acme").etag = "another".to_owned();
    world.finds(&["drift"]);
}

#[test]
fn a_newer_digest_of_ours_is_taken_over() {
    let mut world = World::new();
    world.worker("w-acme").tags[1] = format!("digest-{}", digest("2"));
    world.worker("w-acme").etag = "another".to_owned();
    let refreshed = world.finds(&["deployed elsewhere"]);
    let row = &refreshed.rows[&id("w-acme")];
    assert_eq!((row.digest, row.etag.as_str()), (Some(digest("2")), "another"));
}

#[test]
fn what_others_changed_loses_its_digest() {
    let by_wrangler = |worker: &mut ListedWorker| {
        // wrangler sends no tags, and so ours stay.
        worker.uploaded_by = Some("wrangler".to_owned());
        worker.etag = "another".to_owned();
    };
    let mut world = World::new();
    by_wrangler(world.worker("w-acme"));
    let refreshed = world.finds(&["drift"]);
    assert_eq!(refreshed.rows[&id("w-acme")].digest, None);
    assert_eq!(refreshed.reasons[&id("w-acme")].to_string(), "it was changed by wrangler at 2026-02-02T00:00:00Z");
    assert_eq!(world.refresh().1, ["w-acme"], "its triggers may be others, too");
    // It stays changed until it is uploaded again.
    world.rows = refreshed.rows;
    assert_eq!(world.finds(&["drift"]).rows[&id("w-acme")].digest, None);

    // The same code with other assets or variables has the same ETag.
    let mut same_code = World::new();
    same_code.worker("w-acme").uploaded_by = Some("wrangler".to_owned());
    assert_eq!(same_code.finds(&["drift"]).rows[&id("w-acme")].digest, None);

    // Without a state, what last uploaded it tells.
    let mut bare = World::new();
    bare.rows.clear();
    by_wrangler(bare.worker("w-acme"));
    assert_eq!(bare.finds(&["drift"]).rows[&id("w-acme")].digest, None);

    // Other content with the tags that we gave it.
    let mut api = World::new();
    api.worker("w-acme").etag = "another".to_owned();
    assert!(api.finds(&["drift"]).reasons[&id("w-acme")].to_string().starts_with("it was changed outside flotilla"));

    // And without any tag: a spec defines it and the state has it, so it is fixed.
    let mut bald = World::new();
    bald.worker("w-acme").tags.clear();
    assert_eq!(bald.finds(&["drift"]).rows[&id("w-acme")].digest, None);
}

#[test]
fn a_worker_that_is_gone_is_created_again() {
    let mut world = World::new();
    world.inventory.workers.get_mut(&home()).unwrap().clear();
    world.inventory.domains.get_mut("a").unwrap().clear();
    world.inventory.zones.get_mut("z").unwrap().routes.clear();
    let refreshed = world.finds(&["missing"]);
    assert!(refreshed.rows.is_empty());
    assert_eq!(refreshed.reasons[&id("w-acme")], Reason::Missing);
    // In a home that was not listed, nothing is missing.
    world.inventory.workers.clear();
    world.inventory.domains.clear();
    world.inventory.zones.clear();
    assert_eq!(world.finds(&[]).rows, world.rows);
}

#[test]
fn a_worker_of_others_is_left_alone_unless_it_is_adopted() {
    for tags in [vec![], vec!["flotilla-else".to_owned(), format!("digest-{}", digest("1"))]] {
        let mut world = World::new();
        if tags.is_empty() {
            world.rows.clear();
        }
        world.worker("w-acme").tags = tags.clone();
        let refreshed = world.refresh().0;
        assert_eq!(refreshed.findings[0].what.kind(), "not managed");
        assert!(refreshed.rows.is_empty() && refreshed.unowned.contains_key(&id("w-acme")));
        assert_eq!(refreshed.findings[0].text().contains("the fleet else"), !tags.is_empty());
        assert_eq!(world.refresh().1, [""; 0]);
        world.adopt = names(&["w-acme"]);
        let refreshed = world.finds(&["adopted"]);
        assert_eq!(refreshed.rows[&id("w-acme")].digest, None);
        assert!(refreshed.unowned.is_empty());
        assert_eq!(refreshed.reasons[&id("w-acme")], Reason::Adopted);
    }
}

#[test]
fn a_worker_of_others_that_nobody_wants_is_not_mentioned() {
    let mut world = World::new();
    world.list(listed("dashboard", &[]));
    world.list(listed("w-else", &tags_of("else", digest("1"), &Triggers::default(), "acme")));
    assert_eq!(world.finds(&[]).rows, world.rows);
}

#[test]
fn an_orphan_is_found_with_and_without_a_row() {
    let mut world = World::new();
    world.list(listed("w-gone", &tags_of(FLEET, digest("1"), &Triggers::default(), "gone")));
    let refreshed = world.finds(&["orphan", "deployed elsewhere"]);
    assert_eq!(refreshed.rows[&id("w-gone")].customer, "gone");
    world.rows = refreshed.rows;
    world.finds(&["orphan"]);
    // A spec with errors may be its.
    world.held = names(&["gone"]);
    assert!(world.finds(&[]).rows.contains_key(&id("w-gone")));
    world.held = names(&["else"]);
    world.finds(&["orphan"]);
    // Of a part of the fleet, nothing is known of the rest.
    (world.held, world.whole) = (BTreeSet::new(), false);
    assert!(world.finds(&[]).rows.contains_key(&id("w-gone")));
}

#[test]
fn an_orphan_of_nobody_waits_until_all_specs_are_right() {
    let mut world = World::new();
    let mut tags = tags_of(FLEET, digest("1"), &Triggers::default(), "gone");
    tags.truncate(2);
    world.list(listed("w-gone", &tags));
    world.finds(&["orphan", "deployed elsewhere"]);
    world.held = names(&["else"]);
    assert!(!world.finds(&["deployed elsewhere"]).rows.contains_key(&id("w-gone")));
}

#[test]
fn a_worker_on_record_that_somebody_else_took_is_not_deleted() {
    let mut world = World::new();
    world.wanted.clear();
    world.worker("w-acme").tags.clear();
    let refreshed = world.refresh().0;
    assert!(refreshed.rows.is_empty(), "without a row, no plan deletes it");
    assert_eq!(refreshed.findings[0].what.kind(), "drift");
}

#[test]
fn domains_that_lead_elsewhere() {
    let hold =
        |world: &mut World, worker: &str| world.inventory.domains.get_mut("a").unwrap()[0].worker = worker.to_owned();
    let mut world = World::new();
    world.list(listed("dashboard", &[]));
    hold(&mut world, "dashboard");
    let refreshed = world.finds(&["domain held", "domain moved"]);
    assert!(refreshed.rows[&id("w-acme")].domains.is_empty());
    assert!(refreshed.findings[0].text().contains("takeOver"), "{}", refreshed.findings[0].text());

    let mut gone = World::new();
    gone.inventory.domains.get_mut("a").unwrap().clear();
    assert!(gone.finds(&["domain gone"]).rows[&id("w-acme")].domains.is_empty());

    let mut added = World::new();
    let more = ListedDomain { id: "e".to_owned(), hostname: "more.example".to_owned(), worker: "w-acme".to_owned() };
    added.inventory.domains.get_mut("a").unwrap().push(more);
    let rows = added.finds(&["domain added"]).rows;
    assert_eq!(rows[&id("w-acme")].domains["more.example"], "e", "so that the plan takes it away");

    // Another worker of ours has it: it moves from row to row.
    let mut moved = World::new();
    moved.list(listed("w-bee", &tags_of(FLEET, digest("1"), &Triggers::default(), "bee")));
    let bee =
        Wanted { customer: "bee".to_owned(), triggers: Triggers::default(), ..moved.wanted[&id("w-acme")].clone() };
    moved.wanted.insert(id("w-bee"), bee);
    hold(&mut moved, "w-bee");
    let refreshed = moved.finds(&["domain moved", "deployed elsewhere"]);
    assert!(refreshed.rows[&id("w-acme")].domains.is_empty());
    assert_eq!(refreshed.rows[&id("w-bee")].domains["acme.example"], "d");
}

#[test]
fn domains_and_routes_that_wait_for_whoever_takes_the_name() {
    let mut world = World::new();
    let domain = |worker: &str| ListedDomain {
        id: "o".to_owned(),
        hostname: format!("{worker}.example"),
        worker: worker.to_owned(),
    };
    let route = |worker: &str| ListedRoute {
        id: "o".to_owned(),
        pattern: format!("{worker}.test/*"),
        worker: Some(worker.to_owned()),
    };
    world.list(listed("w-gone", &tags_of(FLEET, digest("1"), &Triggers::default(), "gone")));
    world.list(listed("dashboard", &[]));
    for worker in ["nobody", "w-gone", "dashboard"] {
        world.inventory.domains.get_mut("a").unwrap().push(domain(worker));
        world.inventory.zones.get_mut("z").unwrap().routes.push(route(worker));
    }
    // A route to no worker keeps requests from all of them: that is meant so.
    let none = ListedRoute { id: "n".to_owned(), pattern: "acme.test/none".to_owned(), worker: None };
    world.inventory.zones.get_mut("z").unwrap().routes.push(none);
    let refreshed = world.refresh().0;
    let findings: Vec<(&str, &str)> =
        refreshed.findings.iter().map(|finding| (finding.what.kind(), finding.worker.as_str())).collect();
    assert_eq!(
        findings,
        [
            ("orphan", "w-gone"),
            ("orphaned domain", "nobody"),
            ("orphaned domain", "w-gone"),
            ("orphaned route", "nobody"),
            ("orphaned route", "w-gone"),
            ("deployed elsewhere", "w-gone"),
        ]
    );
    assert!(refreshed.findings[1].text().contains("does not exist"), "{}", refreshed.findings[1].text());
    assert!(refreshed.findings[2].text().contains("no spec defines"), "{}", refreshed.findings[2].text());
    // With errors in its spec, its domains are nobody's to take.
    world.held = names(&["gone"]);
    let kinds: Vec<_> = world.refresh().0.findings.iter().map(|finding| finding.worker.clone()).collect();
    assert_eq!(kinds, ["nobody", "nobody", "w-gone"]);
}

#[test]
fn routes_that_lead_elsewhere() {
    let set = |world: &mut World, worker: Option<&str>| {
        world.inventory.zones.get_mut("z").unwrap().routes[0].worker = worker.map(str::to_owned);
    };
    for holder in [None, Some("dashboard")] {
        let mut world = World::new();
        world.list(listed("dashboard", &[]));
        set(&mut world, holder);
        assert!(world.finds(&["route moved"]).rows[&id("w-acme")].routes.is_empty());
    }
    let mut gone = World::new();
    gone.inventory.zones.get_mut("z").unwrap().routes.clear();
    assert!(gone.finds(&["route gone"]).rows[&id("w-acme")].routes.is_empty());
    let mut added = World::new();
    let more =
        ListedRoute { id: "s".to_owned(), pattern: "acme.test/more".to_owned(), worker: Some("w-acme".to_owned()) };
    added.inventory.zones.get_mut("z").unwrap().routes.push(more);
    assert_eq!(added.finds(&["route added"]).rows[&id("w-acme")].routes["acme.test/more"].1, "s");
}

#[test]
fn what_others_deliver_is_none_of_ours() {
    let mut world = World::new();
    world.rows.clear();
    world.wanted.get_mut(&id("w-acme")).unwrap().ours = false;
    world.worker("w-acme").tags.clear();
    world.worker("w-acme").uploaded_by = Some("wrangler".to_owned());
    assert!(world.finds(&[]).rows.is_empty());
}

#[test]
fn the_scope_is_one_list_for_each_thing_in_use() {
    let world = World::new();
    let by_id = Scope::of(&world.rows, &world.wanted, |_, _| Some("z".to_owned()));
    assert_eq!(by_id.requests(), 3, "{by_id:?}");
    let by_name = Scope::of(&BTreeMap::new(), &world.wanted, |_, _| None);
    assert_eq!(by_name.named_zones, BTreeSet::from([("a".to_owned(), "acme.test".to_owned())]));
    // In a namespace there are no triggers, so that one list is all.
    let inside = Home { namespace: Some("n".to_owned()), ..home() };
    let wanted =
        Wanted { triggers: Triggers::default(), zones: BTreeSet::new(), ..world.wanted[&id("w-acme")].clone() };
    let scope = Scope::of(&BTreeMap::new(), &BTreeMap::from([((inside, "w".to_owned()), wanted)]), |_, _| None);
    assert_eq!(scope.requests(), 1);

    // And this number of requests is sent.
    let mut asked = Vec::new();
    let inventory = take(&by_name, &mut |_: &Home, call: Call| -> Result<Reply, CallError> {
        let (name, reply) = match call {
            Call::ListWorkers { .. } => ("workers", Reply::Workers(vec![listed("w-acme", &[])].into())),
            Call::ListDomains { .. } => ("domains", Reply::Domains(Vec::new().into())),
            Call::FindZone { .. } => ("zone", Reply::Id("z".to_owned())),
            Call::ListRoutes { .. } => ("routes", Reply::Routes(Vec::new().into())),
            _ => panic!("nobody asked for that"),
        };
        asked.push(name);
        Ok(reply)
    })
    .unwrap();
    assert_eq!(asked, ["workers", "domains", "zone", "routes"]);
    assert_eq!(inventory.found.values().collect::<Vec<_>>(), ["z"]);
    assert!(inventory.zones.contains_key("z") && inventory.workers[&home()].contains_key("w-acme"));
}
