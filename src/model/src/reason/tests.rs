//! The wording of reasons, and their form as JSON.

use serde_json::json;
use strum::VariantNames as _;

use super::*;

/// A reason of each kind, and the sentence that it is shown as.
fn samples() -> Vec<(Reason, &'static str)> {
    let text = str::to_owned;
    let crons = |crons: &[&str]| crons.iter().map(|cron| text(cron)).collect::<BTreeSet<String>>();
    let name = || text("DB");
    let file = || text("templates/tiny/a.tera");
    let (old, new) = (|| text("1"), || text("2"));
    let value = |old: Option<Value>, new: Option<Value>, place: Option<Position>| {
        let (old, new) = (old.as_ref().map(Excerpt::from), new.as_ref().map(Excerpt::from));
        Reason::ValueChanged(Box::new(ValueChange { path: text("vars.A"), old, new, place }))
    };
    let place = || Some(Position { file: text("customers/a.yaml"), line: 3, column: 19 });
    let metadata =
        |old, new| Reason::MetadataChanged(Box::new(MetadataChange { name: text("compatibilityFlags"), old, new }));
    let long = json!("é".repeat(200));
    let outside = |at: &str, by: Option<&str>| Reason::ChangedOutside { at: text(at), by: by.map(str::to_owned) };
    vec![
        (Reason::New, "it is new"),
        (Reason::Missing, "it is no longer at Cloudflare"),
        (Reason::Recreated, "it was deleted outside flotilla and recreated without its secrets"),
        (
            Reason::CreatedFirst { without: vec![text("b"), text("c"), text("d")] },
            "created first without its bindings to b, c, d, bound in a cycle",
        ),
        (Reason::BindingsMissing { without: vec![text("b")] }, "created without its bindings to b"),
        (Reason::Forced { reason: text("a → b") }, "forced: a → b"),
        (Reason::UploadInterrupted, "an earlier upload was interrupted"),
        (Reason::ChangeInterrupted, "an earlier change of it was interrupted"),
        (value(Some(json!("1")), Some(json!([2])), place()), "customers/a.yaml:3:19 vars.A \"1\" → [2]"),
        (value(Some(Value::Null), None, None), "vars.A null → nothing"),
        (
            value(None, Some(long), None),
            "vars.A nothing → \"ééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé…",
        ),
        (value(Some(json!("x".repeat(78))), Some(json!("…")), None), {
            "vars.A \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\" → \"…\""
        }),
        (metadata(Value::Null, json!(["a"])), "compatibilityFlags none → [\"a\"]"),
        (Reason::BindingAdded { name: name() }, "DB added"),
        (Reason::BindingChanged { name: name() }, "DB changed"),
        (Reason::BindingRemoved { name: name() }, "DB removed"),
        (Reason::PackBundleChanged { old: None, new: None }, "the pack's bundle changed"),
        (Reason::PackBundleChanged { old: Some(old()), new: Some(new()) }, "the pack's bundle changed: 1 → 2"),
        (Reason::ModuleChanged { old: old(), new: new() }, "the module changed"),
        (Reason::BundleChanged { old: old(), new: new() }, "the bundle changed"),
        (Reason::SourceUnknown { old: old(), new: new() }, "its bundle changed"),
        (Reason::TemplateChanged { file: file() }, "templates/tiny/a.tera changed"),
        (Reason::TemplateAdded { file: file() }, "templates/tiny/a.tera is included now"),
        (Reason::TemplateRemoved { file: file() }, "templates/tiny/a.tera is no longer included"),
        (Reason::SourceChanged { file: file() }, "templates/tiny/a.tera changed"),
        (Reason::SourceAdded { file: file() }, "templates/tiny/a.tera is bundled now"),
        (Reason::SourceRemoved { file: file() }, "templates/tiny/a.tera is no longer bundled"),
        (Reason::AssetChanged { file: file() }, "templates/tiny/a.tera changed"),
        (Reason::AssetAdded { file: file() }, "templates/tiny/a.tera is a new asset"),
        (Reason::AssetRemoved { file: file() }, "templates/tiny/a.tera is no longer an asset"),
        (Reason::ToolChanged { old: old(), new: new() }, "flotilla itself changed: 1 → 2"),
        (Reason::SecretChanged { name: text("KEY") }, "secret KEY changed"),
        (Reason::SecretLost { name: text("KEY") }, "secret KEY is no longer set at Cloudflare"),
        (Reason::SecretMissing { name: text("KEY") }, "secret KEY has no value here"),
        (Reason::DomainAdded { new: text("a.example") }, "domain a.example added"),
        (Reason::DomainRemoved { old: text("a.example") }, "domain a.example removed"),
        (Reason::DomainTaken { domain: text("a.example"), old: text("w") }, "domain a.example is taken from w"),
        (Reason::RouteTaken { pattern: text("a.example/*"), old: text("w") }, "route a.example/* is taken from w"),
        (Reason::DatabaseCreated { new: text("a-db") }, "D1 database a-db is created unless it exists"),
        (
            Reason::DatabaseMigrated { database: text("a-db"), new: text("0001_a.sql") },
            "migration 0001_a.sql applied to D1 database a-db",
        ),
        (Reason::RouteAdded { new: text("a.example/*") }, "route a.example/* added"),
        (Reason::RouteRemoved { old: text("a.example/*") }, "route a.example/* removed"),
        (Reason::WorkersDev { old: false, new: true }, "workers.dev on"),
        (Reason::WorkersDev { old: true, new: false }, "workers.dev off"),
        (Reason::PreviewUrls { old: false, new: true }, "preview URLs on"),
        (Reason::Crons { old: crons(&["* * * * *"]), new: crons(&[]) }, "crons removed"),
        (Reason::Crons { old: crons(&[]), new: crons(&["0 4 * * *", "* * * * *"]) }, "crons * * * * *, 0 4 * * *"),
        (Reason::QueueCreated { new: text("q") }, "queue q is created unless it exists"),
        (Reason::ConsumerAdded { new: text("q") }, "consumes queue q"),
        (Reason::ConsumerChanged { queue: text("q") }, "consumes queue q with other settings"),
        (Reason::ConsumerRemoved { old: text("q") }, "no longer consumes queue q"),
        (Reason::WorkflowDeployed { new: text("w") }, "workflow w deployed"),
        (
            Reason::WorkflowKept { old: text("w") },
            "workflow w is no longer defined: it stays at Cloudflare with its instances",
        ),
        (Reason::Migrated { old: None, new: text("v2") }, "Durable Object migrations none → v2"),
        (Reason::Migrated { old: Some(text("v1")), new: text("v2") }, "Durable Object migrations v1 → v2"),
        (Reason::ClassDeleted { class: text("A") }, "the Durable Object class A is deleted with all of its data"),
        (
            Reason::ClassUnbound { class: text("A") },
            "the Durable Object class A is unbound; the next deploy deletes it with all of its data, and the code has to export it until then",
        ),
        (outside("T", Some("wrangler")), "it was changed by wrangler at T"),
        (outside("", None), "it was changed outside flotilla"),
        (Reason::Adopted, "it is adopted"),
        (Reason::NotManaged, "it is no longer managed by this fleet"),
        (Reason::Orphaned, "no spec defines it"),
        (Reason::ObjectsDestroyed, "its Durable Objects and their data are destroyed"),
        (
            Reason::RolledBack { record: 7, at: 86_400, old: old(), new: new() },
            "rolled back to record 7, 2 of 1970-01-02T00:00:00Z",
        ),
        (Reason::NotRemembered, "it is new, or not in the build cache"),
        (Reason::OutputMissing { file: text("out/a") }, "out/a is missing"),
        (Reason::OutputEdited { file: text("out/a") }, "out/a was edited"),
        (Reason::ValuesChanged, "its values changed"),
        (Reason::RecipeChanged, "its templates, its pack's bundle or flotilla itself have changed"),
        (Reason::Recorded { text: text("the pack's bundle changed") }, "the pack's bundle changed"),
    ]
}

