//! The command line: one file for each command, and the exit codes. The only place that prints and that names clap.

mod apply;
mod authoring;
mod build;
mod check;
mod cloud;
mod color;
mod columns;
mod complete;
mod confirmation;
mod control;
mod control_channel;
mod database_rows;
mod deploy;
mod destroy;
mod dev;
mod diff;
mod edit;
mod events;
mod explain;
mod export;
mod findings;
mod github;
mod grouping;
mod help;
mod history;
mod import;
mod init;
mod junit;
mod keys;
mod list;
mod local;
mod logs;
mod migrations;
mod new;
mod operator;
mod other_names;
pub mod packs;
mod plan;
mod plan_output;
mod preview;
mod prompts;
mod prune;
mod report;
mod rollback;
mod sarif;
mod schema;
mod secrets;
mod selection;
mod show;
mod signals;
mod state;
mod status;
mod stdout;
mod summary;
mod table;
mod timings;
mod timings_table;
mod trace_output;
mod transaction;
mod ui;
mod verbose;
mod verify;
mod watch;
mod worker_details;
mod workflow;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use cloud::CloudArguments;
use color::ColorChoice;
use flotilla_deploy::undo;
use flotilla_engine::context::{Context, check_folder};
use flotilla_model::atomic_file::AtomicFile;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::trace;
use flotilla_spec::project;
use operator::Terminal;
use selection::Selection;
use ui::{Style, Ui};

#[derive(Parser)]
#[command(name = "flotilla", version = env!("CARGO_PKG_VERSION"), about = help::ABOUT, after_help = help::AFTER)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The project's folder, or one below it [default: the current folder]
    #[arg(short = 'C', long, alias = "project", global = true, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Output format; json prints one object on the last line of stdout; github and sarif are for check, markdown for plan
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    format: Output,
    /// Print one JSON object; the same as --format json
    #[arg(long, global = true, conflicts_with = "format")]
    json: bool,
    /// Show only results and errors, no progress
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Show each request to Cloudflare with its status and time
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Use colors: auto, always or never; auto decides for stdout and stderr separately
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto, hide_possible_values = true)]
    color: ColorChoice,
    /// Number of threads [default: the cores that this process may use]
    #[arg(short = 'j', long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print a table of where the time went to stderr; with --json, also in the object
    #[arg(long, global = true)]
    timings: bool,
    /// Write a trace for Perfetto or chrome://tracing
    #[arg(long, global = true, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// What `--format` can be.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
    // Workflow commands of GitHub Actions, which become annotations.
    Github,
    // SARIF 2.1.0, for code scanning. Not doc comments: they would make each command's help longer.
    Sarif,
    // For a comment of a pull request.
    Markdown,
}

/// The forms of results that all commands have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Create a project, or generate a CI workflow for one
    #[command(after_help = help::INIT)]
    Init(init::Arguments),
    /// Create a fleet from a wrangler project or from a live account
    #[command(after_help = help::IMPORT)]
    Import(import::Arguments),
    /// Add a customer, interactively or with flags
    #[command(after_help = help::NEW)]
    New(new::Arguments),
    /// Change a customer, interactively or with flags
    #[command(after_help = help::EDIT)]
    Edit(edit::Arguments),
    /// Check all specs, fleet.yaml and the packs, and report every error at once
    Check(check::Arguments),
    /// Build the files in out/ that are out of date
    Build(build::Arguments),
    /// Show what a deploy would do, why, and what it costs
    #[command(after_help = help::PLAN)]
    Plan(plan::Arguments),
    /// Build, plan, and deploy what changed
    #[command(after_help = help::DEPLOY)]
    Deploy(deploy::Arguments),
    /// Roll workers back to what they ran before
    #[command(after_help = help::ROLLBACK)]
    Rollback(rollback::Arguments),
    /// Delete a customer: its spec, its workers, domains and routes
    #[command(after_help = help::DESTROY)]
    Destroy(destroy::Arguments),
    /// List a customer's history, or the fleet's deploys
    History(history::Arguments),
    /// Show what a deploy of a customer would change, code included, or compare two bundles that ran
    Diff(diff::Arguments),
    /// Pause, resume or abort a running deploy
    Control(control::Arguments),
    /// List customers with their account, zone, token, domain and database; ids are masked
    List(cloud::CustomersArguments),
    /// Print customers with every default applied, each value with its source
    Show {
        #[command(flatten)]
        selection: Selection,
    },
    /// Show what is deployed: digest, time, address
    Status(status::Arguments),
    /// Check deployed workers: DNS, TLS, health, and the pack's other probes
    #[command(after_help = help::VERIFY)]
    Verify(verify::Arguments),
    /// List, check, set and rotate the secrets that workers need
    #[command(subcommand, after_help = help::SECRETS)]
    Secrets(secrets::Arguments),
    /// List, apply and create the migrations of D1 databases
    #[command(subcommand, after_help = help::MIGRATIONS)]
    Migrations(migrations::Arguments),
    /// Deploy, list and remove temporary previews with their own hostnames
    #[command(subcommand, after_help = help::PREVIEW)]
    Preview(preview::Arguments),
    /// Delete workers that no spec defines; list domains and routes without a worker
    #[command(after_help = help::PRUNE)]
    Prune(prune::Arguments),
    /// Inspect, rebuild or unlock the deployment state
    #[command(subcommand)]
    State(state::Command),
    /// Develop locally: run the emulator, deploy to it on each save, and print what workers log
    #[command(after_help = help::DEV)]
    Dev(dev::Arguments),
    /// Print a customer's requests, console lines and exceptions as they happen
    #[command(after_help = help::LOGS)]
    Logs(logs::Arguments),
    /// Run the local Cloudflare emulator: the API, and the deployed workers in workerd
    #[command(after_help = help::LOCAL)]
    Local(local::Arguments),
    /// Explain why a customer is built and deployed, or what a diagnostic code means; without an argument, list the codes
    Explain {
        /// Diagnostic code, such as S0201, or customer
        subject: Option<String>,
        #[command(flatten)]
        cloud: CloudArguments,
    },
    /// Write the JSON Schemas to schema/, or print one
    Schema(schema::Arguments),
    /// Export a customer's workers as a folder or an archive that deploys without flotilla
    #[command(after_help = help::EXPORT)]
    Export(export::Arguments),
    /// Generate shell completions
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell to generate completions for
        shell: clap_complete::Shell,
    },
    /// Write the man pages of all commands
    Man {
        /// The folder to write them to
        folder: PathBuf,
    },
}

