//! What a worker runs, as a pack: the modules that its entry point reaches, the packages that they import, and how wrangler
//! was told to bundle them. Reads files of the project alone; bundles nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;
use serde_json::{Map, Value, json};

use crate::diagnostic::Place;
use crate::digest::Framed;
use crate::yaml::{Kind, Node};

use super::credential;
use super::documents;
use super::wrangler::{Config, entries, items, text};
use super::{Findings, News};

/// The most files of one worker; more is a build's output, not a project.
const MAX_FILES: usize = 5_000;
/// The most bytes of one file.
const MAX_BYTES: u64 = 8 << 20;
/// The most bytes of all.
const MAX_ALL: usize = 32 << 20;
/// What an import can leave off, in the order in which it is tried.
const EXTENSIONS: [&str; 11] =
    [".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".json", ".d.ts", ".d.mts"];
/// What wrangler bundles as text, unless `rules` say otherwise.
const TEXT: [&str; 3] = ["txt", "html", "sql"];
/// Entries of a package that are not from a registry.
const ELSEWHERE: [&str; 8] = ["workspace:", "file:", "link:", "portal:", "git", "http:", "https:", "catalog:"];

/// A worker's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// What its pack could be called.
    pub name: String,
    /// Its files by path, below the pack's `src`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The entry point among them. Without files: what it would be.
    pub main: String,
    /// The packages that it imports, with their versions.
    pub packages: BTreeMap<String, String>,
    /// The project's lock file of npm.
    pub lock: Option<Vec<u8>>,
    /// What a bundler is told.
    pub options: Options,
}

/// What a bundler is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Names that are replaced, and by what.
    pub define: BTreeMap<String, String>,
    /// Modules that stand for others.
    pub alias: BTreeMap<String, String>,
    /// The options of the TypeScript compiler that change what code does.
    pub compiler: Map<String, Value>,
    /// The extensions that are imported as text, beside those that are anyway.
    pub text: BTreeSet<String>,
}

impl Code {
    /// The code of a live worker: modules as they were uploaded.
    pub fn of_modules(name: &str, main: String, modules: BTreeMap<String, Vec<u8>>) -> Code {
        let plain = |path: &str| {
            !path.starts_with('/') && path.split('/').all(|step| !step.is_empty() && step != ".." && step != ".")
        };
        let files: BTreeMap<String, Vec<u8>> = modules.into_iter().filter(|(path, _)| plain(path)).collect();
        let main = if files.contains_key(&main) { main } else { files.keys().next().cloned().unwrap_or_default() };
        Code {
            name: super::customers::slug(name),
            files,
            main,
            packages: BTreeMap::new(),
            lock: None,
            options: Options::default(),
        }
    }

    /// What two workers share that run the same.
    pub fn key(&self) -> String {
        let mut framed = Framed::new("code").field(self.main.as_bytes());
        for (path, bytes) in &self.files {
            framed = framed.field(path.as_bytes()).field(bytes);
        }
        let options = json!({"define": self.options.define, "alias": self.options.alias, "compiler": self.options.compiler, "text": self.options.text, "packages": self.packages});
        framed.field(options.to_string().as_bytes()).finish().to_string()
    }

