//! The triggers of a worker besides custom domains: zone routes, cron schedules and workers.dev. Knows patterns; not
//! who answers them.

use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

use super::accounts;
use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key};
use super::zones::{self, Zone};

fn route(row: &Row<'_>) -> rusqlite::Result<Value> {
    let script: Option<String> = row.get(2)?;
    let mut route = json!({"id": row.get::<_, String>(0)?, "pattern": row.get::<_, String>(1)?});
    if let Some(script) = script {
        route["script"] = script.into();
    }
    Ok(route)
}

/// The routes of a script, for the list of scripts.
///
/// # Errors
/// When the database fails.
pub fn of_script(db: &Connection, key: &Key) -> Result<Vec<Value>, Refusal> {
    let sql = "SELECT id, pattern, script FROM route WHERE account = ?1 AND script = ?2 ORDER BY pattern";
    store::rows(db, sql, [&key.account, &key.name], route)
}

/// `GET /zones/{zone}/workers/routes`: all on one page.
pub fn routes(cloud: &Cloud, zone: &str) -> Outcome {
    cloud.store.read(|db| {
        let zone = zones::get(db, zone)?;
        let sql = "SELECT id, pattern, script FROM route WHERE zone = ?1 ORDER BY pattern";
        Ok(Answer::ok(&store::rows(db, sql, [zone.id], route)?.into()))
    })
}

/// `GET /zones/{zone}/workers/routes/{id}`.
pub fn read_route(cloud: &Cloud, zone: &str, id: &str) -> Outcome {
    cloud.store.read(|db| Ok(Answer::ok(&one_route(db, zone, id)?)))
}

fn one_route(db: &Connection, zone: &str, id: &str) -> Result<Value, Refusal> {
    let found = store::row(db, "SELECT id, pattern, script FROM route WHERE zone = ?1 AND id = ?2", [zone, id], route)?;
    found.ok_or_else(|| Refusal::new(404, 10007, format!("there is no route {id} in this zone")))
}

/// `POST /zones/{zone}/workers/routes`, and `PUT` of the route `id`.
pub fn put_route(cloud: &Cloud, zone: &str, id: Option<&str>, call: &Call) -> Outcome {
    let pattern = call.text("pattern")?;
    let script = call.json()?["script"].as_str();
    cloud.store.write(|db| {
        let mut zone = zones::get(db, zone)?;
        if let Some(id) = id {
            one_route(db, &zone.id, id)?;
        }
        check_pattern(pattern, &zone)?;
        if let Some(script) = script {
            let owners = store::named(db, script)?;
            let mut owners = owners.iter().filter(|worker| worker.key.namespace.is_empty());
            let owner = owners.find(|worker| zone.account.is_empty() || worker.key.account == zone.account);
            zones::claim(db, &mut zone, &owner.ok_or_else(Refusal::no_worker)?.key.account)?;
        }
        let id = insert_route(cloud, db, &zone, pattern, script, id)?;
        Ok(Answer::ok(&one_route(db, &zone.id, &id)?))
    })
}

/// `DELETE /zones/{zone}/workers/routes/{id}`.
pub fn delete_route(cloud: &Cloud, zone: &str, id: &str) -> Outcome {
    cloud.store.write(|db| {
        one_route(db, zone, id)?;
        db.execute("DELETE FROM route WHERE id = ?1", [id])?;
        Ok(Answer::ok(&json!({"id": id})))
    })
}

/// `PUT …/scripts/{name}/routes`: undocumented, wrangler's way; replaces all routes of the script in all zones.
pub fn replace_routes(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let wanted = call.json()?.as_array().ok_or_else(|| Refusal::unparseable("it must be an array"))?;
    cloud.store.write(|db| {
        store::get(db, key)?;
        let had = of_script(db, key)?;
        db.execute("DELETE FROM route WHERE account = ?1 AND script = ?2", [&key.account, &key.name])?;
        for sent in wanted {
            let pattern = sent.as_str().or_else(|| sent["pattern"].as_str());
            let pattern = pattern.ok_or_else(|| Refusal::unparseable("a route must have a pattern"))?;
            let zone = match (sent["zone_id"].as_str(), sent["zone_name"].as_str()) {
                (Some(id), _) => zones::get(db, id)?,
                (None, Some(name)) => zones::of_host(cloud, db, &key.account, name)?,
                (None, None) => zones::of_host(cloud, db, &key.account, host_of(pattern))?,
            };
            check_pattern(pattern, &zone)?;
            let id = had.iter().find(|route| route["pattern"] == pattern).and_then(|route| route["id"].as_str());
            insert_route(cloud, db, &zone, pattern, Some(&key.name), id)?;
        }
        Ok(Answer::ok(&of_script(db, key)?.into()))
    })
}