/// The context of a command.
struct Session {
    root: PathBuf,
    format: Format,
    ui: Ui,
    /// The file that a summary is appended to.
    summary: Option<PathBuf>,
    /// The engine's side of this terminal.
    operator: Terminal,
}

impl Session {
    fn new(root: PathBuf, format: Format, ui: &Ui, summary: Option<PathBuf>) -> Session {
        let operator = Terminal::new(&root, format, ui);
        Session { root, format, ui: ui.clone(), summary, operator }
    }

    /// Returns what the engine works on.
    fn context(&self) -> Context<'_> {
        Context::new(&self.root, &self.operator)
    }

    /// Writes a result as one JSON object, on one line.
    fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        report::json(&self.ui, value)
    }
}

/// Returns the command line: its commands and options.
pub fn command_line() -> clap::Command {
    // It writes where its argument says, and nothing by default.
    let names = |argument: clap::Arg| argument.help("Customer ids or globs, such as 'shop-*'; '*' for all");
    let command = Arguments::command().mut_subcommand("export", |export| export.mut_arg("customers", names));
    complete::with_values(command)
}

/// Runs as one of flotilla's own helper processes, if it was started as one. The binary calls this first; from then on, it uses helpers.
pub fn helper() -> Option<std::process::ExitCode> {
    flotilla_model::child::is_binary();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    flotilla_model::child::helper(&arguments).or_else(|| flotilla_build::renderer::helper(&arguments))
}

