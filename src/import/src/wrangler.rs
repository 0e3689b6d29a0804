//! wrangler's configuration as wrangler reads it: one worker for each environment, with what environments inherit. Finds the
//! files; doesn't know what specs are.

use std::collections::BTreeSet;
use std::path::Path;

use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml::{Document, Kind, Node};
use wildmatch::WildMatch;

use super::keys::{Scope, key};
use flotilla_spec::documents;

/// The names of wrangler's files; of a folder, the first one counts, as it does for wrangler.
pub const NAMES: [&str; 3] = ["wrangler.json", "wrangler.jsonc", "wrangler.toml"];
/// The folders whose folders are customers.
pub const CUSTOMERS: [&str; 4] = ["customers", "clients", "tenants", "brands"];
/// The depth below the project's folder to which they are searched: `apps/web/worker/wrangler.toml`.
const DEPTH: usize = 4;
/// Folders that hold no sources.
const NOT_THEIRS: [&str; 8] = ["node_modules", "out", "dist", "build", "target", "vendor", "coverage", "fixtures"];
/// The maximum number of files that are read: a shell loop may have one for each customer.
const MAX_FILES: usize = 20_000;

/// One worker of a file: its top level, or one of its environments.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// The file.
    pub document: &'a Document,
    /// The environment; `None` is the top level.
    pub environment: Option<&'a str>,
    /// The map of the environment itself.
    own: &'a Node,
}

/// Words in names of configuration files that are no customers and deploy nothing: `wrangler.vitest.jsonc`.
const NOT_DEPLOYED: [&str; 10] =
    ["bak", "dist", "e2e", "example", "generated", "old", "sample", "template", "vitest", "schema"];

/// The configuration files of a project, by path from its folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The files that wrangler reads by itself, and those that it reads where `--config` names them: `wrangler.acme.toml`.
    pub found: Vec<String>,
    /// The files that aren't read.
    pub others: Vec<Unread>,
}

/// A configuration file that isn't read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread {
    /// The file.
    pub file: String,
    /// The reason.
    pub why: String,
    /// Whether it deploys a worker, as far as its name shows.
    pub deploys: bool,
}

/// Returns the word in the name of a configuration: `wrangler.acme.toml` is for `acme`.
pub fn word(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next().unwrap_or(file).strip_prefix("wrangler.")?;
    let (word, _) = name.rsplit_once('.')?;
    (!word.is_empty()).then_some(word)
}

/// Returns whether a file is named as configurations of wrangler are, such as `wrangler.production.toml`.
fn is_config(name: &str) -> bool {
    name.starts_with("wrangler.") && [".json", ".jsonc", ".toml"].iter().any(|ending| name.ends_with(ending))
}

