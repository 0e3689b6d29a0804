//! `flotilla export`: a customer's workers as a folder or an archive, for people who deploy them without flotilla.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use flotilla_build::export::{self, Archive, Export, ExportedWorker, WORKFLOW, deliver};
use flotilla_engine::build_fleet::{ScannedFleet, scan_fleet};
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Diagnostic, sorted};
use flotilla_model::failure::{Exit, Failure};

use super::report::{self, count};
use super::selection::Selection;
use super::stdout::Stdout;
use super::ui::clean;
use super::workflow;
use super::{Format, Session};

/// The folder that exports go to by default.
const TO: &str = "export";
/// The placeholder of the customer's id in an address.
const CUSTOMER: &str = "{customer}";

/// The services that the workflow of an export is written for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Service {
    Github,
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Only workers with this role; can be repeated or separated by commas
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    role: Vec<String>,
    /// Folder or archive to write; with several customers, the folder that holds them; - is stdout [default: export/CUSTOMER]
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Kind of output [default: from the name of --to, else folder]
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// Add a workflow that fetches newer exports from --url, deploys and commits them
    #[arg(long, value_enum, value_name = "WHERE", requires = "url")]
    workflow: Option<Service>,
    /// Address of the tar.gz archive, with its SHA-256 at URL.sha256; {customer} is replaced by the id
    #[arg(long, value_name = "URL", requires = "workflow", value_parser = url)]
    url: Option<String>,
    /// Overwrite files that were edited since they were exported
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
enum Form {
    #[value(name = "folder")]
    #[serde(rename = "folder")]
    Folder,
    #[value(name = "tar.gz")]
    #[serde(rename = "tar.gz")]
    Tar,
    #[value(name = "zip")]
    #[serde(rename = "zip")]
    Zip,
}

impl Form {
    fn of(path: &Path) -> Form {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match () {
            () if name.ends_with(".tar.gz") || name.ends_with(".tgz") => Form::Tar,
            () if name.ends_with(".zip") => Form::Zip,
            () => Form::Folder,
        }
    }

    /// Returns the format of the archive and its ending, if the form is that of one.
    fn archive(self) -> Option<(Archive, &'static str)> {
        match self {
            Form::Folder => None,
            Form::Tar => Some((Archive::TarGz, ".tar.gz")),
            Form::Zip => Some((Archive::Zip, ".zip")),
        }
    }

    /// Packs an export, if the form is that of an archive.
    fn pack(self, export: &Export) -> Result<Option<Vec<u8>>, Failure> {
        let packed = self.archive().map(|(archive, _)| archive.pack(&export.customer, &export.files));
        Ok(packed.transpose().map_err(anyhow::Error::from)?)
    }
}

/// Parses an address that can be written into a workflow and a shell without quotes.
fn url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    if !text.starts_with("https://") && !host.is_some_and(|host| host == "127.0.0.1" || host == "localhost") {
        return Err("expected an https:// address".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%+,@".contains(c);
    match text.replace(CUSTOMER, "").chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("expected letters, digits and -._~:/%+,@".to_owned()),
    }
}

