//! A worker's code as Cloudflare returns it: its modules as a form, or a script in the older form. Sends nothing; keeps all bytes as they
//! are.

use std::io::Read;

use flotilla_http::Body;
use flotilla_model::platform::{CallError, ReadModule, Reply};

/// The largest code that is read, in bytes. Source: Cloudflare docs, Workers › Limits: 64 MB before compression.
pub const MAX_CONTENT: u64 = 128 << 20;
/// The header that names the main module; what wrangler reads, too.
pub const ENTRY: &str = "cf-entrypoint";

/// Reads the answer of a content type, with the main module's name if it was given.
pub fn read(kind: &str, entry: &str, mut body: impl Read) -> Result<Reply, CallError> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map_err(|error| super::failed(&Body::error(&error)))?;
    let Some(boundary) = boundary(kind) else {
        // A page or an envelope in its place is no code.
        if !plain(kind).ends_with("javascript") {
            return Err(super::undocumented(&format!("`{}` in place of a worker's code", plain(kind))));
        }
        let script = ReadModule { name: "index.js".to_owned(), kind: plain(kind), bytes };
        return Ok(Reply::Content { main: None, modules: vec![script] });
    };
    let Some(modules) = parts(&bytes, &boundary) else {
        return Err(CallError::Unavailable("Cloudflare's response with a worker's code is incomplete".to_owned()));
    };
    let first = modules.first().map(|module| module.name.clone());
    let main = Some(entry.to_owned()).filter(|entry| !entry.is_empty()).or(first);
    Ok(Reply::Content { main, modules })
}

/// The boundary of a form.
fn boundary(kind: &str) -> Option<String> {
    let (form, parameters) = kind.split_once(';')?;
    let boundary = parameters.split(';').find_map(|item| item.trim().strip_prefix("boundary="))?;
    form.trim().eq_ignore_ascii_case("multipart/form-data").then(|| boundary.trim_matches('"').to_owned())
}

fn plain(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The parts of a form; none if it isn't whole.
fn parts(body: &[u8], boundary: &str) -> Option<Vec<ReadModule>> {
    let edge = format!("--{boundary}");
    let next = format!("\r\n{edge}");
    let mut rest = &body[find(body, edge.as_bytes())? + edge.len()..];
    let mut modules = Vec::new();
    while !rest.starts_with(b"--") {
        let head = find(rest, b"\r\n\r\n")?;
        let end = head + 4 + find(&rest[head + 4..], next.as_bytes())?;
        let lines = String::from_utf8_lossy(&rest[..head]).into_owned();
        let line = |name: &str| {
            lines.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let disposition = line("content-disposition")?;
        let name = disposition.split("name=\"").nth(1)?.split('"').next()?.replace("%22", "\"");
        let kind = plain(&line("content-type").unwrap_or_default());
        modules.push(ReadModule { name, kind, bytes: rest[head + 4..end].to_vec() });
        rest = &rest[end + next.len()..];
    }
    Some(modules)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // By the first byte: a worker's code is megabytes.
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, kind: &str, bytes: &[u8]) -> ReadModule {
        ReadModule { name: name.to_owned(), kind: kind.to_owned(), bytes: bytes.to_vec() }
    }

    #[test]
    fn modules_come_byte_for_byte() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"a/index.js\"; filename=\"a/index.js\"\r\n\
                     Content-Type: application/javascript+module\r\n\r\nexport default {};\r\n--\r\n\r\n--b\r\n\
                     content-type: application/wasm\r\ncontent-disposition: form-data; name=\"x.wasm\"\r\n\r\n\0\xff\r\n--b--\r\n";
        let modules = vec![
            module("a/index.js", "application/javascript+module", b"export default {};\r\n--\r\n"),
            module("x.wasm", "application/wasm", b"\0\xff"),
        ];
        let content = |main: &str| Ok(Reply::Content { main: Some(main.to_owned()), modules: modules.clone() });
        assert_eq!(read("multipart/form-data; boundary=b", "x.wasm", &body[..]), content("x.wasm"));
        assert_eq!(read("multipart/form-data; boundary=\"b\"", "", &body[..]), content("a/index.js"));
        for end in [body.len() - 6, body.len() / 2, 10, 0] {
            let cut = read("multipart/form-data; boundary=b", "", &body[..end]);
            assert!(matches!(cut, Err(CallError::Unavailable(_))), "{end}: {cut:?}");
        }
        let script = read("application/javascript; charset=utf-8", "", &b"addEventListener()"[..]);
        let modules = vec![module("index.js", "application/javascript", b"addEventListener()")];
        assert_eq!(script, Ok(Reply::Content { main: None, modules }));
    }
}
