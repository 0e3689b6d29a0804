//! Tests that the table in docs/reference/bindings.md matches the code. `UPDATE_DOCS=1 cargo test --test integration bindings` regenerates it.

use flotilla_model::binding::{Form, KINDS};

use crate::limits::with;
use crate::support::repository;

#[test]
fn the_documents_table_is_the_codes() {
    let mut table = "| kind | resource | other keys | key in wrangler's file |\n|---|---|---|---|\n".to_owned();
    for kind in KINDS {
        let form = |form| match form {
            Form::OneOf(options) => format!(" ({})", options.join(", ")),
            Form::Texts => " (a list)".to_owned(),
            Form::Count => " (a number)".to_owned(),
            Form::Duration => " (a duration)".to_owned(),
            Form::Object => " (keys and values)".to_owned(),
            Form::True | Form::Text | Form::Pattern(_) => String::new(),
        };
        let more: Vec<String> = kind.fields[1..]
            .iter()
            .map(|field| {
                let optional = if field.is_required { "" } else { ", optional" };
                format!("`{}`{}{optional}", field.key, form(field.form))
            })
            .collect();
        let about = kind.fields[0].about.split(';').next().unwrap_or_default().trim_end_matches('.');
        table += &format!("| `{}` | {about} | {} | `{}` |\n", kind.key(), more.join("; "), kind.wrangler);
    }
    let path = repository().join("docs/reference/bindings.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let current = with(&written, "kinds", &table);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), current, "UPDATE_DOCS=1 regenerates it");
}