/// Runs the program and returns its exit code. `version` is what `--version` prints after the name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, version: &'static str) -> Exit {
    clap_complete::CompleteEnv::with_factory(command_line).var(complete::VARIABLE).complete();
    let given: Vec<OsString> = arguments.into_iter().collect();
    let command = || command_line().version(version).color(color::of_arguments(&given));
    let matches = match command().try_get_matches_from(&given) {
        Err(error) if is_help_of_help(&error) => {
            command().try_get_matches_from(given.iter().filter(|word| *word != "--help" && *word != "-h"))
        }
        matches => matches,
    };
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = other_names::with_hint(error);
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            if exit == Exit::Usage && wants_json(&given) {
                let ui = Ui::new(true, false);
                let text = error.render().to_string();
                let (message, hints) = text.split_once("\n\n").unwrap_or((&text, ""));
                let message = message.trim_start_matches("error: ").trim();
                let hints: Vec<&str> = hints.split("\n\n").map(str::trim).filter(|hint| !hint.is_empty()).collect();
                let _ = report::json(&ui, &serde_json::json!({ "error": message, "hints": hints }));
            }
            return match (error.print(), exit) {
                (Err(lost), Exit::Done) if lost.kind() != std::io::ErrorKind::BrokenPipe => {
                    ui::stderr(&format!("error: stdout can't be written: {lost}"));
                    Exit::Diagnostics
                }
                _ => exit,
            };
        }
    };
    let mut arguments = arguments;
    if arguments.global.json {
        arguments.global.format = Output::Json;
    }
    color::choose(arguments.global.color);
    let ui = Ui::new(arguments.global.quiet, arguments.global.timings);
    if arguments.global.verbose {
        verbose::show_requests(&ui);
    }
    let format = arguments.global.format;
    let trace = arguments.global.trace.clone();
    let result = started(&arguments.global).and_then(|()| dispatch(arguments, &ui));
    // A failure may have come in the middle of a phase.
    ui.end();
    if let Some(note) = flotilla_model::cache::note() {
        ui.note(note);
    }
    let mut exit = result.unwrap_or_else(|failure| {
        ui.failure(&failure);
        if format == Output::Json {
            // Who reads JSON gets an object in any case.
            let object = serde_json::json!({"error": failure.to_string(), "hints": failure.hints});
            let _ = report::json(&ui, &object);
        }
        failure.exit
    });
    for failure in stdout::failures() {
        ui.failure(&failure);
        if matches!(exit, Exit::Done | Exit::Pending) {
            exit = Exit::Diagnostics;
        }
    }
    if let Some(timings) = ui.timings() {
        timings_table::table(&timings).lines(&ui, stdout::stderr_columns()).iter().for_each(|line| ui.line(line));
    }
    if let (Some(path), Err(error)) = (trace, trace::finish()) {
        ui.failure(&Failure::new(format!("the trace {} can't be written: {error}", path.display())));
        if exit == Exit::Done {
            exit = Exit::Diagnostics;
        }
    }
    exit
}

/// Returns whether the help command itself was called with `--help`, which clap takes for the name of a command.
fn is_help_of_help(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::InvalidSubcommand
        && matches!(
            error.get(ContextKind::InvalidSubcommand),
            Some(ContextValue::String(word)) if word == "--help" || word == "-h"
        )
}

/// Returns whether a command line that can't be parsed asks for JSON.
fn wants_json(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        if matches!(word, "--json" | "--format=json") || (word == "--format" && words.peek() == Some(&"json")) {
            return true;
        }
    }
    false
}

/// Prints the completions of a shell.
fn completions(shell: clap_complete::Shell, format: Format) -> Result<Exit, Failure> {
    if format == Format::Json {
        return Err(Failure::usage("`flotilla completions` prints a script for a shell and has no JSON output")
            .hint("run it without --json or --format"));
    }
    report::print(complete::script(&shell.to_string())?.trim_end());
    Ok(Exit::Done)
}

/// Writes a man page of each command into a folder.
fn man(folder: &Path, format: Format, ui: &Ui) -> Result<Exit, Failure> {
    let mut command = command_line().disable_help_subcommand(true);
    command.build();
    let written = std::fs::create_dir_all(folder)
        .map_err(anyhow::Error::from)
        .and_then(|()| man_pages(command, folder))
        .with_context(|| format!("the man pages can't be written to {}", folder.display()))?;
    match format {
        Format::Json => report::json(ui, &serde_json::json!({"folder": folder.to_string_lossy(), "written": written}))?,
        Format::Text => {
            let pages = report::count(written, "man page");
            report::print(&ui::clean(&format!("{pages} written to {}", folder.display())));
        }
    }
    Ok(Exit::Done)
}

/// Writes the man pages of a command and its subcommands; returns their number. An existing file is replaced, and a link isn't followed.
fn man_pages(command: clap::Command, folder: &Path) -> anyhow::Result<usize> {
    let mut written = 1;
    for subcommand in command.get_subcommands().cloned() {
        written += man_pages(subcommand, folder)?;
    }
    let page = clap_mangen::Man::new(command);
    let mut bytes = Vec::new();
    page.render(&mut bytes)?;
    AtomicFile::new(&folder.join(page.get_filename())).write(&bytes)?;
    Ok(written)
}

/// Starts what the whole program shares: its threads, its trace.
fn started(global: &Global) -> Result<(), Failure> {
    if let Some(threads) = global.threads {
        // Otherwise the cores are counted that the affinity and the control group of the process leave to it.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(threads));
        pool.build_global().map_err(anyhow::Error::from)?;
    }
    if let Some(path) = &global.trace {
        let file = File::create(path).with_context(|| format!("the trace {} can't be written", path.display()))?;
        trace::start(Box::new(file));
    }
    Ok(())
}

