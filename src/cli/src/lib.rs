//! The edge: the command line, one file for each command, exit codes. The only place that prints and that names clap.

mod apply;
mod authoring;
mod build;
mod check;
mod cloud;
mod columns;
mod confirmation;
mod control;
mod control_channel;
mod deploy;
mod diff;
mod edit;
mod events;
mod explain;
mod export;
mod findings;
mod github;
mod grouping;
mod history;
mod import;
mod init;
mod junit;
mod list;
mod local;
mod new;
mod operator;
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
mod timings;
mod transaction;
mod ui;
mod verify;
mod watch;
mod worker_details;
mod workflow;

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use flotilla_deploy::undo;
use flotilla_engine::context::{Context, check_folder};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::progress::Progress as _;
use flotilla_model::trace;
use flotilla_spec::project;
use operator::Terminal;
use selection::Selection;
use ui::{Style, Ui};

const ABOUT: &str = "A build system for fleets of Cloudflare Workers.

One YAML file per customer goes in; a reviewed TypeScript module, a content-hashed bundle and a wrangler file come out, \
and only what changed is deployed, paced below Cloudflare's API limit.";

const AFTER: &str = "\
Every command is a prefix of one line: check → build → plan → deploy. A dry run is the same code, stopped early.

  flotilla init my-fleet         a new project
  flotilla check                 every mistake in every spec, at once
  flotilla build                 write out/, only where bytes differ
  flotilla plan                  what a deploy would do, and what it costs
  flotilla deploy --local        to a Cloudflare on this machine
  flotilla deploy --yes          to the real one: CLOUDFLARE_API_TOKEN, CLOUDFLARE_ACCOUNT_ID

Exit codes: 0 done · 1 diagnostics or failure · 2 usage · 3 changes pending · 4 some changes failed · 5 refused · 70 a bug";

const INIT: &str = "Examples:
  flotilla init my-fleet                         a new project: a customer, the pack consent
  flotilla init --ci github                      .github/workflows/flotilla.yml for this project
  flotilla init --ci github --print              the same to stdout
  flotilla init --ci github --previews           .github/workflows/flotilla-previews.yml: a preview for each pull request
  flotilla init --ci github --install 'cargo install --locked --path tools/flotilla'";

const IMPORT: &str = "Examples:
  flotilla import ../shop --dry-run                  what would be written, and what can't be mapped
  flotilla import ../shop --project fleet            a new project in the folder fleet
  flotilla import . --customer acme                  a project beside wrangler's own files
  flotilla import --account ID --project fleet       what is live in an account, with CLOUDFLARE_API_TOKEN

