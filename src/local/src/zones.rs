//! Zones: the domains of an account. Where no list of zones is given, every host's last two labels are one, which comes
//! into being, in the account that names it, when it is first named. Knows names and ids; not what is attached to them.

use rusqlite::{Connection, Row};
use serde_json::{Value, json};

use super::accounts;
use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::seal::digest;
use super::store;

/// One zone.
#[derive(Debug, Clone)]
pub struct Zone {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The domain, lower case.
    pub name: String,
    /// The account that has it, or `""` while none has named it.
    pub account: String,
    created: String,
}

fn zone(row: &Row<'_>) -> rusqlite::Result<Zone> {
    Ok(Zone { id: row.get(0)?, name: row.get(1)?, account: row.get(2)?, created: row.get(3)? })
}

const ZONE: &str = "SELECT id, name, account, created FROM zone";

/// Makes the zones that were given, so that they can be asked for by their ids.
///
/// # Errors
/// When the database fails.
pub fn make(cloud: &Cloud) -> Result<(), Refusal> {
    cloud.store.write(|db| cloud.zones.iter().try_for_each(|(name, _)| named(cloud, db, name, None).map(drop)))
}

/// `GET /zones`, filtered by name and account; of an account's own token, those of the account.
pub fn list(cloud: &Cloud, call: &Call, reach: Option<&str>) -> Outcome {
    let account = reach.or_else(|| call.query("account.id")).or_else(|| call.query("account"));
    // A zone that is listed has an account.
    let first = accounts::ids(cloud)?.into_iter().next();
    let rows = cloud.store.write(|db| {
        match call.query("name") {
            Some(name) => {
                // A name that no zone can have is no error: the list is empty.
                let name = ascii(name);
                if zone_name(cloud, &name).as_deref() == Some(name.as_str()) {
                    named(cloud, db, &name, account)?;
                }
            }
            None => {
                for (name, _) in &cloud.zones {
                    named(cloud, db, name, account.or(first.as_deref()))?;
                }
            }
        }
        store::rows(db, &format!("{ZONE} ORDER BY name"), [], zone)
    })?;
    let shown: Vec<Value> = rows
        .iter()
        .filter(|zone| call.query("name").is_none_or(|name| zone.name == ascii(name)))
        .filter(|zone| account.is_none_or(|account| zone.account == account))
        .filter(|zone| call.query("account.id").is_none_or(|account| zone.account == account))
        .filter(|_| call.query("status").is_none_or(|status| status == "active"))
        .map(show)
        .collect();
    // At most 50 on a page (OpenAPI document of 2024-08).
    cloud.page(&shown, call, 20, 50)
}

/// `GET /zones/{id}`.
pub fn read(cloud: &Cloud, id: &str) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&show(&get(db, id)?))))
}

/// The zone of that id.
///
/// # Errors
/// 400 (1001) when there is none.
pub fn get(db: &Connection, id: &str) -> Result<Zone, Refusal> {
    let found = store::row(db, &format!("{ZONE} WHERE id = ?1"), [id], zone)?;
    found.ok_or_else(|| Refusal::new(400, 1001, "Invalid zone identifier"))
}

/// The zone that contains a host, in that account.
///
/// # Errors
/// 400 (1001) when the host is in no zone, or in one of another account.
pub fn of_host(cloud: &Cloud, db: &Connection, account: &str, host: &str) -> Result<Zone, Refusal> {
    let none = || Refusal::new(400, 1001, format!("{host} is not in any zone of the account {account}"));
    let name = zone_name(cloud, host).ok_or_else(none)?;
    Some(named(cloud, db, &name, Some(account))?).filter(|zone| zone.account == account).ok_or_else(none)
}