/// Finds the configuration files of a project, without those that a pattern excludes. A root's `config/environments` is documentation.
pub fn files(root: &Path, excluded: &[String]) -> Files {
    let excluded: Vec<WildMatch> = excluded.iter().map(|glob| WildMatch::new(glob.trim_end_matches('/'))).collect();
    let is_excluded = |folder: &str, name: &str| {
        excluded.iter().any(|glob| glob.matches(name) || glob.matches(&format!("{folder}{name}")))
    };
    let (mut files, mut others) = (Vec::new(), Vec::new());
    let mut open = vec![(String::new(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let mut below = Vec::new();
        let mut here = BTreeSet::new();
        for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
            if is_excluded(&folder, &name) {
                continue;
            }
            if kind.is_dir() && depth < DEPTH && !name.starts_with('.') && !NOT_THEIRS.contains(&name.as_str()) {
                below.push(format!("{folder}{name}/"));
            } else if !kind.is_dir() {
                here.insert(name);
            }
        }
        let first = NAMES.into_iter().find(|name| here.contains(*name));
        for name in here.iter().filter(|name| is_config(name)) {
            let file = format!("{folder}{name}");
            let plain = NAMES.contains(&name.as_str());
            let unread = match (first, word(name)) {
                (Some(first), _) if plain && first != name => Some((format!("wrangler reads {first} instead"), false)),
                (_, Some(word)) if word.split('.').any(|part| NOT_DEPLOYED.contains(&part)) => {
                    Some((format!("files named `{word}` usually deploy nothing"), false))
                }
                _ if files.len() >= MAX_FILES => Some((format!("up to {MAX_FILES} files are read"), true)),
                _ => None,
            };
            match unread {
                Some((why, deploys)) => others.push(Unread { file, why, deploys }),
                None => files.push(file),
            }
        }
        open.extend(below.into_iter().map(|folder| (folder, depth + 1)));
    }
    let order = |file: &String| (file.matches('/').count(), file.clone());
    files.sort_by_key(|file| (order(file).0, word(file).is_some(), file.clone()));
    others.sort_by_key(|other| order(&other.file));
    Files { found: files, others }
}

/// Reads a configuration file.
pub fn read(tree: &Tree, file: &str) -> Result<Document, Vec<Diagnostic>> {
    let bytes = tree.plain(file).map_err(|diagnostic| vec![*diagnostic])?;
    let document = documents::read(file, &bytes)?;
    let mut wrong = Vec::new();
    let mut wants_map = |node: Option<&Node>, what: &str| {
        if let Some(node) = node.filter(|node| !matches!(node.kind, Kind::Map(_))) {
            let message = format!("{what} isn't a table");
            let place = document.place(node.span);
            wrong.push(Diagnostic::error(Code::WrongType, place, message, "see wrangler's documentation"));
        }
    };
    wants_map(Some(&document.root), "the configuration");
    let environments = document.root.get("env");
    wants_map(environments, "`env`");
    if let Some(Kind::Map(entries)) = environments.map(|node| &node.kind) {
        for (name, _, node) in entries {
            wants_map(Some(node), &format!("`env.{name}`"));
        }
    }
    if wrong.is_empty() { Ok(document) } else { Err(wrong) }
}

/// Returns the workers of a file: the top level, then each environment.
pub fn configs(document: &Document) -> Vec<Config<'_>> {
    let mut configs = vec![Config { document, environment: None, own: &document.root }];
    if let Some(Kind::Map(entries)) = document.root.get("env").map(|node| &node.kind) {
        configs.extend(entries.iter().map(|(name, _, own)| Config { document, environment: Some(name), own }));
    }
    configs
}

impl<'a> Config<'a> {
    /// Returns the value of a key, inherited as wrangler does.
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        let own = match (self.environment, key(name)) {
            // wrangler doesn't read it there.
            (Some(_), Some((Scope::Whole, _))) => None,
            _ => self.own.get(name),
        };
        let inherits = matches!(key(name), Some((Scope::Inherited | Scope::Whole, _)));
        own.or_else(|| self.document.root.get(name).filter(|_| inherits)).filter(|node| !node.is_null())
    }

    /// Returns the text of a key.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        text(self.get(name)?)
    }

    /// Returns the place of a key, or of the environment, or of the file.
    pub fn place(&self, name: &str) -> Place {
        let own = self.own.key_span(name);
        let span = own.or_else(|| self.document.root.key_span(name)).filter(|_| self.get(name).is_some());
        span.map_or_else(|| self.start(), |span| self.document.place(span))
    }

    /// Returns the place where the environment begins.
    pub fn start(&self) -> Place {
        let span = self.environment.and_then(|name| self.document.root.get("env")?.key_span(name));
        span.map_or_else(|| self.document.place(self.document.root.span), |span| self.document.place(span))
    }

    /// Returns every key that applies, with its place.
    pub fn keys(&self) -> Vec<(&'a str, Place)> {
        let mut keys = Vec::new();
        let mut note = |node: &'a Node, every: bool| {
            let Kind::Map(entries) = &node.kind else { return };
            for (name, span, value) in entries {
                let inherits = every || matches!(key(name), Some((Scope::Inherited | Scope::Whole, _)));
                let known = keys.iter().any(|(other, _)| other == name);
                if name != "env" && inherits && !known && !value.is_null() {
                    keys.push((name.as_str(), self.document.place(*span)));
                }
            }
        };
        note(self.own, true);
        note(&self.document.root, false);
        keys
    }

    /// Returns the worker's name: the environment's own, or the file's with the environment behind it.
    pub fn name(&self) -> Option<String> {
        let top = self.document.root.get("name").and_then(text);
        match self.environment {
            None => top.map(str::to_owned),
            Some(environment) => {
                let own = self.own.get("name").and_then(text).map(str::to_owned);
                own.or_else(|| top.map(|top| format!("{top}-{environment}")))
            }
        }
    }

    /// Returns its name in messages: `[env.production] of wrangler.toml`.
    pub fn what(&self) -> String {
        match self.environment {
            None => self.document.file.clone(),
            Some(environment) => format!("[env.{environment}] of {}", self.document.file),
        }
    }

    /// Returns the folder of the file, with `/` at its end, or an empty text.
    pub fn folder(&self) -> &'a str {
        self.document.file.rfind('/').map_or("", |at| &self.document.file[..=at])
    }
}

