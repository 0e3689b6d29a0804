import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { before, test } from "node:test";
import { database, load } from "./support.mjs";

let code;
before(async () => { code = await load(); });

// In flotilla's repository; a copy of this folder elsewhere has none.
const catalogue = new URL("../../../src/zone-settings/catalogue.json", import.meta.url);
const T = 1_800_000_000;
const copy = (value) => JSON.parse(JSON.stringify(value));
const of = (db, customer) => db.sqlite.prepare("SELECT * FROM zone WHERE customer_id = ?").get(customer);
const insert = (db, customer, zone, bucket) =>
  db.sqlite.prepare("INSERT INTO zone (customer_id, zone_id, bucket) VALUES (?, ?, ?)").run(customer, zone, bucket);
function fleet(count, size = 2) {
  const db = database();
  const zones = {};
  for (let at = 0; at < count; at += 1) {
    insert(db, `c${at}`, `z${at}`, Math.floor(at / size));
    zones[`z${at}`] = { brotli: { value: "on", editable: true }, rocket_loader: { value: "off", editable: true } };
  }
  const api = {
    zones,
    calls: [],
    before: async (_zone) => {},
    async list(zone) { this.calls.push(zone); await this.before(zone); return copy(zones[zone]); },
    async set(zone, id, value) { await this.before(zone); return copy((zones[zone][id] = { value, editable: true })); },
  };
  return { db, api };
}
const clock = (time = T) => ({ time, now() { return Math.floor(this.time); }, async wait(seconds) { this.time += seconds; } });
const refused = (status, retryAfter) => Object.assign(Object.create(code.ApiError.prototype), { status, retryAfter });

test("a sweep reads the oldest first, paced, and writes only what changed; times are seconds", async () => {
  const { db, api } = fleet(6);
  db.sqlite.exec(`UPDATE sweep SET seen_at = ${T} - 1000 - bucket`);
  const time = clock();
  assert.deepEqual(await code.sweep(db, api, time), { zones: 6, failed: 0 });
  assert.deepEqual(api.calls, ["z4", "z5", "z2", "z3", "z0", "z1"]);
  assert.ok(Math.abs(time.time - T - 6 * 0.3) < 0.01);
  // The seed's own query.
  const row = db.sqlite.prepare(`SELECT state, last_synced_at FROM customer_toggles
    WHERE customer_id = ? AND toggle_id = 'rocket-loader'`).get("c0");
  assert.equal(row.state, "off");
  assert.ok(row.last_synced_at >= T && row.last_synced_at < T + 10);
  assert.deepEqual(await code.sweep(db, api, clock(T + 100)), { zones: 0, failed: 0 });
  api.zones.z3.brotli.value = "off";
  await code.sweep(db, api, clock(T + 2000));
  assert.deepEqual([of(db, "c3").version, of(db, "c2").version], [2, 1]);
});

test("a zone that fails stops no other, and is not shown as synced", async () => {
  const { db, api } = fleet(4);
  await code.sweep(db, api, clock());
  api.before = async (zone) => { if (zone === "z0") throw new Error("gone"); };
  assert.deepEqual(await code.sweep(db, api, clock(T + 2000)), { zones: 3, failed: 1 });
  assert.ok((await code.zoneOf(db, "c0")).synced_at < T + 10);
  assert.ok((await code.zoneOf(db, "c1")).synced_at >= T + 2000);
  api.before = async () => {};
  await code.sweep(db, api, clock(T + 4000));
  assert.ok((await code.zoneOf(db, "c0")).synced_at >= T + 4000);
});

test("429 pauses the token, and a pause that is longer than the run ends it", async () => {
  const { db, api } = fleet(2);
  let once = true;
  api.before = async () => { if (once) { once = false; throw refused(429, 60); } };
  const time = clock();
  assert.deepEqual(await code.sweep(db, api, time), { zones: 2, failed: 0 });
  assert.ok(time.time >= T + 60);
  api.before = async () => { throw refused(429, 5000); };
  api.calls.length = 0;
  assert.deepEqual(await code.sweep(db, api, clock(T + 2000)), { zones: 0, failed: 0 });
  assert.equal(api.calls.length, 1);
  api.before = async () => {};
  assert.deepEqual(await code.sweep(db, api, clock(T + 2001)), { zones: 2, failed: 0 });
});

