//! Time Travel: bookmarks of databases, and going back to one. A bookmark is a copy that is made when it is asked for; the newest of each
//! database are kept. Cloudflare has one for each moment of 30 days.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rusqlite::backup::Backup;
use serde_json::json;

use super::call::Call;
use super::cloud::Cloud;
use super::databases::{BOOKMARKS, find};
use super::envelope::{Answer, Outcome, Refusal};

/// The number of bookmarks of a database that are kept.
const KEPT: usize = 10;
/// The pages that are copied at a time.
const PAGES: i32 = 1000;

/// `GET …/time_travel/bookmark`: the present one, or with `timestamp` the last one at that time.
pub fn bookmark(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    find(cloud, account, id)?;
    let bookmark = match call.query("timestamp") {
        Some(time) => at(cloud, id, time)?,
        None => make(cloud, id)?,
    };
    Ok(Answer::ok(&json!({"bookmark": bookmark})))
}

/// `POST …/time_travel/restore?bookmark=…` or `?timestamp=…`.
pub fn restore(cloud: &Cloud, account: &str, id: &str, call: &Call) -> Outcome {
    find(cloud, account, id)?;
    let bookmark = match (call.query("bookmark"), call.query("timestamp")) {
        (Some(bookmark), None) => bookmark.to_owned(),
        (None, Some(time)) => at(cloud, id, time)?,
        _ => return Err(Refusal::new(400, 7400, "one of bookmark and timestamp is required")),
    };
    let known = kept(cloud, id).into_iter().find(|known| *known == bookmark);
    let from = known.ok_or_else(|| Refusal::new(400, 7400, "the bookmark is unknown, or no longer kept"))?;
    let previous = make(cloud, id)?;
    copy(&folder(cloud, id).join(format!("{from}.db")), &database(cloud, id))?;
    let now = make(cloud, id)?;
    Ok(Answer::ok(
        &json!({"bookmark": now, "previous_bookmark": previous, "message": "Database restored successfully"}),
    ))
}

fn database(cloud: &Cloud, id: &str) -> PathBuf {
    cloud.folder.join("d1").join(format!("{id}.db"))
}

fn folder(cloud: &Cloud, id: &str) -> PathBuf {
    cloud.folder.join(BOOKMARKS).join(id)
}

/// Makes a bookmark of the present. They sort by time.
fn make(cloud: &Cloud, id: &str) -> Result<String, Refusal> {
    let now = (cloud.clock)();
    let unique = cloud.store.seal.uuid().replace('-', "");
    let bookmark = format!("{:08x}-{:08x}-00000000-{unique}", now.as_secs(), now.subsec_micros());
    let folder = folder(cloud, id);
    let failed = |error: std::io::Error| Refusal::new(500, 7500, format!("the bookmark can't be made: {error}"));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    copy(&database(cloud, id), &folder.join(format!("{bookmark}.db")))?;
    let all = kept(cloud, id);
    for old in &all[..all.len().saturating_sub(KEPT)] {
        std::fs::remove_file(folder.join(format!("{old}.db"))).map_err(failed)?;
    }
    Ok(bookmark)
}

/// Returns the bookmarks of a database that are kept, the oldest first.
fn kept(cloud: &Cloud, id: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder(cloud, id)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".db").map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// Returns the last bookmark at a time.
fn at(cloud: &Cloud, id: &str, time: &str) -> Result<String, Refusal> {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = time.parse().ok().or_else(|| humantime::parse_rfc3339_weak(time).ok().map(since));
    let seconds =
        seconds.ok_or_else(|| Refusal::new(400, 7400, "timestamp is neither RFC 3339 nor a number of seconds"))?;
    let end = format!("{:08x}-ffffffff", seconds);
    let last = kept(cloud, id).into_iter().rfind(|bookmark| *bookmark <= end);
    last.ok_or_else(|| Refusal::new(400, 7400, "no bookmark of that time is kept"))
}

/// Copies a database as a whole, even while others use either of them.
fn copy(from: &Path, to: &Path) -> Result<(), Refusal> {
    let run = || -> rusqlite::Result<()> {
        let from = Connection::open(from)?;
        let mut to = Connection::open(to)?;
        for db in [&from, &to] {
            db.busy_timeout(Duration::from_secs(5))?;
        }
        Backup::new(&from, &mut to)?.run_to_completion(PAGES, Duration::from_millis(5), None)
    };
    Ok(run()?)
}
