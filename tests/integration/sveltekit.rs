//! Shows: a site of a real framework with two workers beside it, as a team has them: SvelteKit's build, three wrangler configurations, and
//! each worker calls the other two by service bindings. It is imported, deployed to the emulator, verified, previewed, and the preview removed.

use std::process::Command;

use reqwest::Method;
use reqwest::blocking::Response;
use serde_json::{Value, json};

use crate::bundler::variables;
use crate::folders::temporary_folder;
use crate::import::{link, told};
use crate::support::{Project, Run, output};
use crate::tools::{Local, node, packages};

/// The workers: folder, name, binding by which the others call it, host. Each is bound to the two others.
const WORKERS: [(&str, &str, &str, &str); 3] = [
    ("apps/web", "codex-web", "WEB", "codex"),
    ("workers/hooks", "webhook-handler", "HOOKS", "api"),
    ("workers/auth", "auth-worker", "AUTH", "auth"),
];

/// What each worker answers at `/peers`: the health of the two others. `env` is its environment.
const PEERS: &str = "
export const health = (env) => ({ status: 'healthy', environment: env.ENVIRONMENT, digest: env.FLOTILLA_DIGEST });
export async function peers(env) {
  const found = {};
  const ask = async (answer) => (await (await answer).json()).environment;
  for (const name of ['WEB', 'HOOKS', 'AUTH']) {
    if (env[name]) found[name] = await ask(env[name].fetch('https://peer/health'));
  }
  return found;
}
";

/// The code of a worker beside the site.
const PLAIN: &str = "import { health, peers } from './peers.js';
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === '/health') return Response.json(health(env));
    if (pathname === '/peers') return Response.json(await peers(env));
    return new Response('nothing here', { status: 404 });
  },
};
";

/// A worker's wrangler configuration.
fn config(index: usize) -> String {
    let (folder, name, _, own) = WORKERS[index];
    let mut text = format!("name = \"{name}\"\ncompatibility_date = \"2026-01-15\"\n");
    text += match folder {
        "apps/web" => {
            "main = \".svelte-kit/cloudflare/_worker.js\"\ncompatibility_flags = [\"nodejs_als\"]\n\
             [assets]\nbinding = \"ASSETS\"\ndirectory = \".svelte-kit/cloudflare\"\n"
        }
        _ => "main = \"src/index.js\"\n",
    };
    text += "[observability]\nenabled = true\n";
    let called = WORKERS.iter().filter(|worker| worker.1 != name);
    for (environment, suffix) in [("production", ""), ("staging", "-staging")] {
        let host = |host: &str| format!("{host}{suffix}.studio.example");
        text += &format!("[env.{environment}]\nname = \"{name}-{environment}\"\n");
        text += &format!("routes = [{{ pattern = \"{}\", custom_domain = true }}]\n", host(own));
        text += &format!("vars = {{ ENVIRONMENT = \"{environment}\" }}\n");
        for (_, other, binding, _) in called.clone() {
            let service = format!("service = \"{other}-{environment}\"");
            text += &format!("[[env.{environment}.services]]\nbinding = \"{binding}\"\n{service}\n");
        }
    }
    text
}

/// The git repository of the team: the site is built, nothing else has been done.
fn studio() -> Project {
    let project = Project::at(temporary_folder());
    output(Command::new("git").args(["init", "-q"]).arg(project.root())).exits(0);
    for (index, (folder, ..)) in WORKERS.iter().enumerate() {
        project.write(&format!("{folder}/wrangler.toml"), config(index));
    }
    for folder in ["workers/auth/src", "workers/hooks/src"] {
        project.write(&format!("{folder}/index.js"), PLAIN).write(&format!("{folder}/peers.js"), PEERS);
    }
    let page = "<script>\n  const { data } = $props();\n</script>\n<h1>Codex of {data.environment}</h1>\n";
    let load = "export const load = ({ platform }) => ({ environment: platform.env.ENVIRONMENT });\n";
    let answer = |what: &str| {
        format!(
            "import {{ json }} from '@sveltejs/kit';\nimport {{ health, peers }} from '$lib/peers.js';\n\
             export const GET = async ({{ platform: {{ env }} }}) => json(await {what}(env));\n"
        )
    };
    project
        .write("package.json", "{ \"name\": \"studio\", \"private\": true }\n")
        .write(".gitignore", "node_modules\n.svelte-kit\n.flotilla\n")
        .write("apps/web/package.json", "{ \"name\": \"web\", \"private\": true, \"type\": \"module\" }\n")
        .write(
            "apps/web/svelte.config.js",
            "import adapter from '@sveltejs/adapter-cloudflare';\nexport default { kit: { adapter: adapter() } };\n",
        )
        .write(
            "apps/web/vite.config.js",
            "import { sveltekit } from '@sveltejs/kit/vite';\nexport default { plugins: [sveltekit()] };\n",
        )
        .write(
            "apps/web/src/app.html",
            "<!doctype html>\n<html><head>%sveltekit.head%</head><body>%sveltekit.body%</body></html>\n",
        )
        .write("apps/web/src/routes/+page.svelte", page)
        .write("apps/web/src/routes/+page.server.js", load)
        .write("apps/web/src/lib/peers.js", PEERS)
        .write("apps/web/src/routes/health/+server.js", answer("health"))
        .write("apps/web/src/routes/peers/+server.js", answer("peers"))
        .write("apps/web/static/robots.txt", "User-agent: *\n");
    // A folder of the project's own with links, as vite and SvelteKit write to it.
    std::fs::create_dir(project.path("node_modules")).expect("a folder");
    for entry in std::fs::read_dir(packages().join("node_modules")).expect("the packages").flatten() {
        link(&entry.path(), &project.path("node_modules").join(entry.file_name()));
    }
    let mut build = Command::new(node());
    build.arg(project.path("node_modules/vite/bin/vite.js")).arg("build").current_dir(project.path("apps/web"));
    build.env_clear().envs(variables(&project)).env("HOME", project.root()).env("NODE_ENV", "production");
    output(&mut build).exits(0);
    project
}

