//! Shows: code whose parts are anywhere in a repository is imported, bundled and deployed without a finding: workspaces, `imports` of a
//! package.json, `paths` of a tsconfig, packages of each package manager, modules that import each other, Node.js's own modules, types.

use serde_json::{Value, json};

use crate::import::{link, path_variable, told};
use crate::imported_projects::project;
use crate::support::{Project, output};
use crate::tools::Local;

/// A project: its folder, the main module, further lines of its wrangler.toml, its files, and what the worker answers.
struct Kind {
    folder: &'static str,
    main: &'static str,
    more: &'static str,
    files: &'static [(&'static str, &'static str)],
    answer: &'static str,
}

const KINDS: [Kind; 12] = [
    Kind {
        folder: "subpath",
        main: "src/index.ts",
        more: "",
        files: &[
            ("package.json", r##"{ "name": "subpath", "imports": { "#greetings/*": "./src/words/*" } }"##),
            ("src/words/hello.ts", "export const hello = () => \"by imports of a package.json\";\n"),
            (
                "src/index.ts",
                "import { hello } from \"#greetings/hello.ts\";\nexport default { fetch: () => new Response(hello()) };\n",
            ),
        ],
        answer: "by imports of a package.json",
    },
    Kind {
        folder: "apps/api",
        main: "src/index.ts",
        more: "",
        files: &[
            ("package.json", r#"{ "name": "api", "dependencies": { "@store/words": "workspace:*" } }"#),
            (
                "src/index.ts",
                "import { hello } from \"@store/words\";\nexport default { fetch: () => new Response(hello()) };\n",
            ),
            ("../../libs/words/package.json", r#"{ "name": "@store/words", "exports": { ".": "./src/index.ts" } }"#),
            ("../../libs/words/src/index.ts", "export const hello = (): string => \"by a workspace's package\";\n"),
        ],
        answer: "by a workspace's package",
    },
    Kind {
        folder: "apps/paths",
        main: "src/index.ts",
        more: "",
        files: &[
            ("../../tsconfig.base.json", r#"{ "compilerOptions": { "paths": { "@core/*": ["./libs/core/*"] } } }"#),
            ("tsconfig.json", r#"{ "extends": "../../tsconfig.base.json", "compilerOptions": { "strict": true } }"#),
            ("../../libs/core/hello.ts", "export const hello = () => \"by paths that a tsconfig extends\";\n"),
            (
                "src/index.ts",
                "import { hello } from \"@core/hello\";\nexport default { fetch: () => new Response(hello()) };\n",
            ),
        ],
        answer: "by paths that a tsconfig extends",
    },
    Kind {
        folder: "optional",
        main: "index.js",
        more: "",
        files: &[
            ("package.json", r#"{ "name": "optional", "dependencies": { "mapper": "1.0.0", "driver": "1.0.0" } }"#),
            (
                "node_modules/mapper/package.json",
                r#"{ "name": "mapper", "version": "1.0.0", "exports": { "./driver": "./driver.js" }, "peerDependencies": { "driver": "*" }, "peerDependenciesMeta": { "driver": { "optional": true } } }"#,
            ),
            ("node_modules/mapper/driver.js", "import driver from \"driver\";\nexport const map = () => driver;\n"),
            ("node_modules/driver/package.json", r#"{ "name": "driver", "version": "1.0.0", "main": "main.js" }"#),
            ("node_modules/driver/main.js", "module.exports = \"by a package that a package imports\";\n"),
            (
                "index.js",
                "import { map } from \"mapper/driver\";\nexport default { fetch: () => new Response(map()) };\n",
            ),
        ],
        answer: "by a package that a package imports",
    },
    Kind {
        folder: "transitive",
        main: "index.js",
        more: "",
        files: &[
            // `inner` is in the lock file alone.
            ("package.json", r#"{ "name": "transitive", "dependencies": { "outer": "1.0.0" } }"#),
            ("package-lock.json", r#"{ "name": "transitive", "lockfileVersion": 3, "packages": {} }"#),
            ("node_modules/outer/package.json", r#"{ "name": "outer", "dependencies": { "inner": "1.0.0" } }"#),
            ("node_modules/inner/package.json", r#"{ "name": "inner", "main": "inner.js" }"#),
            ("node_modules/inner/inner.js", "export const inner = \"by a package of a package\";\n"),
            ("index.js", "import { inner } from \"inner\";\nexport default { fetch: () => new Response(inner) };\n"),
        ],
        answer: "by a package of a package",
    },
    Kind {
        folder: "nearest/dev",
        main: "../src/index.ts",
        more: "",
        files: &[
            ("package.json", r#"{ "name": "dev" }"#),
            ("../package.json", r#"{ "name": "nearest", "dependencies": { "near": "1.0.0" } }"#),
            ("../node_modules/near/package.json", r#"{ "name": "near", "main": "near.js" }"#),
            ("../node_modules/near/near.js", "export const near = \"by the packages beside the code\";\n"),
            (
                "../src/index.ts",
                "import { near } from \"near\";\nexport default { fetch: () => new Response(near) };\n",
            ),
        ],
        answer: "by the packages beside the code",
    },
    Kind {
        folder: "deleted",
        main: "index.ts",
        more: "[[migrations]]\ntag = \"v1\"\nnew_sqlite_classes = [\"Counter\"]\n[[migrations]]\ntag = \"v2\"\ndeleted_classes = [\"Counter\"]\n",
        files: &[("index.ts", "export default { fetch: () => new Response(\"without its class\") };\n")],
        answer: "without its class",
    },
    Kind {
        folder: "types",
        main: "index.ts",
        more: "",
        files: &[(
            "index.ts",
            "import type { Point } from \"geometry\";\nimport { type Line } from \"geometry\";\nconst here: Point = { x: 1 };\nexport default { fetch: () => new Response(`types of ${Object.keys(here as unknown as Line)}`) };\n",
        )],
        answer: "types of x",
    },
    Kind {
        folder: "pinned",
        main: "index.ts",
        more: "",
        files: &[
            ("package.json", r#"{ "name": "pinned", "dependencies": { "router": "^5.0.0" } }"#),
            ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
            (
                "node_modules/.pnpm/router@5.0.9/node_modules/router/package.json",
                r#"{ "name": "router", "version": "5.0.9", "exports": "./router.js" }"#,
            ),
            (
                "node_modules/.pnpm/router@5.0.9/node_modules/router/router.js",
                "export const router = \"by pnpm's version\";\n",
            ),
            ("index.ts", "import { router } from \"router\";\nexport default { fetch: () => new Response(router) };\n"),
        ],
        answer: "by pnpm's version",
    },
    Kind {
        folder: "nodejs",
        main: "index.ts",
        // Of that date, wrangler has stand-ins for modules that workerd lacks.
        more: "compatibility_flags = [\"nodejs_compat\"]\n",
        files: &[(
            "index.ts",
            "import { EOL } from \"node:os\";\nimport { existsSync } from \"node:fs\";\nexport default { fetch: () => new Response(`node ${EOL.length} ${typeof existsSync}`) };\n",
        )],
        answer: "node 1 function",
    },
    Kind {
        folder: "circle",
        main: "./index.ts",
        more: "",
        files: &[
            ("src/hello.ts", "import { version } from \"..\";\nexport const hello = () => `version ${version()}`;\n"),
            (
                "index.ts",
                "import { hello } from \"./src/hello\";\nexport const version = () => 1;\nexport default { fetch: () => new Response(hello()) };\n",
            ),
        ],
        answer: "version 1",
    },
    Kind {
        folder: "modules",
        main: "index.js",
        more: "[[rules]]\ntype = \"Text\"\nglobs = [\"**/*.md\"]\n",
        files: &[
            ("page.md", "by rules of modules"),
            ("index.js", "import page from \"./page.md\";\nexport default { fetch: () => new Response(page) };\n"),
        ],
        answer: "by rules of modules",
    },
];

/// The name of a project's worker.
fn name(kind: &Kind) -> String {
    kind.folder.replace('/', "-")
}

#[test]
fn code_is_found_wherever_wrangler_finds_it() {
    let project = project(&[]);
    for kind in &KINDS {
        let date = if kind.folder == "nodejs" { "2025-04-01" } else { "2026-01-15" };
        let config = format!(
            "name = \"{}\"\nmain = \"{}\"\ncompatibility_date = \"{date}\"\n{}",
            name(kind),
            kind.main,
            kind.more
        );
        project.write(&format!("{}/wrangler.toml", kind.folder), config);
        for (file, text) in kind.files {
            project.write(&format!("{}/{file}", kind.folder), text);
        }
    }
    // As package managers lay out workspaces, and pnpm its store.
    std::fs::create_dir_all(project.path("node_modules/@store")).unwrap();
    link(&project.path("libs/words"), &project.path("node_modules/@store/words"));
    let stored = project.path("pinned/node_modules/.pnpm/router@5.0.9/node_modules/router");
    link(&stored, &project.path("pinned/node_modules/router"));

    let run = |arguments: &[&str], local: Option<&Local>| {
        let mut command = project.command(&[&["-C", "fleet"], arguments].concat());
        command.envs([path_variable()]);
        if let Some(local) = local {
            command.envs([
                ("CLOUDFLARE_API_BASE_URL", format!("{}/client/v4", local.origin)),
                ("CLOUDFLARE_API_TOKEN", local.token.clone()),
                ("CLOUDFLARE_ACCOUNT_ID", "0123456789abcdef0123456789abcdef".to_owned()),
            ]);
        }
        output(&mut command)
    };
    let imported = run(&["import", ".", "--exclude", "fleet", "--format", "json"], None).exits(0).json();
    assert_eq!(told(&imported), [""; 0]);
    assert_eq!(imported["steps"], json!([]), "everything is installed");
    assert_eq!(imported["packs"], KINDS.len(), "{imported}");
    let checked = run(&["check"], None).exits(0);
    assert!(!checked.stderr.contains("warning"), "{checked:?}");
    let local = Local::start(&Project::empty(), None);
    let deployed = run(&["deploy", "--yes", "--format", "json"], Some(&local)).exits(0).json();
    assert_eq!(deployed["applied"], KINDS.len(), "{deployed}");
    for kind in &KINDS {
        let answer = local.get(&name(kind), "/").text().unwrap();
        assert_eq!(answer, kind.answer, "{}", kind.folder);
    }
    // A source that only a tsconfig or a workspace leads to decides its bundle, too.
    project.edit("libs/core/hello.ts", "by paths", "changed, by paths");
    let plan = run(&["plan", "--format", "json"], Some(&local)).exits(0).json();
    let changed: Vec<&Value> = plan["changes"].as_array().unwrap().iter().map(|change| &change["worker"]).collect();
    assert_eq!(changed, ["apps-paths"], "{plan}");
    assert!(plan.to_string().contains("libs/core/hello.ts changed"), "{plan}");
}