/// Writes a route under `id`, or under a fresh id.
fn insert_route(
    cloud: &Cloud,
    db: &Connection,
    zone: &Zone,
    pattern: &str,
    script: Option<&str>,
    id: Option<&str>,
) -> Result<String, Refusal> {
    let taken = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let taken: Option<(String, Option<String>)> =
        store::row(db, "SELECT id, script FROM route WHERE pattern = ?1", [pattern], taken)?;
    if let Some((_, owner)) = taken.filter(|(taken, _)| id != Some(taken)) {
        let owner = owner.unwrap_or_else(|| "no Worker".to_owned());
        let message = format!("a route with the pattern {pattern} already exists, for {owner}");
        return Err(Refusal::new(409, 10020, message));
    }
    if id.is_none()
        && store::count(db, "SELECT count(*) FROM route WHERE zone = ?1", &[&zone.id])? >= cloud.limits.routes
    {
        let message = format!("{} has {} routes, no more are allowed", zone.name, cloud.limits.routes);
        return Err(Refusal::new(400, 10021, message));
    }
    let id = id.map_or_else(|| cloud.store.seal.id(), ToOwned::to_owned);
    let sql = "INSERT OR REPLACE INTO route (id, zone, pattern, account, script) VALUES (?1, ?2, ?3, ?4, ?5)";
    store::run(db, sql, params![id, zone.id, pattern, zone.account, script])?;
    Ok(id)
}

/// The host part of a pattern, without a wildcard.
fn host_of(pattern: &str) -> &str {
    let rest = pattern.split_once("://").map_or(pattern, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.trim_start_matches('*').trim_start_matches('.')
}

/// Patterns (Cloudflare docs, Workers routes, 2026): a wildcard only at the start of the host and at the end of the path,
/// no query, the host within the zone.
fn check_pattern(pattern: &str, zone: &Zone) -> Result<(), Refusal> {
    let wrong = |why: &str| Err(Refusal::new(400, 10022, format!("invalid route pattern {pattern:?}: {why}")));
    let (scheme, rest) = pattern.split_once("://").unwrap_or(("", pattern));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let literal = host.strip_prefix('*').unwrap_or(host);
    if !matches!(scheme, "" | "http" | "https") {
        return wrong("the scheme can only be http or https");
    }
    if literal.contains('*') || path.strip_suffix('*').unwrap_or(path).contains('*') {
        return wrong("a wildcard can only be at the start of the host and at the end of the path");
    }
    if pattern.contains(['?', '#', ' ']) {
        return wrong("it can't have a query");
    }
    let bare = literal.trim_start_matches('.').to_ascii_lowercase();
    if bare != zone.name && !bare.ends_with(&format!(".{}", zone.name)) {
        return wrong(&format!("its host isn't in the zone {}", zone.name));
    }
    Ok(())
}

/// Returns how closely a pattern matches a request; none if it doesn't. The greatest wins: a host without a wildcard
/// before one with, then the longer host, then a path without a wildcard, then the longer path.
#[must_use]
pub fn specificity(pattern: &str, https: bool, host: &str, path: &str) -> Option<(bool, usize, bool, usize)> {
    let (scheme, rest) = pattern.split_once("://").unwrap_or(("", pattern));
    if !scheme.is_empty() && (scheme == "https") != https {
        return None;
    }
    let (wanted_host, wanted_path) = rest.split_once('/').unwrap_or((rest, ""));
    let wanted_host = wanted_host.to_ascii_lowercase();
    let host_matches = match wanted_host.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => host == wanted_host,
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    let path_matches = match wanted_path.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == wanted_path,
    };
    (host_matches && path_matches)
        .then(|| (!wanted_host.starts_with('*'), wanted_host.len(), !wanted_path.ends_with('*'), wanted_path.len()))
}

/// The route that a request takes: its pattern, account and script.
///
/// # Errors
/// When the database fails.
pub fn routed(
    db: &Connection,
    https: bool,
    host: &str,
    path: &str,
) -> Result<Option<(String, String, Option<String>)>, Refusal> {
    let mut best = None;
    for zone in zones::above(db, host)? {
        let route = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?));
        for found in store::rows(db, "SELECT pattern, account, script FROM route WHERE zone = ?1", [zone.id], route)? {
            if let Some(rank) = specificity(&found.0, https, host, path)
                && best.as_ref().is_none_or(|(most, _)| rank > *most)
            {
                best = Some((rank, found));
            }
        }
    }
    Ok(best.map(|(_, found)| found))
}

/// `GET …/schedules`.
pub fn schedules(cloud: &Cloud, key: &Key) -> Outcome {
    cloud.store.read(|db| {
        store::get(db, key)?;
        Ok(Answer::ok(&crons(db, key)?))
    })
}