/// The zone of that name, which comes into being if no list of zones is given.
///
/// # Errors
/// 400 (1001) when there is none.
pub fn by_name(cloud: &Cloud, db: &Connection, name: &str) -> Result<Zone, Refusal> {
    let name = ascii(name);
    match zone_name(cloud, &name) {
        Some(zone) if zone == name => named(cloud, db, &name, None),
        _ => Err(Refusal::new(400, 1001, format!("{name} is no zone"))),
    }
}

/// The zones that a request to `host` may have routes in: all whose name is a suffix of it.
///
/// # Errors
/// When the database fails.
pub fn above(db: &Connection, host: &str) -> Result<Vec<Zone>, Refusal> {
    let mut found = Vec::new();
    let mut rest = Some(host);
    while let Some(name) = rest {
        found.extend(store::row(db, &format!("{ZONE} WHERE name = ?1"), [name], zone)?);
        rest = name.split_once('.').map(|(_, parent)| parent);
    }
    Ok(found)
}

/// Assigns a zone that no account has named yet to `account`.
///
/// # Errors
/// When the database fails.
pub fn claim(db: &Connection, zone: &mut Zone, account: &str) -> Result<(), Refusal> {
    if zone.account.is_empty() {
        store::run(db, "UPDATE zone SET account = ?2 WHERE id = ?1", [&zone.id, account])?;
        account.clone_into(&mut zone.account);
    }
    Ok(())
}

fn named(cloud: &Cloud, db: &Connection, name: &str, account: Option<&str>) -> Result<Zone, Refusal> {
    let owner = cloud.zones.iter().find(|(zone, _)| zone == name).and_then(|(_, owner)| owner.as_deref());
    let account = owner.or(account);
    let mut zone = match store::row(db, &format!("{ZONE} WHERE name = ?1"), [name], zone)? {
        Some(zone) => zone,
        None => {
            let id = digest(format!("zone {name}").as_bytes())[..32].to_owned();
            let zone = Zone { id, name: name.to_owned(), account: String::new(), created: cloud.now() };
            let sql = "INSERT INTO zone (id, name, account, created) VALUES (?1, ?2, '', ?3)";
            store::run(db, sql, [&zone.id, &zone.name, &zone.created])?;
            zone
        }
    };
    if let Some(account) = account {
        claim(db, &mut zone, account)?;
    }
    Ok(zone)
}

/// The name of the zone that contains a host, if any: the longest of the given zones, or the last two labels.
fn zone_name(cloud: &Cloud, host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    if cloud.zones.is_empty() {
        let labels: Vec<&str> = host.split('.').collect();
        let [.., domain, top] = labels.as_slice() else { return None };
        return (!domain.is_empty() && !top.is_empty()).then(|| format!("{domain}.{top}"));
    }
    let within = |zone: &&String| host == **zone || host.ends_with(&format!(".{zone}"));
    cloud.zones.iter().map(|(zone, _)| zone).filter(within).max_by_key(|zone| zone.len()).cloned()
}

/// A name as it is kept: in lower case and ASCII. Cloudflare's API takes names in Unicode, too.
fn ascii(name: &str) -> String {
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_ascii_lowercase())
}

fn show(zone: &Zone) -> Value {
    // As Cloudflare's API has them: in Unicode.
    let name = idna::domain_to_unicode(&zone.name).0;
    json!({
        "id": zone.id, "name": name, "status": "active", "paused": false, "type": "full", "development_mode": 0,
        "account": {"id": zone.account, "name": format!("Local account {}", zone.account)},
        "created_on": zone.created, "modified_on": zone.created, "activated_on": zone.created,
        "name_servers": ["a.ns.example.com", "b.ns.example.com"], "original_name_servers": null,
        "original_dnshost": null, "original_registrar": null,
        "owner": {"id": "local", "name": "Local", "type": "user"},
        "plan": {"id": "local", "name": "Local", "legacy_id": "local"},
        "meta": {"phishing_detected": false, "step": 2}, "permissions": ["#worker:read", "#worker:edit", "#zone:read"],
    })
}
