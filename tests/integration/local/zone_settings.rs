//! Settings of zones and the audit log: the values that are accepted, what a plan forbids, and who sees a change when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{ACCOUNT, Local, local};

const JSON: (&str, &str) = ("content-type", "application/json");

fn zone(local: &Local, name: &str) -> String {
    let zones = local.ok("GET", &format!("/zones?name={name}&account.id={ACCOUNT}"), None);
    zones[0]["id"].as_str().expect("a zone").to_owned()
}

/// Sends to a control endpoint; returns status and text.
fn control(local: &Local, path: &str, body: &Value) -> (u16, String) {
    let answer = local.send("POST", &format!("/__local/{path}"), &[JSON], body.to_string().into_bytes()).unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

fn setting(local: &Local, zone: &str, id: &str) -> Value {
    local.ok("GET", &format!("/zones/{zone}/settings/{id}"), None)
}

#[test]
fn settings_are_read_and_changed_one_by_one() {
    let mut local = local(|_| {});
    let id = zone(&local, "shop.example");
    let all = local.ok("GET", &format!("/zones/{id}/settings"), None);
    // Three have endpoints of their own alone.
    assert_eq!(all.as_array().unwrap().len(), flotilla_zone_settings::all().count() - 3);
    assert_eq!(setting(&local, &id, "aegis")["value"], json!({"enabled": false}));
    for one in all.as_array().unwrap() {
        assert_eq!(*one, setting(&local, &id, one["id"].as_str().unwrap()));
    }
    let path = |setting: &str| format!("/zones/{id}/settings/{setting}");
    let changed = local.ok("PATCH", &path("ssl"), Some(json!({"value": "strict"})));
    assert_eq!((&changed["value"], &changed["editable"]), (&json!("strict"), &json!(true)));
    assert!(changed["modified_on"].is_string());
    let changed = local.ok("PATCH", &path("ssl_recommender"), Some(json!({"enabled": false})));
    assert_eq!(changed["enabled"], false);
    // A zone has its own, and they outlive the emulator.
    assert_eq!(setting(&local, &zone(&local, "other.example"), "ssl")["value"], "full");
    local.restart(|_| {});
    assert_eq!(setting(&local, &id, "ssl")["value"], "strict");

    for (wrong, body, code) in [
        ("sll", json!({"value": "strict"}), 1006),
        ("ssl", json!({"value": "on"}), 1007),
        ("browser_cache_ttl", json!({"value": "30"}), 1007),
        ("ssl", json!({"enabled": true}), 10026),
        ("advanced_ddos", json!({"value": "on"}), 1024),
    ] {
        let (status, answer) = local.raw("PATCH", &path(wrong), "application/json", body.to_string().into_bytes());
        assert_eq!((status, answer["errors"][0]["code"].as_u64()), (400, Some(code)), "{wrong} {body}: {answer}");
    }
    assert_eq!(local.refused("GET", "/zones/0123456789abcdef0123456789abcdef/settings", None), (400, 1001));
    assert_eq!(setting(&local, &id, "ssl")["value"], "strict", "what is refused changes nothing");
}

#[test]
fn a_plan_forbids_settings() {
    let local = local(|_| {});
    let id = zone(&local, "shop.example");
    let polish = format!("/zones/{id}/settings/polish");
    local.ok("PATCH", &polish, Some(json!({"value": "lossy"})));
    let change = json!([{"zone": "shop.example", "plan": "free", "set": {"polish": "off"}}]);
    assert_eq!(control(&local, "zones", &change).0, 200);
    let shown = setting(&local, &id, "polish");
    assert_eq!((&shown["value"], &shown["editable"]), (&json!("off"), &json!(false)));
    assert_eq!(local.refused("PATCH", &polish, Some(json!({"value": "lossy"}))), (400, 1024));
    local.ok("PATCH", &format!("/zones/{id}/settings/rocket_loader"), Some(json!({"value": "on"})));
    // All of a request or nothing.
    for wrong in [
        json!([{"zone": "shop.example", "set": {"ssl": "off"}}, {"zone": "shop.example", "set": {"ssl": "on"}}]),
        json!([{"zone": "shop.example", "set": {"ssl": "off", "sll": "off"}}]),
        json!([{"zone": "shop.example", "plan": "huge", "set": {"ssl": "off"}}]),
    ] {
        let (status, text) = control(&local, "zones", &wrong);
        assert_eq!((status, setting(&local, &id, "ssl")["value"].as_str()), (400, Some("full")), "{text}");
    }
}

#[test]
fn the_audit_log_has_each_change_after_a_while() {
    let now = Arc::new(AtomicU64::new(1_795_242_600));
    let clock = Arc::clone(&now);
    let local = local(|options| {
        options.clock = Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
    });
    let id = zone(&local, "shop.example");
    let patch = |setting: &str, value: &str| {
        local.ok("PATCH", &format!("/zones/{id}/settings/{setting}"), Some(json!({"value": value})));
        now.fetch_add(1, Ordering::Relaxed);
    };
    let range = "since=2026-11-21T00:00:00Z&before=2026-11-22T00:00:00Z";
    let log = |more: &str| local.call("GET", &format!("@/logs/audit?{range}{more}"), None).1;
    assert_eq!(control(&local, "audit", &json!({"delay": 60})).0, 200);
    patch("ssl", "strict");
    patch("ssl", "flexible");
    patch("rocket_loader", "on");
    assert_eq!(log("")["result"], json!([]), "nothing can be read before the delay");
    now.fetch_add(60, Ordering::Relaxed);
    let whole = log("");
    let entries: Vec<(&Value, &Value)> = whole["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (&entry["resource"]["id"], &entry["resource"]["request"]["value"]))
        .collect();
    assert_eq!(
        entries,
        [
            (&json!("rocket_loader"), &json!("on")),
            (&json!("ssl"), &json!("flexible")),
            (&json!("ssl"), &json!("strict"))
        ]
    );
    assert_eq!(
        (&whole["result"][0]["zone"]["name"], &whole["result_info"]["cursor"]),
        (&json!("shop.example"), &json!(""))
    );
    // By pages: the same, whichever way.
    for direction in ["", "&direction=asc"] {
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = log(&format!("{direction}&limit=2&cursor={cursor}"));
            paged.extend(page["result"].as_array().unwrap().clone());
            page["result_info"]["cursor"].as_str().unwrap().clone_into(&mut cursor);
            if cursor.is_empty() {
                break;
            }
        }
        if !direction.is_empty() {
            paged.reverse();
        }
        assert_eq!(json!(paged), whole["result"]);
    }
    let old = local.ok("GET", &format!("@/audit_logs?{range}&per_page=1&page=2"), None);
    assert_eq!(old[0]["action"]["type"], "change_setting");
    assert_eq!(
        (&old[0]["metadata"]["name"], &old[0]["oldValue"], &old[0]["newValue"]),
        (&json!("ssl"), &json!("strict"), &json!("flexible"))
    );
    // Whoever changes it.
    assert_eq!(control(&local, "zones", &json!([{"zone": "shop.example", "set": {"ssl": "off"}}])).0, 200);
    now.fetch_add(61, Ordering::Relaxed);
    assert_eq!(log("&limit=1")["result"][0]["actor"]["context"], "dash");
    // A silent log, and bad questions.
    assert_eq!(control(&local, "audit", &json!({"silent": true})).0, 200);
    patch("ssl", "strict");
    assert_eq!(log("")["result"].as_array().unwrap().len(), 4);
    assert_eq!(local.refused("GET", "@/logs/audit", None), (400, 1001));
    assert_eq!(local.refused("GET", "@/logs/audit?since=x&before=y", None), (400, 1001));
    assert_eq!(local.refused("GET", &format!("@/logs/audit?{range}&cursor=x"), None), (400, 1001));
    assert_eq!(control(&local, "audit", &json!({"delays": 1})).0, 400);
}
