//! The files of a folder that are no assets: those with rules, and those that `.assetsignore` names.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::{HEADERS_FILE, IGNORE_FILE, REDIRECTS_FILE};

/// The patterns of a folder's `.assetsignore`, which has the form of a `.gitignore`, in either case of letters.
pub struct Ignored {
    patterns: Gitignore,
    /// Whether there is a `.assetsignore`.
    has_file: bool,
}

impl Ignored {
    /// Reads the patterns; none: the folder has no such file. The error says which line can't be read.
    pub fn new(text: Option<&[u8]>) -> Result<Ignored, String> {
        let mut builder = GitignoreBuilder::new("");
        let unreadable = |error: ignore::Error| error.to_string();
        builder.case_insensitive(true).map_err(unreadable)?;
        for name in [IGNORE_FILE, REDIRECTS_FILE, HEADERS_FILE] {
            builder.add_line(None, &format!("/{name}")).map_err(unreadable)?;
        }
        if let Some(bytes) = text {
            let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
            if text.contains('\0') {
                return Err("it has a null character".to_owned());
            }
            for line in text.strip_prefix('\u{feff}').unwrap_or(text).split('\n') {
                // A line that is no pattern ignores nothing, as for git.
                let _ = builder.add_line(None, line.trim_end_matches('\r'));
            }
        }
        Ok(Ignored { patterns: builder.build().map_err(unreadable)?, has_file: text.is_some() })
    }

    /// Returns whether a folder is ignored with all that is in it. `path`: from the root of the assets, without a `/` before it; the folders
    /// above it aren't ignored.
    pub fn has_folder(&self, path: &str) -> bool {
        self.patterns.matched(path, true).is_ignore()
    }

    /// Returns whether a file is ignored, likewise.
    pub fn has_file(&self, path: &str) -> bool {
        self.patterns.matched(path, false).is_ignore()
    }

    /// Returns whether the folder has a `.assetsignore`.
    pub fn is_written(&self) -> bool {
        self.has_file
    }
}

/// Returns whether a path is that of server code of Cloudflare Pages, which nobody means to publish: wrangler refuses it where there is no
/// `.assetsignore`.
pub fn is_pages_worker(path: &str) -> bool {
    path.starts_with("_worker.js")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_git_without_regard_to_case() {
        let ignored =
            Ignored::new(Some(b"# comment\r\n*.map\nbuild/\n!build/keep.txt\n/only-top\nA?.txt\n\\#x\n")).unwrap();
        let files = [
            ("a.map", true),
            ("deep/a.MAP", true),
            ("only-top", true),
            ("deep/only-top", false),
            ("ab.txt", true),
            ("abc.txt", false),
            ("#x", true),
            (".assetsignore", true),
            ("_headers", true),
            ("deep/_headers", false),
            ("build", false),
        ];
        for (path, expected) in files {
            assert_eq!(ignored.has_file(path), expected, "{path}");
        }
        assert!(ignored.has_folder("build") && ignored.has_folder("deep/build") && !ignored.has_folder("deep"));
        assert!(Ignored::new(Some(b"\xff")).is_err() && Ignored::new(Some(b"a\0")).is_err());
        assert!(!Ignored::new(None).unwrap().is_written());
    }
}
