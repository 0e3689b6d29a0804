//! Journals of changes that are undone.

use super::*;

use std::os::unix::fs::symlink;

/// Begins with a key that is beside the project, as a user's.
fn begin(root: &Path) -> (Undo, Remains) {
    Undo::begin(root, Some(key(root)), "new acme", 7).unwrap()
}

fn key(root: &Path) -> UserKey {
    UserKey::of(&root.with_extension("cache")).unwrap()
}

fn project(folder: &tempfile::TempDir) -> PathBuf {
    let root = folder.path().canonicalize().unwrap().join("project");
    fs::create_dir(&root).unwrap();
    root
}

#[track_caller]
fn journal(remains: Remains) -> Journal {
    match remains {
        Remains::Journal(journal) => journal,
        other => panic!("{other:?}"),
    }
}

fn nothing(_: &CreatedDatabase) -> Result<(), String> {
    panic!("there is no database")
}

#[test]
fn files_and_folders_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    let at = |name: &str| root.join(name);
    fs::write(at("a"), "old\r\n").unwrap();
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let (mut undo, left) = begin(root);
    assert!(matches!(left, Remains::Nothing) && undo.is_empty());
    undo.write(&at("a"), b"new").unwrap();
    undo.write(&at("b/c/d"), b"new").unwrap();
    undo.write(&at("a"), b"newer").unwrap();
    assert_eq!(fs::read(at("a")).unwrap(), b"newer");
    assert_eq!(undo.roll_back(&mut nothing), []);
    assert_eq!(fs::read(at("a")).unwrap(), b"old\r\n");
    assert_eq!(fs::metadata(at("a")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(!at("b").exists() && !at(FOLDER).exists());
    // And what is kept is kept.
    undo.write(&at("a"), b"new").unwrap();
    undo.commit().unwrap();
    assert_eq!(undo.roll_back(&mut nothing), []);
    assert_eq!(fs::read(at("a")).unwrap(), b"new");
    assert!(!at(FOLDER).exists());
}

#[test]
fn what_a_killed_process_left_is_told_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    let at = |name: &str| root.join(name);
    fs::write(at("a"), "old").unwrap();
    let made = CreatedDatabase { account_id: "account".to_owned(), name: "acme".to_owned(), id: Some("id".to_owned()) };
    {
        let (mut undo, _) = begin(root);
        undo.note_database(CreatedDatabase { id: None, ..made.clone() }).unwrap();
        undo.note_database(made.clone()).unwrap();
        undo.write(&at("a"), b"new").unwrap();
        undo.write(&at("b"), b"new").unwrap();
        // Here it dies.
    }
    let (mut undo, left) = begin(root);
    let left = journal(left);
    assert_eq!((left.what.as_str(), left.at, left.accounts()), ("new acme", 7, vec!["account"]));
    assert_eq!(left.descriptions(), ["b was created", "a was changed", "the D1 database acme was created"]);
    fs::write(at("b"), "somebody else's").unwrap();
    let leftovers = undo.roll_back(&mut |there| {
        assert_eq!(*there, made);
        Err("no network".to_owned())
    });
    assert_eq!(leftovers.len(), 2, "{leftovers:?}");
    assert_eq!(
        (fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap()),
        (b"old".to_vec(), b"somebody else's".to_vec())
    );
    drop(undo);
    // Anything that could not be removed is tried again the next time.
    let (mut undo, left) = begin(root);
    assert_eq!(journal(left).descriptions(), ["b was created", "the D1 database acme was created"]);
    fs::remove_file(at("b")).unwrap();
    assert_eq!(undo.roll_back(&mut |_| Ok(())), []);
    drop(undo);
    assert!(matches!(begin(root).1, Remains::Nothing));
}

#[test]
fn two_at_once_are_one_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    let (_first, _) = begin(root);
    let second = Undo::begin(root, None, "edit", 8).err().unwrap();
    assert_eq!(second.exit, flotilla_model::failure::Exit::Refused);
}