test("of 50 requests that find a zone old, one asks Cloudflare", async () => {
  const { db, api } = fleet(1);
  await Promise.all(Array.from({ length: 50 }, () => code.refresh(db, api, "c0", T)));
  assert.equal(api.calls.length, 1);
});

test("a change that D1 missed is repaired by the next sync", async () => {
  const { db, api } = fleet(1);
  await code.refresh(db, api, "c0", T);
  db.before = async (texts) => { if (texts.some((text) => text.includes("json_set"))) throw new Error("D1 is away"); };
  await assert.rejects(code.change(db, api, await code.zoneOf(db, "c0"), "rocket_loader", "on", T), /D1 is away/);
  db.before = async () => {};
  const pending = () => db.sqlite.prepare("SELECT count(*) AS n FROM pending").get().n;
  assert.deepEqual([api.zones.z0.rocket_loader.value, pending()], ["on", 1]);
  assert.equal(await code.change(db, api, await code.zoneOf(db, "c0"), "rocket_loader", "off", T + 1), null);
  await code.refresh(db, api, "c0", T + 100);
  assert.deepEqual([JSON.parse(of(db, "c0").settings).rocket_loader.value, pending()], ["on", 0]);
});

test("10,000 interleavings of changes and syncs lose nothing, and A never touches B", async () => {
  const { db, api } = fleet(2);
  let seed = 1;
  const random = (below) => ((seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 8) % below;
  let waiting = [];
  const turn = () => new Promise((go) => waiting.push(go));
  const tick = () => new Promise((done) => setImmediate(done));
  const orders = new Set();
  for (let round = 0; round < 10_000; round += 1) {
    db.before = api.before = async () => {};
    db.sqlite.exec(`DELETE FROM pending; UPDATE sweep SET seen_at = 0, lease_until = 0;
      UPDATE zone SET seen_at = 0, lease_until = 0, version = 0, settings = '{}'`);
    for (const zone of ["z0", "z1"]) api.zones[zone] = { brotli: { value: "on" }, rocket_loader: { value: "off" } };
    const zone = await code.zoneOf(db, "c0");
    const b = JSON.stringify(api.zones.z1);
    db.before = api.before = turn;
    let left = 5;
    const work = [
      code.change(db, api, zone, "rocket_loader", "on", T),
      code.change(db, api, zone, "brotli", "off", T),
      code.change(db, api, zone, "rocket_loader", "off", T),
      code.refresh(db, api, "c0", T),
      code.sweep(db, api, clock()),
    ].map((each) => each.finally(() => { left -= 1; }));
    let order = "";
    while (left > 0) {
      if (waiting.length === 0) { await tick(); continue; }
      const at = random(waiting.length);
      order += at;
      waiting.splice(at, 1)[0]();
      await tick();
    }
    await Promise.all(work);
    orders.add(order);
    const mirrored = JSON.parse(of(db, "c0").settings);
    for (const id of ["brotli", "rocket_loader"])
      assert.equal(mirrored[id].value, api.zones.z0[id].value, `round ${round}, order ${order}, ${id}`);
    assert.equal(JSON.stringify(api.zones.z1), b);
    assert.equal(of(db, "c1").settings, b);
  }
  assert.ok(orders.size > 5000, `${orders.size} different orders`);
});

test("the catalogue is that of flotilla", { skip: !existsSync(catalogue) }, () => {
  const all = JSON.parse(readFileSync(catalogue, "utf8"));
  const ours = JSON.parse(readFileSync(new URL("../src/catalogue.json", import.meta.url), "utf8"));
  const texts = Object.entries(all).filter(([, { value }]) => value?.type === "string" && value.enum?.length > 0);
  assert.deepEqual(ours, Object.fromEntries(texts.map(([id, { value }]) => [id, value.enum])));
});
