//! Workflows as the API has them: which class of which worker each one runs. Knows their rows; not how instances run.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::call::Call;
use super::cloud::Cloud;
use super::envelope::{Answer, Outcome, Refusal};
use super::store::{self, Key};

const WORKFLOW: &str = "SELECT id, name, script, class, body, created, modified FROM workflow";

fn workflow(row: &rusqlite::Row<'_>) -> rusqlite::Result<Value> {
    let text = |index| row.get::<_, String>(index);
    let mut shown = json!({
        "id": text(0)?, "name": text(1)?, "script_name": text(2)?, "class_name": text(3)?, "created_on": text(5)?, "modified_on": text(6)?,
        "version_id": text(0)?, "is_deleted": 0, "terminator_running": 0, "triggered_on": null, "instances": {},
    });
    let settings: Value = serde_json::from_str(&text(4)?).unwrap_or_default();
    for (key, value) in settings.as_object().into_iter().flatten() {
        shown[key] = value.clone();
    }
    Ok(shown)
}

fn get(db: &Connection, account: &str, name: &str) -> Result<Value, Refusal> {
    let found = store::row(db, &format!("{WORKFLOW} WHERE account = ?1 AND name = ?2"), [account, name], workflow)?;
    found.ok_or_else(|| Refusal::new(404, 10200, "workflows.api.error.workflow.not_found"))
}

/// `GET …/workflows`.
pub fn list(cloud: &Cloud, account: &str, call: &Call) -> Outcome {
    let sql = format!("{WORKFLOW} WHERE account = ?1 ORDER BY name");
    let all = cloud.store.read(|db| store::rows(db, &sql, [account], workflow))?;
    cloud.page(&all, call, 25, 100)
}

/// `GET`, `PUT` and `DELETE …/workflows/{name}`.
pub fn one(cloud: &Cloud, account: &str, name: &str, call: &Call) -> Outcome {
    let now = cloud.now();
    cloud.store.write(|db| match call.method.as_str() {
        "PUT" => {
            let body = call.json()?;
            let text = |key: &str| body[key].as_str().filter(|text| !text.is_empty());
            let (Some(script), Some(class)) = (text("script_name"), text("class_name")) else {
                return Err(Refusal::unparseable("script_name and class_name are required"));
            };
            store::get(db, &Key::of_account(account, script))?;
            let mut settings = body.clone();
            settings.as_object_mut().into_iter().for_each(|settings| {
                settings.retain(|key, _| !matches!(key.as_str(), "script_name" | "class_name"));
            });
            let sql = "INSERT INTO workflow (id, account, name, script, class, body, created, modified)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
                       ON CONFLICT (account, name) DO UPDATE SET script = ?4, class = ?5, body = ?6, modified = ?7";
            let values = params![cloud.store.seal.uuid(), account, name, script, class, settings.to_string(), now];
            store::run(db, sql, values)?;
            Ok(Answer::ok(&get(db, account, name)?))
        }
        "DELETE" => {
            get(db, account, name)?;
            store::run(db, "DELETE FROM workflow WHERE account = ?1 AND name = ?2", [account, name])?;
            Ok(Answer::ok(&json!({"status": "ok", "success": true})))
        }
        _ => Ok(Answer::ok(&get(db, account, name)?)),
    })
}
