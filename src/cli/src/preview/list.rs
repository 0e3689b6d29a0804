//! `flotilla preview list`: what the cloud has.

use std::collections::BTreeSet;

use serde::Serialize;

use flotilla_deploy::refresh::Seen;
use flotilla_engine::previews::{created, list_previews};
use flotilla_model::clock::{Clock as _, SystemClock};
use flotilla_model::customer::SHARED;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::text::grouped;

use super::super::cloud::CloudArguments;
use super::super::report;
use super::super::table::{Cell, Column, Fit, Table};
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
    let mut table = Table::new(&[
        Column::new("preview", Fit::Name),
        Column::number("workers", Fit::Whole(3)),
        Column::new("created", Fit::Whole(2)),
        Column::new("expires", Fit::Whole(1)),
        Column::new("customers", Fit::Cut(4)),
        Column::new("hosts", Fit::Cut(5)),
    ]);
    for row in rows {
        let expires = match (&row.expires, row.expired) {
            (Some(at), true) => Cell::styled(format!("expired {at}"), Style::Warning),
            (Some(at), false) => at.as_str().into(),
            (None, _) => "never".into(),
        };
        let list = |names: &BTreeSet<String>| clean(&names.iter().cloned().collect::<Vec<_>>().join(", "));
        table.row([
            clean(&row.id).into(),
            grouped(row.workers.len() as u64).into(),
            row.created.into(),
            expires,
            list(&row.customers).into(),
            list(&row.hosts).into(),
        ]);
    }
    table.print(&session.ui);
    Ok(Exit::Done)
}