fn crons(db: &Connection, key: &Key) -> Result<Value, Refusal> {
    let sql = "SELECT cron, created, modified FROM schedule WHERE account = ?1 AND script = ?2 ORDER BY cron";
    let rows = store::rows(db, sql, [&key.account, &key.name], |row| {
        let [cron, created, modified] = [row.get::<_, String>(0)?, row.get(1)?, row.get(2)?];
        Ok(json!({"cron": cron, "created_on": created, "modified_on": modified}))
    })?;
    Ok(json!({"schedules": rows}))
}

/// `PUT …/schedules`: replaces all.
pub fn put_schedules(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    let wanted = call.json()?.as_array().ok_or_else(|| Refusal::unparseable("it must be an array"))?;
    let now = cloud.now();
    cloud.store.write(|db| {
        store::get(db, key)?;
        let had = crons(db, key)?;
        db.execute("DELETE FROM schedule WHERE account = ?1 AND script = ?2", [&key.account, &key.name])?;
        for sent in wanted {
            let cron = sent["cron"].as_str().ok_or_else(|| Refusal::unparseable("a schedule must have a cron"))?;
            if cron.split_whitespace().count() != 5 {
                return Err(Refusal::new(400, 10100, format!("invalid cron string {cron:?}: it must have five fields")));
            }
            let before = had["schedules"].as_array().into_iter().flatten().find(|schedule| schedule["cron"] == cron);
            let created = before.and_then(|schedule| schedule["created_on"].as_str()).unwrap_or(&now);
            let sql = "INSERT OR REPLACE INTO schedule (account, script, cron, created, modified) VALUES (?1, ?2, ?3, ?4, ?5)";
            store::run(db, sql, [&key.account, &key.name, cron, created, &now])?;
        }
        if store::count(db, "SELECT count(*) FROM schedule WHERE account = ?1", &[&key.account])? > cloud.limits.crons {
            let message = format!("You have exceeded the limit of {} cron triggers.", cloud.limits.crons);
            return Err(Refusal::new(403, 10072, message));
        }
        Ok(Answer::ok(&crons(db, key)?))
    })
}

/// `GET`, `POST` and `DELETE …/scripts/{name}/subdomain`: whether it is served on workers.dev.
pub fn subdomain(cloud: &Cloud, key: &Key, call: &Call) -> Outcome {
    cloud.store.write(|db| {
        let mut worker = store::get(db, key)?;
        match call.method.as_str() {
            "POST" => {
                let body = call.json()?;
                let enabled =
                    body["enabled"].as_bool().ok_or_else(|| Refusal::unparseable("enabled must be true or false"))?;
                worker.enabled = enabled;
                worker.previews = body["previews_enabled"].as_bool().unwrap_or(enabled);
                accounts::subdomain(db, &key.account)?;
                store::save(db, &worker, &cloud.now())?;
            }
            "DELETE" => {
                (worker.enabled, worker.previews) = (false, false);
                store::save(db, &worker, &cloud.now())?;
            }
            _ => {}
        }
        Ok(Answer::ok(&json!({"enabled": worker.enabled, "previews_enabled": worker.previews})))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_pattern_wins() {
        let patterns = [
            "*example.com/*",
            "*.example.com/*",
            "a.example.com/*",
            "a.example.com/api/*",
            "a.example.com/api/x",
            "http://a.example.com/*",
        ];
        let best = |host: &str, path: &str| {
            let ranked =
                patterns.iter().filter_map(|pattern| Some((specificity(pattern, true, host, path)?, *pattern)));
            ranked.max().map(|(_, pattern)| pattern)
        };
        for (host, path, expect) in [
            ("a.example.com", "/api/x", Some("a.example.com/api/x")),
            ("a.example.com", "/api/y", Some("a.example.com/api/*")),
            ("a.example.com", "/", Some("a.example.com/*")),
            ("b.example.com", "/", Some("*.example.com/*")),
            ("example.com", "/", Some("*example.com/*")),
            ("myexample.com", "/", Some("*example.com/*")),
            ("example.org", "/", None),
        ] {
            assert_eq!(best(host, path), expect, "{host}{path}");
        }
        assert!(specificity("a.example.com", true, "a.example.com", "/x").is_none());
        assert!(specificity("a.example.com", true, "a.example.com", "/").is_some());
    }

    #[test]
    fn wrong_patterns_are_refused() {
        let store = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(crate::Options::new(store.path())).unwrap();
        let zone = cloud.store.write(|db| zones::of_host(&cloud, db, "a", "example.com")).unwrap();
        for (pattern, good) in [
            ("example.com/*", true),
            ("*.example.com/a/*", true),
            ("https://x.example.com", true),
            ("example.org/*", false),
            ("badexample.com/*", false),
            ("a.*.example.com/", false),
            ("example.com/*/x", false),
            ("example.com/?a", false),
            ("ftp://example.com/", false),
        ] {
            assert_eq!(check_pattern(pattern, &zone).is_ok(), good, "{pattern}");
        }
    }
}
