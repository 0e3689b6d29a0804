//! `flotilla export`: a customer's workers as a folder or an archive, for who deploys them without flotilla.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use flotilla_build::build;
use flotilla_build::export::{self, Files, LIST, Piece, WORKFLOW};
use flotilla_build::runtime;
use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::diagnostic::{Diagnostic, sorted};
use flotilla_model::digest::Digest;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::spec::Environment;
use flotilla_spec::tree::Tree;

use super::report::{self, count};
use super::selection::Selection;
use super::ui::clean;
use super::{Format, Session, workflow};

/// The folder that exports go to, unless told otherwise.
const TO: &str = "export";
/// What stands for the customer's id in an address.
const CUSTOMER: &str = "{customer}";

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Only workers of this role; may be given several times or with commas
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    role: Vec<String>,
    /// The folder or the archive; of several customers, the folder that they go to; - is stdout [default: export/CUSTOMER]
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// A folder or an archive [default: by the name of --to; folder]
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// With a workflow that fetches newer exports from --url, deploys them and commits them
    #[arg(long, value_enum, value_name = "WHERE", requires = "url")]
    workflow: Option<Where>,
    /// Where the archive (tar.gz) will be found, its SHA-256 beside it at URL.sha256; {customer} stands for the id
    #[arg(long, value_name = "URL", requires = "workflow", value_parser = url)]
    url: Option<String>,
    /// Replace files that were changed since they were exported
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

#[derive(Clone, Copy, ValueEnum)]
enum Where {
    Github,
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

    fn ending(self) -> &'static str {
        match self {
            Form::Folder => "",
            Form::Tar => ".tar.gz",
            Form::Zip => ".zip",
        }
    }
}

/// An address that can stand in a workflow and in a shell.
fn url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    if !text.starts_with("https://") && !host.is_some_and(|host| host == "127.0.0.1" || host == "localhost") {
        return Err("it is no https:// address".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%+,@".contains(c);
    match text.replace(CUSTOMER, "").chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("it has characters that an archive's address needs not: letters, digits and -._~:/%+,@ are taken"
            .to_owned()),
    }
}

#[derive(Serialize)]
struct Exported {
    customer: String,
    to: String,
    form: Form,
    files: usize,
    /// Of an archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    workers: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    worker: String,
    environment: Environment,
    digest: Digest,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.selection.is_all() {
        return Err(Failure::usage("no customer is named").hint("flotilla export acme, or '*' for all of them"));
    }
    let stdout = arguments.to.as_deref() == Some(Path::new("-"));
    let form = arguments.form.unwrap_or_else(|| arguments.to.as_deref().map_or(Form::Folder, Form::of));
    if stdout && (form == Form::Folder || session.format == Format::Json) {
        return Err(Failure::usage("stdout takes an archive, and nothing else").hint("add --form tar.gz or --form zip"));
    }
    let rendered = match rendered(session, arguments)? {
        Ok(rendered) => rendered,
        Err(diagnostics) => {
            report::stopped(session, &diagnostics)?;
            return Ok(Exit::Diagnostics);
        }
    };
    report::diagnostics(&session.root, &session.ui, &rendered.diagnostics);
    let errors = report::counts(&rendered.diagnostics).0;
    let all = &rendered.customers;
    if all.is_empty() && errors == 0 {
        return Err(Failure::usage("no worker is selected"));
    }
    if all.len() > 1 && stdout {
        return Err(Failure::usage(format!("stdout takes one customer, not {}", all.len())));
    }
    if let (true, Some(url)) = (all.len() > 1, &arguments.url)
        && !url.contains(CUSTOMER)
    {
        return Err(Failure::usage(format!("each customer has an archive of its own: write {CUSTOMER} into --url")));
    }
    let mut exports = Vec::new();
    for (customer, (files, workers)) in all {
        let mut files = files.clone();
        if let (Some(Where::Github), Some(url)) = (arguments.workflow, &arguments.url) {
            let text = export::workflow(&url.replace(CUSTOMER, customer), workflow::action);
            files.insert(WORKFLOW.to_owned(), text.into_bytes());
        }
        let to = match &arguments.to {
            Some(to) if all.len() == 1 => to.clone(),
            Some(to) => to.join(format!("{customer}{}", form.ending())),
            None => PathBuf::from(TO).join(format!("{customer}{}", form.ending())),
        };
        let archive = match form {
            Form::Folder => None,
            Form::Tar => Some(export::tar_gz(customer, &files)),
            Form::Zip => Some(export::zip(customer, &files)),
        };
        let archive = archive.transpose().map_err(anyhow::Error::from)?;
        let sha256 = archive.as_deref().map(export::sum);
        match &archive {
            None => folder(&to, customer, &files, arguments.force)?,
            Some(bytes) if stdout => {
                // A reader that went away is no error.
                let _ = std::io::stdout().lock().write_all(bytes);
                return Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done });
            }
            Some(bytes) => {
                let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if let Some(parent) = to.parent() {
                    fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
                }
                write(&to, bytes)?;
                let beside = PathBuf::from(format!("{}.sha256", to.display()));
                write(&beside, format!("{}  {name}\n", sha256.as_deref().unwrap_or_default()).as_bytes())?;
            }
        }
        let to = to.display().to_string();
        exports.push(Exported {
            customer: customer.clone(),
            to,
            form,
            files: files.len(),
            sha256,
            workers: told(workers),
        });
    }
    match session.format {
        Format::Json => session.json(&serde_json::json!({ "exports": exports }))?,
        Format::Text => {
            for export in &exports {
                let digests = export.workers.iter().map(|told| format!("\n  {}  {}", told.worker, told.digest));
                let files = count(export.files, "file");
                report::print(&format!("{}: {files}{}", clean(&export.to), digests.collect::<String>()));
            }
        }
    }
    Ok(if errors > 0 { Exit::Diagnostics } else { Exit::Done })
}