#[track_caller]
fn run(project: &Project, arguments: &[&str], code: i32) -> Run {
    output(project.command(arguments).envs(variables(project))).exits(code)
}

/// What the emulator answers at a host: the status, the type and the text.
fn ask(local: &Local, host: &str, path: &str) -> (u16, String, String) {
    let answer: Response = local.request(Method::GET, host, path).send().expect("an answer");
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    (answer.status().as_u16(), kind, answer.text().expect("a body"))
}

/// Asserts that the three workers at these hosts serve what they have, and call each other in this environment.
#[track_caller]
fn serve(local: &Local, hosts: [&str; 3], environment: &str) {
    let (status, kind, page) = ask(local, hosts[0], "/");
    assert_eq!((status, kind.as_str()), (200, "text/html"), "{page}");
    assert!(page.contains(&format!("Codex of {environment}")), "{page}");
    assert_eq!(
        ask(local, hosts[0], "/robots.txt"),
        (200, "text/plain; charset=utf-8".to_owned(), "User-agent: *\n".to_owned())
    );
    // A script of the page, whose name is a hash.
    let script = page.split("_app/immutable/entry/start.").nth(1).and_then(|rest| rest.split('"').next());
    let script = format!("/_app/immutable/entry/start.{}", script.expect("a script"));
    assert_eq!(ask(local, hosts[0], &script).0, 200, "{script}");
    for (host, (_, name, own, _)) in hosts.iter().zip(WORKERS) {
        let json = |path: &str| -> Value {
            let (status, _, text) = ask(local, host, path);
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}{path}: {status} {error} {text}"))
        };
        let health = json("/health");
        assert_eq!((&health["status"], &health["environment"]), (&json!("healthy"), &json!(environment)), "{name}");
        let others = WORKERS.iter().filter(|worker| worker.2 != own);
        let expected: Value = others.map(|worker| (worker.2.to_owned(), json!(environment))).collect();
        assert_eq!(json("/peers"), expected, "{name} calls the preview's own, or production's own");
    }
}

#[test]
fn a_sveltekit_site_and_its_workers_from_import_to_preview() {
    let project = studio();
    let imported = run(&project, &["import", ".", "--format", "json"], 0).json();
    let top = |(folder, name, ..): (&str, &str, &str, &str)| {
        let what =
            format!("the top level is read for what environments inherit; its own worker, `{name}`, is not imported");
        format!("note {folder}/wrangler.toml:1: {what}")
    };
    assert_eq!(told(&imported), [top(WORKERS[0]), top(WORKERS[2]), top(WORKERS[1])], "nothing is lost");
    assert_eq!((&imported["customers"], &imported["packs"]), (&json!(1), &json!(3)), "{imported}");
    run(&project, &["check"], 0);
    let built = run(&project, &["build", "--format", "json"], 0).json();
    assert_eq!(built["workers"], 6, "{built}");

    let local = Local::start(&project, None);
    let deployed = run(&project, &["deploy", "--local", "--format", "json"], 0).json();
    assert_eq!((&deployed["applied"], &deployed["failed"]), (&json!(6), &json!(0)), "{deployed}");
    let production = ["codex.studio.example", "api.studio.example", "auth.studio.example"];
    serve(&local, production, "production");
    let staging = ["codex-staging.studio.example", "api-staging.studio.example", "auth-staging.studio.example"];
    serve(&local, staging, "staging");
    let again = run(&project, &["deploy", "--local", "--format", "json"], 0).json();
    assert_eq!((&again["applied"], &again["requests"]), (&json!(0), &json!(0)), "{again}");

    // What import can't know is what a healthy worker answers.
    let unknown = run(&project, &["verify", "--local", "--deadline", "0"], 0).stdout;
    assert!(unknown.contains("not checked: 6 workers: no request is defined in `verify` of the pack"), "{unknown}");
    for (pack, ..) in project.files("templates").iter().filter(|(path, _)| path.ends_with("/pack.yaml")) {
        let path = format!("templates/{pack}");
        let text = project.read(&path);
        let probe = "{ status: healthy, environment: '{environment}', digest: '{digest}' }";
        project.write(&path, format!("{text}verify:\n  - {{ name: health, path: /health, json: {probe} }}\n"));
    }
    let verified = run(&project, &["verify", "--local", "--deadline", "120", "--format", "json"], 0).json();
    let counts = ["passed", "failed", "skipped"].map(|key| verified[key].clone());
    assert_eq!(counts, [json!(6), json!(0), json!(0)], "{verified}");

    let up = run(&project, &["preview", "up", "--id", "42", "--local", "--yes", "--format", "json"], 0).json();
    assert_eq!((&up["applied"], &up["unhealthy"]), (&json!(3), &json!(0)), "{up}");
    let preview =
        ["codex-preview-42.studio.example", "api-preview-42.studio.example", "auth-preview-42.studio.example"];
    serve(&local, preview, "preview");
    serve(&local, production, "production");

    let down = run(&project, &["preview", "down", "--id", "42", "--local", "--yes", "--format", "json"], 0).json();
    assert_eq!((&down["workers"], &down["hosts"]), (&json!(3), &json!(3)), "{down}");
    assert_eq!(ask(&local, preview[0], "/robots.txt").0, 404);
    serve(&local, production, "production");
}
