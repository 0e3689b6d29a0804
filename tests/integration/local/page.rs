//! The index page: what it shows, who gets it, and that ten thousand workers are no more than a page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{ACCOUNT, Local, local, workerd};

const HTML: (&str, &str) = ("accept", "text/html");

/// A worker of a customer, as flotilla tags it.
fn put(local: &Local, customer: &str, name: &str, code: &str) {
    let metadata = json!({
        "main_module": "i.js", "compatibility_date": "2026-06-01", "tags": [format!("customer-{customer}")],
        "bindings": [{"type": "secret_text", "name": "KEY", "text": "canary-secret"}, {"type": "plain_text", "name": "MODE", "text": "canary-text"}],
    });
    let (status, answer) = local.upload("PUT", &format!("@/workers/scripts/{name}"), &metadata, &[("i.js", code)]);
    assert_eq!(status, 200, "{answer}");
}

fn grouped(change: impl FnOnce(&mut flotilla_local::Options)) -> Local {
    local(|options| {
        options.group = Some(std::sync::Arc::new(|tags: &[String]| {
            tags.iter().find_map(|tag| tag.strip_prefix("customer-").map(str::to_owned))
        }));
        change(options);
    })
}

fn html(local: &Local, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let all: Vec<(&str, &str)> = [("host", "localhost:8787"), HTML].iter().chain(headers).copied().collect();
    let answer = local.send("GET", path, &all, Vec::new()).unwrap();
    let policy = answer.headers().get("content-security-policy").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), answer.text().unwrap(), policy.unwrap_or_default())
}

/// The word that the page's script sends.
fn key(page: &str) -> String {
    page.split("data-key=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[test]
fn the_page_lists_workers_by_customer_with_what_they_printed() {
    let local = grouped(|options| options.workerd = workerd());
    let code = "export default { fetch(request) { const { pathname } = new URL(request.url);
        console.warn('<img src=x onerror=alert(1)>'); if (pathname === '/throw') throw new Error('<b>boom');
        return new Response('x', { status: pathname === '/health' ? 200 : 404 }) } }";
    put(&local, "acme", "acme-web", code);
    put(&local, "zebra", "zebra-web", code);
    local.put("of-nobody", json!([]), &[("i.js", code)]);
    local.ok("PUT", "@/workers/domains", Some(json!({"hostname": "shop.acme.com", "service": "acme-web"})));
    let (_, page, _) = html(&local, "/", &[]);
    assert!(page.contains("3 workers of 2 customers") && page.contains("not requested yet"), "{page}");
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    assert!(at("<h2>acme") < at("<h2>zebra") && at("<h2>zebra") < at("<h2>Other workers"), "{page}");
    for text in ["http://acme-web.localhost:8787/", "shop.acme.com", "<i>secret</i> KEY", "<i>var</i> MODE"] {
        at(text);
    }
    assert!(!page.contains("canary"), "the values of bindings aren't shown: {page}");

    local.get("acme-web.localhost", "/health");
    local.get("zebra-web.localhost", "/throw?<script>");
    let shows = |text: &str, path: &str| {
        crate::fleet::until("it is on the page", || html(&local, path, &[]).1.contains(text));
        html(&local, path, &[]).1
    };
    let page = shows("failing: exception", "/");
    for text in
        ["healthy", "&lt;b&gt;boom", "&lt;img src=x onerror=alert(1)&gt;", "1 request, <b class=bad>1 failed</b>"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("<img") && !page.contains("<b>boom") && page.matches("<script").count() == 1, "{page}");
    // Of one worker, and of those that a filter lets through.
    let (_, page, _) = html(&local, &format!("/?worker={ACCOUNT}%2F%2Facme-web"), &[]);
    assert!(page.contains("/health") && !page.contains("/throw"), "{page}");
    let (_, page, _) = html(&local, "/?q=ZEB%3Cb%3E", &[]);
    assert!(page.contains("0 match <b>zeb&lt;b&gt;</b>"), "{page}");
    let (_, page, _) = html(&local, "/?q=ZEBRA", &[]);
    assert!(
        page.contains("href=\"http://zebra-web.localhost") && !page.contains("href=\"http://acme-web.localhost"),
        "{page}"
    );
}

