//! `flotilla control`: pauses, resumes or stops a running deploy.

use clap::ValueEnum;

use flotilla_engine::context::{FOLDER, LOCK};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::lock::Lock;

use super::{Format, Session, control_channel, report};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What the deploy should do
    #[arg(value_name = "WHAT")]
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Start nothing new until resumed
    Pause,
    /// Continue a paused deploy
    Resume,
    /// Stop after the requests in flight; the next deploy continues from there
    Abort,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let folder = session.root.join(FOLDER);
    if !Lock::is_held(&folder.join(LOCK)) {
        return Err(Failure::refused("no deploy of this project is running on this machine"));
    }
    let (word, lines) = match arguments.what {
        What::Pause => ("pause", "pausing after the requests in flight; `flotilla control resume` continues"),
        What::Resume => ("resume", "it goes on"),
        What::Abort => ("abort", "stopping after the requests in flight; the next deploy continues from there"),
    };
    control_channel::send_command(&folder, word)?;
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "told": word }))?,
        Format::Text => report::print(lines),
    }
    Ok(Exit::Done)
}
