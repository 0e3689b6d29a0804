//! The index page in a real browser: it is live, fits a phone, breaks none of its own rules, and no worker's page can read it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::client::{local, workerd};
use crate::folders::temporary_folder;
use crate::tools::node;

/// A page that tries each way to the emulator's own page, and notes in its title what it got.
const EVIL: &str = "export default { fetch: () => new Response(`<!DOCTYPE html><script>
const attempts = {
  fetched: async () => (await (await fetch('/', { headers: { accept: 'text/html' } })).text()).length,
  live: async () => (await fetch('/__local/page/live')).status,
  framed: () => new Promise((done, failed) => {
    const frame = document.createElement('iframe');
    frame.src = '/';
    frame.onload = () => { try { done(frame.contentWindow.document.body.textContent.length); } catch (error) { failed(error); } };
    document.documentElement.append(frame);
  }),
  opened: async () => {
    const other = window.open('/');
    await new Promise((done) => setTimeout(done, 1000));
    return other.document.body.textContent.length;
  },
};
(async () => {
  const found = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    found[name] = await attempt().then((got) => 'got ' + got, () => 'refused');
  }
  document.title = JSON.stringify(found);
})();
</scr` + 'ipt>', { headers: { 'content-type': 'text/html' } }) }";

#[test]
fn the_page_works_in_a_browser_and_is_nobody_else_s() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        // The package has a browser for no other system.
        return;
    }
    let (package, lock) =
        (include_bytes!("../../browser/package.json"), include_bytes!("../../browser/package-lock.json"));
    let packages = flotilla_model::cache::npm("the browser tests", package, lock, &flotilla_model::progress::Silent);
    let packages = packages.unwrap_or_else(|failure| panic!("{failure}"));
    let local = local(|options| options.workerd = workerd());
    let acme = "export default { fetch(request) { const { pathname } = new URL(request.url);
        console.log('<img src=x>', pathname); if (pathname === '/throw') throw new Error('boom');
        return new Response('x', { status: pathname === '/health' ? 200 : 404 }) } }";
    local.put("acme", json!([]), &[("i.js", acme)]);
    local.put("evil", json!([]), &[("i.js", EVIL)]);
    let script = temporary_folder();
    std::fs::write(script.path().join("page.mjs"), include_str!("../../browser/page.mjs")).unwrap();
    let mut command = Command::new(node());
    command.arg(script.path().join("page.mjs")).arg(local.origin()).current_dir(packages);
    command.env("TMPDIR", script.path()).env("HOME", script.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}\n{stderr}"));
    assert_eq!((&seen["complaints"], &seen["elsewhere"]), (&json!([]), &json!([])), "{seen}");
    assert_eq!(seen["overflow"], json!([0, 0, 0, 0]), "it fits: {seen}");
    assert_ne!(seen["background"][0], seen["background"][2], "there is a dark one: {seen}");
    assert_eq!((&seen["image"], &seen["printed"]), (&json!(0), &json!("log <img src=x> /live-light-1200")), "{seen}");
    assert_eq!(
        (&seen["before"], &seen["paused"], &seen["resumed"]),
        (&json!("responding"), &json!(false), &json!(true))
    );
    assert_eq!(seen["errors"], 1, "{seen}");
    let refused = json!({"fetched": "refused", "live": "refused", "framed": "refused", "opened": "refused"});
    assert_eq!(seen["evil"], refused, "{seen}");
}
