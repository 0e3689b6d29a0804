//! The modules of a bundle that another program made: their names, their kinds, their bytes. As one value they are kept in the state, so
//! that a rollback uploads them again. Knows no files.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::{Digest, Framed};
use crate::plain_file;

/// The maximum number of modules of a bundle, source maps included.
pub const MOST_MODULES: usize = 10_000;
/// The first line of packed modules.
const FORMAT: &[u8] = b"flotilla modules 1\n";
/// The longest name of a module.
const LONGEST_NAME: usize = 1000;

/// The kind of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// An ES module.
    Esm,
    /// A CommonJS module.
    CommonJs,
    /// WebAssembly.
    Wasm,
    /// Bytes, which an import gives as an `ArrayBuffer`.
    Data,
    /// Text, which an import gives as a string.
    Text,
    /// A source map, which is no module: Cloudflare translates the places of errors with it.
    SourceMap,
}

impl ModuleKind {
    const ALL: [Self; 6] = [Self::Esm, Self::CommonJs, Self::Wasm, Self::Data, Self::Text, Self::SourceMap];

    /// Returns its content type in an upload.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Esm => "application/javascript+module",
            Self::CommonJs => "application/javascript",
            Self::Wasm => "application/wasm",
            Self::Data => "application/octet-stream",
            Self::Text => "text/plain",
            Self::SourceMap => "application/source-map",
        }
    }

    /// Returns the kind with a content type.
    pub fn parse(content_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.content_type() == content_type)
    }

    /// Returns its type in the rules of a wrangler configuration.
    pub fn rule(self) -> Option<&'static str> {
        Some(match self {
            Self::Esm => "ESModule",
            Self::CommonJs => "CommonJS",
            Self::Wasm => "CompiledWasm",
            Self::Data => "Data",
            Self::Text => "Text",
            Self::SourceMap => return None,
        })
    }
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledModule {
    /// Its name: a path, with `/`.
    pub name: String,
    /// Its kind.
    pub kind: ModuleKind,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// The modules of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modules {
    /// The main one's name.
    pub main: String,
    /// All of them, the main one first, the others by name, then the source maps.
    pub list: Vec<BundledModule>,
}

/// An entry of packed modules.
#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    kind: ModuleKind,
    length: usize,
}

impl Modules {
    /// Returns modules in their order. The error describes what is wrong with their names.
    pub fn new(main: &str, mut list: Vec<BundledModule>) -> Result<Modules, String> {
        if list.len() > MOST_MODULES {
            return Err(format!("it has more than {MOST_MODULES} modules"));
        }
        let mut names = BTreeSet::new();
        for module in &list {
            check_name(&module.name)?;
            // One file system may not tell them apart.
            if !names.insert(module.name.to_lowercase()) {
                return Err(format!("two modules have the name `{}`", module.name));
            }
        }
        let is_folder = |name: &String| {
            let below = format!("{}/", name.to_lowercase());
            names.range(below.clone()..).next().is_some_and(|other| other.starts_with(&below))
        };
        if let Some(module) = list.iter().find(|module| is_folder(&module.name)) {
            return Err(format!("the module `{}` is also the folder of another one", module.name));
        }
        let order = |module: &BundledModule| (module.kind == ModuleKind::SourceMap, module.name != main);
        list.sort_by(|a, b| (order(a), &a.name).cmp(&(order(b), &b.name)));
        match list.first() {
            Some(first) if first.name == main && first.kind == ModuleKind::Esm => {
                Ok(Modules { main: main.to_owned(), list })
            }
            _ => Err(format!("it has no ES module `{main}`, which should be the main module")),
        }
    }

    /// Returns that there are none: a worker that only has static assets.
    pub fn none() -> Modules {
        Modules { main: String::new(), list: Vec::new() }
    }

    /// Returns the digest of the modules, which source maps are no part of.
    pub fn digest(&self) -> Digest {
        let start = Framed::new("bundle of modules").field(self.main.as_bytes());
        let modules = self.list.iter().filter(|module| module.kind != ModuleKind::SourceMap);
        let all = modules.fold(start, |framed, module| {
            framed.field(module.name.as_bytes()).field(module.kind.content_type().as_bytes()).field(&module.bytes)
        });
        all.finish()
    }

    /// Returns the bytes of the modules that count against the limit of an upload.
    pub fn size(&self) -> u64 {
        let modules = self.list.iter().filter(|module| module.kind != ModuleKind::SourceMap);
        modules.map(|module| module.bytes.len() as u64).sum()
    }

    /// Returns whether there are modules beside the main one.
    pub fn has_more(&self) -> bool {
        self.list.iter().skip(1).any(|module| module.kind != ModuleKind::SourceMap)
    }

    /// Returns whether there are source maps.
    pub fn has_source_maps(&self) -> bool {
        self.list.iter().any(|module| module.kind == ModuleKind::SourceMap)
    }

    /// Returns the rules of a wrangler configuration by which wrangler gives each module its kind.
    pub fn rules(&self) -> Value {
        let rule = |kind: ModuleKind| {
            let names: Vec<&str> =
                self.list.iter().skip(1).filter(|m| m.kind == kind).map(|module| module.name.as_str()).collect();
            (!names.is_empty()).then(|| json!({"type": kind.rule(), "globs": names, "fallthrough": false}))
        };
        ModuleKind::ALL.into_iter().filter(|kind| kind.rule().is_some()).filter_map(rule).collect()
    }

