//! `flotilla logs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::ValueEnum;
use parking_lot::Mutex;
use serde_json::{Value, json};

use flotilla_deploy::tail::Event;
use flotilla_engine::cloud::CloudOptions;
use flotilla_engine::logs::{LogsRequest, follow_logs};
use flotilla_engine::selection::Selection;
use flotilla_model::customer::Worker;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::spec::Environment;

use super::selection::environment;
use super::ui::{clean, duration};
use super::{Format, Session, report, stdout, trace_output};

/// The width of the column of workers, and how wide it may become.
static WIDTH: AtomicUsize = AtomicUsize::new(0);
const WIDEST: usize = 40;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Customer id
    #[arg(value_name = "CUSTOMER")]
    customer: String,
    /// Select environments; can be repeated or separated by commas
    #[arg(long, value_name = "NAME", value_parser = environment, value_delimiter = ',')]
    env: Vec<Environment>,
    /// Only workers with this role; can be repeated or separated by commas
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    worker: Vec<String>,
    /// Follow the workers of the local Cloudflare emulator
    #[arg(long)]
    local: bool,
    /// Read secrets from this dotenv file instead of the sources in fleet.yaml [default: .env, if it exists]
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    #[command(flatten)]
    filters: Filters,
}

/// The filters of `wrangler tail`.
#[derive(clap::Args)]
struct Filters {
    /// Only requests with this outcome; can be repeated or separated by commas
    #[arg(long, value_enum, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
    /// Only requests whose console lines contain this text
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only requests with this HTTP method; can be repeated or separated by commas
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    method: Vec<String>,
    /// Only requests with this header, or with this text in the header: NAME or NAME:TEXT
    #[arg(long, value_name = "HEADER")]
    header: Option<String>,
    /// Only requests from this IP address, or self for this machine's; can be repeated or separated by commas
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    ip: Vec<String>,
    /// Only requests to this version of the worker
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
    /// Only this share of requests, between 0 and 1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    sampling_rate: Option<f64>,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// The worker answered.
    Ok,
    /// The worker threw, or was stopped by a limit.
    Error,
    /// The client went away.
    Canceled,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a number between 0 and 1, such as 0.25".to_owned())
}

impl Filters {
    /// Returns them in the form of the platform's API.
    fn to_api(&self) -> Vec<Value> {
        let mut filters = Vec::new();
        if let Some(rate) = self.sampling_rate {
            filters.push(json!({"sampling_rate": rate}));
        }
        if !self.status.is_empty() {
            let outcomes = self.status.iter().flat_map(|status| match status {
                Status::Ok => &["ok"][..],
                Status::Error => &["exception", "exceededCpu", "exceededMemory", "unknown"],
                Status::Canceled => &["canceled"],
            });
            filters.push(json!({"outcome": outcomes.collect::<Vec<_>>()}));
        }
        if !self.method.is_empty() {
            let methods: Vec<String> = self.method.iter().map(|method| method.to_uppercase()).collect();
            filters.push(json!({"method": methods}));
        }
        if let Some(header) = &self.header {
            filters.push(match header.split_once(':') {
                Some((key, text)) => json!({"header": {"key": key.trim(), "query": text.trim()}}),
                None => json!({"header": {"key": header.trim()}}),
            });
        }
        if !self.ip.is_empty() {
            filters.push(json!({"client_ip": self.ip}));
        }
        if let Some(text) = &self.search {
            filters.push(json!({"query": text}));
        }
        if let Some(id) = &self.version_id {
            filters.push(json!({"scriptVersion": id}));
        }
        filters
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (ui, flag) = (session.ui.clone(), Arc::clone(&stopped));
    let handles = session.ui.on_signal(Box::new(move |_| {
        if flag.swap(true, Ordering::Relaxed) {
            ui.leave(130);
        }
    }));
    if !handles {
        return Err(Failure::new("signal handlers can't be installed"));
    }
    let selection = Selection::new(vec![arguments.customer.clone()], Vec::new(), arguments.env.clone(), None);
    let cloud = CloudOptions { local: arguments.local, env_file: arguments.env_file.clone() };
    let request =
        LogsRequest { selection: &selection, roles: &arguments.worker, cloud, filters: arguments.filters.to_api() };
    // The lines of one event stay together.
    let output = Mutex::new(());
    let on_event = |worker: &Worker, event: Event<'_>| {
        let _whole = output.lock();
        match event {
            Event::Message(message) => print_event(session, &worker.name, message),
            Event::Connected { again: false } => {
                session.ui.note(&format!("connected to {}; Ctrl-C stops", clean(&worker.name)));
            }
            Event::Connected { again: true } => session.ui.note(&format!("connected to {} again", clean(&worker.name))),
            Event::Lost { reason, wait } => session.ui.line(&clean(&format!(
                "the connection to {} is lost ({reason}); connecting again in {}",
                worker.name,
                duration(wait.as_secs_f64())
            ))),
        }
    };
    let on_failure = |failure: &Failure| {
        let _whole = output.lock();
        session.ui.failure(failure);
    };
    let stops = || stopped.load(Ordering::Relaxed) || stdout::is_closed();
    follow_logs(&session.context(), &request, &stops, &on_event, &on_failure)?;
    Ok(Exit::Done)
}

/// Prints an event: as lines, or as it is for `--json`.
pub(super) fn print_event(session: &Session, worker: &str, event: &Value) {
    match session.format {
        Format::Text => {
            // As wide as the widest so far, so that the columns stay one below the other.
            let width = worker.chars().count().min(WIDEST);
            let width = WIDTH.fetch_max(width, Ordering::Relaxed).max(width);
            let lines = trace_output::lines(&session.ui, &format!("{worker:width$}"), event);
            if !lines.is_empty() {
                report::print(&lines.join("\n"));
            }
        }
        // An output that can't be written ends the command.
        Format::Json => drop(session.json(event)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filters: Filters,
    }

    #[test]
    fn filters_are_those_that_wrangler_sends() {
        let of = |words: &[&str]| {
            let line = Line::try_parse_from([&["x"], words].concat());
            Value::from(line.unwrap_or_else(|error| panic!("{error}")).filters.to_api())
        };
        assert_eq!(of(&[]), json!([]));
        assert_eq!(
            of(&["--status", "ok,error", "--status", "canceled"]),
            json!([{"outcome": ["ok", "exception", "exceededCpu", "exceededMemory", "unknown", "canceled"]}])
        );
        assert_eq!(
            of(&["--method", "get,post", "--search", "a b", "--sampling-rate", "0.5", "--ip", "self"]),
            json!([{"sampling_rate": 0.5}, {"method": ["GET", "POST"]}, {"client_ip": ["self"]}, {"query": "a b"}])
        );
        assert_eq!(of(&["--header", "X-A: b:c"]), json!([{"header": {"key": "X-A", "query": "b:c"}}]));
        assert_eq!(of(&["--version-id", "v1"]), json!([{"scriptVersion": "v1"}]));
        assert_eq!(of(&["--header", "X-A"]), json!([{"header": {"key": "X-A"}}]));
        for rate in ["0", "1", "2", "x"] {
            assert!(Line::try_parse_from(["x", "--sampling-rate", rate]).is_err(), "{rate}");
        }
    }
}
