//! Settings of zones, each with the values that Cloudflare accepts, and whether the zone's plan allows to change it. Each change is in the audit
//! log.

use flotilla_zone_settings::{self as catalogue, Setting};
use rusqlite::{Connection, Row};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::audit;
use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store;
use super::zones::{self, Zone};

/// The plan of a zone, from the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Plan {
    Free,
    Pro,
    Business,
    Enterprise,
}

/// A change of a zone as somebody makes it in Cloudflare's dashboard: `{"zone": "shop.example", "plan": "free", "set": {"ssl": "full"}}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DashboardChange {
    /// The zone's name.
    zone: String,
    /// Its plan from now on; none: it stays. Zones are on the largest plan at first.
    plan: Option<Plan>,
    /// Settings to change, without regard to the plan.
    #[serde(default)]
    set: Map<String, Value>,
}

/// The values of a new zone that differ from the first one that the setting accepts, or `off`. Made up where no document has the values that a zone
/// begins with.
const INITIAL: &[(&str, &str)] = &[
    ("aegis", r#"{"enabled": false}"#),
    ("always_online", r#""on""#),
    (
        "automatic_platform_optimization",
        r#"{"cache_by_device_type": false, "cf": false, "enabled": false, "hostnames": [], "wordpress": false, "wp_plugin": false}"#,
    ),
    ("browser_cache_ttl", "14400"),
    ("browser_check", r#""on""#),
    ("challenge_ttl", "1800"),
    ("ciphers", "[]"),
    ("edge_cache_ttl", "7200"),
    ("email_obfuscation", r#""on""#),
    ("hotlink_protection", r#""off""#),
    ("http2", r#""on""#),
    ("http3", r#""on""#),
    ("ip_geolocation", r#""on""#),
    ("ipv6", r#""on""#),
    ("nel", r#"{"enabled": true}"#),
    ("opportunistic_encryption", r#""on""#),
    ("opportunistic_onion", r#""on""#),
    ("origin_h2_max_streams", "200"),
    ("proxy_read_timeout", "100"),
    (
        "security_header",
        r#"{"strict_transport_security": {"enabled": false, "include_subdomains": false, "max_age": 0, "nosniff": false, "preload": false}}"#,
    ),
    ("security_level", r#""medium""#),
    ("ssl", r#""full""#),
    ("ssl_recommender", "true"),
    ("tls_1_3", r#""on""#),
    ("transformations_allowed_origins", r#""""#),
    ("webmcp_packs", r#""""#),
    ("websockets", r#""on""#),
];

/// The settings that only a plan, or a larger one, lets change. Source: their descriptions in Cloudflare's OpenAPI document.
const PLANS: &[(&str, Plan)] = &[
    ("image_resizing", Plan::Pro),
    ("mirage", Plan::Pro),
    ("polish", Plan::Pro),
    ("waf", Plan::Pro),
    ("webp", Plan::Pro),
    ("orange_to_orange", Plan::Enterprise),
    ("origin_error_page_pass_thru", Plan::Enterprise),
    ("prefetch_preload", Plan::Enterprise),
    ("response_buffering", Plan::Enterprise),
    ("sort_query_string_for_cache", Plan::Enterprise),
    ("tls_client_auth", Plan::Enterprise),
    ("true_client_ip_header", Plan::Enterprise),
];

/// The settings that the list of a zone's settings doesn't have. Source: Cloudflare's OpenAPI document.
const NOT_LISTED: &[&str] = &["aegis", "origin_h2_max_streams", "origin_max_http_version"];
/// The setting that nobody can change.
const READ_ONLY: &str = "advanced_ddos";
/// The seconds for which the development mode stays on.
const DEVELOPMENT_MODE: u64 = 3 * 60 * 60;

/// `GET /zones/{zone}/settings`: all but those that have endpoints of their own.
pub fn list(cloud: &Cloud, zone: &str) -> Outcome {
    cloud.store.read(|db| {
        let zone = zones::get(db, zone)?;
        let (plan, set) = (plan(db, &zone)?, changed(db, &zone)?);
        let listed = catalogue::all().filter(|(id, _)| !NOT_LISTED.contains(id));
        Ok(Answer::ok(&listed.map(|(id, setting)| show(cloud, id, setting, set.get(id), plan)).collect()))
    })
}

/// `GET /zones/{zone}/settings/{id}`.
pub fn read(cloud: &Cloud, zone: &str, id: &str) -> Outcome {
    cloud.store.read(|db| {
        let (zone, setting) = (zones::get(db, zone)?, known(id)?);
        let (plan, set) = (plan(db, &zone)?, changed(db, &zone)?);
        Ok(Answer::ok(&show(cloud, id, setting, set.get(id), plan)))
    })
}

/// `PATCH /zones/{zone}/settings/{id}`.
pub fn patch(cloud: &Cloud, zone: &str, id: &str, call: &Call) -> Outcome {
    let setting = known(id)?;
    let Some(value) = call.json()?.get(&setting.body_key) else {
        return Err(Refusal::unparseable(format!("`{}` is missing", setting.body_key)));
    };
    cloud.store.write(|db| {
        let zone = zones::get(db, zone)?;
        let plan = plan(db, &zone)?;
        if !is_editable(id, plan) {
            // The code and the words are those that users of Cloudflare's API report.
            let message = format!("It is not possible to change the value of the setting {id} on the zone's plan");
            return Err(Refusal::new(400, 1024, message));
        }
        change(cloud, db, &zone, id, value, call.header("user-agent").unwrap_or_default())?;
        Ok(Answer::ok(&show(cloud, id, setting, changed(db, &zone)?.get(id), plan)))
    })
}

/// Changes zones as Cloudflare's dashboard does.
///
/// # Errors
/// When a zone, a setting or a value doesn't exist; none is changed then.
pub fn in_dashboard(cloud: &Cloud, changes: &[DashboardChange]) -> Result<(), Refusal> {
    cloud.store.write(|db| {
        for DashboardChange { zone, plan, set } in changes {
            let zone = zones::by_name(cloud, db, zone)?;
            if let Some(plan) = plan {
                let sql = "INSERT OR REPLACE INTO zone_plan (zone, plan) VALUES (?1, ?2)";
                store::run(db, sql, [&zone.id, &format!("{plan:?}").to_lowercase()])?;
            }
            for (id, value) in set {
                known(id)?;
                change(cloud, db, &zone, id, value, audit::DASHBOARD)?;
            }
        }
        Ok(())
    })
}

fn change(cloud: &Cloud, db: &Connection, zone: &Zone, id: &str, value: &Value, by: &str) -> Result<(), Refusal> {
    if !catalogue::accepts(id, value) {
        return Err(Refusal::new(400, 1007, format!("Invalid value for zone setting {id}")));
    }
    let was = changed(db, zone)?.remove(id).map_or_else(|| initial(id), |(value, _)| value);
    let sql = "INSERT OR REPLACE INTO zone_setting (zone, id, value, modified) VALUES (?1, ?2, ?3, ?4)";
    store::run(db, sql, [&zone.id, id, &value.to_string(), &cloud.now()])?;
    audit::add(cloud, db, &audit::SettingChange { zone, id, was: &was, now: value, by })
}

fn known(id: &str) -> Result<&'static Setting, Refusal> {
    catalogue::get(id).ok_or_else(|| Refusal::new(400, 1006, "Unrecognized zone setting name"))
}

fn plan(db: &Connection, zone: &Zone) -> Result<Plan, Refusal> {
    let text = |row: &Row<'_>| row.get::<_, String>(0);
    let plan = store::row(db, "SELECT plan FROM zone_plan WHERE zone = ?1", [&zone.id], text)?;
    Ok(plan.and_then(|plan| serde_json::from_value(plan.into()).ok()).unwrap_or(Plan::Enterprise))
}

/// Returns the settings of a zone that were changed, each with its value and the time.
fn changed(db: &Connection, zone: &Zone) -> Result<std::collections::BTreeMap<String, (Value, String)>, Refusal> {
    let setting = |row: &Row<'_>| {
        let value: String = row.get(1)?;
        Ok((row.get(0)?, (serde_json::from_str(&value).unwrap_or_default(), row.get(2)?)))
    };
    let rows = store::rows(db, "SELECT id, value, modified FROM zone_setting WHERE zone = ?1", [&zone.id], setting)?;
    Ok(rows.into_iter().collect())
}

fn is_editable(id: &str, plan: Plan) -> bool {
    id != READ_ONLY && PLANS.iter().all(|(other, least)| *other != id || plan >= *least)
}

fn initial(id: &str) -> Value {
    if let Some((_, value)) = INITIAL.iter().find(|(other, _)| *other == id) {
        return serde_json::from_str(value).unwrap_or_default();
    }
    let values = catalogue::get(id).and_then(|setting| setting.schema["enum"].as_array());
    let off = values.filter(|values| values.iter().any(|value| value == "off")).map(|_| Value::from("off"));
    off.or_else(|| values?.first().cloned()).unwrap_or_default()
}

fn show(cloud: &Cloud, id: &str, setting: &Setting, set: Option<&(Value, String)>, plan: Plan) -> Value {
    let value = set.map_or_else(|| initial(id), |(value, _)| value.clone());
    let mut shown = json!({"id": id, "modified_on": set.map(|(_, modified)| modified)});
    shown[setting.body_key.as_str()] = value;
    if setting.has_editable {
        shown["editable"] = is_editable(id, plan).into();
    }
    if id == "development_mode" {
        shown["time_remaining"] = 0.into();
        if let Some((_, modified)) = set.filter(|(value, _)| value == "on") {
            let since =
                humantime::parse_rfc3339(modified).ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let age = (cloud.clock)().saturating_sub(since.unwrap_or_default()).as_secs();
            let left = DEVELOPMENT_MODE.saturating_sub(age);
            shown["time_remaining"] = left.into();
            if left == 0 {
                shown["value"] = "off".into();
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_zone_has_values_that_its_settings_accept() {
        for (id, _) in catalogue::all() {
            assert!(catalogue::accepts(id, &initial(id)), "{id}: {}", initial(id));
        }
        for (id, _) in INITIAL {
            assert!(catalogue::get(id).is_some(), "{id}");
        }
        assert!(PLANS.iter().all(|(id, _)| catalogue::get(id).is_some()));
        assert!(!is_editable("polish", Plan::Free) && is_editable("polish", Plan::Business));
        assert!(!is_editable(READ_ONLY, Plan::Enterprise) && is_editable("ssl", Plan::Free));
    }
}