/// Everything below a folder, but flotilla's own, with contents.
fn contents(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        all.push((path.clone(), fs::read(&path).ok()));
        if entry.file_type().unwrap().is_dir() && entry.file_name() != ".flotilla" {
            all.extend(contents(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn a_journal_that_this_user_did_not_write_undoes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "somebody's").unwrap();
    fs::create_dir_all(root.join(".git/hooks")).unwrap();
    fs::write(root.join("fleet.yaml"), "name: test").unwrap();
    plain_file::create_folder(&root.join(FOLDER)).unwrap();
    fs::write(root.join(FOLDER).join("0"), "#!/bin/sh\ntouch /tmp/hacked").unwrap();
    let digest = Digest::of(b"#!/bin/sh\ntouch /tmp/hacked");
    let file = |path: &str, kept: bool| Step::File {
        path: path.to_owned(),
        kept: kept.then_some(Copy { number: 0, digest, mode: 0o755 }),
        written: None,
        folders: 9,
    };
    let database = Step::Database(CreatedDatabase {
        account_id: "0".repeat(32),
        name: "production".to_owned(),
        id: Some("1".to_owned()),
    });
    let absolute = outside.join("file").display().to_string();
    let mut steps = vec![database, file("fleet.yaml", false)];
    for path in [
        &absolute,
        "../outside/file",
        "a/../../outside/file",
        ".git/hooks/pre-commit",
        ".GIT/hooks/x",
        ".flotilla/state.db",
    ] {
        steps.extend([file(path, true), file(path, false)]);
    }
    let other = UserKey::of(&folder.path().join("another user")).unwrap();
    let _ = key(root);
    let before = contents(folder.path());
    for step in steps {
        let text =
            serde_json::to_string(&Journal { what: "new acme".to_owned(), at: 7, steps: vec![step.clone()] }).unwrap();
        let elsewhere = key(root).seal(PURPOSE, Path::new("/elsewhere"), &text);
        let path = root.join(FOLDER).join(JOURNAL);
        let planted = [
            format!("{FORMAT} {}\n{text}", other.seal(PURPOSE, root, &text)),
            format!("{FORMAT} {elsewhere}\n{text}"),
            format!("{FORMAT} -\n{text}"),
            format!("{FORMAT} \n{text}"),
            format!("{{\"version\":1,{}", &text[1..]),
            text.clone(),
            format!("{FORMAT} {}\n{text} ", key(root).seal(PURPOSE, root, &text)),
        ];
        for bytes in planted {
            for key in [Some(key(root)), None] {
                plain_file::create_folder(&root.join(FOLDER)).unwrap();
                fs::write(&path, &bytes).unwrap();
                let (mut undo, remains) = Undo::begin(root, key, "new acme", 7).unwrap();
                assert!(matches!(remains, Remains::Untrusted(_)), "{remains:?} of {bytes}");
                assert_eq!(undo.roll_back(&mut nothing), [], "{bytes}");
            }
            plain_file::create_folder(&root.join(FOLDER)).unwrap();
            fs::write(root.join(FOLDER).join("0"), "#!/bin/sh\ntouch /tmp/hacked").unwrap();
        }
        // Even with a seal, nothing outside the project or in a folder of git's is touched.
        if let Step::File { path: name, .. } = &step
            && name != "fleet.yaml"
        {
            fs::write(&path, format!("{FORMAT} {}\n{text}", key(root).seal(PURPOSE, root, &text))).unwrap();
            match begin(root) {
                (mut undo, Remains::Journal(_)) => assert_eq!(undo.roll_back(&mut nothing).len(), 1),
                (_, Remains::Untrusted(why)) => assert!(why.contains(name.as_str()), "{why}"),
                (_, Remains::Nothing) => panic!("{name}"),
            }
        }
        let _ = fs::remove_file(&path);
        plain_file::create_folder(&root.join(FOLDER)).unwrap();
        fs::write(root.join(FOLDER).join("0"), "#!/bin/sh\ntouch /tmp/hacked").unwrap();
    }
    let after = contents(folder.path());
    assert_eq!(after, before);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"somebody's");
    assert_eq!(fs::read(root.join("fleet.yaml")).unwrap(), b"name: test");
}

#[test]
fn copies_and_places_that_were_changed_are_not_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    let at = |name: &str| root.join(name);
    fs::write(at("a"), "old").unwrap();
    fs::write(folder.path().join("outside"), "somebody's").unwrap();
    begin(root).0.write(&at("a"), b"new").unwrap();
    fs::write(at(".flotilla/undo/0"), "foreign").unwrap();
    let (mut undo, _) = begin(root);
    let left = undo.roll_back(&mut nothing);
    assert!(left[0].what.contains("its copy is lost or was edited"), "{left:?}");
    assert_eq!(fs::read(at("a")).unwrap(), b"new");
    drop(undo);
    // Its place is outside the project by now.
    fs::remove_file(at("a")).unwrap();
    symlink("../outside", at("a")).unwrap();
    let left = begin(root).0.roll_back(&mut nothing);
    assert!(left[0].what.contains("a was not changed"), "{left:?}");
    assert_eq!(fs::read(folder.path().join("outside")).unwrap(), b"somebody's");
}

#[test]
fn what_is_outside_is_put_back_by_the_process_that_wrote_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    let outside = folder.path().canonicalize().unwrap().join("secrets.env");
    fs::write(&outside, "old").unwrap();
    let (mut undo, _) = begin(root);
    undo.write(&outside, b"new").unwrap();
    assert_eq!(undo.roll_back(&mut nothing), []);
    assert_eq!(fs::read(&outside).unwrap(), b"old");
    undo.write(&outside, b"new").unwrap();
    drop(undo);
    let left = begin(root).0.roll_back(&mut nothing);
    assert!(left[0].what.ends_with("is outside the project and was not changed"), "{left:?}");
    assert!(left[0].hint.contains(".flotilla/undo/"), "{left:?}");
    assert_eq!(fs::read(&outside).unwrap(), b"new");
}

#[test]
fn the_folder_is_private_and_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let root = &project(&folder);
    fs::write(root.join("a"), "old").unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o644)).unwrap();
    begin(root).0.write(&root.join("a"), b"new").unwrap();
    for (name, mode) in [("", 0o700), ("/0", 0o600), ("/journal.json", 0o600)] {
        let found = fs::metadata(root.join(format!("{FOLDER}{name}"))).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(root.join(FOLDER), &elsewhere).unwrap();
    symlink(&elsewhere, root.join(FOLDER)).unwrap();
    let refused = Undo::begin(root, Some(key(root)), "new acme", 7).err().unwrap();
    assert!(refused.to_string().contains(".flotilla/undo is a symbolic link"), "{refused}");
}
