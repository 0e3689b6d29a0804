//! A customer's workers as a folder that deploys itself: the files under out/, with what wrangler needs around them, as files
//! or as an archive. The same bytes wherever and whenever it is made. Knows no secret's value.

mod archive;
pub mod deliver;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::build::{self, PackBundles, Project};
use crate::out;
use flotilla_assets::{HEADERS_FILE, IGNORE_FILE, REDIRECTS_FILE, is_pages_worker};
use flotilla_model::bundle::{Bundle, PackBundle};
use flotilla_model::customer::{Database, Worker};
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::digest::Digest;
use flotilla_model::plain_file;
use flotilla_model::spec::Environment;
use flotilla_spec::pack::WRANGLER;

pub use archive::Archive;

/// The file that lists the content of an export.
pub const LIST: &str = "export.json";
/// The workflow that keeps a repository up to date.
pub const WORKFLOW: &str = ".github/workflows/deploy-c15t.yml";

/// Pinned versions, as in the lock file in the same folder.
const PACKAGES: [(&str, &str); 2] = [("typescript", "7.0.2"), ("wrangler", WRANGLER)];
const LOCK: &str = include_str!("export/package-lock.json");
const UPDATE: &str = include_str!("export/update.mjs");
const GITHUB: &str = include_str!("export/github.yml");
const IGNORED: &str = "node_modules\n.wrangler/\nworker-configuration.d.ts\nsecrets.json\n.env\n.dev.vars\n";
/// The name of the lock file's own package, in whose place the customer's id is put.
const NAME: &str = "\"name\": \"export\"";

/// A worker with what was rendered of it.
pub struct Piece<'a> {
    /// The worker.
    pub worker: &'a Worker,
    /// Its files, by name in its folder.
    pub files: Vec<(String, String)>,
    /// Its bundle.
    pub bundle: Bundle,
    /// The runtime that it imports.
    pub runtime: &'a PackBundle,
}

/// Files by path, with `/`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// An export of one customer.
pub struct Export {
    /// The customer's id.
    pub customer: String,
    /// Its files.
    pub files: Files,
    /// Its workers.
    pub workers: Vec<ExportedWorker>,
}

/// A worker of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportedWorker {
    /// Its name.
    pub worker: String,
    /// Its environment.
    pub environment: Environment,
    /// The digest of its bundle.
    pub digest: Digest,
}

