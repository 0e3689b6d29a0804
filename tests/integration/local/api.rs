//! The API's workers: uploads, versions, settings, secrets, namespaces.

use flotilla_local::PlatformLimits;
use serde_json::{Value, json};

use super::client::{ACCOUNT, code, form, local};

const INDEX: &[(&str, &str)] = &[("index.js", "export default {fetch: () => new Response('hi')}")];

#[test]
fn the_token_is_looked_at() {
    let mut local = local(|options| options.tokens = vec!["good".to_owned()]);
    for header in ["", "good", "Bearer ", "Bearer two words", "Basic Z29vZA=="] {
        let headers: &[(&str, &str)] = if header.is_empty() { &[] } else { &[("authorization", header)] };
        let answer = local.send("GET", "/client/v4/accounts", headers, Vec::new()).unwrap();
        assert_eq!(answer.status(), 400, "{header:?}");
        let answer: Value = answer.json().unwrap();
        assert_eq!(
            (&answer["errors"][0]["code"], &answer["errors"][0]["error_chain"][0]["code"]),
            (&json!(6003), &json!(6111))
        );
    }
    assert_eq!(local.refused("GET", "/accounts", None), (403, 9109));
    assert_eq!(local.refused("GET", "/user/tokens/verify", None), (401, 1000));
    local.token = "good".to_owned();
    assert_eq!(local.ok("GET", "/user/tokens/verify", None)["status"], "active");
    assert!(local.ok("GET", "/accounts", None)[0]["id"].is_string());
    assert!(local.ok("GET", "/memberships", None)[0]["account"]["id"].is_string());
    let unknown = local.send("GET", "/client/v4/nonsense", &[("authorization", "Bearer good")], Vec::new()).unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().unwrap()["errors"][0]["code"], 7003);
    let wrong = local.send("POST", "/client/v4/accounts", &[("authorization", "Bearer good")], Vec::new()).unwrap();
    assert_eq!(wrong.status(), 405);
}

