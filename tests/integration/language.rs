//! Tests that the documentation, the descriptions in the schemas, the program's help, its messages and the comments are written in the
//! terms of their field: a list of phrases that read as if translated, each with what to write instead. Inline code isn't prose and is
//! not checked.

use serde_json::Value;

use crate::documented::{commands, name, pages, text};
use crate::support::{Project, repository};

/// The phrases, in lower case, and what to write in their place. `*` at the end stands for the rest of a word.
const PHRASES: &[(&str, &str)] = &[
    // Errors and fixes.
    ("mend*", "fix"),
    ("mistake*", "error, or warning"),
    ("how bad", "severity"),
    ("puts right", "fixes"),
    ("puts it right", "fixes it"),
    ("put right", "fix"),
    ("has not the right form", "is invalid: expected …"),
    ("the form which it must have", "the expected format"),
    // A program prints, reports and shows.
    ("is told", "is reported"),
    ("are told", "are reported"),
    ("isn't told", "isn't reported"),
    ("told where", "reported with its location"),
    ("tells of", "reports"),
    ("tell of", "report"),
    ("tells how", "shows how"),
    ("says what", "shows what"),
    ("says why", "shows why"),
    ("says who", "names who"),
    ("says so", "reports it, or allows it"),
    ("say so", "report it, or configure it"),
    ("said so", "reported it"),
    ("as the failure says", "as the failure shows"),
    ("what came of", "the outcome of"),
    ("look at what is there", "read what is deployed, or check ownership"),
    ("is said as", "is selected as"),
    ("who is in it", "select customers"),
    ("say who holds", "show who holds"),
    ("tell a deploy", "control a deploy"),
    ("asks the cloud", "reads from Cloudflare"),
    ("ask the cloud", "read from Cloudflare"),
    ("ask no cloud", "make no requests to Cloudflare"),
    ("ask deployed workers", "check deployed workers"),
    ("don't ask whether", "skip the confirmation"),
    ("is asked by", "is requested by"),
    // Where something is.
    ("stands in", "is in"),
    ("stand in", "are in"),
    ("stands under", "is under"),
    ("stand under", "are under"),
    ("where it stands", "its location"),
    ("stands beside", "is next to"),
    ("lies in", "is in"),
    ("lie in", "are in"),
    ("belongs into", "belongs in"),
    ("belong into", "belong in"),
    ("outside of", "outside"),
    ("beside the others", "next to the others"),
    ("is nowhere", "is not found"),
    ("whose they are", "the customer that they belong to"),
    // Up to date.
    ("as they should be", "up to date"),
    ("as it should be", "valid, or healthy"),
    ("left undone", "pending"),
    ("on record", "in the state"),
    ("the record right", "the state"),
    ("anew", "again; rebuild, recreate"),
    ("what becomes of", "what to do with"),
    ("what builds remember", "the build cache"),
    ("builds remember", "the build cache has"),
    ("nothing is remembered", "it is not in the build cache"),
    ("nobody remembers", "the build cache doesn't have"),
    ("so that nothing counts as", "so it is shown as not"),
    ("made otherwise", "changed since"),
    ("otherwise than", "differently than"),
    ("bundled otherwise", "bundled differently"),
    ("is other than", "differs from"),
    ("are other than", "differ from"),
    ("what differs between two", "the differences between two"),
    ("counts as gone", "counts as removed"),
    ("who is gone", "that was removed"),
    ("what others changed", "drift"),
    ("changed by others", "changed outside flotilla"),
    ("what nobody owns", "what is orphaned"),
    ("nobody owns", "no spec defines"),
    ("no spec owns", "no spec defines"),
    ("what no spec wants", "what no spec defines"),
    // People and programs.
    ("by a dialogue", "interactively"),
    ("a dialogue", "interactively"),
    ("dialogues", "prompts"),
    ("by options", "with flags"),
    ("or by options", "or with flags"),
    ("nobody is there", "stdin is not a terminal"),
    ("for who deploys", "for people who deploy"),
    ("for who", "for people who"),
    ("with who", "with the people who"),
    ("by who", "by the person who"),
    ("of who", "of people who"),
    ("than who", "than the person who"),
    ("of whom", "of which, or whose"),
    ("whoever", "anyone who"),
    ("what it wants", "what it requires"),
    ("it wants", "it requires"),
    ("deploy wants", "deploy requires"),
    ("the real one wants", "Cloudflare requires"),
    ("wants one of these", "requires one of these"),
    ("is demanded", "is required"),
    ("as many as may", "the failure limit is reached"),
    ("at the most", "at most"),
    ("so many", "the number of"),
    ("after so many", "the days after which"),
    ("it is open which", "none is selected"),
    ("is the whole story", "covers this in full"),
    ("all is well", "everything is healthy"),
    ("is well", "is healthy"),
    ("are well", "are healthy"),
    ("not well", "unhealthy"),
    ("is sick", "is unhealthy"),
    ("goes on", "continues"),
    ("go on", "continue, or resume"),
    ("on it goes", "continues"),
    ("goes back if", "is rolled back if"),
    ("begin a project", "create a project"),
    ("for ever", "forever"),
    ("until when", "expiry"),
    ("once more, for a while", "temporarily"),
    ("for a while, under", "temporarily, under"),
    // Hosts.
    ("leads to workers", "points to workers"),
    ("lead to workers", "point to workers"),
    ("leads to the worker", "points to the worker"),
    ("leads to a worker", "points to a worker"),
    ("leads to it", "points to it"),
    ("lead to it", "point to it"),
    ("a host leads", "a host points"),
    ("host leads", "host points"),
    ("leads nowhere", "points to nothing"),
    ("lead nowhere", "point to nothing"),
    ("lead to nothing", "point to nothing"),
    // The local emulator.
    ("a cloudflare on this machine", "the local Cloudflare emulator"),
    ("the cloudflare on this machine", "the local emulator"),
    ("cloudflare on this machine", "local Cloudflare emulator"),
    // Ownership.
    ("the fleet's that isn't", "a worker that this fleet doesn't manage"),
    ("isn't this fleet's", "isn't managed by this fleet"),
    ("that isn't the fleet's", "that this fleet doesn't manage"),
    ("make a worker the fleet's", "adopt a worker"),
    ("takes it over, unless", "adopts it, unless"),
    ("is not this fleet's", "is not managed by this fleet"),
    ("makes it this fleet's", "adopts it"),
    ("becomes this fleet's", "is adopted"),
    ("not ours", "not managed by this fleet"),
    ("no spec wants", "no spec defines"),
    ("a spec wants", "a spec defines"),
    // Grammar.
    ("an own", "its own"),
    ("own worker and an own", "own worker and database"),
    ("nothing is computed", "there are no expressions"),
    ("a comment nobody", "a changed comment selects none"),
    ("of more than 20", "if there are more than 20"),
    ("since when and what", "the start time and the command"),
    ("don't wait for each other", "are limited independently"),
    ("come from somewhere", "are generated"),
    ("another word, such as", "any other name, such as"),
    ("look what it needs", "review it"),
    ("would go with the upload", "would be removed by the upload"),
    ("what a spec can't say", "anything a spec cannot express"),
    ("a spec can't say", "a spec can't express"),
    ("specs can't say", "specs can't express"),
    ("is up to specs", "comes from the specs"),
    ("that no pull request comes from", "that doesn't come from a pull request"),
    ("is run by the tests", "is covered by tests"),
    ("are run by the tests", "are covered by tests"),
    ("the cause was not measured", "we have not measured why"),
    ("is not there for that customer", "is removed for the customer"),
    ("by itself, the same", "the same"),
    ("near to", "close to"),
    ("name, for people", "display name"),
    ("perhaps with who", "optionally with reviewers"),
    ("never put it into git", "don't commit it"),
    ("put it into git", "commit it"),
    ("all of it into git", "commit all of it"),
    ("it is new, or nothing", "new, or not in the build cache"),
    ("has gone wrong", "failed"),
    ("once more", "again"),
    ("anyhow", "anyway"),
    ("into quotes", "in quotes"),
    ("exists already", "already exists"),
    ("used already", "already used"),
    ("has not the", "doesn't have the"),
    ("if need be", "optionally"),
    ("if it is meant", "if this is intended"),
    ("does not parse", "can't be parsed"),
    ("doesn't parse", "can't be parsed"),
    ("plain file", "regular file"),
    ("plain files", "regular files"),
    ("the most bytes", "the maximum size, in bytes"),
    ("most bytes of", "maximum size, in bytes, of"),
    ("in silence", "silently"),
    ("without a word", "silently"),
    ("in the clear", "unencrypted"),
    ("in clear", "in plain text"),
    ("come about", "happen, or succeed"),
    ("comes about", "happens, or succeeds"),
    ("done away with", "no longer supported"),
    ("is of no consequence", "doesn't matter"),
    ("take it back", "revert it"),
    ("more than flotilla reads", "over the size limit"),
    ("longer than flotilla reads", "over the size limit"),
    ("last sign of life", "the time when the lock was last renewed"),
];