    /// Returns names and kinds without bytes.
    pub fn outline(&self) -> (String, Vec<(String, ModuleKind)>) {
        (self.main.clone(), self.list.iter().map(|module| (module.name.clone(), module.kind)).collect())
    }

    /// Returns modules without bytes from an outline.
    pub fn of_outline((main, list): (String, Vec<(String, ModuleKind)>)) -> Modules {
        let empty = |(name, kind)| BundledModule { name, kind, bytes: Arc::new([]) };
        Modules { main, list: list.into_iter().map(empty).collect() }
    }

    /// Returns them as one value.
    pub fn pack(&self) -> Vec<u8> {
        let entry =
            |module: &BundledModule| Entry { name: module.name.clone(), kind: module.kind, length: module.bytes.len() };
        let entries: Vec<Entry> = self.list.iter().map(entry).collect();
        let mut packed = FORMAT.to_vec();
        packed.extend(serde_json::to_vec(&entries).expect("BUG: names are JSON"));
        packed.push(b'\n');
        self.list.iter().for_each(|module| packed.extend_from_slice(&module.bytes));
        packed
    }

    /// Reads what [`Modules::pack`] made; nothing if it is damaged.
    pub fn unpack(packed: &[u8]) -> Option<Modules> {
        let rest = packed.strip_prefix(FORMAT)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let entries: Vec<Entry> = serde_json::from_slice(&rest[..end]).ok()?;
        let mut bytes = &rest[end + 1..];
        let mut list = Vec::with_capacity(entries.len());
        for Entry { name, kind, length } in entries {
            let (own, left) = bytes.split_at_checked(length)?;
            list.push(BundledModule { name, kind, bytes: own.into() });
            bytes = left;
        }
        let Some(main) = list.first().map(|module| module.name.clone()) else {
            // A worker that is nothing but static assets has none.
            return bytes.is_empty().then(Modules::none);
        };
        if bytes.is_empty() { Modules::new(&main, list).ok() } else { None }
    }
}

/// Checks that a name is a path below a folder, which wrangler's rules match literally.
fn check_name(name: &str) -> Result<(), String> {
    if name.len() > LONGEST_NAME || plain_file::project_path(name).is_err() {
        return Err(format!("the module name `{name}` is not a path within the bundle"));
    }
    if name.chars().any(|c| c.is_control() || matches!(c, '"' | '*' | '\\')) {
        return Err(format!("the module name `{name}` has a character that it can't have"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, kind: ModuleKind, text: &str) -> BundledModule {
        BundledModule { name: name.to_owned(), kind, bytes: text.as_bytes().into() }
    }

    #[test]
    fn modules_are_packed_and_unpacked_and_source_maps_do_not_decide() {
        let list = || {
            vec![
                module("index.js.map", ModuleKind::SourceMap, "{}"),
                module("a/b.txt", ModuleKind::Text, "text\nwith lines"),
                module("index.js", ModuleKind::Esm, "export default {};"),
                module("a.wasm", ModuleKind::Wasm, "\0asm"),
            ]
        };
        let modules = Modules::new("index.js", list()).unwrap();
        let names: Vec<&str> = modules.list.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["index.js", "a.wasm", "a/b.txt", "index.js.map"]);
        assert_eq!(Modules::unpack(&modules.pack()).as_ref(), Some(&modules));
        assert_eq!((modules.size(), modules.has_more(), modules.has_source_maps()), (37, true, true));
        assert_eq!(
            modules.rules(),
            json!([
                {"type": "CompiledWasm", "globs": ["a.wasm"], "fallthrough": false},
                {"type": "Text", "globs": ["a/b.txt"], "fallthrough": false},
            ])
        );
        let mut other = list();
        other[0].bytes = (*b"[]").into();
        assert_eq!(Modules::new("index.js", other).unwrap().digest(), modules.digest());
        let mut other = list();
        other[1].kind = ModuleKind::Data;
        assert_ne!(Modules::new("index.js", other).unwrap().digest(), modules.digest());
    }

    #[test]
    fn damaged_and_hostile_modules_are_rejected() {
        let packed = Modules::new("i.js", vec![module("i.js", ModuleKind::Esm, "1")]).unwrap().pack();
        for length in 0..packed.len() {
            assert_eq!(Modules::unpack(&packed[..length]), None);
        }
        assert_eq!(Modules::unpack(&[&packed[..], b"x"].concat()), None);
        for name in
            ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", ".git/config", "a\nb", "a\"b", "*.js", "a\\b"]
        {
            let list = vec![module("i.js", ModuleKind::Esm, ""), module(name, ModuleKind::Text, "")];
            assert!(Modules::new("i.js", list).is_err(), "{name:?}");
        }
        for other in ["i.js", "I.js", "i.js/x"] {
            let list = vec![module("i.js", ModuleKind::Esm, ""), module(other, ModuleKind::Text, "")];
            assert!(Modules::new("i.js", list).is_err(), "{other:?}");
        }
        let list = || vec![module("i.js", ModuleKind::CommonJs, "")];
        assert!(Modules::new("i.js", list()).is_err(), "the main module is an ES module");
        assert!(Modules::new("j.js", list()).is_err());
    }
}
