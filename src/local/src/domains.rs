//! Custom domains: hosts that belong to one worker as a whole. Knows who has which host; not the certificates and DNS
//! records that the real platform makes.

use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key};
use super::zones;

/// One attached host.
#[derive(Debug, Clone)]
pub struct Domain {
    id: String,
    hostname: String,
    /// The account that attached it.
    pub account: String,
    /// The worker.
    pub service: String,
    environment: String,
    zone: String,
    zone_name: String,
    cert: String,
    enabled: bool,
    previews: bool,
}

const DOMAIN: &str =
    "SELECT id, hostname, account, service, environment, zone, zone_name, cert, enabled, previews FROM domain";

fn domain(row: &Row<'_>) -> rusqlite::Result<Domain> {
    Ok(Domain {
        id: row.get(0)?,
        hostname: row.get(1)?,
        account: row.get(2)?,
        service: row.get(3)?,
        environment: row.get(4)?,
        zone: row.get(5)?,
        zone_name: row.get(6)?,
        cert: row.get(7)?,
        enabled: row.get(8)?,
        previews: row.get(9)?,
    })
}

fn show(domain: &Domain) -> Value {
    json!({
        "id": domain.id, "hostname": domain.hostname, "service": domain.service, "environment": domain.environment,
        "zone_id": domain.zone, "zone_name": domain.zone_name, "cert_id": domain.cert,
        "enabled": domain.enabled, "previews_enabled": domain.previews,
    })
}

/// Returns the worker that has a host, if one does.
///
/// # Errors
/// When the database fails.
pub fn of_host(db: &Connection, host: &str) -> Result<Option<Domain>, Refusal> {
    store::row(db, &format!("{DOMAIN} WHERE hostname = ?1"), [host], domain)
}

fn all(db: &Connection, account: &str, service: Option<&str>) -> Result<Vec<Domain>, Refusal> {
    let sql = format!("{DOMAIN} WHERE account = ?1 AND (?2 IS NULL OR service = ?2) ORDER BY hostname");
    store::rows(db, &sql, params![account, service], domain)
}

fn get(db: &Connection, account: &str, id: &str) -> Result<Domain, Refusal> {
    let found = store::row(db, &format!("{DOMAIN} WHERE account = ?1 AND id = ?2"), [account, id], domain)?;
    found.ok_or_else(|| Refusal::new(404, 10007, format!("there is no custom domain {id}")))
}

/// `GET …/workers/domains`: filtered by zone_id, zone_name, service, hostname, environment. And the undocumented
/// `GET …/workers/domains/records`, the same list.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let domains = cloud.store.read(|db| all(db, account, call.query("service")))?;
    let fits = |shown: &Value| {
        let filters = ["zone_id", "zone_name", "hostname", "environment"];
        filters.iter().all(|name| call.query(name).is_none_or(|wanted| shown[name] == wanted))
    };
    Ok(Answer::ok(&domains.iter().map(show).filter(fits).collect::<Vec<_>>().into()))
}

/// `GET …/workers/domains/{id}`.
pub fn read(cloud: &Cloud, account: &str, id: &str) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&show(&get(db, account, id)?))))
}

/// `DELETE …/workers/domains/{id}`: the answer has no `result` (SDK 7.3.0).
pub fn delete(cloud: &Cloud, account: &str, id: &str) -> Outcome {
    cloud.store.write(|db| {
        let domain = get(db, account, id)?;
        db.execute("DELETE FROM domain WHERE id = ?1", [domain.id])?;
        Ok(Answer::json(200, &json!({"success": true, "errors": [], "messages": []})))
    })
}

/// Whether a host may be taken from another worker, or from DNS records that Workers doesn't manage.
#[derive(Debug, Clone, Copy)]
struct Overrides {
    origin: bool,
    records: bool,
}

impl Overrides {
    fn of(body: &Value) -> Self {
        let set = |name: &str| body[name] == true;
        Self { origin: set("override_existing_origin"), records: set("override_existing_dns_record") }
    }
}

/// `PUT …/workers/domains`: attaches one host.
pub fn put(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let key = Key::of_account(account, call.text("service")?);
    let body = call.json()?;
    call.text("hostname")?;
    cloud.store.write(|db| {
        store::get(db, &key)?;
        Ok(Answer::ok(&show(&attach(cloud, db, &key, body, Overrides::of(body))?)))
    })
}

