//! Checks that a rendered file matches its name: each is parsed before it is written. Doesn't know where it comes from.

use std::collections::BTreeSet;

use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;

use flotilla_spec::jsonc;

/// A syntax error, with its line and column (from 1) if the parser gives them.
pub type Wrong = (String, Option<(usize, usize)>);

/// Parses a file by its extension. A module must be JavaScript, also where it is called `.ts`: what people review is
/// what is uploaded, without a compiler in between. Other extensions are not parsed.
pub fn check(name: &str, text: &str) -> Result<(), Wrong> {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "ts" | "js" | "mjs" => script(text),
        "json" | "jsonc" => jsonc(text),
        "toml" => toml::from_str::<toml::Table>(text)
            .map(|_| ())
            .map_err(|error| (error.message().to_owned(), error.span().map(|span| position(text, span.start)))),
        _ => Ok(()),
    }
}

fn script(text: &str) -> Result<(), Wrong> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
    match parsed.diagnostics.iter().next() {
        None if !parsed.panicked => Ok(()),
        None => Err(("it is not JavaScript".to_owned(), None)),
        Some(error) => {
            let at = error.labels.first().map(|label| position(text, label.offset() as usize));
            Err((error.message.to_string(), at))
        }
    }
}

/// Returns the names that a module exports; none if it exports what another module has, or isn't JavaScript.
pub fn exports(text: &str) -> Option<BTreeSet<String>> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
    let record = &parsed.module_record;
    let is_known = !parsed.panicked && record.star_export_entries.is_empty();
    is_known.then(|| record.exported_bindings.keys().map(ToString::to_string).collect())
}

fn jsonc(text: &str) -> Result<(), Wrong> {
    match jsonc_parser::parse_to_value(text, &jsonc::OPTIONS) {
        Ok(_) => Ok(()),
        Err(error) => Err((error.kind().to_string(), Some((error.line_display(), error.column_display())))),
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exports_of_a_module_are_known_unless_they_are_another_modules() {
        let names = |text: &str| exports(text).map(|names| names.into_iter().collect::<Vec<_>>());
        let text = "class A {}\nvar b = 1;\nexport { A, b as Flow, A as default };\nexport class C {}";
        assert_eq!(names(text), Some(["A", "C", "Flow", "default"].map(str::to_owned).to_vec()));
        assert_eq!(names("export * from './a.js';"), None);
        assert_eq!(names("export {"), None);
    }

    #[test]
    fn each_language_by_its_extension() {
        assert_eq!(check("a.ts", "export default { a: 1 };"), Ok(()));
        assert_eq!(check("a.jsonc", "{ // c\n \"a\": 1 }"), Ok(()));
        assert_eq!(check("a.toml", "a = { b = \"\\u0000\" }"), Ok(()));
        assert_eq!(check("a.md", "anything"), Ok(()));
        assert_eq!(check("a.ts", "const a = 1;\nconst b = ;").unwrap_err().1, Some((2, 11)));
        assert!(check("a.ts", "const a: string = 'x';").is_err(), "TypeScript only");
        assert_eq!(check("a.jsonc", "{\n \"a\": }").unwrap_err().1.map(|at| at.0), Some(2));
        assert_eq!(check("a.toml", "a = 1\nb = ").unwrap_err().1.map(|at| at.0), Some(2));
    }
}