/// Returns a node's text.
pub fn text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

/// Returns a node's items.
pub fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}

/// Returns a node's entries.
pub fn entries(node: Option<&Node>) -> &[(String, flotilla_spec::yaml::Span, Node)] {
    match node.map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_inherit_what_wrangler_lets_them_inherit() {
        let text = "name = \"shop\"\nmain = \"a.js\"\nroutes = [\"a/*\"]\nworkers_dev = true\nalias = { a = \"b\" }\n\
                    [vars]\nA = \"1\"\n[env.staging]\nworkers_dev = false\nalias = { a = \"c\" }\n[env.live]\nname = \"shop-live\"\nroutes = []\n";
        let document = documents::read("wrangler.toml", text.as_bytes()).unwrap();
        let [top, staging, live] = configs(&document)[..] else { panic!("three workers") };
        let names: Vec<_> = [top, staging, live].iter().map(|config| config.name().unwrap()).collect();
        assert_eq!(names, ["shop", "shop-staging", "shop-live"]);
        assert!(top.get("vars").is_some() && staging.get("vars").is_none());
        assert_eq!(staging.text("main"), Some("a.js"));
        assert_eq!(items(staging.get("routes")).len(), 1);
        assert_eq!(items(live.get("routes")).len(), 0);
        assert_eq!(staging.get("workers_dev").unwrap().to_value(), false);
        assert_eq!(staging.get("alias").unwrap().to_value()["a"], "b");
        assert_eq!(staging.place("workers_dev").to_string(), "wrangler.toml:9:1");
        assert_eq!(staging.place("main").to_string(), "wrangler.toml:2:1");
        assert_eq!(staging.place("vars").to_string(), "wrangler.toml:8:6");
        let keys: Vec<&str> = staging.keys().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["workers_dev", "alias", "name", "main", "routes"]);
    }

    #[test]
    fn files_are_found_where_projects_have_them() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "wrangler.toml",
            "wrangler.jsonc",
            "apps/web/wrangler.toml",
            "a/b/c/wrangler.json",
            "a/b/c/d/wrangler.json",
            "wrangler.production.toml",
            "apps/web/wrangler.acme.jsonc",
            "wrangler.vitest.toml",
            "legacy/app/wrangler.toml",
            "apps/web/wrangler.md",
            "node_modules/x/wrangler.toml",
            "out/production/acme/wrangler.jsonc",
            ".git/wrangler.toml",
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let excluded = ["apps/*.acme.*".to_owned(), "legacy".to_owned()];
        let Files { found, others } = files(folder.path(), &excluded);
        assert_eq!(
            found,
            [
                "wrangler.jsonc",
                "wrangler.production.toml",
                "apps/web/wrangler.toml",
                "a/b/c/wrangler.json",
                "a/b/c/d/wrangler.json"
            ]
        );
        let others: Vec<&str> = others.iter().map(|other| other.file.as_str()).collect();
        assert_eq!(others, ["wrangler.toml", "wrangler.vitest.toml"]);
    }
}