    /// The files of its pack, by path within it, made from those of the pack `worker`; without a lock file if the packages
    /// want one of their own.
    pub fn pack(&self, name: &str, prefix: &str, worker: &[(String, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for (path, bytes) in worker {
            let text = || String::from_utf8_lossy(bytes).into_owned();
            let changed = match path.as_str() {
                "pack.yaml" => manifest(name, prefix, &text()),
                "build.mjs" => self.bundler(&text()),
                "package.json" => self.package(name, &text()),
                "package-lock.json" if self.packages.is_empty() => {
                    text().replace("\"flotilla-worker\"", &format!("\"flotilla-{name}\""))
                }
                "package-lock.json" => continue,
                "README.md" => format!(
                    "# {name}\n\nThe code of a worker that `flotilla import` found, as a pack. `src/{}` is where it begins.\n",
                    self.main
                ),
                path if path.starts_with("src/") || path.starts_with("test/") => continue,
                _ => {
                    files.insert(path.clone(), bytes.clone());
                    continue;
                }
            };
            files.insert(path.clone(), changed.into_bytes());
        }
        files.extend(self.files.iter().map(|(path, bytes)| (format!("src/{path}"), bytes.clone())));
        files
    }

    fn bundler(&self, text: &str) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let define: String =
            self.options.define.iter().map(|(name, value)| format!("{}: {}, ", quoted(name), quoted(value))).collect();
        let loaders: String = self
            .options
            .text
            .iter()
            .map(|extension| format!("{}: \"text\", ", quoted(&format!(".{extension}"))))
            .collect();
        let mut more = String::new();
        if !self.options.alias.is_empty() {
            more = format!("\n    alias: {},", json!(self.options.alias));
        }
        let compiler = match self.options.compiler.is_empty() {
            true => "{}".to_owned(),
            false => json!({"compilerOptions": self.options.compiler}).to_string(),
        };
        text.replace("src/index.ts", &format!("src/{}", self.main))
            .replacen("define: { ", &format!("define: {{ {define}"), 1)
            .replacen("loader: { ", &format!("loader: {{ {loaders}"), 1)
            .replacen("tsconfigRaw: {},", &format!("tsconfigRaw: {compiler},{more}"), 1)
    }

    fn package(&self, name: &str, text: &str) -> String {
        let mut package: Value = serde_json::from_str(text).unwrap_or_default();
        package["name"] = format!("flotilla-{name}").into();
        if let Some(scripts) = package["scripts"].as_object_mut() {
            scripts.retain(|key, _| key == "build");
        }
        for (name, version) in &self.packages {
            package["dependencies"][name] = version.clone().into();
        }
        serde_json::to_string_pretty(&package).expect("BUG: a package is JSON") + "\n"
    }
}

fn manifest(name: &str, prefix: &str, text: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some(("name", _)) => format!("name: {name}"),
        Some(("prefix", _)) => format!("prefix: {prefix}"),
        Some(("description", _)) => "description: Imported from a project of wrangler's.".to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// A lock file for a package.json, made by npm from the versions of an older one. The error is what npm said.
pub fn lock(package: &[u8], older: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let folder = std::env::temp_dir().join(format!(
        "flotilla-lock-{}-{}",
        std::process::id(),
        Framed::new("lock").field(package).finish().short()
    ));
    let made = (|| {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("package.json"), package))
            .map_err(|error| error.to_string())?;
        if let Some(older) = older {
            std::fs::write(folder.join("package-lock.json"), older).map_err(|error| error.to_string())?;
        }
        let output = Command::new("npm")
            .args([
                "install",
                "--package-lock-only",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefer-offline",
                "--loglevel=error",
                "--omit-lockfile-registry-resolved",
            ])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("npm can't be started: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(said.lines().find(|line| !line.trim().is_empty()).unwrap_or("npm said nothing").to_owned());
        }
        std::fs::read(folder.join("package-lock.json")).map_err(|error| error.to_string())
    })();
    let _ = std::fs::remove_dir_all(&folder);
    made
}

