//! The env files of the layout `config/base/*.env` and `config/customers/<name>/<environment>.env`, with the names of fields
//! that tools gave them at different times. Knows which customer they belong to; not how a worker uses them.

use std::collections::BTreeMap;
use std::path::Path;

use flotilla_model::credential;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_spec::envfile;
use flotilla_spec::tree::Tree;
use flotilla_spec::yaml::Kind;

use super::Findings;
use super::ids::{environment, named, slug};
use flotilla_model::spec::Environment;

/// The folder of the customers' folders.
const CUSTOMERS: &str = "config/customers";

/// One env file: the worker's variables, and its other fields under their current names.
#[derive(Clone, Debug, Default)]
pub struct EnvFile {
    /// The file.
    pub file: String,
    /// The worker's variables, each with its place.
    pub vars: BTreeMap<String, (String, Place)>,
    /// The names of the variables that are secrets.
    pub secrets: Vec<String>,
    /// The customer's domain.
    pub domain: Option<(String, Place)>,
    /// The id of the account.
    pub account_id: Option<String>,
    /// The id of the zone and its place.
    pub zone_id: Option<(String, Place)>,
    /// The name of the database.
    pub database_name: Option<(String, Place)>,
    /// The id of the database.
    pub database_id: Option<String>,
    /// wrangler's file for this customer, from the project's folder.
    pub wrangler: Option<(String, Place)>,
}

/// All env files of a project.
#[derive(Clone, Debug, Default)]
pub struct EnvFiles {
    /// The files for all customers.
    pub base: Vec<EnvFile>,
    /// The files of each customer and environment.
    pub customers: BTreeMap<(String, Environment), EnvFile>,
}

/// Reads the env files of a project.
pub fn read(root: &Path, tree: &Tree, findings: &mut Findings, errors: &mut Vec<Diagnostic>) -> EnvFiles {
    let mut files = EnvFiles::default();
    for name in tree.names("config/base").unwrap_or_default().iter().filter(|name| name.ends_with(".env")) {
        files.base.extend(env_file(tree, &format!("config/base/{name}"), findings, errors));
    }
    for folder in tree.names(CUSTOMERS).unwrap_or_default() {
        let path = format!("{CUSTOMERS}/{folder}");
        if std::fs::symlink_metadata(root.join(&path)).is_ok_and(|metadata| metadata.is_symlink()) {
            findings.left_out(Place::file(&path), "it is a symbolic link", "put a copy here");
            continue;
        }
        for name in tree.names(&path).unwrap_or_default() {
            let Some(written) = name.strip_suffix(".env") else { continue };
            let file = format!("{path}/{name}");
            let environment = match environment(written).map_or_else(|| named(written), Ok) {
                Ok(environment) => environment,
                Err(flaw) => {
                    let message = format!("`{written}` can't be an environment of a fleet");
                    findings.left_out(Place::file(&file), message, flaw.help());
                    continue;
                }
            };
            if let Some(read) = env_file(tree, &file, findings, errors) {
                files.customers.insert((slug(&folder), environment), read);
            }
        }
    }
    files
}

fn env_file(tree: &Tree, file: &str, findings: &mut Findings, errors: &mut Vec<Diagnostic>) -> Option<EnvFile> {
    let bytes = tree.plain(file).map_err(|diagnostic| errors.push(*diagnostic)).ok()?;
    let (document, diagnostics) = envfile::parse(file, &bytes);
    let mut read = EnvFile { file: file.to_owned(), ..EnvFile::default() };
    for diagnostic in diagnostics {
        // What it says of a secret is its name.
        let name = diagnostic.message.split('`').nth(1).unwrap_or_default().to_owned();
        match diagnostic.code {
            Code::LiteralSecret => secret(&mut read, &name, diagnostic.place, findings),
            _ => errors.push(diagnostic),
        }
    }
    let Some(Kind::Map(entries)) = document.root.get("vars").map(|node| &node.kind) else { return Some(read) };
    for (name, span, node) in entries {
        let place = document.place(*span);
        let Kind::Text(value) = &node.kind else { continue };
        if credential::is_credential(name, value) {
            secret(&mut read, name, place, findings);
            continue;
        }
        if value.is_empty() {
            continue;
        }
        let value = value.clone();
        match name.as_str() {
            "CUSTOMER_DOMAIN" => read.domain = Some((bare(&value), place)),
            "DOMAIN" => {
                let help = "it is mapped like CUSTOMER_DOMAIN";
                findings.note(place.clone(), "`DOMAIN` is the older name of `CUSTOMER_DOMAIN`", help);
                read.domain.get_or_insert((bare(&value), place));
            }
            "CLOUDFLARE_ACCOUNT_ID" => read.account_id = findings.account_id(&value, place),
            "CLOUDFLARE_ZONE_ID" => read.zone_id = Some((value, place)),
            "DATABASE_NAME" => read.database_name = Some((value, place)),
            "DATABASE_ID" => read.database_id = Some(value),
            "WRANGLER_CONFIG" => read.wrangler = Some((value, place)),
            _ => _ = read.vars.insert(name.clone(), (value, place)),
        }
    }
    Some(read)
}

fn secret(read: &mut EnvFile, name: &str, place: Place, findings: &mut Findings) {
    let told = "its value was not copied; if the file was ever committed, have a new one issued";
    let of_account = matches!(name, "CLOUDFLARE_API_TOKEN" | "CF_API_TOKEN" | "CLOUDFLARE_API_KEY" | "CF_API_KEY");
    let (message, help) = if of_account {
        (
            format!("`{name}` is an API token of the account"),
            format!(
                "it is the deploy credential of the account, and no worker needs it: set the environment variable; {told}"
            ),
        )
    } else {
        read.secrets.push(name.to_owned());
        (format!("the file contains the secret `{name}`"), format!("it is now a secret of the worker; {told}"))
    };
    findings.credential(place, message, help);
}

/// Returns the host of an address: `https://shop.example.com/` is `shop.example.com`.
fn bare(domain: &str) -> String {
    let domain = domain.split_once("://").map_or(domain, |(_, rest)| rest);
    domain.split('/').next().unwrap_or_default().to_owned()
}