/// Refuses commands that change Cloudflare while an interrupted command has left a project half changed; warns others.
fn refuse_half_made(session: &Session, command: &Command) -> Result<(), Failure> {
    if matches!(command, Command::New(_) | Command::Edit(_)) {
        return Ok(());
    }
    let Some(what) = undo::interrupted(&session.root) else { return Ok(()) };
    let what = ui::clean(&what);
    let hint = match what.as_str() {
        "init" | "import" => format!("run `flotilla {what}` again: it first undoes the changes of the interrupted run"),
        _ => {
            format!("`flotilla {what} --interrupted undo` undoes it, `--interrupted keep` keeps it")
        }
    };
    let message = format!("`flotilla {what}` was interrupted and left the project half changed");
    if matches!(
        command,
        Command::Deploy(_) | Command::Destroy(_) | Command::Prune(_) | Command::Preview(_) | Command::Migrations(_)
    ) {
        return Err(Failure::refused(format!("{message}; nothing was sent")).hint(hint));
    }
    session.ui.line(&format!("{} {message}; {hint}", session.ui.paint(Style::Warning, "warning:")));
    Ok(())
}

fn dispatch(arguments: Arguments, ui: &Ui) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    let format = match (global.format, &command) {
        (Output::Json, _) => Format::Json,
        (Output::Text, _) | (Output::Github | Output::Sarif, Command::Check(_)) => Format::Text,
        (Output::Markdown, Command::Plan(_)) => Format::Text,
        (Output::Github | Output::Sarif | Output::Markdown, _) => {
            let failure =
                Failure::usage("only `flotilla check` supports github and sarif, only `flotilla plan` markdown");
            return Err(failure.hint("other commands support text and json"));
        }
    };
    if let Command::Completions { shell } = command {
        return completions(shell, format);
    }
    if let Command::Man { folder } = command {
        return man(&folder, format, ui);
    }
    if let Command::Explain { subject, .. } = &command
        && let Some(exit) = explain::code(ui, format, subject.as_deref())?
    {
        return Ok(exit);
    }
    let from = global.directory.unwrap_or_else(|| PathBuf::from("."));
    if let Command::Init(arguments) = command {
        return init::run(&from, format, ui, &arguments);
    }
    if let Command::Import(arguments) = command {
        return import::run(&from, format, ui, &arguments);
    }
    let summary = match &command {
        Command::Check(arguments) => arguments.summary.clone(),
        Command::Build(arguments) => arguments.summary.clone(),
        Command::Plan(arguments) => arguments.summary.clone(),
        Command::Deploy(arguments) => arguments.apply.summary.clone(),
        Command::Rollback(arguments) => arguments.apply.summary.clone(),
        Command::Preview(arguments) => arguments.summary(),
        Command::Prune(arguments) => arguments.apply.summary.clone(),
        Command::Migrations(migrations::Arguments::Apply(arguments)) => arguments.apply.summary.clone(),
        _ => None,
    };
    let session = Session::new(project::find(&from)?, format, ui, summary);
    check_folder(&session.root)?;
    refuse_half_made(&session, &command)?;
    let result = match command {
        Command::New(arguments) => new::run(&session, &arguments),
        Command::Edit(arguments) => edit::run(&session, &arguments),
        Command::Check(arguments) => check::run(&session, &arguments, global.format),
        Command::Build(arguments) => build::run(&session, &arguments),
        Command::Plan(arguments) => plan::run(&session, &arguments, global.format),
        Command::Deploy(arguments) => deploy::run(&session, &arguments),
        Command::Rollback(arguments) => rollback::run(&session, &arguments),
        Command::Destroy(arguments) => destroy::run(&session, &arguments),
        Command::History(arguments) => history::run(&session, &arguments),
        Command::Diff(arguments) => diff::run(&session, &arguments),
        Command::Control(arguments) => control::run(&session, &arguments),
        Command::Status(arguments) => status::run(&session, &arguments),
        Command::Preview(arguments) => preview::run(&session, &arguments),
        Command::Verify(arguments) => verify::run(&session, &arguments),
        Command::Prune(arguments) => prune::run(&session, &arguments),
        Command::Migrations(arguments) => migrations::run(&session, &arguments),
        Command::State(command) => state::run(&session, &command),
        Command::List(arguments) => list::run(&session, &arguments),
        Command::Show { selection } => show::run(&session, &selection),
        Command::Secrets(arguments) => secrets::run(&session, &arguments),
        Command::Dev(arguments) => dev::run(&session, &arguments),
        Command::Logs(arguments) => logs::run(&session, &arguments),
        Command::Local(arguments) => local::run(&session, &arguments),
        Command::Export(arguments) => export::run(&session, &arguments),
        Command::Explain { subject, cloud } => explain::customer(&session, &subject.unwrap_or_default(), &cloud),
        Command::Schema(arguments) => schema::run(&session, &arguments),
        Command::Import(_) | Command::Init(_) | Command::Completions { .. } | Command::Man { .. } => {
            unreachable!("BUG: they need no project")
        }
    };
    summary::report_invalid(&session, result)
}