/// The code of a configuration. Without a `main` there is none.
pub fn of(root: &Path, config: &Config<'_>, findings: &mut Findings, lost: &mut Vec<String>) -> Option<Code> {
    let name = config
        .document
        .file
        .rsplit('/')
        .nth(1)
        .or_else(|| config.document.root.get("name").and_then(text))
        .unwrap_or("worker");
    let main = match config.text("main") {
        Some(main) => main,
        None => {
            if config.get("assets").is_none() && config.get("site").is_none() {
                let help = "write where its code begins: `main = \"src/index.ts\"`";
                findings.push(News::Lost, config.start(), format!("{} has no `main`", config.what()), help);
                lost.push("its code".to_owned());
            }
            return None;
        }
    };
    let place = config.place("main");
    let mut code = Code {
        name: super::customers::slug(name),
        files: BTreeMap::new(),
        main: "index.ts".to_owned(),
        packages: BTreeMap::new(),
        lock: None,
        options: options(root, config, findings, lost),
    };
    let Some(entry) = inside(config.folder(), main) else {
        let help = "a worker's code is within the folder that is imported: name that folder, or move the code";
        findings.push(News::Lost, place, "`main` leads out of the project", help);
        lost.push("its code".to_owned());
        return Some(code);
    };
    if entry.ends_with(".py") {
        let help = "flotilla bundles JavaScript and TypeScript; keep deploying this worker with `wrangler deploy`";
        findings.push(News::Lost, place, "it is a worker in Python", help);
        lost.push("its code".to_owned());
        return Some(code);
    }
    if !root.join(&entry).exists() {
        let help = format!(
            "if a build makes it, run that build and import again with --force; or put the bundled worker at \
                            templates/…/src/{}",
            file_name(&entry)
        );
        code.main = file_name(&entry).to_owned();
        findings.push(News::Lost, place, format!("`{main}`, where the worker begins, isn't there"), help);
        lost.push("its code, which was not built".to_owned());
        return Some(code);
    }
    let mut closure = Closure {
        root,
        options: &code.options,
        files: BTreeMap::new(),
        bytes: 0,
        packages: BTreeSet::new(),
        findings,
        lost,
    };
    closure.follow(&entry, &place);
    let (files, packages) = (closure.files, closure.packages);
    // Below what all have in common, `src/` in most projects.
    let above =
        files.keys().map(|path| path.rfind('/').map_or("", |at| &path[..=at])).reduce(common).unwrap_or("").to_owned();
    code.main = entry.strip_prefix(&above).unwrap_or(&entry).to_owned();
    if !code.options.alias.is_empty() {
        let moved = |target: &String| match target.strip_prefix("./").and_then(|path| path.strip_prefix(above.as_str()))
        {
            Some(path) => format!("./src/{path}"),
            None => target.clone(),
        };
        code.options.alias.values_mut().for_each(|target| *target = moved(target));
    }
    code.files = files.into_iter().map(|(path, bytes)| (path[above.len()..].to_owned(), bytes)).collect();
    code.packages = versions(root, config, &packages, findings, lost);
    if !code.packages.is_empty() {
        code.lock = nearest(root, config.folder(), "package-lock.json").map(|(_, bytes)| bytes);
    }
    Some(code)
}

/// The folders that two have in common.
fn common<'a>(one: &'a str, other: &'a str) -> &'a str {
    let mut end = 0;
    for (at, byte) in one.bytes().enumerate() {
        if other.as_bytes().get(at) != Some(&byte) {
            break;
        }
        if byte == b'/' {
            end = at + 1;
        }
    }
    &one[..end]
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A path from a folder, without `.` and `..`; `None` if it leads out of the project.
fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\\') || path.contains('\0') {
        return None;
    }
    let mut steps: Vec<&str> = folder.split('/').filter(|step| !step.is_empty()).collect();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => _ = steps.pop()?,
            step => steps.push(step),
        }
    }
    Some(steps.join("/"))
}

/// Whether a path goes through a symbolic link.
fn is_linked(root: &Path, path: &str) -> bool {
    let mut at = root.to_owned();
    path.split('/').any(|step| {
        at.push(step);
        std::fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_symlink())
    })
}

/// The nearest file of a name, from a folder upwards to the project's own.
fn nearest(root: &Path, folder: &str, name: &str) -> Option<(String, Vec<u8>)> {
    let mut folder = folder.trim_end_matches('/');
    loop {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let is_plain = std::fs::symlink_metadata(root.join(&path))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_BYTES * 4);
        if is_plain && let Ok(bytes) = std::fs::read(root.join(&path)) {
            return Some((path, bytes));
        }
        if folder.is_empty() {
            return None;
        }
        folder = folder.rfind('/').map_or("", |at| &folder[..at]);
    }
}