/// What was rendered of each customer: the files, and each worker's name, environment and digest.
type Customers = BTreeMap<String, (Files, Vec<(String, Environment, Digest)>)>;

struct Rendered {
    customers: Customers,
    diagnostics: Vec<Diagnostic>,
}

fn told(workers: &[(String, Environment, Digest)]) -> Vec<Told> {
    let told = |(worker, environment, digest): &(String, Environment, Digest)| Told {
        worker: worker.clone(),
        environment: *environment,
        digest: *digest,
    };
    workers.iter().map(told).collect()
}

/// The line up to the rendered files; out/ is left as it is.
fn rendered(session: &Session, arguments: &Arguments) -> Result<Result<Rendered, Vec<Diagnostic>>, Failure> {
    let project = match build::open(Tree::new(&session.root), &session.ui) {
        Ok(project) => project,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    let mut scan = match build::scan(&project, false, &session.ui) {
        Ok(scan) => scan,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    arguments.selection.verify(&session.ui, &project, &scan)?;
    let runtimes = match build::runtimes(&project, &scan, &session.ui) {
        Ok(runtimes) => runtimes,
        Err(runtime::Error::Diagnostic(diagnostic)) => {
            let mut diagnostics = scan.diagnostics;
            diagnostics.push(*diagnostic);
            return Ok(Err(sorted(diagnostics)));
        }
        Err(runtime::Error::Failure(failure)) => return Err(failure),
    };
    let mut diagnostics: Vec<Diagnostic> =
        scan.diagnostics.iter().filter(|found| arguments.selection.concerns(found)).cloned().collect();
    let role = |worker: &Worker| {
        arguments.role.is_empty() || worker.role.as_ref().is_some_and(|role| arguments.role.contains(role))
    };
    let workers: Vec<Worker> = scan
        .workers(&project)
        .into_iter()
        .filter(|worker| worker.customer != SHARED && arguments.selection.includes(worker) && role(worker))
        .collect();
    let mut pieces: BTreeMap<String, Vec<Piece<'_>>> = BTreeMap::new();
    for worker in &workers {
        match build::files(&project, &runtimes, worker) {
            Ok((files, bundle)) => {
                let runtime = &runtimes[&worker.pack];
                pieces.entry(worker.customer.clone()).or_default().push(Piece { worker, files, bundle, runtime });
            }
            Err(diagnostic) => diagnostics.push(*diagnostic),
        }
    }
    let of = |(customer, pieces): (String, Vec<Piece<'_>>)| {
        let told = |piece: &Piece<'_>| (piece.worker.name.clone(), piece.worker.environment, piece.bundle.digest);
        let (files, workers) = (export::files(&customer, &pieces), pieces.iter().map(told).collect());
        (customer, (files, workers))
    };
    Ok(Ok(Rendered { customers: pieces.into_iter().map(of).collect(), diagnostics: sorted(diagnostics) }))
}

/// Writes an export as a folder: into a new or empty one, or over an earlier export of the same customer. What was changed there
/// since isn't replaced, and what isn't the export's is left alone.
fn folder(to: &Path, customer: &str, files: &Files, force: bool) -> Result<(), Failure> {
    let empty = fs::read_dir(to).map_or(true, |mut entries| entries.next().is_none());
    let before =
        fs::read(to.join(LIST)).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    if !empty && before.as_ref().is_none_or(|before| before["customer"] != customer) {
        return Err(Failure::refused(format!("{} holds something else than an export of {customer}", to.display()))
            .hint("--to names another folder"));
    }
    let sums = before.as_ref().and_then(|before| before["files"].as_object());
    let sums = || sums.into_iter().flatten().filter_map(|(path, sum)| Some((path.as_str(), sum.as_str()?)));
    let now = |path: &str| fs::read(to.join(path)).ok();
    if !force {
        let edited = |(path, sum): &(&str, &str)| {
            now(path).is_some_and(|bytes| export::sum(&bytes) != *sum && files.get(*path) != Some(&bytes))
        };
        let foreign = |path: &&String| {
            let listed = sums().any(|(known, _)| known == path.as_str()) || path.as_str() == LIST;
            !listed && now(path).is_some_and(|bytes| files.get(*path) != Some(&bytes))
        };
        let edited = sums().filter(edited).map(|(path, _)| path).next();
        if let Some(path) = edited.or_else(|| files.keys().find(foreign).map(String::as_str)) {
            return Err(Failure::refused(format!("{} was changed since it was exported", to.join(path).display()))
                .hint("--force replaces it; nothing was written"));
        }
    }
    for (path, bytes) in files.iter().filter(|(path, _)| *path != LIST) {
        if now(path).as_ref() == Some(bytes) {
            continue;
        }
        let file = to.join(path);
        let parent = file.parent().expect("BUG: a file has a folder");
        fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
        write(&file, bytes)?;
    }
    for (path, _) in sums().filter(|(path, _)| !files.contains_key(*path) && is_plain(path)) {
        let _ = fs::remove_file(to.join(path));
    }
    // The last: until then it is the earlier export.
    write(&to.join(LIST), &files[LIST])
}

/// Whether a path that was read stays below its folder.
fn is_plain(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|step| !step.is_empty() && step != "." && step != "..")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).with_context(|| format!("{} can't be written", path.display()))?;
    Ok(())
}
