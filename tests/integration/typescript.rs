//! Shows: tsc takes every generated module in its strictest mode, with no packages at hand, and names each mistake.

use std::process::Command;

use serde_json::json;

use crate::support::{Project, Run, output};
use crate::tools;

/// The modules to check, from the project's folder.
fn compile(project: &Project, include: &[&str]) -> Run {
    let options = json!({
        "strict": true, "exactOptionalPropertyTypes": true, "noUncheckedIndexedAccess": true,
        "verbatimModuleSyntax": true, "noUnusedLocals": true, "target": "es2022", "module": "esnext",
        "moduleResolution": "bundler", "lib": ["es2022", "webworker"], "types": [], "noEmit": true,
    });
    project.write("tsconfig.json", json!({"compilerOptions": options, "include": include}).to_string());
    let mut tsc: Command = tools::tsc();
    output(tsc.args(["-p", ".", "--pretty", "false"]).current_dir(project.root()))
}

#[test]
fn every_generated_module_compiles() {
    let project = Project::sample();
    let built = project.run(&["build", "--format", "json"]).exits(0).json();
    let checked = compile(&project, &["out/**/index.ts"]).exits(0);
    assert_eq!(checked.stdout, "");
    // That it looked at all of them shows where one is broken.
    let modules: Vec<String> = project.files("out").into_keys().filter(|name| name.ends_with("/index.ts")).collect();
    assert_eq!(built["workers"], modules.len());
    for module in &modules {
        project.edit(&format!("out/{module}"), "database: {", "databases: {");
    }
    let broken = compile(&project, &["out/**/index.ts"]).exits(1).stdout;
    for module in modules {
        assert!(broken.contains(&format!("out/{module}(")), "{module} was not looked at:\n{broken}");
    }
}

#[test]
fn a_mistake_in_a_module_is_named() {
    let project = Project::sample();
    project.run(&["build", "acme", "--env", "production"]).exits(0);
    let module = project.read("out/production/acme/index.ts");
    // What is wrong, what was right, and what the error has to say.
    let mistakes = [
        ("setting", "pixelId:", "pixlId:", &["'pixlId'", "'pixelId'"][..]),
        ("value", "pixelId: \"123456789012345\"", "pixelId: 123", &["'number'", "'string'"]),
        ("missing", "apiKey: \"phc_acme0000000000000000000000000000\"", "", &["apiKey"]),
        ("type", "type: \"meta-pixel\"", "type: \"meta-pixle\"", &["\"meta-pixle\"", "\"meta-pixel\""]),
        ("level", "logLevel: \"info\"", "logLevel: \"verbose\"", &["\"verbose\"", "\"info\""]),
        ("purpose", "[\"marketing\"]", "[\"advertising\"]", &["\"advertising\""]),
        ("secret", "{ secret: \"META_PIXEL_ACCESS_TOKEN\" }", "\"EAAB0literal\"", &["'string'", "secret"]),
    ];
    for (name, right, wrong, _) in mistakes {
        assert!(module.contains(right), "{right}");
        project.write(&format!("out/mistakes/{name}/index.ts"), module.replacen(right, wrong, 1));
    }
    let found = compile(&project, &["out/**/index.ts"]).exits(1).stdout;
    assert!(!found.contains("out/production/"), "{found}");
    for (name, right, wrong, says) in mistakes {
        let line = 1 + module[..module.find(right).unwrap()].matches('\n').count();
        let errors: Vec<&str> =
            found.split("\nout/").filter(|error| error.contains(&format!("mistakes/{name}/"))).collect();
        assert_eq!(errors.len(), 1, "{wrong}:\n{found}");
        assert!(errors[0].contains(&format!("index.ts({line},")), "{wrong}, line {line}: {}", errors[0]);
        for part in says {
            assert!(errors[0].contains(part), "{wrong}: the error doesn't say {part}: {}", errors[0]);
        }
    }
}