#[test]
fn each_kind_has_its_sentence_and_is_read_as_it_was_written() {
    let mut kinds = BTreeSet::new();
    for (reason, sentence) in samples() {
        assert_eq!(reason.to_string(), sentence);
        let written = serde_json::to_value(&reason).unwrap();
        let kind: &str = (&reason).into();
        assert_eq!(written["kind"], kind, "the tag is the kind");
        let read: Reason = serde_json::from_str(&written.to_string()).unwrap();
        assert_eq!(read, reason, "{written}");
        let detail = &details(std::slice::from_ref(&reason))[0];
        assert!(COMMON_FIELDS.iter().all(|field| detail.get(field).is_some()), "{detail}");
        kinds.insert(kind.to_owned());
    }
    assert_eq!(
        kinds,
        Reason::VARIANTS.iter().map(|kind| (*kind).to_owned()).collect(),
        "each kind has a sample, and each kind is one cause"
    );
    assert_eq!(kinds.len(), Reason::VARIANTS.len());
}

#[test]
fn patterns_leave_out_what_differs_from_worker_to_worker() {
    let patterns: BTreeSet<String> =
        samples().iter().map(|(reason, _)| reason.pattern()).filter(|pattern| pattern.contains('…')).collect();
    let expected = [
        "D1 database … is created unless it exists",
        "compatibilityFlags … → …",
        "consumes queue …",
        "consumes queue … with other settings",
        "created first without its bindings to …, bound in a cycle",
        "created without its bindings to …",
        "crons …",
        "domain … added",
        "domain … removed",
        "flotilla itself changed: … → …",
        "migration … applied to D1 database …",
        "no longer consumes queue …",
        "queue … is created unless it exists",
        "rolled back to record …",
        "route … added",
        "route … removed",
        "the pack's bundle changed: … → …",
        "vars.A … → …",
        "workflow … deployed",
        "workflow … is no longer defined: it stays at Cloudflare with its instances",
    ];
    assert_eq!(patterns.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    for (reason, sentence) in samples().iter().filter(|(reason, _)| !reason.pattern().contains('…')) {
        assert_eq!(reason.pattern(), *sentence);
    }
}

#[test]
fn details_say_what_was_what_is_and_where() {
    let change = Reason::value_changed(Some(("a.yaml", 3, 9)), "vars.A", json!({"b": 1}), Value::Null);
    assert_eq!(
        details(&[change, Reason::New]),
        [
            json!({
                "kind": "value_changed", "path": "vars.A", "old": {"b": 1}, "new": null,
                "place": {"file": "a.yaml", "line": 3, "column": 9},
            }),
            json!({"kind": "new", "old": null, "new": null, "place": null}),
        ]
    );
}

#[test]
fn the_documentation_lists_each_kind() {
    let page = include_str!("../../../../docs/reference/reasons.md");
    let section = page.split("## Reasons\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let kinds = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(kinds.collect::<Vec<_>>(), Reason::VARIANTS);
}

#[test]
fn a_reason_is_small() {
    // A plan of a hundred thousand workers holds several of each.
    assert!(size_of::<Reason>() <= 72, "{}", size_of::<Reason>());
}
