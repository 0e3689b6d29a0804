//! `flotilla plan`, and the options that decide a plan.

use std::path::PathBuf;

use clap::Parser;

use flotilla_engine::deploy_fleet::finished;
use flotilla_engine::plan_file::PlanFile;
use flotilla_engine::plan_view::PlanView;
use flotilla_engine::planning::{PlanRequest, Planned, plan_fleet};
use flotilla_engine::preflight::excess_deletions;
use flotilla_model::failure::{Exit, Failure};

use super::cloud::CloudArguments;
use super::plan_output::PlanOutput;
use super::report;
use super::selection::Selection;
use super::ui::{Style, Ui, clean};
use super::{Format, Output, Session, summary};

/// The reason of `--all`, unless another is given.
const DEFAULT_REASON: &str = "a bulk redeploy";

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub line: LineArguments,
    /// Exit with 3 if there are changes
    #[arg(long)]
    exit_code: bool,
    /// Show every change instead of grouping similar ones
    #[arg(long)]
    full: bool,
    /// Save the plan to a file for `flotilla deploy --plan FILE`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Append the plan as Markdown to this file, such as "$GITHUB_STEP_SUMMARY"
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

/// The options that decide a plan.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct LineArguments {
    #[command(flatten)]
    pub selection: Selection,
    /// Also select the workers that the selected ones call, directly or indirectly
    #[arg(long)]
    pub with_dependencies: bool,
    #[command(flatten)]
    pub cloud: CloudArguments,
    /// Upload every selected worker, changed or not
    #[arg(long)]
    pub all: bool,
    /// Reason for uploading every worker, recorded in the history
    #[arg(long, value_name = "TEXT", requires = "all", default_value = DEFAULT_REASON)]
    pub reason: String,
    /// Delete deployed workers that no spec defines
    #[arg(long)]
    pub prune: bool,
    /// Compare with what Cloudflare runs, not only with the state; costs a few list requests
    #[arg(long)]
    pub refresh: bool,
    /// Take over an existing worker that this fleet doesn't manage, and overwrite it; `*` and `?` match several
    #[arg(long, value_name = "WORKER", value_delimiter = ',')]
    pub adopt: Vec<String>,
}

/// The request, as read from the command line.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Asked {
    #[command(flatten)]
    line: LineArguments,
}

impl LineArguments {
    /// Returns the engine's request.
    pub(super) fn request(&self) -> PlanRequest {
        PlanRequest {
            selection: (*self.selection).clone().with_dependencies(self.with_dependencies),
            cloud: self.cloud.options(),
            force: self.all.then(|| self.reason.clone()),
            prune: self.prune,
            refresh: self.refresh,
            adopt: self.adopt.iter().cloned().collect(),
            ..PlanRequest::default()
        }
    }

    /// Returns the request of the plan in a file, with the cloud of these options.
    pub(super) fn of_file(&self, file: &PlanFile) -> Result<LineArguments, Failure> {
        let asked = Asked::try_parse_from(file.asked())
            .map_err(|_| Failure::refused("the plan file is damaged: its request can't be read; nothing was sent"))?;
        Ok(LineArguments { cloud: self.cloud.clone(), ..asked.line })
    }

    /// Returns the options that decide this plan, as a shell reads them. `deletions`: the number that has to be allowed for it.
    fn options(&self, deletions: Option<usize>) -> String {
        let mut words = Vec::new();
        if self.cloud.local {
            words.push("--local".to_owned());
        }
        if let Some(file) = &self.cloud.env_file {
            words.push(format!("--env-file={}", file.display()));
        }
        words.extend(deletions.map(|number| format!("--max-deletions={number}")));
        words.extend(self.words().into_iter().filter(|word| *word != format!("--reason={DEFAULT_REASON}")));
        // It is needed only before a name that looks like an option.
        if let Some(end) = words.iter().position(|word| word == "--")
            && !words[end + 1..].iter().any(|customer| customer.starts_with('-'))
        {
            words.remove(end);
        }
        words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
    }

    /// The words of an equivalent command line, without the options that select the cloud.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.all {
            words.extend(["--all".to_owned(), format!("--reason={}", self.reason)]);
        }
        if self.prune {
            words.push("--prune".to_owned());
        }
        if self.refresh {
            words.push("--refresh".to_owned());
        }
        words.extend(self.adopt.iter().map(|worker| format!("--adopt={worker}")));
        if self.with_dependencies {
            words.push("--with-dependencies".to_owned());
        }
        words.extend(self.selection.words());
        words
    }
}

impl Arguments {
    /// Returns the command that applies this plan: with its file, or with its selection and its options.
    fn command(&self, options: &str) -> String {
        match &self.out {
            Some(file) => {
                let local = if self.line.cloud.local { " --local" } else { "" };
                clean(&format!("flotilla deploy{local} --plan {}", shell_word(&file.display().to_string())))
            }
            None if self.line.cloud.local => clean(&format!("flotilla deploy {options}")),
            None => clean(format!("flotilla deploy --yes {options}").trim_end()),
        }
    }
}

/// Returns a word as a shell reads it.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=:,./@%+".contains(c);
    match word.chars().all(is_plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

pub(super) fn run(session: &Session, arguments: &Arguments, output: Output) -> Result<Exit, Failure> {
    let planned = plan_fleet(&session.context(), &arguments.line.request())?;
    if let Some(path) = &arguments.out {
        PlanFile::new(&planned, arguments.line.words()).write(path)?;
    }
    let form = PlanOutput(planned.view());
    let too_many = excess_deletions(&planned, None);
    let options = arguments.line.options(too_many.map(|excess| excess.planned));
    summary::append(arguments.summary.as_deref(), &form.markdown(&options));
    match output {
        Output::Json => session.json(&form.report())?,
        Output::Markdown => report::print(form.markdown(&options).trim_end()),
        _ => {
            let command = arguments.command(&options);
            report::print(&form.text(&session.ui, arguments.full, Some(&command)));
            if let Some(excess) = too_many {
                let sign = session.ui.paint(Style::Warning, "!");
                report::print(&format!("{sign} a deploy of this plan requires --max-deletions: {excess}"));
            }
        }
    }
    Ok(match finished(&planned) {
        Exit::Done if arguments.exit_code && !planned.plan.is_empty() => Exit::Pending,
        exit => exit,
    })
}

/// Reports the plan of a dry run.
pub(super) fn report_dry_run(session: &Session, planned: &Planned) -> Result<Exit, Failure> {
    match session.format {
        Format::Json => session.json(&PlanOutput(planned.view()).report())?,
        Format::Text => report::print(&text(planned.view(), &session.ui)),
    }
    Ok(finished(planned))
}

/// Returns the plan as text, without the next command.
pub(super) fn text(view: PlanView<'_>, ui: &Ui) -> String {
    PlanOutput(view).text(ui, false, None)
}
