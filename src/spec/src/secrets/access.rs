//! The secrets that specs may name. A name of a spec is looked up beside what flotilla, CI and this machine's programs need
//! themselves, so that a spec could have any of it uploaded. Knows names alone, never values.

use flotilla_model::customer::SHARED;
use flotilla_model::names::{Wrong, own_secret, without_own};
use flotilla_model::service_key;
use flotilla_model::spec::IdentityPlace;

use crate::project::Fleet;

/// The beginnings of names that belong to programs, and the programs.
const FAMILIES: [(&str, &str); 15] = [
    ("CLOUDFLARE_", "flotilla and wrangler"),
    ("CF_API_", "wrangler"),
    ("WRANGLER_", "wrangler"),
    ("FLOTILLA_", "flotilla"),
    ("GITHUB_", "GitHub Actions"),
    ("ACTIONS_", "GitHub Actions"),
    ("RUNNER_", "GitHub Actions"),
    ("GITLAB_", "GitLab"),
    ("CI_", "GitLab"),
    ("BUILDKITE_", "Buildkite"),
    ("CIRCLE_", "CircleCI"),
    ("BITBUCKET_", "Bitbucket"),
    ("AWS_", "the programs of AWS"),
    ("SOPS_", "sops"),
    ("VAULT_", "vault"),
];
/// Names that belong to programs, and the programs.
const SINGLE: [(&str, &str); 30] = [
    ("CI", "CI"),
    ("GH_TOKEN", "GitHub's program"),
    ("GH_ENTERPRISE_TOKEN", "GitHub's program"),
    ("GL_TOKEN", "GitLab's program"),
    ("SYSTEM_ACCESSTOKEN", "Azure Pipelines"),
    ("NPM_TOKEN", "npm"),
    ("NODE_AUTH_TOKEN", "npm"),
    ("CARGO_REGISTRY_TOKEN", "cargo"),
    ("DOCKER_AUTH_CONFIG", "docker"),
    ("KUBECONFIG", "kubectl"),
    ("SSH_AUTH_SOCK", "ssh"),
    ("SSH_PRIVATE_KEY", "ssh"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "the programs of Google Cloud"),
    ("GOOGLE_OAUTH_ACCESS_TOKEN", "the programs of Google Cloud"),
    ("AZURE_CLIENT_SECRET", "the programs of Azure"),
    ("ARM_CLIENT_SECRET", "the programs of Azure"),
    ("OP_SERVICE_ACCOUNT_TOKEN", "1Password's program"),
    ("OP_CONNECT_TOKEN", "1Password's program"),
    ("BWS_ACCESS_TOKEN", "Bitwarden's program"),
    ("DOPPLER_TOKEN", "Doppler's program"),
    ("INFISICAL_TOKEN", "Infisical's program"),
    ("TURSO_API_TOKEN", "Turso's program"),
    ("PATH", "the shell"),
    ("HOME", "the shell"),
    ("USER", "the shell"),
    ("LOGNAME", "the shell"),
    ("SHELL", "the shell"),
    ("PWD", "the shell"),
    ("HOSTNAME", "the shell"),
    ("TMPDIR", "the shell"),
];

/// Returns why a customer's worker may not have a secret, and what to do, if it may not.
pub fn refusal(fleet: &Fleet, customer: &str, name: &str) -> Option<Wrong> {
    let (own, base) = (own_secret(customer, name), without_own(customer, name));
    let shared = own_secret(SHARED, "");
    if name.starts_with(&shared) && own_secret(customer, "") != shared {
        let message = format!("`{name}` is a secret of the workers that all customers share");
        return Some((message, "give the customer a secret of its own, under another name".to_owned()));
    }
    for looked_up in [name, &own] {
        let as_what = if looked_up == name { String::new() } else { format!(", looked up as `{looked_up}`,") };
        if let Some(what) = credential_of(fleet, looked_up) {
            let message = format!("`{name}`{as_what} is {what}: a customer's worker would get it");
            return Some((message, "give the customer a secret of its own, under another name".to_owned()));
        }
    }
    // A source that was left out as faulty may list it.
    if fleet.has_left_out(&["secrets"]) {
        return None;
    }
    let sources = || fleet.file.secrets.iter().flatten();
    // A customer's own value has another name than any program's.
    if base == name
        && let Some(program) = program_of(name)
        && !sources().any(|source| source.lists(name))
    {
        let message =
            format!("`{name}` belongs to {program}: a customer's worker would get a credential of this machine");
        let help = format!(
            "name the customer's own value, `{{ secret: {own} }}`, or another name; if customers may use this one, list it in \
             `names` of its source in fleet.yaml"
        );
        return Some((message, help));
    }
    if fleet.file.secrets.is_some() && !sources().any(|source| source.admits(base)) {
        let message = format!("no source of secrets in fleet.yaml allows workers to use `{base}`");
        let help = format!("add it to `names` of a source: `names: [{base}]`; or name a secret that is listed there");
        return Some((message, help));
    }
    None
}