/// Renders the exports of some workers, sorted by customer, with the diagnostics of those that can't be rendered. Leaves out/
/// as it is.
pub fn render(project: &Project, bundles: &PackBundles, workers: &[Worker]) -> (Vec<Export>, Vec<Diagnostic>) {
    let mut pieces: BTreeMap<&str, (Vec<Piece<'_>>, Files)> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    let mut workers = workers.to_vec();
    // The account that it is deployed to is up to its owner.
    workers.iter_mut().for_each(|worker| worker.account_id = None);
    for worker in &workers {
        let (of_customer, assets) = pieces.entry(&worker.customer).or_default();
        let rendered = build::files(project, bundles, worker).map_err(|diagnostic| *diagnostic).and_then(|rendered| {
            add_assets(project, bundles.of(worker), worker, assets)?;
            Ok(rendered)
        });
        match rendered {
            Ok((files, bundle)) => of_customer.push(Piece { worker, files, bundle, runtime: bundles.of(worker) }),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    pieces.retain(|_, (pieces, _)| !pieces.is_empty());
    let export = |(customer, (pieces, assets)): (&str, (Vec<Piece<'_>>, Files))| {
        let worker = |piece: &Piece<'_>| ExportedWorker {
            worker: piece.worker.name.clone(),
            environment: piece.worker.environment,
            digest: piece.bundle.digest,
        };
        let (files, workers) = (files(customer, &pieces, assets), pieces.iter().map(worker).collect());
        Export { customer: customer.to_owned(), files, workers }
    };
    (pieces.into_iter().map(export).collect(), diagnostics)
}

/// Adds the static assets of a worker, where its wrangler.jsonc says that they are.
fn add_assets(project: &Project, pack: &PackBundle, worker: &Worker, files: &mut Files) -> Result<(), Diagnostic> {
    let Some((pack, assets)) = pack.assets.as_ref().zip(worker.assets.as_ref()) else { return Ok(()) };
    let list = pack.list_of(assets);
    let folder = match &assets.own {
        Some(_) => format!("{}/{}", worker.folder(), out::OWN_ASSETS),
        None => out::shared_assets(&pack.digests),
    };
    for (path, file) in &list.files {
        let own = assets.own.as_ref().filter(|own| own.list.files.contains_key(path));
        let from = match (own, &pack.folder) {
            (None, Some(shared)) => shared.clone(),
            (own, _) => project.root().join(own.or(assets.own.as_ref()).map_or("", |own| own.directory.as_str())),
        };
        let target = format!("{folder}{path}");
        if files.contains_key(&target) {
            continue;
        }
        let from = from.join(path.trim_start_matches('/'));
        let bytes = plain_file::read_through_links(&from, file.size).map_err(|error| error.to_string());
        let is_same = |bytes: &Vec<u8>| flotilla_assets::hash(bytes, path) == file.hash;
        let bytes =
            bytes.and_then(|bytes| if is_same(&bytes) { Ok(bytes) } else { Err("it changed meanwhile".to_owned()) });
        let bytes = bytes.map_err(|why| {
            let message = format!("the asset can't be read: {why}");
            Diagnostic::error(
                Code::BadAssets,
                Place::file(&from.display().to_string()),
                message,
                "run the same command again",
            )
        })?;
        files.insert(target, bytes);
    }
    for (name, text) in [(HEADERS_FILE, &list.headers), (REDIRECTS_FILE, &list.redirects)] {
        files.extend(text.as_ref().map(|text| (format!("{folder}/{name}"), text.clone().into_bytes())));
    }
    if list.files.keys().any(|path| is_pages_worker(path.trim_start_matches('/'))) {
        files.insert(format!("{folder}/{IGNORE_FILE}"), Vec::new());
    }
    Ok(())
}

/// Returns the files of an export, the list of them included. `assets`: the static assets, by their paths in the export.
pub fn files(customer: &str, pieces: &[Piece<'_>], assets: Files) -> Files {
    let pieces = callees_first(pieces);
    let mut files = assets;
    for piece in &pieces {
        let folder = piece.worker.folder();
        files.extend(piece.files.iter().map(|(name, text)| (format!("{folder}/{name}"), text.clone().into_bytes())));
        files.extend(piece.runtime.files().into_iter().map(|(path, bytes)| (path, bytes.to_vec())));
    }
    let mut text = |path: &str, text: String| drop(files.insert(path.to_owned(), text.into_bytes()));
    text("README.md", readme(customer, &pieces));
    text("package.json", pretty(&package(customer, &pieces)));
    text("package-lock.json", LOCK.replace(NAME, &format!("\"name\": \"{customer}\"")));
    text("tsconfig.json", pretty(&types()));
    text("update.mjs", UPDATE.to_owned());
    text(".gitignore", IGNORED.to_owned());
    let sums: Map<String, Value> = files.iter().map(|(path, bytes)| (path.clone(), sum(bytes).into())).collect();
    let workers: Vec<Value> = pieces.iter().map(|piece| listed(piece)).collect();
    let list = pretty(&json!({"customer": customer, "workers": workers, "files": sums}));
    files.insert(LIST.to_owned(), list.into_bytes());
    files
}

/// Returns a worker's entry of the list.
fn listed(piece: &Piece<'_>) -> Value {
    json!({
        "worker": piece.worker.name,
        "environment": piece.worker.environment,
        "folder": piece.worker.folder(),
        "digest": piece.bundle.digest,
    })
}

/// Returns the SHA-256 of bytes, as `sha256sum` writes it.
pub fn sum(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Returns the workflow of GitHub Actions that fetches the archive at an address; `action` gives the pinned version of one.
pub fn workflow(url: &str, action: impl Fn(&str) -> String) -> String {
    let protocol = if url.starts_with("https:") { "https" } else { "http" };
    let mut text = GITHUB.replace("ARCHIVE_URL: ARCHIVE\n", &format!("ARCHIVE_URL: {}\n", json!(url)));
    text = text.replace("'=PROTO'", &format!("'={protocol}'"));
    for name in ["CHECKOUT", "SETUP-NODE"] {
        text = text.replace(&format!("@{name}"), &format!("@{}", action(name)));
    }
    text
}

/// Workers in an order in which each is deployed after those that it binds.
fn callees_first<'p, 'a>(pieces: &'p [Piece<'a>]) -> Vec<&'p Piece<'a>> {
    let mut left: Vec<&Piece<'_>> = pieces.iter().collect();
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let names: BTreeSet<&str> = left.iter().map(|piece| piece.worker.name.as_str()).collect();
        let free = |piece: &&Piece<'_>| piece.worker.services.values().all(|to| !names.contains(to.as_str()));
        // In a cycle, none of them can be first: wrangler needs a deploy without one of the bindings before.
        let index = left.iter().position(free).unwrap_or(0);
        sorted.push(left.remove(index));
    }
    sorted
}

/// Returns the suffix of a worker's scripts; empty if it is the only worker.
fn suffix(pieces: &[&Piece<'_>], worker: &Worker) -> String {
    match (pieces.len(), &worker.role) {
        (1, _) => String::new(),
        (_, None) => format!(":{}", worker.environment),
        (_, Some(role)) => format!(":{}:{role}", worker.environment),
    }
}

fn package(customer: &str, pieces: &[&Piece<'_>]) -> Value {
    let mut scripts = Map::new();
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for piece in pieces {
        let (worker, suffix) = (piece.worker, suffix(pieces, piece.worker));
        let folder = worker.folder();
        let config = format!("--config {folder}/wrangler.jsonc");
        let namespace =
            worker.namespace.as_ref().map(|name| format!(" --dispatch-namespace {name}")).unwrap_or_default();
        let mut add = |what: &'static str, command: String| {
            scripts.insert(format!("{what}{suffix}"), command.into());
            all.entry(what).or_default().push(format!("npm run {what}{suffix}"));
        };
        add("deploy", format!("wrangler deploy {config}{namespace}"));
        add("types", format!("wrangler types {folder}/worker-configuration.d.ts {config}"));
        if !worker.secrets.is_empty() {
            let put = |name: &String| format!("wrangler secret put {name} {config}");
            add("secrets", worker.secrets.keys().map(put).collect::<Vec<_>>().join(" && "));
        }
    }
    if pieces.len() > 1 {
        scripts.extend(all.into_iter().map(|(what, commands)| (what.to_owned(), commands.join(" && ").into())));
    }
    scripts.insert("check".to_owned(), "tsc --project .".into());
    json!({
        "name": customer, "private": true, "type": "module", "engines": {"node": ">=22"}, "scripts": scripts,
        "dependencies": PACKAGES.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect::<Map<_, _>>(),
    })
}

fn types() -> Value {
    json!({
        "compilerOptions": {
            "strict": true, "exactOptionalPropertyTypes": true, "noUncheckedIndexedAccess": true,
            "verbatimModuleSyntax": true, "target": "es2022", "module": "esnext", "moduleResolution": "bundler",
            "lib": ["es2022", "webworker"], "types": [], "noEmit": true,
        },
        "include": ["*/*/index.ts", "*/*/*/index.ts"],
        "exclude": ["node_modules"],
    })
}

fn readme(customer: &str, pieces: &[&Piece<'_>]) -> String {
    let mut text = format!(
        "# {customer}\n\nCloudflare Workers, ready to be deployed to your own account. flotilla generated these files: \
         request changes from the people who sent you the export.\n\n| worker | environment | folder | digest |\n|---|---|---|---|\n"
    );
    for piece in pieces {
        let Worker { name, environment, .. } = piece.worker;
        text += &format!("| `{name}` | {environment} | `{}` | `{}` |\n", piece.worker.folder(), piece.bundle.digest);
    }
    text += "\n## Deploy\n\nYou need Node.js 22.12 or newer.\n\n    npm ci --ignore-scripts\n    export CLOUDFLARE_API_TOKEN=… \
             CLOUDFLARE_ACCOUNT_ID=…\n    npm run deploy\n\nThe token needs the permission `Workers Scripts: Edit`, and `Workers Routes: Edit` where there are \
             domains or routes. A deployed worker has its digest, as listed above, in the variable `FLOTILLA_DIGEST`.\n";
    let with_secrets: Vec<_> = pieces.iter().filter(|piece| !piece.worker.secrets.is_empty()).collect();
    if !with_secrets.is_empty() {
        text += "\n## Secrets\n\nNo secret is in this folder. Set them once; wrangler asks for each value:\n\n    npm run secrets\n\n\
                 | worker | secrets |\n|---|---|\n";
        for piece in with_secrets {
            let names: Vec<String> = piece.worker.secrets.keys().map(|name| format!("`{name}`")).collect();
            text += &format!("| `{}` | {} |\n", piece.worker.name, names.join(" "));
        }
    }
    let mut needs: Vec<String> = Vec::new();
    let own: BTreeSet<&str> = pieces.iter().map(|piece| piece.worker.name.as_str()).collect();
    for Piece { worker, .. } in pieces {
        let name = &worker.name;
        if let Database::D1 { name: database, id, .. } = &worker.database {
            needs.push(match id {
                Some(_) => {
                    format!("`{name}`: the D1 database `{database}`; its id in wrangler.jsonc is that of your account")
                }
                None => {
                    format!("`{name}`: the D1 database `{database}`, which wrangler finds by its name, or creates")
                }
            });
        }
        for (binding, leads) in &worker.bindings {
            let kind = leads.kind().map_or("binding", |kind| kind.wrangler);
            needs.push(format!("`{name}`: the resource that `{binding}` points to (`{kind}` in wrangler.jsonc)"));
        }
        let hosts = worker.domains.iter().cloned().chain(worker.routes.iter().map(|route| route.pattern.clone()));
        let hosts: Vec<String> = hosts.map(|host| format!("`{host}`")).collect();
        if !hosts.is_empty() {
            needs.push(format!("`{name}`: the zone of {}", hosts.join(", ")));
        }
        let foreign = worker.services.values().filter(|to| !own.contains(to.as_str()));
        needs.extend(foreign.map(|to| format!("`{name}`: the worker `{to}`, which isn't part of this export")));
    }
    if !needs.is_empty() {
        text += "\n## What the account needs\n\n";
        text += &needs.iter().map(|need| format!("- {need}\n")).collect::<String>();
    }
    text += "\n## Update\n\nUnpack a newer export next to this folder, and run\n\n    node update.mjs FOLDER\n    npm run deploy\n\n`update.mjs` compares the new export with \
             the SHA-256 of each of its files before it replaces anything. If the export contains \
             `.github/workflows/deploy-c15t.yml` and this folder is a repository on GitHub, that workflow updates it every six hours.\n\n`npm run check` checks the types, \
             `npm run types` writes the types of the bindings.\n";
    text
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("BUG: JSON") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    use flotilla_model::bundle;
    use flotilla_model::customer::sample;

    fn piece<'a>(worker: &'a Worker, runtime: &'a PackBundle) -> Piece<'a> {
        let module = format!("// {}\n", worker.name);
        let bundle = bundle::bundle(worker, &module, runtime);
        let files = [("index.ts", module), ("wrangler.jsonc", "{}\n".to_owned())];
        let files = files.map(|(name, text)| (name.to_owned(), text)).to_vec();
        Piece { worker, files, bundle, runtime }
    }

    fn runtime() -> PackBundle {
        PackBundle::new("consent", b"export {};\n".to_vec(), b"export {};\n".to_vec())
    }

    #[test]
    fn the_lock_file_is_of_the_pinned_packages() {
        let lock: Value = serde_json::from_str(LOCK).unwrap();
        assert!(LOCK.contains(NAME));
        for (name, version) in PACKAGES {
            assert_eq!(lock["packages"][""]["dependencies"][name], version);
            assert_eq!(lock["packages"][format!("node_modules/{name}")]["version"], version);
        }
        assert_eq!(lock["packages"][""]["dependencies"].as_object().unwrap().len(), PACKAGES.len());
    }

    #[test]
    fn who_is_called_is_deployed_first_and_each_file_is_listed() {
        let (mut web, mut api) = (sample("acme"), sample("acme"));
        (web.role, web.name) = (Some("web".to_owned()), "acme-web".to_owned());
        (api.role, api.name) = (Some("api".to_owned()), "acme-api".to_owned());
        web.services =
            BTreeMap::from([("API".to_owned(), api.name.clone()), ("AUTH".to_owned(), "elsewhere".to_owned())]);
        api.secrets = BTreeMap::from([("KEY".to_owned(), "OTHER_NAME".to_owned())]);
        let runtime = runtime();
        let files = files("acme", &[piece(&web, &runtime), piece(&api, &runtime)], Files::new());
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        let scripts = &json("package.json")["scripts"];
        assert_eq!(scripts["deploy"], "npm run deploy:production:api && npm run deploy:production:web");
        assert_eq!(scripts["deploy:production:web"], "wrangler deploy --config production/acme/web/wrangler.jsonc");
        assert_eq!(scripts["secrets"], "npm run secrets:production:api");
        assert_eq!(
            scripts["secrets:production:api"],
            "wrangler secret put KEY --config production/acme/api/wrangler.jsonc"
        );
        let list = json(LIST);
        let listed: Vec<&String> = list["files"].as_object().unwrap().keys().collect();
        assert_eq!(listed, files.keys().filter(|path| *path != LIST).collect::<Vec<_>>());
        let readme = String::from_utf8_lossy(&files["README.md"]).into_owned();
        assert!(readme.contains("| `acme-api` | `KEY` |") && !readme.contains("OTHER_NAME"), "{readme}");
        assert!(readme.contains("the worker `elsewhere`, which isn't part of this export"), "{readme}");
    }

    #[test]
    fn archives_have_nothing_of_the_time_and_the_machine() {
        let (worker, runtime) = (sample("acme"), runtime());
        let all = files("acme", &[piece(&worker, &runtime)], Files::new());
        let tar = Archive::TarGz.pack("acme", &all).unwrap();
        // Of the header of gzip: no flags, no time, best compression, an unknown system.
        assert_eq!(tar[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(tar.as_slice()));
        let mut found = Files::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            assert_eq!((header.mode().unwrap(), header.entry_type()), (0o644, tar::EntryType::Regular));
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            found.insert(path.strip_prefix("acme/").unwrap().to_owned(), bytes);
        }
        assert!(found == all);
        let zipped = Archive::Zip.pack("acme", &all).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(&zipped)).unwrap();
        let mut found = Files::new();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).unwrap();
            let path = file.name().unwrap().strip_prefix("acme/").unwrap().to_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            found.insert(path, bytes);
        }
        assert!(found == all);
        assert_eq!(
            (tar, zipped),
            (Archive::TarGz.pack("acme", &all).unwrap(), Archive::Zip.pack("acme", &all).unwrap())
        );
    }
}
