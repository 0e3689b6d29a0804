//! `flotilla import`: a project from one that wrangler deploys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flotilla_deploy::pace::{Priority, Rate};
use flotilla_import::fleet::Existing;
use flotilla_import::{self, Finding, FindingKind, ImportOptions, Imported, LiveAccount, live, write};
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::names;
use flotilla_model::platform::Home;
use flotilla_model::progress::Progress as _;
use flotilla_model::text;
use flotilla_spec::pack::relative;
use flotilla_spec::project::{FLEET_FILE, TOKEN_VARIABLE};
use flotilla_spec::secrets::Secrets;

use super::packs::Pack;
use super::plan::shell_word;
use super::report::{self, count};
use super::summary;
use super::transaction::FileChanges;
use super::ui::{Style, Ui, clean, clean_lines};
use super::{Format, Session, init, schema};
use flotilla_engine::cloud::api_base;
use flotilla_engine::credentials::{TOKEN_FORM, check_account_id, check_token};
use flotilla_engine::requests::PlatformRequester;

/// The longest name of a fleet.
const FLEET_NAME_LENGTH: usize = 40;
/// The maximum number of files that are listed; if there are more, their folders are.
const FILES_SHOWN: usize = 30;
/// The maximum number of secrets that are listed.
const SECRETS_SHOWN: usize = 10;
/// The maximum number of workers whose names are listed to be adopted.
const ADOPTED_BY_NAME: usize = 6;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder of the project, or one of its wrangler files
    #[arg(value_name = "PATH", required_unless_present = "account")]
    path: Option<PathBuf>,
    /// Also read workers without a file, and the names of zones, from this account (needs CLOUDFLARE_API_TOKEN)
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Name of the fleet [default: the project's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Customer that the workers belong to if no file names one [default: the project's name]
    #[arg(long, value_name = "NAME")]
    customer: Option<String>,
    /// Leave out configuration files and folders that match, such as `legacy` or `apps/*/wrangler.dev.*`; can be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Show what would be written and what can't be mapped; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Overwrite existing files
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
}

