//! What calls workers: routes, domains, schedules, workers.dev; and D1 and KV through the API.

use flotilla_local::PlatformLimits;
use serde_json::{Value, json};

use super::client::{Local, local};

const INDEX: &[(&str, &str)] = &[("index.js", "export default {fetch: () => new Response('hi')}")];

fn zone(local: &Local, name: &str) -> String {
    let zones = local.ok("GET", &format!("/zones?name={name}&account.id={}", super::client::ACCOUNT), None);
    zones[0]["id"].as_str().unwrap_or_else(|| panic!("no zone {name}")).to_owned()
}

#[test]
fn zones_and_tokens_can_be_an_accounts_own() {
    let (own, other) = (super::client::ACCOUNT, "fedcba9876543210fedcba9876543210");
    let mut local = local(|options| {
        options.zones = vec![format!("one.example@{own}"), format!("two.example@{other}"), "three.example".to_owned()];
        options.tokens = vec!["users".to_owned(), format!("its-own@{other}")];
    });
    let zones = |local: &Local, query: &str| {
        let listed = local.ok("GET", &format!("/zones{query}"), None);
        let listed = listed.as_array().expect("a list").iter();
        listed.map(|zone| (zone["name"].clone(), zone["account"]["id"] == own)).collect::<Vec<_>>()
    };
    local.token = "users".to_owned();
    local.ok("GET", "@/workers/subdomain", None);
    assert_eq!(
        zones(&local, ""),
        [(json!("one.example"), true), (json!("three.example"), true), (json!("two.example"), false)],
        "what nobody named is the first account's"
    );
    assert_eq!(zones(&local, &format!("?account.id={other}")), [(json!("two.example"), false)]);
    local.token = "its-own".to_owned();
    assert_eq!(zones(&local, ""), [(json!("two.example"), false)]);
    assert_eq!(zones(&local, &format!("?account.id={own}")), []);
    assert_eq!(local.refused("GET", "@/workers/scripts", None), (403, 10000));
    // Each kind of token is asked for where it belongs.
    assert_eq!(local.refused("GET", "/user/tokens/verify", None), (401, 1000));
    assert_eq!(local.refused("GET", "@/tokens/verify", None), (401, 1000));
    assert_eq!(local.ok("GET", &format!("/accounts/{other}/tokens/verify"), None)["status"], "active");
    assert_eq!(local.ok("GET", "/accounts", None)[0]["id"], other);
}

#[test]
fn zones_are_those_given_or_any() {
    let any = local(|_| {});
    let id = zone(&any, "example.com");
    assert_eq!(any.ok("GET", &format!("/zones/{id}"), None)["name"], "example.com");
    assert_eq!(any.ok("GET", "/zones?name=a.example.com", None), json!([]));
    assert_eq!(any.ok("GET", "/zones?name=example.com&account.id=other", None), json!([]), "a zone has one account");
    assert_eq!(any.refused("GET", "/zones/nope", None), (400, 1001));
    let given = local(|options| options.zones = (0..60).map(|n| format!("z{n:02}.example")).collect());
    let (_, page) = given.call("GET", "/zones?per_page=100&page=2", None);
    assert_eq!((page["result"].as_array().unwrap().len(), &page["result_info"]["total_pages"]), (10, &json!(2)));
    assert_eq!(given.ok("GET", "/zones?name=example.com", None), json!([]));
    given.put("a", json!([]), INDEX);
    let body = json!({"hostname": "x.example.com", "service": "a"});
    assert_eq!(given.refused("PUT", "@/workers/domains", Some(body)), (400, 1001));
}

#[test]
fn routes_belong_to_zones() {
    let local = local(|options| options.limits = PlatformLimits { routes: 3, ..PlatformLimits::default() });
    let base = format!("/zones/{}/workers/routes", zone(&local, "example.com"));
    let route = |pattern: &str, script: &str| Some(json!({"pattern": pattern, "script": script}));
    assert_eq!(local.refused("POST", &base, route("example.com/*", "a")), (404, 10007));
    local.put("a", json!([]), INDEX);
    local.put("b", json!([]), INDEX);
    let first = local.ok("POST", &base, route("example.com/*", "a"));
    assert_eq!(local.refused("POST", &base, route("example.com/*", "b")), (409, 10020));
    assert_eq!(local.refused("POST", &base, route("example.org/*", "b")), (400, 10022));
    let one = format!("{base}/{}", first["id"].as_str().unwrap());
    assert_eq!(local.ok("PUT", &one, route("www.example.com/*", "b"))["script"], "b");
    assert_eq!(local.ok("GET", &one, None)["pattern"], "www.example.com/*");
    local.ok("POST", &base, Some(json!({"pattern": "none.example.com/*"})));

    let bulk = "@/workers/scripts/a/routes";
    let wanted = json!([{"pattern": "a.example.com/*", "zone_name": "example.com"}, "example.net/x"]);
    assert_eq!(local.ok("PUT", bulk, Some(wanted)).as_array().unwrap().len(), 2);
    assert_eq!(local.refused("PUT", bulk, Some(json!(["www.example.com/*"]))), (409, 10020));
    assert_eq!(local.ok("GET", &base, None).as_array().unwrap().len(), 3, "a refused bulk changes nothing");
    assert_eq!(local.refused("POST", &base, route("more.example.com/*", "a")), (400, 10021));
    assert_eq!(local.ok("GET", "@/workers/scripts", None)[0]["routes"].as_array().unwrap().len(), 2);
    local.ok("PUT", bulk, Some(json!([])));
    local.ok("DELETE", &one, None);
    assert_eq!(local.refused("GET", &one, None), (404, 10009));
    assert_eq!(local.ok("GET", &base, None).as_array().unwrap().len(), 1);
}