#[test]
fn a_worker_is_uploaded_listed_read_and_deleted() {
    let local = local(|_| {});
    assert_eq!(local.refused("GET", "@/workers/services/acme", None), (404, 10090));
    assert_eq!(local.refused("GET", "@/workers/scripts/acme/settings", None), (404, 10007));
    let bindings = json!([
        {"type": "plain_text", "name": "A", "text": "a"}, {"type": "json", "name": "J", "json": {"n": 1}},
        {"type": "secret_text", "name": "S", "text": "canary-secret"},
    ]);
    let modules = [
        ("production/acme/index.js", "import x from '../../runtime/r.js'; export default x"),
        ("runtime/r.js", "export default {}"),
    ];
    let metadata = json!({
        "main_module": modules[0].0, "bindings": bindings, "compatibility_date": "2026-06-01", "compatibility_flags": ["nodejs_compat"],
        "tags": ["owner:flotilla", "cfg-1"], "annotations": {"workers/message": "é".repeat(600), "workers/tag": "v1"},
        "observability": {"enabled": true},
    });
    let (status, answer) =
        local.upload("PUT", "@/workers/scripts/acme?excludeScript=true&bindings_inherit=strict", &metadata, &modules);
    assert_eq!(status, 200, "{answer}");
    let first = answer["result"].clone();
    assert_eq!(
        (&first["id"], &first["has_modules"], &first["tags"]),
        (&json!("acme"), &json!(true), &metadata["tags"])
    );
    assert_eq!(first["etag"].as_str().unwrap().len(), 64);

    local.put("other", json!([]), INDEX);
    let listed = local.ok("GET", "@/workers/scripts", None);
    assert_eq!(listed.as_array().unwrap().iter().map(|row| &row["id"]).collect::<Vec<_>>(), ["acme", "other"]);
    assert_eq!((&listed[0]["etag"], &listed[0]["tag"]), (&first["etag"], &first["tag"]));
    let tagged =
        |filter: &str| local.ok("GET", &format!("@/workers/scripts?tags={filter}"), None).as_array().unwrap().len();
    assert_eq!(
        (tagged("owner:flotilla:yes"), tagged("owner:flotilla:no"), tagged("owner:flotilla:yes,cfg-1:no")),
        (1, 1, 0)
    );
    assert_eq!(local.refused("GET", "@/workers/scripts?tags=owner", None), (400, 10004));
    assert_eq!(local.ok("GET", "@/workers/scripts-search?name=cm", None)[0]["script_name"], "acme");

    let settings = local.ok("GET", "@/workers/scripts/acme/settings", None);
    assert_eq!(settings["bindings"], json!([bindings[0], bindings[1], {"type": "secret_text", "name": "S"}]));
    assert_eq!(settings["annotations"]["workers/message"].as_str().unwrap().len(), 1000);
    assert_eq!(
        local.ok("GET", "@/workers/services/acme", None)["default_environment"]["script"]["etag"],
        first["etag"]
    );
    assert_eq!(local.ok("GET", "@/workers/workers/acme", None)["id"], first["tag"]);
    let (_, content) = local.call("GET", "@/workers/scripts/acme/content/v2", None);
    assert!(
        content.as_str().unwrap().contains("name=\"runtime/r.js\"")
            && content.as_str().unwrap().contains("export default x")
    );

    let again = local.put("acme", json!([]), &modules);
    assert_eq!((&again["etag"], &again["tag"], &again["tags"]), (&first["etag"], &first["tag"], &first["tags"]));
    assert_eq!(
        local.ok("GET", "@/workers/scripts/acme/settings", None)["bindings"],
        json!([]),
        "what isn't sent is gone"
    );
    assert_ne!(local.put("acme", json!([]), INDEX)["etag"], first["etag"]);

    local.put("user", json!([{"type": "service", "name": "O", "service": "other"}]), INDEX);
    assert_eq!(local.refused("DELETE", "@/workers/scripts/other", None), (400, 10064));
    local.ok("DELETE", "@/workers/scripts/other?force=true", None);
    local.ok("DELETE", "@/workers/services/acme?force=true", None);
    assert_eq!(local.refused("DELETE", "@/workers/scripts/acme", None), (404, 10007));
}