pub(super) fn run(from: &Path, format: Format, ui: &Ui, arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(name) = &arguments.name
        && (names::label(name).is_err() || name.len() > FLEET_NAME_LENGTH)
    {
        return Err(Failure::usage(format!("`{name}` can't be a fleet's name"))
            .hint("use lower-case letters, digits and hyphens, at most 40: --name my-fleet"));
    }
    let path = arguments.path.as_deref();
    if let Some(path) = path.filter(|path| !path.exists()) {
        return Err(
            Failure::new(format!("there is no {}", path.display())).hint("name a folder with a wrangler.toml in it")
        );
    }
    let mut changes = match arguments.dry_run || !from.exists() {
        true => None,
        false => Some(FileChanges::recover(&init::made(from)?, ui, "import")?),
    };
    let target = absolute(from)?;
    let repository = target.ancestors().find(|folder| folder.join(".git").exists());
    let workspace = repository.unwrap_or(&target).to_owned();
    if let Some(path) = path {
        check_location(path, &target, &workspace, repository.is_some())?;
    }
    let fleet = Existing::read(&target).map_err(|why| {
        Failure::new(format!("the fleet in {} can't be added to: {why}", target.display()))
            .hint("fix it first: `flotilla check` reports all of its errors")
    })?;
    let name = fleet.as_ref().map(Existing::name).or(arguments.name.as_deref());
    if let (Some(fleet), Some(name)) = (&fleet, &arguments.name)
        && fleet.name() != name
    {
        return Err(Failure::usage(format!("{} already has the fleet `{}`", target.display(), fleet.name()))
            .hint("leave out --name to add to it, or name another folder with -C DIR"));
    }
    let live = match &arguments.account {
        Some(id) => live(from, id, ui, name)?,
        None => LiveAccount::default(),
    };
    let worker_pack = Pack::Worker.files();
    let asked = ImportOptions {
        name,
        customer: arguments.customer.as_deref(),
        worker_pack: &worker_pack,
        exclude: &arguments.exclude,
        target: &target,
        workspace: &workspace,
        fleet: fleet.as_ref(),
    };
    let mut imported = match flotilla_import::import(path, live, asked) {
        Ok(imported) => imported,
        Err(diagnostics) => {
            // Without the lines themselves: what can't be read may have a secret anywhere.
            let session = Session::new(PathBuf::from("/dev/null"), format, ui, None);
            return summary::report_invalid(&session, Err(Failure::invalid(diagnostics)));
        }
    };
    if imported.customers.is_empty() {
        findings(ui, &imported.findings);
        let failure = match path {
            Some(path) if imported.findings.is_empty() => {
                Failure::new(format!("{} has no wrangler project; nothing was written", path.display()))
                    .hint("name the folder with wrangler.toml, wrangler.jsonc or wrangler.json, or one at most four levels above it")
            }
            None => Failure::new("all workers of the account are already in the fleet; nothing was written"),
            // The findings say why.
            Some(_) => {
                match format {
                    Format::Json => json(ui, &imported)?,
                    Format::Text => report::print("no worker could be imported; nothing was written"),
                }
                return Ok(Exit::SomeFailed);
            }
        };
        return Err(failure);
    }
    let project = if arguments.dry_run { from.to_owned() } else { init::made(from)? };
    if !arguments.dry_run {
        imported.files.extend(init::git_files(&project)?);
        let taken = write::taken(&project, &imported.files);
        // They have the project's own lines, and get more.
        let is_extended = |file: &&String| file.starts_with(".git") || (fleet.is_some() && *file == FLEET_FILE);
        let taken: Vec<&String> = taken.iter().filter(|file| !is_extended(file)).collect();
        if !taken.is_empty() && !arguments.force {
            return Err(Failure::refused(format!(
                "{} would be overwritten; nothing was written",
                text::names(&taken, 1)
            ))
            .hint("import into another folder with `-C DIR`, or overwrite with `--force`"));
        }
        let changes = match &mut changes {
            Some(changes) => changes,
            None => changes.insert(FileChanges::recover(&project, ui, "import")?),
        };
        changes.make(|undo| {
            let files = imported.files.iter().map(|(path, bytes)| (project.join(path), bytes.as_slice()));
            undo.write_all(&files.collect::<Vec<_>>())?;
            let schemas = schema::files(&project);
            let texts = schemas.iter().map(|(path, text)| (path.clone(), text.as_bytes()));
            undo.write_all(&texts.collect::<Vec<_>>())
        })?;
    }
    findings(ui, &imported.findings);
    let complete = !imported
        .findings
        .iter()
        .any(|finding| matches!(finding.kind, FindingKind::Invalid | FindingKind::Lost | FindingKind::LeftOut));
    match format {
        Format::Json => json(ui, &imported)?,
        Format::Text => report::print(&text(&project, &imported, arguments.dry_run)),
    }
    Ok(if complete { Exit::Done } else { Exit::SomeFailed })
}

/// Returns the absolute path of a folder that needn't exist yet, without links.
fn absolute(folder: &Path) -> Result<PathBuf, Failure> {
    let cannot = |error: std::io::Error| Failure::new(format!("{} can't be used: {error}", folder.display()));
    let whole = std::path::absolute(folder).map_err(cannot)?;
    let there = whole.ancestors().find(|above| above.exists()).unwrap_or(&whole);
    let rest = whole.strip_prefix(there).unwrap_or(Path::new(""));
    Ok(there.canonicalize().map_err(cannot)?.join(rest))
}

/// Checks that a fleet may use the code of a project, which stays where it is.
fn check_location(path: &Path, target: &Path, workspace: &Path, is_repository: bool) -> Result<(), Failure> {
    let project = absolute(path)?;
    if project.starts_with(workspace) {
        return Ok(());
    }
    let project = if project.is_dir() { project } else { project.parent().unwrap_or(&project).to_owned() };
    let shown = clean(&project.display().to_string());
    let message = format!(
        "the code of {shown} stays where it is, and a fleet in {} can't use it: {}",
        clean(&target.display().to_string()),
        match is_repository {
            true => "it is in another git repository",
            false => "the fleet is in no git repository that has both",
        }
    );
    let hint = match project.ancestors().any(|folder| folder.join(".git").exists()) {
        true => format!("write the fleet into the project's repository: `flotilla -C {shown}/fleet import {shown}`"),
        false => format!(
            "write the fleet into the project itself, `flotilla -C {shown} import {shown}`, or run `git init` in a folder that has both"
        ),
    };
    Err(Failure::refused(message).hint(hint))
}

