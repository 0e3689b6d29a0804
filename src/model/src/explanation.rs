//! The explanation of each code: its meaning, why it matters, a wrong and a right example, and how to fix it: the
//! sections of docs/reference/diagnostics.md. Doesn't know how they are shown.

use serde::Serialize;

use crate::diagnostic::{Code, Severity};

/// The page that holds a section for each code.
const PAGE: &str = include_str!("../../../docs/reference/diagnostics.md");

/// The path of the page, from the repository's root.
pub const PATH: &str = "docs/reference/diagnostics.md";

/// The section of a code.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The code.
    pub code: Code,
    /// The severity, unless fleet.yaml sets another.
    pub severity: Severity,
    /// Its meaning.
    pub meaning: String,
    /// The reason why it matters.
    pub why: String,
    /// Files that give it, if a few lines can.
    pub wrong: Vec<Example>,
    /// The same files without it.
    pub right: Vec<Example>,
    /// The way to fix it.
    pub fix: String,
    /// The section as it is written, without its heading.
    #[serde(skip)]
    pub markdown: &'static str,
}

/// One file of an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Its path from the project's root.
    pub file: &'static str,
    /// The whole text.
    pub text: &'static str,
}

/// Returns the section of a code.
pub fn explanation(code: Code) -> Explanation {
    let (_, markdown) = sections().find(|(name, _)| *name == code.as_str()).expect("BUG: each code has a section");
    let (before, fix) = markdown.split_once("**Fix:**").expect("BUG: a section says how to fix it");
    let (before, right) = before.split_once("\nRight:\n").unwrap_or((before, ""));
    let (before, wrong) = before.split_once("\nWrong:\n").unwrap_or((before, ""));
    let (meaning, why) = before.split_once("**Why:**").expect("BUG: a section says why");
    Explanation {
        code,
        severity: code.severity(),
        meaning: one_line(meaning),
        why: one_line(why),
        wrong: examples(wrong),
        right: examples(right),
        fix: fix.trim().to_owned(),
        markdown: markdown.trim(),
    }
}

/// Returns the page's sections: the code in the heading, and what follows.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'))
}

/// Returns a paragraph, whose lines end where the page is wide.
fn one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the fenced blocks of a text; the first line of each is a comment with the file's path.
fn examples(text: &'static str) -> Vec<Example> {
    text.split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| {
            let (_, text) = block.split_once('\n')?;
            let comment = text.lines().next()?;
            Some(Example { file: comment.trim_matches(['#', '/', '{', '}', ' ']), text })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_a_section_and_there_are_no_others() {
        let listed: Vec<&str> = sections().map(|(name, _)| name).collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(listed, codes, "docs/reference/diagnostics.md has the codes in the order of `diagnostic`");
    }

    #[test]
    fn sections_are_whole() {
        for code in Code::ALL {
            let Explanation { meaning, why, wrong, right, fix, markdown, .. } = explanation(*code);
            assert_eq!(meaning, code.meaning(), "{code}: the page says another meaning than the code's comment");
            assert!(why.ends_with(['.', ':']) && fix.len() > 10, "{code}: {why:?} {fix:?}");
            assert_eq!(wrong.is_empty(), right.is_empty(), "{code}: a wrong example has a right one");
            assert_eq!(markdown.matches("```").count() % 2, 0, "{code}");
            for Example { file, .. } in wrong.iter().chain(&right) {
                let folder =
                    ["customers/", "layers/", "templates/", "fleet.yaml"].iter().any(|folder| file.starts_with(folder));
                assert!(folder, "{code}: the first line of an example is its path, not {file:?}");
            }
        }
    }
}
