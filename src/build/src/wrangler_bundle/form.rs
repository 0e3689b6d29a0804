//! The multipart form that `wrangler deploy --dry-run --outfile` writes: what wrangler would upload. Reads bytes alone, and trusts none of them.

use memchr::memmem;
use serde_json::Value;

use flotilla_model::modules::{BundledModule, MOST_MODULES, ModuleKind, Modules};

/// The longest head of a part.
const LONGEST_HEAD: usize = 16 << 10;

/// Reads the modules of a form. The error describes what is wrong with it.
pub(super) fn modules(form: &[u8]) -> Result<Modules, String> {
    let damaged = || "wrangler wrote no multipart form".to_owned();
    let end = memmem::find(form, b"\r\n").filter(|end| (3..200).contains(end)).ok_or_else(damaged)?;
    let delimiter = [b"\r\n", &form[..end]].concat();
    let finder = memmem::Finder::new(&delimiter);
    let mut rest = &form[end..];
    let (mut main, mut list) = (None, Vec::new());
    loop {
        let Some(part) = rest.strip_prefix(b"\r\n") else {
            // After the last part.
            break if rest.starts_with(b"--") { Ok(()) } else { Err(damaged()) };
        };
        let length = finder.find(part).ok_or_else(damaged)?;
        let (name, kind, body) = read_part(&part[..length]).ok_or_else(damaged)?;
        rest = &part[length + delimiter.len()..];
        if name == "metadata" {
            main = Some(main_module(body)?);
            continue;
        }
        if list.len() >= MOST_MODULES {
            return Err(format!("the bundle has more than {MOST_MODULES} modules"));
        }
        let Some(kind) = ModuleKind::parse(&kind) else {
            return Err(format!("the module `{name}` has the type {kind}, which flotilla can't deploy"));
        };
        // wrangler names the files that code imports `./name`, and those that it finds in a folder `name`: to the runtime, that is one.
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        list.push(BundledModule { name, kind, bytes: body.into() });
    }?;
    let main = main.ok_or_else(|| "wrangler's form has no metadata".to_owned())?;
    Modules::new(main.strip_prefix("./").unwrap_or(&main), list)
}

fn main_module(metadata: &[u8]) -> Result<String, String> {
    let metadata: Value =
        serde_json::from_slice(metadata).map_err(|error| format!("wrangler's metadata is not JSON: {error}"))?;
    match (metadata["main_module"].as_str(), metadata.get("body_part")) {
        (Some(main), _) => Ok(main.to_owned()),
        (None, Some(_)) => {
            Err("it is a worker in the service worker format, with addEventListener; flotilla deploys ES modules"
                .to_owned())
        }
        (None, None) => Err("wrangler's metadata names no main module".to_owned()),
    }
}

/// Returns the name, the content type and the body of a part.
fn read_part(part: &[u8]) -> Option<(String, String, &[u8])> {
    let head_end = memmem::find(&part[..part.len().min(LONGEST_HEAD)], b"\r\n\r\n")?;
    let head = std::str::from_utf8(&part[..head_end]).ok()?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let name = header("content-disposition")?.split("; name=\"").nth(1)?.split('"').next()?.to_owned();
    let kind = header("content-type").unwrap_or("text/plain").split(';').next().unwrap_or_default().trim().to_owned();
    Some((name, kind, &part[head_end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str, &str)]) -> Vec<u8> {
        let part = |(name, kind, body): &(&str, &str, &str)| {
            let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
            format!(
                "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n{kind}\r\n{body}\r\n"
            )
        };
        (parts.iter().map(part).collect::<String>() + "--b--\r\n").into_bytes()
    }

    const METADATA: (&str, &str, &str) = ("metadata", "", "{\"main_module\": \"index.js\"}");
    const MAIN: (&str, &str, &str) = ("index.js", "application/javascript+module", "1\r\n--c\r\n2");

    #[test]
    fn a_form_is_read_as_wrangler_writes_it() {
        let read = modules(&form(&[
            METADATA,
            MAIN,
            ("./x.txt", "text/plain", ""),
            ("index.js.map", "application/source-map", "{}"),
        ]));
        let read = read.unwrap();
        let list: Vec<(&str, ModuleKind, &[u8])> =
            read.list.iter().map(|module| (module.name.as_str(), module.kind, &*module.bytes)).collect();
        assert_eq!(
            list,
            [
                ("index.js", ModuleKind::Esm, &b"1\r\n--c\r\n2"[..]),
                ("x.txt", ModuleKind::Text, b""),
                ("index.js.map", ModuleKind::SourceMap, b"{}"),
            ]
        );
    }

    #[test]
    fn what_is_no_such_form_is_an_error() {
        for parts in [
            &[MAIN][..],
            &[METADATA],
            &[METADATA, MAIN, MAIN],
            &[METADATA, MAIN, ("../x", "text/plain", "")],
            &[METADATA, MAIN, ("./../x", "text/plain", "")],
            &[METADATA, MAIN, ("x.py", "text/x-python", "")],
            &[("metadata", "", "{\"body_part\": \"index.js\"}"), MAIN],
            &[("metadata", "", "{"), MAIN],
        ] {
            assert!(modules(&form(parts)).is_err(), "{parts:?}");
        }
        let whole = form(&[METADATA, MAIN]);
        for length in 0..whole.len() - 5 {
            assert!(modules(&whole[..length]).is_err(), "{length}");
        }
    }
}
