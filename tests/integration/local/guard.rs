//! The emulator's own endpoints: who gets an answer. Web pages get none, whatever name they reach it under; the operations that only the
//! emulator has want its own token.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use flotilla_local::{TOKEN_FILE, own_token};
use serde_json::{Value, json};

use super::client::{ACCOUNT, Local, local};
use crate::folders::temporary_folder;

/// A request as it is on the wire; the status and the body of its answer.
fn wire(local: &Local, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(local.running.as_ref().unwrap().address()).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn guarded() -> Local {
    local(|options| options.token = Some("0123456789abcdef0123456789abcdef".to_owned()))
}

const OWN: (&str, &str) = ("authorization", "Bearer 0123456789abcdef0123456789abcdef");

/// One endpoint of each kind.
fn endpoints() -> [(&'static str, String); 5] {
    [
        ("GET", format!("/client/v4/accounts/{ACCOUNT}/workers/scripts")),
        ("GET", "/client/v4/user/tokens/verify".to_owned()),
        ("GET", "/__local/requests".to_owned()),
        ("GET", "/__local/faults".to_owned()),
        ("GET", "/".to_owned()),
    ]
}

#[test]
fn only_this_machine_s_names_reach_it() {
    let local = guarded();
    for (method, path) in endpoints() {
        for host in ["localhost", "LOCALHOST:8787", "127.0.0.1", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:8787"] {
            let (status, body) = wire(&local, method, &path, &[("host", host), OWN], "");
            assert_eq!(status, 200, "{path} {host}: {body}");
        }
        // What a page can make its browser send once its own name leads here.
        let foreign = [
            "evil.example",
            "evil.example:8787",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "",
        ];
        for host in foreign {
            let (status, body) = wire(&local, method, &path, &[("host", host), OWN], "");
            assert_eq!(status, 421, "{path} {host}: {body}");
        }
        assert!(matches!(wire(&local, method, &path, &[OWN], "").0, 400 | 421), "{path}: no host at all");
    }
    // There is no way around it by the path.
    for path in ["//client/v4/accounts", "/client/v4/../v4/accounts", "/%63lient/v4/accounts", "/workers/x/"] {
        let (status, body) = wire(&local, "GET", path, &[("host", "evil.example"), OWN], "");
        assert!(matches!(status, 404 | 421), "{path}: {status} {body}");
    }
}

#[test]
fn pages_get_no_answer() {
    let local = guarded();
    for (method, path) in endpoints() {
        for origin in
            ["http://evil.example", "null", "http://localhost:3000", "http://a.localhost:8787", "http://127.0.0.1:8787"]
        {
            let (status, body) = wire(&local, method, &path, &[("host", "127.0.0.1"), OWN, ("origin", origin)], "");
            assert_eq!(status, 403, "{path} {origin}: {body}");
        }
        for site in ["cross-site", "same-site", "same-origin"] {
            let headers = [("host", "127.0.0.1"), OWN, ("sec-fetch-site", site), ("sec-fetch-mode", "cors")];
            assert_eq!(wire(&local, method, &path, &headers, "").0, 403, "{path} {site}");
        }
        let typed = [("host", "127.0.0.1"), OWN, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")];
        assert_eq!(wire(&local, method, &path, &typed, "").0, 200, "{path}: a person typed it");
    }
}

#[test]
fn its_own_token_is_required() {
    let local = guarded();
    for (method, path) in endpoints().into_iter().filter(|(_, path)| path != "/") {
        for token in ["", "Bearer local", "Bearer 0123456789abcdef0123456789abcdee", "0123456789abcdef0123456789abcdef"]
        {
            let (status, body) = wire(&local, method, &path, &[("host", "localhost"), ("authorization", token)], "");
            assert!(matches!(status, 400 | 401 | 403), "{path} {token}: {status} {body}");
            assert!(!body.contains("\"success\":true"), "{body}");
        }
    }
    // Others are accepted by the API if they were named, and never by what is the emulator's alone.
    let local = self::local(|options| {
        options.token = Some("0123456789abcdef0123456789abcdef".to_owned());
        options.tokens = vec!["other".to_owned()];
    });
    for token in [OWN.1, "Bearer other"] {
        let headers = [("host", "localhost"), ("authorization", token)];
        assert_eq!(wire(&local, "GET", "/client/v4/user/tokens/verify", &headers, "").0, 200, "{token}");
        let status = wire(&local, "GET", "/__local/requests", &headers, "").0;
        assert_eq!(status, if token == OWN.1 { 200 } else { 401 }, "{token}");
    }
}

#[test]
fn faults_are_json_and_nothing_else() {
    let local = guarded();
    let faults = json!([{"do": {"status": 500}}]).to_string();
    // The types that a form, or a page without a preflight, can send; and none.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/json", ""]
    {
        let headers = [("host", "localhost"), OWN, ("content-type", kind)];
        assert_eq!(wire(&local, "POST", "/__local/faults", &headers, &faults).0, 415, "{kind}");
    }
    let shown = || -> Value {
        serde_json::from_str(&wire(&local, "GET", "/__local/faults", &[("host", "localhost"), OWN], "").1).unwrap()
    };
    assert_eq!(shown(), json!([]));
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        let headers = [("host", "localhost"), OWN, ("content-type", kind)];
        assert_eq!(wire(&local, "POST", "/__local/faults", &headers, &faults).0, 200, "{kind}");
    }
    assert_eq!(shown().as_array().map(Vec::len), Some(2));
}

#[test]
fn its_token_is_its_owner_s_alone() {
    let folder = temporary_folder();
    let path = folder.path().join("local");
    let file = path.join(TOKEN_FILE);
    let token = own_token(&path).unwrap();
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!((token.len(), mode(), own_token(&path).unwrap()), (64, 0o600, token.clone()));
    // What others could read is no secret any more.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let second = own_token(&path).unwrap();
    assert!(second != token && mode() == 0o600);
    // A link is replaced, and what it points to stays as it is.
    std::fs::remove_file(&file).unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "x".repeat(64)).unwrap();
    std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();
    let third = own_token(&path).unwrap();
    assert!(third != "x".repeat(64) && std::fs::symlink_metadata(&file).unwrap().is_file());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "x".repeat(64));
    // An empty or damaged one is no token.
    std::fs::write(&file, "").unwrap();
    assert_eq!(own_token(&path).unwrap().len(), 64);
}
