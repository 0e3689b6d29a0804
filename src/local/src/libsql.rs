//! The replacements for Turso's databases, and who may use which. Knows tokens and paths; not statements.

use hyper::Response;
use hyper::header::HeaderValue;
use serde_json::json;

use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::routing::{Body, respond, text};
use super::store;

/// Answers libSQL's protocol for a database that a deployed worker is bound to, to any client that has that worker's token.
pub fn answer(
    cloud: &Cloud,
    method: &str,
    host: &str,
    path: &str,
    token: Option<&HeaderValue>,
    body: &[u8],
) -> Response<Body> {
    let host = host.to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let token =
        token.and_then(|token| token.to_str().ok()).and_then(|token| token.strip_prefix("Bearer ")).unwrap_or_default();
    let tokens = match cloud.store.read(|db| tokens(cloud, db, &host)) {
        Ok(tokens) => tokens,
        Err(refusal) => return text(500, &refusal.message),
    };
    // A name that begins with a dot or holds a slash would be another file.
    if tokens.is_none() || host.starts_with('.') || !host.bytes().all(allowed) {
        return text(404, &format!("no deployed worker names the database {host} in TURSO_DATABASE_URL\n"));
    }
    if token.is_empty() || !tokens.is_some_and(|tokens| tokens.iter().any(|known| known == token)) {
        let error = json!({"error": "the token isn't the TURSO_AUTH_TOKEN of a worker bound to this database"});
        return respond(Answer::json(401, &error));
    }
    match (method, path.trim_end_matches('/')) {
        ("GET", "v2" | "v3") => respond(Answer::json(200, &json!({}))),
        ("GET", "health" | "version") => text(200, "local"),
        ("POST", "v2/pipeline" | "v3/pipeline") => {
            let (status, answer) = cloud.streams.pipeline(&cloud.store.seal, &host, body);
            respond(Answer::json(status, &answer))
        }
        // The client asks for the binary form of version 3 first and falls back.
        _ => text(404, "this libSQL speaks JSON: POST /v2/pipeline or /v3/pipeline\n"),
    }
}

/// The tokens of the workers bound to a database; none if there is no such worker.
fn tokens(cloud: &Cloud, db: &rusqlite::Connection, host: &str) -> Result<Option<Vec<String>>, Refusal> {
    let workers = store::deployed(db, Some(host))?;
    let mut tokens = Vec::new();
    for worker in &workers {
        let version = store::version(db, worker.id, worker.version.as_deref().unwrap_or_default())?;
        let secret = version.bindings.iter().find(|binding| binding["name"] == "TURSO_AUTH_TOKEN");
        tokens.extend(
            secret.and_then(|secret| secret["sealed"].as_str()).and_then(|sealed| cloud.store.seal.unseal(sealed)),
        );
    }
    Ok((!workers.is_empty()).then_some(tokens))
}