/// An export that was written, as it is reported.
#[derive(Serialize)]
struct Exported {
    customer: String,
    to: String,
    form: Form,
    files: usize,
    /// The SHA-256 of an archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    workers: Vec<ExportedWorker>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.selection.is_all() {
        return Err(Failure::usage("no customer is named").hint("flotilla export acme, or '*' for all of them"));
    }
    let is_stdout = arguments.to.as_deref() == Some(Path::new("-"));
    let form = arguments.form.unwrap_or_else(|| arguments.to.as_deref().map_or(Form::Folder, Form::of));
    if is_stdout && (form == Form::Folder || session.format == Format::Json) {
        return Err(Failure::usage("only an archive can be written to stdout").hint("add --form tar.gz or --form zip"));
    }
    let (mut exports, diagnostics) = render(session, arguments)?;
    report::diagnostics(&session.root, &session.ui, &diagnostics);
    let errors = report::counts(&diagnostics).0;
    if exports.is_empty() && errors == 0 {
        return Err(Failure::usage("no worker is selected"));
    }
    if exports.len() > 1 && is_stdout {
        return Err(Failure::usage(format!("stdout takes one customer, not {}", exports.len())));
    }
    add_workflows(&mut exports, arguments)?;
    if is_stdout {
        for export in &exports {
            let bytes = form.pack(export)?.unwrap_or_default();
            // The error is kept.
            let _ = Stdout.write_all(&bytes).and_then(|()| Stdout.flush());
        }
    } else {
        let path = |export: &Export| target(arguments, form, &export.customer, exports.len() == 1);
        let written = exports.iter().map(|export| write(export, form, &path(export), arguments.force));
        print(session, &written.collect::<Result<Vec<_>, _>>()?)?;
    }
    Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done })
}

/// Adds to each export the workflow that fetches newer ones.
fn add_workflows(exports: &mut [Export], arguments: &Arguments) -> Result<(), Failure> {
    let Some(url) = &arguments.url else { return Ok(()) };
    if exports.len() > 1 && !url.contains(CUSTOMER) {
        return Err(Failure::usage(format!("every customer has its own archive: use {CUSTOMER} in --url")));
    }
    if let Some(Service::Github) = arguments.workflow {
        for export in exports {
            let text = export::workflow(&url.replace(CUSTOMER, &export.customer), workflow::action);
            export.files.insert(WORKFLOW.to_owned(), text.into_bytes());
        }
    }
    Ok(())
}

/// Returns the path that a customer's export is written to.
fn target(arguments: &Arguments, form: Form, customer: &str, is_only: bool) -> PathBuf {
    let ending = form.archive().map_or("", |(_, ending)| ending);
    match &arguments.to {
        Some(to) if is_only => to.clone(),
        to => to.as_deref().unwrap_or(Path::new(TO)).join(format!("{customer}{ending}")),
    }
}

fn write(export: &Export, form: Form, to: &Path, force: bool) -> Result<Exported, Failure> {
    let archive = form.pack(export)?;
    match &archive {
        None => deliver::folder(to, &export.customer, &export.files, force)?,
        Some(bytes) => deliver::archive(to, bytes)?,
    }
    Ok(Exported {
        customer: export.customer.clone(),
        to: to.display().to_string(),
        form,
        files: export.files.len(),
        sha256: archive.as_deref().map(export::sum),
        workers: export.workers.clone(),
    })
}

fn print(session: &Session, exports: &[Exported]) -> Result<(), Failure> {
    if session.format == Format::Json {
        return session.json(&serde_json::json!({ "exports": exports }));
    }
    for export in exports {
        let digests = export.workers.iter().map(|worker| format!("\n  {}  {}", worker.worker, worker.digest));
        let files = count(export.files, "file");
        report::print(&format!("{}: {files}{}", clean(&export.to), digests.collect::<String>()));
    }
    Ok(())
}

/// The exports with their diagnostics.
type Rendered = (Vec<Export>, Vec<Diagnostic>);

/// Renders the exports of the selected workers.
fn render(session: &Session, arguments: &Arguments) -> Result<Rendered, Failure> {
    let selection = &arguments.selection;
    let scanned = scan_fleet(&session.context(), selection, false)?;
    let ScannedFleet { project, mut scan, pack_bundles: runtimes } = scanned;
    let has_role = |worker: &Worker| {
        arguments.role.is_empty() || worker.role.as_ref().is_some_and(|role| arguments.role.contains(role))
    };
    let mut workers = scan.workers(&project);
    workers.retain(|worker| worker.customer != SHARED && selection.includes(worker) && has_role(worker));
    let (exports, mut diagnostics) = export::render(&project, &runtimes, &workers);
    diagnostics.extend(scan.diagnostics.iter().filter(|found| selection.concerns(found)).cloned());
    Ok((exports, sorted(diagnostics)))
}
