import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { database, load, secret, token } from "./support.mjs";

const zones = {};
const calls = [];
const server = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const [, zone, id] = /^\/zones\/([^/]+)\/settings\/?(.*)$/.exec(request.url);
  calls.push(`${request.method} ${request.url}`);
  if (id) zones[zone][id] = JSON.parse(body).value;
  const result = Object.entries(zones[zone]).map(([id, value]) => ({ id, value, editable: id !== "polish" }));
  response.end(JSON.stringify({ success: true, result: id ? result.find((each) => each.id === id) : result }));
});
let worker, env, db;
const waits = [];
const A = "a.example";
before(async () => {
  ({ worker } = await load());
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  db = database();
  for (const name of ["a", "b"]) {
    db.sqlite.prepare("INSERT INTO zone (customer_id, zone_id, bucket) VALUES (?, ?, 0)").run(`${name}.example`, name);
    zones[name] = { brotli: "on", rocket_loader: "off", ssl: "full", polish: "off", minify: { css: "on" } };
  }
  env = { DB: db, SESSION_SECRET: secret, ZONES_TOKEN: "t", ENFORCED: '{"ssl":"The <fleet> decides."}',
    API_BASE: `http://127.0.0.1:${server.address().port}` };
});
after(() => server.close());

const send = (path, init = {}) => worker.fetch(new Request(`https://d.example${path}`, init), env, { waitUntil: (p) => waits.push(p) });
const get = (session) => send(`/?id_token=${session}`);
const post = (id, value, session = token(A)) => send(`/api/v1/optimizations/${id}`, {
  method: "POST", body: JSON.stringify({ value }), headers: { authorization: `Bearer ${session}`, "content-type": "application/json" },
});
const state = (customer, id) => JSON.parse(db.sqlite.prepare("SELECT settings FROM zone WHERE customer_id = ?").get(customer).settings)[id]?.value;

test("the first page shows that nothing is synced and syncs after the answer", async () => {
  assert.match(await (await get(token(A))).text(), /Not synced yet/);
  await Promise.all(waits);
  assert.deepEqual(calls.splice(0), ["GET /zones/a/settings"]);
});

test("200 pages send no request to Cloudflare and one query each", async () => {
  const queries = db.queries;
  const pages = await Promise.all(Array.from({ length: 200 }, async () => (await get(token(A))).text()));
  assert.deepEqual([db.queries - queries, calls.length], [200, 0]);
  assert.match(pages[199], /Synced less than a minute ago/);
  assert.match(pages[199], /<button role="switch" aria-checked="true" aria-labelledby="brotli"/);
  assert.match(pages[199], /The &#60;fleet&#62; decides/);
});

test("only a valid session token is let in, and it alone names the customer", async () => {
  const past = Math.floor(Date.now() / 1000) - 1;
  const none = Buffer.from('{"alg":"none"}').toString("base64url");
  const bad = ["", "x.y.z", token(A, { exp: past }), token(A, { key: "another" }), token(A, { alg: "HS512" }),
    `${none}.${token(A).split(".")[1]}.`];
  for (const session of bad) {
    assert.equal((await get(session)).status, 401);
    assert.equal((await post("brotli", "off", session)).status, 401);
  }
  assert.equal((await get(token("c.example"))).status, 404);
  assert.equal((await send("/?customer=b.example")).status, 401);
  assert.equal(calls.length, 0);
});

test("a change goes to Cloudflare and to the mirror, and to no other customer", async () => {
  const answer = await post("rocket-loader", "on");
  assert.deepEqual([answer.status, await answer.json()], [200, { setting: "rocket_loader", value: "on", editable: true }]);
  assert.deepEqual(calls.splice(0), ["PATCH /zones/a/settings/rocket_loader"]);
  assert.deepEqual([zones.a.rocket_loader, state(A, "rocket_loader"), zones.b.rocket_loader, state("b.example", "rocket_loader")],
    ["on", "on", "off", undefined]);
});

test("a form does the same without a script", async () => {
  const body = new URLSearchParams({ session: token(A), value: "off" });
  const answer = await send("/api/v1/optimizations/rocket_loader", { method: "POST", body });
  assert.equal(answer.status, 200);
  assert.match(await answer.text(), /role="status">Saved\./);
  assert.equal(state(A, "rocket_loader"), "off");
  calls.length = 0;
});

test("what can't be changed is refused with its reason, and Cloudflare isn't asked", async () => {
  const refused = async (id, value) => { const answer = await post(id, value); return [answer.status, (await answer.json()).error]; };
  assert.deepEqual(await refused("ssl", "off"), [409, "The <fleet> decides."]);
  assert.deepEqual(await refused("polish", "lossy"), [409, "The zone's plan does not allow changes."]);
  assert.deepEqual(await refused("brotli", "maybe"), [400, "The value of brotli is one of: off, on."]);
  assert.equal((await refused("constructor", "on"))[0], 404);
  assert.equal((await send("/api/v1/optimizations/brotli")).status, 405);
  assert.equal(calls.length, 0);
});

test("the cron trigger brings changes that were made elsewhere", async () => {
  zones.b.brotli = "off";
  db.sqlite.exec("UPDATE sweep SET seen_at = 0");
  await worker.scheduled({}, env);
  assert.equal(state("b.example", "brotli"), "off");
});
