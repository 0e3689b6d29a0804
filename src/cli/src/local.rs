//! `flotilla local`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use flotilla_local as local;
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;
use flotilla_model::plain_file;
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use super::{Format, Session, report, stdout};
use flotilla_engine::cloud::{
    PORT, address_file, cannot_start, local_folder, local_options, lock_file, platform_limits,
};
use flotilla_engine::context::FOLDER;

/// The id of an account for those who have none: the emulator takes any.
const LOCAL_ACCOUNT: &str = "00000000000000000000000000000001";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Port to listen on; 0 uses any free port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Rate limit of the API for each token, such as 1200/300: requests per seconds
    #[arg(long, value_name = "REQUESTS/SECONDS", value_parser = limit)]
    limit: Option<local::RateLimit>,
    /// Token that the API accepts in addition to the one in .flotilla/local/token; TOKEN@ACCOUNT is for that account only; can be repeated
    #[arg(long = "token", value_name = "TOKEN")]
    tokens: Vec<String>,
    /// Zone that exists; NAME@ACCOUNT belongs to that account; can be repeated [default: the last two labels of any host]
    #[arg(long = "zone", value_name = "NAME")]
    zones: Vec<String>,
}

fn limit(text: &str) -> Result<local::RateLimit, String> {
    let parse = || -> Option<local::RateLimit> {
        let (requests, seconds) = text.split_once('/')?;
        let (requests, seconds) = (requests.parse().ok()?, seconds.parse::<u64>().ok()?);
        (requests > 0 && seconds > 0).then(|| local::RateLimit { requests, window: Duration::from_secs(seconds) })
    };
    parse().ok_or_else(|| "expected REQUESTS/SECONDS, such as 1200/300".to_owned())
}

/// The emulator of a project, and the lock that keeps a second one away.
pub(super) struct Emulator {
    /// The emulator.
    pub running: local::Running,
    folder: PathBuf,
    _lock: Lock,
}

impl Emulator {
    /// Starts the emulator of a project on this machine's port, and notes its address for other commands.
    pub(super) fn start(
        session: &Session,
        port: u16,
        change: impl FnOnce(&mut local::Options),
    ) -> Result<Emulator, Failure> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let mut options = local_options(&session.root, Arc::new(session.ui.clone()), address)?;
        // It also serves projects that aren't flotilla's, or whose fleet.yaml has errors at the moment.
        if let Ok(fleet) = project::read_fleet(&Tree::new(&session.root)) {
            options.limits = platform_limits(&fleet);
        }
        change(&mut options);
        let folder = local_folder(&session.root);
        let lock = Lock::take(&lock_file(&folder), "local Cloudflare emulator").map_err(|mut failure| {
            if failure.exit == Exit::Refused {
                failure.hints = vec![
                    "a project has one: `flotilla deploy --local` and `flotilla logs CUSTOMER --local` use the one that is running".to_owned(),
                    "or stop that one first, with Ctrl-C or q in its terminal".to_owned(),
                ];
            }
            failure
        })?;
        let running = local::start(options).map_err(|error| cannot_start(&folder, error))?;
        let file = address_file(&folder);
        let written = AtomicFile::new(&file).mode(plain_file::PRIVATE).write(running.address().to_string().as_bytes());
        let written = written.with_context(|| format!("{} can't be written", file.display()));
        written.map_err(|error| cannot_start(&folder, error))?;
        Ok(Emulator { running, folder, _lock: lock })
    }

    /// Returns its addresses.
    pub(super) fn json(&self) -> Value {
        let running = &self.running;
        json!({"address": format!("http://{}/", running.address()), "page": running.page(), "api": running.api_base()})
    }

    /// Stops it and ends all workers.
    pub(super) fn stop(self) {
        let _ = std::fs::remove_file(address_file(&self.folder));
        self.running.stop();
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let emulator = Emulator::start(session, arguments.port, |options| {
        options.tokens = arguments.tokens.clone();
        options.zones = arguments.zones.clone();
        if let Some(limit) = arguments.limit {
            options.limit = limit;
        }
    })?;
    // Before anything is printed: the reader may stop it at once.
    let (sender, end) = channel();
    if !session.ui.on_signal(Box::new(move |_| _ = sender.send(()))) {
        return Err(Failure::new("signal handlers can't be installed"));
    }
    let api = emulator.running.api_base();
    let folder = &emulator.folder;
    let shown =
        folder.strip_prefix(std::env::current_dir().unwrap_or_default()).unwrap_or(folder).join(local::TOKEN_FILE);
    if session.format == Format::Json {
        session.json(&emulator.json())?;
    } else {
        report::print(&format!(
            "local Cloudflare emulator (data in {FOLDER}/local)\n\
             \x20 API      {api}\n\
             \x20 page     {} shows workers, requests and logs\n\
             `flotilla deploy --local` deploys to it; for other tools:\n\
             \x20 export CLOUDFLARE_API_BASE_URL={api} CLOUDFLARE_ACCOUNT_ID={LOCAL_ACCOUNT}\n\
             \x20 export CLOUDFLARE_API_TOKEN=$(cat {})\n\
             Ctrl-C stops it",
            emulator.running.page(),
            shown.display()
        ));
    }
    stdout::require_written()?;
    let _ = end.recv();
    emulator.stop();
    Ok(Exit::Done)
}