fn options(root: &Path, config: &Config<'_>, findings: &mut Findings, lost: &mut Vec<String>) -> Options {
    let mut options = Options::default();
    for (name, span, node) in entries(config.get("define")) {
        let place = config.document.place(*span);
        match text(node) {
            Some(value) if credential::is_credential(name, value.trim_matches(['"', '\''])) => {
                let help = "its value was not copied: make it a secret of the worker, and read it from `env`";
                findings.push(News::Credential, place.clone(), format!("`{name}` puts a secret into the code"), help);
                findings.push(News::Lost, place, format!("`define.{name}` was not copied"), help);
                lost.push(format!("define.{name}"));
            }
            Some(value) => _ = options.define.insert(name.clone(), value.to_owned()),
            None => {}
        }
    }
    for (name, _, node) in entries(config.get("alias")) {
        let Some(target) = text(node) else { continue };
        let target = match target.starts_with('.').then(|| inside(config.folder(), target)).flatten() {
            Some(path) => format!("./{path}"),
            None => target.to_owned(),
        };
        options.alias.insert(name.clone(), target);
    }
    for rule in items(config.get("rules")) {
        let place = config.document.place(rule.span);
        match rule.get("type").and_then(text) {
            Some("ESModule" | "CommonJS") => {}
            Some("Text") => {
                for glob in items(rule.get("globs")) {
                    match text(glob).and_then(|glob| glob.rsplit_once("*.")).map(|(_, extension)| extension) {
                        Some(extension) if extension.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                            if !TEXT.contains(&extension) {
                                options.text.insert(extension.to_owned());
                            }
                        }
                        _ => findings.push(
                            News::LeftOut,
                            config.document.place(glob.span),
                            "a rule for other than an extension can't be mapped",
                            "add a loader to build.mjs of the pack",
                        ),
                    }
                }
            }
            kind => {
                let message = format!("modules of the type `{}` can't be mapped", kind.unwrap_or("?"));
                findings.push(
                    News::LeftOut,
                    place,
                    message,
                    "flotilla uploads JavaScript alone, text included; a file that is imported so is told by itself",
                );
            }
        }
    }
    for (key, option) in [("jsx_factory", "jsxFactory"), ("jsx_fragment", "jsxFragmentFactory")] {
        if let Some(text) = config.text(key) {
            options.compiler.insert(option.to_owned(), text.into());
        }
    }
    tsconfig(root, config, &mut options, findings);
    options
}

/// What esbuild takes from tsconfig.json: how JSX and classes are written, and paths, which become aliases.
fn tsconfig(root: &Path, config: &Config<'_>, options: &mut Options, findings: &mut Findings) {
    let named = config.text("tsconfig").and_then(|path| inside(config.folder(), path));
    let found = match named {
        Some(path) => std::fs::read(root.join(&path)).ok().map(|bytes| (path, bytes)),
        None => nearest(root, config.folder(), "tsconfig.json"),
    };
    let Some((path, bytes)) = found else { return };
    let as_json = if path.ends_with(".json") { path.clone() } else { format!("{path}.json") };
    let Ok(document) = documents::read(&as_json, &bytes) else {
        findings.push(
            News::Note,
            Place::file(&path),
            "it can't be read",
            "aliases and options of the compiler in it are not known",
        );
        return;
    };
    if document.root.get("extends").is_some() {
        let place = document.place(document.root.key_span("extends").expect("BUG: the key is there"));
        findings.push(
            News::Note,
            place,
            "what it extends isn't read",
            "paths and JSX options there belong into build.mjs of the pack",
        );
    }
    let Some(compiler) = document.root.get("compilerOptions") else { return };
    let known = [
        "jsx",
        "jsxFactory",
        "jsxFragmentFactory",
        "jsxImportSource",
        "experimentalDecorators",
        "useDefineForClassFields",
        "verbatimModuleSyntax",
        "preserveValueImports",
    ];
    for (name, _, node) in entries(Some(compiler)) {
        if known.contains(&name.as_str()) {
            options.compiler.entry(name.clone()).or_insert_with(|| node.to_value());
        }
    }
    let folder = path.rfind('/').map_or("", |at| &path[..=at]);
    let base = compiler.get("baseUrl").and_then(text).unwrap_or(".");
    for (pattern, span, node) in entries(compiler.get("paths")) {
        let target = items(Some(node)).first().and_then(text);
        let target = target.and_then(|target| inside(&inside(folder, base)?, target));
        let star = |text: &str| text.matches('*').count();
        let pair = target.and_then(|target| match (pattern.strip_suffix("/*"), target.strip_suffix("/*")) {
            (Some(name), Some(path)) if star(name) == 0 && star(path) == 0 => Some((name.to_owned(), path.to_owned())),
            _ if star(pattern) == 0 && star(&target) == 0 => Some((pattern.clone(), target)),
            _ => None,
        });
        match pair {
            Some((name, path)) => _ = options.alias.entry(name).or_insert(format!("./{path}")),
            None => findings.push(
                News::Note,
                document.place(*span),
                format!("the path `{pattern}` can't be an alias"),
                "if the worker imports it, add it to build.mjs of the pack",
            ),
        }
    }
}