/// Reads what is live in an account. Changes nothing there.
fn live(from: &Path, id: &str, ui: &Ui, fleet: Option<&str>) -> Result<LiveAccount, Failure> {
    if let Err(problem) = check_account_id(id) {
        return Err(Failure::usage(format!("--account is not an account's id: it {problem}"))
            .hint("expected 32 hexadecimal digits, as `wrangler whoami` and the dashboard's address show them"));
    }
    let secrets = Secrets::open(from, None, None, false)?;
    let token = secrets.named(TOKEN_VARIABLE).ok_or_else(|| {
        Failure::new(format!("{TOKEN_VARIABLE} is not set; it is needed to read the account"))
            .hint("it needs to read Workers Scripts, and Workers Routes and Zone for routes")
    })?;
    check_token(&token).map_err(|what| Failure::new(format!("{TOKEN_VARIABLE} contains {what}")).hint(TOKEN_FORM))?;
    let base = api_base(&secrets)?;
    // Three requests for each worker: a deploy that runs isn't held up by them.
    let account = ("", Rate::new(None));
    let mut requester = PlatformRequester::with_token(Arc::new(ui.clone()), Priority::Bulk, &base, &token, account)?;
    let home = Home { account_id: id.to_owned(), namespace: None };
    ui.begin("reading the account", None);
    let live = live::read(id, fleet, |call| {
        ui.step(1);
        requester.try_ask(&home, call)
    });
    ui.end();
    let live = live.map_err(|error| Failure::new(format!("the account can't be read: {error}")))?;
    ui.line(&format!(
        "{} read with {}",
        count(live.workers.len(), "live worker"),
        count(requester.requests, "request")
    ));
    Ok(live)
}

/// Prints the findings to stderr, with their places.
fn findings(ui: &Ui, findings: &[Finding]) {
    for finding in findings {
        let style = match finding.kind {
            FindingKind::Credential | FindingKind::Invalid | FindingKind::Lost => Style::Error,
            FindingKind::LeftOut => Style::Warning,
            FindingKind::Note => Style::Dim,
        };
        let head = ui.paint(style, finding.kind.as_ref());
        let arrow = ui.paint(Style::Help, "-->");
        ui.line(&format!(
            "{head}: {}\n  {arrow} {}\n  = {}\n",
            clean(&finding.message),
            clean(&finding.place.to_string()),
            clean_lines(&finding.help)
        ));
    }
}

fn json(ui: &Ui, imported: &Imported) -> Result<(), Failure> {
    let secrets: Vec<serde_json::Value> = imported
        .secrets
        .iter()
        .map(|(customer, name)| serde_json::json!({"customer": customer, "name": name}))
        .collect();
    let steps: Vec<serde_json::Value> =
        imported.steps.iter().map(|step| serde_json::json!({"folder": step.folder, "command": step.command})).collect();
    report::json(
        ui,
        &serde_json::json!({
            "customers": imported.customers.len(),
            "workers": imported.workers.len(),
            "packs": imported.packs.len(),
            "written": imported.files.keys().collect::<Vec<_>>(),
            "secrets": secrets,
            "steps": steps,
            "findings": imported.findings,
        }),
    )
}

