#!/usr/bin/env python3
"""Migrates many D1 databases of the local Cloudflare emulator, and kills the deploy again and again: each migration has to be applied to each
database once. Beside it, a loop of `wrangler d1 migrations apply` over a sample of them, if a wrangler is given.

    benches/migrations.py FLOTILLA [--databases 10000] [--kills 20] [--wrangler 'node …/wrangler.js'] [--sample 20]

Prints Markdown. Needs nothing but Python; everything is in a temporary folder.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

ACCOUNT = "0123456789abcdef0123456789abcdef"
MIGRATIONS = {
    "0001_counter.sql": "CREATE TABLE counter (n INTEGER);\nINSERT INTO counter VALUES (0);\n",
    "0002_count.sql": "UPDATE counter SET n = n * 10 + 2;\n",
    "0003_count.sql": "UPDATE counter SET n = n * 10 + 3;\n",
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_fleet(root: Path, databases: int) -> None:
    """A fleet whose pack is bundled without npm packages."""
    pack = root / "packs/tiny"
    write(root / "fleet.yaml", """name: bench
packs: { tiny: { path: packs/tiny } }
accounts:
  default: { id: { env: CLOUDFLARE_ACCOUNT_ID }, token: { secret: CLOUDFLARE_API_TOKEN }, limits: { workers: 1000000, databases: 1000000 }, apiLimit: { requests: 100000000, seconds: 300, headroom: 0 } }
defaults: { database: { type: d1, name: "app-{customer}" } }
""")
    write(pack / "pack.yaml", """name: tiny
prefix: t
module: index.ts.tera
files: [wrangler.jsonc.tera]
runtime: { build: [node, build.mjs], sources: [build.mjs] }
databases: { DB: { migrationsDir: migrations } }
""")
    write(pack / "package.json", '{ "name": "tiny", "private": true }\n')
    write(pack / "package-lock.json", '{ "name": "tiny", "lockfileVersion": 3, "requires": true, "packages": { "": { "name": "tiny" } } }\n')
    write(pack / "build.mjs", """import { mkdirSync, writeFileSync } from 'node:fs';
const out = process.argv.at(-1);
mkdirSync(out, { recursive: true });
writeFileSync(`${out}/runtime.js`, 'export const defineWorker = () => ({ fetch: () => new Response("tiny") });\\n');
writeFileSync(`${out}/runtime.d.ts`, 'export declare function defineWorker(config: unknown): object;\\n');
""")
    templates = Path(__file__).resolve().parent.parent / "templates/consent"
    for name in ["index.ts.tera", "wrangler.jsonc.tera"]:
        shutil.copy(templates / name, pack / name)
    for name, sql in MIGRATIONS.items():
        write(pack / "migrations" / name, sql)
    for number in range(databases):
        write(root / f"customers/c{number:05}.yaml", f"id: c{number:05}\n")


def check(cloud: Path, databases: int) -> None:
    """Reads the databases themselves."""
    found = 0
    for path in (cloud / "d1").glob("*.db"):
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        names = [name for (name,) in db.execute("SELECT name FROM d1_migrations ORDER BY id")]
        (count,) = db.execute("SELECT n FROM counter").fetchone()
        db.close()
        assert names == list(MIGRATIONS) and count == 23, (path, names, count)
        found += 1
    assert found == databases, (found, databases)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("flotilla")
    parser.add_argument("--databases", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--wrangler")
    parser.add_argument("--sample", type=int, default=20)
    arguments = parser.parse_args()
    flotilla = os.path.abspath(arguments.flotilla)
    random.seed(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "fleet"
        cloud = root / ".flotilla/local"
        make_fleet(root, arguments.databases)
        environment = {**os.environ, "CLOUDFLARE_API_TOKEN": "t", "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
                       "FLOTILLA_CACHE_DIR": str(Path(folder) / "cache")}
        emulator = subprocess.Popen([flotilla, "local", "--port", "0", "--json", "--token", "t", "--limit", "100000000/300"], cwd=root,
                                    env=environment, stdout=subprocess.PIPE, text=True)
        environment["CLOUDFLARE_API_BASE_URL"] = json.loads(emulator.stdout.readline())["api"]
        try:
            # Without the workers: the figures are of databases.
            deploy = [flotilla, "migrations", "apply", "--yes", "--quiet", "--json"]
            start = time.monotonic()
            whole = None
            kills = 0
            while whole is None:
                run = subprocess.Popen(deploy, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
                try:
                    wait = None if kills >= arguments.kills else random.uniform(0.5, 6)
                    out, _ = run.communicate(timeout=wait)
                    whole = json.loads(out.splitlines()[-1])
                    assert run.returncode == 0, whole
                except subprocess.TimeoutExpired:
                    run.send_signal(signal.SIGKILL)
                    run.communicate()
                    kills += 1
            seconds = time.monotonic() - start
            check(cloud, arguments.databases)
            print("| | databases | migrations | kills | seconds |\n|---|---:|---:|---:|---:|")
            print(f"| flotilla | {arguments.databases} | {3 * arguments.databases} | {kills} | {seconds:.1f} |")
            start = time.monotonic()
            again = subprocess.run(deploy, cwd=root, env=environment, capture_output=True, text=True, check=True)
            assert json.loads(again.stdout.splitlines()[-1])["requests"] == 0
            print(f"| flotilla, nothing to do | {arguments.databases} | 0 | 0 | {time.monotonic() - start:.1f} |")
            if arguments.wrangler:
                sample(arguments, root, environment)
        finally:
            emulator.send_signal(signal.SIGINT)
            emulator.wait()


def sample(arguments: argparse.Namespace, root: Path, environment: dict) -> None:
    """The loop that people write: one wrangler for each database, which has nothing to apply."""
    import urllib.request
    base = environment["CLOUDFLARE_API_BASE_URL"]
    request = urllib.request.Request(f"{base}/accounts/{ACCOUNT}/d1/database?per_page={arguments.sample}",
                                     headers={"authorization": "Bearer t"})
    databases = json.load(urllib.request.urlopen(request))["result"]
    start = time.monotonic()
    for database in databases:
        write(root / "wrangler.json", json.dumps({
            "name": "bench", "account_id": ACCOUNT, "compatibility_date": "2026-06-01",
            "d1_databases": [{"binding": "DB", "database_name": database["name"], "database_id": database["uuid"],
                              "migrations_dir": "packs/tiny/migrations"}],
        }))
        subprocess.run([*arguments.wrangler.split(), "d1", "migrations", "apply", "DB", "--remote"], cwd=root,
                       env={**environment, "CI": "1", "WRANGLER_SEND_METRICS": "false"}, check=True, capture_output=True)
    seconds = time.monotonic() - start
    print(f"| `wrangler d1 migrations apply`, nothing to do | {len(databases)} | 0 | 0 | {seconds:.1f} |")


main()