#[test]
fn the_page_is_alone_and_its_script_has_a_word() {
    let local = grouped(|options| options.workerd = workerd());
    put(&local, "acme", "acme_web", "export default { fetch: () => new Response('x') }");
    let (status, page, policy) = html(&local, "/", &[("sec-fetch-site", "none"), ("sec-fetch-dest", "document")]);
    assert_eq!(status, 200);
    for rule in ["default-src 'none'", "frame-ancestors 'none'", "connect-src 'self'", "script-src 'nonce-"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(
        !policy.contains("unsafe") && !page.contains("http://www") && !page.contains("https://"),
        "no other site: {page}"
    );
    // Not within a page, not even one of a worker; nor for another name.
    for dest in ["iframe", "embed", "object", "empty"] {
        let headers = [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", dest)];
        assert_eq!(html(&local, "/", &headers).0, 403, "{dest}");
    }
    let live = |headers: &[(&str, &str)]| {
        let answer = local.send("GET", "/__local/page/live?after=0&generation=0", headers, Vec::new()).unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    let key = key(&page);
    let own = ("x-local-page", key.as_str());
    for headers in [
        &[("host", "localhost:8787")][..],
        &[("host", "localhost:8787"), ("x-local-page", "0123456789abcdef0123456789abcdef")],
        &[("host", "localhost:8787"), own, ("origin", "http://evil.example")],
        &[("host", "localhost:8787"), own, ("origin", "null")],
        &[("host", "localhost:8787"), own, ("origin", "http://acme.localhost:8787")],
        &[("host", "localhost:8787"), own, ("sec-fetch-site", "same-site")],
        &[("host", "localhost:8787"), own, ("sec-fetch-site", "cross-site")],
        &[("host", "evil.example"), own],
    ] {
        assert!(matches!(live(headers).0, 403 | 421), "{headers:?}");
    }
    let fetched = [("host", "localhost:8787"), own, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")];
    let (status, text) = live(&fetched);
    let news: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, news["workers"].as_str().unwrap().contains("acme_web")), (200, true), "{news}");
    // A check is a request of the worker's health.
    let check = |body: &str| {
        let headers = [("host", "localhost:8787"), own, ("origin", "http://localhost:8787")];
        local.send("POST", "/__local/page/check", &headers, body.as_bytes().to_vec()).unwrap().status().as_u16()
    };
    assert_eq!(
        (check(&format!("{ACCOUNT}//acme_web")), check(&format!("{ACCOUNT}//none")), check("x")),
        (200, 404, 400)
    );
    crate::fleet::until("it is on the page", || html(&local, "/", &[]).1.contains("healthy"));
    // A worker under the emulator's own name is in a sandbox: its page could read this one.
    let (_, _, policy) = html(&local, "/workers/acme_web/", &[]);
    assert!(policy.starts_with("sandbox ") && !policy.contains("allow-same-origin"), "{policy}");
}

#[test]
fn without_its_key_the_page_is_a_list() {
    let local = grouped(|options| {
        options.workerd = workerd();
        options.token = Some("0123456789abcdef0123456789abcdef".to_owned());
        options.tokens = vec!["a-token".to_owned()];
    });
    put(
        &local,
        "acme",
        "acme-web",
        "export default { fetch() { console.log('canary-log'); return new Response('x') } }",
    );
    local.get("acme-web.localhost", "/canary-path");
    let page = local.running.as_ref().unwrap().page().to_owned();
    let open = &page[page.find("/?key=").unwrap()..];
    crate::fleet::until("it is on the page", || html(&local, open, &[]).1.contains("canary-log"));
    let (_, shown, _) = html(&local, &format!("{open}&q=acme"), &[]);
    // Its links lead to pages that show as much.
    let key = open.split('=').nth(1).unwrap();
    for text in [
        "canary-path",
        "<i>secret</i> KEY",
        &format!("/?q=acme&amp;key={key}&amp;worker="),
        &format!("name=key value=\"{key}\""),
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    for path in ["/", "/?key=", "/?key=0123456789abcdef0123456789abcdef", &format!("/?worker={ACCOUNT}%2F%2Facme-web")]
    {
        let (status, closed, _) = html(&local, path, &[]);
        assert!(status == 200 && closed.contains("http://acme-web.localhost:8787/"), "{path}: {closed}");
        for hidden in ["canary", "KEY", "request,", "data-key", "<script", key] {
            assert!(!closed.contains(hidden), "{path} {hidden}: {closed}");
        }
    }
    let wrong = [("host", "localhost:8787"), ("x-local-page", "0123456789abcdef0123456789abcdef")];
    assert_eq!(local.send("GET", "/__local/page/live?after=0", &wrong, Vec::new()).unwrap().status(), 403);
    // The key holds as long as the token.
    let mut local = local;
    local.restart(|options| options.token = Some("0123456789abcdef0123456789abcdef".to_owned()));
    assert!(local.running.as_ref().unwrap().page().ends_with(open));
    local.restart(|options| options.token = Some("fedcba9876543210fedcba9876543210".to_owned()));
    assert!(!local.running.as_ref().unwrap().page().ends_with(open));
}

#[test]
fn news_come_when_there_are_some() {
    let local = grouped(|options| options.workerd = workerd());
    put(&local, "acme", "acme-web", "export default { fetch: () => new Response('x') }");
    let (_, page, _) = html(&local, "/", &[]);
    let value =
        |name: &str| page.split(&format!("data-{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (key, number, generation) = (value("key"), value("number"), value("generation"));
    let path = format!("/__local/page/live?after={number}&generation={generation}");
    let (start, origin) = (Instant::now(), local.origin());
    let waiting = std::thread::spawn(move || {
        let http = flotilla_http::builder().build().unwrap();
        http.get(origin + &path).header("x-local-page", key).send().unwrap().json::<Value>().unwrap()
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!waiting.is_finished(), "there is nothing new");
    local.get("acme-web.localhost", "/news");
    let news = waiting.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(news["events"].as_str().unwrap().contains("/news"), "{news}");
}

#[test]
fn ten_thousand_workers_are_paged() {
    let local = grouped(|_| {});
    // Straight into the database: ten thousand uploads would take their time.
    let db = rusqlite::Connection::open(local.folder.path().join("cloudflare.db")).unwrap();
    db.execute_batch(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO worker (account, namespace, name, tag, created, modified, source, version, enabled, previews, settings)
         SELECT '{ACCOUNT}', '', printf('worker-%05d', i), printf('t%d', i), '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z', 'api',
                printf('v%d', i), 0, 0, printf('{{\"tags\":[\"customer-c%04d\"]}}', i / 2) FROM n"
    ))
    .unwrap();
    let (_, first, _) = html(&local, "/", &[]);
    assert!(first.contains("10,000 workers of 5,001 customers") && first.contains("page 1 of 200"), "{first}");
    assert_eq!(first.matches("<li class=worker>").count(), 50);
    assert!(first.len() < 100_000, "{}", first.len());
    let (_, last, _) = html(&local, "/?page=999", &[]);
    assert!(last.contains("page 200 of 200") && last.contains("worker-10000"), "{last}");
    let (_, found, _) = html(&local, "/?q=worker-0777", &[]);
    assert!(found.contains("10 match") && found.matches("<li class=worker>").count() == 10, "{found}");
    assert!(local.get("localhost", "/").1.starts_with("Local Cloudflare: 10000 deployed workers"));
}