/// Returns a text in lower case, without inline code, and with one space where it has several or a new line.
fn prose(text: &str) -> String {
    let without: String = text.split('`').step_by(2).collect::<Vec<_>>().join("`");
    without.to_lowercase().replace('’', "'").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the phrases that a text contains as whole words, each with some of its surroundings.
fn found(text: &str) -> Vec<String> {
    let text = prose(text);
    let mut found = Vec::new();
    for (phrase, instead) in PHRASES {
        let (phrase, is_open) = phrase.strip_suffix('*').map_or((*phrase, false), |start| (start, true));
        for (at, _) in text.match_indices(phrase) {
            let end = at + phrase.len();
            let begins = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-' || c == '\'');
            let ends = is_open || !text[end..].starts_with(|c: char| c.is_alphanumeric() || c == '\'');
            if begins && ends {
                let start = text[..at].char_indices().rev().nth(30).map_or(0, |(start, _)| start);
                let stop = text[end..].char_indices().nth(30).map_or(text.len(), |(stop, _)| end + stop);
                found.push(format!("\"{phrase}\" in \"…{}…\": write \"{instead}\"", &text[start..stop]));
            }
        }
    }
    found
}

fn check(texts: impl IntoIterator<Item = (String, String)>, at_least: usize) {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (place, text) in texts {
        seen += 1;
        wrong.extend(found(&text).into_iter().map(|found| format!("{place}: {found}")));
    }
    assert!(wrong.is_empty(), "{} phrases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen >= at_least, "only {seen} texts seen");
}

#[test]
fn pages_have_no_translated_phrases() {
    check(pages().iter().map(|page| (name(page), text(page))), 30);
}

#[test]
fn packaging_has_no_translated_phrases() {
    let pages = ["packaging/README.md", "packaging/npm/README.md"].map(|page| repository().join(page));
    check(pages.iter().map(|page| (name(page), text(page))), 2);
}

/// The golden cases show most messages of the program.
#[test]
fn messages_have_no_translated_phrases() {
    let cases = std::fs::read_dir(repository().join("tests/cases")).expect("the cases").flatten();
    let outputs = cases.flat_map(|case| ["stdout", "stderr"].map(|output| case.path().join(output)));
    check(outputs.filter(|path| path.is_file()).map(|path| (name(&path), text(&path))), 400);
}

#[test]
fn comments_have_no_translated_phrases() {
    let mut comments = Vec::new();
    let mut open = vec![repository().join("src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            blocks(&text(&path), &name(&path), &mut comments);
        }
    }
    check(comments, 5_000);
}

/// Collects the comments of a source: each block of lines as one text, as phrases go over the ends of lines.
fn blocks(source: &str, file: &str, comments: &mut Vec<(String, String)>) {
    let mut block = String::new();
    for (index, line) in source.lines().chain([""]).enumerate() {
        match line.trim_start().strip_prefix("//") {
            Some(comment) => block += &format!("{}\n", comment.trim_start_matches(['/', '!'])),
            None if block.is_empty() => {}
            None => comments.push((format!("{file}, above line {}", index + 1), std::mem::take(&mut block))),
        }
    }
}

#[test]
fn the_recorded_session_has_no_translated_phrases() {
    let svg = text(&repository().join("docs/start.svg"));
    let lines = svg.lines().filter(|line| line.starts_with("<text"));
    let plain = lines.map(|line| line.split('<').filter_map(|part| Some(part.split_once('>')?.1)).collect::<String>());
    check(plain.enumerate().map(|(index, line)| (format!("docs/start.svg, line {}", index + 1), line)), 10);
}

#[test]
fn help_has_no_translated_phrases() {
    let project = Project::empty();
    check(
        commands(&project).into_iter().map(|path| {
            let words: Vec<&str> = path.iter().map(String::as_str).collect();
            let help = project.run(&[&words[..], &["--help"]].concat()).exits(0).stdout;
            (format!("flotilla {} --help", path.join(" ")), help)
        }),
        30,
    );
}

#[test]
fn schemas_have_no_translated_phrases() {
    let mut texts = Vec::new();
    for schema in ["customer", "fleet", "layer", "pack"] {
        let path = format!("schema/{schema}.schema.json");
        let value: Value = serde_json::from_str(&text(&repository().join(&path))).expect("a schema");
        describe(&value, &path, &mut texts);
    }
    check(texts, 200);
}

/// Collects the descriptions in a schema.
fn describe(value: &Value, place: &str, texts: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => texts.push((place.to_owned(), text.clone())),
                    value => describe(value, &format!("{place}/{key}"), texts),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| describe(item, place, texts)),
        _ => {}
    }
}

#[test]
fn phrases_are_found_in_comments() {
    let mut comments = Vec::new();
    blocks("/// It is mended\n/// for ever.\nfn a() {}\n    // A good comment.\n", "a.rs", &mut comments);
    let [(place, text), (_, good)] = &comments[..] else { panic!("{comments:?}") };
    assert_eq!((place.as_str(), found(text).len(), found(good).len()), ("a.rs, above line 3", 2, 0));
}

#[test]
fn phrases_are_found_as_whole_words() {
    assert_eq!(found("Append, amend and recommend `mend` it; a good answer.").len(), 0, "{:?}", found("Append"));
    for text in ["Mend it.", "it was mended", "one\n  mistake", "What's left undone."] {
        assert_eq!(found(text).len(), 1, "{text}");
    }
}
