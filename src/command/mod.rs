//! The edge: the command line, one file for each command, exit codes. The only place that prints and that names clap.

mod build;
mod check;
mod cloud;
mod completions;
mod deploy;
mod local;
mod plan;
mod report;
mod schema;
mod selection;
mod show;
mod status;
mod ui;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::failure::{Exit, Failure};
use crate::project;
use selection::Selection;
use ui::Ui;

const ABOUT: &str = "A build system for fleets of Cloudflare Workers.

One YAML file per customer goes in; a reviewed TypeScript module, a content-hashed bundle and a wrangler file come out, \
and only what changed is deployed, paced below Cloudflare's API limit.";

const AFTER: &str = "\
Every command is a prefix of one line: check → build → plan → deploy. A dry run is the same code, stopped early.

  flotilla check                 every mistake in every spec, at once
  flotilla build                 write out/, only where bytes differ
  flotilla plan                  what a deploy would do, and what it costs
  flotilla deploy --local        to a Cloudflare on this machine
  flotilla deploy --yes          to the real one: CLOUDFLARE_API_TOKEN, CLOUDFLARE_ACCOUNT_ID

Exit codes: 0 done · 1 diagnostics or failure · 2 usage · 3 changes pending · 4 some changes failed · 5 refused · 70 a bug";

#[derive(Parser)]
#[command(name = "flotilla", version, about = ABOUT, after_help = AFTER, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Global {
    /// The project's folder, or one below it [default: this folder]
    #[arg(long, global = true, value_name = "DIR")]
    project: Option<PathBuf>,
    /// How results are written to stdout; json is one object, on the last line
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Only results and errors: no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Check all specs, fleet.yaml and the packs; every mistake at once
    Check {
        #[command(flatten)]
        selection: Selection,
    },
    /// Render out/, only where bytes differ
    Build(build::Arguments),
    /// Show what a deploy would do, and what it costs; sends nothing
    Plan(plan::Arguments),
    /// Build, plan, and apply only the changes
    Deploy(deploy::Arguments),
    /// Print customers with every default applied and every name derived
    Show {
        #[command(flatten)]
        selection: Selection,
    },
    /// Show what is deployed: digest, when, where
    Status(status::Arguments),
    /// A Cloudflare on this machine: the API, and the deployed workers in workerd
    Local(local::Arguments),
    /// Write the JSON Schemas to schema/, or print one
    Schema(schema::Arguments),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What each command gets.
struct Session {
    root: PathBuf,
    format: Format,
    ui: Ui,
}

/// Runs the program; the exit code comes back.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let ui = Ui::new(arguments.global.quiet);
    let format = arguments.global.format;
    match dispatch(arguments, &ui) {
        Ok(exit) => exit,
        Err(failure) => {
            ui.failure(&failure);
            if format == Format::Json {
                // Who reads JSON gets an object in any case.
                let object = serde_json::json!({"error": failure.to_string(), "hints": failure.hints});
                let _ = report::json(&object);
            }
            failure.exit
        }
    }
}

fn dispatch(arguments: Arguments, ui: &Ui) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    if let Command::Completions { shell } = command {
        return completions::run(shell);
    }
    let from = global.project.unwrap_or_else(|| PathBuf::from("."));
    let session = Session { root: project::find(&from)?, format: global.format, ui: ui.clone() };
    match command {
        Command::Check { selection } => check::run(&session, &selection),
        Command::Build(arguments) => build::run(&session, &arguments),
        Command::Plan(arguments) => plan::run(&session, &arguments),
        Command::Deploy(arguments) => deploy::run(&session, &arguments),
        Command::Status(arguments) => status::run(&session, &arguments),
        Command::Show { selection } => show::run(&session, &selection),
        Command::Local(arguments) => local::run(&session, &arguments),
        Command::Schema(arguments) => schema::run(&session, &arguments),
        Command::Completions { .. } => unreachable!("BUG: completions need no project"),
    }
}
