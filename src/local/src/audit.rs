//! The audit log of an account: who changed which setting of a zone. Both forms of it: `logs/audit`, and the older `audit_logs`. An entry can be
//! read some time after the change; how long is set by a control endpoint.

use std::time::Duration;

use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

use super::call::Call;
use super::clock::stamp;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store;
use super::zones::Zone;

/// The most entries of an answer. Source: npm `cloudflare` 7.3.0, `accounts/logs/audit`.
const MOST: usize = 1000;

/// In place of a program, where a setting was changed in Cloudflare's dashboard.
pub const DASHBOARD: &str = "dashboard";

/// A change of a setting.
pub struct SettingChange<'a> {
    /// The zone.
    pub zone: &'a Zone,
    /// The setting's id.
    pub id: &'a str,
    /// Its value before.
    pub was: &'a Value,
    /// Its value now.
    pub now: &'a Value,
    /// The program that changed it.
    pub by: &'a str,
}

/// Adds an entry, unless the log is silent.
///
/// # Errors
/// When the database fails.
pub fn add(cloud: &Cloud, db: &Connection, change: &SettingChange<'_>) -> Result<(), Refusal> {
    if cloud.audit.lock().silent {
        return Ok(());
    }
    let SettingChange { zone, id, was, now, by } = change;
    let body = json!({
        "zone": {"id": zone.id, "name": zone.name}, "setting": id, "was": was, "now": now, "by": by,
        "id": cloud.store.seal.uuid(),
    });
    let at = i64::try_from((cloud.clock)().as_micros()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO audit (account, at, body) VALUES (?1, ?2, ?3)";
    db.execute(sql, params![zone.account, at, body.to_string()])?;
    Ok(())
}

/// One entry as it is stored.
struct Entry {
    number: i64,
    at: Duration,
    body: Value,
}

/// `GET /accounts/{account}/logs/audit?since=…&before=…`: the newest first unless `direction` says otherwise; pages by cursor.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let needed = |name: &str| {
        let given = call.query(name).ok_or_else(|| Refusal::new(400, 1001, format!("{name} is required")))?;
        time(given).ok_or_else(|| Refusal::new(400, 1001, format!("{name} is no RFC 3339 time")))
    };
    let limit = call.number("limit", 100)?.clamp(1, MOST);
    let cursor = call.query("cursor").filter(|cursor| !cursor.is_empty()).map(str::parse::<i64>).transpose();
    let cursor = cursor.map_err(|_| Refusal::new(400, 1001, "the cursor is unknown"))?;
    let is_oldest_first = call.query("direction") == Some("asc");
    let range = Range { since: needed("since")?, before: needed("before")?, is_oldest_first, cursor, most: limit + 1 };
    let mut entries = range.entries(cloud, account)?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let cursor = entries.last().filter(|_| has_more).map_or_else(String::new, |entry| entry.number.to_string());
    let shown: Vec<Value> = entries.iter().map(|entry| show(account, entry)).collect();
    let info = json!({"count": shown.len(), "cursor": cursor});
    let answer = json!({"success": true, "errors": [], "messages": [], "result": shown, "result_info": info});
    Ok(Answer::json(200, &answer))
}

/// `GET /accounts/{account}/audit_logs?since=…&before=…`: the older form, with numbered pages.
pub fn list_old(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let since = call.query("since").and_then(time).unwrap_or_default();
    let before = call.query("before").and_then(time).unwrap_or(Duration::MAX);
    let is_oldest_first = call.query("direction") == Some("asc");
    let range = Range { since, before, is_oldest_first, cursor: None, most: usize::MAX };
    let shown: Vec<Value> = range.entries(cloud, account)?.iter().map(show_old).collect();
    cloud.page(&shown, call, 100, MOST)
}

/// A part of the log.
struct Range {
    since: Duration,
    before: Duration,
    is_oldest_first: bool,
    /// The number of the entry after which it begins.
    cursor: Option<i64>,
    /// The most entries.
    most: usize,
}

impl Range {
    /// Returns the entries that can be read by now.
    fn entries(&self, cloud: &Cloud, account: &str) -> Result<Vec<Entry>, Refusal> {
        let readable = (cloud.clock)().saturating_sub(Duration::from_secs(cloud.audit.lock().delay));
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let (order, beyond, first) =
            if self.is_oldest_first { ("ASC", ">", i64::MIN) } else { ("DESC", "<", i64::MAX) };
        let sql = format!(
            "SELECT number, at, body FROM audit
             WHERE account = ?1 AND at >= ?2 AND at < ?3 AND at <= ?4 AND number {beyond} ?5 ORDER BY number {order} LIMIT ?6"
        );
        let entry = |row: &Row<'_>| {
            let (at, body): (i64, String) = (row.get(1)?, row.get(2)?);
            let at = Duration::from_micros(at.unsigned_abs());
            Ok(Entry { number: row.get(0)?, at, body: serde_json::from_str(&body).unwrap_or_default() })
        };
        let (since, before, readable) = (micros(self.since), micros(self.before), micros(readable));
        let most = i64::try_from(self.most).unwrap_or(i64::MAX);
        let values = params![account, since, before, readable, self.cursor.unwrap_or(first), most];
        cloud.store.read(|db| store::rows(db, &sql, values, entry))
    }
}

fn time(text: &str) -> Option<Duration> {
    humantime::parse_rfc3339_weak(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()
}

fn show(account: &str, entry: &Entry) -> Value {
    let Entry { at, body, .. } = entry;
    let (zone, setting) = (&body["zone"], body["setting"].as_str().unwrap_or_default());
    let uri = format!("/client/v4/zones/{}/settings/{setting}", zone["id"].as_str().unwrap_or_default());
    json!({
        "id": body["id"], "account": {"id": account, "name": format!("Local account {account}")},
        "action": {"description": "Change zone setting", "result": "success", "time": stamp(*at), "type": "update"},
        "actor": {"id": "local", "context": if body["by"] == DASHBOARD { "dash" } else { "api_token" }, "email": "local@example.com", "type": "user"},
        "raw": {"method": "PATCH", "status_code": 200, "uri": uri, "user_agent": body["by"]},
        "resource": {
            "id": setting, "product": "zones", "type": "settings", "scope": "zones",
            "request": {"value": body["now"]}, "response": {"id": setting, "value": body["now"]},
        },
        "zone": zone,
    })
}

fn show_old(entry: &Entry) -> Value {
    let Entry { at, body, .. } = entry;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    json!({
        "id": body["id"], "action": {"result": true, "type": "change_setting"},
        "actor": {"id": "local", "email": "local@example.com", "ip": "127.0.0.1", "type": "user"},
        "interface": "API",
        "metadata": {"name": body["setting"], "value": body["now"], "zone_name": body["zone"]["name"]},
        "oldValue": text(&body["was"]), "newValue": text(&body["now"]),
        "owner": {"id": "local"}, "resource": {"id": body["zone"]["id"], "type": "zone"},
        "when": stamp(*at),
    })
}