fn text(project: &Path, imported: &Imported, dry_run: bool) -> String {
    let mut text = format!(
        "{}, {}, {}: {} {} {}\n",
        count(imported.customers.len(), "customer"),
        count(imported.workers.len(), "worker"),
        count(imported.packs.len(), "pack"),
        count(imported.files.len(), "file"),
        if dry_run { "would be written to" } else { "written to" },
        clean(&project.display().to_string()),
    );
    if imported.files.len() <= FILES_SHOWN {
        imported.files.keys().for_each(|file| text.push_str(&format!("  {}\n", clean(file))));
    } else {
        let mut folders: BTreeMap<String, usize> = BTreeMap::new();
        for file in imported.files.keys() {
            let depth = if file.starts_with("templates/") { 2 } else { 1 };
            let folder: Vec<&str> = file.split('/').collect();
            let folder = folder[..folder.len().saturating_sub(1).min(depth)].join("/");
            *folders.entry(if folder.is_empty() { file.clone() } else { format!("{folder}/") }).or_default() += 1;
        }
        for (folder, files) in folders {
            let files = if folder.ends_with('/') { format!(": {}", count(files, "file")) } else { String::new() };
            text.push_str(&format!("  {}{files}\n", clean(&folder)));
        }
    }
    if dry_run {
        return text.trim_end().to_owned();
    }
    let place = std::env::current_dir().ok();
    let is_here = place.is_some_and(|place| place == project);
    text.push_str(if is_here { "Next:\n" } else { "Next, in that folder:\n" });
    for step in &imported.steps {
        let folder = relative(project, &step.folder);
        match folder.is_empty() {
            true => text.push_str(&format!("  {}\n", clean(&step.command))),
            false => text.push_str(&format!("  (cd {} && {})\n", clean(&shell_word(&folder)), clean(&step.command))),
        }
    }
    text.push_str("  flotilla check\n  flotilla build\n");
    for (customer, name) in imported.secrets.iter().take(SECRETS_SHOWN) {
        text.push_str(&format!("  flotilla secrets set {name} --customer {customer}\n"));
    }
    if imported.secrets.len() > SECRETS_SHOWN {
        text.push_str("  …; `flotilla secrets check` lists all that are missing\n");
    }
    // Live workers bear no tag of this fleet's yet.
    let whole = |name: &&String| !imported.manual.contains(name);
    let names: BTreeSet<&str> = imported.workers.iter().filter(whole).map(String::as_str).collect();
    if !names.is_empty() {
        let adopt = adoption(&names);
        text.push_str(&format!("  flotilla plan --refresh {adopt}\n  flotilla deploy --refresh {adopt}\n"));
    }
    if !imported.manual.is_empty() {
        let number = count(imported.manual.len(), "worker");
        text.push_str(&format!(
            "A deploy skips {number} that could not be mapped completely: `delivery` is `manual`.\n"
        ));
    }
    let attention = |kind: FindingKind| imported.findings.iter().filter(|finding| finding.kind == kind).count();
    let kinds = [
        (FindingKind::Credential, "secret", "in files, to be replaced"),
        (FindingKind::Invalid, "file", "that can't be read"),
        (FindingKind::Lost, "setting", "that specs can't express"),
        (FindingKind::LeftOut, "item", "left out"),
    ];
    let counts: Vec<String> = kinds
        .into_iter()
        .filter(|(kind, ..)| attention(*kind) > 0)
        .map(|(kind, noun, what)| format!("{} {what}", count(attention(kind), noun)))
        .collect();
    if !counts.is_empty() {
        text.push_str(&format!("Reported above: {}.\n", counts.join(", ")));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns the options that adopt these workers: their names, or a pattern of what the names of many have in common.
fn adoption(names: &BTreeSet<&str>) -> String {
    let option = |name: &str| format!("--adopt {name}");
    if names.len() <= ADOPTED_BY_NAME {
        return names.iter().map(|name| option(name)).collect::<Vec<_>>().join(" ");
    }
    let mut prefixes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        prefixes.entry(name.split('-').next().unwrap_or(name)).or_default().push(name);
    }
    let of = |(prefix, names): (&str, Vec<&str>)| match names[..] {
        [only] => option(only),
        _ => option(&format!("'{prefix}*'")),
    };
    match prefixes.len() > ADOPTED_BY_NAME {
        true => option("'*'"),
        false => prefixes.into_iter().map(of).collect::<Vec<_>>().join(" "),
    }
}
