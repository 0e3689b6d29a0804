//! `flotilla init`: a new project, or a workflow for one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use flotilla_build::build::{self, Loaded};
use flotilla_import::wrangler::NAMES;
use flotilla_import::yaml_text;
use flotilla_model::failure::{Exit, Failure};
use flotilla_model::names;
use flotilla_model::plain_file;
use flotilla_model::preview::Preview;
use flotilla_model::service_key;
use flotilla_model::spec::{AccountId, Environment};
use flotilla_model::text;
use flotilla_spec::project;
use flotilla_spec::tree::Tree;

use super::packs::Pack;
use super::report::{self, count};
use super::summary;
use super::transaction::FileChanges;
use super::ui::{Ui, clean};
use super::workflow::{Ci, Workflow, github, gitlab, previews};
use super::{Format, Session, schema};

/// The path of the GitHub workflow that deploys, from the repository's root.
const WORKFLOW: &str = ".github/workflows/flotilla.yml";
/// The path of the GitHub workflow of previews.
const PREVIEWS: &str = ".github/workflows/flotilla-previews.yml";
/// The path of GitLab's pipeline.
const PIPELINE: &str = ".gitlab-ci.yml";

/// The maximum number of secrets that are listed on the terminal.
const LISTED: usize = 20;

/// The maximum size, in bytes, of a file that is extended or replaced.
const LIMIT: u64 = 16 << 20;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder of the new project [default: the current folder]
    #[arg(value_name = "DIR", conflicts_with = "ci")]
    folder: Option<PathBuf>,
    /// Pack that the project starts with
    #[arg(long, value_enum, value_name = "PACK", default_value = "consent", conflicts_with = "ci")]
    pack: Pack,
    /// Generate a CI workflow for an existing project: check and plan pull requests, deploy the main branch
    #[arg(long, value_enum, value_name = "WHERE")]
    ci: Option<Ci>,
    /// Instead, generate the workflow that deploys a preview of each pull request; for GitHub only
    #[arg(long, requires = "ci")]
    previews: bool,
    /// Shell command with which the workflow installs flotilla [default: npm, which installs this version]
    #[arg(long, value_name = "COMMAND", requires = "ci", value_parser = command)]
    install: Option<String>,
    /// Print the workflow to stdout and write nothing
    #[arg(long, requires = "ci")]
    print: bool,
    /// Overwrite a workflow that differs
    #[arg(long, requires = "ci", conflicts_with = "print")]
    force: bool,
}