/// Returns what a name is, if it is one of the fleet's own credentials.
fn credential_of(fleet: &Fleet, name: &str) -> Option<String> {
    if let Some(account) = fleet.accounts.of_token(name) {
        return Some(format!("the API token of the account `{account}`"));
    }
    if [service_key::SOURCE, service_key::PREVIOUS].contains(&name) {
        return Some("the secret that the keys of calls between workers are derived from".to_owned());
    }
    let opens = |identity: &IdentityPlace| identity.env.as_deref() == Some(name);
    let source = fleet.file.secrets.iter().flatten().find(|source| source.identity.as_ref().is_some_and(opens))?;
    Some(format!("the key that opens {}", source.age.as_deref().unwrap_or_default()))
}

/// Returns the program that a name belongs to: no customer's worker may have a secret of this name, unless fleet.yaml lists it.
pub fn program_of(name: &str) -> Option<&'static str> {
    let single = SINGLE.iter().find(|(single, _)| *single == name);
    // Two underscores end the prefix of a customer: no program has such names.
    let family =
        || FAMILIES.iter().find(|(start, _)| name.strip_prefix(start).is_some_and(|rest| !rest.starts_with('_')));
    single.or_else(family).map(|(_, program)| *program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::read_fleet;
    use crate::tree::Tree;

    fn fleet(text: &str) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pack")).unwrap();
        std::fs::write(
            folder.path().join("fleet.yaml"),
            format!("name: test\npacks: {{ p: {{ path: pack }} }}\n{text}"),
        )
        .unwrap();
        let fleet = read_fleet(&Tree::new(folder.path()));
        fleet.unwrap_or_else(|found| panic!("{found:?}"))
    }

    #[test]
    fn credentials_are_refused_whatever_is_listed() {
        let fleet = fleet(
            "accounts: { eu: { id: { env: EU_ID }, token: { secret: EU_TOKEN } } }\n\
             secrets: [{ age: a.age, identity: { env: ACME__KEY } }, { env: true, names: [\"*\", EU_TOKEN, CI, ACME__KEY, FLOTILLA_SERVICE_KEY] }]\n",
        );
        let refused = |customer: &str, name: &str| refusal(&fleet, customer, name).map(|(message, _)| message);
        assert!(refused("acme", "EU_TOKEN").unwrap().contains("the API token of the account `eu`"));
        assert!(refused("acme", "FLOTILLA_SERVICE_KEY").unwrap().contains("the keys of calls between workers"));
        assert!(refused("acme", "ACME__KEY").unwrap().contains("the key that opens a.age"));
        assert!(refused("acme", "KEY").unwrap().contains("looked up as `ACME__KEY`"));
        assert_eq!(refused("bluebird", "KEY"), None);
        assert!(refused("bluebird", "SHARED__KEY").unwrap().contains("workers that all customers share"));
        assert_eq!(refused(SHARED, "SHARED__KEY"), None);
        // What no program of the deploy can do without can be listed by name; a `*` lists nothing of it.
        assert_eq!(refused("acme", "CI"), None);
        assert!(refused("acme", "GITHUB_TOKEN").unwrap().contains("GitHub Actions"));
    }

    #[test]
    fn names_of_programs_are_refused_and_own_ones_are_not() {
        let fleet = fleet("");
        for name in [
            "CLOUDFLARE_API_KEY",
            "FLOTILLA_KEY",
            "GITHUB_TOKEN",
            "ACTIONS_RUNTIME_TOKEN",
            "CI",
            "CI_JOB_TOKEN",
            "AWS_SESSION_TOKEN",
            "HOME",
        ] {
            assert!(refusal(&fleet, "acme", name).is_some(), "{name}");
        }
        for (customer, name) in
            [("acme", "CIRCUS"), ("acme", "GITHUBBER"), ("github", "GITHUB__TOKEN"), ("acme", "ACME__GITHUB_TOKEN")]
        {
            assert_eq!(refusal(&fleet, customer, name), None, "{customer} {name}");
        }
    }

    #[test]
    fn a_list_admits_what_is_on_it() {
        let fleet = fleet("secrets: [{ dotenv: .env, names: [SHOP_*, KEY] }, { env: true, purpose: deploy }]\n");
        for (name, is_refused) in [
            ("SHOP_KEY", false),
            ("KEY", false),
            ("A__KEY", false),
            ("A__SHOP_X", false),
            ("KEYS", true),
            ("A__X", true),
        ] {
            assert_eq!(refusal(&fleet, "a", name).is_some(), is_refused, "{name}");
        }
    }
}
