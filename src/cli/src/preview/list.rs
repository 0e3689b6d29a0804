//! `flotilla preview list`: what the cloud has.

use std::collections::BTreeSet;

use serde::Serialize;

use flotilla_deploy::refresh::Seen;
use flotilla_engine::previews::{created, list_previews};
use flotilla_model::clock::{Clock as _, SystemClock};
use flotilla_model::customer::SHARED;
use flotilla_model::failure::{Exit, Failure};

use super::super::cloud::CloudArguments;
use super::super::report::{self, count};
use super::super::ui::{Style, clean, time};
use super::super::{Format, Session};

#[derive(clap::Args)]
pub(in super::super) struct Arguments {
    #[command(flatten)]
    cloud: CloudArguments,
}

#[derive(Serialize)]
struct Row {
    id: String,
    workers: BTreeSet<String>,
    customers: BTreeSet<String>,
    hosts: BTreeSet<String>,
    created: String,
    expires: Option<String>,
    expired: bool,
}

impl Row {
    fn of(seen: Seen, now: i64) -> Row {
        Row {
            expired: seen.is_expired(now),
            id: seen.id,
            workers: seen.workers.into_iter().map(|(_, worker)| worker).collect(),
            customers: seen.customers.into_iter().filter(|customer| customer != SHARED).collect(),
            hosts: seen.hosts,
            created: created(&seen.created),
            expires: seen.expires.map(time),
        }
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let found = list_previews(&session.context(), &arguments.cloud.options())?;
    let now = SystemClock::new().unix();
    let rows: Vec<Row> = found.into_iter().map(|seen| Row::of(seen, now)).collect();
    if session.format == Format::Json {
        session.json(&serde_json::json!({ "previews": rows }))?;
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        report::print("there are no previews");
        return Ok(Exit::Done);
    }
    for row in rows {
        let until = match (&row.expires, row.expired) {
            (Some(at), true) => session.ui.paint(Style::Warning, &format!("expired {at}")),
            (Some(at), false) => format!("until {at}"),
            (None, _) => "no expiry".to_owned(),
        };
        let workers = count(row.workers.len(), "worker");
        report::print(&format!("{:20}  {workers}, made {}, {until}", clean(&row.id), row.created));
        let list = |names: &BTreeSet<String>| clean(&names.iter().cloned().collect::<Vec<_>>().join(", "));
        report::print(&format!("  customers: {}", list(&row.customers)));
        report::print(&format!("  hosts: {}", list(&row.hosts)));
    }
    Ok(Exit::Done)
}
