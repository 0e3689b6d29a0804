//! `multipart/form-data` (RFC 7578), read without copying. Knows parts; not what is in them.
//!
//! By hand because the whole body is in memory already, and the parts stay slices of it: the libraries that parse forms
//! (`multer`) read a stream, asynchronously, and copy.

use hyper::body::Bytes;
use memchr::memmem;

/// One part of a form.
#[derive(Debug)]
pub struct Part {
    /// Its `name`.
    pub name: String,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its bytes.
    pub body: Bytes,
}

/// The parts of a form.
///
/// # Errors
/// A sentence on what is malformed.
pub fn parts(content_type: &str, body: &Bytes) -> Result<Vec<Part>, String> {
    let boundary = parameter(content_type, "boundary").ok_or("the content type has no boundary")?;
    if boundary.is_empty() || boundary.len() > 200 {
        return Err("the boundary is empty or too long".to_owned());
    }
    let edge = format!("\r\n--{boundary}").into_bytes();
    // The first boundary has no line before it, unless there is a preamble.
    let mut at = match body.starts_with(&edge[2..]) {
        true => edge.len() - 2,
        false => find(body, 0, &edge).ok_or("the body doesn't hold the boundary")? + edge.len(),
    };
    let mut parts = Vec::new();
    while !body[at..].starts_with(b"--") {
        let line = find(body, at, b"\r\n").ok_or("a boundary isn't at the end of its line")?;
        if !body[at..line].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err("a boundary isn't at the end of its line".to_owned());
        }
        let end = find(body, line, &edge).ok_or("the last boundary is missing")?;
        // A part without any header begins with its empty line.
        let head = find(&body[..end], line, b"\r\n\r\n").ok_or("a part has no end of its headers")?;
        let headers = if head > line { &body[line + 2..head] } else { &[] };
        parts.push(part(
            std::str::from_utf8(headers).map_err(|_| "a part's headers aren't UTF-8")?,
            body.slice(head + 4..end),
        )?);
        at = end + edge.len();
    }
    Ok(parts)
}

fn part(headers: &str, body: Bytes) -> Result<Part, String> {
    let header = |wanted: &str| {
        let mut lines = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let name = header("content-disposition").and_then(|value| parameter(value, "name")).ok_or("a part has no name")?;
    Ok(Part { name, content_type: header("content-type").map(ToOwned::to_owned), body })
}

/// A parameter of a header's value: `name="a; b"` or `name=a`. Browsers and fetch write a quote in it as `%22`, curl
/// as `\"`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let mut text = String::new();
        if let Some(quoted) = after.trim_start().strip_prefix('"') {
            let mut letters = quoted.chars();
            loop {
                match letters.next()? {
                    '"' => break,
                    '\\' => text.push(letters.next()?),
                    letter => text.push(letter),
                }
            }
            rest = letters.as_str();
            text = text.replace("%22", "\"");
        } else {
            let end = after.find(';').unwrap_or(after.len());
            after[..end].trim().clone_into(&mut text);
            rest = &after[end..];
        }
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = rest.split_once(';')?.1;
    }
}

/// Returns where `needle` begins in `hay`, at `from` or later.
fn find(hay: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    Some(from + memmem::find(hay.get(from..)?, needle)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Result<Vec<(String, Option<String>, String)>, String> {
        let text = |part: Part| (part.name, part.content_type, String::from_utf8(part.body.to_vec()).unwrap());
        Ok(parts(kind, &Bytes::copy_from_slice(body.as_bytes()))?.into_iter().map(text).collect())
    }

    #[test]
    fn forms_are_read() {
        let body = "preamble\r\n--e d \r\nContent-Disposition: form-data; filename=\"f;=.js\"; name=\"a/%22b.js\"\r\ncontent-type:text/plain\r\n\r\n\
                    one\r\n--e \r\n--e d\r\ncontent-disposition: form-data; name=plain\r\n\r\n\r\n--e d--\r\nepilogue";
        let expect = [
            ("a/\"b.js".to_owned(), Some("text/plain".to_owned()), "one\r\n--e ".to_owned()),
            ("plain".to_owned(), None, String::new()),
        ];
        assert_eq!(read("multipart/form-data; charset=x; boundary=\"e d\"", body).unwrap(), expect);
        assert_eq!(read("multipart/form-data; boundary=e", "--e--").unwrap(), []);
    }

    #[test]
    fn broken_forms_are_refused() {
        let kind = "multipart/form-data; boundary=e";
        for body in [
            "",
            "x",
            "--e",
            "--e\r\n",
            "--e\r\n\r\nx",
            "--ex\r\n\r\nx\r\n--e--",
            "--e\r\nno: name\r\n\r\nx\r\n--e--",
            "--e\r\ncontent-disposition: form-data; name=\"a\r\n\r\nx\r\n--e--",
        ] {
            assert!(read(kind, body).is_err(), "{body:?}");
        }
        assert!(read("multipart/form-data", "--e--").is_err());
    }
}