#[test]
fn wrong_uploads_have_their_codes() {
    let local =
        local(|options| options.limits = PlatformLimits { workers: 1, script_bytes: 100, ..PlatformLimits::default() });
    let put = |name: &str, metadata: Value, modules: &[(&str, &str)]| {
        let mut metadata = metadata;
        metadata["wrong"] = true.into();
        code(local.upload("PUT", &format!("@/workers/scripts/{name}"), &metadata, modules))
    };
    let main = |more: Value| {
        let mut metadata = json!({"main_module": "index.js"});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        metadata
    };
    let long = "x".repeat(101);
    let vars: Vec<Value> =
        (0..129).map(|n| json!({"type": "plain_text", "name": format!("V{n}"), "text": ""})).collect();
    for (name, metadata, modules, expect) in [
        ("Acme", main(json!({})), INDEX, (400, 10016)),
        ("a.b", main(json!({})), INDEX, (400, 10016)),
        (&long[..64], main(json!({})), INDEX, (400, 10016)),
        ("a", json!({}), INDEX, (400, 10021)),
        ("a", json!({"main_module": "no.js"}), INDEX, (400, 10021)),
        ("a", main(json!({})), &[("index.js", long.as_str())], (413, 10027)),
        ("a", main(json!({"bindings": vars})), INDEX, (400, 10055)),
        (
            "a",
            main(json!({"bindings": [{"type": "plain_text", "name": "A", "text": "x".repeat(5121)}]})),
            INDEX,
            (400, 10054),
        ),
        ("a", main(json!({"bindings": [{"type": "plain_text", "text": "x"}]})), INDEX, (400, 10052)),
        ("a", main(json!({"bindings": [{"type": "d1", "name": "D", "id": "nope"}]})), INDEX, (400, 10181)),
        (
            "a",
            main(json!({"bindings": [{"type": "kv_namespace", "name": "K", "namespace_id": "nope"}]})),
            INDEX,
            (400, 10041),
        ),
        ("a", main(json!({"bindings": [{"type": "service", "name": "K", "service": "nope"}]})), INDEX, (400, 10143)),
        (
            "a",
            main(json!({"bindings": [
                {"type": "durable_object_namespace", "name": "K", "class_name": "Counter", "script_name": "nope"}
            ]})),
            INDEX,
            (400, 10061),
        ),
        ("a", main(json!({"tail_consumers": [{"service": "nope"}]})), INDEX, (400, 10203)),
        ("a", main(json!({"compatibility_date": "yesterday"})), INDEX, (400, 10021)),
        ("a", main(json!({"compatibility_date": "2999-01-01"})), INDEX, (400, 10021)),
        ("a", main(json!({"tags": ["a,b"]})), INDEX, (400, 10021)),
        ("a", main(json!({"tags": ["1", "2", "3", "4", "5", "6", "7", "8", "9"]})), INDEX, (400, 10021)),
        ("a?bindings_inherit=lax", main(json!({})), INDEX, (400, 10004)),
        (
            "a?bindings_inherit=strict",
            main(json!({"bindings": [{"type": "inherit", "name": "A"}]})),
            INDEX,
            (400, 10057),
        ),
    ] {
        assert_eq!(put(name, metadata.clone(), modules), expect, "{name} {metadata}");
    }
    let path = "@/workers/scripts/a";
    let (kind, broken) = form(&[("metadata", "application/json", b"{")], INDEX);
    assert_eq!(code(local.raw("PUT", path, &kind, broken)), (400, 10026));
    let (kind, without) = form(&[], INDEX);
    assert_eq!(code(local.raw("PUT", path, &kind, without)), (400, 10026));
    assert_eq!(code(local.raw("PUT", path, "application/javascript", b"x".to_vec())), (400, 10001));
    assert_eq!(code(local.raw("PUT", path, "multipart/form-data; boundary=edge", b"x".to_vec())), (400, 10026));
    let (kind, strange) = form(
        &[("metadata", "application/json", br#"{"main_module":"a.json"}"#), ("a.json", "application/json", b"{}")],
        &[],
    );
    assert_eq!(code(local.raw("PUT", path, &kind, strange)), (400, 10021));

    assert_eq!(local.ok("GET", "@/workers/scripts", None), json!([]), "nothing of it was stored");
    local.put("a", json!([]), INDEX);
    assert_eq!(put("b", main(json!({})), INDEX), (403, 10037));
    local.put("a", json!([]), INDEX);
    let (kind, body) = form(&[("metadata", "application/json", br#"{"main_module":"index.js"}"#)], INDEX);
    let headers = [("authorization", "Bearer t"), ("content-type", kind.as_str()), ("if-match", "\"other\"")];
    let conditional =
        local.send("PUT", &format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/a"), &headers, body).unwrap();
    assert_eq!(conditional.status(), 412);
}

#[test]
fn bindings_are_kept_and_inherited_on_request() {
    let local = local(|_| {});
    let had = json!([
        {"type": "plain_text", "name": "P", "text": "p"}, {"type": "secret_text", "name": "S", "text": "s"}, {"type": "json", "name": "J", "json": 1},
    ]);
    let put = |more: Value| {
        local.put("a", had.clone(), INDEX);
        let mut metadata = json!({"main_module": "index.js"});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = local.upload("PUT", "@/workers/scripts/a", &metadata, INDEX);
        assert_eq!(status, 200, "{answer}");
        let bindings = local.ok("GET", "@/workers/scripts/a/settings", None)["bindings"].clone();
        bindings
            .as_array()
            .unwrap()
            .iter()
            .map(|binding| binding["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(put(json!({"keep_bindings": ["secret_text", "json"]})), "S J");
    assert_eq!(
        put(
            json!({"keep_bindings": ["secret_text"], "bindings": [{"type": "plain_text", "name": "S", "text": "now plain"}]})
        ),
        "S"
    );
    assert_eq!(
        put(
            json!({"bindings": [{"type": "inherit", "name": "NEW", "old_name": "S"}, {"type": "inherit", "name": "GONE"}]})
        ),
        "NEW"
    );
}

#[test]
fn versions_serve_when_deployed_and_secrets_edit_the_newest() {
    let local = local(|_| {});
    let path = |rest: &str| format!("@/workers/scripts/a{rest}");
    let metadata =
        json!({"main_module": "index.js", "annotations": {"workers/message": "two"}, "keep_bindings": ["secret_text"]});
    assert_eq!(code(local.upload("POST", &path("/versions"), &metadata, INDEX)), (404, 10007));
    local.put("a", json!([{"type": "secret_text", "name": "S", "text": "1"}]), INDEX);
    let (status, second) = local.upload("POST", &path("/versions?bindings_inherit=strict"), &metadata, INDEX);
    assert_eq!((status, &second["result"]["number"]), (200, &json!(2)));
    let active = || local.ok("GET", &path("/deployments"), None)["deployments"][0]["versions"][0]["version_id"].clone();
    let versions = local.ok("GET", &path("/versions"), None)["items"].clone();
    assert_eq!((&active(), &versions[0]["id"]), (&versions[1]["id"], &second["result"]["id"]));
    let secret = json!({"name": "S", "text": "2", "type": "secret_text"});
    assert_eq!(local.refused("PUT", &path("/secrets"), Some(secret.clone())), (400, 10215));

    let deploy = |versions: Value| {
        local.call("POST", &path("/deployments"), Some(json!({"strategy": "percentage", "versions": versions})))
    };
    for wrong in [json!([]), json!([{"version_id": versions[0]["id"], "percentage": 50}])] {
        assert_eq!(code(deploy(wrong)), (400, 10021));
    }
    assert_eq!(code(deploy(json!([{"version_id": "nope", "percentage": 100}]))), (404, 10222));
    assert_eq!(deploy(json!([{"version_id": versions[0]["id"], "percentage": 100}])).0, 200);
    assert_eq!(active(), versions[0]["id"]);

    assert_eq!(local.ok("PUT", &path("/secrets"), Some(secret)), json!({"name": "S", "type": "secret_text"}));
    let bulk = json!({"secrets": {"T": {"name": "T", "text": "3", "type": "secret_text"}, "S": null}});
    assert_eq!(
        local.ok("PATCH", &path("/secrets-bulk"), Some(bulk)),
        json!({"T": {"name": "T", "type": "secret_text"}})
    );
    assert_eq!(local.ok("GET", &path("/secrets"), None), json!([{"name": "T", "type": "secret_text"}]));
    assert_eq!(local.ok("GET", &path("/secrets/T"), None)["name"], "T");
    assert_eq!(local.refused("DELETE", &path("/secrets/S"), None), (404, 10056));
    local.ok("DELETE", &path("/secrets/T"), None);
    assert_eq!(
        code(deploy(json!([{"version_id": versions[0]["id"], "percentage": 100}]))),
        (400, 10220),
        "its secret changed since"
    );
    let force = json!({"strategy": "percentage", "versions": [{"version_id": versions[0]["id"], "percentage": 100}]});
    local.ok("POST", &path("/deployments?force=true"), Some(force));
    assert_eq!(local.ok("GET", &path("/secrets"), None), json!([]), "secrets are those of the newest version");
    let id = versions[0]["id"].as_str().unwrap();
    assert_eq!(
        local.ok("GET", &path(&format!("/versions/{id}")), None)["resources"]["bindings"],
        json!([{"name": "S", "type": "secret_text"}])
    );
}

#[test]
fn settings_are_patched() {
    let local = local(|_| {});
    local.put(
        "a",
        json!([{"type": "plain_text", "name": "P", "text": "p"}, {"type": "json", "name": "J", "json": 1}]),
        INDEX,
    );
    let sent = json!({"bindings": [{"type": "plain_text", "name": "P"}, {"type": "plain_text", "name": "Q", "text": "q"}], "compatibility_date": "2026-01-01"});
    let (kind, body) = form(&[("settings", "application/json", sent.to_string().as_bytes())], &[]);
    let (status, answer) = local.raw("PATCH", "@/workers/scripts/a/settings", &kind, body);
    assert_eq!(status, 200, "{answer}");
    let expect =
        json!([{"type": "plain_text", "name": "P", "text": "p"}, {"type": "plain_text", "name": "Q", "text": "q"}]);
    assert_eq!(
        (&answer["result"]["bindings"], &answer["result"]["compatibility_date"]),
        (&expect, &json!("2026-01-01"))
    );
    local.ok(
        "PATCH",
        "@/workers/scripts/a/script-settings",
        Some(json!({"tags": ["x"], "observability": {"enabled": true}})),
    );
    assert_eq!(local.ok("GET", "@/workers/scripts/a/script-settings", None)["tags"], json!(["x"]));
    assert_eq!(local.ok("GET", "@/workers/scripts", None)[0]["observability"]["enabled"], true);
}

#[test]
fn a_namespace_holds_scripts() {
    let local = local(|_| {});
    let base = "@/workers/dispatch/namespaces";
    let script = |rest: &str| format!("{base}/ns/scripts/{rest}");
    let metadata = |tag: &str| json!({"main_module": "index.js", "tags": [tag]});
    assert_eq!(code(local.upload("PUT", &script("a"), &metadata("t"), INDEX)), (404, 100_119));
    local.ok("POST", base, Some(json!({"name": "ns"})));
    assert_eq!(local.refused("POST", base, Some(json!({"name": "ns"}))).0, 409);
    assert_eq!(local.refused("GET", &script("a"), None), (404, 10092));
    for (name, tag) in [("a", "x"), ("b", "x"), ("c", "y")] {
        assert_eq!(local.upload("PUT", &script(name), &metadata(tag), INDEX).0, 200);
    }
    assert_eq!(local.ok("GET", &format!("{base}/ns"), None)["script_count"], 3);
    assert_eq!(local.ok("GET", base, None).as_array().unwrap().len(), 1);
    assert_eq!(local.ok("GET", "@/workers/scripts", None), json!([]), "they are no workers of the account");
    assert_eq!(local.ok("GET", &format!("{base}/ns/scripts?tags=y:yes"), None)[0]["script"]["id"], "c");
    local.ok("PUT", &script("c/tags/z"), None);
    local.ok("DELETE", &script("c/tags/y"), None);
    assert_eq!(local.ok("GET", &script("c/tags"), None), json!(["z"]));
    assert_eq!(local.ok("PUT", &script("c/tags"), Some(json!(["q"]))), json!(["q"]));
    local.ok("PUT", &script("c/secrets"), Some(json!({"name": "S", "text": "s", "type": "secret_text"})));
    assert_eq!(local.ok("GET", &script("c/bindings"), None), json!([{"name": "S", "type": "secret_text"}]));
    assert_eq!(local.ok("GET", &script("c/settings"), None)["bindings"].as_array().unwrap().len(), 1);
    assert!(local.call("GET", &script("c/content"), None).1.as_str().unwrap().contains("new Response"));
    let (_, deleted) = local.call("DELETE", &format!("{base}/ns/scripts?tags=x:yes&limit=1"), None);
    assert_eq!((&deleted["deleted_count"], &deleted["has_more"]), (&json!(1), &json!(true)));
    local.ok("DELETE", &script("c"), None);
    local.ok("DELETE", &format!("{base}/ns"), None);
    assert_eq!(local.ok("GET", base, None), json!([]));
}