#[test]
fn domains_are_not_taken_over_unasked() {
    let local = local(|options| {
        options.dns_records = vec!["held.example.com".to_owned()];
        options.limits = PlatformLimits { domains: 3, ..PlatformLimits::default() };
    });
    local.put("a", json!([]), INDEX);
    local.put("b", json!([]), INDEX);
    let put = |host: &str, service: &str| json!({"hostname": host, "service": service, "zone_name": "example.com"});
    let path = "@/workers/domains";
    let first = local.ok("PUT", path, Some(put("a.example.com", "a")));
    assert_eq!(local.ok("PUT", path, Some(put("A.example.com", "a")))["id"], first["id"], "again is the same");
    assert_eq!(local.refused("PUT", path, Some(put("a.example.com", "b"))), (409, 100_116));
    assert_eq!(local.refused("PUT", path, Some(put("held.example.com", "a"))), (409, 100_117));
    assert_eq!(local.refused("PUT", path, Some(put("x.example.com", "nobody"))), (404, 10007));
    assert_eq!(local.refused("PUT", path, Some(put("*.example.com", "a"))), (400, 10021));
    assert_eq!(local.refused("PUT", path, Some(put("x.example.org", "a"))), (400, 1001));
    let mut over = put("a.example.com", "b");
    over["override_existing_origin"] = true.into();
    assert_eq!(local.ok("PUT", path, Some(over))["service"], "b");

    let changes = local.ok(
        "POST",
        "@/workers/scripts/a/domains/changeset?replace_state=true",
        Some(json!([{"hostname": "a.example.com"}, {"hostname": "held.example.com"}, {"hostname": "new.example.com"}])),
    );
    let kinds =
        |kind: &str| changes[kind].as_array().unwrap().iter().map(|row| row["hostname"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (kinds("updated"), kinds("conflicting"), kinds("added")),
        (vec![json!("a.example.com")], vec![json!("held.example.com")], vec![json!("new.example.com")])
    );
    let records = |origins: Value| json!({"override_existing_dns_record": true, "override_existing_origin": false, "origins": origins});
    assert_eq!(
        local.refused(
            "PUT",
            "@/workers/scripts/a/domains/records",
            Some(records(json!([{"hostname": "a.example.com"}])))
        ),
        (409, 100_116)
    );
    local.ok(
        "PUT",
        "@/workers/scripts/a/domains/records",
        Some(records(json!([{"hostname": "held.example.com"}, {"hostname": "new.example.com"}]))),
    );
    assert_eq!(local.refused("PUT", path, Some(put("fourth.example.com", "a"))), (400, 10021));
    local.ok("PUT", "@/workers/scripts/a/domains/records", Some(records(json!([{"hostname": "new.example.com"}]))));
    let listed = |query: &str| local.ok("GET", &format!("{path}{query}"), None).as_array().unwrap().len();
    assert_eq!(
        (listed(""), listed("?service=a"), listed("?hostname=a.example.com"), listed("?zone_name=example.org")),
        (2, 1, 1, 0)
    );
    let one = format!("{path}/{}", first["id"].as_str().unwrap());
    assert_eq!(local.ok("GET", &one, None)["hostname"], "a.example.com");
    assert_eq!(local.ok("GET", "@/workers/domains/records", None).as_array().unwrap().len(), 2);
    assert_eq!(local.call("DELETE", &one, None).0, 200);
    assert_eq!(local.refused("GET", &one, None), (404, 100_114));
    local.ok("DELETE", "@/workers/scripts/a", None);
    assert_eq!(listed(""), 0, "a deleted worker's domains go with it");
}

#[test]
fn schedules_and_workers_dev() {
    let local = local(|options| options.limits = PlatformLimits { crons: 2, ..PlatformLimits::default() });
    local.put("a", json!([]), INDEX);
    local.put("b", json!([]), INDEX);
    let path = |name: &str| format!("@/workers/scripts/{name}/schedules");
    let set = |crons: &[&str]| Some(crons.iter().map(|cron| json!({"cron": cron})).collect::<Value>());
    local.ok("PUT", &path("a"), set(&["0 * * * *", "*/5 * * * *"]));
    assert_eq!(local.ok("GET", &path("a"), None)["schedules"].as_array().unwrap().len(), 2);
    assert_eq!(local.refused("PUT", &path("a"), set(&["hourly"])).0, 400);
    assert_eq!(local.refused("PUT", &path("b"), set(&["1 * * * *"])), (403, 10072));
    assert_eq!(local.ok("GET", &path("a"), None)["schedules"].as_array().unwrap().len(), 2);
    local.ok("PUT", &path("a"), set(&[]));
    local.ok("PUT", &path("b"), set(&["1 * * * *"]));

    let path = "@/workers/scripts/a/subdomain";
    assert_eq!(local.ok("GET", path, None)["enabled"], false);
    local.ok("POST", path, Some(json!({"enabled": true, "previews_enabled": false})));
    assert_eq!(local.ok("GET", path, None), json!({"enabled": true, "previews_enabled": false}));
    assert_eq!(local.ok("DELETE", path, None)["enabled"], false);
    assert!(local.ok("GET", "@/workers/subdomain", None)["subdomain"].is_string());
    local.ok("PUT", "@/workers/subdomain", Some(json!({"subdomain": "mine"})));
    assert_eq!(
        local.refused("PUT", "/accounts/other/workers/subdomain", Some(json!({"subdomain": "mine"}))),
        (409, 10031)
    );
    assert_eq!(local.ok("GET", "@/workers/durable_objects/namespaces", None), json!([]));
}

#[test]
fn databases_and_values_survive_a_restart() {
    let mut local = local(|_| {});
    let made = local.ok("POST", "@/d1/database", Some(json!({"name": "main"})));
    let one = format!("@/d1/database/{}", made["uuid"].as_str().unwrap());
    assert_eq!(local.refused("POST", "@/d1/database", Some(json!({"name": "main"}))), (400, 7502));
    assert_eq!(local.refused("POST", "@/d1/database", Some(json!({"name": "no spaces"}))), (400, 7400));
    let query = |sql: &str, params: Value| Some(json!({"sql": sql, "params": params}));
    local.ok(
        "POST",
        &format!("{one}/query"),
        query("CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x')", json!([])),
    );
    local.ok("POST", &format!("{one}/query"), query("INSERT INTO t VALUES (?, ?)", json!(["2", "y"])));
    assert_eq!(
        local.refused("POST", &format!("{one}/query"), query("INSERT INTO t VALUES (?, ?)", json!(["2"]))),
        (400, 7500)
    );
    assert_eq!(local.refused("POST", &format!("{one}/query"), query("SELEC", json!([]))), (400, 7500));
    assert_eq!(local.refused("POST", &format!("{one}/query"), query("ATTACH '/tmp/x' AS x", json!([]))), (400, 7500));
    let space = local.ok("POST", "@/storage/kv/namespaces", Some(json!({"title": "kv"})));
    let space = format!("@/storage/kv/namespaces/{}", space["id"].as_str().unwrap());
    local.ok("PUT", &format!("{space}/bulk"), Some(json!([{"key": "a/b", "value": "1"}, {"key": "bin", "value": "AP8=", "base64": true}, {"key": "c", "value": "3"}])));
    local.restart(|_| {});

    let rows = local.ok("POST", &format!("{one}/query"), query("SELECT * FROM t ORDER BY a", json!([])));
    assert_eq!(rows[0]["results"], json!([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]));
    let raw = local.ok("POST", &format!("{one}/raw"), query("SELECT b FROM t WHERE a = ?", json!(["2"])));
    assert_eq!(raw[0]["results"], json!({"columns": ["b"], "rows": [["y"]]}));
    assert_eq!(local.ok("GET", &one, None)["num_tables"], 1);
    assert_eq!(
        local.ok("PATCH", &one, Some(json!({"read_replication": {"mode": "auto"}})))["read_replication"]["mode"],
        "auto"
    );
    assert_eq!(local.ok("GET", "@/d1/database?name=mai", None)[0]["uuid"], made["uuid"]);
    local.ok("DELETE", &one, None);
    assert_eq!(local.refused("GET", &one, None), (404, 7404));

    assert_eq!(local.raw("GET", &format!("{space}/values/a%2Fb"), "", Vec::new()), (200, json!("1")));
    assert_eq!(local.ok("GET", &format!("{space}/keys?prefix=b"), None), json!([{"name": "bin"}]));
    local.ok("POST", &format!("{space}/bulk/delete"), Some(json!(["bin"])));
    local.ok("DELETE", &format!("{space}/values/c"), Some(json!({})));
    assert_eq!(local.ok("GET", &format!("{space}/keys"), None), json!([{"name": "a/b"}]));
    assert_eq!(
        local
            .raw("PUT", &format!("{space}/values/raw?expiration_ttl=60"), "application/octet-stream", b"bytes".to_vec())
            .0,
        200
    );
    assert!(local.ok("GET", &format!("{space}/keys?prefix=raw"), None)[0]["expiration"].is_u64());
    local.ok("DELETE", &space, Some(json!({})));
    assert_eq!(local.refused("GET", &format!("{space}/keys"), None), (404, 10013));
    assert_eq!(local.ok("GET", "@/storage/kv/namespaces", None), json!([]));
}
