//! Shows that lists are read to their end, page by page, wherever flotilla reads one.

use flotilla_model::failure::Exit;
use serde_json::json;

use crate::engine::names;
use crate::fleet::{ACCOUNT, Cloud, fleet};
use crate::support::{Project, copy, repository};

/// A fleet in a dispatch namespace whose lists have two entries on a page.
fn shops(customers: usize) -> (Cloud, Project) {
    let cloud = Cloud::start_with(|options| options.page_size = Some(2));
    cloud.http(
        "POST",
        &format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces"),
        &json!({"name": "customers"}),
    );
    let project = fleet(&[]);
    copy(&repository().join("templates/dispatch"), &project.path("templates/dispatch"));
    project.write(
        "fleet.yaml",
        format!(
            "name: test\npacks: {{ tiny: {{ path: packs/tiny }}, dispatch: {{ path: templates/dispatch }} }}\naccounts:\n  \
             default: {{ id: {ACCOUNT}, token: {{ secret: CLOUDFLARE_API_TOKEN }}, dispatchNamespace: customers, dispatch: {{ worker: front }} }}\n\
             sharedWorkers: {{ front: {{ pack: dispatch }} }}\ndefaults: {{ pack: tiny }}\n\
             deploy: {{ maxDeletions: {{ count: 10, percent: 100 }} }}\n"
        ),
    );
    for at in 0..customers {
        shop(&project, at);
    }
    (cloud, project)
}

fn shop(project: &Project, at: usize) {
    project.write(&format!("customers/shop{at}.yaml"), format!("id: shop{at}\ndomains: [shop{at}.example.com]\n"));
}

/// The number of pages of the namespace's list that were requested since the last time.
fn pages(cloud: &Cloud) -> usize {
    cloud.take().iter().filter(|request| request.what == "GET dispatch/namespaces/customers/scripts").count()
}

#[test]
fn a_namespace_is_listed_page_by_page() {
    let (cloud, project) = shops(5);
    assert_eq!(cloud.deployed(&project).applied, 6);
    cloud.take();
    shop(&project, 5);
    assert_eq!(cloud.deployed(&project).applied, 1);
    assert!(pages(&cloud) >= 3, "five scripts are three pages");
    let planned = cloud.engine(&project).plan_with(|request| request.refresh = true);
    assert!(planned.plan.is_empty(), "{:?}", planned.plan.changes);
    assert_eq!(pages(&cloud), 3);

    // What is known from the lists alone is known of the last page, too.
    std::fs::remove_dir_all(project.path(".flotilla")).expect("the state");
    let rebuilt = cloud.engine(&project).rebuild();
    assert_eq!(rebuilt.workers, 7);
    // Which hosts are in KV, no list of workers tells.
    assert_eq!(cloud.deployed(&project).applied, 0);
    for at in 0..3 {
        std::fs::remove_file(project.path(&format!("customers/shop{at}.yaml"))).expect("a customer");
    }
    let outcome = cloud.engine(&project).prune(false).exits(Exit::Done).outcome();
    assert_eq!(outcome.applied, 3);
}

#[test]
fn a_stranger_on_a_later_page_is_seen() {
    let (cloud, project) = shops(3);
    cloud.deployed(&project);
    // Somebody else's, after all of ours.
    cloud.foreign("dispatch/namespaces/customers/scripts/t-zoe", &["flotilla-else"]);
    project.write("customers/zoe.yaml", "id: zoe\n");
    let failure = cloud.engine(&project).deploy().failure(Exit::Refused);
    assert!(failure.hints.iter().any(|hint| hint.contains("t-zoe belongs to the fleet else")), "{:?}", failure.hints);
    let ended = cloud.engine(&project).deploy_with(|request| request.plan.adopt = names(&["t-zoe"]));
    assert_eq!(ended.exits(Exit::Done).outcome().applied, 1);
}

#[test]
fn databases_and_kv_namespaces_are_looked_up_on_all_pages() {
    let (cloud, project) = shops(1);
    for at in 0..5 {
        cloud.http(
            "POST",
            &format!("/client/v4/accounts/{ACCOUNT}/d1/database"),
            &json!({"name": format!("of-shop{at}")}),
        );
        let path = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces");
        cloud.http("POST", &path, &json!({"title": format!("a{at}")}));
    }
    cloud.http(
        "POST",
        &format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces"),
        &json!({"title": "customers-hosts"}),
    );
    project.write("customers/shop0.yaml", "id: shop0\ndatabase: { type: d1, name: of-shop0 }\n");
    project.write(
        "customers/shop1.yaml",
        "id: shop1\ndomains: [one.example.com]\ndatabase: { type: d1, name: of-shop1 }\n",
    );
    assert_eq!(cloud.deployed(&project).applied, 3);
    let made = |request: &&crate::fleet::Request| {
        request.what == "POST d1/database" || request.what == "POST storage/kv/namespaces"
    };
    assert_eq!(
        cloud.take().iter().filter(made).filter(|request| request.status == 200).count(),
        11,
        "those of this test"
    );
}
