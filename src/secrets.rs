//! Where the values of secrets come from: the environment, and a dotenv file outside of git. Values leave this module
//! only as `SecretString`, which prints as nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use crate::customer::Worker;
use crate::failure::Failure;
use crate::names::own_secret;
use crate::state::Fingerprints;

/// The dotenv file that is read if it is there.
pub const DOTENV: &str = ".env";

/// Looks a name up in the environment.
type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The sources of secrets.
pub struct Secrets {
    file: HashMap<String, SecretString>,
    environment: Box<Lookup>,
    made_up: bool,
}

impl Secrets {
    /// The process's environment and a dotenv file; `named` files have to be there. Made up: a secret that is
    /// nowhere gets a value that is good for the local Cloudflare alone.
    pub fn read(root: &Path, named: Option<&Path>, made_up: bool) -> Result<Secrets, Failure> {
        let path = named.map_or_else(|| root.join(DOTENV), Path::to_owned);
        let mut file = HashMap::new();
        if named.is_some() || path.exists() {
            // Neither error nor line is shown: both can hold a value.
            let unreadable = |line: Option<usize>| {
                let at = line.map(|line| format!(", near entry {line}")).unwrap_or_default();
                Failure::new(format!("the dotenv file {} can't be read{at}", path.display()))
                    .hint("each line is NAME=value, with quotes around a value that has spaces or `#`")
            };
            let entries = dotenvy::from_path_iter(&path).map_err(|_| unreadable(None))?;
            for (at, entry) in entries.enumerate() {
                let (name, value) = entry.map_err(|_| unreadable(Some(at + 1)))?;
                file.insert(name, SecretString::from(value));
            }
        }
        let environment = Box::new(|name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()));
        Ok(Secrets { file, environment, made_up })
    }

    /// A secret by its own name.
    pub fn named(&self, name: &str) -> Option<SecretString> {
        (self.environment)(name).map(SecretString::from).or_else(|| self.file.get(name).cloned())
    }

    /// A customer's secret: `CUSTOMER__NAME`, and then `NAME`.
    pub fn of(&self, customer: &str, name: &str) -> Option<SecretString> {
        self.named(&own_secret(customer, name))
            .or_else(|| self.named(name))
            .or_else(|| self.made_up.then(|| SecretString::from(format!("made-up-for-{customer}-{name}"))))
    }

    /// The fingerprints of a worker's secrets, by binding, as far as their values are known here.
    pub fn fingerprints(&self, worker: &Worker, fingerprints: &Fingerprints) -> BTreeMap<String, String> {
        let known = worker.secrets.iter().filter_map(|(binding, name)| {
            let value = self.of(&worker.customer, name)?;
            Some((binding.clone(), fingerprints.of(value.expose_secret())))
        });
        known.collect()
    }

    /// The values of all secrets of a worker, by binding; or the names of those that are missing.
    pub fn for_worker(&self, worker: &Worker) -> Result<HashMap<String, SecretString>, Vec<String>> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for (binding, name) in &worker.secrets {
            match self.of(&worker.customer, name) {
                Some(value) => {
                    found.insert(binding.clone(), value);
                }
                None => missing.push(name.clone()),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(missing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(environment: &'static [(&str, &str)], file: &[(&str, &str)]) -> Secrets {
        Secrets {
            file: file.iter().map(|(name, value)| ((*name).to_owned(), SecretString::from(*value))).collect(),
            environment: Box::new(|name| {
                environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            }),
            made_up: false,
        }
    }

    #[test]
    fn the_customers_own_value_comes_first() {
        let secrets = secrets(&[("T", "env")], &[("CAFE_CENTRAL__T", "own"), ("T", "file")]);
        let of = |customer| secrets.of(customer, "T").map(|value| value.expose_secret().to_owned());
        assert_eq!(of("cafe-central").as_deref(), Some("own"));
        assert_eq!(of("acme").as_deref(), Some("env"));
        assert!(secrets.of("acme", "U").is_none());
    }

    #[test]
    fn a_broken_dotenv_file_is_told_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e");
        std::fs::write(&path, "A=1\nB='canary-value\n").unwrap();
        let failure = Secrets::read(folder.path(), Some(&path), false).err().unwrap();
        assert!(!format!("{failure} {:?}", failure.hints).contains("canary"));
    }
}