/// The modules that an entry point reaches.
struct Closure<'a, 'f> {
    root: &'a Path,
    options: &'a Options,
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
    packages: BTreeSet<String>,
    findings: &'f mut Findings,
    lost: &'f mut Vec<String>,
}

impl Closure<'_, '_> {
    fn lose(&mut self, place: Place, message: String, help: &str) {
        self.lost.push("a part of its code".to_owned());
        self.findings.push(News::Lost, place, message, help);
    }

    fn follow(&mut self, entry: &str, from: &Place) {
        let mut open = vec![(entry.to_owned(), from.clone())];
        while let Some((path, from)) = open.pop() {
            if self.files.contains_key(&path) {
                continue;
            }
            let metadata = std::fs::symlink_metadata(self.root.join(&path));
            if is_linked(self.root, &path) || !metadata.as_ref().is_ok_and(std::fs::Metadata::is_file) {
                self.lose(from, format!("`{path}` is a symbolic link, or no plain file"), "put a copy there");
                continue;
            }
            let length = metadata.map_or(0, |metadata| metadata.len());
            if self.files.len() >= MAX_FILES
                || length > MAX_BYTES
                || self.bytes + usize::try_from(length).unwrap_or(usize::MAX) > MAX_ALL
            {
                self.lose(
                    from,
                    format!("`{path}` is too much: up to {MAX_FILES} files are taken, of 8 MiB each and 32 MiB in all"),
                    "bundle it beforehand",
                );
                continue;
            }
            let bytes = match std::fs::read(self.root.join(&path)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.lose(from, format!("`{path}` can't be read: {error}"), "check its permissions");
                    continue;
                }
            };
            let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension).to_owned();
            let is_script = matches!(extension.as_str(), "ts" | "tsx" | "mts" | "cts" | "js" | "jsx" | "mjs" | "cjs");
            let is_text =
                TEXT.contains(&extension.as_str()) || extension == "json" || self.options.text.contains(&extension);
            if !is_script && !is_text {
                let message = format!("`{path}` is a module of a kind that flotilla doesn't upload");
                self.lose(
                    from,
                    message,
                    "JavaScript, JSON and text are; keep deploying this worker with `wrangler deploy`",
                );
                continue;
            }
            if self.has_secret(&path, &bytes) {
                continue;
            }
            if is_script {
                let text = String::from_utf8_lossy(&bytes);
                for (specifier, line) in imports(&path, &text, path == entry, self) {
                    let place = Place { file: path.clone(), line, column: 1, width: 1 };
                    if let Some(next) = self.resolve(&path, &specifier, &place) {
                        open.push((next, place));
                    }
                }
            }
            self.bytes += bytes.len();
            self.files.insert(path, bytes);
        }
    }

    /// Whether a secret stands in the code itself. Such a file isn't copied.
    fn has_secret(&mut self, path: &str, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let Some(at) = text.lines().position(credential::by_form) else { return false };
        let place = Place { file: path.to_owned(), line: at + 1, column: 1, width: 1 };
        let help =
            "the file was not copied: read the secret from `env`, replace it where it was issued, and import again";
        self.findings.push(News::Credential, place.clone(), "a secret stands in the code", help);
        self.lose(place, format!("`{path}` was not copied"), "see the secret in it");
        true
    }

    /// The file that an import means, if it is one of the project's.
    fn resolve(&mut self, from: &str, specifier: &str, place: &Place) -> Option<String> {
        let specifier = specifier.split('?').next().unwrap_or(specifier);
        let folder = from.rfind('/').map_or("", |at| &from[..=at]);
        let aliased = self.options.alias.iter().find_map(|(name, target)| {
            let rest = specifier.strip_prefix(name.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{target}{rest}"))
        });
        let path = match &aliased {
            Some(target) if target.starts_with("./") => inside("", target),
            Some(package) => {
                self.package(package);
                return None;
            }
            None if specifier.starts_with('.') => inside(folder, specifier),
            None if specifier.starts_with('/') => None,
            None => {
                self.package(specifier);
                return None;
            }
        };
        let Some(path) = path else {
            self.lose(
                place.clone(),
                format!("`{specifier}` leads out of the project"),
                "move what is imported into the folder that is imported, or name one above both",
            );
            return None;
        };
        let exists =
            |path: &String| std::fs::symlink_metadata(self.root.join(path)).is_ok_and(|metadata| !metadata.is_dir());
        let swapped = [(".js", ".ts"), (".js", ".tsx"), (".jsx", ".tsx"), (".mjs", ".mts"), (".cjs", ".cts")];
        let candidates = std::iter::once(path.clone())
            .chain(swapped.iter().filter_map(|(from, to)| Some(format!("{}{to}", path.strip_suffix(from)?))))
            .chain(EXTENSIONS.iter().map(|extension| format!("{path}{extension}")))
            .chain(EXTENSIONS.iter().map(|extension| format!("{path}/index{extension}")));
        let found = candidates.into_iter().find(|path| exists(path));
        if found.is_none() {
            self.lose(
                place.clone(),
                format!("`{specifier}` is imported, and isn't there"),
                "if a build makes it, run that build and import again with --force",
            );
        }
        found
    }

    fn package(&mut self, specifier: &str) {
        let builtin =
            specifier.contains(':') || specifier.starts_with('#') || specifier.starts_with("__STATIC_CONTENT");
        let steps = if specifier.starts_with('@') { 2 } else { 1 };
        let name = specifier.split('/').take(steps).collect::<Vec<_>>().join("/");
        if !builtin && !NODE.contains(&name.as_str()) && !name.is_empty() {
            self.packages.insert(name);
        }
    }
}