It reads wrangler.toml, .jsonc and .json with their environments, config/base/*.env, config/customers/NAME/ENVIRONMENT.env, and the \
code that the workers begin with. Values of secrets are never copied. Exit code 4: not all could be mapped, and the rest is written.";
const NEW: &str = "Examples:
  flotilla new                                       a dialogue
  flotilla new acme --domain consent.acme.example --database d1-new:acme-consent --yes
  flotilla new acme --offline --destination posthog apiKey=phc_1 --label tier=gold --yes

The token is typed on the terminal, or comes from where the account's has its own; never from the command line. An error, and \
Ctrl-C, leave all files and the account as they were.";

const EDIT: &str = "Examples:
  flotilla edit                                      a dialogue
  flotilla edit acme --domain shop.acme.example --yes
  flotilla edit acme --set vars.LANGUAGE=de --unset vars.OLD --yes
  flotilla edit acme --disable Hotjar --destination posthog apiKey=phc_1 --yes
  pass show cloudflare | flotilla edit acme --rotate-token --yes

Comments, order and quotes of everything that isn't changed stay as they are. The difference is shown first; an error, and Ctrl-C, \
leave all files and the account as they were.";

const PLAN: &str = "Examples:
  flotilla plan                     the whole fleet
  flotilla plan acme bluebird       two customers
  flotilla plan -l tier=gold        all with a label
  flotilla plan --exit-code         for CI: 3 if there are changes
  flotilla plan --format json       one object, its digest included
  flotilla plan --format markdown   for a comment of a pull request
  flotilla plan --out fleet.plan    for `flotilla deploy --plan fleet.plan`

Without --refresh it sends nothing and needs no token. With CLOUDFLARE_ACCOUNT_ID it compares with what was deployed to that \
account.";

const DEPLOY: &str = "Examples:
  flotilla deploy --local                            to a Cloudflare on this machine
  flotilla deploy --yes                              to the real one
  flotilla deploy --yes --env staging                one environment
  flotilla deploy --yes acme                         one customer
  flotilla deploy --yes --all --reason CVE-2026-1    every worker, changed or not
  flotilla deploy --plan fleet.plan                  what `flotilla plan --out fleet.plan` wrote, or nothing

The real one wants CLOUDFLARE_API_TOKEN and CLOUDFLARE_ACCOUNT_ID. Secrets are looked up in the environment and in the dotenv \
file, as CUSTOMER__NAME and then as NAME. Ctrl-C ends after what is in flight; the next deploy goes on from there.";

const PREVIEW: &str = "Examples:
  flotilla preview up --id 123 acme           acme once more, as acme-preview-123.…
  flotilla preview up --id 123 --since main   whom a branch changes
  flotilla preview up --id 123 --from production --days 3 --summary preview.md
  flotilla preview list                       all previews of the fleet, and when they expire
  flotilla preview down --id 123              domains first, then databases and workers
  flotilla preview down --expired --yes       for a job that runs every night
  flotilla preview down --all                 every preview of the fleet

A preview takes the settings of staging, or of `previews.from` in fleet.yaml; `environments: { preview: … }` comes over them. Its workers call each other. Its D1 databases are its own. Run it again, and what changed is brought up to date.";

const PRUNE: &str = "Examples:
  flotilla prune                     what would go, and asks
  flotilla prune --yes               deletes workers that no spec owns, 10 or 10 % at the most
  flotilla prune --domains           with them the domains and routes that lead to workers which don't exist

It asks the cloud first. As long as a spec has errors, its workers stay; as long as one can't be read, all do.";

const ROLLBACK: &str = "Examples:
  flotilla rollback acme                 to what ran before
  flotilla history acme                  what ran, with the numbers of its records
  flotilla rollback acme --to 1234       to what this record put in place
  flotilla rollback --run 17             everything that this deploy uploaded

It uploads bundles that the state keeps, so it works where the specs are what is broken. Domains, routes and crons stay. What was \
rolled back is not deployed again until its bundle changes, or its customer is named. A git revert and a deploy do the same.";

const VERIFY: &str = "Examples:
  flotilla verify                          every deployed worker
  flotilla verify acme --deadline 300      for a new domain, whose certificate takes a while
  flotilla verify --local                  those on this machine
  flotilla verify --junit verify.xml       for CI, beside the table
  flotilla deploy --yes --verify           what a deploy changed, right after it

It asks DNS and the certificate of each custom domain and of each host of a route, and then what the pack declares under \
`verify` in its pack.yaml. It sends no credentials. Exit code 4 if a worker is not as it should be.";

const SECRETS: &str = "Examples:
  flotilla secrets list acme                     what acme needs, and where each value comes from
  flotilla secrets check                         what is missing, too large or unused; exit code 1
  flotilla secrets set TURSO_AUTH_TOKEN --customer acme       asks for the value
  pass show acme | flotilla secrets set TURSO_AUTH_TOKEN --customer acme
  flotilla secrets rotate SESSION_KEY            a new random value

Values are never shown, nor taken from the command line. `secrets` in fleet.yaml says where they come from; without it, the \
environment and .env do.";

const EXPORT: &str = "Examples:
  flotilla export acme                                  the folder export/acme
  flotilla export acme --env production --to acme.tar.gz    an archive, and acme.tar.gz.sha256
  flotilla export 'self-*' --form zip --to exports      an archive for each
  flotilla export acme --form tar.gz --to - | ssh …     to stdout
  flotilla export acme --workflow github --url https://exports.example.com/acme.tar.gz

An export has the files of out/, package.json with wrangler pinned, a README, and no secret; `npm run deploy` there deploys the \
workers with the digests that flotilla would deploy. The same specs give the same bytes.";

const LOCAL: &str = "Examples:
  flotilla local                                     on port 8787
  curl http://c15t-acme.localhost:8787/health        a deployed worker, by its name
  curl http://127.0.0.1:8787/workers/c15t-acme/health    the same by path
  flotilla local --limit 20/10                       a limit that is soon reached

Requests to the API carry the token in .flotilla/local/token, or one that --token names; a web page gets no answer from it.

Faults on request: POST a list to /__local/faults, with that token and the content type application/json, such as
  [{\"match\": {\"method\": \"PUT\"}, \"times\": 2, \"do\": {\"status\": 429, \"retry_after\": 2}}]
  [{\"skip\": 3, \"do\": {\"set\": {\"result\": null}}}]     the fourth request is carried out, its answer changed
GET /__local/requests, with the token, lists the API's requests.";

#[derive(Parser)]
#[command(name = "flotilla", version, about = ABOUT, after_help = AFTER, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The project's folder, or one below it [default: this folder]
    #[arg(long, global = true, value_name = "DIR")]
    project: Option<PathBuf>,
    /// How results are written to stdout; json is one object, on the last line; only check writes github and sarif, only plan markdown
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    format: Output,
    /// Only results and errors: no progress
    #[arg(long, short, global = true)]
    quiet: bool,
    /// How many threads read, render and write [default: one for each core that this process may use]
    #[arg(short = 'j', long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// At the end, a table of where the time went, to stderr; with --format json, in the object, too
    #[arg(long, global = true)]
    timings: bool,
    /// Write what each thread does when, for Perfetto or chrome://tracing
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
    /// Begin a project, or write a workflow that checks, plans and deploys one
    #[command(after_help = INIT)]
    Init(init::Arguments),
    /// Make a project from one that wrangler deploys: specs, packs and fleet.yaml
    #[command(after_help = IMPORT)]
    Import(import::Arguments),
    /// Add a customer, by a dialogue or by options
    #[command(after_help = NEW)]
    New(new::Arguments),
    /// Change a customer, by a dialogue or by options
    #[command(after_help = EDIT)]
    Edit(edit::Arguments),
    /// Check all specs, fleet.yaml and the packs; every mistake at once
    Check(check::Arguments),
    /// Render out/, only where bytes differ
    Build(build::Arguments),
    /// Show what a deploy would do, and what it costs; sends nothing
    #[command(after_help = PLAN)]
    Plan(plan::Arguments),
    /// Build, plan, and apply only the changes
    #[command(after_help = DEPLOY)]
    Deploy(deploy::Arguments),
    /// Put workers back to what they ran before
    #[command(after_help = ROLLBACK)]
    Rollback(rollback::Arguments),
    /// List what happened to a customer, or the deploys
    History(history::Arguments),
    /// Show what differs between two bundles of a customer
    Diff(diff::Arguments),
    /// Tell a deploy that is running to pause, to go on, or to end
    Control(control::Arguments),
    /// List customers: account, zone, token, domain, database, its id; ids masked
    List(cloud::CustomersArguments),
    /// Print customers with every default applied and every name derived
    Show {
        #[command(flatten)]
        selection: Selection,
    },
    /// Show what is deployed: digest, when, where
    Status(status::Arguments),
    /// Ask deployed workers: DNS, TLS, health, and what else their packs promise
    #[command(after_help = VERIFY)]
    Verify(verify::Arguments),
    /// What secrets workers need, where their values come from; set and rotate them
    #[command(subcommand, after_help = SECRETS)]
    Secrets(secrets::Arguments),
    /// Customers once more, for a while, under hosts of their own
    #[command(subcommand, after_help = PREVIEW)]
    Preview(preview::Arguments),
    /// Delete what no spec owns any more; list domains and routes that lead nowhere
    #[command(after_help = PRUNE)]
    Prune(prune::Arguments),
    /// What flotilla has on record: show it, make it anew from the cloud, clear a stale lock
    #[command(subcommand)]
    State(state::Command),
    /// A Cloudflare on this machine: the API, and the deployed workers in workerd
    #[command(after_help = LOCAL)]
    Local(local::Arguments),
    /// Explain the code of a diagnostic; without one, list them all
    Explain {
        /// The code, such as S0201
        subject: Option<String>,
    },
    /// Write the JSON Schemas to schema/, or print one
    Schema(schema::Arguments),
    /// A customer's workers as a folder or an archive, for who deploys them without flotilla
    #[command(after_help = EXPORT)]
    Export(export::Arguments),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
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
    Arguments::command()
}

/// Runs as one of flotilla's own helper processes, if it was started as one. The binary calls this first; from then on, it uses helpers.
pub fn helper() -> Option<std::process::ExitCode> {
    flotilla_model::child::is_binary();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    flotilla_model::child::helper(&arguments).or_else(|| flotilla_build::renderer::helper(&arguments))
}

/// Runs the program; the exit code comes back.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return match (error.print(), exit) {
                (Err(lost), Exit::Done) if lost.kind() != std::io::ErrorKind::BrokenPipe => {
                    ui::stderr(&format!("error: stdout can't be written: {lost}"));
                    Exit::Diagnostics
                }
                _ => exit,
            };
        }
    };
    let ui = Ui::new(arguments.global.quiet, arguments.global.timings);
    let format = arguments.global.format;
    let trace = arguments.global.trace.clone();
    let result = started(&arguments.global).and_then(|()| dispatch(arguments, &ui));
    // A failure may have come in the middle of a phase.
    ui.end();
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
        ui.line(&timings::table(&timings));
    }
    if let (Some(path), Err(error)) = (trace, trace::finish()) {
        ui.failure(&Failure::new(format!("the trace {} can't be written: {error}", path.display())));
        if exit == Exit::Done {
            exit = Exit::Diagnostics;
        }
    }
    exit
}

/// Prints the completions of a shell.
fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "flotilla", &mut script);
    report::print(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
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

/// Refuses to change the cloud by what an interrupted command left of a project; warns others.
fn refuse_half_made(session: &Session, command: &Command) -> Result<(), Failure> {
    if matches!(command, Command::New(_) | Command::Edit(_)) {
        return Ok(());
    }
    let Some(what) = undo::interrupted(&session.root) else { return Ok(()) };
    let what = ui::clean(&what);
    let hint = match what.as_str() {
        "init" | "import" => format!("run `flotilla {what}` again: it takes back what the interrupted one did first"),
        _ => {
            format!("`flotilla {what} --interrupted undo` takes it back first, `--interrupted keep` leaves it as it is")
        }
    };
    let message = format!("`flotilla {what}` was interrupted, and the project is half changed");
    if matches!(command, Command::Deploy(_) | Command::Prune(_) | Command::Preview(_)) {
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
                Failure::usage("only `flotilla check` writes github and sarif, only `flotilla plan` markdown");
            return Err(failure.hint("every command writes text and json"));
        }
    };
    if let Command::Completions { shell } = command {
        return completions(shell);
    }
    if let Command::Explain { subject } = &command
        && let Some(exit) = explain::code(ui, format, subject.as_deref())?
    {
        return Ok(exit);
    }
    let from = global.project.unwrap_or_else(|| PathBuf::from("."));
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
        Command::History(arguments) => history::run(&session, &arguments),
        Command::Diff(arguments) => diff::run(&session, &arguments),
        Command::Control(arguments) => control::run(&session, &arguments),
        Command::Status(arguments) => status::run(&session, &arguments),
        Command::Preview(arguments) => preview::run(&session, &arguments),
        Command::Verify(arguments) => verify::run(&session, &arguments),
        Command::Prune(arguments) => prune::run(&session, &arguments),
        Command::State(command) => state::run(&session, &command),
        Command::List(arguments) => list::run(&session, &arguments),
        Command::Show { selection } => show::run(&session, &selection),
        Command::Secrets(arguments) => secrets::run(&session, &arguments),
        Command::Local(arguments) => local::run(&session, &arguments),
        Command::Export(arguments) => export::run(&session, &arguments),
        Command::Explain { subject } => explain::customer(&session, &subject.unwrap_or_default()),
        Command::Schema(arguments) => schema::run(&session, &arguments),
        Command::Import(_) | Command::Init(_) | Command::Completions { .. } => {
            unreachable!("BUG: they need no project")
        }
    };
    summary::report_invalid(&session, result)
}
