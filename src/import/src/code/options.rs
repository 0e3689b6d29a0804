//! The bundling options of wrangler as those of the pack's bundler: `define`, `alias`, `rules`, and the options that esbuild takes
//! from tsconfig.json. Knows configurations; reads no code.

use std::path::Path;

use flotilla_model::credential;
use flotilla_model::diagnostic::Place;
use flotilla_model::plain_file;

use super::super::wrangler::{Config, entries, items, text};
use super::super::{FindingKind, Findings};
use super::{MAX_BYTES, Options, TEXT, inside, nearest};
use flotilla_spec::documents;

pub(super) fn options(root: &Path, config: &Config<'_>, findings: &mut Findings, lost: &mut Vec<String>) -> Options {
    let mut options = Options::default();
    for (name, span, node) in entries(config.get("define")) {
        let place = config.document.place(*span);
        match text(node) {
            Some(value) if credential::is_credential(name, value.trim_matches(['"', '\''])) => {
                let help = "its value was not copied: make it a secret of the worker, and read it from `env`";
                findings.push(
                    FindingKind::Credential,
                    place.clone(),
                    format!("`{name}` puts a secret into the code"),
                    help,
                );
                findings.push(FindingKind::Lost, place, format!("`define.{name}` was not copied"), help);
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
                            FindingKind::LeftOut,
                            config.document.place(glob.span),
                            "a rule for other than an extension can't be mapped",
                            "add a loader to build.json of the pack",
                        ),
                    }
                }
            }
            kind => {
                let message = format!("modules of the type `{}` can't be mapped", kind.unwrap_or("?"));
                findings.push(
                    FindingKind::LeftOut,
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

/// Reads the options that esbuild takes from tsconfig.json: how JSX and classes are written, and paths, which become aliases.
fn tsconfig(root: &Path, config: &Config<'_>, options: &mut Options, findings: &mut Findings) {
    let named = config.text("tsconfig").and_then(|path| inside(config.folder(), path));
    let found = match named {
        Some(path) => plain_file::read(&root.join(&path), MAX_BYTES).ok().map(|bytes| (path, bytes)),
        None => nearest(root, config.folder(), "tsconfig.json"),
    };
    let Some((path, bytes)) = found else { return };
    let as_json = if path.ends_with(".json") { path.clone() } else { format!("{path}.json") };
    let Ok(document) = documents::read(&as_json, &bytes) else {
        findings.push(
            FindingKind::Note,
            Place::file(&path),
            "it can't be read",
            "aliases and options of the compiler in it are not known",
        );
        return;
    };
    if document.root.get("extends").is_some() {
        let place = document.place(document.root.key_span("extends").expect("BUG: the key is there"));
        findings.push(
            FindingKind::Note,
            place,
            "what it extends isn't read",
            "paths and JSX options there belong in build.json of the pack",
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
                FindingKind::Note,
                document.place(*span),
                format!("the path `{pattern}` can't be an alias"),
                "if the worker imports it, add it to build.json of the pack",
            ),
        }
    }
}