fn attach(cloud: &Cloud, db: &Connection, key: &Key, wanted: &Value, overrides: Overrides) -> Result<Domain, Refusal> {
    let host =
        wanted["hostname"].as_str().ok_or_else(|| Refusal::unparseable("hostname is required"))?.to_ascii_lowercase();
    if host.contains(['*', '/', ':', ' ']) || !host.contains('.') {
        let message = format!("{host:?} isn't a host name: a custom domain has no wildcard and no path");
        return Err(Refusal::invalid(message));
    }
    let zone = zones::of_host(cloud, db, &key.account, &host)?;
    for (field, has) in [("zone_id", &zone.id), ("zone_name", &zone.name)] {
        if wanted[field].as_str().is_some_and(|wanted| wanted != has) {
            return Err(Refusal::new(400, 1001, format!("{host} doesn't lie in the zone {}", wanted[field])));
        }
    }
    let had = of_host(db, &host)?;
    if let Some(had) = &had
        && (had.service != key.name || had.account != key.account)
        && !overrides.origin
    {
        let message = format!(
            "Hostname '{host}' is already attached to the Worker {}; use the option 'override_existing_origin' to override.",
            had.service
        );
        return Err(Refusal::new(409, 100_116, message));
    }
    if had.is_none() && cloud.dns.contains(&host) && !overrides.records {
        let message = format!(
            "Hostname '{host}' already has externally managed DNS records (A, CNAME, etc). Either delete them, try a different \
             hostname, or use the option 'override_existing_dns_record' to override."
        );
        return Err(Refusal::new(409, 100_117, message));
    }
    if had.is_none()
        && store::count(db, "SELECT count(*) FROM domain WHERE zone = ?1", &[&zone.id])? >= cloud.limits.domains
    {
        let message = format!("{} has {} custom domains, no more are allowed", zone.name, cloud.limits.domains);
        return Err(Refusal::new(400, 10021, message));
    }
    let flag = |name: &str, default: bool| wanted[name].as_bool().unwrap_or(default);
    let domain = Domain {
        id: had.as_ref().map_or_else(|| cloud.store.seal.id(), |had| had.id.clone()),
        account: key.account.clone(),
        service: key.name.clone(),
        environment: wanted["environment"].as_str().unwrap_or("production").to_owned(),
        zone: zone.id,
        zone_name: zone.name,
        cert: had.as_ref().map_or_else(|| cloud.store.seal.uuid(), |had| had.cert.clone()),
        enabled: flag("enabled", true),
        previews: flag("previews_enabled", false),
        hostname: host,
    };
    let Domain { id, hostname, account, service, environment, zone, zone_name, cert, enabled, previews } = &domain;
    let values = params![id, hostname, account, service, environment, zone, zone_name, cert, enabled, previews];
    store::run(db, "INSERT OR REPLACE INTO domain VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", values)?;
    Ok(domain)
}

/// `POST …/scripts/{name}/domains/changeset`: undocumented; what attaching these hosts would change.
pub fn changeset(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let wanted = call.json()?.as_array().ok_or_else(|| Refusal::unparseable("it must be an array"))?;
    cloud.store.read(|db| {
        store::get(db, key)?;
        let mut changes = json!({"added": [], "removed": [], "updated": [], "conflicting": []});
        let mut add = |kind: &str, row: Value| {
            if let Some(rows) = changes[kind].as_array_mut() {
                rows.push(row);
            }
        };
        let host = |origin: &Value| origin["hostname"].as_str().unwrap_or_default().to_ascii_lowercase();
        for origin in wanted {
            let host = host(origin);
            match of_host(db, &host)? {
                Some(domain) => {
                    let mut row = show(&domain);
                    row["modified"] = (domain.service != key.name || domain.account != key.account).into();
                    add("updated", row);
                }
                None => {
                    let kind = if cloud.dns.contains(&host) { "conflicting" } else { "added" };
                    let mut row = origin.clone();
                    row["service"] = key.name.clone().into();
                    add(kind, row);
                }
            }
        }
        if call.is_set("replace_state") {
            for domain in all(db, &key.account, Some(&key.name))? {
                if !wanted.iter().any(|origin| host(origin) == domain.hostname) {
                    add("removed", show(&domain));
                }
            }
        }
        Ok(Answer::ok(&changes))
    })
}

/// `PUT …/scripts/{name}/domains/records`: undocumented; replaces the worker's set of hosts.
pub fn replace(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let body = call.json()?;
    let wanted = body["origins"].as_array().ok_or_else(|| Refusal::unparseable("origins must be an array"))?;
    cloud.store.write(|db| {
        store::get(db, key)?;
        for domain in all(db, &key.account, Some(&key.name))? {
            if !wanted.iter().any(|origin| {
                origin["hostname"].as_str().is_some_and(|host| host.eq_ignore_ascii_case(&domain.hostname))
            }) {
                db.execute("DELETE FROM domain WHERE id = ?1", [domain.id])?;
            }
        }
        let attached = wanted.iter().map(|origin| Ok(show(&attach(cloud, db, key, origin, Overrides::of(body))?)));
        Ok(Answer::ok(&attached.collect::<Result<Vec<_>, Refusal>>()?.into()))
    })
}
