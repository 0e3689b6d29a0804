//! The modules that an entry point reaches, and the packages that they import. Follows what is written; runs and bundles nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;

use flotilla_model::credential;
use flotilla_model::diagnostic::Place;
use flotilla_model::plain_file;
use flotilla_spec::yaml::{Kind, Node};

use super::super::wrangler::Config;
use super::super::{FindingKind, Findings};
use super::{MAX_BYTES, Options, TEXT, inside, is_linked, is_module_path, nearest};
use flotilla_spec::documents;

/// The extensions that an import can leave off, in the order in which they are tried.
const EXTENSIONS: [&str; 11] =
    [".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".json", ".d.ts", ".d.mts"];

/// Entries of a package that are not from a registry.
const ELSEWHERE: [&str; 8] = ["workspace:", "file:", "link:", "portal:", "git", "http:", "https:", "catalog:"];

/// The most files of one worker; more is a build's output, not a project.
const MAX_FILES: usize = 5_000;

/// The most bytes of all.
const MAX_ALL: usize = 32 << 20;

/// The modules that an entry point reaches.
pub(super) struct Closure<'a, 'f> {
    pub(super) root: &'a Path,
    pub(super) options: &'a Options,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) bytes: usize,
    pub(super) packages: BTreeSet<String>,
    pub(super) findings: &'f mut Findings,
    pub(super) lost: &'f mut Vec<String>,
}

impl Closure<'_, '_> {
    fn report_lost(&mut self, place: Place, message: String, help: &str) {
        self.lost.push("a part of its code".to_owned());
        self.findings.push(FindingKind::Lost, place, message, help);
    }

    pub(super) fn follow(&mut self, entry: &str, from: &Place) {
        let mut open = vec![(entry.to_owned(), from.clone())];
        while let Some((path, from)) = open.pop() {
            if self.files.contains_key(&path) {
                continue;
            }
            let metadata = std::fs::symlink_metadata(self.root.join(&path));
            if !is_module_path(&path) {
                let message =
                    format!("`{path}` is in a folder of git's, or its name has characters that a module's can't have");
                self.report_lost(from, message, "move or rename it");
                continue;
            }
            if is_linked(self.root, &path) || !metadata.as_ref().is_ok_and(std::fs::Metadata::is_file) {
                self.report_lost(from, format!("`{path}` is a symbolic link, or no plain file"), "put a copy there");
                continue;
            }
            let length = metadata.map_or(0, |metadata| metadata.len());
            if self.files.len() >= MAX_FILES
                || length > MAX_BYTES
                || self.bytes + usize::try_from(length).unwrap_or(usize::MAX) > MAX_ALL
            {
                self.report_lost(
                    from,
                    format!("`{path}` is too much: up to {MAX_FILES} files are taken, of 8 MiB each and 32 MiB in all"),
                    "bundle it beforehand",
                );
                continue;
            }
            let bytes = match plain_file::read(&self.root.join(&path), MAX_BYTES) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.report_lost(from, format!("`{path}` can't be read: {error}"), "check its permissions");
                    continue;
                }
            };
            let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension).to_owned();
            let is_script = matches!(extension.as_str(), "ts" | "tsx" | "mts" | "cts" | "js" | "jsx" | "mjs" | "cjs");
            let is_text =
                TEXT.contains(&extension.as_str()) || extension == "json" || self.options.text.contains(&extension);
            if !is_script && !is_text {
                let message = format!("`{path}` is a module of a kind that flotilla doesn't upload");
                self.report_lost(
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

    /// Returns whether the code itself contains a secret. Such a file isn't copied.
    fn has_secret(&mut self, path: &str, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let Some(at) = text.lines().position(credential::by_form) else { return false };
        let place = Place { file: path.to_owned(), line: at + 1, column: 1, width: 1 };
        let help =
            "the file was not copied: read the secret from `env`, replace it where it was issued, and import again";
        self.findings.push(FindingKind::Credential, place.clone(), "the code contains a secret", help);
        self.report_lost(place, format!("`{path}` was not copied"), "see the secret in it");
        true
    }

    /// Resolves an import to a file of the project, if it is one.
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
            self.report_lost(
                place.clone(),
                format!("`{specifier}` is outside of the project"),
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
            self.report_lost(
                place.clone(),
                format!("`{specifier}` is imported, but does not exist"),
                "if a build writes it, run that build and import again with --force",
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

/// Returns the imports of a module, each with its line.
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
        let at = occurrences.iter().map(|item| item.span.start).min().unwrap_or(0);
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
                    FindingKind::Note,
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
        closure.report_lost(place, "it is written as a service worker, which flotilla doesn't upload".to_owned(), help);
    }
    found.into_iter().collect()
}

/// Returns the versions of the imported packages, as the nearest package.json files have them.
pub(super) fn versions(
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
                    FindingKind::Lost,
                    place,
                    message,
                    "copy its sources into the project and import them by path, or publish it",
                );
                lost.push("a package".to_owned());
            }
            None => {
                let message = format!("the package `{name}` is imported, but no package.json lists it");
                findings.push(
                    FindingKind::Lost,
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