fn command(text: &str) -> Result<String, String> {
    match text {
        _ if text.trim().is_empty() => Err("it is empty".to_owned()),
        _ if text.starts_with(' ') => Err("it starts with a space".to_owned()),
        _ if text.contains(|c: char| c.is_control() && c != '\n') => {
            Err("it has control characters other than line ends".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn run(from: &Path, format: Format, ui: &Ui, arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments.ci {
        None if arguments.pack == Pack::Dispatch => {
            let folder = arguments.folder.as_ref().map_or_else(|| from.to_owned(), |folder| from.join(folder));
            add(&project::find(&folder)?, arguments.pack, format, ui)
        }
        None => {
            let folder = arguments.folder.as_ref().map_or_else(|| from.to_owned(), |folder| from.join(folder));
            new(&folder, arguments.pack, format, ui)
        }
        Some(service) => {
            if service == Ci::Gitlab && arguments.previews {
                return Err(Failure::usage(
                    "--previews needs --ci github: there is no workflow of previews for GitLab",
                )
                .hint("`flotilla preview up` and `flotilla preview down` run in a pipeline of your own"));
            }
            let session = Session::new(project::find(from)?, format, ui, None);
            let result = ci(&session, service, arguments);
            summary::report_invalid(&session, result)
        }
    }
}

/// Writes a new project into a folder, which may have other files.
fn new(folder: &Path, pack: Pack, format: Format, ui: &Ui) -> Result<Exit, Failure> {
    let root = made(folder)?;
    let mut changes = FileChanges::recover(&root, ui, "init")?;
    let (fleet, customer) = match pack {
        Pack::Consent => (include_str!("init/fleet.yaml"), include_str!("init/customer.yaml")),
        Pack::Worker => (include_str!("init/worker-fleet.yaml"), include_str!("init/worker-customer.yaml")),
        Pack::Wrangler => (include_str!("init/wrangler/fleet.yaml"), include_str!("init/wrangler/customer.yaml")),
        Pack::Dispatch => unreachable!("BUG: it is added to a project"),
    };
    let mut files: Vec<(String, Vec<u8>)> = vec![
        (project::FLEET_FILE.to_owned(), fleet.replacen("NAME", &yaml_text::scalar(&name(&root)), 1).into()),
        (format!("{}/acme.yaml", project::CUSTOMERS), customer.into()),
    ];
    let own = |(path, bytes)| (format!("templates/{}/{path}", pack.name()), bytes);
    files.extend(pack.files().into_iter().map(own));
    files.extend(pack.code());
    if let Some(config) = NAMES.iter().find(|name| pack == Pack::Wrangler && root.join(name).is_file()) {
        return Err(Failure::refused(format!("{} already has a {config}; nothing was written", root.display()))
            .hint("`flotilla import .` turns that project into a fleet: its code stays where it is, and its settings become specs"));
    }
    let taken: Vec<&str> =
        files.iter().map(|(path, _)| path.as_str()).filter(|path| root.join(path).symlink_metadata().is_ok()).collect();
    if let Some(first) = taken.first() {
        let what =
            if *first == project::FLEET_FILE { "is already a project" } else { "already has files of a project" };
        return Err(Failure::refused(format!("{} {what}; nothing was written", root.display()))
            .hint(format!("found {}: name another folder, `flotilla init DIR`", text::names(&taken, 1))));
    }
    files.extend(git_files(&root)?);
    let number = changes.make(|undo| {
        let all: Vec<(PathBuf, &[u8])> =
            files.iter().map(|(path, bytes)| (root.join(path), bytes.as_slice())).collect();
        undo.write_all(&all)?;
        let schemas = schema::files(&root);
        let texts: Vec<(PathBuf, &[u8])> = schemas.iter().map(|(path, text)| (path.clone(), text.as_bytes())).collect();
        undo.write_all(&texts)?;
        Ok(all.len() + texts.len())
    })?;
    let session = Session::new(root, format, ui, None);
    match format {
        Format::Json => session.json(&serde_json::json!({ "root": session.root, "written": number }))?,
        Format::Text => report::print(&format!(
            "created a project in {}: {}\n\
             customers/acme.yaml is a first customer to edit. Next, in that folder:\n\
             \x20 flotilla check             report every error\n\
             \x20 flotilla build             write out/\n\
             \x20 flotilla deploy --local    deploy to the local Cloudflare emulator\n\
             \x20 flotilla dev               deploy to it on each save, and print what workers log\n\
             \x20 flotilla init --ci github  add a workflow that checks, plans and deploys",
            clean(&session.root.display().to_string()),
            count(number, "file")
        )),
    }
    Ok(Exit::Done)
}

/// Writes the files of a pack into a project that exists.
fn add(root: &Path, pack: Pack, format: Format, ui: &Ui) -> Result<Exit, Failure> {
    let folder = format!("templates/{}", pack.name());
    let mut changes = FileChanges::recover(root, ui, "init")?;
    if root.join(&folder).symlink_metadata().is_ok() {
        return Err(Failure::refused(format!("{folder} already exists; nothing was written")));
    }
    let files = pack.files();
    let number = changes.make(|undo| {
        let all: Vec<(PathBuf, &[u8])> =
            files.iter().map(|(path, bytes)| (root.join(&folder).join(path), bytes.as_slice())).collect();
        undo.write_all(&all)?;
        Ok(all.len())
    })?;
    let session = Session::new(root.to_owned(), format, ui, None);
    match format {
        Format::Json => session.json(&serde_json::json!({ "root": session.root, "written": number }))?,
        Format::Text => report::print(&format!(
            "wrote {} to {folder}. Add it to fleet.yaml: `packs: {{ {}: {{ path: {folder} }} }}`",
            count(number, "file"),
            pack.name()
        )),
    }
    Ok(Exit::Done)
}

/// Returns the absolute path of a folder, which is created if it doesn't exist.
pub(super) fn made(folder: &Path) -> Result<PathBuf, Failure> {
    let cannot = || format!("{} can't be written", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    Ok(folder.canonicalize().with_context(cannot)?)
}

/// Returns the `.gitignore` and the `.gitattributes` of a project with the lines that flotilla needs, as far as it doesn't have
/// them already.
pub(super) fn git_files(root: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let has_rule = |line: &str| line.trim_matches('/') == ".flotilla";
    let ignored = with_rules(root, ".gitignore", include_str!("init/gitignore"), has_rule)?;
    let has_line_ends = |line: &str| line.starts_with("* ") && line.contains("eol=");
    let attributes = with_rules(root, ".gitattributes", include_str!("init/gitattributes"), has_line_ends)?;
    Ok(ignored.into_iter().chain(attributes).collect())
}

fn with_rules(
    root: &Path,
    file: &str,
    rules: &str,
    is_there: impl Fn(&str) -> bool,
) -> Result<Option<(String, Vec<u8>)>, Failure> {
    let mut text = match plain_file::read(&root.join(file), LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", root.join(file).display()))),
    };
    // Names in it needn't be UTF-8; all of them stay.
    if String::from_utf8_lossy(&text).lines().any(is_there) {
        return Ok(None);
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(rules.as_bytes());
    Ok(Some((file.to_owned(), text)))
}

/// Derives a fleet's name from its folder's.
fn name(root: &Path) -> String {
    let folder = root.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = folder.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let name = name.trim_matches('-');
    if names::label(name).is_ok() { name.to_owned() } else { "my-fleet".to_owned() }
}

/// Writes or prints the workflow of a project.
fn ci(session: &Session, service: Ci, arguments: &Arguments) -> Result<Exit, Failure> {
    let loaded = build::load(&session.root, &session.ui).map_err(Failure::invalid)?;
    if loaded.scan.invalid > 0 {
        let were = count(loaded.scan.invalid, "customer");
        session.ui.line(&format!("the secrets of {were} with errors are left out; see `flotilla check`"));
    }
    let repository = session.root.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&session.root);
    let folder = session.root.strip_prefix(repository).unwrap_or(Path::new("")).to_string_lossy().replace('\\', "/");
    let accounts = loaded.project.fleet.accounts.values();
    let ids: BTreeSet<&str> = accounts
        .clone()
        .filter_map(|account| match &account.id {
            AccountId::Variable { env } => Some(env.as_str()),
            AccountId::Literal(_) => None,
        })
        .collect();
    let sources = loaded.project.fleet.file.secrets.as_deref().unwrap_or_default();
    // Where fleet.yaml lists sources, those of customers are in the environment only if it is one of them.
    let from_environment = sources.is_empty() || sources.iter().any(|source| source.env.is_some());
    let of_workers = loaded.workers.iter().filter(|_| from_environment).flat_map(|worker| worker.secrets.values());
    let of_workers = of_workers.map(|name| service_key::source_name(name));
    let keys = sources.iter().filter_map(|source| source.identity.as_ref()?.env.as_ref());
    let wanted = of_workers.chain(keys.map(String::as_str));
    // What previews alone refer to.
    let of_previews = if arguments.previews { secrets_of_previews(session, &loaded) } else { BTreeSet::new() };
    let wanted = wanted.chain(of_previews.iter().filter(|_| from_environment).map(String::as_str));
    let (render, file): (fn(&Workflow<'_>) -> String, _) = match service {
        Ci::Github if arguments.previews => (previews, PREVIEWS),
        Ci::Github => (github, WORKFLOW),
        Ci::Gitlab => (gitlab, PIPELINE),
    };
    let workflow = Workflow {
        folder: &folder,
        install: arguments.install.as_deref(),
        ids,
        tokens: accounts.map(|account| account.token.secret.as_str()).collect(),
        secrets: wanted.collect(),
    };
    let text = render(&workflow);
    if arguments.print {
        report::print(text.trim_end());
        return Ok(Exit::Done);
    }
    let path = repository.join(file);
    let before = match plain_file::inside(repository, &path).and_then(|file| plain_file::read(&file, LIMIT)) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
    };
    let current = before.as_deref() == Some(text.as_bytes());
    if before.is_some() && !current && !arguments.force {
        let hint = match service {
            Ci::Github => "`--print` shows it; `--force` overwrites the file",
            Ci::Gitlab => {
                "`--print` shows it, to be saved as another file that .gitlab-ci.yml includes; `--force` overwrites the file"
            }
        };
        return Err(Failure::refused(format!("{} differs from what would be written", path.display())).hint(hint));
    }
    if !current {
        report::write_file(repository, &path, text.as_bytes())?;
    }
    let shown = clean(&path.display().to_string());
    let settings = Settings { service, previews: arguments.previews, workflow: &workflow };
    match session.format {
        Format::Json => {
            session.json(&serde_json::json!({ "path": path, "written": !current, "set": settings.json() }))?
        }
        Format::Text => {
            let done = if current { format!("{shown} is up to date") } else { format!("wrote {shown}") };
            report::print(&format!("{done}\n{}", settings.text()));
        }
    }
    Ok(Exit::Done)
}

/// The settings that a workflow needs before it deploys anything.
struct Settings<'a> {
    service: Ci,
    previews: bool,
    workflow: &'a Workflow<'a>,
}

impl Settings<'_> {
    /// Returns the environment that the secrets belong to.
    fn environment(&self) -> &'static str {
        if self.previews { "previews" } else { "production" }
    }

    /// Returns the variable that turns the workflow on.
    fn switch(&self) -> &'static str {
        if self.previews { "FLOTILLA_PREVIEWS" } else { "FLOTILLA_DEPLOY" }
    }

    /// Returns the names that every job needs, and those that only the environment needs: tokens first.
    fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let Workflow { ids, tokens, .. } = self.workflow;
        // Previews have no plan without the environment.
        let early: BTreeSet<&str> = if self.previews { BTreeSet::new() } else { ids.clone() };
        let late = tokens.union(ids).copied().filter(|name| !early.contains(name));
        let late = late.chain(self.workflow.secrets_of_customers()).collect();
        (early.into_iter().collect(), late)
    }

    fn json(&self) -> serde_json::Value {
        let (repository, environment) = self.names();
        serde_json::json!({
            "environment": self.environment(),
            "variables": { (self.switch()): "true" },
            "repositorySecrets": repository,
            "environmentSecrets": environment,
        })
    }

    /// Returns what to do, as text for a terminal.
    fn text(&self) -> String {
        let (repository, environment) = self.names();
        let (name, switch) = (self.environment(), self.switch());
        let listed = &environment[..environment.len().min(LISTED)];
        let more = environment.len() - listed.len();
        let file = |how: &str| match more {
            0 => String::new(),
            _ => format!("  and {} more; or set all of them as one dotenv file, {how}\n", count(more, "secret")),
        };
        match self.service {
            Ci::Github => {
                let mut text = "Before it deploys, set at GitHub; `gh` asks for the values:\n".to_owned();
                text += &format!("  gh api --method PUT \"repos/{{owner}}/{{repo}}/environments/{name}\"\n");
                text.extend(repository.iter().map(|secret| format!("  gh secret set {secret}\n")));
                text.extend(listed.iter().map(|secret| format!("  gh secret set {secret} --env {name}\n")));
                text += &file(&format!("`gh secret set FLOTILLA_SECRETS --env {name} < FILE`"));
                text += &format!("  gh variable set {switch} --body true\n");
                text + &format!("Required reviewers of {name}: Settings › Environments.")
            }
            Ci::Gitlab => {
                let width = repository.iter().chain(listed).map(|name| name.len()).max().unwrap_or(0).max(switch.len());
                let line = |variable: &str, how: &str| format!("  {variable:width$}  {how}\n");
                let mut text = "Before it deploys, set at GitLab, in Settings › CI/CD › Variables:\n".to_owned();
                text.extend(repository.iter().map(|id| line(id, "masked; all environments, not protected")));
                text.extend(
                    listed.iter().map(|secret| line(secret, &format!("masked, protected; environment {name}"))),
                );
                text += &file("the variable FLOTILLA_SECRETS of the type File");
                text += &line(switch, "`true`");
                text + &format!("Protect the default branch, and the environment {name} where your tier allows it.")
            }
        }
    }
}

