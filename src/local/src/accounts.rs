//! The token, the accounts it reaches and their workers.dev subdomains. Any account id is an account of its own, which
//! exists as soon as it is named. Knows no workers.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::seal::digest;
use super::store;

/// `GET /user/tokens/verify`, also of an account. The token was accepted before; `account` is known for account
/// tokens, and for another account the answer is that there is no such token.
pub fn verify(token: &str, account: Option<&str>, asked: Option<&str>) -> Outcome {
    if account.is_some() && account != asked {
        return Err(Refusal::new(401, 1000, "Invalid API Token"));
    }
    let mut answer =
        json!({"success": true, "errors": [], "result": {"id": &digest(token.as_bytes())[..32], "status": "active"}});
    answer["messages"] = json!([{"code": 10000, "message": "This API Token is valid and active"}]);
    Ok(Answer::json(200, &answer))
}

/// `GET /accounts`: the accounts that hold or held something, or one to begin with; of an account's own token, that one.
pub fn list(cloud: &Cloud, call: &Call, reach: Option<&str>) -> Outcome {
    let ids = reach.map_or_else(|| ids(cloud), |account| Ok(vec![account.to_owned()]))?;
    let rows: Vec<Value> = ids
        .iter()
        .map(|id| json!({"id": id, "name": name(id), "type": "standard", "settings": {"enforce_twofactor": false}}))
        .filter(|row| call.query("name").is_none_or(|name| row["name"] == name))
        .collect();
    cloud.page(&rows, call, 20, 50)
}

/// `GET /memberships`: one for each account.
pub fn memberships(cloud: &Cloud, call: &Call) -> Outcome {
    let rows: Vec<Value> = ids(cloud)?
        .iter()
        .map(|id| {
            json!({"id": &digest(id.as_bytes())[..32], "status": "accepted", "roles": ["Administrator"],
                   "account": {"id": id, "name": name(id), "type": "standard"}})
        })
        .collect();
    cloud.page(&rows, call, 20, 50)
}

/// The accounts that there are, or one to begin with.
///
/// # Errors
/// When the database fails.
pub fn ids(cloud: &Cloud) -> Result<Vec<String>, Refusal> {
    cloud.store.read(|db| {
        let ids: Vec<String> = store::rows(db, "SELECT id FROM account ORDER BY id", [], |row| row.get(0))?;
        Ok(if ids.is_empty() { vec![digest(b"local account")[..32].to_owned()] } else { ids })
    })
}

fn name(id: &str) -> String {
    format!("Local account {id}")
}

/// An account's workers.dev subdomain. A new account gets one from its id, so that nothing has to be registered first.
///
/// # Errors
/// When the database fails.
pub fn subdomain(db: &Connection, account: &str) -> Result<String, Refusal> {
    if let Some(found) = store::row(db, "SELECT subdomain FROM account WHERE id = ?1", [account], |row| row.get(0))? {
        return Ok(found);
    }
    let subdomain = format!("local-{}", &digest(account.as_bytes())[..8]);
    store::run(db, "INSERT INTO account (id, subdomain) VALUES (?1, ?2)", [account, &subdomain])?;
    Ok(subdomain)
}

/// The account that has this workers.dev subdomain.
///
/// # Errors
/// When the database fails.
pub fn of_subdomain(db: &Connection, subdomain: &str) -> Result<Option<String>, Refusal> {
    store::row(db, "SELECT id FROM account WHERE subdomain = ?1", [subdomain], |row| row.get(0))
}

/// `GET …/workers/subdomain`.
pub fn get_subdomain(cloud: &Cloud, account: &str) -> Outcome {
    cloud.store.write(|db| Ok(Answer::ok(&json!({"subdomain": subdomain(db, account)?}))))
}

/// `PUT …/workers/subdomain`: refused (10031) when another account has it.
pub fn put_subdomain(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let wanted = call.text("subdomain")?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if wanted.is_empty()
        || wanted.len() > 63
        || wanted.starts_with('-')
        || wanted.ends_with('-')
        || !wanted.bytes().all(allowed)
    {
        return Err(Refusal::new(400, 10016, format!("invalid subdomain {wanted:?}")));
    }
    cloud.store.write(|db| {
        subdomain(db, account)?;
        if of_subdomain(db, wanted)?.is_some_and(|owner| owner != account) {
            return Err(Refusal::new(409, 10031, format!("the subdomain {wanted} is unavailable")));
        }
        db.execute("UPDATE account SET subdomain = ?2 WHERE id = ?1", [account, wanted])?;
        Ok(Answer::ok(&json!({"subdomain": wanted})))
    })
}

/// `GET …/ai-search/namespaces/{name}` and `…/agent-memory/namespaces/{name}`: a namespace of any name exists.
pub fn namespace(name: &str) -> Outcome {
    Ok(Answer::ok(&json!({"name": name, "created_at": "2026-01-01T00:00:00.000Z"})))
}

/// `GET …/r2/buckets/{name}`: a bucket of any name exists.
pub fn bucket(name: &str) -> Outcome {
    Ok(Answer::ok(&json!({"name": name, "creation_date": "2026-01-01T00:00:00.000Z", "storage_class": "Standard"})))
}