/// Modules of Node.js that code imports without `node:`.
const NODE: [&str; 34] = [
    "assert",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "domain",
    "events",
    "fs",
    "http",
    "http2",
    "https",
    "module",
    "net",
    "os",
    "path",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "stream",
    "string_decoder",
    "timers",
    "tls",
    "tty",
    "url",
    "util",
    "zlib",
];

/// What a module imports, each with its line.
fn imports(path: &str, text: &str, is_entry: bool, closure: &mut Closure<'_, '_>) -> Vec<(String, usize)> {
    let line = |at: u32| text[..text.floor_char_boundary(at as usize)].matches('\n').count() + 1;
    let allocator = Allocator::default();
    // wrangler's bundler takes JSX in files that are called `.js`, if anywhere.
    let kind = SourceType::from_path(path)
        .unwrap_or_default()
        .with_jsx(!path.ends_with(".ts") && !path.ends_with("mts") && !path.ends_with("cts"));
    let parsed = Parser::new(&allocator, text, kind).parse();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let record = &parsed.module_record;
    for (specifier, occurrences) in &record.requested_modules {
        let at = occurrences.iter().map(|one| one.span.start).min().unwrap_or(0);
        found.insert(specifier.to_string(), line(at));
    }
    for dynamic in &record.dynamic_imports {
        let written = &text[dynamic.module_request.start as usize..dynamic.module_request.end as usize];
        match written
            .strip_prefix(['"', '\'', '`'])
            .and_then(|rest| rest.strip_suffix(['"', '\'', '`']))
            .filter(|name| !name.contains("${"))
        {
            Some(name) => _ = found.insert(name.to_owned(), line(dynamic.span.start)),
            None => {
                let place = Place { file: path.to_owned(), line: line(dynamic.span.start), column: 1, width: 1 };
                let help = "modules are found by what is written; add those that it can mean to the pack's src";
                closure.findings.push(
                    News::Note,
                    place,
                    "an import of something that is known only when it runs",
                    help,
                );
            }
        }
    }
    for (at, _) in text.match_indices("require(") {
        let rest = text[at + "require(".len()..].trim_start();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\''))
            && let Some(end) = rest[1..].find(quote)
            && !rest[1..=end].contains('\n')
        {
            found.entry(rest[1..=end].to_owned()).or_insert_with(|| line(u32::try_from(at).unwrap_or(0)));
        }
    }
    let exports = !record.local_export_entries.is_empty()
        || !record.indirect_export_entries.is_empty()
        || !record.star_export_entries.is_empty();
    if is_entry && !exports && !text.contains("module.exports") && !parsed.panicked {
        let place = Place { file: path.to_owned(), line: 1, column: 1, width: 1 };
        let help = "write it as a module: `export default { async fetch(request, env) { … } }`; Cloudflare's guide is \"Migrate from Service Workers to ES Modules\"";
        closure.lose(place, "it is written as a service worker, which flotilla doesn't upload".to_owned(), help);
    }
    found.into_iter().collect()
}

