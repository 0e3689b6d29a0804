//! Secrets that are written into a project's code. They are deployed with the code, where everybody who can read a worker's script sees
//! them. Looks at sources as text, without their comments.

use std::path::Path;

use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;

use flotilla_model::credential;
use flotilla_model::diagnostic::Place;
use flotilla_model::plain_file;
use flotilla_spec::pack::relative;

use super::super::Findings;

/// The maximum number of files that are looked at, and the maximum size of one, in bytes.
const MAX_FILES: usize = 2_000;
const MAX_BYTES: u64 = 1 << 20;
/// The extensions of sources.
const SOURCES: [&str; 8] = ["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs"];

/// Reports the secrets in a worker's entry point and in the sources beside and below it.
pub(super) fn report(root: &Path, main: &Path, findings: &mut Findings) {
    let Some(folder) = main.parent() else { return };
    let (mut open, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = open.pop().filter(|_| files.len() < MAX_FILES) {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (Ok(kind), name) = (entry.file_type(), entry.file_name()) else { continue };
            let name = name.to_string_lossy();
            if name.starts_with('.') || name == "node_modules" {
                continue;
            }
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && SOURCES.contains(&extension) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    for path in files {
        let Ok(bytes) = plain_file::read(&path, MAX_BYTES) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let file = relative(root, &path);
        if let Some(line) = line_with_secret(&file, &text) {
            let place = Place { file, line, column: 1, width: 1 };
            let help = "read it from `env` as a secret, and have a new one issued";
            findings.credential(place, "the code contains a secret", help);
        }
    }
}

/// Returns the number of the first line with a secret outside comments.
fn line_with_secret(file: &str, text: &str) -> Option<usize> {
    // Most files have nothing that looks like one, and aren't parsed.
    credential::line(text)?;
    let allocator = Allocator::default();
    let source = SourceType::from_path(file).unwrap_or_default();
    let parsed = Parser::new(&allocator, text, source).parse();
    let mut bytes = text.as_bytes().to_vec();
    for comment in &parsed.program.comments {
        let span = comment.span.start as usize..comment.span.end as usize;
        bytes[span].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    credential::line(&String::from_utf8_lossy(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_comments_and_placeholders_are_no_secrets() {
        for text in [
            "const pem = body.replace(\"-----BEGIN PRIVATE KEY-----\", \"\");",
            "// https://user:password@host/repository.git ghp_0123456789abcdefghijklmnop\nconst a = 1;",
            "/* postgres://app:hunter2@db.example/app\n */ const a = `https://reader:${token}@${host}/x.git`;",
            "const example = \"https://<user>:<password>@host\";",
            "const key = \"sk_live_xxxxxxxxxxxxxxxxxxxx\";",
        ] {
            assert_eq!(line_with_secret("a.ts", text), None, "{text}");
        }
        for (text, line) in [
            ("const a = 1;\nconst key = 'ghp_0123456789abcdefghijklmnop';", 2),
            ("const url = \"postgres://app:hunter2@db.example/app\";", 1),
            (
                "// a\nconst pem = `-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n`;",
                2,
            ),
        ] {
            assert_eq!(line_with_secret("a.ts", text), Some(line), "{text}");
        }
    }
}