/// Returns the secrets that workers refer to in previews.
fn secrets_of_previews(session: &Session, loaded: &Loaded) -> BTreeSet<String> {
    let Loaded { project, .. } = loaded;
    let rule = &project.fleet.file.previews;
    let preview = Preview {
        id: "1".to_owned(),
        from: rule.from.unwrap_or(Environment::Staging),
        domain: rule.domain.clone(),
        customers: project.files.iter().map(|file| project::id_of(file).to_owned()).collect(),
        shared: None,
        hosts: BTreeMap::new(),
    };
    let Ok(of_preview) = build::open_preview(Tree::new(&session.root), &preview, &session.ui) else {
        return BTreeSet::new();
    };
    let customers = of_preview.files.iter().filter_map(|file| {
        let bytes = of_preview.tree.plain(file).ok()?;
        Some(of_preview.resolve(file, &bytes).1.workers)
    });
    let workers = customers.flatten().chain(of_preview.shared.resolved.workers.clone());
    let names = workers.flat_map(|worker| worker.secrets.into_values());
    names.map(|name| service_key::source_name(&name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_called_after_its_folder() {
        let named = |folder: &str| name(Path::new(folder));
        assert_eq!(named("/a/Acme Consent"), "acme-consent");
        assert_eq!(named("/a/-x.y-"), "x-y");
        assert_eq!(named("/a/ü"), "my-fleet");
        assert_eq!(named("/"), "my-fleet");
        assert_eq!(named(&format!("/{}-b", "a".repeat(39))), "a".repeat(39));
    }
}