/// The versions of the packages that are imported, as the nearest package.json have them.
fn versions(
    root: &Path,
    config: &Config<'_>,
    packages: &BTreeSet<String>,
    findings: &mut Findings,
    lost: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    if packages.is_empty() {
        return versions;
    }
    let mut manifests = Vec::new();
    let own = nearest(root, config.folder(), "package.json");
    let top = nearest(root, "", "package.json");
    manifests.extend(own);
    manifests.extend(top.filter(|(path, _)| manifests.iter().all(|(other, _)| other != path)));
    let read: Vec<(String, Node)> = manifests
        .into_iter()
        .filter_map(|(path, bytes)| {
            let root = documents::read(&path, &bytes).ok()?.root;
            Some((path, root))
        })
        .collect();
    for name in packages {
        let found = read.iter().find_map(|(path, manifest)| {
            ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"]
                .into_iter()
                .find_map(|kind| manifest.get(kind)?.get(name).map(|node| (path, node)))
        });
        match found {
            Some((_, Node { kind: Kind::Text(version), .. }))
                if !ELSEWHERE.iter().any(|from| version.starts_with(from))
                    && (!version.contains('/') || version.starts_with("npm:")) =>
            {
                versions.insert(name.clone(), version.clone());
            }
            Some((path, node)) => {
                let place = Place {
                    file: path.clone(),
                    line: node.span.line,
                    column: node.span.column,
                    width: node.span.width,
                };
                let message = format!("the package `{name}` isn't one of a registry");
                findings.push(
                    News::Lost,
                    place,
                    message,
                    "copy its sources into the project and import them by path, or publish it",
                );
                lost.push("a package".to_owned());
            }
            None => {
                let message = format!("the package `{name}` is imported, and no package.json has it");
                findings.push(
                    News::Lost,
                    config.place("main"),
                    message,
                    "add it to the dependencies, and import again with --force",
                );
                lost.push("a package".to_owned());
            }
        }
    }
    versions
}
